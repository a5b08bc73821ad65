"""The update rules against torch's own optimizers, against slow twins, and against what must hold of each."""

import math
import pickle

import numba
import numpy as np
import pytest
import pytorch_optimizer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numba.core import sigutils, types

from stepscope.synthetic.methods import METHODS, SIGNATURE, Method, method, parameters
from stepscope.synthetic.rules_adam import debias

STEPS = 1000
ALL = pytest.mark.parametrize("name", METHODS)


def play(name, gradients, alphas, *, plain=False, **hyper):
    """e, dx and the first state row after each step, each (steps, dim)."""
    rule = method(name)
    p = parameters(rule, **hyper)
    update = rule.rule if plain else rule.update
    steps, dim = gradients.shape
    s, e, dx = np.zeros((rule.rows(p), dim)), np.zeros(dim), np.zeros(dim)
    out = np.zeros((3, steps, dim))
    for t, (g, alpha) in enumerate(
        zip(np.ascontiguousarray(gradients), np.broadcast_to(alphas, steps), strict=True), 1
    ):
        update(t, float(alpha), g, s, p, e, dx)
        out[0, t - 1], out[1, t - 1] = e, dx
        out[2, t - 1] = s[0] if len(s) else 0.0
    return out


def noisy(steps=STEPS, seed=0):
    """Gradients of four coordinates: of different size, with a mean, rare and large, and with a silent beginning."""
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(steps, 4)) * [1.0, 1e-3, 30.0, 1.0] + [0.0, 1e-3, 0.0, 0.5]
    g[:, 2] *= rng.random(steps) < 0.05
    g[0] = [1.0, -1e-3, 30.0, 0.5]
    return g


def root(steps, alpha=0.1):
    return alpha / np.sqrt(np.arange(1, steps + 1))


def torch_steps(make, gradients, alphas, prepare=None):
    """The steps of a torch optimizer, exact because the parameter is put back to zero before each."""
    x = torch.nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    optimizer = make([x], float(alphas[0]))
    steps = []
    for t, (g, alpha) in enumerate(zip(gradients, alphas, strict=True), 1):
        with torch.no_grad():
            x.zero_()
        x.grad = torch.from_numpy(g.copy())
        optimizer.param_groups[0]["lr"] = float(alpha)
        if prepare:
            prepare(optimizer, x, t)
        optimizer.step()
        steps.append(x.detach().numpy().copy())
    return np.array(steps)


def agree(mine, twin):
    """Every step to 1e-12 of the coordinate's largest, and the distance travelled to 1e-12 of its length."""
    size = np.abs(twin)
    assert size.max() > 0
    assert (np.abs(mine - twin) <= 1e-12 * size.max(axis=0)).all()
    assert (np.abs((mine - twin).sum(axis=0)) <= 1e-12 * size.sum(axis=0)).all()


# ---- twins: the public packages ------------------------------------------------------------------------------------

BETAS = {"beta1": 0.85, "beta2": 0.97}
PAIR = (0.85, 0.97)
po, optim = pytorch_optimizer, torch.optim

TWINS = {
    "sgd": ("sgd", {}, optim.SGD),
    "momentum": ("momentum", {"beta1": 0.8}, lambda x, lr: optim.SGD(x, lr, momentum=0.8)),
    "adagrad": ("adagrad", {"eps": 1e-3}, lambda x, lr: optim.Adagrad(x, lr, eps=1e-3)),
    "rmsprop": ("rmsprop", {"beta2": 0.95, "eps": 1e-3}, lambda x, lr: optim.RMSprop(x, lr, alpha=0.95, eps=1e-3)),
    "adam": ("adam", BETAS | {"eps": 1e-4}, lambda x, lr: optim.Adam(x, lr, PAIR, 1e-4)),
    "adam-defaults": ("adam", {}, optim.Adam),
    "adam-beta1=0": ("adam", {"beta1": 0.0}, lambda x, lr: optim.Adam(x, lr, (0.0, 0.999))),
    "amsgrad_torch": (
        "amsgrad_torch",
        BETAS | {"eps": 1e-4},
        lambda x, lr: optim.Adam(x, lr, PAIR, 1e-4, amsgrad=True),
    ),
    "adabelief": ("adabelief", BETAS | {"eps": 1e-4}, lambda x, lr: po.AdaBelief(x, lr, PAIR, eps=1e-4)),
    "adabelief-defaults": ("adabelief", {}, po.AdaBelief),
    "adabelief-beta1=0": ("adabelief", {"beta1": 0.0}, lambda x, lr: po.AdaBelief(x, lr, (0.0, 0.999))),
    "adabound": (
        "adabound",
        BETAS | {"eps": 1e-4, "final_lr": 0.3, "gamma": 0.01},
        lambda x, lr: po.AdaBound(x, lr, 0.3, PAIR, 0.01, eps=1e-4),
    ),
    "adashift": ("adashift", BETAS | {"n": 7}, lambda x, lr: po.AdaShift(x, lr, PAIR, 7)),
    "adashift-each": (
        "adashift",
        BETAS | {"block": 0, "eps": 1e-4},
        lambda x, lr: po.AdaShift(x, lr, PAIR, reduce_func=lambda square: square, eps=1e-4),
    ),
    "adashift-mean": ("adashift", {"block": 2}, lambda x, lr: po.AdaShift(x, lr, reduce_func=torch.mean)),
    "adashift-n=1": ("adashift", {"beta1": 0.0, "n": 1}, lambda x, lr: po.AdaShift(x, lr, (0.0, 0.999), 1)),
    "adopt": ("adopt", BETAS | {"eps": 1e-4}, lambda x, lr: po.ADOPT(x, lr, PAIR, eps=1e-4)),
    "adopt-unclipped": ("adopt", {"clip": math.inf}, lambda x, lr: po.ADOPT(x, lr, clip_lambda=None)),
    "avagrad": ("avagrad", BETAS | {"eps": 1e-2}, lambda x, lr: po.AvaGrad(x, lr, PAIR, eps=1e-2)),
    "adai": ("adai", {"beta0": 0.2, "beta2": 0.9, "eps": 0.01}, lambda x, lr: po.Adai(x, lr, (0.2, 0.9), eps=0.01)),
    "adai-defaults": ("adai", {}, po.Adai),
    "lion": ("lion", {"beta1": 0.8, "beta2": 0.95}, lambda x, lr: po.Lion(x, lr, (0.8, 0.95))),
}


@pytest.mark.parametrize("case", TWINS)
def test_every_step_equals_the_package(case):
    name, hyper, make = TWINS[case]
    gradients, alphas = noisy(), root(STEPS)
    agree(play(name, gradients, alphas, **hyper)[1], torch_steps(make, gradients, alphas))


@pytest.mark.parametrize("case", ["adopt", "avagrad"])
def test_a_silent_beginning_equals_the_package_where_the_root_is_one_step_old(case):
    """The first gradient of a coordinate meets v = 0: it is divided by eps and clipped, or divided by eps alone."""
    name, hyper, make = TWINS[case]
    gradients, alphas = noisy(), root(STEPS)
    gradients[:20, 1] = 0.0
    e, dx, _ = play(name, gradients, alphas, **hyper)
    agree(dx, torch_steps(make, gradients, alphas))
    assert (e[:20, 1] == 0).all()
    assert e[20, 1] > 0


def test_yogi_equals_the_package_but_for_its_start_of_the_momentum():
    """The package starts m at 1e-6 as it does v; the paper starts it at zero."""

    def clear(optimizer, x, t):
        if t == 1:
            optimizer.init_group(optimizer.param_groups[0])
            optimizer.state[x]["exp_avg"].zero_()

    def make(x, lr):
        return po.Yogi(x, lr, PAIR, eps=1e-4)

    gradients, alphas = noisy(), root(STEPS)
    e, dx, _ = play("yogi", gradients, alphas, **BETAS, eps=1e-4)
    agree(dx, torch_steps(make, gradients, alphas, clear))
    left = 1e-6 * PAIR[0] ** np.arange(1, STEPS + 1)[:, None]
    agree(dx - e * left, torch_steps(make, gradients, alphas))


def test_dampened_momentum_equals_torch_but_for_its_undampened_first_gradient():
    gradients, alphas = noisy(), root(STEPS)
    twin = torch_steps(lambda x, lr: optim.SGD(x, lr, momentum=0.8, dampening=0.3), gradients, alphas)
    mine = play("momentum", gradients, alphas, beta1=0.8, dampening=0.3)[1]
    left = 0.3 * 0.8 ** np.arange(STEPS)[:, None] * gradients[0]
    agree(mine - alphas[:, None] * left, twin)


def test_avagrad_after_the_paper_differs_from_the_package_by_the_norm_alone():
    """The package divides by the norm of the step before; exchanging the two norms makes the steps equal."""
    inverse_norms = []
    gradients, alphas = noisy(), root(STEPS)
    twin = torch_steps(
        lambda x, lr: po.AvaGrad(x, lr, PAIR, eps=1e-2),
        gradients,
        alphas,
        lambda optimizer, x, t: inverse_norms.append(optimizer.param_groups[0].get("gamma", 1.0)),
    )
    mine = play("avagrad", gradients, alphas, **BETAS, eps=1e-2, lag=0)[1]
    powers = 1 - PAIR[1] ** np.arange(1, STEPS)
    v = np.array([(1 - PAIR[1]) * PAIR[1] ** np.arange(t)[::-1] @ gradients[:t] ** 2 for t in range(1, STEPS)])
    eta = 1 / (np.sqrt(v / powers[:, None]) + 1e-2)
    ratio = 1 / np.sqrt(np.mean(eta**2, axis=1)) / inverse_norms[1:]
    assert np.abs(ratio - 1).max() > 0.01
    agree(mine[1:], twin[1:] * ratio[:, None])


def test_adai_raises_no_tiny_mean_as_the_package_does():
    """The package lifts mean(v̂) to eps: below it the inertia grows, which the paper's formula does not have."""
    gradients, alphas, up = noisy() * 1e-4, root(STEPS), 2.0**20
    floored, free = torch_steps(po.Adai, gradients, alphas), play("adai", gradients, alphas)[1]
    assert np.abs(free - floored).max() > 0.01 * np.abs(free).max()
    agree(free * up, torch_steps(po.Adai, gradients * up, alphas))


def test_adabound_adds_nothing_under_the_root_as_the_package_does():
    """The package adds 1e-15 to v under the root; with it put back, small gradients agree as well."""
    gradients, alphas = noisy() * 1e-4, root(STEPS)
    twin = torch_steps(lambda x, lr: po.AdaBound(x, lr, 1e3, PAIR, 0.01, eps=0.0), gradients, alphas)
    _, dx, m = play("adabound", gradients, alphas, **BETAS, eps=0, final_lr=1e3, gamma=0.01)
    assert np.abs(dx - twin).max() > 1e-9 * np.abs(twin).max()
    t = np.arange(1, STEPS + 1)[:, None]
    one, two = corrections()
    v = weighted(average(PAIR[1]), gradients**2)
    bound = 1e3 * alphas[:, None] / alphas[0]
    lifted = alphas[:, None] * np.sqrt(two) / one / np.sqrt(v + 1e-15)
    agree(-m * np.clip(lifted, bound * (1 - 1 / (0.01 * t + 1)), bound * (1 + 1 / (0.01 * t))), twin)


# ---- twins: written out from the formulas --------------------------------------------------------------------------


def weighted(weights, gradients):
    """For each t, Σ_k weights(t, k)·g_k over k = 1..t, (steps, dim): no recursion."""
    steps = len(gradients)
    return np.array([weights(t, np.arange(1.0, t + 1)) @ gradients[:t] for t in range(1, steps + 1)])


def average(beta):
    return lambda t, k: (1 - beta) * beta ** (t - k)


def mean(t, k):
    return np.full(t, 1 / t)


def power_mean(gamma):
    return lambda t, k: k**-gamma / (k**-gamma).sum()


def fading(beta, decay):
    """Weights of m_t = β_t·m + (1-β_t)·g with β_t = β·decay^{t-1}."""

    def weights(t, k):
        betas = beta * decay ** (k - 1)
        later = np.append(np.cumprod(betas[:0:-1])[::-1], 1.0)
        return (1 - betas) * later

    return weights


def demon(beta, horizon):
    """Weights of the undamped sum whose β_t/(1-β_t) falls linearly to zero."""

    def weights(t, k):
        odds = np.maximum(1 - k / horizon, 0) * beta / (1 - beta)
        return np.append(np.cumprod((odds / (1 + odds))[:0:-1])[::-1], 1.0)

    return weights


def stepsize(root_of, eps=0.0, correct1=0.0, correct2=0.0):
    t = np.arange(1, len(root_of) + 1)[:, None]
    return 1 / (1 - correct1**t) / (np.sqrt(root_of / (1 - correct2**t)) + eps)


G = noisy()
V = weighted(average(0.97), G**2)
FORMULAS = {
    "adam_plain": (BETAS | {"eps": 1e-3}, weighted(average(0.85), G), stepsize(V, 1e-3)),
    "adam_inside": (
        BETAS | {"eps": 1e-3},
        weighted(average(0.85), G),
        stepsize(V + 1e-3 * (1 - 0.97 ** np.arange(1, STEPS + 1)[:, None]), 0.0, 0.85, 0.97),
    ),
    "amsgrad": (BETAS, weighted(average(0.85), G), stepsize(np.maximum.accumulate(V))),
    "adafom": ({"beta1": 0.8}, weighted(average(0.8), G), stepsize(weighted(mean, G**2))),
    "adamnc": (
        {"beta1": 0.8, "decay": 0.99},
        weighted(fading(0.8, 0.99), G),
        stepsize(weighted(mean, G**2)),
    ),
    "nosadam": ({"beta1": 0.8, "gamma": 0.3}, weighted(average(0.8), G), stepsize(weighted(power_mean(0.3), G**2))),
    "demon_adam": (
        {"beta1": 0.9, "beta2": 0.97, "horizon": 800, "eps": 1e-4},
        weighted(demon(0.9, 800), G),
        stepsize(V, 1e-4, 0.0, 0.97),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_every_step_equals_the_formula_written_out(name):
    hyper, m, e = FORMULAS[name]
    alphas = root(STEPS)
    mine, dx, _ = play(name, G, alphas, **hyper)
    agree(mine, alphas[:, None] * e)
    agree(dx, -alphas[:, None] * e * m)


def corrections(steps=STEPS):
    t = np.arange(1, steps + 1)[:, None]
    return 1 - PAIR[0] ** t, 1 - PAIR[1] ** t


def test_forms_without_correction_differ_from_torch_by_the_correction_alone():
    alphas, (one, two) = root(STEPS), corrections()
    adam, amsgrad = (
        torch_steps(lambda x, lr, flag=flag: optim.Adam(x, lr, PAIR, 0.0, amsgrad=flag), G, alphas)
        for flag in (False, True)
    )
    agree(play("adam_plain", G, alphas, **BETAS)[1], adam * one / np.sqrt(two))
    agree(play("amsgrad", G, alphas, **BETAS)[1], amsgrad * one / np.sqrt(two))
    agree(play("adam_inside", G, alphas, **BETAS, eps=1e-3)[1], adam * np.sqrt(V / two) / np.sqrt(V / two + 1e-3))


def test_demon_without_a_horizon_differs_from_torch_by_the_missing_average_alone():
    alphas, (one, _) = root(STEPS), corrections()
    adam = torch_steps(lambda x, lr: optim.Adam(x, lr, PAIR, 1e-4), G, alphas)
    agree(play("demon_adam", G, alphas, **BETAS, eps=1e-4)[1], adam * one / (1 - PAIR[0]))


def test_methods_that_meet():
    """AdaFom without momentum under α/√t is torch's AdaGrad under α; NosAdam with γ = 0 and AdamNC are AdaFom."""
    alphas = root(STEPS)
    adagrad = torch_steps(lambda x, lr: optim.Adagrad(x, lr, eps=0.0), G, np.full(STEPS, 0.1))
    agree(play("adafom", G, alphas, beta1=0.0)[1], adagrad)
    adafom = play("adafom", G, alphas)[1]
    agree(play("nosadam", G, alphas, gamma=0)[1], adafom)
    agree(play("adamnc", G, alphas, decay=1)[1], adafom)
    alone = G[:, :1]
    corrected = play("momentum", alone, alphas, beta1=0.85, dampening=0.85)[1] / corrections()[0]
    agree(play("avagrad", alone, alphas, **BETAS, lag=0)[1][1:], corrected[1:])


# ---- theorems and invariances --------------------------------------------------------------------------------------

numbers = st.floats(1e-3, 1e6) | st.floats(-1e6, -1e-3) | st.just(0.0)
sequences = st.integers(2, 40).flatmap(lambda steps: arrays(np.float64, (steps, 3), elements=numbers))
SMALL = {"adashift": {"n": 3}, "demon_adam": {"horizon": 20}}
"""So that short sequences go through all of a rule."""


def rises(e, tolerance=0.0):
    """Whether any coordinate's stepsize rises after the coordinate's first gradient."""
    return bool(((e[1:] > e[:-1] * (1 + tolerance)) & (e[:-1] > 0)).any())


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if not entry.rises])
@settings(max_examples=60)
@given(gradients=sequences, falls=arrays(np.float64, 40, elements=st.floats(0, 1)))
def test_stepsizes_that_cannot_rise_do_not(name, gradients, falls):
    """Not by an ulp: rounding is monotone. α falls by any factors, not at all included."""
    e = play(name, gradients, np.cumprod(0.5 + 0.5 * falls)[: len(gradients)])[0]
    assert not rises(e)


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if not entry.rises_at_root])
@settings(max_examples=60)
@given(gradients=sequences)
def test_stepsizes_that_cannot_rise_under_root_decay_do_not(name, gradients):
    """To 40 ulp, the most that a sum of 40 weights can lose."""
    assert not rises(play(name, gradients, root(len(gradients)))[0], 40 * 2.0**-52)


@ALL
def test_stepsizes_that_can_rise_do(name):
    """Gradients whose size is spread over orders of magnitude make every other stepsize rise, as the flags say."""
    gradients = np.exp(2 * np.random.default_rng(0).normal(size=(400, 2)))
    hyper = {"beta2": 0.9} if "beta2" in METHODS[name].defaults else {}
    assert rises(play(name, gradients, 0.1, **hyper)[0]) == METHODS[name].rises
    at_root = rises(play(name, gradients, root(400), **hyper)[0], 400 * 2.0**-52)
    assert at_root == METHODS[name].rises_at_root


def test_torchs_amsgrad_rises_by_the_bias_correction():
    """One large gradient, then small ones: v̂ stays, and e on the corrected momentum grows by √((1-β2^t)/(1-β2))."""
    gradients = np.full((3000, 1), 1e-3)
    gradients[0] = 1.0
    e = play("amsgrad_torch", gradients, 1e-3)[0][:, 0] * (1 - 0.9 ** np.arange(1, 3001))
    expected = math.sqrt((1 - 0.999**3000) / (1 - 0.999))
    assert expected > 30
    assert e[-1] / e[0] == pytest.approx(expected, rel=1e-6)  # eps = 1e-8 beside a root of 0.03 at the least


NO_EPS = {name: {"eps": 0} if "eps" in entry.defaults else {} for name, entry in METHODS.items()}
NO_EPS |= {"yogi": {"eps": 0, "initial": 0}, "adai": {}, "adashift": {"eps": 0, "n": 3}}
GROWS = {"sgd", "momentum", "avagrad", "adai"}
"""Methods whose step grows with the gradient; that of the others does not change. AdaBound's bounds have a unit."""


@pytest.mark.parametrize("name", [name for name in METHODS if name != "adabound"])
@settings(max_examples=30)
@given(gradients=sequences, power=st.integers(-30, 30), sign=st.sampled_from([-1.0, 1.0]))
def test_the_scale_of_the_gradient(name, gradients, power, sign):
    """Exactly, because a power of two rounds nothing."""
    factor = sign * 2.0**power
    before = play(name, gradients, root(len(gradients)), **NO_EPS[name])[1]
    after = play(name, gradients * factor, root(len(gradients)), **NO_EPS[name])[1]
    np.testing.assert_array_equal(after, before * (factor if name in GROWS else sign))


COUPLED = {"adashift", "avagrad", "adai"}


@ALL
@settings(max_examples=20)
@given(gradients=sequences)
def test_coordinates_have_no_order(name, gradients):
    """Coupled rules add over the coordinates, which rounds: three numbers, a few ulp, some steps."""
    order, alphas, hyper = [2, 0, 1], root(len(gradients)), SMALL.get(name, {})
    e, dx, _ = play(name, gradients, alphas, **hyper)
    e_moved, dx_moved, _ = play(name, gradients[:, order], alphas, **hyper)
    tolerance = 1e-12 if name in COUPLED else 0.0
    np.testing.assert_allclose(e_moved, e[:, order], rtol=tolerance, atol=tolerance * e.max())
    np.testing.assert_allclose(dx_moved, dx[:, order], rtol=tolerance, atol=tolerance * np.abs(dx).max())


@ALL
def test_only_coupled_rules_look_at_other_coordinates(name):
    gradients, alphas = noisy(100), root(100)
    together = play(name, gradients, alphas)[1][:, :1]
    alone = play(name, gradients[:, :1], alphas)[1]
    assert (together != alone).any() == (name in COUPLED)
    if name == "adashift":
        np.testing.assert_array_equal(
            play(name, gradients, alphas, block=0)[1][:, :1], play(name, gradients[:, :1], alphas, block=0)[1]
        )


@ALL
@pytest.mark.parametrize("eps", ["eps", "no eps"])
def test_without_a_gradient_no_step(name, eps):
    """In plain Python too, where 0/0 would warn; and a coordinate that wakes up steps without NaN."""
    hyper = NO_EPS[name] if eps == "no eps" else {}
    gradients = np.zeros((40, 3))
    gradients[15:, 1] = 1.0
    gradients[25:, 2] = -1e-200  # its square underflows
    for plain in (True, False):
        e, dx, _ = play(name, gradients, 0.1, plain=plain, **hyper)
        assert np.isfinite(e).all()
        assert np.isfinite(dx).all()
        assert (e >= 0).all()
        assert (dx[:15] == 0).all()
        assert (dx[:, 0] == 0).all()
        assert (dx[30:, 1] < 0).all()
        waits = name not in {"sgd", "momentum"} and not (name == "yogi" and not hyper)
        assert (e[:15] == 0).all() == waits


@ALL
def test_a_sick_gradient_shows(name):
    gradients = np.ones((30, 2))
    gradients[12:, 0] = math.nan
    dx = play(name, gradients, 0.1)[1]
    assert np.isnan(dx[13:, 0]).all()
    assert np.isfinite(dx[:, 1]).all() or name in COUPLED


@ALL
def test_the_stepsize_times_its_direction_is_the_step(name):
    gradients, alphas = noisy(200), root(200)
    e, dx, m = play(name, gradients, alphas)
    entry = METHODS[name]
    if entry.direction == "m":
        np.testing.assert_array_equal(dx, -e * m)
    elif entry.direction == "g":
        np.testing.assert_array_equal(dx, -e * gradients)
    elif name == "lion":
        before = np.vstack([np.zeros(4), m[:-1]])
        np.testing.assert_allclose(dx, -e * (0.9 * before + 0.1 * gradients), rtol=1e-13)
    else:
        assert name == "adopt"
        averaged = weighted(average(0.9), e * gradients / alphas[:, None])
        np.testing.assert_allclose(dx, -alphas[:, None] * averaged, rtol=1e-12, atol=1e-14)


@given(beta=st.floats(0, 1, exclude_max=True), t=st.integers(1, 10**9))
def test_the_shortcut_of_the_bias_correction_is_exact(beta, t):
    assert debias(beta, t) == 1.0 - beta ** float(t)


# ---- the registry --------------------------------------------------------------------------------------------------


@ALL
def test_plain_and_compiled_rules_agree(name):
    """To a few ulp: integer powers may be multiplied out in another order."""
    gradients, alphas, hyper = noisy(60), root(60), SMALL.get(name, {})
    np.testing.assert_allclose(
        play(name, gradients, alphas, plain=True, **hyper), play(name, gradients, alphas, **hyper), rtol=1e-13
    )


def test_rules_are_values_to_one_compiled_loop():
    arguments, nothing = sigutils.normalize_signature(SIGNATURE)
    rule = types.FunctionType(nothing(*arguments))
    matrix, vector = types.float64[:, ::1], types.float64[::1]

    @numba.njit(vector(rule, matrix, matrix, vector))
    def drive(update, gradients, s, p):
        x, e, dx = np.zeros(s.shape[1]), np.zeros(s.shape[1]), np.zeros(s.shape[1])
        for t in range(len(gradients)):
            update(t + 1, 0.1, gradients[t], s, p, e, dx)
            x += dx
        return x

    for name in ("adam", "adai", "adashift"):
        p = parameters(METHODS[name])
        x = drive(METHODS[name].update, G, np.zeros((METHODS[name].rows(p), 4)), p)
        np.testing.assert_allclose(x, play(name, G, 0.1)[1].sum(axis=0), rtol=1e-12, atol=1e-12)
    assert len(drive.signatures) == 1


def test_nothing_is_compiled_before_it_is_wanted_and_machine_code_is_not_sent_along():
    fresh = Method("mine", METHODS["sgd"].rule, {}, 0, "here", "e = α")
    assert "update" not in fresh.__dict__
    assert fresh.update is fresh.update
    sent = pickle.loads(pickle.dumps(fresh))
    assert "update" not in sent.__dict__
    assert sent.rule is fresh.rule
    assert pickle.loads(pickle.dumps(METHODS["adashift"])).rows(parameters(METHODS["adashift"], n=4)) == 6


def test_parameters_come_in_the_order_of_the_defaults():
    assert parameters(method("adam")).tolist() == [0.9, 0.999, 1e-8]
    assert parameters(method("adam"), (0.5, 0.6), eps=0).tolist() == [0.5, 0.6, 0.0]
    assert parameters(method("adai"), (0.5, 0.6)).tolist() == [0.5, 0.6, 1e-3]
    assert parameters(method("sgd")).shape == (0,)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: method("adagrd"), r"`method` must be a known name, got 'adagrd'; did you mean 'adagrad'"),
        (lambda: method("?"), "choose from sgd, momentum"),
        (lambda: parameters(method("sgd"), (0.9, 0.99)), "sgd has no hyper-parameter `beta1`; it has: none."),
        (lambda: parameters(method("adam"), epsilon=1), "no hyper-parameter `epsilon`; it has: beta1, beta2, eps."),
        (lambda: parameters(method("adam"), beta2=1), r"`beta2` must be in \[0, 1\), got 1."),
        (lambda: parameters(method("adam"), eps=math.nan), "`eps` must be a number from 0 up, got nan."),
        (lambda: parameters(method("adam"), (0.9, 0.99), beta2=0.5), r"`betas` must be one pair \(beta1, beta2\)"),
        (lambda: parameters(method("adashift"), n=2.5), "`n` must be a whole number from 1 up, got 2.5."),
        (lambda: parameters(method("adashift"), block=3), "`block` must be 0"),
        (lambda: parameters(method("avagrad"), lag=2), "`lag` must be 0"),
    ],
)
def test_refusals_are_one_sentence(ask, says):
    with pytest.raises(ValueError, match=says):
        ask()
