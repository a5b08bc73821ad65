"""The games that Adam loses (Reddi, Kale and Kumar, ICLR 2018), and what of it each remedy mends."""

import math

import pytest
import pytorch_optimizer
import torch
from torch import nn

from stepscope.diagnostics.diagnosis import Verdict
from stepscope.remedies import ADOPT, AdaFom, AdaShift, AMSGrad
from stepscope.synthetic.cases import Outcome
from stepscope.synthetic.suite import run_suite

MEAN = 0.01 * 1010 - 0.99 * 10
SEEDS, STEPS, BURN_IN = 512, 20_000, 2_000


def pulls(make, streams=SEEDS, falls=0.0):
    """Return E[g·a] and E[a], a the stepsize, of g = 1010 in 1 of 100 draws, else -10, each with its standard error.

    Every coordinate is a stream of its own: the errors are those of the mean over streams. a is read off the step:
    without momentum and at lr = 1 it is -Δθ/g. Seed 0. A stepsize that falls as t^-falls is held by a rate of t^falls.
    """
    x = nn.Parameter(torch.zeros(streams, dtype=torch.float64))
    optimizer, source = make([x]), torch.Generator().manual_seed(0)
    both = torch.zeros(2, streams, dtype=torch.float64)
    for t in range(STEPS):
        x.grad = torch.where(torch.rand(streams, generator=source) < 0.01, 1010.0, -10.0).double()
        optimizer.param_groups[0]["lr"] = (t + 1) ** falls
        with torch.no_grad():
            x.zero_()
        optimizer.step()
        if t >= BURN_IN:
            both[0] -= x.detach()
            both[1] -= x.detach() / x.grad
    both /= STEPS - BURN_IN
    return [(float(each.mean()), float(each.std() / math.sqrt(streams))) for each in both]


BETAS = (0.0, 0.99)
OLD = {
    "AMSGrad": lambda x: AMSGrad(x, 1.0, BETAS),
    "AdaShift 1": lambda x: AdaShift(x, 1.0, BETAS, window=1, spatial="none"),
    "AdaShift 10": lambda x: AdaShift(x, 1.0, BETAS, spatial="none"),
    "ADOPT": lambda x: ADOPT(x, 1.0, BETAS, clip=None),
}
"""Those whose v does not know g_t, or seldom."""


@pytest.mark.slow
def test_adam_walks_against_the_mean_gradient():
    """E[g·a] = -0.062 where E[g]·E[a] = +0.0027: the rare large gradient shortens its own step."""
    (pull, error), (stepsize, _) = pulls(lambda x: torch.optim.Adam(x, 1.0, BETAS))
    assert pull < -20 * error
    assert pull == pytest.approx(-0.062, abs=0.0005 + 4 * error)
    assert MEAN * stepsize == pytest.approx(0.0027, abs=0.0001)


@pytest.mark.slow
@pytest.mark.parametrize("name", OLD)
def test_those_with_an_old_second_moment_walk_along_it(name):
    """E[g·a] = E[g]·E[a] within four standard errors; a pull of zero would seem above it by three once in 700 seeds."""
    (pull, error), (stepsize, _) = pulls(OLD[name])
    assert pull > 3 * error
    assert pull == pytest.approx(MEAN * stepsize, abs=4 * error)


@pytest.mark.slow
def test_yogi_walks_along_it():
    """Its v is so large, and changes by so little, that it hardly knows g_t: 0.00037 on both sides, methods of 4."""
    (pull, error), (stepsize, _) = pulls(lambda x: pytorch_optimizer.Yogi(x, 1.0, BETAS, eps=0.0))
    assert pull > 3 * error
    assert pull == pytest.approx(MEAN * stepsize, abs=4 * error)


@pytest.mark.slow
def test_adagrad_walks_along_it():
    """Its v knows g_t by 1/t, see AdaFom; eight times the streams, as its stepsize is known to 1 of 200 only."""
    (pull, error), (stepsize, _) = pulls(lambda x: torch.optim.Adagrad(x, 1.0, eps=0.0), 8 * SEEDS, falls=0.5)
    assert 3 * error < pull < MEAN * stepsize


@pytest.mark.slow
def test_a_plain_mean_walks_along_it():
    """AdaFom's v knows g_t by 1/t: E[g·a] lags behind E[g]·E[a], by some 0.0007 in these steps, and has its sign."""
    (pull, error), (stepsize, _) = pulls(lambda x: AdaFom(x, 1.0, 0.0))
    assert 3 * error < pull < MEAN * stepsize


@pytest.mark.slow
def test_the_bound_of_adopt_brings_the_bias_back_until_it_has_grown():
    """In a rare step |g|/sqrt(v) comes to 25 and more, and t^(1/4) to 12: what is cut off is its large gradient."""
    (pull, error), _ = pulls(lambda x: ADOPT(x, 1.0, BETAS))
    assert pull < -20 * error


ENDS = {
    "Adam": (torch.optim.Adam, 0.5, {"betas": BETAS}),
    "AMSGrad": (AMSGrad, 3.5, {"betas": BETAS}),
    "AdaShift": (AdaShift, 0.5, {"betas": BETAS, "spatial": "none"}),
    "ADOPT": (ADOPT, 0.5, {"betas": BETAS, "clip": None}),
    "AdaFom": (AdaFom, 0.5, {"beta1": 0.0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_the_stochastic_game_is_lost_by_adam_alone(name):
    """Where 512 players of [-1, 1] are, in the mean of the second half of 2·10^5 steps at a rate of α/√t: -1 is best.

    AMSGrad's stepsizes are those of the largest v, so that it needs seven times the rate to get as far.
    """
    kind, alpha, settings = ENDS[name]
    steps, x = 200_000, nn.Parameter(torch.zeros(SEEDS, dtype=torch.float64))
    optimizer, source = kind([x], lr=alpha, **settings), torch.Generator().manual_seed(0)
    places = torch.zeros(SEEDS, dtype=torch.float64)
    for t in range(1, steps + 1):
        x.grad = torch.where(torch.rand(SEEDS, generator=source) < 0.01, 1010.0, -10.0).double()
        optimizer.param_groups[0]["lr"] = alpha / math.sqrt(t)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(-1, 1)
        if t > steps / 2:
            places += x.detach() / (steps / 2)
    mean, error = float(places.mean()), float(places.std() / math.sqrt(SEEDS))
    assert mean > 0.9 if name == "Adam" else mean < -5 * error


def played(make, problem, steps):
    (row,) = run_suite(make, [problem], steps=steps).rows
    assert row.agrees is not False, row
    return row


ESCAPES = {
    "AMSGrad": lambda x, betas: AMSGrad(x, betas=betas),
    "AdaFom": lambda x, betas: AdaFom(x, beta1=betas[0]),
    "AdaShift": lambda x, betas: AdaShift(x, betas=betas, spatial="none"),
    "ADOPT": lambda x, betas: ADOPT(x, betas=betas),
}


@pytest.mark.parametrize("name", ESCAPES)
def test_theorem_1_is_escaped(name):
    row = played(lambda x: ESCAPES[name](x, (0.0, 0.1)), "reddi theorem 1", 4_000)
    assert (row.outcome, row.expected) == (Outcome.SOLVED, Outcome.SOLVED)
    assert row.verdict is not Verdict.BIASED


def test_theorem_1_is_escaped_by_a_stepsize_for_the_tensor_too():
    row = played(lambda x: AdaShift(x, betas=(0.0, 0.1)), "reddi theorem 1", 20_000)
    assert (row.outcome, row.expected) == (Outcome.SOLVED, Outcome.SOLVED)


def test_theorem_1_is_lost_by_adam():
    row = played(lambda x: torch.optim.Adam(x, betas=(0.0, 0.1)), "reddi theorem 1", 4_000)
    assert (row.outcome, row.expected) == (Outcome.WRONG, Outcome.WRONG)
    assert row.verdict is Verdict.BIASED


@pytest.mark.slow
@pytest.mark.parametrize("name", ESCAPES)
def test_the_online_game_is_escaped(name):
    row = played(lambda x: ESCAPES[name](x, (0.9, 0.99)), "reddi online", 50_000)
    assert (row.outcome, row.expected) == (Outcome.SOLVED, Outcome.SOLVED)


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["reddi online", "reddi stochastic"])
def test_the_games_of_section_5_are_lost_by_adam(problem):
    row = played(lambda x: torch.optim.Adam(x, betas=(0.9, 0.99)), problem, 20_000)
    assert (row.outcome, row.expected) == (Outcome.WRONG, Outcome.WRONG)


@pytest.mark.slow
@pytest.mark.parametrize("name", ESCAPES)
def test_no_case_of_the_suite_contradicts_theory(name):
    """The stochastic game is too long to be solved here, but nobody ends farther away than chance explains."""
    result = run_suite(lambda x: ESCAPES[name](x, (0.9, 0.99)), steps=20_000)
    assert any(row.agrees for row in result.rows)
    assert not [row.problem for row in result.rows if row.agrees is False], str(result)
    (stochastic,) = (row for row in result.rows if row.problem == "reddi stochastic")
    assert stochastic.outcome is not Outcome.WRONG
