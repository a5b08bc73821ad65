"""Theorem 3.1's constants against runs, growth against accumulators that a plain loop adds up, and Γ."""

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from stepscope.synthetic.claims import flatness
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.methods import METHODS
from stepscope.synthetic.noise import TwoPoint
from stepscope.synthetic.problem import Problem
from stepscope.synthetic.theory import (
    BETA1,
    E1,
    GAP,
    MEMORY,
    NONE,
    D,
    H,
    L,
    T,
    bound,
    constants,
    gamma,
    growth,
    stepsize_power,
)


def run(beta1, beta2, alpha, sigma, *, steps, seeds, dim=3, start=2.0):
    """Generalized Adam on Σ_j √(1 + x_j²) with ±sigma noise on each gradient: all its series, (steps, seeds, dim)."""
    rng = np.random.default_rng(5)
    x, m, v = np.full((seeds, dim), start), np.zeros((seeds, dim)), np.zeros((seeds, dim))
    series = {name: [] for name in "xgGem"}
    for t in range(1, steps + 1):
        true = x / np.sqrt(1.0 + x * x)
        g = true + sigma * rng.choice([-1.0, 1.0], size=x.shape)
        m = beta1 * m + (1.0 - beta1) * g
        v = beta2 * v + (1.0 - beta2) * g * g
        e = alpha(t) / np.sqrt(v) if beta2 else np.full_like(x, alpha(t))
        for name, value in zip("xgGem", (x, g, true, e, m), strict=True):
            series[name].append(value)
        x = x - e * m
    series["x"].append(x)
    return {name: np.array(values) for name, values in series.items()}


def accumulators(r):
    """(a, b, c, c2) of a run, summed over steps and coordinates, averaged over seeds."""
    change = np.diff(r["e"], axis=0)
    sums = (r["e"], (r["e"] * r["g"]) ** 2, np.abs(change), change**2)
    return tuple(float(s.sum(axis=(0, 2)).mean()) for s in sums)


RUNS = [(0.0, 0.0, 0.3), (0.9, 0.0, 0.1), (0.0, 0.9, 0.3), (0.5, 0.99, 0.3), (0.9, 0.99, 0.1), (0.9, 0.999, 0.02)]


@pytest.mark.parametrize("sigma", [0.0, 0.7])
@pytest.mark.parametrize(("beta1", "beta2", "alpha"), RUNS)
def test_the_theorem_holds(beta1, beta2, alpha, sigma):
    dim = 3
    r = run(beta1, beta2, lambda t: alpha / np.sqrt(t), sigma, steps=400, seeds=64, dim=dim)
    sums = accumulators(r)
    made = float((r["e"] * r["G"] ** 2).sum(axis=(0, 2)).mean())
    c = constants(momentum=beta1 > 0, noise=sigma > 0).numbers(
        lipschitz=1.0,
        gradient_bound=np.sqrt(dim) * (1.0 + sigma),
        beta1=beta1,
        gap=dim * (np.sqrt(5.0) - 1.0),
        e1=float(r["e"][0].mean()),
        dim=dim,
    )
    assert made <= c[0] * sums[1] + c[1] * sums[2] + c[2] * sums[3] + c[3]
    assert made / sums[0] <= bound(c, sums)


@pytest.mark.parametrize(("beta1", "beta2", "alpha"), RUNS)
def test_the_two_steps_of_the_proof(beta1, beta2, alpha):
    r = run(beta1, beta2, lambda t: alpha / np.sqrt(t), 0.7, steps=200, seeds=8)
    kappa = beta1 / (1 - beta1)
    x, e, m, g = (r[k] for k in "xemg")
    z = x + kappa * np.diff(x, axis=0, prepend=x[:1])
    change = np.diff(e, axis=0)
    # z_{t+1} − z_t = −κ Δ_t m_{t−1} − e_t g_t; 1e-12: rounding of numbers of order 1, κ ≤ 9
    assert np.allclose(np.diff(z, axis=0)[1:], -kappa * change * m[:-1] - e[1:] * g[1:], atol=1e-12)
    moved = ((e * m) ** 2).sum(axis=0)
    assert (moved <= 2 * ((e * g) ** 2).sum(axis=0) + 2 * kappa**2 * 1.7**2 * (change**2).sum(axis=0)).all()


@pytest.mark.parametrize("alpha", [0.1, 1.0, 1.9])
def test_the_constants_are_sharp_for_gradient_descent_on_a_parabola(alpha):
    lipschitz, x, a, b, made = 1.0, 3.0, 0.0, 0.0, 0.0
    for _ in range(2000):
        g = lipschitz * x
        a, b, made = a + alpha, b + (alpha * g) ** 2, made + alpha * g * g
        x -= alpha * g
    gap = lipschitz * 9 / 2
    c = constants(momentum=False, noise=False).numbers(lipschitz, 3.0, 0.0, gap, alpha)
    assert bound(c, (a, b, 0.0, 0.0)) == pytest.approx(made / a, rel=1e-12)
    assert made > gap  # so that without the term of b there would be no theorem


def test_the_constants_as_expressions():
    c = constants()
    k = BETA1 / (1 - BETA1)
    assert sympy.simplify(c.c2 - (2 + k) * H**2) == 0
    assert sympy.simplify(c.c1 - L - sympy.Rational(1, 2) - (L * k) ** 2) == 0
    assert sympy.simplify(c.c3 - (H * k) ** 2 * (L + (L * k) ** 2)) == 0
    assert c.c4 == GAP + 2 * H**2 * D * E1
    assert {s.name for s in (c.c1 + c.c2 + c.c3).free_symbols} == {"L", "H", "beta1"}  # neither d nor T
    plain = constants(momentum=False)
    assert (plain.c1, plain.c2, plain.c3) == (L / 2, 2 * H**2, 0)
    # Chen's 11-function toy: C2 = 2·121, so that c/a = 0.16 alone puts the bound near 40, the truth being 1/121
    assert plain.numbers(1 / 11, 11.0, 0.0, 1.0, 1.0)[1] == 242.0


def test_a_bound_needs_steps():
    with pytest.raises(ValueError, match="must be positive"):
        bound((1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0))


# --- growth ---------------------------------------------------------------------------------------------------------

POWERS = (0.0, 0.25, 0.5, 1.0)
STEPS = 1 << 13


def second_moment(memory, v, g, t):
    """The one line of v̂ that each kind of memory stands for; β2 = 0.9."""
    match memory:
        case "fixed":
            return np.ones_like(v), np.ones_like(v)
        case "average":
            v = v + (g * g - v) / t
        case "sum":
            v = v + g * g
        case _:
            v = 0.9 * v + 0.1 * g * g
    return v, v


@pytest.fixture(scope="module", params=["fixed", "maximum", "average", "sum", "forgetting"])
def measured(request):
    """Sums of a, b, c, c+ at T/4, T/2 and T for every power, averaged over 256 coordinates: (3, 4, powers)."""
    rng = np.random.default_rng(11)
    p = np.array(POWERS)[:, None]
    v, largest = np.zeros(256), np.zeros(256)
    previous, sums, at = None, np.zeros((4, len(POWERS))), []
    for t in range(1, STEPS + 1):
        g = 0.9 + rng.choice([-1.0, 1.0], size=256)
        v, hat = second_moment(request.param, v, g, t)
        if request.param == "maximum":
            hat = largest = np.maximum(largest, hat)
        e = t**-p / np.sqrt(hat)
        change = np.zeros_like(e) if previous is None else e - previous
        sums += np.array([e, (e * g) ** 2, abs(change), np.maximum(change, 0.0)]).mean(axis=2)
        previous = e
        if t in (STEPS // 4, STEPS // 2, STEPS):
            at.append(sums.copy())
    return request.param, np.array(at)


@pytest.mark.parametrize("power", range(len(POWERS)), ids=[f"p={p}" for p in POWERS])
def test_growth_against_the_loop(measured, power):
    """What a doubling of T adds grows by 2^increment; 0.06: the maximum has 0.03 to settle, the rest errs by 0.01."""
    memory, at = measured
    predicted = growth(memory, sympy.Symbol("t", positive=True) ** -sympy.nsimplify(POWERS[power]))
    added = np.diff(at[:, :, power], axis=0)
    for rate, (first, second) in zip((predicted.a, predicted.b, predicted.c, predicted.rising), added.T, strict=True):
        if rate.increment == -sympy.oo:
            # none at all, or (the maximum, at constant α) what is left of settling
            assert second <= first <= 1e-2 * added[0, 0]
        else:
            assert np.log2(second / first) == pytest.approx(float(rate.increment), abs=0.06)


def test_where_stepsizes_cannot_rise_they_do_not(measured):
    memory, at = measured
    for power, rising in zip(POWERS, at[-1, 3], strict=True):
        if growth(memory, sympy.Symbol("t", positive=True) ** -sympy.nsimplify(power)).rising.increment == -sympy.oo:
            assert rising <= 1e-15 * at[-1, 0].max()  # t^-p √t is rounded


@pytest.mark.parametrize(
    ("method", "alpha", "a", "b", "c", "variance", "bias"),
    [
        ("sgd", "0.5/sqrt(t)", "sqrt(T)", "log(T)", "1", True, True),
        ("amsgrad", "1/sqrt(t)", "sqrt(T)", "log(T)", "1", True, True),
        ("adafom", "1/sqrt(t)", "sqrt(T)", "log(T)", "1", True, True),
        ("adam", "1/sqrt(t)", "sqrt(T)", "log(T)", "sqrt(T)", True, False),
        ("sgd", 0.1, "T", "T", "1", False, True),
        ("amsgrad", 0.1, "T", "T", "1", False, True),
        ("adafom", 0.1, "T", "T", "log(T)", False, True),
        ("adagrad", 0.1, "sqrt(T)", "log(T)", "1", True, True),
        ("adam", 0.1, "T", "T", "T", False, False),
        ("adam", "1/t", "log(T)", "1", "log(T)", True, False),
    ],
)
def test_the_table_of_growth(method, alpha, a, b, c, variance, bias):
    g = growth(method, alpha)
    assert [r.order for r in (g.a, g.b, g.c)] == [sympy.sympify(order, locals={"T": T}) for order in (a, b, c)]
    assert (g.variance, g.bias, g.alive) == (variance, bias, True)


def test_rates():
    assert growth("amsgrad").rate == sympy.log(T) / sympy.sqrt(T)  # Chen et al., corollary: O(log T/√T)
    assert growth("adam").rate == 1  # no guarantee
    assert not growth("sgd", "t**(-3/2)").alive
    p = sympy.Symbol("p", positive=True)
    symbolic = growth("adam", sympy.Symbol("t", positive=True) ** -p)
    assert symbolic.a.increment == 1 - p
    assert symbolic.b.order.subs(p, sympy.Rational(1, 2)) == sympy.log(T)
    assert symbolic.b.exponent.subs(p, sympy.Rational(1, 4)) == sympy.Rational(1, 2)


def test_powers_of_stepsizes():
    assert stepsize_power("3/(t + 7)**(1/3)") == sympy.Rational(1, 3)
    assert stepsize_power("0.01/sqrt(1 + 0.01*t)") == sympy.Rational(1, 2)
    for law in ("log(t)/t", "exp(-t)", "t", "sin(t)", "-1/t", "0.1*(1+cos(pi*t/T))/2", "1/+", None):
        with pytest.raises(ValueError, match="power of t"):
            stepsize_power(law)
    with pytest.raises(ValueError, match="'adma'"):
        growth("adma")


def test_every_method_has_a_memory_or_a_reason_why_not():
    assert set(MEMORY) | set(NONE) == set(METHODS)
    with pytest.raises(ValueError, match=r"accumulators of lion: .*need not have a mean"):
        growth("lion")


@pytest.mark.parametrize("method", ["adai", "avagrad", "demon_adam", "adam", "sgd"])
def test_c_over_a_falls_or_stays_as_the_memory_says(method):
    """With α = 1/√t like 1/t where v is not in e, not at all where it forgets; an average would fall like 1/√t."""
    x, y = sympy.symbols("x y")
    bowl = Problem([x**2 + y**2], variables=(x, y), domain=(-1, 1), noise=TwoPoint(3.0, 0.2))
    predicted = growth(method).c.increment - growth(method).a.increment
    observed = flatness(simulate(bowl, method, 2**16, "1/sqrt(t)"), "c")
    assert observed == pytest.approx(float(predicted), abs=0.25)


# --- Γ ---------------------------------------------------------------------------

positive = st.floats(1e-150, 1e150)


@given(st.lists(positive, min_size=2, max_size=20))
def test_gamma_is_negative_exactly_where_the_stepsize_rises(e):
    change = gamma(e)
    for i, value in enumerate(change):
        assert (value < 0) == (e[i + 1] > e[i])
        assert (value > 0) == (e[i + 1] < e[i])


def test_gamma_is_the_difference_of_reciprocals():
    e = np.random.default_rng(0).uniform(0.1, 1.0, (50, 3))
    assert np.allclose(gamma(e), 1 / e[1:] - 1 / e[:-1], rtol=0, atol=1e-14 * 10)
    assert (gamma(np.linspace(2.0, 1.0, 9)) > 0).all()
    with pytest.raises(ValueError, match="leave out"):
        gamma([0.0, 1.0])
