"""StepsizeMonitor: the monitor as a callback of Lightning, under either name of its package."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch

from ..diagnostics.monitor import Monitor
from . import callbacks
from .callbacks import Aside, Settings
from .optional import need

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def callback_class() -> Any:
    """Return Lightning's class of callbacks, from the package in use if one is; each trainer runs the other's too."""
    for name in sorted(PACKAGES, key=lambda name: name not in sys.modules):
        try:
            return need(name, "lightning").Callback
        except ImportError as error:
            missing = error
    raise missing


class StepsizeMonitor(callback_class()):  # type: ignore[misc]
    """Watches the optimizers of a Lightning training, and gives the scalars to the trainer's loggers.

    `monitors` has one Monitor for each optimizer, from the start of the training on; with several, each has its own
    folder `optimizer0`, `optimizer1`, … below `directory`, and so begin the names of its scalars. They are logged every
    `log_every_n_steps` of the trainer; the loss is recorded where `training_step` returns one. A checkpoint of the
    trainer keeps the state of the monitors, and a training that is resumed from it continues their sums.

    Of several processes that hold the same, as under DistributedDataParallel, only the first watches. Where the
    optimizer is sharded each records its part, and the loggers get the scalars of the first; Lightning's checkpoints
    have room for the state of one process, so that such a run goes on as one without state (docs/distributed.md).

    Args:
        directory: where the run is kept, as in `Monitor`; None: in memory.
        settings: those of `Monitor`: `coordinates`, `seed`, `what_if`, `budget`, `on_alert`, `strict`.

    Raises:
        ImportError: on import, where Lightning is not installed.
        ValueError: as the training starts, for what `Monitor` refuses.
    """

    def __init__(self, directory: str | Path | None = None, **settings: Unpack[Settings]) -> None:
        self.directory, self.settings = directory, settings
        self.monitors: list[Monitor] = []
        self._loaded: list[Mapping[str, Any]] = []
        self._logged = 0
        self._aside = Aside()

    @property
    def monitor(self) -> Monitor:
        """The monitor of the first optimizer.

        Raises:
            RuntimeError: before the training, and in a process that has none.
        """
        if not self.monitors:
            raise RuntimeError(
                "expected a training that has started, got none; call `trainer.fit` first, and of several processes "
                "that hold the same ask the first."
            )
        return self.monitors[0]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch, with the state of the checkpoint that the training is resumed from."""
        self.monitors, self._logged = [], trainer.global_step
        model = trainer.model or pl_module  # as the strategy wrapped it
        shares = [callbacks.share(optimizer, model) for optimizer in trainer.optimizers]
        for name, optimizer, own in zip(names(len(shares)), trainer.optimizers, shares, strict=True):
            if own.sharded or trainer.is_global_zero:
                place = Path(self.directory) / name if self.directory and name else self.directory
                self.monitors.append(Monitor(optimizer, place, model=model, **self.settings))
        if trainer.global_step and any(own.sharded for own in shares) and trainer.is_global_zero:
            what = "stepscope does not continue its sums exactly at step %d: a checkpoint has no state of sharded runs"
            callbacks.logger.warning(what, trainer.global_step)
        for monitor, state in zip(self.monitors, self._loaded, strict=False):
            monitor.load_state_dict(state)
        self._loaded = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Record the loss of the batch, and log the scalars when it is time."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else None
        if isinstance(loss, torch.Tensor) and loss.numel() == 1:
            whole = loss.detach() * trainer.accumulate_grad_batches  # Lightning has divided it
            for _, monitor in self._open():
                monitor.log(loss=whole)
        step, every = trainer.global_step, trainer.log_every_n_steps
        if every and step // every > self._logged // every:
            self._logged = step
            self._aside("log its scalars", lambda: self._log(trainer, step))

    def _log(self, trainer: Trainer, step: int) -> None:
        scalars: dict[str, float] = {}
        for name, monitor in self._open():
            scalars |= {f"{name}/{key}" if name else key: value for key, value in monitor.scalars().items()}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=step - 1)  # Lightning counts steps from 0 in its logs

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the record."""
        for monitor in self.monitors:
            monitor.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the record of a training that broke off, and say why in it."""
        for monitor in self.monitors:
            monitor.__exit__(type(exception), exception, exception.__traceback__)

    def state_dict(self) -> dict[str, Any]:
        """Return what the trainer's checkpoint keeps; of a sharded run nothing, for it is kept by the first process."""
        states = [monitor.state_dict() for monitor in self.monitors]
        return {"monitors": [] if any(state["rank"] for state in states) else states or self._loaded}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint kept; the monitors continue from it when the training starts."""
        self._loaded = state_dict["monitors"]

    def _open(self) -> list[tuple[str, Monitor]]:
        """Return the monitors that still record, by name; somebody may have closed one."""
        named = zip(names(len(self.monitors)), self.monitors, strict=True)
        return [(name, monitor) for name, monitor in named if not monitor.closed]


def names(optimizers: int) -> list[str]:
    """Return how the optimizers are told apart: a single one needs no name."""
    return [f"optimizer{place}" for place in range(optimizers)] if optimizers > 1 else [""] * optimizers
