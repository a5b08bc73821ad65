"""Several runs over the same steps: their loss and their ρ, each curve with the number of its run.

Each figure is a function that returns its data as plain arrays, and one that draws such data on axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.drift import Harm
from ..diagnostics.trace import Trace
from .axes import both_ways, draw_apart, plain_numbers
from .efficiency import FAR_DOWN, FAR_UP, course
from .figures import thin
from .theme import MARKERS, MUTED, SERIES, VERMILLION, label_ends, log_steps, log_values, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
POINTS = 60


@dataclass(frozen=True)
class Together:
    """A quantity of several runs, each over steps of its own; empty where a run has none."""

    name: str
    steps: tuple[NDArray[np.int64], ...]
    values: tuple[Array, ...]


def losses(traces: Sequence[Trace]) -> Together:
    """Return the loss of each run, or the first scalar, as means between the points that are shown."""
    names = [name for trace in traces for name in trace.logged]
    name = next((name for name in names if "loss" in name.lower()), next(iter(names), "loss"))
    steps, values = [], []
    for trace in traces:
        scalar = trace.scalars.get(name)
        if scalar is None or len(scalar.steps) < 2:
            steps.append(np.empty(0, np.int64))
            values.append(np.empty(0))
            continue
        keep = thin(scalar.steps, POINTS)
        with np.errstate(all="ignore"):
            means = np.diff(scalar.total[keep], prepend=0.0) / np.diff(scalar.count[keep], prepend=0.0)
        steps.append(scalar.steps[keep])
        values.append(means)
    return Together(name, tuple(steps), tuple(values))


def efficiencies(traces: Sequence[Trace], harms: Sequence[Harm]) -> Together:
    """Return ρ of each run where it was resolved, NaN elsewhere."""
    found = [course(trace, harm) for trace, harm in zip(traces, harms, strict=True)]
    values = tuple(np.where(one.resolved, one.rho, np.nan) for one in found)
    return Together("ρ", tuple(one.steps for one in found), values)


def draw_losses(data: Together, ax: Axes) -> None:
    """Draw a curve per run, on a logarithmic axis where all values are positive and span a decade."""
    values = _finite(data)
    if len(values) == 0:
        return say(ax, "No run logged a scalar.")
    if values.min() > 0 and values.max() > 10 * values.min():
        log_values(ax, values, margin=1.3)
    else:
        plain_numbers(ax)
    _curves(data, ax)
    ax.set_title(data.name)
    return None


def draw_efficiencies(data: Together, ax: Axes) -> None:
    """Draw a curve per run against 1 and 0; a gap where ρ was not resolved."""
    values = _finite(data)
    if len(values) == 0:
        return say(ax, "ρ was not resolved in any run.")
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 1.0)
    if low < FAR_DOWN or high > FAR_UP:
        both_ways(ax, 1.0, low, high)
    else:
        room = 0.1 * (high - low)
        ax.set_ylim(low - room, high + room)
        plain_numbers(ax)
    ax.axhspan(ax.get_ylim()[0], 0, color=VERMILLION, alpha=0.1, linewidth=0)
    for mark, dashes in ((0.0, "-"), (1.0, "--")):
        ax.axhline(mark, color=MUTED, linewidth=1.0, linestyle=dashes)
    _curves(data, ax)
    ax.set_title("ρ, where it was resolved")
    return None


def _finite(data: Together) -> Array:
    values = np.concatenate([np.empty(0), *data.values])
    return np.asarray(values[np.isfinite(values)])


def _curves(data: Together, ax: Axes) -> None:
    """Draw the curves, each with its number at its end."""
    log_steps(ax, np.concatenate(data.steps))
    curves, ends = [], []
    for run, (steps, values) in enumerate(zip(data.steps, data.values, strict=True)):
        known = np.flatnonzero(np.isfinite(values))
        if len(known) == 0:
            continue
        colour, marker = SERIES[run % 6], MARKERS[run % 6] if len(steps) <= 30 else None
        curves.append((steps.astype(np.float64), values, colour, marker))
        ends.append((float(values[known[-1]]), f"{run + 1}", colour))
    draw_apart(ax, curves)
    label_ends(ax, ends, gap=0.065)
