"""A diagnosis in the words of a report: a badge, what the verdict means and asks for, and four answers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..diagnostics.conditions import Decision
from ..diagnostics.diagnosis import MEANING, Diagnosis, Verdict
from ..diagnostics.drift import Harm, HarmDecision
from ..diagnostics.findings import NOTHING, RISES
from ..diagnostics.trace import Trace
from .numerals import fixed, interval, number, sentence, whole

ALARMS = (Verdict.BIASED, Verdict.UNSTABLE)
"""The verdicts that make a command end with 1."""

MARKS: dict[Verdict | Decision, str] = {
    Verdict.CERTIFIED: "✓",
    Verdict.UNCERTIFIED: "○",
    Verdict.BIASED: "✕",
    Verdict.NEIGHBOURHOOD: "◎",
    Verdict.UNSTABLE: "!",
    Verdict.STALLED: "‖",
    Verdict.INCONCLUSIVE: "?",
    Decision.HOLDS: "✓",
    Decision.VIOLATED: "✕",
    Decision.INCONCLUSIVE: "?",
}
"""A sign beside each word, so that no meaning hangs on colour."""

ADVICE = {
    Verdict.CERTIFIED: "Nothing has to change.",
    Verdict.UNCERTIFIED: "Carry on; where the guarantee matters, use amsgrad=True or a larger β2.",
    Verdict.BIASED: "More training leads further away: raise β2, or use amsgrad=True, AdaShift or ADOPT.",
    Verdict.NEIGHBOURHOOD: "To come closer, let the learning rate fall or enlarge the batch.",
    Verdict.UNSTABLE: "Go back to a good checkpoint; lower the learning rate or clip gradients.",
    Verdict.STALLED: "Let the learning rate fall no faster than 1/√t.",
    Verdict.INCONCLUSIVE: "See below what is missing.",
}

POOR = 0.5  # less than half of the intended descent left


@dataclass(frozen=True)
class Answer:
    """One of the four questions: a word or two, and the sentences behind it."""

    question: str
    short: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One run in a table of runs."""

    name: str
    optimizer: str
    steps: int
    final: str
    """The last value of the scalar that says how far the run came, as in "loss 0.012"."""
    variance: Decision
    bias: Decision
    rho: str
    verdict: Verdict


def row(name: str, trace: Trace, diagnosis: Diagnosis) -> Row:
    """Return a run's line in a table of runs."""
    return Row(
        name=name,
        optimizer=diagnosis.optimizer.rpartition(".")[2],
        steps=diagnosis.steps,
        final=final(trace),
        variance=diagnosis.variance.decision,
        bias=diagnosis.bias.decision,
        rho=rho(diagnosis.harm),
        verdict=diagnosis.verdict,
    )


def rho(harm: Harm) -> str:
    """Return ρ with its interval, or its sign where the interval is unbounded."""
    if any(map(math.isfinite, harm.interval)):
        return f"{fixed(harm.rho)} {interval(*harm.interval)}"
    sign = {HarmDecision.HARMFUL: "below 0", HarmDecision.HARMLESS: "above 0"}.get(harm.decision)
    return f"{sign}, z = {fixed(harm.z)}" if sign else "not resolved"


def final(trace: Trace) -> str:
    """Return the loss (else the first scalar logged) where the run ended.

    A loss is noisy: its mean over the last tenth of the steps is shown. Other scalars are shown as they are.
    """
    name = next((name for name in trace.scalars if "loss" in name.lower()), next(iter(trace.scalars), None))
    if name is None or len(trace.scalars[name].steps) == 0:
        return "–"
    scalar = trace.scalars[name]
    value, digits = float(scalar.last[-1]), 4
    begin = int((scalar.steps < 0.9 * scalar.steps[-1]).sum()) - 1
    if "loss" in name.lower() and math.isfinite(value) and begin >= 0:
        logged = float(scalar.count[-1] - scalar.count[begin])
        value = float(scalar.total[-1] - scalar.total[begin]) / logged if logged else value
        digits = 3
    return f"{name} {number(value, digits)}"


def meaning(diagnosis: Diagnosis) -> str:
    """Return what the verdict means and what to do, in two sentences."""
    verdict = diagnosis.verdict
    waits = [c.steps_needed for c in (diagnosis.variance, diagnosis.bias, diagnosis.growth) if c.steps_needed]
    if verdict is Verdict.INCONCLUSIVE and waits:
        advice = f"Judging it takes about {whole(_rounded_up(max(waits)))} more steps."
    else:
        advice = ADVICE[verdict]
    return f"{sentence(MEANING[verdict])} {advice}"


def _rounded_up(steps: int) -> int:
    """Return a number of steps with two digits that matter: nobody plans 52569 steps."""
    unit: int = 10 ** max(len(str(steps)) - 2, 0)
    return math.ceil(steps / unit) * unit


def answers(diagnosis: Diagnosis) -> tuple[Answer, ...]:
    """Return what this run answers to the four questions."""
    return (
        _certificate(diagnosis),
        _harm(diagnosis),
        Answer("What limits the run now?", *_limits(diagnosis)),
        Answer("What would change it?", *_changes(diagnosis)),
    )


def _certificate(d: Diagnosis) -> Answer:
    checks = (("Variance, b/a → 0", d.variance), ("Bias, c⁺/a → 0", d.bias), ("Growth of a", d.growth))
    decisions = [check.decision for _, check in checks]
    short = "not decided"
    if all(decision is Decision.HOLDS for decision in decisions):
        short = "yes"
    elif Decision.VIOLATED in decisions:
        short = "no"
    lines = tuple(f"{name}: {check.decision}. {sentence(check.reason)}" for name, check in checks)
    if len({check.reason for _, check in checks}) == 1:  # what keeps one from being judged keeps all
        lines = (sentence(d.variance.reason),)
    return Answer("Is there a certificate?", short, lines)


def _harm(d: Diagnosis) -> Answer:
    short = {
        HarmDecision.HARMFUL: "yes",
        HarmDecision.HARMLESS: "none seen",
        HarmDecision.INCONCLUSIVE: "not resolved",
    }
    return Answer("Is there harm?", short[d.harm.decision], (sentence(d.harm.reason),))


def _limits(d: Diagnosis) -> tuple[str, tuple[str, ...]]:
    found = list(_limit_list(d))
    if not found and d.verdict is Verdict.INCONCLUSIVE:
        return "not decided", ("The judged part of this run does not tell.",)
    if not found:
        return "nothing seen", ("Neither noise, nor skewed stepsizes, nor a dying stepsize shows in this run.",)
    return ", ".join(word for word, _ in found), tuple(line for _, line in found)


def _limit_list(d: Diagnosis) -> Iterator[tuple[str, str]]:
    if d.verdict is Verdict.UNSTABLE:
        yield "instability", sentence(d.reason)
    if d.verdict is Verdict.STALLED:
        yield "dead stepsizes", sentence(d.growth.reason)
    if d.harm.decision is HarmDecision.HARMFUL:
        yield "skewed stepsizes", "The stepsizes lean against the gradients that matter; see the harm test."
    elif d.harm.decision is HarmDecision.HARMLESS and d.harm.rho < POOR:
        yield "skewed stepsizes", f"Adaptivity leaves {d.harm.rho:.0%} of the intended descent."
    if d.variance.decision is Decision.VIOLATED:
        ball, tends = number(float(d.variance.ratios[-1])), "rises to" if d.variance.low > RISES else "stays near"
        yield "noise", f"The steps' noise does not die out against their length: b/a {tends} {ball}."
    if d.annealed:
        yield (
            "the horizon",
            "The learning rate is brought down at the end, which ends the run whatever it found.",
        )


def _changes(d: Diagnosis) -> tuple[str, tuple[str, ...]]:
    tries = list(dict.fromkeys(f.suggestion for f in d.findings if f.suggestion != NOTHING))
    measured = "Not measured: how the same gradients would have stepped under another method."
    if not tries:
        return "nothing needed", (measured,)
    return f"{len(tries)} thing{'s' * (len(tries) > 1)} to try", (*map(sentence, tries), measured)
