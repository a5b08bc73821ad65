"""Demon: the momentum of any optimizer decays, such that what a gradient still moves falls to nothing by the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from ..diagnostics.momentum_decay import decayed
from .elementwise import require
from .wrapper import Wrapper


class Demon(Wrapper):
    """Decaying momentum (Chen, Wolfe, Li and Kyrillidis, arXiv 1910.04952) for any optimizer with momentum.

        β_t = β·z / ((1-β) + β·z),    z = 1 - t/T,    t = 0, 1, …

    Before each step the groups' `momentum`, or β1 in their `betas`, is set to β_t; all else is the optimizer's. SGD
    becomes the paper's SGD with Demon. Adam, which averages and so divides by 1/(1-β), becomes another algorithm than
    the paper's: its step does not shrink; see `DemonAdam`. As SGD moves lr/(1-β_t) per gradient in all, Demon is a
    linear decay of the rate from lr/(1-β) to lr beside what it does to the oscillations: compare it with a schedule of
    the rate before you credit the momentum.

    Args:
        optimizer: has `momentum` or `betas` in its groups.
        steps: T, the steps of the run; later ones have no momentum.
        beta: β; None: what each group has when it is first stepped on.

    Raises:
        ValueError: for a setting out of range, an optimizer without momentum, and as for any `Wrapper`.
    """

    def __init__(self, optimizer: Optimizer, steps: int, beta: float | None = None) -> None:
        require(1 <= steps < torch.inf, "steps", steps, "the number of steps of the run, from 1 on")
        require(beta is None or 0 <= beta < 1, "beta", beta, "a number from 0 to below 1, or None")
        for group in getattr(optimizer, "param_groups", ()):
            if not ({"betas", "momentum"} & group.keys() and (beta or momentum(group))):
                raise ValueError(
                    f"`optimizer` must have a momentum that can decay, got {type(optimizer).__name__} with none; "
                    "set its `momentum` or `betas`, or pass `beta` where it has one."
                )
        super().__init__(optimizer, {"demon_steps": steps, "demon_beta": beta, "demon_t": 0})

    def move(self) -> None:
        """Set the momentum of this step, and take it."""
        t = max(group["demon_t"] for group in self.param_groups)  # a group that came later joins the others
        for group in self.param_groups:
            if group["demon_beta"] is None:
                group["demon_beta"] = momentum(group)
            beta = decayed(group["demon_beta"], t / group["demon_steps"])
            if "betas" in group:
                group["betas"] = (beta, *group["betas"][1:])
            else:
                group["momentum"] = beta
        self.optimizer.step()
        for group in self.param_groups:
            group["demon_t"] = t + 1


def momentum(group: Mapping[str, Any]) -> float:
    """Return a group's momentum; 0 where it has none."""
    return float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))
