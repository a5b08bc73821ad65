"""What a narrow number format holds fast: second moments that cannot decay or are 0, steps that change no weight.

Between powers of two the numbers of a format lie eps·2^k apart (eps is 2⁻⁷ for bfloat16, 2⁻¹⁰ for float16), and v·β2 is
rounded to the nearest. It rounds back to v, for every v, as long as 1 - β2 < eps/4; such a v can only grow. bfloat16
holds every β2 above 0.998 fast. Likewise θ + Δθ rounds back to θ where Δθ is less than half the spacing at θ.
Derived here; measured on torch: in bfloat16 with β2 = 0.999 v does not move in 5000 steps without a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from .sampling import as_numpy
from .stepsizes import Reader, rebuilt_step
from .watcher import FAILURES, NOTHING, Watcher

Shares = dict[str, float]
States = Mapping[torch.Tensor, Mapping[str, Any]]

MOMENTS = ("exp_avg_sq", "square_avg")
"""Where optimizers keep a second moment that decays by β2."""


def narrow(dtype: torch.dtype) -> bool:
    """Return whether a format has fewer than 32 bits."""
    return dtype.is_floating_point and torch.finfo(dtype).bits < 32


def cannot_decay(beta2: float, dtype: torch.dtype) -> bool:
    """Return whether β2·v rounds back to v for every v in this format."""
    return 0.0 < 1.0 - beta2 < float(torch.finfo(dtype).eps) / 4


def held_fast(watchers: Sequence[Watcher], states: States) -> Shares:
    """Return the share of all coordinates that number formats hold fast after a step, by the kind of loss.

    Only watched coordinates of tensors in a narrow format are read; empty where there is none.
    """
    lost: Shares = {}
    for w in watchers:
        for name, share in _held_fast(w, states.get(w.param, {})).items():
            lost[name] = lost.get(name, 0.0) + w.coordinates.numel * share
    total = sum(w.coordinates.numel for w in watchers)
    return {name: float(amount / total) for name, amount in lost.items()}


def _held_fast(w: Watcher, state: Mapping[str, Any]) -> Shares:
    """Return what is lost of one tensor."""
    found: Shares = {}
    gradient, reader = w.param.grad, w.reader
    v = next((state[name] for name in MOMENTS if name in state), None)
    if reader is None or gradient is None or gradient.is_sparse or not w.coordinates.watched:
        return found
    with suppress(*FAILURES):
        if v is not None and narrow(v.dtype):
            found["frozen"] = float(cannot_decay(reader.decays(w.view.group)[1], v.dtype))
            found["underflow"] = float(np.mean((w.coordinates.take(v) == 0) & (w.coordinates.take(gradient) != 0)))
        if narrow(w.param.dtype):
            found["swallowed"] = _swallowed(w, reader, gradient)
    return found


def _swallowed(w: Watcher, reader: Reader, gradient: torch.Tensor) -> float:
    """Return the share of the steps that would leave the weight where it is; one more like the last is tried."""
    view = w.view
    theta = w.coordinates.take(w.param)
    view.gradient, view.before = w.descent(gradient), {"theta": theta}
    moved = rebuilt_step(reader, view, reader.coefficients(view), reader.second_moment(view))
    view.gradient, view.before = NOTHING, {}  # as the watcher leaves them
    tried = moved != 0
    rounded = torch.from_numpy(theta + moved).to(w.param.dtype)
    same = as_numpy(rounded) == theta
    return float(same[tried].mean()) if tried.any() else 0.0
