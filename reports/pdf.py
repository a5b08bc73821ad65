"""A report as a PDF, to be printed or sent: in words first, then each figure with its question, then the tables."""

from __future__ import annotations

from collections.abc import Sequence

from ..diagnostics.finding import Finding
from .chapters import Chapter, Contents, Front
from .gist import gist, when
from .numerals import sentence, shorten, whole
from .paper import GUTTER, INNER, Face, Paper, broken, columns, height_of
from .plates import Plate
from .tables import HEADS, STREAM, TENSOR_COLUMNS, cell
from .theme import BLUE, GREEN, INK, MUTED, ORANGE, SMALL, VERMILLION
from .words import MARKS

COLOURS = {
    "certified": GREEN,
    "uncertified": BLUE,
    "biased": VERMILLION,
    "unstable": VERMILLION,
    "neighbourhood": ORANGE,
    "stalled": ORANGE,
}
BROAD, NARROW, GAP = 4.2, 3.47, 0.2  # inches: a panel with its caption beside it, one of two in a row
COLUMNS = ("tensor", "steps", "e_p50", "growth", "b/a", "c+/a", "rising", "rms_max", "update/weight", "rho", "beta2*")
"""Of the table of tensors, what a sheet has room for."""
NAME, VALUE = 28, 42  # characters in a table
SIZE = 6.4  # points, of a table
NAMED = 6
MANY = 3  # panels, beyond which they stand two in a row


def pdf(contents: Contents) -> bytes:
    """Return a report as a PDF."""
    chapters = contents.chapters
    paper = Paper(f"{chapters[0].row.name} - stepscope" if len(chapters) == 1 else f"{len(chapters)} runs - stepscope")
    if contents.front:
        _front(paper, contents.front, chapters)
    for chapter in chapters:
        if not paper.empty:
            paper.turn()
        _run(paper, chapter)
    return paper.pdf()


def _front(paper: Paper, front: Front, chapters: Sequence[Chapter]) -> None:
    paper.write(f"{len(chapters)} runs compared", 17, "bold")
    paper.space(0.12)
    heads = ("run", "verdict", "ρ [95 %]", "optimizer", "steps", "reached", "variance", "bias")
    rows = [
        (
            shorten(f"{number} {c.row.name}", NAME),
            f"{c.mark} {c.row.verdict}",
            c.row.rho,
            c.row.optimizer,
            whole(c.row.steps),
            c.row.final,
            *(f"{MARKS[decision]} {decision}" for decision in (c.row.variance, c.row.bias)),
        )
        for number, c in enumerate(chapters, 1)
    ]
    _table(paper, heads, rows)
    if front.same:
        paper.write("These are the same run, number for number.")
    elif front.differing:
        _part(paper, "What differs")
        _table(paper, ("", *front.names), [(what, *values) for what, values in front.differing])
    if front.parted:
        _part(paper, "Where they part from the first")
        rows_of = [(what, *(one.words for one in cells)) for what, cells in front.parted]
        _table(paper, ("", *front.names[1:]), rows_of)
        paper.write(sentence(front.rule), 7.5, colour=MUTED)
    _part(paper, "Side by side", room=3.2)
    for plate in front.plates:
        _plate(paper, plate)


def _run(paper: Paper, chapter: Chapter) -> None:
    _verdict(paper, chapter)
    _part(paper, "Findings")
    for number, finding in enumerate(chapter.diagnosis.findings, 1):
        _finding(paper, number, finding)
    if not chapter.diagnosis.findings:
        paper.write("Nothing to report.")
    plates = chapter.plates
    if plates:
        _part(paper, "Figures", room=3.2)
    for plate in plates:
        _plate(paper, plate)
    _rules(paper, chapter)
    _tensors(paper, chapter)
    _facts(paper, chapter)


def _verdict(paper: Paper, chapter: Chapter) -> None:
    """Write the verdict in words, the leading finding, and the four answers."""
    row, d = chapter.row, chapter.diagnosis
    paper.write(row.name, 17, "bold")
    facts = [row.optimizer, *(f"{whole(n)} {word}{'s' * (n != 1)}" for n, word in (
        (row.steps, "step"), (d.tensors, "tensor"), (d.coordinates, "parameter")
    ))]  # fmt: skip
    paper.write(" · ".join([*facts, *([] if row.final == "–" else [row.final])]), 9, colour=MUTED)
    paper.space(0.12)
    paper.write(f"{chapter.mark} {row.verdict}", 15, "bold", COLOURS.get(row.verdict, MUTED))
    paper.write(_said(chapter.meaning), 10.5)
    if chapter.alerts:
        paper.write(chapter.alerts, 10.5, "bold")
    paper.space(0.08)
    paper.write(f"ρ {' '.join(filter(None, (chapter.headline.number, chapter.headline.interval)))}", 12, "bold")
    paper.write(chapter.headline.says)
    brief = gist(chapter)
    if brief:
        more = f" and {brief.more} more" if brief.more else ""
        lines = {"What": brief.what, "Where": ", ".join(brief.where) + more, "When": brief.when, "To do": brief.to_do}
        paper.space(0.1)
        for key, says in lines.items():
            if says:
                _pair(paper, key, says, 0.7)
    paper.space(0.08)
    paper.rule()
    for answer in chapter.answers:
        paper.need(3 * height_of(10))
        paper.write(f"{answer.question} {answer.short}", 10, "bold")
        for line in answer.lines:
            paper.write(_said(line), 9, indent=0.15)
        paper.space(0.06)


def _said(text: str) -> str:
    """Return a sentence without the backticks around its code."""
    return text.replace("`", "")


def _pair(paper: Paper, key: str, says: str, indent: float) -> None:
    """Write a word, and beside it what it stands for."""
    paper.need(2 * height_of(9.5))
    sheet, top = len(paper.sheets), paper.y
    paper.write(key, 9.5, "bold")
    if len(paper.sheets) == sheet:
        paper.y = top
    paper.write(_said(says), 9.5, indent=indent)


def _finding(paper: Paper, number: int, finding: Finding) -> None:
    paper.need(4 * height_of(9.5))
    paper.write(f"{number}. {finding.title}", 10, "bold")
    paper.write(_said(sentence(finding.text)), 9, indent=0.2)
    if finding.suggestion:
        paper.write(_said(f"Try: {sentence(finding.suggestion)}"), 9, indent=0.2)
    for remedy in finding.remedies[:1]:
        paper.write(
            f"Remedy, {remedy.name}: {sentence(remedy.reason)} After the line that makes optimizer:", 9, indent=0.2
        )
        for line in remedy.lines:
            paper.write(line, 8, "mono", indent=0.35)
    names = ", ".join(finding.tensors[:NAMED])
    more = f" and {len(finding.tensors) - NAMED} more" if len(finding.tensors) > NAMED else ""
    about = filter(None, (f"Why: {finding.why}", when(finding), names + more))
    paper.write(" · ".join(about), 7.5, colour=MUTED, indent=0.2)
    paper.space(0.1)


def _part(paper: Paper, title: str, room: float = 0.8) -> None:
    """Write a heading that does not stand alone at the foot of a sheet."""
    paper.space(0.12)
    paper.need(room)
    paper.rule()
    paper.write(title, 12.5, "bold")
    paper.space(0.05)


def _plate(paper: Paper, plate: Plate) -> None:
    """Put a plate: small or many panels in rows under its words, others at the left of them."""
    first = plate.panels[0]
    if first.size == SMALL or len(plate.panels) > MANY:
        paper.need(0.9 + NARROW / first.size[0] * first.size[1])
        paper.write(plate.question, 10.5, "bold")
        paper.write(_said(plate.caption), 8, colour=MUTED)
        paper.space(2 * GUTTER)
        paper.pictures(plate.panels, NARROW, gap=INNER - 2 * NARROW)
    else:
        _beside(paper, plate)
    paper.space(0.16)


def _beside(paper: Paper, plate: Plate) -> None:
    """Put wide panels, one below the other, and their words at the right of the first."""
    aside, first = BROAD + GAP, plate.panels[0]
    high = first.size[1] * BROAD / first.size[0]
    words: list[tuple[str, float, Face, str]] = [
        (plate.question, 10.5, "bold", INK),
        (_said(plate.caption), 8.0, "plain", MUTED),
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


def _rules(paper: Paper, chapter: Chapter) -> None:
    if not chapter.rules:
        return
    _part(paper, "What if: other rules on the gradients of this run")
    heads = ("rule", "ρ [95 %]", "harm", "c⁺/a", "bias", "b/a", "variance")
    rows = [
        (
            rule.name,
            rule.rho,
            f"{MARKS[rule.harm]} {rule.harm}",
            rule.bias_ratio,
            f"{MARKS[rule.bias]} {rule.bias}",
            rule.variance_ratio,
            f"{MARKS[rule.variance]} {rule.variance}",
        )
        for rule in chapter.rules
    ]
    _table(paper, heads, rows)
    paper.write(STREAM, 7.5, colour=MUTED)


def _tensors(paper: Paper, chapter: Chapter) -> None:
    _part(paper, "Tensors")
    if not chapter.lines:
        return paper.write("No tensor was recorded.")
    told = [c for c in COLUMNS if any(cell(line[c], c) != "–" for line in chapter.lines)]
    rows = [[cell(line[c], c) for c in told] for line in chapter.lines]
    _table(paper, [HEADS.get(c, c) for c in told], rows)
    paper.write("; ".join(f"{HEADS.get(c, c)}: {TENSOR_COLUMNS[c]}" for c in told[1:]) + ".", 7.5, colour=MUTED)
    if chapter.skewness:
        paper.write(chapter.skewness, 8)
    return None


def _facts(paper: Paper, chapter: Chapter) -> None:
    _part(paper, "The run’s facts")
    for name, value in chapter.facts:
        _pair(paper, name, value, 1.1)
    for formula, tensors in chapter.formulas:
        _pair(paper, "stepsize", f"{formula} ({tensors} tensor{'s' * (tensors != 1)})", 1.1)
    if chapter.events:
        _part(paper, "Events")
        for event in chapter.events:
            where = f" in {event.tensor}" if event.tensor else ""
            paper.write(f"step {whole(event.step)}, {event.kind}{where}: {event.message}", 8)
        if chapter.more_events:
            paper.write(f"{chapter.more_events} earlier events are not shown.", 8, colour=MUTED)


def _table(paper: Paper, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table, its head again on each sheet; where columns do not fit they follow below."""
    cells = [[shorten(text, NAME if place == 0 else VALUE) for place, text in enumerate(row)] for row in (heads, *rows)]
    for head, *lines in columns(cells, SIZE):
        paper.need(4 * height_of(SIZE))
        paper.line(head, SIZE, "mono", MUTED)
        for line in lines:
            sheet = len(paper.sheets)
            paper.need(height_of(SIZE))
            if len(paper.sheets) > sheet:
                paper.line(head, SIZE, "mono", MUTED)
            paper.line(line, SIZE, "mono")
        paper.space(0.08)
