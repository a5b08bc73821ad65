"""Every torch optimizer in every form: the run is not changed, the step is proved, the sums are the twin's."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from stepscope import Monitor
from stepscope.diagnostics.trace import COLUMNS

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
O = torch.optim  # noqa: E741

RULES: dict[str, tuple[type[torch.optim.Optimizer], dict]] = {
    "sgd": (O.SGD, {"lr": 0.4}),
    "sgd momentum": (O.SGD, {"lr": 0.4, "momentum": 0.9}),
    "sgd dampening": (O.SGD, {"lr": 0.4, "momentum": 0.9, "dampening": 0.3}),
    "sgd nesterov": (O.SGD, {"lr": 0.4, "momentum": 0.9, "nesterov": True}),
    "sgd l2": (O.SGD, {"lr": 0.4, "momentum": 0.9, "weight_decay": 0.1}),
    "adam": (O.Adam, {"lr": 0.05}),
    "adam l2": (O.Adam, {"lr": 0.05, "weight_decay": 0.1}),
    "adam decoupled": (O.Adam, {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "amsgrad": (O.Adam, {"lr": 0.05, "amsgrad": True}),
    "adamw": (O.AdamW, {"lr": 0.05, "weight_decay": 0.1}),
    "adamw amsgrad": (O.AdamW, {"lr": 0.05, "amsgrad": True}),
    "adagrad": (O.Adagrad, {"lr": 0.4}),
    "adagrad decay": (O.Adagrad, {"lr": 0.4, "lr_decay": 0.1, "weight_decay": 0.1}),
    "rmsprop": (O.RMSprop, {"lr": 0.05}),
    "rmsprop centred": (O.RMSprop, {"lr": 0.05, "centered": True}),
    "rmsprop momentum": (O.RMSprop, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}),
    "rmsprop all": (O.RMSprop, {"lr": 0.05, "momentum": 0.9, "centered": True}),
    "nadam": (O.NAdam, {"lr": 0.05}),
    "nadam decoupled": (O.NAdam, {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "radam": (O.RAdam, {"lr": 0.05}),
    "radam decoupled": (O.RAdam, {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "adamax": (O.Adamax, {"lr": 0.05, "weight_decay": 0.1}),
    "adadelta": (O.Adadelta, {"lr": 30.0}),
    "adadelta l2": (O.Adadelta, {"lr": 30.0, "weight_decay": 0.1}),
    "adafactor": (O.Adafactor, {"lr": 0.4}),
    "adafactor decay": (O.Adafactor, {"lr": 0.4, "weight_decay": 0.1}),
    "asgd": (O.ASGD, {"lr": 0.4}),
    "asgd l2": (O.ASGD, {"lr": 0.4, "weight_decay": 0.1}),
}
FUSED = (O.SGD, O.Adam, O.AdamW, O.Adagrad)


def forms(rule: type[torch.optim.Optimizer]) -> list[dict]:
    return [{"foreach": False}, {"foreach": True}, *([{"fused": True}] if rule in FUSED else [])]


CASES = [
    pytest.param(rule, {**settings, **form, **sign}, id=f"{name} {[*form, *sign]} {[*form.values()]}")
    for name, (rule, settings) in RULES.items()
    for form in forms(rule)
    for sign in ({}, {"maximize": True})
]


def train(rule, settings, steps, dtype, watch):
    """Train a small regression with two groups, a frozen tensor and a schedule; return what `watch` made of it."""
    torch.manual_seed(3)
    x, y = torch.randn(steps, 8, 6, dtype=dtype), torch.randn(steps, 8, 3, dtype=dtype)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).to(dtype)
    model[0].bias.requires_grad_(False)
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": settings["lr"] / 2}]
    optimizer = rule(groups, **settings)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.9)
    watched = watch(optimizer, model)
    for t in range(steps):
        loss = (model(x[t]) - y[t]).square().mean() * (-1 if settings.get("maximize") else 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if watched is not None:
            watched(t + 1)
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize(("rule", "settings"), CASES)
def test_the_run_is_unchanged_and_every_step_is_proved(rule, settings):
    monitors = []

    def watch(optimizer, model):
        monitors.append(Monitor(optimizer, model=model, coordinates=11, strict=True))
        return None

    plain = train(rule, settings, 40, torch.float32, lambda *_: None)
    monitored = train(rule, settings, 40, torch.float32, watch)
    assert all(torch.equal(p, q) for p, q in zip(plain, monitored, strict=True))
    (monitor,) = monitors
    assert [e for e in monitor.trace.events if e.kind == "unreadable"] == []
    for w in monitor._recorder.watchers:
        # Beside the rounding of θ in float32, which no formula can know.
        assert w.proof < 1e-5 or w.name == "0.bias"
    monitor.close()


def twin_stepsizes(optimizer, param, group, t, before):
    """The effective stepsize by the plain formulas, elementwise in Python floats."""
    kind, state = type(optimizer), optimizer.state[param]
    lr = group["lr"]
    flat = lambda key: [float(v) for v in state[key].reshape(-1)]  # noqa: E731
    if kind is O.SGD:
        return [lr] * param.numel()
    if kind in (O.Adam, O.AdamW):
        b1, b2 = group["betas"]
        v = flat("max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq")
        return [lr / (1 - b1**t) / (math.sqrt(vi) / math.sqrt(1 - b2**t) + group["eps"]) for vi in v]
    if kind is O.Adagrad:
        lr = lr / (1 + (t - 1) * group["lr_decay"])
        return [lr / (math.sqrt(v) + group["eps"]) for v in flat("sum")]
    if kind is O.RMSprop:
        square = flat("square_avg")
        mean = flat("grad_avg") if group["centered"] else [0.0] * len(square)
        return [lr / (math.sqrt(s - m * m) + group["eps"]) for s, m in zip(square, mean, strict=True)]
    if kind is O.NAdam:
        b2 = group["betas"][1]
        return [lr / (math.sqrt(v) / math.sqrt(1 - b2**t) + group["eps"]) for v in flat("exp_avg_sq")]
    if kind is O.Adamax:
        return [lr / (1 - group["betas"][0] ** t) / u for u in flat("exp_inf")]
    if kind is O.Adadelta:
        old = before.get("acc_delta", [0.0] * param.numel())
        eps = group["eps"]
        return [lr * math.sqrt(d + eps) / math.sqrt(s + eps) for d, s in zip(old, flat("square_avg"), strict=True)]
    if kind is O.RAdam:
        b1, b2 = group["betas"]
        inf = 2 / (1 - b2) - 1
        rho = inf - 2 * t * b2**t / (1 - b2**t)
        if rho <= 5:
            return [lr / (1 - b1**t)] * param.numel()
        rect = math.sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho))
        return [
            lr * rect * math.sqrt(1 - b2**t) / (1 - b1**t) / (math.sqrt(v) + group["eps"]) for v in flat("exp_avg_sq")
        ]
    if kind is O.ASGD:
        return [before.get("eta", lr)] * param.numel()
    raise NotImplementedError(kind)


TWINS = [case for case in CASES if case.values[0] is not O.Adafactor and "maximize" not in case.values[1]]


@pytest.mark.parametrize(("rule", "settings"), TWINS)
def test_the_accumulators_equal_a_plain_python_twin(rule, settings):
    """a, b, c, c+, Σe², Σδ² of every tensor in float64, to 1e-10 relative."""
    monitors, sums, previous, before, start = [], {}, {}, {}, {}

    def watch(optimizer, model):
        monitors.append(Monitor(optimizer, model=model, coordinates="all", strict=True))
        l2 = settings.get("weight_decay", 0.0) if not settings.get("decoupled_weight_decay") else 0.0
        l2 = 0.0 if rule is O.AdamW else l2
        names = {id(p): n for n, p in model.named_parameters()}

        def remember(*_):
            for group in optimizer.param_groups:
                for p in group["params"]:
                    start[p] = p.detach().clone()
                    state = optimizer.state.get(p, {})
                    before[p] = {}
                    if "acc_delta" in state:
                        before[p]["acc_delta"] = [float(v) for v in state["acc_delta"].reshape(-1)]
                    if "eta" in state:
                        before[p]["eta"] = float(state["eta"])
                    start[p, "g"] = None if p.grad is None else p.grad.clone()

        def measure(*_):
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    total = sums.setdefault(names[id(p)], dict.fromkeys(("a", "b", "c", "c_plus", "e2", "delta2"), 0.0))
                    t = monitors[0].step + 1
                    e = twin_stepsizes(optimizer, p, group, t, before[p])
                    g = (start[p, "g"] + l2 * start[p]).reshape(-1).tolist()
                    for i, (ei, gi) in enumerate(zip(e, g, strict=True)):
                        total["a"] += ei
                        total["b"] += (ei * gi) ** 2
                        total["e2"] += ei**2
                        if (p, i) in previous:
                            d = ei - previous[p, i]
                            total["c"] += abs(d)
                            total["c_plus"] += max(0.0, d)
                            total["delta2"] += d * d
                        previous[p, i] = ei

        # Registered after the monitor's own hooks would see `step` already counted; so read it before.
        optimizer._optimizer_step_pre_hooks[10**9] = remember
        hooks = optimizer._optimizer_step_post_hooks
        first = next(iter(hooks))
        own = hooks.pop(first)
        hooks[10**9] = measure
        hooks[first] = own
        return None

    train(rule, settings, 30, torch.float64, watch)
    trace = monitors[0].trace
    for p, tensor in enumerate(trace.tensors):
        for name, expected in sums.get(tensor.name, {}).items():
            got = trace.values[-1, p, COLUMNS.index(name)]
            assert got == pytest.approx(expected, rel=1e-10, abs=1e-300), (tensor.name, name)
    assert len(sums) == 3
    monitors[0].close()


def test_the_parts_of_the_oscillation_add_up():
    """c_plus - (c - c_plus) = e_T - e_1 telescopes, and the three parts bound c by the triangle inequality."""
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(50, dtype=torch.float64))
    optimizer = O.Adam([p], lr=0.1, amsgrad=True)
    monitor = Monitor(optimizer, coordinates="all", strict=True)
    ends = []
    for t in range(1, 301):
        p.grad = torch.randn(50, dtype=torch.float64)
        optimizer.param_groups[0]["lr"] = 0.1 / math.sqrt(t)
        optimizer.step()
        if t in (1, 300):
            ends.append(monitor._recorder.watchers[0].stepsizes().sum())
    trace = monitor.trace
    value = {name: trace.total(name)[-1] for name in ("c", "c_plus", "c_lr", "c_bias", "c_v", "rise_lr", "rise_v")}
    assert 2 * value["c_plus"] - value["c"] == pytest.approx(ends[1] - ends[0], rel=1e-9)
    assert value["c"] <= value["c_lr"] + value["c_bias"] + value["c_v"]
    # A falling rate and a growing maximum never raise a stepsize: every rise is the bias correction's.
    assert value["rise_lr"] == value["rise_v"] == 0.0
    assert trace.total("rise_bias")[-1] > 0
    monitor.close()


MOVED = [
    (O.Adam, {"lr": 0.01}, 1e-6),
    (O.Adam, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}, 1e-6),
    (O.AdamW, {"lr": 0.01, "weight_decay": 0.0, "betas": (0.5, 0.9)}, 1e-6),
    (O.RAdam, {"lr": 0.01}, 1e-6),
    (O.Adamax, {"lr": 0.01}, 1e-6),
    (O.Adagrad, {"lr": 0.05}, 1e-6),
    (O.NAdam, {"lr": 0.01}, 1e-3),  # its two corrections, which start off differently, are left out
]


@pytest.mark.parametrize(("rule", "settings", "tolerance"), MOVED)
def test_the_directions_of_the_harm_test_add_up_to_the_way_made(rule, settings, tolerance):
    """Σ e·m over the newest 12 stretches of 16, less what is credited of steps to come, is θ_208 - θ_400.

    Closed stretches are float32, so rounding goes with the whole Σ.
    """
    begin, end = 400 - 12 * 16, 400
    ends, ways = {}, []

    def watch(optimizer, model):
        monitor = Monitor(optimizer, model=model, strict=True)
        stretches, watchers = monitor._recorder.stretches, monitor._recorder.watchers
        owed, credited = np.zeros(len(stretches.owed)), np.zeros(len(stretches.owed))

        def note(t):
            lr = np.repeat(monitor._recorder.accumulators.then[:, 0], [w.coordinates.lead for w in watchers])
            credited[:] += lr * (stretches.owed - owed)
            owed[:] = stretches.owed
            if t in (begin, end):
                theta = [w.view.param.detach().numpy().ravel() for w in watchers]
                ends[t] = np.concatenate(theta), credited.copy()
            if t == end:
                assert (len(stretches.closed), stretches.length, stretches.taken) == (12, 16, 0)
                ways.append(np.sum(stretches.closed, axis=0, dtype=np.float64)[0])

        return note

    train(rule, settings, end, torch.float64, watch)
    (theta, credited), (later_theta, later_credited) = ends[begin], ends[end]
    (way,) = ways
    moved = theta - later_theta
    assert np.linalg.norm(way - (later_credited - credited) - moved) <= tolerance * np.linalg.norm(way)


def test_a_second_moment_that_underflows_while_the_momentum_lives_is_not_held_against_the_formula():
    """With β2 = 0.5 v is 0 in float32 after 150 steps without gradient, while lr·m/eps still is 0.01 a step."""
    torch.manual_seed(0)
    x = torch.nn.Parameter(torch.zeros(20))
    optimizer = torch.optim.Adam([("x", x)], lr=1e-3, betas=(0.9, 0.5))
    monitor, way = Monitor(optimizer, strict=True, what_if=()), []
    for step in range(400):
        x.grad = torch.randn(20)
        if step > 10:
            x.grad[:5] = 0.0
        before = x.detach().clone()
        optimizer.step()
        way.append((x.detach() - before)[:5].abs().max().item())
    assert optimizer.state[x]["exp_avg_sq"][:5].max() == 0.0
    assert max(way[150:]) > 1e-3
    assert monitor.trace.tensors[0].formula is not None
    assert not [event for event in monitor.trace.events if event.kind == "unreadable"]
