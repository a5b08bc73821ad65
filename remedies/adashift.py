"""AdaShift: the gradient that is stepped on and the one that sets the stepsize lie n steps apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Unpack

import torch
from torch import Tensor

from .elementwise import Batch, Common, Elementwise, Params, require, require_betas, require_eps

Spatial = Literal["none", "mean", "max"]

OVER: dict[Spatial, Callable[[Tensor], Tensor]] = {
    "none": lambda square: square,
    "mean": lambda square: square.mean(),
    # An empty tensor has no largest entry.
    "max": lambda square: square.max() if square.numel() else square.sum(),
}
"""What v averages of a tensor of squared gradients."""


class AdaShift(Elementwise):
    """AdaShift (Zhou, Zhang, Lu, Wang, Zhang and Yu, ICLR 2019, arXiv 1810.00143, algorithm 2).

        m_t = Σ_{i<n} β1^i·g_{t-i} / Σ_{i<n} β1^i,    v_t = β2·v_{t-1} + (1-β2)·φ(g_{t-n}²),
        θ ← θ - lr·m_t / (sqrt(v_t/(1-β2^{t-n})) + eps)

    Where gradients of different steps are independent, so are m_t and v_t, and E[m/sqrt(v)] = E[m]·E[1/sqrt(v)]: no
    stepsize is small because the gradient is large. φ takes the mean or the largest square of the tensor, which is then
    the same for all its coordinates, as for SGD with an adaptive rate a tensor; a rate some ten times Adam's suits it.

    For n steps nothing moves but decoupled decay, while the window fills; nor does later, what has v = 0: its first
    gradient is less than n steps old. A step may be of any size, as m is not bounded by sqrt(v). The window costs n
    copies of the gradients.

    Args:
        params: tensors or groups of them.
        lr: the learning rate.
        betas: the weights within the window, and how long v remembers.
        eps: is added to the root.
        window: n, how many gradients the momentum knows, and by how many steps v is late; 1 is a step on g itself.
        spatial: φ; "none" for a v of each coordinate.
        common: see `Elementwise`.

    Raises:
        ValueError: for a setting out of range.
    """

    takes = ("lr", "betas")
    kept = ("exp_avg",)
    shaped = ("exp_avg_sq", "window")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-10,
        window: int = 10,
        spatial: Spatial = "max",
        **common: Unpack[Common],
    ) -> None:
        require_betas(betas)
        require_eps(eps)
        require(isinstance(window, int) and window >= 1, "window", window, "a whole number from 1 on")
        require(spatial in OVER, "spatial", spatial, '"none", "mean" or "max"')
        settings = {"lr": lr, "betas": betas, "eps": eps, "window": window, "spatial": spatial}
        super().__init__(params, settings, **common)

    def steps(self, batch: Batch) -> list[Tensor]:
        """Return lr·m / (sqrt(v/(1-β2^{t-n})) + eps), zero where v is."""
        (beta1, beta2), n, phi = batch.betas, int(batch.group["window"]), OVER[batch.group["spatial"]]
        if batch.t == 1:
            for state, g in zip(batch.states, batch.grads, strict=True):
                state.update(exp_avg_sq=phi(torch.zeros_like(g)), window=g.new_zeros((n, *g.shape)))
        m, v = batch.state("exp_avg"), batch.state("exp_avg_sq")
        oldest = [window[batch.t % n] for window in batch.state("window")]

        # What has not come yet is zero in the window, so that m is right from step n on.
        total = sum(beta1**i for i in range(n))
        torch._foreach_add_(m, oldest, alpha=-(beta1 ** (n - 1)) / total)
        torch._foreach_mul_(m, beta1)
        torch._foreach_add_(m, batch.grads, alpha=1 / total)

        seen = batch.t - n
        if seen > 0:
            torch._foreach_lerp_(v, [phi(g.square()) for g in oldest], 1 - beta2)
        torch._foreach_copy_(oldest, batch.grads)
        if seen <= 0:
            return [torch.zeros_like(g) for g in batch.grads]
        roots = torch._foreach_sqrt(torch._foreach_div(v, 1 - beta2**seen))
        torch._foreach_add_(roots, batch.number("eps"))
        for root, of in zip(roots, v, strict=True):
            root.masked_fill_(of == 0, torch.inf)
        steps = list(torch._foreach_div(m, roots))
        torch._foreach_mul_(steps, batch.number("lr"))
        return steps
