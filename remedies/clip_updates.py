"""ClipUpdates: where gradients outgrow the second moment, the step of the tensor is divided by how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .elementwise import real_view
from .wrapper import Noted, Wrapper, scale_steps


class ClipUpdates(Wrapper):
    """Update clipping, which makes AdamW StableAdamW (Wortsman et al., arXiv 2304.13013, algorithm 2).

        Δθ = (what the optimizer does) / max(1, RMS_t),    RMS_t = sqrt(mean(g_t² / max(v̂_t, eps²)))

    The mean is over a tensor. Adam's v is out of date when a signal changes: RMS_t rises above 1, and a burst of the
    loss follows some steps later. A tensor is slowed in such steps alone, which clipping gradients does not do. v̂ is
    v/(1-β2^t), or `max_exp_avg_sq` in its place with amsgrad; an average that is no longer biased, in a group without
    `betas`, is taken as it is. Every tensor's newest RMS_t is its state `update_rms`. Coordinates whose quotient is not
    a number are left out of the mean, so that they spoil no others.

    Args:
        optimizer: Adam or one of its kind, with `eps` in its groups and `exp_avg_sq` in its states.
        clip_decay: divide decoupled weight decay as well, as the paper does, whose clip divides the learning rate.

    Raises:
        ValueError: for an optimizer without `eps`, and as for any `Wrapper`.
    """

    def __init__(self, optimizer: Optimizer, clip_decay: bool = False) -> None:
        groups = getattr(optimizer, "param_groups", ())
        if not all(isinstance(group.get("eps"), (int, float)) for group in groups):
            raise ValueError(f"`optimizer` must be one of Adam's kind, with an `eps`, got {type(optimizer).__name__}.")
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
    """Return v̂ as the step that was just taken had it.

    Raises:
        RuntimeError: where there is none.
    """
    v = state.get("max_exp_avg_sq", state.get("exp_avg_sq"))
    if v is None:
        raise RuntimeError(
            "ClipUpdates needs the second moment `exp_avg_sq` among the states of the optimizer that it wraps, found "
            f"{', '.join(sorted(state)) or 'no state'}; wrap Adam, AdamW or one that keeps what they keep."
        )
    if "betas" not in group:
        return real_view(v)
    # A tensor where the counter is one, so that an accelerator is not waited for.
    t = torch.as_tensor(state.get("step", group.get("step")), dtype=torch.float64)
    return real_view(v) / (1 - float(group["betas"][1]) ** t)
