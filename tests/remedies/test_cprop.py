import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from stepscope import Monitor
from stepscope.diagnostics.conformity import CERTAINTY, conformity
from stepscope.remedies import CProp


def cdf(name, z):
    """F(z), as it is written in the authors' code."""
    return {
        "normal": lambda: 0.5 * (1 + math.erf(z / math.sqrt(2))),
        "bft": lambda: 1 / (1 + math.exp(-0.07056 * z**3 - 1.5976 * z)),
        "bfo": lambda: 1 / (1 + math.exp(-1.702 * z)),
        "logistic": lambda: 1 / (1 + math.exp(-z * math.pi / math.sqrt(3))),
    }[name]()


class Twin:
    """The authors' rule for one number, line by line; s = 1 at the first step, where their variance is 0/0."""

    def __init__(self, beta, c, name):
        self.beta, self.c, self.name = beta, c, name
        self.m = self.v = self.t = 0

    def scale(self, g):
        self.t += 1
        self.m += (1 - self.beta) * (g - self.m)
        self.v += (1 - self.beta) * (g * g - self.v)
        correction = 1 - self.beta**self.t
        mean, square = self.m / correction, self.v / correction
        n = correction / (1 - self.beta)
        if self.t == 1:
            return 1.0
        error = math.sqrt(max(square - mean * mean, 0.0) / (n - 1))
        probability = cdf(self.name, max(-mean / error, -700 / 1.702))  # exp would overflow
        return min(1.0, 2 * self.c * abs(probability - 0.5))


def gradients(steps, size, seed=0):
    means = np.linspace(-0.5, 0.5, size)
    return means + np.random.default_rng(seed).standard_normal((steps, size))


@pytest.mark.parametrize("name", CERTAINTY)
@pytest.mark.parametrize("c", [1.0, 3.0])
def test_equals_a_slow_twin_over_momentum(name, c):
    theta, size = nn.Parameter(torch.zeros(6, dtype=torch.float64)), 6
    optimizer = CProp(torch.optim.SGD([theta], 0.1, momentum=0.9), beta=0.95, c=c, cdf=name)
    twins, position, buffer = [Twin(0.95, c, name) for _ in range(size)], [0.0] * size, [0.0] * size
    for g in gradients(200, size):
        theta.grad = torch.tensor(g)
        optimizer.step()
        for i in range(size):
            buffer[i] = 0.9 * buffer[i] + g[i]
            position[i] -= twins[i].scale(g[i]) * 0.1 * buffer[i]
    # F - ½ of the twin cancels where z is small, to some 1e-16 of ½.
    assert theta.tolist() == pytest.approx(position, rel=1e-11, abs=1e-11)


def test_equals_a_slow_twin_over_adamw_whose_decay_is_not_scaled():
    theta = nn.Parameter(torch.ones(6, dtype=torch.float64))
    optimizer = CProp(torch.optim.AdamW([theta], 0.01, weight_decay=0.5), beta=0.95)
    for i in range(6):
        twin, m, v, position = Twin(0.95, 1.0, "normal"), 0.0, 0.0, 1.0
        for t, g in enumerate(gradients(200, 6)[:, i], 1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            adam = 0.01 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
            position = position - 0.01 * 0.5 * position - twin.scale(g) * adam
        if i == 0:
            for row in gradients(200, 6):
                theta.grad = torch.tensor(row)
                optimizer.step()
        assert theta[i].item() == pytest.approx(position, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("foreach", [False, True])
def test_nesterovs_overwritten_gradient_is_not_taken_for_the_gradient(foreach):
    theta = nn.Parameter(torch.zeros(6, dtype=torch.float64))
    optimizer = CProp(torch.optim.SGD([theta], 0.1, momentum=0.9, nesterov=True, foreach=foreach), beta=0.95)
    twins = [Twin(0.95, 1.0, "normal") for _ in range(6)]
    for row in gradients(50, 6):
        theta.grad = torch.tensor(row)
        optimizer.step()
        for twin, g in zip(twins, row, strict=True):
            twin.scale(g)
    assert optimizer.state[theta]["cprop_m"].tolist() == pytest.approx([twin.m for twin in twins])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CERTAINTY)
def test_a_constant_gradient_is_certain_at_every_step(name, dtype):
    m = v = torch.zeros(5, dtype=dtype)
    g = torch.tensor([1e-3, 0.1, 1.0, -0.3, 1e3], dtype=dtype)
    for t in range(1, 500):
        m, v = m + 0.001 * (g - m), v + 0.001 * (g * g - v)
        assert torch.equal(conformity(m, v, t, 0.999, cdf=name), torch.ones_like(g)), t


def test_steps_on_a_constant_gradient_are_those_of_the_optimizer_inside_to_the_bit():
    scaled, plain = (nn.Parameter(torch.full((7,), 1.7)) for _ in range(2))
    optimizers = CProp(torch.optim.AdamW([scaled], 0.01)), torch.optim.AdamW([plain], 0.01)
    for _ in range(100):
        for p, optimizer in zip((scaled, plain), optimizers, strict=True):
            p.grad = torch.linspace(-1, 1, 7)
            optimizer.step()
    assert torch.equal(scaled, plain)


def test_s_is_uniform_for_a_calibrated_z():
    """2·|Φ(z) - ½| is 1 minus a p-value: uniform, with mean ½ and standard deviation 1/sqrt(12)."""
    size, beta, t = 200_000, 0.99, 2000
    z = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    n = (1 - beta**t) / (1 - beta)
    mean = z / math.sqrt(n - 1)  # around it a variance of one
    correction = 1 - beta**t
    s = conformity(correction * mean, correction * (mean.square() + 1), t, beta)
    assert s.mean().item() == pytest.approx(0.5, abs=5 / math.sqrt(12 * size))  # 5 σ: one false alarm in 10⁶
    assert torch.histc(s, 10, 0, 1).div(size).allclose(torch.tensor(0.1, dtype=torch.float64), atol=5e-3)


def test_noise_leaves_the_mean_that_the_papers_n_implies():
    """E s = (2/π)·arctan(σ) for z ~ N(0, σ²), and with n = 1/(1-β) the variance of z is ½ whatever β."""
    size, beta = 20_000, 0.99
    source = torch.Generator().manual_seed(0)
    theta = nn.Parameter(torch.zeros(size))
    optimizer = CProp(torch.optim.SGD([theta], 0.0), beta)
    for _ in range(1000):  # 0.99^1000 = 4e-5 of the beginning is left
        theta.grad = torch.randn(size, generator=source)
        optimizer.step()
    state = optimizer.state[theta]
    s = conformity(state["cprop_m"], state["cprop_v"], 1000, beta)
    # 5 standard errors of a mean of numbers from 0 to 1, ≤ ½ each; and the scatter of v̂, whose relative variance is
    # 2·(1-β)/(1+β) = 1 %, moves E s by less than a quarter of that.
    allowed = 5 * 0.5 / math.sqrt(size) + 0.01 / 4
    assert s.mean().item() == pytest.approx(2 / math.pi * math.atan(math.sqrt(0.5)), abs=allowed)
    assert 2 / math.pi * math.atan(math.sqrt(0.5)) == pytest.approx(0.392, abs=5e-4)


def test_nothing_is_doubted_while_nothing_is_known():
    nothing = torch.zeros(3)
    assert torch.equal(conformity(nothing, nothing, 1000, 0.999), torch.ones(3))
    g = torch.tensor([0.3, -1e-20, 7.0])
    assert torch.equal(conformity(0.001 * g, 0.001 * g * g, 1, 0.999), torch.ones(3))
    assert torch.equal(conformity(g, g * g, 50, 0.0), torch.ones(3))


def test_conformity_does_not_ask_for_the_unit_of_the_gradient():
    source = torch.Generator().manual_seed(0)
    g = 0.3 + torch.randn(50, 100, generator=source, dtype=torch.float64)
    found = []
    for unit in (1.0, 2.0**-30):
        m, v = (unit * g).mean(0) * (1 - 0.99**50), (unit * g).square().mean(0) * (1 - 0.99**50)
        found.append(conformity(m, v, 50, 0.99))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [({"beta": 1.0}, "`beta` must be"), ({"c": 0.0}, "`c` must be"), ({"cdf": "cauchy"}, "one of normal, bft, bfo")],
)
def test_settings_out_of_range_are_refused_in_a_sentence(bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        CProp(torch.optim.SGD([torch.ones(1)], 0.1), **bad)


@pytest.mark.parametrize(("beta", "inner", "longest"), [(0.99, "sgd", 0.99), (0.9, "adam", 0.95), (0.99, "adam", 0.99)])
def test_a_run_is_judged_after_its_longest_memory(beta, inner, longest):
    """What s remembers is part of the stepsize's memory."""
    x = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([x], 0.1) if inner == "sgd" else torch.optim.Adam([x], 0.1, betas=(0.9, 0.95))
    with Monitor(CProp(optimizer, beta), what_if=()) as monitor:
        for _ in range(20):
            x.grad = torch.randn(4)
            monitor.optimizer.step()
    assert monitor.trace.groups["beta2"][-1] == longest
    assert monitor.diagnose().start == round(10 / (1 - longest))


@pytest.mark.slow
def test_conformity_falls_with_the_rate_on_digits():
    """Noise rules at high rates: another start and other batches gave .85, .68 and .50, these .88, .74 and .47."""
    found = [late_conformity(lr) for lr in (0.02, 0.1, 0.5)]
    assert found == pytest.approx(
        [0.88, 0.74, 0.47], abs=0.05
    )  # sums in another order part a run within its 1200 steps


def late_conformity(lr, steps=1200, beta=0.999):
    """Mean s after 1200 steps of batches of 32, over the coordinates that have had a gradient."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.data[:1300] / 16, dtype=torch.float32), torch.tensor(data.target[:1300])
    source = torch.Generator().manual_seed(0)
    sizes = (64, 64, 64, 10)
    weights = [nn.Parameter(torch.randn(n, k, generator=source) * math.sqrt(2 / k)) for k, n in pairwise(sizes)]
    biases = [nn.Parameter(torch.zeros(n)) for n in sizes[1:]]
    params = weights + biases
    averages = [(torch.zeros_like(p), torch.zeros_like(p)) for p in params]
    optimizer = torch.optim.SGD(params, lr)
    for _ in range(steps):
        rows = torch.randint(1300, (32,), generator=source)
        h = x[rows]
        for i in range(3):
            h = h @ weights[i].T + biases[i]
            h = h.relu() if i < 2 else h
        optimizer.zero_grad()
        nn.functional.cross_entropy(h, y[rows]).backward()
        for p, (m, v) in zip(params, averages, strict=True):
            m.lerp_(p.grad, 1 - beta)
            v.lerp_(p.grad.square(), 1 - beta)
        optimizer.step()
    s = torch.cat([conformity(m, v, steps, beta)[v > 0] for m, v in averages])
    return s.mean().item()
