"""The toy problem of Taniguchi et al. (ADOPT, NeurIPS 2024): kx once in k draws, −x otherwise, on [−1, 1].

The mean gradient is 1/k, so x* = −1. Adam's end depends on β2, AMSGrad is slow, ADOPT divides by a second moment that
the gradient has not yet entered and arrives for every β2, in its first form: the later bound ±t^(1/4) on a
normalized gradient cuts the rare ones for 49⁴ steps at k = 50, and until then small β2 goes the wrong way.
α_t = 0.01/√(1 + 0.01 t) and the start 0, after the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import sympy

from ..diagnostics.trace import Trace
from .arrivals import Random
from .claims import REACH, SEEDS, Claim, Estimate, Row, again, half_unit, mean, rows, side, verdict
from .engine import simulate
from .problem import Problem
from .stationary import skewness_critical_beta2, skewness_remainder, stationary_critical_beta2
from .walls import unbiased_distance

x = sympy.Symbol("x", real=True)
STEPS = 2_000_000
RATE = "0.01/sqrt(1 + 0.01*t)"
LAST = 0.01 / math.sqrt(1 + 0.01 * STEPS)
"""α_T."""


def toy(k: float = 10, box: bool = True) -> Problem:
    """Return kx with probability 1/k and −x otherwise, on [−1, 1] or on the whole line."""
    domain = (-1, 1) if box else None
    return Problem([k * x, -x], Random((1 / k, 1 - 1 / k)), domain=domain, start=0, name=f"ADOPT's toy, k = {k:g}")


@cache
def run(k: float, method: str, beta1: float, beta2: float) -> Trace:
    """Return the record of sixteen seeds at T = 2e6; ADOPT in its first form, without a bound."""
    hyper: dict[str, Any] = {"clip": math.inf} if method == "adopt" else {}
    return simulate(toy(k), method, STEPS, RATE, (beta1, beta2), SEEDS, **hyper)


@cache
def few(k: float, method: str, beta1: float, beta2: float, steps: int = STEPS, **hyper: float) -> Trace:
    """Return the record of four seeds, for what does not hang on chance: a side, a verdict."""
    return simulate(toy(k), method, steps, RATE, (beta1, beta2), 4, **hyper)  # type: ignore[arg-type]


def law(k: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return probabilities and gradients."""
    return (1 / k, 1 - 1 / k), (k, -1.0)


def critical(k: float) -> float:
    """Return the β2 below which Adam (β1 = 0) goes the wrong way, exactly."""
    return stationary_critical_beta2(*law(k)) or math.nan


def formula(k: float) -> float:
    """Return the same by the formula from three moments."""
    return skewness_critical_beta2(*law(k)) or math.nan


def root_rho(k: float) -> Estimate:
    """Return ρ of Adam (β1 = 0) at the exact critical β2 on the whole line, at a constant α, over 1e6 steps."""
    trace = simulate(toy(k, box=False), "adam", 1_000_000, 1.0, (0.0, critical(k)), SEEDS, eps=0.0)
    return mean(-trace.x[:, 0] / trace.column("a")[-1] * k)


def of(measure: Callable[[Trace], Any], *setting: Any, **hyper: float) -> Callable[[], Any]:
    """Return an experiment: what `measure` reads from a run of four seeds."""
    return lambda: measure(few(*setting, **hyper))


def ends(*setting: Any) -> Callable[[], Estimate]:
    """Return an experiment: the last iterate, to be compared with an earlier median of five seeds."""
    return lambda: again(run(*setting).x[:, 0], 5)


def distance(k: float, beta2: float) -> Estimate:
    """Return the mean distance of ADOPT's last iterates from the minimizer."""
    return mean(run(k, "adopt", 0.0, beta2).x[:, 0] + 1)


def order(first: tuple[Any, ...], second: tuple[Any, ...]) -> str:
    """Return "ahead" if the first method's last iterates lie further left by `REACH` standard errors of the mean."""
    lead = np.asarray(run(*second).x[:, 0] - run(*first).x[:, 0])  # the same draws for both
    gap = mean(lead)
    return "ahead" if gap.value > REACH * gap.error else "not ahead"


PAPER = "Taniguchi et al., NeurIPS 2024"
HALF = "Half a unit of the digits; 1 − 2/(skewness − 1)."
ORDER = "The formula; its relative remainder is the third power of (1−β2) max g²/E g², for a rare spike."
ROOT = "Exact, by definition; earlier Monte Carlo roots, 0.97816 and 0.99933, came without errors. Draws alone."
BELOW = "The exact mean step is up by 0.035 α_t or more, 10 in all; off the wall it falls off within 11 α_T = 8e-4."
ABOVE = "The exact mean step is down by 0.017 α_t or more, 4.7 in all; off the wall it falls off within 28 α_T = 0.002."
EARLIER = "An earlier median of five seeds, half a unit of its digits; the error counts theirs as well."
QUEUE = (
    "The stationary mean of a walk against a wall, from E v^(−1/2), E v^(−1) and what the wall can cut (`walls.py`)."
)
BOUND = "√v is 1 nearly always, so a spike counts t^(1/4), and outweighs 49 small ones only after t = 49⁴ = 5.8e6."
SLOWER = "After the paper, that AMSGrad is much slower: its v̂ keeps the largest cluster of spikes."
ROBUST = "After the paper, that ADOPT needs no special β2: this one is below Adam's critical 0.99918."

ROOTS: tuple[Row, ...] = tuple(
    row
    for k, digits in ((10, "0.97776"), (50, "0.99918"))
    for row in (
        (f"k = {k}: critical β2, formula", "derived", float(digits), half_unit(digits), partial(formula, k), HALF),
        (
            f"k = {k}: critical β2, exact",
            "derived",
            formula(k),
            skewness_remainder(*law(k)),
            partial(critical, k),
            ORDER,
        ),
        (f"k = {k}: ρ of Adam at the exact critical β2", "derived", 0, 0, partial(root_rho, k), ROOT),
    )
)


def end_rows() -> tuple[Row, ...]:
    """Return the rows of the last iterates; those of ADOPT are computed."""
    return (
        *(
            (f"k = {k}: Adam (0, {b2}) ends", "paper", end, 0, of(side, k, "adam_plain", 0.0, b2), why)
            for k, b2, end, why in (
                (10, 0.1, "right", BELOW),
                (10, 0.5, "right", BELOW),
                (10, 0.9, "right", BELOW),
                (10, 0.99, "left", ABOVE),
                (10, 0.999, "left", ABOVE),
                (10, 0.9999, "left", ABOVE),
                (50, 0.1, "right", BELOW),
                (50, 0.9, "right", BELOW),
                (50, 0.99, "right", BELOW),
            )
        ),
        *(
            (
                f"k = {k}: {method} ({b1:g}, {b2}), x",
                "simulated",
                at,
                half_unit(str(at)),
                ends(k, {"Adam": "adam_plain", "AMSGrad": "amsgrad"}[method], b1, b2),
                EARLIER,
            )
            for k, method, b1, b2, at in (
                (10, "Adam", 0.0, 0.99, -0.999),
                (50, "Adam", 0.0, 0.999, 0.93),
                (50, "Adam", 0.9, 0.999, 0.85),
            )
        ),
        (
            "k = 10: AMSGrad (0, 0.99) ends",
            "paper",
            "left",
            0,
            of(side, 10, "amsgrad", 0.0, 0.99),
            "Its e never rises.",
        ),
        *(
            (
                f"k = {k}: ADOPT (0, {b2}) stays off −1 by",
                "derived",
                unbiased_distance(*law(k), b2, LAST),
                0,
                partial(distance, k, b2),
                QUEUE,
            )
            for k, b2 in ((10, 0.1), (10, 0.9), (10, 0.99), (50, 0.1), (50, 0.9))
        ),
        (
            "k = 50: ADOPT (0, 0.999) against Adam with the same β",
            "paper",
            "ahead",
            0,
            partial(order, (50, "adopt", 0.0, 0.999), (50, "adam_plain", 0.0, 0.999)),
            ROBUST,
        ),
        (
            "k = 50: ADOPT (0, 0.99) against AMSGrad with the same β",
            "paper",
            "ahead",
            0,
            partial(order, (50, "adopt", 0.0, 0.99), (50, "amsgrad", 0.0, 0.99)),
            SLOWER,
        ),
        (
            "k = 50: ADOPT with the bound t^(1/4), (0, 0.1), at T = 2e6",
            "derived",
            "right",
            0,
            of(side, 50, "adopt", 0.0, 0.1, clip=0.25),
            BOUND,
        ),
        (
            "k = 50: ADOPT with the bound t^(1/4), (0, 0.1), at T = 8e6",
            "derived",
            "left",
            0,
            of(side, 50, "adopt", 0.0, 0.1, 8_000_000, clip=0.25),
            BOUND,
        ),
    )


VERDICTS: tuple[Row, ...] = tuple(
    (f"k = {k}: verdict on {method} (0, {b2})", "derived", word, 0, of(verdict, k, rule, 0.0, b2), why)
    for k, method, rule, b2, word, why in (
        (10, "Adam", "adam_plain", 0.9, "biased", "Below the critical β2."),
        (10, "Adam", "adam_plain", 0.999, "uncertified", "Above it: c/a stays and does no harm."),
        (50, "Adam", "adam_plain", 0.99, "biased", "Below the critical β2."),
        (10, "AMSGrad", "amsgrad", 0.99, "certified", "Its e never rises."),
    )
)


def stated() -> tuple[Claim, ...]:
    """Return the claims: last iterates for k = 10 and 50, and the critical β2 behind them."""
    return rows(PAPER, "", (*ROOTS, *end_rows(), *VERDICTS))
