"""What a report says of a phase diagram: where the method ends right, where not, theory's boundary beside, the cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..diagnostics.diagnosis import JSON
from ..synthetic.boundaries import DRIFT
from ..synthetic.crossings import NEAR, Crossing, drift_at
from ..synthetic.grid import Axis
from ..synthetic.methods import METHODS
from ..synthetic.phase import Ending, Phase
from .legible import name
from .numerals import fixed, number, whole
from .phases import SYMBOLS, Picture, draw_crossings, draw_distance, draw_endings, formula, picture, share
from .plates import Panel, Plate
from .study import Cell, Part, Study, Table, Word
from .tables import decay
from .theme import legend_below
from .words import Answer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIGNS = {Ending.RIGHT: "✓", Ending.UNDECIDED: "?", Ending.WRONG: "✕", Ending.UNSTABLE: "!"}
BADLY = {Ending.WRONG: "ends wrong", Ending.UNSTABLE: "breaks"}
TONES = {Ending.UNSTABLE: "broken"}
SIZE = (5.8, 4.4)
SHORT_RUN = (
    "A cell says what came of its steps, and the line what comes of ever smaller ones for ever: a short run may end "
    "nearer to the optimum on a side of the line where a longer one would not."
)


LINES = {
    True: " Lines are theory's; the solid one says where the ending changes.",
    False: " The dashed line is a condition of proofs, and not where theory has the ending change.",
}
"""What the lines of a map are, by whether one of them is that of the drift."""


def document_of(phase: Phase) -> dict[str, JSON]:
    """Return a phase diagram as JSON knows it; phase.schema.json says what stands in it."""
    return {"report": "stepscope phase", **phase.to_dict()}


def phase_study(phase: Phase) -> Study:
    """Return a phase diagram as a study."""
    found, cells = phase.crossings, _cells(phase)
    size = f"{whole(cells)} cell{'s' * (cells != 1)}"
    return Study(
        name=name(f"{phase.method} on {phase.problem}"),
        about=f"Phase diagram of {size} · {_plane(phase)} · {whole(phase.steps)} steps each",
        verdict=_verdict(phase),
        meaning=_meaning(phase),
        label="Ends right",
        number=share(phase, Ending.RIGHT),
        says=_shares(phase),
        answers=(_where(phase, found), _theory(phase, found), _usual(phase), _sure(phase)),
        parts=tuple(_parts(phase, found)),
        judged=False,
        data=document_of(phase),
    )


def _cells(phase: Phase, ending: Ending | None = None) -> int:
    """Return how many cells there are, or end so; one that was not cut is one, though it covers several places."""
    weights = 0.25 ** (phase.level.max() - phase.level)
    return round(float(weights.sum() if ending is None else weights[phase.ending == ending].sum()))


def word(ending: Ending) -> Word:
    """Return how a cell ends, with its sign."""
    return Word(SIGNS[ending], str(ending), TONES.get(ending, ""))


def symbol(axis: Axis) -> str:
    """Return what an axis is called in a sentence."""
    return name(SYMBOLS.get(axis.name, axis.name))


def value(axis: Axis, at: float) -> str:
    """Return a value on an axis; a decay rate with two digits of what it lacks to 1."""
    return decay(at) if axis.scale == "gap" else number(at)


def _plane(phase: Phase) -> str:
    spans = (f"{symbol(a)} from {value(a, a.low)} to {value(a, a.high)}" for a in (phase.x, phase.y))
    return ", ".join(spans)


def _verdict(phase: Phase) -> Word:
    bad = [ending for ending in (Ending.WRONG, Ending.UNSTABLE) if phase.share(ending)]
    if bad:
        parts = " and ".join(f"{BADLY[ending]} in {share(phase, ending)}" for ending in bad)
        return Word(SIGNS[bad[0]], parts, "wrong")
    if phase.share(Ending.RIGHT) == 1:
        return Word(SIGNS[Ending.RIGHT], "ends right everywhere", "right")
    return Word(SIGNS[Ending.UNDECIDED], "ends wrong nowhere", "undecided")


def _meaning(phase: Phase) -> tuple[str, ...]:
    wrong, broken = phase.share(Ending.WRONG), phase.share(Ending.UNSTABLE)
    if not (wrong or broken):
        return ("No cell ends farther from the optimum than its start.",)
    lines = {
        "Right is nearer to the optimum than the start, wrong is farther: there the method is led away.": wrong,
        "Where it breaks it leaves numbers that are not finite.": broken,
        "Choose settings well inside the part that ends right.": phase.share(Ending.RIGHT),
    }
    return tuple(line for line, holds in lines.items() if holds)


def _shares(phase: Phase) -> str:
    parts = (f"{share(phase, ending)} {ending}" for ending in Ending if phase.share(ending))
    return f"Of the plane of {symbol(phase.x)} and {symbol(phase.y)}: {', '.join(parts)}."


def _where(phase: Phase, found: Sequence[Crossing]) -> Answer:
    """Say where the ending changes: at the first, a middle and the last value of the other axis."""
    question, along, across = "Where does it end right?", symbol(phase.along), symbol(phase.across)
    turns = [one for one in found if Ending.RIGHT in (one.before, one.after)]
    if not turns:
        bad = phase.share(Ending.WRONG) + phase.share(Ending.UNSTABLE)
        short = "everywhere" if phase.share(Ending.RIGHT) == 1 else "see the map"
        line = f"Nothing changes to right or from it along {along}." if bad else "Nothing ends wrong."
        return Answer(question, short, (line,))
    upward = {one.after is Ending.RIGHT for one in turns}
    if len({one.at for one in turns}) < len(turns) or len(upward) > 1:
        line = f"Along {along} the ending changes more than once at some values of {across}."
        return Answer(question, "in between, see the map", (line,))
    places = sorted({0, len(turns) // 2, len(turns) - 1})
    short = f"{'above' if upward == {True} else 'below'} a line in {along}"
    still = len(_values(phase)) - len(turns)
    told = f"At {still} other value{'s' * (still != 1)} of {across} nothing changes to right or from it."
    rest = (told,) if still else ()
    return Answer(question, short, (*(_turn(phase, turns[place]) for place in places), *rest))


def _turn(phase: Phase, one: Crossing) -> str:
    """Say how the ending changes at one value of the other axis."""
    along, low, high = symbol(phase.along), value(phase.along, one.low), value(phase.along, one.high)
    at = f"At {symbol(phase.across)} = {value(phase.across, one.at)}"
    if one.after is Ending.RIGHT:
        return f"{at}: from {along} = {high} on, {one.before} up to {low}."
    return f"{at}: up to {along} = {low}, {one.after} from {high} on."


def _values(phase: Phase) -> list[float]:
    """Return the values across at which changes are looked for."""
    values = phase.y_values if phase.across is phase.y else phase.x_values
    return [float(at) for at in values]


def _theory(phase: Phase, found: Sequence[Crossing]) -> Answer:
    question, across = "Is the boundary where theory has it?", symbol(phase.across)
    drift = [line for line in phase.boundaries if line.name == DRIFT]
    if not drift:
        line = "No place is known where the ending should change, for these axes, this method and this problem."
        return Answer(question, "theory names none", (line,))
    lines = {at: _drawn(phase, at) for at in _values(phase)}
    lines = {at: places for at, places in lines.items() if places}
    if not lines:
        return Answer(question, "theory's is outside", ("Theory's line does not lie in this plane.",))
    known = [one for one in found if one.agrees is not None]
    if not known:
        told = f"Theory has a line at {len(lines)} of {len(_values(phase))} values of {across}."
        return Answer(question, "theory has a line, no change was measured", (told, SHORT_RUN))
    near = sum(_met(places, [one for one in known if one.at == at]) for at, places in lines.items())
    told = (
        f"At {near} of {len(lines)} values of {across} theory's line lies where the ending changes, or next to it; in "
        f"the median of the changes it lies {_count(float(np.median([one.cells for one in known])))} outside."
    )
    short = "yes" if near == len(lines) else f"at {near} of {len(lines)}"
    return Answer(question, short, (told, *([SHORT_RUN] if near < len(lines) else [])))


def _drawn(phase: Phase, at: float) -> set[float]:
    """Return where theory has the changes at one value of the other axis."""
    places = (drift_at(line, phase.along, phase.across, at) for line in phase.boundaries)
    return {place for place in places if math.isfinite(place)}


def _met(places: set[float], changes: Sequence[Crossing]) -> bool:
    """Return whether every line has a change beside it, and every change a line."""
    return all(one.agrees for one in changes) and places <= {one.theory for one in changes}


def _count(cells: float) -> str:
    return {0.0: "no cell", 1.0: "1 cell"}.get(cells, f"{fixed(cells)} cells")


def _usual(phase: Phase) -> Answer:
    """Say how the cell ends in which the method's own settings lie."""
    question, method, axes = "How do the usual settings end?", METHODS.get(phase.method), (phase.x, phase.y)
    usual = {} if method is None else dict(method.defaults) | {"lr": 1.0}
    values = [usual.get(axis.name, math.nan) for axis in axes]
    if any(map(math.isnan, values)):
        return Answer(question, "not known", ())
    other = [f"{SYMBOLS.get(key, key)} = {number(v)}" for key, v in phase.fixed if v != usual.get(key)]
    if other:
        return Answer(question, "not played", (f"Every cell has {', '.join(other)}, which is not usual.",))
    if not all(axis.low <= v <= axis.high for axis, v in zip(axes, values, strict=True)):
        return Answer(question, "not in the plane", (f"They are {_settings(axes, values)}.",))
    (column, row) = (
        min(int(np.searchsorted(axis.edges(n), v, "right")) - 1, n - 1)
        for axis, v, n in zip(axes, values, phase.distance.shape[::-1], strict=True)
    )
    distance = float(phase.distance[row, column])
    ends = "it breaks" if math.isnan(distance) else f"the distance goes from {number(phase.away)} to {number(distance)}"
    at = _settings(axes, [axis.middles(n)[i] for axis, n, i in _played(phase, row, column)])
    line = f"They are {_settings(axes, values)}. In their cell, played at {at}, {ends}."
    return Answer(question, str(phase.ending[row, column]), (line,))


def _settings(axes: Sequence[Axis], values: Sequence[float]) -> str:
    return ", ".join(f"{symbol(axis)} = {value(axis, at)}" for axis, at in zip(axes, values, strict=True))


def _played(phase: Phase, row: int, column: int) -> Iterator[tuple[Axis, int, int]]:
    """Yield each axis with the number of cells, and the place, of the grid on which a place was played."""
    times = 2 ** int(phase.level.max() - phase.level[row, column])
    rows, columns = phase.distance.shape
    yield phase.x, columns // times, column // times
    yield phase.y, rows // times, row // times


def _sure(phase: Phase) -> Answer:
    alone = len(phase.seeds) == 1
    runs = (
        "one run" if alone else f"{len(phase.seeds)} seeds, the same in all cells, of which seven in eight must agree"
    )
    lines = [f"Each cell is {runs}, of {whole(phase.steps)} steps."]
    if phase.share(Ending.UNDECIDED):
        lines.append(
            "Undecided cells ended about where they started, were still under way, or had seeds that disagree."
        )
    return Answer("How sure is it?", f"{share(phase, Ending.UNDECIDED)} undecided", tuple(lines))


def _parts(phase: Phase, found: Sequence[Crossing]) -> Iterator[Part]:
    yield Part("map", "The map", plates=(_map(picture(phase)),))
    if found:
        plates = (_boundary(phase, found),) if any(one.agrees is not None for one in found) else ()
        title = "The boundary, measured and by theory" if plates else "Where the ending changes"
        yield Part("boundary", title, table=_table(phase, found), plates=plates)
    yield Part("endings", "How the cells end", table=_endings(phase))
    yield Part("cost", "How it was computed", facts=tuple(_facts(phase)))


def _map(data: Picture) -> Plate:
    lines = LINES[any(line.drift for line in data.lines)] if data.lines else ""
    return Plate(
        "map",
        "Where does it end right?",
        f"Every cell is played at its middle. First: how it ends. Second: its distance from the optimum over the last "
        f"tenth of the steps, blue nearer than the start, orange farther, on a logarithmic scale.{lines}",
        (
            _panel(data),
            Panel(f"final distance from the optimum: {data.title}", partial(draw_distance, data), SIZE),
        ),
    )


def endings_panel(phase: Phase) -> Panel:
    """Return the map of how each cell ends."""
    return _panel(picture(phase))


def _panel(data: Picture) -> Panel:
    return Panel(f"how each cell ends: {data.title}", partial(_endings_with_legend, data), SIZE)


def _endings_with_legend(data: Picture, ax: Axes) -> None:
    handles = draw_endings(data, ax)
    legend_below(ax, 2, handles)


def _boundary(phase: Phase, found: Sequence[Crossing]) -> Plate:
    draw = partial(draw_crossings, picture(phase), phase.along is phase.y, found)
    return Plate(
        "boundary",
        "Does the ending change where theory says?",
        "Bars: from the last cell that ends one way to the first that ends the other, at each value of the other axis; "
        "a long bar has undecided cells in it. Line: where the drift of the steps changes sign, by theory.",
        (Panel("measured changes of the ending, and theory's line", draw, SIZE),),
    )


def _table(phase: Phase, found: Sequence[Crossing]) -> Table:
    along, across = phase.along, phase.across
    theory = any(one.agrees is not None for one in found)
    heads = (
        f"at {symbol(across)}",
        "changes from",
        "to",
        f"last {symbol(along)} before",
        f"first {symbol(along)} behind",
    )
    rows = tuple(
        (
            value(across, one.at),
            word(one.before),
            word(one.after),
            value(along, one.low),
            value(along, one.high),
            *((value(along, one.theory) if one.agrees is not None else "–", _outside(one)) if theory else ()),
        )
        for one in found
    )
    about = f"Cells outside: how far theory's line lies from where the ending changes; up to {NEAR:g} it agrees."
    return Table((*heads, *(("theory", "cells outside") if theory else ())), rows, (about,) if theory else ())


def _outside(one: Crossing) -> str:
    return "–" if one.agrees is None else fixed(one.cells)


def _endings(phase: Phase) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for ending in Ending:
        chosen = phase.ending == ending
        if chosen.any():
            spread = _range(phase.distance[chosen], number), _range(phase.rho[chosen], fixed)
            rows.append((word(ending), whole(_cells(phase, ending)), share(phase, ending), *spread))
    about = (
        f"Distances from the optimum, lowest, median and highest of the cells; the start is {number(phase.away)} away. "
        "ρ: the share of the intended descent that the second half of the steps really made, below 0 uphill.",
    )
    return Table(("ends", "cells", "share", "distance", "ρ"), tuple(rows), about)


def _range(values: NDArray[np.float64], write: Callable[[float], str]) -> str:
    known = values[np.isfinite(values)]
    return ", ".join(write(float(np.quantile(known, q))) for q in (0, 0.5, 1)) if len(known) else "–"


def _facts(phase: Phase) -> Iterator[tuple[str, str]]:
    rows, columns = phase.distance.shape
    yield "problem", name(phase.problem)
    yield "method", name(phase.method)
    yield "learning rate", f"α = {formula(phase.lr)}"
    yield "axes", f"{_axis(phase.x)}; {_axis(phase.y)}"
    if phase.fixed:
        yield "other settings", ", ".join(f"{SYMBOLS.get(key, key)} = {number(v)}" for key, v in phase.fixed)
    yield "grid", f"{columns} × {rows} cells{_refined(phase)}"
    yield "steps", f"{whole(phase.steps)} each"
    numbers = ", ".join(map(str, phase.seeds[:16])) + (" …" if len(phase.seeds) > 16 else "")
    yield "seeds", f"{len(phase.seeds)}, of number {numbers}"
    yield "start", f"{number(phase.away)} from the optimum"
    runs = phase.played * len(phase.seeds)
    cost = f"{whole(runs)} run{'s' * (runs != 1)} of {whole(phase.steps)} steps in {number(phase.seconds, 2)} s"
    yield "cost", f"{whole(phase.played)} cells played: {cost}" if phase.played else "none: all cells were on file"


def _axis(axis: Axis) -> str:
    spaced = {"gap": "log(1 − β)", "log": "its logarithm", "linear": "its value"}[axis.scale]
    return f"{symbol(axis)} from {value(axis, axis.low)} to {value(axis, axis.high)}, evenly in {spaced}"


def _refined(phase: Phase) -> str:
    depth = int(phase.level.max())
    return f", those at a boundary cut {depth} time{'s' * (depth > 1)} into 2 × 2" if depth else ""
