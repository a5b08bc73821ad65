"""Adai: the authors' loop over all tensors, and what holds of its inertia."""

import math

import numpy as np
import pytest
import pytorch_optimizer as po
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stepscope.remedies import Adai, AdaiV2

SHAPES = ((2, 3), (4,), ())


def streams(seed, steps=200):
    """Return the gradients of three tensors, whose sizes differ."""
    source = np.random.default_rng(seed)
    return [source.standard_normal((steps, *shape)) * size for shape, size in zip(SHAPES, (0.3, 1, 2), strict=True)]


def play(make, gradients, dtype=torch.float64):
    """Return the last iterates, and the states, of tensors that start at one."""
    params = [nn.Parameter(torch.ones(g.shape[1:], dtype=dtype)) for g in gradients]
    optimizer = make(params)
    for t in range(len(gradients[0])):
        for p, g in zip(params, gradients, strict=True):
            p.grad = torch.as_tensor(g[t], dtype=dtype)
        optimizer.step()
    return [p.detach().double().numpy() for p in params], [optimizer.state[p] for p in params]


def twin(gradients, rates, beta0, beta2, eps, d, decay=0.0, late=True):
    """Xie et al., with every number by itself; `late` shrinks θ after the pass over v, as AdaiS does."""
    x, g = np.ones(sum(s[0].size for s in gradients)), np.hstack([s.reshape(len(s), -1) for s in gradients])
    rate = np.concatenate([np.full(s[0].size, r) for s, r in zip(gradients, rates, strict=True)])
    m, v, product = np.zeros(x.size), np.zeros(x.size), np.ones(x.size)
    for t in range(1, len(g) + 1):
        for i in range(x.size):
            if not late:
                x[i] *= 1 - rate[i] * decay
            v[i] = beta2 * v[i] + (1 - beta2) * g[t - 1, i] ** 2
        mean = sum(v[i] / (1 - beta2**t) for i in range(x.size)) / x.size
        for i in range(x.size):
            if late:
                x[i] *= 1 - rate[i] * decay
            share = v[i] / (1 - beta2**t) / mean
            beta1 = min(max(1 - beta0 * share ** (1 / (3 - 2 * d)), 0.0), 1 - eps)
            product[i] *= beta1
            m[i] = beta1 * m[i] + (1 - beta1) ** d * g[t - 1, i]
            x[i] -= rate[i] * beta0 ** (1 - d) * m[i] / (1 - product[i])
    return np.split(x, np.cumsum([s[0].size for s in gradients])[:-1])


def agree(found, expected, rtol=1e-9):
    for some, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(some.ravel(), other.ravel(), rtol=rtol, atol=rtol)


def in_groups(params, rates, **settings):
    return Adai([{"params": [p], "lr": lr} for p, lr in zip(params, rates, strict=True)], **settings)


@settings(max_examples=15)
@given(
    st.integers(0, 2**32 - 1), st.floats(0.01, 1), st.floats(0, 0.999), st.floats(0, 1), st.sampled_from([1e-3, 0.1])
)
def test_it_is_the_loop_of_the_authors(seed, beta0, beta2, d, eps):
    """Three groups with rates of their own share one mean."""
    gradients, rates = streams(seed), (0.1, 0.2, 0.05)
    found, _ = play(lambda p: in_groups(p, rates, beta0=beta0, beta2=beta2, eps=eps, dampening=d), gradients)
    agree(found, twin(gradients, rates, beta0, beta2, eps, d))


@pytest.mark.parametrize("late", [False, True])
def test_decoupled_decay_is_adaiw_and_adais(late):
    gradients, rates = streams(0), (0.1, 0.2, 0.05)
    settings = {"weight_decay": 0.05, "decoupled_weight_decay": True}
    found, _ = play(lambda p: in_groups(p, rates, **settings), gradients)
    agree(found, twin(gradients, rates, 0.1, 0.99, 1e-3, 1.0, 0.05, late))


@pytest.mark.parametrize("d", [1.0, 0.5])
def test_it_is_the_package(d):
    gradients = streams(1)
    mine, _ = play(lambda p: Adai(p, lr=0.1, weight_decay=0.01, dampening=d), gradients)
    theirs, _ = play(lambda p: po.Adai(p, lr=0.1, weight_decay=0.01, dampening=d), gradients)
    agree(mine, theirs)


def test_the_second_version_decouples_unless_told_otherwise():
    gradients = streams(2)
    second, _ = play(lambda p: AdaiV2(p, 0.1, dampening=0.5, weight_decay=0.1), gradients)
    first, _ = play(lambda p: Adai(p, 0.1, dampening=0.5, weight_decay=0.1, decoupled_weight_decay=True), gradients)
    assert all((a == b).all() for a, b in zip(second, first, strict=True))
    second, _ = play(lambda p: AdaiV2(p, 0.1, weight_decay=0.1, decoupled_weight_decay=False), gradients)
    first, _ = play(lambda p: Adai(p, 0.1, weight_decay=0.1), gradients)
    assert all((a == b).all() for a, b in zip(second, first, strict=True))


def test_the_mean_inertia_is_beta0_where_nothing_is_clipped():
    """The mean over elements of (1-β1)/β0 is that of v̂/v̄: one, at every step; w is (S_t - S_{t-1})/(1 - S_{t-1})."""
    source = np.random.default_rng(3)
    params = [nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in SHAPES]
    optimizer, before = Adai(params, beta0=0.1), np.zeros(11)
    for _ in range(50):  # later S is one, and w can no longer be read off
        for p in params:
            p.grad = torch.as_tensor(source.uniform(0.5, 1.5, p.shape))
        optimizer.step()
        now = np.concatenate([optimizer.state[p]["weight_sum"].numpy().ravel() for p in params])
        w, before = (now - before) / (1 - before), now
        assert 1e-3 < w.min() < 0.1 < w.max() < 1
        assert (w / 0.1).mean() == pytest.approx(1, rel=1e-10)


def test_large_gradients_are_forgotten_at_once_and_small_ones_slowly():
    gradients = [np.tile([100.0, 1.0, 1.0], (1, 1))]
    _, (state,) = play(lambda p: Adai(p, beta0=0.5), gradients)
    assert state["weight_sum"].tolist() == [1.0, 1e-3, 1e-3]


def test_the_first_step_is_the_rate_times_the_gradient():
    gradients = [np.array([[1e-4, 1.0, 30.0]])]
    (found,), _ = play(lambda p: Adai(p, lr=0.1), gradients, torch.float32)
    np.testing.assert_allclose(found, 1 - 0.1 * gradients[0][0], rtol=1e-6)


def test_the_sum_of_weights_keeps_its_digits_in_float32():
    """As 1 - Π β1 it would begin with 1 - 0.999, which has an error of 5e-5 in float32; here it is an ulp or two."""
    gradients = streams(4, 3)
    _, narrow = play(Adai, gradients, torch.float32)
    _, wide = play(Adai, gradients)
    for some, other in zip(narrow, wide, strict=True):
        np.testing.assert_allclose(some["weight_sum"], other["weight_sum"], rtol=2e-6)


def test_one_gradient_that_is_not_finite_spoils_all():
    """As the docstring says: the mean is one for all."""
    gradients = streams(5, 3)
    gradients[0][1, 0, 0] = math.nan
    found, _ = play(Adai, gradients)
    assert all(np.isnan(x).all() for x in found)


def test_empty_tensors_and_no_gradients_are_no_trouble():
    optimizer = Adai([nn.Parameter(torch.zeros(0)), nn.Parameter(torch.ones(2))])
    optimizer.step()
    optimizer.param_groups[0]["params"][0].grad = torch.zeros(0)
    optimizer.step()
    assert torch.equal(optimizer.param_groups[0]["params"][1].detach(), torch.ones(2))


@pytest.mark.parametrize("bad", [{"beta0": 0.0}, {"beta2": 1.0}, {"eps": 0.0}, {"dampening": 1.5}])
def test_settings_are_checked(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be"):
        Adai([torch.zeros(1)], **bad)
