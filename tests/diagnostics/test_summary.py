"""The table with a row per tensor."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepscope.diagnostics.summary import COLUMNS, summarize
from stepscope.diagnostics.trace import COLUMNS as TRACE_COLUMNS
from stepscope.diagnostics.trace import TensorInfo, Trace


@pytest.fixture
def trace(worlds):
    rng = np.random.default_rng(0)
    g, e = rng.normal(size=(1000, 5)), rng.lognormal(size=(1000, 5))
    return worlds.World(g, e, np.ones(1000), owner=np.array([0, 0, 0, 1, 1])).trace(np.arange(1, 1001))


def test_rows_match_the_streams(trace):
    first, second = summarize(trace).rows
    assert (first["tensor"], second["tensor"]) == ("layer0.weight", "layer1.weight")
    sums = {name: trace.column(name)[-1] - trace.column(name)[499] for name in ("a", "b", "c_plus", "rising")}
    for row, p in ((first, 0), (second, 1)):
        assert row["b/a"] == pytest.approx(sums["b"][p] / sums["a"][p], rel=1e-12)
        assert row["c+/a"] == pytest.approx(sums["c_plus"][p] / sums["a"][p], rel=1e-12)
        assert row["rising"] == pytest.approx(0.5, abs=0.02)  # independent draws rise half of the time
        assert row["growth"] == pytest.approx(trace.column("e_p50")[-1, p] / trace.column("e_p50")[0, p])
        assert row["steps"] == 1000
        assert row["watched"] == 1.0
        assert row["rms_mean"] == pytest.approx(1.0)


def test_text_is_aligned(trace):
    lines = str(summarize(trace)).splitlines()
    assert lines[0].split() == [name for name in COLUMNS if name != "formula"]
    assert len(set(map(len, lines[:3]))) == 1
    assert lines[1].startswith("layer0.weight ")
    assert lines[3:5] == ["lr/(sqrt(v)+eps)", ""]
    assert " 1000 " in lines[1]


def test_each_column_is_explained_below(trace):
    text = str(summarize(trace))
    columns, legend = text.splitlines()[0].split(), text.partition("\n\n")[2].splitlines()
    assert [line.split()[0] for line in legend] == columns
    assert "b/a            variance ratio over the last half of the run" in legend
    assert max(map(len, legend)) <= 80


def test_to_pandas_keeps_the_numbers(trace):
    table = summarize(trace).to_pandas()
    assert list(table.index) == ["layer0.weight", "layer1.weight"]
    assert list(table.columns) == list(COLUMNS)[1:]
    assert table.loc["layer0.weight", "b/a"] == summarize(trace).rows[0]["b/a"]


@pytest.mark.parametrize("records", [0, 1, 3])
def test_tensors_without_a_stepsize(records):
    muon = TensorInfo("w", (2, 2), 4, 4, 0, None)
    empty = TensorInfo("z", (0,), 0, 0, 0, "lr")
    values = np.full((records, 2, len(TRACE_COLUMNS)), math.nan)
    summary = summarize(Trace({}, [muon, empty], np.arange(1, records + 1), values))
    row = summary.rows[0]
    assert row["formula"] == "-"
    assert row["steps"] == 0
    assert math.isnan(row["b/a"])
    assert str(summary).splitlines()[1].split()[:3] == ["w", "1", "0"]


def test_no_tensors():
    summary = summarize(Trace({}, [], np.arange(0), np.empty((0, 0, len(TRACE_COLUMNS)))))
    assert str(summary).splitlines()[0].split() == [name for name in COLUMNS if name != "formula"]
    assert len(summary.to_pandas()) == 0
