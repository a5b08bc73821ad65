"""What limits a run: five things that can hold it back, each as the share that it takes (docs/limits.md; no torch).

    precision   of the stepsizes, those set by eps or by a number format and not by the gradient
    stepsize    of the stepsize, what it lost in the last doubling of the run
    bias        of the intended descent, what the steps do not make: 1 - ρ
    noise       of what the gradients push, what is not slope: 1 - 1/(1 + τ/W); at the edge it may be swing instead
    curvature   of the steps that the edge of stability allows, what is taken already; `Monitor.edge` measures it

A share of 0 holds nothing back, one of 1 leaves nothing. The run is read in stages that end at the newest step and are
each twice as long as the one before; the last is the half of the run over which the drift test works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby, pairwise

from .conditions import VARIANCE_FLOOR
from .drift import no_descent
from .evidence import GRADIENTS_ALIVE
from .instability import broken
from .limit_facts import facts_of_stages, facts_of_tensors, stage_edges
from .trace import Trace


class Limit(StrEnum):
    """What holds a run back; the first five are measured as shares."""

    PRECISION = "precision"
    STEPSIZE = "stepsize"
    BIAS = "bias"
    NOISE = "noise"
    CURVATURE = "curvature"
    BROKEN = "broken"
    REST = "at rest"
    NOTHING = "nothing seen"
    UNKNOWN = "not measured"


CAUSES = (Limit.PRECISION, Limit.STEPSIZE, Limit.BIAS, Limit.NOISE, Limit.CURVATURE)
FROM = {cause: 0.5 for cause in CAUSES} | {Limit.STEPSIZE: 1.0 - 2.0**-0.8}
"""A cause limits from this share on: the larger half. A stepsize that falls like t^-0.8 or faster makes a ~ t^0.2 or
slower, where the verdict calls it dying; that is a loss of 43 % in a doubling."""
AT_EDGE = 0.9
"""Beyond this ratio a run that hovers swings between walls, with noise or without."""


@dataclass(frozen=True)
class Stage:
    """A stage of the run, or one tensor in the last stage: the share of each cause, NaN where it was not measured."""

    name: str
    first: int
    last: int
    shares: Mapping[Limit, float]
    limit: Limit
    facts: Mapping[str, float]
    """The numbers behind the shares, see `limit_facts.py`."""


@dataclass(frozen=True)
class Limits:
    """What limits a run, stage by stage, and each tensor now."""

    stages: tuple[Stage, ...]
    """The oldest first; the last is the run as it stands."""
    tensors: tuple[Stage, ...]
    now: str
    """What limits the run as it stands, in a sentence or two with numbers."""
    before: str
    """What did so earlier; empty where it was the same."""

    @property
    def limit(self) -> Limit:
        """What limits the run as it stands."""
        return self.stages[-1].limit if self.stages else Limit.UNKNOWN

    def __str__(self) -> str:
        """Return both sentences."""
        return f"{self.now} {self.before}".strip()


def limits(trace: Trace) -> Limits:
    """Measure what holds a run back, over time and by tensor, and say what does so now."""
    edges = stage_edges(trace)
    if len(edges) < 2:
        return Limits((), (), "Too little is recorded to tell what limits this run.", "")
    spans = [(int(trace.steps[begin]) + 1, int(trace.steps[end])) for begin, end in pairwise(edges)]
    facts = facts_of_stages(trace, edges)
    stages = [_judged("the whole run", *stage) for stage in zip(spans, facts, strict=True)]
    common = _swings(facts[-1])
    each = zip(trace.tensors, facts_of_tensors(trace, edges), strict=True)
    tensors = [_judged(tensor.name, spans[-1], own | common) for tensor, own in each]
    wreck = broken(trace, spans[-1][0])
    if wreck:
        stages[-1] = replace(stages[-1], limit=Limit.BROKEN)
    now = (
        f"The run broke. {wreck[0]}"
        if wreck
        else f"{TITLES[stages[-1].limit]} {WORDS[stages[-1].limit](stages[-1].facts)}"
    )
    return Limits(tuple(stages), tuple(tensors), now, _before(stages))


def shares_of(facts: Mapping[str, float]) -> dict[Limit, float]:
    """Return the share of each cause, in [0, 1], from the numbers that were measured; NaN without them."""
    nan = math.nan
    raw = {
        Limit.PRECISION: max((facts[name] for name in COARSE if name in facts), default=nan),
        Limit.STEPSIZE: 1.0 - facts.get("stepsize left", nan),
        Limit.BIAS: 1.0 - facts.get("rho", nan),
        Limit.NOISE: 1.0 - facts.get("slope", nan),
        Limit.CURVATURE: facts.get("edge", nan),
    }
    if raw[Limit.CURVATURE] >= AT_EDGE and raw[Limit.NOISE] >= FROM[Limit.NOISE]:
        raw[Limit.NOISE] = nan  # steps that swing between walls push to and fro as noise does: nobody can tell
    return {cause: share if math.isnan(share) else min(max(share, 0.0), 1.0) for cause, share in raw.items()}


def decide(shares: Mapping[Limit, float], facts: Mapping[str, float]) -> Limit:
    """Return what limits; what makes the others moot comes first.

    Numbers that are too coarse spoil every other answer. A stepsize that dies ends the run whatever its direction.
    Steps in the wrong direction gain nothing from a better average. ρ counts only where its interval excludes 1.
    """
    over = {cause: shares[cause] >= FROM[cause] for cause in CAUSES}  # not so for NaN
    lost = "climbs" in facts or facts.get("rho high", math.inf) < 1
    order = (
        (over[Limit.PRECISION], Limit.PRECISION),
        (_at_rest(facts), Limit.REST),
        (over[Limit.STEPSIZE], Limit.STEPSIZE),
        (over[Limit.BIAS] and lost, Limit.BIAS),
        (shares[Limit.CURVATURE] >= AT_EDGE, Limit.CURVATURE),
        (over[Limit.NOISE], Limit.NOISE),
        (over[Limit.CURVATURE], Limit.CURVATURE),
        (math.isnan(shares[Limit.NOISE]), Limit.UNKNOWN),
    )
    return next((limit for met, limit in order if met), Limit.NOTHING)


def _at_rest(facts: Mapping[str, float]) -> bool:
    """Return whether the gradients have vanished, or have nearly and keep halving: a ball or a cycle keeps its size."""
    left = facts.get("gradients left", 1.0)
    return left < VARIANCE_FLOOR or (left < GRADIENTS_ALIVE and facts.get("gradients fell", 1.0) < 0.5)


def _swings(facts: Mapping[str, float]) -> dict[str, float]:
    """Return the edge of stability where the run sits at it: what hovers in any tensor may then be its swing."""
    return {"edge": facts["edge"]} if facts.get("edge", 0.0) >= AT_EDGE else {}


def _judged(name: str, span: tuple[int, int], facts: Mapping[str, float]) -> Stage:
    shares = shares_of(facts)
    return Stage(name, *span, shares, decide(shares, facts), facts)


# --- words -----------------------------------------------------------------------------------------------------------

COARSE = {
    "eps": "eps sets {:.0%} of the stepsizes: there the method is SGD with momentum at the rate lr/eps.",
    "frozen": "The second moment of {:.0%} of the coordinates cannot decay: beta2 is too near 1 for the number format "
    "that it is kept in, so the stepsizes cannot rise again.",
    "underflow": "In {:.0%} of the coordinates the square of the gradient is 0 in the number format of the second "
    "moment: they do not move.",
    "swallowed": "{:.0%} of the steps are too small for the number format of the weights and change nothing.",
}


def _precision(facts: Mapping[str, float]) -> str:
    found = sorted((-facts.get(name, 0.0), name) for name in COARSE)
    return " ".join(COARSE[name].format(-share) for share, name in found if -share >= FROM[Limit.PRECISION])


def _stepsize(facts: Mapping[str, float]) -> str:
    left, rate = facts["stepsize left"], facts.get("rate left", math.nan)
    schedule = f" The learning rate shrank to {rate:.0%}." if rate < 1 - 1e-6 else ""
    moment = " It is the second moment that grew." if left < 0.9 * rate else ""
    return f"In the last doubling of the run the stepsizes shrank to {left:.0%}.{schedule}{moment}"


def _bias(facts: Mapping[str, float]) -> str:
    rho, interval = facts["rho"], (facts["rho low"], facts["rho high"])
    measured = f"rho = {rho:.2g} [{interval[0]:.2g}, {interval[1]:.2g}]"
    if no_descent(interval):
        return f"No descent is left: {measured}, next to none of what the mean gradient offers to these stepsizes."
    if "climbs" in facts:
        return f"The steps go against the mean gradient: {measured}."
    return f"The steps make {rho:.0%} of the descent that the mean gradient offers to these stepsizes: {measured}."


def _noise(facts: Mapping[str, float]) -> str:
    if "noise steps" not in facts:
        return f"Slope makes {facts['slope']:.0%} of what the gradients push, the rest is noise."
    if "hidden" in facts:
        return (
            "Over the last half of the run no slope stands out of it (noise alone would show as much in "
            f"{facts['hidden']:.0%} of cases): the run hovers in a ball of noise or on a cycle, or descends too slowly "
            f"to be seen yet.{'' if 'edge' in facts else CYCLE}"
        )
    return (
        f"Over the last half of the run slope makes {facts['slope']:.0%} of what the gradients push; it takes "
        f"{_about(facts['noise steps'])} steps for it to push as far as the noise does."
    )


CYCLE = " Gradients without noise that only swing look alike; `monitor.edge(closure)` would tell."


def _about(steps: float) -> str:
    """Return a number of steps with two digits that matter."""
    return f"{float(f'{steps:.2g}'):.0f}"


def _of_edge(edge: float) -> str:
    """Return a ratio to the edge of stability in words."""
    return f"{edge:.0%} of the edge of stability" if edge < 2 else f"{edge:.3g} times the edge of stability"


def _curvature(facts: Mapping[str, float]) -> str:
    edge = facts["edge"]
    if edge >= AT_EDGE:
        return f"The steps are at {_of_edge(edge)}: longer ones swing out."
    return f"The steps are at {_of_edge(edge)}: less than twice as long would be too long."


def _rest(facts: Mapping[str, float]) -> str:
    return f"Squared gradients are down to {facts['gradients left']:.1g} of their largest: little is left to descend."


def _nothing(facts: Mapping[str, float]) -> str:
    told = f"Slope makes {facts['slope']:.0%} of what the gradients push"
    made = f", and the steps make {facts['rho']:.0%} of its descent" if "rho" in facts else ""
    room = (
        f" At {_of_edge(facts['edge'])} there is room for a larger learning rate."
        if "edge" in facts
        else " Whether there is room for a larger learning rate, `monitor.edge(closure)` would tell."
    )
    steady = facts.get("rate left", 1.0) > 0.99
    noise = " What the noise costs, a rate that falls would tell." if facts["slope"] < NOISY and steady else ""
    return f"{told}{made}.{room}{noise}"


def _unknown(_: Mapping[str, float]) -> str:
    return (
        "The slope is not told from the noise yet; that takes sixteen steps, and a tensor whose stepsize can be read."
    )


TITLES = {
    Limit.PRECISION: "Precision limits this run.",
    Limit.STEPSIZE: "The stepsizes limit this run.",
    Limit.BIAS: "Bias limits this run.",
    Limit.NOISE: "Noise limits this run.",
    Limit.CURVATURE: "Curvature limits this run.",
    Limit.REST: "This run is at rest.",
    Limit.NOTHING: "Nothing that is measured holds this run back.",
    Limit.UNKNOWN: "What limits this run is not measured.",
}
NOISY = 0.8
"""Below this share of slope, noise is worth a word where nothing limits a run."""
EARLIER = {Limit.NOTHING: "no limit was seen"}
WORDS: dict[Limit, Callable[[Mapping[str, float]], str]] = {
    Limit.PRECISION: _precision,
    Limit.STEPSIZE: _stepsize,
    Limit.BIAS: _bias,
    Limit.NOISE: _noise,
    Limit.CURVATURE: _curvature,
    Limit.REST: _rest,
    Limit.NOTHING: _nothing,
    Limit.UNKNOWN: _unknown,
}


def _before(stages: Sequence[Stage]) -> str:
    """Return what limited the run earlier, the newest first, in one sentence."""
    runs = [(limit, list(group)) for limit, group in groupby(stages, key=lambda stage: stage.limit)]
    known = [(limit, group) for limit, group in reversed(runs[:-1]) if limit is not Limit.UNKNOWN]
    told = [f"{EARLIER.get(limit, limit)} (steps {group[0].first} to {group[-1].last})" for limit, group in known]
    return f"Before: {', '.join(told)}." if told else ""
