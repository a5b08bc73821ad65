"""Comparing runs: identical ones are the same, two seeds of one setting do not part, two settings do."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import statistics

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stepscope import Monitor, simulate
from stepscope.diagnostics.compare import compare
from stepscope.diagnostics.conditions import MIN_BLOCKS
from stepscope.diagnostics.courses import (
    BIAS,
    EFFICIENCY,
    LOSS,
    MEDIAN,
    QUANTILES,
    SMALL,
    Course,
    edges_since,
    shared_edges,
)
from stepscope.diagnostics.parting import (
    AHEAD,
    AT_ONCE,
    LATE,
    MANY,
    RATE,
    RUNNING,
    SCATTER,
    apart,
    part,
    part_efficiency,
)
from stepscope.diagnostics.permutation import differ, ways
from stepscope.synthetic import Problem, Random

WIDTH = 20


def train(seed, optimizer=torch.optim.Adam, steps=400, batch=16, log=True, at=0, factor=1.0, reseed=None, **settings):
    """Return the trace of a linear regression from `WIDTH` inputs to 10 outputs: 210 coordinates, noisy batches.

    From step `at` on the learning rate is `factor` times what it was, and batches are drawn from seed `reseed`.
    """
    torch.manual_seed(seed)
    model = torch.nn.Linear(WIDTH, 10)
    truth = torch.linspace(-1, 1, 10 * WIDTH).reshape(WIDTH, 10)
    chosen = optimizer(model.parameters(), **({"lr": 0.01} | settings))
    with Monitor(chosen, model=model, what_if=()) as monitor:
        for t in range(1, steps + 1):
            if t == at:
                chosen.param_groups[0]["lr"] *= factor
                torch.manual_seed(seed if reseed is None else reseed)
            x = torch.randn(batch, WIDTH)
            loss = (model(x) - x @ truth - 0.1 * torch.randn(batch, 10)).square().mean()
            loss.backward()
            chosen.step()
            chosen.zero_grad()
            if log:
                monitor.log(loss=loss)
        return monitor.trace


@pytest.fixture(scope="module")
def seeds():
    return [train(seed) for seed in range(8)]


@pytest.fixture(scope="module")
def others():
    """The same with a learning rate that is five times as large, and other seeds."""
    return [train(seed, lr=0.05) for seed in range(20, 24)]


def by_quantity(comparison, setting=1):
    return {parting.quantity: parting for parting in comparison.settings[setting].partings}


# --- the same run ------------------------------------------------------------------------------------------------


def test_a_run_is_the_same_as_itself(seeds):
    found = compare({"one": seeds[0], "two": seeds[0]})
    assert found.same
    assert found.differences == ()
    assert found.settings[1].partings == ()
    assert "two is the same run as one, number for number." in str(found)
    assert "Nothing differs" in str(found)


def test_a_run_made_again_is_the_same_whenever_it_was_made(seeds):
    again = train(0)
    again.meta["created"] = "another day"
    assert compare({"one": seeds[0], "again": again}).same


@pytest.mark.parametrize("row", [0, 7, -1])
def test_one_digit_makes_another_run_from_its_step_on(seeds, row):
    changed = dataclasses.replace(seeds[0], values=seeds[0].values.copy())
    changed.values[row:, 0, 3] *= 1 + 1e-15
    found = compare({"one": seeds[0], "changed": changed})
    assert not found.same
    assert found.settings[1].differs_from == seeds[0].steps[row]


def test_a_run_that_goes_on_differs_from_where_the_other_ends(seeds):
    longer = train(0, steps=500)
    found = compare({"one": seeds[0], "longer": longer})
    assert found.settings[1].differs_from == 401
    assert [(one.what, one.values) for one in found.differences] == [("steps", (400, 500))]
    assert all(parting.step is None for parting in found.settings[1].partings)


def test_another_loss_of_the_same_steps_is_another_record(seeds):
    assert compare({"one": seeds[0], "silent": train(0, log=False)}).settings[1].differs_from == seeds[0].steps[0]


# --- one run of each ---------------------------------------------------------------------------------------------


def test_two_seeds_of_one_setting_do_not_part(seeds):
    """28 pairs of 5 quantities; each pair may part with probability RATE, so more than 6 parting has p < 0.2 %."""
    runs = {str(seed): trace for seed, trace in enumerate(seeds)}
    parted = 0
    for one, other in itertools.combinations(runs, 2):
        found = compare({one: runs[one], other: runs[other]})
        assert found.differences == ()
        parted += any(parting.step for parting in found.settings[1].partings)
    assert stats.binom.sf(6, 28, RATE) < 0.002
    assert parted <= 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": torch.optim.SGD, "lr": 0.03},
        {"lr": 0.003, "betas": (0.9, 0.95)},
        {"lr": 0.03, "betas": (0.5, 0.9), "batch": 4},
        {"lr": 0.01, "amsgrad": True, "steps": 2000},
        {"optimizer": torch.optim.SGD, "lr": 0.01, "momentum": 0.9, "batch": 2},
    ],
    ids=str,
)
def test_seeds_of_more_settings_do_not_part(settings):
    """45 pairs each; more than 7 parting has p < 0.3 %."""
    runs = [train(100 + seed, **settings) for seed in range(10)]
    pairs = itertools.combinations(runs, 2)
    parted = sum(any(one.step for one in compare({"a": a, "b": b}).settings[1].partings) for a, b in pairs)
    assert stats.binom.sf(7, 45, RATE) < 0.003
    assert parted <= 7


def test_a_larger_rate_parts_in_loss_and_stepsize(seeds, others):
    found = compare({"one": seeds[0], "larger": others[0]})
    partings = by_quantity(found)
    assert partings[MEDIAN].step == 1
    medians = [
        trace.column("e_p50")[list(trace.steps).index(partings[MEDIAN].at), 0] for trace in (others[0], seeds[0])
    ]
    assert [partings[MEDIAN].here, partings[MEDIAN].there] == pytest.approx(medians)  # the bias is too small to count
    loss = partings[LOSS]
    assert 2 < loss.step < 100
    assert loss.here < loss.there
    assert loss.until is None or loss.until > loss.step
    assert [(one.what, one.values) for one in found.differences] == [("lr", (0.01, 0.05))]


def test_sgd_parts_from_adam_in_rises_of_the_stepsize(seeds):
    partings = by_quantity(compare({"adam": seeds[0], "sgd": train(0, torch.optim.SGD, lr=0.03)}))
    assert partings[BIAS].step is not None
    assert partings[BIAS].here == 0.0 < partings[BIAS].there


def test_the_order_of_two_runs_only_turns_the_numbers_round(seeds, others):
    there = by_quantity(compare({"a": seeds[0], "b": others[0]}))
    back = by_quantity(compare({"b": others[0], "a": seeds[0]}))
    for name, parting in there.items():
        turned = dataclasses.replace(back[name], here=back[name].there, there=back[name].here)
        assert repr(turned) == repr(parting)  # nan is nan


def test_what_is_not_there_is_not_compared(seeds):
    silent, wider = train(0, log=False), train(0)
    wider.tensors = [dataclasses.replace(tensor, name=f"other.{tensor.name}") for tensor in wider.tensors]
    notes = {name: one.note for name, one in by_quantity(compare({"one": seeds[0], "silent": silent})).items()}
    assert notes[LOSS] == "no scalar is logged in all of them"
    assert notes[SMALL] == f"no tensor in common has a stepsize and {QUANTILES[SMALL][1]} watched coordinates"
    assert "no tensor in common" in by_quantity(compare({"one": seeds[0], "wider": wider}))[MEDIAN].note
    short = by_quantity(compare({"one": seeds[0], "short": train(0, steps=3)}))
    assert all(parting.at is None for parting in short.values())


def test_a_comparison_writes_the_report_of_all_its_runs(seeds, others, tmp_path):
    found = compare({"small": seeds[:2], "large": others[0]})
    written = json.loads(found.report(tmp_path / "new" / "runs.json").read_text())
    assert [run["name"] for run in written["runs"]] == ["small 1", "small 2", "large"]
    with pytest.raises(ValueError, match="must end in"):
        found.report(tmp_path / "runs.doc")


def test_a_run_without_records_compares_with_nothing(seeds):
    empty = dataclasses.replace(
        seeds[0], steps=np.empty(0, np.int64), values=seeds[0].values[:0], scalars={}, drift=None, efficiency=None
    )
    partings = by_quantity(compare({"one": seeds[0], "empty": empty}))
    assert {parting.note for name, parting in partings.items() if name != EFFICIENCY} == {"they share no steps"}


# --- runs that were one run for a while -----------------------------------------------------------------------


def trunk(at, **more):
    """Return the trace of seed 0, made again so that only what is changed at step `at` differs."""
    return train(0, at=at, **more)


@pytest.mark.parametrize(("at", "factor"), [(100, 100.0), (200, 100.0), (200, 3.0), (250, 0.1)])
def test_a_switch_on_the_way_is_told_from_where_it_is_thrown(at, factor):
    found = compare({"as it was": trunk(at), "switched": trunk(at, factor=factor)})
    partings, since = by_quantity(found), found.settings[1].differs_from
    assert at <= since
    medians = partings[MEDIAN]
    assert medians.step <= since
    assert medians.until is None
    assert medians.here / medians.there == pytest.approx(factor, rel=0.3)
    (schedule,) = [one for one in found.differences if one.what.startswith("lr")]
    assert schedule.since == since  # the first record that shows it


def test_a_loss_that_a_switch_sends_off_is_told():
    partings = by_quantity(compare({"as it was": trunk(200), "switched": trunk(200, factor=100.0)}))
    assert 100 < partings[LOSS].step < 300
    assert partings[LOSS].here > 2 * partings[LOSS].there


@pytest.mark.slow
@pytest.mark.parametrize("at", [40, 200])
@pytest.mark.parametrize("settings", [{}, {"lr": 0.1, "betas": (0.5, 0.9), "batch": 4}], ids=str)
def test_branches_that_only_draw_other_batches_do_not_part(at, settings):
    """15 pairs each; each may part with probability RATE, so more than 4 parting has p < 0.1 %."""
    branches = [trunk(at, reseed=1000 + seed, **settings) for seed in range(6)]
    parted = 0
    for one, other in itertools.combinations(branches, 2):
        found = compare({"one": one, "other": other}).settings[1]
        assert found.differs_from >= at
        parted += any(parting.step is not None for parting in found.partings)
    assert stats.binom.sf(4, 15, RATE) < 0.001
    assert parted <= 4


def test_a_switch_at_the_very_end_is_said_to_be_too_late(seeds):
    partings = by_quantity(compare({"as it was": trunk(385), "switched": trunk(385, factor=100.0)}))
    assert partings[MEDIAN].step is None
    assert partings[MEDIAN].note == LATE
    text = str(compare({"as it was": trunk(385), "switched": trunk(385, factor=100.0)}))
    assert LATE in text
    same = str(compare({"as it was": trunk(385), "hardly": trunk(385, factor=1.01)}))
    assert LATE not in same


def test_blocks_since_a_branch_double_in_two(seeds):
    edges = edges_since(99, [seeds[0], seeds[1]])
    assert (edges[0], edges[-1]) == (99, 400)
    assert np.isin(edges, seeds[0].steps).all()
    gone = edges[1:] - 99
    assert np.all(np.diff(edges) > 0)
    assert np.all(gone[2:] / gone[:-2] > 1.4)
    assert len(edges) > MIN_BLOCKS
    assert list(edges_since(400, [seeds[0]])) == [400]


def test_blocks_that_are_compared_at_once_need_three_in_a_row():
    t = 2.0 ** (0.5 * np.arange(1, 25))
    for last, parts in ((3, True), (2, False)):
        raised = 1 / t
        raised[-last:] *= np.exp(np.arange(1, last + 1))
        assert (part(course(1 / t, raised), AT_ONCE).step is not None) == parts
    assert part(course(1 / t, 1 / (1.9 * t)), AT_ONCE).step is not None  # no run is ahead


# --- few coordinates ---------------------------------------------------------------------------------------------


def walk(seed, method="adam", steps=3000):
    x = sympy.Symbol("x")
    problem = Problem([1010 * x, -10 * x], arrival=Random((0.01, 0.99)), domain=(-1, 1))
    return simulate(problem, method, steps=steps, lr="0.5/sqrt(t)", seeds=[seed])


def test_a_path_of_one_coordinate_is_chance_itself():
    partings = by_quantity(compare({"a": walk(0), "b": walk(1)}))
    assert all(partings[name].note.startswith("a run of 1 coordinate is a path of chance") for name in (LOSS, BIAS))
    assert all(parting.step is None for parting in partings.values())


def test_on_the_same_draws_two_methods_can_be_compared():
    partings = by_quantity(compare({"adam": walk(0), "amsgrad": walk(0, "adagrad")}))
    assert partings[BIAS].step is not None
    assert partings[BIAS].here == 0.0


# --- several runs of each ----------------------------------------------------------------------------------------


def test_groups_of_runs_part_where_single_ones_cannot(seeds):
    """A rate larger by less than the room for stepsizes shows in four against four."""
    little = [train(seed, lr=0.014) for seed in range(40, 44)]
    alone = by_quantity(compare({"a": seeds[0], "b": little[0]}))
    assert all(parting.step is None for name, parting in alone.items() if name != EFFICIENCY)
    together = by_quantity(compare({"a": seeds[:4], "b": little}))
    assert together[MEDIAN].step is not None
    assert together[LOSS].step is not None


def test_groups_of_one_setting_do_not_part_more_often_than_said(seeds):
    """All 35 ways to cut eight seeds in two: in each quantity exactly that share may part, whatever the data."""
    count = dict.fromkeys((LOSS, EFFICIENCY, MEDIAN, SMALL, BIAS), 0)
    for chosen in itertools.combinations(range(1, 8), 3):
        here = [seeds[0], *(seeds[i] for i in chosen)]
        there = [seeds[i] for i in range(1, 8) if i not in chosen]
        for name, parting in by_quantity(compare({"a": here, "b": there})).items():
            count[name] += parting.step is not None
    assert max(count.values()) <= RATE * 35
    assert count[LOSS] <= 1


@pytest.mark.slow
@given(
    st.integers(2, 4),
    st.integers(3, 4),
    st.integers(1, 12),
    st.integers(0, 10**6),
    st.sampled_from([0.06, 0.1, 0.3]),
)
@settings(max_examples=40)
def test_the_permutation_test_is_exact(n, m, blocks, seed, rate):
    """Of all ways to share out the very same runs, at most the share `rate` shows any difference: a theorem."""
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.standard_t(2, size=(n + m, blocks)), axis=1)
    shares = list(itertools.combinations(range(n + m), n))
    shown = 0
    for chosen in shares:
        rest = [i for i in range(n + m) if i not in chosen]
        shown += bool(differ(values[list(chosen)], values[rest], rate).any())
    assert shown <= rate * len(shares) + 1e-9


def test_the_permutation_test_finds_where_runs_begin_to_differ():
    rng = np.random.default_rng(0)
    here, there = rng.normal(size=(5, 20)), rng.normal(size=(5, 20))
    here[:, 12:] += 8.0
    signs = differ(here, there, RATE)
    assert list(np.flatnonzero(signs)) == list(range(12, 20))
    assert set(signs[12:]) == {1}
    assert not differ(np.ones((5, 3)), np.ones((5, 3)), RATE).any()
    assert (differ(np.ones((5, 3)), 1.1 * np.ones((5, 3)), RATE) == -1).all()


def test_how_many_runs_it_takes():
    found = {(n, m): ways(n, m) for n, m in ((3, 3), (4, 4), (3, 5))}
    assert found == pytest.approx({(3, 3): 2 / 20, (4, 4): 2 / 70, (3, 5): 1 / 56})
    assert found[3, 3] > RATE > max(found[4, 4], found[3, 5])


# --- how single courses are told apart ---------------------------------------------------------------------------


def apart_twin(x, y, room):
    """The rule spelled out block by block."""

    def scatter(z, j):
        near = (i for i in range(len(z) - 2) if abs(i + 1 - j) <= 3)
        return statistics.median(abs(z[i] - 2 * z[i + 1] + z[i + 2]) / math.sqrt(6) for i in near)

    signs = []
    for j in range(len(x)):
        margin = room + SCATTER * math.hypot(scatter(x, j), scatter(y, j)) / 0.6745
        around = range(max(0, j - AHEAD), min(len(x), j + AHEAD + 1))
        above = all(x[j] - y[i] > margin and x[i] - y[j] > margin for i in around)
        below = all(y[i] - x[j] > margin and y[j] - x[i] > margin for i in around)
        signs.append(int(above) - int(below))
    return signs


@given(st.integers(5, 24), st.integers(0, 10**6), st.sampled_from([0.0, 0.4]), st.sampled_from([0.01, 0.3]))
@settings(max_examples=60)
def test_apart_is_the_rule_spelled_out(blocks, seed, room, noise):
    rng = np.random.default_rng(seed)
    t = np.arange(blocks)
    x = -0.1 * t + noise * rng.normal(size=blocks)
    y = -rng.choice([0.1, 0.4]) * t + noise * rng.normal(size=blocks)
    assert list(apart(x, y, room)) == apart_twin(x, y, room)


def course(here, there, **more):
    steps = np.round(2.0 ** (0.5 * np.arange(1, len(here) + 1))).astype(np.int64)
    return Course(LOSS, steps, steps, np.array([here]), np.array([there]), **more)


@pytest.mark.parametrize(("ahead", "parts"), [(1.9, False), (2.2, True), (0.55, False), (0.45, True)])
def test_a_run_that_is_ahead_by_less_than_a_factor_of_two_does_not_part(ahead, parts):
    """Without noise the rule is exact: loss 1/t against 1/(ahead·t)."""
    t = 2.0 ** (0.5 * np.arange(1, 25))
    assert (part(course(1 / t, 1 / (ahead * t))).step is not None) == parts


def test_a_single_block_apart_is_an_outlier():
    t = 2.0 ** (0.5 * np.arange(1, 25))
    here, there = 1 / t, 1 / t
    for width, parts in ((RUNNING + 3, True), (1, False)):
        bumped = there.copy()
        bumped[10 : 10 + width] *= 100
        assert (part(course(here, bumped)).step is not None) == parts


def test_what_differs_before_the_first_step_is_chance():
    flat, lower = np.ones(20), 0.8 * np.ones(20)
    assert part(course(flat, lower)).step is not None
    assert part(course(flat, lower, outset=(np.array([1.0]), np.array([0.8])))).step is None


def test_losses_below_nought_are_compared_as_they_are():
    t = np.arange(20.0)
    assert part(course(-t, -t - 0.01)).step is None
    assert part(course(-t, -10 * t)).step is not None


# --- descent efficiency ------------------------------------------------------------------------------------------


def measured(rho, half, looks=12):
    """Rows of one run with symmetric intervals."""
    steps = 2.0 ** np.arange(4, 4 + looks)
    return np.column_stack([steps, rho, rho - half, rho + half])[None]


def test_efficiency_parts_by_chance_as_seldom_as_said():
    """Two runs with one ρ and honest intervals of seven degrees of freedom, twelve looks: at most RATE."""
    rng, trials, looks = np.random.default_rng(1), 2000, 12
    t = stats.t.ppf(0.975, 7)
    parted = 0
    for _ in range(trials):
        rows = []
        for _ in range(2):
            error = 0.1 * np.sqrt(rng.chisquare(7, looks) / 7)
            rows.append(measured(0.9 + 0.1 * rng.normal(size=looks), t * error))
        parted += part_efficiency(np.concatenate(rows), 1, 1).step is not None
    assert parted <= stats.binom.ppf(0.999, trials, RATE)


def test_efficiency_parts_where_the_intervals_lie_apart():
    low = np.where(np.arange(12) < 5, 0.9, 0.3)
    rows = np.concatenate([measured(low, 0.05), measured(np.full(12, 0.9), 0.05)])
    found = part_efficiency(rows, 1, 1)
    assert (found.step, found.until, found.here, found.there) == (2**9, None, 0.3, 0.9)
    assert part_efficiency(rows, 1, 1).quantity == EFFICIENCY


def test_a_difference_that_nobody_would_act_on_is_none():
    rows = np.concatenate([measured(np.full(12, 1.0), 1e-9), measured(np.full(12, 0.99), 1e-9)])
    assert part_efficiency(rows, 1, 1).step is None


# --- what is on record -------------------------------------------------------------------------------------------


def test_shared_edges_are_steps_that_both_have(seeds):
    edges = shared_edges([seeds[0], train(0, steps=100)])
    assert edges[-1] == 100
    assert np.isin(edges, seeds[0].steps).sum() >= len(edges) - 1  # 100 lies between two records
    assert np.all(np.diff(edges) > 0)


def test_differences_name_what_was_set_otherwise():
    def schedule(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / math.sqrt(t + 1))

    def run(kind, moving=False, **settings):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        optimizer = kind(model.parameters(), **settings)
        scheduler = schedule(optimizer) if moving else None
        with Monitor(optimizer, model=model, what_if=()) as monitor:
            for _ in range(20):
                model(torch.ones(4, 3)).sum().backward()
                optimizer.step()
                if scheduler:
                    scheduler.step()
            return monitor.trace

    adam, sgd = run(torch.optim.Adam, lr=0.1), run(torch.optim.SGD, lr=0.1)
    moving = run(torch.optim.Adam, True, lr=0.1)
    found = {one.what: one.values for one in compare({"adam": adam, "sgd": sgd}).differences}
    assert found == {
        "optimizer": ("torch.optim.adam.Adam", "torch.optim.sgd.SGD"),
        "betas": ([0.9, 0.999], None),
        "eps": (1e-8, None),
    }
    (schedule_,) = compare({"adam": adam, "moving": moving}).differences
    assert (schedule_.what, schedule_.since) == ("lr over the run", 2)
    assert schedule_.values[0] == "0.1"
    assert re.fullmatch(r"0\.1 to 0\.02\d+", schedule_.values[1])


def test_several_seeds_of_a_setting_share_their_settings(seeds, others):
    found = compare({"a": seeds[:3], "b": others[:2]})
    assert [(one.what, one.values) for one in found.differences] == [("lr", (0.01, 0.05))]
    assert [run.name for setting in found.settings for run in setting.runs] == ["a 1", "a 2", "a 3", "b 1", "b 2"]


# --- how it is told ----------------------------------------------------------------------------------------------


def test_the_table_holds_each_verdict_and_each_parting(seeds, others):
    text = str(compare({"one": seeds[0], "larger": others[0]}))
    for part_ in (
        "Verdicts",
        "What differs",
        "larger against one",
        "apart from step 1",
        str(seeds[0].diagnose().verdict),
    ):
        assert part_ in text
    assert max(map(len, text.splitlines())) <= 160


def test_the_comparison_is_stable_json(seeds, others):
    found = compare({"one": seeds[0], "larger": others[0], "silent": train(0, steps=5, log=False)})
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(data) == {"schema", "same", "differences", "settings"}
    assert (data["schema"], data["same"]) == (1, False)
    assert [setting["name"] for setting in data["settings"]] == ["one", "larger", "silent"]
    assert data["settings"][1]["runs"][0]["diagnosis"]["schema"] == 1
    assert data["settings"][2]["partings"][0]["here"] is None


@pytest.mark.parametrize("traces", [{}, {"one": None}])
def test_a_comparison_takes_two(seeds, traces):
    with pytest.raises(ValueError, match="at least two runs"):
        compare(dict.fromkeys(traces, seeds[0]))


def test_a_setting_without_runs_is_refused(seeds):
    with pytest.raises(ValueError, match="got none for 'empty'"):
        compare({"one": seeds[0], "empty": []})


def test_many_coordinates_are_what_the_text_says():
    assert sum(tensor.watched for tensor in train(0, steps=3).tensors) == 210 >= MANY
