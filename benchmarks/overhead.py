"""Measures what a monitor costs: the time and memory of a training step with it, against the same step without it.

A cell is one workload under one method of `peers.py`. Two processes time it: each builds two equal models, one of them
watched, and runs blocks of steps of either in turn, a|b, b|a, a|b, …, so that a machine that slows down slows both. The
model built first can be faster or slower for its place in memory alone; each of the two processes builds the other one
first, and their pairs are pooled. A third process trains one model only, for its memory.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peers import METHODS, Log, Method
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.optim import Adam

Batches = Iterable[tuple[Tensor, Tensor]]

TARGETS = {
    "default": {"mlp": 1.10, "cnn": 1.02, "transformer": 1.01},
    "all": {"mlp": 1.30, "cnn": 1.10, "transformer": 1.15},
}
HELD_SHARE, HELD_MB = 0.01, 20
"""What the default may hold in memory, as a part of Adam's state and in MB beside."""
BLOCK_SECONDS = 0.5
FEWEST_PAIRS = 2
COAST = 1024  # steps in which records are dense, which a run's average hardly sees
KEEP_PAGES = {f"MALLOC_{name}_": str(8 << 30) for name in ("MMAP_THRESHOLD", "TRIM_THRESHOLD")}
"""glibc keeps freed pages: page faults in the plain loop make plain against plain scatter by ±15 %, else ±3 %."""
HEADINGS = ("method", "ms plain → with", "ratio [q1–q3]", "mean", "target", "MB", "held", "kB each")
WIDE = 120
NOTE = """\
ratio: median over pairs of blocks; mean: all time over all time; MB: peak memory above the plain process's;
held: MB that stay when libraries and compiled code are left out, and kB of them for each tensor."""


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


class Training:
    """One model with its optimizer, its batches and how its gradients are taken."""

    def __init__(self, model: nn.Module, batches: Batches) -> None:
        self.model, self.batches = model, itertools.cycle(batches)
        self.optimizer, self.backward = Adam(self.model.parameters()), backward

    def run(self, steps: int, log: Log) -> float:
        """Take `steps` steps and return the seconds that they took."""
        begin = clock()
        for inputs, targets in itertools.islice(self.batches, steps):
            self.optimizer.zero_grad()
            loss = self.backward(self.model(inputs).flatten(0, -2), targets.flatten())
            self.optimizer.step()
            log(loss)
        return clock() - begin

    def coast(self, steps: int) -> None:
        """Call the optimizer alone, at learning rate zero, on the gradient that is there."""
        (group,) = self.optimizer.param_groups
        lr, group["lr"] = group["lr"], 0.0
        for _ in range(steps):
            self.optimizer.step()
        group["lr"] = lr


def backward(outputs: Tensor, targets: Tensor) -> Tensor:
    loss = nn.functional.cross_entropy(outputs, targets)
    loss.backward()
    return loss


def clock() -> float:
    """Return seconds of CPU time; of wall time with several threads, for those that wait spin."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def warm_up(training: Training, method: Method, log: Log) -> float:
    """Pass what only the first steps cost; return the seconds that the last of these took, each."""
    training.run(1, log)
    if method.coasts:
        training.coast(COAST)
    return training.run(method.interval, log) / method.interval


def time_pairs(workload: str, method: Method, scratch: Path, seconds: float, order: list[str]) -> list[list[float]]:
    """Return milliseconds per step of the pairs of blocks: first the plain ones, then the watched ones."""
    trainings = {name: Training(*WORKLOADS[workload]()) for name in order}
    with method.attach(trainings["watched"], scratch) as log:
        ways = {"plain": (METHODS["plain"], lambda loss: None), "watched": (method, log)}
        step = max(warm_up(trainings[name], *ways[name]) for name in order)
        block = method.interval * max(1, round(BLOCK_SECONDS / (step * method.interval)))
        pairs: list[dict[str, float]] = []
        while len(pairs) < FEWEST_PAIRS or sum(sum(pair.values()) for pair in pairs) < seconds:
            pairs.append({name: trainings[name].run(block, ways[name][1]) for name in order})
            order.reverse()
    return [[1000 * pair[name] / block for pair in pairs] for name in ("plain", "watched")]


def memory(workload: str, method: Method, scratch: Path) -> list[float]:
    """Return, in MB, the peak of this process's resident memory, and what a training adds once another has gone by.

    The other is of a single layer: what both need, as libraries and compiled code, is there already then.
    """
    training = Training(*WORKLOADS[workload]())
    layer = Training(nn.Linear(128, 64), [(torch.randn(8, 128), torch.randint(64, (8,)))])
    with method.attach(layer, scratch / "before") as log:
        warm_up(layer, method, log)
    del layer, log
    before = resident()
    with method.attach(training, scratch / "then") as log:
        warm_up(training, method, log)
        added = resident() - before
    unit = 1 if sys.platform == "darwin" else 1024
    return [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, added]


def resident() -> float:
    """Return the resident memory of this process in MB, without what it has freed; NaN where that is not told."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return math.nan
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(pages.read_text().split()[1]) * resource.getpagesize() / 1e6


def answer(task: str, workload: str, method: Method, seconds: float, threads: int) -> list[Any]:
    """Do one process's share of a cell."""
    torch.set_num_threads(threads)
    scratch = Path(tempfile.mkdtemp())
    if task == "memory":
        return memory(workload, method, scratch)
    return time_pairs(workload, method, scratch, seconds, task.split("|"))


@cache
def ask(task: str, workload: str, method: str, threads: int, seconds: float = 0.0) -> Any:
    """Return what a fresh process answers; all it leaves behind is removed."""
    command = [sys.executable, __file__, "--task", task, "--seconds", str(seconds), "--threads", str(threads)]
    command += ["--workloads", workload, "--methods", method]
    with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
        places = ("TMPDIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
        settings = dict.fromkeys(places, scratch)
        settings |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
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
    threads: int
    plain: list[float]
    watched: list[float]
    peak: float
    held: float

    @property
    def quartiles(self) -> list[float]:
        """Lower quartile, median and upper quartile of the pairs' ratios."""
        return statistics.quantiles((w / p for p, w in zip(self.plain, self.watched, strict=True)), n=4)

    @property
    def mean(self) -> float:
        """All time over all time: it counts the rare dear step, which the median forgets."""
        return sum(self.watched) / sum(self.plain)

    def columns(self, size: Size) -> list[str]:
        """Return the table's row."""
        (low, middle, high), target = self.quartiles, TARGETS.get(self.method, {}).get(self.workload)
        held = f"{self.held:+.1f}"
        if self.method == "default":
            held = coloured(held, self.held <= HELD_SHARE * size.state + HELD_MB)
        return [
            f"{statistics.median(self.plain):.2f} → {statistics.median(self.watched):.2f}",
            f"[bold]{middle:.3f}[/] \\[{low:.2f}–{high:.2f}]",
            f"{self.mean:.3f}",
            coloured(f"≤ {target}", middle <= target) if target else "",
            f"{self.peak:+.0f}",
            held,
            f"{1000 * self.held / size.tensors:.0f}",
        ]


def coloured(text: str, good: bool) -> str:
    return f"[{'green' if good else 'red'}]{text}[/]"


@dataclass(frozen=True)
class Size:
    """How large a workload is: its tensors, its parameters, and the MB of Adam's two moments."""

    tensors: int
    parameters: int

    @classmethod
    def of(cls, workload: str) -> Size:
        """Count."""
        params = list(WORKLOADS[workload]()[0].parameters())
        return cls(len(params), sum(param.numel() for param in params))

    @property
    def state(self) -> float:
        """MB of both moments."""
        return 8 * self.parameters / 1e6

    def __str__(self) -> str:
        return f"{self.parameters / 1e6:.3g} M parameters in {self.tensors} tensors, Adam's state {self.state:.1f} MB"


def difference(whole: Cell, part: Cell, size: Size) -> list[str]:
    """Return the row of what one cell has above another."""
    ratio, held = whole.quartiles[1] - part.quartiles[1], whole.held - part.held
    added = 1000 * ratio * statistics.median(whole.plain)
    mean, peak = whole.mean - part.mean, whole.peak - part.peak
    kilobytes = 1000 * held / size.tensors
    return [f"{added:+.0f} µs", f"{ratio:+.3f}", f"{mean:+.3f}", "", f"{peak:+.0f}", f"{held:+.1f}", f"{kilobytes:.0f}"]


def measure(workload: str, method: str, seconds: float, threads: int) -> Cell | str:
    """Return one cell, or why there is none."""
    if find_spec(METHODS[method].needs) is None:
        return "not installed"
    try:
        halves = [ask(task, workload, method, threads, seconds / 2) for task in ("plain|watched", "watched|plain")]
        plain, watched = ([x for half in halves for x in half[side]] for side in (0, 1))
        (peak, held), (bare, still) = (ask("memory", workload, name, threads) for name in (method, "plain"))
        return Cell(workload, method, threads, plain, watched, peak - bare, held - still)
    except RuntimeError as problem:
        return f"fails: {problem}"


def show(workload: str, threads: int, cells: dict[str, Cell | str], console: Console) -> None:
    """Print the table of one workload."""
    size, how = Size.of(workload), "CPU time, one thread" if threads == 1 else f"wall time, {threads} threads"
    table = Table(title=f"{workload}: {how}; {size}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for method, cell in cells.items():
        table.add_row(METHODS[method].label, *(cell.columns(size) if isinstance(cell, Cell) else [cell]))
        without = cells.get("alone")
        if method == "default" and isinstance(cell, Cell) and isinstance(without, Cell):
            table.add_row("  of it the what-if", *difference(cell, without, size))
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
    parser.add_argument("--threads", nargs="+", type=int, default=[1], help="threads of torch; several: tables of each")
    parser.add_argument("--seconds", type=float, default=15.0, help="timed seconds per cell, at least four pairs")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.task:
        (method,), (threads,) = wanted.methods, wanted.threads
        print(json.dumps(answer(wanted.task, *wanted.workloads, METHODS[method], wanted.seconds, threads)))
        return
    console, measured = Console(width=None if sys.stdout.isatty() else WIDE), []
    for threads, workload in itertools.product(wanted.threads, wanted.workloads):
        methods = track(wanted.methods, f"measuring {workload}, {threads} threads", console=console, transient=True)
        cells = {method: measure(workload, method, wanted.seconds, threads) for method in methods}
        show(workload, threads, cells, console)
        measured += [cell for cell in cells.values() if isinstance(cell, Cell)]
        if wanted.json:
            save(wanted.json, measured)
    console.print(NOTE)


if __name__ == "__main__":
    main()
