"""One self-contained HTML report over one or several runs: no network, no scripts, same input same bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..diagnostics.diagnosis import Diagnosis
from ..diagnostics.summary import COLUMNS, Summary
from ..diagnostics.trace import Event, Trace
from .numerals import number, sentence, whole
from .plates import Plate, comparison, plates
from .svg import to_svg
from .theme import css_variables
from .words import MARKS, Answer, Row, answers, meaning, row

EVENTS = 50
SHARES = ("watched", "rising", "eps_bound")
HEADS = {
    "e_p1": "e 1 %",
    "e_p50": "e median",
    "e_p99": "e 99 %",
    "growth": "growth ×",
    "c+/a": "c⁺/a",
    "rms_mean": "RMS mean",
    "rms_max": "RMS max",
    "eps_bound": "eps-bound",
    "update/weight": "step/weight",
}


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it: one or several SVG elements under one caption."""

    key: str
    question: str
    caption: str
    panels: tuple[tuple[str, float], ...]
    """The markup of each, and its natural width in pixels."""


@dataclass(frozen=True)
class Chapter:
    """Everything that the page says of one run."""

    key: str
    row: Row
    mark: str
    meaning: str
    answers: tuple[Answer, ...]
    diagnosis: Diagnosis
    pictures: tuple[Picture, ...]
    summary: Summary
    facts: tuple[tuple[str, str], ...]
    formulas: tuple[tuple[str, int], ...]
    events: tuple[Event, ...]
    more_events: int


def render(runs: Sequence[tuple[str, Trace]], path: str | Path) -> Path:
    """Write the report of named runs to `path` and return it."""
    if not runs:
        raise ValueError("`runs` must hold at least one pair (name, trace), got none.")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(runs), encoding="utf-8")
    return target


def page(runs: Sequence[tuple[str, Trace]]) -> str:
    """Return the report of named runs as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"whole": whole, "cell": cell, "sentence": sentence}
    chapters = [chapter(f"run{i}", name, trace) for i, (name, trace) in enumerate(runs, start=1)]
    shared = comparison([(c.row.name, c.diagnosis) for c in chapters]) if len(chapters) > 1 else []
    return environment.get_template("page.html").render(
        chapters=chapters,
        shared=[picture(plate, "all") for plate in shared],
        columns={HEADS.get(name, name): (name, says) for name, says in COLUMNS.items() if name != "formula"},
        marks=MARKS,
        light=css_variables(dark=False),
        dark=css_variables(dark=True),
    )


def chapter(key: str, name: str, trace: Trace) -> Chapter:
    """Return what the page says of one run."""
    diagnosis = trace.diagnose()
    return Chapter(
        key=key,
        row=row(name, trace, diagnosis),
        mark=MARKS[diagnosis.verdict],
        meaning=meaning(diagnosis),
        answers=answers(diagnosis),
        diagnosis=diagnosis,
        pictures=tuple(picture(plate, key) for plate in plates(trace, diagnosis)),
        summary=trace.summary(),
        facts=tuple(facts(trace, diagnosis)),
        formulas=tuple(Counter(tensor.formula or "none" for tensor in trace.tensors).items()),
        events=tuple(trace.events[-EVENTS:]),
        more_events=max(len(trace.events) - EVENTS, 0),
    )


def picture(plate: Plate, prefix: str) -> Picture:
    """Return a plate with its panels drawn."""
    from markupsafe import Markup

    drawn = tuple(
        (Markup(to_svg(panel.draw, f"{prefix}-{plate.key}-{i}", panel.label, panel.size)), panel.size[0] * 90)
        for i, panel in enumerate(plate.panels)
    )
    return Picture(f"{prefix}-{plate.key}", plate.question, plate.caption, drawn)


def facts(trace: Trace, diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """Return the run's settings as (name, value) in words."""
    meta = trace.meta
    harm = diagnosis.harm
    lines = [
        ("optimizer", str(meta.get("optimizer", "–"))),
        *((f"group {i}", settings(group)) for i, group in enumerate(meta.get("hyperparameters", []))),
        ("tensors", whole(diagnosis.tensors)),
        ("parameters", whole(diagnosis.coordinates)),
        ("watched", watched(diagnosis, meta.get("seed"))),
        ("records", f"{len(trace.steps)} over {whole(diagnosis.steps)} steps"),
        ("judged", f"from step {whole(diagnosis.start)}"),
        (
            "harm test",
            f"steps {whole(harm.first_step)} to {whole(harm.last_step)}" if trace.drift else "no data",
        ),
        ("versions", ", ".join(f"{name} {version}" for name, version in meta.get("versions", {}).items())),
        ("created", str(meta.get("created", ""))),
    ]
    return [(name, value) for name, value in lines if value]


def watched(diagnosis: Diagnosis, seed: object) -> str:
    """Return how many coordinates the monitor looked at."""
    if diagnosis.watched == diagnosis.coordinates:
        return "every coordinate"
    share = diagnosis.watched / diagnosis.coordinates
    return f"{whole(diagnosis.watched)} coordinates ({share:.1%}), a random sample of seed {seed}"


def settings(group: dict[str, object]) -> str:
    """Return one parameter group's hyper-parameters, those that are switched off left out."""
    return ", ".join(f"{key} = {value}" for key, value in group.items() if value is not None and value is not False)


def cell(value: str | float, column: str) -> str:
    """Return a table cell's text."""
    if isinstance(value, str) or math.isnan(value):
        return value if isinstance(value, str) else "–"
    if column == "steps":
        return whole(value)
    return f"{number(100 * value)} %" if column in SHARES else number(float(value))
