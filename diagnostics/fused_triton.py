"""The kernels of a ring on a GPU: one launch picks all numbers of a step, one more makes the sums over all coordinates.

Which tensors there are, and what of them, is a *plan* that lies on the device; a step brings only the addresses, and
what the sums need of the coefficients. A program picks a block of one tensor's places, or sums a chunk of one tensor;
a tensor's chunks are added up by one program in their order, so that the sums are the same in every run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from .fused import ENOUGH, SCALARS, Pair, sums
from .ring import KINDS, Pick
from .trace import SUMS

BLOCK = 256
"""Places that one program picks."""
LANES, CHUNK = 512, 2**14
"""Numbers that are looked at at once, and those of one program: each lane sums 32 in float32, and they in float64."""
COLUMNS = len(SUMS)
SLOTS = 32
"""Columns of the partial sums: a power of two."""


@triton.jit
def load(address, kind, at, mask):
    """Return numbers of the tensor at an address, of the dtype `KINDS[kind]`, as float64."""
    x = tl.zeros(at.shape, tl.float64)
    if kind == 0:
        x = tl.load(address.to(tl.pointer_type(tl.float32)) + at, mask=mask, other=0.0).to(tl.float64)
    elif kind == 1:
        x = tl.load(address.to(tl.pointer_type(tl.float64)) + at, mask=mask, other=0.0)
    elif kind == 2:
        x = tl.load(address.to(tl.pointer_type(tl.bfloat16)) + at, mask=mask, other=0.0).to(tl.float32).to(tl.float64)
    else:
        x = tl.load(address.to(tl.pointer_type(tl.float16)) + at, mask=mask, other=0.0).to(tl.float64)
    return x


@triton.jit
def pick(addresses, plan, places, out, WIDTH: tl.constexpr):
    """Write one block of a pick: `plan` has its tensor, kind, first place (-1: in order), first number and size."""
    own = plan + 6 * tl.program_id(0)
    which, kind, first = tl.load(own), tl.load(own + 1), tl.load(own + 2)
    begin, to, size = tl.load(own + 3), tl.load(own + 4), tl.load(own + 5)
    lanes = begin + tl.arange(0, WIDTH)
    mask = lanes < size
    at = lanes
    if first >= 0:
        at = tl.load(places + first + lanes, mask=mask, other=0)
    x = load(tl.load(addresses + which), kind, at, mask)
    tl.store(out + to + lanes, x.to(out.dtype.element_ty), mask=mask)


@triton.jit
def add_chunk(  # noqa: PLR0915 - one pass
    addresses, scalars, plan, partial, WIDTH: tl.constexpr, PER: tl.constexpr, LEAST: tl.constexpr
):
    """Write the sums of one chunk: `plan` has its tensor, the kind of its gradient, where it begins, and the size."""
    chunk = tl.program_id(0)
    own = plan + 4 * chunk
    which, kind, begin, size = tl.load(own), tl.load(own + 1), tl.load(own + 2), tl.load(own + 3)
    its = scalars + 12 * which
    lr, gain, scale, eps = tl.load(its), tl.load(its + 1), tl.load(its + 2), tl.load(its + 3)
    scale_then, eps_then, change_lr = tl.load(its + 4), tl.load(its + 5), tl.load(its + 6)
    change_root, change_one, back = tl.load(its + 7), tl.load(its + 8), tl.load(its + 9)
    floor, least = tl.load(its + 10), tl.where(tl.load(its + 11) > 0.0, LEAST, float("inf"))
    of_v = tl.load(addresses + 2 * which).to(tl.pointer_type(tl.float32))
    of_g = tl.load(addresses + 2 * which + 1)
    none = tl.zeros((WIDTH,), tl.float32)  # a sum for each lane, and these are summed at the end
    active, rising, unsound, a, b, c_plus, g2, rms2 = none, none, none, none, none, none, none, none
    compared, bound, c, e2, delta2, c_lr, c_bias = none, none, none, none, none, none, none
    c_v, rise_lr, rise_bias, rise_v = none, none, none, none
    for i in range(PER):
        at = begin + i * WIDTH + tl.arange(0, WIDTH).to(tl.int64)
        mask = at < size
        v = tl.load(of_v + at, mask=mask, other=0.0)
        g = load(of_g, kind, at, mask).to(tl.float32)
        sound = (tl.abs(g) < float("inf")) & (v < float("inf")) & (v >= 0.0)
        v = tl.where(sound, v, 0.0)
        g = tl.where(sound, g, 0.0)
        live = v > 0.0
        fall = back * (v - g * g)
        v_then = v + fall
        known = live & (v_then > least * v)
        v_then = tl.where(known, v_then, 1.0)
        r, r_then = tl.sqrt_rn(v), tl.sqrt_rn(v_then)

        below, below_then, between = scale * r + eps, scale_then * r_then + eps_then, scale * r_then + eps
        over_then = 1.0 / below_then
        e = tl.where(live, lr * (gain / below), 0.0)
        by_lr = tl.where(known, change_lr * over_then, 0.0)
        by_bias = tl.where(known, lr * over_then * (change_root * r_then + change_one) / between, 0.0)
        by_v = tl.where(known, e * scale * fall / ((r + r_then) * between), 0.0)
        delta = by_lr + by_bias + by_v
        eg, u = e * g, tl.where(live, g / tl.maximum(scale * r, eps), 0.0)

        active += live.to(tl.float32)
        rising += (delta > 0.0).to(tl.float32)
        unsound += (mask & (sound == 0)).to(tl.float32)
        a += e
        b += eg * eg
        c_plus += tl.maximum(delta, 0.0)
        g2 += g * g
        rms2 += u * u
        compared += known.to(tl.float32)
        bound += (live & (scale * r < floor)).to(tl.float32)
        c += tl.abs(delta)
        e2 += e * e
        delta2 += delta * delta
        c_lr += tl.abs(by_lr)
        c_bias += tl.abs(by_bias)
        c_v += tl.abs(by_v)
        rise_lr += tl.maximum(by_lr, 0.0)
        rise_bias += tl.maximum(by_bias, 0.0)
        rise_v += tl.maximum(by_v, 0.0)

    # In the order of `SUMS`.
    slots = tl.arange(0, 32)
    found = put(slots, 0, active) + put(slots, 1, rising) + put(slots, 2, unsound) + put(slots, 3, a)
    found += put(slots, 4, b) + put(slots, 5, c_plus) + put(slots, 6, g2) + put(slots, 7, rms2)
    found += put(slots, 8, compared) + put(slots, 9, bound) + put(slots, 10, c) + put(slots, 11, e2)
    found += put(slots, 12, delta2) + put(slots, 13, c_lr) + put(slots, 14, c_bias) + put(slots, 15, c_v)
    found += put(slots, 16, rise_lr) + put(slots, 17, rise_bias) + put(slots, 18, rise_v)
    tl.store(partial + 32 * chunk + slots, found)


@triton.jit
def put(slots, k, x):
    """Return the sum of x in slot k of a row of zeros."""
    return tl.where(slots == k, tl.sum(x.to(tl.float64), axis=0), 0.0)


@triton.jit
def add_up(partial, chunks, out, COUNT: tl.constexpr):
    """Write the sums of one tensor, whose chunks are those from `chunks[p]` to `chunks[p + 1]`."""
    p = tl.program_id(0)
    slots = tl.arange(0, 32)
    found = tl.zeros((32,), tl.float64)
    for chunk in range(tl.load(chunks + p), tl.load(chunks + p + 1)):
        found += tl.load(partial + 32 * chunk + slots)
    tl.store(out + COUNT * p + slots, found, mask=slots < COUNT)


class Plan:
    """What the kernels are told of a ring once, and room for what they are told of each of its rows.

    The pairs of a ring have the sizes and dtypes of those of its first row.
    """

    def __init__(
        self,
        device: torch.device,
        picks: Sequence[Pick],
        slices: Sequence[slice],
        dtypes: Sequence[torch.dtype],
        rows: int,
        finished: int,
    ) -> None:
        self._device, self._finished, self._count = device, finished, len(picks)
        plan, places, first = [], [np.zeros(0, np.int64)], 0
        for which, (own, where, dtype) in enumerate(zip(picks, slices, dtypes, strict=True)):
            start = -1 if own.places is None else first
            if own.places is not None:
                places.append(own.places)
                first += own.size
            kind = KINDS.index(dtype)
            plan += [(which, kind, start, begin, where.start, own.size) for begin in range(0, own.size, BLOCK)]
        self._blocks, self._plan = len(plan), self._there(np.reshape(np.array(plan, np.int64), (-1, 6)))
        self._places = self._there(np.concatenate(places))
        self._first = self._count + self._count % 2  # even, as `ring.ALIGNED` asks
        shape = rows, self._first + 2 * finished
        pinned = device.type == "cuda"
        # The host must not overwrite what the device has yet to copy: a place for each row, and for each of those sent.
        self._turn = 0
        self._here, self._its = (
            torch.zeros((2, *shape), dtype=torch.int64, pin_memory=pinned),
            torch.zeros((2, rows, finished, SCALARS), pin_memory=pinned),
        )
        self._addresses, self._scalars = (torch.zeros_like(x[0], device=device) for x in (self._here, self._its))
        self._chunks: torch.Tensor | None = None

    def _there(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    def turn(self) -> None:
        """Use other places on the host: the rows so far were sent."""
        self._turn = 1 - self._turn

    def write(
        self,
        row: int,
        tensors: Sequence[torch.Tensor],
        pairs: Sequence[Pair],
        scalars: NDArray[np.float32],
        numbers: torch.Tensor,
        sums: torch.Tensor,
    ) -> None:
        """Write one row's `numbers` and `sums`."""
        every = [*tensors, *tensors[: self._first - self._count], *(tensor for pair in pairs for tensor in pair)]
        here, its = self._here[self._turn, row], self._its[self._turn, row]
        here[:] = torch.tensor([tensor.data_ptr() for tensor in every])
        addresses = self._addresses[row]
        with torch.cuda.device_of(numbers):  # type: ignore[no-untyped-call]  # where a kernel is launched
            addresses.copy_(here, non_blocking=True)
            pick[(self._blocks,)](addresses, self._plan, self._places, numbers, WIDTH=BLOCK)
            if pairs:
                its[:] = torch.from_numpy(scalars)
                self._scalars[row].copy_(its, non_blocking=True)
                self._sum(addresses[self._first :], self._scalars[row], pairs, sums)

    def _sum(self, addresses: torch.Tensor, scalars: torch.Tensor, pairs: Sequence[Pair], out: torch.Tensor) -> None:
        if self._chunks is None:
            self._lay_out(pairs)
        assert self._chunks is not None
        per = CHUNK // LANES
        add_chunk[(len(self._partial),)](
            addresses, scalars, self._of_chunks, self._partial, WIDTH=LANES, PER=per, LEAST=ENOUGH
        )
        add_up[(len(pairs),)](self._partial, self._chunks, out, COUNT=COLUMNS)

    def _lay_out(self, pairs: Sequence[Pair]) -> None:
        """Divide the pairs into chunks."""
        plan = [
            (which, KINDS.index(g.dtype), begin, v.numel())
            for which, (v, g) in enumerate(pairs)
            for begin in range(0, v.numel(), CHUNK)
        ]
        counts = [-(-v.numel() // CHUNK) for v, _ in pairs]
        self._of_chunks = self._there(np.reshape(np.array(plan, np.int64), (-1, 4)))
        self._chunks = self._there(np.cumsum([0, *counts]).astype(np.int64))
        self._partial = torch.zeros((len(plan), SLOTS), dtype=torch.float64, device=self._device)


def try_out(device: torch.device) -> None:
    """Raise unless the kernels run here and agree with plain torch; it takes a compiler, which a machine may lack."""
    v, g = torch.linspace(0, 2, 3000, device=device), torch.linspace(-1, 1, 3000, device=device)
    its = np.linspace(0.5, 1.5, SCALARS, dtype=np.float32)
    picked = Pick(2, np.array([7, 2999]))
    numbers, found = (
        torch.zeros(2, device=device),
        torch.zeros(COLUMNS, dtype=torch.float64, device=device),
    )
    plan = Plan(device, [picked], [slice(0, 2)], [v.dtype], 1, 1)
    plan.write(0, [v], [(v, g)], its[None], numbers, found)
    torch.testing.assert_close(numbers, v[[7, 2999]])
    torch.testing.assert_close(found, sums((v, g), its), rtol=1e-4, atol=1e-4)
