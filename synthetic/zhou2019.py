"""AdaShift (Zhou et al., ICLR 2019, arXiv 1810.00143): divide by a second moment n steps older than the gradient.

Adam multiplies a large gradient by smaller steps than a small one, because it enters v at once: their net update factor
k(g_t) = Σ_{i≥t} (1−β1) β1^{i−t}/√v_i is smallest for the spike. AdaShift cuts that tie; the stepsizes still oscillate,
so the bias condition fails without harm: it is sufficient, not necessary.

Derived here: on independent draws ρ = 1 for every n, as m_t has only gradients that v has not seen; on a period the cut
is no cut, since v_{t−n} knows what is to come. At n = the period it is the v of this very step, and AdaShift is Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.trace import Trace
from .claims import SEEDS, Claim, Estimate, Row, final, flatness, half_unit, mean, rho, rows, verdict
from .engine import simulate
from .periodic import periodic_average
from .reddi2018 import BOX, RATE, line, online, period, theorem1
from .stationary import stationary_rho
from .walls import end_at_wall

Array = NDArray[np.float64]
STEPS = 5_000_000
BUILDERS = {"online": online, "theorem 1": theorem1}


def net_factors(gradients: Array, beta1: float, beta2: float) -> Array:
    """Return k for each gradient of a period, `(d,)`: the sum of the steps it takes part in, over α and itself."""
    inverse = 1 / np.sqrt(periodic_average(gradients**2, 1 - beta2))
    factors: Array = periodic_average(inverse[::-1], 1 - beta1)[::-1]
    return factors


def window_mean(gradients: Array, n: int, beta1: float) -> Array:
    """Return Σ_{i<n} β1^i g_{t−i} / Σ β1^i on a period, `(d,)`."""
    weights = beta1 ** np.arange(n)
    total = sum(w * np.roll(gradients, i) for i, w in enumerate(weights))
    windowed: Array = np.asarray(total / weights.sum(), dtype=np.float64)
    return windowed


def shifted(gradients: Array, n: int, beta1: float, beta2: float) -> tuple[Array, Array]:
    """Return AdaShift's m and e/α on a period, each `(d,)`: v is the one of n steps before."""
    stepsizes = np.roll(1 / np.sqrt(periodic_average(gradients**2, 1 - beta2)), n)
    return window_mean(gradients, n, beta1), stepsizes


def period_rho(n: int, beta1: float = 0.0, beta2: float = 0.99) -> tuple[float, float]:
    """Return ρ of AdaShift on the online game and Σ |e m| over the intended descent, over a period."""
    g = period(online())
    m, e = shifted(g, n, beta1, beta2)
    intended = float(e.sum() * g.mean())
    return float(m @ e) / intended, float(np.abs(m) @ e) / intended


def predicted_end(problem: str, n: int, beta1: float = 0.0, beta2: float = 0.99) -> float:
    """Return where AdaShift ends on one of Reddi's games, without the engine."""
    m, e = shifted(period(BUILDERS[problem]()), n, beta1, beta2)
    return end_at_wall(m * e, STEPS, lambda t: 0.5 / math.sqrt(t), BOX)


@cache
def run(problem: str, n: int = 1, beta1: float = 0.0, beta2: float = 0.99) -> Trace:
    """Return the record of AdaShift on one of Reddi's games."""
    return simulate(BUILDERS[problem](), "adashift", STEPS, RATE, (beta1, beta2), n=n)


C, DELTA, BETA2 = 10.0, 1.0, 0.9
"""Theorem 3's law with C = 10: Adam's ρ at β2 = 0.9 is far from 1, and a run of 1e6 steps resolves it."""


def drawn_rho(n: int = 0, beta1: float = 0.0) -> Estimate:
    """Return ρ on theorem 3's law without a box, at a constant α, of AdaShift, or of Adam for n = 0."""
    hyper: dict[str, Any] = {"n": n} if n else {}
    method = "adashift" if n else "adam"
    trace = simulate(line(C, DELTA), method, 1_000_000, 1.0, (beta1, BETA2), SEEDS, eps=0.0, **hyper)
    return mean(-trace.x[:, 0] / trace.column("a")[-1])  # the mean gradient is 1


def law() -> tuple[tuple[float, float], tuple[float, float]]:
    """Return probabilities and gradients of theorem 3's problem."""
    p = (1 + DELTA) / (C + 1)
    return (p, 1 - p), (C, -1.0)


def first_wrong() -> float:
    """Return the smallest n with which AdaShift climbs the online game, β = (0, 0.99)."""
    return float(next(n for n in range(1, 102) if period_rho(n)[0] < 0))


def of(measure: Callable[[Trace], Any], *setting: Any) -> Callable[[], Any]:
    """Return an experiment: what `measure` reads from a run."""
    return lambda: measure(run(*setting))


def factor(which: Callable[[Array], Any]) -> float:
    """Return one of the net factors of the online game at β = (0.9, 0.99)."""
    return float(which(net_factors(period(online()), 0.9, 0.99)))


PAPER = "Zhou et al., ICLR 2019"
HALF = "The periodic averages in closed form; half a unit of the printed digits."
WALL = "Closed form of m_t/√v_{t−n} on the period, walked into the wall; an earlier −0.995 (n = 1) came without its T."
SHIFT = "Closed form with v n steps older; of the gross Σ|e m| the fall of α in 101 steps leaves 101/(2t), t ≥ T/10."
INDEPENDENT = "E[m_t/√v_{t−n}] = E m·E[1/√v], m holding the last n gradients alone; draws alone."
ADAM = "The exact stationary ρ (`stationary.py`); draws alone."
ITSELF = "v_{t−101} = v_t on this period, so it is Adam without momentum, which goes the wrong way."
HALFWAY = (
    "Closed form: v falls from spike to spike, so older than half a period it is larger at the spike than on average."
)
STAYS = "v repeats, whichever gradient it divides; octaves cut periods, 101/131072 at the least, over ln 16."


def fixed_rows() -> tuple[Row, ...]:
    """Return the rows of the paper's fixed order; their exact values are computed."""
    return (
        (
            "Adam's net factor of the spike, times 1000",
            "derived",
            8.25,
            half_unit("8.25"),
            lambda: 1e3 * factor(np.min),
            HALF,
        ),
        (
            "Adam's largest net factor, times 100",
            "derived",
            1.17,
            half_unit("1.17"),
            lambda: 1e2 * factor(np.max),
            HALF,
        ),
        ("Adam's smallest net factor is the spike's", "paper", 0, 0, lambda: factor(np.argmin), "It enters v at once."),
        *(
            (
                f"n = {n}, β1 = {b1:g}: ends at {predicted_end('online', n, b1):.4f}",
                "derived",
                predicted_end("online", n, b1),
                1e-6,
                of(final, "online", n, b1),
                ITSELF if n == 101 else WALL,
            )
            for n, b1 in ((1, 0.0), (2, 0.0), (10, 0.0), (10, 0.9), (100, 0.0), (101, 0.0))
        ),
        *(
            (
                f"n = {n}, β1 = {b1:g}: ρ",
                "derived",
                period_rho(n, b1)[0],
                period_rho(n, b1)[1] * 101 / (0.2 * STEPS),
                of(rho, "online", n, b1),
                SHIFT,
            )
            for n, b1 in ((1, 0.0), (2, 0.0), (10, 0.0), (10, 0.9), (50, 0.0), (51, 0.0), (100, 0.0), (101, 0.0))
        ),
        ("the smallest n that goes wrong, β1 = 0", "derived", 51, 0, first_wrong, HALFWAY),
        (
            "n = 1: c/a stays",
            "derived",
            0,
            101 / 131072 / math.log(16),
            of(partial(flatness, over="c"), "online"),
            STAYS,
        ),
        ("n = 1: verdict", "derived", "uncertified", 0, of(verdict, "online"), "c/a stays, no harm."),
        ("n = 101: verdict", "derived", "biased", 0, of(verdict, "online", 101), ITSELF),
    )


def drawn_rows() -> tuple[Row, ...]:
    """Return the rows of independent draws."""
    return (
        ("ρ of Adam, β1 = 0", "derived", stationary_rho(*law(), BETA2), 0, drawn_rho, ADAM),
        *(
            (
                f"ρ of AdaShift, n = {n}, β1 = {b1:g}",
                "derived",
                1,
                0,
                partial(drawn_rho, n, b1),
                INDEPENDENT,
            )
            for n, b1 in ((1, 0.0), (2, 0.5), (10, 0.9))
        ),
    )


def stated() -> tuple[Claim, ...]:
    """Return the claims: the net update factor, and AdaShift on the games that defeat Adam."""
    return (
        *rows(PAPER, "online game: ", fixed_rows()),
        *rows(
            PAPER,
            "theorem 1: ",
            [
                (
                    "n = 1 ends at −1",
                    "derived",
                    predicted_end("theorem 1", 1, 0.0, 0.1),
                    1e-6,
                    of(final, "theorem 1", 1, 0.0, 0.1),
                    WALL,
                )
            ],
        ),
        *rows(PAPER, f"drawn, C = {C:g}, δ = {DELTA:g}, β2 = {BETA2}: ", drawn_rows()),
    )
