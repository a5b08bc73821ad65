"""Tables of a report: tensors, other rules on the gradients of a run, what tensors ask of β2, how runs compare."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..diagnostics.compare import Comparison, Setting, said, what
from ..diagnostics.conditions import Decision
from ..diagnostics.diagnosis import Diagnosis
from ..diagnostics.drift import Harm, HarmDecision
from ..diagnostics.settings import shown
from ..diagnostics.skewness import WHOLE, Skewness
from ..diagnostics.summary import COLUMNS
from ..diagnostics.trace import Trace
from .numerals import number, typeset, whole
from .words import rho

STREAM = (
    "The stream is that of the run that was made: every rule is fed the gradients that this run met, on at most 32 "
    "coordinates of each tensor. Another rule would have gone elsewhere and met others, so a row says what would have "
    "stood in the conditions here, not where the run would have ended."
)
NAMED = 4  # tensors in a sentence
SHARES = ("watched", "rising", "eps_bound")
SETUP = ("watched", "steps", "eps_bound")
"""Columns that are often the same for all tensors, and then are told once."""
HEADS = {
    "rho": "ρ [95 %]",
    "e_p1": "e 1 %",
    "e_p50": "e median",
    "e_p99": "e 99 %",
    "growth": "growth ×",
    "c+/a": "c⁺/a",
    "rms_mean": "RMS mean",
    "rms_max": "RMS max",
    "eps_bound": "eps-bound",
    "update/weight": "step/weight",
    "beta2*": "β2* [95 %]",
}
TENSOR_COLUMNS = {
    "tensor": COLUMNS["tensor"],
    "rho": "descent efficiency over the last half, with its 95 % interval",
    **{name: says for name, says in COLUMNS.items() if name not in ("tensor", "formula")},
    "beta2*": "the β2 that its rare large gradients ask for, to first order, with its 95 % interval",
}


@dataclass(frozen=True)
class Columns:
    """The columns of a table of tensors, and by its name the cell of each that is told once; empty ones are neither."""

    told: tuple[str, ...]
    same: dict[str, str]

    @property
    def shared(self) -> str:
        """What is the same for all tensors, in a sentence; empty where nothing is."""
        if not self.same:
            return ""
        return f"The same for all tensors: {', '.join(f'{head(name)} {text}' for name, text in self.same.items())}."


@dataclass(frozen=True)
class Rule:
    """A rule on the run's own gradients, as a row shows it."""

    name: str
    own: bool
    rho: str
    harm: HarmDecision
    bias_ratio: str
    bias: Decision
    variance_ratio: str
    variance: Decision


def head(name: str) -> str:
    """Return the head of a column."""
    return HEADS.get(name, name)


def columns(lines: Sequence[Mapping[str, str | float]], names: Iterable[str] = TENSOR_COLUMNS) -> Columns:
    """Return which of the columns tell the tensors of a run apart: all of them where there is but one tensor."""
    cells = {name: {cell(line[name], name) for line in lines} for name in names}
    if len(lines) == 1:
        return Columns(tuple(cells), {})
    alike = {name: text for name, (text, *more) in cells.items() if not more and (text == "–" or name in SETUP)}
    told = tuple(name for name in cells if name not in alike)
    return Columns(told, {name: text for name, text in alike.items() if text != "–"})


def rules(diagnosis: Diagnosis) -> tuple[Rule, ...]:
    """Return a row per imagined rule, the run's own first; none where nothing was imagined."""
    return tuple(
        Rule(
            name=other.rule,
            own=place == 0,
            rho=rho(other.harm),
            harm=other.harm.decision,
            bias_ratio=number(other.c_over_a, 2),
            bias=other.bias.decision,
            variance_ratio=number(other.b_over_a, 2),
            variance=other.variance.decision,
        )
        for place, other in enumerate(diagnosis.what_if)
    )


def tensor_cells(diagnosis: Diagnosis, judged: Sequence[Harm]) -> list[dict[str, str]]:
    """Return what the table of tensors says beside the summary: ρ and β2* of each, with their intervals."""
    asked = diagnosis.skewness[1:]
    cells = []
    for p in range(diagnosis.tensors):
        cell = rho(judged[p]) if p < len(judged) else "–"
        cells.append({"rho": cell, "beta2*": threshold(asked[p]) if p < len(asked) else "–"})
    return cells


def threshold(asked: Skewness) -> str:
    """Return β2* with its interval, a dash where no mean gradient is resolved."""
    if not all(map(math.isfinite, asked.interval)):
        return "–"
    low, high = asked.beta2_interval
    return f"{decay(asked.beta2)} [{decay(low)}, {decay(high)}]"


def decay(beta: float) -> str:
    """Return a decay rate with two digits of what it lacks to 1: `0.99961`."""
    gap = 1.0 - beta
    if math.isnan(gap):
        return "–"
    if gap <= 0:
        return "1"
    text = f"{beta:.{max(2, 1 - math.floor(math.log10(gap)))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def skewness_note(trace: Trace, diagnosis: Diagnosis) -> str:
    """Say whether β2 lies below what the skewness of the gradients asks for; empty where nothing was measured."""
    if not diagnosis.skewness:
        return ""
    meaning = (
        "β2* is the β2 below which rare large gradients turn Adam’s steps round, to first order in 1 − β2 and for "
        "gradients in random order; a fixed order can double or halve 1 − β2*."
    )
    return f"{meaning} {_below(trace, diagnosis)}"


def _below(trace: Trace, diagnosis: Diagnosis) -> str:
    resolved = [asked for asked in diagnosis.skewness if math.isfinite(asked.interval[0])]
    if not resolved:
        return "No mean gradient stands out of the noise here, so it could not be measured."
    betas = trace.groups.get("beta2", np.empty((0, 0)))[-1:].ravel()
    if not np.isfinite(betas).any():
        return "This optimizer has no β2."
    group = {tensor.name: tensor.group for tensor in trace.tensors}
    own = {asked.name: float(betas[group.get(asked.name, 0) % len(betas)]) for asked in resolved}
    own[WHOLE] = float(np.nanmin(betas))
    below = [asked for asked in resolved if asked.beta2_interval[0] > own[asked.name]]
    if not below:
        return f"β2 = {decay(own[WHOLE])} does not lie below it wherever it is resolved."
    if diagnosis.bias.decision is Decision.HOLDS:
        return "Plain Adam would need more than the β2 of this run, whose stepsizes do not keep rising, though."
    names = [asked.name for asked in below]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    most = max(below, key=lambda asked: asked.beta2)
    return (
        f"β2 = {decay(own[most.name])} lies below it: {most.name} needs β2 above {threshold(most)}"
        f"{f'; so do {len(names) - 1} others' if len(names) > 1 else ''} ({', '.join(names[:NAMED])}{more})."
    )


@dataclass(frozen=True)
class Apart:
    """How a run compares with the first in one quantity: in words, with its numbers, and whether they are apart."""

    words: str
    numbers: str
    apart: bool


def differing(found: Comparison) -> list[tuple[str, tuple[str, ...]]]:
    """Return what differs between runs, with the value in each."""
    return [(typeset(what(one)), tuple(typeset(shown(value)) for value in one.values)) for one in found.differences]


def parted(found: Comparison) -> list[tuple[str, tuple[Apart, ...]]]:
    """Return how each run but the first compares with it, quantity by quantity; none where all are the same."""
    others = found.settings[1:]
    quantities = next(([one.quantity for one in setting.partings] for setting in others if setting.partings), [])
    return [
        (typeset(quantity), tuple(_apart(setting, place) for setting in others))
        for place, quantity in enumerate(quantities)
    ]


def _apart(setting: Setting, place: int) -> Apart:
    if not setting.partings:
        return Apart("the same run", "", apart=False)
    parting = setting.partings[place]
    words, numbers = said(parting)
    return Apart(typeset(words), typeset(numbers), parting.step is not None)


def cell(value: str | float, column: str) -> str:
    """Return a table cell's text."""
    if isinstance(value, str) or math.isnan(value):
        return value if isinstance(value, str) else "–"
    if column == "steps":
        return whole(value)
    return f"{number(100 * value)} %" if column in SHARES else number(float(value))
