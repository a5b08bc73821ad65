"""The table of remedies, printed: what is seen, what is made for it and why, and the two lines that put it in place."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ..diagnostics.remedy import REMEDIES, Remedy

WIDTH = 100


def as_text() -> str:
    """Return the table for a terminal; what several findings ask for is told at the first of them."""
    lines: list[str] = []
    told: dict[str, str] = {}
    for remedies in REMEDIES.values():
        lines += ["", f"Where {remedies[0].finding}:"]
        for remedy in remedies:
            lines += _told(remedy, told)
            told.setdefault(remedy.name, remedy.reason)
    return "\n".join(["Two lines after the one that makes `optimizer` put a remedy in place.", *lines])


def _told(remedy: Remedy, told: dict[str, str]) -> Iterator[str]:
    if told.get(remedy.name) == remedy.reason:
        yield f"  {remedy.name}: see above."
        return
    text = f"{remedy.name}: {remedy.reason} ({remedy.reference})."
    yield from textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
    yield from (f"      {line}" for line in remedy.lines)


def as_rows() -> list[dict[str, object]]:
    """Return the table as JSON values: a row for each pair of a finding and a remedy."""
    return [
        {
            "finding": remedy.finding,
            "remedy": remedy.name,
            "reason": remedy.reason,
            "reference": remedy.reference,
            "lines": list(remedy.lines),
        }
        for remedies in REMEDIES.values()
        for remedy in remedies
    ]
