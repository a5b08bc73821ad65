"""AMSGrad: Adam whose second moment is never forgotten, so that its stepsizes never rise."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from .elementwise import (
    Batch,
    Common,
    Elementwise,
    Params,
    average,
    average_squares,
    over_root,
    require_betas,
    require_eps,
)


class AMSGrad(Elementwise):
    """AMSGrad as its authors have it (Reddi, Kale and Kumar, ICLR 2018, arXiv 1904.09237, algorithm 2).

        m_t = β1·m_{t-1} + (1-β1)·g_t,    v_t = β2·v_{t-1} + (1-β2)·g_t²,    v̂_t = max(v̂_{t-1}, v_t),
        θ ← θ - lr·m_t / (sqrt(v̂_t) + eps)

    No stepsize rises unless the rate does: their Γ_t ≥ 0, on which theorem 4 rests. `torch.optim.Adam(amsgrad=True)`
    takes the maximum of the raw v_t and divides by today's bias correction, which grows for 1/(1-β2) steps: after a
    large first gradient its stepsizes rise, thirtyfold at β2 = 0.999. Here nothing is corrected, as in the paper. So
    stepsizes begin up to 1/sqrt(1-β2) times as large as Adam's and reach theirs once v has filled; warm the rate up
    over some 1/(1-β2) steps, or take a smaller β2, where that is too much.

    Args:
        params: tensors or groups of them.
        lr: the learning rate.
        betas: how long the averages remember; theorem 4 asks for β1 < sqrt(β2).
        eps: is added to the root; the paper has none.
        common: see `Elementwise`.

    Raises:
        ValueError: for a setting out of range.
    """

    kept = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        **common: Unpack[Common],
    ) -> None:
        require_betas(betas)
        require_eps(eps)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps}, **common)

    def steps(self, batch: Batch) -> list[Tensor]:
        """Return lr·m / (sqrt(v̂) + eps)."""
        m, v, v_hat = batch.state("exp_avg"), batch.state("exp_avg_sq"), batch.state("max_exp_avg_sq")
        beta1, beta2 = batch.betas
        average(m, batch.grads, beta1)
        average_squares(v, batch.grads, beta2)
        torch._foreach_maximum_(v_hat, v)
        steps = over_root(m, v_hat, 1.0, batch.number("eps"))
        torch._foreach_mul_(steps, batch.number("lr"))
        return steps
