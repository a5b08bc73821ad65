"""From a drawing to an inline SVG element: deterministic, small, with ids and colours that fit a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from .fit import fit
from .theme import STYLE, VARIABLES, WIDE, any_letters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_svg import RendererSVG
    from matplotlib.figure import Figure

POINTS = 72
"""In an inch, as an SVG is measured."""
PAD = 0.04
"""Inches around a drawing."""


def to_svg(draw: Callable[[Axes], None], key: str, label: str, size: tuple[float, float] = WIDE) -> str:
    """Return what `draw` puts on a pair of axes as an inline `<svg>`: the same bytes for the same drawing.

    `key` must be unique on the page, as it prefixes every id; `label` is what a screen reader says.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(STYLE), rc_context({"svg.hashsalt": key}), any_letters():
        figure = Figure(figsize=size, dpi=POINTS)
        FigureCanvasSVG(figure)
        ax = figure.subplots()
        draw(ax)
        width, height = PAD / size[0], PAD / size[1]
        fit(ax, (width, height, 1 - width, 1 - height), _ruler())
        text = io.StringIO()
        undated = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(text, format="svg", transparent=True, metadata=undated)
    return _inline(text.getvalue(), key, {"aria-label": label, **scales(figure)})


@cache
def _ruler() -> RendererSVG:
    """Return what measures words: one for all drawings, as it remembers those that it has met."""
    from matplotlib.backends.backend_svg import RendererSVG

    return RendererSVG(1, 1, io.StringIO())  # type: ignore[no-untyped-call]


def scales(figure: Figure) -> dict[str, str]:
    """Return what is needed to read values off the only axes: its frame in units of the picture, and both scales.

    Empty where a side has words for numbers or no numbers at all, or is neither linear nor logarithmic.
    """
    from matplotlib.ticker import FixedFormatter

    ax = figure.axes[0]
    axes = ax.xaxis, ax.yaxis
    words = any(isinstance(axis.get_major_formatter(), FixedFormatter) or not len(axis.get_ticklocs()) for axis in axes)
    if len(figure.axes) > 1 or words or not {ax.get_xscale(), ax.get_yscale()} <= {"linear", "log"}:
        return {}
    (width, height), frame = POINTS * figure.get_size_inches(), ax.get_position()
    sides = frame.x0 * width, (1 - frame.y1) * height, frame.x1 * width, (1 - frame.y0) * height
    return {
        "data-frame": " ".join(f"{side:.2f}" for side in sides),
        "data-x": f"{ax.get_xscale()} {' '.join(f'{end:.6g}' for end in ax.get_xlim())}",
        "data-y": f"{ax.get_yscale()} {' '.join(f'{end:.6g}' for end in ax.get_ylim())}",
        "data-across": ax.get_xlabel() or "step",
    }


SPACE = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"


def _inline(document: str, key: str, attributes: dict[str, str]) -> str:
    """Return matplotlib's document as an element of a page: ids of its own, CSS colours, short numbers."""
    root = ElementTree.fromstring(document)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', document))
    for element in root.iter():
        element.tag = element.tag.removeprefix(SPACE)
        _tidy(element, used, key)
    for child in list(root):
        if child.tag == "defs" and child.find("style") is not None:  # a page-wide rule: the page has its own
            root.remove(child)
    width, height = (float(side) for side in root.attrib["viewBox"].split()[2:])
    root.attrib.clear()
    root.attrib.update({"viewBox": f"0 0 {width:g} {height:g}", "role": "img", **attributes, "id": key})
    return ElementTree.tostring(root, encoding="unicode")


def _tidy(element: ElementTree.Element, used: set[str], key: str) -> None:
    attributes = element.attrib
    name = attributes.pop("id", None)
    if name in used:
        attributes["id"] = f"{key}-{name}"
    if LINK in attributes:
        attributes["href"] = f"#{key}-{attributes.pop(LINK)[1:]}"
    if "clip-path" in attributes:
        attributes["clip-path"] = attributes["clip-path"].replace("url(#", f"url(#{key}-")
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    if "style" in attributes:
        attributes["style"] = _style(attributes["style"])
    for place in ("d", "x", "y", "transform"):
        if place in attributes:
            attributes[place] = re.sub(r"-?\d+\.\d+", _short, " ".join(attributes[place].split()))
    element.tail = None
    if element.text is not None and not element.text.strip():
        element.text = None


def _style(style: str) -> str:
    style = re.sub(r"font-family:[^;]*;? ?", "", style)
    for day, (name, _) in VARIABLES.items():
        style = style.replace(day, f"var(--{name},{day})")
    return style


def _short(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
