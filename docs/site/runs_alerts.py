"""Short runs that raise each of the alerts."""

from __future__ import annotations

import math

import torch
from runs import Run, Runs, feed
from torch import nn

from stepscope import Monitor


def weight(size: int = 64) -> list[tuple[str, nn.Parameter]]:
    """Return a tensor of ones, named w."""
    return [("w", nn.Parameter(torch.ones(size)))]


def noise(steps: int, size: int = 64) -> torch.Tensor:
    """Return a gradient of Gaussian noise for each step."""
    return torch.randn(steps, size, generator=torch.Generator().manual_seed(0))


def nonfinite() -> Runs:
    """One coordinate of one gradient is NaN."""
    gradients = noise(320)
    gradients[299, 7] = math.nan
    return {"Adam": feed(Monitor(torch.optim.Adam(weight()), what_if=()), gradients)}


def learning_rate() -> Runs:
    """The rate is a hundred times too large from step 300 on."""
    optimizer = torch.optim.Adam(weight(), lr=5e-3)

    def leap(step: int) -> None:
        optimizer.param_groups[0]["lr"] = 5e-3 if step < 300 else 0.5

    return {"Adam": feed(Monitor(optimizer, what_if=()), noise(340), leap)}


def update_surge() -> Runs:
    """The gradient grows by a tenth in each of forty steps from step 600 on, and stays as large."""
    size = 1.1 ** (torch.arange(1100) - 600).clamp(0, 40)
    return {"Adam": feed(Monitor(torch.optim.Adam(weight()), what_if=()), noise(1100) * size[:, None])}


def stepsize_growth() -> Runs:
    """After 100 steps the gradient falls to a thousandth and flips its sign in each step, as v decays."""
    step = torch.arange(1500)
    size = torch.where(step < 100, 1.0, 1e-3) * 0.9998**step * (-1.0) ** step
    gradients = size[:, None] * (1 + 0.3 * noise(1500))
    return {"Adam": feed(Monitor(torch.optim.Adam(weight(), lr=1e-3), what_if=()), gradients)}


def drift_reversal() -> Runs:
    """Steady gradients first; then 3, −1, −1, …, with a memory so short that Adam walks up the mean gradient."""
    gradients = torch.cat([torch.ones(600), torch.tensor([3.0, -1.0, -1.0]).repeat(800)])[:, None]
    optimizer = torch.optim.Adam(weight(1), lr=1e-4, betas=(0.0, 0.1))
    return {"Adam": feed(Monitor(optimizer, what_if=()), gradients + 0.01 * noise(3000, 1))}


def moment_reset() -> Runs:
    """The optimizer's state is lost before step 300."""
    optimizer = torch.optim.Adam(weight())

    def lose(step: int) -> None:
        if step == 300:
            optimizer.state.clear()

    return {"Adam": feed(Monitor(optimizer, what_if=()), noise(400), lose)}


def edge_crossing() -> Runs:
    """A quadratic of curvature 26 under SGD, whose rate of 0.01 rises to 0.1: the steps can bear 2/0.1 = 20."""
    p = weight(4)
    optimizer = torch.optim.SGD(p, lr=0.01)
    monitor = Monitor(optimizer, what_if=())

    def look(step: int) -> None:
        if step % 50 == 0:
            monitor.edge(lambda: 13.0 * p[0][1].square().sum())
        optimizer.param_groups[0]["lr"] = min(0.1, 0.01 * 1.01**step)

    return {"SGD": feed(monitor, 1e-3 * noise(400, 4), look)}


ALERTS: dict[str, Run] = {
    "nonfinite": nonfinite,
    "learning rate": learning_rate,
    "update surge": update_surge,
    "stepsize growth": stepsize_growth,
    "drift reversal": drift_reversal,
    "moment reset": moment_reset,
    "edge crossing": edge_crossing,
}
"""By the rule."""
