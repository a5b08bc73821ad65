"""The figures of a trace one by one, on axes of one's own: `trace.plot.accumulators(ax=ax)`.

Every figure is a view: its data function and its drawing are those of the report.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..diagnostics.coupling import coupling
from ..diagnostics.diagnosis import Diagnosis
from ..diagnostics.limits import limits
from ..diagnostics.trace import Trace
from . import maps, timeline
from .efficiency import course, draw_course, draw_fields, fields
from .evidence import draw_forest, draw_ratio, harms, judged, ratio
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
from .growth import draw_gamma, gammas
from .heatmap import draw_medians, medians
from .instruments import QUESTIONS, couplings
from .legible import shorten
from .limits import cells, draw_cells, draw_strips, strips
from .oscillation import draw_oscillation, oscillation
from .theme import STYLE, WIDE, dress, say
from .what_if import NOTHING, RATIOS, Side, draw_multiples
from .what_if import harms as harms_of_rules
from .what_if import size as size_of_multiples

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Size = tuple[float, float]

INSTRUMENTS = {one.key: one for one in QUESTIONS}
FINE = 150  # dots per inch
STEPS = 100  # of Γ step by step: more cannot be told apart


class Plots:
    """The figures of a run. Each draws on `ax`, or on axes of its own, and returns the axes.

    `trace.plot.limits().figure.savefig("limits.pdf")` writes one, as SVG, PNG or PDF; no display is needed. Global
    settings of matplotlib stay as they are. What a run does not tell is said in a sentence in place of the figure.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __repr__(self) -> str:
        """Return the names of the figures."""
        return f"<Plots: {', '.join(name for name in dir(self) if not name.startswith('_'))}>"

    @cached_property
    def _diagnosis(self) -> Diagnosis:
        return self._trace.diagnose()

    # --- what decides the verdict

    def accumulators(self, ax: Axes | None = None) -> Axes:
        """Draw the sums a, b, c and c⁺.

        How do the sums grow? Shows a = Σ e, b = Σ (e g)², c = Σ |Δe| and c⁺ = Σ max(0, Δe), in units of the stepsize
        (b: of a squared step), over steps; both axes are logarithmic. For convergence a has to outgrow b and c⁺.
        """
        return on_axes(partial(draw_sums, sums(self._trace)) if self._stepped else _unread, ax)

    def ratios(self, ax: Axes | None = None, of: Side = "variance") -> Axes:
        """Draw b/a or c⁺/a block by block, with the rule that judges it.

        Is there a certificate? Shows b/a (`of="variance"`) or c⁺/a (`of="bias"`) as increments over √2-spaced blocks,
        with the slope that was fitted, its 16–84 % spread, and the slopes of the rule: at or below the green line the
        condition holds.
        """
        column = {"variance": "b", "bias": "c_plus"}[_one_of("of", of, RATIOS)]
        if not self._stepped:
            return on_axes(_unread, ax)
        found = self._diagnosis
        data = ratio(self._trace, RATIOS[of], column, getattr(found, of), found.start)
        return on_axes(partial(draw_ratio, data), ax)

    def efficiency(self, ax: Axes | None = None) -> Axes:
        """Draw the descent efficiency ρ over the run.

        How much of the intended descent do the steps make? Shows ρ, a pure number, of the half of the run before each
        step, in the band of its 95 % interval: 1 is unbiased, below 0 is uphill. Grey with a question mark: not
        resolved.
        """
        data = course(self._trace, self._diagnosis.harm)
        return on_axes(partial(draw_course, data) if len(data.steps) > 1 else _unresolved, ax)

    def efficiency_of_tensors(self, ax: Axes | None = None) -> Axes:
        """Draw the descent efficiency ρ of each tensor over the run.

        Where do the steps go uphill, and since when? Shows a map of ρ, a row per tensor over steps, a shade per range;
        orange is uphill, a dot is not resolved.
        """
        data = fields(self._trace, judged(self._trace))
        several = len(self._trace.tensors) > 1
        missing = _unresolved if several else partial(say, text="The run has one tensor: see trace.plot.efficiency().")
        return on_axes(partial(draw_fields, data) if data.names else missing, ax, maps.size(max(len(data.names), 6)))

    def harm(self, ax: Axes | None = None) -> Axes:
        """Draw ρ of the last half of the run, and of its largest tensors.

        Do the steps go with the mean gradient? Shows ρ of the last half of the run with its 95 % interval, and that of
        each of the largest tensors.
        """
        if self._trace.drift is None:
            return on_axes(_unresolved, ax)
        data = harms(self._trace, self._diagnosis.harm, judged(self._trace))
        return on_axes(partial(draw_forest, data), ax, _rows(len(data.names)))

    def what_if(self, ax: Axes | None = None, of: Literal["variance", "bias", "harm"] = "bias") -> Axes:
        """Draw how other rules would have stood on the gradients of the run.

        Would another rule have stood better on the same gradients? Shows a small chart per imagined rule: the blocks of
        b/a (`of="variance"`) or c⁺/a (`of="bias"`) on common logarithmic scales over steps, the run's own in grey
        behind; or ρ of each with its interval (`of="harm"`).
        """
        _one_of("of", of, (*RATIOS, "harm"))
        found = self._diagnosis.what_if
        if of != "harm":
            return on_axes(partial(draw_multiples, found, of), ax, size_of_multiples(found))
        missing = partial(say, text=NOTHING)
        draw = partial(draw_forest, harms_of_rules(found)) if len(found) > 1 else missing
        return on_axes(draw, ax, _rows(max(len(found), 4)))

    # --- what limits it, and what happened

    def limits(self, ax: Axes | None = None) -> Axes:
        """Draw the share that each cause takes, over the stages of the run.

        What limits the run? Shows a strip per cause, filled to the share (0 to 100 %) that it takes, over stages of the
        run; orange limits.
        """
        return on_axes(partial(draw_strips, strips(limits(self._trace))), ax, (WIDE[0], 4.0))

    def limits_of_tensors(self, ax: Axes | None = None) -> Axes:
        """Draw the share that each cause takes of the largest tensors.

        What limits each tensor? Shows the share (0 to 100 %) that each cause takes of the largest tensors in the last
        stage; orange limits.
        """
        data = cells(self._trace, limits(self._trace))
        return on_axes(partial(draw_cells, data), ax, (WIDE[0], 0.75 + 0.32 * max(len(data.names), 4)))

    def alerts(self, ax: Axes | None = None) -> Axes:
        """Draw the time line of alerts and other events.

        What was told while the run went on, and when? Shows a row per rule that gave an alert and per other event over
        steps; shaded are the steps before an alert that the flight recorder has in full.
        """
        data = timeline.timeline(self._trace)
        return on_axes(partial(timeline.draw_timeline, data), ax, (WIDE[0], 1.0 + 0.3 * max(len(data.lines), 4)))

    def scalars(self, ax: Axes | None = None, name: str | None = None) -> Axes:
        """Draw a logged scalar.

        What did the run itself report? Shows the logged scalar `name`, the first one if None is given, as means between
        records over steps, in its own units; orange ticks on the axis mark values that were not finite.
        """
        logged = {curve.name: curve for curve in curves(self._trace, len(self._trace.logged))}
        if name is not None:
            _one_of("name", name, logged)
        if not logged:
            return on_axes(partial(say, text="The run logged no scalar."), ax)
        return on_axes(partial(draw_curve, logged[next(iter(logged)) if name is None else name]), ax)

    # --- stepsizes

    def stepsizes(self, ax: Axes | None = None, tensor: str | None = None) -> Axes:
        """Draw the quantiles of the stepsizes of a tensor.

        Which stepsizes did the optimizer really take? Shows quantiles of the effective stepsize over the coordinates of
        `tensor`, the largest if None is given, and the learning rate, over steps; both axes are logarithmic.
        """
        tensors = self._trace.tensors
        known = {data.name: data for data in stepsizes(self._trace, len(tensors))}
        if tensor is not None:
            _one_of("tensor", tensor, [one.name for one in tensors])
        by_size = sorted(tensors, key=lambda one: -one.numel)
        name = tensor or next((one.name for one in by_size if one.name in known), "")
        return on_axes(partial(draw_stepsizes, known[name]) if name in known else _unread, ax)

    def heatmap(self, ax: Axes | None = None) -> Axes:
        """Draw the median stepsize of each tensor over the run.

        Which tensors step fast, which slow, and since when? Shows the median stepsize as a map, a row per tensor over
        steps, a shade per range; a dot is none, or 0.
        """
        data = medians(self._trace)
        return on_axes(partial(draw_medians, data), ax, maps.size(max(len(data.names), 6)))

    def oscillation(self, ax: Axes | None = None) -> Axes:
        """Draw how much stepsizes fell and rose in each block.

        Do stepsizes only fall, or swing up again? Shows how much stepsizes fell (up) and rose (down) per block of
        steps, as shares of the stepsizes taken; where they rise Γ = 1/eₜ − 1/eₜ₋₁ is negative, and that part is c⁺/a.
        """
        return on_axes(partial(draw_oscillation, oscillation(self._trace)) if self._stepped else _unread, ax)

    def gamma(self, ax: Axes | None = None, steps: tuple[int, int] | None = None) -> Axes:
        """Draw Γ step by step, of a simulated run in one variable.

        At which steps does the stepsize rise? Shows Γ = 1/eₜ − 1/eₜ₋₁ step by step, in units of one over the stepsize,
        its negative part shaded: of a simulated run in one variable, from the first to the last of `steps`, which must
        all be on record.
        """
        trace = self._trace
        if not trace.tensors or trace.tensors[0].numel != 1:
            return on_axes(
                partial(say, text="Γ step by step is kept for one variable: see trace.plot.oscillation()."), ax
            )
        first, last = steps or _consecutive(trace)
        if last < first:
            return on_axes(partial(say, text="No two neighbouring steps are on record."), ax)
        (data,) = gammas([("Γ", trace)], first, last)
        return on_axes(partial(draw_gamma, data), ax)

    def rises(self, ax: Axes | None = None) -> Axes:
        """Draw which factor made stepsizes rise.

        What made stepsizes rise? Shows the shares (0 to 100 %) of the learning rate, the bias correction and the second
        moment in the upward moves of each block, and the share of stepsizes that rose, over steps.
        """
        return on_axes(partial(draw_rises, rises(self._trace)) if self._stepped else _unread, ax)

    def lengths(self, ax: Axes | None = None) -> Axes:
        """Draw the update-to-weight ratio of the largest tensors.

        How long are the steps against the weights? Shows RMS(Δθ)/RMS(θ), a pure number, of the largest tensors over
        steps; both axes are logarithmic.
        """
        return on_axes(partial(draw_lengths, lengths(self._trace)), ax)

    # --- instruments

    def angle(self, ax: Axes | None = None) -> Axes:
        """Draw the angle by which the direction of travel turns.

        Does the run still get anywhere? Shows the angle in degrees by which the direction of travel turns from stretch
        to stretch, over steps: 0 is straight on, 90 a random walk, 120 scatter about a point.
        """
        return self._instrument("angle", ax)

    def conformity(self, ax: Axes | None = None) -> Axes:
        """Draw the conformity of the gradients.

        Is there a mean gradient left to follow? Shows how sure the signs of the mean gradients are, from ½ (noise) to 1
        (certain), over steps.
        """
        return self._instrument("conformity", ax)

    def alignment(self, ax: Axes | None = None) -> Axes:
        """Draw the alignment of step and negative gradient.

        Do the steps follow the gradient of their batch? Shows the cosine of step and negative gradient, from −1 to 1,
        of the largest tensors over steps.
        """
        return self._instrument("alignment", ax)

    def inertia(self, ax: Axes | None = None) -> Axes:
        """Draw the β1 that Adai would set.

        Do few coordinates hold the energy of the gradients? Shows quantiles of the β1 that Adai would give each
        coordinate, from 0 to 1, over steps; 0.9 is even.
        """
        return self._instrument("inertia", ax)

    def rate(self, ax: Axes | None = None) -> Axes:
        """Draw the effective learning rate.

        How much does a gradient move in all? Shows the effective learning rate lr/(1 − β) of each group beside the
        learning rate, over steps.
        """
        return self._instrument("rate", ax)

    def underflow(self, ax: Axes | None = None) -> Axes:
        """Draw the share of the gradients that float16 would lose.

        What would float16 lose? Shows the share of the gradients between 0 and 2⁻²⁴, over steps, against the share that
        is accepted.
        """
        return self._instrument("underflow", ax)

    def coupling(self, ax: Axes | None = None) -> Axes:
        """Draw the coupling of stepsize and gradient, tensor by tensor.

        Which stepsizes answer the gradient they multiply? Shows ρ of each tensor with its 95 % interval, the lowest
        first; 1 is not coupled, below 0 is uphill.
        """
        data = couplings(coupling(self._trace))
        missing = partial(say, text="No tensor's mean gradient stands out of its noise.")
        draw = partial(draw_forest, data) if data.names else missing
        return on_axes(draw, ax, _rows(max(len(data.names), 4)))

    def _instrument(self, key: str, ax: Axes | None) -> Axes:
        return on_axes(INSTRUMENTS[key].drawing(self._trace), ax)

    @property
    def _stepped(self) -> bool:
        """Whether a stepsize is on record that was not 0."""
        return len(self._trace.steps) > 1 and bool(np.any(self._trace.total("a") > 0))


def on_axes(draw: Callable[[Axes], object], ax: Axes | None, size: Size = WIDE) -> Axes:
    """Return axes, `ax` if they are given, on which `draw` has drawn in the house style."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        ax = _own_axes(size) if ax is None else ax
        dress(ax)
        draw(ax)
    return ax


def _own_axes(size: Size) -> Axes:
    """Return the axes of a new figure; it is one of pyplot's where that is in use, so that it is shown there."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if "matplotlib.pyplot" not in sys.modules and "ipykernel" not in sys.modules:
        return Figure(figsize=size, dpi=FINE, layout="constrained").subplots()
    from matplotlib import pyplot

    with rc_context({"figure.max_open_warning": 0}):  # in a loop they are the caller's to close
        return pyplot.figure(figsize=size, layout="constrained").subplots()


def _unread(ax: Axes) -> None:
    say(ax, "No stepsize was read.")


def _unresolved(ax: Axes) -> None:
    say(ax, "ρ was not measured: the run is too short, or has no stepsizes.")


def _rows(count: int) -> Size:
    return WIDE[0], 1.15 + 0.3 * count


def _one_of(argument: str, value: str, known: Iterable[str]) -> str:
    """Return a name that is known."""
    names = list(known)
    if value not in names:
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        listed = ", ".join(repr(shorten(name, 40)) for name in names[:8]) or "nothing here"
        raise ValueError(f"`{argument}` must be one of {listed}{more}; got {shorten(repr(value), 60)}.")
    return value


def _consecutive(trace: Trace) -> tuple[int, int]:
    """Return the last steps of the longest stretch without a gap, at most `STEPS`, but for its very first."""
    breaks = np.flatnonzero(np.diff(trace.steps) != 1) + 1
    longest = max(np.split(trace.steps, breaks), key=len)
    begin, last = (int(longest[0]), int(longest[-1])) if len(longest) else (0, 0)
    return max(begin + 1, last - STEPS + 1), last
