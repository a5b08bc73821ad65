"""Optimizers of other packages: the run is unchanged, each reading is proved, and what no rule explains is not read."""

import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stepscope import Coefficients, Monitor, Reader, register_reader
from stepscope.diagnostics import readers
from stepscope.diagnostics.edge import edge
from stepscope.diagnostics.readers import NAMED, reader_of
from stepscope.diagnostics.readers_by_state import OVERWRITTEN, UNEXPLAINED
from stepscope.diagnostics.without import WITHOUT

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "others.py"
PACKAGES = (
    "pytorch_optimizer",
    "transformers",
    "bitsandbytes",
    "torchao",
    "optimi",
    "schedulefree",
    "apex",
    "deepspeed",
)


@pytest.fixture(scope="module")
def others():
    """The script that makes the table."""
    spec = importlib.util.spec_from_file_location("others", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["others"] = module  # where its dataclass looks for itself
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(readers, "REGISTERED", {})


# --- every optimizer -------------------------------------------------------------------------------------------------

READ = (
    *(
        "AdaBelief",
        "Yogi",
        "ADOPT",
        "Adai",
        "AdaShift",
        "Adan",
        "Lamb",
        "StableAdamW",
        "ScheduleFreeAdamW",
        "AdaFactor",
    ),
    *("AdEMAMix", "DiffGrad", "AdaMod", "AdaBound", "Prodigy", "LaProp", "AvaGrad", "QHAdam", "RAdam"),
)
LATE = {"ADOPT": 1, "AvaGrad": 1, "RAdam": 5, "AdaShift": 10}
"""First steps that move nothing, so that there is nothing to prove."""
ELSEWHERE = (
    *("transformers.Adafactor", "bitsandbytes.optim.AdamW8bit", "bitsandbytes.optim.PagedAdamW8bit"),
    *("torchao.optim.AdamW8bit", "torchao.optim.Adam4bit", "optimi.Adam", "optimi.StableAdamW", "optimi.Adan"),
    *("optimi.RAdam", "schedulefree.AdamWScheduleFree", "schedulefree.SGDScheduleFree"),
)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")  # they run unpaged
@pytest.mark.parametrize("name", [*(f"pytorch_optimizer.{name}" for name in READ), *ELSEWHERE])
def test_the_run_is_unchanged_and_every_step_is_proved(others, monkeypatch, name):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    make = dict((*others.pytorch_optimizers(), *others.others()))[name]
    row = others.try_out(name, make, steps=24)
    assert row.unchanged
    assert (row.read, row.why) == (row.tensors, "")
    late = LATE.get(name.removeprefix("pytorch_optimizer."), 0)
    assert row.proofs == (17 - late) * row.tensors  # steps 1 to 16, and 23


@pytest.mark.parametrize("name", ["SOAP", "Shampoo", "Lion", "Muon", "Ranger", "AliG", "PNM", "Magma"])
def test_what_has_no_stepsize_is_recorded_otherwise(others, name):
    make = dict(others.pytorch_optimizers())[f"pytorch_optimizer.{name}"]
    row = others.try_out(name, make, steps=24)
    assert row.unchanged
    assert row.read == (3 if name == "Muon" else 0)
    assert row.why


@pytest.mark.slow
def test_the_table_is_what_the_command_writes(others, monkeypatch):
    monkeypatch.setattr(torch, "compile", torch.compile)  # so that it is put back
    threads = torch.get_num_threads()
    try:
        others.prepare()
        made = (*others.pytorch_optimizers(), *others.others())
        rows = [others.try_out(name, make) for name, make in made]
    finally:
        torch.distributed.destroy_process_group()
        torch.set_num_threads(threads)
        others.logging.disable(others.logging.NOTSET)
    assert all(row.unchanged for row in rows)
    written = others.PAGE.read_text().split(others.BEGIN)[1].split(others.END)[0].strip()
    assert others.table(rows) == written


def test_the_table_names_every_optimizer_and_every_reader(others):
    written = others.PAGE.read_text()
    for name, _ in others.pytorch_optimizers():
        assert f"| `{name}` |" in written
    theirs = {name.rpartition(".")[2] for name in NAMED if not name.startswith(("bitsandbytes", "stepscope"))}
    assert all(f".{name}` |" in written for name in theirs)


def test_nothing_of_other_packages_is_imported():
    code = f"import sys, stepscope.diagnostics.monitor; print([p for p in {PACKAGES} if p in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- twins -----------------------------------------------------------------------------------------------------------

GRADIENTS = np.random.default_rng(5).standard_normal((30, 8, 6)) * np.geomspace(0.01, 1, 6)
START = np.random.default_rng(6).standard_normal((8, 6))


def averages(beta, values):
    m, out = 0.0, []
    for value in values:
        m = beta * m + (1 - beta) * value
        out.append(m)
    return out


def adabelief(lr=1e-3, b1=0.9, b2=0.999, eps=1e-16):
    m, s = averages(b1, GRADIENTS), 0.0
    for t, g in enumerate(GRADIENTS, 1):
        s = b2 * s + (1 - b2) * (g - m[t - 1]) ** 2 + eps
        yield lr / (1 - b1**t) / (np.sqrt(s / (1 - b2**t)) + eps)


def yogi(lr=1e-2, b1=0.9, b2=0.999, eps=1e-3):
    v = np.full((8, 6), 1e-6)
    for t, g in enumerate(GRADIENTS, 1):
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        yield lr / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)


def adopt(lr=1e-3, b2=0.9999, eps=1e-6):
    v = GRADIENTS[0] ** 2
    yield np.zeros((8, 6))
    for t, g in enumerate(GRADIENTS[1:], 2):
        normed = np.clip(g / np.maximum(np.sqrt(v), eps), -(t**0.25), t**0.25)
        yield lr * normed / g
        v = b2 * v + (1 - b2) * g**2


def adan(lr=1e-3, b1=0.98, b2=0.92, b3=0.99, eps=1e-8):
    before, n = GRADIENTS[0], 0.0
    for t, g in enumerate(GRADIENTS, 1):
        n = b3 * n + (1 - b3) * (g + b2 * (g - before)) ** 2
        before = g
        yield lr / (1 - b1**t) / (np.sqrt(n / (1 - b3**t)) + eps)


def stable(lr=1e-3, b1=0.9, b2=0.99, eps=1e-8):
    for t, (g, v) in enumerate(zip(GRADIENTS, averages(b2, GRADIENTS**2), strict=True), 1):
        v_hat = v / (1 - b2**t)
        rms = math.sqrt(np.mean(g**2 / np.maximum(v_hat, eps**2)))
        yield lr / (1 - b1**t) / max(1.0, rms) / (np.sqrt(v_hat) + eps)


def schedule_free(lr=0.0025, b2=0.999, eps=1e-8):
    for t, v in enumerate(averages(b2, GRADIENTS**2), 1):
        yield lr / (np.sqrt(v / (1 - b2**t)) + eps)


def adafactor(eps1=1e-30, eps2=1e-3, d=1.0):
    """The relative stepsize and the size of θ, whose steps the twin takes itself."""
    row, column, x = 0.0, 0.0, START.copy()
    for t, g in enumerate(GRADIENTS, 1):
        decay = 1 - t**-0.8
        row = decay * row + (1 - decay) * (g**2 + eps1).mean(axis=1)
        column = decay * column + (1 - decay) * (g**2 + eps1).mean(axis=0)
        v = np.outer(row, column) / row.mean()
        u = g / np.sqrt(v)
        rho = max(eps2, math.sqrt(np.mean(x**2))) * min(0.01, 1 / math.sqrt(t))
        e = rho / max(1.0, math.sqrt(np.mean(u**2)) / d) / np.sqrt(v)
        x -= e * g
        yield e


def lamb(lr=1e-3, b1=0.9, b2=0.999, eps=1e-6):
    m = v = 0.0
    x = START.copy()
    for t, g in enumerate(GRADIENTS, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        u = m / (np.sqrt(v) + eps)
        trust = min(np.linalg.norm(x), 10.0) / (np.linalg.norm(u) + eps)
        e = lr * trust / (1 - b1**t) / (np.sqrt(v) + eps)
        x -= e * m
        yield e


TWINS = {
    "pytorch_optimizer.AdaBelief": adabelief,
    "pytorch_optimizer.Yogi": yogi,
    "pytorch_optimizer.ADOPT": adopt,
    "pytorch_optimizer.Adan": adan,
    "pytorch_optimizer.StableAdamW": stable,
    "pytorch_optimizer.ScheduleFreeAdamW": schedule_free,
    "pytorch_optimizer.Lamb": lamb,
    "transformers.Adafactor": adafactor,
    "optimi.StableAdamW": lambda: stable(eps=1e-6),
    "schedulefree.AdamWScheduleFree": schedule_free,
}
SETTINGS = {"optimi.StableAdamW": {"lr": 1e-3, "triton": False}}  # it takes its kernels, of float32, wherever Triton is


@pytest.mark.parametrize("name", TWINS)
def test_the_stepsize_is_the_plain_twins(name):
    """The papers' formulas with a memory of their own, in float64, to 1e-9; none of them looks into a state."""
    package, _, kind = name.rpartition(".")
    x = torch.nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = getattr(importlib.import_module(package), kind)([x], **SETTINGS.get(name, {}))
    if hasattr(optimizer, "train"):
        optimizer.train()
    with Monitor(optimizer, coordinates="all", strict=True) as monitor:
        for g, expected in zip(GRADIENTS, TWINS[name](), strict=True):
            x.grad = torch.from_numpy(g.copy())
            optimizer.step()
            (watcher,) = monitor._recorder.watchers
            assert watcher.reader is not None, [e.message for e in monitor.trace.events]
            if expected.any():  # a first step may move nothing
                assert np.allclose(watcher.stepsizes(), expected.ravel(), rtol=1e-9, atol=0)
        # Also where the step leaves something else in `p.grad`.
        assert monitor.trace.total("g2")[-1] == pytest.approx(np.sum(GRADIENTS**2), rel=1e-9)


# --- what is on GPUs alone, by stand-ins of its layout ---------------------------------------------------------------


def fused(package, adam_w_mode, bias_correction):
    """A FusedAdam of apex's and DeepSpeed's documented layout, in plain torch."""

    class FusedAdam(torch.optim.Optimizer):
        def __init__(self, params, lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1):
            defaults = {"lr": lr, "bias_correction": bias_correction, "betas": betas, "eps": eps}
            super().__init__(params, defaults | {"weight_decay": weight_decay})
            self.adam_w_mode = adam_w_mode

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                group["step"] = group.get("step", 0) + 1
                (b1, b2), t, lr, decay = group["betas"], group["step"], group["lr"], group["weight_decay"]
                for p in group["params"]:
                    state = self.state[p]
                    if not state:
                        state |= {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                    g = p.grad if adam_w_mode else p.grad + decay * p
                    m, v = state["exp_avg"].lerp_(g, 1 - b1), state["exp_avg_sq"].lerp_(g * g, 1 - b2)
                    c1, c2 = (1 - b1**t, 1 - b2**t) if bias_correction else (1.0, 1.0)
                    update = m / c1 / ((v / c2).sqrt() + group["eps"])
                    p.sub_(lr * (update + decay * p if adam_w_mode else update))

    FusedAdam.__module__, FusedAdam.__qualname__ = package, "FusedAdam"
    return FusedAdam


@pytest.mark.parametrize("package", ["apex.optimizers.fused_adam", "deepspeed.ops.adam.fused_adam"])
@pytest.mark.parametrize("adam_w_mode", [True, False])
@pytest.mark.parametrize("bias_correction", [True, False])
def test_a_fused_adam_is_read_whichever_decay_it_has(package, adam_w_mode, bias_correction):
    monitor, w = watched(fused(package, adam_w_mode, bias_correction), steps=40)
    assert [e.message for e in monitor.trace.events if e.kind == "unreadable"] == []
    assert monitor._reader.rule.decay_is_decoupled == adam_w_mode
    group, v = monitor.optimizer.param_groups[0], monitor.optimizer.state[w]["exp_avg_sq"].numpy().ravel()
    c1, c2 = (1 - 0.9**40, 1 - 0.99**40) if bias_correction else (1.0, 1.0)
    expected = group["lr"] / c1 / (np.sqrt(v / c2) + group["eps"])
    assert np.allclose(monitor._recorder.watchers[0].stepsizes(), expected, rtol=1e-5)


# --- optimizers that nobody has named --------------------------------------------------------------------------------


def watched(kind, steps=30, **settings):
    """Watch an optimizer on a noisy bowl; return the closed monitor and the parameter."""
    torch.manual_seed(2)
    w = torch.nn.Parameter(torch.randn(50))
    optimizer = kind([("w", w)], **settings)
    monitor = Monitor(optimizer, strict=True)
    for _ in range(steps):
        w.grad = w.detach() + torch.randn(50)
        optimizer.step()
    monitor.close()
    return monitor, w


class Own(torch.optim.Optimizer):
    """Adam in one of its many forms, on g·`factor`; `taken` scales what its average takes in."""

    def __init__(self, params, lr=0.01, betas=(0.9, 0.99), eps=1e-3, weight_decay=0.0, **habits):
        self.habits = {"corrected": True, "hat": False, "factor": 1.0, "taken": 1.0, "back": 0} | habits
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        habit = self.habits
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            (b1, b2), t, lr = group["betas"], group["step"], group["lr"]
            c1, c2 = (1 - b1**t, 1 - b2**t) if habit["corrected"] else (1.0, 1.0)
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state |= {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p), "slow": p.clone()}
                p.grad.mul_(habit["factor"])
                m = state["exp_avg"].lerp_(habit["taken"] * p.grad, 1 - b1)
                v = state["exp_avg_sq"].lerp_(p.grad.square(), 1 - b2)
                eps = group["eps"] / math.sqrt(c2) if habit["hat"] else group["eps"]
                p.mul_(1 - lr * group["weight_decay"]).addcdiv_(
                    m, (v / c2).sqrt() + eps, value=-lr / c1 / habit["taken"]
                )
                if habit["back"] and t % habit["back"] == 0:
                    p.copy_(state["slow"].lerp_(p, 0.5))


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("hat", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_an_unknown_optimizer_is_read_by_the_rule_that_rebuilds_its_steps(corrected, hat, weight_decay):
    monitor, w = watched(Own, corrected=corrected, hat=hat, weight_decay=weight_decay)
    assert [e for e in monitor.trace.events if e.kind == "unreadable"] == []
    c1, c2 = (1 - 0.9**30, 1 - 0.99**30) if corrected else (1.0, 1.0)
    eps = 1e-3 / math.sqrt(c2) if hat else 1e-3
    expected = 0.01 / c1 / (np.sqrt(monitor.optimizer.state[w]["exp_avg_sq"].numpy() / c2) + eps)
    assert np.allclose(monitor._recorder.watchers[0].stepsizes(), expected, rtol=1e-5)
    assert monitor.trace.tensors[0].formula == monitor._reader.rule.formula


@pytest.mark.parametrize(
    ("habits", "why"),
    [
        ({"factor": 0.5}, OVERWRITTEN),
        ({"taken": 0.01}, UNEXPLAINED),  # e·d is right, and e a hundred times too large
        ({"back": 6}, UNEXPLAINED),
    ],
    ids=["a gradient scaled in place", "an average of something else", "drawn back every sixth step"],
)
def test_what_only_looks_like_adam_is_not_read(caplog, habits, why):
    monitor, _ = watched(Own, **habits)
    assert monitor.trace.tensors[0].formula is None
    assert monitor.trace.total("a")[-1] == 0
    (event,) = [e for e in monitor.trace.events if e.kind == "unreadable"]
    assert why in event.message
    assert len(caplog.records) == 1
    assert np.nanmax(monitor.trace.column("update_rms")) > 0


def test_a_step_below_the_rounding_proves_nothing():
    monitor, _ = watched(Own, lr=1e-12)
    assert monitor.trace.total("a")[-1] == 0
    assert monitor._reader.rule is None


def test_a_reopened_run_is_read_from_its_next_step(tmp_path):
    torch.manual_seed(2)
    w = torch.nn.Parameter(torch.randn(50))
    optimizer = Own([("w", w)])
    for steps in (40, 3):
        with Monitor(optimizer, tmp_path, strict=True) as monitor:
            reader = reader_of(optimizer)
            reader.rule = None  # as in a process that has proved nothing yet
            for _ in range(steps):
                w.grad = w.detach() + torch.randn(50)
                optimizer.step()
    assert monitor.trace.total("active")[-1] == 43 * 50


def test_many_tensors_that_no_rule_explains_are_told_of_once(caplog):
    params = [torch.nn.Parameter(torch.randn(5)) for _ in range(30)]
    optimizer = Own(params, factor=0.5)
    with Monitor(optimizer, strict=True):
        for p in params:
            p.grad = torch.randn(5)
        optimizer.step()
    assert len(caplog.records) == 1


def test_no_name_is_both_read_and_not():
    assert not set(NAMED) & set(WITHOUT)


# --- readers of one's own --------------------------------------------------------------------------------------------


class Half(Reader):
    formula = "e = lr/2, on g"

    def coefficients(self, view):
        return Coefficients(view.number("lr") / 2, 1.0, 0.0, 1.0)

    def second_moment(self, view):
        return np.ones(len(view.gradient))


class Halved(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] / 2 * p.grad)


@pytest.mark.parametrize("key", [Halved, f"{Halved.__module__.partition('.')[0]}.Halved"], ids=["class", "name"])
def test_a_registered_reader_is_used(key):
    register_reader(key, Half())
    monitor, _ = watched(Halved)
    assert monitor.trace.tensors[0].formula == Half.formula
    assert monitor.trace.total("a")[-1] == pytest.approx(30 * 50 * 0.05)


def test_a_registered_reader_comes_before_torchs():
    register_reader(torch.optim.SGD, Half())
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
    assert isinstance(reader_of(optimizer), Half)


@pytest.mark.parametrize(
    ("optimizer", "reader", "message"),
    [(Halved, Half, "instance of a Reader"), ("Halved", Half(), '"package.Class"'), (Halved, None, "got None")],
    ids=["a class", "no package", "nothing"],
)
def test_what_cannot_be_registered_is_refused(optimizer, reader, message):
    with pytest.raises(ValueError, match=message):
        register_reader(optimizer, reader)


# --- the edge --------------------------------------------------------------------------------------------------------


def test_an_unknown_adam_has_adams_edge_and_adan_has_none():
    from pytorch_optimizer import Adan

    monitor, w = watched(Own, eps=1e3)
    found = edge(monitor.optimizer, lambda: w.square().sum() / 2)
    assert found.threshold == pytest.approx(38 / 0.01)
    monitor, w = watched(Adan)
    with pytest.raises(ValueError, match="edge is known, got Adan"):
        edge(monitor.optimizer, lambda: w.square().sum() / 2)
