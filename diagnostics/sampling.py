"""Which coordinates of a tensor are watched, how they are read, and what a sample of them leaves unknown."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .imagined import MEMBERS
from .pieces import Piece, local

Array = NDArray[np.float64]
Values = NDArray[np.floating]

NUMPY_DTYPES = (torch.float32, torch.float64)
"""Dtypes that keep their values in numpy; narrower ones are widened to float32, which is exact."""

NO_INDEX = np.empty(0, np.int64)

LARGE = 4096
"""Elements of a tensor above which nothing is kept for each, where it can be helped, and no more are proved."""

LEAD = 256
"""Coordinates per tensor on which the harm test runs: it keeps 51 numbers for each, so it takes fewer than the sums."""


IN_ORDER = np.arange(LEAD, dtype=np.int64)


class Coordinates:
    """The watched coordinates of one parameter: all of them, or a simple random sample without replacement.

    The sample depends on the seed and the tensor's name alone, so that a resumed run watches the same coordinates.
    Its first `lead` members are themselves a random sample: those of the harm test.
    A complex number is two real coordinates, as torch's own optimizers treat it.
    Of a tensor that is shared out among processes the sample is drawn as a whole, and each watches what of it lies in
    its `piece`.
    """

    def __init__(
        self, param: torch.Tensor, limit: int | None, seed: int, name: str, piece: Piece | None = None
    ) -> None:
        width = 2 if param.is_complex() else 1
        self.numel = local(param).numel() * width
        """Coordinates at hand: those of the piece."""
        self.whole = self.numel if piece is None else piece.whole * width
        """Coordinates of the whole tensor."""
        self.shape = tuple(param.shape) if piece is None else piece.shape
        sampled = limit is not None and limit < self.whole
        self.whole_watched = limit if sampled and limit is not None else self.whole
        """Coordinates of the whole tensor that are watched, by whatever process."""
        lead = min(LEAD, self.whole_watched)
        drawn = sample(self.whole, self.whole_watched if sampled else lead, seed, name)
        held, at_hand = (np.True_, drawn) if piece is None else piece.places(drawn, width)
        here = np.broadcast_to(held, len(drawn))
        self.lead, self.members = int(here[:lead].sum()), int(here[: min(lead, MEMBERS)].sum())
        """Of the watched coordinates: how many are members of the harm test, and how many of those of `what_if`."""
        self.index: NDArray[np.int64] | None = None
        if sampled:
            self.index = at_hand
            self._torch_index = torch.from_numpy(self.index)
        self.watched = self.numel if self.index is None else len(self.index)
        self.lead_index = at_hand if self.index is None else IN_ORDER[: self.lead]
        """Where the members of the harm test stand among the watched coordinates."""
        self.scale = self.whole / self.whole_watched if self.whole_watched else 1.0
        """From the watched coordinates to all, as `lead_scale` and `member_scale` from the fewer ones."""
        self.lead_scale = self.whole / max(1, lead)
        self.member_scale = self.whole / max(1, min(lead, MEMBERS))

    def in_place(self, tensor: torch.Tensor) -> bool:
        """Return whether compiled code may read the tensor where it lies: plain, on the CPU, in one piece."""
        return (
            type(tensor) is torch.Tensor
            and tensor.dtype in NUMPY_DTYPES
            and tensor.layout is torch.strided
            and tensor.is_cpu
            and tensor.numel() == self.numel > 0
            and tensor.is_contiguous()
        )

    @property
    def large(self) -> bool:
        """Whether all coordinates are watched of a tensor so large that keeping a number for each would be felt."""
        return self.index is None and self.whole > LARGE

    @property
    def sampled(self) -> NDArray[np.int64]:
        """The watched coordinates, empty where all are."""
        return NO_INDEX if self.index is None else self.index

    def take(self, tensor: torch.Tensor) -> Values:
        """Return the watched coordinates of a tensor of the parameter's shape, as float32 or float64, 1-D."""
        tensor = local(tensor.detach())
        if self.in_place(tensor):
            values: Values = memory(tensor.reshape(-1))
            return values if self.index is None else np.take(values, self.index)
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor.resolve_conj())
        if tensor.is_sparse:
            return self._take_sparse(tensor.coalesce())[0]
        if self.index is None:
            return as_numpy(tensor.reshape(-1))
        index = self._torch_index.to(tensor.device)
        if tensor.dtype.itemsize == 1:  # torch has no `take` for 8 bits
            return as_numpy(tensor.reshape(-1)[index])
        return as_numpy(torch.take(tensor, index))

    def take_lead(self, tensor: torch.Tensor) -> Values:
        """Return the members of the harm test of a tensor of the parameter's shape, likewise."""
        tensor = local(tensor)
        if self.in_place(tensor):
            where = self.lead_index if self.index is None else self.index[: self.lead]
            return np.take(memory(tensor.detach().reshape(-1)), where)
        return self.take(tensor)[self.lead_index]

    def touched(self, gradient: torch.Tensor) -> NDArray[np.bool_] | None:
        """Return which watched coordinates a sparse gradient names; None for a dense one, which names all."""
        return self._take_sparse(gradient.detach().coalesce())[1] if gradient.is_sparse else None

    def _take_sparse(self, gradient: torch.Tensor) -> tuple[Values, NDArray[np.bool_]]:
        """Look the watched coordinates up among the stored rows, without building the dense tensor."""
        if gradient.sparse_dim() != 1:
            dense = self.take(gradient.to_dense())
            return dense, dense != 0
        rows, values = memory(gradient.indices()[0].cpu()), as_numpy(gradient.values().reshape(-1))
        index = np.arange(self.numel) if self.index is None else self.index
        if len(rows) == 0:
            return np.zeros(len(index), values.dtype), np.zeros(len(index), np.bool_)
        width = values.size // len(rows)
        row, offset = np.divmod(index, width)
        place = np.minimum(np.searchsorted(rows, row), len(rows) - 1)
        touched = rows[place] == row
        return np.where(touched, values[place * width + offset], values.dtype.type(0)), touched

    def standard_error(self, variance: Array) -> Array:
        """Return the standard errors of Σ over the whole tensor, `(k,)`, from the sample's variances per coordinate.

        Simple random sampling without replacement: N·sqrt((1 - n/N)·s²/n), for n of N coordinates watched.
        """
        n, total = self.whole_watched, self.whole
        if n == total:
            return np.zeros(len(variance))
        error: Array = total * np.sqrt((1 - n / total) * variance / n)
        return error


def sample(numel: int, count: int, seed: int, name: str) -> NDArray[np.int64]:
    """Return `count` of `numel` indices drawn without replacement, sorted in parts: `MEMBERS`, up to `LEAD`, the rest.

    So the first of them are random samples by themselves.
    Sorted indices walk through memory in one direction, which is what makes reading them cheap.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    drawn = rng.choice(numel, size=count, replace=False).astype(np.int64)
    return np.concatenate([np.sort(part) for part in np.split(drawn, [MEMBERS, LEAD])])


def as_numpy(tensor: torch.Tensor) -> Values:
    """Return a 1-D tensor as a numpy array of its own precision, or float32 where numpy has no such dtype."""
    if tensor.dtype not in NUMPY_DTYPES:
        tensor = tensor.to(torch.float32)
    values: Values = memory(tensor.resolve_neg().cpu())
    return values


def memory(tensor: torch.Tensor) -> Any:
    """Return a CPU tensor's memory as a numpy array.

    Not by `.numpy()`, which forbids the owner to resize the storage for ever after.
    """
    return np.from_dlpack(tensor)
