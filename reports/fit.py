"""Where the frame of a drawing lies in its box, so that the words and numbers around it lie there too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase

Region = tuple[float, float, float, float]
"""Left, bottom, right and top, as shares of the figure."""

LEAST = 0.05
"""The share of its box that a frame keeps, however long the words."""

NUMBERS = 6
"""Along an axis, at most, where nobody chose them."""
USUAL = (0.12, 0.16, 0.08, 0.08)
"""Shares of the box that most drawings need left of their frame, below, right of it and above."""


def fit(ax: Axes, box: Region, renderer: RendererBase | None = None) -> None:
    """Move the frame of axes so that what stands around it ends where the box does.

    A title that is longer than the frame moves nothing. What stands around must stand at a distance of so many points,
    not at shares of the frame, and be no wider than it: then one look is enough. Beside names that take most of the box
    what stands on the other side may stand out.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    for line in list(ax.lines):
        if not np.size(line.get_xdata()):  # it would count as a point in the corner of the figure
            line.remove()
    width, height = box[2] - box[0], box[3] - box[1]
    _settle(ax)
    left, below, right, above = USUAL
    ax.set_position(
        (box[0] + left * width, box[1] + below * height, (1 - left - right) * width, (1 - below - above) * height)
    )
    seen = ax.get_tightbbox(renderer, for_layout_only=True)
    assert seen is not None
    seen, frame = seen.transformed(figure.transFigure.inverted()), ax.get_position()
    x0, y0 = box[0] + frame.x0 - seen.x0, box[1] + frame.y0 - seen.y0
    x1, y1 = box[2] - (seen.x1 - frame.x1), box[3] - (seen.y1 - frame.y1)
    ax.set_position((x0, y0, max(x1 - x0, LEAST * width), max(y1 - y0, LEAST * height)))


def _settle(ax: Axes) -> None:
    """Choose the numbers along the axes for good: by default others come in a larger frame, of another width."""
    from matplotlib.ticker import AutoLocator, MaxNLocator

    for axis in (ax.xaxis, ax.yaxis):
        if isinstance(axis.get_major_locator(), AutoLocator):
            axis.set_major_locator(MaxNLocator(NUMBERS, steps=[1, 2, 2.5, 5, 10]))
