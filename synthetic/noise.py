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
        require_positive("scale", self.scale)

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
        if not math.isfinite(_number(self.high)):
            raise ValueError(f"`high` must be finite, got {self.high!r}.")
        if not 0 < _number(self.probability) < 1:
            raise ValueError(f"`probability` must lie in (0, 1), got {self.probability!r}.")

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
        require_positive("scale", self.scale)
        if not 1 < _number(self.tail) < math.inf:
            raise ValueError(f"`tail` must be above 1, or the noise has no mean, and finite, got {self.tail!r}.")

    def stream(self, dim: int, rng: np.random.Generator) -> Callable[[int], Array]:
        """Return a function that gives the noise of the next k steps, `(k, dim)`."""

        def take(k: int) -> Array:
            side, size = np.moveaxis(rng.random((k, dim, 2)), -1, 0)
            lengths: Array = self.scale * np.expm1(-np.log1p(-size) / self.tail)
            return np.where(side < 0.5, -lengths, lengths)

        return take


def require_positive(name: str, value: object) -> None:
    """Raise ValueError for what is no positive and finite number."""
    if not 0 < _number(value) < math.inf:
        raise ValueError(f"`{name}` must be positive and finite, got {value!r}.")


def _number(value: object) -> float:
    """Return a number as a float; NaN, which no range holds, where it is none."""
    try:
        return math.nan if isinstance(value, str | bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def require_noise(noise: object) -> None:
    """Raise ValueError for what is no law of noise."""
    if noise is None or (callable(getattr(noise, "stream", None)) and not isinstance(noise, type)):
        return
    given = noise.__name__ if isinstance(noise, type) else repr(noise)
    wanted = f"Gaussian({given})" if _number(noise) > 0 else "Gaussian(0.1)"
    raise ValueError(
        f"`noise` must be a law of noise with a method `stream`, or None, got {given}: "
        f"write {wanted}, TwoPoint(10, 0.01) or HeavyTailed(1.5), for example."
    )
