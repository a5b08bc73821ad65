"""One step of every watched tensor, in one call of compiled code: read v and g where they lie, and add up."""

from __future__ import annotations

import math

import numpy as np
from numba import carray  # type: ignore[attr-defined]
from numpy.typing import NDArray

from .compiled import compiled, draw, inner, pointer, unlocked
from .fading import add_long, add_short
from .imagined import imagine, meet, outstanding
from .signals import BLOCKS, WIDTH, look
from .trace import SUMS

Array = NDArray[np.float64]

ACTIVE, NONFINITE, RMS2, STEPS = (SUMS.index(name) for name in ("active", "nonfinite", "rms2", "steps"))
COLUMNS = len(SUMS)
TERMS = 7
"""Coefficients of a step."""
BLOCK = 4096
"""Coordinates that the compiled loop holds at a time; the arrays for so many lie in a second-level cache."""
CHUNK = 2**16
"""Coordinates of a tensor without a memory that one thread sums; the same however many threads there are, so that the
sums have the same bits."""
SCANNED = 2**14
"""Elements up to which a sampled tensor, read where it lies, is searched whole for numbers that are not finite."""

SICK, STALE = 16, 32
"""Bits beside those of `signals.py`: a number was not finite; a counter did not advance by one, so nothing was done."""

V, SIZE, GATHERED, SURVEY, V_BEFORE, STEADY, CLOCK, CLOCK_SIZE, RULE, JOB = range(10)
"""Columns of a tensor's job: the address of v; the size of an element in bytes, 0 for no step; whether just the watched
coordinates lie there; whether all coordinates are to be summed, and where v before the step lies (0: it was zero);
whether the job stands until it is withdrawn; where the optimizer's own counter lies and its size; and the row of the
rule. The address of g stands apart, as it changes in every step."""

FINISHED = 2
"""In the column of the survey: the sums over all coordinates were made elsewhere and lie where v before the step would;
at v and g are just the members of the harm test."""

LAID = 10
"""Of a tensor: how many coordinates are watched, and in a sample; how many there are, and members of the harm test; of
how many √v is kept; how many are watched and are there in all, if other processes hold more of it; the addresses of
the indices of the sample, and of the places of the members among what is watched; and its chunks."""

(
    TENSORS, ROOTED, SAMPLED, LEADING, MEMBERS, RULES, LAG, KEPT, LENGTH, STANDS_FOR, CHUNKS,
    JOBS, GRADIENTS, COUNTS, LAYOUT, ROOT, EACH, UNKEPT, SCRATCH, COEFFICIENTS, THEN, LAST, SUM, RMS2_MAX,
    STRETCH, MOMENTUM, OWED, UNIT,
    NUMBERS, IMAGINED, STEPPED, NOW, STATE, PAST, RULE_COUNTS, RULE_SUMS, RULE_STRETCH,
    HISTORY, HISTORY_PEAKS, FLAGS, FLIGHT, FLOWN, CHUNK_SUMS, NEXT_CHUNK,
    ENTRIES,
) = range(45)  # fmt: skip
"""The table that the compiled call is handed: sizes first, then the addresses of the arrays. Handing over forty arrays
one by one takes longer than the step of a small network."""


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


@inner()
def doubles(address: int, shape: tuple[int, ...]) -> Array:
    """Return the array of float64 at an address."""
    found: Array = carray(pointer(address), shape, np.float64)  # type: ignore[call-arg]
    return found


@inner()
def integers(address: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the array of int64 at an address."""
    found: NDArray[np.int64] = carray(pointer(address), shape, np.int64)  # type: ignore[call-arg]
    return found


@inner()
def advanced(jobs: NDArray[np.int64], counts: Array) -> bool:
    """Return whether every standing job's optimizer counts one step more than before."""
    for p in range(len(jobs)):
        if jobs[p, STEADY] and jobs[p, CLOCK]:
            if jobs[p, CLOCK_SIZE] == 4:
                count = float(carray(pointer(jobs[p, CLOCK]), 1, np.float32)[0])  # type: ignore[call-arg]
            else:
                count = carray(pointer(jobs[p, CLOCK]), 1, np.float64)[0]  # type: ignore[call-arg]
            if count != counts[p] + 1.0:
                return False
    return True


@inner()
def unsound(address: int, size: int, numel: int) -> int:
    """Return how many numbers of a tensor are not finite."""
    found = 0
    if size == 4:
        short = carray(pointer(address), numel, np.float32)  # type: ignore[call-arg]
        for i in range(numel):
            found += 0 if abs(short[i]) < np.float32(np.inf) else 1
    else:
        long = carray(pointer(address), numel, np.float64)  # type: ignore[call-arg]
        for i in range(numel):
            found += 0 if abs(long[i]) < math.inf else 1
    return found


@inner()
def add_chunk(v: int, g: int, size: int, numel: int, now: Array, then: Array, out: Array) -> None:
    """Add one step of a chunk of a tensor without a memory to `out`; `v` and `g` are addresses."""
    if size == 4:
        short = carray(pointer(v), numel, np.float32), carray(pointer(g), numel, np.float32)  # type: ignore[call-arg]
        add_short(short[0], short[1], now, then, out)
    else:
        long = carray(pointer(v), numel, np.float64), carray(pointer(g), numel, np.float64)  # type: ignore[call-arg]
        add_long(long[0], long[1], now, then, out)


@unlocked
def sum_chunks(table: NDArray[np.int64]) -> None:
    """Sum the coming step of tensors without a memory, chunk by chunk, until none is left that no other thread took."""
    n, chunk_sums = table[TENSORS], doubles(table[CHUNK_SUMS], (table[CHUNKS], COLUMNS))
    jobs, layout = integers(table[JOBS], (n, JOB)), integers(table[LAYOUT], (n, LAID))
    gradients = integers(table[GRADIENTS], (n,))
    coefficients, then = doubles(table[COEFFICIENTS], (n, TERMS)), doubles(table[THEN], (n, TERMS))
    chunk: int = draw(table[NEXT_CHUNK])  # type: ignore[call-arg]
    first = 0
    for p in range(n):
        watched, size, past = layout[p, 0], jobs[p, SIZE], first + layout[p, LAID - 1]
        while chunk < past:
            if size > 0 and not jobs[p, SURVEY]:
                begin = (chunk - first) * CHUNK
                v, g = jobs[p, V] + size * begin, gradients[p] + size * begin
                chunk_sums[chunk] = 0.0
                now = coefficients[jobs[p, RULE]]
                add_chunk(v, g, size, min(CHUNK, watched - begin), now, then[p], chunk_sums[chunk])
            chunk = draw(table[NEXT_CHUNK])
        first = past


@compiled
def take_step(table: NDArray[np.int64], step: int) -> int:  # noqa: PLR0912, PLR0915 - one pass
    """Add one step of every tensor that has a job, and strike what does not stand; return what is noteworthy, as bits.

    `step` is the number of the step in the run. What `sum_chunks` does was done before.
    """
    n, kept, stands_for = table[TENSORS], table[KEPT], float(table[STANDS_FOR])
    jobs, counts = integers(table[JOBS], (n, JOB)), doubles(table[COUNTS], (n,))
    if not advanced(jobs, counts):
        return STALE
    gradients, layout = integers(table[GRADIENTS], (n,)), integers(table[LAYOUT], (n, LAID))
    root, each = doubles(table[ROOT], (table[ROOTED],)), doubles(table[EACH], (4, table[SAMPLED]))
    unkept, scratch = doubles(table[UNKEPT], (4, BLOCK)), doubles(table[SCRATCH], (3, BLOCK))
    coefficients, then = doubles(table[COEFFICIENTS], (n, TERMS)), doubles(table[THEN], (n, TERMS))
    last, sums = doubles(table[LAST], (n, COLUMNS)), doubles(table[SUM], (n, COLUMNS))
    rms2_max, stretch = doubles(table[RMS2_MAX], (n,)), doubles(table[STRETCH], (6, table[LEADING]))
    momentum, owed = doubles(table[MOMENTUM], (table[LEADING],)), doubles(table[OWED], (table[LEADING],))
    unit = doubles(table[UNIT], (table[LEADING],))
    rules, members, imagined = table[RULES], table[MEMBERS], integers(table[IMAGINED], (n,))
    now_imagined = doubles(table[NOW], (6, members))
    stepped = carray(pointer(table[STEPPED]), (n,), np.bool_)  # type: ignore[call-arg]
    slot = step % table[LENGTH]
    integers(table[FLOWN], (table[LENGTH],))[slot] = step
    flight = carray(pointer(table[FLIGHT] + 4 * slot * n * kept), (n, kept), np.float32)
    v, g = scratch[0], scratch[1]
    chunk_sums = doubles(table[CHUNK_SUMS], (table[CHUNKS], COLUMNS))
    none = np.empty(0, np.int64)
    at = at_sampled = at_lead = at_rules = at_chunk = 0
    sick = False
    for p in range(n):
        watched, sampled, numel, leading, rooted, drawn, whole, index, lead, chunks = layout[p]
        v_address, size, gathered, survey, before = jobs[p, :STEADY]
        g_address = gradients[p]
        now = coefficients[jobs[p, RULE]]
        if size > 0:
            chosen = none if gathered else integers(index, (sampled,))
            last[p] = 0.0
            for begin in range(0, rooted, BLOCK):
                end = min(begin + BLOCK, rooted)
                m = end - begin
                load(v_address, size, chosen, numel, begin, v[:m])
                load(g_address, size, chosen, numel, begin, g[:m])
                # Rows by name, each in one piece: only then does the compiler use vector lanes.
                own, a, z = (each, at_sampled + begin, at_sampled + end) if sampled and not survey else (unkept, 0, m)
                rows = (own[0, a:z], own[1, a:z], own[2, a:z], own[3, a:z])
                accumulate(v[:m], g[:m], root[at + begin : at + end], rows, now, then[p], last[p], stands_for)
            if survey == FINISHED:
                last[p] = doubles(before, (COLUMNS,))
            elif survey:
                addresses = (v_address, g_address, before)
                accumulate_whole(addresses, size, numel, scratch, unkept, now, then[p], last[p])
                for k in range(COLUMNS):
                    if k != RMS2:
                        last[p, k] *= drawn / whole  # as if the sample had been like the whole
            elif drawn < whole:
                if whole <= SCANNED and not gathered:
                    last[p, NONFINITE] = max(last[p, NONFINITE], unsound(g_address, size, numel) * drawn / whole)
            else:
                for chunk in range(at_chunk, at_chunk + chunks):  # in their order, whoever was first to have summed one
                    for k in range(COLUMNS):
                        last[p, k] += chunk_sums[chunk, k]
            # The members of the harm test: the first of a sample, and a sample of their own where all are watched.
            whose = integers(lead, (leading,)) if gathered or not sampled else chosen[:leading]
            whose = none if survey == FINISHED else whose
            load(v_address, size, whose, numel, 0, v[:leading])
            load(g_address, size, whose, numel, 0, g[:leading])
            a, z = at_lead, at_lead + leading
            # Row by row: of a slice of all rows the compiler would not know that a row is in one piece.
            first, second = (
                (stretch[0, a:z], stretch[1, a:z], stretch[2, a:z]),
                (stretch[3, a:z], stretch[4, a:z], stretch[5, a:z]),
            )
            held = momentum[a:z], owed[a:z], unit[a:z]
            drift(v[:leading], g[:leading], now, held, first, second)
            if rules:
                m = imagined[p]
                meet(now_imagined, at_rules, v[:m], g[:m], momentum[a : a + m])
                stepped[p] = True
            active = last[p, ACTIVE] * (whole / drawn if survey else 1.0)
            last[p, RMS2] = last[p, RMS2] / active if active > 0 else 0.0
            last[p, STEPS] = 1.0 if watched or survey else 0.0  # a process may hold none of a sample
            then[p] = now
            counts[p] += 1.0
            if not jobs[p, STEADY]:
                jobs[p, SIZE] = 0
        at, at_sampled, at_lead = at + rooted, at_sampled + sampled, at_lead + leading
        at_rules, at_chunk = at_rules + imagined[p], at_chunk + chunks
        sick |= last[p, NONFINITE] > 0
        if last[p, RMS2] > rms2_max[p]:  # noqa: PLR1730 - not so for NaN
            rms2_max[p] = last[p, RMS2]
        for k in range(COLUMNS):
            sums[p, k] += stands_for * last[p, k]
        for k in range(kept):
            flight[p, k] = last[p, k]
    if rules:
        imagine(
            now_imagined,
            imagined,
            stepped,
            doubles(table[RULE_COUNTS], (n,)),
            then,
            doubles(table[NUMBERS], (rules, 4)),
            doubles(table[STATE], (rules, 4, members)),
            doubles(table[PAST], (table[LAG], members)),
            doubles(table[RULE_SUMS], (rules, 3)),
            doubles(table[RULE_STRETCH], (2 + 3 * rules, members)),
            stands_for,
        )
    past, peaks = doubles(table[HISTORY], (n, WIDTH)), doubles(table[HISTORY_PEAKS], (n, 2, BLOCKS))
    suspected = look(last, then, past, peaks, integers(table[FLAGS], (n,)))
    return suspected | (SICK if sick else 0)


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
        accumulate(v, g, root_before, rows, now, then, out, 1.0)


@inner()
def drift(
    v: Array, g: Array, now: Array, held: tuple[Array, ...], steps: tuple[Array, ...], powers: tuple[Array, ...]
) -> None:
    """Move the momentum of the members of the harm test on, and add e·m, g, e, u², u³ and e·u² to its open stretch.

    With e·m goes what the momentum owes more than before, see `drift.py`.
    """
    lr, gain, scale, eps, beta1, nesterov, _ = now
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
def accumulate(  # noqa: PLR0915 - one pass
    v: Array,
    g: Array,
    root: Array,
    each: tuple[Array, ...],
    now: Array,
    then: Array,
    out: Array,
    stands_for: float,
) -> None:
    """Add one step to the sums over coordinates `out`, and so many like it to those per coordinate `each`.

    `root` holds sqrt(v) of the previous step and is replaced by this step's; zero means: no step yet.
    """
    active = compared = rising = bound = nonfinite = 0.0
    a = b = c = c_plus = e2 = delta2 = 0.0
    c_lr = c_bias = c_v = rise_lr = rise_bias = rise_v = g2 = rms2 = 0.0
    lr, gain, scale, eps, _, _, _ = now
    lr0, gain0, scale0, eps0, _, _, _ = then
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
        each_a[i] += stands_for * e
        each_b[i] += stands_for * (eg * eg)
        each_c[i] += stands_for * abs(delta)
        each_rise[i] += stands_for * rise

    # In the order of `SUMS`.
    first = (active, rising, nonfinite, a, b, c_plus, g2, rms2, compared, bound)
    rest = (c, e2, delta2, c_lr, c_bias, c_v, rise_lr, rise_bias, rise_v, 0.0)
    for k in range(10):
        out[k] += first[k]
        out[10 + k] += rest[k]
