"""Decide from a finite run whether b/a → 0 (variance), c⁺/a → 0 (bias), and whether a grows.

Series in, decisions out: no torch, no monitor. Everything is read from increments over √2-spaced blocks,
because cumulative sums remember the start-up for ever (docs/theory.md 4.1, P1). The thresholds are those of
4.2; they were fixed once and then checked on 33 (problem, method, schedule) cells (4.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .trends import SURE, Trend, block_noise, later, steps_until, theil_sen, trend

Array = NDArray[np.float64]

MIN_BLOCKS = 5  # fewer have no slope worth a spread; they take a run 5.7 times as long as its start-up
VARIANCE_FLOOR = 1e-10  # relative to the largest block: gradients that vanished, not a schedule
BIAS_FLOOR = 2.0**-25  # absolute, as c⁺/a has no unit: below it lies the rounding of e where v is kept in float32
FALLING, FALLEN = -0.2, -0.05  # a ratio whose slope and its upper end lie below these is said to tend to 0
FLAT, FLAT_LOW = -0.1, -0.3  # one whose lower end lies above the second, and whose slope above the first or may be 0
GROWING = 0.2  # the slope from which on a keeps growing
GAUSSIAN_RISE = NormalDist().pdf(1.0)  # c⁺/a over 1 - β2 under Gaussian noise
BELOW_NOISE = 0.1  # of that: what has fallen below it is not on its way to it
STEEP = -1.2  # a learning rate that falls faster than 1/t makes a converge; the rest is a margin
ENDED = 5e-3  # a learning rate that ends below this share of its peak ends at 0, in the resolution of a record


class Decision(StrEnum):
    """What a finite run says about a limit."""

    HOLDS = "holds"
    VIOLATED = "violated"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, eq=False)
class Blocks:
    """The judged part of a run in √2-spaced blocks: m + 1 edges (steps), m increments of a, mid-points t."""

    edges: Array
    a: Array
    t: Array


@dataclass(frozen=True, eq=False)
class Condition:
    """Whether a ratio tends to 0: the slope of log ratio in log t, 16 and 84 % of all pairwise slopes."""

    decision: Decision
    slope: float
    low: float
    high: float
    ratios: Array
    t: Array
    reason: str
    steps_needed: int | None = None
    """How many more steps would decide, when inconclusive and more steps can."""


@dataclass(frozen=True)
class Growth:
    """Whether a keeps growing: the slope p of log block increment in log t, as in a ~ t^p."""

    slope: float
    low: float
    high: float
    decision: Decision
    reason: str
    steps_needed: int | None = None


def block_edges(steps: ArrayLike, start: float) -> NDArray[np.intp]:
    """Return the indices into `steps` of the block boundaries T/2^{k/2} ≥ start, each at the nearest record.

    Records before `start` are never used, so that the start-up cannot leak into the first block.
    """
    recorded = np.asarray(steps, dtype=np.float64)
    usable = np.flatnonzero(recorded >= max(start, 1.0))
    if len(usable) == 0:
        return usable
    last = recorded[-1]
    count = math.floor(2 * math.log2(last / max(start, 1.0)) + 1e-9) + 1  # an edge that is `start` itself counts
    logs, targets = np.log(recorded[usable]), math.log(last) - 0.5 * math.log(2) * np.arange(count)
    right = np.clip(np.searchsorted(logs, targets), 0, len(usable) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(targets - logs[left] < logs[right] - targets, left, right)
    return np.asarray(usable[np.unique(nearest)])


def cut(steps: ArrayLike, a: ArrayLike, start: float) -> Blocks:
    """Return the blocks of a run whose cumulative a was written at `steps`."""
    index = block_edges(steps, start)
    edges = np.asarray(steps, dtype=np.float64)[index]
    return Blocks(edges, increments(a, index), np.sqrt(edges[1:] * edges[:-1]))


def increments(sums: ArrayLike, index: NDArray[np.intp]) -> Array:
    """Return the increments of a cumulative sum between the records `index`; nan beside a non-finite one."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.diff(np.asarray(sums, dtype=np.float64)[index]))


def judge(
    steps: ArrayLike,
    numerator: ArrayLike,
    a: ArrayLike,
    start: float,
    floor: float,
    *,
    relative: bool = False,
    name: str = "the ratio",
) -> Condition:
    """Decide whether numerator/a → 0, from the ratios r_j of block increments (docs/theory.md 4.2).

    HOLDS if the last ratio is at most `floor`, or if it falls: s ≤ -0.2 over all blocks and over the later half, with
    the upper end of s below -0.05, and within one standard error so does the last octave: a start-up may fall for long
    before it comes to rest. VIOLATED if it does not: the lower end lies above -0.3, and the upper at 0 or higher, or s
    above -0.1 over both (b/a: and coming to rest), and the last octave does not surely fall. Otherwise INCONCLUSIVE.
    Where a → ∞ the block ratio and the cumulative ratio have one limit (Stolz-Cesàro).

    `relative`: b/a, which has the unit of the stepsizes, so that the floor is a share of its largest block.
    A ratio of 0 has no logarithm: ratios are raised to `floor` first, which is as good as 0. A ratio that
    rises from 0 thus counts as rising, and a zero among decaying ratios as low. Blocks without a step (a
    stands still) or with a non-finite sum say nothing and are left out.
    """
    index = block_edges(steps, start)
    with np.errstate(all="ignore"):
        noise = block_noise(numerator, a, index)
    return _judge(steps, increments(numerator, index), noise, a, start, floor, relative=relative, name=name)


def _judge(
    steps: ArrayLike,
    sums: Array,
    noise: Array,
    a: ArrayLike,
    start: float,
    floor: float,
    *,
    relative: bool = False,
    name: str,
) -> Condition:
    """Decide from the blocks' sums and their relative errors; see `judge`."""
    blocks = cut(steps, a, start)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        ratios = sums / blocks.a
    usable = np.isfinite(ratios) & np.isfinite(blocks.a) & (blocks.a > 0) & (sums >= 0)
    ratios, t = ratios[usable], blocks.t[usable]
    if len(ratios) < MIN_BLOCKS:
        reason, more = _too_few(steps, start, len(ratios))
        return Condition(Decision.INCONCLUSIVE, math.nan, math.nan, math.nan, ratios, t, reason, more)
    if relative:
        floor *= float(ratios.max())
    found = trend(t, np.maximum(ratios, max(floor, np.finfo(np.float64).tiny)), noise[usable])
    seen = f"over {len(t)} blocks {name} goes from {ratios[0]:.3g} to {ratios[-1]:.3g}"
    spread = f"like t^{found.slope:.2f} [{found.low:.2f}, {found.high:.2f}]"
    needed: int | None = None
    if ratios[-1] <= floor:
        decision, reason = Decision.HOLDS, f"{seen}, which is as good as 0."
    elif max(found.slope, found.late, found.end - found.end_error) <= FALLING and found.high < FALLEN:
        decision, reason = Decision.HOLDS, f"{seen}, {spread}: it tends to 0."
    elif _stays(found, creeps=relative):
        decision, reason = Decision.VIOLATED, f"{seen}, {spread}: it does not tend to 0."
    else:
        decision, needed = Decision.INCONCLUSIVE, steps_until(_last(steps), _slope_decides(found, creeps=relative))
        reason = f"{seen}, {spread}: {_open(found)}; {_more(needed)}"
    return Condition(decision, found.slope, found.low, found.high, ratios, t, reason, needed)


def _stays(found: Trend, creeps: bool) -> bool:
    """Return whether the ratio does not tend to 0: its slope is no schedule's, and may be 0 or is near it.

    `creeps`: b/a, which under a growing v may begin to fall ever so slowly, and so must come to rest to stay where its
    slope is surely below 0. c⁺/a ends at a floor under every memory that fades (P6), and falls steeply otherwise.
    """
    ending = found.end + SURE * found.end_error < FLAT
    near = min(found.slope, found.late) >= FLAT and (not creeps or _comes_to_rest(found))
    return found.low > FLAT_LOW and not ending and (found.high >= 0 or near)


def _comes_to_rest(found: Trend) -> bool:
    """Return whether the slope of the later half is less than half of the whole: a start-up that fades."""
    return abs(found.late) < abs(found.slope) / 2


def _open(found: Trend) -> str:
    """Say what keeps a slope from being called."""
    if found.high < FALLEN or found.low > FLAT_LOW:
        return f"too slow to call, t^{found.late:.2f} over the later half, or another way at the end"
    return "too scattered to call"


def _more(needed: int | None) -> str:
    return f"another {needed} steps should tell." if needed else "more steps like these might not tell either."


def judge_variance(steps: ArrayLike, b: ArrayLike, a: ArrayLike, start: float) -> Condition:
    """Decide whether b/a → 0, b = Σ‖e g‖²: the steps' variance dies out against their length."""
    return judge(steps, b, a, start, VARIANCE_FLOOR, relative=True, name="b/a")


def judge_bias(steps: ArrayLike, c_plus: ArrayLike, a: ArrayLike, start: float) -> Condition:
    """Decide whether c⁺/a → 0, c⁺ = Σ‖max(0, e_t - e_{t-1})‖₁.

    Not c itself: every decay of the learning rate moves it (docs/theory.md 4.1, P3).
    """
    return judge(steps, c_plus, a, start, BIAS_FLOOR, name="c+/a")


def judge_rises(
    steps: ArrayLike, parts: Sequence[tuple[ArrayLike, ArrayLike]], a: ArrayLike, start: float
) -> Condition:
    """Decide the bias condition on the rises that are taken back, Σ min(rises, falls) over the parts of Δ.

    `parts` holds the cumulative rises and moves (rises and falls) of each. What rises and falls again oscillates; what
    only rises, or only falls, is a start-up on its way to rest, an annealed rate, or growth that stays. So this series
    needs little of the run to be judged, and a falling rate does not hide it. It is VIOLATED only where the series
    neither falls nor rises: a running mean that still forgets its start has few falls at first.
    """
    index = block_edges(steps, start)
    sums, rises = np.zeros(max(len(index) - 1, 0)), np.zeros(len(np.asarray(a)))
    with np.errstate(all="ignore"):
        for up, both in parts:
            grown, moved = increments(up, index), increments(both, index)
            sums += np.maximum(np.minimum(grown, moved - grown), 0.0)
            rises += np.asarray(up)
        noise = block_noise(rises, a, index)
    found = _judge(steps, sums, noise, a, start, BIAS_FLOOR, name="of c+/a, what is taken back again")
    if found.decision is Decision.VIOLATED and found.high > -FLAT_LOW:
        return replace(found, decision=Decision.INCONCLUSIVE)
    return found


def against_the_memory(condition: Condition, gap: float) -> Condition:
    """Return a bias condition that holds because c⁺/a falls, unless it is still where noise alone would leave it.

    `gap` is 1 - β2, the least of the groups. A memory that fades leaves c⁺/a = (1-β2)/4 E abs(g²/v - 1), however
    long the run (docs/theory.md 4.1, P6); on its way to there it may fall for as long as the noise grows smaller.
    """
    last = float(condition.ratios[-1]) if len(condition.ratios) else 0.0
    if condition.decision is not Decision.HOLDS or last <= BELOW_NOISE * GAUSSIAN_RISE * gap:
        return condition
    reason = (
        f"{condition.reason.rstrip('.')}; but Gaussian noise alone would leave {GAUSSIAN_RISE * gap:.2g} for ever at "
        f"this beta2, and {last:.2g} may be on its way there."
    )
    return replace(condition, decision=Decision.INCONCLUSIVE, reason=reason)


def growth(steps: ArrayLike, a: ArrayLike, start: float) -> Growth:
    """Decide whether a keeps growing (docs/theory.md 4.1, P8): in a ~ t^p the block increments go like t^p.

    HOLDS if p ≥ 0.2 over all blocks and over the later half, with its lower end above 0; VIOLATED if p, its upper end
    and the later half stay below 0.2, so that the increments fail to grow across the whole window (α/t has p = 0,
    α/t² has p = -1); INCONCLUSIVE between, as where the learning rate falls at the end only.
    """
    blocks = cut(steps, a, start)
    with np.errstate(all="ignore"):
        noise = block_noise(a, steps, block_edges(steps, start))
    usable = np.isfinite(blocks.a) & (blocks.a >= 0)
    sums, t = blocks.a[usable], blocks.t[usable]
    if len(sums) < MIN_BLOCKS:
        reason, more = _too_few(steps, start, len(sums))
        return Growth(math.nan, math.nan, math.nan, Decision.INCONCLUSIVE, reason, more)
    if sums.max() == 0:
        return Growth(-math.inf, -math.inf, -math.inf, Decision.VIOLATED, "a stands still: every stepsize is 0.")
    found = trend(t, np.maximum(sums, VARIANCE_FLOOR * float(sums.max())), noise[usable])
    goes = f"like t^{found.slope:.2f} [{found.low:.2f}, {found.high:.2f}]"
    seen = f"over {len(t)} blocks what a block adds to a goes {goes}"
    needed: int | None = None
    if min(found.slope, found.late) >= GROWING and found.low > 0:
        decision, reason = Decision.HOLDS, f"{seen}: it keeps growing."
    elif max(found.high, found.late) < GROWING:
        reason = f"over {len(t)} blocks the increments of a go {goes}: the stepsizes are dying out."
        decision = Decision.VIOLATED
    else:
        decision, needed = Decision.INCONCLUSIVE, steps_until(_last(steps), _growth_decides(found))
        reason = f"{seen}, which does not settle it."
    return Growth(found.slope, found.low, found.high, decision, reason, needed)


def annealed(steps: ArrayLike, lr: ArrayLike, start: float) -> bool:
    """Tell whether the learning rate `(records, groups)` was brought down towards the end of this run (P5).

    That is so where its log-log slope over some block of the last factor of eight is steeper than -1.2, but
    not over every block: cosine, linear-to-zero, warm-up-stable-decay and step schedules; not α/t or α/t²
    throughout.
    """
    index = block_edges(steps, start)
    rates = np.asarray(lr, dtype=np.float64)[index]
    edges = np.asarray(steps, dtype=np.float64)[index]
    if len(edges) < 3:
        return False
    return any(_falls_at_the_end(edges, column) for column in rates.T)


def _falls_at_the_end(edges: Array, lr: Array) -> bool:
    usable = np.isfinite(lr)
    logs = np.log(np.maximum(lr[usable], np.finfo(np.float64).tiny))
    slopes = np.array(
        [(y1 - y0) / math.log(t1 / t0) for (t0, y0), (t1, y1) in pairwise(zip(edges[usable], logs, strict=True))]
    )
    late = slopes[edges[usable][1:] > edges[-1] / 8 * 1.01]  # 1 %: the boundary T/8 itself may be snapped
    return bool(np.any(late < STEEP) and not np.all(slopes < STEEP))


def falling(steps: ArrayLike, lr: ArrayLike, start: float) -> bool:
    """Tell whether every learning rate of `(records, groups)` falls like a power of t over the judged blocks."""
    index = block_edges(steps, start)
    rates = np.asarray(lr, dtype=np.float64)[index]
    if len(index) <= MIN_BLOCKS or not (np.isfinite(rates) & (rates > 0)).all():
        return False
    log_t = np.log(np.asarray(steps, dtype=np.float64)[index])
    return all(theil_sen(log_t, np.log(rate))[0] <= FALLING for rate in rates.T)


def against_the_rate(condition: Condition) -> Condition:
    """Return a violated variance condition of a run whose learning rate falls: it cannot stay flat for ever.

    b/a is the learning rate times a ratio of moments of h·g and h, which are bounded for bounded gradients; ADOPT's
    clipping lets it grow until t^{1/4} exceeds every abs(g)/sqrt(v), a step that may lie far off.
    """
    reason = f"{condition.reason.rstrip('.')} yet; but the learning rate falls, and what outweighs it here is bounded."
    return replace(condition, decision=Decision.INCONCLUSIVE, reason=reason)


def judge_annealed(steps: ArrayLike, b: ArrayLike, a: ArrayLike, pace: Array, whole: Condition) -> Condition:
    """Return the variance condition of an annealed run, whose clock is that of the steps left.

    What `whole` says of the limit in t is moot: b/a is small late because the rate is. But where the rate ends at 0 and
    b/a goes to 0 with the steps left, the end of the run meets the condition: HOLDS (docs/theory.md 4.1, P5), as it
    does where the gradients vanished, which no schedule can make so small. Anything else is INCONCLUSIVE. `pace` is the
    effective learning rate at each record over its largest: a momentum that decays alone, as under Demon, ends at the
    rate itself, a tenth of what lr/(1-0.9) was, not at 0, and stays open.
    """
    if len(whole.ratios) and whole.ratios[-1] <= VARIANCE_FLOOR * whole.ratios.max():
        return replace(whole, decision=Decision.HOLDS, steps_needed=None)
    last = f"q_T = {whole.ratios[-1]:.3g}" if len(whole.ratios) else "q_T is not known"
    end = _trend_of_the_end(steps, b, a, pace)
    if end is not None and pace[-1] <= ENDED and end.slope <= FALLING and end.high < FALLEN:
        reason = (
            "finite horizon: the learning rate ends at 0, and towards the end b/a goes like (steps left)^"
            f"{-end.slope:.2f} [{-end.high:.2f}, {-end.low:.2f}], so the noise of the steps dies out with it; {last}. "
            "A longer run under the same schedule has a longer end and comes closer."
        )
        return replace(whole, decision=Decision.HOLDS, reason=reason, steps_needed=None)
    return finite_horizon(whole)


def finite_horizon(whole: Condition) -> Condition:
    """Return the variance condition of an annealed run whose end says nothing: open, whatever the ratios do."""
    last = f"q_T = {whole.ratios[-1]:.3g}" if len(whole.ratios) else "q_T is not known"
    reason = (
        "finite horizon: the learning rate is annealed towards the end of this run, so b/a is small there because "
        f"the rate is, and no limit can be read from one run; {last}. Compare q_T of runs planned for T, 2T and 4T."
    )
    return replace(whole, decision=Decision.INCONCLUSIVE, reason=reason, steps_needed=None)


def _trend_of_the_end(steps: ArrayLike, b: ArrayLike, a: ArrayLike, pace: Array) -> Trend | None:
    """Return how b/a falls as the steps left do, from where the rate last was half its peak; None if that is too short.

    √2-blocks again, down to an eighth of those steps, and what is left then as one more.
    """
    left = float(np.asarray(steps)[-1]) - np.asarray(steps, dtype=np.float64)
    begin = int(np.flatnonzero(pace > 0.5).max(initial=0))
    marks = left[begin] * 2.0 ** (-np.arange(7) / 2)
    index = np.unique([*(int(np.argmin(np.abs(left[begin:] - mark))) + begin for mark in marks), len(left) - 1])
    with np.errstate(all="ignore"):
        ratios, noise = increments(b, index) / increments(a, index), block_noise(b, a, index)
    middle = np.sqrt(left[index[:-1]] * np.maximum(left[index[1:]], left[index[:-1]] / 4))
    usable = np.isfinite(ratios) & (ratios >= 0) & (middle > 0)
    if usable.sum() < MIN_BLOCKS:
        return None
    floor = max(VARIANCE_FLOOR * float(ratios[usable].max()), np.finfo(np.float64).tiny)
    return trend(1 / middle[usable], np.maximum(ratios[usable], floor), noise[usable])


def _slope_decides(found: Trend, creeps: bool) -> Callable[[float], float]:
    """Return the chance that b/a or c⁺/a is decided after c times the steps.

    Blocks are then sums over c times as many steps, so that their noise and the spread of slopes shrink like 1/√c. The
    true slope is taken as normal about the one seen.
    """

    def chance(c: float) -> float:
        next_one = later(found, c)
        falls = min(FALLING, FALLEN - (found.high - found.slope) / math.sqrt(c))
        may_be_0 = (found.slope - found.high) / math.sqrt(c)
        near = may_be_0 if creeps and not _comes_to_rest(found) else min(FLAT, may_be_0)
        stays = max(near, FLAT_LOW + (found.slope - found.low) / math.sqrt(c))
        return next_one.cdf(falls) + 1 - next_one.cdf(stays)

    return chance


def _growth_decides(found: Trend) -> Callable[[float], float]:
    """Return the chance that the growth of a is decided after c times the steps, likewise."""

    def chance(c: float) -> float:
        next_one = later(found, c)
        grows = max(GROWING, (found.slope - found.low) / math.sqrt(c))
        dies = GROWING - (found.high - found.slope) / math.sqrt(c)
        return next_one.cdf(dies) + 1 - next_one.cdf(grows)

    return chance


def _last(steps: ArrayLike) -> int:
    return int(np.asarray(steps)[-1])


def _too_few(steps: ArrayLike, start: float, blocks: int) -> tuple[str, int]:
    """Say how far the run is from five blocks: they need T ≥ 2^{5/2} start."""
    recorded = np.asarray(steps)
    last = int(recorded[-1]) if len(recorded) else 0
    missing = math.ceil(start * 2 ** (MIN_BLOCKS / 2)) - last
    needed = missing if missing > 0 else max(last, 1)
    return (
        f"there are {blocks} usable blocks of the {MIN_BLOCKS} that a decision needs after step {start:.0f}; "
        f"another {needed} steps would give them."
    ), needed
