"""Problems by name, for the command line: published counterexamples, or one of the user's own as `module:attribute`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .cases import PROBLEMS
from .problem import Problem
from .spec import module_named, parted


@dataclass(frozen=True)
class Named:
    """A problem and the learning rate that goes with it."""

    build: Callable[[], Problem]
    lr: str
    about: str


def _paper(module: str, function: str) -> Callable[[], Problem]:
    """Return the builder of a paper's problem, from the module of that paper."""

    def build() -> Problem:
        problem: Problem = getattr(importlib.import_module(f".{module}", __package__), function)()
        problem.name = problem.name or f"{module} {function}"
        return problem

    return build


def _case(name: str) -> Callable[[], Problem]:
    """Return the builder of a case of the suite, its problem named."""

    def build() -> Problem:
        problem = next(case for case in PROBLEMS if case.name == name).build()
        problem.name = problem.name or name
        return problem

    return build


REDDI, CHEN = "Reddi, Kale, Kumar, ICLR 2018", "Chen, Liu, Sun, Hong, ICLR 2019"
ADOPT = "Taniguchi et al. 2024 (ADOPT)"
NAMED: Mapping[str, Named] = {
    "online": Named(
        _paper("reddi2018", "online"), "0.5/sqrt(t)", f"{REDDI}, section 5: 1010x once in 101 steps, else −10x"
    ),
    "stochastic": Named(
        _paper("reddi2018", "stochastic"), "0.5/sqrt(t)", f"{REDDI}, section 5: 1010x with probability 0.01, else −10x"
    ),
    "theorem1": Named(_paper("reddi2018", "theorem1"), "0.5/sqrt(t)", f"{REDDI}, theorem 1: 3x, −x, −x"),
    "chen1": Named(_case("chen figure 1"), "0.01", f"{CHEN}, figure 1: a quadratic that Adam cycles around"),
    "chen2": Named(_case("chen figure 2"), "1/sqrt(t)", f"{CHEN}, figure 2: eleven functions, one against ten"),
    "adopt10": Named(_case("adopt k=10"), "0.01/sqrt(1 + 0.01*t)", f"{ADOPT}: 10x once in 10 draws, else −x"),
    "adopt50": Named(_case("adopt k=50"), "0.1/sqrt(1 + 0.01*t)", f"{ADOPT}: 50x once in 50 draws, else −x"),
    "zhang10": Named(_case("zhang n=10"), "0.1/sqrt(ceiling(t/10))", "Zhang et al. 2022: a finite sum, reshuffled"),
    "shi": Named(_case("shi a=0"), "0.1/sqrt(ceiling(t/10))", "Shi et al. 2021: ten quadratics with one optimum"),
    "savarese": Named(_case("savarese"), "0.1/sqrt(t)", "Savarese et al. 2021 (AvaGrad): 999x²/2 against −x"),
    "noisy": Named(_case("noisy quadratic"), "0.1/sqrt(t)", "x²/2 with Gaussian noise"),
    "sparse": Named(_case("sparse gradients"), "0.5/sqrt(t)", "five quadratics, each rarely seen"),
    "plane": Named(_case("quadratic in two variables"), "0.5/sqrt(t)", "a quadratic with condition number 10"),
}


def named(name: str) -> Named:
    """Return the problem of a name; `module:attribute` is a Problem, or a function without arguments that makes one.

    A dot in place of the colon does as well. Modules are looked for in the working directory too.

    Raises:
        ValueError: for an unknown name, or a module or attribute that is not there or is no Problem.
    """
    if name in NAMED:
        return NAMED[name]
    module, attribute = parted(name)
    if not (module and attribute):
        close = difflib.get_close_matches(name, NAMED, n=2) or list(NAMED)
        raise ValueError(
            f"the problem must be a known name or module:attribute, got {name!r}; choose from {', '.join(close)}."
        )
    found = _attribute(module, attribute)
    if callable(found) and not isinstance(found, Problem):
        try:
            found = found()
        except TypeError as fault:
            raise ValueError(f"{name!r} must be a Problem or need no arguments: {fault}.") from fault
    if not isinstance(found, Problem):
        raise ValueError(f"{name!r} must be a Problem, or a function that makes one, got {type(found).__name__}.")
    problem = found
    problem.name = problem.name or name
    return Named(lambda: problem, "1/sqrt(t)", name)


def _attribute(module: str, attribute: str) -> object:
    found: object = module_named(module)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"module {module!r} has no {attribute!r}; check its spelling.")
        found = getattr(found, part)
    return found
