"""The schedule taken out of what is judged, so that only what the optimizer itself makes of the stepsizes is left.

A schedule is a plan and no chance: its fall is no scatter of the steps, and no reason why a stops growing.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .drift import cross_mean
from .trace import DriftRecord, Trace

Array = NDArray[np.float64]


def even_products(trace: Trace, drift: DriftRecord) -> tuple[Array, Array, Array]:
    """Return ⟨d_i, d_j⟩, ⟨d_i, g_j⟩, ⟨g_i, g_j⟩ per tensor, `(tensors, k, k)`, with its group's schedule taken out."""
    rates = stretch_rates(trace, drift.first_step, drift.last_step, drift.gram_dd.shape[-1])
    even = np.stack([drift.gram_dd, drift.gram_dg, drift.gram_gg])
    groups = np.array([tensor.group for tensor in trace.tensors[: even.shape[1]]])  # one of late has no products yet
    for group in np.flatnonzero((rates > 0).all(axis=0)):
        own = groups == group
        dd, dg, gg = even[:, own]
        even[:, own] = leveled(dd, dg, gg, rates[:, group])
    return even[0], even[1], even[2]


def even_total(trace: Trace, grams: Array, first_step: int, last_step: int) -> Array:
    """Return ⟨d_i, d_j⟩, ⟨d_i, g_j⟩, ⟨g_i, g_j⟩ of all tensors together, `(3, k, k)`, with the schedule taken out.

    As they are where the groups' rates do not go in step.
    """
    rates = stretch_rates(trace, first_step, last_step, grams.shape[-1])
    with np.errstate(all="ignore"):
        shares = rates / rates.mean(axis=0)
    in_step = rates.shape[1] > 0 and bool((rates > 0).all()) and np.allclose(shares, shares[:, :1], rtol=1e-6)
    return np.stack(leveled(grams[0], grams[1], grams[2], rates[:, 0])) if in_step else grams


def stretch_rates(trace: Trace, first_step: int, last_step: int, k: int) -> Array:
    """Return the mean learning rate over each of the k stretches of the harm test, `(k, groups)`; nan if not known."""
    lr = trace.groups.get("lr")
    if lr is None:
        return np.empty((k, 0))
    steps = trace.steps.astype(np.float64)
    edges = np.linspace(first_step - 1.0, last_step, k + 1)
    area = np.concatenate([np.zeros((1, lr.shape[1])), np.diff(steps)[:, None] * (lr[1:] + lr[:-1]) / 2]).cumsum(axis=0)
    return np.stack([np.diff(np.interp(edges, steps, column)) for column in area.T], axis=1) / np.diff(edges)[:, None]


def leveled(gram_dd: Array, gram_dg: Array, gram_gg: Array, rates: Array) -> tuple[Array, Array, Array]:
    """Return the `(…, k, k)` products that the steps would have had at an even learning rate; `rates` are the k means.

    With s_i the rate of stretch i over their mean, d_i and the diagonal of ⟨d_i, g_j⟩ hold a factor s_i, and ē without
    stretches i and j one of (k - s_i - s_j)/(k - 2). That ē still gives its stretches the schedule's weights; so the
    level of ⟨g_i, g_j⟩ is set to that of the diagonal of ⟨d_i, g_j⟩, in which each stretch's stepsizes stand alone.
    """
    k, s = len(rates), rates / rates.mean()
    even, each = gram_dg / s[:, None], np.arange(k)
    pull = gram_gg * (k - 2) / (k - s[:, None] - s)
    pull += (even[..., each, each].mean(axis=-1) - cross_mean(pull))[..., None, None]
    pull[..., each, each] = gram_gg[..., each, each]
    return gram_dd / np.outer(s, s), even, pull


def pace(lr: Array) -> Array:
    """Return the learning rate over its peak at each record, `(records,)`, the mean over the groups that have one."""
    known = lr[:, np.isfinite(lr).all(axis=0) & (np.nan_to_num(lr).max(axis=0) > 0)]
    return np.asarray((known / known.max(axis=0)).mean(axis=1)) if known.shape[1] else np.full(len(lr), math.nan)


def at_an_even_rate(a: Array, share: Array) -> Array:
    """Return the cumulative a that the same second moments would have had without the schedule `share`."""
    level = (share + np.append(share[0], share[:-1])) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.cumsum(np.where(level > 0, np.diff(a, prepend=0.0) / level, 0.0)))
