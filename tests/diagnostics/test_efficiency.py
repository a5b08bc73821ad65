"""Descent efficiency over time: the same ρ as the harm test's, kept with the run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stepscope import Monitor, Trace, simulate
from stepscope.diagnostics.schedule import PROVED
from stepscope.synthetic.reddi2018 import online


def descend(directory=None, steps=300):
    """SGD and then, from half the run on, steps against the gradient."""
    rng = np.random.default_rng(0)
    x, y = (torch.nn.Parameter(torch.zeros(n, dtype=torch.float64)) for n in (20, 3))
    monitor = Monitor(torch.optim.SGD([("x", x), ("y", y)], lr=0.1), directory, strict=True)
    for _ in range(steps):
        for parameter in (x, y):
            parameter.grad = torch.from_numpy(rng.normal(1.0, 0.3, parameter.shape))
        monitor.optimizer.step()
    return monitor


def test_sgd_keeps_the_whole_descent():
    known = descend().trace.efficiency
    assert known.steps.tolist() == [step for step in sorted(PROVED) if 16 <= step <= 300]
    assert known.rho == pytest.approx(np.ones(len(known.steps)))
    assert known.tensors == pytest.approx(np.ones((len(known.steps), 2)))
    assert np.all((known.low <= 1 + 1e-6) & (known.high >= 1 - 1e-6))


def test_the_last_one_is_that_of_the_harm_test():
    """At an even rate exactly; the harm test takes the schedule out."""
    trace = simulate(online(), "adam", 2**18, "0.001", (0.9, 0.99))
    harm = trace.diagnose().harm
    known = trace.efficiency
    assert known.steps[-1] == 2**18
    assert (known.rho[-1], known.low[-1], known.high[-1]) == pytest.approx((harm.rho, *harm.interval), rel=1e-9)


def test_it_is_the_tensors_together_and_each():
    """One tensor descends, the other is driven uphill: the whole is their mean, weighted by ē G²."""
    trace = simulate(online(), "adam", 2**18, "0.5/sqrt(t)", (0.9, 0.99), seeds=2)
    known = trace.efficiency
    assert known.tensors[-1] == pytest.approx(np.full(2, known.rho[-1]))  # the game knows no chance: seeds are alike


def test_it_survives_disk(tmp_path):
    monitor = descend(tmp_path / "run")
    monitor.close()
    loaded = Trace.load(tmp_path / "run")
    loaded.save(tmp_path / "copy")
    for known in (loaded.efficiency, Trace.load(tmp_path / "copy").efficiency):
        for name in ("steps", "rho", "low", "high", "tensors"):
            assert np.array_equal(getattr(known, name), getattr(monitor.trace.efficiency, name), equal_nan=True)


def test_tensors_that_come_later_have_none_before():
    monitor = descend(steps=40)
    late = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    monitor.optimizer.add_param_group({"params": [("late", late)]})
    for _ in range(100):
        for group in monitor.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        monitor.optimizer.step()
    known = monitor.trace.efficiency
    assert known.tensors.shape == (len(known.steps), 3)
    assert np.isnan(known.tensors[known.steps <= 40, 2]).all()
    assert known.tensors[-1, 2] == pytest.approx(1.0)


def test_a_short_run_has_none():
    assert descend(steps=10).trace.efficiency is None
