"""`stepscope compare`: its table, its JSON, its exit code, and seeds that lie in one folder."""

from __future__ import annotations

import json

import pytest

from stepscope.reports import cli
from stepscope.reports.compare import names_of


@pytest.fixture
def runs(make, tmp_path):
    make().save(tmp_path / "fine")
    make().save(tmp_path / "again")
    make(rho=-3.0).save(tmp_path / "uphill")
    for seed in ("1", "2"):
        make(c_plus=0.0).save(tmp_path / "seeds" / seed)
    return tmp_path


def test_the_table_is_printed(runs, capsys):
    assert cli.main(["compare", str(runs / "fine"), str(runs / "uphill")]) == cli.ALARM
    printed = capsys.readouterr()
    assert printed.out.startswith("Verdicts\n")
    assert "uphill against fine" in printed.out
    assert printed.err == ""


def test_identical_runs_are_the_same(runs, capsys):
    assert cli.main(["compare", str(runs / "fine"), str(runs / "again"), "--json"]) == cli.FINE
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is True
    assert [setting["name"] for setting in found["settings"]] == ["fine", "again"]


def test_a_folder_of_runs_is_one_setting(runs, capsys):
    assert cli.main(["compare", str(runs / "fine"), str(runs / "seeds"), "--json"]) == cli.FINE
    found = json.loads(capsys.readouterr().out)
    assert [[run["name"] for run in setting["runs"]] for setting in found["settings"]] == [
        ["fine"],
        ["seeds 1", "seeds 2"],
    ]


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["fine"], "needs two runs or more"),
        (["fine", "nowhere"], "no run at"),
        ([], "RUN"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(runs, capsys, paths, says):
    assert cli.main(["compare", *(str(runs / path) for path in paths)]) == cli.BAD_INPUT
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert printed.err.count("\n") == 1


def test_names_tell_runs_apart(tmp_path):
    a, b = tmp_path / "x" / "run", tmp_path / "y" / "run"
    assert names_of([a, tmp_path / "other"]) == ["run", "other"]
    assert names_of([a, b]) == [str(a), str(b)]
    assert names_of([a, a]) == [f"{a} (1)", f"{a} (2)"]
