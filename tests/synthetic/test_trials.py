"""Methods of a user's own: what would write beyond an array, or says one step and takes another, is told before."""

import importlib
import sys

import numpy as np
import pytest

from stepscope.synthetic import Cyclic, Problem
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.methods import METHODS, Method, parameters
from stepscope.synthetic.phase import phase_diagram
from stepscope.synthetic.trials import KNOWN, compiling, try_out

RULES = """
import numpy as np

def signs(t, alpha, g, s, p, e, dx):
    for i in range(g.size):
        e[i] = 0.0 if g[i] == 0.0 else alpha * p[0] / abs(g[i])
        dx[i] = -alpha * p[0] * np.sign(g[i])

def rowless(t, alpha, g, s, p, e, dx):
    for i in range(g.size):
        s[0, i] += g[i]
        e[i] = alpha
        dx[i] = -alpha * g[i]

def neighbour(t, alpha, g, s, p, e, dx):
    e[0], dx[0] = alpha, -alpha * g[1]

def nameless(t, alpha, g, s, p, e, dx):
    for i in range(g.size):
        e[i] = alpha
        dx[i] = -alpha * g[i]
        if t > 1000:
            e[i] = elsewhere * alpha

def double(t, alpha, g, s, p, e, dx):
    for i in range(g.size):
        e[i] = alpha
        dx[i] = -2 * alpha * g[i]

def averaged(t, alpha, g, s, p, e, dx):
    for i in range(g.size):
        s[0, i] = 0.9 * s[0, i] + 0.1 * g[i]
        e[i] = alpha
        dx[i] = -alpha * s[0, i]

def late(t, alpha, g, s, p, e, dx):
    for i in range(g.size):
        e[i] = alpha
        dx[i] = -alpha * g[i] if t < 20 else alpha * g[i]

def python_only(t, alpha, g, s, p, e, dx):
    for i in range(g.size):
        e[i] = alpha * len(g.tolist()) / g.size
        dx[i] = -e[i] * g[i]

def short(t, alpha, g):
    pass

def divides(t, alpha, g, s, p, e, dx):
    for i in range(g.size):
        e[i] = alpha * min(1.0 / float(t - 1), 1.0)
        dx[i] = -e[i] * g[i]
"""
GAME = Problem(["3*x", "-x"], Cyclic([0, 1, 1]), domain=(-1, 1), start=0)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Return a function that makes a method of a rule above, in a module of its own."""
    name = f"rules_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(RULES)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(name)

    def make(rule, defaults=None, state=0, direction="g"):
        return Method(rule, getattr(module, rule), defaults or {}, state, "mine", "e", direction=direction)

    yield make
    sys.modules.pop(name, None)


REFUSED = {
    "no parameter": (("signs",), "'signs' reaches beyond an array: .*p has 0"),
    "no state": (("rowless",), "'rowless' reaches beyond an array: .*s has 0 rows"),
    "too few rows": (("rowless", None, lambda hyper: 0), "s has 0 rows"),
    "a second variable": (("neighbour",), "'neighbour' reaches beyond an array: .*size 1 here"),
    "an unknown name": (("nameless",), "'nameless' uses 'elsewhere', which its file does not define"),
    "twice the step": (("double",), r"'double' says that dx = -e·g .*step 1 wrote .*direction=\"other\""),
    "a step that turns": (("late",), "step 20 wrote"),
    "no momentum": (("averaged", None, 1), "'averaged' says that dx = -e·g"),
    "a momentum without state": (("double", None, 0, "m"), "keeps no state"),
    "too few arguments": (("short",), "'short' fails at step 1: TypeError"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_go_wrong_in_machine_code_is_refused_in_one_sentence(case, made):
    arguments, says = REFUSED[case]
    method = made(*arguments)
    with pytest.raises(ValueError, match=says) as told:
        simulate(GAME, method, steps=10)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "arguments",
    [("signs", {"scale": 0.5}), ("averaged", None, 1, "m"), ("double", None, 0, "other"), ("divides",)],
)
def test_what_is_as_it_says_is_tried_and_played(arguments, made):
    method = made(*arguments)
    assert np.isfinite(simulate(GAME, method, steps=50).x).all()


def test_a_cell_of_a_phase_diagram_is_tried_with_its_own_number_of_rows(made):
    method = made("rowless", {"rows": 1.0}, lambda hyper: int(hyper["rows"]), "other")
    with pytest.raises(ValueError, match="s has 0 rows"):
        phase_diagram(GAME, method, ("rows", 0.0, 0.5), ("lr", 0.5, 1.0), (1, 1), 10)


def test_what_numba_cannot_compile_is_one_sentence(made):
    with pytest.raises(ValueError, match=r"'python_only' cannot be compiled: .*tolist.*plain loops") as told:
        simulate(GAME, made("python_only"), steps=10)
    assert "\n" not in str(told.value)
    with pytest.raises(ZeroDivisionError), compiling(METHODS["sgd"]):
        raise ZeroDivisionError


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_ours_would_pass_the_trial(name, monkeypatch):
    monkeypatch.setattr("stepscope.synthetic.trials.KNOWN", set())
    assert METHODS[name].rule in KNOWN
    for dim in (1, 3):
        try_out(METHODS[name], parameters(METHODS[name]), dim)


def test_a_direction_or_rule_that_is_none():
    with pytest.raises(ValueError, match="`direction` must be one of 'm', 'g', 'other', got 'zz'"):
        Method("mine", METHODS["sgd"].rule, {}, 0, "here", "e = α", direction="zz")
    with pytest.raises(ValueError, match="`rule` must be a function"):
        Method("mine", "sgd", {}, 0, "here", "e = α", direction="g")
