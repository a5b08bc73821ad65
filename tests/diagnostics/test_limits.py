"""What limits a run: known runs named, shares in bounds, what comes first, sentences as a person reads them."""

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepscope import Monitor
from stepscope.diagnostics import limits as limits_module
from stepscope.diagnostics.drift import NO_DESCENT, no_descent
from stepscope.diagnostics.limits import CAUSES, FROM, Limit, decide, limits, shares_of
from stepscope.diagnostics.trace import COLUMNS, Efficiency, Scalars

NAN = float("nan")


def with_scalar(trace, name, value):
    """The trace with a number logged at every record."""
    n = np.arange(1.0, len(trace.steps) + 1)
    scalar = Scalars(trace.steps, np.full(len(n), value), n * value, n)
    return replace(trace, scalars=trace.scalars | {name: scalar})


def with_column(trace, name, column):
    values = trace.values.copy()
    values[:, :, COLUMNS.index(name)] = column
    return replace(trace, values=values)


# --- runs whose limit is known ---------------------------------------------------------------------------------------


def descending(worlds, rate=1e-3, steps=3000, **settings):
    """A gradient of one that stays: nothing but the stepsize decides how fast it goes down."""
    rates = np.broadcast_to(rate, steps).astype(np.float64)
    world = worlds.World(np.ones((steps, 2)), np.repeat(rates[:, None], 2, axis=1), rates, **settings)
    return world.trace(np.arange(1, steps + 1))  # with records at the ends of all stages


def test_a_slope_without_anything_in_the_way(worlds):
    found = limits(descending(worlds))
    assert found.limit is Limit.NOTHING
    assert found.now == (
        "Nothing that is measured holds this run back. Slope makes 100% of what the gradients push, and the steps make "
        "100% of its descent. Whether there is room for a larger learning rate, `monitor.edge(closure)` would tell."
    )
    assert found.before == ""


KNOWN = {
    "a game that Adam loses": (("t1", "adam", 20_000), dict(beta2=0.1), Limit.BIAS),
    "the same game under AMSGrad": (("t1", "amsgrad", 20_000), dict(beta2=0.1), Limit.NOTHING),
    "a ball of noise": (("quadratic", "adam", 20_000), dict(rate=0.01, falls="constant", x=3.0), Limit.NOISE),
    "a shrinking ball": (("quadratic", "sgd", 20_000), dict(rate=0.1, x=3.0), Limit.NOISE),
    "a limit cycle": (("chen1", "adam", 20_000), dict(rate=0.01, falls="constant", beta2=0.9, x=1.0), Limit.NOISE),
    "1/t": (("quadratic", "sgd", 20_000), dict(rate=0.05, falls="inverse", x=3.0), Limit.STEPSIZE),
    "1/t²": (("quadratic", "sgd", 20_000), dict(rate=0.5, falls="inverse_square", x=3.0), Limit.STEPSIZE),
    "cosine": (("quadratic", "sgd", 20_000), dict(rate=0.05, falls="cosine", x=3.0), Limit.STEPSIZE),
    "converged": (("chen1", "sgd", 20_000), dict(rate=1e-4, falls="constant", x=1.0), Limit.REST),
}


@pytest.mark.parametrize(("run", "settings", "expected"), KNOWN.values(), ids=KNOWN.keys())
def test_known_runs(worlds, run, settings, expected):
    assert limits(worlds.play(*run, **settings).trace()).limit is expected


@pytest.mark.parametrize("seed", range(10))
def test_a_ball_of_noise_is_never_taken_for_a_slope(worlds, seed):
    """A slope is told from noise by chance in 5 % of runs without one; hovering gradients cancel, so rarer still."""
    found = limits(worlds.play("quadratic", "adam", 10_000, rate=0.01, falls="constant", x=3.0, seed=seed).trace())
    assert found.limit is Limit.NOISE


def test_the_game_in_words(worlds):
    found = limits(worlds.play("t1", "adam", 20_000, beta2=0.1).trace())
    assert found.now.startswith("Bias limits this run. The steps go against the mean gradient: rho = -0.98 [")
    assert found.stages[-1].shares[Limit.BIAS] == 1.0


def test_stepsizes_that_die_and_why(worlds):
    """Over a doubling, the mean of 1/t falls to a half, of a constant over √Σg² with g growing like √t likewise."""
    steps = 4096
    t = np.arange(1.0, steps + 1)
    by_rate = limits(descending(worlds, 1 / t, steps))
    assert by_rate.now == (
        "The stepsizes limit this run. In the last doubling of the run the stepsizes shrank to 50%. The learning rate "
        "shrank to 50%."
    )
    trace = descending(worlds, 1 / t, steps)
    by_moment = limits(replace(trace, groups={"lr": np.ones((len(trace.steps), 1))}))
    assert by_moment.now.endswith("the stepsizes shrank to 50%. It is the second moment that grew.")


@pytest.mark.parametrize(("edge", "expected"), [(0.3, Limit.NOTHING), (0.6, Limit.CURVATURE), (1.02, Limit.CURVATURE)])
def test_curvature_where_it_was_measured(worlds, edge, expected):
    found = limits(with_scalar(descending(worlds), "edge/ratio", edge))
    assert found.limit is expected
    assert f"{edge:.0%} of the edge of stability" in found.now
    assert found.stages[-1].facts["edge"] == pytest.approx(edge)


def test_a_cycle_at_the_edge_is_curvature_not_noise(worlds):
    cycle = worlds.play("chen1", "adam", 20_000, rate=0.01, falls="constant", beta2=0.9, x=1.0).trace()
    assert limits(with_scalar(cycle, "edge/ratio", 1.0)).limit is Limit.CURVATURE
    assert limits(with_scalar(cycle, "edge/ratio", 0.7)).limit is Limit.NOISE


def test_the_newest_measurement_of_the_edge_counts(worlds):
    """A rate a hundred times as large from step 2700: 0.27 of the edge became 26.7, a mean would say neither."""
    trace = with_scalar(descending(worlds), "edge/ratio", 0.267)
    kept = trace.scalars["edge/ratio"]
    late = trace.steps > 2700
    last = np.where(late, 26.7, 0.267)
    leapt = replace(kept, last=last, total=np.cumsum(last))
    found = limits(replace(trace, scalars=trace.scalars | {"edge/ratio": leapt}))
    assert found.stages[-1].facts["edge"] == 26.7
    assert found.stages[-2].facts["edge"] == 0.267
    assert (
        found.now
        == "Curvature limits this run. The steps are at 26.7 times the edge of stability: longer ones swing out."
    )
    lost = replace(leapt, last=np.where(trace.steps > 2900, NAN, last))  # of which the mean knows nothing
    mean = limits(replace(trace, scalars=trace.scalars | {"edge/ratio": lost})).stages[-1].facts["edge"]
    assert math.isfinite(mean)


def test_a_swing_without_noise_is_not_called_noise_at_the_edge(worlds):
    """Two tensors whose gradients flip their sign in each step: no slope is left, and there is no noise at all."""
    steps = 4096
    t = np.arange(steps)[:, None]
    world = worlds.World(
        (-1.0) ** t * np.ones((steps, 2)),
        np.full((steps, 2), 1e-3),
        np.full(steps, 1e-3),
        owner=np.array([0, 1]),
    )
    swing = world.trace(np.arange(1, steps + 1))
    blind = limits(swing)
    assert blind.limit is Limit.NOISE  # as far as gradients alone can tell
    assert blind.now.endswith("`monitor.edge(closure)` would tell.")
    measured = limits(with_scalar(swing, "edge/ratio", 1.0))
    assert measured.limit is Limit.CURVATURE
    for stage in (measured.stages[-1], *measured.tensors):
        assert math.isnan(stage.shares[Limit.NOISE])
        assert stage.limit is Limit.CURVATURE
    inside = limits(with_scalar(swing, "edge/ratio", 0.1))
    assert inside.limit is Limit.NOISE
    assert "would tell" not in inside.now
    assert all(math.isnan(stage.shares[Limit.CURVATURE]) for stage in inside.tensors)


def test_precision_comes_first(worlds):
    trace = descending(worlds)
    assert limits(with_scalar(trace, "precision/swallowed", 0.4)).limit is Limit.NOTHING
    held = limits(with_scalar(with_scalar(trace, "precision/swallowed", 0.9), "precision/frozen", 1.0))
    assert held.limit is Limit.PRECISION
    assert held.now.index("cannot decay") < held.now.index("90% of the steps are too small")
    assert math.isnan(held.tensors[0].shares[Limit.PRECISION])  # logged of all together
    bound = limits(with_column(trace, "eps_bound", 0.8 * trace.column("active")))
    assert bound.now == (
        "Precision limits this run. eps sets 80% of the stepsizes: there the method is SGD with momentum at the rate "
        "lr/eps."
    )


def test_an_efficiency_near_zero_is_an_answer(worlds):
    """Steps that turn with their gradient's sign and a mean gradient that stays: rho is 0 within a hundredth."""
    steps, rng = 4000, np.random.default_rng(0)
    g = 1.0 + 0.01 * rng.normal(size=(steps, 50))
    trace = worlds.World(g, np.full((steps, 50), 1e-3), np.full(steps, 1e-3)).trace()
    drift = trace.drift
    own = np.eye(drift.gram_dg.shape[-1], dtype=bool)  # what the stepsizes alone make, which stays
    tiny_dg = np.where(own, drift.gram_dg, 1e-3 * drift.gram_dg)
    tiny = replace(trace, drift=replace(drift, gram_dg=tiny_dg, gram_dd=1e-6 * drift.gram_dd))
    found = limits(tiny)
    assert found.limit is Limit.BIAS
    assert "No descent is left: rho = 0.001 [0.001, 0.001], next to none" in found.now
    assert no_descent((-6.7e-6, 6.2e-6))
    assert not no_descent((-NO_DESCENT, 2 * NO_DESCENT))
    assert not no_descent((-math.inf, math.inf))


def test_what_limited_it_before(worlds):
    """A rate that falls by 30 % a doubling, then dies; the efficiency on record tells of the earlier stages."""
    steps = 8192
    t = np.arange(1.0, steps + 1)
    rates = np.where(t <= 4096, 1.0, 0.1)
    trace = descending(worlds, rates, steps)
    seen = 2.0 ** np.arange(5, 14)
    rho = np.where(seen <= 1024, 0.1, 1.0)
    told = Efficiency(seen.astype(np.int64), rho, rho - 0.01, rho + 0.01, rho[:, None], slope=np.ones(len(seen)))
    found = limits(replace(trace, efficiency=told))
    assert found.limit is Limit.STEPSIZE
    assert found.before == "Before: no limit was seen (steps 1025 to 4096), bias (steps 17 to 1024)."
    assert [stage.last for stage in found.stages] == [2**k for k in range(5, 14)]
    assert str(found) == f"{found.now} {found.before}"


def test_a_run_that_broke_says_so(worlds):
    trace = with_column(descending(worlds), "weight_rms", NAN)
    found = limits(trace)
    assert found.limit is Limit.BROKEN
    assert found.now.startswith("The run broke. Parameters, updates or stepsizes are not finite at step 3000")


def test_tensors_have_limits_of_their_own(worlds):
    steps, rng = 4000, np.random.default_rng(0)
    g = np.stack([np.ones(steps), rng.normal(size=steps)], axis=1)
    world = worlds.World(g, np.full((steps, 2), 1e-3), np.full(steps, 1e-3), owner=np.array([0, 1]))
    found = limits(world.trace(np.arange(1, steps + 1)))
    assert [(stage.name, stage.limit) for stage in found.tensors] == [
        ("layer0.weight", Limit.NOTHING),
        ("layer1.weight", Limit.NOISE),
    ]
    assert (found.stages[-1].first, found.stages[-1].last) == (2001, 4000)


# --- records of every kind -----------------------------------------------------------------------------------------


def test_records_with_little_or_nothing_in_them(worlds):
    trace = descending(worlds)
    one = replace(trace, steps=trace.steps[:1], values=trace.values[:1], drift=None, groups={})
    empty = replace(one, steps=one.steps[:0], values=one.values[:0], tensors=[])
    for little in (one, replace(empty, values=np.zeros((0, 0, len(COLUMNS))))):
        assert limits(little).limit is Limit.UNKNOWN
    blind = limits(replace(with_column(trace, "a", NAN), drift=None))
    assert blind.limit is Limit.UNKNOWN
    assert blind.now.startswith("What limits this run is not measured.")
    lost = trace.values.copy()
    lost[:] = NAN
    assert limits(replace(trace, values=lost, drift=None, groups={})).limit in (Limit.UNKNOWN, Limit.BROKEN)


def test_it_needs_no_torch():
    code = "import sys, stepscope.diagnostics.limits; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the decision ----------------------------------------------------------------------------------------------------

NAMES = ("eps", "frozen", "swallowed", "stepsize left", "rho", "slope", "edge", "gradients left", "gradients fell")


@given(st.dictionaries(st.sampled_from(NAMES), st.floats(-1e6, 1e6), max_size=9))
def test_shares_lie_between_nothing_and_everything(facts):
    shares = shares_of(facts)
    assert set(shares) == set(CAUSES)
    assert all(math.isnan(share) or 0 <= share <= 1 for share in shares.values())
    limit = decide(shares, facts)
    if limit in CAUSES:
        assert shares[limit] >= FROM[limit]


@given(st.dictionaries(st.sampled_from(CAUSES), st.floats(0, 1), min_size=5))
def test_more_of_a_cause_never_clears_it(shares):
    """Raising the share of what limits leaves it the limit."""
    facts = {"rho high": 0.9}
    limit = decide(shares, facts)
    if limit in CAUSES:
        assert decide(shares | {limit: 1.0}, facts) is limit


ORDER = [
    (dict(precision=1, stepsize=1, bias=1, noise=1, curvature=1), {}, Limit.PRECISION),
    (dict(stepsize=1, noise=1), {"gradients left": 1e-4, "gradients fell": 0.1}, Limit.REST),
    (dict(stepsize=1, noise=1), {"gradients left": 1e-4, "gradients fell": 0.9}, Limit.STEPSIZE),
    (dict(noise=1), {"gradients left": 1e-12}, Limit.REST),
    (dict(stepsize=0.43, bias=1, noise=1), {}, Limit.STEPSIZE),
    (dict(stepsize=0.42, bias=1, noise=1), {}, Limit.BIAS),
    (dict(bias=0.7, noise=0), {"rho high": 1.2}, Limit.NOTHING),
    (dict(bias=0.7, noise=1), {"rho high": 1.2}, Limit.NOISE),
    (dict(bias=1.0, noise=0), {"rho high": math.inf, "climbs": 1.0}, Limit.BIAS),
    (dict(noise=1, curvature=0.95), {}, Limit.CURVATURE),
    (dict(noise=1, curvature=0.6), {}, Limit.NOISE),
    (dict(noise=0.4, curvature=0.6), {}, Limit.CURVATURE),
    (dict(noise=0.4), {}, Limit.NOTHING),
    ({}, {}, Limit.UNKNOWN),
]


@pytest.mark.parametrize(("shares", "facts", "expected"), ORDER, ids=str)
def test_what_comes_first(shares, facts, expected):
    given = {cause: float(shares.get(str(cause), NAN)) for cause in CAUSES}
    assert decide(given, {"rho high": 0.9} | facts) is expected


def test_the_page_states_these_thresholds_and_answers():
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| `(\w+)` \| .* \| (\d+) % \|$", page, re.MULTILINE))
    assert stated == {str(cause): f"{100 * FROM[cause]:.0f}" for cause in CAUSES}
    assert {f"`{limit}`" for limit in Limit} <= set(re.findall(r"`[a-z ]+`", page))


def test_without_a_readable_stepsize_no_limit_is_told():
    class Own(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.01})

        @torch.no_grad()
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                p.sub_(0.01 * p.grad.sign() * p.grad.abs().pow(0.3))

    x = torch.nn.Parameter(torch.ones(20))
    optimizer = Own([x])
    with Monitor(optimizer, what_if=()) as monitor:
        for t in range(600):
            x.grad = torch.randn(20, generator=torch.Generator().manual_seed(t))
            optimizer.step()
    assert not any(tensor.formula for tensor in monitor.trace.tensors)
    assert monitor.diagnose().limit is Limit.UNKNOWN


def test_what_noise_costs_is_left_to_a_rate_that_falls():
    said = limits_module._nothing({"slope": 0.55})
    assert said.endswith("What the noise costs, a rate that falls would tell.")
    assert "noise costs" not in limits_module._nothing({"slope": 0.55, "rate left": 0.5})
    assert "noise costs" not in limits_module._nothing({"slope": 0.9})
