"""The global search: where a function of points on a box is lowest, looked for from very many points at once.

It asks for values alone, so that it also climbs norms of gradients and of second derivatives; where those are at hand,
Newton steps polish what it found. It proves nothing: whoever uses it says so in a note.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import sympy
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .numeric import numeric
from .pieces import number

Array = NDArray[np.float64]
Bounds = list[tuple[float, float]]

SAMPLES, BASINS, STARTS = 1 << 14, 256, 8
"""Points at which a search looks, those lower than their neighbours that it follows, and the best that it polishes."""
FINEST, ROUNDS = 1e-7, 200
"""Where the step of a search's descent ends, as a share of the box, and after how many steps at the latest."""
NEAR, REACH = 0.1, 9.9
"""Along an unbounded side the samples lie at NEAR·sinh(REACH·u), |u| < 1, from the start: up to 1000 away."""
APART = 1e-3
"""Share of the box, or of ten times a point's size where that is unbounded, within which two points are one start."""
AGAIN = 4
"""How often at most a search on an unbounded side begins again around what it found."""
ROOM = 1 << 22
"""Numbers that a search holds at once, which limits its points in many variables."""
CROWDED = 6
"""Beyond so many variables the nearest points are far, and say nothing about where basins end."""
FLAT = 1e-12
"""Relative difference below which two minima are the same."""


def lowest(
    height: Callable[[Array], Array], slope: sympy.Expr, x: sympy.Symbol, ends: tuple[float, float], near: float
) -> list[sympy.Expr]:
    """Return where the lowest local minima that a search finds between two ends lie, before and after polishing."""
    rough = minima(height, [ends], np.clip([near], *ends))[0]
    first, second = numeric((slope,), (x,)), numeric(sympy.Matrix([[sympy.diff(slope, x)]]), (x,))
    finer = [polished(at, first, second, [ends]) for at in rough]
    return [number(float(at[0])) for at in (*rough, *finer)]


def minima(
    height: Callable[[Array], Array], bounds: Bounds, near: Array, count: int = SAMPLES, more: Array | None = None
) -> tuple[Array, Array]:
    """Return local minima of a function of points `(..., dim)` on a box, `(n, dim)`, and their values, lowest first.

    Of evenly spread samples, and of `more` points, those that are lower than their neighbours are followed downhill,
    all at once, and the lowest few kept. Of equal minima those nearest to `near` come first. Far out on an unbounded
    side samples are few; there the search begins again around the lowest point while that helps.
    """
    x, y = _followed(height, bounds, near, count, more)
    for _ in range(0 if np.isfinite(bounds).all() or not len(x) else AGAIN):
        least = y.min()
        closer, lower = _followed(height, bounds, x[0], count, None)
        x, y = _sifted(np.concatenate([x, closer]), np.concatenate([y, lower]), near, bounds)
        if not y.min() < least - FLAT * abs(least):
            break
    return x, y


def _followed(
    height: Callable[[Array], Array], bounds: Bounds, near: Array, count: int, more: Array | None
) -> tuple[Array, Array]:
    dim = len(bounds)
    place = onto(bounds, near)

    def level(u: Array) -> Array:
        return np.nan_to_num(height(place(u)), nan=np.inf, posinf=np.inf, neginf=-np.inf)

    u = even(min(count, max(STARTS, ROOM // dim**2)), dim)
    if more is not None and len(more):
        lower, upper = np.array(bounds).T
        u = np.concatenate([u, (more - lower) / (upper - lower)])
    y = level(u)
    low = np.flatnonzero(y < np.inf)
    if dim <= CROWDED:
        _, beside = cKDTree(u).query(u, k=min(2 * dim + 2, len(u)))
        low = low[(y[low, None] <= y[beside[low]]).all(axis=1)]
    low = low[np.argsort(y[low], kind="stable")][: max(STARTS, min(BASINS, ROOM // (2 * dim**3)))]
    u, y = _downhill(level, u[low], y[low], len(u) ** (-1 / dim))
    return _sifted(place(u), y, near, bounds)


def _sifted(x: Array, y: Array, near: Array, bounds: Bounds) -> tuple[Array, Array]:
    """Return the lowest few points, equal ones by their distance from `near`, without those that coincide."""
    if not len(x):
        return x, y
    least, width = float(y.min()), np.ptp(bounds, axis=1)
    above = y > (least + 1e-9 * (1 + abs(least)) if math.isfinite(least) else least)
    order = np.lexsort((np.where(above, y, np.linalg.norm(x - near, axis=1)), above))
    kept: list[int] = []
    for k in order:
        close = APART * np.where(np.isfinite(width), width, 10 * (1 + np.abs(x[k])))
        if not any((np.abs(x[j] - x[k]) <= close).all() for j in kept):
            kept.append(int(k))
        if len(kept) == STARTS:
            break
    return x[kept], y[kept]


def _downhill(level: Callable[[Array], Array], u: Array, y: Array, step: float) -> tuple[Array, Array]:
    """Move points `(n, dim)` of the unit cube along the axes while that lowers them, all at once, in ever finer steps.

    A compass search: it asks for no derivatives, so that it also climbs norms of gradients and of second derivatives.
    """
    n, dim = u.shape
    ways = np.concatenate([np.eye(dim), -np.eye(dim)])
    steps = np.full(n, step)
    for _ in range(ROUNDS):
        going = np.flatnonzero(steps > FINEST)
        if not len(going):
            break
        tried = np.clip(u[going, None] + steps[going, None, None] * ways, 0.0, 1.0)
        heights = level(tried)
        best = heights.argmin(axis=1)
        rows = np.arange(len(going))
        lower = heights[rows, best] < y[going]
        steps[going[~lower]] /= 2
        moved = going[lower]
        u[moved], y[moved] = tried[rows, best][lower], heights[rows, best][lower]
    return u, y


def polished(x: Array, slope: Callable[[Array], Array], curvature: Callable[[Array], Array], bounds: Bounds) -> Array:
    """Take Newton steps in the coordinates that no bound holds, while they make the gradient smaller."""
    lower, upper = np.array(bounds).T
    for _ in range(20):
        g = slope(x)
        near = 1e-9 * (1 + np.abs(x))
        free = ~(((x - lower <= near) & (g > 0)) | ((upper - x <= near) & (g < 0)))
        x = np.where((x - lower <= near) & (g > 0), lower, np.where((upper - x <= near) & (g < 0), upper, x))
        h = curvature(x)[np.ix_(free, free)]
        if not free.any() or not np.isfinite(h).all():
            return x
        new = x.copy()
        new[free] -= np.linalg.lstsq(h, g[free], rcond=None)[0]
        new = np.clip(new, lower, upper)
        if not np.abs(slope(new)[free]).max() < np.abs(g[free]).max():
            return x
        x = new
    return x


def even(count: int, dim: int) -> Array:
    """Return points spread evenly in the unit cube, `(count, dim)`: multiples of the roots of primes, modulo 1.

    After Richtmyer (1951); the gaps shrink like count^(-1/dim) and never line up, unlike those of a grid.
    """
    roots_of_primes = np.sqrt([float(sympy.prime(j + 1)) for j in range(dim)])
    return (0.5 + np.outer(np.arange(count), roots_of_primes)) % 1.0


def onto(bounds: Bounds, near: Array) -> Callable[[Array], Array]:
    """Return the map of the unit cube onto a box: evenly onto finite sides, ever more widely around `near` onto others.

    A side with one finite end is folded there.
    """
    lower, upper = np.array(bounds).T
    bounded = np.isfinite(lower) & np.isfinite(upper)
    lo, hi = np.where(bounded, lower, 0.0), np.where(bounded, upper, 1.0)
    left, right = np.isfinite(lower) & ~bounded, np.isfinite(upper) & ~bounded
    end = np.where(left, lower, np.where(right, upper, 0.0))

    def place(u: Array) -> Array:
        wide = near + NEAR * np.sinh(REACH * (2.0 * u - 1.0))
        wide = np.where(left, end + np.abs(wide - end), np.where(right, end - np.abs(wide - end), wide))
        return np.clip(np.where(bounded, lo + (hi - lo) * u, wide), lower, upper)

    return place
