"""A cell of a phase diagram: how it is played, what is kept of it, and how its runs end.

A `Sweep` plays whole rows of cells, all seeds of a row together, at a fraction of what `simulate` costs a step: of the
sums it keeps two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.diagnosis import JSON
from . import ledger
from .arrivals import Cyclic
from .compiled import around
from .engine import problem_of, rule_of, schedule, seeds_of, start_of, whole
from .methods import Method, parameters
from .problem import Problem
from .trials import compiling, try_out
from .walk import walk

Array = NDArray[np.float64]
Point = tuple[float, float]

LR = "lr"
"""The axis of this name multiplies the learning rate."""
WATCHED = 32
"""Records in the last tenth of each half of a run."""
AGREE = 7 / 8
"""Share of seeds that must end the same way: by chance, two ways alike, at most 2 · 9/256 for eight seeds."""
PIECE = 8192
"""Steps whose arrivals and noise are drawn at a time; those of eight seeds stay in the cache while cells pass over."""


class Ending(StrEnum):
    """How a cell's runs end."""

    RIGHT = "right"
    """Nearer to the optimum than they started, and not on the way out."""
    UNDECIDED = "undecided"
    """Neither, or seeds that disagree."""
    WRONG = "wrong"
    """Farther from the optimum than they started, and not on the way back."""
    UNSTABLE = "unstable"
    """Not finite."""


@dataclass(frozen=True)
class Cell:
    """What came of one pair of hyper-parameters."""

    x: float
    y: float
    distance: float
    """To the optimum, mean over the last tenth of the steps, median over the seeds."""
    rho: float
    """Descent made over descent intended, with the true mean gradient: over the second half of the steps, all seeds."""
    ending: Ending

    def line(self) -> dict[str, JSON]:
        """Return the cell as a line of a ledger."""
        finite = {name: value if math.isfinite(value := getattr(self, name)) else None for name in ("distance", "rho")}
        return {"x": self.x, "y": self.y, **finite, "ending": str(self.ending)}

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Cell:
        """Return the cell of a line."""
        distance, rho = (math.nan if line[name] is None else float(line[name]) for name in ("distance", "rho"))
        return cls(line["x"], line["y"], distance, rho, Ending(line["ending"]))


@dataclass(frozen=True)
class Sweep:
    """Everything but the cell: a problem, a method, two names, a schedule. It travels to other processes."""

    problem: Problem
    method: Method
    names: tuple[str, str]
    lr: float | str
    steps: int
    seeds: tuple[int, ...]
    start: tuple[float, ...]
    hyper: tuple[tuple[str, float], ...]

    def row(self, points: Sequence[Point]) -> list[Cell]:
        """Play several cells, every one on the arrivals and the noise that `simulate` draws for these seeds.

        They are drawn once and shared: cells differ by their hyper-parameters alone. Within a cell the seeds are as
        independent as ever; but what is rare in a seed shows in all cells, so that neighbours are no further proof.
        """
        at, sums = self.trajectories(points)
        with np.errstate(invalid="ignore", over="ignore"):
            distances = np.linalg.norm(at - np.asarray(self.problem.optimum), axis=3)
        return [self._cell(point, distances[c].T, *sums[c].tolist()) for c, point in enumerate(points)]

    def _cell(self, point: Point, distances: Array, made: float, intended: float) -> Cell:
        """Return what came of a cell, from its distances (seeds, records)."""
        early, late = distances[:, : self.half + 1], distances[:, self.half + 1 :]
        with np.errstate(invalid="ignore", over="ignore"):
            distance = float(np.median(late.mean(axis=1)))
        rho = made / intended if intended else math.nan
        return Cell(*point, distance, rho, ending(early, late, self.away))

    def trajectories(self, points: Sequence[Point]) -> tuple[Array, Array]:
        """Return the iterates at `record_at`, (cells, records, seeds, dim), and the descent of the second half.

        The latter is (cells, 2): made and intended, summed over the seeds.
        """
        problem, cells, seeds = self.problem, len(points), len(self.seeds)
        p = np.array([self.parameters(point) for point in points])
        for row in p:
            try_out(self.method, row, problem.dim)
        rows = np.array([self.method.rows(row) for row in p])
        shares = np.array([1.0 / self.method.weight(row) for row in p])
        factors = np.array([self.factor(point) for point in points])
        x = np.tile(np.array(self.start), (cells, seeds, 1))
        s, sums = np.zeros((cells, seeds, rows.max(), problem.dim)), np.zeros((cells, 2))
        at = np.empty((cells, len(self.record_at), seeds, problem.dim))
        take, law, advance = self.chance(), _law(self.lr, self.steps), self.compiled()
        records = {int(step): record for record, step in enumerate(self.record_at)}
        cuts = {0, self.steps, *range(PIECE, self.steps, PIECE), *records}
        for first, last in pairwise(sorted(cuts)):
            alphas, counted = law(np.arange(first + 1.0, last + 1.0)), first >= self.steps // 2
            fixed = (alphas, factors, shares, p, rows, problem.lower, problem.upper)
            with compiling(self.method):
                advance(first, counted, *take(last - first), *fixed, x, s, sums)
            if last in records:
                at[:, records[last]] = x
        return at, sums

    def parameters(self, point: Point) -> Array:
        """Return the vector of a cell's hyper-parameters."""
        axes = {name: value for name, value in zip(self.names, point, strict=True) if name != LR}
        return parameters(self.method, None, **dict(self.hyper), **axes)

    def factor(self, point: Point) -> float:
        """Return what multiplies a cell's learning rates."""
        return math.prod(value for name, value in zip(self.names, point, strict=True) if name == LR)

    def chance(self) -> Callable[[int], tuple[NDArray[np.int64], Array]]:
        """Return a function that gives the next k steps' components (k, seeds) and noise (k, seeds, dim)."""
        problem, seeds = self.problem, self.seeds
        indices = [problem.arrival.stream(len(problem.components), np.random.default_rng([seed, 0])) for seed in seeds]
        law = problem.noise
        noises = [] if law is None else [law.stream(problem.dim, np.random.default_rng([seed, 1])) for seed in seeds]
        none = np.zeros((0, len(seeds), problem.dim))

        def take(k: int) -> tuple[NDArray[np.int64], Array]:
            drawn = np.ascontiguousarray(np.stack([draw(k) for draw in indices], axis=1))
            noise = np.ascontiguousarray(np.stack([draw(k) for draw in noises], axis=1)) if noises else none
            return drawn, noise

        return take

    def compiled(self) -> Callable[..., None]:
        """Return the loop around this problem's kernel and this method's rule."""
        return around(self.problem.source, self.method.rule, walk, f"DIM = {self.problem.dim}")

    @cached_property
    def record_at(self) -> NDArray[np.int64]:
        """Steps in the last tenth of either half, the last ones among them."""
        ends = (self.steps // 2, self.steps)
        return np.unique([np.linspace(math.floor(0.9 * end) + 1, end, WATCHED).astype(np.int64) for end in ends])

    @cached_property
    def half(self) -> int:
        """Which record is the last of the first half."""
        return int(np.searchsorted(self.record_at, self.steps // 2))

    @cached_property
    def away(self) -> float:
        """Distance of the start from the optimum."""
        return float(np.linalg.norm(np.array(self.start) - np.asarray(self.problem.optimum)))

    @property
    def identity(self) -> dict[str, JSON]:
        """What two sweeps share whose cells may stand in one file."""
        problem = self.problem
        parts = (problem.source, problem.arrival, problem.noise, problem.lower, problem.upper)
        return {
            "problem": ledger.fingerprint(*parts),
            "method": self.method.name,
            "axes": list(self.names),
            "lr": str(self.lr),
            "steps": self.steps,
            "seeds": list(self.seeds),
            "start": list(self.start),
            "hyper": dict(self.hyper),
        }


def sweep_of(
    problem: Problem | str,
    method: str | Method,
    names: tuple[str, str],
    steps: float,
    lr: float | str,
    seeds: int | Sequence[int],
    start: float | Sequence[float] | None,
    hyper: Mapping[str, float],
) -> Sweep:
    """Check what `phase_diagram` was given, and return it as a sweep.

    Raises:
        ValueError: for what cannot be played.
    """
    problem, rule = problem_of(problem), rule_of(method)
    if "betas" in hyper:
        raise ValueError("`betas` is of `simulate`: here β1 and β2 stand alone, as an axis or as `beta1=`, `beta2=`.")
    for axis in names:
        if axis != LR and axis not in rule.defaults:
            known = ", ".join([*rule.defaults, LR])
            raise ValueError(f"{rule.name} has no hyper-parameter `{axis}` for an axis; it has: {known}.")
        if axis in hyper or names.count(axis) > 1:
            raise ValueError(f"`{axis}` is given twice: an axis, and beside it another axis or a fixed value.")
    if problem.optimum is None:
        why = problem.notes[0] if problem.notes else "it has none"
        raise ValueError(f"a phase diagram needs the distance to an optimum: {why}; give the problem a box.")
    steps, chosen = whole("steps", steps, 2), tuple(seeds_of(seeds))
    if isinstance(problem.arrival, Cyclic) and problem.noise is None:
        chosen = chosen[:1]
    if "horizon" in rule.defaults and "horizon" not in names:  # a schedule of the method's own ends with the run
        hyper = {"horizon": float(steps)} | dict(hyper)
    schedule(lr, steps)
    parameters(rule, None, **hyper)
    x0 = tuple(start_of(problem, start).tolist())
    return Sweep(problem, rule, names, lr, steps, chosen, x0, tuple(sorted(hyper.items())))


def ending(early: Array, late: Array, away: float) -> Ending:
    """Return how seeds end whose start was `away` from the optimum.

    Args:
        early: distances in the last tenth of the first half, (seeds, records).
        late: distances in the last tenth of the second half.
        away: distance at the start.

    A run has moved when it lies farther from `away` than it swings. One that was nearer than its start but is farther
    off than at half time everywhere is on the way out, whatever its first steps have won.
    """
    if not np.isfinite(late).all():
        return Ending.UNSTABLE
    low, high = late.min(axis=1), late.max(axis=1)
    swing = high - low
    right = (high < away - swing) & ~(low > early.max(axis=1))
    wrong = (low > away + swing) & ~(high < early.min(axis=1))
    if right.mean() >= AGREE:
        return Ending.RIGHT
    return Ending.WRONG if wrong.mean() >= AGREE else Ending.UNDECIDED


@lru_cache(maxsize=4)
def _law(lr: float | str, steps: int) -> Callable[[Array], Array]:
    return schedule(lr, steps)
