"""The drift of Adam-type methods on gradients drawn again and again from one finite law: formula and exact value.

Gradients g are independent, taking the value g_k with probability p_k. The second moment v = (1−β2) Σ_j β2^j g²_{t−j}
then has a stationary law, an infinite Bernoulli convolution without a density worth the name, but its Laplace
transform is a plain product, Π_j φ(s (1−β2) β2^j) with φ(u) = E exp(−u g²). As 1/√v = π^{−1/2} ∫ s^{−1/2} e^{−sv} ds,

    E[m/√v] = π^{−1/2} ∫₀^∞ s^{−1/2} Π_j φ(u_j) · Σ_j (1−β1) β1^j χ(u_j)/φ(u_j) ds,   u_j = s (1−β2) β2^j,

with χ(u) = E[g exp(−u g²)]. In log s the integrand is analytic in |Im| < π/2 and dies out on both sides, so the
trapezium rule converges geometrically, and a grid on which ln(1/β2) is a whole number of cells turns the product
into a running sum. Derived here; no random numbers are drawn.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import lfilter

from .periodic import Arriving, constant_gradient, sign_changes

Array = NDArray[np.float64]

# e^(−π²/0.2) = 4e-22: the trapezium rule's error for a strip of half-width π/2 and this cell in log s.
CELL = 0.2
# Work and memory grow as 1/(1−β2); at this gap the grid has some five million points.
LEAST_GAP = 1e-5
# exp(−45) = 3e-20: where the integrand is cut off.
NEGLIGIBLE = 45.0


def skewness(probabilities: ArrayLike, gradients: ArrayLike) -> float:
    """Return E g³ / (E g² · E g), the skewness that decides which way Adam drifts; 1 for a constant gradient."""
    p, g = _law(probabilities, gradients)
    mean = float(p @ g)
    if abs(mean) <= 1e-14 * float(p @ abs(g)):
        raise ValueError("The mean gradient is zero, so no direction is right; give the law a mean.")
    return float(p @ g**3) / (float(p @ g**2) * mean)


def skewness_rho(probabilities: ArrayLike, gradients: ArrayLike, beta2: float) -> float:
    """Return ρ ≈ 1 − (1−β2)/2 · (E g³/(E g² E g) − 1), to first order in 1−β2, for β1 = 0.

    Derived here by expanding E[g v^{−1/2}] about v = E g². It overstates |ρ| once (1−β2) max g² is not small beside
    E g², with the sign still right; `stationary_rho` is exact.
    """
    return 1.0 - (1.0 - beta2) / 2.0 * (skewness(probabilities, gradients) - 1.0)


def skewness_critical_beta2(probabilities: ArrayLike, gradients: ArrayLike) -> float | None:
    """Return β2* ≈ 1 − 2/(E g³/(E g² E g) − 1), where `skewness_rho` is zero; None when no β2 in (0, 1) is."""
    excess = skewness(probabilities, gradients) - 1.0
    return 1.0 - 2.0 / excess if excess > 2.0 else None


def skewness_remainder(probabilities: ArrayLike, gradients: ArrayLike) -> float:
    """Return how far `skewness_critical_beta2` may be off: (1−β2) x³, x = (1−β2) max g²/E g²; NaN where there is none.

    Derived here: in the limit of rare spikes the orders x and x² of its relative error cancel.
    """
    p, g = _law(probabilities, gradients)
    gap = 1.0 - (skewness_critical_beta2(p, g) or math.nan)
    return gap * float(gap * np.max(g**2) / (p @ g**2)) ** 3


def stationary_drift(probabilities: ArrayLike, gradients: ArrayLike, beta1: float, beta2: float) -> float:
    """Return E[m/√v] for independent gradients, once the start is forgotten; x moves by −α times it per step.

    Args:
        probabilities: (n,), sum to one.
        gradients: (n,), one coordinate's gradient in each case.
        beta1: decay of the momentum, in [0, 1).
        beta2: decay of the second moment, in (0, 1 − 1e-5].

    Returns:
        The drift, exact to about 1e-12 of E|m/√v|; eps and bias correction play no part in it.

    Raises:
        ValueError: for a law that is none, a β out of range, or zero gradients so likely that the mean is infinite.
    """
    p, g = _law(probabilities, gradients)
    return _mean_over_root(p, g, g, beta1, 1.0 - beta2)


def stationary_rho(probabilities: ArrayLike, gradients: ArrayLike, beta2: float) -> float:
    """Return ρ = E[g/√v] / (E[1/√v] E g), the share of the intended descent that e·g makes; 1 is unbiased."""
    p, g = _law(probabilities, gradients)
    stepsize = _mean_over_root(p, g, np.ones_like(g), 0.0, 1.0 - beta2)
    return stationary_drift(p, g, 0.0, beta2) / (stepsize * float(p @ g))


def stationary_critical_beta2(probabilities: ArrayLike, gradients: ArrayLike, beta1: float = 0.0) -> float | None:
    """Return the β2 above which E[m/√v] has the mean gradient's sign, and just below which it has the other.

    None when no β2 between 1e-6 and 1 − 1e-5 goes wrong. Where the formula puts 1−β2 under 1e-4, use the formula:
    there it is good to a few parts in a thousand, and the exact value is out of reach.
    """
    p, g = _law(probabilities, gradients)
    estimate = skewness_critical_beta2(p, g)
    # A quarter of the formula's gap spares the finest grids and is well above the root, whose gap was 0.9 of the
    # formula's at the least among 400 random laws; momentum widens it.
    least = LEAST_GAP if estimate is None else min(max((1.0 - estimate) / 4.0, LEAST_GAP), 0.01)
    roots = sign_changes(lambda gap: _mean_over_root(p, g, g, beta1, gap), least, cells=40)
    return roots[-1] if roots else None


def iid_gradients(problem: Arriving, x: ArrayLike | None = None) -> tuple[Array, Array]:
    """Return the probabilities (n,) and gradients (n, dim) of a problem whose components are drawn independently.

    Raises:
        ValueError: when the arrival has a fixed order or reshuffles, or a gradient is not constant near x.
    """
    weights = getattr(problem, "weights", None)
    if weights is None or not hasattr(problem.arrival, "probabilities"):
        raise ValueError(f"A Random arrival was expected, got {problem.arrival!r}; for Cyclic use `cyclic_gradients`.")
    return np.asarray(weights, dtype=np.float64), np.stack(
        [constant_gradient(problem, i, x) for i in range(len(weights))]
    )


def _law(probabilities: ArrayLike, gradients: ArrayLike) -> tuple[Array, Array]:
    p, g = np.asarray(probabilities, dtype=np.float64), np.asarray(gradients, dtype=np.float64)
    if p.shape != g.shape or p.ndim != 1 or not (p >= 0.0).all() or abs(p.sum() - 1.0) > 1e-12:
        raise ValueError(
            f"Probabilities and gradients of one shape (n,), the former summing to 1, were expected, got {p} and {g}."
        )
    kept = p > 0.0
    if not np.isfinite(g).all() or not g[kept].any():
        raise ValueError(f"Finite gradients, not all of them zero, were expected, got {g}.")
    return p[kept], g[kept]


def _mean_over_root(p: Array, g: Array, f: Array, beta1: float, gap: float) -> float:
    """Return E[Σ_j (1−β1) β1^j f(g_{t−j}) / √v_t] for the law (p, g) and β2 = 1 − gap."""
    if not 0.0 <= beta1 < 1.0 or not LEAST_GAP * (1 - 1e-9) <= gap < 1.0:
        raise ValueError(f"beta1 in [0, 1) and beta2 in (0, 1 − {LEAST_GAP}] were expected, got {beta1}, {1.0 - gap}.")
    step = -math.log1p(-gap)
    columns = math.ceil(step / CELL)
    cell = step / columns
    low, high = _range(p, g, f, beta1, gap)
    rows = math.ceil((high - low) / step)
    log_s = low + cell * np.arange(rows * columns).reshape(rows, columns)

    log_phi, ratio = _transform(p, g, f, gap * np.exp(log_s))
    # Below the grid φ(u) = 1 − u E g² to 1e-13, whose product over all later factors is a geometric sum.
    product = np.cumsum(log_phi, axis=0) - float(p @ g**2) * (1.0 - gap) * np.exp(log_s[0])
    mean = float(p @ f)
    momentum = lfilter([1.0 - beta1], [1.0, -beta1], ratio, axis=0, zi=np.full((1, columns), beta1 * mean))[0]
    inner = float(np.sum(np.exp(0.5 * log_s + product) * momentum))
    tail = mean * math.exp(0.5 * low) / math.expm1(0.5 * cell)
    return cell * (inner + tail) / math.sqrt(math.pi)


def _transform(p: Array, g: Array, f: Array, u: Array) -> tuple[Array, Array]:
    """Return ln φ(u) and E[f exp(−u g²)]/φ(u); the smallest g² is taken out, so that large u do not underflow."""
    least = float(np.min(g**2))
    lowered, numerator = np.zeros_like(u), np.zeros_like(u)
    for weight, value, factor in zip(p, g**2 - least, f, strict=True):
        fall = np.expm1(-u * value)
        lowered += weight * fall
        numerator += weight * factor * (1.0 + fall)
    return np.log1p(lowered) - u * least, numerator / (1.0 + lowered)


def _range(p: Array, g: Array, f: Array, beta1: float, gap: float) -> tuple[float, float]:
    """Return the log s between which the integrand matters."""
    square = g**2
    low = math.log(1e-13 / square.max())
    if square.min() > 0.0:
        return low, math.log(NEGLIGIBLE / square.min())
    # After j steps without a gradient v has fallen to β2^j of itself: 1/√v has a mean when such runs are rare enough.
    silence = float(p[square == 0.0].sum())
    carried = silence if f[square == 0.0].any() else silence * beta1
    fall = -math.log(carried) + 0.5 * math.log1p(-gap) if carried else math.inf
    if fall <= 0.0:
        raise ValueError(
            f"The mean is infinite: the gradient is zero with probability {silence}, and v forgets faster."
        )
    runs = math.ceil(NEGLIGIBLE / fall)
    return low, math.log(NEGLIGIBLE / (gap * square[square > 0.0].min())) - runs * math.log1p(-gap)
