"""The glance: between proofs, the step of a whole parameter group is handed to the sums by its addresses alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .stepsizes import Reader
from .watcher import FAILURES, Watcher, kept_as

NO_STATE: Mapping[str, Any] = {}


def glance(
    watchers: Sequence[Watcher],
    reader: Reader,
    group: Mapping[str, Any],
    states: Mapping[torch.Tensor, Mapping[str, Any]],
    step: int,
) -> Sequence[Watcher]:
    """Point the sums at each tensor's second moment and gradient; return the watchers that need a closer look.

    These are the tensors that took no step, or not the one after the last; and those whose second moment or gradient
    has to be computed, or may not be read where it lies.
    """
    stored = kept_as(reader, group)
    if stored is None:
        return watchers
    left: list[Watcher] = []
    rules: dict[float, bytes] = {}
    for w in watchers:
        view = w.view
        gradient, state = view.param.grad, states.get(view.param, NO_STATE)
        # A counter on an accelerator is not read: that would make the host wait.
        if gradient is None or not gradient.is_cpu or w.reader is None or (stored and stored not in state):
            left.append(w)
            continue
        counter = state.get("step")
        count = float(step) if counter is None else w.read(counter)
        if counter is not None and count - 1 != w.counted:
            left.append(w)
            continue
        if count not in rules:
            view.group, view.state, view.step = group, state, count
            try:
                rules[count] = reader.coefficients(view).packed()
            except FAILURES:
                return watchers
        if w.accumulator.point(state[stored] if stored else None, gradient, rules[count]):
            w.counted = None if counter is None else count
        else:
            left.append(w)
    return left
