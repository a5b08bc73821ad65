"""What a run did over its steps: sums, stepsizes, step lengths, logged scalars, and what made stepsizes rise.

Each figure is a function that returns its data as plain arrays, and one that draws such data on axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.conditions import block_edges
from ..diagnostics.trace import Scalars, Trace
from .axes import draw_band
from .legible import shorten, tell_apart
from .numerals import count, number
from .theme import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    SERIES,
    SKY,
    VERMILLION,
    label_ends,
    legend_below,
    log_steps,
    log_values,
    say,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

POINTS = 160  # per curve: at 500 px, more cannot be told apart
PANELS = 6
QUANTILES = ("e_min", "e_p1", "e_p50", "e_p99", "e_max")
SUMS = {"a": ("a", BLUE), "b": ("b", ORANGE), "c": ("c", SKY), "c⁺": ("c_plus", VERMILLION)}
PARTS = {
    "learning rate": ("rise_lr", GREEN),
    "bias correction": ("rise_bias", ORANGE),
    "second moment": ("rise_v", BLUE),
}


def thin(steps: NDArray[np.int64], points: int = POINTS, *, log: bool = True) -> NDArray[np.intp]:
    """Return at most `points` indices, evenly spread over (log) steps, first and last among them."""
    if len(steps) <= points:
        return np.arange(len(steps))
    space = np.geomspace if log else np.linspace
    wanted = space(max(int(steps[0]), 1), int(steps[-1]), points)
    return np.unique(np.append(np.searchsorted(steps, wanted[:-1]), len(steps) - 1))


def largest(trace: Trace, candidates: NDArray[np.intp], limit: int = PANELS) -> list[int]:
    """Return those of the candidate tensors with the most coordinates, in the order of the model."""
    by_size = sorted((int(i) for i in candidates), key=lambda i: -trace.tensors[i].numel)
    return sorted(by_size[:limit])


def block_sums(trace: Trace, *columns: str) -> tuple[Array, list[Array]]:
    """Return the edges of all √2-spaced blocks of a run, and each column's increment over every block."""
    index = block_edges(trace.steps, 1)
    with np.errstate(invalid="ignore"):  # a sum that overflowed has no increment: ∞ - ∞
        increments = [np.diff(trace.total(column)[index]) for column in columns]
    return trace.steps[index].astype(np.float64), increments


@dataclass(frozen=True)
class Sums:
    """The cumulative sums a, b, c and c⁺ of the whole run."""

    steps: NDArray[np.int64]
    curves: dict[str, Array]


def sums(trace: Trace) -> Sums:
    """Return a, b, c and c⁺ at the records."""
    keep = thin(trace.steps)
    return Sums(trace.steps[keep], {name: trace.total(column)[keep] for name, (column, _) in SUMS.items()})


def draw_sums(data: Sums, ax: Axes) -> None:
    """Draw the sums on logarithmic axes, each named at its end."""
    values = np.concatenate(list(data.curves.values()))
    if not log_values(ax, values):
        return say(ax, "No stepsize was read.")
    log_steps(ax, data.steps)
    ends = []
    for name, curve in data.curves.items():
        colour = SUMS[name][1]
        positive = np.where(curve > 0, curve, np.nan)
        ax.plot(data.steps, positive, color=colour, linestyle="--" if name == "c" else "-")
        ends.append((float(curve[-1]), name, colour) if curve[-1] > 0 else (ax.get_ylim()[0], f"{name} = 0", colour))
    label_ends(ax, ends)
    return None


@dataclass(frozen=True)
class Stepsizes:
    """The spread of one tensor's stepsize over time: quantiles `(5, records)`, with the learning rate."""

    name: str
    steps: NDArray[np.int64]
    quantiles: Array
    lr: Array


def stepsizes(trace: Trace, limit: int = PANELS) -> list[Stepsizes]:
    """Return the stepsizes of the `limit` largest tensors that have one, in the order of the model."""
    keep = thin(trace.steps)
    quantiles = np.stack([trace.column(name)[keep] for name in QUANTILES])
    readable = np.isfinite(quantiles).any(axis=(0, 1))
    lr = trace.groups.get("lr", np.full((len(trace.steps), 1), np.nan))[keep]
    return [
        Stepsizes(
            trace.tensors[i].name,
            trace.steps[keep],
            quantiles[:, :, i],
            lr[:, trace.tensors[i].group % lr.shape[1]],
        )
        for i in largest(trace, np.flatnonzero(readable), limit)
    ]


def draw_stepsizes(data: Stepsizes, ax: Axes) -> None:
    """Draw the median in the bands of 1–99 % and of the whole range, and the learning rate."""
    lr = data.lr
    if not log_values(ax, np.concatenate([data.quantiles.ravel(), lr])):
        return say(ax, "Every stepsize is 0.")
    log_steps(ax, data.steps)
    low, p1, median, p99, high = data.quantiles
    draw_band(ax, data.steps, low, high, BLUE, 0.14, "min–max")
    draw_band(ax, data.steps, p1, p99, BLUE, 0.3, "1–99 %")
    ax.plot(data.steps, np.maximum(median, ax.get_ylim()[0]), color=BLUE, label="median")
    ax.plot(data.steps, np.where(lr > 0, lr, np.nan), "--", color=INK, linewidth=1.1, label="lr")
    ax.set_title(shorten(data.name, 34))
    legend_below(ax, 4)
    return None


@dataclass(frozen=True)
class Lengths:
    """How far a step moves each tensor relative to its size, RMS(Δθ)/RMS(θ)."""

    steps: NDArray[np.int64]
    curves: dict[str, Array]


def lengths(trace: Trace, limit: int = PANELS) -> Lengths:
    """Return update-to-weight ratios of the `limit` largest tensors at the records that measured a step."""
    measured = np.flatnonzero(np.isfinite(trace.column("update_rms")).any(axis=1))
    keep = measured[thin(trace.steps[measured])]
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = trace.column("update_rms")[keep] / trace.column("weight_rms")[keep]
    readable = (np.isfinite(relative) & (relative > 0)).any(axis=0)
    chosen = largest(trace, np.flatnonzero(readable), limit)
    return Lengths(trace.steps[keep], {trace.tensors[i].name: relative[:, i] for i in chosen})


def draw_lengths(data: Lengths, ax: Axes) -> None:
    """Draw one curve per tensor."""
    usable = {name: np.where((c > 0) & np.isfinite(c), c, np.nan) for name, c in data.curves.items()}
    if not usable or not log_values(ax, np.concatenate(list(usable.values()))):
        return say(ax, "No step was measured against its weights.")
    log_steps(ax, data.steps)
    names = tell_apart(list(usable), 18)
    for name, curve, colour in zip(names, usable.values(), SERIES, strict=False):
        ax.plot(data.steps, curve, color=colour, linewidth=1.1, label=name)
    legend_below(ax, 3)
    return None


@dataclass(frozen=True)
class Curve:
    """A logged scalar: means between the records shown, and the steps at which it was not finite.

    It is `sparse` if most records came without a new value.
    """

    name: str
    steps: NDArray[np.int64]
    mean: Array
    broken: NDArray[np.int64]
    sparse: bool = False


def curves(trace: Trace, limit: int = PANELS) -> list[Curve]:
    """Return the logged scalars, where they were. Sums are cumulative, so means over coarser stretches are exact."""
    found = []
    for name, scalar in list(trace.logged.items())[:limit]:
        logged = np.flatnonzero((np.diff(scalar.count, prepend=0.0) > 0) | ~np.isfinite(scalar.last))
        keep = logged[thin(scalar.steps[logged], log=False)] if len(logged) else logged
        coarse = Scalars(scalar.steps[keep], scalar.last[keep], scalar.total[keep], scalar.count[keep])
        broken = scalar.steps[~np.isfinite(scalar.last)]
        found.append(Curve(name, coarse.steps, coarse.means(), broken, len(logged) < len(scalar.steps) / 2))
    return found


def draw_curve(data: Curve, ax: Axes) -> None:
    """Draw a scalar over steps, as points if it is sparse; logarithmic where it is positive and spans a decade."""
    from matplotlib.ticker import FuncFormatter

    finite = data.mean[np.isfinite(data.mean)]
    if len(finite) == 0:
        return say(ax, f"{shorten(data.name)} was never finite.")
    if finite.min() > 0 and finite.max() > 10 * finite.min():
        log_values(ax, finite, margin=1.3)
    else:
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    style = {"linestyle": "", "marker": "o", "markersize": 4.5} if data.sparse else {"linewidth": 1.2}
    ax.plot(data.steps, np.where(np.isfinite(data.mean), data.mean, np.nan), color=BLUE, **style)
    if len(data.broken):
        ax.plot(
            data.broken,
            np.zeros(len(data.broken)),
            "|",
            color=VERMILLION,
            transform=ax.get_xaxis_transform(),
        )
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    ax.set_xlabel("step")
    ax.set_title(shorten(data.name, 34))
    return None


@dataclass(frozen=True)
class Rises:
    """Per block: which share of the upward moves each factor made, and which share of the stepsizes rose."""

    edges: Array
    shares: dict[str, Array]
    rising: Array


def rises(trace: Trace) -> Rises:
    """Return the shares per block; NaN in a block without any rise."""
    edges, (rose, compared, *parts) = block_sums(trace, "rising", "compared", *(column for column, _ in PARTS.values()))
    whole = np.sum(parts, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = {name: np.where(whole > 0, part / whole, np.nan) for name, part in zip(PARTS, parts, strict=True)}
        return Rises(edges, shares, np.where(compared > 0, rose / compared, np.nan))


def draw_rises(data: Rises, ax: Axes) -> None:
    """Draw stacked bars per block, and the share of stepsizes that rose as a line."""
    if not np.isfinite(data.rising).any():
        return say(ax, "No two stepsizes to compare yet.")
    if np.nanmax(data.rising) == 0:
        return say(ax, "No stepsize ever rose from one step to the next.")
    log_steps(ax, data.edges)
    base = np.zeros(len(data.rising))
    for name, share in data.shares.items():
        height = np.nan_to_num(share)
        ax.bar(
            data.edges[:-1] * 1.02,
            height,
            np.diff(data.edges) * 0.94,
            base,
            align="edge",
            color=PARTS[name][1],
            alpha=0.75,
            linewidth=0,
            label=name,
        )
        base += height
    middle = np.sqrt(data.edges[1:] * data.edges[:-1])
    ax.plot(middle, data.rising, "-o", color=INK, markersize=3.5, linewidth=1.1, label="share that rose")
    ax.set_ylim(0, 1.03)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    legend_below(ax, 2)
    return None
