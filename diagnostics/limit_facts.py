"""The numbers from which `limits.py` reads what holds a run back, stage by stage (no torch).

Stages end at T, T/2, T/4, …; all numbers of a stage are a dictionary by name, in which what was not measured is absent:

    b/a, c+/a                the ratios of the conditions, of this stage alone
    eps                      share of the coordinate-steps whose stepsize eps sets
    frozen …                 shares of the coordinates that a number format holds fast, logged (see `precision.py`)
    stepsize left            median stepsize against the stage before
    rate left                learning rate, likewise
    gradients left           mean squared gradient against the largest of any stage so far
    gradients fell           the same against the stage before
    slope                    its share of what the gradients push (see `slope.py`)
    promised                 descent per step that the mean gradient promises
    noise steps              the noise scale τ
    hidden                   how often noise alone would show as much slope, where it is not told from noise
    rho, rho low, rho high   descent efficiency with its interval
    climbs                   present where ρ < 0 for certain
    edge                     the newest ratio to the edge of stability of the stage, logged by `Monitor.edge`
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .conditions import block_edges
from .drift import Harm, HarmDecision, judge_harm
from .pace import even_products
from .slope import Slope, measure_slope
from .trace import DriftRecord, Trace

Array = NDArray[np.float64]
Facts = dict[str, float]
Edges = NDArray[np.intp]

SHORTEST = 16
"""The first stage ends no earlier than at this step."""
LOGGED = {
    "edge": "edge/ratio",
    "frozen": "precision/frozen",
    "underflow": "precision/underflow",
    "swallowed": "precision/swallowed",
}
FORMATS = ("frozen", "underflow", "swallowed")
SUMS = ("active", "eps_bound", "g2", "a", "b", "c_plus")


def stage_edges(trace: Trace) -> Edges:
    """Return the records at the ends of the stages, and before the first."""
    return block_edges(trace.steps, SHORTEST)[::-2][::-1]


def facts_of_stages(trace: Trace, edges: Edges) -> list[Facts]:
    """Return the numbers of every stage, all tensors together; stage i ends at the record edges[i]."""
    sums = {name: np.nansum(trace.column(name), axis=1) for name in SUMS}
    stepsize, last = _typical_stepsize(trace), len(edges) - 1
    return [
        _common(trace, sums, stepsize, edges, i)
        | _logged(trace, edges[i - 1], edges[i])
        | (_drift_of_all(trace) if i == last else _past(trace, edges[i - 1], edges[i]))
        for i in range(1, last + 1)
    ]


def facts_of_tensors(trace: Trace, edges: Edges) -> list[Facts]:
    """Return the numbers of each tensor in the last stage; what is logged of all tensors together is left out."""
    even = None if trace.drift is None else np.stack(even_products(trace, trace.drift))
    return [_of_tensor(trace, edges, p, even) for p in range(len(trace.tensors))]


def _of_tensor(trace: Trace, edges: Edges, p: int, even: Array | None) -> Facts:
    sums = {name: np.nan_to_num(trace.column(name)[:, p]) for name in SUMS}
    facts = _common(trace, sums, trace.column("e_p50")[:, p], edges, len(edges) - 1)
    if trace.drift is not None and even is not None and p < even.shape[1]:  # else it came later
        facts |= _drift(trace.drift, trace.drift.gram_gg[p], even[:, p])
    if any(LOGGED[name] in trace.scalars for name in FORMATS):
        facts.pop("eps", None)  # not the whole truth about this tensor's precision
    return facts


def _common(trace: Trace, sums: Mapping[str, Array], stepsize: Array, edges: Edges, i: int) -> Facts:
    """Return what the sums and the stepsizes tell of stage i, against the stages before it."""
    begin, end = edges[i - 1], edges[i]
    with np.errstate(all="ignore"):
        taken, bound, a, b, rise = (
            np.float64(sums[name][end] - sums[name][begin]) for name in ("active", "eps_bound", "a", "b", "c_plus")
        )
        rates = np.diff(sums["g2"][edges]) / np.diff(trace.steps[edges])
        typical = [_mean(stepsize[a + 1 : b + 1]) for a, b in pairwise(edges)]
        found = {
            "b/a": b / a,
            "c+/a": rise / a,
            "eps": bound / taken,
            "gradients left": rates[i - 1] / np.fmax.reduce(rates[:i]),
        }
        if i > 1:
            found["gradients fell"] = rates[i - 1] / rates[i - 2]
            found["stepsize left"] = np.float64(typical[i - 1]) / typical[i - 2]
            found["rate left"] = np.float64(_rate(trace, begin, end)) / _rate(trace, edges[i - 2], begin)
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _typical_stepsize(trace: Trace) -> Array:
    """Return the tensors' median stepsizes averaged by size, `(records,)`; a mean would follow dormant coordinates."""
    sizes = np.array([float(tensor.numel) for tensor in trace.tensors])
    medians = trace.column("e_p50")
    known = np.isfinite(medians)
    with np.errstate(all="ignore"):
        return np.asarray(np.where(known, medians, 0.0) @ sizes / (known @ sizes))


def _rate(trace: Trace, begin: int, end: int) -> float:
    """Return the mean learning rate between two records, NaN where there is none."""
    lr = trace.groups.get("lr")
    return math.nan if lr is None else _mean(lr[begin + 1 : end + 1])


def _mean(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _logged(trace: Trace, begin: int, end: int) -> Facts:
    """Return what was logged after record `begin`, up to `end`: of the edge the newest, of number formats the mean.

    The edge moves with the learning rate at once: a mean would be of steps that are no longer taken.
    """
    found: Facts = {}
    for name, key in LOGGED.items():
        scalar = trace.scalars.get(key)
        if scalar is None:
            continue
        places = np.searchsorted(scalar.steps, trace.steps[[begin, end]], side="right")
        totals, counts = (np.append(0.0, series)[places] for series in (scalar.total, scalar.count))
        if counts[1] > counts[0]:
            found[name] = float((totals[1] - totals[0]) / (counts[1] - counts[0]))
            newest = float(scalar.last[places[1] - 1])
            if name == "edge" and math.isfinite(newest):
                found[name] = newest
    return found


def _drift_of_all(trace: Trace) -> Facts:
    drift = trace.drift
    if drift is None or not any(tensor.formula for tensor in trace.tensors):  # nothing is summed without a stepsize
        return {}
    even = np.nansum(np.stack(even_products(trace, drift)), axis=1)
    return _drift(drift, np.nansum(drift.gram_gg, axis=0), even)


def _drift(drift: DriftRecord, pull: Array, even: Array) -> Facts:
    """Return ρ and the slope over the last half of the run, from ⟨g_i, g_j⟩ and the products at an even rate."""
    slope = measure_slope(pull, drift.first_step, drift.last_step)
    dd, dg, gg = even
    return _of_slope(slope) | _of_harm(judge_harm(dd, dg, gg, drift.first_step, drift.last_step))


def _of_slope(slope: Slope | None) -> Facts:
    if slope is None:
        return {}
    found = {"slope": slope.share, "promised": slope.promised, "noise steps": slope.scale}
    return found if slope.told else found | {"hidden": slope.chance}


def _of_harm(harm: Harm) -> Facts:
    """Return ρ where its interval is bounded, or where the steps climb for certain."""
    low, high = harm.interval
    climbs = harm.decision is HarmDecision.HARMFUL
    if not (math.isfinite(low) and math.isfinite(high)) and not climbs:
        return {}
    found = {"rho": harm.rho, "rho low": low, "rho high": high}
    return found | {"climbs": 1.0} if climbs else found


def _past(trace: Trace, begin: int, end: int) -> Facts:
    """Return ρ and the slope of a stage that is past, where they were measured near its end."""
    past = trace.efficiency
    if past is None:
        return {}
    steps = trace.steps[[begin, end]]
    near = np.flatnonzero((past.steps > math.sqrt(steps[0] * steps[1])) & (past.steps <= 1.1 * steps[1]))
    if len(near) == 0:
        return {}
    at = near[-1]
    measured = {"rho": past.rho[at], "rho low": past.low[at], "rho high": past.high[at]}
    if past.slope is not None:
        measured["slope"] = past.slope[at]
    return {name: float(value) for name, value in measured.items() if math.isfinite(value)}
