"""DemonAdam: Adam whose momentum decays by Demon's rule, as the paper has it or as an average."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from ..diagnostics.momentum_decay import decayed
from .elementwise import (
    Batch,
    Common,
    Elementwise,
    Params,
    average,
    average_squares,
    over_root,
    require,
    require_betas,
    require_eps,
)


class DemonAdam(Elementwise):
    """Adam with decaying momentum (Chen, Wolfe, Li and Kyrillidis, arXiv 1910.04952).

        m_t = g_t + β_t·m_{t-1},    v_t = β2·v_{t-1} + (1-β2)·g_t²,    θ ← θ - lr·m_t / (sqrt(v_t/(1-β2^t)) + eps)

    β_t is β1 at a tensor's first step and 0 after T of them, see `decayed`. m is a sum and not an average: at the same
    lr a step is 1/(1-β1) times as long as Adam's, ten times at β1 = 0.9, and shrinks to Adam's own length by T. So this
    has a decay of the rate in it, and needs an lr of about (1-β1) times Adam's. With `average` m is Adam's average,

        m_t = β_t·m_{t-1} + (1-β_t)·g_t,    over 1 - β_t^t,

    which is `Demon` around torch's Adam: only the memory shrinks, the step does not.

    Args:
        params: tensors or groups of them.
        steps: T, the steps of the run.
        lr: the learning rate.
        betas: β1 at the start, and β2.
        eps: is added to the root.
        average: let m be an average.
        common: see `Elementwise`.

    Raises:
        ValueError: for a setting out of range.
    """

    def __init__(
        self,
        params: Params,
        steps: int,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        average: bool = False,
        **common: Unpack[Common],
    ) -> None:
        require(1 <= steps < torch.inf, "steps", steps, "the number of steps of the run, from 1 on")
        require_betas(betas)
        require_eps(eps)
        settings = {"lr": lr, "betas": betas, "eps": eps, "demon_steps": steps, "average": average}
        super().__init__(params, settings, **common)

    def steps(self, batch: Batch) -> list[Tensor]:
        """Return lr·m / (sqrt(v̂) + eps)."""
        m, v = batch.state("exp_avg"), batch.state("exp_avg_sq")
        (beta1, beta2), t = batch.betas, batch.t
        beta = decayed(beta1, (t - 1) / batch.number("demon_steps"))
        if batch.group["average"]:
            average(m, batch.grads, beta)
        else:
            torch._foreach_mul_(m, beta)
            torch._foreach_add_(m, batch.grads)
        average_squares(v, batch.grads, beta2)
        steps = over_root(m, v, 1 / math.sqrt(1 - beta2**t), batch.number("eps"))
        torch._foreach_mul_(steps, batch.number("lr") / (1 - beta**t if batch.group["average"] else 1.0))
        return steps
