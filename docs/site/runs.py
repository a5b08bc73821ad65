"""What the runs of the pages have in common; each page shows the function that made its figures, and what it calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType

import torch
from torch import Tensor, nn

from stepscope import Monitor, Trace

Runs = dict[str, Trace]
"""The runs of a page, by what distinguishes each in words."""
Run = Callable[[], Runs]


def feed(monitor: Monitor, gradients: Iterable[Tensor], before: Callable[[int], object] = lambda step: None) -> Trace:
    """Hand each gradient to the only parameter of an optimizer and step; `before` is called with the step's number."""
    optimizer = monitor.optimizer
    parameter = optimizer.param_groups[0]["params"][0]
    for step, gradient in enumerate(gradients, 1):
        before(step)
        parameter.grad = gradient.clone()
        optimizer.step()
    monitor.close()
    return monitor.trace


def network() -> nn.Module:
    """Return a network of 20 inputs, 32 hidden units and one output, the same at each call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 1))


def fit(monitor: Monitor, model: nn.Module, steps: int, noise: float, after: Callable[[int], object]) -> Trace:
    """Fit the model to noisy values of a function, 32 new points a step; `after` is called with the step's number."""
    for step in range(1, steps + 1):
        x = torch.randn(32, 20)
        y = torch.sin(2 * x[:, :1]) + x[:, 1:2] + noise * torch.randn(32, 1)
        loss = (model(x) - y).square().mean()
        monitor.optimizer.zero_grad()
        loss.backward()
        monitor.optimizer.step()
        monitor.log(loss=loss)
        after(step)
    monitor.close()
    return monitor.trace


def source(run: Run) -> str:
    """Return the code of a run, behind that of the functions of these files which it calls."""
    assert isinstance(run, FunctionType)
    return "\n\n".join(inspect.getsource(function).rstrip() for function in _with_called(run, []))


def _with_called(function: FunctionType, known: list[FunctionType]) -> list[FunctionType]:
    """Return what a function calls of the files beside this one, the deepest first, and the function; not the known."""
    found: list[FunctionType] = []
    for name in _names(function.__code__):
        called = function.__globals__.get(name)
        if isinstance(called, FunctionType) and called.__module__.startswith("runs"):
            if called not in (function, *known, *found):
                found += _with_called(called, [function, *known, *found])
    return [*found, function]


def _names(code: CodeType) -> list[str]:
    """Return the global names that code reads, those of functions inside it too."""
    inner = [name for const in code.co_consts if isinstance(const, CodeType) for name in _names(const)]
    return [*code.co_names, *inner]
