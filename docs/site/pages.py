"""The list of all pages that show one thing: its address, what makes the page, and by which name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import items_judging
import items_watching
import items_worlds
from tables import CHECKS, INSTRUMENTS, alert_makers, slug

import stepscope.remedies
from stepscope import Verdict
from stepscope.synthetic.named import NAMED

Make = Callable[[str], str]


def made(address: str) -> str:
    """Return the page of an address; a process of its own may be asked for it."""
    make, name = all_of_them()[address]
    return make(name)


def all_of_them() -> dict[str, tuple[Make, str]]:
    """Return who makes each page, and from which name."""
    families: tuple[tuple[str, Make, Iterable[str]], ...] = (
        ("problem", items_worlds.problem, NAMED),
        ("verdict", items_judging.verdict, map(str, Verdict)),
        ("condition", items_judging.condition, CHECKS),
        ("instrument", items_watching.instrument, INSTRUMENTS),
        ("alert", items_watching.alert, alert_makers()),
        ("remedy", items_worlds.remedy, stepscope.remedies.__all__),
    )
    return {f"reference/{family}-{slug(name)}.md": (make, name) for family, make, names in families for name in names}
