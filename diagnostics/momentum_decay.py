"""The decay of a momentum over a run by Demon's rule (Chen, Wolfe, Li and Kyrillidis, arXiv 1910.04952)."""

from __future__ import annotations


def decayed(beta: float, gone: float) -> float:
    """Return β_t = β·z/((1-β) + β·z), z = 1-t/T, where `gone` = t/T of the run is over; 0 from its end on.

    What a gradient moves in all later steps, β_t/(1-β_t) of its own step, so falls linearly. Without the clamp β_t
    would be negative after T and have a pole at t = T/β.

    >>> decayed(0.9, 0.0), round(decayed(0.9, 0.5), 4), decayed(0.9, 1.2)
    (0.9, 0.8182, 0.0)
    """
    gone = min(1.0, gone)
    # 1 - β·t/T is (1-β) + β·z, and is 1 at the start, where β_t must be β to the bit.
    return beta * (1 - gone) / (1 - beta * gone)
