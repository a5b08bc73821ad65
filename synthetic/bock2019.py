"""Limit cycles of Adam on quadratics, after Bock and Weiß ("Non-convergence and limit cycles in the Adam optimizer").

At a constant learning rate Adam need not settle even on h x²/2: there are 2-cycles x, −x, x, … for every choice of
hyper-parameters. That is the paper's; the closed form of the amplitude for eps = 0, its independence of h, and
where it draws iterates, are derived here (`cycles.py`).
"""

from __future__ import annotations

import numpy as np

from ..diagnostics.conditions import Decision
from .claims import Claim, flatness, verdict
from .cycles import two_cycle
from .engine import simulate
from .orbits import Orbit, follow, path_of
from .problem import Problem

PAPER = "Bock & Weiß, ICANN 2019"
ALPHA = 0.01


def quadratic(h: float = 1.0, start: float = 1.0) -> Problem:
    """Return h x²/2, without box, noise or order."""
    return Problem([f"{h!r}*x**2/2"], start=start, name=f"{h:g} x²/2")


def amplitude(h: float, betas: tuple[float, float], *, lr: float | str = ALPHA, eps: float = 0.0) -> float:
    """Return |x| after 2e5 steps of Adam, eps inside the root."""
    trace = simulate(quadratic(h), "adam_inside", 200_000, lr, betas, eps=eps)
    return float(abs(trace.x[0, 0]))


def on_cycle(betas: tuple[float, float], h: float = 1.0, steps: int = 10) -> Orbit:
    """Return steps taken from the cycle itself: m from the opposite point, v settled, no bias left to correct."""
    x = two_cycle(ALPHA, betas[0], curvature=h) or 0.0
    state = [[-(1 - betas[0]) / (1 + betas[0]) * h * x], [(h * x) ** 2]]
    return follow(quadratic(h), "adam", ALPHA, steps, betas, start=x, state=state, first=1_000_000, eps=0.0)


def spread(betas: tuple[float, float] = (0.0, 0.9)) -> float:
    """Return by how much the amplitude differs between curvatures from 1/100 to 200."""
    found = [amplitude(h, betas) for h in (0.01, 1.0, 200.0)]
    return max(found) - min(found)


def burst(betas: tuple[float, float]) -> tuple[float, float]:
    """Return the smallest and the largest |x| of Adam's last 1e5 steps of 2e5, from x = 1 with eps = 0."""
    trace = simulate(quadratic(), "adam", 200_000, ALPHA, betas, eps=0.0, records=200_000)
    last = np.abs(path_of(trace)[-100_000:, 0, 0])
    return float(last.min()), float(last.max())


def bursting(betas: tuple[float, float]) -> str:
    """Return "bursts" where |x| of the last 1e5 steps ranges over more than three decades, else "cycle"."""
    low, high = burst(betas)
    return "bursts" if high > 1e3 * low else "cycle"


def conditions(betas: tuple[float, float]) -> str:
    """Return what the diagnosis of a run says of b/a → 0 and of c/a → 0."""
    found = simulate(quadratic(), "adam", 200_000, ALPHA, betas, eps=0.0).diagnose()
    words = {Decision.HOLDS: "→ 0", Decision.VIOLATED: "flat", Decision.INCONCLUSIVE: "?"}
    return f"b/a {words[found.variance.decision]}, c/a {words[found.bias.decision]}"


def alternation(betas: tuple[float, float]) -> float:
    """Return the correlation of each increment of x with the next, over the last 1e5 steps: −1 on a 2-cycle."""
    trace = simulate(quadratic(), "adam", 200_000, ALPHA, betas, eps=0.0, records=200_000)
    moves = np.diff(path_of(trace)[-100_000:, 0, 0])
    return float(np.corrcoef(moves[:-1], moves[1:])[0, 1])


def stated() -> tuple[Claim, ...]:
    """Return the claims of the paper."""
    return (
        Claim(
            "The 2-cycle of Adam (0, 0.9), α = 0.01, on x²/2",
            PAPER,
            "derived",
            5e-3,
            1e-12,
            lambda: amplitude(1.0, (0.0, 0.9)),
            "α(1−β1)/(2(1+β1)), derived here; the cycle is stable at β1 = 0, so only rounding is left after 2e5 steps.",
        ),
        Claim(
            "Its amplitude at curvatures 1/100, 1 and 200: largest minus smallest",
            PAPER,
            "derived",
            0.0,
            1e-12,
            spread,
            "The closed form, derived here, holds no curvature; rounding.",
        ),
        Claim(
            "The 2-cycle of Adam (0.9, 0.999) returns to α/38 after ten steps",
            PAPER,
            "derived",
            ALPHA / 38,
            1e-14,
            lambda: float(abs(on_cycle((0.9, 0.999)).x[-1, 0])),
            "α(1−β1)/(2(1+β1)); it exists for all β (after the paper) but is unstable here, so rounding grows: "
            "1.4^10·1e-16.",
        ),
        Claim(
            "eps inside the root above (hα/2)²: no cycle, |x|",
            PAPER,
            "derived",
            0.0,
            1e-12,
            lambda: amplitude(2.0, (0.0, 0.9), eps=1.02 * ALPHA**2),
            "The cycle needs hα(1−β1)/(2(1+β1)) > √eps, derived here; beyond it x tends to 0 geometrically.",
        ),
        Claim(
            "eps inside the root below it: |x|",
            PAPER,
            "derived",
            ALPHA / 2 * float(np.sqrt(0.02)),
            1e-10,
            lambda: amplitude(2.0, (0.0, 0.9), eps=0.98 * ALPHA**2),
            "√((α/2)² − eps/h²), derived here; its approach is slow near the limit, hence 1e-10.",
        ),
        Claim(
            "On the 2-cycle, (0, 0.9)",
            PAPER,
            "derived",
            "b/a flat, c/a → 0",
            0.0,
            lambda: conditions((0.0, 0.9)),
            "There e and |g| are constant: b/a = e g² stays, c stops growing.",
        ),
        Claim(
            "On the 2-cycle, (0, 0.9), the verdict",
            PAPER,
            "derived",
            "neighbourhood",
            0.0,
            lambda: verdict(simulate(quadratic(), "adam", 200_000, ALPHA, (0.0, 0.9), eps=0.0)),
            "b/a stays, so only a neighbourhood of the minimum is reached.",
        ),
        Claim(
            "On the 2-cycle, (0, 0.9), each increment undoes the one before: their correlation",
            PAPER,
            "derived",
            -1.0,
            1e-9,
            lambda: alternation((0.0, 0.9)),
            "x, −x, x, … by definition; rounding.",
        ),
        *(
            Claim(
                f"Adam {betas} on x²/2",
                PAPER,
                "simulated",
                "bursts",
                0.0,
                lambda betas=betas: bursting(betas),  # type: ignore[misc]
                "The 2-cycle is unstable there (its multiplier, derived in cycles.py, exceeds 1); simulated: |x| "
                "ranges over "
                "more than three decades, from 1e-9 and less up to some 1e-3.",
            )
            for betas in ((0.5, 0.9), (0.9, 0.9), (0.9, 0.99), (0.9, 0.999))
        ),
        Claim(
            "The bursting orbit at (0.9, 0.99)",
            PAPER,
            "simulated",
            "b/a flat, c/a flat",
            0.0,
            lambda: conditions((0.9, 0.99)),
            "v falls between bursts and jumps at each, for ever, so neither ratio falls; simulated.",
        ),
        Claim(
            "With α_t = α/√t the cycle shrinks: |x| at T = 2e5",
            PAPER,
            "derived",
            ALPHA / 2 / float(np.sqrt(2e5)),
            3e-10,
            lambda: amplitude(1.0, (0.0, 0.9), lr="0.01/sqrt(t)"),
            "α_t/2 of the last step, derived here; α_t moves by 1/(2t) = 2.5e-6 of itself a step, of which v "
            "recalls some ten.",
        ),
        Claim(
            "With α_t = α/√t: b/a falls like t to the power",
            PAPER,
            "derived",
            -1.0,
            1e-3,
            lambda: flatness(simulate(quadratic(), "adam", 200_000, "0.01/sqrt(t)", (0.0, 0.9), eps=0.0), "b"),
            "On the slowly shrinking cycle √v = α_t/2, so e = 2 and (e g)² = α_t² = α²/t: blocks of b over a go like "
            "1/t. v recalls some ten steps, 10/4096 of the first octave's logarithm over ln 16.",
        ),
    )
