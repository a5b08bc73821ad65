"""The numbered examples: each runs as a user runs it, says what docs/examples.md shows, and writes what it names."""

import importlib
import json
import re
import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from stepscope import Trace
from stepscope.diagnostics import readers

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
PAGE = (ROOT / "docs" / "examples.md").read_text()
NUMBER = re.compile(r"[-+−]?\d[\d.]*(e[-+]?\d+)?")

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs an example in an empty folder and returns what it prints."""

    def run(name, *arguments):
        script = ROOT / "examples" / name
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        monkeypatch.setattr(readers, "REGISTERED", {})
        with torch.random.fork_rng():
            runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out

    return run


def excerpt(name):
    """Return the lines that the page shows of what an example prints."""
    section = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)[1]
    return re.findall(r"^    (.*)$", section, re.MULTILINE)


def bare(line):
    """Return a line without its numbers and the spaces that these move."""
    return " ".join(NUMBER.sub("#", line).split())


def as_shown(name, printed):
    """Hold the excerpt against what was printed, in order, but for the numbers."""
    lines = iter([bare(line) for line in printed.splitlines()])
    shown = excerpt(name)
    assert len(shown) >= 4
    for line in shown:
        assert bare(line) in lines, f"{name} does not print {line!r}, or not there"


def is_report(path):
    assert path.read_text().rstrip().endswith("</html>")


@pytest.mark.slow
def test_the_first_monitor(run, tmp_path):
    as_shown("01_first_monitor.py", run("01_first_monitor.py"))
    is_report(tmp_path / "runs" / "first_monitor.html")


@pytest.mark.slow
def test_digits(run, tmp_path):
    printed = run("02_digits.py")
    as_shown("02_digits.py", printed)
    assert float(re.search(r"epoch 60: .* accuracy ([\d.]+)%", printed)[1]) > 95
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert f"stepscope diagnose runs/{folder.name}" in printed
    trace = Trace.load(folder)
    assert str(trace.diagnose()) in printed
    assert set(trace.logged) == {"loss", "accuracy"}
    is_report(folder.with_suffix(".html"))


@pytest.mark.slow
def test_a_transformer(run, tmp_path):
    """The gradient of the keys' bias is rounding alone, so that its finding hangs on no seed."""
    printed = run("03_transformer.py", "--steps", 400)
    as_shown("03_transformer.py", printed)
    losses = [float(loss) for loss in re.findall(r"^step \d+: loss ([\d.]+)", printed, re.MULTILINE)]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert re.search(r"\d\. Dormant coordinates carry a\n.*?Tensors: .*self_attn\.in_proj_bias", printed, re.DOTALL)
    is_report(tmp_path / "runs" / "transformer.html")


@pytest.mark.slow
def test_an_optimizer_of_ones_own(run, tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        run("04_own_optimizer.py")
    printed = capsys.readouterr().out
    as_shown("04_own_optimizer.py", printed)
    assert "no elementwise stepsize" not in printed
    outcomes = dict(re.findall(r"^ (\w[\w =]*?) {2,}.* (solved|short|wrong|broken) ", printed, re.MULTILINE))
    cases = ElementTree.parse(tmp_path / "runs" / "peak.xml").getroot().iter("testcase")
    failed = {case.get("name") for case in cases if case.find("failure") is not None}
    assert failed == {problem for problem, outcome in outcomes.items() if outcome == "wrong"} > {"reddi online"}
    assert "`reddi online`" in (tmp_path / "runs" / "peak.md").read_text()


@pytest.mark.slow
def test_a_phase_diagram_on_processes(run, tmp_path):
    printed = run("05_phase_diagram.py")
    as_shown("05_phase_diagram.py", printed)
    assert sum(int(share) for share in re.findall(r"(\d+)% \w+$", printed, re.MULTILINE)) == pytest.approx(100, abs=1)
    assert (tmp_path / "runs" / "phase.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_phase_diagram_on_a_cluster_goes_on_where_it_was(run, tmp_path):
    from dask.distributed import LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**options, local_directory=tmp_path / "dask") as cluster:
        asked = ("--size", 2, "--scheduler", cluster.scheduler_address, "--resume", "rows.jsonl")
        first, second = run("05_phase_diagram.py", *asked), run("05_phase_diagram.py", *asked)
    assert "4 cells played" in first
    assert "0 cells played" in second
    assert len([json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]) == 1 + 4


@pytest.mark.slow
def test_a_remedy(run, tmp_path):
    printed = run("06_remedy.py")
    as_shown("06_remedy.py", printed)
    source = (ROOT / "examples" / "06_remedy.py").read_text()
    lines = re.search(r"line that makes\s+`optimizer`:\n +(.*)\n +(.*)\n", printed)
    assert all(f"    {line}\n" in source for line in lines.groups()), "the script has the two lines that it prints"
    before, after = (float(loss) for loss in re.findall(r"mean loss ([\d.]+)$", printed, re.MULTILINE))
    assert after < before - 0.01  # of the 0.03 that a remedy has taken away here; seeds differ by 0.005
    for name in ("before", "after"):
        is_report(tmp_path / "runs" / "remedy" / f"{name}.html")


@pytest.mark.slow
def test_a_comparison(run, tmp_path):
    printed = run("07_comparison.py")
    as_shown("07_comparison.py", printed)
    is_report(tmp_path / "runs" / "comparison.html")
    assert "not told apart" in (tmp_path / "runs" / "comparison.html").read_text()


@pytest.mark.slow
def test_the_figures_of_the_papers(tmp_path, monkeypatch, capsys):
    """Every figure, of runs that are as short as the windows that are drawn of them allow."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    papers = importlib.import_module("papers")
    monkeypatch.delitem(sys.modules, "papers")
    played, swept = papers.simulate, papers.phase_diagram

    def short(problem, method, total, *rest, **options):
        return played(problem, method, min(total, 20_200), *rest, **options)

    def coarse(*arguments, **options):
        return swept(*arguments, **options | {"size": (4, 4), "steps": 5000})

    monkeypatch.setattr(papers, "simulate", short)
    monkeypatch.setattr(papers, "phase_diagram", coarse)
    monkeypatch.setattr(sys, "argv", ["papers.py", str(tmp_path)])
    papers.main()
    drawn = capsys.readouterr().out.split()
    assert drawn == [str(tmp_path / f"{name}.png") for name in papers.FIGURES]
    assert all(Path(path).stat().st_size > 50_000 for path in drawn)


def test_every_example_is_short_explained_listed_and_run():
    own = Path(__file__).read_text()
    assert [script.name[:2] for script in SCRIPTS] == [f"{n:02}" for n in range(1, len(SCRIPTS) + 1)]
    assert len(SCRIPTS) >= 7
    for script in SCRIPTS:
        source = script.read_text()
        assert len(source.splitlines()) < 60, script.name
        assert source.startswith('"""'), script.name
        assert "?" in source.splitlines()[0], f"{script.name} says no question"
        assert f"    python examples/{script.name}" in source
        assert f'run("{script.name}"' in own, f"no test runs {script.name}"
        assert f"](../examples/{script.name})" in PAGE
        assert excerpt(script.name)
