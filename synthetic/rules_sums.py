"""Update rules without a memory that fades: SGD, momentum and Lion, and those that sum or average all of the past.

What a rule is given and writes: see `rules_adam.py`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .rules_adam import inner

Array = NDArray[np.float64]


def sgd(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply g by e = α."""
    for i in range(g.size):
        e[i] = alpha
        dx[i] = -alpha * g[i]


def momentum(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m ← β1·m + (1 - dampening)·g by e = α.

    dampening = 0 is torch's default, dampening = β1 the average of generalized Adam. torch starts m at g_1 and not at
    (1 - dampening)·g_1, which differs by β1^{t-1}·dampening·g_1.
    """
    beta1, dampening = p[0], p[1]
    m = s[0]
    for i in range(g.size):
        m[i] = beta1 * m[i] + (1.0 - dampening) * g[i]
        e[i] = alpha
        dx[i] = -alpha * m[i]


def lion(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Every coordinate moves by ±α along c = β1·m + (1-β1)·g, so e = α/|c|, on c; then m averages with β2."""
    beta1, beta2 = p[0], p[1]
    m = s[0]
    for i in range(g.size):
        c = beta1 * m[i] + (1.0 - beta1) * g[i]
        m[i] = beta2 * m[i] + (1.0 - beta2) * g[i]
        e[i] = 0.0 if c == 0.0 else alpha / abs(c)
        dx[i] = -alpha * np.sign(c)


def adagrad(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply g by e = α/(√Σg² + eps): the sum of torch; a constant α here is α/√t with the mean of Chen et al."""
    eps, total = p[0], s[0]
    for i in range(g.size):
        total[i] += g[i] * g[i]
        e[i] = 0.0 if total[i] == 0.0 else alpha / (math.sqrt(total[i]) + eps)
        dx[i] = -e[i] * g[i]


@inner
def mean_step(t: int, alpha: float, beta1: float, eps: float, g: Array, s: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = α/(√v + eps), with v = Σg²/t, kept as the sum."""
    m, total = s[0], s[1]
    for i in range(g.size):
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i]
        total[i] += g[i] * g[i]
        e[i] = 0.0 if total[i] == 0.0 else alpha / (math.sqrt(total[i] / t) + eps)
        dx[i] = -e[i] * m[i]


def adafom(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = α/(√v + eps), with v the mean of all g²: with α_t = α/√t e never rises."""
    mean_step(t, alpha, p[0], p[1], g, s, e, dx)


def adamnc(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """AdaFom whose momentum fades: β1,t = β1·decay^{t-1}, as Reddi et al. need it for β2,t = 1 - 1/t."""
    mean_step(t, alpha, p[0] * p[2] ** float(t - 1), p[1], g, s, e, dx)


def nosadam(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = α/(√v + eps), v = Σ b_k g_k²/Σ b_k, b_k = k^-γ: the past counts more than the present."""
    beta1, eps, weight = p[0], p[1], float(t) ** -p[2]
    m, total, weights = s[0], s[1], s[2]
    for i in range(g.size):
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i]
        total[i] += weight * g[i] * g[i]
        weights[i] += weight
        e[i] = 0.0 if total[i] == 0.0 else alpha / (math.sqrt(total[i] / weights[i]) + eps)
        dx[i] = -e[i] * m[i]
