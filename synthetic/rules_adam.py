"""Update rules with an exponential average of squared gradients: RMSprop, Adam and its kin, AMSGrad, Yogi, AdaBound.

Every rule here and in its sister files is one step for all coordinates, a plain function that numba compiles as well:

    rule(t, alpha, g, s, p, e, dx)

t counts from 1, alpha is α_t, g the gradient (dim,), s the state (rows, dim), all zero before the first step, p the
hyper-parameters in the order of `Method.defaults`. It moves s on and writes the effective stepsize e (dim,) and the
step dx = x_{t+1} - x_t (dim,) before any projection. s[0] is the momentum where there is one.

Where v is zero no gradient has come yet: e and dx are zero, not 0/0. The test is `== 0`, so that NaN passes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

Array = NDArray[np.float64]
Inner = TypeVar("Inner", bound=Callable[..., float | None])


def inner(function: Inner) -> Inner:
    """Let compiled rules call a function that stays plain Python for everybody else.

    Inlining is forced: left to the compiler, a step of all coordinates stays a call and the loop slows by up to 40 %.
    """
    kept: Inner = register_jitable(forceinline=True)(function)
    return kept


@inner
def debias(beta: float, t: int) -> float:
    """Return 1 - beta^t, bit for bit, without the power where it lies below half an ulp of one.

    beta^t ≤ exp(-t(1 - beta)) < exp(-40) < 2^-54; the power would cost as much as the rest of a step.
    """
    return 1.0 if t * (1.0 - beta) > 40.0 else 1.0 - beta ** float(t)


def rmsprop(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply g by e = α/(√v + eps); neither momentum nor bias correction."""
    beta2, eps = p[0], p[1]
    v = s[0]
    for i in range(g.size):
        v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i]
        e[i] = 0.0 if v[i] == 0.0 else alpha / (math.sqrt(v[i]) + eps)
        dx[i] = -e[i] * g[i]


@inner
def adam_step(lr: float, root: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = lr/(√v/root + eps), with m and v the averages of g and g²."""
    beta1, beta2, eps = p[0], p[1], p[2]
    m, v = s[0], s[1]
    for i in range(g.size):
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i]
        v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i]
        e[i] = 0.0 if v[i] == 0.0 else lr / (math.sqrt(v[i]) / root + eps)
        dx[i] = -e[i] * m[i]


def adam(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = α/(1-β1^t) / (√(v/(1-β2^t)) + eps)."""
    adam_step(alpha / debias(p[0], t), math.sqrt(debias(p[1], t)), g, s, p, e, dx)


def adam_plain(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = α/(√v + eps): Chen et al.'s generalized Adam, which corrects no bias."""
    adam_step(alpha, 1.0, g, s, p, e, dx)


def adam_inside(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = α/(1-β1^t) / √(v/(1-β2^t) + eps): the form of several proofs, with eps under the root."""
    beta1, beta2, eps = p[0], p[1], p[2]
    m, v = s[0], s[1]
    lr, correction = alpha / debias(beta1, t), debias(beta2, t)
    for i in range(g.size):
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i]
        v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i]
        e[i] = 0.0 if v[i] == 0.0 else lr / math.sqrt(v[i] / correction + eps)
        dx[i] = -e[i] * m[i]


@inner
def amsgrad_step(lr: float, root: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = lr/(√v̂/root + eps), with v̂ the largest v so far."""
    beta1, beta2, eps = p[0], p[1], p[2]
    m, v, v_hat = s[0], s[1], s[2]
    for i in range(g.size):
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i]
        v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i]
        v_hat[i] = max(v[i], v_hat[i])
        e[i] = 0.0 if v_hat[i] == 0.0 else lr / (math.sqrt(v_hat[i]) / root + eps)
        dx[i] = -e[i] * m[i]


def amsgrad(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = α/(√v̂ + eps), with v̂ the largest v so far: e never rises while α does not."""
    amsgrad_step(alpha, 1.0, g, s, p, e, dx)


def amsgrad_torch(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = α/(1-β1^t) / (√(v̂/(1-β2^t)) + eps): the bias correction after the maximum lets e rise again.

    Not so with α_t = α/√t, since (1-β2^t)/t and 1/(1-β1^t) fall with t.
    """
    amsgrad_step(alpha / debias(p[0], t), math.sqrt(debias(p[1], t)), g, s, p, e, dx)


def yogi(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Adam's e over v ← v - (1-β2)·sign(v - g²)·g², which starts at `initial`.

    The public package starts m at `initial` as well; the paper's m starts at zero, and so does this one.
    """
    beta1, beta2, eps, initial = p[0], p[1], p[2], p[3]
    m, v = s[0], s[1]
    lr, root = alpha / debias(beta1, t), math.sqrt(debias(beta2, t))
    if t == 1:
        v[:] = initial
    for i in range(g.size):
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i]
        square = g[i] * g[i]
        v[i] -= (1.0 - beta2) * np.sign(v[i] - square) * square
        e[i] = 0.0 if v[i] == 0.0 else lr / (math.sqrt(v[i]) / root + eps)
        dx[i] = -e[i] * m[i]


def adabelief(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Adam's e over the average of (g - m)², to which every step adds eps.

    The eps added so far sum to eps·(1-β2^t)/(1-β2), which is added here in one piece: v alone tells whether a gradient
    has come. With β1 = 0, g = m and v stays zero: the stepsize is then made of eps alone, as the formula has it.
    """
    beta1, beta2, eps = p[0], p[1], p[2]
    m, v = s[0], s[1]
    correction = debias(beta2, t)
    lr, root, floor = alpha / debias(beta1, t), math.sqrt(correction), eps * correction / (1.0 - beta2)
    for i in range(g.size):
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i]
        v[i] = beta2 * v[i] + (1.0 - beta2) * (g[i] - m[i]) * (g[i] - m[i])
        waiting = (v[i] == 0.0 and m[i] == 0.0) or v[i] + floor == 0.0
        e[i] = 0.0 if waiting else lr / (math.sqrt(v[i] + floor) / root + eps)
        dx[i] = -e[i] * m[i]


def adabound(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = α·√(1-β2^t)/(1-β1^t) / (√v + eps), clipped to final·(1 - 1/(γt+1)) … final·(1 + 1/(γt)).

    final = final_lr·α_t/α_1, so that both bounds follow the schedule. Kept in s[2]: the first α that is not zero.
    The public package adds 1e-15 to v under the root besides eps; the authors' formula and this rule do not.
    """
    beta1, beta2, eps, final_lr, gamma = p[0], p[1], p[2], p[3], p[4]
    m, v, base = s[0], s[1], s[2]
    lr = alpha * math.sqrt(debias(beta2, t)) / debias(beta1, t)
    for i in range(g.size):
        base[i] = alpha if base[i] == 0.0 else base[i]
        final = 0.0 if base[i] == 0.0 else final_lr * alpha / base[i]
        lower, upper = final * (1.0 - 1.0 / (gamma * t + 1.0)), final * (1.0 + 1.0 / (gamma * t))
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i]
        v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i]
        e[i] = 0.0 if v[i] == 0.0 else min(max(lr / (math.sqrt(v[i]) + eps), lower), upper)
        dx[i] = -e[i] * m[i]


def demon_adam(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m ← g + β_t·m, whose β_t falls to zero at `horizon`, by e = α / (√(v/(1-β2^t)) + eps).

    β_t/(1-β_t) falls linearly from β1/(1-β1), so β_t = β1·z/((1-β1) + β1·z) with z = 1 - t/horizon; z stays at zero
    past the horizon, and at one without one (`horizon` = 0). m is a sum, not an average: no correction belongs to it.
    """
    beta1, beta2, eps, horizon = p[0], p[1], p[2], p[3]
    m, v = s[0], s[1]
    z = max(1.0 - t / horizon, 0.0) if horizon > 0.0 else 1.0
    beta, root = beta1 * z / (1.0 - beta1 + beta1 * z), math.sqrt(debias(beta2, t))
    for i in range(g.size):
        m[i] = g[i] + beta * m[i]
        v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i]
        e[i] = 0.0 if v[i] == 0.0 else alpha / (math.sqrt(v[i]) / root + eps)
        dx[i] = -e[i] * m[i]
