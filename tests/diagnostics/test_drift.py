"""The harm test of docs/theory.md 4.6: slow twins, error rates, and worlds whose drift is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import skew

from stepscope.diagnostics.drift import (
    HarmDecision,
    K,
    Stretches,
    _grams,
    covariance,
    cross_mean,
    fieller,
    jackknife,
    judge_harm,
    ratio_interval,
    student_t,
    undecided,
    unskewed,
)

HARMFUL, HARMLESS, INCONCLUSIVE = HarmDecision.HARMFUL, HarmDecision.HARMLESS, HarmDecision.INCONCLUSIVE


def streams(seed, steps, coords):
    rng = np.random.default_rng(seed)
    return rng.normal(0.3, 1.0, (steps, coords)), rng.lognormal(size=(steps, coords))


def fill(g, e):
    stretches = Stretches(g.shape[1])
    for now_g, now_e in zip(g, e, strict=True):
        with np.errstate(over="ignore"):
            squares, cubes = now_g**2, now_g**3
            stretches.current += np.stack([now_e * now_g, now_g, now_e, squares, cubes, now_e * squares])
        stretches.advance()
    return stretches


def judge_world(world, worlds):
    record = world.trace().drift
    return judge_harm(record.gram_dd[0], record.gram_dg[0], record.gram_gg[0], record.first_step, record.last_step)


def grams(d, g):
    """Gram matrices of stretch means `(k, coords)` at mean stepsize 1."""
    return d @ d.T, d @ g.T, g @ g.T


# twins


@pytest.mark.parametrize("steps", [16, 17, 31, 32, 33, 100, 255, 256, 257, 413])
def test_stretches_match_the_full_streams(worlds, steps):
    g, e = streams(steps, steps, 7)
    (first, last), *got = fill(g, e).gram([(3, 2.0), (0, 1.0), (4, 1.5)])
    scales, owner = np.array([2.0] * 3 + [1.5] * 4), np.array([0] * 3 + [2] * 4)
    twin = worlds.naive_drift(g, g, e, scales, owner, np.ones(steps))
    assert (first, last) == (twin.first_step, twin.last_step)
    for mine, theirs in zip(got, (twin.gram_dd, twin.gram_dg, twin.gram_gg), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-5)  # closed stretches are float32


def test_the_window_is_the_last_half():
    stretches = Stretches(1)
    for step in range(1, 3000):
        stretches.advance()
        if step < 2 * K:
            assert stretches.gram([(1, 1.0)]) is None
            continue
        (first, last), *_ = stretches.gram([(1, 1.0)])
        assert step - last < stretches.length
        assert abs((last - first + 1) - step / 2) <= stretches.length
        assert first > step / 2 - stretches.length


def naive_jackknife(matrices):
    """Leave out one stretch after another, with loops."""

    def u(matrix, keep):
        pairs = [matrix[i][j] for i in keep for j in keep if i != j]
        return sum(pairs) / len(pairs)

    k = len(matrices[0])
    everything = [u(matrix, range(k)) for matrix in matrices]
    left_out = [[u(matrix, [i for i in range(k) if i != drop]) for matrix in matrices] for drop in range(k)]
    means = [sum(row[a] for row in left_out) / k for a in range(len(matrices))]
    size = range(len(matrices))
    covariance = [
        [sum((row[a] - means[a]) * (row[b] - means[b]) for row in left_out) * (k - 1) / k for b in size] for a in size
    ]
    return everything, covariance


@pytest.mark.parametrize("k", [4, 8])
def test_jackknife_matches_the_loop(k):
    matrices = np.random.default_rng(k).normal(size=(3, k, k))
    values, left_out = jackknife(matrices)
    naive_values, naive_covariance = naive_jackknife(matrices.tolist())
    assert values == pytest.approx(naive_values, rel=1e-12)
    assert covariance(left_out) == pytest.approx(np.array(naive_covariance), rel=1e-12)


@pytest.mark.parametrize("k", [8, 11])
def test_the_jackknife_leaves_out_a_stretch_altogether(k):
    """Its stepsizes too: what is left equals the products computed from the other stretches alone."""
    means = np.random.default_rng(k).exponential(size=(k, 3, 4))
    _, dg, gg = _grams(means)
    _, left_out = jackknife(np.stack([dg, gg]), np.diagonal(dg))
    left = []
    for i in range(k):
        _, other_dg, other_gg = _grams(np.delete(means, i, axis=0))
        left.append((cross_mean(other_dg), cross_mean(other_gg)))
    deviation = np.array(left) - np.mean(left, axis=0)
    assert left_out == pytest.approx(-deviation, rel=1e-9)
    assert covariance(left_out) == pytest.approx((k - 1) / k * deviation.T @ deviation, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_fieller_solves_its_inequality(seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(2, 2))
    x, y, joint, t = rng.normal(), 20.0, root @ root.T, 2.4
    low, high = fieller(x, y, joint, t)

    def inside(r):
        spread = joint[0, 0] - 2 * r * joint[0, 1] + r**2 * joint[1, 1]
        return (x - r * y) ** 2 <= t**2 * spread

    assert low < x / y < high
    for r in np.linspace(low - 1, high + 1, 1001):
        assert inside(r) == (low <= r <= high)
    assert fieller(x, 0.01, joint, t) is None


@pytest.mark.parametrize("seed", range(5))
def test_unskewed_solves_halls_transformation(seed):
    """Its answers are the values of Student's t that the transformation sends to -t and t."""
    deviations = np.random.default_rng(seed).exponential(size=9)
    deviations -= deviations.mean()
    k, skewness = 9, skew(deviations, bias=False)

    def transformed(q):
        u = q / math.sqrt(k)
        return math.sqrt(k) * (u + skewness * u**2 / 3 + skewness**2 * u**3 / 27 + skewness / (6 * k))

    below, above = unskewed(deviations, 2.3)
    assert transformed(below) == pytest.approx(-2.3)
    assert transformed(above) == pytest.approx(2.3)
    assert (below < -2.3) == (above < 2.3) == (skewness > 0)


def test_unskewed_leaves_even_values_alone():
    assert unskewed(np.array([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0]), 2.3) == (-2.3, 2.3)


@pytest.mark.parametrize("seed", range(5))
def test_an_interval_reaches_at_least_as_far_as_fiellers(seed):
    rng = np.random.default_rng(seed)
    left_out = rng.exponential(size=(9, 2)) * [0.3, 0.1]
    left_out -= left_out.mean(axis=0)
    low, high = fieller(1.0, 3.0, covariance(left_out), student_t(8, 0.95))
    wider = ratio_interval(1.0, 3.0, left_out)
    assert wider[0] <= low
    assert high <= wider[1]
    assert wider[0] < low - 1e-6 or wider[1] > high + 1e-6  # on one side, that of the rare stretches
    mirrored = ratio_interval(-1.0, 3.0, left_out * [-1.0, 1.0])
    assert mirrored == pytest.approx((-wider[1], -wider[0]))


@pytest.mark.parametrize(("above", "decision"), [(15.0, INCONCLUSIVE), (30.0, HARMLESS)])
def test_where_rare_stretches_go_uphill_harmless_is_said_later(above, decision):
    """Two of nine stretches lie far below the others: z = 4.7 passes Student's 2.3, and not Hall's 8.6."""
    d = np.array([[1.0]] * 7 + [[-12.0], [-20.0]]) + above
    harm = judge_harm(*grams(d, np.ones((9, 1))), 1, 9)
    assert harm.z > 2 * student_t(8, 0.95)
    assert harm.decision is decision


def test_student_t_of_seven():
    assert student_t(7, 0.95) == pytest.approx(2.3646, abs=1e-4)  # tables
    assert student_t(7, 0.998) == pytest.approx(4.785, abs=1e-3)


# error rates; the seeds are fixed, the tolerances four binomial standard errors


def rate(make, trials=1500):
    harms = [judge_harm(*grams(*make(np.random.default_rng(seed))), 1, 100) for seed in range(trials)]
    return harms, sum(harm.decision is HARMFUL for harm in harms) / trials


@pytest.mark.parametrize("coords", [1, 10, 300])
@pytest.mark.parametrize("coupling", [1.0, 0.9, 0.0])
def test_noise_alone_raises_no_alarm(coords, coupling):
    def noise(rng):
        g = rng.normal(size=(K, coords))
        return coupling * g + math.sqrt(1 - coupling**2) * rng.normal(size=g.shape), g

    _, alarms = rate(noise, 1000)
    assert alarms <= 0.005  # measured over 4000 seeds: at most 0.0005


@pytest.mark.parametrize("rho", [1.0, 0.5, -1.0])
@pytest.mark.parametrize("coords", [1, 10])
def test_the_interval_covers_rho(rho, coords):
    mean = 3 * np.ones(coords) / math.sqrt(coords)

    def drifting(rng):
        shared, own = rng.normal(size=(2, K, coords))
        return rho * mean + 0.8 * shared + 0.6 * own, mean + shared

    harms, alarms = rate(drifting)
    covered = np.mean([harm.interval[0] <= rho <= harm.interval[1] for harm in harms])
    assert covered >= 0.92  # nominal 0.95, measured 0.93-0.97
    assert alarms >= 0.9 if rho < 0 else alarms <= 0.005


@pytest.mark.slow
def test_noise_balls_raise_no_alarm(worlds):
    """Gradients that cancel from stretch to stretch make U(g, g) negative: neither U nor 4 U is a speed."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        curvature, x, lr = rng.uniform(0.01, 3, size=50), 0.1 * rng.normal(size=50), 0.02
        g = np.empty((1000, 50))
        for now in g:
            now[:] = curvature * x + rng.normal(size=50)
            x = x - lr * now
        assert judge_world(worlds.World(g, np.full_like(g, lr), np.full(1000, lr)), worlds).decision is not HARMFUL


# theorems: docs/theory.md 4.4 and 4.6


def exact_rho(high, low, period, beta1, beta2):
    """Return ρ of Adam on a game with one gradient `high` and period - 1 times `low`: v and m in closed form."""

    def average(first, rest, beta):
        age = np.arange(period)
        return rest + (first - rest) * (1 - beta) * beta**age / (1 - beta**period)

    h = 1 / np.sqrt(average(high**2, low**2, beta2))
    mean_gradient = (high + (period - 1) * low) / period
    return (h * average(high, low, beta1)).mean() / (h.mean() * mean_gradient)


@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize("beta2", [0.9, 0.99, 0.999, 0.9999])
def test_reddis_online_game(worlds, beta1, beta2):
    """Reddi et al. 2018, section 5; -96, -22.8, -1.57 and +0.74 in docs/theory.md are those of β1 = 0."""
    rho = exact_rho(1010.0, -10.0, 101, beta1, beta2)
    harm = judge_world(worlds.play("online", "adam", 300_000, beta1=beta1, beta2=beta2), worlds)
    assert harm.interval[0] <= rho <= harm.interval[1]
    assert harm.decision is (HARMFUL if rho < 0 else HARMLESS)


def test_amsgrad_descends_on_reddis_online_game(worlds):
    harm = judge_world(worlds.play("online", "amsgrad", 300_000, beta1=0.9), worlds)
    assert harm.interval[0] <= 1 <= harm.interval[1]
    assert harm.decision is HARMLESS


def test_reddis_first_theorem(worlds):
    harm = judge_world(worlds.play("t1", "adam", 100_000, beta2=0.1), worlds)
    assert harm.rho == pytest.approx(-0.98, abs=0.03)
    assert harm.decision is HARMFUL


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adam", "amsgrad"])
def test_reddis_stochastic_game_drowns_in_noise(worlds, method):
    """The mean gradient is 0.2 and its standard error over half of the run 0.26: nobody can tell its sign."""
    for seed in range(4):
        harm = judge_world(worlds.play("stochastic", method, 300_000, beta2=0.99, seed=seed), worlds)
        assert harm.decision is INCONCLUSIVE
        assert harm.interval == (-math.inf, math.inf)


def test_sgd_has_rho_one():
    g, e = streams(3, 400, 5)
    (window, dd, dg, gg) = fill(g + 2, np.full_like(e, 0.1)).gram([(5, 1.0)])
    harm = judge_harm(dd[0], dg[0], gg[0], *window)
    assert harm.rho == pytest.approx(1.0, rel=1e-6)
    assert harm.interval == pytest.approx((1.0, 1.0), rel=1e-5)


# edges


def test_coordinates_that_never_step_contribute_nothing():
    g, e = streams(0, 64, 4)
    e[:, 2] = 0.0
    g[:, 2] = 5.0
    _, *with_dead = fill(g, e).gram([(4, 1.0)])
    _, *without = fill(g[:, [0, 1, 3]], e[:, [0, 1, 3]]).gram([(3, 1.0)])
    assert np.array(with_dead) == pytest.approx(np.array(without), rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e300])
def test_non_finite_coordinates_contribute_nothing(bad):
    g, e = streams(0, 64, 4)
    g[40, 1] = bad
    _, *grams_of = fill(g, e).gram([(4, 1.0)])
    assert np.isfinite(grams_of).all()


def test_rounding_is_no_harm():
    """Steps that cancel to the last bit, as in a limit cycle, have ρ = -1e-17 and no scatter at all."""
    ones = np.ones((K, K))
    assert judge_harm(ones, -1e-17 * ones, ones, 1, 64).decision is HarmDecision.IDLE
    assert judge_harm(ones, -1e-3 * ones, ones, 1, 64).decision is HARMFUL


def test_nothing_measured_decides_nothing():
    zero = np.zeros((K, K))
    harm = judge_harm(zero, zero, zero, 1, 64)
    assert (harm.decision, harm.interval, harm.steps_needed) == (INCONCLUSIVE, (-math.inf, math.inf), None)
    assert judge_harm(zero + math.nan, zero, zero, 1, 64).decision is INCONCLUSIVE
    assert undecided("no reason").decision is INCONCLUSIVE
    assert cross_mean(np.ones((2, 3, 3))) == pytest.approx(np.ones(2))


def test_a_restored_copy_goes_on_alike():
    g, e = streams(1, 100, 3)
    whole, first, second = fill(g, e), fill(g[:37], e[:37]), Stretches(3)
    second.restore(first.state())
    first.current += 1.0  # `state` holds copies
    current = second.current
    for now_g, now_e in zip(g[37:], e[37:], strict=True):
        current += np.stack([now_e * now_g, now_g, now_e, now_g**2, now_g**3, now_e * now_g**2])
        second.advance()
    assert current is second.current  # closing and merging never replace the array that the kernel holds
    for mine, theirs in zip(second.gram([(3, 1.0)])[1:], whole.gram([(3, 1.0)])[1:], strict=True):
        assert np.array_equal(mine, theirs)


def test_restoring_another_model_is_refused():
    with pytest.raises(ValueError, match="must hold 3 coordinates"):
        Stretches(3).restore(Stretches(4).state())


def test_coordinates_added_later():
    g, e = streams(1, 50, 3)
    stretches = fill(g, e)
    before = stretches.gram([(3, 1.0)])
    stretches.extend(2)
    assert stretches.current.shape == (6, 5)
    assert stretches.current.flags.c_contiguous
    _, dd, *_ = stretches.gram([(3, 1.0), (2, 1.0)])
    assert np.array_equal(dd[0], before[1][0])
    assert not dd[1].any()


# invariance


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(-20, 20), st.integers(-20, 20))
def test_scales_and_order_of_coordinates_change_nothing(seed, coords, g_power, e_power):
    rng = np.random.default_rng(seed)
    g, e = streams(seed, 64, coords)
    order = rng.permutation(coords)
    plain, changed = fill(g, e), fill(2.0**g_power * g[:, order], 2.0**e_power * e[:, order])
    harms = []
    for stretches in (plain, changed):
        window, dd, dg, gg = stretches.gram([(coords, 1.0)])
        harms.append(judge_harm(dd[0], dg[0], gg[0], *window))
    assert harms[0].decision is harms[1].decision
    assert harms[0].rho == pytest.approx(harms[1].rho, rel=1e-6, nan_ok=True)
    assert harms[0].interval == pytest.approx(harms[1].interval, rel=1e-5)


def test_coordinates_with_rare_gradients_do_not_drown_the_others():
    """Adam with β2 = 0.9: a gradient once in a thousand steps, and none between, beside ones that are always there.

    Between its gradients the rare coordinate's stepsize grows from lr/|g| to lr/eps, ē is that, and nobody steps by it.
    """
    rng, steps, beta2 = np.random.default_rng(0), 8192, 0.9
    g = rng.normal(1.0, 1.0, (steps, 9))
    g[:, 0] = np.where(np.arange(steps) % 1000 == 500, 1.0, 0.0)
    v, e = np.zeros(9), np.zeros((steps, 9))
    for t in range(steps):
        v = beta2 * v + (1 - beta2) * g[t] ** 2
        e[t] = np.where(v > 0, 1 / (np.sqrt(v / (1 - beta2 ** (t + 1))) + 1e-8), 0.0)
    both, usual = (
        judge_harm(*(x[0] for x in fill(g[:, own], e[:, own]).gram([(len(own), 1.0)])[1:]), 0, 0)
        for own in (np.arange(9), np.arange(1, 9))
    )
    assert both == usual
    assert usual.rho > 0.5
    assert e[:, 0].mean() * g[:, 0].mean() ** 2 > 10 * (e[:, 1:].mean(axis=0) * g[:, 1:].mean(axis=0) ** 2).sum()


@pytest.mark.parametrize(("size", "decision"), [(0.02, HarmDecision.IDLE), (0.5, INCONCLUSIVE)])
def test_steps_that_lead_nowhere_for_sure_are_told_from_those_that_nobody_knows(size, decision):
    """Steps without direction beside a clear gradient: their interval reaches 2.14·size/√15 either way."""
    rng = np.random.default_rng(3)
    g, noise = 1 + 0.1 * rng.normal(size=(15, 400)), rng.normal(size=(15, 1)) * np.ones(400)
    harm = judge_harm(*grams(size * noise, g), 1, 64)
    assert harm.decision is decision
    assert decision is INCONCLUSIVE or harm.steps_needed is None
    assert ("no descent is left" in harm.reason) is (decision is HarmDecision.IDLE)


def test_rare_gradients_that_adam_climbs_against_are_not_asleep():
    """+60 once in 50 steps, −0.0001 else, β2 = 0.5: the mean is 1.2, and the steps go the other way.

    Between the large gradients e is a thousand times and more the stepsize that they meet.
    """
    steps, beta2 = 8192, 0.5
    g = np.where(np.random.default_rng(0).random((steps, 4)) < 0.02, 60.0, -1e-4)
    v, e = np.zeros(4), np.zeros((steps, 4))
    for t in range(steps):
        v = beta2 * v + (1 - beta2) * g[t] ** 2
        e[t] = 1 / np.sqrt(v / (1 - beta2 ** (t + 1)))
    assert ((e * g**2).mean(axis=0) < 1e-3 * e.mean(axis=0) * (g**2).mean(axis=0)).all()
    harm = judge_harm(*(x[0] for x in fill(g, e).gram([(4, 1.0)])[1:]), 0, 0)
    assert harm.decision is HARMFUL
