"""AdamNC, the other cure of Reddi, Kale and Kumar: a β2 that grows with t, such as β2,t = 1 − 1/t, on their games.

With it v_t is the mean of all g², so 1/e_t = √(Σg²)/α does not fall: Γ_t ≥ 0, and their regret of O(√T) follows if the
momentum fades, β1,t = β1 λ^(t−1) (theirs). The constant of √T on their online game, and that without momentum the
method is AdaGrad with AdaGrad's bound, (D²/(2α) + α)·‖g_1..T‖, is derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.trace import Trace
from .claims import Claim, Row, final, rows, verdict
from .engine import simulate
from .reddi2018 import BOX, PAPER, RATE, online, period, stochastic
from .reddi2018_runs import BETAS, LONG, moves, predicted_end, share_rising
from .reddi2018_runs import run as played

Array = NDArray[np.float64]
ALPHA, WIDTH = 0.5, BOX[1] - BOX[0]
FADE = 0.999
"""λ: after 2e4 steps 1e-9 of the momentum is left."""


@cache
def run(problem: str, beta1: float = 0.9, steps: int = LONG) -> Trace:
    """Return the record of AdamNC with a fading momentum."""
    built = online() if problem == "online" else stochastic()
    return simulate(built, "adamnc", steps, RATE, beta1=beta1, decay=FADE)


def apart() -> float:
    """Return the largest distance between AdamNC without momentum and AdaGrad on the stochastic game, 1e5 steps."""
    ours = simulate(stochastic(), "adamnc", 100_000, RATE, beta1=0.0)
    sums = simulate(stochastic(), "adagrad", 100_000, ALPHA, eps=0.0)
    assert ours.path is not None
    assert sums.path is not None
    return float(np.abs(ours.path - sums.path).max())


def mean_of_squares(steps: int = 10_000) -> float:
    """Return how far v_t = β2,t v_{t−1} + (1 − β2,t) g_t², β2,t = 1 − 1/t, is from the mean of g², relative to it."""
    g = np.tile(period(online()), steps // 101 + 1)[:steps]
    v, off, total = 0.0, 0.0, 0.0
    for t, square in enumerate((g**2).tolist(), 1):
        v = (1 - 1 / t) * v + square / t
        total += square
        off = max(off, abs(v * t / total - 1))
    return off


def late_regret(trace: Trace) -> tuple[float, float]:
    """Return Σ (f_t(x_t) − f_t(x*)) over the last half of a run, and the step at which that half begins."""
    regret = trace.scalars["regret"].last * trace.steps
    row = int(np.searchsorted(trace.steps, trace.steps[-1] // 2))
    return float(regret[-1] - regret[row]), float(trace.steps[row])


def root_regret(trace: Trace) -> float:
    """Return the regret of the last half, over √T − √(T/2)."""
    regret, begin = late_regret(trace)
    return regret / (math.sqrt(trace.steps[-1]) - math.sqrt(begin))


def mean_regret(trace: Trace) -> float:
    """Return the regret of the last half, over its steps."""
    regret, begin = late_regret(trace)
    return regret / (float(trace.steps[-1]) - begin)


def swing(step: Array) -> float:
    """Return Σ g_i d_i over a period of the online game, d_i how far x is off its wall, over α, when f_i comes."""
    g = period(online())
    inward = 1.0 if step.sum() < 0 else -1.0  # the way off the wall, in units of the step
    off, total = 0.0, 0.0
    for lap in range(3):  # it forgets the lap before at the wall
        for i in range(len(g)):
            if lap == 2:
                total += float(g[i]) * off
            off = max(off + inward * float(step[i]), 0.0)
    return total


def adamnc_constant() -> float:
    """Return lim R_T/√T of AdamNC on the online game: Σ over periods of α_t Σ g_i d_i, at the left wall."""
    return 2 * ALPHA * swing(moves("online", "adafom", None)) / 101


SPIKE = 1010 * 1000 * ALPHA / math.sqrt(LONG / 2) / math.sqrt(float(np.mean(period(online()) ** 2)))
"""What AdamNC loses to one 1010x: a hundred steps of 10 off the wall."""


def adam_regret() -> float:
    """Return Adam's mean regret at the right wall, over the last half of T = 5e6: 2·10 a period, less its swing."""
    alpha = 2 * ALPHA * (math.sqrt(LONG) - math.sqrt(LONG / 2)) / (LONG / 2)
    return (WIDTH * 10 - alpha * swing(moves("online", "adam_plain", BETAS))) / 101


def share_of_bound() -> float:
    """Return the regret of the whole run of AdamNC without momentum over (D²/(2α) + α)·√Σg²."""
    trace = run("online", 0.0)
    bound = (WIDTH**2 / (2 * ALPHA) + ALPHA) * math.sqrt(float(trace.total("g2")[-1]))
    return float(trace.scalars["regret"].last[-1] * LONG / bound)


def of(measure: Callable[..., Any], *setting: Any) -> Callable[[], Any]:
    """Return an experiment: what `measure` reads from a run of AdamNC."""
    return lambda: measure(run(*setting))


SUMS = "1 − 1/t and 1/t are the weights of a running mean; rounding of 1e4 steps."
SAME = "α_t/√(Σg²/t) = α/√Σg² at α_t = α/√t; rounding."
GROWS = "√(t v_t)/α = √Σg²/α does not fall, so e does not rise."
WALL = "The periodic walk with 1/√mean(g²) at the left wall: λ^t has ended the momentum; the mean's last period is 1/t."
ROOT = "Σ over a period of g_i times the distance from the wall, times α_t; the half may hold one spike more or less."
STAYS = "It sits at the other wall, 2 from x*, less its swing; the half may hold one spike more or less."
BOUND = "Online gradient descent with e_t not rising: R ≤ D²/(2e_T) + ½Σ e g², and Σ e g² ≤ 2α√Σg²; derived here."
CERTIFIED = "Its e never rises under 1/√t, and b grows like log T."

ROWS: tuple[Row, ...] = (
    ("v with β2,t = 1 − 1/t is the mean of g²: off by", "paper", 0, 1e-11, mean_of_squares, SUMS),
    ("without momentum it is AdaGrad: largest distance apart", "derived", 0, 1e-10, apart, SAME),
    ("share of steps with Γ < 0, stochastic game", "paper", 0, 0, of(share_rising, "stochastic"), GROWS),
    ("end on the online game", "derived", predicted_end("online", "adafom", LONG), 1e-6, of(final, "online"), WALL),
    (
        "online game: regret over √T",
        "derived",
        adamnc_constant(),
        SPIKE / (math.sqrt(LONG) - math.sqrt(LONG / 2)),
        of(root_regret, "online"),
        ROOT,
    ),
    (
        "online game: mean regret of Adam (0.9, 0.99) stays",
        "derived",
        adam_regret(),
        WIDTH * 1010 / (LONG / 2),
        lambda: mean_regret(played("online", "adam_plain", LONG, BETAS)),
        STAYS,
    ),
    ("online game: regret without momentum over its bound", "derived", (0.0, 1.0), 0, share_of_bound, BOUND),
    ("verdict on the online game", "paper", "certified", 0, of(verdict, "online"), CERTIFIED),
    ("verdict on the stochastic game", "paper", "certified", 0, of(verdict, "stochastic"), CERTIFIED),
)


def stated() -> tuple[Claim, ...]:
    """Return the claims: what AdamNC's growing β2 does, and what it costs."""
    return rows(PAPER, "AdamNC: ", ROWS)
