"""`stepscope compare RUN RUN …`: what differs between runs, where they part, and their verdicts side by side."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..diagnostics.trace import Trace


def add_compare(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to a parser."""
    compare = commands.add_parser("compare", help="say what differs between runs, and where they part")
    about = "directory that a Monitor wrote, or one that holds several: seeds of one setting"
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=about)
    compare.add_argument("--json", action="store_true", help="print JSON")


def compare(runs: Sequence[Path], *, as_json: bool = False) -> int:
    """Print how runs compare with the first of them, and return the exit code."""
    from ..diagnostics.compare import compare as compared
    from .cli import BadInput, _exit_code, _print_json

    if len(runs) < 2:
        raise BadInput(f"`compare` needs two runs or more, got {len(runs)}; `diagnose` judges one by itself.")
    found = compared(dict(zip(names_of(runs), map(load, runs), strict=True)))
    _print_json(found.to_dict()) if as_json else print(found)
    return _exit_code([str(run.diagnosis.verdict) for setting in found.settings for run in setting.runs])


def names_of(runs: Sequence[Path]) -> list[str]:
    """Return a name for each run: its directory's, its path where two are called alike, numbered if need be."""
    short = [run.name or run.resolve().name for run in runs]
    names = [name if Counter(short)[name] == 1 else str(run) for name, run in zip(short, runs, strict=True)]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)
    ]


def load(path: Path) -> Trace | list[Trace]:
    """Return the run at `path`, or the runs below it."""
    from ..diagnostics.store import is_run
    from .cli import _load, runs_below

    below = [] if is_run(path) else list(runs_below(path))
    return [_load(run) for run in below] if below else _load(path)
