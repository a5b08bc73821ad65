"""Sums of large tensors whose second moment before a step is computed and not kept."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stepscope import Monitor
from stepscope.diagnostics import sampling
from stepscope.diagnostics.trace import SUMS

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW([p], lr=0.01, betas=(0.9, 0.95)),
    "nadam": lambda p: torch.optim.NAdam([p], lr=0.01),
    "radam": lambda p: torch.optim.RAdam([p], lr=0.01, betas=(0.9, 0.99)),
    "rmsprop": lambda p: torch.optim.RMSprop([p], lr=0.01, alpha=0.9, eps=1e-3),
    "adam with L2, whose g is not at hand": lambda p: torch.optim.Adam([p], lr=0.01, weight_decay=0.1),
    "amsgrad, whose v is kept": lambda p: torch.optim.Adam([p], lr=0.01, amsgrad=True),
}


def train(make, steps, dtype=torch.float32, **settings):
    """Return the monitor after steps whose gradients differ in size, are sometimes 0, and whose rate changes."""
    generator = torch.Generator().manual_seed(0)
    p = torch.nn.Parameter(torch.linspace(-1, 1, 5000).to(dtype))
    size = torch.logspace(-3, 1, 5000).to(dtype)
    optimizer = make(p)
    monitor = Monitor(optimizer, coordinates="all", strict=True, **settings)
    for t in range(steps):
        noise = torch.randn(5000, generator=generator).to(dtype)
        p.grad = size * (1 + noise) * (noise > -1.5)
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + t // 50)
        optimizer.step()
    return monitor


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-5), (torch.float64, 1e-9)])
def test_nothing_kept_and_nothing_lost(make, dtype, tolerance, monkeypatch):
    computed = train(make, 200, dtype).trace
    monkeypatch.setattr(sampling, "LARGE", 10**9)
    kept = train(make, 200, dtype).trace
    for k, name in enumerate(SUMS):
        assert computed.values[-1, 0, k] == pytest.approx(kept.values[-1, 0, k], rel=tolerance), name
    np.testing.assert_allclose(computed.values[-1], kept.values[-1], rtol=tolerance)
    assert computed.drift is not None
    np.testing.assert_allclose(computed.drift.gram_dg, kept.drift.gram_dg, rtol=tolerance)


def test_no_number_is_kept_for_each_coordinate():
    monitor = train(OPTIMIZERS["adamw"], 30)
    watcher = monitor._recorder.watchers[0]
    assert watcher.accumulator.root.size == watcher.accumulator.each.size == 0
    lr, beta2, t = 0.01, 0.95, 30
    state = next(iter(monitor.optimizer.state.values()))
    root = state["exp_avg_sq"].double().sqrt().numpy() / np.sqrt(1 - beta2**t)
    np.testing.assert_allclose(watcher.stepsizes(), lr / (1 - 0.9**t) / (root + 1e-8), rtol=1e-6)


def test_a_rule_that_begins_to_need_the_last_v_is_not_read_on():
    p = torch.nn.Parameter(torch.ones(5000))
    optimizer = torch.optim.Adam([p], lr=0.01)
    monitor = Monitor(optimizer, coordinates="all", strict=True)
    for t in range(40):
        p.grad = torch.full_like(p, 1.0 + t % 3)
        if t == 30:
            optimizer.param_groups[0]["amsgrad"] = True
            optimizer.state[p]["max_exp_avg_sq"] = torch.zeros_like(p)
        optimizer.step()
    (event,) = [e for e in monitor.trace.events if e.kind == "unreadable"]
    assert event.step == 31
    assert "does not give back" in event.message
    assert np.isnan(monitor.trace.column("a")[-1]).all()


def test_a_state_that_is_saved_goes_on_exactly():
    make = OPTIMIZERS["adamw"]
    monitor = train(make, 30)
    again = Monitor(make(torch.nn.Parameter(torch.zeros(5000))), coordinates="all")
    again.load_state_dict(monitor.state_dict())
    np.testing.assert_array_equal(again._recorder.accumulators.sums, monitor._recorder.accumulators.sums)
    np.testing.assert_array_equal(again._recorder.accumulators.then, monitor._recorder.accumulators.then)


def test_rounding_is_not_taken_for_a_second_moment_where_gradients_are_rare():
    """Proofs widen v and g; the digits beyond float32 would make stepsizes out of nothing. c may only fall short."""
    generator = torch.Generator().manual_seed(0)
    p = torch.nn.Parameter(torch.zeros(80, 100))
    optimizer = torch.optim.AdamW([p], lr=0.01)
    monitors = []
    for large in (4096, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampling, "LARGE", large)
            monitors.append(Monitor(optimizer, coordinates="all", strict=True))
    for _ in range(200):
        rows = torch.rand(80, 1, generator=generator) < 0.05
        p.grad = torch.randn(80, 100, generator=generator) * rows
        optimizer.step()
    computed, kept = (monitor.trace for monitor in monitors)
    assert 0 < computed.total("c")[-1] <= kept.total("c")[-1] * (1 + 1e-3)
    assert computed.total("c_plus")[-1] == pytest.approx(kept.total("c_plus")[-1], rel=1e-4)


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.AdamW([p], betas=(0.9, 0.0)), lambda p: torch.optim.AdamW([p.bfloat16()])]
)
def test_what_gives_nothing_back_keeps_its_roots(make):
    monitor = Monitor(make(torch.ones(5000)), coordinates="all")
    assert monitor._recorder.watchers[0].rooted


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's memory accounting")
def test_no_buffer_of_the_parameters_size_stays():
    """In a process of its own, which is asked for its memory before the monitor, and after the opening.

    Its allocator gives back what is freed, so that nothing counts but what is held.
    """
    script = """
import torch
from pathlib import Path
from stepscope import Monitor

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def train(optimizer, steps):
    for _ in range(steps):
        optimizer.step()

small = torch.nn.Parameter(torch.randn(5000))
small.grad = torch.randn_like(small)
optimizer = torch.optim.Adam([small])
with Monitor(optimizer, coordinates="all") as first:
    train(optimizer, 40)
    first.diagnose()
large = torch.nn.Parameter(torch.randn(4_000_000))
large.grad = torch.randn_like(large)
optimizer = torch.optim.Adam([large])
train(optimizer, 3)
before = held()
with Monitor(optimizer, coordinates="all") as monitor:
    train(optimizer, 40)
    print(held() - before)
"""
    settings = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-c", script], env=settings, capture_output=True, text=True, check=True)
    parameter = 4 * 4_000_000 / 1024  # kB, in float32
    assert int(done.stdout) < parameter / 2
