"""AutoDrop: lower the learning rate when the path of the parameters has stopped going anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..diagnostics.angular_velocity import EVEN, STATIONARY, WALK, AngularVelocity, Projection
from .elementwise import require

FEWEST = 8
"""Angles that are judged, at least."""
FLAT = (STATIONARY - WALK) / 2
"""Degrees by which the angle may still rise over the angles that are judged: half of the way between two levels."""
FIRST_MOMENTS = ("momentum_buffer", "exp_avg", "weight_sum")
"""Averages of gradients, and the sum of Adai's weights in one."""
FORGETFUL = "window"
"""A state that holds the gradients of which the first moment is made, so that it forgets by itself."""


class AutoDrop(LRScheduler):
    """Multiplies the learning rates by `factor` whenever the angular velocity has risen and settled.

    To be called once an epoch, `scheduler.step()`, after Teng, Wang and Choromanska (arXiv 2111.15317; UAI 2024).
    The angular velocity of a new rate starts low, as the path runs straight, and rises until noise turns it as often
    as not. Their trigger, a change of less than 0.01° from one epoch to the next, fires by chance: single angles
    scatter by 10°. Here the rate drops when two things are true of the newer half of the angles since the last drop:
    a line through them, and two standard errors more, rises by less than 15° in all, and their mean is above 60°, where
    drift has less energy than noise. Whatever still runs straight is left alone. That takes 15 epochs at least. Where
    it takes tens of epochs to rise, the angle seems settled too early in one run of ten, at two thirds of its way.

    It changes the rates as they are. A schedule that computes them from the first one, such as `LambdaLR`, would undo
    that; warm up by hand, or make this one when the warm-up is over. Where processes hold parts of the parameters each
    would judge its own: use it where they hold copies.

    With `average` the parameters are replaced at the drop by their mean over so many more epochs, the k-th of weight k,
    as the authors do; then floating buffers such as those of batch normalization are averaged in the same way, and the
    first moments of the optimizer, which belong to the place that was left, begin anew.

    Args:
        optimizer: whose groups' rates are lowered, all of them.
        factor: what they are multiplied with.
        min_lr: what they are not lowered below.
        average: epochs to average over before a drop; 0 drops at once.
        model: whose buffers are averaged; needed for `average`.

    Raises:
        ValueError: for a setting out of range, or `average` without a model.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.2,
        *,
        min_lr: float = 0.0,
        average: int = 0,
        model: nn.Module | None = None,
    ) -> None:
        require(isinstance(optimizer, Optimizer), "optimizer", optimizer, "a torch optimizer")
        require(0 < factor < 1, "factor", factor, "a number between 0 and 1")
        require(min_lr >= 0, "min_lr", min_lr, "a number from 0 on")
        require(average >= 0, "average", average, "a number of epochs")
        require(not average or model is not None, "model", model, "the model, whose buffers are averaged as well")
        self.optimizer, self.factor, self.min_lr, self.average = optimizer, factor, min_lr, average
        self._model, self._project, self._velocity = model, Projection(), AngularVelocity()
        self.last_epoch = 0
        self.angles: list[float] = []
        """The angular velocity since the last drop, in degrees, one an epoch from the second on."""
        self.drops: list[int] = []
        """The epochs after which the rate was lowered."""
        self._mean: list[Tensor] = []
        self._averaged = 0
        self._last_lr = self._rates()
        self._velocity.look(self._project(self._params()))

    def step(self, epoch: None = None) -> None:  # type: ignore[override]
        """Look where the epoch has led, and lower the rates if it is time."""
        self.last_epoch += 1
        found = self._velocity.look(self._project(self._params()))
        self.angles += [omega for omega in found.values() if not math.isnan(omega)]
        falls = any(float(group["lr"]) > self.min_lr for group in self.optimizer.param_groups)
        if falls and (self._mean or settled(self.angles)):
            self._average_in()
            if self._averaged >= self.average:
                self._drop()
        self._last_lr = self._rates()

    def _average_in(self) -> None:
        """Move the mean on; the epoch at which the angle settled is not part of it."""
        if not self.average:
            return
        if not self._mean:
            self._mean = [x.detach().clone() for x in self._averaged_tensors()]
            return
        self._averaged += 1
        for mean, now in zip(self._mean, self._averaged_tensors(), strict=True):
            mean.lerp_(now.detach(), 2 / (self._averaged + 1))

    def _drop(self) -> None:
        """Lower all rates, and take the mean for the parameters where there is one."""
        for group in self.optimizer.param_groups:
            lowered = max(float(group["lr"]) * self.factor, min(self.min_lr, float(group["lr"])))
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lowered)
            else:
                group["lr"] = lowered
        if self._mean:
            with torch.no_grad():
                for mean, now in zip(self._mean, self._averaged_tensors(), strict=True):
                    now.copy_(mean)
                for state in self.optimizer.state.values():
                    for name in FIRST_MOMENTS:
                        if isinstance(state.get(name), Tensor) and FORGETFUL not in state:
                            state[name].zero_()
        self._mean, self._averaged = [], 0
        self.drops.append(self.last_epoch)
        self.angles = []
        self._velocity.forget()
        self._velocity.look(self._project(self._params()))

    def _params(self) -> Iterator[Tensor]:
        for group in self.optimizer.param_groups:
            yield from group["params"]

    def _averaged_tensors(self) -> Iterator[Tensor]:
        yield from self._params()
        if self._model is not None:
            yield from (x for x in self._model.buffers() if x.is_floating_point())

    def _rates(self) -> list[float | Tensor]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def get_lr(self) -> list[float | Tensor]:
        """Return the rates as they are."""
        return self._rates()

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, numbers and tensors."""
        return {
            "last_epoch": self.last_epoch,
            "angles": list(self.angles),
            "drops": list(self.drops),
            "averaged": self._averaged,
            "mean": list(self._mean),
            "path": self._velocity.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.last_epoch, self._averaged = state_dict["last_epoch"], state_dict["averaged"]
        self.angles, self.drops = list(state_dict["angles"]), list(state_dict["drops"])
        averaged = zip(state_dict["mean"], self._averaged_tensors(), strict=False)  # the means may be none
        self._mean = [mean.to(now.device, copy=True) for mean, now in averaged]
        self._velocity.restore(state_dict["path"])
        self._last_lr = self._rates()


def settled(angles: Sequence[float]) -> bool:
    """Return whether the newer half of the angles, in degrees, rises no more and is above 60°."""
    newer = torch.tensor(angles[len(angles) // 2 :], dtype=torch.float64)
    n = len(newer)
    if n < FEWEST:
        return False
    time = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    slope = time @ newer / (time @ time)
    scatter = newer - newer.mean() - slope * time
    error = (scatter @ scatter / (n - 2) / (time @ time)).sqrt()
    return bool(newer.mean() > EVEN and n * (slope + 2 * error) < FLAT)
