"""The online games of Reddi, Kale and Kumar (ICLR 2018) for an optimizer of torch, one `step()` at a time.

`reddi2018.py` has the same games as problems of `simulate`; nothing else is imported here, so that a game costs little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class OnlineGame:
    """f_t(x) = rare·x if t mod period = 1, else common·x, on [-1, 1]; the optimum is -1 while the sum is positive."""

    rare: float
    common: float
    period: int

    def gradient(self, t: int) -> float:
        """Return f_t'(x), the same for every x."""
        return self.rare if t % self.period == 1 else self.common

    def play(
        self, x: torch.nn.Parameter, optimizer: torch.optim.Optimizer, steps: int, alpha: float = 0.5
    ) -> Iterator[int]:
        """Take `steps` steps from x with learning rate alpha/√t and projection onto [-1, 1]; yield each t."""
        gradients = {g: torch.full_like(x, g) for g in (self.rare, self.common)}
        for t in range(1, steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = alpha / math.sqrt(t)
            x.grad = gradients[self.gradient(t)].clone()
            optimizer.step()
            with torch.no_grad():
                x.clamp_(-1.0, 1.0)
            yield t


ONLINE = OnlineGame(rare=1010.0, common=-10.0, period=101)
"""The synthetic experiment of their section 5, here with β = (0.9, 0.99) and α_t = 0.5/√t."""

THEOREM1 = OnlineGame(rare=3.0, common=-1.0, period=3)
"""After their Theorem 1, with C = 3: β1 = 0 and β2 = 1/(1 + C²) = 0.1 send Adam to +1."""
