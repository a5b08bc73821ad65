"""Findings: what a run shows, each in a sentence with its numbers, the reason it matters and what to try.

Here are those about the verdict: what it rests on, and what would decide it. `FINDINGS` is their table: one function
per finding, from the evidence to a finding or to nothing. Those about the record itself are in `findings_record.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .alert import Alert, alerts_of
from .conditions import GAUSSIAN_RISE, Condition, Decision, Growth
from .drift import HarmDecision, judge_harm
from .evidence import Evidence
from .finding import NOTHING, Finding, listed, rounded_up, sentence
from .findings_record import RECORD_FINDINGS
from .instability import trace_names
from .pace import even_products
from .remedy import REMEDIES, Remedy
from .skewness import WHOLE
from .what_if import better

__all__ = ["ALERTED", "FINDINGS", "GAUSSIAN_RISE", "NOTHING", "RISES", "Finding", "findings_of", "sentence"]

Array = NDArray[np.float64]

ALERTED = "Alerts came while the run went on"
"""The title of the finding that says that something was seen, and not what it is."""
POOR_EFFICIENCY = 0.7
RISES = 0.1  # the rule calls a slope flat from -0.1; the same distance above 0 is no longer flat

RISING_PARTS = {
    "rise_lr": "the learning rate",
    "rise_bias": "the bias correction",
    "rise_v": "the second moment",
}
RISING_ADVICE = {
    "rise_lr": "The schedule raises the learning rate again and again; the optimizer is not at fault.",
    "rise_bias": "That is how torch's AMSGrad warms up, not a defect: it divides the largest uncorrected "
    "second moment by today's bias correction. It fades after a few multiples of 1/(1-beta2) steps.",
    "rise_v": "Under amsgrad=True, AdaFom or a beta2 that tends to 1 the bias condition would hold; a larger beta2 "
    "makes the rises smaller.",
}


def findings_of(evidence: Evidence) -> tuple[Finding, ...]:
    """Return what the evidence shows, the most serious first."""
    found = (see(evidence) for see in (*FINDINGS, *RECORD_FINDINGS))
    return tuple(replace(seen, remedies=_fitting(seen.remedies, evidence)) for seen in found if seen is not None)


def _fitting(remedies: Sequence[Remedy], e: Evidence) -> tuple[Remedy, ...]:
    """Return the remedies that can follow the optimizer of the run."""
    optimizer, groups = str(e.trace.meta.get("optimizer", "")), e.trace.meta.get("hyperparameters", [])
    return tuple(remedy for remedy in remedies if remedy.fits(optimizer, groups))


def broke(e: Evidence) -> Finding | None:
    """Report non-finite values at the end, or stepsize and update blowing up together."""
    if e.broken is None:
        return None
    text, tensors = e.broken
    first = next((event for event in e.trace.events if event.kind == "nonfinite"), None)
    since = f" It began at step {first.step}: {sentence(first.message)}" if first else ""
    return Finding(
        "The run broke",
        text + since,
        "docs/theory.md 3, R9-R10",
        tensors,
        e.window,
        "Go back to the last good checkpoint; lower the learning rate, clip gradients or raise eps; check the batch.",
    )


def alerted(e: Evidence) -> Finding | None:
    """Report the alerts that were given while the run went on: the first of each rule, and how many followed."""
    alerts = alerts_of(e.trace)
    if not alerts:
        return None
    by_rule: dict[str, list[Alert]] = {}
    for alert in alerts:
        by_rule.setdefault(alert.rule, []).append(alert)
    firsts = [alike[0] for alike in by_rule.values()]
    tries = dict.fromkeys(sentence(alert.suggestion) for alert in firsts if alert.suggestion)
    return Finding(
        ALERTED,
        " ".join(_told(*alike) for alike in by_rule.values()),
        "docs/theory.md 3, R9-R12",
        tuple(dict.fromkeys(alert.tensor for alert in alerts if alert.tensor)),
        (min(alert.step for alert in alerts), max(alert.step for alert in alerts)),
        " ".join(tries) or "Look at the run around these steps; docs/alerts.md says what each rule means.",
        tuple(remedy for rule in by_rule for remedy in REMEDIES.get(rule, ())),
    )


def _told(first: Alert, *more: Alert) -> str:
    """Return the first alert of a rule in words, and how many followed."""
    where = f" in {first.tensor}" if first.tensor and first.tensor not in first.message else ""
    cause = f" Likely cause: {first.cause}." if first.cause else ""
    after = f" {len(more)} more of this rule came, the last at step {more[-1].step}." if more else ""
    return f"{first.rule.capitalize()} at step {first.step}{where}: {first.message.removesuffix('.')}.{cause}{after}"


def harm(e: Evidence) -> Finding | None:
    """Report steps that go against the mean gradient."""
    if e.harm.decision is not HarmDecision.HARMFUL:
        return None
    size = f" Their mean direction is {e.harm.relative_size:.3g} times as long as the mean gradient."
    alone = " The bias condition is not violated, though, so the verdict does not rest on this."
    return Finding(
        "Harm: the steps go where the mean gradient does not",
        e.harm.reason
        + (size if math.isfinite(e.harm.relative_size) else "")
        + (alone if e.bias.decision is not Decision.VIOLATED else ""),
        "docs/theory.md 4.4 and 4.6",
        _harmful_tensors(e),
        (e.harm.first_step, e.harm.last_step),
        "Raise beta2, or use amsgrad=True, AdaShift or ADOPT, which weigh rare large gradients in full.",
        REMEDIES["harm"],
    )


def skewed(e: Evidence) -> Finding | None:
    """Report a β2 that lies below what the skewness of the gradients asks for."""
    beta2 = e.trace.groups.get("beta2")
    if e.bias.decision is Decision.HOLDS or beta2 is None or not np.isfinite(beta2[-1:]).any():
        return None
    own = float(np.nanmin(beta2[-1]))
    asking = [s for s in e.skewness if s.beta2_interval[0] > own]
    if not asking:
        return None
    most = max(asking, key=lambda s: s.beta2)
    low, high = most.beta2_interval
    return Finding(
        "Rare large gradients ask for a larger beta2",
        f"E[g^3]/(E[g^2] E[g]) is {most.value:.3g} over {most.name}; to first order Adam then climbs below beta2 = "
        f"{most.beta2:.6g} [{low:.6g}, {high:.6g}], and it runs with {own:.6g}.",
        "docs/theory.md 4.4",
        tuple(s.name for s in asking if s.name != WHOLE),
        e.window,
        f"Raise beta2 above {high:.6g}, or use amsgrad=True, AdaShift or ADOPT.",
        REMEDIES["skewed"],
    )


def died_out(e: Evidence) -> Finding | None:
    """Report stepsizes whose sum converges, before or after the gradients died."""
    if not e.died_out:
        return None
    left = "" if math.isnan(e.gradients_left) else f" |g|^2 is {e.gradients_left:.2g} of its largest block."
    advice = "Let the learning rate fall no faster than 1/sqrt(t); summing AdaGrad has a sqrt(t) of its own."
    return Finding(
        "Stalled: the stepsizes died out" if e.stalled else "At rest: stepsizes and gradients died out together",
        f"{sentence(e.growth.reason)} The run can move no further than a finite sum of steps.{left}",
        "docs/theory.md 4.1, P8",
        (),
        e.window,
        advice if e.stalled else NOTHING,
    )


def certificate(e: Evidence) -> Finding | None:
    """Report that both conditions hold while a grows, of a run that did not break."""
    if not e.certified or e.broken is not None:
        return None
    return Finding(
        "Certificate: theory lets these steps converge",
        f"Both conditions hold and a keeps growing. {sentence(e.variance.reason)} {sentence(e.bias.reason)}",
        "docs/theory.md 1.5 and 4.5",
        (),
        e.window,
    )


def noise_ball(e: Evidence) -> Finding | None:
    """Report a violated variance condition: with a constant rate the lot of every method."""
    if e.variance.decision is not Decision.VIOLATED:
        return None
    also = " The bias condition is violated as well, see there." if e.bias.decision is Decision.VIOLATED else ""
    constant = (
        "With a constant learning rate and noisy gradients b/a tends to a constant for EVERY method, SGD included: the "
        "run settles in a noise ball (or a limit cycle) whose size follows "
        f"q_T = {e.variance.ratios[-1]:.3g}. That is not divergence."
    )
    rising = "It rises instead of falling or staying: the run has not settled, as is common while it still learns fast."
    rises = e.variance.low > RISES
    return Finding(
        "Neighbourhood: the noise of the steps does not die out",
        f"{sentence(e.variance.reason)} {rising if rises else constant}{also}",
        "docs/theory.md 4.1, P4",
        (),
        e.window,
        "Train on and ask again; let the learning rate fall if the loss does not."
        if rises
        else "Let the learning rate fall (alpha/sqrt(t), cosine), enlarge the batch, or average the iterates.",
        () if rises else REMEDIES["noise_ball"],
    )


def horizon(e: Evidence) -> Finding | None:
    """Report a learning rate that is annealed inside the run."""
    if not e.annealed:
        return None
    dies_out = e.variance.decision is Decision.HOLDS
    return Finding(
        "Finite horizon: the noise of the steps dies out as the learning rate ends"
        if dies_out
        else "Finite horizon: one run cannot test the variance condition",
        sentence(e.variance.reason),
        "docs/theory.md 4.1, P5",
        (),
        e.window,
        NOTHING
        if dies_out
        else "Let the rate end at 0, or compare runs planned for T, 2T and 4T: with a peak ~ 1/sqrt(T) q_T falls.",
    )


def rises(e: Evidence) -> Finding | None:
    """Report a violated bias condition: which part of the stepsize rises, how much, and where."""
    if e.bias.decision is not Decision.VIOLATED:
        return None
    parts = {name: abs(float(e.increment(name).sum())) for name in RISING_PARTS}
    whole = sum(parts.values())
    shares = [
        f"{parts[n] / whole:.0%} come from {words}" for n, words in RISING_PARTS.items() if parts[n] > 0.005 * whole
    ]
    origin = f" Of the rises, {', '.join(shares)}." if shares else ""
    most = max(parts, key=lambda name: parts[name]) if shares else "rise_v"
    return Finding(
        "No certificate: the stepsizes keep rising",
        f"{sentence(e.bias.reason)}{origin}{_gaussian(e)} The condition is sufficient, not necessary: a violation "
        "means no certificate, not divergence; whether the rises do harm is measured apart.",
        "docs/theory.md 4.1, P6",
        _largest(e, e.increment("c_plus")),
        e.window,
        RISING_ADVICE[most],
        REMEDIES["rises"] if most == "rise_v" else (),
    )


def other_rules(e: Evidence) -> Finding | None:
    """Report the rules under which the bias condition would hold on the same gradients."""
    found = e.what_if
    holding = better(found)
    if not holding:
        return None
    sure = [other.rule for other in holding if other.certified]
    shown = listed([f"{other.rule} ({other.c_over_a:.2g})" for other in holding])
    short = [other.rule for other in found[1:] if other.too_short]
    untold = f" This run is too short to judge {listed(short, 'or')}." if short else ""
    return Finding(
        "Other rules would meet the bias condition on these gradients",
        f"c+/a stands at {found[0].c_over_a:.2g} in the last block as the run was made. On the same gradients it would "
        f"be smaller and tend to 0 under {shown}. {_worth(len(holding), sure)}{untold} Another rule would have met "
        "other gradients, so this says nothing of where it ends.",
        "docs/theory.md 4.5",
        (),
        e.window,
        ("" if e.harm.decision is HarmDecision.HARMFUL else "Without harm there is no need for another rule. ")
        + (
            f"For a certificate take {listed(sure, 'or')}."
            if sure
            else f"{listed([other.rule for other in holding], 'or')} would let the bias condition hold; a certificate "
            "asks for the variance condition as well."
        ),
    )


def _worth(holding: int, sure: Sequence[str]) -> str:
    """Say which of the rules under which the bias condition holds would have a certificate."""
    if not sure:
        return (
            "The bias condition would hold, but none of them would have a certificate here: that takes the variance "
            "condition and a growing a as well."
        )
    if len(sure) == holding:
        return "The variance condition would hold as well: that is a certificate."
    return f"The variance condition would hold as well, which makes a certificate, under {listed(sure)} only."


def efficiency(e: Evidence) -> Finding | None:
    """Report the share of the intended descent that adaptivity leaves."""
    if e.harm.decision is not HarmDecision.HARMLESS:
        return None
    low, high = e.harm.interval
    share = "the share of the intended descent that adaptivity leaves" if e.harm.rho < 1 else "nothing is lost"
    return Finding(
        f"Descent efficiency {e.harm.rho:.2f}",
        f"No harm is seen: rho = {e.harm.rho:.3g}, interval [{low:.3g}, {high:.3g}]: {share}.",
        "docs/theory.md 4.4 and 4.6",
        (),
        (e.harm.first_step, e.harm.last_step),
        "A larger beta2 gives more of the descent back." if high < 1 and e.harm.rho < POOR_EFFICIENCY else NOTHING,
    )


def idle(e: Evidence) -> Finding | None:
    """Report steps that neither climb nor descend."""
    if e.harm.decision is not HarmDecision.IDLE:
        return None
    return Finding(
        "No descent is left",
        f"{sentence(e.harm.reason)} More steps like these lead nowhere.",
        "docs/theory.md 4.6",
        (),
        (e.harm.first_step, e.harm.last_step),
        "Nothing, if the run has arrived; if it should still learn, a larger beta2 or amsgrad=True gives descent back.",
    )


def unresolved(e: Evidence) -> Finding | None:
    """Report a harm test that decides nothing, and what would help."""
    if e.harm.decision is not HarmDecision.INCONCLUSIVE or not e.harm.last_step:
        return None
    needed = e.harm.steps_needed
    return Finding(
        "Harm could not be resolved",
        f"{sentence(e.harm.reason)} This is neither an alarm nor an all-clear.",
        "docs/theory.md 4.6",
        (),
        (e.harm.first_step, e.harm.last_step),
        f"Another {needed} steps should tell; larger batches help too."
        if needed
        else "Larger batches; more steps like these might not tell.",
    )


def not_yet(e: Evidence) -> Finding | None:
    """Report conditions that more steps would decide.

    A run too short for one is as a rule too short for all, for one reason that each of the checks gives: then the
    finding names them and leaves the reason to them.
    """
    checks: dict[str, Condition | Growth] = {"the variance condition": e.variance, "the bias condition": e.bias}
    if not e.annealed:
        checks["the growth of a"] = e.growth
    open_ones = {name: check for name, check in checks.items() if check.steps_needed is not None}
    if not open_ones:
        return None
    needed = max(check.steps_needed or 0 for check in open_ones.values())
    reasons = list(dict.fromkeys(check.reason for check in open_ones.values()))
    if len(reasons) == 1 and len(open_ones) > 1:
        reasons = [f"{listed(list(open_ones))} wait for more steps after step {e.start}"]
    return Finding(
        "Not decided yet",
        " ".join(sentence(reason) for reason in reasons),
        "docs/theory.md 4.2",
        (),
        e.window,
        f"{_wait(e, needed)}; if you need no certificate, nothing.",
    )


def _wait(e: Evidence, needed: int) -> str:
    """Say what more steps would take; of a rate that has come to its end there are none."""
    if e.annealed:
        return f"Plan some {rounded_up(e.window[1] + needed)} steps: this plan has come to its end"
    return f"Train at least {rounded_up(needed)} more steps, then ask again"


def _harmful_tensors(e: Evidence) -> tuple[str, ...]:
    """Return the tensors that are harmful each for itself."""
    drift = e.trace.drift
    if drift is None or len(drift.gram_dd) != len(e.trace.tensors):
        return ()
    grams = zip(*even_products(e.trace, drift), strict=True)
    alone = [judge_harm(dd, dg, gg, drift.first_step, drift.last_step).decision for dd, dg, gg in grams]
    return trace_names(e.trace, np.array([decision is HarmDecision.HARMFUL for decision in alone], dtype=bool))


def _gaussian(e: Evidence) -> str:
    """Return the size of c⁺/a that noise alone makes, for scale."""
    beta2 = e.trace.groups.get("beta2")
    if beta2 is None or len(beta2) == 0 or not np.isfinite(beta2[-1]).any():
        return ""
    expected = GAUSSIAN_RISE * (1 - float(np.nanmax(beta2[-1])))
    return f" For scale: Gaussian noise alone makes c+/a = {expected:.2g} at this beta2."


def _largest(e: Evidence, sizes: Array, count: int = 3) -> tuple[str, ...]:
    order = np.argsort(-sizes, kind="stable")[:count]
    return tuple(e.trace.tensors[i].name for i in order if sizes[i] > 0)


FINDINGS: tuple[Callable[[Evidence], Finding | None], ...] = (
    broke,
    alerted,
    harm,
    skewed,
    died_out,
    certificate,
    noise_ball,
    horizon,
    rises,
    other_rules,
    efficiency,
    idle,
    unresolved,
    not_yet,
)
"""The most serious first."""
