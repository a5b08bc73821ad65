"""phase_diagram(): sweep two hyper-parameters of a method on a problem, and see where it ends at the right side.

How one cell is played is in `sweep.py`, the axes and the workers that share a grid's rows in `grid.py`, the lines that
theory draws in `boundaries.py`, and the file from which an interrupted sweep goes on in `ledger.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.diagnosis import JSON
from .boundaries import Boundary, boundaries
from .crossings import Crossing, crossings
from .engine import whole
from .grid import Axis, Work
from .methods import Method
from .problem import Problem
from .sweep import Ending, Sweep, sweep_of

__all__ = ("BETA1", "BETA2", "Axis", "Ending", "Phase", "Span", "phase_diagram")

Array = NDArray[np.float64]
Span = tuple[str, float, float]

SCHEMA = 1
LINE_POINTS = 33
BETA1, BETA2 = ("beta1", 0.0, 0.999), ("beta2", 0.0, 0.99999)


@dataclass(frozen=True)
class Phase:
    """A phase diagram: arrays of shape (rows of y, columns of x) at the finest resolution that was played."""

    problem: str
    method: str
    lr: str
    steps: int
    seeds: tuple[int, ...]
    fixed: tuple[tuple[str, float], ...]
    """The method's hyper-parameters that no axis varies."""
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

    def __str__(self) -> str:
        """Return in a few lines what share of the diagram ends how."""
        from ..reports.phases import told

        return told(self)

    @property
    def along(self) -> Axis:
        """The axis along which changes of ending are told: β2, of which theory says where, else that of y."""
        return self.x if self.x.name == "beta2" else self.y

    @property
    def across(self) -> Axis:
        """The other one."""
        return self.y if self.along is self.x else self.x

    @cached_property
    def crossings(self) -> tuple[Crossing, ...]:
        """Where the ending changes along the axis `along`, at each value of the other."""
        endings = self.ending.T if self.along is self.y else self.ending
        return crossings(self.along, self.across, endings, self.boundaries)

    def _repr_html_(self) -> str:
        from ..reports.notebook import of_phase

        return of_phase(self).html()

    def share(self, ending: Ending | str) -> float:
        """Return the share of the diagram's area that ends so: "right", "undecided", "wrong" or "unstable".

        Raises:
            ValueError: for another word.
        """
        known = [*Ending]
        if ending not in known:
            raise ValueError(f"`ending` must be one of {', '.join(known)}, got {ending!r}.")
        return float((self.ending == ending).mean())

    def draw(self, path: str | Path) -> Path:
        """Draw the diagram with theory's lines into a file, .png, .svg or .pdf say, and return its path.

        Raises:
            ValueError: for an ending that is no format of pictures.
        """
        from ..reports.phases import save_picture

        return save_picture(self, path)

    def report(self, path: str | Path) -> Path:
        """Write a report around the diagram and return its path: .html, .pdf or .md for people, .json for programs.

        Raises:
            ValueError: for a directory, or another ending.
        """
        from ..reports.formats import save_phase

        return save_phase(self, Path(path))

    def to_dict(self) -> dict[str, JSON]:
        """Return the diagram as stable JSON; a number that is not finite becomes null."""
        return {
            "schema": SCHEMA,
            "problem": self.problem,
            "method": self.method,
            "lr": self.lr,
            "steps": self.steps,
            "seeds": list(self.seeds),
            "fixed": dict(self.fixed),
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
            "along": self.along.name,
            "crossings": [
                {
                    name: None if isinstance(value, float) and not np.isfinite(value) else value
                    for name, value in (asdict(one) | {"agrees": one.agrees}).items()
                }
                for one in self.crossings
            ],
            "played": self.played,
            "seconds": self.seconds,
        }

    def _axis(self, which: str) -> dict[str, JSON]:
        axis, values = (self.x, self.x_values) if which == "x" else (self.y, self.y_values)
        return {"name": axis.name, "low": axis.low, "high": axis.high, "scale": axis.scale, "values": _plain(values)}


def phase_diagram(
    problem: Problem | str,
    method: str | Method = "adam",
    x: Span = BETA1,
    y: Span = BETA2,
    size: tuple[int, int] = (32, 32),
    steps: float = 100_000,
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
    Otherwise all cells are played with the same seeds, on the same arrivals and noise: cells differ by what the axes
    say alone, and a boundary is sharper than independent draws would show it. Whether the seeds of a cell agree is
    not touched by this, but neighbours that end alike are no independent proof of each other.
    Start a problem on a box away from its ends: a run cannot be seen to move out that starts as far out as it can be.

    Args:
        problem: with an optimum; or a name that `stepscope list --problems` shows.
        method: a name of `METHODS`, or a `Method` of your own.
        x: what varies along x: ("beta1", lowest, highest). Any hyper-parameter of the method, or "lr", which
            multiplies the learning rate. β are spaced by log(1−β).
        y: what varies along y.
        size: cells along x and y.
        steps: number of steps T of each run, also written 1e6.
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
    axes = _axis("x", x), _axis("y", y)
    sweep = sweep_of(problem, method, (axes[0].name, axes[1].name), steps, lr, seeds, start, hyper)
    if np.shape(size) != (2,):
        raise ValueError(f"`size` must be two numbers of cells, along x and y, such as (32, 32), got {size!r}.")
    cells = whole("size", size[0], 1), whole("size", size[1], 1)
    work = Work(sweep, None if resume is None else Path(resume), progress)
    grid, level = work.grid(axes, cells, whole("refine", refine, 0), backend, jobs)
    fixed = dict(sweep.method.defaults) | dict(sweep.hyper)
    return Phase(
        problem=str(sweep.problem),
        method=sweep.method.name,
        lr=str(lr),
        steps=sweep.steps,
        seeds=sweep.seeds,
        fixed=tuple((name, value) for name, value in fixed.items() if name not in sweep.names),
        x=axes[0],
        y=axes[1],
        away=sweep.away,
        distance=np.array([[cell.distance for cell in row] for row in grid]),
        rho=np.array([[cell.rho for cell in row] for row in grid]),
        ending=np.array([[cell.ending for cell in row] for row in grid], dtype=object),
        level=level,
        boundaries=_lines(sweep, axes, fixed),
        played=work.played,
        seconds=time.perf_counter() - begin,
    )


def _axis(which: str, span: Span) -> Axis:
    """Return an axis from what the user gave."""
    try:
        name, low, high = span
        ends = float(low), float(high)
    except (TypeError, ValueError) as fault:
        raise ValueError(
            f'`{which}` must be (name, lowest, highest), such as ("beta1", 0, 0.99), got {span!r}.'
        ) from fault
    return Axis(name, *ends)


def _lines(sweep: Sweep, axes: tuple[Axis, Axis], hyper: dict[str, float]) -> tuple[Boundary, ...]:
    """Return what theory draws, where the axes are β1 and β2."""
    if set(sweep.names) != {"beta1", "beta2"}:
        return ()
    beta1 = axes[sweep.names.index("beta1")].edges(LINE_POINTS - 1)
    return boundaries(sweep.problem, sweep.method.name, beta1, hyper.get("eps", 0.0))


def _plain(values: Array) -> JSON:
    return (
        [_plain(row) for row in values] if values.ndim > 1 else [float(v) if np.isfinite(v) else None for v in values]
    )
