"""Update rules whose second moment is older than the gradient it divides, or couples the coordinates.

What a rule is given and writes: see `rules_adam.py`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .rules_adam import debias

Array = NDArray[np.float64]


def adopt(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """ĝ = g/max(√v, eps) with v of the step before, held within ±t^clip; dx = -α·m, m the average of ĝ.

    e is what multiplies g before it is averaged, α/max(√v, eps, |g|/t^clip): the bound on ĝ is a third floor of the
    root. `clip` = inf is the form without it. The first step only sets v.
    """
    beta1, beta2, eps, bound = p[0], p[1], p[2], float(t) ** p[3]
    m, v = s[0], s[1]
    for i in range(g.size):
        if t == 1:
            e[i] = dx[i] = 0.0
            v[i] = g[i] * g[i]
            continue
        floor = max(math.sqrt(v[i]), eps, abs(g[i]) / bound)
        e[i] = 0.0 if floor == 0.0 or (v[i] == 0.0 and g[i] == 0.0) else alpha / floor
        m[i] = beta1 * m[i] + (1.0 - beta1) * (g[i] / floor if floor != 0.0 else 0.0)
        dx[i] = -alpha * m[i]
        v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i]


def adashift(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = α/(√(v/(1-β2^{t-n})) + eps); v averages the squares of n steps ago, m the last n gradients.

    `block` says over what a square is taken: 0 the coordinate itself, 1 the largest of all coordinates, 2 their mean.
    s[2:] holds the last n gradients, a place each, overwritten in turn; until it is full v is zero and no step taken. A
    coordinate (a block) whose v is zero later on waits too, where the package would divide by eps alone.
    """
    beta1, beta2, eps, n, block = p[0], p[1], p[2], int(p[3]), p[4]
    m, v, past = s[0], s[1], s[2 + (t - 1) % n]
    weights = (1.0 - beta1**n) / (1.0 - beta1)
    first, last = beta1 ** (n - 1) / weights, 1.0 / weights
    root = math.sqrt(debias(beta2, max(t - n, 1)))
    largest = total = 0.0
    for i in range(g.size):
        largest, total = max(largest, past[i] * past[i]), total + past[i] * past[i]
    for i in range(g.size):
        m[i] = beta1 * (m[i] - first * past[i]) + last * g[i]
        square = past[i] * past[i] if block == 0.0 else largest if block == 1.0 else total / g.size
        v[i] = beta2 * v[i] + (1.0 - beta2) * square
        e[i] = 0.0 if v[i] == 0.0 else alpha / (math.sqrt(v[i]) / root + eps)
        dx[i] = -e[i] * m[i]
        past[i] = g[i]


def avagrad(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = α/(1-β1^t)·η/√(mean η²), with η = 1/(√(v/(1-β2^{t-1})) + eps) and v of the step before.

    `lag` = 1 divides by the norm that the step before left behind, whose η had a v one step older and a bias correction
    one step newer: so do the authors' code and the package. `lag` = 0 divides by the norm of η itself, as in the paper;
    a single coordinate then takes momentum steps of size α. s[2] keeps the norm's inverse.
    """
    beta1, beta2, eps, lag = p[0], p[1], p[2], p[3]
    m, v, gain = s[0], s[1], s[2]
    lr = alpha / debias(beta1, t)
    root_before, root = math.sqrt(debias(beta2, max(t - 1, 1))), math.sqrt(debias(beta2, t))
    before, scale = gain[0], root if lag != 0.0 else root_before
    squares = 0.0
    for i in range(g.size):
        slowness = math.sqrt(v[i]) / scale + eps
        squares += 0.0 if slowness == 0.0 else 1.0 / (slowness * slowness)
    gain[:] = 0.0 if squares == 0.0 else 1.0 / math.sqrt(squares / g.size)
    now = before if lag != 0.0 else gain[0]
    for i in range(g.size):
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i]
        slowness = math.sqrt(v[i]) / root_before + eps
        waiting = t == 1 or slowness == 0.0 or (v[i] == 0.0 and m[i] == 0.0)
        e[i] = 0.0 if waiting else lr * now / slowness
        dx[i] = -e[i] * m[i]
        v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i]


def adai(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """β1 = 1 - β0·v/mean(v), held within [0, 1-eps], and e = α/(1-Πβ1), on m: only the averaging time adapts.

    The mean runs over all coordinates. The package raises its bias-corrected value to at least eps, the paper does not.
    s[2] keeps 1 - Πβ1, which starts at zero as every state does.
    """
    beta0, beta2, eps = p[0], p[1], p[2]
    m, v, complement = s[0], s[1], s[2]
    total = 0.0
    for i in range(g.size):
        v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i]
        total += v[i]
    for i in range(g.size):
        share = 0.0 if total == 0.0 else v[i] * g.size / total
        beta1 = min(max(1.0 - beta0 * share, 0.0), 1.0 - eps)
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i]
        complement[i] = 1.0 - beta1 * (1.0 - complement[i])
        e[i] = 0.0 if v[i] == 0.0 else alpha / complement[i]
        dx[i] = -e[i] * m[i]
