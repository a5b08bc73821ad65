"""The finite sum on which Zhang et al. (NeurIPS 2022, arXiv 2208.09632) show where Adam diverges in (β1, β2).

n functions are reshuffled each epoch; the learning rate is 0.1/√k in epoch k. For a fixed n small β2 diverges, and
large β1 or large β2 converge; the region of divergence grows with n. The function is after the paper; the exact drift
of reshuffled gradients, which says where and how fast, is derived here (`reshuffled.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import sympy
from numpy.typing import NDArray

from ..diagnostics.trace import Trace
from .arrivals import Shuffled
from .claims import SEEDS, Claim, Estimate, Row, again, final, half_unit, mean, rows, verdict
from .engine import simulate
from .problem import Problem
from .reshuffled import reshuffled_critical_beta2, reshuffled_drift

Array = NDArray[np.float64]
x = sympy.Symbol("x", real=True)
EPOCHS = 20_000
TENTH = EPOCHS // 10


def finite_sum(n: int = 10) -> Problem:
    """Return n functions, nx and n−1 times −x right of −1, to its left quadratics that share the minimum −2."""
    half, right = sympy.Rational(1, 2), x >= -1
    steep = sympy.Piecewise((n * x, right), (n * half * (x + 2) ** 2 - 3 * n * half, True))
    gentle = sympy.Piecewise((-x, right), (-half * (x + 2) ** 2 + 3 * half, True))
    return Problem([steep] + [gentle] * (n - 1), Shuffled(), start=1, name=f"Zhang, n = {n}")


@cache
def run(n: int, beta1: float, beta2: float, epochs: int = EPOCHS) -> Trace:
    """Return the record of Adam (no bias correction, no eps), a thousand records a run, sixteen seeds."""
    lr = f"0.1/sqrt(ceiling(t/{n}))"
    return simulate(finite_sum(n), "adam_plain", n * epochs, lr, (beta1, beta2), SEEDS, records=1000)


def late_drift(trace: Trace, n: int) -> Estimate:
    """Return the mean step over α from the tenth part of the epochs to the end, x falling where it is positive."""
    assert trace.path is not None
    far = np.abs(trace.path[:, :, 0])
    row = int(np.searchsorted(trace.steps, n * TENTH))
    spent = 0.1 * n * float(np.sum(np.arange(trace.steps[row] // n + 1.0, EPOCHS + 1) ** -0.5))
    return mean((far[row] - far[-1]) / spent)


def ends(*setting: Any) -> Callable[[], Estimate]:
    """Return an experiment: the last iterate, to be compared with an earlier one of a single seed."""
    return lambda: again(run(*setting).x[:, 0], 1)


def farthest(*setting: Any) -> float:
    """Return the largest distance from the minimizer −2 among the last iterates of all seeds."""
    return float(np.abs(run(*setting).x + 2).max())


def root_drift(n: int, beta1: float) -> Estimate:
    """Return the observed drift at the exact critical β2."""
    root = reshuffled_critical_beta2(n, -1, n, beta1)
    assert root is not None
    return late_drift(run(n, beta1, root), n)


GRID = tuple((b1, b2) for b1 in (0.0, 0.5, 0.9) for b2 in (0.1, 0.5, 0.9, 0.99))


def predicted_map(n: int) -> str:
    """Return a sign for each (β1, β2) of the grid: "-" where the exact drift goes to +∞."""
    return "".join("-" if reshuffled_drift(n, -1, n, *betas) < 0 else "+" for betas in GRID)


def observed_map(n: int) -> str:
    """Return the same from where simulated Adam has gone: "-" where it is right of its start, 1."""
    return "".join("-" if final(run(n, *betas)) > 1 else "+" for betas in GRID)


def growing() -> str:
    """Return "grows" if each n goes wrong wherever the smaller one does, and in more places."""
    maps = [predicted_map(n) for n in (5, 10, 20)]
    kept = all(b == "-" for m, k in pairwise(maps) for a, b in zip(m, k, strict=True) if a == "-")
    counts = [m.count("-") for m in maps]
    return "grows" if kept and counts[0] < counts[1] < counts[2] else f"{counts}"


ENDS: dict[tuple[int, float], dict[float, str]] = {
    (5, 0.0): {0.1: "70", 0.5: "31", 0.8: "3.7", 0.9: "-2"},
    (10, 0.0): {0.1: "197", 0.5: "123", 0.9: "15", 0.95: "3.8", 0.99: "-2"},
    (10, 0.9): {0.5: "18", 0.8: "5.6", 0.9: "-1.2", 0.95: "-2"},
    (20, 0.0): {0.1: "463", 0.9: "67"},
    (20, 0.9): {0.5: "116", 0.9: "31"},
}
"""Where an earlier simulation ended after 2·10⁴ epochs, by (n, β1) and β2, one seed each."""
ON_THE_LINE = (
    *((n, b1, b2) for (n, b1), ends in ENDS.items() for b2, end in ends.items() if float(end) > 0),
    (20, 0.0, 0.99),
)
"""Those that stay right of −1, where gradients are constant; the last one's end is too scattered to be compared."""
ARRIVED = (*((5, 0.9, b2) for b2 in (0.1, 0.5, 0.8, 0.9, 0.99)), (5, 0.0, 0.9), (10, 0.9, 0.95))
"""Those whose drift has been enough to come to the minimizer long ago."""

PAPER = "Zhang et al., NeurIPS 2022"
DRIFT = "The exact drift of reshuffled gradients (`reshuffled.py`), constant right of −1; draws alone."
EARLIER = "An earlier seed, half a unit of its digits; the error counts its spread as well."
NEAR = "Near −2 gradients are multiples of x + 2, so |m|/√v ≤ n: an epoch carries x by at most n² α_T."
ROOT = "Exact, by definition; draws alone."
SIGNS = "The signs of the exact drift on three β1 and four β2; all are large enough to show in 2·10⁴ epochs."


def betas(b1: float, b2: float) -> str:
    """Return (β1, β2) for people."""
    return f"β = ({b1:g}, {b2:g})"


def stated() -> tuple[Claim, ...]:
    """Return the claims: numbers of the heat maps, the drift behind them, and what they say."""
    table: tuple[Row, ...] = (
        *(
            (
                f"n = {n}, {betas(b1, b2)}: drift",
                "derived",
                reshuffled_drift(n, -1, n, b1, b2),
                0,
                lambda n=n, b1=b1, b2=b2: late_drift(run(n, b1, b2), n),
                DRIFT,
            )
            for n, b1, b2 in ON_THE_LINE
        ),
        *(
            (f"n = {n}, β1 = {b1:g}: drift at the exact critical β2", "derived", 0, 0, partial(root_drift, n, b1), ROOT)
            for n, b1 in ((5, 0.0), (10, 0.0), (10, 0.9))
        ),
        *(
            (
                f"n = {n}, {betas(b1, b2)}: x after 2·10⁴ epochs",
                "simulated",
                float(at),
                half_unit(at),
                ends(n, b1, b2),
                EARLIER,
            )
            for (n, b1), each in ENDS.items()
            for b2, at in each.items()
        ),
        *(
            (
                f"n = {n}, {betas(b1, b2)}: the seed farthest from −2",
                "derived",
                (0.0, n**2 * 0.1 / math.sqrt(EPOCHS)),
                0,
                partial(farthest, n, b1, b2),
                NEAR,
            )
            for n, b1, b2 in ARRIVED
        ),
        *(
            (f"n = {n}: where it goes on a grid", "derived", predicted_map(n), 0, partial(observed_map, n), SIGNS)
            for n in (5, 10)
        ),
        (
            "the region of divergence grows with n",
            "paper",
            "grows",
            0,
            growing,
            "By the exact drift, on the same grid.",
        ),
        (
            "n = 10: verdict on β = (0, 0.5)",
            "paper",
            "biased",
            0,
            lambda: verdict(run(10, 0.0, 0.5)),
            "Small β2 climbs.",
        ),
        (
            "n = 10: verdict on β = (0.9, 0.95)",
            "derived",
            "uncertified",
            0,
            lambda: verdict(run(10, 0.9, 0.95)),
            "At a constant β2 the stepsizes rise and fall with every epoch; all seeds have arrived, no harm comes of "
            "it.",
        ),
    )
    return rows(PAPER, "", table)
