"""In which order the components of a problem arrive: a fixed cycle, at random, or in reshuffled epochs.

A stream hands out the indices of the next k steps and remembers where it stopped, so that a run may be cut into calls
anywhere without changing a single arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

ROUNDING = 1e-9
"""Probabilities given in decimals may miss 1 by this much; they are divided by their sum."""
FEW = 64
"""Up to here it is faster to compare with every edge than to search for the place between two: for 2 edges 10 times."""
DRAWN_AHEAD = 4096
"""About how many arrivals `Shuffled` draws at once: a fixed number, so that no call's length shows in the order."""


class Arrival(Protocol):
    """An order of arrival; write a class with these two methods to add one."""

    def weights(self, n: int) -> Array:
        """Return the long-run share of each of n components, `(n,)`, summing to 1; ValueError if it does not fit n."""

    def stream(self, n: int, rng: np.random.Generator) -> Callable[[int], Indices]:
        """Return a function that gives the indices of the next k steps, `(k,)`."""


@dataclass(frozen=True)
class Cyclic:
    """Components in a fixed order, again and again: `Cyclic([0] + [1] * 100)`; step t = 1 gets `order[0]`."""

    order: Sequence[int]

    def __post_init__(self) -> None:
        try:
            given = tuple(int(index) for index in self.order)
        except (TypeError, ValueError, OverflowError):
            given = ()
        if not given or given != tuple(self.order):
            raise ValueError(f"`order` must be component indices, such as [0] + [1] * 100, got {self.order!r}.")
        object.__setattr__(self, "order", given)

    def weights(self, n: int) -> Array:
        """Return the share of each component in one period, `(n,)`."""
        strange = [index for index in self.order if not 0 <= index < n]
        if strange:
            raise ValueError(f"`order` must name components 0 to {n - 1}, got {strange[0]}: the problem has {n}.")
        return np.bincount(np.array(self.order), minlength=n) / len(self.order)

    def stream(self, n: int, rng: np.random.Generator) -> Callable[[int], Indices]:
        """Return a function that gives the indices of the next k steps, `(k,)`; nothing is random."""
        del rng
        self.weights(n)
        period = np.array(self.order, dtype=np.int64)
        taken = 0

        def take(k: int) -> Indices:
            nonlocal taken
            indices: Indices = period[(taken + np.arange(k)) % len(period)]
            taken = (taken + k) % len(period)
            return indices

        return take


@dataclass(frozen=True)
class Random:
    """Components drawn independently at each step, with the given probabilities or uniformly."""

    probabilities: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.probabilities is None:
            return
        try:
            given = tuple(float(p) for p in self.probabilities)
        except (TypeError, ValueError):
            raise ValueError(f"`probabilities` must be numbers, got {self.probabilities!r}.") from None
        if not all(p >= 0 for p in given) or not abs(sum(given) - 1) <= ROUNDING:
            raise ValueError(
                f"`probabilities` must be at least 0 and sum to 1, got {given} with sum {sum(given):.10g}: "
                "divide them by their sum."
            )
        object.__setattr__(self, "probabilities", given)

    def weights(self, n: int) -> Array:
        """Return the probability of each component, `(n,)`."""
        if self.probabilities is None:
            return np.full(n, 1 / n)
        if len(self.probabilities) != n:
            raise ValueError(
                f"`probabilities` must have one entry for each of {n} components, got {self.probabilities}."
            )
        given: Array = np.array(self.probabilities) / np.sum(self.probabilities)
        return given

    def stream(self, n: int, rng: np.random.Generator) -> Callable[[int], Indices]:
        """Return a function that gives the indices of the next k steps, `(k,)`, a uniform number spent on each."""
        edges = np.cumsum(self.weights(n))[:-1]
        uniform = self.probabilities is None

        def take(k: int) -> Indices:
            u = rng.random(k)
            if uniform:
                return (u * n).astype(np.int64)
            if n > FEW:
                return np.searchsorted(edges, u, side="right").astype(np.int64)
            drawn = np.zeros(k, dtype=np.int64)
            for edge in edges:
                drawn += u >= edge
            return drawn

        return take


@dataclass(frozen=True)
class Shuffled:
    """Epochs in which every component arrives once, each epoch in a new random order (random reshuffling)."""

    def weights(self, n: int) -> Array:
        """Return equal shares, `(n,)`."""
        return np.full(n, 1 / n)

    def stream(self, n: int, rng: np.random.Generator) -> Callable[[int], Indices]:
        """Return a function that gives the indices of the next k steps, `(k,)`; epochs go on from call to call."""
        epochs = np.tile(np.arange(n, dtype=np.int64), (max(1, DRAWN_AHEAD // n), 1))
        waiting = np.zeros(0, dtype=np.int64)

        def take(k: int) -> Indices:
            nonlocal waiting
            blocks, have = [waiting], len(waiting)
            while have < k:
                blocks.append(rng.permuted(epochs, axis=1).reshape(-1))
                have += epochs.size
            drawn = np.concatenate(blocks)
            waiting = drawn[k:].copy()
            return drawn[:k]

        return take
