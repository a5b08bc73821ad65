"""Findings: what a run shows, each in a sentence with its numbers, the reason it matters and what to try.

`FINDINGS` is the table: one function per finding, from the evidence to a finding or to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .conditions import Decision
from .drift import HarmDecision, judge_harm
from .evidence import DORMANT, Evidence
from .instability import trace_names
from .trace import Event, Trace

Array = NDArray[np.float64]

GAUSSIAN_RISE = 0.242  # c⁺/a = 0.242 (1-β2) under Gaussian noise, half of c/a (docs/theory.md 4.1, P6)
EPS_SHARE = 0.1  # below that, eps moves too few coordinates to matter
SPIKE = 5.0  # stationary gradients keep RMS_t near 1, a single Gaussian coordinate below 5
POOR_EFFICIENCY = 0.7
RISES = 0.1  # the rule calls a slope flat from -0.1; the same distance above 0 is no longer flat
ROUGH_SAMPLE = 0.1
NOTHING = "Nothing to change."

RISING_PARTS = {
    "rise_lr": "the learning rate",
    "rise_bias": "the bias correction",
    "rise_v": "the second moment",
}
RISING_ADVICE = {
    "rise_lr": "The schedule raises the learning rate again and again; the optimizer is not at fault.",
    "rise_bias": "That is how torch's AMSGrad warms up, not a defect: it divides the largest uncorrected "
    "second moment by today's bias correction. It fades after a few multiples of 1/(1-beta2) steps.",
    "rise_v": "amsgrad=True, AdaFom or a beta2 that tends to 1 would give a certificate; a larger beta2 "
    "makes the rises smaller.",
}


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing: what was seen, where, why it matters, and what to try."""

    title: str
    text: str
    why: str
    tensors: tuple[str, ...] = ()
    steps: tuple[int, int] | None = None
    suggestion: str = NOTHING


def findings_of(evidence: Evidence) -> tuple[Finding, ...]:
    """Return what the evidence shows, the most serious first."""
    found = (finding(evidence) for finding in FINDINGS)
    return tuple(finding for finding in found if finding is not None)


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
    """Report that both conditions hold while a grows."""
    if not e.certified:
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
    )


def horizon(e: Evidence) -> Finding | None:
    """Report a learning rate that is annealed inside the run."""
    if not e.annealed:
        return None
    return Finding(
        "Finite horizon: one run cannot test the variance condition",
        sentence(e.variance.reason),
        "docs/theory.md 4.1, P5",
        (),
        e.window,
        "Compare runs planned for T, 2T and 4T: with a fixed peak rate q_T stays, with a peak ~ 1/sqrt(T) it falls.",
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
    return Finding(
        "No certificate: the stepsizes keep rising",
        f"{sentence(e.bias.reason)}{origin}{_gaussian(e)} The condition is sufficient, not necessary: a violation "
        "means no certificate, not divergence; whether the rises do harm is measured apart.",
        "docs/theory.md 4.1, P6",
        _largest(e, e.increment("c_plus")),
        e.window,
        RISING_ADVICE[max(parts, key=lambda name: parts[name])] if shares else RISING_ADVICE["rise_v"],
    )


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


def unresolved(e: Evidence) -> Finding | None:
    """Report a harm test that decides nothing, and what would help."""
    if e.harm.decision is not HarmDecision.INCONCLUSIVE or e.harm.steps_needed is None:
        return None
    return Finding(
        "Harm could not be resolved",
        f"{sentence(e.harm.reason)} This is neither an alarm nor an all-clear.",
        "docs/theory.md 4.6",
        (),
        (e.harm.first_step, e.harm.last_step),
        f"Another {e.harm.steps_needed} steps double the length of the stretches; larger batches help too.",
    )


def not_yet(e: Evidence) -> Finding | None:
    """Report conditions that more steps would decide."""
    unsettled = [c for c in (e.variance, e.bias) if c.steps_needed is not None]
    if e.growth.steps_needed is not None and not e.annealed:
        needed = [e.growth.steps_needed, *(c.steps_needed or 0 for c in unsettled)]
    else:
        needed = [c.steps_needed or 0 for c in unsettled]
    if not needed:
        return None
    reasons = [c.reason for c in unsettled] + [e.growth.reason] * (len(needed) > len(unsettled))
    return Finding(
        "Not decided yet",
        " ".join(sentence(reason) for reason in dict.fromkeys(reasons)),
        "docs/theory.md 4.2",
        (),
        e.window,
        f"Train at least {max(needed)} more steps, then ask again.",
    )


def survived(e: Evidence) -> Finding | None:
    """Report non-finite gradients that the run outlived."""
    events = [event for event in e.trace.events if event.kind == "nonfinite"]
    column = e.trace.column("nonfinite")
    counted = np.nan_to_num(column[-1]) if len(column) else np.zeros(len(e.trace.tensors))
    if e.broken is not None or (not events and not counted.any()):
        return None
    return Finding(
        "Non-finite gradients, survived",
        f"NaN or infinite values came up in {counted.sum():.0f} coordinate-steps and {len(events)} events; the "
        "parameters are finite now.",
        "docs/theory.md 4.1, P10",
        tuple(dict.fromkeys([*trace_names(e.trace, counted > 0), *_tensors(events)])),
        _span(events),
        "With loss scaling an occasional overflow is normal; otherwise look at the batches of these steps.",
    )


def spikes(e: Evidence) -> Finding | None:
    """Report gradients far above what the second moment had seen, after the start-up."""
    column = np.nan_to_num(e.trace.column("rms_max"))
    if len(column) == 0:
        return None
    largest = column[-1]
    spiked = (largest > SPIKE) & (largest > (column[e.first_row] if e.first_row else 0.0))
    if not spiked.any():
        return None
    worst = int(np.argmax(np.where(spiked, largest, 0.0)))
    return Finding(
        "Gradient spikes that the second moment did not foresee",
        f"RMS_t, near 1 where gradients are stationary, reached {largest[worst]:.3g} in "
        f"{e.trace.tensors[worst].name}; {int(spiked.sum())} of {len(spiked)} tensors passed {SPIKE:g}. Such a step "
        "is up to that many times longer than usual.",
        "docs/theory.md 3, R12",
        trace_names(e.trace, spiked),
        e.window,
        "A lower beta2 adapts sooner; dividing the step by max(1, RMS_t), as StableAdamW does, bounds it.",
    )


def eps_bound(e: Evidence) -> Finding | None:
    """Report tensors whose stepsize eps decides, not the gradient."""
    active = e.increment("active")
    share = np.divide(e.increment("eps_bound"), active, out=np.zeros_like(active), where=active > 0)
    if not np.any(share > EPS_SHARE):
        return None
    worst = int(np.argmax(share))
    return Finding(
        "eps decides the stepsize",
        f"In {int((share > EPS_SHARE).sum())} of {len(share)} tensors eps is larger than the root it is added to in "
        f"more than {EPS_SHARE:.0%} of the coordinate-steps, most of all in {e.trace.tensors[worst].name} "
        f"({share[worst]:.0%}). There the method is SGD with momentum at the rate lr/eps.",
        "docs/theory.md 4.1, P10",
        trace_names(e.trace, share > EPS_SHARE),
        e.window,
        "Fine if meant so; otherwise lower eps or scale up the loss, as the gradients are no larger than eps.",
    )


def dormant(e: Evidence) -> Finding | None:
    """Report tensors whose a is carried by a few coordinates with hardly any gradient."""
    spread = e.spread()
    carried = spread > DORMANT
    if not carried.any():
        return None
    worst = int(np.argmax(spread))
    withheld = " Together they make up most of a, so no certificate is given." if e.dormant else ""
    return Finding(
        "Dormant coordinates carry a",
        f"In {int(carried.sum())} of {len(carried)} tensors the mean stepsize is more than {DORMANT:g} times the "
        f"median one, in {e.trace.tensors[worst].name} {spread[worst]:.0f} times: coordinates with next to no "
        f"gradient make up most of a there, so b/a and c+/a speak of them more than of those that learn.{withheld}",
        "docs/theory.md 1.5",
        trace_names(e.trace, carried),
        e.window,
        "Read the conditions in the tensors without this; raise eps to where the smallest useful gradients lie.",
    )


def interruptions(e: Evidence) -> Finding | None:
    """Report skipped steps, jumps and resets, which leave marks in the sums."""
    kinds = ("skipped", "moment reset", "step jump", "fault")
    events = [event for event in e.trace.events if event.kind in kinds]
    if not events:
        return None
    counts = ", ".join(f"{kind}: {n}" for kind in kinds if (n := sum(ev.kind == kind for ev in events)))
    return Finding(
        "The run was interrupted",
        f"{counts[:1].upper()}{counts[1:]}. The last, at step {events[-1].step}: {sentence(events[-1].message)}",
        "docs/theory.md 4.1, P7",
        _tensors(events),
        _span(events),
        "Resume with the optimizer's state: a second moment that starts again makes the stepsizes jump.",
    )


def unreadable(e: Evidence) -> Finding | None:
    """Report tensors whose stepsize could not be read, or not be proved."""
    names = trace_names(e.trace, np.array([tensor.formula is None for tensor in e.trace.tensors], dtype=bool))
    messages = dict.fromkeys(event.message for event in e.trace.events if event.kind == "unreadable")
    if not names and not messages:
        return None
    return Finding(
        "Tensors without a readable stepsize",
        f"{len(names)} of {len(e.trace.tensors)} tensors have no stepsize here and are left out of a, b "
        f"and c. " + " ".join(sentence(message) for message in list(messages)[:3]),
        "docs/theory.md 4.1, P10",
        names,
        None,
        "Their update size, update-to-weight ratio and alignment are recorded all the same.",
    )


def sampling(e: Evidence) -> Finding | None:
    """Report how far sums from a watched sample may be off."""
    relative = {name: relative_error(e.trace, name) for name in ("a", "b", "c")}
    if not any(value > 0 for value in relative.values()):
        return None
    numbers = ", ".join(f"{name} {value:.1%}" for name, value in relative.items())
    return Finding(
        "Watched by a sample",
        f"Standard errors of the sums over all tensors, relative to the sums: {numbers}.",
        "docs/theory.md 4.5",
        (),
        None,
        "Watch more: raise `coordinates`." if max(relative.values()) > ROUGH_SAMPLE else NOTHING,
    )


def relative_error(trace: Trace, name: str) -> float:
    """Return the relative standard error of a total at the last record; tensors are drawn independently."""
    if len(trace.steps) == 0:
        return 0.0
    total = float(trace.total(name)[-1])
    return float(np.sqrt(np.nansum(trace.column(f"{name}_se")[-1] ** 2))) / total if total > 0 else 0.0


def _harmful_tensors(e: Evidence) -> tuple[str, ...]:
    """Return the tensors that are harmful each for itself."""
    drift = e.trace.drift
    if drift is None or len(drift.gram_dd) != len(e.trace.tensors):
        return ()
    grams = zip(drift.gram_dd, drift.gram_dg, drift.gram_gg, strict=True)
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


def _tensors(events: Sequence[Event]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(event.tensor for event in events if event.tensor))


def _span(events: Sequence[Event]) -> tuple[int, int] | None:
    steps = [event.step for event in events]
    return (min(steps), max(steps)) if steps else None


def sentence(text: str) -> str:
    """Return text with a capital at its head and a full stop at its end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


FINDINGS: tuple[Callable[[Evidence], Finding | None], ...] = (
    broke,
    harm,
    died_out,
    certificate,
    noise_ball,
    horizon,
    rises,
    efficiency,
    unresolved,
    not_yet,
    survived,
    spikes,
    eps_bound,
    dormant,
    interruptions,
    unreadable,
    sampling,
)
