"""The picture of what limits a run: its data are those of the judge, it draws whatever a record holds."""

from dataclasses import replace

import numpy as np
import pytest

from stepscope.diagnostics.limits import Limit, limits
from stepscope.reports.limits import BY_TENSOR, TAKES, cells, draw_cells, draw_strips, plate, save_limits, strips
from stepscope.reports.svg import to_svg


def test_strips_hold_the_shares_of_the_stages(make):
    found = limits(make(rho=0.3))
    data = strips(found)
    assert data.shares.shape == data.limiting.shape == (len(TAKES), len(found.stages))
    for row, cause in enumerate(TAKES):
        assert np.array_equal(data.shares[row], [stage.shares[cause] for stage in found.stages], equal_nan=True)
        assert data.limiting[row].tolist() == [stage.limit is cause for stage in found.stages]
    assert data.edges[0] == found.stages[0].first - 1
    assert data.edges[1:].tolist() == [stage.last for stage in found.stages]
    assert found.limit is Limit.BIAS
    assert data.limiting[list(TAKES).index(Limit.BIAS), -1]


def test_cells_hold_the_largest_tensors(make):
    found = limits(trace := make(rho=0.3, tensors=9))
    data = cells(trace, found)
    assert data.names == tuple(f"layer{p}.weight" for p in range(3, 9))
    shares = [[found.tensors[p].shares[cause] for cause in BY_TENSOR] for p in range(3, 9)]
    assert np.array_equal(data.shares, shares, equal_nan=True)
    assert data.limiting[:, BY_TENSOR.index(Limit.BIAS)].all()


def test_the_drawing_says_what_the_data_say(make):
    found = limits(trace := make(rho=0.3))
    svg = to_svg(lambda ax: draw_strips(strips(found), ax), "strips", "shares by cause")
    share = found.stages[-1].shares[Limit.BIAS]
    assert f"{100 * share:.0f} %</text>" in svg
    assert "not measured: call monitor.edge(closure) at times" in svg
    for cause, takes in TAKES.items():
        assert f">{cause}</text>" in svg
        assert f">{takes}</text>" in svg
    table = to_svg(lambda ax: draw_cells(cells(trace, found), ax), "cells", "shares by tensor")
    assert "layer2.weight</text>" in table
    assert "undefined" not in svg + table


def test_the_same_drawing_twice_is_the_same_bytes(make):
    found = limits(make())
    first, second = (to_svg(lambda ax: draw_strips(strips(found), ax), "strips", "shares") for _ in range(2))
    assert first == second


def test_every_record_draws(odd_trace):
    found = limits(odd_trace)
    to_svg(lambda ax: draw_strips(strips(found), ax), "strips", "shares")
    to_svg(lambda ax: draw_cells(cells(odd_trace, found), ax), "cells", "shares")
    drawn = plate(odd_trace, found)
    assert bool(drawn.panels) == bool(found.stages)


def test_the_plate_answers_its_question_first(make):
    found = limits(trace := make(rho=0.3))
    drawn = plate(trace, found)
    assert drawn.question == "What limits the run?"
    assert drawn.caption.startswith("Bias limits this run. The steps make 30 % of the descent")
    assert len(drawn.panels) == 2
    assert len(plate(make(tensors=1), limits(make(tensors=1))).panels) == 1


@pytest.mark.parametrize("tensors", [1, 3])
def test_it_is_written_to_a_file(make, tmp_path, tensors):
    path = save_limits(make(tensors=tensors), tmp_path / "new" / "limits.svg")
    assert path.read_text(encoding="utf-8").count("<svg") == 1
    assert save_limits(replace(make(records=0)), tmp_path / "limits.png").stat().st_size > 1000
