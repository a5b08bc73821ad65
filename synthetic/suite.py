"""run_suite(): turn the published counterexamples on any torch optimizer, by real `step()` calls.

In an optimizer's own test suite two lines do:

    from stepscope.synthetic.suite import assert_converges
    assert_converges(lambda params: MyOptimizer(params))
"""

from __future__ import annotations

import ast
import difflib
import importlib
import io
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..diagnostics.conditions import Decision
from ..diagnostics.diagnosis import JSON, Diagnosis, Verdict
from ..diagnostics.trace import Trace
from .cases import PROBLEMS, Case, Outcome
from .traits import MakeOptimizer, Traits, measure
from .world import World, merge, one_thread, play

__all__ = ["PROBLEMS", "Case", "Outcome", "SuiteResult", "SuiteRow", "assert_converges", "optimizer_from_spec"]
__all__ += ["run_suite"]

Array = NDArray[np.float64]

SCHEMA = 1
SEEDS, SEEDS_ALONE = 16, 3
SHARE_ALONE = 5
"""Where every seed needs an optimizer of its own, a fifth of the steps and three seeds are played."""
FARTHER = 7 / 8
"""Share of seeds that end farther than their start on a wrong problem: by chance (one half) 2 in 1000 for 16 seeds."""
WIDTH = 160

MARKS = {Decision.HOLDS: "✓", Decision.VIOLATED: "✕", Decision.INCONCLUSIVE: "?"}
STYLES = {Outcome.SHORT: "yellow", Outcome.WRONG: "red", Outcome.BROKEN: "bold red"}
AGREEMENT = {True: "agrees", False: "fails", None: "open"}


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
    """Below this distance the problem counts as solved."""
    regret: float
    """Average regret Σ(f_t(x_t) − f_t(x*))/T, the mean over the seeds."""
    variance: Decision
    bias: Decision
    rho: float
    rho_interval: tuple[float, float]
    verdict: Verdict
    outcome: Outcome
    expected: Outcome | None
    """What theory says for T → ∞ of optimizers of this class; None: it has no word."""
    seconds: float
    """Wall time; problems played together share theirs equally."""
    note: str

    @property
    def agrees(self) -> bool | None:
        """Whether outcome and theory agree; None where theory is silent or the run stopped on the way.

        What theory says of T → ∞ is not refuted by a run that ends half way.
        """
        if self.expected is None or self.outcome is self.expected:
            return None if self.expected is None else True
        return None if self.outcome is Outcome.SHORT else False


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
        return sum(row.outcome is Outcome.SOLVED for row in self.rows) / len(self.rows) if self.rows else math.nan

    @property
    def exit_code(self) -> int:
        """0 when no problem ends at the wrong side and none broke the optimizer, else 1."""
        return int(any(row.outcome in (Outcome.WRONG, Outcome.BROKEN) for row in self.rows))

    def __str__(self) -> str:
        """Return the table as plain text."""
        console = Console(file=io.StringIO(), width=WIDTH, color_system=None, legacy_windows=False)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    def __rich__(self) -> Table:
        """Return the table for a terminal."""
        table = Table(
            title=self.headline, title_justify="left", caption=self.caption, caption_justify="left", box=SIMPLE
        )
        for name in ("problem", "steps", "distance", "solved ≤", "regret"):
            table.add_column(name, justify="left" if name == "problem" else "right", no_wrap=True)
        for name in ("b/a", "c⁺/a"):
            table.add_column(name, justify="center", no_wrap=True, min_width=4)
        for name in ("ρ", "verdict", "outcome", "theory"):
            table.add_column(name, no_wrap=True)
        table.add_column("s", justify="right")
        for row in self.rows:
            table.add_row(*_cells(row), style=STYLES.get(row.outcome))
        return table

    @property
    def headline(self) -> str:
        """The result in a line."""
        solved = sum(row.outcome is Outcome.SOLVED for row in self.rows)
        head = f"{self.optimizer}: {solved} of {len(self.rows)} problems solved in {self.seconds:.0f} s"
        return head if self.complete else f"{head} (interrupted)"

    @property
    def caption(self) -> str:
        """How it was played, and what is noted of single rows."""
        how = "seeds are coordinates of one tensor a problem"
        if not self.elementwise:
            how = "not elementwise: each seed is played by an optimizer of its own, with fewer steps and seeds"
        notes = [f"{row.problem}: {row.note}" for row in self.rows if row.note]
        legend = (
            "b/a, c⁺/a → 0: ✓ holds, ✕ violated, ? undecided; steps × seeds; the distance is a median over the seeds"
        )
        return "\n".join([f"{legend};", f"{how}.", *notes])

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


def run_suite(
    optimizer_factory: MakeOptimizer,
    problems: Sequence[Case | str] | None = None,
    *,
    steps: int = 100_000,
    seeds: int | Sequence[int] | None = None,
    lr: float = 1.0,
    progress: bool = False,
) -> SuiteResult:
    """Play every problem with a torch optimizer and return what came of it.

    An optimizer whose coordinates know nothing of each other (tested first) plays all problems at once, seeds being
    coordinates. Another plays them one by one with a fifth of the steps, and three seeds unless `seeds` is given.

    Args:
        optimizer_factory: makes the optimizer of a list of parameters: `lambda params: torch.optim.Adam(params)`.
        problems: cases or names of cases; None for all of `PROBLEMS`.
        steps: number of steps.
        seeds: how many runs of each problem that has chance in it, or their seeds; default 16 (or 3).
        lr: multiplies the learning rates of all cases.
        progress: show a progress bar.

    Raises:
        ValueError: for an unknown problem, a factory that makes no optimizer, or a number out of range.
    """
    cases = _cases(problems)
    chosen = _seeds(seeds)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"`steps` must be a positive integer, got {steps!r}.")
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"`lr` must be a positive number that multiplies every case's own, got {lr!r}.")
    with one_thread(), _quiet():
        run = _Run(optimizer_factory, measure(optimizer_factory), cases, steps, chosen, lr)
        return run.result(progress)


def assert_converges(
    optimizer_factory: MakeOptimizer,
    problems: Sequence[Case | str] | None = None,
    *,
    steps: int = 100_000,
    seeds: int | Sequence[int] | None = None,
    lr: float = 1.0,
) -> None:
    """Raise if a problem ends farther from its optimum than it began, or breaks the optimizer; see `run_suite`.

    Raises:
        AssertionError: with the whole table.
    """
    result = run_suite(optimizer_factory, problems, steps=steps, seeds=seeds, lr=lr)
    if not result.complete:
        raise KeyboardInterrupt
    if result.exit_code:
        raise AssertionError(f"{result.optimizer} does not converge on every problem of the suite.\n{result}")


# --- the run -----------------------------------------------------------------------------------------------


class _Run:
    """One call of `run_suite`: collects rows until it is done or stopped."""

    def __init__(
        self,
        factory: MakeOptimizer,
        traits: Traits,
        cases: Sequence[Case],
        steps: int,
        seeds: Sequence[int] | None,
        lr: float,
    ) -> None:
        self.factory, self.traits, self.cases, self.lr = factory, traits, cases, lr
        self.steps, self.seeds = steps, seeds
        self.elementwise = traits.elementwise
        self.rows: dict[str, SuiteRow] = {}
        self.tick: Callable[[int], None] = lambda _: None

    def result(self, progress: bool) -> SuiteResult:
        begin, complete = time.perf_counter(), True
        columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, transient=True) if progress else nullcontext() as bar:
            try:
                complete = self.together(bar) if self.elementwise else self.one_by_one(bar)
            except KeyboardInterrupt:
                complete = False
        rows = tuple(self.rows[case.name] for case in self.cases if case.name in self.rows)
        return SuiteResult(self.traits.name, self.elementwise, rows, complete, time.perf_counter() - begin)

    def show(self, bar: Progress | None, total: int) -> None:
        if bar is not None:
            task = bar.add_task(self.traits.name, total=total)
            self.tick = lambda steps: bar.advance(task, steps)

    def seeds_of(self, case: Case) -> Sequence[int]:
        default = SEEDS if self.elementwise else SEEDS_ALONE
        seeds = self.seeds or range(default)
        return seeds if case.random else seeds[:1]

    def steps_of(self, case: Case) -> int:
        steps = self.steps if self.elementwise else max(1, self.steps // SHARE_ALONE)
        return min(steps, case.steps or steps)

    def together(self, bar: Progress | None) -> bool:
        """Play cases of the same length with one optimizer; return whether nobody interrupted."""
        lengths = sorted({self.steps_of(case) for case in self.cases})
        self.show(bar, sum(lengths))
        for length in lengths:
            begin = time.perf_counter()
            cases = [case for case in self.cases if self.steps_of(case) == length]
            worlds = [World(case, self.seeds_of(case), length) for case in cases]
            try:
                game = play(worlds, self.factory, self.traits, self.lr, self.tick)
            except Exception:
                # One of them made it raise, and with that ended all: each is told apart when it plays alone.
                self.elementwise = False
                self.rows.clear()
                return self.one_by_one(bar)
            seconds = (time.perf_counter() - begin) / len(cases)
            for world, trace in zip(worlds, game.traces, strict=True):
                self.rows[world.case.name] = self.row([world], [trace], seconds)
            if game.interrupted:
                return False
        return True

    def one_by_one(self, bar: Progress | None) -> bool:
        """Play every seed of every case with an optimizer of its own; return whether nobody interrupted."""
        self.show(bar, sum(self.steps_of(case) * len(self.seeds_of(case)) for case in self.cases))
        for case in self.cases:
            begin = time.perf_counter()
            worlds, traces = [], []
            for seed in self.seeds_of(case):
                world = World(case, [seed], self.steps_of(case))
                try:
                    game = play([world], self.factory, self.traits, self.lr, self.tick)
                except Exception as fault:
                    world.broken = f"{type(fault).__name__}: {' '.join(str(fault).split())}", world.played
                    worlds.append(world)
                    break
                if game.interrupted:
                    return False
                worlds.append(world)
                traces.append(game.traces[0])
                if world.broken is not None:
                    break
            self.rows[case.name] = self.row(worlds, traces, time.perf_counter() - begin)
        return True

    def row(self, worlds: Sequence[World], traces: Sequence[Trace], seconds: float) -> SuiteRow:
        """Return the row of one case."""
        case = worlds[0].case
        played = max(world.played for world in worlds)
        broken = next((world.broken for world in worlds if world.broken is not None), None)
        note = ""
        if broken is not None:
            note = f"broken: {broken[0]} (step {max(broken[1], 1)})"
        elif played < worlds[0].steps:
            note = f"stopped after {played} of {worlds[0].steps} steps"
        distances = np.concatenate([world.distances() for world in worlds])
        last = float(case.rate(np.array([max(played, 1.0)]))[0]) * self.lr
        tolerance = case.tolerance(last, case.away)
        diagnosis = _diagnosis(traces, broken is not None)
        return SuiteRow(
            problem=case.name,
            steps=played,
            seeds=len(distances),
            start=case.away,
            distance=float(np.median(distances)),
            tolerance=tolerance,
            regret=sum(world.average_regret() for world in worlds) / len(worlds),
            variance=diagnosis.variance.decision if diagnosis else Decision.INCONCLUSIVE,
            bias=diagnosis.bias.decision if diagnosis else Decision.INCONCLUSIVE,
            rho=diagnosis.harm.rho if diagnosis else math.nan,
            rho_interval=diagnosis.harm.interval if diagnosis else (math.nan, math.nan),
            verdict=diagnosis.verdict if diagnosis else Verdict.UNSTABLE,
            outcome=Outcome.BROKEN if broken is not None else outcome(distances, case.away, tolerance),
            expected=self.traits.expects(case),
            seconds=seconds,
            note=note,
        )


def outcome(distances: Array, start: float, tolerance: float) -> Outcome:
    """Return how seeds ended whose start was `start` away: solved by their median, wrong by seven eighths of them."""
    if float(np.median(distances)) <= tolerance:
        return Outcome.SOLVED
    return Outcome.WRONG if np.count_nonzero(distances > start) >= FARTHER * len(distances) else Outcome.SHORT


def _diagnosis(traces: Sequence[Trace], broken: bool) -> Diagnosis | None:
    """Judge the seeds as tensors of one run; a broken run by its last trace; None where there is nothing."""
    if not traces:
        return None
    return (traces[-1] if broken else merge(traces)).diagnose()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the monitor's warnings off the terminal: the table tells."""
    logger = logging.getLogger("stepscope")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


# --- what comes in -----------------------------------------------------------------------------------------


def _cases(problems: Sequence[Case | str] | None) -> list[Case]:
    if problems is None:
        return list(PROBLEMS)
    if isinstance(problems, str):
        problems = [problems]
    known = {case.name: case for case in PROBLEMS}
    found = []
    for item in problems:
        if isinstance(item, str) and item not in known:
            close = difflib.get_close_matches(item, known, n=3) or list(known)
            raise ValueError(f"`problems` must name cases of the suite, got {item!r}; did you mean {_or(close)}?")
        if not isinstance(item, Case | str):
            raise ValueError(
                f"`problems` must hold names or `Case`s, got {type(item).__name__}; wrap a problem in a `Case`."
            )
        found.append(known[item] if isinstance(item, str) else item)
    if not found:
        raise ValueError("`problems` must hold at least one case, got none; leave it out for all.")
    twice = {case.name for case in found if sum(case.name == other.name for other in found) > 1}
    if twice:
        raise ValueError(f"`problems` must have different names, got {sorted(twice)[0]!r} twice.")
    return found


def _seeds(seeds: int | Sequence[int] | None) -> Sequence[int] | None:
    if seeds is None:
        return None
    chosen = range(seeds) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if len(chosen) == 0 or min(chosen) < 0:
        raise ValueError(f"`seeds` must be how many (at least 1) or a list of seeds from 0 on, got {seeds!r}.")
    return chosen


def optimizer_from_spec(name: str, settings: Sequence[str] = ()) -> MakeOptimizer:
    """Return a factory for the optimizer class with this dotted name and these `key=value` settings.

    Values are Python literals; commas make a tuple, true and false may be lower case, and what is no literal is a
    string: `optimizer_from_spec("torch.optim.Adam", ["betas=0.9,0.99", "amsgrad=true"])`.

    Raises:
        ValueError: for a name that cannot be imported or is no optimizer, or settings that it does not take.
    """
    kind = _imported(name)
    options: dict[str, object] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (equals and key.isidentifier() and text):
            raise ValueError(f"a setting must read key=value, got {setting!r}; write betas=0.9,0.99, say.")
        options[key] = _literal(text)

    def factory(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return kind(parameters, **options)

    try:
        factory([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))])
    except Exception as fault:
        raise ValueError(f"{name} does not take {' '.join(settings) or 'no settings'}: {fault}.") from fault
    return factory


def _imported(name: str) -> Callable[..., torch.optim.Optimizer]:
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        raise ValueError(f"the optimizer must be a dotted name like torch.optim.Adam, got {name!r}.")
    try:
        module = importlib.import_module(module_name)
    except Exception as fault:
        raise ValueError(
            f"module {module_name!r} of {name!r} cannot be imported: {fault}; check its spelling."
        ) from fault
    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        what = f"{type(found).__name__}" if hasattr(module, attribute) else "nothing"
        close = difflib.get_close_matches(attribute, _optimizers(vars(module)), n=3)
        hint = f"; did you mean {_or([f'{module_name}.{match}' for match in close])}?" if close else "."
        raise ValueError(f"{name!r} must be a class of torch optimizers, got {what}{hint}")
    return found


def _optimizers(names: Mapping[str, object]) -> list[str]:
    kinds = torch.optim.Optimizer
    return [name for name, value in names.items() if isinstance(value, type) and issubclass(value, kinds)]


def _literal(text: str) -> object:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if "," in text:
            return tuple(_literal(part.strip()) for part in text.split(",") if part.strip())
        return text
    return value


def _or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# --- what goes out -----------------------------------------------------------------------------------------


def _cells(row: SuiteRow) -> tuple[str, ...]:
    theory = "–" if row.expected is None else f"{row.expected}: {AGREEMENT[row.agrees]}"
    return (
        row.problem,
        f"{row.steps} × {row.seeds}",
        _number(row.distance),
        _number(row.tolerance),
        _number(row.regret),
        MARKS[row.variance],
        MARKS[row.bias],
        _rho(row),
        str(row.verdict),
        str(row.outcome),
        theory,
        f"{row.seconds:.1f}",
    )


def _rho(row: SuiteRow) -> str:
    if not any(map(math.isfinite, row.rho_interval)):
        return "–"
    low, high = row.rho_interval
    return f"{row.rho:.2f} [{low:.2f}, {high:.2f}]"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"


def _plain(value: object) -> JSON:
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)
