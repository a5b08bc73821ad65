"""The accumulators (a), (b), (c) of Chen, Liu, Sun and Hong (ICLR 2019) over a tensor's watched coordinates.

Every elementwise rule writes its effective stepsize as

    e_t = lr_t · h_t(v_t),    h_t(v) = gain_t / (scale_t·sqrt(v) + eps_t),

so that Δ_t = e_t - e_{t-1} splits exactly into what the learning rate, the bias correction (gain, scale, eps) and
the second moment each did, applied in this order:

    Δ = (lr_t - lr_{t-1})·h_{t-1}(v_{t-1}) + lr_t·(h_t(v_{t-1}) - h_{t-1}(v_{t-1})) + lr_t·(h_t(v_t) - h_t(v_{t-1})).

A coordinate counts from its first non-zero second moment: until then the optimizer multiplies zero by lr/eps.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from . import one_step
from .drift import Stretches
from .flight import FlightRecorder
from .imagined import Alternatives
from .one_step import FINISHED, SIZE, STALE, STEADY
from .sampling import Coordinates
from .side_by_side import side_by_side
from .signals import Signals
from .trace import SUMS

Array = NDArray[np.float64]

PER_THREAD = 2**20
"""Coordinates whose sums are worth a thread of their own: they take several times as long as starting it does."""
PER_COORDINATE = 4
"""a, b, c and c_plus are also kept per coordinate, for the standard errors of a sample."""


class Coefficients(NamedTuple):
    """The scalars of one step's rule: e = lr·gain/(scale·sqrt(v) + eps).

    What e multiplies is nesterov·g + (1 - nesterov)·m, with m the average of the gradients that fades by `beta1`; v is
    the average of their squares that fades by `beta2`, where that can be said.
    """

    lr: float
    gain: float
    scale: float
    eps: float
    beta1: float = 0.0
    nesterov: float = 0.0
    beta2: float = 0.0

    def packed(self) -> bytes:
        """Return them as the sums hold them; tensors of one group share them, and packing them takes longest."""
        return RULE.pack(*self)


RULE, JOB = struct.Struct(f"={len(Coefficients._fields)}d"), struct.Struct(f"={one_step.JOB}q")
"""What a tensor is given of a step: the coefficients, and what `one_step.py` lists."""


class Accumulators:
    """The running sums of all watched tensors, one row a tensor, so that a step takes one call of compiled code.

    `last` has the newest step's sums over coordinates and `sums` those of all steps, both `(tensors, len(SUMS))`;
    `rms2_max` is the largest RMS_t² so far, `(tensors,)`.
    """

    def __init__(self) -> None:
        self.last, self.sums, self.rms2_max = np.zeros((0, len(SUMS))), np.zeros((0, len(SUMS))), np.zeros(0)
        self._gradients = np.zeros(0, np.int64)
        self.gradients = self._gradients.data
        """Where the tensors' gradients of this step lie, `(tensors,)`; a memoryview takes a number in half the time."""
        self._coordinates: list[Coordinates] = []
        self._root, self._each = np.zeros(0), np.zeros((PER_COORDINATE, 0))
        self._scratch, self._unkept = np.zeros((3, one_step.BLOCK)), np.zeros((PER_COORDINATE, one_step.BLOCK))
        self._layout, self._jobs = np.zeros((0, one_step.LAID), np.int64), np.zeros((0, one_step.JOB), np.int64)
        self._rules, self._then = (np.zeros((0, len(Coefficients._fields))) for _ in range(2))
        self._counts = np.zeros(0)
        self._chunk_sums, self._next_chunk = np.zeros((0, len(SUMS))), np.zeros(1, np.int64)
        self._summed = 0
        """Coordinates of tensors of which sqrt(v) is not kept."""
        self._stands_for = 1
        self._held: list[object] = []
        """What a job points to and nobody else keeps."""
        self._table = np.zeros(one_step.ENTRIES, np.int64)
        self._tied: list[NDArray[np.generic]] = []
        """The arrays that the table points to."""

    @property
    def then(self) -> Array:
        """The coefficients of every tensor's newest step, `(tensors, 7)`."""
        return self._then

    def extend(self, coordinates: Sequence[Coordinates], rooted: Sequence[bool]) -> list[Accumulator]:
        """Make room for more tensors; return a handle for every row, the old ones included. `tie` comes next.

        Of tensors that are not `rooted` sqrt(v) is not kept from step to step, see `fading.py`.
        """
        more = len(coordinates)
        laid = [
            (
                *(c.watched, len(c.sampled), c.numel, c.lead, c.watched if keeps else 0, c.whole_watched, c.whole),
                *(c.sampled.ctypes.data, c.lead_index.ctypes.data),
                0 if keeps else math.ceil(c.watched / one_step.CHUNK),
            )
            for c, keeps in zip(coordinates, rooted, strict=True)
        ]
        self._layout = np.concatenate([self._layout, np.array(laid, np.int64).reshape(-1, one_step.LAID)])
        sampled, kept, chunks = self._layout[:, 1], self._layout[:, 4], self._layout[:, one_step.LAID - 1]
        self._chunk_sums = np.zeros((chunks.sum(), len(SUMS)))
        self._summed = int(self._layout[chunks > 0, 0].sum())
        self._root = np.pad(self._root, (0, kept.sum() - len(self._root)))
        self._each = np.pad(self._each, ((0, 0), (0, sampled.sum() - self._each.shape[1])))
        self.rms2_max, self._counts = np.pad(self.rms2_max, (0, more)), np.pad(self._counts, (0, more))
        self.last, self.sums, self._then, self._rules = (
            np.pad(x, ((0, more), (0, 0))) for x in (self.last, self.sums, self._then, self._rules)
        )
        rows = len(self.last)
        self._gradients, self._jobs = np.zeros(rows, np.int64), np.zeros((rows, one_step.JOB), np.int64)
        self.gradients = self._gradients.data
        self._coordinates += coordinates
        roots = np.split(self._root, kept.cumsum())[:-1]
        eaches = np.split(self._each, sampled.cumsum(), axis=1)[:-1]
        each_its = zip(self._coordinates, roots, eaches, strict=True)
        return [Accumulator(self, row, *its) for row, its in enumerate(each_its)]

    def tie(self, stretches: Stretches, alternatives: Alternatives, signals: Signals, flight: FlightRecorder) -> None:
        """Let the compiled call know where everything lies; to be called again whenever an array was replaced.

        The first coordinates of every tensor add to the open stretch of the harm test, and the first of those to the
        alternatives; the signals look at the sums, and the flight recorder keeps the first of them.
        """
        arrays: dict[int, NDArray[np.generic]] = {
            one_step.JOBS: self._jobs,
            one_step.GRADIENTS: self._gradients,
            one_step.COUNTS: self._counts,
            one_step.LAYOUT: self._layout,
            one_step.ROOT: self._root,
            one_step.EACH: self._each,
            one_step.UNKEPT: self._unkept,
            one_step.SCRATCH: self._scratch,
            one_step.COEFFICIENTS: self._rules,
            one_step.THEN: self._then,
            one_step.LAST: self.last,
            one_step.SUM: self.sums,
            one_step.RMS2_MAX: self.rms2_max,
            one_step.STRETCH: stretches.current,
            one_step.MOMENTUM: stretches.momentum,
            one_step.OWED: stretches.owed,
            one_step.UNIT: stretches.unit,
            one_step.NUMBERS: alternatives.numbers,
            one_step.IMAGINED: alternatives.members,
            one_step.STEPPED: alternatives.stepped,
            one_step.NOW: alternatives.now,
            one_step.STATE: alternatives.state,
            one_step.PAST: alternatives.past,
            one_step.RULE_COUNTS: alternatives.counts,
            one_step.RULE_SUMS: alternatives.sums,
            one_step.RULE_STRETCH: alternatives.stretches.current,
            one_step.HISTORY: signals.past,
            one_step.HISTORY_PEAKS: signals.peaks,
            one_step.FLAGS: signals.flags,
            one_step.FLIGHT: flight.ring,
            one_step.FLOWN: flight.steps,
            one_step.CHUNK_SUMS: self._chunk_sums,
            one_step.NEXT_CHUNK: self._next_chunk,
        }
        sizes = {
            one_step.TENSORS: len(self._jobs),
            one_step.ROOTED: len(self._root),
            one_step.SAMPLED: self._each.shape[1],
            one_step.LEADING: stretches.current.shape[1],
            one_step.MEMBERS: alternatives.now.shape[1],
            one_step.RULES: len(alternatives.rules),
            one_step.LAG: len(alternatives.past),
            one_step.KEPT: flight.ring.shape[2],
            one_step.LENGTH: len(flight.steps),
            one_step.STANDS_FOR: self._stands_for,
            one_step.CHUNKS: len(self._chunk_sums),
        }
        for place, size in sizes.items():
            self._table[place] = size
        for place, array in arrays.items():
            assert array.flags.c_contiguous
            self._table[place] = array.ctypes.data
        self._tied = list(arrays.values())

    def weigh(self, stands_for: int) -> None:
        """Let each step count for so many in the sums, from the next on, as others are not looked at."""
        self._stands_for = self._table[one_step.STANDS_FOR] = stands_for

    def add(self, step: int) -> int:
        """Add the step that the handles were given, and forget it; return what is noteworthy, in bits of `one_step`.

        `step` is its number in the run. Of a `STALE` step nothing is added or forgotten.
        """
        if self._summed:
            self._sum_chunks()
        found: int = one_step.take_step(self._table, step)
        if found != STALE and self._held:
            self._held.clear()
        return found

    def _sum_chunks(self) -> None:
        self._next_chunk[0] = 0
        threads = min(torch.get_num_threads(), self._summed // PER_THREAD)
        if threads > 1:
            side_by_side(partial(one_step.sum_chunks, self._table), threads)
        else:
            one_step.sum_chunks(self._table)

    def clear(self) -> None:
        """Forget what the handles were given, after a step that went wrong."""
        self._jobs[:] = 0
        self._held.clear()


class Accumulator:
    """One tensor's row: what it is given of a step, and what it has summed up."""

    def __init__(self, home: Accumulators, row: int, coordinates: Coordinates, root: Array, each: Array) -> None:
        self.row = row
        self.root = root
        """sqrt(v) of the newest step, `(watched,)`; zero before the first; empty where it is not kept."""
        self.each = each
        """a, b, c and c_plus per coordinate of a sample, `(4, watched)`; `(4, 0)` where all are watched."""
        self.last, self.then = home.last[row], home.then[row]
        self._job, self._rule = home._jobs[row].data.cast("B"), home._rules[row].data.cast("B")
        self._jobs, self._gradients, self._counts = home._jobs, home.gradients, home._counts
        self._held, self._coordinates = home._held, coordinates

    def point(
        self,
        v: torch.Tensor | None,
        g: torch.Tensor,
        rule: bytes,
        survey: bool = False,
        before: torch.Tensor | None = None,
    ) -> bool:
        """Take this step from whole tensors, `v` None for 1, which must outlive `add`; False where that cannot be.

        `rule` holds the packed coefficients.

        A `survey`, whose tensors may be copies, sums over all coordinates in place of the sample; `before` is v before
        the step, None for zero.
        """
        in_place = self._coordinates.in_place
        if not in_place(g) or not all(x is None or (x.dtype is g.dtype and in_place(x)) for x in (v, before)):
            return False
        past = 0 if before is None else before.data_ptr()
        if survey:
            self._held.append((v, g, before))
        address = 0 if v is None else v.data_ptr()
        self._give((address, g.data_ptr()), g.element_size(), rule, survey=survey, before=past)
        return True

    def hold(self, v: NDArray[np.floating], g: NDArray[np.floating], now: Coefficients) -> None:
        """Take this step from arrays of the watched coordinates, `(watched,)`."""
        # Copies: where several optimizers make up one step, the first one's gradient may be gone before the last steps.
        # In their own precision: what float32 cannot know must not be read from the digits of float64.
        kind = np.float32 if v.dtype == g.dtype == np.float32 else np.float64
        held = np.array(v, kind), np.array(g, kind)
        self._held.append(held)
        addresses = held[0].ctypes.data, held[1].ctypes.data
        self._give(addresses, held[0].itemsize, now.packed(), gathered=True)

    def stay(self, v: int, g: int, now: Coefficients) -> None:
        """Take this step from numbers of float32 at these addresses, which outlive `add`; a `v` at 0 stands for ones.

        They are those of the watched coordinates, as `hold` takes them.
        """
        self._give((v, g), 4, now.packed(), gathered=True)

    def finish(self, sums: Array, v: NDArray[np.floating], g: NDArray[np.floating], now: Coefficients) -> None:
        """Take this step from its finished sums over all coordinates, `(20,)`, RMS2 not yet divided.

        `v` and `g` are those of the members of the harm test.
        """
        held = np.array(sums), np.array(v, np.float32), np.array(g, np.float32)
        self._held.append(held)
        its, *addresses = (array.ctypes.data for array in held)
        self._give((addresses[0], addresses[1]), 4, now.packed(), gathered=True, survey=FINISHED, before=its)

    def _give(
        self,
        addresses: tuple[int, int],
        size: int,
        rule: bytes,
        *,
        gathered: bool = False,
        survey: int = False,
        before: int = 0,
    ) -> None:
        """Write a job for this step alone, with v and g at the addresses; in the order of the columns of `one_step`."""
        v, g = addresses
        JOB.pack_into(self._job, 0, v, size, gathered, survey, before, 0, 0, 0, self.row)
        self._gradients[self.row], self._rule[:] = g, rule

    def stand(self, counter: torch.Tensor | None, count: float, rule_row: int) -> None:
        """Let what `point` gave stand for the steps to come, while `counter`, at `count` now, goes up by one in each.

        The coefficients are those of row `rule_row`. Whoever asks for this renews the address of the gradient in each
        step.
        """
        clock, size = (0, 0) if counter is None else (counter.data_ptr(), counter.element_size())
        self._jobs[self.row, STEADY:] = 1, clock, size, rule_row
        self._counts[self.row] = count - 1  # the step at hand is yet to be added

    def renew(self, rule: bytes) -> None:
        """Take the coefficients of this step, packed."""
        self._rule[:] = rule

    @property
    def count(self) -> float:
        """The optimizer's count at the newest step that was added while the job stood."""
        return float(self._counts[self.row])

    def idle(self) -> None:
        """Take nothing from this step."""
        self.last[:] = 0.0
        self.withdraw()

    def withdraw(self) -> None:
        """Take nothing more until the next `point` or `hold`."""
        self._jobs[self.row, [SIZE, STEADY]] = 0

    def follow(self, v: NDArray[np.floating], now: Coefficients) -> None:
        """Compare the next stepsize with that of `v`, `(watched,)`, under these coefficients."""
        if len(self.root):
            self.root[:] = np.sqrt(v, dtype=np.float64)
        self.then[:] = now

    def forget(self) -> None:
        """Compare the next stepsize with nothing: what comes is not the successor of what was."""
        self.root[:] = 0.0
        self.then[:] = 0.0
