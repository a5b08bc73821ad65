"""Travel: by how much a run's direction turns, at its evenly spaced records; see `angular_velocity.py` for the levels.

θ is looked at where the step is a multiple of the interval of records. When that doubles every other point is kept, so
that the stretches of an angle are of one length. What swings faster than the records are apart is not seen, and
parameters that are where they were have no direction.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .angular_velocity import DIMENSION, AngularVelocity, Projection

if TYPE_CHECKING:
    import torch

    from .recorder import Recorder
    from .watcher import Watcher

Array = NDArray[np.float64]

STRIDES = (1, 2, 4)
"""Record intervals in a stretch."""


def own(w: Watcher) -> Array:
    """Return the parameter at a sample of its coordinates, which stand for all of them in a squared length."""
    return w.theta() * math.sqrt(w.proved.scale)


def lead(w: Watcher) -> Array:
    """Return the same at fewer coordinates."""
    return w.proved.take_lead(w.param).astype(np.float64) * math.sqrt(w.proved.lead_scale)


class Travel:
    """The path of a run's parameters, a few points of it; begun anew where a record is missing or tensors are added."""

    def __init__(self) -> None:
        self._velocity, self._project = AngularVelocity(STRIDES), Projection()
        self._newest = self._interval = self._size = 0

    def forget(self) -> None:
        """Begin a new path: the parameters were replaced."""
        self._velocity.forget()

    def __call__(self, recorder: Recorder) -> dict[str, float]:
        """Return the angle over each stride in degrees, as far as the path reaches back."""
        import torch  # who draws angles wants the strides alone

        from .watcher import few

        whole = few(recorder.watchers)
        parts = [own(w) if whole else lead(w) for w in recorder.watchers if w.intact()]
        theta = torch.from_numpy(np.concatenate([np.zeros(0), *parts]))
        found = self.look(recorder.step, recorder.schedule.interval, theta)
        return {f"angle/{stride}": degrees for stride, degrees in found.items() if math.isfinite(degrees)}

    def look(self, step: int, interval: int, theta: torch.Tensor) -> dict[int, float]:
        """Take the newest point in, of a step that is a multiple of the interval; return the angle of each stride."""
        points, newest = self._velocity.state(), self._newest
        if interval != self._interval:
            steps = [newest - back * self._interval for back in reversed(range(len(points)))]
            kept = [(at, point) for at, point in zip(steps, points, strict=True) if at % interval == 0]
            points, newest = [point for _, point in kept], kept[-1][0] if kept else -1
        follows = step == newest + interval and len(theta) == self._size
        self._velocity.restore(points if follows else [])
        self._newest, self._interval, self._size = step, interval, len(theta)
        return self._velocity.look(theta if len(theta) <= DIMENSION else self._project([theta]))
