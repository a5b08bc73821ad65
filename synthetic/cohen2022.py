"""The adaptive edge of stability, after Cohen et al. (2022, arXiv 2207.14484), on problems small enough to see it all.

Full-batch Adam drives the preconditioned curvature λ_max(P⁻¹H) to where gradient descent with its momentum and a frozen
preconditioner would stop being stable, (2+2β1)/((1−β1)η): 38/η at β1 = 0.9. That it equilibrates there is the paper's.

What that means is derived here. For β1 = 0, on a quadratic, the ratio to the edge ends at 1 exactly: each coordinate of
the eigenbasis that P knows ends on the 2-cycle of `cycles.py`, which sits at the edge. For β1 > 0 the cycle is unstable
and the ratio saws: it rises as v forgets, and falls when x has grown. As x neither vanishes nor explodes, what is at
equilibrium is the growth of log |x|: the time mean of the frozen step's log spectral radius is zero, up to the speed
1−β2 at which the preconditioner moves. The mean ratio itself lies below 1, and with eps = 0 depends on β alone, for
neither curvature nor η has a scale to be compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from .bock2019 import quadratic as well
from .claims import Claim, Estimate
from .cycles import adaptive_edge
from .engine import simulate
from .orbits import edge_ratio, follow
from .problem import Problem

Array = NDArray[np.float64]

PAPER = "Cohen et al. 2022, arXiv 2207.14484"
ETA = 0.01
STEPS = 20_000


def quadratic() -> Problem:
    """Return a quadratic of curvatures 1, 10 and 100 along axes turned out of the coordinates'."""
    third = "(2*x - y + 2*z)**2/9"  # rows of an orthogonal matrix
    objective = f"((2*x + 2*y - z)**2/9 + 10*(-x + 2*y + 2*z)**2/9 + 100*{third})/2"
    return Problem([objective], variables="x y z".split(), start=1.0, name="curvatures 1, 10, 100, turned")


def product() -> Problem:
    """Return (x y − 1)²/2 from a sharp place: the smallest network, two layers of one weight each."""
    return Problem(["(x*y - 1)**2/2"], variables=["x", "y"], start=(3.0, 0.1), name="(xy − 1)²/2")


def heavy_ball_limit(beta1: float) -> float:
    """Return the largest learning rate at which momentum with an averaged gradient shrinks x²/2, by bisection."""
    problem = well()
    low, high = 0.0, 1000.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        trace = simulate(problem, "momentum", STEPS, middle, beta1=beta1, dampening=beta1, records=1)
        with np.errstate(invalid="ignore"):
            stable = abs(trace.x[0, 0]) < 1.0
        low, high = (middle, high) if stable else (low, middle)
    return low


MAKERS: dict[str, Callable[[], Problem]] = {
    "the turned quadratic": quadratic,
    "(xy − 1)²/2": product,
    "3 x²/2": partial(well, 3.0, 0.7),
}
"""The last is a single coordinate, of another curvature and start than the others."""


@cache
def ratios(text: str, betas: tuple[float, float], eta: float = ETA) -> Array:
    """Return η λ_max(P⁻¹H) (1−β1)/(2+2β1) at each step of the second half of a run of Adam, (steps,).

    The run is 80/(1−β2) steps long, and 2e4 at least: with eps = 0 the gradient first falls to nothing while √v falls
    to the edge, which takes some ten times the memory of v.
    """
    problem = MAKERS[text]()
    steps = max(STEPS, round(80 / (1.0 - betas[1])))
    orbit = follow(problem, "adam", eta, steps, betas, eps=0.0)
    return edge_ratio(problem, orbit, betas[0])[steps // 2 :]


def stretches(values: Array, count: int = 16) -> Estimate:
    """Return the mean of a series with the standard error that the means of its stretches give."""
    means = np.array([part.mean() for part in np.array_split(values, count)])
    return Estimate(float(values.mean()), float(means.std(ddof=1) / np.sqrt(count)))


def apart(text: str, betas: tuple[float, float]) -> Estimate:
    """Return by how much the mean ratio of a problem exceeds that of a single coordinate at another η."""
    here, there = stretches(ratios(text, betas)), stretches(ratios("3 x²/2", betas, 3 * ETA))
    return Estimate(here.value - there.value, float(np.hypot(here.error, there.error)))


def log_radius(ratio: Array, beta1: float) -> Array:
    """Return the log of the spectral radius of a step of the averaged heavy ball at a ratio to the edge.

    Its characteristic polynomial is z² − (1 + β1 − (2 + 2β1)·ratio) z + β1; derived here.
    """
    trace = 1.0 + beta1 - (2.0 + 2.0 * beta1) * ratio
    real = np.sqrt(np.maximum(trace**2 - 4.0 * beta1, 0.0))
    radius: Array = np.log(np.maximum((np.abs(trace) + real) / 2.0, np.sqrt(beta1)))
    return radius


def mean_growth(text: str, betas: tuple[float, float]) -> Estimate:
    """Return the time mean of the frozen step's log spectral radius over the second half of a run."""
    return stretches(log_radius(ratios(text, betas), betas[0]))


def highest(text: str, betas: tuple[float, float]) -> float:
    """Return the largest ratio to the edge over the second half of a run."""
    return float(ratios(text, betas).max())


SCALELESS = (
    "With eps = 0 a coordinate knows only x/η, so the saw is the same for all curvatures and η; standard errors from "
    "sixteen stretches of each run."
)
TRANSIENT = SCALELESS + " The orbit repeats; stretches cut its repetitions, up to twenty steps in 1e4 of 0.05 each."


def stated() -> tuple[Claim, ...]:
    """Return the claims of the paper."""
    return (
        *(
            Claim(
                f"Momentum with an averaged gradient, β1 = {beta1}: the largest stable η on x²/2",
                PAPER,
                "derived",
                adaptive_edge(1.0, beta1),
                1e-3,
                lambda beta1=beta1: heavy_ball_limit(beta1),  # type: ignore[misc]
                "(2+2β1)/(1−β1), where an eigenvalue passes −1, at a rate of one per unit of η; 2e4 steps show a "
                "growth of ln(20)/2e4 each, so 1e-3 is plenty.",
            )
            for beta1 in (0.0, 0.5, 0.9, 0.99)
        ),
        *(
            Claim(
                f"Adam (0, {beta2}) on a turned quadratic of curvatures 1, 10, 100: sits at the edge",
                PAPER,
                "derived",
                1.0,
                1e-6,
                lambda beta2=beta2: float(ratios("the turned quadratic", (0.0, beta2)).mean()),  # type: ignore[misc]
                "On a 2-cycle x, −x of any quadratic e·H x = 2x, so 2 is an eigenvalue of η P⁻¹H; with β1 = 0 the "
                "cycle is stable, and what is left is rounding.",
            )
            for beta2 in (0.9, 0.99)
        ),
        *(
            Claim(
                f"Adam (0.9, {beta2}) on {text}: mean log growth of a frozen step",
                PAPER,
                "derived",
                0.0,
                1.0 - beta2,
                lambda text=text, beta2=beta2: mean_growth(text, (0.9, beta2)),  # type: ignore[misc]
                "Equilibrium, as derived here: contraction below the edge, −0.053 a step, and expansion above it "
                "cancel, but for the 1−β2 by which v and so the preconditioner move in a step.",
            )
            for text, beta2 in (
                ("the turned quadratic", 0.99),
                ("the turned quadratic", 0.999),
                ("(xy − 1)²/2", 0.99),
            )
        ),
        *(
            Claim(
                f"Adam (0.9, {beta2}) on {text}: mean ratio to the edge, less that of one coordinate at 3η",
                PAPER,
                "derived",
                0.0,
                tolerance,
                lambda text=text, beta2=beta2: apart(text, (0.9, beta2)),  # type: ignore[misc]
                why,
            )
            for text, beta2, tolerance, why in (
                ("the turned quadratic", 0.9, 1e-4, TRANSIENT),
                ("the turned quadratic", 0.99, 0.0, SCALELESS),
                ("the turned quadratic", 0.999, 0.0, SCALELESS),
                ("(xy − 1)²/2", 0.9, 1e-4, TRANSIENT),
                ("(xy − 1)²/2", 0.99, 0.0, SCALELESS),
            )
        ),
        Claim(
            "Adam (0.9, 0.9) on 3 x²/2 stays below the edge for good: highest ratio",
            PAPER,
            "simulated",
            0.912,
            5e-4,
            lambda: highest("3 x²/2", (0.9, 0.9)),
            "Seen on x²/2, and scale-free; half a unit. v moves by a tenth of itself in a step, and the frozen picture "
            "fails: x is kept up although every frozen step contracts.",
        ),
    )
