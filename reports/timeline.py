"""What was told while a run went on, and when: a row per rule of the alerts, and what else happened.

The figure is a function that returns its data as plain values, and one that draws such data on axes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..diagnostics.alert import RECORDED, Alert, alerts_of
from ..diagnostics.flight import LENGTH
from ..diagnostics.trace import Trace
from .axes import whole_steps
from .legible import shorten
from .numerals import sentence, whole
from .theme import INK, MUTED, SKY, VERMILLION, WIDE, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .plates import Plate

SILENT = frozenset({"alert", "alerts held back", "closed"})
"""Kinds of events that have no row of their own."""


@dataclass(frozen=True)
class Line:
    """A row: the steps of an alert's rule, or of another kind of event."""

    name: str
    steps: tuple[int, ...]
    alarming: bool


@dataclass(frozen=True)
class Timeline:
    """The rows, alerts first; the windows of steps that the flight recorder kept at an alert; the last step."""

    lines: tuple[Line, ...]
    windows: tuple[tuple[int, int], ...]
    last: int
    first: Alert | None


def timeline(trace: Trace) -> Timeline:
    """Return when each rule gave an alert and each other thing happened, in the order of the first of each."""
    alerts = alerts_of(trace)
    alarmed = {(alert.rule, alert.step) for alert in alerts}
    others = [e for e in trace.events if e.kind not in SILENT and (e.kind, e.step) not in alarmed]
    lines = [
        *(Line(rule, tuple(a.step for a in alerts if a.rule == rule), True) for rule in _once(a.rule for a in alerts)),
        *(Line(kind, tuple(e.step for e in others if e.kind == kind), False) for kind in _once(e.kind for e in others)),
    ]
    resumed = [event.step for event in others if event.kind == "resumed"]  # the recorder began anew
    begins = (max([alert.step - LENGTH, 0, *(s for s in resumed if s <= alert.step)]) for alert in alerts[:RECORDED])
    windows = tuple(zip(begins, (alert.step for alert in alerts), strict=False))
    last = max([int(step) for step in trace.steps[-1:]] + [event.step for event in trace.events], default=0)
    return Timeline(tuple(lines), windows, last, alerts[0] if alerts else None)


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def draw_timeline(data: Timeline, ax: Axes) -> None:
    """Draw a row of marks per rule; shaded are the steps before an alert that the flight recorder kept."""
    if not data.lines:
        return say(ax, "No alert was given, and nothing else happened.")
    ax.set_xlim(-0.01 * data.last, 1.02 * max(data.last, 1))
    for begin, end in data.windows:
        ax.axvspan(begin, end, color=SKY, alpha=0.18, linewidth=0)
        ax.axvline(begin, color=SKY, linewidth=0.8, linestyle=(0, (2, 2)))
    for row, line in enumerate(data.lines):
        colour, mark = (VERMILLION, "D") if line.alarming else (MUTED, "|")
        ax.plot(line.steps, [row] * len(line.steps), mark, color=colour, markersize=6, clip_on=False)
        many = f", {len(line.steps)} in all" if len(line.steps) > 1 else ""
        words = f"{whole(line.steps[0])}{many}"
        ax.text(1.015, row, words, transform=ax.get_yaxis_transform(), color=colour, va="center", fontsize=9)
    ax.set_ylim(len(data.lines) - 0.5, -0.5)
    ax.set_yticks(range(len(data.lines)), [shorten(line.name, 24) for line in data.lines], color=INK)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.spines["left"].set_visible(False)
    whole_steps(ax)
    return None


def plate(trace: Trace) -> Plate:
    """Return the time line of a run that gave an alert; without a panel for one that gave none."""
    from .plates import Panel, Plate  # they may want this one

    data = timeline(trace)
    panel = Panel("alerts over steps", partial(draw_timeline, data), (WIDE[0], 1.0 + 0.3 * len(data.lines)))
    return Plate(
        "alerts", "What was told while the run went on, and when?", _caption(data), (panel,) if data.first else ()
    )


def _caption(data: Timeline) -> str:
    """Say what came first, and how to read the marks."""
    if data.first is None:
        return ""
    where = f" in {shorten(data.first.tensor)}" if data.first.tensor else ""
    return (
        f"First, at step {whole(data.first.step)}{where}: {sentence(data.first.message)} A row per rule that gave an "
        "alert (orange) and per other event (grey), with its first step at the right. Shaded are the up to "
        f"{whole(LENGTH)} steps before an alert that the flight recorder has in full, for the first {RECORDED} alerts; "
        "in a run directory they lie in snapshots/."
    )
