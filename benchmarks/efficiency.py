"""How far descent efficiency carries: rho and the loss over models, β2, batch sizes, β1, rates and clipping.

    python benchmarks/efficiency.py               # the table of docs/efficiency.md, half an hour
    python benchmarks/efficiency.py --seeds 1 --only model

One thing is varied at a time from a base: digits MLP, Adam at lr = 1e-3, β = (0.9, ·), batches of 64, 3000 steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from training import TASKS, train

BETAS2 = (0.999, 0.99, 0.9, 0.5)


def variations() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Yield factor, level, the optimizer's settings and the run's."""
    yield from (("model", name, {}, {"task": task}) for name, task in TASKS.items())
    yield from (("batch", str(size), {}, {"batch": size}) for size in (8, 512))
    yield from (("β1", str(beta1), {"beta1": beta1}, {}) for beta1 in (0.0, 0.99))
    yield from (("rate", str(lr), {"lr": lr}, {}) for lr in (1e-4, 1e-2))
    yield "clipping", "norm 1", {}, {"extra": "clipped"}


def play(seed: int, beta2: float, chosen: dict[str, Any], options: dict[str, Any]) -> tuple[float, bool, float]:
    """Return rho, whether its interval is narrower than 0.5, and the mean loss of the last 200 steps."""
    settings = {"lr": 1e-3, "beta1": 0.9} | chosen
    adam = partial(torch.optim.Adam, lr=settings["lr"], betas=(settings["beta1"], beta2))
    run = train(**{"task": TASKS["digits MLP"], "optimizer": adam, "seed": seed} | options)
    harm = run.monitor.diagnose().harm
    low, high = harm.interval
    return harm.rho, bool(high - low < 0.5), float(np.mean(run.losses[-200:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    torch.set_num_threads(1)
    shown, began = Table("varied", "", *(f"β2 = {beta2}" for beta2 in BETAS2), box=SIMPLE_HEAD), time.perf_counter()
    for factor, level, chosen, options in variations():
        if args.only and factor not in args.only:
            continue
        cells = []
        for beta2 in BETAS2:
            runs = [play(seed, beta2, chosen, options) for seed in range(args.seeds)]
            rho, sharp, loss = zip(*runs, strict=True)
            cells.append(f"{median(rho):.2f} ({min(rho):.2f} – {max(rho):.2f}), {sum(sharp)}, {median(loss):.2g}")
        shown.add_row(factor, level, *cells)
        print(factor, level, *cells, sep=" | ", flush=True)
    shown.caption = "rho: median (range) over seeds, runs whose interval is narrower than 0.5, loss at the end"
    console = Console(width=170)
    console.print(shown)
    console.print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
