"""One self-contained HTML report, of runs or of a study: no network, one script of its own, same input same bytes."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from .chapters import Contents, Runs, gather
from .numerals import sentence, typeset, whole
from .plates import Plate
from .svg import to_svg
from .tables import STREAM, TENSOR_COLUMNS, cell, columns, head
from .theme import css_variables
from .words import MARKS

if TYPE_CHECKING:
    from markupsafe import Markup

    from .study import Study


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it: one or several SVG elements under one caption."""

    key: str
    question: str
    caption: str
    panels: tuple[tuple[str, float], ...]
    """The markup of each, and its natural width in pixels."""


def page(runs: Runs) -> str:
    """Return the report of named runs as HTML."""
    return html(gather(runs))


def html(contents: Contents) -> str:
    """Return a report as HTML."""
    return _rendered(
        "page.html", chapters=contents.chapters, front=contents.front, explained=TENSOR_COLUMNS, stream=STREAM
    )


def study_html(study: Study) -> str:
    """Return a study as HTML; what symbols mean is said where there are verdicts."""
    return _rendered("study.html", study=study, symbols=study.judged)


def _rendered(template: str, **told: object) -> str:
    """Return a template filled in, with the style, the script and the filters that all have."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    environment.filters |= {"whole": whole, "cell": cell, "sentence": sentence, "apart": apart, "code": code}
    environment.filters |= {"drawn": drawn, "typeset": typeset, "columns": columns, "head": head}
    return environment.get_template(template).render(
        marks=MARKS,
        script=Markup(script),
        script_hash=Markup(hash_of(script)),
        light=css_variables(dark=False),
        dark=css_variables(dark=True),
        **told,
    )


def hash_of(script: str) -> str:
    """Return the name by which a page's policy allows this script, and no other."""
    return f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}"


def drawn(plates: Iterable[Plate], prefix: str) -> list[Picture]:
    """Return plates with their panels drawn."""
    return [picture(plate, prefix) for plate in plates]


def picture(plate: Plate, prefix: str) -> Picture:
    """Return a plate with its panels drawn."""
    from markupsafe import Markup

    panels = tuple(
        (Markup(to_svg(panel.draw, f"{prefix}-{plate.key}-{i}", panel.label, panel.size)), panel.size[0] * 90)
        for i, panel in enumerate(plate.panels)
    )
    return Picture(f"{prefix}-{plate.key}", plate.question, plate.caption, panels)


def code(text: str) -> Markup:
    """Return text with what stands in backticks set as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def apart(text: str) -> tuple[str, str]:
    """Return a cell's value, and the interval behind it, if any."""
    value, _, interval = text.partition(" [")
    return value, f"[{interval}" if interval else ""
