"""Traces with sums that follow power laws, so that every verdict and every odd record can be made to order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stepscope import Monitor
from stepscope.diagnostics.trace import COLUMNS, INSTANTS, SUMS, DriftRecord, Scalars, TensorInfo, Trace

STRETCHES = 8


def drift_record(tensors: int, last: int, rho: float, seed: int = 0) -> DriftRecord:
    """Return inner products of stretches whose steps make the share `rho` of the intended descent."""
    rng = np.random.default_rng(seed)
    g = 1.0 + 0.05 * rng.normal(size=(tensors, STRETCHES, 40))
    d = rho * g + 0.02 * rng.normal(size=g.shape)
    dd, dg, gg = (np.einsum("tic,tjc->tij", x, y) for x, y in ((d, d), (d, g), (g, g)))
    each = np.arange(STRETCHES)
    for i in each:  # what a stretch's stepsizes, all 1 here, make of the other gradients
        others = g[:, each != i]
        pairs = (others.sum(axis=1) ** 2 - (others**2).sum(axis=1)).sum(axis=1)
        dg[:, i, i] = pairs / ((STRETCHES - 1) * (STRETCHES - 2))
    return DriftRecord(last // 2 + 1, last, dd, dg, gg)


def make_trace(
    last: int = 100_000,
    records: int = 250,
    tensors: int = 3,
    *,
    c_plus: float = 0.5,
    rho: float = 1.0,
    names: tuple[str, ...] = (),
    **columns: float,
) -> Trace:
    """Return a run with a ~ √t, b ~ log t and c⁺ ~ t^c_plus (0: no rise at all); `columns` overwrite whole columns.

    Tensor p has 10(p + 1) coordinates. The loss logged at step t is 1/√t.
    """
    steps = np.unique(np.geomspace(1, last, records).round().astype(np.int64)) if records else np.empty(0, np.int64)
    t = steps[:, None] * np.ones(tensors)
    values = np.ones((len(steps), tensors, len(COLUMNS)))
    values[:, :, [COLUMNS.index(name) for name in SUMS]] = t[:, :, None]
    laws = {
        "a": np.sqrt(t),
        "b": 1 + np.log(t),
        "c": np.sqrt(t) + 1,
        "c_plus": t**c_plus if c_plus else 0 * t,
        "rising": 0.5 * t,
        "eps_bound": 0 * t,
        "nonfinite": 0 * t,
        "rise_lr": 0 * t,
        "rise_bias": np.log(t),
        "rise_v": t if c_plus else 0 * t,
    }
    laws |= {f"{name}_se": 0 * t for name in ("a", "b", "c", "c_plus")}
    laws |= {name: 10.0**k / np.sqrt(t) for k, name in enumerate(("e_min", "e_p1", "e_p50", "e_p99", "e_max"))}
    for name, law in {**laws, **columns}.items():
        values[:, :, COLUMNS.index(name)] = law
    infos = [
        TensorInfo(names[p] if names else f"layer{p}.weight", (10, p + 1), 10 * (p + 1), 10 * (p + 1), 0, "e = lr")
        for p in range(tensors)
    ]
    loss = 1 / np.sqrt(steps.astype(np.float64))
    total = np.cumsum(1 / np.sqrt(np.arange(1.0, last + 1)))[steps - 1] if records else loss
    groups = {"lr": 0.1 / np.sqrt(t[:, :1]), "beta1": 0 * t[:, :1] + 0.9, "beta2": 0 * t[:, :1] + 0.99}
    return Trace(
        meta={
            "format": 1,
            "optimizer": "torch.optim.adam.Adam",
            "hyperparameters": [{"lr": 0.1, "betas": [0.9, 0.99], "eps": 1e-8, "amsgrad": False}],
            "coordinates": "all",
            "seed": 0,
            "versions": {"stepscope": "0.1.0"},
        },
        tensors=infos,
        steps=steps,
        values=values,
        groups=groups if tensors else {},
        scalars={"loss": Scalars(steps, loss, total, steps.astype(np.float64))},
        drift=drift_record(tensors, last, rho) if tensors and records else None,
    )


NAN, INF = float("nan"), float("inf")
ODD = {
    "empty": dict(records=0),
    "one record": dict(records=1),
    "two records": dict(records=2),
    "no tensors": dict(tensors=0),
    "all zero": dict.fromkeys(COLUMNS, 0.0),
    "instants NaN": dict.fromkeys(INSTANTS, NAN),
    "everything NaN": dict.fromkeys(COLUMNS, NAN),
    "stepsizes infinite": {"e_max": INF, "e_p99": INF, "weight_rms": INF},
    "constant a": {"a": 1.0},
    "never rises": dict(c_plus=0.0),
}
"""Records at the edge of what a figure can show."""


@pytest.fixture(scope="session")
def make():
    return make_trace


@pytest.fixture(params=ODD.values(), ids=ODD.keys())
def odd_trace(request):
    return make_trace(**request.param)


@pytest.fixture(scope="session")
def rarely_large():
    """Return a function that runs Adam with a small β2 on gradients that are 10 once in 10 draws, else −0.5.

    S = 17.8 asks for β2 above 0.88; the trace has everything that a monitor measures beside.
    """

    def run(steps: int) -> Trace:
        rng = np.random.default_rng(0)
        x = torch.nn.Parameter(torch.zeros(200))
        optimizer = torch.optim.Adam([("x", x)], lr=1e-3, betas=(0.0, 0.7))
        with Monitor(optimizer) as monitor:
            for _ in range(steps):
                x.grad = torch.tensor(np.where(rng.random(200) < 0.1, 10.0, -0.5), dtype=torch.float32)
                optimizer.step()
            return monitor.trace

    return run
