"""A report as JUnit XML, for CI: a suite for each run, a case for its verdict, each check and each rule of alerts.

Failures are what the exit code is 1 for: in a run that is biased or unstable, the verdict and whatever speaks against
the run fail. Elsewhere the same is told by a case that passes: a violated condition alone is no harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from ..diagnostics.alert import Alert
from ..diagnostics.diagnosis import Verdict
from .chapters import Chapter, Contents
from .gist import alerted, checks, gist, limiting
from .numerals import sentence
from .words import ALARMS


@dataclass(frozen=True)
class Case:
    """One case of a suite: how it ended, in a word, in a sentence, and in full."""

    name: str
    result: Literal["passed", "failure", "skipped"]
    kind: str
    message: str
    details: str = ""
    seconds: float = 0.0


def junit(contents: Contents) -> bytes:
    """Return a report as XML."""
    return written(
        "stepscope",
        [(chapter.row.name, list(cases(chapter)), _properties(chapter)) for chapter in contents.chapters],
    )


def cases(chapter: Chapter) -> Iterator[Case]:
    """Yield the cases of one run."""
    verdict = chapter.row.verdict
    alarm = verdict in ALARMS
    result: Literal["passed", "failure", "skipped"] = "passed"
    if alarm or verdict is Verdict.INCONCLUSIVE:
        result = "failure" if alarm else "skipped"
    yield Case("verdict", result, verdict, chapter.meaning, _findings(chapter))
    for check in checks(chapter):
        result = "skipped" if check.open else "failure" if alarm and check.bad else "passed"
        yield Case(check.name, result, check.decision, check.reason)
    for rule, alerts in alerted(chapter):
        result = "failure" if alarm and alerts else "passed"
        yield Case(f"alert: {rule}", result, "alert" if alerts else "none", _said(alerts))


def _said(alerts: list[Alert]) -> str:
    if not alerts:
        return "No alert of this rule is on record."
    more = f" {len(alerts) - 1} more of this rule came." if len(alerts) > 1 else ""
    return f"{sentence(str(alerts[0]))}{more}"


def _findings(chapter: Chapter) -> str:
    lines = []
    for number, finding in enumerate(chapter.diagnosis.findings, 1):
        tries = f" Try: {sentence(finding.suggestion)}" if finding.suggestion else ""
        lines.append(f"{number}. {sentence(finding.title)} {sentence(finding.text)}{tries}")
    return "\n".join(lines)


def _properties(chapter: Chapter) -> dict[str, str]:
    row, brief = chapter.row, gist(chapter)
    found = {"verdict": str(row.verdict), "rho": row.rho, "optimizer": row.optimizer, "steps": str(row.steps)}
    found |= {"reached": row.final, "limits": limiting(chapter)}
    return found | ({"what": brief.what, "to do": brief.to_do} if brief else {})


def written(name: str, suites: Sequence[tuple[str, list[Case], dict[str, str]]]) -> bytes:
    """Return named suites, each with its cases and properties, as XML; all text must be legible."""
    root = ElementTree.Element("testsuites", {"name": name})
    for title, found, properties in suites:
        suite = ElementTree.SubElement(root, "testsuite", {"name": title, **_counts(found)})
        told = ElementTree.SubElement(suite, "properties")
        for key, value in properties.items():
            ElementTree.SubElement(told, "property", {"name": key, "value": value})
        for case in found:
            _add(suite, title, case)
    root.attrib |= _counts([case for _, found, _ in suites for case in found])
    ElementTree.indent(root, " ")
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _add(suite: ElementTree.Element, title: str, case: Case) -> None:
    seconds = {"time": f"{case.seconds:.3f}"}
    element = ElementTree.SubElement(suite, "testcase", {"classname": title, "name": case.name, **seconds})
    if case.result == "passed":
        ElementTree.SubElement(element, "system-out").text = "\n".join(filter(None, (case.message, case.details)))
        return
    about = {"message": case.message} | ({"type": case.kind} if case.result == "failure" else {})
    ElementTree.SubElement(element, case.result, about).text = case.details or None


def _counts(cases: list[Case]) -> dict[str, str]:
    results = [case.result for case in cases]
    numbers = {"tests": len(cases), "failures": results.count("failure"), "errors": 0}
    return {key: str(value) for key, value in (numbers | {"skipped": results.count("skipped")}).items()}
