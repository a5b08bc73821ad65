"""The simulation as one would write it down: slow, obvious, and what the compiled loop is tested against."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .engine import schedule
from .methods import Method
from .problem import Problem

Array = NDArray[np.float64]


@dataclass
class Sums:
    """The terms of every sum, one list a sum, so that `math.fsum` can add them without error."""

    terms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, values: Array) -> None:
        """Add the sum over coordinates of one step."""
        self.terms.setdefault(name, []).extend(values.tolist())

    def __getitem__(self, name: str) -> float:
        return math.fsum(self.terms.get(name, []))


def reference(
    problem: Problem, method: Method, p: Array, steps: int, lr: float | str, seed: int = 0
) -> tuple[Array, Sums]:
    """Return the last iterate `(dim,)` and the sums of `simulate` for one seed, by a plain loop."""
    arrivals, noises = (np.random.default_rng([seed, which]) for which in (0, 1))
    indices = problem.arrival.stream(len(problem.components), arrivals)(steps)
    noise = problem.noise.stream(problem.dim, noises)(steps) if problem.noise else np.zeros((steps, problem.dim))
    alphas = schedule(lr, steps)(np.arange(1.0, steps + 1))
    x, e_before, sums = problem.start.copy(), np.zeros(problem.dim), Sums()
    s = np.zeros((method.rows(p), problem.dim))
    e, dx = np.zeros(problem.dim), np.zeros(problem.dim)
    for t in range(1, steps + 1):
        g = problem.gradient(int(indices[t - 1]), x) + noise[t - 1]
        mean = problem.mean_gradient(x)
        method.rule(t, alphas[t - 1], g, s, p, e, dx)
        live = e > 0
        known = live & (e_before > 0)
        delta = np.where(known, e - e_before, 0.0)
        sums.add("a", e[live])
        sums.add("b", (e * g)[live] ** 2)
        sums.add("c", np.abs(delta))
        sums.add("c_plus", np.maximum(delta, 0.0))
        sums.add("e2", e[live] ** 2)
        sums.add("delta2", delta**2)
        sums.add("g2", g[live] ** 2)
        sums.add("rising", (delta > 0).astype(np.float64))
        sums.add("descent_made", (-dx / method.weight(p) * mean)[live])
        sums.add("descent_intended", (e * mean * mean)[live])
        x = np.clip(x + dx, problem.lower, problem.upper)
        e_before = np.where(live, e, e_before)
    return x, sums
