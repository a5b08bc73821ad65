"""One watched tensor: what is noted before a step, measured after it, and proved about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from .accumulators import Accumulator, Coefficients
from .pieces import is_dtensor, local, reduced
from .sampling import NO_INDEX, NUMPY_DTYPES, Coordinates
from .snapshot import ENTRIES, LEVELS, QUANTILES, SQUARE, snapshot
from .stepsizes import Reader, Unreadable, Values, View, rebuilt_step, stepsize
from .trace import ERRORS, INSTANTS, SUMS, TensorInfo

Array = NDArray[np.float64]

TOLERANCE = 1e-5
"""Relative error of the rebuilt step that the self-check accepts, beside the rounding of θ itself."""

LOOSEST = 0.01
"""Relative error of a stepsize beyond which it is none, whoever made it."""

FAILURES = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError)
"""What a reader raises on a state or a group that it was not written for."""

ENOUGH = 2**15
"""Watched coordinates of a run up to which instruments look at all; of more, at the members of the harm test."""

NOTHING: Values = np.empty(0)
G2, STEPS, NONFINITE = SUMS.index("g2"), SUMS.index("steps"), SUMS.index("nonfinite")


def few(watchers: Sequence[Watcher]) -> bool:
    """Return whether instruments look at all coordinates that are proved, which are those watched or a sample."""
    return sum(w.proved.watched for w in watchers) <= ENOUGH


class Outcome(Enum):
    """What a call of the optimizer did to one tensor."""

    STEPPED = "stepped"
    ABSENT = "no gradient"
    SKIPPED = "skipped"


def kept_as(reader: Reader, group: Mapping[str, Any]) -> str | None:
    """Return the state entry that is v, "" where v is one; None where v or g has to be computed, or nobody can say."""
    try:
        closer = group.get("maximize") or group.get("differentiable") or reader.looks_ahead(group)
        return None if closer else reader.stored(group)
    except FAILURES:
        return None


def settled(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a group whose settings belong to no graph: with `differentiable` they may themselves be learned."""
    return {key: detached(value) for key, value in group.items()} if group.get("differentiable") else group


def detached(setting: Any) -> Any:
    """Return a setting, or a tuple of them, without its graph."""
    if isinstance(setting, tuple):
        return tuple(map(detached, setting))
    return setting.detach() if isinstance(setting, torch.Tensor) else setting


def plain(tensor: Any) -> bool:
    """Return whether a tensor is one of numbers that numpy knows, in whatever order and wherever it lies."""
    known = type(tensor) is torch.Tensor and tensor.dtype in NUMPY_DTYPES
    return known and bool(tensor.layout is torch.strided)


def at_hand(tensor: Any) -> bool:
    """Return whether a tensor's numbers lie in memory as numpy knows them, in whatever order."""
    return plain(tensor) and bool(tensor.is_cpu)


def plain_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy that lies in one piece."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


class Counts(Protocol):
    """What knows how many steps tensors have taken."""

    count: float


class Recalled(Protocol):
    """What knows a step that is not the newest one."""

    def members(self, name: str) -> Values | None:
        """Return "v" or "g" of the members of the harm test, None where there was no gradient."""


class Watcher:
    """Reads one parameter after every step. `trouble` explains why no stepsize is read, once it is not."""

    def __init__(
        self,
        param: torch.Tensor,
        name: str,
        group: int,
        coordinates: Coordinates,
        reader: Reader | None,
        proved: Coordinates | None = None,
    ) -> None:
        self.name, self.group, self.reader = name, group, reader
        self.coordinates = coordinates
        self.proved = proved or coordinates
        """Those on which the formula is proved, and the step measured."""
        self.accumulator: Accumulator
        """This tensor's row in the sums of all, handed over by their keeper."""
        self.param, self.view = param, View(param, self.proved)
        self.size = local(param).numel()
        self.waits = False
        """Whether others step before this step is added up, so that all must be copied; see `several.py`."""
        self.rooted = proved is None
        """Whether sqrt(v) is kept from step to step; else v before a step is computed, see `fading.py`, all coordinates
        are summed where they lie, and just a sample is proved."""
        self.route: Counts | None = None
        """What counts its steps, while it is on a route."""
        self._counted: float | None = None
        self.jump: float | None = None
        """The counter's value before a step at which it did not advance by one; None after an ordinary step."""
        self.trouble: str | None = None
        self.proof = math.nan
        """Relative error of the newest self-check beyond the rounding of θ; NaN where rounding hides the step."""
        self.update = (-1, math.nan, math.nan)
        """The step at which Δθ was measured, its root mean square, and its cosine with -g."""
        self.after_step: Values = NOTHING
        """The parameter after the newest proof, in its own precision."""
        self.recalled: Recalled | None = None
        """Where a step was put off, and while it is taken in: what knows its v and g. See `later.py`."""

    @property
    def counted(self) -> float | None:
        """The optimizer's own step counter at the newest step; setting it takes the tensor off its route's count."""
        return self._counted if self.route is None else self.route.count

    @counted.setter
    def counted(self, count: float | None) -> None:
        self.route, self._counted = None, count

    @property
    def gauges(self) -> bool:
        """Whether there is an RMS_t."""
        return self.reader is not None and self.reader.gauges_gradient

    def info(self) -> TensorInfo:
        """Return what the record says of this tensor."""
        formula = self.reader.formula if self.reader else None
        own = self.coordinates
        part_of = own.whole if own.whole != own.numel else None
        return TensorInfo(self.name, own.shape, own.numel, own.watched, self.group, formula, part_of)

    def before(self, group: Mapping[str, Any], state: Mapping[str, Any], proving: bool, surveying: bool) -> None:
        """Note what the coming step will overwrite and the reading needs."""
        view = self.view
        view.before = {}
        if not self.intact():
            return
        self.show(group, state)
        if proving or (self.reader and self.reader.adds_decay_to_gradient(group)):
            view.before["theta"] = self.proved.take(self.param).copy()
        if self.reader:
            self.reader.remember(view, proving)
            if surveying and (self.coordinates.index is not None or not self.rooted):
                self.keep_second_moment(self.reader, group, state)

    def show(self, group: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Let the reader see a step; of a DTensor only what lies here, so that nothing that it asks can communicate."""
        view = self.view
        view.group, view.state = settled(group), state
        if is_dtensor(self.param):
            view.param = local(self.param).detach()
            view.param.grad = None if self.param.grad is None else local(self.param.grad)
            view.state = {key: local(entry) for key, entry in state.items()}

    def keep_second_moment(self, reader: Reader, group: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Copy the whole second moment, where one lies in this process's memory, for a survey of all coordinates."""
        stored = kept_as(reader, group)
        if stored and stored not in state:
            self.view.before["survey"] = stored, None
        elif stored and at_hand(local(state[stored])):
            self.view.before["survey"] = stored, plain_copy(local(state[stored]))

    def survey(self, gradient: torch.Tensor, now: Coefficients) -> bool:
        """Sum this step over all coordinates, if the second moment was kept; return whether that can be."""
        stored, before = self.view.before.get("survey", (None, None))
        if stored is None:
            return False
        gradient, moment = local(gradient), local(self.view.state[stored])
        if not at_hand(gradient) or not at_hand(moment):
            return False
        if not self.accumulator.then.any():  # there is no step to compare with
            before = None
        both = moment, gradient
        v, g = (x if self.coordinates.in_place(x) and not self.waits else plain_copy(x) for x in both)
        return self.accumulator.point(v, g, now.packed(), survey=True, before=before)

    def after(self, group: Mapping[str, Any], state: Mapping[str, Any], step: int, proving: bool) -> Outcome:
        """Measure the step just taken; `step` counts for optimizers that keep no counter of their own."""
        view, gradient = self.view, self.param.grad
        absent = gradient is None or not self.intact()
        if absent or not self.advanced(state):
            self.accumulator.idle()
            view.before = {}
            return Outcome.ABSENT if absent else Outcome.SKIPPED
        assert gradient is not None
        self.show(group, state)
        view.step = float(step) if self.counted is None else self.counted
        if self.reader and not view.before and self.reader.looks_ahead(group):  # it was asked to just before this step
            self.accumulator.idle()
            self.accumulator.forget()
            return Outcome.STEPPED
        if not reduced(self.param):
            if self.reader:
                self.give_up(
                    "its gradient is not laid out over the processes as it is itself: none has all of its part"
                )
            self.accumulator.idle()
            return Outcome.STEPPED
        if self.reader:
            try:
                self.measure(self.reader, gradient, proving)
            except Unreadable as why:
                self.give_up(str(why))
            except FAILURES as problem:
                self.give_up(f"its state does not fit the formula: {type(problem).__name__}: {problem}")
        if not self.reader:
            view.gradient = self.descent(gradient)
            self.measure_gradient(self.coordinates.take(gradient))
        if proving:
            self.measure_update(step)
        view.gradient, view.before = NOTHING, {}  # these may be the user's own memory: let go of it
        return Outcome.STEPPED

    def descent(self, gradient: torch.Tensor) -> Values:
        """Return the coordinates that are proved of the gradient of what is minimized."""
        taken = self.proved.take(gradient)
        return -taken if self.view.group.get("maximize") else taken

    def intact(self) -> bool:
        """Return whether the tensor has elements, and as many as when it was first seen."""
        now = local(self.param).numel()
        if now != self.size and self.reader:
            self.give_up(f"it had {self.size} elements and has {now}: another tensor took its place")
        return now == self.size > 0

    def advanced(self, state: Mapping[str, Any]) -> bool:
        """Return whether the optimizer's own counter moved since the last call; note where it jumped."""
        counter = state.get("step")
        if counter is None:
            return True
        now, then = float(counter), self.counted
        self.counted, self.jump = now, None
        if now == 0:  # a scaler refused the very first step
            return False
        if then is None or now == then + 1:
            return True
        if now != then:
            self.jump = then
            self.accumulator.forget()
        return now != then

    def measure(self, reader: Reader, gradient: torch.Tensor, proving: bool) -> None:
        """Read the stepsize, add it to the sums and, where asked, prove it; give the reading up if it fails."""
        view = self.view
        view.gradient = self.descent(gradient)
        if reader.adds_decay_to_gradient(view.group):
            view.gradient = view.gradient + view.number("weight_decay") * view.before["theta"]
        if not self.rooted and not self.gives_back(reader):
            raise Unreadable("its rule, or the precision of its state, does not give back the second moment of before")
        now, v = reader.coefficients(view), reader.second_moment(view)
        touched = self.proved.touched(gradient)
        if touched is not None:
            v = np.where(touched, v, 0.0)
        if proving and (error := self.check(reader, now, v)):
            self.give_up(error)
        elif self.survey(gradient, now):
            return
        elif self.rooted:
            self.accumulator.hold(v, view.gradient, now)
        else:
            self.add_up(reader, gradient, now)

    def add_up(self, reader: Reader, gradient: torch.Tensor, now: Coefficients) -> None:
        """Add this step to the sums over all coordinates, where they lie or, if that cannot be, from copies."""
        moment = local(self.view.state[str(kept_as(reader, self.view.group))])
        gradient = local(gradient)
        if not self.accumulator.point(moment, gradient, now.packed()):
            self.accumulator.hold(self.coordinates.take(moment), self.coordinates.take(gradient), now)

    def gives_back(self, reader: Reader) -> bool:
        """Return whether v before the step can be computed from what the step left."""
        stored = kept_as(reader, self.view.group)
        return reader.fades(self.view.group) and bool(stored) and plain(self.view.state.get(str(stored)))

    def check(self, reader: Reader, now: Coefficients, v: Values) -> str | None:
        """Compare the rebuilt step with Δθ; return the mismatch in words, None where the formula holds.

        Each coordinate of Δθ carries the rounding of θ before and after, half a unit in the last place each, and
        one more where the decay is a step of its own: 2·eps·|θ| bounds it. A coordinate whose second moment came to 0
        while it still moves has underflown: it has no stepsize, here or in the sums.
        """
        before, after = self.view.before["theta"].astype(np.float64), self.theta()
        moved, rebuilt = after - before, rebuilt_step(reader, self.view, now, v)
        underflown = (v == 0) & (reader.direction(self.view) != 0)
        sound = np.isfinite(moved) & np.isfinite(rebuilt) & ~underflown
        unit = torch.finfo(self.param.dtype).eps
        rounding = 2 * unit * float(np.linalg.norm(np.maximum(np.abs(before), np.abs(after))[sound]))
        error = float(np.linalg.norm(moved[sound] - rebuilt[sound]))
        size = float(np.linalg.norm(moved[sound]))
        self.proof = max(0.0, error - rounding) / size if size > rounding else math.nan
        tolerance = TOLERANCE + self.looseness(reader)
        if error <= tolerance * size + rounding:
            return None
        return (
            f"-e·d differs from the step Δθ that was made by {error / max(size, 1e-300):.1e} relative "
            f"(allowed {tolerance:.0e}): something beside the stated formula changes this tensor in `step()`"
        )

    def looseness(self, reader: Reader) -> float:
        """Return what to allow a step that computes its scalars in float32, as torch does wherever Python may not."""
        group = self.view.group
        in_float32 = self.view.compiled or group.get("capturable") or group.get("differentiable")
        return min(reader.looseness(self.view), LOOSEST) if in_float32 else 0.0

    def give_up(self, reason: str) -> None:
        """Stop reading stepsizes here, and say why: no stepsize is better than a wrong one."""
        self.reader, self.trouble = None, reason
        self.accumulator.withdraw()

    def measure_gradient(self, gradient: Values) -> None:
        """Record what a tensor without a stepsize has: its gradient, at the watched coordinates."""
        last = self.accumulator.last
        sound = np.isfinite(gradient)
        last[:] = math.nan
        last[G2] = np.square(gradient[sound], dtype=np.float64).sum()
        last[NONFINITE], last[STEPS] = gradient.size - np.count_nonzero(sound), 1.0

    def measure_update(self, step: int) -> None:
        """Measure size and direction of Δθ; needs the parameter noted before the step.

        Over the watched coordinates of a tensor, with g the gradient that the step was taken at,

            alignment = -⟨Δθ, g⟩ / (‖Δθ‖·‖g‖),

        a cosine: 1 for SGD without momentum, √(1 - β²) for a momentum β that holds nothing but independent noise, 0
        across the gradient, below 0 where the step raises the loss of its own batch. It asks for no readable stepsize.
        """
        self.after_step = self.proved.take(self.param).copy()
        if not len(self.after_step):  # the sample has none of the coordinates that this process holds
            return
        moved, gradient = (
            self.after_step.astype(np.float64) - self.view.before["theta"],
            self.view.gradient.astype(np.float64),
        )
        lengths = float(np.linalg.norm(moved) * np.linalg.norm(gradient))
        alignment = float(-moved @ gradient) / lengths if lengths > 0 else math.nan
        self.update = step, math.sqrt(np.mean(np.square(moved))), alignment

    def recheck(self) -> None:
        """Give the reading up if the parameter moved after the proof: an outer `step` does more than the inner one."""
        if self.reader is None or not len(self.after_step):
            return
        if not np.array_equal(self.after_step, self.proved.take(self.param), equal_nan=True):
            self.give_up("its class changes the tensor further after the `step()` that it inherits")

    def reload(self, state: Mapping[str, Any]) -> None:
        """Start from a state that was loaded into the optimizer; note where its counter jumped."""
        self.accumulator.forget()
        self.view.state = state
        counter = state.get("step")
        now = None if counter is None else float(counter)
        if None not in (now, self.counted) and now != self.counted:
            self.jump = self.counted
        self.counted = now

    def take_up(self, group: Mapping[str, Any], state: Mapping[str, Any], step: int) -> None:
        """Let the coming step be compared with the newest, number `step`, which was not looked at.

        Where that cannot be read the coming one is compared with nothing.
        """
        self.accumulator.forget()
        counter, gradient, view = state.get("step"), self.param.grad, self.view
        self.counted, self.jump = None if counter is None else float(counter), None
        if self.reader is None or gradient is None or not self.intact():
            return
        self.show(group, state)
        view.step = float(step) if self.counted is None else self.counted
        with suppress(*FAILURES):
            view.gradient = self.descent(gradient)
            self.accumulator.follow(self.reader.second_moment(view), self.reader.coefficients(view))
        view.gradient = NOTHING

    def theta(self) -> Array:
        """Return the parameter now, at the coordinates that are proved."""
        return self.proved.take(self.param).astype(np.float64)

    def roots(self) -> Array:
        """Return sqrt(v) after the newest step, `(watched,)`; 0 where there is none."""
        if self.rooted or not self.accumulator.then.any() or self.reader is None:
            return self.accumulator.root
        return np.sqrt(self.second_moment(self.reader), dtype=np.float64)

    def second_moment(self, reader: Reader) -> Values:
        """Return v of all coordinates, where no root is kept."""
        return self.coordinates.take(self.view.state[str(kept_as(reader, self.view.group))])

    def lead_gradient(self) -> Array | None:
        """Return the newest gradient of the members of the harm test; None where it is gone."""
        if self.recalled is not None:
            recalled = self.recalled.members("g")
            return None if recalled is None else recalled.astype(np.float64)
        if self.param.grad is None:
            return None
        g = self.coordinates.take_lead(self.param.grad).astype(np.float64)
        return -g if self.view.group.get("maximize") else g

    def lead_roots(self) -> Array:
        """Return sqrt(v) after the newest step of the members of the harm test."""
        if self.rooted or self.reader is None:
            return self.accumulator.root[self.coordinates.lead_index]
        if self.recalled is not None:
            v = self.recalled.members("v")
            return np.zeros(0) if v is None else np.sqrt(v, dtype=np.float64)
        if not self.accumulator.then.any():
            return np.zeros(0)
        stored = kept_as(self.reader, self.view.group)
        found = self.view.state.get(stored) if stored else None
        return np.zeros(0) if found is None else np.sqrt(self.coordinates.take_lead(found), dtype=np.float64)

    def quantiles_of_all(self, reader: Reader) -> Values:
        """Return the quantiles of the stepsizes, `(5,)`, where no root is kept: those of v, which falls as e rises."""
        try:
            v = self.second_moment(reader) if self.accumulator.then.any() else NOTHING
        except FAILURES:  # somebody cleared the state since
            v = NOTHING
        v = v[v > 0]
        if len(v) == 0:
            return np.full(QUANTILES, math.nan)
        places = len(v) - 1 - np.rint(np.array(LEVELS) * (len(v) - 1)).astype(int)
        return stepsize(Coefficients(*self.accumulator.then), np.partition(v, places)[places])

    def stepsizes(self) -> Array:
        """Return the newest stepsizes of the watched coordinates that have taken a step, in no special order."""
        lr, gain, scale, eps = self.accumulator.then[:4]
        roots = self.roots()
        stepsizes: Array = lr * (gain / (scale * roots[roots > 0] + eps))
        return stepsizes

    def quantiles(self) -> Array:
        """Return the smallest stepsize, the quantiles at 1, 50 and 99 %, and the largest, `(5,)`; NaN without one."""
        return self.instants(-1, math.nan)[len(ERRORS) : len(ERRORS) + QUANTILES]

    def instants(self, step: int, rms_max: float) -> Array:
        """Return the columns `ERRORS` and `INSTANTS` for a record after `step`."""
        found, sums, coordinates = np.empty(ENTRIES), self.accumulator, self.coordinates
        param = local(self.param.detach())
        each = np.ascontiguousarray(sums.each)  # of one layout, or there would be two compilations
        if coordinates.watched and coordinates.in_place(param):
            place = param.data_ptr(), param.element_size(), coordinates.sampled, coordinates.numel
        else:
            theta = self.theta() if self.intact() else NOTHING
            place = theta.ctypes.data, 8 if len(theta) else 0, NO_INDEX, len(theta)
        snapshot(sums.root, sums.then, each, *place, found)
        quantiles: Values = found[:QUANTILES] if self.reader else np.full(QUANTILES, math.nan)
        if self.reader and not self.rooted:
            quantiles = self.quantiles_of_all(self.reader)
        weight_rms = math.sqrt(found[SQUARE])
        _, update_rms, alignment = self.update if self.update[0] == step else (step, math.nan, math.nan)
        rms_max = rms_max if self.gauges else math.nan
        errors = self.coordinates.standard_error(found[SQUARE + 1 :])
        row = np.concatenate([errors, quantiles, [rms_max, weight_rms, update_rms, alignment]])
        assert len(row) == len(ERRORS) + len(INSTANTS)
        return row
