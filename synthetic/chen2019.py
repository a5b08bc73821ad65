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
from numpy.typing import NDArray

from ..diagnostics.trace import Trace
from .arrivals import Cyclic, Random
from .claims import (
    SEEDS,
    Claim,
    Estimate,
    Row,
    again,
    exponent,
    flatness,
    half_unit,
    mean,
    ratio,
    rows,
    slopes,
    verdict,
)
from .cycles import two_cycle
from .engine import simulate
from .problem import Problem
from .recent import listed
from .stationary import (
    skewness_critical_beta2,
    skewness_remainder,
    stationary_critical_beta2,
    stationary_drift,
    stationary_rho,
)

Array = NDArray[np.float64]
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


def tail_line() -> Problem:
    """Return figure 2's right tail on the whole line: 11x once and −x ten times, drawn uniformly."""
    return Problem([11 * x] + [-x] * 10, Random(), start=0, name="Chen, figure 2, a tail alone")


LAW = ((1 / 11, 10 / 11), (11.0, -1.0))
"""Probabilities and gradients where figure 2 is linear, x > 1."""
SLOPE = 1 / 11
"""The objective's gradient there."""
STEPS = 1_000_000


@cache
def run1(method: str, lr: float = 0.01, steps: int = 100_000) -> Trace:
    """Return the record of figure 1, β1 = 0 and β2 = 0.9 where the method has them."""
    betas = None if method in ("sgd", "adafom") else (0.0, 0.9)
    hyper: dict[str, Any] = {"beta1": 0.0} if method == "adafom" else {}
    return simulate(figure1(), method, steps, lr, betas, **hyper)


@cache
def run2(method: str, beta2: float | None = None, lr: str = "1/sqrt(t)", tails: bool = True) -> Trace:
    """Return the record of figure 2 at T = 1e6, β1 = 0, kept for all claims about it."""
    hyper: dict[str, Any] = {"adafom": {"beta1": 0.0}, "adam": {"eps": 0.0}}.get(method, {})
    betas = None if beta2 is None else (0.0, beta2)
    return simulate(figure2(tails), method, STEPS, lr, betas, SEEDS, **hyper)


def size(trace: Trace) -> float:
    """Return the median over seeds of |x_T|."""
    return float(np.median(np.abs(trace.x)))


# what claims read; each takes the arguments of run1 or run2


def late(trace: Trace) -> tuple[int, float]:
    """Return the row of the record at T/10 and Σ 1/√t from there to the end."""
    row = int(np.searchsorted(trace.steps, STEPS // 10))
    return row, float(np.sum(np.arange(trace.steps[row] + 1.0, STEPS + 1) ** -0.5))


def distances(trace: Trace) -> Array:
    """Return |x| at the records, (records, seeds)."""
    assert trace.path is not None
    each: Array = np.abs(trace.path[:, :, 0])
    return each


def speed(*setting: Any) -> Estimate:
    """Return by how much |x| grows from T/10 to T, over Σ α_t: all of it lies on the tails by then."""
    trace = run2(*setting)
    row, spent = late(trace)
    far = distances(trace)
    return mean((far[-1] - far[row]) / spent)


def tail_rho(*setting: Any) -> Estimate:
    """Return ρ from T/10 to T: the way x made against the way Σ e times the mean gradient would have."""
    trace = run2(*setting)
    row, _ = late(trace)
    far, a = distances(trace), trace.column("a")
    return mean((far[row] - far[-1]) / (a[-1] - a[row]) / SLOPE)


def decades(*setting: Any) -> Array:
    """Return log10 |x_T| of each seed, −323 for zero."""
    each: Array = np.log10(np.maximum(distances(run2(*setting))[-1], 1e-323))
    return each


def exponents(column: str, *setting: Any) -> Array:
    """Return each seed's p in column ~ t^p from T/10 to T."""
    trace = run2(*setting)
    row, _ = late(trace)
    sums = trace.column(column)
    p: Array = np.log(sums[-1] / sums[row]) / math.log(STEPS / trace.steps[row])
    return p


def growth(*setting: Any) -> Estimate:
    """Return what b gains from T/10 to T over Σ α_t² = Σ 1/t, the e-folds in between."""
    trace = run2(*setting)
    row, _ = late(trace)
    b = trace.column("b")
    return mean((b[-1] - b[row]) / float(np.sum(1 / np.arange(trace.steps[row] + 1.0, STEPS + 1))))


EARLY = 1024
"""From where on SGD is surely on the curved part of figure 2: it contracts once 11/√t < 1."""


def sgd_fall() -> Estimate:
    """Return by how many decades |x| of SGD changes from t = 1024 to T, over the seeds that have not hit 0 exactly."""
    trace = run2("sgd")
    row, far = int(np.searchsorted(trace.steps, EARLY)), distances(trace)
    moving = far[-1] > 0.0  # at t = 121, 11α = 1: one seed in eleven is sent to 0
    return mean(np.log10(far[-1, moving] / far[row, moving]))


def sgd_expected() -> float:
    """Return Σ E log10 |1 − α_t f''| over the same steps: f'' is 11 once in eleven and −1 otherwise."""
    alpha = np.arange(EARLY + 1.0, STEPS + 1) ** -0.5
    return float(np.sum(np.log10(np.abs(1 - 11 * alpha)) + 10 * np.log10(1 + alpha))) / 11


def flips() -> str:
    """Return "yes" if Adam's x on figure 1 has changed its sign at each of the last 5000 steps of 1e4."""
    far = simulate(figure1(), "adam_plain", 10_000, 0.01, (0.0, 0.9), records=10_000).path
    assert far is not None
    return "yes" if (far[-5000:-1, 0, 0] * far[-4999:, 0, 0] < 0).all() else "no"


def root_rho() -> Estimate:
    """Return ρ of Adam on the tail's line at the exact critical β2, where it should be 0; constant α."""
    trace = simulate(tail_line(), "adam", STEPS, 1.0, (0.0, critical()), SEEDS, eps=0.0)
    return mean(-trace.x[:, 0] / trace.column("a")[-1] / SLOPE)


def b_gain(beta2: float) -> float:
    """Return E[g²/v] on a tail."""
    return listed(*LAW, beta2, lambda g, v: g**2 / v)


def formula() -> float:
    """Return the critical β2 of the linear part from three moments."""
    return skewness_critical_beta2(*LAW) or math.nan


def critical() -> float:
    """Return the β2 of the linear part below which Adam (β1 = 0) climbs, exact."""
    return stationary_critical_beta2(*LAW) or math.nan


def script_speed() -> Estimate:
    """Return what |x| gains in a step at the script's constant learning rate, from T/10 to T."""
    trace = run2(*SCRIPTED)
    row, _ = late(trace)
    far = distances(trace)
    return mean((far[-1] - far[row]) / (STEPS - trace.steps[row]))


def first(measure: Callable[..., Any], *setting: Any) -> Callable[[], Any]:
    """Return an experiment: what `measure` reads from figure 1."""
    return lambda: measure(run1(*setting))


def second(measure: Callable[..., Any], *setting: Any) -> Callable[[], Any]:
    """Return an experiment: what `measure` reads from figure 2."""
    return lambda: measure(run2(*setting))


def repeated(column: str, *setting: Any) -> Callable[[], Estimate]:
    """Return an experiment: an exponent, to be compared with an earlier median of five seeds."""
    return lambda: again(exponents(column, *setting), 5)


def earlier(seeds: Callable[..., Array], *setting: Any) -> Callable[[], Estimate]:
    """Return an experiment: a mean over seeds, to be compared with an earlier median of five."""
    return lambda: again(seeds(*setting), 5)


def sizes(*setting: Any) -> Array:
    """Return |x_T| of each seed."""
    each: Array = distances(run2(*setting))[-1]
    return each


def sloping(over: str, *setting: Any) -> Callable[[], Estimate]:
    """Return an experiment: the mean slope of a block ratio."""
    return lambda: mean(slopes(run2(*setting), over))


TITLES = {"adam_plain": "Adam", "amsgrad": "AMSGrad"}
PAPER = "Chen, Liu, Sun, Hong, ICLR 2019"
CYCLE = "|x| = α(1−β1)/(2(1+β1)) on the cycle, whatever the curvature; it attracts, so only rounding is left."
SAME = "On a cycle every term of the sum is the same."
LINE = "e = 0.01 once v has forgotten the start, within 100 steps to the minimum and 100 more: 2/1000 of a(T/10)."
REST = "αL < 2, with a stepsize that does not rise again; it descends geometrically."
EARLIER = "An earlier median of five seeds, half a unit of its digits; the error counts theirs as well."
HALF = "Half a unit of the printed digits; the exact stationary value."
EXACT = "Exact in the stationary state (`stationary.py`); the draws alone differ."
ROUNDED = "Half a unit of the digits; α_t = 1/√t and E[1/√v], E|Δe|/α are fixed."
BELOW = "c/a stays and x goes up the objective: β2 is below the critical 0.9818."
FALLING = "e does not rise; b converges."
ABOVE = "Above the critical β2: c/a stays, without harm."
CONTRACTION = "Σ E log10 |1 − α_t f''(x)|, exact where all is quadratic; seeds that hit 0 at 11α = 1 left out."
GEOMETRIC = "Σg² converges, so e does not vanish and x falls geometrically; arrived is less than a step of SGD, 1/√T."
LISTED = "E[g²/v] by listing twelve draws, exact to 0.1^12·121; Σα² = Σ1/t is the e-folds."
LOG = "b = K(ln t + c), 0 ≤ c ≤ 1: Σ1/t begins with 0.58, and the first terms exceed K by a few tenths."
BARE = "Without the bound on the gradient e g stays of the size of x's moves, and bias is not isolated; octaves, draws."
RARE = "The formula; in x = (1−β2) max g²/E g² = 0.18 its relative remainder is x³, for a rare spike x and x² cancel."
ROOT = "Exact, by definition; an earlier Monte Carlo root, 0.98210, came without an error, 1.7 % of 1−β2 away."
SCRIPT = "−0.8·E[g/√v], half a unit of its digits beside the draws; bias correction is over by T/10."
OCTAVES = "Octaves of t, in which sums of 1/√t differ from integrals by 1/t, 6e-5 at the least; else draws."

FIGURE1: tuple[Row, ...] = (
    ("Adam's 2-cycle ±α/2", "derived", 0.005, 1e-12, first(size, "adam_plain"), CYCLE),
    ("the closed form", "derived", 0.005, 1e-15, lambda: two_cycle(0.01, 0.0) or math.nan, CYCLE),
    ("x changes sign at every step", "derived", "yes", 0, flips, CYCLE),
    ("Adam's b/a = α", "derived", 0.01, 1e-9, first(partial(ratio, over="b"), "adam_plain"), "e g = 2|x| and e = α."),
    ("Adam's b/a stays", "derived", 0, 1e-9, first(partial(flatness, over="b"), "adam_plain"), SAME),
    ("Adam's a grows like T", "derived", 1, 1e-3, first(partial(exponent, name="a"), "adam_plain", 0.01, STEPS), LINE),
    ("Adam's c saturates", "derived", 0, 1e-9, first(partial(exponent, name="c"), "adam_plain"), SAME),
    ("verdict on Adam", "derived", "neighbourhood", 0, first(verdict, "adam_plain"), "b/a stays, c/a falls."),
    ("AMSGrad arrives", "paper", 0, 1e-12, first(size, "amsgrad"), REST),
    ("AdaGrad arrives", "derived", 0, 1e-12, first(size, "adafom"), REST),
    ("SGD at α = 0.001 arrives", "paper", 0, 1e-12, first(size, "sgd", 0.001), REST),
    (
        "SGD at α = 0.01 flips ±1 for ever",
        "derived",
        1,
        1e-9,
        first(size, "sgd", 0.01),
        "αL = 2 exactly; so the α of Adam in the figure cannot be SGD's.",
    ),
    ("verdict on AMSGrad", "paper", "certified", 0, first(verdict, "amsgrad"), "b converges, e does not rise."),
)

LOGARITHM = (1 / (math.log(STEPS) + 1), 1 / math.log(STEPS / 10))
"""The slope of log(ln t + c) against log t is 1/(ln t + c); c in [0, 1], t in [T/10, T]."""
LR = "1/sqrt(t)"
SCRIPTED = ("adam", 0.9, "0.8")
MIDDLE = ("adam_plain", 0.9)
ADAM = ("adam_plain", 0.1)


def figure2_rows() -> tuple[Row, ...]:
    """Return the rows of figure 2; those with exact drifts compute them."""
    return (
        *(
            (f"Adam at β2 = {b2} climbs at the speed of its drift", "derived", -drift, 0, partial(speed, *adam), EXACT)
            for b2, drift, adam in ((b2, stationary_drift(*LAW, 0.0, b2), ("adam_plain", b2)) for b2 in (0.1, 0.9))
        ),
        ("ρ of Adam at β2 = 0.1", "derived", stationary_rho(*LAW, 0.1), 0, partial(tail_rho, *ADAM), EXACT),
        ("ρ of Adam at β2 = 0.9", "derived", stationary_rho(*LAW, 0.9), 0, partial(tail_rho, *MIDDLE), EXACT),
        *(
            (f"exact ρ at β2 = {b2}", "simulated", float(rho), half_unit(rho), partial(stationary_rho, *LAW, b2), HALF)
            for b2, rho in ((0.1, "-9.6"), (0.9, "-3.9"), (0.99, "0.45"))
        ),
        ("|x| of Adam at β2 = 0.1, T = 1e6", "simulated", 1457, 0.5, earlier(sizes, *ADAM), EARLIER),
        ("|x| of Adam at β2 = 0.9, T = 1e6", "simulated", 260, 0.5, earlier(sizes, *MIDDLE), EARLIER),
        *(
            (
                f"log10 |x| of {TITLES[m]} at β2 = {b2}, T = 1e6",
                "simulated",
                math.log10(at),
                half,
                earlier(decades, m, b2),
                EARLIER,
            )
            for m, b2, at, half in (
                ("amsgrad", 0.1, 3e-6, 0.08),
                ("amsgrad", 0.9, 2e-8, 0.13),
            )
        ),
        ("SGD falls by so many decades from t = 1024 on", "derived", sgd_expected(), 0, sgd_fall, CONTRACTION),
        ("AdaGrad's farthest seed", "derived", (0.0, 1e-3), 0, lambda: float(sizes("adafom").max()), GEOMETRIC),
        ("AdaGrad, a grows like T^0.97", "simulated", 0.968, 5e-4, repeated("a", "adafom"), EARLIER),
        ("SGD, a grows like T^0.50", "derived", 0.5, 0.005, lambda: mean(exponents("a", "sgd")), ROUNDED),
        ("Adam, a grows like T^0.50", "derived", 0.5, 0.005, lambda: mean(exponents("a", *ADAM)), ROUNDED),
        ("Adam, c grows like T^0.50", "derived", 0.5, 0.005, lambda: mean(exponents("c", *ADAM)), ROUNDED),
        ("Adam, b gains E[g²/v] in an e-fold", "derived", b_gain(0.1), 0, partial(growth, *ADAM), LISTED),
        ("Adam, b grows like T^0.07 to 0.08", "derived", LOGARITHM, 0, lambda: mean(exponents("b", *ADAM)), LOG),
        *(
            (
                f"{TITLES[m]} at β2 = {b2}, exponent of {of}",
                "simulated",
                float(p),
                half_unit(p),
                repeated(of, m, b2),
                EARLIER,
            )
            for m, b2, of, p in (
                ("adam_plain", 0.9, "a", "0.492"),
                ("adam_plain", 0.9, "b", "0.029"),
                ("adam_plain", 0.999, "b", "0.001"),
                ("amsgrad", 0.1, "a", "0.48"),
                ("amsgrad", 0.9, "a", "0.44"),
                ("amsgrad", 0.99, "a", "0.40"),
            )
        ),
        ("Adam, block b/a falls like T^−1/2", "derived", -0.5, 1e-4, sloping("b", *ADAM), OCTAVES),
        ("Adam, block c/a stays", "derived", 0, 1e-4, sloping("c", *ADAM), OCTAVES),
        ("Adam at β2 = 0.9, block c/a stays", "derived", 0, 1e-4, sloping("c", *MIDDLE), OCTAVES),
        ("verdict on Adam at β2 = 0.1", "paper", "biased", 0, second(verdict, *ADAM), BELOW),
        ("verdict on Adam at β2 = 0.9", "derived", "biased", 0, second(verdict, *MIDDLE), BELOW),
        ("verdict on Adam at β2 = 0.99", "derived", "uncertified", 0, second(verdict, "adam_plain", 0.99), ABOVE),
        ("verdict on AMSGrad", "paper", "certified", 0, second(verdict, "amsgrad", 0.1), FALLING),
        ("verdict on SGD", "paper", "certified", 0, second(verdict, "sgd"), FALLING),
        ("verdict on AdaGrad", "paper", "certified", 0, second(verdict, "adafom"), FALLING),
        ("without tails, Adam's a ~ T^0.08", "simulated", 0.08, 0.005, repeated("a", *ADAM, LR, False), EARLIER),
        ("without tails, Adam's b/a stays as well", "derived", 0, 1e-4, sloping("b", *ADAM, LR, False), BARE),
        ("critical β2 of the tails, formula", "derived", 0.98181, 5e-6, formula, "1 − 2/(skewness − 1); half a unit."),
        ("critical β2 of the tails, exact", "derived", formula(), skewness_remainder(*LAW), critical, RARE),
        ("ρ of Adam at the exact critical β2, on a tail alone", "derived", 0, 0, root_rho, ROOT),
        ("speed at the script's constant α = 0.8, β2 = 0.9", "derived", 0.1018, 5e-5, script_speed, SCRIPT),
        (
            "|x| at the script's α = 0.8, β2 = 0.9, T = 1e6",
            "simulated",
            1.0e5,
            5e3,
            second(size, *SCRIPTED),
            "Half a unit of 1.0e5.",
        ),
    )


def stated() -> tuple[Claim, ...]:
    """Return the claims: what the paper's two figures show, and what follows for them."""
    return (
        *rows(f"{PAPER}, figure 1", "figure 1: ", FIGURE1),
        *rows(f"{PAPER}, figure 2", "figure 2: ", figure2_rows()),
    )
