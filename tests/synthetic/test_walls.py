"""Ends at walls against a walk from the beginning, and mean distances against a simulated queue."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepscope.synthetic.engine import simulate
from stepscope.synthetic.reddi2018 import theorem1
from stepscope.synthetic.walls import end_at_wall, unbiased_distance


@given(
    st.lists(st.floats(-2, 2), min_size=2, max_size=6).filter(lambda moves: abs(sum(moves)) > 0.4),
    st.integers(300, 400),
    st.floats(-1, 1),
)
def test_a_walk_from_anywhere_ends_where_the_last_periods_say(moves, steps, start):
    """At a constant α of 1/2 the box of width 2 is crossed within 300 steps.

    50 periods at least go 0.2 each, that is 10, and a period swings by at most 6.
    """
    x = start
    for t in range(steps):
        x = min(max(x - 0.5 * moves[t % len(moves)], -1.0), 1.0)
    assert end_at_wall(moves, steps, lambda t: 0.5, (-1, 1)) == pytest.approx(x, abs=1e-9)


def test_a_wall_that_is_never_touched_gives_nothing():
    assert math.isnan(end_at_wall([1.0, -1.0, -1e-12], 300, lambda t: 0.0, (-1, 1)))


def test_the_phase_counts():
    """On 3, −1, −1 at α = 0.1: at the left wall, SGD is 0, 0.1 or 0.2 off it."""
    ends = [end_at_wall([3.0, -1.0, -1.0], steps, lambda t: 0.1, (-1, 1)) for steps in (301, 302, 303)]
    assert ends == pytest.approx([-1.0, -0.9, -0.8])
    played = [simulate(theorem1(), "sgd", steps, 0.1, records=1).x[0, 0] for steps in (301, 302, 303)]
    assert played == pytest.approx(ends)


@pytest.mark.parametrize(("law", "beta2"), [(((0.1, 0.9), (10.0, -1.0)), 0.1), (((0.25, 0.75), (4.0, -1.0)), 0.8)])
def test_the_distance_from_the_wall_is_a_queues(law, beta2):
    """400 independent walks with v of the step before, at α = 1, 4000 steps after 2000: within 4 standard errors."""
    rng = np.random.default_rng(5)
    p, g = np.array(law[0]), np.array(law[1])
    v, off, means = np.full(400, p @ g**2), np.zeros(400), []
    for t in range(6000):
        drawn = rng.choice(g, p=p, size=400)
        off = np.maximum(off - drawn / np.sqrt(v), 0.0)
        v = beta2 * v + (1 - beta2) * drawn**2
        if t >= 2000:
            means.append(off.copy())
    each = np.mean(means, axis=0)
    error = each.std(ddof=1) / math.sqrt(400)
    low, high = unbiased_distance(*law, beta2, 1.0)
    assert low - 4 * error < each.mean() < high + 4 * error
    assert (high - low) / high < 0.5  # the bounds say something
