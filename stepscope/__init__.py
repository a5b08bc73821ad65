"""stepscope shows the steps an optimizer really takes, and says whether theory lets them converge."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .diagnostics.diagnosis import Diagnosis, Verdict
    from .diagnostics.monitor import Monitor
    from .diagnostics.trace import Trace

__all__ = ("Diagnosis", "Monitor", "Trace", "Verdict")

_HOME = {"Diagnosis": "diagnosis", "Monitor": "monitor", "Trace": "trace", "Verdict": "diagnosis"}


def __getattr__(name: str) -> object:
    # Imported on first use, so that the command line and a reader of records need no torch.
    if name not in _HOME:
        raise AttributeError(f"module 'stepscope' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".diagnostics.{_HOME[name]}", __name__), name)
