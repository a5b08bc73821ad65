"""Every format says what the run says, whatever its names are, and is written over nothing but a report."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pypdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.diagnostics.alert import RULES, Alert
from stepscope.diagnostics.findings import ALERTED
from stepscope.diagnostics.limits import limits
from stepscope.diagnostics.trace import Event
from stepscope.reports import cli, document, formats, junit, markdown, suites
from stepscope.reports.chapters import gather
from stepscope.reports.formats import FORMATS, is_ours, render
from stepscope.reports.gist import gist
from stepscope.reports.legible import legible, names
from stepscope.reports.numerals import typeset
from stepscope.reports.paper import INNER, broken, columns, width_of
from stepscope.synthetic.score import SuiteResult
from stepscope.synthetic.suite import run_suite

ROOT = Path(__file__).parents[2]
HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><b>&amp;",
    "a|b\\|c`d`|",
    "@someone and #12, www.example.org, https://example.org, GH-7",
    "\u202egnihtyna\u202c\u200f",
    "nul\x00 bell\x07 escape\x1b[31m\ufffe",
    "two\nlines\r\n| a | b |",
    "long" * 2500,
    "\udcff\ud800",
    "名前 🙂",
    "$w$ _x_ *y* ~z~ [a](b)",
    "",
)


def alert(tensor="layer0.weight"):
    told = Alert("update surge", 7, tensor, "RMS_t of 40", "a bad batch", "look at it")
    return Event(7, "alert", told.line(), tensor)


@pytest.fixture(scope="module")
def biased(make):
    trace = make(rho=-3.0)
    trace.events.append(alert())
    return trace


@pytest.fixture(scope="module")
def contents(biased):
    return gather([("uphill", biased)])


@pytest.fixture(scope="module")
def several(biased, make):
    return gather([("uphill", biased), ("fine", make(tensors=2)), ("short", make(last=50))])


@pytest.fixture(scope="module")
def suite():
    import torch

    return run_suite(lambda params: torch.optim.Adam(params, betas=(0.0, 0.1)), ["reddi theorem 1"], steps=2000)


# --- reading them back -----------------------------------------------------------------------------------------


def cells(line):
    """Return the cells of a line of a table, split as GitHub does: where a bar has no backslash of its own before."""
    parts = re.findall(r"((?:\\.|[^\\|])*)\|", line)
    return [part.strip() for part in parts[1:]]


def tables(text):
    """Return each table of a Markdown text as its lines of cells."""
    found, last = [], False
    for line in text.splitlines():
        if line.startswith("| ") and not last:
            found.append([])
        last = line.startswith("|")
        if last and not line.startswith("| ---"):
            found[-1].append(cells(line))
    return found


def unescaped(cell):
    """Return what a cell shows."""
    code = re.fullmatch(r"`(.*)`", cell)
    if code:
        return code[1].replace(r"\|", "|")
    return html.unescape(re.sub(r"\\(.)", r"\1", cell).replace("\u200b", ""))


def test_markdown_has_the_verdict_first_and_every_check(contents):
    text = markdown.markdown(contents)
    assert text.startswith("### stepscope: ✕ biased, `uphill`\n")
    (table,) = tables(text)
    assert [row[:2] for row in table] == [
        ["check", "decision"],
        ["growth of a", "✓ holds"],
        ["variance (b/a → 0)", "✓ holds"],
        ["bias (c⁺/a → 0)", "✕ violated"],
        ["harm", "✕ harmful"],
    ]
    for part in ("- **What:** Harm: ", "- **Where:** `layer0.weight`", "- **When:** steps 50", "- **To do:** Raise β2"):
        assert part in text
    assert text.count("<details><summary>") == text.count("</details>") == 1
    assert {tag.lower() for tag in re.findall(r"</?(\w+)", text)} <= {"details", "summary", "code"}


def test_every_format_says_what_limits_the_run(make, tmp_path):
    trace = make()
    said = typeset(limits(trace).now)
    for ending in (".html", ".md", ".xml"):
        text = trace.report(tmp_path / f"run{ending}").read_text(encoding="utf-8")
        assert said.split(". ")[1] in text.replace("&#39;", "'"), ending
    assert "<h1" in trace.report(tmp_path / "run.html").read_text(encoding="utf-8").partition(">Adam</h1>")[0]
    with pytest.raises(ValueError, match="must end in"):
        trace.report(tmp_path / "run.docx")


def test_markdown_of_several_runs_begins_with_their_table(several):
    text = markdown.markdown(several)
    assert text.startswith("### stepscope: 3 runs compared\n")
    overview, differing, parted, *checks = tables(text)
    assert [unescaped(row[1]) for row in overview[1:]] == ["uphill", "fine", "short"]
    assert {row[0] for row in differing} >= {"tensors", "steps"}
    assert "ρ" in {row[0] for row in parted}
    assert len(checks) == text.count("</details>") == 3


def test_xml_has_a_suite_a_run_and_a_case_a_check(several):
    root = ElementTree.fromstring(junit.junit(several))
    assert [suite.get("name") for suite in root] == ["uphill", "fine", "short"]
    uphill, fine, short = root
    kinds = {case.get("name"): case for case in uphill.iter("testcase")}
    assert [*kinds] == ["verdict", "growth of a", "variance (b/a → 0)", "bias (c⁺/a → 0)", "harm"] + [
        f"alert: {rule}" for rule in RULES
    ]
    failed = {name for name, case in kinds.items() if case.find("failure") is not None}
    assert failed == {"verdict", "bias (c⁺/a → 0)", "harm", "alert: update surge"}
    assert fine.get("failures") == "0"  # uncertified is no alarm
    assert int(short.get("skipped")) >= 3
    for suite in (root, *root):
        for kind, found in (("tests", "testcase"), ("failures", "failure"), ("skipped", "skipped")):
            assert int(suite.get(kind)) == len([*suite.iter(found)])


@pytest.mark.parametrize(("rho", "last", "code"), [(1.0, 100_000, 0), (-3.0, 100_000, 1), (1.0, 50, 0)])
def test_xml_fails_where_the_exit_code_is_one(make, rho, last, code):
    root = ElementTree.fromstring(junit.junit(gather([("run", make(rho=rho, last=last))])))
    assert (root.get("failures") != "0") == bool(code)


def test_pdf_says_in_words_what_is_the_matter_on_its_first_page(contents, tmp_path):
    content = formats.FORMATS[".pdf"].write(contents)
    assert is_ours(formats.put(content, tmp_path / "report.pdf"))
    reader = pypdf.PdfReader(io.BytesIO(content))
    first, *others = (page.extract_text() for page in reader.pages)
    for part in ("uphill", "✕ biased", "ρ −3.00", "More training leads", "To do", "Is there harm? yes", "Findings"):
        assert part in first
    rest = " ".join(" ".join(others).split())
    for plate in contents.chapters[0].plates:
        assert all(word in rest for word in (*plate.question.split(), plate.caption.split()[0]))
    assert "layer2.weight" in rest
    fonts = {font["/Subtype"] for page in reader.pages for font in map(deep, page["/Resources"]["/Font"].values())}
    assert fonts <= {"/Type0", "/TrueType"}  # type 42: whole fonts, none drawn as pictures
    assert not any(page.images for page in reader.pages if "/XObject" in page["/Resources"])
    assert reader.metadata.title == "uphill - stepscope"


@pytest.mark.slow
def test_the_same_run_is_the_same_pdf(contents):
    assert formats.FORMATS[".pdf"].write(contents) == formats.FORMATS[".pdf"].write(contents)


def deep(reference):
    return reference.get_object()


@pytest.mark.slow
def test_pdf_of_odd_records_and_of_hundreds_of_tensors(odd_trace, make):
    for trace in (odd_trace, make(tensors=200, last=1000, records=20)):
        content = formats.FORMATS[".pdf"].write(gather([("run", trace), ("again", trace)]))
        assert len(pypdf.PdfReader(io.BytesIO(content)).pages) >= 3


def test_lines_on_paper_are_no_longer_than_they_may_be():
    text = "a few words and " + "x" * 300 + " and more " * 30
    lines = [*broken(text, 9.0, "plain", 3.0)]
    assert all(width_of(line, "plain") * 9.0 <= 3.0 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    blocks = columns([("name", *(f"column {i}" for i in range(40))), ("a", *map(str, range(40)))], 6.4)
    assert len(blocks) > 1
    assert all(width_of(line, "mono") * 6.4 <= INNER for block in blocks for line in block)
    assert all(block[0].startswith("name") for block in blocks)


# --- JSON and its schema ----------------------------------------------------------------------------------------


def schema(name):
    return json.loads((ROOT / "reports" / f"{name}.schema.json").read_text())


def validate(content, name):
    jsonschema.Draft202012Validator.check_schema(schema(name))
    jsonschema.Draft202012Validator(schema(name)).validate(json.loads(content))


def test_json_is_what_the_schema_says(contents, several):
    for each in (contents, several):
        validate(formats.FORMATS[".json"].write(each), "report")


@pytest.mark.slow
def test_json_of_a_run_with_imagined_rules_is_what_the_schema_says(rarely_large):
    validate(formats.FORMATS[".json"].write(gather([("watched", rarely_large(1000))])), "report")


@pytest.mark.slow
def test_json_of_odd_records_is_what_the_schema_says(odd_trace):
    validate(formats.FORMATS[".json"].write(gather([("odd", odd_trace)], exact=True)), "report")


def test_json_holds_the_diagnosis_and_the_exact_names(make, tmp_path):
    trace = make(records=60, tensors=len(HOSTILE), names=tuple(f"{i} {name}" for i, name in enumerate(HOSTILE)))
    path = render([(HOSTILE[8], trace)], tmp_path / "report.json")
    (run,) = json.loads(path.read_bytes())["runs"]
    assert run["name"] == HOSTILE[8]
    assert [row["tensor"] for row in run["tensors"]] == [tensor.name for tensor in trace.tensors]
    assert run["diagnosis"] == json.loads(json.dumps(trace.diagnose().to_dict()))
    validate(path.read_bytes(), "report")


def test_a_suite_as_json_is_what_its_schema_says(suite):
    validate(suites.document(suite), "suite")


SHAPES = {("report", 1): "95c333ab8a5069f2", ("suite", 2): "0da2e69f574d2fd2", ("phase", 1): "a073fce027c6c962"}
"""What the fields of each version were; a new shape needs a new version, and a line in docs/report_json.md."""


@pytest.mark.parametrize("name", ["report", "suite", "phase"])
def test_the_version_changes_when_fields_do(name):
    def bare(value):
        if isinstance(value, dict):
            return {
                key: bare(item) for key, item in value.items() if not (key == "description" and isinstance(item, str))
            }
        return [bare(item) for item in value] if isinstance(value, list) else value

    stated = schema(name)
    version = stated["properties"]["schema"]["const"]
    shape = hashlib.sha256(json.dumps(bare(stated), sort_keys=True).encode()).hexdigest()[:16]
    assert SHAPES[name, version] == shape
    assert f"`{name}` {version}" in (ROOT / "docs" / "report_json.md").read_text()
    if name == "report":
        assert version == document.SCHEMA


# --- suites -----------------------------------------------------------------------------------------------------


def test_a_suite_as_xml(suite):
    root = ElementTree.fromstring(suites.junit(suite))
    (case,) = root.iter("testcase")
    assert case.get("name") == "reddi theorem 1"
    assert (case.find("failure") is not None) == bool(suite.exit_code)


def test_a_suite_is_written_by_its_own_method(suite, tmp_path):
    assert suite.report(tmp_path / "new" / "suite.xml").read_bytes() == suites.junit(suite)
    with pytest.raises(ValueError, match=r"must end in \.html, \.pdf, \.md, \.json or \.xml, got"):
        suite.report(tmp_path / "suite.png")


def test_a_suite_that_broke_with_any_message_is_still_read(suite):
    row = dataclasses.replace(suite.rows[0], notes=HOSTILE)
    result: SuiteResult = dataclasses.replace(suite, optimizer="\x00@me", rows=(row,))
    assert ElementTree.fromstring(suites.junit(result))[0].get("name") == "·@me"


def test_the_suite_command_writes_every_format_but_pictures(tmp_path, capsys):
    spec = ["suite", "torch.optim.Adam", "--steps", "300", "--problem", "reddi theorem 1"]
    for ending in FORMATS:
        path = tmp_path / f"results{ending}"
        assert cli.main([*spec, "-o", str(path)]) in (0, 1)
        assert is_ours(path)
    capsys.readouterr()
    assert cli.main([*spec, "-o", str(tmp_path / "results.png")]) == 2
    assert "must end in .html, .pdf, .md, .json or .xml, got" in capsys.readouterr().err


# --- hostile names ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(make):
    trace = make(records=60, rho=-3.0, tensors=len(HOSTILE), names=HOSTILE)
    trace.scalars = {name: trace.scalars["loss"] for name in HOSTILE[:3]}
    trace.events += [alert(name) for name in HOSTILE if name]
    trace.meta["optimizer"] = HOSTILE[0]
    trace.meta["hyperparameters"] = [{name: name for name in HOSTILE}]
    return gather([(name, trace) for name in HOSTILE[:8]])


def test_xml_is_well_formed_whatever_the_names(hostile):
    root = ElementTree.fromstring(junit.junit(hostile))
    assert root[0].get("name") == HOSTILE[0]
    assert root[5].get("name") == "nul· bell· escape·[31m�"


def test_markdown_calls_nobody_and_keeps_its_tables(hostile):
    text = markdown.markdown(hostile)
    assert len(text.encode()) < 65_536 * len(hostile.chapters)
    assert all(len({*map(len, table)}) == 1 for table in tables(text))
    assert [unescaped(row[1]) for row in tables(text)[0][1:]] == [c.row.name or "–" for c in hostile.chapters]
    prose = re.sub(r"```.*?```|`[^`\n]*`|<code>.*?</code>", "", text, flags=re.DOTALL)
    assert not re.search(r"@\w|#\d|https?://|www\.|GH-\d", prose)
    assert not re.search(r"(?<!\\)<script", prose)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200f\x00-\x09\x0b-\x1f]", text)


@pytest.mark.slow
def test_every_format_takes_every_name(hostile, tmp_path):
    for ending, form in FORMATS.items():
        path = formats.put(form.write(hostile), tmp_path / f"report{ending}")
        assert is_ours(path)
    (tmp_path / "report.html").read_text(encoding="utf-8")


NAMES = st.text(st.characters(), max_size=60)


@settings(max_examples=60)
@given(NAMES)
def test_a_name_becomes_legible_and_stays_so(name):
    shown = legible(name)
    assert legible(shown) == shown
    shown.encode("utf-8")
    element = ElementTree.Element("a", {"name": shown})
    element.text = shown
    read = ElementTree.fromstring(ElementTree.tostring(element, encoding="utf-8"))
    assert (read.get("name"), read.text or "") == (shown, shown)
    if name.isprintable():
        assert shown == name


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=20)))
def test_a_cell_of_markdown_is_read_back_as_it_was(texts):
    texts = [legible(text) for text in texts if text.strip() and "\u200b" not in text]
    for write in (markdown.code, markdown.plain):
        table = markdown.table(["head"], [[write(text)] for text in texts])
        shown = [unescaped(row[0]) for row in tables(table)[0][1:]]
        assert [text.strip() for text in shown] == [text.strip() for text in texts]


def test_no_name_becomes_a_picture():
    shown = markdown.plain("a:heart:b and ::1 at 12:30:05")
    assert not re.search(r":[\w+-]+:", shown)
    assert shown.replace(markdown.APART, "") == "a:heart:b and ::1 at 12:30:05"


@settings(max_examples=40)
@given(st.sets(NAMES | st.sampled_from(HOSTILE)))
def test_names_stay_apart(texts):
    found = names(texts)
    assert len({*found.values()}) == len(texts)


# --- files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(make, tmp_path):
    make(records=30, rho=-3.0).save(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("ending", [pytest.param(e, marks=[pytest.mark.slow] * (e == ".pdf")) for e in FORMATS])
def test_a_report_replaces_a_report_and_no_other_file(run, tmp_path, capsys, ending):
    target = tmp_path / f"out{ending}"
    target.write_bytes(b"mine")
    assert cli.main(["report", str(run), "-o", str(target)]) == 2
    assert target.read_bytes() == b"mine"
    assert "got a file that stepscope did not write" in capsys.readouterr().err
    target.unlink()
    assert [cli.main(["report", str(run), "-o", str(target)]) for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("name", ["report.doc", "report", "report.HTM"])
def test_an_unknown_ending_is_one_sentence(run, tmp_path, capsys, name):
    assert cli.main(["report", str(run), "-o", str(tmp_path / name)]) == 2
    printed = capsys.readouterr()
    assert "a report's name must end in .html, .pdf, .md, .json or .xml, got '" in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("ending", FORMATS)
def test_a_damaged_run_is_one_sentence_and_no_file(tmp_path, capsys, ending):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "meta.json").write_text('{"format": 1}')
    (tmp_path / "damaged" / "trace.sqlite").write_bytes(b"\0" * 5000)
    target = tmp_path / f"out{ending}"
    assert cli.main(["report", str(tmp_path / "damaged"), "-o", str(target)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not target.exists()


def test_a_monitor_chooses_by_the_ending_too(tmp_path):
    import torch

    from stepscope import Monitor

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)
    monitor = Monitor(optimizer)
    assert monitor.report(tmp_path / "report.md").read_text().startswith("### stepscope: ? inconclusive")
    with pytest.raises(ValueError, match=r"must end in \.html, \.pdf"):
        monitor.report(tmp_path / "report.doc")


def test_an_alert_leads_only_alone(contents, make):
    assert ALERTED in {finding.title for finding in contents.chapters[0].diagnosis.findings}
    assert gist(contents.chapters[0]).what.startswith("Harm")


def test_the_rules_are_those_that_give_alerts():
    source = (ROOT / "diagnostics" / "alerts.py").read_text()
    assert set(RULES) == set(re.findall(r'_alert\(\s*"([^"]+)"', source))
