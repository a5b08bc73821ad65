"""Figures 1 and 2 of Chen, Liu, Sun and Hong (ICLR 2019): each condition violated alone.

Figure 1, a deterministic quadratic with linear tails and a constant learning rate: Adam cycles, b/a stays. Figure 2,
eleven components of which one pulls eleven times as hard: Adam's stepsizes oscillate with the draw, c/a stays.
Settings and the linear tails, which bound the gradient, are after the paper; α_t = 1/√t in figure 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import sympy

from ..diagnostics.trace import Trace
from .arrivals import Cyclic, Random
from .claims import Claim, exponent, flatness, half_unit, ratio, rho, verdict
from .cycles import two_cycle
from .engine import simulate
from .problem import Problem
from .stationary import skewness_critical_beta2, stationary_critical_beta2, stationary_drift, stationary_rho

x = sympy.Symbol("x", real=True)


def figure1() -> Problem:
    """Return 100x² for |x| ≤ 10 and its linear continuation beyond, without noise."""
    f = sympy.Piecewise((100 * x**2, abs(x) <= 10), (2000 * abs(x) - 10000, True))
    return Problem([f], Cyclic((0,)), start=1, name="Chen, figure 1")


def figure2(tails: bool = True) -> Problem:
    """Return 11x²/2 once and −x²/2 ten times, drawn uniformly, linear for |x| > 1 unless `tails` is False."""
    half = sympy.Rational(1, 2)
    steep, gentle = 11 * half * x**2, -half * x**2
    if tails:
        near = abs(x) <= 1
        steep = sympy.Piecewise((steep, near), (11 * abs(x) - 11 * half, True))
        gentle = sympy.Piecewise((gentle, near), (-abs(x) + half, True))
    return Problem([steep] + [gentle] * 10, Random(), start=2, name="Chen, figure 2" + ("" if tails else ", no tails"))


LAW = ((1 / 11, 10 / 11), (11.0, -1.0))
"""Probabilities and gradients where figure 2 is linear, x > 1."""
STEPS = 1_000_000
SEEDS = 5


@cache
def run2(method: str, betas: tuple[float, float] | None = None, lr: str = "1/sqrt(t)", **hyper: Any) -> Trace:
    """Return the record of figure 2 at T = 1e6, kept for all claims about it."""
    return simulate(figure2(), method, STEPS, lr, betas, SEEDS, **hyper)


@cache
def run1(method: str, lr: float = 0.01, steps: int = 100_000) -> Trace:
    """Return the record of figure 1, β1 = 0 and β2 = 0.9 where the method has them."""
    betas = None if method in ("sgd", "adafom") else (0.0, 0.9)
    hyper: dict[str, Any] = {"beta1": 0.0} if method == "adafom" else {}
    return simulate(figure1(), method, steps, lr, betas, **hyper)


@cache
def run_bare() -> Trace:
    """Return the record of Adam, β = (0, 0.1), on figure 2 without its linear tails."""
    return simulate(figure2(tails=False), "adam_plain", STEPS, "1/sqrt(t)", (0.0, 0.1), SEEDS)


def size(trace: Trace) -> float:
    """Return the median over seeds of |x_T|."""
    return float(np.median(np.abs(trace.x)))


PAPER = "Chen, Liu, Sun, Hong, ICLR 2019"


def _f1(measure: Callable[[Trace], Any], *setting: Any) -> Any:
    return measure(run1(*setting))


def _f2(measure: Callable[[Trace], Any], *setting: Any) -> Any:
    hyper = {"beta1": 0.0} if setting[0] == "adafom" else {}
    return measure(run2(*setting, **hyper))


def _p(name: str) -> Callable[[Trace], float]:
    return lambda trace: exponent(trace, name)


def _s(name: str) -> Callable[[Trace], float]:
    return lambda trace: flatness(trace, name)


def _figure1() -> list[Claim]:
    where = f"{PAPER}, figure 1"
    cycle = two_cycle(0.01, 0.0) or math.nan
    exact = "|x| = α(1−β1)/(2(1+β1)) on the cycle, whatever the curvature; it attracts, so only rounding is left."
    constant = "On a cycle every term of the sum is the same."
    return [
        Claim("figure 1: Adam's 2-cycle ±α/2", where, "derived", 0.005, 1e-12, partial(_f1, size, "adam_plain"), exact),
        Claim("figure 1: the closed form", where, "derived", 0.005, 1e-15, lambda: cycle, exact),
        Claim("figure 1: x changes sign at every step", where, "derived", "yes", 0, _flips, exact),
        Claim(
            "figure 1: Adam's b/a = α",
            where,
            "derived",
            0.01,
            1e-6,
            lambda: ratio(run1("adam_plain"), "b"),
            "e g = 2|x| = α and e = α/(200|x|) = 0.01.",
        ),
        Claim("figure 1: Adam's b/a stays", where, "derived", 0, 1e-6, partial(_f1, _s("b"), "adam_plain"), constant),
        Claim(
            "figure 1: Adam's a grows like T",
            where,
            "derived",
            1,
            0.001,
            partial(_f1, _p("a"), "adam_plain", 0.01, 1_000_000),
            constant,
        ),
        Claim(
            "figure 1: Adam's c saturates",
            where,
            "derived",
            0,
            0.001,
            partial(_f1, _p("c"), "adam_plain"),
            "e is constant once the cycle is reached.",
        ),
        Claim(
            "figure 1: verdict on Adam",
            where,
            "derived",
            "neighbourhood",
            0,
            partial(_f1, verdict, "adam_plain"),
            "b/a stays, c/a falls.",
        ),
        Claim(
            "figure 1: AMSGrad arrives",
            where,
            "paper",
            0,
            1e-12,
            partial(_f1, size, "amsgrad"),
            "v̂ stays at its first size, so it is gradient descent with a safe stepsize.",
        ),
        Claim(
            "figure 1: AdaGrad arrives",
            where,
            "derived",
            0,
            1e-12,
            partial(_f1, size, "adafom"),
            "The mean of g² falls no faster than 1/t.",
        ),
        Claim(
            "figure 1: SGD at α = 0.001 arrives",
            where,
            "paper",
            0,
            1e-12,
            partial(_f1, size, "sgd", 0.001),
            "αL = 0.2 < 2.",
        ),
        Claim(
            "figure 1: SGD at α = 0.01 flips ±1 for ever",
            where,
            "derived",
            1,
            1e-9,
            partial(_f1, size, "sgd", 0.01),
            "αL = 2 exactly; so the α of Adam in the figure cannot be SGD's.",
        ),
        Claim(
            "figure 1: verdict on AMSGrad",
            where,
            "paper",
            "certified",
            0,
            partial(_f1, verdict, "amsgrad"),
            "b converges, e does not rise.",
        ),
    ]


def _flips() -> str:
    x = simulate(figure1(), "adam_plain", 10_000, 0.01, (0.0, 0.9), records=10_000).path
    if x is None:
        return "no path"
    return "yes" if (x[-5000:-1, 0, 0] * x[-4999:, 0, 0] < 0).all() else "no"


def _speed(beta2: float) -> float:
    return size(run2("adam_plain", (0.0, beta2))) / (2 * math.sqrt(STEPS))


def _figure2() -> list[Claim]:
    where = f"{PAPER}, figure 2"
    rows = [
        Claim(
            f"figure 2: Adam at β2 = {b2} diverges at the speed of its drift",
            where,
            "derived",
            -stationary_drift(*LAW, 0.0, b2),
            tolerance,
            partial(_speed, b2),
            "|x_T| = −2 E[g/√v]·√T, spread by the draws; four standard errors and the start-up.",
        )
        for b2, tolerance in ((0.1, 0.01), (0.9, 0.02))
    ]
    adam = ("adam_plain", (0.0, 0.1))
    rows += [
        Claim(
            "figure 2: |x| of Adam at β2 = 0.1, T = 1e6",
            where,
            "simulated",
            1457,
            20,
            partial(_f2, size, *adam),
            "An earlier simulation; a seed's spread is √(Var(g/√v)·ln T·memory) ≈ 5.",
        ),
        Claim(
            "figure 2: |x| of Adam at β2 = 0.9, T = 1e6",
            where,
            "simulated",
            260,
            40,
            partial(_f2, size, "adam_plain", (0.0, 0.9)),
            "As above, with the spread of a longer memory, about 10 a seed.",
        ),
        Claim(
            "figure 2: Adam, a grows like T^0.50",
            where,
            "simulated",
            0.50,
            0.01,
            partial(_f2, _p("a"), *adam),
            "α_t = 1/√t while E[1/√v] is fixed.",
        ),
        Claim(
            "figure 2: Adam, b grows like log T, T^0.08",
            where,
            "simulated",
            0.08,
            0.01,
            partial(_f2, _p("b"), *adam),
            "The slope of log T is 1/ln T = 0.072 at T = 1e6, 0.087 at 1e5.",
        ),
        Claim(
            "figure 2: Adam, c grows like T^0.50",
            where,
            "simulated",
            0.50,
            0.01,
            partial(_f2, _p("c"), *adam),
            "v fluctuates for ever at a constant β2.",
        ),
        Claim(
            "figure 2: Adam, block b/a falls like T^−1/2",
            where,
            "derived",
            -0.5,
            0.02,
            partial(_f2, _s("b"), *adam),
            "α_t is taken once more; spread by the draws.",
        ),
        Claim(
            "figure 2: Adam, block c/a stays",
            where,
            "derived",
            0,
            0.02,
            partial(_f2, _s("c"), *adam),
            "α_t cancels; spread by the draws.",
        ),
        Claim(
            "figure 2: verdict on Adam at β2 = 0.1",
            where,
            "paper",
            "biased",
            0,
            partial(_f2, verdict, *adam),
            "c/a stays and x goes up the objective.",
        ),
        Claim(
            "figure 2: verdict on Adam at β2 = 0.9",
            where,
            "derived",
            "biased",
            0,
            partial(_f2, verdict, "adam_plain", (0.0, 0.9)),
            "β2 is below the critical 0.9818.",
        ),
        Claim(
            "figure 2: ρ of Adam at β2 = 0.1",
            where,
            "simulated",
            -9.6,
            0.15,
            partial(_f2, rho, *adam),
            "Exact in the stationary state: −9.625.",
        ),
        Claim(
            "figure 2: ρ of Adam at β2 = 0.9",
            where,
            "simulated",
            -3.9,
            0.15,
            partial(_f2, rho, "adam_plain", (0.0, 0.9)),
            "Exact in the stationary state: −3.851.",
        ),
        Claim(
            "figure 2: exact ρ at β2 = 0.99",
            where,
            "derived",
            0.45,
            0.005,
            lambda: stationary_rho(*LAW, 0.99),
            "Half a unit of 0.45.",
        ),
        Claim(
            "figure 2: |x| of Adam at β2 = 0.999, right but slow",
            where,
            "simulated",
            (8, 24),
            0,
            partial(_f2, size, "adam_plain", (0.0, 0.999)),
            "An earlier median of 16 among seeds that differ by a third.",
        ),
        Claim(
            "figure 2: |x| of AMSGrad at β2 = 0.1",
            where,
            "simulated",
            (0, 1e-3),
            0,
            partial(_f2, size, "amsgrad", (0.0, 0.1)),
            "3e-6 earlier; log |x| walks at random and spreads over decades.",
        ),
        Claim(
            "figure 2: |x| of SGD",
            where,
            "simulated",
            (0, 1e-60),
            0,
            partial(_f2, size, "sgd"),
            "8e-96 earlier; log |x| spreads over tens of decades.",
        ),
        Claim(
            "figure 2: |x| of AdaGrad",
            where,
            "simulated",
            (0, 1e-60),
            0,
            partial(_f2, size, "adafom"),
            "9e-248 earlier, likewise.",
        ),
    ]
    rows += [
        Claim(
            f"figure 2: verdict on {m}",
            where,
            "paper",
            "certified",
            0,
            partial(_f2, verdict, m, betas),
            "e does not rise; b converges.",
        )
        for m, betas in (("amsgrad", (0.0, 0.1)), ("sgd", None), ("adafom", None))
    ]
    rows += [
        Claim(
            "figure 2: verdict on Adam at β2 = 0.99",
            where,
            "derived",
            "uncertified",
            0,
            partial(_f2, verdict, "adam_plain", (0.0, 0.99)),
            "Above the critical β2: c/a stays, without harm.",
        ),
        Claim(
            "figure 2 without tails: Adam's a hardly grows",
            where,
            "simulated",
            0.08,
            0.05,
            lambda: exponent(run_bare(), "a"),
            "Gradients grow with x, so e falls: T^0.08 earlier, a logarithm's slope (0.07 to 0.09) within the draws.",
        ),
        Claim(
            "figure 2 without tails: Adam's b/a stays as well",
            where,
            "derived",
            0,
            0.1,
            lambda: flatness(run_bare(), "b"),
            "Without the bound on the gradient the example no longer isolates the bias condition.",
        ),
    ]
    return [
        *rows,
        Claim(
            "figure 2: critical β2 of the linear part, formula",
            where,
            "derived",
            0.98181,
            half_unit("0.98181"),
            lambda: skewness_critical_beta2(*LAW) or math.nan,
            "1 − 2/(skewness − 1); half a unit of the digits.",
        ),
        Claim(
            "figure 2: critical β2 of the linear part, exact",
            where,
            "simulated",
            0.98210,
            5e-4,
            lambda: stationary_critical_beta2(*LAW) or math.nan,
            "A Monte Carlo root; its error is 3% of 1−β2, as is the formula's remainder.",
        ),
        Claim(
            "figure 2: |x| at the script's constant α = 0.8, β2 = 0.9",
            where,
            "simulated",
            1.0e5,
            5e3,
            _script,
            "−0.8·T·E[g/√v]; half a unit of 1.0e5.",
        ),
    ]


def _script() -> float:
    return size(run2("adam", (0.0, 0.9), "0.8", eps=0.0))


CLAIMS: tuple[Claim, ...] = (*_figure1(), *_figure2())
"""What the paper's two figures show, and what follows for them."""
