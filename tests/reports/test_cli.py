"""The command line: exit codes, one sentence for bad input, JSON, and nothing heavy before it is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stepscope.reports import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runs(make, tmp_path):
    """Return a folder with a run of each kind: fine, biased, cut short."""
    make().save(tmp_path / "runs" / "fine")
    make(rho=-3.0).save(tmp_path / "runs" / "uphill")
    make(last=50).save(tmp_path / "runs" / "deep" / "short")
    return tmp_path / "runs"


def test_diagnose_prints_the_diagnosis_and_the_table(runs, capsys):
    assert cli.main(["diagnose", str(runs / "fine")]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Verdict: uncertified\n")
    assert "layer2.weight" in printed.out
    assert printed.err == ""


def test_diagnose_as_json_is_the_diagnosis(runs, capsys):
    assert cli.main(["diagnose", str(runs / "uphill"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["verdict"], found["harm"]["decision"]) == (1, "biased", "harmful")


def test_report_writes_a_page_over_all_runs_and_warns_by_its_code(runs, capsys, tmp_path):
    target = tmp_path / "out.html"
    assert cli.main(["report", str(runs / "fine"), "-o", str(target)]) == 0
    assert cli.main(["report", str(runs / "fine"), str(runs / "uphill"), "-o", str(target)]) == 1
    assert "2 runs compared" in target.read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith(f"report: {target}")
    assert "biased" in printed
    assert "\x1b" not in printed  # no colours outside a terminal


@pytest.mark.parametrize("content", [b"<!doctype html>\n<title>stepscope</title-of-mine>", b"\xff\x00\n"])
def test_report_replaces_no_file_of_others(runs, capsys, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path("report.html").write_bytes(content)
    assert cli.main(["report", str(runs / "fine")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("stepscope: expected an earlier report or nothing at 'report.html', got a file that")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert Path("report.html").read_bytes() == content
    Path("report.html").write_bytes(b"")
    assert cli.main(["report", str(runs / "fine")]) == 0


@pytest.mark.parametrize("ending", [".html", pytest.param(".pdf", marks=pytest.mark.slow)])
def test_a_report_asks_for_no_torch(tmp_path, make, ending):
    make().save(tmp_path / "run")
    code = (
        "import sys; from stepscope.reports.cli import main; "
        f"main(['report', {str(tmp_path / 'run')!r}, '-o', {str(tmp_path / ('x' + ending))!r}]); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_report_as_json(runs, capsys, tmp_path):
    target = tmp_path / "out.html"
    assert cli.main(["report", str(runs / "uphill"), "-o", str(target), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == str(target)
    assert found["runs"][0]["harm"]["rho"] == pytest.approx(-3.0, abs=0.05)


def test_runs_of_one_name_are_told_apart_by_their_path(make, tmp_path, capsys):
    for folder in ("first", "second"):
        make(records=30).save(tmp_path / folder / "run")
    paths = [str(tmp_path / folder / "run") for folder in ("first", "second")]
    cli.main(["report", *paths, "-o", str(tmp_path / "out.html"), "--json"])
    assert [line["run"] for line in json.loads(capsys.readouterr().out)["runs"]] == paths


def test_list_names_every_run_below_and_keeps_zero(runs, capsys):
    (runs / "other").mkdir()
    (runs / "other" / "meta.json").write_text('{"of": "another tool"}')
    (runs / ".hidden").mkdir()
    assert cli.main(["list", str(runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["run", "deep/short", "fine", "uphill"]
    assert [line.split()[-1] for line in lines[1:]] == ["inconclusive", "uncertified", "biased"]


@pytest.mark.parametrize("width", [50, 80, 200])
def test_names_stay_whole_in_a_narrow_terminal(make, tmp_path, capsys, monkeypatch, width):
    names = {"digits-adam-constant": -3.0, "game": 1.0, "a-rather-long-name-of-a-run-of-mine"[: width // 2]: 1.0}
    for name, rho in names.items():
        make(rho=rho).save(tmp_path / name)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert cli.main(["list", str(tmp_path)]) == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    first = [line.split()[0] for line in plain.splitlines() if line.strip() and not line.startswith(" ")]
    assert [word for word in first if word != "run"] == sorted(names)
    assert re.findall(r"\b(biased|uncertified)\b", plain) == ["uncertified", "biased", "uncertified"]


def test_list_goes_on_after_a_damaged_run(runs, capsys):
    (runs / "fine" / "trace.sqlite").write_bytes(b"not a database" * 100)
    assert cli.main(["list", str(runs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["run"] for entry in found] == ["deep/short", "uphill", "fine"]
    assert "trace.sqlite" in found[-1]["error"]
    assert cli.main(["list", str(runs)]) == 0
    assert capsys.readouterr().err.count("\n") == 1


def test_list_of_a_folder_without_runs(tmp_path, capsys):
    assert cli.main(["list", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs below '{tmp_path}'\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["diagnose", "{tmp}/nowhere"], "no run at"),
        (["report", "{tmp}/nowhere"], "no run at"),
        (["report", "{tmp}/runs/fine", "{tmp}/nowhere", "-o", "{tmp}/x.html"], "nowhere"),
        (["diagnose", "{tmp}/runs"], "runs' holds runs, expected one of them; see them by `stepscope list "),
        (["diagnose", "{tmp}/damaged"], "trace.sqlite"),
        (["diagnose", "{tmp}/foreign"], "meta.json"),
        (["report", "{tmp}/runs/fine", "-o", "{tmp}"], "a report is a file, got the directory"),
        (["report", "{tmp}/runs/fine", "-o", "{tmp}/foreign/meta.json/x.html"], "choose another path"),
        (["list", "{tmp}/nowhere"], "no directory at"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["diagnose"], "RUN"),
        (["diagnose", "a", "--nonsense"], "--nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence(runs, tmp_path, capsys, arguments, says):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "meta.json").write_text('{"format": 1}')
    (tmp_path / "damaged" / "trace.sqlite").write_bytes(b"\0" * 5000)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "meta.json").write_text("[1, 2]")
    assert cli.main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("stepscope")
    assert not (tmp_path / "x.html").exists()


def test_a_fault_of_our_own_is_not_blamed_on_the_input(runs, monkeypatch):
    def broken(*_):
        raise ValueError("operands could not be broadcast")

    monkeypatch.setattr("stepscope.diagnostics.trace.Trace.diagnose", broken)
    with pytest.raises(ValueError, match="broadcast"):
        cli.main(["diagnose", str(runs / "fine")])


def test_demo_is_called_with_its_folder(monkeypatch):
    called = []
    monkeypatch.setattr("stepscope.reports.demo.demo", lambda *arguments: called.append(arguments) or 0)
    assert cli.main(["demo", "-o", "here", "--quick"]) == 0
    assert cli.main(["demo"]) == 0
    assert called == [(Path("here"), Path("here/report.html"), True), (Path("demo"), Path("demo/report.html"), False)]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["report", "--help"]], ids=str)
def test_help_is_printed(arguments, capsys):
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith("usage: stepscope")


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("stepscope")


def test_help_and_list_import_nothing_heavy(runs):
    script = (
        "import sys; from stepscope.reports.cli import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'matplotlib', 'jinja2', 'scipy', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    for arguments, loaded in ((["--help"], "[]"), (["list", str(runs / "deep")], "['numpy', 'scipy']")):
        run = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stderr.strip() == loaded


def test_a_reader_that_closes_the_pipe_is_no_error(runs):
    program = "import sys; from stepscope.reports.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", program, "diagnose", str(runs / "fine")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
