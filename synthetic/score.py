"""What the suite found of an optimizer: a row for each problem, a score, and the table that a person reads."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ..diagnostics.conditions import Decision
from ..diagnostics.diagnosis import JSON, Verdict
from ..diagnostics.drift import HarmDecision
from .cases import Outcome
from .course import About, Course

SCHEMA = 2
WIDTH = 160

MARKS = {Decision.HOLDS: "✓", Decision.VIOLATED: "✕", Decision.INCONCLUSIVE: "?"}
SIGNS = {HarmDecision.HARMLESS: "> 0", HarmDecision.HARMFUL: "< 0", HarmDecision.INCONCLUSIVE: "?"}
AGREEMENT = {True: "✓", False: "✕", None: "?"}
STYLES = {Outcome.SHORT: "yellow", Outcome.WRONG: "red", Outcome.BROKEN: "bold red"}
MISSING = "–"


@dataclass(frozen=True)
class SuiteRow:
    """How an optimizer did on one problem."""

    problem: str
    steps: int
    seeds: int
    start: float
    """Distance of the start from the optimum."""
    distance: float
    """Final distance (mean over the last hundredth of the steps), the median over the seeds."""
    tolerance: float
    """Up to this distance the problem counts as solved."""
    regret: float
    """Average regret Σ(f_t(x_t) − f_t(x*))/T, the mean over the seeds."""
    stepsize: bool
    """Whether the effective stepsize could be read; if not, there are no conditions, no ρ and hardly a verdict."""
    variance: Decision
    bias: Decision
    rho: float
    rho_interval: tuple[float, float]
    harm: HarmDecision
    verdict: Verdict
    outcome: Outcome
    expected: Outcome | None
    """What theory says for T → ∞ of optimizers of this class; None: it has no word."""
    seconds: float
    """Wall time; problems played together share theirs equally."""
    notes: tuple[str, ...]
    """What must be known to read the row, a sentence each: how it broke, why numbers are missing."""
    about: About
    course: Course

    @property
    def agrees(self) -> bool | None:
        """Whether outcome and theory agree; None where theory is silent or the run does not tell.

        What theory says of T → ∞ is not refuted by a run that ends half way, nor a cycle by one that has not begun to.
        """
        if self.expected is None:
            return None
        if self.outcome is self.expected:
            return True
        halves = self.outcome is Outcome.SHORT or (self.expected, self.outcome) == (Outcome.SHORT, Outcome.SOLVED)
        return None if halves else False


@dataclass(frozen=True)
class SuiteResult:
    """A table with a row per problem; `str()` prints it."""

    optimizer: str
    elementwise: bool
    rows: tuple[SuiteRow, ...]
    complete: bool
    """False if the run was interrupted: problems are missing, or their runs are shorter than asked."""
    seconds: float

    @property
    def score(self) -> float:
        """The share of problems solved; NaN without rows."""
        return self.counts[Outcome.SOLVED] / len(self.rows) if self.rows else math.nan

    @property
    def counts(self) -> Counter[Outcome]:
        """How many problems end so."""
        return Counter(row.outcome for row in self.rows)

    @property
    def lost(self) -> tuple[SuiteRow, ...]:
        """The problems that end at the wrong side or broke the optimizer."""
        return tuple(row for row in self.rows if row.outcome in (Outcome.WRONG, Outcome.BROKEN))

    @property
    def exit_code(self) -> int:
        """0 when no problem ends at the wrong side and none broke the optimizer, else 1."""
        return int(bool(self.lost))

    def __str__(self) -> str:
        """Return the table as plain text."""
        console = Console(file=io.StringIO(), width=WIDTH, color_system=None, legacy_windows=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    def report(self, path: str | Path) -> Path:
        """Write a report and return its path: .html, .pdf or .md for people, .json for programs, .xml for CI.

        Raises:
            ValueError: for a directory, or another ending.
        """
        from ..reports.formats import save_suite

        return save_suite(self, Path(path))

    def _repr_html_(self) -> str:
        from ..reports.notebook import of_suite

        return of_suite(self).html()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text | Table]:
        """Give a terminal the headline, the table, and what it means; columns that do not fit are left out."""
        yield Text(self.headline, style="bold")
        for left_out in range(len(SPARE) + 1):
            table = self.table(SPARE[:left_out])
            if Measurement.get(console, options.update(width=10 * WIDTH), table).maximum <= options.max_width:
                break
        yield table
        yield Text(self.caption, style="dim")

    def table(self, left_out: Sequence[str] = ()) -> Table:
        """Return the rows as a table without the columns `left_out`."""
        columns = {name: column for name, column in self.columns().items() if name not in left_out}
        table = Table(box=SIMPLE, pad_edge=False)
        for name, (justify, _) in columns.items():
            table.add_column(name, justify="right" if justify == ">" else "left", no_wrap=True)
        for row in self.rows:
            cells = [Text(cell(row)) for _, cell in columns.values()]  # a name in brackets or colons is no markup
            table.add_row(*cells, style=STYLES.get(row.outcome))
        return table

    def columns(self) -> dict[str, tuple[str, Callable[[SuiteRow], str]]]:
        """Return heading, side and text of each column; the steps stand in the headline where they are all the same."""
        return {name: column for name, column in COLUMNS.items() if name != "steps" or self.steps is None}

    @property
    def steps(self) -> int | None:
        """The number of steps, if all problems were played for as many."""
        found = {row.steps for row in self.rows}
        return found.pop() if len(found) == 1 else None

    @property
    def headline(self) -> str:
        """The result in a line: where the problems ended, and apart from it what was decided of the steps."""
        counts, total = self.counts, len(self.rows)
        others = "".join(f", {counts[o]} {o}" for o in Outcome if counts[o] and o is not Outcome.SOLVED)
        ends = f"{counts[Outcome.SOLVED]} of {total} problem{'s' * (total != 1)} solved{others}"
        verdicts = Counter(row.verdict for row in self.rows)
        judged = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in Verdict if verdicts[verdict])
        each = "" if self.steps is None else f"{self.steps} steps each, "
        stopped = "" if self.complete else "; interrupted"
        said = f"; verdicts on the steps: {judged}" if judged else ""
        return f"{self.optimizer}: {ends}{said} ({each}{self.seconds:.0f} s{stopped})"

    @property
    def caption(self) -> str:
        """What is noted of rows, how they were played, and what the columns mean."""
        notes = self.noted()
        return "\n".join([*notes, *([""] if notes else []), *LEGEND, self.how])

    @property
    def how(self) -> str:
        """How seeds were played."""
        if self.elementwise:
            return "Seeds are coordinates of one tensor a problem."
        return "Not elementwise: each seed is played by an optimizer of its own, with fewer steps and seeds."

    def noted(self) -> list[str]:
        """Return what is noted, a line each, with the problems that it concerns."""
        concerned: dict[str, list[str]] = {}
        for row in self.rows:
            for note in row.notes:
                concerned.setdefault(note, []).append(row.problem)
        everywhere = len(self.rows)
        return [
            f"{'all problems' if len(names) == everywhere > 1 else ', '.join(names)}: {note}."
            for note, names in concerned.items()
        ]

    def to_dict(self) -> dict[str, JSON]:
        """Return the result as stable JSON; NaN becomes null, an infinity "inf" or "-inf"."""
        return {
            "schema": SCHEMA,
            "optimizer": self.optimizer,
            "elementwise": self.elementwise,
            "complete": self.complete,
            "score": _plain(self.score),
            "exit_code": self.exit_code,
            "seconds": _plain(self.seconds),
            "rows": [
                {field.name: _plain(getattr(row, field.name)) for field in fields(row)} | {"agrees": row.agrees}
                for row in self.rows
            ],
        }


LEGEND = (
    "start, end: distance from the optimum, median over the seeds. solved: up to the distance given; wrong: farther "
    "than at the start, and not on the way back; short: neither. regret: average of f_t(x_t) − f_t(x*) over the steps.",
    "b/a, c⁺/a → 0: ✓ holds, ✕ violated, ? undecided. ρ: share of the intended descent that is made, 95 % interval; "
    "> 0, < 0: its sign alone is known.",
    "verdict: what is decided of the steps, without knowing the optimum. A run may end at the optimum, solved, and be "
    "too short to be judged, inconclusive.",
    "theory: how it ends for T → ∞; ✓ so it did, ✕ it ended otherwise, ? this run does not tell, – theory has no word.",
)


def _rho(row: SuiteRow) -> str:
    if not row.stepsize:
        return MISSING
    if not all(map(math.isfinite, row.rho_interval)):
        return SIGNS[row.harm]
    low, high = row.rho_interval
    return f"{row.rho:.2f} [{low:.2f}, {high:.2f}]"


def _number(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.3g}"


COLUMNS: dict[str, tuple[str, Callable[[SuiteRow], str]]] = {
    "problem": ("<", lambda row: row.problem),
    "steps": (">", lambda row: str(row.steps)),
    "seeds": (">", lambda row: str(row.seeds)),
    "start": (">", lambda row: _number(row.start)),
    "end": (">", lambda row: _number(row.distance)),
    "solved": (">", lambda row: f"≤ {row.tolerance:.2g}"),
    "outcome": ("<", lambda row: str(row.outcome)),
    "theory": ("<", lambda row: MISSING if row.expected is None else f"{row.expected} {AGREEMENT[row.agrees]}"),
    "regret": (">", lambda row: _number(row.regret)),
    "b/a": (">", lambda row: MARKS[row.variance] if row.stepsize else MISSING),
    "c⁺/a": (">", lambda row: MARKS[row.bias] if row.stepsize else MISSING),
    "ρ": ("<", _rho),
    "verdict": ("<", lambda row: str(row.verdict)),
}
"""Heading, side, and what stands in a row."""
SPARE = ("regret", "seeds", "ρ", "start", "solved", "b/a", "c⁺/a")
"""Columns that a narrow terminal does without, in this order."""


def _plain(value: object) -> JSON:
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(item) for name, item in asdict(value).items()}
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)
