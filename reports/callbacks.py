"""What the callbacks of all trainers share: the settings that they hand on, and the care not to disturb a training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

import torch

from ..diagnostics.alert import Alert
from ..diagnostics.pieces import Share
from ..diagnostics.several import watchable

logger = logging.getLogger("stepscope")


class Settings(TypedDict, total=False):
    """The settings of a `Monitor` beside its optimizer, directory and model, with the same defaults."""

    coordinates: int | Literal["all"]
    seed: int
    what_if: Sequence[str]
    budget: float | None
    on_alert: Callable[[Alert], object] | None
    strict: bool


def share(optimizer: Any, model: torch.nn.Module) -> Share:
    """Return what this process has to do with the run, as a `Monitor` of the optimizer finds it."""
    return Share(watchable(optimizer), model)


class Aside:
    """Does what a callback does beside the training; a fault is told once, and that is then left alone."""

    def __init__(self) -> None:
        self._failed: set[str] = set()

    def __call__(self, doing: str, act: Callable[[], object]) -> None:
        """Call `act`, unless what is named by `doing` has failed before."""
        if doing in self._failed:
            return
        try:
            act()
        except Exception as fault:
            self._failed.add(doing)
            what = f"{type(fault).__name__}: {fault}"
            logger.error("stepscope could not %s and tries no more; the training goes on: %s", doing, what)
