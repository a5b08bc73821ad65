"""A file that a long sweep appends its finished cells to, and reads when it is called again.

The first line says which sweep it belongs to, every further one is a cell, all JSON. Lines are appended in one write;
what a crash leaves of one is cut off at the next opening.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..diagnostics.diagnosis import JSON
from .compiled import hash_of

FORMAT = "stepscope sweep 1"


def fingerprint(*parts: object) -> str:
    """Return a short name for what the parts say; an object without a telling `repr` is told by its attributes."""
    told = [
        repr(part) if type(part).__repr__ is not object.__repr__ else f"{type(part)} {vars(part)}" for part in parts
    ]
    return hash_of("\n".join(told))


def opened(path: Path, identity: Mapping[str, JSON]) -> list[dict[str, Any]]:
    """Return the lines of the sweep's file, which is made if there is none.

    Raises:
        ValueError: for a file that is no ledger, or that of another sweep.
    """
    if path.is_dir():
        raise ValueError(f"'{path}' must be a file that a phase diagram may write, and is a directory; name one in it.")
    head = {"format": FORMAT, **identity}
    text = path.read_bytes() if path.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    if not whole and head_is_torn(text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_bytes([head]))
        return []
    try:
        first, *lines = [json.loads(line) for line in whole.splitlines()]
        known = first["format"] == FORMAT
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise ValueError(f"'{path}' must be a file that a phase diagram has written, and is not; choose another name.")
    other = [name for name in head if first.get(name) != head[name]]
    if other:
        raise ValueError(
            f"'{path}' belongs to another sweep: its {other[0]} is {first.get(other[0])!r}, this one's "
            f"{head[other[0]]!r}; choose another name."
        )
    if whole != text:
        os.truncate(path, len(whole))
    return lines


def head_is_torn(text: bytes) -> bool:
    """Whether a file without a whole line is one that was only just begun."""
    begun = _bytes([{"format": FORMAT}])[:-2]
    return text.startswith(begun) or begun.startswith(text)


def append(path: Path, lines: Sequence[Mapping[str, JSON]]) -> None:
    """Append lines in one write, on disk when this returns."""
    with path.open("ab", buffering=0) as file:
        file.write(_bytes(lines))
        os.fsync(file.fileno())


def _bytes(lines: Sequence[Mapping[str, JSON]]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines).encode()
