"""A row per tensor over the steps of a run, in shades that stand for ranges of a quantity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .axes import whole_steps
from .mosaic import boxes_of, draw_boxes
from .theme import INK, MUTED, WIDE, legend_below, log_steps, tick

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

MOMENTS = 60  # along a curve or a map: more cannot be told apart
ROWS = 24  # of a map: more names cannot be read


class Shade(NamedTuple):
    """What a field of a map stands for: from, up to but without, in words, and how it looks."""

    low: float
    high: float
    words: str
    colour: str
    opacity: float


def size(rows: int) -> tuple[float, float]:
    """Return the size of a map in inches."""
    return WIDE[0], 1.15 + 0.22 * rows


def draw_map(
    names: Sequence[str], steps: NDArray[np.int64], values: Array, shades: Sequence[Shade], ax: Axes, columns: int = 5
) -> None:
    """Draw `values`, `(names, steps)`, as fields; a dot where one is in no shade, as NaN is."""
    from matplotlib.patches import Patch

    borders, told = edges(steps), np.zeros(values.shape, np.bool_)
    low = np.arange(len(names)) - np.float64(0.42)
    along(ax, borders[0], borders[-1])
    ax.set_xlim(borders[0], borders[-1])
    for shade in shades:
        chosen = (values >= shade.low) & (values < shade.high)
        told |= chosen
        draw_boxes(boxes_of(borders, low, low + 0.84, chosen), shade.colour, shade.opacity, ax)
    empty = np.argwhere(~told)
    ax.plot(steps[empty[:, 1]], empty[:, 0], ".", color=MUTED, markersize=2.5)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names, color=INK, fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.grid(False)
    ax.spines["left"].set_visible(False)
    keys = [Patch(facecolor=shade.colour, alpha=shade.opacity, label=shade.words) for shade in shades]
    legend_below(ax, columns, keys)


def along(ax: Axes, first: float, last: float) -> None:
    """Make x an axis of steps, logarithmic where that leaves no empty half."""
    if last >= 8 * first or last == first:
        log_steps(ax, [first, last])
    else:
        ax.set_xlim(first, last)
        whole_steps(ax)


def edges(steps: NDArray[np.int64]) -> Array:
    """Return where the fields round `steps` begin and end on a logarithmic axis, `(n + 1,)`."""
    s = np.log(np.maximum(steps.astype(np.float64), 1.0))
    if len(s) == 1:
        return np.asarray(np.exp(s[0] + np.array([-0.17, 0.17])))
    middles = (s[1:] + s[:-1]) / 2
    return np.asarray(np.exp(np.concatenate([[2 * s[0] - middles[0]], middles, [2 * s[-1] - middles[-1]]])))


def ranges(values: Array, colour: str, most: int = 6) -> tuple[Shade, ...]:
    """Return at most `most` shades of one colour that span the positive values, with round numbers between them."""
    seen = values[np.isfinite(values) & (values > 0)]
    if len(seen) == 0:
        return ()
    marks = round_marks(float(seen.min()), float(seen.max()), most)
    opacities = np.linspace(0.15, 1.0, len(marks) - 1) if len(marks) > 2 else [0.6]
    pairs = zip(marks[:-1], marks[1:], opacities, strict=True)
    return tuple(Shade(low, high, f"{tick(low)}–{tick(high)}", colour, float(o)) for low, high, o in pairs)


def round_marks(low: float, high: float, most: int) -> list[float]:
    """Return 1, 2, 5 …, 1, 3 … or powers of ten, from at or below `low` to above `high`, with at most `most` gaps."""
    low, high = (min(max(end, 1e-200), 1e200) for end in (low, high))  # beyond them powers of ten run out
    first, last = math.floor(math.log10(low)), math.floor(math.log10(high)) + 2
    first -= float(f"1e{first}") > low  # the logarithm was rounded up
    fine = [[float(f"{d}e{power}") for power in range(first, last) for d in digits] for digits in ((1, 2, 5), (1, 3))]
    coarse = [[float(f"1e{power}") for power in range(first, last + by, by)] for by in range(1, last - first + 1)]
    for marks in (*fine, *coarse):
        begin = max((i for i, mark in enumerate(marks) if mark <= low), default=0)
        end = min(i for i, mark in enumerate(marks) if mark > high)
        if end - begin <= most:
            break
    return marks[begin : end + 1]
