"""One self-contained HTML report over one or several runs: no network, one script of its own, same input same bytes."""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ..diagnostics.alert import Alert
from ..diagnostics.compare import RULE, compare
from ..diagnostics.diagnosis import Diagnosis
from ..diagnostics.limits import limits
from ..diagnostics.summary import COLUMNS
from ..diagnostics.trace import Event, Trace
from .evidence import judged
from .numerals import number, sentence, shorten, whole
from .plates import Plate, comparison, plates
from .svg import to_svg
from .tables import STREAM, Apart, Rule, differing, parted, rules, skewness_note, tensor_cells
from .theme import css_variables
from .words import MARKS, Answer, Headline, Row, answers, headline, meaning, row

if TYPE_CHECKING:
    from markupsafe import Markup

EVENTS = 50
LONGEST = 120  # characters of a run's name
SHARES = ("watched", "rising", "eps_bound")
HEADS = {
    "rho": "ρ [95 %]",
    "e_p1": "e 1 %",
    "e_p50": "e median",
    "e_p99": "e 99 %",
    "growth": "growth ×",
    "c+/a": "c⁺/a",
    "rms_mean": "RMS mean",
    "rms_max": "RMS max",
    "eps_bound": "eps-bound",
    "update/weight": "step/weight",
    "beta2*": "β2* [95 %]",
}
TENSOR_COLUMNS = {
    "tensor": COLUMNS["tensor"],
    "rho": "descent efficiency over the last half, with its 95 % interval",
    **{name: says for name, says in COLUMNS.items() if name not in ("tensor", "formula")},
    "beta2*": "the β2 that its rare large gradients ask for, to first order, with its 95 % interval",
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
    headline: Headline
    meaning: str
    alerts: str
    """What came while the run went on, in one sentence; empty where nothing did."""
    answers: tuple[Answer, ...]
    diagnosis: Diagnosis
    pictures: tuple[Picture, ...]
    rules: tuple[Rule, ...]
    lines: tuple[dict[str, str | float], ...]
    """The table of tensors, a row each."""
    skewness: str
    facts: tuple[tuple[str, str], ...]
    formulas: tuple[tuple[str, int], ...]
    events: tuple[Event, ...]
    more_events: int

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Where its parts lie, and their titles."""
        parts = (
            ("findings", "Findings", True),
            ("figures", "Figures", True),
            ("rules", "What if", self.rules),
            ("tensors", "Tensors", True),
            ("facts", "The run’s facts", True),
            ("events", "Events", self.events),
        )
        return [(f"{self.key}-{part}", title) for part, title, there in parts if there]


@dataclass(frozen=True)
class Front:
    """Everything that the page says of several runs together; columns of its tables are runs."""

    names: tuple[str, ...]
    differing: tuple[tuple[str, tuple[str, ...]], ...]
    parted: tuple[tuple[str, tuple[Apart, ...]], ...]
    """Columns from the second run on."""
    same: bool
    rule: str
    pictures: tuple[Picture, ...]


def render(runs: Sequence[tuple[str, Trace]], path: str | Path) -> Path:
    """Write the report of named runs to `path` and return it."""
    if not runs:
        raise ValueError("`runs` must hold at least one pair (name, trace), got none.")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(runs), encoding="utf-8")
    return target


def is_report(path: Path) -> bool:
    """Return whether a file is a report, which its title tells, or has nothing in it to lose."""
    with path.open(encoding="utf-8", errors="replace") as file:
        head = file.read(4096)
    return not head or "stepscope</title>" in head


def page(runs: Sequence[tuple[str, Trace]]) -> str:
    """Return the report of named runs as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = [(shorten(name, LONGEST), trace) for name, trace in runs]
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    environment.filters |= {"whole": whole, "cell": cell, "sentence": sentence, "apart": apart, "code": code}
    chapters = [chapter(f"run{i}", name, trace) for i, (name, trace) in enumerate(runs, start=1)]
    return environment.get_template("page.html").render(
        chapters=chapters,
        front=front(runs, chapters) if len(chapters) > 1 else None,
        columns={HEADS.get(name, name): (name, says) for name, says in TENSOR_COLUMNS.items()},
        stream=STREAM,
        marks=MARKS,
        script=Markup(script),
        script_hash=Markup(hash_of(script)),
        light=css_variables(dark=False),
        dark=css_variables(dark=True),
    )


def hash_of(script: str) -> str:
    """Return the name by which a page's policy allows this script, and no other."""
    return f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}"


def front(runs: Sequence[tuple[str, Trace]], chapters: Sequence[Chapter]) -> Front:
    """Return what the page says of several runs together."""
    numbered = {f"{i} {name}": trace for i, (name, trace) in enumerate(runs, start=1)}
    found = compare(numbered)
    shown = comparison([(name, trace, c.diagnosis) for (name, trace), c in zip(runs, chapters, strict=True)])
    return Front(
        names=tuple(numbered),
        differing=tuple(differing(found)),
        parted=tuple(parted(found)),
        same=found.same,
        rule=RULE,
        pictures=tuple(picture(plate, "all") for plate in shown),
    )


def chapter(key: str, name: str, trace: Trace) -> Chapter:
    """Return what the page says of one run."""
    diagnosis = trace.diagnose()
    limited, beside = limits(trace), tensor_cells(diagnosis, judged(trace))
    return Chapter(
        key=key,
        row=row(name, trace, diagnosis),
        mark=MARKS[diagnosis.verdict],
        headline=headline(diagnosis.harm),
        meaning=meaning(diagnosis),
        alerts=alerts(trace),
        answers=answers(diagnosis, limited),
        diagnosis=diagnosis,
        pictures=tuple(picture(plate, key) for plate in plates(trace, diagnosis, limited)),
        rules=rules(diagnosis),
        lines=tuple({**line, **more} for line, more in zip(trace.summary().rows, beside, strict=True)),
        skewness=skewness_note(trace, diagnosis),
        facts=tuple(facts(trace, diagnosis)),
        formulas=tuple(Counter(tensor.formula or "none" for tensor in trace.tensors).items()),
        events=tuple(trace.events[-EVENTS:]),
        more_events=max(len(trace.events) - EVENTS, 0),
    )


def alerts(trace: Trace) -> str:
    """Return which rules gave an alert while the run went on, and when first; empty where none did."""
    found = [Alert.read(event) for event in trace.events if event.kind == "alert"]
    if not found:
        return ""
    first = {alert.rule: alert.step for alert in reversed(found)}
    told = ", ".join(f"{rule} at step {whole(first[rule])}" for rule in dict.fromkeys(alert.rule for alert in found))
    count = "1 alert" if len(found) == 1 else f"{len(found)} alerts"
    return f"{count} while the run went on: {told}{' first' * (len(found) > len(first))}; see the findings."


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


def code(text: str) -> Markup:
    """Return text with what stands in backticks set as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def apart(text: str) -> tuple[str, str]:
    """Return a cell's value, and the interval behind it, if any."""
    value, _, interval = text.partition(" [")
    return value, f"[{interval}" if interval else ""


def cell(value: str | float, column: str) -> str:
    """Return a table cell's text."""
    if isinstance(value, str) or math.isnan(value):
        return value if isinstance(value, str) else "–"
    if column == "steps":
        return whole(value)
    return f"{number(100 * value)} %" if column in SHARES else number(float(value))
