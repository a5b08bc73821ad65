"""The worlds of the battery: published counterexamples and random families, with what theory says of their gradients.

A world is a problem, its learning rates and the facts that decide what a method's run on it must come to; `verdicts.py`
draws the conclusions. Random problems are drawn once, from the generators named here, so that a row names one problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import sympy
from numpy.typing import NDArray

from stepscope.synthetic import cases
from stepscope.synthetic.arrivals import Cyclic, Random
from stepscope.synthetic.noise import Gaussian, HeavyTailed
from stepscope.synthetic.problem import Problem
from stepscope.synthetic.reddi2018 import online, stochastic, theorem1

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cycle:
    """Gradients of one coordinate that come round and round, from a random place of the cycle on."""

    period: tuple[float, ...]

    def stream(self, dim: int, rng: np.random.Generator) -> Callable[[int], Array]:
        """Return a function that gives what the next k steps add to a mean gradient of 1, `(k, dim)`."""
        place = int(rng.integers(len(self.period)))
        values = np.array(self.period) - 1.0

        def take(k: int) -> Array:
            nonlocal place
            index = (place + np.arange(k)) % len(values)
            place = (place + k) % len(values)
            return np.repeat(values[index][:, None], dim, axis=1)

        return take


@dataclass(frozen=True)
class Law:
    """Gradients that are drawn again and again from finitely many values."""

    probabilities: tuple[float, ...]
    values: tuple[float, ...]

    def stream(self, dim: int, rng: np.random.Generator) -> Callable[[int], Array]:
        """Return a function that gives what the next k steps add to a mean gradient of 1, `(k, dim)`."""
        edges, values = np.cumsum(self.probabilities)[:-1], np.array(self.values) - 1.0
        return lambda k: values[np.searchsorted(edges, rng.random((k, dim)), side="right")]


@dataclass(frozen=True)
class World:
    """A problem, its learning rates and what decides about it."""

    build: Callable[[], Problem]
    root: float
    """α of α/√t."""
    flat: float
    """α of the constant and the cosine."""
    noise: str
    """none (exact), vanishing (0 at the optimum whatever arrives), bounded, unbounded, or heavy: finite variance only.

    proportional: the gradient is a random multiple of the distance, so that nothing about stepsizes settles by itself.
    """
    sgd: float = 1.0
    """What SGD's α is multiplied by."""
    linear: bool = False
    """Whether gradients do not depend on x, so that the drift is known in closed form."""
    core: float = math.inf
    """Distance from the optimum beyond which components are linear: a run out there has the noise of a linear game."""
    gradients: Cycle | Law | None = field(default=None)
    """All gradients of a linear world, where they are no components of the problem."""
    tail: float = math.inf
    """Tail index of heavy noise."""


# --- published ------------------------------------------------------------------------------------------------


def chen_figure_1() -> Problem:
    x = sympy.Symbol("x", real=True)
    return Problem([cases.bend(100 * x**2, 2000 * abs(x) - 10000, abs(x) <= 10)], Cyclic((0,)), start=1)


def quadratic() -> Problem:
    return Problem(["x**2/2"], Cyclic((0,)), start=1)


def noisy_quadratic() -> Problem:
    return Problem(["x**2/2"], Cyclic((0,)), start=1, noise=Gaussian(1.0))


def mirrored() -> Problem:
    """Return −1010x with probability 0.01 and 10.4x otherwise: Adam's drift is right and far faster than the mean."""
    x = sympy.Symbol("x")
    return Problem([-1010 * x, sympy.Rational(52, 5) * x], Random((0.01, 0.99)), domain=(-1, 1), start=0)


def skewed_plane() -> Problem:
    """Return a tilted quadratic in two variables whose gradient noise is 9 times a vector once in ten, else −1."""
    x, y = sympy.symbols("x y", real=True)
    bowl, tilt = ((x + y) ** 2 + 10 * (x - y) ** 2) / 4, 2 * x + y
    arrival = Random((0.1, 0.9))
    return Problem([bowl + 9 * tilt, bowl - tilt], arrival, variables=(x, y), domain=(-3, 3), start=(1, 2))


WORLDS = {
    "theorem 1": World(theorem1, 0.5, 0.01, "bounded", linear=True),
    "online": World(online, 0.5, 0.01, "bounded", linear=True),
    "stochastic": World(stochastic, 0.5, 0.01, "bounded", linear=True),
    "mirrored": World(mirrored, 0.5, 0.01, "bounded", linear=True),
    "adopt k=10": World(partial(cases.adopt, 10), 0.1, 0.01, "bounded", linear=True),
    "adopt k=50": World(partial(cases.adopt, 50), 0.1, 0.01, "bounded", linear=True),
    "figure 2": World(cases.chen_figure_2, 1.0, 0.1, "vanishing", core=1.0),
    "figure 1": World(chen_figure_1, 0.1, 0.01, "none", sgd=0.05),
    "zhang n=10": World(partial(cases.zhang, 10), 0.1, 0.01, "vanishing", core=1.0),
    "shi a=0": World(cases.shi, 0.1, 0.01, "proportional"),
    "savarese": World(cases.savarese, 0.1, 0.01, "bounded", sgd=0.001),
    "quadratic": World(quadratic, 0.5, 0.01, "none"),
    "two variables": World(cases.two_variables, 0.5, 0.01, "none", sgd=0.1),
    "sparse": World(cases.sparse, 0.5, 0.01, "none"),
    "noisy quadratic": World(noisy_quadratic, 0.5, 0.01, "unbounded"),
    "skewed plane": World(skewed_plane, 0.1, 0.01, "bounded"),
}
"""Every row of the synthetic suite, and worlds that once were judged wrongly."""


# --- random families ------------------------------------------------------------------------------------------


def random_cycle(number: int) -> Cycle:
    """Return a cycle of 2 to 40 gradients with mean 1, one of which is rare and large, either way."""
    rng = np.random.default_rng([number, 1])
    d = int(rng.integers(2, 41))
    period = rng.normal(size=d)
    period[int(rng.integers(d))] += float(rng.choice([-1, 1])) * math.sqrt(d) * float(rng.uniform(1, 4))
    return Cycle(tuple(_with_mean_one(np.full(d, 1 / d), period, rng).tolist()))


def random_law(number: int) -> Law:
    """Return 2 to 4 gradients with mean 1, one of which comes once in 3 to 100 draws."""
    rng = np.random.default_rng([number, 2])
    n = int(rng.integers(2, 5))
    rare = float(np.exp(rng.uniform(math.log(0.01), math.log(0.33))))
    p = np.array([rare, *((1 - rare) * rng.dirichlet(np.full(n - 1, 3.0)))])
    values = rng.normal(size=n)
    values[0] += float(rng.choice([-1, 1])) * float(rng.uniform(1, 4)) / math.sqrt(rare)
    return Law(tuple(p.tolist()), tuple(_with_mean_one(p, values, rng).tolist()))


def _with_mean_one(p: Array, values: Array, rng: np.random.Generator) -> Array:
    """Return the values moved to mean 1 and stretched to a standard deviation between 2 and 30."""
    centred = values - p @ values
    return 1.0 + centred * float(np.exp(rng.uniform(math.log(2), math.log(30)))) / math.sqrt(p @ centred**2)


def linear_game(gradients: Cycle | Law) -> Problem:
    """Return x on [-1, 1], whose gradient is 1 in the mean and comes as the cycle or the law says."""
    return Problem(["x"], Cyclic((0,)), domain=(-1, 1), start=0, noise=gradients)


def random_sum(number: int) -> Problem:
    """Return 3 to 5 functions, quadratic near a centre of their own and linear beyond, some of them bending down."""
    rng = np.random.default_rng([number, 3])
    x = sympy.Symbol("x", real=True)
    n = int(rng.integers(3, 6))
    bends = rng.uniform(0.5, 4.0, n)
    bends[-1] = -0.3 * bends[:-1].sum() * float(rng.uniform(0, 1))
    components = []
    for bend, centre, width in zip(bends, rng.uniform(-1, 1, n), rng.uniform(1, 3, n), strict=True):
        a, c, w = (sympy.Rational(round(100 * float(value)), 100) for value in (bend, centre, width))
        components.append(cases.bend(a * (x - c) ** 2 / 2, a * w * abs(x - c) - a * w**2 / 2, abs(x - c) <= w))
    return Problem(components, Random(), start=2)


def noisy_bowl(noise: Gaussian | HeavyTailed, dim: int) -> Problem:
    """Return a quadratic in `dim` variables, curvatures 1, 1/2, 1/4 …, with noise of each coordinate's own."""
    z = sympy.symbols(f"z1:{dim + 1}", real=True)
    bowl = sum(sympy.Rational(1, 2 ** (i + 1)) * v**2 for i, v in enumerate(z))
    return Problem([bowl], Cyclic((0,)), variables=z, start=1, noise=noise)


def linear_world(gradients: Cycle | Law) -> World:
    return World(partial(linear_game, gradients), 0.1, 0.01, "bounded", sgd=0.1, linear=True, gradients=gradients)


FAMILIES = {
    **{f"cycle {i}": linear_world(random_cycle(i)) for i in range(6)},
    **{f"law {i}": linear_world(random_law(i)) for i in range(6)},
    **{f"sum {i}": World(partial(random_sum, i), 0.3, 0.02, "bounded", sgd=0.2) for i in range(4)},
    "gauss, 1 variable": World(partial(noisy_bowl, Gaussian(3.0), 1), 0.3, 0.02, "unbounded", sgd=0.2),
    "gauss, 4 variables": World(partial(noisy_bowl, Gaussian(0.3), 4), 0.3, 0.02, "unbounded"),
    "tail 3, 1 variable": World(partial(noisy_bowl, HeavyTailed(3.0), 1), 0.3, 0.02, "heavy", sgd=0.2, tail=3.0),
    "tail 4, 4 variables": World(partial(noisy_bowl, HeavyTailed(4.0), 4), 0.3, 0.02, "heavy", sgd=0.2, tail=4.0),
}
"""Random cycles and laws of linear games, random piecewise-quadratic sums, Gaussian and heavy-tailed noise."""
