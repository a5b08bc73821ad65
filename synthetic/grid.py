"""The grid of a phase diagram: its axes, which of its cells to cut finer, and the workers that play them.

Rows of cells are handed to joblib, so that `joblib.parallel_config(backend="dask")` or "ray" takes the same call to a
cluster.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
from joblib.parallel import BACKENDS
from numpy.typing import NDArray

from . import ledger
from .methods import check
from .sweep import LR, Cell, Point, Sweep

Array = NDArray[np.float64]
Scale = Literal["gap", "log", "linear"]


@dataclass(frozen=True)
class Axis:
    """A hyper-parameter and its range, cut into cells of equal width: see `scale` for what has equal width."""

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
        """What has cells of equal width: log(1−β) for a β ("gap"), else the logarithm, or the value if it may be 0."""
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


class Work:
    """One call's cells: those that are known, and those that a pool of workers still plays."""

    def __init__(self, sweep: Sweep, path: Path | None, progress: Callable[[int, int], None] | None) -> None:
        self.sweep, self.path, self.progress = sweep, path, progress
        lines = [] if path is None else ledger.opened(path, sweep.identity)
        self.known = keyed(Cell.of(line) for line in lines)
        self.played = self.needed = self.done = 0

    def grid(
        self, axes: tuple[Axis, Axis], size: tuple[int, int], refine: int, backend: str | None, jobs: int | None
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the cells `(rows, columns)` at the finest resolution, and their levels."""
        nx, ny = size
        grid: NDArray[Any] = np.full((ny, nx), None, dtype=object)
        level: NDArray[np.int64] = np.zeros((ny, nx), dtype=np.int64)
        wanted: NDArray[np.bool_] = np.ones((ny, nx), dtype=bool)
        self.sweep.compiled()  # once, before every worker wants it
        with _backend(backend):
            jobs = jobs or (None if joblib.effective_n_jobs(None) > 1 else -1)
            with joblib.Parallel(n_jobs=jobs, prefer="threads") as pool:
                for depth in range(refine + 1):
                    if depth:
                        finer = contested(grid)
                        if not finer.any():  # a grid of repeats would look as if it had been played
                            break
                        wanted = finer.repeat(2, 0).repeat(2, 1)
                        grid, level = grid.repeat(2, 0).repeat(2, 1), level.repeat(2, 0).repeat(2, 1)
                    xs, ys = (axis.middles(n).tolist() for axis, n in zip(axes, grid.shape[::-1], strict=True))
                    rows = [[(xs[i], ys[j]) for i in np.flatnonzero(row)] for j, row in enumerate(wanted)]
                    self.play(rows, pool, joblib.effective_n_jobs(jobs))
                    for j, i in np.argwhere(wanted):
                        grid[j, i] = self.known[xs[i], ys[j]]
                    level[wanted] = depth
        return grid, level

    def play(self, rows: Sequence[Sequence[Point]], pool: Any, width: int) -> None:
        """Play those cells of the rows that are not known, as many rows at a time as there are workers."""
        todo = [[point for point in row if point not in self.known] for row in rows]
        cells = sum(map(len, rows))
        self.needed, self.done = self.needed + cells, self.done + cells - sum(map(len, todo))
        todo = [row for row in todo if row]
        self.tell()
        for first in range(0, len(todo), width):
            batch = todo[first : first + width]
            found = [cell for row in pool(joblib.delayed(self.sweep.row)(row) for row in batch) for cell in row]
            if self.path is not None:
                ledger.append(self.path, [cell.line() for cell in found])
            self.known.update(keyed(found))
            self.played, self.done = self.played + len(found), self.done + len(found)
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


def keyed(cells: Iterable[Cell]) -> dict[Point, Cell]:
    """Return cells by their hyper-parameters."""
    return {(cell.x, cell.y): cell for cell in cells}


def _backend(name: str | None) -> Any:
    if name is None:
        return nullcontext()
    if name == "ray":
        importlib.import_module("ray.util.joblib").register_ray()  # ray is untyped, and only here when asked for
    try:
        return joblib.parallel_config(backend=name)
    except ValueError as fault:
        known = ", ".join(sorted({*BACKENDS, "dask", "ray"}))
        raise ValueError(f"`backend` must be one of {known}, got {name!r}.") from fault
