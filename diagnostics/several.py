"""Several optimizers of one class, seen as one: so is trained where each parameter has its own, driven in backward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from .pieces import Piece
from .zero import Portion, portions


class Several(torch.optim.Optimizer):
    """What several optimizers hold together; it takes no steps itself.

    Their steps come one by one. Those from one optimizer's step to just before it steps again, or until all have
    stepped, are a round, and a round is one step of the record.
    """

    def __init__(self, members: Iterable[torch.optim.Optimizer]) -> None:
        # Not torch's own: that would copy groups and patch `step`, and there is none here.
        self.members = tuple(members)
        self.stepped: set[torch.optim.Optimizer] = set()
        """Who has stepped in the round at hand."""
        self._places: dict[tuple[int, int], None] = {}

    @property
    def places(self) -> list[tuple[int, int]]:
        """The member and the place in it of every parameter group; groups that come later stand last."""
        groups = [(m, g) for m, member in enumerate(self.members) for g in range(len(member.param_groups))]
        self._places.update(dict.fromkeys(groups))
        return list(self._places)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """All parameter groups, in the order of `places`."""
        return [self.members[m].param_groups[g] for m, g in self.places]

    @property
    def state(self) -> dict[torch.Tensor, Any]:  # type: ignore[override]
        """The states of all tensors, as they are now."""
        return {param: state for member in self.members for param, state in member.state.items()}

    @property
    def pieces(self) -> dict[int, tuple[Piece, bool]]:
        """The piece that each tensor is by `id`, and whether it is the first copy, where a member knows."""
        return {id(one.param): (one.piece, one.first) for one in self.members if isinstance(one, Portion)}

    @property
    def round_is_full(self) -> bool:
        """Whether all have stepped."""
        return len(self.stepped) == len(self.members)


def hooked(optimizer: torch.optim.Optimizer) -> tuple[torch.optim.Optimizer, ...]:
    """Return what has the hooks of each step."""
    return optimizer.members if isinstance(optimizer, Several) else (optimizer,)


def members(optimizer: torch.optim.Optimizer) -> tuple[torch.optim.Optimizer, ...]:
    """Return the optimizers that take the steps."""
    return tuple(dict.fromkeys(one.inner if isinstance(one, Portion) else one for one in hooked(optimizer)))


def hookable(optimizer: Any) -> Any:
    """Return the optimizer that takes the steps: one that only wraps it, as Accelerate's, has no hooks of its own."""
    while not hasattr(optimizer, "_optimizer_step_post_hooks") and hasattr(optimizer, "optimizer"):
        if partitions := portions(optimizer):
            return Several(partitions)
        optimizer = optimizer.optimizer
    return optimizer


def watchable(optimizer: Any) -> Any:
    """Return what takes the steps, as one optimizer where a list or dict of them is given.

    What is none of these comes back as it is.

    Raises:
        ValueError: for none, for what is no optimizer, or for optimizers of more than one class.
    """
    if not isinstance(optimizer, (Mapping, list, tuple)):
        return hookable(optimizer)
    given = [hookable(one) for one in (optimizer.values() if isinstance(optimizer, Mapping) else optimizer)]
    strange = [type(one).__name__ for one in given if not isinstance(one, torch.optim.Optimizer)]
    if strange or not given:
        raise ValueError(
            f"`optimizer` must hold torch.optim.Optimizers where it is a list or dict, got "
            f"{strange[0] if strange else 'an empty one'}; pass those that take the steps."
        )
    kinds = sorted({type(one).__name__ for one in given})
    if len({type(one) for one in given}) > 1:
        raise ValueError(
            f"`optimizer` must hold optimizers of one class, got {' and '.join(kinds)}; their stepsizes do not add up, "
            "give each class a monitor of its own."
        )
    return Several(dict.fromkeys(given))
