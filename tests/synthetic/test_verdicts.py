"""Verdicts against what theory says of the same runs; the whole grid is benchmarks/verdicts.py."""

import importlib.util
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "verdicts.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("stepscope_benchmark_verdicts", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    sys.path.insert(0, str(SCRIPT.parent))  # it imports its neighbours
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(SCRIPT.parent))
    del sys.modules[spec.name]


def errors(bench, worlds, rules, schedules, steps, seeds):
    """Return a line for each kind of wrong verdict in a part of the grid."""
    rows = [
        bench.play(world, rule, schedule, steps, seed)
        for world in worlds
        for rule in rules
        for schedule in schedules
        for seed in bench.seeds_of(world, seeds)
    ]
    cells = bench.by_cell(rows)
    found = Counter((*row.cell, row.verdict, bench.wrong(row, cells[row.cell])) for row in rows)
    return {key: count for key, count in found.items() if key[-1]}


@pytest.mark.parametrize(
    ("world", "rule", "schedule", "verdict"),
    [
        ("theorem 1", "adam 0 .1", "root", "biased"),  # β2 = 0.1 lies below the root of the drift, 0.4723
        ("theorem 1", "adam 0 .1", "constant", "biased"),
        ("theorem 1", "amsgrad", "root", "certified"),
        ("theorem 1", "amsgrad", "constant", "neighbourhood"),
        ("noisy quadratic", "sgd", "root", "certified"),
        ("noisy quadratic", "sgd", "constant", "neighbourhood"),
    ],
)
def test_the_verdict_that_theory_gives(bench, world, rule, schedule, verdict):
    """Three of the four verdicts, on six runs where each is the only right one; seed 0, T = 10^5."""
    assert bench.play(world, rule, schedule, 100_000, 0).verdict == verdict


def test_truth_of_adam_is_the_side_of_the_box_where_it_ends(bench):
    """C = 3: below 0.4723 Adam ends at +1, above it at -1, whatever the verdict is."""
    for betas in ((0.0, 0.1), (0.0, 0.44), (0.0, 0.50), (0.9, 0.99)):
        rule = bench.Rule("adam", betas)
        end = rule.simulate(bench.problem_of("theorem 1"), 100_000, "0.5/sqrt(t)", 0).x.item()
        assert bench.drift(bench.WORLDS["theorem 1"], rule) * end < 0, betas


def test_wrong_sees_a_wrong_verdict(bench):
    """Every accusation can be made: the verdicts of one run are swapped by hand."""
    row = bench.play("theorem 1", "amsgrad", "root", 10_000, 0)
    assert not bench.wrong(row, [row])
    for word in ("biased", "neighbourhood", "uncertified", "stalled", "unstable"):
        assert bench.wrong(replace(row, verdict=word), [row]), word


RULES = ["sgd", "adagrad", "adafom", "amsgrad", "adam .9 .99", "adam 0 .1", "rmsprop .9", "adopt .9 .99"]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [10_000, 100_000])
@pytest.mark.parametrize("world", ["theorem 1", "online", "stochastic", "adopt k=10", "figure 1", "noisy quadratic"])
def test_nothing_is_wrong(bench, world, steps):
    """Three seeds each. The harm test errs once in a thousand where ρ is 0."""
    assert not errors(bench, [world], RULES, ["root", "constant"], steps, 3)


def test_a_cosine_down_to_zero_breaks_nothing(bench):
    assert bench.play("noisy quadratic", "sgd", "cosine", 10_000, 0).verdict != "unstable"


@pytest.mark.slow
def test_a_fast_drift_the_right_way_is_no_harm(bench):
    """The mirror image of Reddi's game: the same steps, and the mean gradient on their side."""
    assert not errors(bench, ["mirrored"], ["adam .9 .99"], ["root"], 100_000, 3)


@pytest.mark.slow
def test_momentum_that_mends_the_drift_is_believed(bench):
    """β1 = 0.99 has its root at 0.99764, β1 = 0 at 0.999603: at β2 = 0.999 e·g climbs while e·m descends."""
    assert not errors(bench, ["online"], ["adam .99 .999"], ["root"], 1_000_000, 1)


@pytest.mark.slow
def test_a_run_at_rest_beside_the_optimum_does_not_climb(bench):
    """Skewed noise displaces where Adam comes to rest: the mean of e·m is 0 there, that of e·g is not."""
    assert not errors(bench, ["skewed plane"], ["adam .9 .99"], ["constant"], 1_000_000, 2)
