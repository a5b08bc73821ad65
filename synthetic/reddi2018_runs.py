"""Where methods end on Reddi's games, what their accumulators do, and what the diagnosis makes of it.

Ends on a box are computed a second time, in `walls.py`, from the closed form of m and v on a period.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.trace import Trace
from .claims import SEEDS, Claim, Row, again, final, flatness, half_unit, ratio, rho, rows, side, verdict
from .engine import simulate
from .periodic import periodic_average
from .problem import Problem
from .reddi2018 import BOX, PAPER, RATE, online, period, stochastic, theorem1, theorem2
from .walls import end_at_wall

Array = NDArray[np.float64]
Betas = tuple[float, float]

BUILDERS: dict[str, Callable[[], Problem]] = {
    "online": online,
    "stochastic": stochastic,
    "theorem 1": theorem1,
    "theorem 2": theorem2,
}
LONG, SHORT = 5_000_000, 1_000_000
BETAS1, BETAS, DEFAULT, HIGH = (0.0, 0.1), (0.9, 0.99), (0.9, 0.999), (0.9, 0.9999)


@cache
def run(problem: str, method: str, steps: int, betas: Betas | None = None, seeds: int = 1) -> Trace:
    """Return the record of one setting, kept for all claims about it."""
    options: dict[str, Any] = {"beta1": 0.0} if method == "adafom" else {}
    return simulate(BUILDERS[problem](), method, steps, RATE, betas, seeds, **options)


def moves(problem: str, method: str, betas: Betas | None) -> Array:
    """Return what a step of each phase of the period subtracts from x, over α, in the closed form, `(d,)`."""
    g = period(BUILDERS[problem]())
    if method == "sgd" or betas is None:
        return g if method == "sgd" else g / math.sqrt(float(np.mean(g**2)))
    m, v = periodic_average(g, 1 - betas[0]), periodic_average(g**2, 1 - betas[1])
    return m / np.sqrt(v.max() if method == "amsgrad" else v)


def predicted_end(problem: str, method: str, steps: int, betas: Betas | None = None) -> float:
    """Return where the method ends, without the engine."""
    return end_at_wall(moves(problem, method, betas), steps, lambda t: 0.5 / math.sqrt(t), BOX)


def period_rho(problem: str, betas: Betas) -> tuple[float, float]:
    """Return ρ over a period with momentum, Σ m/√v over the mean gradient times Σ 1/√v, and Σ |m/√v| over the same."""
    g, step = period(BUILDERS[problem]()), moves(problem, "adam_plain", betas)
    intended = float(g.mean() * np.sum(1 / np.sqrt(periodic_average(g**2, 1 - betas[1]))))
    return float(step.sum()) / intended, float(np.abs(step).sum()) / intended


def share_rising(trace: Trace) -> float:
    """Return the share of steps with e_t > e_{t−1}, that is Γ_t < 0."""
    return float(trace.total("rising")[-1] / trace.total("compared")[-1])


def of(measure: Callable[..., Any], *setting: Any) -> Callable[[], Any]:
    """Return an experiment: what `measure` reads from a run."""
    return lambda: measure(run(*setting))


def ends(*setting: Any, earlier: int) -> Callable[[], Any]:
    """Return an experiment: the last iterate, to be compared with an earlier median of so many seeds."""
    return lambda: again(run(*setting).x[:, 0], earlier)


WALL = "The closed form of m/√v walked into the wall; what differs is the start's trace in v̂ and rounding."
EARLIER = "An earlier simulation of the same steps; half a unit of its digits."
MEAN = "An earlier median of two seeds, half a unit of its digits; the error counts theirs as well."
DRIVEN = "The drift holds every seed at its wall: the distance falls off within some α_T·10 = 0.002 there."
PUSHED = "E g = 0.2 and E g² = 10300: the distance falls off within α e E g²/(2 E g), 0.06, of the wall."
TELESCOPES = "Its e never rises: c of an octave is 0.29 e, t^−1/2, a is t^1/2; octaves cut periods, 3/16384/0.29/ln 16."
REPEATS = "v repeats with the period: exact geometric sums; rounding of 0.594."
FLAT = "A ratio that repeats; octaves cut periods, 3/16384 at the least."
AGAINST = "c/a is flat and the steps go against the mean gradient."
ALPHA = "Exact for a period at constant α; of its gross Σ|m/√v| the fall of α in d steps leaves d/(2t), t ≥ T/10."
FALLS = "Adam's v falls at each step but the spike, faster than α² once t(1−β2) > 1."
NEVER = "AMSGrad's v̂ never falls."
FALLING = "Its e never rises under 1/√t, and b grows like log T."
TITLES = {"sgd": "SGD", "adafom": "AdaGrad", "amsgrad": "AMSGrad", "adam_plain": "Adam"}


def end(problem: str, method: str, steps: int, betas: Betas | None = None) -> Row:
    """Return a row for an end that the wall decides."""
    at = predicted_end(problem, method, steps, betas)
    name = f"{problem}: {TITLES[method]}" + (f" {betas}" if betas else "") + f" ends at {at:.4f}"
    return (name, "derived", at, 1e-6, of(final, problem, method, steps, betas), WALL)


def unbiased(problem: str, steps: int, betas: Betas, seeds: int = 1) -> tuple[tuple[Any, ...], ...]:
    """Return the settings of SGD, AdaGrad and AMSGrad on a problem."""
    return tuple(
        (problem, method, steps, betas if method == "amsgrad" else None, seeds)
        for method in ("sgd", "adafom", "amsgrad")
    )


def end_rows() -> tuple[Row, ...]:
    """Return the rows of the last iterates; their walls are computed."""
    return (
        *(end(*setting[:4]) for setting in unbiased("theorem 1", SHORT, BETAS1)),
        end("theorem 1", "adam_plain", SHORT, BETAS1),
        end("theorem 2", "adam_plain", SHORT, (0.0, 0.9)),
        *(end(*setting[:4]) for setting in unbiased("online", LONG, BETAS)),
        end("online", "adam_plain", LONG, BETAS),
        end("online", "adam_plain", SHORT, DEFAULT),
        (
            "online: AMSGrad ends near −1",
            "simulated",
            -0.9989,
            half_unit("0.9989"),
            of(final, "online", "amsgrad", LONG, BETAS),
            EARLIER,
        ),
        (
            "online: Adam (0.9, 0.9999) goes right, x at T = 1e6",
            "simulated",
            -0.50,
            half_unit("0.50"),
            of(final, "online", "adam_plain", SHORT, HIGH),
            EARLIER,
        ),
        (
            "stochastic: every seed of Adam ends on the wrong side",
            "paper",
            "right",
            0,
            of(side, "stochastic", "adam_plain", LONG, BETAS, SEEDS),
            DRIVEN,
        ),
        *(
            (
                f"stochastic: every seed of {TITLES[method]} ends on the right side",
                "derived",
                "left",
                0,
                of(side, "stochastic", method, LONG, betas, SEEDS),
                PUSHED,
            )
            for method, betas in (("adafom", None), ("amsgrad", BETAS))
        ),
        *(
            (
                f"stochastic: median end of {TITLES[method]}",
                "simulated",
                at,
                0.005,
                ends("stochastic", method, LONG, betas, SEEDS, earlier=2),
                MEAN,
            )
            for method, betas, at in (
                ("adafom", None, -0.86),
                ("amsgrad", BETAS, -0.945),
                ("adam_plain", BETAS, 0.999),
            )
        ),
    )


ACCUMULATORS: tuple[Row, ...] = (
    *(
        (
            f"theorem 1: c/a of {TITLES[setting[1]]} falls like T^−1",
            "derived",
            -1.0,
            2.5e-4,
            of(partial(flatness, over="c"), *setting[:4]),
            TELESCOPES,
        )
        for setting in unbiased("theorem 1", SHORT, BETAS1)
    ),
    (
        "theorem 1: Adam's c/a",
        "derived",
        0.594,
        half_unit("0.594"),
        of(partial(ratio, over="c"), "theorem 1", "adam_plain", SHORT, BETAS1),
        REPEATS,
    ),
    (
        "theorem 1: Adam's c/a stays flat",
        "derived",
        0.0,
        2e-4,
        of(partial(flatness, over="c"), "theorem 1", "adam_plain", SHORT, BETAS1),
        FLAT,
    ),
    *(
        (
            f"{name}: share of steps with Γ < 0, Adam {betas}",
            "derived",
            1 - 1 / d,
            (1 / (1 - betas[1]) + 1) / steps,
            of(share_rising, name, "adam_plain", steps, betas),
            FALLS,
        )
        for name, steps, betas, d in (("theorem 1", SHORT, BETAS1, 3), ("online", LONG, BETAS, 101))
    ),
    (
        "online: share of steps with Γ < 0, AMSGrad",
        "derived",
        0.0,
        0.0,
        of(share_rising, "online", "amsgrad", LONG, BETAS),
        NEVER,
    ),
)


def biased(problem: str, steps: int, betas: Betas, d: int) -> tuple[Row, Row]:
    """Return the rows for an Adam that goes the wrong way on a period of d steps: verdict and ρ."""
    setting = (problem, "adam_plain", steps, betas)
    worst, gross = period_rho(problem, betas)
    return (
        (f"{problem}: verdict on Adam {betas}", "derived", "biased", 0, of(verdict, *setting), AGAINST),
        (f"{problem}: ρ of Adam {betas}", "derived", worst, gross * d / (0.2 * steps), of(rho, *setting), ALPHA),
    )


JUDGED: tuple[Row, ...] = (
    *biased("theorem 1", SHORT, BETAS1, 3),
    *biased("online", LONG, BETAS, 101),
    *biased("online", SHORT, DEFAULT, 101),
    *(
        (f"{setting[0]}: verdict on {TITLES[setting[1]]}", "derived", "certified", 0, of(verdict, *setting), FALLING)
        for settings in (
            unbiased("theorem 1", SHORT, BETAS1),
            unbiased("online", LONG, BETAS),
            unbiased("stochastic", LONG, BETAS, SEEDS),
        )
        for setting in settings
    ),
    (
        f"stochastic: verdict on {SEEDS} runs of Adam together",
        "derived",
        "biased",
        0,
        of(verdict, "stochastic", "adam_plain", LONG, BETAS, SEEDS),
        "Below the critical β2. One run does not resolve the sign of so small a drift and stays `uncertified`.",
    ),
)


def stated() -> tuple[Claim, ...]:
    """Return the claims: what happens in these games, run by run."""
    return rows(PAPER, "", (*end_rows(), *ACCUMULATORS, *JUDGED))
