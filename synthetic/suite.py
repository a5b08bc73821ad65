"""run_suite(): turn the published counterexamples on any torch optimizer, by real `step()` calls.

In an optimizer's own test suite two lines do:

    from stepscope.synthetic.suite import assert_converges
    assert_converges(lambda params: MyOptimizer(params))
"""

from __future__ import annotations

import difflib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..diagnostics.conditions import Decision
from ..diagnostics.diagnosis import Diagnosis, Verdict
from ..diagnostics.drift import HarmDecision
from ..diagnostics.finding import listed
from ..diagnostics.trace import Trace
from .cases import PROBLEMS, Case, Outcome
from .course import About, course
from .engine import seeds_of, whole
from .noise import require_positive
from .score import SuiteResult, SuiteRow
from .spec import optimizer_from_spec
from .traits import MakeOptimizer, Traits, measure
from .world import World, merge, one_thread, play

__all__ = ["PROBLEMS", "Case", "Outcome", "SuiteResult", "SuiteRow", "assert_converges", "optimizer_from_spec"]
__all__ += ["run_suite"]

Array = NDArray[np.float64]

SEEDS, SEEDS_ALONE = 16, 3
SHARE_ALONE = 5
"""Where every seed needs an optimizer of its own, a fifth of the steps is played, and three seeds if they go well."""
FARTHER = 7 / 8
"""Share of seeds that end farther than their start on a wrong problem."""
CHANCE = 0.0025
"""An unbiased walk ends farther in half of the seeds: 14 of 16, or 9 of 9, are farther by chance less often than so."""
HALVES = 100
"""Who is on the way back is there, at the pace of the second half of the run, after at most so many more."""
RETURNS = "farther than at the start, but on the way back; more steps would tell"
FEW = "farther than at the start, but in too few seeds to tell it from chance"


def run_suite(
    optimizer_factory: MakeOptimizer,
    problems: Sequence[Case | str] | Case | str | None = None,
    *,
    steps: float = 100_000,
    seeds: int | Sequence[int] | None = None,
    lr: float = 1.0,
    progress: bool = False,
) -> SuiteResult:
    """Play every problem with a torch optimizer and return what came of it.

    An optimizer whose coordinates know nothing of each other (tested first) plays all problems at once, seeds being
    coordinates. Another plays them one by one with a fifth of the steps, and three seeds unless `seeds` is given; more
    where these end farther than their start, until chance can be told from a drift.

    Args:
        optimizer_factory: makes the optimizer of a list of parameters: `lambda params: torch.optim.Adam(params)`.
        problems: cases or names of cases; None for all of `PROBLEMS`.
        steps: number of steps, also written 1e6.
        seeds: how many runs of each problem that has chance in it, or their seeds; default 16 (or 3 and more). Fewer
            than 9 never suffice to call such a problem wrong.
        lr: multiplies the learning rates of all cases.
        progress: show a progress bar.

    Raises:
        ValueError: for an unknown problem, a factory that makes no optimizer, or a number out of range.
    """
    cases = _cases(problems)
    chosen = None if seeds is None else seeds_of(seeds)
    steps = whole("steps", steps, 1)
    require_positive("lr", lr)
    with one_thread(), _quiet():
        run = _Run(optimizer_factory, measure(optimizer_factory), cases, steps, chosen, lr)
        return run.result(progress)


def assert_converges(
    optimizer_factory: MakeOptimizer,
    problems: Sequence[Case | str] | Case | str | None = None,
    *,
    steps: float = 100_000,
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
        self.grow: Callable[[int], None] = lambda _: None

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
            self.grow = lambda steps: bar.update(task, total=(bar.tasks[0].total or 0) + steps)

    def seeds_of(self, case: Case) -> Sequence[int]:
        default = SEEDS if self.elementwise else SEEDS_ALONE
        seeds = self.seeds or range(default)
        return seeds if case.random else seeds[:1]

    def length(self) -> int:
        """Return the steps of a run."""
        return self.steps if self.elementwise else max(1, self.steps // SHARE_ALONE)

    def together(self, bar: Progress | None) -> bool:
        """Play all cases with one optimizer; return whether nobody interrupted."""
        length, begin = self.length(), time.perf_counter()
        self.show(bar, length)
        worlds = [World(case, self.seeds_of(case), length) for case in self.cases]
        try:
            game = play(worlds, self.factory, self.traits, self.lr, self.tick)
        except Exception:
            # One of them made it raise, and with that ended all: each is told apart when it plays alone.
            self.elementwise = False
            return self.one_by_one(bar)
        seconds = (time.perf_counter() - begin) / len(worlds)
        for world, trace in zip(worlds, game.traces, strict=True):
            self.rows[world.case.name] = self.row([world], [trace], seconds)
        return not game.interrupted

    def one_by_one(self, bar: Progress | None) -> bool:
        """Play every seed of every case with an optimizer of its own; return whether nobody interrupted."""
        self.show(bar, self.length() * sum(len(self.seeds_of(case)) for case in self.cases))
        for case in self.cases:
            begin = time.perf_counter()
            worlds: list[World] = []
            traces: list[Trace] = []
            for seed in self.seeds_of(case):
                if not self.alone(case, seed, worlds, traces):
                    return False
                if worlds[-1].broken is not None:
                    break
            while self.seeds is None and _undecided(worlds):
                self.grow(worlds[0].steps)
                if not self.alone(case, len(worlds), worlds, traces):
                    return False
            self.rows[case.name] = self.row(worlds, traces, time.perf_counter() - begin)
        return True

    def alone(self, case: Case, seed: int, worlds: list[World], traces: list[Trace]) -> bool:
        """Play one seed and append what is left of it; return whether nobody interrupted."""
        world = World(case, [seed], self.length())
        try:
            game = play([world], self.factory, self.traits, self.lr, self.tick)
        except Exception as fault:
            world.broken = f"{type(fault).__name__}: {' '.join(str(fault).split())}", world.played
            worlds.append(world)
            return True
        if game.interrupted:
            return False
        worlds.append(world)
        traces.append(game.traces[0])
        return True

    def row(self, worlds: Sequence[World], traces: Sequence[Trace], seconds: float) -> SuiteRow:
        """Return the row of one case."""
        case = worlds[0].case
        played = max(world.played for world in worlds)
        broken = next((world.broken for world in worlds if world.broken is not None), None)
        distances = np.concatenate([world.distances() for world in worlds])
        last = float(case.rate(np.array([max(played, 1.0)]))[0]) * self.lr
        tolerance = case.tolerance(last, case.away)
        diagnosis = _diagnosis(traces, broken is not None)
        ended, notes = outcome(distances, case.away, tolerance, case.random), []
        if broken is not None:
            ended, notes = Outcome.BROKEN, [f"broken: {broken[0]} (step {max(broken[1], 1)})"]
        elif ended is Outcome.WRONG and _returning(worlds):
            ended, notes = Outcome.SHORT, [RETURNS]
        elif ended is Outcome.SHORT and _far(distances, case.away):
            notes = [FEW]
        if broken is None and played < worlds[0].steps:
            notes.append(f"stopped after {played} of {worlds[0].steps} steps")
        return SuiteRow(
            problem=case.name,
            steps=played,
            seeds=len(distances),
            start=case.away,
            distance=float(np.median(distances)),
            tolerance=tolerance,
            regret=sum(world.average_regret() for world in worlds) / len(worlds),
            stepsize=any(tensor.formula is not None for trace in traces for tensor in trace.tensors),
            variance=diagnosis.variance.decision if diagnosis else Decision.INCONCLUSIVE,
            bias=diagnosis.bias.decision if diagnosis else Decision.INCONCLUSIVE,
            rho=diagnosis.harm.rho if diagnosis else math.nan,
            rho_interval=diagnosis.harm.interval if diagnosis else (math.nan, math.nan),
            harm=diagnosis.harm.decision if diagnosis else HarmDecision.INCONCLUSIVE,
            verdict=diagnosis.verdict if diagnosis else Verdict.UNSTABLE,
            outcome=ended,
            expected=self.traits.expects(case),
            seconds=seconds,
            notes=(*notes, *_troubles(traces)),
            about=About.of(case),
            course=course(worlds),
        )


def outcome(distances: Array, start: float, tolerance: float, random: bool = True) -> Outcome:
    """Return how seeds ended whose start was `start` away: solved by their median, wrong by seven eighths of them.

    Where chance is in it, also by more of them than it explains.
    """
    if float(np.median(distances)) <= tolerance:
        return Outcome.SOLVED
    n, farther = len(distances), np.count_nonzero(distances > start)
    tail = sum(math.comb(n, k) for k in range(int(farther), n + 1)) / 2**n
    return Outcome.WRONG if _far(distances, start) and not (random and tail > CHANCE) else Outcome.SHORT


def _far(distances: Array, start: float) -> bool:
    return bool(np.count_nonzero(distances > start) >= FARTHER * len(distances))


def _returning(worlds: Sequence[World]) -> bool:
    """Return whether the seeds' median came nearer from each part of the second half of the run to the next."""
    course = np.median(np.concatenate([world.course() for world in worlds], axis=1), axis=1)
    nearer, left = course[0] - course[-1], course[-1] - worlds[0].case.away
    return bool((np.diff(course) < 0).all() and HALVES * nearer > left)


def _undecided(worlds: Sequence[World]) -> bool:
    """Return whether more seeds are needed to tell a wrong end from chance."""
    case, n = worlds[0].case, len(worlds)
    if not case.random or n >= SEEDS or any(world.broken for world in worlds):
        return False
    distances = np.concatenate([world.distances() for world in worlds])
    return _far(distances, case.away) and outcome(distances, case.away, 0.0) is Outcome.SHORT


def _troubles(traces: Sequence[Trace]) -> list[str]:
    """Return why the stepsize could not be read, and what went wrong inside the monitor: nothing if all is well."""
    first = {event.kind: event.message for trace in traces[::-1] for event in trace.events[::-1]}
    said = []
    if "unreadable" in first:
        said.append(f"{first['unreadable'].partition(';')[0]}: without it there is no b/a, c⁺/a or ρ")
    if "fault" in first:
        said.append(f"the monitor failed: {first['fault']}")
    return said


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


def _cases(problems: Sequence[Case | str] | Case | str | None) -> list[Case]:
    if problems is None:
        return list(PROBLEMS)
    wanted = [problems] if isinstance(problems, str | Case) or not isinstance(problems, Iterable) else problems
    known = {case.name: case for case in PROBLEMS}
    found = []
    for item in wanted:
        if isinstance(item, str) and item not in known:
            close = difflib.get_close_matches(item, known, n=3)
            hint = f"did you mean {listed(close, 'or')}?" if close else f"choose from {', '.join(known)}."
            raise ValueError(f"`problems` must name cases of the suite, got {item!r}; {hint}")
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
