"""Do stepsizes only fall, or swing up again? Γ over the blocks of any run, by its positive and its negative part.

Γ_t = 1/e_t − 1/e_{t−1} is negative where a stepsize rises. Its two parts, each weighted with e_t·e_{t−1}, are what the
record sums: c − c⁺ = Σ max(e_{t−1} − e_t, 0), the falls, and c⁺ = Σ max(e_t − e_{t−1}, 0), the rises. `growth.py` has Γ
itself, step by step, of simulated runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..diagnostics.trace import Trace
from .axes import Array, both_ways, decade
from .figures import block_sums
from .theme import BLUE, MUTED, VERMILLION, WIDE, log_steps, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .plates import Plate


@dataclass(frozen=True)
class Oscillation:
    """Per block: how much stepsizes fell and rose, as shares of the stepsizes taken; NaN where none was taken."""

    edges: Array
    falls: Array
    rises: Array

    @property
    def rising(self) -> float:
        """The share of the rises in the change of the last block that has any; NaN where none has."""
        changed = self.rises + self.falls
        at = np.flatnonzero(changed > 0)[-1:]
        return float((self.rises[at] / changed[at]).sum()) if len(at) else float("nan")


def oscillation(trace: Trace) -> Oscillation:
    """Return (c − c⁺)/a and c⁺/a, as increments over the blocks."""
    edges, (c, rose, a) = block_sums(trace, "c", "c_plus", "a")
    with np.errstate(all="ignore"):
        falls, rises = (np.where(a > 0, np.maximum(part, 0.0) / a, np.nan) for part in (c - rose, rose))
    known = np.isfinite(falls) & np.isfinite(rises)
    return Oscillation(edges, np.where(known, falls, np.nan), np.where(known, rises, np.nan))


def draw_oscillation(data: Oscillation, ax: Axes) -> None:
    """Draw falls upwards and rises downwards from 0; the axis is linear about 0 and logarithmic beyond."""
    sizes = np.concatenate([data.falls, data.rises])
    moved = sizes[np.isfinite(sizes) & (sizes > 0)]
    if len(moved) == 0:
        return say(ax, "The stepsizes never changed." if np.isfinite(sizes).any() else "No two stepsizes to compare.")
    linear = decade(max(float(np.median(moved)) / 100, float(moved.min())))
    both_ways(ax, linear, -float(np.nanmax(data.rises)), float(np.nanmax(data.falls)))
    log_steps(ax, data.edges)
    ax.axhspan(ax.get_ylim()[0], 0, color=VERMILLION, alpha=0.06, linewidth=0)
    left, width = data.edges[:-1] * 1.02, np.diff(data.edges) * 0.94
    for heights, colour in ((data.falls, BLUE), (-data.rises, VERMILLION)):
        ax.bar(left, np.nan_to_num(heights), width, align="edge", color=colour, alpha=0.75, linewidth=0)
    ax.axhline(0, color=MUTED, linewidth=1.4, zorder=3)
    ax.set_title("change of the stepsizes per block, over a")
    ever = bool((data.rises > 0).any())
    share = f"in the end {100 * data.rising:.0f} %\nof all change" if ever else "never"
    for height, text, colour in ((0.85, "Γ > 0: e falls", BLUE), (0.15, f"Γ < 0: e rises\n{share}", VERMILLION)):
        ax.text(1.015, height, text, transform=ax.transAxes, color=colour, va="center", ha="left", fontsize=9.5)
    return None


def plate(trace: Trace) -> Plate:
    """Return the figure with the question it answers."""
    from .plates import Panel, Plate  # they may want this one

    return Plate(
        "oscillation",
        "Do stepsizes only fall, or swing up again?",
        "How much stepsizes fell (blue, up) and rose (orange, down) in each block of steps, added over coordinates, as "
        "shares of the stepsizes taken. Γ = 1/eₜ − 1/eₜ₋₁ is negative where they rise: orange is its negative part, "
        "the c⁺/a that the bias condition asks to vanish. Blue alone is a falling rate or a growing second moment, "
        "both alike are swings about a level. The axis is linear near 0 and logarithmic beyond.",
        (Panel("falls and rises of the stepsizes per block", partial(draw_oscillation, oscillation(trace)), WIDE),),
    )
