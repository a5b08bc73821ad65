"""The examples: every method and task of the proof runs, and the page that is there is that of its results."""

import copy
import importlib
import json
import math
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def remedies(monkeypatch):
    """Return the modules of examples/remedies.py, imported as the script does."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    names = ("remedies", "remedies_page", "tasks")
    yield [importlib.import_module(name) for name in names]
    for name in names:
        del sys.modules[name]


def short(task):
    """Return a task of 30 steps, two seeds, and few data."""
    task = copy.copy(task)
    if hasattr(task, "parts"):
        few = [(x[:20], y[:20]) for x, y in task.parts()]
        task.parts = lambda: few
    task.steps, task.epochs, task.seeds = 30, 30, 2
    return task


@pytest.mark.slow
def test_every_method_runs_on_its_tasks_and_comes_onto_the_page(remedies, tmp_path, monkeypatch):
    script, paper, _ = remedies
    monkeypatch.setattr(script, "GRID", [0.0, 0.5])
    monkeypatch.setattr(script, "TUNING", range(1000, 1002))
    rows = []
    for task, methods in script.PLAN:
        for method in methods:
            row = script.tried(short(task), method)
            assert round(math.log10(row["lr"] / method.start), 6) in (-0.25, 0.0, 0.25, 0.5, 0.75)
            assert all(len(each) == 2 and not any(map(math.isnan, each)) for each in row["scores"].values())
            rows.append(row)
    some = [script.at_rate(short(script.PLAN[0][0]), script.BY_NAME["Demon"], 0.1)]
    text = paper.page({"tuned": rows, "demon": some, "cprop": some})
    for task, methods in script.PLAN:
        assert f"## {task.name[0].upper()}{task.name[1:]}" in text
        assert all(f"| {method.name} |" in text for method in methods)
    paper.draw(rows, tmp_path / "proof.svg")
    assert (tmp_path / "proof.svg").stat().st_size > 10_000


def test_the_page_is_that_of_its_results(remedies):
    _, paper, _ = remedies
    found = json.loads((ROOT / "docs" / "proof.json").read_text())
    assert (ROOT / "docs" / "proof.md").read_text() == paper.page(found)


def test_the_figures_are_those_of_its_results(remedies, tmp_path):
    script, paper, _ = remedies
    found = json.loads((ROOT / "docs" / "proof.json").read_text())
    paper.draw(found["tuned"], tmp_path / "proof.svg")
    paper.draw_rates({name: script.rates(name) for name in script.SCHEDULES}, tmp_path / "proof-rates.svg")
    for figure in tmp_path.iterdir():
        assert figure.read_bytes() == (ROOT / "docs" / figure.name).read_bytes()


def test_every_remedy_is_on_trial(remedies):
    import stepscope.remedies

    script, *_ = remedies
    planned = {(task.name, method.name) for task, methods in script.PLAN for method in methods}
    assert set(stepscope.remedies.__all__) <= {re.split(r"[ ,(]", name)[0] for _, name in planned}
    found = json.loads((ROOT / "docs" / "proof.json").read_text())
    assert {(row["task"], row["method"]) for row in found["tuned"]} == planned


def test_the_search_finds_the_deeper_of_two_valleys(remedies):
    """The usual rate lies in a shallow one, and the grid's first two seeds see each place a little off."""
    script, *_ = remedies
    asked = []

    def score(lr, seed):
        asked.append((lr, seed))
        shallow, deep = abs(math.log10(lr / 1.0)), abs(math.log10(lr / 0.02)) - 0.5
        return math.inf if lr > 20 else min(shallow, deep) + 0.02 * (seed % 2)

    assert script.tuned(score, 1.0) == pytest.approx(0.02, rel=0.3)
    rates = {lr for lr, _ in asked}
    assert len([lr for lr in rates if (lr, 1004) in asked]) <= 6
    assert [min(rates), max(rates)] == pytest.approx([0.01 / 10**0.25, 100])
    assert {seed for _, seed in asked} == set(range(1000, 1005))


def test_every_method_of_a_task_is_sought_at_as_many_rates(remedies):
    script, *_ = remedies
    for place in (-2.0, -1.2, 0.0, 0.7, 2.0):
        rates = set()

        def score(lr, seed, place=place, rates=rates):
            rates.add(lr)
            return abs(math.log10(lr) - place)

        script.tuned(score, 1.0)
        assert len(rates) in (12, 13)  # nine, and three or four between and beyond


def test_an_interval_without_zero_has_an_outcome(remedies):
    import numpy as np

    _, paper, _ = remedies
    base = np.array([1.0, 1.1, 0.9, 1.0])
    assert paper.compared("t", "m", "b", 0.8 * base, base).outcome == paper.BETTER
    assert paper.compared("t", "m", "b", 1.2 * base, base).outcome == paper.WORSE
    assert paper.compared("t", "m", "b", base * np.array([1.01, 0.99, 1.01, 0.99]), base).outcome == paper.NEITHER
    assert paper.compared("t", "m", "b", np.array([2.0, 0.1, 1.0, 1.0]), base).outcome == paper.UNTOLD
    assert paper.compared("t", "m", "b", 0.8 * base, base, failed=True).outcome == paper.UNTOLD
