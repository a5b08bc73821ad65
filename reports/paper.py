"""Sheets of A4 on which lines, tables and panels follow each other from top to bottom, as a PDF of vectors."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal

from .fit import fit
from .theme import GRID, INK, MUTED, STYLE, any_letters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    from .plates import Panel

Face = Literal["plain", "bold", "mono"]

WIDTH, HEIGHT, MARGIN = 8.27, 11.69, 0.6  # inches
INNER = WIDTH - 2 * MARGIN
GUTTER = 0.06  # below a panel
LEADING = 1.38  # of lines, over the size of their type
TYPE = {**STYLE, "pdf.fonttype": 42}
"""Fonts whole enough to be searched, copied and edited."""


@dataclass(frozen=True)
class Words:
    """One line of text: its left end and its baseline, in inches from the upper left corner."""

    x: float
    y: float
    text: str
    size: float
    face: Face
    colour: str


@dataclass(frozen=True)
class Place:
    """A panel in its box, in inches from the upper left corner."""

    x: float
    y: float
    width: float
    panel: Panel

    @property
    def scale(self) -> float:
        """What is left of the size that it was drawn for."""
        return self.width / self.panel.size[0]

    @property
    def height(self) -> float:
        """The height of its box: a panel keeps its shape."""
        return self.panel.size[1] * self.scale


@dataclass
class Sheet:
    """What stands on one page."""

    words: list[Words] = field(default_factory=list)
    rules: list[float] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)


class Paper:
    """A stack of sheets that is filled from the top; `y` is how far the last one is."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.sheets: list[Sheet] = []
        self.turn()

    @property
    def empty(self) -> bool:
        """Whether nothing stands on the last sheet."""
        return self.y == MARGIN

    def turn(self) -> None:
        """Begin a sheet."""
        self.sheets.append(Sheet())
        self.y = MARGIN

    def need(self, height: float) -> None:
        """Begin a sheet if so many inches are not left on this one."""
        if self.y + height > HEIGHT - MARGIN + 1e-9 and not self.empty:
            self.turn()

    def space(self, height: float) -> None:
        """Leave room, but not at the top of a sheet."""
        if not self.empty:
            self.y += height

    def rule(self) -> None:
        """Draw a line across."""
        self.sheets[-1].rules.append(self.y)
        self.y += 0.08

    def write(
        self,
        text: str,
        size: float = 9.5,
        face: Face = "plain",
        colour: str = INK,
        indent: float = 0.0,
        width: float = INNER,
    ) -> None:
        """Write text, broken into lines that fit."""
        for line in broken(text, size, face, width - indent):
            self.line(line, size, face, colour, indent)

    def line(self, text: str, size: float, face: Face = "plain", colour: str = INK, indent: float = 0.0) -> None:
        """Write one line as it is."""
        self.need(height_of(size))
        self.y += height_of(size)
        self.sheets[-1].words.append(Words(MARGIN + indent, self.y, text, size, face, colour))

    def pictures(self, panels: Sequence[Panel], width: float, x: float = 0.0, gap: float = 0.12) -> None:
        """Put panels side by side, as many as fit between `x` and the right margin, each `width` wide."""
        across = max(1, int((INNER - x + gap) // (width + gap)))
        for start in range(0, len(panels), across):
            row = [
                Place(MARGIN + x + i * (width + gap), 0, width, panel)
                for i, panel in enumerate(panels[start : start + across])
            ]
            high = max(place.height for place in row)
            self.need(high)
            self.sheets[-1].places += [Place(place.x, self.y, width, place.panel) for place in row]
            self.y += high + GUTTER

    def pdf(self) -> bytes:
        """Return the sheets as a PDF; the same sheets are the same bytes."""
        from matplotlib import rc_context
        from matplotlib.backends.backend_pdf import PdfPages

        content = io.BytesIO()
        about = {"Creator": "stepscope", "Title": self.title, "CreationDate": None}
        with rc_context(TYPE), any_letters(), PdfPages(content, metadata=about) as pages:
            for number, each in enumerate(self.sheets, 1):
                pages.savefig(_drawn(each, f"{number} of {len(self.sheets)}"))
        return content.getvalue()


def height_of(size: float) -> float:
    """Return the inches that a line takes."""
    return size * LEADING / 72


def broken(text: str, size: float, face: Face, width: float) -> Iterator[str]:
    """Yield lines of at most `width` inches; a word that is longer is cut."""
    line = ""
    for word in _pieces(text, size, face, width):
        longer = f"{line} {word}" if line else word
        if line and width_of(longer, face) * size > width:
            yield line
            line = word
        else:
            line = longer
    yield line


def _pieces(text: str, size: float, face: Face, width: float) -> Iterator[str]:
    for word in text.split(" "):
        left = word
        while width_of(left, face) * size > width and len(left) > 1:
            end = max(1, int(len(left) * width / (width_of(left, face) * size)))
            while end > 1 and width_of(left[:end], face) * size > width:
                end -= 1
            yield left[:end]
            left = left[end:]
        yield left


@lru_cache(maxsize=20_000)
def width_of(text: str, face: Face) -> float:
    """Return the inches that text takes per point of its size."""
    from matplotlib.textpath import text_to_path

    with any_letters():
        width, _, _ = text_to_path.get_text_width_height_descent(text or " ", _font(face), False)
    return float(width) / 72 / 10


@cache
def _font(face: Face) -> FontProperties:
    from matplotlib.font_manager import FontProperties

    family = "DejaVu Sans Mono" if face == "mono" else "DejaVu Sans"
    return FontProperties(family=family, weight="bold" if face == "bold" else "normal", size=10.0)


def _drawn(sheet: Sheet, number: str) -> Figure:
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=72)  # as the PDF is measured
    FigureCanvasPdf(figure)
    foot = Words(MARGIN, HEIGHT - 0.35, f"stepscope · {number}", 7.5, "plain", MUTED)
    for words in (*sheet.words, foot):
        figure.text(words.x / WIDTH, 1 - words.y / HEIGHT, words.text, fontproperties=_sized(words), color=words.colour)
    for y in sheet.rules:
        figure.add_artist(_line(y))
    for place in sheet.places:
        _put(figure, place)
    return figure


def _sized(words: Words) -> FontProperties:
    font = _font(words.face).copy()
    font.set_size(words.size)
    return font


def _line(y: float) -> Any:
    from matplotlib.lines import Line2D

    ends = [MARGIN / WIDTH, 1 - MARGIN / WIDTH]
    return Line2D(ends, [1 - y / HEIGHT] * 2, color=GRID, linewidth=0.7)


def _put(figure: Figure, place: Place) -> None:
    """Draw a panel, its type in its scale, so that all of it lies in its box."""
    left, top = place.x / WIDTH, 1 - place.y / HEIGHT
    box = (left, top - place.height / HEIGHT, left + place.width / WIDTH, top)
    ax = figure.add_axes((box[0], box[1], box[2] - box[0], box[3] - box[1]))
    place.panel.draw(ax)
    _scale(ax, place.scale)
    fit(ax, box)


def _scale(ax: Axes, scale: float) -> None:
    from matplotlib.text import Text

    for text in ax.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontsize(float(text.get_fontsize()) * scale)
    legend = ax.get_legend()
    if legend is not None:
        legend.borderaxespad *= scale
    for axis in (ax.xaxis, ax.yaxis):
        size = STYLE["font.size"] * scale
        axis.set_tick_params(labelsize=size)


def columns(rows: Sequence[Sequence[str]], size: float, width: float = INNER) -> list[list[str]]:
    """Return a table in type of one width, in as many blocks of lines as its columns need, the first in each."""
    turned = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in turned]
    most = int(width / (width_of("0", "mono") * size))
    blocks: list[list[int]] = [[]]
    for place in range(1, len(widths)):
        if blocks[-1] and widths[0] + sum(widths[p] + 2 for p in [*blocks[-1], place]) > most:
            blocks.append([])
        blocks[-1].append(place)
    sides = [str.rjust if place and _numbers(column[1:]) else str.ljust for place, column in enumerate(turned)]
    return [
        ["  ".join(sides[place](row[place], widths[place]) for place in (0, *block)).rstrip() for row in rows]
        for block in blocks
    ]


def _numbers(column: Sequence[str]) -> bool:
    return all(text[:1].isdigit() or text[:1] in "−–-∞." for text in column)
