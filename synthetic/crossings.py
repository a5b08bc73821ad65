"""Where a phase diagram changes from one ending to another, measured, and theory's line beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .boundaries import DRIFT, Boundary
from .grid import Axis
from .sweep import Ending

Array = NDArray[np.float64]

NEAR = 1.0
"""Cells by which a measured change may miss theory's line: where in its cell it lies is not measured."""


@dataclass(frozen=True)
class Crossing:
    """A change of ending along one axis, at a value of the other."""

    at: float
    low: float
    """The last cell before the change; those between this and the next did not decide."""
    high: float
    """The first cell behind it."""
    before: Ending
    after: Ending
    theory: float
    """Where theory has the nearest change; NaN where it has none."""
    cells: float
    """How many cells theory's lies outside the interval; NaN where it has none."""

    @property
    def agrees(self) -> bool | None:
        """Whether theory's change lies within the interval, or next to it; None where theory has none."""
        return None if math.isnan(self.cells) else self.cells <= NEAR


def crossings(along: Axis, across: Axis, endings: NDArray[Any], boundaries: Sequence[Boundary]) -> tuple[Crossing, ...]:
    """Return every change of `endings`, (values of across, values of along), in their order.

    Cells that are undecided belong to neither side: they make the interval wider in which the change lies.
    """
    found: list[Crossing] = []
    values = along.middles(endings.shape[1])
    width = abs(float(np.diff(along.to(values[:2]))[0])) if len(values) > 1 else math.inf
    for at, line in zip(across.middles(endings.shape[0]).tolist(), endings, strict=True):
        expected = [value for boundary in boundaries if math.isfinite(value := drift_at(boundary, along, across, at))]
        for first, last in changes(line):
            interval = float(values[first]), float(values[last])
            turns = {line[first], line[last]} == {Ending.RIGHT, Ending.WRONG}
            nearest, cells = _nearest(along, interval, expected if turns else [], width)
            found.append(Crossing(at, *interval, line[first], line[last], nearest, cells))
    return tuple(found)


def changes(line: Sequence[Ending]) -> Iterator[tuple[int, int]]:
    """Yield the places of decided cells that end otherwise than the decided cell before them, with that one's."""
    decided = [place for place, ending in enumerate(line) if ending is not Ending.UNDECIDED]
    for first, last in pairwise(decided):
        if line[first] is not line[last]:
            yield first, last


def drift_at(boundary: Boundary, along: Axis, across: Axis, at: float) -> float:
    """Return β2 where the drift changes sign at the β1 `at`; NaN for other lines, axes and places."""
    if boundary.name != DRIFT or (along.name, across.name) != ("beta2", "beta1"):
        return math.nan
    places = across.to(boundary.beta1)
    found = float(np.interp(across.to(np.array([at]))[0], places, boundary.beta2, left=math.nan, right=math.nan))
    return found if along.low <= found <= along.high else math.nan


def _nearest(
    along: Axis, interval: tuple[float, float], expected: Sequence[float], width: float
) -> tuple[float, float]:
    """Return the expected value that is nearest to an interval, and how many cells it lies outside."""
    low, high = along.to(np.array(interval)).tolist()
    apart = {
        value: max(low - place, place - high, 0.0) / width
        for value, place in zip(expected, along.to(np.array(expected)).tolist(), strict=True)
    }
    nearest = min(apart, key=lambda value: apart[value], default=math.nan)
    return nearest, apart.get(nearest, math.nan)
