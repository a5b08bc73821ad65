"""What theory expects of an optimizer on the suite's problems, and that the suite's rows agree with it."""

import math

import numpy as np
import pytest
import pytorch_optimizer as po
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope import remedies
from stepscope.synthetic.arrivals import Cyclic, Random
from stepscope.synthetic.cases import PROBLEMS, Outcome
from stepscope.synthetic.frozen import RESOLVED, frozen_drift
from stepscope.synthetic.methods import METHODS, parameters
from stepscope.synthetic.noise import Gaussian
from stepscope.synthetic.problem import Problem
from stepscope.synthetic.score import SuiteRow
from stepscope.synthetic.suite import run_suite
from stepscope.synthetic.traits import LATE, Traits, measure

CASES = {case.name: case for case in PROBLEMS}


def adam(**settings):
    return lambda params: torch.optim.Adam(params, **settings)


def ends(name, beta1, beta2, method="adam", **hyper):
    return CASES[name].drifts(method, {"beta1": beta1, "beta2": beta2} | hyper)


# --- the drift at a frozen point ---------------------------------------------------------------------------


def test_the_frozen_drift_of_theorem_1_is_the_exact_one():
    """The periodic second moment in closed form (docs/theory.md 2.5), C = 3, and the root β2 = 0.4723."""

    def exact(beta2, gradients=(3.0, -1.0, -1.0)):
        d = len(gradients)
        v = [
            sum((1 - beta2) * beta2**j * gradients[(i - j) % d] ** 2 for j in range(d)) / (1 - beta2**d)
            for i in range(d)
        ]
        return sum(g / math.sqrt(w) for g, w in zip(gradients, v, strict=True)) / d

    problem = CASES["reddi theorem 1"].problem
    for beta2 in (0.1, 0.5, 0.9):
        mean, error = frozen_drift(problem, 0.0, "adam_plain", {"beta1": 0.0, "beta2": beta2})
        assert mean == pytest.approx(exact(beta2), rel=1e-9)
        assert error < 1e-8
    assert ends("reddi theorem 1", 0.0, 0.4722) is Outcome.WRONG
    assert ends("reddi theorem 1", 0.0, 0.4724) is Outcome.SOLVED


@pytest.mark.parametrize(
    ("name", "betas", "expected"),
    [
        ("reddi online", (0.9, 0.99951), Outcome.WRONG),
        ("reddi online", (0.9, 0.99952), Outcome.SOLVED),
        ("reddi stochastic", (0.0, 0.99), Outcome.WRONG),
        ("chen figure 2", (0.0, 0.97), Outcome.WRONG),
        ("chen figure 2", (0.0, 0.99), Outcome.SOLVED),
        ("adopt k=10", (0.0, 0.9), Outcome.WRONG),
        ("adopt k=10", (0.0, 0.99), Outcome.SOLVED),
        ("adopt k=50", (0.0, 0.99), Outcome.WRONG),
        ("zhang n=10", (0.0, 0.9), Outcome.WRONG),
        ("zhang n=10", (0.9, 0.99), Outcome.SOLVED),
        ("shi a=0", (0.0, 0.9), Outcome.WRONG),
        ("shi a=0", (0.0, 0.99), Outcome.SOLVED),
        ("savarese", (0.0, 0.99), Outcome.WRONG),
    ],
)
def test_published_roots_of_adams_drift(name, betas, expected):
    """Published critical β2, and those of docs/theory.md 2.5, 4.4 and rows R4 to R8."""
    assert ends(name, *betas) is expected


@pytest.mark.parametrize("method", ["adopt", "adashift"])
@pytest.mark.parametrize("name", [case.name for case in PROBLEMS if case.nature.value == "drift"])
def test_methods_with_an_old_second_moment_are_unbiased(name, method):
    """ADOPT and AdaShift divide by a v that does not know g_t: their papers' claim, on every case, at the defaults."""
    defaults = METHODS[method].defaults
    assert ends(name, defaults["beta1"], defaults["beta2"], method) is Outcome.SOLVED


def test_adabelief_is_biased_where_adam_is_and_yogi_is_not():
    """Yogi's v climbs to the largest g² and forgets it by (1−β2)·g² of the small ones: 1000 times as slow as Adam's."""
    assert ends("reddi online", 0.9, 0.999) is Outcome.WRONG
    assert ends("reddi online", 0.9, 0.999, "adabelief") is Outcome.WRONG
    assert ends("reddi online", 0.9, 0.999, "yogi") is Outcome.SOLVED


@settings(max_examples=25)  # the first example compiles
@given(st.lists(st.sampled_from([-3.0, -1.0, 0.5, 2.0]), min_size=1, max_size=6), st.floats(0.0, 0.9))
def test_momentum_leaves_the_mean_of_any_cycle(cycle, beta1):
    """m averages with weights that sum to one, so the mean step at α = 1 is the mean gradient."""
    x = sympy.Symbol("x")
    problem = Problem([g * x for g in cycle], Cyclic(range(len(cycle))), domain=(-1, 1), variables=x)
    mean, error = frozen_drift(problem, 0.0, "momentum", {"beta1": beta1, "dampening": beta1})
    assert mean == pytest.approx(np.mean(cycle), abs=max(RESOLVED * error, 1e-12))


def test_the_frozen_drift_equals_a_plain_loop_over_the_rule():
    """Twin: the rule's Python function, one step at a time, from the same arrivals and noise; five steps and more."""
    x = sympy.Symbol("x")
    problem = Problem([3 * x, -x], Random((0.4, 0.6)), domain=(-1, 1), noise=Gaussian(0.5))
    hyper = {"beta1": 0.5, "beta2": 0.5}
    mean, _ = frozen_drift(problem, 0.0, "adam", hyper, seed=3)
    rule, p = METHODS["adam"], parameters(METHODS["adam"], None, **hyper)
    arrivals, noises = (np.random.default_rng([3, which]) for which in (0, 1))
    burn, steps = 60, 200_000  # 30 memories of two steps; 20 batches of 10 000
    g = np.array([3.0, -1.0])[problem.arrival.stream(2, arrivals)(burn + steps)]
    g = g + problem.noise.stream(1, noises)(burn + steps)[:, 0]
    s, e, dx, total = np.zeros((rule.rows(p), 1)), np.zeros(1), np.zeros(1), 0.0
    for t in range(1, burn + steps + 1):
        rule.rule(t, 1.0, g[t - 1 : t], s, p, e, dx)
        total += dx[0] * (t > burn)
    assert mean == pytest.approx(-total / steps, rel=1e-9)


def test_noise_alone_has_no_sign():
    """No drift: an unresolved mean, at the most batches; by chance one in a thousand, for this seed it is not."""
    x = sympy.Symbol("x")
    problem = Problem([0 * x], Cyclic((0,)), variables=x, domain=(-1, 1), noise=Gaussian(1.0))
    mean, error = frozen_drift(problem, 0.0, "adam", {"beta1": 0.0, "beta2": 0.9})
    assert abs(mean) <= RESOLVED * error


# --- what a class declares ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "method"),
    [
        (adam(), "adam"),
        (adam(amsgrad=True), "amsgrad_torch"),
        (adam(weight_decay=0.1), None),
        (adam(maximize=True), None),
        (torch.optim.AdamW, None),
        (torch.optim.SGD, "sgd"),
        (torch.optim.Adagrad, "adagrad"),
        (lambda p: torch.optim.RMSprop(p, alpha=0.9), "rmsprop"),
        (lambda p: torch.optim.RMSprop(p, momentum=0.9), None),
        (lambda p: torch.optim.RMSprop(p, centered=True), None),
        (torch.optim.Rprop, None),
        (po.AdaBelief, "adabelief"),
        (lambda p: po.AdaBelief(p, rectify=True), None),
        (lambda p: po.Yogi(p, maximize=True), None),
        (po.Yogi, "yogi"),
        (po.ADOPT, "adopt"),
        (lambda p: po.ADOPT(p, clip_lambda=lambda step: 1.0), None),
        (po.AdaShift, "adashift"),
        (po.Adai, "adai"),
        (lambda p: po.Adai(p, dampening=0.5), None),
        (po.Lamb, None),
        (remedies.AMSGrad, "amsgrad"),
        (remedies.AdaFom, "adafom"),
        (remedies.AdaShift, "adashift"),
        (remedies.ADOPT, "adopt"),
        (lambda p: remedies.ADOPT(p, clip=None), None),
        (remedies.Adai, "adai"),
        (lambda p: remedies.Adai(p, dampening=0.5), None),
        (lambda p: remedies.AMSGrad(p, weight_decay=0.1), None),
    ],
)
def test_theory_has_a_word_for_what_it_knows(factory, method):
    assert measure(factory).method == method


def test_a_declared_method_takes_the_hyper_parameters_of_the_group():
    traits = measure(lambda p: po.AdaShift(p, betas=(0.8, 0.99), keep_num=7, eps=1e-4))
    assert traits.hyper == {"beta1": 0.8, "beta2": 0.99, "n": 7.0, "eps": 1e-4}
    traits = measure(lambda p: po.Yogi(p, betas=(0.8, 0.99), initial_accumulator=0.5))
    assert traits.hyper == {"beta1": 0.8, "beta2": 0.99, "initial": 0.5, "eps": 1e-3}
    traits = measure(lambda p: po.Adai(p, betas=(0.2, 0.9)))
    assert traits.hyper == {"beta0": 0.2, "beta2": 0.9, "eps": 1e-3}
    traits = measure(lambda p: remedies.AdaShift(p, betas=(0.8, 0.99), window=7, eps=1e-4))
    assert traits.hyper == {"beta1": 0.8, "beta2": 0.99, "n": 7.0, "eps": 1e-4}
    traits = measure(lambda p: remedies.Adai(p, beta0=0.2, beta2=0.9))
    assert traits.hyper == {"beta0": 0.2, "beta2": 0.9, "eps": 1e-3}
    assert measure(lambda p: remedies.AdaFom(p, beta1=0.8)).hyper == {"beta1": 0.8, "eps": 1e-8}
    traits = measure(adam(betas=(0.8, 0.99)))
    assert traits.hyper == {"beta1": 0.8, "beta2": 0.99, "eps": 1e-8}


def expectations(method, hyper=None):
    traits = Traits("own", method, hyper or {}, True, False, False)
    return {case.name: traits.expects(case) for case in PROBLEMS if case.nature.value != "drift"}


def test_beyond_the_drift_theory_speaks_of_few():
    known = {
        "chen figure 1": Outcome.SHORT,
        "noisy quadratic": Outcome.SOLVED,
        "quadratic in two variables": Outcome.SOLVED,
        "sparse gradients": Outcome.SOLVED,
    }
    assert expectations("adam") == known
    assert expectations("sgd") == known | {"chen figure 1": Outcome.SOLVED}
    assert set(expectations("yogi").values()) == set(expectations(None).values()) == {None}


@pytest.mark.parametrize("case", PROBLEMS, ids=lambda case: case.name)
def test_an_optimizer_that_anneals_steps_as_the_law_does_late(case):
    """Adagrad divides by √t·rms(g): lr/√t must be the law, or stay what it is where the law is constant."""
    anneals = Traits("own", None, {}, True, False, True)
    t = np.array([1.0, 10.0, LATE])
    rate = anneals.rate(case, t)
    assert (rate == rate[0]).all()
    if case.law == "0.01":
        assert rate[0] == 0.01
    else:
        assert rate[-1] / math.sqrt(LATE) == pytest.approx(float(case.rate(t)[-1]), rel=1e-12)


# --- agreement ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "found", "agrees"),
    [
        (None, Outcome.WRONG, None),
        (Outcome.SOLVED, Outcome.SOLVED, True),
        (Outcome.SOLVED, Outcome.SHORT, None),
        (Outcome.SOLVED, Outcome.WRONG, False),
        (Outcome.SOLVED, Outcome.BROKEN, False),
        (Outcome.WRONG, Outcome.SOLVED, False),
        (Outcome.WRONG, Outcome.SHORT, None),
        (Outcome.SHORT, Outcome.SHORT, True),
        (Outcome.SHORT, Outcome.SOLVED, None),
        (Outcome.SHORT, Outcome.WRONG, False),
    ],
)
def test_theory_is_refuted_by_the_other_end_alone(expected, found, agrees):
    empty = dict.fromkeys(SuiteRow.__dataclass_fields__)
    assert SuiteRow(**empty | {"expected": expected, "outcome": found}).agrees is agrees


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factory", "steps"),
    [
        (adam(betas=(0.9, 0.99)), 100_000),
        (adam(betas=(0.0, 0.9)), 100_000),
        (adam(betas=(0.9, 0.99), amsgrad=True), 100_000),
        (torch.optim.SGD, 100_000),
        (torch.optim.Adagrad, 100_000),
        (po.AdaBelief, 20_000),
        (po.Yogi, 20_000),
    ],
    ids=["adam .9 .99", "adam 0 .9", "amsgrad", "sgd", "adagrad", "adabelief", "yogi"],
)
def test_the_whole_suite_agrees_with_theory(factory, steps):
    """No row contradicts theory, whatever the class."""
    result = run_suite(factory, steps=steps)
    assert len(result.rows) == len(PROBLEMS)
    assert any(row.agrees for row in result.rows)
    assert not [row.problem for row in result.rows if row.agrees is False], str(result)
