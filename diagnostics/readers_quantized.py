"""Adam with a quantized state: bitsandbytes (8 bit, also paged) and torchao (8 bit, 4 bit, fp8).

The step is made with the averages in full precision, which are then rounded to codes: what the state holds after the
step is not what moved θ. So both are computed again, from what the state held before it and g, where it is watched.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .stepsizes import Adam, Values, View

BLOCK = 256
"""bitsandbytes scales so many codes in a row by one number."""


class Quantized(Adam):
    """Adam's formula on averages that were made from quantized ones."""

    has_edge = False
    formula = "e = lr/(1-β1^t) / (sqrt(v)/sqrt(1-β2^t) + eps), on m; m and v before they were rounded to codes"

    def __init__(self, *, decoupled: bool) -> None:
        self.decay_is_decoupled = decoupled

    @abstractmethod
    def averages(self, view: View) -> dict[str, Values]:
        """Return "m" and "v", and "max" with amsgrad, as the state holds them; empty before the first step."""

    def looks_ahead(self, group: Mapping[str, Any]) -> bool:
        """Return that every step rounds anew."""
        return True

    def remember(self, view: View, proving: bool) -> None:
        """Note the averages."""
        view.before |= self.averages(view)

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that v has to be computed."""
        return None

    def second_moment(self, view: View) -> Values:
        """Return v before it was rounded, or its running maximum."""
        beta2, one = view.beta(1), np.float32(1)
        v: Values = view.before.get("v", 0.0) * (one * beta2) + (one * (1 - beta2)) * np.square(view.gradient)
        return np.maximum(view.before.get("max", 0.0), v) if view.group.get("amsgrad") else v

    def direction(self, view: View) -> Values:
        """Return the momentum before it was rounded."""
        beta1 = view.beta(0)
        momentum: Values = view.before.get("m", 0.0) * beta1 + (1 - beta1) * view.gradient
        return momentum


class BitsAndBytes(Quantized):
    """The Adams of bitsandbytes: small tensors, and all with `optim_bits=32`, have a state of plain numbers."""

    def __init__(self) -> None:
        super().__init__(decoupled=True)  # also the one that is called Adam

    def averages(self, view: View) -> dict[str, Values]:
        """Return what the codes stand for: qmap[code]·absmax of the block."""
        return {"m": decoded(view, 1), "v": decoded(view, 2)} if "state2" in view.state else {}


def decoded(view: View, which: int) -> Values:
    """Return the watched coordinates of `state1` or `state2`."""
    codes, qmap = view.take(f"state{which}"), view.state.get(f"qmap{which}")
    if qmap is None:
        return codes.copy()
    index = view.coordinates.index
    block = (np.arange(view.coordinates.numel) if index is None else index) // BLOCK
    scales = view.state[f"absmax{which}"].cpu().numpy()
    values: Values = qmap.cpu().numpy()[codes.astype(np.int64)] * scales[block]
    return values


class TorchAO(Quantized):
    """The Adams of torchao, whose state tensors know how to dequantize themselves."""

    def averages(self, view: View) -> dict[str, Values]:
        """Return the states as numbers."""
        names = {"m": "exp_avg", "v": "exp_avg_sq", "max": "max_exp_avg_sq"}
        return {
            short: view.coordinates.take(dequantized(view.state[name])).copy()
            for short, name in names.items()
            if name in view.state
        }


def dequantized(tensor: torch.Tensor) -> torch.Tensor:
    """Return a state tensor's numbers; small tensors are kept plain."""
    return tensor if type(tensor) is torch.Tensor else tensor.dequantize()
