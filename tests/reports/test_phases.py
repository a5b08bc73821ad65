"""The picture of a phase diagram: its words, and what its colour bar says."""

from __future__ import annotations

import pytest

from stepscope.reports.phases import draw_distance, formula, picture
from stepscope.synthetic.named import NAMED, named
from stepscope.synthetic.phase import phase_diagram

LAWS = {
    "0.1/sqrt(ceiling(t/10))": "0.1/√⌈t/10⌉",
    "0.5/sqrt(t)": "0.5/√t",
    "1/sqrt(t)": "1/√t",
    "0.01/sqrt(1 + 0.01*t)": "0.01/√(0.01·t + 1)",
    "0.1*(1 + cos(pi*t/T))/2": "0.05·cos(π·t/T) + 0.05",
    "0.1*0.5**floor(3*t/T)": "0.1·0.5^⌊3·t/T⌋",
    "(1 - t/T)**2": "(1 − t/T)²",
    "1/t**2": "1/t²",
    "t**-0.3": "1/t^0.3",
    "1/(1 + t)": "1/(t + 1)",
    "2*t**(1/3)": "2·t^(1/3)",
    "0.001": "0.001",
    "1e-5": "10⁻⁵",
}


@pytest.mark.parametrize("law", LAWS)
def test_a_law_is_written_in_plain_characters(law):
    assert formula(law) == LAWS[law]


@pytest.mark.parametrize("name", NAMED)
def test_no_program_text_is_left_in_the_law_of_a_named_problem(name):
    assert not [word for word in ("sqrt", "ceiling", "*") if word in formula(NAMED[name].lr)]


@pytest.fixture(scope="module")
def diagram():
    entry = named("zhang10")
    return phase_diagram(
        entry.build(), "adam", ("beta1", 0.0, 0.9), ("beta2", 0.0, 0.99), (3, 3), 2000, entry.lr, start=1
    )


def test_the_title_has_the_steps_and_the_law(diagram):
    assert picture(diagram).title == "adam on zhang n=10: 2k steps, α = 0.1/√⌈t/10⌉"


def test_the_colour_bar_has_the_start_in_white_and_its_ends_to_two_digits(diagram):
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from stepscope.reports.theme import STYLE

    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        draw_distance(picture(diagram), figure.subplots())
        (ax,) = figure.axes
        (bar,) = ax.child_axes
        places = dict(zip([t.get_text() for t in bar.get_yticklabels()], bar.get_yticks(), strict=True))
    start = places.pop("3 (start)")
    assert 10**start == pytest.approx(3)  # from 1 to −2
    fields = {patch: patch.get_path().get_extents() for patch in bar.patches}
    palest = sorted(fields, key=lambda patch: patch.get_alpha())[:2]
    assert sorted(end for patch in palest for end in fields[patch].intervaly)[1:3] == pytest.approx([start, start])
    assert {value(word): 10**place for word, place in places.items()} == pytest.approx(
        {value(word): value(word) for word in places}, rel=0.05
    )  # half of the second digit


def value(word):
    """Return the number that a label says: 0.12 or 3.1·10⁻⁴ or 10⁻⁴."""
    plain = word.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    return float(plain.replace("·10", "e")) if "·" in plain or "⁻" not in word else float(plain.replace("10", "1e", 1))
