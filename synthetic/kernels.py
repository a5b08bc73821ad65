"""A problem as compiled code: its components and their gradients, written out as readable Python.

The text is a function `kernel(i, x, out)` that returns f_i(x) and writes ∇f_i(x) to `out`; i = -1 is the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sympy
from sympy.printing.pycode import PythonCodePrinter

from .pieces import Piece, derivative

SIGNATURE = "float64(int64, float64[::1], float64[::1])"
INDENT = "    "


@dataclass(frozen=True)
class Function:
    """What is to be written out of one function.

    `terms` are functions of one variable each, by their pieces, whose sum it is (all variables in order); or None, and
    then `expr` and `gradient` are written as they are.
    """

    expr: sympy.Expr
    gradient: tuple[sympy.Expr, ...]
    terms: tuple[tuple[Piece, ...], ...] | None


class Printer(PythonCodePrinter):  # type: ignore[misc]
    """Writes expressions so that numba and plain Python read the same floats from them."""

    def __init__(self) -> None:
        super().__init__({"fully_qualified_modules": True, "strict": True})

    def parenthesize(self, item: sympy.Expr, level: int, strict: bool = False) -> str:
        """Return a factor's text; a fraction is written as one number here and needs no brackets."""
        if item.is_Rational and item.is_positive:
            return str(self._print(item))
        return str(super().parenthesize(item, level, strict))

    def _print_Integer(self, expr: sympy.Integer) -> str:
        return str(expr) if abs(expr) < 2**31 else repr(float(expr))

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return repr(float(expr))

    def _print_Float(self, expr: sympy.Float) -> str:
        return repr(float(expr))

    def _print_sign(self, expr: sympy.Expr) -> str:
        (arg,) = (self._print(arg) for arg in expr.args)
        return f"(1.0 if {arg} > 0 else -1.0 if {arg} < 0 else 0.0)"

    def _print_Heaviside(self, expr: sympy.Expr) -> str:
        arg = self._print(expr.args[0])
        return f"(1.0 if {arg} > 0 else 0.0 if {arg} < 0 else 0.5)"

    def _print_DiracDelta(self, expr: sympy.Expr) -> str:
        del expr
        return "0.0"


def write(components: Sequence[Function], objective: Function, variables: Sequence[sympy.Symbol], title: str) -> str:
    """Return the source of a problem's kernel.

    Raises:
        ValueError: when a component uses a function that Python's `math` does not have.
    """
    names = [sympy.Symbol(f"x{j}", real=True) for j in range(len(variables))]
    named = dict(zip(variables, names, strict=True))
    told = title.replace("\\", "\\\\").replace('"', '\\"')
    lines = ["import math", "", "", "def kernel(i, x, out):", f'{INDENT}"""{told}."""']
    lines += [f"{INDENT}{name} = x[{j}]" for j, name in enumerate(names)]
    groups: dict[Function, list[int]] = {objective: [-1]}
    for i, component in enumerate(components):
        groups.setdefault(component, []).append(i)
    for function, members in groups.items():
        try:
            body = written(function, named)
        except NotImplementedError as error:
            raise ValueError(
                f"component {members[-1]} is {function.expr}, which has no counterpart in Python's `math`: "
                "write it with functions that do, such as exp, log, sqrt, sin or erf."
            ) from error
        lines += [f"{INDENT}if {which(members)}:", *(2 * INDENT + line for line in body)]
    lines += [f"{INDENT}return math.nan", ""]
    return "\n".join(lines)


def which(members: Sequence[int]) -> str:
    """Return the condition that i is one of these, ascending."""
    runs: list[list[int]] = []
    for i in members:
        if runs and runs[-1][1] == i - 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return " or ".join(f"i == {lo}" if lo == hi else f"{lo} <= i <= {hi}" for lo, hi in runs)


def written(function: Function, named: dict[sympy.Symbol, sympy.Symbol]) -> list[str]:
    """Return the lines that compute a function and its gradient, and return its value."""
    text = Printer().doprint
    if function.terms is None:
        exprs = [e.xreplace(named) for e in (*function.gradient, function.expr)]
        smooth = not any(e.has(sympy.Piecewise, sympy.sign, sympy.Heaviside) for e in exprs)
        shared, exprs = sympy.cse(exprs, sympy.numbered_symbols("s")) if smooth else ([], exprs)
        lines = [f"{name} = {text(e)}" for name, e in shared]
        return [*lines, *(f"out[{j}] = {text(e)}" for j, e in enumerate(exprs[:-1])), f"return {text(exprs[-1])}"]
    if len(named) == 1:
        return term(function.terms[0], 0, named, "return {}")
    lines = ["f = 0.0"]
    for j, parts in enumerate(function.terms):
        lines += term(parts, j, named, "f += {}")
    return [*lines, "return f"]


def term(parts: tuple[Piece, ...], j: int, named: dict[sympy.Symbol, sympy.Symbol], use: str) -> list[str]:
    """Return the lines of a function of variable j alone, its value used as in `use`."""
    text: Callable[[sympy.Expr], str] = Printer().doprint
    variable = list(named)[j]
    lines = []
    for k, (part, slope) in enumerate(zip(parts, derivative(parts, variable), strict=True)):
        here = [f"out[{j}] = {text(slope.expr.xreplace(named))}"]
        if use != "f += {}" or part.expr != 0:
            here.append(use.format(text(part.expr.xreplace(named))))
        if len(parts) == 1:
            return here
        last = k == len(parts) - 1
        word = "else" if last else f"{'if' if k == 0 else 'elif'} {named[variable]} <= {text(sympy.N(part.hi, 17))}"
        lines += [f"{word}:", *(INDENT + line for line in here)]
    return lines
