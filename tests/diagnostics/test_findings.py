"""The two tables of findings, and what a finding says of a run that is too short."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stepscope import Monitor, Trace
from stepscope.diagnostics import findings, findings_record
from stepscope.diagnostics.alert import Alert
from stepscope.diagnostics.conditions import Decision
from stepscope.diagnostics.evidence import gather
from stepscope.diagnostics.findings import findings_of, not_yet
from stepscope.diagnostics.findings_record import survived
from stepscope.diagnostics.limits import limits
from stepscope.diagnostics.trace import COLUMNS, Event
from stepscope.reports import cli
from stepscope.reports.page import page
from stepscope.reports.words import answers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def short(worlds):
    """1000 steps of Adam, whose judged part would begin at step 10 000."""
    return gather(worlds.play("quadratic", "adam", 1000, beta2=0.999).trace())


def test_what_keeps_all_conditions_from_being_judged_is_left_to_the_checks(short):
    reason = short.variance.reason
    assert reason == short.bias.reason == short.growth.reason
    (found,) = [finding for finding in findings_of(short) if finding.title == "Not decided yet"]
    assert found.text == (
        "The variance condition, the bias condition and the growth of a wait for more steps after step 10000."
    )
    more = "Train at least 56000 more steps, then ask again"  # 10 000 · 2^{5/2} = 56 569 in all, 1000 are made
    assert found.suggestion == f"{more}; if you need no certificate, nothing."
    assert not any("usable blocks" in finding.text for finding in findings_of(short))


@pytest.mark.parametrize(
    ("beta2", "gap", "title"),
    [(0.5, 50, "Gradients come less often than v remembers"), (0.99, 10**9, "Dormant coordinates carry a")],
)
def test_gradients_that_come_rarely_are_told_from_those_that_never_come(beta2, gap, title):
    """One coordinate in a hundred learns; the others have a gradient every `gap` steps, or only the first one."""
    x = torch.nn.Parameter(torch.zeros(100))
    optimizer = torch.optim.Adam([("x", x)], lr=1e-3, betas=(0.0, beta2))
    rng = torch.Generator().manual_seed(0)
    with Monitor(optimizer) as monitor:
        for step in range(2000):
            x.grad = torch.randn(100, generator=rng) * (1.0 if step % gap == 0 else 0.0)
            x.grad[0] = torch.randn((), generator=rng)
            optimizer.step()
        diagnosis = monitor.diagnose()
    (found,) = [f for f in diagnosis.findings if f.title.startswith(("Gradients come less", "Dormant"))]
    assert found.title == title
    if gap == 50:
        assert "1/(1 - beta2) = 2 steps" in found.text
        assert "1.41 lr" in found.text


def test_reasons_that_differ_are_given_one_by_one(short):
    bias = replace(short.bias, reason="the bias is too scattered to call.", steps_needed=70_000)
    found = not_yet(replace(short, bias=bias))
    assert short.variance.reason[1:] in found.text
    assert found.text.endswith("The bias is too scattered to call.")
    assert found.text.count("usable blocks") == 1
    assert "70000 more steps" in found.suggestion


def test_a_single_open_condition_gives_its_own_reason(short):
    settled = {
        name: replace(getattr(short, name), decision=Decision.HOLDS, steps_needed=None) for name in ("variance", "bias")
    }
    assert short.growth.reason[1:] in not_yet(replace(short, **settled)).text
    assert not_yet(replace(short, **settled, annealed=True)) is None  # growth is no question in an annealed run


def test_the_record_comes_after_the_verdict(short):
    """The verdict's findings are the more serious ones; within a table the order is that of the table."""
    table = (*findings.FINDINGS, *findings_record.RECORD_FINDINGS)
    assert findings_of(short) == tuple(found for finding in table if (found := finding(short)) is not None)


def test_a_count_that_is_not_finite_counts_nothing(short):
    trace = replace(short.trace, values=short.trace.values.copy(), events=[Event(7, "nonfinite", "1 gradient is NaN.")])
    trace.values[-1, :, COLUMNS.index("nonfinite")] = math.inf
    assert "in 0 coordinate-steps and 1 events" in survived(replace(short, trace=trace)).text


def alert(step, rule="update surge", tensor="w1", suggestion="look at the last batches"):
    return Event(step, "alert", Alert(rule, step, tensor, f"{rule} there", "an odd batch", suggestion).line(), tensor)


def test_alerts_are_told_of_first_each_rule_once_with_what_to_try(short):
    events = [
        alert(40, tensor="w2"),
        alert(50),
        alert(60, "learning rate", None, "lower the rate to about 0.001"),
        alert(70, tensor="w2"),
        Event(80, "closed", "closed by its owner"),
    ]
    found = findings_of(replace(short, trace=replace(short.trace, events=events)))[0]
    assert found.title == "Alerts came while the run went on"
    assert found.text == (
        "Update surge at step 40 in w2: update surge there. Likely cause: an odd batch. 2 more of this rule came, the "
        "last at step 70. Learning rate at step 60: learning rate there. Likely cause: an odd batch."
    )
    assert (found.tensors, found.steps) == (("w2", "w1"), (40, 70))
    assert found.suggestion == "Look at the last batches. Lower the rate to about 0.001."
    old = replace(short.trace, events=[Event(9, "alert", "update surge: RMS_t is 5", "w")])
    (before,) = [f for f in findings_of(replace(short, trace=old)) if f.title == found.title]
    assert before.text == "Update surge at step 9 in w: RMS_t is 5."
    assert "docs/alerts.md" in before.suggestion
    assert not any(f.title == found.title for f in findings_of(short))


def test_an_alert_of_a_real_run_is_printed_by_the_diagnosis_and_the_command(tmp_path, capsys):
    """Also from disk: the record carries cause and suggestion."""
    x = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.Adam([("x", x)], lr=1e-3)
    with Monitor(optimizer, tmp_path / "run", strict=True, what_if=()) as monitor:
        for step in range(40):
            optimizer.param_groups[0]["lr"] = 1e-3 if step < 30 else 10.0
            x.grad = torch.ones(4)
            optimizer.step()
    shown = " ".join(str(monitor.diagnose()).split())
    assert "1. Alerts came while the run went on Learning rate at step 31 in x:" in shown
    assert "Try: Lower the rate to about 0.001" in shown
    cli.main(["diagnose", str(tmp_path / "run")])
    assert "Lower the rate to about 0.001" in " ".join(capsys.readouterr().out.split())
    (*_, change) = answers(Trace.load(tmp_path / "run").diagnose(), limits(monitor.trace))
    assert "Lower the rate to about 0.001" in change.lines[0]
    assert "1 alert while the run went on: learning rate at step 31; see the findings." in page([("r", monitor.trace)])


@pytest.mark.parametrize(("eps", "few", "told"), [(1e-30, 5, True), (1e-8, 5, False), (1e-30, 0, False)])
def test_an_eps_below_the_rounding_of_the_gradients(eps, few, told):
    """Of 200 coordinates a few have gradients 1e-9 times as large as the others'; a default eps holds them back."""
    torch.manual_seed(0)
    size = torch.ones(200)
    size[:few] = 1e-9
    x = torch.nn.Parameter(torch.zeros(200))
    optimizer = torch.optim.Adam([("x", x)], lr=1e-3, eps=eps)
    monitor = Monitor(optimizer, strict=True, what_if=())
    for _ in range(300):
        x.grad = size * torch.randn(200)
        optimizer.step()
    found = findings_record.eps_too_small(gather(monitor.trace))
    assert (found is not None) is told
    if found:
        assert found.tensors == ("x",)
        assert "in x their stepsizes are 1e+09 times the smallest" in found.text


@pytest.mark.parametrize(
    ("module", "table"),
    [(findings, findings.FINDINGS), (findings_record, findings_record.RECORD_FINDINGS)],
    ids=["verdict", "record"],
)
def test_every_finding_is_in_its_table_and_in_the_documents(module, table):
    functions = [
        node for node in ast.parse(Path(module.__file__).read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    making = {
        function.name: node
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding"
    }
    assert [function.__name__ for function in table] == list(making)
    explained = (ROOT / "docs" / "verdicts.md").read_text()
    for call in making.values():
        assert ast.literal_eval(call.args[2]).startswith("docs/theory.md ")
        parts = list(ast.walk(call.args[0]))
        constants = [node.value for node in parts if isinstance(node, ast.Constant)]
        constants += [getattr(module, node.id, None) for node in parts if isinstance(node, ast.Name)]
        titles = [text for text in constants if isinstance(text, str) and " " in text]
        assert titles
        assert all(f"\n| {title.strip()}" in explained for title in titles)
