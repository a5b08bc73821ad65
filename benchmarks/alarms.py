"""Count false alarms on healthy training, and how often and how early sick training is named.

    python benchmarks/alarms.py                    # both tables
    python benchmarks/alarms.py --only healthy     # no `biased`, no `unstable`, hardly an alert
    python benchmarks/alarms.py --only sick --seeds 5

Healthy runs are real tasks on real data with settings that people use. A sick run has one planted fault; what must be
named of it is an alert, a finding or a verdict, by the first words of its title. The lead is the number of steps from
the first alert to the step where the loss (median over ten steps) had doubled since the fault began.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from training import EXTRAS, OPTIMIZERS, SCHEDULES, TASKS, Batch, Run, Task, classify, gan, train

MLP = TASKS["digits MLP"]
ONSET = 800


# --- healthy --------------------------------------------------------------------------------------------------


def healthy(seed: int) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Yield the healthy runs: every task with every optimizer, schedules and extras in turn, and more of the MLP."""
    for i, (task, optimizer) in enumerate(product(TASKS, OPTIMIZERS)):
        schedule, extra = list(SCHEDULES)[i % 4], EXTRAS[(i // 4) % 4]
        name = ", ".join(filter(None, (task, optimizer, schedule, extra)))
        settings = {"schedule": SCHEDULES[schedule], "extra": extra}
        yield name, partial(train, TASKS[task], OPTIMIZERS[optimizer], seed, **settings)
    for optimizer, schedule in product(("Adam", "AdamW .95", "AMSGrad"), SCHEDULES):
        name = f"digits MLP, {optimizer}, {schedule}, seed {seed + 1}"
        yield name, partial(train, MLP, OPTIMIZERS[optimizer], seed + 1, schedule=SCHEDULES[schedule])


# --- sick -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A planted fault, and how it may be named."""

    name: str
    run: Callable[[int], Run]
    named: tuple[str, ...]
    loss_tells: bool = True
    """Whether the loss will double at all."""


def adam(**settings: object) -> Callable[..., torch.optim.Optimizer]:
    return partial(torch.optim.Adam, **{"lr": 1e-3, **settings})


def rate_jump(seed: int) -> Run:
    def meddle(step: int, _model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if step >= ONSET:
            optimizer.param_groups[0]["lr"] *= 100

    return train(MLP, adam(), seed, steps=1200, meddle=meddle, onset=ONSET)


def interpolating(seed: int) -> Run:
    """Fit 64 samples of 1000 features, full batch: after convergence v decays, and the run bursts."""
    torch.manual_seed(seed)
    x, w = torch.randn(64, 1000), torch.randn(1000) / 1000**0.5
    model = nn.Linear(1000, 1, bias=False)

    def batches(_size: int, _seed: int) -> Iterator[Batch]:
        while True:
            yield x, (x @ w)[:, None]

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(model(x), y)

    return train(Task(lambda: model, batches, loss), adam(), seed, steps=6000)


def rare_words(seed: int) -> Run:
    """Classify bags of words, most of them rare, with a memory of two steps."""

    def batches(size: int, seed: int) -> Iterator[Batch]:
        chance = torch.Generator().manual_seed(seed)
        frequency = 1 / torch.arange(1.0, 501)
        meaning = torch.randint(2, (500,), generator=chance)
        while True:
            words = torch.multinomial(frequency, size * 5, replacement=True, generator=chance).reshape(size, 5)
            flipped = torch.rand(size, generator=chance) < 0.2
            yield words, (meaning[words[:, 0]] ^ flipped).long()

    build = lambda: nn.Sequential(nn.EmbeddingBag(500, 16), nn.Linear(16, 2))  # noqa: E731
    return train(Task(build, batches), adam(betas=(0.0, 0.5)), seed, steps=4000, batch=16)


def imbalanced(seed: int) -> Run:
    """Weigh one rare class sixtyfold: Reddi's example in a real classifier."""

    def batches(size: int, seed: int) -> Iterator[Batch]:
        chance = torch.Generator().manual_seed(seed)
        while True:
            rare = (torch.rand(size, generator=chance) < 0.02).long()
            yield torch.ones(size, 1), rare

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), y, weight=torch.tensor([1.0, 60.0]), reduction="sum") / len(y)

    return train(Task(lambda: nn.Linear(1, 2), batches, loss), adam(betas=(0.0, 0.5)), seed, steps=8000, batch=1)


def half_precision_state(seed: int) -> Run:
    """Keep parameters, gradients and state in bfloat16: 1 - β2 lies below half an ulp, so v cannot decay."""
    task = Task(lambda: MLP.build().bfloat16(), MLP.batches, lambda m, x, y: classify(m, x.bfloat16(), y).float())
    return train(task, adam(), seed, steps=1500)


def state_lost(seed: int) -> Run:
    def meddle(step: int, _model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if step == ONSET:
            optimizer.state.clear()

    return train(MLP, adam(lr=3e-3), seed, steps=1200, meddle=meddle, onset=ONSET)


def large_eps(seed: int) -> Run:
    return train(MLP, adam(eps=1.0), seed, steps=1500)


def small_eps(seed: int) -> Run:
    """Add next to nothing to pixels that are always blank: with eps = 1e-30 their weights step as far as any other."""

    def batches(size: int, seed: int) -> Iterator[Batch]:
        for x, y in MLP.batches(size, seed):
            yield x + 1e-9 * torch.randn_like(x), y

    return train(Task(MLP.build, batches), adam(eps=1e-30), seed, steps=2000)


def dead_stepsize(seed: int) -> Run:
    def meddle(step: int, _model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.param_groups[0]["lr"] = 0.5 / (step + 1) ** 2

    return train(MLP, adam(betas=(0.9, 0.95)), seed, steps=3000, meddle=meddle)


def one_nan(seed: int) -> Run:
    def meddle(step: int, model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
        if step == ONSET:
            grad = next(model.parameters()).grad
            assert grad is not None
            grad[0, 0] = math.nan

    return train(MLP, adam(), seed, steps=1000, meddle=meddle, onset=ONSET)


def exploding_layer(seed: int) -> Run:
    """Let the gradient of the second layer's weight grow by a tenth in every step."""

    def meddle(step: int, model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
        if step >= ONSET:
            grad = dict(model.named_parameters())["2.weight"].grad
            assert grad is not None
            grad *= 1.1 ** (step - ONSET)

    return train(MLP, adam(), seed, steps=1100, meddle=meddle, onset=ONSET)


def unscaled(seed: int) -> Run:
    """Forget to divide by the loss scale from the onset on."""

    def meddle(step: int, model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
        if step >= ONSET:
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad *= 65536.0

    return train(MLP, adam(), seed, steps=1200, meddle=meddle, onset=ONSET)


def limit_cycle(seed: int) -> Run:
    """Circle the minimum of a bowl: exact gradients, β1 = 0.99, a large rate."""
    torch.manual_seed(seed)
    curvature = torch.logspace(-1, 1, 20)
    start = torch.randn(20)

    class Bowl(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(start.clone())

    def loss(model: nn.Module, _x: Tensor, _y: Tensor) -> Tensor:
        return 0.5 * (curvature * model.x**2).sum()  # type: ignore[union-attr, operator]

    def batches(_size: int, _seed: int) -> Iterator[Batch]:
        while True:
            yield torch.zeros(1), torch.zeros(1)

    return train(Task(Bowl, batches, loss), adam(lr=0.1, betas=(0.99, 0.9)), seed, steps=12000)


def data_shift(seed: int) -> Run:
    """Make the pixels thirty times as large from the onset on, when v is that of the small ones."""

    def batches(size: int, seed: int) -> Iterator[Batch]:
        for step, (x, y) in enumerate(MLP.batches(size, seed)):
            yield (x * 30 if step >= ONSET else x), y

    return train(Task(MLP.build, batches), adam(), seed, steps=1200, onset=ONSET)


FAULTS = (
    Fault("learning rate × 100", rate_jump, ("learning rate", "update surge")),
    Fault("v decays after convergence", interpolating, ("stepsize growth",)),
    Fault(
        "β2 = 0.5 on rare words",
        rare_words,
        ("Gradients come less often", "Descent efficiency", "Rare large", "Harm:", "biased"),
        loss_tells=False,
    ),
    Fault("class imbalance after Reddi", imbalanced, ("Rare large", "Harm:", "biased"), loss_tells=False),
    Fault("bfloat16 state", half_precision_state, ("limited by precision",), loss_tells=False),
    Fault("resumed without state", state_lost, ("moment reset", "The run was interrupted"), loss_tells=False),
    Fault("eps too large", large_eps, ("eps decides",), loss_tells=False),
    Fault("eps too small", small_eps, ("eps is too small",), loss_tells=False),
    Fault("dead stepsize α/t²", dead_stepsize, ("stalled",), loss_tells=False),
    Fault("NaN in one gradient", one_nan, ("nonfinite", "The run broke")),
    Fault("one exploding layer", exploding_layer, ("update surge: in 2.weight",)),
    Fault("gradients not unscaled", unscaled, ("update surge", "Gradient spikes"), loss_tells=False),
    Fault("β1 = 0.99, large rate", limit_cycle, ("neighbourhood",), loss_tells=False),
    Fault("stale v after a data shift", data_shift, ("update surge", "Gradient spikes")),
)


# --- tables ---------------------------------------------------------------------------------------------------


def table_of_healthy(seed: int) -> tuple[Table, int]:
    """Return what was said of the healthy runs, and how many false alarms that makes."""
    shown = Table("healthy run", "steps", "loss", "verdict", "ρ", "alerts", box=SIMPLE_HEAD)
    accused = alerts = 0

    def add(name: str, run: Run) -> None:
        nonlocal accused, alerts
        diagnosis = run.monitor.diagnose()
        accused += str(diagnosis.verdict) in ("biased", "unstable")
        alerts += len(run.monitor.alerts)
        said = "; ".join(f"{alert.rule} at {alert.step}" for alert in run.monitor.alerts)
        numbers = (
            str(run.monitor.step),
            f"{np.mean(run.losses[-50:]):.3g}",
            diagnosis.verdict,
            f"{diagnosis.harm.rho:.2f}",
        )
        shown.add_row(name, *numbers, said)

    for name, play in healthy(seed):
        add(name, play())
    for player, run in zip(("critic", "maker"), gan(seed), strict=True):
        add(f"GAN, {player}", run)
    shown.caption = f"{shown.row_count} runs: {accused} accused, {alerts} alerts"
    return shown, accused + max(0, alerts - 1)


def table_of_sick(seeds: int, only: list[str]) -> tuple[Table, int]:
    """Return whether each fault was named and how early, and how many were not."""
    shown = Table("fault", "named", "as", "first at", "loss doubled at", "lead", box=SIMPLE_HEAD)
    missed = 0
    for fault in FAULTS:
        if only and not any(word in fault.name for word in only):
            continue
        hits, firsts, doubled, said = 0, [], [], set()
        for seed in range(seeds):
            run = fault.run(seed)
            named = [(step, text) for step, text in run.named() if step > run.onset and text.startswith(fault.named)]
            hits += bool(named)
            firsts += [min(step for step, _ in named)] if named else []
            said |= {text.split(":")[0][:40] for _, text in named}
            doubled.append(run.doubled())
        missed += seeds - hits
        lead = np.median(doubled) - np.median(firsts) if firsts else math.nan
        numbers = (f"{np.median(firsts):.0f}" if firsts else "–", f"{np.median(doubled):.0f}", f"{lead:+.0f}")
        shown.add_row(fault.name, f"{hits} of {seeds}", ", ".join(sorted(said)), *numbers)
    return shown, missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["healthy", "sick"])
    parser.add_argument("--faults", nargs="*", default=[], help="words out of the names of faults")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    console, wrong, began = Console(width=170), 0, time.perf_counter()
    parts = {"healthy": lambda: table_of_healthy(0), "sick": lambda: table_of_sick(args.seeds, args.faults)}
    for name, part in parts.items():
        if args.only in (None, name):
            table, count = part()
            console.print(table)
            wrong += count
    console.print(f"{time.perf_counter() - began:.0f} s")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
