"""Findings about the record itself: what was odd in the run's numbers, and how far they can be trusted.

`RECORD_FINDINGS` is the table: one function per finding, from the evidence to a finding or to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .drift import DORMANT
from .evidence import Evidence
from .finding import NOTHING, Finding, sentence
from .instability import trace_names
from .trace import Event, Trace

EPS_SHARE = 0.1  # below that, eps moves too few coordinates to matter
SPIKE = 5.0  # stationary gradients keep RMS_t near 1, a single Gaussian coordinate below 5
ROUNDING = float(np.finfo(np.float32).eps)
HUNDREDTH = 0.01  # of the coordinates: those above the 99 % quantile
ROUGH_SAMPLE = 0.1


def survived(e: Evidence) -> Finding | None:
    """Report non-finite gradients that the run outlived."""
    events = [event for event in e.trace.events if event.kind == "nonfinite"]
    column = e.trace.column("nonfinite")
    counted = np.nan_to_num(column[-1], posinf=0.0) if len(column) else np.zeros(len(e.trace.tensors))
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


def eps_too_small(e: Evidence) -> Finding | None:
    """Report coordinates that step in full although their gradients are below the rounding of others."""
    with np.errstate(all="ignore"):
        ratio = e.trace.column("e_p99")[-1:] / e.trace.column("e_min")[-1:]
        bound = e.increment("eps_bound") / e.increment("active")
    tiny = np.flatnonzero((ratio > 1 / ROUNDING).any(axis=0) & (bound < HUNDREDTH / 2))
    if not len(tiny):
        return None
    worst = int(tiny[np.argmax(ratio[-1, tiny])])
    return Finding(
        "eps is too small: rounding may step as far as the gradient",
        f"In {len(tiny)} of {len(bound)} tensors a hundredth of the coordinates or more have gradients below the "
        f"rounding of the largest there, and step as far as any other: in {e.trace.tensors[worst].name} their "
        f"stepsizes are {ratio[-1, worst]:.0e} times the smallest.",
        "docs/theory.md 1.5",
        trace_names(e.trace, np.isin(np.arange(len(bound)), tiny)),
        e.window,
        "Raise eps to where the smallest useful gradients lie, unless their inputs are meant to be so small.",
    )


def forgotten(e: Evidence) -> Finding | None:
    """Report tensors whose stepsizes rise between gradients that are far apart, and fall back at each."""
    spread, back = e.spread, _falls_back(e)
    beta2 = e.trace.groups.get("beta2")
    if not back.any() or beta2 is None or not np.isfinite(beta2[-1]).any():
        return None
    worst, gap = int(np.argmax(np.where(back, spread, 0.0))), 1 - float(np.nanmin(beta2[-1]))
    return Finding(
        "Gradients come less often than v remembers",
        f"In {int(back.sum())} of {len(back)} tensors the mean stepsize is more than {DORMANT:g} times the one where "
        f"the gradient is, in {e.trace.tensors[worst].name} {spread[worst]:.2g} times, and falls back again and again: "
        f"v decays between gradients, within some 1/(1 - beta2) = {1 / gap:.3g} steps, and each then moves its "
        f"coordinate by lr/sqrt(1 - beta2) = {1 / math.sqrt(gap):.3g} lr, whatever its size. b/a and c+/a speak of "
        f"coordinates that sleep.",
        "docs/theory.md 1.5",
        trace_names(e.trace, back),
        e.window,
        "Raise beta2 until the memory spans the gaps between gradients.",
    )


def _falls_back(e: Evidence) -> NDArray[np.bool_]:
    """Return in which tensors the stepsizes of sleeping coordinates fall again, `(tensors,)`.

    Those with a gradient have less than 1/`DORMANT` of a, and cannot make so much fall; those that never have one
    only rise.
    """
    falls = e.increment("c_v") - e.increment("rise_v")
    return np.asarray((e.spread > DORMANT) & (falls * DORMANT > e.increment("a")))


def dormant(e: Evidence) -> Finding | None:
    """Report tensors whose a is carried by a few coordinates with hardly any gradient."""
    spread = e.spread
    carried = (spread > DORMANT) & ~_falls_back(e)
    if not carried.any():
        return None
    worst = int(np.argmax(np.where(carried, spread, 0.0)))
    withheld = " Together they make up most of a, so no certificate is given." if e.dormant else ""
    return Finding(
        "Dormant coordinates carry a",
        f"In {int(carried.sum())} of {len(carried)} tensors the mean stepsize is more than {DORMANT:g} times the "
        f"one where the gradient is, in {e.trace.tensors[worst].name} {spread[worst]:.2g} times: coordinates with next "
        f"to no gradient make up most of a there, so b/a and c+/a speak of them more than of those that "
        f"learn.{withheld}",
        "docs/theory.md 1.5",
        trace_names(e.trace, carried),
        e.window,
        "Read the conditions in the tensors without this; raise eps to where the smallest useful gradients lie.",
    )


def skips(e: Evidence) -> Finding | None:
    """Report calls of `step` that moved nothing; a row of them is one event."""
    events = [event for event in e.trace.events if event.kind == "skipped"]
    if not events:
        return None
    rows = "One row of calls" if len(events) == 1 else f"{len(events)} rows of calls"
    return Finding(
        "Calls of `step()` that moved nothing",
        f"{rows}, the last after step {events[-1].step}: {sentence(events[-1].message)}",
        "docs/theory.md 4.1, P7",
        _tensors(events),
        _span(events),
        "Where gradients are missing: call backward() between zero_grad() and step(), and watch the optimizer whose "
        "parameters the model has. A loss scaler skips now and then.",
    )


def interruptions(e: Evidence) -> Finding | None:
    """Report jumps and resets, which leave marks in the sums."""
    kinds = ("moment reset", "step jump", "fault")
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


def _tensors(events: Sequence[Event]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(event.tensor for event in events if event.tensor))


def _span(events: Sequence[Event]) -> tuple[int, int] | None:
    steps = [event.step for event in events]
    return (min(steps), max(steps)) if steps else None


RECORD_FINDINGS: tuple[Callable[[Evidence], Finding | None], ...] = (
    survived,
    spikes,
    eps_bound,
    eps_too_small,
    forgotten,
    dormant,
    skips,
    interruptions,
    unreadable,
    sampling,
)
"""The most serious first."""
