"""How figures look: colours, type, axes.

Colours are Okabe and Ito's, which people with colour-blindness can tell apart; orange, purple and sky are darkened
until thin lines and words read on white. A drawing uses the colours of the light page; in the SVG each becomes
a CSS variable with that colour as its fallback, so that a figure reads on a light page, on a dark one, and
alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .numerals import count, number, power_of_ten

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.ticker import Locator
    from matplotlib.typing import RcKeyType

INK, MUTED, GRID, WASH = "#1f2328", "#667079", "#d9dde1", "#eceff2"
BLUE, ORANGE, GREEN = "#0072b2", "#c27c00", "#009e73"
VERMILLION, PURPLE, SKY = "#d55e00", "#b9669a", "#3a96d2"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")

VARIABLES = {
    INK: ("ink", "#e6e9ec"),
    MUTED: ("muted", "#9aa4ae"),
    GRID: ("grid", "#3a424b"),
    WASH: ("wash", "#262d35"),
    BLUE: ("blue", "#58a9e0"),
    ORANGE: ("orange", "#f0b232"),
    GREEN: ("green", "#2fc396"),
    VERMILLION: ("vermillion", "#f5854a"),
    PURPLE: ("purple", "#e0a1c6"),
    SKY: ("sky", "#9ad4f5"),
}
"""Each colour of the light page: the name of its CSS variable, and its counterpart on the dark page."""

WIDE = (5.8, 3.3)
SMALL = (3.8, 2.6)
"""Sizes in inches, chosen so that text stays legible when a phone shows the figure 360 px wide."""

STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",  # text stays text: a third of the bytes, searchable, in the font of the page
    "text.parse_math": False,  # a tensor may be called $w$
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, and is wide: other fonts fit its layout
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 0.9,
    "path.simplify": True,
}


def dress(ax: Axes) -> None:
    """Give axes that were made elsewhere the look of `STYLE`; what they hold stays."""
    ax.set_axisbelow(True)
    ax.grid(True, color=STYLE["grid.color"], linewidth=STYLE["grid.linewidth"])
    ax.spines[["top", "right"]].set_visible(False)
    for spine in ax.spines.values():
        spine.set(color=STYLE["axes.edgecolor"], linewidth=STYLE["axes.linewidth"])
    ax.tick_params(which="both", colors=MUTED)
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_color(STYLE["axes.labelcolor"])


@contextmanager
def any_letters() -> Iterator[None]:
    """Let a name have letters that the font lacks: a page takes them from another, on paper they are boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(?s)Glyph .*missing from font", UserWarning)
        yield


def css_variables(dark: bool) -> str:
    """Return the palette as CSS declarations for the light or the dark page."""
    return " ".join(f"--{name}: {night if dark else day};" for day, (name, night) in VARIABLES.items())


def log_steps(ax: Axes, steps: Iterable[float]) -> None:
    """Make x a logarithmic axis of steps that spans `steps`."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    seen = [step for step in steps if step > 0] or [1.0]
    low, high = min(seen) / 1.15, max(*seen, min(seen) * 2) * 1.08
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(_marks(low, high))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("step")


def tick(value: float) -> str:
    """Return a tick label: plain where that is short, else a power of ten."""
    if 1e-3 <= value < 1e4:
        return number(value, 2)
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = number(value / 10.0**exponent, 2)
    return power_of_ten(exponent) if mantissa == "1" else f"{mantissa}·{power_of_ten(exponent)}"


def log_values(ax: Axes, values: Iterable[float], margin: float = 1.6) -> bool:
    """Make y a logarithmic axis over the positive `values`; return False where there are none."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    seen = [min(max(value, 1e-300), 1e300) for value in values if 0 < value < math.inf]  # beyond, margins have no place
    if not seen:
        return False
    low, high = min(seen) / margin, max(seen) * margin
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(_marks(low, high))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    ax.yaxis.set_minor_locator(NullLocator())
    return True


def _marks(low: float, high: float) -> Locator:
    """Return what is marked on a logarithmic axis: more within a decade where there are few whole ones to read."""
    from matplotlib.ticker import FixedLocator, LogLocator

    decades = math.log10(high) - math.log10(low)
    if decades > 30:  # matplotlib looks beyond the ends, where powers of ten may run out
        first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
        return FixedLocator([10.0**power for power in range(first, last + 1, math.ceil(decades / 6))])
    subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if decades < 0.8 else (1.0, 2.0, 5.0) if decades < 2.4 else (1.0,)
    return LogLocator(subs=subs, numticks=7)


def say(ax: Axes, text: str) -> None:
    """Write a sentence where a figure has nothing to draw."""
    ax.set(xscale="linear", yscale="linear", xlim=(0, 1), xlabel="", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.axvspan(0, 1, color=WASH, linewidth=0)
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED, wrap=True, in_layout=False)


def legend_below(ax: Axes, columns: int, handles: Sequence[Artist] | None = None) -> None:
    """Put the legend under the numbers and the name of the x axis."""
    below = 3.6  # in sizes of its type: the numbers, the name of the axis, and a gap
    shown = ax.get_legend_handles_labels()[0] if handles is None else handles
    ax.legend(handles=shown, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, 0.0), borderaxespad=below)


def label_ends(ax: Axes, ends: Sequence[tuple[float, str, str]], gap: float = 0.075) -> None:
    """Write each (y, text, colour) beside the right edge at its height, moved apart and kept above the axis."""
    places = []
    for y, text, colour in ends:
        with suppress(ValueError):  # a logarithmic axis has no place for 0
            height = float(ax.transAxes.inverted().transform(ax.transData.transform((ax.get_xlim()[1], y)))[1])
            if math.isfinite(height):
                places.append((min(max(height, 0.0), 1.0), text, colour))
    places.sort(key=lambda place: place[0])
    lowest = 0.4 * gap  # below it are the numbers of the x axis
    heights = spread([place[0] for place in places], gap)
    for i, (height, (_, text, colour)) in enumerate(zip(heights, places, strict=True)):
        at = max(height, lowest + i * gap)
        ax.text(1.015, at, text, transform=ax.transAxes, color=colour, va="center", ha="left", fontsize=9.5)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Return sorted heights moved apart to at least `gap`, each cluster staying centred where it was."""
    clusters: list[list[float]] = []  # [sum of wanted centres, members]
    for height in heights:
        clusters.append([height, 1.0])
        while len(clusters) > 1:
            (total0, size0), (total1, size1) = clusters[-2:]
            if total1 / size1 - total0 / size0 >= gap * (size0 + size1) / 2:
                break
            clusters[-2:] = [[total0 + total1, size0 + size1]]
    return [total / size + gap * (member - (size - 1) / 2) for total, size in clusters for member in range(int(size))]
