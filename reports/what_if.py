"""Other rules on the gradients of a run, as small multiples: the blocks of b/a and of c⁺/a, and ρ of each.

The data are the decisions of `diagnostics/what_if.py`; the first rule is the run's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..diagnostics.conditions import Condition, Decision
from ..diagnostics.what_if import Alternative
from .evidence import Forest, draw_forest, forest
from .numerals import shorten, typeset
from .theme import GREEN, INK, MUTED, VERMILLION, WIDE, log_steps, log_values, say
from .words import MARKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .plates import Plate

Side = Literal["variance", "bias"]
RATIOS: dict[Side, str] = {"variance": "b/a", "bias": "c⁺/a"}
COLUMNS = 3
TONES = {Decision.HOLDS: GREEN, Decision.VIOLATED: VERMILLION, Decision.INCONCLUSIVE: MUTED}
NOTHING = "No other rule was imagined on these gradients."


def size(found: Sequence[Alternative]) -> tuple[float, float]:
    """Return the size of the small multiples in inches."""
    return WIDE[0], 0.8 + 0.95 * math.ceil(max(len(found), 1) / COLUMNS)


def harms(found: Sequence[Alternative]) -> Forest:
    """Return ρ of each rule with its interval."""
    return forest([(other.rule, other.harm) for other in found])


def draw_multiples(found: Sequence[Alternative], side: Side, ax: Axes) -> None:
    """Draw a small chart per rule, all on the same scales, with the run's own ratio in grey behind."""
    conditions: list[Condition] = [getattr(other, side) for other in found]
    drawn = [c for c in conditions if len(c.ratios)]
    if len(found) < 2:
        return say(ax, NOTHING)
    if not drawn:
        return say(ax, "The run is too short for a block of any rule.")
    _frame(ax, f"{RATIOS[side]} per block, under each rule")
    rows = math.ceil(len(found) / COLUMNS)
    everything = np.concatenate([c.ratios for c in drawn])
    steps = np.concatenate([c.t for c in drawn])
    for place, (other, condition) in enumerate(zip(found, conditions, strict=True)):
        row, column = divmod(place, COLUMNS)
        cell = ax.inset_axes(_box(row, column, rows))
        lowest = place + COLUMNS >= len(found)
        _scales(cell, steps, everything, bottom=lowest, left=column == 0)
        _curve(cell, conditions[0], MUTED, 0.8)
        _curve(cell, condition, TONES[condition.decision], 1.6)
        _head(cell, other.rule, condition, own=place == 0)
    return None


def _frame(ax: Axes, title: str) -> None:
    """Leave nothing of the axes but their title, and room for small ones."""
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    ax.grid(False)


def _box(row: int, column: int, rows: int) -> tuple[float, float, float, float]:
    """Return where a small chart lies, as shares of the axes."""
    wide, high = 1 / COLUMNS, 1 / rows
    return column * wide, 1 - (row + 1) * high, 0.88 * wide, 0.68 * high


def _scales(cell: Axes, steps: np.ndarray, values: np.ndarray, *, bottom: bool, left: bool) -> None:
    """Give a small chart the scales of all, with numbers at the outer ones alone."""
    from matplotlib.ticker import LogLocator, NullLocator

    log_steps(cell, steps)
    if log_values(cell, values, margin=1.6):
        cell.yaxis.set_major_locator(LogLocator(numticks=4))
    else:  # all are 0
        cell.set(ylim=(0, 1), yticks=[])
    narrow = steps.max() < 100 * steps.min()  # too few whole decades to read the scale from
    cell.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if narrow else (1.0,), numticks=5))
    cell.xaxis.set_minor_locator(NullLocator())
    cell.tick_params(labelsize=8, length=2, labelbottom=bottom, labelleft=left)
    cell.set_xlabel("step" if bottom else "", fontsize=8)


def _curve(cell: Axes, condition: Condition, colour: str, width: float) -> None:
    """Draw the judged blocks; those at 0 lie on the floor."""
    heights = np.maximum(condition.ratios, cell.get_ylim()[0])
    cell.plot(condition.t, heights, color=colour, linewidth=width, clip_on=len(heights) == 0)


def _head(cell: Axes, rule: str, condition: Condition, *, own: bool) -> None:
    """Write the rule above its chart, with the sign of what is decided of it."""
    place: dict[str, Any] = {"transform": cell.transAxes, "fontsize": 8, "va": "bottom", "in_layout": False}
    cell.text(0, 1.03, shorten(typeset(rule), 18), color=INK, fontweight="bold" if own else "normal", **place)
    cell.text(1, 1.03, MARKS[condition.decision], color=TONES[condition.decision], ha="right", **place)


def plate(found: Sequence[Alternative]) -> Plate:
    """Return the figures of the imagined rules; without panels where none was."""
    from .plates import Panel, Plate  # they may want this one

    panels = (
        Panel("b/a per block under each rule", partial(draw_multiples, found, "variance"), size(found)),
        Panel("c⁺/a per block under each rule", partial(draw_multiples, found, "bias"), size(found)),
        Panel("ρ under each rule", partial(draw_forest, harms(found)), (WIDE[0], 1.15 + 0.3 * len(found))),
    )
    return Plate(
        "what-if",
        "Would another rule have stood better on the same gradients?",
        "A small chart per rule, all on the same scales: its ratio over the judged blocks, green where it tends to 0 "
        "(✓), orange where it does not (✕), grey where that is open (?). The thin grey curve is the run as it was. Last, "
        "ρ of each with its 95 % interval. Another rule would have gone elsewhere and met other gradients.",
        panels if len(found) > 1 else (),
    )
