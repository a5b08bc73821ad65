"""Coupling of gradient and stepsize: E[e·g] against E[e]·E[g], tensor by tensor (no torch).

A stepsize that knows the gradient it multiplies is small where that is large. A step then makes, of the descent that
its mean stepsize promises,

    ρ = E[e·g]·E[g] / (E[e]·E[g]²),

summed over coordinates: 1 without coupling, less where rare large gradients shrink their own steps, below 0 where the
steps go uphill though no gradient is biased (Zhou et al., AdaShift, arXiv 1810.00143, who take v from earlier gradients
to break it). Estimated from products of different stretches, `drift.py`, with momentum taken into account.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .drift import judge_harm
from .pace import even_products
from .trace import Trace


@dataclass(frozen=True)
class Coupling:
    """ρ of a tensor with its 95 % interval; (-inf, inf) where no mean gradient is resolved."""

    name: str
    rho: float
    interval: tuple[float, float]

    @property
    def resolved(self) -> bool:
        """Whether the interval has both ends."""
        return all(map(math.isfinite, (self.rho, *self.interval)))


def coupling(trace: Trace) -> tuple[Coupling, ...]:
    """Return ρ of every tensor that has steps, in the order of the model; empty where there are too few stretches."""
    drift = trace.drift
    if drift is None:
        return ()
    found = []
    for tensor, dd, dg, gg in zip(trace.tensors, *even_products(trace, drift), strict=False):  # one of late has none
        harm = judge_harm(dd, dg, gg, drift.first_step, drift.last_step)
        if harm.z and not math.isnan(harm.z):
            found.append(Coupling(tensor.name, float(harm.rho), harm.interval))
    return tuple(found)
