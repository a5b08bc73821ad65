"""The monitor in a training loop: what happens is recorded, and nothing that happens reaches the loop."""

import contextvars
import copy
import gc
import inspect
import logging
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stepscope import Monitor, Trace
from stepscope.diagnostics import facts
from stepscope.diagnostics import monitor as monitor_module
from stepscope.diagnostics import recorder as recorder_module
from stepscope.diagnostics.log import SqliteLog
from stepscope.diagnostics.stepsizes import READERS

ROOT = Path(__file__).parents[2]


def parameter(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.Parameter(torch.randn(*shape, generator=generator, dtype=dtype))


def step(optimizer, *values, seed=None):
    """One step with the given constant gradients, or random ones."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    generator = torch.Generator().manual_seed(seed or 0)
    for i, p in enumerate(params):
        if i < len(values) or seed is None:
            value = values[i] if i < len(values) else 1.0
            p.grad = None if value is None else torch.full_like(p, value)
        else:
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
    optimizer.step()


def events(monitor, kind):
    return [event for event in monitor.trace.events if event.kind == kind]


def test_nan_gradients_are_counted_and_named():
    p, q = parameter(4), parameter(3)
    optimizer = torch.optim.Adam([("first", p), ("second", q)])
    monitor = Monitor(optimizer, strict=True)
    for t in range(5):
        step(optimizer, 1.0, math.nan if t == 3 else 1.0)
    (event,) = events(monitor, "nonfinite")
    assert (event.step, event.tensor) == (4, "second")
    # Adam's moments stay NaN, so the count goes on: three coordinates at step 4 and at step 5.
    assert monitor.trace.total("nonfinite")[-1] == 6
    assert str(monitor.diagnose().verdict) == "unstable"


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinite_gradients_under_sgd(value):
    p = parameter(4)
    optimizer = torch.optim.SGD([p], lr=0.1)
    monitor = Monitor(optimizer, strict=True)
    for t in range(3):
        step(optimizer, value if t == 1 else 1.0)
    assert len(events(monitor, "nonfinite")) == 1
    assert monitor.step == 3
    assert str(monitor.diagnose().verdict) == "unstable"


def test_a_step_that_a_loss_scaler_skips():
    p = parameter(4)
    optimizer = torch.optim.Adam([p], fused=True)
    monitor = Monitor(optimizer, strict=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for t in range(6):
        scaler.scale((p * (math.inf if t in (2, 3) else 1.0)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert monitor.step == 4
    assert len(events(monitor, "skipped")) == 1  # two in a row are one event
    assert events(monitor, "unreadable") == []


def test_empty_parameters_and_parameters_without_gradient():
    empty, idle, busy = parameter(0), parameter(3), parameter(2)
    optimizer = torch.optim.Adam([empty, idle, busy])
    monitor = Monitor(optimizer, strict=True)
    for _ in range(4):
        step(optimizer, 1.0, None, 1.0)
    trace = monitor.trace
    assert trace.column("steps")[-1].tolist() == [0, 0, 4]
    assert trace.column("a")[-1].tolist()[:2] == [0, 0]
    step(optimizer, None, None, None)
    assert monitor.step == 4
    assert "no watched parameter had a gradient" in events(monitor, "skipped")[0].message
    str(monitor.diagnose())
    str(monitor.summary())


def test_a_subclass_that_steps_through_its_parent_counts_once():
    class Careful(torch.optim.Adam):
        def step(self, closure=None):
            return super().step(closure)

    torch.optim.Adam([parameter(1)])  # patches Adam.step with the hooks, as any process that used Adam has done
    optimizer = Careful([parameter(4)])
    monitor = Monitor(optimizer, strict=True)
    for _ in range(5):
        step(optimizer)
    assert monitor.step == 5
    assert events(monitor, "skipped") == []


def test_two_steps_on_one_gradient_are_two_steps():
    optimizer = torch.optim.Adam([parameter(4)])
    monitor = Monitor(optimizer, strict=True)
    step(optimizer)
    optimizer.step()
    assert monitor.step == 2


def test_a_closure():
    p = parameter(4)
    optimizer = torch.optim.Adam([p], weight_decay=0.1)
    monitor = Monitor(optimizer, strict=True)

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    assert monitor.step == 5
    assert events(monitor, "unreadable") == []


def test_tensor_learning_rate_and_scheduler():
    p = parameter(4, dtype=torch.float64)
    optimizer = torch.optim.Adam([p], lr=torch.tensor(0.1, dtype=torch.float64), foreach=False)
    monitor = Monitor(optimizer, strict=True)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(4):
        step(optimizer)
        scheduler.step()
    assert monitor.trace.groups["lr"][:, 0] == pytest.approx([0.1, 0.05, 0.025, 0.0125])


def test_a_group_added_later():
    p, q = parameter(4), parameter(300, 20)
    optimizer = torch.optim.SGD([p], lr=0.1)
    monitor = Monitor(optimizer, strict=True)
    for t in range(40):
        if t == 20:
            optimizer.add_param_group({"params": [q], "lr": 0.2})
        step(optimizer)
    trace = monitor.trace
    assert [tensor.group for tensor in trace.tensors] == [0, 1]
    assert trace.column("steps")[-1].tolist() == [40, 20]
    assert trace.column("a")[-1] == pytest.approx([40 * 4 * 0.1, 20 * 6000 * 0.2])
    assert len(events(monitor, "group added")) == 1


def test_weights_changed_between_steps_are_not_the_optimizers_doing():
    p = parameter(4)
    optimizer = torch.optim.Adam([p], lr=0.5)
    monitor = Monitor(optimizer, strict=True)
    for _ in range(20):
        step(optimizer)
        with torch.no_grad():
            p.clamp_(-1, 1)
    assert events(monitor, "unreadable") == []


def test_an_optimizer_that_does_more_than_its_formula_is_not_believed():
    class Shrinking(torch.optim.Adam):
        def _init_group(self, group, params, *rest):
            for p in group["params"]:
                p.data.mul_(0.9)
            return super()._init_group(group, params, *rest)

    optimizer = Shrinking([("w", parameter(4))])
    monitor = Monitor(optimizer, strict=True)
    for _ in range(3):
        step(optimizer)
    (event,) = events(monitor, "unreadable")
    assert event.tensor == "w"
    assert "differs from the step" in event.message
    trace = monitor.trace
    assert trace.tensors[0].formula is None
    assert np.isnan(trace.column("a")).all()
    assert np.isfinite(trace.column("update_rms")).all()
    assert str(monitor.diagnose().verdict) == "inconclusive"


@pytest.mark.parametrize("make", [torch.optim.Muon, torch.optim.Rprop], ids=["Muon", "Rprop"])
def test_optimizers_without_an_elementwise_stepsize(make, caplog):
    p = parameter(8, 6)
    optimizer = make([p], lr=0.01)
    with caplog.at_level(logging.WARNING, "stepscope"):
        monitor = Monitor(optimizer, strict=True)
        for t in range(32):
            step(optimizer, seed=t + 1)
    assert len(caplog.records) == 1
    trace = monitor.trace
    assert trace.tensors[0].formula is None
    for name in ("update_rms", "weight_rms", "alignment"):
        assert np.isfinite(trace.column(name)[-1]).all(), name
    assert trace.column("alignment")[-1] > 0
    assert trace.total("g2")[-1] > 0
    str(monitor.diagnose())


def test_an_unknown_optimizer_is_watched_by_what_it_moves():
    class Signs(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.01})

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.sub_(group["lr"] * p.grad.sign())

    optimizer = Signs([parameter(5)])
    monitor = Monitor(optimizer, strict=True)
    for t in range(4):
        step(optimizer, seed=t + 1)
    assert monitor.trace.column("update_rms")[-1, 0] == pytest.approx(0.01, rel=1e-4)
    assert "Signs" in events(monitor, "unreadable")[0].message


def test_sparse_gradients_touch_their_rows_only():
    embedding = torch.nn.Embedding(50, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(embedding.parameters(), lr=0.1)
    monitor = Monitor(optimizer, strict=True)
    plain = torch.nn.Embedding.from_pretrained(embedding.weight.detach().clone(), freeze=False, sparse=True)
    other = torch.optim.SparseAdam(plain.parameters(), lr=0.1)
    for t in range(20):
        rows = torch.tensor([t % 5, (t + 1) % 5, 7])
        for module, o in ((embedding, optimizer), (plain, other)):
            o.zero_grad()
            module(rows).square().sum().backward()
            o.step()
    assert torch.equal(embedding.weight, plain.weight)
    assert events(monitor, "unreadable") == []
    assert monitor.trace.total("active")[-1] == 20 * 3 * 3


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # torch's own Adagrad causes it
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adagrad])
def test_sparse_gradients_under_dense_rules(make):
    embedding = torch.nn.Embedding(30, 2, sparse=True)
    optimizer = make(embedding.parameters(), lr=0.1)
    monitor = Monitor(optimizer, coordinates=25, strict=True)
    for t in range(10):
        optimizer.zero_grad()
        embedding(torch.tensor([t, t + 3])).square().sum().backward()
        optimizer.step()
    assert events(monitor, "unreadable") == []


def test_complex_parameters_are_pairs_of_real_ones():
    p = parameter(6, dtype=torch.complex64)
    optimizer = torch.optim.Adam([p], lr=0.05)
    monitor = Monitor(optimizer, strict=True)
    for t in range(20):
        step(optimizer, seed=t + 1)
    assert monitor.trace.tensors[0].numel == 12
    assert events(monitor, "unreadable") == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype):
    p = torch.nn.Parameter(torch.randn(64, generator=torch.Generator().manual_seed(1)).to(dtype))
    optimizer = torch.optim.AdamW([p], lr=0.05, eps=1e-4)
    monitor = Monitor(optimizer, strict=True)
    for t in range(20):
        step(optimizer, seed=t + 1)
    assert events(monitor, "unreadable") == []
    assert np.isfinite(monitor.trace.total("a")[-1])


def test_the_layout_of_memory_does_not_matter():
    """A tensor that is not contiguous is read like its contiguous copy."""
    totals = []
    for order in (torch.contiguous_format, torch.channels_last):
        p = torch.nn.Parameter(parameter(4, 3, 5, 5).detach().to(memory_format=order))
        optimizer = torch.optim.Adam([p], lr=0.01)
        monitor = Monitor(optimizer, coordinates=50, strict=True)
        for t in range(10):
            step(optimizer, seed=t + 1)
        totals.append(monitor.trace.values[-1])
    np.testing.assert_allclose(totals[0], totals[1], rtol=1e-6)


# --- saving, resuming, copying -------------------------------------------------------------------------------


def train(monitor_of, optimizer, first, last):
    monitor = monitor_of(optimizer)
    for t in range(first, last + 1):
        step(optimizer, seed=t)
    return monitor


def test_a_saved_state_continues_exactly(tmp_path):
    def make():
        return torch.optim.Adam([("w", parameter(40, 30)), ("b", parameter(7))], lr=0.01, amsgrad=True)

    def monitor_of(optimizer):
        return Monitor(optimizer, coordinates=100, strict=True)

    whole = train(monitor_of, make(), 1, 90)
    half_optimizer = make()
    half = train(monitor_of, half_optimizer, 1, 50)
    params = [p for group in half_optimizer.param_groups for p in group["params"]]
    torch.save((half.state_dict(), half_optimizer.state_dict(), [p.detach() for p in params]), tmp_path / "saved.pt")

    optimizer = make()
    monitor = monitor_of(optimizer)
    saved, optimizer_state, weights = torch.load(tmp_path / "saved.pt", weights_only=True)
    optimizer.load_state_dict(optimizer_state)
    monitor.load_state_dict(saved)
    for p, w in zip((p for group in optimizer.param_groups for p in group["params"]), weights, strict=True):
        p.data.copy_(w)
    for t in range(51, 91):
        step(optimizer, seed=t)
    np.testing.assert_array_equal(whole.trace.values[-1], monitor.trace.values[-1])
    mine, theirs = whole.diagnose().harm, monitor.diagnose().harm
    np.testing.assert_allclose(mine.z, theirs.z, rtol=1e-9)  # sums in another order
    np.testing.assert_equal((mine.rho, mine.decision, mine.reason), (theirs.rho, theirs.decision, theirs.reason))
    (resumed,) = events(monitor, "resumed")
    assert resumed.step == 50


def test_a_reopened_directory_continues_the_sums(tmp_path):
    optimizer = torch.optim.Adam([("w", parameter(40, 30))], lr=0.01)
    with train(lambda o: Monitor(o, tmp_path / "run", coordinates=100, strict=True), optimizer, 1, 60) as monitor:
        before = monitor.trace
    with train(lambda o: Monitor(o, tmp_path / "run", coordinates=100, strict=True), optimizer, 61, 90):
        pass
    trace = Trace.load(tmp_path / "run")
    assert trace.steps[-1] == 90
    assert trace.column("steps")[-1, 0] == 90
    assert (np.diff(trace.total("a")) > 0).all()
    assert set(before.steps) <= set(trace.steps)
    assert [event.kind for event in trace.events].count("resumed") == 1
    assert [event.kind for event in trace.events if event.kind == "step jump"] == []
    # The optimizer lived on, so its stepsizes did: only the one comparison across the gap is missing.
    straight = train(
        lambda o: Monitor(o, coordinates=100, strict=True),
        torch.optim.Adam([("w", parameter(40, 30))], lr=0.01),
        1,
        90,
    )
    assert trace.total("a")[-1] == pytest.approx(straight.trace.total("a")[-1], rel=1e-12)
    assert trace.total("compared")[-1] == straight.trace.total("compared")[-1] - 1200


def test_a_branch_that_was_abandoned_is_superseded_but_kept(tmp_path):
    optimizer = torch.optim.SGD([parameter(3)], lr=0.1)
    monitor = train(lambda o: Monitor(o, tmp_path / "run", strict=True), optimizer, 1, 20)
    saved = copy.deepcopy(monitor.state_dict())
    for t in range(21, 41):
        step(optimizer, seed=t)
    monitor.close()
    again = Monitor(optimizer, tmp_path / "run", strict=True)
    again.load_state_dict(saved)
    for t in range(21, 31):
        step(optimizer, seed=t)
    again.close()
    trace = Trace.load(tmp_path / "run")
    assert trace.steps[-1] == 30
    assert trace.column("steps")[-1, 0] == 30
    assert (np.diff(trace.steps) > 0).all()


def test_lost_moments_and_a_jumping_counter_are_events():
    p = parameter(4)
    optimizer = torch.optim.Adam([("w", p)])
    monitor = Monitor(optimizer, strict=True)
    for _ in range(10):
        step(optimizer)
    optimizer.state.clear()
    step(optimizer)
    (reset,) = events(monitor, "moment reset")
    assert (reset.step, reset.tensor) == (11, "w")
    step(optimizer)
    optimizer.state[p]["step"] += 5
    step(optimizer)
    assert len(events(monitor, "step jump")) == 1
    assert events(monitor, "unreadable") == []


def test_loading_the_optimizers_state_is_an_event():
    optimizer = torch.optim.Adam([parameter(4)])
    monitor = Monitor(optimizer, strict=True)
    step(optimizer)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(optimizer)
    assert len(events(monitor, "state loaded")) == 1
    assert monitor.trace.total("compared")[-1] == 0


def test_the_optimizer_still_copies_and_pickles():
    optimizer = torch.optim.Adam([parameter(4)])
    monitor = Monitor(optimizer, strict=True)
    step(optimizer)
    copy.deepcopy(optimizer).step()
    pickle.loads(pickle.dumps(optimizer))
    assert monitor.step == 1


def test_a_monitor_that_nobody_holds_records_as_long_as_its_optimizer_lives(tmp_path):
    optimizer = torch.optim.Adam([parameter(4)])
    Monitor(optimizer, tmp_path / "run", strict=True)
    for _ in range(21):
        step(optimizer)
    del optimizer
    gc.collect()
    trace = Trace.load(tmp_path / "run")
    assert trace.steps[-1] == 21
    assert trace.events[-1].kind == "closed"


def test_the_checkpoint_of_a_reopened_run_loads_without_pickle(tmp_path):
    optimizer = torch.optim.Adam([parameter(4)])
    for _ in range(2):
        with Monitor(optimizer, tmp_path / "run", strict=True) as monitor:
            step(optimizer)
            monitor.log(loss=torch.tensor(0.5))
            torch.save(monitor.state_dict(), tmp_path / "saved.pt")
            torch.load(tmp_path / "saved.pt", weights_only=True)


def test_reopening_alone_changes_no_verdict(tmp_path):
    optimizer = torch.optim.Adam([parameter(4)], betas=(0.5, 0.5))
    with train(lambda o: Monitor(o, tmp_path / "run", strict=True), optimizer, 1, 300) as monitor:
        verdict = monitor.diagnose().verdict
    again = Monitor(optimizer, tmp_path / "run", strict=True)
    assert again.diagnose().verdict == verdict
    step(optimizer, seed=301)
    assert again.diagnose().verdict == verdict
    again.close()


def test_a_death_between_records_is_seen():
    optimizer = torch.optim.Adam([parameter(4)])
    monitor = train(lambda o: Monitor(o, strict=True), optimizer, 1, 995)
    step(optimizer, math.nan)
    assert str(monitor.diagnose().verdict) == "unstable"


def test_what_is_logged_after_the_last_record_is_kept(tmp_path):
    optimizer = torch.optim.Adam([parameter(4)])
    with Monitor(optimizer, tmp_path / "run", strict=True) as monitor:
        for t in range(64):
            step(optimizer)
            monitor.log(loss=float(t))
        monitor.log(accuracy=0.97)
    scalars = Trace.load(tmp_path / "run").scalars
    assert scalars["accuracy"].last[-1] == 0.97
    assert (scalars["loss"].last[-1], scalars["loss"].count[-1]) == (63.0, 64.0)


# --- the user's own memory -----------------------------------------------------------------------------------


def test_storages_stay_resizable_and_gradients_are_let_go():
    p = parameter(6000)
    optimizer = torch.optim.Adam([p], weight_decay=0.1)
    monitor = Monitor(optimizer, strict=True)
    for t in range(3):
        step(optimizer, seed=t + 1)
    assert p.untyped_storage().resizable()
    assert optimizer.state[p]["exp_avg_sq"].untyped_storage().resizable()
    assert len(monitor._recorder.watchers[0].view.gradient) == 0
    assert monitor._recorder.watchers[0].view.before == {}


def test_a_parameter_that_shrinks_is_never_read_past_its_end():
    p = parameter(50_000)
    optimizer = torch.optim.SGD([("w", p)], lr=0.1)
    monitor = Monitor(optimizer)
    for t in range(40):
        if t == 20:
            p.data = torch.randn(10)
            p.grad = None
        step(optimizer)
    assert p.shape == (10,)
    assert monitor.trace.total("nonfinite")[-1] == 0 or monitor.trace.tensors[0].formula is None


@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float64])
def test_a_model_cast_after_the_monitor_is_read_on(cast):
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(optimizer, model=model, strict=True)
    model.to(cast)
    for t in range(10):
        step(optimizer, seed=t + 1)
    assert monitor.step == 10
    assert events(monitor, "fault") == []


def test_members_of_the_harm_test_are_a_random_sample_also_when_all_are_watched():
    p = parameter(64, 64)
    monitor = Monitor(torch.optim.Adam([p]), coordinates="all")
    members = monitor._recorder.watchers[0].coordinates.lead_index
    assert len(set(members // 64)) > 40  # 256 of 64 rows: all but surely nearly every row


# --- overflows, rollbacks, wrappers --------------------------------------------------------------------------


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD])
def test_a_fused_optimizer_whose_very_first_step_overflows(make):
    p = parameter(4)
    optimizer = make([p], lr=0.1, fused=True)
    monitor = Monitor(optimizer, strict=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for t in range(6):
        scaler.scale((p * (math.inf if t in (0, 3) else 1.0)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert monitor.step == 4
    assert events(monitor, "unreadable") == []
    assert len(events(monitor, "skipped")) == 2


def test_a_rollback_by_one_step_is_not_a_skipped_step():
    optimizer = torch.optim.Adam([("w", parameter(4))])
    monitor = Monitor(optimizer, strict=True)
    saved = {}
    for t in range(10):
        step(optimizer)
        if t == 8:
            saved = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(saved)
    step(optimizer)
    assert monitor.step == 11
    assert events(monitor, "skipped") == []
    assert len(events(monitor, "moment reset")) == 1


def test_lost_optimizer_state_is_seen_on_resuming():
    optimizer = torch.optim.Adam([("w", parameter(4))])
    saved = train(lambda o: Monitor(o, strict=True), optimizer, 1, 30).state_dict()
    fresh = torch.optim.Adam([("w", parameter(4))])
    monitor = Monitor(fresh, strict=True)
    monitor.load_state_dict(saved)
    step(fresh)
    (reset,) = events(monitor, "moment reset")
    assert "from 30 to 1" in reset.message


def test_a_subclass_that_moves_the_weights_after_its_parents_step_is_not_believed():
    class Shrinking(torch.optim.Adam):
        def step(self, closure=None):
            super().step(closure)
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.mul_(0.9)

    torch.optim.Adam([parameter(1)])
    optimizer = Shrinking([("w", parameter(4))])
    monitor = Monitor(optimizer, strict=True)
    for _ in range(3):
        step(optimizer)
    assert len(events(monitor, "unreadable")) == 1
    assert monitor.trace.tensors[0].formula is None


def test_many_tensors_that_jump_together_are_one_event():
    optimizer = torch.optim.Adam([parameter(2) for _ in range(30)])
    monitor = Monitor(optimizer, strict=True)
    for _ in range(20):
        for state in optimizer.state.values():
            state["step"] += 1
        step(optimizer)
    assert len(events(monitor, "step jump")) == 1
    assert "30 tensors" in events(monitor, "step jump")[0].message


def test_two_models_may_use_the_same_names():
    groups = [{"params": [("w", parameter(3))]}, {"params": [("w", parameter(5))]}]
    monitor = Monitor(torch.optim.SGD(groups, lr=0.1))
    assert [tensor.name for tensor in monitor.trace.tensors] == ["w", "w (group 1)"]


def test_a_custom_optimizer_without_a_number_for_lr(caplog):
    class Free(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": None})

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.sub_(p.grad)

    optimizer = Free([parameter(3)])
    monitor = Monitor(optimizer, strict=True)
    step(optimizer)
    assert np.isnan(monitor.trace.groups["lr"]).all()


def test_a_run_continued_with_a_fresh_optimizer_says_so(tmp_path, caplog):
    for _ in range(2):
        fresh = torch.optim.Adam([parameter(4)])
        with Monitor(fresh, tmp_path / "run", strict=True):
            step(fresh)
    assert "continues the run" in caplog.text
    kinds = [event.kind for event in Trace.load(tmp_path / "run").events]
    assert kinds.count("moment reset") == 1


# --- faults and bad input ------------------------------------------------------------------------------------


def test_a_fault_inside_is_told_once_and_never_reaches_the_loop(monkeypatch, caplog, tmp_path):
    optimizer = torch.optim.Adam([parameter(4)])
    monitor = Monitor(optimizer, tmp_path / "run")
    for t in range(50):
        if t == 20:
            monkeypatch.setattr(recorder_module.Recorder, "advance", lambda self: 1 / 0)
        step(optimizer)
        monitor.log(loss=1.0)
    monitor.close()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "ZeroDivisionError" in caplog.text
    assert int(optimizer.state[optimizer.param_groups[0]["params"][0]]["step"]) == 50
    trace = Trace.load(tmp_path / "run")
    assert trace.steps[-1] == 20
    assert [event.kind for event in trace.events][-2:] == ["fault", "closed"]


def test_strict_raises(monkeypatch):
    optimizer = torch.optim.Adam([parameter(4)])
    Monitored = Monitor(optimizer, strict=True)
    monkeypatch.setattr(Monitored._recorder, "advance", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        step(optimizer)


def test_a_crash_writes_the_flight_recorder(tmp_path):
    optimizer = torch.optim.Adam([("w", parameter(4))])

    def loop():
        with Monitor(optimizer, tmp_path / "run", strict=True):
            for _ in range(1200):
                step(optimizer)
            raise KeyError("a bug in the loop")

    with pytest.raises(KeyError):
        loop()
    (snapshot,) = (tmp_path / "run" / "snapshots").glob("flight-*.npz")
    with np.load(snapshot) as flight:
        assert flight["steps"].tolist() == list(range(201, 1201))
        assert flight["sums"].shape == (1000, 1, len(flight["columns"]))
        a = flight["sums"][:, 0, flight["columns"].tolist().index("a")]
    trace = Trace.load(tmp_path / "run")
    assert trace.steps[-1] == 1200
    assert a.sum() == pytest.approx(
        trace.total("a")[-1] - 4 * sum(1e-3 / (1 - 0.9**t) / (1 + 1e-8) for t in range(1, 201)), rel=1e-4
    )
    assert "KeyError" in trace.events[-1].message


def test_a_process_that_ends_without_closing_loses_nothing(tmp_path):
    code = (
        "import torch; from stepscope import Monitor; p = torch.nn.Parameter(torch.ones(3));"
        f"o = torch.optim.Adam([p]); m = Monitor(o, {str(tmp_path / 'run')!r})\n"
        "for t in range(37):\n    p.grad = torch.ones(3); o.step()\n"
        "raise RuntimeError('the loop broke')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "the loop broke" in done.stderr
    trace = Trace.load(tmp_path / "run")
    assert trace.steps[-1] == 37
    assert trace.events[-1].kind == "closed"


BAD = [
    (lambda p: Monitor("adam"), "torch.optim.Optimizer, got str"),
    (lambda p: Monitor(torch.optim.Adam([{"params": []}])), "must have parameters to watch, got none"),
    (lambda p: Monitor(torch.optim.Adam([p]), coordinates=0), 'positive integer or "all", got 0'),
    (lambda p: Monitor(torch.optim.Adam([p]), coordinates="some"), "got 'some'"),
    (
        lambda p: Monitor(torch.optim.Adam([p]), torch.nn.Linear(2, 2)),
        "must be a path, got Linear; pass a model by name",
    ),
    (lambda p: Monitor(torch.optim.Adam([p]), __file__), "must be a directory, got the file"),
    (lambda p: Monitor(torch.optim.Adam([p]), ROOT), "must be empty or hold a record, got .* with .* and .* more"),
    (lambda p: Monitor(torch.optim.Adam([p]), model="x"), r"`model` must be the torch.nn.Module .*, got str"),
    (lambda p: Monitor(torch.optim.Adam([p]), model=torch.nn.Linear(2, 2)), "got a Linear with none of them"),
    (lambda p: Monitor(torch.optim.Adam([p])).load_state_dict({"model": {}}), "keys \\['model'\\]"),
    (lambda p: Monitor(torch.optim.Adam([p])).log(loss=torch.ones(3)), r"got shape \(3,\)"),
    (lambda p: Monitor(torch.optim.Adam([p])).log(loss=None), "one element, got None"),
]


@pytest.mark.parametrize(("call", "sentence"), BAD)
def test_bad_input_gets_one_clear_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(parameter(4))


def test_a_directory_with_another_optimizers_record(tmp_path):
    Monitor(torch.optim.Adam([parameter(4)]), tmp_path / "run").close()
    with pytest.raises(ValueError, match=r"another run \(torch.optim.adam.Adam"):
        Monitor(torch.optim.SGD([parameter(4)]), tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"shapes differ, first that of 'group0.param0', which is \(4,\) there.*\(5,\)"
    ):
        Monitor(torch.optim.Adam([parameter(5)]), tmp_path / "run")
    with pytest.raises(ValueError, match=r"names differ, first of tensor 0, .*'group0.param0' there, expected 'w'"):
        Monitor(torch.optim.Adam([("w", parameter(4))]), tmp_path / "run")
    with pytest.raises(ValueError, match="it has 1, expected 2; choose another directory"):
        Monitor(torch.optim.Adam([parameter(4), parameter(4)]), tmp_path / "run")


def test_a_directory_with_other_files_is_refused_and_one_left_by_a_dead_process_is_not(tmp_path):
    other, dead = tmp_path / "other", tmp_path / "dead"
    for folder in (other, dead):
        folder.mkdir()
    (other / "config.yaml").touch()
    for name in ("lock", "trace.sqlite", "trace.sqlite-wal", ".gitignore"):
        (dead / name).touch()
    with pytest.raises(ValueError, match=r"with 'config.yaml' in it; give the run a directory of its own"):
        Monitor(torch.optim.Adam([parameter(4)]), other)
    assert [entry.name for entry in other.iterdir()] == ["config.yaml"]
    optimizer = torch.optim.Adam([parameter(4)])
    with Monitor(optimizer, dead):
        step(optimizer)
    (dead / "config.yaml").touch()
    with Monitor(optimizer, dead) as again:
        assert again.step == 1


def test_a_second_open_monitor_is_told_of_and_records_all_the_same(caplog):
    optimizer = torch.optim.Adam([parameter(4)])
    first = Monitor(optimizer, strict=True)
    assert not caplog.records
    second = Monitor(optimizer, strict=True)
    assert [record.message.count("has a monitor that is open") for record in caplog.records] == [1]
    step(optimizer)
    assert first.trace.total("a")[-1] == second.trace.total("a")[-1] > 0
    first.close()
    second.close()
    Monitor(optimizer, strict=True)
    Monitor(torch.optim.Adam([parameter(4)]), strict=True)
    assert len(caplog.records) == 1


def test_a_model_that_holds_some_of_the_parameters_names_them():
    model, head = torch.nn.Linear(2, 2), parameter(3)
    monitor = Monitor(torch.optim.Adam([*model.parameters(), head]), model=model)
    assert [tensor.name for tensor in monitor.trace.tensors] == ["weight", "bias", "group0.param2"]


def test_a_directory_that_another_monitor_is_writing(tmp_path):
    optimizer = torch.optim.Adam([parameter(4)])
    Monitor(optimizer, tmp_path / "run")
    with pytest.raises(ValueError, match="being recorded by another monitor"):
        Monitor(torch.optim.Adam([parameter(4)]), tmp_path / "run")


def test_a_run_is_reopened_with_the_same_sample_or_not_at_all(tmp_path):
    Monitor(torch.optim.Adam([parameter(4)]), tmp_path / "run").close()
    with pytest.raises(ValueError, match="pass seed=0 to continue"):
        Monitor(torch.optim.Adam([parameter(4)]), tmp_path / "run", seed=1)
    with pytest.raises(ValueError, match="pass coordinates=1024 to continue"):
        Monitor(torch.optim.Adam([parameter(4)]), tmp_path / "run", coordinates="all")


def test_a_disk_error_at_the_end_masks_nothing(monkeypatch, caplog, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    optimizer = torch.optim.Adam([parameter(4)])
    with Monitor(optimizer, tmp_path / "run"):
        step(optimizer)
        monkeypatch.setattr(SqliteLog, "commit", full)
    assert "could not write the end of its record" in caplog.text


def test_a_closed_monitor_says_so():
    optimizer = torch.optim.Adam([parameter(4)])
    monitor = Monitor(optimizer)
    step(optimizer)
    monitor.close()
    monitor.close()
    step(optimizer)
    assert monitor.step == 1
    assert monitor.trace.steps.tolist() == [1]
    with pytest.raises(RuntimeError, match="was closed after step 1"):
        monitor.log(loss=1.0)


def test_what_is_no_setting_and_what_has_no_name_is_said_in_a_sentence():
    optimizer = torch.optim.Adam([parameter(4)])
    with pytest.raises(TypeError, match="no setting `coordinate`; did you mean `coordinates`"):
        Monitor(optimizer, coordinate="all")
    with pytest.raises(TypeError, match=r"no setting `loss`; it has directory, model, .*, strict"):
        Monitor(optimizer, loss=1.0)
    accepted = inspect.signature(Monitor).parameters
    assert [name for name in accepted if name not in ("optimizer", "unknown")] == list(facts.SETTINGS)
    monitor = Monitor(optimizer)
    with pytest.raises(TypeError, match=r"got a dict; write .*monitor\.log\(\*\*numbers\)"):
        monitor.log({"loss": 1.0})


def test_a_report_is_no_directory(tmp_path):
    monitor = Monitor(torch.optim.Adam([parameter(4)]))
    with pytest.raises(ValueError, match="a report is a file, got the directory"):
        monitor.report(tmp_path)


def test_a_monitor_of_an_optimizer_that_was_exchanged_says_once_that_it_saw_no_step(caplog):
    param = parameter(4)
    monitor = Monitor(torch.optim.Adam([param]))
    step(torch.optim.Adam([param]))
    monitor.close()
    monitor.close()
    assert [record.message.partition(";")[0] for record in caplog.records] == ["stepscope saw no step of this Adam"]


@pytest.mark.parametrize("grows", [True, False], ids=["a step", "a call of step that moved nothing"])
def test_a_monitor_that_saw_something_says_nothing(caplog, grows):
    optimizer = torch.optim.Adam([parameter(4)])
    with Monitor(optimizer):
        step(optimizer) if grows else optimizer.step()
    assert not caplog.records


def test_a_state_of_other_tensors_is_refused():
    mine = Monitor(torch.optim.Adam([parameter(4)]))
    with pytest.raises(ValueError, match="same tensors"):
        mine.load_state_dict(Monitor(torch.optim.Adam([parameter(5)])).state_dict())
    with pytest.raises(ValueError, match="seed=3"):
        mine.load_state_dict(Monitor(torch.optim.Adam([parameter(4)]), seed=3).state_dict())


def test_every_reader_names_its_formula():
    assert all("e = " in reader.formula for reader in READERS.values())


def test_a_finalizer_leaves_the_context_alone():
    """It may run while numpy enters an `errstate`; one entered by us would free what that is reading (segfault)."""
    seen = contextvars.ContextVar("seen", default="outside")

    class Recorder:
        def finish(self, message, crashed):
            seen.set("inside")

    monitor_module._finish_quietly(Recorder(), "gone", os.getpid())
    assert seen.get() == "outside"


def test_the_newest_row_has_the_rate_of_the_step_and_not_the_next_ones(tmp_path):
    """A linear decay to 0 over 53 steps, no record interval: the last step used 1/53 of the rate."""
    optimizer = torch.optim.Adam([weight := parameter(4)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=53)
    with Monitor(optimizer, tmp_path / "run") as monitor:
        for _ in range(53):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
            scheduler.step()
        newest = monitor.trace.groups["lr"][-1]
    assert newest == pytest.approx([1 / 53])
    assert Trace.load(tmp_path / "run").groups["lr"][-1] == pytest.approx([1 / 53])


def test_what_is_recorded_is_written_though_what_waits_cannot_be_had(tmp_path, monkeypatch, caplog):
    """As after an error of an accelerator, where nothing can be read from it any more."""
    optimizer = torch.optim.Adam([parameter(4)])
    monitor = Monitor(optimizer, tmp_path / "run")
    for _ in range(50):
        step(optimizer)

    def lost(self, newest=True):
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(Monitor, "_catch_up", lost)
    monitor.close()
    assert "could not write the end of its record: RuntimeError: device-side assert" in caplog.text
    trace = Trace.load(tmp_path / "run")
    assert trace.steps[-1] == 50
    assert trace.events[-1].kind == "closed"
    Monitor(torch.optim.Adam([parameter(4)]), tmp_path / "run").close()  # the directory is free
