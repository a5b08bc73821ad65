"""The glance: between proofs, the step of a whole parameter group is handed to the sums by its addresses alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch

from .pieces import is_dtensor, local, reduced
from .stepsizes import Reader
from .watcher import FAILURES, Watcher, at_hand, kept_as

PLAIN = bool, int, float, str, type(None)
"""Settings that can be compared. A tensor or an array can change in place, and has no truth."""
NO_STATE: Mapping[str, Any] = {}


class Entry(NamedTuple):
    """A tensor on a route, and what of it must stay as it was."""

    param: torch.Tensor
    state: Mapping[str, Any]
    v: torch.Tensor | None
    place: Callable[[], int]
    """Says where v lies."""
    v_address: int
    dtype: torch.dtype
    numel: int
    row: int
    watcher: Watcher
    held: object
    """The memory of the counter, which compiled code reads wherever the optimizer's may have gone."""

    def gradient(self, stored: str) -> int:
        """Return where the gradient lies; 0 if it, or the second moment, is not what compiled code expects."""
        param, state, v, place, v_address, dtype, numel, _, _, _ = self
        g = param.grad
        if (
            type(g) is torch.Tensor
            and g.dtype is dtype
            and g.layout is torch.strided
            and g.is_cpu
            and g.numel() == numel
            and g.is_contiguous()
            and state.get(stored) is v
            and place() == v_address
        ):
            return g.data_ptr()
        return 0

    def take_back(self, count: float) -> Watcher:
        """Let no job stand without a route; return the watcher, whose newest step taken is number `count`."""
        self.watcher.accumulator.withdraw()
        if self.watcher.route is not None:
            self.watcher.counted = count
        return self.watcher


class Route:
    """Tensors of one group and one count of steps, whose second moments and counters lie where they lay."""

    def __init__(self, count: float, entries: list[Entry]) -> None:
        self.count, self.entries = count, entries

    def follow(self, gradients: memoryview, stored: str) -> Sequence[Watcher]:
        """Note where each tensor's gradient lies; strike and return the tensors of which anything has changed.

        `gradients` has an address per tensor. Whether the counters advance is left to the compiled call. The
        coefficients of all are kept with the first, so all go with it.
        """
        self.count += 1.0
        changed = []
        for entry in self.entries:
            address = entry.gradient(stored)
            gradients[entry.row] = address
            if not address:
                changed.append(entry)
        return self._strike(changed) if changed else ()

    def _strike(self, changed: list[Entry]) -> Sequence[Watcher]:
        if changed[0] is self.entries[0]:
            changed = self.entries
        gone = {id(entry) for entry in changed}
        self.entries = [entry for entry in self.entries if id(entry) not in gone]
        return [entry.take_back(self.count - 1.0) for entry in changed]


class Glance:
    """One group's tensors: those on a route, and those that are looked at one by one."""

    def __init__(self, watchers: list[Watcher], reader: Reader) -> None:
        self.watchers, self._reader = watchers, reader
        self._routes: list[Route] = []
        self._loose = list(watchers)
        self._stored: str | None = None
        self._entries = 0
        self._settings: Callable[[Mapping[str, Any]], Any] = unlike
        self._settled: Any = None

    def step(
        self,
        group: Mapping[str, Any],
        states: Mapping[torch.Tensor, Mapping[str, Any]],
        step: int,
        gradients: memoryview,
    ) -> Sequence[Watcher]:
        """Point the sums at each tensor's second moment and gradient; return the watchers that need a closer look.

        These are the tensors that took no step, or not the one after the last; and those whose second moment or
        gradient has to be computed, or may not be read where it lies.
        """
        try:
            same = self._settings(group) == self._settled
        except LookupError:  # a setting is gone
            same = False
        if not same or len(group) != self._entries:
            self._settle(group)
        stored = self._stored
        if stored is None:
            return self.watchers
        for route in self._routes:
            self._loose += route.follow(gradients, stored)
            if route.entries:
                first = route.entries[0]
                rule = self._rule(first.watcher, group, first.state, route.count)
                if rule is None:
                    self.dissolve()
                    return self.watchers
                first.watcher.accumulator.renew(rule)
        return self._look(group, states, step, stored) if self._loose else ()

    def _settle(self, group: Mapping[str, Any]) -> None:
        """Ask the reader where v is kept. It is asked again when a setting other than the rate has changed."""
        keys = [key for key in group if key not in ("params", "lr")]
        comparable = keys and all(isinstance(each, PLAIN) for key in keys for each in listed(group[key]))
        self._entries, self._settings = len(group), itemgetter(*keys) if comparable else unlike
        self._settled = self._settings(group)
        stored = kept_as(self._reader, group)
        if stored != self._stored:
            self.dissolve()
            self._stored = stored

    def dissolve(self) -> None:
        """Look at every tensor anew."""
        for route in self._routes:
            for entry in route.entries:
                entry.take_back(entry.watcher.accumulator.count)
        self._routes, self._loose = [], list(self.watchers)

    def _look(
        self,
        group: Mapping[str, Any],
        states: Mapping[torch.Tensor, Mapping[str, Any]],
        step: int,
        stored: str,
    ) -> Sequence[Watcher]:
        """Look at the loose tensors one by one, and put on a route what can go on one."""
        left: list[Watcher] = []
        seen: dict[float, list[Watcher]] = {}
        rules: dict[float, bytes] = {}
        for w in self._loose:
            gradient, state = w.param.grad, states.get(w.param, NO_STATE)
            # A counter on an accelerator is not read: that would make the host wait.
            if gradient is None or not gradient.is_cpu or w.reader is None or (stored and stored not in state):
                left.append(w)
                continue
            if not reduced(w.param) or (not w.rooted and not self._reader.fades(group)):
                left.append(w)
                continue
            counter = state.get("step")
            count = float(step if counter is None else counter)
            if counter is not None and count - 1 != w.counted:
                left.append(w)
                continue
            if count not in rules:
                rule = self._rule(w, group, state, count)
                if rule is None:
                    self.dissolve()
                    return self.watchers
                rules[count] = rule
            if w.accumulator.point(local(state[stored]) if stored else None, local(gradient), rules[count]):
                w.counted = None if counter is None else count
                seen.setdefault(count, []).append(w)
            else:
                left.append(w)
        self._loose = list(left)
        for count, watchers in seen.items():
            self._set_out(count, watchers, states, stored)
        return left

    def _set_out(
        self,
        count: float,
        watchers: Sequence[Watcher],
        states: Mapping[torch.Tensor, Mapping[str, Any]],
        stored: str,
    ) -> None:
        """Put plain tensors on a route whose counter a compiled call can read, or that have no state at all."""
        route = Route(count, [])
        for w in watchers:
            param, state = w.param, states.get(w.param, NO_STATE)
            v, counter = state.get(stored), state.get("step")
            if is_dtensor(param) or (stored and counter is None) or not (counter is None or is_clock(counter)):
                self._loose.append(w)
                continue
            dtype, place = (param.dtype, int) if v is None else (v.dtype, v.data_ptr)
            held = None if counter is None else counter.untyped_storage()
            entry = Entry(param, state, v, place, place(), dtype, w.size, w.accumulator.row, w, held)
            route.entries.append(entry)
            w.accumulator.stand(counter, count, route.entries[0].row)
            w.route = None if counter is None else route
        if route.entries:
            self._routes = [route for route in self._routes if route.entries] + [route]

    def _rule(self, w: Watcher, group: Mapping[str, Any], state: Mapping[str, Any], count: float) -> bytes | None:
        """Return the packed coefficients of a step; None where the reader cannot tell them."""
        if w.view.group is not group or w.view.state is not state:
            w.show(group, state)
        w.view.step = count
        try:
            return self._reader.coefficients(w.view).packed()
        except FAILURES:
            return None


def listed(setting: Any) -> Sequence[Any]:
    """Return the members of a setting such as a pair of betas, or the setting alone."""
    return setting if isinstance(setting, tuple) else (setting,)


def unlike(_: Mapping[str, Any]) -> object:
    """Return what equals nothing else."""
    return object()


def is_clock(counter: Any) -> bool:
    """Return whether compiled code can read a counter: one number of float32 or float64 in this process's memory."""
    return at_hand(counter) and counter.numel() == 1
