"""Disks that fill up, refuse, vanish, hang or are slow, and processes that end: the training never knows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from shared import Failing, unprivileged
from stepscope import Monitor, Trace
from stepscope.diagnostics import recorder as recorder_module
from stepscope.diagnostics import writer as writer_module
from stepscope.diagnostics.log import JsonLinesLog, Log, SqliteLog
from stepscope.diagnostics.reading import LINES, SQLITE
from stepscope.diagnostics.writer import Writer

ROOT = Path(__file__).parents[2]
STEPS = 300
WAIT = 240.0
"""Seconds after which a test gives up; none waits that long."""
FILES: dict[str, Callable[[Path], Log]] = {SQLITE: SqliteLog, LINES: JsonLinesLog}
BACKENDS = pytest.mark.parametrize("name", FILES)
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
FORK_WARNING = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for a write at each record."""
    monkeypatch.setattr(recorder_module, "COMMIT_SECONDS", 0.0)


class Run:
    """A small network in training, the same one each time."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.params = [torch.nn.Parameter(torch.randn(5, 5, generator=self.generator)) for _ in range(4)]
        self.optimizer = torch.optim.Adam(self.params, lr=0.01)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            x = torch.randn(5, generator=self.generator)
            for p in self.params:
                x = torch.tanh(p @ x)
            x.square().sum().backward()
            self.optimizer.step()

    def state(self) -> list[torch.Tensor]:
        """Return all numbers of the training."""
        moments = [self.optimizer.state[p][key] for p in self.params for key in ("step", "exp_avg", "exp_avg_sq")]
        return [p.detach() for p in self.params] + moments


@pytest.fixture(scope="module")
def unwatched() -> list[torch.Tensor]:
    run = Run()
    run.train(STEPS)
    return run.state()


@pytest.fixture(scope="module")
def whole() -> Trace:
    """What a monitor records that nothing happens to."""
    run = Run()
    with Monitor(run.optimizer, strict=True) as monitor:
        run.train(STEPS)
    return monitor.trace


def written(monitor: Monitor) -> None:
    """Wait until what the monitor recorded by now is on disk, or could not be written."""
    log = monitor._recorder.log
    assert isinstance(log, Writer)
    assert log.settle()


def assert_same(run: Run, unwatched: list[torch.Tensor]) -> None:
    """The training is what it is without a monitor, to the last bit."""
    assert all(map(torch.equal, run.state(), unwatched))


def assert_begins(trace: Trace, whole: Trace) -> None:
    """The trace is the beginning of the whole one; its last record may have been taken in the midst."""
    steps = [step for step in trace.steps.tolist() if step in whole.steps]
    assert len(steps) >= len(trace.steps) - 1
    assert steps == whole.steps[: len(steps)].tolist()
    np.testing.assert_array_equal(trace.values[: len(steps)], whole.values[: len(steps)])


# --- a full disk ---------------------------------------------------------------------------------------------

FULL = """
import json, logging, resource, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_disk as t
from stepscope import Monitor, Trace

place, way, sizes = Path(sys.argv[2]), sys.argv[3], map(int, sys.argv[4:])
t.recorder_module.COMMIT_SECONDS = 0.0
t.torch.set_num_threads(1)
told = []
logger = logging.getLogger("stepscope")
logger.propagate = False
handler = logging.Handler()
handler.emit = lambda record: told.append(record.getMessage())
logger.addHandler(handler)
plain, free = t.Run(), t.Run()
plain.train(t.STEPS)
with Monitor(free.optimizer, strict=True) as monitor:
    free.train(t.STEPS)
whole, soft, hard = monitor.trace, *resource.getrlimit(resource.RLIMIT_FSIZE)
for size in sizes:
    told.clear()
    folder = place / str(size)
    folder.mkdir()
    if way == "mount":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    run, seen = t.Run(), 0
    monitor = Monitor(run.optimizer, folder / "run")
    in_memory = not isinstance(monitor._recorder.log, t.Writer)
    for _ in range(10):
        run.train(t.STEPS // 10)
        if not monitor.closed and not in_memory:
            t.written(monitor)
            seen = max([seen, *Trace.load(folder / "run").steps.tolist()])
    monitor.close()
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    t.assert_same(run, plain.state())
    t.assert_begins(monitor.trace, whole)
    loaded = [] if in_memory else Trace.load(folder / "run").steps.tolist()
    if loaded:
        t.assert_begins(Trace.load(folder / "run"), whole)
    line = {"told": told, "memory": in_memory, "seen": seen, "loaded": loaded, "end": int(monitor.trace.steps[-1])}
    print(json.dumps(line), flush=True)
"""


def mounts() -> bool:
    """Return whether a process of ours may mount a file system of its own."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "small", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        pytest.param("mount", marks=pytest.mark.skipif(not mounts(), reason="may not mount a small file system")),
        "limit",
    ],
)
def test_a_disk_that_is_full_at_a_random_moment(way: str, tmp_path: Path) -> None:
    """Real ones: small file systems, or a limit on the size of each file, from nothing to more than the run takes."""
    rng = np.random.default_rng(3)
    sizes = [4096, *np.sort(rng.integers(10_000, 300_000, 8)).tolist(), 3_000_000]
    command = [sys.executable, "-W", "error", "-c", FULL, str(Path(__file__).parent), str(tmp_path), way]
    namespace = ["unshare", "-rm"] if way == "mount" else []
    done = subprocess.run(
        [*namespace, *command, *map(str, sizes)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(sizes)
    for one in found[:-1]:
        (message,) = one["told"]
        if one["memory"]:
            assert "records this run in memory only: OSError" in message
            assert one["end"] == STEPS
        else:
            assert "stepscope stops watching after step" in message
            assert one["seen"] <= max(one["loaded"], default=0) <= one["end"] < STEPS
    assert found[-1]["told"] == []
    assert found[-1]["loaded"][-1] == STEPS
    assert found[0]["memory"]
    assert sum(len(one["loaded"]) > 3 for one in found) > 3


# --- a disk that refuses -------------------------------------------------------------------------------------


@contextmanager
def read_only(*directories: Path) -> Iterator[None]:
    """Act as a user who may read these directories and not write there."""
    for directory in directories:
        directory.chmod(0o555)
    try:
        with unprivileged():
            yield
    finally:
        for directory in directories:
            directory.chmod(0o755)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory below which everybody may look; that of pytest is its owner's only."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("reopened", [False, True], ids=["new", "reopened"])
def test_a_directory_that_may_not_be_written(
    reopened: bool, folder: Path, unwatched: list[torch.Tensor], whole: Trace, caplog: pytest.LogCaptureFixture
) -> None:
    places = [folder]
    if reopened:
        other = Run()
        with Monitor(other.optimizer, folder / "run", strict=True):
            other.train(40)
        places.append(folder / "run")
    before = sorted(folder.rglob("*"))
    run = Run()
    with read_only(*places):
        with pytest.raises(PermissionError):
            Monitor(run.optimizer, folder / "run", strict=True)
        assert not caplog.messages
        monitor = Monitor(run.optimizer, folder / "run")
        run.train(STEPS)
        monitor.close()
    (message,) = caplog.messages
    assert "records this run in memory only: PermissionError" in message
    assert_same(run, unwatched)
    np.testing.assert_array_equal(monitor.trace.values, whole.values)
    assert sorted(folder.rglob("*")) == before
    assert not reopened or Trace.load(folder / "run").steps[-1] == 40


@BACKENDS
@pytest.mark.parametrize("moved", [False, True], ids=["deleted", "moved"])
def test_a_directory_that_goes_while_it_is_written(
    moved: bool,
    name: str,
    tmp_path: Path,
    unwatched: list[torch.Tensor],
    whole: Trace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was recorded by then can be had from the monitor, and saved elsewhere; no half of a run takes its place."""
    monkeypatch.setattr(recorder_module, "open_log", opener(FILES[name], name))
    run, place = Run(), tmp_path / "run"
    monitor = Monitor(run.optimizer, place)
    run.train(100)
    written(monitor)
    place.rename(tmp_path / "elsewhere") if moved else shutil.rmtree(place)
    run.train(60)
    written(monitor)
    run.train(STEPS - 160)
    monitor.close()
    (message,) = caplog.messages
    assert "stops watching after step" in message
    assert "the record was deleted or moved while it was written" in message
    assert_same(run, unwatched)
    assert not place.exists()
    assert_begins(monitor.trace, whole)
    assert 100 < monitor.trace.steps[-1] < STEPS
    monitor.trace.save(tmp_path / "saved")
    np.testing.assert_array_equal(Trace.load(tmp_path / "saved").values, monitor.trace.values)
    if moved:
        assert_begins(Trace.load(tmp_path / "elsewhere"), whole)
        assert Trace.load(tmp_path / "elsewhere").steps[-1] > 80


def opener(make: Callable[[Path], Log], name: str = SQLITE) -> Callable[[Path], Log]:
    def open_log(directory: Path) -> Log:
        directory.mkdir(exist_ok=True)
        return make(directory / name)

    return open_log


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), SystemExit(1), MemoryError()], ids=repr)
def test_whatever_goes_wrong_in_the_thread_is_told_once(
    fault: BaseException,
    tmp_path: Path,
    unwatched: list[torch.Tensor],
    whole: Trace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(recorder_module, "open_log", opener(Failing))
    run = Run()
    monitor = Monitor(run.optimizer, tmp_path / "run")
    run.train(100)
    written(monitor)
    monkeypatch.setattr(Failing, "fault", fault)
    run.train(50)
    written(monitor)
    run.train(STEPS - 150)
    monitor.close()
    (message,) = caplog.messages
    assert "stops watching after step" in message
    assert type(fault).__name__ in message
    assert_same(run, unwatched)
    for trace in (Trace.load(tmp_path / "run"), monitor.trace):
        assert_begins(trace, whole)
    assert 64 < Trace.load(tmp_path / "run").steps[-1] <= 100 < monitor.trace.steps[-1] < STEPS
    assert [event.kind for event in monitor.trace.events] == ["fault", "closed"]


def test_a_disk_that_recovers_by_the_end_has_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder_module, "open_log", opener(Failing))
    run = Run()
    with Monitor(run.optimizer, tmp_path / "run", strict=True) as monitor:
        monkeypatch.setattr(Failing, "fault", OSError(28, "No space left on device"))
        run.train(1)
        written(monitor)
        assert Trace.load(tmp_path / "run").steps.tolist() == []
        monkeypatch.setattr(Failing, "fault", None)
    assert Trace.load(tmp_path / "run").steps.tolist() == [1]
    assert not caplog.messages


def test_strict_raises_in_the_loop_what_went_wrong_in_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "open_log", opener(Failing))
    run = Run()
    monitor = Monitor(run.optimizer, tmp_path / "run", strict=True)
    run.train(100)
    monkeypatch.setattr(Failing, "fault", OSError(5, "Input/output error"))
    monitor._recorder.note("a row", "to be written")
    written(monitor)
    with pytest.raises(OSError, match="Input/output error"):
        run.train(STEPS - 100)
    with pytest.raises(OSError, match="Input/output error"):
        monitor.close()


# --- a disk that hangs or is slow ----------------------------------------------------------------------------


class Gated(SqliteLog):
    """A log on a disk that hangs from the first write after `hangs` is set until `gate` is."""

    hangs, gate, entered = threading.Event(), threading.Event(), threading.Event()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self.hangs.is_set():
            self.entered.set()
            assert self.gate.wait(WAIT)
        with super()._transaction() as connection:
            yield connection


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Gated]]:
    for event in (Gated.hangs, Gated.gate, Gated.entered):
        event.clear()
    monkeypatch.setattr(recorder_module, "open_log", opener(Gated))
    yield Gated
    Gated.gate.set()


def test_steps_go_on_while_a_write_does_not_end(
    gated: type[Gated], tmp_path: Path, unwatched: list[torch.Tensor], whole: Trace
) -> None:
    """All steps are made within one write, and nothing of them is lost."""
    gated.hangs.set()
    run = Run()
    with Monitor(run.optimizer, tmp_path / "run", strict=True) as monitor:
        run.train(STEPS)
        assert gated.entered.wait(WAIT)
        assert Trace.load(tmp_path / "run").steps.tolist() == []
        gated.gate.set()
        np.testing.assert_array_equal(monitor.trace.values, whole.values)
    assert_same(run, unwatched)
    np.testing.assert_array_equal(Trace.load(tmp_path / "run").values, whole.values)


def test_a_monitor_that_stands_aside_waits_for_no_disk(
    gated: type[Gated],
    tmp_path: Path,
    unwatched: list[torch.Tensor],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that fails, and then hangs as the last is to be written: the training ends within that write."""
    run = Run()
    monitor = Monitor(run.optimizer, tmp_path / "run")
    run.train(100)
    written(monitor)
    with monkeypatch.context() as patch:
        patch.setattr(Gated, "_insert", lambda *_: 1 / 0)
        monitor._recorder.note("a row", "to be written")
        monitor._recorder.commit()
        written(monitor)
    gated.hangs.set()
    run.train(STEPS - 100)
    assert gated.entered.wait(WAIT)
    assert monitor.closed
    assert_same(run, unwatched)
    gated.gate.set()
    monitor.close()
    (message,) = caplog.messages
    assert "ZeroDivisionError" in message
    assert Trace.load(tmp_path / "run").events[-1].kind == "closed"


@pytest.mark.parametrize("told", [False, True], ids=["told at the end", "told before"])
def test_a_disk_that_hangs_as_the_run_is_closed_is_told_of_once_and_not_waited_for(
    told: bool,
    gated: type[Gated],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    whole: Trace,
) -> None:
    run = Run()
    monitor = Monitor(run.optimizer, tmp_path / "run")
    run.train(100)
    gated.hangs.set()
    run.train(STEPS - 100)
    monkeypatch.setattr(writer_module, "PATIENCE", 0.2)
    while told and not caplog.messages:
        monitor._recorder.log.commit()
    monitor.close()
    (message,) = caplog.messages  # at the end it may be either, for closing hands over as well
    assert "the disk has not answered for 0.2 seconds" in message
    assert "is written when it does, if the process still runs" in message
    with pytest.raises(ValueError, match="being recorded by another monitor"):  # its thread may still write there
        Monitor(run.optimizer, tmp_path / "run")
    log = monitor._recorder.log
    assert isinstance(log, Writer)
    gated.gate.set()
    log._thread.join(WAIT)
    np.testing.assert_array_equal(Trace.load(tmp_path / "run").values, whole.values)
    Monitor(run.optimizer, tmp_path / "run").close()


ENDS = """
import sys, time
sys.path.insert(0, sys.argv[1])
import test_disk as t
from stepscope import Monitor

class Slow(t.SqliteLog):
    def commit(self):
        time.sleep(0.5)
        super().commit()

t.recorder_module.open_log = t.opener(Slow)
runs = [t.Run(), t.Run()]
monitors = [Monitor(run.optimizer, f"{sys.argv[2]}/{i}") for i, run in enumerate(runs)]
for run in runs:
    run.train(t.STEPS)
if sys.argv[3] == "interrupted":
    raise KeyboardInterrupt
if sys.argv[3] == "hung":
    t.writer_module.PATIENCE = 0.1
    Slow.commit = lambda self: time.sleep(1000)
"""


def end(how: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Let a process train two networks on a slow disk, and end without closing their monitors."""
    command = [sys.executable, "-c", ENDS, str(Path(__file__).parent), str(tmp_path), how]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=WAIT)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["by itself", "interrupted"])
def test_a_process_that_ends_waits_for_a_slow_disk(how: str, tmp_path: Path, whole: Trace) -> None:
    done = end(how, tmp_path)
    assert ("KeyboardInterrupt" in done.stderr) == (how == "interrupted")
    assert "stepscope" not in done.stderr
    for name in "01":
        np.testing.assert_array_equal(Trace.load(tmp_path / name).values, whole.values)


@pytest.mark.slow
def test_a_process_ends_though_the_disk_hangs(tmp_path: Path) -> None:
    done = end("hung", tmp_path)
    assert done.returncode == 0
    assert done.stderr.count("could not write the end of its record: TimeoutError") == 2


# --- other processes -----------------------------------------------------------------------------------------

ENDLESS = """
import sys
sys.path.insert(0, sys.argv[1])
import test_disk as t
from stepscope import Monitor
run = t.Run()
Monitor(run.optimizer, sys.argv[2], strict=True)
while True:
    run.train(1)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_what_it_had_recorded_a_moment_ago(tmp_path: Path) -> None:
    """Records come to disk by themselves while it trains; of what a reader has seen once nothing goes."""
    place = tmp_path / "run"
    command = [sys.executable, "-c", ENDLESS, str(Path(__file__).parent), str(place)]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    )
    try:
        seen, deadline = 0, time.monotonic() + WAIT
        while seen < 500:
            assert time.monotonic() < deadline
            assert process.poll() is None
            seen = max([seen, *Trace.load(place).steps.tolist()]) if (place / "meta.json").exists() else 0
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    trace = Trace.load(place)
    assert trace.steps[-1] >= seen
    assert (np.diff(trace.total("a")) > 0).all()
    assert trace.diagnose().verdict


@FORKS
@FORK_WARNING
def test_a_forked_process_neither_writes_nor_waits_nor_keeps_the_directory(
    gated: type[Gated], tmp_path: Path, unwatched: list[torch.Tensor], whole: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is forked in the midst of a write, trains on with what it inherited, and lives on as the run is reopened."""
    monkeypatch.setattr(writer_module, "BEFORE_FORK", 0.05)
    run, place = Run(), tmp_path / "run"
    monitor = Monitor(run.optimizer, place, strict=True)
    run.train(100)
    gated.hangs.set()
    run.train(100)
    assert gated.entered.wait(WAIT)
    lived, ended = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ended)
            run.train(10)
            monitor.close()
            os.read(lived, 1)  # until the parent lets go
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(lived)
    gated.gate.set()
    run.train(100)
    monitor.close()
    assert_same(run, unwatched)
    np.testing.assert_array_equal(Trace.load(place).values, whole.values)
    Monitor(run.optimizer, place, strict=True).close()
    os.close(ended)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@FORKS
@FORK_WARNING
def test_data_loaders_that_fork_train_as_without_a_monitor(tmp_path: Path) -> None:
    def train(directory: Path | None) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.Adam(model.parameters())
        data = torch.utils.data.TensorDataset(torch.randn(64, 4, generator=torch.Generator().manual_seed(1)))
        loader = torch.utils.data.DataLoader(data, batch_size=8, num_workers=2, multiprocessing_context="fork")
        monitor = Monitor(optimizer, directory, model=model, strict=True)
        for _ in range(3):
            for (x,) in loader:
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
        monitor.close()
        return [p.detach() for p in model.parameters()]

    assert all(map(torch.equal, train(tmp_path / "run"), train(None)))
    trace = Trace.load(tmp_path / "run")
    assert trace.steps[-1] == trace.total("steps")[-1] / 2 == 24
    assert [event.kind for event in trace.events] == ["closed"]
