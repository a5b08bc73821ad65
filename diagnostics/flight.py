"""The flight recorder: the last thousand steps in full, for the moment after something went wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .trace import SUMS

LENGTH = 1000
"""Steps kept."""

KEPT = SUMS[: 1 + SUMS.index("rms2")]
"""What is kept of each step, per tensor, over its watched coordinates: what moves before a loss does.

In the opening it stands for all coordinates, scaled down to as many."""


class FlightRecorder:
    """A ring of the newest steps' sums, shape `(LENGTH, tensors, len(KEPT))` in float32; step t is in row t mod LENGTH.

    The compiled step fills in `ring`, and `steps`, which has the number of each row's step; 0 for none.
    """

    def __init__(self, tensors: int) -> None:
        self.steps = np.zeros(LENGTH, np.int64)
        self.ring = np.zeros((LENGTH, tensors, len(KEPT)), np.float32)

    def window(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the kept steps, oldest first, and their sums `(steps, tensors, len(KEPT))`."""
        order = np.argsort(self.steps, kind="stable")
        order = order[self.steps[order] > 0]
        return self.steps[order], self.ring[order]

    def saving(self, path: Path, names: list[str]) -> Callable[[], None]:
        """Return a function that writes the window of now to an .npz file, which appears whole or not at all."""
        steps, sums = self.window()

        def save() -> None:
            path.parent.mkdir(exist_ok=True)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.savez_compressed(file, steps=steps, sums=sums, tensors=np.array(names), columns=np.array(KEPT))
            os.replace(partial, path)

        return save
