"""Real torch runs whose outcome is known: Reddi's games, and a network on digits (docs/theory.md 2 and 4.6)."""

import pytest
import torch

from stepscope import Monitor
from stepscope.reports.demo import digits_batches
from stepscope.synthetic import ONLINE, THEOREM1

pytestmark = pytest.mark.slow


def play(game, **settings):
    x = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([x], **settings)
    with Monitor(optimizer, strict=True) as monitor:
        for _ in game.play(x, optimizer, 300_000):
            pass
    return x.item(), monitor.diagnose()


def test_adam_loses_the_online_game():
    """Theory: the exact periodic drift gives ρ = -18.605 (docs/theory.md 4.6); the window holds it to a twentieth."""
    x, diagnosis = play(ONLINE, betas=(0.9, 0.99))
    assert x > 0.9
    assert str(diagnosis.verdict) == "biased"
    assert diagnosis.harm.rho == pytest.approx(-18.605, rel=0.05)
    assert diagnosis.harm.interval[1] < 0


def test_amsgrad_wins_it():
    x, diagnosis = play(ONLINE, betas=(0.9, 0.99), amsgrad=True)
    assert x < -0.9
    assert str(diagnosis.verdict) == "certified"
    assert diagnosis.harm.rho == pytest.approx(1.0, abs=0.05)


def test_theorem_1_with_c_3():
    """At b1 = 0 a period's drift is Σ g/√v: ρ = -0.98 (docs/theory.md 4.4)."""
    x, diagnosis = play(THEOREM1, betas=(0.0, 0.1))
    assert x == pytest.approx(1.0)
    assert str(diagnosis.verdict) == "biased"
    assert diagnosis.harm.rho == pytest.approx(-0.98, abs=0.02)


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        ({}, 0.8, 1.1),
        ({"amsgrad": True}, 0.9, 1.1),
        ({"betas": (0.9, 0.9)}, 0.35, 0.65),
        ({"betas": (0.0, 0.5)}, 0.0, 0.15),
    ],
    ids=["adam", "amsgrad", "beta2 0.9", "beta2 0.5"],
)
def test_a_small_beta2_costs_descent_and_nobody_is_accused(settings, low, high):
    """4000 steps of a digits perceptron; the efficiencies of docs/theory.md 4.6, with room for another network."""
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **settings)
    with Monitor(optimizer, model=model, strict=True) as monitor:
        for _, (x, y) in zip(range(4000), digits_batches(64, 0), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    diagnosis = monitor.diagnose()
    assert low < diagnosis.harm.rho < high
    assert str(diagnosis.verdict) not in ("biased", "unstable")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_whose_units_died_is_not_certified(seed):
    """At lr = 0.1 more than half of the coordinates lose their gradient; their a = lr/eps would meet any condition."""
    torch.manual_seed(seed)
    nn = torch.nn
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, betas=(0.9, 0.95))
    with Monitor(optimizer, model=model, what_if=()) as monitor:
        for _, (x, y) in zip(range(3000), digits_batches(64, seed), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    diagnosis = monitor.diagnose()
    assert str(diagnosis.verdict) == "inconclusive"
    assert any(found.title == "Dormant coordinates carry a" for found in diagnosis.findings)
