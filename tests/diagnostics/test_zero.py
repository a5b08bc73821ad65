"""DeepSpeed's ZeRO: real runs where it is installed, and stand-ins that call the optimizer inside just as it does."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

from shared import finish
from stepscope import Monitor, Trace
from stepscope.diagnostics.trace import SUMS

WORKER = Path(__file__).with_name("zero_ranks.py")
SECONDS = 300
"""After which a test is a failure, not a machine that is slow."""
STEPS = 40


# --- DeepSpeed itself ------------------------------------------------------------------------------------------------


def run(folder, world, *stages):
    """Let so many processes train; a world of 0 is one process without a group."""
    logs, processes = [folder / f"log-{rank}" for rank in range(max(1, world))], []
    for rank, log in enumerate(logs):
        with log.open("w") as out:
            call = [sys.executable, WORKER, folder / f"store-{world}", str(rank), str(world), folder, *stages]
            alone = os.environ | {"DS_BUILD_OPS": "0"}
            processes.append(subprocess.Popen(call, stdout=out, stderr=subprocess.STDOUT, env=alone))
    finish(processes, logs, SECONDS)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is no dependency of the tests")
@pytest.mark.parametrize("world", [1, 2])
def test_each_stage_of_deepspeed_records_what_one_process_without_it_does(tmp_path, world):
    stages = ("0", "1", "2", "3", "small")
    run(tmp_path, 0, "plain")
    run(tmp_path, world, *stages)
    expected = Trace.load(tmp_path / "plain")
    for stage in stages:
        trace = Trace.load(tmp_path / stage)
        np.testing.assert_array_equal(trace.steps, expected.steps)
        for name in SUMS:
            if name not in ("steps", "rms2"):  # of a tensor, not of its coordinates
                # Gradients are summed up in float32, in another order.
                np.testing.assert_allclose(
                    trace.total(name), expected.total(name), rtol=1e-4, err_msg=f"{stage} {name}"
                )
        assert trace.meta["optimizer"] == "torch.optim.adamw.AdamW"
        assert all(tensor.formula for tensor in trace.tensors)
        assert [event.kind for event in trace.events] == ["closed"]
    assert len(Trace.load(tmp_path / "small").tensors) == 5
    ranks = sorted(path.name for path in (tmp_path / "3").iterdir())
    assert ranks == [f"rank-{rank}" for rank in range(world)]


# --- as it calls the optimizer ---------------------------------------------------------------------------------------


@pytest.fixture
def group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


GRADIENTS = torch.randn(STEPS, 12, generator=torch.Generator().manual_seed(1))


class Whole:
    """An optimizer of flat tensors in two groups, and no ZeRO."""

    def __init__(self, *sizes):
        torch.manual_seed(0)
        first, second = (torch.randn(sum(group)).split(group) for group in sizes)
        self.flats = [torch.nn.Parameter(flat) for flat in (*first, *second)]
        groups = [{"params": self.flats[: len(first)]}, {"params": self.flats[len(first) :], "weight_decay": 0.1}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.01)

    def step(self, gradients):
        for flat, gradient in zip(self.flats, gradients, strict=True):
            flat.grad = gradient
        self.optimizer.step()

    def train(self):
        """Return what the parameters are in the end; the rate falls, as by a scheduler, which has the same groups."""
        for t, gradient in enumerate(GRADIENTS):
            self.optimizer.param_groups[1]["lr"] = 0.02 / (1 + t)
            self.step(gradient.split([len(flat) for flat in self.flats]))
        return torch.cat([flat.detach() for flat in self.flats])


class Stage2(Whole):
    """Stages 1 and 2: the optimizer steps on one partition after the other, whose group is then its only one."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.single_partition_of_fp32_groups, self.real_dp_process_group = self.flats, [None, None]

    def step(self, gradients):
        for i, (flat, gradient) in enumerate(zip(self.flats, gradients, strict=True)):
            flat.grad, groups = gradient, self.optimizer.param_groups
            self.optimizer.param_groups = [groups[i]]
            self.optimizer.step()
            self.optimizer.param_groups, flat.grad = groups, None


class Stage3(Whole):
    """Stage 3: between steps no partition is in its group; the second group has two."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.fp32_partitioned_groups_flat, self.dp_process_group = self.flats, None
        self.sub_group_to_group_id = {0: 0, 1: 1, 2: 1}
        for group in self.optimizer.param_groups:
            group["params"] = []

    def step(self, gradients):
        for i, (flat, gradient) in enumerate(zip(self.flats, gradients, strict=True)):
            flat.grad, group = gradient, self.optimizer.param_groups[self.sub_group_to_group_id[i]]
            group["params"] = [flat]
            self.optimizer.step()
            group["params"], flat.grad = [], None


STAGES = {
    "2": (Stage2, ([5], [7]), ["group0.flat", "group1.flat"]),
    "3": (Stage3, ([5], [4, 3]), ["group0.flat", "group1.flat0", "group1.flat1"]),
}


@pytest.mark.parametrize(("stage", "sizes", "names"), STAGES.values(), ids=STAGES)
def test_the_partitions_are_recorded_as_if_one_step_moved_all(group, tmp_path, stage, sizes, names):
    whole, zero = Whole(*sizes), stage(*sizes)
    with (
        Monitor(whole.optimizer, coordinates="all", strict=True) as expected,
        Monitor(zero, tmp_path, model=torch.nn.Linear(2, 2), coordinates="all", strict=True) as monitor,
    ):
        assert torch.equal(zero.train(), whole.train())
        trace = monitor.trace
        np.testing.assert_allclose(trace.values, expected.trace.values, rtol=1e-9, atol=1e-12)
    assert (monitor.step, Trace.load(tmp_path).meta["parts"]) == (STEPS, [0])
    assert [tensor.name for tensor in trace.tensors] == names
    np.testing.assert_allclose(trace.groups["lr"][-1], [0.01, *[0.02 / STEPS] * (len(names) - 1)])
    assert not trace.events


def test_what_wraps_it_is_unwrapped_and_its_loading_of_a_state_noted_once(group):
    zero = Stage2([5], [7])
    engine = type("Engine", (), {"optimizer": zero})()
    with Monitor(engine, strict=True) as monitor:
        zero.train()
        zero.optimizer.load_state_dict(zero.optimizer.state_dict())
    assert [event.kind for event in monitor.trace.events] == ["state loaded", "closed"]


def test_a_second_monitor_of_it_is_told_of(group, caplog):
    zero = Stage2([5], [7])
    with Monitor(zero), Monitor(zero):
        assert "this optimizer has a monitor that is open" in caplog.text


def test_the_optimizer_inside_is_not_watched_and_the_sentence_says_what_to_pass(group, caplog):
    zero, plain = Stage2([5], [7]), Stage2([5], [7])
    with Monitor(zero.optimizer) as monitor:
        assert torch.equal(zero.train(), plain.train())
    assert monitor.step == 0
    assert "1 of its 2 parameter groups; of DeepSpeed's ZeRO pass what `deepspeed.initialize` returned" in caplog.text
    with pytest.raises(ValueError, match="got none; add them before the monitor, and of DeepSpeed's ZeRO pass what"):
        Monitor(Stage3([5], [4, 3]).optimizer)
