"""What the rules of composition prove about an expression on a box: its range, and whether it is convex."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy
from numpy.typing import NDArray

from .pieces import as_float, number, roots, value

Array = NDArray[np.float64]
Box = dict[sympy.Symbol, tuple[float, float]]


@dataclass(frozen=True)
class Shape:
    """What is proved about an expression on a box: its range, whether it is convex or concave, or its logarithm convex.

    By the rules of composition after Grant, Boyd & Ye (2006), and by the Hessian of polynomials whose variables are
    coupled by products of two alone. False means "not proved".
    """

    lo: float = -math.inf
    hi: float = math.inf
    convex: bool = False
    concave: bool = False
    log_convex: bool = False

    @property
    def affine(self) -> bool:
        """Both convex and concave."""
        return self.convex and self.concave


def shape(expr: sympy.Expr, box: Box) -> Shape:
    """Return what is proved about an expression whose symbols lie in a box."""
    if not expr.free_symbols:
        at = as_float(expr)
        return Shape(at, at, True, True, at > 0) if math.isfinite(at) else Shape()
    if expr in box:
        return Shape(*box[expr], True, True)
    if isinstance(expr, sympy.Add):
        return _shape_of_sum(expr, box)
    if isinstance(expr, sympy.Mul):
        return _shape_of_product(expr, box)
    if isinstance(expr, sympy.Pow):
        return _shape_of_power(expr, box)
    rule = RULES.get(expr.func)
    return rule(*(shape(arg, box) for arg in expr.args)) if rule else Shape()


def _shape_of_sum(expr: sympy.Add, box: Box) -> Shape:
    parts = [shape(arg, box) for arg in expr.args]
    plain = [arg.is_polynomial(*box) for arg in expr.args]
    convex, concave = _curvature(sympy.Add(*itertools.compress(expr.args, plain)), box)
    others = [part for part, polynomial in zip(parts, plain, strict=True) if not polynomial]
    return Shape(
        _total(part.lo for part in parts),
        -_total(-part.hi for part in parts),
        (convex and all(part.convex for part in others)) or all(part.convex for part in parts),
        (concave and all(part.concave for part in others)) or all(part.concave for part in parts),
        all(part.log_convex for part in parts),
    )


def _total(ends: Iterable[float]) -> float:
    """Return the sum of lower ends; -inf where one is, whatever the others."""
    listed = list(ends)
    return -math.inf if -math.inf in listed else math.fsum(listed)


def _curvature(polynomial: sympy.Expr, box: Box) -> tuple[bool, bool]:
    """Return whether a polynomial is convex, and whether it is concave, where that shows in a constant matrix."""
    variables = tuple(box)
    hessian = sympy.hessian(polynomial, variables)
    least, most = np.zeros(hessian.shape), np.zeros(hessian.shape)
    for j, k in itertools.product(range(len(variables)), repeat=2):
        entry, x = sympy.expand(hessian[j, k]), variables[j]
        if entry.free_symbols - ({x} if j == k else set()):
            return False, False
        lo, hi = (number(end) for end in box[x])
        places = [lo, hi, *roots(sympy.diff(entry, x), x, lo, hi)] if entry.has(x) else [lo]
        heights = [value(entry, x, place) for place in places]
        least[j, k], most[j, k] = min(heights), max(heights)
    if not (np.isfinite(least).all() or np.isfinite(most).all()):
        return False, False
    return _no_less_than_zero(least), _no_less_than_zero(-most)


def _no_less_than_zero(matrix: Array) -> bool:
    """Return whether a symmetric matrix has no negative eigenvalue, but for rounding."""
    if not np.isfinite(matrix).all():
        return False
    return bool(np.linalg.eigvalsh(matrix)[0] >= -1e-13 * np.abs(matrix).max())


def _shape_of_product(expr: sympy.Mul, box: Box) -> Shape:
    factor, rest = expr.as_independent(*box)
    if factor != 1:
        part, c = shape(rest, box), as_float(factor)
        if not math.isfinite(c):
            return Shape()
        if c < 0:
            return Shape(c * part.hi, c * part.lo, part.concave, part.convex)
        return Shape(c * part.lo, c * part.hi, part.convex, part.concave, part.log_convex)
    parts = [shape(arg, box) for arg in expr.args]
    lo, hi = 1.0, 1.0
    for part in parts:
        ends = [0.0 if 0.0 in (a, b) else a * b for a in (lo, hi) for b in (part.lo, part.hi)]
        lo, hi = min(ends), max(ends)
    log_convex = all(part.log_convex for part in parts)
    return Shape(lo, hi, log_convex, False, log_convex)


def _shape_of_power(expr: sympy.Pow, box: Box) -> Shape:
    if expr.base.is_positive and not expr.base.free_symbols:
        return _exp(shape(expr.exp * sympy.log(expr.base), box))
    if not expr.exp.is_number:
        return Shape()
    base, p = shape(expr.base, box), as_float(expr.exp)
    if p == 0.5 and _is_square_of_norm(expr.base, box):
        return Shape(0.0, convex=True)
    if base.lo >= 0:
        return _power(base, p)
    if p > 0 and p % 2 == 0:
        top = _raised(max(-base.lo, base.hi), p)
        return Shape(_raised(max(0.0, -base.hi), p), top, base.affine or (base.concave and base.hi <= 0))
    return Shape(_raised(base.lo, p), _raised(base.hi, p)) if p > 0 and p % 1 == 0 else Shape()


def _power(base: Shape, p: float) -> Shape:
    """Return what is known about a power of what is not negative."""
    low, high = _raised(base.lo, p), _raised(base.hi, p)
    if p >= 1:
        return Shape(low, high, base.convex, False, base.log_convex)
    if p > 0:
        return Shape(low, high, False, base.concave, base.log_convex)
    return Shape(high, low, base.concave, False, base.concave)


def _raised(end: float, p: float) -> float:
    with np.errstate(all="ignore"):
        return float(np.power(np.float64(end), p))


def _is_square_of_norm(expr: sympy.Expr, box: Box) -> bool:
    """Return whether a quadratic polynomial is ‖Ax + b‖²: its matrix, one row added for the constant, shows that."""
    if not (expr.is_polynomial(*box) and sympy.Poly(expr, *box).total_degree() <= 2):
        return False
    one = sympy.Dummy()
    whole = sympy.Poly(expr, *box).homogenize(one).as_expr()
    matrix = sympy.hessian(whole, (*box, one))
    if matrix.free_symbols:  # of a polynomial of degree below 2
        return False
    return _no_less_than_zero(np.array(matrix.tolist(), dtype=np.float64))


def _exp(part: Shape) -> Shape:
    with np.errstate(all="ignore"):
        return Shape(float(np.exp(part.lo)), float(np.exp(part.hi)), part.convex, False, part.convex)


def _log(part: Shape) -> Shape:
    if part.lo < 0:
        return Shape()
    with np.errstate(all="ignore"):
        return Shape(float(np.log(part.lo)), float(np.log(part.hi)), part.log_convex, part.concave)


def _abs(part: Shape) -> Shape:
    away = (part.convex and part.lo >= 0) or (part.concave and part.hi <= 0)
    top = max(abs(part.lo), abs(part.hi))
    return Shape(max(0.0, part.lo, -part.hi), top, part.affine or away)


def _max(*parts: Shape) -> Shape:
    return Shape(max(p.lo for p in parts), max(p.hi for p in parts), all(p.convex for p in parts))


def _min(*parts: Shape) -> Shape:
    return Shape(min(p.lo for p in parts), min(p.hi for p in parts), concave=all(p.concave for p in parts))


def _wave(part: Shape) -> Shape:
    del part
    return Shape(-1.0, 1.0)


def _cosh(part: Shape) -> Shape:
    return Shape(1.0, convex=part.affine)


RULES: dict[Any, Callable[..., Shape]] = {
    sympy.exp: _exp,
    sympy.log: _log,
    sympy.Abs: _abs,
    sympy.Max: _max,
    sympy.Min: _min,
    sympy.cosh: _cosh,
    **dict.fromkeys((sympy.sin, sympy.cos, sympy.tanh, sympy.erf), _wave),
}
"""What is known about functions of expressions, from what is known about those."""
