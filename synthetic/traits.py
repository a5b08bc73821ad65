"""What a short trial shows of an optimizer, and what its class says of itself: no name is needed for the former."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .cases import Case, Nature, Outcome

Array = NDArray[np.float64]
MakeOptimizer = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]

TRIAL_STEPS, COORDINATES = 64, 6
EXACT = 1e-12
"""Vectorised and single roots may differ in the last bit; coupled coordinates differ by far more."""
LATE = 1e6
"""A step at which a law that falls has fallen to less than half."""

CONVERGE, ADAM = ("sgd", "adagrad", "amsgrad_torch", "amsgrad", "adafom"), ("adam", "rmsprop")
EPS = {"eps": "eps"}
PUBLIC: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "pytorch_optimizer.Adai": ("adai", EPS),
    "pytorch_optimizer.AdaBelief": ("adabelief", EPS),
    "pytorch_optimizer.AdaShift": ("adashift", EPS | {"keep_num": "n"}),
    "pytorch_optimizer.ADOPT": ("adopt", EPS),
    "pytorch_optimizer.Yogi": ("yogi", EPS | {"initial_accumulator": "initial"}),
    "stepscope.AMSGrad": ("amsgrad", EPS),
    "stepscope.AdaFom": ("adafom", EPS),
    "stepscope.AdaShift": ("adashift", EPS | {"window": "n"}),
    "stepscope.ADOPT": ("adopt", EPS | {"clip": "clip"}),
    "stepscope.Adai": ("adai", EPS | {"beta0": "beta0", "beta2": "beta2"}),
}
"""Classes by package: our method of the same rule, and which of its hyper-parameters a group's entries are."""
DEFAULTS: Mapping[str, object] = {"dampening": 1.0, "clip_lambda": 2.0, "clip": 0.25}
"""What settings must be, or give at 16, for such a class to be our method."""
VARIANTS = ("weight_decay", "maximize", "rectify", "ams_bound", "cautious", "centered")
"""Settings that make another method of a class unless they are zero or false."""


@dataclass(frozen=True)
class Traits:
    """Facts about an optimizer that decide how the suite plays with it and what theory expects."""

    name: str
    method: str | None
    """Its name in `METHODS`, for classes without weight decay that are known by name; None for all others."""
    hyper: Mapping[str, float]
    """The method's hyper-parameters."""
    elementwise: bool
    """Whether a coordinate moves the same alone, in another place, or in another tensor."""
    proportional: bool
    """Whether larger gradients make larger steps, as with SGD; a step of size α needs an lr of α/|g|."""
    anneals: bool
    """Whether the steps shrink by themselves at a constant lr and gradient, as with Adagrad."""
    reevaluates: bool = False
    """Whether `step` asks for a function that evaluates loss and gradient again, as LBFGS does."""

    def expects(self, case: Case) -> Outcome | None:
        """Return how theory says that this class ends on a case for T → ∞; None where it does not say.

        SGD, Adagrad, AdaFom and AMSGrad converge on all cases. Of others the drift tells, and of Adam the tame cases.
        """
        if self.method in CONVERGE:
            return Outcome.SOLVED
        if self.method is not None and case.nature is Nature.DRIFT:
            return case.drifts(self.method, self.hyper)
        if self.method not in ADAM:
            return None
        return Outcome.SHORT if case.nature is Nature.CYCLE else Outcome.SOLVED

    def rate(self, case: Case, t: Array) -> Array:
        """Return the case's α_t as this optimizer needs it, so that its steps are of that size.

        To one that anneals a law that falls is given as the constant that it is a 1/√t of, late in the run. For a
        proportional one the unit is the mean size of the components' gradients at the start.
        """
        rate, (first, late) = case.rate(t), case.rate(np.array([1.0, LATE]))
        if self.anneals and late < first / 2:
            rate = np.full(len(t), late * np.sqrt(LATE))
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
    method, hyper = declared(optimizer)
    asks = reevaluates(factory)
    measured = (elementwise(factory, asks), proportional(factory, asks), anneals(factory, asks))
    return Traits(type(optimizer).__name__, method, hyper, *measured, asks)


def made(factory: MakeOptimizer, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the factory's optimizer, ready to train."""
    if not callable(factory):
        raise ValueError(
            f"`optimizer_factory` must be a function of a list of parameters, got {type(factory).__name__}; "
            "write `lambda params: torch.optim.Adam(params)`, say."
        )
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


def take_step(optimizer: torch.optim.Optimizer, evaluate: Callable[[], float] | None) -> None:
    """Call `step`; with a function that evaluates the loss, and writes the gradient, where there is one."""
    if evaluate is None:
        optimizer.step()
        return
    closure: Any = lambda: torch.tensor(evaluate(), dtype=torch.float64)  # noqa: E731  # some ask for .item()
    optimizer.step(closure)


def trial(
    factory: MakeOptimizer, gradients: Sequence[Array], alpha: float = 0.01, reevaluates: bool = False
) -> list[Array]:
    """Return the iterates, `(steps, n)` each, of tensors that start at zero and are given `gradients`."""
    parameters = [torch.nn.Parameter(torch.zeros(g.shape[1], dtype=torch.float64)) for g in gradients]
    optimizer = made(factory, parameters)
    split(optimizer, [1] * len(parameters))
    paths = [np.empty(g.shape) for g in gradients]
    for t in range(len(gradients[0])):
        for parameter, group, g in zip(parameters, optimizer.param_groups, gradients, strict=True):
            set_rate(group, alpha)
            parameter.grad = torch.from_numpy(g[t].copy())
        take_step(optimizer, partial(_linear, parameters) if reevaluates else None)
        for path, parameter in zip(paths, parameters, strict=True):
            path[t] = parameter.detach().numpy()
    return paths


def _linear(parameters: Sequence[torch.nn.Parameter]) -> float:
    """Return the loss whose gradient stays the one that was given."""
    return sum(float((p.detach() * p.grad).sum()) for p in parameters if p.grad is not None)


def reevaluates(factory: MakeOptimizer) -> bool:
    """Return whether a step fails without a function that evaluates the loss, and does not with one."""
    g = [np.ones((1, 1))]
    try:
        trial(factory, g)
    except Exception:
        try:
            trial(factory, g, reevaluates=True)
        except Exception:
            return False
        return True
    return False


def elementwise(factory: MakeOptimizer, asks: bool = False) -> bool:
    """Return whether coordinates know nothing of each other; False for an optimizer that fails the trial."""
    rng = np.random.default_rng(0)
    g = rng.standard_normal((TRIAL_STEPS, COORDINATES)) * 10.0 ** rng.integers(-2, 3, COORDINATES)
    order, half = rng.permutation(COORDINATES), COORDINATES // 2
    try:
        (together,) = trial(factory, [g], reevaluates=asks)
        others = [
            np.concatenate(
                [trial(factory, [g[:, i : i + 1]], reevaluates=asks)[0] for i in range(COORDINATES)], axis=1
            ),
            trial(factory, [g[:, order]], reevaluates=asks)[0][:, np.argsort(order)],
            np.concatenate(trial(factory, [g[:, :half], g[:, half:]], reevaluates=asks), axis=1),
        ]
    except Exception:  # whatever it is, it shows again on the first problem and is told there
        return False
    scale = np.nanmax(np.abs(together), initial=1e-300)
    return all(np.allclose(together, other, rtol=EXACT, atol=EXACT * scale, equal_nan=True) for other in others)


def proportional(factory: MakeOptimizer, asks: bool = False) -> bool:
    """Return whether gradients 10⁴ times as large make steps more than 10² times as large."""
    g = np.random.default_rng(1).standard_normal((TRIAL_STEPS, 1))
    return length(factory, 1e4 * g, 1e-6, asks) > 1e2 * length(factory, g, 1e-6, asks)


def length(factory: MakeOptimizer, g: Array, alpha: float, asks: bool = False) -> float:
    """Return the length of the path, 0 if the optimizer fails."""
    try:
        path = trial(factory, [g], alpha, asks)[0]
    except Exception:
        return 0.0
    return float(np.nansum(np.abs(np.diff(path, axis=0))))


def anneals(factory: MakeOptimizer, asks: bool = False) -> bool:
    """Return whether steps 400 are less than 0.6 of steps 100 under a constant gradient: 1/√t halves them."""
    try:
        path = trial(factory, [np.ones((400, 1))], 1e-6, asks)[0][:, 0]
    except Exception:
        return False
    return bool(abs(path[399] - path[389]) < 0.6 * abs(path[99] - path[89]))


def declared(optimizer: torch.optim.Optimizer) -> tuple[str | None, Mapping[str, float]]:
    """Return the method of `METHODS` that a class known by name is, with its hyper-parameters; None for others."""
    group, kind = vars(optimizer) | optimizer.param_groups[0], type(optimizer)
    if any(group.get(name) for name in VARIANTS):
        return None, {}
    if kind in (torch.optim.Adam, torch.optim.AdamW):
        name = "amsgrad_torch" if group["amsgrad"] else "adam"
        return name, decays(group, "beta1") | {"eps": float(group["eps"])}
    if kind is torch.optim.RMSprop and not group["momentum"]:
        return "rmsprop", {"beta2": float(group["alpha"]), "eps": float(group["eps"])}
    public = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    if public in PUBLIC:
        return published(group, *PUBLIC[public])
    names: dict[type, str] = {torch.optim.SGD: "sgd", torch.optim.Adagrad: "adagrad"}
    return names.get(kind), {}


def published(
    group: Mapping[str, Any], name: str, entries: Mapping[str, str]
) -> tuple[str | None, Mapping[str, float]]:
    """Return the method of a class of `PUBLIC`, or None where a setting makes another of it."""
    for setting, expected in DEFAULTS.items():
        value = group.get(setting, expected)
        if (value(16.0) if callable(value) else value) != expected:
            return None, {}
    first = "beta0" if name == "adai" else "beta1"
    both = decays(group, first) if "betas" in group else {}
    if name == "adafom":
        del both["beta2"]  # its v has none
    return name, both | {ours: float(group[theirs]) for theirs, ours in entries.items()}


def decays(group: Mapping[str, Any], first: str) -> dict[str, float]:
    """Return a group's two decay rates."""
    return {name: float(beta) for name, beta in zip((first, "beta2"), group["betas"], strict=True)}
