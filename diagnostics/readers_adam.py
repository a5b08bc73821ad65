"""Adam as other packages write it: which state is v, where eps stands, and what is corrected for its bias.

All are e = lr·gain/(scale·sqrt(v + floor) + eps) on the momentum. They differ from torch in three habits: the group and
not the state counts the steps; L2, clipping and `maximize` are done to `p.grad` itself, so that g is what the step left
there; and the decay that shrinks θ goes by other flags.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .accumulators import Coefficients
from .stepsizes import Adam, Values, View


def counted(view: View) -> float:
    """Return the number of this step: the group's count where it keeps one, else the tensor's own."""
    return float(view.group.get("step", view.step))


def betas(group: Mapping[str, Any]) -> tuple[float, float]:
    """Return β1 and β2, whether the group holds a pair or two entries."""
    if "betas" in group:
        return float(group["betas"][0]), float(group["betas"][1])
    return float(group["beta1"]), float(group["beta2"])


def shrinkage(group: Mapping[str, Any]) -> float:
    """Return s where the step shrinks θ by s·θ: lr·weight_decay, or weight_decay alone where `fixed_decay` says so."""
    decay = float(group.get("weight_decay", 0.0))
    if group.get("decouple_lr"):
        return decay * float(group["lr"]) / float(group["max_lr"])
    return decay if group.get("fixed_decay") else decay * float(group["lr"])


class Written(Adam):
    """Adam with the differences stated; a twin of it for every optimizer that keeps an average and a second moment.

    Args:
        moment: the state that is v; with `ams_bound` or `amsgrad` its running maximum.
        hat: whether eps stands inside the corrected root ("eps-hat"): lr·sqrt(1-β2^t)/(sqrt(v) + eps).
        floor: what is added to v under the root.
        corrected: whether momentum and second moment are corrected for their bias.
        decoupled: whether weight decay shrinks θ where no flag of the group says.
        of: what the momentum is an average of, where that is not g.
    """

    def __init__(
        self,
        moment: str = "exp_avg_sq",
        *,
        hat: bool = False,
        floor: float = 0.0,
        corrected: tuple[bool, bool] = (True, True),
        decoupled: bool = False,
        of: str = "",
    ) -> None:
        if of:
            self.has_edge = False
        self.moment, self.hat, self.floor, self.corrected = moment, hat, floor, corrected
        self.decay_is_decoupled = decoupled
        # A variance around the momentum (AdaBelief) is no size of the gradient.
        self.gauges_gradient = moment != "exp_avg_var"
        gain = "/(1-β1^t)" if corrected[0] else ""
        root = f"sqrt({moment}{f' + {floor:g}' if floor else ''})"
        below = f"{root} + eps" if not corrected[1] else f"{root}/sqrt(1-β2^t) + eps"
        if hat and corrected[1]:
            below = f"({root} + eps)/sqrt(1-β2^t)"
        self.formula = f"e = lr{gain} / ({below}), on exp_avg{of and f' of {of}'}"

    def coefficients(self, view: View) -> Coefficients:
        """Return the corrections that this package makes."""
        t, (beta1, beta2) = counted(view), betas(view.group)
        gain = 1 / (1 - beta1**t) if self.corrected[0] and not view.group.get("adam_debias") else 1.0
        scale = 1 / math.sqrt(1 - beta2**t) if self.corrected[1] else 1.0
        eps = view.number("eps") * (scale if self.hat else 1.0)
        return Coefficients(view.number("lr"), gain, scale, eps, beta1)

    def kept(self, group: Mapping[str, Any]) -> str:
        """Return the state entry that is v without the floor."""
        return f"max_{self.moment}" if group.get("ams_bound") or group.get("amsgrad") else self.moment

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return where v is, unless something is added to it."""
        return None if self.floor else self.kept(group)

    def second_moment(self, view: View) -> Values:
        """Return v with the floor; what has seen no gradient stays zero."""
        v = view.take(self.kept(view.group))
        return np.where(v > 0, v + self.floor, 0.0) if self.floor else v

    def remainder(self, view: View) -> Values | float:
        """Return the shrinking of θ."""
        rate = shrinkage(view.group) if self.decoupled(view.group) else 0.0
        shrink: Values | float = rate * view.before["theta"] if rate else 0.0
        return shrink

    def decoupled(self, group: Mapping[str, Any]) -> bool:
        """Return what the package's flag says: `weight_decouple`, or `decouple_wd`."""
        default = group.get("decouple_wd", self.decay_is_decoupled) or bool(group.get("decouple_lr"))
        return bool(group.get("weight_decouple", default))

    def adds_decay_to_gradient(self, group: Mapping[str, Any]) -> bool:
        """Return that nothing is left to add: `p.grad` has it."""
        return False

    def decays(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """Return β1 and β2."""
        return betas(group)


class Debiased(Written):
    """Adam whose averages are unbiased as they stand: the decay rate itself is β(1-β^(t-1))/(1-β^t) (optimi)."""

    def __init__(self, *, decoupled: bool = False) -> None:
        super().__init__(corrected=(True, False), decoupled=decoupled)
        self.formula = "e = lr/(1-β1^t) / (sqrt(exp_avg_sq) + eps), on (1-β1^t)·exp_avg"

    def direction(self, view: View) -> Values:
        """Return the momentum as Adam keeps it, so that e means the same."""
        biased: Values = view.take("exp_avg") * (1 - betas(view.group)[0] ** counted(view))
        return biased


class Stable(Debiased):
    """StableAdamW: the step is divided by max(1, RMS_t) of its tensor (Wortsman et al., arXiv 2304.13013)."""

    def __init__(self) -> None:
        super().__init__(decoupled=True)
        self.formula = "e = lr/(1-β1^t)/max(1, RMS_t) / (sqrt(exp_avg_sq) + eps), on (1-β1^t)·exp_avg"

    def coefficients(self, view: View) -> Coefficients:
        """Return Adam's, with RMS_t in the learning rate."""
        plain = super().coefficients(view)
        return plain._replace(lr=plain.lr / max(1.0, self.spike(view)))

    @staticmethod
    def spike(view: View) -> float:
        """Return RMS_t = sqrt(mean(g²/max(v, eps²))) of the whole tensor."""
        assert view.param.grad is not None
        g, v = view.param.grad.detach().double(), view.state["exp_avg_sq"].double()
        return float(g.square().div(v.clamp(min=view.number("eps") ** 2)).mean().sqrt())

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that no two tensors share their coefficients."""
        return None

    def remainder(self, view: View) -> Values | float:
        """Return the decay, which RMS_t divides as well."""
        divided: Values | float = super().remainder(view) / max(1.0, self.spike(view))
        return divided


class Fused(Written):
    """Apex's and DeepSpeed's FusedAdam: their flag `bias_correction` may leave both corrections out.

    Decoupled decay is a matter of the optimizer (`adam_w_mode`) and not of the group, and L2 is added inside the
    kernel: which one it is the self-check finds out.
    """

    def __init__(self, *, decoupled: bool) -> None:
        super().__init__(decoupled=decoupled)

    def coefficients(self, view: View) -> Coefficients:
        """Return Adam's, corrected where the group says so."""
        plain = super().coefficients(view)
        return plain if view.group.get("bias_correction", True) else plain._replace(gain=1.0, scale=1.0)

    def adds_decay_to_gradient(self, group: Mapping[str, Any]) -> bool:
        """Return whether the kernel's gradient is g + weight_decay·θ."""
        return not self.decay_is_decoupled and float(group.get("weight_decay", 0.0)) != 0.0

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return v where g is `p.grad`."""
        return None if self.adds_decay_to_gradient(group) else super().stored(group)
