"""A run directory on disk <-> Trace: `meta.json`, and the log in `trace.sqlite` or `trace.jsonl`."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .log import open_log, replace_file
from .parts import join, parts_below
from .reading import LINES, SQLITE, read_rows, unreadable
from .rows import Row, pack, unpack
from .trace import (
    COLUMNS,
    INSTANTS,
    SUMMED,
    Array,
    DriftRecord,
    Efficiency,
    Event,
    Scalars,
    TensorInfo,
    Trace,
    WhatIfRecord,
)

META = "meta.json"
FORMAT = 1
"""Version of the directory's layout; raised when older code could no longer read it."""

ABSENT = np.array([math.nan if name in INSTANTS else 0.0 for name in COLUMNS])
"""What a record holds of a tensor that was added after it."""


def load(path: Path) -> Trace:
    """Read the run directory at `path`, also while another process writes it; one that is in parts, as a whole.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if `meta.json` or the log is damaged, foreign, or of a newer format.
    """
    if not (path / META).exists() and (parts := parts_below(path, META)):
        return join([load(part) for part in parts])
    meta = read_meta(path)
    file = path / SQLITE if (path / SQLITE).exists() else path / LINES
    try:
        return build_trace(meta, read_rows(file))
    except (sqlite3.Error, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise unreadable(file, error) from error


def save(trace: Trace, path: Path) -> None:
    """Write `trace` as a new run directory at `path`.

    Raises:
        FileExistsError: if `path` holds a run already.
    """
    if any((path / name).exists() for name in (META, SQLITE, LINES)):
        raise FileExistsError(f"'{path}' holds a run already; choose a new directory or remove that one.")
    rows = list(rows_of(trace))
    with closing(open_log(path)) as log:
        for row in rows:
            log.append(row)
    write_meta(path, trace.meta)  # last: a directory without it is no run


def is_run(path: Path) -> bool:
    """Return whether `path` holds a run, whole or in parts."""
    return (path / META).exists() or bool(parts_below(path, META))


def write_meta(path: Path, meta: dict[str, Any]) -> None:
    """Write `meta.json` of the run directory at `path`, whole or not at all."""
    path.mkdir(parents=True, exist_ok=True)
    text = json.dumps(pack(meta | {"format": FORMAT}), allow_nan=False, indent=1)
    replace_file(path / META, text.encode())


def read_meta(path: Path) -> dict[str, Any]:
    """Read `meta.json` of the run directory at `path`."""
    file = path / META
    if not file.is_file():
        raise FileNotFoundError(
            f"no run at '{path}': expected a directory written by stepscope.Monitor (with {META}); check the path."
        )
    try:
        meta = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"'{file}' is not valid JSON ({error}); restore it from a copy.") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("format"), int):
        raise ValueError(f"'{file}' was not written by stepscope: expected an object with a number `format`.")
    if meta["format"] > FORMAT:
        raise ValueError(
            f"'{file}' has format {meta['format']}, this stepscope reads up to {FORMAT}; upgrade stepscope to read it."
        )
    unpacked: dict[str, Any] = unpack(meta)
    return unpacked


def build_trace(meta: dict[str, Any], rows: Iterable[Row]) -> Trace:
    """Return the trace that a log tells; what a later segment took back is left out."""
    if meta.get("columns", list(COLUMNS)) != list(COLUMNS):
        raise ValueError(
            f"its records have the columns {meta['columns']}, expected {list(COLUMNS)}: another version wrote them"
        )
    by_kind: dict[str, list[Row]] = {}
    for row in in_force(list(rows)):
        by_kind.setdefault(row.kind, []).append(row)
    tensors = [tensor_info(facts) for row in by_kind.get("tensors", [])[-1:] for facts in row.facts["tensors"]]
    unique = {row.step: row for row in by_kind.get("record", [])}
    records = [unique[step] for step in sorted(unique)]
    events = [
        Event(row.step, row.facts["kind"], row.facts["message"], row.facts["tensor"])
        for row in by_kind.get("event", [])
    ]
    drift = [drift_of(row, len(tensors)) for row in by_kind.get("drift", [])[-1:]]
    paths = [row.numbers for row in by_kind.get("path", [])[-1:]]
    return Trace(
        meta=meta,
        tensors=tensors,
        steps=np.array([row.step for row in records], dtype=np.int64),
        values=values_of(records, len(tensors)),
        groups=groups_of(records),
        scalars=scalars_of(records),
        events=events,
        drift=drift[0] if drift else None,
        efficiency=efficiency_of(by_kind.get("efficiency", []), len(tensors)),
        what_if=what_if_of(meta.get("what_if", []), records, by_kind.get("what_if", [])[-1:]),
        path=paths[0] if paths else None,
    )


def in_force(rows: list[Row]) -> list[Row]:
    """Drop what happened at or after the step from which a later segment of the run started over."""
    starts = {row.segment: row.facts["from"] for row in rows if row.kind == "segment"}
    end = {
        segment: min((start for later, start in starts.items() if later > segment), default=math.inf)
        for segment in {row.segment for row in rows}
    }
    return [row for row in rows if row.kind in ("tensors", "segment") or row.step < end[row.segment]]


def tensor_info(facts: dict[str, Any]) -> TensorInfo:
    """Return the tensor that a row's facts describe."""
    return TensorInfo(**(facts | {"shape": tuple(facts["shape"])}))


def values_of(records: list[Row], tensors: int) -> Array:
    """Return the records' numbers, `(records, tensors, columns)`; tensors added later start from nothing."""
    values = np.empty((len(records), tensors, len(COLUMNS)))
    for row, filled in zip(records, values, strict=True):
        if row.numbers is None or row.numbers.shape[1:] != ABSENT.shape or len(row.numbers) > tensors:
            found = None if row.numbers is None else row.numbers.shape
            raise ValueError(
                f"the record of step {row.step} has shape {found}, expected at most {(tensors, len(COLUMNS))}"
            )
        filled[: len(row.numbers)] = row.numbers
        filled[len(row.numbers) :] = ABSENT
    return values


def groups_of(records: list[Row]) -> dict[str, Array]:
    """Return the hyper-parameters, each `(records, groups)`; NaN for groups that were added later."""
    found = [row.facts.get("groups", {}) for row in records]
    widths: dict[str, int] = {}
    for groups in found:
        for name, numbers in groups.items():
            widths[name] = max(widths.get(name, 0), len(numbers))
    columns = {name: np.full((len(records), width), np.nan) for name, width in widths.items()}
    for record, groups in enumerate(found):
        for name, numbers in groups.items():
            columns[name][record, : len(numbers)] = numbers
    return columns


def scalars_of(records: list[Row]) -> dict[str, Scalars]:
    """Return the logged scalars, each at the records that have it."""
    found: dict[str, list[tuple[int, list[float]]]] = {}
    for row in records:
        for name, numbers in row.facts.get("scalars", {}).items():
            found.setdefault(name, []).append((row.step, numbers))
    scalars = {}
    for name, entries in found.items():
        last, total, count = np.array([numbers for _, numbers in entries], dtype=np.float64).reshape(-1, 3).T
        scalars[name] = Scalars(np.array([step for step, _ in entries], dtype=np.int64), last, total, count)
    return scalars


def drift_of(row: Row, tensors: int) -> DriftRecord:
    """Return the drift record of a row; tensors added after it contribute nothing."""
    if row.numbers is None or row.numbers.ndim != 4 or len(row.numbers) not in (3, 4) or row.numbers.shape[1] > tensors:
        raise ValueError(f"the drift record of step {row.step} does not have shape (3 or 4, tensors, k, k)")
    missing = tensors - row.numbers.shape[1]
    grams = np.pad(row.numbers, ((0, 0), (0, missing), (0, 0), (0, 0)))
    return DriftRecord(row.facts["first_step"], row.facts["last_step"], *grams)


def efficiency_of(rows: list[Row], tensors: int) -> Efficiency | None:
    """Return the descent efficiency over time; None before the first measurement."""
    if not rows:
        return None
    values = np.full((len(rows), 4 + tensors), math.nan)
    for row, filled in zip(rows, values, strict=True):
        if row.numbers is None or not 4 <= len(row.numbers) <= 4 + tensors:
            raise ValueError(f"the efficiency of step {row.step} does not have 4 to {4 + tensors} numbers")
        filled[: len(row.numbers)] = row.numbers
    steps = np.array([row.step for row in rows], dtype=np.int64)
    rho, low, high, slope = values[:, :4].T
    products = tuple(np.array(row.facts["products"]) for row in rows if "products" in row.facts)
    return Efficiency(steps, rho, low, high, values[:, 4:], slope, products if len(products) == len(rows) else ())


def what_if_of(rules: list[str], records: list[Row], products: list[Row]) -> WhatIfRecord | None:
    """Return what other rules would have had; None where none was imagined."""
    if not rules or not records:
        return None
    none = np.full((len(rules), len(SUMMED)), math.nan)
    sums = np.array([row.facts.get("what_if", none) for row in records], dtype=np.float64)
    if sums.shape[1:] != none.shape:
        raise ValueError(f"its records imagine {sums.shape[1]} rules, expected the {len(rules)} of `meta.json`")
    if not products or products[0].numbers is None:
        return WhatIfRecord(tuple(rules), sums)
    (row,) = products
    return WhatIfRecord(tuple(rules), sums, row.numbers, row.facts["first_step"], row.facts["last_step"])


def rows_of(trace: Trace) -> Iterable[Row]:
    """Yield the rows from which `build_trace` makes `trace` again."""
    yield Row("tensors", 0, 0, {"tensors": [asdict(tensor) for tensor in trace.tensors]})
    scalars: dict[int, dict[str, list[float]]] = {int(step): {} for step in trace.steps}
    for name, scalar in trace.scalars.items():
        for step, *numbers in zip(scalar.steps, scalar.last, scalar.total, scalar.count, strict=True):
            if int(step) not in scalars:
                raise ValueError(f"the scalar {name!r} has a value at step {step}, which is no record.")
            scalars[int(step)][name] = numbers
    for record, step in enumerate(trace.steps.tolist()):
        groups = {name: column[record] for name, column in trace.groups.items()}
        facts = {"groups": groups, "scalars": scalars[step]}
        if trace.what_if is not None:
            facts["what_if"] = trace.what_if.sums[record]
        yield Row("record", 0, step, facts, trace.values[record])
    for event in trace.events:
        yield Row("event", 0, event.step, asdict(event))
    if trace.drift is not None:
        drift = trace.drift
        grams = np.stack([drift.gram_dd, drift.gram_dg, drift.gram_gg])
        if drift.gram_qg is not None:
            grams = np.concatenate([grams, drift.gram_qg[None]])
        window = {"first_step": drift.first_step, "last_step": drift.last_step}
        yield Row("drift", 0, drift.last_step, window, grams)
    if trace.efficiency is not None:
        known = trace.efficiency
        slope = np.full(len(known.steps), math.nan) if known.slope is None else known.slope
        for step, *whole, each in zip(known.steps, known.rho, known.low, known.high, slope, known.tensors, strict=True):
            yield Row("efficiency", 0, int(step), {}, np.array([*whole, *each]))
    if trace.what_if is not None and trace.what_if.grams is not None:
        window = {"first_step": trace.what_if.first_step, "last_step": trace.what_if.last_step}
        yield Row("what_if", 0, trace.what_if.last_step, window, trace.what_if.grams)
    if trace.path is not None:
        yield Row("path", 0, int(trace.steps[-1]), {}, trace.path)
