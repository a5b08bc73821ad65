"""What the instruments measured over a run, each panel against the levels that its numbers are read by.

Each figure is a function that returns its data as plain arrays, and one that draws such data on axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..diagnostics import agreement, angular_velocity, inertia
from ..diagnostics.coupling import Coupling, coupling
from ..diagnostics.drift import HarmDecision
from ..diagnostics.effective_rate import effective_rates
from ..diagnostics.trace import Trace
from ..diagnostics.travel import STRIDES
from ..diagnostics.underflow import ACCEPTED
from .axes import plain_numbers, whole_steps
from .evidence import NAME, Forest, draw_forest
from .figures import largest, thin
from .legible import tell_apart
from .numerals import interval
from .theme import BLUE, INK, MUTED, SERIES, VERMILLION, WIDE, label_ends, legend_below, log_steps, log_values, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .plates import Plate

Array = NDArray[np.float64]

ROWS = 12  # of the forest: the lowest
TENSORS = 5  # beside the whole, in a colour each
ANGLES = {
    angular_velocity.DRIFT: "drift",
    angular_velocity.EVEN: "as much noise",
    angular_velocity.WALK: "random walk",
    angular_velocity.STATIONARY: "about a point",
    angular_velocity.CYCLE: "back and forth",
}


@dataclass(frozen=True)
class Lines:
    """Curves by name, each with steps of its own; empty where nothing was measured."""

    curves: dict[str, tuple[NDArray[np.int64], Array]]

    @property
    def steps(self) -> Array:
        """All steps at which there is a point."""
        return np.concatenate([steps for steps, _ in self.curves.values()]).astype(np.float64)


def _recorded(trace: Trace, names: dict[str, str], *, log: bool = True) -> Lines:
    """Return those of the scalars that are on record, under the names that they are shown by."""
    curves = {}
    for name, shown in names.items():
        scalar = trace.scalars.get(name)
        if scalar is not None and len(scalar.steps) > 1:
            keep = thin(scalar.steps, log=log)
            curves[shown] = scalar.steps[keep], scalar.last[keep]
    return Lines(curves)


def _of_tensors(trace: Trace, family: str, limit: int = TENSORS) -> dict[str, str]:
    """Return the names of a family's scalars of the largest tensors that have one, as they are shown."""
    known = [i for i, tensor in enumerate(trace.tensors) if f"{family}/{tensor.name}" in trace.scalars]
    chosen = [trace.tensors[i].name for i in largest(trace, np.array(known, np.intp), limit)]
    return {f"{family}/{name}": shown for name, shown in zip(chosen, tell_apart(chosen, 18), strict=True)}


def angles(trace: Trace) -> Lines:
    """Return the angle over each stride."""
    return _recorded(trace, {f"angle/{s}": f"{s} interval{'s' * (s > 1)}" for s in STRIDES}, log=False)


def draw_angles(data: Lines, ax: Axes) -> None:
    """Draw a curve per stride against the levels; the longest stride is the fullest."""
    ax.set_ylim(-4, 184)
    ax.set_yticks(list(ANGLES), [f"{level:.0f}°" for level in ANGLES])
    for curve, colour, width in zip(data.curves.items(), SERIES, (0.8, 1.2, 2.0), strict=False):
        name, (steps, degrees) = curve
        ax.plot(steps, degrees, color=colour, linewidth=width, label=name)
    whole_steps(ax)
    ax.set_title("turn from stretch to stretch")
    _levels(ax, {level: (words, MUTED) for level, words in ANGLES.items()})
    legend_below(ax, 3)


def certainties(trace: Trace) -> Lines:
    """Return the conformity of the whole run and of the largest tensors."""
    return _recorded(trace, {"conformity/all": "all tensors"} | _of_tensors(trace, "conformity"))


def draw_certainties(data: Lines, ax: Axes) -> None:
    """Draw the whole over the tensors, against what noise alone makes and what is certain."""
    log_steps(ax, data.steps)
    ax.set_ylim(0, 1.03)
    plain_numbers(ax)
    _several(data, ax)
    ax.set_title("conformity")
    _levels(ax, {agreement.NOISE: ("noise", VERMILLION), agreement.CERTAIN: ("certain", MUTED)})
    legend_below(ax, 3)


def momenta(trace: Trace) -> Lines:
    """Return the quantiles of β1 as Adai would set it, and the share of it that is 0."""
    names = {"p50": "median", "p10": "10 %", "p1": "1 %", "clipped": "share at 0"}
    return _recorded(trace, {f"inertia/{name}": shown for name, shown in names.items()})


def draw_momenta(data: Lines, ax: Axes) -> None:
    """Draw the quantiles against the β1 that evenly spread energy would have everywhere."""
    log_steps(ax, data.steps)
    ax.set_ylim(-0.03, 1.03)
    plain_numbers(ax)
    for (name, (steps, values)), width in zip(data.curves.items(), (2.0, 1.4, 0.9, 1.2), strict=False):
        share = name == "share at 0"
        ax.plot(steps, values, "--" if share else "-", color=VERMILLION if share else BLUE, linewidth=width, label=name)
    ax.set_title("β1 as Adai would set it")
    _levels(ax, {inertia.EVEN: ("even", MUTED)})
    legend_below(ax, 4)


def alignments(trace: Trace) -> Lines:
    """Return the cosine of the step and the negative gradient of the largest tensors, where it was measured.

    Of a single coordinate it is 1 or -1 and says nothing.
    """
    cosines = trace.column("alignment")
    known = np.isfinite(cosines) & np.array([tensor.watched > 1 for tensor in trace.tensors], bool)
    chosen = largest(trace, np.flatnonzero(known.sum(axis=0) > 1), len(SERIES))
    names = tell_apart([trace.tensors[i].name for i in chosen], 18)
    return Lines(
        {name: (trace.steps[known[:, i]], cosines[known[:, i], i]) for name, i in zip(names, chosen, strict=True)}
    )


def draw_alignments(data: Lines, ax: Axes) -> None:
    """Draw a curve per tensor between along and against the gradient."""
    log_steps(ax, data.steps)
    ax.set_ylim(-1.03, 1.03)
    plain_numbers(ax)
    for (name, (steps, cosines)), colour in zip(data.curves.items(), SERIES, strict=False):
        ax.plot(steps, cosines, color=colour, linewidth=1.1, label=name)
    ax.set_title("cosine of step and −gradient")
    _levels(ax, {1.0: ("along", MUTED), 0.0: ("across", VERMILLION)})
    legend_below(ax, 3)


def rates(trace: Trace) -> Lines:
    """Return the effective learning rate of every group, and the rate itself, where the two are not the same."""
    lr, effective = trace.groups.get("lr", np.empty((len(trace.steps), 0))), effective_rates(trace)
    differs = [g for g in range(lr.shape[1]) if not np.array_equal(lr[:, g], effective[:, g], equal_nan=True)]
    keep = thin(trace.steps)
    curves = {}
    for g in differs[: len(SERIES) // 2]:
        of = f", group {g}" if lr.shape[1] > 1 else ""
        curves[f"effective{of}"] = trace.steps[keep], effective[keep, g]
        curves[f"learning rate{of}"] = trace.steps[keep], lr[keep, g]
    return Lines(curves)


def draw_rates(data: Lines, ax: Axes) -> None:
    """Draw each group's pair in a colour of its own, the rate itself dashed."""
    values = np.concatenate([curve for _, curve in data.curves.values()])
    if not log_values(ax, values):
        return say(ax, "Every learning rate is 0.")
    log_steps(ax, data.steps)
    for i, (name, (steps, curve)) in enumerate(data.curves.items()):
        shown = np.where(curve > 0, curve, np.nan)
        ax.plot(steps, shown, "--" if i % 2 else "-", color=SERIES[i // 2], linewidth=1.0 if i % 2 else 1.6, label=name)
    ax.set_title("learning rate and effective learning rate")
    legend_below(ax, 2)
    return None


def couplings(found: Sequence[Coupling], limit: int = ROWS) -> Forest:
    """Return the lowest of the ρ that are resolved, the lowest first."""
    rows = sorted((one for one in found if one.resolved), key=lambda one: one.rho)[:limit]
    ends = np.array([one.interval for one in rows], np.float64).reshape(-1, 2)
    low, high = np.sort(ends, axis=1).T
    return Forest(
        names=tuple(tell_apart([one.name for one in rows], NAME)),
        rho=np.array([one.rho for one in rows]),
        low=low,
        high=high,
        decisions=tuple(map(_side, low, high)),
        words=tuple(interval(*one.interval) for one in rows),
    )


def _side(low: float, high: float) -> HarmDecision:
    if high < 0:
        return HarmDecision.HARMFUL
    return HarmDecision.HARMLESS if low > 0 else HarmDecision.INCONCLUSIVE


def losses_to_float16(trace: Trace) -> Lines:
    """Return the share below float16's smallest number of the tensors that had most of it at the end."""
    family = [f"underflow/{tensor.name}" for tensor in trace.tensors]
    known = [name for name in family if name in trace.scalars and trace.scalars[name].last.max() > 0]
    most = sorted(known, key=lambda name: -float(trace.scalars[name].last[-1]))[: len(SERIES)]
    shown = tell_apart([name.partition("/")[2] for name in most], 18)
    return _recorded(trace, dict(zip(most, shown, strict=True)))


def draw_losses_to_float16(data: Lines, ax: Axes) -> None:
    """Draw a curve per tensor against the share that is accepted."""
    log_values(ax, np.concatenate([*(curve for _, curve in data.curves.values()), [ACCEPTED, 2 * ACCEPTED]]))
    log_steps(ax, data.steps)
    for (name, (steps, share)), colour in zip(data.curves.items(), SERIES, strict=False):
        shown = np.maximum(share, ax.get_ylim()[0])
        ax.plot(steps, shown, "-o", markersize=2.5, color=colour, linewidth=1.1, label=name)
    ax.set_title("share of the gradients below 2⁻²⁴")
    _levels(ax, {ACCEPTED: ("accepted", MUTED)})
    legend_below(ax, 3)


def _several(data: Lines, ax: Axes) -> None:
    """Draw the first curve in ink above the others."""
    for i, (name, (steps, values)) in enumerate(data.curves.items()):
        colour, width, above = (INK, 2.2, 3) if i == 0 else (SERIES[i - 1], 1.0, 2)
        ax.plot(steps, values, color=colour, linewidth=width, label=name, zorder=above)


def _levels(ax: Axes, levels: dict[float, tuple[str, str]]) -> None:
    """Draw lines at the levels and name them at their right ends."""
    for level, (_, colour) in levels.items():
        ax.axhline(level, color=colour, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1.5)
    label_ends(ax, [(level, words, colour) for level, (words, colour) in levels.items()])


class Question(NamedTuple):
    """A figure of an instrument: what it answers, how to read it, and what is said where nothing was measured."""

    key: str
    question: str
    caption: str
    label: str
    missing: str
    of: Callable[[Trace], Lines]
    draw: Callable[[Lines, Axes], None]

    def drawing(self, trace: Trace) -> Callable[[Axes], None]:
        """Return what draws the instrument of a run, or says that it has nothing to tell."""
        data = self.of(trace)
        return partial(self.draw, data) if data.curves else partial(say, text=self.missing)


QUESTIONS = (
    Question(
        "angle",
        "Does the run still get anywhere?",
        "The angle is that by which the direction of travel turns from one stretch to the next, of one, two and four "
        "record intervals. Near 0° the run goes straight on, at 60° drift and noise are equal, at 90° it is a random "
        "walk, at 120° it scatters about a point: only a smaller rate gets further.",
        "angle between stretches of travel",
        "The angle was not measured: it takes two stretches of travel, some 400 steps.",
        angles,
        draw_angles,
    ),
    Question(
        "conformity",
        "Is there a mean gradient left to follow?",
        "Conformity is how sure the newer half of the gradients is of the sign of their mean, on average over "
        "coordinates. Noise alone makes ½, at 1 every sign is certain, and below ½ gradients take back what those "
        "before them did. High late in a run: the rate could have been larger.",
        "conformity: how sure the signs are",
        "Conformity was not measured: it takes a monitored run that is long enough.",
        certainties,
        draw_certainties,
    ),
    Question(
        "alignment",
        "Do the steps follow the gradient of their batch?",
        "Alignment is the cosine of a step and the negative gradient that it was taken at. At 1 the step is along the "
        "gradient; a momentum β that holds nothing but noise makes √(1−β²), 0.44 at 0.9; below 0 steps raise the loss "
        "of their own batch.",
        "alignment: cosine of step and −gradient",
        "Alignment was not measured: no record has a step beside its gradient.",
        alignments,
        draw_alignments,
    ),
    Question(
        "inertia",
        "Do few coordinates hold the energy of the gradients?",
        "Inertia is the β1 that Adai would give each coordinate, in quantiles: 0.9 where energy is spread evenly, 0 "
        "from ten times the mean on. The larger the share at 0 and the nearer the median to 1, the fewer hold it.",
        "inertia: β1 as Adai would set it",
        "Inertia was not measured: it takes a monitored run that is long enough.",
        momenta,
        draw_momenta,
    ),
    Question(
        "rate",
        "How much does a gradient move in all?",
        "The effective learning rate is lr/(1 − β): the momentum adds a gradient up so many times before it is "
        "forgotten. A schedule of β is one of the rate.",
        "effective learning rate",
        "No effective learning rate beside the rate itself.",
        rates,
        draw_rates,
    ),
    Question(
        "underflow",
        "What would float16 lose?",
        "The share of the watched gradients between 0 and 2⁻²⁴, the smallest number of float16, in the tensors that "
        "have most at the end; on the axis it is 0. Above the line a loss scale is needed; the record has it as "
        "loss_scale.",
        "gradients too small for float16",
        "No gradient was seen that float16 would lose.",
        losses_to_float16,
        draw_losses_to_float16,
    ),
)


def instrument_plates(trace: Trace) -> list[Plate]:
    """Return the figures of the instruments; of those that have nothing to tell none."""
    from .plates import Panel, Plate  # they may want these

    plates = []
    for one in QUESTIONS:
        data = one.of(trace)
        if data.curves:
            panel = Panel(one.label, partial(one.draw, data), WIDE)
            plates.append(Plate(f"instrument-{one.key}", one.question, one.caption, (panel,)))
    found = couplings(coupling(trace))
    if len(found.names) > 1:
        panel = Panel("coupling by tensor", partial(draw_forest, found), (WIDE[0], 1.15 + 0.3 * len(found.names)))
        plates.append(
            Plate("instrument-coupling", "Which stepsizes answer the gradient they multiply?", COUPLED, (panel,))
        )
    return plates


COUPLED = (
    "ρ of each tensor with its 95 % interval, the lowest first. At 1 stepsize and gradient are not coupled; the "
    "further below, the more of the descent do rare large gradients cost by shrinking their own steps; below 0 the "
    "tensor goes uphill."
)
