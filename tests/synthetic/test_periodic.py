"""The exact periodic drift against Adam itself, written as a loop, and against the numbers known of Reddi's games."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.synthetic.arrivals import Cyclic
from stepscope.synthetic.periodic import (
    critical_beta2,
    cyclic_gradients,
    drift_roots,
    periodic_average,
    periodic_drift,
    periodic_rho,
)
from stepscope.synthetic.problem import Problem

ONLINE = [1010.0] + [-10.0] * 100


def drift_by_loop(g, beta1, beta2):
    """Σ m/√v over the last of so many periods that what came before is forgotten to 1e-18."""
    m = v = 0.0
    periods = 1 + math.ceil(-math.log(1e-18) / -math.log(max(beta1, beta2, 1e-3)) / len(g))
    for _ in range(periods):
        total = 0.0
        for value in g:
            m = beta1 * m + (1 - beta1) * value
            v = beta2 * v + (1 - beta2) * value * value
            total += m / math.sqrt(v) if v else 0.0
    return total


gradients = st.lists(st.floats(-100, 100).filter(lambda g: abs(g) > 1e-3), min_size=1, max_size=7)
decay = st.floats(0.0, 0.95)


@settings(max_examples=60)
@given(gradients, decay, st.floats(0.05, 0.95))
def test_the_drift_is_that_of_the_loop(g, beta1, beta2):
    # 1e-9 of the largest possible sum: the spread 1e5 between gradients leaves small v to the rounding of large ones
    assert periodic_drift(g, beta1, beta2) == pytest.approx(drift_by_loop(g, beta1, beta2), rel=1e-9, abs=1e-9)


@settings(max_examples=60)
@given(gradients, decay, st.floats(0.05, 0.95), st.integers(0, 6), st.floats(0.01, 100))
def test_what_does_not_change_the_drift(g, beta1, beta2, shift, scale):
    d = periodic_drift(g, beta1, beta2)
    close = {"rel": 1e-9, "abs": 1e-9}
    assert periodic_drift(np.roll(g, shift), beta1, beta2) == pytest.approx(d, **close)
    assert periodic_drift(np.multiply(g, scale), beta1, beta2) == pytest.approx(d, **close)
    assert periodic_drift(g + g, beta1, beta2) == pytest.approx(2 * d, **close)
    assert periodic_drift(np.negative(g), beta1, beta2) == pytest.approx(-d, **close)
    columns = periodic_drift(np.stack([g, np.ones(len(g))], axis=1), beta1, beta2)
    assert columns == pytest.approx([d, len(g)], **close)


def test_the_second_moment_of_one_spike():
    """v_i = g² + (C²−g²)(1−β2) β2^(i−1)/(1−β2^d), i = 1 the spike."""
    beta2, i = 0.999, np.arange(1, 102)
    spike = 100 + (1010**2 - 100) * (1 - beta2) * beta2 ** (i - 1) / (1 - beta2**101)
    assert periodic_average(np.square(ONLINE), 1 - beta2) == pytest.approx(spike, rel=1e-12)


@pytest.mark.parametrize(
    ("betas", "drift"),
    [
        ((0.0, 0.9), -44.3),
        ((0.0, 0.99), -2.28),
        ((0.9, 0.9), -41.4),
        ((0.9, 0.99), -1.90),
        ((0.9, 0.995), -0.907),
        ((0.9, 0.999), -0.105),
        ((0.9, 0.9999), 0.0785),
        ((0.99, 0.99), -0.328),
    ],
)
def test_drifts_of_the_online_game(betas, drift):
    observed = periodic_drift(ONLINE, *betas)
    assert float(f"{observed:.3g}") == drift
    assert observed == pytest.approx(drift_by_loop(ONLINE, *betas), rel=1e-7)


@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.999603), (0.5, 0.999595), (0.9, 0.999516), (0.99, 0.997640)])
def test_critical_beta2_of_the_online_game(beta1, beta2):
    critical = critical_beta2(ONLINE, beta1)
    assert round(critical, 6) == beta2
    for factor, sign in ((1.01, -1), (0.99, 1)):  # the loop agrees 1 % of 1−β2 to either side
        assert drift_by_loop(ONLINE, beta1, 1 - factor * (1 - critical)) * sign > 0


def test_much_momentum_also_saves_tiny_beta2():
    """At β1 = 0.99 the signs of m decide as β2 → 0, and m is right for the whole period: a second root."""
    low, high = drift_roots(ONLINE, 0.99)
    assert low == pytest.approx(0.000934, abs=1e-6)
    assert high == critical_beta2(ONLINE, 0.99)
    for beta2, sign in ((low / 1.1, 1), (low * 1.1, -1)):
        assert drift_by_loop(ONLINE, 0.99, beta2) * sign > 0


@pytest.mark.parametrize(
    ("size", "beta2"), [(3, 0.4723), (5, 0.2368), (10, 0.0983), (20, 0.0414), (50, 0.0133), (100, 0.0057)]
)
def test_critical_beta2_of_theorem_1(size, beta2):
    critical = critical_beta2([size, -1, -1])
    assert critical == pytest.approx(beta2, abs=5e-5)  # half a unit; that of C = 10 is 0.0983473 (test_claims.py)
    assert critical > 1 / (1 + size**2)  # the β2 of the paper lies inside
    assert drift_by_loop([size, -1, -1], 0, critical * 0.99) < 0 < drift_by_loop([size, -1, -1], 0, critical * 1.01)


@pytest.mark.parametrize(("beta2", "end"), [(0.40, 1.0), (0.55, -1.0)])
def test_the_iterate_goes_where_the_drift_says(beta2, end):
    g, x, v = [3.0, -1.0, -1.0], 0.0, 0.0
    for t in range(1, 60_001):
        value = g[(t - 1) % 3]
        v = beta2 * v + (1 - beta2) * value**2
        x = min(1.0, max(-1.0, x - 0.5 / math.sqrt(t) * value / math.sqrt(v)))
    assert x == pytest.approx(end, abs=0.02)  # the last steps are 0.5/√60000 · √2 long


def test_towards_one_the_drift_is_unbiased():
    rms = math.sqrt(np.mean(np.square(ONLINE)))
    assert periodic_drift(ONLINE, 0.9, 1 - 1e-9) == pytest.approx(sum(ONLINE) / rms, rel=1e-4)
    assert periodic_rho(ONLINE, 1 - 1e-9) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("beta2", "rho"), [(0.99, -22.3), (0.999, -1.5)])
def test_rho_of_the_online_game(beta2, rho):
    assert periodic_rho(ONLINE, beta2) == pytest.approx(rho, rel=0.005)


def test_rho_of_theorem_1():
    assert periodic_rho([3, -1, -1], 0.1) == pytest.approx(-0.98, abs=0.005)


def test_nothing_goes_wrong_where_gradients_agree():
    assert critical_beta2([1.0, 5.0, 2.0]) is None
    assert drift_roots([1.0, 5.0, 2.0], 0.9) == ()
    assert periodic_drift([0.0, 1.0], 0.0, 0.0) == 1.0  # a zero gradient moves nothing, rather than dividing by zero


def test_large_eps_restores_the_direction():
    """m/(√v + eps) → m/eps: what saves Adam on the game is an eps beyond its gradients."""
    assert periodic_drift(ONLINE, 0.9, 0.99, eps=1.0) < 0
    assert periodic_drift(ONLINE, 0.9, 0.99, eps=1e6) * 1e6 == pytest.approx(sum(ONLINE), rel=0.05)
    assert critical_beta2(ONLINE, eps=1e3) < critical_beta2(ONLINE)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: periodic_drift([], 0, 0.9), "One period"),
        (lambda: periodic_drift([math.nan], 0, 0.9), "One period"),
        (lambda: periodic_drift([1.0], 0, 1.0), r"beta2 must lie in \[0, 1\), got 1.0"),
        (lambda: critical_beta2([2.0, -1.0, -1.0]), "no direction is right"),
        (lambda: critical_beta2(np.ones((3, 2))), "one coordinate"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_problem_in_symbols():
    x, y = sympy.symbols("x y")
    game = Problem([1010 * x, -10 * x], arrival=Cyclic([0] + [1] * 100), domain=(-1, 1))
    assert critical_beta2(cyclic_gradients(game)[:, 0], 0.9) == pytest.approx(0.999516, abs=5e-7)
    plane = Problem([3 * x - y, -x + 2 * y], arrival=Cyclic([0, 1, 1]), variables=(x, y))
    assert periodic_drift(cyclic_gradients(plane), 0.5, 0.3) == pytest.approx(
        [drift_by_loop([3, -1, -1], 0.5, 0.3), drift_by_loop([-1, 2, 2], 0.5, 0.3)], rel=1e-12
    )


def problem(*components, order):
    return SimpleNamespace(
        arrival=SimpleNamespace(order=order), start=np.zeros(1), gradient=lambda i, x: np.atleast_1d(components[i](x))
    )


def test_gradients_of_a_problem():
    game = problem(lambda x: 3.0 + 0 * x, lambda x: -1.0 + 0 * x, order=(0, 1, 1))
    assert cyclic_gradients(game).tolist() == [[3.0], [-1.0], [-1.0]]
    tails = problem(lambda x: 11 * np.clip(x, -1, 1), lambda x: -np.clip(x, -1, 1), order=(0,) + (1,) * 10)
    assert cyclic_gradients(tails, 5.0)[:2].tolist() == [[11.0], [-1.0]]
    with pytest.raises(ValueError, match="component 0 is not constant"):
        cyclic_gradients(tails, 0.5)
    with pytest.raises(ValueError, match="Cyclic arrival"):
        cyclic_gradients(SimpleNamespace(arrival="Random()"))
