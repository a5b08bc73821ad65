"""Where two settings part: the first step at which their runs differ by more than their uncertainty (no torch).

**Enough runs of each**, four against four say: they are shared out in every other way, and the real groups have to
stand out (`permutation.py`).

**One run of each**, or a few, cannot tell what the setting does from what the seed does, and two seeds differ by far
more than the noise inside either: on small networks by a tenth of the loss, a fifth of a median stepsize. So they are
compared with a tolerance in *time*. Over a √2-spaced block a run has to lie outside everything that the other shows
from half to twice as many steps, and the other way round, by more than three times the scatter of both, and in the next
block again. A seed that is a little ahead does not count; a setting that needs more than twice the steps does.
By how far they differ before their first step acts is chance and does not count either. Stepsizes and c⁺/a hang on the
initial weights too, and are given a factor besides; c⁺/a is left alone where dormant coordinates make up most of a, as
chance decides which are. All that rests on chance averaging out over coordinates:
with few of them a run is a path of chance itself, and is not compared at all unless both were simulated on the same
draws.

**One run of each that were one run for a while**, number for number, as a run made again with a switch thrown on the
way: the lot of the initial weights is the same for both. Their blocks are counted from where they branched, and block
is compared with block, three in a row, without a tolerance in time. What is left of chance is the noise of the steps
since: of 480 pairs of branches that only drew other batches, on six settings of digits, 4 parted.

ρ of single runs comes with intervals that hold its noise. They are combined as by Zou and Donner (Statistics in
Medicine 27, 2008), at a level that is shared among all the looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from .conditions import BIAS_FLOOR, MIN_BLOCKS
from .courses import (
    BIAS,
    EFFICIENCY,
    QUANTILES,
    Course,
    Steps,
    courses,
    edges_since,
    efficiencies,
    shared_edges,
    shared_efficiencies,
)
from .drift import LEVEL, Harm, K, student_t
from .evidence import gather
from .permutation import differ, ways
from .trace import Trace

Array = NDArray[np.float64]
Signs = NDArray[np.int8]

RATE = 0.05
"""How often runs of one setting may part by chance."""
MANY = 100
"""Coordinates from which on chance averages out."""
AHEAD = 2
"""Blocks before and after a block that count as near: a factor of two in steps."""
RUNNING = 2
"""Blocks that have to be apart one after the other."""
BRANCHED_RUNNING = 3
"""The same where runs branched: their blocks are shorter, and there is no tolerance in time beside it."""
SCATTER = 3.0
ROOM = {**dict.fromkeys(QUANTILES, math.log(1.5)), BIAS: math.log(3.0)}
LATE = "far apart at the end, too late to tell from being ahead"
UNRESOLVED = "it was not resolved in all of them at the same steps"
EFFICIENCY_ROOM = 0.02  # nobody would act on less, and SGD has ρ = 1 to the last digit


@dataclass(frozen=True)
class Rule:
    """How many blocks away count as near, and how many in a row have to be apart."""

    ahead: int
    running: int


IN_TIME, AT_ONCE = Rule(AHEAD, RUNNING), Rule(0, BRANCHED_RUNNING)
"""For runs of their own, and for those that branched from one."""


@dataclass(frozen=True)
class Parting:
    """Where a setting parts from another in one quantity; `step` is None where it does not, or cannot be compared."""

    quantity: str
    step: int | None
    """The first step of the first block in which they are apart."""
    until: int | None
    """The last step of the last such block in a row; None where they stay apart to the end."""
    at: int | None
    """The last step of the block that the numbers are of: the first apart, else the last of all."""
    here: float
    """The quantity in that block, the median of several runs."""
    there: float
    """The same of the other setting."""
    note: str = ""
    """What belongs to the numbers, or why there are none."""


def partings(
    here: Sequence[Trace],
    there: Sequence[Trace],
    harms: tuple[Sequence[Harm], Sequence[Harm]],
    looks: int = 1,
    branched: int = 0,
) -> tuple[Parting, ...]:
    """Return where the runs `here` part from those `there`, quantity by quantity.

    `harms` holds the harm test of each run, `looks` is how many settings are compared with the other in all, `branched`
    is the last step up to which one run of each is the same, number for number.
    """
    edges, one = blocks_of(here, there, branched)
    known = list(courses(here, there, edges))
    rows = [
        efficiencies(trace, harm)
        for traces, tests in zip((here, there), harms, strict=True)
        for trace, harm in zip(traces, tests, strict=True)
    ]
    moments = shared_efficiencies(rows)
    if ways(len(here), len(there)) <= RATE / looks:
        known.insert(1, _efficiency(moments, len(here)))
        return tuple(part_groups(course, RATE / looks) for course in known)
    doubt = dict.fromkeys((course.quantity for course in known), few(here, there))
    doubt[BIAS] = doubt[BIAS] or dormant((*here, *there))
    found = [
        _unknown(course.quantity, doubt[course.quantity])
        if doubt[course.quantity] and not course.missing
        else part(course, AT_ONCE if one else IN_TIME)
        for course in known
    ]
    return (found[0], part_efficiency(moments, len(here), looks), *found[1:])


def blocks_of(here: Sequence[Trace], there: Sequence[Trace], branched: int) -> tuple[Steps, bool]:
    """Return the edges of the blocks in which runs are compared, and whether they begin where single runs branched.

    Where that leaves too few blocks, they are those of the whole run.
    """
    both = (*here, *there)
    since = edges_since(branched, both) if branched and len(both) == 2 else np.empty(0, np.int64)
    return (since, True) if len(since) > MIN_BLOCKS else (shared_edges(both), False)


def few(here: Sequence[Trace], there: Sequence[Trace]) -> str:
    """Say that chance alone could set these runs apart; empty where it averages out, or is the same for both."""
    coordinates = min(sum(tensor.watched for tensor in trace.tensors) for trace in (*here, *there))
    if coordinates >= MANY or _same_draws(here, there):
        return ""
    enough = next(runs for runs in range(2, 99) if ways(runs, runs) <= RATE)
    return (
        f"a run of {coordinates} coordinate{'s' * (coordinates > 1)} is a path of chance: give {enough} runs of each "
        "setting, or simulate both on the same seeds"
    )


def dormant(traces: Sequence[Trace]) -> str:
    """Say that dormant coordinates make up most of a in one of the runs; empty where they do in none."""
    found = any(gather(trace).dormant for trace in traces)
    return "dormant coordinates make up most of a, and chance decides which are dormant" if found else ""


def _same_draws(here: Sequence[Trace], there: Sequence[Trace]) -> bool:
    draws = [(trace.meta.get("problem"), trace.meta.get("seed")) for trace in (*here, *there)]
    return draws[0][0] is not None and all(draw == draws[0] for draw in draws)


def _unknown(quantity: str, why: str) -> Parting:
    return Parting(quantity, None, None, None, math.nan, math.nan, why)


def part_groups(course: Course, rate: float) -> Parting:
    """Return where two groups of runs part."""
    found = _comparable(course, least=1)
    if isinstance(found, Parting):
        return found
    blocks, here, there, _ = found
    return _told(course, blocks, differ(here, there, rate), 1)


def part(course: Course, rule: Rule = IN_TIME) -> Parting:
    """Return where single runs part in a quantity that has no interval."""
    found = _comparable(course, least=MIN_BLOCKS)
    if isinstance(found, Parting):
        return found
    blocks, here, there, logs = found
    room = (ROOM.get(course.quantity, 0.0) if logs else 0.0) + _from_the_outset(course, logs)
    pairs = list(product(here, there))
    found = _told(course, blocks, agreed(np.array([apart(x, y, room, rule.ahead) for x, y in pairs])), rule.running)
    late = found.step is None and all(outside(x, y, room) or outside(y, x, room) for x, y in pairs)
    return replace(found, note=LATE) if late else found


def _from_the_outset(course: Course, logs: bool) -> float:
    """Return how far the runs are apart before their first step acts; 0 where that is not known."""
    here, there = course.outset
    with np.errstate(all="ignore"):
        gaps = np.abs(np.log(here[:, None] / there) if logs else here[:, None] - there)
    return float(gaps.max()) if gaps.size and np.isfinite(gaps).all() else 0.0


def _comparable(course: Course, least: int) -> tuple[NDArray[np.intp], Array, Array, bool] | Parting:
    """Return the blocks in which all runs have a value, the values, and whether they are logarithms.

    They are where all are positive; c⁺/a is raised first to where it is as good as 0.
    """
    if course.missing:
        return _unknown(course.quantity, course.missing)
    known = np.flatnonzero(np.isfinite(course.here).all(axis=0) & np.isfinite(course.there).all(axis=0))
    if len(known) < least:
        why = f"they share {len(known)} of the {least} blocks that a comparison takes"
        return _unknown(course.quantity, why)
    floor = BIAS_FLOOR if course.quantity == BIAS else -math.inf
    here, there = np.maximum(course.here[:, known], floor), np.maximum(course.there[:, known], floor)
    if min(here.min(), there.min()) > 0:
        return known, np.log(here), np.log(there), True
    return known, here, there, False


def agreed(signs: Signs) -> Signs:
    """Return the sign that all pairs `(pairs, blocks)` have, else 0."""
    return np.asarray(np.where((signs == signs[0]).all(axis=0), signs[0], 0))


def apart(x: Array, y: Array, room: float, ahead: int = AHEAD) -> Signs:
    """Return for each block 1 where x lies above all of y near it and y below all of x, -1 the other way, else 0."""
    margin = room + SCATTER * np.hypot(scatter(x), scatter(y))
    (top_x, low_x), (top_y, low_y) = ([_near(z, reach, ahead) for reach in (np.max, np.min)] for z in (x, y))
    above = np.minimum(x - top_y, low_x - y) > margin
    below = np.minimum(low_y - x, y - top_x) > margin
    return np.asarray(above.astype(np.int8) - below.astype(np.int8))


def outside(x: Array, y: Array, room: float) -> bool:
    """Tell whether x ends outside all that y shows in its last blocks."""
    near, margin = y[-1 - AHEAD :], room + SCATTER * math.hypot(scatter(x)[-1], scatter(y)[-1])
    return bool(max(x[-1] - near.max(), near.min() - x[-1]) > margin)


def _near(x: Array, reach: Callable[[Array], np.float64], ahead: int) -> Array:
    return np.array([reach(x[max(0, j - ahead) : j + ahead + 1]) for j in range(len(x))])


def scatter(x: Array) -> Array:
    """Return how far a course strays from a straight line near each block, as a standard deviation.

    Three neighbours with independent noise of variance 1 have a second difference of variance 6; the median over seven
    of them forgives a jump.
    """
    strays = np.abs(np.diff(x, 2)) / math.sqrt(6.0)
    middles = [np.median(strays[max(0, j - 4) : j + 3]) for j in range(len(x))]
    return np.array(middles) / 0.6745


def part_efficiency(rows: Array, own: int, looks: int) -> Parting:
    """Return where ρ parts, from (step, ρ, low, high) in `(runs, moments, 4)`, of which the first `own` are here."""
    if rows.shape[1] == 0:
        return _unknown(EFFICIENCY, UNRESOLVED)
    steps = rows[0, :, 0].astype(np.int64)
    wider = student_t(K - 1, 1 - RATE / (len(steps) * looks)) / student_t(K - 1, LEVEL)
    signs = np.array([_sign(one, other, wider) for one, other in product(rows[:own], rows[own:])])
    return _told(_efficiency(rows, own), np.arange(len(steps)), agreed(signs), 1)


def _efficiency(rows: Array, own: int) -> Course:
    """Return ρ as a course of moments."""
    if rows.shape[1] == 0:
        return Course(EFFICIENCY, missing=UNRESOLVED)
    steps = rows[0, :, 0].astype(np.int64)
    return Course(EFFICIENCY, steps, steps, rows[:own, :, 1], rows[own:, :, 1])


def _sign(here: Array, there: Array, wider: float) -> Signs:
    """Return which of two runs has the larger ρ at each moment, 0 where their intervals do not tell."""
    (rho, low, high), (rho_, low_, high_) = here[:, 1:].T, there[:, 1:].T
    above = rho - rho_ - wider * np.hypot(rho - low, high_ - rho_) > EFFICIENCY_ROOM
    below = rho_ - rho - wider * np.hypot(high - rho, rho_ - low_) > EFFICIENCY_ROOM
    return np.asarray(above.astype(np.int8) - below.astype(np.int8))


def _told(course: Course, blocks: NDArray[np.intp], signs: Signs, running: int) -> Parting:
    """Return the first stretch of equal signs that is long enough; `blocks` is where the signs stand in the course."""
    begin = next((j for j in range(len(signs) - running + 1) if _alike(signs[j : j + running])), None)
    at = blocks[-1 if begin is None else begin]
    values = float(np.median(course.here[:, at])), float(np.median(course.there[:, at]))
    if begin is None:
        return Parting(course.quantity, None, None, int(course.last[at]), *values)
    stop = begin
    while stop < len(signs) and signs[stop] == signs[begin]:
        stop += 1
    until = int(course.last[blocks[stop - 1]]) if stop < len(signs) else None
    note = course.notes[at] if course.notes else ""
    return Parting(course.quantity, int(course.first[at]), until, int(course.last[at]), *values, note)


def _alike(signs: Signs) -> bool:
    return bool(signs[0] != 0 and (signs == signs[0]).all())
