"""Real processes: a training run that is killed, read while it writes, and run for a million steps."""

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stepscope import Trace
from stepscope.diagnostics.facts import describe
from stepscope.diagnostics.recorder import Recorder
from stepscope.diagnostics.sampling import Coordinates
from stepscope.diagnostics.schedule import FIRST_INTERVAL
from stepscope.diagnostics.stepsizes import READERS
from stepscope.diagnostics.watcher import Watcher

ROOT = Path(__file__).parents[2]
KILLS = 20

TRAINING = """
import sys, torch
from stepscope import Monitor
from stepscope.reports.demo import digits_batches, digits_network
torch.set_num_threads(1)
model = digits_network()
optimizer = torch.optim.Adam(model.parameters())
monitor = Monitor(optimizer, sys.argv[1], model=model, strict=True)
for x, y in digits_batches(64, 0):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    monitor.log(loss=loss)
    if monitor.step % 40 == 0:
        monitor._recorder.commit()
        monitor._recorder.log.settle()
        print(monitor.step, flush=True)
"""


def committed(process):
    """The steps that the child reported as committed, once it is dead."""
    return [int(line) for line in process.stdout.read().split()]


@pytest.mark.slow
def test_killed_twenty_times_nothing_committed_is_lost(tmp_path):
    rng = random.Random(4)
    for kill in range(KILLS):
        run = tmp_path / f"run{kill}"
        process = subprocess.Popen(
            [sys.executable, "-c", TRAINING, str(run)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        while not (run / "meta.json").exists():
            time.sleep(0.01)
        deadline = time.monotonic() + rng.uniform(0.0, 1.5)
        while time.monotonic() < deadline:
            Trace.load(run).diagnose()  # a reader meanwhile
        process.kill()
        process.wait()
        newest = max(committed(process), default=0)
        process.stdout.close()
        trace = Trace.load(run)
        expected = [t for t in range(1, newest + 1) if t % FIRST_INTERVAL == 0]
        assert set(expected) <= set(trace.steps.tolist())
        assert (np.diff(trace.total("a")) > 0).all()
        assert str(trace.diagnose())
        assert str(trace.summary())


@pytest.mark.slow
def test_a_million_steps_of_200_tensors_stay_small_and_open_fast(tmp_path):
    """Synthetic steps straight into the recorder: under 50 MB on disk, loaded and diagnosed in under 3 s."""
    params = [torch.nn.Parameter(torch.zeros(5)) for _ in range(200)]
    optimizer = torch.optim.Adam(params)
    watchers = [
        Watcher(p, f"layer{i}.weight", 0, Coordinates(p, 4, 0, str(i)), READERS[torch.optim.Adam])
        for i, p in enumerate(params)
    ]
    recorder = Recorder(tmp_path / "run", describe(optimizer, 4, 0, ()), watchers)
    noise = np.random.default_rng(0).uniform(0.5, 1.5, (64, *recorder.accumulators.last.shape))
    groups = {"lr": [1e-3], "beta1": [0.9], "beta2": [0.999], "weight_decay": [0.0]}
    for t in range(1_000_000):
        recorder.accumulators.last[:] = noise[t % 64]
        recorder.stretches.current += 1e-3
        recorder.advance()
        if recorder.due():
            recorder.add_scalar("loss", 1 / (t + 1))
            recorder.record(groups)
    recorder.finish("done", crashed=False)
    size = sum(file.stat().st_size for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert size < 50e6
    start = time.process_time()  # not wall time: another process may hold the machine
    trace = Trace.load(tmp_path / "run")
    diagnosis = trace.diagnose()
    assert time.process_time() - start < 3.0
    assert trace.steps[-1] == diagnosis.steps == 1_000_000
    assert 256 <= len(trace.steps) <= 800
    np.testing.assert_allclose(trace.column("steps")[-1], noise[:, :, -1].sum(axis=0) * 1_000_000 / 64, rtol=1e-9)
