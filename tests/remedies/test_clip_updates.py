import numpy as np
import pytest
import torch
from torch import nn

from stepscope.remedies import ADOPT, AMSGrad, ClipUpdates


def bursts(steps=200, size=5):
    """Gradients whose size jumps now and then, so that v is out of date."""
    source = np.random.default_rng(0)
    sizes = np.where(source.random(steps) < 0.1, 30.0, 1.0)
    return sizes[:, None] * source.standard_normal((steps, size))


@pytest.mark.parametrize("clip_decay", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_equals_a_slow_twin(clip_decay, amsgrad):
    """StableAdamW as the paper has it, whose averages are debiased as they are made (with `clip_decay`)."""
    size, lr, decay = 5, 0.01, 0.1
    theta = nn.Parameter(torch.ones(size, dtype=torch.float64))
    optimizer = ClipUpdates(
        torch.optim.AdamW([theta], lr, betas=(0.9, 0.99), weight_decay=decay, amsgrad=amsgrad), clip_decay
    )
    position, m, v, largest, clips = [1.0] * size, [0.0] * size, [0.0] * size, [0.0] * size, 0
    for t, g in enumerate(bursts(), 1):
        theta.grad = torch.tensor(g)
        optimizer.step()
        beta1, beta2 = (beta * (1 - beta ** (t - 1)) / (1 - beta**t) for beta in (0.9, 0.99))
        total, used = 0.0, []
        for i in range(size):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            largest[i] = max(largest[i], v[i] * (1 - 0.99**t))  # torch takes the maximum before it corrects
            used.append(largest[i] / (1 - 0.99**t) if amsgrad else v[i])
            total += g[i] ** 2 / max(used[i], 1e-16)
        rms = (total / size) ** 0.5
        clips += rms > 1
        rate = lr / max(1.0, rms)
        for i in range(size):
            shrink = (rate if clip_decay else lr) * decay * position[i]
            position[i] -= shrink + rate * m[i] / (used[i] ** 0.5 + 1e-8)
        assert float(optimizer.state[theta]["update_rms"]) == pytest.approx(rms, rel=1e-10)
    assert theta.tolist() == pytest.approx(position, rel=1e-10)
    assert 10 < clips < 150


def test_without_a_burst_nothing_is_changed():
    """Under a constant gradient RMS_t is 1, up to its rounding: half a unit more than 1 would already divide."""
    ours, torchs = (nn.Parameter(torch.linspace(1, 2, 5, dtype=torch.float64)) for _ in range(2))
    optimizers = ClipUpdates(torch.optim.AdamW([ours], 0.01)), torch.optim.AdamW([torchs], 0.01)
    for _ in range(100):
        for p, optimizer in zip((ours, torchs), optimizers, strict=True):
            p.grad = torch.linspace(-1, 1, 5, dtype=torch.float64) + 0.1
            optimizer.step()
    assert torch.allclose(ours, torchs, rtol=1e-13, atol=1e-13)


def test_a_burst_is_held_to_the_length_that_its_size_allows():
    """After n steps of g = 1 a burst of size G has RMS_t = G/sqrt(v̂), v̂ = 1 + (1-β2)/(1-β2^t)·(G²-1)."""
    theta = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = ClipUpdates(torch.optim.AdamW([theta], 0.01, betas=(0.0, 0.999)))
    for size in [1.0] * 99 + [50.0]:
        before = theta.detach().clone()
        theta.grad = torch.full((3,), size, dtype=torch.float64)
        optimizer.step()
    v = 1 + 0.001 / (1 - 0.999**100) * (50.0**2 - 1)
    assert float(optimizer.state[theta]["update_rms"]) == pytest.approx(50 / v**0.5, rel=1e-9)
    # With β1 = 0 Adam's step is lr·g/sqrt(v̂) = lr·RMS_t: clipped it is lr.
    decayed = (1 - 0.01 * 0.01) * before
    assert (decayed - theta.detach()).tolist() == pytest.approx([0.01] * 3, rel=1e-6)


def test_nan_spoils_no_other_coordinate():
    theta = nn.Parameter(torch.ones(4))
    optimizer = ClipUpdates(torch.optim.AdamW([theta], 0.01))
    for _ in range(5):
        theta.grad = torch.tensor([1.0, torch.nan, 1.0, torch.inf])
        optimizer.step()
    assert theta[[0, 2]].isfinite().all()


@pytest.mark.parametrize("more", [{}, {"maximize": True}, {"foreach": True}])
def test_l2_is_part_of_the_gradient_that_is_gauged(more):
    theta = nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
    optimizer = ClipUpdates(torch.optim.Adam([theta], 0.01, weight_decay=0.5, **more))
    theta.grad = torch.full((3,), 0.1, dtype=torch.float64)
    optimizer.step()
    assert float(optimizer.state[theta]["update_rms"]) == pytest.approx(1.0, rel=1e-12)  # v̂ = g² at t = 1


def test_what_has_no_second_moment_is_refused_in_a_sentence():
    for other in (torch.optim.SGD, torch.optim.RMSprop, ADOPT, AMSGrad):
        with pytest.raises(ValueError, match=f"as torch's Adam does, got {other.__name__}; wrap Adam, AdamW"):
            ClipUpdates(other([torch.ones(1)], 0.1))
