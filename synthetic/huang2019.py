"""NosAdam, after Huang, Wang and Dong (IJCAI 2019, arXiv 1805.07557): the past weighs more than the present.

v_t = Σ b_k g_k²/B_t with B_t = Σ b_k; theirs is the condition that B_t/t must not rise. That it gives Γ_t ≥ 0 with
α_t = α/√t, that γ = 0 is AdaFom's plain mean, and how fast it stops forgetting, is derived here (`guarantees.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import erf

from .claims import SEEDS, Claim, Estimate, final, mean, slopes
from .engine import simulate
from .guarantees import nosadam_beta2, nosadam_condition
from .noise import Gaussian
from .orbits import path_of
from .problem import Problem
from .reddi2018 import online

PAPER = "Huang, Wang & Dong, IJCAI 2019, arXiv 1805.07557"
LR = "0.5/sqrt(t)"


def noisy() -> Problem:
    """Return x²/2 with normal noise of variance 1 on the gradient, from 1."""
    return Problem(["x**2/2"], start=1.0, noise=Gaussian(1.0), name="x²/2, noisy")


def rises(method: str, **hyper: Any) -> float:
    """Return the number of steps with Γ_t < 0 among 1e5 on the noisy quadratic with α_t = 0.5/√t."""
    return float(simulate(noisy(), method, 100_000, LR, **hyper).total("rising")[-1])


def adam_share(beta1: float = 0.9, beta2: float = 0.999) -> Estimate:
    """Return the share of 1e5 steps on which the stepsize of torch's Adam rises."""
    trace = simulate(noisy(), "adam", 100_000, LR, (beta1, beta2), SEEDS)
    return mean(trace.column("rising")[-1] / 1e5)


def expected_share(beta1: float = 0.9, beta2: float = 0.999, steps: int = 100_000) -> float:
    """Return the mean over the steps of P(e_t > e_{t−1}) for a normal gradient of variance 1 and v at its mean.

    With r = ((t−1)/t)·(1−β2^t)/(1−β2^{t−1})·((1−β1^{t−1})/(1−β1^t))², e rises where v_t < r v_{t−1}, that is where
    g² < v_{t−1}(r − β2)/(1−β2), and v_{t−1} is 1−β2^{t−1} on average. Derived here.
    """
    t = np.arange(2.0, steps + 1)
    r = (t - 1) / t * (1 - beta2**t) / (1 - beta2 ** (t - 1)) * ((1 - beta1 ** (t - 1)) / (1 - beta1**t)) ** 2
    under = (1 - beta2 ** (t - 1)) * (r - beta2) / (1 - beta2)
    return float(np.sum(erf(np.sqrt(np.maximum(under, 0.0) / 2.0))) / steps)


def apart(gamma: float) -> float:
    """Return the largest distance between NosAdam's and AdaFom's iterates in 1e5 steps of the noisy quadratic."""
    ours = simulate(noisy(), "nosadam", 100_000, LR, gamma=gamma)
    mean = simulate(noisy(), "adafom", 100_000, LR)
    return float(np.abs(path_of(ours) - path_of(mean)).max())


SWING = 0.5 * 1010 / float(np.sqrt(1e6 * (1010**2 + 100 * 10**2) / 101))
"""How far NosAdam moves in a period of the online game at T = 1e6, v being the mean of g²."""


def stated() -> tuple[Claim, ...]:
    """Return the claims of the paper."""
    return (
        *(
            Claim(
                f"NosAdam, γ = {gamma}: steps with Γ_t < 0",
                PAPER,
                "derived",
                0.0,
                0.0,
                lambda gamma=gamma: rises("nosadam", gamma=gamma),  # type: ignore[misc]
                "t v_t = (t/B_t) Σ b_k g_k² is a product of two factors that do not fall, so 1/e_t does not; derived "
                "here.",
            )
            for gamma in (0.1, 0.5, 1.0)
        ),
        Claim(
            "Adam (0.9, 0.999) on the same noise: share of steps with Γ_t < 0",
            PAPER,
            "derived",
            expected_share(),
            1e-3 / 8,
            adam_share,
            "e rises where g² < v, less what α_t and the bias corrections take (`expected_share`); v/E g² has the "
            "variance 1−β2, and P(g² < q) the second derivative −0.24 at q = 1: an eighth of 1−β2.",
        ),
        Claim(
            "NosAdam with γ = 0 is AdaFom, the mean of AdaGrad: largest distance of the iterates",
            PAPER,
            "derived",
            0.0,
            1e-10,
            lambda: apart(0.0),
            "b_k = 1 makes v_t = Σ g²/t; both keep sums, so that only rounding is left.",
        ),
        *(
            Claim(
                f"b_k = k^{power:+g}: B_t/t does not rise",
                PAPER,
                "derived",
                word,
                0.0,
                lambda power=power: str(nosadam_condition(np.arange(1.0, 1e4) ** power)),  # type: ignore[misc]
                "For b_k = k^−γ the mean of the b_k falls or stays exactly when γ ≥ 0.",
            )
            for power, word in ((-1.0, "True"), (-0.1, "True"), (0.1, "False"))
        ),
        Claim(
            "1 − β2,t goes like (1−γ)/t: t(1−β2,t) at γ = 0.1, t = 1e6",
            PAPER,
            "derived",
            0.9,
            1e-4,
            lambda: float(1e6 * (1.0 - nosadam_beta2(1_000_000, 0.1)[-1])),
            "B_t = t^0.9/0.9 + ζ(0.1) + …, so the relative correction is of order t^−0.9.",
        ),
        Claim(
            "NosAdam, γ = 0.1, on Reddi's online game, T = 1e6",
            PAPER,
            "paper",
            (-1.0, -1.0 + SWING),
            0.0,
            lambda: final(simulate(online(), "nosadam", 1_000_000, LR)),
            "After the paper it converges, and the minimum is at −1; in a period x moves by 0.5·1010/√(v T), v the "
            "mean of g², 10200.",
        ),
        Claim(
            "Its bias condition: c/a falls like t to the power",
            PAPER,
            "derived",
            -1.0,
            0.005,
            lambda: mean(slopes(simulate(noisy(), "nosadam", 100_000, LR, seeds=SEEDS), "c")),
            "e = α/√(t v) falls and v settles, so an octave adds t^−1/2 to c and t^1/2 to a. x² has the mean e/2, "
            "which makes v 1 + 0.25/√t: 0.0055·1.5/ln 16 at the first octave, t = 2048.",
        ),
    )
