"""The sufficient condition for generic Adam, after Zou et al. (CVPR 2019, arXiv 1811.09358): a look at two series.

With θ_t = β2,t: α_t/√(1−θ_t) almost non-increasing, and Σ α_t √(1−θ_t) / (T α_T) = o(1). The condition is theirs;
what it says of power laws is derived here (`guarantees.zou`). It costs no run, and asks nothing of the problem.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import sympy

from .claims import Claim
from .guarantees import zou, zou_ratio

PAPER = "Zou et al., CVPR 2019, arXiv 1811.09358"
T = 10_000_000


def series(one_minus_theta: str, steps: int = T) -> float:
    """Return the ratio's last value for α_t = t^−1/2 and a law of 1−θ_t in t."""
    t = np.arange(1.0, steps + 1)
    theta = 1.0 - sympy.lambdify(sympy.Symbol("t"), sympy.sympify(one_minus_theta), "numpy")(t) * np.ones(steps)
    return float(zou_ratio(t**-0.5, theta)[-1])


def covered(alpha: str, one_minus_theta: str) -> str:
    """Return "covered" or "not covered" for a pair of laws."""
    return "covered" if zou(alpha, one_minus_theta).holds else "not covered"


def stated() -> tuple[Claim, ...]:
    """Return the claims of the paper."""
    return (
        Claim(
            "Constant θ = 0.999, α_t = t^−1/2: the ratio tends to 2√(1−θ)",
            PAPER,
            "derived",
            2.0 * math.sqrt(1e-3),
            1.5 * math.sqrt(1e-3) / math.sqrt(T),
            lambda: series("0.001"),
            "Σ t^−1/2 = 2√T + ζ(1/2) + …, so it lies |ζ(1/2)|·√(1−θ)/√T from its limit, and |ζ(1/2)| < 1.5.",
        ),
        Claim(
            "θ_t = 1 − 1/t, α_t = t^−1/2: the ratio times √T / ln T",
            PAPER,
            "derived",
            1.0 + float(np.euler_gamma) / math.log(T),
            1.0 / T,
            lambda: series("1/t") * math.sqrt(T) / math.log(T),
            "Σ 1/t = ln T + 0.577 + 1/(2T) − …",
        ),
        *(
            Claim(f"α_t = {alpha}, 1−θ_t = {law}", PAPER, "derived", word, 0.0, partial(covered, alpha, law), why)
            for alpha, law, word, why in (
                ("1/sqrt(t)", "1/t", "covered", "α_t/√(1−θ_t) = 1 and the ratio goes like ln T/√T."),
                (
                    "1/sqrt(t)",
                    "0.001",
                    "not covered",
                    "The ratio tends to 2√(1−θ) > 0: default Adam has no certificate here.",
                ),
                ("1/sqrt(t)", "1/t**2", "not covered", "α_t/√(1−θ_t) = √t rises."),
                ("0.001", "0.001", "not covered", "The ratio is √(1−θ) for ever."),
            )
        ),
    )
