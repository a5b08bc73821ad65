"""AdaFom: Adam whose second moment weighs all gradients alike, so that its stepsizes settle."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from .elementwise import Batch, Common, Elementwise, Params, average, over_root, require, require_eps


class AdaFom(Elementwise):
    """AdaGrad with first-order momentum (Chen, Liu, Sun and Hong, ICLR 2019, section 3.3).

        m_t = β1·m_{t-1} + (1-β1)·g_t,    v_t = (1-1/t)·v_{t-1} + g_t²/t,    θ ← θ - lr·m_t / (sqrt(v_t) + eps)

    v_t is the mean of all squared gradients, so the stepsizes change by O(1/t): (c) grows as log t at a constant rate,
    and c/a vanishes. With a rate that falls as 1/sqrt(t), as by

        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (t + 1) ** -0.5),

    (c) stays bounded, and theory lets it converge at O(log T/sqrt(T)). Neither average is corrected for its beginning,
    as in the paper.

    Args:
        params: tensors or groups of them.
        lr: the learning rate.
        beta1: how long the momentum remembers; kept as the first of a group's `betas`, as in Adam's groups.
        eps: is added to the root; the paper has none.
        common: see `Elementwise`.

    Raises:
        ValueError: for a setting out of range.
    """

    def __init__(
        self, params: Params, lr: float = 1e-3, beta1: float = 0.9, eps: float = 1e-8, **common: Unpack[Common]
    ) -> None:
        require(0 <= beta1 < 1, "beta1", beta1, "a number from 0 to below 1")
        require_eps(eps)
        super().__init__(params, {"lr": lr, "betas": (beta1, 0.0), "eps": eps}, **common)

    def steps(self, batch: Batch) -> list[Tensor]:
        """Return lr·m / (sqrt(v) + eps)."""
        m, v = batch.state("exp_avg"), batch.state("exp_avg_sq")
        average(m, batch.grads, batch.betas[0])
        torch._foreach_lerp_(v, torch._foreach_mul(batch.grads, batch.grads), 1 / batch.t)
        steps = over_root(m, v, 1.0, batch.number("eps"))
        torch._foreach_mul_(steps, batch.number("lr"))
        return steps
