"""A world: one problem, played by real `step()` calls on one float64 tensor whose coordinates are the seeds."""

from __future__ import annotations

import inspect
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from ..diagnostics.monitor import Monitor
from ..diagnostics.trace import DriftRecord, Trace
from .cases import Case
from .compiled import module_of
from .course import record_steps
from .traits import MakeOptimizer, Traits, made, set_rate, split, take_step

Array = NDArray[np.float64]

CHUNK = 1024
"""Steps whose arrivals and noise are drawn at a time."""
TICK = 256
TAIL = 100
"""The final distance is the mean over the last hundredth of the steps: a cycle or a burst has no last word."""
PARTS = 6
"""The second half of a run in five equal parts and that last one: who comes nearer from each to the next is on its way
to the optimum. Without a drift the chance of that is 1 in 720."""

ADVANCE = "boolean(int64[::1], float64[:, ::1], float64[::1], float64[::1], float64[::1], float64[::1], int64, "
ADVANCE += "float64[:, ::1], float64[:, ::1], float64[::1], float64[:, ::1])"


def advance(  # type: ignore[no-untyped-def]  # compiled, with the types of ADVANCE
    chosen, noise, best, lower, upper, optimum, part, x, g, regret, distance
):
    """Project x onto the box and write the gradients of the chosen components at x, for all seeds.

    Adds to the regret, and to the distances from the optimum in this part of the run (-1: in none). Returns False where
    x is not finite, and then touches nothing. It is text to be compiled around a problem's `kernel`; here nothing calls
    it.
    """
    seeds, dim = x.shape
    for s in range(seeds):
        for j in range(dim):
            if not np.isfinite(x[s, j]):
                return False
    for s in range(seeds):
        squares = 0.0
        for j in range(dim):
            x[s, j] = min(max(x[s, j], lower[j]), upper[j])
            squares += (x[s, j] - optimum[j]) ** 2
        regret[s] += kernel(chosen[s], x[s], g[s]) - best[chosen[s]]  # type: ignore[name-defined]  # noqa: F821
        for j in range(noise.shape[1]):
            g[s, j] += noise[s, j]
        if part >= 0:
            distance[part, s] += np.sqrt(squares)
    return True


@cache
def compiled(source: str) -> Callable[..., bool]:
    """Return `advance` around the kernel with this source; its machine code is kept for the next process."""
    lines = (
        "import numba",
        "import numpy as np",
        source,
        'kernel = numba.njit(error_model="numpy")(kernel)',
        f'@numba.njit("{ADVANCE}", cache=True, error_model="numpy")',
        inspect.getsource(advance),
    )
    found: Callable[..., bool] = module_of("\n".join(lines)).advance
    return found


class World:
    """One case, several seeds: the parameter that an optimizer moves, and what is measured of it.

    Arrays have the shape `(seeds, dim)`; the parameter is the same memory, flat.
    """

    def __init__(self, case: Case, seeds: Sequence[int], steps: int) -> None:
        self.case, self.seeds, self.steps = case, tuple(seeds), steps
        problem = case.problem
        shape = len(self.seeds), problem.dim
        self.parameter = torch.nn.Parameter(torch.zeros(shape[0] * shape[1], dtype=torch.float64))
        self.gradient = torch.zeros_like(self.parameter)
        self.x = self.parameter.detach().numpy().reshape(shape)
        self.g = self.gradient.numpy().reshape(shape)
        self.x[:] = problem.start
        self.regret, self.distance = np.zeros(shape[0]), np.zeros((PARTS, shape[0]))
        self.played, self.measured = 0, [0] * PARTS
        """Gradients given, and how many of them in each part."""
        self.record_at, self.iterates, self.regrets = record_steps(steps), list[Array](), list[Array]()
        """What is drawn: where the seeds were at these steps, and their regrets up to there."""
        self.due = frozenset(self.record_at)
        last = steps - max(1, steps // TAIL)
        self.begins = [last - (last - steps // 2) * (PARTS - 1 - i) // (PARTS - 1) for i in range(PARTS)]
        self.broken: tuple[str, int] | None = None
        """What broke, and after which step."""
        count = len(problem.components)
        generators = [case.generators(seed) for seed in self.seeds]
        self.arrivals = [problem.arrival.stream(count, rng) for rng, _ in generators]
        noise = problem.noise
        self.noises = [noise.stream(problem.dim, rng) for _, rng in generators] if noise is not None else []
        self.none = np.zeros((shape[0], 0))
        self.constants = (
            np.ascontiguousarray(problem.optimal_values, dtype=np.float64),
            *(np.ascontiguousarray(bound, dtype=np.float64) for bound in (problem.lower, problem.upper)),
            case.optimum,
        )
        self.advance = compiled(problem.source)

    def draw(self) -> None:
        """Draw the arrivals and the noise of the next steps."""
        self.chosen = np.ascontiguousarray(np.stack([draw(CHUNK) for draw in self.arrivals], axis=1), dtype=np.int64)
        if self.noises:
            self.noise = np.ascontiguousarray(np.stack([draw(CHUNK) for draw in self.noises], axis=1))

    def give_gradient(self) -> None:
        """Project the iterate and write the gradient of the next step; none any more once it is not finite."""
        if self.broken is not None:
            return
        row = self.played % CHUNK
        if row == 0:
            self.draw()
        part = bisect_right(self.begins, self.played) - 1
        noise = self.noise[row] if self.noises else self.none
        if self.advance(self.chosen[row], noise, *self.constants, part, self.x, self.g, self.regret, self.distance):
            self.played += 1
            if part >= 0:
                self.measured[part] += 1
            if self.played in self.due:
                self.iterates.append(self.x.copy())
                self.regrets.append(self.regret.copy())
            self.parameter.grad = self.gradient
        else:
            self.broken, self.parameter.grad = ("x is not finite", self.played), None

    def evaluate(self) -> float:
        """Write the gradient at the iterate as it stands, for the component and noise of this step; return the loss.

        The loss is f_i − f_i(x*) and what the noise adds to it, summed over the seeds. The world does not move on.
        """
        row = (self.played - 1) % CHUNK
        noise, loss = self.noise[row] if self.noises else self.none, np.zeros_like(self.regret)
        if self.broken is not None or not self.advance(
            self.chosen[row], noise, *self.constants, -1, self.x, self.g, loss, self.distance
        ):
            return math.nan
        self.parameter.grad = self.gradient
        return float(loss.sum()) + (float((noise * self.x).sum()) if self.noises else 0.0)

    def settle(self) -> None:
        """Project the last iterate."""
        if self.broken is None and not np.isfinite(self.x).all():
            self.broken = "x is not finite", self.played
        np.clip(self.x, self.case.problem.lower, self.case.problem.upper, out=self.x)

    def distances(self) -> Array:
        """Return the final distance from the optimum, `(seeds,)`; that of the iterate if the run ended before."""
        if self.measured[-1]:
            return np.asarray(self.distance[-1] / self.measured[-1])
        return np.asarray(np.linalg.norm(self.x - self.case.optimum, axis=1))

    def course(self) -> Array:
        """Return the mean distance in each part of the run's second half, `(PARTS, seeds)`; NaN where it has none."""
        count = np.array(self.measured, dtype=np.float64)[:, None]
        return np.divide(self.distance, count, out=np.full_like(self.distance, np.nan), where=count > 0)

    def average_regret(self) -> float:
        """Return Σ(f_t(x_t) − f_t(x*))/t, the mean over the seeds."""
        return float(self.regret.mean()) / max(self.played, 1)


@dataclass(frozen=True)
class Game:
    """What is left of some worlds played together: a trace of each, and whether the user stopped it."""

    traces: tuple[Trace, ...]
    interrupted: bool = False


def play(
    worlds: Sequence[World],
    factory: MakeOptimizer,
    traits: Traits,
    lr: float,
    tick: Callable[[int], None] = lambda _: None,
) -> Game:
    """Let one optimizer play all `worlds`, which have the same number of steps, and record it.

    Raises:
        Exception: whatever the optimizer raises; `world.played` tells when.
    """
    worlds = list(worlds)
    steps = worlds[0].steps
    optimizer = made(factory, [world.parameter for world in worlds])
    shared = together(worlds, traits)
    split(optimizer, [count for _, count in shared])
    interrupted = False
    evaluate = (lambda: sum(world.evaluate() for world in worlds)) if traits.reevaluates else None
    monitor = Monitor(optimizer, coordinates="all", what_if=())
    try:
        for first in range(0, steps, CHUNK):
            t = np.arange(first + 1, min(first + CHUNK, steps) + 1, dtype=np.float64)
            rates = [(lr * rate(t)).tolist() for rate, _ in shared]
            for k in range(len(t)):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    set_rate(group, rate[k])
                for world in worlds:
                    world.give_gradient()
                if all(world.broken for world in worlds):
                    return game(monitor, worlds)
                take_step(optimizer, evaluate)
                if k % TICK == TICK - 1:
                    tick(TICK)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        for world in worlds:
            world.settle()
        monitor.close()
    return game(monitor, worlds, interrupted)


def game(monitor: Monitor, worlds: Sequence[World], interrupted: bool = False) -> Game:
    """Return what the monitor recorded, a trace for each world."""
    trace = monitor.trace
    return Game(tuple(select(trace, [i]) for i in range(len(worlds))), interrupted)


def together(worlds: Sequence[World], traits: Traits) -> list[tuple[Callable[[Array], Array], int]]:
    """Return the laws of the learning rate, and for how many neighbouring worlds each holds.

    Torch's optimizers take a fixed time for a group, so equal neighbours share one.
    """
    probe = np.array([1.0, 2.0, 3.0, 30.0, 1000.0])
    found: list[tuple[Callable[[Array], Array], int]] = []
    before: Array | None = None
    for world in worlds:
        now = traits.rate(world.case, probe)
        if before is not None and np.array_equal(before, now):
            found[-1] = found[-1][0], found[-1][1] + 1
        else:
            found.append((_rate_of(traits, world.case), 1))
        before = now
    return found


def _rate_of(traits: Traits, case: Case) -> Callable[[Array], Array]:
    return lambda t: traits.rate(case, t)


def select(trace: Trace, tensors: Sequence[int]) -> Trace:
    """Return the record of some tensors of a run alone, with the schedules of their groups."""
    chosen = [trace.tensors[i] for i in tensors]
    names = {tensor.name for tensor in chosen}
    groups = sorted({tensor.group for tensor in chosen})
    renumbered = [replace(tensor, group=groups.index(tensor.group)) for tensor in chosen]
    drift = trace.drift
    if drift is not None:
        grams = (gram[list(tensors)] for gram in (drift.gram_dd, drift.gram_dg, drift.gram_gg))
        drift = DriftRecord(drift.first_step, drift.last_step, *grams)
    return replace(
        trace,
        tensors=renumbered,
        values=trace.values[:, list(tensors)],
        groups={name: column[:, groups] for name, column in trace.groups.items()},
        events=[event for event in trace.events if event.tensor is None or event.tensor in names],
        drift=drift,
        what_if=None,
    )


def merge(traces: Sequence[Trace]) -> Trace:
    """Return runs of the same optimizer and length, recorded at the same steps, as tensors of one run."""
    if len(traces) == 1:
        return traces[0]
    first = traces[0]
    tensors = [replace(tensor, group=g) for g, trace in enumerate(traces) for tensor in trace.tensors]
    drifts = [trace.drift for trace in traces]
    drift = None
    if all(d is not None for d in drifts):
        grams = (np.concatenate([getattr(d, name) for d in drifts]) for name in ("gram_dd", "gram_dg", "gram_gg"))
        known = next(d for d in drifts if d is not None)
        drift = DriftRecord(known.first_step, known.last_step, *grams)
    return replace(
        first,
        tensors=tensors,
        values=np.concatenate([trace.values for trace in traces], axis=1),
        groups={name: np.concatenate([t.groups[name] for t in traces], axis=1) for name in first.groups},
        events=[event for trace in traces for event in trace.events],
        drift=drift,
        what_if=None,
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: tensors this small are slower on more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
