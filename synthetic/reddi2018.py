"""The online games of Reddi, Kale and Kumar (ICLR 2018): a rare large gradient one way, many small ones the other.

The sum of gradients over a period is positive, so the best fixed point of the interval is its left end. Adam divides
the rare gradient by the root that this very gradient has just raised, and walks to the right end.

Steps are projected onto the box by clipping, the learning rate is 0.5/√t, and Adam is without bias correction and eps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import sympy
import torch
from numpy.typing import NDArray

from ..diagnostics.trace import Trace
from .arrivals import Cyclic, Random
from .claims import Claim, final, half_unit
from .engine import simulate
from .periodic import critical_beta2, cyclic_gradients, periodic_average, periodic_drift
from .problem import Problem
from .stationary import (
    iid_gradients,
    skewness_critical_beta2,
    stationary_critical_beta2,
    stationary_drift,
)

Array = NDArray[np.float64]
MakeOptimizer = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class OnlineGame:
    """f_t(x) = rare·x if t mod period = 1, else common·x, on [-1, 1]; the optimum is -1 while the sum is positive."""

    rare: float
    common: float
    period: int

    def gradient(self, t: int) -> float:
        """Return f_t'(x), the same for every x."""
        return self.rare if t % self.period == 1 else self.common

    def play(
        self, x: torch.nn.Parameter, optimizer: torch.optim.Optimizer, steps: int, alpha: float = 0.5
    ) -> Iterator[int]:
        """Take `steps` steps from x with learning rate alpha/√t and projection onto [-1, 1]; yield each t."""
        gradients = {g: torch.full_like(x, g) for g in (self.rare, self.common)}
        for t in range(1, steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = alpha / math.sqrt(t)
            x.grad = gradients[self.gradient(t)].clone()
            optimizer.step()
            with torch.no_grad():
                x.clamp_(-1.0, 1.0)
            yield t


ONLINE = OnlineGame(rare=1010.0, common=-10.0, period=101)
"""The synthetic experiment of their section 5, here with β = (0.9, 0.99) and α_t = 0.5/√t."""

THEOREM1 = OnlineGame(rare=3.0, common=-1.0, period=3)
"""After their Theorem 1, with C = 3: β1 = 0 and β2 = 1/(1 + C²) = 0.1 send Adam to +1."""

x = sympy.Symbol("x", real=True)
BOX = (-1, 1)
RATE = "0.5/sqrt(t)"


def online() -> Problem:
    """Return 1010x once in 101 steps and −10x otherwise, in that order, on [−1, 1]."""
    return Problem([1010 * x, -10 * x], Cyclic((0,) + (1,) * 100), domain=BOX, start=0, name="Reddi, online")


def stochastic() -> Problem:
    """Return 1010x with probability 0.01 and −10x otherwise, on [−1, 1]."""
    return Problem([1010 * x, -10 * x], Random((0.01, 0.99)), domain=BOX, start=0, name="Reddi, stochastic")


def theorem1(C: float = 3) -> Problem:
    """Return Cx when t mod 3 = 1 and −x otherwise, on [−1, 1]; for C > 2 the optimum is −1."""
    if not C > 2:
        raise ValueError(f"`C` must be above 2, or the optimum is not at -1, got {C}.")
    return Problem([C * x, -x], Cyclic((0, 1, 1)), domain=BOX, start=0, name=f"Reddi, theorem 1, C = {C:g}")


def theorem2(C: int = 204) -> Problem:
    """Return Cx when t mod C = 1 and −x otherwise, C even, on [−1, 1]; the gradients of a period sum to 1."""
    if C % 2 or C < 2:
        raise ValueError(f"`C` must be even and at least 2, got {C}.")
    return Problem([C * x, -x], Cyclic((0,) + (1,) * (C - 1)), domain=BOX, start=0, name=f"Reddi, theorem 2, C = {C}")


def theorem3(C: float = 100, delta: float = 1) -> Problem:
    """Return Cx with probability (1 + δ)/(C + 1) and −x otherwise, on [−1, 1]; the mean is δx."""
    if not 0 < delta < C:
        raise ValueError(f"`delta` must lie in (0, C), got {delta} with C = {C}.")
    p = (1 + delta) / (C + 1)
    return Problem([C * x, -x], Random((p, 1 - p)), domain=BOX, start=0, name=f"Reddi, theorem 3, C = {C:g}")


BUILDERS: dict[str, Callable[[], Problem]] = {"online": online, "stochastic": stochastic, "theorem 1": theorem1}


@cache
def run(problem: str, method: str, steps: int, betas: tuple[float, float] | None = None, seeds: int = 1) -> Trace:
    """Return the record of one setting, kept for all claims about it."""
    options: dict[str, Any] = {"beta1": 0.0} if method == "adafom" else {}
    return simulate(BUILDERS[problem](), method, steps, RATE, betas, seeds, **options)


def period(problem: Problem) -> Array:
    """Return the gradients of one period, `(d,)`."""
    return cyclic_gradients(problem)[:, 0]


def drift_root(problem: Problem, beta1: float = 0.0) -> float:
    """Return the β2 below which Adam goes the wrong way, NaN if it never does: exact, by root finding."""
    root = critical_beta2(period(problem), beta1)
    return math.nan if root is None else root


def simulated_root(problem: Problem, steps: int = 1_000_000) -> float:
    """Return the β2 at which Adam's end changes sides, by halving an interval fourteen times; β1 = 0."""
    wrong, right = 0.001, 0.999
    for _ in range(14):
        middle = 0.5 * (wrong + right)
        end = final(simulate(problem, "adam_plain", steps, RATE, (0.0, middle), records=16))
        wrong, right = (middle, right) if end > 0 else (wrong, middle)
    return 0.5 * (wrong + right)


def law(problem: Problem) -> tuple[Array, Array]:
    """Return the probabilities and gradients, each `(n,)`, of a problem whose components are drawn."""
    p, g = iid_gradients(problem)
    return p, g[:, 0]


def chance_root(problem: Problem) -> float:
    """Return the exact β2 below which Adam (β1 = 0) drifts the wrong way on independent draws, NaN if none."""
    root = stationary_critical_beta2(*law(problem))
    return math.nan if root is None else root


def skew_root(problem: Problem) -> float:
    """Return the same by the formula from three moments."""
    root = skewness_critical_beta2(*law(problem))
    return math.nan if root is None else root


def first_wrong(betas: tuple[float, float], most: int = 400) -> float:
    """Return the least even C from which on, up to `most`, theorem 2's sequence has its drift the wrong way."""
    sizes = range(4, most + 1, 2)
    right = [C for C in sizes if periodic_drift(period(theorem2(C)), *betas) > 0]
    return max(right, default=2) + 2


def signs(beta2: float, sizes: Sequence[int], delta: float = 1.0) -> str:
    """Return the sign of Adam's exact mean step (β1 = 0) on theorem 3's problem for each C: + is right."""
    drifts = (stationary_drift(*law(theorem3(C, delta)), 0.0, beta2) for C in sizes)
    return "".join("+" if drift > 0 else "-" for drift in drifts)


def periodic_oscillation(gradients: Array, beta2: float) -> float:
    """Return c/a of Adam once v repeats, at a constant learning rate."""
    e = 1 / np.sqrt(periodic_average(gradients**2, 1 - beta2))
    return float(np.abs(e - np.roll(e, 1)).sum() / e.sum())


def share_rising(trace: Trace) -> float:
    """Return the share of steps with e_t > e_{t−1}, that is Γ_t < 0."""
    return float(trace.total("rising")[-1] / trace.total("compared")[-1])


PAPER = "Reddi, Kale, Kumar, ICLR 2018"
DIGITS = "The exact drift over a period has one sign change; the tolerance is half a unit of the printed digits."
ENDS = "Projected steps of size α_T = 0.5/√T leave the end of the box by a period's worth of them at most."


def _exact(name: str, where: str, printed: str, observe: Callable[[], float], why: str) -> Claim:
    # 1.001: a value halfway between two printed digits may be rounded either way
    return Claim(name, f"{PAPER}, {where}", "derived", float(printed), 1.001 * half_unit(printed), observe, why)


def _word(name: str, where: str, word: str, observe: Callable[[], str], why: str) -> Claim:
    return Claim(name, f"{PAPER}, {where}", "derived", word, 0.0, observe, why)


def _roots() -> list[Claim]:
    rows = [
        _exact(f"online game: critical β2 at β1 = {b1:g}", "section 5", root, partial(_online_root, b1), DIGITS)
        for b1, root in ((0.0, "0.999603"), (0.5, "0.999595"), (0.9, "0.999516"), (0.99, "0.997640"))
    ]
    sizes = ((3, "0.4723"), (5, "0.2368"), (10, "0.0984"), (20, "0.0414"), (50, "0.0133"), (100, "0.0057"))
    rows += [
        _exact(f"theorem 1, C = {C}: critical β2 at β1 = 0", "theorem 1", root, partial(_theorem1_root, C), DIGITS)
        for C, root in sizes
    ]
    why = "x_T = x_1 − D Σα/3 up to the start-up, at most 2 in x; divided by Σα/3 = 333 and the slope of D in β2."
    rows += [
        Claim(
            f"theorem 1, C = {C}: the β2 at which simulated Adam changes sides",
            f"{PAPER}, theorem 1",
            "derived",
            root,
            2.0 / 333.0 / slope,
            partial(_theorem1_simulated, C),
            why,
        )
        for C, root, slope in ((3, 0.4723, 1.3), (5, 0.2368, 2.2), (10, 0.0984, 4.5))
    ]
    return rows


def _online_root(beta1: float) -> float:
    return drift_root(online(), beta1)


def _theorem1_root(size: float) -> float:
    return drift_root(theorem1(size))


def _theorem1_simulated(size: float) -> float:
    return simulated_root(theorem1(size))
