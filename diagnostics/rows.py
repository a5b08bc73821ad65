"""Row: one entry of a run's log, and its two written forms: columns of a table, a line of JSON."""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np

from .trace import Array

Columns = tuple[str, int, int, str, bytes | None, str | None]
"""kind, segment, step, facts as JSON, numbers as little-endian float64, their shape as JSON."""

NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class Row:
    """One entry of a log: its kind, its segment and step, facts that fit JSON, an array of numbers."""

    kind: str
    segment: int
    step: int
    facts: dict[str, Any]
    numbers: Array | None = None


def to_line(row: Row) -> bytes:
    """Return a row as a line of JSON, its numbers in base64."""
    entry = {"kind": row.kind, "segment": row.segment, "step": row.step, "facts": pack(row.facts)}
    if row.numbers is not None:
        text = b64encode(to_bytes(row.numbers)).decode()
        entry |= {"shape": list(row.numbers.shape), "numbers": text}
    return to_json(entry).encode() + b"\n"


def from_line(line: bytes) -> Row:
    """Return the row of a line of JSON."""
    entry = json.loads(line)
    numbers = None
    if "numbers" in entry:
        numbers = from_bytes(b64decode(entry["numbers"], validate=True), entry["shape"])
    return Row(entry["kind"], entry["segment"], entry["step"], unpack(entry["facts"]), numbers)


def to_columns(row: Row) -> Columns:
    """Return a row as the columns of the table `log`."""
    facts = to_json(pack(row.facts))
    if row.numbers is None:
        return row.kind, row.segment, row.step, facts, None, None
    return row.kind, row.segment, row.step, facts, to_bytes(row.numbers), to_json(list(row.numbers.shape))


def from_columns(columns: Columns) -> Row:
    """Return the row of columns of the table `log`."""
    kind, segment, step, facts, data, shape = columns
    numbers = None if data is None or shape is None else from_bytes(data, json.loads(shape))
    return Row(kind, segment, step, unpack(json.loads(facts)), numbers)


def to_json(value: Any) -> str:
    """Return packed facts as strict JSON in ASCII, which holds every string, lone surrogates included."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def to_bytes(numbers: Array) -> bytes:
    """Return an array as little-endian float64, in which every NaN and infinity survives."""
    return np.ascontiguousarray(numbers, dtype="<f8").tobytes()


def from_bytes(data: bytes, shape: list[int]) -> Array:
    """Return the array of `to_bytes`."""
    return np.frombuffer(data, "<f8").astype(np.float64, copy=False).reshape(shape)


def pack(value: Any) -> Any:
    """Return `value` as strict JSON: a float that is not finite becomes the string "nan", "inf" or "-inf".

    A string that could be mistaken for one of these gains a backslash; so `unpack` returns what was packed.
    """
    match value:
        case dict():
            return {str(key): pack(item) for key, item in value.items()}
        case list() | tuple():
            return [pack(item) for item in value]
        case np.generic() | np.ndarray():
            return pack(value.tolist())
        case float() if not math.isfinite(value):
            return str(value)
        case str() if value.lstrip("\\") in NONFINITE:
            return "\\" + value
    return value


def unpack(value: Any) -> Any:
    """Return what `pack` was given, tuples as lists."""
    match value:
        case dict():
            return {key: unpack(item) for key, item in value.items()}
        case list():
            return [unpack(item) for item in value]
        case str() if value in NONFINITE:
            return NONFINITE[value]
        case str() if value.lstrip("\\") in NONFINITE:
            return value[1:]
    return value
