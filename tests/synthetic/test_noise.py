"""Laws of noise: moments and tails that the docstrings promise, and streams that do not mind how they are cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.synthetic.noise import Gaussian, HeavyTailed, TwoPoint, require_noise

# law, E|ξ|² and E ξ³; None where it does not exist
LAWS = {
    "gaussian": (Gaussian(2.0), 4.0, 0.0),
    "rare": (TwoPoint(100.0, 0.01), 100.0**2 * 0.01 / 0.99, 100.0**3 * 0.01 * 0.98 / 0.99**2),
    "frequent": (TwoPoint(-1.0, 0.75), 3.0, -(0.75 * -0.5) / 0.0625),
    "pareto": (HeavyTailed(9.0, 2.0), 2 * 2.0**2 / (8 * 7), 0.0),
    "no variance": (HeavyTailed(1.5), None, None),
}


@pytest.mark.parametrize("name", LAWS)
@given(cuts=st.lists(st.integers(0, 50), min_size=1, max_size=6), dim=st.integers(1, 3))
@settings(max_examples=20)
def test_a_stream_does_not_depend_on_how_it_is_cut(name, cuts, dim):
    law = LAWS[name][0]
    take = law.stream(dim, np.random.default_rng(1))
    got = np.concatenate([take(k) for k in cuts])
    assert got.shape == (sum(cuts), dim)
    np.testing.assert_array_equal(got, law.stream(dim, np.random.default_rng(1))(sum(cuts)))


@pytest.mark.parametrize("name", [name for name in LAWS if LAWS[name][1] is not None])
def test_moments(name):
    """z-tests with the sample's own standard error at |z| < 6: false-alarm rate 2e-9 each, were the means normal."""
    law, second, third = LAWS[name]
    drawn = law.stream(2, np.random.default_rng(7))(500_000).reshape(-1)
    for power, expected in ((1, 0.0), (2, second), (3, third)):
        terms = drawn**power
        error = terms.std() / math.sqrt(len(terms))
        assert abs(terms.mean() - expected) <= 6 * error


@pytest.mark.parametrize("tail", [1.2, 1.5, 3.0])
def test_tails_follow_the_power_law(tail):
    """Dvoretzky-Kiefer-Wolfowitz: sup |F_n - F| exceeds sqrt(ln(2/1e-9)/(2n)) with probability below 1e-9."""
    drawn = HeavyTailed(tail, 0.5).stream(1, np.random.default_rng(2))(100_000)[:, 0]
    u = np.sort(drawn)
    beyond = (1 + np.abs(u) / 0.5) ** -tail / 2
    theory = np.where(u < 0, beyond, 1 - beyond)
    assert np.abs(np.arange(1, len(u) + 1) / len(u) - theory).max() <= math.sqrt(math.log(2e9) / (2 * len(u)))


def test_two_points_are_two_values_with_mean_zero():
    law = TwoPoint(9.0, 0.1)
    assert math.isclose(0.1 * law.high + 0.9 * law.low, 0, abs_tol=1e-15)
    assert set(np.unique(law.stream(3, np.random.default_rng(0))(1000))) == {law.high, law.low}


@pytest.mark.parametrize("name", LAWS)
def test_coordinates_are_drawn_apart(name):
    drawn = LAWS[name][0].stream(2, np.random.default_rng(0))(1000)
    assert (drawn[:, 0] != drawn[:, 1]).any()
    assert np.isfinite(drawn).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Gaussian(0.0), "`scale` must be positive"),
        (lambda: Gaussian(math.nan), "`scale` must be positive"),
        (lambda: TwoPoint(1.0, 1.0), "`probability` must lie in"),
        (lambda: TwoPoint(math.inf, 0.5), "`high` must be finite"),
        (lambda: HeavyTailed(1.0), "`tail` must be above 1"),
        (lambda: HeavyTailed(2.0, -1.0), "`scale` must be positive"),
        (lambda: Gaussian("0.1"), "`scale` must be positive and finite, got '0.1'"),
        (lambda: Gaussian([0.1, 0.2]), "`scale` must be positive"),
        (lambda: Gaussian(True), "`scale` must be positive"),
        (lambda: TwoPoint(None, 0.5), "`high` must be finite, got None"),
        (lambda: TwoPoint(1.0, "half"), "`probability` must lie in"),
        (lambda: HeavyTailed("heavy"), "`tail` must be above 1"),
        (lambda: require_noise(0.1), r"`noise` must be a law .* got 0.1: write Gaussian\(0.1\)"),
        (lambda: require_noise(-2), r"`noise` must be a law .* got -2: write Gaussian\(0.1\)"),
        (lambda: require_noise(np.random.default_rng(0).normal), "`noise` must be a law"),
    ],
)
def test_errors_say_what_was_expected(make, said):
    with pytest.raises(ValueError, match=said):
        make()
