"""Claims: what a paper or a derivation predicts of a problem, what is observed here, and whether the two agree.

Each paper has a module named after its first author and year, with functions that build its problems and a tuple
`CLAIMS`. A claim runs its own experiment; `table` prints a row for each.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np

from ..diagnostics.trace import Trace

Value = float | str
Origin = Literal["paper", "derived", "simulated"]

PAPER = re.compile(r"[a-z]+[12][0-9]{3}")
"""How the modules of papers are named: reddi2018, chen2019."""


@dataclass(frozen=True)
class Claim:
    """A prediction with the experiment that tests it."""

    name: str
    paper: str
    origin: Origin
    """Where the prediction comes from: the paper itself (after the paper where it is not quoted), a derivation made
    here, or an independent simulation at the same settings."""
    predicted: float | tuple[float, float] | str
    """A number, an interval (its ends belong to it), or a word."""
    tolerance: float
    """How far the observed number may lie from the predicted one; 0 for words and intervals."""
    observe: Callable[[], Value]
    why: str
    """Where prediction and tolerance come from."""
    slow: bool = False
    """Whether `observe` takes longer than some ten seconds."""

    def __post_init__(self) -> None:
        if not isinstance(self.predicted, int | float) and self.tolerance != 0:
            raise ValueError(f"`tolerance` must be 0 for a word or an interval, got {self.tolerance}.")
        if not 0 <= self.tolerance < np.inf:
            raise ValueError(f"`tolerance` must be a number from 0 up, got {self.tolerance}.")

    def holds(self, observed: Value) -> bool:
        """Return whether an observation agrees; a number never agrees with a word, nor NaN with anything."""
        if isinstance(self.predicted, str) or isinstance(observed, str):
            return self.predicted == observed
        low, high = (
            self.predicted
            if isinstance(self.predicted, tuple)
            else (self.predicted - self.tolerance, self.predicted + self.tolerance)
        )
        return low <= observed <= high


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


def papers() -> tuple[str, ...]:
    """Return the names of the papers that have a module here, in order of their year."""
    names = [path.stem for path in Path(__file__).parent.glob("*.py") if PAPER.fullmatch(path.stem)]
    return tuple(sorted(names, key=lambda name: (name[-4:], name)))


def claims(paper: str | None = None) -> tuple[Claim, ...]:
    """Return the claims of one paper, such as "reddi2018", or of all.

    Raises:
        ValueError: for a paper that has no module here.
    """
    known = papers()
    if paper is not None and paper not in known:
        raise ValueError(f"`paper` must be one of {', '.join(known)}, got {paper!r}.")
    modules = (import_module(f".{name}", __package__) for name in (known if paper is None else (paper,)))
    return tuple(claim for module in modules for claim in getattr(module, "CLAIMS", ()))


def table(observations: Iterable[Observation]) -> str:
    """Return a line for each observation: agreement, predicted, observed, seconds, name."""
    rows = [("", "predicted", "observed", "seconds", "claim")]
    rows += [
        ("ok" if o.agrees else "NO", shown(o.claim), written(o.observed), f"{o.seconds:.2f}", o.claim.name)
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
    return f"{claim.predicted:g} ± {claim.tolerance:.1g}"


def written(value: Value) -> str:
    """Return an observed value for people."""
    return value if isinstance(value, str) else f"{value:.6g}"


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
    """Return the slope in log t of the block ratio, from the last block (T/2, T] and one four octaves earlier.

    Condition (b) or (c) fails where it stays at 0; it is met at a slope of −1/2.
    """
    half, steps = np.array([1.0, 0.5, 1 / 16, 1 / 32]) * trace.steps[-1], trace.steps
    rows = np.searchsorted(steps, half)
    up, down = trace.total(over)[rows], trace.total(under)[rows]
    late, early = (up[0] - up[1]) / (down[0] - down[1]), (up[2] - up[3]) / (down[2] - down[3])
    return float(np.log(late / early) / np.log(16.0)) if early > 0 else -np.inf


def rho(trace: Trace, share: float = 0.1) -> float:
    """Return ρ = Σ⟨e g, G⟩ / Σ⟨e G, G⟩ between `share`·T and T, G the objective's gradient: 1 is unbiased, < 0 climbs.

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
