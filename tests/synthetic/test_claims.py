"""Claims: every row of the table holds, and the problems behind them are the papers'."""

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from stepscope.synthetic import claims as rows
from stepscope.synthetic.chen2019 import figure1, figure2
from stepscope.synthetic.claims import Claim, check, claims, flatness, ratio, rho, table
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.reddi2018 import online, stochastic, theorem1, theorem2, theorem3
from stepscope.synthetic.shi2021 import ten_quadratics
from stepscope.synthetic.taniguchi2024 import toy
from stepscope.synthetic.zhang2022 import finite_sum
from stepscope.synthetic.zhou2019 import net_factors

PAPERS = ("reddi2018", "chen2019", "zhou2019", "taniguchi2024", "zhang2022", "shi2021")
SLOW = ("taniguchi2024",)


def every():
    for paper in PAPERS:
        for claim in claims(paper):
            marks = [pytest.mark.slow] if claim.slow or paper in SLOW else []
            yield pytest.param(claim, id=f"{paper}: {claim.name}", marks=marks)


@pytest.mark.parametrize("claim", list(every()))
def test_a_claim_holds(claim):
    seen = check(claim)
    assert seen.agrees, f"predicted {rows.shown(claim)}, observed {rows.written(seen.observed)}: {claim.why}"


def test_names_are_unique_within_a_paper_and_every_paper_is_found():
    assert set(PAPERS) <= set(rows.papers())
    for paper in PAPERS:
        names = [claim.name for claim in claims(paper)]
        assert len(names) == len(set(names))
    with pytest.raises(ValueError, match="must be one of"):
        claims("nobody1900")


def claim_of(predicted, tolerance, observed):
    return Claim("a", "b", "derived", predicted, tolerance, lambda: observed, "c")


@given(st.floats(-10, 10), st.floats(0, 3), st.floats(-20, 20))
def test_a_number_agrees_within_its_tolerance_and_as_the_same_interval(predicted, tolerance, observed):
    low, high = predicted - tolerance, predicted + tolerance
    expected = low <= observed <= high
    assert check(claim_of(predicted, tolerance, observed)).agrees is expected
    assert check(claim_of((low, high), 0, observed)).agrees is expected


def test_words_nan_and_mixtures():
    assert check(claim_of("biased", 0, "biased")).agrees
    assert not check(claim_of("biased", 0, "certified")).agrees
    assert not check(claim_of(1.0, 5.0, math.nan)).agrees
    assert not check(claim_of((0.0, 1.0), 0, "biased")).agrees
    with pytest.raises(ValueError, match="0 for a word"):
        claim_of("biased", 1.0, "biased")
    text = table([check(claim_of(1.0, 0.5, 3.0)), check(claim_of("biased", 0, "biased"))])
    assert "NO" in text.splitlines()[1]
    assert text.splitlines()[2].startswith("ok")


def test_readings_of_a_trace_equal_sums_over_every_step():
    trace = simulate(theorem1(), "adam_plain", 4096, "0.5/sqrt(t)", (0.0, 0.1), records=4096)
    c, a = trace.total("c"), trace.total("a")
    first = math.ceil(0.1 * 4096) - 1  # the record of step 410
    assert ratio(trace, "c") == pytest.approx((c[-1] - c[first]) / (a[-1] - a[first]), rel=1e-12)
    made, intended = (trace.scalars[n].last for n in ("descent_made", "descent_intended"))
    assert rho(trace) == pytest.approx((made[-1] - made[first]) / (intended[-1] - intended[first]), rel=1e-12)
    late = (c[4095] - c[2047]) / (a[4095] - a[2047])
    early = (c[255] - c[127]) / (a[255] - a[127])
    assert flatness(trace, "c") == pytest.approx(math.log(late / early) / math.log(16), abs=1e-12)


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


def test_net_factors_are_long_sums():
    g = np.array([7.0, -1.0, -1.0, -2.0])
    long = np.tile(g, 400)
    v, e = 0.0, []
    for value in long:
        v = 0.8 * v + 0.2 * value**2
        e.append(1 / math.sqrt(v))
    expected = [sum(0.3 * 0.7**j * e[800 + i + j] for j in range(200)) for i in range(4)]
    assert net_factors(g, 0.7, 0.8) == pytest.approx(expected, rel=1e-12)
