"""Trains a small model for a million steps under the default monitor: what grows of memory, file and cost.

    python benchmarks/soak.py                  # a quarter of an hour
    python benchmarks/soak.py --steps 50000    # a look

Memory is read ten times along the way; its slope is that of a straight line through the second half, when numba has
compiled and the record is thinned. The cost of a step over a plain one is measured in turn, at the start and at the
end.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from rich.console import Console
from torch import nn

from stepscope import Monitor, Trace

BLOCK, PAIRS = 500, 20
SLOPE = 1.0
"""MB that memory may grow by in 100 000 steps."""


class Training:
    """A network of 700 parameters on noise, so small that the monitor is much of each step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        batches = [(torch.randn(8, 16), torch.randn(8, 4)) for _ in range(64)]
        self.batches = itertools.cycle(batches)

    def run(self, steps: int, monitor: Monitor | None = None) -> float:
        """Take `steps` steps and return the CPU seconds that they took."""
        begin = time.process_time()
        for x, y in itertools.islice(self.batches, steps):
            self.optimizer.zero_grad()
            loss = (self.model(x) - y).square().mean()
            loss.backward()
            self.optimizer.step()
            if monitor is not None:
                monitor.log(loss=loss)
        return time.process_time() - begin


def ratio(plain: Training, watched: Training, monitor: Monitor) -> float:
    """Return the cost of a watched step over a plain one: the median over pairs of blocks."""
    return statistics.median(watched.run(BLOCK, monitor) / plain.run(BLOCK) for _ in range(PAIRS))


def folder_size(directory: Path) -> float:
    """Return the MB that a run takes on disk."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=1_000_000)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    console, memory = Console(), []
    plain, watched = Training(), Training()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "run"
        with Monitor(watched.optimizer, directory, model=watched.model, strict=True) as monitor:
            watched.run(2048, monitor)
            first = ratio(plain, watched, monitor)
            while monitor.step < wanted.steps:
                watched.run(wanted.steps // 10, monitor)
                memory.append((monitor.step, psutil.Process().memory_info().rss / 1e6))
                console.print(f"step {monitor.step}: {memory[-1][1]:.1f} MB, on disk {folder_size(directory):.1f} MB")
            last = ratio(plain, watched, monitor)
        trace = Trace.load(directory)
        size = folder_size(directory)
    steps, used = np.array(memory[len(memory) // 2 :]).T
    slope = np.polyfit(steps, used, 1)[0] * 1e5
    console.print(f"memory: {slope:+.2f} MB per 100 000 steps (at most {SLOPE})")
    console.print(f"file: {size:.1f} MB for {len(trace.steps)} records of {trace.steps[-1]} steps")
    console.print(f"step over a plain one: {first:.3f} at the start, {last:.3f} at the end")


if __name__ == "__main__":
    main()
