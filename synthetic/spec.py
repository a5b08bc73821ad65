"""An optimizer by its dotted name and `key=value` settings, as a command line gives them."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import torch

from .traits import MakeOptimizer


def optimizer_from_spec(name: str, settings: Sequence[str] = ()) -> MakeOptimizer:
    """Return a factory for the optimizer class with this dotted name and these `key=value` settings.

    Values are Python literals; commas make a tuple, true and false may be lower case, and what is no literal is a
    string: `optimizer_from_spec("torch.optim.Adam", ["betas=0.9,0.99", "amsgrad=true"])`.

    Raises:
        ValueError: for a name that cannot be imported or is no optimizer, or settings that it does not take.
    """
    kind = _imported(name)
    options: dict[str, object] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (equals and key.isidentifier() and text):
            raise ValueError(f"a setting must read key=value, got {setting!r}; write betas=0.9,0.99, say.")
        options[key] = _literal(text)

    def factory(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return kind(parameters, **options)

    try:
        factory([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))])
    except Exception as fault:
        raise ValueError(f"{name} does not take {' '.join(settings) or 'no settings'}: {fault}.") from fault
    return factory


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


def _imported(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Return the class of a dotted name; modules are looked for in the working directory as well."""
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        raise ValueError(f"the optimizer must be a dotted name like torch.optim.Adam, got {name!r}.")
    module = module_named(module_name)
    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        what = f"{type(found).__name__}" if hasattr(module, attribute) else "nothing"
        close = difflib.get_close_matches(attribute, _optimizers(vars(module)), n=3)
        hint = f"; did you mean {one_of([f'{module_name}.{match}' for match in close])}?" if close else "."
        raise ValueError(f"{name!r} must be a class of torch optimizers, got {what}{hint}")
    return found


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


def one_of(names: Sequence[str]) -> str:
    """Return names as a sentence offers them: "a, b or c"."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
