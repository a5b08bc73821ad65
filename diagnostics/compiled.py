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


def compiled(function: Compiled) -> Compiled:
    """Compile with numba, kept on disk for the next process where a place for that can be written.

    Always call the function with the same types: processes that first compile it for different ones at the same time
    overwrite each other's files in numba's store, and what is loaded from there later may be the wrong code.
    """
    try:
        return inner(cache=True)(function)
    except RuntimeError:
        return inner()(function)


@intrinsic
def pointer(typing_context: Any, address: Any) -> Any:
    """Turn an address into a pointer that `numba.carray` takes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate
