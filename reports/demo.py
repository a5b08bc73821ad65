"""`stepscope demo`: the main job on real data. A small network on digits, and the game that Adam loses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..diagnostics.diagnosis import Diagnosis
from ..diagnostics.monitor import Monitor
from ..diagnostics.trace import Trace
from ..synthetic.reddi2018 import ONLINE
from .page import render

DIGIT_STEPS, GAME_STEPS = 4000, 300_000


@dataclass(frozen=True)
class Demonstration:
    """One run of the demo: yields while it steps, and says in the end what it reached."""

    name: str
    steps: int
    run: Callable[[Path, int], Iterator[str]]
    """Run into a directory for a number of steps; yields the result so far, in words, once per hundred steps."""


def demonstrations(steps_of: Callable[[int], int]) -> list[Demonstration]:
    """Return the five runs, their lengths passed through `steps_of`."""
    digits, game = steps_of(DIGIT_STEPS), steps_of(GAME_STEPS)
    return [
        Demonstration("digits-adam", digits, digits_run(lambda p: torch.optim.Adam(p, lr=1e-3), lambda t: 1.0)),
        Demonstration("digits-adam-sqrt", digits, digits_run(lambda p: torch.optim.Adam(p, lr=1e-2), inverse_root)),
        Demonstration(
            "digits-amsgrad-sqrt",
            digits,
            digits_run(lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True), inverse_root),
        ),
        Demonstration("game-adam", game, game_run(amsgrad=False)),
        Demonstration("game-amsgrad", game, game_run(amsgrad=True)),
    ]


def inverse_root(t: int) -> float:
    """Return 1/√t for the t-th step, counted from 1."""
    return 1 / math.sqrt(t)


def digits_batches(batch: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield shuffled batches of 1300 of scikit-learn's 8×8 digits for ever: pixels `(batch, 64)` in [0, 1], labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.tensor(data.data[:1300] / 16.0, dtype=torch.float32)
    y = torch.tensor(data.target[:1300])
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(x))
        for i in range(0, len(x) - batch + 1, batch):
            chosen = order[i : i + batch]
            yield x[chosen], y[chosen]


def digits_network() -> torch.nn.Sequential:
    """Return a perceptron with one hidden layer for the digits, 4810 parameters."""
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))


def digits_run(
    make: Callable[[Iterator[torch.nn.Parameter]], torch.optim.Optimizer],
    schedule: Callable[[int], float],
    seed: int = 0,
) -> Callable[[Path, int], Iterator[str]]:
    """Return a run that trains the digits network, its learning rate multiplied by `schedule(t)`."""

    def run(directory: Path, steps: int) -> Iterator[str]:
        torch.manual_seed(seed)
        model = digits_network()
        optimizer = make(model.parameters())
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
        optimizer = torch.optim.Adam([("x", x)], betas=(0.9, 0.99), amsgrad=amsgrad)
        with Monitor(optimizer, directory) as monitor:
            for t in ONLINE.play(x, optimizer, steps):
                if t % 100 == 0:
                    monitor.log(x=x)
                    yield f"x {x.item():+.3f}"

    return run


def demo(directory: Path, report: Path, quick: bool = False) -> int:
    """Run all five, print one table, write one report; `quick` takes a twentieth of the steps. Returns 0."""
    console = Console()
    runs: list[tuple[str, Trace]] = []
    table = Table("run", "reached", "variance", "bias", "ρ [95 %]", "verdict", title="stepscope demo")
    columns = (TextColumn("{task.description:20}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[reached]}"), console=console) as progress:
        for item in demonstrations(lambda steps: steps // 20 if quick else steps):
            task = progress.add_task(item.name, total=item.steps, reached="")
            reached = ""
            path = fresh(directory / item.name)
            for reached in item.run(path, item.steps):
                progress.update(task, advance=100, reached=reached)
            trace = Trace.load(path)
            runs.append((item.name, trace))
            table.add_row(*row(item.name, reached, trace.diagnose()))
    console.print(table)
    console.print(f"report: {render(runs, report)}")
    return 0


def row(name: str, reached: str, diagnosis: Diagnosis) -> list[str]:
    """Return one run's line of the table."""
    harm = diagnosis.harm
    rho = f"{harm.rho:.3g} [{harm.interval[0]:.3g}, {harm.interval[1]:.3g}]"
    return [
        name,
        reached,
        *map(str, (diagnosis.variance.decision, diagnosis.bias.decision)),
        rho,
        str(diagnosis.verdict),
    ]


def fresh(path: Path) -> Path:
    """Return `path` with the run of an earlier demo removed, so that this one does not continue it."""
    import shutil

    if (path / "meta.json").exists():
        shutil.rmtree(path)
    return path
