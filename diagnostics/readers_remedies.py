"""The optimizers of `stepscope.remedies`, known by name, so that neither room imports the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .accumulators import Coefficients
from .stepsizes import Adam, View


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
