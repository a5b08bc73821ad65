"""What watching costs on a GPU, and that nobody waits for it there: a GPT of 124 M parameters under fused AdamW.

    python benchmarks/accelerator.py              # needs a GPU with 24 GB, some minutes
    python benchmarks/accelerator.py --tiny       # a smoke test on whatever there is; its figures mean nothing

The forward pass runs in bfloat16 by autocast, weights and optimizer state are float32. Plain, default and all
coordinates are timed side by side in one process, in blocks that alternate, by CUDA events.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from stepscope import Monitor
from stepscope.diagnostics import fused
from stepscope.diagnostics.later import kernels

METHODS = {"plain": None, "default": 1024, "all": "all"}
COAST = 1100
"""Steps before the clock starts: the opening is proved step by step, and records are dense at first."""


@dataclass(frozen=True)
class Size:
    """How large the model and the measurement are."""

    layers: int = 12
    heads: int = 12
    width: int = 768
    vocabulary: int = 50304
    context: int = 1024
    batch: int = 8
    coast: int = COAST
    blocks: int = 10
    steps: int = 64


TINY = Size(2, 2, 16, 64, 8, 2, coast=20, blocks=2, steps=4)


class Block(nn.Module):
    """Attention and a perceptron, each added to what went in."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads, n = size.heads, size.width
        self.before, self.between = nn.LayerNorm(n), nn.LayerNorm(n)
        self.attend, self.project = nn.Linear(n, 3 * n), nn.Linear(n, n)
        self.perceive = nn.Sequential(nn.Linear(n, 4 * n), nn.GELU(), nn.Linear(4 * n, n))

    def forward(self, x: Tensor) -> Tensor:
        """Return what goes on to the next block."""
        parts = self.attend(self.before(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).flatten(2))
        return x + self.perceive(self.between(x))


class Training:
    """A model, its optimizer and a batch of noise; `step` trains on it once."""

    def __init__(self, size: Size, device: torch.device, coordinates: int | str | None, **settings: bool) -> None:
        torch.manual_seed(0)
        embed = nn.Embedding(size.vocabulary, size.width)
        blocks = [Block(size) for _ in range(size.layers)]
        self.model = nn.Sequential(embed, *blocks, nn.LayerNorm(size.width)).to(device)
        self.tokens = torch.randint(size.vocabulary, (size.batch, size.context + 1), device=device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True, **settings)
        self.monitor = Monitor(self.optimizer, coordinates=coordinates, strict=True) if coordinates else None
        self.device = device

    def loss(self) -> Tensor:
        """Return the loss of the batch."""
        with torch.autocast(self.device.type, torch.bfloat16):
            found = self.model(self.tokens[:, :-1]) @ self.model[0].weight.T  # type: ignore[operator, union-attr]
        return functional.cross_entropy(found.flatten(0, 1).float(), self.tokens[:, 1:].flatten())

    def step(self) -> None:
        """Take one step of training."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    """Return the time that work takes on the device."""
    if device.type != "cuda":
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin
    begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin_event.record()
    work()
    end_event.record()
    end_event.synchronize()
    return float(begin_event.elapsed_time(end_event)) / 1e3


def launches(training: Training, steps: int) -> float:
    """Return what the host tells the device to do in a step: kernels and copies."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if training.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(steps):
            training.step()
    told = ("cudaLaunchKernel", "cuLaunchKernel", "cudaMemcpyAsync", "cudaMemsetAsync")
    return sum(event.count for event in profile.key_averages() if event.key.startswith(told)) / steps


def cost(size: Size, device: torch.device) -> Iterator[tuple[str, ...]]:
    """Yield method, milliseconds a step, their ratio to the plain ones, and launches added."""
    runs: dict[str, Training] = {}
    for name, coordinates in METHODS.items():
        runs[name] = Training(size, device, coordinates)
        for _ in range(size.coast):
            runs[name].step()
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    for block in range(size.blocks):
        for name in sorted(METHODS, reverse=bool(block % 2)):
            times[name].append(seconds(device, lambda: [runs[name].step() for _ in range(size.steps)]) / size.steps)  # noqa: B023
    told = {name: launches(run, size.steps) for name, run in runs.items()}
    for name in METHODS:
        ratios = [mine / plain for mine, plain in zip(times[name], times["plain"], strict=True)]
        ratio = f"{statistics.median(ratios):.3f} [{min(ratios):.3f} - {max(ratios):.3f}]"
        yield name, f"{1e3 * statistics.median(times[name]):.2f}", ratio, f"{told[name] - told['plain']:+.1f}"


@contextmanager
def no_waiting(training: Training) -> Iterator[bool]:
    """Let whatever makes the host wait raise, but at steps that are recorded or proved; yield whether it would."""
    assert training.monitor is not None
    recorder = training.monitor._recorder
    coming = recorder.step + training.monitor._later.steps + 1
    free = not any(recorder.schedule.keeps(t) or recorder.schedule.proves(t) for t in (coming - 1, coming))
    if training.device.type == "cuda" and free:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield free
    finally:
        if training.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def waits_for_nobody(size: Size, device: torch.device) -> str:
    free = 0
    for coordinates in (1024, "all"):
        training = Training(size, device, coordinates)
        for t in range(size.coast + size.steps):
            training.loss().backward()
            with no_waiting(training) as would_raise:
                training.optimizer.step()
            free += would_raise and t > 17
            training.optimizer.zero_grad()
    return f"{free} steps made nobody wait"


def overflows(size: Size, device: torch.device) -> str:
    training = Training(size, device, 1024)
    scaler = torch.amp.GradScaler(device.type)
    for t in range(40):
        scaler.scale(training.loss() * (torch.inf if t in (20, 30) else 1.0)).backward()
        scaler.step(training.optimizer)
        scaler.update()
        training.optimizer.zero_grad()
    assert training.monitor is not None
    assert training.monitor.step == 38
    return "two overflows of a loss scaler were told from steps"


def graph(size: Size, device: torch.device) -> str:
    if device.type != "cuda":
        return "no CUDA graph here"
    training = Training(size, device, 1024, capturable=True)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(20):
            training.step()
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        training.loss().backward()
        training.optimizer.step()
    assert training.monitor is not None
    before = training.monitor.step
    for _ in range(10):
        captured.replay()
        training.monitor.sample()
    assert training.monitor.step == before + 10
    return "ten replays of a CUDA graph were sampled"


def kernels_agree(device: torch.device) -> str:
    module = kernels(device.type)
    if module is None:
        return "no Triton here"
    v, g = torch.rand(10**6, device=device), torch.randn(10**6, device=device)
    its = np.linspace(0.5, 1.5, fused.SCALARS, dtype=np.float32)
    plan = module.Plan(device, [], [], [], 1, 1)
    out = torch.zeros(20, dtype=torch.float64, device=device)
    plan.write(0, [], [(v, g)], its[None], torch.zeros(0, device=device), out)
    torch.testing.assert_close(out, fused.sums((v, g), its), rtol=1e-5, atol=1e-5)
    return "the kernel agrees with plain torch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    size = TINY if parser.parse_args().tiny else Size()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    console, table = Console(), Table("method", "ms a step", "ratio [range]", "launches added")
    for row in cost(size, device):
        table.add_row(*row)
    console.print(table)
    for line in (waits_for_nobody(size, device), overflows(size, device), graph(size, device), kernels_agree(device)):
        console.print(line)


if __name__ == "__main__":
    main()
