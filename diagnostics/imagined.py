"""What if: the stepsizes that other rules would have had on the gradients of this very run.

A rule here is the second moment and the stepsize of a method, fed with the same gradients g and the same momentum m as
the run's own. The run is not made again: another rule would have gone elsewhere and met other gradients.

    sgd        e = lr
    adam       v = β2·v + (1-β2)·g²,                     e = lr/(1-β1^t) / (√(v/(1-β2^t)) + eps)
    amsgrad    v̂ = max(v̂, v),                           e = lr/(√v̂ + eps)           Reddi, Kale & Kumar 2018
    adafom     v = Σg²/t,                                e = lr/(√v + eps)           Chen, Liu, Sun & Hong 2019
    adashift   v = β2·v + (1-β2)·g_{t-n}²,               e = lr/(√(v/(1-β2^{t-n})) + eps)   Zhou et al. 2019
    adopt      v of the step before, on g itself,        e = lr/max(√v, eps, |g|/t^¼)  Taniguchi et al. 2024
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .compiled import inner
from .drift import Stretches
from .trace import SUMMED

Array = NDArray[np.float64]

AS_RUN, SGD, ADAM, AMSGRAD, ADAFOM, ADASHIFT, ADOPT = range(7)
KINDS = {"sgd": SGD, "adam": ADAM, "amsgrad": AMSGRAD, "adafom": ADAFOM, "adashift": ADASHIFT, "adopt": ADOPT}
SETTINGS = {
    "sgd": {},
    "adam": {"beta2": 0.999, "eps": 1e-8},
    "amsgrad": {"beta2": 0.999, "eps": 1e-8},
    "adafom": {"eps": 1e-8},
    "adashift": {"beta2": 0.999, "eps": 1e-8, "n": 10.0},
    "adopt": {"beta2": 0.999, "eps": 1e-6},
}
"""What a rule takes, with its defaults; beta2 is the run's own where it has one."""
USUAL = (
    *(f"adam(beta2={beta2})" for beta2 in (0.9, 0.95, 0.99, 0.999, 0.9999)),
    *("adam(eps=1e-4)", "amsgrad", "adafom", "adashift", "adopt", "sgd"),
)
MEMBERS = 32
"""Coordinates per tensor on which rules are imagined: the first of those of the harm test."""
BEFORE, V, PEAK, OWED = range(4)  # rows of a rule's state: the stepsize before, v, its maximum, what is owed
V_RUN, GRADIENT, MOMENTUM, WEIGHT, STEPSIZE, COMING = range(6)  # rows of `Alternatives.now`


@dataclass(frozen=True)
class Imagined:
    """A rule to imagine, under the name that a report shows."""

    name: str
    kind: int
    beta2: float = 0.0
    eps: float = 0.0
    n: int = 0


AS_IT_WAS = Imagined("as it was", AS_RUN)
"""The run's own rule, on the same coordinates: what the others are compared with."""


def imagined(name: str, beta2: float) -> Imagined:
    """Return the rule that a text such as "adam(beta2=0.99, eps=1e-4)" names; `beta2` is the run's own.

    Raises:
        ValueError: for an unknown rule or setting, or a value out of its range.
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", name)
    kind = match[1] if match else name
    if match is None or kind not in KINDS:
        raise ValueError(
            f"`what_if` must name rules out of {', '.join(KINDS)}, got {name!r}; write 'adam(beta2=0.99)'."
        )
    known = SETTINGS[kind]
    chosen = dict(known) | ({"beta2": beta2} if "beta2" in known and not math.isnan(beta2) else {})
    for part in filter(None, (part.strip() for part in (match[2] or "").split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in known:
            raise ValueError(f"`what_if`: {kind} takes {', '.join(known) or 'nothing'}, got {part!r} in {name!r}.")
        chosen[key] = _number(value, name)
    n = chosen.get("n", 0.0)
    if not (0.0 <= chosen.get("beta2", 0.0) < 1.0 and chosen.get("eps", 0.0) >= 0.0 and n == int(n) and n >= 0):
        raise ValueError(f"`what_if` needs beta2 in [0, 1), eps from 0 up and n a whole number, got {name!r}.")
    return Imagined(name, KINDS[kind], chosen.get("beta2", 0.0), chosen.get("eps", 0.0), int(n))


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"`what_if` must give numbers, got {text!r} in {name!r}.") from None


class Alternatives:
    """The running sums of imagined rules over all watched tensors.

    `sums` has a, b and c_plus, `(rules, 3)`, scaled up from the members to all coordinates; the harm test has rows of
    Σ e·m, Σ e and Σ e·g² for each rule in its open stretch, behind the Σ g and Σ g² that all share. `now` is filled in
    each step: the run's v, g, m of every member, beside its weight and rows to work in; tensors follow each other.
    """

    def __init__(self, rules: Sequence[Imagined]) -> None:
        self.rules = tuple(rules)
        count, lag = len(self.rules), max((rule.n for rule in self.rules), default=0)
        self.numbers = np.array([(r.kind, r.beta2, r.eps, r.n) for r in self.rules]).reshape(-1, 4)
        self.now = np.zeros((6, 0))
        self.state = np.zeros((count, 4, 0))
        self.past = np.zeros((lag, 0))
        """The last gradients, a row each, overwritten in turn."""
        self.counts = np.zeros(0)
        """Steps of each tensor, `(tensors,)`: t of the rules."""
        self.stepped = np.zeros(0, np.bool_)
        self.sums = np.zeros((count, len(SUMMED)))
        self.members = np.zeros(0, np.int64)
        self.stretches = Stretches(0, rows=2 + 3 * count)

    def extend(self, sizes: Sequence[tuple[int, float]]) -> None:
        """Make room for tensors with so many members, each of which stands for so many coordinates."""
        members = np.array([count if self.rules else 0 for count, _ in sizes], np.int64)
        more, coords = len(members), int(members.sum())
        self.members = np.concatenate([self.members, members])
        self.now = np.pad(self.now, ((0, 0), (0, coords)))
        self.now[WEIGHT, len(self.now[0]) - coords :] = np.repeat([weight for _, weight in sizes], members)
        self.state = np.pad(self.state, ((0, 0), (0, 0), (0, coords)))
        self.past = np.pad(self.past, ((0, 0), (0, coords)))
        self.counts, self.stepped = np.pad(self.counts, (0, more)), np.pad(self.stepped, (0, more))
        self.stretches.extend(coords)

    def grams(self) -> tuple[tuple[int, int], Array] | None:
        """Return the window of the harm test and the products of each rule's stretches, `(rules, 3, k, k)`."""
        starts = self.members.cumsum() - self.members
        weights = [float(self.now[WEIGHT, a]) if n else 0.0 for a, n in zip(starts, self.members, strict=True)]
        scales = list(zip(self.members.tolist(), weights, strict=True))
        rows = [(r, 0, r + 1, 1, r + 2) for r in range(2, 2 + 3 * len(self.rules), 3)]
        found = [self.stretches.gram(scales, own) for own in rows]
        if not found or found[0] is None:
            return None
        return found[0][0], np.array([np.nansum(gram[1:], axis=1) for gram in found if gram is not None])

    def forget(self) -> None:
        """Compare the next stepsizes with nothing."""
        self.state[:, BEFORE] = 0.0

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return everything needed to go on later."""
        own = {"state": self.state, "past": self.past, "counts": self.counts, "sums": self.sums}
        return own | {f"stretches/{key}": value for key, value in self.stretches.state().items()}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from `arrays()` of the same rules and tensors."""
        self.state[:], self.past[:] = arrays["state"], arrays["past"]
        self.counts[:], self.sums[:] = arrays["counts"], arrays["sums"]
        prefix = "stretches/"
        self.stretches.restore({k.removeprefix(prefix): x for k, x in arrays.items() if k.startswith(prefix)})


@inner()
def correction(beta: float, t: float) -> float:
    """Return 1 - beta^t, without the power where it is one in the last digit."""
    return 1.0 if t * (1.0 - beta) > 40.0 else 1.0 - beta**t


@inner()
def outstanding(beta1: float, nesterov: float) -> float:
    """Return how many steps of the size e·m are to come of a momentum m: (1 - nesterov)·β1/(1-β1)."""
    return (1.0 - nesterov) * beta1 / (1.0 - beta1) if beta1 < 1.0 else 0.0


@inner()
def meet(now: Array, a: int, v: Array, g: Array, m: Array) -> None:
    """Hand over one tensor's step: v, g and m of its members, which stand from `a` on; what is not finite as nought."""
    for i in range(len(v)):
        sound = (abs(g[i]) < math.inf) & (v[i] < math.inf)
        now[V_RUN, a + i] = v[i] if sound else 0.0
        now[GRADIENT, a + i] = g[i] if sound else 0.0
        now[MOMENTUM, a + i] = m[i]


@inner()
def imagine(
    now: Array,
    members: NDArray[np.int64],
    stepped: NDArray[np.bool_],
    counts: Array,
    coefficients: Array,
    rules: Array,
    state: Array,
    past: Array,
    sums: Array,
    stretch: Array,
    stands_for: float,
) -> None:
    """Add one step of the tensors that `stepped` to the open stretch of every rule, and lower the flags.

    To the sums so many like it are added.

    Neighbours with the same coefficients `(tensors, 6)` and the same count of steps are done in one go.
    """
    p = a = 0
    while p < len(members):
        first, z = p, a + members[p]
        p += 1
        while p < len(members) and stepped[p] == stepped[first] and counts[p] == counts[first]:
            if (coefficients[p] != coefficients[first]).any():
                break
            z += members[p]
            p += 1
        if stepped[first]:
            for q in range(first, p):
                counts[q] += 1.0
                stepped[q] = False
            imagine_alike(now, a, z, coefficients[first], counts[first], rules, state, past, sums, stretch, stands_for)
        a = z


@inner()
def imagine_alike(
    now: Array,
    a: int,
    z: int,
    coefficients: Array,
    t: float,
    rules: Array,
    state: Array,
    past: Array,
    sums: Array,
    stretch: Array,
    stands_for: float,
) -> None:
    """Add one step of the members from `a` to `z`, which share their coefficients and t."""
    # Every row by itself, in one piece: only then does the compiler use vector lanes.
    v_run, g, m = now[V_RUN, a:z], now[GRADIENT, a:z], now[MOMENTUM, a:z]
    weight, e, sum_g, sum_g2 = now[WEIGHT, a:z], now[STEPSIZE, a:z], stretch[0, a:z], stretch[1, a:z]
    coming, lr, nesterov = now[COMING, a:z], coefficients[0], coefficients[5]
    to_come = outstanding(coefficients[4], nesterov) / lr if lr > 0.0 else 0.0
    for i in range(z - a):
        sum_g[i] += g[i]
        sum_g2[i] += g[i] * g[i]
        coming[i] = to_come * m[i]
        m[i] = nesterov * g[i] + (1.0 - nesterov) * m[i]  # from here on what e multiplies
    for r in range(len(rules)):
        kind, lag = rules[r, 0], int(rules[r, 3])
        old = past[int(t - 1.0 - lag) % len(past), a:z] if 0 < lag < t else g
        stepsize(v_run, g, old, t, coefficients, rules[r], state[r, V, a:z], state[r, PEAK, a:z], e)
        own = stretch[2 + 3 * r, a:z], stretch[3 + 3 * r, a:z], stretch[4 + 3 * r, a:z]
        moved = g if kind == ADOPT else m
        held = state[r, BEFORE, a:z], state[r, OWED, a:z], coming
        tally(e, g, moved, weight, held, own, 0.0 if kind == ADOPT else lr, sums[r], stands_for)
    if len(past):
        past[int(t - 1.0) % len(past), a:z] = g


@inner()
def stepsize(
    v_run: Array,
    g: Array,
    old: Array,
    t: float,
    coefficients: Array,
    rule: Array,
    v: Array,
    peak: Array,
    e: Array,
) -> None:
    """Move a rule's second moment on, and write its stepsizes to `e`; zero where there is none yet.

    `old` is the gradient of n steps ago.
    """
    lr, gain, scale, eps_run, beta1, _, _ = coefficients
    kind, beta2, eps, n = rule
    if kind == AS_RUN:
        divide(v_run, lr * gain, scale, eps_run, e)
    elif kind == SGD:
        e[:] = lr
    elif kind == ADAFOM:
        average(v, old, 1.0, 1.0)
        divide(v, lr, 1.0 / math.sqrt(t), eps, e)
    elif kind == ADOPT:
        bound = t**0.25
        for i in range(len(e)):
            floor = max(math.sqrt(v[i]), eps, abs(g[i]) / bound)
            e[i] = lr / floor if (t > 1.0) & ((v[i] > 0.0) | (g[i] != 0.0)) else 0.0
        average(v, g, beta2 if t > 1.0 else 0.0, 1.0 - beta2 if t > 1.0 else 1.0)
    elif kind == ADASHIFT:
        average(v, old, beta2, 1.0 - beta2 if t > n else 0.0)
        divide(v, lr, 1.0 / math.sqrt(correction(beta2, max(t - n, 1.0))), eps, e)
    elif kind == AMSGRAD:
        average(v, old, beta2, 1.0 - beta2)
        for i in range(len(e)):
            peak[i] = v[i] if v[i] > peak[i] else peak[i]
        divide(peak, lr, 1.0, eps, e)
    else:
        average(v, old, beta2, 1.0 - beta2)
        divide(v, lr / correction(beta1, t), 1.0 / math.sqrt(correction(beta2, t)), eps, e)


@inner()
def average(v: Array, g: Array, keep: float, weight: float) -> None:
    """Put keep·v + weight·g² in the place of v."""
    for i in range(len(v)):
        v[i] = keep * v[i] + weight * g[i] * g[i]


@inner()
def divide(v: Array, lr: float, scale: float, eps: float, e: Array) -> None:
    """Write lr/(scale·√v + eps) to `e`, and zero where v is."""
    for i in range(len(e)):
        quotient = lr / (scale * math.sqrt(v[i]) + eps)
        e[i] = quotient if v[i] > 0.0 else 0.0


@inner(fastmath={"reassoc", "nsz"})
def tally(
    e: Array,
    g: Array,
    direction: Array,
    weight: Array,
    held: tuple[Array, Array, Array],
    stretch: tuple[Array, Array, Array],
    lr: float,
    sums: Array,
    stands_for: float,
) -> None:
    """Add one rule's a, b and c_plus, and its Σ e·m with what is owed at `lr`, Σ e and Σ e·g² per member."""
    sum_em, sum_e, sum_eg2 = stretch
    before, owed, coming = held
    a = b = rise = 0.0
    for i in range(len(e)):
        e_i, e_0 = e[i], before[i]
        a += weight[i] * e_i
        b += weight[i] * e_i * g[i] * e_i * g[i]
        rise += weight[i] * max(e_i - e_0, 0.0) if e_0 > 0.0 else 0.0
        owes = e_i * coming[i] if e_i > 0.0 else owed[i]
        sum_em[i] += e_i * direction[i] + lr * (owes - owed[i])
        owed[i] = owes
        sum_e[i] += e_i
        sum_eg2[i] += e_i * g[i] * g[i]
        before[i] = e_i if e_i > 0.0 else e_0
    sums[0] += stands_for * a
    sums[1] += stands_for * b
    sums[2] += stands_for * rise
