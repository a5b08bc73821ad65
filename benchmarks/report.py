"""Measures how long a report takes and how large it is, of a run of 200 tensors with a million steps.

The record is that of a real run, whose steps are stretched: what a report takes goes with the records and the tensors.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table

from stepscope import Monitor, Trace
from stepscope.diagnostics.trace import DriftRecord, WhatIfRecord
from stepscope.reports.formats import FORMATS, render

STEPS = 1_000_000
Window = TypeVar("Window", DriftRecord, WhatIfRecord)


def record(tensors: int, steps: int) -> Trace:
    """Return the record of Adam on noisy quadratics, one for each tensor, stretched to a million steps."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.ones(8, 8)) for _ in range(tensors)]
    names = [f"layers.{i // 4}.attention.{'qkvo'[i % 4]}_proj.weight" for i in range(tensors)]
    optimizer = torch.optim.Adam(list(zip(names, params, strict=True)), lr=1e-3, betas=(0.9, 0.99))
    with Monitor(optimizer) as monitor:
        for _ in range(steps):
            for p in params:
                p.grad = p.detach() + torch.randn(8, 8)
            optimizer.step()
            monitor.log(loss=sum(float(p.detach().square().sum()) for p in params[:4]))
    return stretched(monitor.trace, STEPS // steps)


def stretched(trace: Trace, factor: int) -> Trace:
    """Return a record as if every step had been so many."""
    scalars = {name: replace(one, steps=one.steps * factor) for name, one in trace.scalars.items()}
    assert trace.drift
    assert trace.efficiency
    assert trace.what_if
    return replace(
        trace,
        steps=trace.steps * factor,
        scalars=scalars,
        drift=_later(trace.drift, factor),
        efficiency=replace(trace.efficiency, steps=trace.efficiency.steps * factor),
        what_if=_later(trace.what_if, factor),
    )


def _later(window: Window, factor: int) -> Window:
    return replace(window, first_step=window.first_step * factor, last_step=window.last_step * factor)


def main() -> None:
    """Print a row for each format: the least CPU time of three, and the size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensors", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20_000, help="real steps, which are stretched to a million")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trace = record(arguments.tensors, arguments.steps)
    table = Table("format", "s of CPU", "MB", title=f"{len(trace.tensors)} tensors, {len(trace.steps)} records")
    with tempfile.TemporaryDirectory() as folder:
        for ending in FORMATS:
            path, times = Path(folder, f"report{ending}"), []
            for _ in range(3):
                begin = time.process_time()
                render([("run", trace)], path)
                times.append(time.process_time() - begin)
            table.add_row(ending, f"{min(times):.2f}", f"{path.stat().st_size / 1e6:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
