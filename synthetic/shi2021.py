"""Ten quadratics after Shi, Li, Hong and Sun (ICLR 2021): RMSprop converges when β2 is close enough to one.

One function bends up, nine bend down a tenth as much, reshuffled each epoch; the learning rate is 0.1/√k in epoch k.
With a = 0 all are stationary at the minimum; with a ≠ 0 gradients stay there, and so does a bias at finite k.
"""

from __future__ import annotations

from functools import cache, partial

import sympy

from ..diagnostics.trace import Trace
from .arrivals import Shuffled
from .claims import Claim, final, verdict
from .engine import simulate
from .problem import Problem

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
    """Return the record of Adam (no bias correction, no eps) on three seeds."""
    return simulate(ten_quadratics(a), "adam_plain", 10 * EPOCHS, RATE, (beta1, beta2), 3)


def end(a: float, beta1: float, beta2: float) -> float:
    """Return the median last iterate."""
    return final(run(a, beta1, beta2))


def spans(a: float, beta1: float, beta2: float, x: float) -> str:
    """Return "yes" if x lies among the last iterates of sixteen seeds.

    Without bias correction the first epoch's stepsizes hang on when the steep function first arrives, and where the
    drift is almost zero 2·10⁴ epochs do not make up for it: the seeds spread over a factor of two.
    """
    ends = simulate(ten_quadratics(a), "adam_plain", 10 * EPOCHS, RATE, (beta1, beta2), 16, records=16).x[:, 0]
    return "yes" if ends.min() <= x <= ends.max() else f"[{ends.min():.3g}, {ends.max():.3g}]"


def away(a: float, beta1: float, beta2: float) -> float:
    """Return the distance of the median last iterate from x* = 0."""
    return abs(end(a, beta1, beta2))


PAPER = "Shi, Li, Hong, Sun, ICLR 2021"
AGAIN = "An earlier simulation with other draws; a tenth."

CLAIMS: tuple[Claim, ...] = (
    *(
        Claim(
            f"a = 0, β = ({b1:g}, {b2:g}): |x| after 2·10⁴ epochs",
            PAPER,
            "simulated",
            at,
            0.1 * at,
            partial(away, 0, b1, b2),
            AGAIN,
        )
        for b1, b2, at in ((0.0, 0.1, 197), (0.0, 0.5, 123), (0.0, 0.9, 15.5), (0.9, 0.8, 5.5))
    ),
    *(
        Claim(
            f"a = 0, β = ({b1:g}, {b2:g}): RMSprop and Adam arrive",
            PAPER,
            "simulated",
            (0, 0.01),
            0,
            partial(away, 0, b1, b2),
            "All gradients vanish at 0; 8e-4, 1e-3 and 1e-7 earlier, of steps of 7e-4.",
        )
        for b1, b2 in ((0.0, 0.99), (0.9, 0.9), (0.9, 0.99))
    ),
    *(
        Claim(
            f"a = {a}, β = ({b1:g}, {b2:g}): {at} lies among the ends of sixteen seeds",
            PAPER,
            "simulated",
            "yes",
            0,
            partial(spans, a, b1, b2, at),
            "An earlier run with one seed; a further draw falls outside of sixteen twice in seventeen times.",
        )
        for a, b1, b2, at in ((0, 0.0, 0.95, 4.7), (3, 0.0, 0.99, -1.6), (3, 0.9, 0.99, -0.2))
    ),
    Claim(
        "a = 0: verdict on β = (0, 0.5)",
        PAPER,
        "derived",
        "stalled",
        0,
        lambda: verdict(run(0, 0.0, 0.5)),
        "x runs away like √t and so does √v: e ~ α_t/√v falls like 1/t, and its sum is a logarithm.",
    ),
)
"""Last iterates, and what they say."""
