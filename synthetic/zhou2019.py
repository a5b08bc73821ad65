"""AdaShift (Zhou et al., ICLR 2019, arXiv 1810.00143): divide by a second moment n steps older than the gradient.

Adam multiplies a large gradient by smaller steps than a small one, because it enters v at once: their net update factor
k(g_t) = Σ_{i≥t} (1−β1) β1^{i−t}/√v_i is smallest for the spike. AdaShift cuts that tie; the stepsizes still oscillate,
so the bias condition fails without harm: it is sufficient, not necessary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.trace import Trace
from .claims import Claim, final, flatness, rho, verdict
from .engine import simulate
from .periodic import periodic_average
from .reddi2018 import RATE, online, period, theorem1

Array = NDArray[np.float64]
STEPS = 5_000_000


def net_factors(gradients: Array, beta1: float, beta2: float) -> Array:
    """Return k for each gradient of a period, `(d,)`: the sum of the steps it takes part in, over α and itself."""
    inverse = 1 / np.sqrt(periodic_average(gradients**2, 1 - beta2))
    factors: Array = periodic_average(inverse[::-1], 1 - beta1)[::-1]
    return factors


@cache
def run(problem: str, n: int = 1, beta1: float = 0.0, beta2: float = 0.99) -> Trace:
    """Return the record of AdaShift on one of Reddi's games."""
    built = online() if problem == "online" else theorem1()
    return simulate(built, "adashift", STEPS, RATE, (beta1, beta2), n=n)


def _of(measure: Callable[[Trace], Any], *setting: Any) -> Any:
    return measure(run(*setting))


def _spike() -> float:
    return float(net_factors(period(online()), 0.9, 0.99)[0])


def _largest() -> float:
    return float(net_factors(period(online()), 0.9, 0.99).max())


def _old_root_rho() -> float:
    """Return ρ of AdaShift, n = 1, on the online game: each gradient over the root of the step before."""
    g = period(online())
    e = np.roll(1 / np.sqrt(periodic_average(g**2, 0.01)), 1)
    return float((e @ g) / (e.sum() * g.mean()))


PAPER = "Zhou et al., ICLR 2019"
HALF = "The periodic averages in closed form; half a unit of the printed digits."

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "online game: Adam's net factor of the spike, β = (0.9, 0.99)", PAPER, "derived", 8.25e-3, 5e-6, _spike, HALF
    ),
    Claim("online game: Adam's largest net factor", PAPER, "derived", 1.17e-2, 5e-5, _largest, HALF),
    Claim(
        "online game: AdaShift, n = 1, ends on the right side",
        PAPER,
        "simulated",
        -0.995,
        0.005,
        partial(_of, final, "online"),
        "An earlier simulation that ended at another phase of the period; 100 steps of 10e are 0.005.",
    ),
    Claim(
        "theorem 1: AdaShift, n = 1, ends at −1",
        PAPER,
        "derived",
        -1.0,
        0.002,
        partial(_of, final, "theorem 1", 1, 0.0, 0.1),
        "Three steps of 0.5/√T·3/√v at most.",
    ),
    Claim(
        "online game: AdaShift's c/a stays",
        PAPER,
        "simulated",
        0,
        0.01,
        partial(_of, partial(flatness, over="c"), "online"),
        "v repeats, whichever gradient it divides.",
    ),
    Claim(
        "online game: AdaShift's ρ is far above 1",
        PAPER,
        "derived",
        _old_root_rho(),
        0.3,
        partial(_of, rho, "online"),
        "Closed form with v one step older: the spike comes when v has forgotten it for longest; 1% for the falling α.",
    ),
    Claim(
        "online game: verdict on AdaShift",
        PAPER,
        "derived",
        "uncertified",
        0,
        partial(_of, verdict, "online"),
        "c/a stays, no harm.",
    ),
)
"""The net update factor, and AdaShift on the games that defeat Adam."""
