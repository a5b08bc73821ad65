"""Where an optimizer went on a problem of a suite: iterates, distance to the optimum and regret, over steps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from ..synthetic.course import Band as Seeds
from ..synthetic.score import SuiteRow
from .iterates import Band, Bands, draw_falling, draw_paths
from .plates import Panel, Plate
from .theme import SKY, SMALL

CAPTION = (
    "The median of {seeds} seeds, in the band from the lowest to the highest; dotted: where they started, and from "
    "where on it counts as solved. A regret that falls towards 0 is what convergence means online."
)
ALONE = (
    "One run, as nothing is left to chance here; dotted: where it started, and from where on it counts as solved. A "
    "regret that falls towards 0 is what convergence means online."
)


def plate(row: SuiteRow) -> Plate:
    """Return the figure of a row; a problem in several variables has no iterate on one axis."""
    panels = [
        Panel(f"distance from the optimum over steps, {row.problem}", partial(draw_falling, distances(row)), SMALL),
        Panel(f"average regret over steps, {row.problem}", partial(draw_falling, regrets(row)), SMALL),
    ]
    if row.course.x is not None:
        iterate = Panel(f"iterate over steps, {row.problem}", partial(draw_paths, paths(row, row.course.x)), SMALL)
        panels.insert(0, iterate)
    caption = CAPTION.format(seeds=row.seeds) if row.seeds > 1 else ALONE
    return Plate("course", "Where does it go?", caption, tuple(panels))


def paths(row: SuiteRow, x: Seeds) -> Bands:
    """Return the iterates of a problem in one variable, with its optimum and its box."""
    about = row.about
    return replace(
        _bands(row, f"iterate {about.variables[0]}", x), mark=about.optimum[0], box=(about.lower[0], about.upper[0])
    )


def distances(row: SuiteRow) -> Bands:
    """Return the distances from the optimum."""
    levels = (row.start, "start"), (row.tolerance, "solved")
    return replace(_bands(row, "distance ‖x − x*‖", row.course.distance), levels=levels)


def regrets(row: SuiteRow) -> Bands:
    """Return the average regrets, the mean over the seeds."""
    return _bands(row, "average regret Rₜ/t", (row.course.regret,) * 3)


def _bands(row: SuiteRow, label: str, seeds: Seeds) -> Bands:
    t, (low, middle, high) = np.array(row.course.steps, dtype=np.float64), map(np.array, seeds)
    return Bands(label, (Band("", SKY, t, middle, low, high),), float(t[0]), float(t[-1]))
