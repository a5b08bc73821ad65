"""Whether a function has a gradient everywhere on a box: no jump, no corner, no pole, no value that is not real."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import sympy
from numpy.typing import NDArray

from .numeric import magnitude, numeric, second_derivatives
from .pieces import JUMP, Piece, diff, holder, levels, number, one_sided, pieces, value
from .search import Bounds, even, minima, onto, polished

Array = NDArray[np.float64]

LOOKS = 1 << 10
"""Points at which a component is looked at for values that are not real."""


def require_differentiable(
    who: str,
    expr: sympy.Expr,
    terms: tuple[tuple[Piece, ...], ...] | None,
    variables: tuple[sympy.Symbol, ...],
    bounds: Bounds,
) -> None:
    """Raise ValueError where a function has a jump, a corner or a pole in the box, if that can be decided.

    The box is closed: a projected iterate may come to rest on its border, and there too it needs a gradient. A function
    that is no sum of functions of one variable is looked at along a few lines, at many points, and where the base of a
    root, or what is divided by, vanishes.
    """
    if terms is not None:
        for parts, x, (lo, hi) in zip(terms, variables, bounds, strict=True):
            where = _coordinate(x)
            _require_smooth(who, parts, x, lo, hi, where)
            inside = [part for part in (part.clipped(lo, hi) for part in parts) if part is not None]
            for at in (inside[0].lo, *(part.hi for part in inside)):
                if at.is_finite:
                    _require_computable(who, holder(parts, at).expr, x, at, where(at))
        return
    if expr.is_polynomial(*variables):
        return
    s = sympy.Symbol("s", real=True)
    for k in range(3):
        at = [_window(lo, hi) for lo, hi in bounds]
        # Rational and unlike each other, so that no line runs along a border by accident.
        origin = [number(round(lo + (hi - lo) * ((7 * k + 3 * j + 4) % 11) / 11, 6)) for j, (lo, hi) in enumerate(at)]
        way = [sympy.Rational((-1) ** (j * k) * (5 + ((k + 2 * j) % 7)), 7) for j in range(len(at))]
        line = {x: p + s * d for x, p, d in zip(variables, origin, way, strict=True)}
        ends = [
            sorted(((lo - float(p)) / float(d), (hi - float(p)) / float(d)))
            for (lo, hi), p, d in zip(at, origin, way, strict=True)
        ]
        lo, hi = max(e[0] for e in ends), min(e[1] for e in ends)
        if lo < hi:

            def where(at: sympy.Expr, line: dict[sympy.Symbol, sympy.Expr] = line) -> str:
                return ", ".join(f"{x} = {float(p.subs(s, at)):.6g}" for x, p in line.items())

            _require_smooth(who, pieces(expr.xreplace(line), s), s, lo, hi, where)
    _require_regular(who, expr, variables, [_window(lo, hi) for lo, hi in bounds])


def _coordinate(x: sympy.Symbol) -> Callable[[sympy.Expr], str]:
    return lambda at: f"{x} = {float(at):.6g}"


def _window(lo: float, hi: float) -> tuple[float, float]:
    """Return a finite interval inside [lo, hi]."""
    if math.isfinite(lo) and math.isfinite(hi):
        return lo, hi
    if math.isfinite(lo):
        return lo, lo + 10
    return (hi - 10, hi) if math.isfinite(hi) else (-10.0, 10.0)


def _require_smooth(
    who: str, parts: Sequence[Piece], x: sympy.Symbol, lo: float, hi: float, where: Callable[[sympy.Expr], str]
) -> None:
    inside = [part for part in (part.clipped(lo, hi) for part in parts) if part is not None]
    for part in inside:
        if not math.isfinite(value(part.expr, x, part.inside)):
            raise ValueError(f"{who} has no finite real value at {where(part.inside)}: change it or `domain`.")
    for left, right in itertools.pairwise(inside):
        for order, what in enumerate(("its value", "its derivative")):
            below = one_sided(sympy.diff(left.expr, x, order), x, left.hi, "-")
            above = one_sided(sympy.diff(right.expr, x, order), x, left.hi, "+")
            told = f"{who} is not differentiable at {where(left.hi)}: {what}"
            if not (math.isfinite(below) and math.isfinite(above)):
                raise ValueError(f"{told} is not finite there; change it or `domain`.")
            if abs(below - above) > JUMP * (1 + abs(below) + abs(above)):
                raise ValueError(
                    f"{told} jumps from {below:.6g} to {above:.6g} there; round it off, as Huber's function does."
                )


def _require_computable(who: str, expr: sympy.Expr, x: sympy.Symbol, at: sympy.Expr, where: str) -> None:
    """Raise ValueError where a function or its derivative, as written, has no finite value at an end of a piece."""
    for what, written in (("value", expr), ("derivative", diff(expr, x))):
        if not math.isfinite(value(written, x, at)):
            raise ValueError(
                f"{who} has no finite {what} at {where}, a point of the domain where an iterate may come to rest: "
                f"its {what} reads {written}; write it otherwise, or leave that point out of `domain`."
            )


def _require_regular(who: str, expr: sympy.Expr, variables: tuple[sympy.Symbol, ...], box: Bounds) -> None:
    """Raise ValueError for values that are not real, and for corners and poles at single points of a finite box."""
    height, slope = numeric(expr, variables), numeric(tuple(sympy.diff(expr, x) for x in variables), variables)

    def where(point: Array) -> str:
        return ", ".join(f"{x} = {at + 0.0:.6g}" for x, at in zip(variables, point, strict=True))

    points = onto(box, np.mean(box, axis=1))(even(LOOKS, len(box)))
    strange = points[np.isnan(height(points))]
    if len(strange):
        raise ValueError(f"{who} has no finite real value at {where(strange[0])}: change it or `domain`.")
    for point in _singular(expr, variables, box):
        told = f"{who} is not differentiable at {where(point)}"
        if not np.isfinite(height(point)).all():
            raise ValueError(f"{told}: its value is not finite there; change it or `domain`.")
        if not np.isfinite(slope(point)).all():
            raise ValueError(
                f"{told}: its gradient is not finite there; round it off, as sqrt(x**2 + y**2 + 1/1000) does for a "
                "norm, or leave that point out of `domain`."
            )
        if _corner(slope, point, box):
            raise ValueError(f"{told}: its gradient jumps there; round it off, as Huber's function does.")


def _singular(expr: sympy.Expr, variables: tuple[sympy.Symbol, ...], box: Bounds) -> list[Array]:
    """Return points of a finite box where the base of a root, the argument of a logarithm, a divisor or a kink is 0."""
    found: list[Array] = []
    zeros = {level for node in sympy.preorder_traversal(expr) for level in levels(node) if level.free_symbols}
    for level in sorted(zeros, key=str):
        plain = numeric(level, variables)
        first = tuple(sympy.diff(level, x) for x in variables)
        slope, curvature = numeric(first, variables), numeric(second_derivatives(first, variables), variables)
        scale = float(np.nanmedian(np.abs(plain(onto(box, np.mean(box, axis=1))(even(LOOKS, len(box)))))))
        low = minima(magnitude(plain), box, np.mean(box, axis=1), LOOKS)[0]
        for rough in low:
            nice = [Fraction(float(at)).limit_denominator(1000) for at in rough]
            exact = {x: sympy.Rational(q.numerator, q.denominator) for x, q in zip(variables, nice, strict=True)}
            near = np.array([float(q) for q in nice])
            if np.abs(near - rough).max() <= 1e-4 * np.ptp(box) and _inside(near, box) and level.subs(exact) == 0:
                found.append(near)
                continue
            point = polished(rough, slope, curvature, box)
            # Above zero by more than rounding, it is rounded off already.
            if abs(float(plain(point))) <= 1e-18 * scale:
                found.append(point)
    return found


def _inside(point: Array, box: Bounds) -> bool:
    lower, upper = np.array(box).T
    return bool(((lower <= point) & (point <= upper)).all())


def _corner(slope: Callable[[Array], Array], point: Array, box: Bounds) -> bool:
    """Return whether the gradient's jump across a point stays, however closely one looks."""
    wide = float(np.ptp(box, axis=1).min())
    ways = 2.0 * even(2 * len(box) + 1, len(box)) - 1.0  # from corner to corner of a cube
    jumps = []
    for h in (1e-3 * wide, 1e-5 * wide):
        if not (_inside(point + h, box) and _inside(point - h, box)):
            return False  # on the border there is no other side
        jumps.append(float(np.abs(slope(point + h * ways) - slope(point - h * ways)).max()))
    size = 1.0 + float(np.abs(slope(point)).max())
    return bool(jumps[1] > 1e-6 * size and jumps[1] > 0.9 * jumps[0])  # a smooth gradient's has shrunk to 1/100
