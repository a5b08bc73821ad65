"""What wrappers have in common: another optimizer takes the steps, and something is done before or after them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..diagnostics.readers import reader_of
from ..diagnostics.readers_adam import shrinkage
from .elementwise import keep_precision, real_view, refuse_sparse, wide


def shared(name: str) -> Any:
    """Return a property that is the wrapped optimizer's."""
    return property(
        lambda self: getattr(self.optimizer, name), lambda self, value: setattr(self.optimizer, name, value)
    )


class Wrapper(Optimizer):
    """An optimizer around another one; what it does about the steps is `move`.

    Groups, states and defaults are the wrapped optimizer's own: the settings of a wrapper stand in the groups beside
    its, and the states of a wrapper in the tensors' states. So schedulers may be made for either, either's state dict
    has all, and a group may come later or with settings of its own. After wrapping, only the wrapper is to `step`, and
    what has hooks (a Monitor, a GradScaler) is to be given the wrapper.

    Args:
        optimizer: the optimizer that takes the steps; not one that calls a closure more than once, as LBFGS.
        settings: the wrapper's settings by their names in a group; a group that has one of its own keeps it.

    Raises:
        ValueError: for what is no torch optimizer, or has been wrapped so before.
    """

    optimizer: Optimizer
    param_groups: list[dict[str, Any]] = shared("param_groups")
    state: defaultdict[Tensor, Any] = shared("state")
    defaults: dict[str, Any] = shared("defaults")

    def __init__(self, optimizer: Optimizer, settings: dict[str, Any]) -> None:
        mine = type(self).__name__
        if not isinstance(optimizer, Optimizer):
            raise ValueError(
                f"`optimizer` must be a torch.optim.Optimizer, got {type(optimizer).__name__}; make one and wrap it, "
                f"as in {mine}(torch.optim.SGD(params, lr=0.1), …)."
            )
        if settings.keys() & optimizer.defaults.keys():
            raise ValueError(f"`optimizer` must not be in a {mine} yet, got one that is; make a new one, or use that.")
        # Not torch's own __init__: it would make groups and states, and here are none.
        self.__setstate__({"optimizer": optimizer})
        optimizer.defaults.update(settings)
        for group in optimizer.param_groups:
            group.update(settings | group)

    def move(self) -> None:
        """Let the wrapped optimizer step, and do what there is to do about it."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return what `closure`, which computes the loss anew, returned.

        Raises:
            RuntimeError: for a sparse gradient, where the step is to be scaled.
        """
        loss = None
        if closure is not None:  # called here: the gradients must be known before the step
            with torch.enable_grad():
                loss = closure()
        self.move()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of tensors to the wrapped optimizer."""
        self.optimizer.add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, each state as precise as it was saved.

        It may be one of the wrapped optimizer from before it was wrapped: what is missing begins.

        Raises:
            ValueError: for groups of other sizes.
        """
        state_dict = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, state_dict) or state_dict
        self.optimizer.load_state_dict(state_dict)
        keep_precision(self, state_dict)
        for group in self.param_groups:
            group.update(self.defaults | group)
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer}


class Noted(NamedTuple):
    """A tensor that is about to be moved, and what the step will overwrite."""

    group: Mapping[str, Any]
    param: Tensor
    theta: Tensor
    """A copy of the tensor, complex numbers as pairs."""
    grad: Tensor
    """A copy of its gradient as it stands, in the precision of states: torch's foreach forms may write into it."""
    decoupled: bool
    """Whether weight decay shrinks the tensor instead of entering the gradient."""


def scale_steps(
    optimizer: Optimizer, factor: Callable[[Noted, dict[str, Any]], Tensor], scales_decay: str = ""
) -> None:
    """Let an optimizer step, and multiply what it did to each tensor by a factor, elementwise or one a tensor.

    Decoupled weight decay is left as it is: where it alone would leave k of θ, and the optimizer left θ', the factor s
    leaves k + s·(θ' - k). In narrow precision θ' was rounded before: what is lost there no factor brings back.

    Args:
        optimizer: takes the step.
        factor: gets the tensor's state after the step, and may keep its own there.
        scales_decay: the setting of a group that says that decay is scaled as well.
    """
    noted = note(optimizer)
    optimizer.step()
    for one in noted:
        s, now = factor(one, optimizer.state[one.param]), real_view(one.param)
        if one.decoupled and not one.group.get(scales_decay):
            one.theta.mul_(1 - shrinkage(one.group))
        # Not k + s·(θ' - k), which rounds where s is 1: this ends at both of its ends.
        now.copy_(torch.lerp(one.theta.to(s.dtype), now.to(s.dtype), s))


def note(optimizer: Optimizer) -> list[Noted]:
    """Return every tensor that has a gradient."""
    noted, reader = [], reader_of(optimizer)
    for group in optimizer.param_groups:
        decoupled = bool(group.get("decoupled_weight_decay") or (reader is not None and reader.decoupled(group)))
        for p in group["params"]:
            if p.grad is not None:
                refuse_sparse(p, "a wrapper that scales steps")
                grad = real_view(p.grad).to(wide(p), copy=True)
                noted.append(Noted(group, p, real_view(p).clone(), grad, decoupled))
    return noted
