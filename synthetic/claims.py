"""Claims: what a paper or a derivation predicts of a problem, what is observed here, and whether the two agree.

Each paper has a module named after its first author and year, with functions that build its problems and a function
`stated` that returns its claims: predictions take time to compute, which whoever wants a problem alone does not pay.
What is too long for one file goes on in modules such as `reddi2018_runs`. A claim runs its own experiment; `table`
prints a row for each.

A prediction has one of two tolerances, and neither may be chosen after a look at the outcome. `tolerance` is what the
derivation leaves open: printed digits, a step at the end, a known remainder. What the draws leave open is measured by
the experiment itself, which then returns an `Estimate`: the mean over its seeds with a standard error.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..diagnostics.trace import Trace

Array = NDArray[np.float64]
Origin = Literal["paper", "derived", "simulated"]

PAPER = re.compile(r"([a-z]+[12][0-9]{3})(_[a-z]+)?")
"""How the modules of papers are named: reddi2018, chen2019, and their parts: reddi2018_runs."""
SEEDS = 16
"""Seeds of an experiment that returns an `Estimate`, unless it says otherwise."""
REACH = 4.0
"""Standard errors that an `Estimate` may lie off. With 16 seeds chance alone goes further once in 860 times (Student's
t with 15 degrees of freedom), were the seeds not fixed."""


@dataclass(frozen=True)
class Estimate:
    """A mean over independent seeds, and its standard error."""

    value: float
    error: float


Value = float | str | Estimate
Predicted = float | tuple[float, float] | str


@dataclass(frozen=True)
class Claim:
    """A prediction with the experiment that tests it."""

    name: str
    paper: str
    origin: Origin
    """Where the prediction comes from: the paper itself (after the paper where it is not quoted), a derivation made
    here, or an independent simulation at the same settings."""
    predicted: Predicted
    """A number, an interval (its ends belong to it), or a word."""
    tolerance: float
    """How far the observed number may lie from the predicted one, standard errors apart; 0 for words and intervals."""
    observe: Callable[[], Value]
    why: str
    """Where prediction and tolerance come from."""

    def __post_init__(self) -> None:
        if not isinstance(self.predicted, int | float) and self.tolerance != 0:
            raise ValueError(f"`tolerance` must be 0 for a word or an interval, got {self.tolerance}.")
        if not 0 <= self.tolerance < np.inf:
            raise ValueError(f"`tolerance` must be a number from 0 up, got {self.tolerance}.")

    def holds(self, observed: Value) -> bool:
        """Return whether an observation agrees; a number never agrees with a word, nor NaN with anything.

        An `Estimate` may lie outside by `REACH` standard errors. One that is not finite agrees with nothing, nor does
        one whose errors reach from the predicted number to zero: it tests nothing.
        """
        if isinstance(self.predicted, str) or isinstance(observed, str):
            return self.predicted == observed
        low, high = (
            self.predicted
            if isinstance(self.predicted, tuple)
            else (self.predicted - self.tolerance, self.predicted + self.tolerance)
        )
        if isinstance(observed, Estimate):
            reach = REACH * observed.error
            if isinstance(self.predicted, int | float) and self.predicted and not reach < abs(self.predicted):
                return False
            return math.isfinite(reach) and low - reach <= observed.value <= high + reach
        return low <= observed <= high


Row = tuple[str, Origin, Predicted, float, Callable[[], Value], str]
"""A claim in a table: name, origin, predicted, tolerance, observe, why."""


def rows(paper: str, prefix: str, table: Iterable[Row]) -> tuple[Claim, ...]:
    """Return a claim for each row, its name led by the prefix."""
    return tuple(
        Claim(f"{prefix}{name}", paper, origin, predicted, tolerance, observe, why)
        for name, origin, predicted, tolerance, observe, why in table
    )


@dataclass(frozen=True)
class Observation:
    """What came of a claim."""

    claim: Claim
    observed: Value
    agrees: bool
    seconds: float


def check(claim: Claim) -> Observation:
    """Run a claim's experiment and compare."""
    begin = time.perf_counter()
    observed = claim.observe()
    return Observation(claim, observed, claim.holds(observed), time.perf_counter() - begin)


def modules() -> dict[str, list[str]]:
    """Return the names of the modules of each paper, in order of its year; the main one comes first."""
    found: dict[str, list[str]] = {}
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py"))
    for match in filter(None, map(PAPER.fullmatch, names)):
        found.setdefault(match[1], []).append(match[0])
    return {name: found[name] for name in sorted(found, key=lambda name: (name[-4:], name))}


def papers() -> tuple[str, ...]:
    """Return the names of the papers that have a module here, in order of their year."""
    return tuple(modules())


def claims(paper: str | None = None) -> tuple[Claim, ...]:
    """Return the claims of one paper, such as "reddi2018", or of all.

    Raises:
        ValueError: for a paper that has no module here.
    """
    known = modules()
    if paper is not None and paper not in known:
        raise ValueError(f"`paper` must be one of {', '.join(known)}, got {paper!r}.")
    chosen = known.values() if paper is None else (known[paper],)
    parts = (import_module(f".{name}", __package__) for names in chosen for name in names)
    return tuple(claim for part in parts for claim in part.stated())


def table(observations: Iterable[Observation]) -> str:
    """Return a line for each observation, below their headings: agreement, predicted, observed, seconds, name."""
    rows = [("holds", "predicted", "observed", "seconds", "claim")]
    rows += [
        ("yes" if o.agrees else "NO", shown(o.claim), written(o.observed), f"{o.seconds:.2f}", o.claim.name)
        for o in observations
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join((row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3)), row[4])) for row in rows
    )


def shown(claim: Claim) -> str:
    """Return a claim's prediction as people write it: a word, an interval, or a number with its tolerance."""
    if isinstance(claim.predicted, tuple):
        return f"[{claim.predicted[0]:g}, {claim.predicted[1]:g}]"
    if isinstance(claim.predicted, str):
        return claim.predicted
    return f"{claim.predicted:g}" + (f" ± {claim.tolerance:.1g}" if claim.tolerance else "")


def written(value: Value) -> str:
    """Return an observed value for people; a mean over seeds with its standard error in brackets."""
    if isinstance(value, Estimate):
        return f"{value.value:.6g} ({value.error:.1g})"
    return value if isinstance(value, str) else f"{value:.6g}"


# what experiments make of their seeds


def mean(values: ArrayLike) -> Estimate:
    """Return the mean of one number a seed, `(seeds,)`, with its standard error s/√n."""
    each = np.asarray(values, dtype=np.float64)
    if each.ndim != 1 or len(each) < 2:
        raise ValueError(f"Numbers of two seeds or more, (seeds,), were expected, got the shape {each.shape}.")
    return Estimate(float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each))))


def again(values: ArrayLike, earlier: int) -> Estimate:
    """Return the median with the error of its distance from the median of `earlier` other seeds.

    Both come from one law, so the distance has the standard error s·√(loss/n + loss/earlier). The loss of a median
    against a mean is π/2 under a normal law, less under one with a sharper peak, and none with one seed or two.
    """
    each = np.asarray(values, dtype=np.float64)
    variance = sum((math.pi / 2 if n > 2 else 1.0) / n for n in (len(each), earlier))
    return Estimate(float(np.median(each)), float(each.std(ddof=1)) * math.sqrt(variance))


def side(trace: Trace, middle: float = 0.0) -> str:
    """Return on which side of `middle` the last iterates of all seeds lie: "left", "right", or "both"."""
    x = trace.x[:, 0]
    return "left" if (x < middle).all() else "right" if (x > middle).all() else "both"


# what experiments read from a trace


def final(trace: Trace) -> float:
    """Return the median over seeds of the first variable's last value."""
    return float(np.median(trace.x[:, 0]))


def tail(trace: Trace, name: str, share: float = 0.1) -> tuple[float, float]:
    """Return (growth, exponent) of a cumulative column between `share`·T and T.

    growth is what was added; exponent the slope of log sum against log t between the two, 0 for a sum that stays 0.
    """
    first = int(np.searchsorted(trace.steps, share * trace.steps[-1]))
    before, after = trace.total(name)[[first, -1]]
    span = np.log(trace.steps[-1] / trace.steps[first])
    return float(after - before), float(np.log(after / before) / span) if before > 0 else 0.0


def exponent(trace: Trace, name: str) -> float:
    """Return p such that a cumulative column has grown like t^p over the last decade of steps."""
    return tail(trace, name)[1]


def ratio(trace: Trace, over: str, under: str = "a") -> float:
    """Return the growth of one column over that of another in the last nine tenths of the run: the block ratio."""
    return tail(trace, over)[0] / tail(trace, under)[0]


def flatness(trace: Trace, over: str, under: str = "a") -> float:
    """Return the slope in log t of the block ratio, all seeds together; see `slopes`."""
    return float(_slope(trace.steps, trace.total(over), trace.total(under)))


def slopes(trace: Trace, over: str, under: str = "a") -> Array:
    """Return the slope in log t of each seed's block ratio, `(seeds,)`.

    It is taken from the last whole octave (2^k, 2^(k+1)] to the one four octaves earlier; powers of two are always
    recorded. Condition (b) or (c) fails where it stays at 0; it is met at a slope of −1/2.
    """
    return _slope(trace.steps, trace.column(over), trace.column(under))


def _slope(steps: NDArray[np.int64], up: Array, down: Array) -> Array:
    last = 1 << (int(steps[-1]).bit_length() - 1)
    rows = np.searchsorted(steps, [last, last // 2, last // 16, last // 32])
    with np.errstate(divide="ignore"):  # log 0: nothing was added in the late block
        late, early = np.log((up[rows[::2]] - up[rows[1::2]]) / (down[rows[::2]] - down[rows[1::2]]))
    slope: Array = (late - early) / math.log(16.0)
    return slope


def rho(trace: Trace, share: float = 0.1) -> float:
    """Return ρ = Σ⟨e m, G⟩ / Σ⟨e G, G⟩ between `share`·T and T, G the objective's gradient: 1 is unbiased, < 0 climbs.

    The first tenth is left out because early stepsizes, made while v is young, are large and say little of later ones.
    """
    first = int(np.searchsorted(trace.steps, share * trace.steps[-1]))
    made, intended = (
        trace.scalars[name].last[-1] - trace.scalars[name].last[first] for name in ("descent_made", "descent_intended")
    )
    return float(made / intended)


def verdict(trace: Trace) -> str:
    """Return the verdict of the diagnosis, a word."""
    return str(trace.diagnose().verdict)


def half_unit(printed: str) -> float:
    """Return half a unit of a number's last decimal place: how far rounding moved it ("0.4723": 0.00005)."""
    digits = printed.partition(".")[2]
    return 0.5 * 10.0 ** -len(digits)
