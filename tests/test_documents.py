"""The documents hold: their examples run, their commands parse, what they cite exists, what they list is complete."""

import ast
import math
import re
import shlex
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from stepscope.diagnostics import conditions, drift, findings, readers, stepsizes, trace
from stepscope.diagnostics.diagnosis import MEANING
from stepscope.diagnostics.evidence import judged_start
from stepscope.reports import cli
from stepscope.synthetic import ONLINE

ROOT = Path(__file__).parents[1]
LONG = ("README.md", "start.md", "report.md", "faq.md", "figures.md", "logging.md", "report_formats.md", "compare.md")
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CITATION = re.compile(r"docs/theory\.md ((?:\d+(?:\.\d+)?|[PR]\d+|and|[,\-– ])+)")


def text(name):
    return (ROOT / name).read_text()


def name_of(path):
    return str(path.relative_to(ROOT))


def headings(markdown):
    prose = BLOCK.sub("", markdown)
    return re.findall(r"^#+ (.*)$", prose, re.MULTILINE)


def first_cells(markdown):
    """Return the code words that stand in the first cells of a document's tables."""
    rows = re.findall(r"^\| (`[^|]*`) \|", markdown, re.MULTILINE)
    return [word for row in rows for word in re.findall(r"`([^`]*)`", row)]


# --- examples and commands -----------------------------------------------------------------------------------


def a_case(document):
    """The examples of these take longest: they train, judge, report and play suites."""
    return pytest.param(document, marks=pytest.mark.slow) if document.name in LONG else document


# What the packages in docs/logging.md do themselves: Lightning 2.6 asks torch for the leaves of a tree, and MLflow asks
# its database for a way of loading, that torch 2.13 and SQLAlchemy 2.1 are giving up.
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
@pytest.mark.parametrize("document", [*map(a_case, DOCUMENTS)], ids=name_of)
def test_examples_run_in_order_and_print_what_they_say(document, tmp_path, monkeypatch, capsys):
    """Blocks of one document share one namespace and one folder; `# → x` promises a printed line x."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(readers, "REGISTERED", {})
    markdown, namespace = document.read_text(), {"__name__": "example"}
    with torch.random.fork_rng():
        for block in BLOCK.finditer(markdown):
            language, code = block.groups()
            if language == "python":
                line = markdown[: block.start(2)].count("\n")
                exec(compile("\n" * line + code, document, "exec"), namespace)
                printed = iter(capsys.readouterr().out.splitlines())
                for promise in re.findall(r"# → (.*)$", code, re.MULTILINE):
                    assert promise in printed, f"{document.name} promises {promise!r}"
            else:
                assert language in ("console", "sh"), f"what is a block of {language}?"
                for command in commands(code):
                    try_out(command)
                capsys.readouterr()


def commands(block):
    return [shlex.split(line[2:], comments=True) for line in block.splitlines() if line.startswith("$ ")]


def try_out(command):
    """Run a stepscope command (the long demo is only parsed); look the others up where they are defined."""
    match command:
        case ["stepscope", "demo", *_]:
            cli._parser().parse_args(command[1:])
        case ["stepscope", *arguments]:
            assert cli.main(arguments) in (cli.FINE, cli.ALARM), shlex.join(command)
        case ["make", target]:
            assert re.search(rf"^{target}:", text("Makefile"), re.MULTILINE), f"make {target}?"
        case ["pip", "install", *pins, what]:
            assert not pins or (pins[0] == "-c" and (ROOT / pins[1]).exists()), shlex.join(command)
            for extra in re.findall(r"[\w-]+", what):
                assert re.search(rf"^{extra} = \[", text("pyproject.toml"), re.MULTILINE), f"extra {extra}?"
        case _:
            pytest.fail(f"unknown command: {shlex.join(command)}")


# --- links and citations -------------------------------------------------------------------------------------


def anchors(path):
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings(path.read_text())]
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document):
    prose = BLOCK.sub("", document.read_text())
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)]*)\)", prose):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            file = (document.parent / path) if path else document
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


def citations():
    """Every place of docs/theory.md that a source names, as (source, "4.1" or "P6" or "R9")."""
    for room in ("diagnostics", "synthetic", "remedies", "reports"):
        for path in sorted((ROOT / room).glob("*.*")):
            if path.suffix in (".py", ".html"):
                for places in CITATION.findall(path.read_text()):
                    for place in re.findall(r"[PR]?\d+(?:\.\d+)?", places):
                        yield name_of(path), place


def test_every_citation_of_the_theory_resolves():
    known = {heading.split()[0] for heading in headings(text("docs/theory.md"))}
    cited = set(citations())
    assert len(cited) > 15
    assert {(source, place) for source, place in cited if place not in known} == set()


def test_every_paper_that_is_cited_stands_in_the_bibliography():
    """By its arXiv number, wherever it is named; a paper's own module, such as toint2023.py, by author and year."""
    rooms = ("docs", "diagnostics", "synthetic", "remedies", "reports", "examples", "benchmarks", "tests")
    files = [ROOT / "README.md", *(path for room in rooms for path in (ROOT / room).rglob("*") if path.is_file())]
    number = re.compile(r"(?:arxiv\.org/abs/|arXiv:? ?)(\d{4}\.\d{4,5})")
    listed = text("docs/bibliography.md")
    sources = [path for path in files if path.suffix in (".py", ".md", ".html") and path.name != "bibliography.md"]
    cited = {found for path in sources for found in number.findall(path.read_text())}
    assert len(cited) > 40
    assert cited - set(number.findall(listed)) == set()
    assert set(number.findall(listed)) - cited == set(), "listed, but cited nowhere"
    authors = unicodedata.normalize("NFKD", listed).encode("ascii", "ignore").decode().lower()
    for module in sorted((ROOT / "synthetic").glob("*[12][0-9][0-9][0-9].py")):
        assert re.search(rf"^- {module.stem[:-4]}\b", authors, re.MULTILINE), module.name


def test_every_finding_cites_the_theory():
    source = ast.parse(text("diagnostics/findings.py"))
    calls = [node for node in ast.walk(source) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding"]
    assert len(calls) == len(findings.FINDINGS)
    for call in calls:
        assert CITATION.match(ast.literal_eval(call.args[2])), ast.unparse(call.args[2])


# --- what is listed is all there is --------------------------------------------------------------------------


def test_the_record_names_every_column_and_every_event():
    record = text("docs/record.md")
    for column in trace.COLUMNS:
        assert f"`{column}`" in record, column
    source = "".join(
        text(f"diagnostics/{name}.py") for name in ("monitor", "notes", "recorder", "parts", "alerts", "instruments")
    )
    kinds = set(re.findall(r'note\("([^"]+)"', source)) | {"moment reset", "step jump", "part missing"}
    table = record.split("## Events")[1].split("## ")[0]
    assert set(first_cells(table)) == kinds
    assert all(f'"{kind}"' in source for kind in kinds)


def test_every_reader_is_listed_with_the_formula_it_states():
    rows = re.findall(r"^\| `(\w+)` \| `(.*)` \|$", text("docs/optimizers.md"), re.MULTILINE)
    stated = {optimizer.__name__: reader.formula for optimizer, reader in stepsizes.READERS.items()}
    assert {name: formula for name, formula in rows if formula.startswith("e = ")} == stated
    for name in ("Muon", "Rprop", "LBFGS"):
        assert name in text("docs/optimizers.md")


def test_every_verdict_and_finding_is_explained():
    verdicts = text("docs/verdicts.md")
    assert {str(verdict) for verdict in MEANING} <= set(headings(verdicts)) & set(first_cells(verdicts))
    assert {str(verdict) for verdict in MEANING} <= set(first_cells(text("README.md")))
    source = ast.parse(text("diagnostics/findings.py"))
    for node in ast.walk(source):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
            constants = [n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)]
            for title in constants:
                if isinstance(title, str) and title[:1].isupper():
                    assert f"\n| {title.strip()}" in verdicts, title


# --- what is stated is so ------------------------------------------------------------------------------------


def test_the_lengths_that_a_decision_needs():
    rows = re.findall(r"^\| (0\.\d+) \| ([\d ]+) \| ([\d ]+) steps \|$", text("docs/verdicts.md"), re.MULTILINE)
    assert len(rows) == 5
    for beta2, start, needed in rows:
        begin, last = int(start.replace(" ", "")), int(needed.replace(" ", ""))
        groups = {"beta1": np.array([[0.9]]), "beta2": np.array([[float(beta2)]])}
        short = trace.Trace({}, [], np.array([1]), np.zeros((1, 0, len(trace.COLUMNS))), groups)
        assert judged_start(short) == begin
        for steps, blocks in ((last, conditions.MIN_BLOCKS), (last - 1, conditions.MIN_BLOCKS - 1)):
            assert len(conditions.block_edges(np.arange(1, steps + 1), begin)) - 1 == blocks


@pytest.mark.parametrize(
    ("slope", "decision"),
    [(-0.5, "holds"), (-0.21, "holds"), (-0.15, "inconclusive"), (-0.02, "inconclusive"), (0, "violated")],
)
def test_the_thresholds_of_the_rule(slope, decision):
    steps = np.arange(1.0, 4097.0)
    ratio = conditions.judge_variance(steps, np.cumsum(steps ** float(slope)), steps, 32)
    assert str(ratio.decision) == decision
    assert f"s ≤ {-0.2:.1f}".replace("-", "−") in text("docs/theory.md")


def test_the_numbers_of_the_harm_test():
    theory = text("docs/theory.md")
    assert f"k = {drift.K} to {2 * drift.K - 1}" in theory
    accusing = [drift.student_t(k - 1, drift.ACCUSING) for k in (drift.K, 2 * drift.K - 1)]
    assert f"({drift.student_t(drift.K - 1, drift.LEVEL):.2f} at k = {drift.K})" in theory
    assert f"({accusing[0]:.2f} at\nk = {drift.K}, {accusing[1]:.2f} at k = {2 * drift.K - 1})" in theory


def test_the_window_of_the_harm_test_is_the_last_half_of_the_run():
    stretches = drift.Stretches(1)
    shares = []
    for step in range(1, 3000):
        stretches.current[:] += 1.0
        stretches.advance()
        if step >= 512 and (window := stretches.gram([(1, 1.0)])) is not None:
            first, last = window[0]
            assert step - last < stretches.length
            shares.append((last - first + 1) / step)
    assert min(shares) == pytest.approx(0.5, abs=1 / 16)
    assert max(shares) == pytest.approx(0.5, abs=1 / 16)


def test_the_gaussian_floors_of_p6():
    """E|z² - 1| = 4φ(1) by quadrature; c⁺ takes the half where v falls."""
    z = np.linspace(-12, 12, 2_000_001)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    whole = 0.5 * (np.abs(z * z - 1) * density).sum() * (z[1] - z[0])
    falls = 0.5 * (np.maximum(1 - z * z, 0) * density).sum() * (z[1] - z[0])
    assert whole == pytest.approx(0.484, abs=5e-4)
    assert falls == pytest.approx(whole / 2, rel=1e-6)
    assert findings.GAUSSIAN_RISE == pytest.approx(falls, abs=5e-4)


def test_the_identity_of_p3():
    e = np.random.default_rng(0).random(100)
    rises, falls = np.maximum(np.diff(e), 0).sum(), np.abs(np.diff(e)).sum()
    assert falls == pytest.approx(2 * rises - (e[-1] - e[0]))


def online_drift(beta1, beta2):
    """Return Σ g_i k_i over a period of the online game, from the closed form of docs/theory.md 2.5."""
    d, spike, common = ONLINE.period, ONLINE.rare, ONLINE.common
    i = np.arange(1, d + 1)
    v = common**2 + (spike**2 - common**2) * (1 - beta2) * beta2 ** (i - 1) / (1 - beta2**d)
    ahead = np.arange(40 * d)
    weights = (1 - beta1) * beta1**ahead
    k = np.array([(weights / np.sqrt(v[(place + ahead) % d])).sum() for place in range(d)])
    return float(np.where(i == 1, spike, common) @ k)


def test_the_exact_drift_of_the_online_game():
    header, numbers = re.search(r"^\| \(β1, β2\) (.*)\n.*\n\| D (.*)$", text("docs/theory.md"), re.MULTILINE).groups()
    settings = [(float(x), float(y)) for x, y in re.findall(r"\(([\d.]+), ([\d.]+)\)", header)]
    stated = [float(number.replace("−", "-")) for number in re.findall(r"[−+]?[\d.]+", numbers)]
    assert len(stated) == len(settings) == 6
    for setting, number in zip(settings, stated, strict=True):
        assert online_drift(*setting) == pytest.approx(number, rel=0.01), setting
    assert online_drift(0.9, 0.99951) < 0 < online_drift(0.9, 0.99952)


@pytest.mark.parametrize(("spike", "edge"), [(3.0, 0.472), (10.0, 0.098)])
def test_the_boundary_of_period_three(spike, edge):
    def drift_per_period(beta2):
        v = [1 + (spike**2 - 1) * (1 - beta2) * beta2**i / (1 - beta2**3) for i in range(3)]
        return spike / math.sqrt(v[0]) - 1 / math.sqrt(v[1]) - 1 / math.sqrt(v[2])

    assert drift_per_period(edge - 0.001) < 0 < drift_per_period(edge + 0.001)


@pytest.mark.parametrize(
    ("spike", "common", "chance", "beta2"), [(11, -1, 1 / 11, 0.98181), (1010, -10, 0.01, 0.99960)]
)
def test_the_skewness_rule_of_harm(spike, common, chance, beta2):
    first, second, third = (chance * spike**n + (1 - chance) * common**n for n in (1, 2, 3))
    skewness = third / (second * first)
    assert 1 - 2 / (skewness - 1) == pytest.approx(beta2, abs=1e-5)


def test_the_limit_cycle_of_adam():
    x, v, alpha, beta2 = 1.0, 0.0, 0.01, 0.9
    for _ in range(5000):
        g = 200 * x
        v = beta2 * v + (1 - beta2) * g * g
        x -= alpha * g / math.sqrt(v)
    assert abs(x) == pytest.approx(alpha / 2, rel=1e-6)


def test_how_far_the_bias_correction_lifts_amsgrad():
    assert math.sqrt((1 - 0.999**3000) / (1 - 0.999)) == pytest.approx(31, rel=0.01)
