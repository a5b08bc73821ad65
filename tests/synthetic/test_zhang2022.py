"""The heat map of Zhang et al. (2022): against the update written out, and what the paper reads from it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepscope.synthetic.zhang2022 import finite_sum, heat_map, run


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


def test_a_cell_is_the_median_distance_to_the_minimum_over_the_seeds():
    rows, columns = np.array([0.0, 0.9]), np.array([0.1, 0.5, 0.99])
    found, seeds = heat_map(5, rows, columns, epochs=40), run(5, 0.0, 0.1, 40).meta["seed"]
    twin = [[np.median([end_by_hand(5, a, b, 40, seed) for seed in seeds]) + 2 for b in columns] for a in rows]
    assert found.shape == (2, 3)
    assert found == pytest.approx(np.array(twin), rel=1e-9)


def test_small_beta2_diverges_unless_beta1_is_large():
    """The paper's picture for n = 5: away from the minimum, and to it with either β near enough to 1."""
    ((small, large), (rescued, both)) = heat_map(5, np.array([0.0, 0.9]), np.array([0.1, 0.99]), epochs=20_000)
    assert small > 3  # farther than the start, which is 3 away
    assert max(abs(large), abs(rescued), abs(both)) < 0.05  # α is 7e-4 at the end, a few steps of which are left


def test_the_way_out_grows_with_the_root_of_the_epochs():
    """Beyond −1 the gradients are constant: x climbs by a fixed multiple of Σ 0.1/√k ~ √epochs, whatever the start."""
    far = [float(heat_map(10, np.array([0.0]), np.array([0.1]), epochs)[0, 0]) for epochs in (500, 2000, 8000)]
    first, second = np.diff(far)
    assert second / first == pytest.approx(2, rel=0.05)
