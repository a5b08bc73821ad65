"""Which tensors step fast and which slow: the median stepsize of each over the steps, as a map.

The figure is a function that returns its data as plain arrays, and one that draws such data on axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.trace import Trace
from .evidence import NAME
from .figures import largest, thin
from .legible import tell_apart
from .maps import MOMENTS, ROWS, Array, draw_map, ranges, size
from .theme import BLUE, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .plates import Plate


@dataclass(frozen=True)
class Medians:
    """The median stepsize of some tensors over time, `(tensors, steps)`; NaN where a tensor has none."""

    names: tuple[str, ...]
    steps: NDArray[np.int64]
    medians: Array
    left_out: int


def medians(trace: Trace, limit: int = ROWS) -> Medians:
    """Return the median stepsize of the `limit` largest tensors that have one, in the order of the model."""
    keep = thin(trace.steps, MOMENTS)
    columns = trace.column("e_p50")[keep]
    known = np.flatnonzero(np.isfinite(columns).any(axis=0))
    chosen = largest(trace, known, limit)
    names = tell_apart([trace.tensors[i].name for i in chosen], NAME)
    return Medians(tuple(names), trace.steps[keep], columns[:, chosen].T, len(known) - len(chosen))


def draw_medians(data: Medians, ax: Axes) -> None:
    """Draw a row per tensor; fuller colour is a larger stepsize, a dot is none, or one of 0."""
    shades = ranges(data.medians, BLUE)
    if not shades:
        return say(ax, "Every stepsize is 0." if data.names else "No stepsize was read.")
    return draw_map(data.names, data.steps, data.medians, shades, ax, columns=4 if len(shades) == 4 else 3)


def plate(trace: Trace) -> Plate:
    """Return the figure of a run of several tensors; without a panel where a row would stand alone."""
    from .plates import Panel, Plate  # they may want this one

    data = medians(trace)
    text = (
        "The median stepsize of each tensor over its watched coordinates: the fuller the colour the larger, a shade "
        "per range. Rows unlike the others move at another pace; a row that changes its shade while the learning rate "
        "does not has a second moment that grew or decayed. A dot: no stepsize, or one of 0."
    )
    if data.left_out:
        text += f" The largest tensors are shown, {data.left_out} are not."
    panel = Panel("median stepsize of each tensor over steps", partial(draw_medians, data), size(len(data.names) + 1))
    question = "Which tensors step fast, which slow, and since when?"
    return Plate("heatmap", question, text, (panel,) if len(data.names) > 1 else ())
