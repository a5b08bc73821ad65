"""Which reader an optimizer has: torch's by class, those of other packages by name, one's own by `register_reader`.

A package that is not imported costs nothing: its classes are known by the package and the name, such as
"pytorch_optimizer.Yogi", wherever in the package they stand. What is known by no name is tried by its state.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch

from . import readers_remedies
from .readers_adam import Debiased, Fused, Stable, Written
from .readers_by_state import Trial
from .readers_divided import (
    AdaDelta,
    AdaHessian,
    Adai,
    AdaMax,
    AdaMod,
    Bounded,
    DiffGrad,
    DualAdam,
    GrokFastAdamW,
    PAdam,
)
from .readers_entering import ADOPT, LaProp
from .readers_factored import Factored
from .readers_mixed import Adan, AdEMAMix, Ano, Grams, QHAdam, SimplifiedAdEMAMix
from .readers_paced import AdaShift, AvaGrad, DAdaptAdam, Lamb, Learned, RAdam, UnbiasedRAdam
from .readers_quantized import BitsAndBytes, TorchAO
from .readers_schedule_free import ScheduleFree, ScheduleFreeSGD
from .readers_wrapped import ClipUpdates, CProp, Scaled
from .several import members
from .stepsizes import READERS, Reader
from .without import WITHOUT

REGISTERED: dict[type | str, Reader] = {}
"""What users added; it comes before all else."""

FLOOR = 1e-15
"""What pytorch_optimizer adds to v before most of its roots."""

NAMED: dict[str, Reader] = {
    "stepscope.AdaFom": readers_remedies.AdaFom(),
    "stepscope.AMSGrad": readers_remedies.AMSGrad(),
    "stepscope.ADOPT": readers_remedies.ADOPT(),
    "stepscope.AdaShift": readers_remedies.AdaShift(),
    "stepscope.Adai": readers_remedies.Adai(),
    "stepscope.DemonAdam": readers_remedies.DemonAdam(),
    "pytorch_optimizer.Yogi": Written(),
    "pytorch_optimizer.AdaBelief": Written("exp_avg_var"),
    "pytorch_optimizer.AdaNorm": Written("exp_avg_var", hat=True, floor=FLOOR, of="g of a smoothed norm"),
    "pytorch_optimizer.Aida": Written("exp_avg_var", hat=True, floor=FLOOR),
    "pytorch_optimizer.AdamC": Written(hat=True, floor=FLOOR),
    "pytorch_optimizer.AdamS": Written(),
    "pytorch_optimizer.AdamWSN": Written(hat=True),
    "pytorch_optimizer.AdaGC": Written(of="clipped g"),
    "pytorch_optimizer.MARS": Written(hat=True, floor=FLOOR, of="g corrected by its change"),
    "pytorch_optimizer.StableAdamW": Stable(),
    "pytorch_optimizer.RAdam": RAdam(),
    "pytorch_optimizer.Lamb": Lamb(),
    "pytorch_optimizer.ADOPT": ADOPT(),
    "pytorch_optimizer.LaProp": LaProp(),
    "pytorch_optimizer.Adan": Adan(),
    "pytorch_optimizer.AdEMAMix": AdEMAMix(),
    "pytorch_optimizer.SimplifiedAdEMAMix": SimplifiedAdEMAMix(),
    "pytorch_optimizer.QHAdam": QHAdam(),
    "pytorch_optimizer.Grams": Grams(),
    "pytorch_optimizer.Ano": Ano(),
    "pytorch_optimizer.AdaShift": AdaShift(),
    "pytorch_optimizer.AvaGrad": AvaGrad(),
    "pytorch_optimizer.Prodigy": Learned(),
    "pytorch_optimizer.DAdaptAdam": DAdaptAdam(),
    "pytorch_optimizer.AdaMax": AdaMax("e = lr/(1-β1^t) / exp_inf, on exp_avg"),
    "pytorch_optimizer.PAdam": PAdam(
        "e = lr·sqrt(1-β2^t)/(1-β1^t) / (sqrt(v) + eps)^(2p), on exp_avg",
    ),
    "pytorch_optimizer.GrokFastAdamW": GrokFastAdamW("e = lr/(1-β1^t) / max(sqrt(v)/sqrt(1-β2^t), eps), on exp_avg"),
    "pytorch_optimizer.DiffGrad": DiffGrad(
        "e = lr·ξ·sqrt(1-β2^t)/(1-β1^t) / (sqrt(v) + eps), on exp_avg; ξ = sigmoid|g_{t-1} - g_t|", FLOOR
    ),
    "pytorch_optimizer.AdaBound": Bounded(
        "e = clip(lr·sqrt(1-β2^t)/(1-β1^t) / (sqrt(v) + eps), bounds about final_lr), on exp_avg", FLOOR
    ),
    "pytorch_optimizer.AdaMod": AdaMod("e = min(lr·sqrt(1-β2^t)/(1-β1^t) / (sqrt(v) + eps), its average), on exp_avg"),
    "pytorch_optimizer.DualAdam": DualAdam("e = lr/(1-β1^t)·((1-r_t)/D + r_t·D), on exp_avg; D Adam's"),
    "pytorch_optimizer.AdaHessian": AdaHessian(
        "e = lr/(1-β1^t) / ((v/(1-β2^t))^(k/2) + eps), on exp_avg; v of the Hessian's diagonal"
    ),
    "pytorch_optimizer.Adai": Adai("e = lr·β0^(1-κ) / (1 - Π β1_t), on exp_avg, whose β1_t is adaptive"),
    "pytorch_optimizer.AdaDelta": AdaDelta(),
    "pytorch_optimizer.AdaFactor": Factored(),
    "pytorch_optimizer.ScheduleFreeAdamW": ScheduleFree(),
    "pytorch_optimizer.ScheduleFreeSGD": ScheduleFreeSGD(),
    "schedulefree.AdamWScheduleFree": ScheduleFree(),
    "schedulefree.SGDScheduleFree": ScheduleFreeSGD(),
    "transformers.Adafactor": Factored(),
    "bitsandbytes.Optimizer2State": BitsAndBytes(),
    "torchao.Adam8bit": TorchAO(decoupled=False),
    "torchao.Adam4bit": TorchAO(decoupled=False),
    "torchao.AdamFp8": TorchAO(decoupled=False),
    "torchao.AdamW8bit": TorchAO(decoupled=True),
    "torchao.AdamW4bit": TorchAO(decoupled=True),
    "torchao.AdamWFp8": TorchAO(decoupled=True),
    "optimi.Adam": Debiased(),
    "optimi.AdamW": Debiased(decoupled=True),
    "optimi.StableAdamW": Stable(),
    "optimi.RAdam": UnbiasedRAdam(),
    "optimi.Adan": Adan(unbiased=True),
}

TRIED: dict[str, Callable[[], Trial]] = {
    f"{package}.FusedAdam": lambda: Trial([Fused(decoupled=True), Fused(decoupled=False)])
    for package in ("apex", "deepspeed")
}
"""Rules of which the self-check has to find the one that the optimizer follows, anew for each."""

WRAPPERS: dict[str, type[Scaled] | None] = {
    "stepscope.CProp": CProp,
    "stepscope.ClipUpdates": ClipUpdates,
    "stepscope.Demon": None,
}
"""Optimizers around another one, and how its reader is to be scaled; None where only the other one moves anything."""

_TRIALS: WeakKeyDictionary[torch.optim.Optimizer, Trial] = WeakKeyDictionary()
"""What has been found out about the optimizers of this process."""


def register_reader(optimizer: type[torch.optim.Optimizer] | str, reader: Reader) -> None:
    """Let an optimizer class, and its subclasses, be read by `reader` from now on.

    Args:
        optimizer: the class; or its package and name, "pytorch_optimizer.Yogi" say, so that it need not be imported.
        reader: an instance; it may serve many optimizers, so it keeps nothing of a run.

    Raises:
        ValueError: if `reader` is not an instance of a `Reader`, or `optimizer` neither a class nor a dotted name.
    """
    if not isinstance(reader, Reader):
        raise ValueError(f"`reader` must be an instance of a Reader, got {reader!r}; write register_reader(…, Mine()).")
    if not isinstance(optimizer, type) and "." not in str(optimizer):
        raise ValueError(f'`optimizer` must be a class or "package.Class", got {optimizer!r}.')
    REGISTERED[optimizer] = reader


def reader_of(optimizer: torch.optim.Optimizer) -> Reader | None:
    """Return the reader of an optimizer's class or its nearest ancestor; None where no stepsize is read."""
    optimizer = members(optimizer)[0]
    for ancestor in type(optimizer).__mro__:
        name = short_name(ancestor)
        for reader in (REGISTERED.get(ancestor), REGISTERED.get(name), READERS.get(ancestor), NAMED.get(name)):
            if reader is not None:
                return reader
        if name in WRAPPERS:
            return reader_around(optimizer, WRAPPERS[name])
        if name in TRIED:
            return _TRIALS.setdefault(optimizer, TRIED[name]())
        if name in WITHOUT:
            return None
    return _TRIALS.setdefault(optimizer, Trial())


def reader_around(wrapper: torch.optim.Optimizer, scaled: type[Scaled] | None) -> Reader | None:
    """Return the reader of a wrapper; a rule on trial proves itself on steps that nobody has scaled."""
    inner = reader_of(wrapper.optimizer)  # type: ignore[attr-defined]
    if scaled is None or inner is None:
        return inner
    return None if isinstance(inner, Trial) else scaled(inner)


def why_none(optimizer: torch.optim.Optimizer) -> str:
    """Return why an optimizer has no reader, as far as it is known."""
    optimizer = members(optimizer)[0]
    if short_name(type(optimizer)) in WRAPPERS:
        return why_none(optimizer.optimizer)  # type: ignore[attr-defined]
    reasons = (WITHOUT.get(short_name(ancestor)) for ancestor in type(optimizer).__mro__)
    return next((reason for reason in reasons if reason), "")


def short_name(kind: type) -> str:
    """Return the package and the name of a class; where in the package it stands changes with its versions."""
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"
