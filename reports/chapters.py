"""What a report says of runs, whatever its format: a chapter for each, and what several say together.

Nothing is measured here, and nothing by a format: pages, tables and cases of a test are views of what stands here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..diagnostics.alert import alerts_of
from ..diagnostics.compare import RULE, compare
from ..diagnostics.diagnosis import Diagnosis, diagnose
from ..diagnostics.drift import Harm
from ..diagnostics.limits import Limits, limits
from ..diagnostics.trace import Event, Trace
from .evidence import judged
from .legible import legible_trace, shorten
from .numerals import number, whole
from .plates import Plate, comparison, plates
from .tables import Apart, Rule, differing, parted, rules, skewness_note, tensor_cells
from .words import MARKS, Answer, Headline, Row, answers, headline, meaning, row

Runs = Sequence[tuple[str, Trace]]

EVENTS = 50
LONGEST = 120  # characters of a run's name


@dataclass(frozen=True)
class Chapter:
    """Everything that a report says of one run."""

    key: str
    trace: Trace
    row: Row
    mark: str
    headline: Headline
    meaning: str
    alerts: str
    """What came while the run went on, in one sentence; empty where nothing did."""
    answers: tuple[Answer, ...]
    diagnosis: Diagnosis
    limited: Limits
    rules: tuple[Rule, ...]
    harms: tuple[Harm, ...]
    """The harm test of each tensor; empty where there is none."""
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

    @property
    def plates(self) -> list[Plate]:
        """Its figures, for the formats that have any."""
        return plates(self.trace, self.diagnosis, self.limited)


@dataclass(frozen=True)
class Front:
    """Everything that a report says of several runs together; columns of its tables are runs."""

    names: tuple[str, ...]
    differing: tuple[tuple[str, tuple[str, ...]], ...]
    parted: tuple[tuple[str, tuple[Apart, ...]], ...]
    """Columns from the second run on."""
    same: bool
    rule: str
    plates: tuple[Plate, ...]


@dataclass(frozen=True)
class Contents:
    """What a report holds: its chapters, and a front where they are several."""

    chapters: tuple[Chapter, ...]
    front: Front | None


def gather(runs: Runs, *, exact: bool = False) -> Contents:
    """Judge named runs, once, and return what a report says of them.

    Names are made legible first, as they stand in figures, sentences and tables; `exact` leaves them as they are.

    Raises:
        ValueError: for no run at all.
    """
    if not runs:
        raise ValueError("`runs` must hold at least one pair (name, trace), got none.")
    if not exact:
        runs = [(shorten(name, LONGEST), legible_trace(trace)) for name, trace in runs]
    chapters = tuple(chapter(f"run{i}", name, trace) for i, (name, trace) in enumerate(runs, start=1))
    return Contents(chapters, front(runs, chapters) if len(chapters) > 1 else None)


def front(runs: Runs, chapters: Sequence[Chapter]) -> Front:
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
        plates=tuple(shown),
    )


def chapter(key: str, name: str, trace: Trace) -> Chapter:
    """Return what the page says of one run."""
    limited = limits(trace)
    diagnosis = diagnose(trace, limited)
    harms = judged(trace)
    beside = tensor_cells(diagnosis, harms)
    return Chapter(
        key=key,
        trace=trace,
        row=row(name, trace, diagnosis),
        mark=MARKS[diagnosis.verdict],
        headline=headline(diagnosis.harm),
        meaning=meaning(diagnosis),
        alerts=alerts(trace),
        answers=answers(diagnosis, limited),
        diagnosis=diagnosis,
        limited=limited,
        rules=rules(diagnosis),
        harms=tuple(harms),
        lines=tuple({**line, **more} for line, more in zip(trace.summary().rows, beside, strict=True)),
        skewness=skewness_note(trace, diagnosis),
        facts=tuple(facts(trace, diagnosis)),
        formulas=tuple(Counter(tensor.formula or "none" for tensor in trace.tensors).items()),
        events=tuple(trace.events[-EVENTS:]),
        more_events=max(len(trace.events) - EVENTS, 0),
    )


def alerts(trace: Trace) -> str:
    """Return which rules gave an alert while the run went on, and when first; empty where none did."""
    found = alerts_of(trace)
    if not found:
        return ""
    first = {alert.rule: alert.step for alert in reversed(found)}
    told = ", ".join(f"{rule} at step {whole(first[rule])}" for rule in dict.fromkeys(alert.rule for alert in found))
    count = "1 alert" if len(found) == 1 else f"{len(found)} alerts"
    return f"{count} while the run went on: {told}{' first' * (len(found) > len(first))}; see the findings."


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
        ("records", f"{whole(len(trace.steps))} over {whole(diagnosis.steps)} steps"),
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
    return f"{whole(diagnosis.watched)} coordinates ({number(100 * share)} %), a random sample of seed {seed}"


def settings(group: dict[str, object]) -> str:
    """Return one parameter group's hyper-parameters, those that are switched off left out."""
    return ", ".join(
        f"{key} = {_value(value)}" for key, value in group.items() if value is not None and value is not False
    )


def _value(value: object) -> str:
    """Return a setting as it would be read, and not as a program writes it: 10⁻⁸ and not 1e-08."""
    return number(value, 6) if isinstance(value, float) else str(value)
