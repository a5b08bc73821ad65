"""The data of the figures against obvious rewrites, and the drawings against odd records."""

from __future__ import annotations

import dataclasses
import math
import re
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.diagnostics.conditions import block_edges
from stepscope.diagnostics.diagnosis import diagnose
from stepscope.diagnostics.drift import Harm, HarmDecision
from stepscope.diagnostics.limits import limits
from stepscope.diagnostics.trace import COLUMNS, Scalars
from stepscope.reports import theme
from stepscope.reports.axes import draw_apart
from stepscope.reports.evidence import draw_forest, draw_overlay, forest, harms, judged, overlay, ratio
from stepscope.reports.figures import (
    curves,
    draw_curve,
    draw_lengths,
    draw_stepsizes,
    lengths,
    rises,
    stepsizes,
    sums,
    thin,
)
from stepscope.reports.fit import fit
from stepscope.reports.legible import tell_apart
from stepscope.reports.numerals import fixed, interval, number, sentence, typeset, whole
from stepscope.reports.plates import comparison, plates
from stepscope.reports.svg import to_svg
from stepscope.reports.theme import log_values

NAN, INF = math.nan, math.inf


def blocks_twin(trace, column):
    """Increments of a column over the blocks, summed tensor by tensor, and the middle of each block."""
    where, increments, middles = COLUMNS.index(column), [], []
    for i, j in pairwise(block_edges(trace.steps, 1)):
        increments.append(sum(trace.values[j, p, where] - trace.values[i, p, where] for p in range(len(trace.tensors))))
        middles.append(math.sqrt(float(trace.steps[i]) * float(trace.steps[j])))
    return increments, middles


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("count", [0, 1, 7, 160, 161, 5000])
def test_thinning_keeps_both_ends_and_the_order(count, log):
    steps = np.arange(3, 3 + 11 * count, 11)
    keep = thin(steps, log=log)
    assert len(keep) <= max(160, 0)
    assert list(keep) == sorted(set(keep))
    if count:
        assert (keep[0], keep[-1]) == (0, count - 1)


def test_sums_are_totals_at_the_records(make):
    trace = make()
    data = sums(trace)
    row = int(np.searchsorted(trace.steps, data.steps[40]))
    assert data.curves["c⁺"][40] == pytest.approx(sum(trace.values[row, p, COLUMNS.index("c_plus")] for p in range(3)))
    assert len(data.steps) <= 160


def test_ratio_splits_the_run_at_the_start(make):
    trace = make()
    diagnosis = diagnose(trace)
    data = ratio(trace, "b/a", "b", diagnosis.variance, diagnosis.start)
    top, t = blocks_twin(trace, "b")
    bottom, _ = blocks_twin(trace, "a")
    early = [
        x / y for x, y, middle in zip(top, bottom, t, strict=True) if diagnosis.start / 10 < middle < diagnosis.start
    ]
    assert data.dropped == pytest.approx(early, rel=1e-12)
    assert len(data.dropped) > 3
    assert np.all(data.dropped_t < data.start)
    assert np.all(data.t >= data.start)
    assert data.values is diagnosis.variance.ratios
    assert (data.slope, data.decision) == (diagnosis.variance.slope, "holds")


def test_rises_are_shares_of_each_block(make):
    trace = make()
    data = rises(trace)
    parts = {name: blocks_twin(trace, name)[0] for name in ("rise_lr", "rise_bias", "rise_v")}
    whole_of = [sum(block) for block in zip(*parts.values(), strict=True)]
    expected = [x / y for x, y in zip(parts["rise_v"], whole_of, strict=True)]
    assert data.shares["second moment"] == pytest.approx(expected, rel=1e-12)
    assert sum(data.shares.values()) == pytest.approx(np.ones(len(expected)))
    assert data.rising == pytest.approx(np.full(len(expected), 0.5))
    assert np.isnan(rises(make(c_plus=0.0, rise_bias=0.0)).shares["second moment"]).all()


def test_stepsizes_are_of_the_largest_readable_tensors(make):
    trace = make(tensors=9, names=tuple("abcdefghi"))
    trace.values[:, 7, :] = NAN  # "h" has no stepsize that could be read
    shown = stepsizes(trace)
    assert [data.name for data in shown] == ["c", "d", "e", "f", "g", "i"]
    assert shown[0].quantiles[:, -1] * math.sqrt(trace.steps[-1]) == pytest.approx([1, 10, 100, 1000, 10000])
    assert shown[0].lr[0] == pytest.approx(0.1)


def test_lengths_are_relative_and_leave_out_what_has_none(make):
    trace = make(update_rms=0.02, weight_rms=4.0)
    trace.values[:, 1, COLUMNS.index("weight_rms")] = 0.0
    assert {name: set(curve) for name, curve in lengths(trace).curves.items()} == {
        "layer0.weight": {0.005},
        "layer2.weight": {0.005},
    }


def test_means_of_a_scalar_are_exact_over_coarse_stretches(make):
    trace = make(last=3000, records=0)
    logged = np.random.default_rng(0).normal(size=3000)
    steps = np.arange(1, 3001)
    trace.scalars = {"loss": Scalars(steps, logged, np.cumsum(logged), steps.astype(np.float64))}
    (curve,) = curves(trace)
    before = [0, *curve.steps[:-1]]
    assert curve.mean == pytest.approx([logged[i:j].mean() for i, j in zip(before, curve.steps, strict=True)])


def test_values_that_were_not_finite_are_marked(make):
    trace = make(records=0)
    steps, last = np.arange(1, 6), np.array([1.0, NAN, 2.0, INF, 3.0])
    trace.scalars = {
        "loss": Scalars(steps, last, np.cumsum(np.nan_to_num(last, posinf=0)), np.array([1.0, 1, 2, 2, 3]))
    }
    (curve,) = curves(trace)
    assert list(curve.broken) == [2, 4]


def test_a_scalar_logged_three_times_is_three_points(make):
    trace = make(records=0)
    steps = np.arange(1, 41)
    count = np.searchsorted([10, 20, 33], steps, side="right").astype(np.float64)
    last = np.array([NAN, 5.0, 7.0, 6.0])[count.astype(int)]
    total = np.array([0.0, 5.0, 12.0, 18.0])[count.astype(int)]
    begun = count > 0
    edge = Scalars(steps[begun], last[begun], total[begun], count[begun])
    trace.scalars = {"edge/ratio": edge, "loss": Scalars(steps, 1.0 / steps, np.cumsum(1.0 / steps), steps + 0.0)}
    sparse, dense = curves(trace)
    assert (sparse.steps.tolist(), sparse.mean.tolist()) == ([10, 20, 33], [5.0, 7.0, 6.0])
    assert sparse.sparse
    assert not dense.sparse
    for curve, line in ((sparse, ""), (dense, "-")):
        _, ax = axes()
        draw_curve(curve, ax)
        assert {drawn.get_linestyle() for drawn in ax.lines} == {line or "None"}


def axes():
    from matplotlib.figure import Figure

    figure = Figure()
    return figure, figure.subplots()


def test_a_curve_that_lies_on_another_is_dashed_there_and_bare():
    steps = np.arange(1.0, 11.0)
    under, over = np.ones(10), np.where(steps <= 5, 1.0, 1.0 + (steps - 5))
    _, ax = axes()
    ax.set(xlim=(0, 11), ylim=(0, 7))
    draw_apart(ax, [(steps, under, "red", "o"), (steps, over, "blue", "s")])
    dashed = [line for line in ax.lines if line.is_dashed()]
    assert [line.get_color() for line in dashed] == ["blue"]
    x = dashed[0].get_xdata()
    assert x[np.isfinite(x)].tolist()[:5] == [1, 2, 3, 4, 5]
    (solid,) = [
        line for line in ax.lines if line.get_color() == "blue" and line.get_linestyle() == "-" and not line.is_dashed()
    ]
    assert np.isnan(solid.get_ydata()).sum() == 4  # the four pieces that lie on the other
    marks = {line.get_color(): len(line.get_xdata()) for line in ax.lines if line.get_marker() != "None"}
    assert marks == {"red": 10, "blue": 5}


def test_runs_too_short_to_judge_have_no_ratios_to_draw(make):
    short = dataclasses.replace(diagnose(make()).bias, ratios=np.zeros(1), t=np.array([900.0]))
    data = overlay("c⁺/a", [diagnose(make()).bias, short])
    assert [len(t) for t in data.t] == [len(diagnose(make()).bias.t), 0]
    assert "too short" in to_svg(partial(draw_overlay, overlay("c⁺/a", [short])), "k", "c")


def test_forest_has_the_run_first_and_tells_tensors_apart(make):
    names = tuple(f"model.layers.{i}.self_attn.query_key_value.weight" for i in range(4))
    trace = make(tensors=4, names=names, rho=-2.0)
    diagnosis = diagnose(trace)
    data = harms(trace, diagnosis.harm, judged(trace))
    assert data.names[0] == "the whole run"
    assert len(set(data.names)) == 5
    assert data.rho == pytest.approx(np.full(5, -2.0), abs=0.05)
    assert np.all((data.low <= data.rho) & (data.rho <= data.high))
    assert set(data.decisions) == {HarmDecision.HARMFUL}


@pytest.mark.parametrize(
    ("decision", "z", "words"),
    [(HarmDecision.HARMFUL, -5.8, "below 0, z = −5.80"), (HarmDecision.INCONCLUSIVE, 0.1, "not resolved")],
)
def test_an_unbounded_interval_is_said_in_words(decision, z, words):
    harm = Harm(NAN, (-INF, INF), NAN, z, decision, "", 1, 2)
    assert words in to_svg(partial(draw_forest, forest([("run", harm)])), "f", "ρ")


@pytest.mark.parametrize("tensors", [1, 3])
def test_every_tensor_is_judged_by_itself(make, tensors):
    trace = make(tensors=tensors, rho=0.5)
    each = judged(trace)
    assert [harm.rho for harm in each] == pytest.approx([0.5] * tensors, abs=0.02)
    assert len(harms(trace, diagnose(trace).harm, each).names) == (1 if tensors == 1 else 4)
    assert judged(make(records=0)) == ()


def test_words_beside_the_marks_cross_none():
    """Between 0 and 1 where that is wide, else past a mark; what climbs is said left of 0."""
    wide = Harm(NAN, (-INF, INF), NAN, 0.1, HarmDecision.INCONCLUSIVE, "", 1, 2)
    up = Harm(NAN, (-INF, INF), NAN, -5.8, HarmDecision.HARMFUL, "", 1, 2)
    far = Harm(-20.0, (-30.0, -10.0), 1.0, -9.0, HarmDecision.HARMFUL, "", 1, 2)
    for harm, company, ends in ((wide, [], "middle"), (up, [("far", far)], "end"), (wide, [("far", far)], "middle")):
        text = to_svg(partial(draw_forest, forest([("run", harm), *company])), "f", "ρ")
        words = "below 0" if harm is up else "not resolved"
        (found,) = re.findall(rf"<text[^>]*text-anchor: (\w+)[^>]*>{words}", text) or [""]
        assert found == ends, (harm.z, company)


def test_overlay_is_relative_to_the_first_judged_block(make):
    flat, none, short = make(), make(c_plus=0.0), make(last=100)
    data = overlay("c⁺/a", [diagnose(trace).bias for trace in (flat, none, short)])
    assert data.values[0] == pytest.approx(np.ones(len(data.values[0])), rel=0.1)
    assert set(data.values[1]) == {0.0}
    assert len(data.values[2]) == 0


def test_comparison_draws_odd_records(odd_trace):
    diagnosis = diagnose(odd_trace)
    for plate in comparison([("a", odd_trace, diagnosis), ("b", odd_trace, diagnosis)]):
        for i, panel in enumerate(plate.panels):
            assert to_svg(panel.draw, f"k{i}", panel.label, panel.size).startswith("<svg")


def test_no_figure_of_a_run_without_two_records(make):
    trace = make(records=1)
    assert plates(trace, diagnose(trace), limits(trace)) == []


def test_a_run_without_stepsizes_still_shows_how_far_it_steps(make):
    unread = dict.fromkeys(
        ("a", "b", "c", "c_plus", "compared", "rising", "e_min", "e_p1", "e_p50", "e_p99", "e_max"), NAN
    )
    trace = make(**unread)
    shown = plates(trace, diagnose(trace), limits(trace))
    assert [plate.key for plate in shown if plate.key != "limits"] == [
        "efficiency",
        "scalars",
        "lengths",
        "instrument-alignment",
        "instrument-coupling",
    ]


# How an SVG sits in a page


def test_names_in_any_script_stay_text(make):
    svg = to_svg(partial(draw_lengths, lengths(make(names=("权重", "وزن", "重み")))), "k", "lengths")
    assert "权重</text>" in svg


@pytest.fixture
def drawing(make):
    data, *_ = stepsizes(make(records=40, names=("$x$ <b>", "b", "c")))
    return partial(draw_stepsizes, data)


def test_the_same_drawing_has_the_same_bytes(drawing):
    assert to_svg(drawing, "k", "label") == to_svg(drawing, "k", "label")


def test_ids_are_its_own_and_references_resolve(drawing):
    text = to_svg(drawing, "left", "label")
    ids = re.findall(r'\sid="([^"]+)"', text)
    used = re.findall(r'(?:url\(#|href="#)([^)"]+)', text)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("left") for name in ids)
    assert used
    assert set(used) <= set(ids)
    assert not set(ids) & set(re.findall(r'\sid="([^"]+)"', to_svg(drawing, "right", "label")))


def test_an_inline_svg_brings_nothing_that_belongs_to_a_document(drawing):
    text = to_svg(drawing, "k", 'a "label" <i>')
    assert text.startswith('<svg viewBox="0 0 ')
    assert 'role="img" aria-label="a &quot;label&quot; &lt;i&gt;"' in text
    for part in ("<?xml", "<!DOCTYPE", "<!--", "<metadata", "<style", "font-family", "xlink", "http"):
        assert part not in text
    assert "$x$ &lt;b&gt;" in text  # neither mathematics nor markup


def test_colours_of_the_theme_follow_the_page(drawing):
    text = to_svg(drawing, "k", "label")
    assert f"var(--blue,{theme.BLUE})" in text
    assert set(re.findall(r"(?<!,)#[0-9a-f]{6}", re.sub(r"var\([^)]*\)", "", text))) == set()


@pytest.mark.parametrize(("page", "dark"), [("#ffffff", False), ("#12171c", True)])
def test_lines_and_words_stand_out_from_the_page(page, dark):
    names = dict(re.findall(r"--(\w+): (#\w+);", theme.css_variables(dark)))
    for name in set(names) - {"grid", "wash"}:
        assert contrast(names[name], page) >= 3.0, name  # what WCAG 2.1 asks of graphics (1.4.11)
    for name in ("ink", "muted"):
        assert contrast(names[name], page) >= 4.5, name  # and of text (1.4.3)


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_moved_apart_as_little_as_needed(seed):
    wanted = np.sort(np.random.default_rng(seed).random(6))
    placed = theme.spread(list(wanted), 0.1)
    assert np.all(np.diff(placed) >= 0.1 - 1e-9)
    assert np.mean(placed) == pytest.approx(wanted.mean())
    if np.all(np.diff(wanted) >= 0.1):
        assert placed == pytest.approx(wanted)


# Numbers and names


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.0, "1"), (-22.84, "−22.8"), (0.00012345, "0.000123"), (4.1e-9, "4.1·10⁻⁹"), (1e-7, "10⁻⁷"),
     (300000, "300000"), (2.5e7, "2.5·10⁷"), (NAN, "–"), (None, "–"), (INF, "∞"), (-INF, "−∞"), (9.999e-5, "10⁻⁴")],
)  # fmt: skip
def test_numbers_read_as_written_by_hand(value, text):
    assert number(value) == text


def test_ratios_and_intervals_keep_their_digits():
    assert [fixed(x) for x in (1.0, -0.001, -22.84, 150.4)] == ["1.00", "0.00", "−22.8", "150"]
    assert interval(0.951, 1.04) == "[0.95, 1.04]"
    assert interval(-INF, 2.0) == "(−∞, 2.00]"
    assert interval(NAN, 1.0) == "–"
    assert whole(52569) == "52\u202f569"


def test_names_are_cut_where_they_agree():
    layers = [f"encoder.layers.{i}.attention.weight" for i in (1, 2, 13)]
    assert tell_apart(layers, 20) == [f"…{i}.attention.weight" for i in (1, 2, 13)]
    assert tell_apart(layers, 12) == ["…1…", "…2…", "…13…"]
    assert tell_apart(["a.weight", "a.bias"], 20) == ["a.weight", "a.bias"]
    assert tell_apart(["x" * 50, "y" * 50], 20) == [f"{c * 9}…{c * 10}" for c in "xy"]
    assert tell_apart(["encoder.attention.weight"] * 2, 20) == ["…weight"] * 2
    assert tell_apart(["encoder.attention", "encoder.attention.weight"], 20) == ["…attention", "…attention.weight"]


@pytest.mark.parametrize(
    ("plain", "set_"),
    [
        ("Rho = -0.98 with interval [-1.2, -0.7]", "ρ = −0.98 with interval [−1.2, −0.7]"),
        ("c+/a -> 0 at beta2 = 0.99", "c⁺/a → 0 at β2 = 0.99"),
        ("C+/a stands at 0.1", "c⁺/a stands at 0.1"),
        ("at this beta2. Then", "at this β2. Then"),
        ("like t^-0.50", "like t^−0.50"),
        ("from 1.03e-07 to 2e+10", "from 1.03·10⁻⁷ to 2·10¹⁰"),
        ("in rho.weight and my.beta1.bias", "in rho.weight and my.beta1.bias"),
        ("layer-2 and x-ray", "layer-2 and x-ray"),
    ],
)
def test_symbols_are_set_and_names_left_alone(plain, set_):
    assert typeset(plain) == set_


@pytest.mark.parametrize(
    ("text", "expected"),
    [("over 11 blocks", "Over 11 blocks."), ("b/a falls.", "b/a falls."), ("amsgrad=True helps", "amsgrad=True helps."),
     ("rho = 1", "ρ = 1."), ("a grows", "a grows."), ("", ".")],
)  # fmt: skip
def test_sentences_begin_and_end(text, expected):
    assert sentence(text) == expected


def test_what_stands_round_a_frame_ends_where_the_picture_does(make):
    """To a twenty-fifth of an inch, which is left around it anyway; legends and long names may leave room."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    trace = make(tensors=3)
    drawn = [panel for plate in plates(trace, diagnose(trace), limits(trace)) for panel in plate.panels]
    assert len(drawn) > 10
    for panel in drawn:
        with rc_context(theme.STYLE):
            figure = Figure(figsize=panel.size, dpi=72)
            FigureCanvasSVG(figure)
            ax = figure.subplots()
            panel.draw(ax)
            fit(ax, (0.0, 0.0, 1.0, 1.0))
            seen = ax.get_tightbbox(for_layout_only=True).transformed(figure.transFigure.inverted())
        width, height = panel.size
        outside = np.array([-seen.x0 * width, -seen.y0 * height, (seen.x1 - 1) * width, (seen.y1 - 1) * height])
        assert outside.max() < 0.04, panel.label
        assert outside.min() > -0.25, panel.label


# --- axes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1e-3, 1e3), ["0.001", "0.01", "0.1", "1", "10", "100", "1000"]),
        ((1.0, 40.0), ["1", "2", "5", "10", "20", "50"]),
        ((1.0, 2.0), ["0.7", "1", "1.5", "2", "3"]),
        ((2e-5, 4e-5), ["1.5·10⁻⁵", "2·10⁻⁵", "3·10⁻⁵", "5·10⁻⁵"]),
    ],
)
def test_a_logarithmic_axis_has_numbers_enough_to_be_read(values, expected):
    _, ax = axes()
    assert log_values(ax, values)
    low, high = ax.get_ylim()
    shown = [tick for tick in ax.get_yticks() if low <= tick <= high]
    assert [ax.yaxis.get_major_formatter()(tick) for tick in shown] == expected


@settings(max_examples=20)
@given(st.lists(st.floats(min_value=5e-324, allow_infinity=True, allow_nan=False), min_size=1, max_size=3))
def test_any_positive_numbers_have_an_axis(values):
    text = to_svg(partial(log_values, values=values), "k", "any")
    assert text.startswith("<svg")
