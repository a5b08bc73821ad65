"""AvaGrad's stochastic convex problem (Savarese et al., CVPR 2021, arXiv 1912.01823).

C w²/2 with probability p = (1+δ)/(C+1), else −w, on [0, 1]. Adam settles where E[g/√v] = 0, which is the minimizer only
as β2 → 1; AvaGrad, whose stepsize does not know the gradient it multiplies, settles at the minimizer. The problem is
after the paper; the points at which Adam rests are derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

from scipy.optimize import brentq

from ..diagnostics.trace import Trace
from .arrivals import Random
from .claims import SEEDS, Claim, Estimate, Row, mean, rows, side
from .engine import simulate
from .problem import Problem
from .stationary import stationary_drift

LR = "0.1/sqrt(t)"
STEPS = 3_000_000
SIZE, DELTA = 999.0, 1.0
RARE = (1.0 + DELTA) / (SIZE + 1.0)
"""The probability of C w²/2."""


def stochastic() -> Problem:
    """Return 999 w²/2 with probability 0.002, else −w, on [0, 1], from 0; the minimizer is (1−p)/(pC)."""
    components = [f"{SIZE!r}*w**2/2", "-w"]
    return Problem(components, Random((RARE, 1.0 - RARE)), domain=(0, 1), start=0.0, name="999 w²/2 or −w")


def minimizer() -> float:
    """Return the minimizer that calculus finds for `stochastic`, NaN if it finds none."""
    found = stochastic().optimum
    return math.nan if found is None else float(found[0])


def drift(w: float, beta2: float) -> float:
    """Return Adam's exact mean step at w, E[g/√v] for β1 = 0: negative where w grows."""
    return stationary_drift([RARE, 1.0 - RARE], [SIZE * w, -1.0], 0.0, beta2)


def resting_point(beta2: float) -> float:
    """Return where Adam (β1 = 0) settles as α → 0: the root w of the drift, at most 1, the end of the interval."""
    return 1.0 if drift(1.0, beta2) < 0.0 else float(brentq(drift, 0.1, 1.0, args=(beta2,), xtol=1e-6))


@cache
def run(method: str, beta2: float, **hyper: Any) -> Trace:
    """Return the record of sixteen seeds."""
    return simulate(stochastic(), method, STEPS, LR, (0.0, beta2), SEEDS, records=256, **hyper)


def average(method: str, beta2: float, **hyper: Any) -> Callable[[], Estimate]:
    """Return an experiment: the mean of w over the second half of the run."""

    def observe() -> Estimate:
        trace = run(method, beta2, **hyper)
        assert trace.path is not None
        return mean(trace.path[trace.steps > STEPS / 2, :, 0].mean(axis=0))

    return observe


PAPER = "Savarese et al., CVPR 2021, arXiv 1912.01823"
MINIMIZER = (1.0 - RARE) / (RARE * SIZE)
END = "The exact drift is up for every w; above 3/4, half way from the minimizer to the end, is what counts as there."
ROOT = "The root of the exact drift; its curvature, −½ d''/d'·Var w, shifts the mean by at most 1e-3. Else draws."
UNBIASED = (
    "A stepsize that does not know its gradient, or a constant one as AMSGrad's, leaves E[e g] = E e·E g, linear in w."
)


def stated() -> tuple[Claim, ...]:
    """Return the claims: where methods come to rest."""
    table: tuple[Row, ...] = (
        ("the minimizer", "derived", MINIMIZER, 1e-12, minimizer, "p C w = 1 − p."),
        *(
            (f"Adam (0, {beta2}) ends", "paper", "right", 0, lambda b=beta2: side(run("adam", b), 0.75), END)
            for beta2 in (0.9, 0.99)
        ),
        *(
            (f"Adam (0, {beta2}) rests", "derived", resting_point(beta2), 1e-3, average("adam", beta2), ROOT)
            for beta2 in (0.999, 0.9999)
        ),
        ("AvaGrad, eps = 1e-8, rests", "paper", MINIMIZER, 0, average("avagrad", 0.999, eps=1e-8), UNBIASED),
        ("AMSGrad rests", "derived", MINIMIZER, 0, average("amsgrad", 0.999), UNBIASED),
        (
            "ADOPT, unclipped, (0, 0.9999) rests",
            "derived",
            MINIMIZER,
            0,
            average("adopt", 0.9999, clip=math.inf),
            UNBIASED,
        ),
    )
    return rows(PAPER, "999 w²/2 or −w: ", table)
