"""Where a method goes as α → 0: the mean of its steps with the iterate held at one point.

By averaging, −Σα_t times this mean is the path of the slow motion. The steps are those of the compiled rule itself
with α = 1, so that every method of one variable has a word on every problem, not Adam alone.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .arrivals import Cyclic
from .compiled import hash_of, module_of, text_of
from .methods import Method, method, parameters
from .problem import Problem

Array = NDArray[np.float64]

RESOLVED = 5.0
"""Standard errors that a mean must lie from zero: with 20 batches and a look at each doubling, 1 in 1000 by chance."""
BATCHES = 20
FEWEST, MOST = 10_000, 640_000
"""Steps to a batch: doubled from the one to the other until the mean is resolved."""
MEMORIES = 3.0
"""So long is a batch at least, in units of the longer memory, for its mean to know little of the one before."""
BURN_IN = 30.0
"""In the same units: e^-30 of the start is left."""
ROUNDING = 1e-9
"""Of the typical step; it stands for what the sums round."""


def walk(t, g, s, p):  # type: ignore[no-untyped-def]  # compiled around a rule
    """Take the steps t, t + 1, … with the gradients g, at α = 1; return Σ dx and Σ |dx|. Moves s on.

    It is text to be compiled around a method's `rule`; here nothing calls it.
    """
    e, dx, total, length = np.zeros(1), np.zeros(1), 0.0, 0.0
    for k in range(len(g)):
        update(t + k, 1.0, g[k : k + 1], s, p, e, dx)  # type: ignore[name-defined]  # noqa: F821
        total += dx[0]
        length += abs(dx[0])
    return total, length


@cache
def compiled(rule: Callable[..., None]) -> Callable[..., tuple[float, float]]:
    """Return `walk` around a rule; its machine code is kept for the next process."""
    lines = (
        "import numba",
        "import numpy as np",
        f"from {rule.__module__} import {rule.__name__} as rule",
        'update = numba.njit(error_model="numpy")(rule)',
        f"# the text of the rule is a part of this file's name: {hash_of(text_of(rule))}",
        '@numba.njit("UniTuple(float64, 2)(int64, float64[::1], float64[:, ::1], float64[::1])", cache=True)',
        inspect.getsource(walk),
    )
    found: Callable[..., tuple[float, float]] = module_of("\n".join(lines)).walk
    return found


def frozen_drift(
    problem: Problem, x: float, name: str, hyper: Mapping[str, float], seed: int = 0
) -> tuple[float, float]:
    """Return the mean of −dx/α with the iterate held at x, and its standard error from the means of batches.

    An unbiased method's has the sign of the mean gradient. Only in one variable. Batches are a whole number of periods,
    which makes the mean of a cyclic order exact to rounding; they are lengthened until the mean is `RESOLVED`, or are
    long enough.
    """
    frozen = _Frozen(problem, x, method(name), hyper, seed)
    size = frozen.whole(max(FEWEST, MEMORIES * frozen.memory))
    frozen.walk(frozen.whole(BURN_IN * frozen.burning))
    sums = np.array([frozen.walk(size) for _ in range(BATCHES)])
    while True:
        means, typical = -sums[:, 0] / size, float(sums[:, 1].mean()) / size
        mean, error = float(means.mean()), float(means.std(ddof=1)) / math.sqrt(BATCHES) + ROUNDING * typical
        if abs(mean) > RESOLVED * error or size > MOST:
            return mean, error
        size *= 2
        added = np.array([frozen.walk(size) for _ in range(BATCHES // 2)])
        sums = np.concatenate([sums[0::2] + sums[1::2], added])  # neighbours become one batch


class _Frozen:
    """A method that is fed a problem's gradients at one point."""

    def __init__(self, problem: Problem, x: float, chosen: Method, hyper: Mapping[str, float], seed: int) -> None:
        count = len(problem.components)
        arrivals, noises = (np.random.default_rng([seed, which]) for which in (0, 1))
        self.gradients = np.array([problem.gradient(i, np.array([x]))[0] for i in range(count)])
        self.arrive = problem.arrival.stream(count, arrivals)
        self.noise = None if problem.noise is None else problem.noise.stream(1, noises)
        self.period = len(problem.arrival.order) if isinstance(problem.arrival, Cyclic) else 1
        self.p = parameters(chosen, None, **hyper)
        self.step, self.s, self.t = compiled(chosen.rule), np.zeros((chosen.rows(self.p), 1)), 1
        betas = dict(zip(chosen.defaults, self.p.tolist(), strict=True))
        self.memory = 1 / (1 - max(betas.get(name, 0.0) for name in ("beta1", "beta2")))
        # Yogi's v climbs by at most (1-β2)·g², and only when the largest gradient comes.
        self.burning = self.memory / (float(problem.weights.min()) if chosen.name == "yogi" else 1.0)

    def whole(self, steps: float) -> int:
        """Return the steps of the whole periods that cover `steps`."""
        return math.ceil(steps / self.period) * self.period

    def walk(self, steps: int) -> tuple[float, float]:
        """Go on for so many steps; return Σ dx and Σ |dx| at α = 1."""
        g = self.gradients[self.arrive(steps)]
        if self.noise is not None:
            g = g + self.noise(steps)[:, 0]
        first, self.t = self.t, self.t + steps
        return self.step(first, g, self.s, self.p)
