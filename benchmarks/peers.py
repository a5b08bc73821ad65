"""What `overhead.py` measures: stepscope, and what people would take instead of it.

Each of `METHODS` watches a training while its context is open, and yields what is called with every step's loss.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

Log = Callable[[Tensor], object]


class Training(Protocol):
    """What is watched: `backward` takes the loss of outputs and targets, and the gradients; it may be exchanged."""

    model: nn.Module
    optimizer: Optimizer
    backward: Callable[[Tensor, Tensor], Tensor]


Attach = Callable[[Training, Path], AbstractContextManager[Log]]


@dataclass(frozen=True)
class Method:
    """A way to watch: its name in the table, the module it needs, and the steps that a block of it is a multiple of."""

    label: str
    attach: Attach
    needs: str = "torch"
    interval: int = 10
    coasts: bool = False
    """Whether its first steps are dearer than all later ones, and are to pass before the clock starts."""


@contextmanager
def nothing(_training: Training, _scratch: Path) -> Iterator[Log]:
    yield lambda loss: None


@contextmanager
def stepscope(training: Training, scratch: Path, keep: bool = False, **options: Any) -> Iterator[Log]:
    from stepscope import Monitor

    directory = scratch / "run" if keep else None
    with Monitor(training.optimizer, directory, model=training.model, strict=True, **options) as monitor:
        yield lambda loss: monitor.log(loss=loss)


@contextmanager
def naive(training: Training, _scratch: Path) -> Iterator[Log]:
    seen: dict[Tensor, list[float]] = {}

    def look(*_: object) -> None:
        for param, state in training.optimizer.state.items():
            seen[param] = [x for t in (param.grad, state["exp_avg_sq"]) for x in (t.mean().item(), t.std().item())]

    training.optimizer.register_step_post_hook(look)
    yield lambda loss: loss.item()


@contextmanager
def tensorboard(training: Training, scratch: Path, every: int) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    steps = itertools.count(1)

    def log(loss: Tensor) -> None:
        step = next(steps)
        writer.add_scalar("loss", loss.item(), step)
        if step % every == 0:
            for name, param in training.model.named_parameters():
                writer.add_histogram(name, param, step)
                writer.add_histogram(f"{name}/gradient", param.grad, step)

    with SummaryWriter(scratch / "events") as writer:
        yield log


@contextmanager
def wandb_watch(training: Training, scratch: Path, every: int) -> Iterator[Log]:
    import wandb

    with wandb.init(mode="offline", dir=scratch, settings=wandb.Settings(silent=True)) as run:
        run.watch(training.model, log="all", log_freq=every)
        yield lambda loss: run.log({"loss": loss.item()})


@contextmanager
def cockpit(training: Training, _scratch: Path, every: int) -> Iterator[Log]:
    """Watch by Cockpit's own loop: an extended model and loss, the losses of single samples, backward in its context.

    It takes the loss from there; its `log` is for what was evaluated beside the training.
    """
    from backpack import extend
    from cockpit import Cockpit
    from cockpit.utils.configuration import configuration
    from cockpit.utils.schedules import linear

    extend(training.model)
    mean, each = extend(nn.CrossEntropyLoss()), nn.CrossEntropyLoss(reduction="none")
    watch = Cockpit(training.model.parameters(), quantities=configuration("economy", track_schedule=linear(every)))
    steps = itertools.count()

    def backward(outputs: Tensor, targets: Tensor) -> Tensor:
        step, loss = next(steps), mean(outputs, targets)
        info = {"batch_size": len(outputs), "individual_losses": each(outputs, targets)}
        with watch(step, info=info | {"loss": loss, "optimizer": training.optimizer}):
            loss.backward(create_graph=watch.create_graph(step))
        return loss

    training.backward = backward
    yield lambda loss: None


ours = partial(Method, interval=128, coasts=True)
"""Whole record intervals, or the ratio of a block depends on whether a record fell into it."""

METHODS = {
    "plain": Method("plain again", nothing, interval=128),
    "default": ours("stepscope", stepscope),
    "alone": ours("stepscope, what_if=()", partial(stepscope, what_if=())),
    "all": ours("stepscope, all", partial(stepscope, coordinates="all")),
    "budget": ours("stepscope, budget=0.02", partial(stepscope, budget=0.02)),
    "directory": ours("stepscope, on disk", partial(stepscope, keep=True)),
    "naive": Method("naive .item()", naive),
    "tensorboard": Method("TensorBoard, 10", partial(tensorboard, every=10), "tensorboard"),
    **{f"wandb-{n}": Method(f"wandb.watch, {n}", partial(wandb_watch, every=n), "wandb") for n in (1000, 10, 1)},
    "cockpit-10": Method("Cockpit economy, 10", partial(cockpit, every=10), "cockpit"),
    "cockpit-1": Method("Cockpit economy, 1", partial(cockpit, every=1), "cockpit", interval=1),
}
