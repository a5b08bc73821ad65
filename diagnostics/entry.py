"""Entry: one tensor whose steps are put off, with what of it must stay as it was, and its numbers in a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .accumulators import Coefficients
from .glance import NO_STATE
from .ring import KINDS, dense
from .watcher import Watcher

Array = NDArray[np.float64]
Values = NDArray[np.floating]

NARROW = (torch.float32, torch.bfloat16, torch.float16)
"""Gradients that a second moment of float32 may have, of which all coordinates are summed where they lie."""


class Entry:
    """A tensor whose steps are put off: what of it must stay as it was, and where its numbers stand in a row."""

    def __init__(self, watcher: Watcher, state: Mapping[str, Any], stored: str | None) -> None:
        self.watcher, self.param, self.state = watcher, watcher.param, state
        self.stored = stored if watcher.reader else None
        """The entry of the state that is v, "" where v is one, None where no stepsize is read."""
        self.v: torch.Tensor | None = state.get(self.stored) if self.stored else None
        self.counts, self.counter = "step" in state, clock(state)
        self.address = 0 if self.v is None else self.v.data_ptr()
        self.like = self.param if self.param.grad is None else self.param.grad
        self.stride, self.dtype = self.like.stride(), self.like.dtype
        self.finished = watcher.reader is not None and not watcher.rooted
        """Whether its sums are made on the accelerator, and only the members of the harm test are picked."""
        self.picks: dict[str, int] = {}
        """Which pick of a row holds "v", "g" and "step"; without "step" the host reads the counter."""
        self.row: Row | None = None
        """The numbers of the step that is being taken in; None where the tensor had no gradient."""
        self.last: float | None = None
        self.then: Array = np.zeros(len(Coefficients._fields))
        """The count and the coefficients of the newest step, whether or not it was put off."""

    def begin(self) -> None:
        """Go on from what the sums know, where no step waits."""
        self.last, self.then = self.watcher.counted, self.watcher.accumulator.then.copy()

    def members(self, name: str) -> Values | None:
        """Return "v" or "g" of the members of the harm test in the step that is being taken in."""
        if self.row is None:
            return None
        picked = self.row.of(self, name)
        return picked if self.finished else picked[self.watcher.coordinates.lead_index]

    def plain(self, device: torch.device) -> bool:
        """Return whether what is to be picked is plain, dense and on the device."""
        found = [x for x in (self.param.grad, self.v) if x is not None]
        if is_traceable_wrapper_subclass(self.param) or any(type(x) is not torch.Tensor for x in found):
            return False
        if self.param.grad is not None and self.stored and self.v is None:
            return False
        size = self.watcher.size
        return all(
            x.layout is torch.strided and x.device == device and x.dtype in KINDS and x.numel() == size and dense(x)
            for x in (self.param, *found)
        )

    def sums_there(self) -> bool:
        """Return whether all its coordinates can be summed where they lie."""
        v = self.v
        return v is not None and v.dtype is torch.float32 and self.dtype in NARROW and v.stride() == self.stride

    def fits(self, states: Mapping[torch.Tensor, Mapping[str, Any]]) -> bool:
        """Return whether nothing of the tensor has changed but its numbers."""
        g, v, state, param = self.param.grad, self.v, self.state, self.param
        if (
            states.get(param, NO_STATE) is not state
            or clock(state) is not self.counter
            or ("step" in state) is not self.counts
            or param.numel() != self.watcher.size
            or (v is not None and (state[str(self.stored)] is not v or v.data_ptr() != self.address))
        ):
            return False
        return g is None or (
            type(g) is torch.Tensor
            and g.layout is torch.strided
            and g.device == param.device
            and g.dtype is self.dtype
            and g.shape == param.shape
            and g.stride() == self.stride
            and (v is not None or not self.stored)
        )


class Row(NamedTuple):
    """The numbers of one step as they lie on the host."""

    numbers: Values
    slices: list[slice]
    address: int

    def of(self, entry: Entry, name: str) -> Values:
        """Return what was picked of a tensor in its own precision; what is not picked is one."""
        if name not in entry.picks:
            return np.ones(entry.watcher.coordinates.watched)
        dtype = entry.v.dtype if name == "v" and entry.v is not None else entry.dtype
        return narrowed(self.numbers[self.slices[entry.picks[name]]], dtype)

    def place(self, entry: Entry, name: str) -> int:
        """Return the address of what was picked of a tensor; 0 for what is not."""
        if name not in entry.picks:
            return 0
        begin: int = self.slices[entry.picks[name]].start
        return self.address + self.numbers.itemsize * begin


def clock(state: Mapping[str, Any]) -> torch.Tensor | None:
    """Return the counter of a state if it is a tensor, which stays the same from step to step."""
    counter = state.get("step")
    return counter if isinstance(counter, torch.Tensor) else None


def narrowed(numbers: Values, dtype: torch.dtype) -> Values:
    """Return picked numbers in the precision that they have: float64, or float32 also for what is narrower."""
    kind = np.float64 if dtype is torch.float64 else np.float32
    return numbers.astype(kind, copy=False)
