"""Row: one entry of a run's log, and its two written forms: columns of a table, a line of JSON."""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    numbers: NDArray[np.float64] | None = None


def to_line(row: Row) -> bytes:
    """Return a row as a line of JSON, its numbers as base64 of little-endian float64."""
    kind, segment, step, facts, numbers, shape = to_columns(row)
    entry: dict[str, object] = {"kind": kind, "segment": segment, "step": step, "facts": json.loads(facts)}
    if numbers is not None and shape is not None:
        entry |= {"shape": json.loads(shape), "numbers": b64encode(numbers).decode()}
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes) -> Row:
    """Return the row of a line of JSON."""
    entry = json.loads(line)
    numbers = b64decode(entry["numbers"], validate=True) if "numbers" in entry else None
    facts, shape = json.dumps(entry["facts"]), json.dumps(entry.get("shape"))
    return from_columns((entry["kind"], entry["segment"], entry["step"], facts, numbers, shape))


def to_columns(row: Row) -> Columns:
    """Return a row as the columns of the table `log`."""
    facts = json.dumps(pack(row.facts), allow_nan=False, separators=(",", ":"))
    if row.numbers is None:
        return row.kind, row.segment, row.step, facts, None, None
    numbers = np.ascontiguousarray(row.numbers, dtype="<f8")
    return row.kind, row.segment, row.step, facts, numbers.tobytes(), json.dumps(list(numbers.shape))


def from_columns(columns: Columns) -> Row:
    """Return the row of columns of the table `log`."""
    kind, segment, step, facts, numbers, shape = columns
    array = None
    if numbers is not None and shape is not None:
        array = np.frombuffer(numbers, "<f8").astype(np.float64, copy=False).reshape(json.loads(shape))
    return Row(kind, segment, step, unpack(json.loads(facts)), array)


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
