"""Signals: what moves before a loss does, looked at in every step of every tensor by one call of compiled code.

A signal is compared with the tensor's own past, the largest values of the last 16 blocks of 64 steps. If the steps of
the past and the newest k could be exchanged, the newest k would all lie above the n before them in 1 of C(n+k, k)
cases, whatever their law: 1 in 1.8e8 for k = 3 and n = 1024. A factor above the largest comes on top, for what cannot
be exchanged: slow trends, and odd gradients that come in pairs (docs/alerts.md).

Only a suspicion leaves here. What it is worth is weighed in `alerts.py`, where a look may cost more.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .compiled import inner
from .schedule import OPENING
from .trace import SUMS

Array = NDArray[np.float64]

BLOCK = 64
"""Steps of which the largest value is kept."""
BLOCKS = 16
"""Blocks that are remembered."""
FEWEST = 4
"""Blocks of past without which nothing is compared: 1 in 2.9e6 for k = 3."""
TWICE, THRICE = 4.0, 2.0
"""Times the largest RMS_t of the past that it must pass in two steps running, or in three."""
LOOSER = 2.0
"""Gradients are not measured against their second moment, as RMS_t is, so they must pass this much more."""
LEAP = 10.0
"""Times the largest learning rate so far; warm-ups that begin at a tenth are in use (He et al. 2016, 4.2)."""
LOW = 0.1
"""RMS_t below which g² is no hundredth of what v forgets in a step: v decays as if there were no gradient."""
EVERY = 16
"""Steps between two suspicions of the same stretch."""

SURGE, DECAY, RATE, LOST = 1, 2, 4, 8
"""What is suspected of a tensor, as bits of its flag."""

G2, RMS2, STEPS = (SUMS.index(name) for name in ("g2", "rms2", "steps"))
LR, SCALE = 0, 2  # places among the coefficients

TAKEN, CLOSED, OPEN, QUIET, TOP, LEAPT, BEFORE, PEAK, PAST, TIMES, OVER, RUN, NEXT, LOGS, SINCE, WIDTH = (
    0,  # steps that the history has
    1,  # blocks closed
    2,  # steps of the open block
    3,  # steps to come for which no surge is suspected
    4,  # the largest learning rate
    5,  # the same before it leapt
    6,  # the learning rate when the newest block was closed
    7,  # the largest RMS_t² and ‖g‖² of the open block, 2 columns
    9,  # of the closed blocks, 2
    11,  # the newest step's in units of those, 2
    13,  # steps running above four bounds, on RMS_t² for two and for three steps and on ‖g‖² likewise, 4
    17,  # steps of the stretch with a low RMS_t
    18,  # how many it should have before it is suspected
    19,  # Σ log ‖g‖² since it was last judged
    20,  # steps since then
    21,
)
"""Columns of what is remembered of a tensor."""


class Signals:
    """The recent past of every tensor, and what is suspected of it; `look` fills them in, once a step."""

    def __init__(self) -> None:
        self.past, self.peaks = np.zeros((0, WIDTH)), np.zeros((0, 2, BLOCKS))
        self.flags = np.zeros(0, np.int64)

    def extend(self, tensors: int) -> None:
        """Make room for more tensors; replaces the arrays."""
        self.past = np.pad(self.past, ((0, tensors), (0, 0)))
        self.peaks = np.pad(self.peaks, ((0, tensors), (0, 0), (0, 0)))
        self.flags = np.pad(self.flags, (0, tensors))

    def suspected(self, kind: int) -> list[int]:
        """Return the tensors of which this is suspected."""
        return np.flatnonzero(self.flags & kind).tolist()

    def wait(self, tensor: int) -> None:
        """Suspect a decay again when its stretch has become longer by a fifth."""
        self.past[tensor, NEXT] = 1.2 * self.past[tensor, RUN]

    def size(self, tensor: int) -> float:
        """Return the mean log ‖g‖² of the stretch since this was last asked."""
        logs, since = self.past[tensor, [LOGS, SINCE]]
        self.past[tensor, [LOGS, SINCE]] = 0.0
        return float(logs / since)

    def forget(self) -> None:
        """Begin the histories anew: what comes is not the successor of what was."""
        self.past[:], self.peaks[:] = 0.0, 0.0


@inner()
def look(last: Array, then: Array, pasts: Array, peaks: Array, flags: NDArray[np.int64]) -> int:
    """Compare the newest step of each tensor with its past, add it to the past, and set the flags; return all bits."""
    suspected = 0
    for p in range(len(flags)):
        flags[p] = 0 if abs(then[p, LR]) < np.inf else LOST
        if last[p, STEPS] > 0.0:
            past, lr, gauged = pasts[p], then[p, LR], then[p, SCALE] > 0.0
            rms2, g2 = last[p, RMS2], last[p, G2]
            past[TAKEN] += 1.0
            if past[TAKEN] > OPENING:
                flags[p] |= RATE if leaps(past, lr) else 0
                flags[p] |= SURGE if surges(past, rms2, g2, gauged) else 0
                flags[p] |= DECAY if gauged and decays(past, rms2, g2) else 0
                remember(past, peaks[p], rms2, g2, lr)
            past[TOP] = max(past[TOP], lr)
        suspected |= flags[p]
    return suspected


@inner()
def leaps(past: Array, lr: float) -> bool:
    """Return whether the learning rate is far above all before it."""
    if past[TOP] <= 0.0 or lr <= LEAP * past[TOP]:
        return False
    past[LEAPT] = past[TOP]
    return True


@inner()
def surges(past: Array, rms2: float, g2: float, gauged: bool) -> bool:
    """Return whether RMS_t or the gradient has been out of all proportion for two or three steps.

    A gradient that v keeps up with, RMS_t ≤ 1, makes no long step.
    """
    past[TIMES] = rms2 / past[PAST] if gauged and past[PAST] > 0.0 else 0.0
    past[TIMES + 1] = g2 / past[PAST + 1] if past[PAST + 1] > 0.0 else 0.0
    if past[QUIET] > 0.0 or past[CLOSED] < FEWEST or (gauged and rms2 <= 1.0):
        past[QUIET] -= 1.0 if past[QUIET] > 0.0 else 0.0
        past[OVER:RUN] = 0.0
        return False
    for k in range(4):
        bound = (TWICE if k % 2 == 0 else THRICE) * (LOOSER if k > 1 else 1.0)
        past[OVER + k] = past[OVER + k] + 1.0 if past[TIMES + k // 2] > bound * bound else 0.0
    return bool(past[OVER] > 1.0 or past[OVER + 1] > 2.0 or past[OVER + 2] > 1.0 or past[OVER + 3] > 2.0)


@inner()
def decays(past: Array, rms2: float, g2: float) -> bool:
    """Return whether v has decayed alone for long, and it is time to see what has become of the stepsizes."""
    if g2 <= 0.0:
        return False
    if rms2 >= LOW * LOW:
        past[RUN] = 0.0
        return False
    if past[RUN] == 0.0:
        past[NEXT], past[LOGS], past[SINCE] = BLOCK, 0.0, 0.0
    past[RUN] += 1.0
    past[SINCE] += 1.0
    past[LOGS] += math.log(g2)
    return bool(past[RUN] >= past[NEXT] and past[RUN] % EVERY == 0.0)


@inner()
def remember(past: Array, peaks: Array, rms2: float, g2: float, lr: float) -> None:
    """Add a step to the past. A block stays open while a bound is passed, or a surge would become its own past."""
    past[PEAK] = max(past[PEAK], rms2 if rms2 < np.inf else 0.0)  # a tensor without a stepsize has none: NaN
    past[PEAK + 1] = max(past[PEAK + 1], g2)
    past[OPEN] += 1.0
    if past[OPEN] >= BLOCK and past[OVER:RUN].sum() == 0.0:
        at = int(past[CLOSED]) % BLOCKS
        for k in range(2):
            peaks[k, at], past[PEAK + k] = past[PEAK + k], 0.0
            past[PAST + k] = peaks[k].max()
        past[CLOSED] += 1.0
        past[OPEN], past[BEFORE] = 0.0, lr
