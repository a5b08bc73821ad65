"""(L0, L1)-smooth problems, after Wang et al. (arXiv 2208.09900): curvature that grows with the gradient.

|f''| ≤ L0 + L1 |f'| admits functions without a Lipschitz gradient. Adam converges on them (theirs), because its
steps do not grow with the gradient; gradient descent at a fixed rate diverges from far away. The
thresholds and L0, L1 of the two functions here are derived by us.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from .claims import Claim, final
from .engine import simulate
from .methods import Method
from .orbits import follow
from .problem import Problem

Array = NDArray[np.float64]

PAPER = "Wang et al. 2022, arXiv 2208.09900"


def clipped_sgd(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply g by e = α·min(1, threshold/‖g‖): gradient descent clipped by norm."""
    norm = 0.0
    for i in range(g.size):
        norm += g[i] * g[i]
    norm = norm**0.5
    scale = p[0] / norm if norm > p[0] else 1.0
    for i in range(g.size):
        e[i] = alpha * scale
        dx[i] = -e[i] * g[i]


CLIPPED = Method(
    "clipped_sgd",
    clipped_sgd,
    {"threshold": 1.0},
    0,
    "Pascanu, Mikolov & Bengio, ICML 2013",
    "e = α·min(1, threshold/‖g‖), on g",
    direction="g",
)


def quartic(start: float = 10.0) -> Problem:
    """Return x⁴/4: f'' = 3x² grows as |f'|^(2/3), within L0 + L1|f'| for every L1 > 0 with L0 = 4/L1²."""
    return Problem(["x**4/4"], start=start, name="x⁴/4")


def hyperbolic(start: float = 10.0) -> Problem:
    """Return cosh x, with L0 = L1 = 1: cosh² = 1 + sinh², so f'' ≤ 1 + |f'| and f'' → |f'| far out."""
    return Problem(["cosh(x)"], start=start, name="cosh x")


def farthest_start(problem: Problem, eta: float) -> float:
    """Return the farthest start from which gradient descent at a fixed rate still converges, by bisection."""
    low, high = 0.0, 50.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        with np.errstate(all="ignore"):
            end = final(simulate(problem, "sgd", 2000, eta, start=middle, records=1))
        low, high = (middle, high) if abs(end) < min(middle, 1.0) else (low, middle)
    return low


def hyperbolic_limit(eta: float) -> float:
    """Return the x > 0 that a step of gradient descent maps onto −x: η sinh x = 2x. Derived here."""
    return float(brentq(lambda x: eta * np.sinh(x) - 2.0 * x, 1e-6, 50.0))


def smoothness_slope(start: float = 10.0) -> float:
    """Return the slope of |Δg/Δx| against |g| along Adam's path on cosh x, where |g| > 100: an estimate of L1."""
    orbit = follow(hyperbolic(), "adam", 0.01, 500, (0.9, 0.999), start=start)
    g, x = orbit.g[:, 0], orbit.x[:-1, 0]
    local, size = np.abs(np.diff(g) / np.diff(x)), np.abs(g[:-1] + g[1:]) / 2
    far = size > 100.0
    return float(np.polyfit(size[far], local[far], 1)[0])


def distance(method: str | Method, lr: float | str, **hyper: Any) -> float:
    """Return |x| after 1e5 steps on cosh x from 10, infinite where it overflowed."""
    with np.errstate(all="ignore"):
        x = abs(final(simulate(hyperbolic(), method, 100_000, lr, **hyper)))
    return x if np.isfinite(x) else float("inf")


def sgd_fate(lr: float) -> str:
    """Return "diverges" where gradient descent on cosh x from 10 leaves every bound, else "stays"."""
    return "diverges" if distance("sgd", lr) > 10.0 else "stays"


def stated() -> tuple[Claim, ...]:
    """Return the claims of the paper."""
    return (
        *(
            Claim(
                f"Gradient descent, η = {eta:g}, on x⁴/4: the farthest start that converges",
                PAPER,
                "derived",
                float(np.sqrt(2.0 / eta)),
                1e-8,
                lambda eta=eta: farthest_start(quartic(), eta),  # type: ignore[misc]
                "|1 − ηx²| < 1 is |x| < √(2/η), derived here; the bisection stops at 1e-9, and a start off by a "
                "share d of the limit is off by 5 d after a step.",
            )
            for eta in (0.01, 0.1)
        ),
        Claim(
            "Gradient descent, η = 0.01, on cosh x: the farthest start that converges",
            PAPER,
            "derived",
            hyperbolic_limit(0.01),
            1e-8,
            lambda: farthest_start(hyperbolic(), 0.01),
            "η sinh x = 2x, derived here; bisection to 1e-9.",
        ),
        Claim(
            "Gradient descent at η = 0.01 on cosh x from 10",
            PAPER,
            "derived",
            "diverges",
            0.0,
            lambda: sgd_fate(0.01),
            "10 lies beyond the root of η sinh x = 2x.",
        ),
        *(
            Claim(
                f"{title} on cosh x from 10: |x|",
                PAPER,
                "derived",
                0.0,
                tolerance,
                lambda method=method, lr=lr, hyper=hyper: distance(method, lr, **hyper),  # type: ignore[misc]
                why,
            )
            for title, method, lr, hyper, tolerance, why in (
                (
                    "Adam (0.9, 0.999), α = 0.5/√t,",
                    "adam",
                    "0.5/sqrt(t)",
                    {},
                    0.5 / 1e5**0.5,
                    "After the paper it converges; what is left is a bursting orbit, shorter than a step α_T = 1.6e-3.",
                ),
                (
                    "Clipped gradient descent, η = 0.1,",
                    CLIPPED,
                    0.1,
                    {},
                    1e-12,
                    "Steps of η until |g| < 1, where η f'' < 2; then geometric.",
                ),
            )
        ),
        Claim(
            "Local smoothness against gradient along Adam's path on cosh x: L1",
            PAPER,
            "derived",
            1.0,
            1e-4,
            smoothness_slope,
            "cosh x = √(1 + sinh²x), 1 + 1/(2 sinh²x) of |g| at |g| > 100, 5e-5; steps of 0.01 bend the secant by "
            "0.01²/24 = 4e-6.",
        ),
    )
