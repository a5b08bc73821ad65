"""Parts: the records that the processes of a sharded run write, each of its own pieces, added up to one (no torch).

    sums, products of the harm test and of what if    added: they are sums over coordinates
    RMS_t²         the parts' means, weighted between records by the coordinates that took steps there
    errors         of the sample as a whole, from the spread within the parts and between them
    quantiles      weighted geometric mean of the parts' own, an approximation; smallest and largest are exact
    logged numbers their mean over the parts that logged them

Only steps of which all parts have a record are told: a part that is still being written, or whose process died, may
lag behind.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .efficiency import measure
from .trace import (
    COLUMNS,
    ERRORS,
    SUMS,
    Array,
    DriftRecord,
    Efficiency,
    Event,
    Scalars,
    TensorInfo,
    Trace,
    WhatIfRecord,
)

PART = "part"
"""Key of the metadata of a part: its rank, how many processes there are, the names of all tensors in their order."""

PLACES = {name: place for place, name in enumerate(COLUMNS)}
MEDIANS = ("e_p1", "e_p50", "e_p99")
WITH_ERROR = tuple(name.removesuffix("_se") for name in ERRORS)


def part_of(directory: Path, rank: int) -> Path:
    """Return where a process records its part of the run in `directory`."""
    return directory / f"rank-{rank}"


def parts_below(directory: Path, file: str) -> list[Path]:
    """Return the parts in a run directory that have `file`, by rank."""
    found = [path.parent for path in directory.glob(f"rank-*/{file}") if path.parent.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def join(parts: Sequence[Trace]) -> Trace:
    """Return the record of the run of which these are parts."""
    parts = [part for part in parts if part.tensors] or list(parts[:1])
    first = parts[0]
    steps = common_steps(parts)
    held = pieces_by_name(parts)
    rows = [np.searchsorted(part.steps, steps) for part in parts]
    each = [[(parts[p].tensors[at], parts[p].values[rows[p], at]) for p, at in pieces] for pieces in held]
    tensors, values = [joined_info([info for info, _ in own]) for own in each], [joined_values(own) for own in each]
    meta = {key: value for key, value in first.meta.items() if key != PART}
    return Trace(
        meta=meta | {"parts": [part.meta[PART]["rank"] for part in parts]},
        tensors=tensors,
        steps=steps,
        values=np.stack(values, axis=1) if values else np.zeros((len(steps), 0, len(COLUMNS))),
        groups={name: column[rows[0]] for name, column in first.groups.items()},
        scalars=dict(joined_scalars(parts, steps)),
        events=joined_events(parts, tensors, int(steps[-1]) if len(steps) else 0),
        drift=joined_drift(parts, held),
        efficiency=joined_efficiency(parts, held),
        what_if=joined_what_if(parts, rows),
    )


def with_others(own: Trace, directory: Path | None) -> Trace:
    """Return a part of a run that goes on with what the other parts have on record so far."""
    from .store import META, load

    mine = own.meta[PART]["rank"]
    paths = parts_below(directory, META) if directory else []
    others = [load(path) for path in paths if path != part_of(directory or path, mine)]
    parts = sorted([own, *others], key=lambda part: int(part.meta[PART]["rank"]))
    return join(parts)


def common_steps(parts: Sequence[Trace]) -> NDArray[np.int64]:
    """Return the steps of which all parts have a record."""
    found: NDArray[np.int64] = reduce(np.intersect1d, (part.steps for part in parts))
    return found


def pieces_by_name(parts: Sequence[Trace]) -> list[list[tuple[int, int]]]:
    """Return for every tensor which parts have some of it, and at which place, in the order of the optimizer."""
    names = {name: list[tuple[int, int]]() for part in parts for name in part.meta[PART]["names"]}
    for p, part in enumerate(parts):
        for at, tensor in enumerate(part.tensors):
            names.setdefault(tensor.name, []).append((p, at))
    return [pieces for pieces in names.values() if pieces]


# --- one tensor ------------------------------------------------------------------------------------------------------


def joined_info(pieces: Sequence[TensorInfo]) -> TensorInfo:
    """Return what the record says of a tensor of which the pieces are these."""
    first, numel = pieces[0], sum(piece.numel for piece in pieces)
    return replace(
        first,
        numel=numel,
        watched=sum(piece.watched for piece in pieces),
        formula=first.formula if all(piece.formula for piece in pieces) else None,
        part_of=None if numel == (first.part_of or first.numel) else first.part_of,
    )


def joined_values(pieces: Sequence[tuple[TensorInfo, Array]]) -> Array:
    """Return the numbers of a tensor, `(records, columns)`, from those of its pieces."""
    if len(pieces) == 1:
        return pieces[0][1]
    infos, stacked = [info for info, _ in pieces], np.array([values for _, values in pieces])
    column = {name: stacked[:, :, place] for name, place in PLACES.items()}
    watched = np.array([[float(info.watched)] for info in infos])
    with np.errstate(all="ignore"):
        found = {name: column[name].sum(axis=0) for name in SUMS}
        found["steps"] = column["steps"].max(axis=0)
        found["rms2"] = mean_of_squares(column["rms2"], column["active"])
        found |= joined_errors(infos, column, watched)
        found |= {name: np.exp(weighted(np.log(column[name]), watched)) for name in MEDIANS}
        found["e_min"], found["e_max"] = (
            pick(column[name], axis=0, initial=start, where=~np.isnan(column[name]))
            for name, pick, start in (("e_min", np.min, math.inf), ("e_max", np.max, -math.inf))
        )
        for name in ("e_min", "e_max"):
            found[name] = np.where(np.isfinite(found[name]), found[name], math.nan)
        found["rms_max"] = np.sqrt(weighted(column["rms_max"] ** 2, np.maximum(column["active"], 1.0)))
        for name in ("weight_rms", "update_rms"):
            found[name] = np.sqrt(weighted(column[name] ** 2, watched))
        found["alignment"] = joined_alignment(column, watched)
    return np.stack([found[name] for name in COLUMNS], axis=-1)


def weighted(values: Array, weights: Array) -> Array:
    """Return the mean over the parts that have a value, `(records,)`; NaN where none has."""
    weights = np.where(np.isnan(values), 0.0, weights)
    mean: Array = np.where(weights > 0, values * weights, 0.0).sum(axis=0) / weights.sum(axis=0)
    return mean


def mean_of_squares(rms2: Array, active: Array) -> Array:
    """Return Σ RMS_t² of the tensor: between two records each part counts by its coordinates that took steps."""
    gained, counts = (np.diff(sums, axis=1, prepend=0.0) for sums in (rms2, active))
    total = counts.sum(axis=0)
    share = np.where(total > 0, counts / total, 0.0)
    found: Array = (gained * share).sum(axis=0).cumsum()
    return found


def joined_errors(infos: Sequence[TensorInfo], column: dict[str, Array], watched: Array) -> dict[str, Array]:
    """Return the standard errors of the sums: the parts' samples are one sample of the whole tensor.

    Each part states N·sqrt((1 - n/N)·s²/n) with n of N of the whole, so that its own s² can be told from it.
    """
    whole, n = float(infos[0].part_of or 1), float(watched.sum())
    if n >= whole or n < 2:
        return {name: np.zeros(column[name].shape[1]) for name in ERRORS}
    factor = whole * math.sqrt((1 - n / whole) / n)
    found = {}
    for name, error in zip(WITH_ERROR, ERRORS, strict=True):
        within = np.where(watched > 1, (watched - 1) * (column[error] / factor) ** 2, 0.0)
        sums = since_opening(column[name], column[error])
        means = np.where(watched > 0, sums * n / (whole * watched), 0.0)
        between = watched * (means - (watched * means).sum(axis=0) / n) ** 2
        found[error] = factor * np.sqrt((within + between).sum(axis=0) / (n - 1))
    return found


def since_opening(sums: Array, errors: Array) -> Array:
    """Return sums without those of the opening, where all coordinates were summed and nothing was uncertain."""
    uncertain = (errors > 0).any(axis=0)
    if not uncertain.any():
        return np.zeros_like(sums)
    first = int(uncertain.argmax())
    rest = sums - (sums[:, first - 1 : first] if first else 0.0)
    rest[:, :first] = 0.0
    return rest


def joined_alignment(column: dict[str, Array], watched: Array) -> Array:
    """Return the cosine of Δθ and -g: the parts count by the lengths of both, of g since the record before."""
    steps = column["update_rms"] * np.sqrt(watched)
    slopes = np.sqrt(np.diff(column["g2"], axis=1, prepend=0.0))
    known = np.isfinite(column["alignment"] * steps * slopes)
    steps, slopes = np.where(known, steps, 0.0), np.where(known, slopes, 0.0)
    product = (np.where(known, column["alignment"], 0.0) * steps * slopes).sum(axis=0)
    cosine: Array = product / np.sqrt((steps**2).sum(axis=0) * (slopes**2).sum(axis=0))
    return cosine


# --- the run ---------------------------------------------------------------------------------------------------------


def joined_scalars(parts: Sequence[Trace], steps: NDArray[np.int64]) -> Iterator[tuple[str, Scalars]]:
    """Yield what was logged, at the steps at which all parts that ever did so have it: the mean over those."""
    for name in dict.fromkeys(name for part in parts for name in part.scalars):
        logged = [part.scalars[name] for part in parts if name in part.scalars]
        at: NDArray[np.int64] = reduce(np.intersect1d, (scalar.steps for scalar in logged), steps)
        rows = [np.searchsorted(scalar.steps, at) for scalar in logged]
        last, total, count = (
            np.array([getattr(scalar, field)[row] for scalar, row in zip(logged, rows, strict=True)])
            for field in ("last", "total", "count")
        )
        if len(at):
            newest = last.min(axis=0) if name.startswith("loss_scale/") else last.mean(axis=0)  # one that none exceeds
            yield name, Scalars(at, newest, total.sum(axis=0), count.sum(axis=0))


def joined_events(parts: Sequence[Trace], tensors: Sequence[TensorInfo], last: int) -> list[Event]:
    """Return what happened in any part, once where it happened in several, and whether parts are missing."""
    found = list(dict.fromkeys(event for part in parts for event in part.events))
    missing = [tensor for tensor in tensors if tensor.part_of is not None]
    if missing:
        names = f"{len(missing)} tensors, first {missing[0].name}" if len(missing) > 1 else missing[0].name
        found.append(
            Event(
                last,
                "part missing",
                f"some ranks' pieces of {names} are not on record: their sums are of the others alone",
                missing[0].name,
            )
        )
    return sorted(found, key=lambda event: event.step)


def joined_drift(parts: Sequence[Trace], held: Sequence[Sequence[tuple[int, int]]]) -> DriftRecord | None:
    """Return the products of the harm test, added up; None while the parts tell of different windows."""
    drifts = [part.drift for part in parts if part.drift is not None]
    if not held or len(drifts) < len(parts) or len({(drift.first_step, drift.last_step) for drift in drifts}) > 1:
        return None
    names = ["gram_dd", "gram_dg", "gram_gg"]
    if all(drift.gram_qg is not None for drift in drifts):
        names.append("gram_qg")
    grams = [np.array([sum(getattr(drifts[p], name)[at] for p, at in pieces) for pieces in held]) for name in names]
    return DriftRecord(drifts[0].first_step, drifts[0].last_step, *grams)


def joined_efficiency(parts: Sequence[Trace], held: Sequence[Sequence[tuple[int, int]]]) -> Efficiency | None:
    """Return ρ of the whole at the steps where all parts measured it, and of the tensors that one part holds whole."""
    known = [part.efficiency for part in parts if part.efficiency is not None and part.efficiency.products]
    if len(known) < len(parts):
        return None
    steps: NDArray[np.int64] = reduce(np.intersect1d, (one.steps for one in known))
    rows = [np.searchsorted(one.steps, steps) for one in known]
    whole = np.full((len(steps), 4), math.nan)
    for i in range(len(steps)):
        products = [one.products[row[i]] for one, row in zip(known, rows, strict=True)]
        if len({gram.shape for gram in products}) == 1:
            whole[i] = measure(*sum(products)[:, None])[:4]
    each = np.full((len(steps), len(held)), math.nan)
    for column, pieces in enumerate(held):
        if len(pieces) == 1:
            ((p, at),) = pieces
            each[:, column] = known[p].tensors[rows[p], at]
    rho, low, high, slope = whole.T
    return Efficiency(steps, rho, low, high, each, slope)


def joined_what_if(parts: Sequence[Trace], rows: Sequence[NDArray[np.intp]]) -> WhatIfRecord | None:
    """Return what other rules would have had, added up; without products while the windows differ."""
    known = [part.what_if for part in parts if part.what_if is not None]
    if len(known) < len(parts):
        return None
    sums: Any = sum(one.sums[row] for one, row in zip(known, rows, strict=True))
    windows = {(one.first_step, one.last_step) for one in known}
    grams = [one.grams for one in known if one.grams is not None]
    if len(windows) > 1 or len(grams) < len(known):
        return WhatIfRecord(known[0].rules, sums)
    return WhatIfRecord(known[0].rules, sums, np.sum(grams, axis=0), *windows.pop())
