"""ADOPT: the paper's loop, what its first steps do, and what its bound holds."""

import math

import numpy as np
import pytest
import pytorch_optimizer as po
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stepscope.remedies import ADOPT


def play(make, gradients):
    """Return the iterates, from zero, of an optimizer in float64."""
    x = nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    optimizer, path = make([x]), []
    for g in gradients:
        x.grad = torch.from_numpy(g.copy())
        optimizer.step()
        path.append(x.detach().numpy().copy())
    return np.array(path)


def twin(gradients, rate, beta1, beta2, eps, bounded=True):
    """Taniguchi et al., algorithm 2: g_0 first, then t = 1, 2, …, one coordinate after the other."""
    path = np.zeros(gradients.shape)
    for i, (g_0, *rest) in enumerate(gradients.T):
        x, m, v = 0.0, 0.0, g_0 * g_0
        for t, g in enumerate(rest, 1):
            divided = g / max(math.sqrt(v), eps)
            if bounded:
                divided = min(max(divided, -(t**0.25)), t**0.25)
            m = beta1 * m + (1 - beta1) * divided
            x -= rate * m
            v = beta2 * v + (1 - beta2) * g * g
            path[t, i] = x
    return path


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.99), st.floats(0, 0.9999), st.booleans(), st.sampled_from([1e-6, 0.1]))
def test_it_is_the_loop_of_the_paper(seed, beta1, beta2, bounded, eps):
    gradients = np.random.default_rng(seed).standard_normal((201, 3)) * [1e-3, 1, 1e3]
    clip = 0.25 if bounded else None
    found = play(lambda x: ADOPT(x, lr=0.1, betas=(beta1, beta2), eps=eps, clip=clip), gradients)
    expected = twin(gradients, 0.1, beta1, beta2, eps, bounded)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


def test_the_package_bounds_one_step_later_and_is_the_same_otherwise():
    gradients = np.random.default_rng(0).standard_normal((200, 4))
    mine, theirs = (play(lambda x, kind=kind: kind(x, lr=0.1), gradients) for kind in (ADOPT, po.ADOPT))
    assert not np.allclose(mine, theirs)
    theirs = play(lambda x: po.ADOPT(x, lr=0.1, clip_lambda=lambda step: (step - 1) ** 0.25), gradients)
    np.testing.assert_allclose(mine, theirs, rtol=1e-10)


def test_the_first_gradient_moves_nothing_and_the_second_at_most_the_rate():
    path = play(lambda x: ADOPT(x, lr=0.1, betas=(0, 0.9)), np.array([[1.0, 1e-9], [50.0, 1.0]]))
    assert path.tolist() == [[0.0, 0.0], [-0.1, -0.1]]


def test_a_gradient_of_any_size_leaves_the_stepsize_as_it_was():
    """e_t is made of g_1 … g_{t-1} alone, unlike Adam's."""
    gradients = np.ones((50, 3))
    gradients[-1] = [1.0, -7.0, 1e6]
    moved = np.diff(play(lambda x: ADOPT(x, lr=0.1, betas=(0, 0.9), clip=None), gradients), axis=0)[-1]
    np.testing.assert_allclose(moved / gradients[-1], -0.1, rtol=1e-6)


@pytest.mark.parametrize("bad", [{"betas": (0.9, 1.0)}, {"eps": 0.0}, {"clip": -0.5}])
def test_settings_are_checked(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be"):
        ADOPT([torch.zeros(1)], **bad)
