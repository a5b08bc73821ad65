"""The bound of Défossez, Bottou, Bach and Usunier (2020, arXiv 2003.02395) for Adam without momentum, put to a run.

After the paper, E‖∇F(x_τ)‖² ≤ 2R(F_0 − F*)/(αN) + E(ln(1 + R²/((1−β2)eps))/N − ln β2), E = 4dR²/√(1−β2) + αdRL/(1−β2).
The problem, whose R and L are exact, and what the bound does along α ~ 1/√N, 1−β2 ~ 1/N, are derived here.
"""

from __future__ import annotations

import math

import numpy as np

from .claims import Claim
from .engine import simulate
from .guarantees import defossez_bound
from .noise import TwoPoint
from .orbits import path_of
from .problem import Problem

PAPER = "Défossez et al., TMLR 2022, arXiv 2003.02395"
EPS = 1e-8


def pseudo_huber(start: float = 3.0) -> Problem:
    """Return √(1+x²) with ±1 added to the gradient: |g| < 2, L = 1, minimum 1 at 0."""
    return Problem(["sqrt(1 + x**2)"], start=start, noise=TwoPoint(1.0, 0.5), name="√(1+x²), noise ±1")


R = 2.0 + math.sqrt(EPS)
"""The bound of |g| + √eps: F' and the noise are at most 1 each."""


def bound(steps: int, alpha: float, beta2: float, start: float = 3.0) -> float:
    """Return the bound for `pseudo_huber`."""
    gap = math.sqrt(1.0 + start**2) - 1.0
    return defossez_bound(steps, alpha, beta2, gradient_bound=R, lipschitz=1.0, gap=gap, eps=EPS)


def observed(steps: int, alpha: float, beta2: float) -> float:
    """Return the mean of F'(x_t)² over the steps and 4 seeds, Adam without momentum, eps inside the root."""
    problem = pseudo_huber()
    trace = simulate(problem, "adam_inside", steps, alpha, (0.0, beta2), 4, eps=EPS)
    even = path_of(trace)[trace.steps % max(1, steps // 1024) == 0]
    return float(np.mean(problem.mean_gradient(even) ** 2))


def share_of_bound(steps: int, alpha: float, beta2: float) -> float:
    """Return the observed mean over the bound; at most 1 if the bound holds."""
    return observed(steps, alpha, beta2) / bound(steps, alpha, beta2)


def order() -> float:
    """Return the slope in ln N of √N times the bound at α = 1/√N, 1−β2 = 1/N, between N = 1e9 and 1e12."""
    low, high = (bound(n, 1.0 / math.sqrt(n), 1.0 - 1.0 / n) * math.sqrt(n) for n in (10**9, 10**12))
    return (high - low) / math.log(1000.0)


def stated() -> tuple[Claim, ...]:
    """Return the claims of the paper."""
    return (
        *(
            Claim(
                f"√(1+x²) with noise ±1, N = {steps}, α = {alpha:g}, β2 = {beta2:g}: mean F'² over the bound",
                PAPER,
                "paper",
                (0.0, 1.0),
                0.0,
                lambda steps=steps, alpha=alpha, beta2=beta2: share_of_bound(steps, alpha, beta2),  # type: ignore[misc]
                "After the paper; R = 2 and L = 1 are exact. The bound is loose, as worst cases are.",
            )
            for steps, alpha, beta2 in ((10_000, 1e-2, 0.9999), (100_000, 10**-2.5, 0.99999), (100_000, 1e-3, 0.999))
        ),
        Claim(
            "The bound at fixed α = 0.001, β2 = 0.999 stays above −E ln β2 as N → ∞",
            PAPER,
            "derived",
            (4.0 * R**2 / math.sqrt(1e-3) + R) * -math.log(0.999),
            2.3e-8,
            lambda: bound(10**12, 1e-3, 0.999),
            "The other terms fall as 1/N: 2R·gap/(αN) is 0.9e-8, E·ln(…)/N 1.4e-8: no convergence with default Adam.",
        ),
        Claim(
            "With α = 1/√N and 1−β2 = 1/N the bound times √N grows like ln N times",
            PAPER,
            "derived",
            4.0 * R**2 + R,
            1e-4 * (4.0 * R**2 + R),
            order,
            "4R² + RL of E, derived here from the formula; 1 − 1e-12 is a float off by up to 1e-4 of 1e-12.",
        ),
    )
