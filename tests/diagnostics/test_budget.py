"""A budget: fewer steps are looked at, each counts for more, and nothing is biased."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope import Monitor
from stepscope.diagnostics.budget import BLOCKS, LEAST, MOST, RUN, SLACK, Budget
from stepscope.diagnostics.trace import SUMS


class Worked:
    """A clock that goes on as work is done."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def go(budget, clock, runs, step_seconds, looked_seconds):
    """Take so many runs of steps; return the first step of each, whether it was looked at, and at what cadence."""
    seen, start = [], max(1, budget.next_turn)
    for step in range(start, start + runs * RUN, RUN):
        budget.turn(step)
        looks = budget.looks(step)
        assert looks == budget.looks(step + RUN - 1)
        seen.append((step, looks, budget.cadence))
        for steps in (1, RUN - 1):
            budget.book(steps * looked_seconds * looks)
        clock.now += RUN * (step_seconds + looked_seconds * looks)
    return seen


@pytest.mark.slow
@settings(max_examples=20)
@given(
    share=st.floats(0.001, 0.5),
    looked_seconds=st.floats(1e-6, 1e-2),
    step_seconds=st.floats(1e-4, 1.0),
)
def test_the_share_is_kept_and_not_far_from_it(share, looked_seconds, step_seconds):
    clock = Worked()
    budget = Budget(share, 0, clock)
    cadence = go(budget, clock, 2 * BLOCKS * MOST, step_seconds, looked_seconds)[-1][2]
    at = [looked_seconds / k / (step_seconds + looked_seconds / k) for k in (cadence, max(1, cadence / 2))]
    assert at[0] <= 1.02 * share or cadence == MOST  # the first of 64 steps is not counted
    # It was doubled once too often at most, and does not fall within the slack.
    assert cadence == 1 or at[1] * SLACK >= 0.98 * share


def test_a_block_has_one_run_and_any_of_them():
    places = Counter()
    for seed in range(400):
        clock = Worked()
        budget = Budget(0.25, seed, clock)
        seen = go(budget, clock, LEAST // RUN, 1.0, 3.0)
        assert all(looks for _, looks, _ in seen)
        while budget.cadence < 4:
            assert budget.cadence * BLOCKS * RUN <= max(BLOCKS * RUN, seen[-1][0])
            seen += go(budget, clock, 1, 1.0, 3.0)
        block = [seen[-1], *go(budget, clock, 3, 1.0, 3.0)]
        assert {cadence for _, _, cadence in block} == {4}  # three quarters of the time, of which one may be
        (place,) = [n for n, (_, looks, _) in enumerate(block) if looks]
        places[place] += 1
    # Each of the four has 100 ± 8.7; five standard deviations: 2e-6 for four.
    assert set(places) == {0, 1, 2, 3}
    assert all(abs(count - 100) < 5 * math.sqrt(400 * 3 / 16) for count in places.values())


def test_a_pause_of_the_training_is_no_time_to_spend():
    clock = Worked()
    budget = Budget(0.01, 0, clock)
    go(budget, clock, 64 * BLOCKS, 1e-3, 1e-3)
    cadence = budget.cadence
    assert cadence > 4
    for run in range(6 * cadence):
        clock.now += 3600.0 * (run % 7 == 0)
        go(budget, clock, 1, 1e-3, 1e-3)
        assert budget.cadence >= cadence


def test_what_opens_a_block_is_not_charged_to_it():
    """The first step compiles, which may take twenty seconds; so may the first after a restart."""
    clock = Worked()
    budget = Budget(0.01, 0, clock)
    for _ in range(2):
        start = budget.next_turn
        budget.turn(max(1, start))
        budget.book(20.0)
        clock.now += 20.0
        for _ in range(RUN):
            budget.book(1e-6)
        seen = go(budget, clock, 8, 1e-3, 1e-6)
        assert {cadence for _, _, cadence in seen} == {1}
        budget.restart()


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
    monkeypatch.setattr(Budget, "_adapt", lambda self, taken: setattr(self, "cadence", 4))


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


def resting(make=torch.optim.Adam, **settings):
    """Return a monitor that looks at no step just now, its optimizer, and what takes a step."""
    ps = params()
    optimizer = make(ps, lr=0.01)
    monitor = Monitor(optimizer, budget=0.01, strict=True, **settings)

    def step(gradients=True):
        for p in ps:
            p.grad = torch.randn_like(p) if gradients else None
        optimizer.step()

    while monitor.step < LEAST + RUN or not monitor._resting:
        step()
    for _ in range(20):
        step()
    assert monitor._resting
    return monitor, optimizer, step


def kinds(monitor):
    return [event.kind for event in monitor.trace.events]


def test_what_is_no_step_is_not_counted_while_nothing_is_looked_at(every_fourth):
    monitor, optimizer, step = resting()
    before = monitor.step
    step(gradients=False)
    assert not monitor.sample()
    optimizer.step = lambda: None
    step()
    del optimizer.step
    assert monitor.step == before
    step()
    assert monitor.step == before + 1
    assert kinds(monitor).count("skipped") == 1


def test_a_state_loaded_while_nothing_is_looked_at_is_no_jump(every_fourth):
    monitor, optimizer, step = resting()
    optimizer.load_state_dict(optimizer.state_dict())
    for _ in range(20 * RUN):
        step()
    assert not {"step jump", "moment reset"} & set(kinds(monitor))


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD])
def test_a_monitor_saved_while_nothing_is_looked_at_goes_on_from_the_newest_step(make, every_fourth):
    monitor, optimizer, step = resting(make, coordinates="all", what_if=())
    # The rate falls tenfold while nobody looks: that is not what the first step after loading changes.
    optimizer.param_groups[0]["lr"] *= 0.1
    step()
    monitor.load_state_dict(monitor.state_dict())
    before = monitor._recorder.accumulators.sums[0, SUMS.index("c_lr")]
    step()
    assert monitor._recorder.accumulators.sums[0, SUMS.index("c_lr")] == before
    assert not {"step jump", "moment reset"} & set(kinds(monitor))


def test_an_alert_may_close_the_monitor_where_a_block_ends(monkeypatch):
    p = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.Adam([p])
    monitor = Monitor(optimizer, budget=0.5, strict=True, on_alert=lambda alert: monitor.close())
    for step in range(1, 3 * RUN):
        p.grad = torch.full_like(p, float("nan") if step == RUN else 1.0)
        optimizer.step()
    assert monitor.closed
    assert monitor.step == RUN
