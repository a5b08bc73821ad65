"""Boxes in a colour: one path for all of them, so that a figure is small, sharp at any size, and has no seams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path

Array = NDArray[np.float64]
Box = tuple[float, float, float, float]
"""Left, right, bottom, top."""


def draw_boxes(boxes: Sequence[Box], colour: str, opacity: float, ax: Axes) -> None:
    """Fill boxes in a colour; nothing where there are none."""
    from matplotlib.patches import PathPatch

    if boxes:
        ax.add_patch(PathPatch(outline(boxes), facecolor=colour, alpha=opacity, linewidth=0))


def outline(boxes: Sequence[Box]) -> Path:
    """Return boxes as one path."""
    from matplotlib.path import Path

    corners = [
        [(left, low), (right, low), (right, high), (left, high), (left, low)] for left, right, low, high in boxes
    ]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(np.concatenate(corners), codes * len(corners))


def draw_mosaic(x: Array, y: Array, shades: NDArray[np.int64], looks: Sequence[tuple[str, float]], ax: Axes) -> None:
    """Draw cells between the edges `x` and `y`, each in its shade, `(rows, columns)`: a colour and its opacity."""
    for shade, (colour, opacity) in enumerate(looks):
        draw_boxes(boxes_of(x, y[:-1], y[1:], shades == shade), colour, opacity, ax)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


def boxes_of(x: Array, low: Array, high: Array, chosen: NDArray[np.bool_]) -> list[Box]:
    """Return the chosen cells between the edges `x`, and from `low` to `high`; neighbours in a row are one box."""
    return [
        (float(x[first]), float(x[last]), float(bottom), float(top))
        for row, bottom, top in zip(chosen, low, high, strict=True)
        for first, last in spans(row)
    ]


def spans(chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the stretches of True as (first, one past the last)."""
    turns = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(turns[::2], turns[1::2], strict=True)]
