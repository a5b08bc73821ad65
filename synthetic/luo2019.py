"""AdaBound's own problem (Luo, Xiong, Liu and Sun, ICLR 2019, arXiv 1902.09843): small gradients defeat Adam too.

    f_t(x) = −x when t mod C = 1, 2x when t mod C = 2, and 0 otherwise, on [−2, 2]; the minimizer is −2.

That Adam without momentum ends at +2 for every initial α, once 5 β2^(C−2) ≤ (1−β2)/(4−β2), is after the paper, which
answers by clipping e between bounds that close on final_lr. No gradient is large: the −1 meets a v that C − 2 silent
steps have emptied, and the 2 that follows pays for having filled it.

Derived here, from the periodic v: after the −1, v_1 = (1−β2)(1 + 4β2^(C−1))/(1−β2^C), and v_2 = β2 v_1 + 4(1−β2). The 2
moves x by less than the −1 did where 4 v_1 < v_2, which comes down to

    16 β2^(C−2) < 1,   that is   β2 < 16^(−1/(C−2)):

an exact threshold, far above the sufficient one. AdaBound turns when its bounds have closed in on both, at a γt of its
own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from ..diagnostics.trace import Trace
from .arrivals import Cyclic
from .claims import Claim, Row, final, rows, verdict
from .engine import simulate
from .guarantees import adabound_limits
from .periodic import critical_beta2, cyclic_gradients, periodic_average, periodic_drift
from .problem import Problem
from .walls import end_at_wall

Array = NDArray[np.float64]
BOX = (-2, 2)
BETA2 = 0.9
STEPS = 1_000_000


def game(C: int = 50) -> Problem:
    """Return −x, 2x and then C − 2 times nothing, in turn, on [−2, 2] from 0."""
    if C < 3:
        raise ValueError(f"`C` must be at least 3, got {C}: without a pause the 2 wins.")
    return Problem(["-x", "2*x", "0*x"], Cyclic([0, 1] + [2] * (C - 2)), variables="x", domain=BOX, start=0, name="Luo")


def proven(C: int, beta2: float) -> bool:
    """Return whether the paper's condition holds, 5 β2^(C−2) ≤ (1−β2)/(4−β2)."""
    return 5 * beta2 ** (C - 2) <= (1 - beta2) / (4 - beta2)


def threshold(C: int) -> float:
    """Return the β2 below which Adam without momentum goes the wrong way, 16^(−1/(C−2)); derived here."""
    return float(16.0 ** (-1 / (C - 2)))


def smallest(holds: Callable[[int, float], bool], beta2: float) -> float:
    """Return the smallest C from 3 up for which something holds at β2."""
    return float(next(C for C in range(3, 10_000) if holds(C, beta2)))


def root(C: int) -> float:
    """Return the same threshold by root finding on the periodic drift."""
    return critical_beta2(cyclic_gradients(game(C))[:, 0]) or math.nan


def wrong(C: int, beta2: float) -> bool:
    """Return whether the drift over a period, computed from its gradients, points to +2."""
    return bool(periodic_drift(cyclic_gradients(game(C))[:, 0], 0.0, beta2) < 0)


@cache
def run(method: str, alpha: float, beta2: float = BETA2, C: int = 50, steps: int = STEPS, **hyper: Any) -> Trace:
    """Return the record of a method without momentum at α_t = α/√t."""
    return simulate(game(C), method, steps, f"{alpha!r}/sqrt(t)", (0.0, beta2), **hyper)


def predicted_end(alpha: float, beta2: float = BETA2, C: int = 50) -> float:
    """Return where Adam ends, by a walk of the closed form into its wall."""
    g = cyclic_gradients(game(C))[:, 0]
    step = g / np.sqrt(periodic_average(g**2, 1 - beta2))
    return end_at_wall(step, STEPS, lambda t: alpha / math.sqrt(t), BOX)


def bounded_drift(u: float, ratio: float) -> float:
    """Return Σ g e/α of AdaBound over a period at γt = u, with κ = final_lr/α_1 = `ratio`, C = 50."""
    g = cyclic_gradients(game())[:, 0]
    low, high = adabound_limits([u], ratio, 1.0)
    return float(g @ np.clip(1 / np.sqrt(periodic_average(g**2, 1 - BETA2)), low[0], high[0]))


def turning(ratio: float) -> float:
    """Return the γt at which AdaBound's drift turns to −2."""
    return float(brentq(bounded_drift, 1e-2, 1e3, args=(ratio,), xtol=1e-12))


GAMMA, ALPHA = 1e-5, 0.5


def held() -> float:
    """Return γt of the last period that AdaBound has ended higher than it began it, final_lr = 0.1."""
    steps = round(3 * turning(0.1 / ALPHA) / GAMMA)
    trace = run("adabound", ALPHA, steps=steps, final_lr=0.1, gamma=GAMMA, eps=0.0, records=steps)
    assert trace.path is not None
    x = trace.path[49::50, 0, 0]
    return float(GAMMA * 50 * (1 + np.flatnonzero((np.diff(x) > 0) | (x[1:] == BOX[1]))[-1]))


def of(measure: Callable[[Trace], Any], *setting: Any, **hyper: Any) -> Callable[[], Any]:
    """Return an experiment: what `measure` reads from a run."""
    return lambda: measure(run(*setting, **hyper))


PAPER = "Luo, Xiong, Liu, Sun, ICLR 2019, arXiv 1902.09843"
SUFFICIENT = "ln(5(4−β2)/(1−β2))/−ln β2 + 2, rounded up; after the paper."
SHARP = "ln 16/−ln β2 + 2, rounded up; derived here. Observed: counting up the periodic drifts."
ROOT = "16^(−1/(C−2)), derived here; the root is found to 1e-13 in ln(1−β2), its drift rounded to 1e-15."
WALL = "Any α: the drift wins in the end. The closed form walked into the wall; rounding."
SHUT = "Once the bounds have shut it is SGD, and 2 − 1 > 0; in a period it is at −2 after the 2, and no step follows."
MAX = "v̂ keeps the largest v, one stepsize for both; it is at −2 after the 2, and no step follows."
TURN = "The root of Σ g e/α over a period with clipped e, derived here; within two periods, 100 γ."


def stated() -> tuple[Claim, ...]:
    """Return the claims: where Adam and AdaBound go on the problem that AdaBound was made for."""
    table: tuple[Row, ...] = (
        *(
            (
                f"the proof's smallest C at β2 = {b2}",
                "paper",
                math.ceil(math.log(5 * (4 - b2) / (1 - b2)) / -math.log(b2)) + 2,
                0,
                partial(smallest, proven, b2),
                SUFFICIENT,
            )
            for b2 in (0.9, 0.99, 0.999)
        ),
        *(
            (
                f"the smallest C that goes wrong at β2 = {b2}",
                "derived",
                math.ceil(math.log(16) / -math.log(b2)) + 2,
                0,
                partial(smallest, wrong, b2),
                SHARP,
            )
            for b2 in (0.6, 0.9)
        ),
        *(
            (
                f"C = {C}: critical β2",
                "derived",
                threshold(C),
                1e-12,
                partial(root, C),
                ROOT,
            )
            for C in (5, 50, 500)
        ),
        *(
            (f"Adam, α = {alpha}: end", "paper", predicted_end(alpha), 1e-9, of(final, "adam_plain", alpha), WALL)
            for alpha in (0.5, 5.0, 50.0)
        ),
        *(
            (
                f"Adam, β2 = {b2} of a critical {threshold(50):.4f}: end",
                "derived",
                predicted_end(5.0, b2),
                1e-9,
                of(final, "adam_plain", 5.0, b2),
                WALL,
            )
            for b2 in (0.94, 0.95)
        ),
        ("AdaBound: end", "paper", -2, 1e-12, of(final, "adabound", 5.0, final_lr=1.0, gamma=1e-3, eps=0.0), SHUT),
        ("AdaBound turns at γt", "derived", turning(0.1 / ALPHA), 100 * GAMMA, held, TURN),
        ("AMSGrad: end", "derived", -2, 1e-12, of(final, "amsgrad", 5.0), MAX),
        ("verdict on Adam", "derived", "biased", 0, of(verdict, "adam_plain", 5.0), "c/a stays, and x climbs."),
        ("verdict on AMSGrad", "derived", "certified", 0, of(verdict, "amsgrad", 5.0), "Its e never rises."),
    )
    return rows(PAPER, "−x, 2x, silence: ", table)
