"""The game of Zhang et al. (2022): against the update written out, and what the paper reads from it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepscope.synthetic.claims import final
from stepscope.synthetic.zhang2022 import finite_sum, run


def end_by_hand(n, beta1, beta2, epochs, seed):
    """x after Adam without bias correction or eps, its epochs drawn as the engine draws them."""
    problem = finite_sum(n)
    order = problem.arrival.stream(n, np.random.default_rng([seed, 0]))(n * epochs)
    x, m, v = 1.0, 0.0, 0.0
    for t, component in enumerate(order, start=1):
        if component == 0:
            g = n if x >= -1 else n * (x + 2)
        else:
            g = -1.0 if x >= -1 else -(x + 2)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        x -= 0.1 / math.sqrt(math.ceil(t / n)) * m / math.sqrt(v)
    return x


def test_an_end_is_the_median_over_the_seeds():
    for beta1 in (0.0, 0.9):
        for beta2 in (0.1, 0.5, 0.99):
            trace = run(5, beta1, beta2, 40)
            twin = np.median([end_by_hand(5, beta1, beta2, 40, seed) for seed in trace.meta["seed"]])
            assert final(trace) == pytest.approx(twin, rel=1e-9)


def test_small_beta2_diverges_unless_beta1_is_large():
    """The paper's picture for n = 5: away from the minimum −2, and to it with either β near enough to 1."""
    small, *others = (final(run(5, b1, b2)) + 2 for b1, b2 in ((0.0, 0.1), (0.0, 0.99), (0.9, 0.1), (0.9, 0.99)))
    assert small > 3  # farther than the start, which is 3 away
    assert max(map(abs, others)) < 0.05  # α is 7e-4 at the end, a few steps of which are left


def test_the_way_out_grows_with_the_root_of_the_epochs():
    """Beyond −1 the gradients are constant: x climbs by a fixed multiple of Σ 0.1/√k ~ √epochs, whatever the start."""
    first, second = np.diff([final(run(10, 0.0, 0.1, epochs)) for epochs in (500, 2000, 8000)])
    assert second / first == pytest.approx(2, rel=0.05)
