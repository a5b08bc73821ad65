"""Simulated runs side by side: where the iterates go, regret, how the stepsizes grow, and when they shrink again.

Each figure is a function that returns its data as plain arrays, and one that draws such data on axes. Runs come as
(name, trace) pairs; a method keeps its colour from figure to figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.conditions import BIAS_FLOOR, VARIANCE_FLOOR
from ..diagnostics.trace import Trace
from ..synthetic.problem import Problem
from .figures import block_sums
from .numerals import count, number
from .theme import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SERIES,
    SKY,
    STYLE,
    VERMILLION,
    WASH,
    log_steps,
    log_values,
    say,
    spread,
    tick,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .plates import Panel

Array = NDArray[np.float64]
Runs = Sequence[tuple[str, Trace]]

BINS = 90
"""Stretches of equal length in log t: what oscillates within one shows as a band, not as an accident of sampling."""
DECADES = 12.0
"""At most so many decades of a quantity that vanishes are worth their place."""
FELL = " ↓"
"""Marks the name of a curve that ends below the floor of its axis."""
COLUMN = {"a": "a", "b": "b", "c": "c", "c⁺": "c_plus"}
TITLES = {
    "a": ("(a)  effective stepsizes", "Σ e"),
    "b": ("(b)  squared steps", "Σ ‖e g‖²"),
    "c": ("(c)  oscillation of stepsizes", "Σ |Δe|"),
    "c⁺": ("(c⁺)  rises of stepsizes", "Σ max(Δe, 0)"),
}
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


# Where the iterates go


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


def span(runs: Runs) -> tuple[float, float]:
    """Return the first and last step of any run."""
    return float(min(trace.steps[0] for _, trace in runs)), float(max(trace.steps[-1] for _, trace in runs))


def draw_paths(data: Bands, ax: Axes) -> None:
    """Draw the iterates on a linear axis; outside the box is grey, the optimum a line."""
    log_steps(ax, [data.start, data.stop])
    drawn = np.concatenate([np.concatenate([run.low, run.high]) for run in data.runs])
    known = np.concatenate([drawn[np.isfinite(drawn)], [m for m in (data.mark, *data.box) if math.isfinite(m)]])
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
    _linear(ax, "y")
    ax.set_ylabel(data.label)
    name_ends(ax, ends)
    return None


def draw_falling(data: Bands, ax: Axes) -> None:
    """Draw distances or regrets on logarithmic axes; what vanishes leaves through the floor.

    Regrets may be negative: then the axis is linear about 0 and logarithmic beyond.
    """
    values = np.concatenate([np.concatenate([run.low, run.high]) for run in data.runs])
    values = values[np.isfinite(values)]
    log_steps(ax, [data.start, data.stop])
    if (values < 0).any():
        size = np.abs(values[values != 0])
        _both_ways(ax, _decade(float(np.quantile(size, 0.25))), float(values.min()), float(values.max()))
        ax.axhline(0, color=MUTED, linewidth=0.8)
    elif not log_values(ax, values[values >= values.max(initial=0) * 10**-DECADES]):
        return say(ax, "Nothing is above 0.")
    name_ends(ax, _curves(data, ax))
    ax.set_ylabel(data.label)
    return None


def _decade(value: float) -> float:
    """Return the power of ten at or below a positive value."""
    return 10.0 ** math.floor(math.log10(value))


def _both_ways(ax: Axes, linear: float, low: float, high: float) -> None:
    """Make y linear within ±`linear` and logarithmic beyond, with few numbers along it."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.set_yscale("symlog", linthresh=linear, linscale=1.0)
    ax.set_ylim(*(end + 2 * math.copysign(max(abs(end), linear), side) for end, side in ((low, -1), (high, 1))))
    bottom, top = ax.get_ylim()
    powers = [linear * 10.0**k for k in range(24) if linear * 10.0**k <= max(-bottom, top)]
    powers = powers[:: math.ceil(len(powers) / 4)]
    shown = [v for v in [*(-p for p in powers), 0.0, *powers] if bottom <= v <= top]
    ax.yaxis.set_major_locator(FixedLocator(shown))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: "0" if v == 0 else "−" * int(v < 0) + tick(abs(v))))


def _curves(data: Bands, ax: Axes) -> list[tuple[float, str, str]]:
    """Draw the bands, and return what to write at their ends."""
    log, floor = ax.get_yscale() == "log", ax.get_ylim()[0]
    ends = []
    for run in data.runs:
        middle, low, high = (
            np.where((v > 0) | ~np.isfinite(v), v, floor / 10) if log else v for v in (run.middle, run.low, run.high)
        )
        ax.fill_between(run.t, low, high, color=run.colour, alpha=0.16, linewidth=0)
        ax.plot(run.t, middle, color=run.colour, linestyle=_dash(run.colour))
        finite = middle[np.isfinite(middle)]
        last = float(finite[-1]) if len(finite) else math.nan
        ends.append((max(last, floor), run.name + FELL * bool(log and last < floor), run.colour))
    return ends


def _dash(colour: str) -> Any:
    return DASHES.get(colour, "-")


# A few steps, one by one


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
    _linear(ax, "y")
    _whole(ax)
    ax.set_ylabel(f"iterate {data.variable}")
    name_ends(ax, [(y, name, colour) for name, colour, y in ends])


# Γ: when stepsizes shrink back


@dataclass(frozen=True)
class Gamma:
    """Γ_t = 1/e_t − 1/e_{t−1} of one run at consecutive steps, and the share of steps in which it is negative."""

    name: str
    steps: NDArray[np.int64]
    gamma: Array
    negative: float
    linear: float
    """The axis is linear up to here; as `top` and `bottom`, the same for all runs side by side."""
    bottom: float
    top: float


def gammas(runs: Runs, first: int, last: int) -> list[Gamma]:
    """Return Γ of the first seed of each run from step `first` to `last`, which they and the one before must have kept.

    Raises:
        ValueError: if one has not, or has several coordinates, of which a trace keeps no stepsizes one by one.
    """
    found = [_gamma(trace, first, last) for _, trace in runs]
    finite = np.concatenate([g[np.isfinite(g)] for g in found])
    size = np.abs(finite[finite != 0])
    linear = _decade(float(np.median(size))) if len(size) else math.nan
    bottom, top = float(finite.min(initial=0)), float(finite.max(initial=0))
    steps = np.arange(first, last + 1)
    return [Gamma(name, steps, g, _negative(g), linear, bottom, top) for (name, _), g in zip(runs, found, strict=True)]


def _gamma(trace: Trace, first: int, last: int) -> Array:
    if trace.tensors[0].numel != 1:
        raise ValueError(f"`runs` must be of a problem in one variable, got {trace.tensors[0].numel}.")
    e = trace.column("e_p50")[consecutive(trace, first - 1, last), 0]  # of one coordinate, the median is the value
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.diff(1 / e)


def _negative(gamma: Array) -> float:
    known = gamma[np.isfinite(gamma)]
    return float((known < 0).mean()) if len(known) else math.nan


def draw_gamma(data: Gamma, ax: Axes) -> None:
    """Draw Γ, its negative part shaded; the axis is linear about 0 and logarithmic beyond."""
    if math.isnan(data.negative):
        return say(ax, "No two stepsizes to compare.")
    if math.isnan(data.linear):
        return say(ax, "The stepsize never changed.")
    _both_ways(ax, data.linear, data.bottom, data.top)
    ax.axhspan(ax.get_ylim()[0], 0, color=VERMILLION, alpha=0.06, linewidth=0)
    for part, colour in ((np.minimum(data.gamma, 0), VERMILLION), (np.maximum(data.gamma, 0), BLUE)):
        ax.fill_between(data.steps, part, color=colour, alpha=0.55, linewidth=0, step="mid")
        ax.step(data.steps, part, where="mid", color=colour, linewidth=1.0)
    ax.axhline(0, color=MUTED, linewidth=1.4, zorder=3)  # over the curves, which return to it
    ax.set_xlim(data.steps[0] - 0.5, data.steps[-1] + 0.5)
    _whole(ax)
    ax.set_ylabel("Γₜ = 1/eₜ − 1/eₜ₋₁")
    ax.set_title(data.name)
    words = f"Γ < 0: e rises\n{100 * data.negative:.0f} % of steps" if data.negative else "Γ < 0: never"
    sides = ((0.85, "Γ > 0: e falls", BLUE), (0.15, words, VERMILLION))
    for height, text, colour in sides:
        ax.text(1.015, height, text, transform=ax.transAxes, color=colour, va="center", ha="left", fontsize=9.5)
    return None


# (a), (b), (c) and their ratios


@dataclass(frozen=True)
class Curves:
    """Something over steps for several runs; 0 and NaN have no place on the logarithmic axes."""

    key: str
    runs: tuple[tuple[str, str, Array, Array], ...]
    """Name, colour, steps and values."""


def growth(runs: Runs, key: str) -> Curves:
    """Return one of the sums a, b, c or c⁺ of each run, the mean over its seeds."""
    return Curves(
        key,
        tuple(
            (name, colour, trace.steps.astype(np.float64), trace.total(COLUMN[key]) / len(trace.tensors))
            for (name, trace), colour in zip(runs, tones(runs), strict=True)
        ),
    )


def ratios(runs: Runs, key: str) -> Curves:
    """Return b, c or c⁺ over a, both as increments over √2-spaced blocks, for each run.

    As in the judge of the bias condition, what rounding alone makes e rise counts as 0.
    """
    found = []
    for (name, trace), colour in zip(runs, tones(runs), strict=True):
        edges, (top, bottom) = block_sums(trace, COLUMN[key], "a")
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            values = np.where(bottom > 0, top / bottom, np.nan)
        if key == "c⁺":
            values[values <= BIAS_FLOOR] = 0.0
        found.append((name, colour, np.sqrt(edges[1:] * edges[:-1]), values))
    return Curves(f"{key}/a", tuple(found))


def draw_growth(data: Curves, ax: Axes) -> None:
    """Draw sums on logarithmic axes, named at their ends."""
    _log_curves(data, ax, math.inf)
    title, unit = TITLES[data.key]
    ax.set_title(title)
    ax.set_ylabel(unit if ax.get_xlabel() else "")


def draw_ratios(data: Curves, ax: Axes) -> None:
    """Draw block ratios: those that vanish leave through the floor, those that never were are named there."""
    _log_curves(data, ax, -math.log10(VARIANCE_FLOOR), "o")
    ax.set_title(f"{data.key} per √2-spaced block")
    ax.set_ylabel(f"increment of {data.key.replace('/', ' / of ')}" if ax.get_xlabel() else "")


def _log_curves(data: Curves, ax: Axes, decades: float, marker: str = "") -> None:
    values = np.concatenate([run[3] for run in data.runs])
    usable = values[np.isfinite(values) & (values > 0)]
    log_steps(ax, np.concatenate([run[2] for run in data.runs]))
    if not len(usable) or not log_values(ax, usable[usable >= usable.max() * 10.0**-decades]):
        return say(ax, "It is 0 for every method.")
    floor, ends = ax.get_ylim()[0], []
    for name, colour, t, run in data.runs:
        with np.errstate(invalid="ignore"):
            shown = np.where(run > 0, run, np.nan if (run[np.isfinite(run)] <= 0).all() else floor / 10)
        ax.plot(t, shown, color=colour, marker=marker, markersize=3, linestyle=_dash(colour), linewidth=1.4)
        last = float(run[np.isfinite(run)][-1]) if np.isfinite(run).any() else math.nan
        if last > 0:
            ends.append((max(last, floor), name + FELL * bool(last < floor), colour))
        elif last == 0:
            ends.append((floor, f"{name}: 0", colour))
    name_ends(ax, ends)
    return None


# On a sheet


def save_sheet(panels: Sequence[Panel], path: str | Path, title: str, note: str = "", columns: int = 3) -> Path:
    """Write panels side by side, in the format that the file's ending names, and return where it is.

    A panel's label, if it has one, is its title.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    path, rows = Path(path), math.ceil(len(panels) / columns)
    wide, high = max(panel.size[0] for panel in panels), max(panel.size[1] for panel in panels)
    with rc_context(STYLE):
        figure = Figure(
            figsize=(columns * wide, rows * high + 0.75), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
        )
        FigureCanvasAgg(figure)
        cells = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, ax in zip(panels, cells, strict=False):
            panel.draw(ax)
            if panel.label:
                ax.set_title(panel.label)
        for ax in cells[len(panels) :]:
            ax.set_axis_off()
        figure.suptitle(title, x=0.012, ha="left", fontsize=12.5, color=INK)
        if note:
            figure.supxlabel(note, x=0.012, ha="left", fontsize=9, color=MUTED)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def name_ends(ax: Axes, ends: Sequence[tuple[float, str, str]], gap: float = 0.075) -> None:
    """Write each (y, text, colour) beside the right edge at its height, moved apart and kept above the axis."""
    to_axes, right = ax.transAxes.inverted(), ax.get_xlim()[1]
    places = []
    for y, text, colour in ends:
        height = float(to_axes.transform(ax.transData.transform((right, y)))[1])
        if math.isfinite(height):
            places.append((min(max(height, 0.0), 1.0), text, colour))
    places.sort(key=lambda place: place[0])
    lowest = 0.4 * gap  # below it are the numbers of the x axis
    heights = spread([place[0] for place in places], gap)
    for i, (height, (_, text, colour)) in enumerate(zip(heights, places, strict=True)):
        at = max(height, lowest + i * gap)
        ax.text(1.015, at, text, transform=ax.transAxes, color=colour, va="center", ha="left", fontsize=9.5)


def _linear(ax: Axes, which: str) -> None:
    from matplotlib.ticker import FuncFormatter

    getattr(ax, f"{which}axis").set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def _whole(ax: Axes) -> None:
    """Make x an axis of steps one by one."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    low, high = ax.get_xlim()
    exact = high - low < 1e4
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}" if exact else count(value)))
    ax.set_xlabel("step")
