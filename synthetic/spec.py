"""What a command line names: an attribute of a module, and an optimizer with `key=value` settings."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import ModuleType

import torch

from ..diagnostics.finding import listed
from .traits import MakeOptimizer

PLACEHOLDER = 1e-3
"""Given to a class that cannot be built without lr; the suite sets every step's own."""
SHOWN = 8
"""So many names at most are offered where none is close."""


def optimizer_from_spec(name: str, settings: Sequence[str] = ()) -> MakeOptimizer:
    """Return a factory for the optimizer class with this name and these `key=value` settings.

    The name is module.Class or module:Class. Values are Python literals; commas make a tuple, true and false may be
    lower case, and what is no literal is a string: `optimizer_from_spec("torch.optim.Adam", ["betas=0.9,0.99"])`.

    Raises:
        ValueError: for a name that cannot be imported or is no optimizer, settings that it does not take, or lr.
    """
    kind = _imported(name)
    taken = inspect.signature(kind).parameters
    options: dict[str, object] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (equals and key.isidentifier() and text):
            raise ValueError(f"a setting must read key=value, got {setting!r}; write betas=0.9,0.99, say.")
        if key == "lr":
            raise ValueError(
                f"`lr` is not among the settings, got {setting!r}: each problem has a learning rate of its own; leave "
                "it out, or multiply those by `run_suite(..., lr=2.0)`."
            )
        options[key] = _literal(text)
        _check(name, taken, setting, options[key])
    if "lr" in taken and taken["lr"].default is inspect.Parameter.empty:
        options["lr"] = PLACEHOLDER

    def factory(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return kind(parameters, **options)

    try:
        factory([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))])
    except Exception as fault:
        reason = " ".join(str(fault).split()).rstrip(".")
        raise ValueError(f"{name} does not take {' '.join(settings) or 'no settings'}: {reason}.") from fault
    return factory


def _check(name: str, taken: Mapping[str, inspect.Parameter], setting: str, value: object) -> None:
    """Raise for a setting that the class does not have, or that is of another kind than its default."""
    key = setting.partition("=")[0]
    if key not in taken:
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values()):
            return
        close = difflib.get_close_matches(key, taken, n=2)
        hint = f"; did you mean {listed(close, 'or')}?" if close else "."
        raise ValueError(f"{name} does not take {setting}: it has no setting of this name{hint}")
    default = taken[key].default
    if isinstance(default, tuple) and all(map(_number, default)):
        if not (isinstance(value, tuple) and len(value) == len(default) and all(map(_number, value))):
            usual = ",".join(f"{entry:g}" for entry in default)
            raise ValueError(f"`{key}` must be {len(default)} numbers between commas, {usual} say, got {setting!r}.")
    elif isinstance(default, bool):
        if not isinstance(value, bool | int | None):
            raise ValueError(f"`{key}` must be true or false, got {setting!r}.")
    elif _number(default) and not _number(value):
        raise ValueError(f"`{key}` must be a number, {default:g} say, got {setting!r}.")


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def module_named(name: str) -> ModuleType:
    """Return a module, which may lie in the working directory.

    Raises:
        ValueError: for one that cannot be imported, whatever the reason.
    """
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as fault:  # the module's own errors are the user's to see, in a sentence
        raise ValueError(f"module {name!r} cannot be imported: {type(fault).__name__}: {fault}.") from fault
    finally:
        sys.path.remove(here)


def parted(name: str) -> tuple[str, str]:
    """Return module and attribute of "module:attribute" or "module.attribute"; empty where one is missing.

    The `.py` of a file's name before the colon is dropped.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        module, _, attribute = name.rpartition(".")
    return module.removesuffix(".py"), attribute


def _imported(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Return the class of a name; modules are looked for in the working directory as well."""
    module_name, attribute = parted(name)
    if not (module_name and attribute):
        raise ValueError(f"the optimizer must be a dotted name like torch.optim.Adam, got {name!r}.")
    module = module_named(module_name)
    found = getattr(module, attribute, None)
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
        return found
    known = _optimizers(vars(module))
    close = difflib.get_close_matches(attribute, known, n=3) or (known if len(known) <= SHOWN else [])
    hint = f"; did you mean {listed([f'{module_name}.{match}' for match in close], 'or')}?" if close else "."
    if hasattr(module, attribute):
        raise ValueError(f"{name!r} must be a class of torch optimizers, got {type(found).__name__}{hint}")
    raise ValueError(f"module {module_name!r} has no {attribute!r}{hint}")


def _optimizers(names: Mapping[str, object]) -> list[str]:
    kinds = torch.optim.Optimizer
    return [name for name, value in names.items() if isinstance(value, type) and issubclass(value, kinds)]


def _literal(text: str) -> object:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if "," in text:
            return tuple(_literal(part.strip()) for part in text.split(",") if part.strip())
        return text
    return value
