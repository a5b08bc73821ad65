"""The claims of the papers that test_claims.py leaves, each run; and that their builders are what they say."""

import math

import numpy as np
import pytest
import sympy

from stepscope.synthetic import bai2025, bock2019, cohen2022, defossez2020, toint2023, wang2022
from stepscope.synthetic import claims as rows
from stepscope.synthetic.claims import check, claims
from stepscope.synthetic.cycles import adaptive_edge
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.huang2019 import expected_share
from stepscope.synthetic.orbits import edge_ratio, follow, hessians

ELSEWHERE = ("reddi2018", "chen2019", "shi2021", "zhang2022", "zhou2019", "taniguchi2024")
SLOW = ("savarese2021", "wortsman2023", "molybog2023", "cohen2022")


CASES = [
    pytest.param(claim, id=f"{paper}: {claim.name}", marks=[pytest.mark.slow] * (paper in SLOW))
    for paper in rows.papers()
    if paper not in ELSEWHERE
    for claim in claims(paper)
]


@pytest.mark.parametrize("claim", CASES)
def test_claim(claim):
    seen = check(claim)
    assert seen.agrees, f"predicted {rows.shown(claim)}, observed {rows.written(seen.observed)}: {claim.why}"


def test_an_orbit_is_what_simulate_plays():
    """Both take the same rule, but an orbit has the objective's gradient by another path and keeps every step."""
    problem = cohen2022.quadratic()
    orbit = follow(problem, "adam", 0.01, 300, (0.9, 0.99))
    trace = simulate(problem, "adam", 300, 0.01, (0.9, 0.99), records=300)
    # the two gradients may differ in their last bit, and 300 steps of a stable transient do not blow that up
    assert orbit.x[trace.steps] == pytest.approx(trace.path[:, 0], abs=1e-9)
    assert len(orbit.x) == 301
    assert orbit.g[7] == pytest.approx(problem.mean_gradient(orbit.x[7]))


@pytest.mark.parametrize("problem", [cohen2022.quadratic(), cohen2022.product(), bai2025.regression()], ids=str)
def test_hessians_are_differences_of_gradients(problem):
    point, h = np.linspace(0.3, 1.1, problem.dim), 1e-5
    moved = np.eye(problem.dim) * h
    differences = (problem.mean_gradient(point + moved) - problem.mean_gradient(point - moved)) / (2 * h)
    # central differences of polynomials of degree at most three: rounding alone, 1e-16 · 100/h
    assert hessians(problem, point[None])[0] == pytest.approx(differences, abs=1e-8)


def test_the_turned_quadratic_has_its_curvatures():
    assert np.linalg.eigvalsh(hessians(cohen2022.quadratic(), np.zeros((1, 3)))[0]) == pytest.approx([1, 10, 100])


def test_edge_ratio_of_one_coordinate():
    """In one variable λ_max(P⁻¹H)·η is e·h, by hand."""
    problem = bock2019.quadratic(7.0)
    orbit = follow(problem, "adam", 0.01, 50, (0.9, 0.99))
    expected = 7.0 * orbit.e[:, 0] / (adaptive_edge(0.01, 0.9) * 0.01)
    assert edge_ratio(problem, orbit, 0.9) == pytest.approx(expected, rel=1e-12)


def test_the_cycle_alternates_for_every_beta():
    for betas in ((0.0, 0.9), (0.5, 0.99), (0.9, 0.999)):
        x = bock2019.on_cycle(betas, h=3.0).x[:, 0]
        assert x[1:] == pytest.approx(-x[:-1], rel=1e-11)


@pytest.mark.parametrize("alpha", [2.0**-6, 0.3, 10.0])
def test_the_wave_has_lipschitz_constant_one_and_a_floor(alpha):
    """Along the line: no secant of f' is steeper than 1, some are as steep as one likes to 1, and f is bounded."""
    problem = toint2023.wave(alpha)
    x = np.linspace(-3 * alpha, 3 * alpha, 12001)
    secants = np.abs(np.diff(problem.mean_gradient(x[:, None])[:, 0]) / np.diff(x))
    assert secants.max() <= 1 + 1e-9
    assert secants.max() > 1 - 1e-5  # a secant over 1/2000 of a wave: 1 − (π/2000)²/6
    assert problem.value(x[:, None]).min() == pytest.approx(-((alpha / (2 * math.pi)) ** 2), rel=1e-6)
    assert problem.value(x[:, None]).min() >= -((alpha / (2 * math.pi)) ** 2) * (1 + 1e-12)


def test_the_wave_for_torchs_eps():
    """A wave shorter by 2π·eps sends Adam with that eps to infinity as well."""
    alpha, eps = 0.5, 1e-2
    length = alpha - 2 * math.pi * eps
    orbit = follow(toint2023.wave(length), "adam", alpha, 200, (0.9, 0.999), eps=eps)
    assert orbit.x[:, 0] == pytest.approx(length * np.arange(201), rel=1e-9)


@pytest.mark.parametrize("l1", [0.1, 1.0, 7.0])
def test_the_quartic_is_l0_l1_smooth(l1):
    """3x² ≤ 4/L1² + L1|x|³ for all x, with equality at 2/L1."""
    x = sympy.Symbol("x", positive=True)
    slack = sympy.lambdify(x, 4 / l1**2 + l1 * x**3 - 3 * x**2)
    points = np.linspace(0, 20 / l1, 2001)
    assert (slack(points) >= -1e-9 / l1**2).all()
    assert slack(2 / l1) == pytest.approx(0.0, abs=1e-12 / l1**2)


def test_the_hyperbolic_cosine_is_1_1_smooth():
    points = np.linspace(-20, 20, 4001)
    problem = wang2022.hyperbolic()
    curvature = hessians(problem, points[:, None])[:, 0, 0]
    gradient = np.abs(problem.mean_gradient(points[:, None])[:, 0])
    assert (curvature <= (1 + gradient) * (1 + 1e-12)).all()
    assert problem.lipschitz is None  # so that no fixed rate is safe


def test_clipping_keeps_the_direction_and_bounds_the_length():
    g, e, dx = np.array([3.0, -4.0]), np.zeros(2), np.zeros(2)
    wang2022.clipped_sgd(1, 0.1, g, np.zeros((0, 2)), np.array([1.0]), e, dx)
    assert dx == pytest.approx(-0.1 * g / 5)
    wang2022.clipped_sgd(1, 0.1, g / 10, np.zeros((0, 2)), np.array([1.0]), e, dx)
    assert dx == pytest.approx(-0.1 * g / 10)


def test_the_log_radius_is_that_of_the_steps_matrix():
    """Of (x, m) → (x − η m', m'), m' = β1 m + (1−β1) h x, at fractions of the edge on both sides of it."""
    for beta1 in (0.1, 0.5, 0.9):
        ratio = np.array([0.05, 0.5, 0.97, 0.9999, 1.0, 1.02, 3.0])
        expected = []
        for r in ratio:
            e = r * adaptive_edge(1.0, beta1)  # η h
            step = np.array([[1 - e * (1 - beta1), -e * beta1], [1 - beta1, beta1]])
            expected.append(math.log(np.max(np.abs(np.linalg.eigvals(step)))))
        # a double root, where √ of rounding is left, is not among them
        assert cohen2022.log_radius(ratio, beta1) == pytest.approx(expected, abs=1e-9)


def test_the_share_of_rising_steps_by_drawing():
    """The share of e rising from its own formula, v at its mean before each step; 4e5 normal draws a step, 4 errors."""
    rng, beta1, beta2, steps = np.random.default_rng(1), 0.9, 0.99, 200
    square = rng.standard_normal(400_000) ** 2

    def stepsize(t, v):
        return math.sqrt(1 - beta2**t) / ((1 - beta1**t) * math.sqrt(t) * np.sqrt(v))

    rising = 0.0
    for t in range(2, steps + 1):
        before = 1 - beta2 ** (t - 1)
        rising += np.mean(stepsize(t, beta2 * before + (1 - beta2) * square) > stepsize(t - 1, before))
    # all steps share the draws, so the errors add up: at most 1/2 each
    assert rising / steps == pytest.approx(expected_share(beta1, beta2, steps), abs=4 * 0.5 / math.sqrt(4e5))


def test_defossez_problem_has_the_constants_it_is_given():
    problem = defossez2020.pseudo_huber()
    assert problem.lipschitz == pytest.approx(1.0)
    assert problem.gradient_bound == pytest.approx(1.0)  # and the noise adds 1: R = 2
    assert problem.minimum == pytest.approx(1.0)
