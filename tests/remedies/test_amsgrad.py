"""AMSGrad: the paper's loop, and the stepsizes that must not rise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stepscope import Monitor
from stepscope.remedies import AMSGrad

decays = st.floats(0, 0.99)


def play(make, gradients, rates):
    """Return the iterates, from zero, of an optimizer in float64."""
    x = nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    optimizer, path = make([x]), []
    for g, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = float(rate)
        x.grad = torch.from_numpy(g.copy())
        optimizer.step()
        path.append(x.detach().numpy().copy())
    return np.array(path)


def twin(gradients, rates, beta1, beta2, eps):
    """Reddi et al., algorithm 2, without the projection, one coordinate after the other."""
    path = np.zeros(gradients.shape)
    for i in range(gradients.shape[1]):
        x = m = v = v_hat = 0.0
        for t, (g, rate) in enumerate(zip(gradients[:, i], rates, strict=True)):
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            v_hat = max(v_hat, v)
            x -= rate * m / (math.sqrt(v_hat) + eps)
            path[t, i] = x
    return path


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), decays, decays, st.sampled_from([1e-8, 1e-2]))
def test_it_is_the_loop_of_the_paper(seed, beta1, beta2, eps):
    source = np.random.default_rng(seed)
    gradients, rates = source.standard_normal((200, 3)) * [1e-3, 1, 1e3], 0.1 / np.sqrt(np.arange(1, 201))
    found = play(lambda x: AMSGrad(x, betas=(beta1, beta2), eps=eps), gradients, rates)
    np.testing.assert_allclose(found, twin(gradients, rates, beta1, beta2, eps), rtol=1e-10, atol=1e-12)


def stepsizes(make, gradients, rates):
    """Return e_t = |Δθ/g| of an optimizer without momentum; each step begins at zero, so that Δθ is not rounded."""
    x = nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    optimizer, found = make([x]), []
    for g, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = float(rate)
        x.grad = torch.from_numpy(g.copy())
        with torch.no_grad():
            x.zero_()
        optimizer.step()
        found.append(np.abs(x.detach().numpy() / g))
    return np.array(found)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), decays, st.lists(st.floats(0.5, 1), min_size=50, max_size=50))
def test_no_stepsize_rises_unless_the_rate_does(seed, beta2, falls):
    """Γ_t ≥ 0: but for the rounding of g/sqrt(v̂), times lr, over g."""
    gradients = np.exp(3 * np.random.default_rng(seed).standard_normal((50, 4)))
    e = stepsizes(lambda x: AMSGrad(x, betas=(0, beta2), eps=0), gradients, np.cumprod(falls))
    assert (e[1:] <= e[:-1] * (1 + 8 * 2.0**-53)).all()


def test_of_torch_it_rises_thirtyfold():
    """One gradient of 1, then 1e-3: the maximum stays, the correction that it is divided by falls from 1000 to 1."""
    gradients = np.full((3000, 1), 1e-3)
    gradients[0] = 1.0
    rates = np.full(3000, 1e-3)
    theirs = stepsizes(lambda x: torch.optim.Adam(x, betas=(0.0, 0.999), amsgrad=True, eps=0), gradients, rates)
    assert theirs[0] == pytest.approx(1e-3)
    assert theirs[-1, 0] / theirs[0, 0] == pytest.approx(math.sqrt((1 - 0.999**3000) / (1 - 0.999)), rel=1e-6)
    assert theirs[-1, 0] == pytest.approx(3.1e-2, rel=0.01)
    mine = stepsizes(lambda x: AMSGrad(x, betas=(0.0, 0.999), eps=0), gradients, rates)
    np.testing.assert_allclose(mine, 1e-3 / math.sqrt(1 - 0.999), rtol=1e-6)


@pytest.mark.parametrize(("make", "rises"), [(AMSGrad, False), (lambda x: torch.optim.Adam(x, amsgrad=True), True)])
def test_a_monitor_sees_no_rise(make, rises):
    """Gradients that fall, so that v̂ stands still: c⁺ is the sum of all rises of e."""
    x = nn.Parameter(torch.zeros(50))
    optimizer, source = make([x]), torch.Generator().manual_seed(0)
    with Monitor(optimizer, strict=True) as monitor:
        for t in range(300):
            x.grad = torch.randn(50, generator=source) / (1 + t)
            optimizer.step()
    assert (monitor.trace.total("c_plus")[-1] > 0) == rises


@pytest.mark.parametrize("bad", [{"betas": (1.0, 0.9)}, {"betas": (0.9,)}, {"eps": -1.0}])
def test_settings_are_checked(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be"):
        AMSGrad([torch.zeros(1)], **bad)
