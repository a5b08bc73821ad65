"""stepscope shows the steps an optimizer really takes, and says whether theory lets them converge."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .diagnostics.accumulators import Coefficients
    from .diagnostics.compare import compare
    from .diagnostics.diagnosis import Diagnosis, Verdict
    from .diagnostics.monitor import Monitor
    from .diagnostics.readers import register_reader
    from .diagnostics.stepsizes import Reader, View
    from .diagnostics.trace import Trace
    from .reports.lightning_callback import StepsizeMonitor as StepsizeMonitor
    from .reports.transformers_callback import StepsizeCallback as StepsizeCallback
    from .synthetic.engine import simulate
    from .synthetic.phase import phase_diagram
    from .synthetic.problem import Problem
    from .synthetic.suite import run_suite

# The callbacks are public as well, but need packages that not everybody has: `import *` must not ask for these.
__all__ = (
    "Coefficients",
    "Diagnosis",
    "Monitor",
    "Problem",
    "Reader",
    "Trace",
    "Verdict",
    "View",
    "compare",
    "phase_diagram",
    "register_reader",
    "run_suite",
    "simulate",
)

_HOME = {
    "Coefficients": "diagnostics.accumulators",
    "Diagnosis": "diagnostics.diagnosis",
    "Monitor": "diagnostics.monitor",
    "Problem": "synthetic.problem",
    "Reader": "diagnostics.stepsizes",
    "StepsizeCallback": "reports.transformers_callback",
    "StepsizeMonitor": "reports.lightning_callback",
    "Trace": "diagnostics.trace",
    "Verdict": "diagnostics.diagnosis",
    "View": "diagnostics.stepsizes",
    "compare": "diagnostics.compare",
    "phase_diagram": "synthetic.phase",
    "register_reader": "diagnostics.readers",
    "run_suite": "synthetic.suite",
    "simulate": "synthetic.engine",
}


def __getattr__(name: str) -> object:
    # Imported on first use, so that the command line and a reader of records need no torch.
    if name == "__version__":
        from importlib.metadata import version

        return version("stepscope")
    if name not in _HOME:
        raise AttributeError(f"module 'stepscope' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
