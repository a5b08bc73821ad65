"""What every optimizer of the room owes its users, one test an obligation; `METHODS` is the table."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from stepscope import Monitor
from stepscope.remedies import (
    ADOPT,
    AdaFom,
    Adai,
    AdaiV2,
    AdaShift,
    AMSGrad,
    ClipUpdates,
    CProp,
    Demon,
    DemonAdam,
)
from stepscope.remedies.wrapper import Wrapper


def sgd(params, lr=0.03, decoupled_weight_decay=False, **more):
    """torch's SGD, which knows one kind of decay: asked for the decoupled one it shows what L2 does."""
    return torch.optim.SGD(params, lr, momentum=0.9, **more)


def adamw(params, lr=0.05, weight_decay=0.0, decoupled_weight_decay=False, **more):
    kind = torch.optim.AdamW if decoupled_weight_decay else torch.optim.Adam
    return kind(params, lr, weight_decay=weight_decay, **more)


METHODS = {
    "AdaFom": lambda params, lr=0.05, **more: AdaFom(params, lr=lr, **more),
    "AMSGrad": lambda params, lr=0.05, **more: AMSGrad(params, lr=lr, **more),
    "ADOPT": lambda params, lr=0.05, **more: ADOPT(params, lr=lr, **more),
    "ADOPT, not clipped": lambda params, lr=0.05, **more: ADOPT(params, lr=lr, clip=None, **more),
    "AdaShift": lambda params, lr=0.05, **more: AdaShift(params, lr=lr, **more),
    "AdaShift, each": lambda params, lr=0.05, **more: AdaShift(params, lr=lr, spatial="none", **more),
    "AdaShift, mean, at once": lambda params, lr=0.02, **more: AdaShift(
        params, lr=lr, spatial="mean", window=1, **more
    ),
    "Adai": lambda params, lr=0.5, **more: Adai(params, lr=lr, **more),
    "AdaiV2": lambda params, lr=0.1, **more: AdaiV2(params, lr=lr, dampening=0.5, **more),
    "CProp over SGD": lambda params, **more: CProp(sgd(params, **more)),
    "CProp over AdamW": lambda params, **more: CProp(adamw(params, **more)),
    "ClipUpdates over AdamW": lambda params, **more: ClipUpdates(adamw(params, **more)),
    "Demon over SGD": lambda params, **more: Demon(sgd(params, **more), steps=80),
    "DemonAdam": lambda params, lr=0.005, **more: DemonAdam(params, 80, lr=lr, **more),
    "DemonAdam, average": lambda params, lr=0.05, **more: DemonAdam(params, 80, lr=lr, average=True, **more),
}
"""Each with a rate that suits the problem below; `more` are settings that all of them have."""
STEPS = 30


@pytest.fixture(params=METHODS)
def make(request):
    return METHODS[request.param]


class Problem:
    """Least squares on noise, a batch a step: a matrix and a vector to be learned, from a known start."""

    def __init__(self, dtype=torch.float32, seed=0):
        source = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(200, 8, 6, generator=source, dtype=torch.float64).to(dtype)
        self.truth = torch.randn(6, 4, generator=source, dtype=torch.float64).to(dtype)
        self.noise = 0.1 * torch.randn(200, 8, 4, generator=source, dtype=torch.float64).to(dtype)
        self.matrix = nn.Parameter(torch.randn(6, 4, generator=source, dtype=torch.float64).to(dtype))
        self.vector = nn.Parameter(torch.ones(4, dtype=dtype))
        self.params = [self.matrix, self.vector]

    def loss(self, t, sign=1.0):
        t = t % len(self.inputs)
        residual = self.inputs[t] @ (self.matrix - self.truth) + self.vector - self.noise[t]
        return sign * residual.square().mean()

    def train(self, optimizer, begin=0, steps=STEPS, sign=1.0):
        for t in range(begin, begin + steps):
            optimizer.zero_grad()
            self.loss(t, sign).backward()
            optimizer.step()
        return [p.detach().clone() for p in self.params]


def same(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def over_sgd(optimizer):
    return isinstance(optimizer, Wrapper) and isinstance(optimizer.optimizer, torch.optim.SGD)


def plain_run(make, steps=STEPS, **more):
    problem = Problem()
    return problem.train(make(problem.params, **more), steps=steps)


def test_descends_on_a_quadratic(make):
    problem = Problem()
    before = problem.loss(0).item()
    problem.train(make(problem.params), steps=400)
    assert problem.loss(0).item() < 0.1 * before


def test_a_state_goes_round_in_the_midst_of_a_run_to_the_bit(make):
    problem, file = Problem(), io.BytesIO()
    optimizer = make(problem.params)
    problem.train(optimizer)
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = make(problem.params)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert same(problem.train(resumed, begin=STEPS), plain_run(make, 2 * STEPS))


def test_a_narrow_state_goes_round_as_precise_as_it_was(make):
    whole, halves = Problem(torch.bfloat16), Problem(torch.bfloat16)
    first = make(halves.params)
    halves.train(first)
    second = make(halves.params)
    second.load_state_dict(first.state_dict())
    assert same(halves.train(second, begin=STEPS), whole.train(make(whole.params), steps=2 * STEPS))


@pytest.mark.parametrize("name", ["AMSGrad", "AdaShift", "Adai"])
def test_the_states_of_another_optimizer_are_refused_in_a_sentence(name):
    problem = Problem()
    other = torch.optim.Adam(problem.params)
    problem.train(other)
    with pytest.raises(ValueError, match=f"`state_dict` must be that of a {name}, got states without"):
        METHODS[name](problem.params).load_state_dict(other.state_dict())


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_goes_on_as_the_original_would(make, again):
    problem = Problem()
    optimizer = make(problem.params)
    problem.train(optimizer)
    problem, optimizer = again((problem, optimizer))
    assert same(problem.train(optimizer, begin=STEPS), plain_run(make, 2 * STEPS))


def test_two_groups_have_settings_of_their_own(make):
    slow, fast = Problem(), Problem()
    optimizer = make([{"params": [slow.matrix], "lr": 0.0}, {"params": [slow.vector]}])
    frozen, moved = slow.train(optimizer)
    assert torch.equal(frozen, Problem().matrix)
    assert not torch.equal(moved, fast.vector)


def test_a_group_may_come_later(make):
    problem = Problem()
    optimizer = make([problem.matrix])
    problem.train(optimizer)
    optimizer.add_param_group({"params": [problem.vector]})
    before = problem.vector.detach().clone()
    problem.train(optimizer, begin=STEPS)
    assert not torch.equal(problem.vector, before)


def test_what_has_no_gradient_stays(make):
    problem, idle = Problem(), nn.Parameter(torch.ones(3))
    problem.train(make([*problem.params, idle]))
    assert torch.equal(idle, torch.ones(3))
    assert same([p.detach() for p in problem.params], plain_run(make))


def test_a_gradient_of_zero_moves_nothing(make):
    parameter = nn.Parameter(torch.ones(3))
    optimizer = make([parameter])
    for _ in range(STEPS):
        parameter.grad = torch.zeros(3)
        optimizer.step()
    assert torch.equal(parameter.detach(), torch.ones(3))


def test_nan_goes_where_adam_lets_it_go(make):
    parameter = nn.Parameter(torch.ones(3))
    optimizer = make([parameter])
    for _ in range(STEPS):
        parameter.grad = torch.tensor([1.0, torch.nan, 1.0])
        optimizer.step()
    assert parameter[1].isnan()


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned(make):
    problem = Problem()
    optimizer, losses = make(problem.params), []

    def closure():
        optimizer.zero_grad()
        losses.append(problem.loss(len(losses)))
        losses[-1].backward()
        return losses[-1]

    with torch.no_grad():
        returned = [optimizer.step(closure) for _ in range(STEPS)]
    assert returned == losses
    assert same([p.detach() for p in problem.params], plain_run(make))


def test_a_scheduler_sets_the_rate(make):
    problem, by_hand = Problem(), Problem()
    optimizer = make(problem.params)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    other = make(by_hand.params)
    for t in range(STEPS):
        problem.train(optimizer, t, 1)
        scheduler.step()
        by_hand.train(other, t, 1)
        for group in other.param_groups:
            group["lr"] *= 0.9
    assert same(problem.params, by_hand.params)


def test_a_loss_scaler_scales_and_skips(make):
    problem = Problem()
    optimizer = make(problem.params)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)  # powers of two leave every bit
    for t in range(STEPS):
        for factor in (float("inf"), 1.0):  # of every two calls one is to be skipped
            optimizer.zero_grad()
            scaler.scale(factor * problem.loss(t)).backward()
            scaler.step(optimizer)
            scaler.update(2.0**10)
    assert same([p.detach() for p in problem.params], plain_run(make))


def test_together_is_as_one_by_one(make):
    assert same(plain_run(make, foreach=True), plain_run(make, foreach=False))


def test_maximizing_is_minimizing_the_negative(make):
    climbing = Problem()
    found = climbing.train(make(climbing.params, maximize=True), sign=-1.0)
    assert same(found, plain_run(make))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_arrive_nearby(make, dtype):
    """Within a part of the way that was gone: a rate a tenth too high would not pass."""
    narrow, single = Problem(dtype), Problem()
    start = [p.detach().clone() for p in single.params]
    found = narrow.train(make(narrow.params))
    expected = single.train(make(single.params))
    for x, y, x0 in zip(found, expected, start, strict=True):
        assert x.dtype is dtype
        assert (x.float() - y).norm() < {torch.bfloat16: 0.1, torch.float16: 0.02}.get(dtype, 1e-5) * (y - x0).norm()


def test_complex_numbers_are_pairs(make):
    parts = nn.Parameter(torch.ones(3, 2))
    whole = nn.Parameter(torch.view_as_complex(torch.ones(3, 2)))
    optimizer = make([parts, whole])
    for t in range(STEPS):
        g = torch.randn(3, 2, generator=torch.Generator().manual_seed(t))
        parts.grad, whole.grad = g, torch.view_as_complex(g)
        optimizer.step()
    # torch's SGD rounds complex numbers otherwise than pairs, by a unit in the last place a step.
    slack = STEPS * torch.finfo(torch.float32).eps if over_sgd(optimizer) else 0.0
    assert torch.allclose(torch.view_as_real(whole.detach()), parts.detach(), rtol=slack, atol=slack)


def test_decay_shrinks(make):
    for decoupled in (False, True):
        start = nn.Parameter(torch.full((3,), 2.0))
        optimizer = make([start], weight_decay=0.1, decoupled_weight_decay=decoupled)
        for _ in range(STEPS):
            start.grad = torch.zeros(3)
            optimizer.step()
        assert (start < 2.0).all()
        assert (start > 0.0).all()


def test_the_gradient_is_left_as_it_is(make):
    problem = Problem()
    optimizer = make(problem.params, weight_decay=0.1)
    problem.loss(0).backward()
    before = [p.grad.clone() for p in problem.params]
    optimizer.step()
    assert same([p.grad for p in problem.params], before)


def test_step_hooks_are_called(make):
    problem = Problem()
    optimizer, calls = make(problem.params), []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    problem.train(optimizer, steps=2)
    assert calls == ["before", "after"] * 2


def test_sparse_gradients_are_refused_in_a_sentence(make):
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = make(table.parameters())
    table(torch.tensor([1])).sum().backward()
    if isinstance(optimizer, Demon):  # it leaves gradients to torch's SGD, which takes sparse ones
        optimizer.step()
        return
    with pytest.raises(RuntimeError, match="dense gradients, got a sparse one; make the embedding with sparse=False"):
        optimizer.step()


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"lr": float("nan")}, {"weight_decay": -0.1}])
def test_settings_out_of_range_are_refused_in_a_sentence(make, bad):
    name = min(bad)
    sentence = f"`{name}` must be a finite number from 0 on"
    if isinstance(make([torch.ones(1)]), Wrapper):  # what torch says of its own; of NaN its SGD says nothing
        sentence, bad = f"Invalid {name.replace('lr', 'learning rate')}", {name: -1.0}
    with pytest.raises(ValueError, match=sentence):
        make([torch.ones(1)], **bad)


@pytest.mark.parametrize("more", [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_monitor_reads_the_stepsizes_and_proves_them(make, dtype, more):
    problem = Problem(dtype)
    optimizer = make(problem.params, **more)
    monitor = Monitor(optimizer, strict=True)
    problem.train(optimizer, steps=100)
    trace = monitor.trace
    assert all(tensor.formula for tensor in trace.tensors), trace.events
    assert trace.steps[-1] == 100
    monitor.close()
