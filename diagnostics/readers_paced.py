"""Adam at a rate of its own, or with another memory of v: LAMB, RAdam, AdaShift, AvaGrad, Prodigy, D-Adaptation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .accumulators import Coefficients
from .readers_adam import Debiased, Written, betas, counted
from .stepsizes import Values, View


class Lamb(Written):
    """LAMB: Adam, uncorrected by β2, times a trust ratio a tensor (You et al., arXiv 1904.00962)."""

    has_edge = False  # the trust ratio answers to θ

    def __init__(self) -> None:
        super().__init__(corrected=(True, False))
        self.formula = "e = lr·trust/(1-β1^t) / (sqrt(v) + eps), on exp_avg; trust = ‖θ‖/‖update‖"

    def coefficients(self, view: View) -> Coefficients:
        """Return Adam's, with the trust ratio in the learning rate."""
        plain = super().coefficients(view)
        return plain if view.group["adam"] else plain._replace(lr=plain.lr * float(view.state["trust_ratio"]))

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that no two tensors share their coefficients."""
        return None

    def remainder(self, view: View) -> Values | float:
        """Return the decay; the coupled one is part of what the trust ratio scales."""
        decay = view.number("weight_decay")
        if self.decoupled(view.group) or decay == 0:
            return super().remainder(view)
        now = self.coefficients(view)
        scaled: Values = now.lr * now.gain * decay * view.before["theta"]
        return scaled


class AdaShift(Written):
    """AdaShift: v knows gradients older than the momentum's alone (Zhou et al., arXiv 1810.00143)."""

    has_edge = False

    def __init__(self) -> None:
        super().__init__()
        self.gauges_gradient = False
        self.formula = "e = lr / (sqrt(v)/sqrt(1-β2^(t-n)) + eps), on exp_avg, after the first n = keep_num steps"

    def coefficients(self, view: View) -> Coefficients:
        """Correct v for the gradients that it has seen."""
        seen = max(1.0, counted(view) - view.number("keep_num"))
        return Coefficients(view.number("lr"), 1.0, 1 / math.sqrt(1 - view.beta(1) ** seen), view.number("eps"))

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return v once it is in use."""
        return self.moment if counted_in(group) > float(group["keep_num"]) else None

    def second_moment(self, view: View) -> Values:
        """Return v; zero while the queue fills and nothing moves."""
        v = view.take(self.moment)
        return v if counted(view) > view.number("keep_num") else np.zeros_like(v)


def counted_in(group: Mapping[str, Any]) -> float:
    """Return the number of steps that a group has counted."""
    return float(group.get("step", 0))


class RAdam(Written):
    """Rectified Adam that waits, and moves nothing, until the variance of v is defined (Liu et al. 2020)."""

    THRESHOLD = 5.0

    def __init__(self) -> None:
        super().__init__(hat=True)
        self.formula = "e = lr·r_t·sqrt(1-β2^t)/(1-β1^t) / (sqrt(v) + eps), on exp_avg; nothing moves while ρ_t < 5"

    @staticmethod
    def length(view: View) -> tuple[float, float]:
        """Return ρ_t and ρ_∞, lengths of v's memory."""
        t, beta2 = counted(view), betas(view.group)[1]
        limit = 2 / (1 - beta2) - 1
        return limit - 2 * t * beta2**t / (1 - beta2**t), limit

    def coefficients(self, view: View) -> Coefficients:
        """Return the rectified stepsize."""
        rho, limit = self.length(view)
        rectified = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho) if rho >= self.THRESHOLD else 0.0
        plain = super().coefficients(view)
        return plain._replace(lr=plain.lr * math.sqrt(rectified))

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that it has to be seen first whether anything moves."""
        return None

    def second_moment(self, view: View) -> Values:
        """Return v; zero as long as nothing moves."""
        v = view.take(self.moment)
        return v if self.length(view)[0] >= self.THRESHOLD else np.zeros_like(v)

    def remainder(self, view: View) -> Values | float:
        """Return the decay, which waits as well."""
        return super().remainder(view) if self.length(view)[0] >= self.THRESHOLD else 0.0


class UnbiasedRAdam(Debiased):
    """Rectified Adam on averages that are unbiased as they stand, a momentum step while ρ_t ≤ 5 (optimi)."""

    def __init__(self) -> None:
        super().__init__()
        self.formula = "e = lr·r_t/(1-β1^t) / (sqrt(v) + eps), on (1-β1^t)·exp_avg; lr/(1-β1^t) while ρ_t ≤ 5"

    def coefficients(self, view: View) -> Coefficients:
        """Switch from the plain to the rectified stepsize."""
        plain, (rho, limit) = super().coefficients(view), RAdam.length(view)
        if rho <= RAdam.THRESHOLD:
            return plain._replace(scale=0.0, eps=1.0)
        rectified = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
        return plain._replace(gain=plain.gain * math.sqrt(rectified))


class AvaGrad(Written):
    """AvaGrad: v is the one before this step, and lr is divided by the stepsizes' size (Savarese, arXiv 1912.01823)."""

    has_edge = False

    def __init__(self) -> None:
        super().__init__()
        self.gauges_gradient = False
        self.formula = "e = γ_{t-1}·lr/(1-β1^t) / (sqrt(v_{t-1})/sqrt(1-β2^(t-1)) + eps), on exp_avg; 0 at t = 1"

    def looks_ahead(self, group: Mapping[str, Any]) -> bool:
        """Return that every step overwrites γ and v."""
        return True

    def remember(self, view: View, proving: bool) -> None:
        """Note γ and v."""
        if self.moment in view.state:
            view.before |= {"gamma": float(view.group["gamma"]), "v": view.take(self.moment).copy()}

    def coefficients(self, view: View) -> Coefficients:
        """Return those of the step that has just been made."""
        t, beta1, beta2 = counted(view), view.beta(0), view.beta(1)
        scale = 1 / math.sqrt(1 - beta2 ** (t - 1)) if t > 1 else 1.0
        gain = view.before.get("gamma", 0.0) / (1 - beta1**t)
        return Coefficients(view.number("lr"), gain, scale, view.number("eps"), beta1)

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that v is no longer there."""
        return None

    def second_moment(self, view: View) -> Values:
        """Return v as it was; the first step moves nothing."""
        v: Values = view.before.get("v", np.zeros(len(view.gradient)))
        return v


class Learned(Written):
    """Adam whose learning rate grows with an estimate d of the distance to the solution: Prodigy and D-Adaptation.

    Both keep averages of d·g. Taken back to those of g, the rule of Prodigy (Mishchenko and Defazio, arXiv 2306.06101)
    is e = lr·d²/(sqrt(v) + d'·eps) on exp_avg/d, with d before and d' after the step.
    """

    has_edge = False

    def __init__(self) -> None:
        super().__init__(corrected=(False, False))
        self.formula = "e = lr·d² / (sqrt(v) + d·eps), on exp_avg/d"

    def looks_ahead(self, group: Mapping[str, Any]) -> bool:
        """Return that every step overwrites d."""
        return True

    def remember(self, view: View, proving: bool) -> None:
        """Note d."""
        view.before["d"] = float(view.group["d"])

    def coefficients(self, view: View) -> Coefficients:
        """Divide by d² below instead of multiplying above, so that RMS_t is that of g."""
        d, t = view.before["d"], counted(view) - 1  # the package counts from one
        gain = 1.0
        if view.group["bias_correction"]:
            gain = math.sqrt(1 - view.beta(1) ** t) / (1 - view.beta(0) ** t)
        return Coefficients(
            view.number("lr"), gain, 1 / d**2, view.number("d") * view.number("eps") / d**2, view.beta(0)
        )

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that d has to be noted ahead."""
        return None

    def direction(self, view: View) -> Values:
        """Return the average of g."""
        plain: Values = view.take("exp_avg") / view.before["d"]
        return plain

    def remainder(self, view: View) -> Values | float:
        """Return the decay, at the learned rate."""
        return super().remainder(view) * (1.0 if view.group["fixed_decay"] else view.before["d"])


class DAdaptAdam(Learned):
    """Adam with D-Adaptation (Defazio and Mishchenko, arXiv 2301.07733): the average is one of lr·d·g."""

    def __init__(self) -> None:
        super().__init__()
        self.formula = "e = lr·d / (sqrt(v) + eps), on exp_avg/(lr·d)"

    def coefficients(self, view: View) -> Coefficients:
        """Return d as the gain."""
        return Coefficients(view.number("lr"), view.before["d"], 1.0, view.number("eps"), view.beta(0))

    def direction(self, view: View) -> Values:
        """Return the average of g."""
        plain: Values = view.take("exp_avg") / (view.before["d"] * view.number("lr"))
        return plain
