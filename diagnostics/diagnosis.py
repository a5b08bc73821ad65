"""Diagnose a run: decisions in, one verdict and findings in words out (no torch, no monitor).

    unstable > too short > stalled > biased > neighbourhood > certified > uncertified > inconclusive

The order is that of urgency: a verdict further left makes those further right moot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from .conditions import (
    MIN_BLOCKS,
    Condition,
    Decision,
    Growth,
    annealed,
    block_edges,
    finite_horizon,
    growth,
    judge_bias,
    judge_variance,
    theil_sen,
)
from .drift import Harm, HarmDecision, judge_harm
from .drift import undecided as harm_undecided
from .findings import Evidence, Finding, findings_of
from .trace import Trace

Array = NDArray[np.float64]
JSON = str | int | float | bool | list["JSON"] | dict[str, "JSON"] | None

SCHEMA = 1
GRADIENTS_ALIVE = 1e-3  # ‖g‖² down a thousandfold: the run has converged rather than stalled
BLOW_UP = 10.0  # both stepsize and update at least tenfold over the window, and …
BLOW_UP_SLOPE = 0.5  # … like a power of t, not by one late spike


class Verdict(StrEnum):
    """The one word about a run (docs/theory.md 4.5)."""

    CERTIFIED = "certified"
    UNCERTIFIED = "uncertified"
    BIASED = "biased"
    NEIGHBOURHOOD = "neighbourhood"
    UNSTABLE = "unstable"
    STALLED = "stalled"
    INCONCLUSIVE = "inconclusive"


MEANING = {
    Verdict.CERTIFIED: "both conditions hold and the stepsizes keep growing in sum; theory lets this run converge",
    Verdict.UNCERTIFIED: "the bias condition is violated, and no harm is shown: no certificate, which is no divergence",
    Verdict.BIASED: "the bias condition is violated and the steps go against the mean gradient",
    Verdict.NEIGHBOURHOOD: "the variance condition is violated: the run settles in a noise ball or a limit cycle",
    Verdict.UNSTABLE: "the run broke: non-finite values, or stepsizes and updates that blow up",
    Verdict.STALLED: "the stepsizes died out before the gradients did",
    Verdict.INCONCLUSIVE: "the run so far does not decide",
}


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """A run's verdict, the decisions behind it, and findings in words; `str()` prints it, `to_dict()` is
    JSON."""

    verdict: Verdict
    reason: str
    optimizer: str
    steps: int
    start: int
    """The first judged step; everything before is start-up."""
    tensors: int
    watched: int
    coordinates: int
    annealed: bool
    variance: Condition
    bias: Condition
    growth: Growth
    harm: Harm
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        """Return the report as plain text: the verdict, the checks one by one, the findings."""
        return "\n".join([*self._head(), *self._checks(), *self._findings()])

    def _head(self) -> list[str]:
        return [
            f"Verdict: {self.verdict}",
            f"{_sentence(self.reason)}",
            "",
            f"Processing {self.steps} steps of {self.optimizer}, {self.tensors} tensors, {self.watched} of "
            f"{self.coordinates} coordinates watched; judged from step {self.start}.",
            "",
        ]

    def _checks(self) -> list[str]:
        checks = (
            ("the growth of a, the sum of stepsizes", self.growth),
            ("the variance condition, b/a -> 0", self.variance),
            ("the bias condition, c+/a -> 0", self.bias),
            ("harm, the drift of the steps against the mean gradient", self.harm),
        )
        return [
            line
            for title, check in checks
            for line in (f"Checking {title}: {check.decision}.", f"  {_sentence(check.reason)}", "")
        ]

    def _findings(self) -> list[str]:
        if not self.findings:
            return ["Processing complete, nothing to report."]
        lines = ["Findings"]
        for number, finding in enumerate(self.findings, start=1):
            lines += [f"{number}. {finding.title}", f"   {finding.text}"]
            if finding.tensors:
                more = f" and {len(finding.tensors) - 5} more" if len(finding.tensors) > 5 else ""
                lines.append(f"   Tensors: {', '.join(finding.tensors[:5])}{more}.")
            if finding.steps:
                lines.append(f"   Steps: {finding.steps[0]} to {finding.steps[1]}.")
            lines.append(f"   Why: {finding.why}. Try: {finding.suggestion}")
        return [*lines, "", "Processing complete."]

    def to_dict(self) -> dict[str, JSON]:
        """Return the diagnosis as stable JSON: NaN becomes null, an infinity the string "inf" or "-inf"."""
        return {"schema": SCHEMA} | {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def diagnose(trace: Trace) -> Diagnosis:
    """Judge a run: the conditions, the growth of a, the harm test, one verdict and findings."""
    evidence = _gather(trace)
    verdict, reason = _verdict(evidence)
    return Diagnosis(
        verdict=verdict,
        reason=reason,
        optimizer=str(trace.meta.get("optimizer", "an unnamed optimizer")),
        steps=_last(trace),
        start=evidence.start,
        tensors=len(trace.tensors),
        watched=sum(tensor.watched for tensor in trace.tensors),
        coordinates=sum(tensor.numel for tensor in trace.tensors),
        annealed=evidence.annealed,
        variance=evidence.variance,
        bias=evidence.bias,
        growth=evidence.growth,
        harm=evidence.harm,
        findings=findings_of(evidence),
    )


def judged_start(trace: Trace) -> int:
    """Return the first judged step: max(10/(1-β2), 10/(1-β1), the end of warm-up, 0.02 T), at least 1."""
    if len(trace.steps) == 0:
        return 1
    candidates = [1.0, 0.02 * _last(trace), _warm_up_end(trace)]
    for name in ("beta1", "beta2"):
        values = trace.groups.get(name)
        if values is not None and len(values):
            candidates += [10 / (1 - beta) for beta in values[-1] if beta < 1]  # nan: no such decay
    return math.ceil(max(candidates) - 1e-6)  # 10/(1-0.9) is 100 and a rounding error


def _warm_up_end(trace: Trace) -> float:
    """Return the first step at which a learning rate that rose is at its maximum."""
    lr = trace.groups.get("lr")
    ends = [0.0]
    for rate in np.empty((0, 0)) if lr is None else lr.T:
        finite = rate[np.isfinite(rate)]
        if len(finite) and finite.max() > finite[0] * (1 + 1e-6):
            ends.append(float(trace.steps[np.argmax(rate >= finite.max() * (1 - 1e-6))]))
    return max(ends)


def _gather(trace: Trace) -> Evidence:
    start = judged_start(trace)
    if _unreadable(trace):
        variance = bias = _blind(trace)
        grows = Growth(math.nan, math.nan, math.nan, Decision.INCONCLUSIVE, variance.reason)
    else:
        a = trace.total("a")
        variance = judge_variance(trace.steps, trace.total("b"), a, start)
        bias = judge_bias(trace.steps, trace.total("c_plus"), a, start)
        grows = growth(trace.steps, a, start)
    lr = trace.groups.get("lr")
    falls = lr is not None and len(trace.steps) > 0 and annealed(trace.steps, lr, start)
    broken, tensors = _broken(trace, start)
    return Evidence(
        trace=trace,
        start=start,
        variance=finite_horizon(variance) if falls and len(variance.ratios) >= MIN_BLOCKS else variance,
        bias=bias,
        growth=grows,
        harm=_harm(trace),
        annealed=falls,
        gradients_left=_gradients_left(trace, start),
        broken=broken,
        broken_tensors=tensors,
    )


def _verdict(e: Evidence) -> tuple[Verdict, str]:
    verdict = _word(e)
    if verdict is not Verdict.INCONCLUSIVE:
        return verdict, MEANING[verdict]
    causes = [c.reason for c in (e.variance, e.bias, e.growth) if c.decision is Decision.INCONCLUSIVE]
    if not causes and e.growth.decision is Decision.VIOLATED:
        causes = ["the stepsizes died out, but so did the gradients: the run has come to rest"]
    return verdict, f"{MEANING[verdict]}: {next(iter(causes), 'the evidence disagrees')}"


def _word(e: Evidence) -> Verdict:  # noqa: PLR0911 - one return per row of the table, in the order of the table
    if e.broken is not None:
        return Verdict.UNSTABLE
    if min(len(e.variance.ratios), len(e.bias.ratios)) < MIN_BLOCKS:
        return Verdict.INCONCLUSIVE
    died = e.growth.decision is Decision.VIOLATED and not e.annealed
    if died and not e.gradients_left < GRADIENTS_ALIVE:
        return Verdict.STALLED
    violated = e.bias.decision is Decision.VIOLATED
    if violated and e.harm.decision is HarmDecision.HARMFUL:
        return Verdict.BIASED
    if e.variance.decision is Decision.VIOLATED:
        return Verdict.NEIGHBOURHOOD
    if all(c.decision is Decision.HOLDS for c in (e.variance, e.bias, e.growth)):
        return Verdict.CERTIFIED
    return Verdict.UNCERTIFIED if violated else Verdict.INCONCLUSIVE


def _unreadable(trace: Trace) -> bool:
    return len(trace.steps) == 0 or not np.any(np.nan_to_num(trace.column("a")[-1]) > 0)


def _blind(trace: Trace) -> Condition:
    """Return the condition of a run in which no stepsize was seen, with the reason."""
    if len(trace.steps) == 0:
        reason = "nothing has been recorded yet"
    elif trace.tensors and all(tensor.formula is None for tensor in trace.tensors):
        reason = "no tensor has a readable elementwise stepsize, so there is no a, b or c to judge"
    else:
        reason = "no step with a stepsize has been recorded"
    empty = np.empty(0)
    return Condition(Decision.INCONCLUSIVE, math.nan, math.nan, math.nan, empty, empty, reason)


def _harm(trace: Trace) -> Harm:
    drift = trace.drift
    if drift is None:
        return harm_undecided("there are no stretches yet", 0, _last(trace))
    grams = [np.nansum(gram, axis=0) for gram in (drift.gram_dd, drift.gram_dg, drift.gram_gg)]
    return judge_harm(grams[0], grams[1], grams[2], drift.first_step, drift.last_step)


def _gradients_left(trace: Trace, start: int) -> float:
    """Return the mean ‖g‖² of the last block over that of the largest block."""
    index = block_edges(trace.steps, start) if len(trace.steps) else np.empty(0, dtype=np.intp)
    if len(index) < 2:
        return math.nan
    rate = np.diff(trace.total("g2")[index]) / np.diff(trace.steps[index])
    return float(rate[-1] / rate.max()) if rate.max() > 0 else math.nan


def _broken(trace: Trace, start: int) -> tuple[str | None, tuple[str, ...]]:
    """Say how the run broke, and in which tensors: non-finite at its end, or stepsize and update blow up."""
    if len(trace.steps) == 0:
        return None, ()
    names = _names(trace, _nonfinite_at_the_end(trace))
    if names:
        return f"parameters, updates or stepsizes are not finite at step {_last(trace)}.", names
    loss = trace.scalars.get("loss")
    if loss is not None and len(loss.last) and not math.isfinite(loss.last[-1]):
        return f"the logged loss is {loss.last[-1]} at step {loss.steps[-1]}.", ()
    names = _names(trace, _blowing_up(trace, start))
    if names:
        return f"stepsizes and updates both grew more than {BLOW_UP:g}-fold, like a power of t.", names
    return None, ()


def _nonfinite_at_the_end(trace: Trace) -> NDArray[np.bool_]:
    """Return which tensors end non-finite.

    NaN also stands for "has no such quantity", so it counts only where a finite number stood before, or for
    the weights of a tensor whose stepsize is read. Stepsizes count only if coordinates are still stepping.
    """
    stepped = np.nan_to_num(trace.column("steps")[-1]) > 0
    nonempty = np.array([tensor.numel > 0 for tensor in trace.tensors], dtype=bool)
    read = np.array([tensor.formula is not None for tensor in trace.tensors], dtype=bool)
    active = np.diff(np.nan_to_num(trace.column("active")), axis=0, prepend=0.0)[-1] > 0
    bad = np.isnan(trace.column("weight_rms")[-1]) & read & stepped
    for name in ("weight_rms", "update_rms", "e_p50", "e_max"):
        column = trace.column(name)
        lost = np.isinf(column[-1]) | (np.isnan(column[-1]) & np.isfinite(column).any(axis=0))
        bad |= lost & (active if name.startswith("e_") else True)
    return np.asarray(bad & nonempty)


def _blowing_up(trace: Trace, start: int) -> NDArray[np.bool_]:
    """Return the tensors whose median stepsize and update size both grow like a power of t.

    The median stepsize alone also grows in healthy runs, where gradients fade and v with them; the update
    then stays at the learning rate. Each is reduced to its median per block, so that single spikes do not
    count.
    """
    index = block_edges(trace.steps, start)
    if len(index) < MIN_BLOCKS + 1:
        return np.zeros(len(trace.tensors), dtype=bool)
    both = np.ones(len(trace.tensors), dtype=bool)
    for name in ("e_p50", "update_rms"):
        column = trace.column(name)
        both &= np.array(
            [_grows_like_a_power(trace.steps, column[:, p], index) for p in range(len(both))], dtype=bool
        )
    return both


def _grows_like_a_power(steps: NDArray[np.int64], values: Array, index: NDArray[np.intp]) -> bool:
    typical = np.array([np.median(values[i + 1 : j + 1]) for i, j in zip(index, index[1:], strict=False)])
    usable = np.isfinite(typical) & (typical > 0)
    if usable.sum() < MIN_BLOCKS:
        return False
    typical, t = typical[usable], np.sqrt(steps[index][1:] * steps[index][:-1])[usable]
    slope, low, _ = theil_sen(np.log(t), np.log(typical))
    return slope >= BLOW_UP_SLOPE and low > 0 and typical[-1] >= BLOW_UP * typical[0]


def _names(trace: Trace, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(tensor.name for tensor, keep in zip(trace.tensors, chosen, strict=True) if keep)


def _last(trace: Trace) -> int:
    return int(trace.steps[-1]) if len(trace.steps) else 0


def _sentence(text: str) -> str:
    capital = text[:1].upper() + text[1:]
    return capital if capital.endswith(".") else f"{capital}."


def _plain(value: object) -> JSON:  # noqa: PLR0911 - one return per kind of value
    if isinstance(value, StrEnum):
        return str(value)
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        return None if math.isnan(number) else number if math.isfinite(number) else str(number)
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"a diagnosis holds numbers, words and lists of them, got {type(value).__name__}.")
