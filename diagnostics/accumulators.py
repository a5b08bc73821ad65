"""The accumulators (a), (b), (c) of Chen, Liu, Sun and Hong (ICLR 2019) over a tensor's watched coordinates.

Every elementwise rule writes its effective stepsize as

    e_t = lr_t · h_t(v_t),    h_t(v) = gain_t / (scale_t·sqrt(v) + eps_t),

so that Δ_t = e_t - e_{t-1} splits exactly into what the learning rate, the bias correction (gain, scale, eps) and
the second moment each did, applied in this order:

    Δ = (lr_t - lr_{t-1})·h_{t-1}(v_{t-1}) + lr_t·(h_t(v_{t-1}) - h_{t-1}(v_{t-1})) + lr_t·(h_t(v_t) - h_t(v_{t-1})).

A coordinate counts from its first non-zero second moment: until then the optimizer multiplies zero by lr/eps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from .trace import SUMS

Array = NDArray[np.float64]

PER_COORDINATE = 4
"""a, b, c and c_plus are also kept per coordinate, for the standard errors of a sample."""


class Coefficients(NamedTuple):
    """The scalars of one step's rule: e = lr·gain/(scale·sqrt(v) + eps)."""

    lr: float
    gain: float
    scale: float
    eps: float


class Accumulator:
    """The running sums of one tensor's watched coordinates.

    `last` holds the newest step's sums over coordinates, one number per name in `SUMS`; `drift` is the open stretch
    of the harm test for the first coordinates, shape `(3, lead)`. `attach` makes both views of their owner's arrays.
    """

    def __init__(self, coordinates: int, keep_each: bool) -> None:
        self.root = np.zeros(coordinates)
        """sqrt(v) of the newest step, zero before the first."""
        self.each = np.zeros((PER_COORDINATE, coordinates if keep_each else 0))
        """a, b, c and c_plus per coordinate, where the standard error of a sample needs them."""
        self.then: Coefficients | None = None
        self.attach(np.zeros(len(SUMS)), np.zeros((3, 0)))

    def attach(self, last: Array, drift: Array) -> None:
        """Write from now on into these arrays."""
        self.last, self.drift = last, drift

    def add(self, v: NDArray[np.floating], g: NDArray[np.floating], now: Coefficients) -> None:
        """Add one step with second moment `v` and gradient `g`, both `(coordinates,)`."""
        accumulate(v, g, self.root, self.each, self.drift, now, self.then or now, self.last)
        self.then = now

    def forget(self) -> None:
        """Compare the next stepsize with nothing: what comes is not the successor of what was."""
        self.root[:] = 0.0

    def stepsizes(self) -> Array:
        """Return the newest stepsizes of the coordinates that have taken a step, in no special order."""
        if self.then is None:
            return np.empty(0)
        root = self.root[self.root > 0]
        stepsizes: Array = self.then.lr * (self.then.gain / (self.then.scale * root + self.then.eps))
        return stepsizes


# reassoc lets the sums run in vector lanes. No contraction: a fused multiply-add would make e_t - e_{t-1} of two
# equal stepsizes differ from zero, and c = 0 is a statement that users rely on.
@numba.njit(cache=True, fastmath={"reassoc", "nsz"}, error_model="numpy")
def accumulate(  # noqa: PLR0915, PLR0917 - one pass in compiled code, called with arrays by position
    v: NDArray[np.floating],
    g: NDArray[np.floating],
    root: Array,
    each: Array,
    drift: Array,
    now: Coefficients,
    then: Coefficients,
    out: Array,
) -> None:
    """Add one step to the sums per coordinate `each`, to `drift`, and write its sums over coordinates to `out`.

    `root` holds sqrt(v) of the previous step and is replaced by this step's; zero means: no step yet.
    """
    active = compared = rising = bound = nonfinite = 0.0
    a = b = c = c_plus = e2 = delta2 = 0.0
    c_lr = c_bias = c_v = rise_lr = rise_bias = rise_v = g2 = rms2 = 0.0
    lr, gain, scale, eps = now
    lr0, gain0, scale0, eps0 = then
    keep_each = each.shape[1] > 0

    for i in range(v.shape[0]):
        v_i, g_i = np.float64(v[i]), np.float64(g[i])
        sound = (abs(g_i) < math.inf) & (v_i < math.inf) & (v_i >= 0.0)
        v_i = v_i if sound else np.float64(0.0)
        g_i = g_i if sound else np.float64(0.0)
        live = v_i > 0.0
        r, r0 = math.sqrt(v_i), root[i]
        known = live & (r0 > 0.0)
        r0 = r0 if known else 1.0

        h = gain / (scale * r + eps)
        h_lr = gain0 / (scale0 * r0 + eps0)
        h_bias = gain / (scale * r0 + eps)
        e = lr * h if live else 0.0
        by_lr = lr * h_lr - lr0 * h_lr if known else 0.0
        by_bias = lr * h_bias - lr * h_lr if known else 0.0
        by_v = lr * h - lr * h_bias if known else 0.0
        delta = lr * h - lr0 * h_lr if known else 0.0
        rise = max(delta, 0.0)
        eg = e * g_i
        u = g_i / max(scale * r, eps) if live else 0.0

        active += 1.0 if live else 0.0
        compared += 1.0 if known else 0.0
        rising += 1.0 if delta > 0.0 else 0.0
        bound += 1.0 if live & (scale * r < eps) else 0.0
        nonfinite += 0.0 if sound else 1.0
        a += e
        b += eg * eg
        c += abs(delta)
        c_plus += rise
        e2 += e * e
        delta2 += delta * delta
        c_lr += abs(by_lr)
        c_bias += abs(by_bias)
        c_v += abs(by_v)
        rise_lr += max(by_lr, 0.0)
        rise_bias += max(by_bias, 0.0)
        rise_v += max(by_v, 0.0)
        g2 += g_i * g_i
        rms2 += u * u
        root[i] = r if live else root[i]
        if keep_each:
            each[0, i] += e
            each[1, i] += eg * eg
            each[2, i] += abs(delta)
            each[3, i] += rise

    # In a loop of its own: a condition on `i` above would keep the compiler from using vector lanes.
    for i in range(drift.shape[1]):
        v_i, g_i = np.float64(v[i]), np.float64(g[i])
        if v_i > 0.0 and v_i < math.inf and abs(g_i) < math.inf:
            e = lr * (gain / (scale * root[i] + eps))
            drift[0, i] += e * g_i
            drift[1, i] += g_i
            drift[2, i] += e

    rms2 = rms2 / active if active > 0.0 else 0.0
    # In the order of `SUMS`.
    first = (active, rising, nonfinite, a, b, c_plus, g2, rms2, compared, bound)
    rest = (c, e2, delta2, c_lr, c_bias, c_v, rise_lr, rise_bias, rise_v, 1.0)
    for k in range(10):
        out[k], out[10 + k] = first[k], rest[k]
