"""What a suite found, as files: Markdown for people, JSON for programs, JUnit XML for CI, a case for each problem."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ..synthetic.cases import Outcome
from ..synthetic.score import COLUMNS, LEGEND, SuiteResult, SuiteRow
from . import junit as xml
from .document import written
from .legible import legible, name
from .markdown import code, plain, table
from .numerals import sentence


def markdown(result: SuiteResult) -> bytes:
    """Return the table of a suite, with what is noted of its rows."""
    result = tidy(result)
    rows = [[_cell(head, show(row)) for head, (_, show) in COLUMNS.items()] for row in result.rows]
    notes = [f"- {plain(note)}" for note in result.noted()]
    parts = [f"### stepscope: {plain(result.headline)}", table(COLUMNS, rows), "\n".join(notes), *map(plain, LEGEND)]
    return ("\n\n".join(filter(None, parts)) + "\n").encode("utf-8", "replace")


def _cell(head: str, text: str) -> str:
    return code(text) if head == "problem" else plain(text)


def document(result: SuiteResult) -> bytes:
    """Return the result as JSON; suite.schema.json says what stands in it."""
    return written({"report": "stepscope suite", **result.to_dict()})


def junit(result: SuiteResult) -> bytes:
    """Return the result as XML: what ends wrong or breaks the optimizer fails, as it does in the exit code."""
    result = tidy(result)
    about = {"score": f"{result.score:.3g}", "complete": str(result.complete).lower()}
    return xml.written("stepscope suite", [(result.optimizer, list(map(case, result.rows)), about)])


def case(row: SuiteRow) -> xml.Case:
    """Return the case of one problem; one that ended half way, where theory says otherwise or nothing, is skipped."""
    ended: Literal["passed", "failure", "skipped"] = "passed"
    if row.outcome in (Outcome.WRONG, Outcome.BROKEN):
        ended = "failure"
    elif row.outcome is Outcome.SHORT and not row.agrees:
        ended = "skipped"
    found = [f"{head} {show(row)}" for head, (_, show) in COLUMNS.items() if head not in ("problem", "outcome")]
    message = sentence(f"{row.outcome} after {row.steps} steps: from {row.start:.3g} away to {row.distance:.3g}")
    return xml.Case(row.problem, ended, row.outcome, message, "\n".join([", ".join(found), *row.notes]), row.seconds)


def tidy(result: SuiteResult) -> SuiteResult:
    """Return a result whose names are legible: an optimizer may break with any message."""
    rows = tuple(replace(row, problem=name(row.problem), notes=tuple(map(legible, row.notes))) for row in result.rows)
    return replace(result, optimizer=name(result.optimizer), rows=rows)
