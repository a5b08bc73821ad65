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
