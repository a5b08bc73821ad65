"""The way from a finding to a remedy: the two lines of a diagnosis, carried out, mend the same problem."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import stepscope.remedies
from stepscope import Monitor, Verdict
from stepscope.diagnostics.findings import FINDINGS
from stepscope.diagnostics.remedy import REMEDIES
from stepscope.reports import cli

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
    optimizer, scheduler = made(model, lr, beta2, lines)
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


def made(model, lr, beta2, lines):
    """Adam, or what the lines put in its place, with a rate that falls as 1/sqrt(t)."""
    names = {"optimizer": torch.optim.Adam(model.parameters(), lr=lr, betas=(0.0, beta2))}
    exec("\n".join(lines), names)
    optimizer = names["optimizer"]
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (t + 1) ** -0.5)


def train_on_rare_threes(lines=()):
    """Tell threes from other digits, one image a step: every hundredth is a three, and weighs 120 times as much.

    Of 100 steps 99 are against the mean gradient, which is that of the weighted loss.
    """
    digits = load_digits()
    images, threes = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target == 3)
    images = images[:, images.mean(0).argsort()[-24:]]  # the others are blank most of the time
    rare, common = torch.nonzero(threes).flatten(), torch.nonzero(~threes).flatten()
    torch.manual_seed(0)
    model = nn.Linear(24, 2)
    optimizer, scheduler = made(model, 5e-4, 0.9, lines)
    source = torch.Generator().manual_seed(1)
    with Monitor(optimizer, what_if=()) as monitor:
        for _ in range(20_000):
            pool = rare if torch.rand((), generator=source) < 0.01 else common
            chosen = pool[torch.randint(len(pool), (1,), generator=source)]
            optimizer.zero_grad()
            weight = 120.0 if pool is rare else 1.0
            (weight * nn.functional.cross_entropy(model(images[chosen]), threes[chosen].long())).backward()
            optimizer.step()
            scheduler.step()
    return monitor.diagnose()


RUNS = {name: partial(play, name) for name in GAMES} | {"rare threes": train_on_rare_threes}


def remedies(diagnosis):
    return [remedy for finding in diagnosis.findings for remedy in finding.remedies]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_what_the_diagnosis_recommends_mends_the_run(name):
    before = RUNS[name]()
    assert before.verdict is Verdict.BIASED
    assert before.harm.rho < 0
    recommended = remedies(before)[0]
    assert "\n     ".join(recommended.lines) in str(before)
    after = RUNS[name](lines=recommended.lines)
    assert after.optimizer.endswith(recommended.name)
    assert after.verdict in (Verdict.CERTIFIED, Verdict.UNCERTIFIED), str(after)
    assert after.harm.rho > 0


@pytest.mark.slow
@pytest.mark.parametrize("remedy", REMEDIES["harm"], ids=lambda remedy: remedy.name)
def test_so_does_every_other_that_it_names(remedy):
    after = train_on_rare_threes(remedy.lines)
    assert after.verdict in (Verdict.CERTIFIED, Verdict.UNCERTIFIED), str(after)
    assert after.harm.rho > 0


TABLE = {remedy for remedies in REMEDIES.values() for remedy in remedies}
OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.25),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.25, momentum=0.8),
    "adam": lambda params: torch.optim.Adam(params, lr=0.25, betas=(0.8, 0.99), weight_decay=0.1, maximize=True),
    "amsgrad": lambda params: torch.optim.Adam(params, lr=0.25, betas=(0.8, 0.99), amsgrad=True, eps=0.0),
    "adamw": lambda params: torch.optim.AdamW([{"params": params, "lr": 0.25}], betas=(0.8, 0.99)),
    "rmsprop": lambda params: torch.optim.RMSprop(params, lr=0.25),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_fits_an_optimizer_is_put_in_place_by_its_lines_and_takes_over_the_settings(name):
    fitting = 0
    for remedy in TABLE:
        x = torch.ones(2, requires_grad=True)
        names = {"optimizer": OPTIMIZERS[name]([x]), "total_steps": 10}
        before = names["optimizer"]
        (group,) = before.param_groups
        if not remedy.fits(f"{type(before).__module__}.{type(before).__name__}", [group]):
            continue
        fitting += 1
        exec("\n".join(remedy.lines), names)
        after = names["optimizer"]
        made = names.get("scheduler", after)
        assert type(made).__name__ == remedy.name
        assert remedy.name in stepscope.remedies.__all__
        for setting in {"lr", "betas", "momentum", "weight_decay", "maximize"} & group.keys() & after.defaults.keys():
            found, expected = after.param_groups[0][setting], group[setting]
            assert found == expected or (setting == "betas" and found[0] == expected[0])
        assert after.param_groups[0].get("decoupled_weight_decay", False) == (name == "adamw")
        with Monitor(after, strict=True, what_if=()) as monitor:
            for t in range(20):
                x.grad = torch.tensor([1.0, -2.0 - t])
                after.step()
        assert all(tensor.formula for tensor in monitor.trace.tensors)
    assert fitting == {"sgd": 1, "momentum": 2, "rmsprop": 1}.get(name, len(TABLE) - 1)


def test_a_remedy_in_place_is_not_followed_by_others():
    assert not any(
        remedy.fits("stepscope.remedies.adopt.ADOPT", [{"betas": (0.9, 0.99), "eps": 1e-8}]) for remedy in TABLE
    )


def test_every_key_of_the_table_is_a_finding_or_an_alert():
    findings = {finding.__name__ for finding in FINDINGS}
    assert set(REMEDIES) - findings == {"update surge"}


def test_the_command_lists_the_table(capsys):
    assert cli.main(["remedies"]) == 0
    text = capsys.readouterr().out
    assert cli.main(["remedies", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["finding"], row["remedy"]) for row in rows] == [
        (remedy.finding, remedy.name) for remedies in REMEDIES.values() for remedy in remedies
    ]
    for row in rows:
        assert row["finding"] in text
        assert all(line in text for line in row["lines"])
        exec("\n".join(row["lines"][:1]), {})
