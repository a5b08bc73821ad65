"""Every way of training: the monitor works unchanged, and the run is to the bit what it is without one."""

import copy
import gc
import io
import math
import pickle
import re
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from stepscope import Monitor, Trace
from stepscope.diagnostics import monitor as monitor_module

STEPS = 40
Watch = Callable[..., None]


class Way(NamedTuple):
    """A way to train, what the monitor makes of it, and whether it reads all stepsizes."""

    train: Callable[[Watch], list[torch.Tensor]]
    steps: int = STEPS
    events: tuple[str, ...] = ()
    reads: bool = True


WAYS: dict[str, Way] = {}


def way(name, steps=STEPS, events=(), reads=True):
    """Put a training on the list; it hands its optimizer and its model to `watch`, and returns what it trained."""

    def register(train):
        WAYS[name] = Way(train, steps, tuple(events), reads)
        return train

    return register


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.Tanh(), torch.nn.Linear(20, 3))


def batches(count=STEPS):
    torch.manual_seed(1)
    return torch.randn(count, 8, 6)


def fit(model, step, count=STEPS, loss_of=None):
    """Train on random batches; `step(t)` is called after the backward pass of batch t = 1, 2, …"""
    for t, x in enumerate(batches(count), 1):
        loss = model(x).square().mean() if loss_of is None else loss_of(model, x, t)
        loss.backward()
        step(t)
    return list(model.parameters())


def updates(optimizer):
    """Return a step that updates and clears the gradients."""

    def step(_):
        optimizer.step()
        optimizer.zero_grad()

    return step


def adamw(model, **settings):
    return torch.optim.AdamW(model.parameters(), lr=0.01, **settings)


def same(ones, others):
    return len(ones) == len(others) and all(torch.equal(p, q) for p, q in zip(ones, others, strict=True))


# --- mixed precision -----------------------------------------------------------------------------------------


def scaled(watch, prepare=lambda scaler, optimizer, model: None, **settings):
    """Train under a loss scaler, with an overflow at steps 5 and 30."""
    model = network()
    optimizer = adamw(model, **settings)
    watch(optimizer, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=7)

    def loss_of(model, x, t):
        return scaler.scale(model(x).square().mean() * (math.inf if t in (5, 30) else 1.0))

    def step(_):
        prepare(scaler, optimizer, model)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return fit(model, step, loss_of=loss_of)


def unscale_and_clip(scaler, optimizer, model):
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)


way("scaler", STEPS - 2)(lambda watch: scaled(watch, fused=False))
way("scaler, fused", STEPS - 2, ("skipped", "skipped"))(lambda watch: scaled(watch, fused=True))
way("scaler, clipped", STEPS - 2)(lambda watch: scaled(watch, unscale_and_clip, fused=False))
way("scaler, fused and clipped", STEPS - 2, ("skipped", "skipped"))(
    lambda watch: scaled(watch, unscale_and_clip, fused=True)
)


@way("autocast")
def _(watch):
    model = network()
    optimizer = adamw(model)
    watch(optimizer, model)

    def loss_of(model, x, _):
        with torch.autocast("cpu", torch.bfloat16):
            return model(x).float().square().mean()

    return fit(model, updates(optimizer), loss_of=loss_of)


@pytest.mark.parametrize("fused", [False, True])
def test_a_loss_scale_leaves_no_trace(fused):
    """A power of two comes out again exactly, so the record is that of the run without it."""

    def record(scale):
        model = network()
        optimizer = adamw(model, fused=fused)
        monitor = Monitor(optimizer, model=model, strict=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale != 1.0)

        def step(_):
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

        fit(model, step, loss_of=lambda model, x, _: scaler.scale(model(x).square().mean()))
        return monitor.trace.values

    np.testing.assert_allclose(record(2.0**10), record(1.0), rtol=1e-5)


# --- what stands between backward and step -------------------------------------------------------------------


@way("accumulation", STEPS // 4)
def _(watch):
    model = network()
    optimizer = adamw(model)
    watch(optimizer, model)
    return fit(model, lambda t: updates(optimizer)(t) if t % 4 == 0 else None)


def clipped(watch, clip):
    model = network()
    optimizer = adamw(model)
    watch(optimizer, model)

    def step(t):
        clip(model.parameters())
        updates(optimizer)(t)

    return fit(model, step)


way("clipping by norm")(lambda watch: clipped(watch, lambda p: torch.nn.utils.clip_grad_norm_(p, 0.01)))
way("clipping by value")(lambda watch: clipped(watch, lambda p: torch.nn.utils.clip_grad_value_(p, 0.01)))


def test_the_gradient_of_the_record_is_the_clipped_one():
    monitors = []
    clip = lambda p: torch.nn.utils.clip_grad_norm_(p, 0.01)  # noqa: E731
    clipped(lambda optimizer, _: monitors.append(Monitor(optimizer, strict=True)), clip)
    assert monitors[0].trace.total("g2")[-1] <= STEPS * 0.01**2 * (1 + 1e-5)


@way("gradients set to zero, to None, and replaced")
def _(watch):
    model = network()
    optimizer = adamw(model)
    watch(optimizer, model)

    def step(t):
        for p in model.parameters():
            if t % 3 == 1:
                p.grad = p.grad.clone()
            elif t % 3 == 2:
                p.grad = p.grad.t().clone().t() if p.ndim == 2 else p.grad.double().float()
        optimizer.step()
        optimizer.zero_grad(set_to_none=t % 2 == 0)

    return fit(model, step)


@way("parameters without gradient, at times and always, and empty ones")
def _(watch):
    model = network()
    model[0].bias.requires_grad_(False)
    empty = torch.nn.Parameter(torch.empty(0, 3))
    optimizer = torch.optim.AdamW([*model.parameters(), empty], lr=0.01)
    watch(optimizer, model)

    def step(t):
        empty.grad = torch.empty(0, 3)
        if t % 5 == 4:
            model[2].bias.grad = None
        updates(optimizer)(t)

    return fit(model, step)


# --- closures and schedulers ---------------------------------------------------------------------------------


def by_closure(watch, make):
    model = network()
    optimizer = make(model)
    watch(optimizer, model)
    for x in batches():

        def closure(x=x):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
    return list(model.parameters())


way("closure")(lambda watch: by_closure(watch, adamw))
way("closure, L2")(lambda watch: by_closure(watch, lambda m: torch.optim.Adam(m.parameters(), weight_decay=0.1)))
way("closure called many times", events=["unreadable"], reads=False)(
    lambda watch: by_closure(watch, lambda m: torch.optim.LBFGS(m.parameters(), max_iter=3))
)


def scheduled(watch, make, **settings):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), **{"lr": 0.01, **settings})
    watch(optimizer, model)
    scheduler = make(optimizer)

    def step(t):
        updates(optimizer)(t)
        scheduler.step(*([1.0] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))

    return fit(model, step)


SCHEDULERS = {
    "one cycle, of the betas too": lambda o: lr_scheduler.OneCycleLR(o, 0.05, total_steps=STEPS + 1),
    "warm-up, then cosine": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.CosineAnnealingLR(o, STEPS)], [5]
    ),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=3),
    "to zero": lambda o: lr_scheduler.LambdaLR(o, lambda t: max(0.0, 1 - t / 20)),
}
for label, make in SCHEDULERS.items():
    way(f"scheduler: {label}")(lambda watch, make=make: scheduled(watch, make))
way("scheduler of a tensor")(
    lambda watch: scheduled(watch, SCHEDULERS["to zero"], lr=torch.tensor(0.01), foreach=False)
)


# --- compilers and graphs ------------------------------------------------------------------------------------


def compiled_step(watch, backend, make=adamw):
    torch._dynamo.reset()
    model = network()
    optimizer = make(model)
    watch(optimizer, model)
    step = torch.compile(optimizer.step, backend=backend)

    def run(_):
        step()
        optimizer.zero_grad()

    return fit(model, run)


def compiled_whole(watch, backend):
    torch._dynamo.reset()
    model = network()
    optimizer = adamw(model)
    watch(optimizer, model)

    @torch.compile(backend=backend)
    def run(x):
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    for x in batches():
        run(x)
    return list(model.parameters())


def compiled_model(watch, backend):
    torch._dynamo.reset()
    model = network()
    optimizer = adamw(model)
    fast = torch.compile(model, backend=backend)
    watch(optimizer, fast)
    fit(fast, updates(optimizer))
    return list(model.parameters())


COMPILED = {"step": compiled_step, "training step": compiled_whole, "model": compiled_model}
for label, train in COMPILED.items():
    way(f"compiled {label}")(lambda watch, train=train: train(watch, "aot_eager"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("what", COMPILED)
def test_what_inductor_compiles(what):
    """The default backend, which writes code in C++."""
    assert_unchanged(Way(lambda watch: COMPILED[what](watch, "inductor")))


FLOAT32_SCALARS = {
    "adam": (torch.optim.Adam, {}),
    "adam, long memory": (torch.optim.Adam, {"lr": 0.05, "betas": (0.9, 0.99999)}),
    "amsgrad": (torch.optim.AdamW, {"amsgrad": True}),
    "nadam": (torch.optim.NAdam, {"lr": 0.01}),
    "radam": (torch.optim.RAdam, {"lr": 0.01}),
    "adamax": (torch.optim.Adamax, {}),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("make", "settings"), FLOAT32_SCALARS.values(), ids=FLOAT32_SCALARS)
def test_a_compiled_step_that_corrects_the_bias_in_float32_is_believed(make, settings):
    torch._dynamo.reset()
    p = torch.nn.Parameter(torch.linspace(-1, 1, 50, dtype=torch.float64))
    optimizer = make([p], **settings)
    monitor = Monitor(optimizer, strict=True)
    step = torch.compile(optimizer.step, backend="aot_eager")
    torch.manual_seed(0)
    for _ in range(STEPS):
        p.grad = torch.randn_like(p)
        step()
    assert monitor.step == STEPS
    assert list(monitor.trace.events) == []


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_radam_whose_rectification_drowns_in_float32_is_not_believed():
    """With β2 = 0.9999 its ρ_t is off by more than 5 at first: steps are plain that ought to be rectified."""
    torch._dynamo.reset()
    p = torch.nn.Parameter(torch.ones(50))
    optimizer = torch.optim.RAdam([p], betas=(0.9, 0.9999))
    monitor = Monitor(optimizer, strict=True)
    step = torch.compile(optimizer.step, backend="aot_eager")
    for _ in range(12):
        p.grad = torch.randn_like(p)
        step()
    assert [event.kind for event in monitor.trace.events] == ["unreadable"]


def test_a_monitor_that_dies_in_the_midst_of_a_compilation_still_writes_its_record(caplog):
    """The garbage collector may run where torch has only imitations of tensors."""
    from torch._subclasses import FakeTensorMode

    optimizer = adamw(network())
    Monitor(optimizer)
    dead = weakref.ref(optimizer)
    fit(torch.nn.Linear(6, 3), lambda _: None, count=1)
    optimizer.step()
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()
    with FakeTensorMode():
        del optimizer, group, p
        gc.collect()
    assert dead() is None
    assert caplog.text == ""


def replayed(model, optimizer, sampled_every, monkeypatch):
    """Train such that no hook sees a step, as between the replays of a graph, and sample; return the monitor."""
    monitor = Monitor(optimizer, model=model, strict=True)
    seen = []

    def step(t):
        with monkeypatch.context() as capturing:
            capturing.setattr(monitor, "_on_gpu", True)
            capturing.setattr(monitor_module, "_is_captured", lambda: True)
            optimizer.step()
        if t % sampled_every == 0:
            seen.extend([monitor.sample(), not monitor.sample()])
        optimizer.zero_grad()

    fit(model, step)
    assert all(seen)
    return monitor


def test_samples_between_replays_are_the_steps_that_a_hook_would_have_seen(monkeypatch):
    model = network()
    hooked = Monitor(optimizer := adamw(model), model=model, strict=True)
    seen = fit(model, updates(optimizer))
    model = network()
    sampled = replayed(model, adamw(model), 1, monkeypatch)
    assert same(seen, list(model.parameters()))
    assert sampled.step == STEPS
    np.testing.assert_array_equal(sampled.trace.values[-1, :, :20], hooked.trace.values[-1, :, :20])
    assert list(sampled.trace.events) == []


def test_replays_between_samples_are_not_seen(monkeypatch):
    model = network()
    monitor = replayed(model, adamw(model), 4, monkeypatch)
    assert monitor.step == STEPS // 4
    assert monitor.trace.total("compared")[-1] == 0  # no two samples are of successive steps
    assert {event.kind for event in monitor.trace.events} == {"step jump"}


def test_what_samples_cannot_know_is_not_added_up(monkeypatch):
    """L2 needs θ as it was before the step."""
    model = network()
    monitor = replayed(model, torch.optim.Adam(model.parameters(), weight_decay=0.1), 1, monkeypatch)
    assert monitor.step == STEPS
    assert monitor.trace.total("a")[-1] == 0
    assert list(monitor.trace.events) == []


def test_samples_after_the_steps_of_a_warm_up_are_proved_by_it(monkeypatch):
    model = network()
    optimizer = adamw(model)
    with Monitor(optimizer, model=model, strict=True) as monitor:
        fit(model, updates(optimizer), count=3)
        assert not monitor.sample()
        with monkeypatch.context() as capturing:
            capturing.setattr(monitor, "_on_gpu", True)
            capturing.setattr(monitor_module, "_is_captured", lambda: True)
            fit(model, lambda _: optimizer.step(), count=1)
        assert monitor.step == 3
        assert monitor.sample()
    assert not monitor.sample()
    assert monitor.step == 4
    assert monitor.trace.total("compared")[-1] == 3 * sum(p.numel() for p in model.parameters())


# --- optimizers that come, go and come several ---------------------------------------------------------------


def in_backward(watch, gather, make, dtype=torch.float32, set_to_none=True):
    """Train with an optimizer per parameter that steps as soon as the gradient is there, and clears it at once."""
    model = network().to(dtype)
    optimizers = {name: make([p]) for name, p in model.named_parameters()}

    def step(p):
        of[p].step()
        of[p].zero_grad(set_to_none)

    of = {p: optimizers[name] for name, p in model.named_parameters()}
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    watch(gather(optimizers), model)
    return fit(model, lambda _: None, loss_of=lambda m, x, _: m(x.to(dtype)).square().mean())


MADE = {
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01),
    "adam, L2": lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=0.1),
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1),
}
way("in backward, a dict")(lambda watch: in_backward(watch, dict, MADE["adamw"]))
way("in backward, a list")(lambda watch: in_backward(watch, lambda d: [*d.values()], MADE["adamw"]))


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.parametrize(("coordinates", "dtype"), [(7, torch.float32), ("all", torch.float64)])
def test_the_record_of_optimizers_in_backward_is_that_of_one_optimizer(make, coordinates, dtype):
    """Gradients that are zeroed where they lie, before the round is over, do not count as zero."""
    monitors = []

    def watch(optimizer, model):
        monitors.append(Monitor(optimizer, model=model, coordinates=coordinates, strict=True))

    in_backward(watch, dict, make, dtype, set_to_none=False)
    model = network().to(dtype)
    optimizer = make(model.parameters())
    watch(optimizer, model)
    fit(model, updates(optimizer), loss_of=lambda m, x, _: m(x.to(dtype)).square().mean())
    several, one = (monitor.trace for monitor in monitors)
    np.testing.assert_allclose(several.values, one.values, rtol=1e-12)
    assert several.meta["optimizer"] == one.meta["optimizer"]
    assert [t.name for t in several.tensors] == [t.name for t in one.tensors]


def test_the_edge_of_optimizers_in_backward_is_that_of_one_optimizer():
    edges, x = [], torch.ones(4, 6)

    def watch(optimizer, model):
        monitor = Monitor(optimizer, model=model, strict=True)
        edges.append(lambda: monitor.edge(lambda: model(x).square().mean()))

    in_backward(watch, dict, MADE["adamw"])
    model = network()
    optimizer = adamw(model)
    watch(optimizer, model)
    fit(model, updates(optimizer))
    several, one = (edge() for edge in edges)
    assert several.ratio == pytest.approx(one.ratio, rel=1e-6)


def test_several_optimizers_that_nobody_can_read_are_told_of_by_their_class(caplog):
    (p, q), both = two(2, 3, make=torch.optim.Rprop)
    monitor = Monitor(both, strict=True)
    move(p, both[0])
    move(q, both[1])
    assert monitor.step == 1
    assert caplog.text.count("is known for Rprop") == 1
    assert monitor.trace.total("g2")[-1] == 5


def test_a_class_that_moves_weights_after_its_parents_step_is_not_believed_among_several_either():
    class Shrinking(torch.optim.AdamW):
        def step(self, closure=None):
            super().step(closure)
            self.param_groups[0]["params"][0].data.mul_(0.9)

    torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])  # patches AdamW.step, so that the hooks fire twice
    (p, q), both = two(2, 3, make=Shrinking)
    monitor = Monitor(both, strict=True)
    for _ in range(3):
        move(p, both[0])
        move(q, both[1])
    assert monitor.step == 3
    assert [tensor.formula for tensor in monitor.trace.tensors] == [None, None]


def two(*sizes, make=MADE["adamw"]):
    params = [torch.nn.Parameter(torch.ones(size)) for size in sizes]
    return params, [make([p]) for p in params]


def move(p, optimizer, value=1.0):
    p.grad = torch.full_like(p, value)
    optimizer.step()
    p.grad = None


def test_a_round_is_over_when_all_have_stepped_or_one_steps_again():
    (p, q), (first, second) = two(2, 3)
    monitor = Monitor([first, second], strict=True)
    move(p, first)
    assert monitor.step == 0
    move(q, second)
    assert monitor.step == 1
    move(p, first)
    move(p, first)
    assert monitor.step == 2
    monitor.close()
    assert monitor.step == 3
    assert monitor.trace.column("steps")[-1].tolist() == [3, 1]


def test_a_round_that_a_scaler_refuses_is_a_skipped_step():
    (p, q), both = two(2, 3, make=lambda params: torch.optim.AdamW(params, fused=True))
    monitor = Monitor(both, strict=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for t in range(6):
        scaler.scale((p.sum() + q.sum()) * (math.inf if t == 3 else 1.0)).backward()
        for optimizer in both:
            scaler.step(optimizer)
            optimizer.zero_grad()
        scaler.update()
    assert monitor.step == 5
    assert [event.kind for event in monitor.trace.events] == ["skipped"]


def test_a_group_that_one_of_several_gets_later_is_watched_as_its_own():
    (p, q), both = two(2, 3)
    monitor = Monitor(both, strict=True)
    late = torch.nn.Parameter(torch.ones(4))
    for t in range(40):
        if t == 20:
            both[0].add_param_group({"params": [late], "lr": 0.5})
        late.grad = torch.ones(4)
        move(p, both[0])
        move(q, both[1])
    trace = monitor.trace
    assert [tensor.group for tensor in trace.tensors] == [0, 1, 2]
    assert trace.column("steps")[-1].tolist() == [40, 40, 20]
    assert trace.groups["lr"][-1].tolist() == [0.01, 0.01, 0.5]
    assert [event.kind for event in trace.events] == ["group added"]


def test_optimizers_in_a_container_are_passed_as_its_list():
    class Container(torch.optim.Optimizer):
        def __init__(self, optimizers):
            super().__init__([p for one in optimizers for group in one.param_groups for p in group["params"]], {})
            self.optimizers = optimizers

        def step(self, closure=None):
            for one in self.optimizers:
                one.step()

    model = network()
    container = Container([MADE["adamw"](part.parameters()) for part in (model[0], model[2])])
    monitor = Monitor(container.optimizers, model=model, strict=True)
    fit(model, updates(container))
    assert monitor.step == STEPS
    assert list(monitor.trace.events) == []
    assert all(tensor.formula for tensor in monitor.trace.tensors)


def test_steps_may_come_from_another_thread(tmp_path):
    def record(directory, run):
        model = network()
        optimizers = [MADE["adamw"]([p]) for p in model.parameters()]
        with Monitor(optimizers, directory, model=model, strict=True) as monitor:

            def step(_):
                for optimizer in optimizers:
                    run(optimizer.step)
                    optimizer.zero_grad()

            fit(model, step)
            monitor._recorder.commit()
        return Trace.load(directory).values

    def elsewhere(call):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(call).result()

    there, here = record(tmp_path / "there", elsewhere), record(tmp_path / "here", lambda call: call())
    np.testing.assert_array_equal(there, here)


def test_what_several_optimizers_may_be():
    (p, q), (first, _) = two(2, 3)
    with pytest.raises(ValueError, match=r"got AdamW and SGD; .* give each class a monitor of its own"):
        Monitor([first, torch.optim.SGD([q], lr=0.1)])
    with pytest.raises(ValueError, match="list or dict, got an empty one"):
        Monitor([])
    with pytest.raises(ValueError, match="list or dict, got Parameter"):
        Monitor([p, q])


def test_the_state_of_several_is_loaded_one_by_one():
    (p, q), both = two(2, 3)
    monitor = Monitor(both, strict=True)
    for t in range(40):
        if t == 25:
            for optimizer in both:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        move(p, both[0])
        move(q, both[1])
    assert monitor.step == 40
    assert [event.kind for event in monitor.trace.events] == ["state loaded"]


@way("a group that comes later", events=["group added"])
def _(watch):
    model = network()
    optimizer = torch.optim.AdamW(model[0].parameters(), lr=0.01)
    watch(optimizer, model)

    def step(t):
        if t == 20:
            optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.1})
        updates(optimizer)(t)
        model.zero_grad()

    return fit(model, step)


@way("state loaded in mid-run", events=["state loaded"])
def _(watch):
    model = network()
    optimizer = adamw(model)
    watch(optimizer, model)

    def step(t):
        if t == 20:
            kept = io.BytesIO()
            torch.save((model.state_dict(), optimizer.state_dict()), kept)
            kept.seek(0)
            for whole, part in zip((model, optimizer), torch.load(kept, weights_only=True), strict=True):
                whole.load_state_dict(part)
        updates(optimizer)(t)

    return fit(model, step)


@way("copied and pickled while watched")
def _(watch):
    model = network()
    optimizer = adamw(model)
    watch(optimizer, model)

    def step(t):
        if t == 20:
            both = model, optimizer
            for twin, its in (copy.deepcopy(both), pickle.loads(pickle.dumps(both))):
                twin(torch.ones(1, 6)).sum().backward()
                updates(its)(t)  # unwatched: its steps count for nothing
        updates(optimizer)(t)

    return fit(model, step)


# --- what the parameters are ---------------------------------------------------------------------------------


def free(watch, p, make, gradient=torch.randn_like):
    """Train a tensor on random gradients."""
    optimizer = make([p])
    watch(optimizer, None)
    torch.manual_seed(2)
    for _ in range(STEPS):
        p.grad = gradient(p)
        optimizer.step()
    return [p]


@way("complex parameters")
def _(watch):
    p = torch.nn.Parameter(torch.complex(torch.linspace(-1, 1, 30), torch.linspace(0, 1, 30)))
    return free(watch, p, MADE["adamw"])


for dtype in (torch.bfloat16, torch.float16):

    @way(f"{dtype} parameters and state")
    def _(watch, dtype=dtype):
        return free(watch, torch.nn.Parameter(torch.linspace(-1, 1, 50).to(dtype)), MADE["adamw"])


@way("maximize")
def _(watch):
    return free(watch, torch.nn.Parameter(torch.ones(50)), lambda ps: torch.optim.AdamW(ps, maximize=True))


class Eighth(torch.optim.Optimizer):
    """Adam that keeps its second moment in 8 bits."""

    def __init__(self, params, dtype, lr=0.01):
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "eps": 1e-3, "weight_decay": 0.0, "dtype": dtype})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            (beta1, beta2), lr = group["betas"], group["lr"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state |= {"step": 0, "exp_avg": torch.zeros_like(p)}
                    state["exp_avg_sq"] = torch.zeros_like(p, dtype=group["dtype"])
                state["step"] += 1
                state["exp_avg"].lerp_(p.grad, 1 - beta1)
                v = beta2 * state["exp_avg_sq"].float() + (1 - beta2) * p.grad.square()
                state["exp_avg_sq"] = v.to(group["dtype"])
                root = (state["exp_avg_sq"].float() / (1 - beta2 ** state["step"])).sqrt()
                p.addcdiv_(state["exp_avg"] / (1 - beta1 ** state["step"]), root + group["eps"], value=-lr)


for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):

    @way(f"{dtype} state")
    def _(watch, dtype=dtype):
        p, within = torch.nn.Parameter(torch.ones(50)), lambda p: (3 + torch.rand_like(p)) * torch.randn_like(p).sign()
        return free(watch, p, lambda params: Eighth(params, dtype), within)  # its smallest number is 0.002


@way("sparse gradients")
def _(watch):
    torch.manual_seed(0)
    table = torch.nn.Embedding(30, 4, sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.01)
    watch(optimizer, table)
    for t in range(STEPS):
        table(torch.tensor([t % 7, (t + 3) % 11, 29])).square().sum().backward()
        updates(optimizer)(t)
    return list(table.parameters())


@way("tied weights")
def _(watch):
    model = network()
    model.append(torch.nn.Linear(6, 20, bias=False))
    model[3].weight = model[0].weight
    optimizer = adamw(model)
    watch(optimizer, model)
    return fit(model, updates(optimizer), loss_of=lambda m, x, _: (m[:3](x).sum() + m[3](x).sum()).square())


@way("lazy parameters", events=["group added"])
def _(watch):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.LazyLinear(5), torch.nn.Tanh(), torch.nn.LazyLinear(3))
    optimizer = adamw(model)
    watch(optimizer, model)
    return fit(model, updates(optimizer))


@way("cast and moved before the first step")
def _(watch):
    model = network()
    optimizer = adamw(model)
    watch(optimizer, model)
    model.to(torch.float64).to(torch.float32).to("cpu")
    return fit(model, updates(optimizer))


@way("cast in mid-run")
def _(watch):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch(optimizer, model)
    return fit(
        model,
        lambda t: (updates(optimizer)(t), model.to(torch.float64) if t == 20 else None),
        loss_of=lambda m, x, _: m(x.to(m[0].weight.dtype)).square().mean(),
    )


def cast(model, behave):
    """Cast a model with a behaviour of `to` that torch keeps for the future."""
    behave(True)
    try:
        model.to(torch.float64)
    finally:
        behave(False)


@way("cast by swapping tensors")
def _(watch):
    model = network()
    optimizer = adamw(model)
    watch(optimizer, model)
    cast(model, torch.__future__.set_swap_module_params_on_conversion)
    return fit(model, updates(optimizer), loss_of=lambda m, x, _: m(x.double()).square().mean())


@way("parameters that are no longer the optimizer's", steps=0, events=["skipped"])
def _(watch):
    """With this future behaviour `to` makes new parameters, and the optimizer is left with the old ones."""
    model = network()
    optimizer = adamw(model)
    watch(optimizer, model)
    cast(model, torch.__future__.set_overwrite_module_params_on_conversion)
    return fit(model, updates(optimizer), loss_of=lambda m, x, _: m(x.double()).square().mean())


DIFFERENTIABLE = {
    "sgd": lambda p, lr: torch.optim.SGD([p], lr=lr, differentiable=True),
    "adam": lambda p, lr: torch.optim.Adam([p], lr=lr, differentiable=True),
}


def learned_rate(watch, make):
    """Train through the optimizer: return the parameter, and what the loss makes of the rate and the start."""
    start = torch.linspace(-1, 1, 10, dtype=torch.float64, requires_grad=True)
    lr = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    p = start.clone()
    optimizer = make(p, lr)
    watch(optimizer, None)
    for t in range(20):
        p.grad = start * (t + 1) + p.detach()
        optimizer.step()
    p.square().sum().backward()
    assert lr.grad != 0
    return [p.detach(), start.grad, lr.grad]


for label, make in DIFFERENTIABLE.items():
    way(f"differentiable {label}", 20)(lambda watch, make=make: learned_rate(watch, make))


# --- the test of them all ------------------------------------------------------------------------------------


def assert_unchanged(one: Way):
    monitors = []

    def watch(optimizer, model):
        monitors.append(Monitor(optimizer, model=model, coordinates=16, strict=True))

    plain, watched = one.train(lambda *_: None), one.train(watch)
    assert same(plain, watched)
    (monitor,) = monitors
    trace = monitor.trace
    assert monitor.step == one.steps
    assert Counter(event.kind for event in trace.events) == Counter(one.events)
    assert all((tensor.formula is not None) == one.reads for tensor in trace.tensors)
    if one.reads:
        assert all(np.isfinite(trace.column(name)).all() for name in ("a", "b", "c", "c_plus"))
    str(monitor.diagnose())
    monitor.close()


def test_the_page_names_every_way_and_its_tests_exist():
    tests = Path(__file__).parents[1]
    files = {path.name: path.read_text() for path in tests.rglob("test_*.py")}
    page = (tests.parent / "docs" / "training.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)(?:\[([^`]*)\])?`", page)
    assert all(f"\ndef {test}(" in files[file] for file, test, _ in named)
    assert {name for _, test, name in named if test == "test_a_way_of_training"} == set(WAYS)
    rows = [line for line in page.splitlines() if line.startswith("| ") and "**" not in line.split("|")[1]]
    assert all("::test_" in row for row in rows[1:])


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("name", WAYS)
def test_a_way_of_training(name):
    assert_unchanged(WAYS[name])
