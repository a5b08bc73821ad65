"""Other rules on the gradients of a run, as small multiples: the blocks of b/a and of c⁺/a, and ρ of each.

The data are the decisions of `diagnostics/what_if.py`; the first rule is the run's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..diagnostics.conditions import Condition, Decision
from ..diagnostics.what_if import Alternative
from .evidence import Forest, draw_forest, forest
from .legible import shorten
from .maps import Array, round_marks
from .numerals import count, typeset
from .theme import GREEN, GRID, INK, MUTED, VERMILLION, WIDE, say, tick
from .words import MARKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .plates import Plate

Side = Literal["variance", "bias"]
RATIOS: dict[Side, str] = {"variance": "b/a", "bias": "c⁺/a"}
COLUMNS = 3
WIDTH, HEIGHT = 0.88, 0.66  # of a chart in its square
TONES = {Decision.HOLDS: GREEN, Decision.VIOLATED: VERMILLION, Decision.INCONCLUSIVE: MUTED}
NOTHING = "No other rule was imagined on these gradients."


def size(found: Sequence[Alternative]) -> tuple[float, float]:
    """Return the size of the small multiples in inches."""
    return WIDE[0], 0.8 + 0.95 * math.ceil(max(len(found), 1) / COLUMNS)


def harms(found: Sequence[Alternative]) -> Forest:
    """Return ρ of each rule with its interval."""
    return forest([(typeset(other.rule), other.harm) for other in found])


@dataclass(frozen=True)
class Cells:
    """Where things lie in a grid of small charts, each 1 by 1, that share logarithmic scales."""

    first: float
    last: float
    low: float
    high: float

    def x(self, place: int, t: Array) -> Array:
        """Return where steps lie in the chart at a place, which fills its square but for a gap at the right."""
        along = np.log(t / self.first) / np.log(self.last / self.first)
        return np.asarray(place % COLUMNS + WIDTH * along)

    def y(self, place: int, values: Array) -> Array:
        """Return where values lie, those below the scale on its floor; the head stands above."""
        up = np.log(np.maximum(values, self.low) / self.low) / np.log(self.high / self.low)
        return np.asarray(place // COLUMNS + 1 - HEIGHT * up)


def draw_multiples(found: Sequence[Alternative], side: Side, ax: Axes) -> None:
    """Draw a small chart per rule, all on the same scales, with the run's own ratio in grey behind."""
    conditions: list[Condition] = [getattr(other, side) for other in found]
    values = np.concatenate([np.empty(0), *(c.ratios for c in conditions)])
    steps = np.concatenate([np.empty(0), *(c.t for c in conditions)])
    usable = values[np.isfinite(values) & (values > 0)]
    if len(found) < 2:
        return say(ax, NOTHING)
    if len(np.unique(steps)) < 2:
        return say(ax, "The run is too short for blocks of any rule.")
    if len(usable) == 0:
        return say(ax, f"{RATIOS[side]} is 0 under every rule.")
    heights = round_marks(float(usable.min()), float(usable.max()), 4)
    cells = Cells(float(steps.min()), float(steps.max()), heights[0], heights[-1])
    for place, (other, condition) in enumerate(zip(found, conditions, strict=True)):
        _axes(ax, cells, place, heights, lowest=place + COLUMNS >= len(found))
        _curve(ax, cells, place, conditions[0], MUTED, 0.8)
        _curve(ax, cells, place, condition, TONES[condition.decision], 1.8)
        _head(ax, place, other.rule, condition.decision)
    _bare(ax, f"{RATIOS[side]} per block, under each rule", math.ceil(len(found) / COLUMNS))
    return None


def _bare(ax: Axes, title: str, rows: int) -> None:
    """Leave the charts without a scale round them."""
    ax.set(xticks=[], yticks=[], xlim=(0, COLUMNS - 1 + WIDTH + 0.03), ylim=(rows + 0.02, 0), title=title)
    ax.spines[:].set_visible(False)
    ax.grid(False)


def _axes(ax: Axes, cells: Cells, place: int, heights: Sequence[float], *, lowest: bool) -> None:
    """Draw the scales of a chart, with numbers at the outer ones alone."""
    words: dict[str, Any] = {"color": MUTED, "fontsize": 8}
    left, right = cells.x(place, np.array([cells.first, cells.last]))
    foot, rows = float(place // COLUMNS + 1), cells.y(place, np.array(heights))
    steps = [step for step in round_marks(cells.first, cells.last, 3) if cells.first <= step <= cells.last]
    columns = cells.x(place, np.array(steps))
    ax.vlines(columns, foot - HEIGHT, foot, color=GRID, linewidth=0.6)
    ax.hlines(rows, left, right, color=[MUTED, *[GRID] * (len(rows) - 1)], linewidth=0.6)
    if place % COLUMNS == 0:
        for height, y in zip(heights, rows, strict=True):
            ax.text(left - 0.03, y, tick(height), ha="right", va="center", **words)
    if lowest:
        for step, x in zip(steps, columns, strict=True):
            ax.text(x, foot + 0.06, count(step), ha="center", va="top", **words)
        ax.text((left + right) / 2, foot + 0.26, "step", ha="center", va="top", **words)


def _curve(ax: Axes, cells: Cells, place: int, condition: Condition, colour: str, width: float) -> None:
    """Draw the judged blocks; those at 0 lie on the floor."""
    known = np.isfinite(condition.ratios)
    x, y = cells.x(place, condition.t[known]), cells.y(place, condition.ratios[known])
    ax.plot(x, y, color=colour, linewidth=width, zorder=3)


def _head(ax: Axes, place: int, rule: str, decision: Decision) -> None:
    """Write the rule above its chart, with the sign of what is decided of it."""
    row, column = divmod(place, COLUMNS)
    words: dict[str, Any] = {"fontsize": 8.5, "va": "bottom", "in_layout": False}
    weight = "bold" if place == 0 else "normal"
    ax.text(column, row + 1 - HEIGHT - 0.03, shorten(typeset(rule), 18), color=INK, fontweight=weight, **words)
    ax.text(column + WIDTH, row + 1 - HEIGHT - 0.03, MARKS[decision], color=TONES[decision], ha="right", **words)


CHARTS = (
    "A small chart per rule, all on the same scales: its ratio over the judged blocks, green where it tends to 0 (✓), "
    "orange where it does not (✕), grey where that is open (?). The thin grey curve is the run as it was. Last,"
)
TOO_SHORT = "The run is too short to judge the conditions of any rule."


def plate(found: Sequence[Alternative]) -> Plate:
    """Return the figures of the imagined rules; without panels where none was."""
    from .plates import Panel, Plate  # they may want this one

    judged = any(not other.too_short for other in found)
    blocks = (
        Panel("b/a per block under each rule", partial(draw_multiples, found, "variance"), size(found)),
        Panel("c⁺/a per block under each rule", partial(draw_multiples, found, "bias"), size(found)),
    )
    panels = (
        *(blocks if judged else ()),
        Panel("ρ under each rule", partial(draw_forest, harms(found)), (WIDE[0], 1.15 + 0.3 * len(found))),
    )
    return Plate(
        "what-if",
        "Would another rule have stood better on the same gradients?",
        f"{CHARTS if judged else TOO_SHORT} ρ of each with its 95 % interval. Another rule would have gone elsewhere "
        "and met other gradients.",
        panels if len(found) > 1 else (),
    )
