"""What differs between the settings of runs: optimizer, groups, schedules, tensors, versions, events (no torch)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .courses import nearest, shared_edges, shared_steps
from .trace import Trace

SILENT = ("format", "columns", "created", "hyperparameters", "versions", "initial_lr", "what_if")
"""What says nothing of how the run was made, or is told apart below."""
OFF = (None, False, 0, 0.0)
"""Values of a hyper-parameter that is as good as not there."""
LONG = 30
"""Characters of a value in a table."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in all runs, with its value in each, None where there is none."""

    what: str
    values: tuple[Any, ...]
    since: int | None = None
    """The first shared step at which a schedule differs; None for what does not change."""


def differences(settings: Sequence[Sequence[Trace]]) -> tuple[Difference, ...]:
    """Return what differs between settings of one or several runs each; several values in one setting are a list."""
    several = any(len(trace.meta.get("hyperparameters", [])) > 1 for runs in settings for trace in runs)
    known = [[dict(facts(trace, several)) for trace in runs] for runs in settings]
    names = dict.fromkeys(name for runs in known for each in runs for name in each)
    found = (Difference(name, tuple(_value([each.get(name) for each in runs]) for runs in known)) for name in names)
    fixed = [one for one in found if any(value != one.values[0] for value in one.values) and not _idle(one.values)]
    return (*fixed, *schedules([trace for runs in settings for trace in runs[:1]]))


def _value(values: list[Any]) -> Any:
    """Return the value of a setting: that of its runs, or a list where they have several."""
    unique = [value for i, value in enumerate(values) if value not in values[:i]]
    return unique[0] if len(unique) == 1 else unique


def _idle(values: Sequence[Any]) -> bool:
    """Tell whether a hyper-parameter is absent in some and switched off in the others."""
    return None in values and all(value in OFF for value in values)


def facts(trace: Trace, several: bool) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of everything about a run that does not change from step to step, ready for JSON.

    Hyper-parameters are named by their group where `several` is set.
    """
    meta = trace.meta
    yield from ((name, value) for name, value in meta.items() if name not in SILENT)
    yield "groups", len(meta.get("hyperparameters", []))
    for i, group in enumerate(meta.get("hyperparameters", [])):
        own = {name: value for name, value in group.items() if name not in SILENT}
        yield from ((f"group {i}: {name}" if several else name, value) for name, value in own.items())
    yield "shapes", [list(tensor.shape) for tensor in trace.tensors]
    if "problem" not in meta:  # there they are the seeds
        yield "tensors", [tensor.name for tensor in trace.tensors]
    yield "watched", sum(tensor.watched for tensor in trace.tensors)
    yield "steps", int(trace.steps[-1]) if len(trace.steps) else 0
    yield from ((f"version of {name}", value) for name, value in meta.get("versions", {}).items())
    counts = Counter(event.kind for event in trace.events if event.kind != "closed")
    yield from ((f"events: {kind}", count) for kind, count in counts.items())


def schedules(traces: Sequence[Trace]) -> Iterator[Difference]:
    """Yield the hyper-parameters whose course over the shared steps is not the same in all runs."""
    edges = shared_steps(traces)
    edges = edges if len(edges) else shared_edges(traces)
    names = dict.fromkeys(name for trace in traces for name in trace.groups)
    for name in names if len(edges) else ():
        width = max(trace.groups[name].shape[1] for trace in traces if name in trace.groups)
        for group in range(width):
            at = np.array([_course(trace, name, group, edges) for trace in traces])
            moving = bool((np.ptp(at, axis=1) > 0).any())  # what stands still is among the hyper-parameters
            differ = ~(np.isclose(at, at[0], rtol=1e-6, atol=0.0, equal_nan=True).all(axis=0))
            if moving and differ.any():
                what = f"{name} over the run" if width == 1 else f"group {group}: {name} over the run"
                yield Difference(what, tuple(map(_span, at)), int(edges[differ.argmax()]))


def _course(trace: Trace, name: str, group: int, edges: Any) -> Any:
    column = trace.groups.get(name)
    if column is None or group >= column.shape[1]:
        return np.full(len(edges), math.nan)
    return column[nearest(trace.steps, edges), group]


def _span(values: Any) -> str | None:
    """Return where a schedule begins and ends, and its peak where that is neither."""
    first, last, most = float(values[0]), float(values[-1]), float(values.max())
    if math.isnan(first) and math.isnan(last):
        return None
    if first == last == most:
        return f"{first:.4g}"
    return f"{first:.4g} to {last:.4g}" + (f" by way of {most:.4g}" if most > max(first, last) else "")


def shown(value: Any) -> str:
    """Return a value as a table shows it: short, a dash for none, of a class its name alone."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(map(shown, value))}]"
        return text if len(text) <= LONG else f"{text[: LONG - 8]}…] of {len(value)}"
    text = str(value)
    parts = text.split(".")
    text = parts[-1] if len(parts) > 2 and all(map(str.isidentifier, parts)) else text
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"
