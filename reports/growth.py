"""The stepsizes of simulated runs: when they shrink and rise (Γ), their sums (a), (b), (c), and the ratios of these.

Each figure is a function that returns its data as plain arrays, and one that draws such data on axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.conditions import BIAS_FLOOR, VARIANCE_FLOOR
from ..diagnostics.trace import Trace
from .axes import FELL, Array, Runs, both_ways, consecutive, dash, decade, span, tones, whole_steps
from .figures import block_sums
from .theme import BLUE, MUTED, VERMILLION, label_ends, log_steps, log_values, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMN = {"a": "a", "b": "b", "c": "c", "c⁺": "c_plus"}
TITLES = {
    "a": ("(a)  effective stepsizes", "Σ e"),
    "b": ("(b)  squared steps", "Σ ‖e g‖²"),
    "c": ("(c)  oscillation of stepsizes", "Σ |Δe|"),
    "c⁺": ("(c⁺)  rises of stepsizes", "Σ max(Δe, 0)"),
}


# Γ: when stepsizes shrink, and when they rise


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
    sizes = [np.median(np.abs(g[np.isfinite(g) & (g != 0)])) for g in found if (np.isfinite(g) & (g != 0)).any()]
    linear = decade(float(min(sizes))) if sizes else math.nan  # or the run with the smaller Γ would be a flat line
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
    both_ways(ax, data.linear, data.bottom, data.top)
    ax.axhspan(ax.get_ylim()[0], 0, color=VERMILLION, alpha=0.06, linewidth=0)
    for part, colour in ((np.minimum(data.gamma, 0), VERMILLION), (np.maximum(data.gamma, 0), BLUE)):
        ax.fill_between(data.steps, part, color=colour, alpha=0.55, linewidth=0, step="mid")
        ax.step(data.steps, part, where="mid", color=colour, linewidth=1.0)
    ax.axhline(0, color=MUTED, linewidth=1.4, zorder=3)  # over the curves, which return to it
    ax.set_xlim(data.steps[0] - 0.5, data.steps[-1] + 0.5)
    whole_steps(ax)
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
    """Something over steps for several runs, which span those from `start` to `stop`; 0 and NaN have no logarithm."""

    key: str
    runs: tuple[tuple[str, str, Array, Array], ...]
    """Name, colour, steps and values."""
    start: float
    stop: float


def growth(runs: Runs, key: str) -> Curves:
    """Return one of the sums a, b, c or c⁺ of each run, the mean over its seeds."""
    return Curves(
        key,
        tuple(
            (name, colour, trace.steps.astype(np.float64), trace.total(COLUMN[key]) / len(trace.tensors))
            for (name, trace), colour in zip(runs, tones(runs), strict=True)
        ),
        *span(runs),
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
    return Curves(f"{key}/a", tuple(found), *span(runs))


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
    log_steps(ax, [data.start, data.stop])
    if not len(usable) or not log_values(ax, usable[usable >= usable.max() * 10.0**-decades]):
        return say(ax, "It is 0 for every method.")
    floor, ends = ax.get_ylim()[0], []
    for name, colour, t, run in data.runs:
        with np.errstate(invalid="ignore"):
            shown = np.where(run > 0, run, np.nan if (run[np.isfinite(run)] <= 0).all() else floor / 10)
        ax.plot(t, shown, color=colour, marker=marker, markersize=3, linestyle=dash(colour), linewidth=1.4)
        last = float(run[np.isfinite(run)][-1]) if np.isfinite(run).any() else math.nan
        if last > 0:
            ends.append((max(last, floor), name + FELL * bool(last < floor), colour))
        elif last == 0:
            ends.append((floor, f"{name}: 0", colour))
    label_ends(ax, ends)
    return None
