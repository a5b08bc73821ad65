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
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numba import carray  # type: ignore[attr-defined]
from numpy.typing import NDArray

from .compiled import compiled, inner, pointer
from .drift import Stretches
from .imagined import Alternatives, imagine, meet, outstanding
from .sampling import Coordinates
from .trace import SUMS

Array = NDArray[np.float64]

PER_COORDINATE = 4
"""a, b, c and c_plus are also kept per coordinate, for the standard errors of a sample."""
ACTIVE, NONFINITE, RMS2, STEPS = (SUMS.index(name) for name in ("active", "nonfinite", "rms2", "steps"))
BLOCK = 4096
"""Coordinates that the compiled loop holds at a time; the arrays for so many lie in a second-level cache."""


class Coefficients(NamedTuple):
    """The scalars of one step's rule: e = lr·gain/(scale·sqrt(v) + eps).

    What e multiplies is nesterov·g + (1 - nesterov)·m, with m the average of the gradients that fades by `beta1`.
    """

    lr: float
    gain: float
    scale: float
    eps: float
    beta1: float = 0.0
    nesterov: float = 0.0

    def packed(self) -> bytes:
        """Return them as a job holds them; tensors of one group share them, and packing them takes longest."""
        return RULE.pack(*self)


RULE, PLACE = struct.Struct("=6d"), struct.Struct("=6q")
"""What a tensor is given of a step: the addresses of v and g, the size of an element in bytes (0: no step), whether
just the watched coordinates lie there, whether all coordinates are to be summed and where v before the step lies
(0: it was zero); and the coefficients, behind them."""
COEFFICIENTS = 6  # their place in a job


class Accumulators:
    """The running sums of all watched tensors, one row a tensor, so that a step takes one call of compiled code.

    `last` has the newest step's sums over coordinates and `sums` those of all steps, both `(tensors, len(SUMS))`;
    `rms2_max` is the largest RMS_t² so far, `(tensors,)`.
    """

    def __init__(self) -> None:
        self.last, self.sums, self.rms2_max = np.zeros((0, len(SUMS))), np.zeros((0, len(SUMS))), np.zeros(0)
        self._coordinates: list[Coordinates] = []
        self._root, self._each = np.zeros(0), np.zeros((PER_COORDINATE, 0))
        self._index, self._lead = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._scratch, self._unkept = np.zeros((3, BLOCK)), np.zeros((PER_COORDINATE, BLOCK))
        self._layout, self._jobs = np.zeros((0, 4), np.int64), np.zeros((0, (PLACE.size + RULE.size) // 8), np.int64)
        self._then = np.zeros((0, len(Coefficients._fields)))
        self._held: list[object] = []
        """What a job points to and nobody else keeps."""

    @property
    def then(self) -> Array:
        """The coefficients of every tensor's newest step, `(tensors, 6)`."""
        return self._then

    def extend(self, coordinates: Sequence[Coordinates]) -> list[Accumulator]:
        """Make room for more tensors; return a handle for every row, the old ones included."""
        more = len(coordinates)
        sizes = [(c.watched, 0 if c.index is None else c.watched, c.numel, c.lead) for c in coordinates]
        self._layout = np.concatenate([self._layout, np.array(sizes, np.int64).reshape(-1, 4)])
        self._index = np.concatenate([self._index, *(c.index for c in coordinates if c.index is not None)])
        watched, sampled = self._layout[:, 0], self._layout[:, 1]
        self._lead = np.concatenate([self._lead, *(c.lead_index for c in coordinates)])
        self._root = np.pad(self._root, (0, watched.sum() - len(self._root)))
        self._each = np.pad(self._each, ((0, 0), (0, sampled.sum() - self._each.shape[1])))
        self.rms2_max = np.pad(self.rms2_max, (0, more))
        self.last, self.sums, self._then = (np.pad(x, ((0, more), (0, 0))) for x in (self.last, self.sums, self._then))
        self._jobs = np.pad(self._jobs, ((0, more), (0, 0)))
        roots, eaches = np.split(self._root, watched.cumsum()[:-1]), np.split(self._each, sampled.cumsum()[:-1], axis=1)
        self._coordinates += coordinates
        rows = zip(self._coordinates, roots, eaches, self.last, self._jobs, self._then, strict=True)
        return [Accumulator(c, root, each, last, job, then, self._held) for c, root, each, last, job, then in rows]

    def add(self, stretches: Stretches, alternatives: Alternatives, kept: NDArray[np.float32]) -> bool:
        """Add the step that the handles were given, and forget it; return whether it met a non-finite number.

        The first coordinates of every tensor add to the open stretch of the harm test, and the first of those to the
        alternatives; `kept` is where the flight recorder wants the step's first sums, `(tensors, columns)`.
        """
        sick: bool = accumulate_all(
            self._jobs,
            self._layout,
            self._index,
            self._lead,
            self._root,
            self._each,
            self._unkept,
            stretches.current,
            stretches.momentum,
            stretches.owed,
            stretches.unit,
            alternatives.numbers,
            alternatives.members,
            alternatives.stepped,
            alternatives.now,
            alternatives.state,
            alternatives.past,
            alternatives.counts,
            alternatives.sums,
            alternatives.stretches.current,
            self._jobs.view(np.float64),
            self._then,
            self._scratch,
            self.last,
            self.sums,
            self.rms2_max,
            kept,
        )
        self._held.clear()
        return sick

    def clear(self) -> None:
        """Forget what the handles were given, after a step that went wrong."""
        self._jobs[:] = 0
        self._held.clear()


class Accumulator:
    """One tensor's row: what it is given of a step, and what it has summed up."""

    def __init__(
        self,
        coordinates: Coordinates,
        root: Array,
        each: Array,
        last: Array,
        job: NDArray[np.int64],
        then: Array,
        held: list[object],
    ) -> None:
        self.root = root
        """sqrt(v) of the newest step, `(watched,)`; zero before the first."""
        self.each = each
        """a, b, c and c_plus per coordinate of a sample, `(4, watched)`; `(4, 0)` where all are watched."""
        self.last, self.then = last, then
        self._place, self._rule = job[:COEFFICIENTS].data.cast("B"), job[COEFFICIENTS:].data.cast("B")
        self._held, self._coordinates = held, coordinates
        self._known: torch.Tensor | None = None
        self._address = 0
        """A second moment found in place, and where: most optimizers keep it there for the whole run."""

    def point(
        self,
        v: torch.Tensor | None,
        g: torch.Tensor,
        rule: bytes,
        survey: bool = False,
        before: torch.Tensor | None = None,
    ) -> bool:
        """Take this step from whole tensors, `v` None for 1, which must outlive `add`; False where that cannot be.

        `rule` holds the packed coefficients.

        A `survey`, whose tensors may be copies, sums over all coordinates in place of the sample; `before` is v before
        the step, None for zero.
        """
        in_place = self._coordinates.in_place
        if not in_place(g) or not (v is None or v.dtype is g.dtype):
            return False
        address = 0
        if v is not None:
            address = v.data_ptr()
            if v is not self._known or address != self._address:
                if not in_place(v):
                    return False
                self._known, self._address = v, address
        past = 0 if before is None else before.data_ptr()
        if survey:
            self._held.append((v, g, before))
        PLACE.pack_into(self._place, 0, address, g.data_ptr(), g.element_size(), 0, survey, past)
        self._rule[:] = rule
        return True

    def hold(self, v: NDArray[np.floating], g: NDArray[np.floating], now: Coefficients) -> None:
        """Take this step from arrays of the watched coordinates, `(watched,)`."""
        held = np.ascontiguousarray(v, np.float64), np.ascontiguousarray(g, np.float64)
        self._held.append(held)
        PLACE.pack_into(self._place, 0, held[0].ctypes.data, held[1].ctypes.data, 8, 1, 0, 0)
        self._rule[:] = now.packed()

    def idle(self) -> None:
        """Take nothing from this step."""
        self.last[:] = 0.0
        PLACE.pack_into(self._place, 0, 0, 0, 0, 0, 0, 0)

    def forget(self) -> None:
        """Compare the next stepsize with nothing: what comes is not the successor of what was."""
        self.root[:] = 0.0
        self.then[:] = 0.0
        self._known = None

    def stepsizes(self) -> Array:
        """Return the newest stepsizes of the coordinates that have taken a step, in no special order."""
        lr, gain, scale, eps = self.then[:4]
        stepsizes: Array = lr * (gain / (scale * self.root[self.root > 0] + eps))
        return stepsizes


@inner()
def gather(values: NDArray[np.floating], index: NDArray[np.int64], begin: int, out: Array) -> None:
    """Copy values[index[begin]], … to `out`, or values[begin], … where `index` is empty."""
    if len(index):
        chosen = index[begin : begin + len(out)]
        for i in range(len(out)):
            out[i] = values[chosen[i]]
    else:
        whole = values[begin : begin + len(out)]
        for i in range(len(out)):
            out[i] = whole[i]


@inner()
def load(address: int, size: int, index: NDArray[np.int64], numel: int, begin: int, out: Array) -> None:
    """Copy coordinates begin, begin + 1, … of the tensor at `address` to `out` as float64; those of `index` if given.

    `size` is that of an element in bytes, 4 or 8; an `address` of zero stands for ones.
    """
    if address == 0:
        out[:] = 1.0
    elif size == 4:
        gather(carray(pointer(address), numel, np.float32), index, begin, out)  # type: ignore[call-arg]
    else:
        gather(carray(pointer(address), numel, np.float64), index, begin, out)  # type: ignore[call-arg]


@compiled
def accumulate_all(
    jobs: NDArray[np.int64],
    layout: NDArray[np.int64],
    index: NDArray[np.int64],
    lead: NDArray[np.int64],
    root: Array,
    each: Array,
    unkept: Array,
    stretch: Array,
    momentum: Array,
    owed: Array,
    unit: Array,
    rules: Array,
    imagined: NDArray[np.int64],
    stepped: NDArray[np.bool_],
    rule_now: Array,
    rule_state: Array,
    past: Array,
    counts: Array,
    rule_sums: Array,
    rule_stretch: Array,
    coefficients: Array,
    then: Array,
    scratch: Array,
    last: Array,
    sums: Array,
    rms2_max: Array,
    kept: NDArray[np.float32],
) -> bool:
    """Add one step of every tensor that has a job, and take the jobs off the list; tell of non-finite numbers."""
    v, g = scratch[0], scratch[1]
    none = np.empty(0, np.int64)
    at = at_sampled = at_lead = at_rules = 0
    sick = False
    for p in range(len(jobs)):
        watched, sampled, numel, leading = layout[p]
        v_address, g_address, size, gathered, survey, before = jobs[p, :COEFFICIENTS]
        now = coefficients[p, COEFFICIENTS:]
        if size > 0:
            chosen = none if gathered else index[at_sampled : at_sampled + sampled]
            last[p] = 0.0
            for begin in range(0, watched, BLOCK):
                end = min(begin + BLOCK, watched)
                n = end - begin
                load(v_address, size, chosen, numel, begin, v[:n])
                load(g_address, size, chosen, numel, begin, g[:n])
                # Rows by name, each in one piece: only then does the compiler use vector lanes.
                own, a, z = (each, at_sampled + begin, at_sampled + end) if sampled and not survey else (unkept, 0, n)
                rows = (own[0, a:z], own[1, a:z], own[2, a:z], own[3, a:z])
                accumulate(v[:n], g[:n], root[at + begin : at + end], rows, now, then[p], last[p])
            if survey:
                addresses = (v_address, g_address, before)
                accumulate_whole(addresses, size, numel, scratch, unkept, now, then[p], last[p])
                for k in range(last.shape[1]):
                    if k != RMS2:
                        last[p, k] *= watched / numel  # as if the sample had been like the whole
            # The members of the harm test: the first of a sample, and a sample of their own where all are watched.
            members = lead[at_lead : at_lead + leading] if gathered or not sampled else chosen[:leading]
            load(v_address, size, members, numel, 0, v[:leading])
            load(g_address, size, members, numel, 0, g[:leading])
            a, z = at_lead, at_lead + leading
            # Row by row: of a slice of all rows the compiler would not know that a row is in one piece.
            first, second = (
                (stretch[0, a:z], stretch[1, a:z], stretch[2, a:z]),
                (stretch[3, a:z], stretch[4, a:z], stretch[5, a:z]),
            )
            held = momentum[a:z], owed[a:z], unit[a:z]
            drift(v[:leading], g[:leading], now, held, first, second)
            if len(rules):
                n = imagined[p]
                meet(rule_now, at_rules, v[:n], g[:n], momentum[a : a + n])
                stepped[p] = True
            active = last[p, ACTIVE] * (numel / watched if survey else 1.0)
            last[p, RMS2] = last[p, RMS2] / active if active > 0 else 0.0
            last[p, STEPS] = 1.0
            then[p] = now
            jobs[p, 2] = 0
        at, at_sampled, at_lead = at + watched, at_sampled + sampled, at_lead + leading
        at_rules += imagined[p]
        sick |= last[p, NONFINITE] > 0
        if last[p, RMS2] > rms2_max[p]:  # noqa: PLR1730 - not so for NaN
            rms2_max[p] = last[p, RMS2]
        for k in range(last.shape[1]):
            sums[p, k] += last[p, k]
        for k in range(kept.shape[1]):
            kept[p, k] = last[p, k]
    if len(rules):
        imagine(rule_now, imagined, stepped, counts, then, rules, rule_state, past, rule_sums, rule_stretch)
    return sick


@inner()
def accumulate_whole(
    addresses: tuple[int, int, int],
    size: int,
    numel: int,
    scratch: Array,
    unkept: Array,
    now: Array,
    then: Array,
    out: Array,
) -> None:
    """Write the sums of one step over all coordinates to `out`; the addresses are those of v, g and v before."""
    v_address, g_address, before = addresses
    none = np.empty(0, np.int64)
    out[:] = 0.0
    for begin in range(0, numel, BLOCK):
        n = min(BLOCK, numel - begin)
        v, g, root_before = scratch[0, :n], scratch[1, :n], scratch[2, :n]
        load(v_address, size, none, numel, begin, v)
        load(g_address, size, none, numel, begin, g)
        if before == 0:
            root_before[:] = 0.0
        else:
            load(before, size, none, numel, begin, root_before)
            root_before[:] = np.sqrt(root_before)
        rows = (unkept[0, :n], unkept[1, :n], unkept[2, :n], unkept[3, :n])
        accumulate(v, g, root_before, rows, now, then, out)


@inner()
def drift(
    v: Array, g: Array, now: Array, held: tuple[Array, ...], steps: tuple[Array, ...], powers: tuple[Array, ...]
) -> None:
    """Move the momentum of the members of the harm test on, and add e·m, g, e, u², u³ and e·u² to its open stretch.

    With e·m goes what the momentum owes more than before, see `drift.py`.
    """
    lr, gain, scale, eps, beta1, nesterov = now
    to_come = outstanding(beta1, nesterov) / lr if lr > 0.0 else 0.0
    m, owed, unit = held
    sum_em, sum_g, sum_e = steps
    sum_u2, sum_u3, sum_eu2 = powers
    for i in range(len(v)):
        v_i, g_i = v[i], g[i]
        live = (v_i > 0.0) & (v_i < math.inf) & (abs(g_i) < math.inf)
        v_i = v_i if live else 1.0
        e = lr * (gain / (scale * math.sqrt(v_i) + eps))
        e = e if live else 0.0
        g_i = g_i if live else 0.0
        m[i] = beta1 * m[i] + (1.0 - beta1) * g_i
        owes = e * to_come * m[i] if e > 0.0 else owed[i]
        sum_em[i] += e * (nesterov * g_i + (1.0 - nesterov) * m[i]) + lr * (owes - owed[i])
        owed[i] = owes
        sum_g[i] += g_i
        sum_e[i] += e
        unit[i] = abs(g_i) if unit[i] == 0.0 else unit[i]
        u = g_i / unit[i] if unit[i] > 0.0 else 0.0
        sum_u2[i] += u * u
        sum_u3[i] += u * u * u
        sum_eu2[i] += e * u * u


# reassoc lets the sums run in vector lanes. No contraction: a fused multiply-add would make e_t - e_{t-1} of two
# equal stepsizes differ from zero, and c = 0 is a statement that users rely on.
@inner(fastmath={"reassoc", "nsz"})
def accumulate(  # noqa: PLR0915 - one pass in compiled code
    v: Array, g: Array, root: Array, each: tuple[Array, ...], now: Array, then: Array, out: Array
) -> None:
    """Add one step to the sums per coordinate `each` and to the sums over coordinates `out`.

    `root` holds sqrt(v) of the previous step and is replaced by this step's; zero means: no step yet.
    """
    active = compared = rising = bound = nonfinite = 0.0
    a = b = c = c_plus = e2 = delta2 = 0.0
    c_lr = c_bias = c_v = rise_lr = rise_bias = rise_v = g2 = rms2 = 0.0
    lr, gain, scale, eps, _, _ = now
    lr0, gain0, scale0, eps0, _, _ = then
    each_a, each_b, each_c, each_rise = each
    # Without a second moment (scale = 0) there is no root for eps to outweigh.
    floor = eps if scale > 0.0 else 0.0

    for i in range(v.shape[0]):
        v_i, g_i = v[i], g[i]
        sound = (abs(g_i) < math.inf) & (v_i < math.inf) & (v_i >= 0.0)
        v_i = v_i if sound else 0.0
        g_i = g_i if sound else 0.0
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
        bound += 1.0 if live & (scale * r < floor) else 0.0
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
        each_a[i] += e
        each_b[i] += eg * eg
        each_c[i] += abs(delta)
        each_rise[i] += rise

    # In the order of `SUMS`.
    first = (active, rising, nonfinite, a, b, c_plus, g2, rms2, compared, bound)
    rest = (c, e2, delta2, c_lr, c_bias, c_v, rise_lr, rise_bias, rise_v, 0.0)
    for k in range(10):
        out[k] += first[k]
        out[10 + k] += rest[k]
