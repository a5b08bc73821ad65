"""Diagnose a run: decisions in, one verdict and findings in words out (no torch, no monitor).

    unstable > too short > stalled > biased > neighbourhood > certified > uncertified > inconclusive

The order is that of urgency: a verdict further left makes those further right moot.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum

import numpy as np

from .aligned import aligned
from .conditions import Condition, Decision, Growth
from .drift import Harm, HarmDecision
from .evidence import Evidence, gather, judged_start
from .finding import listed
from .findings import Finding, findings_of, sentence
from .limits import Limit, Limits, limits
from .remedy import Remedy
from .skewness import Skewness
from .trace import Trace
from .what_if import Alternative

__all__ = ["Diagnosis", "Finding", "Verdict", "diagnose", "judged_start"]

JSON = str | int | float | bool | list["JSON"] | dict[str, "JSON"] | None

SCHEMA = 1
WIDTH = 100


class Verdict(StrEnum):
    """The one word about a run (docs/theory.md 4.5)."""

    CERTIFIED = "certified"
    """Given when b/a → 0 and c⁺/a → 0 hold and a keeps growing, and a is that of coordinates that learn.

    Where the objective is smooth and its gradients are bounded, theory lets such stepsizes converge. It says nothing of
    the speed, nor of how good the minimum is."""
    UNCERTIFIED = "uncertified"
    """Given when c⁺/a → 0 is violated, b/a → 0 is not, and the harm test does not say harmful.

    The condition is sufficient and not necessary. With a constant β2 and noisy gradients Adam always violates it."""
    BIASED = "biased"
    """Given when c⁺/a → 0 is violated and the harm test says harmful: ρ < 0, at one chance in a thousand.

    More training leads further away. Rare large gradients that Adam divides by themselves do this."""
    NEIGHBOURHOOD = "neighbourhood"
    """Given when b/a → 0 is violated, and the steps are not harmful.

    With a constant rate and noisy gradients this is the end of every method: a ball whose size follows the last b/a."""
    UNSTABLE = "unstable"
    """Given when parameters, updates, stepsizes or the logged loss are not finite at the end, or median stepsize and
    update size have both grown more than tenfold over the window, like a power of t."""
    STALLED = "stalled"
    """Given when a converges while gradients are still there, and no annealing explains it.

    The run cannot get further than a finite distance, however long it goes on."""
    INCONCLUSIVE = "inconclusive"
    """Given when there are fewer than five blocks to judge, or when none of the others is given."""


MEANING = {
    Verdict.CERTIFIED: "Both conditions hold and a keeps growing: theory lets this run converge.",
    Verdict.UNCERTIFIED: "The bias condition is violated, no harm is shown: no certificate, no divergence.",
    Verdict.BIASED: "The bias condition is violated and the steps go against the mean gradient.",
    Verdict.NEIGHBOURHOOD: "The variance condition is violated: a noise ball or a limit cycle.",
    Verdict.UNSTABLE: "The run broke: non-finite values, or stepsizes and updates that blow up.",
    Verdict.STALLED: "The stepsizes died out before the gradients did.",
    Verdict.INCONCLUSIVE: "The run so far does not decide.",
}


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """A run's verdict, the decisions behind it and findings in words."""

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
    """Whether the learning rate was brought down towards the end, which leaves b/a → 0 untestable."""
    variance: Condition
    bias: Condition
    growth: Growth
    harm: Harm
    limit: Limit
    """What holds the run back as it stands."""
    limit_reason: str
    what_if: tuple[Alternative, ...]
    """The same decisions under other rules, on the gradients of this run; the first is the run's own."""
    skewness: tuple[Skewness, ...]
    """What rare large gradients ask of β2: the whole run, then each tensor; empty for a short run."""
    findings: tuple[Finding, ...]

    @property
    def checks(self) -> tuple[tuple[str, Condition | Growth | Harm], ...]:
        """What was looked at for the verdict: four checks, each by the name that it has everywhere."""
        return (
            ("growth of a", self.growth),
            ("variance (b/a -> 0)", self.variance),
            ("bias (c+/a -> 0)", self.bias),
            ("harm", self.harm),
        )

    def __str__(self) -> str:
        """Return the report as plain text: the verdict, the checks one by one, the findings."""
        return "\n".join([*self._head(), *self._checks(), *self._limits(), *self._imagined(), *self._listed()])

    def _repr_html_(self) -> str:
        from ..reports.notebook import of_diagnosis

        return of_diagnosis(self).html()

    def _head(self) -> list[str]:
        facts = (
            f"{self.steps} steps of {self.optimizer}, {self.tensors} tensor(s), {self.watched} of {self.coordinates} "
            f"coordinates watched; the conditions are judged from step {self.start} on."
        )
        return [f"Verdict: {self.verdict}", *_wrap(self.reason), "", *_wrap(facts), ""]

    def _checks(self) -> list[str]:
        """Return each check with its reason; those that wait for what the verdict's own reason says in one line."""
        lines: list[str] = []
        waiting: list[str] = []
        for title, check in self.checks:
            said = sentence(check.reason) in self.reason
            if said and check.decision == Decision.INCONCLUSIVE:
                waiting.append(title)
            else:
                lines += [f"Checking {title}: {check.decision}.", *([] if said else _wrap(check.reason, "  ")), ""]
        if waiting:
            lines = [*_wrap(f"Checking {listed(waiting)}: inconclusive."), "", *lines]
        return lines

    def _limits(self) -> list[str]:
        return [f"What limits the run now: {self.limit}.", *_wrap(self.limit_reason, "  "), ""]

    def _imagined(self) -> list[str]:
        """Return a row for each rule about which something is decided, without the conditions where none is judged."""
        told = [a for a in self.what_if if not (a.too_short and a.harm.decision is HarmDecision.INCONCLUSIVE)]
        if len(told) < 2:  # the run's own alone is no comparison
            return []
        conditions = any(not a.too_short for a in told)
        head = [""] + conditions * ["b/a", "", "c+/a", ""] + ["rho", ""]
        rows = [
            [
                a.rule,
                *conditions * (_digits(a.b_over_a), a.variance.decision, _digits(a.c_over_a), a.bias.decision),
                *(_digits(a.harm.rho), a.harm.decision),
            ]
            for a in told
        ]
        title = (
            "Other rules on the gradients of this very run (they would have met others), and its own as it was, on the "
            "same few coordinates."
        )
        return [*_wrap(title), *aligned([head, *rows]), ""]

    def _listed(self) -> list[str]:
        lines = ["Findings"] if self.findings else ["No findings."]
        told: set[str] = set()
        reasons = {sentence(check.reason) for _, check in self.checks}
        for number, finding in enumerate(self.findings, start=1):
            text = [] if finding.text in reasons else _wrap(finding.text, "   ")
            lines += [f"{number}. {finding.title}", *text]
            if finding.tensors:
                more = f" and {len(finding.tensors) - 5} more" if len(finding.tensors) > 5 else ""
                lines += _wrap(f"Tensors: {', '.join(finding.tensors[:5])}{more}.", "   ")
            if finding.steps:
                lines.append(f"   Steps: {finding.steps[0]} to {finding.steps[1]}.")
            lines += [f"   Why: {finding.why}.", *_wrap(f"Try: {finding.suggestion}", "   ")]
            lines += _remedies(finding.remedies, told)
        return lines

    def to_dict(self) -> dict[str, JSON]:
        """Return the diagnosis as stable JSON: NaN becomes null, an infinity the string "inf" or "-inf"."""
        return {"schema": SCHEMA} | {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def diagnose(trace: Trace, limited: Limits | None = None) -> Diagnosis:
    """Judge a run: the conditions, the growth of a, the harm test, one verdict and findings.

    `limited` is what `limits` says of it, for a caller that needs that as well.
    """
    evidence = gather(trace)
    verdict, limited = decide(evidence), limits(trace) if limited is None else limited
    return Diagnosis(
        verdict=verdict,
        reason=_reason(verdict, evidence),
        optimizer=str(trace.meta.get("optimizer", "an unnamed optimizer")),
        steps=int(trace.steps[-1]) if len(trace.steps) else 0,
        start=evidence.start,
        tensors=len(trace.tensors),
        watched=sum(tensor.watched for tensor in trace.tensors),
        coordinates=sum(tensor.numel for tensor in trace.tensors),
        annealed=evidence.annealed,
        variance=evidence.variance,
        bias=evidence.bias,
        growth=evidence.growth,
        harm=evidence.harm,
        limit=limited.limit,
        limit_reason=str(limited),
        what_if=evidence.what_if,
        skewness=evidence.skewness,
        findings=findings_of(evidence),
    )


def decide(e: Evidence) -> Verdict:
    """Return the first verdict whose condition is met, in the order of this module's docstring."""
    violated = e.bias.decision is Decision.VIOLATED
    table = (
        (e.broken is not None, Verdict.UNSTABLE),
        (e.too_short, Verdict.INCONCLUSIVE),
        (e.stalled, Verdict.STALLED),
        (violated and e.harm.decision is HarmDecision.HARMFUL, Verdict.BIASED),
        (e.variance.decision is Decision.VIOLATED, Verdict.NEIGHBOURHOOD),
        (e.certified, Verdict.CERTIFIED),
        (violated, Verdict.UNCERTIFIED),
    )
    return next((verdict for met, verdict in table if met), Verdict.INCONCLUSIVE)


def _reason(verdict: Verdict, e: Evidence) -> str:
    meaning = MEANING[verdict]
    if verdict is Verdict.UNCERTIFIED and e.harm.decision is HarmDecision.INCONCLUSIVE:
        return f"{meaning} Whether there is harm could not be resolved."
    if verdict is Verdict.UNCERTIFIED and e.harm.decision is HarmDecision.IDLE:
        return f"{meaning} The steps do not climb, but no descent is left in them either."
    if verdict is not Verdict.INCONCLUSIVE:
        return meaning
    open_ones = [c.reason for c in (e.variance, e.bias, e.growth) if c.decision is Decision.INCONCLUSIVE]
    if e.dormant and not open_ones:
        open_ones = ["both conditions hold, but a is carried by dormant coordinates and not by those that learn"]
    reason = sentence(next(iter(open_ones), "stepsizes and gradients died out together"))
    return f"{meaning} {reason}{_already(e.harm)}"


def _already(harm: Harm) -> str:
    """Return what the harm test says of a run that does not decide otherwise."""
    match harm.decision:
        case HarmDecision.HARMLESS:
            return f" It shows no harm: rho = {harm.rho:.2g}, the steps descend."
        case HarmDecision.HARMFUL:
            return f" But the steps go against the mean gradient: rho = {harm.rho:.2g}."
    return ""


def _remedies(remedies: Sequence[Remedy], told: set[str]) -> list[str]:
    """Return what is made for a finding, with the two lines that put the first in place unless they were `told`."""
    if not remedies:
        return []
    first, *others = (remedy.name for remedy in remedies)
    if first in told:
        return _wrap(f"Remedy: {listed([first, *others], 'or')}, see `stepscope remedies`", "   ")
    told.update([first, *others])
    reason, reference = remedies[0].reason, remedies[0].reference
    more = f" Or {listed(others, 'or')}, see `stepscope remedies`." if others else ""
    lines = _wrap(f"Remedy, {first}: {reason} ({reference}).{more} After the line that makes `optimizer`", "   ")
    return [*lines[:-1], lines[-1].removesuffix(".") + ":", *(f"     {line}" for line in remedies[0].lines)]


def _digits(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        sentence(text),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _plain(value: object) -> JSON:
    """Return a value as JSON knows it."""
    if isinstance(value, float | np.floating):
        number = float(value)
        return number if math.isfinite(number) else None if math.isnan(number) else str(number)
    if isinstance(value, bool | int | None):
        return value
    if isinstance(value, str):
        return str(value)  # also the plain word of a StrEnum
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"a diagnosis holds numbers, words and lists of them, got {type(value).__name__}.")
