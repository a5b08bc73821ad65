"""The toy problem of Taniguchi et al. (ADOPT, NeurIPS 2024): kx once in k draws, −x otherwise, on [−1, 1].

The mean gradient is 1/k, so x* = −1. Adam's end depends on β2, AMSGrad is slow, ADOPT divides by a second moment that
the gradient has not yet entered and arrives for every β2, in its first form: the later bound ±t^(1/4) on a
normalized gradient cuts the rare ones for 49⁴ steps at k = 50, and until then small β2 goes the wrong way.
α_t = 0.01/√(1 + 0.01 t) and the start 0, after the paper.
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any

import sympy

from ..diagnostics.trace import Trace
from .arrivals import Random
from .claims import Claim, final, verdict
from .engine import simulate
from .problem import Problem
from .stationary import skewness_critical_beta2, stationary_critical_beta2

x = sympy.Symbol("x", real=True)
STEPS, SEEDS = 2_000_000, 5
RATE = "0.01/sqrt(1 + 0.01*t)"


def toy(k: float = 10) -> Problem:
    """Return kx with probability 1/k and −x otherwise, on [−1, 1]."""
    return Problem([k * x, -x], Random((1 / k, 1 - 1 / k)), domain=(-1, 1), start=0, name=f"ADOPT's toy, k = {k:g}")


@cache
def run(k: float, method: str, beta1: float, beta2: float, clip: float = math.inf) -> Trace:
    """Return the record of five seeds at T = 2e6; ADOPT without its later bound t^clip unless it is given."""
    hyper: dict[str, Any] = {"clip": clip} if method == "adopt" else {}
    return simulate(toy(k), method, STEPS, RATE, (beta1, beta2), SEEDS, **hyper)


def end(k: float, method: str, beta1: float, beta2: float, clip: float = math.inf) -> float:
    """Return the median last iterate."""
    return final(run(k, method, beta1, beta2, clip))


def worst(k: float, method: str) -> float:
    """Return the median end farthest to the right over β2 = 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999; β1 = 0."""
    return max(end(k, method, 0.0, b2) for b2 in (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999))


def critical(k: float) -> float:
    """Return the β2 below which Adam (β1 = 0) goes the wrong way, exactly."""
    return stationary_critical_beta2((1 / k, 1 - 1 / k), (k, -1.0)) or math.nan


def estimate(k: float) -> float:
    """Return the same by the formula from three moments."""
    return skewness_critical_beta2((1 / k, 1 - 1 / k), (k, -1.0)) or math.nan


PAPER = "Taniguchi et al., NeurIPS 2024"
WALL = "The drift holds it at the wall; α_T = 7e-5 and a rare step of 3α/√(1−β2) or so take it off."
MC = "A Monte Carlo root; its error is taken as 2% of 1−β2 (k = 10) and a fifth (k = 50)."
AGAIN = "An earlier simulation with other draws: the median of five spreads by the noise of 1/√v·√(Σα²) ≈ 0.1."

CLAIMS: tuple[Claim, ...] = (
    Claim("k = 10: critical β2, exact", PAPER, "simulated", 0.97816, 0.0005, partial(critical, 10), MC),
    Claim("k = 50: critical β2, exact", PAPER, "simulated", 0.99933, 0.00016, partial(critical, 50), MC),
    Claim(
        "k = 10: critical β2, formula",
        PAPER,
        "derived",
        0.97776,
        5e-6,
        partial(estimate, 10),
        "Half a unit of the digits.",
    ),
    Claim(
        "k = 50: critical β2, formula",
        PAPER,
        "derived",
        0.99918,
        5e-6,
        partial(estimate, 50),
        "Half a unit of the digits.",
    ),
    *(
        Claim(
            f"k = {k}: Adam ends at +1 at β = (0, {b2:g})",
            PAPER,
            "derived",
            1.0,
            0.02,
            partial(end, k, "adam_plain", 0.0, b2),
            WALL,
        )
        for k, b2 in ((10, 0.1), (10, 0.5), (10, 0.9), (50, 0.1), (50, 0.9), (50, 0.99))
    ),
    *(
        Claim(
            f"k = 10: Adam ends at −1 at β = (0, {b2:g})",
            PAPER,
            "derived",
            -1.0,
            0.02,
            partial(end, 10, "adam_plain", 0.0, b2),
            WALL,
        )
        for b2 in (0.99, 0.999, 0.9999)
    ),
    Claim(
        "k = 50: Adam at β = (0, 0.999)",
        PAPER,
        "simulated",
        0.93,
        0.15,
        partial(end, 50, "adam_plain", 0.0, 0.999),
        AGAIN,
    ),
    Claim(
        "k = 50: Adam at β = (0.9, 0.999)",
        PAPER,
        "simulated",
        0.85,
        0.2,
        partial(end, 50, "adam_plain", 0.9, 0.999),
        AGAIN,
    ),
    Claim(
        "k = 50: Adam at β = (0, 0.9999)",
        PAPER,
        "simulated",
        -0.19,
        0.3,
        partial(end, 50, "adam_plain", 0.0, 0.9999),
        AGAIN,
    ),
    Claim(
        "k = 50: Adam at β = (0.9, 0.9999)",
        PAPER,
        "simulated",
        -0.13,
        0.3,
        partial(end, 50, "adam_plain", 0.9, 0.9999),
        AGAIN,
    ),
    Claim(
        "k = 10: AMSGrad ends at −1 at β = (0, 0.99)",
        PAPER,
        "paper",
        -1.0,
        0.02,
        partial(end, 10, "amsgrad", 0.0, 0.99),
        WALL,
    ),
    Claim(
        "k = 50: AMSGrad is not there yet at β = (0, 0.99)",
        PAPER,
        "simulated",
        (-0.9, 0.6),
        0,
        partial(end, 50, "amsgrad", 0.0, 0.99),
        "−0.25 to 0.40 earlier, its drift being a tenth of ADOPT's.",
    ),
    Claim(
        "k = 10: ADOPT at its worst β2",
        PAPER,
        "simulated",
        (-1.0, -0.98),
        0,
        partial(worst, 10, "adopt"),
        "−0.996 to −0.999 earlier.",
    ),
    Claim(
        "k = 50: ADOPT at its worst β2",
        PAPER,
        "simulated",
        (-1.0, -0.5),
        0,
        partial(worst, 50, "adopt"),
        "−0.73 to −0.99 earlier, with a noise of a tenth or two.",
    ),
    Claim(
        "k = 50: ADOPT with the bound t^(1/4) goes to +1 at β = (0, 0.1)",
        PAPER,
        "derived",
        1.0,
        0.02,
        partial(end, 50, "adopt", 0.0, 0.1, 0.25),
        "√v is 1 nearly always, so a spike counts t^(1/4) and outweighs 49 small ones only after t = 49⁴ = 5.8e6.",
    ),
    *(
        Claim(
            f"k = {k}: verdict on Adam β = (0, {b2:g})",
            PAPER,
            "derived",
            word,
            0,
            partial(lambda *s: verdict(run(*s)), k, "adam_plain", 0.0, b2),
            why,
        )
        for k, b2, word, why in (
            (10, 0.9, "biased", "Below the critical β2."),
            (10, 0.999, "uncertified", "Above it: c/a stays and does no harm."),
            (50, 0.99, "biased", "Below the critical β2."),
        )
    ),
    Claim(
        "k = 10: verdict on AMSGrad",
        PAPER,
        "derived",
        "certified",
        0,
        lambda: verdict(run(10, "amsgrad", 0.0, 0.99)),
        "Its e never rises.",
    ),
)
"""Last iterates for k = 10 and 50, and the critical β2 behind them."""
