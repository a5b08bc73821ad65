"""A study as Markdown: its first screen, its first table in sight, what belongs to it folded; no figures."""

from __future__ import annotations

from collections.abc import Iterator

from .markdown import code, folded, plain, prose, table
from .study import Cell, Part, Study, Table, Word


def study_markdown(study: Study) -> str:
    """Return a study as Markdown."""
    return "\n\n".join(_told(study)) + "\n"


def _told(study: Study) -> Iterator[str]:
    yield f"### stepscope: {study.verdict.mark} {plain(study.verdict.word)}, {code(study.name)}"
    yield plain(study.about)
    yield f"**{plain(study.label)}: {plain(study.number)}.** {plain(study.says)}"
    yield " ".join(map(prose, study.meaning))
    yield from ["\n".join(_answers(study))] if study.answers else []
    for place, part in enumerate(study.parts):
        text = "\n\n".join(_part(part))
        if text:
            yield f"**{plain(part.title)}**\n\n{text}" if place == 0 else folded(plain(part.title), text)


def _answers(study: Study) -> Iterator[str]:
    for each in study.answers:
        yield f"- {plain(each.question)} **{plain(each.short)}.** {' '.join(map(prose, each.lines))}".rstrip()


def _part(part: Part) -> Iterator[str]:
    if part.facts:
        yield "\n".join(f"- {plain(name)}: {prose(value)}" for name, value in part.facts)
    yield from map(prose, part.lines)
    if part.table:
        yield _table(part.table)
    for inner in part.parts:
        yield f"**{code(inner.title)}**{f': {plain(str(inner.word))}' if inner.word else ''}"
        yield from _part(inner)


def _table(told: Table) -> str:
    rows = [[_cell(cell, first=place == 0 and bool(told.links)) for place, cell in enumerate(row)] for row in told.rows]
    return "\n\n".join([table(told.heads, rows), *map(plain, told.about)])


def _cell(cell: Cell, *, first: bool) -> str:
    """Return a cell; where rows are named, the first is a name."""
    return f"{cell.mark} {plain(cell.word)}" if isinstance(cell, Word) else code(cell) if first else plain(cell)
