"""What a report says of a suite or of a phase diagram, whatever its format: a first screen, and parts below it.

A study is to these what chapters are to runs. It is made once, of text and plates; pages, paper and Markdown are views.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..diagnostics.diagnosis import JSON
from .plates import Plate
from .words import Answer


@dataclass(frozen=True)
class Word:
    """A word with its sign, so that no meaning hangs on colour."""

    mark: str
    word: str
    tone: str = ""
    """What its colour is that of; the word itself where it is empty."""

    def __str__(self) -> str:
        """Return both as text."""
        return f"{self.mark} {self.word}"


Cell = str | Word


@dataclass(frozen=True)
class Table:
    """Rows under heads, in words."""

    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    about: tuple[str, ...] = ()
    """How to read it, a sentence or two each."""
    links: tuple[str, ...] = ()
    """The part that each row's first cell leads to, by its key; empty where there are none."""


@dataclass(frozen=True)
class Part:
    """What stands under one heading, in this order."""

    key: str
    title: str
    word: Word | None = None
    """How it ended, in a word."""
    facts: tuple[tuple[str, str], ...] = ()
    lines: tuple[str, ...] = ()
    table: Table | None = None
    plates: tuple[Plate, ...] = ()
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Study:
    """A first screen that says whether it is all right, if not what and where, and what to do; then the parts."""

    name: str
    about: str
    """How large it is, in a line."""
    verdict: Word
    meaning: tuple[str, ...]
    label: str
    """What the number is that stands first."""
    number: str
    says: str
    answers: tuple[Answer, ...]
    parts: tuple[Part, ...]
    judged: bool
    """Whether verdicts stand in it, whose symbols want to be explained."""
    data: dict[str, JSON] = field(repr=False)
    """The same as JSON."""
