"""A report as JSON, for programs: report.schema.json says what stands in it, docs/report_json.md what it means."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

from ..diagnostics.diagnosis import JSON
from .chapters import Chapter, Contents, Front
from .gist import alerted

SCHEMA = 1
"""Of report.schema.json; one more when a field comes, goes or changes its meaning."""


def document(contents: Contents) -> dict[str, JSON]:
    """Return a report as JSON knows it."""
    return {
        "report": "stepscope",
        "schema": SCHEMA,
        "runs": [_run(chapter) for chapter in contents.chapters],
        "comparison": _comparison(contents.front) if contents.front else None,
    }


def written(value: dict[str, JSON]) -> bytes:
    """Return JSON as a file holds it; a name that is no text, such as a broken file name, is kept as an escape."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _run(chapter: Chapter) -> dict[str, JSON]:
    return {
        "name": chapter.row.name,
        "reached": chapter.row.final,
        "meaning": chapter.meaning,
        "answers": [
            {"question": answer.question, "short": answer.short, "lines": list(answer.lines)}
            for answer in chapter.answers
        ],
        "alerts": [asdict(alert) for _, alerts in alerted(chapter) for alert in alerts],
        "diagnosis": chapter.diagnosis.to_dict(),
        "tensors": _tensors(chapter),
    }


def _tensors(chapter: Chapter) -> list[JSON]:
    """Return the table of tensors in numbers, with ρ and its interval where a tensor was judged."""
    rows: list[JSON] = []
    for place, line in enumerate(chapter.trace.summary().rows):
        harm = chapter.harms[place] if chapter.harms else None
        judged = {"rho": _number(harm.rho), "rho_interval": [_number(end) for end in harm.interval]} if harm else {}
        cells = {key: _number(cell) if isinstance(cell, float) else cell for key, cell in line.items()}
        rows.append({**cells, **(judged or {"rho": None, "rho_interval": None})})
    return rows


def _comparison(front: Front) -> dict[str, JSON]:
    return {
        "same": front.same,
        "differing": [{"what": what, "values": list(values)} for what, values in front.differing],
        "parted": [{"quantity": what, "runs": [asdict(one) for one in cells]} for what, cells in front.parted],
    }


def _number(value: float) -> JSON:
    """Return a number as a diagnosis writes it: NaN is null, an infinity a string."""
    number = float(value)
    return number if math.isfinite(number) else None if math.isnan(number) else str(number)
