"""Against AdaBound: it can take arbitrarily long on a stochastic convex problem (Savarese 2019, arXiv 1908.04457).

That there is such a problem, and that the time grows with a factor that the method's guarantee does not show, is the
abstract's. The paper's problem was not at hand; the one below is ours, and here the factor is 1/γ, the time in which
AdaBound's bounds close:

    Cx with probability p = (1+δ)/(C+1), else −x, on [−1, 1]; the mean is δx, the minimizer −1.

Proof. With u = γt and κ = final_lr/α_1 the stepsize is e/α = clip(1/√v, κ(1 − 1/(u+1)), κ(1 + 1/u)), whose bounds do
not bind while u is small. There AdaBound is Adam, and for small β2 the mean step points to +1. Once they have shut,
e/α = κ and it points to −1. So E[g e]/α changes its sign at some u*(C, δ, κ, β2), and until t = u*/γ, as late as one
likes, x stays at the worst point. For β2 → 0, where e = α/|g|, and κ = 1, the lower bound alone binds: pC u/(u+1) =
1 − p gives u* = (1−p)/δ, so that a small mean gradient delays it as well.
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
from .arrivals import Cyclic, Random
from .claims import SEEDS, Claim, Estimate, Row, mean, rows, side
from .engine import simulate
from .guarantees import adabound_limits
from .periodic import periodic_average
from .problem import Problem
from .recent import listed

Array = NDArray[np.float64]
LR = "0.5/sqrt(t)"
C, DELTA, BETA2 = 3.0, 0.5, 0.1


def law(delta: float = DELTA) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the probabilities and gradients of the problem."""
    p = (1.0 + delta) / (C + 1.0)
    return (p, 1.0 - p), (C, -1.0)


def drawn(delta: float = DELTA, box: bool = True) -> Problem:
    """Return 3x with probability (1+δ)/4, else −x, on [−1, 1] from the worst point, 1, or on the whole line from 0."""
    return Problem(
        [f"{C!r}*x", "-x"],
        Random(law(delta)[0]),
        domain=(-1, 1) if box else None,
        start=1.0 if box else 0.0,
        name=f"3x or −x, δ = {delta:g}",
    )


def cycled() -> Problem:
    """Return 3x, −x, −x in turn on [−1, 1] from the worst point, 1: the same without chance."""
    return Problem([f"{C!r}*x", "-x"], Cyclic([0, 1, 1]), domain=(-1, 1), start=1.0, name="period of three")


def clipped(inverse_root: Array, u: float, ratio: float) -> Array:
    """Return e/α of AdaBound: 1/√v between κ(1 − 1/(u+1)) and κ(1 + 1/u), u = γt, κ = `ratio`."""
    low, high = adabound_limits([u], ratio, 1.0)
    stepsize: Array = np.clip(inverse_root, low[0], high[0])
    return stepsize


def drawn_drift(u: float, ratio: float, delta: float = DELTA, beta2: float = BETA2) -> float:
    """Return E[g e]/α at γt = u on independent draws (β1 = 0), the mean of what x moves against."""
    return listed(*law(delta), beta2, lambda g, v: g * clipped(1 / np.sqrt(v), u, ratio))


def cycled_drift(u: float, ratio: float) -> float:
    """Return Σ g e/α over the period of three at γt = u."""
    g = np.array([C, -1.0, -1.0])
    return float(g @ clipped(1 / np.sqrt(periodic_average(g**2, 1.0 - BETA2)), u, ratio))


def turning(drift: Callable[..., float], *arguments: float) -> float:
    """Return u*, the root of a drift in γt."""
    return float(brentq(drift, 1e-3, 1e3, args=arguments, xtol=1e-12))


@cache
def run(gamma: float, steps: int, box: bool = True) -> Trace:
    """Return the record of AdaBound (β1 = 0, eps = 0), sixteen seeds."""
    hyper: dict[str, Any] = {"final_lr": 0.1, "gamma": gamma, "eps": 0.0}
    return simulate(drawn(box=box), "adabound", steps, LR, (0.0, BETA2), SEEDS, **hyper)


RATIO = 0.1 / 0.5
"""κ of final_lr = 0.1 and α_1 = 0.5."""
CYCLED_TURN = turning(cycled_drift, RATIO)
GAMMA = 1e-5
BEFORE, AFTER = (1 / 4, 1 / 2), (2, 4)
"""Stretches of γt, in units of `turn()`, on whose mean step AdaBound is tried."""


@cache
def turn() -> float:
    """Return u* of the problem as it is drawn."""
    return turning(drawn_drift, RATIO)


def mean_step(begin: float, end: float) -> Estimate:
    """Return the mean of g e over Σ α for γt/u* from `begin` to `end`, on the whole line; x falls if positive."""
    trace = run(GAMMA, round(AFTER[1] * turn() / GAMMA), box=False)
    first, last = np.searchsorted(trace.steps, [begin * turn() / GAMMA, end * turn() / GAMMA])
    last = min(int(last), len(trace.steps) - 1)
    assert trace.path is not None
    spent = float(np.sum(0.5 / np.sqrt(np.arange(trace.steps[first] + 1.0, trace.steps[last] + 1))))
    return mean((trace.path[first, :, 0] - trace.path[last, :, 0]) / spent)


def expected_step(begin: float, end: float) -> float:
    """Return ∫ E[g e]/α dα-weighted over the stretch: the mean over √u, as Σ α ~ √t."""
    roots, weights = np.polynomial.legendre.leggauss(60)
    low, high = math.sqrt(begin * turn()), math.sqrt(end * turn())
    at = low + (high - low) * (roots + 1) / 2
    return float(weights @ [drawn_drift(float(r) ** 2, RATIO) for r in at]) / 2


def held(gamma: float) -> float:
    """Return γt of the last step that ends a period of three at x = 1."""
    steps = int(3.0 / gamma)
    hyper: dict[str, Any] = {"final_lr": 0.1, "gamma": gamma, "eps": 0.0}
    trace = simulate(cycled(), "adabound", steps, LR, (0.0, BETA2), records=steps, **hyper)
    assert trace.path is not None
    at_wall = trace.steps[(trace.path[:, 0, 0] == 1.0) & (trace.steps % 3 == 0)]
    return float(gamma * at_wall[-1])


PAPER = "Savarese, arXiv 1908.04457"
STEP = "E[g e]/α by listing twelve draws, averaged with the weight α; draws alone. Derived here."
WORST = "Half way to the turn the mean step is up; off the wall it falls off within α_t·2.6, 0.09 at most."
LATE = "Long after the turn AdaBound is SGD, and E[g e] = κδα is down."
HELD = "The root of Σ g e over a period, derived here; α and the bounds move by 9γ in three periods."
CLOSED = "(1−p)/δ, derived here for β2 → 0 and κ = 1; β2 = 1e-9 moves v by as much."


def stated() -> tuple[Claim, ...]:
    """Return the claims: how long AdaBound stays at the worst point."""
    table: tuple[Row, ...] = (
        ("mean step well before the turn", "derived", expected_step(*BEFORE), 0, partial(mean_step, *BEFORE), STEP),
        ("mean step long after it", "derived", expected_step(*AFTER), 0, partial(mean_step, *AFTER), STEP),
        *(
            (
                f"γ = {gamma:g}: all seeds at t = u*/(2γ) = {round(turn() / 2 / gamma)}",
                "derived",
                "right",
                0,
                lambda gamma=gamma: side(run(gamma, round(turn() / 2 / gamma))),
                WORST,
            )
            for gamma in (1e-3, 1e-4, 1e-5)
        ),
        *(
            (
                f"γ = {gamma:g}: all seeds at t = 100/γ",
                "derived",
                "left",
                0,
                lambda gamma=gamma: side(run(gamma, round(100 / gamma))),
                LATE,
            )
            for gamma in (1e-3, 1e-4)
        ),
        *(
            (
                f"κ = 1, β2 → 0, δ = {delta:g}: u*",
                "derived",
                (1 - law(delta)[0][0]) / delta,
                1e-6 / delta,
                partial(turning, drawn_drift, 1.0, delta, 1e-9),
                CLOSED,
            )
            for delta in (0.5, 0.05, 0.005)
        ),
        *(
            (
                f"period of three, γ = {gamma:g}: leaves the worst point at γt",
                "derived",
                CYCLED_TURN,
                9 * gamma,
                partial(held, gamma),
                HELD,
            )
            for gamma in (1e-3, 1e-4)
        ),
    )
    return rows(PAPER, "AdaBound, 3x or −x: ", table)
