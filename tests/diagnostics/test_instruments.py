"""The instruments: slow twins, levels that are known, what they do not depend on; the run stays as it is."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import erfinv

from stepscope import Monitor, Trace
from stepscope.diagnostics import instruments
from stepscope.diagnostics.agreement import CERTAIN, NOISE, agreement, of_stretches
from stepscope.diagnostics.angular_velocity import CYCLE, DIMENSION, DRIFT, EVEN, STATIONARY, WALK, Projection
from stepscope.diagnostics.coupling import coupling
from stepscope.diagnostics.drift import K, Stretches, judge_harm
from stepscope.diagnostics.effective_rate import effective_rates
from stepscope.diagnostics.inertia import BOUND, momentum
from stepscope.diagnostics.schedule import FIRST_INTERVAL, PROVED
from stepscope.diagnostics.trace import measured
from stepscope.diagnostics.travel import STRIDES, Travel
from stepscope.diagnostics.underflow import ACCEPTED, SMALLEST, loss_scale, lost

ROUNDED = 2.0**-25
"""Up to here float16 rounds to 0: half its smallest number, ties to even."""


def follow(points, *, interval=1, monitor=None):
    """Let SGD at rate 1 walk through points `(n, d)`, a step each `interval` steps; return its trace."""
    x = torch.nn.Parameter(torch.tensor(points[0], dtype=torch.float64))
    optimizer = torch.optim.SGD([("x", x)], lr=1.0)
    with Monitor(optimizer, strict=True, **(monitor or {})) as watching:
        for point in points[1:]:
            for part in range(interval):
                x.grad = (x.detach() - torch.tensor(point)) / (interval - part)
                optimizer.step()
        return watching.trace


def fed(gradients, *, kind=torch.optim.SGD, lr=1e-3, dtype=torch.float64, **hyper):
    """Give one parameter the gradients `(steps, d)`; return the trace."""
    x = torch.nn.Parameter(torch.zeros(gradients.shape[1], dtype=dtype))
    optimizer = kind([("x", x)], lr=lr, **hyper)
    with Monitor(optimizer, coordinates=4096, strict=True) as watching:
        for gradient in gradients:
            x.grad = torch.tensor(gradient, dtype=dtype)
            optimizer.step()
        return watching.trace


def newest(trace, name):
    return float(trace.scalars[name].last[-1])


# --- conformity ----------------------------------------------------------------------------------------------


def stretched(g):
    """Stretches of a stream `(steps, coords)`, as the compiled step fills them."""
    stretches = Stretches(g.shape[1])
    live = g != 0
    stretches.unit[:] = np.abs(g[live.argmax(axis=0), np.arange(g.shape[1])])
    u = g / np.where(stretches.unit > 0, stretches.unit, 1.0)
    for gradient, own in zip(g, u, strict=True):
        stretches.current += np.stack([0 * own, gradient, 0 * own, own**2, own**3, 0 * own])
        stretches.advance()
    return stretches


@settings(max_examples=30)
@given(
    steps=st.integers(K, 300),
    shift=st.floats(-2, 2),
    size=st.sampled_from([1e-12, 1e-3, 1.0, 1e6]),
    seed=st.integers(0, 2**16),
)
def test_conformity_is_a_t_test_of_the_closed_stretches(steps, shift, size, seed):
    """scipy's test of one sample, coordinate by coordinate; the sums are float32, hence 1e-4 where z is moderate."""
    g = size * (np.random.default_rng(seed).normal(size=(steps, 4)) + shift)
    stretches = stretched(g)
    last = stretches.full * stretches.length
    window = g[last - len(stretches.closed) * stretches.length : last]
    assert of_stretches(stretches) == pytest.approx(1 - stats.ttest_1samp(window, 0.0).pvalue, abs=1e-4)


def test_too_few_stretches_and_coordinates_without_a_gradient_say_nothing():
    assert of_stretches(stretched(np.ones((K - 1, 2)))) is None
    assert np.isnan(agreement(np.zeros(2), np.array([0.0, np.inf]), 9)).all()
    found = of_stretches(stretched(np.array([[1.0, 0.0]] * 40)))
    assert found[0] == CERTAIN
    assert math.isnan(found[1])


def test_a_constant_gradient_is_certain():
    trace = fed(np.full((64, 7), 0.3) * [1, 1, 1, 1, 1, -1, 0], kind=torch.optim.Adam)
    assert newest(trace, "conformity/x") == newest(trace, "conformity/all") == CERTAIN


def test_noise_of_mean_zero_makes_a_half():
    """S of a coordinate is uniform on [0, 1]: a mean over 256 members has a standard deviation of 1/sqrt(12·256).

    Four of them on either side, 0.072: wrong once in 16 000 seeds; the seed is fixed.
    """
    trace = fed(np.random.default_rng(1).normal(size=(600, 2000)))
    assert newest(trace, "conformity/x") == pytest.approx(NOISE, abs=4 / math.sqrt(12 * 256))


def test_the_level_of_noise_holds_from_the_first_measurement_on():
    """Student's t, not the normal distribution: that would make 0.54 of eight steps."""
    g = np.random.default_rng(2).normal(size=(K, 20_000))
    assert np.mean(of_stretches(stretched(g))) == pytest.approx(NOISE, abs=4 / math.sqrt(12 * 20_000))


def test_tensors_count_by_their_size():
    small, large = (torch.nn.Parameter(torch.zeros(n)) for n in (10, 3000))
    optimizer = torch.optim.SGD([("small", small), ("large", large)], lr=1e-3)
    source = torch.Generator().manual_seed(0)
    with Monitor(optimizer, strict=True) as monitor:
        for _ in range(64):
            small.grad, large.grad = torch.ones(10), torch.randn(3000, generator=source)
            optimizer.step()
    found = {name: newest(monitor.trace, f"conformity/{name}") for name in ("all", "small", "large")}
    assert found["small"] == 1.0
    assert found["all"] == pytest.approx((10 * 1.0 + 3000 * found["large"]) / 3010)


# --- angle ---------------------------------------------------------------------------------------------------

POINTS, D = 40, 1000  # angles of 40 points; the cosine of independent stretches is off by 1/sqrt(1000)


def paths():
    rng = np.random.default_rng(0)
    noise, straight = rng.normal(size=(2, POINTS, D)), np.arange(POINTS)[:, None] * np.ones(D)
    return {
        "drift": (straight, DRIFT),
        "as much noise": (straight * np.linalg.norm(noise[0, 0]) / math.sqrt(D) + noise[0].cumsum(axis=0), EVEN),
        "walk": (noise[1].cumsum(axis=0), WALK),
        "scatter": (noise[0], STATIONARY),
        "cycle": (np.array([[0.0], [1.0]] * (POINTS // 2)) * np.ones(D), CYCLE),
    }


@pytest.mark.parametrize("kind", paths())
def test_the_levels_of_the_angle(kind):
    """Through a real monitor, a point a record: 4 standard errors of a cosine are 7°, of the mean of 38 angles 1.2°."""
    points, level = paths()[kind]
    scalar = follow(points, interval=FIRST_INTERVAL).scalars["angle/1"]
    assert len(scalar.steps) == POINTS - 3  # the path begins with the first record
    assert np.mean(scalar.last) == pytest.approx(level, abs=1.5)


def test_strides_reach_further_back():
    """Drift is as large as the noise over one stretch; over four, the drift's energy has grown 16-fold, noise's 4."""
    points, _ = paths()["as much noise"]
    trace = follow(points, interval=FIRST_INTERVAL)
    for stride in STRIDES:
        angles = trace.scalars[f"angle/{stride}"].last
        assert len(angles) == POINTS - 1 - 2 * stride
        assert np.mean(angles) == pytest.approx(math.degrees(math.acos(stride / (stride + 1))), abs=3)


@settings(max_examples=50)
@given(doublings=st.lists(st.integers(0, 60), max_size=3), missing=st.integers(0, 60), seed=st.integers(0, 99))
def test_a_path_is_thinned_as_records_are(doublings, missing, seed):
    """The twin looks points up by their steps; a record that is missing ends the path, and nine are remembered."""
    rng = np.random.default_rng(seed)
    travel, interval, path = Travel(), 4, {}
    for step in range(0, 320, 4):
        if step // 4 in doublings:
            interval *= 2
            path = {at: point for at, point in list(path.items())[-9:] if at % interval == 0}
        if step % interval or step // 4 == missing:
            continue
        path = path if step - interval in path else {}
        path[step] = torch.tensor(rng.normal(size=3))
        expected = {}
        for stride in STRIDES:
            places = [step - back * stride * interval for back in range(3)]
            if all(place in path for place in places):
                a, b = path[places[0]] - path[places[1]], path[places[1]] - path[places[2]]
                expected[stride] = math.degrees(math.acos(float(a @ b / a.norm() / b.norm())))
        assert travel.look(step, interval, path[step]) == pytest.approx(expected, abs=1e-5)


def test_a_monitor_whose_state_is_loaded_begins_a_new_path():
    x = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([("x", x)], lr=1.0)
    monitor = Monitor(optimizer, strict=True)

    def walk(steps):
        for _ in range(steps):
            x.grad = torch.ones(4)
            optimizer.step()

    walk(4 * FIRST_INTERVAL)
    monitor.load_state_dict(monitor.state_dict())
    walk(2 * FIRST_INTERVAL)
    assert monitor.trace.scalars["angle/1"].steps.tolist() == [3 * FIRST_INTERVAL, 4 * FIRST_INTERVAL]
    walk(FIRST_INTERVAL)
    assert monitor.trace.scalars["angle/1"].steps[-1] == 7 * FIRST_INTERVAL


def test_a_long_path_is_projected_and_says_the_same():
    """Of more coordinates than the image has numbers: 1/64 is a degree, of each."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(8, 2 * DIMENSION))
    travel = Travel()
    for step, point in enumerate(points):
        found = travel.look(step, 1, torch.tensor(point))
    assert found[1] == pytest.approx(STATIONARY, abs=4)


def test_what_does_not_move_has_no_angle():
    assert "angle/1" not in fed(np.zeros((5 * FIRST_INTERVAL, 3))).scalars


# --- inertia -------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=30).filter(lambda v: sum(v) > 1e-6))
def test_inertia_is_adais_map(v):
    """β1 as the paper's code takes it, on all elements; nothing clipped: mean of (1-β1)/β0 is 1 (methods)."""
    v_hat = torch.tensor(v, dtype=torch.float64)
    paper = (1.0 - v_hat.div(v_hat.mean()).mul(0.1)).clamp(0.0, 1.0 - 1e-3)
    found = momentum(np.array(v), np.ones(len(v)))
    assert found == pytest.approx(paper.numpy())
    if 0 < found.min() and found.max() < 1 - BOUND:
        assert np.mean((1 - found) / 0.1) == pytest.approx(1.0)


@pytest.mark.parametrize("coordinates", [100, "all"])
def test_inertia_of_a_run(coordinates):
    """A fiftieth of the coordinates has gradients 10 times the others': v̂/mean is 33.6 there, 0.336 elsewhere."""
    x = torch.nn.Parameter(torch.zeros(5000))
    optimizer = torch.optim.Adam([("x", x)], lr=1e-3)
    with Monitor(optimizer, coordinates=coordinates, strict=True) as monitor:
        for _ in range(20):
            x.grad = torch.where(torch.arange(5000) % 50 == 0, 10.0, 1.0)
            optimizer.step()
    share = newest(monitor.trace, "inertia/clipped")
    # A sample of n has a binomial number of them: 4 standard deviations; of "all" 4096 are looked at.
    n = 4096 if coordinates == "all" else coordinates
    assert share == pytest.approx(0.02, abs=4 * math.sqrt(0.02 * 0.98 / n))
    mean = 1 + 99 * share
    assert newest(monitor.trace, "inertia/p50") == pytest.approx(1 - 0.1 / mean, rel=1e-5)
    assert newest(monitor.trace, "inertia/p1") in (0.0, newest(monitor.trace, "inertia/p50"))


def test_without_a_second_moment_there_is_no_inertia():
    assert not any(name.startswith("inertia") for name in fed(np.ones((40, 3))).scalars)


# --- what scale does not change ------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1e5])
def test_the_scale_of_the_gradients_changes_neither_conformity_nor_angle_nor_inertia(scale):
    g = np.random.default_rng(3).normal(0.2, 1.0, size=(5 * FIRST_INTERVAL, 20))
    one, other = (fed(size * g, kind=torch.optim.Adam, eps=0.0) for size in (1.0, scale))
    for name in one.scalars:
        if name.split("/")[0] in ("conformity", "angle", "inertia"):
            assert other.scalars[name].last == pytest.approx(one.scalars[name].last, rel=1e-4, abs=1e-6), name
    assert {"conformity/x", "angle/1", "inertia/p50"} <= set(one.scalars)


# --- coupling, effective rate --------------------------------------------------------------------------------


def test_coupling_is_the_harm_test_of_each_tensor():
    x, y = (torch.nn.Parameter(torch.zeros(50)) for _ in range(2))
    optimizer = torch.optim.Adam([("x", x), ("y", y)], lr=1e-3, betas=(0.0, 0.9))
    rng = np.random.default_rng(0)
    with Monitor(optimizer, strict=True) as monitor:
        for _ in range(2000):
            x.grad = torch.tensor(np.where(rng.random(50) < 0.05, 10.0, -0.3), dtype=torch.float32)
            y.grad = torch.tensor(rng.normal(1.0, 0.1, 50), dtype=torch.float32)
            optimizer.step()
    trace = monitor.trace
    drift = trace.drift
    found = coupling(trace)
    for i, row in enumerate(found):
        harm = judge_harm(drift.gram_dd[i], drift.gram_dg[i], drift.gram_gg[i], drift.first_step, drift.last_step)
        assert (row.name, row.interval) == (trace.tensors[i].name, pytest.approx(harm.interval))
        assert row.rho == pytest.approx(harm.rho)
    rare, even = found
    assert rare.interval[1] < 0  # rare large gradients against many small ones: Adam goes uphill
    assert even.rho == pytest.approx(1.0, abs=0.02)
    assert even.resolved
    assert coupling(replace(trace, drift=None)) == ()


RATES = {
    "sgd": (torch.optim.SGD, dict(momentum=0.9), 10.0),
    "nesterov": (torch.optim.SGD, dict(momentum=0.8, nesterov=True), 5.0),
    "dampened": (torch.optim.SGD, dict(momentum=0.9, dampening=0.9), 1.0),
    "plain": (torch.optim.SGD, dict(), 1.0),
    "adam": (torch.optim.Adam, dict(betas=(0.9, 0.99)), 1.0),
    "rmsprop": (torch.optim.RMSprop, dict(momentum=0.75), 4.0),
}


@pytest.mark.parametrize("name", RATES)
def test_the_effective_rate(name):
    kind, hyper, weight = RATES[name]
    trace = fed(np.ones((20, 3)), kind=kind, lr=0.01, **hyper)
    assert effective_rates(trace) == pytest.approx(np.full((len(trace.steps), 1), 0.01 * weight))


@pytest.mark.parametrize("name", ["sgd", "nesterov", "dampened", "plain"])
def test_the_effective_rate_is_how_far_one_gradient_moves_a_weight(name):
    """A single gradient of 1 after one of 0, which torch takes undampened; then the buffer runs out."""
    kind, hyper, weight = RATES[name]
    g = np.zeros((400, 1))
    g[1] = 1.0
    x = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = kind([x], lr=0.01, **hyper)
    for gradient in g:
        x.grad = torch.tensor(gradient)
        optimizer.step()
    assert x.item() == pytest.approx(-0.01 * weight)


def test_the_effective_rate_follows_a_schedule_of_the_momentum():
    x = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([("x", x)], lr=0.1, momentum=0.9)
    with Monitor(optimizer, strict=True) as monitor:
        for step in range(16):
            optimizer.param_groups[0]["momentum"] = 0.9 if step < 8 else 0.5
            x.grad = torch.ones(3)
            optimizer.step()
    assert effective_rates(monitor.trace)[:, 0] == pytest.approx(np.where(monitor.trace.steps <= 8, 1.0, 0.2))


def test_the_effective_rate_of_a_group_that_comes_later():
    x, later = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    optimizer = torch.optim.SGD([("x", x)], lr=0.1, momentum=0.9)
    with Monitor(optimizer, strict=True) as monitor:
        for step in range(16):
            if step == 8:
                optimizer.add_param_group({"params": [("later", later)], "lr": 0.01})
            x.grad = later.grad = torch.ones(3)
            optimizer.step()
    assert effective_rates(monitor.trace)[-1] == pytest.approx([1.0, 0.1])


# --- underflow -----------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.floats(-9, -5), st.integers(0, 2**16))
def test_what_a_normal_distribution_loses_is_what_float16_loses(exponent, seed):
    """Zeros of a cast lie below 2⁻²⁵, which is rounded to 0; 5 standard deviations of a count of 20 000."""
    sigma, n = 10.0**exponent, 20_000
    delta = sigma * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for below, counted in (
        (SMALLEST, lost(delta.numpy())),
        (ROUNDED, float((delta.half() == 0).double().mean())),
    ):
        p = math.erf(below / (sigma * math.sqrt(2)))
        assert counted == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / n) + 1 / n)


@settings(max_examples=60)
@given(st.lists(st.floats(-300, 4), min_size=1, max_size=3000))
def test_the_loss_scale_is_the_least_power_of_two_that_does(exponents):
    sizes = 10.0 ** np.array(exponents)
    scale = loss_scale(sizes)
    assert math.frexp(scale)[0] == 0.5
    assert sizes.max() * scale <= 65504
    room = sizes.max() * scale * 2 <= 65504
    assert lost(scale * sizes) <= ACCEPTED or not room
    assert scale == 1 or scale < 1 or lost(scale / 2 * sizes) > ACCEPTED


def test_the_formula_agrees_on_normal_gradients():
    """Its quantile of 10⁻³ of 100 000 is known to 10 %: 100 of them lie below."""
    sizes = np.abs(np.random.default_rng(0).normal(size=100_000)) * 1e-9
    alpha = SMALLEST / (math.sqrt(2) * erfinv(ACCEPTED) * 1e-9)
    assert loss_scale(sizes) in {2.0 ** math.ceil(math.log2(alpha * off)) for off in (0.7, 1.0, 1.4)}


def test_underflow_of_a_run():
    g = np.tile([1e-9, 1e-3, 0.0, 1.0], (16, 1))
    trace = fed(g)
    assert newest(trace, "underflow/x") == 0.25
    assert newest(trace, "loss_scale/x") == 64  # 1e-9·64 is the first above 2⁻²⁴


# --- the record ----------------------------------------------------------------------------------------------


def network():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 20), torch.nn.Tanh(), torch.nn.Linear(20, 1))
    return model, torch.optim.Adam(model.parameters(), lr=1e-2)


def train(model, optimizer, steps):
    for _ in range(steps):
        x = torch.randn(8, 6)
        model(x).sub(x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_record_has_an_instruments_numbers_only_where_they_are_new(tmp_path):
    model, optimizer = network()
    with Monitor(optimizer, tmp_path / "run", model=model, strict=True) as monitor:
        monitor.log(loss=1.0, loss_scale=3.0)  # what a user logs by such a name is the user's
        train(model, optimizer, 700)
    trace = Trace.load(tmp_path / "run")
    assert set(trace.logged) == {"loss", "loss_scale"}
    assert len(trace.logged["loss_scale"].steps) == len(trace.steps)
    for name, scalar in trace.scalars.items():
        if name.startswith("angle"):
            assert not (scalar.steps % FIRST_INTERVAL).any()
        elif measured(name):
            assert set(scalar.steps.tolist()) <= PROVED
            assert scalar.count.tolist() == list(range(1, 1 + len(scalar.steps)))
            assert scalar.means() == pytest.approx(scalar.last)
    trace.save(tmp_path / "copy")
    copy = Trace.load(tmp_path / "copy")
    assert {name: scalar.last.tolist() for name, scalar in copy.scalars.items()} == {
        name: scalar.last.tolist() for name, scalar in trace.scalars.items()
    }
    with Monitor(optimizer, tmp_path / "run", model=model, strict=True) as monitor:
        train(model, optimizer, 100)
    assert Trace.load(tmp_path / "run").scalars["conformity/all"].steps[-2:].tolist() == [512, 724]


def test_the_run_is_the_same_to_the_last_bit_and_so_is_chance(monkeypatch):
    ends = []
    for asked in (instruments.AT_PROOFS, ()):
        monkeypatch.setattr(instruments, "AT_PROOFS", asked)
        model, optimizer = network()
        with Monitor(optimizer, strict=True):
            train(model, optimizer, 600)
        ends.append([*(p.detach().clone() for p in model.parameters()), torch.get_rng_state()])
    model, optimizer = network()
    train(model, optimizer, 600)
    ends.append([*(p.detach().clone() for p in model.parameters()), torch.get_rng_state()])
    for others in zip(*ends, strict=True):
        assert all(torch.equal(others[0], other) for other in others[1:])


def broken(recorder):
    raise ZeroDivisionError("no such thing")


def test_an_instrument_that_fails_is_told_once_and_the_rest_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(instruments, "AT_PROOFS", (broken, *instruments.AT_PROOFS))
    model, optimizer = network()
    with caplog.at_level(logging.ERROR), Monitor(optimizer) as monitor:
        train(model, optimizer, 64)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    told = [event for event in monitor.trace.events if event.kind == "instrument"]
    assert [(event.step, event.message) for event in told] == [
        (1, "broken is measured no more: ZeroDivisionError: no such thing")
    ]
    assert monitor.trace.scalars["inertia/p50"].steps[-1] == 64
    model, optimizer = network()
    with pytest.raises(ZeroDivisionError), Monitor(optimizer, strict=True):
        train(model, optimizer, 2)


def test_every_instrument_is_known_by_its_names():
    """A name that `MEASURED` lacks would be drawn as what the user logged."""
    model, optimizer = network()
    with Monitor(optimizer, strict=True) as monitor:
        train(model, optimizer, 600)
    assert not monitor.trace.logged
    assert {name.split("/")[0] for name in monitor.trace.scalars} == {
        "angle", "conformity", "inertia", "loss_scale", "underflow",
    }  # fmt: skip


def test_a_log_after_the_step_leaves_the_instruments_in_the_last_record(tmp_path):
    x = torch.nn.Parameter(torch.ones(8))
    optimizer = torch.optim.Adam([x])
    with Monitor(optimizer, tmp_path / "run", what_if=()) as monitor:
        for t in range(512):
            x.grad = torch.randn(8, generator=torch.Generator().manual_seed(t))
            optimizer.step()
            monitor.log(loss=float(t))
    trace = Trace.load(tmp_path / "run")
    assert trace.scalars["angle/1"].steps[-1] == 512
    assert trace.scalars["loss"].last[-1] == 511.0


def test_a_default_device_elsewhere_changes_nothing():
    with torch.device("meta"):
        images = Projection()([torch.ones(5000, device="cpu")])
    assert torch.equal(images, Projection()([torch.ones(5000)]))
