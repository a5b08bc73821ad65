"""StepsizeCallback: the monitor as a callback of the Trainer of Transformers."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import torch

from ..diagnostics.monitor import Monitor
from .callbacks import Aside, Settings, share
from .optional import need
from .writers import Write

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger("stepscope")

FILE = "stepscope.pt"
"""Where a checkpoint keeps the monitor's state, beside `trainer_state.json`; `stepscope-rank-0.pt`, … if sharded."""


class StepsizeCallback(need("transformers", "transformers").TrainerCallback):  # type: ignore[misc]
    """Watches the optimizer of a Transformers training.

    `monitor` is its Monitor, from the start of the training on. The logged loss is recorded, and at each log the
    scalars go to `write`: the Trainer offers callbacks no way to its own reporters. Each checkpoint gets a file
    `stepscope.pt`, from which a resumed training continues the sums.

    Of several processes that hold the same, as under DistributedDataParallel, only the first watches. Where the
    optimizer is sharded each records its part and saves a file of its own; `write` gets the scalars of the first.

    The Trainer tells callbacks nothing of an error. As a context the callback closes the record then as well; without
    that, the record is closed as the process ends or the next training begins.

    Args:
        directory: where the run is kept, as in `Monitor`; None: in memory.
        write: takes the scalars and the step, such as `to_wandb()`; None: they go nowhere.
        settings: those of `Monitor`: `coordinates`, `seed`, `what_if`, `budget`, `on_alert`, `strict`.

    Raises:
        ImportError: on import, where Transformers is not installed.
        ValueError: as the training starts, for what `Monitor` refuses.
    """

    def __init__(
        self, directory: str | Path | None = None, *, write: Write | None = None, **settings: Unpack[Settings]
    ) -> None:
        self.directory, self.write, self.settings = directory, write, settings
        self.monitor: Monitor | None = None
        self._file = FILE
        self._aside = Aside()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        optimizer: torch.optim.Optimizer,
        model: torch.nn.Module,
        **others: object,
    ) -> None:
        """Begin to watch, with the state of the checkpoint that the training is resumed from."""
        self.close()  # a training before this one may have broken off
        own = share(optimizer, model)
        if own.sharded or state.is_world_process_zero:
            self._file = FILE.replace(".", f"-rank-{own.rank}.") if own.sharded else FILE
            self.monitor = Monitor(optimizer, self.directory, model=model, **self.settings)
            if state.global_step:
                self._resume(self.monitor, args, state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        logs: dict[str, float],
        **others: object,
    ) -> None:
        """Record the loss, a mean since the last log, and hand the scalars on; logs of evaluations pass by."""
        monitor = self.monitor
        if monitor is None or monitor.closed or "loss" not in logs:
            return
        monitor.log(loss=logs["loss"])
        if (write := self.write) is not None and state.is_world_process_zero:
            self._aside("log its scalars", lambda: write(monitor.scalars(), state.global_step))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: object) -> None:
        """Put the monitor's state into the checkpoint that was just written, unless that holds the model alone."""
        monitor, folder = self.monitor, checkpoint(args, state)
        if monitor is not None and not args.save_only_model and folder.is_dir():
            self._aside("save its state", lambda: torch.save(monitor.state_dict(), folder / self._file))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: object
    ) -> None:
        """Close the record."""
        self.close()

    def close(self) -> None:
        """Close the record, if there is an open one."""
        if self.monitor is not None:
            self.monitor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.monitor is not None:
            self.monitor.__exit__(kind, error, where)

    def _resume(self, monitor: Monitor, args: TrainingArguments, state: TrainerState) -> None:
        """Continue from the file in the checkpoint, or say that there is none."""
        given = args.resume_from_checkpoint
        folder = Path(given) if isinstance(given, str) and Path(given).is_dir() else checkpoint(args, state)
        if (folder / self._file).exists():
            saved: dict[str, Any] = torch.load(folder / self._file, weights_only=True)
            monitor.load_state_dict(saved)
        else:
            found = f"there is no {folder / self._file}"
            logger.warning("stepscope does not continue its sums exactly at step %d: %s", state.global_step, found)


def checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """Return the folder in which the Trainer keeps the checkpoint of the step that `state` has come to."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
