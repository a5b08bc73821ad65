"""Adam's stepsize on a direction that is not the momentum alone: Adan, AdEMAMix, QHAdam, Grams, Ano."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .accumulators import Coefficients
from .readers_adam import Written, betas, counted
from .stepsizes import Values, View


class Mixed(Written):
    """Adam's stepsize on a direction that is not the momentum alone."""

    has_edge = False


class Adan(Mixed):
    """Adan: one stepsize on momentum and averaged change of the gradient (Xie et al., arXiv 2208.06677).

    `unbiased`: the averages are corrected as they stand (optimi). Decay that is not Adam's divides by 1 + lr·λ.
    """

    def __init__(self, *, unbiased: bool = False) -> None:
        super().__init__()
        self.unbiased = unbiased
        # v is the second moment of g + (1-β2)·(g - g'), no size of g itself.
        self.gauges_gradient = False
        if unbiased:
            self.formula = "e = lr/(1-β1^t) / (sqrt(v) + eps), on (1-β1^t)·(exp_avg + β2·exp_avg_diff)"
        else:
            on = "exp_avg + β2·(1-β1^t)/(1-β2^t)·exp_avg_diff"
            self.formula = f"e = lr/(1-β1^t) / (sqrt(v)/sqrt(1-β3^t) + eps), on {on}"

    def coefficients(self, view: View) -> Coefficients:
        """Correct v by β3, and let a proximal decay divide the step."""
        first, _, third = self.corrections(view)
        scale = 1.0 if self.unbiased else 1 / math.sqrt(third)
        lr = view.number("lr") / (1 + self.proximal(view))
        return Coefficients(lr, 1 / first, scale, view.number("eps"), betas(view.group)[0])

    @staticmethod
    def rates(group: Mapping[str, Any]) -> tuple[float, float, float]:
        """Return β1, β2 and β3."""
        first, second, third = group["betas"] if "betas" in group else (group[f"beta{i}"] for i in (1, 2, 3))
        return float(first), float(second), float(third)

    def corrections(self, view: View) -> tuple[float, ...]:
        """Return 1 - β^t of the three averages."""
        return tuple(1 - beta ** counted(view) for beta in self.rates(view.group))

    def second_moment(self, view: View) -> Values:
        """Return v; on the way g, which the step leaves negated in another entry."""
        view.gradient = -view.take("previous_grad" if "previous_grad" in view.state else "prev_grad")
        return view.take("exp_avg_sq")

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that g is not where it is looked for."""
        return None

    def direction(self, view: View) -> Values:
        """Return the momentum and the change, each as much as its correction makes of it."""
        (first, second, _), beta2 = self.corrections(view), self.rates(view.group)[1]
        average, change = view.take("exp_avg"), view.take("exp_avg_diff")
        mixed: Values = (
            first * (average + beta2 * change) if self.unbiased else average + beta2 * first / second * change
        )
        return mixed

    def decoupled(self, group: Mapping[str, Any]) -> bool:
        """Return whether the decay is Adam's."""
        return bool(group.get("weight_decouple", group.get("adam_wd", False)))

    def proximal(self, view: View) -> float:
        """Return lr·λ of a decay that divides θ after the step; 0 where it is Adam's."""
        rate = view.number("lr") if not view.group.get("decouple_lr") else view.number("lr") / view.number("max_lr")
        return 0.0 if self.decoupled(view.group) else rate * view.number("weight_decay")

    def remainder(self, view: View) -> Values | float:
        """Return the decay, of whichever kind."""
        shrink = self.proximal(view)
        divided: Values | float = shrink / (1 + shrink) * view.before["theta"] if shrink else super().remainder(view)
        return divided

    def decays(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """Return β1 and β3, the rate of v."""
        return self.rates(group)[0], self.rates(group)[2]


class AdEMAMix(Mixed):
    """AdEMAMix: a slow average beside the fast one (Pagliardini et al., arXiv 2409.03137)."""

    def __init__(self) -> None:
        super().__init__()
        self.formula = "e = lr/(1-β1^t) / (sqrt(v)/sqrt(1-β2^t) + eps), on exp_avg + (1-β1^t)·α_t·exp_avg_slow"

    def direction(self, view: View) -> Values:
        """Return the sum of both averages, of which the fast one alone is corrected."""
        t, alpha, rising = counted(view), view.number("alpha"), view.group["t_alpha_beta3"]
        alpha = alpha if rising is None else min(t * alpha / float(rising), alpha)
        mixed: Values = view.take("exp_avg") + (1 - view.beta(0) ** t) * alpha * view.take("exp_avg_slow")
        return mixed


class SimplifiedAdEMAMix(Mixed):
    """Simplified AdEMAMix: momentum and α·g over one root (Morwani et al., arXiv 2502.02431)."""

    def __init__(self) -> None:
        super().__init__()
        self.formula = "e = lr / (sqrt(v)·c + c²·eps) with c² = Σ(1-β2)β2^i, on exp_avg + α·g"

    def coefficients(self, view: View) -> Coefficients:
        """Return what the package makes of its own sum of weights, 1-β2^t."""
        weight = float(view.state["den_sum"])
        return Coefficients(view.number("lr"), 1.0, math.sqrt(weight), weight * view.number("eps"), view.beta(0))

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that each tensor has a sum of weights of its own."""
        return None

    def direction(self, view: View) -> Values:
        """Return momentum and gradient."""
        mixed: Values = view.take("exp_avg") + view.number("alpha") * view.gradient
        return mixed


class QHAdam(Mixed):
    """QHAdam: both averages are mixed with what is new (Ma and Yarats, arXiv 1810.06801); they are unbiased."""

    def __init__(self) -> None:
        super().__init__()
        self.formula = "e = lr / (sqrt(ν2·v + (1-ν2)·g²) + eps), on ν1·exp_avg + (1-ν1)·g"

    def coefficients(self, view: View) -> Coefficients:
        """Correct nothing: the averages' own weights do."""
        return Coefficients(view.number("lr"), 1.0, 1.0, view.number("eps"))

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return v, where nothing is mixed into it."""
        return "exp_avg_sq" if float(group["nus"][1]) == 1.0 else None

    def second_moment(self, view: View) -> Values:
        """Return the mixture under the root."""
        nu = float(view.group["nus"][1])
        mixed: Values = nu * view.take("exp_avg_sq") + (1 - nu) * np.square(view.gradient)
        return mixed

    def direction(self, view: View) -> Values:
        """Return the mixture of momentum and gradient."""
        nu = float(view.group["nus"][0])
        mixed: Values = nu * view.take("exp_avg") + (1 - nu) * view.gradient
        return mixed


class Grams(Mixed):
    """Grams: the momentum's size with the gradient's sign (Cao et al., arXiv 2412.17107)."""

    def __init__(self) -> None:
        super().__init__()
        self.formula = "e = lr/(1-β1^t) / (sqrt(v)/sqrt(1-β2^t) + eps), on |exp_avg|·sign(g)"

    def direction(self, view: View) -> Values:
        """Return the momentum, turned downhill."""
        turned: Values = np.abs(view.take("exp_avg")) * np.sign(view.gradient)
        return turned


class Ano(Mixed):
    """Ano: the gradient's size with the momentum's sign (Kegreisz, arXiv 2508.18258)."""

    def __init__(self) -> None:
        super().__init__(corrected=(False, True))
        self.formula = "e = lr / (sqrt(v)/sqrt(1-β2^t) + eps), on |g|·sign(exp_avg)"

    def direction(self, view: View) -> Values:
        """Return the gradient, turned as the momentum goes."""
        turned: Values = np.abs(view.gradient) * np.sign(view.take("exp_avg"))
        return turned
