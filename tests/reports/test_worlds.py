"""Figures of simulated runs: their data against obvious rewrites, and what must be written on their drawings."""

from __future__ import annotations

import importlib.util
import math
import re
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sympy

from stepscope.diagnostics.conditions import block_edges
from stepscope.reports import axes, growth, iterates, phases, sheets, theme
from stepscope.reports.plates import Panel
from stepscope.reports.svg import to_svg
from stepscope.synthetic.arrivals import Cyclic
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.problem import Problem

PERIOD, STEPS, BETAS = (3.0, -1.0, -1.0), 3000, (0.0, 0.1)
x, y = sympy.symbols("x y", real=True)


@pytest.fixture(scope="module")
def game():
    """3x, −x, −x on [−1, 1]: Adam ends at +1, AMSGrad at −1."""
    return Problem([3 * x, -x], Cyclic((0, 1, 1)), domain=(-1, 1), start=0)


@pytest.fixture(scope="module")
def runs(game):
    return [
        ("AMSGrad", simulate(game, "amsgrad", STEPS, "0.5/sqrt(t)", BETAS, seeds=2, records=STEPS)),
        ("Adam", simulate(game, "adam_plain", STEPS, "0.5/sqrt(t)", BETAS, seeds=2, records=STEPS)),
    ]


@pytest.fixture(scope="module")
def adam_by_hand():
    """x and e after every step of the game, without any of the package's code."""
    v, at, xs, es = 0.0, 0.0, [], []
    for t in range(1, STEPS + 1):
        g = PERIOD[(t - 1) % 3]
        v = 0.1 * v + 0.9 * g * g
        e = 0.5 / math.sqrt(t) / math.sqrt(v)
        at = min(max(at - e * g, -1.0), 1.0)
        xs.append(at)
        es.append(e)
    return np.array(xs), np.array(es)


def in_bins(values):
    """Median, lowest and highest value of every stretch of equal length in log t, step by step."""
    bins = {}
    for t, value in enumerate(values, start=1):
        bins.setdefault(min(int(iterates.BINS * math.log(t) / math.log(STEPS)), iterates.BINS - 1), []).append(value)
    rows = [bins[k] for k in sorted(bins)]
    return [np.median(r) for r in rows], [min(r) for r in rows], [max(r) for r in rows]


def test_paths_are_medians_and_ranges_over_stretches_of_log_t(runs, game, adam_by_hand):
    data = iterates.paths(runs, game)
    adam = data.runs[1]
    middle, low, high = in_bins(adam_by_hand[0])
    assert adam.middle == pytest.approx(middle, abs=1e-12)
    assert adam.low == pytest.approx(low, abs=1e-12)
    assert adam.high == pytest.approx(high, abs=1e-12)
    assert (data.mark, data.box, data.label) == (-1.0, (-1.0, 1.0), "iterate x")
    assert (adam.t[0], adam.t[-1], data.start, data.stop) == (1, STEPS, 1, STEPS)
    assert np.all(np.diff(adam.t) > 0)


def test_bands_span_the_seeds_as_well():
    values = np.column_stack([np.full(50, -2.0), np.zeros(50), np.full(50, 5.0)])
    found = iterates.band("a", theme.BLUE, np.arange(1, 51), values)
    assert (set(found.low), set(found.middle), set(found.high)) == ({-2.0}, {0.0}, {5.0})


def test_distances_are_norms_over_all_coordinates():
    problem = Problem([(x - 1) ** 2 + 2 * (y + 1) ** 2], Cyclic((0,)), variables=(x, y), start=(4, 3))
    trace = simulate(problem, "sgd", 2, 0.0, records=2)
    (run,) = iterates.distances([("still", trace)], problem).runs
    assert run.middle == pytest.approx([5.0, 5.0])  # from (4, 3) to (1, -1)


def test_regrets_are_the_mean_over_the_steps_so_far(runs, adam_by_hand):
    adam = iterates.regrets(runs).runs[1]
    before = [0.0, *adam_by_hand[0][:-1]]
    regret = np.cumsum([PERIOD[i % 3] * (before[i] + 1.0) for i in range(STEPS)]) / np.arange(1, STEPS + 1)
    assert adam.middle == pytest.approx(in_bins(regret)[0], abs=1e-12)


def test_steps_are_the_iterates_one_by_one(runs, game, adam_by_hand):
    data = iterates.steps(runs, game, 100, 120)
    name, _, values = data.curves[1]
    assert (name, data.mark, list(data.steps)) == ("Adam", -1.0, list(range(100, 121)))
    assert values == pytest.approx(adam_by_hand[0][99:120], abs=1e-12)


def test_gamma_is_the_change_of_one_over_e(runs, adam_by_hand):
    e = adam_by_hand[1]
    amsgrad, adam = growth.gammas(runs, 1000, 1050)
    expected = [1 / e[t - 1] - 1 / e[t - 2] for t in range(1000, 1051)]
    assert adam.gamma == pytest.approx(expected, rel=1e-9)
    assert adam.negative == sum(g < 0 for g in expected) / len(expected)
    assert (amsgrad.linear, amsgrad.bottom, amsgrad.top) == (adam.linear, adam.bottom, adam.top)
    assert adam.bottom == pytest.approx(min(expected))
    assert adam.top == pytest.approx(max(expected))


def test_the_smallest_gamma_still_shows_beside_the_largest(runs):
    """The linear part of the axes ends at or below what is typical of each run."""
    found = growth.gammas(runs, 1000, 1050)
    sizes = [np.median(np.abs(data.gamma[data.gamma != 0])) for data in found]
    assert max(sizes) > 10 * min(sizes)  # or this would show nothing
    assert min(sizes) / 10 < found[0].linear <= min(sizes)


def test_only_a_stepsize_that_can_rise_has_a_negative_gamma(runs):
    """Theorem: AMSGrad's v̂ never falls and its α does, so Γ ≥ 0; Adam's v falls back after every large gradient."""
    amsgrad, adam = growth.gammas(runs, 2, STEPS)
    assert amsgrad.negative == 0
    assert adam.negative == pytest.approx(2 / 3, abs=1 / STEPS)


@pytest.mark.parametrize("key", ["a", "b", "c", "c⁺"])
def test_growth_is_the_sum_over_the_steps(runs, adam_by_hand, key):
    e = adam_by_hand[1]
    g = np.array([PERIOD[i % 3] for i in range(STEPS)])
    change = np.array([0.0, *(later - earlier for earlier, later in pairwise(e))])
    terms = {"a": e, "b": (e * g) ** 2, "c": abs(change), "c⁺": np.maximum(change, 0)}[key]
    _, _, steps, values = growth.growth(runs, key).runs[1]
    assert steps[-1] == STEPS
    assert values == pytest.approx(np.cumsum(terms), rel=1e-10, abs=1e-13)


def test_sums_and_ratios_share_the_span_of_their_runs(runs):
    for data in (growth.growth(runs, "a"), growth.ratios(runs, "b")):
        assert (data.start, data.stop) == (1, STEPS)


def test_ratios_are_quotients_of_block_increments(runs, adam_by_hand):
    e = adam_by_hand[1]
    rise = np.array([0.0, *(max(later - earlier, 0.0) for earlier, later in pairwise(e))])
    edges = [i + 1 for i in block_edges(np.arange(1, STEPS + 1), 1)]  # steps
    expected = [rise[i:j].sum() / e[i:j].sum() for i, j in pairwise(edges)]
    data = growth.ratios(runs, "c⁺")
    _, _, t, values = data.runs[1]
    assert data.key == "c⁺/a"
    assert values == pytest.approx(expected, rel=1e-9)
    assert t == pytest.approx([math.sqrt(i * j) for i, j in pairwise(edges)])
    assert set(data.runs[0][3]) == {0.0}


def test_a_method_keeps_its_colour_and_no_two_runs_share_one(runs):
    amsgrad, adam = axes.tones(runs)
    assert axes.tones(runs[::-1]) == (adam, amsgrad)
    many = axes.tones([runs[0]] * len(theme.SERIES))
    assert (many[0], len(set(many))) == (amsgrad, len(theme.SERIES))
    assert len(axes.tones([runs[0]] * 9)) == 9


# What cannot be drawn is said


def test_a_recorded_run_has_no_iterates(make, game):
    with pytest.raises(ValueError, match="simulated"):
        iterates.paths([("recorded", make())], game)


def test_a_problem_without_an_optimum_has_no_distances(runs):
    free = Problem([x], Cyclic((0,)), start=0)
    with pytest.raises(ValueError, match="optimum"):
        iterates.distances(runs, free)


def test_missing_steps_are_named(game):
    sparse = [("Adam", simulate(game, "adam_plain", STEPS, 0.1, BETAS, records=100))]
    with pytest.raises(ValueError, match="900 to 950"):
        iterates.steps(sparse, game, 900, 950)
    with pytest.raises(ValueError, match="899 to 950"):
        growth.gammas(sparse, 900, 950)


def test_gamma_is_of_one_coordinate():
    plane = Problem([x**2 + y**2], Cyclic((0,)), variables=(x, y))
    with pytest.raises(ValueError, match="one variable"):
        growth.gammas([("Adam", simulate(plane, "adam", 40, 0.1, records=40))], 10, 20)


# The drawings; every warning is an error

BOTH = {"AMSGrad", "Adam"}


@pytest.fixture(scope="module")
def drawings(runs, game):
    """Each drawing with all that must be written on it beside the numbers of its axes."""
    amsgrad, adam = growth.gammas(runs, 1000, 1050)
    return {
        "paths": (partial(iterates.draw_paths, iterates.paths(runs, game)), BOTH | {"x* = −1", "iterate x"}),
        "distances": (
            partial(iterates.draw_falling, iterates.distances(runs, game)),
            {"AMSGrad ↓", "Adam", "distance ‖x − x*‖"},  # AMSGrad is at the optimum
        ),
        "regrets": (partial(iterates.draw_falling, iterates.regrets(runs)), BOTH | {"average regret Rₜ/t"}),
        "steps": (
            partial(iterates.draw_steps, iterates.steps(runs, game, 50, 70)),
            BOTH | {"x* = −1", "iterate x"},
        ),
        "gamma": (
            partial(growth.draw_gamma, adam),
            {"Adam", "Γ > 0: e falls", "Γ < 0: e rises", "67 % of steps", "Γₜ = 1/eₜ − 1/eₜ₋₁"},
        ),
        "gamma never": (
            partial(growth.draw_gamma, amsgrad),
            {"AMSGrad", "Γ > 0: e falls", "Γ < 0: never", "Γₜ = 1/eₜ − 1/eₜ₋₁"},
        ),
        "growth": (
            partial(growth.draw_growth, growth.growth(runs, "c")),
            BOTH | {"(c)  oscillation of stepsizes", "Σ |Δe|"},
        ),
        "ratios": (
            partial(growth.draw_ratios, growth.ratios(runs, "c⁺")),
            {"AMSGrad: 0", "Adam", "c⁺/a per √2-spaced block", "increment of c⁺ / of a"},
        ),
    }


NAMES = ["paths", "distances", "regrets", "steps", "gamma", "gamma never", "growth", "ratios"]
TICK = re.compile(r"−?(\d+(\.\d+)?(·10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?|10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)[kM]?")


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_labelled_and_nothing_else_is_written(drawings, name):
    draw, expected = drawings[name]
    written = set(re.findall(r"<text[^>]*>([^<]+)</text>", to_svg(draw, "k", name)))
    words = {text.replace("&lt;", "<").replace("&gt;", ">").strip() for text in written}
    assert {word for word in words if not TICK.fullmatch(word)} == expected | {"step"}


@pytest.mark.parametrize("name", NAMES)
def test_no_two_words_touch(drawings, name):
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(theme.STYLE):
        figure = Figure(figsize=(4.6, 3.1), layout="constrained")
        FigureCanvasAgg(figure)
        drawings[name][0](figure.subplots())
        figure.canvas.draw()
        assert touching(figure) == []


def touching(figure):
    """Return the pairs of words in a drawn figure that lie on each other."""
    from matplotlib.text import Text

    words = [*figure.texts]
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            inside = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            words += [axis.label, *(label for tick in inside for label in (tick.label1, tick.label2))]
        words += [child for child in ax.get_children() if isinstance(child, Text)]  # titles too
    boxes = [(w.get_text(), w.get_window_extent()) for w in words if w.get_visible() and w.get_text()]
    return [(a, b) for i, (a, one) in enumerate(boxes) for b, two in boxes[:i] if one.overlaps(two)]


@pytest.mark.parametrize(("scale", "lowest"), [("log", 0.01), ("linear", 0.0)])
def test_a_band_that_reaches_0_lies_on_the_floor_of_a_logarithmic_axis(scale, lowest):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    ax.set(yscale=scale, ylim=(0.01, 10))
    axes.draw_band(ax, np.arange(4), np.array([0.0, 0.5, np.nan, 0.1]), np.full(4, 2.0), theme.BLUE, 0.2)
    heights = np.concatenate([path.vertices[:, 1] for path in ax.collections[0].get_paths()])
    assert (heights.min(), heights.max()) == (lowest, 2.0)
    assert ax.get_ylim() == (0.01, 10)


def test_labels_at_the_floor_stay_above_the_axis():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    ax.set_ylim(0, 1)
    theme.label_ends(ax, [(0.0, name, theme.INK) for name in "abcd"] + [(math.nan, "gone", theme.INK)])
    heights = [text.get_position()[1] for text in ax.texts]
    assert [text.get_text() for text in ax.texts] == list("abcd")
    assert min(heights) > 0
    assert np.diff(heights) == pytest.approx([0.075] * 3)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_sheet_has_every_panel(drawings, tmp_path, suffix):
    panels = [Panel(f"panel {i}", drawings[name][0], (3.8, 2.6)) for i, name in enumerate(NAMES[:4])]
    path = sheets.save_sheet(panels, tmp_path / "new" / f"sheet{suffix}", "the title", "the note", columns=3)
    assert path.stat().st_size > 5000
    if suffix == ".svg":
        text = path.read_text()
        for words in ("the title", "the note", *(f"panel {i}" for i in range(4))):
            assert words in text


def test_a_run_that_diverges_is_drawn(game):
    away = Problem([x**2], Cyclic((0,)), start=1)
    trace = simulate(away, "sgd", 4000, 3.0, records=200)  # x grows fivefold a step, to infinity
    assert not np.isfinite(trace.x).all()
    runs = [("SGD", trace)]
    for draw in (
        partial(iterates.draw_paths, iterates.paths(runs, away)),
        partial(iterates.draw_falling, iterates.distances(runs, away)),
        partial(iterates.draw_falling, iterates.regrets(runs)),
        *(partial(growth.draw_growth, growth.growth(runs, key)) for key in growth.TITLES),
        *(partial(growth.draw_ratios, growth.ratios(runs, key)) for key in ("b", "c⁺")),
    ):
        assert to_svg(draw, "k", "label").startswith("<svg")


def test_what_is_0_everywhere_is_said(game):
    still = [("SGD", simulate(game, "sgd", 500, 0.1, start=-1, records=500))]
    assert "It is 0 for every method." in to_svg(partial(growth.draw_growth, growth.growth(still, "c")), "k", "c")
    (flat,) = growth.gammas(still, 10, 20)
    assert "The stepsize never changed." in to_svg(partial(growth.draw_gamma, flat), "k", "Γ")


# The figures of the papers


@pytest.fixture(scope="module")
def papers():
    """The example that makes them, as a module."""
    path = Path(__file__).parents[2] / "examples" / "papers.py"
    spec = importlib.util.spec_from_file_location("papers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_papers_methods_are_the_same_four(papers):
    runs = papers.play(Problem([x**2], Cyclic((0,)), start=1), papers.four(0.1, 0.5, beta1=0.0, beta2=0.5), 2)
    assert [name for name, _ in runs] == ["SGD", "AdaGrad", "AMSGrad", "Adam"]
    first = [float(trace.path[0, 0, 0]) for _, trace in runs]
    assert first == pytest.approx([1 - 0.1 * 2, 1 - 0.5, 1 - 0.5 / math.sqrt(0.5), 1 - 0.5 / math.sqrt(0.5)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chen1", "chen2", "reddi", "zhang"])
def test_the_papers_figures_have_no_empty_panel_and_no_words_that_touch(papers, monkeypatch, tmp_path, name):
    drawn = []

    @contextmanager
    def kept(path, size, title):
        with real(path, size, title) as figure:
            yield figure
            figure.canvas.draw()
            drawn.append((touching(figure), figure.axes))

    real = sheets.sheet
    monkeypatch.setattr(sheets, "sheet", kept)
    monkeypatch.setattr(phases, "sheet", kept)
    papers.FIGURES[name](tmp_path)
    assert (tmp_path / f"{name}.png").stat().st_size > 20_000
    ((pairs, cells),) = drawn
    assert pairs == []
    assert all(ax.lines or ax.collections for ax in cells)
