"""The report: self-contained, safe, the same for the same input, and in an order that a reader wants."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from stepscope.diagnostics.diagnosis import Verdict, diagnose
from stepscope.diagnostics.limits import limits
from stepscope.diagnostics.trace import Event
from stepscope.reports.formats import render
from stepscope.reports.numerals import typeset
from stepscope.reports.page import apart, code, hash_of, page
from stepscope.reports.tables import threshold
from stepscope.reports.words import ADVICE, MARKS, answers, final, meaning, row

EVIL = '"><img src=http://evil.example/x onerror=alert(1)></script><script>alert(2)</script>{{ 7*7 }}'


class Reader(HTMLParser):
    """Collects the elements of a page, its text, and the text of its headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if {"style", "script"} & set(self._open):
            return
        self.text += data
        if {"h1", "h2", "h3", "h4"} & set(self._open):
            self.headings[-1] += data

    def values(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def runs(make):
    return [("plain", make()), ("uphill", make(rho=-3.0)), ("monotone", make(c_plus=0.0))]


@pytest.fixture(scope="module")
def several(runs):
    return page(runs)


def test_nothing_is_fetched_and_nothing_runs(several):
    reader = Reader(several)
    for name in ("src", "srcset", "data", "action", "poster", "background"):
        assert reader.values(name) == []
    assert all(link.startswith("#") for link in reader.values("href"))
    assert {tag for tag, _ in reader.elements} & {"link", "iframe", "object", "embed", "base", "form", "img"} == set()
    assert [a.get("type") for tag, a in reader.elements if tag == "script"] == ["application/json"] * 3 + [None]
    script = re.search(r"<script>(.*?)</script>", several, re.DOTALL)[1]
    assert f"script-src '{hash_of(script)}'" in several  # and no other may run
    assert not re.search(r"@import|@font-face|https?://|url\((?!#)", several)
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]


def test_ids_are_unique_and_links_lead_somewhere(several):
    ids = Reader(several).values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in Reader(several).values("href")} <= set(ids)


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes_in_any_process(make, tmp_path):
    trace = make(records=60, tensors=2)
    trace.save(tmp_path / "run")
    script = "import sys; from stepscope.reports.cli import main; sys.exit(main(sys.argv[1:]))"
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", script, "report", str(tmp_path / "run"), "-o", str(tmp_path / f"{seed}.html")],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            check=True,
            capture_output=True,
        )
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_markup_in_any_name_stays_text(make):
    trace = make(records=80, tensors=2, names=(EVIL, f"b{EVIL}"))
    trace.scalars = {EVIL: trace.scalars["loss"]}
    trace.events.append(Event(5, "skipped", EVIL, EVIL))
    trace.meta["optimizer"] = EVIL
    trace.meta["hyperparameters"] = [{EVIL: EVIL}]
    trace.meta["versions"] = {EVIL: EVIL}
    trace.tensors[1] = dataclasses.replace(trace.tensors[1], formula=EVIL)
    text = page([(EVIL, trace), ("other", trace)])
    reader = Reader(text)
    assert "img" not in {tag for tag, _ in reader.elements}
    assert text.count("<script>") == 1  # the page's own
    assert "{{ 7*7 }}" in reader.text
    assert [a.get("type") for tag, a in reader.elements if tag == "script"] == ["application/json"] * 2 + [None]


def test_each_diagnosis_is_embedded_as_json(several, runs):
    found = re.findall(r'<script type="application/json" id="run\d-diagnosis">(.*?)</script>', several)
    assert [json.loads(text)["verdict"] for text in found] == [str(trace.diagnose().verdict) for _, trace in runs]


def test_one_run_is_told_in_order(make):
    trace = make(rho=-3.0)
    trace.events.append(Event(7, "skipped", "the scaler skipped this step"))
    reader = Reader(page([("uphill", trace)]))
    figures = [
        "How much of the intended descent do the steps make?",
        "What limits the run?",
        "Is there a certificate?",
        "What did the run itself report?",
        "Which stepsizes did the optimizer really take?",
        "Which tensors step fast, which slow, and since when?",
        "How do the sums grow?",
        "Do stepsizes only fall, or swing up again?",
        "What made stepsizes rise?",
        "How long are the steps against the weights?",
        "Do the steps follow the gradient of their batch?",
        "Which stepsizes answer the gradient they multiply?",
    ]
    told = [heading for heading in reader.headings if heading not in {f.title for f in trace.diagnose().findings}]
    assert told == [
        "uphill", "Findings", "Figures", *figures, "Tensors", "The run's facts", "Events", "What the symbols mean",
    ]  # fmt: skip
    text = reader.text[reader.text.index("Descent efficiency") :]
    order = [
        "Descent efficiency",
        "ρ −3.00",
        "✕ biased",
        "More training leads further away",
        "Is there harm?",
        "Findings",
        "Figures",
        "rising: share",
    ]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    for part in (
        "Theorem 3.1",
        "ICLR 2019",
        "the scaler skipped this step",
        "betas = [0.9, 0.99]",
        "e = lr",
        "3 tensors",
    ):
        assert part in text


def test_several_runs_begin_with_a_table_that_leads_to_each(several, runs):
    reader = Reader(several)
    assert reader.headings[:7] == [
        "3 runs compared",
        "What differs",
        "Where they part from the first",
        "Side by side",
        "Which runs go with their own gradient, and how far?",
        "Which ratios fall towards 0?",
        "How far did each come?",
    ]
    table = several[: several.index("</table>")]
    for i, (name, trace) in enumerate(runs, start=1):
        assert f'<a href="#run{i}" dir="auto">{name}</a>' in table
        assert f"</span> {trace.diagnose().verdict}</span>" in table
    assert [str(trace.diagnose().verdict) for _, trace in runs] == ["uncertified", "biased", "certified"]


@pytest.fixture(scope="module")
def watched(monitored):
    return page([("run", monitored)])


@pytest.fixture(scope="module")
def monitored(rarely_large):
    return rarely_large(1000)


def test_what_other_rules_would_have_had_stands_beside_whose_gradients_they_are(monitored, watched):
    reader = Reader(watched)
    assert "What if: other rules on the gradients of this run" in reader.headings
    told = reader.text.split("What if: other rules")[1]
    for other in monitored.diagnose().what_if:
        assert other.rule in told
    assert "The stream is that of the run that was made" in told
    assert "amsgrad=True" not in told.split("The stream")[0]


def test_the_table_of_tensors_has_rho_first_and_what_is_asked_of_beta2(monitored, watched):
    diagnosis = monitored.diagnose()
    table = watched[watched.index('aria-label="table of tensors, run"') :]
    heads = re.findall(r"<th [^>]*>([^<]*)</th>", table)
    assert heads[:2] == ["tensor", "ρ [95 %]"]
    assert heads[-1] == "β2* [95 %]"
    assert threshold(diagnosis.skewness[1]) in table
    assert "β2 = 0.7 lies below it" in table


def test_what_all_tensors_share_is_told_once(make):
    trace = make()
    html = page([("run", trace)])
    assert len(trace.tensors) > 1
    assert "The same for all tensors: watched " in html
    assert '<th title="steps it took">' not in html
    last = dataclasses.replace(trace.tensors[-1], watched=1, numel=3)
    told_apart = page([("run", dataclasses.replace(trace, tensors=[*trace.tensors[:-1], last]))])
    assert ">watched</th>" in told_apart
    assert "33.3 %" in told_apart


def test_the_contents_of_a_run_with_imagined_rules_lead_to_them(watched):
    assert 'href="#run1-rules">What if</a>' in watched


def test_rho_is_the_first_figure_and_over_time(watched):
    figures = re.findall(r'<figure id="([^"]+)"', watched)
    assert figures[0] == "run1-efficiency"
    assert 'aria-label="ρ over steps"' in watched


def test_runs_that_are_one_run_are_said_to_be(make):
    text = Reader(page([("one", make(records=1)), ("same", make(records=1))])).text
    assert "these are the same run, number for number" in text
    assert "Where they part" not in text


def test_the_contents_lead_to_every_part(several, runs):
    (contents,) = re.findall(r'<nav class="contents" aria-label="contents">(.*?)</nav>', several, re.DOTALL)
    links = re.findall(r'href="#([^"]+)"[^>]*>([^<]+)<', contents)
    assert [key for key, _ in links] == ["differs", "parting", "side", "run1", "run2", "run3", "formulas"]
    assert [title for _, title in links][3:6] == [f"{i} {name}" for i, (name, _) in enumerate(runs, 1)]
    of_a_run = re.findall(r'<nav class="contents" aria-label="contents of [^"]*">(.*?)</nav>', several, re.DOTALL)
    assert [re.findall(r'href="#(run\d)-findings"', nav) for nav in of_a_run] == [["run1"], ["run2"], ["run3"]]
    assert 'href="#run1-rules"' not in several  # nothing was imagined


def test_the_first_of_several_runs_is_open_and_all_are_printed(several, make):
    assert re.findall(r"<details[^>]*>", several) == ["<details open>", "<details>", "<details>"]
    assert "<details" not in page([("alone", make(records=5))])
    printed = several[several.index("@media print") :]
    assert re.search(r"details::details-content \{[^}]*content-visibility: visible", printed)
    for i in (1, 2, 3):  # a link opens the details that its target lies in
        folded = several[: several.index(f'id="run{i}"')]
        assert folded.count("<details") - folded.count("</details>") == 1


def test_an_interval_stands_below_its_value(watched):
    table = watched[watched.index('aria-label="table of tensors, run"') :]
    assert re.search(r'<td>[^<]+<span class="of">\[[^<]+\]</span></td>', table[: table.index("</table>")])
    assert (
        '<div class="broad"><div class="scroll" tabindex="0" role="region" aria-label="table of tensors, run">'
        in watched
    )


@pytest.mark.parametrize(("text", "value", "interval"), [("0.95 [0.9, 1]", "0.95", "[0.9, 1]"), ("–", "–", "")])
def test_a_cell_is_cut_before_its_interval(text, value, interval):
    assert apart(text) == (value, interval)


def test_no_colour_is_called_by_another_name(several, watched):
    """Vermillion looks orange."""
    assert not re.search(r"\bred\b", Reader(several).text + Reader(watched).text, re.IGNORECASE)


@pytest.mark.slow
def test_runs_too_short_to_judge_are_named(make):
    text = Reader(page([("long", make()), ("short", make(last=50)), ("shorter", make(last=40))])).text
    assert "Runs 2 and 3 are too short to judge and left out." in text
    assert "Run 2 is too short" in Reader(page([("long", make()), ("short", make(last=50))])).text
    assert "left out" not in Reader(page([("long", make()), ("other", make(rho=-3.0))])).text


def test_what_differs_and_where_is_in_the_report(make):
    other = make(records=1, rho=-3.0)
    other.meta["hyperparameters"] = [{**other.meta["hyperparameters"][0], "lr": 0.2}]
    text = page([("one", make(records=1)), ("other", other)])
    differing = text[text.index(">What differs</h2>") : text.index(">Where they part from")]
    assert re.findall(r"<td>([^<]*)</td>", differing) == ["lr", "0.1", "0.2"]
    parted = text[text.index(">Where they part from") : text.index(">Side by side</h2>")]
    assert "<td>ρ</td>" in parted
    assert "<b>apart from step" in parted


def test_every_odd_record_has_a_page_and_its_figures(odd_trace):
    text = page([("odd", odd_trace)])
    assert str(odd_trace.diagnose().verdict) in text


@pytest.mark.slow
def test_two_hundred_tensors_stay_below_two_megabytes(make):
    names = tuple(f"model.layers.{p // 4}.block.{'qkvo'[p % 4]}_proj.weight" for p in range(200))
    trace = make(last=1_000_000, records=600, tensors=200, names=names)
    trace.values[:, :, -9:] *= np.random.default_rng(0).random((len(trace.steps), 200, 9))
    assert len(page([("one", trace), ("two", trace)]).encode()) < 2_000_000


def test_every_verdict_has_a_sign_words_and_a_colour(make):
    diagnosis = diagnose(make())
    css = (Path(__file__).parents[2] / "reports" / "layout.html").read_text()
    signs = {MARKS[verdict] for verdict in Verdict}
    assert len(signs) == len(Verdict)
    for verdict in Verdict:
        said = meaning(dataclasses.replace(diagnosis, verdict=verdict))
        assert said.endswith(ADVICE[verdict])
        assert f".{verdict}" in css


@pytest.mark.parametrize(
    ("columns", "shorts"),
    [
        ({}, ("no", "none seen")),
        ({"c_plus": 0.0}, ("yes", "none seen")),
        ({"rho": -3.0}, ("no", "yes")),
        ({"rho": 0.2}, ("no", "none seen")),
        ({"last": 50}, ("not decided", "none seen")),
        ({"b": "a"}, ("no", "none seen")),
    ],
    ids=str,
)
def test_the_four_questions_are_answered_from_the_decisions(make, columns, shorts):
    trace = make(**{name: value for name, value in columns.items() if name != "b"})
    if "b" in columns:  # b grows as a does: a noise ball
        trace.column("b")[:] = trace.column("a")
        trace.groups["lr"][:] = 0.1
    limited = limits(trace)
    said = answers(diagnose(trace), limited)
    assert tuple(answer.short for answer in said[:2]) == shorts
    assert said[2].short == str(limited.limit)
    assert typeset(limited.now).endswith(said[2].lines[0].split(" ", 1)[1])  # but for how it begins
    assert said[3].short.endswith("to try") or said[3].short == "nothing needed"
    assert all(line.endswith(".") for answer in said for line in answer.lines)
    numbered = [line for line in said[3].lines if re.match(r"\d+\. ", line)]
    assert [line.split(". ")[0] for line in numbered] == [str(i) for i in range(1, len(numbered) + 1)]
    counted = int(said[3].short.split()[0]) if said[3].short != "nothing needed" else 0
    assert len(numbered) == counted


def test_an_undecided_run_says_how_much_is_missing(make):
    trace = make(last=2000)
    diagnosis = diagnose(trace)
    assert diagnosis.verdict is Verdict.INCONCLUSIVE
    assert re.search(r"Judging it takes about [\d\u202f]+ more steps\.$", meaning(diagnosis))


def test_a_loss_is_averaged_over_the_last_tenth_and_other_scalars_are_not(make):
    trace = make(last=1000, records=400)
    begin = max(i for i, step in enumerate(trace.steps) if step < 900)
    scalar = trace.scalars["loss"]
    mean = (scalar.total[-1] - scalar.total[begin]) / (scalar.count[-1] - scalar.count[begin])
    assert final(trace) == f"loss {mean:.3g}"
    trace.scalars = {"x": scalar}
    assert final(trace) == f"x {scalar.last[-1]:.4g}"
    trace.scalars = {}
    assert final(trace) == "–"


def test_a_row_names_the_optimizer_by_its_class(make):
    trace = make()
    line = row("run", trace, diagnose(trace))
    assert (line.optimizer, line.steps, line.variance) == ("Adam", 100_000, "holds")
    assert re.fullmatch(r"1\.0\d \[0\.\d\d, 1\.\d\d\]|\d\.\d\d \[.*\]", line.rho)


def test_render_makes_the_folder_and_refuses_nothing_to_show(make, tmp_path):
    path = render([("run", make(records=5))], tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(ValueError, match="at least one pair"):
        render([], tmp_path / "empty.html")


def test_backticks_become_code_and_markup_stays_text():
    assert code("ask `monitor.edge`, not <b>") == "ask <code>monitor.edge</code>, not &lt;b&gt;"
