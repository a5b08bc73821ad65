"""Inertia: which coordinates hold the energy of the gradients, told as the momentum that Adai would give each.

Adai (Xie, Wang, Zhang, Sato and Sugiyama, ICML 2022, arXiv 2006.15815) has one stepsize for all coordinates and a
momentum for each, from its second moment v̂, without the bias of its beginning, against the mean over all coordinates:

    β1_i = clip(1 - β0·v̂_i/mean(v̂), 0, 1 - ε),    β0 = 0.1, ε = 0.001.

It averages over 1/(1 - β1_i) steps. Were energy spread evenly, every β1 would be 0.9. The larger part of it in few
coordinates puts those at 0, which they reach at ten times the mean, and the median near 0.999.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .recorder import Recorder
    from .watcher import Watcher

Array = NDArray[np.float64]

BETA0, BOUND = 0.1, 1e-3
"""β0 and ε: the mean of 1 - β1, and the least."""
EVEN = 1 - BETA0
"""β1 of a coordinate of mean energy."""
LEVELS = {"p1": 0.01, "p10": 0.1, "p50": 0.5}


def momentum(energy: Array, weights: Array) -> Array:
    """Return β1 of each coordinate from v̂; each stands for as many coordinates as it weighs."""
    mean = (energy * weights).sum() / weights.sum()  # no `@`: its threads take longer to wake than this
    return np.asarray(np.clip(1.0 - BETA0 * energy / mean, 0.0, 1.0 - BOUND))


def inertia(recorder: Recorder) -> dict[str, float]:
    """Return quantiles of β1 over all coordinates, and the share that is 0; nothing where there is no second moment."""
    from .watcher import few  # who draws β1 wants its levels alone

    whole = few(recorder.watchers)
    known = [(w, energy) for w in recorder.watchers if len(energy := energy_of(w, whole))]
    if not known:
        return {}
    energy = np.concatenate([own for _, own in known])
    weights = np.concatenate([np.full(len(own), w.coordinates.numel / len(own)) for w, own in known])
    if not 0.0 < (energy * weights).sum() < np.inf:
        return {}
    beta1 = momentum(energy, weights)
    order = np.argsort(beta1)
    reached = np.cumsum(weights[order]) / weights.sum()
    places = np.minimum(np.searchsorted(reached, list(LEVELS.values())), len(order) - 1)
    found = {f"inertia/{name}": float(beta1[order[place]]) for name, place in zip(LEVELS, places, strict=True)}
    return found | {"inertia/clipped": float(weights[beta1 == 0].sum() / weights.sum())}


def energy_of(w: Watcher, whole: bool) -> Array:
    """Return v̂ at a sample of a tensor's coordinates; of none where there is no v̂ or it is no size of the gradient."""
    from .watcher import FAILURES

    scale = float(w.accumulator.then[2])
    if w.reader is None or not w.gauges or scale == 0.0:
        return np.empty(0)
    try:
        if w.rooted or not whole:
            return np.asarray((scale * (w.roots() if whole else w.lead_roots())) ** 2)
        # of a tensor watched whole those that are proved are enough
        return np.asarray(w.reader.second_moment(w.view), dtype=np.float64) * scale**2
    except FAILURES:  # somebody cleared the state since
        return np.empty(0)
