"""Measures what a monitor costs: CPU time and memory of a training step with it, against the same step without it.

A cell is one workload under one method. Two processes time it: each builds two equal models, one of them monitored,
and runs blocks of steps of either in turn, a|b, b|a, a|b, …, so that a machine that slows down slows both. The model
built first can be faster or slower for its place in memory alone; each of the two processes builds the other one
first, and their pairs are pooled. A third process trains one model only, for the peak of its memory.
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
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

Batches = Iterable[tuple[Tensor, Tensor]]
Log = Callable[[Tensor], object]
Attach = Callable[[nn.Module, Optimizer, Path], AbstractContextManager[Log]]

TARGETS = {
    "default": {"mlp": 1.10, "cnn": 1.02, "transformer": 1.01},
    "all": {"mlp": 1.30, "cnn": 1.10, "transformer": 1.15},
}
INTERVAL = 128  # a block holds whole record intervals, or its ratio depends on whether a record fell into it
BLOCK_SECONDS = 0.5
FEWEST_PAIRS = 2
COAST = 1024  # records are dense at first, which a run's average hardly sees: they pass before the clock starts
KEEP_PAGES = {f"MALLOC_{name}_": str(8 << 30) for name in ("MMAP_THRESHOLD", "TRIM_THRESHOLD")}
"""glibc keeps freed pages: page faults in the plain loop make plain against plain scatter by ±15 %, else ±3 %."""
HEADINGS = ("method", "ms plain → with", "ratio [q1–q3]", "mean", "target", "MB")
NOTE = "ratio: median over pairs of blocks; mean: all time over all time; MB: peak memory above the plain process's."


def mlp() -> tuple[nn.Module, Batches]:
    """Return a network of 17 k parameters for scikit-learn's digits, 128 at a time."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    order = torch.randperm(len(images))[: len(images) // 128 * 128]
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    return model, [(images[i], labels[i]) for i in order.split(128)]


def cnn() -> tuple[nn.Module, Batches]:
    """Return a convolutional network of 1.15 M parameters for 32 noise images of 32×32×3."""
    widths = itertools.pairwise((3, 32, 64, 128))
    layers = [x for m, n in widths for x in (nn.Conv2d(m, n, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 512), nn.ReLU(), nn.Linear(512, 10))
    return model, [(torch.randn(32, 3, 32, 32), torch.randint(10, (32,))) for _ in range(8)]


def transformer() -> tuple[nn.Module, Batches]:
    """Return an encoder of 9.65 M parameters: 5 layers of width 384, 8 sequences of 16 tokens."""
    layer = nn.TransformerEncoderLayer(384, nhead=6, dim_feedforward=1536, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Embedding(1000, 384), nn.TransformerEncoder(layer, 5), nn.Linear(384, 1000))
    return model, [(torch.randint(1000, (8, 16)), torch.randint(1000, (8, 16))) for _ in range(8)]


WORKLOADS = {"mlp": mlp, "cnn": cnn, "transformer": transformer}


@contextmanager
def nothing(_model: nn.Module, _optimizer: Optimizer, _scratch: Path) -> Iterator[Log]:
    yield lambda loss: None


@contextmanager
def stepscope(
    model: nn.Module, optimizer: Optimizer, scratch: Path, keep: bool = False, **options: Any
) -> Iterator[Log]:
    from stepscope import Monitor

    directory = scratch / "run" if keep else None
    with Monitor(optimizer, directory, model=model, strict=True, **options) as monitor:
        yield lambda loss: monitor.log(loss=loss)


@contextmanager
def naive(_model: nn.Module, optimizer: Optimizer, _scratch: Path) -> Iterator[Log]:
    seen: dict[Tensor, list[float]] = {}

    def look(*_: object) -> None:
        for param, state in optimizer.state.items():
            seen[param] = [x for t in (param.grad, state["exp_avg_sq"]) for x in (t.mean().item(), t.std().item())]

    optimizer.register_step_post_hook(look)
    yield lambda loss: loss.item()


@contextmanager
def wandb_watch(model: nn.Module, _optimizer: Optimizer, scratch: Path, every: int) -> Iterator[Log]:
    import wandb

    with wandb.init(mode="offline", dir=scratch, settings=wandb.Settings(silent=True)) as run:
        run.watch(model, log="all", log_freq=every)
        yield lambda loss: run.log({"loss": loss.item()})


METHODS: dict[str, tuple[str, Attach]] = {
    "plain": ("plain again", nothing),
    "default": ("stepscope", stepscope),
    "alone": ("stepscope, what_if=()", partial(stepscope, what_if=())),
    "all": ("stepscope, all", partial(stepscope, coordinates="all")),
    "directory": ("stepscope, on disk", partial(stepscope, keep=True)),
    "naive": ("naive .item()", naive),
    **{f"wandb-{n}": (f"wandb.watch, {n}", partial(wandb_watch, every=n)) for n in (1000, 10, 1)},
}
"""Each watches while its context is open, and yields what is called with every step's loss."""


class Training:
    """One model with its optimizer, its batches and what watches it."""

    def __init__(self, workload: str) -> None:
        self.model, batches = WORKLOADS[workload]()
        self.batches = itertools.cycle(batches)
        self.optimizer = Adam(self.model.parameters())

    def run(self, steps: int, log: Log) -> float:
        """Take `steps` steps and return the CPU seconds that they took."""
        begin = time.process_time()
        for inputs, targets in itertools.islice(self.batches, steps):
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(inputs).flatten(0, -2), targets.flatten())
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


def time_pairs(workload: str, attach: Attach, scratch: Path, seconds: float, order: list[str]) -> list[list[float]]:
    """Return milliseconds per step of the pairs of blocks: first the plain ones, then the watched ones."""
    trainings = {name: Training(workload) for name in order}
    plain, watched = trainings["plain"], trainings["watched"]
    with attach(watched.model, watched.optimizer, scratch) as log:
        logs: dict[str, Log] = {"plain": lambda loss: None, "watched": log}
        for name in order:
            trainings[name].run(1, logs[name])
            trainings[name].coast(COAST)
            trainings[name].run(INTERVAL, logs[name])
        block = INTERVAL * max(1, round(BLOCK_SECONDS / plain.run(INTERVAL, logs["plain"])))
        pairs: list[dict[str, float]] = []
        while len(pairs) < FEWEST_PAIRS or sum(sum(pair.values()) for pair in pairs) < seconds:
            pairs.append({name: trainings[name].run(block, logs[name]) for name in order})
            order.reverse()
    return [[1000 * pair[name] / block for pair in pairs] for name in ("plain", "watched")]


def peak_memory(workload: str, attach: Attach, scratch: Path) -> float:
    """Return the peak resident memory of this process, in MB, once it has trained under one method."""
    training = Training(workload)
    with attach(training.model, training.optimizer, scratch) as log:
        training.run(INTERVAL, log)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def answer(task: str, workload: str, method: str, seconds: float) -> list[list[float]] | float:
    """Do one process's share of a cell."""
    torch.set_num_threads(1)
    scratch, attach = Path(tempfile.mkdtemp()), METHODS[method][1]
    if task == "memory":
        return peak_memory(workload, attach, scratch)
    return time_pairs(workload, attach, scratch, seconds, task.split("|"))


@cache
def ask(task: str, workload: str, method: str, seconds: float = 0.0) -> Any:
    """Return what a fresh process answers; all it leaves behind is removed."""
    command = [sys.executable, __file__, "--task", task, "--seconds", str(seconds)]
    command += ["--workloads", workload, "--methods", method]
    with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
        places = ("TMPDIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
        settings = dict.fromkeys(places, scratch) | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        settings |= KEEP_PAGES if task != "memory" else {}
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Cell:
    """What one method costs on one workload: ms per step of each pair of blocks, and MB above the plain process."""

    workload: str
    method: str
    plain: list[float]
    watched: list[float]
    memory: float

    @property
    def quartiles(self) -> list[float]:
        """Lower quartile, median and upper quartile of the pairs' ratios."""
        return statistics.quantiles((w / p for p, w in zip(self.plain, self.watched, strict=True)), n=4)

    def columns(self) -> list[str]:
        """Return the table's row. The mean counts the rare dear step, which the median forgets."""
        (low, middle, high), target = self.quartiles, TARGETS.get(self.method, {}).get(self.workload)
        colour = "green" if target and middle <= target else "red"
        return [
            f"{statistics.median(self.plain):.2f} → {statistics.median(self.watched):.2f}",
            f"[bold]{middle:.3f}[/] \\[{low:.2f}–{high:.2f}]",
            f"{sum(self.watched) / sum(self.plain):.3f}",
            f"[{colour}]≤ {target}[/]" if target else "",
            f"{self.memory:+.0f}",
        ]


def measure(workload: str, method: str, seconds: float) -> Cell | str:
    """Return one cell, or why there is none."""
    if method.startswith("wandb") and find_spec("wandb") is None:
        return "not installed"
    try:
        halves = [ask(task, workload, method, seconds / 2) for task in ("plain|watched", "watched|plain")]
        plain, watched = ([x for half in halves for x in half[side]] for side in (0, 1))
        memory, bare = (ask("memory", workload, name) for name in (method, "plain"))
        return Cell(workload, method, plain, watched, memory - bare)
    except RuntimeError as problem:
        return f"failed: {problem}"


def show(workload: str, cells: dict[str, Cell | str], console: Console) -> None:
    """Print the table of one workload."""
    table = Table(
        title=f"{workload}: CPU time per step, one thread", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=heading != "method")
    for method, cell in cells.items():
        table.add_row(METHODS[method][0], *(cell.columns() if isinstance(cell, Cell) else [cell]))
    console.print(table)


def save(path: Path, cells: list[Cell]) -> None:
    """Write the measured cells as JSON, with what they were measured on."""
    facts = {name: version(name) for name in ("torch", "numpy", "numba")}
    facts |= {"python": platform.python_version(), "machine": platform.platform(), "cores": str(os.cpu_count())}
    rows = [asdict(cell) | {"quartiles": cell.quartiles} for cell in cells]
    path.write_text(json.dumps({"facts": facts, "cells": rows}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seconds", type=float, default=15.0, help="timed CPU seconds per cell, at least four pairs")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.task:
        print(json.dumps(answer(wanted.task, *wanted.workloads, *wanted.methods, wanted.seconds)))
        return
    console, measured = Console(), []
    for workload in wanted.workloads:
        methods = track(wanted.methods, f"measuring {workload}", console=console, transient=True)
        cells = {method: measure(workload, method, wanted.seconds) for method in methods}
        show(workload, cells, console)
        measured += [cell for cell in cells.values() if isinstance(cell, Cell)]
    console.print(NOTE)
    if wanted.json:
        save(wanted.json, measured)


if __name__ == "__main__":
    main()
