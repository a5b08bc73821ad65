"""A method of the user's own, tried in plain Python before it is compiled.

Machine code writes where an index says, also beyond an array: what numpy refuses in plain Python would there be numbers
of somebody else. A few steps at small arrays of the same shapes show it, and whether a rule's step is what its stepsize
and its momentum say.
"""

from __future__ import annotations

import builtins
import dis
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numba.core.errors import NumbaError
from numpy.typing import NDArray

from .methods import TABLE, Method

Array = NDArray[np.float64]

STEPS = 32
"""Steps of the trial; a window of past gradients is full before."""
EXACT = 1e-9
FRAMES = ("Failed in", "During", "File", "- ", ">>>")
"""How lines of numba begin that say where, not what."""
KNOWN = {entry.rule for entry in TABLE}
"""Rules of this package, which its tests hold."""


def try_out(method: Method, p: Array, dim: int) -> None:
    """Raise where a rule uses what is not there, or takes another step than its e, its s and its `direction` say.

    Args:
        method: those of `METHODS` are taken as they are.
        p: its hyper-parameters.
        dim: variables of the problem.

    Raises:
        ValueError: in one sentence.
    """
    if method.rule in KNOWN:
        return
    _refuse_unknown_names(method)
    rows = method.rows(p)
    if method.direction == "m" and rows < 1:
        raise ValueError(
            f"method {method.name!r} says that e multiplies the momentum in s[0], but keeps no state; "
            'give `direction="g"` if e multiplies the gradient, "other" if neither.'
        )
    rng = np.random.default_rng(0)
    s, e, dx, p = np.zeros((rows, dim)), np.zeros(dim), np.zeros(dim), p.copy()
    for t in range(1, STEPS + 1):
        g, alpha = rng.standard_normal(dim), 0.1 / t**0.5
        try:
            with np.errstate(all="ignore"):
                method.rule(t, alpha, g.copy(), s, p, e, dx)
        except ArithmeticError:  # 1/0, which is infinite in machine code
            return
        except IndexError as fault:
            raise ValueError(
                f"the rule of method {method.name!r} reaches beyond an array: {fault}; g, e and dx have the size {dim} "
                f"here, p has {len(p)} (its `defaults`), and s has {rows} rows (its `state`)."
            ) from fault
        except Exception as fault:
            raise ValueError(
                f"the rule of method {method.name!r} fails at step {t}: {type(fault).__name__}: {fault}."
            ) from fault
        _compare(method, t, e, dx, s[0] if method.direction == "m" else g)


def _compare(method: Method, t: int, e: Array, dx: Array, along: Array) -> None:
    """Raise where dx is not -e times what `direction` says."""
    if method.direction == "other":
        return
    with np.errstate(all="ignore"):
        step = -e * along
        off = np.flatnonzero(~np.isclose(dx, step, rtol=EXACT, atol=1e-300) & np.isfinite(dx) & np.isfinite(step))
    if len(off):
        i, what = off[0], "s[0]" if method.direction == "m" else "g"
        raise ValueError(
            f"method {method.name!r} says that dx = -e·{what} (`direction` {method.direction!r}), but step {t} wrote "
            f'dx = {dx[i]:g} beside -e·{what} = {step[i]:g}; mend e or dx, or give `direction="other"` where no '
            "stepsize of each coordinate makes the step."
        )


def _refuse_unknown_names(method: Method) -> None:
    """Raise for a name in the rule that its module does not have."""
    used = {i.argval for i in dis.get_instructions(method.rule) if i.opname == "LOAD_GLOBAL"}
    unknown = sorted(used - set(method.rule.__globals__) - set(vars(builtins)))
    if unknown:
        raise ValueError(f"the rule of method {method.name!r} uses {unknown[0]!r}, which its file does not define.")


@contextmanager
def compiling(method: Method) -> Iterator[None]:
    """Say in one sentence what numba says of a rule in many lines."""
    try:
        yield
    except NumbaError as fault:
        lines = (line.strip() for line in str(fault).splitlines())
        told = next((line for line in lines if line and not line.startswith(FRAMES)), type(fault).__name__)
        raise ValueError(
            f"the rule of method {method.name!r} cannot be compiled: {told.rstrip('.:')}; write it as plain loops over "
            "numbers and arrays."
        ) from fault
