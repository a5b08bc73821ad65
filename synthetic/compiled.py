"""Generated source as a module in a file of its own, beside which numba keeps the machine code for the next process."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType


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
