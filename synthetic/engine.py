"""simulate(): play a problem with a method at compiled speed, and return the same Trace as a recorded run.

A problem's kernel, a method's rule and the loop of `loop.py` are written into one file and compiled together, so that
the compiler sees through all three; the file and its machine code are kept for the next process.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import joblib
import numba
import numpy as np
import sympy
from numpy.typing import NDArray

from ..diagnostics.drift import K, Stretches
from ..diagnostics.efficiency import measure
from ..diagnostics.facts import installed_version
from ..diagnostics.schedule import GEOMETRIC
from ..diagnostics.store import FORMAT
from ..diagnostics.trace import COLUMNS, ERRORS, SUMS, DriftRecord, Efficiency, Scalars, TensorInfo, Trace
from . import loop
from .compiled import around
from .methods import METHODS, Method, parameters
from .methods import method as method_of
from .problem import Problem, start_in
from .trials import compiling, try_out

Array = NDArray[np.float64]

CHUNK = 1 << 17
"""Steps whose arrivals and noise are drawn at a time."""
EXTRAS = ("regret", "descent_made", "descent_intended")
"""Sums kept beside those of a recorded run."""
LOOKS = 512
"""Steps, evenly and geometrically spread, at which a schedule is looked at before the run."""
FEWEST, MOST = 16, 32
"""Stretches of the harm test: the number of full ones lies between, as in a recorded run."""


def simulate(
    problem: Problem | str,
    method: str | Method = "adam",
    steps: float = 100_000,
    lr: float | str | sympy.Expr = "1/sqrt(t)",
    betas: tuple[float, float] | None = None,
    seeds: int | Sequence[int] = 1,
    *,
    start: float | Sequence[float] | None = None,
    records: int = 1024,
    jobs: int | None = None,
    **hyper: float,
) -> Trace:
    """Take `steps` steps on a problem, once for each seed, and return the record of all.

    Args:
        problem: what is minimized, and in which order its components arrive; or a name that
            `stepscope list --problems` shows, such as "online".
        method: a name of `METHODS`, or a `Method` of your own; optimizers of torch are played by `run_suite`.
        steps: number of steps T, also written 1e6.
        lr: the learning rate α_t, a number or an expression in t and T: "0.5/sqrt(t)", "0.1*(1 + cos(pi*t/T))".
        betas: (β1, β2), for methods that have them.
        seeds: how many runs, with seeds 0, 1, …; or the seeds themselves.
        start: where to start instead of `problem.start`.
        records: about how many evenly spread records are kept, beside geometric ones.
        jobs: threads; default: as many as cores.
        **hyper: further hyper-parameters of the method, such as `eps`.

    Returns:
        A trace with a tensor per seed, `path` of shape (records, seeds, dim) and the scalars loss, distance (of the
        iterate to the optimum), regret (mean regret per step), descent_made and descent_intended (cumulative; their
        ratio is ρ with the true gradient).

    Raises:
        ValueError: for an unknown problem, method or hyper-parameter, a count that is not whole, a start outside the
            domain, or an `lr` that is negative or no expression in t and T.
    """
    problem, rule = problem_of(problem), rule_of(method)
    steps, records = whole("steps", steps, 1), whole("records", records, 0)
    jobs = jobs and whole("jobs", jobs, 1)
    if "horizon" in rule.defaults:  # a schedule of the method's own ends with the run
        hyper = {"horizon": float(steps)} | hyper
    p = parameters(rule, betas, **hyper)
    chosen = seeds_of(seeds)
    x0 = start_of(problem, start)
    rate, record_at = schedule(lr, steps), recorded(steps, records)
    play = Play(problem, rule, p, rate, record_at, steps, x0)
    play.compiled()  # once, before threads want it
    try_out(rule, p, problem.dim)
    workers = jobs or min(len(chosen), joblib.cpu_count())
    with compiling(rule):
        runs = joblib.Parallel(n_jobs=workers, prefer="threads")(joblib.delayed(play.run)(seed) for seed in chosen)
    return trace_of(play, chosen, runs)


@dataclass(frozen=True)
class Run:
    """What one seed left: arrays over the records, and the stretches of the harm test."""

    sums: Array
    x: Array
    e: Array
    g: Array
    dx: Array
    f: Array
    stretches: Array
    unit: Array


@dataclass(frozen=True)
class Play:
    """A problem, a method with its hyper-parameters, a schedule: everything but the seed."""

    problem: Problem
    method: Method
    p: Array
    rate: Callable[[Array], Array]
    record_at: NDArray[np.int64]
    steps: int
    start: Array

    def compiled(self) -> Callable[..., int]:
        """Return the loop around this problem's kernel and this method's rule."""
        return compiled_loop(self.problem.source, self.method.rule)

    @property
    def stretch_length(self) -> int:
        """Steps to a stretch: the power of two that a recorded run of this length would have reached."""
        length = 1
        while self.steps // length >= MOST:
            length *= 2
        return length

    def run(self, seed: int) -> Run:
        """Play the run of one seed."""
        problem, dim, count = self.problem, self.problem.dim, len(self.record_at)
        arrivals, noises = (np.random.default_rng([seed, which]) for which in (0, 1))
        indices = problem.arrival.stream(len(problem.components), arrivals)
        noise = problem.noise.stream(dim, noises) if problem.noise else None
        best = problem.optimal_values if problem.optimum is not None else np.zeros(len(problem.components))
        out = Run(
            sums=np.zeros((count, len(SUMS) + len(EXTRAS))),
            x=np.zeros((count, dim)),
            e=np.zeros((count, dim)),
            g=np.zeros((count, dim)),
            dx=np.zeros((count, dim)),
            f=np.zeros(count),
            stretches=np.zeros((self.steps // self.stretch_length + 1, 6, dim)),
            unit=np.zeros(dim),
        )
        x, e, owed, totals = self.start.copy(), np.zeros(dim), np.zeros(dim), np.zeros(len(SUMS) + len(EXTRAS))
        s, lost, alpha_before = np.zeros((self.method.rows(self.p), dim)), np.zeros_like(totals), np.zeros(1)
        advance, done, row = self.compiled(), 0, 0
        while done < self.steps:
            n = min(CHUNK, self.steps - done)
            row = advance(
                done,
                row,
                indices(n),
                noise(n) if noise else np.zeros((0, dim)),
                self.rate(np.arange(done + 1, done + n + 1, dtype=np.float64)),
                self.p,
                problem.lower,
                problem.upper,
                best,
                self.record_at,
                self.stretch_length,
                1.0 / self.method.weight(self.p),
                self.method.outstanding(self.p),
                x,
                s,
                e,
                alpha_before,
                totals,
                lost,
                out.stretches,
                owed,
                out.unit,
                out.sums,
                out.x,
                out.e,
                out.g,
                out.dx,
                out.f,
            )
            done += n
        return out


def compiled_loop(kernel_source: str, rule: Callable[..., None]) -> Callable[..., int]:
    """Return `loop.advance` compiled around a kernel and a rule; the file that holds all three is kept."""
    return around(kernel_source, rule, loop.advance, "@inner", inspect.getsource(loop.add))


def problem_of(problem: Problem | str) -> Problem:
    """Return the problem, or the published one of a name."""
    if isinstance(problem, Problem):
        return problem
    from .named import NAMED, named  # it builds on this module

    if isinstance(problem, str):
        return named(problem).build()
    what = (
        f"the class {problem.__name__}" if isinstance(problem, type) else f"an object of type {type(problem).__name__}"
    )
    raise ValueError(
        f"`problem` must be a Problem, such as Problem(['x**2']), or the name of one, such as {', '.join(NAMED)}, "
        f"got {what}; an OnlineGame is there for optimizers of torch, simulate plays its twin: 'online' or 'theorem1'."
    )


def rule_of(method: str | Method) -> Method:
    """Return the method, or the one of a name."""
    if isinstance(method, Method):
        return method
    if isinstance(method, str):
        return method_of(method)
    what = f"the class {method.__name__}" if isinstance(method, type) else f"an object of type {type(method).__name__}"
    raise ValueError(
        f"`method` must be a name, one of {', '.join(METHODS)}, or a Method, got {what}: "
        "an optimizer of torch is played by run_suite."
    )


def whole(name: str, given: float, least: int) -> int:
    """Return a count, which may be written as 1e6."""
    try:
        if not isinstance(given, str | bool) and given == int(given) and given >= least:
            return int(given)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"`{name}` must be a whole number, at least {least}, got {given!r}.")


def seeds_of(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds, or as many as are asked for from 0 up."""
    try:
        listed = seeds if isinstance(seeds, Iterable) else range(whole("seeds", seeds, 1))
        chosen = [whole("seeds", seed, 0) for seed in listed]
    except ValueError:
        chosen = []
    if not chosen:
        raise ValueError(
            f"`seeds` must name at least one run: how many, such as 4, or a list of seeds from 0 up, got {seeds!r}."
        )
    return chosen


def start_of(problem: Problem, start: float | Sequence[float] | None) -> Array:
    """Return the first iterate, `(dim,)`."""
    return problem.start.copy() if start is None else start_in(start, problem.lower, problem.upper)


def schedule(lr: float | str | sympy.Expr, steps: int) -> Callable[[Array], Array]:
    """Return α as a function of an array of steps t; `lr` may name t and the horizon T = `steps`."""
    t, horizon = sympy.symbols("t T", positive=True)
    law = _law(lr)
    # By name: t of one assumption is not t of another to SymPy.
    law = law.xreplace({s: {"t": t, "T": horizon}.get(s.name, s) for s in law.free_symbols}).subs(horizon, steps)
    strange = law.free_symbols - {t}
    if strange:
        names = ", ".join(sorted(map(str, strange)))
        raise ValueError(f"`lr` must be an expression in t and T alone, got {lr!r} with {names}.")
    formula = sympy.lambdify(t, law, "numpy")

    def rate(at: Array) -> Array:
        return np.ascontiguousarray(np.broadcast_to(np.asarray(formula(at), dtype=np.float64), at.shape))

    wrong = f"`lr` must be finite and not negative from t = 1 to T = {steps}, got {lr!r}"
    try:
        ends = np.array([float(law.subs(t, 1)), float(law.subs(t, steps))])
        at = np.unique(np.concatenate([np.linspace(1, steps, LOOKS), np.geomspace(1, steps, LOOKS)]).round())
        with np.errstate(all="ignore"):
            between = rate(at)
    except (TypeError, ValueError, NameError) as error:
        raise ValueError(f"{wrong}, which has no real value at each.") from error
    if not (np.isfinite(ends) & (ends >= -1e-300)).all():
        raise ValueError(f"{wrong}: {ends} there.")
    bad = ~(np.isfinite(between) & (between >= -1e-12 * np.abs(ends).max()))  # a cosine ends below 0 by rounding
    if bad.any():
        raise ValueError(f"{wrong}, which is {between[bad][0]:.6g} at t = {at[bad][0]:.0f}.")
    return rate


def _law(lr: object) -> sympy.Expr:
    """Return a learning rate as an expression."""
    fault: Exception | None = None
    try:
        law = sympy.sympify(lr, locals={"t": sympy.Symbol("t", positive=True), "T": sympy.Symbol("T", positive=True)})
        if isinstance(law, sympy.Expr):
            return law
    except Exception as error:  # text may fail to read in any way
        fault = error
    raise ValueError(f"`lr` must be a number or an expression in t and T, got {lr!r}.") from fault


def recorded(steps: int, records: int) -> NDArray[np.int64]:
    """Return the steps of the records: geometric ones, about `records` evenly spread ones, and the last."""
    interval = max(1, math.ceil(steps / max(1, records)))
    kept = {t for t in GEOMETRIC if t <= steps} | set(range(interval, steps + 1, interval)) | {steps}
    return np.array(sorted(kept), dtype=np.int64)


def trace_of(play: Play, seeds: Sequence[int], runs: Sequence[Run]) -> Trace:
    """Return the record of all seeds, a tensor each."""
    problem, rule, steps = play.problem, play.method, play.record_at
    width, rates = len(SUMS), play.rate(steps.astype(np.float64))
    columns = [np.concatenate([run.sums[:, :width], errors(run), instants(run, rates)], axis=1) for run in runs]
    values = np.stack(columns, axis=1)
    path = np.stack([run.x for run in runs], axis=1)
    hyper = dict(zip(rule.defaults, play.p.tolist(), strict=True))
    decays = {name: np.full((len(steps), 1), hyper.get(name, math.nan)) for name in ("beta1", "beta2")}
    return Trace(
        meta={
            "format": FORMAT,
            "optimizer": f"{rule.name} (simulated)",
            "method": rule.name,
            "problem": problem.name or problem.latex(),
            "hyperparameters": [hyper],
            "coordinates": "all",
            "seed": list(seeds),
            "columns": list(COLUMNS),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {"stepscope": installed_version(), "numpy": np.__version__, "numba": numba.__version__},
        },
        tensors=[TensorInfo(f"seed {s}", (problem.dim,), problem.dim, problem.dim, 0, rule.formula) for s in seeds],
        steps=steps,
        values=values,
        groups={"lr": rates[:, None], **decays},
        scalars=scalars(play, runs, path),
        drift=drift(play, runs),
        efficiency=efficiency(play, runs),
        path=path,
    )


def errors(run: Run) -> Array:
    """Return the standard errors of sums over all coordinates: there are none."""
    return np.zeros((len(run.sums), len(ERRORS)))


def instants(run: Run, rates: Array) -> Array:
    """Return the columns `INSTANTS` at the records, `(records, len(INSTANTS))`."""
    stepped = (run.e > 0) | (rates == 0)[:, None]  # a schedule may end at zero
    e = np.sort(np.where(stepped, run.e, np.nan), axis=1)  # NaN last
    live = stepped.sum(axis=1)
    places = (np.array([0.0, 0.01, 0.5, 0.99, 1.0]) * np.maximum(live - 1, 0)[:, None]).round().astype(int)
    with np.errstate(all="ignore"):  # a diverging run is no fault
        sums = run.sums[:, [SUMS.index("rms2"), SUMS.index("steps")]]
        rms2, taken = np.diff(sums, axis=0, prepend=0.0).T
        lengths = np.linalg.norm(run.dx, axis=1) * np.linalg.norm(run.g, axis=1)
        columns = (
            *np.take_along_axis(e, places, axis=1).T,
            np.sqrt(np.fmax.accumulate(rms2 / taken)),
            np.sqrt(np.square(run.x).mean(axis=1)),
            np.sqrt(np.square(run.dx).mean(axis=1)),
            -(run.dx * run.g).sum(axis=1) / lengths,
        )
    return np.stack(columns, axis=1)


def scalars(play: Play, runs: Sequence[Run], path: Array) -> dict[str, Scalars]:
    """Return loss, distance, regret and the descent made and intended, as means over the seeds."""
    problem, steps = play.problem, play.record_at

    def at_records(last: Array) -> Scalars:
        finite = np.isfinite(last)
        with np.errstate(over="ignore"):  # a run that diverges: its sum is inf, as its mean is
            return Scalars(steps, last, np.cumsum(np.where(finite, last, 0.0)), np.cumsum(finite, dtype=np.float64))

    extra = np.mean([run.sums[:, len(SUMS) :] for run in runs], axis=0).T
    found = {"loss": at_records(np.mean([run.f for run in runs], axis=0))}
    if problem.optimum is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            distance = np.linalg.norm(path - problem.optimum, axis=2).mean(axis=1)
        found |= {"distance": at_records(distance), "regret": at_records(extra[0] / steps)}
    return found | {name: at_records(sums) for name, sums in zip(EXTRAS[1:], extra[1:], strict=True)}


def drift(play: Play, runs: Sequence[Run]) -> DriftRecord | None:
    """Return the products between stretches that a recorded run would have left."""
    return drift_after(play, runs, play.steps // play.stretch_length)


def efficiency(play: Play, runs: Sequence[Run]) -> Efficiency | None:
    """Return ρ of the halves of the run before each of its later stretches."""
    length = play.stretch_length
    fulls = range(2 * K, play.steps // length + 1)
    found = [known for full in fulls if (known := drift_after(play, runs, full)) is not None]
    if not found:
        return None
    values = np.array([measure(known.gram_dd, known.gram_dg, known.gram_gg) for known in found])
    rho, low, high, slope = values[:, :4].T
    return Efficiency(length * np.array(fulls), rho, low, high, values[:, 4:], slope)


def drift_after(play: Play, runs: Sequence[Run], full: int) -> DriftRecord | None:
    """Return the products between stretches after the first `full` of them."""
    dim, length = play.problem.dim, play.stretch_length
    stretches = Stretches(dim * len(runs))
    sums = np.concatenate([run.stretches for run in runs], axis=2)
    stretches.full, stretches.length = full, length
    with np.errstate(over="ignore", invalid="ignore"):
        stretches.closed = list(sums[full - stretches.kept : full].astype(np.float32))
    stretches.unit[:] = np.concatenate([run.unit for run in runs])
    sizes = [(dim, 1.0)] * len(runs)
    gram = stretches.gram(sizes)
    return None if gram is None else DriftRecord(*gram[0], *gram[1:], stretches.third(sizes))
