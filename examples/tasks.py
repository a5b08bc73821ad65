"""What the remedies are tried on: three networks on real data, and small problems with a known answer.

A task builds a model whose parameters are trained, gives its loss on a batch drawn from a source of chance, and scores
what came of a run. `tune` is what rates are chosen by, and comes from other data than the rest.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import difflib
import inspect
import math
from collections.abc import Callable, Sequence
from functools import cache
from statistics import fmean
from typing import Any, Protocol

import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

Parts = tuple[tuple[Tensor, Tensor], ...]
Scores = dict[str, float]


class Task(Protocol):
    """What a run needs to know."""

    name: str
    about: str
    """A sentence on what it is, and for which methods it is meant."""
    measure: str
    """What `tune` and `score` are; lower is better."""
    steps: int
    epochs: int
    """How often a scheduler is called in these steps."""
    seeds: int
    clip: float
    """The norm to which gradients are clipped, for every method."""
    failed: Scores
    """What a run scores that diverged, or ended worse than this: as guessing, as not moving, as the wrong end."""

    def build(self) -> nn.Module:
        """Return a new model."""

    def loss(self, model: nn.Module, t: int, source: Generator) -> Tensor:
        """Return the loss of step t, from 0, on data that `source` draws."""

    def scores(self, model: nn.Module, losses: Sequence[float]) -> Scores:
        """Return `tune`, `score` and whatever else is worth knowing of a run with these losses."""


# --- networks -------------------------------------------------------------------------------------------------


@cache
def digits() -> Parts:
    """Return scikit-learn's 8×8 digits as 1000 to train on, 297 to choose rates by, and 500 to test."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=Generator().manual_seed(0))
    x, y = torch.tensor(data.data / 16, dtype=torch.float32)[order], torch.tensor(data.target)[order]
    return tuple(zip(x.split([1000, 297, 500]), y.split([1000, 297, 500]), strict=True))


@cache
def text() -> tuple[Tensor, ...]:
    """Return the source of four modules of the standard library: 80 % to train on, 10 % to choose by, 10 % to test."""
    modules = (argparse, ast, difflib, configparser)
    source = torch.cat([torch.tensor([ord(c) % 128 for c in inspect.getsource(module)]) for module in modules])
    tenth = len(source) // 10
    return source.split([len(source) - 2 * tenth, tenth, tenth])


@cache
def passages() -> Parts:
    """Return the text in pieces of 32 characters, each with the characters that come next."""
    starts = [torch.arange(0, len(part) - 33, 32)[:, None] + torch.arange(33) for part in text()]
    pieces = [part[at] for part, at in zip(text(), starts, strict=True)]
    return tuple((piece[:, :-1], piece[:, 1:]) for piece in pieces)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def cnn() -> nn.Module:
    """Return two convolutions with batch normalization and a linear layer."""
    first = (nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    second = (nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(256, 10))


class Transformer(nn.Module):
    """Reads 32 characters in two layers of width 48."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(128, 48), nn.Parameter(0.02 * torch.randn(32, 48))
        layer = nn.TransformerEncoderLayer(48, 4, 96, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(48, 128)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of each next character, `(batch, 32, 128)`."""
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        logits: Tensor = self.head(self.layers(self.embed(x) + self.place, mask, is_causal=True))
        return logits


class Network:
    """A network that learns labels: digits, or next characters."""

    measure = "test loss"
    epochs = 30

    def __init__(
        self,
        name: str,
        about: str,
        build: Callable[[], nn.Module],
        parts: Callable[[], Parts],
        classes: int,
        batch: int,
        steps: int,
        seeds: int,
        clip: float = math.inf,
    ) -> None:
        self.name, self.about, self.build, self.parts = name, about, build, parts
        self.batch, self.steps, self.seeds, self.clip = batch, steps, seeds, clip
        guessing = math.log(classes)
        self.failed = {"tune": guessing, "score": guessing, "error": 1 - 1 / classes, "train": guessing}

    def loss(self, model: nn.Module, t: int, source: Generator) -> Tensor:
        """Return the cross-entropy in nats on a batch, with replacement."""
        x, y = self.parts()[0]
        chosen = torch.randint(len(x), (self.batch,), generator=source)
        return cross_entropy(model(x[chosen]).flatten(0, -2), y[chosen].flatten())

    def scores(self, model: nn.Module, losses: Sequence[float]) -> Scores:
        """Return the loss on held-out data, twice, and test error and training loss at the end."""
        model.eval()
        with torch.no_grad():
            outputs = [(model(x).flatten(0, -2), y.flatten()) for x, y in self.parts()[1:]]
        tune, score = (float(cross_entropy(*output)) for output in outputs)
        logits, y = outputs[1]
        wrong = float((logits.argmax(1) != y).double().mean())
        return {"tune": tune, "score": score, "error": wrong, "train": fmean(losses[-len(losses) // 30 :])}


class Growing(Network):
    """A network whose inputs grow thirtyfold after two thirds of the run: what counts is the mean loss of all steps.

    The loss since then alone would choose rates at which nothing is learned before.
    """

    measure = "mean training loss"

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        ten_guesses = 10 * self.failed["score"]
        self.failed = {"tune": ten_guesses, "score": ten_guesses}

    @property
    def onset(self) -> int:
        """The first step with large inputs."""
        return 2 * self.steps // 3

    def loss(self, model: nn.Module, t: int, source: Generator) -> Tensor:
        """Return the cross-entropy in nats on a batch, with replacement."""
        x, y = self.parts()[0]
        chosen = torch.randint(len(x), (self.batch,), generator=source)
        return cross_entropy(model(x[chosen] * (30 if t >= self.onset else 1)), y[chosen])

    def scores(self, model: nn.Module, losses: Sequence[float]) -> Scores:
        """Return the mean loss; runs of other seeds choose the rate."""
        score = fmean(losses)
        return {"tune": score, "score": score}


# --- problems with a known answer -----------------------------------------------------------------------------


class Point(nn.Module):
    """A point that an optimizer moves."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(x)


class Game:
    """A game that Adam loses, on [-1, 1] from 0: 64 of it at once, each with a chance of its own.

    Once in `period` draws the gradient is large and shows the way; between, small ones point the other way.
    """

    measure, seeds, clip = "distance from the optimum", 10, math.inf
    optimum, start, bound = -1.0, 0.0, 1.0

    def __init__(self, name: str, about: str, rare: float, common: float, period: int, steps: int) -> None:
        self.name, self.about, self.rare, self.common, self.period = name, about, rare, common, period
        self.steps = self.epochs = steps
        self.failed = {"tune": 2.0, "score": 2.0}

    def build(self) -> nn.Module:
        """Return 64 points."""
        return Point(torch.full((64,), self.start))

    def loss(self, model: nn.Module, t: int, source: Generator) -> Tensor:
        """Return a function whose gradient is that of the game, at points that are within the bound."""
        x = model.x
        with torch.no_grad():
            x.clamp_(-self.bound, self.bound)
        g = torch.where(torch.rand(x.shape, generator=source) < 1 / self.period, self.rare, self.common)
        return (g * x).sum()

    def scores(self, model: nn.Module, losses: Sequence[float]) -> Scores:
        """Return the mean distance at the end."""
        x = model.x.detach().clamp(-self.bound, self.bound)
        distance = float((x - self.optimum).abs().mean())
        return {"tune": distance, "score": distance}


class Quadratic:
    """½·Σ h·(x-x*)² in 40 dimensions, h from 0.01 to 1, with noise in the gradients.

    x* leaps by one in each coordinate after three quarters of the run, if `leaps`. What counts is the mean loss from
    then on; without a leap it is the loss at the end.
    """

    measure, seeds, clip = "excess loss", 10, math.inf
    steps, epochs = 3000, 60

    def __init__(self, name: str, about: str, noise: float, leaps: bool = False) -> None:
        self.name, self.about, self.noise, self.leaps = name, about, noise, leaps
        self.h = torch.logspace(-2, 0, 40)
        start = float(self.excess(torch.ones(40), 0))
        self.failed = {"tune": start, "score": start}

    @property
    def leap(self) -> int:
        """The step at which x* leaps."""
        return 3 * self.steps // 4

    def build(self) -> nn.Module:
        """Return the point 1."""
        return Point(torch.ones(40))

    def excess(self, x: Tensor, t: int) -> Tensor:
        """Return what the loss is above its least."""
        return 0.5 * (self.h * (x - float(self.leaps and t >= self.leap)).square()).sum()

    def loss(self, model: nn.Module, t: int, source: Generator) -> Tensor:
        """Return the loss with a noise whose gradient is normal; its value is the excess."""
        push = self.noise * torch.randn(self.h.shape, generator=source)
        return self.excess(model.x, t) + push @ (model.x - model.x.detach())

    def scores(self, model: nn.Module, losses: Sequence[float]) -> Scores:
        """Return the excess after the leap, or at the end."""
        score = fmean(losses[self.leap :]) if self.leaps else float(self.excess(model.x.detach(), self.steps))
        return {"tune": score, "score": score}


class Valleys:
    """64 points, each between a sharp valley about -1, where all begin, and a flat one about 1, both of depth 0.

    The loss of a draw is ½·h·(x - x* - ξ)², h = 10 or 1, ξ standard normal: as in a network, the noise of the gradient
    is larger where the valley is sharper. What counts is the mean curvature where the points end.
    """

    measure, seeds, clip = "curvature at the end", 10, math.inf
    steps, epochs = 3000, 60
    sharp, flat = 10.0, 1.0

    def __init__(self, name: str, about: str) -> None:
        self.name, self.about = name, about
        self.failed = {"tune": self.sharp, "score": self.sharp}

    def build(self) -> nn.Module:
        """Return 64 points in the sharp valley."""
        return Point(torch.full((64,), -1.0))

    def curvature(self, x: Tensor) -> Tensor:
        """Return that of the valley in which x lies, the lower of the two there."""
        return torch.where(self.sharp * (x + 1).square() < self.flat * (x - 1).square(), self.sharp, self.flat)

    def loss(self, model: nn.Module, t: int, source: Generator) -> Tensor:
        """Return the sum of the losses of one draw for each point."""
        x = model.x
        h = self.curvature(x.detach())
        bottom = torch.where(h == self.sharp, -1.0, 1.0) + torch.randn(x.shape, generator=source)
        return 0.5 * (h * (x - bottom).square()).sum()

    def scores(self, model: nn.Module, losses: Sequence[float]) -> Scores:
        """Return the mean curvature."""
        curvature = float(self.curvature(model.x.detach()).mean())
        return {"tune": curvature, "score": curvature}


MLP = Network(
    "digits, perceptron",
    "Three layers of 64 on scikit-learn's digits, 30 epochs: what people try first.",
    mlp,
    digits,
    10,
    32,
    1200,
    seeds=10,
)
CNN = Network(
    "digits, convolutions",
    "Two convolutions with batch normalization on the same digits.",
    cnn,
    digits,
    10,
    32,
    900,
    seeds=10,
)
CHARACTERS = Network(
    "characters, transformer",
    "Two layers of width 48 that read source code of Python's standard library, the text of the version that ran it. "
    "Gradients are clipped at a norm of 1 for every method, without which SGD fails on some seeds.",
    Transformer,
    passages,
    128,
    16,
    600,
    seeds=5,
    clip=1.0,
)
GROWING = Growing(
    "digits that grow",
    "The perceptron, whose pixels are suddenly thirty times as bright: Adam's v is too small for the new gradients and "
    "its steps surge, which is what ClipUpdates is made for.",
    mlp,
    digits,
    10,
    32,
    900,
    seeds=10,
)
STOCHASTIC = Game(
    "Reddi's stochastic game",
    "What Adam cannot win: it is drawn to the wrong end. All begin 1 from the optimum; the wrong end is 2 from it. 64 "
    "games in one tensor, so that AdaShift at its default has one second moment for all of them.",
    1010.0,
    -10.0,
    100,
    20_000,
)
NOISY = Quadratic(
    "noisy quadratic",
    "40 curvatures from 0.01 to 1 and noise in the gradients, which sets how near the end is: what methods that lower "
    "the rate are made for.",
    1.0,
)
LEAPING = Quadratic(
    "quadratic whose optimum leaps",
    "Gradients grow here too, but since there is a way to go: what limits the steps should lose.",
    0.01,
    leaps=True,
)
VALLEYS = Valleys(
    "sharp and flat valley",
    "1 is the flat valley and 10 the sharp one, where all begin. What Adai is made for: to choose the flat one as SGD "
    "does, where Adam is said not to.",
)
