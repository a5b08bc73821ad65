"""Orders of arrival: slow twins, exact shares, and streams that do not mind how they are cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.synthetic.arrivals import DRAWN_AHEAD, FEW, Cyclic, Random, Shuffled

ARRIVALS = {
    "cyclic": (Cyclic([0, 2, 1, 1]), 3),
    "uniform": (Random(), 5),
    "weighted": (Random([0.2, 0.0, 0.8]), 3),
    "shuffled": (Shuffled(), 7),
    "one": (Shuffled(), 1),
}


def arrivals(name, steps, seed=0):
    arrival, n = ARRIVALS[name]
    return arrival.stream(n, np.random.default_rng(seed))(steps)


@pytest.mark.parametrize("name", ARRIVALS)
@given(cuts=st.lists(st.integers(0, 3 * DRAWN_AHEAD), min_size=1, max_size=6))
@settings(max_examples=20)
def test_a_stream_does_not_depend_on_how_it_is_cut(name, cuts):
    arrival, n = ARRIVALS[name]
    take = arrival.stream(n, np.random.default_rng(0))
    got = np.concatenate([take(k) for k in cuts])
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, arrivals(name, sum(cuts)))


@pytest.mark.parametrize("name", ARRIVALS)
def test_shares_over_a_long_run_are_the_weights(name):
    """Exact for cycles and epochs; Hoeffding's bound at a false-alarm rate of 1e-9 for random arrivals."""
    arrival, n = ARRIVALS[name]
    steps = 84_000  # a multiple of every period
    shares = np.bincount(arrivals(name, steps), minlength=n) / steps
    weights = arrival.weights(n)
    assert math.isclose(weights.sum(), 1, rel_tol=1e-15)
    allowed = math.sqrt(math.log(2 * n / 1e-9) / (2 * steps)) if isinstance(arrival, Random) else 1e-12
    assert np.abs(shares - weights).max() <= allowed
    assert (shares[weights == 0] == 0).all()


@given(order=st.lists(st.integers(0, 4), min_size=1, max_size=9), steps=st.integers(0, 60))
def test_a_cycle_is_its_order_again_and_again(order, steps):
    got = Cyclic(order).stream(5, np.random.default_rng(0))(steps)
    assert got.tolist() == [order[t % len(order)] for t in range(steps)]
    np.testing.assert_allclose(Cyclic(order).weights(5), [order.count(i) / len(order) for i in range(5)], rtol=1e-15)


def test_every_epoch_has_every_component_once_in_an_order_of_its_own():
    """P(an order is missing) = (1 - 1/720)^4000 = 0.4 %: 2.8 of 720 are missed on average, and 20 with P < 1e-9."""
    epochs = Shuffled().stream(6, np.random.default_rng(3))(6 * 4000).reshape(-1, 6)
    assert (np.sort(epochs, axis=1) == np.arange(6)).all()
    assert len(np.unique(epochs, axis=0)) >= 700


@pytest.mark.parametrize("n", [1, 2, FEW, FEW + 1, 300])
@pytest.mark.parametrize("uniform", [True, False])
def test_a_random_arrival_is_the_interval_that_a_uniform_number_falls_into(n, uniform):
    """A component of probability zero, here every fifth of many, has an empty interval."""
    p = np.arange(n) % 5 * 1.0 if n > 1 and not uniform else np.ones(n)
    p /= p.sum()
    got = Random(None if uniform else tuple(p)).stream(n, np.random.default_rng(1))(500)
    for u, index in zip(np.random.default_rng(1).random(500), got, strict=True):
        below = p[:index].sum()
        assert below <= u * (1 + 1e-12)
        assert u < (below + p[index]) * (1 + 1e-12)


def test_random_arrivals_are_independent_of_the_one_before():
    """Counts of pairs, chi-square with 15 degrees of freedom for known probabilities: 62 has false-alarm rate 1e-7."""
    p = np.array([0.1, 0.2, 0.3, 0.4])
    drawn = Random(p).stream(4, np.random.default_rng(5))(200_000).reshape(-1, 2)
    expected = np.outer(p, p) * len(drawn)
    counts = np.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16).reshape(4, 4)
    assert (np.square(counts - expected) / expected).sum() < 62


def test_seeds_differ():
    for name in ("uniform", "weighted", "shuffled"):
        assert (arrivals(name, 1000, seed=0) != arrivals(name, 1000, seed=1)).any()


def test_orders_are_values():
    assert Cyclic([0, 1]) == Cyclic((0, 1))
    assert len({Cyclic([0, 1]), Cyclic((0, 1)), Random([0.5, 0.5]), Random((0.5, 0.5)), Shuffled(), Shuffled()}) == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Cyclic([0, 2]).weights(2), "components 0 to 1, got 2"),
        (lambda: Cyclic([0, -1]).stream(2, np.random.default_rng(0)), "components 0 to 1, got -1"),
        (lambda: Cyclic([]), "`order` must be"),
        (lambda: Cyclic([0.5]), "`order` must be"),
        (lambda: Cyclic(3), "`order` must be .* got 3"),
        (lambda: Cyclic("01"), "`order` must be .* got '01'"),
        (lambda: Cyclic([math.nan]), "`order` must be"),
        (lambda: Random(0.5), "`probabilities` must be numbers, got 0.5"),
        (lambda: Random("half"), "`probabilities` must be numbers, got 'half'"),
        (lambda: Random([0.5, 0.6]), "sum to 1, got .* with sum 1.1"),
        (lambda: Random([1.5, -0.5]), "at least 0"),
        (lambda: Random([math.nan, 1.0]), "at least 0"),
        (lambda: Random([0.5, 0.5]).weights(3), "each of 3 components"),
    ],
)
def test_errors_say_what_was_expected(make, said):
    with pytest.raises(ValueError, match=said):
        make()
