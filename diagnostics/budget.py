"""Budget: which steps are looked at, so that watching stays within its share of the training's time.

Steps are looked at in runs of `RUN`, for c and the harm test need steps in a row. A block is k runs, of which one,
drawn at random, is looked at; each of its steps counts for k. Whatever happens in a block, each of its steps is looked
at with probability 1/k, so every sum over the run is estimated without bias (Horvitz & Thompson 1952). k, the cadence,
is chosen before the run is drawn, from the time that earlier blocks took.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

RUN = 64
"""Steps in a row that are looked at, or not."""
LEAST = 4 * RUN
"""Steps at the beginning that are all looked at: the first ones compile, and the opening matters most."""
MOST = 1024
"""The largest cadence."""
BLOCKS = 8
"""A block is no longer than one in so many of the steps so far, or few would stand for nearly all."""
SLACK = 4
"""The cadence falls only when the share has come so far below the budget, or it would go up and down."""


class Budget:
    """Decides, for steps that follow each other, which are looked at.

    Args:
        share: the part of the training's time that watching may take, between 0 and 1.
        seed: of the draws.
        clock: tells the time, in seconds.
    """

    def __init__(self, share: float, seed: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.share, self.clock = share, clock
        self.cadence = 1
        self.told = 1
        """The highest cadence that a user was told of."""
        self.taken = 0.0
        """The share that watching took in the last block."""
        self._draw = np.random.default_rng(seed)
        self._first = self._begin = self._end = self._started = 0
        self._spent = self._looked = 0.0
        self._opened = True
        self._ticks: list[float] = []

    def looks(self, step: int) -> bool:
        """Return whether `step`, of the block at hand, is looked at."""
        return self._first <= step < self._first + RUN

    @property
    def next_turn(self) -> int:
        """The step at which `turn` is to be called next: a run ends before it."""
        return self._begin + RUN * len(self._ticks)

    def turn(self, step: int) -> bool:
        """Go on to `step`; return whether it opens a new block, which may have another cadence."""
        now = self.clock()
        self._ticks.append(now)
        if self._begin < step < self._end:
            return False
        if step != self._end:
            self._started = step
        elif step - self._started >= LEAST:
            self._adapt(step - self._started)
        self._begin, self._end = step, step + RUN * self.cadence
        self._first = step + RUN * int(self._draw.integers(self.cadence))
        self._ticks, self._spent, self._looked, self._opened = [now], 0.0, 0.0, True
        return True

    def book(self, seconds: float, looked: bool = True) -> None:
        """Add what a step took; not where a block was opened, for that belongs to the one before."""
        if not self._opened:
            self._spent += seconds
            self._looked += seconds if looked else 0.0
        self._opened = False

    def _adapt(self, taken: int) -> None:
        """Choose the cadence after so many steps. A pause of the training falls into one run: the median forgets it."""
        whole = float(np.median(np.diff(self._ticks))) * self.cadence
        self.taken = self._spent / whole if whole > 0.0 else 0.0
        looking = self.taken * self._looked / self._spent if self._spent > 0.0 else 0.0
        # What the other steps take no cadence saves; so looking has to leave room for it, down to a part of the budget.
        room = max(self.share - (self.taken - looking), self.share / SLACK)
        if looking > room:
            most = min(MOST, max(self.cadence, 2 ** int(math.log2(max(1, taken // (BLOCKS * RUN))))))
            self.cadence = min(most, self.cadence * 2 ** math.ceil(math.log2(looking / room)))
        elif SLACK * looking < room:
            self.cadence = max(1, self.cadence // 2)

    def restart(self) -> None:
        """Look at every step from the next `turn` on, until there is a measurement again."""
        self.cadence, self._begin, self._end, self._ticks = 1, 0, 0, []


def checked_share(budget: float | None) -> float | None:
    """Return the share of the time that watching may take; None for no limit.

    Raises:
        ValueError: unless it lies between 0 and 1.
    """
    if budget is None or (isinstance(budget, (int, float)) and 0.0 < budget < 1.0):
        return budget
    raise ValueError(f"`budget` must be a share of the training's time between 0 and 1, such as 0.01, got {budget!r}.")
