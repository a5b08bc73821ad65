"""What reports on paper are made of: headings, pairs, answers, tables, and plates with their words."""

from __future__ import annotations

from collections.abc import Sequence

from .legible import shorten
from .paper import GUTTER, INNER, Face, Paper, broken, columns, height_of
from .plates import Plate
from .theme import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, SMALL, VERMILLION
from .words import Answer

COLOURS = {
    "certified": GREEN,
    "solved": GREEN,
    "right": GREEN,
    "uncertified": BLUE,
    "biased": VERMILLION,
    "wrong": VERMILLION,
    "unstable": VERMILLION,
    "broken": PURPLE,
    "neighbourhood": ORANGE,
    "stalled": ORANGE,
    "short": ORANGE,
    "mixed": ORANGE,
}
BROAD, NARROW, THIRD, GAP = 4.2, 3.47, 2.28, 0.2  # inches: a panel beside its caption, one of two or of three in a row
NAME, VALUE = 28, 42  # characters in a table
SIZES = (6.4, 5.9, 5.4)  # points, of a table: the first in which it is as wide as a sheet, or else the first
MANY = 3  # panels, beyond which they stand two in a row


def said(text: str) -> str:
    """Return a sentence without the backticks around its code."""
    return text.replace("`", "")


def pair(paper: Paper, key: str, says: str, indent: float) -> None:
    """Write a word, and beside it what it stands for."""
    paper.need(2 * height_of(9.5))
    sheet, top = len(paper.sheets), paper.y
    paper.write(key, 9.5, "bold")
    if len(paper.sheets) == sheet:
        paper.y = top
    paper.write(said(says), 9.5, indent=indent)


def answers(paper: Paper, told: Sequence[Answer]) -> None:
    """Write questions with their answers."""
    for answer in told:
        paper.need(3 * height_of(10))
        paper.write(f"{answer.question} {answer.short}", 10, "bold")
        for line in answer.lines:
            paper.write(said(line), 9, indent=0.15)
        paper.space(0.06)


def heading(paper: Paper, title: str, room: float = 0.8) -> None:
    """Write a heading that does not stand alone at the foot of a sheet."""
    paper.space(0.12)
    paper.need(room)
    paper.rule()
    paper.write(title, 12.5, "bold")
    paper.space(0.05)


def plate(paper: Paper, shown: Plate) -> None:
    """Put a plate: small or many panels in rows under its words, others at the left of them."""
    first = shown.panels[0]
    if first.size == SMALL or len(shown.panels) > MANY:
        wide, across = (THIRD, 3) if len(shown.panels) == MANY else (NARROW, 2)
        paper.need(0.9 + wide / first.size[0] * first.size[1])
        paper.write(shown.question, 10.5, "bold")
        paper.write(said(shown.caption), 8, colour=MUTED)
        paper.space(2 * GUTTER)
        paper.pictures(shown.panels, wide, gap=(INNER - across * wide) / (across - 1))
    else:
        _beside(paper, shown)
    paper.space(0.16)


def _beside(paper: Paper, plate: Plate) -> None:
    """Put wide panels, one below the other, and their words at the right of the first."""
    aside, first = BROAD + GAP, plate.panels[0]
    high = first.size[1] * BROAD / first.size[0]
    words: list[tuple[str, float, Face, str]] = [
        (plate.question, 10.5, "bold", INK),
        (said(plate.caption), 8.0, "plain", MUTED),
    ]
    told = sum(height_of(size) * len([*broken(text, size, face, INNER - aside)]) for text, size, face, _ in words)
    paper.need(max(told, high))
    top = paper.y
    for text, size, face, colour in words:
        paper.write(text, size, face, colour, indent=aside)
    below, sheet = paper.y, len(paper.sheets)
    paper.y = top
    paper.pictures(plate.panels, BROAD, gap=INNER)
    if len(paper.sheets) == sheet:
        paper.y = max(paper.y, below)


def table(paper: Paper, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table, its head again on each sheet; where columns do not fit they follow below."""
    cells = [[shorten(text, NAME if place == 0 else VALUE) for place, text in enumerate(row)] for row in (heads, *rows)]
    size = next((size for size in SIZES if len(columns(cells, size)) == 1), SIZES[0])
    for head, *lines in columns(cells, size):
        paper.need(4 * height_of(size))
        paper.line(head, size, "mono", MUTED)
        for line in lines:
            sheet = len(paper.sheets)
            paper.need(height_of(size))
            if len(paper.sheets) > sheet:
                paper.line(head, size, "mono", MUTED)
            paper.line(line, size, "mono")
        paper.space(0.08)
