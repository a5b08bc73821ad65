"""What the modules of Luo, Savarese, Molybog, Wortsman and of AdamNC derive, by other ways than theirs."""

import math

import numpy as np
import pytest
import pytorch_optimizer
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from stepscope.synthetic import luo2019, molybog2023, savarese2019, savarese2021, wortsman2023
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.reddi2018 import BOX, online, period
from stepscope.synthetic.reddi2018_adamnc import swing
from stepscope.synthetic.reddi2018_runs import moves

# AdaBound's own problem


@given(st.integers(3, 60), st.floats(0.02, 0.99))
def test_sixteen_decides_which_way_adam_goes(C, beta2):
    """The step of the −1 against that of the 2, with v run until it repeats: wrong exactly where 16 β2^(C−2) < 1."""
    assume(abs(16 * beta2 ** (C - 2) - 1) > 1e-6)
    v, up, down = 0.0, 0.0, 0.0
    for t in range(C * math.ceil(1 + 40 / (1 - beta2) / C)):
        phase = t % C
        v = beta2 * v + (1 - beta2) * (1.0 if phase == 0 else 4.0 if phase == 1 else 0.0)
        if phase == 0:
            up = 1 / math.sqrt(v)
        elif phase == 1:
            down = 2 / math.sqrt(v)
    assert (up > down) is (16 * beta2 ** (C - 2) < 1)
    if luo2019.proven(C, beta2):  # sufficient, so it must not hold where Adam goes right
        assert up > down


def test_luos_game():
    game = luo2019.game(7)
    x = game.variables[0]
    assert game.objective == x / 7
    assert game.optimum == pytest.approx([-2])
    with pytest.raises(ValueError, match="without a pause"):
        luo2019.game(2)


# against AdaBound


def bounded(root, u, ratio):
    return min(max(1 / root, ratio * (1 - 1 / (u + 1))), ratio * (1 + 1 / u))


@pytest.mark.parametrize(("share", "side"), [(0.9, -1), (1.1, 1)])
def test_the_drift_on_the_period_turns_at_its_root(share, side):
    """Before u* it points to +1 and after it to −1, whatever γ; v run for a hundred periods."""
    u, v, drift = share * savarese2019.CYCLED_TURN, 0.0, 0.0
    for k in range(300):
        g = 3.0 if k % 3 == 0 else -1.0
        v = 0.1 * v + 0.9 * g**2
        drift = g * bounded(math.sqrt(v), u, savarese2019.RATIO) + (0.0 if k % 3 == 0 else drift)
    assert drift * side > 0
    assert drift == pytest.approx(savarese2019.cycled_drift(u, savarese2019.RATIO), rel=1e-9)


@pytest.mark.parametrize("u", [0.1, 0.5, 3.0])
def test_the_drift_on_draws_by_drawing(u):
    """1000 chains of 500 draws, the first 20 left out: within 4 standard errors."""
    rng = np.random.default_rng(11)
    (p, _), (high, low) = savarese2019.law()
    v, sums = np.full(1000, 4.0), np.zeros(1000)
    for t in range(520):
        g = np.where(rng.random(1000) < p, high, low)
        v = 0.1 * v + 0.9 * g**2
        if t >= 20:
            sums += g * savarese2019.clipped(1 / np.sqrt(v), u, savarese2019.RATIO)
    each = sums / 500
    expected = savarese2019.drawn_drift(u, savarese2019.RATIO)
    assert each.mean() == pytest.approx(expected, abs=4 * each.std(ddof=1) / math.sqrt(1000))


def test_savareses_problems():
    drawn = savarese2019.drawn(0.5)
    assert drawn.objective == drawn.variables[0] / 2
    assert drawn.optimum == pytest.approx([-1])
    assert savarese2019.cycled().optimum == pytest.approx([-1])
    assert savarese2021.stochastic().optimum == pytest.approx([savarese2021.MINIMIZER])


# steps that are long and lead nowhere


@given(st.floats(0, 0.99), st.floats(0, 0.95))
def test_the_gain_is_a_double_sum(correlation, beta1):
    lags = np.arange(400)
    weights = (1 - beta1) * beta1**lags
    total = weights @ (correlation ** np.abs(lags[:, None] - lags[None, :])) @ weights
    assert molybog2023.gain(beta1, correlation) == pytest.approx(total, rel=1e-6)  # 0.95^400 = 1e-9 is left out


def test_correlated_noise_has_its_moments_and_may_be_cut_anywhere():
    """2e5 values with φ = 0.6, in effect 5e4 independent ones: variance and correlations within 4 errors."""
    noise = molybog2023.Correlated(2.0, 0.6)
    whole = noise.stream(2, np.random.default_rng(3))(200_000)
    take = noise.stream(2, np.random.default_rng(3))
    assert np.array_equal(np.concatenate([take(k) for k in (1, 0, 7, 199_992)]), whole)
    effective = 200_000 * (1 - 0.36) / (1 + 0.36)  # of squares, whose correlation is φ²
    assert whole.var(axis=0) == pytest.approx([4.0, 4.0], rel=4 * math.sqrt(2 / effective))
    for lag in (1, 3):
        found = [np.mean(whole[lag:, i] * whole[:-lag, i]) / 4 for i in (0, 1)]
        assert found == pytest.approx([0.6**lag] * 2, abs=4 * math.sqrt(2 / effective))
    assert abs(np.mean(whole[:, 0] * whole[:, 1])) / 4 < 4 / math.sqrt(200_000 * (1 - 0.36) / (1 + 0.36))
    with pytest.raises(ValueError, match="were expected"):
        molybog2023.Correlated(1.0, 1.0)


@given(st.lists(st.floats(-10, 10).filter(lambda g: abs(g) > 1e-3), min_size=1, max_size=60))
def test_no_gradients_make_a_longer_step_than_the_bound(gradients):
    betas = (0.9, 0.99)
    assert molybog2023.largest(np.array(gradients), betas) <= molybog2023.steepest(betas) * (1 + 1e-12)


# a second moment that lags


def test_stable_adamw_is_the_public_packages():
    """A thousand steps on four coordinates with a jump, float64, no decay."""
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((1000, 4)) * np.where(np.arange(1000) < 600, 1.0, 30.0)[:, None]
    parameter = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    twin = pytorch_optimizer.StableAdamW([parameter], lr=0.01, betas=(0.9, 0.97), eps=1e-6, weight_decay=0.0)
    p = np.array([0.9, 0.97, 1e-6])
    s, e, dx, x = np.zeros((2, 4)), np.zeros(4), np.zeros(4), np.zeros(4)
    for t, g in enumerate(gradients, 1):
        parameter.grad = torch.from_numpy(g.copy())
        twin.step()
        wortsman2023.STABLE.update(t, 0.01, g, s, p, e, dx)
        x += dx
        assert x == pytest.approx(parameter.detach().numpy(), rel=1e-11, abs=1e-12)


def test_stable_adamw_waits_for_a_gradient():
    g, e, dx = np.zeros(2), np.ones(2), np.ones(2)
    wortsman2023.stable_adamw(1, 0.1, g, np.zeros((2, 2)), np.array([0.9, 0.99, 0.0]), e, dx)
    assert not e.any()
    assert not dx.any()


@given(st.floats(0.1, 100), st.floats(0.5, 0.999), st.integers(0, 50))
def test_rms_after_a_jump_by_recursion(factor, beta2, later):
    v = 1.0
    for _ in range(later + 1):
        v = beta2 * v + (1 - beta2) * factor**2
    assert wortsman2023.expected_jump(factor, beta2, later) == pytest.approx(factor / math.sqrt(v), rel=1e-9)
    assert wortsman2023.expected_jump(factor, beta2, later) <= 1 / math.sqrt(1 - beta2)


def test_the_recorded_rms_is_that_of_the_formula():
    """Three coordinates of unlike size: √(mean g²/v̂), step by step."""
    noise = wortsman2023.Sizes(((1, 1.0), (40, 5.0)), loud=2)
    trace = simulate(wortsman2023.world(noise, 3), "adam", 80, 1.0, (0.0, 0.9), records=80, eps=0.0)
    g = noise.stream(3, np.random.default_rng([0, 1]))(80)
    v, expected = np.zeros(3), []
    for t, row in enumerate(g, 1):
        v = 0.9 * v + 0.1 * row**2
        expected.append(math.sqrt(np.mean(row**2 / (v / (1 - 0.9**t)))))
    assert wortsman2023.rms(trace) == pytest.approx(expected, rel=1e-9)


def test_sizes_may_be_cut_anywhere():
    noise = wortsman2023.Sizes(((1, 1.0), (4, 0.0), (9, 3.0)), loud=1)
    whole = noise.stream(2, np.random.default_rng(1))(12)
    take = noise.stream(2, np.random.default_rng(1))
    assert np.array_equal(np.concatenate([take(k) for k in (3, 0, 5, 4)]), whole)
    assert np.abs(whole[:, 0]).tolist() == [1.0] * 3 + [0.0] * 5 + [3.0] * 4
    assert np.abs(whole[:, 1]).tolist() == [1.0] * 12


@pytest.mark.parametrize("beta2", [0.5, 0.9])
def test_the_mean_square_of_normal_gradients_by_drawing(beta2):
    """2000 chains of 300 steps, 100 left out: within 4 standard errors."""
    rng = np.random.default_rng(4)
    v, sums = np.ones(2000), np.zeros(2000)
    for t in range(300):
        square = rng.standard_normal(2000) ** 2
        v = beta2 * v + (1 - beta2) * square
        if t >= 100:
            sums += square / v
    each = sums / 200
    expected = wortsman2023.expected_normal(beta2)
    assert each.mean() == pytest.approx(expected, abs=4 * each.std(ddof=1) / math.sqrt(2000))


# AdamNC


@given(
    st.lists(st.floats(-10, 10).filter(lambda g: abs(g) > 1e-3), min_size=1, max_size=80),
    st.floats(0.05, 5.0),
    st.floats(-1, 1),
)
def test_no_game_beats_adagrads_bound(gradients, alpha, best):
    """Regret against any point of the box, on any sequence of slopes, is at most (D²/(2α) + α)·√Σg²."""
    x, total, regret = 0.0, 0.0, 0.0
    for g in gradients:
        regret += g * (x - best)
        total += g**2
        x = min(max(x - alpha / math.sqrt(total) * g, BOX[0]), BOX[1])
    assert regret <= (2.0**2 / (2 * alpha) + alpha) * math.sqrt(total) * (1 + 1e-12)


@pytest.mark.parametrize(("method", "betas", "wall"), [("adafom", None, -1.0), ("adam_plain", (0.9, 0.99), 1.0)])
def test_the_swing_is_what_small_steps_lose_at_the_wall(method, betas, wall):
    g, step, alpha = period(online()), moves("online", method, betas), 1e-6
    x, regret = wall, 0.0
    for lap in range(4):
        for i in range(101):
            if lap == 3:
                regret += g[i] * (x - wall)
            x = min(max(x - alpha * step[i], -1.0), 1.0)
    assert regret / alpha == pytest.approx(-wall * swing(step), rel=1e-6)


def test_no_two_cosines_share_a_draw():
    blocks = [set(molybog2023._seeds(block)) for block in range(4)]
    assert len(set.union(*blocks)) == sum(map(len, blocks))
    arguments = [claim.observe.args for claim in molybog2023.stated() if "cosine" in claim.name]
    assert [block for _, block in arguments] == [0, 1, 2, 3]
