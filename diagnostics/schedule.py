"""Which steps are recorded: evenly spread ones, at most `capacity` of them, and geometric ones."""

from __future__ import annotations

import math

FIRST_INTERVAL = 64
"""Records cost many times a step's sums, so evenly spread ones start this far apart."""


def geometric(step: int) -> bool:
    """Return whether `step` is one of round(2^(j/8)): dense early, eight to a doubling later."""
    return step > 0 and round(2 ** (round(8 * math.log2(step)) / 8)) == step


class Schedule:
    """Keeps the steps that are multiples of an interval; the interval doubles when they become too many."""

    def __init__(self, capacity: int, interval: int = FIRST_INTERVAL) -> None:
        self.capacity, self.interval = capacity, interval

    def keeps(self, step: int) -> bool:
        """Return whether `step` is recorded, and stays recorded as long as the interval is what it is."""
        return step % self.interval == 0 or geometric(step)

    def proves(self, step: int) -> bool:
        """Return whether the formula is proved and Δθ measured at `step`; that takes longer than a record alone."""
        return step % (8 * self.interval) == 0 or geometric(step)

    def widen(self, step: int) -> bool:
        """Double the interval if the evenly spread records have outgrown the capacity; return whether it did."""
        if step // self.interval <= self.capacity:
            return False
        while step // self.interval > self.capacity:
            self.interval *= 2
        return True
