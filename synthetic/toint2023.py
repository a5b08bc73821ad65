"""Adam with a fixed learning rate can run off to infinity without noise, on a smooth function bounded from below.

That there is a function of one variable with a Lipschitz gradient on which Adam, started from 0, diverges
whatever its parameters, is Toint's (2023, arXiv 2308.00720). His construction was not at hand; the one below is ours:

    f(x) = −(α/2π)² sin(2πx/α),    f'(x) = −(α/2π) cos(2πx/α),    |f''| ≤ 1.

Proof. At x = kα the gradient is −α/2π, for every k. Adam corrects its bias, so as long as all gradients were one and
the same g, m̂ = g and v̂ = g², and with eps = 0 the next step is −α g/|g| = α exactly, for all β1, β2: from kα to (k+1)α.
By induction x_k = kα → ∞ and |f'(x_k)| = α/2π > 0 for ever, with f ≥ −(α/2π)² and Lipschitz constant 1 for each α.
With eps > 0 outside the root, a wave of length α − 2π·eps does the same: there the step α/(1 + eps/|g|) is that length.

Only the length of Adam's step matters, not the gradient's size, and this is the fault: gradient descent at a fixed rate
below 2/L = 2 converges here, since L = 1 whatever α is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .claims import Claim
from .engine import simulate
from .problem import Problem

PAPER = "Toint 2023, arXiv 2308.00720"
ALPHA = 2.0**-6
"""A power of two, so that kα is exact and a run shows the proof, not rounding."""


def wave(alpha: float = ALPHA) -> Problem:
    """Return −(α/2π)² sin(2πx/α) on the line, from 0; its gradient has Lipschitz constant 1."""
    length = f"{alpha!r}"
    return Problem([f"-({length}/(2*pi))**2*sin(2*pi*x/({length}))"], start=0.0, name=f"a wave of length {alpha:g}")


def travelled(betas: tuple[float, float], steps: int = 100_000, alpha: float = ALPHA) -> float:
    """Return x_T/(αT) of Adam with the fixed learning rate α: 1 where every step goes to the next crest of −f'."""
    trace = simulate(wave(alpha), "adam", steps, alpha, betas, eps=0.0)
    return float(trace.x[0, 0]) / (alpha * steps)


def slope_at_the_end(betas: tuple[float, float], steps: int = 100_000) -> float:
    """Return |f'(x_T)|·2π/α: 1 where the gradient has not shrunk at all."""
    problem = wave()
    trace = simulate(problem, "adam", steps, ALPHA, betas, eps=0.0)
    return float(abs(problem.mean_gradient(trace.x[0])[0])) * 2.0 * np.pi / ALPHA


def descended(method: str, lr: float | str, **hyper: Any) -> float:
    """Return |f'(x_T)|·2π/α of another method or schedule after 1e5 steps."""
    problem = wave()
    trace = simulate(problem, method, 100_000, lr, **hyper)
    return float(abs(problem.mean_gradient(trace.x[0])[0])) * 2.0 * np.pi / ALPHA


BETAS = ((0.0, 0.5), (0.5, 0.9), (0.9, 0.999), (0.9, 0.1), (0.99, 0.9999))


def stated() -> tuple[Claim, ...]:
    """Return the claims of the paper."""
    return (
        *(
            Claim(
                f"Adam {betas} goes α a step, for ever: x_T/(αT)",
                PAPER,
                "derived",
                1.0,
                1e-9,
                lambda betas=betas: travelled(betas),  # type: ignore[misc]
                "The induction in this module's docstring, ours; its sums of kα are exact, its roots rounded.",
            )
            for betas in BETAS
        ),
        Claim(
            "…and the gradient does not shrink: |f'(x_T)|·2π/α",
            PAPER,
            "derived",
            1.0,
            1e-6,
            lambda: slope_at_the_end((0.9, 0.999)),
            "cos 2πk = 1; the argument 2π·1e5 is rounded to 1e-10.",
        ),
        Claim(
            "Gradient descent with η = 1 converges: |f'(x_T)|·2π/α",
            PAPER,
            "derived",
            0.0,
            1e-9,
            lambda: descended("sgd", 1.0),
            "L = 1 on the whole line for every α, and 1 < 2/L.",
        ),
        Claim(
            "AdaGrad with the same rate converges: |f'(x_T)|·2π/α",
            PAPER,
            "derived",
            0.0,
            1e-6,
            lambda: descended("adagrad", ALPHA, eps=0.0),
            "Its steps shrink as 1/√t off the comb until they are shorter than 2/L; then it descends geometrically.",
        ),
    )
