"""Slope and noise: how much of what the gradients push over many steps is a mean gradient (no torch).

Stretch i of n steps (see `drift.py`) has the mean gradient ḡ_i = G_i + ξ_i, with E‖ξ_i‖² = N/n: N is the noise of a
step, with all that successive gradients have in common. Coordinates are weighted by their stepsize ē. Neighbouring
stretches share the slope and not the noise, so

    S = mean ⟨ḡ_i, ḡ_{i+1}⟩ ≈ ‖G‖²,        Q = mean (‖ḡ_i‖² + ‖ḡ_{i+1}‖²)/2 = S + N/n.

The mean over all pairs, U(g,g) of ρ, is the better measure of a slope that stays, but one that turns or fades along
the way is slope all the same. In expectation neither exceeds the mean of ‖G_i‖², so the larger of the two is taken.

S is what the slope promises to take off the loss in one step at these stepsizes. τ = N/S = n (Q/S - 1) is the noise
scale in steps, after so many of which slope and noise have pushed equally far: in W steps the slope pushes W²S, the
noise WN (squared), and the slope's share is 1/(1 + τ/W). Derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .drift import cross_mean

Array = NDArray[np.float64]

CHANCE = 0.05
"""A slope that noise alone would show this often, or more often, is not told from noise."""


@dataclass(frozen=True)
class Slope:
    """What is slope and what is noise in the gradients of the steps `first` … `last`."""

    promised: float
    """S, the descent per step that the mean gradient promises; in units of the loss. Negative: none is left."""
    scale: float
    """τ, the noise scale in steps; infinite where S is not positive."""
    chance: float
    """How often noise alone, symmetric and independent between stretches, would show as much slope."""
    first: int
    last: int

    @property
    def told(self) -> bool:
        """Whether the slope is told from noise."""
        return self.chance < CHANCE

    @property
    def share(self) -> float:
        """The slope's share of what the gradients push over the window; 0 where it is not told from noise."""
        return 1.0 / (1.0 + self.scale / (self.last - self.first + 1)) if self.told else 0.0


def measure_slope(gram_gg: Array, first: int, last: int) -> Slope | None:
    """Return what is slope over the window, from the products ⟨ḡ_i, ḡ_j⟩ `(k, k)`; None where they are not finite."""
    if not np.isfinite(gram_gg).all():
        return None
    k, sizes = len(gram_gg), np.diagonal(gram_gg)
    whole = float((sizes[1:] + sizes[:-1]).mean() / 2)
    shared = max(float(np.diagonal(gram_gg, offset=1).mean()), float(cross_mean(gram_gg)))
    steps = (last - first + 1) / k
    scale = steps * max(whole / shared - 1.0, 0.0) if shared > 0 else math.inf
    return Slope(shared, scale, sign_test(gram_gg), first, last)


def sign_test(gram: Array) -> float:
    """Return the share of all sign flips of the stretches under which their sum is as long as it is, or longer.

    Exact for noise that is symmetric and independent between stretches, whatever its law or its size in each of them
    (Fisher's randomization test): then every flip is as likely as what was seen. The smallest answer is 2^(1-k).

    Pairs lie within the early half of the stretches, within the late half or between both, so that the sums of the
    2^(k-1) flips are put together from those of the flips of a half.
    """
    k, half = len(gram), len(gram) // 2
    pairs = np.triu(gram, k=1)
    pairs /= max(np.abs(pairs).max(), np.finfo(np.float64).tiny)
    early, late = _flips(half), _flips(k - half)[: 2 ** (k - half - 1)]  # the last one's sign is free
    among_early = _among(early, pairs[:half, :half])
    among_late = _among(late, pairs[half:, half:])
    sums = among_early[:, None] + among_late + early @ pairs[:half, half:] @ late.T
    return float(np.mean(sums >= sums[0, 0] - 1e-9))  # the rounding of a hundred terms


def _among(flips: Array, pairs: Array) -> Array:
    """Return the sum of the products of pairs under each flip."""
    return np.asarray(((flips @ pairs) * flips).sum(axis=1))


@lru_cache(maxsize=4)
def _flips(k: int) -> Array:
    """Return the signs of k stretches under all flips `(2^k, k)`; the first flips none, the first half not the last."""
    return np.asarray(1.0 - 2.0 * ((np.arange(2**k)[:, None] >> np.arange(k)) & 1))
