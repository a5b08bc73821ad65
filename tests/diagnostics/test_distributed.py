"""Runs of several processes: real ones over gloo, and what each makes out of its place without communicating."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed
from torch.overrides import TorchFunctionMode

from stepscope import Monitor, Trace
from stepscope.diagnostics.pieces import Piece, chunk, is_first
from stepscope.diagnostics.sampling import Coordinates
from stepscope.diagnostics.trace import ERRORS, SUMS
from stepscope.reports.cli import runs_below

WORKER = Path(__file__).with_name("ranks.py")
SECONDS = 240
"""After which a test is a failure, not a machine that is slow."""
GRAMS = ("gram_dd", "gram_dg", "gram_gg", "gram_qg")
RECORDS = ("all", "sample")


def run(folder, world, *cases):
    """Let so many processes play cases; a world of 0 is one process without a group."""
    call = [sys.executable, "-W", "error::RuntimeWarning", WORKER, folder / f"store-{world}-{cases[0]}"]
    logs = [folder / f"log-{rank}" for rank in range(max(1, world))]
    processes = []
    try:
        for rank, log in enumerate(logs):
            with log.open("w") as out:
                whole = [*call, str(rank), str(world), folder, *cases]
                processes.append(subprocess.Popen(whole, stdout=out, stderr=subprocess.STDOUT))
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            if any(process.returncode for process in processes):
                break
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, log in zip(processes, logs, strict=True):
        assert process.returncode in (0, -9), log.read_text()
    assert not any(process.returncode for process in processes), "some processes had to be stopped"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    run(folder, 0, "alone")
    return {name: Trace.load(folder / "alone" / name) for name in RECORDS}


def assert_same_run(trace, expected, *, but=()):
    """Every sum, error and product is that of the run of one process."""
    assert [tensor.name for tensor in trace.tensors] == [tensor.name for tensor in expected.tensors]
    chosen = [place for place, tensor in enumerate(expected.tensors) if tensor.name not in but]
    assert [trace.tensors[p] for p in chosen] == [expected.tensors[p] for p in chosen]
    np.testing.assert_array_equal(trace.steps, expected.steps)
    for name in (*SUMS, *ERRORS, "e_min", "e_max", "weight_rms", "update_rms"):
        here, there = trace.column(name)[:, chosen], expected.column(name)[:, chosen]
        np.testing.assert_allclose(here, there, rtol=1e-6, err_msg=name)
    for name in GRAMS:
        here, there = getattr(trace.drift, name), getattr(expected.drift, name)
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-12 * np.abs(there).max(), err_msg=name)
    np.testing.assert_allclose(trace.efficiency.rho, expected.efficiency.rho, rtol=1e-9)
    np.testing.assert_allclose(trace.what_if.grams, expected.what_if.grams, rtol=1e-6, atol=1e-12)
    if not but:
        np.testing.assert_allclose(trace.what_if.sums, expected.what_if.sums, rtol=1e-6)
    assert trace.diagnose().verdict == expected.diagnose().verdict
    assert not [event for event in trace.events if event.kind != "closed" and event.kind != "resumed"]


def assert_same(folder, cases, alone, but=()):
    for case in cases:
        for name in RECORDS:
            assert_same_run(Trace.load(folder / case / name), alone[name], but=but)


@pytest.mark.slow
def test_two_processes_record_what_one_does(tmp_path, alone):
    run(tmp_path, 2, "fsdp2")
    assert_same(tmp_path, ("fsdp2",), alone)
    assert sorted(path.name for path in (tmp_path / "fsdp2" / "all").iterdir()) == ["rank-0", "rank-1"]
    assert len(list(runs_below(tmp_path))) == len(RECORDS)


@pytest.mark.slow
def test_two_processes_of_the_other_kinds_record_what_one_does(tmp_path, alone):
    cases = ("ddp", "zero", "tensor_parallel", "zero+resumed", "fsdp2+resumed")
    run(tmp_path, 2, *cases, "fsdp1")
    assert_same(tmp_path, cases, alone)
    assert sorted(path.name for path in (tmp_path / "ddp" / "all").iterdir()) == ["lock", "meta.json", "trace.sqlite"]
    assert_same(tmp_path, ("fsdp1",), alone, but=("spare",))  # FullyShardedDataParallel makes it a gradient of zeros


@pytest.mark.slow
def test_four_processes_record_what_one_does(tmp_path, alone):
    """Some of them hold nothing of a tensor, or none that steps; two copies of a shard count once."""
    cases = ("ddp", "zero", "fsdp2", "hybrid", "both")
    run(tmp_path, 4, *cases, "fsdp1")
    assert_same(tmp_path, cases, alone)
    assert_same(tmp_path, ("fsdp1",), alone, but=("spare",))
    assert sorted(path.name for path in (tmp_path / "hybrid" / "all").iterdir()) == ["rank-0", "rank-1"]


@pytest.mark.slow
def test_when_a_process_dies_the_others_end_and_all_go_on_after_the_same_step(tmp_path):
    run(tmp_path, 2, "fsdp2+dying")
    folder = tmp_path / "fsdp2+dying" / "all"
    ends = [int(Trace.load(folder / f"rank-{rank}").steps[-1]) for rank in (0, 1)]
    joined = Trace.load(folder)
    assert ends[0] == 70 > ends[1] == joined.steps[-1]
    run(tmp_path, 2, "fsdp2+again")
    parts = [Trace.load(folder / f"rank-{rank}") for rank in (0, 1)]
    assert [int(part.steps[-1]) for part in parts] == [ends[1] + 100] * 2
    assert (np.diff(Trace.load(folder).total("a")) >= 0).all()


# --- in one process ----------------------------------------------------------------------------------------------


@pytest.fixture
def group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def sharded(placement):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    return torch.nn.Parameter(distribute_tensor(torch.ones(4, 3), init_device_mesh("cpu", (1,)), [placement]))


def test_a_gradient_that_is_not_summed_up_over_the_ranks_is_not_read(group):
    from torch.distributed.tensor import DTensor, Partial, Replicate

    param = sharded(Replicate())
    optimizer = torch.optim.SGD([param], lr=0.1)
    with Monitor(optimizer, strict=True) as monitor:
        for _ in range(3):
            param.grad = DTensor.from_local(torch.ones(4, 3), param.device_mesh, [Partial()])
            optimizer.step()
    assert monitor.trace.tensors[0].formula is None
    assert ["not laid out" in event.message for event in monitor.trace.events] == [True, False]  # and it was closed


class Asked(TorchFunctionMode):
    """Notes what is computed from a DTensor; to look at its attributes is free."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        from torch.distributed.tensor import DTensor

        free = ("__get__", "__set__", "detach", "numel", "is_complex", "dim", "size", "is_floating_point", "__hash__")
        if any(isinstance(x, DTensor) for x in args) and func.__name__ not in free:
            self.calls.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.NAdam, torch.optim.SGD, torch.optim.RMSprop])
def test_the_monitor_asks_nothing_of_a_dtensor_that_could_communicate(group, kind, monkeypatch):
    """Whatever a reader wants to know of a tensor, it sees only what lies here."""
    from torch.distributed.tensor import Shard, distribute_tensor

    asked = Asked()

    def within(hook):
        def inside(monitor):
            with asked:
                hook(monitor)

        return inside

    monkeypatch.setattr(Monitor, "_before_step", within(Monitor._before_step))
    monkeypatch.setattr(Monitor, "_after_step", within(Monitor._after_step))
    param = sharded(Shard(0))
    optimizer = kind([param], lr=0.1)
    with Monitor(optimizer, strict=True, coordinates=5) as monitor:
        for sign in (1, -2, 3):
            param.grad = distribute_tensor(sign * torch.arange(12.0).reshape(4, 3), param.device_mesh, [Shard(0)])
            optimizer.step()
        assert monitor.step == 3
        assert monitor.trace.total("a")[-1] > 0
    assert not asked.calls


def test_a_record_is_not_continued_by_another_number_of_processes(group, tmp_path, monkeypatch):
    from torch.distributed.tensor import Shard

    param = sharded(Shard(0))
    optimizer = torch.optim.Adam([param])
    with Monitor(optimizer, tmp_path) as monitor:
        param.grad = torch.ones_like(param)
        optimizer.step()
        state = monitor.state_dict()
    with pytest.raises(ValueError, match="several processes, expected one of this alone"):
        Monitor(torch.optim.Adam([torch.nn.Parameter(torch.ones(3))]), tmp_path)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="recorded by rank 0 of 1, got rank 0 of 2"):
        Monitor(optimizer, tmp_path)
    with Monitor(optimizer) as other, pytest.raises(ValueError, match="made by rank 0 of 2, got that of rank 0 of 1"):
        other.load_state_dict(state)
    assert Trace.load(tmp_path).meta["parts"] == [0]


def test_pieces_that_are_not_on_record_are_told_of(group, tmp_path):
    from torch.distributed.tensor import Shard

    param = sharded(Shard(0))
    optimizer = torch.optim.Adam([param])
    with Monitor(optimizer, tmp_path) as monitor:
        monitor._recorder.watchers[0].coordinates.whole = 24
        monitor._recorder.write_layout()
    (event,) = [event for event in Trace.load(tmp_path).events if event.kind == "part missing"]
    assert "some ranks' pieces of group0.param0 are not on record" in event.message


@pytest.mark.parametrize("limit", [None, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_the_pieces_of_a_tensor_watch_what_the_whole_does(limit, dtype):
    """Each box of a tensor takes those of the sample that lie in it, in their order, and so do the harm test's."""
    whole = torch.arange(30.0).to(dtype).reshape(5, 6)
    expected = Coordinates(whole, limit, 3, "w")
    taken, leads = [], []
    for begin, length in (((0, 0), (2, 6)), ((2, 0), (3, 4)), ((2, 4), (3, 2))):
        box = whole[begin[0] : begin[0] + length[0], begin[1] : begin[1] + length[1]].contiguous()
        own = Coordinates(box, limit, 3, "w", Piece((5, 6), (5, 6), begin, length))
        assert (own.scale, own.lead_scale, own.member_scale) == (
            expected.scale,
            expected.lead_scale,
            expected.member_scale,
        )
        taken += own.take(box).tolist()
        leads += own.take_lead(box).tolist()
    assert sorted(taken) == sorted(expected.take(whole).tolist())
    assert sorted(leads) == sorted(expected.take_lead(whole).tolist())


@pytest.mark.parametrize("length", [0, 1, 5, 8])
def test_a_range_is_cut_as_torch_does(length):
    pieces = [range(*(begin, begin + size)) for begin, size in (chunk(0, length, 4, which) for which in range(4))]
    cut = torch.arange(length).chunk(4) if length else ()
    assert [list(piece) for piece in pieces if len(piece)] == [piece.tolist() for piece in cut]


def test_of_the_columns_of_a_mesh_one_records_what_all_have():
    mesh = np.arange(4).reshape(2, 2)
    assert [is_first(rank, mesh[:, rank % 2], mesh) for rank in range(4)] == [True, False, True, False]
    assert all(is_first(rank, mesh, mesh) for rank in range(4))
    assert is_first(7, np.array([7]), mesh)
