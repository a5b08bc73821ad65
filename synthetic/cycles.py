"""Where a constant stepsize keeps Adam from settling on a quadratic h x²/2: the 2-cycle, and the adaptive edge.

Both say one thing. On the cycle √v = h|x|, so the preconditioned curvature is h/√v = 1/|x| = (2+2β1)/((1−β1)α): the
cycle sits exactly at the edge.
"""

from __future__ import annotations

import math

import numpy as np


def two_cycle(
    alpha: float, beta1: float, *, curvature: float = 1.0, eps: float = 0.0, inside: bool = True
) -> float | None:
    """Return |x| on Adam's 2-cycle x, −x, x, … on curvature·x²/2; None where eps is too large for there to be one.

    |x| = α(1−β1)/(2(1+β1)) for eps = 0, whatever the curvature h and β2. With eps inside the root |x|² falls by eps/h²,
    so h α(1−β1)/(2(1+β1)) > √eps is needed; outside the root |x| falls by eps/h, and the left side must exceed eps.
    That such cycles exist is Bock and Weiß (2019); the closed form is derived here, from m = (1−β1)/(1+β1)·g and
    v = g² on the cycle. It exists for every β; `cycle_multiplier` says whether iterates are drawn to it.
    """
    largest = alpha * (1.0 - beta1) / (2.0 * (1.0 + beta1))
    rest = largest**2 - eps / curvature**2 if inside else largest - eps / curvature
    if rest <= 0.0:
        return None
    return math.sqrt(rest) if inside else rest


def cycle_multiplier(beta1: float, beta2: float) -> float:
    """Return the factor by which a small deviation from the 2-cycle (eps = 0) grows in each step; stable below one.

    Derived here: the spectral radius of one step's derivative followed by the reflection that maps the cycle onto
    itself, in deviations of x, m, v relative to |x|, |g|, g². For β1 = 0 it is below one for all β2 in (0, 1).
    """
    pull = 2.0 * (1.0 + beta1) / (1.0 - beta1)  # α/√v, so that x' = x − pull·m'/h + v'-term
    m_row = np.array([1.0 - beta1, beta1, 0.0])
    v_row = np.array([2.0 * (1.0 - beta2), 0.0, beta2])
    x_row = np.array([1.0, 0.0, 0.0]) - pull * m_row + v_row
    reflected = np.array([-x_row, -m_row, v_row])
    return float(np.max(np.abs(np.linalg.eigvals(reflected))))


def adaptive_edge(eta: float, beta1: float) -> float:
    """Return (2+2β1)/((1−β1)η), the preconditioned curvature λ beyond which Adam with its v held fixed diverges.

    After Cohen et al. (2022, arXiv 2207.14484): 38/η at β1 = 0.9. It is where the heavy ball with an averaged gradient,
    m' = β1 m + (1−β1) λ x, x' = x − η m', has the eigenvalue −1.
    """
    return (2.0 + 2.0 * beta1) / ((1.0 - beta1) * eta)
