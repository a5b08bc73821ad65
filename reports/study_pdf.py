"""A study as a PDF: its first screen in words, then its parts with their tables and figures."""

from __future__ import annotations

from .paper import Paper
from .press import COLOURS, answers, heading, pair, plate, said, table
from .study import Part, Study, Table
from .theme import MUTED


def study_pdf(study: Study) -> bytes:
    """Return a study as a PDF."""
    paper = Paper(f"{study.name} - stepscope")
    _first(paper, study)
    for part in study.parts:
        _part(paper, part)
    return paper.pdf()


def _first(paper: Paper, study: Study) -> None:
    paper.write(study.name, 17, "bold")
    paper.write(study.about, 9, colour=MUTED)
    paper.space(0.12)
    paper.write(str(study.verdict), 15, "bold", COLOURS.get(study.verdict.tone or study.verdict.word, MUTED))
    for line in study.meaning:
        paper.write(said(line), 10.5)
    paper.space(0.08)
    paper.write(f"{study.label}: {study.number}", 12, "bold")
    paper.write(study.says)
    paper.space(0.08)
    paper.rule()
    answers(paper, study.answers)


def _part(paper: Paper, part: Part, inner: bool = False) -> None:
    """Write a part; one inside another has a smaller heading."""
    title = f"{part.title}: {part.word}" if part.word else part.title
    if inner:
        paper.space(0.1)
        paper.need(2.0)
        paper.write(title, 10.5, "bold")
    else:
        heading(paper, title, room=3.2 if part.plates else 1.2)
    for name, value in part.facts:
        pair(paper, name, value, 1.2)
    for line in part.lines:
        paper.write(said(line), 9)
    if part.table:
        _table(paper, part.table)
    paper.space(0.08)
    for each in part.plates:
        plate(paper, each)
    for below in part.parts:
        _part(paper, below, inner=True)


def _table(paper: Paper, told: Table) -> None:
    table(paper, told.heads, [[str(cell) for cell in row] for row in told.rows])
    for line in told.about:
        paper.write(line, 7.5, colour=MUTED)
