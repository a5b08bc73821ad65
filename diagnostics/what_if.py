"""What other rules would have had on the gradients of this run: the same decisions, side by side (no torch).

The stream is that of the run that was made. Another rule would have gone elsewhere and met other gradients, so an
answer says what would have stood in the conditions here, not where the run would have ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .conditions import Condition, Decision, judge_bias, judge_variance
from .drift import Harm, judge_harm, undecided
from .trace import SUMMED, Trace

A, B, C_PLUS = (SUMMED.index(name) for name in ("a", "b", "c_plus"))


@dataclass(frozen=True, eq=False)
class Alternative:
    """One rule's decisions on the run's own gradients; the ratios are those of the last judged block."""

    rule: str
    b_over_a: float
    c_over_a: float
    variance: Condition
    bias: Condition
    harm: Harm


def alternatives(trace: Trace, start: int) -> tuple[Alternative, ...]:
    """Judge every imagined rule from step `start` on; the first is the run's own, empty where none was imagined."""
    record = trace.what_if
    if record is None or len(trace.steps) == 0:
        return ()
    return tuple(_judge(trace, r, name, start) for r, name in enumerate(record.rules))


def _judge(trace: Trace, r: int, name: str, start: int) -> Alternative:
    record = trace.what_if
    assert record is not None
    sums = record.sums[:, r]
    a = np.nan_to_num(sums[:, A])
    variance = judge_variance(trace.steps, np.nan_to_num(sums[:, B]), a, start)
    bias = judge_bias(trace.steps, np.nan_to_num(sums[:, C_PLUS]), a, start)
    if record.grams is None:
        last = int(trace.steps[-1])
        harm = undecided("there are too few stretches yet", last, last)
    else:
        dd, dg, gg = record.grams[r]
        harm = judge_harm(dd, dg, gg, record.first_step, record.last_step)
    return Alternative(name, _last(variance), _last(bias), variance, bias, harm)


def better(found: tuple[Alternative, ...]) -> tuple[Alternative, ...]:
    """Return the rules under which the bias condition would hold, where it is violated as the run was made."""
    if not found or found[0].bias.decision is not Decision.VIOLATED:
        return ()
    return tuple(other for other in found[1:] if other.bias.decision is Decision.HOLDS)


def _last(condition: Condition) -> float:
    return float(condition.ratios[-1]) if len(condition.ratios) else math.nan
