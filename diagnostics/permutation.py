"""Whether two groups of runs differ anywhere along a course: the exact test of Westfall and Young (1993), no torch.

If the two settings do the same, every way to share the runs out between them is as likely. Each way has a largest t
over all blocks; where the t of the real groups is among the largest shares of all those maxima, they differ. However
the blocks hang together, and whatever the distribution, some block is called different by chance in at most `rate` of
all comparisons.
"""

from __future__ import annotations

import math
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST = 2000
"""Ways to share the runs out that are looked at: all where there are no more, else a random sample."""


def ways(n: int, m: int) -> float:
    """Return the smallest rate at which n runs can be told from m: one way to share them out among all."""
    return (2.0 if n == m else 1.0) / math.comb(n + m, n)


def differ(here: Array, there: Array, rate: float) -> NDArray[np.int8]:
    """Return for each block 1 where `here` `(n, blocks)` lies above `there` `(m, blocks)`, -1 below, 0 where neither.

    Values must be finite.
    """
    n, together = len(here), np.concatenate([here, there])
    t = _t(together, np.arange(n))
    largest = np.array([np.abs(_t(together, chosen)).max() for chosen in _shares(len(together), n)])
    # A rounding error must not tell a way from its mirror image.
    chance = (largest[:, None] >= np.abs(t) * (1 - 1e-9)).mean(axis=0)
    return np.asarray(np.where((chance <= rate) & (t != 0), np.sign(t), 0).astype(np.int8))


def _shares(runs: int, n: int) -> list[NDArray[np.intp]]:
    """Return the ways to choose n of the runs, the real one first."""
    if math.comb(runs, n) <= MOST:
        return [np.array(chosen) for chosen in combinations(range(runs), n)]
    rng = np.random.default_rng(0)
    return [np.arange(n), *(rng.permutation(runs)[:n] for _ in islice(range(MOST), 1, None))]


def _t(values: Array, chosen: NDArray[np.intp]) -> Array:
    """Return t of the chosen rows against the others in each block; 0 where all values are the same.

    Half of the spread is that of the block, half the median one of all runs over all blocks, which no way to share them
    out changes: a block in which a few runs happen to agree does not rule the maximum (Tusher, Tibshirani & Chu 2001).
    """
    one = np.zeros(len(values), dtype=np.bool_)
    one[chosen] = True
    a, b = values[one], values[~one]
    gap = a.mean(axis=0) - b.mean(axis=0)
    spread = np.sqrt(sum(_variance(group) / len(group) for group in (a, b)))
    usual = float(np.median(values.std(axis=0))) * math.sqrt(1 / len(a) + 1 / len(b))
    size = np.abs(values).max(axis=0, initial=0.0)
    with np.errstate(all="ignore"):
        return np.where(np.abs(gap) <= 1e-9 * size, 0.0, gap / np.maximum(spread + usual, 1e-9 * size))


def _variance(group: Array) -> Array:
    return np.asarray(group.var(axis=0, ddof=1) if len(group) > 1 else np.zeros(group.shape[1]))
