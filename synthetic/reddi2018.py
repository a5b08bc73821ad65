"""The online games of Reddi, Kale and Kumar (ICLR 2018): a rare large gradient one way, many small ones the other.

The sum of gradients over a period is positive, so the best fixed point of the interval is its left end. Adam divides
the rare gradient by the root that this very gradient has just raised, and walks to the right end.

Steps are projected onto the box by clipping, the learning rate is 0.5/√t, and Adam is without bias correction and eps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import sympy
import torch
from numpy.typing import NDArray

from ..diagnostics.trace import Trace
from .arrivals import Cyclic, Random
from .claims import Claim, final, flatness, half_unit, ratio, rho, verdict
from .engine import simulate
from .guarantees import reddi_theorem2_size
from .periodic import critical_beta2, cyclic_gradients, periodic_average, periodic_drift, periodic_rho
from .problem import Problem
from .stationary import (
    iid_gradients,
    skewness_critical_beta2,
    stationary_critical_beta2,
    stationary_drift,
    stationary_rho,
)

Array = NDArray[np.float64]
MakeOptimizer = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class OnlineGame:
    """f_t(x) = rare·x if t mod period = 1, else common·x, on [-1, 1]; the optimum is -1 while the sum is positive."""

    rare: float
    common: float
    period: int

    def gradient(self, t: int) -> float:
        """Return f_t'(x), the same for every x."""
        return self.rare if t % self.period == 1 else self.common

    def play(
        self, x: torch.nn.Parameter, optimizer: torch.optim.Optimizer, steps: int, alpha: float = 0.5
    ) -> Iterator[int]:
        """Take `steps` steps from x with learning rate alpha/√t and projection onto [-1, 1]; yield each t."""
        gradients = {g: torch.full_like(x, g) for g in (self.rare, self.common)}
        for t in range(1, steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = alpha / math.sqrt(t)
            x.grad = gradients[self.gradient(t)].clone()
            optimizer.step()
            with torch.no_grad():
                x.clamp_(-1.0, 1.0)
            yield t


ONLINE = OnlineGame(rare=1010.0, common=-10.0, period=101)
"""The synthetic experiment of their section 5, here with β = (0.9, 0.99) and α_t = 0.5/√t."""

THEOREM1 = OnlineGame(rare=3.0, common=-1.0, period=3)
"""After their Theorem 1, with C = 3: β1 = 0 and β2 = 1/(1 + C²) = 0.1 send Adam to +1."""

x = sympy.Symbol("x", real=True)
BOX = (-1, 1)
RATE = "0.5/sqrt(t)"


def online() -> Problem:
    """Return 1010x once in 101 steps and −10x otherwise, in that order, on [−1, 1]."""
    return Problem([1010 * x, -10 * x], Cyclic((0,) + (1,) * 100), domain=BOX, start=0, name="Reddi, online")


def stochastic() -> Problem:
    """Return 1010x with probability 0.01 and −10x otherwise, on [−1, 1]."""
    return Problem([1010 * x, -10 * x], Random((0.01, 0.99)), domain=BOX, start=0, name="Reddi, stochastic")


def theorem1(C: float = 3) -> Problem:
    """Return Cx when t mod 3 = 1 and −x otherwise, on [−1, 1]; for C > 2 the optimum is −1."""
    if not C > 2:
        raise ValueError(f"`C` must be above 2, or the optimum is not at -1, got {C}.")
    return Problem([C * x, -x], Cyclic((0, 1, 1)), domain=BOX, start=0, name=f"Reddi, theorem 1, C = {C:g}")


def theorem2(C: int = 204) -> Problem:
    """Return Cx when t mod C = 1 and −x otherwise, C even, on [−1, 1]; the gradients of a period sum to 1."""
    if C % 2 or C < 2:
        raise ValueError(f"`C` must be even and at least 2, got {C}.")
    return Problem([C * x, -x], Cyclic((0,) + (1,) * (C - 1)), domain=BOX, start=0, name=f"Reddi, theorem 2, C = {C}")


def theorem3(C: float = 100, delta: float = 1) -> Problem:
    """Return Cx with probability (1 + δ)/(C + 1) and −x otherwise, on [−1, 1]; the mean is δx."""
    if not 0 < delta < C:
        raise ValueError(f"`delta` must lie in (0, C), got {delta} with C = {C}.")
    p = (1 + delta) / (C + 1)
    return Problem([C * x, -x], Random((p, 1 - p)), domain=BOX, start=0, name=f"Reddi, theorem 3, C = {C:g}")


BUILDERS: dict[str, Callable[[], Problem]] = {"online": online, "stochastic": stochastic, "theorem 1": theorem1}


@cache
def run(problem: str, method: str, steps: int, betas: tuple[float, float] | None = None, seeds: int = 1) -> Trace:
    """Return the record of one setting, kept for all claims about it."""
    options: dict[str, Any] = {"beta1": 0.0} if method == "adafom" else {}
    return simulate(BUILDERS[problem](), method, steps, RATE, betas, seeds, **options)


def period(problem: Problem) -> Array:
    """Return the gradients of one period, `(d,)`."""
    return cyclic_gradients(problem)[:, 0]


def drift_root(problem: Problem, beta1: float = 0.0) -> float:
    """Return the β2 below which Adam goes the wrong way, NaN if it never does: exact, by root finding."""
    root = critical_beta2(period(problem), beta1)
    return math.nan if root is None else root


def simulated_root(problem: Problem, steps: int = 1_000_000) -> float:
    """Return the β2 at which Adam's end changes sides, by halving an interval fourteen times; β1 = 0."""
    wrong, right = 0.001, 0.999
    for _ in range(14):
        middle = 0.5 * (wrong + right)
        end = final(simulate(problem, "adam_plain", steps, RATE, (0.0, middle), records=16))
        wrong, right = (middle, right) if end > 0 else (wrong, middle)
    return 0.5 * (wrong + right)


def law(problem: Problem) -> tuple[Array, Array]:
    """Return the probabilities and gradients, each `(n,)`, of a problem whose components are drawn."""
    p, g = iid_gradients(problem)
    return p, g[:, 0]


def chance_root(problem: Problem) -> float:
    """Return the exact β2 below which Adam (β1 = 0) drifts the wrong way on independent draws, NaN if none."""
    root = stationary_critical_beta2(*law(problem))
    return math.nan if root is None else root


def skew_root(problem: Problem) -> float:
    """Return the same by the formula from three moments."""
    root = skewness_critical_beta2(*law(problem))
    return math.nan if root is None else root


def first_wrong(betas: tuple[float, float], most: int = 400) -> float:
    """Return the least even C from which on, up to `most`, theorem 2's sequence has its drift the wrong way."""
    sizes = range(4, most + 1, 2)
    right = [C for C in sizes if periodic_drift(period(theorem2(C)), *betas) > 0]
    return max(right, default=2) + 2


def signs(beta2: float, sizes: Sequence[int], delta: float = 1.0) -> str:
    """Return the sign of Adam's exact mean step (β1 = 0) on theorem 3's problem for each C: + is right."""
    drifts = (stationary_drift(*law(theorem3(C, delta)), 0.0, beta2) for C in sizes)
    return "".join("+" if drift > 0 else "-" for drift in drifts)


def periodic_oscillation(gradients: Array, beta2: float) -> float:
    """Return c/a of Adam once v repeats, at a constant learning rate."""
    e = 1 / np.sqrt(periodic_average(gradients**2, 1 - beta2))
    return float(np.abs(e - np.roll(e, 1)).sum() / e.sum())


def share_rising(trace: Trace) -> float:
    """Return the share of steps with e_t > e_{t−1}, that is Γ_t < 0."""
    return float(trace.total("rising")[-1] / trace.total("compared")[-1])


PAPER = "Reddi, Kale, Kumar, ICLR 2018"
DIGITS = "The exact drift over a period has one sign change; the tolerance is half a unit of the printed digits."
ENDS = "Projected steps of size α_T = 0.5/√T leave the end of the box by a period's worth of them at most."


def _exact(name: str, where: str, printed: str, observe: Callable[[], float], why: str) -> Claim:
    # 1.001: a value halfway between two printed digits may be rounded either way
    return Claim(name, f"{PAPER}, {where}", "derived", float(printed), 1.001 * half_unit(printed), observe, why)


def _word(name: str, where: str, word: str, observe: Callable[[], str], why: str) -> Claim:
    return Claim(name, f"{PAPER}, {where}", "derived", word, 0.0, observe, why)


def _roots() -> list[Claim]:
    rows = [
        _exact(f"online game: critical β2 at β1 = {b1:g}", "section 5", root, partial(_online_root, b1), DIGITS)
        for b1, root in ((0.0, "0.999603"), (0.5, "0.999595"), (0.9, "0.999516"), (0.99, "0.997640"))
    ]
    sizes = ((3, "0.4723"), (5, "0.2368"), (10, "0.0983"), (20, "0.0414"), (50, "0.0133"), (100, "0.0057"))
    rows += [
        _exact(f"theorem 1, C = {C}: critical β2 at β1 = 0", "theorem 1", root, partial(_theorem1_root, C), DIGITS)
        for C, root in sizes
    ]
    why = "x_T = x_1 − D Σα/3 up to the start-up, at most 2 in x; divided by Σα/3 = 333 and the slope of D in β2."
    rows += [
        Claim(
            f"theorem 1, C = {C}: the β2 at which simulated Adam changes sides",
            f"{PAPER}, theorem 1",
            "derived",
            root,
            2.0 / 333.0 / slope,
            partial(_theorem1_simulated, C),
            why,
        )
        for C, root, slope in ((3, 0.4723, 1.3), (5, 0.2368, 2.2), (10, 0.0984, 4.5))
    ]
    return rows


def _online_root(beta1: float) -> float:
    return drift_root(online(), beta1)


def _theorem1_root(size: float) -> float:
    return drift_root(theorem1(size))


def _theorem1_simulated(size: float) -> float:
    return simulated_root(theorem1(size))


def _drifts() -> list[Claim]:
    settings = (
        ((0.0, 0.9), "-44.3"),
        ((0.0, 0.99), "-2.28"),
        ((0.9, 0.9), "-41.4"),
        ((0.9, 0.99), "-1.90"),
        ((0.9, 0.995), "-0.907"),
        ((0.9, 0.999), "-0.105"),
        ((0.9, 0.9999), "0.0785"),
        ((0.99, 0.99), "-0.328"),
    )
    return [
        _exact(
            f"online game: drift D of a period at β = {betas}", "section 5", drift, partial(_online_drift, betas), why
        )
        for why in ("The closed form of the periodic averages; the tolerance is half a unit of the printed digits.",)
        for betas, drift in settings
    ]


def _online_drift(betas: tuple[float, float]) -> float:
    return float(periodic_drift(period(online()), *betas))


def _theorem2() -> list[Claim]:
    where, why = "theorem 2", "Counting up; the three conditions are sufficient only, hence far above the drift's C."
    rows = []
    for betas, proven, first in (
        ((0.0, 0.9), 204, 8),
        ((0.5, 0.9), 204, 8),
        ((0.9, 0.99), 3218, 30),
        ((0.9, 0.999), 42622, 74),
    ):
        rows += [
            _exact(f"smallest C of the proof at β = {betas}", where, str(proven), partial(_size, betas), why),
            _exact(
                f"C where the drift turns wrong at β = {betas}", where, str(first), partial(first_wrong, betas), why
            ),
        ]
    return rows


def _size(betas: tuple[float, float]) -> float:
    return float(reddi_theorem2_size(*betas))


def _theorem2_end() -> float:
    return final(simulate(theorem2(204), "adam_plain", 1_000_000, RATE, (0.0, 0.9), records=64))


def _theorem3() -> list[Claim]:
    where, sizes = "theorem 3", (5, 10, 20, 50, 100, 500, 1000)
    why = "The exact stationary mean of g/√v; C large enough turns it at every β2."
    return [
        _word(
            f"sign of Adam's mean step for C = {sizes}, δ = 1, β2 = {b2}", where, word, partial(signs, b2, sizes), why
        )
        for b2, word in ((0.9, "+++----"), (0.99, "+++++--"), (0.999, "+++++++"))
    ]


def _chance() -> list[Claim]:
    why = (
        "ρ ≈ 1 − (1−β2)/2·(skewness − 1) is zero there; tolerance: the square of the expansion's "
        "(1−β2)·max g²/E g², times 1−β2."
    )
    return [
        Claim(f"{name}: critical β2 from three moments", f"{PAPER}, {where}", "derived", root, tolerance, observe, why)
        for name, where, root, tolerance, observe in (
            ("stochastic game", "section 5", 0.9996, 8e-7, partial(_by, chance_root, stochastic)),
            ("theorem 3, C = 100, δ = 1", "theorem 3", 0.97970, 0.02, partial(_by, chance_root, theorem3)),
        )
    ] + [
        Claim(
            "theorem 3, C = 100, δ = 1: critical β2 without expansion",
            f"{PAPER}, theorem 3",
            "simulated",
            0.97884,
            2e-4,
            partial(_by, chance_root, theorem3),
            "A Monte Carlo root of E[g/√v] = 0, whose error of 1% of 1−β2 is the tolerance.",
        ),
        _exact("theorem 3, C = 100: the formula", "theorem 3", "0.97970", partial(_by, skew_root, theorem3), DIGITS),
        _exact("stochastic game: the formula", "section 5", "0.99960", partial(_by, skew_root, stochastic), DIGITS),
    ]


def _by(measure: Callable[[Problem], float], build: Callable[[], Problem]) -> float:
    return measure(build())


LONG, SHORT = 5_000_000, 1_000_000
BETAS1, BETAS = (0.0, 0.1), (0.9, 0.99)


def _end(*setting: Any) -> float:
    return final(run(*setting))


def _of(measure: Callable[..., Any], *setting: Any) -> Any:
    return measure(run(*setting))


def _away(*setting: Any) -> float:
    """Return the largest last iterate of all seeds."""
    return float(run(*setting).x.max())


def _nearest(*setting: Any) -> float:
    """Return the smallest last iterate of all seeds."""
    return float(run(*setting).x.min())


def _ends() -> list[Claim]:
    rows = []

    def row(name: str, where: str, predicted: Any, tolerance: float, observe: Callable[[], Any], why: str) -> None:
        rows.append(Claim(name, f"{PAPER}, {where}", "derived", predicted, tolerance, observe, why))

    for method in ("sgd", "adafom", "amsgrad"):
        betas = BETAS1 if method == "amsgrad" else None
        row(
            f"theorem 1: {method} ends at −1",
            "theorem 1",
            -1.0,
            0.0015,
            partial(_end, "theorem 1", method, SHORT, betas),
            ENDS,
        )
        row(
            f"theorem 1: c/a of {method} falls like T^−1",
            "theorem 1",
            (-1.05, -0.95),
            0,
            partial(_of, _slope, "theorem 1", method, SHORT, betas),
            "Its e never rises, so block c telescopes to T^−1/2 while block a grows like T^1/2.",
        )
    adam = ("theorem 1", "adam_plain", SHORT, BETAS1)
    row("theorem 1: Adam ends at +1", "theorem 1", 1.0, 0.0015, partial(_end, *adam), ENDS)
    row(
        "theorem 1: Adam's c/a",
        "theorem 1",
        0.594,
        0.0005,
        partial(_of, _oscillation, *adam),
        "v repeats with the period: exact geometric sums; rounding of 0.594.",
    )
    row(
        "theorem 1: Adam's c/a stays flat",
        "theorem 1",
        0.0,
        0.001,
        partial(_of, _slope, *adam),
        "A ratio that repeats; 1/√t changes it by less than 1/t.",
    )
    row(
        "theorem 2: Adam ends at +1 at the proof's C = 204, β = (0, 0.9)",
        "theorem 2",
        1.0,
        0.02,
        _theorem2_end,
        "One spike of 0.5/√T·204/√v, v ≥ 0.1·204², is 0.0016, and 203 recovering steps of 0.0005 follow.",
    )
    online_adam = ("online", "adam_plain", LONG, BETAS)
    # T = 5e6 is step 96 of its period: 95 gradients of −10 after the step that ends at the wall
    root = 95 * 5 / math.sqrt(LONG)
    row(
        "online game: SGD is 95 steps off the wall at T = 5e6",
        "section 5",
        -1 + root,
        1e-5,
        partial(_end, "online", "sgd", LONG),
        "Each spike throws it to −1, each of 95 small gradients takes it 5/√T back; 96 = T mod 101.",
    )
    mean_square = (1010**2 + 100 * 10**2) / 101
    row(
        "online game: AdaGrad is 95 steps off the wall at T = 5e6",
        "section 5",
        -1 + root / math.sqrt(mean_square),
        1e-5,
        partial(_end, "online", "adafom", LONG),
        "As SGD, with steps divided by the root mean square of g.",
    )
    row(
        "online game: AMSGrad ends near −1",
        "section 5",
        -0.9989,
        5e-5,
        partial(_end, "online", "amsgrad", LONG, BETAS),
        "An earlier simulation at these settings; half a unit of its digits.",
    )
    row("online game: Adam ends at +1", "section 5", 1.0, 1e-3, partial(_end, *online_adam), ENDS)
    row(
        "online game: default Adam (0.9, 0.999) ends at +1",
        "section 5",
        1.0,
        0.002,
        partial(_end, "online", "adam_plain", SHORT, (0.9, 0.999)),
        ENDS,
    )
    row(
        "online game: Adam (0.9, 0.9999) goes right, x at T = 1e6",
        "section 5",
        -0.50,
        0.005,
        partial(_end, "online", "adam_plain", SHORT, (0.9, 0.9999)),
        "An earlier simulation; half a unit of its digits.",
    )
    row(
        "stochastic game: every seed of Adam ends on the wrong side",
        "section 5",
        (0.95, 1.0),
        0,
        partial(_nearest, "stochastic", "adam_plain", LONG, BETAS, 5),
        "The drift holds it at the wall; a spike takes it off by α_T·1010/√v ≤ 10 α_T·… < 0.05.",
    )
    for method in ("adafom", "amsgrad"):
        betas = BETAS if method == "amsgrad" else None
        row(
            f"stochastic game: every seed of {method} ends on the right side",
            "section 5",
            (-1.0, 0.0),
            0,
            partial(_away, "stochastic", method, LONG, betas, 5),
            "x is pushed 10⁻³ α_t a step toward −1, Σ = 20 and more widths of the noise.",
        )
    return rows


def _slope(trace: Trace) -> float:
    return flatness(trace, "c")


def _oscillation(trace: Trace) -> float:
    return ratio(trace, "c")


def _judged() -> list[Claim]:
    rows = []
    for name, where, steps, betas, worst in (
        ("theorem 1", "theorem 1", SHORT, BETAS1, -0.98),
        ("online", "section 5", LONG, BETAS, -22.3),
        ("online", "section 5", SHORT, (0.9, 0.999), -1.5),
    ):
        adam = (name, "adam_plain", steps, betas)
        rows += [
            _word(
                f"{name}: verdict on Adam β = {betas}",
                where,
                "biased",
                partial(_of, verdict, *adam),
                "c/a is flat and the steps go against the mean gradient.",
            ),
            Claim(
                f"{name}: ρ of Adam β = {betas}",
                f"{PAPER}, {where}",
                "derived",
                worst,
                0.1 * abs(worst),
                partial(_of, rho, *adam),
                "Exact for a period at constant α; near the wall α and the clip shift it by percents.",
            ),
        ]
    for name, where, steps, betas in (
        ("theorem 1", "theorem 1", SHORT, BETAS1),
        ("online", "section 5", LONG, BETAS),
        ("stochastic", "section 5", LONG, BETAS),
    ):
        for method in ("sgd", "adafom", "amsgrad"):
            setting = (name, method, steps, betas if method == "amsgrad" else None, 5 if name == "stochastic" else 1)
            rows.append(
                _word(
                    f"{name}: verdict on {method}",
                    where,
                    "certified",
                    partial(_of, verdict, *setting),
                    "Its e never rises under 1/√t, and b grows like log T.",
                )
            )
    rows.append(
        _word(
            "stochastic: verdict on Adam",
            "section 5",
            "biased",
            partial(_of, verdict, "stochastic", "adam_plain", LONG, BETAS, 5),
            "Drift that the mean gradient cannot explain.",
        )
    )
    rows += [
        Claim(
            f"{name}: share of steps with Γ < 0, {method}",
            f"{PAPER}, {where}",
            "derived",
            share,
            1e-4,
            partial(_of, share_rising, name, method, steps, betas),
            "Adam's v falls at each step but the spike; AMSGrad's never does.",
        )
        for name, where, method, steps, betas, share in (
            ("theorem 1", "theorem 1", "adam_plain", SHORT, BETAS1, 2 / 3),
            ("online", "section 5", "adam_plain", LONG, BETAS, 100 / 101),
            ("online", "section 5", "amsgrad", LONG, BETAS, 0.0),
        )
    ]
    return rows


def _period_numbers() -> list[Claim]:
    why = "Closed geometric sums over a period; half a unit of the printed digits."
    return [
        _exact(
            "theorem 1: c/a over a period",
            "theorem 1",
            "0.594",
            lambda: periodic_oscillation(period(theorem1()), 0.1),
            why,
        ),
        _exact(
            "online: c/a over a period, in units of 1−β2, β2 = 0.999",
            "section 5",
            "0.98",
            lambda: periodic_oscillation(period(online()), 0.999) * 1e3,
            why,
        ),
        _exact(
            "theorem 1: ρ over a period",
            "theorem 1",
            "-0.98",
            lambda: float(periodic_rho(period(theorem1()), 0.1)),
            why,
        ),
        _exact(
            "online: ρ over a period, β2 = 0.99",
            "section 5",
            "-22.3",
            lambda: float(periodic_rho(period(online()), 0.99)),
            why,
        ),
        _exact(
            "online: ρ over a period, β2 = 0.999",
            "section 5",
            "-1.5",
            lambda: float(periodic_rho(period(online()), 0.999)),
            why,
        ),
        Claim(
            "stochastic: ρ, β2 = 0.99",
            f"{PAPER}, section 5",
            "simulated",
            (-24.1, -21.9),
            0.0,
            lambda: float(stationary_rho(*law(stochastic()), 0.99)),
            "The confidence interval of an earlier simulation.",
        ),
    ]


CLAIMS: tuple[Claim, ...] = (
    *_roots(),
    *_drifts(),
    *_theorem2(),
    *_theorem3(),
    *_chance(),
    *_period_numbers(),
    *_ends(),
    *_judged(),
)
"""What the paper and the derivations say of these games."""
