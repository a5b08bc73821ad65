"""Descent efficiency over time: ρ of the whole run with its interval, and of each tensor as a map.

Each figure is a function that returns its data as plain arrays, and one that draws such data on axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.drift import Harm, HarmDecision
from ..diagnostics.trace import Trace
from .axes import both_ways, plain_numbers
from .evidence import NAME
from .figures import thin
from .legible import tell_apart
from .maps import MOMENTS, ROWS, Shade, along, draw_map, edges
from .mosaic import spans
from .theme import BLUE, MUTED, VERMILLION, WASH, label_ends, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

FAR_DOWN, FAR_UP = -4.0, 6.0  # beyond them an axis of ρ is logarithmic outside ±1
SHADES = (
    Shade(-math.inf, 0.0, "below 0", VERMILLION, 0.9),
    Shade(0.0, 0.25, "0–¼", BLUE, 0.2),
    Shade(0.25, 0.5, "¼–½", BLUE, 0.42),
    Shade(0.5, 0.75, "½–¾", BLUE, 0.66),
    Shade(0.75, math.inf, "over ¾", BLUE, 1.0),
)


@dataclass(frozen=True)
class Course:
    """ρ over the half of the run before each of `steps`, with its 95 % interval; NaN where it was not resolved."""

    steps: NDArray[np.int64]
    rho: Array
    low: Array
    high: Array

    @property
    def resolved(self) -> NDArray[np.bool_]:
        """Where ρ has an interval; without one it tells nothing."""
        return np.isfinite(self.rho) & np.isfinite(self.low) & np.isfinite(self.high)


def course(trace: Trace, harm: Harm) -> Course:
    """Return ρ at the moments it was measured, the harm test's own last; empty where it never was."""
    known = trace.efficiency
    if known is None:
        nothing = np.empty(0)
        return Course(np.empty(0, np.int64), nothing, nothing, nothing)
    steps, rows = known.steps, np.stack([known.rho, known.low, known.high])
    if trace.drift is not None and harm.last_step > steps[-1]:
        rows = np.column_stack([rows, [harm.rho, *harm.interval]])
        steps = np.append(steps, harm.last_step)
    keep = thin(steps, MOMENTS)
    return Course(steps[keep], *np.where(np.isfinite(rows), rows, np.nan)[:, keep])


def draw_course(data: Course, ax: Axes) -> None:
    """Draw ρ in its band against 1 and 0; grey where it was not resolved."""
    if not data.resolved.any():
        return say(ax, "ρ was not resolved at any time: the mean gradient drowned in noise.")
    along(ax, data.steps[0], data.steps[-1])
    bottom, top = _view(data)
    if bottom < FAR_DOWN or top > FAR_UP:
        both_ways(ax, 1.0, bottom, top)
    else:
        ax.set_ylim(bottom, top)
        plain_numbers(ax)
    left, right = ax.get_xlim()
    ax.axhspan(ax.get_ylim()[0], 0, color=VERMILLION, alpha=0.1, linewidth=0)
    for mark, dashes in ((0.0, "-"), (1.0, "--")):
        ax.axhline(mark, color=MUTED, linewidth=1.0, linestyle=dashes)
    borders = edges(data.steps)
    for first, last in spans(~data.resolved):
        ax.axvspan(borders[first], borders[last], color=WASH, linewidth=0)
        middle = math.sqrt(borders[first] * borders[last])
        ax.text(middle, 0.97, "?", transform=ax.get_xaxis_transform(), color=MUTED, ha="center", va="top")
    ax.set_xlim(left, right)
    for first, last in spans(data.resolved):
        part = slice(first, last)
        if last - first > 1:
            ax.fill_between(
                data.steps[part], data.low[part], data.high[part], color=BLUE, alpha=0.18, linewidth=0, zorder=1.5
            )
        else:  # a point between two that were not resolved
            ax.plot([data.steps[first]] * 2, [data.low[first], data.high[first]], color=BLUE, alpha=0.3, linewidth=3)
        ax.plot(data.steps[part], data.rho[part], "-o", color=BLUE, markersize=3.5)
    last_known = float(data.rho[data.resolved][-1])
    label_ends(ax, [(last_known, "ρ", BLUE), (1.0, "1: unbiased", MUTED), (0.0, "0: no descent", MUTED)])
    ax.set_ylabel("ρ", rotation=0, labelpad=8)
    return None


def _view(data: Course) -> tuple[float, float]:
    """Return how far the axis reaches: over every ρ, and over intervals as long as they do not dwarf it."""
    rho = data.rho[data.resolved]
    lowest, highest = min(float(rho.min()), 0.0), max(float(rho.max()), 1.0)
    room = highest - lowest
    bottom = max(float(data.low[data.resolved].min()), lowest - room)
    top = min(float(data.high[data.resolved].max()), highest + room)
    return min(bottom, lowest - 0.12 * room), max(top, highest + 0.12 * room)


@dataclass(frozen=True)
class Fields:
    """ρ of some tensors over time, `(tensors, steps)`; NaN where a tensor's mean gradient did not show."""

    names: tuple[str, ...]
    steps: NDArray[np.int64]
    rho: Array
    left_out: int


def fields(trace: Trace, judged: Sequence[Harm], limit: int = ROWS) -> Fields:
    """Return ρ of the tensors, in the order of the model; of many those that climb, then the largest.

    `judged` holds the harm test of each tensor over the last half of the run, which is the last column: there ρ counts
    as resolved where it has an interval.
    """
    known = trace.efficiency
    if known is None or len(trace.tensors) < 2:
        return Fields((), np.empty(0, np.int64), np.empty((0, 0)), 0)
    keep = thin(known.steps, MOMENTS)
    steps, rho = known.steps[keep], known.tensors[keep].T
    if judged and judged[0].last_step > steps[-1]:
        last = [harm.rho if math.isfinite(harm.interval[0]) else math.nan for harm in judged]
        steps, rho = np.append(steps, judged[0].last_step), np.column_stack([rho, last])
    climbs = [harm.decision is HarmDecision.HARMFUL for harm in judged] or [False] * len(trace.tensors)
    moved = np.flatnonzero(np.isfinite(rho).any(axis=1))
    ranked = sorted((int(i) for i in moved), key=lambda i: (not climbs[i], -trace.tensors[i].numel))
    chosen = sorted(ranked[:limit])
    names = tell_apart([trace.tensors[i].name for i in chosen], NAME)
    return Fields(tuple(names), steps, rho[chosen], len(trace.tensors) - len(chosen))


def draw_fields(data: Fields, ax: Axes) -> None:
    """Draw a row per tensor; fuller colour is more of the descent, orange is uphill, a dot is not resolved."""
    if not np.isfinite(data.rho).any():
        return say(ax, "No tensor's ρ was resolved.")
    return draw_map(data.names, data.steps, data.rho, SHADES, ax)
