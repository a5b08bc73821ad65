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
from typing import Generic, TypeVar

import numpy as np
import sympy
from numpy.typing import NDArray
from scipy import optimize

from .convexity import shape
from .kernels import Function
from .numeric import magnitude, numeric, second_derivatives
from .pieces import Piece, derivative, number, one_sided, roots, value
from .search import FLAT, STARTS, Bounds, even, lowest, minima, onto, polished

Array = NDArray[np.float64]
Held = TypeVar("Held")

DESCENT = "TNC"
"""It knows bounds and, unlike L-BFGS-B, waits for no threads of a linear algebra library, which cost 1 ms a step."""
MANY = 12
"""Beyond so many variables the corners of a box are too many to visit."""
SOUGHT = "it may be a local minimum, as the objective was not proved convex"


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
            at += lowest(numeric(part.expr, (x,)), slope, x, _ends(part), near)
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
    height, slope = numeric(f.expr, variables), numeric(f.gradient, variables)
    curvature = _hessian(f, variables)
    constant = not any(h.free_symbols for h in curvature)
    open_box = not np.isfinite(bounds).all()
    if constant and not np.isfinite(bounds).any():
        return _vertex(np.array(curvature.tolist(), dtype=np.float64), slope, start)
    if convex:
        starts = onto(bounds, start)(even(STARTS, len(bounds)))
    else:
        starts = minima(height, bounds, start)[0]
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
    bends = numeric(curvature, variables)
    x = polished(nearest, slope, bends, bounds)
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
    hessian = numeric(curvature, variables)

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
    slope = numeric(f.gradient, variables)
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
        size = magnitude(numeric(part.expr, (x,)))
        inner += lowest(lambda z: -size(z), slope, x, _ends(part), float(part.inside))
    found += [abs(value(part.expr, x, z)) for z in inner]
    if math.inf in found:
        return math.inf
    return math.nan if any(map(math.isnan, found)) else max(found)


def _searched(name: str, who: str, height: Callable[[Array], Array], bounds: Bounds) -> Fact[float]:
    """Return the largest value that a search on a finite box finds."""
    corners = np.array(list(itertools.product(*bounds)) if len(bounds) <= MANY else [], dtype=np.float64)
    points, depths = minima(lambda x: -height(x), bounds, np.mean(bounds, axis=1), more=corners)
    heights = -depths
    if len(points) and np.isfinite(heights).all():
        best = float(heights[0])
        for point in points[:4]:
            run = optimize.minimize(lambda x: -float(height(x)), point, bounds=bounds, method=DESCENT)
            best = max(best, -float(run.fun))
        if math.isfinite(best):
            return Fact(best, (_sought(name, who),))
    return Fact(None, (f"{name}: a derivative of {who} is not finite everywhere on the domain.",))


def _hessian(f: Function, variables: tuple[sympy.Symbol, ...]) -> sympy.Matrix:
    """Return the second derivatives where they exist, without the pulses at kinks."""
    return second_derivatives(f.gradient, variables)
