"""The suite's problems: a case is a problem, a law for the learning rate, and what theory says of it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache

import numpy as np
import sympy
from numpy.typing import NDArray

from .arrivals import Cyclic, Random, Shuffled
from .frozen import RESOLVED, frozen_drift
from .noise import Gaussian
from .problem import Problem

Array = NDArray[np.float64]


class Outcome(StrEnum):
    """How an optimizer ends on a problem."""

    SOLVED = "solved"
    """Nearer to the optimum than the case's tolerance."""
    SHORT = "short"
    """Neither solved nor wrong."""
    WRONG = "wrong"
    """Farther from the optimum than at the start, more seeds than chance explains, and not on the way back."""
    BROKEN = "broken"
    """The optimizer raised, or left a parameter that is not finite."""


class Nature(StrEnum):
    """What decides how a method with constant decay rates ends on a problem."""

    DRIFT = "drift"
    """The sign of its mean step at a frozen point: the stepsizes correlate with the gradients."""
    CYCLE = "cycle"
    """The learning rate does not fall: Adam ends in a limit cycle."""
    TAME = "tame"
    """Nothing: Adam converges."""


@dataclass(frozen=True)
class Case:
    """A problem of the suite.

    `rate` maps steps t = 1, 2, … to α_t for a method whose steps are of the size of α; `tolerance` maps (α_T, ‖x_1 −
    x*‖) to the distance below which the problem counts as solved. `build` makes the problem when it is first asked
    for.
    """

    name: str
    source: str
    build: Callable[[], Problem]
    rate: Callable[[Array], Array]
    law: str
    """The formula of `rate`, for people."""
    tolerance: Callable[[float, float], float]
    nature: Nature
    why: str
    """What theory says, and why the tolerance is what it is."""
    probe: float | None = None
    """Where the drift is judged; None: at the start."""

    @cached_property
    def problem(self) -> Problem:
        """The problem itself."""
        return self.build()

    @property
    def random(self) -> bool:
        """Whether seeds differ."""
        return not isinstance(self.problem.arrival, Cyclic) or self.problem.noise is not None

    @property
    def optimum(self) -> Array:
        """The optimum, `(dim,)`.

        Raises:
            ValueError: if the problem has none.
        """
        if self.problem.optimum is None:
            raise ValueError(f"the problem of case {self.name!r} must have an optimum; give it a box, say.")
        return np.asarray(self.problem.optimum, dtype=np.float64)

    @property
    def away(self) -> float:
        """Distance of the start from the optimum."""
        return float(np.linalg.norm(self.problem.start - self.optimum))

    def generators(self, seed: int) -> tuple[np.random.Generator, np.random.Generator]:
        """Return generators of arrivals and of noise: the same whatever else is in the suite."""
        key = zlib.crc32(self.name.encode())
        arrivals, noise = (np.random.default_rng([seed, key, which]) for which in (0, 1))
        return arrivals, noise

    def drifts(self, method: str, hyper: Mapping[str, float]) -> Outcome | None:
        """Return where the drift takes a method of `METHODS` for T → ∞; None where it is not resolved, or not asked."""
        return None if self.nature is not Nature.DRIFT else _drifts(self, method, tuple(sorted(hyper.items())))


@lru_cache(maxsize=256)
def _drifts(case: Case, method: str, hyper: tuple[tuple[str, float], ...]) -> Outcome | None:
    x = float(case.problem.start[0]) if case.probe is None else case.probe
    mean, error = frozen_drift(case.problem, x, method, dict(hyper))
    if abs(mean) <= RESOLVED * error:
        return None
    return Outcome.SOLVED if mean * (x - case.optimum[0]) > 0 else Outcome.WRONG


def inverse_root(alpha: float, period: int = 1) -> Callable[[Array], Array]:
    """Return the law α/√k, where k counts epochs of `period` steps."""
    return lambda t: alpha / np.sqrt(np.ceil(t / period))


def constant(alpha: float) -> Callable[[Array], Array]:
    """Return the law that stays at α."""
    return lambda t: np.full(len(t), alpha)


def half_way(_: float, away: float) -> float:
    """Return half of the distance at the start."""
    return 0.5 * away


def tenth(_: float, away: float) -> float:
    """Return a tenth of the distance at the start."""
    return 0.1 * away


x, y = sympy.symbols("x y", real=True)
BOX = (-1, 1)


def bend(inner: sympy.Expr, outer: sympy.Expr, where: sympy.Basic) -> sympy.Expr:
    """Return `inner` where the condition holds, else `outer`."""
    return sympy.Piecewise((inner, where), (outer, True))


def chen_figure_2() -> Problem:
    """Return eleven components, one steep and ten against it, each quadratic near 0 and linear beyond."""
    half, near = sympy.Rational(1, 2), abs(x) <= 1
    steep = bend(11 * half * x**2, 11 * abs(x) - 11 * half, near)
    return Problem([steep] + [bend(-half * x**2, -abs(x) + half, near)] * 10, Random(), start=2)


def zhang(n: int) -> Problem:
    """Return Zhang's finite sum: linear to the right of −1, to its left quadratics that share the minimum −2."""
    right, half = x >= -1, sympy.Rational(1, 2)
    first = bend(n * x, n * half * (x + 2) ** 2 - 3 * n * half, right)
    return Problem([first] + [bend(-x, -half * (x + 2) ** 2 + 3 * half, right)] * (n - 1), Shuffled(), start=1)


def shi() -> Problem:
    """Return Shi's ten quadratics with a = 0: one bends up, nine bend down a tenth as much."""
    return Problem([x**2] + [-(x**2) / 10] * 9, Shuffled(), start=1)


def adopt(k: int) -> Problem:
    """Return kx once in k draws, −x otherwise, on [−1, 1]."""
    return Problem([k * x, -x], Random((1 / k, 1 - 1 / k)), domain=BOX, start=0)


def savarese() -> Problem:
    """Return 999x²/2 twice in a thousand draws, −x otherwise, on [0, 1]; the optimum lies at 0.4995."""
    return Problem([sympy.Rational(999, 2) * x**2, -x], Random((0.002, 0.998)), domain=(0, 1), start=0.25)


def sparse() -> Problem:
    """Return five coordinates with one quadratic each, seen in 1 of 2, 4, 8, 16, 16 draws."""
    z = sympy.symbols("z1:6", real=True)
    shares = (0.5, 0.25, 0.125, 0.0625, 0.0625)
    return Problem([(v - 1) ** 2 / 2 for v in z], Random(shares), variables=z, start=0)


def two_variables() -> Problem:
    """Return a quadratic with condition number 10 whose axes are not the coordinates'."""
    return Problem([((x + y) ** 2 + 10 * (x - y) ** 2) / 4], Cyclic((0,)), variables=(x, y), start=(1, 2))


PROBLEMS: tuple[Case, ...] = (
    Case(
        "reddi theorem 1",
        "Reddi, Kale, Kumar 2018, theorem 1, C = 3",
        lambda: Problem([3 * x, -x], Cyclic((0, 1, 1)), domain=BOX, start=0),
        inverse_root(0.5),
        "0.5/√t",
        half_way,
        Nature.DRIFT,
        "Adam ends at the far end of the box where β2 is below the root of its drift over a period.",
    ),
    Case(
        "reddi online",
        "Reddi, Kale, Kumar 2018, section 5",
        lambda: Problem([1010 * x, -10 * x], Cyclic((0,) + (1,) * 100), domain=BOX, start=0),
        inverse_root(3.5),
        "3.5/√t",
        half_way,
        Nature.DRIFT,
        "As theorem 1; α is √50 times theirs, so that 10⁵ steps go as far as their 5·10⁶.",
    ),
    Case(
        "reddi stochastic",
        "Reddi, Kale, Kumar 2018, section 5",
        lambda: Problem([1010 * x, -10 * x], Random((0.01, 0.99)), domain=BOX, start=0),
        inverse_root(3.5),
        "3.5/√t",
        half_way,
        Nature.DRIFT,
        "As the online game, with chance: an unbiased method still feels each rare gradient.",
    ),
    Case(
        "chen figure 1",
        "Chen, Liu, Sun, Hong 2019, figure 1",
        lambda: Problem([bend(100 * x**2, 2000 * abs(x) - 10000, abs(x) <= 10)], Cyclic((0,)), start=1),
        constant(0.01),
        "0.01",
        lambda alpha, _: 1e-3 * alpha,
        Nature.CYCLE,
        "With a constant α Adam cycles at a distance of the order of α; a method that converges gets below any share.",
    ),
    Case(
        "chen figure 2",
        "Chen, Liu, Sun, Hong 2019, figure 2",
        chen_figure_2,
        inverse_root(1.0),
        "1/√t",
        lambda _alpha, _away: 0.5,
        Nature.DRIFT,
        "On the linear part Adam drifts outward below β2 = 0.982; solved is well inside the quadratic part |x| ≤ 1.",
    ),
    Case(
        "adopt k=10",
        "Taniguchi et al. 2024 (ADOPT), toy problem",
        lambda: adopt(10),
        lambda t: 0.01 / np.sqrt(1 + 0.01 * t),
        "0.01/√(1 + 0.01 t)",
        half_way,
        Nature.DRIFT,
        "Adam without momentum ends at the far end below β2 = 0.978.",
    ),
    Case(
        "adopt k=50",
        "Taniguchi et al. 2024 (ADOPT), toy problem",
        lambda: adopt(50),
        lambda t: 0.1 / np.sqrt(1 + 0.01 * t),
        "0.1/√(1 + 0.01 t)",
        half_way,
        Nature.DRIFT,
        "As k = 10, with the root at 0.9993; α is ten times theirs, the mean gradient being a fiftieth of a step.",
    ),
    Case(
        "zhang n=10",
        "Zhang et al. 2022, the divergence example",
        lambda: zhang(10),
        inverse_root(0.1, 10),
        "0.1/√epoch",
        tenth,
        Nature.DRIFT,
        "All components share the minimum, so that whoever goes the right way arrives.",
    ),
    Case(
        "shi a=0",
        "Shi et al. 2021, the realizable example",
        shi,
        inverse_root(0.1, 10),
        "0.1/√epoch",
        tenth,
        Nature.DRIFT,
        "RMSprop converges for β2 near enough to 1; all components are stationary at the optimum.",
    ),
    Case(
        "savarese",
        "Savarese et al. 2021 (AvaGrad), stochastic example",
        savarese,
        inverse_root(0.1),
        "0.1/√t",
        half_way,
        Nature.DRIFT,
        "Adam passes the optimum 0.4995 and goes on to 1, unless β2 is far above 0.99.",
        probe=0.75,
    ),
    Case(
        "noisy quadratic",
        "the noise ball of x²/2",
        lambda: Problem([x**2 / 2], Cyclic((0,)), start=1, noise=Gaussian(1.0)),
        inverse_root(0.1),
        "0.1/√t",
        lambda alpha, _: 3 * math.sqrt(alpha / 2),
        Nature.TAME,
        "Steps αg leave a variance of α/2; solved is three standard deviations.",
    ),
    Case(
        "quadratic in two variables",
        "deterministic, condition number 10",
        two_variables,
        inverse_root(0.5),
        "0.5/√t",
        lambda alpha, _: 10 * alpha,
        Nature.TAME,
        "Steps of the size of α overshoot by that much; solved is ten of them.",
    ),
    Case(
        "sparse gradients",
        "five coordinates, seen once in 2 to 16 draws",
        sparse,
        inverse_root(0.5),
        "0.5/√t",
        tenth,
        Nature.TAME,
        "Every coordinate's gradients agree with each other, so that only a stepsize that dies keeps it away.",
    ),
)
"""Settings are after the papers; where α or the start differs, `why` or `law` says so."""
