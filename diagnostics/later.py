"""Later: steps of tensors on an accelerator are put off, a row of a ring each, and taken in together, in their order.

Whoever asks an accelerator for a number waits until it has done all that it was told, and the training with it. So a
step leaves there what it is made of: v and g at the watched coordinates, the optimizer's own counters, a loss
scaler's `found_inf`, a rate that is a tensor. What lies on the host is noted beside it. Read later, a step is handed
to the same sums in the same way as any other.

What does not fit goes the way of a step that is looked at closer, after the steps before it were taken in: tensors
whose v or g has to be computed, or is no plain tensor on the one accelerator where all lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from . import fused
from .accumulators import Coefficients
from .entry import Entry, Row
from .glance import NO_STATE
from .recorder import Recorder
from .ring import FEWEST, KINDS, Pick, Ring, places
from .stepsizes import Reader, View
from .watcher import FAILURES, Outcome, Watcher, kept_as

Array = NDArray[np.float64]
Values = NDArray[np.floating]
Settings = dict[str, Any]

ACCELERATORS = ("cuda",)
"""Kinds of device on which steps are put off; tests pretend that the CPU is one."""
ABSENT = -1.0
"""In the place of a count: the tensor had no gradient."""
RARELY = 1024
"""Steps between two layings out, at most, where none has lasted: one costs as much as many steps."""


class Noted(NamedTuple):
    """What the host knows of a step that is put off."""

    reader: Reader
    groups: list[Settings]
    counts: list[float]
    """The count of each tensor's steps, where it can be read or is foreseen; `ABSENT` without a gradient."""
    rules: dict[tuple[int, float], Coefficients]
    """Coefficients by group and count; most tensors of a group share them."""

    def rule(self, w: Watcher, count: float) -> Coefficients:
        """Return the coefficients of a tensor's step of this number."""
        key = w.group, count
        if key not in self.rules:
            self.rules[key] = coefficients(self.reader, w, self.groups[w.group], count)
        return self.rules[key]


class Late(NamedTuple):
    """A step that was handed to the sums: what it did to the tensors, and the rates of the groups."""

    outcomes: set[Outcome]
    rates: list[Any]
    told: list[Watcher]
    """Watchers whose counter jumped, or that read no stepsize any more."""


class Later:
    """The steps of one optimizer that are put off; none are where the tensors lie on no accelerator."""

    def __init__(self, reader: Reader | None) -> None:
        self._reader = reader
        self.device: torch.device | None = None
        """The one accelerator on which all watched tensors lie; None where there is none such."""
        self._watchers: Sequence[Watcher] = ()
        self._entries: list[Entry] = []
        self._ring: Ring | None = None
        self._noted: list[Noted] = []
        self._sent: list[Noted] = []
        """What the host knows of the rows that wait, and of those that are on their way."""
        self._draining = self._astray = self._taken = False
        self._rest = self._pause = 0
        """Steps until laying out is tried again, and those after that; it begins anew where a ring takes two steps."""
        self._stored: dict[int, str | None] = {}
        self._settings: dict[tuple[int, str], torch.dtype] = {}
        """The settings that lie on the accelerator, by group and key; they are picked behind the tensors."""

    @property
    def steps(self) -> int:
        """Calls of `step()` that wait to be taken in; some of them may turn out to have been skipped."""
        return len(self._sent) + len(self._noted)

    @property
    def arrived(self) -> bool:
        """Whether steps that were sent for can be taken in without waiting."""
        return self._ring is not None and self._ring.arrived

    @property
    def _sums_there(self) -> bool:
        """Return whether sums are made as a step is put off: they need to know the rate, and whether it was a step."""
        return self._ring is not None and self._ring.finished > 0

    @property
    def full(self) -> bool:
        """Whether no further step can be put off."""
        return self._ring is None or self._ring.full

    def watch(self, watchers: Sequence[Watcher]) -> None:
        """Put off steps of these tensors, if all lie on one accelerator; nothing may wait from before."""
        self._watchers, self._ring, self._rest, self._pause = watchers, None, 0, 0
        devices = {w.param.device for w in watchers}
        alone = len(devices) == 1 and next(iter(devices)).type in ACCELERATORS
        self.device = devices.pop() if alone and self._reader is not None else None

    def forget(self) -> None:
        """Let go of what waits, after a fault."""
        self._noted, self._sent, self._ring = [], [], None
        self._draining = False

    # --- as a step is taken ----------------------------------------------------------------------------------

    def take(self, optimizer: torch.optim.Optimizer, step: int) -> bool:
        """Put the newest step off; return False where it is not like those that were laid out.

        `step` is its number if none that waits was skipped, for optimizers without a counter.
        """
        ring = self._ring
        if ring is None or ring.full or self._astray or not ring.in_stream():
            return False
        found = getattr(optimizer, "found_inf", None)
        noted = self._note(optimizer, found, step)
        if noted is None:
            return False
        tensors = [*self._picked(), *(noted.groups[g][key] for g, key in self._settings)]
        ring.write([*tensors, self._none if found is None else found], *self._finished(noted))
        self._noted.append(noted)
        if self._taken:
            self._rest = self._pause = 0
        self._taken = True
        return True

    def _note(self, optimizer: torch.optim.Optimizer, found: torch.Tensor | None, step: int) -> Noted | None:
        """Return what the host knows of the step; None where anything does not fit."""
        groups, states, reader = optimizer.param_groups, optimizer.state, self._reader
        if reader is None or any(kept_as(reader, groups[g]) != stored for g, stored in self._stored.items()):
            return None
        if found is not None and (not self._is_number(found, torch.float32) or (self._sums_there and bool(found))):
            return None
        settings = [own for g, group in enumerate(groups) if (own := self._settled(g, group)) is not None]
        if len(settings) < len(groups) or not all(entry.fits(states) for entry in self._entries):
            return None
        if not self.steps:
            for entry in self._entries:
                entry.begin()
        counts = [self._count(entry, step) for entry in self._entries]
        known = [count for count in counts if count is not None]
        return Noted(reader, settings, known, {}) if len(known) == len(counts) else None

    def _settled(self, g: int, group: Mapping[str, Any]) -> Settings | None:
        """Return a group's settings as they are now; None if one lies on the accelerator and is not picked."""
        known: Settings = {}
        for key, value in group.items():
            if isinstance(value, torch.Tensor):
                stays = self._away(value) and not self._sums_there
                if stays and not self._is_number(value, self._settings.get((g, key))):
                    return None
                known[key] = value if stays else float(value)
            elif isinstance(value, tuple) and any(isinstance(part, torch.Tensor) for part in value):
                if any(isinstance(part, torch.Tensor) and self._away(part) for part in value):
                    return None
                known[key] = tuple(map(float, value))
            elif key != "params":
                known[key] = value
        return known

    def _away(self, tensor: torch.Tensor) -> bool:
        """Return whether reading a tensor would make the host wait."""
        return tensor.device == self.device

    def _is_number(self, tensor: torch.Tensor, dtype: torch.dtype | None) -> bool:
        """Return whether a tensor is one number there, of this dtype."""
        return self._away(tensor) and tensor.dtype is dtype and tensor.numel() == 1

    def _count(self, entry: Entry, step: int) -> float | None:
        """Return the count of a tensor's steps; None where its sums are made now and it does not go up by one."""
        if entry.param.grad is None:
            return ABSENT
        if not entry.counts:
            return float(step)
        if "step" not in entry.picks:
            count = float(entry.state["step"])
            return count if not entry.finished or entry.last == count - 1 else None
        return None if entry.last is None and entry.finished else (entry.last or 0.0) + 1

    def _picked(self) -> Iterator[torch.Tensor]:
        """Yield the tensor of each pick; of one without gradient anything, as nobody will read it."""
        for entry in self._entries:
            for name in entry.picks:
                there = {"step": entry.counter, "v": entry.v, "g": entry.param.grad}[name]
                yield entry.param if there is None else there

    def _finished(self, noted: Noted) -> tuple[list[fused.Pair], NDArray[np.float32]]:
        """Return v and g of the tensors whose sums are made now, and what those need of the coefficients."""
        pairs, now, then = [], [], []
        for entry, count in zip(self._entries, noted.counts, strict=True):
            if entry.finished:
                g = entry.param.grad
                pairs.append((entry.param, entry.param) if entry.v is None or g is None else (entry.v, g))
                then.append(entry.then)
                if count != ABSENT:
                    entry.last, entry.then = count, np.array(noted.rule(entry.watcher, count))
                now.append(entry.then)
        shape = len(pairs), len(Coefficients._fields)
        return pairs, fused.scalars(np.reshape(now, shape), np.reshape(then, shape))

    # --- as it is laid out -----------------------------------------------------------------------------------

    def lay_out(self, optimizer: torch.optim.Optimizer) -> bool:
        """Look at all tensors anew, and make a ring for steps like the newest; return whether that can be.

        Where no ring takes a second step, it is tried ever more rarely: what does not fit may never do.
        """
        self._ring, self._settings, self._astray, self._taken = None, {}, False, False
        if self._rest:
            self._rest -= 1
            return False
        self._rest, self._pause = self._pause, min(2 * self._pause or 1, RARELY)
        groups, states, reader, device = optimizer.param_groups, optimizer.state, self._reader, self.device
        if reader is None or device is None:
            return False
        self._stored = {g: kept_as(reader, groups[g]) for g in {w.group for w in self._watchers}}
        if None in self._stored.values() or not all(says_all(reader, w, groups[w.group]) for w in self._watchers):
            return False
        self._entries = [
            Entry(w, states.get(w.param, NO_STATE), self._stored[w.group]) for w in self._watchers if w.size
        ]
        if not all(e.plain(device) and (not e.finished or self._fades(e, groups)) for e in self._entries):
            return False
        finished = sum(entry.finished for entry in self._entries)
        for g, group in enumerate(() if finished else groups):
            there = {key: x for key, x in group.items() if isinstance(x, torch.Tensor) and self._away(x)}
            self._settings |= {(g, key): x.dtype for key, x in there.items()}
        picks, dtypes = self._picks()
        if not {*dtypes} <= {*KINDS}:
            return False
        for entry in self._entries:
            entry.watcher.show(groups[entry.watcher.group], entry.state)  # a record reads its view
        ring = Ring(device, picks, dtypes, finished, kernels(device.type))
        self._ring = ring if ring.rows >= FEWEST else None
        self._none = torch.zeros(1, device=device)
        return self._ring is not None

    def _fades(self, entry: Entry, groups: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether all coordinates of a tensor can be summed where they lie; so without a gradient so far."""
        assert self._reader is not None
        return self._reader.fades(groups[entry.watcher.group]) and (entry.v is None or entry.sums_there())

    def _picks(self) -> tuple[list[Pick], list[torch.dtype]]:
        """Return what a row has of a step, and in which precision that lies there."""
        found: list[tuple[Pick, torch.dtype]] = []
        for entry in self._entries:
            own = entry.watcher.coordinates
            index = own.lead_index if entry.finished else own.index
            size = own.watched if index is None else len(index)
            tensors = {"v": entry.v if entry.stored else None, "g": entry.like}
            for name, tensor in tensors.items():
                if tensor is not None and size:
                    entry.picks[name] = len(found)
                    found.append((Pick(size, places(tensor, index)), tensor.dtype))
            if entry.counter is not None and self._away(entry.counter):
                entry.picks["step"] = len(found)
                found.append((Pick(1), entry.counter.dtype))
        found += [(Pick(1), dtype) for dtype in self._settings.values()]
        found.append((Pick(1), torch.float32))  # found_inf
        return [pick for pick, _ in found], [dtype for _, dtype in found]

    # --- as they are taken in --------------------------------------------------------------------------------

    def send(self) -> None:
        """Have the rows that wait copied to the host; those sent before must have been taken in."""
        assert self._ring is not None
        assert not self._sent
        self._ring.send()
        self._sent, self._noted = self._noted, []

    def drain(self, newest: bool = True) -> Iterator[Late]:
        """Hand the steps that wait to the sums, in order; each is to be added up before the next is asked for.

        Without the `newest` only those that were sent. It does nothing while it is at it: an alert may ask for more.
        """
        if self._draining:
            return
        self._draining = True
        try:
            if self._sent:
                yield from self._received()
            if newest and self._noted:
                self.send()
                yield from self._received()
        finally:
            self._draining = False
            for entry in self._entries:
                entry.row = entry.watcher.recalled = None

    def _received(self) -> Iterator[Late]:
        """Hand over the steps that were sent, waiting for them if need be."""
        ring, sent = self._ring, self._sent
        if ring is None:
            return
        for entry in self._entries:
            entry.watcher.recalled = entry
        sums, numbers = ring.receive()
        address, stride = numbers.ctypes.data, numbers.strides[0]
        self._sent = []
        for k, noted in enumerate(sent):
            yield self._hand_over(noted, sums[k], Row(numbers[k], ring.slices, address + k * stride))

    def settle(self, recorder: Recorder) -> None:
        """Take in what waits where no monitor is left to judge it."""
        for late in () if recorder.closed else self.drain():
            if Outcome.STEPPED in late.outcomes:
                recorder.advance()

    def _hand_over(self, noted: Noted, sums: Array, row: Row) -> Late:
        """Hand one step to the sums."""
        behind = len(row.slices) - 1 - len(self._settings)
        for place, (g, key) in enumerate(self._settings, behind):
            noted.groups[g][key] = float(row.numbers[row.slices[place]][0])
        rates = [settings.get("lr") for settings in noted.groups]
        if row.numbers[row.slices[-1]][0] != 0:  # a loss scaler told the optimizer to leave the parameters alone
            return Late({Outcome.SKIPPED}, rates, [])
        finished = iter(sums)
        outcomes = {
            self._give(entry, noted, count, row, next(finished) if entry.finished else None)
            for entry, count in zip(self._entries, noted.counts, strict=True)
        }
        told = [e.watcher for e in self._entries if e.watcher.jump is not None or e.watcher.trouble is not None]
        return Late(outcomes, rates, told)

    def _give(self, entry: Entry, noted: Noted, foreseen: float, row: Row, sums: Array | None) -> Outcome:
        """Hand one tensor's part of a step to its sums, as `Watcher.after` does; return what the step did to it."""
        w, entry.row = entry.watcher, row
        count = float(row.numbers[row.slices[entry.picks["step"]]][0]) if "step" in entry.picks else foreseen
        if foreseen == ABSENT or (entry.counts and not w.advanced({"step": count})):
            w.accumulator.idle()
            entry.row = None
            return Outcome.ABSENT if foreseen == ABSENT else Outcome.SKIPPED
        if w.reader is None:
            self._astray |= entry.stored is not None  # it was given up on the way: lay out anew
            w.measure_gradient(row.of(entry, "g"))
        elif entry.finished and count != foreseen:  # the sums were made with the corrections of another step
            self._astray = True
            w.accumulator.idle()
            w.accumulator.forget()
        else:
            try:
                hand(entry, row, noted.rule(w, count), sums)
            except FAILURES as problem:
                w.give_up(f"its state does not fit the formula: {type(problem).__name__}: {problem}")
        return Outcome.STEPPED


def hand(entry: Entry, row: Row, rule: Coefficients, sums: Array | None) -> None:
    """Let a tensor's sums take v and g from a row; or the `sums` that were made there."""
    take = entry.watcher.accumulator
    if sums is not None:
        take.finish(sums, row.of(entry, "v"), row.of(entry, "g"), rule)
    elif row.numbers.dtype == np.float32:
        take.stay(row.place(entry, "v"), row.place(entry, "g"), rule)
    else:
        take.hold(row.of(entry, "v"), row.of(entry, "g"), rule)


def coefficients(reader: Reader, w: Watcher, settings: Mapping[str, Any], count: float) -> Coefficients:
    """Return the coefficients of a step from its settings and number alone."""
    view = View(w.param, w.coordinates)
    view.group, view.step = settings, count
    return reader.coefficients(view)


def says_all(reader: Reader, w: Watcher, group: Mapping[str, Any]) -> bool:
    """Return whether a reader tells the coefficients from the settings and the number of a step alone."""
    try:
        coefficients(reader, w, group, 1.0)
    except FAILURES:
        return False
    return True


@cache
def kernels(kind: str) -> ModuleType | None:
    """Return the module of the Triton kernels, None where they do not run on this kind of device."""
    if kind != "cuda":
        return None
    try:
        from . import fused_triton

        fused_triton.try_out(torch.device(kind))
    except Exception:  # no Triton, or no compiler for it
        return None
    return fused_triton
