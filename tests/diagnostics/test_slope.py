"""Slope and noise: the sign test against all flips, the noise scale against its definition, real descent."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.diagnostics.slope import CHANCE, measure_slope, sign_test

K, LENGTH = 8, 50  # stretches, and steps in each
WINDOW = (401, 800)


def gram(means):
    """The products of stretch means `(k, coords)`."""
    return means @ means.T


def noisy(rng, slope, sigma, coords):
    """Stretch means of a constant gradient under noise of standard deviation `sigma` per step and coordinate."""
    return slope + sigma / math.sqrt(LENGTH) * rng.normal(size=(K, coords))


@given(seed=st.integers(0, 10**6), k=st.integers(3, 9), coords=st.integers(1, 3))
@settings(max_examples=40)
def test_sign_test_is_the_share_of_all_flips(seed, k, coords):
    means = np.random.default_rng(seed).normal(size=(k, coords))
    lengths = [np.linalg.norm(np.array(signs) @ means) for signs in itertools.product((1, -1), repeat=k)]
    seen = np.linalg.norm(means.sum(axis=0))
    assert sign_test(gram(means)) == pytest.approx(np.mean(np.array(lengths) >= seen - 1e-9), abs=1e-12)


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-100, 1e100))
@settings(max_examples=30)
def test_answers_know_no_scale_and_no_direction_of_time(seed, scale):
    means = np.random.default_rng(seed).normal(size=(K, 5)) + 0.5
    plain = measure_slope(gram(means), *WINDOW)
    scaled = measure_slope(scale**2 * gram(means), *WINDOW)
    turned = measure_slope(gram(-means[::-1]), *WINDOW)
    assert scaled.chance == plain.chance == turned.chance
    assert scaled.share == pytest.approx(plain.share)
    assert turned.share == pytest.approx(plain.share)
    assert scaled.promised == pytest.approx(scale**2 * plain.promised)


LAWS = {
    "Gaussian": lambda rng, shape: rng.normal(size=shape),
    "without a mean square": lambda rng, shape: rng.standard_cauchy(size=shape),
    "of growing size": lambda rng, shape: rng.normal(size=shape) * 3.0 ** np.arange(K)[:, None],
    "of two points": lambda rng, shape: rng.choice([-1.0, 1.0], size=shape),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
@pytest.mark.parametrize("coords", [1, 30])
def test_noise_is_taken_for_slope_no_more_often_than_stated(law, coords):
    """Exact level CHANCE. Of 2000 runs at most 100 are expected; 135 or more have a chance below 3e-4 in a cell."""
    rng = np.random.default_rng(5)
    found = [measure_slope(gram(law(rng, (K, coords))), *WINDOW).told for _ in range(2000)]
    assert sum(found) < 135
    assert CHANCE == 0.05


def test_the_noise_scale_is_noise_over_slope():
    """τ = σ²/G² = 400, here the whole window; over 40 runs of 4000 coordinates it scatters by about 2 %."""
    rng, coords, slope, sigma = np.random.default_rng(1), 4000, 0.1, 2.0
    found = [measure_slope(gram(noisy(rng, slope, sigma, coords)), *WINDOW) for _ in range(40)]
    expected = sigma**2 / slope**2
    assert np.mean([s.scale for s in found]) == pytest.approx(expected, rel=0.08)
    assert np.mean([s.promised for s in found]) == pytest.approx(coords * slope**2, rel=0.08)
    assert all(s.told for s in found)
    assert np.mean([s.share for s in found]) == pytest.approx(1 / (1 + expected / 400), rel=0.08)


@pytest.mark.parametrize("fade", [1.0, 0.5, 0.2, 1.6])
def test_a_slope_that_fades_or_grows_is_slope(fade):
    """Without noise every product is positive, so no flip is as long: 1 in 2^7. Neighbours lie a factor apart."""
    slope = measure_slope(gram(fade ** np.arange(K)[:, None] * np.ones((1, 3))), *WINDOW)
    assert slope.chance == 2.0 ** (1 - K)
    apart = (fade + 1 / fade) / 2 - 1  # Q/S - 1 for neighbours a and a·fade
    assert slope.share >= 1 / (1 + apart / K) - 1e-12


def test_a_slope_that_turns_is_slope():
    """A quarter turn in all: neighbours stay aligned to cos(π/14) = 0.97, first and last have nothing in common."""
    angles = np.linspace(0, np.pi / 2, K)
    slope = measure_slope(gram(np.stack([np.cos(angles), np.sin(angles)], axis=1)), *WINDOW)
    assert slope.told
    assert slope.promised == pytest.approx(np.cos(np.pi / 14))


def test_gradients_that_cancel_leave_no_slope():
    """A cycle: the sums over stretches alternate, or vanish altogether."""
    for means in (np.array([[1.0], [-1.0]] * (K // 2)), np.zeros((K, 1))):
        slope = measure_slope(gram(means), *WINDOW)
        assert (slope.told, slope.share, slope.scale) == (False, 0.0, math.inf)


def test_what_is_not_finite_has_no_answer():
    broken = np.ones((K, K))
    broken[2, 3] = math.nan
    assert measure_slope(broken, *WINDOW) is None


def test_the_promise_is_what_slow_descent_keeps(worlds):
    """On x²/2 without noise and with steps of 1e-4, the loss falls by S in each, to first order in both.

    Over the window G fades by exp(-0.1); neighbours, 1/8 of it apart, differ by 1.3 %, whose square enters S.
    """
    steps, rate = 2000, 1e-4
    x = 3.0 * (1 - rate) ** np.arange(steps + 1)
    world = worlds.World(x[:-1, None], np.full((steps, 1), rate), np.full(steps, rate))
    drift = world.trace().drift
    slope = measure_slope(drift.gram_gg[0], drift.first_step, drift.last_step)
    fell = (x[drift.first_step - 1] ** 2 - x[drift.last_step] ** 2) / 2
    assert slope.promised * (drift.last_step - drift.first_step + 1) == pytest.approx(fell, rel=2e-3)
