"""Expectations over what the second moment remembers of independent gradients, for readings that Adam's drift is not.

`stationary.py` has E[m/√v]; here are other powers of v, by the same Laplace transform, and functions of v that have no
transform, by listing the last draws.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

CELL = 0.1
"""Of the trapezium rule in ln s. The integrand is analytic in a strip of half-width π/2: its error is e^(−π²/CELL)."""


def inverse_moment(
    probabilities: ArrayLike, gradients: ArrayLike, beta2: float, power: float, weight: ArrayLike | None = None
) -> float:
    """Return E[w(g_t) v_t^−power] for v = (1−β2) Σ_j β2^j g²_{t−j}, no gradient zero; w = 1 if `weight` is left out.

    1/v^q = Γ(q)⁻¹ ∫ s^(q−1) e^(−sv) ds, and E e^(−sv) is a product over the draws. Derived here.

    Args:
        probabilities: (n,), sum to one.
        gradients: (n,), none of them zero.
        beta2: in (0, 1).
        power: q > 0.
        weight: (n,), w at each gradient.
    """
    p, g = np.asarray(probabilities, dtype=np.float64), np.asarray(gradients, dtype=np.float64)
    w = np.ones_like(g) if weight is None else np.asarray(weight, dtype=np.float64)
    square = g**2
    # below the grid the integrand is s^q·E w to 1e-12 of itself; above it e^(−45) is left
    log_s = np.arange(math.log(1e-12 / square.max()), math.log(45.0 / square.min()), CELL)
    s = np.exp(log_s)
    draws = math.ceil((math.log(s[-1] * square.max()) + 30.0) / -math.log(beta2))
    product = np.zeros_like(s)
    for j in range(1, draws):
        product += np.log(np.exp(-np.multiply.outer(s * (1 - beta2) * beta2**j, square)) @ p)
    newest = np.exp(-np.multiply.outer(s * (1 - beta2), square)) @ (p * w)
    inner = float(np.sum(s**power * newest * np.exp(product)))
    below = float(p @ w) * s[0] ** power / math.expm1(power * CELL)
    return float(CELL * (inner + below) / math.gamma(power))


def listed(
    probabilities: ArrayLike,
    gradients: ArrayLike,
    beta2: float,
    function: Callable[[Array, Array], Array],
    *,
    draws: int = 12,
) -> float:
    """Return E[function(g_t, v_t)] by listing every outcome of the last draws; the older ones are at their mean.

    Their share is β2^draws of v and replaced by its mean, so the error is of the order of β2^draws·max g²/min g²: for a
    second moment that forgets fast. `function` takes arrays of g and v, (outcomes,).
    """
    p, g = np.asarray(probabilities, dtype=np.float64), np.asarray(gradients, dtype=np.float64)
    chosen = np.array(list(itertools.product(range(len(g)), repeat=draws)))
    chances = p[chosen].prod(axis=1)
    v = (1 - beta2) * (g[chosen] ** 2) @ beta2 ** np.arange(draws) + beta2**draws * float(p @ g**2)
    return float(chances @ np.asarray(function(g[chosen[:, 0]], v)))
