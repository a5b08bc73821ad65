"""The battery's small forms, its tables, and the promises of `steps_needed`; the whole is benchmarks/battery.py."""

import importlib
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAGE = Path(__file__).parents[2] / "docs" / "trust.md"


@pytest.fixture(scope="module")
def battery():
    names = ("worlds", "verdicts", "intervals", "battery")
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("battery")
    sys.path.remove(str(BENCHMARKS))
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def intervals(battery):
    return sys.modules["intervals"]


@pytest.fixture(scope="module")
def verdicts(battery):
    return sys.modules["verdicts"]


def play(verdicts, worlds, rules, steps, seeds):
    return [
        verdicts.play(world, rule, schedule, steps, seed)
        for world in worlds
        for rule in rules
        for schedule in verdicts.SCHEDULES
        for seed in verdicts.seeds_of(world, seeds)
    ]


def errors(verdicts, rows):
    cells = verdicts.by_cell(rows)
    return {(*row.cell, row.seed, row.verdict, why) for row in rows if (why := verdicts.wrong(row, cells[row.cell]))}


@pytest.mark.slow
def test_nothing_is_wrong_after_ten_thousand_steps(verdicts):
    rows = play(verdicts, ["theorem 1", "cycle 0", "law 0"], ["sgd", "amsgrad", "adam .9 .99"], 10_000, 1)
    assert not errors(verdicts, rows)
    assert len({row.verdict for row in rows}) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("steps", [10_000, 100_000])
def test_nothing_is_wrong_on_random_families(verdicts, steps):
    worlds = ["cycle 1", "law 1", "sum 0", "gauss, 1 variable", "tail 3, 1 variable"]
    rows = play(verdicts, worlds, ["sgd", "adagrad", "adafom", "amsgrad", "adam .9 .99", "adam 0 .1"], steps, 2)
    assert not errors(verdicts, rows)
    if steps == 100_000:
        undecided = np.mean([row.verdict == "inconclusive" for row in rows])
        assert undecided < 0.08  # 4 % of the whole battery, 2.8 standard errors of 160 runs above


def test_random_worlds_are_drawn_once(verdicts):
    """Gradients of the linear families have mean 1, and are what the generator says again."""
    worlds = sys.modules["worlds"]
    for number in range(6):
        law = worlds.random_law(number)
        assert np.dot(law.probabilities, law.values) == pytest.approx(1)
        assert np.mean(worlds.random_cycle(number).period) == pytest.approx(1)
        assert law == worlds.random_law(number)


# --- the interval of ρ


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "independent, two values, p = 0.1",
        "independent, Gaussian",
        "period 7 and noise",
        "period 101 and noise",
        "autocorrelated, 0.9",
        "bursts of 20 steps, ten times as loud",
    ],
)
def test_the_interval_of_rho_covers_the_truth(intervals, name):
    """1000 runs: 0.92 to 0.98 asked for, β1 = 0, β2 = 0.99; no run that descends is accused."""
    cell = intervals.measure(name, (0.0, 0.99), 1, 30.0, 1000)
    assert 0.92 <= cell.covered <= 0.98
    assert cell.rho > 0
    assert cell.accused == 0


def test_the_truth_of_an_interval_is_the_exact_drift(intervals):
    """Two values with probability 0.1: ρ of the long run against the closed form of synthetic/stationary.py."""
    from stepscope.synthetic.stationary import stationary_drift

    process, mean, p = intervals.PROCESSES["independent, two values, p = 0.1"], 0.3, 0.1
    law, values = [p, 1 - p], [mean + math.sqrt((1 - p) / p), mean - math.sqrt(p / (1 - p))]
    ones = np.array(values)
    made = stationary_drift(law, values, 0.0, 0.9)
    # E[1/√v] over the same stationary law, v of the steps up to and with the present one
    rng = np.random.default_rng(0)
    g = ones[(rng.random(400_000) >= p).astype(int)]
    v, total = g[0] ** 2, 0.0
    for x in g:
        v = 0.9 * v + 0.1 * x * x
        total += 1 / math.sqrt(v)
    exact = made / (total / len(g) * mean)
    assert intervals.truth(process, mean, (0.0, 0.9)) == pytest.approx(exact, abs=0.02)


# --- how many more steps


@pytest.mark.slow
def test_the_steps_that_are_asked_for_decide(verdicts, battery):
    """80 % promised. Undecided runs of 10^4 steps are continued as long as they ask; at most one in 160 of so many
    runs that keep the promise exactly would fall below 0.65."""
    worlds = ["noisy quadratic", "cycle 2", "law 2", "law 3", "gauss, 1 variable", "stochastic", "mirrored", "sum 2"]
    rules = ["sgd", "amsgrad", "adam .9 .99", "adam .9 .999", "rmsprop .9"]
    rows = [row for row in play(verdicts, worlds, rules, 10_000, 2) if row.schedule != "cosine"]
    asked = [(row, check) for row in rows for check in ("variance", "bias", "growth") if check in row.needs]
    asked = [(row, check) for row, check in asked if row.needs[check] <= 300_000]
    assert len(asked) >= 40
    assert np.mean([battery.decides(row, check) for row, check in asked]) >= 0.65


# --- the tables


def test_bounds_of_clopper_and_pearson(battery):
    """None of 598: 0.5 % is the bound, as 0.995^598 = 0.05."""
    assert battery.at_most(0, 598) == "0.50 %"
    assert battery.at_most(1, 1) == "100 %"


def test_the_tables_count_every_run_once(battery, verdicts):
    row = verdicts.play("theorem 1", "amsgrad", "root", 10_000, 0)
    rows = [row, replace(row, seed=1, verdict="stalled"), replace(row, schedule="constant", verdict="inconclusive")]
    lines = list(battery.confusion(rows))
    numbers = [sum(map(int, line[2:-1])) for line in lines]
    assert sum(numbers) == 3
    assert sum(int(line[-1]) for line in lines) == 1  # stalled, and a grows
    assert [line[2] for line in battery.open_runs(rows)] == ["2", "1", "0", "3"]


def test_a_run_of_ten_memories_is_short(battery, verdicts):
    row = verdicts.play("theorem 1", "amsgrad", "root", 1000, 0)
    assert battery.too_short(row)
    assert not battery.too_short(replace(row, steps=1001))
    assert not battery.too_short(replace(row, rule="sgd"))


def test_every_table_has_its_place_on_the_page(battery):
    page = PAGE.read_text()
    for name in ("confusion", "open", "left", "accusations", "intervals", "promises"):
        filled = battery.fill(page, name, "| x |")
        assert filled.count("| x |") == 1
        assert battery.fill(filled, name, "| y |").count("| x |") == 0
        assert page.split(f"<!-- {name} -->")[1].lstrip().startswith("| "), f"{name} is not filled in"
