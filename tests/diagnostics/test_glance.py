"""What is read at a glance between proofs is what a closer look would have read."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch

from stepscope import Monitor
from stepscope.diagnostics import one_step
from stepscope.diagnostics.schedule import OPENING, Schedule
from stepscope.diagnostics.trace import SUMS

OPTIMIZERS = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01),
    "amsgrad, tensor rate": lambda groups: torch.optim.Adam(groups, lr=torch.tensor(0.01), amsgrad=True),
    "adam with L2, which no glance reads": lambda groups: torch.optim.Adam(groups, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.01, momentum=0.9),
    "adagrad": lambda groups: torch.optim.Adagrad(groups, lr=0.01, lr_decay=0.1),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9),
}


def parameters():
    """Return tensors of every kind: sampled, small, empty, in other layouts and precisions, sometimes idle."""
    shapes = [(40, 30), (7,), (0,), (2, 3, 5, 5)]
    tensors = [torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape) for shape in shapes]
    tensors[3] = tensors[3].to(memory_format=torch.channels_last)
    return [torch.nn.Parameter(t) for t in (*tensors, tensors[0].double() / 2, tensors[1].bfloat16() + 1)]


def train(optimizer, steps):
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for t in range(steps):
        for i, p in enumerate(params):
            noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(31 * t + i))
            # The second tensor misses some steps, so its counter lags behind its group's.
            p.grad = None if i == 1 and t % 5 == 4 else torch.empty_like(p).copy_(noise)
        optimizer.step()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("coordinates", [64, "all"])
def test_a_glance_reads_what_a_closer_look_reads(make, coordinates, monkeypatch):
    traces = []
    for always_prove in (False, True):
        if always_prove:
            monkeypatch.setattr(Schedule, "proves", lambda self, step: True)
        params = parameters()
        optimizer = make([{"params": params[:3]}, {"params": params[3:], "lr": 0.002}])
        monitor = Monitor(optimizer, coordinates=coordinates, strict=True)
        train(optimizer, OPENING + 60)
        traces.append(monitor.trace)
    glanced, looked = traces
    assert [e.kind for e in glanced.events] == [e.kind for e in looked.events]
    np.testing.assert_array_equal(glanced.total("steps"), looked.total("steps"))
    np.testing.assert_allclose(glanced.values[-1, :, :20], looked.values[-1, :, :20], rtol=1e-12)
    assert glanced.drift is not None
    np.testing.assert_allclose(glanced.drift.gram_dg, looked.drift.gram_dg, rtol=1e-6)


def shared(counter, state):
    counter.share_memory_()


def replaced(counter, state):
    counter.data = torch.tensor(float(counter))


def in_a_row(counter, state):
    state["step"] = counter.reshape(1).clone()


@pytest.mark.parametrize("move", [shared, replaced, in_a_row])
def test_a_counter_whose_memory_moves_is_read_where_it_is(move):
    p = torch.nn.Parameter(torch.linspace(-1, 1, 40))
    optimizer = torch.optim.Adam([p], lr=0.01, foreach=False)
    monitor = Monitor(optimizer, strict=True)
    train(optimizer, OPENING + 5)
    move(optimizer.state[p]["step"], optimizer.state[p])
    train(optimizer, 60)
    assert [event.kind for event in monitor.trace.events] == []
    assert monitor.trace.total("steps")[-1] == OPENING + 65


def test_the_compiled_call_has_one_signature():
    """Processes that compile one function for different types at once mix the code up in numba's store."""
    for shapes in ([(3,)], [(40, 300)], [(3,), (40, 300)]):
        for dtype in (torch.float32, torch.float64):
            params = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in shapes]
            optimizer = torch.optim.Adam([{"params": [p]} for p in params])
            with Monitor(optimizer, coordinates=50, strict=True):
                train(optimizer, OPENING + 3)
    assert len(one_step.take_step.signatures) == 1


def test_a_class_whose_groups_lack_a_setting_costs_its_tensors_alone():
    """A reader that cannot say where v lies is no reason to stand aside."""

    class Bare(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.add_(p.grad, alpha=-group["lr"])

    params = parameters()[:2]
    optimizer = Bare(params, lr=0.01)
    for group in optimizer.param_groups:
        del group["nesterov"]
    monitor = Monitor(optimizer, strict=True)
    for t in range(OPENING + 5):
        for p in params:
            p.grad = torch.full_like(p, 1.0 + t)
        optimizer.step()
    assert monitor.step == OPENING + 5
    assert "fault" not in {e.kind for e in monitor.trace.events}


def test_a_replaced_state_is_let_go():
    """After `load_state_dict` nothing of ours keeps the old moments alive."""
    params = parameters()[:2]
    optimizer = torch.optim.Adam(params)
    with Monitor(optimizer, strict=True):
        train(optimizer, OPENING + 4)
        old = [weakref.ref(optimizer.state[p]["exp_avg_sq"]) for p in params]
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        gc.collect()
        assert [ref() for ref in old] == [None, None]


# --- steps that are out of the ordinary while all tensors stand on a route -----------------------------------


class Odd(torch.optim.AdamW):
    """May refuse a step, or leave out all groups but one."""

    refuses = False
    only = None

    def step(self, closure=None):
        if self.refuses:
            return
        left_out = [] if self.only is None else [g for k, g in enumerate(self.param_groups) if k != self.only]
        kept = [(p, p.grad) for group in left_out for p in group["params"]]
        for p, _ in kept:
            p.grad = None
        super().step(closure)
        for p, gradient in kept:
            p.grad = gradient


def on_routes(narrow=False):
    """Return an optimizer of two groups after 20 steps, what takes a step more, and its monitor."""
    params = [torch.nn.Parameter(torch.linspace(-1, 1, 20)) for _ in range(2)]
    if narrow:
        params[1] = torch.nn.Parameter(params[1].detach().bfloat16())
    optimizer = Odd([{"params": [p]} for p in params], lr=0.01)
    monitor, generator = Monitor(optimizer, strict=True), torch.Generator().manual_seed(0)

    def step():
        for p in params:
            p.grad = torch.randn(20, generator=generator).to(p.dtype)
        optimizer.step()

    for _ in range(20):
        step()
    return optimizer, step, monitor


def taken(monitor):
    """Return the steps that each tensor took, and the kinds of the events."""
    trace = monitor.trace
    return trace.column("steps")[-1].tolist(), [event.kind for event in trace.events]


@pytest.mark.parametrize("narrow", [False, True])
def test_a_step_that_the_optimizer_refuses_is_skipped(narrow):
    optimizer, step, monitor = on_routes(narrow)
    optimizer.refuses = True
    step()
    optimizer.refuses = False
    step()
    assert taken(monitor) == ([21, 21], ["skipped"])


def test_a_counter_that_jumps_is_told_and_nothing_is_compared_across_the_gap():
    optimizer, step, monitor = on_routes()
    for state in optimizer.state.values():
        state["step"] += 1
    step()
    assert taken(monitor) == ([21, 21], ["step jump"])
    (compared,) = {monitor._recorder.accumulators.last[row, SUMS.index("compared")] for row in range(2)}
    assert compared == 0
    assert monitor.trace.events[0].message == "the optimizer's counter went from 20 to 22 in 2 tensors"


def test_a_state_that_is_replaced_by_its_like_goes_on():
    optimizer, step, monitor = on_routes()
    for p, state in list(optimizer.state.items()):
        optimizer.state[p] = {name: entry.clone() for name, entry in state.items()}
    step()
    assert taken(monitor) == ([21, 21], [])


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("only", [0, 1])
def test_the_group_that_steps_is_the_one_that_counts(only, narrow):
    """The other has gradients all the same, so only its counter tells."""
    optimizer, step, monitor = on_routes(narrow)
    optimizer.only = only
    step()
    optimizer.only = None
    step()
    steps, events = taken(monitor)
    assert steps[only] == 22
    assert steps[1 - only] == 21
    assert events == []


@pytest.mark.parametrize("settings", [{"coordinates": 64}, {"coordinates": "all"}])
def test_a_reading_that_is_given_up_leaves_no_job_behind(settings):
    """The second moment is dropped in the midst of the run: its memory may be anybody's by then."""

    class Drops(torch.optim.AdamW):
        def step(self, closure=None):
            for p, state in self.state.items():
                if state["step"] >= 25:
                    state.pop("exp_avg_sq", None)
                    state["step"] += 1
                    p.data.sub_(p.grad, alpha=0.01)
            if all("exp_avg_sq" in state for state in self.state.values()):
                super().step(closure)

    p = torch.nn.Parameter(torch.linspace(-1, 1, 5000))
    optimizer = Drops([p], lr=0.01)
    monitor = Monitor(optimizer, strict=True, **settings)
    for t in range(40):
        p.grad = torch.full_like(p, 1.0 + t % 2)
        optimizer.step()
    jobs = monitor._recorder.accumulators._jobs
    assert not jobs[:, [one_step.SIZE, one_step.STEADY]].any()
    assert [event.kind for event in monitor.trace.events] == ["unreadable"]
    newest = monitor._recorder.accumulators.last[0]
    assert newest[SUMS.index("g2")] == pytest.approx(
        (4.0 * 5000) * min(1, settings["coordinates"] == "all" or 64 / 5000)
    )


@pytest.mark.parametrize("counter", [0, torch.tensor(0), torch.tensor([0.0])])
def test_a_counter_that_compiled_code_cannot_read_is_read_one_by_one(counter):
    class Heavy(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.01, "momentum": 0.9})

        @torch.no_grad()
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                state = self.state[p]
                if not state:
                    state |= {"step": copy.deepcopy(counter), "momentum_buffer": torch.zeros_like(p)}
                state["step"] += 1
                state["momentum_buffer"].mul_(0.9).add_(p.grad)
                p.sub_(state["momentum_buffer"], alpha=0.01)

    p = torch.nn.Parameter(torch.linspace(-1, 1, 30))
    monitor = Monitor(Heavy([p]), strict=True)
    for t in range(60):
        p.grad = torch.full_like(p, 1.0 + t % 3)
        monitor.optimizer.step()
    assert monitor.step == 60
    assert monitor.trace.column("steps")[-1] == 60


def test_a_gradient_whose_square_overflows_is_seen_at_once():
    p = torch.nn.Parameter(torch.ones(3000))
    optimizer = torch.optim.AdamW([p], lr=0.01)
    monitor = Monitor(optimizer)
    for t in range(31):
        p.grad = torch.full_like(p, 1e25 if t == 30 else 1.0)
        optimizer.step()
    assert next((event.kind, event.step) for event in monitor.trace.events) == ("nonfinite", 31)


class Bare(torch.optim.Optimizer):
    """A gradient step whose groups have no setting but the rate."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad)


def test_groups_may_have_no_settings_exchange_them_or_hold_tensors():
    def run(optimizer, p, change=lambda group: None):
        with Monitor(optimizer, strict=True) as monitor:
            for i in range(40):
                p.grad = torch.ones_like(p)
                if i == 30:
                    change(optimizer.param_groups[0])
                optimizer.step()
        return monitor.trace

    p = torch.nn.Parameter(torch.ones(9))
    assert run(Bare([p], 0.1), p).steps[-1] == 40

    def exchange(group):
        group["other"] = group.pop("foreach")
        group["foreach"] = None
        del group["other"]

    assert run(torch.optim.Adam([p]), p, exchange).column("steps")[-1] == 40

    def arrays(group):
        group["betas"] = np.array([0.9, 0.999])

    optimizer = torch.optim.Adam([p])
    arrays(optimizer.param_groups[0])
    assert run(optimizer, p, arrays).column("steps")[-1] == 40
    betas = (torch.tensor(0.9), torch.tensor(0.99))
    decay = torch.tensor(0.0)
    optimizer = torch.optim.Adam([p], betas=betas, weight_decay=0.0, foreach=False)
    optimizer.param_groups[0]["weight_decay"] = decay
    # L2 that sets in needs θ before the step, which nobody knew in time for the first: that one is left out.
    trace = run(optimizer, p, lambda group: decay.fill_(0.5))
    assert trace.column("steps")[-1] == 39
    assert not [e for e in trace.events if e.kind == "unreadable"]
