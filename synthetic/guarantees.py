"""Conditions and bounds other papers give, as formulas: Reddi's Theorem 2, Zou, Défossez, NosAdam, AdaBound.

What is theirs and what is derived here stands in each docstring; "after" means that the formula is theirs in substance,
and that its printed form was not at hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

from .theory import T, stepsize_power, t

Array = NDArray[np.float64]


def reddi_theorem2(size: ArrayLike, beta1: float, beta2: float) -> NDArray[np.bool_]:
    """Return whether C meets each of the three conditions of Theorem 2's construction, shape (3, …).

    After Reddi, Kale and Kumar (ICLR 2018): on C x when t mod C = 1 and −x otherwise, C even, β1 < √β2, they prove that
    Adam does not converge if, with γ = β1/√β2,
        (1−β1) β1^(C−1) C ≤ 1 − β1^(C−1),        β2^((C−2)/2) C² ≤ 1,
        3(1−β1)/(2√(1−β2)) · (1 + γ(1−γ^(C−1))/(1−γ)) + β1^(C/2−1)/(1−β1) < C/3.
    Sufficient, and far from necessary: `critical_beta2` of the same sequence says where Adam first goes wrong.
    """
    c = np.asarray(size, dtype=np.float64)
    _below_root(beta1, beta2)
    ratio = beta1 / math.sqrt(beta2)
    spread = (
        3.0 * (1.0 - beta1) / (2.0 * math.sqrt(1.0 - beta2)) * (1.0 + ratio * (1.0 - ratio ** (c - 1)) / (1.0 - ratio))
    )
    return np.stack(
        [
            (1.0 - beta1) * beta1 ** (c - 1) * c <= 1.0 - beta1 ** (c - 1),
            # in logarithms: β2^(C/2) underflows for the C that matter
            (c - 2) / 2 * math.log(beta2) + 2 * np.log(c) <= 0.0,
            spread + beta1 ** (c / 2 - 1) / (1.0 - beta1) < c / 3,
        ]
    )


def reddi_theorem2_size(beta1: float, beta2: float) -> int:
    """Return the smallest even C that meets all three conditions of `reddi_theorem2`.

    There always is one: for large C the first two left sides tend to zero, the third to a constant.
    """
    _below_root(beta1, beta2)
    first, last = 2, 1024
    while True:
        sizes = np.arange(first, last + 1, 2)
        met = reddi_theorem2(sizes, beta1, beta2).all(axis=0)
        if met.any():
            return int(sizes[met.argmax()])
        first, last = last + 2, 2 * last


@dataclass(frozen=True)
class ZouCondition:
    """What `zou` finds: both must hold for the sufficient condition to be met."""

    nonincreasing: bool
    """α_t/√(1−θ_t) falls or stays."""
    vanishing: bool
    """Σ α_t √(1−θ_t) / (T α_T) → 0."""
    order: sympy.Expr
    """How that ratio goes with T; a constant when 1−θ is."""

    @property
    def holds(self) -> bool:
        """Whether generic Adam with these α and θ is covered."""
        return self.nonincreasing and self.vanishing


def zou(alpha: sympy.Expr | str | float, one_minus_theta: sympy.Expr | str | float) -> ZouCondition:
    """Return whether stepsizes α_t and second-moment decays θ_t = β2,t meet the sufficient condition, from laws alone.

    After Zou et al. (CVPR 2019, arXiv 1811.09358): α_t/√(1−θ_t) almost non-increasing and
    Σ_{t≤T} α_t √(1−θ_t) / (T α_T) = o(1). The asymptotic evaluation for α_t ~ t^−p, 1−θ_t ~ t^−r is derived here:
    the first asks r ≤ 2p; the ratio goes like T^(−r/2), log T · T^(p−1) or T^(p−1) as p + r/2 is below, at or above 1.

    Args:
        alpha: a number or an expression in t that falls like a power of it.
        one_minus_theta: the same for 1 − θ_t, e.g. "1/t" or 0.001.
    """
    p, r = stepsize_power(alpha), stepsize_power(one_minus_theta)
    left = 1 - p - r / 2
    if left > 0:
        order = T ** (-r / 2)
        if r == 0:  # Σ t^−p = T^(1−p)/(1−p): for a constant θ the limit itself is known
            order = sympy.sqrt(sympy.limit(sympy.sympify(one_minus_theta, locals={"t": t}), t, sympy.oo)) / (1 - p)
    else:
        order = T ** (p - 1) * (sympy.log(T) if left == 0 else 1)
    vanishing = bool(sympy.limit(order, T, sympy.oo) == 0)
    return ZouCondition(bool(r <= 2 * p), vanishing, order)


def zou_ratio(alpha: ArrayLike, theta: ArrayLike) -> Array:
    """Return Σ_{s≤t} α_s √(1−θ_s) / (t α_t) for t = 1..T, (T,), from the two series; after Zou et al., see `zou`."""
    stepsize, decay = np.asarray(alpha, dtype=np.float64), np.asarray(theta, dtype=np.float64)
    ratio: Array = np.cumsum(stepsize * np.sqrt(1.0 - decay)) / (np.arange(1, len(stepsize) + 1) * stepsize)
    return ratio


def defossez_bound(
    steps: int,
    alpha: float,
    beta2: float,
    *,
    gradient_bound: float,
    lipschitz: float,
    gap: float,
    dim: int = 1,
    eps: float = 1e-8,
) -> float:
    """Return the bound on E‖∇F(x_τ)‖², τ uniform on the first N steps, for Adam without momentum, eps inside the root.

    After Défossez et al. (2020, arXiv 2003.02395):
        2R·gap/(αN) + E·(ln(1 + R²/((1−β2) eps))/N − ln β2),    E = 4dR²/√(1−β2) + α d R L/(1−β2).
    Only v is corrected for its start, α is torch's lr, R bounds every |g_j| + √eps, gap = F(x_1) − inf F. As N → ∞ at
    fixed α and β2 the floor −E ln β2 remains; α = 1/√N with 1−β2 = 1/N gives O(d ln N/√N).

    Raises:
        ValueError: when β2 lies outside (0, 1).
    """
    if not 0.0 < beta2 < 1.0:
        raise ValueError(f"beta2 must lie in (0, 1), got {beta2}.")
    q, r = 1.0 - beta2, gradient_bound
    scale = 4.0 * dim * r**2 / math.sqrt(q) + alpha * dim * r * lipschitz / q
    return 2.0 * r * gap / (alpha * steps) + scale * (math.log1p(r**2 / (q * eps)) / steps - math.log(beta2))


def nosadam_beta2(steps: int, gamma: float) -> Array:
    """Return β2,t = B_{t−1}/B_t for t = 1..steps, B_t = Σ_{k≤t} k^−γ; β2,1 = 0.

    After Huang et al. (NosAdam, 2018), the hyper-harmonic weights. γ = 0 is the plain average of AdaGrad. For γ < 1,
    1 − β2,t ~ (1−γ)/t [derived here], so the second moment stops forgetting and c/a → 0.
    """
    total = np.cumsum(np.arange(1, steps + 1, dtype=np.float64) ** -gamma)
    decay: Array = np.concatenate([[0.0], total[:-1] / total[1:]])
    return decay


def nosadam_condition(weights: ArrayLike) -> bool:
    """Return whether B_t/t is non-increasing for the weights b_1..b_T, B_t their running sum.

    After Huang et al. That it gives Γ_t ≥ 0 with α_t = α/√t is derived here: t v_t = (t/B_t) Σ b_k g_k² is a product of
    two factors that do not fall, and 1/e_t = √(t v_t)/α. For b_k = k^−γ it holds exactly when γ ≥ 0.
    """
    b = np.asarray(weights, dtype=np.float64)
    mean = np.cumsum(b) / np.arange(1, len(b) + 1)
    return bool((mean[1:] <= mean[:-1] * (1.0 + 1e-14)).all())  # 1e-14: equal weights, rounded sums


def adabound_limits(steps: ArrayLike, final: float, gamma: float) -> tuple[Array, Array]:
    """Return the lower and upper limit of e_t at each step: η*(1 − 1/(γt+1)) and η*(1 + 1/(γt)).

    Of Luo et al. (AdaBound, ICLR 2019); after the paper, η* = 0.1 and γ = 1−β2. Both tend to η*, so it ends as SGD.
    """
    scaled = gamma * np.asarray(steps, dtype=np.float64)
    return final * (1.0 - 1.0 / (scaled + 1.0)), final * (1.0 + 1.0 / scaled)


def adabound_oscillation(steps: int, final: float, gamma: float) -> float:
    """Return a bound on c of one coordinate under AdaBound with constant η*: the widths between its limits, summed.

    Derived here: each interval of limits contains the next, so |e_{t+1} − e_t| cannot exceed the width at t. The sum is
    about (η*/γ)(ln T + ln(γT) + 0.577) for γ ≪ 1 ≪ γT, and a ~ η* T: c/a → 0 however the gradients behave.
    """
    low, high = adabound_limits(np.arange(1, steps), final, gamma)
    return float(np.sum(high - low))


def _below_root(beta1: float, beta2: float) -> None:
    if not 0.0 < beta2 < 1.0 or not 0.0 <= beta1 < math.sqrt(beta2):
        raise ValueError(f"beta2 in (0, 1) and beta1 in [0, √beta2) were expected, got {beta1} and {beta2}.")
