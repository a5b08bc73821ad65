"""The site: it builds without a warning, no link of it is dead, and it asks for no network."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"


def part(name):
    """Return a module of the site's builder."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", SITE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_site_builds_strictly_and_has_a_page_for_every_document(tmp_path):
    pytest.importorskip("sphinx", reason="`make docs` installs it")
    built = subprocess.run([sys.executable, SITE / "build.py", tmp_path], capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    assert list(part("check").faults(tmp_path)) == []
    for document in (ROOT / "docs").glob("*.md"):
        assert (tmp_path / f"{document.stem}.html").exists(), document.name
    verdicts = (tmp_path / "reference" / "findings.html").read_text()
    assert "Harm: the steps go where the mean gradient does not" in verdicts
    assert '<link rel="stylesheet"' in verdicts
    assert "amsgrad_torch" in (tmp_path / "reference" / "problems.html").read_text()


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<p id="here"><a href="#here">fine</a> <a href="https://arxiv.org">fine</a> <img src="data:x"></p>', None),
        ('<a href="nowhere.html">x</a>', "page.html links to nowhere.html: there is no such file"),
        ('<a href="page.html#nowhere">x</a>', "page.html links to page.html#nowhere: that page has no such place"),
        ('<script src="https://cdn.example/x.js"></script>', "page.html loads https://cdn.example/x.js from elsewhere"),
        ('<link href="//fonts.example/x.css">', "page.html loads //fonts.example/x.css from elsewhere"),
        ('<img src="lost.png">', "page.html links to lost.png: there is no such file"),
        ("<style>@import 'https://x.example/a.css';</style>", "page.html loads https://x.example/a.css from elsewhere"),
    ],
)
def test_faults_of_a_page_are_found(tmp_path, html, fault):
    (tmp_path / "page.html").write_text(html)
    assert list(part("check").faults(tmp_path)) == ([fault] if fault else [])


def test_the_contents_name_every_document_once():
    listed = re.findall(r"<(.*)>", (SITE / "contents.md").read_text())
    own = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert sorted(name for name in listed if name in own) == sorted(own)


def test_the_page_of_alerts_has_the_rules_that_the_document_lists():
    told = re.findall(r"^## (.*)$", part("tables").alerts_page(), re.MULTILINE)
    listed = re.findall(r"^\| `([^`]*)` \|", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(listed)
    assert len(told) == len(set(told)) > 5


def test_the_page_of_findings_has_all_of_them_with_their_titles():
    tables = part("tables")
    shown = re.findall(r"^### (.*)$", tables.findings_page(), re.MULTILINE)
    assert len(shown) == len(tables.findings.FINDINGS) + len(tables.findings_record.RECORD_FINDINGS)
    assert all(shown)


def test_a_sentence_that_a_run_fills_in_shows_what_goes_where():
    tables = part("tables")
    node = ast.parse("f'Raise beta2 above {high}, {e.harm.steps_needed} steps' if sure else 'Nothing.'", mode="eval")
    assert list(tables.words(node.body)) == ["Raise beta2 above [high], [steps needed] steps", "Nothing."]
