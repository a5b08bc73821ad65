import numpy as np
import pytest
import torch
from torch import nn

from stepscope import Monitor
from stepscope.remedies import Demon, DemonAdam

T = 150


def noise(steps=200, size=4):
    return np.random.default_rng(0).standard_normal((steps, size))


def drive(optimizer, theta, gradients):
    for g in gradients:
        theta.grad = torch.tensor(g, dtype=theta.dtype)
        optimizer.step()
    return theta.detach().clone()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_equals_a_slow_twin_of_the_paper(decay):
    theta = nn.Parameter(torch.ones(4, dtype=torch.float64))
    drive(DemonAdam([theta], T, 0.01, (0.9, 0.99), weight_decay=decay), theta, noise())
    for i, gradients in enumerate(noise().T):
        position, m, v = 1.0, 0.0, 0.0
        for t, gradient in enumerate(gradients):
            g = gradient + decay * position
            z = max(0.0, 1 - t / T)
            beta = 0.9 * z / ((1 - 0.9) + 0.9 * z)
            m, v = g + beta * m, 0.99 * v + 0.01 * g * g
            position -= 0.01 * m / ((v / (1 - 0.99 ** (t + 1))) ** 0.5 + 1e-8)
        assert theta[i].item() == pytest.approx(position, rel=1e-11, abs=1e-11)


def test_the_average_is_demon_around_adam():
    one, other = (nn.Parameter(torch.ones(4, dtype=torch.float64)) for _ in range(2))
    drive(DemonAdam([one], T, 0.01, average=True), one, noise())
    drive(Demon(torch.optim.Adam([other], 0.01), T), other, noise())
    assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


def test_the_sum_steps_as_far_as_its_weight_and_shrinks_to_adams_step():
    """Under a constant gradient v̂ = g², so a step is lr·Σ weights: nearly 1/(1-β1) of Adam's at most, and 1 from T."""
    steps = 2000
    theta = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer, lengths, weights, weight = DemonAdam([theta], steps, 0.01), [], [], 0.0
    for t in range(steps + 10):
        before = theta.item()
        drive(optimizer, theta, [[2.0]])
        lengths.append((before - theta.item()) / 0.01)
        z = max(0.0, 1 - t / steps)
        weight = 1 + 0.9 * z / (0.1 + 0.9 * z) * weight
        weights.append(weight)
    assert lengths == pytest.approx(weights, rel=1e-6)  # eps is 1e-8 of 2, θ of up to 100 rounded beside 0.01
    assert 9 < max(lengths) < 10
    assert lengths[-1] == pytest.approx(1.0, rel=1e-6)


def test_the_record_shows_the_decay_of_the_rate_that_is_in_it():
    theta = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    monitor = Monitor(optimizer := DemonAdam([theta], 100, 0.01), strict=True)
    found = []
    for _ in range(101):
        drive(optimizer, theta, [[1.0, -1.0, 1.0, -1.0]])
        found.append(monitor.scalars()["stepsize/group0.param0/p50"])
    monitor.close()
    assert found == pytest.approx([0.01 * (1 + 9 * (1 - t / 100)) for t in range(101)], rel=1e-6)


@pytest.mark.parametrize("average", [False, True])
def test_goes_on_without_momentum_after_the_last_step(average):
    theta = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = DemonAdam([theta], 20, 0.01, average=average)
    drive(optimizer, theta, noise(60))
    assert theta.isfinite().all()
    assert torch.equal(optimizer.state[theta]["exp_avg"], theta.grad)


@pytest.mark.parametrize(("bad", "name"), [({"steps": 0}, "steps"), ({"steps": 5, "betas": (1.0, 0.9)}, "betas")])
def test_settings_out_of_range_are_refused_in_a_sentence(bad, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        DemonAdam([torch.ones(1)], **bad)
