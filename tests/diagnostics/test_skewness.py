"""The skewness of gradients and β2*, against moments taken in one sweep and the counterexamples' exact thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stepscope import Monitor, simulate
from stepscope.diagnostics.diagnosis import diagnose
from stepscope.diagnostics.drift import CUBE, MASS, PULL, SQUARE, Stretches
from stepscope.diagnostics.skewness import WHOLE, critical_beta2, skewness
from stepscope.synthetic.cases import adopt
from stepscope.synthetic.reddi2018 import online
from stepscope.synthetic.stationary import iid_gradients, stationary_drift

# twins


def fill(g, e):
    """Stretches of streams `(steps, coords)`."""
    stretches = Stretches(g.shape[1])
    stretches.unit[:] = np.abs(g[0])
    u = g / np.abs(g[0])
    for t in range(len(g)):
        stretches.current += np.stack([e[t] * g[t], g[t], e[t], u[t] ** 2, u[t] ** 3, e[t] * u[t] ** 2])
        stretches.advance()
    return stretches


def test_third_moments_match_the_whole_stream():
    rng = np.random.default_rng(0)
    g, e = rng.normal(1, 1, (512, 5)) * 10.0 ** np.arange(-10, 15, 5), rng.lognormal(size=(512, 5))
    stretches = fill(g, e)
    k, length = stretches.full // 2, stretches.length
    begin = (stretches.full - k) * length
    got = stretches.third([(2, 3.0), (3, 1.0)])
    windows = [slice(begin + i * length, begin + (i + 1) * length) for i in range(k)]
    for tensor, (own, scale) in enumerate([(range(2), 3.0), (range(2, 5), 1.0)]):
        twin = np.zeros((k, k))
        for c in own:
            q = np.array([(g[w, c] ** 3).mean() for w in windows]) / (g[begin:, c] ** 2).mean()
            pull, mass = [g[w, c].mean() for w in windows], np.array([e[w, c].mean() for w in windows])
            for i in range(k):
                for j in range(k):
                    others = [m for m in range(k) if i == j or m not in (i, j)]
                    twin[i, j] += scale * mass[others].mean() * q[i] * pull[j]
        assert got[tensor] == pytest.approx(twin, rel=1e-4)  # closed stretches are float32


def test_rows_are_where_their_names_say():
    stretches = fill(np.full((1, 1), -2.0), np.full((1, 1), 0.5))
    assert stretches.closed[0][[PULL, MASS, SQUARE, CUBE], 0].tolist() == [-2.0, 0.5, 1.0, -1.0]


def test_a_monitor_and_a_simulation_agree():
    """Adam on a fixed cycle: what torch's run leaves is what the simulated one leaves."""
    steps = 4096
    ran = simulate(online(), "adam", steps, 0.01, (0.9, 0.99))
    x = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.Adam([("x", x)], lr=0.01, betas=(0.9, 0.99))
    monitor = Monitor(optimizer, strict=True)
    for t in range(steps):
        x.grad = torch.tensor([1010.0 if t % 101 == 0 else -10.0], dtype=torch.float64)
        optimizer.step()
        x.data.clamp_(-1, 1)
    assert monitor.trace.drift.gram_qg == pytest.approx(ran.drift.gram_qg, rel=1e-3)


# theorems


@pytest.mark.parametrize("k", [4, 10])
def test_first_order_threshold_of_independent_gradients(k):
    """ADOPT's example: 1 - β2* is 2/(S - 1) to first order; the exact root of the drift lies within a quarter of it."""
    problem = adopt(k)
    p, g = iid_gradients(problem)
    exact_skewness = (p @ g[:, 0] ** 3) / ((p @ g[:, 0] ** 2) * (p @ g[:, 0]))
    whole = skewness(simulate(problem, "adam", 1_000_000, "0.1/sqrt(t)", (0.0, 0.99)))[0]
    assert whole.name == WHOLE
    assert whole.interval[0] <= exact_skewness <= whole.interval[1]
    assert whole.beta2 == critical_beta2(whole.value)
    lower, upper = (1 - factor * (1 - whole.beta2) for factor in (1.25, 0.75))
    assert stationary_drift(p, g[:, 0], 0.0, lower) * (p @ g[:, 0]) < 0
    assert stationary_drift(p, g[:, 0], 0.0, upper) * (p @ g[:, 0]) > 0


def test_a_fixed_order_halves_the_gap():
    """Reddi's online game: 0.99980 from the moments, 0.999603 exactly (docs/theory.md 4.4)."""
    whole = skewness(simulate(online(), "adam", 1_000_000, "0.5/sqrt(t)", (0.0, 0.99)))[0]
    assert whole.beta2 == pytest.approx(0.99980, abs=2e-5)
    assert (1 - 0.999603) / (1 - whole.beta2) == pytest.approx(2.0, abs=0.1)


def test_symmetric_gradients_ask_for_nothing():
    """Gaussian around a mean m: S = (m³ + 3 m s²)/((m² + s²)·m), 3 at most, so β2* = 0."""
    rng = np.random.default_rng(1)
    x = torch.nn.Parameter(torch.zeros(50, dtype=torch.float64))
    monitor = Monitor(torch.optim.SGD([("x", x)], lr=0.1), strict=True)
    for _ in range(2000):
        x.grad = torch.from_numpy(rng.normal(0.5, 1.0, 50))
        monitor.optimizer.step()
    whole = skewness(monitor.trace)[0]
    assert whole.interval[0] <= (0.125 + 1.5) / (1.25 * 0.5) <= whole.interval[1]
    assert whole.beta2_interval[0] == 0.0


# findings and edges


def test_the_finding_names_the_threshold():
    diagnosis = diagnose(simulate(online(), "adam", 300_000, "0.5/sqrt(t)", (0.9, 0.99)))
    (finding,) = [f for f in diagnosis.findings if "larger beta2" in f.title]
    assert "0.9998" in finding.text
    assert "it runs with 0.99" in finding.text


@pytest.mark.parametrize("method", ["amsgrad", "sgd"])
def test_methods_without_the_trouble_hear_nothing_of_it(method):
    diagnosis = diagnose(simulate(online(), method, 300_000, "0.5/sqrt(t)"))
    assert not [f for f in diagnosis.findings if "larger beta2" in f.title]


def test_the_formula_of_the_threshold():
    assert critical_beta2(101.0) == pytest.approx(0.98)
    assert critical_beta2(3.0) == critical_beta2(1.0) == critical_beta2(-5.0) == critical_beta2(-math.inf) == 0.0
    assert critical_beta2(math.inf) == 1.0
    assert math.isnan(critical_beta2(math.nan))


def test_a_short_run_has_no_skewness():
    assert skewness(simulate(online(), "adam", 10)) == ()
