"""The callbacks in trainings of two processes: of a sharded optimizer each records its part, of copies the first."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shared import finish
from stepscope import Trace

WORKER = Path(__file__).with_name("ranks.py")
SECONDS = 240
"""After which a test is a failure, not a machine that is slow."""


def run(case, folder):
    """Let two processes train as `torchrun` starts them, and return the last line that each says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    place |= {"LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1"}
    folder.mkdir()
    place |= {"PYTHONPATH": os.pathsep.join(sys.path)}  # it imports what the tests share
    logs, processes = [folder / f"log-{rank}" for rank in (0, 1)], []
    for rank, log in enumerate(logs):
        call, own = [sys.executable, WORKER, case, folder], {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        with log.open("w") as out:
            processes.append(subprocess.Popen(call, stdout=out, stderr=subprocess.STDOUT, env=os.environ | place | own))
    finish(processes, logs, SECONDS)
    return [next(line for line in log.read_text().splitlines() if line.startswith("steps:")) for log in logs]


def assert_same_sums(here, there):
    """The gradients are averaged over the processes in float32, in either way in its own order."""
    np.testing.assert_array_equal(here.steps, there.steps)
    assert {tensor.name for tensor in here.tensors} == {tensor.name for tensor in there.tensors}
    for name in ("a", "b", "c", "g2"):
        np.testing.assert_allclose(here.total(name), there.total(name), rtol=1e-4, err_msg=name)


RESUMED = {"lightning": ["steps: 12 24", "steps: 12 12"], "transformers": ["steps: 12 12"] * 2}
"""How far a training and its continuation got on record, for copies and sharded.

Lightning goes on for another epoch; it keeps the state of one process, so that a sharded record begins anew. The other
goes on from the middle.
"""


@pytest.mark.slow
@pytest.mark.parametrize("package", RESUMED)
def test_each_rank_of_a_sharded_training_records_its_part_and_of_copies_the_first(tmp_path, package):
    copies, parts = tmp_path / "copies", tmp_path / "parts"
    assert run(f"{package}-copies", copies) == [RESUMED[package][0], "steps:"]
    assert run(f"{package}-sharded", parts) == [RESUMED[package][1]] * 2
    assert (copies / "run" / "meta.json").exists()
    assert sorted(path.name for path in (parts / "run").iterdir()) == ["rank-0", "rank-1"]
    assert_same_sums(Trace.load(parts / "run"), Trace.load(copies / "run"))
    log = (parts / "log-0").read_text()
    assert ("does not continue its sums exactly at step 12" in log) is (package == "lightning")
    if package == "transformers":
        assert Trace.load(parts / "again").total("a")[-1] == Trace.load(parts / "run").total("a")[-1]
