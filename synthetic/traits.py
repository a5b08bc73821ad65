"""What a short trial shows of an optimizer, and what its class says of itself: no name is needed for the former."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from .cases import Case, Outcome

Array = NDArray[np.float64]
MakeOptimizer = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]

TRIAL_STEPS, COORDINATES = 64, 6
EXACT = 1e-12
"""Vectorised and single roots may differ in the last bit; coupled coordinates differ by far more."""


@dataclass(frozen=True)
class Traits:
    """Facts about an optimizer that decide how the suite plays with it and what theory expects."""

    name: str
    family: str | None
    """"sgd", "adagrad", "amsgrad" or "adam" for torch's classes without weight decay; None: theory has no word."""
    beta1: float
    beta2: float
    elementwise: bool
    """Whether a coordinate moves the same alone, in another place, or in another tensor."""
    proportional: bool
    """Whether larger gradients make larger steps, as with SGD; a step of size α needs an lr of α/|g|."""
    anneals: bool
    """Whether the steps shrink by themselves at a constant lr and gradient, as with Adagrad."""

    def expects(self, case: Case) -> Outcome | None:
        """Return how theory says that this class ends on a case for T → ∞; None where it does not say."""
        if self.family is None:
            return None
        return case.adam_ends(self.beta1, self.beta2) if self.family == "adam" else Outcome.SOLVED

    def rate(self, case: Case, t: Array) -> Array:
        """Return the case's α_t as this optimizer needs it, so that its steps are of that size.

        For one that anneals, √t is given back where the law falls with it. For a proportional one the unit is the
        mean size of the components' gradients at the start.
        """
        rate = case.rate(t)
        if self.anneals:
            rate = case.rate(np.ones(1)) * np.ones(len(t))
        return rate / gradient_size(case) if self.proportional else rate


def gradient_size(case: Case) -> float:
    """Return Σ w_i ‖∇f_i(x_1)‖ plus the size of the noise; 1 where that is zero."""
    problem = case.problem
    sizes = [float(np.linalg.norm(problem.gradient(i, problem.start))) for i in range(len(problem.components))]
    noise = 0.0
    if problem.noise is not None:
        noise = float(np.abs(problem.noise.stream(problem.dim, np.random.default_rng(0))(1000)).mean())
    return float(np.dot(problem.weights, sizes)) + noise or 1.0


def measure(factory: MakeOptimizer) -> Traits:
    """Build the optimizer and try it on a few small gradients.

    Raises:
        ValueError: if `factory` does not return a torch optimizer.
    """
    optimizer = made(factory, [torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))])
    family, beta1, beta2 = declared(optimizer)
    return Traits(
        type(optimizer).__name__, family, beta1, beta2, elementwise(factory), proportional(factory), anneals(factory)
    )


def made(factory: MakeOptimizer, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the factory's optimizer, ready to train."""
    optimizer = factory(parameters)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"`optimizer_factory` must return a torch.optim.Optimizer, got {type(optimizer).__name__}; "
            "write `lambda params: torch.optim.Adam(params)`, say."
        )
    if callable(train := getattr(optimizer, "train", None)):  # schedule-free optimizers want to be told
        train()
    return optimizer


def split(optimizer: torch.optim.Optimizer, sizes: Sequence[int]) -> None:
    """Cut an optimizer's one parameter group into groups of `sizes` tensors, so that each has its own lr."""
    (group,) = optimizer.param_groups
    ends = np.cumsum([0, *sizes]).tolist()
    optimizer.param_groups[:] = [{**group, "params": group["params"][a:b]} for a, b in pairwise(ends)]


def set_rate(group: dict[str, object], alpha: float) -> None:
    """Set a group's learning rate, also one held in a tensor."""
    held = group.get("lr")
    if isinstance(held, torch.Tensor):
        held.fill_(alpha)
    else:
        group["lr"] = alpha


def trial(factory: MakeOptimizer, gradients: Sequence[Array], alpha: float = 0.01) -> list[Array]:
    """Return the iterates, `(steps, n)` each, of tensors that start at zero and are given `gradients`."""
    parameters = [torch.nn.Parameter(torch.zeros(g.shape[1], dtype=torch.float64)) for g in gradients]
    optimizer = made(factory, parameters)
    split(optimizer, [1] * len(parameters))
    paths = [np.empty(g.shape) for g in gradients]
    for t in range(len(gradients[0])):
        for parameter, group, g in zip(parameters, optimizer.param_groups, gradients, strict=True):
            set_rate(group, alpha)
            parameter.grad = torch.from_numpy(g[t].copy())
        optimizer.step()
        for path, parameter in zip(paths, parameters, strict=True):
            path[t] = parameter.detach().numpy()
    return paths


def elementwise(factory: MakeOptimizer) -> bool:
    """Return whether coordinates know nothing of each other; False for an optimizer that fails the trial."""
    rng = np.random.default_rng(0)
    g = rng.standard_normal((TRIAL_STEPS, COORDINATES)) * 10.0 ** rng.integers(-2, 3, COORDINATES)
    order, half = rng.permutation(COORDINATES), COORDINATES // 2
    try:
        (together,) = trial(factory, [g])
        others = [
            np.concatenate([trial(factory, [g[:, i : i + 1]])[0] for i in range(COORDINATES)], axis=1),
            trial(factory, [g[:, order]])[0][:, np.argsort(order)],
            np.concatenate(trial(factory, [g[:, :half], g[:, half:]]), axis=1),
        ]
    except Exception:  # whatever it is, it shows again on the first problem and is told there
        return False
    scale = np.nanmax(np.abs(together), initial=1e-300)
    return all(np.allclose(together, other, rtol=EXACT, atol=EXACT * scale, equal_nan=True) for other in others)


def proportional(factory: MakeOptimizer) -> bool:
    """Return whether gradients 10⁴ times as large make steps more than 10² times as large."""
    g = np.random.default_rng(1).standard_normal((TRIAL_STEPS, 1))
    return length(factory, 1e4 * g, 1e-6) > 1e2 * length(factory, g, 1e-6)


def length(factory: MakeOptimizer, g: Array, alpha: float) -> float:
    """Return the length of the path, 0 if the optimizer fails."""
    try:
        path = trial(factory, [g], alpha)[0]
    except Exception:
        return 0.0
    return float(np.nansum(np.abs(np.diff(path, axis=0))))


def anneals(factory: MakeOptimizer) -> bool:
    """Return whether steps 400 are less than 0.6 of steps 100 under a constant gradient: 1/√t halves them."""
    try:
        path = trial(factory, [np.ones((400, 1))], 1e-6)[0][:, 0]
    except Exception:
        return False
    return bool(abs(path[399] - path[389]) < 0.6 * abs(path[99] - path[89]))


def declared(optimizer: torch.optim.Optimizer) -> tuple[str | None, float, float]:
    """Return the family and the decay rates that one of torch's own classes declares."""
    group, kind = optimizer.param_groups[0], type(optimizer)
    if group.get("weight_decay") or group.get("maximize"):
        return None, math.nan, math.nan
    if kind in (torch.optim.Adam, torch.optim.AdamW):
        beta1, beta2 = (float(beta) for beta in group["betas"])
        return ("amsgrad" if group["amsgrad"] else "adam"), beta1, beta2
    if kind is torch.optim.RMSprop and not group["centered"] and not group["momentum"]:
        return "adam", 0.0, float(group["alpha"])
    names: dict[type, str] = {torch.optim.SGD: "sgd", torch.optim.Adagrad: "adagrad"}
    return names.get(kind), math.nan, math.nan
