"""The way from a finding to a remedy: the two lines of a diagnosis, carried out, mend the same problem."""

import numpy as np
import pytest
import torch
from torch import nn

from stepscope import Monitor, Verdict

SEEDS = 256
"""Coordinates that play a game at once, each with a chance of its own."""


def online(x, t, source):
    """Reddi, Kale and Kumar 2018, section 3: 1010x once in 101 steps, -10x else."""
    return torch.full_like(x, 1010.0 if t % 101 == 0 else -10.0)


def stochastic(x, t, source):
    """The same game by chance: 1010x with probability 0.01."""
    rare = torch.rand(x.shape, generator=source) < 0.01
    return torch.where(rare, 1010.0, -10.0)


def figure_2(x, t, source):
    """Chen et al. 2019, figure 2: 5.5x² once in eleven, -0.5x² else, both linear where |x| > 1."""
    rare = torch.rand(x.shape, generator=source) < 1 / 11
    return torch.where(rare, 11.0, -1.0) * x.clamp(-1, 1)


GAMES = {
    # gradient, start, bound, rate, β2, steps; the rate falls as 1/sqrt(t) and β1 is 0
    "reddi online": (online, 0.0, 1.0, 0.5, 0.99, 150_000),
    "reddi stochastic": (stochastic, 0.0, 1.0, 0.5, 0.99, 120_000),
    "chen figure 2": (figure_2, 2.0, np.inf, 1.0, 0.1, 20_000),
}


def play(name, lines=()):
    gradient, start, bound, lr, beta2, steps = GAMES[name]
    model = nn.ParameterList([nn.Parameter(torch.full((SEEDS,), start))])
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.0, beta2))
    names = {"optimizer": optimizer, "model": model}
    exec("\n".join(lines), names)
    optimizer = names["optimizer"]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (t + 1) ** -0.5)
    source = torch.Generator().manual_seed(0)
    (x,) = model
    with Monitor(optimizer, what_if=()) as monitor:
        for t in range(steps):
            x.grad = gradient(x.detach(), t, source)
            optimizer.step()
            scheduler.step()
            with torch.no_grad():
                x.clamp_(-bound, bound)
    return monitor.diagnose()


def remedies(diagnosis):
    return [remedy for finding in diagnosis.findings for remedy in finding.remedies]


@pytest.mark.slow
@pytest.mark.parametrize("name", GAMES)
def test_what_the_diagnosis_recommends_mends_the_game(name):
    before = play(name)
    assert before.verdict is Verdict.BIASED
    assert before.harm.rho < 0
    recommended = remedies(before)[0]
    assert "\n     ".join(recommended.lines) in str(before)
    after = play(name, recommended.lines)
    assert after.optimizer.endswith(recommended.name)
    assert after.verdict in (Verdict.CERTIFIED, Verdict.UNCERTIFIED), str(after)
    assert after.harm.rho > 0
