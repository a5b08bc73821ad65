"""Short runs on which each instrument has something to tell."""

from __future__ import annotations

import torch
from runs import Run, Runs, feed, fit, network
from torch import nn

from stepscope import Monitor, simulate
from stepscope.remedies import Demon
from stepscope.synthetic.named import named


def conformity() -> Runs:
    """A small network under Adam: above ½ as long as a mean leads it, below as it hovers about a minimum."""
    model = network()
    monitor = Monitor(torch.optim.Adam(model.parameters(), lr=1e-3), model=model, what_if=())
    return {"Adam": fit(monitor, model, 3000, 0.3, lambda step: None)}


def angle() -> Runs:
    """A straight line fitted by SGD until it scatters about its optimum; at step 2000 the rate falls to a twentieth."""
    torch.manual_seed(0)
    model = nn.Linear(20, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    drop = torch.optim.lr_scheduler.StepLR(optimizer, 2000, 0.05)
    return {"SGD": fit(Monitor(optimizer, model=model), model, 4000, 1.0, lambda step: drop.step())}


def alignment() -> Runs:
    """SGD with momentum 0.9: along the gradient at first, then nearer to the 0.44 that noise alone makes."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    return {"SGD": fit(Monitor(optimizer, model=model), model, 3000, 0.3, lambda step: None)}


def inertia() -> Runs:
    """Gradients whose sizes differ by the same factor from coordinate to coordinate, thousandfold in all."""
    p = nn.Parameter(torch.ones(1000))
    noise = torch.randn(2000, 1000, generator=torch.Generator().manual_seed(0))
    return {"Adam": feed(Monitor(torch.optim.Adam([("w", p)]), what_if=()), noise * torch.logspace(-3, 0, 1000))}


def rate() -> Runs:
    """SGD whose momentum Demon brings from 0.9 to 0: the learning rate stands still, the effective one does not."""
    model = network()
    optimizer = Demon(torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), steps=2000)
    return {"SGD under Demon": fit(Monitor(optimizer, model=model), model, 2000, 0.3, lambda step: None)}


def underflow() -> Runs:
    """Gradients that fall by a factor of e in 300 steps, in three tensors of different scale."""
    tensors = [(name, nn.Parameter(torch.ones(256))) for name in ("first", "second", "third")]
    optimizer = torch.optim.Adam(tensors)
    monitor = Monitor(optimizer, what_if=())
    chance = torch.Generator().manual_seed(0)
    for step in range(2000):
        for scale, (_, p) in zip((1.0, 1e-2, 1e-4), tensors, strict=True):
            p.grad = scale * torch.exp(torch.tensor(-step / 300)) * torch.randn(256, generator=chance)
        optimizer.step()
    return {"Adam": monitor.trace}


def coupling() -> Runs:
    """Gradients of mean ½ in three tensors: even, with a rare large one, and with one so large that Adam climbs."""
    tensors = [(name, nn.Parameter(torch.zeros(64))) for name in ("even", "skewed", "climbing")]
    optimizer = torch.optim.Adam(tensors, lr=1e-4, betas=(0.0, 0.9))
    monitor = Monitor(optimizer, what_if=())
    chance = torch.Generator().manual_seed(0)
    for _ in range(4000):
        rare = torch.rand(64, generator=chance)
        for large, (_, p) in zip((0.5, 4.5, 19.5), tensors, strict=True):
            share = 0.5 if large == 0.5 else 1.5 / (large + 1.0)
            p.grad = torch.where(rare < share, large, -1.0 if large > 0.5 else 0.5)
        optimizer.step()
    return {"Adam": monitor.trace}


def efficiency() -> Runs:
    """Adam with a memory of ten steps on Taniguchi's toy problem with k = 10: it climbs until it meets the wall."""
    return {"Adam": simulate("adopt10", "adam", steps=100_000, lr=named("adopt10").lr, betas=(0.0, 0.9))}


def skewness() -> Runs:
    """The gradients of Taniguchi's toy problem with k = 10, drawn anew: the exact threshold is β2 = 0.97774."""
    chance = torch.Generator().manual_seed(0)
    gradients = torch.where(torch.rand(20_000, 64, generator=chance) < 0.1, 10.0, -1.0)
    optimizer = torch.optim.Adam([("w", nn.Parameter(torch.zeros(64)))], lr=1e-5, betas=(0.0, 0.9))
    return {"Adam": feed(Monitor(optimizer), gradients)}


def what_if() -> Runs:
    """A straight line fitted by Adam, whose β2 = 0.9 makes its stepsizes rise again and again."""
    torch.manual_seed(0)
    model = nn.Linear(20, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.9))
    return {"Adam": fit(Monitor(optimizer, model=model), model, 6000, 1.0, lambda step: None)}


def limits() -> Runs:
    """A small network under Adam whose rate falls to 0 by a cosine."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4000)
    return {"Adam": fit(Monitor(optimizer, model=model), model, 4000, 0.3, lambda step: fall.step())}


def edge() -> Runs:
    """A small network on 256 points, full batch: Adam comes to sit at the edge of stability."""
    model = network()
    x, y = torch.randn(256, 20), torch.randn(256, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    monitor = Monitor(optimizer, model=model, what_if=())
    for step in range(1, 1001):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        if step % 50 == 0:
            monitor.edge(lambda: (model(x) - y).square().mean())
    return {"Adam": monitor.trace}


def precision() -> Runs:
    """Weights and second moments in bfloat16, which holds a v with β2 = 0.999 fast."""
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(1000, dtype=torch.bfloat16))
    noise = torch.randn(1500, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    gradients = noise * (torch.arange(1500) < 500).bfloat16().mul(0.9).add(0.1)[:, None]
    return {"Adam": feed(Monitor(torch.optim.Adam([("w", p)], lr=1e-4), what_if=()), gradients)}


INSTRUMENTS: dict[str, Run] = {
    "conformity": conformity,
    "angle": angle,
    "inertia": inertia,
    "underflow": underflow,
    "alignment": alignment,
    "coupling": coupling,
    "rate": rate,
    "efficiency": efficiency,
    "skewness": skewness,
    "what-if": what_if,
    "limits": limits,
    "edge": edge,
    "precision": precision,
}
