"""The writer's thread: nobody waits for it, nothing handed over is lost, and what goes wrong in it is told."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shared import Failing
from stepscope import Monitor, Trace
from stepscope.diagnostics import recorder as recorder_module
from stepscope.diagnostics import writer as writer_module
from stepscope.diagnostics.log import Row, SqliteLog
from stepscope.diagnostics.reading import SQLITE, read_rows
from stepscope.diagnostics.schedule import GEOMETRIC, Schedule
from stepscope.diagnostics.writer import NAME, StillSilent, Writer

ROOT = Path(__file__).parents[2]
WAIT = 30.0
"""Seconds after which a test gives up; none waits that long."""


class Gated(SqliteLog):
    """A log on a disk that hangs until `gate` is set, once `hangs` is."""

    def __init__(self, path: Path) -> None:
        self.gate, self.entered, self.hangs = threading.Event(), threading.Event(), False
        super().__init__(path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self.hangs:
            self.entered.set()
            assert self.gate.wait(WAIT)
        with super()._transaction() as connection:
            yield connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / SQLITE


@pytest.fixture
def gated(path: Path) -> Iterator[Gated]:
    """A log whose disk hangs from its first commit on; it answers again as the test ends."""
    log = Gated(path)
    log.hangs = True
    yield log
    log.gate.set()


def record(step: int) -> Row:
    return Row("record", 0, step, {}, np.full((4, 3), float(step)))


def steps(rows: list[Row]) -> list[int]:
    return [row.step for row in rows]


def started(writer: Writer) -> threading.Thread:
    """Return the thread of a writer, which is alive."""
    thread = writer._thread
    assert thread.is_alive()
    assert thread.name == NAME
    assert thread.daemon
    return thread


def test_handing_over_waits_for_no_disk(gated: Gated, path: Path) -> None:
    writer = Writer(gated)
    for step in range(1000):
        writer.append(record(step))
        writer.commit()
        writer.thin(lambda step: step % 2 == 0 or step > 900)
        writer.check()
    assert gated.entered.wait(WAIT)
    assert not gated.gate.is_set()
    assert steps(read_rows(path)) == []
    gated.gate.set()
    writer.close()
    assert steps(read_rows(path)) == [*range(0, 901, 2), *range(901, 1000)]


def test_what_waits_takes_no_more_than_the_run_would_on_disk(gated: Gated, path: Path, tmp_path: Path) -> None:
    """A disk that hangs for 100 000 steps: the schedule keeps 64 records and the geometric ones."""
    schedule, most = Schedule(capacity=64, interval=1), 0
    (tmp_path / "twin").mkdir()
    with closing(SqliteLog(tmp_path / "twin" / SQLITE)) as twin:
        writer = Writer(gated)
        for step in range(1, 100_001):
            if schedule.keeps(step):
                for log in (writer, twin):
                    log.append(record(step))
                    log.append(Row("drift", 0, step, {}, np.zeros(100)))
            if schedule.widen(step):
                writer.thin(copy.copy(schedule).keeps)
                twin.thin(schedule.keeps)
            writer.commit()
            most = max(most, len(writer._items))
    geometric = sum(step <= 100_000 for step in GEOMETRIC)
    doublings = 11  # 64 · 2^11 > 100 000; each leaves a note that the disk has yet to be thinned
    assert 64 < most <= 64 + geometric + doublings + 2  # the newest record and the newest drift row
    gated.gate.set()
    writer.close()
    assert [(row.kind, row.step) for row in read_rows(path)] == [
        (row.kind, row.step) for row in read_rows(tmp_path / "twin" / SQLITE)
    ]


def test_a_failed_write_is_told_once_and_made_up_for(path: Path) -> None:
    log = Failing(path)
    writer = Writer(log)
    log.fault = OSError(28, "No space left on device")
    writer.append(record(1))
    assert writer.settle()
    with pytest.raises(OSError, match="No space left"):
        writer.check()
    writer.check()
    writer.append(record(2))
    assert steps(writer.rows()) == [1, 2]
    assert steps(read_rows(path)) == []
    log.fault = None
    assert writer.settle()
    assert steps(read_rows(path)) == [1, 2]
    writer.check()
    writer.close()


def test_what_cannot_be_written_at_the_end_is_told_and_stays_in_memory(path: Path) -> None:
    log = Failing(path)
    writer = Writer(log)
    writer.append(record(1))
    assert writer.settle()
    log.fault = OSError(28, "No space left on device")
    writer.append(record(2))
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    writer.close()
    assert steps(writer.rows()) == [1, 2]
    assert steps(read_rows(path)) == [1]


def test_a_row_that_cannot_be_written_holds_up_no_other(path: Path) -> None:
    writer = Writer(SqliteLog(path))
    for row in (record(1), Row("event", 0, 2, {"what": object()}), record(3)):
        writer.append(row)
    assert writer.settle()
    with pytest.raises(TypeError, match="not JSON serializable"):
        writer.check()
    assert steps(read_rows(path)) == [1, 3]
    with pytest.raises(TypeError, match="not JSON serializable"):
        writer.close()


def test_an_exit_in_the_thread_is_none_of_the_process(path: Path) -> None:
    log = Failing(path)
    writer = Writer(log)
    log.fault = SystemExit("gone")
    writer.append(record(1))
    assert writer.settle()
    with pytest.raises(RuntimeError, match="writing the record ended by SystemExit: gone"):
        writer.check()
    log.fault = None
    writer.close()
    assert steps(read_rows(path)) == [1]


def test_a_thread_that_dies_is_missed_and_what_it_left_is_written(path: Path) -> None:
    writer = Writer(SqliteLog(path))
    thread = started(writer)
    assert thread.ident is not None
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(MemoryError)) == 1
    writer.append(record(1))
    writer.commit()
    thread.join(WAIT)
    assert not thread.is_alive()
    for sentence in ("MemoryError|", "the thread that writes the record has died"):
        with pytest.raises((MemoryError, RuntimeError), match=sentence):
            writer.check()
    assert steps(writer.rows()) == [1]
    writer.close()
    assert steps(read_rows(path)) == [1]


def test_closing_waits_for_a_hung_disk_until_its_patience_ends(
    gated: Gated, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "PATIENCE", 0.2)
    released = threading.Event()
    writer = Writer(gated, released.set)
    writer.append(record(1))
    writer.commit()
    assert gated.entered.wait(WAIT)
    writer.append(record(2))
    with pytest.raises(TimeoutError, match=r"the disk has not answered for 0\.2 seconds; read"):
        writer.rows()
    with pytest.raises(TimeoutError, match=r"not answered for 0\.2 seconds; what is left is written when it does"):
        writer.close()
    assert not released.is_set()
    gated.gate.set()
    started(writer).join(WAIT)
    assert released.is_set()
    assert steps(read_rows(path)) == steps(writer.rows()) == [1, 2]


def test_a_disk_that_does_not_answer_is_told_of_once(
    gated: Gated, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer(gated)
    writer.append(record(1))
    writer.commit()
    assert gated.entered.wait(WAIT)
    for _ in range(10):
        writer.commit()
    assert not caplog.messages
    monkeypatch.setattr(writer_module, "PATIENCE", 0.0)
    for _ in range(10):
        writer.commit()
    (message,) = caplog.messages
    assert "the record waits in memory, and is written when it does, if the process still runs" in message
    with pytest.raises(StillSilent):
        writer.close()
    monkeypatch.undo()
    gated.gate.set()
    started(writer).join(WAIT)


def test_another_silence_is_told_of_as_the_record_is_closed(
    gated: Gated, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer_module, "PATIENCE", 0.2)
    writer = Writer(gated)
    writer.append(record(1))
    writer.commit()
    assert gated.entered.wait(WAIT)
    while not caplog.messages:
        writer.commit()
    gated.gate.set()
    monkeypatch.setattr(writer_module, "PATIENCE", WAIT)
    assert writer.settle()
    gated.gate.clear()
    writer.append(record(2))
    monkeypatch.setattr(writer_module, "PATIENCE", 0.2)
    with pytest.raises(TimeoutError) as raised:
        writer.close()
    assert not isinstance(raised.value, StillSilent)
    gated.gate.set()
    started(writer).join(WAIT)


def test_rows_of_several_threads_all_arrive(path: Path) -> None:
    writer = Writer(SqliteLog(path))

    def hand_over(first: int) -> None:
        for step in range(first, first + 500):
            writer.append(record(step))
            writer.commit()

    threads = [threading.Thread(target=hand_over, args=(first,)) for first in range(0, 2000, 500)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found = steps(writer.rows())
        assert len(found) == len(set(found))
    writer.close()
    assert sorted(steps(read_rows(path))) == list(range(2000))


# --- threads and monitors ------------------------------------------------------------------------------------


def writers() -> int:
    return sum(thread.name == NAME for thread in threading.enumerate())


def test_only_a_monitor_with_a_directory_has_a_thread_and_only_while_it_is_open(tmp_path: Path) -> None:
    gc.collect()
    before = writers()
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    with Monitor(optimizer, strict=True):
        assert writers() == before
    with Monitor(optimizer, tmp_path / "a"), Monitor(optimizer, tmp_path / "b"):
        assert writers() == before + 2
    assert writers() == before


def test_an_import_starts_no_thread() -> None:
    code = "import threading, stepscope.diagnostics.monitor; print([t.name for t in threading.enumerate()])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "['MainThread']\n"


def test_a_monitor_that_fails_to_begin_leaves_neither_thread_nor_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("a bug")

    before = writers()
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    monkeypatch.setattr(recorder_module.Recorder, "write_layout", fail)
    with pytest.raises(KeyError, match="a bug"):
        Monitor(optimizer, tmp_path / "run")
    monkeypatch.undo()
    assert writers() == before
    Monitor(optimizer, tmp_path / "run", strict=True).close()


class Collecting(SqliteLog):
    """A log in whose commits garbage is collected, in the thread that writes."""

    def commit(self) -> None:
        if threading.current_thread().name == NAME:
            gc.collect()
        super().commit()


@pytest.mark.slow
@pytest.mark.parametrize("others", [0, 1], ids=["its own", "that of another"])
def test_a_monitor_may_be_collected_in_the_thread_that_writes(
    others: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, where = recorder_module.Recorder.finish, []

    def noted(recorder: recorder_module.Recorder, message: str, crashed: bool) -> None:
        if recorder.directory == tmp_path / "run":
            where.append(threading.current_thread())
        finish(recorder, message, crashed)

    monkeypatch.setattr(recorder_module.Recorder, "finish", noted)
    monkeypatch.setattr(recorder_module, "open_log", lambda directory: opened(directory, Collecting))
    gc.collect()
    gc.disable()
    try:
        optimizer = torch.optim.Adam([p := torch.nn.Parameter(torch.ones(3))])
        log = Monitor(optimizer, tmp_path / "run", strict=True)._recorder.log
        assert isinstance(log, Writer)
        other = Writer(opened(tmp_path / "other", Collecting)) if others else log
        for _ in range(37):
            p.grad = torch.ones(3)
            optimizer.step()
        del optimizer
        thread, collecting = started(log), started(other)
        other.commit()
        thread.join(WAIT)
    finally:
        gc.enable()
    assert where == [collecting]
    assert not thread.is_alive()
    trace = Trace.load(tmp_path / "run")
    assert trace.steps[-1] == 37
    assert trace.events[-1].kind == "closed"
    other.close()


def opened(directory: Path, kind: Callable[[Path], SqliteLog]) -> SqliteLog:
    directory.mkdir(exist_ok=True)
    return kind(directory / SQLITE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_waits_for_a_write_to_end_and_not_for_a_disk_that_hangs(
    gated: Gated, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has the rows in memory, and neither thread nor file: it closes at once and writes nothing."""
    monkeypatch.setattr(writer_module, "BEFORE_FORK", 0.1)
    writer = Writer(gated)
    writer.append(record(1))
    writer.commit()
    assert gated.entered.wait(WAIT)
    writer.append(record(2))
    child = os.fork()
    if child == 0:
        try:
            writer.append(record(3))
            writer.commit()
            writer.close()
        finally:
            os._exit(len(writer._items))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    gated.gate.set()
    writer.close()
    assert steps(read_rows(path)) == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_no_write_is_under_way_while_a_process_forks(path: Path) -> None:
    log = SqliteLog(path)
    writer, seen = Writer(log), []
    writer_module._pause_all()
    writer.append(record(1))
    writer.commit()
    seen.append(steps(read_rows(path)))
    writer_module._resume_all()
    assert writer.settle()
    assert [*seen, steps(read_rows(path))] == [[], [1]]
    writer.close()
