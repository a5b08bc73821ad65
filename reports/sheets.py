"""Figures as files: an empty one in the house style, and panels side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .theme import INK, MUTED, STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .plates import Panel


@contextmanager
def sheet(path: Path, size: tuple[float, float], title: str) -> Iterator[Figure]:
    """Give an empty figure of `size` inches to draw on, and write it when that is done: the same bytes each time."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with rc_context(STYLE), rc_context({"svg.hashsalt": title}):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.012, ha="left", fontsize=12, color=INK)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def save_sheet(panels: Sequence[Panel], path: str | Path, title: str, note: str = "", columns: int = 3) -> Path:
    """Write panels side by side, in the format that the file's ending names, and return where it is.

    A panel's label, if it has one, is its title.
    """
    path, rows = Path(path), math.ceil(len(panels) / columns)
    wide, high = max(panel.size[0] for panel in panels), max(panel.size[1] for panel in panels)
    with sheet(path, (columns * wide, rows * high + 0.75), title) as figure:
        cells = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, ax in zip(panels, cells, strict=False):
            panel.draw(ax)
            if panel.label:
                ax.set_title(panel.label)
        for ax in cells[len(panels) :]:
            ax.set_axis_off()
        if note:
            figure.supxlabel(note, x=0.012, ha="left", fontsize=9, color=MUTED)
    return path
