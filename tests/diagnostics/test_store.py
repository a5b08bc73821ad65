"""Run directories: what goes in comes out, whatever kills the writer, reads along, or damages the files."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stepscope.diagnostics.log import JsonLinesLog, Log, MemoryLog, Row, SqliteLog
from stepscope.diagnostics.reading import LINES, SQLITE
from stepscope.diagnostics.store import build_trace, load, read_meta, rows_of, save, write_meta
from stepscope.diagnostics.trace import (
    COLUMNS,
    INSTANTS,
    SUMS,
    DriftRecord,
    Event,
    Scalars,
    TensorInfo,
    Trace,
)

ROOT = Path(__file__).parents[2]
FILES: dict[str, Callable[[Path], Log]] = {SQLITE: SqliteLog, LINES: JsonLinesLog}
BACKENDS = pytest.mark.parametrize("name", FILES)


def tensor(name: str = "weight") -> TensorInfo:
    return TensorInfo(name, (2, 3), 6, 6, 0, "adam")


def layout(*names: str, segment: int = 0) -> Row:
    return Row("tensors", segment, 0, {"tensors": [vars(tensor(name)) for name in names]})


def record(step: int, tensors: int = 1, segment: int = 0, value: float | None = None, lr: Any = 0.1) -> Row:
    facts = {"groups": {"lr": np.atleast_1d(lr)}, "scalars": {"loss": [step, step, 1]}}
    return Row("record", segment, step, facts, np.full((tensors, len(COLUMNS)), step if value is None else value))


def start(segment: int, step: int) -> Row:
    return Row("segment", segment, step, {"from": step})


def event(step: int, message: str, segment: int = 0) -> Row:
    return Row("event", segment, step, {"kind": "alert", "message": message, "tensor": None})


def assert_equal(one: Trace, other: Trace) -> None:
    """Equal to the last bit, NaN included."""
    assert repr(one.meta) == repr(other.meta)
    assert one.tensors == other.tensors
    assert one.events == other.events
    assert one.values.dtype == other.values.dtype == np.float64
    assert one.values.shape == other.values.shape
    assert one.values.tobytes() == other.values.tobytes()
    np.testing.assert_array_equal(one.steps, other.steps)
    assert one.steps.dtype == other.steps.dtype
    assert list(one.groups) == list(other.groups)
    for name in one.groups:
        np.testing.assert_array_equal(one.groups[name], other.groups[name])
    assert set(one.scalars) == set(other.scalars)
    for name, scalars in one.scalars.items():
        for field in ("steps", "last", "total", "count"):
            np.testing.assert_array_equal(getattr(scalars, field), getattr(other.scalars[name], field))
    assert (one.drift is None) == (other.drift is None)
    if one.drift is not None and other.drift is not None:
        assert (one.drift.first_step, one.drift.last_step) == (other.drift.first_step, other.drift.last_step)
        for gram in ("gram_dd", "gram_dg", "gram_gg"):
            np.testing.assert_array_equal(getattr(one.drift, gram), getattr(other.drift, gram))


NAMES = st.text(max_size=8) | st.sampled_from(["", "nan", "-inf", "\\inf", "a'b\"c\n\0", "\ud800", "größe·θ"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
STEP = st.integers(0, 2**53)


def floats(*shape: int) -> st.SearchStrategy[Any]:
    return hnp.arrays(np.float64, shape, elements=st.floats(), fill=st.sampled_from([0.0, math.nan, -math.inf]))


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    steps = np.array(sorted(draw(st.lists(STEP, unique=True, max_size=4))), dtype=np.int64)
    tensors, groups = draw(st.integers(0, 3)), draw(st.integers(0, 2))
    infos = [
        TensorInfo(
            draw(NAMES),
            tuple(draw(st.lists(STEP, max_size=2))),
            draw(STEP),
            draw(STEP),
            0,
            draw(st.none() | NAMES),
        )
        for _ in range(tensors)
    ]
    scalars = {}
    for name in draw(st.lists(NAMES, max_size=2, unique=True)) if len(steps) else []:
        chosen = steps[draw(st.integers(0, len(steps) - 1)) :]
        scalars[name] = Scalars(chosen, *draw(floats(3, len(chosen))))
    names = draw(st.lists(NAMES, max_size=2, unique=True)) if len(steps) else []
    drift = st.builds(DriftRecord, STEP, STEP, *[floats(tensors, 2, 2)] * 3)
    return Trace(
        meta=draw(st.dictionaries(NAMES, JSON, max_size=3)) | {"format": 1},
        tensors=infos,
        steps=steps,
        values=draw(floats(len(steps), tensors, len(COLUMNS))),
        groups={name: draw(floats(len(steps), groups)) for name in names},
        scalars=scalars,
        events=draw(st.lists(st.builds(Event, STEP, NAMES, NAMES, st.none() | NAMES), max_size=3)),
        drift=draw(st.none() | drift),
    )


@given(trace=traces())
@settings(max_examples=40)
def test_a_saved_trace_is_loaded_again(trace: Trace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        trace.save(Path(directory) / "run")
        assert_equal(Trace.load(str(Path(directory) / "run")), trace)
        (Path(directory) / "run" / SQLITE).unlink()
        with closing(JsonLinesLog(Path(directory) / "run" / LINES)) as log:
            for row in rows_of(trace):
                log.append(row)
        assert_equal(Trace.load(Path(directory) / "run"), trace)


def test_reading_a_closed_run_leaves_nothing_in_its_directory(tmp_path: Path) -> None:
    save(build_trace({"format": 1}, [layout("w"), record(1)]), tmp_path / "a run? 100%#1")
    load(tmp_path / "a run? 100%#1")
    assert sorted(file.name for file in (tmp_path / "a run? 100%#1").iterdir()) == ["meta.json", SQLITE]


def test_meta_is_readable_json_and_carries_the_format(tmp_path: Path) -> None:
    write_meta(tmp_path / "run", {"optimizer": "torch.optim.sgd.SGD", "hyperparameters": [{"lr": math.inf}]})
    text = '{"optimizer": "torch.optim.sgd.SGD", "hyperparameters": [{"lr": "inf"}], "format": 1}'
    assert json.loads((tmp_path / "run" / "meta.json").read_text()) == json.loads(text)
    assert read_meta(tmp_path / "run")["hyperparameters"] == [{"lr": math.inf}]


def test_save_refuses_to_mix_two_runs(tmp_path: Path) -> None:
    trace = build_trace({}, [layout("w"), record(1)])
    save(trace, tmp_path)
    with pytest.raises(FileExistsError, match="holds a run already; choose a new directory"):
        save(trace, tmp_path)


def test_save_refuses_a_scalar_between_the_records_and_writes_nothing(tmp_path: Path) -> None:
    trace = build_trace({}, [layout("w"), record(1)])
    trace.scalars["loss"] = Scalars(np.array([2]), *np.zeros((3, 1)))
    with pytest.raises(ValueError, match="'loss' has a value at step 2, which is no record"):
        save(trace, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tensor_added_later_starts_from_nothing() -> None:
    rows = [layout("w"), record(1), layout("w", "b"), record(2, tensors=2, lr=[0.1, 0.2])]
    rows.append(Row("drift", 0, 2, {"first_step": 1, "last_step": 2}, np.ones((3, 1, 8, 8))))
    trace = build_trace({}, rows)
    assert [info.name for info in trace.tensors] == ["w", "b"]
    assert trace.column("a").tolist() == [[1, 0], [2, 2]]
    assert trace.column("a_se").tolist() == [[1, 0], [2, 2]]
    for name in INSTANTS:
        np.testing.assert_array_equal(trace.column(name), [[1, np.nan], [2, 2]])
    np.testing.assert_array_equal(trace.groups["lr"], [[0.1, np.nan], [0.1, 0.2]])
    assert trace.drift is not None
    assert trace.drift.gram_dd.shape == (2, 8, 8)
    assert trace.drift.gram_gg[1].sum() == 0


def test_a_scalar_is_kept_at_the_records_that_have_it() -> None:
    rows = [layout("w"), record(1), record(2), record(4)]
    rows[1].facts["scalars"].clear()
    loss = build_trace({}, rows).scalars["loss"]
    assert loss.steps.tolist() == [2, 4]
    assert loss.last.tolist() == [2, 4]


def test_the_newest_of_two_records_of_a_step_counts() -> None:
    trace = build_trace({}, [layout("w"), record(1), record(2, value=5), record(2, value=7)])
    assert trace.column("a").tolist() == [[1], [7]]


def slow_in_force(rows: list[Row]) -> list[tuple[int, int]]:
    """(segment, step) of the records in force, by going through the history segment by segment."""
    kept: list[tuple[int, int]] = []
    for segment in sorted({row.segment for row in rows}):
        for row in rows:
            if row.kind == "segment" and row.segment == segment:
                kept = [entry for entry in kept if entry[1] < row.facts["from"]]
        kept += [(row.segment, row.step) for row in rows if row.kind == "record" and row.segment == segment]
    return kept


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=6))
@settings(max_examples=100)
def test_a_later_segment_supersedes_what_it_runs_again(segments: list[tuple[int, int]]) -> None:
    rows = [layout("w")]
    for segment, (first, length) in enumerate(segments):
        rows.append(start(segment, first))
        for step in range(first, first + length):
            rows += [record(step, segment=segment, value=segment), event(step, str(segment), segment=segment)]
    trace, expected = build_trace({}, rows), slow_in_force(rows)
    assert [(int(a), int(step)) for a, step in zip(trace.column("a")[:, 0], trace.steps, strict=True)] == expected
    assert [(int(event.message), event.step) for event in trace.events] == expected
    assert trace.scalars == {} or trace.scalars["loss"].steps.tolist() == [step for _, step in expected]


def test_thinning_loses_resolution_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    log = MemoryLog()
    log.append(layout("w", "b"))
    total = np.zeros((2, len(COLUMNS)))
    for step in range(1, 101):
        total += rng.random(total.shape)
        log.append(replace(record(step), numbers=total))
    whole = build_trace({}, log.rows())
    log.thin(lambda step: step % 8 == 0)
    thinned = build_trace({}, log.rows())
    assert thinned.steps.tolist() == [*range(8, 101, 8), 100]
    for name in SUMS:
        np.testing.assert_array_equal(thinned.column(name), whole.column(name)[thinned.steps - 1])


def sample(directory: Path) -> None:
    """Write a run of 30 records of 6 tensors."""
    write_meta(directory, {})
    with closing(SqliteLog(directory / SQLITE)) as log:
        log.append(layout(*"abcdef"))
        for step in range(1, 31):
            log.append(record(step, tensors=6))
        log.append(event(30, "closed"))


def other_tables(run: Path) -> None:
    (run / SQLITE).unlink()
    with closing(sqlite3.connect(run / SQLITE)) as connection:
        connection.execute("CREATE TABLE users (name)")


def other_columns(run: Path) -> None:
    (run / SQLITE).unlink()
    with closing(sqlite3.connect(run / SQLITE)) as connection:
        connection.execute("CREATE TABLE log (line)")


def truncated(run: Path) -> None:
    os.truncate(run / SQLITE, (run / SQLITE).stat().st_size // 2)


def fewer_tensors(run: Path) -> None:
    with closing(SqliteLog(run / SQLITE)) as log:
        log.append(layout("a"))


def lines(text: str) -> Callable[[Path], None]:
    def write(run: Path) -> None:
        (run / SQLITE).unlink()
        (run / LINES).write_text(text)

    return write


def meta(text: str) -> Callable[[Path], object]:
    return lambda run: (run / "meta.json").write_bytes(text.encode("latin-1"))


BAD: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "nothing there": (
        shutil.rmtree,
        FileNotFoundError,
        r"no run at '.*run': expected .*Monitor.*check the path",
    ),
    "no meta": (lambda run: (run / "meta.json").unlink(), FileNotFoundError, "no run at"),
    "meta no JSON": (meta("{'a'"), ValueError, r"meta.json' is not valid JSON .*; restore"),
    "meta no text": (meta("\xff\xfe\x00"), ValueError, r"meta.json' is not valid JSON"),
    "meta a list": (meta("[1]"), ValueError, r"meta.json' was not written by stepscope"),
    "meta another tool's": (meta('{"format": "v2"}'), ValueError, r"meta.json' was not written by stepscope"),
    "newer format": (
        meta('{"format": 2}'),
        ValueError,
        "has format 2, this .* reads up to 1; upgrade stepscope",
    ),
    "random bytes": (
        lambda run: (run / SQLITE).write_bytes(np.random.default_rng(0).bytes(9000)),
        ValueError,
        r"trace.sqlite' is not a log .* \(file is not a database\); restore",
    ),
    "other tables": (other_tables, ValueError, "trace.sqlite' is not .*expected a table `log`, found users"),
    "other columns": (other_columns, ValueError, "trace.sqlite' is not .*no such column"),
    "truncated": (truncated, ValueError, "trace.sqlite' is not .*malformed"),
    "fewer tensors": (fewer_tensors, ValueError, r"record of step 1 has shape \(6, .*expected at most \(1, "),
    "lines of prose": (lines("hello\nworld\n"), ValueError, "trace.jsonl' is not a log"),
    "lines of JSON": (
        lines('{"a": 1}\n'),
        ValueError,
        r"trace.jsonl' is not .*damaged row: KeyError\('kind'\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_sentence(case: str, tmp_path: Path) -> None:
    damage, kind, sentence = BAD[case]
    sample(tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(kind, match=sentence) as caught:
        load(tmp_path / "run")
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


@BACKENDS
def test_a_run_that_has_just_begun_is_empty(name: str, tmp_path: Path) -> None:
    write_meta(tmp_path, {})
    for _ in range(2):
        trace = load(tmp_path)
        assert (len(trace.steps), trace.tensors, trace.values.shape) == (0, [], (0, 0, len(COLUMNS)))
        (tmp_path / name).touch()


@BACKENDS
def test_a_large_run_takes_little_space_and_loads_within_a_second_of_computing(name: str, tmp_path: Path) -> None:
    """200 tensors: 600 records are 32 MB in SQLite (43 MB as lines), 1000 load in a second of processor time."""
    numbers = np.random.default_rng(0).random((200, len(COLUMNS)))
    write_meta(tmp_path, {})
    with closing(FILES[name](tmp_path / name)) as log:
        log.append(layout(*map(str, range(200))))
        for step in range(1, 1001):
            log.append(replace(record(step), numbers=numbers))
            log.commit()
            if step == 600:
                size = sum(file.stat().st_size for file in tmp_path.glob("trace*"))
                assert size < {SQLITE: 38e6, LINES: 44e6}[name]  # SQLite's includes 4 MB of write-ahead log
        seconds = []
        for _ in range(2):
            begin = time.process_time()
            assert load(tmp_path).values.shape == (1000, 200, len(COLUMNS))
            seconds.append(time.process_time() - begin)
    assert min(seconds) < 1
