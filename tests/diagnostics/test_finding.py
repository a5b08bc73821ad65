"""How a finding is put into words: sentences that begin with a symbol, and rules that are read in a line."""

from __future__ import annotations

import pytest

from stepscope import simulate
from stepscope.diagnostics.conditions import Condition, Decision
from stepscope.diagnostics.drift import undecided
from stepscope.diagnostics.finding import sentence
from stepscope.diagnostics.what_if import Alternative


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rho = 1", "rho = 1."),
        ("c+/a stands at 0.1.", "c+/a stands at 0.1."),
        ("b/a falls", "b/a falls."),
        ("a stands still", "a stands still."),
        ("a call of `step()` moved nothing", "A call of `step()` moved nothing."),
        ("amsgrad=True helps", "amsgrad=True helps."),
        ("over 11 blocks b/a falls", "Over 11 blocks b/a falls."),
        ("rhombic", "Rhombic."),
        ("both hold", "Both hold."),
        ("", "."),
    ],
)
def test_a_sentence_leaves_symbols_at_its_head_alone(text, expected):
    assert sentence(text) == expected


def test_a_diagnosis_capitalises_no_symbol():
    text = str(simulate("online", "adam", steps=30_000).diagnose())
    assert "\n  rho = " in text
    assert not any(word in text for word in ("Rho", "C+", "B/a"))


def test_imagined_rules_are_read_in_a_line():
    holds = Condition(Decision.HOLDS, -1.0, -1.1, -0.9, None, None, "")
    rule = Alternative("amsgrad", 9, 1.2e-7, 0.0, holds, holds, True, undecided("too short"))
    assert repr((rule,)) == "(<amsgrad: b/a 1.2e-07 holds, c+/a 0 holds, rho nan inconclusive>,)"
