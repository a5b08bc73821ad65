"""A state in which Adam's steps are long and lead nowhere, after Molybog et al. (2023, arXiv 2304.09871).

By their abstract Adam can enter a state in which the update has a large norm and hardly any correlation with the
direction of descent; they see it where gradients are of the size of eps and where gradient estimates of successive
steps are correlated, and the distribution of m/√v turns from one hump to two. A diagnostic, not a counterexample.

The smallest world that has this is ours: a line of slope μ, and noise whose successive values have the correlation φ
(an autoregression of order one). With v settled at σ² + μ² all of it is closed, derived here:

    Var m = σ² K,  K = (1−β1)/(1+β1)·(1+β1φ)/(1−β1φ);    RMS of m/√v = √((μ² + σ²K)/(μ² + σ²));
    cosine of the step and the descent direction, over many coordinates: μ/√(μ² + σ²K);
    with eps beside √v all steps shrink by √v/(√v + eps).

For β1 = 0.9 and φ from 0 to 1, K goes from 1/19 to 1: steps grow 4.4 times and are the less aligned by as much. Once
gradients are alike for longer than v remembers, m/√v is ±1: two humps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import erfc

from .claims import SEEDS, Claim, Estimate, Row, mean, rows
from .engine import simulate
from .methods import method
from .problem import Problem

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Correlated:
    """Normal noise of variance scale² whose successive values have the correlation φ; stationary from the start."""

    scale: float
    correlation: float

    def __post_init__(self) -> None:
        if not self.scale > 0 or not 0 <= self.correlation < 1:
            raise ValueError(
                f"`scale` above 0 and `correlation` in [0, 1) were expected, got {self.scale}, {self.correlation}."
            )

    def stream(self, dim: int, rng: np.random.Generator) -> Callable[[int], Array]:
        """Return a function that gives the noise of the next k steps, `(k, dim)`."""
        fresh = math.sqrt(1 - self.correlation**2)
        memory = self.correlation * rng.standard_normal((1, dim))

        def take(k: int) -> Array:
            nonlocal memory
            drawn = rng.standard_normal((k, dim))
            if k > 0:  # no step leaves the memory as it is, which lfilter does not
                drawn, memory = lfilter([fresh], [1.0, -self.correlation], drawn, axis=0, zi=memory)
            return self.scale * drawn

        return take


def slope(mean_gradient: float = 0.1, scale: float = 1.0, correlation: float = 0.0) -> Problem:
    """Return a line of slope μ with correlated noise of size σ on its gradient."""
    return Problem(
        [f"{mean_gradient!r}*x"],
        variables="x",
        start=0.0,
        noise=Correlated(scale, correlation),
        name=f"slope {mean_gradient:g}, noise {scale:g} with correlation {correlation:g}",
    )


STEPS, FAR = 20_000, 1_000_000
LONG = (0.9, 0.9999)
"""v hardly fluctuates: its variance is 1−β2 of its square, times (1+φ²)/(1−φ²)."""


@cache
def updates(betas: tuple[float, float], **world: float) -> Array:
    """Return Adam's steps over −α, m/(√v + eps), of the last half of a run, `(steps, seeds)`: coordinates."""
    eps = world.pop("eps", 0.0)
    trace = simulate(slope(**world), "adam", STEPS, 1.0, betas, SEEDS, records=STEPS, eps=eps)
    assert trace.path is not None
    steps: Array = -np.diff(trace.path[STEPS // 2 :, :, 0], axis=0)
    return steps


def rms(betas: tuple[float, float] = LONG, **world: float) -> Estimate:
    """Return the root mean square of m/√v."""
    square = mean(np.mean(updates(betas, **world) ** 2, axis=0))
    root = math.sqrt(square.value)
    return Estimate(root, square.error / (2 * root))


def alignment(correlation: float, block: int) -> Estimate:
    """Return the cosine of the steps and the descent direction, all seeds and steps taken as coordinates.

    The mean step needs far more steps than its size, hence runs of its own; `block` says which seeds they have.
    """
    root = rms(LONG, correlation=correlation)
    trace = simulate(slope(correlation=correlation), "adam", FAR, 1.0, LONG, _seeds(block), records=2, eps=0.0)
    assert trace.path is not None
    half = int(np.searchsorted(trace.steps, FAR // 2))
    along = mean((trace.path[half, :, 0] - trace.path[-1, :, 0]) / (FAR - trace.steps[half]))
    cosine = along.value / root.value
    return Estimate(cosine, math.hypot(along.error, cosine * root.error) / root.value)


def _seeds(block: int) -> range:
    """Return the seeds of a block, which share none with another's, nor with those of `updates`."""
    return range(SEEDS * (block + 1), SEEDS * (block + 2))


def share_large(betas: tuple[float, float], **world: float) -> Estimate:
    """Return the share of steps longer than α/2."""
    return mean(np.mean(np.abs(updates(betas, **world)) > 0.5, axis=0))


def gain(beta1: float, correlation: float) -> float:
    """Return K, the variance of the momentum of correlated noise over that of the noise."""
    return (1 - beta1) / (1 + beta1) * (1 + beta1 * correlation) / (1 - beta1 * correlation)


def expected_rms(correlation: float, mean_gradient: float = 0.1, beta1: float = 0.9) -> float:
    """Return RMS of m/√v for noise of size 1."""
    return math.sqrt((mean_gradient**2 + gain(beta1, correlation)) / (mean_gradient**2 + 1))


def expected_alignment(correlation: float, mean_gradient: float = 0.1, beta1: float = 0.9) -> float:
    """Return μ/√(μ² + K)."""
    return mean_gradient / math.sqrt(mean_gradient**2 + gain(beta1, correlation))


def restless(correlation: float) -> float:
    """Return the variance of v over its square, Σ β2-weights of Cov(g², g²) = 2φ^2k: the order of what is left out."""
    return (1 - LONG[1]) * (1 + correlation**2) / (1 - correlation**2)


def largest(gradients: Array, betas: tuple[float, float]) -> float:
    """Return the largest |m|/√v of Adam without bias correction along a sequence of gradients of one coordinate."""
    rule = method("adam_plain")
    s, e, dx, most = np.zeros((2, 1)), np.zeros(1), np.zeros(1), 0.0
    for t, g in enumerate(gradients, 1):
        rule.rule(t, 1.0, np.array([g]), s, np.array([*betas, 0.0]), e, dx)
        most = max(most, float(abs(dx[0])))
    return most


def spike(betas: tuple[float, float]) -> float:
    """Return the largest step over α after one gradient out of silence, with ten steps of silence to follow."""
    return largest(np.array([1.0] + [0.0] * 10), betas)


def swell(betas: tuple[float, float]) -> float:
    """Return the largest step over α when the gradient grows by β2/β1 in each of 400 steps."""
    return largest((betas[1] / betas[0]) ** np.arange(400.0), betas)


def steepest(betas: tuple[float, float]) -> float:
    """Return the least upper bound of |m|/√v, (1−β1)/√((1−β2)(1 − β1²/β2)) by Cauchy and Schwarz, for β1² < β2."""
    return (1 - betas[0]) / math.sqrt((1 - betas[1]) * (1 - betas[0] ** 2 / betas[1]))


PAPER = "Molybog et al. 2023, arXiv 2304.09871"
GAIN = "√((μ² + K)/(μ² + 1)), derived here for a v at rest; v's own variance, (1−β2)(1+φ²)/(1−φ²), beside the draws."
COSINE = "μ/√(μ² + K), derived here for a v at rest; v's own variance beside the draws."
HUMP = "m/√v is normal with variance K = 1/19 where v is at rest: P(|z| > √19/2), its slope at 1−β2; else draws."
HUMPS = "Alike for 1e6 steps, gradients change by 0.014 σ in the memory of v; |m|/√v < 1/2 needs one of some 0.06 σ."
HALVED = "σ/(σ + eps) of √K: the noise is as large as eps, or a tenth of it; else draws."
CAUCHY = "The Cauchy–Schwarz inequality between the weights of m and v, met with equality; 0.81^400 is left."
LONE = "(1−β1)/√(1−β2): m and v hold the one gradient, and m falls faster than √v; rounding."

ROWS: tuple[Row, ...] = (
    *(
        (
            f"correlation {phi}: RMS of m/√v",
            "derived",
            expected_rms(phi),
            expected_rms(phi) * restless(phi),
            partial(rms, correlation=phi),
            GAIN,
        )
        for phi in (0.0, 0.5, 0.9, 0.99)
    ),
    *(
        (
            f"correlation {phi}: cosine of the steps with the descent direction",
            "derived",
            expected_alignment(phi),
            expected_alignment(phi) * restless(phi),
            partial(alignment, phi, block),
            COSINE,
        )
        for block, phi in enumerate((0.0, 0.5, 0.9, 0.99))
    ),
    (
        "independent noise alone: share of |m|/√v > 1/2",
        "derived",
        float(erfc(math.sqrt(19 / 8))),
        1e-4,
        partial(share_large, LONG, mean_gradient=0.0),
        HUMP,
    ),
    (
        "noise alike for 1e6 steps: share of |m|/√v > 1/2",
        "derived",
        (0.94, 1.0),
        0,
        partial(share_large, (0.9, 0.99), mean_gradient=0.0, correlation=1 - 1e-6),
        HUMPS,
    ),
    *(
        (
            f"noise of {scale:g} eps: RMS of m/(√v + eps)",
            "derived",
            math.sqrt(gain(0.9, 0.0)) * scale / (scale + 1),
            1e-4,
            partial(rms, mean_gradient=0.0, scale=scale * 1e-8, eps=1e-8),
            HALVED,
        )
        for scale in (1.0, 0.1)
    ),
    *(
        (f"β = {betas}: the largest |m|/√v there is", "derived", steepest(betas), 1e-9, partial(swell, betas), CAUCHY)
        for betas in ((0.9, 0.999), (0.9, 0.99), (0.5, 0.9))
    ),
    (
        "β = (0.9, 0.999): |m|/√v after one gradient out of silence",
        "derived",
        0.1 / math.sqrt(0.001),
        1e-12,
        partial(spike, (0.9, 0.999)),
        LONE,
    ),
)


def stated() -> tuple[Claim, ...]:
    """Return the claims: how long Adam's steps are and how well aimed, by the correlation of successive gradients."""
    return rows(PAPER, "slope and noise: ", ROWS)
