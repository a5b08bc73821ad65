"""Where the runs of a problem went, at a few steps: iterates, distances and regret, for the figures of a suite."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .cases import Case, Nature

Array = NDArray[np.float64]
Band = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
"""Lowest, median and highest value over the seeds, at each step."""

RECORDS = 60  # per run: more can hardly be told apart on a small curve


@dataclass(frozen=True)
class About:
    """What a row's problem is, for those who read the row."""

    source: str
    law: str
    """The formula of the learning rate."""
    why: str
    """What theory says of it, and why it counts as solved where it does."""
    nature: Nature
    variables: tuple[str, ...]
    optimum: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @classmethod
    def of(cls, case: Case) -> About:
        """Return it of a case."""
        problem, sides = case.problem, (case.optimum, case.problem.lower, case.problem.upper)
        optimum, lower, upper = (tuple(float(value) for value in np.ravel(side)) for side in sides)
        names = tuple(map(str, problem.variables))
        return cls(case.source, case.law, case.why, case.nature, names, optimum, lower, upper)


@dataclass(frozen=True)
class Course:
    """Where the seeds of a problem were at `steps`."""

    steps: tuple[int, ...]
    x: Band | None
    """The iterate, of problems in one variable."""
    distance: Band
    """From the optimum."""
    regret: tuple[float, ...]
    """The average regret up to there, the mean over the seeds."""


class Recorded(Protocol):
    """What a world keeps for it: iterates `(seeds, dim)` and the sum of regrets `(seeds,)` at the first steps of these.

    A world that broke has fewer.
    """

    case: Case
    record_at: tuple[int, ...]
    iterates: list[Array]
    regrets: list[Array]


def record_steps(steps: int) -> tuple[int, ...]:
    """Return the steps of a run at which it is recorded: evenly spread in log t, the first and the last among them."""
    return tuple(int(step) for step in np.unique(np.geomspace(1, steps, RECORDS).round()))


def course(worlds: Sequence[Recorded]) -> Course:
    """Return where all seeds of some worlds of one problem went; where one broke, the others go on."""
    known = [world for world in worlds if world.iterates]
    if not known:
        return Course((), None, ((), (), ()), ())
    length = max(len(world.iterates) for world in known)
    steps = next(world.record_at for world in known if len(world.iterates) == length)[:length]
    x = np.concatenate([_padded(world.iterates, length) for world in known], axis=1)
    regret = np.concatenate([_padded(world.regrets, length) for world in known], axis=1)
    with np.errstate(over="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(Mean of empty|All-NaN) slice", RuntimeWarning)  # where every seed broke
        distance = np.linalg.norm(x - known[0].case.optimum, axis=2)
        average = np.nanmean(regret, axis=1) / np.array(steps)
        return Course(steps, _band(x[:, :, 0]) if x.shape[2] == 1 else None, _band(distance), _plain(average))


def _padded(records: Sequence[Array], length: int) -> Array:
    """Return records `(length, seeds, …)`, NaN behind the last."""
    return np.stack([*records, *[np.full_like(records[0], math.nan)] * (length - len(records))])


def _band(values: Array) -> Band:
    low, middle, high = (_plain(f(values, axis=1)) for f in (np.nanmin, np.nanmedian, np.nanmax))
    return low, middle, high


def _plain(values: Array) -> tuple[float, ...]:
    return tuple(map(float, values))
