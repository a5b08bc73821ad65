"""A budget: fewer steps are looked at, each counts for more, and nothing is biased."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope import Monitor
from stepscope.diagnostics.budget import LEAST, MOST, RUN, SLACK, Budget
from stepscope.diagnostics.trace import SUMS


class Worked:
    """A clock that goes on as work is done."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def go(budget, clock, runs, step_seconds, looked_seconds):
    """Take so many runs of steps; return the first step of each, whether it was looked at, and at what cadence."""
    seen = []
    for step in range(1, 1 + runs * RUN, RUN):
        if step >= budget.next_turn:
            budget.turn(step)
        looks = budget.looks(step)
        assert looks == budget.looks(step + RUN - 1)
        seen.append((step, looks, budget.cadence))
        own = RUN * looked_seconds * looks
        clock.now += RUN * step_seconds + own
        budget.spent += own
    return seen


@settings(deadline=None)
@given(
    share=st.floats(0.001, 0.5),
    looked_seconds=st.floats(1e-6, 1e-2),
    step_seconds=st.floats(1e-4, 1.0),
)
def test_the_share_is_kept_and_not_far_from_it(share, looked_seconds, step_seconds):
    clock = Worked()
    budget = Budget(share, 0, clock)
    cadence = go(budget, clock, LEAST // RUN + 4 * MOST, step_seconds, looked_seconds)[-1][2]
    at = [looked_seconds / k / (step_seconds + looked_seconds / k) for k in (cadence, max(1, cadence / 2))]
    assert at[0] <= 1.001 * share or cadence == MOST
    # It was doubled once too often at most, and does not fall within the slack.
    assert cadence == 1 or at[1] * SLACK >= 0.999 * share


def test_a_block_has_one_run_and_any_of_them():
    places = Counter()
    for seed in range(400):
        clock = Worked()
        seen = go(Budget(0.25, seed, clock), clock, LEAST // RUN + 4, 1.0, 3.0)
        looked = [step for step, looks, _ in seen if looks]
        assert looked[: LEAST // RUN] == list(range(1, LEAST, RUN))
        assert {cadence for _, _, cadence in seen[-4:]} == {4}  # three quarters of the time, of which one may be
        (only,) = looked[LEAST // RUN :]
        places[(only - LEAST - 1) // RUN] += 1
    # Each of the four has 100 ± 8.7; five standard deviations: 2e-6 for four.
    assert set(places) == {0, 1, 2, 3}
    assert all(abs(count - 100) < 5 * math.sqrt(400 * 3 / 16) for count in places.values())


def test_a_pause_of_the_training_is_no_time_to_spend():
    clock = Worked()
    budget = Budget(0.01, 0, clock)
    go(budget, clock, LEAST // RUN + 1, 1e-3, 1e-3)
    cadence = budget.cadence
    assert cadence > 4
    for _ in range(6 * cadence):
        if budget.cadence > 1 and budget.next_turn % 7 == 0:
            clock.now += 3600.0
        step = budget.next_turn
        budget.turn(step)
        own = RUN * 1e-3 * budget.looks(step)
        clock.now += RUN * 1e-3 + own
        budget.spent += own
        assert budget.cadence >= cadence


def params():
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(40)), torch.nn.Parameter(torch.randn(90, 60))]


OPTIMIZERS = {
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.01),
    "decay": lambda ps: torch.optim.AdamW(ps, lr=0.01, amsgrad=True),
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.01, momentum=0.9),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.01),
}


@pytest.fixture
def every_fourth(monkeypatch):
    """Let the cadence be four from the first block on that may have one."""
    monkeypatch.setattr(Budget, "_adapt", lambda self: setattr(self, "cadence", 4))


@pytest.mark.parametrize("coordinates", [16, "all"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_sums_are_those_of_the_steps_looked_at_each_for_four(kind, coordinates, every_fourth):
    torch.manual_seed(1)
    ps = params()
    optimizer = OPTIMIZERS[kind](ps)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)
    own = {"coordinates": coordinates, "what_if": (), "strict": True}
    exact, budgeted = Monitor(optimizer, **own), Monitor(optimizer, budget=0.01, **own)
    expected, before = np.zeros((len(ps), len(SUMS))), np.zeros((len(ps), len(SUMS)))
    looked = 0
    for step in range(LEAST + 20 * RUN):
        for p in ps:
            p.grad = torch.randn_like(p)
        looks, cadence = budgeted._budget.looks(step + 1) or step == 0, budgeted._budget.cadence
        optimizer.step()
        schedule.step()
        sums = exact._recorder.accumulators.sums
        if looks:
            expected += cadence * exact._recorder.accumulators.last
            looked += 1
        assert not np.array_equal(sums, before)
        before = sums.copy()
    assert looked < step / 2
    assert budgeted.step == exact.step
    found = budgeted._recorder.accumulators.sums
    np.testing.assert_allclose(found, expected, rtol=1e-6 if coordinates == "all" else 1e-11, atol=1e-300)
    each = [m._recorder.watchers[1].accumulator.each.sum() for m in (exact, budgeted)]
    assert coordinates == "all" or 0.5 * each[0] < each[1] < 2 * each[0]


def test_the_record_says_so_and_the_training_is_what_it_was(every_fourth, tmp_path):
    weights = []
    for budget in (None, 0.01):
        torch.manual_seed(1)
        ps = params()
        optimizer = torch.optim.Adam(ps)
        with Monitor(optimizer, tmp_path / str(budget), budget=budget, strict=True) as monitor:
            for _ in range(2000):
                for p in ps:
                    p.grad = torch.randn_like(p)
                optimizer.step()
        weights.append([p.detach().clone() for p in ps])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    trace = monitor.trace
    assert trace.meta["budget"] == 0.01
    assert trace.steps[-1] == 2000
    assert trace.scalars["monitor/cadence"].last[-1] == 4
    assert "64 of every 256 steps are looked at" in next(e.message for e in trace.events if e.kind == "cadence")
    # Steps are estimated as well: within a block of what they were.
    assert abs(trace.column("steps")[-1][0] - 2000) <= 4 * RUN
    assert trace.what_if is not None


def test_groups_loads_and_restarts_while_nothing_is_looked_at(every_fourth):
    ps = params()
    optimizer = torch.optim.Adam(ps)
    monitor = Monitor(optimizer, budget=0.01, strict=True)

    def step(n=1):
        for _ in range(n):
            for p in ps:
                p.grad = torch.randn_like(p)
            optimizer.step()

    step(LEAST + RUN)
    while not monitor._resting:
        step()
    ps.append(torch.nn.Parameter(torch.randn(7)))
    optimizer.add_param_group({"params": [ps[-1]]})
    step(10 * RUN)
    while not monitor._resting:
        step()
    assert len(monitor.trace.tensors) == 3
    optimizer.load_state_dict(optimizer.state_dict())
    step(10 * RUN)
    saved = monitor.state_dict()
    monitor.load_state_dict(saved)
    assert not monitor._resting
    step(1)
    assert monitor.step == saved["recorder"]["step"] + 1
    assert not [e for e in monitor.trace.events if e.kind in ("step jump", "moment reset", "fault")]
    monitor.close()


@pytest.mark.parametrize("budget", [0, 1, -0.1, 1.5, math.nan, "1%", True])
def test_what_is_no_share_is_refused(budget):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Monitor(torch.optim.Adam(params()), budget=budget)


def test_several_optimizers_have_no_budget():
    with pytest.raises(ValueError, match="one optimizer"):
        Monitor([torch.optim.Adam([p]) for p in params()], budget=0.01)
