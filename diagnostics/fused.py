"""The sums of `fading.py` where v and g lie on an accelerator: in plain torch, piece by piece.

`fused_triton.py` takes the same scalars and gives the same sums in one pass over all tensors, without temporaries.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from .accumulators import Coefficients
from .trace import SUMS

Array = NDArray[np.float64]
Pair = tuple[torch.Tensor, torch.Tensor]
"""v, of float32, and g of one tensor, both with their numbers in the same order of memory."""

PIECE = 2**20
"""Numbers that the temporaries hold at a time."""
ENOUGH = 1e-4
"""Share of v from which v before the step is known, see `fading.py`."""
SCALARS = 12
BETA2 = Coefficients._fields.index("beta2")


def scalars(now: Array, then: Array) -> NDArray[np.float32]:
    """Return what the sums need of the coefficients of this step and the one before, each `(tensors, 7)`.

    They are lr, gain, scale, eps; scale and eps of before; what the changes of the rate, and of the corrections, are
    multiplied with; (1-β2)/β2; the least root for eps not to outweigh it; and 1 where there is a step to compare with.
    """
    lr, gain, scale, eps, beta2 = now[:, 0], now[:, 1], now[:, 2], now[:, 3], now[:, BETA2]
    lr_then, gain_then, scale_then, eps_then = then[:, :4].T
    compare = scale_then + eps_then > 0
    columns = (
        *(lr, gain, scale, eps),
        *(np.where(compare, scale_then, 1.0), np.where(compare, eps_then, 1.0)),
        (lr - lr_then) * gain_then,
        gain * scale_then - gain_then * scale,
        gain * eps_then - gain_then * eps,
        (1.0 - beta2) / beta2,
        np.where(scale > 0, eps, 0.0),
        compare,
    )
    return np.stack(columns, axis=1).astype(np.float32)


def sums(pair: Pair, its: NDArray[np.float32]) -> torch.Tensor:
    """Return the sums over all coordinates of a tensor, `(20,)` in float64, in the order of `SUMS`."""
    v, g = map(flat, pair)
    found = torch.zeros(len(SUMS), dtype=torch.float64, device=v.device)
    for begin in range(0, len(v), PIECE):
        found += of_piece(v[begin : begin + PIECE], g[begin : begin + PIECE].float(), its.tolist())
    return found


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """Return a dense tensor's numbers in the order in which they lie in memory."""
    tensor = tensor.detach()
    return torch.as_strided(tensor, (tensor.numel(),), (1,), tensor.storage_offset())


def of_piece(v: torch.Tensor, g: torch.Tensor, its: list[float]) -> torch.Tensor:
    """Return the sums over a piece, as `add_piece` of `fading.py` makes them."""
    lr, gain, scale, eps, scale_then, eps_then, change_lr, change_root, change_one, back, floor, compare = its
    none = torch.zeros((), dtype=v.dtype, device=v.device)
    sound = (g.abs() < torch.inf) & (v < torch.inf) & (v >= 0)
    v, g = torch.where(sound, v, none), torch.where(sound, g, none)
    live = v > 0
    fall = back * (v - g * g)
    v_then = v + fall
    known = live & (v_then > ENOUGH * v) & (compare > 0)
    v_then = torch.where(known, v_then, none + 1)
    r, r_then = v.sqrt(), v_then.sqrt()

    below, below_then, between = scale * r + eps, scale_then * r_then + eps_then, scale * r_then + eps
    over_then = 1 / below_then
    e = torch.where(live, lr * (gain / below), none)
    by_lr = torch.where(known, change_lr * over_then, none)
    by_bias = torch.where(known, lr * over_then * (change_root * r_then + change_one) / between, none)
    by_v = torch.where(known, e * scale * fall / ((r + r_then) * between), none)
    delta = by_lr + by_bias + by_v
    eg, u = e * g, torch.where(live, g / (scale * r).clamp(min=eps), none)

    changes = delta, by_lr, by_bias, by_v
    size, size_lr, size_bias, size_v = (x.abs() for x in changes)
    rise, rise_lr, rise_bias, rise_v = (x.clamp(min=0) for x in changes)
    bound = live & (scale * r < floor)
    first = live, delta > 0, ~sound, e, eg * eg, rise, g * g, u * u, known, bound
    rest = size, e * e, delta * delta, size_lr, size_bias, size_v, rise_lr, rise_bias, rise_v, none
    return torch.stack([x.sum(dtype=torch.float64) for x in (*first, *rest)])
