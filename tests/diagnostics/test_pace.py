"""The schedule taken out of the harm test and of the growth of a."""

import math

import numpy as np
import pytest

from stepscope.diagnostics.drift import HarmDecision, K, Stretches, cross_mean, judge_harm
from stepscope.diagnostics.pace import at_an_even_rate, leveled, pace
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.reddi2018 import theorem1


def products(g, e):
    """Return ⟨d, d⟩, ⟨d, g⟩, ⟨g, g⟩ of one tensor."""
    stretches = Stretches(g.shape[1])
    for gradient, stepsize in zip(g, e, strict=True):
        stretches.current[:3] += [stepsize * gradient, gradient, stepsize]
        stretches.advance()
    _, dd, dg, gg = stretches.gram([(g.shape[1], 1.0)])
    return dd[0], dg[0], gg[0]


@pytest.fixture
def run():
    """Gradients `(steps, coords)`, stepsizes without the schedule, and the rate of each of the last K stretches."""
    rng, length = np.random.default_rng(0), 16
    g = 0.5 + rng.normal(size=(2 * K * length, 3))
    h = np.exp(rng.normal(size=g.shape))
    rates = np.exp(rng.normal(size=2 * K))
    return g, h, np.repeat(rates, length)[:, None], rates[K:]


def test_sgd_under_any_schedule_has_rho_1(run):
    g, h, schedule, rates = run
    harm = judge_harm(*leveled(*products(g, schedule * np.ones_like(h)), rates), 1, 100)
    assert harm.rho == pytest.approx(1, rel=1e-4)  # float32
    assert harm.interval == pytest.approx((1, 1), rel=1e-3)


def test_what_is_left_is_the_run_at_an_even_rate(run):
    """⟨d, g⟩ entry by entry, ⟨g, g⟩ in its level."""
    g, h, schedule, rates = run
    _, dg, gg = leveled(*products(g, schedule * h), rates)
    _, other_dg, other_gg = products(g, rates.mean() * h)
    assert dg == pytest.approx(other_dg, rel=1e-4)
    assert cross_mean(gg) == pytest.approx(cross_mean(other_gg), rel=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_harm_under_a_cosine_is_found(seed):
    """β2 = 0.1 lies below the root of the drift, 0.4723: Adam climbs, whatever the schedule."""
    trace = simulate(theorem1(), "adam", 100_000, "0.005*(1 + cos(pi*t/T))", (0.0, 0.1), [seed], jobs=1)
    assert trace.diagnose().harm.decision is HarmDecision.HARMFUL


def test_pace_is_the_share_of_the_peak():
    lr = np.array([[1.0, 0.2], [2.0, 0.4], [1.0, 0.2]])
    assert pace(lr) == pytest.approx([0.5, 1.0, 0.5])
    assert pace(np.array([[1.0, math.nan], [0.5, math.nan]])) == pytest.approx([1.0, 0.5])


def test_a_without_its_schedule():
    share = 0.5 * (1 + np.cos(np.pi * np.arange(1, 1001) / 1000))
    level = (share + np.append(share[0], share[:-1])) / 2
    assert at_an_even_rate(np.cumsum(0.3 * level), share) == pytest.approx(0.3 * np.arange(1, 1001))
