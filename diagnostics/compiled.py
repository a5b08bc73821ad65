"""How the numeric loops are compiled: with numba, kept on disk where that can be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

Compiled = TypeVar("Compiled", bound=Callable[..., Any])


def inner(**options: Any) -> Callable[[Compiled], Compiled]:
    """Compile with numba; parts of a `compiled` function are not kept on disk by themselves."""

    def decorate(function: Compiled) -> Compiled:
        part: Compiled = numba.njit(error_model="numpy", **options)(function)
        return part

    return decorate


def compiled(function: Compiled, **options: Any) -> Compiled:
    """Compile with numba, kept on disk for the next process where a place for that can be written.

    Always call the function with the same types: processes that first compile it for different ones at the same time
    overwrite each other's files in numba's store, and what is loaded from there later may be the wrong code.
    """
    try:
        return inner(cache=True, **options)(function)
    except RuntimeError:
        return inner(**options)(function)


def unlocked(function: Compiled) -> Compiled:
    """Compile like `compiled`, for a function that threads run side by side: Python's lock is let go of in it."""
    return compiled(function, nogil=True)


@intrinsic
def pointer(typing_context: Any, address: Any) -> Any:
    """Turn an address into a pointer that `numba.carray` takes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@intrinsic
def draw(typing_context: Any, address: Any) -> Any:
    """Return the integer at an address and leave the next one there; of several threads each gets another one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = ir.IntType(64)
        place = builder.inttoptr(arguments[0], integer.as_pointer())
        return builder.atomic_rmw("add", place, integer(1), "monotonic")

    return types.int64(types.int64), generate
