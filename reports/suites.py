"""What a suite found, for programs: JSON, and JUnit XML for CI with a case for each problem."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ..diagnostics.diagnosis import JSON
from ..synthetic.cases import Outcome
from ..synthetic.score import COLUMNS, SuiteResult, SuiteRow
from . import junit as xml
from .document import written
from .legible import legible, name
from .numerals import number, sentence, whole


def document_of(result: SuiteResult) -> dict[str, JSON]:
    """Return the result as JSON knows it; suite.schema.json says what stands in it."""
    return {"report": "stepscope suite", **result.to_dict()}


def document(result: SuiteResult) -> bytes:
    """Return the result as a file of JSON."""
    return written(document_of(result))


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
    message = sentence(
        f"{row.outcome} after {whole(row.steps)} steps: from {number(row.start)} away to {number(row.distance)}"
    )
    return xml.Case(row.problem, ended, row.outcome, message, "\n".join([", ".join(found), *row.notes]), row.seconds)


def tidy(result: SuiteResult) -> SuiteResult:
    """Return a result whose names are legible: an optimizer may break with any message."""
    return replace(result, optimizer=name(result.optimizer), rows=tuple(map(_tidy, result.rows)))


def _tidy(row: SuiteRow) -> SuiteRow:
    about = replace(
        row.about,
        source=legible(row.about.source),
        law=legible(row.about.law),
        why=legible(row.about.why),
        variables=tuple(map(name, row.about.variables)),
    )
    return replace(row, problem=name(row.problem), notes=tuple(map(legible, row.notes)), about=about)
