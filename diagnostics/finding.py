"""What a finding is: a sentence with its numbers, the reason it matters and what to try."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .remedy import Remedy

NOTHING = "Nothing to change."
SYMBOL = re.compile(r"(rho|eps|beta[12]|[bc]\+?|[abc]\+?/a|\w+=\S+)(?=[\s,:]|$)|a (stands|keeps|grows)\b")
"""What a sentence may begin with as it is: the symbols of the record, and settings such as amsgrad=True."""


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing: what was seen, where, why it matters, and what to try."""

    title: str
    text: str
    why: str
    tensors: tuple[str, ...] = ()
    steps: tuple[int, int] | None = None
    suggestion: str = NOTHING
    remedies: tuple[Remedy, ...] = ()
    """What is made for this, the first to be tried first."""


def sentence(text: str) -> str:
    """Return text with a full stop at its end, and at its head a capital, unless it begins with a symbol."""
    head = text[:1] if SYMBOL.match(text) else text[:1].upper()
    return head + text[1:] + ("" if text.endswith(".") else ".")


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return names as in a sentence: "a, b and c"."""
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else names[0]


def rounded_up(steps: int) -> int:
    """Return a number of steps with two digits that matter: nobody plans 52569 steps."""
    unit: int = 10 ** max(len(str(steps)) - 2, 0)
    return math.ceil(steps / unit) * unit
