"""The effective stepsize of each optimizer class: what multiplied the (momentum of the) gradient in this very step.

A reader states e_t = lr·gain/(scale·sqrt(v) + eps) from the optimizer's own state after the step, and the direction
d_t that it multiplied. The self-check proves it on the user's run: -e_t·d_t plus the reader's `remainder` (weight
decay and the like) must reproduce Δθ. Here are torch's own; `readers.py` says which reader an optimizer has.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .accumulators import Coefficients
from .sampling import Coordinates

Values = NDArray[np.floating]


class Unreadable(ValueError):
    """What a reader raises to say, in its own words, that a tensor has no stepsize that it could state."""


class View:
    """One tensor as a reader sees it after a step: its group, its state and the watched coordinates.

    `step` is the optimizer's own count for this tensor, or the monitor's where the optimizer keeps none. `before` has
    what `Reader.remember` noted ahead of the step.
    """

    def __init__(self, param: torch.Tensor, coordinates: Coordinates) -> None:
        self.param, self.coordinates = param, coordinates
        self.group: Mapping[str, Any] = {}
        self.state: Mapping[str, Any] = {}
        self.step = 0.0
        self.before: dict[str, Any] = {}
        self.compiled = False
        """Whether `step` runs compiled by torch."""
        self.gradient: Values = np.empty(0)
        """g_t as the rule uses it: negated under `maximize`, with the L2 term added; shape `(watched,)`."""

    def number(self, key: str) -> float:
        """Return a hyper-parameter that may be a tensor as a float."""
        return float(self.group[key])

    def beta(self, which: int) -> float:
        """Return beta1 (0) or beta2 (1)."""
        return float(self.group["betas"][which])

    def take(self, key: str) -> Values:
        """Return the watched coordinates of a state tensor."""
        return self.coordinates.take(self.state[key])


class Reader(ABC):
    """How the stepsize of one optimizer class is read; `formula` is what a report prints."""

    formula: str
    decay_is_decoupled = False
    gauges_gradient = True
    """Whether sqrt(v) is a size of the gradient, so that RMS_t means something."""
    keeps_state = True
    """Whether an optimizer that has stepped has a state."""
    has_edge = True
    """Whether e multiplies g, or its average that fades by `Coefficients.beta1`, as the edge of stability takes it."""

    @abstractmethod
    def coefficients(self, view: View) -> Coefficients:
        """Return the scalars of the rule for this step."""

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return the state entry that is v as it stands; "" where v is one, None where v or g must be computed.

        A shortcut past `second_moment` for the steps between proofs, in which all tensors of a group at one step share
        one tensor's `coefficients`.
        """
        return None

    @abstractmethod
    def second_moment(self, view: View) -> Values:
        """Return v at the watched coordinates; zero where this step moved nothing."""

    def direction(self, view: View) -> Values:
        """Return what e multiplied, at the watched coordinates."""
        return view.gradient

    def remainder(self, view: View) -> Values | float:
        """Return the part of -Δθ that is not e·direction."""
        if self.decoupled(view.group):
            shrink: Values = view.number("lr") * view.number("weight_decay") * view.before["theta"]
            return shrink
        return 0.0

    def looseness(self, view: View) -> float:
        """Return the relative error of e that float32 makes where a step computes its scalars in it, as some do."""
        return 0.0

    def decoupled(self, group: Mapping[str, Any]) -> bool:
        """Return whether weight decay shrinks the parameter instead of entering the gradient."""
        return bool(group.get("decoupled_weight_decay", self.decay_is_decoupled))

    def adds_decay_to_gradient(self, group: Mapping[str, Any]) -> bool:
        """Return whether the rule's gradient is g + weight_decay·θ."""
        return float(group.get("weight_decay", 0.0)) != 0.0 and not self.decoupled(group)

    def remember(self, view: View, proving: bool) -> None:  # noqa: B027 - most readers need nothing
        """Note in `view.before` what the step will overwrite and is needed; `proving`: the self-check follows."""

    def fades(self, group: Mapping[str, Any]) -> bool:
        """Return whether v = β2·v + (1-β2)·g² with the g that stands after the step, and β2 among the coefficients."""
        return False

    def looks_ahead(self, group: Mapping[str, Any]) -> bool:
        """Return whether a step must be prepared for by `remember`, or by noting θ, also when no proof follows."""
        return self.adds_decay_to_gradient(group)

    def decays(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """Return the decay rates of the momentum and of the second moment; NaN where there is none."""
        if "betas" in group:
            return float(group["betas"][0]), float(group["betas"][1])
        return float(group.get("momentum", math.nan) or math.nan), math.nan


class SGD(Reader):
    """Stochastic gradient descent: the stepsize is the learning rate, with or without momentum."""

    gauges_gradient = False
    keeps_state = False
    formula = "e = lr, on the momentum buffer (or g without momentum)"

    def coefficients(self, view: View) -> Coefficients:
        """Write e = lr as lr·1/(0·sqrt(1) + 1)."""
        return Coefficients(view.number("lr"), 1.0, 0.0, 1.0)

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that v is one."""
        return None if group["nesterov"] or self.adds_decay_to_gradient(group) else ""

    def second_moment(self, view: View) -> Values:
        """There is none: one, so that every coordinate counts; the nesterov gradient is restored on the way."""
        if view.number("momentum") and view.group["nesterov"] and self.overwrites_gradient(view):
            view.gradient = view.gradient - view.number("momentum") * view.take("momentum_buffer")
        return np.ones(len(view.gradient))

    def direction(self, view: View) -> Values:
        """Return the buffer; with nesterov g + momentum·buffer."""
        momentum = view.number("momentum")
        if momentum == 0:
            return view.gradient
        buffer = view.take("momentum_buffer")
        return view.gradient + momentum * buffer if view.group["nesterov"] else buffer

    @staticmethod
    def overwrites_gradient(view: View) -> bool:
        """Return whether torch's foreach form leaves g + momentum·buffer in `p.grad` (it does when it may)."""
        group = view.group
        if group["maximize"] or view.number("weight_decay") != 0 or group.get("fused") or group["foreach"] is False:
            return False
        if group["foreach"] is None:
            from torch.optim.optimizer import _default_to_fused_or_foreach

            return _default_to_fused_or_foreach([view.param], differentiable=False, use_fused=False)[1]
        return True


class Adam(Reader):
    """Adam, AdamW and their amsgrad forms."""

    formula = "e = lr/(1-β1^t) / (sqrt(v)/sqrt(1-β2^t) + eps), on exp_avg; v = max_exp_avg_sq with amsgrad"

    def coefficients(self, view: View) -> Coefficients:
        """Bias corrections as gain and scale."""
        t, group = view.step, view.group
        beta1, beta2 = view.beta(0), view.beta(1)
        gain, scale = 1 / (1 - beta1**t), 1 / math.sqrt(1 - beta2**t)
        return Coefficients(float(group["lr"]), gain, scale, float(group["eps"]), beta1, beta2=beta2)

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return v, or its running maximum with amsgrad."""
        if self.adds_decay_to_gradient(group):
            return None
        return "max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"

    def second_moment(self, view: View) -> Values:
        """Return v, or its running maximum with amsgrad."""
        return view.take("max_exp_avg_sq" if view.group.get("amsgrad") else "exp_avg_sq")

    def fades(self, group: Mapping[str, Any]) -> bool:
        """Return whether v is the average and not its maximum; a subclass, whose v may be another, says so itself."""
        averages = type(self) in (Adam, AdamW, NAdam, RAdam) and not group.get("amsgrad")
        return averages and float(group["betas"][1]) > 0

    def direction(self, view: View) -> Values:
        """Return the momentum, not bias-corrected."""
        return view.take("exp_avg")

    def looseness(self, view: View) -> float:
        """Return what float32 makes of the two bias corrections; the second stands under a root."""
        return slip(view.beta(0), view.step) + 0.5 * slip(view.beta(1), view.step)


class AdamW(Adam):
    """AdamW where the group carries no flag of its own."""

    decay_is_decoupled = True


class NAdam(Adam):
    """Adam with Nesterov momentum: two multipliers over one root, so the direction holds both."""

    formula = "e = lr/(sqrt(v)/sqrt(1-β2^t) + eps), on (1-μ_t)/(1-Πμ)·g + μ_{t+1}/(1-Πμ·μ_{t+1})·exp_avg"

    def coefficients(self, view: View) -> Coefficients:
        """Only the second moment's correction; the momentum's is in the direction."""
        mu, _ = self.momenta(view)
        return super().coefficients(view)._replace(gain=1.0, nesterov=1 - mu)

    def momenta(self, view: View) -> tuple[float, float]:
        """Return μ_t and μ_{t+1} (Dozat 2016)."""
        decay, beta1 = view.number("momentum_decay"), view.beta(0)
        return beta1 * (1 - 0.5 * 0.96 ** (view.step * decay)), beta1 * (1 - 0.5 * 0.96 ** ((view.step + 1) * decay))

    def direction(self, view: View) -> Values:
        """Return the weighted sum of gradient and momentum."""
        mu, mu_next = self.momenta(view)
        product = float(view.state["mu_product"])
        on_gradient, on_momentum = (1 - mu) / (1 - product), mu_next / (1 - product * mu_next)
        mixed: Values = on_gradient * view.gradient + on_momentum * view.take("exp_avg")
        return mixed


class RAdam(Adam):
    """Rectified Adam: a plain momentum step while the variance of v is not yet defined."""

    formula = "e = lr·r_t·sqrt(1-β2^t)/(1-β1^t) / (sqrt(v) + eps), on exp_avg; lr/(1-β1^t) while ρ_t ≤ 5"

    def coefficients(self, view: View) -> Coefficients:
        """Switch from the plain to the rectified stepsize at ρ_t > 5 (Liu et al. 2020)."""
        t, beta2 = view.step, view.beta(1)
        plain = super().coefficients(view)
        correction2 = 1 - beta2**t
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / correction2
        if rho <= 5.0:
            return plain._replace(scale=0.0, eps=1.0)
        rect = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        root2 = math.sqrt(correction2)
        # The root is corrected, as RMS_t wants it.
        return plain._replace(gain=plain.gain * rect, scale=1 / root2, eps=plain.eps / root2)

    def looseness(self, view: View) -> float:
        """Return what it makes of ρ_t as well, at first a small difference of large numbers, and so of r_t."""
        t, beta2 = view.step, view.beta(1)
        correction2 = 1 - beta2**t
        rho = 2 / (1 - beta2) - 1 - 2 * t * beta2**t / correction2
        rectified = t / correction2 * slip(beta2, t) * (1 / (rho - 4) + 1 / (rho - 2)) if rho > 5.0 else 0.0
        return super().looseness(view) + rectified


class Adamax(Adam):
    """Adam with the infinity norm; eps is already inside `exp_inf`."""

    formula = "e = lr/(1-β1^t) / exp_inf, on exp_avg"

    def coefficients(self, view: View) -> Coefficients:
        """Correct nothing beside the momentum: the infinity norm is not biased."""
        return super().coefficients(view)._replace(scale=1.0, eps=0.0)

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return that the norm has yet to be squared."""
        return None

    def second_moment(self, view: View) -> Values:
        """Return the square of the norm, whose root is taken again."""
        return np.square(view.take("exp_inf"), dtype=np.float64)


class SparseAdam(Adam):
    """Adam on the touched rows alone, with eps inside the corrected root."""

    formula = "e = lr·sqrt(1-β2^t)/(1-β1^t) / (sqrt(v) + eps), on exp_avg, touched rows only"

    def coefficients(self, view: View) -> Coefficients:
        """Return eps-hat: the correction multiplies root and eps alike."""
        plain = super().coefficients(view)
        return plain._replace(eps=plain.eps * plain.scale)


class Adagrad(Reader):
    """AdaGrad with torch's learning-rate decay."""

    formula = "e = lr/(1+(t-1)·lr_decay) / (sqrt(sum) + eps), on g"

    def coefficients(self, view: View) -> Coefficients:
        """Count the decay as part of the learning rate."""
        lr = view.number("lr") / (1 + (view.step - 1) * view.number("lr_decay"))
        return Coefficients(lr, 1.0, 1.0, view.number("eps"))

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return the sum of squared gradients."""
        return None if self.adds_decay_to_gradient(group) else "sum"

    def second_moment(self, view: View) -> Values:
        """Return the sum of squared gradients."""
        return view.take("sum")


class RMSprop(Reader):
    """RMSprop, centred or not; with momentum the stepsize multiplies g as it enters the buffer."""

    formula = "e = lr/(sqrt(square_avg [- grad_avg²]) + eps), on g (as it enters the momentum buffer)"

    def coefficients(self, view: View) -> Coefficients:
        """No bias correction."""
        return Coefficients(view.number("lr"), 1.0, 1.0, view.number("eps"), beta2=view.number("alpha"))

    def fades(self, group: Mapping[str, Any]) -> bool:
        """Return whether v is not centred."""
        return type(self) is RMSprop and not group["centered"] and float(group["alpha"]) > 0

    def stored(self, group: Mapping[str, Any]) -> str | None:
        """Return the second moment unless it is centred."""
        return None if group["centered"] or self.adds_decay_to_gradient(group) else "square_avg"

    def second_moment(self, view: View) -> Values:
        """Return the (centred) second moment, in the precision in which torch subtracts."""
        square = view.take("square_avg")
        return square - np.square(view.take("grad_avg")) if view.group["centered"] else square

    def remainder(self, view: View) -> Values | float:
        """Return what the momentum buffer brought from earlier steps."""
        momentum = view.number("momentum")
        if momentum == 0:
            return 0.0
        carried: Values = view.number("lr") * momentum * view.before["momentum_buffer"]
        return carried

    def remember(self, view: View, proving: bool) -> None:
        """Note the buffer, which the step overwrites."""
        if proving and view.number("momentum") != 0:
            fresh = "momentum_buffer" not in view.state
            view.before["momentum_buffer"] = 0.0 if fresh else view.take("momentum_buffer").copy()

    def decays(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """`alpha` is the second moment's decay."""
        return super().decays(group)[0], float(group["alpha"])


class Adadelta(Reader):
    """Adadelta: the root of past squared updates over the root of past squared gradients."""

    gauges_gradient = False
    formula = "e = lr·sqrt(acc_delta_{t-1} + eps)/sqrt(square_avg + eps), on g"

    def coefficients(self, view: View) -> Coefficients:
        """Leave the quotient of the two roots to the second moment."""
        return Coefficients(view.number("lr"), 1.0, 1.0, 0.0)

    def second_moment(self, view: View) -> Values:
        """Return (square_avg + eps)/(acc_delta before the step + eps).

        The step has already moved acc_delta by r²·(acc_delta + eps) with r² = g²/(square_avg + eps); solve for it.
        """
        rho, eps = view.number("rho"), view.number("eps")
        square = view.take("square_avg").astype(np.float64) + eps
        ratio = np.square(view.gradient, dtype=np.float64) / square
        after = view.take("acc_delta").astype(np.float64)
        before = (after - (1 - rho) * ratio * eps) / (rho + (1 - rho) * ratio)
        return square / (np.maximum(before, 0.0) + eps)

    def decays(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """`rho` is the second moment's decay."""
        return math.nan, float(group["rho"])


class ASGD(Reader):
    """Averaged SGD: the stepsize is `eta`, which the step itself replaces by the next one."""

    gauges_gradient = False
    formula = "e = eta_{t-1} = lr/(1 + lambd·lr·(t-1))^alpha, on g"

    def coefficients(self, view: View) -> Coefficients:
        """Return the eta that was in force, noted before the step."""
        return Coefficients(view.before["eta"], 1.0, 0.0, 1.0)

    def second_moment(self, view: View) -> Values:
        """There is none."""
        return np.ones(len(view.gradient))

    def remainder(self, view: View) -> Values | float:
        """Return the decay by lambd·eta·θ."""
        shrink: Values = view.number("lambd") * view.before["eta"] * view.before["theta"]
        return shrink

    def looks_ahead(self, group: Mapping[str, Any]) -> bool:
        """Return that every step overwrites eta."""
        return True

    def remember(self, view: View, proving: bool) -> None:
        """Note eta; before the first step it is the learning rate."""
        view.before["eta"] = float(view.state.get("eta", view.group["lr"]))


class Adafactor(Reader):
    """Adafactor with factored second moments, relative stepsize and update clipping, as torch has it."""

    formula = "e = max(eps2, RMS(θ))·min(lr, 1/sqrt t) / max(1, RMS(u)/d) / sqrt(R·C/mean R), on g"
    decay_is_decoupled = True

    def coefficients(self, view: View) -> Coefficients:
        """Return the relative stepsize; the clipping factor is its gain."""
        view.before["estimate"] = self.estimate(view)
        relative = max(float(view.group["eps"][1]), view.before["rms"]) * min(
            view.number("lr"), 1 / math.sqrt(view.step)
        )
        assert view.param.grad is not None
        update = view.param.grad.detach().double() / view.before["estimate"].sqrt()
        rms = float(update.norm()) / math.sqrt(max(1, update.numel()))
        return Coefficients(relative, 1 / max(1.0, rms / view.number("d")), 1.0, 0.0)

    def second_moment(self, view: View) -> Values:
        """Return R_i·C_j/mean(R), or the full second moment of a vector."""
        return view.coordinates.take(view.before["estimate"])

    def estimate(self, view: View) -> torch.Tensor:
        """Return the second-moment estimate of the whole tensor, shape of the parameter."""
        eps1 = view.group["eps"][0]
        eps1 = torch.finfo(view.param.dtype).eps if eps1 is None else float(eps1)
        if "variance" in view.state:
            estimate: torch.Tensor = view.state["variance"].double()
        else:
            row, column = view.state["row_var"].double(), view.state["col_var"].double()
            estimate = row @ column / row.mean(dim=-2, keepdim=True).clamp(min=eps1)
        return estimate.clamp(min=eps1**2)

    def looks_ahead(self, group: Mapping[str, Any]) -> bool:
        """Return that every step scales with RMS(θ)."""
        return True

    def remember(self, view: View, proving: bool) -> None:
        """Note RMS(θ), which scales the step."""
        param = view.param.detach()
        view.before["rms"] = float(param.norm()) / math.sqrt(max(1, param.numel()))

    def decays(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """β2_t = 1 - t^beta2_decay tends to one: there is no fixed memory."""
        return math.nan, math.nan


READERS: dict[type[torch.optim.Optimizer], Reader] = {
    torch.optim.SGD: SGD(),
    torch.optim.Adam: Adam(),
    torch.optim.AdamW: AdamW(),
    torch.optim.NAdam: NAdam(),
    torch.optim.RAdam: RAdam(),
    torch.optim.Adamax: Adamax(),
    torch.optim.SparseAdam: SparseAdam(),
    torch.optim.Adagrad: Adagrad(),
    torch.optim.RMSprop: RMSprop(),
    torch.optim.Adadelta: Adadelta(),
    torch.optim.ASGD: ASGD(),
    torch.optim.Adafactor: Adafactor(),
}


def rebuilt_step(reader: Reader, view: View, now: Coefficients, v: Values) -> Values:
    """Return Δθ at the watched coordinates as the reader explains it: -(e·direction + remainder)."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        step: Values = -(stepsize(now, v) * reader.direction(view) + reader.remainder(view))
    return step


def slip(beta: float, t: float) -> float:
    """Return the relative error of 1 - β^t in float32, where β, its power and the difference are rounded each."""
    power: float = beta**t
    return 0.5 * float(torch.finfo(torch.float32).eps) * (1 + t * power) / (1 - power)


def stepsize(now: Coefficients, v: Values) -> Values:
    """Return e = lr·gain/(scale·√v + eps), 0 where v is."""
    lr, gain, scale, eps = now[:4]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        e: Values = np.where(v > 0, lr * (gain / (scale * np.sqrt(v, dtype=np.float64) + eps)), 0.0)
    return e
