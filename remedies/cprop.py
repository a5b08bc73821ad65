"""CProp: a step is taken as far as the past gradients agree on its sign."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..diagnostics.conformity import CERTAINTY, conformity
from .elementwise import average, average_squares, require
from .wrapper import Noted, Wrapper, scale_steps


class CProp(Wrapper):
    """Conforming steps (Preechakul and Kijsirikul, arXiv 1912.11493), by the rule of their code.

        m_t = β·m_{t-1} + (1-β)·g_t,    v_t = β·v_{t-1} + (1-β)·g_t²,    Δθ = s_t·(what the optimizer does)

    s_t, in [0, 1], is the certainty that the mean of the gradients has the sign that it seems to have, see
    `conformity`: coordinates whose gradients contradict each other move less. It damps the noise of late training as a
    lower rate would, but coordinate by coordinate; a rate that is too low shows as s near 1 that stays there.

    g is the gradient as it stands, without any weight decay. Decay that the optimizer decouples is not scaled, as there
    is no doubt about it. L2 is part of the optimizer's gradient, and so of its step, and is scaled with that, as in the
    authors' own SGD.

    Args:
        optimizer: takes the steps that are scaled, with its own rate, momentum and decay.
        beta: how long the averages remember; the authors take 0.999 to 0.9999, more for longer runs.
        c: 1 doubts most; the authors take 3 or 5 for generalisation.
        cdf: the distribution of the mean: "normal", its approximations "bft" and "bfo", or "logistic".

    Raises:
        ValueError: for a setting out of range, and as for any `Wrapper`.
    """

    def __init__(self, optimizer: Optimizer, beta: float = 0.999, c: float = 1.0, cdf: str = "normal") -> None:
        require(0 <= beta < 1, "beta", beta, "a number from 0 to below 1")
        require(0 < c < torch.inf, "c", c, "a finite number above 0")
        require(cdf in CERTAINTY, "cdf", cdf, f"one of {', '.join(CERTAINTY)}")
        super().__init__(optimizer, {"cprop_beta": beta, "cprop_c": c, "cprop_cdf": cdf})

    def move(self) -> None:
        """Multiply each coordinate's step by its conformity."""
        scale_steps(self.optimizer, conforming)


def conforming(noted: Noted, state: dict[str, Any]) -> Tensor:
    """Take a tensor's gradient into the averages, and return s."""
    if "cprop_t" not in state:
        state.update(cprop_t=0, cprop_m=torch.zeros_like(noted.grad), cprop_v=torch.zeros_like(noted.grad))
    beta = float(noted.group["cprop_beta"])
    state["cprop_t"] += 1
    average([state["cprop_m"]], [noted.grad], beta)
    average_squares([state["cprop_v"]], [noted.grad], beta)
    c, cdf = float(noted.group["cprop_c"]), str(noted.group["cprop_cdf"])
    return conformity(state["cprop_m"], state["cprop_v"], state["cprop_t"], beta, c, cdf)
