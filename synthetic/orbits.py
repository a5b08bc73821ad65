"""follow(): take deterministic steps one by one and keep all of them, from any state; where a trace sums, this shows.

For limit cycles, edges of stability and spikes, which are about single steps and about states no run starts from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

from ..diagnostics.trace import Trace
from .methods import method, parameters
from .problem import Problem

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Orbit:
    """Every step of a deterministic run."""

    x: Array
    """(steps + 1, dim): the iterates, the last step's end included."""
    g: Array
    """(steps, dim): the gradient each step was taken on."""
    e: Array
    """(steps, dim): the effective stepsize of each step."""


def follow(
    problem: Problem,
    name: str,
    alpha: float,
    steps: int,
    betas: tuple[float, float],
    *,
    start: ArrayLike | None = None,
    state: ArrayLike | None = None,
    first: int = 1,
    **hyper: float,
) -> Orbit:
    """Return `steps` steps of a method on a problem's objective, without noise and without a box.

    Args:
        problem: gives the objective's gradient.
        name: a name of `METHODS`.
        alpha: the constant learning rate.
        steps: how many steps.
        betas: (β1, β2).
        start: (dim,), instead of `problem.start`.
        state: (rows, dim), the method's state before the first step, instead of zeros.
        first: the number t of the first step, for methods that correct a bias.
        **hyper: further hyper-parameters of the method.
    """
    rule = method(name)
    p = parameters(rule, betas, **hyper)
    x = np.array(problem.start if start is None else start, dtype=np.float64).reshape(problem.dim)
    s = np.zeros((rule.rows(p), problem.dim)) if state is None else np.array(state, dtype=np.float64)
    e, dx = np.zeros(problem.dim), np.zeros(problem.dim)
    path, gradients, stepsizes = [x.copy()], [], []
    for t in range(first, first + steps):
        g = problem.mean_gradient(x)
        rule.update(t, alpha, g, s, p, e, dx)
        x = x + dx
        path.append(x)
        gradients.append(g)
        stepsizes.append(e.copy())
    return Orbit(np.array(path), np.array(gradients), np.array(stepsizes))


def path_of(trace: Trace) -> Array:
    """Return the iterates at the records, (records, seeds, dim), of a trace that has them, as simulated ones do."""
    if trace.path is None:
        raise ValueError("A simulated trace was expected: a recorded one holds no iterates.")
    return trace.path


def hessians(problem: Problem, x: Array) -> Array:
    """Return the objective's Hessian at points (steps, dim), (steps, dim, dim)."""
    entries = [
        sympy.lambdify([problem.variables], sympy.diff(problem.objective, a, b), "numpy")
        for a in problem.variables
        for b in problem.variables
    ]
    columns = [np.broadcast_to(np.asarray(entry(x.T), dtype=np.float64), len(x)) for entry in entries]
    return np.stack(columns, axis=1).reshape(len(x), problem.dim, problem.dim)


def edge_ratio(problem: Problem, orbit: Orbit, beta1: float) -> Array:
    """Return, for each step, η λ_max(P⁻¹H) (1−β1)/(2+2β1), (steps,); above 1 a frozen preconditioner would diverge.

    η P⁻¹ is diag(e), so the largest eigenvalue is that of √e H √e.
    """
    root = np.sqrt(orbit.e)
    scaled: Array = root[:, :, None] * hessians(problem, orbit.x[:-1]) * root[:, None, :]
    sharpness: Array = np.linalg.eigvalsh(scaled)[:, -1].astype(np.float64)
    ratio: Array = sharpness * (1.0 - beta1) / (2.0 + 2.0 * beta1)
    return ratio
