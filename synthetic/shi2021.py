"""Ten quadratics after Shi, Li, Hong and Sun (ICLR 2021): RMSprop converges when β2 is close enough to one.

One function bends up, nine bend down a tenth as much, reshuffled each epoch; the learning rate is 0.1/√k in epoch k.
With a = 0 all are stationary at the minimum; with a ≠ 0 gradients stay there, and so does a bias at finite k.

Derived here: Adam does not see the scale of gradients, so for a = 0 and x far from 0 it drifts as on constant gradients
10 and −1, at a speed that `reshuffled.py` has exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import sympy

from ..diagnostics.trace import Trace
from .arrivals import Shuffled
from .claims import SEEDS, Claim, Estimate, Row, again, half_unit, mean, rows, verdict
from .engine import simulate
from .problem import Problem
from .reshuffled import reshuffled_drift

x = sympy.Symbol("x", real=True)
EPOCHS = 20_000
RATE = "0.1/sqrt(ceiling(t/10))"


def ten_quadratics(a: float = 0) -> Problem:
    """Return (x−a)² and nine times −(x − 10a/9)²/10; their sum is x²/10 − a²/9, so x* = 0 for every a."""
    exact = sympy.nsimplify(a, rational=True)
    gentle = -((x - 10 * exact / 9) ** 2) / 10
    return Problem([(x - exact) ** 2] + [gentle] * 9, Shuffled(), start=1, name=f"Shi, a = {a:g}")


@cache
def run(a: float, beta1: float, beta2: float) -> Trace:
    """Return the record of Adam (no bias correction, no eps) on sixteen seeds, a thousand records."""
    return simulate(ten_quadratics(a), "adam_plain", 10 * EPOCHS, RATE, (beta1, beta2), SEEDS, records=1000)


def ends(a: float, beta1: float, beta2: float) -> Callable[[], Estimate]:
    """Return an experiment: the last iterate, its size for a = 0, to be compared with an earlier one of a seed."""

    def observe() -> Estimate:
        x = run(a, beta1, beta2).x[:, 0]
        return again(x if a else np.abs(x), 1)

    return observe


def late_drift(beta1: float, beta2: float) -> Estimate:
    """Return the mean step over α of a = 0 from the tenth part of the epochs to the end, |x| falling where positive."""
    trace = run(0, beta1, beta2)
    assert trace.path is not None
    far = np.abs(trace.path[:, :, 0])
    row = int(np.searchsorted(trace.steps, EPOCHS))
    spent = float(np.sum(np.arange(trace.steps[row] // 10 + 1.0, EPOCHS + 1) ** -0.5))
    return mean((far[row] - far[-1]) / spent)


def farthest(beta1: float, beta2: float) -> float:
    """Return the largest |x| among the last iterates of all seeds, a = 0."""
    return float(np.abs(run(0, beta1, beta2).x).max())


BEND = 1 / (2 * (EPOCHS / 10))
"""By how much the drift may differ from that of constant gradients.

In epoch k gradients grow by 10 α|drift|/x of themselves, which is 1/(2k) as x = 10·0.1·2√k·|drift|; k ≥ 2000 here. The
mean of m/√v, at most 1 in size, answers with no more than that.
"""

PAPER = "Shi, Li, Hong, Sun, ICLR 2021"
DRIFT = (
    "Exact for constant gradients 10, −1 reshuffled; they grow with x by 1/(2k) in epoch k, at most 1/4000. Else draws."
)
EARLIER = "An earlier seed, half a unit of its digits; the error counts its spread as well."
ARRIVES = "All gradients vanish at 0 and are multiples of x there, |m|/√v ≤ 10: an epoch carries x by at most 100 α_T."
RUNAWAY = "x runs away like √t and so does √v: e ~ α_t/√v falls like 1/t, and its sum is a logarithm."


def drift_rows() -> tuple[Row, ...]:
    """Return the rows; those with exact drifts compute them."""
    return (
        *(
            (
                f"a = 0, β = ({b1:g}, {b2:g}): drift",
                "derived",
                reshuffled_drift(10, -1, 10, b1, b2),
                BEND,
                lambda b1=b1, b2=b2: late_drift(b1, b2),
                DRIFT,
            )
            for b1, b2 in ((0.0, 0.1), (0.0, 0.5), (0.0, 0.9), (0.9, 0.8))
        ),
        *(
            (
                f"a = {a}, β = ({b1:g}, {b2:g}): {'x' if a else '|x|'} after 2·10⁴ epochs",
                "simulated",
                float(at),
                half_unit(at),
                ends(a, b1, b2),
                EARLIER,
            )
            for a, b1, b2, at in (
                (0, 0.0, 0.1, "197"),
                (0, 0.0, 0.5, "123"),
                (0, 0.0, 0.9, "15.5"),
                (0, 0.0, 0.95, "4.7"),
                (0, 0.9, 0.8, "5.5"),
                (3, 0.9, 0.99, "-0.2"),
            )
        ),
        *(
            (
                f"a = 0, β = ({b1:g}, {b2:g}): the seed farthest from 0",
                "derived",
                (0.0, 100 * 0.1 / EPOCHS**0.5),
                0,
                lambda b1=b1, b2=b2: farthest(b1, b2),
                ARRIVES,
            )
            for b1, b2 in ((0.0, 0.99), (0.9, 0.9), (0.9, 0.99))
        ),
        ("a = 0: verdict on β = (0, 0.5)", "derived", "stalled", 0, lambda: verdict(run(0, 0.0, 0.5)), RUNAWAY),
    )


def stated() -> tuple[Claim, ...]:
    """Return the claims: how fast it runs away, where it ends, and what that says."""
    return rows(PAPER, "", drift_rows())
