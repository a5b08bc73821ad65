"""Decide from a finite run whether b/a → 0 (variance), c⁺/a → 0 (bias), and whether a grows.

Series in, decisions out: no torch, no monitor. Everything is read from increments over √2-spaced blocks,
because cumulative sums remember the start-up for ever (docs/theory.md 4.1, P1). The thresholds are those of
4.2; they were fixed once and then checked on 33 (problem, method, schedule) cells (4.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

MIN_BLOCKS = 5
VARIANCE_FLOOR = 1e-10  # relative to the largest block: gradients that vanished, not a schedule
BIAS_FLOOR = 1e-12  # absolute, as c⁺/a has no unit: below it lies only the rounding of e
FALLING = -0.2  # a ratio with this slope is said to tend to 0, and so is a learning rate
STEEP = -1.2  # a learning rate that falls faster than 1/t makes a converge; the rest is a margin


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


def theil_sen(log_t: ArrayLike, log_ratio: ArrayLike) -> tuple[float, float, float]:
    """Return the median of all pairwise slopes and their 16 and 84 % quantiles."""
    x, y = np.asarray(log_t, dtype=np.float64), np.asarray(log_ratio, dtype=np.float64)
    first, second = np.triu_indices(len(x), k=1)
    slopes = (y[second] - y[first]) / (x[second] - x[first])
    low, middle, high = np.quantile(slopes, (0.16, 0.5, 0.84))
    return float(middle), float(low), float(high)


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

    HOLDS if the last ratio is at most `floor`, or s ≤ -0.2 with p84 < -0.05; VIOLATED if s ≥ -0.1 with p16 >
    -0.3; otherwise INCONCLUSIVE. Where a → ∞ the block ratio and the cumulative ratio have one limit
    (Stolz-Cesàro).

    A ratio of 0 has no logarithm: ratios are raised to `floor` first, which is as good as 0. A ratio that
    rises from 0 thus counts as rising, and a zero among decaying ratios as low. Blocks without a step (a
    stands still) or with a non-finite sum say nothing and are left out.
    """
    blocks = cut(steps, a, start)
    sums = increments(numerator, block_edges(steps, start))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        ratios = sums / blocks.a
    usable = np.isfinite(ratios) & np.isfinite(blocks.a) & (blocks.a > 0) & (sums >= 0)
    ratios, t = ratios[usable], blocks.t[usable]
    if len(ratios) < MIN_BLOCKS:
        reason, needed = _too_few(steps, start, len(ratios))
        return Condition(Decision.INCONCLUSIVE, math.nan, math.nan, math.nan, ratios, t, reason, needed)
    if relative:
        floor *= float(ratios.max())
    lifted = np.maximum(ratios, max(floor, np.finfo(np.float64).tiny))
    slope, low, high = theil_sen(np.log(t), np.log(lifted))
    seen = f"over {len(t)} blocks {name} goes from {ratios[0]:.3g} to {ratios[-1]:.3g}"
    spread = f"like t^{slope:.2f} [{low:.2f}, {high:.2f}]"
    if ratios[-1] <= floor:
        return Condition(Decision.HOLDS, slope, low, high, ratios, t, f"{seen}, which is as good as 0.")
    if slope <= FALLING and high < -0.05:
        return Condition(Decision.HOLDS, slope, low, high, ratios, t, f"{seen}, {spread}: it tends to 0.")
    if slope >= -0.1 and low > -0.3:
        reason = f"{seen}, {spread}: it does not tend to 0."
        return Condition(Decision.VIOLATED, slope, low, high, ratios, t, reason)
    needed = _horizon(steps)
    reason = f"{seen}, {spread}: too slow or too scattered to call; another {needed} steps give two more blocks."
    return Condition(Decision.INCONCLUSIVE, slope, low, high, ratios, t, reason, needed)


def judge_variance(steps: ArrayLike, b: ArrayLike, a: ArrayLike, start: float) -> Condition:
    """Decide whether b/a → 0, b = Σ‖e g‖²: the steps' variance dies out against their length."""
    return judge(steps, b, a, start, VARIANCE_FLOOR, relative=True, name="b/a")


def judge_bias(steps: ArrayLike, c_plus: ArrayLike, a: ArrayLike, start: float) -> Condition:
    """Decide whether c⁺/a → 0, c⁺ = Σ‖max(0, e_t - e_{t-1})‖₁.

    Not c itself: every decay of the learning rate moves it (docs/theory.md 4.1, P3).
    """
    return judge(steps, c_plus, a, start, BIAS_FLOOR, name="c+/a")


def growth(steps: ArrayLike, a: ArrayLike, start: float) -> Growth:
    """Decide whether a keeps growing (docs/theory.md 4.1, P8): in a ~ t^p the block increments go like t^p.

    HOLDS if p ≥ 0.2; VIOLATED if p and p84 stay below 0.2, so that the increments fail to grow across the
    whole window (α/t has p = 0, α/t² has p = -1); INCONCLUSIVE between, as where the learning rate falls at
    the end only.
    """
    blocks = cut(steps, a, start)
    usable = np.isfinite(blocks.a) & (blocks.a >= 0)
    sums, t = blocks.a[usable], blocks.t[usable]
    if len(sums) < MIN_BLOCKS:
        reason, needed = _too_few(steps, start, len(sums))
        return Growth(math.nan, math.nan, math.nan, Decision.INCONCLUSIVE, reason, needed)
    if sums.max() == 0:
        return Growth(-math.inf, -math.inf, -math.inf, Decision.VIOLATED, "a stands still: every stepsize is 0.")
    floor = VARIANCE_FLOOR * float(sums.max())
    slope, low, high = theil_sen(np.log(t), np.log(np.maximum(sums, floor)))
    seen = f"over {len(t)} blocks what a block adds to a goes like t^{slope:.2f} [{low:.2f}, {high:.2f}]"
    if slope >= 0.2 and low > 0:
        return Growth(slope, low, high, Decision.HOLDS, f"{seen}: it keeps growing.")
    if high < 0.2:
        reason = f"over {len(t)} blocks the increments of a go like t^{slope:.2f} [{low:.2f}, {high:.2f}]"
        return Growth(slope, low, high, Decision.VIOLATED, f"{reason}: the stepsizes are dying out.")
    needed = _horizon(steps)
    return Growth(slope, low, high, Decision.INCONCLUSIVE, f"{seen}, which does not settle it.", needed)


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


def finite_horizon(condition: Condition) -> Condition:
    """Return the variance condition of an annealed run: not testable inside it, whatever the ratios do."""
    last = f"q_T = {condition.ratios[-1]:.3g}" if len(condition.ratios) else "q_T is not known"
    reason = (
        "finite horizon: the learning rate is annealed towards the end of this run, so b/a is small there because "
        f"the rate is, and no limit can be read from one run; {last}. Compare q_T of runs planned for T, 2T and 4T."
    )
    return replace(condition, decision=Decision.INCONCLUSIVE, reason=reason, steps_needed=None)


def _horizon(steps: ArrayLike) -> int:
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
