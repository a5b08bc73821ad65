"""The numbers that a piece of code decides by: the constants that it reads, each with the words beside it."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import NamedTuple


class Constant(NamedTuple):
    """A constant as its module has it: its names with their values, and what is said of them."""

    names: dict[str, float]
    words: str


def of_modules(modules: Iterable[ModuleType]) -> list[Constant]:
    """Return the constants of modules that are numbers and have words."""
    return [constant for module in modules for constant in constants(module)]


def of_functions(functions: Iterable[Callable[..., object]], modules: Iterable[ModuleType]) -> list[Constant]:
    """Return those of the modules' constants that functions read, or what they call there."""
    read = {name for function in functions for name in names_read(function)}
    return [constant for constant in of_modules(modules) if read & constant.names.keys()]


def constants(module: ModuleType) -> Iterator[Constant]:
    """Yield each assignment of numbers to upper-case names that has a string below it or a comment behind it.

    Several whole numbers in one assignment are flags or places in an array, which decide nothing.
    """
    text = inspect.getsource(module)
    body, lines = ast.parse(text).body, text.splitlines()
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and (said := _said(node, after, lines)):
            values = {name: getattr(module, name, None) for name in _targets(node) if name.isupper() or "_" in name}
            numbers = {name: value for name, value in values.items() if _is_number(value)}
            places = len(numbers) > 1 and all(isinstance(value, int) for value in numbers.values())
            if numbers and not places and all(name.isupper() for name in values):
                yield Constant(numbers, said)


def _targets(node: ast.Assign) -> list[str]:
    return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _said(node: ast.Assign, after: ast.stmt | None, lines: list[str]) -> str:
    """Return the string that stands below an assignment, or the comment at its end."""
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
        return inspect.cleandoc(after.value.value).replace("\n\n", " ")
    return lines[node.end_lineno - 1].partition("  # ")[2] if node.end_lineno else ""


def names_read(function: Callable[..., object]) -> set[str]:
    """Return the global names that a function reads, and those which what it calls in its module or class reads."""
    found: set[str] = set()
    waiting: list[object] = [function]
    seen: set[object] = set()
    while waiting:
        one = waiting.pop()
        one = getattr(one, "py_func", one)  # what a compiled function was made of
        if not isinstance(one, FunctionType) or one in seen:
            continue
        seen.add(one)
        own = set(_names(one.__code__))
        found |= own
        kin = inspect.getmodule(one)
        owner = getattr(kin, one.__qualname__.partition(".")[0], None) if "." in one.__qualname__ else None
        near = [getattr(owner, name, None) for name in own] + [one.__globals__.get(name) for name in own]
        waiting += [each for each in near if getattr(each, "__module__", None) == one.__module__]
    return found


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names(const)
