"""Figures one by one: on axes of one's own, in every format, of every record; what they show is what the data say."""

import dataclasses
import os
import re
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from stepscope import Trace
from stepscope.diagnostics.flight import LENGTH
from stepscope.diagnostics.limits import limits
from stepscope.diagnostics.trace import COLUMNS, Efficiency, Event, Scalars, WhatIfRecord
from stepscope.diagnostics.what_if import alternatives
from stepscope.reports.figures import block_sums, sums
from stepscope.reports.heatmap import draw_medians, medians
from stepscope.reports.maps import ranges, round_marks
from stepscope.reports.oscillation import draw_oscillation, oscillation
from stepscope.reports.plates import plates
from stepscope.reports.plot import Plots
from stepscope.reports.svg import to_svg
from stepscope.reports.theme import BLUE, STYLE
from stepscope.reports.timeline import Line, draw_timeline, timeline
from stepscope.reports.what_if import Cells, draw_multiples

FIGURES = [name for name in dir(Plots) if not name.startswith("_")]
HOSTILE = ('"><script>alert(1)</script>', "$\\frac{1}{", "x" * 10_000, "\u202ethgir\u202c\x00\n\t")
ALERT = "surge: the gradient is large. Likely cause: a bad batch. To try: clip"


@pytest.fixture
def told(make):
    """Return a function that makes a run which tells everything that a figure may ask."""

    def tell(names=(), **options) -> Trace:
        trace = make(tensors=4, names=names, **options)
        steps = np.array([128, 256, 512, 1024])
        for name in ("angle/1", "conformity/all", "inertia/p50", f"underflow/{trace.tensors[0].name}"):
            trace.scalars[name] = Scalars(steps, np.linspace(0.2, 0.6, 4), np.ones(4), np.arange(1.0, 5))
        trace.meta["optimizer"] = "torch.optim.sgd.SGD"
        trace.meta["hyperparameters"] = [{"lr": 0.1, "momentum": 0.9, "dampening": 0}]
        each = np.full((4, 4), 0.7)
        trace.efficiency = Efficiency(steps, each[0], each[0] - 0.1, each[0] + 0.1, each)
        own = np.stack([trace.total(name) for name in ("a", "b", "c_plus")], axis=1)
        rules = ("as it was", "amsgrad", "sgd", "adam(beta2=0.9)")
        trace.what_if = WhatIfRecord(rules, np.stack([own, own * [1, 2, 0], own * [1, 1, 0], own * [1, 1, 3]], axis=1))
        trace.events = [
            Event(900, "alert", ALERT, trace.tensors[1].name),
            Event(950, "nonfinite", "NaN"),
            *trace.events,
        ]
        return trace

    return tell


def shown(ax):
    """Return what stands on axes."""
    return [*ax.lines, *ax.collections, *ax.patches, *ax.texts]


def said(ax):
    """Tell whether a sentence stands in place of a figure."""
    return len(ax.texts) == len(ax.patches) == 1 and not ax.lines and not ax.collections


@pytest.mark.parametrize("name", FIGURES)
def test_axes_that_are_given_come_back_drawn_upon(told, name):
    ax, settings = Figure().subplots(), dict(mpl.rcParams)
    assert getattr(told().plot, name)(ax) is ax
    assert dict(mpl.rcParams) == settings
    assert len(shown(ax)) > 0
    assert not ax.spines["top"].get_visible()
    assert {line.get_color() for line in ax.get_xgridlines()} <= {STYLE["grid.color"]}
    assert said(ax) == (name == "gamma")  # which is of simulated runs


def test_every_record_draws_or_says_why_not(odd_trace):
    plot = odd_trace.plot
    for name in FIGURES:
        ax = getattr(plot, name)(Figure().subplots())
        assert shown(ax), name


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
@pytest.mark.parametrize("name", ["what_if", *(pytest.param(n, marks=pytest.mark.slow) for n in FIGURES)])
def test_figures_are_saved(told, tmp_path, name, ending):
    path = tmp_path / f"figure.{ending}"
    getattr(told(names=HOSTILE).plot, name)().figure.savefig(path)
    head = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(head)
    assert path.stat().st_size > 2000
    if ending == "svg":
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()}
        assert "script" not in tags


@pytest.mark.slow
def test_a_script_without_a_display_draws(make, tmp_path):
    make().save(tmp_path / "run")
    code = (
        "import sys; from stepscope import Trace; ax = Trace.load('run').plot.limits(); ax.figure.savefig('x.pdf')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MPLBACKEND")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "x.pdf").exists()


def test_a_figure_is_one_of_pyplots_where_that_is_in_use(told, monkeypatch):
    monkeypatch.setattr(mpl, "rcParams", mpl.rcParams)
    monkeypatch.setitem(mpl.rcParams, "backend", "agg")
    from matplotlib import pyplot

    figure = told().plot.limits().figure
    assert pyplot.gcf() is figure
    pyplot.close(figure)


def test_tensors_and_scalars_are_chosen_by_name(told):
    plot = told().plot
    assert plot.stepsizes(Figure().subplots()).get_title(loc="left") == "layer3.weight"  # the largest
    assert plot.stepsizes(Figure().subplots(), tensor="layer0.weight").get_title(loc="left") == "layer0.weight"
    assert plot.scalars(Figure().subplots(), name="loss").get_title(loc="left") == "loss"
    assert plot.ratios(Figure().subplots(), of="bias").get_title(loc="left").startswith("c⁺/a")


@pytest.mark.parametrize(
    ("name", "argument"), [("stepsizes", "tensor"), ("scalars", "name"), ("ratios", "of"), ("what_if", "of")]
)
def test_unknown_names_are_told_with_those_that_are_known(told, name, argument):
    with pytest.raises(ValueError, match=rf"`{argument}` must be one of '.*; got 'nothing'"):
        getattr(told().plot, name)(**{argument: "nothing"})


def questions():
    """Return the question that the docstring of each figure begins with."""
    return {name: re.search(r"\n\n\s+(.*?\?) ", getattr(Plots, name).__doc__, re.DOTALL)[1] for name in FIGURES}


def test_the_document_lists_every_figure_with_its_question():
    text = (Path(__file__).parents[2] / "docs/figures.md").read_text()
    assert dict(re.findall(r"^\| `trace\.plot\.(\w+)` \| ([^|]*\?) \|", text, re.MULTILINE)) == questions()


def test_a_report_asks_the_same_questions(told):
    trace = told()
    asked = {plate.question for plate in plates(trace, trace.diagnose(), limits(trace))}
    assert asked <= set(questions().values())
    assert len(asked) > 15


def test_the_names_can_be_read(told):
    assert repr(told().plot) == f"<Plots: {', '.join(FIGURES)}>"


# What they show


def test_the_sums_are_those_of_the_data_function(told):
    trace = told()
    ax = trace.plot.accumulators(Figure().subplots())
    for line, curve in zip(ax.lines, sums(trace).curves.values(), strict=True):
        assert np.array_equal(line.get_ydata(), curve)


def test_medians_are_those_of_the_record(told):
    trace = told()
    trace.values[:, 2, COLUMNS.index("e_p50")] = np.nan
    data = medians(trace, limit=2)
    assert data.names == ("layer1.weight", "layer3.weight")
    assert data.left_out == 1
    rows = np.searchsorted(trace.steps, data.steps)
    assert np.array_equal(data.medians, trace.column("e_p50")[rows][:, [1, 3]].T)


def test_a_map_has_a_dot_where_there_is_no_stepsize(told):
    data = medians(told())
    data.medians[1, :7] = np.nan
    data.medians[2, 3] = 0.0
    ax = Figure().subplots()
    draw_medians(data, ax)
    (dots,) = ax.lines
    assert sorted(zip(dots.get_ydata(), dots.get_xdata(), strict=True)) == [
        *((1, step) for step in data.steps[:7]),
        (2, data.steps[3]),
    ]


def test_oscillation_is_the_change_per_block(make):
    trace = make(c_plus=0.5)
    data = oscillation(trace)
    _, (c, c_plus, a) = block_sums(trace, "c", "c_plus", "a")
    assert data.rises == pytest.approx(c_plus / a)
    assert data.falls + data.rises == pytest.approx(np.maximum(c, c_plus) / a)
    ax = Figure().subplots()
    draw_oscillation(data, ax)
    heights = [bar.get_height() for bar in ax.patches if bar.get_height() < 0]
    assert heights == pytest.approx(-data.rises)
    assert data.rising == pytest.approx(c_plus[-1] / max(c[-1], c_plus[-1]))


def test_where_nothing_rises_it_is_said(make):
    ax = make(c_plus=0.0).plot.oscillation(Figure().subplots())
    assert "Γ < 0: e rises\nnever" in [text.get_text() for text in ax.texts]
    ax = make(c=0.0, c_plus=0.0).plot.oscillation(Figure().subplots())
    assert [text.get_text() for text in ax.texts] == ["The stepsizes never changed."]


def test_gamma_is_drawn_step_by_step(make):
    trace = make(last=40, records=400, tensors=1)
    trace.tensors = [dataclasses.replace(trace.tensors[0], numel=1)]
    e = trace.column("e_p50")
    e[:, 0] = np.random.default_rng(0).random(40)
    ax = trace.plot.gamma(Figure().subplots(), steps=(3, 9))
    drawn = ax.lines[0].get_ydata() + ax.lines[1].get_ydata()  # its negative and its positive part
    assert drawn == pytest.approx([1 / e[t - 1, 0] - 1 / e[t - 2, 0] for t in range(3, 10)])
    longest = trace.plot.gamma(Figure().subplots())
    assert len(longest.lines[0].get_xdata()) == 39


def test_the_time_line_has_alerts_first_and_their_windows(make):
    trace = make()
    trace.events = [
        Event(10, "skipped", "no gradient"),
        Event(400, "alert", ALERT, "layer0.weight"),
        Event(400, "surge", "what the alert says already"),
        Event(2000, "resumed", "reopened"),
        Event(2500, "alert", "long step: far"),
        Event(9000, "alert", ALERT),
        Event(100_000, "closed", "by its owner"),
    ]
    data = timeline(trace)
    assert data.lines == (
        Line("surge", (400, 9000), True),
        Line("long step", (2500,), True),
        Line("skipped", (10,), False),
        Line("resumed", (2000,), False),
    )
    assert data.windows == ((0, 400), (2000, 2500), (9000 - LENGTH, 9000))
    ax = Figure().subplots()
    draw_timeline(data, ax)
    assert [text.get_text() for text in ax.texts] == ["400, 2 in all", "2\u202f500", "10", "2\u202f000"]
    plate = next(one for one in plates(trace, trace.diagnose(), limits(trace)) if one.key == "alerts")
    assert plate.caption.startswith("First, at step 400 in layer0.weight: The gradient is large.")


def test_small_charts_share_scales_and_show_the_blocks(told):
    trace = told()
    found = alternatives(trace, 200)
    ax = Figure().subplots()
    draw_multiples(found, "bias", ax)
    thick = [line for line in ax.lines if line.get_linewidth() == 1.8]
    assert [len(line.get_xdata()) for line in thick] == [len(one.bias.ratios) for one in found]
    heights = [line.get_ydata() - place // 3 for place, line in enumerate(thick)]
    assert np.all(heights[1] == 1)  # AMSGrad's are 0: on the floor
    assert np.all(heights[3] < heights[0])  # three times as much is higher up
    texts = [text.get_text() for text in ax.texts]
    assert [text for text in texts if text in ("as it was", "amsgrad", "sgd", "adam(β2=0.9)")] == [
        "as it was",
        "amsgrad",
        "sgd",
        "adam(β2=0.9)",
    ]


def test_no_values_are_read_off_small_charts(told):
    found = alternatives(told(), 200)
    assert "data-x" not in to_svg(partial(draw_multiples, found, "bias"), "k", "c⁺/a")


@pytest.mark.parametrize("of", ["variance", "bias", "harm"])
def test_without_other_rules_it_is_said(make, of):
    ax = make().plot.what_if(Figure().subplots(), of=of)
    assert [text.get_text() for text in ax.texts] == ["No other rule was imagined on these gradients."]


def test_ratios_that_are_all_zero_are_said(told):
    ax, found = Figure().subplots(), alternatives(told(), 200)
    zero = [dataclasses.replace(one, bias=dataclasses.replace(one.bias, ratios=0 * one.bias.ratios)) for one in found]
    draw_multiples(zero, "bias", ax)
    assert [text.get_text() for text in ax.texts] == ["c⁺/a is 0 under every rule."]


def test_marks_leave_a_layout_its_room(make):
    """What lies outside of no axes must not shrink them: a picture beside others keeps half of its share."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    make().plot.ratios(axes[0])
    make().plot.limits(axes[1])
    figure.draw_without_rendering()
    assert min(ax.get_position().width for ax in axes) > 0.3


# Scales


positive = st.floats(1e-30, 1e30)


@given(positive, positive, st.integers(2, 8))
def test_marks_enclose_what_they_are_for(one, other, most):
    low, high = min(one, other), max(one, other)
    marks = round_marks(low, high, most)
    assert marks[0] <= low <= high < marks[-1] * (1 + 1e-12)
    assert 2 <= len(marks) <= most + 1
    assert all(a < b for a, b in pairwise(marks))


@given(st.lists(positive, min_size=1, max_size=20))
def test_every_positive_value_has_one_shade(values):
    shades = ranges(np.array([*values, 0.0, np.nan, -1.0]), BLUE)
    assert 1 <= len(shades) <= 6
    assert all(sum(shade.low <= value < shade.high for shade in shades) == 1 for value in values)
    assert [shade.opacity for shade in shades] == sorted(shade.opacity for shade in shades)


@given(st.integers(0, 40), st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=9))
def test_small_charts_do_not_leave_their_square(place, values):
    cells = Cells(10.0, 1000.0, 1e-6, 1e10)
    x, y = cells.x(place, np.array([10.0, 1000.0])), cells.y(place, np.array(values))
    assert np.all((x - place % 3 >= 0) & (x - place % 3 < 1))
    assert np.all((y - place // 3 <= 1) & (y - place // 3 >= 0.3))


@pytest.mark.parametrize("value", [5e-324, 1e-310, 1e308])
def test_the_ends_of_the_numbers_have_marks_too(value):
    marks = round_marks(value, value, 4)
    assert all(0 < mark < np.inf for mark in marks)
