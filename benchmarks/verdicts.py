"""Counts wrong verdicts on simulated runs whose truth is known from theory: problems × methods × schedules × seeds.

What is true of a run is said by `truth` from the problem, the method and the schedule, never from a verdict:
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import sympy
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from stepscope.diagnostics.diagnosis import Diagnosis, Verdict
from stepscope.diagnostics.trace import Trace
from stepscope.synthetic.arrivals import Cyclic, Random
from stepscope.synthetic.cases import adopt, bend, chen_figure_2
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.noise import Gaussian
from stepscope.synthetic.periodic import cyclic_gradients, periodic_drift
from stepscope.synthetic.problem import Problem
from stepscope.synthetic.reddi2018 import online, stochastic, theorem1
from stepscope.synthetic.stationary import iid_gradients, stationary_drift

SHARED = {"sgd", "adagrad", "adafom", "amsgrad"}
"""Methods whose e is set by all of the past: c⁺/a → 0 where noise persists, under every schedule here."""
RESOLVED = 4.0  # standard errors between seeds, for a sign that theory does not give
SCHEDULES = ("root", "constant", "cosine")


@dataclass(frozen=True)
class World:
    """A problem, its learning rates and what decides about it."""

    build: Callable[[], Problem]
    root: float
    """α of α/√t."""
    flat: float
    """α of the constant and the cosine."""
    noise: str
    """none (the gradient is exact), vanishing (it is 0 at the optimum whatever arrives), bounded, unbounded."""
    sgd: float = 1.0
    """What SGD's α is multiplied by."""
    linear: bool = False
    """Whether gradients do not depend on x, so that the drift is known in closed form."""
    core: float = math.inf
    """‖x‖ beyond which components are linear: a run that is still out there has the noise of a linear game."""


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


def chen_figure_1() -> Problem:
    x = sympy.Symbol("x", real=True)
    return Problem([bend(100 * x**2, 2000 * abs(x) - 10000, abs(x) <= 10)], Cyclic((0,)), start=1)


def quadratic() -> Problem:
    return Problem(["x**2/2"], Cyclic((0,)), start=1)


def noisy_quadratic() -> Problem:
    return Problem(["x**2/2"], Cyclic((0,)), start=1, noise=Gaussian(1.0))


def mirrored() -> Problem:
    """Return −1010x with probability 0.01 and 10.4x otherwise: Adam's drift is right and far faster than the mean."""
    x = sympy.Symbol("x")
    return Problem([-1010 * x, sympy.Rational(52, 5) * x], Random((0.01, 0.99)), domain=(-1, 1), start=0)


def skewed_plane() -> Problem:
    """Return a tilted quadratic in two variables whose gradient noise is 9 times a vector once in ten, else −1."""
    x, y = sympy.symbols("x y", real=True)
    bowl, tilt = ((x + y) ** 2 + 10 * (x - y) ** 2) / 4, 2 * x + y
    arrival = Random((0.1, 0.9))
    return Problem([bowl + 9 * tilt, bowl - tilt], arrival, variables=(x, y), domain=(-3, 3), start=(1, 2))


WORLDS = {
    "theorem 1": World(theorem1, 0.5, 0.01, "bounded", linear=True),
    "online": World(online, 0.5, 0.01, "bounded", linear=True),
    "stochastic": World(stochastic, 0.5, 0.01, "bounded", linear=True),
    "mirrored": World(mirrored, 0.5, 0.01, "bounded", linear=True),
    "adopt k=10": World(lambda: adopt(10), 0.1, 0.01, "bounded", linear=True),
    "figure 2": World(chen_figure_2, 1.0, 0.1, "vanishing", core=1.0),
    "figure 1": World(chen_figure_1, 0.1, 0.01, "none", sgd=0.05),
    "quadratic": World(quadratic, 0.5, 0.01, "none"),
    "noisy quadratic": World(noisy_quadratic, 0.5, 0.01, "unbounded"),
    "skewed plane": World(skewed_plane, 0.1, 0.01, "bounded"),
}
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
    """b/a → 0."""
    testable: bool
    """False for cosine: it plans with T, so that b/a → 0 is no question to one run."""
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
        testable=schedule != "cosine",
        bias=bias(world, rule.method, schedule),
        grows=grows(world, rule.method, schedule),
        drift=drift(world, rule),
    )


def variance(world: World, method: str, schedule: str) -> bool | None:
    """Say whether b/a → 0.

    α/√t: b ≤ Σ α_t²/(1-β2) ~ log T (SGD: Σ α_t² E g²; sums: Σ g²/Σg² ~ log T) against a ~ √T, or b/a = O(α_t) by
    E e²g² ≤ α_t E e|g|/√(1-β2). A constant rate: a noise that persists leaves b/a at its stationary value, except for
    AdaGrad, whose sum makes α/√t of it. With AMSGrad's maximum over unbounded noise it creeps to 0 like 1/√log t.
    Without such noise gradients vanish for SGD, AdaGrad and AMSGrad (αL < 2; e never rises); AdaFom's e rises like √t
    until it is too large, and Adam's and ADOPT's steps stay of the size α: their orbits scale with α.
    """
    if schedule == "root" or method == "adagrad":
        adopt_alone = method == "adopt" and world.noise == "none"  # e|g| ≤ α_t t^¼ gives b ≲ a only
        return None if adopt_alone else True
    if world.noise in ("bounded", "unbounded"):
        return None if method == "amsgrad" and world.noise == "unbounded" else False
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
        return True if schedule == "root" or world.noise in ("bounded", "unbounded") else None
    return None if world.noise == "none" else False


def grows(world: World, method: str, schedule: str) -> bool | None:
    """Say whether a grows like a power of t; AdaGrad's sum under α/√t gives e ~ 1/t while gradients last."""
    if method != "adagrad" or schedule == "constant" or world.noise == "none":
        return True
    return False if schedule == "root" and world.noise != "vanishing" else None


def drift(world: World, rule: Rule) -> float | None:
    """Return which way the steps go where gradients do not depend on x: > 0 with the mean gradient, < 0 against it.

    SGD: with it. Adam and RMSprop: the exact mean of m/√v times the mean gradient, momentum and all.
    """
    if not world.linear or (rule.betas is None and rule.beta2 is None) or rule.method not in ("sgd", "adam", "rmsprop"):
        return 1.0 if world.linear and rule.method == "sgd" else None
    beta1, beta2 = rule.betas or (0.0, rule.beta2 or 0.0)
    problem = world.build()
    if isinstance(problem.arrival, Cyclic):
        period = cyclic_gradients(problem)[:, 0]
        return float(periodic_drift(period, beta1, beta2) * period.mean())
    p, g = iid_gradients(problem)
    return stationary_drift(p, g[:, 0], beta1, beta2) * float(p @ g[:, 0])


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
    """‖x_T‖."""
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
    return WORLDS[world].build()


def play(world: str, rule: str, schedule: str, steps: int, seed: int) -> Row:
    """Simulate one seed and judge it."""
    lr = law(WORLDS[world], RULES[rule], schedule)
    trace = RULES[rule].simulate(problem_of(world), steps, lr, seed)
    d = trace.diagnose()
    made, intended = (second_half(trace, name) for name in ("descent_made", "descent_intended"))
    return row_of(d, (world, rule, schedule, steps, seed), made, intended, float(np.linalg.norm(trace.x)))


def row_of(d: Diagnosis, cell: tuple[str, str, str, int, int], made: float, intended: float, x: float) -> Row:
    reasons = f"{d.variance.reason} | {d.bias.reason} | {d.growth.reason} | {d.harm.reason}"
    harm = d.harm
    decisions = (str(d.verdict), str(d.variance.decision), str(d.bias.decision), str(harm.decision))
    return Row(*cell, *decisions, harm.rho, *harm.interval, harm.z, made, intended, x, reasons)


def second_half(trace: Trace, name: str) -> float:
    values = trace.scalars[name]
    half = int(np.searchsorted(values.steps, values.steps[-1] / 2))
    return float(values.last[-1] - values.last[half])


def seeds_of(world: str, count: int) -> range:
    problem = problem_of(world)
    random = isinstance(problem.arrival, Random) or problem.noise is not None
    return range(count if random else 1)


def wrong(row: Row, cell: Sequence[Row]) -> str:
    """Return why a verdict is wrong, "" if it is not; `cell` holds all seeds of it."""
    true = truth(WORLDS[row.world], RULES[row.rule], row.schedule)
    verdict = Verdict(row.verdict)
    sign = direction(true, cell)
    far_out = row.schedule == "constant" and row.x > WORLDS[row.world].core
    said = {
        Verdict.BIASED: {"c+/a vanishes": true.bias is True, "the drift is right": sign > 0},
        Verdict.CERTIFIED: {
            "b/a does not vanish": true.variance is False or not true.testable,
            "c+/a does not vanish": true.bias is False,
            "a does not grow": true.grows is False,
        },
        Verdict.NEIGHBOURHOOD: {"b/a vanishes": not far_out and (true.variance is True or not true.testable)},
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
    return truth(WORLDS[row.world], RULES[row.rule], row.schedule)


def direction(true: Truth, cell: Sequence[Row]) -> int:
    """Return the sign of ρ: in closed form, else of Σ⟨e m, G⟩ over all seeds; 0 where these do not resolve it."""
    if true.drift is not None:
        return int(np.sign(true.drift))
    made = np.array([row.made for row in cell])
    if len(made) == 1:
        return int(np.sign(made[0]))
    return int(np.sign(made.mean())) if abs(made.mean()) > RESOLVED * made.std(ddof=1) / math.sqrt(len(made)) else 0


def grid(args: argparse.Namespace) -> Iterator[Row]:
    for world in args.worlds:
        for rule in args.rules:
            for steps in args.steps:
                for schedule in SCHEDULES:
                    for seed in seeds_of(world, args.seeds):
                        yield play(world, rule, schedule, steps, seed)


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
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--save", type=Path, help="append the rows to this file, a line of JSON each")
    parser.add_argument("--load", type=Path, nargs="+", help="judge saved rows instead of simulating")
    args = parser.parse_args()
    began = time.perf_counter()
    rows: list[Row] = []
    if args.load:
        rows = [Row(**json.loads(line)) for path in args.load for line in path.read_text().splitlines()]
    else:
        for row in grid(args):
            rows.append(row)
            if args.save:
                with args.save.open("a") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
    console = Console(width=200)
    console.print(table(rows))
    for key, cell in by_cell(rows).items():
        for why in sorted({wrong(row, cell) for row in cell} - {""}):
            those = [row for row in cell if wrong(row, cell) == why]
            console.print(f"{key}: {len(those)} of {len(cell)} wrongly {those[0].verdict}: {why}")
    console.print(f"{len(rows)} runs, {time.perf_counter() - began:.0f} s")
    sys.exit(any(wrong(row, cell) for cell in by_cell(rows).values() for row in cell))


if __name__ == "__main__":
    main()
