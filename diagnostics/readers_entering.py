"""Rules whose momentum is an average of steps already divided, so that e multiplies g as it enters: ADOPT, LaProp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .accumulators import Coefficients
from .readers_adam import Written, counted
from .stepsizes import Values, View


class Momentous(Written):
    """Rules whose momentum is an average of steps already divided: e multiplies g as it enters.

    Δθ = -(1/c)·exp_avg with exp_avg_t = β1·exp_avg_{t-1} + (1-β1)·e_t·g_t and c a correction of its bias.
    """

    has_edge = False

    def looks_ahead(self, group: Mapping[str, Any]) -> bool:
        """Return that every step overwrites what is needed."""
        return True

    def remember(self, view: View, proving: bool) -> None:
        """Note the average and v."""
        if "exp_avg" in view.state:
            view.before |= {"exp_avg": view.take("exp_avg").copy(), "v": view.take("exp_avg_sq").copy()}

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that v has to be computed."""
        return None

    def entering(self, view: View) -> float:
        """Return (1-β1)/c, how much of the newest e·g is in the step."""
        return 1 - view.beta(0)

    def unit(self, view: View) -> float:
        """Return what the average is multiplied with, beside 1/c, to be a step."""
        return 1.0

    def direction(self, view: View) -> Values:
        """Return what enters of g."""
        entered: Values = self.entering(view) * view.gradient
        return entered

    def remainder(self, view: View) -> Values | float:
        """Return what the average brought from earlier steps, and the decay."""
        share = self.unit(view) * view.beta(0) * self.entering(view) / (1 - view.beta(0))
        rest: Values | float = share * view.before.get("exp_avg", 0.0) + super().remainder(view)
        return rest


class ADOPT(Momentous):
    """ADOPT: divided by v before the step, clipped at t^(1/4), then averaged (Taniguchi et al., arXiv 2411.02853)."""

    def __init__(self) -> None:
        super().__init__()
        self.gauges_gradient = False
        self.formula = "e = lr / max(sqrt(v_{t-1}), eps, |g|/t^(1/4)), on (1-β1)·g as it enters exp_avg; 0 at t = 1"

    def coefficients(self, view: View) -> Coefficients:
        """Leave all of the denominator to the second moment."""
        return Coefficients(view.number("lr"), 1.0, 1.0, 0.0)

    def unit(self, view: View) -> float:
        """Return the learning rate, which is not in the average."""
        return view.number("lr")

    def second_moment(self, view: View) -> Values:
        """Return the square of the largest of the three; the first step moves nothing."""
        if "v" not in view.before:
            return np.zeros(len(view.gradient))
        # The clip |g|/D ≤ c is the same as D ≥ |g|/c.
        root = np.maximum(np.sqrt(view.before["v"]), view.number("eps"))
        squared: Values = np.square(np.maximum(root, np.abs(view.gradient) / self.bound(view)), dtype=np.float64)
        return squared

    def bound(self, view: View) -> float:
        """Return the default bound of the divided gradient, t^(1/4)."""
        return float(counted(view) ** 0.25)


class LaProp(Momentous):
    """LaProp: divided by its own v, then averaged (Ziyin et al., arXiv 2002.04839)."""

    def __init__(self) -> None:
        super().__init__(hat=True, floor=1e-15, corrected=(False, True))
        self.formula = "e = lr / ((sqrt(v) + eps)/sqrt(1-β2^t)), on (1-β1)/c·g as it enters exp_avg; c = its correction"

    def coefficients(self, view: View) -> Coefficients:
        """Return those of g as it enters, which no average fades."""
        return super().coefficients(view)._replace(beta1=0.0)

    def entering(self, view: View) -> float:
        """Return (1-β1)/c, c the average of the learning rates over the newest."""
        return (1 - view.beta(0)) * view.number("lr") / float(view.state["exp_avg_lr_1"])
