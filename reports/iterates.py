"""Where the iterates of simulated runs go: paths, distances and regret, over the whole run or step by step.

Each figure is a function that returns its data as plain arrays, and one that draws such data on axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.trace import Trace
from ..synthetic.problem import Problem
from .axes import (
    FELL,
    Array,
    Runs,
    both_ways,
    consecutive,
    dash,
    decade,
    draw_band,
    plain_numbers,
    span,
    tones,
    whole_steps,
)
from .numerals import number
from .theme import INK, MUTED, WASH, label_ends, log_steps, log_values, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 90
"""Stretches of equal length in log t: what oscillates within one shows as a band, not as an accident of sampling."""
DECADES = 12.0
"""At most so many decades of a quantity that vanishes are worth their place."""


# Over the whole run


@dataclass(frozen=True)
class Band:
    """A quantity over stretches of log t: median, lowest and highest value, over records and seeds alike."""

    name: str
    colour: str
    t: Array
    middle: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Bands:
    """The bands of several runs; `start` to `stop` are the steps they span."""

    label: str
    runs: tuple[Band, ...]
    start: float
    stop: float
    mark: float = math.nan
    """Where the optimum lies."""
    box: tuple[float, float] = (-math.inf, math.inf)
    levels: tuple[tuple[float, str], ...] = ()
    """Values that matter, each with its name."""


def band(name: str, colour: str, steps: NDArray[np.int64], values: Array) -> Band:
    """Return the band of `values`, `(records, seeds)`; a stretch without a record is left out."""
    place = np.log(steps) - math.log(steps[0])
    which = np.minimum((BINS * place / max(float(place[-1]), 1e-12)).astype(int), BINS - 1)
    groups = [np.flatnonzero(which == k) for k in np.unique(which)]
    with np.errstate(invalid="ignore"):
        rows = [(np.median(values[g]), values[g].min(), values[g].max()) for g in groups]
    t = np.array([math.exp(float(np.mean(np.log(steps[g])))) for g in groups])
    t[0], t[-1] = steps[0], steps[-1]  # or the curves would not reach the ends of the axis
    return Band(name, colour, t, *np.array(rows, dtype=np.float64).T)


def iterates(trace: Trace) -> Array:
    """Return x at the records, `(records, seeds, dim)`.

    Raises:
        ValueError: for a recorded run, which keeps none.
    """
    if trace.path is None:
        raise ValueError("`runs` must be simulated: a recorded run keeps no iterates to draw.")
    return trace.path


def paths(runs: Runs, problem: Problem, coordinate: int = 0) -> Bands:
    """Return one coordinate of the iterates of each run, with the optimum and the box."""
    found = [band(n, c, t.steps, iterates(t)[:, :, coordinate]) for (n, t), c in zip(runs, tones(runs), strict=True)]
    best = math.nan if problem.optimum is None else float(problem.optimum[coordinate])
    box = float(problem.lower[coordinate]), float(problem.upper[coordinate])
    variable = str(problem.variables[coordinate])
    return Bands(f"iterate {variable}", tuple(found), *span(runs), best, box)


def distances(runs: Runs, problem: Problem) -> Bands:
    """Return the distance of each run's iterates to the optimum.

    Raises:
        ValueError: for a problem without an optimum.
    """
    if problem.optimum is None:
        raise ValueError("`problem` must have an optimum for a distance to it; give it a box, say.")
    best = problem.optimum
    with np.errstate(over="ignore", invalid="ignore"):
        far = [np.linalg.norm(iterates(trace) - best, axis=2) for _, trace in runs]
    found = (band(n, c, t.steps, d) for (n, t), c, d in zip(runs, tones(runs), far, strict=True))
    return Bands("distance ‖x − x*‖", tuple(found), *span(runs))


def regrets(runs: Runs) -> Bands:
    """Return the average regret Σ (f_s(x_s) − f_s(x*)) / t of each run, mean over its seeds."""
    found = [
        band(name, colour, trace.steps, trace.scalars["regret"].last[:, None])
        for (name, trace), colour in zip(runs, tones(runs), strict=True)
    ]
    return Bands("average regret Rₜ/t", tuple(found), *span(runs))


def draw_paths(data: Bands, ax: Axes) -> None:
    """Draw the iterates on a linear axis; outside the box is grey, the optimum a line."""
    log_steps(ax, [data.start, data.stop])
    drawn = np.concatenate([np.concatenate([run.low, run.high]) for run in data.runs])
    known = np.concatenate(
        [
            drawn[np.isfinite(drawn)],
            [m for m in (data.mark, *data.box, *(y for y, _ in data.levels)) if math.isfinite(m)],
        ]
    )
    if not len(known):
        return say(ax, "No iterate was finite.")
    low, high = float(known.min()), float(known.max())
    room = 0.1 * (high - low or 1.0)
    ax.set_ylim(low - room, high + room)
    for edge, beyond in zip(data.box, ax.get_ylim(), strict=True):
        if math.isfinite(edge):
            ax.axhspan(min(edge, beyond), max(edge, beyond), color=WASH, linewidth=0)
    if math.isfinite(data.mark):
        ax.axhline(data.mark, color=INK, linewidth=1.0, linestyle="--")
    ends = _curves(data, ax)
    if math.isfinite(data.mark):
        ends.append((data.mark, f"x* = {number(data.mark)}", INK))
    plain_numbers(ax)
    ax.set_ylabel(data.label)
    label_ends(ax, ends + _levels(data, ax))
    return None


def draw_falling(data: Bands, ax: Axes) -> None:
    """Draw distances or regrets on logarithmic axes; what vanishes leaves through the floor.

    Regrets may be negative: then the axis is linear about 0 and logarithmic beyond.
    """
    values = np.concatenate([*(np.concatenate([run.low, run.high]) for run in data.runs), [y for y, _ in data.levels]])
    values = values[np.isfinite(values)]
    log_steps(ax, [data.start, data.stop])
    if (values < 0).any():
        size = np.abs(values[values != 0])
        both_ways(ax, decade(float(np.quantile(size, 0.25))), float(values.min()), float(values.max()))
        ax.axhline(0, color=MUTED, linewidth=0.8)
    elif not log_values(ax, values[values >= values.max(initial=0) * 10**-DECADES]):
        return say(ax, "Nothing is above 0.")
    label_ends(ax, _curves(data, ax) + _levels(data, ax))
    ax.set_ylabel(data.label)
    return None


def _levels(data: Bands, ax: Axes) -> list[tuple[float, str, str]]:
    """Draw the values that matter, and return what to write at their ends."""
    for y, _ in data.levels:
        ax.axhline(y, color=MUTED, linewidth=1.0, linestyle=":")
    return [(y, name, MUTED) for y, name in data.levels]


def _curves(data: Bands, ax: Axes) -> list[tuple[float, str, str]]:
    """Draw the bands, and return what to write at their ends."""
    log, floor = ax.get_yscale() == "log", ax.get_ylim()[0]
    ends = []
    for run in data.runs:
        draw_band(ax, run.t, run.low, run.high, run.colour, 0.16)
        middle = np.where((run.middle > 0) | ~np.isfinite(run.middle), run.middle, floor / 10) if log else run.middle
        ax.plot(run.t, middle, color=run.colour, linestyle=dash(run.colour))
        finite = middle[np.isfinite(middle)]
        last = float(finite[-1]) if len(finite) else math.nan
        ends.append((max(last, floor), run.name + FELL * bool(log and last < floor), run.colour))
    return ends


# Step by step


@dataclass(frozen=True)
class Steps:
    """One coordinate of one seed at consecutive steps."""

    steps: NDArray[np.int64]
    curves: tuple[tuple[str, str, Array], ...]
    """Name, colour and values of each run."""
    mark: float
    variable: str


def steps(runs: Runs, problem: Problem, first: int, last: int, coordinate: int = 0) -> Steps:
    """Return x_t from step `first` to `last` of runs that kept every step of these.

    Raises:
        ValueError: if one did not.
    """
    found = tuple(
        (name, colour, iterates(trace)[consecutive(trace, first, last), 0, coordinate])
        for (name, trace), colour in zip(runs, tones(runs), strict=True)
    )
    best = math.nan if problem.optimum is None else float(problem.optimum[coordinate])
    return Steps(np.arange(first, last + 1), found, best, str(problem.variables[coordinate]))


def draw_steps(data: Steps, ax: Axes) -> None:
    """Draw every step as a point."""
    ends = []
    for name, colour, x in data.curves:
        ax.plot(data.steps, x, "-o", color=colour, markersize=3.2, linewidth=1.1)
        ends.append((name, colour, float(x[-1])))
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    ax.set_xlim(data.steps[0] - 0.5, data.steps[-1] + 0.5)
    if math.isfinite(data.mark):
        ax.axhline(data.mark, color=INK, linewidth=1.0, linestyle="--")
        ends.append((f"x* = {number(data.mark)}", INK, data.mark))
    plain_numbers(ax)
    whole_steps(ax)
    ax.set_ylabel(f"iterate {data.variable}")
    label_ends(ax, [(y, name, colour) for name, colour, y in ends])
