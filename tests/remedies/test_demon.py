import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import t as student
from torch import nn

from shared import digits
from stepscope import Monitor
from stepscope.diagnostics.effective_rate import effective_rates
from stepscope.remedies import Demon
from stepscope.remedies.demon import decayed

T = 150


def written(beta, t, steps):
    """The paper's rule, word for word, and 0 after T."""
    z = 1 - t / steps
    return beta * z / ((1 - beta) + beta * z) if z > 0 else 0.0


def drive(optimizer, theta, gradients):
    momenta = []
    for g in gradients:
        theta.grad = torch.tensor(g)
        optimizer.step()
        group = optimizer.param_groups[0]
        momenta.append(group["betas"][0] if "betas" in group else group["momentum"])
    return momenta


def noise(steps=200, size=4):
    return np.random.default_rng(0).standard_normal((steps, size))


def test_equals_a_slow_twin_over_sgd():
    theta = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = Demon(torch.optim.SGD([theta], 0.1, momentum=0.9), T)
    drive(optimizer, theta, noise())
    for i, gradients in enumerate(noise().T):
        position = velocity = 0.0
        for t, g in enumerate(gradients):
            velocity = written(0.9, t, T) * velocity - 0.1 * g
            position += velocity
        assert theta[i].item() == pytest.approx(position, rel=1e-12, abs=1e-12)


def test_equals_a_slow_twin_over_adam():
    theta = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = Demon(torch.optim.Adam([theta], 0.1, betas=(0.95, 0.99)), T)
    drive(optimizer, theta, noise())
    for i, gradients in enumerate(noise().T):
        position = m = v = 0.0
        for t, g in enumerate(gradients):
            beta = written(0.95, t, T)
            m, v = beta * m + (1 - beta) * g, 0.99 * v + 0.01 * g * g
            m_hat, v_hat = m / (1 - beta ** (t + 1)), v / (1 - 0.99 ** (t + 1))
            position -= 0.1 * m_hat / (v_hat**0.5 + 1e-8)
        assert theta[i].item() == pytest.approx(position, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99])
def test_what_a_gradient_still_moves_falls_linearly_and_exactly(beta):
    exact = Fraction(beta)
    for t in range(T + 1):
        now = Fraction(decayed(exact, Fraction(t, T)))
        assert now / (1 - now) == (1 - Fraction(t, T)) * exact / (1 - exact)
        assert decayed(beta, t / T) == pytest.approx(written(beta, t, T), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("beta", [0.1, 0.3, 0.9, 0.95, 0.999])
def test_begins_at_beta_to_the_bit_and_ends_at_zero(beta):
    theta = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    momenta = drive(Demon(torch.optim.SGD([theta], 0.1, momentum=beta), T), theta, noise(T + 100))
    assert momenta[0] == beta
    assert all(a > b for a, b in pairwise(momenta[: T + 1]))
    # Without the clamp β_t would be negative, with a pole at t = T/β, which is 167 for 0.9.
    assert momenta[T:] == [0.0] * 100
    assert theta.isfinite().all()


def test_a_beta_of_its_own_comes_before_the_optimizers():
    theta = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = Demon(torch.optim.SGD([theta], 0.1), T, beta=0.8)
    assert drive(optimizer, theta, noise(2))[0] == 0.8


def test_a_group_that_comes_later_joins_the_others():
    theta, later = (nn.Parameter(torch.zeros(4, dtype=torch.float64)) for _ in range(2))
    optimizer = Demon(torch.optim.SGD([theta], 0.1, momentum=0.9), T)
    drive(optimizer, theta, noise(50))
    optimizer.add_param_group({"params": [later]})
    drive(optimizer, theta, noise(1))
    assert [group["momentum"] for group in optimizer.param_groups] == [decayed(0.9, 50 / T)] * 2


def test_the_second_decay_rate_is_left_alone():
    theta = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = Demon(torch.optim.AdamW([theta], 0.1, betas=(0.9, 0.98)), T)
    drive(optimizer, theta, noise(3))
    assert optimizer.param_groups[0]["betas"] == (decayed(0.9, 2 / T), 0.98)


@pytest.mark.parametrize(
    ("optimizer", "more", "sentence"),
    [
        (torch.optim.SGD, {"steps": 10}, "a momentum that can decay, got SGD with none"),
        (torch.optim.Adagrad, {"steps": 10}, "a momentum that can decay, got Adagrad with none"),
        (torch.optim.Adagrad, {"steps": 10, "beta": 0.9}, "a momentum that can decay, got Adagrad with none"),
        (torch.optim.Adam, {"steps": 0}, "`steps` must be"),
        (torch.optim.Adam, {"steps": 10, "beta": 1.0}, "`beta` must be"),
    ],
)
def test_what_it_cannot_do_is_refused_in_a_sentence(optimizer, more, sentence):
    with pytest.raises(ValueError, match=sentence):
        Demon(optimizer([torch.ones(1)], 0.1), **more)


def test_a_run_under_it_is_judged_as_one_whose_rate_is_annealed():
    """The rate in the groups stands still; the effective one, lr/(1-β_t), falls tenfold: no limit can be read off."""
    x = nn.Parameter(torch.zeros(20))
    sgd = torch.optim.SGD([x], 0.1, momentum=0.9)
    source = torch.Generator().manual_seed(0)
    optimizer = Demon(sgd, 1500)
    with Monitor(optimizer, what_if=()) as monitor:
        for _ in range(1500):
            x.grad = x.detach() + torch.randn(20, generator=source)
            optimizer.step()
    effective = effective_rates(monitor.trace)[:, 0]
    assert effective[[0, -1]] == pytest.approx([1.0, 0.1], rel=0.02)
    diagnosis = monitor.diagnose()
    assert diagnosis.annealed
    assert "finite horizon" in diagnosis.variance.reason


def accuracy(seed, lr, demon):
    """Train a perceptron on digits for 25 epochs, by Demon or by a cosine schedule; return how many of 497 it tells."""
    images, labels = digits()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    steps = 25 * len(range(0, 1300, 32))
    sgd = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    optimizer = Demon(sgd, steps) if demon else sgd
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)
    for _ in range(25):
        for batch in torch.randperm(1300).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            if not demon:
                schedule.step()
    return float((model(images[1300:]).argmax(1) == labels[1300:]).double().mean())


@pytest.mark.slow
@pytest.mark.parametrize("lr", [0.03, 0.1])
def test_on_digits_it_is_within_noise_of_a_cosine_schedule(lr):
    """12 seeds: the 95 % interval of the mean difference lies within what one run differs from the next by its seed."""
    accuracies = np.array([[accuracy(seed, lr, demon) for demon in (True, False)] for seed in range(12)])
    differences = accuracies[:, 0] - accuracies[:, 1]
    error = np.std(differences, ddof=1) / math.sqrt(12)
    of_one_run = 2 * np.std(accuracies, axis=0, ddof=1).mean()
    assert abs(np.mean(differences)) + student.ppf(0.975, 11) * error < of_one_run
