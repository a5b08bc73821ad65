"""Effective learning rate: the learning rate times all the weight that a gradient will ever get (no torch).

With the momentum m ← βm + (1 - d)g of torch's SGD, d its dampening, a gradient counts (1 - d)·(1 + β + β² + …) times:

    lr·(1 - d)/(1 - β),

which ten times the rate at β = 0.9 is. An average m ← βm + (1 - β)g, as Adam has, keeps the total at 1, and the rate is
the rate. This, not β, is what a schedule of the momentum moves: Demon (Chen, Wolfe, Li and Kyrillidis, arXiv
1910.04952) lets it fall linearly, and is for the most part a schedule of the learning rate. What a second moment
divides by comes on top, see the stepsizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .trace import Trace

Array = NDArray[np.float64]

SUMS = ("torch.optim.sgd.SGD", "torch.optim.rmsprop.RMSprop")
"""Optimizers whose momentum adds gradients up. Of others it is an average, or nobody knows."""
WRAPPERS = "stepscope.remedies."
"""What is of this kind may have the groups of the optimizer inside; `nesterov` is in those of SGD alone."""


def effective_rates(trace: Trace) -> Array:
    """Return the effective learning rate at the records, `(records, groups)`; the rate itself without a sum.

    The record has the settings of the groups that were there at its start; one that came later is read as the last.
    """
    lr = trace.groups.get("lr", np.empty((len(trace.steps), 0)))
    beta = trace.groups.get("beta1", np.full_like(lr, np.nan))
    known: list[dict[str, Any]] = trace.meta.get("hyperparameters", [])
    rates = lr.copy()
    for group in range(lr.shape[1] if known else 0):
        settings = known[min(group, len(known) - 1)]
        if adds_up(str(trace.meta.get("optimizer")), settings):
            rates[:, group] *= weight(settings, beta[:, group])
    return rates


def adds_up(optimizer: str, settings: dict[str, Any]) -> bool:
    """Return whether an optimizer, by its dotted name, sums gradients in groups of such settings."""
    return optimizer in SUMS or (optimizer.startswith(WRAPPERS) and "nesterov" in settings)


def weight(settings: dict[str, Any], beta: Array) -> Array:
    """Return the weight that a gradient gets in all, at each record; `beta` is NaN where the record does not say it."""
    beta = np.where(np.isnan(beta), float(settings.get("momentum") or 0.0), beta)
    with np.errstate(divide="ignore"):
        total = (1.0 - float(settings.get("dampening") or 0.0)) / (1.0 - beta)
    return np.where(beta > 0, total, 1.0)
