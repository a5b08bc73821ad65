"""The glance: between proofs, the step of a whole parameter group is handed to the sums by its addresses alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .stepsizes import Reader
from .watcher import FAILURES, Watcher

NO_STATE: Mapping[str, Any] = {}


def glance(
    watchers: Sequence[Watcher],
    reader: Reader,
    group: Mapping[str, Any],
    states: Mapping[torch.Tensor, Mapping[str, Any]],
    step: int,
) -> Sequence[Watcher]:
    """Point the sums at each tensor's second moment and gradient; return the watchers that need a closer look.

    These are the tensors that took no step, or not the one after the last, or not the same as the rest of the group;
    and those whose second moment or gradient has to be computed, or may not be read where it lies.
    """
    stored = None if group.get("maximize") else reader.stored(group)
    if stored is None:
        return watchers
    left: list[Watcher] = []
    common = now = None
    for w in watchers:
        gradient, state = w.view.param.grad, states.get(w.view.param, NO_STATE)
        counter = state.get("step")
        count = step if counter is None else float(counter)
        follows = counter is None or count - 1 == w.counted
        if gradient is None or w.reader is None or not follows or (stored and stored not in state):
            left.append(w)
            continue
        if now is None:
            w.view.group, w.view.state, w.view.step = group, state, float(count)
            try:
                now, common = reader.coefficients(w.view), count
            except FAILURES:
                return watchers
        if count == common and w.accumulator.point(state.get(stored) if stored else None, gradient, now):
            w.counted = None if counter is None else count
        else:
            left.append(w)
    return left
