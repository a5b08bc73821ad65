"""Tries every remedy against its fair baseline, and writes docs/proof.md: python examples/remedies.py docs.

Each method has as many trials to find its rate as its baseline has; runs of the same seed begin with the same weights
and see the same batches. About 40 minutes on two cores; `--page` writes the page anew from the results of last time.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

import joblib
import tasks
import torch
from remedies_page import Row, draw, draw_rates, page
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR

from stepscope import Monitor, Trace
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

Make = Callable[[list[torch.nn.Parameter], float, int], Optimizer]
Schedule = Callable[[Optimizer, torch.nn.Module, int], LRScheduler]

GRID = [step / 2 for step in range(-4, 5)]
"""Powers of ten, times the rate at which a method's search begins."""
TUNING = range(1000, 1005)
"""Seeds that rates are chosen by."""


# --- methods --------------------------------------------------------------------------------------------------


def constant(optimizer: Optimizer, model: torch.nn.Module, epochs: int) -> LRScheduler:
    return LambdaLR(optimizer, lambda epoch: 1.0)


def cosine(optimizer: Optimizer, model: torch.nn.Module, epochs: int) -> LRScheduler:
    return CosineAnnealingLR(optimizer, epochs)


def drops(optimizer: Optimizer, model: torch.nn.Module, epochs: int) -> LRScheduler:
    """Drop at the epochs of AutoDrop's baseline, 60, 120 and 160 of 200."""
    return MultiStepLR(optimizer, [epochs * part // 10 for part in (3, 6, 8)], gamma=0.2)


def inverse_root(optimizer: Optimizer, model: torch.nn.Module, epochs: int) -> LRScheduler:
    return LambdaLR(optimizer, lambda epoch: (epoch + 1) ** -0.5)


def autodrop(optimizer: Optimizer, model: torch.nn.Module, epochs: int) -> LRScheduler:
    return AutoDrop(optimizer)


def autodrop_averaged(optimizer: Optimizer, model: torch.nn.Module, epochs: int) -> LRScheduler:
    return AutoDrop(optimizer, average=epochs // 6, model=model)


def sgd(params: list[torch.nn.Parameter], lr: float, steps: int) -> Optimizer:
    return SGD(params, lr, momentum=0.9)


def adam(params: list[torch.nn.Parameter], lr: float, steps: int) -> Optimizer:
    return Adam(params, lr)


@dataclass(frozen=True)
class Method:
    """What trains a task, and what it has to be better than."""

    name: str
    make: Make
    start: float
    """The rate about which the search is."""
    schedule: Schedule = constant
    against: tuple[str, ...] = ()


DAMPED = [
    Method("SGD", sgd, 0.03),
    Method("SGD, cosine", sgd, 0.03, cosine),
    Method("SGD, three drops", sgd, 0.03, drops),
    Method("Demon", lambda p, lr, n: Demon(sgd(p, lr, n), n), 0.03, against=("SGD", "SGD, cosine")),
    Method("AutoDrop", sgd, 0.03, autodrop, ("SGD", "SGD, three drops")),
    Method("AutoDrop, averaged", sgd, 0.03, autodrop_averaged, ("SGD", "SGD, three drops", "AutoDrop")),
    Method("CProp", lambda p, lr, n: CProp(sgd(p, lr, n)), 0.03, against=("SGD", "SGD, cosine")),
]
"""Those that do what a schedule of the rate does."""
RULES = [
    Method("Adai", lambda p, lr, n: Adai(p, lr), 0.3, cosine, ("SGD, cosine",)),
    Method("AdaiV2, dampening 0.5", lambda p, lr, n: AdaiV2(p, lr, dampening=0.5), 0.3, cosine, ("SGD, cosine",)),
    Method("Adam", adam, 1e-3),
    Method("Adam, cosine", adam, 1e-3, cosine),
    Method("CProp(Adam)", lambda p, lr, n: CProp(adam(p, lr, n)), 1e-3, against=("Adam", "Adam, cosine")),
    Method("DemonAdam", lambda p, lr, n: DemonAdam(p, n, lr), 1e-4, against=("Adam", "Adam, cosine")),
    Method("DemonAdam, average", lambda p, lr, n: DemonAdam(p, n, lr, average=True), 1e-3, cosine, ("Adam, cosine",)),
    Method("AMSGrad", lambda p, lr, n: AMSGrad(p, lr), 1e-3, cosine, ("Adam, cosine",)),
    Method("ADOPT", lambda p, lr, n: ADOPT(p, lr), 1e-3, cosine, ("Adam, cosine",)),
    Method("AdaShift", lambda p, lr, n: AdaShift(p, lr), 1e-2, cosine, ("Adam, cosine",)),
    Method("AdaShift, none", lambda p, lr, n: AdaShift(p, lr, spatial="none"), 1e-3, cosine, ("Adam, cosine",)),
    Method("AdaFom", lambda p, lr, n: AdaFom(p, lr), 1e-3, cosine, ("Adam, cosine",)),
    Method("ClipUpdates", lambda p, lr, n: ClipUpdates(adam(p, lr, n)), 1e-3, cosine, ("Adam, cosine",)),
]
"""Those that set another stepsize, under the same schedule as their baseline."""


BETAS = (0.0, 0.99)
GAMES = [
    Method("Adam", lambda p, lr, n: Adam(p, lr, BETAS), 0.5, inverse_root),
    Method("AMSGrad", lambda p, lr, n: AMSGrad(p, lr, BETAS), 0.5, inverse_root, ("Adam",)),
    Method("ADOPT", lambda p, lr, n: ADOPT(p, lr, BETAS), 0.5, inverse_root, ("Adam",)),
    Method("ADOPT, clip=None", lambda p, lr, n: ADOPT(p, lr, BETAS, clip=None), 0.5, inverse_root, ("Adam",)),
    Method("AdaShift", lambda p, lr, n: AdaShift(p, lr, BETAS), 0.5, inverse_root, ("Adam",)),
    Method("AdaShift, none", lambda p, lr, n: AdaShift(p, lr, BETAS, spatial="none"), 0.5, inverse_root, ("Adam",)),
    Method("AdaFom", lambda p, lr, n: AdaFom(p, lr, 0.0), 0.5, inverse_root, ("Adam",)),
]
"""What plays the game: no momentum, a rate that falls as 1/√t."""
LEAP = [
    Method("Adam", adam, 1e-2),
    Method("ClipUpdates", lambda p, lr, n: ClipUpdates(adam(p, lr, n)), 1e-2, against=("Adam",)),
]

BY_NAME = {method.name: method for method in DAMPED + RULES}
NOISE = DAMPED + [BY_NAME[name] for name in ("Adam", "Adam, cosine", "CProp(Adam)", "DemonAdam", "DemonAdam, average")]
CURVED = [
    BY_NAME["SGD, cosine"],
    replace(BY_NAME["Adam, cosine"], start=1e-2),
    *(replace(BY_NAME[name], against=("Adam, cosine", "SGD, cosine")) for name in ("Adai", "AdaiV2, dampening 0.5")),
]

PLAN: list[tuple[tasks.Task, list[Method]]] = [
    (tasks.CHARACTERS, DAMPED + RULES),
    (tasks.CNN, DAMPED + RULES),
    (tasks.MLP, DAMPED + RULES),
    (tasks.NOISY, NOISE),
    (tasks.GROWING, LEAP),
    (tasks.LEAPING, LEAP),
    (tasks.VALLEYS, CURVED),
    (tasks.STOCHASTIC, GAMES),
]
SCHEDULES = ("SGD", "SGD, cosine", "Demon")
PLAIN = Method("SGD without momentum", lambda p, lr, n: SGD(p, lr), 0.1)
CONFORMING = Method("CProp", lambda p, lr, n: CProp(SGD(p, lr)), 0.1)


# --- runs -----------------------------------------------------------------------------------------------------


def train(task: tasks.Task, method: Method, lr: float, seed: int, watched: bool = False) -> tasks.Scores:
    """Return the scores of one run, none worse than those of a failed one; a loss that is not finite ends it."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model, source = task.build(), torch.Generator().manual_seed(seed)
    optimizer = method.make(list(model.parameters()), lr, task.steps)
    scheduler = method.schedule(optimizer, model, task.epochs)
    monitor = Monitor(optimizer, what_if=()) if watched else None
    losses: list[float] = []
    for t in range(task.steps):
        optimizer.zero_grad()
        loss = task.loss(model, t, source)
        loss.backward()  # type: ignore[no-untyped-call]
        if task.clip < math.inf:
            clip_grad_norm_(model.parameters(), task.clip)
        optimizer.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            return task.failed
        if (t + 1) % (task.steps // task.epochs) == 0:
            scheduler.step()
    scores = task.scores(model, losses)
    scores = {name: min(worst, scores[name]) for name, worst in task.failed.items()}  # the worst where it is NaN
    if monitor is not None:
        scores["conformity"] = float(monitor.trace.scalars["conformity/all"].last[-1])
    return scores


def tuned(score: Callable[[float, int], float], start: float) -> float:
    """Return the rate of the lowest mean score: of a grid over four decades, then of the best two and their neighbours.

    The grid is judged by the first two seeds, the finalists by all; each method gets the same rates about its start.
    """

    def mean(power: float, seeds: Sequence[int]) -> float:
        return fmean(score(start * 10**power, seed) for seed in seeds)

    grid = sorted(GRID, key=lambda power: mean(power, TUNING[:2]))
    finalists = {power + beside for power in grid[:2] for beside in (-0.25, 0.0, 0.25)}
    return start * 10 ** min(sorted(finalists), key=lambda power: mean(power, TUNING))


def tried(task: tasks.Task, method: Method) -> Row:
    """Tune a method on some seeds, and run it on others."""
    return at_rate(task, method, tuned(cache(lambda lr, seed: train(task, method, lr, seed)["tune"]), method.start))


def at_rate(task: tasks.Task, method: Method, lr: float, watched: bool = False) -> Row:
    """Run a method on all seeds of a task."""
    runs = [train(task, method, lr, seed, watched) for seed in range(task.seeds)]
    scores = {name: [run[name] for run in runs] for name in runs[0] if name != "tune"}
    about = {"task": task.name, "about": task.about, "measure": task.measure, "failed": task.failed["score"]}
    return {**about, "method": method.name, "against": method.against, "lr": lr, "scores": scores}


def rates(name: str, steps: int = 600) -> Trace:
    """Return the record of a run that goes nowhere, for its rates under a method."""
    task, method = tasks.MLP, BY_NAME[name]
    model = tasks.Point(torch.zeros(1))
    optimizer = method.make(list(model.parameters()), 0.03, steps)
    scheduler = method.schedule(optimizer, model, task.epochs)
    with Monitor(optimizer, what_if=()) as monitor:
        for t in range(steps):
            model.x.grad = torch.ones(1)
            optimizer.step()
            if (t + 1) % (steps // task.epochs) == 0:
                scheduler.step()
    return monitor.trace


def results() -> dict[str, list[Row]]:
    """Return what came of every method on every task, and on the perceptron at given rates."""
    parts = {
        "tuned": [joblib.delayed(tried)(task, method) for task, methods in PLAN for method in methods],
        "demon": [
            joblib.delayed(at_rate)(tasks.MLP, BY_NAME[name], lr) for lr in (0.003, 0.03, 0.1) for name in SCHEDULES
        ],
        "cprop": [
            joblib.delayed(at_rate)(tasks.MLP, method, lr, watched=method is PLAIN)
            for lr in (0.02, 0.1, 0.5)
            for method in (PLAIN, CONFORMING)
        ],
    }
    return {name: joblib.Parallel(n_jobs=-1, verbose=5)(jobs) for name, jobs in parts.items()}


def main() -> None:
    """Write proof.json, proof.md and its figures into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--page", action="store_true", help="write the page from the proof.json that is there")
    arguments = parser.parse_args()
    data = arguments.folder / "proof.json"
    if not arguments.page:
        data.write_text(json.dumps(results(), indent=1) + "\n")
    found = json.loads(data.read_text())
    (arguments.folder / "proof.md").write_text(page(found))
    draw(found["tuned"], arguments.folder / "proof.svg")
    draw_rates({name: rates(name) for name in SCHEDULES}, arguments.folder / "proof-rates.svg")


if __name__ == "__main__":
    main()
