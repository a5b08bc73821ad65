"""Generated source as a module in a file of its own, beside which numba keeps the machine code for the next process."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any


@cache
def module_of(source: str) -> ModuleType:
    """Return the module whose text is `source`, from a file named after the text."""
    name = f"stepscope_{hash_of(source)}"
    path = folder() / f"{name}.py"
    if not path.exists():
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
        os.replace(partial, path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # numba looks it up by name
    spec.loader.exec_module(module)
    return module


@cache
def around(kernel: str, rule: Callable[..., None], loop: Callable[..., Any], *before: str) -> Callable[..., Any]:
    """Return a loop compiled around the source of a problem's `kernel` and a method's rule, which it calls `update`.

    Both are inlined: a call would cost more than what it computes. `before` are lines that the loop needs above it.
    """
    lines = [
        f'"""{rule.__name__}, compiled around one problem by stepscope."""',
        "import numba",
        "import numpy as np",
        kernel,
        f"from {rule.__module__} import {rule.__name__} as rule",
        'inner = numba.njit(error_model="numpy", forceinline=True)',
        "kernel, update = inner(kernel), inner(rule)",
        f"# the text of the rule is a part of this file's name: {hash_of(text_of(rule))}",
        *before,
        '@numba.njit(cache=True, nogil=True, error_model="numpy")',
        inspect.getsource(loop),
    ]
    compiled: Callable[..., Any] = getattr(module_of("\n".join(lines)), loop.__name__)
    return compiled


def text_of(rule: Callable[..., None]) -> str:
    """Return the source of a rule and of the functions around it, which it may call.

    Raises:
        ValueError: for a rule that another file cannot import.
    """
    beside = {value for value in rule.__globals__.values() if inspect.isfunction(value)}
    try:
        text = "\n".join(sorted(inspect.getsource(function) for function in beside | {rule}))
    except OSError:  # typed at a prompt
        text = ""
    if not text or getattr(sys.modules.get(rule.__module__), rule.__name__, None) is not rule:
        raise ValueError(
            f"the rule of a Method must be a function at the top of a file, got {rule.__qualname__}: define it there."
        )
    return text


def hash_of(text: str) -> str:
    """Return a short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def folder() -> Path:
    """Return where generated files are kept: $STEPSCOPE_CACHE, ~/.cache/stepscope, or a temporary place."""
    wanted = Path(os.environ.get("STEPSCOPE_CACHE") or Path.home() / ".cache" / "stepscope")
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError:
        return Path(tempfile.mkdtemp(prefix="stepscope-"))
