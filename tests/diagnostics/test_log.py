"""The logs against a slow twin, what they leave on disk, and what they do when writing fails."""

from __future__ import annotations

import json
import logging
import math
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.diagnostics import log as log_module
from stepscope.diagnostics.log import JsonLinesLog, Log, MemoryLog, Row, SqliteLog, open_log
from stepscope.diagnostics.reading import LINES, SQLITE, read_rows
from stepscope.diagnostics.rows import pack, unpack
from stepscope.diagnostics.writer import Writer

FILES: dict[str, Callable[[Path], Log]] = {SQLITE: SqliteLog, LINES: JsonLinesLog}
WRITTEN: dict[str, Callable[[Path], Log]] = {
    f"written/{SQLITE}": lambda path: Writer(SqliteLog(path)),
    f"written/{LINES}": lambda path: Writer(JsonLinesLog(path)),
}
BACKENDS = pytest.mark.parametrize("name", FILES)


def record(step: int, size: int = 4, segment: int = 0) -> Row:
    return Row("record", segment, step, {"scalars": {"loss": [math.nan, step, 1]}}, np.full((size, 3), float(step)))


def plain(rows: Any) -> list[tuple[Any, ...]]:
    """Rows as comparable values, without the ones that a newer row of the same kind replaced."""
    rows = list(rows)
    newest = {row.kind: index for index, row in enumerate(rows)}
    return [
        (
            row.kind,
            row.segment,
            row.step,
            repr(row.facts),
            None if row.numbers is None else row.numbers.tolist(),
        )
        for index, row in enumerate(rows)
        if row.kind not in ("tensors", "drift") or newest[row.kind] == index
    ]


def multiple_of(number: int) -> Callable[[int], bool]:
    return lambda step: step % number == 0


class Twin:
    """What a log is, written down as slowly as possible."""

    def __init__(self) -> None:
        self.kept: list[Row] = []

    def append(self, row: Row) -> None:
        self.kept.append(row)

    def thin(self, keep: Callable[[int], bool]) -> None:
        last = max((i for i, row in enumerate(self.kept) if row.kind == "record"), default=-1)
        self.kept = [row for i, row in enumerate(self.kept) if row.kind != "record" or i == last or keep(row.step)]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["record", "record", "event", "drift", "tensors"]), st.integers(0, 40)),
        st.tuples(st.sampled_from(["thin"]), st.integers(1, 4)),
        st.tuples(st.sampled_from(["commit", "reopen"]), st.just(0)),
    ),
    max_size=25,
)


@given(operations=OPERATIONS)
@settings(max_examples=40)
def test_every_log_tells_what_the_twin_tells(operations: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        made = FILES | WRITTEN
        paths = {name: Path(directory) / name for name in made}
        (Path(directory) / "written").mkdir()
        logs = {name: make(paths[name]) for name, make in made.items()} | {"memory": MemoryLog()}
        twin = Twin()
        for name, number in operations:
            for key, log in logs.items():
                if name == "commit":
                    log.commit()
                elif name == "thin":
                    log.thin(multiple_of(number))
                elif name == "reopen":
                    log.close()
                    logs[key] = made[key](paths[key]) if key in made else log
                else:
                    log.append(Row(name, 1, number, {"n": number}, np.array([number, np.nan, -np.inf])))
            if name == "thin":
                twin.thin(multiple_of(number))
            elif name not in ("commit", "reopen"):
                twin.append(Row(name, 1, number, {"n": number}, np.array([number, np.nan, -np.inf])))
        for key, log in logs.items():
            assert repr(plain(log.rows())) == repr(plain(twin.kept)), key
            log.close()
            assert repr(plain(log.rows())) == repr(plain(twin.kept)), f"{key}, closed"
        for path in paths.values():
            assert repr(plain(read_rows(path))) == repr(plain(twin.kept))


STRINGS = st.text() | st.sampled_from(["nan", "inf", "-inf", "\\nan", "\\\\-inf", "\ud800", "'\"\n\0"])
FACTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=10,
)


@given(facts=FACTS)
@settings(max_examples=200)
def test_facts_survive_strict_json(facts: Any) -> None:
    text = json.dumps(pack(facts), allow_nan=False)
    assert repr(unpack(json.loads(text))) == repr(facts)


def test_numpy_numbers_become_json() -> None:
    packed = pack({"a": np.float32(0.5), "b": np.int64(3), "c": np.array([1.0, np.nan]), "d": (np.inf,), 1: True})
    assert packed == {"a": 0.5, "b": 3, "c": [1.0, "nan"], "d": ["inf"], "1": True}


def test_a_line_is_readable_json(tmp_path: Path) -> None:
    with closing(JsonLinesLog(tmp_path / LINES)) as log:
        log.append(Row("event", 1, 7, {"kind": "skipped", "message": "naïve", "tensor": None}))
        log.append(Row("record", 1, 8, {"groups": {"lr": [math.inf, 0.5]}}, np.array([[1.0, -2.0]])))
    assert (tmp_path / LINES).read_text() == (
        '{"kind":"event","segment":1,"step":7,"facts":{"kind":"skipped","message":"na\\u00efve","tensor":null}}\n'
        '{"kind":"record","segment":1,"step":8,"facts":{"groups":{"lr":["inf",0.5]}},'
        '"shape":[1,2],"numbers":"AAAAAAAA8D8AAAAAAAAAwA=="}\n'
    )


def test_the_table_is_readable_sql(tmp_path: Path) -> None:
    with closing(SqliteLog(tmp_path / SQLITE)) as log:
        log.append(Row("record", 1, 8, {"groups": {"lr": [math.inf, 0.5]}}, np.array([[1.0, -2.0]])))
    with closing(sqlite3.connect(tmp_path / SQLITE)) as connection:
        rows = connection.execute("SELECT id, kind, segment, step, facts, hex(numbers), shape FROM log").fetchall()
    numbers = "000000000000F03F00000000000000C0"
    assert rows == [(1, "record", 1, 8, '{"groups":{"lr":["inf",0.5]}}', numbers, "[1,2]")]


@pytest.mark.parametrize("make", [MemoryLog, lambda: SqliteLog(Path(SQLITE)), lambda: JsonLinesLog(Path(LINES))])
def test_a_row_is_copied_when_it_is_appended(
    make: Callable[[], Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(make()) as log:
        numbers, loss = np.ones((2, 3)), [1.0, 1.0, 1]
        log.append(Row("record", 0, 1, {"scalars": {"loss": loss}}, numbers))
        numbers[:], loss[0] = 9, 9.0
        (row,) = log.rows()
    assert row.facts == {"scalars": {"loss": [1.0, 1.0, 1]}}
    np.testing.assert_array_equal(row.numbers, np.ones((2, 3)))


@BACKENDS
def test_a_reader_sees_what_is_committed_and_the_writer_sees_all(name: str, tmp_path: Path) -> None:
    with closing(FILES[name](tmp_path / name)) as log:
        log.append(record(1))
        log.commit()
        log.append(record(2))
        assert [row.step for row in read_rows(tmp_path / name)] == [1]
        assert [row.step for row in log.rows()] == [1, 2]


@pytest.mark.parametrize("torn", [b'{"kind":"rec', b"\0\0\0\0", b'{"kind":"event","segment":0,"step":3,"facts":{}}'])
def test_a_torn_last_line_is_dropped_and_the_file_goes_on(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / LINES
    with closing(JsonLinesLog(path)) as log:
        log.append(record(1))
    path.write_bytes(path.read_bytes() + torn)
    assert [row.step for row in read_rows(path)] == [1]
    with closing(JsonLinesLog(path)) as log:
        log.append(record(2))
    assert [row.step for row in read_rows(path)] == [1, 2]


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: writing stops midway, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@BACKENDS
def test_a_failed_commit_leaves_nothing_behind_and_can_be_repeated(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with closing(FILES[name](path)) as log:
        log.append(record(1))
        log.commit()
        log.append(record(2))
        log.append(record(3, size=20_000))
        with files_end_at(200_000), pytest.raises((OSError, sqlite3.Error)):
            log.commit()
        assert [row.step for row in read_rows(path)] == [1]
        assert [row.step for row in log.rows()] == [1, 2, 3]
        log.commit()
        assert [row.step for row in read_rows(path)] == [1, 2, 3]


@BACKENDS
@pytest.mark.parametrize("moved", [False, True], ids=["deleted", "moved"])
def test_a_file_that_is_gone_is_noticed_and_read_as_long_as_it_is_open(name: str, moved: bool, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    log = FILES[name](run / name)
    log.append(record(1))
    log.commit()
    run.rename(tmp_path / "elsewhere") if moved else shutil.rmtree(run)
    log.append(record(2))
    for write in (log.commit, lambda: log.thin(multiple_of(2)), log.close):
        assert [row.step for row in log.rows()] == [1, 2]
        with pytest.raises(FileNotFoundError, match="deleted or moved"):
            write()
    assert not run.exists()
    assert not moved or [row.step for row in read_rows(tmp_path / "elsewhere" / name)] == [1]


@BACKENDS
def test_a_file_in_the_place_of_a_deleted_one_is_left_alone(name: str, tmp_path: Path) -> None:
    first = FILES[name](tmp_path / name)
    first.append(record(1))
    first.commit()
    for file in tmp_path.iterdir():
        file.unlink()
    with closing(FILES[name](tmp_path / name)) as second:
        second.append(record(2))
        second.commit()
        first.append(record(3))
        with pytest.raises(FileNotFoundError, match="deleted or moved"):
            first.close()
        second.append(record(4))
    assert [row.step for row in read_rows(tmp_path / name)] == [2, 4]


def test_a_failed_rewrite_keeps_the_file(tmp_path: Path) -> None:
    path = tmp_path / LINES
    with closing(JsonLinesLog(path)) as log:
        for step in range(20):
            log.append(record(step, size=500))
        log.commit()
        with files_end_at(50_000), pytest.raises(OSError, match="File too large"):
            log.thin(lambda step: step % 2 == 0)
        assert len(list(log.rows())) == 20
        assert [file.name for file in tmp_path.iterdir()] == [LINES]


def test_sqlite_reuses_what_thinning_frees(tmp_path: Path) -> None:
    """300 records at most, of 20 × 3 numbers each, and a drift row of 40 kB that is replaced 5000 times."""
    path = tmp_path / SQLITE
    interval, largest = 1, 0
    with closing(SqliteLog(path)) as log:
        for step in range(5000):
            if step % interval == 0:
                log.append(record(step, size=20))
            log.append(Row("drift", 0, step, {}, np.zeros(5000)))
            log.commit()
            if step // interval >= 300:
                interval *= 2
                log.thin(multiple_of(interval))
            if step % 50 == 0:
                wal = path.with_name(SQLITE + "-wal")
                largest = max(largest, path.stat().st_size, wal.stat().st_size)
        assert len(log.rows()) < 302
    assert largest < 6_000_000  # the write-ahead log is folded back at 4 MB
    assert path.stat().st_size < 500_000


def test_lines_are_rewritten_when_outdated_rows_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "SLACK", 100_000)
    for session in range(10):  # what an earlier session left is counted too
        with closing(JsonLinesLog(tmp_path / LINES)) as log:
            for step in range(20 * session, 20 * session + 20):
                log.append(record(step))
                log.append(Row("drift", 0, step, {}, np.zeros(500)))
                log.commit()
                assert (tmp_path / LINES).stat().st_size < 170_000
    rows = read_rows(tmp_path / LINES)
    assert [row.step for row in rows if row.kind == "record"] == list(range(200))


@BACKENDS
def test_an_existing_log_is_continued_in_its_own_file(name: str, tmp_path: Path) -> None:
    with closing(FILES[name](tmp_path / name)) as log:
        log.append(record(1))
    with closing(open_log(tmp_path)) as log:
        log.append(record(2, segment=1))
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert [(row.segment, row.step) for row in read_rows(tmp_path / name)] == [(0, 1), (1, 2)]


def without_shared_memory(path: str | Path, **options: Any) -> sqlite3.Connection:
    """Connect through SQLite's own dot-file locking, which cannot keep a write-ahead log."""
    uri = f"{Path(path).absolute().as_uri()}?vfs=unix-dotfile"
    connection: sqlite3.Connection = sqlite3.connect(uri, uri=True, **options)
    return connection


class BrokenConnection(sqlite3.Connection):
    """Answers "wal" when asked for it, and fails at the first write, as some network mounts do."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql.startswith(("CREATE", "INSERT", "BEGIN IMMEDIATE")):
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *parameters)


def broken(path: str | Path, **options: Any) -> sqlite3.Connection:
    return sqlite3.connect(path, factory=BrokenConnection, **options)


NO_WAL = {"keeps a delete journal": without_shared_memory, "disk I/O error": broken}


@pytest.mark.parametrize("why", NO_WAL)
def test_without_a_write_ahead_log_the_run_goes_to_lines_and_says_so(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class NoWal:
        connect = staticmethod(NO_WAL[why])

        def __getattr__(self, name: str) -> Any:
            return getattr(sqlite3, name)

    monkeypatch.setattr(log_module, "sqlite3", NoWal())
    with caplog.at_level(logging.WARNING, "stepscope"), closing(open_log(tmp_path)) as log:
        log.append(record(1))
    (message,) = caplog.messages
    assert why in message
    assert "written to trace.jsonl instead" in message
    assert [file.name for file in tmp_path.iterdir()] == [LINES]
    assert [row.step for row in read_rows(tmp_path / LINES)] == [1]


def test_a_foreign_file_of_lines_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / LINES).write_text("to do:\nmilk")
    with pytest.raises(ValueError, match=r"trace\.jsonl' is not a log that this"):
        open_log(tmp_path)
    assert (tmp_path / LINES).read_text() == "to do:\nmilk"


def test_a_foreign_database_is_refused_and_not_touched(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / SQLITE)) as connection:
        connection.execute("CREATE TABLE users (name)")
    before = (tmp_path / SQLITE).read_bytes()
    with pytest.raises(ValueError, match="expected a table `log`, found users"):
        open_log(tmp_path)
    assert (tmp_path / SQLITE).read_bytes() == before
