"""What tests of several files use; `pythonpath` in pyproject.toml lets them import it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from stepscope.diagnostics.log import SqliteLog


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return scikit-learn's 1797 digits: pixels `(n, 64)` in [0, 1], and labels."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)


class Failing(SqliteLog):
    """A log whose commits raise `fault`, where there is one."""

    fault: BaseException | None = None

    def commit(self) -> None:
        if self.fault is not None:
            raise self.fault
        super().commit()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Act as a user who may not write where only root may; root is stopped by no permission."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def finish(processes: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path], seconds: float) -> None:
    """Wait for processes, stop what does not end in time, and show the log of one that failed."""
    try:
        for process in processes:
            process.wait(seconds)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, log in zip(processes, logs, strict=True):
        assert process.returncode == 0, log.read_text()


def tiny_gpt2() -> tuple[Any, torch.Tensor]:
    """Return a language model of a few hundred parameters, the same one each time, and texts of random tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = GPT2LMHeadModel(GPT2Config(**sizes, **dropout, bos_token_id=0, eos_token_id=0))
    return model, torch.randint(11, (64, 8), generator=torch.Generator().manual_seed(1))
