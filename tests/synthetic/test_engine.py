"""The compiled loop is the plain loop, and a simulated run is judged like a recorded one."""

import math
import subprocess
import sys

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope import Monitor, Trace
from stepscope.diagnostics.trace import SUMS
from stepscope.synthetic import ONLINE, engine
from stepscope.synthetic.arrivals import Cyclic, Random, Shuffled
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.methods import METHODS, Method, method, parameters
from stepscope.synthetic.named import NAMED
from stepscope.synthetic.noise import Gaussian
from stepscope.synthetic.problem import Problem
from stepscope.synthetic.reference import reference

x, y = sympy.symbols("x y")
GAME = Problem([1010 * x, -10 * x], Cyclic([0] + [1] * 100), domain=(-1, 1), start=0)
PROBLEMS = {
    "cyclic, box": GAME,
    "random": Problem([x**2, (x - 1) ** 2 / 2, -x / 3], Random((0.5, 0.2, 0.3)), start=2.0),
    "shuffled, two variables, noise": Problem(
        [(x - 1) ** 2 + x * y / 2, (y + 2) ** 2], Shuffled(), variables=(x, y), noise=Gaussian(0.3), domain=(-3, 3)
    ),
}


TWINS = [
    ("cyclic, box", "adam"),
    ("cyclic, box", "amsgrad"),
    ("random", "adopt"),
    ("shuffled, two variables, noise", "adam"),
    ("shuffled, two variables, noise", "adashift"),
]


@pytest.mark.parametrize(("world", "name"), TWINS)
def test_the_compiled_loop_equals_the_plain_one(world, name):
    """Twin. Iterates agree to the rounding of a thousand contractive steps, sums to that of their terms."""
    problem, rule, steps, lr = PROBLEMS[world], method(name), 700, "0.1/sqrt(t)"
    p = parameters(rule)
    trace = simulate(problem, name, steps, lr, seeds=[3])
    expected, sums = reference(problem, rule, p, steps, lr, seed=3)
    np.testing.assert_allclose(trace.x[0], expected, rtol=1e-9, atol=1e-12)
    for column in ("a", "b", "c", "c_plus", "e2", "delta2", "g2", "rising"):
        assert trace.total(column)[-1] == pytest.approx(sums[column], rel=1e-8, abs=1e-12), column
    for column in ("descent_made", "descent_intended"):
        assert trace.scalars[column].last[-1] == pytest.approx(sums[column], rel=1e-7, abs=1e-10), column


@given(chunk=st.integers(1, 400), records=st.integers(1, 300))
@settings(max_examples=15)
def test_neither_chunks_nor_records_change_a_run(chunk, records):
    """Invariance: iterates to the last bit, sums to the rounding of their order."""
    problem = PROBLEMS["shuffled, two variables, noise"]
    whole = simulate(problem, "adam", 700, 0.01)
    before = engine.CHUNK
    engine.CHUNK = chunk
    try:
        cut = simulate(problem, "adam", 700, 0.01, records=records)
    finally:
        engine.CHUNK = before
    assert (cut.x == whole.x).all()
    np.testing.assert_allclose(cut.values[-1, :, : len(SUMS)], whole.values[-1, :, : len(SUMS)], rtol=1e-12)


def test_seeds_are_runs_of_their_own():
    problem = PROBLEMS["random"]
    together = simulate(problem, "adam", 500, 0.01, seeds=4, jobs=2)
    alone = simulate(problem, "adam", 500, 0.01, seeds=[2])
    assert (together.x[2] == alone.x[0]).all()
    assert len(set(together.x[:, 0].tolist())) == 4
    assert [tensor.name for tensor in together.tensors] == ["seed 0", "seed 1", "seed 2", "seed 3"]


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam_plain", "demon_adam"])
def test_a_constant_gradient_is_descended_as_intended(name):
    """ρ of the second half of a run is 1, whatever m's weights add up to; Demon's lags by 0.15 % at T = 4000."""
    trace = simulate(Problem([x], start=0.0), name, 4000, 0.1)
    row = int(np.searchsorted(trace.steps, 2000))
    made, intended = (np.diff(trace.scalars[f"descent_{n}"].last[[row, -1]]) for n in ("made", "intended"))
    assert made / intended == pytest.approx(1.0, abs=3e-3)


def test_a_recorded_run_of_torch_is_the_same_run():
    """Monitor on torch.optim.Adam and simulate("adam") see the same stepsizes, sums and verdict on Reddi's game."""
    steps = 8000
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.Adam([p], lr=0.5, betas=(0.9, 0.99))
    with Monitor(optimizer, coordinates="all", strict=True) as monitor:
        for t in range(1, steps + 1):
            optimizer.param_groups[0]["lr"] = 0.5 / t**0.5
            p.grad = torch.full_like(p, 1010.0 if t % 101 == 1 else -10.0)
            optimizer.step()
            p.data.clamp_(-1, 1)
        recorded = monitor.trace
    simulated = simulate(GAME, "adam", steps, "0.5/sqrt(t)", (0.9, 0.99))
    assert simulated.x[0, 0] == pytest.approx(p.item(), abs=1e-9)
    for name in ("a", "b", "c", "c_plus", "e2", "delta2", "g2", "active", "rising", "compared", "steps"):
        assert simulated.total(name)[-1] == pytest.approx(recorded.total(name)[-1], rel=1e-9), name
    mine, theirs = simulated.diagnose(), recorded.diagnose()
    assert mine.verdict == theirs.verdict
    assert mine.harm.z == pytest.approx(theirs.harm.z, rel=1e-3)
    assert (mine.harm.first_step, mine.harm.last_step) == (theirs.harm.first_step, theirs.harm.last_step)


def test_the_trace_survives_the_disk(tmp_path):
    trace = simulate(GAME, "adam", 2000, "0.5/sqrt(t)", (0.9, 0.99), seeds=2)
    trace.save(tmp_path / "run")
    loaded = Trace.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.x, trace.x)
    assert str(loaded.diagnose()) == str(trace.diagnose())


def test_blocked_sums_do_not_drift():
    """Σ 0.1 over ten million steps, added one by one, is off by 1.6e-4; here only the last digits of the sum may be."""
    trace = simulate(Problem([x**2 / 2], start=1.0), "sgd", 10_000_000, 0.1)
    assert trace.total("a")[-1] == pytest.approx(1e6, rel=1e-12)


@pytest.mark.slow
def test_every_method_plays_and_stays_finite_where_there_is_nothing_to_do():
    """A problem at its optimum, gradient zero throughout: nothing moves and nothing is NaN."""
    problem = Problem([x**2], start=0.0)
    for name in METHODS:
        trace = simulate(problem, name, 50, 0.1)
        assert trace.x[0, 0] == 0.0, name
        assert trace.total("nonfinite")[-1] == 0, name


def test_a_diverging_run_is_told():
    trace = simulate(Problem([x**2], start=1.0), "sgd", 3000, 1.5)
    assert not np.isfinite(trace.x).all()
    assert trace.diagnose().verdict == "unstable"
    loss = trace.scalars["loss"]
    finite = np.isfinite(loss.last)
    assert loss.count[-1] == finite.sum() < len(finite)
    assert not np.isfinite(loss.means()[~finite]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "adm"}, "did you mean"),
        ({"lr": "0.1/k"}, "expression in t and T alone"),
        ({"lr": "0.1 +"}, "expression in t and T"),
        ({"lr": -0.1}, "not negative"),
        ({"steps": 0}, "at least 1"),
        ({"seeds": 0}, "at least one run"),
        ({"start": 7.0}, "must lie in the domain"),
        ({"epsilon": 1e-3}, "has no hyper-parameter"),
    ],
)
def test_bad_input_is_told_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate(GAME, **({"steps": 10} | arguments))


@pytest.mark.slow
def test_a_second_process_starts_from_the_cache(tmp_path, monkeypatch):
    code = (
        "import sympy, stepscope.synthetic.engine as e\n"
        "from stepscope.synthetic.problem import Problem\n"
        "from stepscope.synthetic.methods import METHODS\n"
        "problem = Problem([sympy.Symbol('x') ** 2], start=1.0)\n"
        "e.simulate(problem, 'adam', 100)\n"
        "loop = e.compiled_loop(problem.source, METHODS['adam'].rule)\n"
        "print(sum(loop.stats.cache_hits.values()))\n"
    )
    monkeypatch.setenv("STEPSCOPE_CACHE", str(tmp_path))
    hits = [
        int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(2)
    ]
    assert hits == [0, 1]


# what a caller may write


def test_a_problem_may_be_named():
    """A name that the command line lists is the problem that it builds."""
    by_name = simulate("theorem1", "adam_plain", 300, "0.5/sqrt(t)", (0.0, 0.1))
    built = simulate(NAMED["theorem1"].build(), "adam_plain", 300, "0.5/sqrt(t)", (0.0, 0.1))
    assert (by_name.path == built.path).all()


@pytest.mark.parametrize("steps", [40.0, np.int64(40), np.float64(40)])
def test_counts_may_be_written_as_floats(steps):
    trace = simulate(GAME, "adam", steps, seeds=np.int64(2), records=8.0)
    assert trace.steps[-1] == 40
    assert trace.x.shape == (2, 1)


@pytest.mark.parametrize("assumptions", [{}, {"real": True}, {"positive": True}, {"integer": True}])
def test_symbols_of_a_schedule_are_known_by_their_names(assumptions):
    t, last = (sympy.Symbol(name, **assumptions) for name in "tT")
    steps = np.arange(1.0, 101.0)
    np.testing.assert_allclose(engine.schedule(1 / sympy.sqrt(t), 100)(steps), steps**-0.5, rtol=1e-15)
    cosine = engine.schedule((1 + sympy.cos(sympy.pi * t / last)) / 20, 100)
    np.testing.assert_allclose(cosine(steps), (1 + np.cos(np.pi * steps / 100)) / 20, atol=1e-16)


SENTENCES = {
    "a list for a problem": ({"problem": ["x**2"]}, "`problem` must be a Problem.* type list"),
    "the game of torch": ({"problem": ONLINE}, "type OnlineGame.* 'online'"),
    "an unknown problem": ({"problem": "onlin"}, "choose from online"),
    "no problem": ({"problem": Problem}, "the class Problem"),
    "a class of torch": ({"method": torch.optim.Adam}, "`method` must be .*adam.*the class Adam.*run_suite"),
    "an optimizer": (
        {"method": torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)},
        "`method` must be .*type SGD.*run_suite",
    ),
    "a rule without a file": (
        {"method": Method("mine", lambda *_: None, {}, 0, "here", "e = α")},
        "a function at the top of a file, got <lambda>",
    ),
    "no method": ({"method": None}, "`method` must be .*NoneType"),
    "one beta": ({"betas": 0.9}, r"`betas` must be one pair \(beta1, beta2\).*got 0.9"),
    "three betas": ({"betas": (0.9, 0.9, 0.9)}, "`betas` must be one pair"),
    "words for betas": ({"betas": "ab"}, "`betas` must be one pair"),
    "a word for a beta": ({"betas": (0.9, "b")}, r"`beta2` must be in \[0, 1\), got 'b'"),
    "nothing for eps": ({"eps": None}, "`eps` must be a number from 0 up, got None"),
    "two eps": ({"eps": (1e-8, 1e-8)}, "`eps` must be a number"),
    "half a step": ({"steps": 10.5}, "`steps` must be a whole number, at least 1, got 10.5"),
    "a word of steps": ({"steps": "1000"}, "`steps` must be a whole number"),
    "endless": ({"steps": math.inf}, "`steps` must be a whole number"),
    "true": ({"steps": True}, "`steps` must be a whole number"),
    "a word of records": ({"records": "all"}, "`records` must be a whole number"),
    "a word of jobs": ({"jobs": "many"}, "`jobs` must be a whole number"),
    "half a seed": ({"seeds": [0.5]}, "`seeds` must name at least one run"),
    "a negative seed": ({"seeds": [0, -1]}, "`seeds` must name at least one run"),
    "seeds without a number": ({"seeds": None}, "`seeds` must name at least one run"),
    "a word for a start": ({"start": "zero"}, "`start` must be a number or 1 of them, got 'zero'"),
    "too many starts": ({"start": [0, 0]}, r"`start` must be a number or 1 of them, got \[0, 0\]"),
    "no start": ({"start": math.nan}, "`start` must lie in the domain"),
    "a list for lr": ({"lr": [0.1]}, "`lr` must be a number or an expression in t and T"),
    "a function for lr": ({"lr": lambda t: 0.1}, "`lr` must be a number or an expression in t and T"),
    "a condition for lr": ({"lr": "t < 3"}, "`lr` must be a number or an expression in t and T"),
    "an imaginary lr": ({"lr": "I*t"}, "`lr` must be finite and not negative"),
    "an lr that is real later": ({"lr": "log(t - 5)"}, "`lr` must be finite and not negative"),
    "an lr with a pole": ({"lr": "1/(t - 5)**2"}, r"`lr` must be finite and not negative.*is inf at t = 5"),
    "an lr that dips": ({"lr": "0.1 + 0.2*cos(t/2)"}, r"`lr` must be finite and not negative.*at t = 5"),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_what_cannot_be_played_is_told_in_one_sentence(case):
    arguments, message = SENTENCES[case]
    with pytest.raises(ValueError, match=message) as told:
        simulate(**({"problem": GAME, "steps": 10} | arguments))
    assert "\n" not in str(told.value)
