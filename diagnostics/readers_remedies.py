"""The optimizers of `stepscope.remedies`, known by name, so that neither room imports the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .accumulators import Coefficients
from .stepsizes import Adam, Values, View


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
        return float(group["beta1"]), 0.0


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
        left, beta1 = max(0.0, 1 - (view.step - 1) / view.number("demon_steps")), view.beta(0)
        return beta1 * left / ((1 - beta1) + beta1 * left)

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
