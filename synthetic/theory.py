"""What Chen, Liu, Sun and Hong (ICLR 2019, arXiv 1808.02941) let one conclude from e_t: constants, bound, growth, Γ.

Generalized Adam is m_t = β1 m_{t−1} + (1−β1) g_t, x_{t+1} = x_t − e_t m_t, with e_t = α_t/√v̂_t by coordinate. Of a
run they ask three sums: a = Σ e_t, b = Σ ‖e_t g_t‖², c = Σ ‖e_t − e_{t−1}‖₁; here also c2 = Σ ‖e_t − e_{t−1}‖².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

L, H, BETA1, D, GAP, E1 = sympy.symbols("L H beta1 d gap e1", nonnegative=True)
"""Lipschitz constant of ∇f, bound of ‖∇f‖ and ‖g‖, β1, dimension, f(x_1) − inf f, mean over coordinates of E e_1."""
T = sympy.Symbol("T", positive=True)
t = sympy.Symbol("t", positive=True)


@dataclass(frozen=True)
class Constants:
    """C1..C4 of Theorem 3.1, as expressions in L, H, beta1, d, gap and e1."""

    c1: sympy.Expr
    c2: sympy.Expr
    c3: sympy.Expr
    c4: sympy.Expr

    def numbers(
        self, lipschitz: float, gradient_bound: float, beta1: float, gap: float, e1: float, dim: int = 1
    ) -> tuple[float, float, float, float]:
        """Return (C1, C2, C3, C4) as floats; e1 is the mean over coordinates of the first effective stepsize."""
        values = {L: lipschitz, H: gradient_bound, BETA1: beta1, D: dim, GAP: gap, E1: e1}
        c1, c2, c3, c4 = (float(c.subs(values)) for c in (self.c1, self.c2, self.c3, self.c4))
        return c1, c2, c3, c4


def constants(*, momentum: bool = True, noise: bool = True) -> Constants:
    """Return the constants of E Σ⟨∇f(x_t), e_t ∇f(x_t)⟩ ≤ E[C1 b + C2 c + C3 c2] + C4.

    The theorem is Chen et al.'s; these constants are derived here for a constant β1, through the sequence
    z_t = x_t + κ (x_t − x_{t−1}), κ = β1/(1−β1), along which z_{t+1} − z_t = −κ (e_t − e_{t−1}) m_{t−1} − e_t g_t.
    They need ∇f L-Lipschitz, ‖∇f‖ ≤ H wherever the iterates and z_t come, ‖g_t‖ ≤ H, g_t unbiased given the past,
    no projection and no eps beyond what e_t holds. They are sharp for gradient descent on L x²/2.

    Args:
        momentum: False for β1 = 0, where z = x and the constants are smaller than the general ones at β1 = 0.
        noise: False when g_t = ∇f(x_t): what is left is the price of momentum.
    """
    kappa = BETA1 / (1 - BETA1) if momentum else sympy.Integer(0)
    bias = 2 * H**2 if noise else sympy.Integer(0)
    return Constants(
        c1=L + sympy.Rational(1, 2) + L**2 * kappa**2 if momentum else L / 2,
        c2=bias + kappa * H**2,
        c3=H**2 * kappa**2 * (L + L**2 * kappa**2),
        c4=GAP + bias * D * E1,
    )


def bound(c: tuple[float, float, float, float], sums: tuple[float, float, float, float]) -> float:
    """Return (C1 b + C2 c + C3 c2 + C4)/a from the four numbers and the sums (a, b, c, c2).

    With a = Σ of e over steps and coordinates it bounds the e-weighted mean of (∂f/∂x_j)², with a = Σ_t min_j e_t,j the
    smallest ‖∇f(x_t)‖². Usually vacuous: 2H² c/a alone exceeds any squared gradient unless c/a is small; rates tell.
    """
    a = sums[0]
    if not a > 0.0:
        raise ValueError(f"a, the sum of effective stepsizes, must be positive, got {a}.")
    return (c[0] * sums[1] + c[1] * sums[2] + c[2] * sums[3] + c[3]) / a


def gamma(stepsizes: ArrayLike) -> Array:
    """Return Γ_t = 1/e_t − 1/e_{t−1}, (T−1, …), from effective stepsizes (T, …).

    After Reddi, Kale and Kumar (ICLR 2018), whose proof for Adam needs Γ_t ≥ 0; in terms of e derived here.
    Γ_t < 0 where e_t > e_{t−1} and nowhere else, also in floating point: the difference is taken first.

    Raises:
        ValueError: when a stepsize is not positive; leave out the steps before the first gradient.
    """
    e = np.asarray(stepsizes, dtype=np.float64)
    if not (e > 0.0).all():
        raise ValueError("Positive effective stepsizes were expected; leave out the steps where e is 0 or NaN.")
    change: Array = (e[:-1] - e[1:]) / e[1:] / e[:-1]
    return change


Memory = Literal["fixed", "maximum", "average", "sum", "forgetting"]

MEMORY: dict[str, Memory] = {
    **dict.fromkeys(("sgd", "momentum", "adai"), "fixed"),
    **dict.fromkeys(("amsgrad", "amsgrad_torch"), "maximum"),
    **dict.fromkeys(("adafom", "adamnc", "nosadam", "adabound"), "average"),
    "adagrad": "sum",
    **dict.fromkeys(
        ("rmsprop", "adam", "adam_plain", "adam_inside", "yogi", "adabelief", "adashift", "adopt", "demon_adam"),
        "forgetting",
    ),
    "avagrad": "forgetting",
}
"""What v̂ remembers of bounded gradients that keep their noise.

fixed: nothing; maximum: the largest, and settles (then it is as fixed); average: each gradient moves it by O(1/t);
sum: it grows like t (torch's AdaGrad, whose e falls like α_t/√t); forgetting: a constant β2, so v̂ fluctuates for ever.
Adai's v moves the momentum's decay and e only by 1/(1 − Πβ1), which settles at once. AvaGrad's e is normalized over the
coordinates, in one variable to α_t alone.
"""
NONE: dict[str, str] = {"lion": "e = α/|c| is as large as the momentum c is small, and need not have a mean"}
"""Methods of which nothing is known here, and why."""


@dataclass(frozen=True)
class Rate:
    """How a sum of positive terms grows: its terms fall like T^(increment − 1).

    `increment` is −oo when the terms are zero, and negative when the sum converges.
    """

    increment: sympy.Expr

    @property
    def exponent(self) -> sympy.Expr:
        """The power of T, max(0, increment); a logarithm counts as zero."""
        return sympy.Max(0, self.increment)

    @property
    def order(self) -> sympy.Expr:
        """The class of growth: T**increment, log(T) or 1; a Piecewise while p is a symbol."""
        r = self.increment
        return sympy.Piecewise((T**r, r > 0), (sympy.log(T), sympy.Eq(r, 0)), (sympy.Integer(1), True))


@dataclass(frozen=True)
class Growth:
    """Growth of a, b, c, and of c+ = Σ max(0, e_t − e_{t−1}), under α_t ~ t^−p and gradients that keep their noise."""

    a: Rate
    b: Rate
    c: Rate
    rising: Rate

    @property
    def alive(self) -> bool:
        """Whether a diverges: otherwise the iterate stalls."""
        return bool(self.a.increment >= 0)

    @property
    def variance(self) -> bool:
        """Whether b/a → 0."""
        return _vanishes(self.b.order / self.a.order)

    @property
    def bias(self) -> bool:
        """Whether c/a → 0."""
        return _vanishes(self.c.order / self.a.order)

    @property
    def rate(self) -> sympy.Expr:
        """The order of the bound on min ‖∇f‖²: the fastest growing of b, c and 1, over a."""
        return max((self.b, self.c), key=lambda r: r.increment).order / self.a.order


def growth(method: str, alpha: sympy.Expr | str | float = "1/sqrt(t)") -> Growth:
    """Return how fast the accumulators of a method grow under a stepsize law α_t.

    Derived here, for bounded gradients whose noise persists and, where it matters, keeps away from zero. With α_t ~
    t^−p the terms of a fall like t^−p, those of b like t^−2p (p + 1/2 in place of p for a summed v̂); those of c like
    t^(−p−1) where only α_t and an average move e, and like t^−p where v̂ forgets: then c keeps pace with a, whatever α.

    For an average, c+ is at most what is given, and none at all where p is large beside the spread of g².

    Args:
        method: a name in `MEMORY`, or one of its kinds of memory.
        alpha: a number or an expression in t with a power law, e.g. "0.5/sqrt(t)", "1/t", t**-p; with p a symbol the
            increments and orders are formulas in p, and the yes-or-no questions cannot be asked.

    Raises:
        ValueError: for an unknown name, a method without such a memory, or a law that is no power of t.
    """
    memory = MEMORY.get(method, method)
    if method in NONE:
        raise ValueError(f"No growth is known of the accumulators of {method}: {NONE[method]}.")
    if memory not in get_args(Memory):
        raise ValueError(
            f"A method of {sorted(MEMORY)} or a memory of {get_args(Memory)} was expected, got {method!r}."
        )
    alpha_power = stepsize_power(alpha)
    p = alpha_power + sympy.Rational(1, 2) if memory == "sum" else alpha_power
    none = -sympy.oo
    trend = sympy.Piecewise((-p, p > 0), (none, True))  # a constant e makes no steps in c at all
    # α_t √t / √Σg² falls from the first step on when α_t √t does not rise
    average = sympy.Piecewise((none, p >= sympy.Rational(1, 2)), (-p, True))
    c, rising = {
        "fixed": (trend, none),
        "maximum": (trend, none),
        "average": (-p, average),
        "sum": (-p, none),
        "forgetting": (1 - p, 1 - p),
    }[memory]
    return Growth(Rate(1 - p), Rate(1 - 2 * p), Rate(c), Rate(rising))


def stepsize_power(alpha: sympy.Expr | str | float) -> sympy.Expr:
    """Return p ≥ 0 such that α_t ~ t^−p, up to a constant factor; ValueError when there is none."""
    wrong = f"A stepsize that falls like a power of t, or not at all, was expected, got {alpha}."
    try:
        law = sympy.sympify(alpha, locals={"t": t})
    except Exception as fault:  # text may fail to read in any way
        raise ValueError(wrong) from fault
    if not isinstance(law, sympy.Expr):
        raise ValueError(wrong)
    p = -sympy.limit(sympy.expand_log(sympy.log(law), force=True) / sympy.log(t), t, sympy.oo)
    factor = sympy.limit(sympy.powsimp(law * t**p), t, sympy.oo)
    if not p.is_nonnegative or not factor.is_positive:
        raise ValueError(wrong)
    return p


def _vanishes(ratio: sympy.Expr) -> bool:
    return bool(sympy.limit(ratio, T, sympy.oo) == 0)
