"""The drift of reshuffled gradients against every order listed, against drawn orders, and in its limits."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepscope.synthetic.periodic import periodic_drift
from stepscope.synthetic.reshuffled import reshuffled_critical_beta2, reshuffled_drift


@pytest.mark.parametrize(("rare", "common", "n"), [(3.0, -1.0, 3), (-5.0, 1.5, 2), (4.0, 1.0, 4)])
def test_every_order_of_the_last_epochs(rare, common, n):
    """At β = (0.2, 0.05) what is older than four epochs weighs 0.2^(4n) and less; all places of the rare one listed."""
    beta1, beta2, epochs = 0.2, 0.05, 6 if n < 4 else 5
    total = count = 0.0
    for places in itertools.product(range(n), repeat=epochs):
        g = np.full(n * epochs, common)
        for epoch, place in enumerate(places):
            g[epoch * n + place] = rare
        for end in range(n * (epochs - 1), n * epochs):  # the step lies in the last epoch
            past = g[end::-1]
            lags = np.arange(len(past))
            m = (1 - beta1) * float(beta1**lags @ past) / (1 - beta1 ** len(past))
            v = (1 - beta2) * float(beta2**lags @ past**2) / (1 - beta2 ** len(past))
            total += m / math.sqrt(v)
            count += 1
    cut = 0.2 ** (n * (epochs - 1))  # the least that is listed: the rest of the last epoch is to come
    assert reshuffled_drift(rare, common, n, beta1, beta2) == pytest.approx(total / count, abs=5 * cut)


@pytest.mark.parametrize("betas", [(0.0, 0.9), (0.9, 0.9), (0.95, 0.6)])
def test_drawn_orders(betas):
    """400 chains of 300 epochs of ten, the first 100 left out: within 4 standard errors."""
    rng, n = np.random.default_rng(7), 10
    m, v, sums = np.zeros(400), np.full(400, 109 / 10), np.zeros(400)
    for epoch in range(300):
        places = rng.integers(n, size=400)
        for step in range(n):
            g = np.where(places == step, 10.0, -1.0)
            m = betas[0] * m + (1 - betas[0]) * g
            v = betas[1] * v + (1 - betas[1]) * g**2
            if epoch >= 100:
                sums += m / np.sqrt(v)
    each = sums / (200 * n)
    expected = reshuffled_drift(10.0, -1.0, n, *betas)
    assert each.mean() == pytest.approx(expected, abs=4 * each.std(ddof=1) / 20)


@given(st.floats(1.5, 30.0), st.integers(2, 8), st.floats(0.1, 10.0))
def test_scale_cancels_and_sign_turns(rare, n, scale):
    once = reshuffled_drift(rare, -1.0, n, 0.3, 0.4)
    assert reshuffled_drift(scale * rare, -scale, n, 0.3, 0.4) == pytest.approx(once, abs=1e-10)
    assert reshuffled_drift(-rare, 1.0, n, 0.3, 0.4) == pytest.approx(-once, abs=1e-12)


def test_the_limits_of_beta2():
    """Little memory is the sign of the gradient; a long one the mean over the root mean square, up to 1−β2 and more."""
    assert reshuffled_drift(10.0, -1.0, 10, 0.0, 1e-9) == pytest.approx((1 - 9) / 10, abs=1e-4)
    long = reshuffled_drift(2.0, -1.0, 2, 0.0, 0.999)
    assert long == pytest.approx(0.5 / math.sqrt(2.5), rel=2e-3)  # skewness 2.8: some 0.9 (1−β2) is missing


def test_an_order_that_never_changes_is_another_drift():
    """Reshuffling matters: the fixed cycle has its own exact drift."""
    cycle = periodic_drift(np.array([10.0] + [-1.0] * 9), 0.0, 0.9) / 10
    assert abs(cycle - reshuffled_drift(10.0, -1.0, 10, 0.0, 0.9)) > 1e-3


@pytest.mark.parametrize(("n", "beta1"), [(5, 0.0), (10, 0.0), (10, 0.9)])
def test_the_critical_beta2_turns_the_drift(n, beta1):
    root = reshuffled_critical_beta2(n, -1, n, beta1)
    assert reshuffled_drift(n, -1, n, beta1, root - 0.003) < 0 < reshuffled_drift(n, -1, n, beta1, root + 0.003)


def test_five_with_momentum_never_goes_wrong():
    assert reshuffled_critical_beta2(5, -1, 5, 0.9) is None


@pytest.mark.parametrize(
    "wrong", [(1.0, -1.0, 5, 0.0, 0.5), (3.0, 0.0, 5, 0.0, 0.5), (3.0, -1.0, 1, 0.0, 0.5), (3, -1, 5, 1, 0.5)]
)
def test_what_is_refused(wrong):
    with pytest.raises(ValueError, match="were expected"):
        reshuffled_drift(*wrong)
