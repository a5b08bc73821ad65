"""What limits a run, as a picture: the share that each of five causes takes, over the run and by tensor.

Each figure is a function that returns its data as plain arrays, and one that draws such data on axes.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.limits import FROM, Limit, Limits, Stage
from ..diagnostics.limits import limits as limits_of
from ..diagnostics.trace import Trace
from .figures import largest
from .legible import tell_apart
from .mosaic import Box, draw_boxes
from .numerals import percent, typeset
from .theme import INK, MUTED, SKY, VERMILLION, WASH, WIDE, log_steps, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .plates import Plate

Array = NDArray[np.float64]

TAKES = {
    Limit.NOISE: "of what the gradients push, not slope but noise",
    Limit.BIAS: "of the descent on offer, not made",
    Limit.CURVATURE: "of the edge of stability, used up",
    Limit.STEPSIZE: "of the stepsize, lost in a doubling of the run",
    Limit.PRECISION: "of the steps, set by eps or a number format",
}
"""Of what each cause takes its share; from the top, in the order in which a person asks."""
BY_TENSOR = (Limit.NOISE, Limit.BIAS, Limit.STEPSIZE, Limit.PRECISION)
MISSING = {
    Limit.BIAS: "no slope that stands out to compare with",
    Limit.CURVATURE: "not measured: call monitor.edge(closure) at times",
}
HEIGHT = 0.6
"""Of a row, whose whole is 1."""
NAME = 22  # characters beside a row


@dataclass(frozen=True)
class Strips:
    """Per cause the share in each stage, `(causes, stages)`, NaN where not measured; and whether it limits there."""

    edges: Array
    """Steps at which the stages begin, and the last step."""
    shares: Array
    limiting: NDArray[np.bool_]


@dataclass(frozen=True)
class Cells:
    """The same shares of single tensors in the last stage, `(tensors, causes)`."""

    names: tuple[str, ...]
    shares: Array
    limiting: NDArray[np.bool_]


def strips(found: Limits) -> Strips:
    """Return the shares of all stages."""
    stages = found.stages
    edges = [float(stages[0].first - 1), *(float(stage.last) for stage in stages)] if stages else []
    shares, limiting = _table(stages, tuple(TAKES))
    return Strips(np.array(edges), shares.T, limiting.T)


def cells(trace: Trace, found: Limits) -> Cells:
    """Return the shares of the largest tensors, in the order of the model."""
    known = [i for i, stage in enumerate(found.tensors) if any(map(math.isfinite, stage.shares.values()))]
    chosen = largest(trace, np.array(known, dtype=np.intp))
    names = tell_apart([trace.tensors[i].name for i in chosen], NAME)
    return Cells(tuple(names), *_table([found.tensors[i] for i in chosen], BY_TENSOR))


def _table(stages: Sequence[Stage], causes: Sequence[Limit]) -> tuple[Array, NDArray[np.bool_]]:
    shape = len(stages), len(causes)
    shares = np.array([[stage.shares[cause] for cause in causes] for stage in stages], dtype=np.float64)
    limiting = np.array([[stage.limit is cause for cause in causes] for stage in stages], dtype=bool)
    return shares.reshape(shape), limiting.reshape(shape)


def draw_strips(data: Strips, ax: Axes) -> None:
    """Draw a strip per cause, filled from below by its share: orange where that limits the run, else blue."""
    if len(data.edges) == 0:
        return say(ax, "Too little is recorded yet.")
    log_steps(ax, data.edges)
    bars = Bars()
    for row, (cause, takes) in enumerate(TAKES.items()):
        foot = float(len(TAKES) - 1 - row)
        _words(ax, foot, cause, takes, data.shares[row], bool(data.limiting[row, -1]))
        for left, right, share, limits in zip(
            data.edges[:-1], data.edges[1:], data.shares[row], data.limiting[row], strict=True
        ):
            if math.isfinite(share):
                mark = foot + HEIGHT * FROM[cause]
                top = foot + HEIGHT * share
                whole, filled = (left, right, foot, foot + HEIGHT), (left, right, foot, top)
                bars.add(whole, filled, ((left, mark), (right, mark)), limits=limits)
    bars.draw(ax, 0.8)
    _bare(ax, len(TAKES))
    return None


Segment = tuple[tuple[float, float], tuple[float, float]]


@dataclass
class Bars:
    """Bars that a share fills in part, and the marks across them, gathered to be drawn all at once."""

    whole: list[Box] = field(default_factory=list)
    filled: list[Box] = field(default_factory=list)
    limiting: list[Box] = field(default_factory=list)
    marks: list[Segment] = field(default_factory=list)

    def add(self, whole: Box, filled: Box, mark: Segment, *, limits: bool) -> None:
        """Add a bar, the part of it that is filled, and the mark beyond which a share is the larger one."""
        self.whole.append(whole)
        self.marks.append(mark)
        (self.limiting if limits else self.filled).append(filled)

    def draw(self, ax: Axes, opacity: float) -> None:
        """Draw the bars: orange where a share limits the run, else blue."""
        from matplotlib.collections import LineCollection

        draw_boxes(self.whole, WASH, 1.0, ax)
        draw_boxes(self.filled, SKY, opacity, ax)
        draw_boxes(self.limiting, VERMILLION, opacity, ax)
        ax.add_collection(LineCollection(self.marks, colors=MUTED, linewidths=0.8, linestyles=[(0, (3, 3))]))


def _words(ax: Axes, foot: float, cause: Limit, takes: str, shares: Array, limits: bool) -> None:
    """Write a row's name, what it is a share of, and the share now."""
    place = ax.get_yaxis_transform()
    inside: dict[str, Any] = {
        "transform": place,
        "in_layout": False,
    }  # or the longest would narrow the axes that it stands in
    ax.text(0.0, foot + HEIGHT + 0.06, cause, color=INK, fontsize=10, **inside)
    ax.text(0.175, foot + HEIGHT + 0.06, takes, color=MUTED, fontsize=9, **inside)
    now = shares[-1]
    text, colour = (percent(now), VERMILLION if limits else INK) if math.isfinite(now) else ("–", MUTED)
    ax.text(1.015, foot + HEIGHT / 2, text, transform=place, color=colour, va="center")
    if not np.isfinite(shares).any():
        missing = MISSING.get(cause, "not measured")
        ax.text(0.0, foot + HEIGHT / 2, missing, color=MUTED, fontsize=9, va="center", **inside)


def _bare(ax: Axes, rows: int) -> None:
    """Leave the rows without a scale of their own."""
    ax.set_ylim(-0.06, rows)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(False)


def draw_cells(data: Cells, ax: Axes) -> None:
    """Draw a row per tensor and a cell per cause, filled from the left by its share."""
    if not data.names:
        return say(ax, "No tensor has a share to show.")
    rows, gap, bars = len(data.names), 0.08, Bars()
    width = 1 - gap
    for row, name in enumerate(data.names):
        foot, middle, top = rows - 1 - row + HEIGHT * np.array([0.0, 0.5, 1.0])
        for column, cause in enumerate(BY_TENSOR):
            share, left = float(data.shares[row, column]), column + gap
            if not math.isfinite(share):
                ax.text(left + width / 2, middle, "–", color=MUTED, va="center", ha="center")
                continue
            mark, limits = left + FROM[cause] * width, bool(data.limiting[row, column])
            whole, filled = (left, left + width, foot, top), (left, left + share * width, foot, top)
            bars.add(whole, filled, ((mark, foot), (mark, top)), limits=limits)
            ax.text(left + width - 0.03, middle, percent(share), color=INK, va="center", ha="right", fontsize=9)
        ax.text(-0.02, middle, name, color=INK, va="center", ha="right", transform=ax.transData)
    bars.draw(ax, 0.4)  # pale, as words stand on it
    _bare(ax, rows)
    ax.set_xlim(0, len(BY_TENSOR))
    ax.spines["bottom"].set_visible(False)
    ax.xaxis.tick_top()
    ax.set_xticks([column + (1 + gap) / 2 for column in range(len(BY_TENSOR))], [str(cause) for cause in BY_TENSOR])
    ax.tick_params(axis="x", length=0, labelcolor=INK)
    return None


CAPTION = (
    "Each strip is the share that one cause takes, from 0 at its foot to 100 % at its top, in stages that are each "
    "twice as long as the one before. Beyond the dashed line a cause takes the larger part; where several do, the one "
    "that makes the others moot is orange: it limits the run there; while a run is at rest none is. Where a strip is "
    "bare nothing was measured. The numbers on the right are those of the last stage."
)


def plate(trace: Trace, found: Limits) -> Plate:
    """Return the figures about what limits a run, the answer in words first; without panels where there is none."""
    from .plates import Panel, Plate  # they may want this one

    shown = cells(trace, found)
    panels = [Panel(f"shares by cause: {found.limit}", partial(draw_strips, strips(found)), (WIDE[0], 4.0))]
    if len(shown.names) > 1:
        size = (WIDE[0], 0.75 + 0.32 * len(shown.names))
        panels.append(Panel("shares by tensor, last stage", partial(draw_cells, shown), size))
    return Plate(
        "limits", "What limits the run?", f"{typeset(str(found))} {CAPTION}", tuple(panels) if found.stages else ()
    )


def save_limits(trace: Trace, path: str | Path, title: str = "") -> Path:
    """Write the figure of a run's limits, in the format that the file's ending names, and return where it is."""
    from .plates import Panel
    from .sheets import save_sheet

    found = limits_of(trace)
    drawn = plate(trace, found).panels or (Panel("", partial(draw_strips, strips(found))),)
    panels = [Panel("", panel.draw, panel.size) for panel in drawn]
    head, words = found.now.split(". ", 1) if ". " in found.now else (found.now, "")
    answer = "\n".join(textwrap.wrap(typeset(f"{words} {found.before}"), 86))
    return save_sheet(panels, path, title or head, answer, columns=1)
