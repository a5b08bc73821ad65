"""How far a slope can be trusted, and how many steps would settle it."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from stepscope.diagnostics.trends import FARTHEST, PROMISE, Trend, block_noise, later, steps_until, trend

T = 2.0 ** (np.arange(11) / 2)


@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_the_error_is_the_deviation_of_the_slope(sigma):
    """2000 series of independent values: the mean square of `error` is the variance of the slope, within a quarter.

    The median of slopes is a little less sure than a least-squares line, and `error` allows for that.
    """
    rng = np.random.default_rng(0)
    found = [trend(T, np.exp(sigma * rng.normal(size=len(T)))) for _ in range(2000)]
    actual = np.std([one.slope for one in found])
    assert 0.9 < math.sqrt(np.mean([one.error**2 for one in found])) / actual < 1.25


def test_known_noise_counts_where_the_values_happen_to_agree():
    quiet, noisy = trend(T, T**-0.5), trend(T, T**-0.5, np.full(len(T), 0.1))
    assert quiet.error == pytest.approx(0, abs=1e-12)
    x = np.log(T) - np.log(T).mean()
    assert noisy.error == pytest.approx(0.1 / math.sqrt((x**2).sum()))  # that of a straight line
    assert noisy.low < noisy.slope < noisy.high


def test_a_start_up_shows_in_the_later_half():
    found = trend(T, 1 + 10 * T**-4.0)
    assert found.late > -0.1 > found.low


def test_a_fall_that_came_to_rest_shows_in_the_last_octave():
    noise = np.full(len(T), 0.01)
    assert trend(T, np.maximum(T**-1.0, T[-3] ** -1.0), noise).end > -0.2 > trend(T, T**-0.5, noise).end


@pytest.mark.parametrize("law", ["exponential", "neighbours"])
def test_block_noise_is_that_of_the_block(law):
    """1000 runs of one block of 4096 steps; neighbours of a correlation of 0.9 make it √19 times as noisy."""
    rng, runs, steps = np.random.default_rng(1), 1000, 4096
    e = rng.exponential(size=(runs, steps))
    if law == "neighbours":
        e = np.stack([np.convolve(rng.exponential(size=steps + 149), 0.9 ** np.arange(150), mode="valid") for _ in e])
    records = np.arange(0, steps + 1, 64)
    sums = np.concatenate([np.zeros((runs, 1)), e.cumsum(axis=1)], axis=1)[:, records]
    noise = [block_noise(one, records.astype(float), np.array([0, len(records) - 1]))[0] for one in sums]
    actual = sums[:, -1].std() / sums[:, -1].mean()
    assert math.sqrt(np.mean(np.square(noise))) == pytest.approx(actual, rel=0.12)  # 1000 runs: 3 %


def test_steps_until_is_the_first_that_keeps_the_promise():
    assert steps_until(1000, lambda c: float(c >= 4)) == 3000
    assert steps_until(1000, lambda c: PROMISE if c > 1.4 else 0.0) == math.ceil(1000 * (math.sqrt(2) - 1))
    assert steps_until(1000, lambda c: float(c > 2 ** (FARTHEST / 2) * 1.01)) is None


def test_a_longer_run_is_off_the_same_true_slope():
    """Both slopes err: the difference has the variance error² (1 + 1/c)."""
    assert later(Trend(0.5, 0, 1, 0.5, 0.1, 0.5, 0.1), 4.0) == NormalDist(0.5, 0.1 * math.sqrt(1.25))
