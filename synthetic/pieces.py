"""A function of one variable as smooth pieces between break points, which makes its calculus elementary.

`Piecewise`, `Abs`, `sign`, `Max`, `Min` and `Heaviside`, nested in any way, each become one smooth expression between
two neighbouring break points. Values, derivatives, extrema and suprema then are those of smooth functions on
intervals: at their ends and where a derivative vanishes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import sympy
from scipy.optimize import brentq
from sympy.core.relational import Relational

KINKED = (sympy.Abs, sympy.sign, sympy.Max, sympy.Min, sympy.Heaviside, sympy.Piecewise)
"""What is smooth on either side of a point and possibly not at it."""
JUMP = 1e-9
"""A relative difference of the two sides that rounding of a break point cannot explain."""
GRID = 4001
"""Points at which an expression that is not algebraic is looked at for changes of sign."""
FAR = 1e6
"""How far out such an expression is looked at on an unbounded interval."""


@dataclass(frozen=True)
class Piece:
    """A smooth expression on [lo, hi]; the ends are SymPy numbers, also ±oo."""

    lo: sympy.Expr
    hi: sympy.Expr
    expr: sympy.Expr

    def clipped(self, lo: float, hi: float) -> Piece | None:
        """Return the part inside [lo, hi], or None where it has no length."""
        left, right = (sympy.Max(self.lo, number(lo)), sympy.Min(self.hi, number(hi)))
        return Piece(left, right, self.expr) if left < right else None

    @property
    def inside(self) -> sympy.Rational:
        """A rational point inside."""
        lo, hi = float(self.lo), float(self.hi)
        if math.isinf(lo) and math.isinf(hi):
            return sympy.Rational(0)
        if math.isinf(lo) or math.isinf(hi):
            return sympy.Rational(hi - 1 if math.isinf(lo) else lo + 1)
        return sympy.Rational(lo + (hi - lo) / 2)


@lru_cache(1024)
def pieces(expr: sympy.Expr, x: sympy.Symbol) -> tuple[Piece, ...]:
    """Return the smooth pieces of an expression in the real symbol x, over the whole line in ascending order."""
    ends = [-sympy.oo, *distinct(breaks(expr, x)), sympy.oo]
    found = [Piece(lo, hi, expr) for lo, hi in itertools.pairwise(ends)]
    return tuple(Piece(piece.lo, piece.hi, smooth(expr, x, piece.inside)) for piece in found)


def breaks(expr: sympy.Expr, x: sympy.Symbol) -> list[sympy.Expr]:
    """Return where the expression may fail to be smooth: kinks, borders of cases, poles and ends of roots and logs."""
    zeros: list[sympy.Expr] = []
    for node in sympy.preorder_traversal(expr):
        for level in levels(node):
            if level.has(x):
                zeros += [z for piece in pieces(level, x) for z in roots(piece.expr, x, piece.lo, piece.hi)]
    return zeros


def levels(node: sympy.Basic) -> list[sympy.Expr]:
    """Return the expressions whose zeros are break points of a node."""
    if isinstance(node, Relational):
        return [node.lhs - node.rhs]
    if isinstance(node, sympy.Max | sympy.Min):
        return [a - b for k, a in enumerate(node.args) for b in node.args[:k]]
    if isinstance(node, sympy.Abs | sympy.sign | sympy.Heaviside | sympy.log):
        return [node.args[0]]
    if isinstance(node, sympy.Pow) and not (node.exp.is_integer and node.exp.is_nonnegative):
        return [node.base]
    return []


def smooth(expr: sympy.Expr, x: sympy.Symbol, at: sympy.Expr) -> sympy.Expr:
    """Return the smooth expression that equals `expr` around a point that is no break point."""
    if not expr.has(*KINKED):
        return expr
    if isinstance(expr, sympy.Piecewise):
        cases = (case for case, condition in expr.args if condition.subs(x, at) == sympy.true)
        return smooth(next(cases, sympy.nan), x, at)
    args = [smooth(arg, x, at) for arg in expr.args]
    if isinstance(expr, sympy.Max | sympy.Min):
        return (max if isinstance(expr, sympy.Max) else min)(args, key=lambda arg: value(arg, x, at))
    if not isinstance(expr, sympy.Abs | sympy.sign | sympy.Heaviside):
        return expr.func(*args)
    above = value(args[0], x, at) > 0
    if isinstance(expr, sympy.Abs):
        return args[0] if above else -args[0]
    return sympy.Integer(1 if above else -1 if isinstance(expr, sympy.sign) else 0)


def merged(parts: Iterable[Piece]) -> tuple[Piece, ...]:
    """Join neighbours that have the same expression."""
    out: list[Piece] = []
    for part in parts:
        if out and out[-1].expr == part.expr:
            part = Piece(out.pop().lo, part.hi, part.expr)  # noqa: PLW2901
        out.append(part)
    return tuple(out)


def mixture(weights: list[sympy.Expr], parts: list[tuple[Piece, ...]], x: sympy.Symbol) -> tuple[Piece, ...]:
    """Return the pieces of Σ w_i f_i, f_i given by its pieces."""
    inner = [piece.lo for part in parts for piece in part[1:]]
    ends = [-sympy.oo, *distinct(inner), sympy.oo]
    out = []
    for lo, hi in itertools.pairwise(ends):
        at = Piece(lo, hi, sympy.S.Zero).inside
        total = sympy.Add(*(w * holder(part, at).expr for w, part in zip(weights, parts, strict=True)))
        out.append(Piece(lo, hi, tidy(total, x)))
    return merged(out)


def holder(parts: tuple[Piece, ...], at: sympy.Expr) -> Piece:
    """Return the piece that holds a point."""
    return next(piece for piece in parts if at <= piece.hi)


def tidy(expr: sympy.Expr, *variables: sympy.Symbol) -> sympy.Expr:
    """Multiply the polynomial part of a sum out; anything else is left as it was written."""
    parts = sympy.Add.make_args(expr)
    plain = [part for part in parts if part.is_polynomial(*variables)]
    return sympy.Add(sympy.expand(sympy.Add(*plain)), *(part for part in parts if not part.is_polynomial(*variables)))


def joined(parts: tuple[Piece, ...], x: sympy.Symbol) -> sympy.Expr:
    """Return the pieces as one expression."""
    if len(parts) == 1:
        return parts[0].expr
    cases = [(part.expr, x <= part.hi) for part in parts[:-1]]
    return sympy.Piecewise(*cases, (parts[-1].expr, True), evaluate=False)


def derivative(parts: tuple[Piece, ...], x: sympy.Symbol) -> tuple[Piece, ...]:
    """Return the pieces of the derivative."""
    return tuple(Piece(part.lo, part.hi, diff(part.expr, x)) for part in parts)


def diff(expr: sympy.Expr, x: sympy.Symbol) -> sympy.Expr:
    """Return the derivative, that of (-x)^(3/2) without the quotient 0/0 that SymPy makes of it at 0."""
    if not any(power.exp.is_Rational and not power.exp.is_Integer for power in expr.atoms(sympy.Pow)):
        return sympy.diff(expr, x)
    if isinstance(expr, sympy.Add):
        return sympy.Add(*(diff(arg, x) for arg in expr.args))
    if isinstance(expr, sympy.Mul):
        args = expr.args
        return sympy.Add(*(sympy.Mul(*args[:k], diff(args[k], x), *args[k + 1 :]) for k in range(len(args))))
    if isinstance(expr, sympy.Pow) and not expr.exp.has(x):
        return expr.exp * expr.base ** (expr.exp - 1) * diff(expr.base, x)
    return sympy.diff(expr, x)


# numbers


def number(at: float) -> sympy.Expr:
    """Return a float as an exact SymPy number: 0.1 is 1/10."""
    if math.isinf(at):
        return sympy.oo if at > 0 else -sympy.oo
    return sympy.Rational(repr(float(at)))


def value(expr: sympy.Expr, x: sympy.Symbol, at: sympy.Expr) -> float:
    """Return the expression's value or limit at a point, also at ±oo; NaN where there is none or it is not real."""
    if not expr.has(x):
        return as_float(expr)
    if at.is_infinite and expr.is_polynomial(x):
        polynomial = sympy.Poly(expr, x)
        falls = polynomial.degree() % 2 == 1 and at == -sympy.oo
        return math.copysign(math.inf, float(polynomial.LC()) * (-1 if falls else 1))
    return as_float(expr.subs(x, at)) if at.is_finite else math.nan


def one_sided(expr: sympy.Expr, x: sympy.Symbol, at: sympy.Expr, side: str) -> float:
    """Return the value, or where there is none the limit from one side ("+": from above); NaN if it is not found."""
    found = value(expr, x, at)
    if not math.isnan(found):
        return found
    try:
        return as_float(sympy.limit(expr, x, at, side))
    except (NotImplementedError, ValueError, TypeError, AttributeError):
        return math.nan


def as_float(expr: sympy.Expr) -> float:
    """Return a number as a float; NaN where it is no real number."""
    try:
        return float(expr)
    except TypeError:
        return math.nan


def distinct(points: list[sympy.Expr]) -> list[sympy.Expr]:
    """Return points in ascending order, once each."""
    kept: dict[float, sympy.Expr] = {}
    for point in points:
        kept.setdefault(float(point) + 0.0, point)  # -0.0 is 0.0
    return [kept[at] for at in sorted(kept)]


def roots(expr: sympy.Expr, x: sympy.Symbol, lo: sympy.Expr, hi: sympy.Expr) -> list[sympy.Expr]:
    """Return the zeros of a smooth expression in [lo, hi], ascending.

    Exact for polynomials up to degree 2 and their quotients, to float64 above; expressions that are not algebraic are
    looked at on a grid for changes of sign, so that a zero without one is missed.
    """
    return [z for z in all_roots(expr, x, float(lo), float(hi)) if lo <= z <= hi]


@lru_cache(1024)
def all_roots(expr: sympy.Expr, x: sympy.Symbol, lo: float, hi: float) -> tuple[sympy.Expr, ...]:
    """Return the zeros of a smooth expression; of one that is not algebraic those in [lo, hi]."""
    if not expr.has(x):
        return ()
    if not expr.is_rational_function(x):
        return scanned(expr, x, lo, hi)
    polynomial = sympy.Poly(sympy.fraction(sympy.together(expr))[0], x)
    if polynomial.degree() <= 2:
        found = sympy.roots(polynomial, x, multiple=True)
        return tuple(distinct([z for z in found if z.is_real]))
    if polynomial.domain.is_QQ or polynomial.domain.is_ZZ:
        return tuple(distinct([_plain(z) for z in polynomial.real_roots(multiple=False) for z in z[:1]]))
    close = [z for z in np.roots([float(c) for c in polynomial.all_coeffs()]) if abs(z.imag) <= JUMP * (1 + abs(z))]
    return tuple(distinct([number(z.real) for z in close]))


def _plain(root: sympy.Expr) -> sympy.Expr:
    return root if root.is_rational else number(float(root))


def scanned(expr: sympy.Expr, x: sympy.Symbol, lo: float, hi: float) -> tuple[sympy.Expr, ...]:
    """Return the zeros that show as a clear change of sign on a grid, or lie on it."""
    f = sympy.lambdify(x, expr, ["scipy", "numpy"])
    grid = FAR * np.sinh(np.linspace(-16.0, 16.0, GRID)) / np.sinh(16.0)
    if math.isfinite(lo) and math.isfinite(hi):
        grid = np.linspace(lo, hi, GRID)
    grid = np.unique(np.clip(grid, lo, hi))
    with np.errstate(all="ignore"):
        y = np.asarray(f(grid), dtype=np.complex128)
        y = np.where(y.imag == 0, y.real, np.nan)
        sign = np.pad(np.sign(y), 3, constant_values=np.nan)
        # A smooth expression is not zero over a stretch: neighbouring zeros are underflow.
        found = list(grid[(y == 0) & (sign[2:-4] != 0) & (sign[4:-2] != 0)])
        for k in np.flatnonzero(y[:-1] * y[1:] < 0):
            # Three points on either side, y[k] the last before it, have one sign each; or else it is rounding.
            before, after = sign[k + 1 : k + 4], sign[k + 4 : k + 7]
            if np.nanmin(before) == np.nanmax(before) and np.nanmin(after) == np.nanmax(after):
                found.append(brentq(f, grid[k], grid[k + 1], xtol=1e-15, rtol=1e-15))
    return tuple(distinct([_nice(expr, x, float(z)) for z in found]))


def _nice(expr: sympy.Expr, x: sympy.Symbol, z: float) -> sympy.Expr:
    """Return the simple fraction nearby if it is a zero, or else the number itself."""
    fraction = Fraction(z).limit_denominator(1000)
    near = sympy.Rational(fraction.numerator, fraction.denominator)
    if abs(float(fraction) - z) <= 1e-12 and expr.subs(x, near) == 0:
        return near
    return number(z)
