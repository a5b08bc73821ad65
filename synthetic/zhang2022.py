"""The finite sum on which Zhang et al. (NeurIPS 2022, arXiv 2208.09632) show where Adam diverges in (β1, β2).

n functions are reshuffled each epoch; the learning rate is 0.1/√k in epoch k. For a fixed n small β2 diverges, and
large β1 or large β2 converge; the region of divergence grows with n. The function is after the paper.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import sympy
from numpy.typing import NDArray

from ..diagnostics.trace import Trace
from .arrivals import Shuffled
from .claims import Claim, final, verdict
from .engine import simulate
from .problem import Problem

x = sympy.Symbol("x", real=True)
EPOCHS = 20_000


def finite_sum(n: int = 10) -> Problem:
    """Return n functions, nx and n−1 times −x right of −1, to its left quadratics that share the minimum −2."""
    half, right = sympy.Rational(1, 2), x >= -1
    steep = sympy.Piecewise((n * x, right), (n * half * (x + 2) ** 2 - 3 * n * half, True))
    gentle = sympy.Piecewise((-x, right), (-half * (x + 2) ** 2 + 3 * half, True))
    return Problem([steep] + [gentle] * (n - 1), Shuffled(), start=1, name=f"Zhang, n = {n}")


@cache
def run(n: int, beta1: float, beta2: float, epochs: int = EPOCHS) -> Trace:
    """Return the record of Adam (no bias correction, no eps) on three seeds."""
    lr = f"0.1/sqrt(ceiling(t/{n}))"
    return simulate(finite_sum(n), "adam_plain", n * epochs, lr, (beta1, beta2), 3, records=256)


def end(n: int, beta1: float, beta2: float) -> float:
    """Return the median last iterate."""
    return final(run(n, beta1, beta2))


def heat_map(
    n: int, beta1: NDArray[np.float64], beta2: NDArray[np.float64], epochs: int = 2_000
) -> NDArray[np.float64]:
    """Return x_T − x* over a grid, `(len(beta1), len(beta2))`: the paper's picture."""
    return np.array([[final(run(n, float(a), float(b), epochs)) + 2 for b in beta2] for a in beta1])


PAPER = "Zhang et al., NeurIPS 2022"
ENDS: dict[tuple[int, float], dict[float, float]] = {
    (5, 0.0): {0.1: 70, 0.5: 31, 0.8: 3.7, 0.9: -2},
    (10, 0.0): {0.1: 197, 0.5: 123, 0.9: 15, 0.95: 3.8, 0.99: -2},
    (10, 0.9): {0.5: 18, 0.8: 5.6, 0.9: -1.2, 0.95: -2},
    (20, 0.0): {0.1: 463, 0.9: 67, 0.99: 5.8},
    (20, 0.9): {0.5: 116, 0.9: 31, 0.99: -0.45},
}
"""Where an earlier simulation ended after 2·10⁴ epochs, by (n, β1) and β2."""


def _farthest() -> float:
    return max((end(5, 0.9, b2) for b2 in (0.1, 0.5, 0.8, 0.9, 0.99)), key=lambda x: abs(x + 2))


def _growing() -> str:
    wrong = [sum(end(n, b1, b2) > 1 for b1 in (0.0, 0.5, 0.9) for b2 in (0.1, 0.5, 0.9, 0.99)) for n in (5, 10, 20)]
    return "grows" if wrong[0] < wrong[1] < wrong[2] else f"{wrong}"


CLAIMS: tuple[Claim, ...] = (
    *(
        Claim(
            f"n = {n}, β = ({b1:g}, {b2:g}): x after 2·10⁴ epochs",
            PAPER,
            "simulated",
            x,
            max(0.1 * abs(x), 0.5),
            partial(end, n, b1, b2),
            "An earlier simulation with other draws; a tenth, or half a unit where the drift is almost zero.",
        )
        for (n, b1), ends in ENDS.items()
        for b2, x in ends.items()
    ),
    Claim(
        "n = 5, β1 = 0.9: −2 for every β2, the farthest",
        PAPER,
        "simulated",
        -2,
        0.05,
        _farthest,
        "α_T·√n steps of 7e-4 around the minimum.",
    ),
    Claim(
        "the region of divergence grows with n",
        PAPER,
        "paper",
        "grows",
        0,
        _growing,
        "Counted on a grid of twelve (β1, β2).",
    ),
    Claim(
        "n = 10: verdict on β = (0, 0.5)",
        PAPER,
        "paper",
        "biased",
        0,
        lambda: verdict(run(10, 0.0, 0.5)),
        "Small β2 climbs.",
    ),
    Claim(
        "n = 10: verdict on β = (0, 0.99)",
        PAPER,
        "derived",
        "uncertified",
        0,
        lambda: verdict(run(10, 0.0, 0.99)),
        "At a constant β2 the stepsizes rise and fall with every epoch; no harm comes of it.",
    ),
)
"""Numbers of the heat maps, and what they say."""
