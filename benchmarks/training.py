"""Small real training runs with a monitor attached: tasks, optimizers, schedules, and what was said of a run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from stepscope import Monitor

Batch = tuple[Tensor, Tensor]
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


# --- data -----------------------------------------------------------------------------------------------------


@cache
def digits() -> Batch:
    """scikit-learn's 1797 digits: pixels `(n, 64)` in [0, 1], labels."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)


@cache
def text() -> Tensor:
    """Characters of a few modules of the standard library, as numbers below 128."""
    import argparse as a
    import ast as b
    import difflib as c

    source = "".join(inspect.getsource(module) for module in (a, b, c))
    return torch.tensor([ord(char) % 128 for char in source])


def digit_batches(size: int, seed: int) -> Iterator[Batch]:
    x, y = digits()
    chance = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(x), generator=chance)
        for chosen in order[: len(x) // size * size].split(size):
            yield x[chosen], y[chosen]


def text_batches(size: int, seed: int, length: int = 32) -> Iterator[Batch]:
    data, chance = text(), torch.Generator().manual_seed(seed)
    while True:
        at = torch.randint(len(data) - length - 1, (size, 1), generator=chance) + torch.arange(length + 1)
        yield data[at[:, :-1]], data[at[:, 1:]]


# --- tasks ----------------------------------------------------------------------------------------------------


class CharTransformer(nn.Module):
    """Two layers of width 64 that read 32 characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(128, 64), nn.Parameter(0.02 * torch.randn(32, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 128)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of each next character, `(batch, length, 128)`."""
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        logits: Tensor = self.head(self.layers(self.embed(x) + self.place[: x.shape[1]], mask, is_causal=True))
        return logits


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def cnn() -> nn.Module:
    convolutions = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU())
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *convolutions, nn.Flatten(), nn.Linear(256, 10))


def autoencoder() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 8), nn.Tanh(), nn.Linear(8, 64))


def classify(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x).flatten(0, -2), y.flatten())


def rebuild(model: nn.Module, x: Tensor, _y: Tensor) -> Tensor:
    return nn.functional.mse_loss(model(x), x)


@dataclass(frozen=True)
class Task:
    """A model, its batches and its loss."""

    build: Callable[[], nn.Module]
    batches: Callable[[int, int], Iterator[Batch]]
    loss: Loss = classify
    steps: int = 1500


TASKS = {
    "digits MLP": Task(mlp, digit_batches, steps=3000),
    "digits CNN": Task(cnn, digit_batches, steps=1500),
    "character transformer": Task(CharTransformer, text_batches, steps=800),
    "autoencoder": Task(autoencoder, digit_batches, rebuild, steps=3000),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Adam": partial(torch.optim.Adam, lr=1e-3),
    "AdamW .95": partial(torch.optim.AdamW, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1),
    "AdamW .999": partial(torch.optim.AdamW, lr=1e-3),
    "AMSGrad": partial(torch.optim.Adam, lr=1e-3, amsgrad=True),
    "RAdam": partial(torch.optim.RAdam, lr=1e-3),
    "NAdam": partial(torch.optim.NAdam, lr=1e-3),
    "SGD": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
}
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda s: 1.0,
    "cosine": lambda s: 0.5 * (1 + math.cos(math.pi * s)),
    "warm-up": lambda s: min(1.0, (s + 0.01) / 0.1),
    "WSD": lambda s: min(1.0, (s + 0.01) / 0.05, (1.0 - s) / 0.2),
}
EXTRAS = ("", "clipped", "accumulated", "bf16 autocast")


# --- runs -----------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What came of one monitored run."""

    monitor: Monitor
    losses: list[float] = field(default_factory=list)
    onset: int = 0
    """The step at which a planted fault begins."""

    def doubled(self) -> float:
        """Return the step at which the loss had doubled since the onset, inf if it never did.

        Without an onset it is compared with the lowest so far; below a millionth of the first loss nothing counts.
        """
        smooth = np.array([np.median(self.losses[max(0, t - 9) : t + 1]) for t in range(len(self.losses))])
        begin = self.onset or max(20, len(smooth) // 10)
        late = smooth[begin - 1 :]
        before = np.full_like(late, late[0]) if self.onset else np.minimum.accumulate(late)
        after = np.flatnonzero(~(late < 2 * np.maximum(before, 1e-6 * smooth[0])))
        return float(begin + after[0]) if len(after) else math.inf

    def named(self) -> list[tuple[float, str]]:
        """Return everything that was said, with its step: alerts, then the findings and the verdict at the end."""
        diagnosis = self.monitor.diagnose()
        said = [(float(alert.step), f"{alert.rule}: {alert.message}") for alert in self.monitor.alerts]
        last = float(self.monitor.step)
        more = (f"limited by {diagnosis.limit}", str(diagnosis.verdict))
        return [*said, *((last, finding.title) for finding in diagnosis.findings), *((last, text) for text in more)]


def train(
    task: Task,
    optimizer: Callable[..., torch.optim.Optimizer],
    seed: int = 0,
    schedule: Callable[[float], float] = SCHEDULES["constant"],
    extra: str = "",
    steps: int | None = None,
    meddle: Callable[[int, nn.Module, torch.optim.Optimizer], None] | None = None,
    onset: int = 0,
    batch: int = 64,
) -> Run:
    """Train a task with a monitor attached; `meddle(step, model, optimizer)` is called between backward and step."""
    torch.manual_seed(seed)
    model = task.build()
    chosen = optimizer(model.parameters())
    base = [group["lr"] for group in chosen.param_groups]
    batches, steps = task.batches(batch, seed), steps or task.steps
    run = Run(Monitor(chosen, model=model, strict=True), onset=onset)
    for step in range(steps):
        for group, lr in zip(chosen.param_groups, base, strict=True):
            group["lr"] = lr * schedule(step / steps)
        chosen.zero_grad()
        parts = 2 if extra == "accumulated" else 1
        for _ in range(parts):
            autocast = torch.autocast("cpu", torch.bfloat16) if extra == "bf16 autocast" else nullcontext()
            with autocast:
                loss = task.loss(model, *next(batches)) / parts
            loss.backward()  # type: ignore[no-untyped-call]
        if extra == "clipped":
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if meddle:
            meddle(step, model, chosen)
        chosen.step()
        run.losses.append(parts * float(loss.detach()))
        run.monitor.log(loss=run.losses[-1])
    return run


def gan(seed: int, steps: int = 1500) -> list[Run]:
    """Two small networks play against each other over digits; a monitor watches either."""
    torch.manual_seed(seed)
    maker = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.Sigmoid())
    critic = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    runs = [
        Run(Monitor(torch.optim.Adam(player.parameters(), lr=2e-4, betas=(0.5, 0.999)), model=player, strict=True))
        for player in (critic, maker)
    ]
    entropy, yes, no = nn.functional.binary_cross_entropy_with_logits, torch.ones(64, 1), torch.zeros(64, 1)
    batches = digit_batches(64, seed)
    for _ in range(steps):
        for player, run in enumerate(runs):
            false = maker(torch.randn(64, 8))
            if player == 0:
                loss = entropy(critic(next(batches)[0]), yes) + entropy(critic(false.detach()), no)
            else:
                loss = entropy(critic(false), yes)
            run.monitor.optimizer.zero_grad()
            loss.backward()
            run.monitor.optimizer.step()
            run.losses.append(float(loss.detach()))
            run.monitor.log(loss=run.losses[-1])
    return runs
