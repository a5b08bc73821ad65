"""The methods a problem can be played with: each a pure update rule, its hyper-parameters and its paper.

The rules are in `rules_adam.py`, `rules_sums.py` and `rules_shifted.py`, written in the generalized form of Chen et al.
(arXiv 1808.02941): a momentum m_t, a second moment v̂_t = h_t(g_1..g_t), and an effective stepsize e_t made of α_t and
v̂_t. A method of your own is a `Method` around a function of the same arguments, defined in a file.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, get_args

import numba
import numpy as np
from numpy.typing import NDArray

from . import rules_adam, rules_shifted, rules_sums

Array = NDArray[np.float64]
Rule = Callable[[int, float, Array, Array, Array, Array, Array], None]
Direction = Literal["m", "g", "other"]

SIGNATURE = "void(int64, float64, float64[::1], float64[:, ::1], float64[::1], float64[::1], float64[::1])"
"""What every rule is compiled for: t, alpha, g (dim,), s (rows, dim), p, e (dim,), dx (dim,)."""


def odds(hyper: Mapping[str, float]) -> float:
    """Return β1/(1-β1), and 0 without a β1."""
    beta1 = hyper.get("beta1", 0.0)
    return beta1 / (1.0 - beta1)


def nothing(_: Mapping[str, float]) -> float:
    """Return 0."""
    return 0.0


@dataclass(frozen=True, eq=False)
class Method:
    """One update rule and what is known about it."""

    name: str
    rule: Rule
    """The plain function; see `rules_adam.py` for its arguments."""
    defaults: Mapping[str, float]
    """Hyper-parameters in the order in which the rule reads them from p."""
    state: int | Callable[[Mapping[str, float]], int]
    """Rows of s, or how many rows the hyper-parameters ask for."""
    source: str
    formula: str
    rises: bool = True
    """Whether e can rise from a step to the next while α does not; from a coordinate's first gradient on."""
    rises_at_root: bool = True
    """Whether it can do so even with α_t = α/√t."""
    direction: Direction = "m"
    """What e multiplies: dx = -e·m with m = s[0] after the step, dx = -e·g, or what `formula` says."""
    weights: Callable[[Mapping[str, float]], float] | None = None
    """What the momentum's weights of all gradients add up to, where it is no average."""
    owes: Callable[[Mapping[str, float]], float] = odds
    """How many steps of the size e·m are to come of a momentum m; 0 where that is no multiple of m."""

    def __post_init__(self) -> None:
        known = get_args(Direction)
        if self.direction not in known:
            raise ValueError(f"`direction` must be one of {', '.join(map(repr, known))}, got {self.direction!r}.")
        if not callable(self.rule):
            raise ValueError(f"`rule` must be a function of (t, alpha, g, s, p, e, dx), got {self.rule!r}.")

    @cached_property
    def update(self) -> Rule:
        """The rule as machine code of the one signature, compiled at first use and kept on disk beside its file."""
        options: dict[str, Any] = {"error_model": "numpy"}
        try:
            compiled: Rule = numba.njit(SIGNATURE, cache=True, **options)(self.rule)
        except RuntimeError:  # nowhere to keep it: an unwritable installation, a rule typed at a prompt
            compiled = numba.njit(SIGNATURE, **options)(self.rule)
        return compiled

    def named(self, p: Array) -> dict[str, float]:
        """Return a vector of hyper-parameters by name."""
        return dict(zip(self.defaults, p.tolist(), strict=True))

    def weight(self, p: Array) -> float:
        """Return what the momentum's weights of all gradients add up to, for a vector of hyper-parameters."""
        return 1.0 if self.weights is None else self.weights(self.named(p))

    def outstanding(self, p: Array) -> float:
        """Return how many steps of the size e·m are to come of a momentum m, for a vector of hyper-parameters."""
        return self.owes(self.named(p)) if self.direction == "m" else 0.0

    def rows(self, p: Array) -> int:
        """Return the rows of state for a vector of hyper-parameters."""
        return self.state(self.named(p)) if callable(self.state) else self.state

    def __getstate__(self) -> dict[str, Any]:
        """Leave the machine code behind: another process finds it on disk."""
        return {key: value for key, value in self.__dict__.items() if key != "update"}


def method(name: str) -> Method:
    """Return the method of a name.

    Raises:
        ValueError: for a name that is not in `METHODS`.
    """
    if name not in METHODS:
        close = difflib.get_close_matches(name.lower(), METHODS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(repr(c) for c in close)}?" if close else f"choose from {', '.join(METHODS)}."
        raise ValueError(f"`method` must be a known name, got {name!r}; {hint}")
    return METHODS[name]


def parameters(method: Method, betas: tuple[float, float] | None = None, **hyper: float) -> Array:
    """Return the hyper-parameters as the vector p that the rule reads, in the order of `method.defaults`.

    `betas` sets the first (beta1; beta0 of Adai) and beta2.

    Raises:
        ValueError: for a hyper-parameter that the method does not have, or one out of its range.
    """
    first = "beta0" if "beta0" in method.defaults else "beta1"
    chosen = dict(hyper)
    if betas is not None:
        twice = sorted({first, "beta2"} & set(hyper))
        if isinstance(betas, str) or np.shape(betas) != (2,) or twice:
            beside = f" and {' and '.join(twice)} beside it" if twice else ""
            raise ValueError(f"`betas` must be one pair ({first}, beta2), such as (0.9, 0.999), got {betas!r}{beside}.")
        chosen.update(zip((first, "beta2"), betas, strict=True))
    for name, value in chosen.items():
        if name not in method.defaults:
            known = ", ".join(method.defaults) or "none"
            raise ValueError(f"{method.name} has no hyper-parameter `{name}`; it has: {known}.")
        check(name, value)
    return np.array([chosen.get(name, default) for name, default in method.defaults.items()], dtype=np.float64)


def check(name: str, value: float) -> None:
    """Raise ValueError where a hyper-parameter is no number or lies outside its range."""
    inside, words = RANGES.get("beta" if name.startswith("beta") else name, (lambda x: x >= 0.0, "a number from 0 up"))
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not inside(number):
        raise ValueError(f"`{name}` must be {words}, got {value!r}.")


RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "beta": (lambda x: 0.0 <= x < 1.0, "in [0, 1)"),
    "dampening": (lambda x: 0.0 <= x <= 1.0, "in [0, 1]"),
    "decay": (lambda x: 0.0 <= x <= 1.0, "in [0, 1]"),
    "n": (lambda x: 1.0 <= x < math.inf and x == int(x), "a whole number from 1 up"),
    "block": (lambda x: x in (0.0, 1.0, 2.0), "0 (each coordinate), 1 (the largest) or 2 (the mean)"),
    "lag": (lambda x: x in (0.0, 1.0), "0 (the paper) or 1 (its code)"),
}
"""What `check` asks of a hyper-parameter; of every other that it is not negative."""


def heavy_ball(hyper: Mapping[str, float]) -> float:
    """Return (1 - dampening)·Σ β1^j."""
    return (1.0 - hyper["dampening"]) / (1.0 - hyper["beta1"])


def fading_steps(hyper: Mapping[str, float]) -> float:
    """Return what is to come of Demon's momentum."""
    return fading_sum(hyper) - 1.0


def fading_sum(hyper: Mapping[str, float]) -> float:
    """Return the mean of Σ_{k≥0} β_{t+1}…β_{t+k} of Demon over the second half of a run, where ρ is read.

    It is 1/(1-β_t) = 1 + z·β1/(1-β1), and z is 1/4 in the mean of that half; 1 all the time without a horizon.
    """
    odds = hyper["beta1"] / (1.0 - hyper["beta1"])
    return 1.0 + (odds / 4.0 if hyper["horizon"] > 0.0 else odds)


def window_rows(hyper: Mapping[str, float]) -> int:
    """Return AdaShift's rows: momentum, second moment, and the last n gradients."""
    return 2 + int(hyper["n"])


BETAS = {"beta1": 0.9, "beta2": 0.999}

TABLE = (
    Method("sgd", rules_sums.sgd, {}, 0, "Robbins & Monro 1951", "e = α, on g", False, False, "g"),
    Method(
        "momentum",
        rules_sums.momentum,
        {"beta1": 0.9, "dampening": 0.0},
        1,
        "Polyak 1964; torch.optim.SGD",
        "m = β1·m + (1 - dampening)·g; e = α, on m",
        False,
        False,
        weights=heavy_ball,
    ),
    Method(
        "adagrad",
        rules_sums.adagrad,
        {"eps": 1e-10},
        1,
        "Duchi, Hazan & Singer, JMLR 2011; torch.optim.Adagrad",
        "e = α/(√Σg² + eps), on g",
        False,
        False,
        "g",
    ),
    Method(
        "adafom",
        rules_sums.adafom,
        {"beta1": 0.9, "eps": 0.0},
        2,
        "Chen, Liu, Sun & Hong, ICLR 2019, arXiv 1808.02941",
        "v = Σg²/t; e = α/√v, on m",
        rises_at_root=False,
    ),
    Method(
        "rmsprop",
        rules_adam.rmsprop,
        {"beta2": 0.99, "eps": 1e-8},
        1,
        "Tieleman & Hinton 2012; torch.optim.RMSprop",
        "v = β2·v + (1-β2)·g²; e = α/(√v + eps), on g",
        direction="g",
    ),
    Method(
        "adam",
        rules_adam.adam,
        BETAS | {"eps": 1e-8},
        2,
        "Kingma & Ba, ICLR 2015, arXiv 1412.6980; torch.optim.Adam",
        "v = β2·v + (1-β2)·g²; e = α/(1-β1^t)/(√(v/(1-β2^t)) + eps), on m",
    ),
    Method(
        "adam_plain",
        rules_adam.adam_plain,
        BETAS | {"eps": 0.0},
        2,
        "Chen, Liu, Sun & Hong, ICLR 2019, arXiv 1808.02941",
        "v = β2·v + (1-β2)·g²; e = α/(√v + eps), on m",
    ),
    Method(
        "adam_inside",
        rules_adam.adam_inside,
        BETAS | {"eps": 1e-8},
        2,
        "Défossez et al., TMLR 2022, arXiv 2003.02395; Bock & Weiß 2019",
        "v = β2·v + (1-β2)·g²; e = α/(1-β1^t)/√(v/(1-β2^t) + eps), on m",
    ),
    Method(
        "amsgrad",
        rules_adam.amsgrad,
        BETAS | {"eps": 0.0},
        3,
        "Reddi, Kale & Kumar, ICLR 2018, arXiv 1904.09237",
        "v = β2·v + (1-β2)·g², v̂ = max(v̂, v); e = α/(√v̂ + eps), on m",
        False,
        False,
    ),
    Method(
        "amsgrad_torch",
        rules_adam.amsgrad_torch,
        BETAS | {"eps": 1e-8},
        3,
        "torch.optim.Adam(amsgrad=True)",
        "v = β2·v + (1-β2)·g², v̂ = max(v̂, v); e = α/(1-β1^t)/(√(v̂/(1-β2^t)) + eps), on m",
        rises_at_root=False,
    ),
    Method(
        "adamnc",
        rules_sums.adamnc,
        {"beta1": 0.9, "eps": 0.0, "decay": 1.0 - 1e-8},
        2,
        "Reddi, Kale & Kumar, ICLR 2018, arXiv 1904.09237",
        "m = β1,t·m + (1-β1,t)·g, β1,t = β1·decay^(t-1); v = Σg²/t; e = α/√v, on m",
        rises_at_root=False,
    ),
    Method(
        "nosadam",
        rules_sums.nosadam,
        {"beta1": 0.9, "eps": 0.0, "gamma": 0.1},
        3,
        "Huang, Wang & Dong, IJCAI 2019, arXiv 1805.07557",
        "v = Σ k^-γ·g_k²/Σ k^-γ; e = α/√v, on m",
        rises_at_root=False,
    ),
    Method(
        "adabound",
        rules_adam.adabound,
        BETAS | {"eps": 1e-8, "final_lr": 0.1, "gamma": 1e-3},
        3,
        "Luo, Xiong, Liu & Sun, ICLR 2019, arXiv 1902.09843",
        "e = clip(α·√(1-β2^t)/(1-β1^t)/(√v + eps), f(1 - 1/(γt+1)), f(1 + 1/(γt))), f = final_lr·α/α_1, on m",
    ),
    Method(
        "yogi",
        rules_adam.yogi,
        BETAS | {"eps": 1e-3, "initial": 1e-6},
        2,
        "Zaheer et al., NeurIPS 2018",
        "v = v - (1-β2)·sign(v - g²)·g²; e = α/(1-β1^t)/(√(v/(1-β2^t)) + eps), on m",
    ),
    Method(
        "adabelief",
        rules_adam.adabelief,
        BETAS | {"eps": 1e-16},
        2,
        "Zhuang et al., NeurIPS 2020, arXiv 2010.07468",
        "v = β2·v + (1-β2)·(g-m)² + eps; e = α/(1-β1^t)/(√(v/(1-β2^t)) + eps), on m",
    ),
    Method(
        "adashift",
        rules_shifted.adashift,
        BETAS | {"eps": 1e-10, "n": 10.0, "block": 1.0},
        window_rows,
        "Zhou et al., ICLR 2019, arXiv 1810.00143",
        "m = Σ_{i<n} β1^i·g_{t-i}/Σ β1^i; v = β2·v + (1-β2)·φ(g_{t-n}²); e = α/(√(v/(1-β2^(t-n))) + eps), on m",
        owes=nothing,
    ),
    Method(
        "adopt",
        rules_shifted.adopt,
        {"beta1": 0.9, "beta2": 0.9999, "eps": 1e-6, "clip": 0.25},
        2,
        "Taniguchi et al., NeurIPS 2024, arXiv 2411.02853",
        "e = α/max(√v_{t-1}, eps, |g|/t^clip), on g before it is averaged: m = β1·m + (1-β1)·e·g/α, dx = -α·m",
        direction="other",
    ),
    Method(
        "avagrad",
        rules_shifted.avagrad,
        BETAS | {"eps": 0.1, "lag": 1.0},
        3,
        "Savarese, McAllester, Babu & Maire, CVPR 2021, arXiv 1912.01823",
        "η = 1/(√(v_{t-1}/(1-β2^(t-1))) + eps); e = α/(1-β1^t)·η/√(mean η²), on m",
    ),
    Method(
        "adai",
        rules_shifted.adai,
        {"beta0": 0.1, "beta2": 0.99, "eps": 1e-3},
        3,
        "Xie, Wang, Zhang, Sato & Sugiyama, ICML 2022, arXiv 2006.15815",
        "β1 = clip(1 - β0·v/mean(v), 0, 1-eps); e = α/(1-Πβ1), on m",
        False,
        False,
    ),
    Method(
        "demon_adam",
        rules_adam.demon_adam,
        BETAS | {"eps": 1e-8, "horizon": 0.0},
        2,
        "Chen, Wolfe, Li & Kyrillidis, arXiv 1910.04952",
        "m = g + β_t·m, β_t/(1-β_t) = (1 - t/horizon)·β1/(1-β1); e = α/(√(v/(1-β2^t)) + eps), on m",
        weights=fading_sum,
        owes=fading_steps,
    ),
    Method(
        "lion",
        rules_sums.lion,
        {"beta1": 0.9, "beta2": 0.99},
        1,
        "Chen et al., NeurIPS 2023, arXiv 2302.06675",
        "c = β1·m + (1-β1)·g, m = β2·m + (1-β2)·g; e = α/|c|, on c",
        direction="other",
    ),
)

METHODS: Mapping[str, Method] = MappingProxyType({entry.name: entry for entry in TABLE})
"""Every method by its name."""
