"""What is known about a function on a box: its minimizer, the Lipschitz constant of its gradient, a gradient bound.

Sums of functions of one variable are taken apart into smooth pieces and solved at their ends and critical points,
exactly for polynomials; quadratic functions of several variables by linear algebra. What is left is searched for
numerically from very many points, and then a note says so, unless the rules of convex composition prove that a local
minimum is the lowest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any, Generic, TypeVar

import numpy as np
import sympy
from numpy.typing import NDArray
from scipy import optimize
from scipy.spatial import cKDTree

from .kernels import Function
from .pieces import (
    JUMP,
    KINKED,
    Piece,
    derivative,
    diff,
    holder,
    levels,
    number,
    one_sided,
    pieces,
    roots,
    shape,
    value,
)

Array = NDArray[np.float64]
Bounds = list[tuple[float, float]]
Held = TypeVar("Held")

SAMPLES, BASINS, STARTS = 1 << 14, 256, 8
"""Points at which a search looks, those lower than their neighbours that it follows, and the best that it polishes."""
LOOKS = 1 << 10
"""Points at which a component is looked at for values that are not real."""
FINEST, ROUNDS = 1e-7, 200
"""Where the step of a search's descent ends, as a share of the box, and after how many steps at the latest."""
NEAR, REACH = 0.1, 9.9
"""Along an unbounded side the samples lie at NEAR·sinh(REACH·u), |u| < 1, from the start: up to 1000 away."""
DESCENT = "TNC"
"""It knows bounds and, unlike L-BFGS-B, waits for no threads of a linear algebra library, which cost 1 ms a step."""
MANY = 12
"""Beyond so many variables the corners of a box are too many to visit."""
APART = 1e-3
"""Share of the box, or of ten times a point's size where that is unbounded, within which two points are one start."""
AGAIN = 4
"""How often at most a search on an unbounded side begins again around what it found."""
ROOM = 1 << 22
"""Numbers that a search holds at once, which limits its points in many variables."""
CROWDED = 6
"""Beyond so many variables the nearest points are far, and say nothing about where basins end."""
SOUGHT = "it may be a local minimum, as the objective was not proved convex"
FLAT = 1e-12
"""Relative difference below which two minima are the same."""


@dataclass(frozen=True)
class Fact(Generic[Held]):
    """A number with the reason why it does not exist, or how it was found."""

    value: Held | None
    notes: tuple[str, ...] = ()


def largest(facts: Iterable[Fact[float]]) -> Fact[float]:
    """Return the largest of the components' numbers, or the first that does not exist."""
    found = list(facts)
    lacking = [fact for fact in found if fact.value is None]
    return lacking[0] if lacking else max(found, key=lambda fact: fact.value or 0.0)


# differentiability


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
    height, slope = _numeric(expr, variables), _numeric(tuple(sympy.diff(expr, x) for x in variables), variables)

    def where(point: Array) -> str:
        return ", ".join(f"{x} = {at + 0.0:.6g}" for x, at in zip(variables, point, strict=True))

    points = _onto(box, np.mean(box, axis=1))(_even(LOOKS, len(box)))
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
        plain = _numeric(level, variables)
        first = tuple(sympy.diff(level, x) for x in variables)
        slope, curvature = _numeric(first, variables), _numeric(_matrix(first, variables), variables)
        scale = float(np.nanmedian(np.abs(plain(_onto(box, np.mean(box, axis=1))(_even(LOOKS, len(box)))))))
        low = _minima(_size(plain), box, np.mean(box, axis=1), LOOKS)[0]
        for rough in low:
            nice = [Fraction(float(at)).limit_denominator(1000) for at in rough]
            exact = {x: sympy.Rational(q.numerator, q.denominator) for x, q in zip(variables, nice, strict=True)}
            near = np.array([float(q) for q in nice])
            if np.abs(near - rough).max() <= 1e-4 * np.ptp(box) and _inside(near, box) and level.subs(exact) == 0:
                found.append(near)
                continue
            point = _polished(rough, slope, curvature, box)
            # Above zero by more than rounding, it is rounded off already.
            if abs(float(plain(point))) <= 1e-18 * scale:
                found.append(point)
    return found


def _size(height: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: np.abs(height(x))


def _inside(point: Array, box: Bounds) -> bool:
    lower, upper = np.array(box).T
    return bool(((lower <= point) & (point <= upper)).all())


def _corner(slope: Callable[[Array], Array], point: Array, box: Bounds) -> bool:
    """Return whether the gradient's jump across a point stays, however closely one looks."""
    wide = float(np.ptp(box, axis=1).min())
    ways = 2.0 * _even(2 * len(box) + 1, len(box)) - 1.0  # from corner to corner of a cube
    jumps = []
    for h in (1e-3 * wide, 1e-5 * wide):
        if not (_inside(point + h, box) and _inside(point - h, box)):
            return False  # on the border there is no other side
        jumps.append(float(np.abs(slope(point + h * ways) - slope(point - h * ways)).max()))
    size = 1.0 + float(np.abs(slope(point)).max())
    return bool(jumps[1] > 1e-6 * size and jumps[1] > 0.9 * jumps[0])  # a smooth gradient's has shrunk to 1/100


# the optimum


def optimum(
    f: Function, written: sympy.Expr, variables: tuple[sympy.Symbol, ...], bounds: Bounds, start: Array
) -> Fact[Array]:
    """Return a minimizer on the box, the one nearest to the start if there are many.

    `written` is the same function before it was multiplied out, when squares may still be seen.
    """
    if f.terms is not None:
        found = [
            _minimizer(parts, x, lo, hi, near)
            for parts, x, (lo, hi), near in zip(f.terms, variables, bounds, start, strict=True)
        ]
        notes = tuple(note for fact in found for note in fact.notes)
        best = [fact.value for fact in found if fact.value is not None]
        return Fact(np.array(best), notes) if len(best) == len(found) else Fact(None, notes)
    box = dict(zip(variables, bounds, strict=True))
    return _searched_minimizer(f, shape(written, box).convex or shape(f.expr, box).convex, variables, bounds, start)


def _minimizer(parts: Sequence[Piece], x: sympy.Symbol, lo: float, hi: float, near: float) -> Fact[float]:
    """Return the minimizer of a function of one variable on [lo, hi]."""
    inside = [part for part in (part.clipped(lo, hi) for part in parts) if part is not None]
    found: list[tuple[float, float]] = []
    edge: list[tuple[float, sympy.Expr]] = []
    note: tuple[str, ...] = ()
    for part in inside:
        slope = sympy.diff(part.expr, x)
        at = [part.lo, part.hi, *roots(slope, x, part.lo, part.hi)]
        if not part.expr.has(x) and float(part.lo) <= near <= float(part.hi):
            at.append(number(near))
        if not (_settled(part.expr, part, x) or _convex(part, x)):
            note = (f"optimum: found by search in {x}; {SOUGHT}.",)
            at += _lowest(_numeric(part.expr, (x,)), slope, x, _ends(part), near)
        found += [(one_sided(part.expr, x, z, "+" if z == part.lo else "-"), float(z)) for z in at if z.is_finite]
        edge += [(one_sided(part.expr, x, z, "-"), z) for z in (part.lo, part.hi) if z.is_infinite]
    found = [pair for pair in found if not math.isnan(pair[0])]
    least = min((f for f, _ in found), default=math.inf)
    for height, where in edge:
        if math.isnan(height):
            return Fact(None, (f"optimum: the objective's limit as {x} goes to {where} is not known.",))
        if height < (least - FLAT * abs(least) if math.isfinite(least) else least):
            how = "falls without bound" if height == -math.inf else f"falls towards {height:.6g} and does not reach it"
            return Fact(None, (f"optimum: the objective {how} as {x} goes to {where}.",))
    if not math.isfinite(least):
        return Fact(None, (f"optimum: the objective has no finite minimum in {x}.",))
    tied = sorted((z for f, z in found if f <= least + FLAT * abs(least)), key=lambda z: abs(z - near))
    spread = max(tied) - min(tied)
    level = any(not part.expr.has(x) and float(part.lo) <= tied[0] <= float(part.hi) for part in inside)
    unique = not level and spread <= 1e-6 * (1 + abs(tied[0]))  # minima that close are rounded twins of one
    if not unique:
        note = (f"optimum: not unique in {x}; the one nearest to the start is given.", *note)
    best = min((f, z) for f, z in found)[1] if unique else tied[0]
    return Fact(best + 0.0, note)


def _ends(part: Piece) -> tuple[float, float]:
    return float(part.lo), float(part.hi)


def _convex(part: Piece, x: sympy.Symbol) -> bool:
    box = {x: _ends(part)}
    return shape(part.expr, box).convex or shape(sympy.diff(part.expr, x, 2), box).lo >= 0


def _settled(expr: sympy.Expr, part: Piece, x: sympy.Symbol) -> bool:
    """Return whether the extrema of an expression on a piece are certain: its critical points are exact, or none."""
    slope = sympy.diff(expr, x)
    if slope.is_rational_function(x):
        return True
    proved = shape(slope, {x: _ends(part)})
    return proved.lo >= 0 or proved.hi <= 0


def _searched_minimizer(
    f: Function, convex: bool, variables: tuple[sympy.Symbol, ...], bounds: Bounds, start: Array
) -> Fact[Array]:
    height, slope = _numeric(f.expr, variables), _numeric(f.gradient, variables)
    curvature = _hessian(f, variables)
    constant = not any(h.free_symbols for h in curvature)
    open_box = not np.isfinite(bounds).all()
    if constant and not np.isfinite(bounds).any():
        return _vertex(np.array(curvature.tolist(), dtype=np.float64), slope, start)
    if convex:
        starts = _onto(bounds, start)(_even(STARTS, len(bounds)))
    else:
        starts = _minima(height, bounds, start)[0]
    runs = []
    for x0 in (start, *starts):
        if math.isfinite(height(x0)):
            runs.append(_descent(height, slope, x0, bounds))
    if not runs:
        return Fact(None, ("optimum: the objective has no finite value at the start or at the points tried.",))
    least = min(f for f, _ in runs)
    tied = [x for f, x in runs if f <= least + 1e-9 * (1 + abs(least))]
    if open_box and (least < -1e12 or min(np.abs(x).max() for x in tied) > 1e9):
        return Fact(None, ("optimum: the objective falls without bound, or its minimizer lies beyond 1e9.",))
    nearest = min(tied, key=lambda x: float(np.linalg.norm(x - start)))
    bends = _numeric(curvature, variables)
    x = _polished(nearest, slope, bends, bounds)
    if not height(x) <= least + FLAT * (1 + abs(least)):
        x = min(runs, key=lambda run: run[0])[1]
    notes: tuple[str, ...] = ()
    if max(float(np.abs(other - x).max()) for other in tied) > 1e-2 * (1 + float(np.abs(x).max())):
        if open_box and not _strict(bends(x)):
            return Fact(
                None, (f"optimum: descents from {len(runs)} points end in different places at the same height.",)
            )
        notes = ("optimum: not unique; of those found, the one nearest to the start is given.",)
    if not convex:
        notes += (f"optimum: found by search; {SOUGHT}.",)
    return Fact(x, notes)


def _descent(
    height: Callable[[Array], Array], slope: Callable[[Array], Array], x0: Array, bounds: Bounds
) -> tuple[float, Array]:
    """Return the value and the place where a descent ends."""
    run = optimize.minimize(
        lambda x: float(np.nan_to_num(height(x), nan=1e300)),
        x0,
        jac=lambda x: np.nan_to_num(slope(x)),
        bounds=bounds,
        method=DESCENT,
        options={"maxfun": 1000},
        tol=1e-14,
    )
    return float(run.fun), np.asarray(run.x, dtype=np.float64)


def _strict(curvature: Array) -> bool:
    """Return whether a function with this curvature rises clearly in all directions, as at an isolated minimum."""
    eigenvalues = np.linalg.eigvalsh(curvature) if np.isfinite(curvature).all() else np.zeros(1)
    return bool(eigenvalues[0] > 1e-6 * eigenvalues[-1])


def _vertex(curvature: Array, slope: Callable[[Array], Array], start: Array) -> Fact[Array]:
    """Return the minimizer of a quadratic function without bounds, the one nearest to the start."""
    g = slope(start)
    eigenvalues, axes = np.linalg.eigh(curvature)
    along = axes.T @ g
    flat = np.abs(eigenvalues) <= 1e-12 * np.abs(eigenvalues).max(initial=0.0)
    if (eigenvalues[~flat] < 0).any() or np.abs(along[flat]).max(initial=0.0) > 1e-9 * (1 + np.abs(g).max()):
        return Fact(None, ("optimum: the objective falls without bound.",))
    step = np.where(flat, 0.0, along / np.where(flat, 1.0, eigenvalues))
    note = ("optimum: not unique; the one nearest to the start is given.",) if flat.any() else ()
    return Fact(start - axes @ step + 0.0, note)


def _polished(x: Array, slope: Callable[[Array], Array], curvature: Callable[[Array], Array], bounds: Bounds) -> Array:
    """Take Newton steps in the coordinates that no bound holds, while they make the gradient smaller."""
    lower, upper = np.array(bounds).T
    for _ in range(20):
        g = slope(x)
        near = 1e-9 * (1 + np.abs(x))
        free = ~(((x - lower <= near) & (g > 0)) | ((upper - x <= near) & (g < 0)))
        x = np.where((x - lower <= near) & (g > 0), lower, np.where((upper - x <= near) & (g < 0), upper, x))
        h = curvature(x)[np.ix_(free, free)]
        if not free.any() or not np.isfinite(h).all():
            return x
        new = x.copy()
        new[free] -= np.linalg.lstsq(h, g[free], rcond=None)[0]
        new = np.clip(new, lower, upper)
        if not np.abs(slope(new)[free]).max() < np.abs(g[free]).max():
            return x
        x = new
    return x


# bounds on derivatives


def lipschitz(name: str, who: str, f: Function, variables: tuple[sympy.Symbol, ...], bounds: Bounds) -> Fact[float]:
    """Return sup ‖∇²f‖ on the box, which is the Lipschitz constant of ∇f."""
    if f.terms is not None:
        tops, certain = _tops(f, variables, bounds, 2)
        return _finite(max(tops), name, who, f"the gradient of {who} is not Lipschitz on the domain", certain)
    curvature = _hessian(f, variables)
    if not any(h.free_symbols for h in curvature):
        return Fact(float(np.abs(np.linalg.eigvalsh(np.array(curvature.tolist(), dtype=np.float64))).max()))
    if not np.isfinite(bounds).all():
        return Fact(None, (f"{name}: the second derivatives of {who} are not constant, and the domain is unbounded.",))
    hessian = _numeric(curvature, variables)

    def norms(x: Array) -> Array:
        h = hessian(x)
        lost = np.any(~np.isfinite(h), axis=(-2, -1))
        sizes = np.abs(np.linalg.eigvalsh(np.where(np.isfinite(h), h, 0.0))).max(axis=-1)
        return np.where(lost, np.inf, sizes)

    return _searched(name, who, norms, bounds)


def gradient_bound(
    name: str, who: str, f: Function, variables: tuple[sympy.Symbol, ...], bounds: Bounds
) -> Fact[float]:
    """Return sup ‖∇f‖ on the box."""
    unbounded = f"the gradient of {who} is unbounded on the domain"
    if f.terms is not None:
        tops, certain = _tops(f, variables, bounds, 1)
        return _finite(math.hypot(*tops), name, who, unbounded, certain)
    slope = _numeric(f.gradient, variables)
    quadratic = not any(h.free_symbols for h in _hessian(f, variables))
    if not np.isfinite(bounds).all():
        reason = f"the gradient of {who} is not known to be bounded on an unbounded domain"
        return Fact(None, (f"{name}: {unbounded if quadratic else reason}.",))
    if quadratic and len(bounds) <= MANY:  # ‖Ax + b‖ is convex: a corner has the largest
        return Fact(max(float(np.linalg.norm(slope(np.array(x)))) for x in itertools.product(*bounds)))
    return _searched(name, who, lambda x: np.linalg.norm(slope(x), axis=-1), bounds)


def _finite(top: float, name: str, who: str, reason: str, certain: bool) -> Fact[float]:
    if math.isnan(top):
        return Fact(None, (f"{name}: a limit could not be found, so that it is not known whether {reason}.",))
    if not math.isfinite(top):
        return Fact(None, (f"{name}: {reason}.",))
    return Fact(top, () if certain else (_sought(name, who),))


def _sought(name: str, who: str) -> str:
    return f"{name}: that of {who} was found by search; it may be larger."


def _tops(f: Function, variables: tuple[sympy.Symbol, ...], bounds: Bounds, order: int) -> tuple[list[float], bool]:
    """Return the supremum of this derivative of each term of one variable, and whether all are certain."""
    assert f.terms is not None
    out, certain = [], True
    for parts, x, (lo, hi) in zip(f.terms, variables, bounds, strict=True):
        for _ in range(order):
            parts = derivative(parts, x)  # noqa: PLW2901
        inside = [part for part in (part.clipped(lo, hi) for part in parts) if part is not None]
        settled = [_settled(part.expr, part, x) for part in inside]
        tops = [_top(part, x, known) for part, known in zip(inside, settled, strict=True)]
        certain = certain and all(settled)
        out.append(math.nan if any(map(math.isnan, tops)) and math.inf not in tops else max(tops))
    return out, certain


def _top(part: Piece, x: sympy.Symbol, settled: bool) -> float:
    """Return sup |expr| on a piece, inf where it is unbounded, NaN where a limit is not found."""
    if not part.expr.has(x):
        return abs(float(part.expr))
    slope = sympy.diff(part.expr, x)
    inner = roots(slope, x, part.lo, part.hi)
    found = [abs(one_sided(part.expr, x, part.lo, "+")), abs(one_sided(part.expr, x, part.hi, "-"))]
    if not settled:
        size = _size(_numeric(part.expr, (x,)))
        inner += _lowest(lambda z: -size(z), slope, x, _ends(part), float(part.inside))
    found += [abs(value(part.expr, x, z)) for z in inner]
    if math.inf in found:
        return math.inf
    return math.nan if any(map(math.isnan, found)) else max(found)


def _searched(name: str, who: str, height: Callable[[Array], Array], bounds: Bounds) -> Fact[float]:
    """Return the largest value that a search on a finite box finds."""
    corners = np.array(list(itertools.product(*bounds)) if len(bounds) <= MANY else [], dtype=np.float64)
    points, depths = _minima(lambda x: -height(x), bounds, np.mean(bounds, axis=1), more=corners)
    heights = -depths
    if len(points) and np.isfinite(heights).all():
        best = float(heights[0])
        for point in points[:4]:
            run = optimize.minimize(lambda x: -float(height(x)), point, bounds=bounds, method=DESCENT)
            best = max(best, -float(run.fun))
        if math.isfinite(best):
            return Fact(best, (_sought(name, who),))
    return Fact(None, (f"{name}: a derivative of {who} is not finite everywhere on the domain.",))


# search


def _lowest(
    height: Callable[[Array], Array], slope: sympy.Expr, x: sympy.Symbol, ends: tuple[float, float], near: float
) -> list[sympy.Expr]:
    """Return where the lowest local minima that a search finds between two ends lie, before and after polishing."""
    rough = _minima(height, [ends], np.clip([near], *ends))[0]
    first, second = _numeric((slope,), (x,)), _numeric(sympy.Matrix([[sympy.diff(slope, x)]]), (x,))
    polished = [_polished(at, first, second, [ends]) for at in rough]
    return [number(float(at[0])) for at in (*rough, *polished)]


def _minima(
    height: Callable[[Array], Array], bounds: Bounds, near: Array, count: int = SAMPLES, more: Array | None = None
) -> tuple[Array, Array]:
    """Return local minima of a function of points `(..., dim)` on a box, `(n, dim)`, and their values, lowest first.

    Of evenly spread samples, and of `more` points, those that are lower than their neighbours are followed downhill,
    all at once, and the lowest few kept. Of equal minima those nearest to `near` come first. Far out on an unbounded
    side samples are few; there the search begins again around the lowest point while that helps.
    """
    x, y = _followed(height, bounds, near, count, more)
    for _ in range(0 if np.isfinite(bounds).all() or not len(x) else AGAIN):
        least = y.min()
        closer, lower = _followed(height, bounds, x[0], count, None)
        x, y = _sifted(np.concatenate([x, closer]), np.concatenate([y, lower]), near, bounds)
        if not y.min() < least - FLAT * abs(least):
            break
    return x, y


def _followed(
    height: Callable[[Array], Array], bounds: Bounds, near: Array, count: int, more: Array | None
) -> tuple[Array, Array]:
    dim = len(bounds)
    place = _onto(bounds, near)

    def level(u: Array) -> Array:
        return np.nan_to_num(height(place(u)), nan=np.inf, posinf=np.inf, neginf=-np.inf)

    u = _even(min(count, max(STARTS, ROOM // dim**2)), dim)
    if more is not None and len(more):
        lower, upper = np.array(bounds).T
        u = np.concatenate([u, (more - lower) / (upper - lower)])
    y = level(u)
    low = np.flatnonzero(y < np.inf)
    if dim <= CROWDED:
        _, beside = cKDTree(u).query(u, k=min(2 * dim + 2, len(u)))
        low = low[(y[low, None] <= y[beside[low]]).all(axis=1)]
    low = low[np.argsort(y[low], kind="stable")][: max(STARTS, min(BASINS, ROOM // (2 * dim**3)))]
    u, y = _downhill(level, u[low], y[low], len(u) ** (-1 / dim))
    return _sifted(place(u), y, near, bounds)


def _sifted(x: Array, y: Array, near: Array, bounds: Bounds) -> tuple[Array, Array]:
    """Return the lowest few points, equal ones by their distance from `near`, without those that coincide."""
    if not len(x):
        return x, y
    least, width = float(y.min()), np.ptp(bounds, axis=1)
    above = y > (least + 1e-9 * (1 + abs(least)) if math.isfinite(least) else least)
    order = np.lexsort((np.where(above, y, np.linalg.norm(x - near, axis=1)), above))
    kept: list[int] = []
    for k in order:
        close = APART * np.where(np.isfinite(width), width, 10 * (1 + np.abs(x[k])))
        if not any((np.abs(x[j] - x[k]) <= close).all() for j in kept):
            kept.append(int(k))
        if len(kept) == STARTS:
            break
    return x[kept], y[kept]


def _downhill(level: Callable[[Array], Array], u: Array, y: Array, step: float) -> tuple[Array, Array]:
    """Move points `(n, dim)` of the unit cube along the axes while that lowers them, all at once, in ever finer steps.

    A compass search: it asks for no derivatives, so that it also climbs norms of gradients and of second derivatives.
    """
    n, dim = u.shape
    ways = np.concatenate([np.eye(dim), -np.eye(dim)])
    steps = np.full(n, step)
    for _ in range(ROUNDS):
        going = np.flatnonzero(steps > FINEST)
        if not len(going):
            break
        tried = np.clip(u[going, None] + steps[going, None, None] * ways, 0.0, 1.0)
        heights = level(tried)
        best = heights.argmin(axis=1)
        rows = np.arange(len(going))
        lower = heights[rows, best] < y[going]
        steps[going[~lower]] /= 2
        moved = going[lower]
        u[moved], y[moved] = tried[rows, best][lower], heights[rows, best][lower]
    return u, y


def _even(count: int, dim: int) -> Array:
    """Return points spread evenly in the unit cube, `(count, dim)`: multiples of the roots of primes, modulo 1.

    After Richtmyer (1951); the gaps shrink like count^(-1/dim) and never line up, unlike those of a grid.
    """
    roots_of_primes = np.sqrt([float(sympy.prime(j + 1)) for j in range(dim)])
    return (0.5 + np.outer(np.arange(count), roots_of_primes)) % 1.0


def _onto(bounds: Bounds, near: Array) -> Callable[[Array], Array]:
    """Return the map of the unit cube onto a box: evenly onto finite sides, ever more widely around `near` onto others.

    A side with one finite end is folded there.
    """
    lower, upper = np.array(bounds).T
    bounded = np.isfinite(lower) & np.isfinite(upper)
    lo, hi = np.where(bounded, lower, 0.0), np.where(bounded, upper, 1.0)
    left, right = np.isfinite(lower) & ~bounded, np.isfinite(upper) & ~bounded
    end = np.where(left, lower, np.where(right, upper, 0.0))

    def place(u: Array) -> Array:
        wide = near + NEAR * np.sinh(REACH * (2.0 * u - 1.0))
        wide = np.where(left, end + np.abs(wide - end), np.where(right, end - np.abs(wide - end), wide))
        return np.clip(np.where(bounded, lo + (hi - lo) * u, wide), lower, upper)

    return place


def _hessian(f: Function, variables: tuple[sympy.Symbol, ...]) -> sympy.Matrix:
    """Return the second derivatives where they exist, without the pulses at kinks."""
    return _matrix(f.gradient, variables)


def _matrix(gradient: tuple[sympy.Expr, ...], variables: tuple[sympy.Symbol, ...]) -> sympy.Matrix:
    """Return the derivatives of a gradient, without the pulses at kinks."""
    plain = sympy.Matrix([[_without_pulses(sympy.diff(g, x)) for x in variables] for g in gradient])
    return plain if plain.has(*KINKED) else plain.applyfunc(sympy.expand)


def _without_pulses(expr: sympy.Expr) -> sympy.Expr:
    return expr.replace(lambda e: isinstance(e, sympy.DiracDelta), lambda e: sympy.S.Zero)


def _numeric(expr: Any, variables: tuple[sympy.Symbol, ...]) -> Callable[[Array], Array]:
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


EXTREMES = {"Max": lambda *args: reduce(np.maximum, args), "Min": lambda *args: reduce(np.minimum, args)}
"""SymPy's own translation takes numbers and arrays together for a ragged array."""
