"""A chapter in brief: what is the matter, where, when, what to do, and each check with its decision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..diagnostics.alert import RULES, Alert, alerts_of
from ..diagnostics.conditions import Decision
from ..diagnostics.drift import HarmDecision
from ..diagnostics.finding import Finding
from ..diagnostics.findings import ALERTED
from .chapters import Chapter
from .numerals import sentence, typeset, whole
from .words import MARKS

FEW = 3  # tensors that are named


@dataclass(frozen=True)
class Gist:
    """The leading finding, or what there is to say without one."""

    what: str
    where: tuple[str, ...]
    """Its first tensors; none where the run as a whole is meant."""
    more: int
    """Tensors beside these."""
    when: str
    to_do: str


def gist(chapter: Chapter) -> Gist | None:
    """Return what leads the findings of a run, which come the most serious first; None where there are none."""
    findings = chapter.diagnosis.findings
    if not findings:
        return None
    # That alerts came says that something was seen, and the others what it is.
    first = next((finding for finding in findings if finding.title != ALERTED), findings[0])
    where, more = first.tensors[:FEW], max(len(first.tensors) - FEW, 0)
    return Gist(sentence(first.title), where, more, when(first), sentence(first.suggestion))


def limiting(chapter: Chapter) -> str:
    """Return what limits a run, and what did before, in sentences."""
    return sentence(str(chapter.limited))


def when(finding: Finding) -> str:
    """Return the steps that a finding concerns, in words; empty where it names none."""
    if finding.steps is None:
        return ""
    first, last = finding.steps
    return f"step {whole(first)}" if first == last else f"steps {whole(first)} to {whole(last)}"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what was decided."""

    name: str
    decision: Decision | HarmDecision
    reason: str

    @property
    def mark(self) -> str:
        """The sign of its decision."""
        return MARKS[self.decision]

    @property
    def open(self) -> bool:
        """Whether nothing was decided."""
        return self.decision in (Decision.INCONCLUSIVE, HarmDecision.INCONCLUSIVE)

    @property
    def bad(self) -> bool:
        """Whether it was decided against the run."""
        return self.decision in (Decision.VIOLATED, HarmDecision.HARMFUL)


def checks(chapter: Chapter) -> tuple[Check, ...]:
    """Return the four checks behind a verdict."""
    return tuple(
        Check(typeset(name), check.decision, sentence(check.reason)) for name, check in chapter.diagnosis.checks
    )


def alerted(chapter: Chapter) -> Iterator[tuple[str, list[Alert]]]:
    """Yield each rule, and the alerts that it gave while the run went on."""
    found = alerts_of(chapter.trace)
    for rule in dict.fromkeys([*RULES, *(alert.rule for alert in found)]):
        yield rule, [alert for alert in found if alert.rule == rule]
