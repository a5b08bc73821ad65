"""Cells in shades: one path for each shade, so that a map is small, sharp at any size, and has no seams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .maps import Array, spans

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path


def draw_mosaic(x: Array, y: Array, shades: NDArray[np.int64], looks: Sequence[tuple[str, float]], ax: Axes) -> None:
    """Draw cells between the edges `x` and `y`, each in its shade, `(rows, columns)`: a colour and its opacity."""
    from matplotlib.patches import PathPatch

    for shade, (colour, opacity) in enumerate(looks):
        found = outline(x, y, shades == shade)
        if found is not None:
            ax.add_patch(PathPatch(found, facecolor=colour, alpha=opacity, linewidth=0))
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


def outline(x: Array, y: Array, chosen: NDArray[np.bool_]) -> Path | None:
    """Return the chosen cells as one path, neighbours in a row as one rectangle; None where there are none."""
    from matplotlib.path import Path

    corners = [
        [(x[first], low), (x[last], low), (x[last], high), (x[first], high), (x[first], low)]
        for row, low, high in zip(chosen, y[:-1], y[1:], strict=True)
        for first, last in spans(row)
    ]
    if not corners:
        return None
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(np.concatenate(corners), codes * len(corners))
