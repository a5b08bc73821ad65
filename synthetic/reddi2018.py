"""The online games of Reddi, Kale and Kumar (ICLR 2018): a rare large gradient one way, many small ones the other.

The sum of gradients over a period is positive, so the best fixed point of the interval is its left end. Adam divides
the rare gradient by the root that this very gradient has just raised, and walks to the right end.

Steps are projected onto the box by clipping, the learning rate is 0.5/√t, and Adam is without bias correction and eps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import sympy
from numpy.typing import NDArray

from .arrivals import Cyclic, Random
from .claims import SEEDS, Claim, Estimate, Row, final, half_unit, mean, rows
from .engine import simulate
from .games import ONLINE, THEOREM1, OnlineGame
from .guarantees import reddi_theorem2_size
from .periodic import critical_beta2, cyclic_gradients, periodic_average, periodic_drift, periodic_rho
from .problem import Problem
from .stationary import (
    iid_gradients,
    skewness_critical_beta2,
    skewness_remainder,
    stationary_critical_beta2,
    stationary_drift,
    stationary_rho,
)

__all__ = ("ONLINE", "THEOREM1", "OnlineGame")  # the same games for optimizers of torch

Array = NDArray[np.float64]

x = sympy.Symbol("x", real=True)
BOX = (-1, 1)
RATE = "0.5/sqrt(t)"


def online() -> Problem:
    """Return 1010x once in 101 steps and −10x otherwise, in that order, on [−1, 1]."""
    return Problem([1010 * x, -10 * x], Cyclic((0,) + (1,) * 100), domain=BOX, start=0, name="Reddi, online")


def stochastic() -> Problem:
    """Return 1010x with probability 0.01 and −10x otherwise, on [−1, 1]."""
    return Problem([1010 * x, -10 * x], Random((0.01, 0.99)), domain=BOX, start=0, name="Reddi, stochastic")


def theorem1(C: float = 3) -> Problem:
    """Return Cx when t mod 3 = 1 and −x otherwise, on [−1, 1]; for C > 2 the optimum is −1."""
    if not C > 2:
        raise ValueError(f"`C` must be above 2, or the optimum is not at -1, got {C}.")
    return Problem([C * x, -x], Cyclic((0, 1, 1)), domain=BOX, start=0, name=f"Reddi, theorem 1, C = {C:g}")


def theorem2(C: int = 204) -> Problem:
    """Return Cx when t mod C = 1 and −x otherwise, C even, on [−1, 1]; the gradients of a period sum to 1."""
    if C % 2 or C < 2:
        raise ValueError(f"`C` must be even and at least 2, got {C}.")
    return Problem([C * x, -x], Cyclic((0,) + (1,) * (C - 1)), domain=BOX, start=0, name=f"Reddi, theorem 2, C = {C}")


def theorem3(C: float = 100, delta: float = 1) -> Problem:
    """Return Cx with probability (1 + δ)/(C + 1) and −x otherwise, on [−1, 1]; the mean is δx."""
    if not 0 < delta < C:
        raise ValueError(f"`delta` must lie in (0, C), got {delta} with C = {C}.")
    p = (1 + delta) / (C + 1)
    return Problem([C * x, -x], Random((p, 1 - p)), domain=BOX, start=0, name=f"Reddi, theorem 3, C = {C:g}")


def period(problem: Problem) -> Array:
    """Return the gradients of one period, `(d,)`."""
    return cyclic_gradients(problem)[:, 0]


def drift_root(problem: Problem, beta1: float = 0.0) -> float:
    """Return the β2 below which Adam goes the wrong way, NaN if it never does: exact, by root finding."""
    root = critical_beta2(period(problem), beta1)
    return math.nan if root is None else root


def simulated_root(problem: Problem, steps: int = 1_000_000) -> float:
    """Return the β2 at which Adam's end changes sides, by halving an interval fourteen times; β1 = 0."""
    wrong, right = 0.001, 0.999
    for _ in range(14):
        middle = 0.5 * (wrong + right)
        end = final(simulate(problem, "adam_plain", steps, RATE, (0.0, middle), records=16))
        wrong, right = (middle, right) if end > 0 else (wrong, middle)
    return 0.5 * (wrong + right)


def law(problem: Problem) -> tuple[Array, Array]:
    """Return the probabilities and gradients, each `(n,)`, of a problem whose components are drawn."""
    p, g = iid_gradients(problem)
    return p, g[:, 0]


def chance_root(problem: Problem) -> float:
    """Return the exact β2 below which Adam (β1 = 0) drifts the wrong way on independent draws, NaN if none."""
    root = stationary_critical_beta2(*law(problem))
    return math.nan if root is None else root


def skew_root(problem: Problem) -> float:
    """Return the same by the formula from three moments."""
    root = skewness_critical_beta2(*law(problem))
    return math.nan if root is None else root


def first_wrong(betas: tuple[float, float], most: int = 400) -> float:
    """Return the least even C from which on, up to `most`, theorem 2's sequence has its drift the wrong way."""
    sizes = range(4, most + 1, 2)
    right = [C for C in sizes if periodic_drift(period(theorem2(C)), *betas) > 0]
    return max(right, default=2) + 2


def signs(beta2: float, sizes: Sequence[int], delta: float = 1.0) -> str:
    """Return the sign of Adam's exact mean step (β1 = 0) on theorem 3's problem for each C: + is right."""
    drifts = (stationary_drift(*law(theorem3(C, delta)), 0.0, beta2) for C in sizes)
    return "".join("+" if drift > 0 else "-" for drift in drifts)


def periodic_oscillation(gradients: Array, beta2: float) -> float:
    """Return c/a of Adam once v repeats, at a constant learning rate."""
    e = 1 / np.sqrt(periodic_average(gradients**2, 1 - beta2))
    return float(np.abs(e - np.roll(e, 1)).sum() / e.sum())


def line(C: float = 100, delta: float = 1) -> Problem:
    """Return theorem 3's problem on the whole line, where nothing stops x."""
    boxed = theorem3(C, delta)
    return Problem(list(boxed.components), boxed.arrival, start=0, name=f"{boxed.name}, no box")


def root_rho() -> Estimate:
    """Return ρ of Adam (β1 = 0) at the exact critical β2 of theorem 3's law, at a constant α, 1e6 steps."""
    trace = simulate(line(), "adam", 1_000_000, 1.0, (0.0, chance_root(theorem3())), SEEDS, eps=0.0)
    return mean(-trace.x[:, 0] / trace.column("a")[-1])  # the mean gradient is 1


def side_tolerance(size: float, steps: int = 1_000_000) -> float:
    """Return within how much of the root a simulated change of sides must lie.

    x_T = x_1 − D·Σα/3, and Σα = √T; so once |D|·√T/3 > 2 the box is crossed. D is linear in β2 near its root.
    """
    root, h = drift_root(theorem1(size)), 1e-6
    g = period(theorem1(size))
    slope = (periodic_drift(g, 0.0, root + h) - periodic_drift(g, 0.0, root - h)) / (2 * h)
    return float(2.0 * 3.0 / (math.sqrt(steps) * slope))


PAPER = "Reddi, Kale, Kumar, ICLR 2018"
DIGITS = "The exact drift over a period has one sign change; half a unit of the printed digits."
CLOSED = "The closed form of the periodic averages; half a unit of the printed digits."
COUNTED = "Counting up; the three conditions are sufficient only, hence far above the drift's C."
EXACT = "The exact stationary mean of g/√v; C large enough turns it at every β2."
FORMULA = "The formula from three moments; half a unit of the printed digits."
ORDER = "The formula; its relative remainder is the third power of (1−β2) max g²/E g², for a rare spike."
ROOT = "Exact, by definition; draws alone. An earlier Monte Carlo root, 0.97884, came without an error."
SIDES = "x_T = x_1 − D·√T/3 crosses the box once |D|√T/3 > 2, and D is linear in β2 near its root."


def of(measure: Callable[..., float], build: Callable[..., Problem], *arguments: float) -> Callable[[], float]:
    """Return an experiment: a number read off a problem."""
    return lambda: measure(build(*arguments))


def at(problem: Callable[[], Problem], measure: Callable[..., object], *arguments: float) -> Callable[[], float]:
    """Return an experiment: a number read off a problem's period."""
    return lambda: float(measure(period(problem()), *arguments))  # type: ignore[arg-type]


def digits(name: str, printed: str, observe: Callable[[], float], why: str) -> Row:
    """Return a row for a number of which digits are printed.

    A value halfway between two may be rounded either way, hence the thousandth more.
    """
    return (name, "derived", float(printed), 1.001 * half_unit(printed), observe, why)


SIZES = (5, 10, 20, 50, 100, 500, 1000)


def theorem1_rows() -> tuple[Row, ...]:
    """Return the rows of theorem 1; their roots take a tenth of a second."""
    return (
        *(
            digits(f"C = {C}: critical β2 at β1 = 0", root, of(drift_root, theorem1, C), DIGITS)
            for C, root in (
                (3, "0.4723"),
                (5, "0.2368"),
                (10, "0.0983"),
                (20, "0.0414"),
                (50, "0.0133"),
                (100, "0.0057"),
            )
        ),
        *(
            (
                f"C = {C}: the β2 at which simulated Adam changes sides",
                "derived",
                drift_root(theorem1(C)),
                side_tolerance(C),
                of(simulated_root, theorem1, C),
                SIDES,
            )
            for C in (3, 5, 10)
        ),
        digits("c/a over a period", "0.594", at(theorem1, periodic_oscillation, 0.1), CLOSED),
        digits("ρ over a period", "-0.98", at(theorem1, periodic_rho, 0.1), CLOSED),
    )


THEOREM2_ROWS: tuple[Row, ...] = (
    *(
        digits(f"smallest C of the proof at β = {betas}", C, partial(reddi_theorem2_size, *betas), COUNTED)
        for betas, C in (((0.0, 0.9), "204"), ((0.5, 0.9), "204"), ((0.9, 0.99), "3218"), ((0.9, 0.999), "42622"))
    ),
    *(
        digits(f"C where the drift turns wrong at β = {betas}", C, partial(first_wrong, betas), COUNTED)
        for betas, C in (((0.0, 0.9), "8"), ((0.5, 0.9), "8"), ((0.9, 0.99), "30"), ((0.9, 0.999), "74"))
    ),
)

THEOREM3_ROWS: tuple[Row, ...] = (
    *(
        (
            f"signs of Adam's mean step for C = {SIZES}, δ = 1, β2 = {b2}",
            "simulated",
            word,
            0,
            partial(signs, b2, SIZES),
            EXACT,
        )
        for b2, word in ((0.9, "+++----"), (0.99, "+++++--"), (0.999, "+++++++"))
    ),
    digits("C = 100, δ = 1: critical β2 from three moments", "0.97970", of(skew_root, theorem3), FORMULA),
    ("C = 100, δ = 1: ρ of Adam at the exact critical β2", "derived", 0, 0, root_rho, ROOT),
)

ONLINE_ROWS: tuple[Row, ...] = (
    *(
        digits(f"critical β2 at β1 = {b1:g}", root, of(partial(drift_root, beta1=b1), online), DIGITS)
        for b1, root in ((0.0, "0.999603"), (0.5, "0.999595"), (0.9, "0.999516"), (0.99, "0.997640"))
    ),
    *(
        digits(f"drift D of a period at β = {betas}", drift, at(online, periodic_drift, *betas), CLOSED)
        for betas, drift in (
            ((0.0, 0.9), "-44.3"),
            ((0.0, 0.99), "-2.28"),
            ((0.9, 0.9), "-41.4"),
            ((0.9, 0.99), "-1.90"),
            ((0.9, 0.995), "-0.907"),
            ((0.9, 0.999), "-0.105"),
            ((0.9, 0.9999), "0.0785"),
            ((0.99, 0.99), "-0.328"),
        )
    ),
    digits(
        "c/a over a period at β2 = 0.999, times 1000",
        "0.98",
        lambda: 1e3 * at(online, periodic_oscillation, 0.999)(),
        CLOSED,
    ),
    digits("ρ over a period, β = (0, 0.99)", "-22.3", at(online, periodic_rho, 0.99), CLOSED),
    digits("ρ over a period, β = (0, 0.999)", "-1.5", at(online, periodic_rho, 0.999), CLOSED),
)

STOCHASTIC_ROWS: tuple[Row, ...] = (
    digits("critical β2 from three moments", "0.99960", of(skew_root, stochastic), FORMULA),
    (
        "exact critical β2",
        "derived",
        skew_root(stochastic()),
        skewness_remainder(*law(stochastic())),
        of(chance_root, stochastic),
        ORDER,
    ),
    (
        "exact ρ, β2 = 0.99",
        "simulated",
        (-24.1, -21.9),
        0,
        lambda: stationary_rho(*law(stochastic()), 0.99),
        "The confidence interval of an earlier simulation.",
    ),
)


def stated() -> tuple[Claim, ...]:
    """Return what derivations say of these games, by a run or none; `reddi2018_runs` has the ends."""
    return (
        *rows(f"{PAPER}, theorem 1", "theorem 1, ", theorem1_rows()),
        *rows(f"{PAPER}, theorem 2", "theorem 2, ", THEOREM2_ROWS),
        *rows(f"{PAPER}, theorem 3", "theorem 3, ", THEOREM3_ROWS),
        *rows(f"{PAPER}, section 5", "online game: ", ONLINE_ROWS),
        *rows(f"{PAPER}, section 5", "stochastic game: ", STOCHASTIC_ROWS),
    )
