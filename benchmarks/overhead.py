"""Measures what a monitor costs: CPU time and memory of a training step with it, against the same step without it.

A cell is one workload under one method. Two processes time it: each builds two equal models, one of them monitored,
and runs blocks of steps of either in turn, a|b, b|a, a|b, …, so that a machine that slows down slows both. The
model built first can be faster or slower for its place in memory alone; each of the two processes builds the other
one first, and their pairs are pooled. A third process trains one model only, for the peak of its memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.progress import track
from rich.table import Table

if TYPE_CHECKING:  # torch stays out of the parent: Linux counts its peak memory as its children's too
    from torch import Tensor, nn
    from torch.optim import Optimizer

Log = Callable[["Tensor"], object]
Attach = Callable[["nn.Module", "Optimizer", Path], AbstractContextManager[Log]]

TARGETS = {"mlp": 1.25, "cnn": 1.05, "transformer": 1.03}
INTERVAL = 32  # a block holds whole record intervals, or its ratio depends on whether a record fell into it
BLOCK_SECONDS = 0.5
FEWEST_PAIRS = 2
COAST = 256  # records are dense at first and cost a run's average little: they pass before the clock starts


# --- the workloads -----------------------------------------------------------------------------------------------


class Training:
    """One model with its optimizer and its batches."""

    def __init__(self, workload: str) -> None:
        from torch.optim import Adam

        self.model, batches = WORKLOADS[workload]()
        self.batches = itertools.cycle(batches)
        self.optimizer = Adam(self.model.parameters())

    def run(self, steps: int, log: Log) -> float:
        """Take `steps` steps and return the CPU seconds that they took."""
        from torch.nn.functional import cross_entropy

        begin = time.process_time()
        for inputs, targets in itertools.islice(self.batches, steps):
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(inputs).flatten(0, -2), targets.flatten())
            loss.backward()
            self.optimizer.step()
            log(loss)
        return time.process_time() - begin

    def coast(self, steps: int) -> None:
        """Call the optimizer alone, at learning rate zero, on the gradient that is there."""
        (group,) = self.optimizer.param_groups
        lr, group["lr"] = group["lr"], 0.0
        for _ in range(steps):
            self.optimizer.step()
        group["lr"] = lr


def mlp() -> tuple[nn.Module, Iterable[tuple[Tensor, Tensor]]]:
    """Return a network of 17 k parameters for scikit-learn's digits, 128 at a time."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    digits = load_digits()
    images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    order = torch.randperm(len(images))[: len(images) // 128 * 128]
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    return model, [(images[i], labels[i]) for i in order.split(128)]


def cnn() -> tuple[nn.Module, Iterable[tuple[Tensor, Tensor]]]:
    """Return a convolutional network of 1.15 M parameters for 32 noise images of 32×32×3."""
    import torch
    from torch import nn

    widths = itertools.pairwise((3, 32, 64, 128))
    layers = [x for m, n in widths for x in (nn.Conv2d(m, n, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 512), nn.ReLU(), nn.Linear(512, 10))
    return model, [(torch.randn(32, 3, 32, 32), torch.randint(10, (32,))) for _ in range(8)]


def transformer() -> tuple[nn.Module, Iterable[tuple[Tensor, Tensor]]]:
    """Return an encoder of 9.65 M parameters: 5 layers of width 384, 8 sequences of 16 tokens."""
    import torch
    from torch import nn

    layer = nn.TransformerEncoderLayer(384, nhead=6, dim_feedforward=1536, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Embedding(1000, 384), nn.TransformerEncoder(layer, 5), nn.Linear(384, 1000))
    return model, [(torch.randint(1000, (8, 16)), torch.randint(1000, (8, 16))) for _ in range(8)]


WORKLOADS = {"mlp": mlp, "cnn": cnn, "transformer": transformer}


# --- the methods: each watches while its context is open, and yields what is called with every loss ---------------


@contextmanager
def nothing(_model: nn.Module, _optimizer: Optimizer, _scratch: Path) -> Iterator[Log]:
    yield lambda loss: None


@contextmanager
def stepscope(
    model: nn.Module,
    optimizer: Optimizer,
    scratch: Path,
    coordinates: int | Literal["all"] = 4096,
    keep: bool = False,
) -> Iterator[Log]:
    from stepscope import Monitor

    directory = scratch / "run" if keep else None
    with Monitor(optimizer, directory, model=model, coordinates=coordinates, strict=True) as monitor:
        yield lambda loss: monitor.log(loss=loss)


@contextmanager
def naive(_model: nn.Module, optimizer: Optimizer, _scratch: Path) -> Iterator[Log]:
    seen: dict[int, list[float]] = {}

    def look(*_: object) -> None:
        for param, state in optimizer.state.items():
            pair = (param.grad, state["exp_avg_sq"])
            seen[id(param)] = [x for t in pair for x in (t.mean().item(), t.std().item())]

    handle = optimizer.register_step_post_hook(look)
    yield lambda loss: loss.item()
    handle.remove()


@contextmanager
def wandb_watch(model: nn.Module, _optimizer: Optimizer, scratch: Path, every: int) -> Iterator[Log]:
    import wandb

    with wandb.init(mode="offline", dir=scratch, settings=wandb.Settings(silent=True)) as run:
        run.watch(model, log="all", log_freq=every)
        yield lambda loss: run.log({"loss": loss.item()})


METHODS: dict[str, tuple[str, Attach]] = {
    "plain": ("plain again (noise floor)", nothing),
    "default": ("stepscope", stepscope),
    "all": ('stepscope, coordinates="all"', partial(stepscope, coordinates="all")),
    "directory": ("stepscope, run directory", partial(stepscope, keep=True)),
    "naive": ("naive: .item() of mean and std", naive),
    **{f"wandb-{n}": (f"wandb.watch, every {n}", partial(wandb_watch, every=n)) for n in (1000, 10, 1)},
}


# --- what the processes of a cell do ------------------------------------------------------------------------------


def time_pairs(workload: str, method: str, seconds: float, monitored_first: bool, scratch: Path) -> list[list[float]]:
    """Return milliseconds per step of each pair of blocks: the plain ones, and the monitored ones."""
    names = ["monitored", "plain"] if monitored_first else ["plain", "monitored"]
    trainings = {name: Training(workload) for name in names}
    plain, watched = trainings["plain"], trainings["monitored"]
    with METHODS[method][1](watched.model, watched.optimizer, scratch) as log:
        logs: dict[str, Log] = {"plain": lambda loss: None, "monitored": log}
        plain.run(4, logs["plain"])
        watched.run(4, log)
        watched.coast(COAST)
        block = INTERVAL * max(1, round(BLOCK_SECONDS / plain.run(INTERVAL, logs["plain"])))
        watched.run(INTERVAL, log)
        pairs: list[dict[str, float]] = []
        while len(pairs) < FEWEST_PAIRS or sum(sum(pair.values()) for pair in pairs) < seconds:
            pairs.append({name: trainings[name].run(block, logs[name]) for name in names})
            names.reverse()
    return [[1000 * pair[name] / block for pair in pairs] for name in ("plain", "monitored")]


def peak_memory(workload: str, method: str, scratch: Path) -> float:
    """Return the peak resident memory, in MB, of a process that trains under one method from start to end."""
    training = Training(workload)
    with METHODS[method][1](training.model, training.optimizer, scratch) as log:
        training.run(INTERVAL, log)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def be_child(task: str, workload: str, method: str, seconds: float) -> object:
    """Do one process's share of a cell."""
    import torch

    torch.set_num_threads(1)
    scratch = Path.cwd()
    if task == "memory":
        return peak_memory(workload, method, scratch)
    return time_pairs(workload, method, seconds / 2, task == "monitored-first", scratch)


# --- the parent ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """What one method costs on one workload; times in ms per step, memory in MB above the plain process."""

    workload: str
    method: str
    plain: float
    monitored: float
    ratio: float
    """Median over pairs; `quartiles` are of the same pairs."""
    quartiles: tuple[float, float]
    mean: float
    """All monitored time over all plain time: here the rare dear step counts, which a median forgets."""
    pairs: int
    memory: float


def ask_child(task: str, workload: str, method: str, seconds: float) -> object:
    """Return what a fresh process, in a directory of its own, answers."""
    command = [sys.executable, __file__, "--task", task, "--seconds", str(seconds)]
    command += ["--workloads", workload, "--methods", method]
    with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
        folders = {f"WANDB_{name}_DIR": scratch for name in ("CACHE", "CONFIG", "DATA")}
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        root = os.pathsep.join(os.path.abspath(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p)
        environment = {**os.environ, **folders, **threads, "PYTHONPATH": root}
        done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def measure(workload: str, method: str, seconds: float) -> Cell:
    """Return one cell."""
    orders = [ask_child(task, workload, method, seconds) for task in ("plain-first", "monitored-first")]
    plain, monitored = ([x for order in orders for x in order[side]] for side in (0, 1))
    low, middle, high = statistics.quantiles([m / p for p, m in zip(plain, monitored, strict=True)], n=4)
    memory = ask_child("memory", workload, method, seconds) - ask_child("memory", workload, "plain", seconds)
    times = statistics.median(plain), statistics.median(monitored)
    mean = sum(monitored) / sum(plain)
    return Cell(workload, method, *times, middle, (low, high), mean, len(plain), memory)


def show(cells: dict[tuple[str, str], Cell | str], console: Console) -> None:
    """Print one table per workload; where a cell could not be measured its row says why."""
    for workload in dict.fromkeys(workload for workload, _ in cells):
        table = Table(title=f"{workload}: CPU time per step, one thread", title_justify="left")
        for heading in ("method", "ms plain → with", "ratio [q1–q3]", "mean", "target", "memory"):
            table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=heading != "method")
        for method, cell in ((m, c) for (w, m), c in cells.items() if w == workload):
            table.add_row(METHODS[method][0], *([cell] if isinstance(cell, str) else columns(cell)))
        console.print(table)
    console.print(
        "ratio: median over pairs of blocks; mean: all time over all time; memory: MB over the plain process."
    )


def columns(cell: Cell) -> list[str]:
    """Return a measured cell as text."""
    low, high = cell.quartiles
    target = TARGETS[cell.workload]
    colour = "green" if cell.ratio <= target else "red"
    return [
        f"{cell.plain:.2f} → {cell.monitored:.2f}",
        f"[bold]{cell.ratio:.3f}[/] \\[{low:.2f}–{high:.2f}]",
        f"{cell.mean:.3f}",
        f"[{colour}]≤ {target}[/]" if cell.method == "default" else "",
        f"{cell.memory:+.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seconds", type=float, default=15.0, help="timed CPU seconds per cell, at least four pairs")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(be_child(arguments.task, *arguments.workloads, *arguments.methods, arguments.seconds)))
        return
    console = Console()
    cells: dict[tuple[str, str], Cell | str] = {}
    grid = list(itertools.product(arguments.workloads, arguments.methods))
    for workload, method in track(grid, "measuring", console=console, transient=True):
        if method.startswith("wandb") and find_spec("wandb") is None:
            cells[workload, method] = "not installed"
            continue
        try:
            cells[workload, method] = measure(workload, method, arguments.seconds)
        except RuntimeError as problem:
            cells[workload, method] = f"failed: {problem}"
    show(cells, console)
    if arguments.json:
        facts = {name: version(name) for name in ("torch", "numpy", "numba")}
        facts |= {"python": platform.python_version(), "machine": platform.platform(), "cores": str(os.cpu_count())}
        rows = [
            asdict(c) if isinstance(c, Cell) else {"workload": w, "method": m, "problem": c}
            for (w, m), c in cells.items()
        ]
        arguments.json.write_text(
            json.dumps({"versions": facts, "seconds": arguments.seconds, "cells": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
