"""What a remedy does for the run whose finding names it, told by more than the diagnosis: the distance that is left."""

import logging
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from shared import digits
from stepscope import Monitor, Verdict
from stepscope.diagnostics.remedy import REMEDIES

SEEDS = range(5)
NOISE, RISING = "Neighbourhood", "No certificate"


@pytest.fixture(autouse=True)
def quiet():
    logger = logging.getLogger("stepscope")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


def put_in_place(optimizer, lines, **names):
    """Carry the lines out, and return the optimizer and the scheduler or None."""
    names["optimizer"] = optimizer
    exec("\n".join(lines), names)
    return names["optimizer"], names.get("scheduler")


def named(found, title):
    """Return the remedies that the diagnosis names under this finding, or None without the finding."""
    return next((finding.remedies for finding in found.findings if finding.title.startswith(title)), None)


def each(key):
    return pytest.mark.parametrize("remedy", REMEDIES[key], ids=lambda remedy: remedy.name)


# --- the noise of the steps does not die out ------------------------------------------------------------------

WRONG, DECAY, EPOCHS, BATCH = 0.2, 1e-3, 60, 32


def expected_loss(model, images, labels):
    """The mean over all digits and all draws of their labels, and the L2 that the optimizer adds."""
    smoothed = nn.functional.cross_entropy(model(images), labels, label_smoothing=WRONG)
    return smoothed + DECAY / 2 * sum(p.square().sum() for p in model.parameters())


def least_loss(model, images, labels):
    """Return the minimum, which is one for all runs: the loss is strictly convex."""
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = expected_loss(model, images, labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    return expected_loss(model, images, labels).item()


@cache
def learn_noisy_labels(seed, lines=()):
    """Classify digits of which a fifth gets a random label, anew in each batch; return what is left at the end.

    That is the mean of the expected loss after each of the last ten epochs, above its minimum.
    """
    images, labels = digits()
    torch.manual_seed(seed)
    model, steps = nn.Linear(64, 10), len(images) // BATCH
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=DECAY)
    optimizer, scheduler = put_in_place(sgd, lines, total_steps=EPOCHS * steps)
    losses = []
    with Monitor(optimizer, what_if=()) as monitor:
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
                drawn = torch.where(torch.rand(BATCH) < WRONG, torch.randint(10, (BATCH,)), labels[batch])
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[batch]), drawn).backward()
                optimizer.step()
            if scheduler:
                scheduler.step()
            losses.append(expected_loss(model, images, labels).item())
    return monitor.diagnose(), np.mean(losses[-10:]) - least_loss(model, images, labels)


@pytest.mark.slow
@each("noise_ball")
def test_the_noise_dies_out(remedy):
    """What is left of a small neighbourhood goes with the effective rate, so half of it is a weak demand.

    AutoDrop divides the rate by 5 at least once. Under Demon the rate falls tenfold, and is a sixth of the first in the
    mean of the last ten epochs; the path lags behind.
    """
    for seed in SEEDS:
        before, left = learn_noisy_labels(seed)
        assert before.verdict is Verdict.NEIGHBOURHOOD
        assert remedy in named(before, NOISE)
        after, left_now = learn_noisy_labels(seed, remedy.lines)
        assert named(after, NOISE) is None, str(after)
        assert left_now < left / 2


@pytest.mark.slow
def test_a_momentum_that_averages_has_no_use_for_demon():
    """Gradients x + noise: where Adam ends about 0 depends on the rate, not on the momentum, and so it stays."""

    def hover(lines=()):
        torch.manual_seed(0)
        x = nn.Parameter(torch.ones(512))
        optimizer, _ = put_in_place(torch.optim.Adam([x], lr=0.01, betas=(0.9, 0.99)), lines, total_steps=8000)
        with Monitor(optimizer, what_if=()) as monitor:
            for _ in range(8000):
                x.grad = x.detach() + torch.randn(512)
                optimizer.step()
        return monitor.diagnose(), x.detach().square().mean().item()

    (demon,) = (remedy for remedy in REMEDIES["noise_ball"] if remedy.name == "Demon")
    before, left = hover()
    assert demon not in named(before, NOISE)
    after, left_now = hover(demon.lines)
    assert named(after, NOISE) is not None
    # A mean over 512 squares of normal numbers has a relative standard error of sqrt(2/512) = 6 %; 5 of a difference.
    assert left_now == pytest.approx(left, rel=0.45)


# --- the stepsizes keep rising --------------------------------------------------------------------------------


@cache
def find_the_mean_digit(seed, lines=()):
    """Find the mean image, one digit a step, at a rate that falls as 1/sqrt(t); return the RMS distance from it.

    Most pixels are dark in most digits: the few bright ones divide themselves out of Adam's mean step.
    """
    images, _ = digits()
    images = images[:, images.mean(0) > 0.03]
    torch.manual_seed(seed)
    x = nn.Parameter(torch.full((images.shape[1],), 0.5))
    optimizer, _ = put_in_place(torch.optim.Adam([x], lr=0.02, betas=(0.0, 0.9)), lines)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (t + 1) ** -0.5)
    with Monitor(optimizer, what_if=()) as monitor:
        for row in torch.randint(len(images), (12_000,)):
            x.grad = x.detach() - images[row]
            optimizer.step()
            scheduler.step()
    return monitor.diagnose(), (x.detach() - images.mean(0)).square().mean().sqrt().item()


@pytest.mark.slow
@each("rises")
def test_without_rises_there_is_a_certificate_and_the_mean_is_the_mean(remedy):
    """Adam's bias stays however small the rate is; without it only the noise is left, of another course in each run."""
    distances = []
    for seed in SEEDS:
        before, distance = find_the_mean_digit(seed)
        assert before.verdict is Verdict.UNCERTIFIED
        assert remedy in named(before, RISING)
        after, now = find_the_mean_digit(seed, remedy.lines)
        assert after.verdict is Verdict.CERTIFIED, str(after)
        distances.append((distance, now))
    adam, mended = np.array(distances).T
    assert mended.max() < adam.min()
    assert np.mean(mended**2) < np.mean(adam**2) / 2  # more than half of the squared distance was bias


@cache
def interpolate(seed, lines=()):
    """Fit 64 samples with 1000 weights at a constant rate; return the largest loss of the second half.

    The gradients vanish, v follows, and the stepsizes grow until the steps overshoot.
    """
    torch.manual_seed(seed)
    x, w = torch.randn(64, 1000), torch.randn(1000) / 1000**0.5
    y, model = (x @ w)[:, None], nn.Linear(1000, 1, bias=False)
    optimizer, _ = put_in_place(torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.99)), lines)
    losses = []
    with Monitor(optimizer, what_if=()) as monitor:
        for _ in range(6000):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return monitor.diagnose(), max(losses[3000:])


@pytest.mark.slow
@each("rises")
def test_without_rises_what_was_fitted_stays_fitted(remedy):
    """Adam's loss comes back from 1e-14, the rounding of float32, to 1e-4.

    AMSGrad's stays there, and AdaFom's stepsizes grow as sqrt(t) at most, so that less than a tenth is to be expected.
    """
    for seed in SEEDS:
        before, burst = interpolate(seed)
        assert remedy in named(before, RISING)
        after, now = interpolate(seed, remedy.lines)
        assert named(after, RISING) is None, str(after)
        assert now < burst / 10


# --- updates surge --------------------------------------------------------------------------------------------

ONSET, STEPS = 600, 900


def outgrow(seed, pixels, gradients, lines=()):
    """Make pixels or gradients larger by a factor from a step on; return alerts, remedies and the burst of the loss.

    The burst is how far the loss over all digits rises above what it is when the change comes.
    """
    images, labels = digits()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer, _ = put_in_place(torch.optim.AdamW(model.parameters()), lines)
    losses = []
    with Monitor(optimizer, what_if=()) as monitor:
        for step in range(STEPS):
            if step == ONSET:
                images = images * pixels
            if step >= ONSET:
                with torch.no_grad():
                    losses.append(nn.functional.cross_entropy(model(images), labels).item())
            batch = torch.randint(len(images), (64,))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            (loss * gradients if step >= ONSET else loss).backward()
            optimizer.step()
    rules = {alert.rule for alert in monitor.alerts}
    return rules, named(monitor.diagnose(), "Alerts came"), max(losses) - losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(("pixels", "gradients"), [(30.0, 1.0), (1.0, 1000.0)], ids=["pixels", "gradients"])
@each("update surge")
def test_a_surge_makes_no_longer_steps(remedy, pixels, gradients):
    """After gradients have grown Adam's longest step is max m_k/sqrt(v_k) = 6.6 rates, and a clipped one is a rate.

    The alert is of the gradients, and stays. What must be less is the burst, by a third at least in the mean: where the
    pixels grew, a part of it is the way that any steps of this length have to go.
    """
    bursts = []
    for seed in SEEDS:
        rules, remedies, before = outgrow(seed, pixels, gradients)
        assert "update surge" in rules
        assert remedy in remedies
        bursts.append((before, outgrow(seed, pixels, gradients, remedy.lines)[2]))
    plain, clipped = np.mean(bursts, axis=0)
    assert clipped < 2 / 3 * plain
