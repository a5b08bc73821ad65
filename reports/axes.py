"""How several runs share axes: a colour and a dash for each method, bands, scales.

Runs come as (name, trace) pairs; a method keeps its colour from figure to figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.trace import Trace
from .numerals import count, number
from .theme import BLUE, GREEN, ORANGE, PURPLE, SERIES, SKY, VERMILLION, tick

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
Runs = Sequence[tuple[str, Trace]]

FELL = " ↓"
"""Marks the name of a curve that ends below the floor of its axis."""
UPON = 0.012
"""Curves nearer than this share of an axis lie on each other."""
TONES = {
    "sgd": GREEN,
    "momentum": ORANGE,
    "adagrad": PURPLE,
    "adafom": PURPLE,
    "amsgrad": BLUE,
    "amsgrad_torch": BLUE,
    "adam": VERMILLION,
    "adam_plain": VERMILLION,
    "adam_inside": VERMILLION,
    "adopt": SKY,
}
DASHES: dict[str, Any] = {VERMILLION: "-", BLUE: (0, (6, 1.5)), PURPLE: (0, (3, 1.2)), GREEN: (0, (1, 1))}
"""Curves that lie on each other are told apart by their dashes."""


def tones(runs: Runs) -> tuple[str, ...]:
    """Return a colour for each run: that of its method, or else one that no run before it has."""
    taken: list[str] = []
    for _, trace in runs:
        own = TONES.get(str(trace.meta.get("method")), "")
        free = [colour for colour in SERIES if colour not in taken]
        taken.append(own if own in free or (own and not free) else (free or list(SERIES))[0])
    return tuple(taken)


def dash(colour: str) -> Any:
    """Return the dashes that go with a colour."""
    return DASHES.get(colour, "-")


def span(runs: Runs) -> tuple[float, float]:
    """Return the first and last step of any run."""
    return float(min(trace.steps[0] for _, trace in runs)), float(max(trace.steps[-1] for _, trace in runs))


def consecutive(trace: Trace, first: int, last: int) -> slice:
    """Return where the records of steps `first` to `last` lie.

    Raises:
        ValueError: if one of them is missing.
    """
    at = int(np.searchsorted(trace.steps, first))
    place = slice(at, at + last - first + 1)
    if not np.array_equal(trace.steps[place], np.arange(first, last + 1)):
        raise ValueError(f"steps {first} to {last} must all be on record; simulate with `records` equal to `steps`.")
    return place


def draw_band(
    ax: Axes, t: NDArray[Any], low: Array, high: Array, colour: str, alpha: float, label: str | None = None
) -> None:
    """Shade between two curves; what is 0, for which a logarithmic axis has no place, lies on its floor."""
    floor = ax.get_ylim()[0] if ax.get_yscale() == "log" else -math.inf
    edges = np.maximum(low, floor), np.maximum(high, floor)
    ax.fill_between(t, *edges, color=colour, alpha=alpha, linewidth=0, label=label)


def decade(value: float) -> float:
    """Return the power of ten at or below a positive value."""
    return 10.0 ** math.floor(math.log10(value))


def draw_apart(ax: Axes, curves: Sequence[tuple[Array, Array, str, str | None]]) -> None:
    """Draw curves of (steps, values, colour, marker); where one lies on an earlier one it is dashed and unmarked.

    The lower ones are thicker. Both axes must have their limits.
    """
    drawn: list[tuple[Array, Array]] = []
    for run, (steps, values, colour, marker) in enumerate(curves):
        thick = max(3.0 - 0.4 * run, 1.0)
        places = _places(ax, steps, values)
        hidden = np.any([_upon(places, other) for other in drawn] or [np.zeros(len(steps), np.bool_)], axis=0)
        link = hidden[1:] & hidden[:-1]  # a piece between two points that are hidden
        style: dict[str, Any] = {"color": colour, "linewidth": thick, "dash_capstyle": "butt"}
        ax.plot(*_broken(steps, values, ~link), **style)
        if link.any():
            ax.plot(*_broken(steps, values, link), linestyle=(0, (8 / thick, 8 / thick)), **style)
        if marker:
            shown = steps[~hidden], values[~hidden]
            ax.plot(*shown, marker, color=colour, markersize=2.5 * thick, clip_on=False)
        drawn.append(places)


def _places(ax: Axes, steps: Array, values: Array) -> tuple[Array, Array]:
    """Return where points lie as shares of the axes."""
    with np.errstate(all="ignore"):
        xy = ax.transAxes.inverted().transform(ax.transData.transform(np.column_stack([steps, values])))
    return xy[:, 0], xy[:, 1]


def _upon(places: tuple[Array, Array], other: tuple[Array, Array]) -> NDArray[np.bool_]:
    """Return which points lie on another curve, by less than the width of a line."""
    if len(other[0]) == 0:
        return np.zeros(len(places[0]), np.bool_)
    with np.errstate(invalid="ignore"):
        below = np.interp(places[0], *other, left=np.nan, right=np.nan)
        return np.asarray(np.abs(places[1] - below) < UPON)


def _broken(steps: Array, values: Array, chosen: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return a curve that is cut between the neighbours whose piece is not chosen."""
    cuts = np.flatnonzero(~chosen) + 1
    return np.insert(steps, cuts, np.nan), np.insert(values, cuts, np.nan)


def both_ways(ax: Axes, linear: float, low: float, high: float) -> None:
    """Make y linear within ±`linear` and logarithmic beyond, with few numbers along it."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.set_yscale("symlog", linthresh=linear, linscale=1.0)
    ax.set_ylim(*(end + 2 * math.copysign(max(abs(end), linear), side) for end, side in ((low, -1), (high, 1))))
    bottom, top = ax.get_ylim()
    shown = [linear * mark for mark in signed_marks(bottom / linear, top / linear)]
    ax.yaxis.set_major_locator(FixedLocator(shown))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: "0" if v == 0 else "−" * int(v < 0) + tick(abs(v))))


def signed_marks(low: float, high: float) -> list[float]:
    """Return few round numbers from `low` to `high` for an axis that is linear within ±1 and logarithmic beyond."""
    furthest = max(-low, high)
    marks = [1.0, 3.0, 10.0] if furthest <= 30 else [10.0**k for k in range(24) if 10.0**k <= furthest]
    marks = marks[:: math.ceil(len(marks) / 4)]
    return [mark for mark in [*(-mark for mark in reversed(marks)), 0.0, *marks] if low <= mark <= high]


def plain_numbers(ax: Axes) -> None:
    """Write the numbers along y as a person would."""
    from matplotlib.ticker import FuncFormatter

    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def whole_steps(ax: Axes) -> None:
    """Make x an axis of steps one by one."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    low, high = ax.get_xlim()
    exact = high - low < 1e4
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}" if exact else count(value)))
    ax.set_xlabel("step")
