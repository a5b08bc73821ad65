"""Angular velocity: by how much the direction of travel turns from one stretch of steps to the next.

Where s_e = x_e - x_{e-1} is what stretch e moved the parameters, an epoch say,

    ω_e = arccos(⟨s_e, s_{e-1}⟩ / (‖s_e‖·‖s_{e-1}‖)),    in degrees

(AutoDrop, Teng, Wang and Choromanska, arXiv 2111.15317, section 3). If s = d + n, of a drift d and noise n that is new
in each stretch, cos ω = ‖d‖²/(‖d‖² + E‖n‖²) on average, which gives the levels below; and iterates that scatter
independently about a point have E⟨s_e, s_{e-1}⟩ = -E‖s_e‖²/2, which is 120°.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DRIFT, EVEN, WALK, STATIONARY, CYCLE = 0.0, 60.0, 90.0, 120.0, 180.0
"""Straight on; drift and noise of equal energy; a random walk; scatter about a point; back and forth."""
PIECE = 2**20
"""Numbers that are mapped at a time, and copied to the host for it."""
DIMENSION = 4096
"""Of the projection: the cosine of two directions is known to 1/64, an angle near 90° to a degree."""


class Projection:
    """A random linear map of many numbers to few, which keeps inner products on average; nothing of it is stored.

    Every coordinate is added, with a random sign, to a random one of the few (Charikar, Chen and Farach-Colton 2002).

    Args:
        dimension: how many those are; the standard error of a cosine is 1/sqrt(dimension) at most.
        seed: of places and signs.
    """

    def __init__(self, dimension: int = DIMENSION, seed: int = 0) -> None:
        self.dimension, self.seed = dimension, seed

    def __call__(self, tensors: Iterable[Tensor]) -> Tensor:
        """Return the image of all tensors together, `(dimension,)` of float64; complex ones count as pairs."""
        import torch  # who draws angles wants the levels alone

        image = torch.zeros(self.dimension, dtype=torch.float64, device="cpu")
        for number, tensor in enumerate(tensors):
            values = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
            source = torch.Generator("cpu").manual_seed(self.seed + 7919 * number)
            for piece in torch.split(values.reshape(-1), PIECE):
                # Drawn on the host: another device would draw other places.
                drawn, here = (
                    torch.randint(2 * self.dimension, piece.shape, generator=source, device="cpu"),
                    piece.cpu().double(),
                )
                image.index_add_(0, drawn // 2, torch.where(drawn % 2 == 0, here, -here))
        return image


def angle(a: Tensor, b: Tensor) -> float:
    """Return the angle between two vectors in degrees; NaN where one is zero or not finite."""
    lengths = float(a.norm() * b.norm())
    if not 0.0 < lengths < math.inf:
        return math.nan
    return math.degrees(math.acos(max(-1.0, min(1.0, float(a @ b) / lengths))))


class AngularVelocity:
    """The angles of a path that is looked at now and then, over several strides.

    Args:
        strides: how many looks a stretch has, each.
    """

    def __init__(self, strides: Sequence[int] = (1,)) -> None:
        self.strides = tuple(strides)
        self._images: deque[Tensor] = deque(maxlen=2 * max(self.strides) + 1)

    def look(self, image: Tensor) -> dict[int, float]:
        """Take the newest point in, and return the angle of each stride in degrees; none while the path is short."""
        self._images.append(image)
        found = {}
        for stride in self.strides:
            if len(self._images) > 2 * stride:
                newest, middle, oldest = (self._images[-1 - k * stride] for k in range(3))
                found[stride] = angle(newest - middle, middle - oldest)
        return found

    def forget(self) -> None:
        """Begin a new path: what comes is not the successor of what was."""
        self._images.clear()

    def state(self) -> list[Tensor]:
        """Return the points that are remembered."""
        return list(self._images)

    def restore(self, points: Sequence[Tensor]) -> None:
        """Go on from what `state` returned."""
        self._images.clear()
        self._images.extend(points)
