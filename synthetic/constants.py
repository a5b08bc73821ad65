"""What is known about a function on a box: its minimizer, the Lipschitz constant of its gradient, a gradient bound.

Sums of functions of one variable are taken apart into smooth pieces and solved at their ends and critical points,
exactly for polynomials; quadratic functions of several variables by linear algebra. What is left is searched for
numerically, and then a note says so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import sympy
from numpy.typing import NDArray
from scipy import optimize

from .kernels import Function
from .pieces import JUMP, KINKED, Piece, derivative, number, one_sided, pieces, roots, value

Array = NDArray[np.float64]
Bounds = list[tuple[float, float]]
Held = TypeVar("Held")

SAMPLES, STARTS = 256, 8
"""Points at which a search looks, and the best of them from which it climbs or descends."""
DESCENT = "TNC"
"""It knows bounds and, unlike L-BFGS-B, waits for no threads of a linear algebra library, which cost 1 ms a step."""
MANY = 12
"""Beyond so many variables the corners of a box are too many to visit."""
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
    """Raise ValueError where a function has a jump, a corner or a pole inside the box, if that can be decided.

    A function that is no sum of functions of one variable is looked at along a few lines.
    """
    if terms is not None:
        for parts, x, (lo, hi) in zip(terms, variables, bounds, strict=True):
            _require_smooth(who, parts, x, lo, hi, _coordinate(x))
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


# the optimum


def optimum(f: Function, variables: tuple[sympy.Symbol, ...], bounds: Bounds, start: Array) -> Fact[Array]:
    """Return a minimizer on the box, the one nearest to the start if there are many."""
    if f.terms is not None:
        found = [
            _minimizer(parts, x, lo, hi, near)
            for parts, x, (lo, hi), near in zip(f.terms, variables, bounds, start, strict=True)
        ]
        notes = tuple(note for fact in found for note in fact.notes)
        best = [fact.value for fact in found if fact.value is not None]
        return Fact(np.array(best), notes) if len(best) == len(found) else Fact(None, notes)
    return _searched_minimizer(f, variables, bounds, start)


def _minimizer(parts: Sequence[Piece], x: sympy.Symbol, lo: float, hi: float, near: float) -> Fact[float]:
    """Return the minimizer of a function of one variable on [lo, hi]."""
    inside = [part for part in (part.clipped(lo, hi) for part in parts) if part is not None]
    found: list[tuple[float, float]] = []
    edge: list[tuple[float, sympy.Expr]] = []
    for part in inside:
        slope = sympy.diff(part.expr, x)
        at = [part.lo, part.hi, *roots(slope, x, part.lo, part.hi)]
        if not part.expr.has(x) and float(part.lo) <= near <= float(part.hi):
            at.append(number(near))
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
    note = () if unique else (f"optimum: not unique in {x}; the one nearest to the start is given.",)
    best = min((f, z) for f, z in found)[1] if unique else tied[0]
    return Fact(best + 0.0, note)


def _searched_minimizer(f: Function, variables: tuple[sympy.Symbol, ...], bounds: Bounds, start: Array) -> Fact[Array]:
    height, slope = _numeric(f.expr, variables), _numeric(f.gradient, variables)
    curvature = _hessian(f, variables)
    constant = not any(h.free_symbols for h in curvature)
    open_box = not np.isfinite(bounds).all()
    if constant and not np.isfinite(bounds).any():
        return _vertex(np.array(curvature.tolist(), dtype=np.float64), slope, start)
    kwargs = {
        "jac": lambda x: np.nan_to_num(slope(x)),
        "bounds": bounds,
        "method": DESCENT,
        "options": {"maxfun": 1000},
    }
    runs = []
    for x0 in (start, *_points(bounds, start, STARTS)):
        if math.isfinite(height(x0)):
            runs.append(optimize.minimize(lambda x: np.nan_to_num(height(x), nan=1e300), x0, **kwargs, tol=1e-14))
    if not runs:
        return Fact(None, ("optimum: the objective has no finite value at the start or at the points tried.",))
    best = min(runs, key=lambda run: float(run.fun))
    if open_box and (best.fun < -1e12 or np.abs(best.x).max() > 1e9):
        return Fact(None, ("optimum: the objective falls without bound, or its minimizer lies beyond 1e9.",))
    x = _polished(np.asarray(best.x), slope, _numeric(curvature, variables), bounds)
    if not height(x) <= best.fun + FLAT * (1 + abs(best.fun)):
        x = np.asarray(best.x)
    spread = max(float(np.abs(run.x - x).max()) for run in runs if run.fun <= best.fun + 1e-9 * (1 + abs(best.fun)))
    notes: tuple[str, ...] = ()
    if open_box and spread > 1e-2 * (1 + float(np.abs(x).max())):
        return Fact(None, (f"optimum: descents from {len(runs)} points end in different places at the same height.",))
    if spread > 1e-2 * (1 + float(np.abs(x).max())):
        notes = ("optimum: not unique; one of several is given.",)
    if not (constant and np.linalg.eigvalsh(np.array(curvature.tolist(), dtype=np.float64)).min() >= 0):
        notes += (f"optimum: found by descent from {len(runs)} points.",)
    return Fact(x, notes)


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
        tops = _tops(f, variables, bounds, 2)
        return _finite(max(tops), name, f"the gradient of {who} is not Lipschitz on the domain")
    curvature = _hessian(f, variables)
    if not any(h.free_symbols for h in curvature):
        return Fact(float(np.abs(np.linalg.eigvalsh(np.array(curvature.tolist(), dtype=np.float64))).max()))
    if not np.isfinite(bounds).all():
        return Fact(None, (f"{name}: the second derivatives of {who} are not constant, and the domain is unbounded.",))
    hessian = _numeric(curvature, variables)
    return _searched(name, who, lambda x: float(np.linalg.norm(hessian(x), 2)), bounds)


def gradient_bound(
    name: str, who: str, f: Function, variables: tuple[sympy.Symbol, ...], bounds: Bounds
) -> Fact[float]:
    """Return sup ‖∇f‖ on the box."""
    unbounded = f"the gradient of {who} is unbounded on the domain"
    if f.terms is not None:
        return _finite(math.hypot(*_tops(f, variables, bounds, 1)), name, unbounded)
    slope = _numeric(f.gradient, variables)
    quadratic = not any(h.free_symbols for h in _hessian(f, variables))
    if not np.isfinite(bounds).all():
        reason = f"the gradient of {who} is not known to be bounded on an unbounded domain"
        return Fact(None, (f"{name}: {unbounded if quadratic else reason}.",))
    if quadratic and len(bounds) <= MANY:  # ‖Ax + b‖ is convex: a corner has the largest
        return Fact(max(float(np.linalg.norm(slope(np.array(x)))) for x in itertools.product(*bounds)))
    return _searched(name, who, lambda x: float(np.linalg.norm(slope(x))), bounds)


def _finite(top: float, name: str, reason: str) -> Fact[float]:
    if math.isnan(top):
        return Fact(None, (f"{name}: a limit could not be found, so that it is not known whether {reason}.",))
    return Fact(top) if math.isfinite(top) else Fact(None, (f"{name}: {reason}.",))


def _tops(f: Function, variables: tuple[sympy.Symbol, ...], bounds: Bounds, order: int) -> list[float]:
    """Return, for each term of one variable, the supremum of its derivative of this order in absolute value."""
    assert f.terms is not None
    out = []
    for parts, x, (lo, hi) in zip(f.terms, variables, bounds, strict=True):
        for _ in range(order):
            parts = derivative(parts, x)  # noqa: PLW2901
        inside = [part for part in (part.clipped(lo, hi) for part in parts) if part is not None]
        tops = [_top(part, x) for part in inside]
        out.append(math.nan if any(map(math.isnan, tops)) and math.inf not in tops else max(tops))
    return out


def _top(part: Piece, x: sympy.Symbol) -> float:
    """Return sup |expr| on a piece, inf where it is unbounded, NaN where a limit is not found."""
    if not part.expr.has(x):
        return abs(float(part.expr))
    inner = roots(sympy.diff(part.expr, x), x, part.lo, part.hi)
    found = [abs(one_sided(part.expr, x, part.lo, "+")), abs(one_sided(part.expr, x, part.hi, "-"))]
    found += [abs(value(part.expr, x, z)) for z in inner]
    if math.inf in found:
        return math.inf
    return math.nan if any(map(math.isnan, found)) else max(found)


def _searched(name: str, who: str, height: Callable[[Array], float], bounds: Bounds) -> Fact[float]:
    """Return the largest value that a search on a finite box finds."""
    middle = np.mean(bounds, axis=1)
    points = [middle, *_points(bounds, middle, SAMPLES)]
    if len(bounds) <= MANY:
        points += [np.array(corner) for corner in itertools.product(*bounds)]
    heights = np.array([height(x) for x in points])
    if not np.isfinite(heights).all():
        return Fact(None, (f"{name}: a derivative of {who} is not finite everywhere on the domain.",))
    best = float(heights.max())
    for k in np.argsort(heights)[-4:]:
        run = optimize.minimize(lambda x: -height(x), points[k], bounds=bounds, method=DESCENT)
        best = max(best, -float(run.fun))
    return Fact(best, (f"{name}: that of {who} was found by search; it may be a little larger.",))


def _hessian(f: Function, variables: tuple[sympy.Symbol, ...]) -> sympy.Matrix:
    """Return the second derivatives where they exist, without the pulses at kinks."""
    rows = [[sympy.diff(g, x) for x in variables] for g in f.gradient]
    plain = sympy.Matrix(rows).replace(lambda e: isinstance(e, sympy.DiracDelta), lambda e: sympy.S.Zero)
    return plain if plain.has(*KINKED) else plain.applyfunc(sympy.expand)


def _numeric(expr: object, variables: tuple[sympy.Symbol, ...]) -> Callable[[Array], Array]:
    """Return an expression, a tuple or a matrix as a function of a point `(dim,)`; NaN where it is not defined."""
    compiled = sympy.lambdify(variables, expr, "numpy")

    def at(x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.array(compiled(*x), dtype=np.float64)

    return at


def _points(bounds: Bounds, start: Array, count: int) -> list[Array]:
    """Return points of a box, evenly in its finite sides and around the start in the others."""
    rng = np.random.default_rng(0)
    lower, upper = np.array(bounds).T
    bounded = np.isfinite(lower) & np.isfinite(upper)
    lo, hi = np.where(bounded, lower, 0.0), np.where(bounded, upper, 1.0)
    spread = 10.0 ** rng.uniform(-1, 2, (count, 1))
    out = np.where(
        bounded, rng.uniform(lo, hi, (count, len(bounds))), start + spread * rng.normal(size=(count, len(bounds)))
    )
    return list(np.clip(out, lower, upper))
