"""What other rules would have had on the gradients of this run: the same decisions, side by side (no torch).

The stream is that of the run that was made. Another rule would have gone elsewhere and met other gradients, so an
answer says what would have stood in the conditions here, not where the run would have ended. Each rule is judged after
its own memory is over, as the run itself is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .conditions import (
    MIN_BLOCKS,
    Condition,
    Decision,
    against_the_rate,
    annealed,
    falling,
    finite_horizon,
    growth,
    judge_bias,
    judge_variance,
)
from .drift import Harm, judge_harm, undecided
from .effective_rate import effective_rates
from .pace import even_total
from .trace import SUMMED, Trace

A, B, C_PLUS = (SUMMED.index(name) for name in ("a", "b", "c_plus"))


@dataclass(frozen=True, eq=False)
class Alternative:
    """One rule's decisions on the run's own gradients; the ratios are those of the last judged block."""

    rule: str
    start: int
    """The first step judged: later than the run's own where the rule remembers longer."""
    b_over_a: float
    c_over_a: float
    variance: Condition
    bias: Condition
    certified: bool
    """Whether both conditions hold and a keeps growing."""
    harm: Harm

    def __repr__(self) -> str:
        """Return the decisions in a line, so that a tuple of them can be read."""
        return (
            f"<{self.rule}: b/a {self.b_over_a:.2g} {self.variance.decision}, c+/a {self.c_over_a:.2g} "
            f"{self.bias.decision}, rho {self.harm.rho:.2g} {self.harm.decision}>"
        )

    @property
    def too_short(self) -> bool:
        """Whether the run is over before this rule can be judged."""
        return min(len(self.variance.ratios), len(self.bias.ratios)) < MIN_BLOCKS


def alternatives(trace: Trace, start: int) -> tuple[Alternative, ...]:
    """Judge every imagined rule from step `start` on, or later; the first is the run's own, empty where none is."""
    record = trace.what_if
    if record is None or len(trace.steps) == 0:
        return ()
    memories = [0.0, *_memories(trace, record.rules[1:])]
    starts = [max(start, math.ceil(10 * memory - 1e-6)) for memory in memories]
    return tuple(_judge(trace, r, name, starts[r]) for r, name in enumerate(record.rules))


def _memories(trace: Trace, rules: Sequence[str]) -> list[float]:
    """Return 1/(1-β2) of each rule; where its name gives no beta2 it is the run's own at the beginning."""
    from .imagined import imagined  # brings a compiler along, which a record without such rules does not need

    own = trace.groups.get("beta2", np.empty((0, 0)))[:1, :1]
    beta2 = float(own[0, 0]) if own.size else math.nan
    return [1 / (1 - imagined(name, beta2).beta2) for name in rules]


def _judge(trace: Trace, r: int, name: str, start: int) -> Alternative:
    record = trace.what_if
    assert record is not None
    sums = record.sums[:, r]
    a = np.nan_to_num(sums[:, A])
    variance = judge_variance(trace.steps, np.nan_to_num(sums[:, B]), a, start)
    variance = _under_the_schedule(trace, variance, start)
    bias = judge_bias(trace.steps, np.nan_to_num(sums[:, C_PLUS]), a, start)
    decisions = variance.decision, bias.decision, growth(trace.steps, a, start).decision
    if record.grams is None:
        last = int(trace.steps[-1])
        harm = undecided("there are too few stretches yet", last, last)
    else:
        dd, dg, gg = even_total(trace, record.grams[r], record.first_step, record.last_step)
        harm = judge_harm(dd, dg, gg, record.first_step, record.last_step)
    certified = all(decision is Decision.HOLDS for decision in decisions)
    return Alternative(name, start, _last(variance), _last(bias), variance, bias, certified, harm)


def _under_the_schedule(trace: Trace, variance: Condition, start: int) -> Condition:
    """Return the variance condition with regard to the learning rate's course.

    Under an annealed rate it stays open: c⁺/a falls with the rate then, so that both would seem to hold.
    """
    effective = effective_rates(trace)
    if not effective.size or len(variance.ratios) < MIN_BLOCKS:
        return variance
    if annealed(trace.steps, effective, start):
        return finite_horizon(variance)
    if variance.decision is Decision.VIOLATED and falling(trace.steps, effective, start):
        return against_the_rate(variance)
    return variance


def better(found: tuple[Alternative, ...]) -> tuple[Alternative, ...]:
    """Return the rules under which the bias condition would hold, where it is violated as the run was made.

    A rule whose c⁺/a tends to 0 from above the run's own is no remedy: under noise that rule has a level of its own,
    0.242 (1-β2), and may just be on the way down to it.
    """
    if not found or found[0].bias.decision is not Decision.VIOLATED:
        return ()
    own = found[0].c_over_a
    return tuple(other for other in found[1:] if other.bias.decision is Decision.HOLDS and other.c_over_a < own)


def _last(condition: Condition) -> float:
    return float(condition.ratios[-1]) if len(condition.ratios) else math.nan
