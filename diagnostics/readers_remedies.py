"""The optimizers of `stepscope.remedies`, known by name, so that neither room imports the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import readers_entering
from .accumulators import Coefficients
from .momentum_decay import decayed
from .stepsizes import Adam, Reader, Values, View


class Uncorrected(Adam):
    """Adam without bias corrections."""

    formula = "e = lr / (sqrt(exp_avg_sq) + eps), on exp_avg"

    def coefficients(self, view: View) -> Coefficients:
        """Return lr and eps."""
        beta1, beta2 = self.decays(view.group)
        return Coefficients(view.number("lr"), 1.0, 1.0, view.number("eps"), beta1, beta2=beta2)


class AdaFom(Uncorrected):
    """AdaFom, whose β2 is 1 - 1/t (Chen et al., ICLR 2019)."""

    def decays(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """Return β1; β2 differs from step to step."""
        return float(group["betas"][0]), 0.0


class AMSGrad(Uncorrected):
    """AMSGrad without torch's bias corrections (Reddi et al., ICLR 2018)."""

    formula = "e = lr / (sqrt(max_exp_avg_sq) + eps), on exp_avg"

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return the largest v so far."""
        return None if self.adds_decay_to_gradient(group) else "max_exp_avg_sq"

    def second_moment(self, view: View) -> Values:
        """Return the largest v so far."""
        return view.take("max_exp_avg_sq")


class ADOPT(readers_entering.ADOPT):
    """ADOPT that counts its steps, and bounds them, as the paper does."""

    def __init__(self) -> None:
        super().__init__()
        self.formula = "e = lr / max(sqrt(v_{t-1}), eps, |g|/(t-1)^clip), on (1-β1)·g as it enters exp_avg; 0 at t = 1"

    def bound(self, view: View) -> float:
        """Return (t-1)^clip."""
        return math.inf if view.group["clip"] is None else float((view.step - 1) ** view.number("clip"))

    def decoupled(self, group: Mapping[str, Any]) -> bool:
        """Return what torch's flag says."""
        return Reader.decoupled(self, group)

    def adds_decay_to_gradient(self, group: Mapping[str, Any]) -> bool:
        """Return whether L2 is added inside the step, as by torch's own."""
        return Reader.adds_decay_to_gradient(self, group)


class AdaShift(Adam):
    """AdaShift: v knows gradients older than the momentum's alone, maybe one number for a tensor (Zhou et al. 2019)."""

    formula = "e = lr / (sqrt(exp_avg_sq)/sqrt(1-β2^(t-window)) + eps), on exp_avg, after the first `window` steps"
    has_edge = False
    gauges_gradient = False

    def coefficients(self, view: View) -> Coefficients:
        """Correct v for the gradients that it has seen."""
        seen = max(1.0, view.step - view.number("window"))
        return Coefficients(view.number("lr"), 1.0, 1 / math.sqrt(1 - view.beta(1) ** seen), view.number("eps"))

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return v, unless it is one number; it is zero while the window fills and nothing moves."""
        return super().stored(group) if group["spatial"] == "none" else None

    def second_moment(self, view: View) -> Values:
        """Return v of every coordinate."""
        v = view.state["exp_avg_sq"]
        each = v.shape == view.state["exp_avg"].shape
        return view.take("exp_avg_sq") if each else np.full(len(view.gradient), float(v))


class Adai(Adam):
    """Adai: the momentum's decay is adaptive, the stepsize corrects its bias (Xie et al., ICML 2022)."""

    formula = "e = lr·β0^(1-dampening) / weight_sum, on exp_avg, whose decay is adaptive; weight_sum = 1 - Π β1_t"
    has_edge = False
    gauges_gradient = False

    def coefficients(self, view: View) -> Coefficients:
        """Leave the correction to the second moment."""
        gain = view.number("beta0") ** (1 - view.number("dampening"))
        return Coefficients(view.number("lr"), gain, 1.0, 0.0)

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that it has to be squared."""
        return None

    def second_moment(self, view: View) -> Values:
        """Return the square of weight_sum; zero where no gradient was seen."""
        squared = np.square(view.take("weight_sum"), dtype=np.float64)
        return np.where(view.take("exp_avg_sq") > 0, squared, 0.0)

    def decays(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """Return β2; the momentum's is adaptive."""
        return math.nan, float(group["beta2"])


class DemonAdam(Adam):
    """Adam whose β1 decays over the run, with m a sum of gradients or their average (Chen et al., arXiv 1910.04952).

    The sum is read as 1/(1-β_t) times an average, so that e means what it means in Adam, and falls as the steps do.
    """

    formula = (
        "e = lr/(1-β_t) / (sqrt(v)/sqrt(1-β2^t) + eps), on (1-β_t)·exp_avg; "
        "with `average` lr/(1-β_t^t) / the same, on exp_avg"
    )

    def momentum(self, view: View) -> float:
        """Return β_t."""
        return decayed(view.beta(0), (view.step - 1) / view.number("demon_steps"))

    def coefficients(self, view: View) -> Coefficients:
        """Return Adam's, with β_t for β1."""
        beta, t = self.momentum(view), view.step
        gain = 1 / (1 - (beta**t if view.group["average"] else beta))
        scale = 1 / math.sqrt(1 - view.beta(1) ** t)
        return Coefficients(view.number("lr"), gain, scale, view.number("eps"), beta, beta2=view.beta(1))

    def direction(self, view: View) -> Values:
        """Return the average, or the sum over its weight."""
        m = view.take("exp_avg")
        return m if view.group["average"] else (1 - self.momentum(view)) * m
