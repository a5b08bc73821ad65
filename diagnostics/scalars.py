"""Scalars: the newest numbers of a run as a flat dictionary, for whatever tool draws curves of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .recorder import Recorder
from .trace import SUMS, Array
from .watcher import Watcher

A, B, C_PLUS, RMS2, STEPS = (SUMS.index(name) for name in ("a", "b", "c_plus", "rms2", "steps"))


def scalars(recorder: Recorder, rates: Sequence[float]) -> dict[str, float]:
    """Return the newest numbers by name, as docs/logging.md lists them; what is not measured is left out.

    `rates` are the learning rates of the newest step, one a parameter group.
    """
    found = {f"lr/{group}": rate for group, rate in enumerate(rates)}
    found |= totals(recorder)
    for watcher, newest in zip(recorder.watchers, recorder.accumulators.last, strict=True):
        found |= of_tensor(watcher, newest)
    return {name: float(value) for name, value in found.items() if not math.isnan(value)}


def totals(recorder: Recorder) -> dict[str, float]:
    """Return a, b/a and c_plus/a of the whole run, over all tensors whose stepsize is read to the end."""
    scale = np.array([w.coordinates.scale for w in recorder.watchers])
    a, b, c_plus = (float(np.nansum(scale * recorder.accumulators.sums[:, column])) for column in (A, B, C_PLUS))
    if a <= 0:
        return {}
    return {"total/a": a, "total/b_over_a": b / a, "total/c_plus_over_a": c_plus / a}


def of_tensor(watcher: Watcher, newest: Array) -> dict[str, float]:
    """Return the numbers of one tensor, `newest` being its sums of the newest step; NaN where it has none."""
    _, p1, p50, p99, _ = watcher.quantiles()
    quantiles = {"p1": p1, "p50": p50, "p99": p99}
    found = {f"stepsize/{watcher.name}/{name}": e for name, e in quantiles.items()}
    if watcher.gauges and newest[STEPS]:
        found[f"rms/{watcher.name}"] = math.sqrt(newest[RMS2])
    weight = float(np.linalg.norm(watcher.after_step.astype(np.float64)))
    if weight > 0:
        _, update_rms, _ = watcher.update
        found[f"update_ratio/{watcher.name}"] = update_rms * math.sqrt(len(watcher.after_step)) / weight
    return found
