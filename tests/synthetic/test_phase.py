"""Phase diagrams: cells are what `simulate` says, boundaries are where theory puts them, sweeps resume and travel."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepscope.synthetic import ledger, sweep
from stepscope.synthetic.arrivals import Cyclic, Random, Shuffled
from stepscope.synthetic.boundaries import boundaries
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.grid import Axis, Work, contested
from stepscope.synthetic.noise import Gaussian
from stepscope.synthetic.periodic import periodic_drift
from stepscope.synthetic.phase import BETA1, BETA2, Ending, phase_diagram
from stepscope.synthetic.problem import Problem
from stepscope.synthetic.sweep import ending, sweep_of

NAMES = ("made", "intended")
PERIOD = (3.0, -1.0, -1.0)
LR = "0.5/sqrt(t)"
LOWER = ("beta2", 0.0, 0.9)


def cycle(**options):
    return Problem(["3*x", "-x"], Cyclic([0, 1, 1]), domain=(-1, 1), start=0, name="cycle", **options)


@pytest.fixture(scope="module")
def small():
    return phase_diagram(cycle(), size=(4, 6), y=LOWER, x=("beta1", 0.0, 0.5), steps=3000, lr=LR)


# --- twin: a cell is a simulation ------------------------------------------------------------------------------


def test_cells_are_what_simulate_says(small):
    for j, i in ((0, 0), (2, 3), (5, 1)):
        betas = (small.x_values[i], small.y_values[j])
        trace = simulate(cycle(), "adam", 3000, LR, betas, records=3000)
        late = trace.steps > 2700
        distances = np.abs(trace.path[late, 0, 0] + 1)
        # 32 of the 300 values are averaged: within the range of a period of all
        assert distances.min() <= small.distance[j, i] <= distances.max()
        half = np.searchsorted(trace.steps, 1500)
        made, intended = (np.diff(trace.scalars[f"descent_{n}"].last[[half, -1]]).item() for n in NAMES)
        assert small.rho[j, i] == pytest.approx(made / intended, rel=1e-9)


PLAYED = {
    "adam": (("beta1", "beta2"), [(0.3, 0.5), (0.9, 0.9)], Random((0.4, 0.6)), 1),
    "amsgrad_torch": (("beta2", "beta1"), [(0.5, 0.3), (0.9, 0.9)], Shuffled(), 2),
    "demon_adam": (("beta1", "lr"), [(0.3, 0.25)], Cyclic([0, 1, 1]), 1),
    "adashift": (("n", "lr"), [(4.0, 0.25), (2.0, 2.0)], Random((0.4, 0.6)), 2),
}
"""Methods by their axes, cells and problems: with chance and without, rules that couple the coordinates of a run, cells
with more state than their neighbours. A factor of the learning rate that is a power of two costs no rounding."""


@pytest.mark.parametrize("name", PLAYED)
def test_the_lean_loop_is_where_simulate_is(name, monkeypatch):
    """Bit for bit, wherever the loop is left."""
    monkeypatch.setattr(sweep, "PIECE", 89)
    names, points, arrival, dim = PLAYED[name]
    parts = ["3*x + x**2", "-x + x**2/4"] if dim == 1 else ["3*x + x**2 + y**2/2", "-x + (x + y)**2/4"]
    noise = Gaussian(0.5) if dim == 2 else None
    problem = Problem(parts, arrival, variables=["x", "y"][:dim], domain=(-1, 1), start=0.5, noise=noise)
    swept = sweep_of(problem, name, names, 401, LR, [3, 5], None, {})
    at, sums = swept.trajectories(points)
    for c, point in enumerate(points):
        chosen = dict(zip(names, point, strict=True))
        lr = f"{chosen.pop('lr', 1.0)}*{LR}"
        trace = simulate(problem, name, 401, lr, seeds=swept.seeds, records=401, **chosen)
        np.testing.assert_array_equal(at[c], trace.path[swept.record_at - 1])
        for value, extra in zip(sums[c], NAMES, strict=True):
            before, after = trace.scalars[f"descent_{extra}"].last[[199, 400]] * len(swept.seeds)
            assert value == pytest.approx(after - before, rel=1e-9, abs=1e-9 * abs(after))


def test_the_lean_loop_goes_on_where_numbers_end():
    """One step past the range of floats is none; the sums leave it out as `simulate` does."""
    climbs = Problem(["x**2", "x**2/2"], Random(), start=1)
    swept = sweep_of(climbs, "momentum", ("beta1", "lr"), 2000, 1.0, 2, None, {})
    at, sums = swept.trajectories([(0.5, 8.0)])
    trace = simulate(climbs, "momentum", 2000, 8.0, seeds=2, records=2000, beta1=0.5)
    assert not np.isfinite(at).all()
    np.testing.assert_array_equal(at[0], trace.path[swept.record_at - 1])
    np.testing.assert_array_equal(np.isfinite(sums[0]), True)


def test_learning_rate_axis_multiplies_the_law():
    spans = ("lr", 0.01, 100.0), ("beta2", 0.0, 0.999)
    found = phase_diagram(cycle(), "rmsprop", *spans, size=(2, 1), steps=500, lr="0.1/sqrt(t)")
    assert found.x_values == pytest.approx([0.1, 10.0])
    beta2 = float(found.y_values[0])
    for i, lr in enumerate(("0.01/sqrt(t)", "1/sqrt(t)")):
        alone = phase_diagram(
            cycle(), "rmsprop", ("eps", 0.0, 2e-8), ("beta2", 0.0, 1 - (1 - beta2) ** 2), (1, 1), 500, lr
        )
        assert alone.y_values[0] == pytest.approx(beta2)
        assert found.distance[0, i] == pytest.approx(alone.distance[0, 0], rel=1e-6)


# --- theorem: the boundary is where the drift changes sign -----------------------------------------------------


def test_every_decided_cell_lies_on_the_side_that_the_drift_says(small):
    """The drift moves x by −D Σα/3; where that is twice the box or more, the run has to have arrived."""
    grid = [(float(b1), float(b2)) for b2 in small.y_values for b1 in small.x_values]
    drifts = np.array([float(periodic_drift(PERIOD, *betas, eps=1e-8)) for betas in grid]).reshape(small.ending.shape)
    way = drifts * (0.5 / np.sqrt(np.arange(1, 3001))).sum() / 3
    assert {*small.ending[way > 4]} == {Ending.RIGHT}
    assert {*small.ending[way < -4]} == {Ending.WRONG}
    assert Ending.WRONG not in small.ending[drifts > 0]
    assert Ending.RIGHT not in small.ending[drifts < 0]


def test_known_boundaries():
    lines = boundaries(cycle(), "adam", np.array([0.0, 0.5]))
    assert [line.name for line in lines[:2]] == ["β1 = √β2", "drift changes sign"]
    assert lines[0].beta2 == pytest.approx([0.0, 0.25])
    assert lines[1].beta2[0] == pytest.approx(0.4723, abs=5e-5)
    game = Problem(["1010*x", "-10*x"], Cyclic([0] + [1] * 100), domain=(-1, 1))
    drift = boundaries(game, "adam", np.array([0.0, 0.9, 0.99]))[1]
    assert drift.beta2 == pytest.approx([0.999603, 0.999516, 0.997640], abs=5e-7)


def test_boundaries_where_theory_has_none():
    beta1 = np.array([0.5])
    assert boundaries(cycle(), "amsgrad", beta1) == ()
    curved = Problem(["x**2", "-x"], Cyclic([0, 1]), domain=(-1, 1), start=0.5)
    for problem in (curved, cycle(noise=Gaussian(1.0)), Problem(["x", "-x"], Cyclic([0, 1]), domain=(-1, 1))):
        assert [line.name for line in boundaries(problem, "adam", beta1)] == ["β1 = √β2"]
    drawn = boundaries(Problem(["10*x", "-x"], Random((0.1, 0.9)), domain=(-1, 1)), "adam", np.array([0.0]))
    assert drawn[1].beta2[0] == pytest.approx(0.978, abs=5e-4)


# --- how a run ends --------------------------------------------------------------------------------------------


def test_a_run_that_leaves_after_a_lucky_start_is_not_right():
    early, late = np.array([[0.2, 0.21]]), np.array([[0.5, 0.51]])
    assert ending(early, late, 1.0) is Ending.UNDECIDED
    assert ending(late, early, 1.0) is Ending.RIGHT
    assert ending(late, early, 0.1) is Ending.UNDECIDED  # on the way back
    assert ending(early, late, 0.1) is Ending.WRONG
    assert ending(early, np.array([[0.5, np.inf]]), 1.0) is Ending.UNSTABLE


def test_a_run_that_swings_about_its_start_has_not_moved():
    """Sitting at the far end of a box, it is never farther than at the start and always a little nearer."""
    late = np.array([[1.99, 1.999]])
    assert ending(late, late, 2.0) is Ending.UNDECIDED


def test_seeds_have_to_agree():
    right, wrong = [[0.5, 0.5]], [[1.5, 1.5]]
    mixed = np.array(right * 7 + wrong)
    assert ending(mixed, mixed, 1.0) is Ending.RIGHT
    mixed = np.array(right * 6 + wrong * 2)
    assert ending(mixed, mixed, 1.0) is Ending.UNDECIDED


def test_a_problem_without_chance_is_played_once(small):
    spans = {"size": (1, 1), "steps": 50, "lr": LR, "seeds": 3}
    assert phase_diagram(cycle(), **spans).seeds == (0,)
    assert phase_diagram(cycle(noise=Gaussian(1.0)), **spans).seeds == (0, 1, 2)


# --- the grid --------------------------------------------------------------------------------------------------


@given(st.floats(0, 0.99), st.floats(1e-6, 0.9), st.integers(1, 40))
def test_middles_of_an_axis_lie_between_its_edges(low, share, cells):
    axis = Axis("beta2", low, low + (0.9999 - low) * share)
    edges, middles = axis.edges(cells), axis.middles(cells)
    assert edges[[0, -1]] == pytest.approx([axis.low, axis.high], abs=1e-12)
    assert ((edges[:-1] <= middles) & (middles <= edges[1:])).all()
    assert axis.back(axis.to(middles)) == pytest.approx(middles, abs=1e-12)
    assert np.diff(np.log1p(-edges)) == pytest.approx(np.log1p(-edges)[[0, -1]] @ [-1, 1] / cells, rel=1e-3, abs=1e-9)


@given(st.lists(st.lists(st.sampled_from(list(Ending)), min_size=5, max_size=5), min_size=1, max_size=6))
def test_contested_cells_by_looking_at_every_neighbour(rows):
    Played = namedtuple("Played", "ending")
    grid = np.empty((len(rows), 5), dtype=object)
    for j, row in enumerate(rows):
        for i, found in enumerate(row):
            grid[j, i] = Played(found)
    for j, i in np.ndindex(grid.shape):
        near = [(j + 1, i), (j - 1, i), (j, i + 1), (j, i - 1)]
        others = {rows[b][a] for b, a in near if 0 <= b < len(rows) and 0 <= a < 5}
        assert contested(grid)[j, i] == bool(others - {rows[j][i]})


def test_nothing_is_refined_where_all_cells_end_alike():
    from stepscope.synthetic.named import named

    entry = named("theorem1")
    spans = ("beta1", 0.0, 0.5), ("beta2", 0.99, 0.999)
    found = phase_diagram(entry.build(), "adam", *spans, (2, 2), 3000, entry.lr, refine=2)
    assert found.distance.shape == (2, 2)
    assert found.played == 4


def test_refinement_cuts_only_contested_cells_and_repeats_the_rest(small):
    fine = phase_diagram(cycle(), size=(4, 6), y=LOWER, x=("beta1", 0.0, 0.5), steps=3000, lr=LR, refine=1)
    was = small.ending.repeat(2, 0).repeat(2, 1)
    assert fine.ending.shape == (12, 8)
    assert (fine.ending == was)[fine.level == 0].all()
    assert fine.played == 24 + (fine.level == 1).sum()
    assert set(np.unique(fine.level)) == {0, 1}
    j, i = np.argwhere(fine.level == 1)[0]
    alone = sweep_of(cycle(), "adam", ("beta1", "beta2"), 3000, LR, 1, None, {})
    assert alone.row([(fine.x_values[i], fine.y_values[j])])[0].distance == fine.distance[j, i]


def test_json_is_plain(small):
    told = json.loads(json.dumps(small.to_dict(), allow_nan=False))
    assert np.array(told["distance"]).shape == np.array(told["ending"]).shape == (6, 4)
    assert sum(told["shares"].values()) == pytest.approx(1.0)


def test_a_share_is_asked_for_in_a_word(small):
    assert small.share("wrong") == small.share(Ending.WRONG) == (small.ending == Ending.WRONG).mean()
    with pytest.raises(ValueError, match="`ending` must be one of right, undecided, wrong, unstable, got 'worng'"):
        small.share("worng")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"x": ("beta3", 0.0, 0.5)}, "adam has no hyper-parameter `beta3`"),
        ({"x": ("beta2", 0.0, 0.5)}, "given twice"),
        ({"eps": 0.1, "x": ("eps", 0.0, 1.0)}, "given twice"),
        ({"x": ("beta1", 0.5, 0.5)}, "low < high"),
        ({"x": ("beta1", 0.0, 1.0)}, r"`beta1` must be in \[0, 1\)"),
        ({"x": ("lr", 0.0, 1.0)}, "positive"),
        ({"x": "beta1"}, r"`x` must be \(name, lowest, highest\)"),
        ({"y": ("beta2", 0.5)}, r"`y` must be \(name, lowest, highest\)"),
        ({"size": (0, 3)}, "`size`"),
        ({"size": 32}, "`size` must be two numbers of cells"),
        ({"size": (2.5, 3)}, "`size` must be a whole number"),
        ({"refine": -1}, "`refine`"),
        ({"problem": "onlin"}, "choose from online"),
        ({"method": None}, "`method` must be"),
        ({"seeds": [0, -1]}, "`seeds`"),
        ({"steps": 1}, "`steps`"),
        ({"seeds": 0}, "`seeds`"),
        ({"method": "adm"}, "did you mean"),
        ({"backend": "spark"}, "`backend` must be one of dask, loky, .*ray, .*got 'spark'"),
        ({"problem": Problem(["x", "-2*x"], Cyclic([0, 1]))}, "optimum"),
    ],
)
def test_bad_input_is_one_sentence(options, says):
    with pytest.raises(ValueError, match=says) as caught:
        phase_diagram(**{"problem": cycle(), "steps": 10, "size": (1, 1), **options})
    assert "\n" not in str(caught.value)


# --- interrupted sweeps ----------------------------------------------------------------------------------------

ASKED = {"y": LOWER, "x": ("beta1", 0.0, 0.5), "steps": 300, "lr": LR}


def same(one, other):
    assert (one.ending == other.ending).all()
    np.testing.assert_array_equal(one.distance, other.distance)
    np.testing.assert_array_equal(one.rho, other.rho)


def test_a_second_call_plays_only_what_is_missing(tmp_path):
    file = tmp_path / "deep" / "sweep.jsonl"
    whole = phase_diagram(cycle(), size=(3, 4), **ASKED)
    first = phase_diagram(cycle(), size=(3, 4), resume=file, **ASKED)
    lines = file.read_bytes().splitlines(keepends=True)
    assert (first.played, len(lines)) == (12, 13)
    file.write_bytes(b"".join(lines[:6]) + lines[6][:20])  # as a crash in the middle of a line leaves it
    second = phase_diagram(cycle(), size=(3, 4), resume=file, **ASKED)
    assert second.played == 12 - 5
    same(whole, first)
    same(whole, second)
    assert sorted(file.read_bytes().splitlines()) == sorted(line.rstrip() for line in lines)
    assert phase_diagram(cycle(), size=(3, 4), resume=file, **ASKED).played == 0


@pytest.mark.parametrize("cut", [0, 1, 30])
def test_a_file_that_was_only_begun_is_begun_again(tmp_path, cut):
    file = tmp_path / "sweep.jsonl"
    ledger.opened(file, {"of": 1})
    file.write_bytes(file.read_bytes()[:cut])
    assert ledger.opened(file, {"of": 1}) == []
    assert json.loads(file.read_text())["of"] == 1


def test_a_file_of_another_sweep_is_refused_and_kept(tmp_path):
    file = tmp_path / "sweep.jsonl"
    phase_diagram(cycle(), size=(1, 1), resume=file, **ASKED)
    kept = file.read_bytes()
    with pytest.raises(ValueError, match="another sweep: its steps is 300, this one's 301"):
        phase_diagram(cycle(), size=(1, 1), resume=file, **{**ASKED, "steps": 301})
    other = Problem(["5*x", "-x"], Cyclic([0, 1, 1]), domain=(-1, 1), start=0)
    with pytest.raises(ValueError, match="another sweep: its problem"):
        phase_diagram(other, size=(1, 1), resume=file, **ASKED)
    assert file.read_bytes() == kept
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(ValueError, match="is not; choose another name"):
        phase_diagram(cycle(), size=(1, 1), resume=notes, **ASKED)
    assert notes.read_text() == "mine"
    with pytest.raises(ValueError, match="is a directory"):
        phase_diagram(cycle(), size=(1, 1), resume=tmp_path, **ASKED)


def test_numbers_that_are_not_finite_survive_the_file(tmp_path):
    climbs = Problem(["x**2"], Cyclic([0]), start=1)
    file, spans = tmp_path / "s", {"x": ("lr", 10.0, 20.0), "y": ("dampening", 0.0, 0.1)}
    for played in (1, 0):  # α L far above 2: it blows up, the second time read from the file
        found = phase_diagram(climbs, "momentum", size=(1, 1), steps=1000, lr=1.0, resume=file, **spans)
        assert (found.played, found.ending[0, 0]) == (played, Ending.UNSTABLE)
        assert not math.isfinite(found.distance[0, 0])


INTERRUPTED = """
import sys
from stepscope.synthetic.named import named
from stepscope.synthetic.phase import phase_diagram
phase_diagram(named("theorem1").build(), size=(16, 64), steps=100_000, lr="0.5/sqrt(t)", resume=sys.argv[1])
"""


@pytest.mark.slow
def test_ctrl_c_leaves_a_file_that_goes_on(tmp_path):
    file = tmp_path / "sweep.jsonl"
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED, file], stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 120
        while not (file.exists() and file.read_bytes().count(b"\n") > 1) and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    done = len(lines) - 1
    assert 0 < done < 16 * 64
    assert done % 16 == 0  # whole rows
    names = BETA1[0], BETA2[0]
    work = Work(sweep_of(_theorem1(), "adam", names, 100_000, LR, 1, None, {}), file, None)
    assert len(work.known) == done
    for cell in list(work.known.values())[:: max(1, done // 4)]:
        assert work.sweep.row([(cell.x, cell.y)]) == [cell]


def _theorem1():
    from stepscope.synthetic.named import named

    return named("theorem1").build()


# --- clusters ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn():
    """Return a problem with chance and what it gives on this machine's threads."""
    problem = Problem(["3*x", "-x"], Random((0.4, 0.6)), domain=(-1, 1), start=0)
    asked = {"y": LOWER, "x": ("beta1", 0.0, 0.5), "steps": 2000, "lr": LR, "seeds": 2, "size": (3, 4)}
    return problem, asked, phase_diagram(problem, **asked)


@pytest.mark.slow
def test_processes_give_the_same_cells(drawn):
    problem, asked, here = drawn
    with joblib.parallel_config(backend="loky", n_jobs=2):
        same(here, phase_diagram(problem, **asked))


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_cells(drawn, tmp_path):
    from dask.distributed import Client, LocalCluster

    problem, asked, here = drawn
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**options, local_directory=tmp_path) as cluster, Client(cluster) as client:
        with joblib.parallel_config(backend="dask"):
            same(here, phase_diagram(problem, **asked))
        assert os.getpid() not in client.run(os.getpid).values()
        file = tmp_path / "sweep.jsonl"
        same(here, phase_diagram(problem, **asked, backend="dask", resume=file))
        assert phase_diagram(problem, **asked, resume=file).played == 0


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_cells(drawn):
    import ray

    problem, asked, here = drawn
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        same(here, phase_diagram(problem, **asked, backend="ray"))
    finally:
        ray.shutdown()


def test_it_says_what_right_means():
    diagram = phase_diagram("online", "adam", ("beta1", 0.0, 0.5), ("beta2", 0.9, 0.99), (2, 2), 2000)
    assert str(diagram).startswith("adam on ")
    assert "Right: nearer to the optimum than the start" in str(diagram)


def test_betas_belong_to_simulate():
    with pytest.raises(ValueError, match="`betas` is of `simulate`"):
        phase_diagram("online", "adam", ("eps", 1e-8, 1.0), ("lr", 0.1, 1.0), (2, 2), 2000, betas=(0.0, 0.9))
