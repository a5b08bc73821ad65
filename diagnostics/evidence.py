"""Evidence: from a trace to everything that is measured and decided about it, before any word is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .conditions import (
    MIN_BLOCKS,
    Condition,
    Decision,
    Growth,
    against_the_memory,
    against_the_rate,
    annealed,
    block_edges,
    falling,
    growth,
    increments,
    judge_annealed,
    judge_bias,
    judge_rises,
    judge_variance,
)
from .drift import DORMANT, Harm, judge_harm, undecided
from .effective_rate import effective_rates
from .instability import broken
from .pace import at_an_even_rate, even_products, pace
from .skewness import Skewness, skewness
from .trace import Trace
from .what_if import Alternative, alternatives

Array = NDArray[np.float64]

EARLY = 1.75  # memories; with as many a run of ten has the five blocks that a decision needs
GRADIENTS_ALIVE = 1e-3  # ‖g‖² down a thousandfold: the run has come to rest rather than stalled


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that was measured and decided about one run."""

    trace: Trace
    start: int
    variance: Condition
    bias: Condition
    growth: Growth
    harm: Harm
    annealed: bool
    gradients_left: float
    """Mean ‖g‖² of the last judged block over that of the largest one; nan if not known."""
    broken: tuple[str, tuple[str, ...]] | None

    @property
    def too_short(self) -> bool:
        """Whether there are too few blocks for any decision."""
        return min(len(self.variance.ratios), len(self.bias.ratios)) < MIN_BLOCKS

    @property
    def died_out(self) -> bool:
        """Whether a converges by a law of the stepsizes, not by annealing at the end of a planned run."""
        return self.growth.decision is Decision.VIOLATED and not self.annealed

    @property
    def stalled(self) -> bool:
        """Whether the stepsizes died out before the gradients did."""
        return self.died_out and not self.gradients_left < GRADIENTS_ALIVE

    @property
    def certified(self) -> bool:
        """Whether both conditions hold and a grows, and a is that of coordinates that learn."""
        return not self.dormant and all(
            check.decision is Decision.HOLDS for check in (self.variance, self.bias, self.growth)
        )

    @property
    def first_row(self) -> int:
        """The index of the first judged record; 0 where nothing can be judged."""
        row = int(np.searchsorted(self.trace.steps, self.start))
        return row if row < len(self.trace.steps) - 1 else 0

    @property
    def window(self) -> tuple[int, int]:
        """The first and the last judged step."""
        steps = self.trace.steps
        return (int(steps[self.first_row]), int(steps[-1])) if len(steps) else (0, 0)

    def increment(self, name: str) -> Array:
        """Return how much a cumulative column grew over the judged window, `(tensors,)`; 0 where unknown."""
        column = self.trace.column(name)
        if len(column) == 0:
            return np.zeros(len(self.trace.tensors))
        before = column[self.first_row] if self.first_row else np.zeros(column.shape[1])
        with np.errstate(invalid="ignore"):
            return np.asarray(np.nan_to_num(column[-1] - before, nan=0.0, posinf=0.0, neginf=0.0))

    @cached_property
    def spread(self) -> Array:
        """The mean stepsize over the one where the gradient is, sqrt(b/‖g‖²), `(tensors,)`; 0 where unknown.

        It is the median over the judged records of what lies between them: in a run whose gradients fall, early steps
        have the gradients and late ones the stepsizes.
        """
        if len(self.trace.steps) < 2:
            return np.zeros(len(self.trace.tensors))
        names = ("a", "active", "b", "g2")
        with np.errstate(all="ignore"):
            a, active, b, g2 = (np.diff(self.trace.column(name)[self.first_row :], axis=0) for name in names)
            spread = a / active / np.sqrt(b / g2)
        return np.asarray(np.median(np.where(np.isfinite(spread), spread, 0.0), axis=0))

    @cached_property
    def skewness(self) -> tuple[Skewness, ...]:
        """S and β2* of the run and of its tensors."""
        return skewness(self.trace)

    @cached_property
    def what_if(self) -> tuple[Alternative, ...]:
        """What other rules would have had on the same gradients."""
        return alternatives(self.trace, self.start)

    @property
    def dormant(self) -> bool:
        """Whether coordinates with next to no gradient make up most of a, so that b/a and c+/a speak of them."""
        share = self.increment("a") / max(float(self.increment("a").max(initial=0.0)), 1e-300)
        return bool(share[self.spread > DORMANT].sum() > 0.5 * share.sum())


def gather(trace: Trace) -> Evidence:
    """Measure and decide everything about a trace."""
    start = judged_start(trace)
    blind = _blind(trace)
    if blind:
        empty = np.empty(0)
        variance = bias = Condition(Decision.INCONCLUSIVE, math.nan, math.nan, math.nan, empty, empty, blind)
        grows = Growth(math.nan, math.nan, math.nan, Decision.INCONCLUSIVE, blind)
    else:
        a, b = trace.total("a"), trace.total("b")
        variance = judge_variance(trace.steps, b, a, start)
        bias = judge_bias(trace.steps, trace.total("c_plus"), a, start)
        grows = growth(trace.steps, a, start)
    effective = effective_rates(trace)  # a momentum that decays anneals as well
    planned = False
    if not blind and effective.size and len(variance.ratios) < MIN_BLOCKS:  # a rate has its end before there are blocks
        planned = annealed(trace.steps, effective, min(start, trace.steps[-1] / 16))
    elif not blind and effective.size:
        planned = annealed(trace.steps, effective, start)
        if planned:
            variance = judge_annealed(trace.steps, b, a, pace(effective), variance)
            # a is the sum of the rate itself, without what a momentum makes of it.
            grows = growth(trace.steps, at_an_even_rate(a, pace(trace.groups["lr"])), start)
        elif variance.decision is Decision.VIOLATED and falling(trace.steps, effective, start):
            variance = against_the_rate(variance)
    if not blind:
        variance, bias = _with_early_rises(trace, a, variance, bias, planned)
        bias = against_the_memory(bias, _least_gap(trace))
    return Evidence(
        trace=trace,
        start=start,
        variance=variance,
        bias=bias,
        growth=grows,
        harm=undecided(blind) if blind else _harm(trace),
        annealed=planned,
        gradients_left=_gradients_left(trace, start),
        broken=broken(trace, start),
    )


def _with_early_rises(
    trace: Trace, a: Array, variance: Condition, bias: Condition, planned: bool
) -> tuple[Condition, Condition]:
    """Return both conditions after the rises that are taken back were judged, too.

    They can violate the bias condition where c⁺/a does not say so: the run is too short for c⁺/a to have forgotten its
    start-up, or an annealed rate outweighs its rises. A start-up has few falls, so that they are judged from `EARLY`
    memories on. In an annealed run c⁺/a falls for that reason alone, and only they can say that the condition holds,
    after all the memories that are asked of c⁺/a, for a start-up that fades is no merit either.
    """
    start = judged_start(trace, memories=EARLY)
    parts = [(trace.total(f"rise_{part}"), trace.total(f"c_{part}")) for part in ("lr", "bias", "v")]
    if any(up[-1] > moves[-1] * (1 + 1e-9) for up, moves in parts):  # a record that does not tell the parts apart
        return variance, bias
    rises = judge_rises(trace.steps, parts, a, start)
    if bias.decision is Decision.VIOLATED:
        return variance, bias
    if rises.decision is Decision.VIOLATED:
        if len(variance.ratios) < MIN_BLOCKS:  # the ratios of a start-up decide nothing, but there is something to see
            early = judge_variance(trace.steps, trace.total("b"), a, start)
            variance = replace(variance, ratios=early.ratios, t=early.t)
        return variance, rises
    return variance, judge_rises(trace.steps, parts, a, judged_start(trace)) if planned else bias


def _least_gap(trace: Trace) -> float:
    """Return the least 1 - β2 of the groups that have one; inf without any, which leaves every ratio below."""
    beta2 = trace.groups.get("beta2")
    known = np.empty(0) if beta2 is None else beta2[-1][np.isfinite(beta2[-1])]
    return float(1 - known.max()) if len(known) else math.inf


def judged_start(trace: Trace, memories: float = 10.0) -> int:
    """Return the first judged step: max(10/(1-β2), 10/(1-β1), the end of warm-up, 0.02 T), at least 1.

    10/(1-β) is ten memories of an average that fades by β; ask for fewer where its start-up does no harm.
    """
    if len(trace.steps) == 0:
        return 1
    candidates = [1.0, 0.02 * float(trace.steps[-1]), _warm_up_end(trace)]
    for name in ("beta1", "beta2"):
        values = trace.groups.get(name)
        if values is not None and len(values):
            candidates += [memories / (1 - beta) for beta in values[-1] if beta < 1]  # nan: no such decay
    return math.ceil(max(candidates) - 1e-6)  # 10/(1-0.9) is 100 and a rounding error


def _warm_up_end(trace: Trace) -> float:
    """Return the first step at which a learning rate that rose is at its maximum."""
    lr = trace.groups.get("lr")
    ends = [0.0]
    for rate in np.empty((0, 0)) if lr is None else lr.T:
        finite = rate[np.isfinite(rate)]
        if len(finite) and finite.max() > finite[0] * (1 + 1e-6):  # more than a rounding of a constant rate
            ends.append(float(trace.steps[np.argmax(rate >= finite.max() * (1 - 1e-6))]))
    return max(ends)


def _blind(trace: Trace) -> str:
    """Return why no stepsize was seen at all; empty if some was."""
    if len(trace.steps) == 0:
        return "nothing has been recorded: the optimizer has not stepped while it was watched"
    if trace.tensors and all(tensor.formula is None for tensor in trace.tensors):
        return "no tensor has a readable elementwise stepsize, so there is no a, b or c to judge"
    if not np.any(np.nan_to_num(trace.column("a")[-1]) > 0):
        return "no step with a stepsize has been recorded"
    return ""


def _harm(trace: Trace) -> Harm:
    drift = trace.drift
    if drift is None:
        last = int(trace.steps[-1])
        return undecided("there are too few stretches yet", last, last)
    dd, dg, gg = (np.nansum(gram, axis=0) for gram in even_products(trace, drift))
    return judge_harm(dd, dg, gg, drift.first_step, drift.last_step)


def _gradients_left(trace: Trace, start: int) -> float:
    """Return the mean ‖g‖² of the last block over that of the largest block."""
    index = block_edges(trace.steps, start)
    if len(index) < 2:
        return math.nan
    rate = increments(trace.total("g2"), index) / np.diff(trace.steps[index])
    return float(rate[-1] / rate.max()) if np.isfinite(rate).all() and rate.max() > 0 else math.nan
