"""Underflow: which gradients float16 would lose, and the loss scale that would keep them.

float16 holds no number but 0 below u = 2⁻²⁴: what is smaller becomes 0, or u from the half of it on. The scale α of the
loss that leaves a share p of the gradients there is u over the p-quantile of |g|, and no more than 65504/max|g|, or the
largest would overflow. It is rounded up to a power of two, which costs no digit. Of gradients δ ~ N(0, σ²)

    P(|δ| < u) = erf(u/(σ√2)),    α = u/(√2·erfinv(p)·σ)

(Zhao, Vogel and Ahmed, arXiv 1910.12385; p = 10⁻³). Those of a network have many more near 0 beside their σ, so that
this α is too small for them, and the quantile itself is recorded. One scale serves all tensors only where their α lie
within some powers of two of each other's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .recorder import Recorder

Values = NDArray[np.floating]

SMALLEST, LARGEST = 2.0**-24, 65504.0
"""Of the numbers of float16 that are not 0."""
ACCEPTED = 1e-3
"""The share p of gradients that may be lost."""


def lost(gradient: Values) -> float:
    """Return the share of the coordinates with 0 < |g| < 2⁻²⁴."""
    size = np.abs(gradient)
    return float(np.mean((size > 0) & (size < SMALLEST)))


def loss_scale(sizes: Values) -> float:
    """Return the power of two by which to multiply the loss, from the sizes of gradients that are not 0.

    >>> loss_scale(np.array([1e-9, 1e-5]))
    64.0
    """
    least = float(np.partition(sizes, place := int(ACCEPTED * len(sizes)))[place])
    needed = math.ceil(math.log2(SMALLEST) - math.log2(least))
    possible = math.floor(math.log2(LARGEST) - math.log2(float(sizes.max())))
    return 2.0 ** min(max(needed, 0), possible, 1023)  # float64 ends there as well


def underflow(recorder: Recorder) -> dict[str, float]:
    """Return both per tensor, from the newest gradient; coordinates without a gradient have nothing to lose."""
    found: dict[str, float] = {}
    for w in recorder.watchers:
        if w.param.grad is None or not w.intact() or not w.proved.watched:
            continue
        gradient = w.proved.take(w.param.grad).astype(np.float64)
        sizes = np.abs(gradient[np.isfinite(gradient) & (gradient != 0)])
        if len(sizes):
            found |= {f"underflow/{w.name}": lost(gradient), f"loss_scale/{w.name}": loss_scale(sizes)}
    return found
