"""What runs can be compared by: loss, stepsizes, c⁺/a and ρ over the steps that all have records of (no torch).

Each is read off two settings, here and there, of one or several runs each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .conditions import increments
from .drift import Harm
from .trace import Scalars, TensorInfo, Trace

Array = NDArray[np.float64]
Steps = NDArray[np.int64]

NEAR = 1.05
"""Records of two runs count as of one step within this factor."""
LOSS, EFFICIENCY, MEDIAN, SMALL, BIAS = "loss", "rho", "stepsize (median)", "stepsize (1 %)", "c+/a"
QUANTILES = {MEDIAN: ("e_p50", 100), SMALL: ("e_p1", 1000)}
"""Of the stepsizes, with the fewest watched coordinates of a tensor that counts. The smallest are those of coordinates
that learn; the largest, of dormant ones, are chance."""


@dataclass(frozen=True)
class Course:
    """A quantity over blocks from `first` to `last`, `(runs, blocks)` here and there; `missing` says why there is none.

    Measured at a moment, a block is one step.
    """

    quantity: str
    first: Steps = field(default_factory=lambda: np.empty(0, np.int64))
    last: Steps = field(default_factory=lambda: np.empty(0, np.int64))
    here: Array = field(default_factory=lambda: np.empty((0, 0)))
    there: Array = field(default_factory=lambda: np.empty((0, 0)))
    outset: tuple[Array, Array] = field(default_factory=lambda: (np.empty(0), np.empty(0)))
    """Its values before the first step could act, which differ by chance alone; empty where there are none."""
    notes: tuple[str, ...] = ()
    """What belongs to the numbers of each block; empty where nothing does."""
    missing: str = ""


def courses(here: Sequence[Trace], there: Sequence[Trace], edges: Steps) -> Iterator[Course]:
    """Yield loss, stepsizes and c⁺/a over the blocks between edges that all runs have."""
    if len(edges) < 2:
        yield from (Course(name, missing="they share no steps") for name in (LOSS, *QUANTILES, BIAS))
        return
    yield losses(here, there, edges)
    yield from (stepsizes(here, there, edges, quantity) for quantity in QUANTILES)
    ratios, ratios_there = (np.array([block_ratio(trace, edges) for trace in traces]) for traces in (here, there))
    yield over(BIAS, edges, ratios, ratios_there)


def shared_edges(traces: Sequence[Trace]) -> Steps:
    """Return the steps 1, √2, 2, … near which all runs have a record, and the last step of the shortest."""
    last = min(int(trace.steps[-1]) if len(trace.steps) else 0 for trace in traces)
    if last < 1:
        return np.empty(0, np.int64)
    wanted = np.unique(np.round(2.0 ** (0.5 * np.arange(2 * math.log2(last) + 1))).astype(np.int64))
    wanted = np.append(wanted[wanted < last / 1.2], last)  # no scrap of a block at the end
    shared = np.ones(len(wanted), dtype=np.bool_)
    for trace in traces:
        at = trace.steps[nearest(trace.steps, wanted)]
        shared &= (at <= NEAR * wanted) & (wanted <= NEAR * at)
    return np.asarray(wanted[shared])


def edges_since(origin: int, traces: Sequence[Trace]) -> Steps:
    """Return step `origin` and those about 1, √2, 2, … steps later that all runs have on record, and the last shared.

    `origin` must be one of them.
    """
    shared = shared_steps(traces)
    gone = shared[shared >= origin] - origin
    wanted = 2.0 ** (0.5 * np.arange(2 * math.log2(max(int(gone[-1]), 1)) + 1))
    wanted = wanted[wanted < gone[-1] / 1.2]
    return np.asarray(origin + np.unique([0, *gone[nearest(gone, wanted)], gone[-1]]))


def shared_steps(traces: Sequence[Trace]) -> Steps:
    """Return the steps that all runs have on record."""
    first, *others = (trace.steps for trace in traces)
    return np.asarray(reduce(np.intersect1d, others, first))


def nearest(steps: Steps, wanted: Steps | Array) -> NDArray[np.intp]:
    """Return the index of the step nearest to each of the wanted ones."""
    right = np.clip(np.searchsorted(steps, wanted), 0, len(steps) - 1)
    left = np.maximum(right - 1, 0)
    return np.asarray(np.where(wanted - steps[left] < steps[right] - wanted, left, right))


def over(quantity: str, edges: Steps, here: Array, there: Array, **more: Any) -> Course:
    """Return a course over the blocks between edges."""
    return Course(quantity, np.where(edges[:-1] > 1, edges[:-1] + 1, 1), edges[1:], here, there, **more)


def losses(here: Sequence[Trace], there: Sequence[Trace], edges: Steps) -> Course:
    """Return the loss that all runs log, else the first scalar that all do."""
    first, *others = (*here, *there)
    common = [name for name in first.logged if all(name in other.scalars for other in others)]
    name = next((name for name in common if "loss" in name.lower()), next(iter(common), None))
    if name is None:
        return Course(LOSS, missing="no scalar is logged in all of them")
    values = [[block_means(trace.scalars[name], edges) for trace in traces] for traces in (here, there)]
    outset = [np.array([_first(trace.scalars[name]) for trace in traces]) for traces in (here, there)]
    quantity = LOSS if name == LOSS else f"{LOSS} ({name})"
    return over(quantity, edges, np.array(values[0]), np.array(values[1]), outset=(outset[0], outset[1]))


def _first(scalar: Scalars) -> float:
    """Return the mean of what the first record holds, as a rule the value of the first step."""
    return float(scalar.total[0] / scalar.count[0]) if len(scalar.steps) and scalar.count[0] else math.nan


def block_means(scalar: Scalars, edges: Steps) -> Array:
    """Return the mean of what was logged in each block; NaN where nothing was."""
    rows = nearest(scalar.steps, edges)
    total, count = np.diff(scalar.total[rows]), np.diff(scalar.count[rows])
    with np.errstate(all="ignore"):
        return np.asarray(np.where(count > 0, total / count, np.nan))


def block_ratio(trace: Trace, edges: Steps) -> Array:
    """Return c⁺/a over each block; NaN where a stands still."""
    rows = nearest(trace.steps, edges)
    a, c_plus = (increments(trace.total(name), rows) for name in ("a", "c_plus"))
    with np.errstate(all="ignore"):
        return np.asarray(np.where(a > 0, c_plus / a, np.nan))


def stepsizes(here: Sequence[Trace], there: Sequence[Trace], edges: Steps, quantity: str) -> Course:
    """Return the geometric mean over tensors of a quantile of the stepsize, at the end of each block.

    Tensors go together by name and shape, count by their size, and only where all runs have a number. Simulated seeds
    are tensors of one coordinate or a few, all of which count.
    """
    column, least = QUANTILES[quantity]
    simulated = all("problem" in trace.meta for trace in (*here, *there))
    tensors = [t for t in shared_tensors([*here, *there]) if t.watched >= least or simulated]
    if not tensors:
        return Course(quantity, missing=f"no tensor in common has a stepsize and {least} watched coordinates")
    with np.errstate(all="ignore"):
        logs = np.array([np.log(_at(trace, column, tensors, edges[1:])) for trace in (*here, *there)])
        known = np.isfinite(logs).all(axis=0)
        weight = known * np.array([float(tensor.numel) for tensor in tensors])
        weight /= weight.sum(axis=1, keepdims=True)
        logs[:, ~known] = 0.0
        means = np.exp((logs * weight).sum(axis=2))
    gaps = np.abs(logs[: len(here)].mean(axis=0) - logs[len(here) :].mean(axis=0))
    notes = tuple(f"most in {tensors[p].name}" for p in gaps.argmax(axis=1)) if len(tensors) > 1 else ()
    return over(quantity, edges, means[: len(here)], means[len(here) :], notes=notes)


def shared_tensors(traces: Sequence[Trace]) -> list[TensorInfo]:
    """Return the tensors that have a stepsize in all runs, by name and shape, as the first run has them."""
    keys = [{(tensor.name, tensor.shape) for tensor in trace.tensors if tensor.formula} for trace in traces]
    shared = set.intersection(*keys)
    return [tensor for tensor in traces[0].tensors if (tensor.name, tensor.shape) in shared]


def _at(trace: Trace, column: str, tensors: Sequence[TensorInfo], steps: Steps) -> Array:
    places = {(tensor.name, tensor.shape): p for p, tensor in enumerate(trace.tensors)}
    chosen = [places[tensor.name, tensor.shape] for tensor in tensors]
    return trace.column(column)[nearest(trace.steps, steps)][:, chosen]


def efficiencies(trace: Trace, harm: Harm) -> Array:
    """Return the steps at which ρ was measured, ρ and the ends of its interval, `(n, 4)`; the harm test last."""
    known = trace.efficiency
    rows = np.empty((0, 4))
    if known is not None:
        rows = np.column_stack([known.steps.astype(np.float64), known.rho, known.low, known.high])
    if trace.drift is not None and (len(rows) == 0 or harm.last_step > rows[-1, 0]):
        rows = np.vstack([rows, [harm.last_step, harm.rho, *harm.interval]])
    return rows


def shared_efficiencies(runs: Sequence[Array]) -> Array:
    """Return the measurements of ρ that all runs resolved at the same steps, `(runs, looks, 4)`."""
    if not all(map(len, runs)):
        return np.empty((len(runs), 0, 4))
    wanted = runs[0][:, 0].astype(np.int64)
    rows = np.array([run[nearest(run[:, 0].astype(np.int64), wanted)] for run in runs])
    same = (rows[:, :, 0] <= NEAR * wanted) & (wanted <= NEAR * rows[:, :, 0])
    return np.asarray(rows[:, (same & np.isfinite(rows).all(axis=2)).all(axis=0)])
