"""What decided a verdict: the block ratios with the rule drawn in, and ρ with its interval.

Each figure is a function that returns its data as plain arrays, and one that draws such data on axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.conditions import MIN_BLOCKS, Condition
from ..diagnostics.drift import Harm, HarmDecision, judge_harm
from ..diagnostics.pace import even_products
from ..diagnostics.trace import Trace
from .axes import draw_apart, signed_marks
from .figures import PANELS, block_sums, largest
from .legible import shorten, tell_apart
from .numerals import fixed, interval, number
from .theme import (
    BLUE,
    GREEN,
    INK,
    MARKERS,
    MUTED,
    SERIES,
    VERMILLION,
    WASH,
    label_ends,
    log_steps,
    log_values,
    say,
)
from .words import rho

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

TONES = dict.fromkeys(HarmDecision, MUTED) | {HarmDecision.HARMFUL: VERMILLION, HarmDecision.HARMLESS: BLUE}
NAME = 26  # characters beside a row
HOLDS, VIOLATED = -0.2, -0.1  # the slopes of the decision rule, docs/theory.md 4.2


@dataclass(frozen=True)
class Ratio:
    """A block ratio, the blocks that were judged and those that were not, and the slope that decided."""

    name: str
    t: Array
    values: Array
    dropped_t: Array
    dropped: Array
    start: int
    stop: int
    slope: float
    low: float
    high: float
    decision: str


def ratio(trace: Trace, name: str, column: str, condition: Condition, start: int) -> Ratio:
    """Return the ratio (block increment of `column`) / (block increment of a), before and after `start`."""
    edges, (top, bottom) = block_sums(trace, column, "a")
    t = np.sqrt(edges[1:] * edges[:-1])
    shown = start / 10 if len(condition.t) else 0.0  # one decade of the start-up beside what was judged
    early = (bottom > 0) & (t > shown) & (t < start) & np.isfinite(top) & np.isfinite(bottom)
    stop = int(trace.steps[-1]) if len(trace.steps) else 0
    return Ratio(
        name,
        condition.t,
        condition.ratios,
        t[early],
        top[early] / bottom[early],
        start,
        stop,
        condition.slope,
        condition.low,
        condition.high,
        str(condition.decision),
    )


def draw_ratio(data: Ratio, ax: Axes) -> None:
    """Draw the blocks, the judged window, the fitted slope with its spread, and the slopes of the rule."""
    everything = np.concatenate([data.dropped, data.values])
    if len(everything) == 0:
        return say(ax, "No complete block yet.")
    log_steps(ax, np.concatenate([data.dropped_t, data.t, [data.stop]]))
    if not log_values(ax, everything, margin=2.2):
        return say(ax, f"{data.name} is 0 in every block.")
    left, right = ax.get_xlim()
    ax.axvspan(left, max(data.start, left), color=WASH, linewidth=0)
    ax.set_xlim(left, right)
    _blocks(ax, data.dropped_t, data.dropped, MUTED, filled=False)
    _blocks(ax, data.t, data.values, BLUE, filled=True)
    _rule(data, ax)
    slope = f"slope {fixed(data.slope)} {interval(data.low, data.high)}: " * math.isfinite(data.slope)
    ax.set_title(f"{data.name}   {slope}{data.decision}")
    return None


def _blocks(ax: Axes, t: Array, values: Array, colour: str, *, filled: bool) -> None:
    """Draw points; those at 0, for which the axis has no place, as triangles on its floor."""
    above = values > 0
    face = colour if filled else "none"
    ax.plot(t[above], values[above], "o", color=colour, markerfacecolor=face, markersize=4.5)
    if not above.all():  # marks that are none, but not clipped, would count in a layout as if at its corner
        floor = np.full(int((~above).sum()), ax.get_ylim()[0])
        ax.plot(t[~above], floor, "v", color=colour, markerfacecolor=face, markersize=5, clip_on=False)


def _rule(data: Ratio, ax: Axes) -> None:
    """Draw the fit through the middle of the judged blocks, and from its left end the slopes that decide."""
    t, values = data.t[data.values > 0], data.values[data.values > 0]
    if len(t) < 2 or not math.isfinite(data.slope):
        return
    middle, height = float(np.median(np.log(t))), float(np.median(np.log(values) - data.slope * np.log(t)))
    x = np.geomspace(data.t[0], data.stop, 24)
    fit = np.exp(height + data.slope * np.log(x))
    pivot = math.exp(height + data.slope * middle)
    fan = [pivot * np.exp(slope * (np.log(x) - middle)) for slope in (data.low, data.high)]
    ax.fill_between(x, np.minimum(*fan), np.maximum(*fan), color=BLUE, alpha=0.15, linewidth=0)
    ax.plot(x, fit, color=BLUE)
    ends = [(float(fit[-1]), "fit", BLUE)]
    for slope, word, colour in ((VIOLATED, "violated ↑", VERMILLION), (HOLDS, "holds ↓", GREEN)):
        line = fit[0] * (x / x[0]) ** slope
        ax.plot(x, line, color=colour, linestyle=(0, (4, 2)), linewidth=1.1)
        ends.append((float(line[-1]), word, colour))
    label_ends(ax, ends)


@dataclass(frozen=True)
class Forest:
    """ρ with its interval, row by row; `words` says it where there is no interval to draw."""

    names: tuple[str, ...]
    rho: Array
    low: Array
    high: Array
    decisions: tuple[HarmDecision, ...]
    words: tuple[str, ...]


def forest(harms: Sequence[tuple[str, Harm]]) -> Forest:
    """Return ρ and its interval of each named harm test."""
    low, high = np.array([harm.interval for _, harm in harms], dtype=np.float64).reshape(-1, 2).T
    return Forest(
        names=tuple(name for name, _ in harms),
        rho=np.array([harm.rho for _, harm in harms], dtype=np.float64),
        low=low,
        high=high,
        decisions=tuple(harm.decision for _, harm in harms),
        words=tuple(rho(harm) for _, harm in harms),
    )


def judged(trace: Trace) -> tuple[Harm, ...]:
    """Return the harm test of every tensor by itself; empty where there are too few stretches yet."""
    drift = trace.drift
    if drift is None:
        return ()
    grams = zip(*even_products(trace, drift), strict=True)
    return tuple(judge_harm(dd, dg, gg, drift.first_step, drift.last_step) for dd, dg, gg in grams)


def harms(trace: Trace, whole: Harm, each: Sequence[Harm], limit: int = PANELS) -> Forest:
    """Return ρ of the run, and of the `limit` largest tensors where there are several, which `judged` has judged."""
    rows = [("the whole run", whole)]
    if len(each) > 1:
        moved = np.array([not math.isnan(harm.z) and harm.z != 0 for harm in each])
        chosen = largest(trace, np.flatnonzero(moved), limit)
        names = tell_apart([trace.tensors[i].name for i in chosen], NAME)
        rows += [(name, each[i]) for name, i in zip(names, chosen, strict=True)]
    return forest(rows)


def draw_forest(data: Forest, ax: Axes) -> None:
    """Draw a row per ρ against the marks 0 (no descent) and 1 (unbiased); arrows where it is unbounded."""
    _rho_axis(data, ax)
    rows = len(data.names)
    ax.set_ylim(rows - 0.4, -1.1)
    ax.axvspan(ax.get_xlim()[0], 0, color=VERMILLION, alpha=0.1, linewidth=0)
    zero = float(ax.transAxes.inverted().transform(ax.transData.transform((0.0, 0.0)))[0])
    sides = ("right" if zero > 0.3 else "left", "left")
    for mark, word, side in zip((0.0, 1.0), ("0: no descent", "1: unbiased"), sides, strict=True):
        ax.axvline(mark, color=MUTED, linewidth=1.0, linestyle="--" if mark else "-")
        aside = (3 if side == "left" else -3, 0)  # of the line, in points
        ax.annotate(word, (mark, -1.0), aside, textcoords="offset points", color=MUTED, fontsize=9, ha=side, va="top")
    _whiskers(data, ax)
    ax.set_yticks(range(rows), [shorten(name, NAME) for name in data.names], color=INK)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")


def _rho_axis(data: Forest, ax: Axes) -> None:
    """Make x an axis of ρ that spans the intervals: linear near [0, 1], else logarithmic beyond ±1."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ends = np.concatenate([data.rho, data.low, data.high, [-0.45, 1.35]])
    ends = ends[np.isfinite(ends)]
    left, right = 1.1 * float(ends.min()), 1.1 * float(ends.max())
    if left < -4 or right > 5:
        left, right = min(1.5 * left, -1.5), max(1.5 * right, 3.0)
        ax.set_xscale("symlog", linthresh=1)
        ax.xaxis.set_major_locator(FixedLocator(signed_marks(left, right)))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(left, right)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.set_xlabel("ρ")


def _whiskers(data: Forest, ax: Axes) -> None:
    """Draw each ρ in its interval, with an arrow at an end that is unbounded; in words where both are."""
    edges, rows = ax.get_xlim(), np.arange(len(data.names))
    colours = [TONES[decision] for decision in data.decisions]
    known = np.isfinite(data.low) | np.isfinite(data.high)
    shown = [colours[row] for row in rows[known]]
    low, high = np.maximum(data.low, edges[0])[known], np.minimum(data.high, edges[1])[known]
    ax.hlines(rows[known], low, high, colors=shown, linewidth=2.2)
    ax.scatter(data.rho[known], rows[known], c=shown, s=42, zorder=2.1)
    for row in rows[~known]:
        place, side = _beside_the_marks(ax, uphill=data.decisions[row] is HarmDecision.HARMFUL)
        words: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": side, "va": "center"}
        ax.text(place, row, data.words[row], color=colours[row], **words)
    for ends, edge, arrow in ((data.low, edges[0], "<"), (data.high, edges[1], ">")):
        for row in rows[known & np.isinf(ends)]:
            ax.plot([edge], [row], arrow, color=colours[row], markersize=6, clip_on=False)


def _beside_the_marks(ax: Axes, *, uphill: bool) -> tuple[float, str]:
    """Return where words stand that no line should cross, as a share of the width, and which of their ends is there.

    What goes uphill is said left of 0, the rest between 0 and 1 where there is room.
    """
    inverse = ax.transAxes.inverted()
    zero, one = (float(inverse.transform(ax.transData.transform((mark, 0.0)))[0]) for mark in (0.0, 1.0))
    if uphill and zero > 0.4:
        return zero - 0.02, "right"
    if one - zero > 0.24:
        return (zero + one) / 2, "center"
    return (one + 0.02, "left") if one < 0.6 else (zero - 0.02, "right")


@dataclass(frozen=True)
class Overlay:
    """A block ratio of several runs, each relative to its first judged block that is not 0.

    Empty for a run that is too short to judge.
    """

    name: str
    t: tuple[Array, ...]
    values: tuple[Array, ...]


def overlay(name: str, conditions: Sequence[Condition]) -> Overlay:
    """Return the judged blocks of each run's condition."""
    t, scaled = [], []
    for condition in conditions:
        ratios = condition.ratios if judgeable(condition) else np.empty(0)
        positive = ratios[ratios > 0]
        t.append(condition.t if len(ratios) else np.empty(0))
        scaled.append(ratios / positive[0] if len(positive) else ratios)
    return Overlay(name, tuple(t), tuple(scaled))


def judgeable(condition: Condition) -> bool:
    """Tell whether a run has blocks enough for a decision."""
    return len(condition.ratios) >= MIN_BLOCKS


def draw_overlay(data: Overlay, ax: Axes) -> None:
    """Draw each run's ratio with its number in the table at the end."""
    if not any(map(len, data.t)):
        return say(ax, "Every run is too short to judge.")
    if not np.concatenate(data.values).any():
        return say(ax, f"{data.name} is 0 in every run that can be judged.")
    log_values(ax, np.concatenate([*data.values, [1.0]]), margin=2.0)
    log_steps(ax, np.concatenate(data.t))
    curves, ends = [], []
    for run, (t, ratios) in enumerate(zip(data.t, data.values, strict=True)):
        colour, marker = SERIES[run % 6], MARKERS[run % 6]
        if len(ratios) == 0:
            continue
        height = np.where(ratios > 0, ratios, ax.get_ylim()[0])
        curves.append((t, height, colour, marker))
        ends.append((float(height[-1]), f"{run + 1}" + " (0)" * bool(ratios[-1] <= 0), colour))
    draw_apart(ax, curves)
    label_ends(ax, ends, gap=0.065)
    ax.set_title(f"{data.name}, relative to its first judged block")
    return None
