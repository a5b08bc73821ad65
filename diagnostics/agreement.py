"""Agreement: how sure the gradients of a stretch are of the sign of their mean, on average over coordinates (no torch).

Over the N steps of the closed stretches of the harm test, about the newest half of the run, a coordinate has the mean
gradient ḡ, its standard error se, and

    z = ḡ/se,    se² = (mean(g²) - ḡ²)/(N - 1),    s = |2F(z) - 1|,

with F Student's distribution of N - 1 degrees of freedom, which is the normal Φ from some thirty steps on. This is the
conformity of CProp (Preechakul and Kijsirikul, arXiv 1912.11493) with its z calibrated: on independent zero-mean noise
s is uniform and its mean ½; 1 says that the sign is certain. CProp's own n is half of what its averages know, which
puts its noise at (2/π)·arctan(1/√2) = 0.39. Gradients of successive steps are taken to be independent: where they go
in waves longer than a step s comes out too high, where each undoes the last too low.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .drift import PULL, SQUARE, K, Stretches

if TYPE_CHECKING:
    from .recorder import Recorder

Array = NDArray[np.float64]

NOISE, CERTAIN = 0.5, 1.0
"""Gradients whose mean is 0; gradients of one sign."""


def agreement(mean: Array, square: Array, n: int) -> Array:
    """Return s of each coordinate from mean(g) and mean(g²) over `n` steps; NaN where there was no gradient."""
    from scipy.special import stdtr

    with np.errstate(all="ignore"):
        error = np.sqrt(np.maximum(square - mean**2, 0.0) / (n - 1))
        s = 2.0 * stdtr(n - 1, np.abs(mean) / error) - 1.0
    return np.where((square > 0) & np.isfinite(square) & np.isfinite(mean), s, np.nan)


def of_stretches(stretches: Stretches) -> Array | None:
    """Return s of every member of the harm test, `(coords,)`; None before K stretches are full."""
    if stretches.full < K:
        return None
    n = stretches.length * len(stretches.closed)
    pull, square = np.stack([each[[PULL, SQUARE]] for each in stretches.closed]).sum(axis=0, dtype=np.float64)
    with np.errstate(all="ignore"):  # in units of the first gradient, as u is, so that no g is too small to be squared
        return agreement(pull / stretches.unit / n, square / n, n)


def conformity(recorder: Recorder) -> dict[str, float]:
    """Return the mean of s per tensor, over its members that had a gradient, and of all tensors by their sizes."""
    found = of_stretches(recorder.stretches)
    own = [w.coordinates for w in recorder.watchers]
    if found is None:
        return {}
    ends = np.cumsum([c.lead for c in own])
    means = [_mean(s) for s in np.split(found, ends[:-1])]
    each = {w.name: mean for w, (mean, count) in zip(recorder.watchers, means, strict=True) if count}
    if not each:
        return {}
    weights = [count * c.lead_scale for c, (_, count) in zip(own, means, strict=True)]
    whole = np.average([mean for mean, _ in means], weights=weights)
    return {"conformity/all": float(whole)} | {f"conformity/{name}": mean for name, mean in each.items()}


def _mean(s: Array) -> tuple[float, int]:
    known = s[np.isfinite(s)]
    return (float(known.mean()) if len(known) else 0.0), len(known)
