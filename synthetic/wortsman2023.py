"""RMS_t and StableAdamW, after Wortsman et al. (NeurIPS 2023, arXiv 2304.13013): a second moment that lags.

    RMS_t = √(mean over a tensor of g²/max(v, eps²)),    η_t = η/max(1, RMS_t).

RMS_t is near 1 as long as gradients keep their size, and large when v is out of date; StableAdamW divides the step by
it. The formula and the remedy are after the paper. What RMS_t is in a world of gradients ±s_t, whose size s_t steps up
or goes silent, is derived here, a diagnostic more than a counterexample:

    size s since k steps, 1 before:    RMS² = s²/(s² − (s² − 1) β2^(k+1)), at most 1/(1−β2);
    N steps of silence, then 1 again:  RMS² = 1/(1 − β2 + β2^(N+1)), for v has fallen as β2^t;
    one of d coordinates steps up:     RMS² = (d − 1 + that of its own)/d.

With gradients of one sign m_k = s − (s − 1) β1^(k+1), and StableAdamW's step is m_k/s: at most α, where Adam's is
m_k/√v_k. Weight decay is left out of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad

from ..diagnostics.trace import Trace
from .claims import SEEDS, Claim, Estimate, Row, mean, rows
from .engine import simulate
from .methods import Method
from .noise import Gaussian
from .problem import Problem
from .rules_adam import debias

Array = NDArray[np.float64]


def stable_adamw(t: int, alpha: float, g: Array, s: Array, p: Array, e: Array, dx: Array) -> None:
    """Multiply m by e = α/max(1, RMS)/(1-β1^t) / (√v̂ + eps), v̂ = v/(1-β2^t), RMS over all coordinates."""
    beta1, beta2, eps = p[0], p[1], p[2]
    m, v = s[0], s[1]
    correction, total = debias(beta2, t), 0.0
    for i in range(g.size):
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i]
        v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i]
        v_hat = max(v[i] / correction, eps * eps)
        total += 0.0 if v_hat == 0.0 else g[i] * g[i] / v_hat
    lr = alpha / max(1.0, math.sqrt(total / g.size)) / debias(beta1, t)
    for i in range(g.size):
        e[i] = 0.0 if v[i] == 0.0 else lr / (math.sqrt(v[i] / correction) + eps)
        dx[i] = -e[i] * m[i]


STABLE = Method(
    "stable_adamw",
    stable_adamw,
    {"beta1": 0.9, "beta2": 0.99, "eps": 1e-6},
    2,
    "Wortsman et al., NeurIPS 2023, arXiv 2304.13013",
    "v = β2·v + (1-β2)·g²; e = α/max(1, RMS)/(1-β1^t)/(√(v/(1-β2^t)) + eps), on m; no weight decay",
)


@dataclass(frozen=True)
class Sizes:
    """Gradients of known size: `levels` says from which step on which size; ±1 at random, or + alone.

    Only the first `loud` coordinates follow the levels, the others stay at 1; 0 is all.
    """

    levels: Sequence[tuple[int, float]]
    signed: bool = True
    loud: int = 0

    def stream(self, dim: int, rng: np.random.Generator) -> Callable[[int], Array]:
        """Return a function that gives the gradients of the next k steps, `(k, dim)`."""
        starts, sizes = (np.array(column) for column in zip(*self.levels, strict=True))
        done = 0

        def take(k: int) -> Array:
            nonlocal done
            t = np.arange(done + 1, done + k + 1)
            done += k
            size = np.ones((k, dim))
            loud = self.loud or dim
            size[:, :loud] = sizes[np.searchsorted(starts, t, side="right") - 1][:, None]
            return size * np.where(rng.random((k, dim)) < 0.5, -1.0, 1.0) if self.signed else size

        return take


AT = 5_000
"""The step at which the size changes; v has settled by then, up to β2^5000 which the bias correction takes out."""


def world(noise: Sizes | Gaussian, dim: int = 1) -> Problem:
    """Return a flat objective under gradients that are noise alone."""
    names = [f"x{i}" for i in range(dim)]
    return Problem(["0"], variables=names, start=0.0, noise=noise, name="sizes alone")


@cache
def run(noise: Sizes, method: str, betas: tuple[float, float], steps: int, dim: int = 1) -> Trace:
    """Return the record of every step, α = 1 and eps = 0."""
    rule = STABLE if method == "stable" else method
    return simulate(world(noise, dim), rule, steps, 1.0, betas, records=steps, eps=0.0)


def rms(trace: Trace) -> Array:
    """Return RMS_t of every step from the record's sums, (steps,); with β1 = 0 it is what the steps were."""
    each: Array = np.sqrt(np.diff(trace.total("rms2"), prepend=0.0))
    return each


def jump(factor: float, beta2: float, later: int) -> float:
    """Return RMS so many steps after the size has stepped up."""
    noise = Sizes(((1, 1.0), (AT, factor)))
    return float(rms(run(noise, "adam", (0.0, beta2), AT + 200))[AT - 1 + later])


def expected_jump(factor: float, beta2: float, later: int) -> float:
    """Return s/√(s² − (s² − 1) β2^(k+1))."""
    return factor / math.sqrt(factor**2 - (factor**2 - 1) * beta2 ** (later + 1))


def silence(steps: int, beta2: float) -> float:
    """Return RMS at the first gradient after so many steps of none, as long as there were before."""
    noise = Sizes(((1, 1.0), (AT, 0.0), (AT + steps, 1.0)))
    return float(rms(run(noise, "adam", (0.0, beta2), AT + steps + 10))[AT + steps - 1])


def expected_silence(steps: int, beta2: float) -> float:
    """Return 1/√(1 − β2 + β2^(N+1)), for v at 1 before: AT − 1 steps leave that to the bias correction's accuracy."""
    t = AT + steps
    v = (beta2 ** (steps + 1) * (1 - beta2 ** (AT - 1)) + 1 - beta2) / (1 - beta2**t)
    return float(1 / math.sqrt(v))


def crowd(factor: float, beta2: float, dim: int) -> float:
    """Return RMS at the step at which one of `dim` coordinates has stepped up."""
    noise = Sizes(((1, 1.0), (AT, factor)), loud=1)
    return float(rms(run(noise, "adam", (0.0, beta2), AT + 10, dim))[AT - 1])


def longest(method: str, factor: float, betas: tuple[float, float]) -> float:
    """Return the longest step, over α, after the size of gradients of one sign has stepped up."""
    noise = Sizes(((1, 1.0), (AT, factor)), signed=False)
    path = run(noise, method, betas, AT + 200).path
    assert path is not None
    return float(np.abs(np.diff(path[AT - 2 :, 0, 0])).max())


def first_step(method: str, factor: float, betas: tuple[float, float]) -> float:
    """Return the step at which the size has just stepped up, over α."""
    noise = Sizes(((1, 1.0), (AT, factor)), signed=False)
    path = run(noise, method, betas, AT + 200).path
    assert path is not None
    return float(abs(path[AT - 1, 0, 0] - path[AT - 2, 0, 0]))


def expected_steps(factor: float, betas: tuple[float, float]) -> Array:
    """Return m_k/√v_k of Adam for k = 0..200."""
    k = np.arange(201.0)
    m, v = (s - (s - 1) * beta ** (k + 1) for s, beta in ((factor, betas[0]), (factor**2, betas[1])))
    step: Array = m / np.sqrt(v)
    return step


def normal_square(beta2: float) -> Estimate:
    """Return the mean of RMS² over normal gradients, a coordinate, 1e5 steps a seed."""
    trace = simulate(world(Gaussian(1.0)), "adam", 100_000, 1.0, (0.0, beta2), SEEDS, eps=0.0)
    row = int(np.searchsorted(trace.steps, 10_000))
    square = trace.column("rms2")
    return mean((square[-1] - square[row]) / (trace.steps[-1] - trace.steps[row]))


def expected_normal(beta2: float) -> float:
    """Return E[g²/v] for normal gradients: ∫ (1 + 2sw_0)^(−3/2) Π_{j>0} (1 + 2sw_j)^(−1/2) ds, w_j = (1−β2) β2^j.

    From 1/v = ∫ e^(−sv) ds and E[g² e^(−ug²)] = (1 + 2u)^(−3/2). Derived here.
    """
    weights = (1 - beta2) * beta2 ** np.arange(math.ceil(40 / -math.log(beta2)))

    def integrand(log_s: float) -> float:
        s = math.exp(log_s)
        product = math.exp(-0.5 * float(np.sum(np.log1p(2 * s * weights))))
        return s / (1 + 2 * s * (1 - beta2)) * product

    return float(quad(integrand, -30.0, 30.0, epsabs=1e-12, limit=400)[0])


EXACT = 1e-9
"""Rounding of sums over 5000 steps, 1e-12 of RMS² down to 0.01; and 0.9^201, what is left of m's past at the end."""
PAPER = "Wortsman et al., NeurIPS 2023, arXiv 2304.13013"
SETTLED = "s/√(s² − (s² − 1)β2^(k+1)), derived here; rounding."
AGED = "1/√(1 − β2 + β2^(N+1)), derived here with the bias correction at t = 5000 + N; rounding."
SHARED = "√((d − 1 + RMS²)/d) with RMS² of its own for the one that steps up; rounding."
NORMAL = "The integral of 1/v = ∫ e^(−sv) ds over a product of normal transforms, derived here; draws alone."
STEADY = "g² = v for gradients ±1; rounding."
UNCLIPPED = "max over k of m_k/√v_k, derived here; rounding."
CLIPPED = "m_k/s, at most 1, for RMS_k = s/√v_k, derived here; 0.9^201 and rounding."


ROWS: tuple[Row, ...] = (
    ("RMS while gradients keep their size", "paper", 1, EXACT, partial(jump, 1.0, 0.99, 50), STEADY),
    *(
        (
            f"mean RMS² of normal gradients, β2 = {b2}",
            "derived",
            expected_normal(b2),
            0,
            partial(normal_square, b2),
            NORMAL,
        )
        for b2 in (0.9, 0.99)
    ),
    *(
        (
            f"size ×{factor:g}, β2 = {b2}: RMS {later} steps later",
            "derived",
            expected_jump(factor, b2, later),
            EXACT,
            partial(jump, factor, b2, later),
            SETTLED,
        )
        for factor, b2, later in (
            (10.0, 0.99, 0),
            (10.0, 0.99, 10),
            (10.0, 0.99, 100),
            (10.0, 0.95, 0),
            (1000.0, 0.99, 0),
            (0.1, 0.99, 0),
        )
    ),
    *(
        (
            f"silence for {steps} steps, β2 = {b2}: RMS of the next gradient",
            "derived",
            expected_silence(steps, b2),
            EXACT,
            partial(silence, steps, b2),
            AGED,
        )
        for steps, b2 in ((100, 0.99), (1000, 0.99), (1000, 0.999), (1000, 0.95))
    ),
    (
        "one coordinate of four ×10, β2 = 0.99: RMS",
        "derived",
        math.sqrt((3 + expected_jump(10.0, 0.99, 0) ** 2) / 4),
        EXACT,
        partial(crowd, 10.0, 0.99, 4),
        SHARED,
    ),
    *(
        (
            f"one sign, size ×10, β = {betas}: Adam's longest step",
            "derived",
            float(expected_steps(10.0, betas).max()),
            EXACT,
            partial(longest, "adam", 10.0, betas),
            UNCLIPPED,
        )
        for betas in ((0.0, 0.99), (0.9, 0.99), (0.9, 0.95))
    ),
    *(
        (
            f"one sign, size ×10, β = {betas}: StableAdamW's longest step",
            "derived",
            1,
            EXACT,
            partial(longest, "stable", 10.0, betas),
            CLIPPED,
        )
        for betas in ((0.0, 0.99), (0.9, 0.99))
    ),
    (
        "one sign, size ×10, β = (0.9, 0.99): StableAdamW's first step",
        "derived",
        (10 - 9 * 0.9) / 10,
        EXACT,
        partial(first_step, "stable", 10.0, (0.9, 0.99)),
        CLIPPED,
    ),
)


def stated() -> tuple[Claim, ...]:
    """Return the claims: what RMS_t reads, and what it saves."""
    return rows(PAPER, "", ROWS)
