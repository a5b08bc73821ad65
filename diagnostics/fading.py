"""The sums of one step over all coordinates of a large tensor, without a memory of the step before.

Where v_t = β2·v_{t-1} + (1-β2)·g_t², the second moment before the step follows from the one after it:

    v_{t-1} - v_t = (1-β2)/β2 · (v_t - g_t²),

and so does e_{t-1}, without a buffer as large as the tensor. e_t - e_{t-1} is not taken as a difference, which would be
mostly rounding, but as what it comes from. With r = sqrt(v), h(r) = gain/(scale·r + eps), and r', lr', h' of the step
before,

    by the rate  (lr - lr')·h'(r'),    by the corrections  lr·(h(r') - h'(r')),    by v  lr·(h(r) - h(r')),

the last two over common denominators. So numbers of float32 are summed in float32, sixteen at a time and in short
pieces: the sums are right to some 1e-7. What cannot be recovered is a v that grew more than ten thousandfold in one
step, when nearly all of it is g²: such a coordinate is not compared, and its fall missing in c (not in c_plus).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import inner

Array = NDArray[np.float64]
Values = NDArray[np.floating]

PIECE = 512
"""Numbers that are summed in their own precision; the pieces are summed in float64."""
BETA2 = 6
"""The place of β2 among the coefficients."""


def kernel(real: type[np.floating], least: float) -> Callable[..., Any]:  # noqa: PLR0915 - one pass
    """Return the compiled sums of tensors of such numbers; v before the step is known from `least` of v on."""
    one, none, huge, enough = real(1.0), real(0.0), real(np.inf), real(least)

    # Nothing here is a difference of two near numbers, so contraction does no harm; compare `accumulate`.
    @inner(fastmath={"reassoc", "nsz", "contract"})
    def add_piece(v: Values, g: Values, scalars: tuple[Any, ...], out: Array) -> None:
        active = compared = rising = bound = nonfinite = none
        a = b = c = c_plus = e2 = delta2 = none
        c_lr = c_bias = c_v = rise_lr = rise_bias = rise_v = g2 = rms2 = none
        lr, gain, scale, eps, scale_then, eps_then, change_lr, change_root, change_one, back, floor, compare = scalars
        for i in range(len(v)):
            v_i, g_i = v[i], g[i]
            sound = (abs(g_i) < huge) & (v_i < huge) & (v_i >= none)
            v_i = v_i if sound else none
            g_i = g_i if sound else none
            live = v_i > none
            fall = back * (v_i - g_i * g_i)
            v_then = v_i + fall
            known = live & (v_then > enough * v_i) & (compare > none)
            v_then = v_then if known else one
            r, r_then = real(math.sqrt(v_i)), real(math.sqrt(v_then))

            below, below_then, between = scale * r + eps, scale_then * r_then + eps_then, scale * r_then + eps
            over_then = one / below_then
            e = lr * (gain / below) if live else none
            by_lr = change_lr * over_then if known else none
            by_bias = lr * over_then * (change_root * r_then + change_one) / between if known else none
            by_v = e * scale * fall / ((r + r_then) * between) if known else none
            delta = by_lr + by_bias + by_v
            eg = e * g_i
            u = g_i / max(scale * r, eps) if live else none

            active += one if live else none
            compared += one if known else none
            rising += one if delta > none else none
            bound += one if live & (scale * r < floor) else none
            nonfinite += none if sound else one
            a += e
            b += eg * eg
            c += abs(delta)
            c_plus += max(delta, none)
            e2 += e * e
            delta2 += delta * delta
            c_lr += abs(by_lr)
            c_bias += abs(by_bias)
            c_v += abs(by_v)
            rise_lr += max(by_lr, none)
            rise_bias += max(by_bias, none)
            rise_v += max(by_v, none)
            g2 += g_i * g_i
            rms2 += u * u

        # In the order of `SUMS`.
        first = (active, rising, nonfinite, a, b, c_plus, g2, rms2, compared, bound)
        rest = (c, e2, delta2, c_lr, c_bias, c_v, rise_lr, rise_bias, rise_v)
        for k in range(len(first)):
            out[k] += float(first[k])
        for k in range(len(rest)):
            out[len(first) + k] += float(rest[k])

    @inner()
    def add_all(v: Values, g: Values, now: Array, then: Array, out: Array) -> None:
        """Add one step to the sums over coordinates `out`; `then` is zero where there is no step to compare with."""
        lr, gain, scale, eps, beta2 = now[0], now[1], now[2], now[3], now[BETA2]
        lr_then, gain_then, scale_then, eps_then = then[0], then[1], then[2], then[3]
        compare = scale_then + eps_then > 0.0
        scalars = (
            real(lr),
            real(gain),
            real(scale),
            real(eps),
            real(scale_then if compare else 1.0),
            real(eps_then if compare else 1.0),
            real((lr - lr_then) * gain_then),
            real(gain * scale_then - gain_then * scale),
            real(gain * eps_then - gain_then * eps),
            real((1.0 - beta2) / beta2),
            real(eps if scale > 0.0 else 0.0),
            real(1.0 if compare else 0.0),
        )
        for begin in range(0, len(v), PIECE):
            add_piece(v[begin : begin + PIECE], g[begin : begin + PIECE], scalars, out)

    return add_all


add_short, add_long = kernel(np.float32, 1e-4), kernel(np.float64, 1e-10)
"""For tensors of float32 and of float64."""
