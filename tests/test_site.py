"""The site: it builds without a warning, no link of it is dead, and it asks for no network."""

import ast
import html
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stepscope.diagnostics.alert import RULES

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"


def part(name):
    """Return a module of the site's builder."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", SITE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def builder(monkeypatch):
    """Return what imports a module of the builder that needs others of it; afterwards they are forgotten."""
    monkeypatch.syspath_prepend(SITE)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(SITE)):
            del sys.modules[name]


@pytest.mark.slow
def test_the_site_builds_strictly_and_has_a_page_for_every_document_and_every_thing(tmp_path, builder):
    built = subprocess.run([sys.executable, SITE / "build.py", tmp_path], capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    assert list(part("check").faults(tmp_path)) == []
    for document in (ROOT / "docs").glob("*.md"):
        assert (tmp_path / f"{document.stem}.html").exists(), document.name
    verdicts = (tmp_path / "reference" / "findings.html").read_text()
    assert "Harm: the steps go where the mean gradient does not" in verdicts
    assert '<link rel="stylesheet"' in verdicts
    assert "amsgrad_torch" in (tmp_path / "reference" / "problems.html").read_text()
    listed = "".join((tmp_path / "reference" / f"{family}.html").read_text() for family in FAMILIES)
    for address in builder("pages").all_of_them():
        page = tmp_path / Path(address).with_suffix(".html")
        article = page.read_text().partition("<article")[2].partition("</article>")[0]
        pictures = re.findall(r"<svg .*?</svg>", article, re.DOTALL)
        assert pictures, f"{page.name} has no picture"
        assert all("<path" in picture and 'aria-label="' in picture for picture in pictures), page.name
        prose = html.unescape(re.sub(r"<[^>]*>", " ", re.sub(r"<svg .*?</svg>", "", article, flags=re.DOTALL)))
        assert len(prose.split()) > 150, f"{page.name} is all but empty"
        assert "too short to judge." not in article, page.name
        assert f'href="{page.name}"' in listed, f"no page of a family leads to {page.name}"


FAMILIES = ("findings", "instruments", "alerts", "remedies", "problems")


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


def test_every_verdict_check_instrument_alert_problem_and_remedy_has_a_page(builder):
    from stepscope import Verdict, remedies
    from stepscope.diagnostics import trace
    from stepscope.reports.instruments import QUESTIONS
    from stepscope.synthetic.named import NAMED

    families = {}
    for address, (_, name) in builder("pages").all_of_them().items():
        families.setdefault(Path(address).name.partition("-")[0], []).append(name)
    assert families["verdict"] == [str(verdict) for verdict in Verdict] == list(builder("runs_verdicts").VERDICTS)
    assert families["condition"] == ["growth", "variance", "bias", "harm"] == list(builder("runs_verdicts").CONDITIONS)
    assert set(families["alert"]) == set(builder("runs_alerts").ALERTS)
    assert families["problem"] == list(NAMED)
    assert set(families["remedy"]) == set(remedies.__all__) == set(builder("runs_remedies").REMEDIES)
    watching, runs = builder("items_watching"), builder("runs_instruments")
    assert set(families["instrument"]) == set(watching.READ) == set(runs.INSTRUMENTS)
    assert {one.key for one in QUESTIONS} <= set(families["instrument"])
    assert trace.MEASURED <= {word for known in watching.READ.values() for word in known.scalars}


@pytest.mark.parametrize("rule", RULES)
def test_the_page_of_an_alert_shows_a_run_that_raises_it(builder, rule):
    """The page itself refuses a run whose first alert is of another rule."""
    page = builder("items_watching").alert(rule)
    assert 'aria-label="alerts over steps"' in page
    assert "```python\ndef " in page
    assert "*To try:*" in page


def test_a_page_is_the_same_whenever_it_is_made(builder):
    items, make = builder("items"), builder("items_watching").alert
    first = make("update surge")
    items.played.cache_clear()
    assert make("update surge") == first


def test_the_constants_of_a_check_are_those_that_it_reads(builder):
    from stepscope.diagnostics import conditions

    found = builder("thresholds").of_functions([conditions.judge_bias], [conditions])
    named = {name: value for constant in found for name, value in constant.names.items()}
    assert named["BIAS_FLOOR"] == conditions.BIAS_FLOOR
    assert named["FLAT_LOW"] == conditions.FLAT_LOW  # read by what it calls
    assert not {"VARIANCE_FLOOR", "GROWING"} & named.keys()
    assert all(constant.words for constant in found)


def test_the_code_of_a_run_brings_what_it_calls(builder):
    shown = builder("runs").source(builder("runs_alerts").update_surge)
    defined = re.findall(r"^def (\w+)", shown, re.MULTILINE)
    assert defined[-1] == "update_surge"
    assert set(defined) == {"feed", "weight", "noise", "update_surge"}


def test_a_sentence_that_a_run_fills_in_shows_what_goes_where():
    tables = part("tables")
    node = ast.parse("f'Raise beta2 above {high}, {e.harm.steps_needed} steps' if sure else 'Nothing.'", mode="eval")
    assert list(tables.words(node.body)) == ["Raise beta2 above [high], [steps needed] steps", "Nothing."]
