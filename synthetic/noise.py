"""Additive gradient noise of mean zero, independent between steps and coordinates.

Like the orders of arrival, a stream may be cut into calls anywhere without changing what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Noise(Protocol):
    """A law of noise; write a class with this method to add one."""

    def stream(self, dim: int, rng: np.random.Generator) -> Callable[[int], Array]:
        """Return a function that gives the noise of the next k steps, `(k, dim)`."""


@dataclass(frozen=True)
class Gaussian:
    """Normal noise: mean 0, variance scale², third moment 0."""

    scale: float

    def __post_init__(self) -> None:
        _positive("scale", self.scale)

    def stream(self, dim: int, rng: np.random.Generator) -> Callable[[int], Array]:
        """Return a function that gives the noise of the next k steps, `(k, dim)`."""
        return lambda k: self.scale * rng.standard_normal((k, dim))


@dataclass(frozen=True)
class TwoPoint:
    """A rare `high` with `probability` p, and otherwise -high·p/(1-p), which makes the mean 0.

    The variance is high²·p/(1-p) and the third moment high³·p·(1-2p)/(1-p)²: skewed the way of `high` when it is rare.
    """

    high: float
    probability: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.high):
            raise ValueError(f"`high` must be finite, got {self.high}.")
        if not 0 < self.probability < 1:
            raise ValueError(f"`probability` must lie in (0, 1), got {self.probability}.")

    @property
    def low(self) -> float:
        """The value that makes up for `high`."""
        return -self.high * self.probability / (1 - self.probability)

    def stream(self, dim: int, rng: np.random.Generator) -> Callable[[int], Array]:
        """Return a function that gives the noise of the next k steps, `(k, dim)`."""
        return lambda k: np.where(rng.random((k, dim)) < self.probability, self.high, self.low)


@dataclass(frozen=True)
class HeavyTailed:
    """Symmetric Pareto noise (of the second kind): P(|ξ| > u) = (1 + u/scale)^-tail.

    The mean is 0 and E|ξ| = scale/(tail-1). The variance is 2·scale²/((tail-1)(tail-2)) for tail > 2 and infinite
    otherwise: moments of order `tail` and above do not exist.
    """

    tail: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        _positive("scale", self.scale)
        if not (self.tail > 1 and math.isfinite(self.tail)):
            raise ValueError(f"`tail` must be above 1, or the noise has no mean, got {self.tail}.")

    def stream(self, dim: int, rng: np.random.Generator) -> Callable[[int], Array]:
        """Return a function that gives the noise of the next k steps, `(k, dim)`."""

        def take(k: int) -> Array:
            side, size = np.moveaxis(rng.random((k, dim, 2)), -1, 0)
            lengths: Array = self.scale * np.expm1(-np.log1p(-size) / self.tail)
            return np.where(side < 0.5, -lengths, lengths)

        return take


def _positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"`{name}` must be positive and finite, got {value}.")
