"""Each remedy on a run that it is made for, or beside what it replaces: the same problem before and after."""

from __future__ import annotations

from collections.abc import Callable

import torch
from runs import Run, Runs
from torch import Tensor, nn

from stepscope import Monitor, Trace
from stepscope.remedies import (
    ADOPT,
    AdaFom,
    Adai,
    AdaiV2,
    AdaShift,
    AMSGrad,
    AutoDrop,
    ClipUpdates,
    CProp,
    Demon,
    DemonAdam,
)

Optimizer = torch.optim.Optimizer


def game(remedy: Callable[[Optimizer], Optimizer]) -> Trace:
    """Play a game on [−1, 1] in 64 coordinates: a gradient of 11 once in eleven draws, else −½; the optimum is −1."""
    x = nn.Parameter(torch.zeros(64))
    optimizer = remedy(torch.optim.Adam([("x", x)], lr=0.05, betas=(0.0, 0.1)))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (t + 1) ** -0.5)
    chance = torch.Generator().manual_seed(0)
    with Monitor(optimizer, what_if=()) as monitor:
        for _ in range(6000):
            x.grad = torch.where(torch.rand(64, generator=chance) < 1 / 11, 11.0, -0.5)
            optimizer.step()
            scheduler.step()
            with torch.no_grad():
                x.clamp_(-1.0, 1.0)
            monitor.log(distance=(x.detach() + 1).mean())
    return monitor.trace


def sparse_mean(remedy: Callable[[Optimizer], Optimizer]) -> Trace:
    """Find the mean of numbers most of which are 0, one draw a step, at a rate that falls like 1/√t."""
    x = nn.Parameter(torch.full((64,), 0.5))
    optimizer = remedy(torch.optim.Adam([("x", x)], lr=0.02, betas=(0.0, 0.9)))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (t + 1) ** -0.5)
    chance = torch.Generator().manual_seed(0)
    with Monitor(optimizer, what_if=()) as monitor:
        for _ in range(6000):
            x.grad = x.detach() - (torch.rand(64, generator=chance) < 0.1).float()
            optimizer.step()
            scheduler.step()
            monitor.log(distance=(x.detach() - 0.1).square().mean().sqrt())
    return monitor.trace


def noisy_bowl(
    optimizer: Callable[[Tensor], Optimizer], schedule: Callable[[Optimizer], AutoDrop] | None = None
) -> Trace:
    """Descend a bowl of condition 100 in 64 variables with a gradient noise of 1; an epoch is 50 steps."""
    curvature = torch.logspace(-2, 0, 64)
    x = nn.Parameter(torch.full((64,), 3.0))
    steps = optimizer(x)
    epochs = schedule(steps) if schedule else None
    chance = torch.Generator().manual_seed(0)
    with Monitor(steps, what_if=()) as monitor:
        for step in range(1, 4001):
            x.grad = curvature * x.detach() + torch.randn(64, generator=chance)
            steps.step()
            if epochs and step % 50 == 0:
                epochs.step()
            monitor.log(loss=(curvature * x.detach().square()).sum() / 2)
    return monitor.trace


def sgd(x: Tensor) -> Optimizer:
    """Return SGD with a momentum of 0.9."""
    return torch.optim.SGD([("x", x)], lr=0.01, momentum=0.9)


def amsgrad() -> Runs:
    """Adam loses a game of rare large gradients; AMSGrad, put in its place, goes the other way."""
    return {"Adam": game(lambda adam: adam), "AMSGrad": game(AMSGrad.after)}


def adopt() -> Runs:
    """Adam loses a game of rare large gradients; ADOPT, put in its place, goes the other way."""
    return {"Adam": game(lambda adam: adam), "ADOPT": game(lambda adam: ADOPT.after(adam, clip=None))}


def adashift() -> Runs:
    """Adam loses a game of rare large gradients; AdaShift, put in its place, goes the other way."""
    return {"Adam": game(lambda adam: adam), "AdaShift": game(lambda adam: AdaShift.after(adam, spatial="none"))}


def adafom() -> Runs:
    """Adam's rare large gradients divide themselves out of the mean; AdaFom weighs them all alike."""
    return {"Adam": sparse_mean(lambda adam: adam), "AdaFom": sparse_mean(AdaFom.after)}


def autodrop() -> Runs:
    """SGD with momentum comes to hover in a noise ball; AutoDrop lowers its rate there."""
    return {"SGD": noisy_bowl(sgd), "SGD and AutoDrop": noisy_bowl(sgd, AutoDrop)}


def demon() -> Runs:
    """SGD with momentum comes to hover in a noise ball; Demon lets the momentum go by the end."""
    return {"SGD": noisy_bowl(sgd), "Demon": noisy_bowl(lambda x: Demon(sgd(x), steps=4000))}


def cprop() -> Runs:
    """SGD with momentum comes to hover in a noise ball; CProp takes the steps that the gradients agree on."""
    return {"SGD": noisy_bowl(sgd), "CProp": noisy_bowl(lambda x: CProp(sgd(x)))}


def adai() -> Runs:
    """SGD with momentum 0.9, and Adai at ten times its rate: a gradient weighs as much in all."""
    return {"SGD": noisy_bowl(sgd), "Adai": noisy_bowl(lambda x: Adai([("x", x)], lr=0.1))}


def adaiv2() -> Runs:
    """Adai and AdaiV2 with a weight decay of 0.1: as part of the gradient, and apart from it."""
    return {
        "Adai": noisy_bowl(lambda x: Adai([("x", x)], lr=0.1, weight_decay=0.1)),
        "AdaiV2": noisy_bowl(lambda x: AdaiV2([("x", x)], lr=0.1, weight_decay=0.1)),
    }


def demon_adam() -> Runs:
    """Adam, and DemonAdam at a tenth of its rate, whose steps are as long at first and a tenth of that at the end."""
    return {
        "Adam": noisy_bowl(lambda x: torch.optim.Adam([("x", x)], lr=0.03)),
        "DemonAdam": noisy_bowl(lambda x: DemonAdam([("x", x)], steps=4000, lr=0.003)),
    }


def clip_updates() -> Runs:
    """The gradients of AdamW grow thousandfold for some steps; ClipUpdates divides each step by its RMS_t."""

    def train(remedy: Callable[[Optimizer], Optimizer]) -> Trace:
        x = nn.Parameter(torch.ones(64))
        optimizer = remedy(torch.optim.AdamW([("x", x)], lr=0.01))
        chance = torch.Generator().manual_seed(0)
        with Monitor(optimizer, what_if=()) as monitor:
            for step in range(900):
                size = 1000.0 if 600 <= step < 610 else 1.0
                x.grad = size * (x.detach() + 0.3 * torch.randn(64, generator=chance))
                optimizer.step()
                monitor.log(loss=x.detach().square().sum() / 2)
        return monitor.trace

    return {"AdamW": train(lambda adamw: adamw), "ClipUpdates": train(ClipUpdates)}


REMEDIES: dict[str, Run] = {
    "AMSGrad": amsgrad,
    "ADOPT": adopt,
    "AdaShift": adashift,
    "AdaFom": adafom,
    "AutoDrop": autodrop,
    "Demon": demon,
    "ClipUpdates": clip_updates,
    "CProp": cprop,
    "Adai": adai,
    "AdaiV2": adaiv2,
    "DemonAdam": demon_adam,
}
