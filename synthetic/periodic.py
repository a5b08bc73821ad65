"""The exact drift of Adam-type methods on gradients that repeat: which β2 send the iterate the wrong way.

Gradients g_1..g_d come round and round. Once the start is forgotten, both averages repeat too, and with m_i and v_i
written as closed geometric sums over one period,

    v_i = (1−β2) Σ_{j<d} β2^j g²_{i−j} / (1 − β2^d),    m_i = (1−β1) Σ_{j<d} β1^j g_{i−j} / (1 − β1^d),

x moves by −α D per period at a small stepsize α, where D = Σ_i m_i/√v_i. The mean gradient and D should have one
sign; where they do not, the method climbs.

Derived here; the question, and the two sequences it was first asked of, are those of Reddi, Kale and Kumar (ICLR
2018, theorem 1 and the synthetic experiment). Exact for gradients that are constant where the iterate is, and in the
limit of small α; a stepsize decaying as slowly as 1/√t is small enough in the long run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.signal import lfilter
from scipy.special import expit, logit

Array = NDArray[np.float64]


class Arriving(Protocol):
    """What is read of a Problem: when its components arrive, and their gradients."""

    @property
    def arrival(self) -> object: ...  # noqa: D102

    @property
    def start(self) -> Array: ...  # noqa: D102

    def gradient(self, i: int, x: Array) -> Array: ...  # noqa: D102


def periodic_average(values: ArrayLike, gap: float) -> Array:
    """Return the exponential average, decay β = 1 − gap, of values (d, …) repeated for ever; same shape, same phase.

    It takes 1−β rather than β because the interesting β2 are so close to one that 1−β would have few digits left.
    """
    period = np.asarray(values, dtype=np.float64)
    if gap == 1.0:
        return period.copy()
    log_beta = math.log1p(-gap)
    weights = gap * np.exp(log_beta * np.arange(len(period) - 1, -1, -1.0)) / -math.expm1(len(period) * log_beta)
    last = np.tensordot(weights, period, axes=1)
    average: Array = lfilter([gap], [1.0, gap - 1.0], period, axis=0, zi=(1.0 - gap) * last[None])[0]
    return average


def periodic_drift(gradients: ArrayLike, beta1: float, beta2: float, *, eps: float = 0.0) -> Array:
    """Return D, the sum of m/(√v + eps) over one period of the gradients.

    Args:
        gradients: one period, (d,) or (d, dim), in their order of arrival.
        beta1: decay of the momentum, in [0, 1); zero is RMSprop.
        beta2: decay of the second moment, in [0, 1).
        eps: added outside the root, in units of the gradient; where √v + eps is zero the coordinate does not move.

    Returns:
        One D per coordinate, (dim,), or a single number for (d,). x moves by −α D per period.

    Raises:
        ValueError: when the gradients are none, or not finite, or β lies outside [0, 1).
    """
    for name, beta in (("beta1", beta1), ("beta2", beta2)):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"{name} must lie in [0, 1), got {beta}.")
    return _drift(_period(gradients), 1.0 - beta1, 1.0 - beta2, eps)


def periodic_rho(gradients: ArrayLike, beta2: float, *, eps: float = 0.0) -> Array:
    """Return ρ = Σ⟨e g, G⟩ / Σ⟨e G, G⟩ over one period, G the mean gradient: the share of the descent that is made.

    One value per coordinate. ρ = 1 is unbiased, ρ < 0 climbs. It asks where e·g goes, so β1 plays no part.
    """
    period = _period(gradients)
    drift = periodic_drift(period, 0.0, beta2, eps=eps)
    stepsize = _inverse(periodic_average(period**2, 1.0 - beta2), eps)
    rho: Array = drift / (stepsize.sum(axis=0) * period.mean(axis=0))
    return rho


def drift_roots(gradients: ArrayLike, beta1: float = 0.0, *, eps: float = 0.0) -> tuple[float, ...]:
    """Return every β2 in (1e-6, 1 − 1e-10) at which the drift of one coordinate changes sign, ascending.

    Args:
        gradients: one period of one coordinate, (d,).
        beta1: decay of the momentum, in [0, 1).
        eps: as in `periodic_drift`.

    Raises:
        ValueError: for more than one coordinate, or gradients that sum to zero: then no direction is the right one.
    """
    period = _period(gradients)
    if period.ndim != 1:
        raise ValueError(f"drift_roots takes one coordinate, (d,), got the shape {period.shape}; pass a column each.")
    if abs(math.fsum(period)) <= 1e-14 * math.fsum(abs(period)):
        raise ValueError("The gradients of a period sum to zero, so no direction is right; give them a mean.")
    return sign_changes(lambda gap: float(_drift(period, 1.0 - beta1, gap, eps)), 1e-10)


def critical_beta2(gradients: ArrayLike, beta1: float = 0.0, *, eps: float = 0.0) -> float | None:
    """Return the β2 above which the drift has the mean gradient's sign, and just below which it has the other.

    None when no β2 in (1e-6, 1 − 1e-10) goes wrong. Towards β2 = 1 the drift tends to Σg/rms(g), which is right, so
    the critical value is the largest root.
    """
    roots = drift_roots(gradients, beta1, eps=eps)
    return roots[-1] if roots else None


def cyclic_gradients(problem: Arriving, x: ArrayLike | None = None) -> Array:
    """Return one period of gradients, (d, dim), of a problem whose components arrive in a fixed cycle.

    Args:
        problem: a Problem with a Cyclic arrival.
        x: where the gradients are taken, (dim,); the problem's start when left out.

    Raises:
        ValueError: when the arrival has no fixed order, or a gradient is not constant near x (within 1e-4 of it,
            relative to 1 + |x|): then one period does not repeat the last.
    """
    order = getattr(problem.arrival, "order", None)
    if order is None:
        raise ValueError(f"A Cyclic arrival was expected, got {problem.arrival!r}; for Random use `iid_gradients`.")
    table = {i: constant_gradient(problem, i, x) for i in sorted(set(order))}
    return np.stack([table[i] for i in order])


def constant_gradient(problem: Arriving, i: int, x: ArrayLike | None = None) -> Array:
    """Return component i's gradient at x, (dim,); ValueError when it differs 1e-4 (1 + |x|) away along any axis."""
    point = np.atleast_1d(np.asarray(problem.start if x is None else x, dtype=np.float64))
    centre = np.array(problem.gradient(i, point))
    for axis, distance in enumerate(1e-4 * (1.0 + np.abs(point))):
        for sign in (-1.0, 1.0):
            near = point.copy()
            near[axis] += sign * distance
            # 1e-9: rounding of a linear component, far below what a curvature of 1e-4 of the gradient would change
            if not np.allclose(problem.gradient(i, near), centre, rtol=1e-9, atol=0.0):
                raise ValueError(f"The gradient of component {i} is not constant near {point}; choose another x.")
    return centre


def sign_changes(drift: Callable[[float], float], least_gap: float, cells: int = 600) -> tuple[float, ...]:
    """Return the β2 at which drift(1 − β2) changes sign between 1e-6 and 1 − least_gap, ascending.

    Searched in logit β2, which is log scale in 1−β2 near one and in β2 near zero. Two roots inside one of the equal
    cells (by default under 7 % of 1−β2) cancel and stay unseen.
    """
    grid = np.linspace(logit(1e-6), -logit(least_gap), cells + 1)
    values = [drift(float(expit(-z))) for z in grid]
    roots = []
    for left, right, low, high in zip(grid[:-1], grid[1:], values[:-1], values[1:], strict=True):
        if high == 0.0 or low * high < 0.0:
            root = right if high == 0.0 else brentq(lambda z: drift(float(expit(-z))), left, right, xtol=1e-13)
            roots.append(float(expit(root)))
    return tuple(roots)


def _period(gradients: ArrayLike) -> Array:
    period = np.asarray(gradients, dtype=np.float64)
    if period.ndim == 0 or len(period) == 0 or not np.isfinite(period).all():
        raise ValueError(f"One period of finite gradients, (d,) or (d, dim), was expected, got {gradients!r}.")
    return period


def _inverse(v: Array, eps: float) -> Array:
    """Return 1/(√v + eps), and zero where that would divide by zero."""
    root = np.sqrt(v) + eps
    return np.divide(1.0, root, out=np.zeros_like(root), where=root > 0.0)


def _drift(period: Array, gap1: float, gap2: float, eps: float) -> Array:
    momentum, second = periodic_average(period, gap1), periodic_average(period**2, gap2)
    drift: Array = (momentum * _inverse(second, eps)).sum(axis=0)
    return drift
