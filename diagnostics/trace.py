"""Trace: the one record that every room exchanges.

A trace holds cumulative sums, not averages, so that thinning its records loses resolution and nothing else:
the sum over any stretch of steps between two records is the difference of two rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas

    from ..reports.plot import Plots
    from .diagnosis import Diagnosis
    from .summary import Summary

Array = NDArray[np.float64]

SUMS = (
    "active",  # Σ_t number of coordinates that took a step (those whose second moment is not zero)
    "rising",  # Σ_t number of coordinates with e_t > e_{t-1}
    "nonfinite",  # Σ_t number of coordinates with a NaN or infinite gradient or second moment
    "a",  # Σ_t ‖e_t‖_1, the accumulation of effective stepsizes
    "b",  # Σ_t ‖e_t g_t‖², the variance term
    "c_plus",  # Σ_t ‖max(0, e_t - e_{t-1})‖_1, the rises alone
    "g2",  # Σ_t ‖g_t‖²
    "rms2",  # Σ_t RMS_t², RMS_t² = mean over coordinates of g²/max(v̂, eps²)
    "compared",  # Σ_t number of coordinates that have a previous stepsize to compare with
    "eps_bound",  # Σ_t number of coordinates where eps is larger than the root it is added to
    "c",  # Σ_t ‖e_t - e_{t-1}‖_1, the oscillation
    "e2",  # Σ_t ‖e_t‖²
    "delta2",  # Σ_t ‖e_t - e_{t-1}‖²
    "c_lr",  # the part of c that the learning rate makes
    "c_bias",  # the part of c that the bias correction makes
    "c_v",  # the part of c that the second moment makes
    "rise_lr",  # the part of c_plus that the learning rate makes
    "rise_bias",  # the part of c_plus that the bias correction makes
    "rise_v",  # the part of c_plus that the second moment makes
    "steps",  # number of steps that the tensor took
)
"""Cumulative columns. Sums over coordinates are scaled up from the watched ones to the whole tensor."""

ERRORS = ("a_se", "b_se", "c_se", "c_plus_se")
"""Standard errors of a, b, c, c_plus that come from watching a sample; zero when every coordinate is watched."""

INSTANTS = (
    "e_min",  # the smallest stepsize over the watched coordinates, at the record
    "e_p1",  # the quantile below which 1 % of these stepsizes lie
    "e_p50",  # their median
    "e_p99",  # the quantile below which 99 % lie
    "e_max",  # the largest
    "rms_max",  # the largest RMS_t so far
    "weight_rms",  # root mean square of the parameter, at the record
    "update_rms",  # root mean square of the step Δθ, at the record
    "alignment",  # cosine of Δθ and -g, at the record
)
"""Columns that hold at the record itself; NaN where the optimizer has no such quantity."""

COLUMNS = SUMS + ERRORS + INSTANTS

MEASURED = frozenset({"angle", "conformity", "inertia", "loss_scale", "underflow"})
"""First words of the scalars that a monitor measures now and then by itself, see `instruments.py`."""

SUMMED = ("a", "b", "c_plus")
"""What is summed of a rule that the run might have had."""


def measured(scalar: str) -> bool:
    """Return whether a scalar of this name is an instrument's."""
    first, slash, _ = scalar.partition("/")
    return bool(slash) and first in MEASURED


@dataclass(frozen=True)
class TensorInfo:
    """One parameter tensor: its name, size, how much of it is watched, and the formula its stepsize is read by."""

    name: str
    shape: tuple[int, ...]
    numel: int
    watched: int
    group: int
    formula: str | None
    """The stepsize formula; None where this optimizer has no elementwise stepsize."""
    part_of: int | None = None
    """Coordinates of the whole tensor, where `numel` counts those of one process; None where these are all."""


@dataclass(frozen=True)
class Event:
    """Something that happened at a step: resumed, skipped step, non-finite, group added, unreadable, closed …."""

    step: int
    kind: str
    message: str
    tensor: str | None = None


@dataclass(frozen=True)
class Scalars:
    """A logged scalar at the records: the newest value, and the cumulative sum and count of the finite ones."""

    steps: NDArray[np.int64]
    last: Array
    total: Array
    count: Array

    def means(self) -> Array:
        """Return the mean of the values logged between each record and the one before, shape `(records,)`."""
        count = np.diff(self.count, prepend=0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(count > 0, np.diff(self.total, prepend=0.0) / count, self.last)


@dataclass(frozen=True)
class DriftRecord:
    """What the harm test needs of the last half of the run: inner products between its k stretches, per tensor.

    `gram_dd`, `gram_dg`, `gram_gg` have shape `(tensors, k, k)`; entry (i, j) of `gram_dg` is ⟨d_i, g_j⟩ with
    coordinates weighted by their mean stepsize and scaled up to the whole tensor; its diagonal holds what stretch i's
    stepsizes alone make of the other gradients (see `drift.py`). `gram_qg` has the same of q = mean(g³)/mean(g²) and g
    (see `skewness.py`).
    """

    first_step: int
    last_step: int
    gram_dd: Array
    gram_dg: Array
    gram_gg: Array
    gram_qg: Array | None = None


@dataclass(frozen=True)
class Efficiency:
    """Descent efficiency ρ over the half of the run before each of `steps`; NaN where it was not resolved.

    `rho` and its 95 % interval are of all tensors together, each `(n,)`; `tensors` has ρ of each, `(n, tensors)`.
    """

    steps: NDArray[np.int64]
    rho: Array
    low: Array
    high: Array
    tensors: Array
    slope: Array | None = None
    """The slope's share of what the gradients push (see `slope.py`), of all tensors together, `(n,)`."""
    products: tuple[Array, ...] = ()
    """Of one process's part of a run: what ρ was made of at each step, `(3, k, k)` in all its tensors together."""


@dataclass(frozen=True)
class WhatIfRecord:
    """What other rules would have had on the same gradients (see `imagined.py`); the first is the run's own.

    `sums[r, i]` is a, b and c_plus of rule i at record r, `(records, rules, 3)`; `grams` holds the products of its
    stretches as in `DriftRecord`, summed over the tensors, `(rules, 3, k, k)`, from `first_step` to `last_step`.
    """

    rules: tuple[str, ...]
    sums: Array
    grams: Array | None = None
    first_step: int = 0
    last_step: int = 0


@dataclass
class Trace:
    """The record of one run, in memory: `values[r, p, COLUMNS.index(name)]` at `steps[r]` for `tensors[p]`."""

    meta: dict[str, Any]
    tensors: list[TensorInfo]
    steps: NDArray[np.int64]
    values: Array
    groups: dict[str, Array] = field(default_factory=dict)
    """Hyper-parameters at the records ("lr", "beta1", "beta2", …), each of shape `(records, groups)`."""
    scalars: dict[str, Scalars] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    drift: DriftRecord | None = None
    efficiency: Efficiency | None = None
    what_if: WhatIfRecord | None = None
    path: Array | None = None
    """Iterates of a simulated run at the records, `(records, seeds, dim)`."""

    def __repr__(self) -> str:
        """Return the record in a line: of what, how long, how large, what is logged."""
        kind = self.meta.get("optimizer") or self.meta.get("method") or "no known optimizer"
        steps = int(self.steps[-1]) if len(self.steps) else 0
        coordinates = sum(tensor.numel for tensor in self.tensors)
        parts = [
            f"{steps} steps of {kind}",
            f"{len(self.steps)} records",
            f"{len(self.tensors)} tensor(s) of {coordinates} coordinates",
        ]
        resumed = sum(event.kind == "resumed" for event in self.events)
        if resumed:
            parts.append(f"{resumed + 1} segments")
        if logged := list(self.logged):
            parts.append(f"logged: {', '.join(logged[:4])}{', …' * (len(logged) > 4)}")
        if self.path is not None:
            parts.append(f"path of shape {self.path.shape}")
        return f"<Trace: {'; '.join(parts)}>"

    def _repr_html_(self) -> str:
        from ..reports.notebook import of_trace

        return of_trace(self).html()

    @property
    def logged(self) -> dict[str, Scalars]:
        """The scalars but those of the instruments."""
        return {name: scalar for name, scalar in self.scalars.items() if not measured(name)}

    @property
    def x(self) -> Array:
        """The last iterates of a simulated run, `(seeds, dim)`."""
        if self.path is None:
            raise AttributeError("a recorded run keeps no iterates, only a simulated one does.")
        last: Array = self.path[-1]
        return last

    def column(self, name: str) -> Array:
        """Return one column for every record and tensor, shape `(records, tensors)`.

        Raises:
            ValueError: for an unknown name.
        """
        if name not in COLUMNS:
            raise ValueError(f"`name` must be one of the columns {COLUMNS}, got {name!r}.")
        column: Array = self.values[:, :, COLUMNS.index(name)]
        return column

    def total(self, name: str) -> Array:
        """Return a cumulative column summed over the tensors that have it to the end, shape `(records,)`."""
        if name not in SUMS:
            raise ValueError(f"`name` must be one of the cumulative columns {SUMS}, got {name!r}.")
        column = self.column(name)
        readable = ~np.isnan(column[-1:]).any(axis=0)
        total: Array = column[:, readable].sum(axis=1)
        return total

    def diagnose(self) -> Diagnosis:
        """Judge the run: the conditions, the harm test, one verdict and findings in words."""
        from .diagnosis import diagnose

        return diagnose(self)

    def summary(self) -> Summary:
        """Return a table with a row per tensor; `str()` prints it."""
        from .summary import summarize

        return summarize(self)

    @property
    def plot(self) -> Plots:
        """The figures of the run one by one, as in `trace.plot.limits().figure.savefig("limits.pdf")`."""
        from ..reports.plot import Plots

        return Plots(self)

    def report(self, path: str | Path) -> Path:
        """Write the report of the run and return its path.

        The ending chooses the format: .html, .pdf, .md, .json, or .xml for CI (docs/report_formats.md).

        Raises:
            ValueError: for a directory, or another ending.
        """
        from ..reports.formats import render

        return render([(str(self.meta.get("optimizer", "run")).rpartition(".")[2], self)], path)

    def to_pandas(self) -> pandas.DataFrame:
        """Return every record as a table indexed by (step, tensor), one column per name in `COLUMNS`."""
        import pandas

        names = [tensor.name for tensor in self.tensors]
        index = pandas.MultiIndex.from_product([self.steps, names], names=["step", "tensor"])
        return pandas.DataFrame(self.values.reshape(-1, len(COLUMNS)), index=index, columns=list(COLUMNS))

    def save(self, path: str | Path) -> None:
        """Write the trace as a new run directory at `path`."""
        from .store import save

        save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read the run directory at `path`, also while another process writes it."""
        from .store import load

        return load(Path(path))
