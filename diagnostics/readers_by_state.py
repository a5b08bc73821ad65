"""Optimizers that nobody has named here: read by a known rule whose state they keep, if it rebuilds their steps.

The state names candidates: an `exp_avg` with an `exp_avg_sq` may be Adam in one of its forms, a `momentum_buffer` plain
momentum. A candidate must explain three things: that g reaches the rule as it stands in `p.grad` (but for L2), that the
state is an average of g, and that -(e·d + remainder) is Δθ. Without the first two e·d could be right and e still be no
stepsize, because d would be something else. Every proof of every tensor strikes out what fails. Until a step larger
than the rounding of θ has proved a rule, no stepsize is stated; and a tensor that none explains has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .accumulators import Coefficients
from .readers_adam import Written, betas
from .stepsizes import Reader, Unreadable, Values, View, rebuilt_step
from .watcher import FAILURES, TOLERANCE

UNEXPLAINED = "none of the rules whose state it keeps rebuilds the step Δθ that was made"
OVERWRITTEN = "it changes the gradients in place, by more than L2, before it uses them"
CLOSE = 1e-5
"""Relative error of a gradient or an average that is recognized; both are a few roundings of float32."""


class Momentum(Reader):
    """Gradient descent on the momentum buffer that lies there, or on g: the stepsize is the learning rate."""

    gauges_gradient = False

    def __init__(self, buffer: str, *, decoupled: bool) -> None:
        self.buffer, self.decay_is_decoupled = buffer, decoupled
        self.formula = f"e = lr, on {buffer or 'g'}"

    def coefficients(self, view: View) -> Coefficients:
        """Write e = lr as lr·1/(0·sqrt(1) + 1)."""
        return Coefficients(view.number("lr"), 1.0, 0.0, 1.0)

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that v is one."""
        return ""

    def second_moment(self, view: View) -> Values:
        """There is none."""
        return np.ones(len(view.gradient))

    def direction(self, view: View) -> Values:
        """Return the buffer."""
        return view.take(self.buffer) if self.buffer else view.gradient

    def decoupled(self, group: Mapping[str, Any]) -> bool:
        """Return whether θ is shrunk, as this candidate has it."""
        return self.decay_is_decoupled

    def adds_decay_to_gradient(self, group: Mapping[str, Any]) -> bool:
        """Return that g is what the step left in `p.grad`."""
        return False


def candidates(state: Mapping[str, Any]) -> list[Reader]:
    """Return the rules that a state may belong to, the commonest forms first."""
    average = average_in(state)
    moments = [name for name in ("exp_avg_sq", "exp_avg_var") if name in state and average == "exp_avg"]
    if not moments:
        return [Momentum(average, decoupled=decoupled) for decoupled in (False, True)]
    return [
        Written(moment, hat=hat, floor=floor, corrected=corrected, decoupled=decoupled)
        for moment in moments
        for corrected in ((True, True), (False, False), (False, True))
        for hat in (False, True)
        for floor in (0.0, 1e-15)  # where packages keep sqrt from 0
        for decoupled in (True, False)
    ]


class Trial(Reader):
    """The first of several rules that has stood every proof so far; none, until a proof has been stood.

    Args:
        rules: the rules to try; None: those whose state the optimizer keeps.
    """

    keeps_state = False

    def __init__(self, rules: Sequence[Reader] | None = None) -> None:
        self._standing = None if rules is None else list(rules)
        self.rule: Reader | None = None

    @property
    def formula(self) -> str:  # type: ignore[override]
        """The formula of the rule that stands."""
        return self.rule.formula if self.rule else "e = (no rule is proved yet)"

    @property
    def has_edge(self) -> bool:  # type: ignore[override]
        """As the rule says."""
        return self.rule is not None and self.rule.has_edge

    @property
    def gauges_gradient(self) -> bool:  # type: ignore[override]
        """As the rule says."""
        return self.rule is not None and self.rule.gauges_gradient

    def coefficients(self, view: View) -> Coefficients:
        """Try the rules where a proof is due, and return those of the one that stands."""
        if view.before.get("proving"):
            self.prove(view)
        if self.rule is None:
            return Coefficients(float(view.group.get("lr") or 0.0), 1.0, 1.0, 0.0)
        return self.rule.coefficients(view)

    def prove(self, view: View) -> None:
        """Keep the rules that rebuild this tensor's step; raise if there is none."""
        before, after = view.before["theta"].astype(np.float64), view.coordinates.take(view.param).astype(np.float64)
        unit = torch.finfo(view.param.dtype).eps
        rounding = 2 * unit * float(np.linalg.norm(np.maximum(np.abs(before), np.abs(after))))
        moved = after - before
        size = float(np.linalg.norm(moved))
        if not size > rounding:
            return
        if overwritten(view):
            raise Unreadable(OVERWRITTEN)
        standing = candidates(view.state) if self._standing is None else self._standing
        if self._standing is None and not averages(view):
            standing = []
        standing = [rule for rule in standing if explains(rule, view, moved, TOLERANCE * size + rounding)]
        if not standing:
            raise Unreadable(UNEXPLAINED)
        self._standing, self.rule = standing, standing[0]

    def second_moment(self, view: View) -> Values:
        """Return the rule's; zero, which counts for nothing, while there is none."""
        return self.rule.second_moment(view) if self.rule else np.zeros(len(view.gradient))

    def direction(self, view: View) -> Values:
        """Return the rule's."""
        return self.rule.direction(view) if self.rule else view.gradient

    def remainder(self, view: View) -> Values | float:
        """Return the rule's."""
        return self.rule.remainder(view) if self.rule else 0.0

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return the rule's."""
        return self.rule.stored(group) if self.rule else None

    def decoupled(self, group: Mapping[str, Any]) -> bool:
        """Return the rule's."""
        return self.rule is not None and self.rule.decoupled(group)

    def adds_decay_to_gradient(self, group: Mapping[str, Any]) -> bool:
        """Return the rule's."""
        return self.rule is not None and self.rule.adds_decay_to_gradient(group)

    def remember(self, view: View, proving: bool) -> None:
        """Note whether a proof is due, and what it needs."""
        view.before["proving"] = proving
        if proving:
            gradient, average = view.param.grad, average_in(view.state)
            view.before["grad"] = gradient
            view.before["g"] = None if gradient is None else view.coordinates.take(gradient).copy()
            view.before["average"] = view.take(average).copy() if average else 0.0

    def decays(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """Return what goes by the usual names; NaN where it cannot be a decay rate."""
        first, second = super().decays(group)
        return first, second if 0 <= second < 1 else math.nan


def average_in(state: Mapping[str, Any]) -> str:
    """Return the state entry that should be an average of the gradients; "" where there is none."""
    names = ("exp_avg", "momentum_buffer")
    return next((name for name in names if isinstance(state.get(name), torch.Tensor)), "")


def overwritten(view: View) -> bool:
    """Return whether the step changed g in place by more than L2; a closure's backward pass makes another tensor."""
    if view.before["g"] is None or view.before["grad"] is not view.param.grad:
        return False
    assert view.param.grad is not None
    g, then = view.coordinates.take(view.param.grad), view.before["g"]
    l2 = then + float(view.group.get("weight_decay") or 0.0) * view.before["theta"]
    return not (close(g, then) or close(g, l2))


def averages(view: View) -> bool:
    """Return whether the average in the state has taken this gradient in, as averages do."""
    name, group = average_in(view.state), view.group
    if not name:
        return True
    if "momentum" in group:
        decay = float(group["momentum"])
        weights = {1.0, 1 - decay, 1 - float(group.get("dampening", 0.0))}
    elif {"betas", "beta1"} & set(group):
        decay = betas(group)[0]
        weights = {1 - decay}
    else:
        return False
    entered = view.take(name) - decay * view.before["average"]
    return any(close(entered, weight * view.gradient) for weight in weights)


def close(one: Values, other: Values) -> bool:
    """Return whether two vectors agree."""
    return bool(np.linalg.norm(one - other) <= CLOSE * np.linalg.norm(other))


def explains(rule: Reader, view: View, moved: Values, allowed: float) -> bool:
    """Return whether a rule rebuilds the step that was made."""
    try:
        rebuilt = rebuilt_step(rule, view, rule.coefficients(view), rule.second_moment(view))
    except FAILURES:
        return False
    return bool(np.linalg.norm(moved - rebuilt) <= allowed)
