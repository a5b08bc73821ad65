"""The cosine of step and gradient, of steps whose direction is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from shared import digits
from stepscope import Monitor


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_momentum_that_holds_noise_leaves_the_root_of_what_it_forgets(beta):
    """A step is Σ βⁱ·g_{t-i}, whose cosine with g_t is 1/sqrt(Σ β²ⁱ) = sqrt(1-β²) of independent gradients.

    It is measured at proofs, of 4096 coordinates here: one has a standard error of 1/64. Seed 0.
    """
    x = torch.zeros(4096, requires_grad=True)
    optimizer, source = torch.optim.SGD([x], lr=1.0, momentum=beta), torch.Generator().manual_seed(0)
    with Monitor(optimizer, what_if=(), coordinates="all") as monitor:
        for _ in range(1024):
            x.grad = torch.randn(4096, generator=source)
            optimizer.step()
    found = monitor.trace.column("alignment")[monitor.trace.steps >= 32]
    found = found[np.isfinite(found)]
    assert len(found) >= 8
    assert found.mean() == pytest.approx(math.sqrt(1 - beta**2), abs=4 / math.sqrt(4096 * len(found)))


class Feedback(torch.optim.Optimizer):
    """Steps along directions of its own, while the gradients stay what backpropagation found."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        self.directions = []

    @torch.no_grad()
    def step(self, closure=None):
        for p, direction in zip(self.param_groups[0]["params"], self.directions, strict=True):
            p.sub_(direction, alpha=self.param_groups[0]["lr"])


def learn_by(feedback, epochs):
    """Train 64-128-128-10 tanh on digits by backpropagation (None) or through fixed matrices that carry errors back.

    Return the angles of steps and -gradients of the two hidden weights at every record, and the accuracy on 497 others.
    """
    images, labels = digits()
    torch.manual_seed(0)
    layers = [nn.Linear(64, 128), nn.Linear(128, 128), nn.Linear(128, 10)]
    carriers = [torch.randn(10, 128) / math.sqrt(10) for _ in range(2)]
    if feedback == "binary":
        carriers = [carrier.sign() / math.sqrt(10) for carrier in carriers]
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
    optimizer = Feedback([layer.weight for layer in layers], 0.2)
    with Monitor(optimizer, what_if=(), coordinates="all") as monitor:
        for _ in range(epochs):
            for batch in torch.randperm(1300).split(32):
                x, y = images[batch], labels[batch]
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                with torch.no_grad():
                    first = torch.tanh(layers[0](x))
                    second = torch.tanh(layers[1](first))
                    error = (layers[2](second).softmax(1) - nn.functional.one_hot(y, 10)) / len(y)
                    deltas = [(error @ b) * (1 - h**2) for b, h in zip(carriers, (first, second), strict=True)]
                    found = [deltas[0].T @ x, deltas[1].T @ first, error.T @ second]
                exact = [layer.weight.grad for layer in layers]
                optimizer.directions = found if feedback else exact
                optimizer.step()
    accuracy = float((model(images[1300:]).argmax(1) == labels[1300:]).double().mean())
    known = np.isfinite(monitor.trace.column("alignment")[:, 2])
    cosines, steps = monitor.trace.column("alignment")[known], monitor.trace.steps[known]
    assert cosines[:, 2] == pytest.approx(1.0, abs=1e-4)  # the last layer learns by its gradient anyway
    return steps, np.degrees(np.arccos(np.clip(cosines[:, :2], -1, 1))), accuracy


@pytest.mark.slow
@pytest.mark.parametrize("feedback", ["random", "binary"])
def test_feedback_through_fixed_matrices_comes_to_follow_the_gradient(feedback):
    """Direct feedback alignment (Nøkland, arXiv 1609.01596), and with signs alone (Han and Yoo, arXiv 1901.01986).

    From 90° the angles come below 70° within five epochs of 41 steps, and as many digits are told as by
    backpropagation, within a percent.
    """
    steps, angles, accuracy = learn_by(feedback, epochs=20)
    *_, exact = learn_by(None, epochs=20)
    assert angles[0] == pytest.approx(90, abs=10)
    late = (steps > 4 * 41) & (steps <= 5 * 41)
    assert late.any()
    assert angles[late].mean(axis=0).max() < 70
    assert accuracy > exact - 0.01
