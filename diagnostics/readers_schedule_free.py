"""Schedule-free optimizers: the stepsize of the sequence z, whose average the run returns (Defazio et al. 2024).

    z_{t+1} = z_t - e_t·g_t,   y_{t+1} = (1-c)·y_t + c·z_t - (1 - β1·(1-c))·e_t·g_t,   c = c_{t+1} (arXiv 2405.15682)

The parameter is y. Of e·g it makes the share 1 - β1·(1-c) at once, the rest comes as z is averaged in: so e multiplies
g as it enters, and what y is drawn towards z is the remainder. The step leaves g divided by its root in `p.grad`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .accumulators import Coefficients
from .stepsizes import Reader, Values, View


class ScheduleFree(Reader):
    """Schedule-free AdamW, of facebookresearch/schedule_free and of pytorch_optimizer."""

    has_edge = False
    formula = "e = lr_t / (sqrt(v)/sqrt(1-β2^t) + eps), on (1 - β1·(1-c))·g, with lr_t warmed up and c = 1/Σ weights"

    def coefficients(self, view: View) -> Coefficients:
        """Return Adam's without momentum; a running maximum is one of corrected moments."""
        scale = 1.0 if view.group.get("ams_bound") else 1 / math.sqrt(1 - view.beta(1) ** counted(view.group))
        return Coefficients(rate(view.group), 1.0, scale, view.number("eps"))

    def second_moment(self, view: View) -> Values:
        """Return v; on the way g, as it was before it was divided."""
        now, v = self.coefficients(view), view.take("max_exp_avg_sq" if view.group.get("ams_bound") else "exp_avg_sq")
        view.gradient = self.divided(view) * (now.scale * np.sqrt(v, dtype=np.float64) + now.eps)
        return v

    @staticmethod
    def divided(view: View) -> Values:
        """Return what the step left in `p.grad`, without the decay."""
        left: Values = view.gradient - view.number("weight_decay") * view.before["y"]
        return left

    def direction(self, view: View) -> Values:
        """Return what y makes of g at once."""
        at_once: Values = self.share(view) * view.gradient
        return at_once

    def share(self, view: View) -> float:
        """Return 1 - β1·(1-c)."""
        return 1 - self.interpolation(view.group) * (1 - weight(view.group, self.interpolation(view.group)))

    def remainder(self, view: View) -> Values | float:
        """Return what y is drawn towards z, and the decay, which goes through both as g does."""
        y, z = view.before["y"], view.before["z"]
        decayed = self.share(view) * rate(view.group) * view.number("weight_decay") * y
        moved: Values = weight(view.group, self.interpolation(view.group)) * (y - z) + decayed
        return moved

    @staticmethod
    def interpolation(group: Mapping[str, Any]) -> float:
        """Return β1, how much of y is the average."""
        return float(group["betas"][0])

    def adds_decay_to_gradient(self, group: Mapping[str, Any]) -> bool:
        """Return that the decay is added to g after its division."""
        return False

    def looks_ahead(self, group: Mapping[str, Any]) -> bool:
        """Return that every step overwrites y and z."""
        return True

    def remember(self, view: View, proving: bool) -> None:
        """Note both; z begins where y does."""
        y = view.coordinates.take(view.param).copy()
        view.before |= {"y": y, "z": view.take("z").copy() if "z" in view.state else y}

    def decays(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """Return β1 and β2, NaN where there is no second moment."""
        return self.interpolation(group), float(group["betas"][1]) if "betas" in group else math.nan


class ScheduleFreeSGD(ScheduleFree):
    """Schedule-free SGD."""

    gauges_gradient = False
    formula = "e = lr_t, on (1 - β·(1-c))·g, with lr_t warmed up and c = 1/Σ weights"

    def coefficients(self, view: View) -> Coefficients:
        """Write e = lr as lr·1/(0·sqrt(1) + 1)."""
        return Coefficients(rate(view.group), 1.0, 0.0, 1.0)

    def second_moment(self, view: View) -> Values:
        """There is none; g is restored on the way."""
        view.gradient = self.divided(view)
        return np.ones(len(view.gradient))

    @staticmethod
    def interpolation(group: Mapping[str, Any]) -> float:
        """Return `momentum`, as this one calls β1."""
        return float(group["momentum"])


def counted(group: Mapping[str, Any]) -> float:
    """Return the number of the newest step; both packages have counted it by now."""
    return float(group["k"] if "k" in group else group["step"])


def rate(group: Mapping[str, Any]) -> float:
    """Return the learning rate, warmed up."""
    warmup = float(group["warmup_steps"])
    return float(group["lr"]) * (min(1.0, counted(group) / warmup) if warmup else 1.0)


def weight(group: Mapping[str, Any], beta1: float) -> float:
    """Return c, the newest point's share in the average: its weight t^r·max(lr)^p over the sum of all."""
    newest = counted(group) ** float(group["r"]) * float(group["lr_max"]) ** float(group["weight_lr_power"])
    share = newest / float(group["weight_sum"]) if group["weight_sum"] else 0.0
    decoupling = float(group.get("decoupling_c", 0.0))
    return min(1.0, share * (1 - beta1) * decoupling) if decoupling > 0 else share
