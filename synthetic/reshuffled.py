"""The exact drift of Adam on n gradients reshuffled in every epoch: one rare value, and n − 1 times a common one.

Whenever an epoch starts, the rare gradient's place in it is drawn anew, so that two of them are neither independent nor
periodic. But with c the common gradient and R the rare one, v and m depend on the lags ℓ of the rare ones alone,

    v = c² + (R² − c²)(1−β2) Σ β2^ℓ,    m = c + (R − c)(1−β1) Σ β1^ℓ,

each epoch has one lag, uniform on n neighbouring ones, and epochs are independent: E e^(−sv) is a product over epochs,
and E[m/√v] = π^(−1/2) ∫ s^(−1/2) E[m e^(−sv)] ds as in `stationary.py`. The place of the step in its own epoch is
averaged over. Derived here; no random numbers are drawn.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Array = NDArray[np.float64]

CELL = 0.1
"""Of the trapezium rule in ln s, whose error is e^(−π²/CELL)."""
NEGLIGIBLE = 38.0
"""e^−38 = 3e-17: weights of a lag, and of the integrand, below which nothing is summed."""


def reshuffled_drift(rare: float, common: float, n: int, beta1: float, beta2: float) -> float:
    """Return E[m/√v] once the start is forgotten; x moves by −α times it per step.

    Args:
        rare: the gradient that comes once in an epoch, larger in size than the common one.
        common: the one of all other steps, not zero.
        n: steps in an epoch, at least 2.
        beta1: decay of the momentum, in [0, 1).
        beta2: decay of the second moment, in (0, 1).
    """
    if n < 2 or not 0.0 <= beta1 < 1.0 or not 0.0 < beta2 < 1.0 or not abs(rare) > abs(common) > 0.0:
        raise ValueError(
            "|rare| > |common| > 0, n ≥ 2, beta1 in [0, 1) and beta2 in (0, 1) were expected, got "
            f"{rare}, {common}, {n}, {beta1}, {beta2}."
        )
    spread = (rare**2 - common**2) * (1.0 - beta2)
    log_s = np.arange(math.log(1e-13 / rare**2), math.log((NEGLIGIBLE + 7.0) / common**2), CELL)
    s = np.exp(log_s)
    longest = (math.log(s[-1] * spread) + NEGLIGIBLE) / -math.log(beta2)
    if beta1 > 0.0:
        longest = max(longest, NEGLIGIBLE / -math.log(beta1))
    epochs = math.ceil(longest / n) + 1
    lags = np.arange(epochs * n)
    fall = np.exp(-np.multiply.outer(s * spread, beta2**lags))
    rises, weighted = (np.pad(np.cumsum(f, axis=1), ((0, 0), (1, 0))) / n for f in (fall, fall * beta1**lags))
    total = np.zeros_like(s)
    for place in range(1, n + 1):  # of the step in its epoch
        ends = np.append(0, place + n * np.arange(epochs))
        phi, psi = (np.diff(f[:, ends], axis=1) for f in (rises, weighted))
        phi[:, 0] += (n - place) / n  # the rare one has not come yet
        lead = np.divide(psi, phi, out=np.zeros_like(psi), where=phi > 0.0)  # where phi underflows nothing is left
        momentum = common + (rare - common) * (1.0 - beta1) * np.sum(lead, axis=1)
        total += phi.prod(axis=1) * momentum / n
    mean = (rare + (n - 1) * common) / n
    inner = float(np.sum(np.sqrt(s) * np.exp(-s * common**2) * total))
    below = mean * math.sqrt(s[0]) / math.expm1(0.5 * CELL)
    return CELL * (inner + below) / math.sqrt(math.pi)


def reshuffled_critical_beta2(rare: float, common: float, n: int, beta1: float = 0.0) -> float | None:
    """Return the β2 above which the drift has the mean gradient's sign and just below which it has the other.

    Looked for from β2 = 0.1 to 0.993, in steps that halve 1−β2; None if no change of sign is seen.
    """
    mean = rare + (n - 1) * common
    gaps = 0.9 * 0.5 ** np.arange(8.0)
    right = [reshuffled_drift(rare, common, n, beta1, 1.0 - gap) * mean > 0.0 for gap in gaps]
    last = next((j for j in range(len(gaps) - 1, 0, -1) if right[j] and not right[j - 1]), None)
    if last is None:
        return None
    return 1.0 - float(
        brentq(lambda gap: reshuffled_drift(rare, common, n, beta1, 1.0 - gap), gaps[last], gaps[last - 1])
    )
