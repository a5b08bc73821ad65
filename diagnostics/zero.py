"""DeepSpeed's ZeRO: an optimizer whose parameters are flat partitions, on which it is stepped one after the other.

    stages 1 and 2   a partition for each parameter group; while it is stepped on, its group is the only one
    stage 3          one or several for each group; it is in its group only while it is stepped on

Each rank has as much of a group as the others, padding included, so that a partition is a piece of the whole. A step of
the engine is a round of steps of the optimizer inside, one for each partition, as with `Several`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from .pieces import Piece

Hook = Callable[..., None]


class Portion(torch.optim.Optimizer):
    """One partition, seen as an optimizer of its own.

    Args:
        inner: the optimizer that steps on all partitions.
        place: of the partition's parameter group in it.
        param: the partition.
        name: what the partition is called.
        piece: what this rank has of what all ranks have.
        first: whether this rank is among the first that have all of it together.
    """

    def __init__(
        self, inner: torch.optim.Optimizer, place: int, param: torch.Tensor, name: str, piece: Piece, first: bool
    ) -> None:
        # Not torch's own: that would copy groups and patch `step`, and there is none here.
        self.inner, self.param, self.piece, self.first = inner, param, piece, first
        self._place, self._count, self._name = place, len(inner.param_groups), name
        self._group = inner.param_groups[place]
        self._optimizer_load_state_dict_post_hooks = inner._optimizer_load_state_dict_post_hooks

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Its group, with the settings of the inner optimizer's as they are now."""
        groups = self.inner.param_groups
        if len(groups) == self._count:  # else it is the group of another partition alone
            self._group = groups[self._place]
        return [{**self._group, "params": [self.param], "param_names": [self._name]}]

    @property
    def state(self) -> dict[torch.Tensor, Any]:  # type: ignore[override]
        """The state of the inner optimizer."""
        return self.inner.state

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:  # type: ignore[override]
        """Have the hook called before steps on this partition."""
        return self.inner.register_step_pre_hook(self._if_its_turn(hook))

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """Have the hook called after steps on this partition."""
        return self.inner.register_step_post_hook(self._if_its_turn(hook))

    def register_load_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Have the hook called after the inner optimizer's state was loaded."""
        return self.inner.register_load_state_dict_post_hook(hook, prepend)

    def _if_its_turn(self, hook: Hook) -> Hook:
        def turn(*arguments: object) -> None:
            if any(param is self.param for group in self.inner.param_groups for param in group["params"]):
                hook(*arguments)

        return turn


def portions(zero: Any) -> list[Portion]:
    """Return the partitions of a ZeRO optimizer of DeepSpeed; none of any other object."""
    flat, places, groups = layout(zero)
    found = []
    for i, (param, place, group) in enumerate(zip(flat, places, groups, strict=True)):
        several = places.count(place) > 1
        name = f"group{place}.flat{i - places.index(place) if several else ''}"
        rank, world = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
        size = param.numel()
        piece = Piece((size * world,), (size * world,), (size * rank,), (size,))
        first = torch.distributed.get_global_rank(group, 0) == 0 if group is not None else True
        found.append(Portion(zero.optimizer, place, param, name, piece, first))
    return found


def layout(zero: Any) -> tuple[list[torch.Tensor], list[int], list[Any]]:
    """Return the partitions, the place of each one's group, and the process group that shares it out."""
    if hasattr(zero, "single_partition_of_fp32_groups"):  # stages 1 and 2
        flat = list(zero.single_partition_of_fp32_groups)
        return flat, list(range(len(flat))), list(zero.real_dp_process_group)
    if hasattr(zero, "fp32_partitioned_groups_flat"):  # stage 3
        flat = list(zero.fp32_partitioned_groups_flat)
        places = [zero.sub_group_to_group_id[i] for i in range(len(flat))]
        return flat, places, [zero.dp_process_group] * len(flat)
    return [], [], []
