"""Packages that only some users have: imported where they are used, and asked for in one sentence."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def need(module: str, extra: str) -> Any:
    """Return a module of an optional package.

    Raises:
        ImportError: where it is not installed; says what to install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"this part of stepscope needs the package {extra}, and the module {error.name!r} is not installed; "
            f"run: pip install 'stepscope[{extra}]'"
        ) from error
