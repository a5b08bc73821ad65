"""Measures what a step of each remedy costs: its time and state beside the optimizer that it replaces or wraps.

Steps of either are taken in turn, block by block, in one process on one thread, so that a machine that slows down slows
both; the ratio is the median over pairs of blocks. Only `optimizer.step()` is timed, on gradients that stand still.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch.optim import SGD, Adam, AdamW, Optimizer

from stepscope.remedies import (
    ADOPT,
    AdaFom,
    Adai,
    AdaiV2,
    AdaShift,
    AMSGrad,
    AutoDrop,
    ClipUpdates,
    CProp,
    Demon,
    DemonAdam,
)

Stepped = Optimizer | AutoDrop
Make = Callable[[list[torch.Tensor]], Stepped]
SIZES = {"60 tensors of 32 × 32": [(32, 32)] * 60, "4 tensors of 1000 × 1000": [(1000, 1000)] * 4}
RATE = 1e-9


def adam(params: list[torch.Tensor]) -> Optimizer:
    return Adam(params, RATE)


def adamw(params: list[torch.Tensor]) -> Optimizer:
    return AdamW(params, RATE)


def sgd(params: list[torch.Tensor]) -> Optimizer:
    return SGD(params, RATE, momentum=0.9)


PAIRS: dict[str, tuple[Make, Make]] = {
    "AMSGrad / Adam": (lambda p: AMSGrad(p, RATE), adam),
    "ADOPT / Adam": (lambda p: ADOPT(p, RATE), adam),
    "AdaShift / Adam": (lambda p: AdaShift(p, RATE), adam),
    "AdaShift, none / Adam": (lambda p: AdaShift(p, RATE, spatial="none"), adam),
    "AdaFom / Adam": (lambda p: AdaFom(p, RATE), adam),
    "Adai / SGD": (lambda p: Adai(p, RATE), sgd),
    "AdaiV2 / SGD": (lambda p: AdaiV2(p, RATE, dampening=0.5), sgd),
    "DemonAdam / Adam": (lambda p: DemonAdam(p, 10**6, RATE), adam),
    "Demon / SGD": (lambda p: Demon(sgd(p), 10**6), sgd),
    "CProp / SGD": (lambda p: CProp(sgd(p)), sgd),
    "CProp / AdamW": (lambda p: CProp(adamw(p)), adamw),
    "ClipUpdates / AdamW": (lambda p: ClipUpdates(adamw(p)), adamw),
    "AutoDrop, once an epoch / SGD": (lambda p: AutoDrop(sgd(p)), sgd),
}


def made(make: Make, shapes: list[tuple[int, ...]]) -> Stepped:
    """Return an optimizer or scheduler that has taken some steps on random gradients."""
    source = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=source).requires_grad_() for shape in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=source)
    optimizer = make(params)
    if isinstance(optimizer, AutoDrop):
        optimizer.optimizer.step()
    for _ in range(12):
        optimizer.step()
    return optimizer


def timed(optimizer: Stepped, steps: int) -> float:
    """Return the seconds of CPU time that a step takes."""
    begin = time.process_time()
    for _ in range(steps):
        optimizer.step()
    return (time.process_time() - begin) / steps


def kept(optimizer: Stepped) -> int:
    """Return the bytes of all states; of a scheduler, those of what it drives."""
    driven = optimizer.optimizer if isinstance(optimizer, AutoDrop) else optimizer
    states = [x for state in driven.state.values() for x in state.values()]
    return sum(x.numel() * x.element_size() for x in states if isinstance(x, torch.Tensor))


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15, help="pairs of blocks a row")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for title, shapes in SIZES.items():
        table = Table("remedy / base", "ms base → remedy", "ratio", "state, floats a parameter", title=title)
        numbers = sum(torch.Size(shape).numel() for shape in shapes)
        for name, (remedy, base) in PAIRS.items():
            ours, theirs = made(remedy, shapes), made(base, shapes)
            steps = max(1, round(0.05 / timed(theirs, 3)))
            pairs = [(timed(theirs, steps), timed(ours, steps)) for _ in range(arguments.pairs)]
            before, after = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(own / other for other, own in pairs)
            floats = f"{kept(theirs) / 4 / numbers:.1f} → {kept(ours) / 4 / numbers:.1f}"
            table.add_row(name, f"{before:.2f} → {after:.2f}", f"{ratio:.2f}", floats)
        Console().print(table)


if __name__ == "__main__":
    main()
