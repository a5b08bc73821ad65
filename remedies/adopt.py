"""ADOPT: divides by a second moment that does not know the gradient, and averages what comes of it."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from .elementwise import Batch, Common, Elementwise, Params, average, average_squares, require, require_betas


class ADOPT(Elementwise):
    """ADOPT, its clipped form (Taniguchi et al., NeurIPS 2024, arXiv 2411.02853, algorithm 2).

        v_0 = g_0²,    m_t = β1·m_{t-1} + (1-β1)·clip(g_t / max(sqrt(v_{t-1}), eps), ±t^clip),
        θ ← θ - lr·m_t,    v_t = β2·v_{t-1} + (1-β2)·g_t²

    As v_{t-1} is older than g_t, no stepsize is small because the gradient is large, and any β2 < 1 converges at
    O(1/sqrt(T)) with a rate of that order. t counts the gradients after the first, which sets v and moves nothing; so
    the second one is held within ±1, as in the authors' code. Decoupled decay does not wait.

    The bound keeps early steps tame, and cuts rare large gradients off until t^clip exceeds every |g|/sqrt(v): so long
    they count less than they weigh, as with Adam. A coordinate whose gradients were all zero is divided by eps, so that
    its first other one is as large as the bound; a larger eps softens that.

    Args:
        params: tensors or groups of them.
        lr: the learning rate.
        betas: how long momentum and second moment remember.
        eps: the smallest divisor; above zero.
        clip: the power of t that bounds a divided gradient; None for the first version of the paper, without a bound.
        common: see `Elementwise`.

    Raises:
        ValueError: for a setting out of range.
    """

    takes = ("lr", "betas")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        clip: float | None = 0.25,
        **common: Unpack[Common],
    ) -> None:
        require_betas(betas)
        require(0 < eps < torch.inf, "eps", eps, "a finite number above 0")
        require(clip is None or 0 <= clip < torch.inf, "clip", clip, "None or a finite number from 0 on")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "clip": clip}, **common)

    def steps(self, batch: Batch) -> list[Tensor]:
        """Return lr·m, then let v know the gradient."""
        m, v, t = batch.state("exp_avg"), batch.state("exp_avg_sq"), batch.t - 1
        beta1, beta2 = batch.betas
        if t == 0:
            average_squares(v, batch.grads, 0.0)
            return [torch.zeros_like(g) for g in batch.grads]
        roots = torch._foreach_sqrt(v)
        torch._foreach_clamp_min_(roots, batch.number("eps"))
        divided = torch._foreach_div(batch.grads, roots)
        if batch.group["clip"] is not None:
            bound = t ** batch.number("clip")
            torch._foreach_clamp_max_(divided, bound)
            torch._foreach_clamp_min_(divided, -bound)
        average(m, list(divided), beta1)
        average_squares(v, batch.grads, beta2)
        return list(torch._foreach_mul(m, batch.number("lr")))
