"""One watched tensor: what is noted before a step, measured after it, and proved about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .accumulators import Accumulator, Coefficients
from .sampling import Coordinates
from .stepsizes import Reader, Values, View, rebuilt_step
from .trace import INSTANTS, SUMS, TensorInfo

Array = NDArray[np.float64]

TOLERANCE = 1e-5
"""Relative error of the rebuilt step that the self-check accepts, beside the rounding of θ itself."""

G2, STEPS, NONFINITE = SUMS.index("g2"), SUMS.index("steps"), SUMS.index("nonfinite")


class Outcome(Enum):
    """What a call of the optimizer did to one tensor."""

    STEPPED = "stepped"
    ABSENT = "no gradient"
    SKIPPED = "skipped"


class Watcher:
    """Reads one parameter after every step. `trouble` explains why no stepsize is read, once it is not."""

    def __init__(
        self, param: torch.Tensor, name: str, group: int, coordinates: Coordinates, reader: Reader | None
    ) -> None:
        self.name, self.group, self.reader = name, group, reader
        self.coordinates = coordinates
        self.view = View(param, coordinates)
        self.counted: float | None = None
        """The optimizer's own step counter at the newest step."""
        self.jump: float | None = None
        """The counter's value before a step at which it did not advance by one; None after an ordinary step."""
        self.trouble: str | None = None
        self.proof = math.nan
        """Relative error of the newest self-check; NaN where rounding hides the step."""
        self.weight_rms = self.update_rms = self.alignment = math.nan
        self.accumulator = Accumulator(coordinates.watched, keep_each=coordinates.index is not None)

    def info(self) -> TensorInfo:
        """Return what the record says of this tensor."""
        formula = self.reader.formula if self.reader else None
        shape, numel = tuple(self.view.param.shape), self.coordinates.numel
        return TensorInfo(self.name, shape, numel, self.coordinates.watched, self.group, formula)

    def before(self, group: Mapping[str, Any], state: Mapping[str, Any], proving: bool) -> None:
        """Note what the coming step will overwrite and the reading needs."""
        view = self.view
        if view.param.numel() == 0:
            return
        view.group, view.state = group, state
        if proving or (self.reader and self.reader.adds_decay_to_gradient(group)):
            view.before["theta"] = self.coordinates.take(view.param).copy()
        if self.reader:
            self.reader.remember(view, proving)

    def after(self, group: Mapping[str, Any], state: Mapping[str, Any], step: int, proving: bool) -> Outcome:
        """Measure the step just taken; `step` counts for optimizers that keep no counter of their own."""
        view, gradient = self.view, self.view.param.grad
        absent = gradient is None or view.param.numel() == 0
        if absent or not self.advanced(state):
            self.accumulator.last[:] = 0.0
            return Outcome.ABSENT if absent else Outcome.SKIPPED
        assert gradient is not None
        view.group, view.state = group, state
        view.step = float(step) if self.counted is None else self.counted
        view.gradient = self.coordinates.take(gradient)
        if group.get("maximize"):
            view.gradient = -view.gradient
        if self.reader:
            self.measure(self.reader, gradient, proving)
        if not self.reader:
            self.measure_gradient()
        if proving:
            self.measure_update()
        return Outcome.STEPPED

    def advanced(self, state: Mapping[str, Any]) -> bool:
        """Return whether the optimizer's own counter moved since the last call; note where it jumped."""
        counter = state.get("step")
        if counter is None:
            return True
        now, then = float(counter), self.counted
        self.counted, self.jump = now, None
        if then is None or now == then + 1:
            return True
        if now != then:
            self.jump = then
            self.accumulator.forget()
        return now != then

    def measure(self, reader: Reader, gradient: torch.Tensor, proving: bool) -> None:
        """Read the stepsize, add it to the sums and, where asked, prove it; on failure give the reading up."""
        view = self.view
        try:
            if reader.adds_decay_to_gradient(view.group):
                view.gradient = view.gradient + view.number("weight_decay") * view.before["theta"]
            now, v = reader.coefficients(view), reader.second_moment(view)
            touched = self.coordinates.touched(gradient)
            if touched is not None:
                v = np.where(touched, v, 0.0)
            if proving and (error := self.check(reader, now, v)):
                self.give_up(error)
            else:
                self.accumulator.add(v, view.gradient, now)
        except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError) as problem:
            self.give_up(f"its state does not fit the formula: {type(problem).__name__}: {problem}")

    def check(self, reader: Reader, now: Coefficients, v: Values) -> str | None:
        """Compare the rebuilt step with Δθ; return the mismatch in words, None where the formula holds.

        Each coordinate of Δθ carries the rounding of θ before and after, half a unit in the last place each, and
        one more where the decay is a step of its own: 2·eps·|θ| bounds it.
        """
        before, after = self.view.before["theta"].astype(np.float64), self.theta()
        moved, rebuilt = after - before, rebuilt_step(reader, self.view, now, v)
        sound = np.isfinite(moved) & np.isfinite(rebuilt)
        unit = torch.finfo(self.view.param.dtype).eps
        rounding = 2 * unit * np.linalg.norm(np.maximum(np.abs(before), np.abs(after))[sound])
        error = float(np.linalg.norm(moved[sound] - rebuilt[sound]))
        size = float(np.linalg.norm(moved[sound]))
        self.proof = error / size if size > rounding else math.nan
        if error <= TOLERANCE * size + rounding:
            return None
        return (
            f"-e·d differs from the step Δθ that was made by {error / max(size, 1e-300):.1e} relative "
            f"(allowed {TOLERANCE:.0e}): something beside the stated formula changes this tensor in `step()`"
        )

    def give_up(self, reason: str) -> None:
        """Stop reading stepsizes here, and say why: no stepsize is better than a wrong one."""
        self.reader, self.trouble = None, reason

    def measure_gradient(self) -> None:
        """Record what a tensor without a stepsize has."""
        last, gradient = self.accumulator.last, self.view.gradient
        sound = np.isfinite(gradient)
        last[:] = math.nan
        last[G2] = np.square(gradient[sound], dtype=np.float64).sum()
        last[NONFINITE], last[STEPS] = gradient.size - np.count_nonzero(sound), 1.0

    def measure_update(self) -> None:
        """Measure size and direction of Δθ; needs the parameter noted before the step."""
        theta, before = self.theta(), self.view.before["theta"]
        moved, gradient = theta - before, self.view.gradient.astype(np.float64)
        self.weight_rms = math.sqrt(np.mean(np.square(theta)))
        self.update_rms = math.sqrt(np.mean(np.square(moved)))
        lengths = float(np.linalg.norm(moved) * np.linalg.norm(gradient))
        self.alignment = float(-moved @ gradient) / lengths if lengths > 0 else math.nan

    def theta(self) -> Array:
        """Return the parameter at the watched coordinates, now."""
        return self.coordinates.take(self.view.param).astype(np.float64)

    def instants(self, rms_max: float) -> Array:
        """Return the columns `INSTANTS` for a record."""
        e = np.sort(self.accumulator.stepsizes()) if self.reader else np.empty(0)
        places = (np.array([0.0, 0.01, 0.5, 0.99, 1.0]) * (len(e) - 1)).round().astype(int)
        quantiles = e[places] if len(e) else np.full(len(places), math.nan)
        rest = (rms_max if self.reader else math.nan, self.weight_rms, self.update_rms, self.alignment)
        instants = np.array([*quantiles, *rest])
        assert len(instants) == len(INSTANTS)
        return instants
