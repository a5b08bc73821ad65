"""Rules with another multiplier than lr·gain/(scale·sqrt(v) + eps): e = lr·gain/D, and v stands for D²."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from .accumulators import Coefficients
from .readers_adam import Written, counted
from .stepsizes import Adadelta, Values, View


class Divided(Written):
    """Rules whose multiplier is lr·gain/D for a positive D of each coordinate; `denominator` states D."""

    has_edge = False

    def __init__(self, formula: str, floor: float = 0.0) -> None:
        super().__init__(floor=floor)
        self.gauges_gradient, self.formula = False, formula

    def coefficients(self, view: View) -> Coefficients:
        """Leave all but the momentum's correction to D."""
        return super().coefficients(view)._replace(scale=1.0, eps=0.0)

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that D has to be computed."""
        return None

    @abstractmethod
    def denominator(self, view: View) -> Values:
        """Return D."""

    def second_moment(self, view: View) -> Values:
        """Return D², zero where no gradient was seen."""
        squared = np.square(self.denominator(view), dtype=np.float64)
        return np.where(view.take(self.moment) > 0, squared, 0.0) if self.moment in view.state else squared

    def adam(self, view: View) -> Values:
        """Return Adam's own D with eps inside the corrected root, where many of these start from."""
        v = view.take(self.kept(view.group)).astype(np.float64) + self.floor
        divided: Values = (np.sqrt(v) + view.number("eps")) / math.sqrt(1 - view.beta(1) ** counted(view))
        return divided


class AdaMax(Divided):
    """Adam with the infinity norm; eps is inside `exp_inf`."""

    def denominator(self, view: View) -> Values:
        """Return the norm."""
        return view.take("exp_inf")


class PAdam(Divided):
    """Partially adaptive Adam: a power 2p of Adam's denominator (Chen et al., arXiv 1806.06763)."""

    def denominator(self, view: View) -> Values:
        """Return (sqrt(v) + eps)^(2p); the package does not take the correction to that power."""
        correction = math.sqrt(1 - view.beta(1) ** counted(view))
        powered: Values = (self.adam(view) * correction) ** (2 * view.number("partial")) / correction
        return powered


class GrokFastAdamW(Divided):
    """AdamW that clamps at eps instead of adding it; the gradient was amplified on the way in."""

    def denominator(self, view: View) -> Values:
        """Return max(sqrt(v)/sqrt(1-β2^t), eps)."""
        root = np.sqrt(view.take(self.moment).astype(np.float64)) / math.sqrt(1 - view.beta(1) ** counted(view))
        return np.maximum(root, view.number("eps"))


class DiffGrad(Divided):
    """diffGrad: Adam times a friction ξ = sigmoid|g_{t-1} - g_t| (Dubey et al., arXiv 1909.11015)."""

    def looks_ahead(self, group: Mapping[str, Any]) -> bool:
        """Return that every step overwrites the gradient before."""
        return True

    def remember(self, view: View, proving: bool) -> None:
        """Note that gradient; before the first step it is zero."""
        view.before["g"] = view.take("previous_grad").copy() if "previous_grad" in view.state else 0.0

    def denominator(self, view: View) -> Values:
        """Return Adam's over the friction."""
        divided: Values = self.adam(view) * (1 + np.exp(-np.abs(view.before["g"] - view.gradient)))
        return divided


class Bounded(Divided):
    """AdaBound: Adam's e is clipped to bounds that close upon `final_lr` (Luo et al., arXiv 1902.09843)."""

    def denominator(self, view: View) -> Values:
        """Return lr·gain over the clipped stepsize; lr·gain is a scalar and may be zero."""
        now, t, gamma = self.coefficients(view), counted(view), view.number("gamma")
        rate = now.lr * now.gain
        if rate == 0:
            return np.zeros(len(view.gradient))
        final = view.number("final_lr") * now.lr / float(view.group.get("initial_lr", now.lr))
        lower, upper = final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))
        divided: Values = rate / np.clip(rate / self.adam(view), lower, upper)
        return divided


class AdaMod(Divided):
    """AdaMod: Adam's e is bounded by its own average (Ding et al., arXiv 1910.12249)."""

    def denominator(self, view: View) -> Values:
        """Return lr·gain over the smaller of the two."""
        now = self.coefficients(view)
        rate = now.lr * now.gain
        if rate == 0:
            return np.zeros(len(view.gradient))
        divided: Values = rate / np.minimum(rate / self.adam(view), view.take("exp_avg_lr"))
        return divided


class DualAdam(Divided):
    """DualAdam: from a step that grows with sqrt(v) over to Adam's, at a rate that falls by `switch_rate`."""

    def denominator(self, view: View) -> Values:
        """Return Adam's D; at first its mixture with 1/D."""
        root = np.sqrt(view.take(self.moment).astype(np.float64) / (1 - view.beta(1) ** counted(view)))
        plain: Values = root + view.number("eps")
        rate = max(0.0, 1 - counted(view) * view.number("switch_rate"))
        if rate < view.number("switch_rate"):
            return plain
        mixed: Values = 1 / ((1 - rate) / plain + rate * plain)
        return mixed


class AdaHessian(Divided):
    """AdaHessian: v is the second moment of the Hessian's diagonal (Yao et al., arXiv 2006.00719)."""

    def denominator(self, view: View) -> Values:
        """Return (v/(1-β2^t))^(k/2) + eps."""
        v = view.take("exp_hessian_diag_sq").astype(np.float64) / (1 - view.beta(1) ** counted(view))
        powered: Values = v ** (view.number("hessian_power") / 2) + view.number("eps")
        return powered


class Adai(Divided):
    """Adai: the momentum's decay is adaptive, the stepsize corrects its bias (Xie et al., arXiv 2006.15815)."""

    def coefficients(self, view: View) -> Coefficients:
        """Return lr; the bound of the inertia enters where `dampening` is not one."""
        gain = view.beta(0) ** (1 - view.number("dampening"))
        return Coefficients(view.number("lr"), gain, 1.0, 0.0)

    def denominator(self, view: View) -> Values:
        """Return 1 - Π β1_t."""
        left: Values = 1 - view.take("beta1_prod").astype(np.float64)
        return left


class AdaDelta(Adadelta):
    """Adadelta where L2 was added to `p.grad` itself."""

    has_edge = False

    def adds_decay_to_gradient(self, group: Mapping[str, Any]) -> bool:
        """Return that nothing is left to add."""
        return False
