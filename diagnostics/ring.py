"""Ring: the numbers of the last steps, gathered on the accelerator where they lie, and brought to the host at once.

A row holds what is *picked* of one step: some places of each of some tensors, one behind the other, and in front of
them the finished sums of tensors of which all coordinates are watched (`fused.py`). Writing a row takes one launch, or
a few for each tensor where Triton is missing, and makes nobody wait. All rows are sent to the host in one copy, which
is received when it has arrived; rows written meanwhile take the places of those that were sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from . import fused
from .fused import Pair, flat
from .sampling import memory
from .trace import SUMS

Array = NDArray[np.float64]
Values = NDArray[np.floating]

BYTES = 2**24
"""What the rows may take on the accelerator, and once more on the host."""
MOST = 64
"""Rows. An alert is late by twice as many steps at most: those on their way, and those that are being written."""
FEWEST = 2
"""Rows below which nothing would be won."""
ALIGNED = 32
"""Bytes of which a row takes a multiple: a kernel is compiled anew for addresses that are less even."""
KINDS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""What can be picked from; the kernel knows each by its place here."""


class Pick(NamedTuple):
    """What a row has of one tensor: `size` numbers, those at `places` of its memory, its first ones where None."""

    size: int
    places: NDArray[np.int64] | None = None


def rows_for(numbers: int, finished: int, width: int) -> int:
    """Return how many rows of so many numbers of `width` bytes, and of so many tensors' sums, there is room for."""
    return min(MOST, BYTES // max(1, width * numbers + 8 * len(SUMS) * finished))


class Ring:
    """Rows of `picks` and of the sums of `finished` tensors; `dtype` is float32, or float64 where one tensor is.

    `kernels` is the module of the Triton kernels, None for plain torch.
    """

    def __init__(
        self,
        device: torch.device,
        picks: Sequence[Pick],
        dtypes: Sequence[torch.dtype],
        finished: int,
        kernels: ModuleType | None,
    ) -> None:
        self.dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        ends = np.cumsum([pick.size for pick in picks], dtype=np.int64)
        self.slices = [slice(int(end) - pick.size, int(end)) for pick, end in zip(picks, ends, strict=True)]
        """Where each pick stands in a row of `numbers`."""
        numbers, self.finished = int(ends[-1]) if len(ends) else 0, finished
        self.rows, self.filled, self.sent = rows_for(numbers, finished, self.dtype.itemsize), 0, 0
        if self.rows < FEWEST:
            return
        self._kernels, self._device = kernels, device
        front = 8 * len(SUMS) * finished
        shape = self.rows, front + -ALIGNED * (-self.dtype.itemsize * numbers // ALIGNED)
        cuda = device.type == "cuda"
        there, here = (
            torch.zeros(shape, dtype=torch.uint8, device=device),
            torch.zeros(shape, dtype=torch.uint8, pin_memory=cuda),
        )
        self._there, self._here = there, here
        self._sums, self._numbers = there[:, :front].view(torch.float64), there[:, front:].view(self.dtype)
        self._stream = torch.cuda.current_stream(device) if cuda else None
        self._copied = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]
        if kernels is None:
            self._places = [None if p.places is None else torch.from_numpy(p.places).to(device) for p in picks]
        else:
            self._plan = kernels.Plan(device, picks, self.slices, dtypes, self.rows, finished)

    @property
    def full(self) -> bool:
        """Whether the rows have to be read before another step is written."""
        return self.filled == self.rows

    def in_stream(self) -> bool:
        """Return whether what runs now comes after the rows before it; the first row says where that is."""
        if self._stream is None:
            return True
        now = torch.cuda.current_stream(self._device)
        if not self.filled and not self.sent:
            self._stream = now
        return self._stream == now

    def write(self, tensors: Sequence[torch.Tensor], pairs: Sequence[Pair], scalars: NDArray[np.float32]) -> None:
        """Write the next row: a tensor for each pick, and a pair (v, g) for each finished tensor.

        `scalars`, `(finished, 12)`, are those of `fused.scalars`.
        """
        row = self.filled
        if self._kernels is not None:
            self._plan.write(row, tensors, pairs, scalars, self._numbers[row], self._sums[row])
        else:
            for tensor, places, where in zip(tensors, self._places, self.slices, strict=True):
                values = flat(tensor)
                chosen = values[: where.stop - where.start] if places is None else torch.take(values, places)
                self._numbers[row, where].copy_(chosen)
            for k, pair in enumerate(pairs):
                self._sums[row, len(SUMS) * k : len(SUMS) * (k + 1)].copy_(fused.sums(pair, scalars[k]))
        self.filled += 1

    @property
    def arrived(self) -> bool:
        """Return whether the rows that were sent are here, without waiting for them."""
        return self.sent > 0 and (self._copied is None or bool(self._copied.query()))  # type: ignore[no-untyped-call]

    def send(self) -> None:
        """Begin to copy all rows to the host, and begin anew; those sent before must have been received."""
        self.sent, self.filled = self.filled, 0
        here, there = self._here[: self.sent], self._there[: self.sent]
        if self._stream is None or self._copied is None:
            here.copy_(there)
        else:
            with torch.cuda.stream(self._stream):
                here.copy_(there, non_blocking=True)
                self._copied.record()
        if self._kernels is not None:
            self._plan.turn()

    def receive(self) -> tuple[Array, Values]:
        """Return the sums, `(rows, finished, 20)`, and the numbers, `(rows, …)`, of the rows that were sent.

        They stand where the next ones sent will stand.
        """
        if self._copied is not None:
            self._copied.synchronize()
        rows, front, self.sent = self.sent, self._sums.shape[1] * 8, 0
        sums = memory(self._here[:rows, :front].view(torch.float64)).reshape(rows, self.finished, len(SUMS))
        return sums, memory(self._here[:rows, front:].view(self.dtype))


def dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's numbers fill one piece of memory, in whatever order."""
    if tensor.is_contiguous():
        return True
    span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return 0 not in tensor.stride() and span == tensor.numel()


def places(tensor: torch.Tensor, index: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Return where the coordinates `index` (None: all) of a dense tensor lie in its memory; None if in order."""
    if tensor.is_contiguous():
        return index
    index = np.arange(tensor.numel()) if index is None else index
    along = np.unravel_index(index, tuple(tensor.shape))
    return np.asarray(sum(i * step for i, step in zip(along, tensor.stride(), strict=True)), np.int64)
