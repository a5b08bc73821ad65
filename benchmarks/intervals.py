"""Counts how often the 95 % interval of ρ holds the truth, for independent, periodic and autocorrelated gradients.

    python benchmarks/intervals.py                  # the table of docs/trust.md

Adam steps through gradients that do not depend on x. Their stretch sums are made here by a compiled loop and handed to
the harm test's own classes; the truth is the same loop over 2·10⁷ steps. A coordinate's mean gradient is given in
standard errors of the mean over the window: at 30 it is resolved, at 6 it often is not, and the interval is unbounded.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import joblib
import numpy as np
from numba import njit
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from stepscope.diagnostics.drift import Harm, HarmDecision, Stretches, judge_harm

Array = NDArray[np.float64]

LONG = 20_000_000
TWO_POINT, GAUSSIAN, NEIGHBOURS, BURSTS, PERIOD = range(5)


@dataclass(frozen=True)
class Process:
    """A law of gradients: its kind, two numbers for the loop, the deviation of a sum over √n steps, a run's length."""

    kind: int
    p: float = 0.0
    q: float = 0.0
    deviation: float = 1.0
    steps: int = 20_000


PROCESSES = {
    "independent, two values, p = 0.1": Process(TWO_POINT, 0.1),
    "independent, two values, p = 0.01": Process(TWO_POINT, 0.01),
    "independent, Gaussian": Process(GAUSSIAN),
    "period 7 and noise": Process(PERIOD, 7, 2.0),
    "period 101 and noise": Process(PERIOD, 101, 8.0),
    "autocorrelated, 0.9": Process(NEIGHBOURS, 0.9, deviation=math.sqrt(19)),
    "autocorrelated, 0.99, 100 000 steps": Process(NEIGHBOURS, 0.99, deviation=math.sqrt(199), steps=100_000),
    "autocorrelated, 0.99": Process(NEIGHBOURS, 0.99, deviation=math.sqrt(199)),
    "bursts of 20 steps, ten times as loud": Process(BURSTS, 0.01, 0.05, deviation=4.2),
}
BETAS = ((0.0, 0.99), (0.9, 0.99), (0.0, 0.9))


@njit
def _run(kind, mean, p, q, beta1, beta2, root, steps, length, rng, sums):  # type: ignore[no-untyped-def]
    """Add Σ e m and what is owed, Σ g, Σ e of each stretch of `length` steps to `sums` `(stretches, 3)`."""
    v, m, owed, state, loud = 0.0, 0.0, 0.0, rng.normal(), False
    period = int(p) if kind == 4 else 1
    place, burn = rng.integers(0, period), int(20 / (1 - beta2))
    for t in range(-burn, steps):
        if kind == 0:
            g = mean + (math.sqrt((1 - p) / p) if rng.random() < p else -math.sqrt(p / (1 - p)))
        elif kind == 1:
            g = mean + rng.normal()
        elif kind == 2:
            state = p * state + math.sqrt(1 - p * p) * rng.normal()
            g = mean + state
        elif kind == 3:
            loud = rng.random() >= q if loud else rng.random() < p
            g = mean + rng.normal() * (10.0 if loud else 1.0)
        else:
            place = (place + 1) % period
            g = mean + (q if place == 0 else -q / (period - 1)) + rng.normal()
        m = beta1 * m + (1 - beta1) * g
        v = g * g if t == -burn else beta2 * v + (1 - beta2) * g * g
        i = t // length
        rate = 1 / math.sqrt(t + 1.0) if root and t >= 0 else 1.0
        e = rate / math.sqrt(v)
        before, owed = owed, e / rate * m * beta1 / (1 - beta1)
        if t >= 0 and i < len(sums):
            sums[i, 0] += e * m + rate * (owed - before)
            sums[i, 1] += g
            sums[i, 2] += e


def window(steps: int) -> tuple[int, int]:
    """Return the length of a stretch after `steps` steps, and how many are full."""
    stretches = Stretches(1)
    for _ in range(steps):
        stretches.advance()
    return stretches.length, stretches.full


def truth(process: Process, mean: float, betas: tuple[float, float]) -> float:
    """Return ρ = Σ e m / (Σ e · mean) over a long run, less what the run's own mean gradient is off by."""
    sums = np.zeros((1, 3))
    _run(process.kind, mean, process.p, process.q, *betas, False, LONG, LONG, np.random.default_rng(12345), sums)
    step, pull, mass = sums[0]
    return float((step - mass * (pull / LONG - mean)) / (mass * mean))


@dataclass(frozen=True)
class Cell:
    """How one setting fared: ρ, and the shares of runs whose interval holds it, is unbounded, or that are accused."""

    process: str
    betas: tuple[float, float]
    coords: int
    strength: float
    rho: float
    runs: int
    covered: float
    unbounded: float
    accused: int


def measure(
    name: str, betas: tuple[float, float], coords: int, strength: float, runs: int, *, root: bool = False
) -> Cell:
    """Play `runs` runs of `coords` independent coordinates, whose joint mean gradient is `strength` standard errors."""
    process = PROCESSES[name]
    length, full = window(process.steps)
    k = full // 2
    mean = strength * process.deviation / math.sqrt(k * length * coords)
    sums = np.zeros((runs * coords, full, 3))
    for r, own in enumerate(sums):
        _run(
            process.kind, mean, process.p, process.q, *betas, root, process.steps, length, np.random.default_rng(r), own
        )
    rho = truth(process, mean, betas)
    harms = [judged(own, length) for own in sums.reshape(runs, coords, full, 3)]
    covered = np.mean([harm.interval[0] <= rho <= harm.interval[1] for harm in harms])
    unbounded = np.mean([math.isinf(harm.interval[0]) for harm in harms])
    accused = sum(harm.decision is HarmDecision.HARMFUL for harm in harms)
    return Cell(name, betas, coords, strength, rho, runs, float(covered), float(unbounded), accused)


def judged(sums: Array, length: int) -> Harm:
    """Judge one run from its stretch sums `(coords, stretches, 3)`."""
    coords, full, _ = sums.shape
    stretches = Stretches(coords)
    stretches.full, stretches.length = full, length
    rows = np.zeros((full, 6, coords), np.float32)
    rows[:, :3] = sums.transpose(1, 2, 0)
    stretches.closed = list(rows[full - stretches.kept :])
    gram = stretches.gram([(coords, 1.0)])
    assert gram is not None
    (first, last), dd, dg, gg = gram
    return judge_harm(dd[0], dg[0], gg[0], first, last)


SETTINGS = ((1, 30.0), (16, 30.0), (1, 6.0))
"""Coordinates, and the mean gradient in standard errors of the window's mean."""


def cells(runs: int, jobs: int = 2) -> list[Cell]:
    wanted = [(name, betas, *setting, runs) for name in PROCESSES for betas in BETAS for setting in SETTINGS]
    return list(joblib.Parallel(n_jobs=jobs)(joblib.delayed(measure)(*each) for each in wanted))


def lines(found: Sequence[Cell]) -> Iterator[tuple[str, ...]]:
    """Yield a row of the table for every process and every β."""
    for name in dict.fromkeys(cell.process for cell in found):
        for betas in BETAS:
            one, many, weak = (cell for cell in found if (cell.process, cell.betas) == (name, betas))
            shares = (f"{100 * share:.1f} %" for share in (one.covered, many.covered, weak.covered))
            yield name, f"{betas[0]:g}, {betas[1]:g}", f"{one.rho:.2f}", *shares, f"{100 * weak.unbounded:.0f} %"


HEAD = ("gradients", "β1, β2", "ρ", "1 coordinate", "16 coordinates", "weak", "unbounded when weak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    wanted = parser.parse_args()
    table = Table(*HEAD, box=SIMPLE_HEAD)
    for line in lines(cells(wanted.runs, wanted.jobs)):
        table.add_row(*line)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
