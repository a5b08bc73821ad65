"""A diagnosis in the words of a report: a badge, what the verdict means and asks for, and four answers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..diagnostics.conditions import Decision
from ..diagnostics.diagnosis import MEANING, Diagnosis, Verdict
from ..diagnostics.drift import Harm, HarmDecision
from ..diagnostics.finding import NOTHING, rounded_up
from ..diagnostics.limits import TITLES, Limits
from ..diagnostics.trace import Trace
from ..diagnostics.what_if import better
from .numerals import fixed, interval, number, sentence, typeset, whole

ALARMS = (Verdict.BIASED, Verdict.UNSTABLE)
"""The verdicts that make a command end with 1."""

MARKS: dict[Verdict | Decision | HarmDecision, str] = {
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
    HarmDecision.HARMFUL: "✕",
    HarmDecision.HARMLESS: "✓",
    HarmDecision.IDLE: "○",
}
"""A sign beside each word, so that no meaning hangs on colour."""

WITHOUT_DESCENT = {
    HarmDecision.HARMFUL: "The steps go against the mean gradient.",
    HarmDecision.IDLE: "The steps neither climb nor descend: no descent is left.",
    HarmDecision.INCONCLUSIVE: (
        "Not resolved: no mean gradient stands out of the noise, so the steps may go with it or against it."
    ),
}

ADVICE = {
    Verdict.CERTIFIED: "Nothing has to change.",
    Verdict.UNCERTIFIED: "Carry on; where the guarantee matters, use amsgrad=True or a larger β2.",
    Verdict.BIASED: "More training leads further away: raise β2, or use amsgrad=True, AdaShift or ADOPT.",
    Verdict.NEIGHBOURHOOD: "To come closer, let the learning rate fall or enlarge the batch.",
    Verdict.UNSTABLE: "Go back to a good checkpoint; lower the learning rate or clip gradients.",
    Verdict.STALLED: "Let the learning rate fall no faster than 1/√t.",
    Verdict.INCONCLUSIVE: "See below what is missing.",
}


UNRESOLVED = "The bias condition is violated, and whether that does harm could not be resolved."
IN_DOUBT = "To be safe use amsgrad=True or a larger β2; see below what would tell."


@dataclass(frozen=True)
class Answer:
    """One of the four questions: a word or two, and the sentences behind it."""

    question: str
    short: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Headline:
    """The first number of a report, descent efficiency, and what it says."""

    number: str
    interval: str
    says: str


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


def headline(harm: Harm) -> Headline:
    """Return ρ, its interval where it is bounded, and a sentence that a person understands without either."""
    if not all(map(math.isfinite, harm.interval)):
        sign = {HarmDecision.HARMFUL: "< 0", HarmDecision.HARMLESS: "> 0"}.get(harm.decision, "?")
        return Headline(sign, "", f"{_share(harm)}{_window(harm) if math.isfinite(harm.z) else ''}")
    return Headline(fixed(harm.rho), interval(*harm.interval), f"{_share(harm)}{_window(harm)}")


def _window(harm: Harm) -> str:
    return f" Steps {whole(harm.first_step)} to {whole(harm.last_step)}."


def _share(harm: Harm) -> str:
    """Return in words how much of the intended descent the steps make."""
    if math.isnan(harm.z):
        return sentence(harm.reason)
    if harm.decision is not HarmDecision.HARMLESS:
        return WITHOUT_DESCENT[harm.decision]
    if not math.isfinite(harm.interval[1]):
        return "The steps descend; how much of the intended descent they make is not resolved."
    if harm.rho >= 0.995:
        return "The steps make all of the descent that their sizes intend."
    made = f"{100 * harm.rho:.0f} %" if harm.rho >= 0.01 else "less than 1 %"
    doubt = "; the interval reaches 1, so a loss is not certain" if harm.interval[1] >= 1 else ""
    return f"Of the descent that their sizes intend, the steps make {made}{doubt}."


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
    name = next((name for name in trace.logged if "loss" in name.lower()), next(iter(trace.logged), None))
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
    """Return what the verdict means and what to do, in two sentences or three."""
    return f"{sentence(UNRESOLVED if _in_doubt(diagnosis) else MEANING[diagnosis.verdict])} {advice(diagnosis)}"


def _in_doubt(diagnosis: Diagnosis) -> bool:
    """Return whether the bias condition is violated and nobody knows whether that does harm."""
    return diagnosis.verdict is Verdict.UNCERTIFIED and diagnosis.harm.decision is HarmDecision.INCONCLUSIVE


def advice(diagnosis: Diagnosis) -> str:
    """Return what to do, in a sentence."""
    waits = [c.steps_needed for c in (diagnosis.variance, diagnosis.bias, diagnosis.growth) if c.steps_needed]
    if _in_doubt(diagnosis):
        return IN_DOUBT
    if diagnosis.verdict is not Verdict.INCONCLUSIVE or not waits:
        return ADVICE[diagnosis.verdict]
    descends = "No harm is seen, the steps descend. " if diagnosis.harm.decision is HarmDecision.HARMLESS else ""
    if diagnosis.annealed:
        planned = whole(rounded_up(diagnosis.steps + max(waits)))
        return f"{descends}Its rate has come to its end; for a certificate plan about {planned} steps."
    return f"{descends}Judging it takes about {whole(rounded_up(max(waits)))} more steps."


def answers(diagnosis: Diagnosis, limited: Limits) -> tuple[Answer, ...]:
    """Return what this run answers to the four questions."""
    return (
        _certificate(diagnosis),
        _harm(diagnosis),
        Answer("What limits the run now?", str(limited.limit), tuple(map(sentence, filter(None, _told(limited))))),
        Answer("What would change it?", *_changes(diagnosis)),
    )


def _told(limited: Limits) -> tuple[str, str]:
    """Return what limits the run and what did so before; the title is the answer itself and need not be said again."""
    return limited.now.removeprefix(f"{TITLES.get(limited.limit, '')} "), limited.before


def _certificate(d: Diagnosis) -> Answer:
    checks = [(name, check) for name, check in d.checks if check is not d.harm]
    decisions = [check.decision for _, check in checks]
    short = "not decided"
    if all(decision is Decision.HOLDS for decision in decisions):
        short = "yes"
    elif Decision.VIOLATED in decisions:
        short = "no"
    lines = tuple(f"{_capital(typeset(name))}: {check.decision}. {sentence(check.reason)}" for name, check in checks)
    if len({check.reason for _, check in checks}) == 1:  # what keeps one from being judged keeps all
        lines = (sentence(d.variance.reason),)
    return Answer("Is there a certificate?", short, lines)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _harm(d: Diagnosis) -> Answer:
    short = {
        HarmDecision.HARMFUL: "yes",
        HarmDecision.HARMLESS: "none seen",
        HarmDecision.IDLE: "none, and no descent",
        HarmDecision.INCONCLUSIVE: "not resolved",
    }
    return Answer("Is there harm?", short[d.harm.decision], (sentence(d.harm.reason),))


def _changes(d: Diagnosis) -> tuple[str, tuple[str, ...]]:
    """Return how many things there are to try, and each by its number; what other rules would have had has none."""
    tries = list(dict.fromkeys(sentence(f.suggestion) for f in d.findings if f.suggestion != NOTHING))
    lines = (*(f"{place}. {what}" for place, what in enumerate(tries, 1)), *_imagined(d))
    return (f"{len(tries)} thing{'s' * (len(tries) > 1)} to try" if tries else "nothing needed"), lines


def _imagined(d: Diagnosis) -> Iterator[str]:
    """Say what other rules would have had on the same gradients, in a sentence or two."""
    if not d.what_if:
        yield "Not measured: how the same gradients would have stepped under another rule."
        return
    own, *others = d.what_if
    holding = better(d.what_if)
    if holding:
        shown = ", ".join(f"{typeset(other.rule)} {number(other.c_over_a, 2)}" for other in holding)
        yield (f"On the same gradients c⁺/a would tend to 0, from {number(own.c_over_a, 2)} as it was, under: {shown}.")
    resolved = [other for other in others if all(map(math.isfinite, other.harm.interval))]
    more = [other for other in resolved if other.harm.interval[0] > max(own.harm.rho, own.harm.interval[1])]
    if more:
        shown = ", ".join(f"{typeset(other.rule)} {fixed(other.harm.rho)}" for other in more)
        yield f"On the same gradients ρ would be higher, {fixed(own.harm.rho)} as it was, under: {shown}."
    if not (holding or more):
        yield "No other rule stands out on the same gradients; see the table of what would have been."
