"""Where a box holds an iterate that is driven against it: a second computation of ends, without the compiled engine."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .recent import inverse_moment

Array = NDArray[np.float64]


def end_at_wall(
    moves: ArrayLike, steps: int, alpha: Callable[[int], float], box: tuple[float, float], *, periods: int = 3
) -> float:
    """Return x after step `steps` of x ← clip(x − α_t·moves[(t−1) mod d]), moves (d,) one period of m/√v.

    Once the iterate has come to the wall that the period's sum drives it to, it touches it in every period, and there
    a walk that started at this wall meets it: the last periods are enough. NaN if the wall is not touched in them.
    """
    period = np.asarray(moves, dtype=np.float64)
    wall = box[0] if period.sum() > 0 else box[1]
    x, touched = wall, False
    for t in range(max(1, steps + 1 - periods * len(period)), steps + 1):
        free = x - alpha(t) * period[(t - 1) % len(period)]
        x = min(max(free, box[0]), box[1])
        touched = touched or (x == wall and free != wall)
    return x if touched else math.nan


def unbiased_distance(
    probabilities: ArrayLike, gradients: ArrayLike, beta2: float, alpha: float
) -> tuple[float, float]:
    """Return bounds on the stationary mean distance from the wall that a method with an older second moment keeps.

    ADOPT without momentum moves by −α g_t/√v with v of the step before, of mean −α μ and mean square α² σ², where
    μ = E g·E v^(−1/2), σ² = E g²·E v^(−1). Successive steps share v, but their covariance carries the factor E g, which
    is taken to be small. A walk that a wall reflects has the mean distance α(σ² − E I²)/(2|μ|), I being what the wall
    cuts from a step: Lindley's recursion, as for a queue. By balance E I = |μ|, and I ≤ max|g|/√v ≤ max|g|/min|g|
    because v ≥ min g². Derived here for this walk.
    """
    p, g = np.asarray(probabilities, dtype=np.float64), np.asarray(gradients, dtype=np.float64)
    mean = abs(float(p @ g)) * inverse_moment(p, g, beta2, 0.5)
    square = float(p @ g**2) * inverse_moment(p, g, beta2, 1.0)
    cut = float(np.abs(g).max() / np.abs(g).min())
    return max(0.0, alpha * (square - cut * mean) / (2 * mean)), alpha * square / (2 * mean)
