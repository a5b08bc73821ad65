"""The suite: real torch optimizers on problems whose answer is known."""

import io
import json
import math
import signal
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stepscope import Monitor
from stepscope.diagnostics.drift import HarmDecision
from stepscope.synthetic.arrivals import Cyclic
from stepscope.synthetic.cases import PROBLEMS, Outcome
from stepscope.synthetic.problem import Problem
from stepscope.synthetic.score import COLUMNS
from stepscope.synthetic.suite import (
    SuiteResult,
    SuiteRow,
    assert_converges,
    optimizer_from_spec,
    outcome,
    run_suite,
)
from stepscope.synthetic.traits import measure, trial
from stepscope.synthetic.world import World, merge, one_thread, play, select

CASES = {case.name: case for case in PROBLEMS}
KINDS = {"distance", "tolerance", "regret", "rho", "start", "seconds"}


def adam(**settings):
    return lambda params: torch.optim.Adam(params, **settings)


class Lookback(torch.optim.Optimizer):
    """Divides by the root of a second moment whose bias correction is 1 − β2^(t − delay): 0/0 at t = delay."""

    def __init__(self, params, lr=1e-3, beta2=0.9, delay=9):
        super().__init__(params, {"lr": lr, "beta2": beta2, "delay": delay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                state.setdefault("v", torch.zeros_like(p))
                state["t"] = state.get("t", 0) + 1
                late = state["t"] - group["delay"]
                if late >= 0:
                    state["v"].mul_(group["beta2"])
                    if late > 0:
                        state["v"].add_((1 - group["beta2"]) * p.grad**2)
                    p.sub_(group["lr"] * p.grad / (state["v"] / (1 - group["beta2"] ** late)).sqrt())


class Coupled(torch.optim.Optimizer):
    """Normalises the gradient by its norm over all tensors: coordinates know of each other."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        given = [(g, p) for g in self.param_groups for p in g["params"] if p.grad is not None]
        norm = torch.sqrt(sum((p.grad**2).sum() for _, p in given))
        for group, p in given:
            p.sub_(group["lr"] * p.grad / norm if norm > 0 else 0.0)


class Fussy(torch.optim.SGD):
    """Raises at its fifth step when a gradient is large."""

    def step(self, closure=None):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 5 and any(p.grad.abs().max() > 50 for g in self.param_groups for p in g["params"]):
            raise RuntimeError("too large\nfor me")
        return super().step(closure)


# --- theorems ----------------------------------------------------------------------------------------------


def test_figure_1_ends_in_the_cycle_of_half_a_step():
    """Bock and Weiß: |x| = α(1−β1)/(2(1+β1)), which is α/2 without momentum."""
    (row,) = run_suite(adam(betas=(0.0, 0.9), eps=0.0), ["chen figure 1"], steps=2_000).rows
    assert row.distance == pytest.approx(0.005, rel=1e-6)
    assert (row.outcome, row.expected, row.agrees) == (Outcome.SHORT, Outcome.SHORT, True)


def test_adam_loses_theorem_1_and_amsgrad_wins_it():
    loses = run_suite(adam(betas=(0.0, 0.1)), ["reddi theorem 1"], steps=4_000)
    wins = run_suite(adam(betas=(0.0, 0.1), amsgrad=True), ["reddi theorem 1"], steps=4_000)
    assert loses.rows[0].outcome is Outcome.WRONG
    assert str(loses.rows[0].verdict) == "biased"
    assert loses.rows[0].rho == pytest.approx(-0.98, abs=0.02)
    # Regret per period at x = 1: 3 − 2 = 1, at x* = −1 it is −1; so 2/3 a step once it is there.
    assert loses.rows[0].regret == pytest.approx(2 / 3, rel=0.05)
    assert (loses.score, loses.exit_code) == (0.0, 1)
    assert wins.rows[0].outcome is Outcome.SOLVED
    assert str(wins.rows[0].verdict) == "certified"
    assert (wins.score, wins.exit_code) == (1.0, 0)


# --- twins and invariances ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reddi online", "noisy quadratic", "savarese", "sparse gradients"])
def test_the_suite_plays_like_a_plain_loop(name):
    """One seed, one optimizer, gradients by the problem's own method, projection after each step."""
    case, steps, seed = CASES[name], 300, 3
    problem = case.problem
    x = torch.nn.Parameter(torch.from_numpy(problem.start.copy()))
    optimizer = torch.optim.Adam([x], betas=(0.9, 0.99))
    arrivals, noises = case.generators(seed)
    order = problem.arrival.stream(len(problem.components), arrivals)(steps)
    noise = problem.noise.stream(problem.dim, noises)(steps) if problem.noise else np.zeros((steps, problem.dim))
    regret, distances = 0.0, []
    for t in range(1, steps + 1):
        at = x.detach().numpy().copy()
        component = order[t - 1]
        losses = [
            float(problem.components[component].subs(dict(zip(problem.variables, z, strict=True))))
            for z in (at, problem.optimum)
        ]
        regret += losses[0] - losses[1]
        distances.append(math.dist(at, problem.optimum))
        x.grad = torch.from_numpy(problem.gradient(component, at) + noise[t - 1])
        optimizer.param_groups[0]["lr"] = float(case.rate(np.array([float(t)]))[0])
        optimizer.step()
        with torch.no_grad():
            x.copy_(torch.from_numpy(np.clip(x.numpy(), problem.lower, problem.upper)))
    (row,) = run_suite(adam(betas=(0.9, 0.99)), [name], steps=steps, seeds=[seed]).rows
    assert row.distance == pytest.approx(np.mean(distances[-3:]), rel=1e-9)
    assert row.regret == pytest.approx(regret / steps, rel=1e-9)


def test_a_row_does_not_depend_on_its_company():
    names = ["adopt k=10", "reddi theorem 1", "quadratic in two variables"]
    crowd = run_suite(adam(), names, steps=500, seeds=4)
    for row in crowd.rows:
        (alone,) = run_suite(adam(), [row.problem], steps=500, seeds=4).rows
        for name in ("distance", "regret", "rho"):
            assert getattr(alone, name) == pytest.approx(getattr(row, name), nan_ok=True)
        assert alone.verdict is row.verdict


def test_one_by_one_gives_what_together_gives():
    case = CASES["adopt k=10"]
    traits, seeds = measure(adam()), (0, 1, 2)
    both = World(case, seeds, 400)
    (whole,) = play([both], adam(), traits, 1.0).traces
    singles = [World(case, [seed], 400) for seed in seeds]
    parts = [play([world], adam(), traits, 1.0).traces[0] for world in singles]
    assert np.concatenate([w.x for w in singles]) == pytest.approx(both.x, rel=1e-12)
    merged = merge(parts)
    assert len(merged.tensors) == 3
    for name in ("a", "b", "c_plus"):
        assert merged.total(name) == pytest.approx(whole.total(name), rel=1e-9)
    assert merged.diagnose().harm.rho == pytest.approx(whole.diagnose().harm.rho, rel=1e-6)


def test_select_leaves_the_tensor_as_if_it_had_been_watched_alone():
    def recorded(pick):
        torch.manual_seed(0)
        noise = torch.randn(300, 2, 5, dtype=torch.float64)
        params = [torch.nn.Parameter(torch.zeros(5, dtype=torch.float64)) for _ in range(2)]
        groups = [{"params": [p], "lr": lr} for p, lr in zip(params, (0.1, 0.2), strict=True)]
        optimizer = torch.optim.Adam([groups[i] for i in pick])
        with Monitor(optimizer, coordinates="all", strict=True) as monitor:
            for g in noise:
                for i in pick:
                    params[i].grad = g[i]
                optimizer.step()
        return monitor.trace

    part, alone = select(recorded([0, 1]), [1]), recorded([1])
    assert part.groups["lr"].shape == alone.groups["lr"].shape
    assert np.array_equal(part.groups["lr"], alone.groups["lr"])
    assert np.array_equal(part.values, alone.values, equal_nan=True)
    assert part.tensors[0].group == 0
    assert np.array_equal(part.drift.gram_dg, alone.drift.gram_dg)


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=20),
    st.floats(0.1, 5),
    st.floats(0.01, 0.99),
)
def test_an_outcome_is_monotone_in_the_distances(distances, start, share):
    """Coming nearer never makes it worse."""
    order = [Outcome.SOLVED, Outcome.SHORT, Outcome.WRONG]
    far = outcome(np.array(distances), start, share * start)
    near = outcome(np.array(distances) / 2, start, share * start)
    assert order.index(near) <= order.index(far)


# --- what an optimizer is like -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "elementwise", "proportional", "anneals"),
    [
        (adam(), True, False, False),
        (torch.optim.SGD, True, True, False),
        (torch.optim.Adagrad, True, False, True),
        (torch.optim.RMSprop, True, False, False),
        (Coupled, False, False, False),
        (Lookback, True, False, False),
    ],
    ids=["adam", "sgd", "adagrad", "rmsprop", "coupled", "lookback"],
)
def test_traits_are_measured(factory, elementwise, proportional, anneals):
    traits = measure(factory)
    assert (traits.elementwise, traits.proportional, traits.anneals) == (elementwise, proportional, anneals)


def test_a_trial_is_what_torch_does():
    g = np.random.default_rng(0).standard_normal((20, 3))
    x = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = torch.optim.Adam([x], lr=0.01)
    for row in g:
        x.grad = torch.from_numpy(row.copy())
        optimizer.step()
    assert trial(adam(), [g])[0][-1] == pytest.approx(x.detach().numpy(), rel=1e-14)


# --- what breaks -------------------------------------------------------------------------------------------


def test_nan_is_a_row_that_names_the_step():
    result = run_suite(Lookback, ["reddi theorem 1", "adopt k=10"], steps=50, seeds=3)
    assert [row.outcome for row in result.rows] == [Outcome.BROKEN] * 2
    assert [row.notes[0] for row in result.rows] == ["broken: x is not finite (step 9)"] * 2
    assert [str(row.verdict) for row in result.rows] == ["unstable"] * 2
    assert (result.exit_code, result.score, result.complete) == (1, 0.0, True)
    assert "all problems: broken: x is not finite (step 9)." in str(result)


def test_what_raises_is_found_by_playing_alone():
    result = run_suite(Fussy, ["reddi theorem 1", "chen figure 1", "noisy quadratic"], steps=100)
    broken = {row.problem: [note for note in row.notes if note.startswith("broken")] for row in result.rows}
    assert broken == {
        "reddi theorem 1": [],
        "chen figure 1": ["broken: RuntimeError: too large for me (step 5)"],
        "noisy quadratic": [],
    }
    assert not result.elementwise


def test_an_optimizer_that_never_steps_is_all_broken():
    class Refuses(torch.optim.SGD):
        def step(self, closure=None):
            raise TypeError("closure needed")

    result = run_suite(Refuses, ["reddi theorem 1", "sparse gradients"], steps=10)
    assert [row.notes for row in result.rows] == [("broken: TypeError: closure needed (step 1)",)] * 2
    json.dumps(result.to_dict(), allow_nan=False)


def test_coupled_optimizers_are_played_one_by_one():
    result = run_suite(Coupled, ["reddi theorem 1", "noisy quadratic"], steps=1000)
    assert not result.elementwise
    assert [(row.steps, row.seeds) for row in result.rows] == [(200, 1), (200, 3)]
    assert "optimizer of its own" in str(result)


@pytest.mark.parametrize("factory", [adam(), Coupled], ids=["together", "one by one"])
def test_ctrl_c_leaves_what_there_is(factory):
    """The signal comes half a second after the first optimizer of the suite itself, not of a trial, was made."""
    before, timers = torch.get_num_threads(), []

    def watched(params):
        if params[0].abs().max() > 0 and not timers:  # trials begin at 0, figure 1 and the quadratic elsewhere
            timers.append(threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,)))
            timers[0].start()
        return factory(params)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs are started deaf to it
    try:
        result = run_suite(watched, ["chen figure 1", "quadratic in two variables"], steps=5_000_000)
    finally:
        signal.signal(signal.SIGINT, handler)
    timers[0].join()
    assert not result.complete
    assert "interrupted" in str(result)
    assert len(result.rows) == (2 if result.elementwise else 0)
    assert all("stopped after" in row.notes[0] and 0 < row.steps < 5_000_000 for row in result.rows)
    assert torch.get_num_threads() == before


def test_an_optimizer_that_evaluates_again_plays_like_a_plain_loop():
    """LBFGS asks for a closure and calls it at several points of a step; the twin has its gradients by autograd."""
    bowl = Problem(["x**2 + 2*y**2"], Cyclic([0]), variables="x y", start=(1, 2))
    case = replace(CASES["quadratic in two variables"], build=lambda: bowl)
    traits = measure(torch.optim.LBFGS)
    assert (traits.reevaluates, traits.elementwise) == (True, False)
    world = World(case, [0], 3)
    play([world], torch.optim.LBFGS, traits, 1.0)

    x = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    optimizer = torch.optim.LBFGS([x])

    def closure():
        optimizer.zero_grad()
        loss = x[0] ** 2 + 2 * x[1] ** 2
        loss.backward()
        return loss

    for rate in traits.rate(case, np.array([1.0, 2.0, 3.0])).tolist():
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step(closure)
    assert world.x[0] == pytest.approx(x.detach().numpy(), rel=1e-9)
    assert (world.played, world.broken) == (3, None)
    for other in (adam(), lambda params: Fussy(params, lr=0.1)):
        assert not measure(other).reevaluates


def test_noise_is_the_same_whenever_a_step_evaluates_again():
    """The loss has the slope that is given: f + noise·x."""
    world = World(CASES["noisy quadratic"], [0, 1], 10)
    world.give_gradient()
    first, x, h = world.g.copy(), world.x.copy(), 1e-6
    for seed in (0, 1):
        ends = []
        for sign in (1, -1):
            world.x[:] = x
            world.x[seed] += sign * h
            ends.append(world.evaluate())
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(first[seed, 0], rel=1e-6)
    world.x[:] = x
    world.evaluate()
    assert (world.g == first).all()
    assert world.played == 1


def test_a_lbfgs_row_is_not_broken():
    (row,) = run_suite(torch.optim.LBFGS, ["quadratic in two variables"], steps=500).rows
    assert row.outcome is Outcome.SOLVED
    assert row.steps == 100


def test_threads_are_given_back():
    before = torch.get_num_threads()

    def fail():
        with one_thread():
            assert torch.get_num_threads() == 1
            raise ZeroDivisionError

    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            fail()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# --- what comes out ----------------------------------------------------------------------------------------


def test_the_result_is_json_and_a_table():
    result = run_suite(adam(), ["reddi theorem 1", "chen figure 1"], steps=300, seeds=2, progress=True)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert set(plain) == {"schema", "optimizer", "elementwise", "complete", "score", "exit_code", "seconds", "rows"}
    assert [row["problem"] for row in plain["rows"]] == ["reddi theorem 1", "chen figure 1"]
    assert set(plain["rows"][0]) == {*SuiteRow.__dataclass_fields__, "agrees"}
    assert KINDS <= set(plain["rows"][0])
    text = str(result)
    assert all(row.problem in text for row in result.rows)
    assert max(map(len, text.splitlines())) <= 160
    assert "(300 steps each" in text.splitlines()[0]


@pytest.mark.parametrize("width", [160, 120, 100, 80])
def test_a_narrow_terminal_sees_fewer_columns_and_no_cut_cell(width):
    result = run_suite(adam(), steps=20, seeds=2)
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(result)
    text = capture.get()
    assert "…" not in text
    assert all(row.problem in text and str(row.verdict) in text for row in result.rows)
    assert ("regret" in text.splitlines()[2]) == (width == 160)


def test_what_is_noted_of_several_problems_stands_once():
    notes = [("all fell",), ("all fell", "one rose"), ("all fell",)]
    (row,) = run_suite(adam(), ["chen figure 1"], steps=10).rows
    rows = tuple(replace(row, problem=name, notes=said) for name, said in zip("abc", notes, strict=True))
    assert SuiteResult("Adam", True, rows, True, 0.0).noted() == ["all problems: all fell.", "b: one rose."]


def test_no_rows_have_no_score():
    empty = SuiteResult("Adam", True, (), False, 0.0)
    assert math.isnan(empty.score)
    assert empty.to_dict()["score"] is None
    assert empty.exit_code == 0


def test_assert_converges():
    assert_converges(torch.optim.SGD, ["quadratic in two variables"], steps=2000)
    with pytest.raises(AssertionError, match=r"(?s)reddi theorem 1.*wrong"):
        assert_converges(adam(betas=(0.0, 0.1)), ["reddi theorem 1"], steps=2000)


def test_a_fault_inside_the_monitor_is_told(monkeypatch):
    """The run goes on without it; the table must not pass silence off as `undecided`."""

    def fails(*_):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(Monitor, "_after_step", fails)
    (row,) = run_suite(adam(), ["reddi theorem 1"], steps=300).rows
    assert row.outcome is Outcome.SOLVED
    assert row.notes == ("the monitor failed: ZeroDivisionError: of ours",)


@pytest.mark.parametrize(
    ("interval", "harm", "cell"),
    [
        ((0.9, 1.1), HarmDecision.HARMLESS, "1.00 [0.90, 1.10]"),
        ((-math.inf, math.inf), HarmDecision.HARMFUL, "< 0"),
        ((-math.inf, math.inf), HarmDecision.HARMLESS, "> 0"),
        ((-math.inf, math.inf), HarmDecision.INCONCLUSIVE, "?"),
    ],
)
def test_rho_without_a_bound_shows_its_sign_if_that_is_known(interval, harm, cell):
    (row,) = run_suite(adam(), ["chen figure 1"], steps=10).rows
    row = replace(row, rho=1.0, rho_interval=interval, harm=harm)
    assert COLUMNS["ρ"][1](row) == cell
    assert COLUMNS["ρ"][1](replace(row, stepsize=False)) == "–"


# --- wrong, or merely not there yet ------------------------------------------------------------------------


def test_a_random_problem_is_wrong_only_in_more_seeds_than_chance_explains():
    """Half of the seeds of a walk without drift end farther: P(9 of 9) = 1/512, P(8 of 8) = 1/256."""
    for seeds, farther, expected in (
        (16, 14, Outcome.WRONG),
        (16, 13, Outcome.SHORT),
        (9, 9, Outcome.WRONG),
        (9, 8, Outcome.SHORT),
        (8, 8, Outcome.SHORT),
        (1, 1, Outcome.SHORT),
    ):
        distances = np.where(np.arange(seeds) < farther, 1.5, 0.9)
        assert outcome(distances, 1.0, 0.5) is expected
    assert outcome(np.array([1.5]), 1.0, 0.5, random=False) is Outcome.WRONG


def walker(step):
    """Return an optimizer that knows nothing of gradients: after so many steps all coordinates lie at `step(t)`."""

    class Walker(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 1.0})
            self.t = 0

        @torch.no_grad()
        def step(self, closure=None):
            self.t += 1
            for group in self.param_groups:
                for p in group["params"]:
                    p.fill_(step(self.t))

    return Walker


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda t: 5 - t / 1000, Outcome.SHORT),  # 3.0 at the end, from 4.0 half way
        (lambda t: 3 + t / 1000, Outcome.WRONG),
        (lambda t: 3.0, Outcome.WRONG),
        (lambda t: 3 + math.exp(-t / 100), Outcome.WRONG),  # nearer and nearer, but never back
        (lambda t: 5 - t / 1000 + (1350 < t < 1500), Outcome.WRONG),
    ],
    ids=["back", "away", "stays", "settles", "not always"],
)
def test_who_is_on_the_way_back_is_not_wrong(step, expected):
    (row,) = run_suite(walker(step), ["chen figure 1"], steps=2000).rows
    assert row.outcome is expected
    assert bool([note for note in row.notes if "on the way back" in note]) == (expected is Outcome.SHORT)


class Tied(torch.optim.Optimizer):
    """Goes up or down a straight line, as `way` says; looks at all coordinates to seem not elementwise."""

    def __init__(self, params, way):
        super().__init__(params, {"lr": 1e-3})
        self.way = way

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(self.way * group["lr"] * (1 + p.grad.abs().max()))


def test_seeds_are_added_where_three_look_wrong():
    """The optimum lies at −1, the start at 0: up is wrong in all seeds, down in none."""
    (up,) = run_suite(lambda params: Tied(params, 1.0), ["adopt k=10"], steps=500).rows
    (down,) = run_suite(lambda params: Tied(params, -1.0), ["adopt k=10"], steps=500).rows
    assert (up.seeds, up.outcome) == (9, Outcome.WRONG)
    assert (down.seeds, down.outcome == Outcome.WRONG) == (3, False)
    (asked,) = run_suite(lambda params: Tied(params, 1.0), ["adopt k=10"], steps=500, seeds=3).rows
    assert (asked.seeds, asked.outcome) == (3, Outcome.SHORT)
    assert "tell it from chance" in asked.notes[0]


# --- what comes in -----------------------------------------------------------------------------------------


def test_a_spec_makes_the_optimizer():
    factory = optimizer_from_spec("torch.optim.Adam", ["betas=0.9,0.99", "amsgrad=true", "eps=1e-9"])
    optimizer = factory([torch.nn.Parameter(torch.zeros(2))])
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["betas"] == (0.9, 0.99)
    assert optimizer.defaults["amsgrad"] is True
    assert optimizer.defaults["eps"] == 1e-9


OWN = """
import torch

class Own(torch.optim.Optimizer):
    def __init__(self, params, lr, scale=1.0, **rest):
        super().__init__(params, {"lr": lr, "scale": scale, **rest})
"""


def test_a_spec_finds_modules_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "suite_own_optimizer.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    for name in ("suite_own_optimizer.Own", "suite_own_optimizer:Own", "suite_own_optimizer.py:Own"):
        optimizer = optimizer_from_spec(name, ["scale=0.5"])([torch.nn.Parameter(torch.zeros(1))])
        assert (type(optimizer).__name__, optimizer.defaults["scale"]) == ("Own", 0.5)
    assert sys.path == before
    with pytest.raises(ValueError, match=r"module 'suite_own_optimizer' has no 'Nope'; did you mean .*\.Own\?"):
        optimizer_from_spec("suite_own_optimizer.Nope")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Adam", [], "dotted name"),
        ("torch.optm.Adam", [], "cannot be imported"),
        ("torch.optim.Adem", [], r"did you mean .*torch\.optim\.Adam"),
        ("torch.optim.lr_scheduler", [], "must be a class of torch optimizers, got module"),
        ("torch.optim.Adam", ["betas"], "key=value"),
        ("torch.optim.Adam", ["beta=0.9"], "does not take beta=0.9"),
        ("torch.optim.Adam", ["betas=2,3"], "does not take betas=2,3"),
        ("torch.optim.Adam", ["bets=2,3"], "no setting of this name; did you mean betas"),
        ("torch.optim.Adam", ["betas=0.9"], "`betas` must be 2 numbers between commas, 0.9,0.999 say, got 'betas=0.9'"),
        ("torch.optim.Adam", ["betas=a,b"], "`betas` must be 2 numbers between commas"),
        ("torch.optim.Adam", ["eps=small"], "`eps` must be a number, 1e-08 say, got 'eps=small'"),
        ("torch.optim.Adam", ["amsgrad=yes"], "`amsgrad` must be true or false, got 'amsgrad=yes'"),
        ("torch.optim.Adam", ["lr=0.1"], "`lr` is not among the settings, got 'lr=0.1': each problem has"),
        ("torch.optim:", [], "dotted name"),
    ],
)
def test_a_bad_spec_is_one_sentence(name, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        optimizer_from_spec(name, settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"problems": ["reddi theorem 2"]}, "did you mean reddi theorem 1"),
        ({"problems": ["nope"]}, "got 'nope'; choose from reddi theorem 1, .*, sparse gradients"),
        ({"problems": [3]}, "names or `Case`s, got int"),
        ({"problems": 3}, "names or `Case`s, got int"),
        ({"problems": []}, "at least one"),
        ({"problems": ["adopt k=10", "adopt k=10"]}, "twice"),
        ({"steps": 0}, "`steps` must be a whole number"),
        ({"steps": "1000"}, "`steps` must be a whole number"),
        ({"seeds": 0}, "`seeds` must name"),
        ({"seeds": [-1]}, "`seeds` must name"),
        ({"seeds": 1.5}, "`seeds` must name"),
        ({"lr": math.nan}, "`lr` must be positive"),
        ({"lr": "0.1"}, "`lr` must be positive"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        run_suite(adam(), **arguments)


def test_a_factory_must_make_an_optimizer():
    with pytest.raises(ValueError, match=r"must return a torch\.optim\.Optimizer, got int"):
        run_suite(lambda params: 3)
    with pytest.raises(ValueError, match="must be a function of a list of parameters, got SGD"):
        run_suite(torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1))
