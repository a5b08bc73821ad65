"""The edge of stability: known curvatures, a dense twin, real steps on both sides of it, and a run left as it was."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from stepscope import Monitor
from stepscope.diagnostics import edge as edge_module
from stepscope.diagnostics.edge import edge

CURVATURES = torch.linspace(0.1, 5.0, 40, dtype=torch.float64)
TURN = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
HESSIAN = TURN @ torch.diag(CURVATURES) @ TURN.T
FROZEN = dict(eps=1e60)  # so far above sqrt(v) that e = lr/eps whatever the gradients are


class Bowl:
    """x·Hx/2 with curvatures 0.1 … 5, steps of one optimizer on it."""

    def __init__(self, kind, start=1.0, **settings):
        self.x = nn.Parameter(torch.full((40,), start, dtype=torch.float64))
        self.optimizer = kind([self.x], **settings)

    def loss(self):
        return self.x @ HESSIAN @ self.x / 2

    def step(self, times=1):
        for _ in range(times):
            self.optimizer.zero_grad()
            self.loss().backward()
            self.optimizer.step()

    def edge(self):
        return edge(self.optimizer, self.loss)

    def set_rate(self, lr):
        self.optimizer.param_groups[0]["lr"] = lr


# --- theorems ------------------------------------------------------------------------------------------------------

THRESHOLDS = {
    "SGD": (torch.optim.SGD, dict(lr=0.1), 2 / 0.1),
    "momentum": (torch.optim.SGD, dict(lr=0.1, momentum=0.8), 2 * 1.8 / 0.1),
    "dampened": (torch.optim.SGD, dict(lr=0.1, momentum=0.8, dampening=0.8), 2 * 1.8 / (0.2 * 0.1)),
    "nesterov": (torch.optim.SGD, dict(lr=0.1, momentum=0.8, nesterov=True), 2 * 1.8 / (2.6 * 0.1)),
    "Adam": (torch.optim.Adam, dict(lr=0.01), 38 / 0.01),
    "Adam (0.5)": (torch.optim.Adam, dict(lr=0.01, betas=(0.5, 0.9)), 6 / 0.01),
    "AMSGrad": (torch.optim.Adam, dict(lr=0.01, amsgrad=True), 38 / 0.01),
    "AdamW": (torch.optim.AdamW, dict(lr=0.01, weight_decay=0.5), (2 - 0.005) * 19 / 0.01),
    "RMSprop": (torch.optim.RMSprop, dict(lr=0.01), 2 / 0.01),
    "RMSprop, momentum": (torch.optim.RMSprop, dict(lr=0.01, momentum=0.9), 3.8 / 0.01),
    "Adagrad": (torch.optim.Adagrad, dict(lr=0.01), 2 / 0.01),
}


@pytest.mark.parametrize(("kind", "settings", "threshold"), THRESHOLDS.values(), ids=THRESHOLDS.keys())
def test_thresholds_are_those_of_the_frozen_step(kind, settings, threshold):
    bowl = Bowl(kind, **settings)
    bowl.step(3)
    found = bowl.edge()
    assert found.threshold == pytest.approx(threshold, rel=1e-12)
    assert found.ratio == pytest.approx(found.sharpness / found.threshold, rel=1e-12)


@pytest.mark.parametrize("start", [1.0, -3.0])
def test_sgd_sees_the_largest_curvature_itself(start):
    bowl = Bowl(torch.optim.SGD, start, lr=0.1)
    found = bowl.edge()  # needs no state, hence no step
    assert found.sharpness == pytest.approx(5.0, rel=1e-3)  # the accuracy that is asked of Lanczos
    assert edge_module.BASIS <= found.iterations <= 200


FROZEN_STEPS = {
    "SGD": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, dict(momentum=0.8)),
    "dampened": (torch.optim.SGD, dict(momentum=0.8, dampening=0.3)),
    "nesterov": (torch.optim.SGD, dict(momentum=0.8, nesterov=True)),
    "L2": (torch.optim.SGD, dict(momentum=0.5, weight_decay=1.0)),
    "Adam": (torch.optim.Adam, FROZEN),
    "Adam, L2": (torch.optim.Adam, dict(weight_decay=2.0, **FROZEN)),
    "AdamW": (torch.optim.AdamW, dict(weight_decay=2e-62, **FROZEN)),  # lr·weight_decay = 0.14 at the edge
    "NAdam": (torch.optim.NAdam, dict(momentum_decay=1.0, **FROZEN)),  # μ at its end after a few steps
    "RMSprop": (torch.optim.RMSprop, dict(momentum=0.6, **FROZEN)),
}


@pytest.mark.parametrize(("kind", "settings"), FROZEN_STEPS.values(), ids=FROZEN_STEPS.keys())
def test_real_steps_shrink_below_the_edge_and_grow_beyond_it(kind, settings):
    """Two per cent on either side: SGD, the slowest of these, then grows or shrinks by 4 % a step."""
    for ratio in (0.98, 1.02):
        bowl = Bowl(kind, lr=1e-9, **settings)
        bowl.step(200)  # corrections of bias and of schedules fade
        decay = settings["weight_decay"] if kind is torch.optim.AdamW else 0.0
        bowl.set_rate(2 * ratio / (2 * bowl.edge().ratio / 1e-9 + ratio * decay))  # ratio = c·lr/(2 - lr·decay)
        assert bowl.edge().ratio == pytest.approx(ratio, rel=2e-3)  # twice the accuracy of Lanczos
        with torch.no_grad():
            bowl.x += TURN[:, -1]
        bowl.step(50)
        early = bowl.x.detach().norm()
        bowl.step(400)
        assert (bowl.x.detach().norm() > early) == (ratio > 1)


def test_groups_with_different_momenta_have_one_edge():
    """Along one eigenvector of diag(S)·H that mixes both groups, steps still flip their sign exactly at ratio 1."""
    growth = {}
    for ratio in (0.98, 1.02):
        x, y = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
        optimizer = torch.optim.SGD([dict(params=[x], momentum=0.9), dict(params=[y], lr=1e-5)], lr=1e-6)

        def loss(x=x, y=y):
            return (2 * x * x + 2 * x * y + y * y).sum()

        factor = ratio / edge(optimizer, loss).ratio
        for group in optimizer.param_groups:
            group["lr"] *= factor
        sizes = []
        for _ in range(1000):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
            sizes.append(float(x.detach().abs() + y.detach().abs()))
        growth[ratio] = sizes[-1] / sizes[500]
    assert growth[0.98] < 1 < growth[1.02]


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 5))
@settings(max_examples=15)
def test_the_ratio_of_adam_knows_no_scale_of_the_loss(scale, seed):
    """With eps = 0, e goes like 1/loss and H like the loss."""

    def ratio(factor):
        torch.manual_seed(seed)
        x = nn.Parameter(torch.randn(12, dtype=torch.float64))
        optimizer = torch.optim.Adam([x], eps=0.0)
        for _ in range(5):
            optimizer.zero_grad()
            (factor * torch.cosh(x).log().sum()).backward()
            optimizer.step()
        return edge(optimizer, lambda: factor * torch.cosh(x).log().sum()).ratio

    assert ratio(scale) == pytest.approx(ratio(1.0), rel=1e-9)


def test_a_loss_without_curvature_and_one_that_bends_down():
    bowl = Bowl(torch.optim.SGD, lr=0.1)
    assert edge(bowl.optimizer, bowl.x.sum).ratio == 0.0
    assert edge(bowl.optimizer, lambda: -(bowl.x * bowl.x).sum()).sharpness == pytest.approx(-2.0, rel=1e-3)
    ascent = Bowl(torch.optim.SGD, lr=0.1, maximize=True)
    assert edge(ascent.optimizer, lambda: -ascent.loss()).sharpness == pytest.approx(5.0, rel=1e-3)


def test_a_rate_of_zero_and_a_loss_that_is_not_finite():
    bowl = Bowl(torch.optim.SGD, lr=0.0)
    found = bowl.edge()
    assert (found.threshold, found.ratio) == (np.inf, 0.0)
    assert np.isnan(found.sharpness)
    bowl.set_rate(0.1)
    assert np.isnan(edge(bowl.optimizer, lambda: bowl.loss() * float("nan")).ratio)


def test_lanczos_that_is_cut_short_still_bounds_from_below(monkeypatch):
    monkeypatch.setattr(edge_module, "RESTARTS", 1)
    monkeypatch.setattr(edge_module, "ACCURACY", 1e-14)
    found = Bowl(torch.optim.SGD, lr=0.1).edge()
    assert 0.5 * 5.0 < found.sharpness <= 5.0 * (1 + 1e-12)


# --- twin ----------------------------------------------------------------------------------------------------------


def network(width=6):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2)).double()
    x, y = torch.randn(16, 4, dtype=torch.float64), torch.randn(16, 2, dtype=torch.float64)
    return model, lambda: F.mse_loss(model(x), y)


@pytest.mark.parametrize("width", [2, 6], ids=["built whole", "Lanczos"])
def test_dense_twin(width):
    """The whole Hessian, column by column, and eigenvalues of P⁻¹H as it stands."""
    model, loss = network(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(20):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    params = list(model.parameters())
    grads = torch.autograd.grad(loss(), params, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in grads])
    rows = [torch.autograd.grad(entry, params, retain_graph=True) for entry in flat]
    hessian = torch.stack([torch.cat([r.reshape(-1) for r in row]) for row in rows])
    moments = torch.cat([optimizer.state[p]["exp_avg_sq"].reshape(-1) for p in params])
    preconditioner = (1 - 0.9**20) * ((moments / (1 - 0.999**20)).sqrt() + 1e-8)
    expected = torch.linalg.eigvals(hessian / preconditioner[:, None]).real.max()
    assert edge(optimizer, loss).sharpness == pytest.approx(float(expected), rel=1e-3)


# --- a run left as it was --------------------------------------------------------------------------------------------


class Restless(nn.Module):
    """Batch norm, dropout and attention: buffers and random numbers move in every forward pass."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.3))
        self.outer = nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        y = self.inner(x).reshape(-1, 2, 2, 4)
        return self.outer(F.scaled_dot_product_attention(y, y, y, dropout_p=0.1).reshape(-1, 8)[: len(x)])


def train(measured, steps=12):
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the generator that a user's code may draw from
    model = Restless()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    ratios = []
    for _ in range(steps):
        x = torch.randn(16, 8) + random.random() + np.random.rand()  # noqa: NPY002

        def loss(x=x):
            random.random()
            np.random.rand()  # noqa: NPY002
            return model(x).square().mean()

        optimizer.zero_grad()
        loss().backward()
        if measured and optimizer.state:
            ratios.append(edge(optimizer, loss).ratio)  # between backward and step
        optimizer.step()
        if measured:
            with torch.no_grad():
                ratios.append(edge(optimizer, loss).ratio)
    return model, optimizer, ratios


def test_a_measured_run_is_bit_identical():
    (plain, free, _), (watched, seen, ratios) = train(False), train(True)
    assert np.isfinite(ratios).all()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, watched.state_dict()[name]), name
    for p, q in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
        assert torch.equal(free.state[p]["exp_avg_sq"], seen.state[q]["exp_avg_sq"])


def test_gradients_buffers_and_graph_are_the_same_objects():
    model, optimizer, _ = train(False, 2)
    frozen = model.outer.bias.requires_grad_(False)
    x = torch.randn(16, 8)
    loss = model(x).square().mean()  # a graph that is alive while the edge is measured
    grads = [p.grad for p in model.parameters()]
    buffers, versions = list(model.buffers()), [b._version for b in model.buffers()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002

    def closure():
        optimizer.zero_grad()  # a habit of closures
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        return model(x).square().mean()

    edge(optimizer, closure)
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))
    assert all(a is b for a, b in zip(model.buffers(), buffers, strict=True))
    assert [b._version for b in model.buffers()] == versions
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2][1])  # noqa: NPY002
    assert not frozen.requires_grad
    assert model.training
    loss.backward()


def test_everything_is_put_back_after_an_error_too():
    model, optimizer, _ = train(False, 2)
    grads, buffers, state = [p.grad for p in model.parameters()], list(model.buffers()), torch.get_rng_state()

    def closure():
        model(torch.randn(16, 8))
        raise KeyError("the user's own")

    with pytest.raises(KeyError, match="own"):
        edge(optimizer, closure)
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))
    assert all(a is b for a, b in zip(model.buffers(), buffers, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    model(torch.randn(16, 8))
    assert not nn.modules.module._global_forward_pre_hooks


# --- through the monitor -------------------------------------------------------------------------------------------


def test_the_monitor_records_it():
    bowl = Bowl(torch.optim.SGD, lr=0.1)
    with Monitor(bowl.optimizer, strict=True) as monitor:
        bowl.step(10)
        first = monitor.edge(bowl.loss)
        bowl.step(10)
        bowl.set_rate(0.2)
        second = monitor.edge(bowl.loss)
    scalar = monitor.trace.scalars["edge/ratio"]
    assert (scalar.last[-1], scalar.count[-1]) == (second.ratio, 2)
    assert scalar.total[-1] == pytest.approx(first.ratio + second.ratio)
    assert second.ratio == pytest.approx(2 * first.ratio)
    assert monitor.trace.scalars["edge/sharpness"].last[-1] == pytest.approx(5.0, rel=1e-3)
    with pytest.raises(RuntimeError, match="closed after step 20"):
        monitor.edge(bowl.loss)


# --- at the door -----------------------------------------------------------------------------------------------------


def test_what_it_cannot_measure_it_says_in_one_sentence():
    bowl = Bowl(torch.optim.Adam)
    with pytest.raises(ValueError, match=r"`optimizer` must have taken a step, got Adam with an empty state"):
        bowl.edge()
    bowl.step()
    with pytest.raises(ValueError, match=r"got float\.$"):
        edge(bowl.optimizer, lambda: 1.0)
    with pytest.raises(ValueError, match=r"got shape \(40,\)\.$"):
        edge(bowl.optimizer, lambda: bowl.x * 1)
    with pytest.raises(ValueError, match=r"got shape \(\) without a graph"):
        edge(bowl.optimizer, lambda: bowl.loss().detach())

    def backward():
        loss = bowl.loss()
        loss.backward()
        return loss

    with pytest.raises(ValueError, match="differentiated twice"):
        edge(bowl.optimizer, backward)
    with pytest.raises(ValueError, match="readable elementwise stepsize, got LBFGS"):
        edge(torch.optim.LBFGS([bowl.x]), bowl.loss)
    lasting = Bowl(torch.optim.Adadelta)
    lasting.step()
    lasting.edge()
    lasting.optimizer.zero_grad()
    with pytest.raises(ValueError, match="measure before `zero_grad`"):
        lasting.edge()
    wave = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="real parameters"):
        edge(torch.optim.SGD([wave], lr=0.1), lambda: wave.abs().square().sum())


@pytest.mark.parametrize("broken", ["a parameter", "second moment", "learning rate"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_run_that_broke_has_no_edge(broken, bad):
    bowl = Bowl(torch.optim.Adam)
    bowl.step()
    with torch.no_grad():
        if broken == "a parameter":
            bowl.x[3] = bad
        elif broken == "second moment":
            bowl.optimizer.state[bowl.x]["exp_avg_sq"][3] = bad
        else:
            bowl.set_rate(bad)
    with pytest.raises(ValueError, match=f"finite numbers, got NaN or infinities in .*{broken}") as caught:
        edge(bowl.optimizer, bowl.x.sum)  # a loss that hardly minds
    assert "\n" not in str(caught.value)


def test_a_loss_in_place_of_a_function_is_refused():
    bowl = Bowl(torch.optim.SGD)
    with pytest.raises(ValueError, match=r"`closure` must be a function that returns the loss, got Tensor; write") as e:
        edge(bowl.optimizer, bowl.loss())
    assert "\n" not in str(e.value)


# --- the paper's finding ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("lr", "beta2"), [(1e-3, 0.999), (1e-2, 0.999), (3e-3, 0.99)])
def test_full_batch_adam_climbs_to_the_edge_and_stays_there(lr, beta2):
    """After Cohen et al. 2022: whatever the learning rate, the ratio comes to sit near 1.

    It saws about a mean somewhat below 1 (synthetic/cohen2022.py), so 10 % are allowed on the mean of the last third.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float32)
    y = F.one_hot(torch.tensor(digits.target), 10).float()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, beta2))
    ratios = []
    for t in range(1, 2101):
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
        if t % 70 == 0 or t == 5:
            ratios.append(edge(optimizer, lambda: F.mse_loss(model(x), y)).ratio)
    assert ratios[0] < 0.75  # it did not begin there
    assert np.mean(ratios[-10:]) == pytest.approx(1.0, abs=0.1)
    assert max(ratios[-10:]) < 1.2


def test_a_copy_of_the_run_is_measured_alike():
    model, optimizer, _ = train(False, 3)
    twin = copy.deepcopy((model, optimizer))
    x = torch.randn(32, 8)
    model.eval(), twin[0].eval()
    here, there = edge(optimizer, lambda: model(x).square().mean()), edge(twin[1], lambda: twin[0](x).square().mean())
    assert here.ratio == there.ratio
