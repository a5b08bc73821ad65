"""What the optimizers of this room have in common: torch's own conventions around a rule for lists of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self, TypedDict, Unpack

import torch
from torch import Tensor
from torch.optim import Optimizer

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class Common(TypedDict, total=False):
    """Settings that all of these optimizers have, see `Elementwise`."""

    weight_decay: float
    decoupled_weight_decay: bool
    maximize: bool
    foreach: bool | None


class Batch(NamedTuple):
    """Tensors of one group, kind and count of steps, that a rule moves together."""

    group: Mapping[str, Any]
    params: list[Tensor]
    grads: list[Tensor]
    """Gradients of what is minimized, with coupled weight decay, in the precision of the states."""
    states: list[dict[str, Any]]
    t: int
    """The number of this step, from 1."""

    def state(self, name: str) -> list[Tensor]:
        """Return an entry of every tensor's state."""
        return [state[name] for state in self.states]

    def number(self, name: str) -> float:
        """Return a setting that may be a tensor as a float."""
        return float(self.group[name])

    @property
    def betas(self) -> tuple[float, float]:
        """β1 and β2."""
        beta1, beta2 = self.group["betas"]
        return float(beta1), float(beta2)


class Elementwise(Optimizer):
    """An optimizer whose rule is `steps`; the rest is here, once for all.

    Parameters may be complex, which counts as pairs of real numbers, and of any floating type; the states of one
    narrower than float32 are float32, as its second moments would round to nothing. Gradients are left as they are.

    Args:
        params: tensors, or groups of them, as for any torch optimizer.
        settings: the defaults of the rule, by name; `lr` among them.
        weight_decay: λ; by default λ·θ is added to the gradient.
        decoupled_weight_decay: shrink θ by lr·λ·θ instead, as AdamW does.
        maximize: climb instead of descending.
        foreach: move all tensors of a kind together, which is faster on accelerators; None does so there.

    Raises:
        ValueError: for a negative or non-finite rate or decay.
    """

    takes: tuple[str, ...] = ("lr", "betas", "eps")
    """Settings that mean the same in Adam's groups."""
    kept: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    """States of a tensor that are as large as it is, and zero before its first step."""
    shaped: tuple[str, ...] = ()
    """States of other shapes, which the rule makes at its first step."""
    decoupled = False
    """Whether weight decay is decoupled unless a setting says otherwise."""

    def __init__(self, params: Params, settings: dict[str, Any], **common: Unpack[Common]) -> None:
        defaults = {
            "weight_decay": 0.0,
            "decoupled_weight_decay": self.decoupled,
            "maximize": False,
            "foreach": None,
        }
        if unknown := common.keys() - defaults.keys():
            raise TypeError(f"{type(self).__name__} has no setting {min(unknown)!r}; its docstring says which it has.")
        settings = {**settings, **defaults, **common}
        for name in ("lr", "weight_decay"):
            require(0 <= float(settings[name]) < torch.inf, name, settings[name], "a finite number from 0 on")
        super().__init__(params, settings)

    @classmethod
    def after(cls, optimizer: Optimizer, **settings: Any) -> Self:
        """Return an optimizer of the same tensors as another one of Adam's kind, in groups of the same settings.

        Rate, decay rates, weight decay and its kind, and `maximize` carry over, and eps where it means the same;
        `settings` come before those. The states begin anew.
        """
        names = {*cls.takes, "weight_decay", "maximize"} - settings.keys()
        groups = []
        for group in optimizer.param_groups:
            taken = {name: group[name] for name in names if name in group}
            if "decoupled_weight_decay" not in settings:
                taken["decoupled_weight_decay"] = decouples(optimizer, group)
            groups.append({"params": group["params"], **taken})
        return cls(groups, **settings)

    def prepare(self, batches: list[Batch]) -> None:
        """Do what a rule has to do for all tensors before any of them moves."""

    def steps(self, batch: Batch) -> list[Tensor]:
        """Update the states, and return what is subtracted from each tensor."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return what `closure`, which computes the loss anew, returned.

        Raises:
            RuntimeError: for a sparse gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        batches = list(self._batches())
        self.prepare(batches)
        for batch in batches:
            steps = self.steps(batch)
            if batch.group["decoupled_weight_decay"] and batch.group["weight_decay"]:
                torch._foreach_mul_(batch.params, 1 - batch.number("lr") * batch.number("weight_decay"))
            torch._foreach_sub_(batch.params, steps)
        return loss

    def _batches(self) -> Iterator[Batch]:
        """Count the step of every tensor that has a gradient, and yield those that can move together."""
        for group in self.param_groups:
            alike: dict[Any, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    t = self._count(p)
                    together = p.is_cuda if group["foreach"] is None else group["foreach"]
                    alike.setdefault((p.device, p.dtype, t) if together else (len(alike),), []).append(p)
            for params in alike.values():
                states = [self.state[p] for p in params]
                real = [real_view(p) for p in params]
                grads = [self._gradient(p, group) for p in params]
                yield Batch(group, real, grads, states, int(states[0]["step"]))

    def _count(self, p: Tensor) -> int:
        """Count one step of a tensor, and make its states at the first."""
        refuse_sparse(p, type(self).__name__)
        state = self.state[p]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name in self.kept:
                state[name] = torch.zeros_like(real_view(p), dtype=wide(p), memory_format=torch.preserve_format)
        state["step"] += 1
        return int(state["step"])

    @staticmethod
    def _gradient(p: Tensor, group: Mapping[str, Any]) -> Tensor:
        """Return the gradient that the rule sees."""
        assert p.grad is not None
        g = real_view(p.grad).to(wide(p))
        g = -g if group["maximize"] else g
        if group["weight_decay"] and not group["decoupled_weight_decay"]:
            g = g.add(real_view(p), alpha=float(group["weight_decay"]))
        return g

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, each state as precise as it was saved; torch casts to the parameters' type.

        Raises:
            ValueError: for groups of other sizes, and for the states of another kind of optimizer.
        """
        for state in state_dict["state"].values():
            if missing := {"step", *self.kept, *self.shaped} - state.keys():
                raise ValueError(
                    f"`state_dict` must be that of a {type(self).__name__}, got states without {min(missing)!r}; "
                    f"begin anew, as {type(self).__name__}.after(optimizer) does."
                )
        super().load_state_dict(state_dict)
        keep_precision(self, state_dict)


def keep_precision(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Give states that were just loaded the precision that they have in the state dict."""
    saved = (key for group in state_dict["param_groups"] for key in group["params"])
    for key, p in zip(saved, (p for group in optimizer.param_groups for p in group["params"]), strict=True):
        state = optimizer.state[p] if key in state_dict["state"] else {}
        for name, value in state_dict["state"].get(key, {}).items():
            if isinstance(value, Tensor) and value.dtype != state[name].dtype:
                state[name] = value.to(device=state[name].device, copy=True)


def refuse_sparse(p: Tensor, who: str) -> None:
    """Raise a RuntimeError if a tensor's gradient is sparse."""
    if p.grad is not None and p.grad.is_sparse:
        raise RuntimeError(
            f"{who} needs dense gradients, got a sparse one; make the embedding with sparse=False, "
            "or give it to torch.optim.SparseAdam."
        )


def real_view(tensor: Tensor) -> Tensor:
    """Return a complex tensor as pairs of real numbers, any other as it is."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def wide(tensor: Tensor) -> torch.dtype:
    """Return the precision of a tensor's states: float32, or float64 where it has that."""
    return torch.float64 if tensor.dtype in (torch.float64, torch.complex128) else torch.float32


def decouples(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    """Return whether an optimizer shrinks θ instead of adding weight decay to the gradient."""
    default = group.get("weight_decouple", isinstance(optimizer, torch.optim.AdamW))
    return bool(group.get("decoupled_weight_decay", default))


def require(fits: bool, name: str, got: object, expected: str) -> None:
    """Raise a ValueError if a setting does not fit."""
    if not fits:
        raise ValueError(f"`{name}` must be {expected}, got {got!r}.")


def require_betas(betas: tuple[float, float]) -> None:
    """Raise a ValueError unless both are decay rates."""
    require(
        len(betas) == 2 and all(0 <= float(beta) < 1 for beta in betas), "betas", betas, "two numbers from 0 to below 1"
    )


def require_eps(eps: float) -> None:
    """Raise a ValueError unless eps is finite and not negative."""
    require(0 <= eps < torch.inf, "eps", eps, "a finite number from 0 on")


def average(averages: list[Tensor], values: list[Tensor], beta: float) -> None:
    """Move exponential averages on: m ← β·m + (1-β)·x."""
    torch._foreach_lerp_(averages, values, 1 - beta)


def average_squares(averages: list[Tensor], values: list[Tensor], beta: float) -> None:
    """Move averages of squares on: v ← β·v + (1-β)·x²."""
    torch._foreach_mul_(averages, beta)
    torch._foreach_addcmul_(averages, values, values, 1 - beta)


def over_root(numerators: list[Tensor], v: list[Tensor], scale: float, eps: float) -> list[Tensor]:
    """Return x / (scale·sqrt(v) + eps)."""
    roots = torch._foreach_sqrt(v)
    torch._foreach_mul_(roots, scale)
    torch._foreach_add_(roots, eps)
    return list(torch._foreach_div(numerators, roots))
