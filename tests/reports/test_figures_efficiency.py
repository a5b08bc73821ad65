"""Descent efficiency over time: what is drawn where, and what is said where it was not resolved."""

from __future__ import annotations

import dataclasses
import math
import re
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from stepscope.diagnostics.diagnosis import diagnose
from stepscope.diagnostics.drift import HarmDecision
from stepscope.diagnostics.trace import Efficiency
from stepscope.reports.efficiency import (
    SHADES,
    Course,
    Fields,
    course,
    draw_course,
    draw_fields,
    fields,
)
from stepscope.reports.evidence import judged
from stepscope.reports.maps import edges
from stepscope.reports.mosaic import spans
from stepscope.reports.svg import to_svg
from stepscope.reports.together import draw_efficiencies, draw_losses, efficiencies, losses

NAN = math.nan


def measured(trace, steps=(16, 64, 256, 1024, 4096), rho=0.9, half=0.1, tensors=None):
    """Give a trace ρ over time."""
    rho = np.full(len(steps), rho) if np.isscalar(rho) else np.array(rho, dtype=np.float64)
    each = np.tile(rho[:, None], (1, len(trace.tensors))) if tensors is None else np.array(tensors, dtype=np.float64)
    trace.efficiency = Efficiency(np.array(steps, dtype=np.int64), rho, rho - half, rho + half, each)
    return trace


def a_course(rho, half=0.1):
    rho = np.array(rho, dtype=np.float64)
    steps = 16 * 2 ** np.arange(len(rho))
    return Course(steps, rho, rho - half, rho + half)


def test_the_harm_test_is_the_last_moment(make):
    trace = measured(make(rho=0.5))
    harm = diagnose(trace).harm
    data = course(trace, harm)
    assert list(data.steps) == [16, 64, 256, 1024, 4096, 100_000]
    assert (data.rho[-1], data.low[-1], data.high[-1]) == (harm.rho, *harm.interval)
    assert data.resolved.all()


def test_without_measurements_there_is_no_course(make):
    trace = make()
    assert len(course(trace, diagnose(trace).harm).steps) == 0
    assert fields(trace, judged(trace)).names == ()


@pytest.mark.parametrize(
    ("rho", "marks"),
    [
        ([0.9, 0.8, 0.7], 0),
        ([0.9, NAN, 0.7], 1),
        ([NAN, NAN, 0.7], 1),
        ([NAN, 0.9, NAN, 0.8, NAN, NAN], 3),
    ],
)
def test_each_unresolved_span_is_marked(rho, marks):
    """Grey with one question mark, however long; no point is drawn there, least of all at 0."""
    text = to_svg(partial(draw_course, a_course(rho)), "k", "ρ")
    assert text.count(">?<") == marks
    assert len(re.findall(r"<use", text)) >= sum(map(math.isfinite, rho))


def test_rho_without_an_interval_counts_as_unresolved():
    data = Course(np.array([16, 32, 64]), np.array([0.9, 0.1, 0.8]), np.array([0.8, NAN, 0.7]), np.array([1, NAN, 0.9]))
    assert list(data.resolved) == [True, False, True]
    assert to_svg(partial(draw_course, data), "k", "ρ").count(">?<") == 1


def test_nothing_resolved_is_said_in_words():
    assert "not resolved at any time" in to_svg(partial(draw_course, a_course([NAN, NAN])), "k", "ρ")
    empty = Fields(("a", "b"), np.array([16, 32]), np.full((2, 2), NAN), 0)
    assert "was resolved" in to_svg(partial(draw_fields, empty), "k", "ρ")


@pytest.mark.parametrize("rho", [[0.9, 0.8], [0.9, 0.8, -30.0], [0.5], [1.0, 1.0, 1.0]], ids=str)
def test_both_marks_stand_beside_every_course(rho):
    text = to_svg(partial(draw_course, a_course(rho)), "k", "ρ")
    assert "1: unbiased" in text
    assert "0: no descent" in text


def test_an_interval_that_dwarfs_rho_does_not_squeeze_it():
    data = a_course([0.9, 0.8, 0.9])
    data.high[1] = 400.0
    text = to_svg(partial(draw_course, data), "k", "ρ")
    assert ">0.5<" in text  # a linear axis still
    assert ">100<" not in text


def test_short_stretches_have_an_axis_without_an_empty_half():
    """The record of a simulated run begins at half its steps."""
    data = Course(np.array([5000, 7000, 9000]), *np.full((3, 3), [[0.9], [0.8], [1.0]]))
    text = to_svg(partial(draw_course, data), "k", "ρ")
    ticks = [int(number) for number in re.findall(r">(\d{4,})<", text)]
    assert len(ticks) >= 3
    assert all(5000 <= tick <= 9000 for tick in ticks)


@given(st.lists(st.booleans(), max_size=30))
def test_spans_are_the_stretches_of_true(chosen):
    found = spans(np.array(chosen, dtype=np.bool_))
    covered = [i for first, last in found for i in range(first, last)]
    assert covered == [i for i, here in enumerate(chosen) if here]
    assert all(last > first for first, last in found)
    assert all(a[1] < b[0] for a, b in pairwise(found))


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=20, unique=True).map(sorted))
def test_fields_hold_their_step_and_meet_their_neighbours(steps):
    borders = edges(np.array(steps, dtype=np.int64))
    assert len(borders) == len(steps) + 1
    assert np.all(borders[:-1] <= np.array(steps) * (1 + 1e-12))
    assert np.all(np.array(steps) <= borders[1:] * (1 + 1e-12))
    assert np.all(np.diff(borders) > 0)


def test_shades_cover_every_rho_once():
    for rho in np.concatenate([np.linspace(-3, 3, 601), [-1e9, 1e9]]):
        assert sum(low <= rho < high for low, high, *_ in SHADES) == 1
    assert not any(low <= NAN < high for low, high, *_ in SHADES)


def test_the_map_shows_tensors_that_climb_and_then_the_largest(make):
    names = tuple("abcdefgh")
    trace = measured(make(tensors=8, names=names))
    each = [dataclasses.replace(one, decision=HarmDecision.HARMLESS) for one in judged(trace)]
    each[1] = dataclasses.replace(each[1], decision=HarmDecision.HARMFUL)
    data = fields(trace, each, limit=3)
    assert data.names == ("b", "g", "h")  # the two largest, and the small one that climbs, in the model's order
    assert data.left_out == 5


def test_the_last_column_counts_only_what_the_harm_test_resolved(make):
    trace = measured(make())
    each = list(judged(trace))
    each[1] = dataclasses.replace(each[1], interval=(-math.inf, math.inf))
    data = fields(trace, each)
    assert list(data.steps)[-1] == 100_000
    assert data.rho[[0, 2], -1] == pytest.approx([each[0].rho, each[2].rho])
    assert math.isnan(data.rho[1, -1])
    assert data.rho[:, 0] == pytest.approx([0.9, 0.9, 0.9])


def test_the_fields_of_a_shade_are_one_path_and_neighbours_are_one_box():
    steady = Fields(("a",), 2 ** np.arange(4, 14), np.full((1, 10), 0.9), 0)
    changing = Fields(("a",), 2 ** np.arange(4, 14), np.tile([0.9, 0.1], 5)[None], 0)

    def boxes(data):
        ax = Figure().subplots()
        draw_fields(data, ax)
        return [len(patch.get_path().vertices) // 5 for patch in ax.patches]

    assert boxes(steady) == [1]
    assert boxes(changing) == [5, 5]


def test_a_dot_for_each_field_that_was_not_resolved():
    data = Fields(("a", "b"), 2 ** np.arange(4, 8), np.array([[0.9, NAN, NAN, 0.9], [NAN, 0.9, 0.9, 0.9]]), 0)
    whole = dataclasses.replace(data, rho=np.full((2, 4), 0.9))

    def uses(data):
        return to_svg(partial(draw_fields, data), "k", "ρ").count("<use")

    assert uses(data) - uses(whole) == 3


# --- several runs ------------------------------------------------------------------------------------------------


def test_losses_of_several_runs_are_exact_means(make):
    trace, silent = make(last=3000), make(last=3000)
    silent.scalars = {}
    data = losses([trace, silent])
    total = trace.scalars["loss"].total
    rows = np.searchsorted(trace.steps, data.steps[0])
    counts = np.diff(trace.steps[rows], prepend=0)
    assert data.values[0] == pytest.approx(np.diff(total[rows], prepend=0.0) / counts)
    assert len(data.values[1]) == 0


def test_curves_of_several_runs_carry_the_number_of_their_run(make):
    traces = [measured(make(rho=rho)) for rho in (1.0, 0.4)] + [make()]
    harms = [diagnose(trace).harm for trace in traces]
    data = efficiencies(traces, harms)
    assert [len(values) for values in data.values] == [6, 6, 0]
    text = to_svg(partial(draw_efficiencies, data), "k", "ρ")
    assert ">1<" in text
    assert ">2<" in text
    assert to_svg(partial(draw_losses, losses(traces)), "k", "loss").count(">3<") == 1


def test_several_odd_runs_are_drawn(odd_trace):
    harm = diagnose(odd_trace).harm
    for draw, data in ((draw_losses, losses([odd_trace] * 2)), (draw_efficiencies, efficiencies([odd_trace], [harm]))):
        assert to_svg(partial(draw, data), "k", "label").startswith("<svg")
