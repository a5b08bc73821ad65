"""Where theory puts the boundaries in the plane of β1 and β2: the lines that a phase diagram draws over its cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arrivals import Random
from .periodic import cyclic_gradients, drift_roots
from .problem import Problem
from .stationary import iid_gradients, stationary_critical_beta2

Array = NDArray[np.float64]

ADAM = ("adam", "adam_plain", "adam_inside")
"""Methods with both moments as exponential averages, for which these boundaries hold; bias corrections fade."""


DRIFT = "drift changes sign"
"""The name of the lines that say where a method ends: the others are conditions of proofs."""


@dataclass(frozen=True)
class Boundary:
    """A line β2(β1), NaN where it does not exist."""

    name: str
    beta1: Array
    beta2: Array


def boundaries(problem: Problem, method: str, beta1: Array, eps: float = 0.0) -> tuple[Boundary, ...]:
    """Return the known boundaries of a method on a problem at the given β1 (n,).

    β1 = √β2, beyond which the momentum outlives the second moment and convergence proofs end (Reddi et al. 2018,
    Zhang et al. 2022). And, in one variable with gradients that are constant around the start, the β2 where the drift
    of a period, or its mean for components drawn at random, changes sign: exact in the limit of small α, see
    `periodic.py` and `stationary.py`. Several changes are several lines, the largest β2 first.

    `eps` is beside the root of v, and is taken into account for `Cyclic` problems alone: for components drawn at
    random, and for `adam_inside`, whose eps stands inside, the lines are those of eps = 0, which an eps that is small
    beside the gradients hardly moves.

    Returns nothing for a method that is no Adam.
    """
    if method not in ADAM:
        return ()
    return (Boundary("β1 = √β2", beta1, np.square(beta1)), *_drift(problem, beta1, 0.0 if method == ADAM[2] else eps))


def _drift(problem: Problem, beta1: Array, eps: float) -> tuple[Boundary, ...]:
    """Return the drift's sign changes; none where no theory says where they are."""
    if problem.dim != 1 or problem.noise is not None:
        return ()
    try:
        roots = _roots(problem, eps)
        found = [roots(float(beta)) for beta in beta1]
    except ValueError:  # gradients that change with x, that sum to zero, another order of arrival
        return ()
    most = max(map(len, found))
    branches = [[values[k] if k < len(values) else np.nan for values in found] for k in range(most)]
    return tuple(Boundary(DRIFT, beta1, np.array(branch)) for branch in branches)


def _roots(problem: Problem, eps: float) -> Callable[[float], tuple[float, ...]]:
    """Return the function that gives the sign changes at a β1, the largest first."""
    if isinstance(problem.arrival, Random):
        p, g = iid_gradients(problem)

        def drawn(beta1: float) -> tuple[float, ...]:
            root = stationary_critical_beta2(p, g[:, 0], beta1)
            return () if root is None else (root,)

        return drawn
    period = cyclic_gradients(problem)[:, 0]
    return lambda beta1: drift_roots(period, beta1, eps=eps)[::-1]
