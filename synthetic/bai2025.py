"""Loss spikes that Adam's own preconditioner makes, after Bai et al. (2025, arXiv 2506.04805), on linear regression.

Once g² ≪ v the second moment only forgets, v ∝ β2^t, while the iterate sits near the minimum; e = η/√v grows until the
preconditioned curvature passes the threshold, and the loss spikes although nothing about it has changed. That is the
paper's. When the crossing comes, and that the iterate is smallest there, is derived here.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .bock2019 import quadratic as well
from .claims import Claim
from .cycles import adaptive_edge
from .engine import simulate
from .orbits import Orbit, edge_ratio, follow, path_of
from .problem import Problem

Array = NDArray[np.float64]

PAPER = "Bai et al. 2025, arXiv 2506.04805"
ETA = 0.01
BETAS = (0.9, 0.99)
STEPS = 6000
SMALL = 1e-8
"""g²/v below this counts as negligible: it moves ln v by less than 1e-8·(1−β2)/β2 a step."""

FLOOR = 1e-30
"""A loss beneath it counts as this much: it is rounding."""


def regression() -> Problem:
    """Return half the mean squared error of y = a u + b on five points, full batch, where a = b = 0 fits exactly.

    At any other exact fit the residual's rounding would end the quiet, or its being exactly 0 the run.
    """
    loss = "+".join(f"(a*({u}) + b)**2" for u in range(5))
    return Problem([f"({loss})/10"], variables=["a", "b"], start=(1.0, -1.0), name="regression on five points")


def silence(g2: Array, v: Array) -> int:
    """Return the first step from which g² is negligible against v for 100 steps."""
    quiet = np.convolve(g2 < SMALL * v, np.ones(100), mode="valid") == 100.0
    return int(np.argmax(quiet))


def second_moment(orbit: Orbit, betas: tuple[float, float]) -> Array:
    """Return v of one coordinate after each step, (steps,), its two bias corrections taken out of e again."""
    t = np.arange(1, len(orbit.e) + 1)
    corrected = ETA / (1.0 - betas[0] ** t) / orbit.e[:, 0]
    v: Array = corrected**2 * (1.0 - betas[1] ** t)
    return v


def crossing(betas: tuple[float, float] = BETAS, h: float = 1.0) -> tuple[float, int]:
    """Return (predicted, observed) step t at which the preconditioned curvature of h x²/2 first passes the threshold.

    Predicted from the state at the silence, s: the corrected v, v_s β2^(t−s)/(1−β2^t), falls to (ηh(1−β1)/(2+2β1))²,
    so β2^t = edge²/(v_s β2^−s + edge²).
    """
    problem = well(h)
    orbit = follow(problem, "adam", ETA, STEPS, betas, eps=0.0)
    v = second_moment(orbit, betas)
    s = silence(orbit.g[:, 0] ** 2, v)
    edge = (h / adaptive_edge(ETA, betas[0])) ** 2
    left = edge / (v[s] * betas[1] ** -(s + 1.0) + edge)
    ratio = edge_ratio(problem, orbit, betas[0])
    return math.log(left) / math.log(betas[1]), int(np.flatnonzero(ratio[s:] > 1.0)[0]) + s + 1


def lateness(betas: tuple[float, float] = BETAS) -> float:
    """Return how many steps the first crossing comes after the predicted one."""
    predicted, observed = crossing(betas)
    return observed - predicted


def forgetting() -> float:
    """Return the slope of ln v between the silence and the crossing, over ln β2."""
    orbit = follow(well(), "adam", ETA, STEPS, BETAS, eps=0.0)
    v = second_moment(orbit, BETAS)
    s, end = silence(orbit.g[:, 0] ** 2, v), crossing()[1] - 1
    return float(np.log(v[end] / v[s]) / (end - s) / math.log(BETAS[1]))


def turn() -> float:
    """Return how far from the crossing |x|'s envelope is smallest, in units of the momentum's memory 1/(1−β1)."""
    orbit = follow(well(), "adam", ETA, STEPS, BETAS, eps=0.0)
    at = crossing()[1]
    window = 20
    swings = np.lib.stride_tricks.sliding_window_view(np.abs(orbit.x[: at + 1000, 0]), window).max(axis=1)
    least = int(np.argmin(swings)) + window // 2
    return (least - at) * (1.0 - BETAS[0])


def spike(problem: Problem, method: str) -> float:
    """Return log10 of the largest rise of the loss after its smallest value so far, in 6000 steps."""
    if method == "adam":
        loss = problem.value(follow(problem, "adam", ETA, STEPS, BETAS, eps=0.0).x)
    else:
        trace = simulate(problem, method, STEPS, ETA, records=STEPS)
        loss = problem.value(path_of(trace)[:, 0])
    seen = np.maximum(loss, FLOOR)
    return float(np.log10(np.max(seen / np.minimum.accumulate(seen))))


def warned() -> float:
    """Return the share of the steps on which the loss of `regression` grows out of quiet that lie above the threshold.

    Counted are steps after which the envelope of the loss, over 20 steps, is ten times higher within 40 steps and still
    under 1e-10: the onset of a spike, where everything is linear.
    """
    problem = regression()
    orbit = follow(problem, "adam", ETA, STEPS, BETAS, eps=0.0)
    ratio = edge_ratio(problem, orbit, BETAS[0])
    loss = problem.value(orbit.x)[:-1]
    envelope = np.lib.stride_tricks.sliding_window_view(loss, 20).max(axis=1)
    onset = np.flatnonzero((envelope[40:] > 10.0 * envelope[:-40]) & (envelope[40:] < 1e-10))
    above = np.array([ratio[i : i + 60].max() > 1.0 for i in onset])
    return float(above.mean()) if len(above) else math.nan


def stated() -> tuple[Claim, ...]:
    """Return the claims of the paper."""
    return (
        Claim(
            "Before the first spike v forgets at the rate of β2: slope of ln v over ln β2",
            PAPER,
            "paper",
            1.0,
            1e-4,
            forgetting,
            "v ∝ β2^t once g² ≪ v, after the paper; g²/v < 1e-8 during the silence, except for its last steps.",
        ),
        *(
            Claim(
                f"Adam {betas} on x²/2 passes the threshold when v has fallen to its edge: steps late",
                PAPER,
                "derived",
                (0.0, 1.0),
                0.0,
                lambda betas=betas: lateness(betas),  # type: ignore[misc]
                "v_s β2^(t−s)/(1−β2^t) = (ηh(1−β1)/(2+2β1))², derived here; the first whole step after that.",
            )
            for betas in ((0.9, 0.99), (0.9, 0.995), (0.5, 0.99))
        ),
        Claim(
            "|x| is smallest where the threshold is passed: distance in units of 1/(1−β1)",
            PAPER,
            "derived",
            0.0,
            2.0,
            turn,
            "Below the threshold a frozen preconditioner contracts, above it expands; the momentum answers within some "
            "1/(1−β1) steps, and the window is two of them wide.",
        ),
        Claim(
            "Adam's loss on x²/2 rises by so many decades",
            PAPER,
            "derived",
            (math.log10(0.5 * (ETA / 38.0) ** 2 / FLOOR), math.log10(0.5 / FLOOR)),
            0.0,
            lambda: spike(well(), "adam"),
            "While g² < v, v falls and the curvature stays above the threshold: the growth ends no sooner than at "
            "|x| ≥ √v = η/38, derived here; at most it is back at the start, and it began at the floor 1e-30.",
        ),
        Claim(
            "Adam's loss on a regression of five points rises tenfold and more",
            PAPER,
            "paper",
            "spikes",
            0.0,
            lambda: "spikes" if spike(regression(), "adam") > 1.0 else "no spike",
            "The mechanism asks for a spike though η = 0.01 is 30 times under gradient descent's limit 2/λ_max, "
            "λ_max = 6.7.",
        ),
        Claim(
            "Gradient descent's loss at the same rate never rises: log10",
            PAPER,
            "derived",
            0.0,
            1e-12,
            lambda: spike(regression(), "sgd"),
            "λ_max = 6.7 and η = 0.01 < 2/λ_max, so each step lowers a quadratic.",
        ),
        Claim(
            "Onsets of spikes on the regression that come with the threshold passed: share",
            PAPER,
            "paper",
            1.0,
            0.0,
            warned,
            "After the paper, the preconditioned curvature above the threshold predicts spikes.",
        ),
    )
