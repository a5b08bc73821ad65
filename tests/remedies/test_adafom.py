"""AdaFom: the paper's loop."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from stepscope.remedies import AdaFom


def twin(gradients, rate, beta1, eps, decay, decoupled):
    """Chen et al. 2019, algorithm 3: v_t = (1 - 1/t)·v_{t-1} + g_t²/t, one coordinate after the other, from one."""
    path = np.zeros(gradients.shape)
    for i in range(gradients.shape[1]):
        x, m, v = 1.0, 0.0, 0.0
        for t, gradient in enumerate(gradients[:, i], start=1):
            g = gradient + (0 if decoupled else decay * x)
            m = beta1 * m + (1 - beta1) * g
            v = (1 - 1 / t) * v + g * g / t
            x -= rate * decay * x if decoupled else 0
            x -= rate * m / (math.sqrt(v) + eps)
            path[t - 1, i] = x
    return path


@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize("eps", [0.0, 1e-2])
@pytest.mark.parametrize(("decay", "decoupled"), [(0.0, False), (0.1, False), (0.1, True)])
def test_it_is_the_loop_of_the_paper(beta1, eps, decay, decoupled):
    gradients = np.random.default_rng(0).standard_normal((200, 3)) * [1e-3, 1, 1e3]
    x = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = AdaFom([x], 0.1, beta1=beta1, eps=eps, weight_decay=decay, decoupled_weight_decay=decoupled)
    path = []
    for g in gradients:
        x.grad = torch.from_numpy(g.copy())
        optimizer.step()
        path.append(x.detach().numpy().copy())
    np.testing.assert_allclose(path, twin(gradients, 0.1, beta1, eps, decay, decoupled), rtol=1e-10, atol=1e-12)
