"""Descent efficiency over time: ρ of the half of the run that lay behind each moment, docs/theory.md 4.6 (no torch).

With g_i the mean gradient of stretch i of that half, and d_i the mean direction of the steps that its gradients make,

    ρ = U(d, g)/U(g, g),    U(p, q) = Σ_{i≠j} ⟨p_i, q_j⟩ / (k(k-1)),    coordinates weighted by their mean stepsize ē.

It is a pure number: 1 is unbiased, between 0 and 1 it is the share of the intended descent that the steps make, below 0
they climb. It is measured now and then as the run goes on, from k = 8 to 15 stretches, of all tensors with a 95 %
interval and of each without one; what the gradients do not resolve is NaN.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .drift import cross_mean, judge_harm
from .slope import measure_slope

Array = NDArray[np.float64]


def measure(gram_dd: Array, gram_dg: Array, gram_gg: Array) -> Array:
    """Return ρ with its interval and the slope's share for all tensors together, then ρ of each, `(4 + tensors,)`.

    The arguments are the products between stretches, `(tensors, k, k)`; NaN stands for what is unresolved.
    """
    dd, dg, gg = (np.nansum(gram, axis=0) for gram in (gram_dd, gram_dg, gram_gg))
    whole = judge_harm(dd, dg, gg, 0, 0)
    low, high = whole.interval if math.isfinite(whole.interval[0]) else (math.nan, math.nan)
    made, intended = cross_mean(gram_dg), cross_mean(gram_gg)
    with np.errstate(all="ignore"):
        each = np.where(intended > 0, made / intended, np.nan)
    slope = measure_slope(gg, 1, gg.shape[-1])
    return np.array([whole.rho, low, high, slope.share if slope else math.nan, *each])
