"""A sample estimates the whole: unbiased, with a standard error that means what it says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope import Monitor
from stepscope.diagnostics.sampling import LEAD, MEMBERS, Coordinates, sample
from stepscope.diagnostics.schedule import OPENING
from stepscope.diagnostics.trace import SUMS

SEEDS = 300


@pytest.mark.slow
def test_sampled_sums_of_a_million_parameters_lie_within_three_standard_errors():
    """At least 99 of 100 seeds, for each of a, b, c. Were the errors normal and exact, 3 in 1000 seeds would miss and
    four or more of 300 with probability 0.01; the seeds are fixed.

    Adam's first stepsizes are 1/|g_1|, which has no variance, so that no sample could speak for them: this holds from
    the first step because the opening is summed over all coordinates.
    """
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(nn.Linear(64, 960), nn.Tanh(), nn.Linear(960, 960), nn.Tanh(), nn.Linear(960, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    monitors = [Monitor(optimizer, coordinates="all", what_if=(), strict=True)]
    monitors += [Monitor(optimizer, seed=seed, what_if=(), strict=True) for seed in range(SEEDS)]
    for _ in range(100):
        x = torch.randn(64, 64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), x[:, :10].argmax(1)).backward()
        optimizer.step()
    truth, *traces = [monitor.trace for monitor in monitors]
    assert sum(tensor.numel for tensor in truth.tensors) > 990_000
    for name in ("a", "b", "c", "c_plus"):
        exact = truth.total(name)[-1]
        assert (truth.column(f"{name}_se")[-1] == 0).all()
        estimates = np.array([trace.total(name)[-1] for trace in traces])
        errors = np.array([np.sqrt((trace.column(f"{name}_se")[-1] ** 2).sum()) for trace in traces])
        assert (np.abs(estimates - exact) > 3 * errors).sum() <= SEEDS // 100, name
        # Unbiased: the mean of the estimates is off by less than 3.3 of its standard errors (1 in 1000 by chance).
        assert abs(estimates.mean() - exact) < 3.3 * estimates.std(ddof=1) / np.sqrt(SEEDS), name


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_opening_is_summed_over_all_coordinates(amsgrad):
    """A sample's sums over the first steps equal those over everything, and carry no error."""
    p = torch.nn.Parameter(torch.zeros(90, 70))
    optimizer = torch.optim.AdamW([p], lr=0.01, amsgrad=amsgrad)
    sampled, everything = (Monitor(optimizer, coordinates=c, strict=True) for c in (300, "all"))
    for t in range(OPENING):
        p.grad = torch.randn(90, 70, generator=torch.Generator().manual_seed(t))
        optimizer.step()
    estimate, exact = (monitor.trace.values[-1, 0, : len(SUMS)] for monitor in (sampled, everything))
    np.testing.assert_allclose(estimate, exact, rtol=1e-10)
    assert sampled.trace.column("a_se")[-1, 0] == 0


def attached_late(optimizer, t):
    """The optimizer has a past that the monitors did not see."""
    return t == 3


def state_loaded(optimizer, t):
    if t == 8:
        optimizer.load_state_dict(optimizer.state_dict())
    return t == 0


def idle_at_the_end_of_the_opening(optimizer, t):
    if OPENING - 1 <= t < OPENING + 2:
        optimizer.param_groups[0]["params"][0].grad = None
    return t == 0


@pytest.mark.parametrize("story", [attached_late, state_loaded, idle_at_the_end_of_the_opening])
def test_the_opening_compares_with_no_step_that_was_not_seen(story):
    """The sums of a sample say what the sums over everything say, NaN or a leap in c among them."""
    params = [torch.nn.Parameter(torch.zeros(90, 70)), torch.nn.Parameter(torch.zeros(3))]
    optimizer = torch.optim.AdamW(params, lr=0.01)
    monitors = []
    for t in range(2 * OPENING):
        for i, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(2 * t + i))
        if story(optimizer, t):
            monitors = [Monitor(optimizer, coordinates=c, strict=True) for c in (2000, "all")]
        optimizer.step()
    sampled, everything = (monitor.trace for monitor in monitors)
    for name in ("compared", "c", "c_plus", "c_bias", "delta2"):
        estimate, exact = sampled.total(name)[-1], everything.total(name)[-1]
        assert estimate == pytest.approx(exact, rel=0.15), name  # most of it is exact, the rest a sample of 2000


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 5), st.text(max_size=5))
@settings(max_examples=60)
def test_a_sample_is_distinct_sorted_in_its_parts_and_repeatable(numel, count, seed, name):
    count = min(count, numel)
    drawn = sample(numel, count, seed, name)
    assert len(set(drawn.tolist())) == count
    assert drawn.min() >= 0
    assert drawn.max() < numel
    for part in np.split(drawn, [MEMBERS, LEAD]):
        assert (np.diff(part) > 0).all()
    assert (drawn == sample(numel, count, seed, name)).all()


def test_another_seed_or_name_watches_other_coordinates():
    first = sample(10_000, 100, 0, "w")
    assert (first != sample(10_000, 100, 1, "w")).any()
    assert (first != sample(10_000, 100, 0, "v")).any()


def test_the_standard_error_equals_the_spread_over_all_samples():
    """Theorem: over every sample of 3 of 6 without replacement, the mean of SE² is the variance of the estimate."""
    from itertools import combinations

    x = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    coordinates = Coordinates(torch.nn.Parameter(torch.zeros(6)), 3, 0, "w")
    estimates, squares = [], []
    for chosen in combinations(range(6), 3):
        part = x[list(chosen)]
        estimates.append(part.sum() * coordinates.scale)
        squares.append(coordinates.standard_error(part.var(ddof=1, keepdims=True))[0] ** 2)
    assert np.mean(estimates) == pytest.approx(x.sum())
    assert np.mean(squares) == pytest.approx(np.var(estimates))
