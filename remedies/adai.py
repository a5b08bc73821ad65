"""Adai: the averaging time adapts to each coordinate, not the stepsize."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from .elementwise import Batch, Common, Elementwise, Params, average_squares, require


class Adai(Elementwise):
    """Adaptive inertia (Xie, Wang, Zhang, Sato and Sugiyama, ICML 2022, arXiv 2006.15815).

        v_t = β2·v_{t-1} + (1-β2)·g_t²,    v̂_t = v_t/(1-β2^t),    v̄_t = the mean of v̂_t over all elements,
        w_t = clip(β0·(v̂_t/v̄_t)^{1/(3-2d)}, eps, 1),    m_t = (1-w_t)·m_{t-1} + w_t^d·g_t,
        θ ← θ - lr·β0^{1-d}·m_t / (1 - Π_{s≤t} (1-w_s))

    w is 1 - β1 in the paper's words: a coordinate with large gradients forgets soon, one with small ones averages over
    1/w steps. With d = 1 every coordinate has the stepsize lr, as for SGD, and the rates of SGD without momentum suit
    it: ten times those with momentum 0.9. AdaiW is this with `decoupled_weight_decay=True`; so is AdaiS, since stable
    weight decay shrinks θ by λ times the stepsize, which is lr.

    v̄ runs over all groups, over the tensors that have a gradient. So each depends on all others: a single gradient
    that is not finite spoils every parameter in the same step, and where parameters are spread over processes each
    process takes the mean of its own. 1 - Π(1-w) is summed as it is: as a difference from one, float32 would leave it
    four digits.

    Args:
        params: tensors or groups of them.
        lr: the learning rate.
        beta0: the mean of w, with d = 1 and where nothing is clipped.
        beta2: how long v remembers.
        eps: the smallest w, above 0: nothing is averaged over more than 1/eps steps.
        dampening: d, from 0 to 1. Below 1 a gradient weighs lr·(β0/w)^{1-d} in the end, more where gradients are small.
        common: see `Elementwise`.

    Raises:
        ValueError: for a setting out of range.
    """

    takes = ()
    kept = ("exp_avg", "exp_avg_sq", "weight_sum")  # the last is 1 - Π(1-w): the sum of the weights in m, if d = 1

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        beta0: float = 0.1,
        beta2: float = 0.99,
        eps: float = 1e-3,
        dampening: float = 1.0,
        **common: Unpack[Common],
    ) -> None:
        require(0 < beta0 <= 1, "beta0", beta0, "a number above 0, up to 1")
        require(0 <= beta2 < 1, "beta2", beta2, "a number from 0 to below 1")
        require(0 < eps <= 1, "eps", eps, "a number above 0, up to 1")
        require(0 <= dampening <= 1, "dampening", dampening, "a number from 0 to 1")
        settings = {"lr": lr, "beta0": beta0, "beta2": beta2, "eps": eps, "dampening": dampening}
        super().__init__(params, settings, **common)

    def prepare(self, batches: list[Batch]) -> None:
        """Move v on, and take the mean of v̂ over all."""
        sums: list[Tensor] = []
        count = 0
        for batch in batches:
            v, beta2 = batch.state("exp_avg_sq"), batch.number("beta2")
            average_squares(v, batch.grads, beta2)
            sums += [x.sum() / (1 - beta2**batch.t) for x in v]
            count += sum(x.numel() for x in v)
        self._mean = sum((x.to(sums[0].device) for x in sums), start=torch.zeros(())) / max(1, count)

    def steps(self, batch: Batch) -> list[Tensor]:
        """Return lr·β0^{1-d}·m / (1 - Π(1-w))."""
        m, total, w = batch.state("exp_avg"), batch.state("weight_sum"), self._weights(batch)
        d = batch.number("dampening")
        torch._foreach_addcmul_(m, m, w, -1)
        torch._foreach_addcmul_(m, batch.grads, torch._foreach_pow(w, d))
        torch._foreach_addcmul_(total, total, w, -1)
        torch._foreach_add_(total, w)
        steps = list(torch._foreach_div(m, total))
        torch._foreach_mul_(steps, batch.number("lr") * batch.number("beta0") ** (1 - d))
        return steps

    def _weights(self, batch: Batch) -> list[Tensor]:
        """Return w."""
        v, d = batch.state("exp_avg_sq"), batch.number("dampening")
        mean = self._mean.to(v[0]) * (1 - batch.number("beta2") ** batch.t)
        # While all gradients are zero, none has a share; it would be 0/0.
        w = list(torch._foreach_div(v, mean.clamp(min=torch.finfo(mean.dtype).tiny)))
        torch._foreach_pow_(w, 1 / (3 - 2 * d))
        torch._foreach_mul_(w, batch.number("beta0"))
        torch._foreach_clamp_min_(w, batch.number("eps"))
        torch._foreach_clamp_max_(w, 1.0)
        return w


class AdaiV2(Adai):
    """Adai with weight decay decoupled unless told otherwise, as its authors' second version of it, see `Adai`."""

    decoupled = True
