"""A report as a PDF, to be printed or sent: in words first, then each figure with its question, then the tables."""

from __future__ import annotations

from collections.abc import Sequence

from ..diagnostics.finding import Finding
from .chapters import Chapter, Contents, Front
from .gist import gist, when
from .legible import shorten
from .numerals import sentence, typeset, whole
from .paper import Paper, height_of
from .press import COLOURS, answers, heading, pair, plate, said, table
from .tables import STREAM, TENSOR_COLUMNS, cell, columns, head
from .theme import MUTED
from .words import MARKS

COLUMNS = ("tensor", "steps", "e_p50", "growth", "b/a", "c+/a", "rising", "rms_max", "update/weight", "rho", "beta2*")
"""Of the table of tensors, what a sheet has room for."""
NAME = 28  # characters of a run
NAMED = 6


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
    table(paper, heads, rows)
    if front.same:
        paper.write("These are the same run, number for number.")
    elif front.differing:
        heading(paper, "What differs")
        table(paper, ("", *front.names), [(what, *values) for what, values in front.differing])
    if front.parted:
        heading(paper, "Where they part from the first")
        rows_of = [(what, *(one.words for one in cells)) for what, cells in front.parted]
        table(paper, ("", *front.names[1:]), rows_of)
        paper.write(sentence(front.rule), 7.5, colour=MUTED)
    heading(paper, "Side by side", room=3.2)
    for each in front.plates:
        plate(paper, each)


def _run(paper: Paper, chapter: Chapter) -> None:
    _verdict(paper, chapter)
    heading(paper, "Findings")
    for number, finding in enumerate(chapter.diagnosis.findings, 1):
        _finding(paper, number, finding)
    if not chapter.diagnosis.findings:
        paper.write("Nothing to report.")
    plates = chapter.plates
    if plates:
        heading(paper, "Figures", room=3.2)
    for each in plates:
        plate(paper, each)
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
    paper.write(said(chapter.meaning), 10.5)
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
                pair(paper, key, says, 0.7)
    paper.space(0.08)
    paper.rule()
    answers(paper, chapter.answers)


def _finding(paper: Paper, number: int, finding: Finding) -> None:
    paper.need(4 * height_of(9.5))
    paper.write(f"{number}. {finding.title}", 10, "bold")
    paper.write(said(sentence(finding.text)), 9, indent=0.2)
    if finding.suggestion:
        paper.write(said(f"Try: {sentence(finding.suggestion)}"), 9, indent=0.2)
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


def _rules(paper: Paper, chapter: Chapter) -> None:
    if not chapter.rules:
        return
    heading(paper, "What if: other rules on the gradients of this run")
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
    table(paper, heads, rows)
    paper.write(STREAM, 7.5, colour=MUTED)


def _tensors(paper: Paper, chapter: Chapter) -> None:
    heading(paper, "Tensors")
    if not chapter.lines:
        return paper.write("No tensor was recorded.")
    found = columns(chapter.lines, COLUMNS)
    table(paper, [*map(head, found.told)], [[cell(line[c], c) for c in found.told] for line in chapter.lines])
    if found.shared:
        paper.write(found.shared, 8)
    paper.write("; ".join(f"{head(c)}: {TENSOR_COLUMNS[c]}" for c in COLUMNS[1:]) + ".", 7.5, colour=MUTED)
    if chapter.skewness:
        paper.write(chapter.skewness, 8)
    return None


def _facts(paper: Paper, chapter: Chapter) -> None:
    heading(paper, "The run’s facts")
    for name, value in chapter.facts:
        pair(paper, name, value, 1.1)
    for formula, tensors in chapter.formulas:
        pair(paper, "stepsize", f"{formula} ({tensors} tensor{'s' * (tensors != 1)})", 1.1)
    if chapter.events:
        heading(paper, "Events")
        for event in chapter.events:
            where = f" in {event.tensor}" if event.tensor else ""
            paper.write(f"step {whole(event.step)}, {event.kind}{where}: {typeset(event.message)}", 8)
        if chapter.more_events:
            paper.write(f"{chapter.more_events} earlier events are not shown.", 8, colour=MUTED)
