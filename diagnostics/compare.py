"""Compare runs: what differs in how they were made, where they part, and their verdicts side by side (no torch)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .aligned import aligned
from .courses import shared_steps
from .diagnosis import JSON, Diagnosis, diagnose
from .drift import Harm
from .parting import RATE, Parting, partings
from .settings import Difference, differences, shown
from .trace import DriftRecord, Trace

__all__ = ["Comparison", "Difference", "Parting", "Run", "compare"]

SCHEMA = 1
WIDTH = 110
RULE = (
    "Apart: further than half or twice the steps would make up for, beyond the scatter of both; from where two runs "
    "were still one, number for number, beyond the scatter alone; in rho, beyond the intervals. Two seeds of one "
    f"setting part in at most {RATE:.0%} of pairs. Not told apart does not mean alike: a single run of each setting "
    "shows only differences that are larger than those of seeds."
)
LATE = 0.9
"""The loss is averaged over what comes after this share of the steps."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run of a comparison: its setting, its diagnosis, its mean loss over the last tenth of the steps, the record."""

    name: str
    diagnosis: Diagnosis
    loss: float
    trace: Trace


@dataclass(frozen=True, eq=False)
class Setting:
    """One or several runs of one setting, and how they compare with those of the first."""

    name: str
    runs: tuple[Run, ...]
    differs_from: int | None
    """The first recorded step at which the numbers on record are not those of the first; None: they are the same."""
    partings: tuple[Parting, ...]
    """Empty for the first, and where the records are the same."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What differs between settings, where each parts from the first, and the verdicts of all runs."""

    settings: tuple[Setting, ...]
    differences: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """Whether all runs have the same numbers on record, to the last digit."""
        return all(setting.differs_from is None for setting in self.settings)

    def __str__(self) -> str:
        """Return the comparison as plain text: verdicts, what differs, where they part."""
        return "\n".join([*self._verdicts(), "", *self._differences(), "", *self._partings()])

    def report(self, path: str | Path) -> Path:
        """Write one report over all runs and return its path; it begins with what differs and where they part.

        The ending chooses the format: .html, .pdf, .md, .json, or .xml for CI (docs/report_formats.md).

        Raises:
            ValueError: for a directory, or another ending.
        """
        from ..reports.formats import render

        return render([(run.name, run.trace) for setting in self.settings for run in setting.runs], path)

    def _repr_html_(self) -> str:
        from ..reports.notebook import of_comparison

        return of_comparison(self).html()

    def _verdicts(self) -> Iterator[str]:
        yield "Verdicts"
        yield from aligned(verdicts(self))
        yield from textwrap.wrap(whence(self), WIDTH, initial_indent="  ", subsequent_indent="  ")

    def _differences(self) -> Iterator[str]:
        if not self.differences:
            yield "Nothing differs in how they were made, as far as it is on record."
            return
        yield "What differs"
        names = [setting.name for setting in self.settings]
        lines = aligned([["", *names], *([what(one), *map(shown, one.values)] for one in self.differences)])
        if max(map(len, lines)) <= WIDTH:
            yield from lines
        else:
            yield from aligned([[what(one), _gathered(names, one)] for one in self.differences])

    def _partings(self) -> Iterator[str]:
        first, *others = self.settings
        for setting in others:
            if setting.differs_from is None:
                yield f"{setting.name} is the same run as {first.name}, number for number."
                continue
            yield f"{setting.name} against {first.name}, whose records differ from step {setting.differs_from} on"
            yield from aligned(told(setting.partings))
        if any(setting.partings for setting in others):
            yield from ("", *textwrap.wrap(RULE, WIDTH))

    def to_dict(self) -> dict[str, JSON]:
        """Return the comparison as stable JSON: NaN becomes null, an infinity the string "inf" or "-inf"."""
        return {
            "schema": SCHEMA,
            "same": self.same,
            "differences": [_plain(asdict(one)) for one in self.differences],
            "settings": [
                {
                    "name": setting.name,
                    "differs_from": setting.differs_from,
                    "partings": [_plain(asdict(parting)) for parting in setting.partings],
                    "runs": [
                        {"name": run.name, "loss": _plain(run.loss), "diagnosis": run.diagnosis.to_dict()}
                        for run in setting.runs
                    ],
                }
                for setting in self.settings
            ],
        }


def compare(traces: Mapping[str, Trace | Sequence[Trace]]) -> Comparison:
    """Compare named runs with the first of them; several runs of one setting, with other seeds, come as a sequence.

    Raises:
        ValueError: for fewer than two settings, or one without runs.
    """
    groups = {name: [given] if isinstance(given, Trace) else list(given) for name, given in traces.items()}
    if len(groups) < 2:
        raise ValueError(f"`traces` must hold at least two runs to compare, got {len(groups)}; give each a name.")
    for name, group in groups.items():
        if not group:
            raise ValueError(f"`traces` must have a run for each name, got none for {name!r}.")
    runs = {name: tuple(_runs(name, group)) for name, group in groups.items()}
    first, *others = groups
    settings = [Setting(first, runs[first], None, ())]
    for name in others:
        since = first_difference(groups[first], groups[name])
        found: tuple[Parting, ...] = ()
        if since is not None:
            harms = (_harms(runs[name]), _harms(runs[first]))
            past = shared_past(groups[first], groups[name], since)
            found = partings(groups[name], groups[first], harms, len(others), past)
        settings.append(Setting(name, runs[name], since, found))
    return Comparison(tuple(settings), differences(list(groups.values())))


def _runs(name: str, group: Sequence[Trace]) -> Iterator[Run]:
    for place, trace in enumerate(group, start=1):
        yield Run(name if len(group) == 1 else f"{name} {place}", diagnose(trace), final_loss(trace), trace)


def _harms(runs: Sequence[Run]) -> list[Harm]:
    return [run.diagnosis.harm for run in runs]


def first_difference(here: Sequence[Trace], there: Sequence[Trace]) -> int | None:
    """Return the first step at which the records of two settings are not the same numbers; None where all are.

    Steps that only one has on record tell nothing, but for those after the end of the other.
    """
    if len(here) != len(there):
        return 1
    found = [_first_difference(one, other) for one, other in zip(here, there, strict=True)]
    known = [step for step in found if step is not None]
    return min(known, default=None)


def shared_past(here: Sequence[Trace], there: Sequence[Trace], since: int) -> int:
    """Return the last step that all have on record before they differ at step `since`; 0 where there is none."""
    steps = shared_steps([*here, *there])
    return int(max(steps[steps < since], default=0))


def _first_difference(one: Trace, other: Trace) -> int | None:
    ends = [int(trace.steps[-1]) if len(trace.steps) else 0 for trace in (one, other)]
    shared, rows, rows_ = np.intersect1d(one.steps, other.steps, return_indices=True)
    same = _same_records(one, other, rows, rows_)
    if not same.all():
        return int(shared[same.argmin()])
    if ends[0] != ends[1]:
        return min(ends) + 1
    return None if _same_products(one.drift, other.drift) else ends[0]


def _same_records(one: Trace, other: Trace, rows: Any, rows_: Any) -> Any:
    """Return for each shared record whether all numbers are the same."""
    none = np.zeros(len(rows), dtype=np.bool_)
    if [(t.name, t.shape) for t in one.tensors] != [(t.name, t.shape) for t in other.tensors]:
        return none
    if set(one.logged) != set(other.logged):
        return none
    same = _equal(one.values[rows], other.values[rows_]).all(axis=(1, 2))
    for name, a in one.logged.items():
        b = other.scalars[name]
        logged, i, j = np.intersect1d(a.steps, b.steps, return_indices=True)
        same &= ~np.isin(one.steps[rows], logged[~_equal(a.total[i], b.total[j])])
    return same


def _same_products(one: DriftRecord | None, other: DriftRecord | None) -> bool:
    """Tell whether two harm tests rest on the same numbers."""
    if one is None or other is None:
        return one is other
    pairs = ((one.gram_dd, other.gram_dd), (one.gram_dg, other.gram_dg), (one.gram_gg, other.gram_gg))
    return all(a.shape == b.shape and bool(_equal(a, b).all()) for a, b in pairs)


def _equal(a: Any, b: Any) -> Any:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def final_loss(trace: Trace) -> float:
    """Return the mean of the loss over the last tenth of the steps; NaN where none is logged."""
    name = next((name for name in trace.logged if "loss" in name.lower()), None)
    if name is None or len(trace.scalars[name].steps) == 0:
        return math.nan
    scalar = trace.scalars[name]
    begin = int((scalar.steps < LATE * scalar.steps[-1]).sum()) - 1
    before = (scalar.total[begin], scalar.count[begin]) if begin >= 0 else (0.0, 0.0)
    count = float(scalar.count[-1] - before[1])
    if not (count and math.isfinite(scalar.last[-1])):
        return float(scalar.last[-1])
    return float(scalar.total[-1] - before[0]) / count


def said(parting: Parting) -> tuple[str, str]:
    """Return where a setting parts from the first, in words, and its numbers there."""
    values = f"{parting.here:.3g} against {parting.there:.3g}"
    if parting.at is None:
        return "not compared", parting.note
    note = f", {parting.note}" if parting.note else ""
    if parting.step is None:
        return "not told apart", f"{values} at step {parting.at}{note}"
    until = "to the end" if parting.until is None else f"to {parting.until}"
    return f"apart from step {parting.step} {until}", f"{values} at step {parting.at}{note}"


def told(partings: Sequence[Parting]) -> list[list[str]]:
    """Return a row per quantity, one for all that cannot be compared for the same reason."""
    reasons: dict[str, list[str]] = {}
    for parting in partings:
        if parting.at is None:
            reasons.setdefault(parting.note, []).append(parting.quantity)
    rows = [[parting.quantity, *said(parting)] for parting in partings if parting.at is not None]
    return rows + [[", ".join(quantities), "not compared", why] for why, quantities in reasons.items()]


def verdicts(found: Comparison) -> list[list[str]]:
    """Return the verdicts as a table: its head, and a row per run."""
    head = ["", "verdict", "rho", "", "harm", "variance", "bias", "loss", "steps"]
    return [head, *(_row(run) for setting in found.settings for run in setting.runs)]


def _row(run: Run) -> list[str]:
    d = run.diagnosis
    low, high = d.harm.interval
    known = math.isfinite(low) and math.isfinite(high)
    return [
        run.name,
        str(d.verdict),
        f"{d.harm.rho:.3g}" if known else "-",
        f"[{low:.3g}, {high:.3g}]" if known else "",
        str(d.harm.decision),
        str(d.variance.decision),
        str(d.bias.decision),
        "-" if math.isnan(run.loss) else f"{run.loss:.3g}",
        str(d.steps),
    ]


def whence(found: Comparison) -> str:
    """Say from which steps of the runs the numbers beside their verdicts come."""
    judged = [run.diagnosis for setting in found.settings for run in setting.runs]
    windows = {(d.harm.first_step, d.harm.last_step) for d in judged}
    starts = {d.start for d in judged}
    window = "steps {} to {}".format(*windows.pop()) if len(windows) == 1 else "the last half of each run"
    start = f"step {starts.pop()} on" if len(starts) == 1 else "the end of each start-up on"
    return f"rho and harm: {window}; variance and bias: from {start}; loss: mean over the last tenth of the steps."


def what(one: Difference) -> str:
    """Return what differs, and from where on."""
    return one.what if one.since is None else f"{one.what} (from step {one.since})"


def _gathered(names: Sequence[str], one: Difference) -> str:
    """Return the values of many settings in a line, each with who has it."""
    who: dict[str, list[str]] = {}
    for name, value in zip(names, one.values, strict=True):
        who.setdefault(shown(value), []).append(name)
    return "; ".join(f"{value} ({', '.join(having)})" for value, having in who.items())


def _plain(value: Any) -> JSON:
    """Return a value as JSON knows it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)
