"""Steps that are put off in a ring, and taken in later, are those that a look at each would have taken in.

There is an accelerator on few machines that run these tests, so the CPU is taken for one.
"""

import gc
import itertools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stepscope import Monitor, Trace
from stepscope.diagnostics import later, ring, sampling
from stepscope.diagnostics.later import Later
from stepscope.diagnostics.schedule import OPENING

ADAM = torch.optim.Adam
OPTIMIZERS = {
    "adam": lambda groups: ADAM(groups, lr=0.01),
    "adam, fused": lambda groups: ADAM(groups, lr=0.01, fused=True),
    "adamw, tensor rate": lambda groups: torch.optim.AdamW(groups, lr=torch.tensor(0.01)),
    "amsgrad": lambda groups: ADAM(groups, lr=0.01, amsgrad=True),
    "nadam": lambda groups: torch.optim.NAdam(groups, lr=0.01),
    "radam": lambda groups: torch.optim.RAdam(groups, lr=0.01),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.01, momentum=0.9),
    "adagrad": lambda groups: torch.optim.Adagrad(groups, lr=0.01, lr_decay=0.1),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9),
    "sgd, no state": lambda groups: torch.optim.SGD(groups, lr=0.01),
    "sgd, fused": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9, fused=True),
}
FALLS_BACK = {
    "adam with L2": lambda groups: ADAM(groups, lr=0.01, weight_decay=0.1),
    "nesterov": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True),
    "maximize": lambda groups: ADAM(groups, lr=0.01, maximize=True),
    "adafactor": lambda groups: torch.optim.Adafactor(groups, lr=0.01),
    "adamax": lambda groups: torch.optim.Adamax(groups, lr=0.01),
}


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(later, "ACCELERATORS", ("cpu",))


def parameters(dtypes=(torch.float32, torch.float32, torch.float32, torch.bfloat16)):
    """Return tensors that are sampled, small, in another layout, and empty."""
    shapes = [(40, 30), (7,), (2, 3, 5, 5), (9,), (0,)]
    tensors = [torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape) for shape in shapes]
    tensors[2] = tensors[2].to(memory_format=torch.channels_last)
    return [torch.nn.Parameter(t.to(dtype)) for t, dtype in zip(tensors, (*dtypes, torch.float32), strict=True)]


def gradient(p, seed):
    noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
    return torch.empty_like(p).copy_(noise)


def steps(optimizer, count, begin=0):
    """Take steps whose rate falls; one tensor has no gradient now and then."""
    for t in range(begin, begin + count):
        for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
            p.grad = None if i == 1 and t % 5 == 4 else gradient(p, 31 * t + i)
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= 0.999


def everything(monitor):
    """Return all that a monitor has summed up, by name."""
    recorder = monitor._recorder
    found = {key: value.numpy() for key, value in monitor.state_dict()["recorder"]["arrays"].items()}
    found |= {f"then/{w.name}": w.accumulator.then for w in recorder.watchers}
    found |= {f"counted/{w.name}": np.array(w.counted, np.float64) for w in recorder.watchers}
    found |= {"last": recorder.accumulators.last, "flight": recorder.flight.ring, "signals": recorder.signals.past}
    found |= {"values": monitor.trace.values, "rates": np.array(list(monitor.trace.groups.values()), np.float64)}
    return found


def same(one, other):
    """Assert that two monitors have the same record, to the last bit."""
    left, right = everything(one), everything(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)
    assert [(e.step, e.kind, e.message) for e in one.trace.events] == [
        (e.step, e.kind, e.message) for e in other.trace.events
    ]
    assert one.step == other.step


def twins(play, **settings):
    """Return the monitors of two equal runs, one of them put off, and the most steps that waited."""
    monitors, most = [], [0, 0]
    take = Later.take

    def counted(self, *arguments):
        taken = take(self, *arguments)
        most[len(monitors)] = max(most[len(monitors)], self.steps)
        return taken

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Later, "take", counted)
        for kinds in ((), ("cpu",)):
            patch.setattr(later, "ACCELERATORS", kinds)
            monitors.append(play(lambda optimizer: Monitor(optimizer, strict=True, **settings)))
    assert most[0] == 0
    return *monitors, most[1]


@pytest.mark.parametrize("away", [True, False], ids=["counters there", "counters on the host"])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_what_is_put_off_is_what_is_looked_at(make, away, monkeypatch):
    if not away:
        monkeypatch.setattr(Later, "_away", lambda self, tensor: tensor.dim() > 0)

    def play(watch):
        params = parameters()
        optimizer = make([{"params": params[:2]}, {"params": params[2:], "lr": 0.002}])
        monitor = watch(optimizer)
        steps(optimizer, 150)
        return monitor

    looked, put_off, waited = twins(play, coordinates=64)
    same(looked, put_off)
    assert waited > 5


@pytest.mark.parametrize("name", ["adam, fused", "sgd", "adamw, tensor rate"])
@pytest.mark.parametrize("often", [0.0, 0.3])
def test_rows_that_take_long_to_arrive(name, often, monkeypatch):
    """While they are on their way the next are written; whoever cannot go on without them waits."""
    generator = torch.Generator().manual_seed(0)
    arrived = property(lambda self: self.sent > 0 and torch.rand(1, generator=generator).item() < often)
    monkeypatch.setattr(ring.Ring, "arrived", arrived)
    monkeypatch.setattr(ring, "MOST", 4)

    def play(watch):
        params = parameters()
        optimizer = OPTIMIZERS[name]([{"params": params[:2]}, {"params": params[2:], "lr": 0.002}])
        monitor = watch(optimizer)
        steps(optimizer, 300)
        return monitor

    looked, put_off, waited = twins(play, coordinates=64)
    same(looked, put_off)
    assert 4 < waited <= 8


@pytest.mark.parametrize("make", FALLS_BACK.values(), ids=FALLS_BACK)
def test_what_does_not_fit_goes_the_old_way(make):
    def play(watch):
        optimizer = make(parameters()[:4])
        monitor = watch(optimizer)
        steps(optimizer, 60)
        return monitor

    *monitors, waited = twins(play, coordinates=64)
    same(*monitors)
    assert waited == 0


def replace_moments(optimizer):
    for state in optimizer.state.values():
        state["exp_avg_sq"] = state["exp_avg_sq"].clone()


@pytest.mark.parametrize("way", ["maximize", "another v in each step"])
def test_what_never_fits_is_laid_out_ever_more_rarely(way, accelerator, monkeypatch):
    """Once it fits, it is put off after as many steps at most as it did not fit."""
    tried, lay_out = [], Later.lay_out

    def counted(self, optimizer):
        tried.append(not self._rest)
        return lay_out(self, optimizer)

    monkeypatch.setattr(Later, "lay_out", counted)
    optimizer = ADAM(parameters()[:4], lr=0.01, maximize=way == "maximize")
    monitor = Monitor(optimizer, coordinates=64, strict=True)
    replacing = optimizer.register_step_pre_hook(lambda *_: None if way == "maximize" else replace_moments(optimizer))
    steps(optimizer, 300)
    assert len(tried) > 250
    assert 5 < sum(tried) < 12
    replacing.remove()
    optimizer.param_groups[0]["maximize"] = False
    steps(optimizer, 300, 300)
    assert monitor._later.steps > 1
    before = len(tried)
    optimizer.load_state_dict(optimizer.state_dict())
    steps(optimizer, 30, 600)
    assert monitor._later.steps > 1
    assert tried[before:] == [True]


@pytest.mark.parametrize("name", ["adam", "adam, fused", "adamw, tensor rate", "nadam", "radam", "rmsprop", "amsgrad"])
def test_all_coordinates(name):
    """The sums are made in another order there, in float32; the members of the harm test are the same."""

    def play(watch):
        params = [torch.nn.Parameter(torch.linspace(-1, 1, 5000)), *parameters()]
        optimizer = OPTIMIZERS[name](params)
        monitor = watch(optimizer)
        steps(optimizer, 150)
        return monitor

    looked, put_off, waited = twins(play, coordinates="all")
    assert waited > 5
    left, right = everything(looked), everything(put_off)
    for key, value in left.items():
        rtol = 2e-5 if key in ("sums", "rms2_max", "last", "values", "flight", "signals") else 0
        np.testing.assert_allclose(right[key], value, rtol=rtol, atol=0, err_msg=key)


def test_all_coordinates_of_what_was_not_foreseen():
    """A counter that was moved, on the host or there, and a step that a loss scaler refused."""

    def play(watch):
        p = torch.nn.Parameter(torch.linspace(-1, 1, 5000))
        optimizer = ADAM([p], lr=0.01, fused=True)
        monitor = watch(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=10**6)
        for t in range(80):
            p.grad = gradient(p, t) * scaler.get_scale()
            if t in (3, 30, 31, 50):
                p.grad[0] = torch.inf
            if t == 60:
                optimizer.state[p]["step"].add_(7)
            scaler.scale(torch.ones(()))
            scaler.step(optimizer)
            scaler.update()
        return monitor

    looked, put_off, waited = twins(play, coordinates="all")
    assert waited > 1
    assert looked.step == put_off.step == 76
    assert [(e.kind, e.step) for e in looked.trace.events] == [(e.kind, e.step) for e in put_off.trace.events]
    assert put_off.trace.total("a")[-1] == pytest.approx(looked.trace.total("a")[-1], rel=0.1)


def test_float64_beside_float32():
    def play(watch):
        optimizer = ADAM(parameters((torch.float64, torch.float32, torch.float16, torch.bfloat16)), lr=0.01)
        monitor = watch(optimizer)
        steps(optimizer, 60)
        return monitor

    *monitors, waited = twins(play, coordinates=64)
    same(*monitors)
    assert waited > 1


def test_what_changes_midway_keeps_its_place():
    """Groups are added, states loaded, replaced and cleared, counters jump, gradients change their layout."""

    def play(watch):
        first, second = parameters(), parameters()
        optimizer = torch.optim.AdamW(first, lr=0.01)
        monitor = watch(optimizer)
        steps(optimizer, 45)
        optimizer.add_param_group({"params": second, "lr": 0.003})
        steps(optimizer, 45, 45)
        optimizer.load_state_dict(optimizer.state_dict())
        steps(optimizer, 40, 90)
        optimizer.state[first[0]]["step"].add_(5)
        steps(optimizer, 10, 130)
        optimizer.param_groups[0]["amsgrad"] = True
        for p in first:
            optimizer.state[p]["max_exp_avg_sq"] = torch.zeros_like(p)
        steps(optimizer, 10, 140)
        optimizer.state[first[0]]["exp_avg_sq"] = optimizer.state[first[0]]["exp_avg_sq"].clone()
        first[0].grad = gradient(first[0], 0).t().contiguous().t()
        optimizer.step()
        steps(optimizer, 20, 150)
        optimizer.param_groups[1]["weight_decay"] = torch.tensor(0.1)
        steps(optimizer, 20, 170)
        monitor.load_state_dict(monitor.state_dict())
        steps(optimizer, 20, 190)
        return monitor

    looked, put_off, waited = twins(play, coordinates=64)
    same(looked, put_off)
    assert waited > 5
    assert {"group added", "state loaded", "step jump"} <= {e.kind for e in put_off.trace.events}


@pytest.mark.parametrize("fused", [torch.optim.Adam, torch.optim.SGD])
def test_skipped_steps_are_told_when_they_are_read(fused):
    def play(watch):
        params = parameters((torch.float32,) * 4)
        optimizer = fused(params, lr=0.01, fused=True)
        monitor = watch(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=10**6)
        for t in range(80):
            for i, p in enumerate(params):
                p.grad = gradient(p, 31 * t + i) * scaler.get_scale()
            if t in (3, 30, 31, 50):
                params[0].grad[0, 0] = torch.inf
            scaler.scale(torch.ones(()))  # prepares the scaler
            scaler.step(optimizer)
            scaler.update()
        return monitor

    looked, put_off, waited = twins(play, coordinates=64)
    same(looked, put_off)
    assert waited > 1
    assert put_off.step == 76
    assert [e.step for e in put_off.trace.events if e.kind == "skipped"] == [3, 29, 47]


def test_numbers_that_are_not_finite_and_alerts_name_the_step():
    def play(watch):
        params = parameters((torch.float32,) * 4)
        optimizer = ADAM(params, lr=0.01)
        monitor = watch(optimizer)
        steps(optimizer, 400)
        for i, p in enumerate(itertools.chain(params, params)):
            p.grad = 100 * gradient(p, i)
            if i == len(params) - 1:
                optimizer.step()
        optimizer.step()
        steps(optimizer, 7, 400)
        params[1].grad = torch.full_like(params[1], torch.nan)
        optimizer.step()
        steps(optimizer, 15, 410)
        return monitor

    looked, put_off, _ = twins(play, coordinates=64)
    assert {a.rule for a in looked.alerts} >= {"update surge", "nonfinite"}
    assert [(a.rule, a.step, a.tensor) for a in put_off.alerts] == [(a.rule, a.step, a.tensor) for a in looked.alerts]
    same(looked, put_off)


def test_whoever_asks_gets_the_newest_step(accelerator, tmp_path):
    optimizer = ADAM(parameters(), lr=0.01)
    monitor = Monitor(optimizer, tmp_path / "run", coordinates=64, strict=True)
    steps(optimizer, 200)
    questions = {
        "step": lambda: monitor.step,
        "trace": lambda: int(monitor.trace.steps[-1]),
        "scalars": lambda: monitor.scalars() and monitor._recorder.step,
        "state": lambda: monitor.state_dict()["recorder"]["step"],
        "alerts": lambda: len(monitor.alerts) or monitor._recorder.step,
    }
    for k, (name, ask) in enumerate(questions.items()):
        steps(optimizer, 2, 200 + 2 * k)
        assert monitor._later.steps > 0, name
        assert ask() == 202 + 2 * k, name
    steps(optimizer, 3, 300)
    assert monitor._later.steps > 0
    monitor.close()
    assert Trace.load(tmp_path / "run").steps[-1] == 213


def test_what_waits_is_written_when_nobody_closes(accelerator, tmp_path):
    optimizer = ADAM(parameters(), lr=0.01)
    monitor = Monitor(optimizer, tmp_path / "run", coordinates=64, strict=True)
    steps(optimizer, 203)
    assert monitor._later.steps > 0
    del optimizer, monitor
    gc.collect()
    assert Trace.load(tmp_path / "run").steps[-1] == 203


def test_a_row_takes_no_more_than_it_may(accelerator, monkeypatch):
    monkeypatch.setattr(ring, "BYTES", 5_000)
    optimizer = ADAM(parameters(), lr=0.01)
    monitor = Monitor(optimizer, coordinates=64, strict=True)
    most = 0
    for t in range(200):
        steps(optimizer, 1, t)
        most = max(most, monitor._later.steps)
    rows = monitor._later._ring.rows
    assert monitor._later._ring._there.numel() <= 5_000
    assert 1 < most <= rows
    monkeypatch.setattr(ring, "BYTES", 1_000)
    assert monitor.step == 200
    monitor._later.watch(monitor._recorder.watchers)
    steps(optimizer, 20, 200)
    assert monitor._later.steps == 0
    assert monitor.step == 220


class NoWaiting(TorchDispatchMode):
    """Refuses what makes a host wait for an accelerator: to read a number, to search, to copy."""

    WAIT = ("_local_scalar_dense", "item", "nonzero", "_to_copy", "equal", "is_nonzero", "unique")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(function.overloadpacket.__name__.startswith(name) for name in self.WAIT):
            raise AssertionError(f"{function} would wait")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("rate", "coordinates"), [(0.01, 64), (torch.tensor(0.01), 64), (0.01, "all")])
def test_nobody_waits_between_two_readings(rate, coordinates, accelerator, monkeypatch):
    """Reading a tensor on the CPU needs no copy, so what reads one for the host is refused beside the operations."""
    p = torch.nn.Parameter(torch.linspace(-1, 1, 5000))
    optimizer = torch.optim.AdamW([p], lr=rate, fused=True)
    monitor = Monitor(optimizer, coordinates=coordinates, strict=True)
    gradients = [gradient(p, t) for t in range(90)]

    def refused(*_):
        raise AssertionError("a tensor is read")

    for t, g in enumerate(gradients):
        p.grad = g
        coming = monitor._recorder.step + monitor._later.steps + 1
        schedule = monitor._recorder.schedule
        if t < OPENING + 2 or schedule.keeps(coming) or schedule.proves(coming) or schedule.proves(coming - 1):
            optimizer.step()
            continue
        with pytest.MonkeyPatch.context() as patch, NoWaiting():
            patch.setattr(sampling, "memory", refused)
            patch.setattr(ring, "memory", refused)
            patch.setattr(torch.Tensor, "__float__", refused)
            patch.setattr(torch.Tensor, "cpu", refused)
            patch.setattr(torch.Tensor, "tolist", refused)
            optimizer.step()
    assert monitor._later.steps > 3
    assert monitor.step == 90


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("coordinates", [64, "all"])
def test_nobody_waits_on_a_gpu(coordinates):
    p = torch.nn.Parameter(torch.linspace(-1, 1, 5000, device="cuda"))
    optimizer = torch.optim.AdamW([p], lr=0.01, fused=True)
    monitor = Monitor(optimizer, coordinates=coordinates, strict=True)
    gradients = [gradient(torch.empty(5000), t).cuda() for t in range(90)]
    for t, g in enumerate(gradients):
        p.grad = g
        coming = monitor._recorder.step + monitor._later.steps + 1
        schedule = monitor._recorder.schedule
        free = t > OPENING + 2 and not (
            schedule.keeps(coming) or schedule.proves(coming) or schedule.proves(coming - 1)
        )
        torch.cuda.set_sync_debug_mode("error" if free else "default")
        optimizer.step()
        torch.cuda.set_sync_debug_mode("default")
    assert monitor._later.steps > 3
    assert monitor.step == 90
