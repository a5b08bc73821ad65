"""Findings: what a run shows, each in a sentence with its numbers, the reason it matters and what to try.

`FINDINGS` is the table: one function per finding, from the evidence to a finding or to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .conditions import Condition, Decision, Growth
from .drift import Harm, HarmDecision, judge_harm
from .trace import Trace

Array = NDArray[np.float64]

GAUSSIAN_RISE = 0.484  # E max(0, e_t - e_{t-1}) / (E e (1-β2)) under Gaussian noise (docs/theory.md 4.1, P6)
EPS_SHARE = 0.1  # below that, eps moves too few coordinates to matter
SPIKE = 5.0  # stationary gradients keep RMS_t near 1 (docs/theory.md 3, R12)
POOR_EFFICIENCY = 0.7
ROUGH_SAMPLE = 0.1


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing: what was seen, where, why it matters, and what to try."""

    title: str
    text: str
    why: str
    tensors: tuple[str, ...] = ()
    steps: tuple[int, int] | None = None
    suggestion: str = ""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that was measured and decided about one run."""

    trace: Trace
    start: int
    variance: Condition
    bias: Condition
    growth: Growth
    harm: Harm
    annealed: bool
    gradients_left: float
    """Mean ‖g‖² of the last judged block over that of the largest one; nan if not known."""
    broken: str | None
    broken_tensors: tuple[str, ...]

    @property
    def window(self) -> tuple[int, int]:
        """The first and the last judged step (the whole run where nothing could be judged)."""
        steps = self.trace.steps
        if len(steps) == 0:
            return 0, 0
        return int(steps[self.first_row]), int(steps[-1])

    @property
    def first_row(self) -> int:
        """The index of the first judged record."""
        row = int(np.searchsorted(self.trace.steps, self.start))
        return row if row < len(self.trace.steps) - 1 else 0

    def increment(self, name: str) -> Array:
        """Return how much a cumulative column grew over the judged window, `(tensors,)`; 0 where unknown."""
        column = self.trace.column(name)
        if len(column) == 0:
            return np.zeros(len(self.trace.tensors))
        before = column[self.first_row] if self.first_row else np.zeros(column.shape[1])
        return np.asarray(np.nan_to_num(column[-1] - before, nan=0.0, posinf=0.0, neginf=0.0))

    def names(self, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
        """Return the names of the chosen tensors."""
        return tuple(tensor.name for tensor, keep in zip(self.trace.tensors, chosen, strict=True) if keep)

    def largest(self, sizes: Array, count: int = 3) -> tuple[str, ...]:
        """Return the names of the tensors with the largest positive sizes, largest first."""
        order = np.argsort(-sizes, kind="stable")[:count]
        return tuple(self.trace.tensors[i].name for i in order if sizes[i] > 0)


def findings_of(evidence: Evidence) -> tuple[Finding, ...]:
    """Return what the evidence shows, the most serious first."""
    found = (finding(evidence) for finding in FINDINGS)
    return tuple(finding for finding in found if finding is not None)


def broken(e: Evidence) -> Finding | None:
    """Non-finite values, or stepsize and update blowing up together."""
    if e.broken is None:
        return None
    return Finding(
        "The run broke",
        e.broken,
        "docs/theory.md 3, R9-R10",
        e.broken_tensors,
        e.window,
        "Go back to the last good checkpoint; lower the learning rate, clip gradients, or raise eps; check the batch.",
    )


def stalled(e: Evidence) -> Finding | None:
    """A stepsize that died before the gradients did."""
    if e.growth.decision is not Decision.VIOLATED or e.annealed:
        return None
    alive = (
        ""
        if math.isnan(e.gradients_left)
        else f" (‖g‖² is still {e.gradients_left:.2g} of its largest block)"
    )
    return Finding(
        "The stepsizes died out",
        f"{e.growth.reason} The run can move no further than a finite sum of steps{alive}.",
        "docs/theory.md 4.1, P8",
        (),
        e.window,
        "Let the learning rate fall no faster than 1/sqrt(t). AdaGrad that sums g² already divides by sqrt(t).",
    )


def certificate(e: Evidence) -> Finding | None:
    """Both conditions hold while a grows."""
    decisions = (e.variance.decision, e.bias.decision, e.growth.decision)
    if any(decision is not Decision.HOLDS for decision in decisions):
        return None
    return Finding(
        "Certificate: theory lets these steps converge",
        f"Both conditions hold and a grows. {e.variance.reason} {e.bias.reason}",
        "docs/theory.md 1.5 and 4.5",
        (),
        e.window,
        "Nothing to change.",
    )


def noise_ball(e: Evidence) -> Finding | None:
    """The variance condition is violated: with a constant rate, for every method."""
    if e.variance.decision is not Decision.VIOLATED:
        return None
    also = (
        " The bias condition is violated as well (see there)." if e.bias.decision is Decision.VIOLATED else ""
    )
    return Finding(
        "Neighbourhood: the noise of the steps does not die out",
        f"{e.variance.reason} With a constant learning rate and noisy gradients b/a tends to a constant for EVERY "
        f"method, SGD included: the run settles into a noise ball (or a limit cycle) whose size is set by "
        f"q_T = {e.variance.ratios[-1]:.3g}. That is not divergence.{also}",
        "docs/theory.md 4.1, P4",
        (),
        e.window,
        "To shrink the ball, let the learning rate fall (1/sqrt(t), or anneal at the end), or enlarge the batch.",
    )


def horizon(e: Evidence) -> Finding | None:
    """The learning rate is annealed inside the run."""
    if not e.annealed:
        return None
    return Finding(
        "Finite horizon: the variance condition cannot be tested in one run",
        e.variance.reason,
        "docs/theory.md 4.1, P5",
        (),
        e.window,
        "Compare runs planned for T, 2T and 4T steps: with a fixed peak rate q_T stays, with a peak ~ 1/sqrt(T) it falls.",
    )


def undecided(e: Evidence) -> Finding | None:
    """A condition that more steps would decide."""
    open_ones = [c for c in (e.variance, e.bias, e.growth) if c.steps_needed is not None]
    if not open_ones:
        return None
    return Finding(
        "Not decided yet",
        " ".join(dict.fromkeys(c.reason for c in open_ones)),
        "docs/theory.md 4.2",
        (),
        e.window,
        f"Train at least {max(c.steps_needed or 0 for c in open_ones)} more steps, then ask again.",
    )


def rises(e: Evidence) -> Finding | None:
    """The bias condition is violated: which part of the stepsize made the rises, and in which tensors."""
    if e.bias.decision is not Decision.VIOLATED:
        return None
    parts = {name: abs(float(e.increment(name).sum())) for name in ("rise_lr", "rise_bias", "rise_v")}
    whole = sum(parts.values())
    shares = "".join(
        f" {parts[name] / whole:.0%} of the rises come from {words}{end}"
        for (name, words), end in zip(PARTS.items(), (",", ",", "."), strict=True)
        if whole > 0
    )
    main = max(parts, key=lambda name: parts[name])
    return Finding(
        "No certificate: the stepsizes keep rising",
        f"{e.bias.reason}{shares}{_gaussian(e)} The condition is sufficient, not necessary: a violation means no "
        f"certificate, not divergence. Whether the rises do harm is measured apart.",
        "docs/theory.md 4.1, P6",
        e.largest(e.increment("c_plus")),
        e.window,
        ADVICE[main] if whole > 0 else ADVICE["rise_v"],
    )


PARTS = {
    "rise_lr": "the learning rate",
    "rise_bias": "the bias correction",
    "rise_v": "the second moment",
}
ADVICE = {
    "rise_lr": "The schedule raises the learning rate again and again; the optimizer is not at fault.",
    "rise_bias": "That is how torch's AMSGrad warms up, not a defect: it divides the largest uncorrected second "
    "moment by today's bias correction. It fades after a few multiples of 1/(1-beta2) steps.",
    "rise_v": "amsgrad=True, AdaFom or a beta2 that tends to 1 would give a certificate; a larger beta2 smaller rises.",
}


def _gaussian(e: Evidence) -> str:
    beta2 = e.trace.groups.get("beta2")
    if beta2 is None or len(beta2) == 0 or not np.isfinite(beta2[-1]).any():
        return ""
    expected = GAUSSIAN_RISE * (1 - float(np.nanmax(beta2[-1])))
    return f" For scale: pure Gaussian noise alone makes c+/a = {expected:.2g} at this beta2."


def harm(e: Evidence) -> Finding | None:
    """Steps that go against the mean gradient."""
    if e.harm.decision is not HarmDecision.HARMFUL:
        return None
    unviolated = (
        "" if e.bias.decision is Decision.VIOLATED else " (the bias condition is not violated, though)"
    )
    return Finding(
        f"Harm: the steps go where the mean gradient does not{unviolated}",
        f"{e.harm.reason} Their mean direction is {e.harm.relative_size:.3g} times as long as the mean gradient."
        if math.isfinite(e.harm.relative_size)
        else e.harm.reason,
        "docs/theory.md 4.4 and 4.6",
        _harmful_tensors(e),
        (e.harm.first_step, e.harm.last_step),
        "Raise beta2, or use amsgrad=True, AdaShift or ADOPT, which weigh rare large gradients in full.",
    )


def _harmful_tensors(e: Evidence) -> tuple[str, ...]:
    drift = e.trace.drift
    if drift is None:
        return ()
    grams = zip(drift.gram_dd, drift.gram_dg, drift.gram_gg, strict=True)
    alone = [judge_harm(dd, dg, gg, drift.first_step, drift.last_step).decision for dd, dg, gg in grams]
    harmful = [decision is HarmDecision.HARMFUL for decision in alone]
    return e.names(np.array(harmful, dtype=bool)) if len(harmful) == len(e.trace.tensors) else ()


def efficiency(e: Evidence) -> Finding | None:
    """Descent efficiency: what adaptivity leaves of the intended descent."""
    if e.harm.decision is not HarmDecision.HARMLESS:
        return None
    low, high = e.harm.interval
    poor = e.harm.rho < POOR_EFFICIENCY
    share = (
        "the share of the intended descent that adaptivity leaves" if e.harm.rho < 1 else "nothing is lost"
    )
    return Finding(
        f"Descent efficiency {e.harm.rho:.2f}",
        f"No harm is seen: rho = {e.harm.rho:.3g}, interval [{low:.3g}, {high:.3g}], is descent efficiency: {share}.",
        "docs/theory.md 4.4 and 4.6",
        (),
        (e.harm.first_step, e.harm.last_step),
        "A larger beta2 gives more of the descent back." if poor else "Nothing to change.",
    )


def unresolved(e: Evidence) -> Finding | None:
    """The harm test decides nothing."""
    if e.harm.decision is not HarmDecision.INCONCLUSIVE or e.harm.steps_needed is None:
        return None
    return Finding(
        "Harm could not be resolved",
        f"{e.harm.reason} This is neither an alarm nor an all-clear.",
        "docs/theory.md 4.6",
        (),
        (e.harm.first_step, e.harm.last_step),
        f"Another {e.harm.steps_needed} steps double the length of the stretches; larger batches help too.",
    )


def eps_bound(e: Evidence) -> Finding | None:
    """Coordinates whose stepsize eps decides, not the gradient."""
    active = e.increment("active")
    share = np.divide(e.increment("eps_bound"), active, out=np.zeros_like(active), where=active > 0)
    if not np.any(share > EPS_SHARE):
        return None
    worst = int(np.argmax(share))
    return Finding(
        "eps decides the stepsize",
        f"In {int((share > EPS_SHARE).sum())} of {len(share)} tensors eps is larger than the root it is added to in "
        f"more than {EPS_SHARE:.0%} of the coordinate-steps; most of all in {e.trace.tensors[worst].name} "
        f"({share[worst]:.0%}). There the method is SGD with momentum at the rate lr/eps.",
        "docs/theory.md 4.1, P10",
        e.names(share > EPS_SHARE),
        e.window,
        "Harmless if meant so; otherwise lower eps or scale up the loss, as gradients are near eps.",
    )


def spikes(e: Evidence) -> Finding | None:
    """Gradients far above what the second moment has seen."""
    column = e.trace.column("rms_max")
    if len(column) == 0:
        return None
    largest = column[-1]
    risen = largest > np.nan_to_num(column[e.first_row], nan=0.0) if e.first_row else np.isfinite(largest)
    spiked = risen & (np.nan_to_num(largest, nan=0.0) > SPIKE)
    if not spiked.any():
        return None
    worst = int(np.argmax(np.where(spiked, largest, 0.0)))
    return Finding(
        "Gradient spikes that the second moment did not foresee",
        f"RMS_t, near 1 when gradients are stationary, reached {largest[worst]:.3g} in {e.trace.tensors[worst].name}; "
        f"{int(spiked.sum())} tensors passed {SPIKE:g}. One such step is that many times longer than usual.",
        "docs/theory.md 3, R12",
        e.names(spiked),
        e.window,
        "A lower beta2 adapts sooner; clipping the update by max(1, RMS_t), as StableAdamW does, bounds the step.",
    )


def unreadable(e: Evidence) -> Finding | None:
    """Tensors without a stepsize that could be read or proved."""
    names = e.names(np.array([tensor.formula is None for tensor in e.trace.tensors], dtype=bool))
    messages = list(dict.fromkeys(ev.message for ev in e.trace.events if ev.kind == "unreadable"))
    if not names and not messages:
        return None
    return Finding(
        "Tensors without a readable stepsize",
        f"{len(names)} of {len(e.trace.tensors)} tensors have no stepsize here and are left out of a, b and c. "
        + " ".join(messages[:3]),
        "docs/theory.md 4.1, P10",
        names,
        None,
        "Their update size, update-to-weight ratio and alignment are recorded all the same.",
    )


def survived(e: Evidence) -> Finding | None:
    """Non-finite gradients that the run outlived."""
    events = [event for event in e.trace.events if event.kind == "nonfinite"]
    column = e.trace.column("nonfinite")
    counted = np.nan_to_num(column[-1], nan=0.0) if len(column) else np.zeros(0)
    if e.broken is not None or (not events and not counted.any()):
        return None
    named = dict.fromkeys([*e.names(counted > 0), *(event.tensor for event in events if event.tensor)])
    return Finding(
        "Non-finite gradients, survived",
        f"NaN or infinite values came up in {counted.sum():.0f} coordinate-steps and {len(events)} events; the "
        f"parameters are finite now.",
        "docs/theory.md 4.1, P10",
        tuple(named),
        _span([event.step for event in events]),
        "With loss scaling an occasional overflow is normal; otherwise look at the batches of these steps.",
    )


def interruptions(e: Evidence) -> Finding | None:
    """Skipped steps, jumps and resets, which leave marks in the sums."""
    kinds = ("skipped", "moment reset", "step jump", "fault")
    events = [event for event in e.trace.events if event.kind in kinds]
    if not events:
        return None
    counts = ", ".join(f"{kind}: {n}" for kind in kinds if (n := sum(ev.kind == kind for ev in events)))
    return Finding(
        "The run was interrupted",
        f"{counts}. The last: step {events[-1].step}, {events[-1].message}",
        "docs/theory.md 4.1, P7",
        tuple(dict.fromkeys(event.tensor for event in events if event.tensor)),
        _span([event.step for event in events]),
        "Resume with the optimizer's state: a second moment that starts again makes the stepsizes jump.",
    )


def sampling(e: Evidence) -> Finding | None:
    """How far the watched sample may be off."""
    if len(e.trace.steps) == 0:
        return None
    relative = {name: relative_error(e.trace, name) for name in ("a", "b", "c")}
    worst = max(relative.values())
    if not worst > 0:
        return None
    numbers = ", ".join(f"{name} {value:.2g}" for name, value in relative.items())
    return Finding(
        "Watched by a sample",
        f"Relative standard errors of the sums over all tensors: {numbers}.",
        "docs/theory.md 4.5",
        (),
        None,
        "Watch more: raise `coordinates`." if worst > ROUGH_SAMPLE else "Nothing to change.",
    )


def relative_error(trace: Trace, name: str) -> float:
    """Return the standard error of a total at the last record over the total itself; tensors are
    independent."""
    error = trace.column(f"{name}_se")[-1]
    total = float(trace.total(name)[-1])
    return float(np.sqrt(np.nansum(error**2))) / total if total > 0 else 0.0


def _span(steps: list[int]) -> tuple[int, int] | None:
    return (min(steps), max(steps)) if steps else None


FINDINGS: tuple[Callable[[Evidence], Finding | None], ...] = (
    broken,
    harm,
    stalled,
    certificate,
    noise_ball,
    horizon,
    rises,
    efficiency,
    unresolved,
    undecided,
    survived,
    spikes,
    eps_bound,
    interruptions,
    unreadable,
    sampling,
)
