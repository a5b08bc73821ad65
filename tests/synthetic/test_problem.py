"""Problem: known optima and constants, slow twins on random functions, compiled code against SymPy, clear errors."""

from __future__ import annotations

import doctest
import math
import os
import pickle
import subprocess
import sys

import numba
import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import types

from stepscope.synthetic import problem as module
from stepscope.synthetic.arrivals import Cyclic, Random, Shuffled
from stepscope.synthetic.problem import Problem

x, y = sympy.symbols("x y")
R = sympy.Rational
oo = math.inf


def reddi():
    return Problem([1010 * x, -10 * x], Cyclic([0] + [1] * 100), domain=(-1, 1))


def chen_figure1():
    return Problem([sympy.Piecewise((100 * x**2, abs(x) <= 10), (2000 * abs(x) - 10000, True))])


def chen_figure2():
    one = sympy.Piecewise((5.5 * x**2, abs(x) <= 1), (11 * abs(x) - 5.5, True))
    ten = sympy.Piecewise((-0.5 * x**2, abs(x) <= 1), (-abs(x) + 0.5, True))
    return Problem([one] + [ten] * 10, start=2)


def zhang(n=10):
    first = sympy.Piecewise((n * x, x >= -1), (R(n, 2) * (x + 2) ** 2 - R(3 * n, 2), True))
    other = sympy.Piecewise((-x, x >= -1), (-((x + 2) ** 2) / 2 + R(3, 2), True))
    return Problem([first] + [other] * (n - 1), Shuffled())


def shi(a):
    return Problem([(x - a) ** 2] + [-0.1 * (x - R(10 * a, 9)) ** 2] * 9, Shuffled())


def savarese():
    return Problem([999 * x**2 / 2, -x], Random([0.002, 0.998]), domain=(0, 1))


def cut_off():
    """The vertex (2.4, -1.6) lies outside; on x = 1 the slope in y vanishes at -5/4."""
    return Problem([(x - 2) ** 2 + (y + 1) ** 2 + x * y / 2], domain=((-1, 1), (-3, 3)), variables=(x, y))


def huber_plane():
    """A corner of 1-norm, rounded off, in each of two variables, and a bowl: sums of functions of one variable."""
    smooth = sum(sympy.Piecewise((v**2 / 2, abs(v) <= 1), (abs(v) - R(1, 2), True)) for v in (x, y))
    return Problem([smooth, (x - 3) ** 2 / 2], variables="x y", domain=((-2, 4), (-2, 2)))


def ten():
    """Ten convex components in two variables, not quadratic."""
    return Problem(
        [(x - k) ** 2 + sympy.exp((x - y) / k) + k * (y - 1) ** 4 for k in range(1, 11)],
        domain=(-5, 5),
        variables="x y",
    )


# problem, optimum, minimum, L, largest L of a component, H
KNOWN = {
    "reddi": (reddi, [-1], -10 / 101, 0, 0, 1010),
    "chen1": (chen_figure1, [0], 0, 200, 200, 2000),
    "chen2": (chen_figure2, [0], 0, 1 / 11, 11, 11),
    "zhang": (zhang, [-2], -0.15, 0.1, 10, None),
    "shi 0": (lambda: shi(0), [0], 0, 0.02, 2, None),
    "shi 3": (lambda: shi(3), [0], -0.1, 0.02, 2, None),
    "savarese": (savarese, [0.998 / 1.998], -0.5 * 0.998**2 / 1.998, 1.998, 999, 999),
    "cut off": (cut_off, [1, -1.25], 0.4375, 2.5, 2.5, math.hypot(-2 - 1.5 - 4, -0.5 - 6 + 2)),
    "huber plane": (huber_plane, [2, 0], (2 - 0.5 + 0.5) / 2, 1, 1, 5),
    "double well": (lambda: Problem(["x**4/4 - x**2/2 + x/10"], domain=(-2, 2)), None, None, 11, 11, 6.1),
    "logistic": (lambda: Problem(["log(1 + exp(x))", "-x/4"]), [-math.log(3)], None, 1 / 8, 1 / 4, 1),
    "cosine": (lambda: Problem(["cos(x)"], domain=(1, 4)), [math.pi], -1, 1, 1, 1),
    "root": (lambda: Problem(["sqrt(1 + x**2)"]), [0], 1, 1, 1, 1),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_optima_and_constants(name):
    make, optimum, minimum, smoothness, components, bound = KNOWN[name]
    problem = make()
    if optimum is not None:
        np.testing.assert_allclose(problem.optimum, optimum, rtol=1e-12, atol=1e-12)
    if minimum is not None:
        assert math.isclose(problem.minimum, minimum, rel_tol=1e-12, abs_tol=1e-15)
    got = (problem.lipschitz, problem.component_lipschitz, problem.gradient_bound)
    for mine, known in zip(got, (smoothness, components, bound), strict=True):
        assert mine == known if known is None else math.isclose(mine, known, rel_tol=1e-12)
    assert any(note.startswith("H: the gradient") for note in problem.notes) == (bound is None)
    np.testing.assert_allclose(problem.weights @ problem.optimal_values, problem.minimum, rtol=1e-12, atol=1e-12)


def test_the_whole_is_simpler_than_its_parts():
    assert reddi().objective == 10 * x / 101
    assert chen_figure2().objective.args[1] == (x**2 / 22, x <= 1)
    assert len(chen_figure2().objective.args) == 3
    assert sympy.expand(zhang().objective.args[0][0] - ((x + 2) ** 2 / 2 - R(3, 2)) / 10) == 0
    assert reddi().gradients == ((1010,), (-10,))
    assert cut_off().gradients == ((2 * x + y / 2 - 4, x / 2 + 2 * y + 2),)


def test_ten_convex_components_in_two_variables():
    """The optimum of a strictly convex function inside the box is where the gradient vanishes."""
    problem = ten()
    assert (np.abs(problem.optimum) < 5).all()
    g, nearby = problem.mean_gradient(problem.optimum), problem.optimum + np.eye(2)[:1] * 1e-3
    assert np.abs(g).max() <= 1e-12
    assert problem.minimum < problem.value(nearby)[0]
    # f_1 has the steepest slope: at (5, -5), where its exponential is largest and all terms have one sign.
    steepest = math.hypot(8 + math.exp(10), math.exp(10) + 4 * 6**3)
    assert math.isclose(problem.gradient_bound, steepest, rel_tol=1e-9)


# twins


def polynomials(degree):
    return st.lists(st.integers(-5, 5), min_size=degree + 1, max_size=degree + 1)


def on_grid(coefficients, grid, order):
    return np.polyval(np.polyder(coefficients, order), grid)


@given(polynomials(5), st.integers(-3, 1), st.integers(1, 4))
@settings(max_examples=60)
def test_polynomials_on_an_interval_match_a_fine_grid(coefficients, lo, width):
    """A grid of step h misses a supremum by at most h times the next derivative's."""
    problem = Problem([sympy.Poly(coefficients, x).as_expr()], domain=(lo, lo + width), variables=x)
    grid = np.linspace(lo, lo + width, 4001)
    step = width / 4000
    slack = 1e-9 * (1 + np.abs(coefficients).sum() * 4.0**5)
    tops = [np.abs(on_grid(coefficients, grid, order)).max() for order in range(4)]
    for mine, order in ((problem.gradient_bound, 1), (problem.lipschitz, 2)):
        assert tops[order] - slack <= mine <= tops[order] + step * (tops[order + 1] + 1) * 1.1 + slack
    least = on_grid(coefficients, grid, 0).min()
    assert least - step * (tops[1] + 1) - slack <= problem.minimum <= least + slack
    assert lo <= problem.optimum[0] <= lo + width


@given(st.lists(st.integers(-3, 3), min_size=6, max_size=6), st.integers(-2, 0), st.integers(1, 3))
@settings(max_examples=25)
def test_quadratics_in_a_box_match_projected_gradient_descent(entries, lo, width):
    a, b, c, d, p, q = entries
    root = np.array([[a, b], [c, d]])
    curvature = root.T @ root + np.eye(2)
    v = sympy.Matrix([x, y])
    f = (v.T * sympy.Matrix(curvature) * v)[0] / 2 + p * x + q * y
    problem = Problem([f], variables=(x, y), domain=(lo, lo + width))
    top = np.linalg.eigvalsh(curvature).max()
    point = np.full(2, float(lo))
    for _ in range(3000):  # at least 1 - 1/(1 + 36) a step: 1e-35 of the way is left
        point = np.clip(point - (curvature @ point + [p, q]) / top, lo, lo + width)
    np.testing.assert_allclose(problem.optimum, point, atol=1e-9)
    assert math.isclose(problem.lipschitz, top, rel_tol=1e-12)


FUNCTIONS = [
    ["x**2 + 3", "-x/7", "0*x"],
    ["exp(-x**2/2)", "log(1 + x**2)", "sqrt(1 + x**2)", "x/(1 + x**2)", "sin(x)*cos(2*x)"],
    ["x*Abs(x)", "Max(x, 0)**2", "Min(x - 1, 0)**3 + x", "x**2*sign(x)", "Abs(x - 1/3)**3"],
    ["Piecewise((x**2/2, Abs(x) <= 1), (Abs(x) - 1/2, True))", "0.1*x**3 + 12345678901234567*x/10**16"],
    ["tanh(x) + pi*x", "erf(x)", "atan(x)", "(x**2 + 1)**(3/2)", "Abs(x*Abs(x) - 1)**3"],
]
FUNCTIONS_2D = [
    ["x**2*y - y**3/3", "exp(x - y)", "x + 2*y"],
    ["Max(x - y, 0)**2", "Piecewise((x**2/2, Abs(x) <= 1), (Abs(x) - 1/2, True)) + cos(y)", "log(exp(x) + exp(y))"],
    ["Piecewise(((x*y)**2/2, Abs(x*y) <= 1), (Abs(x*y) - 1/2, True))", "(x - y)*Abs(x - y)"],
]


def exactly(expr, names, point):
    """An expression's value by SymPy alone, in 30 digits."""
    at = {sympy.Symbol(n, real=True): sympy.Rational(float(p)) for n, p in zip(names, point, strict=True)}
    return float(sympy.N(sympy.sympify(expr, locals={str(s): s for s in at}).xreplace(at).doit(), 30))


def differences(expr, names, point):
    """The gradient by Richardson-extrapolated differences of exact values; the error is of order h⁴."""
    h, out = 1e-3, []
    for j in range(len(names)):
        e = np.eye(len(names))[j]
        near, far = (exactly(expr, names, point + k * h * e) - exactly(expr, names, point - k * h * e) for k in (1, 2))
        out.append((8 * near - far) / (12 * h))
    return np.array(out)


@pytest.mark.parametrize("texts", FUNCTIONS + FUNCTIONS_2D, ids=lambda texts: texts[0])
def test_compiled_code_matches_sympy(texts):
    names = ["x"] if texts in FUNCTIONS else ["x", "y"]
    problem = Problem(texts, variables=names, domain=(-3, 3))
    rng, out = np.random.default_rng(0), np.full(len(names), np.nan)
    for point in rng.uniform(-2.5, 2.5, (6, len(names))):  # random points: none lies within 1e-3 of a kink
        total, slope = 0.0, np.zeros(len(names))
        for i, text in enumerate(texts):
            value = problem.kernel(i, point, out)
            assert math.isclose(value, exactly(text, names, point), rel_tol=1e-12, abs_tol=1e-14)
            np.testing.assert_allclose(out, differences(text, names, point), rtol=1e-7, atol=1e-7)
            np.testing.assert_allclose(problem.gradient(i, point), out, rtol=1e-13, atol=1e-14)
            total, slope = total + value / len(texts), slope + out / len(texts)
        assert math.isclose(problem.kernel(-1, point, out), total, rel_tol=1e-12, abs_tol=1e-14)
        np.testing.assert_allclose(out, slope, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(problem.mean_gradient(point), out, rtol=1e-13, atol=1e-14)
        assert math.isclose(problem.value(point), total, rel_tol=1e-12, abs_tol=1e-14)


@pytest.mark.parametrize("make", [chen_figure2, zhang, huber_plane])
def test_pieces_meet_at_their_borders(make):
    """At and beside every border the kernel's value and gradient agree to the width of the gap."""
    problem = make()
    for i in range(-1, len(problem.components)):
        for border in (-2.0, -1.0, 0.0, 1.0, 2.0):
            seen = [np.zeros(problem.dim) for _ in range(3)]
            points = [np.full(problem.dim, border + gap) for gap in (-1e-9, 0.0, 1e-9)]
            values = [problem.kernel(i, point, out) for point, out in zip(points, seen, strict=True)]
            assert np.ptp(values) <= 1e-7
            assert np.ptp(seen, axis=0).max() <= 1e-7


@pytest.mark.parametrize("name", [r"\xi, \N and \u", 'it said """x"""', 'ends in "', "two\nlines"])
def test_a_name_may_hold_any_character(name):
    problem = Problem([x**2], name=name)
    assert problem.value(3.0) == 9.0


def test_a_component_that_is_not_there_has_no_value():
    assert math.isnan(reddi().kernel(2, np.zeros(1), np.zeros(1)))


def test_kernels_are_values_to_an_engine_compiled_once():
    kernel_type = types.FunctionType(types.float64(types.int64, types.float64[::1], types.float64[::1]))

    @numba.njit(types.float64(kernel_type, types.int64, types.float64[::1], types.float64[::1]))
    def engine(kernel, i, point, out):
        return kernel(i, point, out)

    for problem in (chen_figure2(), cut_off()):
        point, out, same = problem.start + 0.25, np.zeros(problem.dim), np.zeros(problem.dim)
        assert engine(problem.kernel, 0, point, out) == problem.kernel(0, point, same)
        assert (out == same).all()
    assert len(engine.signatures) == 1


AGAIN = """
import numpy as np
from stepscope.synthetic.problem import Problem
kernel = Problem(["x**2", "exp(x)"]).kernel
assert kernel(0, np.array([3.0]), np.zeros(1)) == 9.0
print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""


@pytest.mark.slow
def test_a_second_process_does_not_compile(tmp_path):
    environment = {**os.environ, "STEPSCOPE_CACHE": str(tmp_path)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", AGAIN], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert [run.split() for run in runs] == [["0", "1"], ["1", "0"]]
    assert len(list(tmp_path.glob("*.py"))) == 1


# what the user gives, and what is said about it


def test_values_keep_the_shape_of_the_points():
    problem = cut_off()
    points = np.random.default_rng(0).uniform(-1, 1, (4, 3, 2))
    assert problem.value(points).shape == (4, 3)
    assert problem.mean_gradient(points).shape == (4, 3, 2)
    u, v = points[2, 1]
    assert math.isclose(problem.value(points)[2, 1], (u - 2) ** 2 + (v + 1) ** 2 + u * v / 2, rel_tol=1e-13)
    assert math.isnan(Problem(["log(x)"], domain=(1, 2)).value(-1.0))


@pytest.mark.parametrize(
    ("domain", "start", "expected"),
    [
        (None, None, [1, 1]),
        ((-1, 3), None, [1, 1]),
        ((0, 4), None, [2, 2]),
        (((0, 4), (2, None)), None, [2, 2]),
        (((None, -3), (-sympy.oo, sympy.oo)), None, [-3, 1]),
        ((-1, 1), 0.5, [0.5, 0.5]),
        ((-1, 1), (1, -1), [1, -1]),
    ],
)
def test_domains_and_starts(domain, start, expected):
    problem = Problem([x * y], variables=(x, y), domain=domain, start=start)
    assert problem.start.tolist() == expected
    assert (problem.lower <= problem.start).all()
    assert (problem.start <= problem.upper).all()


def test_symbols_are_known_by_their_names():
    real = sympy.Symbol("x", real=True)
    assert Problem([real**2]).variables == (real,)
    assert Problem([real**2]).objective == real**2
    assert Problem(["a*x"], variables="a,x").variables == sympy.symbols("a x")
    assert Problem(["x**2", real], variables=[real]).dim == 1


@pytest.mark.parametrize(
    ("components", "options", "said"),
    [
        (["x"], {}, "optimum: the objective falls without bound as x goes to -oo."),
        (["-exp(-x**2)/x**2"], {"domain": (1, None)}, None),
        (["exp(x)"], {}, "optimum: the objective falls towards 0 and does not reach it as x goes to -oo."),
        (["x**2 - y**2"], {"variables": "x y"}, "optimum: the objective falls without bound as y goes to -oo."),
        (["x*y"], {"variables": "x y"}, "optimum: the objective falls without bound."),
        (["x", "-x"], {}, "optimum: not unique in x; the one nearest to the start is given."),
        (["(x - y)**2"], {"variables": "x y"}, "optimum: not unique; the one nearest to the start is given."),
        (["x**4"], {}, "L: the gradient of the objective is not Lipschitz on the domain."),
        (["x", "x**3 + x**4"], {}, "H: the gradient of component 1 is unbounded on the domain."),
        (["exp(x*y)"], {"variables": "x y"}, "optimum: descents"),
        (["exp(x*y)"], {"variables": "x y"}, "L: the second derivatives of the objective are not constant"),
        (["exp(x*y)"], {"variables": "x y", "domain": (-1, 1)}, "L: that of the objective was found by search"),
    ],
)
def test_notes_say_what_does_not_exist(components, options, said):
    problem = Problem(components, **options)
    assert problem.notes == () if said is None else any(note.startswith(said) for note in problem.notes)


def test_many_optima_give_the_nearest():
    assert Problem(["x", "-x"], start=3).optimum.tolist() == [3]
    np.testing.assert_allclose(Problem(["(x - y)**2"], variables="x y", start=(1, 2)).optimum, [1.5, 1.5], rtol=1e-14)
    assert Problem(["(x**2 - 1)**2"], start=0.2).optimum.tolist() == [1]
    assert Problem(["(x**2 - 1)**2"], start=-0.2).optimum.tolist() == [-1]


def test_tiny_functions_are_not_flat():
    assert Problem(["x/10**14"], domain=(-1, 1)).optimum.tolist() == [-1]
    assert Problem(["100*x**2"], domain=(-10, 10), start=1e-5).optimum.tolist() == [0]


def test_a_problem_travels():
    problem = huber_plane()
    assert problem.kernel(0, np.ones(2), np.zeros(2)) == problem.value([1, 1]) * 2 - 2
    twin = pickle.loads(pickle.dumps(problem))
    assert twin.source == problem.source
    assert twin.optimum.tolist() == problem.optimum.tolist()
    assert twin.value([0.5, 0.5]) == problem.value([0.5, 0.5])


def test_latex_names_equal_components_once():
    text = chen_figure2().latex()
    assert text.count("f_{0}") == 1
    assert "f_{1,…,10}" in text
    assert r"x \in [-1, 1]" in reddi().latex()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Problem([abs(x)], domain=(-1, 1)), "component 0 is not differentiable at x = 0"),
        (lambda: Problem([x, sympy.Max(x, 1)]), "component 1 is not differentiable at x = 1"),
        (lambda: Problem([sympy.Piecewise((x, x < 1), (x + 1, True))]), "at x = 1: its value jumps from 1 to 2"),
        (lambda: Problem([1 / x], domain=(-1, 1)), "at x = 0: its value is not finite"),
        (lambda: Problem(["sqrt(x)"], domain=(-1, 1)), "component 0 has no finite real value at x = -0.5"),
        (lambda: Problem(["log(x)"], domain=(-3, -1)), "no finite real value at x = -2"),
        (lambda: Problem([sympy.Piecewise((x, x < 1))]), "no finite real value at x = 2"),
        (lambda: Problem([abs(x - y)], variables=(x, y)), "component 0 is not differentiable at x = "),
        (lambda: Problem([x**2], domain=(-1, 1), start=2), r"`start` must lie in the domain, \[-1.0\] to \[1.0\], got"),
        (lambda: Problem([x**2], start=(1, 2)), "`start` must be a number or 1 of them"),
        (lambda: Problem([x**2], domain=(1, -1)), "`domain` must be a pair"),
        (lambda: Problem([x**2], domain=(0, 1, 2)), "`domain` must be a pair"),
        (lambda: Problem([x * y], variables=(x, y), domain=((0, 1),)), "or 2 such pairs"),
        (lambda: Problem([x, -x], Random([0.5, 0.6])), "sum to 1"),
        (lambda: Problem([x, -x], Random([1.0])), "each of 2 components"),
        (lambda: Problem([x, -x], Cyclic([0, 2])), "components 0 to 1, got 2"),
        (lambda: Problem([x * y]), '`variables` must name the variables in their order, such as "x y"'),
        (lambda: Problem([1]), "the components have none"),
        (lambda: Problem([x * y], variables=x), "give y a number"),
        (lambda: Problem([x], variables=(x, x)), "different symbols"),
        (lambda: Problem(["x +"]), "component 0 must be a SymPy expression"),
        (lambda: Problem([x < 1]), "component 0 must be a SymPy expression with a value"),
        (lambda: Problem(x**2), "`components` must be a list"),
        (lambda: Problem([]), "`components` must be a list"),
        (lambda: Problem([sympy.zeta(x)], domain=(2, 3)).source, "no counterpart in Python's `math`"),
        (lambda: reddi().gradient(2, 0.0), "0 to 1, got 2"),
        (lambda: cut_off().value([1.0, 2.0, 3.0]), "must have 2 coordinates"),
    ],
)
def test_errors_say_what_was_expected(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_corner_outside_the_domain_does_not_matter():
    assert Problem([abs(x)], domain=(0, 1)).optimum.tolist() == [0]
    assert Problem([1 / x], domain=(1, 2)).lipschitz == 2


def test_the_docstrings_are_true():
    assert doctest.testmod(module).failed == 0
