"""Which figures a report holds, each with the question it answers and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..diagnostics.diagnosis import Diagnosis
from ..diagnostics.drift import Harm
from ..diagnostics.limits import Limits
from ..diagnostics.trace import Trace
from . import heatmap, maps, oscillation, timeline, what_if
from .efficiency import Fields, course, draw_course, draw_fields, fields
from .evidence import draw_forest, draw_overlay, draw_ratio, forest, harms, judgeable, judged, overlay, ratio
from .figures import (
    curves,
    draw_curve,
    draw_lengths,
    draw_rises,
    draw_stepsizes,
    draw_sums,
    lengths,
    rises,
    stepsizes,
    sums,
)
from .instruments import instrument_plates
from .legible import shorten
from .limits import plate as limits_plate
from .numerals import fixed, whole
from .theme import SMALL, WIDE
from .together import draw_efficiencies, draw_losses, efficiencies, losses
from .words import rho

if TYPE_CHECKING:
    from matplotlib.axes import Axes


UPON = "Where curves lie on each other, the upper one is dashed."


@dataclass(frozen=True)
class Panel:
    """One drawing, with the words that a screen reader says for it."""

    label: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = WIDE


@dataclass(frozen=True)
class Plate:
    """The panels that answer one question; none where the run does not tell."""

    key: str
    question: str
    caption: str
    panels: tuple[Panel, ...]


def plates(trace: Trace, diagnosis: Diagnosis, limited: Limits) -> list[Plate]:
    """Return the figures of one run, descent efficiency first; none for a run of fewer than two records."""
    if len(trace.steps) < 2:
        return []
    stepped = bool(np.any(trace.total("a") > 0))
    found = [
        _efficiency(trace, diagnosis),
        limits_plate(trace, limited),
        timeline.plate(trace),
        *([_ratios(trace, diagnosis)] if stepped else []),
        _scalars(trace),
        *([_stepsizes(trace), heatmap.plate(trace), _sums(trace)] if stepped else []),
        *([oscillation.plate(trace), _rises(trace)] if stepped else []),
        _lengths(trace),
        what_if.plate(diagnosis.what_if),
        *instrument_plates(trace),
    ]
    return [plate for plate in found if plate.panels]


def comparison(runs: Sequence[tuple[str, Trace, Diagnosis]]) -> list[Plate]:
    """Return the figures that set several runs side by side."""
    traces, found = [trace for _, trace, _ in runs], [diagnosis for _, _, diagnosis in runs]
    variance = overlay("b/a", [diagnosis.variance for diagnosis in found])
    bias = overlay("c⁺/a", [diagnosis.bias for diagnosis in found])
    harmed = forest([(f"{i}  {shorten(name, 30)}", run.harm) for i, (name, _, run) in enumerate(runs, 1)])
    over_time = efficiencies(traces, [diagnosis.harm for diagnosis in found])
    left_out = _left_out(found)
    size = (WIDE[0], 1.1 + 0.32 * len(runs))
    shown = [
        Plate(
            "compare-harm",
            "Which runs go with their own gradient, and how far?",
            "ρ of each run with its 95 % interval over its last half, and over time: 1 is unbiased, between 0 and 1 is "
            "an efficiency, an interval below 0 is uphill. Numbers are those of the table; a curve has gaps where ρ "
            f"was not resolved. {UPON}",
            (
                Panel("ρ of each run", partial(draw_forest, harmed), size),
                Panel("ρ of each run over steps", partial(draw_efficiencies, over_time)),
            ),
        ),
        Plate(
            "compare-ratios",
            "Which ratios fall towards 0?",
            "b/a (variance) and c⁺/a (bias) over the judged blocks, each relative to its first. A "
            "curve that falls certifies, a flat one does not. Numbers are those of the table; (0) "
            f"marks a ratio that is 0. {UPON}{left_out}",
            (
                Panel("b/a of each run", partial(draw_overlay, variance)),
                Panel("c⁺/a of each run", partial(draw_overlay, bias)),
            )
            if any(map(len, (*variance.t, *bias.t)))
            else (),
        ),
        Plate(
            "compare-losses",
            "How far did each come?",
            f"Means of the logged loss between the points of each curve. {UPON}",
            (Panel("loss of each run over steps", partial(draw_losses, losses(traces))),),
        ),
    ]
    return [plate for plate in shown if plate.panels]


def _left_out(found: Sequence[Diagnosis]) -> str:
    """Say which runs have no curve among the ratios."""
    short = [i for i, run in enumerate(found, 1) if not (judgeable(run.variance) and judgeable(run.bias))]
    if not short:
        return ""
    runs = f"Run {short[0]} is" if len(short) == 1 else f"Runs {', '.join(map(str, short[:-1]))} and {short[-1]} are"
    return f" {runs} too short to judge and left out."


def _ratios(trace: Trace, diagnosis: Diagnosis) -> Plate:
    start = diagnosis.start
    both = (
        ratio(trace, "b/a", "b", diagnosis.variance, start),
        ratio(trace, "c⁺/a", "c_plus", diagnosis.bias, start),
    )
    return Plate(
        "ratios",
        "Is there a certificate?",
        "Each point is the increment of b (first: variance) or of c⁺ (second: bias) over one "
        "√2-spaced block of steps, divided by that of a. Theory asks both to fall towards 0. The "
        "line is the Theil–Sen slope of the judged blocks, the band its 16–84 % spread. A slope at "
        "or below the green line (−0.2) means that the condition holds, at or above the orange one "
        "(−0.1) that it is violated, between them that this run does not decide. Hollow points on "
        "grey are the start-up, which is not judged; a triangle on the axis stands for a ratio of 0.",
        tuple(
            Panel(
                f"{data.name} per block: slope {fixed(data.slope)}, {data.decision}",
                partial(draw_ratio, data),
            )
            for data in both
        ),
    )


def _efficiency(trace: Trace, diagnosis: Diagnosis) -> Plate:
    harm, each = diagnosis.harm, judged(trace)
    over_time, by_tensor = course(trace, harm), fields(trace, each)
    rows = harms(trace, harm, each)
    forest_size = (WIDE[0], 1.15 + 0.3 * len(rows.names))
    panels = {
        "ρ over steps": (len(over_time.steps) > 1, partial(draw_course, over_time), WIDE),
        f"ρ: {rho(harm)}": (trace.drift is not None, partial(draw_forest, rows), forest_size),
        "ρ of each tensor over steps": (
            by_tensor.names,
            partial(draw_fields, by_tensor),
            maps.size(len(by_tensor.names)),
        ),
    }
    return Plate(
        "efficiency",
        "How much of the intended descent do the steps make?",
        _efficiency_caption(harm, over_time=len(over_time.steps) > 1, several=len(rows.names) > 1, by_tensor=by_tensor),
        tuple(Panel(label, draw, size) for label, (shown, draw, size) in panels.items() if shown),
    )


def _efficiency_caption(harm: Harm, *, over_time: bool, several: bool, by_tensor: Fields) -> str:
    """Say how to read ρ."""
    text = (
        "Descent efficiency ρ is the share of the descent that the stepsizes intend which the steps really make. At 1 "
        "adaptivity costs nothing; an interval wholly below 0 means that the run goes uphill. "
    )
    if over_time:
        text += (
            "At each moment ρ is that of the half of the run before it, in the band of its 95 % interval; grey with a "
            "question mark: not resolved, the gradients left no mean beside their noise. "
        )
    text += f"The verdict reads ρ of steps {whole(harm.first_step)} to {whole(harm.last_step)}, with its interval"
    text += "; the rows per tensor show where. " if several else ". "
    if by_tensor.names:
        text += "The map has ρ of each tensor, without intervals: one orange field may be chance; a dot: not resolved. "
    if by_tensor.left_out:
        text += f"It shows those that climb, then the largest; {by_tensor.left_out} are not shown. "
    return text.strip()


def _scalars(trace: Trace) -> Plate:
    logged = curves(trace)
    return Plate(
        "scalars",
        "What did the run itself report?",
        "Means of the logged values between neighbouring records, as points where they were logged at few of "
        "them. Orange ticks on the axis mark values that were not finite.",
        tuple(Panel(f"{curve.name} over steps", partial(draw_curve, curve), _size(logged)) for curve in logged),
    )


def _stepsizes(trace: Trace) -> Plate:
    tensors = stepsizes(trace)
    return Plate(
        "stepsizes",
        "Which stepsizes did the optimizer really take?",
        "Quantiles of the effective stepsize over the watched coordinates of the largest tensors, "
        "and the learning rate. A wide band: coordinates of one tensor move at very different "
        "speeds. A median that climbs while the learning rate does not: a second moment that decays.",
        tuple(Panel(f"stepsizes of {data.name}", partial(draw_stepsizes, data), _size(tensors)) for data in tensors),
    )


def _sums(trace: Trace) -> Plate:
    return Plate(
        "sums",
        "How do the sums grow?",
        "a adds up the stepsizes, b the squared steps along the gradient, c the changes of the "
        "stepsizes and c⁺ their rises alone. For convergence a has to outgrow b and c⁺. The start-up "
        "stays in these sums for ever, which bends their slopes: the verdict reads the blocks above, "
        "not these curves.",
        (Panel("a, b, c and c⁺ over steps", partial(draw_sums, sums(trace))),),
    )


def _rises(trace: Trace) -> Plate:
    return Plate(
        "rises",
        "What made stepsizes rise?",
        "Bars: of all upward moves in a block, the share that the learning rate, the bias correction "
        "and the second moment made, each counted before the others pull against it, so that there may be "
        "bars where nothing rose in the end. Line: the share of stepsizes that rose from one step to the "
        "next. No bar: no upward move. Rises by the bias "
        "correction alone are how torch implements AMSGrad, and they fade.",
        (Panel("share of rises by cause, per block", partial(draw_rises, rises(trace))),),
    )


def _lengths(trace: Trace) -> Plate:
    relative = lengths(trace)
    panel = Panel("update-to-weight ratio over steps", partial(draw_lengths, relative))
    return Plate(
        "lengths",
        "How long are the steps against the weights?",
        "Root mean square of the step over that of the weights, for the largest tensors. About 10⁻³ "
        "is common in healthy training; a tensor far above the others is being rewritten, one far "
        "below hardly learns.",
        (panel,) if relative.curves else (),
    )


def _size(panels: Sequence[object]) -> tuple[float, float]:
    return SMALL if len(panels) % 3 == 0 or len(panels) == 5 else WIDE  # three or two in a row
