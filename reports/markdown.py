"""A report as Markdown, for an issue or a pull request: the verdict, what, where, when and what to do; findings folded.

Names may be anybody's, and GitHub makes links and mentions out of plain text after it has read the Markdown. So a name
stands as code, and elsewhere every character that means something is escaped, with a space of no width inside whatever
would call a person or an issue.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from .chapters import Chapter, Contents, Front
from .gist import Gist, checks, gist, limiting, when
from .legible import shorten
from .numerals import sentence, whole
from .words import MARKS, Row

LONGEST = 1500  # characters of a sentence: GitHub takes 65 536 of a comment
NAMED = 6
SPECIAL = re.compile(r"[\\`*_<>~$]|\](?=[(\[])")
CALLS = re.compile(
    r"@|#(?=\d)|:(?=[\w+-]+:)|(?<=:)(?=//)|(?i:www)(?=\.)|(?i:\bgh)(?=-\d)|\b(?=[0-9a-f]*[a-f])[0-9a-f]{6}(?=[0-9a-f])"
)
"""After which GitHub's links and pictures begin: people, issues, emoji by their codes, addresses, commits."""
APART = "\u200b"


def markdown(contents: Contents) -> str:
    """Return a report as Markdown."""
    alone = contents.front is None
    parts = [_run(chapter, alone) for chapter in contents.chapters]
    return "\n\n".join([*([] if alone else _front(contents)), *parts]) + "\n"


def _front(contents: Contents) -> Iterator[str]:
    """Yield what several runs say together."""
    front = contents.front
    assert front is not None
    yield f"### stepscope: {len(contents.chapters)} runs compared"
    yield table(
        ("#", "run", "verdict", "ρ [95 %]", "optimizer", "steps", "reached", "variance", "bias"),
        [_line(number, chapter.row) for number, chapter in enumerate(contents.chapters, 1)],
    )
    yield from _differing(front)
    yield from _parted(front)


def _line(number: int, row: Row) -> Sequence[str]:
    decided = (f"{MARKS[decision]} {decision}" for decision in (row.variance, row.bias))
    facts = (f"{MARKS[row.verdict]} **{row.verdict}**", plain(row.rho), plain(row.optimizer), whole(row.steps))
    return (str(number), code(row.name), *facts, plain(row.final), *decided)


def _differing(front: Front) -> Iterator[str]:
    if front.same:
        yield "These are the same run, number for number."
    elif front.differing:
        rows = [(plain(what), *map(plain, values)) for what, values in front.differing]
        yield f"**What differs**\n\n{table(('', *map(code, front.names)), rows)}"


def _parted(front: Front) -> Iterator[str]:
    if front.parted:
        rows = [(plain(what), *(plain(one.words) for one in cells)) for what, cells in front.parted]
        yield f"**Where they part from the first**\n\n{table(('', *map(code, front.names[1:])), rows)}"


def _run(chapter: Chapter, alone: bool) -> str:
    """Return one run; among several it is folded under its verdict."""
    row, brief = chapter.row, gist(chapter)
    word = f"{chapter.mark} {row.verdict}"
    steps = f"{whole(row.steps)} step{'s' * (row.steps != 1)}"
    facts = (f"ρ {row.rho}", row.optimizer, steps, *([] if row.final == "–" else [row.final]))
    parts = [
        f"### stepscope: {word}, {code(row.name)}" if alone else "",
        " · ".join(map(plain, facts)),
        " ".join(filter(None, (prose(chapter.meaning), f"**{plain(chapter.alerts)}**" if chapter.alerts else ""))),
        _brief(brief, limiting(chapter)),
        table(
            ("check", "decision", "why"), [(c.name, f"{c.mark} {c.decision}", prose(c.reason)) for c in checks(chapter)]
        ),
        _findings(chapter, alone),
    ]
    text = "\n\n".join(filter(None, parts))
    return text if alone else folded(f"{word}, <code>{escape(row.name)}</code>", text)


def _brief(brief: Gist | None, limit: str) -> str:
    """Return the leading finding, if any, and what limits the run as a list."""
    lines = {}
    if brief:
        more = f" and {brief.more} more" if brief.more else ""
        lines = {
            "What": prose(brief.what),
            "Where": ", ".join(map(code, brief.where)) + more,
            "When": brief.when,
            "To do": prose(brief.to_do),
        }
    lines["What limits the run"] = prose(limit)
    return "\n".join(f"- **{key}:** {says}" for key, says in lines.items() if says)


def _findings(chapter: Chapter, alone: bool) -> str:
    found = chapter.diagnosis.findings
    if not found:
        return "No findings."
    lines = []
    for number, finding in enumerate(found, 1):
        about = [f"Why: {finding.why}", *filter(None, (when(finding), ", ".join(map(code, finding.tensors[:NAMED]))))]
        lines.append(f"{number}. **{plain(finding.title)}**  \n   {prose(sentence(finding.text))}")
        lines += [f"   **Try:** {prose(sentence(finding.suggestion))}"] * bool(finding.suggestion)
        for remedy in finding.remedies[:1]:
            lines_of_it = "\n".join(f"   {line}" for line in remedy.lines)
            lines.append(
                f"   **Remedy, {plain(remedy.name)}:** {prose(remedy.reason)}\n\n   ```python\n{lines_of_it}\n   ```"
            )
        lines.append(f"   {' · '.join(about)}")
    text, count = "\n\n".join(lines), f"{len(found)} finding{'s' * (len(found) > 1)}"
    return folded(count, text) if alone else f"**{count}**\n\n{text}"


def folded(summary: str, text: str) -> str:
    """Return text that is seen when its summary, which is HTML, is clicked."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown; a bar inside a cell is escaped."""
    lines = [[head or " " for head in heads], *rows]
    cells = [" | ".join(cell.replace("|", r"\|") for cell in line) for line in lines]
    head, *body = (f"| {line} |" for line in cells)
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *body])


def code(text: str) -> str:
    """Return a name as code, in which nothing is a link or a mention; with a backtick or a backslash as plain text."""
    return f"`{text}`" if text.strip() and not set("`\\") & set(text) else plain(text) or "–"


def prose(text: str) -> str:
    """Return a sentence in which what stands between backticks is code."""
    parts = re.split(r"`([^`]+)`", shorten(text, LONGEST))
    return "".join(code(part) if place % 2 else plain(part) for place, part in enumerate(parts))


def plain(text: str) -> str:
    """Return text that means nothing but itself."""
    return SPECIAL.sub(r"\\\g<0>", CALLS.sub(rf"\g<0>{APART}", text)).replace("&", "&amp;")
