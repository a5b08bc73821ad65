"""Moments of an exponential average, against the drift's own transform, closed forms and drawn values."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.synthetic.recent import inverse_moment, listed
from stepscope.synthetic.stationary import stationary_drift, stationary_rho

LAWS = {
    "chen": ((1 / 11, 10 / 11), (11.0, -1.0)),
    "three values": ((0.2, 0.3, 0.5), (5.0, -2.0, 1.0)),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("beta2", [0.05, 0.5, 0.95])
def test_the_inverse_root_is_that_of_the_drift(law, beta2):
    """E[g/√v] and E[1/√v] come out of stationary.py by another grid and another order of summation."""
    drift = stationary_drift(*law, 0.0, beta2)
    assert inverse_moment(*law, beta2, 0.5, weight=law[1]) == pytest.approx(drift, abs=1e-11)
    mean = float(np.dot(*law))
    assert inverse_moment(*law, beta2, 0.5) == pytest.approx(drift / (stationary_rho(*law, beta2) * mean), rel=1e-10)


@given(st.floats(0.1, 100.0), st.floats(0.01, 0.99), st.sampled_from([0.5, 1.0, 2.0]))
def test_gradients_of_one_size_have_that_size_for_v(size, beta2, power):
    found = inverse_moment((0.3, 0.7), (size, -size), beta2, power)
    assert found == pytest.approx(size ** (-2 * power), rel=1e-9)


@settings(max_examples=10)
@given(st.floats(0.05, 0.95), st.floats(1.5, 20.0))
def test_listing_agrees_with_the_transform(p, size):
    """At β2 = 0.1 twelve draws leave 1e-12·size² of v."""
    law = ((p, 1 - p), (size, -1.0))
    one_by_one = listed(*law, 0.1, lambda g, v: g**2 / v)
    assert one_by_one == pytest.approx(inverse_moment(*law, 0.1, 1.0, weight=np.square(law[1])), rel=1e-9)


def test_listing_against_drawn_values():
    """E min(1/√v, 0.4) g, a function without a transform, over 1e6 draws: within 4 standard errors."""
    p, g = (np.array(column) for column in LAWS["three values"])
    rng = np.random.default_rng(2)
    drawn = rng.choice(g, p=p, size=(1_000, 1_000))
    v, values = np.full(1_000, p @ g**2), []
    for row in drawn:
        v = 0.2 * v + 0.8 * row**2
        values.append(row * np.minimum(1 / np.sqrt(v), 0.4))
    each = np.mean(values[30:], axis=0)  # 0.2^30 of the start is left
    expected = listed(p, g, 0.2, lambda g, v: g * np.minimum(1 / np.sqrt(v), 0.4))
    assert each.mean() == pytest.approx(expected, abs=4 * each.std(ddof=1) / math.sqrt(1_000))
