"""Two stochastic convex problems after Savarese et al.: one for AvaGrad (arXiv 1912.01823), one against AdaBound.

The first: C w²/2 with probability p = (1+δ)/(C+1), else −w, on [0, 1]. Adam settles where E[g/√v] = 0, which is the
minimizer only as β2 → 1; AvaGrad, whose stepsize does not know the gradient it multiplies, settles at the minimizer.

The second follows their critique of AdaBound (arXiv 1908.04457), by whose abstract the method can take arbitrarily
long, by a factor that its guarantee does not show. The construction here is ours: on Reddi's period of three, AdaBound
is Adam until its bounds, which close as 1/(γt), have shut; it stays at the worst point until t = u*/γ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq

from .arrivals import Cyclic, Random
from .claims import Claim, final
from .engine import simulate
from .orbits import path_of
from .periodic import periodic_average
from .problem import Problem
from .stationary import stationary_drift

AVAGRAD = "Savarese et al., CVPR 2021, arXiv 1912.01823"
ADABOUND = "Savarese, arXiv 1908.04457"
LR = "0.1/sqrt(t)"


def stochastic(size: float = 999.0, delta: float = 1.0) -> Problem:
    """Return C w²/2 with probability (1+δ)/(C+1), else −w, on [0, 1], from 0; the minimizer is (1−p)/(pC)."""
    p = (1.0 + delta) / (size + 1.0)
    components = [f"{size!r}*w**2/2", "-w"]
    return Problem(components, Random((p, 1.0 - p)), domain=(0, 1), start=0.0, name=f"C w²/2 or −w, C = {size:g}")


def minimizer() -> float:
    """Return the minimizer that calculus finds for `stochastic`, NaN if it finds none."""
    found = stochastic().optimum
    return float("nan") if found is None else float(found[0])


def resting_point(beta2: float, size: float = 999.0, delta: float = 1.0) -> float:
    """Return where Adam (β1 = 0) settles as α → 0: the root w of E[g/√v], at most 1, the end of the interval."""
    p = (1.0 + delta) / (size + 1.0)

    def drift(w: float) -> float:
        return stationary_drift([p, 1.0 - p], [size * w, -1.0], 0.0, beta2)

    return 1.0 if drift(1.0) < 0.0 else float(brentq(drift, 0.1, 1.0, xtol=1e-6))


def average(method: str, betas: tuple[float, float], **hyper: Any) -> float:
    """Return the mean of w over the second half of 3e6 steps and over 8 seeds."""
    trace = simulate(stochastic(), method, 3_000_000, LR, betas, 8, records=256, **hyper)
    late = trace.steps > trace.steps[-1] / 2
    return float(path_of(trace)[late].mean())


def critique(size: float = 3.0) -> Problem:
    """Return C x, −x, −x in turn on [−1, 1] from the worst point, x = 1; the minimizer is −1 for C > 2."""
    return Problem([f"{size!r}*x", "-x"], Cyclic([0, 1, 1]), domain=(-1, 1), start=1.0, name="period of three")


def turning(final_ratio: float, beta2: float, size: float = 3.0) -> float:
    """Return u*: AdaBound (β1 = 0) on `critique` drifts to +1 before t = u*/γ and to −1 afterwards. Derived here.

    In a period e_i/α = clip(1/√v_i, κ(1 − 1/(u+1)), κ(1 + 1/u)) with u = γt, κ = final_lr/α_1 and v_i the periodic
    average of g²; u* is the root of Σ g_i e_i.
    """
    g = np.array([size, -1.0, -1.0])
    root = np.sqrt(periodic_average(g**2, 1.0 - beta2))

    def drift(u: float) -> float:
        low, high = final_ratio * (1.0 - 1.0 / (u + 1.0)), final_ratio * (1.0 + 1.0 / u)
        return float(g @ np.clip(1.0 / root, low, high))

    return float(brentq(drift, 1e-3, 1e3))


def departure(gamma: float, beta2: float = 0.1) -> float:
    """Return γt of the last step that ends a period at x = 1, for AdaBound with α_t = 0.5/√t and final_lr = 0.1."""
    steps = int(3.0 / gamma)
    hyper: dict[str, Any] = {"final_lr": 0.1, "gamma": gamma, "eps": 0.0}
    trace = simulate(critique(), "adabound", steps, "0.5/sqrt(t)", (0.0, beta2), records=steps, **hyper)
    held = trace.steps[(path_of(trace)[:, 0, 0] == 1.0) & (trace.steps % 3 == 0)]
    return float(gamma * held[-1])


def arrival_at_the_minimum(gamma: float) -> float:
    """Return the last x of AdaBound after 100/γ steps on `critique`."""
    hyper: dict[str, Any] = {"final_lr": 0.1, "gamma": gamma}
    return final(simulate(critique(), "adabound", int(100 / gamma), "0.5/sqrt(t)", (0.0, 0.1), **hyper))


TURN = turning(0.2, 0.1)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "The minimizer for C = 999, p = 0.002",
        AVAGRAD,
        "derived",
        998.0 / 1998.0,
        1e-12,
        minimizer,
        "p C w = 1 − p.",
    ),
    *(
        Claim(
            f"Adam (0, {beta2}) goes to the end of the interval",
            AVAGRAD,
            "derived",
            resting_point(beta2),
            2e-3,
            lambda beta2=beta2: average("adam", (0.0, beta2)),  # type: ignore[misc]
            "E[g/√v] < 0 at w = 1, by its exact value; 2e-3 for the steps back that a rare gradient makes: a step is "
            "at most α_t/√(1−β2) = 8e-4 in the second half at β2 = 0.99.",
        )
        for beta2 in (0.9, 0.99)
    ),
    *(
        Claim(
            f"Adam (0, {beta2}) settles at the root of E[g/√v]",
            AVAGRAD,
            "derived",
            resting_point(beta2),
            0.015,
            lambda beta2=beta2: average("adam", (0.0, beta2)),  # type: ignore[misc]
            "Derived by the exact stationary drift; averages over half a run differ by 0.009 between seeds, so "
            "that of 8 "
            "has a standard error of 0.003: five of those (false alarm 6e-7).",
        )
        for beta2 in (0.999, 0.9999)
    ),
    *(
        Claim(
            f"{title} settles at the minimizer",
            AVAGRAD,
            "paper",
            998.0 / 1998.0,
            0.015,
            lambda method=method, betas=betas, hyper=hyper: average(method, betas, **hyper),  # type: ignore[misc]
            "After the paper, that a stepsize independent of the gradient leaves the mean step unbiased (and a "
            "constant one, "
            "AMSGrad's in the end); five standard errors, as for Adam.",
        )
        for title, method, betas, hyper in (
            ("AvaGrad, eps = 1e-8,", "avagrad", (0.0, 0.999), {"eps": 1e-8}),
            ("AMSGrad", "amsgrad", (0.0, 0.999), {}),
            ("ADOPT, unclipped, (0, 0.9999)", "adopt", (0.0, 0.9999), {"clip": float("inf")}),
        )
    ),
    *(
        Claim(
            f"AdaBound with γ = {gamma:g} leaves the worst point at γt",
            ADABOUND,
            "derived",
            TURN,
            0.01 * TURN,
            lambda gamma=gamma: departure(gamma),  # type: ignore[misc]
            "Where the drift over a period with clipped stepsizes changes sign, derived here; so the wait is "
            "u*/γ, as long "
            "as one likes. 1 %: α_t and the bounds move by a few γ within a period.",
        )
        for gamma in (1e-3, 1e-4)
    ),
    Claim(
        "AdaBound in the end, at T = 100/γ",
        ADABOUND,
        "derived",
        -1.0,
        0.03,
        lambda: arrival_at_the_minimum(1e-4),
        "Once the bounds have shut it is SGD; on a period it moves to and fro by 3·final_lr/√t at most, 3e-4, "
        "and γt = 100 "
        "leaves 1 % of its adaptivity.",
    ),
)
