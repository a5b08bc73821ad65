"""phase_diagram(): sweep two hyper-parameters of a method on a problem, and see where it ends at the right side.

Rows of cells are handed to joblib, so that `joblib.parallel_config(backend="dask")` or "ray" takes the same call to a
cluster.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
from numpy.typing import NDArray

from ..diagnostics.diagnosis import JSON
from ..diagnostics.trace import SUMS
from . import ledger
from .arrivals import Cyclic
from .boundaries import Boundary, boundaries
from .engine import EXTRAS, Play, schedule, start_of
from .methods import Method, check, method, parameters
from .problem import Problem

Array = NDArray[np.float64]
Span = tuple[str, float, float]
Scale = Literal["gap", "log", "linear"]

LR = "lr"
"""The axis of this name multiplies the learning rate."""
WATCHED = 32
"""Records in the last tenth of each half of a run."""
AGREE = 7 / 8
"""Share of seeds that must end the same way: by chance, two ways alike, at most 2 · 9/256 for eight seeds."""
LINE_POINTS = 33
KEPT_STEPS = 4_000_000
"""Up to here the learning rates of a whole run are computed once (32 MB)."""
BETA1, BETA2 = ("beta1", 0.0, 0.999), ("beta2", 0.0, 0.99999)


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
class Axis:
    """A hyper-parameter and its range, cut into cells of equal width: of log(1−β) for a β, of log lr for lr."""

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"the range of `{self.name}` must have low < high, got ({self.low}, {self.high}).")
        if self.name == LR and self.low <= 0:
            raise ValueError(f"`lr` is spaced by its logarithm and must be positive, got ({self.low}, {self.high}).")
        if self.name != LR:
            for value in (self.low, self.high):
                check(self.name, value)

    @property
    def scale(self) -> Scale:
        """What has cells of equal width."""
        if self.name.startswith("beta"):
            return "gap"
        return "log" if self.low > 0 else "linear"

    def edges(self, cells: int) -> Array:
        """Return the bounds of the cells, `(cells + 1,)`."""
        return self.back(self._places(cells + 1))

    def middles(self, cells: int) -> Array:
        """Return the middles of the cells, `(cells,)`, where they are played."""
        return self.back(self._places(2 * cells + 1)[1::2])

    def _places(self, count: int) -> Array:
        low, high = self.to(np.array([self.low, self.high])).tolist()
        return np.linspace(low, high, count)

    def to(self, values: Array) -> Array:
        """Return values as places on the scale."""
        scaled: Array = values
        if self.scale == "gap":
            scaled = -np.log1p(-values) / math.log(10)
        elif self.scale == "log":
            scaled = np.log10(values)
        return scaled

    def back(self, places: Array) -> Array:
        """Return the values at places on the scale."""
        values: Array = places
        if self.scale == "gap":
            values = -np.expm1(-math.log(10) * places)
        elif self.scale == "log":
            values = 10.0**places
        return values


@dataclass(frozen=True)
class Cell:
    """What came of one pair of hyper-parameters."""

    x: float
    y: float
    distance: float
    """To the optimum, mean over the last tenth of the steps, median over the seeds."""
    rho: float
    """Σ⟨e g, G⟩ / Σ⟨e G, G⟩ with the true mean gradient G, over the second half of the steps and all seeds."""
    ending: Ending


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

    def row(self, points: Sequence[tuple[float, float]]) -> list[Cell]:
        """Play several cells."""
        return [self.cell(x, y) for x, y in points]

    def cell(self, x: float, y: float) -> Cell:
        """Play one cell, all its seeds one after another."""
        play = self.play(x, y)
        runs = [play.run(seed) for seed in self.seeds]
        at = np.stack([run.x for run in runs])
        with np.errstate(invalid="ignore", over="ignore"):
            distances = np.linalg.norm(at - np.asarray(self.problem.optimum), axis=2)
            sums = np.sum([run.sums[:, len(SUMS) :] for run in runs], axis=0)
            later = dict(zip(EXTRAS, (sums[-1] - sums[self.half]).tolist(), strict=True))
            made, intended = later["descent_made"], later["descent_intended"]
            early, late = distances[:, : self.half + 1], distances[:, self.half + 1 :]
            return Cell(
                x,
                y,
                float(np.median(late.mean(axis=1))),
                made / intended if intended else math.nan,
                ending(early, late, self.away),
            )

    def play(self, x: float, y: float) -> Play:
        """Return what plays a cell."""
        chosen = dict(self.hyper) | {n: v for n, v in zip(self.names, (x, y), strict=True) if n != LR}
        factor = math.prod(v for n, v in zip(self.names, (x, y), strict=True) if n == LR)
        p = parameters(self.method, None, **chosen)
        rate = rates(self.lr, self.steps, factor)
        return Play(self.problem, self.method, p, rate, self.record_at, self.steps, np.array(self.start))

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


@lru_cache(maxsize=2)
def _whole(lr: float | str, steps: int) -> Array:
    return _law(lr, steps)(np.arange(1.0, steps + 1))


def rates(lr: float | str, steps: int, factor: float) -> Callable[[Array], Array]:
    """Return factor·α as a function of consecutive steps; computed once for all cells unless the run is long."""
    if steps > KEPT_STEPS:
        law = _law(lr, steps)
        return lambda at: factor * law(at)
    whole = _whole(lr, steps)
    return lambda at: factor * whole[int(at[0]) - 1 : int(at[-1])]


@dataclass(frozen=True)
class Phase:
    """A phase diagram: arrays of shape (rows of y, columns of x) at the finest resolution that was played."""

    problem: str
    method: str
    lr: str
    steps: int
    seeds: tuple[int, ...]
    x: Axis
    y: Axis
    away: float
    """Distance of the start from the optimum."""
    distance: Array
    rho: Array
    ending: NDArray[Any]
    """`Ending`s."""
    level: NDArray[np.int64]
    """How often a cell was subdivided; one below the finest level repeats over the 2 × 2, 4 × 4, … it covers."""
    boundaries: tuple[Boundary, ...]
    played: int
    """Cells played by this call: those found in the file are not among them."""
    seconds: float

    @property
    def x_values(self) -> Array:
        """The middles of the finest columns."""
        return self.x.middles(self.distance.shape[1])

    @property
    def y_values(self) -> Array:
        """The middles of the finest rows."""
        return self.y.middles(self.distance.shape[0])

    def share(self, ending: Ending) -> float:
        """Return the share of the diagram's area that ends so."""
        return float((self.ending == ending).mean())

    def to_dict(self) -> dict[str, JSON]:
        """Return the diagram as stable JSON; a number that is not finite becomes null."""
        return {
            "schema": 1,
            "problem": self.problem,
            "method": self.method,
            "lr": self.lr,
            "steps": self.steps,
            "seeds": list(self.seeds),
            "start_distance": self.away,
            **{axis: self._axis(axis) for axis in ("x", "y")},
            "shares": {ending.value: self.share(ending) for ending in Ending},
            "distance": _plain(self.distance),
            "rho": _plain(self.rho),
            "ending": [[str(e) for e in row] for row in self.ending],
            "level": [[int(n) for n in row] for row in self.level],
            "boundaries": [
                {"name": line.name, "beta1": _plain(line.beta1), "beta2": _plain(line.beta2)}
                for line in self.boundaries
            ],
            "played": self.played,
            "seconds": self.seconds,
        }

    def _axis(self, which: str) -> dict[str, JSON]:
        axis, values = (self.x, self.x_values) if which == "x" else (self.y, self.y_values)
        return {"name": axis.name, "low": axis.low, "high": axis.high, "scale": axis.scale, "values": _plain(values)}


def phase_diagram(
    problem: Problem,
    method: str | Method = "adam",
    x: Span = BETA1,
    y: Span = BETA2,
    size: tuple[int, int] = (32, 32),
    steps: int = 100_000,
    lr: float | str = "1/sqrt(t)",
    seeds: int | Sequence[int] = 1,
    *,
    start: float | Sequence[float] | None = None,
    refine: int = 0,
    resume: str | Path | None = None,
    backend: str | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **hyper: float,
) -> Phase:
    """Play a grid of hyper-parameters and say for each cell whether the method ends nearer to the optimum.

    A problem without chance (`Cyclic`, no noise) is played once whatever `seeds` says: every seed is the same run.
    Start a problem on a box away from its ends: a run cannot be seen to move out that starts as far out as it can be.

    Args:
        problem: with an optimum.
        method: a name of `METHODS`, or a `Method` of your own.
        x: what varies along x: ("beta1", lowest, highest). Any hyper-parameter of the method, or "lr", which
            multiplies the learning rate. β are spaced by log(1−β).
        y: what varies along y.
        size: cells along x and y.
        steps: number of steps T of each run.
        lr: the learning rate α_t, a number or an expression in t and T.
        seeds: how many runs a cell, or their seeds.
        start: where to start instead of `problem.start`.
        refine: how often cells that end otherwise than a neighbour are cut into 2 × 2.
        resume: a file that keeps every finished row; cells that stand in it are not played again.
        backend: a backend of joblib such as "dask" or "ray"; default: the one in force, or else threads.
        jobs: how many rows at a time; default: as many as the backend has workers.
        progress: called with the cells done and the cells known so far to be needed.
        **hyper: further hyper-parameters of the method, fixed.

    Raises:
        ValueError: for a problem without an optimum, an axis that the method does not have, a bad range or number, or
            a file that belongs to another sweep.
    """
    begin = time.perf_counter()
    axes = Axis(*x), Axis(*y)
    sweep = _sweep(problem, method, axes, steps, lr, seeds, start, hyper)
    if len(size) != 2 or min(size) < 1 or refine < 0:
        raise ValueError(f"`size` must be two numbers from 1 up, `refine` at least 0, got {size} and {refine}.")
    known = {} if resume is None else _read(Path(resume), sweep)
    before, path = len(known), None if resume is None else Path(resume)
    sweep.play(axes[0].high, axes[1].high).compiled()  # once, before every worker wants it
    with _backend(backend):
        jobs = jobs or (None if joblib.effective_n_jobs(None) > 1 else -1)
        with joblib.Parallel(n_jobs=jobs, prefer="threads") as pool:
            work = _Work(sweep, pool, joblib.effective_n_jobs(jobs), known, path, progress)
            grid, level = work.grid(axes, size, refine)
    fixed = dict(sweep.method.defaults) | dict(sweep.hyper)
    return Phase(
        problem=problem.name or problem.latex(),
        method=sweep.method.name,
        lr=str(lr),
        steps=steps,
        seeds=sweep.seeds,
        x=axes[0],
        y=axes[1],
        away=sweep.away,
        distance=np.array([[cell.distance for cell in row] for row in grid]),
        rho=np.array([[cell.rho for cell in row] for row in grid]),
        ending=np.array([[cell.ending for cell in row] for row in grid], dtype=object),
        level=level,
        boundaries=_lines(sweep, axes, fixed),
        played=len(known) - before,
        seconds=time.perf_counter() - begin,
    )


def _sweep(
    problem: Problem,
    name: str | Method,
    axes: tuple[Axis, Axis],
    steps: int,
    lr: float | str,
    seeds: int | Sequence[int],
    start: float | Sequence[float] | None,
    hyper: dict[str, float],
) -> Sweep:
    """Check what came in and return it as a sweep."""
    rule = name if isinstance(name, Method) else method(name)
    names = (axes[0].name, axes[1].name)
    for axis in names:
        if axis != LR and axis not in rule.defaults:
            known = ", ".join([*rule.defaults, LR])
            raise ValueError(f"{rule.name} has no hyper-parameter `{axis}` for an axis; it has: {known}.")
        if axis in hyper or names.count(axis) > 1:
            raise ValueError(f"`{axis}` is given twice: an axis, and beside it another axis or a fixed value.")
    if problem.optimum is None:
        why = problem.notes[0] if problem.notes else "it has none"
        raise ValueError(f"a phase diagram needs the distance to an optimum: {why}; give the problem a box.")
    if steps < 2:
        raise ValueError(f"`steps` must be at least 2, got {steps}.")
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(int(seed) for seed in seeds)
    if not chosen:
        raise ValueError(f"`seeds` must name at least one run, got {seeds!r}.")
    if isinstance(problem.arrival, Cyclic) and problem.noise is None:
        chosen = chosen[:1]
    schedule(lr, steps)
    parameters(rule, None, **hyper)
    x0 = tuple(start_of(problem, start).tolist())
    return Sweep(problem, rule, names, lr, steps, chosen, x0, tuple(sorted(hyper.items())))


class _Work:
    """One call's cells: those that are known, and those that a pool of workers still plays."""

    def __init__(
        self,
        sweep: Sweep,
        pool: Any,
        width: int,
        known: dict[tuple[float, float], Cell],
        path: Path | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.sweep, self.pool, self.width, self.known, self.path = sweep, pool, width, known, path
        self.progress, self.needed, self.done = progress, 0, 0

    def grid(
        self, axes: tuple[Axis, Axis], size: tuple[int, int], refine: int
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the cells `(rows, columns)` at the finest resolution, and their levels."""
        nx, ny = size
        grid: NDArray[Any] = np.full((ny, nx), None, dtype=object)
        level: NDArray[np.int64] = np.zeros((ny, nx), dtype=np.int64)
        wanted: NDArray[np.bool_] = np.ones((ny, nx), dtype=bool)
        for depth in range(refine + 1):
            if depth:
                wanted = contested(grid).repeat(2, 0).repeat(2, 1)
                grid, level = grid.repeat(2, 0).repeat(2, 1), level.repeat(2, 0).repeat(2, 1)
            xs, ys = axes[0].middles(grid.shape[1]).tolist(), axes[1].middles(grid.shape[0]).tolist()
            self.play([[(xs[i], ys[j]) for i in np.flatnonzero(row)] for j, row in enumerate(wanted)])
            for j, i in np.argwhere(wanted):
                grid[j, i] = self.known[xs[i], ys[j]]
            level[wanted] = depth
        return grid, level

    def play(self, rows: Sequence[Sequence[tuple[float, float]]]) -> None:
        """Play those cells of the rows that are not known, as many rows at a time as there are workers."""
        todo = [[point for point in row if point not in self.known] for row in rows]
        cells = sum(map(len, rows))
        self.needed, self.done = self.needed + cells, self.done + cells - sum(map(len, todo))
        todo = [row for row in todo if row]
        self.tell()
        for first in range(0, len(todo), self.width):
            batch = todo[first : first + self.width]
            found = [cell for row in self.pool(joblib.delayed(self.sweep.row)(row) for row in batch) for cell in row]
            if self.path is not None:
                ledger.append(self.path, [_line(cell) for cell in found])
            self.known.update(_keyed(found))
            self.done += len(found)
            self.tell()

    def tell(self) -> None:
        """Report how far it is."""
        if self.progress is not None:
            self.progress(self.done, self.needed)


def contested(grid: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which cells end otherwise than one of their four neighbours."""
    endings = np.array([[cell.ending for cell in row] for row in grid], dtype=object)
    found = np.zeros(grid.shape, dtype=bool)
    across, down = endings[:, 1:] != endings[:, :-1], endings[1:] != endings[:-1]
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[1:] |= down
    found[:-1] |= down
    return found


def _lines(sweep: Sweep, axes: tuple[Axis, Axis], hyper: dict[str, float]) -> tuple[Boundary, ...]:
    """Return what theory draws, where the axes are β1 and β2."""
    if set(sweep.names) != {"beta1", "beta2"}:
        return ()
    beta1 = axes[sweep.names.index("beta1")].edges(LINE_POINTS - 1)
    return boundaries(sweep.problem, sweep.method.name, beta1, hyper.get("eps", 0.0))


def _backend(name: str | None) -> Any:
    if name is None:
        return nullcontext()
    if name == "ray":
        importlib.import_module("ray.util.joblib").register_ray()  # ray is untyped, and only here when asked for
    return joblib.parallel_config(backend=name)


def _keyed(cells: Iterable[Cell]) -> dict[tuple[float, float], Cell]:
    return {(cell.x, cell.y): cell for cell in cells}


def _line(cell: Cell) -> dict[str, JSON]:
    finite = {name: value if math.isfinite(value := getattr(cell, name)) else None for name in ("distance", "rho")}
    return {"x": cell.x, "y": cell.y, **finite, "ending": str(cell.ending)}


def _read(path: Path, sweep: Sweep) -> dict[tuple[float, float], Cell]:
    def number(value: Any) -> float:
        return math.nan if value is None else float(value)

    lines = ledger.opened(path, sweep.identity)
    return _keyed(
        Cell(line["x"], line["y"], number(line["distance"]), number(line["rho"]), Ending(line["ending"]))
        for line in lines
    )


def _plain(values: Array) -> JSON:
    return (
        [_plain(row) for row in values] if values.ndim > 1 else [float(v) if np.isfinite(v) else None for v in values]
    )
