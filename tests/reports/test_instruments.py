"""The plates of the instruments: which there are, what they hold, and the levels they are read by."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from stepscope.diagnostics.coupling import Coupling
from stepscope.diagnostics.drift import HarmDecision
from stepscope.diagnostics.trace import Scalars
from stepscope.reports.instruments import (
    ANGLES,
    Lines,
    alignments,
    angles,
    certainties,
    couplings,
    draw_alignments,
    draw_angles,
    draw_certainties,
    draw_losses_to_float16,
    draw_momenta,
    draw_rates,
    instrument_plates,
    losses_to_float16,
    momenta,
    rates,
)


def scalar(steps, values):
    steps, values = np.array(steps), np.array(values, dtype=np.float64)
    return Scalars(steps, values, np.cumsum(values), np.arange(1.0, len(steps) + 1))


@pytest.fixture
def measured(make):
    """A run with momentum that adds up and every scalar of the instruments."""
    trace = make()
    steps = [128, 256, 512]
    names = [tensor.name for tensor in trace.tensors]
    shares = dict(zip(names, (0.0, 0.01, 0.2), strict=True))
    trace.scalars |= {
        **{f"angle/{stride}": scalar(steps, [90, 100, 110]) for stride in (1, 2, 4)},
        **{f"conformity/{name}": scalar(steps, [0.9, 0.7, 0.5]) for name in ("all", *names)},
        **{f"inertia/{name}": scalar(steps, [0.1, 0.2, 0.3]) for name in ("p1", "p10", "p50", "clipped")},
        **{f"underflow/{name}": scalar(steps, [0, 0, share]) for name, share in shares.items()},
    }
    trace.meta["optimizer"] = "torch.optim.sgd.SGD"
    trace.meta["hyperparameters"] = [{"lr": 0.1, "momentum": 0.9, "dampening": 0}]
    return trace


def test_a_run_that_tells_everything_has_a_plate_for_each(measured):
    found = instrument_plates(measured)
    keys = [plate.key.removeprefix("instrument-") for plate in found]
    assert keys == ["angle", "conformity", "alignment", "inertia", "rate", "underflow", "coupling"]
    assert all(plate.question.endswith("?") and plate.caption.endswith(".") for plate in found)
    assert len({plate.question for plate in found}) == len(found)


def test_what_was_not_measured_is_left_out(make):
    one = make(tensors=1)
    one.column("alignment")[:] = np.nan
    assert instrument_plates(one) == []
    one.scalars["angle/1"] = scalar([128], [90])  # a single point is no curve
    assert instrument_plates(one) == []


def test_what_the_plates_hold(measured):
    assert angles(measured).curves["4 intervals"][1].tolist() == [90, 100, 110]
    assert next(iter(certainties(measured).curves)) == "all tensors"
    assert list(momenta(measured).curves) == ["median", "10 %", "1 %", "share at 0"]
    most = [curve[-1] for _, curve in losses_to_float16(measured).curves.values()]
    assert most == [0.2, 0.01]  # of the third tensor nothing is lost
    pair = rates(measured).curves
    assert list(pair) == ["effective", "learning rate"]
    assert pair["effective"][1] == pytest.approx(10 * pair["learning rate"][1])


@pytest.mark.parametrize(
    ("of", "draw", "levels"),
    [
        (angles, draw_angles, set(ANGLES)),
        (certainties, draw_certainties, {0.5, 1.0}),
        (alignments, draw_alignments, {0.0, 1.0}),
        (momenta, draw_momenta, {0.9}),
        (losses_to_float16, draw_losses_to_float16, {1e-3}),
    ],
)
def test_levels_are_drawn_and_named(measured, of, draw, levels):
    ax = Figure().subplots()
    draw(of(measured), ax)
    across = {float(line.get_ydata()[0]) for line in ax.lines if list(line.get_xdata()) == [0, 1] and line.is_dashed()}
    assert across == levels
    assert len(ax.texts) == len(levels)
    low, high = ax.get_ylim()
    assert all(low <= level <= high for level in levels)


def test_learning_rates_of_zero_are_said():
    ax = Figure().subplots()
    draw_rates(Lines({"effective": (np.arange(1, 4), np.zeros(3))}), ax)
    assert [text.get_text() for text in ax.texts] == ["Every learning rate is 0."]


def test_the_lowest_couplings_come_first_and_unresolved_ones_not():
    found = couplings(
        [
            Coupling("even", 1.0, (0.9, 1.1)),
            Coupling("lost", 0.4, (-np.inf, np.inf)),
            Coupling("uphill", -0.5, (-0.6, -0.4)),
            Coupling("open", 0.1, (-0.2, 0.3)),
        ]
    )
    assert found.names == ("uphill", "open", "even")
    assert found.decisions == (HarmDecision.HARMFUL, HarmDecision.INCONCLUSIVE, HarmDecision.HARMLESS)
    assert couplings([]).names == ()
