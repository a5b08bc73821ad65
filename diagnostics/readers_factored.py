"""Adafactor as transformers and pytorch_optimizer write it (Shazeer and Stern, arXiv 1804.04235)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from .accumulators import Coefficients
from .stepsizes import Adafactor, Values, View


class Factored(Adafactor):
    """Adafactor with momentum, whose average is one of steps: e then multiplies g as it enters.

    torch's differs: it has no momentum, and its learning rate only bounds the relative stepsize.
    """

    has_edge = False
    formula = "e = max(eps2, RMS(θ))·ρ_t / max(1, RMS(u)/d) / sqrt(R·C/mean R), on g [(1-β1)·g as it enters exp_avg]"

    def coefficients(self, view: View) -> Coefficients:
        """Return the relative stepsize; the clipping factor is its gain."""
        view.before["estimate"] = self.estimate(view)
        assert view.param.grad is not None
        update = view.param.grad.detach().double() / view.before["estimate"].sqrt()
        rms = float(update.norm()) / math.sqrt(max(1, update.numel()))
        return Coefficients(self.rate(view), 1 / max(1.0, rms / float(view.group.get("clip_threshold", 1.0))), 1.0, 0.0)

    def rate(self, view: View) -> float:
        """Return lr or ρ_t = min(0.01, 1/sqrt t), times the parameter's size where that is asked for."""
        group, t = view.group, float(view.group.get("step", view.step))
        if group["relative_step"]:
            rate = min(1e-6 * t if group["warmup_init"] else 0.01, 1 / math.sqrt(t))
        else:
            rate = view.number("lr")
        smallest = float(group["eps"][1] if "eps" in group else group["eps2"])
        return rate * (max(smallest, view.before["rms"]) if group["scale_parameter"] else 1.0)

    def estimate(self, view: View) -> torch.Tensor:
        """Return the second-moment estimate of the whole tensor, shape of the parameter."""
        if "exp_avg_sq" in view.state:
            full: torch.Tensor = view.state["exp_avg_sq"].double()
            return full
        row, column = view.state["exp_avg_sq_row"].double(), view.state["exp_avg_sq_col"].double()
        product: torch.Tensor = (row / row.mean(dim=-1, keepdim=True)).unsqueeze(-1) * column.unsqueeze(-2)
        return product

    @staticmethod
    def momentum(group: Mapping[str, Any]) -> float:
        """Return β1, 0 where there is none."""
        return float((group["betas"][0] if "betas" in group else group["beta1"]) or 0.0)

    def direction(self, view: View) -> Values:
        """Return what enters of g."""
        entered: Values = (1 - self.momentum(view.group)) * view.gradient
        return entered

    def remainder(self, view: View) -> Values | float:
        """Return what the average brought from earlier steps, and the decay."""
        decay = float(view.group["weight_decay"]) if self.decoupled(view.group) else 0.0
        shrink = decay * (1.0 if view.group.get("fixed_decay") else self.rate(view)) * view.before["theta"]
        rest: Values = self.momentum(view.group) * view.before.get("exp_avg", 0.0) + shrink
        return rest

    def decoupled(self, group: Mapping[str, Any]) -> bool:
        """Return what pytorch_optimizer's flag says; transformers' always shrinks θ."""
        return bool(group.get("weight_decouple", True))

    def adds_decay_to_gradient(self, group: Mapping[str, Any]) -> bool:
        """Return that L2 was added to `p.grad` itself."""
        return False

    def remember(self, view: View, proving: bool) -> None:
        """Note RMS(θ), which the state has not in every form of the step, and the average."""
        super().remember(view, proving)
        if proving and "exp_avg" in view.state:
            view.before["exp_avg"] = view.take("exp_avg").copy()
