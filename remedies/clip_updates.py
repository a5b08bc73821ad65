"""ClipUpdates: where gradients outgrow the second moment, the step of the tensor is divided by how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .adafom import AdaFom
from .demon_adam import DemonAdam
from .elementwise import real_view
from .wrapper import Noted, Wrapper, scale_steps

CORRECTED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, AdaFom, DemonAdam)
"""Optimizers whose v over 1-β2^t is an average of g² from the first step on; AdaFom's is so with β2 = 0."""


class ClipUpdates(Wrapper):
    """Update clipping, which makes AdamW StableAdamW (Wortsman et al., arXiv 2304.13013, algorithm 2).

        Δθ = (what the optimizer does) / max(1, RMS_t),    RMS_t = sqrt(mean(g_t² / max(v̂_t, eps²)))

    The mean is over a tensor. Adam's v is out of date when a signal changes: RMS_t rises above 1, and a burst of the
    loss follows some steps later. A tensor is slowed in such steps alone, which clipping gradients does not do. v̂ is
    v/(1-β2^t), or `max_exp_avg_sq` in its place with amsgrad. Every tensor's newest RMS_t is its state `update_rms`.
    Coordinates whose quotient is not a number are left out of the mean, so that they spoil no others.

    Args:
        optimizer: Adam or one of its kind, with `eps` in its groups and `exp_avg_sq` in its states.
        clip_decay: divide decoupled weight decay as well, as the paper does, whose clip divides the learning rate.

    Raises:
        ValueError: for an optimizer of another kind than torch's Adam, and as for any `Wrapper`.
    """

    def __init__(self, optimizer: Optimizer, clip_decay: bool = False) -> None:
        innermost: object = optimizer
        while isinstance(innermost, Wrapper):
            innermost = innermost.optimizer
        if isinstance(innermost, Optimizer) and not isinstance(innermost, CORRECTED):
            raise ValueError(
                f"`optimizer` must correct its second moment as torch's Adam does, got {type(innermost).__name__}; "
                "wrap Adam, AdamW, NAdam or RAdam."
            )
        super().__init__(optimizer, {"clip_decay": clip_decay})

    def move(self) -> None:
        """Divide each tensor's step by max(1, RMS_t)."""
        scale_steps(self.optimizer, clip, scales_decay="clip_decay")


def clip(noted: Noted, state: dict[str, Any]) -> Tensor:
    """Note a tensor's RMS_t, and return 1 / max(1, RMS_t)."""
    group, g = noted.group, -noted.grad if noted.group.get("maximize") else noted.grad
    if not noted.decoupled:
        g = g.add(noted.theta, alpha=float(group.get("weight_decay", 0.0)))
    v = second_moment(group, state).to(g.dtype)
    floor = max(float(group["eps"]) ** 2, torch.finfo(v.dtype).tiny)
    rms = g.square().div(v.clamp(min=floor)).nanmean().sqrt()
    state["update_rms"] = rms
    return 1 / rms.clamp(min=1)


def second_moment(group: Mapping[str, Any], state: Mapping[str, Any]) -> Tensor:
    """Return v̂ as the step that was just taken had it."""
    v = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    # A tensor where the counter is one, so that an accelerator is not waited for.
    t = torch.as_tensor(state["step"], dtype=torch.float64)
    return real_view(v) / (1 - float(group["betas"][1]) ** t)
