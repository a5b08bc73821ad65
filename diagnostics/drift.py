"""The harm test, docs/theory.md 4.6: do the steps go where the mean gradient goes? No torch.

A recorded run has no true gradient G. The last half of the run is cut into k stretches; per coordinate,
stretch i has the mean gradient g_i and the mean direction of the steps d_i = mean(e m + lr (o_t - o_{t-1})) / ē, with m
the momentum that the stepsize multiplies (g where there is none) and o = e/lr · m β1/(1-β1) what it still owes at rate
1: the steps that are to come of gradients already seen. So d_i are the steps that the gradients of stretch i make, not
those that they inherit. Only products of *different* stretches are used, because the noise of
one stretch is shared by its d and its g:

    U(p, q) = (⟨Σp_i, Σq_i⟩ - Σ⟨p_i, q_i⟩) / (k(k-1)),   ρ = U(d, g) / U(g, g),   coordinates weighted by ē.

ρ = 1: unbiased. 0 < ρ < 1: the share of the intended descent that adaptivity leaves. ρ < 0: the steps go
uphill.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from .trends import steps_until

Array = NDArray[np.float64]

K = 8
"""Fewest stretches in the window, which holds K to 2K-1: fewer leave no degrees of freedom, many more are too short."""
LEVEL = 0.95
"""Of the interval of ρ, and of calling a run harmless."""
ACCUSING = 0.998
"""Level, two-sided, at which a run is called harmful: one in a thousand by chance, for it is looked at many times."""
STEP, PULL, MASS, SQUARE, CUBE, LIVE = range(6)
"""Rows of `Stretches.current`: Σ e m and what is owed, Σ g, Σ e, Σ u², Σ u³, Σ e u² with u = g/unit."""
DORMANT = 1e3
"""Times the stepsize where the gradient is, from which a mean stepsize is that of coordinates without gradient.

Lognormal gradients of spread s make exp(3s²/2), s = 2 not enough."""
ROUNDED = 1e-7
"""Stretches are sums in float32, of which 6e-8 is lost: a smaller ρ is as good as 0, whatever its z."""
NO_DESCENT = 0.05
"""An interval of ρ within ± this much is an answer of its own: no descent is left."""


class HarmDecision(StrEnum):
    """What the drift test says about the direction of the steps."""

    HARMFUL = "harmful"
    HARMLESS = "harmless"
    IDLE = "no descent"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Harm:
    """The drift test's answer over the steps `first_step` … `last_step`."""

    rho: float
    interval: tuple[float, float]
    """95 % interval of ρ, see `ratio_interval`; (-inf, inf) where it is unbounded, so that ρ decides nothing."""
    relative_size: float
    """sqrt(U(d,d)/U(g,g)): length of the mean step direction against the mean gradient's."""
    z: float
    """U(d,g) over its standard error: below -`student_t(k - 1, ACCUSING)` the steps climb."""
    decision: HarmDecision
    reason: str
    first_step: int
    last_step: int
    steps_needed: int | None = None


Products = tuple[tuple[int, int], Array, Array, Array]
"""First and last step of a window, and the products of its stretches per tensor, three times `(tensors, k, k)`."""


class Stretches:
    """At most 4K equal stretches of per-coordinate sums of e m, g, e and more; when all are full, neighbours merge.

    The newer half of them is always the last half of the run, to within a stretch. Its beginning never moves back, so
    the older half is let go, and nothing is kept per step. Closed stretches are held in float32: each sum is rounded
    once per merge (6e-8 of itself), far below the noise that the test weighs, and the memory halves.
    """

    def __init__(self, coords: int, rows: int = 6) -> None:
        self.current: Array = np.zeros((rows, coords))
        """The open stretch; the caller adds each step's numbers in place."""
        self.momentum: Array = np.zeros(coords)
        """m, the average of the gradients that e multiplies; the caller moves it on."""
        self.owed: Array = np.zeros(coords)
        """o, the steps at rate 1 that are to come of gradients already seen; the caller moves it on."""
        self.unit: Array = np.zeros(coords)
        """abs(g) where it first was not 0, in which u is measured: float32 would not hold every g³."""
        self.closed: list[NDArray[np.float32]] = []
        """The newer half of the stretches that are full, each `(rows, coords)`, oldest first; K of them at least."""
        self.full = 0
        self.length = 1
        self.taken = 0

    @property
    def kept(self) -> int:
        """How many stretches `closed` has."""
        return min(self.full, max(K, self.full // 2))

    def advance(self) -> None:
        """Count one step; close the open stretch if it is complete, and merge when there is no room."""
        self.taken += 1
        if self.taken < self.length:
            return
        with np.errstate(all="ignore"):  # a diverging run may leave float32; see `gram`
            self.closed.append(self.current.astype(np.float32))
            self.current[:] = 0.0
            self.full, self.taken = self.full + 1, 0
            if self.full == 4 * K:
                self.closed = [older + newer for older, newer in zip(self.closed[::2], self.closed[1::2], strict=True)]
                self.full, self.length = 2 * K, 2 * self.length
            del self.closed[: -self.kept]

    def gram(
        self, sizes: Sequence[tuple[int, float]], rows: tuple[int, ...] = (STEP, PULL, MASS, SQUARE, LIVE)
    ) -> Products | None:
        """Return the window and ⟨d_i, d_j⟩, ⟨d_i, g_j⟩, ⟨g_i, g_j⟩ per tensor, each `(tensors, k, k)`.

        The window is (first, last) in calls of `advance`, counted from 1. Coordinates are laid out tensor
        after tensor; `sizes` holds each tensor's number of coordinates and the scale from the watched to all
        of them, `rows` where Σ e m, Σ g, Σ e, Σ u² and Σ e u² stand. Coordinates that took no step in the window, hold
        a non-finite sum, or sleep, contribute nothing. None before 2K stretches are full.
        """
        k = self.full // 2
        if k < K:
            return None
        window = np.stack([stretch[list(rows)] for stretch in self.closed])
        grams = np.zeros((3, len(sizes), k, k))
        end = 0
        for tensor, (count, scale) in enumerate(sizes):
            begin, end = end, end + count
            own = window[:, :, begin:end].astype(np.float64) / self.length
            grams[:, tensor] = scale * _grams(own[:, :3, _counted(own)])
        last = self.full * self.length
        return (last - k * self.length + 1, last), grams[0], grams[1], grams[2]

    def third(self, sizes: Sequence[tuple[int, float]]) -> Array | None:
        """Return ⟨q_i, g_j⟩ per tensor, `(tensors, k, k)`, with q = mean(g³)/mean(g²): see `skewness.py`.

        The mean square is that of the whole window. The coordinates are those of `gram` that ever had a gradient.
        """
        k = self.full // 2
        if k < K:
            return None
        window = np.stack(self.closed)
        grams, end = np.zeros((len(sizes), k, k)), 0
        for tensor, (count, scale) in enumerate(sizes):
            begin, end = end, end + count
            own = window[:, :, begin:end].astype(np.float64) / self.length
            mass, square = own[:, MASS].mean(axis=0), own[:, SQUARE].mean(axis=0)
            usable = np.isfinite(own).all(axis=(0, 1)) & (square > 0) & (mass > 0)
            usable &= _counted(own[:, [STEP, PULL, MASS, SQUARE, LIVE]])
            skew = own[:, CUBE, usable] * (self.unit[begin:end][usable] / square[usable])
            grams[tensor] = scale * _apart(own[:, MASS, usable], skew, own[:, PULL, usable])
        return grams

    def extend(self, coords: int) -> None:
        """Make room for `coords` more coordinates, which have not stepped so far; replaces `current`."""
        self.current = np.pad(self.current, ((0, 0), (0, coords)))
        self.momentum, self.owed, self.unit = (np.pad(x, (0, coords)) for x in (self.momentum, self.owed, self.unit))
        self.closed = [np.pad(stretch, ((0, 0), (0, coords))) for stretch in self.closed]

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return everything needed to go on later, as copies."""
        closed = np.zeros((2 * K - 1, *self.current.shape), np.float32)  # of one shape, however long the run is
        for place, stretch in enumerate(self.closed):
            closed[place] = stretch
        return {
            "counts": np.array([self.full, self.length, self.taken], dtype=np.int64),
            "closed": closed,
            "current": self.current.copy(),
            "momentum": self.momentum.copy(),
            "owed": self.owed.copy(),
            "unit": self.unit.copy(),
        }

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from `state()` of an earlier object; `current` is filled in place."""
        if state["current"].shape != self.current.shape:
            raise ValueError(
                f"`state` must hold {self.current.shape[1]} coordinates as this run does, got "
                f"{state['current'].shape[1]}; resume with the same model and the same `coordinates`."
            )
        self.full, self.length, self.taken = (int(value) for value in state["counts"])
        self.closed = [np.array(stretch, np.float32) for stretch in state["closed"][: self.kept]]
        self.current[:] = state["current"]
        self.momentum[:], self.owed[:], self.unit[:] = (state[name] for name in ("momentum", "owed", "unit"))


def _counted(means: Array) -> NDArray[np.bool_]:
    """Return which of a tensor's coordinates count, from the means of e m, g, e, u² and e u², `(k, 5, coords)`.

    Where gradients are rare, v decays in between and e grows without bound, yet multiplies nothing: ē would promise a
    descent that no rule could make, and a few such coordinates would drown ρ (docs/theory.md 4.6). So those sleep,
    unless they climb: rare large gradients against many small ones are the very harm that is looked for.
    """
    mass, square, live = means[:, 2:].mean(axis=0)
    with np.errstate(invalid="ignore", over="ignore"):
        asleep = np.asarray(mass * square > DORMANT * live)
    if asleep.any() and _climbs(_grams(means[:, :3, asleep])[1]):
        asleep[:] = False
    return ~asleep


def _climbs(gram_dg: Array) -> bool:
    """Return whether U(d,g) is as far below 0 as `judge_harm` wants it for calling a run harmful."""
    u, left_out = jackknife(gram_dg[None])
    return _z(float(u[0]), float(covariance(left_out)[0, 0])) < -student_t(len(gram_dg) - 1, ACCUSING)


def _grams(means: Array) -> Array:
    """Return the three Gram matrices of one tensor from its stretch means `(k, 3, coords)`.

    ē is as random as d and g. So ē of the product of g_i and g_j leaves out stretches i and j, as every mean of a
    product here is one of different stretches. On the diagonal of ⟨d_i, g_j⟩, which would hold the noise that d_i and
    g_i share, stands what the stepsizes of stretch i alone make of the other gradients, the mean of ⟨e_i g_j, g_l⟩: the
    jackknife needs it to leave out a stretch altogether.
    """
    k, mass = len(means), means[:, MASS].mean(axis=0)
    usable = np.isfinite(means).all(axis=(0, 1)) & (mass > 0)
    step, pull, own = (means[:, row, usable] for row in (STEP, PULL, MASS))
    dd, dg = (step / mass[usable]) @ step.T, step @ pull.T
    rest, squares = pull.sum(axis=0) - pull, (pull**2).sum(axis=0) - pull**2
    np.fill_diagonal(dg, (own * (rest**2 - squares)).sum(axis=1) / ((k - 1) * (k - 2)))
    return np.stack([dd, dg, _apart(own, pull, pull)])


def _apart(own: Array, p: Array, q: Array) -> Array:
    """Return ⟨p_i, q_j⟩ of `(k, coords)` with ē over the stretches but i and j; on the diagonal over all."""
    k, whole = len(own), (p * own.mean(axis=0)) @ q.T
    products: Array = (k * whole - (own * p) @ q.T - p @ (own * q).T) / (k - 2)
    np.fill_diagonal(products, np.diagonal(whole))
    return products


def judge_harm(gram_dd: Array, gram_dg: Array, gram_gg: Array, first_step: int, last_step: int) -> Harm:
    """Decide from the `(k, k)` products of stretches whether the steps go the wrong way.

    HARMFUL if U(d,g) lies significantly below 0, HARMLESS if significantly above; ρ has the same sign, and an interval
    where U(g,g) is significant too. U(g,g) estimates a square, yet comes out negative where the gradients of a run that
    hovers round a minimum cancel from stretch to stretch: those products tell of the way back, and decide nothing.
    """
    grams = np.stack([gram_dg, gram_gg, gram_dd])
    if not np.isfinite(grams).all():
        return undecided("the sums over the stretches are not finite", first_step, last_step)
    (dg, gg, dd), left_out = jackknife(grams, np.diagonal(gram_dg))
    freedom = grams.shape[-1] - 1
    z = _z(float(dg), float(covariance(left_out)[0, 0]))
    resolved = gg > 0
    interval = ratio_interval(dg, gg, left_out[:, :2]) if resolved else None
    rho = dg / gg if resolved else math.nan
    t = student_t(freedom, LEVEL)
    bounds = -student_t(freedom, ACCUSING), max(t, unskewed(left_out[:, 0], t)[1])
    decision, reason = _decide(rho, interval, z, bounds)
    return Harm(
        rho=rho,
        interval=interval or (-math.inf, math.inf),
        relative_size=math.sqrt(max(dd, 0.0) / gg) if resolved else math.nan,
        z=z,
        decision=decision,
        reason=reason,
        first_step=first_step,
        last_step=last_step,
        steps_needed=_steps_that_tell(z, bounds[1], last_step) if decision is HarmDecision.INCONCLUSIVE else None,
    )


def undecided(reason: str, first_step: int = 0, last_step: int = 0) -> Harm:
    """Return the answer of a test that could not be made."""
    return Harm(
        rho=math.nan,
        interval=(-math.inf, math.inf),
        relative_size=math.nan,
        z=math.nan,
        decision=HarmDecision.INCONCLUSIVE,
        reason=f"The drift test could not be made: {reason}.",
        first_step=first_step,
        last_step=last_step,
        steps_needed=max(last_step, 2 * K) if last_step else None,
    )


def cross_mean(gram: Array) -> Array:
    """Return U from `(…, k, k)`: the mean of the entries off the diagonal."""
    k = gram.shape[-1]
    off_diagonal = gram.sum(axis=(-2, -1)) - np.trace(gram, axis1=-2, axis2=-1)
    return np.asarray(off_diagonal / (k * (k - 1)))


def jackknife(grams: Array, masses: Array | None = None) -> tuple[Array, Array]:
    """Return U of each of the `(n, k, k)` matrices, and how much less each is without a stretch, `(k, n)`.

    `masses` `(k,)` is what each stretch's stepsizes alone make of U(g,g), the second matrix; they leave with it.
    """
    k = grams.shape[-1]
    kept = [np.delete(np.arange(k), i) for i in range(k)]
    left_out = np.stack([cross_mean(grams[:, keep][:, :, keep]) for keep in kept])
    if masses is not None:
        left_out[:, 1] = ((k - 2) * left_out[:, 1] - masses) / (k - 3)
    return cross_mean(grams), left_out.mean(axis=0) - left_out


def covariance(left_out: Array) -> Array:
    """Return the delete-one covariance `(n, n)` of what `jackknife` left out."""
    k = len(left_out)
    return np.asarray((k - 1) / k * left_out.T @ left_out)


def ratio_interval(x: float, y: float, left_out: Array) -> tuple[float, float] | None:
    """Return an interval of x/y, y > 0, at `LEVEL`, from what `jackknife` left out of both; None if it is unbounded.

    Fieller's interval, further out on the side where rare stretches with large numbers are to be expected: if these
    are few, those that came are too alike, and Student's t promises too much. Hall's transformation takes the skewness
    out of it (P. Hall, On the removal of skewness by transformation, J. R. Statist. Soc. B 54, 1992); whichever of
    the two reaches further is taken, as long as that has an end: y is then too weak for its skewness to be known.
    """
    t, joint = student_t(len(left_out) - 1, LEVEL), covariance(left_out)
    plain = fieller(x, y, joint, t)
    if plain is None:
        return None
    below, above = unskewed(left_out @ np.array([1.0, -x / y]), t)
    low, high = (fieller(x, y, joint, max(t, q)) or plain for q in (above, -below))
    return low[0], high[1]


def unskewed(deviations: Array, t: float) -> tuple[float, float]:
    """Return what -t and t become for the mean of values with so skewed `deviations` `(k,)` (Hall 1992)."""
    k, size = len(deviations), float(np.sqrt((deviations**2).mean()))
    skewness = math.sqrt(k * (k - 1)) / (k - 2) * float(((deviations / size) ** 3).mean()) if size > 0 else 0.0
    if abs(skewness) < ROUNDED:
        return -t, t
    roots = (math.cbrt(1 + skewness * (q / math.sqrt(k) - skewness / (6 * k))) for q in (-t, t))
    below, above = (math.sqrt(k) * 3 / skewness * (root - 1) for root in roots)
    return below, above


def fieller(x: float, y: float, covariance: Array, t: float) -> tuple[float, float] | None:
    """Return Fieller's interval {R : (x - R y)² ≤ t² var(x - R y)} of x/y, or None if it is unbounded."""
    (vxx, vxy), (_, vyy) = covariance * t * t
    a, b, c = y * y - vyy, x * y - vxy, x * x - vxx
    if a <= 0:
        return None
    root = math.sqrt(max(b * b - a * c, 0.0))
    return float((b - root) / a), float((b + root) / a)


@cache
def student_t(freedom: int, level: float) -> float:
    """Return the two-sided quantile of Student's t."""
    from scipy.special import stdtrit  # `scipy.stats` has it as well, and takes 30 MB more

    return float(stdtrit(freedom, 0.5 + level / 2))


def _z(value: float, variance: float) -> float:
    if variance > 0:
        return value / math.sqrt(variance)
    return math.copysign(math.inf, value) if value else 0.0


def _steps_that_tell(z: float, high: float, last: int) -> int | None:
    """Return how many more steps show with probability `PROMISE` that a run descends; None where 64 times would not.

    After c times the steps z has grown by √c. It is off by 1 now and then, so that it is normal with variance 1 + c.
    Nothing is promised of a run that seems to climb, and is not yet accused: two in three of those only hover.
    """

    def chance(c: float) -> float:
        return 1 - NormalDist(z * math.sqrt(c), math.sqrt(1 + c)).cdf(high)

    return steps_until(last, chance) if math.isfinite(z) else None


def no_descent(interval: tuple[float, float]) -> bool:
    """Return whether an interval of ρ is so narrow and so near 0 that it says: no descent is left."""
    return max(map(abs, interval)) <= NO_DESCENT


def _decide(
    rho: float, interval: tuple[float, float] | None, z: float, bounds: tuple[float, float]
) -> tuple[HarmDecision, str]:
    if math.isnan(rho):
        return HarmDecision.INCONCLUSIVE, "no mean gradient is left beside the noise, so rho decides nothing."
    idle = interval is not None and no_descent(interval)
    if abs(rho) < ROUNDED:
        decision = HarmDecision.IDLE if idle else HarmDecision.INCONCLUSIVE
        return decision, f"rho = {rho:.3g}, which is as good as 0: the steps lead nowhere."
    known = f" with interval [{interval[0]:.3g}, {interval[1]:.3g}]" if interval else ""
    low, high = bounds
    measured = f"rho = {rho:.3g}{known}, z = {z:.2f}"
    if z < low:
        return HarmDecision.HARMFUL, f"{measured}, below {low:.2f}: the steps go against the mean gradient."
    if z > high:
        return HarmDecision.HARMLESS, f"{measured}, above {high:.2f}: the steps descend."
    if idle:
        return HarmDecision.IDLE, f"{measured}: next to nothing, so no descent is left, nor do the steps climb."
    return HarmDecision.INCONCLUSIVE, f"{measured}, between {low:.2f} and {high:.2f}: the sign is not resolved."
