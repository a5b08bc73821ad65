"""Conformity: how sure the past gradients of a coordinate are of the sign of their mean (CProp, arXiv 1912.11493)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

CERTAINTY: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda z: torch.erf(z / math.sqrt(2)),
    "bft": lambda z: torch.tanh((0.07056 * z**3 + 1.5976 * z) / 2),
    "bfo": lambda z: torch.tanh(1.702 * z / 2),
    "logistic": lambda z: torch.tanh(math.pi / math.sqrt(3) * z / 2),
}
"""2·|F(z) - ½| for z ≥ 0: of the normal distribution, of its cubic and its plain logistic approximation (the paper's
code calls them so), and of the logistic distribution of variance 1. For F = 1/(1 + exp(-x)) it is tanh(x/2)."""

ONE = 0.01
"""n - 1 below which one gradient is all that the averages know: its variance would be a quotient of roundings."""


def conformity(m: Tensor, v: Tensor, t: int, beta: float, c: float = 1.0, cdf: str = "normal") -> Tensor:
    """Return s = min(1, 2c·|F(z) - ½|) of every coordinate.

    With m and v the averages of g and g² that fade by β, from zero on, and m̂ and v̂ corrected for that beginning,

        n = (1-β^t)/(1-β),    z = |m̂| / sqrt(max(v̂ - m̂², 0)/(n-1)),

    so s near 1 says that the sign of the mean gradient is certain, and s near 0 that it is noise. n is about half the
    effective number of gradients, (1+β)/(1-β), so on noise z has a standard deviation of 1/sqrt(2) and s a mean of
    (2/π)·arctan(1/sqrt(2)) = 0.392, not ½. Gradients of successive steps are taken to be independent. As long as
    nothing is known, at t = 1 and where no gradient was other than zero, s is 1: mask v = 0 out of a mean over s.

    Args:
        m: the average of the gradients, of any shape.
        v: the average of their squares.
        t: how many gradients the averages have seen, from 1.
        beta: β.
        c: sharpens: s reaches 1 where |F(z) - ½| is 1/2c.
        cdf: F, one of `CERTAINTY`.
    """
    correction = 1 - beta**t
    n = correction / (1 - beta)
    if n - 1 < ONE:
        return torch.ones_like(m)
    mean = m / correction
    # In place where it may be: of large tensors each new one costs more than what is computed.
    error = (v / correction).addcmul_(mean, mean, value=-1).clamp_(min=0).div_(n - 1).sqrt_()
    s = CERTAINTY[cdf](mean.abs_().div_(error)).mul_(c).clamp_(max=1)
    return s.masked_fill_(v == 0, 1.0)
