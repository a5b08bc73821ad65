"""SymPy expressions as functions of arrays of points, with the pulses that derivatives have at kinks left out."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import sympy
from numpy.typing import NDArray

from .pieces import KINKED

Array = NDArray[np.float64]

EXTREMES = {"Max": lambda *args: reduce(np.maximum, args), "Min": lambda *args: reduce(np.minimum, args)}
"""SymPy's own translation takes numbers and arrays together for a ragged array."""


def numeric(expr: Any, variables: tuple[sympy.Symbol, ...]) -> Callable[[Array], Array]:
    """Return an expression, a tuple or a matrix as a function of points `(..., dim)`, `(..., *its own shape)`.

    NaN where it is not defined.
    """
    several = isinstance(expr, tuple | sympy.MatrixBase)
    entries = [_without_pulses(e) for e in (expr if several else [expr])]
    shape = expr.shape if isinstance(expr, sympy.MatrixBase) else (len(entries),) if several else ()
    compiled = sympy.lambdify(variables, entries, [EXTREMES, "scipy", "numpy"], cse=True)

    def at(x: Array) -> Array:
        with np.errstate(all="ignore"):
            columns = compiled(*np.moveaxis(np.asarray(x, dtype=np.float64), -1, 0))
        out = np.empty((*np.shape(x)[:-1], len(entries)))
        for k, column in enumerate(columns):
            out[..., k] = column
        return out.reshape((*np.shape(x)[:-1], *shape))

    return at


def magnitude(height: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return the absolute value of a function of points."""
    return lambda x: np.abs(height(x))


def second_derivatives(gradient: tuple[sympy.Expr, ...], variables: tuple[sympy.Symbol, ...]) -> sympy.Matrix:
    """Return the derivatives of a gradient, without the pulses at kinks."""
    plain = sympy.Matrix([[_without_pulses(sympy.diff(g, x)) for x in variables] for g in gradient])
    return plain if plain.has(*KINKED) else plain.applyfunc(sympy.expand)


def _without_pulses(expr: sympy.Expr) -> sympy.Expr:
    return expr.replace(lambda e: isinstance(e, sympy.DiracDelta), lambda e: sympy.S.Zero)
