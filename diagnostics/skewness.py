"""Skewness of the gradients, and the β2 below which it turns Adam's steps round: docs/theory.md 4.4 (no torch).

For independent gradients and small 1 - β2, v is a noisy mean of squares, and a gradient that is rare and large is
divided by a v that it has itself enlarged. To first order in 1 - β2, Adam without momentum keeps of the descent

    ρ ≈ 1 - (1 - β2)/2 · (S - 1),     S = E[g³] / (E[g²]·E[g]),

so that ρ > 0 needs β2 > β2* = 1 - 2/(S - 1). Over many coordinates, weighted by their stepsizes ē,

    S = Σ ē·q·G / Σ ē·G²,     q = E[g³]/E[g²],  G = E[g],

estimated as ρ is, from products of different stretches. Gradients that come in a fixed order differ by a factor of
about two in 1 - β2*; momentum lowers β2* a little. S comes out low by about one part in as many as there were rare
gradients in a coordinate's window, 1 % at a hundred; the interval does not hold that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .drift import jackknife, ratio_interval
from .trace import Trace

Array = NDArray[np.float64]


WHOLE = "the whole run"


@dataclass(frozen=True)
class Skewness:
    """S and β2*, each with its 95 % interval; (-inf, inf) and (0, 1) where no mean gradient is resolved."""

    name: str
    """The tensor, or `WHOLE`."""
    value: float
    interval: tuple[float, float]
    beta2: float
    """β2*, to first order: below it the steps of Adam turn against the mean gradient; 0 where none does."""
    beta2_interval: tuple[float, float]


def critical_beta2(skewness: float) -> float:
    """Return 1 - 2/(S - 1) where that is positive, else 0; NaN for NaN."""
    if math.isnan(skewness):
        return math.nan
    return max(0.0, 1.0 - 2.0 / (skewness - 1.0)) if skewness > 1.0 else 0.0


def skewness(trace: Trace) -> tuple[Skewness, ...]:
    """Return S of the whole run, then of every tensor; empty where there are too few stretches yet."""
    drift = trace.drift
    if drift is None or drift.gram_qg is None:
        return ()
    whole = _skewness(WHOLE, np.nansum(drift.gram_qg, axis=0), np.nansum(drift.gram_gg, axis=0))
    tensors = zip(trace.tensors, drift.gram_qg, drift.gram_gg, strict=True)
    return (whole, *(_skewness(tensor.name, qg, gg) for tensor, qg, gg in tensors))


def _skewness(name: str, gram_qg: Array, gram_gg: Array) -> Skewness:
    grams = np.stack([gram_qg, gram_gg])
    value, interval = math.nan, None
    if np.isfinite(grams).all():
        (qg, gg), left_out = jackknife(grams)
        if gg > 0:
            value, interval = float(qg / gg), ratio_interval(qg, gg, left_out)
    low, high = interval or (-math.inf, math.inf)
    return Skewness(name, value, (low, high), critical_beta2(value), (critical_beta2(low), critical_beta2(high)))
