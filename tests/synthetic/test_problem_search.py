"""Searched optima and bounds against plain grids and known minima; what is proved convex is convex; honest notes."""

import math

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.synthetic.arrivals import Random
from stepscope.synthetic.convexity import shape
from stepscope.synthetic.numeric import numeric
from stepscope.synthetic.problem import Problem

x, y = sympy.symbols("x y", real=True)
LOCAL = "it may be a local minimum"


def wells():
    return Problem(
        ["3*sin(5*x)*cos(4*y) + (x - 1)**2/20", "(y**2 + x*y)/30 + sin(3*x*y/2)"], domain=(-6, 6), variables="x y"
    )


def grid(lo, hi, count):
    axis = np.linspace(lo, hi, count)
    return np.meshgrid(axis, axis, indexing="ij"), (hi - lo) / (count - 1)


# twins


def test_two_hundred_wells_match_a_grid():
    """On a grid of step h a minimum is missed by at most L h²/4, a supremum of ‖∇f‖ by at most L h/√2.

    f_1 is two waves of height 3/2 and squared frequency 41, so that ‖∇²f_1‖ ≤ 123.1; ‖∇²f_2‖ ≤ 1.5²·72 + 1.5 + 0.1.
    """
    problem = wells()
    (u, v), h = grid(-6, 6, 2401)
    f = (3 * np.sin(5 * u) * np.cos(4 * v) + (u - 1) ** 2 / 20 + (v**2 + u * v) / 30 + np.sin(1.5 * u * v)) / 2
    smoothness = 164.0
    assert f.min() - smoothness * h**2 / 4 <= problem.minimum <= f.min() + 1e-12
    # The first component is the steeper one.
    first = np.hypot(15 * np.cos(5 * u) * np.cos(4 * v) + (u - 1) / 10, -12 * np.sin(5 * u) * np.sin(4 * v))
    assert first.max() - 1e-9 <= problem.gradient_bound <= first.max() + smoothness * h / math.sqrt(2)
    assert np.abs(problem.mean_gradient(problem.optimum)).max() <= 1e-9


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.integers(-4, 4), st.integers(-4, 4), st.floats(0, 6), st.integers(1, 5)), min_size=2, max_size=4
    )
)
@settings(max_examples=10)
def test_sums_of_waves_match_a_grid(waves):
    """Σ c cos(kx + ly + φ): every derivative is bounded by Σ c‖(k, l)‖^order, and so is what a grid can miss."""
    waves = [*waves, (1, 1, 0.5, 1)]  # one that no variable's sum can express
    f = sum(c * sympy.cos(k * x + m * y + sympy.Rational(round(p, 3))) for k, m, p, c in waves)
    problem = Problem([f], domain=(-3, 3), variables=(x, y))
    (u, v), h = grid(-3, 3, 601)
    sizes = [sum(c * math.hypot(k, m) ** order for k, m, _, c in waves) for order in range(4)]
    f = sum(c * np.cos(k * u + m * v + round(p, 3)) for k, m, p, c in waves)
    a, b = (sum(-c * (k, m)[j] * np.sin(k * u + m * v + round(p, 3)) for k, m, p, c in waves) for j in (0, 1))
    slack, reach = 1e-9 * (1 + sizes[2]), h / math.sqrt(2)  # from any point to the grid
    assert f.min() - sizes[1] * reach - slack <= problem.minimum <= f.min() + slack
    assert np.hypot(a, b).max() - slack <= problem.gradient_bound <= np.hypot(a, b).max() + sizes[2] * reach + slack


def test_a_narrow_peak_of_a_bound_is_found():
    """sup |f'| of exp(-(r/w)²/2) is exp(-1/2)/w, at distance w from the centre."""
    w = sympy.Rational(1, 5)
    f = sympy.exp(-((x - 1) ** 2 + (y + 2) ** 2) / (2 * w**2))
    problem = Problem([f], variables=(x, y), domain=(-7, 7))
    assert math.isclose(problem.gradient_bound, math.exp(-0.5) * 5, rel_tol=1e-9)
    assert math.isclose(problem.lipschitz, 25.0, rel_tol=1e-9)  # at the centre


# theorems


def turned_rastrigin(dim):
    """Σ u_i² - cos(3 u_i) over turned axes: the minimum is -dim, where all u_i vanish, amid hundreds of others."""
    names = sympy.symbols(f"x0:{dim}", real=True)
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0].round(2)
    shifted = [v - sympy.Rational(1, 3) for v in names]
    turned = [sum(sympy.Rational(str(q)) * s for q, s in zip(row, shifted, strict=True)) for row in axes.tolist()]
    return Problem([sum(u**2 - sympy.cos(3 * u) for u in turned)], variables=names, domain=(-5, 5))


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_the_lowest_of_very_many_wells(dim):
    problem = turned_rastrigin(dim)
    assert math.isclose(problem.minimum, -dim, rel_tol=1e-12)
    np.testing.assert_allclose(problem.optimum, 1 / 3, atol=1e-7)


def test_one_variable_that_oscillates():
    """sin(kx) + x/10 has its minima where cos(kx) = -1/(10k) and sin < 0: the leftmost inside is the lowest."""
    k = 2000
    problem = Problem([sympy.sin(k * x) + x / 10], domain=(-3, 3))
    phase = -math.acos(-1 / (10 * k))
    leftmost = (phase + 2 * math.pi * math.ceil((-3 * k - phase) / (2 * math.pi))) / k
    assert math.isclose(problem.optimum[0], leftmost, rel_tol=1e-12)
    assert math.isclose(problem.lipschitz, k**2, rel_tol=1e-9)
    assert math.isclose(problem.gradient_bound, k + 0.1, rel_tol=1e-12)


def test_far_from_the_start_on_an_unbounded_line():
    """Near 1000 the wells of sin(5x) lie 2π/5 apart; a bowl of curvature 1/50 moves each by at most 0.63/50/25."""
    problem = Problem([(x - 1000) ** 2 / 100 + sympy.sin(5 * x)])
    well = (2 * math.pi * round((5000 + math.pi / 2) / (2 * math.pi)) - math.pi / 2) / 5
    assert abs(problem.optimum[0] - well) <= 0.63 / 50 / 25 * 1.01
    assert problem.minimum <= (well - 1000) ** 2 / 100 - 1


def test_of_equal_minima_the_nearest_is_given():
    for start, expected in (((-0.1, 0.0), (-1, -1)), ((0.1, 0.0), (1, 1))):
        problem = Problem([(x**2 - 1) ** 2 + (y - x) ** 2], variables=(x, y), start=start)
        np.testing.assert_allclose(problem.optimum, expected, atol=1e-9)
        assert any("not unique" in note for note in problem.notes)


def test_a_search_finds_the_same_again():
    one, other = wells(), wells()
    assert one.optimum.tobytes() == other.optimum.tobytes()
    assert (one.gradient_bound, one.lipschitz) == (other.gradient_bound, other.lipschitz)


# notes and convexity

CONVEX = {
    "quadratic": "x**2 + x*y + y**2",
    "quartic": "x**4 - 2*x**3 + 2*x**2 + x*y/10 + y**2",
    "least squares": "(x + 2*y - 1)**2 + (x - y)**4",
    "logistic": "log(1 + exp(x + 2*y)) + log(1 + exp(-x - y)) + (x**2 + y**2)/10",
    "log-sum-exp": "log(exp(x) + exp(y) + exp(-x - y))",
    "root": "sqrt(1 + x**2 + x*y + y**2)",
    "exponentials": "exp(x - y) + exp(y - x/2) + 2**(-x)",
    "barrier": "-log(10 - x - y) - log(10 + x) + 1/(10 + y + x/2)",
    "soft hinge": "Max(x - y, 0)**2 + y**2",
    "cosh": "cosh(x - y) + (x + y)**2",
}
OTHER = {
    "saddle": "x*y",
    "waves": "cos(x + y)",
    "well": "(x**2 - 1)**2 + x*y + y**2",
    "bump": "-exp(-x**2 - y**2 - x*y)",
    "rosenbrock": "100*(y - x**2)**2 + (1 - x)**2",
    "concave": "log(20 + x + y)",
    "product": "exp(x)*y + y**2*x",
    "root of a saddle": "sqrt(100 + x*y)",
    "ratio": "x/(20 + y + x/2)",
}
BOX = {x: (-4.0, 4.0), y: (-4.0, 4.0)}


@pytest.mark.parametrize("name", [*CONVEX, *OTHER])
def test_only_a_convex_objective_goes_without_a_warning(name):
    problem = Problem([{**CONVEX, **OTHER}[name]], variables="x y", domain=(-4, 4))
    assert any(LOCAL in note for note in problem.notes) == (name in OTHER)


@pytest.mark.parametrize(
    ("text", "domain", "warned"),
    [
        ("exp(x) - x", None, False),
        ("log(1 + exp(x)) - x/4", None, False),
        ("x*log(x)", (0.1, 5), False),  # by its second derivative
        ("-exp(-x**2)/x**2", (1, 5), False),  # it only rises
        ("x**4 - x**2", None, False),  # not convex, but the critical points of polynomials are exact
        ("x/(1 + x**2)", None, False),
        ("sin(x) + x**2/10", (-9, 9), True),
        ("exp(-x**2)*x", (-9, 9), True),
    ],
)
def test_functions_of_one_variable_warn_where_they_were_searched(text, domain, warned):
    problem = Problem([text], domain=domain)
    assert any(LOCAL in note for note in problem.notes) == warned


def test_a_convex_mixture_of_others_is_not_warned_of():
    """Not the components but what is minimized counts."""
    problem = Problem(["x*y + x**2 + y**2", "-x*y"], Random((0.5, 0.5)), variables="x y", domain=(-1, 1))
    assert not any(LOCAL in note for note in problem.notes)


LEAVES = st.sampled_from([x, y, x - y, 2 * x + y, sympy.Integer(2), sympy.Rational(1, 3), x**2 + y**2 + x * y])
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from([sympy.Add, sympy.Mul, sympy.Max, sympy.Min]), inner, inner).map(
            lambda parts: parts[0](*parts[1:])
        ),
        st.tuples(st.sampled_from([sympy.exp, sympy.cosh, abs, sympy.sin, sympy.tanh]), inner).map(
            lambda parts: parts[0](parts[1])
        ),
        st.tuples(inner, st.sampled_from([2, 3, 4, -1, -2])).map(lambda parts: parts[0] ** parts[1]),
        inner.map(lambda e: sympy.log(1 + e**2)),
        inner.map(lambda e: sympy.sqrt(2 + abs(e))),
        inner.map(lambda e: 1 / (1 + sympy.exp(e))),
        inner.map(lambda e: -e),
    ),
    max_leaves=5,
)


@given(EXPRESSIONS, st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_what_is_proved_holds(expr, seed):
    """Jensen's inequality at midpoints and the range at random points: no proof of a falsehood, up to rounding."""
    box = {x: (-1.5, 1.0), y: (-0.5, 2.0)}
    proved = shape(expr, box)
    f = numeric(expr, (x, y))
    lower, upper = np.array(list(box.values())).T
    a, b = np.random.default_rng(seed).uniform(lower, upper, (2, 200, 2))
    ends, middle = np.stack([f(a), f(b)]), f((a + b) / 2)
    known = np.isfinite(ends).all(axis=0) & np.isfinite(middle) & (np.abs(ends).max(axis=0) < 1e9)
    ends, middle = ends[:, known], middle[known]
    slack = 1e-9 * (1 + np.abs(ends).max(axis=0, initial=0.0) + np.abs(middle))
    assert (middle >= proved.lo - slack).all()
    assert (middle <= proved.hi + slack).all()
    if proved.convex:
        assert (middle <= ends.mean(axis=0) + slack).all()
    if proved.concave:
        assert (middle >= ends.mean(axis=0) - slack).all()
    if proved.log_convex:
        assert (middle >= -slack).all()
        assert (middle**2 <= ends.prod(axis=0) + slack * (1 + np.abs(ends).sum(axis=0))).all()
