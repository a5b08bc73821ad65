"""The commands about worlds whose answer is known: what they print, write and exit with."""

from __future__ import annotations

import json
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from stepscope.diagnostics.trace import Trace
from stepscope.reports import cli
from stepscope.reports.phases import FILLS, picture, ticks
from stepscope.synthetic import claims
from stepscope.synthetic.engine import schedule
from stepscope.synthetic.named import NAMED, named
from stepscope.synthetic.phase import Axis, Ending, phase_diagram

OWN = """
from stepscope.synthetic.arrivals import Cyclic
from stepscope.synthetic.problem import Problem
mine = Problem(["3*x", "-x"], Cyclic([0, 1, 1]), domain=(-1, 1), start=0)
def made():
    return mine
def asks(size):
    return mine
number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Work in a folder with a module of the user's own, and return its name."""
    name = f"worlds_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


def run(capsys, *arguments):
    """Return the exit code, what was printed as JSON, and stderr."""
    code = cli.main([*arguments, "--json"])
    printed = capsys.readouterr()
    return code, json.loads(printed.out) if printed.out else None, printed.err


# --- simulate --------------------------------------------------------------------------------------------------


def test_simulate_judges_and_keeps_the_run(tmp_path, capsys):
    folder = tmp_path / "run"
    command = ["simulate", "theorem1", "adam", "--steps", "1e4", "--betas", "0,0.1", "--output", str(folder)]
    code, found, _ = run(capsys, *command)
    assert code == 1
    assert found["diagnosis"]["verdict"] == "biased"
    assert found["x"][0][0] == pytest.approx(1.0, abs=0.05)
    assert found["distance"] == pytest.approx(1 + found["x"][0][0])
    kept = Trace.load(folder)
    assert kept.diagnose().to_dict() == found["diagnosis"]
    assert kept.steps[-1] == 10_000


def test_simulate_in_words_and_with_settings(capsys):
    assert cli.main(["simulate", "theorem1", "amsgrad", "eps=0", "--steps", "3000", "--lr", "0.3/sqrt(t)"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Verdict: ")
    assert "final x: -" in printed


def test_simulate_takes_a_problem_of_the_users_own(own, capsys):
    names = (f"{own}:mine", f"{own}:made", f"{own}.mine", f"{own}.py:mine")
    codes, found, _ = zip(
        *(run(capsys, "simulate", name, "sgd", "--steps", "50", "--start", "0.5") for name in names), strict=True
    )
    assert all(each["x"] == found[0]["x"] for each in found)
    assert set(codes) == {0}


# --- phase -----------------------------------------------------------------------------------------------------


def test_phase_draws_resumes_and_tells(tmp_path, capsys):
    drawn, kept = tmp_path / "pictures" / "phase.png", tmp_path / "cells.jsonl"
    command = ["phase", "theorem1", "--x", "beta1=0,0.5", "--y", "beta2=0,0.9", "--size", "3,4", "--steps", "2000"]
    command += ["-o", str(drawn), "--resume", str(kept)]
    code, found, _ = run(capsys, *command)
    assert code == 0  # cells that end wrong are what such a diagram is for
    assert found["shares"]["right"] > 0
    assert found["shares"]["wrong"] > 0
    assert np.array(found["distance"]).shape == (4, 3)
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "0 cells played" in printed
    assert f"picture: {drawn}" in printed


def test_the_picture_says_what_the_arrays_say(tmp_path):
    entry = named("theorem1")
    spans = ("beta1", 0.0, 0.5), ("beta2", 0.0, 0.9)
    diagram = phase_diagram(entry.build(), "adam", *spans, (3, 4), 500, entry.lr)
    data = picture(diagram)
    assert [[list(Ending)[k] for k in row] for row in data.endings] == diagram.ending.tolist()
    dashed, drift = data.lines
    assert diagram.y.back(dashed.y) == pytest.approx(diagram.x.back(dashed.x) ** 2)
    assert diagram.y.back(drift.y)[0] == pytest.approx(0.4723, abs=5e-5)
    assert len({*FILLS.values()}) == len(Ending)

    text = ElementTree.parse(diagram.draw(tmp_path / "phase.svg")).getroot()
    words = {"".join(node.itertext()).strip() for node in text.iter("{http://www.w3.org/2000/svg}text")}
    assert {"β1 = √β2", "theory: the drift changes sign", "How it ends", "0.5"} <= words
    assert any("500 steps" in word for word in words)


def test_a_diagram_of_one_kind_and_of_numbers_that_are_not_finite_is_drawn(tmp_path):
    from stepscope.reports.phases import save_picture
    from stepscope.synthetic.arrivals import Cyclic
    from stepscope.synthetic.problem import Problem

    climbs = Problem(["x**2"], Cyclic([0]), start=1)
    spans = ("lr", 10.0, 20.0), ("dampening", 0.0, 0.1)
    diagram = phase_diagram(climbs, "momentum", *spans, (1, 1), 1000, 1.0)
    assert diagram.ending[0, 0] is Ending.UNSTABLE
    assert save_picture(diagram, tmp_path / "one.png").exists()


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis("beta1", 0.0, 0.99), [0, 0.5, 0.9, 0.99]),
        (Axis("lr", 0.05, 20.0), [0.1, 1, 10]),
        (Axis("eps", 0.0, 1.0), [0, 0.25, 0.5, 0.75, 1]),
        (Axis("beta1", 0.91, 0.95), [0.91, 0.95]),
    ],
)
def test_ticks(axis, expected):
    assert ticks(axis) == pytest.approx(expected)


# --- suite and claims ------------------------------------------------------------------------------------------


def test_suite_takes_settings_and_warns_by_its_code(capsys):
    code, found, _ = run(capsys, "suite", "torch.optim.SGD", "momentum=0.5", "--steps", "40")
    assert found["optimizer"].endswith("SGD")
    assert code == found["exit_code"]
    assert max(row["steps"] for row in found["rows"]) == 40


def claim(predicted, observed):
    return claims.Claim("root", "a paper", "derived", predicted, 0.1, lambda: observed, "derived")


@pytest.mark.parametrize(("observed", "code"), [(1.05, 0), (2.0, 1)])
def test_claims_hold_or_warn(monkeypatch, capsys, observed, code):
    monkeypatch.setattr(claims, "claims", lambda paper: (claim(1.0, observed),))
    found = run(capsys, "claims", "--paper", "any2000")
    assert (found[0], len(found[1]), found[1][0]["agrees"]) == (code, 1, code == 0)
    assert cli.main(["claims"]) == code
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split() == ["holds", "predicted", "observed", "seconds", "claim"]
    assert printed.endswith(f"{1 - code} of 1 claims hold.\n")


# --- list ------------------------------------------------------------------------------------------------------


def test_list_of_problems_and_methods(capsys):
    _, found, _ = run(capsys, "list", "--problems", "--methods")
    assert set(found["problems"]) == set(NAMED)
    assert found["methods"]["adam"]["defaults"]["beta1"] == 0.9
    assert cli.main(["list", "--problems"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_every_named_problem_has_an_optimum_and_a_law(name):
    problem = NAMED[name].build()
    assert problem.optimum is not None
    assert problem.name
    assert (schedule(NAMED[name].lr, 1000)(np.array([1.0, 500.0])) > 0).all()


# --- bad input -------------------------------------------------------------------------------------------------

BAD = {
    "unknown problem": (["simulate", "onlne", "adam"], "choose from online"),
    "unknown module": (["simulate", "nowhere:mine", "adam"], "cannot be imported"),
    "unknown attribute": (["simulate", "OWN:nothing", "adam"], "has no 'nothing'"),
    "unknown attribute behind a dot": (["simulate", "OWN.nothing", "adam"], "has no 'nothing'"),
    "no class": (["suite", "OWN:mine"], "must be a class of torch optimizers, got Problem"),
    "no optimizer": (["suite"], "required: SPEC; see"),
    "unknown case": (["suite", "torch.optim.Adam", "--problem", "nope"], "choose from reddi theorem 1"),
    "a learning rate": (["suite", "torch.optim.Adam", "lr=0.1"], "`lr` is not among the settings"),
    "slow": (["claims", "--slow"], "unrecognized arguments: --slow"),
    "no problem": (["simulate", "OWN:number", "adam"], "got int"),
    "needs arguments": (["simulate", "OWN:asks", "adam"], "need no arguments"),
    "unknown method": (["simulate", "online", "adm"], "did you mean"),
    "unknown setting": (["simulate", "online", "adam", "epsilon=1"], "no hyper-parameter `epsilon`"),
    "no number": (["simulate", "online", "adam", "eps=small"], "NAME=NUMBER"),
    "one beta": (["simulate", "online", "adam", "--betas", "0.9"], "two numbers"),
    "no steps": (["simulate", "online", "adam", "--steps", "0"], "whole number from 1 up"),
    "bad law": (["simulate", "online", "adam", "--lr", "1/k"], "t and T alone"),
    "bad start": (["simulate", "online", "adam", "--start", "2"], "must lie in the domain"),
    "bad axis": (["phase", "online", "--x", "gamma=0,1"], "no hyper-parameter `gamma`"),
    "no range": (["phase", "online", "--x", "lr"], "NAME=LOW,HIGH"),
    "bad size": (["phase", "online", "--size", "1.5"], "whole numbers"),
    "bad picture": (["phase", "online", "-o", "phase.doc"], ".png or .svg for a picture"),
    "unknown optimizer": (["suite", "torch.optim.Adm"], "did you mean"),
    "bad optimizer setting": (["suite", "torch.optim.Adam", "beta=1"], "does not take beta=1"),
    "unknown paper": (["claims", "--paper", "nobody1999"], "`paper` must be one of"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(case, own, capsys):
    arguments, says = BAD[case]
    assert cli.main([part.replace("OWN", own) for part in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert len(printed.err.strip().splitlines()) == 1


def test_help_imports_nothing_heavy():
    code = "import sys; from stepscope.reports import cli; cli.main(['phase', '--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numba", "sympy", "matplotlib", "joblib"} & set(loaded)
