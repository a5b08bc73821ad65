"""The words of a report: the first number, the table of what other rules would have had, what tensors ask of β2."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from stepscope import Monitor
from stepscope.diagnostics.compare import compare
from stepscope.diagnostics.conditions import Decision
from stepscope.diagnostics.diagnosis import diagnose
from stepscope.diagnostics.drift import Harm, HarmDecision, undecided
from stepscope.diagnostics.imagined import MEMBERS, USUAL
from stepscope.diagnostics.limits import limits
from stepscope.diagnostics.skewness import WHOLE, Skewness
from stepscope.reports.evidence import judged
from stepscope.reports.numerals import typeset
from stepscope.reports.tables import (
    STREAM,
    decay,
    differing,
    parted,
    rules,
    skewness_note,
    tensor_cells,
    threshold,
)
from stepscope.reports.words import IN_DOUBT, MARKS, UNRESOLVED, answers, headline, meaning

NAN, INF = math.nan, math.inf
HARMFUL, HARMLESS, OPEN = HarmDecision.HARMFUL, HarmDecision.HARMLESS, HarmDecision.INCONCLUSIVE


def harm(rho, interval, decision, z=3.0):
    return Harm(rho, interval, 1.0, z, decision, "", 2049, 3968)


@pytest.fixture(scope="module")
def monitored(rarely_large):
    return rarely_large(2000)


# --- the first number --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "number", "interval", "says"),
    [
        (harm(0.46, (0.41, 0.52), HARMLESS), "0.46", "[0.41, 0.52]", "the steps make 46 %."),
        (
            harm(0.47, (0.37, 2.09), HARMLESS),
            "0.47",
            "[0.37, 2.09]",
            "reaches 1, so a loss is not certain",
        ),
        (harm(0.004, (0.003, 0.005), HARMLESS), "0.00", "[0.00, 0.01]", "less than 1 %"),
        (harm(1.0, (1.0, 1.0), HARMLESS), "1.00", "[1.00, 1.00]", "all of the descent"),
        (harm(1.3, (1.1, 1.5), HARMLESS), "1.30", "[1.10, 1.50]", "all of the descent"),
        (harm(-18.5, (-20.9, -16.7), HARMFUL, -21.0), "−18.5", "[−20.9, −16.7]", "go against the mean gradient"),
        (harm(0.1, (-0.5, 0.7), OPEN, 0.3), "0.10", "[−0.50, 0.70]", "Not resolved"),
        (harm(0.8, (-INF, INF), HARMLESS), "> 0", "", "how much of the intended descent they make is not resolved"),
        (harm(-3.0, (-INF, INF), HARMFUL, -5.0), "< 0", "", "go against the mean gradient"),
        (harm(NAN, (-INF, INF), OPEN, 0.1), "?", "", "Not resolved"),
    ],
)
def test_the_first_number_is_rho(found, number, interval, says):
    line = headline(found)
    assert (line.number, line.interval) == (number, interval)
    assert says in line.says
    assert line.says.endswith("Steps 2\u202f049 to 3\u202f968.")


def test_a_run_too_short_to_measure_says_so():
    line = headline(undecided("there are too few stretches yet", 12, 12))
    assert (line.number, line.interval) == ("?", "")
    assert line.says == "The drift test could not be made: there are too few stretches yet."


# --- what if -----------------------------------------------------------------------------------------------------


def test_the_table_of_rules_has_a_row_for_each(monitored):
    diagnosis = diagnose(monitored)
    rows = rules(diagnosis)
    assert [row.name for row in rows] == ["as it was", *USUAL]
    assert [row.own for row in rows] == [True] + [False] * len(USUAL)
    found = {row.name: row for row in rows}
    assert found["amsgrad"].bias_ratio == found["sgd"].bias_ratio == "0"
    assert found["sgd"].bias is Decision.HOLDS
    for row, other in zip(rows, diagnosis.what_if, strict=True):
        assert (row.bias, row.variance, row.harm) == (
            other.bias.decision,
            other.variance.decision,
            other.harm.decision,
        )
        assert {row.bias, row.variance, row.harm} <= set(MARKS)


def test_where_nothing_was_imagined_there_is_no_table(make):
    trace = make()
    assert rules(diagnose(trace)) == ()
    (*_, last) = answers(diagnose(trace), limits(trace))
    assert "Not measured" in last.lines[-1]


def test_the_note_says_whose_gradients_and_how_many_coordinates():
    assert "the gradients that this run met" in STREAM
    assert "Another rule would have gone elsewhere" in STREAM
    assert f"at most {MEMBERS} coordinates" in STREAM


def test_the_answer_names_the_rules_that_would_do_better(monitored):
    diagnosis = diagnose(monitored)
    (*_, answer) = answers(diagnosis, limits(monitored))
    assert answer.question == "What would change it?"
    told = " ".join(answer.lines)
    assert "c⁺/a would tend to 0" in told
    assert "amsgrad 0" in told
    own, *others = diagnosis.what_if
    higher = [other.rule for other in others if other.harm.interval[0] > own.harm.interval[1]]
    assert higher
    assert all(typeset(rule) in told.split("ρ would be higher")[1] for rule in higher)


def test_where_no_rule_stands_out_it_is_said(monitored):
    diagnosis = diagnose(monitored)
    alone = dataclasses.replace(diagnosis, what_if=diagnosis.what_if[:1])
    (*_, answer) = answers(alone, limits(monitored))
    assert answer.lines[-1].startswith("No other rule stands out")


# --- skewness ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beta", "text"),
    [(0.0, "0"), (0.4, "0.4"), (0.9, "0.9"), (0.99961, "0.99961"), (0.999604, "0.9996"), (1.0, "1"), (NAN, "–"),
     (0.98181, "0.982")],
)  # fmt: skip
def test_a_decay_has_two_digits_of_what_it_lacks_to_one(beta, text):
    assert decay(beta) == text


def test_a_threshold_that_is_not_resolved_is_a_dash():
    known = Skewness("w", 100.0, (80.0, 120.0), 0.98, (0.975, 0.983))
    assert threshold(known) == "0.98 [0.975, 0.983]"
    assert threshold(dataclasses.replace(known, interval=(-INF, INF), beta2_interval=(0.0, 1.0))) == "–"


def test_a_beta2_below_its_threshold_is_named(monitored):
    diagnosis = diagnose(monitored)
    whole = diagnosis.skewness[0]
    assert whole.beta2 == pytest.approx(0.881, abs=0.01)
    note = skewness_note(monitored, diagnosis)
    assert "to first order" in note
    assert "β2 = 0.7 lies below it" in note
    assert threshold(whole) in note


def test_a_beta2_above_its_threshold_is_said_to_be(make):
    trace = make()
    found = (Skewness(WHOLE, 5.0, (4.0, 6.0), 0.5, (0.33, 0.6)), Skewness("w", 5.0, (4.0, 6.0), 0.5, (0.33, 0.6)))
    diagnosis = dataclasses.replace(diagnose(trace), skewness=found)
    assert "β2 = 0.99 does not lie below it" in skewness_note(trace, diagnosis)
    trace.groups["beta2"][:] = 0.1
    assert "β2 = 0.1 lies below it" in skewness_note(trace, diagnosis)
    monotone = make(c_plus=0.0)
    monotone.groups["beta2"][:] = 0.1
    held = dataclasses.replace(diagnose(monotone), skewness=found)
    assert "whose stepsizes do not keep rising" in skewness_note(monotone, held)


def test_without_skewness_or_beta2_nothing_is_claimed(make):
    trace = make()
    assert skewness_note(trace, diagnose(trace)) == ""
    blind = (Skewness(WHOLE, NAN, (-INF, INF), NAN, (0.0, 1.0)),)
    assert "could not be measured" in skewness_note(trace, dataclasses.replace(diagnose(trace), skewness=blind))
    trace.groups["beta2"][:] = NAN
    known = (Skewness(WHOLE, 5.0, (4.0, 6.0), 0.5, (0.33, 0.6)),)
    assert "no β2" in skewness_note(trace, dataclasses.replace(diagnose(trace), skewness=known))


def test_every_tensor_has_its_cells(make, monitored):
    trace = make()
    cells = tensor_cells(diagnose(trace), judged(trace))
    assert len(cells) == 3
    assert {cell["beta2*"] for cell in cells} == {"–"}
    assert all(cell["rho"].startswith("1.0") for cell in cells)
    (cell,) = tensor_cells(diagnose(monitored), judged(monitored))
    assert cell["beta2*"] == threshold(diagnose(monitored).skewness[1])
    assert tensor_cells(diagnose(make(records=0)), ()) == [{"rho": "–", "beta2*": "–"}] * 3


# --- several runs ------------------------------------------------------------------------------------------------


def test_tables_of_a_comparison(make):
    found = compare({"a": make(), "b": make(rho=-3.0), "same": make()})
    rows = dict(parted(found))
    assert list(rows) == ["loss", "ρ", "stepsize (median)", "stepsize (1 %)", "c⁺/a"]
    assert [cell.words for cell in rows["loss"]][1] == "the same run"
    assert [one.what for one in found.differences] == [what for what, _ in differing(found)] == []
    assert parted(compare({"a": make(), "same": make()})) == []


# --- what to do --------------------------------------------------------------------------------------------------


def test_nobody_is_told_to_carry_on_while_harm_is_not_resolved(make):
    found = diagnose(make())
    assert str(found.verdict) == "uncertified"
    assert "Carry on" in meaning(found)
    doubtful = dataclasses.replace(found, harm=undecided("too little", *[1, 2]))
    assert meaning(doubtful) == f"{UNRESOLVED} {IN_DOUBT}"


def test_a_rate_that_has_ended_is_not_told_to_train_on():
    def trained(scheduled):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.ones(50))
        optimizer = torch.optim.Adam([p], lr=1e-2)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
        with Monitor(optimizer) as monitor:
            for _ in range(600):
                p.grad = p.detach() + 0.1 * torch.randn(50)
                optimizer.step()
                if scheduled:
                    cosine.step()
        return monitor.diagnose()

    ended, constant = trained(True), trained(False)
    assert str(ended.verdict) == str(constant.verdict) == "inconclusive"
    assert "Its rate has come to its end; for a certificate plan about 57\u202f000 steps." in meaning(ended)
    assert "this plan has come to its end" in str(ended)
    assert "Judging it takes about 56\u202f000 more steps." in meaning(constant)
    assert "Train at least 56000 more steps" in str(constant)
