"""A page for each verdict, condition, instrument, alert, problem and remedy: from the code, with a run that is drawn.

The families stand in the files items_*.py. Each has a function from a name to a page; here is what pages share.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache

import torch
from runs import Run, Runs, source
from tables import CHECKS, code, page, table
from tables import item as link
from thresholds import Constant

from stepscope.diagnostics.diagnosis import Diagnosis
from stepscope.diagnostics.remedy import Remedy
from stepscope.diagnostics.trace import Trace
from stepscope.reports.numerals import number, typeset
from stepscope.reports.words import rho

Played = list[tuple[str, Trace, Diagnosis]]


@cache
def played(run: Run) -> Played:
    """Return the runs of a page with their diagnoses; what they would log is on the page anyway."""
    logger = logging.getLogger("stepscope")
    before, threads = logger.level, torch.get_num_threads()
    logger.setLevel(logging.CRITICAL)
    torch.set_num_threads(1)  # the tensors are small, and with more their sums might differ from machine to machine
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            runs: Runs = run()
    finally:
        logger.setLevel(before)
        torch.set_num_threads(threads)
    return [(words, trace, trace.diagnose()) for words, trace in runs.items()]


def item(title: str, lead: str, *parts: str) -> str:
    """Return a page; empty parts are left out."""
    return page(title, lead, *(f"{part}\n" for part in parts if part))


# --- parts of a page -----------------------------------------------------------------------------------------


def section(title: str, text: str) -> str:
    """Return a section, or nothing without a text."""
    return f"## {title}\n\n{text}" if text else ""


def about(run: Run) -> str:
    """Return what is said of a run."""
    return textwrap.dedent(run.__doc__ or "").strip()


def made_by(run: Run) -> str:
    """Return the code that made the figures."""
    return section("The code of this run", f"```python\n{source(run)}\n```\n")


def thresholds(found: Iterable[Constant]) -> str:
    """Return constants with what is said of them."""
    rows = [
        (", ".join(map(code, one.names)), ", ".join(number(value) for value in one.names.values()), one.words)
        for one in found
    ]
    return section("Constants", table(["name", "value", "what it is"], rows)) if rows else ""


def answers(runs: Played) -> str:
    """Return what the checks say of each run."""
    heads = ["run", "verdict", "a grows", "b/a → 0", "c⁺/a → 0", "harm", "ρ"]
    linked = [*heads[:2], *(link("condition", name, head) for name, head in zip(CHECKS, heads[2:6], strict=True))]
    rows = (
        (
            words,
            link("verdict", found.verdict),
            *(getattr(found, name).decision for name in CHECKS),
            rho(found.harm),
        )
        for words, _, found in runs
    )
    return table([*linked, "ρ"], rows)


def findings(found: Diagnosis, places: dict[str, str]) -> str:
    """Return the findings of a run, each with a link to what is said of it; `places` has an anchor for each title."""
    return "\n".join(
        f"- [{one.title}](findings.md#{anchor(one.title, places)}): {typeset(one.text)}" for one in found.findings
    )


def anchor(title: str, places: dict[str, str]) -> str:
    """Return where a finding stands; a title that a run fills in is known by its first words."""
    return places.get(title) or next(place for known, place in places.items() if title.startswith(known.split("[")[0]))


def remedies(known: Iterable[Remedy]) -> str:
    """Return which remedies are made for something, and why."""
    return "\n".join(f"- {link('remedy', one.name)}: {typeset(one.reason)}." for one in known)


def own_words(docstring: str) -> Iterator[str]:
    """Yield a docstring without its sections of arguments and errors, which the reference has."""
    for paragraph in docstring.split("\n\n"):
        if paragraph.startswith(("Args:", "Raises:", "Returns:", "References:", ">>>")):
            return
        yield paragraph


def prose(docstring: str) -> str:
    """Return a docstring's own words."""
    return "\n\n".join(own_words(spoken(docstring)))


def spoken(docstring: str) -> str:
    """Return a docstring without what it says of imports alone."""
    return docstring.replace(" (no torch)", "").replace("; no torch)", ")").replace(" No torch.", "")
