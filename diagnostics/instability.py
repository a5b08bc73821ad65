"""Tell whether a run broke: non-finite at its end, or stepsizes and updates that blow up together."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .conditions import MIN_BLOCKS, block_edges
from .trace import Trace
from .trends import theil_sen

Array = NDArray[np.float64]

BLOW_UP = 10.0  # both stepsize and update at least tenfold over the window, and …
BLOW_UP_SLOPE = 0.5  # … like a power of t, not by one late spike


def broken(trace: Trace, start: int) -> tuple[str, tuple[str, ...]] | None:
    """Return how the run broke and in which tensors, or None.

    A non-finite gradient that the parameters survived is no break. Sitting beyond the edge of stability is
    one, but telling so needs curvature, which a trace does not hold.
    """
    if len(trace.steps) == 0:
        return None
    last = int(trace.steps[-1])
    if names := trace_names(trace, _nonfinite_at_the_end(trace)):
        return f"Parameters, updates or stepsizes are not finite at step {last}.", names
    loss = trace.scalars.get("loss")
    if loss is not None and len(loss.last) and not math.isfinite(loss.last[-1]):
        return f"The logged loss is {loss.last[-1]} at step {loss.steps[-1]}.", ()
    if names := trace_names(trace, _blowing_up(trace, start)):
        return f"Stepsizes and updates both grew more than {BLOW_UP:g}-fold, like a power of t.", names
    return None


def trace_names(trace: Trace, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    """Return the names of the chosen tensors."""
    return tuple(tensor.name for tensor, keep in zip(trace.tensors, chosen, strict=True) if keep)


def _nonfinite_at_the_end(trace: Trace) -> NDArray[np.bool_]:
    """Return which tensors end non-finite.

    Stepsizes count only if coordinates are still stepping, and NaN among them, which also stands for "has none", only
    where a finite number stood before. The size of the newest update is not always measured, so its NaN says nothing.
    """
    stepped = np.nan_to_num(trace.column("steps")[-1]) > 0
    nonempty = np.array([tensor.numel > 0 for tensor in trace.tensors], dtype=bool)
    active = np.diff(np.nan_to_num(trace.column("active")), axis=0, prepend=0.0)[-1] > 0
    bad = ~np.isfinite(trace.column("weight_rms")[-1]) & stepped
    bad |= np.isinf(trace.column("update_rms")[-1]) & stepped
    for name in ("e_p50", "e_max"):
        column = trace.column(name)
        lost = np.isinf(column[-1]) | (np.isnan(column[-1]) & np.isfinite(column).any(axis=0))
        bad |= lost & stepped & active
    return np.asarray(bad & nonempty)


def _blowing_up(trace: Trace, start: int) -> NDArray[np.bool_]:
    """Return the tensors whose median stepsize and update size both grow like a power of t.

    The median stepsize alone also grows in healthy runs, where gradients fade and v with them; the update
    then stays at the learning rate. The largest stepsize is not used: one dead coordinate sends it to lr/eps.
    """
    index = block_edges(trace.steps, start)
    if len(index) <= MIN_BLOCKS:
        return np.zeros(len(trace.tensors), dtype=bool)
    grows = [
        [_grows_like_a_power(trace.steps, series, index) for series in trace.column(name).T]
        for name in ("e_p50", "update_rms")
    ]
    return np.asarray(np.all(np.array(grows, dtype=bool), axis=0))


def _grows_like_a_power(steps: NDArray[np.int64], values: Array, index: NDArray[np.intp]) -> bool:
    """Tell it from the median of each block, so that single spikes do not count."""
    typical = np.array([np.median(values[i + 1 : j + 1]) for i, j in pairwise(index)])
    edges = steps[index].astype(np.float64)
    usable = np.isfinite(typical) & (typical > 0)
    if usable.sum() < MIN_BLOCKS:
        return False
    typical, t = typical[usable], np.sqrt(edges[1:] * edges[:-1])[usable]
    if typical[-1] < BLOW_UP * typical[0]:
        return False
    slope, low, _ = theil_sen(np.log(t), np.log(typical))
    return slope >= BLOW_UP_SLOPE and low > 0
