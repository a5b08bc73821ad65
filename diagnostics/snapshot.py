"""What a record holds of one tensor beside its sums, read off in one call of compiled code."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled, inner
from .one_step import BLOCK, load

Array = NDArray[np.float64]

LEVELS = (0.0, 0.01, 0.5, 0.99, 1.0)
"""The smallest stepsize, 1, 50 and 99 %, and the largest."""
QUANTILES = len(LEVELS)
SQUARE = QUANTILES
"""The mean square of θ; behind it the variances of the sums per coordinate."""
ENTRIES = SQUARE + 1 + 4


@inner(fastmath={"reassoc", "nsz"})
def total(x: Array) -> float:
    """Return Σ x, in vector lanes."""
    found = 0.0
    for i in range(len(x)):
        found += x[i]
    return found


@inner(fastmath={"reassoc", "nsz"})
def spread(x: Array, mean: float) -> float:
    """Return Σ (x - mean)², in vector lanes."""
    found = 0.0
    for i in range(len(x)):
        found += (x[i] - mean) ** 2
    return found


@compiled
def snapshot(
    root: Array,
    then: Array,
    each: Array,
    theta: int,
    size: int,
    index: NDArray[np.int64],
    numel: int,
    out: Array,
) -> None:
    """Write to `out` (`ENTRIES`,) what stands above; NaN where there is nothing to tell.

    `root` and `then` are √v and the coefficients of the newest step, `each` the sums per coordinate of a sample
    `(4, watched)`. θ lies at the address `theta`, in elements of `size` bytes, at `index`, or everywhere.
    """
    out[:] = math.nan
    lr, gain, scale, eps, _, _, _ = then
    e = np.empty(len(root))
    active = 0
    for i in range(len(root)):
        if root[i] > 0.0:
            e[active] = lr * (gain / (scale * root[i] + eps))
            active += 1
    if active > 0:
        places = np.rint(np.array(LEVELS) * (active - 1)).astype(np.int64)
        out[:QUANTILES] = np.partition(e[:active], places)[places]
    if size > 0:
        count = len(index) if len(index) else numel
        held, square = np.empty(min(BLOCK, count)), 0.0
        for begin in range(0, count, BLOCK):
            values = held[: min(BLOCK, count - begin)]
            load(theta, size, index, numel, begin, values)
            square += spread(values, 0.0)
        out[SQUARE] = square / count
    if each.shape[1] > 1:
        for k in range(4):
            out[SQUARE + 1 + k] = spread(each[k], total(each[k]) / each.shape[1]) / (each.shape[1] - 1)
