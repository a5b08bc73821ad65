"""The reports of suites and of phase diagrams: every form says the same, whatever the names are."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pypdf
import pytest
import torch

from stepscope.diagnostics.conditions import Decision
from stepscope.diagnostics.drift import HarmDecision
from stepscope.reports import cli
from stepscope.reports.formats import PHASE, is_ours, save_phase, save_suite
from stepscope.reports.mosaic import boxes_of, outline
from stepscope.reports.page import study_html
from stepscope.reports.phase_study import phase_study
from stepscope.reports.study_markdown import study_markdown
from stepscope.reports.study_pdf import study_pdf
from stepscope.reports.suite_study import READ, SHORTEN, UNBIASED, UNREAD, suite_study
from stepscope.synthetic.boundaries import DRIFT, Boundary
from stepscope.synthetic.cases import Nature, Outcome
from stepscope.synthetic.crossings import changes, crossings
from stepscope.synthetic.grid import Axis
from stepscope.synthetic.named import named
from stepscope.synthetic.phase import Ending, phase_diagram
from stepscope.synthetic.suite import run_suite

ROOT = Path(__file__).parents[2]
HOSTILE = "</script><script>alert(1)</script> a|b`c` \"quoted' $x^2$ @someone #12 \u202egnp\x00\ud800" + "long" * 100
VISIBLE = re.compile("[\u202a-\u202e\x00-\x09\x0b-\x1f]")


@pytest.fixture(scope="module")
def suite():
    problems = ["reddi theorem 1", "noisy quadratic", "quadratic in two variables"]
    return run_suite(lambda params: torch.optim.Adam(params, betas=(0.0, 0.1)), problems, steps=1000)


@pytest.fixture(scope="module")
def diagram():
    entry = named("theorem1")
    return phase_diagram(entry.build(), "adam", ("beta1", 0.0, 0.9), ("beta2", 0.0, 0.99), (9, 9), 3000, entry.lr)


@pytest.fixture(scope="module", params=["suite", "phase"])
def study(request, suite, diagram):
    return suite_study(suite) if request.param == "suite" else phase_study(diagram)


@pytest.fixture(scope="module")
def paper(study):
    return pypdf.PdfReader(io.BytesIO(study_pdf(study)))


# --- what they say ----------------------------------------------------------------------------------------------


def test_a_suite_begins_with_what_is_lost_and_what_to_do(suite):
    found = suite_study(suite)
    assert str(found.verdict) == "✕ loses 1 of 3"
    assert found.number == f"{suite.counts[Outcome.SOLVED]} of 3"
    assert found.says == "1 is a counterexample, made to turn adaptive steps round: it escapes 0, loses 1."
    lost, means, theory, change = found.answers
    assert (lost.short, means.short) == ("1 of 3", "its steps are biased")
    assert lost.lines[0].startswith("reddi theorem 1: from 1 away")
    assert theory.short == "nothing speaks against it"
    assert "raise β2" in change.lines[0]


def test_the_words_of_a_suite_follow_its_outcomes(suite):
    def with_outcomes(outcome, nature=Nature.TAME):
        rows = (dataclasses.replace(row, outcome=outcome, about=dataclasses.replace(row.about, nature=nature))
                for row in suite.rows)  # fmt: skip
        return suite_study(dataclasses.replace(suite, rows=tuple(rows)))

    assert with_outcomes(Outcome.SOLVED).verdict.word == "solves 3 of 3"
    assert with_outcomes(Outcome.SHORT).verdict.word == "loses none of 3"
    assert with_outcomes(Outcome.BROKEN).answers[1].short == "it fails"
    assert "plain problem" in with_outcomes(Outcome.WRONG).answers[1].lines[0]
    assert with_outcomes(Outcome.SOLVED).answers[3].short == "nothing needed"


def test_an_empty_suite_claims_nothing(suite):
    nothing = suite_study(dataclasses.replace(suite, rows=(), complete=False))
    assert nothing.verdict.word == "nothing played"
    (meaning,) = nothing.meaning
    assert "interrupted" in meaning
    assert nothing.answers == ()
    for view in (study_markdown, study_html, study_pdf):
        assert view(nothing)


def test_steps_are_biased_where_the_row_says_so():
    climb = run_suite(lambda params: torch.optim.SGD(params, maximize=True), ["reddi theorem 1"], steps=1000)
    (row,) = climb.rows
    assert (row.outcome, row.about.nature) == (Outcome.WRONG, Nature.DRIFT)
    _, means, _, change = suite_study(climb).answers
    assert means.short == "it fails"
    assert means.lines == (UNBIASED,)
    assert change.lines == (f"1. {SHORTEN}",)
    decided = dataclasses.replace(row, bias=Decision.VIOLATED, harm=HarmDecision.HARMFUL)
    _, means, _, change = suite_study(dataclasses.replace(climb, rows=(decided,))).answers
    assert means.short == "its steps are biased"
    assert "amsgrad" in change.lines[0]


def test_what_is_not_read_has_no_cause(suite):
    row = dataclasses.replace(suite.rows[0], outcome=Outcome.WRONG, expected=None, stepsize=False)
    _, means, _, change = suite_study(dataclasses.replace(suite, rows=(row,))).answers
    assert means.lines == (UNREAD,)
    assert change.lines == (f"1. {READ}",)


def test_undecided_problems_are_told_apart_by_where_they_are(suite):
    nearer = dataclasses.replace(suite.rows[0], outcome=Outcome.SHORT, start=2.0, distance=1.0)
    strayed = dataclasses.replace(nearer, problem="strayed", distance=100.0)
    _, means, *_ = suite_study(dataclasses.replace(suite, rows=(nearer, strayed))).answers
    half, far = means.lines
    assert half.startswith(f"Half way: {nearer.problem}. ")
    assert far.startswith("Farther than it started, yet not called wrong: strayed. ")


def test_what_is_left_out_is_said(suite):
    row = dataclasses.replace(suite.rows[0], outcome=Outcome.WRONG, expected=Outcome.SOLVED)
    lost, _, theory, _ = suite_study(dataclasses.replace(suite, rows=(row,) * 8)).answers
    for answer in (lost, theory):
        assert answer.lines[6] == "And 2 more; see the table."


def test_the_headline_tells_where_it_ends_from_what_is_decided(suite):
    row = dataclasses.replace(suite.rows[1], outcome=Outcome.SOLVED)
    line = dataclasses.replace(suite, rows=(row,)).headline
    assert re.search(r": 1 of 1 problem solved; verdicts on the steps: 1 \w+ \(1000 steps each", line)


def test_a_course_ends_where_the_row_does(suite):
    for row in suite.rows:
        course = row.course
        assert course.steps[0] == 1
        assert course.steps[-1] == row.steps
        assert course.distance[1][0] == pytest.approx(row.start)
        assert course.regret[-1] == pytest.approx(row.regret)
        assert (course.x is None) == (len(row.about.variables) > 1)
        low, middle, high = map(np.array, course.distance)
        assert ((low <= middle) & (middle <= high)).all()
    x = suite.rows[0].course.x[1]
    assert np.abs(np.array(x) - suite.rows[0].about.optimum[0]) == pytest.approx(suite.rows[0].course.distance[1])


RIGHT, WRONG, UNSTABLE = Ending.RIGHT, Ending.WRONG, Ending.UNSTABLE


def plane(diagram, endings, **others):
    """Return the diagram with other endings, rows of β2, and with theory's line at β2 = 0.9."""
    endings = np.array(endings, dtype=object)
    line = Boundary(DRIFT, np.array([0.0, 0.9]), np.array([0.9, 0.9]))
    empty = np.ones(endings.shape)
    return dataclasses.replace(
        diagram,
        **{"ending": endings, "distance": empty, "rho": empty, "level": np.zeros(endings.shape, dtype=np.int64)}
        | {"boundaries": (line,)}
        | others,
    )


def test_a_phase_diagram_begins_with_its_shares(diagram):
    found = phase_study(plane(diagram, [[WRONG] * 4] * 2 + [[RIGHT] * 4] * 2))
    assert (found.verdict.word, found.number) == ("ends wrong in 50 %", "50 %")
    where, theory, usual, _ = found.answers
    assert where.short == "above a line in β2"
    assert len(where.lines) == 3
    assert theory.short == "yes"
    assert theory.lines[0].startswith("At 4 of 4 values of β1")
    assert usual.short == "not in the plane"  # β2 = 0.999
    below = phase_study(plane(diagram, [[RIGHT] * 4] * 2 + [[WRONG] * 4] * 2))
    assert below.answers[0].short == "below a line in β2"
    between = phase_study(plane(diagram, [[WRONG] * 4, [RIGHT] * 4, [RIGHT] * 4, [WRONG] * 4]))
    assert between.answers[0].short == "in between, see the map"
    some = phase_study(plane(diagram, [[WRONG, WRONG, RIGHT, RIGHT]] + [[RIGHT] * 4] * 3))
    assert some.answers[0].short == "above a line in β2"
    assert some.answers[0].lines[-1] == "At 2 other values of β1 nothing changes to right or from it."
    one = phase_study(plane(diagram, [[RIGHT]]))
    assert one.about.startswith("Phase diagram of 1 cell ·")


def test_a_plane_that_is_all_right_says_that_theory_has_a_line(diagram):
    found = phase_study(plane(diagram, [[RIGHT] * 4] * 4))
    assert (str(found.verdict), found.number) == ("✓ ends right everywhere", "100 %")
    where, theory, *_ = found.answers
    assert where.short == "everywhere"
    assert theory.short == "theory has a line, no change was measured"
    assert phase_study(plane(diagram, [[RIGHT]], boundaries=())).answers[1].short == "theory names none"
    half = phase_study(plane(diagram, [[WRONG, RIGHT, RIGHT, RIGHT]] * 2 + [[RIGHT] * 4] * 2))
    assert half.answers[1].short == "at 1 of 4"


def test_neither_all_nor_none_is_said_of_a_part(diagram):
    cells = np.full((16, 16), RIGHT, dtype=object)
    cells[0, 0] = UNSTABLE
    nearly = plane(diagram, cells)
    found = phase_study(nearly)
    assert found.number == "more than 99 %"
    assert str(found.verdict) == "! breaks in less than 1 %"
    assert "more than 99 % right, less than 1 % unstable" in str(nearly)
    assert not any("farther" in line for line in found.meaning)


def test_the_usual_settings_are_those_of_the_cell_that_was_played(diagram):
    y = Axis("beta2", 0.0, 0.9999)
    distance = np.array([[1.0], [math.nan]])
    broken = plane(diagram, [[RIGHT], [UNSTABLE]], y=y, distance=distance)
    usual = phase_study(broken).answers[2]
    assert usual.short == "unstable"
    assert usual.lines == ("They are β1 = 0.9, β2 = 0.999. In their cell, played at β1 = 0.68, β2 = 0.999, it breaks.",)
    other = dataclasses.replace(broken, fixed=tuple((key, 0.5) for key, _ in diagram.fixed))
    assert phase_study(other).answers[2].short == "not played"


def test_a_card_is_green_where_all_is_right(diagram):
    colours = {"#00775a": RIGHT, "#b84a00": WRONG, "#58626c": Ending.UNDECIDED}
    for colour, ending in colours.items():
        assert colour in plane(diagram, [[ending] * 2] * 2)._repr_html_()


def test_endings_change_between_decided_cells():
    right, wrong, undecided = Ending.RIGHT, Ending.WRONG, Ending.UNDECIDED
    assert list(changes([wrong, wrong, undecided, right, right])) == [(1, 3)]
    assert list(changes([undecided, right, undecided])) == []
    assert list(changes([wrong, right, wrong])) == [(0, 1), (1, 2)]
    rows = np.array([[wrong, undecided, undecided, right]], dtype=object)
    (one,) = crossings(Axis("beta2", 0.0, 0.9999), Axis("beta1", 0.0, 0.9), rows, ())
    assert (one.low, one.high) == pytest.approx((1 - 10**-0.5, 1 - 10**-3.5))
    assert one.agrees is None


def test_theory_and_measurement_agree_where_the_run_is_long():
    entry = named("theorem1")
    found = phase_diagram(entry.build(), "adam", ("beta1", 0.0, 0.5), ("beta2", 0.1, 0.9), (2, 8), 20_000, entry.lr)
    assert found.crossings
    assert all(one.agrees for one in found.crossings)
    turned = phase_diagram(entry.build(), "adam", ("beta2", 0.1, 0.9), ("beta1", 0.0, 0.5), (8, 2), 20_000, entry.lr)
    assert turned.crossings == found.crossings


def test_the_cells_of_a_shade_are_one_path():
    chosen = np.array([[True, True, False], [False, False, True]])
    boxes = boxes_of(np.arange(4.0), np.arange(2.0), np.arange(1.0, 3.0), chosen)
    assert boxes == [(0, 2, 0, 1), (2, 3, 1, 2)]
    path = outline(boxes)
    assert len(path.vertices) == 2 * 5  # two rectangles
    assert path.contains_point((1.0, 0.5))
    assert not path.contains_point((2.5, 0.5))


# --- every form -------------------------------------------------------------------------------------------------


def test_every_form_says_what_the_first_screen_says(study, paper):
    text = study_markdown(study)
    assert text.startswith(f"### stepscope: {study.verdict}, `{study.name}`\n")
    page = study_html(study)
    first = paper.pages[0].extract_text()
    for answer in study.answers:
        for written in (text.replace("\\", ""), page.replace("&#39;", "'"), first):
            assert answer.question in written
            assert answer.short in written
    assert str(study.verdict) in first
    assert study.name in page


def test_a_page_has_a_table_to_search_and_a_place_for_every_link(study):
    page = study_html(study)
    keys = re.findall(r'id="([^"]+)"', page)
    assert len(keys) == len({*keys})
    assert {*re.findall(r'href="#([^"]+)"', page)} <= {*keys}
    assert page.count("<svg") == page.count("</svg>") >= 2
    assert "<image" not in page
    data = re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data[1]) == json.loads(json.dumps(study.data))


def test_paper_holds_vectors_alone(study, paper):
    assert not any(page.images for page in paper.pages if "/XObject" in page["/Resources"])
    assert paper.metadata.title == f"{study.name} - stepscope"


def validate(path, name):
    schema = json.loads((ROOT / "reports" / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(path.read_bytes()))


def test_json_is_what_the_schemas_say(suite, diagram, tmp_path):
    validate(save_suite(suite, tmp_path / "suite.json"), "suite")
    validate(save_phase(diagram, tmp_path / "phase.json"), "phase")


def test_hostile_names_are_names(suite, diagram, tmp_path):
    row = suite.rows[0]
    about = dataclasses.replace(row.about, source=HOSTILE, why=HOSTILE)
    rows = (dataclasses.replace(row, problem=HOSTILE, notes=(HOSTILE,), about=about), *suite.rows[1:])
    strange = dataclasses.replace(suite, optimizer=HOSTILE, rows=rows)
    other = dataclasses.replace(diagram, problem=HOSTILE, method=HOSTILE)
    paths = [save_suite(strange, tmp_path / f"suite{ending}") for ending in (".html", ".pdf", ".md", ".json", ".xml")]
    paths += [save_phase(other, tmp_path / f"phase{ending}") for ending in PHASE]
    assert all(map(is_ours, paths))
    ElementTree.parse(tmp_path / "suite.xml")
    for path in paths:
        if path.suffix in (".html", ".md"):
            text = path.read_text(encoding="utf-8")
            assert "<script>alert" not in text
            assert not VISIBLE.search(text)
        if path.suffix == ".md":
            prose = re.sub(r"`[^`\n]*`", "", text)
            assert not re.search(r"@\w|#\d", prose)
    assert "<script" not in other._repr_html_()


# --- commands and notebooks -------------------------------------------------------------------------------------


def test_the_phase_command_writes_reports_and_pictures(tmp_path, capsys):
    command = ["phase", "theorem1", "--size", "2", "--steps", "200"]
    for ending in (".md", ".svg"):  # the others are views of the same
        assert cli.main([*command, "-o", str(tmp_path / f"phase{ending}")]) == 0
        kind = "picture" if ending == ".svg" else "report"
        assert f"{kind}: {tmp_path / f'phase{ending}'}" in capsys.readouterr().out
    (tmp_path / "mine.md").write_text("mine")
    assert cli.main([*command, "-o", str(tmp_path / "mine.md")]) == 2
    assert "did not write" in capsys.readouterr().err
    assert cli.main([*command, "-o", str(tmp_path / "phase.xml")]) == 2
    assert "in .html, .pdf, .md or .json for a report, got" in capsys.readouterr().err


def test_a_notebook_shows_the_map(diagram):
    card = diagram._repr_html_()
    assert card == diagram._repr_html_()
    assert "ends wrong in" in card
    assert card.count("<svg") == 1
    assert "How it was computed" in card


def test_what_theory_calls_biased_is_so_in_a_run_too_short_to_see_it():
    result = run_suite(lambda x: torch.optim.Adam(x, betas=(0.9, 0.99)), ["reddi online"], steps=3000)
    (row,) = result.rows
    assert (row.outcome, row.expected) == (Outcome.WRONG, Outcome.WRONG)
    assert "its steps are biased" in {answer.short for answer in suite_study(result).answers}
