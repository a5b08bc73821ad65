"""A problem that is accepted can be played anywhere on its closed domain; what cannot be is refused in one sentence."""

import math
import warnings

import numpy as np
import pytest
import sympy

from stepscope.synthetic.arrivals import Cyclic, Random, Shuffled
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.noise import Gaussian
from stepscope.synthetic.problem import Problem

x, y = sympy.symbols("x y")
R = sympy.Rational
TWO = {"variables": "x y"}

# components, options, what is said
REFUSED = {
    "a norm at its tip": (
        ["sqrt(x**2 + y**2)"],
        TWO | {"domain": (-1, 1)},
        r"x = 0, y = 0: its gradient is not finite",
    ),
    "a norm, unbounded": (["x", "sqrt((x - 2)**2 + y**2)"], TWO, r"component 1 .* at x = 2, y = 0"),
    "at no fraction": (["sqrt((x - sqrt(2))**2 + (y - pi/7)**2)"], TWO, r"at x = 1.41421, y = 0.448799"),
    "a corner at a point": (["Abs(x**2 + y**2 - 2*x*y)**(1/2) + x"], TWO, "not differentiable"),
    "its formula is 0/0": (["(x**2 + y**2)**(3/4)"], TWO | {"domain": (-1, 1)}, "its gradient is not finite"),
    "a pole at a corner": (["log(x + y)"], TWO | {"domain": (0, 1)}, r"at x = 0, y = 0: its value is not finite"),
    "a pole on an edge": (["log(x*y)"], TWO | {"domain": (0, 1)}, r"its value is not finite"),
    "a root on an edge": (["sqrt(x*y)"], TWO | {"domain": (0, 1)}, r"its gradient is not finite"),
    "not real in parts": (["sqrt(x*y)"], TWO | {"domain": (-1, 1)}, "no finite real value"),
    "a root at the end": (["sqrt(x)"], {"domain": (0, 1)}, r"no finite derivative at x = 0, a point of the domain"),
    "at the upper end": (["sqrt(1 - x)"], {"domain": (0, 1)}, r"no finite derivative at x = 1"),
    "in a sum": (["sqrt(x) + y**2"], TWO | {"domain": (0, 1)}, r"no finite derivative at x = 0"),
    "a logarithm at the end": (["x - log(x)"], {"domain": (0, None)}, r"no finite value at x = 0"),
    "a limit alone": (["sin(x)/x"], {"domain": (-3, 3)}, r"no finite value at x = 0.* reads sin\(x\)/x"),
    "in disguise": (["sinc(x)"], {"domain": (-3, 3)}, r"no finite value at x = 0"),
    "the wrong side of a joint": (["Piecewise((exp(1/x), x < 0), (0, True))"], {}, r"no finite value at x = 0"),
    "imaginary": ([sympy.I * x], {}, r"component 0 must be real, got I\*x"),
    "imaginary in two variables": (["x", "x + I*y"], TWO, "component 1 must be real"),
    "infinite": (["oo*x"], {}, "component 0 must be finite, got oo"),
    "not a number": ([sympy.nan * x], {"variables": "x"}, "component 0 must be finite, got nan"),
    "unknown": (["f(x)"], {}, r"component 0 is f\(x\), whose derivative is not known"),
    "steps": (["floor(x)"], {}, r"component 0 is floor\(x\), whose derivative is not known"),
    "a name for an order": ([x], {"arrival": "cyclic"}, r"`arrival` must be .*Cyclic.*got 'cyclic'"),
    "a list for an order": ([x], {"arrival": [0, 0]}, r"`arrival` must be .*got \[0, 0\]"),
    "a class for an order": ([x], {"arrival": Shuffled}, "`arrival` must be .*got Shuffled"),
    "a number for noise": ([x], {"noise": 0.1}, r"`noise` must be a law .*got 0.1: write Gaussian\(0.1\)"),
    "a class for noise": ([x], {"noise": Gaussian}, "`noise` must be a law .*got Gaussian: write Gaussian"),
    "a word for a start": ([x], {"start": "zero"}, "`start` must be a number or 1 of them, got 'zero'"),
    "numbers for variables": ([x], {"variables": 3}, "`variables` must be symbols or their names"),
    "a number for components": (3, {}, "`components` must be a list"),
    "a statement": (["lambda x"], {"variables": "x"}, "component 0 must be a SymPy expression"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name):
    components, options, said = REFUSED[name]
    with pytest.raises(ValueError, match=said) as told:
        Problem(components, **options)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 300


ACCEPTED = {
    "a rounded norm": (["sqrt(x**2 + y**2 + 1/1000)"], TWO | {"domain": (-1, 1)}),
    "closely rounded": (["sqrt((x - sqrt(2))**2 + (y - pi/7)**2 + 1/10**6)"], TWO | {"domain": (-3, 3)}),
    "the tip outside": (["sqrt(x**2 + y**2)"], TWO | {"domain": (R(1, 100), 1)}),
    "a cubed norm": (["(x**2 + y**2)**(3/2)"], TWO | {"domain": (-1, 1)}),
    "a square that turns": (["(x - y)*Abs(x - y)", "Max(x - y, 0)**2"], TWO | {"domain": (-1, 1)}),
    "three halves": (["x**(3/2)"], {"domain": (0, 1)}),
    "three halves, both sides": (["Abs(x)**(3/2)"], {"domain": (-1, 1)}),
    "short of the end": (["sqrt(x)", "x*log(x)"], {"domain": (1e-6, 1)}),
    "flat, then not": (["Piecewise((0, x <= 0), (exp(-1/x), True))"], {"domain": (-1, 1)}),
    "its units cancel": (["(I*x)**2*x**2"], {"domain": (-1, 1)}),
    "nearly a pole": (["1/(x**2 + y**2 + 1/100)"], TWO | {"domain": (-1, 1)}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_is_finite_on_the_closed_domain(name):
    """At the ends, corners and the middle of the box."""
    components, options = ACCEPTED[name]
    problem = Problem(components, **options)
    for u in np.stack(np.meshgrid(*[(0.0, 0.5, 1.0)] * problem.dim), axis=-1).reshape(-1, problem.dim):
        at = problem.lower + u * (problem.upper - problem.lower)
        assert math.isfinite(problem.value(at))
        for gradient in (problem.mean_gradient(at), *(problem.gradient(i, at) for i in range(len(problem.components)))):
            assert np.isfinite(gradient).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert problem.optimum is not None
        assert isinstance(problem.notes, tuple)


def test_a_run_across_a_root_stays_a_run():
    """|x|^(3/2) has the slope 1.5 sign(x) sqrt|x|, and at 0 the slope 0."""
    problem = Problem(["Abs(x)**(3/2)"], domain=(-1, 1))
    for at in (-0.25, 0.0, 0.25):
        assert problem.gradient(0, at)[0] == 1.5 * math.copysign(math.sqrt(abs(at)), at)
    trace = simulate(problem, "sgd", 300, "0.5/sqrt(t)", start=-1.0)
    assert np.isfinite(trace.path).all()
    assert (simulate(problem, "sgd", 10, 0.5, start=0.0).path == 0.0).all()


def test_a_gradient_without_a_lipschitz_constant_is_noted():
    problem = Problem(["x**(3/2)"], domain=(0, 1))
    assert problem.lipschitz is None
    assert problem.gradient_bound == 1.5
    assert "L: the gradient of the objective is not Lipschitz on the domain." in problem.notes


def test_second_derivatives_that_are_nowhere_to_be_had_are_noted():
    """|xy|^(3/2) has a gradient everywhere and no second derivative on the axes."""
    problem = Problem(["Abs(x*y)**(3/2)"], variables="x y", domain=(-1, 1))
    assert problem.lipschitz is None
    assert any(note.startswith("L: ") for note in problem.notes)


def test_an_order_and_a_noise_of_ones_own_are_welcome():
    class Alternating:
        def weights(self, n):
            return np.full(n, 1 / n)

        def stream(self, n, rng):
            return Cyclic(range(n)).stream(n, rng)

    class Still:
        def stream(self, dim, rng):
            del rng
            return lambda k: np.zeros((k, dim))

    mine = Problem([x**2, (x - 1) ** 2], Alternating(), noise=Still())
    theirs = Problem([x**2, (x - 1) ** 2], Cyclic([0, 1]))
    assert simulate(mine, "adam", 50).x == simulate(theirs, "adam", 50).x
    assert Problem([x, -x], Random((0.5, 0.5)), noise=None).noise is None
