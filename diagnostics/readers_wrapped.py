"""The wrappers of `stepscope.remedies` that scale another optimizer's steps: its reader, with the factor s in e."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .accumulators import Coefficients
from .conformity import conformity
from .stepsizes import Reader, Values, View


class Scaled(Reader):
    """A reader of -Δθ = s·(e·d + remainder), decoupled decay apart, where `inner` reads e, d and the remainder.

    Args:
        inner: the wrapped optimizer's reader.
    """

    meaning: str
    """What s is, for the formula."""

    def __init__(self, inner: Reader) -> None:
        self.inner, self.keeps_state = inner, inner.keeps_state
        self.formula = f"{inner.formula.replace('e = ', 'e = s·', 1)}; s = {self.meaning}"

    @abstractmethod
    def factor(self, view: View) -> Values | float:
        """Return s of the step that was just taken."""

    def direction(self, view: View) -> Values:
        """Return the wrapped optimizer's."""
        return self.inner.direction(view)

    def remainder(self, view: View) -> Values | float:
        """Return the decay as it is, and what else there may be scaled, as by RMSprop's momentum."""
        rest = self.inner.remainder(view)
        return rest if self.decoupled(view.group) else self.factor(view) * rest

    def looseness(self, view: View) -> float:
        """Return the wrapped optimizer's."""
        return self.inner.looseness(view)

    def decoupled(self, group: Mapping[str, Any]) -> bool:
        """Return the wrapped optimizer's."""
        return self.inner.decoupled(group)

    def adds_decay_to_gradient(self, group: Mapping[str, Any]) -> bool:
        """Return the wrapped optimizer's."""
        return self.inner.adds_decay_to_gradient(group)

    def remember(self, view: View, proving: bool) -> None:
        """Note what the wrapped optimizer will overwrite; the factor's averages stand after the step."""
        self.inner.remember(view, proving)

    def looks_ahead(self, group: Mapping[str, Any]) -> bool:
        """Return the wrapped optimizer's."""
        return self.inner.looks_ahead(group)

    def decays(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """Return the wrapped optimizer's."""
        return self.inner.decays(group)


class CProp(Scaled):
    """CProp: s is a number a coordinate, and is written as a second moment that e would have had to meet."""

    gauges_gradient = False
    has_edge = False  # s answers to the gradients
    meaning = "the conformity of the past gradients"

    def factor(self, view: View) -> Values:
        """Return the conformity, computed as the wrapper does from what it keeps."""
        m, v = (torch.from_numpy(np.ascontiguousarray(view.take(name))) for name in ("cprop_m", "cprop_v"))
        beta, c, cdf = view.number("cprop_beta"), view.number("cprop_c"), str(view.group["cprop_cdf"])
        s: Values = conformity(m, v, int(view.state["cprop_t"]), beta, c, cdf).double().numpy()
        return s

    def decays(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """Return β1 of the wrapped optimizer, and the longer memory of its second moment and of s."""
        beta1, beta2 = self.inner.decays(group)
        return beta1, max(float(group["cprop_beta"]), 0.0 if math.isnan(beta2) else beta2)

    def coefficients(self, view: View) -> Coefficients:
        """Return the wrapped optimizer's; where it has no second moment, those that a v' can stand in."""
        plain = self.inner.coefficients(view)
        return plain if plain.scale else plain._replace(scale=1.0, eps=0.0)

    def second_moment(self, view: View) -> Values:
        """Return v' with (scale·sqrt(v') + eps) = (scale·sqrt(v) + eps)/s; 0 where s or v is 0, as nothing moved."""
        plain, v, s = self.inner.coefficients(view), self.inner.second_moment(view), self.factor(view)
        now = self.coefficients(view)
        with np.errstate(divide="ignore", invalid="ignore"):
            below = (plain.scale * np.sqrt(v, dtype=np.float64) + plain.eps) / s
            scaled: Values = np.where((v > 0) & (s > 0), np.square((below - now.eps) / now.scale), 0.0)
        return scaled


class ClipUpdates(Scaled):
    """ClipUpdates: s is one number a tensor, and a part of the learning rate."""

    meaning = "1/max(1, RMS_t)"

    def __init__(self, inner: Reader) -> None:
        super().__init__(inner)
        self.gauges_gradient, self.has_edge = inner.gauges_gradient, inner.has_edge

    def factor(self, view: View) -> float:
        """Return what the wrapper noted."""
        return 1 / max(1.0, float(view.state["update_rms"]))

    def coefficients(self, view: View) -> Coefficients:
        """Return the wrapped optimizer's, with the clip in the learning rate."""
        plain = self.inner.coefficients(view)
        return plain._replace(lr=self.factor(view) * plain.lr)

    def second_moment(self, view: View) -> Values:
        """Return the wrapped optimizer's."""
        return self.inner.second_moment(view)

    def remainder(self, view: View) -> Values | float:
        """Return the decay, clipped where the group says so."""
        if view.group["clip_decay"]:
            return self.factor(view) * self.inner.remainder(view)
        return super().remainder(view)
