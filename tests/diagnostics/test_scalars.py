"""The numbers for loggers: the newest ones, by name, equal to what the optimizer did."""

import math

import pytest
import torch

from stepscope import Monitor


def trained(make, steps=20, **settings):
    """Return a monitor, its model and its optimizer after some steps; the frozen last layer takes none."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 1), torch.nn.Linear(1, 1))
    model[2].requires_grad_(False)
    optimizer = make(model.parameters())
    monitor = Monitor(optimizer, model=model, **settings)
    for _ in range(steps):
        model(torch.randn(8, 6)).square().mean().backward()
        optimizer.step()
        last = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optimizer.zero_grad()
    return monitor, model, optimizer, last


def test_every_number_is_that_of_the_newest_step():
    monitor, model, optimizer, gradients = trained(lambda params: torch.optim.Adam(params, lr=0.01))
    found, trace = monitor.scalars(), monitor.trace
    for p, (name, parameter) in enumerate(model[:2].named_parameters()):
        state = optimizer.state[parameter]
        root = (state["exp_avg_sq"].double() / (1 - 0.999**20)).sqrt()
        e = (0.01 / (1 - 0.9**20) / (root + 1e-8)).flatten().sort().values
        for quantile, share in (("p1", 0.01), ("p50", 0.5), ("p99", 0.99)):
            expected = float(e[round(share * (len(e) - 1))])
            assert found[f"stepsize/{name}/{quantile}"] == pytest.approx(expected, rel=1e-6)
        rms = float((gradients[name].double() / root.clamp(min=1e-8)).square().mean().sqrt())
        assert found[f"rms/{name}"] == pytest.approx(rms, rel=1e-5)
        measured = trace.steps == 16  # the last step at which Δθ was measured
        size, weight = (float(trace.column(column)[measured, p][0]) for column in ("update_rms", "weight_rms"))
        assert found[f"update_ratio/{name}"] == pytest.approx(size / weight)
    a, b, c_plus = (trace.total(name)[-1] for name in ("a", "b", "c_plus"))
    assert found["total/a"] == pytest.approx(a)
    assert found["total/b_over_a"] == pytest.approx(b / a)
    assert found["total/c_plus_over_a"] == pytest.approx(c_plus / a)
    assert found["lr/0"] == 0.01
    assert not any("2.weight" in name for name in found)  # frozen: nothing is measured
    assert len(found) == 4 + 4 * 5
    assert all(type(value) is float and math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("tensor", [False, True])
def test_the_learning_rate_is_that_of_the_newest_step(tensor):
    monitor, model, optimizer, _ = trained(
        lambda params: torch.optim.Adam(params, lr=torch.tensor(1.0) if tensor else 1.0)
    )
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        model(torch.randn(8, 6)).square().mean().backward()
        optimizer.step()
        schedule.step()
    assert float(optimizer.param_groups[0]["lr"]) == 0.125
    assert monitor.scalars()["lr/0"] == 0.25


def test_where_no_stepsize_is_read_the_sizes_of_the_steps_remain():
    monitor, _, _, _ = trained(torch.optim.Rprop)
    names = {name.split("/")[0] for name in monitor.scalars()}
    assert names == {"lr", "update_ratio"}


def test_before_the_first_step_and_after_the_last():
    torch.manual_seed(0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1)
    with Monitor(optimizer) as monitor:
        assert monitor.scalars() == {"lr/0": 0.1}
        optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
        optimizer.step()
        assert not monitor.closed
    assert monitor.closed
    assert monitor.scalars()["stepsize/group0.param0/p50"] == 0.1


def test_a_monitor_on_a_wrapper_watches_what_takes_the_steps():
    class Wrapper(torch.optim.Optimizer):
        """It wraps as Accelerate's does: without the constructor that makes room for hooks."""

        def __init__(self, optimizer):
            self.optimizer = optimizer

    inner = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    assert Monitor(Wrapper(Wrapper(inner))).optimizer is inner
