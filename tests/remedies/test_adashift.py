"""AdaShift: the paper's loop, the steps before it, and the independence that it is made for."""

import math

import numpy as np
import pytest
import pytorch_optimizer as po
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stepscope.remedies import AdaShift

SPATIAL = {"none": lambda square: square, "mean": np.mean, "max": np.max}


def play(make, gradients):
    """Return the iterates, from zero, of an optimizer in float64."""
    x = nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    optimizer, path = make([x]), []
    for g in gradients:
        x.grad = torch.from_numpy(g.copy())
        optimizer.step()
        path.append(x.detach().numpy().copy())
    return np.array(path)


def twin(gradients, rate, beta1, beta2, eps, n, spatial):
    """Zhou et al., algorithm 2: all sums written out anew at every step."""
    x, v, path = np.zeros(gradients.shape[1]), 0.0, []
    weights = [beta1**i for i in range(n)]
    for t in range(len(gradients)):
        if t >= n:
            v = beta2 * v + (1 - beta2) * SPATIAL[spatial](gradients[t - n] ** 2)
            m = sum(w * gradients[t - i] for i, w in enumerate(weights)) / sum(weights)
            x = x - rate * m / (np.sqrt(v / (1 - beta2 ** (t - n + 1))) + eps)
        path.append(x)
    return np.array(path)


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0, 0.99),
    st.floats(0, 0.999),
    st.integers(1, 12),
    st.sampled_from(list(SPATIAL)),
)
def test_it_is_the_loop_of_the_paper(seed, beta1, beta2, n, spatial):
    gradients = np.random.default_rng(seed).standard_normal((200, 3)) * [0.1, 1, 10]
    found = play(lambda x: AdaShift(x, 0.1, (beta1, beta2), window=n, spatial=spatial), gradients)
    expected = twin(gradients, 0.1, beta1, beta2, 1e-10, n, spatial)
    # With β2 = 0 one small g divides: what the moving sum has rounded is as large as the step before, times 1/|g|.
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize(("spatial", "reduce"), [("none", None), ("mean", torch.mean), ("max", torch.max)])
def test_it_is_the_package_since_that_is_repaired(spatial, reduce):
    gradients = np.random.default_rng(0).standard_normal((60, 4))
    mine = play(lambda x: AdaShift(x, spatial=spatial), gradients)
    theirs = play(lambda x: po.AdaShift(x, reduce_func=reduce), gradients)
    np.testing.assert_allclose(mine, theirs, rtol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 9, 10])
@pytest.mark.parametrize("spatial", SPATIAL)
def test_nothing_moves_for_n_steps_and_then_by_the_full_window(n, spatial):
    """Version 3.9.0 of the package stepped at n - 1, and on a NaN; a port of the authors' began with an empty m."""
    gradients = np.ones((2 * n + 1, 3)) * np.arange(1, 2 * n + 2)[:, None]
    path = play(lambda x: AdaShift(x, lr=0.1, betas=(0.5, 0.9), window=n, spatial=spatial), gradients)
    assert np.isfinite(path).all()
    assert (path[:n] == 0).all()
    weights = 0.5 ** np.arange(n)
    m = weights @ np.arange(n + 1, 1, -1) / weights.sum()  # of the gradients n + 1, n, …, 2
    np.testing.assert_allclose(path[n], -0.1 * m, rtol=1e-9)  # over the root of the first, 1


def test_a_window_of_one_steps_on_the_gradient_itself():
    gradients = np.array([[2.0], [3.0], [5.0]])
    path = play(lambda x: AdaShift(x, lr=1.0, betas=(0.9, 0.0), window=1, eps=0.0), gradients)
    np.testing.assert_allclose(path[:, 0], [0, -3 / 2, -3 / 2 - 5 / 3], rtol=1e-12)


def test_a_coordinate_without_a_second_moment_waits():
    """Its first gradient comes at step 20; divided by eps alone it would move by 1e7."""
    gradients = np.ones((40, 2))
    gradients[:20, 1] = 0.0
    path = play(lambda x: AdaShift(x, spatial="none"), gradients)
    assert (path[:30, 1] == 0).all()
    assert 0 < -path[30, 1] < 0.1


@pytest.mark.parametrize(("spatial", "shape"), [("none", (3, 4)), ("mean", ()), ("max", ())])
def test_the_window_is_one_tensor_and_v_no_larger_than_it_needs(spatial, shape):
    x = nn.Parameter(torch.zeros(3, 4))
    optimizer = AdaShift([x], window=5, spatial=spatial)
    x.grad = torch.ones(3, 4)
    optimizer.step()
    state = optimizer.state[x]
    assert {name: tuple(entry.shape) for name, entry in state.items()} == {
        "step": (),
        "exp_avg": (3, 4),
        "exp_avg_sq": shape,
        "window": (5, 3, 4),
    }


@pytest.mark.parametrize("spatial", SPATIAL)
def test_an_empty_tensor_is_no_trouble(spatial):
    x = nn.Parameter(torch.zeros(0))
    optimizer = AdaShift([x], window=1, spatial=spatial)
    for _ in range(3):
        x.grad = torch.zeros(0)
        optimizer.step()


def correlation(make, correction, seeds=200, steps=1000, burn_in=100):
    """Return Pearson's correlation of v_t and g_t² on normal streams, with its standard error over the streams.

    The means of g² and v̂, 1 each, and the variance of g², 2, are put in: centred by sample means it would be biased.
    """
    x = nn.Parameter(torch.zeros(seeds, dtype=torch.float64))
    optimizer, source = make([x]), torch.Generator().manual_seed(20)
    product, square = torch.zeros(2, seeds, dtype=torch.float64)
    for t in range(1, burn_in + steps + 1):
        x.grad = torch.randn(seeds, generator=source, dtype=torch.float64)
        optimizer.step()
        if t > burn_in:
            v = optimizer.state[x]["exp_avg_sq"] / correction(t) - 1
            product += (x.grad**2 - 1) * v
            square += v**2
    each = product / steps / math.sqrt(2) / (square.mean() / steps).sqrt()
    return float(each.mean()), float(each.std() / math.sqrt(seeds))


def test_v_knows_nothing_of_g_where_adams_does():
    """Four standard errors on either side: by chance wrong once in 16 000 seeds, and for this one it is not.

    Adam's v_t has (1-β2)·g_t² in it, and the variance 2·(1-β2)/(1+β2): their correlation is sqrt(1-β2²) = 0.436.
    """
    betas = (0.9, 0.9)
    for n in (1, 10):
        make = lambda x, n=n: AdaShift(x, betas=betas, window=n, spatial="none")  # noqa: E731
        found, error = correlation(make, lambda t, n=n: 1 - 0.9 ** (t - n))
        assert abs(found) < 4 * error < 0.02
    found, error = correlation(lambda x: torch.optim.Adam(x, betas=betas), lambda t: 1 - 0.9**t)
    assert abs(found - math.sqrt(1 - 0.9**2)) < 4 * error < 0.02


@pytest.mark.parametrize(
    "bad", [{"betas": (0.9, 1.0)}, {"eps": -1.0}, {"window": 0}, {"window": 1.5}, {"spatial": "x"}]
)
def test_settings_are_checked(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be"):
        AdaShift([torch.zeros(1)], **bad)
