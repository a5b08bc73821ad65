"""Pieces: what this process holds of each parameter in a run of several processes. Nothing here communicates.

A piece is a box of the whole tensor: where it begins and how long it is along each axis. Everything is read off what
the process knows anyhow, so no rank ever waits for another.

    DTensor (fully_shard, tensor parallel)   the chunk that its placements give this rank; of copies, the first holds it
    FullyShardedDataParallel                 a stretch of the flattened tensor
    ZeroRedundancyOptimizer                  whole tensors, each with one rank
    ZeRO of DeepSpeed (zero.py)              a partition of flattened groups
    anything else (DistributedDataParallel)  whole tensors, the same on every rank
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Indices = NDArray[np.int64]

WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What wrappers put into the names of parameters; a sample is drawn by the name that the module itself gives."""


@dataclass(frozen=True)
class Piece:
    """A box of a tensor of `shape`; `axes` is the shape in which it is one, flat for a stretch of the flattened."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    begin: tuple[int, ...]
    length: tuple[int, ...]

    @property
    def whole(self) -> int:
        """Number of elements of the whole tensor."""
        return math.prod(self.axes)

    @property
    def numel(self) -> int:
        """Number of elements of the piece."""
        return math.prod(self.length)

    def places(self, index: Indices, width: int = 1) -> tuple[NDArray[np.bool_], Indices]:
        """Return which flat places of the whole tensor lie in the piece, and where those stand in it.

        `width` real coordinates make an element.
        """
        element, part = np.divmod(index, width)
        along = np.unravel_index(element, self.axes) if self.axes else ()
        offsets = [np.asarray(x) - begin for x, begin in zip(along, self.begin, strict=True)]
        held = np.ones(len(index), np.bool_)
        for offset, length in zip(offsets, self.length, strict=True):
            held &= (offset >= 0) & (offset < length)
        if not held.any():
            return held, np.empty(0, np.int64)
        inside = np.ravel_multi_index([x[held] for x in offsets], self.length) if self.axes else element[held]
        return held, np.asarray(inside * width + part[held], np.int64)


class Share:
    """What one of several processes has to do with a run: its rank, and the piece that it records of each parameter.

    Args:
        optimizer: as the user has it, with the parameters of all ranks where it shares them out.
        model: what holds the parameters, with its wrappers; FullyShardedDataParallel cannot be read without.
    """

    def __init__(self, optimizer: Any, model: torch.nn.Module | None) -> None:
        self.rank, self.world = rank_and_world()
        known: Mapping[int, tuple[Piece, bool]] = getattr(optimizer, "pieces", {})
        self._flat = known or (flat_pieces(model) if model is not None else {})
        params = [param for group in optimizer.param_groups for param in group["params"]]
        lost = sum(bool(getattr(param, "_fsdp_flattened", False)) and id(param) not in self._flat for param in params)
        if lost:
            raise ValueError(
                f"`model` must be the FullyShardedDataParallel model, got none that holds {lost} of the optimizer's "
                "tensors; pass it, for only it knows what its shards are pieces of."
            )
        meshes = [mesh_of(param) for param in params if is_dtensor(param)]
        self._widest = max(meshes, key=np.size, default=np.zeros(1, np.int64))
        self._deals = shares_out(optimizer)
        self.sharded = bool(meshes) or bool(self._flat) or self._deals
        """Whether the ranks hold different parts of the run, each of which is a record of its own."""
        self.size = sum(self._whole(param) for param in params)
        """Elements of all parameters, those of other ranks included."""

    @property
    def writes(self) -> bool:
        """Whether this rank writes a record if it holds any tensor: of equal ones only the first does."""
        return self.sharded or self.rank == 0

    def piece(self, param: torch.Tensor) -> Piece | None:
        """Return which part of a parameter this rank holds; None for all of it.

        Raises:
            ValueError: for a DTensor that is laid out in a way that is not known.
        """
        return dtensor_piece(param) if is_dtensor(param) else self._flat.get(id(param), (None, True))[0]

    def records(self, param: torch.Tensor) -> bool:
        """Return whether this rank is the one to record what it holds of a parameter, and holds any."""
        if not self.sharded or self._deals:
            return True
        if is_dtensor(param):
            first = is_first_copy(param) and is_first(self.rank, mesh_of(param), self._widest)
            return local(param).numel() > 0 and first
        if id(param) in self._flat:
            return param.numel() > 0 and self._flat[id(param)][1]
        return bool(self.rank == self._widest.min())

    def _whole(self, param: torch.Tensor) -> int:
        if torch.nn.parameter.is_lazy(param):
            return 0  # nobody knows yet
        piece, _ = self._flat.get(id(param), (None, True))
        return param.numel() if piece is None else piece.whole


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and how many there are; (0, 1) without a process group."""
    group = torch.distributed
    if not (group.is_available() and group.is_initialized()):
        return 0, 1
    return group.get_rank(), group.get_world_size()


def shares_out(optimizer: Any) -> bool:
    """Return whether an optimizer gives each rank some tensors, and steps by an inner one that has those alone."""
    return isinstance(getattr(optimizer, "optim", None), torch.optim.Optimizer)


def own_name(name: str) -> str:
    """Return a parameter's name without what wrappers put into it."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def bare(model: torch.nn.Module) -> torch.nn.Module:
    """Return the module that DistributedDataParallel or DeepSpeed wraps, whose names are those of one process."""
    inner = getattr(model, "module", None)
    wraps = type(model).__name__ in {"DistributedDataParallel", "DeepSpeedEngine"}
    return inner if wraps and isinstance(inner, torch.nn.Module) else model


# --- DTensor ---------------------------------------------------------------------------------------------------------


def is_dtensor(tensor: Any) -> bool:
    """Return whether a tensor is one of which each rank has a shard."""
    return hasattr(tensor, "to_local") and hasattr(tensor, "device_mesh")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this process holds of a tensor: all of it, but for a DTensor, whose reductions would be partial."""
    if not is_dtensor(tensor):
        return tensor
    with torch.no_grad():
        held: torch.Tensor = tensor.to_local()  # type: ignore[attr-defined]
        return held


def reduced(param: torch.Tensor) -> bool:
    """Return whether a gradient is laid out as its parameter: else it may be a summand of it, as under `Partial`."""
    return getattr(param.grad, "placements", None) == getattr(param, "placements", None)


def is_first_copy(param: Any) -> bool:
    """Return whether this rank is the first of those that hold the same shard."""
    copied = [axis for axis, placement in enumerate(param.placements) if placement.is_replicate()]
    return all(param.device_mesh.get_local_rank(axis) == 0 for axis in copied)


def mesh_of(param: Any) -> Indices:
    """Return the ranks over which a DTensor is laid out."""
    mesh: Indices = param.device_mesh.mesh.numpy()
    return mesh


def is_first(rank: int, mesh: Indices, widest: Indices) -> bool:
    """Return whether `mesh` is the first of those that divide up the widest one, as far as this rank's place tells.

    What `fully_shard` lays out over a column of a mesh, each of its columns has.
    """
    own, across = np.argwhere(widest == rank), np.argwhere(np.isin(widest, mesh))
    if not len(own) or not len(across):
        return True
    copied = (across == across[0]).all(axis=0)
    return bool((own[0][copied] == 0).all())


def dtensor_piece(param: Any) -> Piece:
    """Return the box that the placements give this rank.

    Axes of the mesh divide in their order, but one that is strided comes after those behind it: `fully_shard` cuts what
    tensor parallelism has left of the tensor.
    """
    shape = tuple(param.shape)
    box = [(0, length) for length in shape]
    placements = list(enumerate(param.placements))
    for axis, placement in sorted(placements, key=lambda entry: type(entry[1]).__name__ == "_StridedShard"):
        if not placement.is_replicate() and getattr(placement, "dim", None) is not None:
            dim = placement.dim % len(shape)
            begin, length = box[dim]
            box[dim] = chunk(begin, length, param.device_mesh.size(axis), param.device_mesh.get_local_rank(axis))
    piece = Piece(shape, shape, tuple(begin for begin, _ in box), tuple(length for _, length in box))
    if piece.numel != local(param).numel():
        raise ValueError(
            f"a DTensor of shape {shape} must be sharded in equal chunks, got {tuple(local(param).shape)} on this rank "
            f"of placements {tuple(param.placements)}; leave it out of the optimizer that is watched."
        )
    return piece


def chunk(begin: int, length: int, count: int, which: int) -> tuple[int, int]:
    """Return begin and length of one chunk of a range, as `torch.chunk` cuts it; the last ones may be empty."""
    step = -(-length // count)
    start = min(which * step, length)
    return begin + start, min(step, length - start)


# --- FullyShardedDataParallel ----------------------------------------------------------------------------------------


def flat_pieces(model: torch.nn.Module) -> Mapping[int, tuple[Piece, bool]]:
    """Return the piece of each parameter of FullyShardedDataParallel by `id`, and whether it is the first copy."""
    if "torch.distributed.fsdp" not in sys.modules:
        return {}
    from torch.distributed.fsdp import FullyShardedDataParallel

    found: dict[int, tuple[Piece, bool]] = {}
    for module in FullyShardedDataParallel.fsdp_modules(model):
        handle: Any = module._handle
        if handle is None:  # a module without parameters of its own
            continue
        flat, sharded = handle.flat_param, handle.uses_sharded_strategy
        between = getattr(module, "_inter_node_pg", None)
        first = handle.rank == 0 if not sharded else between is None or between.rank() == 0
        for param, piece in handle_pieces(handle, flat, sharded):
            found[id(param)] = piece, first
    return found


def handle_pieces(handle: Any, flat: Any, sharded: bool) -> list[tuple[torch.Tensor, Piece]]:
    """Return the parameters of one flat one with their pieces, or itself where it has not kept them."""
    if not handle._use_orig_params:
        total = flat.numel() * (handle.world_size if sharded else 1)
        begin = flat.numel() * handle.rank if sharded else 0
        return [(flat, Piece((total,), (total,), (begin,), (flat.numel(),)))]
    pieces = []
    for param, shape, held in zip(flat._params, flat._shapes, flat._shard_param_infos, strict=True):
        whole = math.prod(shape)
        begin, length = (held.intra_param_start_idx, held.numel_in_shard) if held.in_shard else (0, 0)
        begin, length = (begin, length) if sharded else (0, whole)
        pieces.append((param, Piece(tuple(shape), (whole,), (begin,), (length,))))
    return pieces
