"""How a series goes with t on log-log paper, how far that can be trusted, and how many more steps would settle it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

SURE = 2.5  # standard errors: a slope is taken for another by chance once in 160 times, and never by that alone
BATCHES = 8  # pieces of a block, whose scatter is its noise: few, so that each outlasts what successive steps share
ROUNDING = 1e-9  # a smaller noise is that of the sums' last digits, and none is known
QUIETEST = 0.1  # of the median noise: a block may tell ten times as much as most, for no law is followed so closely
PROMISE = 0.8  # how surely the steps that are said to decide must decide
FARTHEST = 12  # half-octaves: who asks for more than 64 times the run might as well say that more steps do not help


@dataclass(frozen=True)
class Trend:
    """The slope of a log-log series of blocks, and how far it can be trusted."""

    slope: float
    low: float
    high: float
    """16 and 84 % of the slopes of all pairs of blocks, or the slope ± `SURE` standard errors where that is wider."""
    late: float
    """The slope over the later half of the blocks: a start-up that is not over shows as a difference."""
    error: float
    """Standard error of the slope."""
    end: float
    """The slope over the last three blocks: what falls must still fall, and what does not must not begin to."""
    end_error: float
    """Its standard error."""


def trend(t: ArrayLike, values: ArrayLike, noise: ArrayLike | None = None) -> Trend:
    """Return the trend of positive `values` in t; `noise` is the relative standard error of each, 0 where unknown.

    The error is that of a straight line through values of such noise, or that of the values' own scatter about a line
    where it is larger: 1.2/√n times half the distance from `low` to `high` (n = 5 … 14 independent values, simulated).
    """
    x, y = np.log(np.asarray(t, dtype=np.float64)), np.log(np.asarray(values, dtype=np.float64))
    half = len(x) - max(4, math.ceil(len(x) / 2))
    away = x - x.mean()
    known = np.zeros(len(x)) if noise is None else np.minimum(np.asarray(noise, dtype=np.float64), 1.0)
    known = np.where(known < ROUNDING, 0.0, known)
    slope, low, high = theil_sen(x, y, known)
    error = max(_error(x, known), 1.2 / math.sqrt(len(x)) * (high - low) / 2)
    late = theil_sen(x[half:], y[half:], known[half:])[0]
    unknown = not known[-3:].all()
    last = error * math.sqrt(float((away**2).sum())) / _length(x[-3:]) if unknown else _error(x[-3:], known[-3:])
    end = theil_sen(x[-3:], y[-3:])[0]
    return Trend(slope, min(low, slope - SURE * error), max(high, slope + SURE * error), late, error, end, last)


def _error(x: Array, noise: Array) -> float:
    """Return the standard error of a straight line's slope through values of such noise at x."""
    away = x - x.mean()
    return math.sqrt(float((away**2 * noise**2).sum())) / float((away**2).sum())


def _length(x: Array) -> float:
    return math.sqrt(float(((x - x.mean()) ** 2).sum()))


def theil_sen(log_t: ArrayLike, log_ratio: ArrayLike, noise: Array | None = None) -> tuple[float, float, float]:
    """Return the median of all pairwise slopes and their 16 and 84 % quantiles, each slope weighed by 1 over its error.

    (G. L. Sievers, Weighted rank statistics for simple linear regression, J. Am. Statist. Assoc. 73, 1978.) `noise` is
    the error of each point, 0 where unknown: such a point is taken to be as noisy as most, or all to be alike.
    """
    x, y = np.asarray(log_t, dtype=np.float64), np.asarray(log_ratio, dtype=np.float64)
    first, second = np.triu_indices(len(x), k=1)
    apart = x[second] - x[first]
    slopes, own = (y[second] - y[first]) / apart, np.ones(len(x))
    if noise is not None and (noise > 0).any():
        typical = np.median(noise[noise > 0])
        own = np.maximum(np.where(noise > 0, noise, typical), QUIETEST * typical)
    weights = apart / np.hypot(own[first], own[second])
    order = np.argsort(slopes)
    reached = weights[order].cumsum() - weights[order] / 2
    low, middle, high = np.interp(np.array([0.16, 0.5, 0.84]) * weights.sum(), reached, slopes[order])
    return float(middle), float(low), float(high)


def block_noise(numerator: ArrayLike, a: ArrayLike, index: NDArray[np.intp]) -> Array:
    """Return the relative standard error of each block's ratio, from the scatter of its pieces between records.

    Pieces are many steps long, so that gradients which resemble their neighbours are allowed for (batch means). 0
    where a block has fewer than three pieces.
    """
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(a, dtype=np.float64)
    noise = np.zeros(max(len(index) - 1, 0))
    for j, (first, last) in enumerate(pairwise(index)):
        rows = np.unique(np.linspace(first, last, min(BATCHES, last - first) + 1).round().astype(int))
        pieces, weights = np.diff(top[rows]), np.diff(bottom[rows])
        m, whole, weight = len(pieces), float(pieces.sum()), float(weights.sum())
        if m >= 3 and math.isfinite(whole) and whole > 0 and weight > 0:
            noise[j] = math.sqrt(m / (m - 1) * float(((pieces - whole / weight * weights) ** 2).sum())) / whole
    return noise


def steps_until(last: int, chance: Callable[[float], float]) -> int | None:
    """Return how many more steps decide with probability `PROMISE`; None where 64 times as many would not.

    `chance(c)` is the probability of a decision after c times the `last` steps.
    """
    longer = (2.0 ** (k / 2) for k in range(1, FARTHEST + 1))
    return next((math.ceil((c - 1) * last) for c in longer if chance(c) >= PROMISE), None)


def later(found: Trend, c: float) -> NormalDist:
    """Return where the slope seen after c times the steps will lie: off the true one, as this one is."""
    return NormalDist(found.slope, max(found.error * math.sqrt(1 + 1 / c), 1e-9))
