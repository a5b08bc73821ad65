"""Names that anybody may have chosen, made fit to be read: no control characters, no turns of direction, no 10 kB."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import takewhile
from typing import Any

from ..diagnostics.trace import Trace

LONGEST = 200  # characters of a name; a report has hundreds
UNKNOWN = "\ufffd"
MARKS = "\u061c\u200e\u200f"
"""Of direction; they are letters to the algorithm that orders a line."""
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def legible(text: str) -> str:
    r"""Return text of one line whose characters are all seen, and that any file can hold.

    >>> legible("a\nb\x00 \u202egpj.exe")
    'a b· �gpj.exe'
    """
    return text if text.isprintable() else "".join(map(_seen, text))


def _seen(character: str) -> str:
    """Return what stands for a character: a dot for controls, whose pictures in Unicode no font of a figure has."""
    category = unicodedata.category(character)
    if character.isspace() and category in ("Cc", "Zl", "Zp"):
        return " "
    if character < " " or character == "\x7f":
        return "·"
    turns = character in MARKS or unicodedata.bidirectional(character) in TURNS
    return UNKNOWN if turns or category in ("Cc", "Cs") or character in "\ufffe\uffff" else character


def shorten(text: str, length: int = 26) -> str:
    """Return a legible name of at most `length` characters, cut in the middle: its ends tell a tensor apart."""
    text = legible(text)
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-(length // 2) :]}"


def tell_apart(names: Sequence[str], length: int) -> list[str]:
    """Return names that fit in `length`: where one is longer, the dotted parts that all share are left out."""
    if len(names) < 2 or max(map(len, names)) <= length:
        return [shorten(name, length) for name in names]
    parts = [name.split(".") for name in names]
    head = _shared(parts)
    rest = [part[head:] for part in parts]
    tail = _shared([part[::-1] for part in rest]) if max(len(".".join(part)) for part in rest) >= length else 0
    kept = [".".join(part[: len(part) - tail]) for part in rest]
    return [shorten("…" * (head > 0) + name + "…" * (tail > 0), length) for name in kept]


def _shared(parts: Sequence[Sequence[str]]) -> int:
    """Count the leading parts that are the same in all names; each name keeps at least its last."""
    heads = zip(*(part[:-1] for part in parts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, heads))


def name(text: str) -> str:
    """Return a legible name of at most 200 characters."""
    return shorten(text, LONGEST)


def names(texts: Iterable[str]) -> dict[str, str]:
    """Return a legible name for each, no two alike."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for text in texts:
        shown, count = name(text), 1
        while shown in taken:
            count += 1
            shown = f"{name(text)} ({count})"
        found[text] = shown
        taken.add(shown)
    return found


def legible_trace(trace: Trace) -> Trace:
    """Return a trace whose names and messages are legible; its numbers are the same arrays."""
    shown = names(dict.fromkeys(tensor.name for tensor in trace.tensors))
    scalars = names(trace.scalars)
    changed = {old: new for old, new in shown.items() if old and old != new}

    def said(message: str) -> str:
        return legible(reduce(lambda text, pair: text.replace(*pair), changed.items(), message))

    return replace(
        trace,
        meta=_plain(trace.meta),
        tensors=[
            replace(tensor, name=shown[tensor.name], formula=tensor.formula and name(tensor.formula))
            for tensor in trace.tensors
        ],
        scalars={scalars[key]: values for key, values in trace.scalars.items()},
        events=[
            replace(
                event, message=said(event.message), tensor=event.tensor and shown.get(event.tensor, name(event.tensor))
            )
            for event in trace.events
        ],
    )


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return name(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
