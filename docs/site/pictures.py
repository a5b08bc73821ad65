"""Figures of the report on pages of the site: drawn as the site is built, in the colours of the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from stepscope.diagnostics.diagnosis import Diagnosis
from stepscope.diagnostics.limits import limits
from stepscope.diagnostics.trace import Trace
from stepscope.reports.page import picture
from stepscope.reports.plates import Plate, comparison, plates
from stepscope.reports.theme import css_variables

SMALLER, LARGER = 0.85, 1.15
"""Times its natural size that a figure is shown at least, where the screen has room for it, and at most."""


def style() -> str:
    """Return the rules that give the figures' colours their values on the light and on the dark page."""
    dark = css_variables(dark=True)
    return (
        f"\nbody {{ {css_variables(dark=False)} }}\n"
        f'body[data-theme="dark"] {{ {dark} }}\n'
        f'@media (prefers-color-scheme: dark) {{ body:not([data-theme="light"]) {{ {dark} }} }}\n'
    )


def of_run(trace: Trace, diagnosis: Diagnosis, keys: Iterable[str], prefix: str) -> Iterator[str]:
    """Yield the figures of a run that the report has under these keys, as Markdown; `prefix` is unique on the page.

    A number behind a key, as in "what-if/2", is that of the only panel to be shown.

    Raises:
        ValueError: where the run does not tell one of them.
    """
    known = {plate.key: plate for plate in plates(trace, diagnosis, limits(trace))}
    for wanted in keys:
        key, _, only = wanted.partition("/")
        if key not in known:
            raise ValueError(f"the run has no figure {key!r}; it has {', '.join(known)}.")
        found = known[key]
        yield shown(replace(found, panels=found.panels[int(only) :][:1]) if only else found, prefix)


def of_comparison(runs: list[tuple[str, Trace, Diagnosis]], key: str, prefix: str) -> str:
    """Return one of the figures that set runs side by side."""
    return shown(next(plate for plate in comparison(runs) if plate.key == key), prefix)


def shown(plate: Plate, prefix: str) -> str:
    """Return a figure with its question above it and its caption below."""
    drawn = picture(plate, prefix)
    panels = "".join(
        f'<div style="flex-basis:{SMALLER * width:.0f}px; max-width:{LARGER * width:.0f}px">{svg}</div>'
        for svg, width in drawn.panels
    )
    return f'**{drawn.question}**\n\n```{{raw}} html\n<div class="drawn">{panels}</div>\n```\n\n{drawn.caption}\n'
