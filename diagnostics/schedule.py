"""Which steps are recorded: evenly spread ones, at most `capacity` of them, and geometric ones."""

from __future__ import annotations

from bisect import bisect

FIRST_INTERVAL = 128
"""Records cost many times a step's sums, so evenly spread ones start this far apart."""


OPENING = 16
"""The first steps, whose stepsizes are dominated by few coordinates: v knows one gradient, which may be near zero."""

GEOMETRIC = frozenset(round(2 ** (j / 8)) for j in range(8 * 40))
"""Steps 2^(j/8): dense early, eight to a doubling later, further than any run goes."""

PROVED = frozenset(round(2 ** (j / 2)) for j in range(2 * 40))
"""Every fourth of them."""

GEOMETRIC_IN_ORDER, PROVED_IN_ORDER = sorted(GEOMETRIC), sorted(PROVED)


class Schedule:
    """Keeps the steps that are multiples of an interval; the interval doubles when they become too many."""

    def __init__(self, capacity: int, interval: int = FIRST_INTERVAL) -> None:
        self.capacity, self.interval = capacity, interval

    def keeps(self, step: int) -> bool:
        """Return whether `step` is recorded, and stays recorded as long as the interval is what it is."""
        return step % self.interval == 0 or step in GEOMETRIC

    def proves(self, step: int) -> bool:
        """Return whether the formula is proved and Δθ measured at `step`: throughout the opening, rarely later."""
        return step <= OPENING or step % (8 * self.interval) == 0 or step in PROVED

    def next(self, step: int) -> int:
        """Return the first step after `step` that is recorded, or comes right before one that is proved."""
        if step < OPENING:
            return step + 1
        recorded = multiple_after(step, self.interval), first_after(step, GEOMETRIC_IN_ORDER)
        proved = multiple_after(step + 1, 8 * self.interval), first_after(step + 1, PROVED_IN_ORDER)
        return min(*recorded, *(t - 1 for t in proved))

    def widen(self, step: int) -> bool:
        """Double the interval if the evenly spread records have outgrown the capacity; return whether it did."""
        if step // self.interval <= self.capacity:
            return False
        while step // self.interval > self.capacity:
            self.interval *= 2
        return True


def multiple_after(step: int, interval: int) -> int:
    """Return the first multiple of `interval` after `step`."""
    return (step // interval + 1) * interval


def first_after(step: int, steps: list[int]) -> int:
    """Return the first of the ordered `steps` after `step`."""
    return steps[bisect(steps, step)]
