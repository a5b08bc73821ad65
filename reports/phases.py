"""The picture of a phase diagram: how every cell ends, its distance to the optimum, and theory's lines over both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import sympy
from numpy.typing import NDArray
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

from ..synthetic.boundaries import DRIFT
from ..synthetic.crossings import Crossing
from ..synthetic.phase import Axis, Ending, Phase
from .legible import name
from .mosaic import draw_mosaic
from .numerals import count, number, percent, whole
from .sheets import sheet
from .theme import BLUE, INK, MUTED, VERMILLION, WASH, legend_below, tick

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

FILLS: dict[Ending, tuple[str, float]] = {
    Ending.RIGHT: (BLUE, 0.5),
    Ending.UNDECIDED: (WASH, 1.0),
    Ending.WRONG: (VERMILLION, 0.6),
    Ending.UNSTABLE: (MUTED, 0.9),
}
"""Colour and opacity: told apart by people with colour-blindness and by their lightness in print, on any ground."""
SHADES = 12
"""Of a colour, from the start's distance to the nearest and to the farthest."""
OPAQUE = 0.9
MEANING = {
    Ending.RIGHT: "right: nearer than the start",
    Ending.UNDECIDED: "undecided",
    Ending.WRONG: "wrong: farther than the start",
    Ending.UNSTABLE: "not finite",
}
SYMBOLS = {"beta1": "β1", "beta2": "β2", "lr": "factor of the learning rate"}
GAPS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999, 0.9999999)
SIZE = (11.0, 5.0)


@dataclass(frozen=True)
class Line:
    """One boundary in the places of the axes."""

    name: str
    x: Array
    y: Array

    @property
    def drift(self) -> bool:
        """Whether it says where a method ends; other lines are conditions of proofs."""
        return self.name == DRIFT


@dataclass(frozen=True)
class Picture:
    """What is drawn: axes, cells (rows, columns) and lines."""

    title: str
    axes: tuple[Axis, Axis]
    endings: NDArray[np.int64]
    """The index of each cell's ending in `Ending`."""
    distance: Array
    away: float
    lines: tuple[Line, ...]


def picture(phase: Phase) -> Picture:
    """Return the data of a phase diagram's picture."""
    order = list(Ending)
    seeds = f", {len(phase.seeds)} seeds" if len(phase.seeds) > 1 else ""
    what = name(f"{phase.method} on {phase.problem}")
    return Picture(
        title=f"{what}: {count(phase.steps)} steps, α = {formula(phase.lr)}{seeds}",
        axes=(phase.x, phase.y),
        endings=np.array([[order.index(ending) for ending in row] for row in phase.ending], dtype=np.int64),
        distance=phase.distance,
        away=phase.away,
        lines=tuple(_line(phase, line.name, line.beta1, line.beta2) for line in phase.boundaries),
    )


class Formula(StrPrinter):  # type: ignore[misc]
    """Writes expressions in plain characters: 0.1/√⌈t/10⌉ and not 0.1/sqrt(ceiling(t/10))."""

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        del rational
        if expr.exp.is_negative:
            return f"1/{self.parenthesize(1 / expr, PRECEDENCE['Pow'], strict=True)}"
        base = self.parenthesize(expr.base, PRECEDENCE["Pow"])
        if expr.exp == sympy.Rational(1, 2):
            return f"√{base}"
        return f"{base}²" if expr.exp == 2 else f"{base}^{self.parenthesize(expr.exp, PRECEDENCE['Pow'])}"

    def _print_ceiling(self, expr: sympy.ceiling) -> str:
        return f"⌈{self._print(expr.args[0])}⌉"

    def _print_floor(self, expr: sympy.floor) -> str:
        return f"⌊{self._print(expr.args[0])}⌋"

    def _print_Pi(self, expr: sympy.Expr) -> str:
        del expr
        return "π"

    def _print_Float(self, expr: sympy.Float) -> str:
        return number(float(expr), 6)


def formula(law: str) -> str:
    """Return a learning rate's law in t and T as a person would write it."""
    t, horizon = sympy.symbols("t T", positive=True)
    text: str = Formula().doprint(sympy.sympify(law, locals={"t": t, "T": horizon}))
    return text.replace("*", "·").replace("-", "−")


def _line(phase: Phase, name: str, beta1: Array, beta2: Array) -> Line:
    """Return a boundary as places, NaN where it leaves the picture."""
    values = {"beta1": beta1, "beta2": beta2}
    x, y = (axis.to(values[axis.name]) for axis in (phase.x, phase.y))
    return Line(name, x, y)


def draw_endings(data: Picture, ax: Axes) -> list[Artist]:
    """Draw how every cell ends, with the lines of theory, and return what a legend should explain."""
    from matplotlib.patches import Patch

    draw_mosaic(*_mesh(data), data.endings, [FILLS[ending] for ending in Ending], ax)
    _frame(data, ax)
    handles = draw_lines(data, ax)
    seen = [ending for i, ending in enumerate(Ending) if (data.endings == i).any()]
    cells = [Patch(facecolor=FILLS[e][0], alpha=FILLS[e][1], label=MEANING[e]) for e in seen]
    return [*cells, *handles]


def draw_distance(data: Picture, ax: Axes) -> None:
    """Draw the final distance to the optimum, logarithmic; the bare ground in the middle is the start's distance."""
    span = _span(data)
    edges = np.concatenate([np.linspace(span[0], span[1], SHADES + 1), np.linspace(span[1], span[2], SHADES + 1)[1:]])
    with np.errstate(divide="ignore"):
        places = np.log10(np.where(np.isfinite(data.distance), data.distance, np.nan))
    shades = np.where(np.isnan(places), 2 * SHADES, np.clip(np.searchsorted(edges, places) - 1, 0, 2 * SHADES - 1))
    opacities = OPAQUE * (np.arange(SHADES) + 0.5) / SHADES
    looks = [*((BLUE, float(o)) for o in opacities[::-1]), *((VERMILLION, float(o)) for o in opacities)]
    draw_mosaic(*_mesh(data), shades, [*looks, FILLS[Ending.UNSTABLE]], ax)
    _frame(data, ax)
    draw_lines(data, ax)
    bar = ax.inset_axes((1.03, 0.0, 0.035, 1.0))
    draw_mosaic(np.array([0.0, 1.0]), edges, np.arange(2 * SHADES)[:, None], looks, bar)
    _scale_of(bar, span, data.away)


def _span(data: Picture) -> Array:
    """Return the logarithms of the distances at the lower end, the middle and the upper end of the scale."""
    finite = data.distance[np.isfinite(data.distance) & (data.distance > 0)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (1.0, 1.0)
    away = data.away if data.away > 0 else high
    return np.log10([max(min(low, away / 1.5), away * 1e-4), away, min(max(high, away * 1.5), away * 1e4)])


def _scale_of(bar: Axes, span: Array, away: float) -> None:
    """Write distances beside the bar: its ends, its decades, and the start."""
    decades = np.arange(np.ceil(span[0]), np.floor(span[2]) + 1)
    marks = [span[0], *(m for m in decades if np.abs(span - m).min() > 0.15), span[2]]
    words = [tick(10.0**m) if m in decades else number(10.0**m, 2) for m in marks]
    bar.set(ylim=(span[0], span[2]), xticks=[])
    bar.set_yticks([*marks, span[1]], [*words, f"{number(away, 2)} (start)"])
    bar.yaxis.tick_right()
    bar.grid(False)
    bar.spines[:].set_visible(False)


def draw_lines(data: Picture, ax: Axes) -> list[Artist]:
    """Draw the boundaries and return a legend's handle for each name."""
    handles: dict[str, Artist] = {}
    for line in data.lines:
        style, width = ("-", 1.8) if line.drift else ("--", 1.4)
        label = "theory: the drift changes sign" if line.drift else line.name
        (handle,) = ax.plot(line.x, line.y, color=INK, label=label, linestyle=style, linewidth=width)
        handles.setdefault(label, handle)
    return list(handles.values())


def draw_crossings(data: Picture, upright: bool, found: Sequence[Crossing], ax: Axes) -> None:
    """Draw between which cells the ending changes, along y where `upright`, and theory's line where it does."""
    drift = tuple(line for line in data.lines if line.drift)
    _frame(data, ax)
    ax.grid(True)
    across, along = data.axes if upright else data.axes[::-1]
    places = across.to(np.array([one.at for one in found]))
    low, high = (along.to(np.array([getattr(one, end) for one in found])) for end in ("low", "high"))
    draw = ax.vlines if upright else ax.hlines
    bars = draw(places, low, high, color=BLUE, linewidth=3.0, alpha=0.7, label="measured")
    handles = draw_lines(replace(data, lines=drift), ax)
    legend_below(ax, 2, [bars, *handles])


def check_format(path: str | Path, more: str = "") -> Path:
    """Return the path of a picture if its ending names a format, before anything long is done for it.

    `more` says which other endings the caller takes.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    if Path(path).suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"the name must end in .png or .svg for a picture{more}, got '{path}'.")
    return Path(path)


def share(phase: Phase, ending: Ending) -> str:
    """Return the share of the plane that ends so, in words: neither none nor all is said of a part."""
    part = phase.share(ending)
    if 0 < part < 0.01:
        return "less than 1 %"
    return "more than 99 %" if 0.99 < part < 1 else percent(part)


def told(diagram: Phase) -> str:
    """Return in a few lines what share ends how, and what that means."""
    shares = ", ".join(f"{share(diagram, ending)} {ending}" for ending in Ending if diagram.share(ending))
    rows, columns = diagram.distance.shape
    finest = "cells" if not diagram.level.any() else "places, some of them one cell"
    seeds = "1 seed" if len(diagram.seeds) == 1 else f"{len(diagram.seeds)} seeds"
    spent = f"{whole(diagram.played)} cells played in {number(diagram.seconds, 2)} s"
    return (
        f"{diagram.method} on {diagram.problem}: {shares} of {columns} × {rows} {finest}.\n"
        "Right: nearer to the optimum than the start, by however little; wrong: farther.\n"
        f"{spent}: {whole(diagram.steps)} steps, {seeds}."
    )


def save_picture(phase: Phase, path: str | Path) -> Path:
    """Write the picture of a phase diagram, in the format that the file's ending names, and return where it is.

    Raises:
        ValueError: for an ending that is no format of pictures.
    """
    path, data = check_format(path), picture(phase)
    with sheet(path, SIZE, data.title) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        legend = draw_endings(data, left)
        draw_distance(data, right)
        left.set_title("How it ends")
        right.set_title("Final distance to the optimum")
        right.set_ylabel("")
        figure.legend(handles=legend, loc="outside lower left", ncols=len(legend), fontsize=9)
    return path


def _mesh(data: Picture) -> tuple[Array, Array]:
    rows, columns = data.endings.shape
    return data.axes[0].to(data.axes[0].edges(columns)), data.axes[1].to(data.axes[1].edges(rows))


def _frame(data: Picture, ax: Axes) -> None:
    """Set limits, ticks and labels: places on the scales, told as values."""
    ax.grid(False)
    for axis, which in zip(data.axes, "xy", strict=True):
        low, high = axis.to(np.array([axis.low, axis.high])).tolist()
        values = ticks(axis)
        ax.set(**{f"{which}lim": (low, high)})
        ax.set(**{f"{which}ticks": axis.to(values), f"{which}ticklabels": [_label(axis, v) for v in values]})
        spaced = {"gap": ", spaced by log(1 − β)", "log": ", spaced by its logarithm", "linear": ""}[axis.scale]
        ax.set(**{f"{which}label": SYMBOLS.get(axis.name, axis.name) + spaced})


def ticks(axis: Axis) -> Array:
    """Return the values that are written along an axis."""
    if axis.scale == "gap":
        values: Sequence[float] = [v for v in GAPS if axis.low <= v <= axis.high]
    elif axis.scale == "log":
        values = [10.0**k for k in range(-12, 13) if axis.low <= 10.0**k <= axis.high]
    else:
        values = np.linspace(axis.low, axis.high, 5).tolist()
    return np.array(values if len(values) > 1 else [axis.low, axis.high])


def _label(axis: Axis, value: float) -> str:
    return tick(value) if axis.scale == "log" else f"{value:.10g}"
