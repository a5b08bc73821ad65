"""What a finding is: a sentence with its numbers, the reason it matters and what to try."""

from __future__ import annotations

from dataclasses import dataclass

NOTHING = "Nothing to change."


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing: what was seen, where, why it matters, and what to try."""

    title: str
    text: str
    why: str
    tensors: tuple[str, ...] = ()
    steps: tuple[int, int] | None = None
    suggestion: str = NOTHING


def sentence(text: str) -> str:
    """Return text with a capital at its head and a full stop at its end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
