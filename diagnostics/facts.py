"""The facts of a run that do not change from step to step: names, hyper-parameters, versions; checked at the door."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .imagined import AS_IT_WAS, Imagined, imagined
from .parts import PART, part_of, parts_below
from .pieces import Share, bare, own_name, shares_out
from .reading import LINES, SQLITE
from .several import members
from .stepsizes import Reader
from .store import FORMAT, META
from .trace import COLUMNS


def stepping(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer that has the state: ZeroRedundancyOptimizer has hooks, but steps by one inside."""
    if not shares_out(optimizer):
        return optimizer
    inner: torch.optim.Optimizer = optimizer.optim  # type: ignore[attr-defined]
    return inner


SETTINGS = ("directory", "model", "coordinates", "seed", "what_if", "budget", "on_alert", "strict")


def check_settings(unknown: Iterable[str]) -> None:
    """Raise for a setting that a monitor does not have, with the one that it resembles."""
    for name in unknown:
        like = get_close_matches(name, SETTINGS, 1)
        hint = f"did you mean `{like[0]}`?" if like else f"it has {', '.join(SETTINGS)}."
        raise TypeError(f"a Monitor has no setting `{name}`; {hint}")


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raise for what cannot be watched at all."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"`optimizer` must be a torch.optim.Optimizer, got {type(optimizer).__name__}; "
            "pass the optimizer that a wrapper holds, or a list or dict of optimizers."
        )
    if not any(group["params"] for group in optimizer.param_groups):
        raise ValueError(
            "`optimizer` must have parameters to watch, got none; add them before the monitor, and of DeepSpeed's ZeRO "
            "pass what `deepspeed.initialize` returned."
        )


def class_name(optimizer: torch.optim.Optimizer) -> str:
    """Return the name of the class that takes the steps."""
    return type(members(optimizer)[0]).__name__


def run_directory(directory: object, share: Share, holds: bool) -> Path | None:
    """Return where this process keeps its record, if it is one that writes; `holds` says whether it has a tensor."""
    path = checked_path(directory)
    if path is None or not share.writes or (share.sharded and not holds):
        return None
    parts = parts_below(path, META)
    if share.sharded and (path / META).exists():
        raise ValueError(
            f"'{path}' holds the record of one process, expected one of several; choose another directory."
        )
    if parts and not share.sharded:
        raise ValueError(
            f"'{path}' holds the record of several processes, expected one of this alone; choose another directory."
        )
    path = part_of(path, share.rank) if share.sharded else path
    check_contents(path)
    return path


def checked_path(directory: object) -> Path | None:
    """Return the directory that the user gave."""
    if directory is None:
        return None
    if not isinstance(directory, (str, Path)):
        raise ValueError(
            f"`directory` must be a path, got {type(directory).__name__}; pass a model by name, as `model=`."
        )
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise ValueError(f"`directory` must be a directory, got the file '{path}'; choose another name.")
    return path


def check_contents(path: Path) -> None:
    """Raise if there are files in the directory that no record of ours is made of."""
    if path.exists() and not (path / META).exists():
        strange = sorted(entry.name for entry in path.iterdir() if not _may_stand_in_a_record(entry.name))
        if strange:
            raise ValueError(
                f"`directory` must be empty or hold a record, got '{path}' with {strange[0]!r} in it"
                f"{f' and {len(strange) - 1} more' if len(strange) > 1 else ''}; give the run a directory of its own, "
                f"'{path / 'steps'}' say."
            )


def _may_stand_in_a_record(name: str) -> bool:
    """Return whether a file without the metadata may be ours, of a process that died early, or is a hidden one."""
    return name.startswith((".", SQLITE, LINES)) or name in ("lock", "snapshots")


def check_model(optimizer: torch.optim.Optimizer, model: object) -> None:
    """Raise for a model that cannot name a single parameter of the optimizer."""
    if model is None:
        return
    if not isinstance(model, torch.nn.Module):
        raise ValueError(
            f"`model` must be the torch.nn.Module whose parameters are watched, got {type(model).__name__}; leave it "
            "out to name tensors by their place in the optimizer."
        )
    if getattr(optimizer, "pieces", None):  # flat partitions, which no model names
        return
    theirs = {id(param) for group in optimizer.param_groups for param in group["params"]}
    if not any(id(param) in theirs for param in model.parameters()):
        raise ValueError(
            f"`model` must hold parameters of the optimizer, got a {type(model).__name__} with none of them; pass the "
            "model that the optimizer was made for, or leave it out."
        )


def coordinate_limit(coordinates: int | str) -> int | None:
    """Return the most coordinates watched per tensor; None for all of them."""
    if coordinates == "all":
        return None
    if isinstance(coordinates, bool) or not isinstance(coordinates, int) or coordinates < 1:
        raise ValueError(f'`coordinates` must be a positive integer or "all", got {coordinates!r}.')
    return coordinates


def parameter_names(optimizer: torch.optim.Optimizer, model: torch.nn.Module | None) -> dict[int, str]:
    """Return names by `id` of the parameter: the model's, else the optimizer's, else the place in the groups."""
    named = bare(model).named_parameters() if model is not None else ()
    known = {id(param): own_name(name) for name, param in named}
    taken = set(known.values())
    for g, group in enumerate(optimizer.param_groups):
        given = group.get("param_names") or [f"group{g}.param{p}" for p in range(len(group["params"]))]
        for param, name in zip(group["params"], given, strict=True):
            if id(param) not in known:
                known[id(param)] = name if name not in taken else f"{name} (group {g})"
                taken.add(known[id(param)])
    return known


def imagined_rules(
    optimizer: torch.optim.Optimizer, reader: Reader | None, what_if: Sequence[str]
) -> tuple[Imagined, ...]:
    """Return the rules to imagine, with the run's own beta2 where a name gives none; the run itself comes first."""
    if isinstance(what_if, str):
        raise ValueError(f"`what_if` must be a sequence of rules, got the string {what_if!r}; write ({what_if!r},).")
    beta2 = reader.decays(optimizer.param_groups[0])[1] if reader else math.nan
    rules = tuple(imagined(name, beta2) for name in what_if)
    return (AS_IT_WAS, *rules) if rules and reader else ()


def describe(
    optimizer: torch.optim.Optimizer,
    coordinates: int | str,
    seed: int,
    rules: Sequence[Imagined],
    budget: float | None = None,
    part: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the metadata of a new run, ready for JSON; `part` says which part it is of one of several processes."""
    kind = type(members(optimizer)[0])
    return {
        **({PART: part} if part else {}),
        **({"budget": budget} if budget else {}),
        "format": FORMAT,
        "optimizer": f"{kind.__module__}.{kind.__qualname__}",
        "hyperparameters": [hyperparameters(group) for group in optimizer.param_groups],
        "coordinates": coordinates,
        "seed": seed,
        "what_if": [rule.name for rule in rules],
        "columns": list(COLUMNS),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "stepscope": installed_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def installed_version() -> str:
    """Return stepscope's version; "unknown" when it runs from a bare checkout."""
    try:
        return version("stepscope")
    except PackageNotFoundError:
        return "unknown"


def hyperparameters(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parameter group's settings as JSON values."""
    return {key: plain(value) for key, value in group.items() if key not in ("params", "param_names")}


def plain(value: object) -> Any:
    """Return a setting as a JSON value; what has no plain form is spelled out."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def schedules(groups: Sequence[Mapping[str, Any]], reader: Reader | None, lr: list[Any]) -> dict[str, list[float]]:
    """Return what may change from step to step, one number per group: learning rate, as `rates`, and decay rates."""
    decays = [reader.decays(group) if reader else (math.nan, math.nan) for group in groups]
    return {
        "lr": [number(rate) for rate in lr],
        "beta1": [beta1 for beta1, _ in decays],
        "beta2": [beta2 for _, beta2 in decays],
        "weight_decay": [number(group.get("weight_decay", 0.0)) for group in groups],
    }


def rates(groups: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the groups' learning rates as they are now: a scheduler that holds a tensor changes it in place."""
    now = [group.get("lr") for group in groups]
    return [rate.detach().clone() if isinstance(rate, torch.Tensor) else rate for rate in now]


def number(setting: Any) -> float:
    """Return a setting as a float, NaN where it is none."""
    try:
        return float(setting)
    except (TypeError, ValueError):
        return math.nan
