"""Small worlds whose answer is known, and traces made from them without torch or the monitor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from stepscope.diagnostics.drift import K
from stepscope.diagnostics.trace import COLUMNS, DriftRecord, TensorInfo, Trace

Array = NDArray[np.float64]
Schedule = Callable[[Array, int], Array]

SCHEDULES: dict[str, Schedule] = {
    "constant": lambda t, last: np.ones_like(t),
    "sqrt": lambda t, last: 1 / np.sqrt(t),
    "inverse": lambda t, last: 1 / t,
    "inverse_square": lambda t, last: 1 / t**2,
    "cosine": lambda t, last: 0.5 * (1 + np.cos(np.pi * t / last)),
    "cosine_to_tenth": lambda t, last: 0.1 + 0.45 * (1 + np.cos(np.pi * t / last)),
    "linear": lambda t, last: 1 - (t - 1) / last,
    "wsd": lambda t, last: np.minimum(1.0, (last - t + 1) / (0.2 * last)),
    "warm_cosine": lambda t, last: np.where(
        t < 0.05 * last,
        t / (0.05 * last),
        0.5 * (1 + np.cos(np.pi * (t / last - 0.05) / 0.95)),
    ),
    "warm_constant": lambda t, last: np.minimum(1.0, t / (0.02 * last)),
    "steps": lambda t, last: np.where(t > 0.75 * last, 0.01, np.where(t > 0.5 * last, 0.1, 1.0)),
}


def schedule(name: str, last: int) -> Array:
    """Return the learning rates of steps 1 … last relative to the base rate."""
    return SCHEDULES[name](np.arange(1.0, last + 1), last)


def record_steps(last: int, even: int = 400) -> NDArray[np.int64]:
    """Return steps dense early, geometric and evenly spread, as a monitor keeps them."""
    spread = [np.arange(1, 101), np.geomspace(1, last, 400), np.linspace(1, last, even)]
    steps = np.unique(np.concatenate(spread).round().astype(np.int64))
    return steps[steps <= last]


def momentum(g: Array, beta1: float) -> Array:
    """Return the average of the gradients that fades by beta1, from zero."""
    m, now = np.empty_like(g), np.zeros(g.shape[1])
    for t in range(len(g)):
        now = beta1 * now + (1 - beta1) * g[t]
        m[t] = now
    return m


def naive_drift(
    g: Array, m: Array, e: Array, scales: Array, owner: NDArray[np.int64], lr: Array, beta1: float = 0.0
) -> DriftRecord | None:
    """Write the Gram matrices of the newer half of the stretches from full streams `(steps, coords)`, with loops."""
    last = len(g)
    length = 1
    while last // length >= 4 * K:
        length *= 2
    full = last // length
    k = full // 2
    if k < K:
        return None
    windows = [slice((full - k + i) * length, (full - k + i + 1) * length) for i in range(k)]
    tensors = int(owner.max()) + 1
    dd, dg, gg = np.zeros((3, tensors, k, k))
    mass = np.mean([e[w].mean(axis=0) for w in windows], axis=0)
    pull = np.array([g[w].mean(axis=0) for w in windows])
    owed = np.divide(e, lr[:, None], out=np.zeros_like(e), where=lr[:, None] > 0) * m * beta1 / (1 - beta1)
    credited = e * m + lr[:, None] * np.diff(owed, axis=0, prepend=0.0)
    step = np.array([credited[w].mean(axis=0) for w in windows])
    square = np.mean([(g[w] ** 2).mean(axis=0) for w in windows], axis=0)
    live = np.mean([(e[w] * g[w] ** 2).mean(axis=0) for w in windows], axis=0)
    for c in np.flatnonzero((mass > 0) & ~(mass * square > 1000 * live)):
        d, p, own = step[:, c] / mass[c], pull[:, c], np.array([e[w, c].mean() for w in windows])
        dd[owner[c]] += scales[c] * mass[c] * np.outer(d, d)
        for i in range(k):
            pairs = [p[m] * p[n] for m in range(k) for n in range(k) if len({i, m, n}) == 3]
            for j in range(k):
                others = mass[c] if i == j else np.delete(own, [i, j]).mean()
                dg[owner[c], i, j] += scales[c] * (own[i] * np.mean(pairs) if i == j else step[i, c] * p[j])
                gg[owner[c], i, j] += scales[c] * others * p[i] * p[j]
    return DriftRecord((full - k) * length + 1, full * length, dd, dg, gg)


@dataclass
class World:
    """The streams of a simulated run: gradients and stepsizes `(steps, coords)`, rates, end point."""

    g: Array
    e: Array
    lr: Array
    x: float = math.nan
    beta1: float = math.nan
    beta2: float = math.nan
    owner: NDArray[np.int64] | None = None
    """Which tensor each coordinate belongs to; one tensor if None."""

    def trace(self, steps: NDArray[np.int64] | None = None) -> Trace:
        """Return the trace that an exact monitor would have written."""
        last, coords = self.g.shape
        owner = np.zeros(coords, dtype=np.int64) if self.owner is None else self.owner
        steps = record_steps(last) if steps is None else steps
        counts = [int(n) for n in np.bincount(owner)]
        tensors = [TensorInfo(f"layer{p}.weight", (n,), n, n, 0, "lr/(sqrt(v)+eps)") for p, n in enumerate(counts)]
        values = np.zeros((len(steps), len(tensors), len(COLUMNS)))
        for p in range(len(tensors)):
            mine = owner == p
            for name, stream in self._columns(self.g[:, mine], self.e[:, mine]).items():
                values[:, p, COLUMNS.index(name)] = stream[steps - 1]
        groups = {"lr": self.lr[steps - 1, None]}
        groups |= {name: np.full((len(steps), 1), getattr(self, name)) for name in ("beta1", "beta2")}
        beta1 = float(np.nan_to_num(self.beta1))
        drift = naive_drift(self.g, momentum(self.g, beta1), self.e, np.ones(coords), owner, self.lr, beta1)
        return Trace({"optimizer": "torch.optim.adam.Adam"}, tensors, steps, values, groups, drift=drift)

    @staticmethod
    def _columns(g: Array, e: Array) -> dict[str, Array]:
        """Return the columns of one tensor at every step."""
        delta = np.diff(e, axis=0, prepend=e[:1])
        sums = {
            "active": np.ones_like(e),
            "compared": np.ones_like(e),
            "rising": (delta > 0).astype(float),
            "a": e,
            "b": (e * g) ** 2,
            "c": np.abs(delta),
            "c_plus": np.maximum(delta, 0.0),
            "rise_v": np.maximum(delta, 0.0),
            "e2": e**2,
            "delta2": delta**2,
            "g2": g**2,
        }
        steps, median = np.arange(1.0, len(e) + 1), np.median(e, axis=1)
        instants = {name: median for name in ("e_min", "e_p1", "e_p50", "e_p99", "e_max")}
        instants |= {name: np.ones_like(steps) for name in ("rms_max", "weight_rms", "alignment")}
        instants |= {"steps": steps, "rms2": steps, "update_rms": np.sqrt(((e * g) ** 2).mean(axis=1))}
        return {name: np.cumsum(stream.sum(axis=1)) for name, stream in sums.items()} | instants


@njit
def _play(problem, method, lr, beta1, beta2, eps, x, draws):  # type: ignore[no-untyped-def]
    last = len(lr)
    gs, es = np.empty((last, 1)), np.empty((last, 1))
    m = v = peak = total = 0.0
    for i in range(last):
        t = i + 1
        if problem == "t1":
            g = 3.0 if t % 3 == 1 else -1.0
        elif problem == "online":
            g = 1010.0 if t % 101 == 1 else -10.0
        elif problem == "stochastic":
            g = 1010.0 if draws[i] < 0.01 else -10.0
        elif problem == "chen2":
            clipped = min(1.0, max(-1.0, x))
            g = 11 * clipped if draws[i] < 1 / 11 else -clipped
        elif problem == "chen1":
            g = 200 * min(10.0, max(-10.0, x))
        else:
            g = x + draws[i]
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        peak = max(peak, v)
        total += g * g
        if method == "sgd":
            e = lr[i]
        elif method == "adagrad":
            e = lr[i] / (math.sqrt(total / t) + eps)
        else:
            root = math.sqrt((peak if method == "amsgrad" else v) / (1 - beta2**t))
            e = lr[i] / (1 - beta1**t) / (root + eps)
        x -= e * m
        if problem in ("t1", "online", "stochastic"):
            x = min(1.0, max(-1.0, x))
        gs[i, 0], es[i, 0] = g, e
    return gs, es, x


def play(
    problem: str,
    method: str,
    steps: int,
    *,
    rate: float = 0.5,
    falls: str = "sqrt",
    beta1: float = 0.0,
    beta2: float = 0.99,
    x: float = 0.0,
    seed: int = 0,
) -> World:
    """Play one method on one scalar problem of docs/theory.md and keep every gradient and stepsize."""
    rng = np.random.default_rng(seed)
    draws = rng.normal(size=steps) if problem == "quadratic" else rng.random(steps)
    lr = rate * schedule(falls, steps)
    g, e, x = _play(problem, method, lr, beta1, beta2, 1e-8, x, draws)
    adaptive = method in ("adam", "amsgrad")
    return World(g, e, lr, x, beta1, beta2 if adaptive else math.nan)


@pytest.fixture(scope="session")
def worlds() -> type[Worlds]:
    """Hand the makers to the tests, as test files cannot import each other."""
    return Worlds


class Worlds:
    """The makers of this file."""

    World = World
    play, schedule, record_steps = map(staticmethod, (play, schedule, record_steps))
    momentum, naive_drift = map(staticmethod, (momentum, naive_drift))
