"""Reading along, after a kill, without permission to write, after damage: every committed row, or one sentence."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from shared import unprivileged
from stepscope.diagnostics.log import JsonLinesLog, Log, SqliteLog
from stepscope.diagnostics.reading import LINES, SQLITE
from stepscope.diagnostics.store import load, write_meta

ROOT = Path(__file__).parents[2]
FILES: dict[str, Callable[[Path], Log]] = {SQLITE: SqliteLog, LINES: JsonLinesLog}
BACKENDS = pytest.mark.parametrize("name", FILES)

WRITER = """
import os, sys
from pathlib import Path
import numpy as np
from stepscope.diagnostics.log import JsonLinesLog, Row, SqliteLog
from stepscope.diagnostics.trace import COLUMNS

directory, name, segment, first, last, cycle = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
make = {"trace.sqlite": SqliteLog, "trace.jsonl": JsonLinesLog}[name]
log = make(directory / name)
weight = {"shape": [2], "numel": 2, "watched": 2, "group": 0, "formula": None}
names = [weight | {"name": f"w{i}"} for i in range(40)]
log.append(Row("tensors", segment, first, {"tensors": names}))
log.append(Row("segment", segment, first, {"from": first}))
for step in range(first, last):
    facts = {"groups": {"lr": [0.1]}, "scalars": {"loss": [float(step), float(step), 1]}}
    log.append(Row("record", segment, step, facts, np.full((40, len(COLUMNS)), float(step))))
    if step % 3 == 0:
        window = {"first_step": 0, "last_step": step}
        log.append(Row("drift", segment, step, window, np.full((3, 40, 8, 8), float(step))))
    if step % 2 == 0:
        log.commit()
        os.write(1, b"%d\\n" % step)
    if cycle and step % cycle == 0:
        log.thin(lambda step: step % 4 == 0)
        log.close()
        log = make(directory / name)
log.close()
"""


def spawn(directory: Path, name: str, *numbers: int) -> subprocess.Popen[bytes]:
    """Start a process that writes records of the steps from first to last and prints those it committed."""
    script = directory.parent / "writer.py"
    script.write_text(WRITER)
    command = [sys.executable, str(script), str(directory), name, *map(str, numbers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})


def kill_in_the_middle(writer: subprocess.Popen[bytes], delay: float) -> int:
    """Kill the writer `delay` seconds after its first commit; return the last step it had reported."""
    assert writer.stdout is not None
    reported = writer.stdout.readline()
    time.sleep(delay)
    writer.send_signal(signal.SIGKILL)
    reported += writer.stdout.read()
    writer.wait()
    writer.stdout.close()
    assert writer.returncode == -signal.SIGKILL
    return int(reported[: reported.rindex(b"\n")].split(b"\n")[-1])


@pytest.mark.parametrize(("name", "kills"), [pytest.param(SQLITE, 20, marks=pytest.mark.slow), (LINES, 6)])
def test_a_killed_writer_loses_nothing_that_was_committed(name: str, kills: int, tmp_path: Path) -> None:
    """Writers go on with one run one after the other, each is killed at a random moment."""
    rng = np.random.default_rng(7)
    run = tmp_path / "run"
    write_meta(run, {})
    first = 1
    for segment in range(kills):
        committed = kill_in_the_middle(spawn(run, name, segment, first, 10**9, 0), rng.uniform(0, 0.05))
        trace = load(run)
        last = int(trace.steps[-1])
        assert trace.steps.tolist() == list(range(1, last + 1))
        assert committed <= last <= committed + 2  # at most the commit that was not reported any more
        np.testing.assert_array_equal(trace.values[:, :, 0], trace.steps[:, None] * np.ones(40))
        np.testing.assert_array_equal(trace.scalars["loss"].last, trace.steps)
        assert trace.drift is None or (trace.drift.gram_dg == trace.drift.last_step).all()
        first = last + 1
    if name == SQLITE:
        with closing(sqlite3.connect(run / SQLITE)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@BACKENDS
def test_a_reader_never_fails_while_the_writer_writes_thins_closes_and_opens(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_meta(run, {})
    writer = spawn(run, name, 0, 1, 1000, 20)
    seen, reads = 0, 0
    while writer.poll() is None:
        trace = load(run)
        last = int(trace.steps[-1]) if len(trace.steps) else 0
        assert last >= seen
        np.testing.assert_array_equal(trace.values[:, :, 0], trace.steps[:, None] * np.ones(len(trace.tensors)))
        seen, reads = last, reads + 1
    assert writer.communicate()[0].split()[-1] == b"998"
    assert writer.returncode == 0
    assert load(run).steps[-1] == 999
    assert reads > 20


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_a_run_on_a_read_only_file_system_is_read(killed: bool) -> None:
    """Also one whose newest rows are still in the write-ahead log, with and without its shared memory."""
    directory = Path(tempfile.mkdtemp())
    try:
        run = directory / "run"
        write_meta(run, {})
        writer = spawn(run, SQLITE, 0, 1, 10**9 if killed else 100, 0)
        last = kill_in_the_middle(writer, 0.1) if killed else 99
        if not killed:
            writer.communicate()
        for path in (*run.iterdir(), run, directory):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with unprivileged():
            assert load(run).steps[-1] >= last
        (run / "trace.sqlite-shm").unlink(missing_ok=True)
        with unprivileged():
            assert load(run).steps[-1] >= last
    finally:
        directory.chmod(0o755)
        (directory / "run").chmod(0o755)
        shutil.rmtree(directory)


@BACKENDS
def test_damage_anywhere_gives_a_trace_or_one_sentence(name: str, tmp_path: Path) -> None:
    """150 times: bytes overwritten at a random place, or the file cut there."""
    rng = np.random.default_rng(1)
    write_meta(tmp_path, {})
    spawn(tmp_path, name, 0, 1, 20, 0).communicate()
    whole = (tmp_path / name).read_bytes()
    sentences = []
    for attempt in range(150):
        place = int(rng.integers(len(whole)))
        if attempt % 3 == 0:
            damaged = whole[:place]
        else:
            noise = rng.bytes(int(rng.integers(1, 40)))
            damaged = whole[:place] + noise + whole[place + len(noise) :]
        (tmp_path / name).write_bytes(damaged)
        try:
            load(tmp_path)
        except ValueError as error:
            sentences.append(str(error))
        for litter in tmp_path.glob("*.sqlite-*"):
            litter.unlink()
    assert len(sentences) > 20
    assert all(f"{name}' is not a log that this stepscope can read" in sentence for sentence in sentences)
