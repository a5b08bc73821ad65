"""`stepscope demo`: the main job on real data. A small network on digits, and the game that Adam loses."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..diagnostics.monitor import Monitor
from ..diagnostics.trace import Trace
from ..synthetic.reddi2018 import ONLINE
from .cli import print_rows
from .formats import render
from .words import row

DIGIT_STEPS, GAME_STEPS = 10_000, 300_000
BETAS = (0.9, 0.99)
"""A decision takes about 57/(1-β2) steps: 5700 with this β2, ten times as many with torch's default of 0.999."""


@dataclass(frozen=True)
class Demonstration:
    """One run of the demo. `run(directory, steps)` records it and yields what it has reached, once in 100 steps."""

    name: str
    steps: int
    run: Callable[[Path, int], Iterator[str]]


def demonstrations() -> list[Demonstration]:
    """Return the five runs: three on digits, two of the game."""
    return [
        Demonstration("digits-adam-constant", DIGIT_STEPS, digits_run(1e-3, constant)),
        Demonstration("digits-adam-sqrt", DIGIT_STEPS, digits_run(1e-2, inverse_root)),
        Demonstration("digits-amsgrad-sqrt", DIGIT_STEPS, digits_run(1e-2, inverse_root, amsgrad=True)),
        Demonstration("game-adam", GAME_STEPS, game_run(amsgrad=False)),
        Demonstration("game-amsgrad", GAME_STEPS, game_run(amsgrad=True)),
    ]


def constant(t: int) -> float:
    """Return 1 for every step."""
    return 1.0


def inverse_root(t: int) -> float:
    """Return 1/√t for the t-th step, counted from 1."""
    return 1 / math.sqrt(t)


def digits_batches(batch: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield shuffled batches of scikit-learn's 8×8 digits for ever: pixels `(batch, 64)` in [0, 1], and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.tensor(data.data / 16.0, dtype=torch.float32)
    y = torch.tensor(data.target)
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(x))
        for i in range(0, len(x) - batch + 1, batch):
            chosen = order[i : i + batch]
            yield x[chosen], y[chosen]


def digits_network() -> torch.nn.Sequential:
    """Return a small perceptron for the digits, 4650 parameters.

    Dropout keeps the gradient noise alive: without it the 1797 digits are soon learnt by heart.
    """
    nn = torch.nn
    hidden = [layer for width in (64, 40) for layer in (nn.Linear(width, 40), nn.Tanh(), nn.Dropout(0.5))]
    return nn.Sequential(*hidden, nn.Linear(40, 10))


def digits_run(
    lr: float, schedule: Callable[[int], float], amsgrad: bool = False, seed: int = 0
) -> Callable[[Path, int], Iterator[str]]:
    """Return a run that trains the digits network with Adam, its learning rate multiplied by `schedule(t)`."""

    def run(directory: Path, steps: int) -> Iterator[str]:
        torch.manual_seed(seed)
        model = digits_network()
        optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=BETAS, amsgrad=amsgrad)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: schedule(done + 1))
        recent = 0.0
        with Monitor(optimizer, directory, model=model) as monitor:
            for t, (x, y) in zip(range(1, steps + 1), digits_batches(64, seed), strict=False):
                loss = torch.nn.functional.cross_entropy(model(x), y)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
                monitor.log(loss=loss)
                recent += (loss.item() - recent) / min(t, 100)
                if t % 100 == 0:
                    yield f"loss {recent:.2g}"

    return run


def game_run(amsgrad: bool) -> Callable[[Path, int], Iterator[str]]:
    """Return a run that plays Reddi's online game with torch's own Adam."""

    def run(directory: Path, steps: int) -> Iterator[str]:
        x = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.Adam([("x", x)], lr=0.5, betas=BETAS, amsgrad=amsgrad)
        with Monitor(optimizer, directory) as monitor:
            for t in ONLINE.play(x, optimizer, steps):
                if t % 100 == 0:
                    monitor.log(x=x)
                    yield f"x {x.item():+.3f}"

    return run


def demo(directory: Path, report: Path, quick: bool = False) -> int:
    """Run all five, print one table, write one report; `quick` takes a twentieth of the steps.

    Returns 0 even though Adam loses its game: here that is the expected result.
    """
    torch.set_num_threads(1)  # tensors this small are slower on more
    console = Console()
    runs: list[tuple[str, Trace]] = []
    columns = (TextColumn("{task.description:20}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[reached]}"), console=console) as progress:
        for item in demonstrations():
            steps = item.steps // 20 if quick else item.steps
            task, path = progress.add_task(item.name, total=steps, reached=""), fresh(directory / item.name)
            for reached in item.run(path, steps):
                progress.update(task, advance=100, reached=reached)
            runs.append((item.name, Trace.load(path)))
    print_rows([row(name, trace, trace.diagnose()) for name, trace in runs])
    console.print(f"report: {render(runs, report)}")
    return 0


def fresh(path: Path) -> Path:
    """Return `path` with the run of an earlier demo removed, so that this one does not continue it."""
    if (path / "meta.json").exists():
        shutil.rmtree(path)
    return path
