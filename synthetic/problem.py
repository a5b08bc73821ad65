"""Problem: component functions stated symbolically, in an order of arrival, on a box; everything else follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import sympy
from numpy.typing import NDArray

from . import constants, kernels, regularity
from .arrivals import Arrival, Random
from .compiled import module_of
from .constants import Fact
from .kernels import Function
from .noise import Noise, require_noise
from .pieces import Piece, derivative, joined, merged, mixture, pieces, tidy

Array = NDArray[np.float64]
Kernel = Callable[[int, Array, Array], float]
Terms = tuple[tuple[Piece, ...], ...]

ENDLESS = (sympy.nan.func, sympy.oo.func, (-sympy.oo).func, sympy.zoo.func)
"""What a component has no place for: an infinite number, or none."""
LEGIBLE = 40  # characters of components in a title
COMPILED = ("kernel", "_plain")
"""What is made anew in another process instead of being sent there."""


class Problem:
    """Minimize the mean Σ w_i f_i over a box, while one component f_i with its gradient arrives at each step.

    The weights w_i are the long-run shares of the order of arrival. Components are SymPy expressions, or anything that
    `sympy.sympify` reads, such as "x**2/2"; also piecewise, in any number of variables.

    Args:
        components: the functions f_i.
        arrival: in which order they arrive: `Random()`, `Cyclic(...)`, `Shuffled()`, or an `Arrival` of your own.
        domain: (lo, hi) for all variables, or one such pair for each; None or ±oo where there is no bound.
        variables: their order; needed when there are several.
        start: the first iterate, a number or one for each variable; default: the middle of a finite box, or else 1.
        noise: what is added to each gradient.
        name: for tables and reports.

    Raises:
        ValueError: for components that are no real expressions in the variables or have no finite gradient somewhere
            on the closed domain, an empty domain, a start outside it, or an order of arrival that does not fit.

    >>> import sympy
    >>> from stepscope.synthetic.arrivals import Cyclic
    >>> x = sympy.Symbol("x")
    >>> problem = Problem([1010 * x, -10 * x], Cyclic([0] + [1] * 100), domain=(-1, 1))
    >>> problem.objective, problem.optimum, problem.gradient_bound
    (10*x/101, array([-1.]), 1010.0)
    """

    def __init__(
        self,
        components: Sequence[sympy.Expr | str | float],
        arrival: Arrival = Random(),  # noqa: B008 - frozen
        *,
        domain: Sequence[Any] | None = None,
        variables: Sequence[sympy.Symbol | str] | sympy.Symbol | str | None = None,
        start: float | Sequence[float] | None = None,
        noise: Noise | None = None,
        name: str = "",
    ) -> None:
        given = _expressions(components)
        self.variables: tuple[sympy.Symbol, ...] = _variables(given, variables)
        self.dim = len(self.variables)
        self.arrival, self.noise, self.name = arrival, noise, name
        _require_arrival(arrival)
        require_noise(noise)
        self.lower, self.upper = _box(domain, self.dim)
        self.start = _start(start, self.lower, self.upper)
        self.weights: Array = np.asarray(arrival.weights(len(given)), dtype=np.float64)
        _known(given, self.variables)
        # Calculus needs real symbols; by name, because x of one assumption is not x of another to SymPy.
        self._x = tuple(sympy.Symbol(v.name, real=True) for v in self.variables)
        real = {v.name: r for v, r in zip(self.variables, self._x, strict=True)}
        self._f = tuple(_real(i, f, real) for i, f in enumerate(given))
        self.components: tuple[sympy.Expr, ...] = tuple(self._public(f) for f in self._f)
        parts = [separated(f, self._x) for f in self._f]
        self._terms = tuple(terms and tuple(merged(part) for part in terms) for terms in parts)
        for i, f in enumerate(self._f):
            if self._f.index(f) == i:  # equal components are looked at once
                regularity.require_differentiable(f"component {i}", f, parts[i], self._x, self._bounds)

    @property
    def _bounds(self) -> list[tuple[float, float]]:
        return list(zip(self.lower.tolist(), self.upper.tolist(), strict=True))

    def _public(self, expr: sympy.Expr) -> sympy.Expr:
        """Return an expression in the user's own symbols."""
        return expr.xreplace(dict(zip(self._x, self.variables, strict=True)))

    # what SymPy derives

    @cached_property
    def _objective(self) -> Function:
        weights = [exact(w) for w in self.weights]
        total = tidy(sympy.Add(*(w * f for w, f in zip(weights, self._f, strict=True))), *self._x)
        if all(terms is not None for terms in self._terms):
            columns = list(zip(*(terms for terms in self._terms if terms is not None), strict=True))
            return self._function(
                total, tuple(mixture(weights, list(c), x) for c, x in zip(columns, self._x, strict=True))
            )
        return self._function(total, separated(total, self._x))

    def _function(self, expr: sympy.Expr, terms: Terms | None) -> Function:
        if terms is None:
            return Function(expr, tuple(sympy.diff(expr, x) for x in self._x), None)
        slopes = tuple(joined(derivative(part, x), x) for part, x in zip(terms, self._x, strict=True))
        return Function(sympy.Add(*(joined(p, x) for p, x in zip(terms, self._x, strict=True))), slopes, terms)

    @cached_property
    def _functions(self) -> tuple[Function, ...]:
        made = {f: self._function(f, terms) for f, terms in zip(self._f, self._terms, strict=True)}
        return tuple(made[f] for f in self._f)

    @cached_property
    def objective(self) -> sympy.Expr:
        """Σ w_i f_i."""
        return self._public(self._objective.expr)

    @cached_property
    def gradients(self) -> tuple[tuple[sympy.Expr, ...], ...]:
        """∂f_i/∂x_j, a row for each component."""
        return tuple(tuple(self._public(g) for g in function.gradient) for function in self._functions)

    def latex(self) -> str:
        """Return the problem as a line of LaTeX: the objective as a mean, its components, the domain."""
        return latex(self)

    # what is known about it

    @cached_property
    def _optimum(self) -> Fact[Array]:
        written = sympy.Add(*(exact(w) * f for w, f in zip(self.weights, self._f, strict=True)))
        return constants.optimum(self._objective, written, self._x, self._bounds, self.start)

    @property
    def optimum(self) -> Array | None:
        """A minimizer of the objective over the domain, `(dim,)`; None where there is none (see `notes`)."""
        return self._optimum.value

    @cached_property
    def minimum(self) -> float | None:
        """The objective at the optimum."""
        return None if self.optimum is None else float(self.value(self.optimum))

    @cached_property
    def optimal_values(self) -> Array:
        """f_i at the optimum, `(n,)`; NaN where there is none."""
        at = np.full(self.dim, np.nan) if self.optimum is None else self.optimum
        return np.array([self._at(i, at)[0] for i in range(len(self._f))])

    @cached_property
    def _lipschitz(self) -> Fact[float]:
        return constants.lipschitz("L", "the objective", self._objective, self._x, self._bounds)

    @property
    def lipschitz(self) -> float | None:
        """L: the smallest Lipschitz constant of the objective's gradient on the domain."""
        return self._lipschitz.value

    @cached_property
    def _component_lipschitz(self) -> Fact[float]:
        return constants.largest(
            constants.lipschitz("component_lipschitz", f"component {i}", f, self._x, self._bounds)
            for i, f in self._different()
        )

    @property
    def component_lipschitz(self) -> float | None:
        """The largest Lipschitz constant of a component's gradient on the domain."""
        return self._component_lipschitz.value

    @cached_property
    def _gradient_bound(self) -> Fact[float]:
        return constants.largest(
            constants.gradient_bound("H", f"component {i}", f, self._x, self._bounds) for i, f in self._different()
        )

    @property
    def gradient_bound(self) -> float | None:
        """H: the largest ‖∇f_i‖ of any component on the domain, without noise."""
        return self._gradient_bound.value

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for everything that does not exist or was found by search, with the reason."""
        facts = (self._optimum, self._lipschitz, self._component_lipschitz, self._gradient_bound)
        return tuple(note for fact in facts for note in fact.notes)

    def _different(self) -> list[tuple[int, Function]]:
        """Return each different component with its first index."""
        seen: dict[Function, int] = {}
        for i, function in enumerate(self._functions):
            seen.setdefault(function, i)
        return [(i, function) for function, i in seen.items()]

    # numbers

    @cached_property
    def source(self) -> str:
        """The readable Python text of `kernel(i, x, out)`."""
        return kernels.write(self._functions, self._objective, self._x, self.name or "A problem")

    @cached_property
    def kernel(self) -> Kernel:
        """`kernel(i, x, out)`, compiled: returns f_i(x) and writes ∇f_i(x) to `out`; i = -1 is the objective.

        A numba function of signature float64(int64, float64[::1], float64[::1]); its machine code is kept on disk.
        """
        options = f'"{kernels.SIGNATURE}", cache=True, nogil=True, error_model="numpy"'
        compiled: Kernel = module_of(f"import numba\n{self.source}\n\nkernel = numba.njit({options})(kernel)\n").kernel
        return compiled

    @cached_property
    def _plain(self) -> Kernel:
        """The same function as plain Python, which waits for no compiler."""
        scope: dict[str, Any] = {}
        exec(self.source, scope)
        plain: Kernel = scope["kernel"]
        return plain

    def _at(self, i: int, x: Array) -> tuple[float, Array]:
        """Return f_i and its gradient at a point, NaN where they are not defined."""
        out = np.full(self.dim, np.nan)
        try:
            return float(self._plain(i, x, out)), out
        except (ValueError, OverflowError, ZeroDivisionError, TypeError):  # Python's math raises where numba has NaN
            return math.nan, np.full(self.dim, np.nan)

    def value(self, x: float | Sequence[float] | Array) -> Array:
        """Return the objective at points `(..., dim)`, as `(...)`."""
        points = self._points(x)
        return np.array([self._at(-1, p)[0] for p in points.reshape(-1, self.dim)]).reshape(points.shape[:-1])

    def mean_gradient(self, x: float | Sequence[float] | Array) -> Array:
        """Return the objective's gradient at points `(..., dim)`, of the same shape."""
        points = self._points(x)
        return np.array([self._at(-1, p)[1] for p in points.reshape(-1, self.dim)]).reshape(points.shape)

    def gradient(self, i: int, x: float | Sequence[float] | Array) -> Array:
        """Return ∇f_i at a point, `(dim,)`."""
        if not 0 <= i < len(self._f):
            raise ValueError(f"`i` must name a component, 0 to {len(self._f) - 1}, got {i}.")
        return self._at(i, self._points(x).reshape(self.dim))[1]

    def _points(self, x: float | Sequence[float] | Array) -> Array:
        points = np.atleast_1d(np.asarray(x, dtype=np.float64))
        if points.shape[-1] != self.dim:
            raise ValueError(f"`x` must have {self.dim} coordinates along its last axis, got shape {points.shape}.")
        return points

    def __getstate__(self) -> Mapping[str, Any]:
        return {key: held for key, held in self.__dict__.items() if key not in COMPILED}

    def __str__(self) -> str:
        """Return its name, or what it is made of: its components, or how many there are where that is long."""
        made_of = ", ".join(dict.fromkeys(map(str, self.components)))
        count, names = len(self.components), ", ".join(map(str, self.variables))
        return self.name or (made_of if len(made_of) <= LEGIBLE else f"{count} components in {names}")

    def __repr__(self) -> str:
        box = f"{self.lower.tolist()} to {self.upper.tolist()}"
        what = self.name or f"{len(self.components)} components"
        return f"Problem({what}, dim={self.dim}, arrival={type(self.arrival).__name__}, domain={box})"


def separated(expr: sympy.Expr, variables: tuple[sympy.Symbol, ...]) -> Terms | None:
    """Return pieces of one function of each variable whose sum is the expression, or None if it is no such sum."""
    if len(variables) == 1:
        return (pieces(tidy(expr, *variables), variables[0]),)
    sums = {x: sympy.S.Zero for x in variables}
    for part in sympy.Add.make_args(tidy(expr, *variables)):
        owners = [x for x in variables if part.has(x)]
        if len(owners) > 1:
            return None
        sums[owners[0] if owners else variables[0]] += part
    return tuple(pieces(part, x) for x, part in sums.items())


def exact(weight: float) -> sympy.Rational:
    """Return a share as the simple fraction that it was, such as 1/3."""
    simple = Fraction(float(weight)).limit_denominator(10**6)
    if not math.isclose(simple, weight, rel_tol=1e-15):
        simple = Fraction(float(weight))
    return sympy.Rational(simple.numerator, simple.denominator)


def latex(problem: Problem) -> str:
    """Return a problem as LaTeX, equal components named together."""
    groups: dict[sympy.Expr, list[int]] = {}
    for i, f in enumerate(problem.components):
        groups.setdefault(f, []).append(i)
    names = ", ".join(sympy.latex(v) for v in problem.variables)
    listed = [
        f"f_{{{','.join(map(str, i)) if len(i) < 4 else f'{i[0]},…,{i[-1]}'}}} = {sympy.latex(f)}"
        for f, i in groups.items()
    ]
    bounded = [
        rf"{sympy.latex(v)} \in [{lo:g}, {hi:g}]"
        for v, lo, hi in zip(problem.variables, problem.lower, problem.upper, strict=True)
        if math.isfinite(lo) or math.isfinite(hi)
    ]
    return r",\quad ".join([f"f({names}) = {sympy.latex(problem.objective)}", *listed, *bounded])


# what the user gave


def _expressions(components: Sequence[sympy.Expr | str | float]) -> list[sympy.Expr]:
    if isinstance(components, str | sympy.Basic) or not np.iterable(components) or not list(components):
        raise ValueError(f"`components` must be a list of at least one expression, got {components!r}.")
    out = []
    for i, component in enumerate(components):
        try:
            expr = sympy.sympify(component)
        except Exception as error:  # text may fail to read in any way
            raise ValueError(
                f"component {i} must be a SymPy expression, or text that reads as one, got {component!r}."
            ) from error
        if not isinstance(expr, sympy.Expr):
            raise ValueError(f"component {i} must be a SymPy expression with a value, got {component!r}.")
        out.append(expr)
    return out


def _real(i: int, given: sympy.Expr, real: Mapping[str, sympy.Symbol]) -> sympy.Expr:
    """Return a component in real symbols and exact numbers, refused where it has no real value or no derivative."""
    f = sympy.nsimplify(given, rational=True).xreplace({s: real[s.name] for s in given.free_symbols})
    f = f.replace(sympy.sinc, lambda u: sympy.sin(u) / u)  # which is what is compiled
    if f.has(sympy.I):
        f = sympy.expand(f, complex=True)
    for strange, what in ((f.atoms(sympy.core.numbers.ImaginaryUnit), "real"), (f.atoms(*ENDLESS), "finite")):
        if strange:
            raise ValueError(f"component {i} must be {what}, got {given} with {strange.pop()}: leave that out.")
    if any(sympy.diff(f, x).has(sympy.Derivative, sympy.Subs) for x in real.values()):
        raise ValueError(
            f"component {i} is {given}, whose derivative is not known or has no counterpart in Python's `math`: "
            "write it with functions that have one, such as exp, log, sqrt, sin or erf."
        )
    return f


def _require_arrival(arrival: object) -> None:
    if isinstance(arrival, type) or not all(callable(getattr(arrival, name, None)) for name in ("weights", "stream")):
        given = arrival.__name__ if isinstance(arrival, type) else repr(arrival)
        raise ValueError(
            "`arrival` must be an order of arrival, such as Random(), Cyclic([0, 1, 1]) or Shuffled(), "
            f"or have their methods `weights` and `stream`, got {given}."
        )


def _variables(
    given: list[sympy.Expr], variables: Sequence[sympy.Symbol | str] | sympy.Symbol | str | None
) -> tuple[sympy.Symbol, ...]:
    free = {s.name: s for f in given for s in sorted(f.free_symbols, key=str)}
    if variables is None:
        if len(free) == 1:
            return tuple(free.values())
        raise ValueError(
            f'`variables` must name the variables in their order, such as "{" ".join(sorted(free)) or "x"}": '
            f"the components have {len(free) or 'none'} of them."
        )
    listed: Any = [variables] if isinstance(variables, sympy.Symbol) else variables
    if isinstance(listed, str):
        listed = listed.replace(",", " ").split()
    if not np.iterable(listed) or not all(isinstance(v, str | sympy.Symbol) for v in listed):
        raise ValueError(f'`variables` must be symbols or their names, such as "x y", got {variables!r}.')
    # A symbol as it stands in the components is the one that the user will substitute.
    named = tuple(free.get(str(v), v if isinstance(v, sympy.Symbol) else sympy.Symbol(str(v))) for v in listed)
    if not named or len({v.name for v in named}) < len(named):
        raise ValueError(f"`variables` must be different symbols, got {variables!r}.")
    return named


def _known(given: list[sympy.Expr], variables: tuple[sympy.Symbol, ...]) -> None:
    names = {v.name for v in variables}
    for i, f in enumerate(given):
        strange = sorted(s.name for s in f.free_symbols if s.name not in names)
        if strange:
            raise ValueError(
                f"component {i} must be an expression in {', '.join(sorted(names))}, got {f}: "
                f"give {', '.join(strange)} a number, or name it in `variables`."
            )


def _box(domain: Sequence[Any] | None, dim: int) -> tuple[Array, Array]:
    """Return the lower and upper bounds, `(dim,)` each."""
    wanted = f"`domain` must be a pair (lo, hi) with lo < hi, or {dim} such pairs"
    given: Sequence[Any] = (None, None) if domain is None else domain
    try:
        pairs = [tuple(p) for p in given] if np.iterable(given[0]) else [tuple(given)] * dim
        ends = [[_bound(lo, -math.inf), _bound(hi, math.inf)] for lo, hi in pairs]
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{wanted}, got {domain!r}.") from error
    if len(ends) != dim or not all(lo < hi for lo, hi in ends):
        raise ValueError(f"{wanted}, got {domain!r}.")
    box = np.array(ends, dtype=np.float64)
    return box[:, 0].copy(), box[:, 1].copy()


def _bound(given: Any, unbounded: float) -> float:
    return unbounded if given is None else float(given)


def _start(start: float | Sequence[float] | None, lower: Array, upper: Array) -> Array:
    if start is None:
        finite = np.isfinite(lower) & np.isfinite(upper)
        middle = np.where(finite, lower, 0.0) / 2 + np.where(finite, upper, 0.0) / 2
        return np.where(finite, middle, np.clip(1.0, lower, upper))
    return start_in(start, lower, upper)


def start_in(start: float | Sequence[float], lower: Array, upper: Array) -> Array:
    """Return a first iterate, `(dim,)`, that the user gave as a number or as one for each variable."""
    try:
        given = np.asarray(start, dtype=np.float64)
    except (TypeError, ValueError):
        given = np.zeros((0, 0))
    if given.shape not in ((), (1,), lower.shape):
        raise ValueError(f"`start` must be a number or {len(lower)} of them, got {start!r}.")
    x = np.broadcast_to(given, lower.shape).copy()
    if not (np.isfinite(x) & (lower <= x) & (x <= upper)).all():
        raise ValueError(
            f"`start` must lie in the domain, {lower.tolist()} to {upper.tolist()}, got {x.tolist()}: "
            "move it, or widen `domain`."
        )
    return x
