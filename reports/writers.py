"""Writers: hand the numbers of `Monitor.scalars` to TensorBoard, Weights & Biases or MLflow, by their own libraries."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .optional import need

if TYPE_CHECKING:
    import wandb
    from torch.utils.tensorboard import SummaryWriter

Write = Callable[[Mapping[str, float], int], object]
"""Takes numbers by name and the step that they belong to."""

FAMILIES = ("stepsize", "rms", "update_ratio", "lr", "total")
"""The first words of the names that `Monitor.scalars` gives."""
STEP = "stepscope/step"
MLFLOW_BATCH = 1000
"""Metrics that MLflow takes in one call."""
MLFLOW_FORBIDS = re.compile(r"[^/\w.\- ]")


def to_tensorboard(board: str | Path | SummaryWriter) -> Write:
    """Return a writer of TensorBoard's event files: into a folder, or by a `SummaryWriter` that is open.

    What is written is flushed at once, so that nothing is lost with the process.

    Raises:
        ImportError: where a folder is given and TensorBoard is not installed.
    """
    if isinstance(board, (str, Path)):
        own = need("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(board))
    else:
        own = board

    def write(scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            own.add_scalar(name, value, step)
        own.flush()

    if own is not board:
        weakref.finalize(write, own.close)
    return write


def to_wandb(run: wandb.Run | None = None) -> Write:
    """Return a writer to a run of Weights & Biases, by default to the one that is active when it writes.

    The step goes along as `stepscope/step`, the axis of these curves: W&B's own counter belongs to whoever logs the
    rest, and drops what comes with a smaller step.

    Raises:
        ImportError: where wandb is not installed.
        RuntimeError: when it writes, where no run is active.
    """
    wandb = need("wandb", "wandb")
    known: set[str] = set()

    def write(scalars: Mapping[str, float], step: int) -> None:
        current = run or wandb.run
        if current is None:
            raise RuntimeError("expected an active run of W&B, got none; call `wandb.init` before the first step.")
        if current.id not in known:
            known.add(current.id)
            for family in FAMILIES:
                current.define_metric(f"{family}/*", step_metric=STEP)
        current.log({**scalars, STEP: step})

    return write


def to_mlflow(run_id: str | None = None) -> Write:
    """Return a writer to a run of MLflow, by default to the one that is active when it writes.

    A character that MLflow does not allow in a name becomes an underscore.

    Raises:
        ImportError: where MLflow is not installed.
    """
    mlflow = need("mlflow", "mlflow")

    def write(scalars: Mapping[str, float], step: int) -> None:
        allowed = [(MLFLOW_FORBIDS.sub("_", name), value) for name, value in scalars.items()]
        for begin in range(0, len(allowed), MLFLOW_BATCH):
            mlflow.log_metrics(dict(allowed[begin : begin + MLFLOW_BATCH]), step=step, run_id=run_id)

    return write
