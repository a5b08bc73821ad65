"""Counts wrong verdicts on simulated runs whose truth is known from theory: worlds × methods × schedules × seeds.

What is true of a run is said by `truth` from the world, the method and the schedule, never from a verdict:
whether b/a → 0, whether c⁺/a → 0, whether a grows like a power of t, and the sign of ρ with the true gradient.
`wrong` compares a verdict with it. Where theory has no word the truth is None, and nothing is held against a verdict.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import joblib
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from worlds import FAMILIES, WORLDS, Cycle, Law, World

from stepscope.diagnostics.conditions import Condition, Growth
from stepscope.diagnostics.diagnosis import Diagnosis, Verdict
from stepscope.diagnostics.drift import Harm
from stepscope.diagnostics.trace import Trace
from stepscope.synthetic.arrivals import Cyclic
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.periodic import cyclic_gradients, periodic_drift
from stepscope.synthetic.problem import Problem
from stepscope.synthetic.stationary import iid_gradients, stationary_drift

ALL = WORLDS | FAMILIES
SHARED = {"sgd", "adagrad", "adafom", "amsgrad"}
"""Methods whose e is set by all of the past: c⁺/a → 0 where noise persists, under every schedule here."""
EPS = 1e-8  # that of the methods
RESOLVED = 4.0  # standard errors between seeds, for a sign that theory does not give
SCHEDULES = ("root", "constant", "cosine")


@dataclass(frozen=True)
class Rule:
    """A method with its hyper-parameters."""

    method: str
    betas: tuple[float, float] | None = None
    beta2: float | None = None

    def simulate(self, problem: Problem, steps: int, lr: str, seed: int) -> Trace:
        """Play one seed."""
        if self.beta2 is None:
            return simulate(problem, self.method, steps, lr, self.betas, [seed], jobs=1)
        return simulate(problem, self.method, steps, lr, None, [seed], jobs=1, beta2=self.beta2)


RULES = {
    "sgd": Rule("sgd"),
    "adagrad": Rule("adagrad"),
    "adafom": Rule("adafom"),
    "amsgrad": Rule("amsgrad", (0.9, 0.99)),
    "adam .9 .99": Rule("adam", (0.9, 0.99)),
    "adam .9 .999": Rule("adam", (0.9, 0.999)),
    "adam .99 .999": Rule("adam", (0.99, 0.999)),
    "adam 0 .1": Rule("adam", (0.0, 0.1)),
    "rmsprop .9": Rule("rmsprop", beta2=0.9),
    "adopt .9 .99": Rule("adopt", (0.9, 0.99)),
    "adopt .9 .9999": Rule("adopt", (0.9, 0.9999)),
}


@dataclass(frozen=True)
class Truth:
    """What theory says of T → ∞: True, False, or None where it has no word."""

    variance: bool | None
    """b/a → 0; of a cosine, whose runs are planned for their T, over the end of the run as T → ∞."""
    bias: bool | None
    """c⁺/a → 0."""
    grows: bool | None
    """a ≥ a power of t."""
    drift: float | None
    """Positive if the steps go with the mean gradient, negative against it."""


@cache
def truth(world: World, rule: Rule, schedule: str) -> Truth:
    return Truth(
        variance=variance(world, rule.method, schedule),
        bias=bias(world, rule.method, schedule),
        grows=grows(world, rule.method, schedule),
        drift=drift(world, rule),
    )


def variance(world: World, method: str, schedule: str) -> bool | None:
    """Say whether b/a → 0.

    α/√t: b ≤ Σ α_t²/(1-β2) ~ log T (SGD: Σ α_t² E g²; sums: Σ g²/Σg² ~ log T) against a ~ √T, or b/a = O(α_t) by
    E e²g² ≤ α_t E e|g|/√(1-β2). A cosine: by the same bound the last S of T steps have b/a = O((S/T)²) while a is of
    the order S³/T², and S = T^0.9 sends the one to 0 and the other to ∞ (docs/trust.md). A constant rate: a noise that
    persists leaves b/a at its stationary value, except for AdaGrad, whose sum makes α/√t of it. With AMSGrad's maximum
    over unbounded noise it goes to 0 by jumps at ever rarer maxima, log t of them. Without such noise
    gradients vanish for SGD, AdaGrad and AMSGrad (αL < 2; e never rises); AdaFom's e rises like √t until it is too
    large, and Adam's and ADOPT's steps stay of the size α: their orbits scale with α.
    """
    if world.noise == "proportional" and method not in ("sgd", "adagrad", "amsgrad"):
        return None  # e is 1/|x| then: a run that diverges has a ~ b ~ log T
    if schedule != "constant" or method == "adagrad":
        adopt_alone = method == "adopt" and world.noise == "none"  # e|g| ≤ α_t t^¼ gives b ≲ a only
        return None if adopt_alone else True
    if world.noise in ("bounded", "unbounded", "heavy"):
        return None if method == "amsgrad" and world.noise != "bounded" else False
    if method in ("sgd", "amsgrad"):
        return True
    return False if world.noise == "vanishing" and method != "adafom" else None


def bias(world: World, method: str, schedule: str) -> bool | None:
    """Say whether c⁺/a → 0.

    SGD, AdaGrad, AMSGrad: c⁺ = 0 as α does not rise. AdaFom: c⁺ = 0 at α/√t, at most Σ 1/t else, unless gradients
    vanish. A fading memory of varying squares keeps E|g²/v - 1| > 0, and so c⁺/a. Exact gradients: orbits decide.
    """
    if method in ("sgd", "adagrad", "amsgrad"):
        return True
    if method == "adafom":
        return True if schedule == "root" or world.noise in ("bounded", "unbounded", "heavy") else None
    return None if world.noise == "none" else False


def grows(world: World, method: str, schedule: str) -> bool | None:
    """Say whether a grows like a power of t.

    AdaGrad's sum under α/√t gives e ~ 1/t, and a ~ log t, as soon as persisting noise outweighs what the way to the
    optimum left in the sum; where the noise is no addend of its own that may take any time, and log t goes to ∞ as
    well, so that neither `certified` nor `stalled` is a false word then. AMSGrad's maximum over heavy tails gives
    e ~ α_t t^(-1/tail), a power of t^0.17 to t^0.25 under α/√t, which the rule (from t^0.2 on) need not see.
    Proportional noise: see `variance`.
    """
    if world.noise == "proportional" and method not in ("sgd", "adagrad", "amsgrad"):
        return None
    if world.noise == "heavy" and method == "amsgrad" and schedule == "root":
        return None
    if method != "adagrad" or schedule == "constant" or world.noise == "none":
        return True
    added = world.linear or world.noise in ("unbounded", "heavy")
    return False if added and schedule == "root" else None


def drift(world: World, rule: Rule) -> float | None:
    """Return which way the steps go where gradients do not depend on x: > 0 with the mean gradient, < 0 against it.

    SGD: with it. Adam and RMSprop: the exact mean of m/√v times the mean gradient, momentum and all.
    """
    if not world.linear or (rule.betas is None and rule.beta2 is None) or rule.method not in ("sgd", "adam", "rmsprop"):
        return 1.0 if world.linear and rule.method == "sgd" else None
    beta1, beta2 = rule.betas or (0.0, rule.beta2 or 0.0)
    gradients = gradients_of(world)
    if isinstance(gradients, Cycle):
        period = np.array(gradients.period)
        return float(periodic_drift(period, beta1, beta2) * period.mean())
    p, g = np.array(gradients.probabilities), np.array(gradients.values)
    return stationary_drift(p, g, beta1, beta2) * float(p @ g)


def gradients_of(world: World) -> Cycle | Law:
    """Return the gradients of a linear world."""
    if world.gradients is not None:
        return world.gradients
    problem = world.build()
    if isinstance(problem.arrival, Cyclic):
        return Cycle(tuple(cyclic_gradients(problem)[:, 0].tolist()))
    p, g = iid_gradients(problem)
    return Law(tuple(p.tolist()), tuple(g[:, 0].tolist()))


@dataclass(frozen=True)
class Row:
    """One seed of one cell, judged alone."""

    world: str
    rule: str
    schedule: str
    steps: int
    seed: int
    verdict: str
    variance: str
    bias: str
    harm: str
    rho: float
    low: float
    high: float
    z: float
    made: float
    """Σ⟨e m, G⟩ over the second half, with the true gradient G."""
    intended: float
    x: float
    """Distance of x_T from the optimum."""
    needs: dict[str, int]
    """How many more steps each open check asks for; one that knows no number is missing."""
    open: list[str]
    """The checks that are inconclusive."""
    reason: str

    @property
    def cell(self) -> tuple[str, str, str, int]:
        """What it shares with the other seeds."""
        return self.world, self.rule, self.schedule, self.steps


def law(world: World, rule: Rule, schedule: str) -> str:
    scale = world.sgd if rule.method == "sgd" else 1.0
    if schedule == "root":
        return f"{world.root * scale!r}/sqrt(t)"
    flat = world.root if rule.method == "adagrad" else world.flat * scale
    return repr(flat) if schedule == "constant" else f"{0.5 * flat!r}*(1 + cos(pi*t/T))"


@cache
def problem_of(world: str) -> Problem:
    return ALL[world].build()


def play(world: str, rule: str, schedule: str, steps: int, seed: int) -> Row:
    """Simulate one seed and judge it."""
    lr, problem = law(ALL[world], RULES[rule], schedule), problem_of(world)
    trace = RULES[rule].simulate(problem, steps, lr, seed)
    made, intended = (second_half(trace, name) for name in ("descent_made", "descent_intended"))
    away = float(np.linalg.norm(trace.x - (0.0 if problem.optimum is None else problem.optimum)))
    return row_of(trace.diagnose(), (world, rule, schedule, steps, seed), made, intended, away)


def row_of(d: Diagnosis, cell: tuple[str, str, str, int, int], made: float, intended: float, x: float) -> Row:
    harm, checks = d.harm, {"variance": d.variance, "bias": d.bias, "growth": d.growth, "harm": d.harm}
    decisions = (str(d.verdict), str(d.variance.decision), str(d.bias.decision), str(harm.decision))
    reasons = " | ".join(check.reason for check in checks.values())
    return Row(
        *cell,
        *decisions,
        harm.rho,
        *harm.interval,
        harm.z,
        made,
        intended,
        x,
        needs_of(checks),
        open_of(checks),
        reasons,
    )


def needs_of(checks: dict[str, Condition | Growth | Harm]) -> dict[str, int]:
    return {name: check.steps_needed for name, check in checks.items() if check.steps_needed is not None}


def open_of(checks: dict[str, Condition | Growth | Harm]) -> list[str]:
    return [name for name, check in checks.items() if check.decision == "inconclusive"]


def second_half(trace: Trace, name: str) -> float:
    values = trace.scalars[name]
    half = int(np.searchsorted(values.steps, values.steps[-1] / 2))
    return float(values.last[-1] - values.last[half])


def seeds_of(world: str, count: int) -> range:
    problem = problem_of(world)
    return range(1 if isinstance(problem.arrival, Cyclic) and problem.noise is None else count)


def wrong(row: Row, cell: Sequence[Row]) -> str:
    """Return why a verdict is wrong, "" if it is not; `cell` holds all seeds of it."""
    true = truth(ALL[row.world], RULES[row.rule], row.schedule)
    verdict = Verdict(row.verdict)
    sign = direction(true, cell)
    far_out = row.schedule == "constant" and row.x > ALL[row.world].core
    at_rest = row.x < EPS  # and the gradient below eps, which then decides e: nothing rises or scatters any more
    said = {
        Verdict.BIASED: {"c+/a vanishes": true.bias is True, "the drift is right": sign > 0},
        Verdict.CERTIFIED: {
            "b/a does not vanish": true.variance is False and not at_rest,
            "c+/a does not vanish": true.bias is False and not at_rest,
            "a does not grow": true.grows is False,
        },
        Verdict.NEIGHBOURHOOD: {"b/a vanishes": not far_out and true.variance is True},
        Verdict.UNCERTIFIED: {"c+/a vanishes": true.bias is True},
        Verdict.STALLED: {"a grows": true.grows is True},
        Verdict.UNSTABLE: {"nothing broke": math.isfinite(row.x)},
        Verdict.INCONCLUSIVE: {},
    }[verdict]
    return "; ".join(why for why, is_so in said.items() if is_so)


def unproved(row: Row, cell: Sequence[Row]) -> bool:
    """Whether a run is called biased while the sign of its drift is known neither from theory nor from the seeds."""
    return row.verdict == Verdict.BIASED and direction(truth_of(row), cell) == 0


def missed(row: Row, cell: Sequence[Row]) -> bool:
    """Whether a run goes the wrong way and is not called biased."""
    return row.verdict != Verdict.BIASED and truth_of(row).bias is False and direction(truth_of(row), cell) < 0


def truth_of(row: Row) -> Truth:
    return truth(ALL[row.world], RULES[row.rule], row.schedule)


def direction(true: Truth, cell: Sequence[Row]) -> int:
    """Return the sign of ρ: in closed form, else of Σ⟨e m, G⟩ over all seeds; 0 where these do not resolve it."""
    if true.drift is not None:
        return int(np.sign(true.drift))
    made = np.array([row.made for row in cell])
    if len(made) == 1:
        return int(np.sign(made[0]))
    return int(np.sign(made.mean())) if abs(made.mean()) > RESOLVED * made.std(ddof=1) / math.sqrt(len(made)) else 0


Cell = tuple[str, str, str, int, int]


def grid(
    worlds: Iterable[str], rules: Sequence[str], steps: Sequence[int], seeds: int, jobs: int = 2
) -> Iterator[list[Row]]:
    """Play worlds × rules × steps × schedules × seeds; yield the rows of a world and a rule, in no special order."""
    parts = [
        [(world, rule, schedule, t, seed) for t in steps for schedule in SCHEDULES for seed in seeds_of(world, seeds)]
        for world in worlds
        for rule in rules
    ]
    yield from joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(joblib.delayed(rows)(p) for p in parts)


def rows(cells: Sequence[Cell]) -> list[Row]:
    """Play several runs, in a process of its own perhaps."""
    return [play(*cell) for cell in cells]


def by_cell(rows: Sequence[Row]) -> dict[tuple[str, str, str, int], list[Row]]:
    cells: dict[tuple[str, str, str, int], list[Row]] = {}
    for row in rows:
        cells.setdefault(row.cell, []).append(row)
    return cells


def table(rows: Sequence[Row]) -> Table:
    """Return the counts per T and schedule; in brackets the wrong ones."""
    cells = by_cell(rows)
    shown = Table("T", "schedule", "runs", *Verdict, "wrong", "unproved", "missed", box=SIMPLE_HEAD)
    for steps in sorted({row.steps for row in rows}):
        for schedule in SCHEDULES:
            these = [row for row in rows if row.steps == steps and row.schedule == schedule]
            all_of = Counter(row.verdict for row in these)
            bad: Counter[str] = Counter()
            for row in these:
                bad[row.verdict] += bool(wrong(row, cells[row.cell]))
            counts = [f"{all_of[v]}" + (f" ({bad[v]})" if bad[v] else "") for v in Verdict]
            more = (sum(check(row, cells[row.cell]) for row in these) for check in (unproved, missed))
            shown.add_row(f"{steps:g}", schedule, str(len(these)), *counts, str(bad.total()), *map(str, more))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=lambda text: int(float(text)), nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--worlds", nargs="+", default=list(ALL), choices=list(ALL))
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--save", type=Path, help="append the rows to this file, a line of JSON each")
    parser.add_argument("--load", type=Path, nargs="+", help="judge saved rows instead of simulating")
    args = parser.parse_args()
    began = time.perf_counter()
    played: list[Row] = []
    if args.load:
        played = [Row(**json.loads(line)) for path in args.load for line in path.read_text().splitlines()]
    else:
        for some in grid(args.worlds, args.rules, args.steps, args.seeds, args.jobs):
            played += some
            if args.save:
                with args.save.open("a") as file:
                    file.writelines(json.dumps(asdict(row)) + "\n" for row in some)
    console = Console(width=200)
    console.print(table(played))
    for key, cell in by_cell(played).items():
        for why in sorted({wrong(row, cell) for row in cell} - {""}):
            those = [row for row in cell if wrong(row, cell) == why]
            console.print(f"{key}: {len(those)} of {len(cell)} wrongly {those[0].verdict}: {why}")
    console.print(f"{len(played)} runs, {time.perf_counter() - began:.0f} s")
    sys.exit(any(wrong(row, cell) for cell in by_cell(played).values() for row in cell))


if __name__ == "__main__":
    main()
