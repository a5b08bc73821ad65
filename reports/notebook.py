"""What a notebook shows of a run, a verdict or a table: small cards of HTML that need nothing else.

They take the colours of the notebook, light or dark. Every text is escaped, cut to a length, and freed of what cannot
be printed, so that no name does anything but stand there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ..diagnostics.compare import Comparison, verdicts, whence
from ..diagnostics.diagnosis import Diagnosis, Verdict
from ..diagnostics.trace import Trace
from .chapters import alerts
from .legible import shorten
from .numerals import sentence, typeset, whole
from .tables import cell, differing, head, parted
from .words import MARKS, advice

if TYPE_CHECKING:
    from jinja2 import Template

    from ..diagnostics.monitor import Monitor
    from ..synthetic.phase import Phase
    from ..synthetic.score import SuiteResult
    from .study import Table as Written

LONGEST = 600  # characters of one text
ROWS = 12  # of a table of tensors, findings or differences
WHITE_ON = {
    Verdict.CERTIFIED: "#00775a",
    Verdict.UNCERTIFIED: "#0067a3",
    Verdict.BIASED: "#b84a00",
    Verdict.NEIGHBOURHOOD: "#8a6100",
    Verdict.UNSTABLE: "#a02c6d",
}
GREY = "#58626c"
"""Colours on which white is read, on a light page and on a dark one."""
TONES = {"right": WHITE_ON[Verdict.CERTIFIED], "wrong": WHITE_ON[Verdict.BIASED]}
"""Of phase diagrams."""
TENSOR = ("tensor", "steps", "e_p50", "growth", "b/a", "c+/a", "rising", "update/weight")


@dataclass(frozen=True)
class Table:
    """A table that folds under its title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    open: bool = False


@dataclass(frozen=True)
class Card:
    """A word on a ground of `tone`, a first line that says it all, more lines, and tables."""

    word: str
    tone: str
    first: str
    lines: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    picture: str = ""
    """An element of SVG, made here and not escaped."""

    def html(self) -> str:
        """Return the card as one element."""
        tables = tuple(table for table in self.tables if table.rows)
        return _template().render(card=replace(self, tables=tables))


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["brief"] = partial(shorten, length=LONGEST)
    return environment.from_string(Path(__file__).with_name("card.html").read_text(encoding="utf-8"))


def of_diagnosis(diagnosis: Diagnosis) -> Card:
    """Return the verdict, where, since when and what to do; then the checks and the findings."""
    first = ". ".join(filter(None, [_where(diagnosis), advice(diagnosis)]))
    steps, start = whole(diagnosis.steps), whole(diagnosis.start)
    facts = f"{steps} steps of {shorten(diagnosis.optimizer, 80)}, judged from step {start}"
    rows = [(typeset(name), str(check.decision), sentence(check.reason)) for name, check in diagnosis.checks]
    rows.append(("what limits it", str(diagnosis.limit), sentence(diagnosis.limit_reason)))
    findings = [(one.title, sentence(one.text), sentence(one.suggestion)) for one in diagnosis.findings[:ROWS]]
    return Card(
        f"{MARKS[diagnosis.verdict]} {diagnosis.verdict}",
        WHITE_ON.get(diagnosis.verdict, GREY),
        first,
        (sentence(diagnosis.reason), sentence(facts)),
        (
            Table("Checks", ("", "", "why"), rows),
            Table(f"{len(diagnosis.findings)} findings", ("", "what was seen", "what to try"), findings),
        ),
    )


def _where(diagnosis: Diagnosis) -> str:
    """Return where and since when the first finding was seen; empty where it says neither."""
    if not diagnosis.findings:
        return ""
    first = diagnosis.findings[0]
    names = [shorten(name, 40) for name in first.tensors[:3]]
    more = f" and {len(first.tensors) - 3} more" if len(first.tensors) > 3 else ""
    since = f"since step {whole(first.steps[0])}" if first.steps else ""
    places = [part for part in (f"in {', '.join(names)}{more}" if names else "", since) if part]
    return f"{first.title}{', ' * bool(places)}{', '.join(places)}"


def of_trace(trace: Trace) -> Card:
    """Return the verdict on a record, what it holds, and a table of its tensors."""
    card = of_diagnosis(trace.diagnose())
    rows = [[cell(row[name], name) for name in TENSOR] for row in trace.summary().rows[:ROWS]]
    left = len(trace.tensors) - len(rows)
    title = f"Tensors, the first {len(rows)} of {len(trace.tensors)}" if left else "Tensors"
    tensors = Table(title, [*map(head, TENSOR)], rows)
    lines = (*card.lines[:1], *filter(None, [alerts(trace)]), repr(trace)[1:-1])
    return replace(card, lines=lines, tables=(*card.tables, tensors))


def of_monitor(monitor: Monitor) -> Card:
    """Return the verdict on what a monitor has recorded so far."""
    trace = monitor.trace
    steps = whole(int(trace.steps[-1]) if len(trace.steps) else 0)
    state = f"Closed after {steps} steps." if monitor.closed else f"Recording; {steps} steps so far."
    card = of_trace(trace)
    return replace(card, lines=(state, *card.lines))


def of_suite(result: SuiteResult) -> Card:
    """Return how an optimizer did on the problems of a suite."""
    columns = result.columns()
    rows = [[text(row) for _, text in columns.values()] for row in result.rows]
    tone = WHITE_ON[Verdict.BIASED if result.exit_code else Verdict.CERTIFIED]
    table = Table("Problems", tuple(columns), rows, open=True)
    return Card("", tone, result.headline, (), (table, Table("How to read it", (), _lines(result.caption))))


def of_phase(phase: Phase) -> Card:
    """Return which share of the plane ends how, the map, where the ending changes, and how it was computed."""
    from .phase_study import endings_panel, phase_study
    from .svg import to_svg

    study = phase_study(phase)
    panel = endings_panel(phase)
    key = f"phase-{sha256(repr(study.data).encode()).hexdigest()[:12]}"
    tables = [_first_rows(part.title, part.table) for part in study.parts if part.table]
    facts = [fact for part in study.parts for fact in part.facts]
    return Card(
        str(study.verdict),
        TONES.get(study.verdict.tone, GREY),
        f"{study.name}. {study.says}",
        (*(f"{answer.question} {sentence(answer.short)}" for answer in study.answers[1:]),),
        (*tables, Table("How it was computed", (), facts)),
        to_svg(panel.draw, key, panel.label, panel.size),
    )


def _first_rows(title: str, table: Written) -> Table:
    """Return the head of a report's table."""
    rows = [[str(cell) for cell in row] for row in table.rows[:ROWS]]
    left = len(table.rows) > ROWS
    return Table(f"{title}, the first {ROWS} of {len(table.rows)}" if left else title, table.heads, rows)


def _lines(text: str) -> list[tuple[str]]:
    return [(line,) for line in text.splitlines() if line]


def of_comparison(found: Comparison) -> Card:
    """Return which runs part from the first and where, their verdicts, and what differs between them."""
    head, *rows = verdicts(found)
    names = [setting.name for setting in found.settings]
    differences = [(what, *values) for what, values in differing(found)][:ROWS]
    apart = [(quantity, *(f"{one.words}: {one.numbers}" for one in others)) for quantity, others in parted(found)]
    return Card(
        "",
        GREY,
        " ".join(_parts(found)),
        (sentence(whence(found)),),
        (
            Table("Verdicts", head, rows, open=True),
            Table("What differs", ("", *names), differences, open=True),
            Table(f"Against {names[0]}", ("", *names[1:]), apart[:ROWS]),
        ),
    )


def _parts(found: Comparison) -> list[str]:
    """Say of each run but the first where it parts from it."""
    first, *others = (shorten(setting.name, 40) for setting in found.settings)
    told = []
    for name, setting in zip(others, found.settings[1:], strict=True):
        known = [(one.step, one.quantity) for one in setting.partings if one.step is not None]
        if setting.differs_from is None:
            told.append(f"{name} is the same run as {first}, number for number.")
        elif known:
            step, quantity = min(known)
            told.append(f"{name} parts from {first} at step {whole(step)}, in {quantity}.")
        else:
            told.append(f"{name} is not told apart from {first}.")
    return told[:ROWS]
