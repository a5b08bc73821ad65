"""Claims: every row of the table holds, and the problems behind them are the papers'."""

import importlib
import math
import subprocess
import sys
from decimal import Decimal, getcontext
from pathlib import Path

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stepscope.synthetic import claims as rows
from stepscope.synthetic import periodic, recent, reddi2018_adamnc, reddi2018_runs, reshuffled, stationary, walls
from stepscope.synthetic.chen2019 import figure1, figure2
from stepscope.synthetic.claims import (
    REACH,
    SEEDS,
    Claim,
    Estimate,
    again,
    check,
    claims,
    flatness,
    mean,
    ratio,
    rho,
    side,
    slopes,
    table,
)
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.reddi2018 import first_wrong, online, period, stochastic, theorem1, theorem2, theorem3
from stepscope.synthetic.shi2021 import ten_quadratics
from stepscope.synthetic.taniguchi2024 import toy
from stepscope.synthetic.zhang2022 import finite_sum
from stepscope.synthetic.zhou2019 import net_factors, shifted

PAPERS = ("reddi2018", "chen2019", "shi2021", "zhang2022", "zhou2019", "taniguchi2024")
"""The others are in test_claims_more.py."""
SLOW = ("zhang2022", "zhou2019", "taniguchi2024")
LONG = {claim.name for claim in (*reddi2018_runs.stated(), *reddi2018_adamnc.stated())}
"""Millions of steps each."""


def every():
    for paper in PAPERS:
        for claim in claims(paper):
            marks = [pytest.mark.slow] if paper in SLOW or claim.name in LONG else []
            yield pytest.param(claim, id=f"{paper}: {claim.name}", marks=marks)


@pytest.mark.parametrize("claim", list(every()))
def test_a_claim_holds(claim):
    seen = check(claim)
    assert seen.agrees, f"predicted {rows.shown(claim)}, observed {rows.written(seen.observed)}: {claim.why}"


def test_names_are_unique_within_a_paper_and_every_paper_is_found():
    assert set(PAPERS) <= set(rows.papers())
    for paper in rows.papers():
        names = [claim.name for claim in claims(paper)]
        assert len(names) == len(set(names))
        assert names
    with pytest.raises(ValueError, match="must be one of"):
        claims("nobody1900")


@pytest.mark.slow
def test_a_problem_costs_no_prediction():
    """The package names no paper's module, and none computes its predictions before they are asked for."""
    code = "import sys, stepscope.synthetic as s; from stepscope import run_suite, simulate; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    papers = {f"stepscope.synthetic.{name}" for names in rows.modules().values() for name in names}
    assert len(papers) > 20
    assert not papers & set(loaded)


EXACT = (
    (periodic, "critical_beta2"),
    (stationary, "stationary_drift"),
    (stationary, "stationary_critical_beta2"),
    (reshuffled, "reshuffled_drift"),
    (walls, "end_at_wall"),
    (walls, "unbiased_distance"),
    (recent, "listed"),
)
"""What makes exact predictions and takes time."""


@pytest.mark.parametrize("module", [name for names in rows.modules().values() for name in names])
def test_the_module_of_a_paper_predicts_when_it_is_asked(module, monkeypatch):
    """Its statements are run once more, with all that predicts out of order."""

    def out_of_order(*_, **__):
        raise AssertionError("computed too early")

    path = Path(rows.__file__).with_name(f"{module}.py")
    namespace = {"__name__": f"stepscope.synthetic.{module}", "__package__": "stepscope.synthetic"}
    importlib.import_module(namespace["__name__"])
    for home, name in EXACT:
        monkeypatch.setattr(home, name, out_of_order)
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    assert callable(namespace["stated"])


def test_a_paper_of_several_modules_is_one_paper():
    parts = rows.modules()["reddi2018"]
    assert parts == ["reddi2018", "reddi2018_adamnc", "reddi2018_runs"]
    names = [claim.name for claim in claims("reddi2018")]
    assert "AdamNC: verdict on the online game" in names
    assert "online: verdict on SGD" in names
    assert [paper[-4:] for paper in rows.papers()] == sorted(paper[-4:] for paper in rows.papers())


def claim_of(predicted, tolerance, observed):
    return Claim("a", "b", "derived", predicted, tolerance, lambda: observed, "c")


@given(st.floats(-10, 10), st.floats(0, 3), st.floats(-20, 20))
def test_a_number_agrees_within_its_tolerance_and_as_the_same_interval(predicted, tolerance, observed):
    low, high = predicted - tolerance, predicted + tolerance
    expected = low <= observed <= high
    assert check(claim_of(predicted, tolerance, observed)).agrees is expected
    assert check(claim_of((low, high), 0, observed)).agrees is expected


@given(st.floats(-10, 10), st.floats(0, 3), st.floats(-20, 20), st.floats(0, 2))
def test_an_estimate_may_lie_off_by_its_standard_errors_more(predicted, tolerance, observed, error):
    low, high = predicted - tolerance, predicted + tolerance
    expected = low - 4 * error <= observed <= high + 4 * error
    tells = predicted == 0 or 4 * error < abs(predicted)
    assert check(claim_of(predicted, tolerance, Estimate(observed, error))).agrees is (expected and tells)
    assert check(claim_of((low, high), 0, Estimate(observed, error))).agrees is expected
    assert not check(claim_of(predicted, tolerance, Estimate(predicted, math.inf))).agrees
    assert not check(claim_of(predicted, tolerance, Estimate(math.nan, error))).agrees


def test_an_error_that_reaches_from_the_prediction_to_zero_tests_nothing():
    assert not check(claim_of(0.38, 0.005, Estimate(0.38, 0.5))).agrees
    assert check(claim_of(0.38, 0.005, Estimate(0.38, 0.09))).agrees
    assert check(claim_of(0.0, 0.005, Estimate(0.38, 0.5))).agrees  # is it zero? not by this many seeds


def test_an_estimate_is_off_by_chance_once_in_860():
    assert 1 / (2 * stats.t.sf(REACH, SEEDS - 1)) == pytest.approx(860, abs=5)


def test_words_nan_and_mixtures():
    assert check(claim_of("biased", 0, "biased")).agrees
    assert not check(claim_of("biased", 0, "certified")).agrees
    assert not check(claim_of("biased", 0, Estimate(1.0, 1.0))).agrees
    assert not check(claim_of(1.0, 5.0, math.nan)).agrees
    assert not check(claim_of((0.0, 1.0), 0, "biased")).agrees
    with pytest.raises(ValueError, match="0 for a word"):
        claim_of("biased", 1.0, "biased")
    text = table([check(claim_of(1.0, 0.5, 3.0)), check(claim_of(1.0, 0, Estimate(1.25, 0.125)))])
    assert "NO" in text.splitlines()[1]
    assert text.splitlines()[2].startswith("yes ")
    assert text.splitlines()[0].split() == ["holds", "predicted", "observed", "seconds", "claim"]
    assert "1.25 (0.1)" in text.splitlines()[2]


def test_a_mean_and_its_error_by_hand():
    found = mean([1.0, 2.0, 6.0])
    assert found.value == pytest.approx(3.0)
    assert found.error == pytest.approx(math.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 2 / 3))
    for wrong in ([1.0], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="two seeds or more"):
            mean(wrong)


@pytest.mark.parametrize("earlier", [1, 2, 5])
def test_the_distance_of_two_medians_has_its_standard_error(earlier):
    """Over 4000 pairs of samples the distances are of the size that `again` states: its mean square to 10 %.

    A χ² of 4000 degrees of freedom differs from its mean by 10 % once in 10^5; 5 % more is allowed for the loss of a
    median in small samples, which is less than π/2.
    """
    rng = np.random.default_rng(3)
    pairs = [(rng.standard_normal(16), rng.standard_normal(earlier)) for _ in range(4000)]
    distances = np.array([np.median(here) - np.median(there) for here, there in pairs])
    stated = np.array([again(here, earlier).error for here, _ in pairs])
    assert 0.8 < np.mean(distances**2) / np.mean(stated**2) < 1.1


def test_readings_of_a_trace_equal_sums_over_every_step():
    trace = simulate(theorem1(), "adam_plain", 5000, "0.5/sqrt(t)", (0.0, 0.1), records=5000)
    c, a = trace.total("c"), trace.total("a")
    first = 500 - 1  # the record of step 500
    assert ratio(trace, "c") == pytest.approx((c[-1] - c[first]) / (a[-1] - a[first]), rel=1e-12)
    made, intended = (trace.scalars[n].last for n in ("descent_made", "descent_intended"))
    assert rho(trace) == pytest.approx((made[-1] - made[first]) / (intended[-1] - intended[first]), rel=1e-12)
    late = (c[4095] - c[2047]) / (a[4095] - a[2047])
    early = (c[255] - c[127]) / (a[255] - a[127])
    assert flatness(trace, "c") == pytest.approx(math.log(late / early) / math.log(16), abs=1e-12)


def test_slopes_are_read_seed_by_seed():
    seeds = (3, 8)
    each = slopes(simulate(stochastic(), "adam_plain", 5000, "0.5/sqrt(t)", (0.0, 0.9), seeds), "c")
    alone = [flatness(simulate(stochastic(), "adam_plain", 5000, "0.5/sqrt(t)", (0.0, 0.9), [s]), "c") for s in seeds]
    assert each == pytest.approx(alone, rel=1e-12)


def test_a_side_is_that_of_all_seeds():
    trace = simulate(toy(10), "sgd", 1000, 0.0, seeds=2, start=0.25)
    assert [side(trace), side(trace, 0.5), side(trace, 0.25)] == ["right", "left", "both"]


def test_theorem_1_with_ten_in_thirty_digits():
    """Critical β2 is 0.0983473, which rounds to 0.0983: bracketed without floating point."""
    getcontext().prec = 30
    g = (10, -1, -1)

    def drift(beta2):
        b = Decimal(beta2)
        v = [(1 - b) / (1 - b**3) * sum(b**j * g[(i - j) % 3] ** 2 for j in range(3)) for i in range(3)]
        return sum(Decimal(gi) / vi.sqrt() for gi, vi in zip(g, v, strict=True))

    assert drift("0.098347") < 0 < drift("0.098348")
    assert drift("0.09835") > 0  # so 0.0984 is no rounding of the root


def objective_is(problem, expected, low, high):
    x = problem.variables[0]
    for at in np.linspace(low, high, 41):
        assert float(problem.objective.subs(x, at)) == pytest.approx(float(sympy.sympify(expected).subs("x", at)))


def test_problems_are_the_papers():
    for problem, expected, optimum in (
        (online(), "10*x/101", -1),
        (stochastic(), "x*(10.1 - 9.9)", -1),
        (theorem1(5), "x", -1),
        (theorem2(10), "x/10", -1),
        (theorem3(9, 0.5), "x/2", -1),
        (toy(50), "x/50*(50 - 49)/1 + 0*x", -1),
    ):
        objective_is(problem, expected, -1, 1)
        assert problem.optimum[0] == optimum
    objective_is(figure2(), "Piecewise((x**2/22, Abs(x) <= 1), ((Abs(x) - 1/2)/11, True))", -3, 3)
    objective_is(figure1(), "Piecewise((100*x**2, Abs(x) <= 10), (2000*Abs(x) - 10000, True))", -20, 20)
    for n in (5, 10, 20):
        objective_is(finite_sum(n), f"Piecewise((x/{n}, x >= -1), (((x + 2)**2/2 - 3/2)/{n}, True))", -4, 2)
        assert finite_sum(n).optimum[0] == pytest.approx(-2)
    for a in (0, 3):
        objective_is(ten_quadratics(a), f"(x**2/10 - {a}**2/9)/10", -4, 4)
        assert ten_quadratics(a).optimum[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("wrong", [lambda: theorem1(2), lambda: theorem2(7), lambda: theorem3(10, 10)])
def test_builders_refuse_what_has_another_optimum(wrong):
    with pytest.raises(ValueError, match="must"):
        wrong()


def test_shifted_stepsizes_are_those_of_a_long_run():
    """AdaShift's rule, run for 40 periods, ends in the closed form."""
    g, n, betas = np.array([7.0, -1.0, -1.0, -2.0, 0.5]), 3, (0.7, 0.8)
    long = np.tile(g, 40)
    v = np.zeros(len(long))
    for t in range(n, len(long)):
        v[t] = betas[1] * v[t - 1] + (1 - betas[1]) * long[t - n] ** 2
    weights = betas[0] ** np.arange(n)
    m = [weights @ long[t - n + 1 : t + 1][::-1] / weights.sum() for t in range(len(long) - 5, len(long))]
    expected_m, expected_e = shifted(g, n, *betas)
    assert m == pytest.approx(expected_m, rel=1e-12)
    assert 1 / np.sqrt(v[-5:]) == pytest.approx(expected_e, rel=1e-9)


@pytest.mark.parametrize(
    ("betas", "turn"),
    [((0.0, 0.9), 8), ((0.9, 0.99), 30), pytest.param((0.9, 0.999), 74, marks=pytest.mark.slow)],
)
def test_where_theorem_2_turns_by_long_sums(betas, turn):
    """The drift at the last right C and the first wrong one, m and v summed over as many periods as they recall."""
    for C, sign in ((turn - 2, 1), (turn, -1)):
        g = period(theorem2(C))
        recalled = math.ceil(40 / (1 - betas[1]) / C) * C
        long = np.tile(g, recalled // C + 1)
        lags = np.arange(recalled)
        drift = 0.0
        for phase in range(C):
            past = long[recalled - C + phase + 1 - np.arange(1, recalled + 1)]
            m = (1 - betas[0]) * float(betas[0] ** lags @ past)
            drift += m / math.sqrt((1 - betas[1]) * float(betas[1] ** lags @ past**2))
        assert drift * sign > 0
    assert first_wrong(betas, most=turn + 20) == turn


def test_the_formulas_remainder_is_of_the_third_order_for_rare_spikes():
    """E v^(−1/2) of shot noise, with and without a spike x more: their ratio is 1 − x/2 up to x³.

    Spikes of size x come at the rate 1/x of v's decay, so the n-th cumulant of v is x^(n−1)/n; the drift is zero where
    the ratio is the common gradient's share, and the formula puts that at x/2 exactly.
    """
    x = sympy.Symbol("x")
    second, third = x / 2, x**2 / 3
    moments = [1, 0, second, third, x**3 / 4 + 3 * second**2]  # central, up to x²

    def root(shift):
        """E (1 + y + shift)^(−1/2) to second order in x."""
        y = sympy.Symbol("y")
        series = sum(sympy.binomial(sympy.Rational(-1, 2), k) * (y + shift) ** k for k in range(5))
        poly = sympy.Poly(sympy.expand(series), y)
        return sum(coefficient * moments[power] for (power,), coefficient in poly.terms())

    ratio = sympy.series(root(x) / root(sympy.Integer(0)), x, 0, 3).removeO()
    assert sympy.expand(ratio - (1 - x / 2)) == 0


def test_net_factors_are_long_sums():
    g = np.array([7.0, -1.0, -1.0, -2.0])
    long = np.tile(g, 400)
    v, e = 0.0, []
    for value in long:
        v = 0.8 * v + 0.2 * value**2
        e.append(1 / math.sqrt(v))
    expected = [sum(0.3 * 0.7**j * e[800 + i + j] for j in range(200)) for i in range(4)]
    assert net_factors(g, 0.7, 0.8) == pytest.approx(expected, rel=1e-12)
