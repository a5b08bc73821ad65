"""Verdicts and findings: the table of docs/theory.md 4.5, its order, and traces at the edges."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope import Monitor
from stepscope.diagnostics import conditions
from stepscope.diagnostics.conditions import Decision
from stepscope.diagnostics.diagnosis import Diagnosis, Verdict, decide, diagnose, judged_start
from stepscope.diagnostics.drift import HarmDecision
from stepscope.diagnostics.evidence import gather
from stepscope.diagnostics.findings import findings_of
from stepscope.diagnostics.trace import COLUMNS, Event, Scalars, TensorInfo, Trace


def column(trace, name):
    """A writable view of one column."""
    return trace.values[:, :, COLUMNS.index(name)]


def titles(diagnosis):
    return [finding.title for finding in diagnosis.findings]


def finding(diagnosis, start):
    return next(f for f in diagnosis.findings if f.title.startswith(start))


def loss_of(trace, *values):
    steps = trace.steps[: len(values)]
    return Scalars(steps, np.array(values), np.zeros(len(values)), np.arange(1.0, len(values) + 1))


def noisy(worlds, beta2):
    """Return Adam at a constant rate on two noisy tensors, of 40 and 10 coordinates."""
    rng = np.random.default_rng(0)
    g = rng.normal(0.2, 1.0, (4000, 50))
    v = np.empty_like(g)
    moment = np.ones(50)
    for t, now in enumerate(g):
        moment = beta2 * moment + (1 - beta2) * now**2
        v[t] = moment
    owner = np.repeat([0, 1], [40, 10])
    return worlds.World(g, 1e-3 / (np.sqrt(v) + 1e-8), np.full(4000, 1e-3), 0.0, beta2, 0.9, owner).trace()


@pytest.fixture
def healthy(worlds):
    return noisy(worlds, 0.9)


@pytest.fixture
def short(worlds):
    """The same 4000 steps with a memory of 1000, of which ten are start-up."""
    return noisy(worlds, 0.999)


# the verdicts of known worlds

WORLDS = [
    ("online", "adam", "sqrt", {"beta1": 0.9}, "biased"),
    ("online", "amsgrad", "sqrt", {"beta1": 0.9}, "certified"),
    ("t1", "adam", "sqrt", {"beta2": 0.1}, "biased"),
    ("t1", "amsgrad", "sqrt", {"beta2": 0.1}, "certified"),
    ("quadratic", "sgd", "sqrt", {}, "certified"),
    ("quadratic", "adam", "sqrt", {}, "uncertified"),
    ("quadratic", "sgd", "constant", {"rate": 0.05}, "neighbourhood"),
    ("quadratic", "adam", "constant", {"rate": 0.05}, "neighbourhood"),
    ("chen1", "adam", "constant", {"rate": 0.01, "beta2": 0.9, "x": 1.0}, "neighbourhood"),
    ("chen1", "amsgrad", "constant", {"rate": 0.01, "beta2": 0.9, "x": 1.0}, "certified"),
    ("quadratic", "sgd", "inverse", {}, "stalled"),
    ("quadratic", "adam", "inverse", {}, "stalled"),
    ("quadratic", "sgd", "inverse_square", {}, "stalled"),
    ("quadratic", "adam", "inverse_square", {}, "stalled"),
]


@pytest.mark.parametrize(
    ("problem", "method", "falls", "settings", "verdict"), WORLDS, ids=["-".join(row[:3]) for row in WORLDS]
)
def test_known_worlds(worlds, problem, method, falls, settings, verdict):
    diagnosis = diagnose(worlds.play(problem, method, 200_000, falls=falls, **settings).trace())
    assert str(diagnosis.verdict) == verdict


@pytest.mark.parametrize("method", ["sgd", "amsgrad", "adam"])
@pytest.mark.parametrize("falls", ["cosine", "linear", "wsd", "warm_cosine"])
@pytest.mark.parametrize("last", [8000, 50_000])
def test_schedules_that_end_at_0_are_judged_by_their_end(worlds, method, falls, last):
    diagnosis = diagnose(worlds.play("quadratic", method, last, falls=falls, rate=0.05).trace())
    assert diagnosis.variance.decision is Decision.HOLDS
    assert "steps left" in diagnosis.variance.reason
    assert diagnosis.growth.decision is Decision.HOLDS
    if method != "adam":
        assert (diagnosis.bias.decision, str(diagnosis.verdict)) == (Decision.HOLDS, "certified")
    elif last > 10_000:  # below that one coordinate may be too noisy to call (4.3)
        assert (diagnosis.bias.decision, str(diagnosis.verdict)) == (Decision.VIOLATED, "uncertified")
    else:
        assert diagnosis.bias.decision is not Decision.HOLDS
    assert any(title.startswith("Finite horizon") for title in titles(diagnosis))


@pytest.mark.parametrize("method", ["sgd", "amsgrad", "adam"])
@pytest.mark.parametrize("falls", ["cosine_to_tenth", "steps"])
@pytest.mark.parametrize("last", [8000, 50_000])
def test_schedules_that_end_above_0_are_not_stalled_but_untestable(worlds, method, falls, last):
    diagnosis = diagnose(worlds.play("quadratic", method, last, falls=falls, rate=0.05).trace())
    assert diagnosis.variance.decision is Decision.INCONCLUSIVE
    assert "q_T = " in diagnosis.variance.reason
    assert diagnosis.growth.decision is not Decision.VIOLATED
    if method != "adam":
        assert (diagnosis.bias.decision, str(diagnosis.verdict)) == (Decision.HOLDS, "inconclusive")
    elif last > 10_000:
        assert (diagnosis.bias.decision, str(diagnosis.verdict)) == (Decision.VIOLATED, "uncertified")
    else:
        assert diagnosis.bias.decision is not Decision.HOLDS
    assert any(title.startswith("Finite horizon") for title in titles(diagnosis))


def test_a_run_that_came_to_rest_is_not_stalled(worlds):
    steps = np.arange(1.0, 20_001)
    world = worlds.World(np.exp(-steps / 500)[:, None], (1 / steps)[:, None], 1 / steps, 0.0, 0.0)
    diagnosis = diagnose(world.trace())
    assert str(diagnosis.verdict) == "inconclusive"
    assert "conditions are judged from step" in " ".join(str(diagnosis).split())  # also where the run ends before
    assert any(title.startswith("At rest") for title in titles(diagnosis))


# the order of the table

HOLDS, VIOLATED, OPEN = Decision.HOLDS, Decision.VIOLATED, Decision.INCONCLUSIVE
TABLE = [
    ("broken", dict(broken=("NaN.", ()), growth=VIOLATED, bias=VIOLATED, harm="harmful"), "unstable"),
    ("short", dict(short=True, growth=VIOLATED, bias=VIOLATED, harm="harmful"), "inconclusive"),
    ("stalled first", dict(growth=VIOLATED, bias=VIOLATED, harm="harmful"), "stalled"),
    ("biased", dict(variance=VIOLATED, bias=VIOLATED, harm="harmful"), "biased"),
    ("harm alone", dict(harm="harmful"), "certified"),
    ("ball and bias", dict(variance=VIOLATED, bias=VIOLATED, harm="inconclusive"), "neighbourhood"),
    ("ball", dict(variance=VIOLATED), "neighbourhood"),
    ("certified", dict(), "certified"),
    ("certified, harm open", dict(harm="inconclusive"), "certified"),
    ("uncertified", dict(bias=VIOLATED), "uncertified"),
    ("uncertified, harm open", dict(bias=VIOLATED, harm="inconclusive"), "uncertified"),
    ("variance open", dict(variance=OPEN), "inconclusive"),
    ("bias open", dict(bias=OPEN), "inconclusive"),
    ("growth open", dict(growth=OPEN), "inconclusive"),
]


@pytest.mark.parametrize(("changes", "verdict"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_order_of_verdicts(worlds, changes, verdict):
    evidence = gather(worlds.play("quadratic", "sgd", 10_000).trace())
    parts = {
        name: replace(getattr(evidence, name), decision=changes.get(name, HOLDS))
        for name in ("variance", "bias", "growth")
    }
    if changes.get("short"):
        parts["variance"] = replace(parts["variance"], ratios=np.ones(4), t=np.ones(4))
    harm = replace(evidence.harm, decision=HarmDecision(changes.get("harm", "harmless")))
    evidence = replace(evidence, **parts, harm=harm, broken=changes.get("broken"))
    assert str(decide(evidence)) == verdict
    found = [f.title for f in findings_of(evidence)]
    if changes.get("harm") == "harmful":
        assert any(title.startswith("Harm:") for title in found)
    if changes.get("bias") is VIOLATED:
        assert any(title.startswith("No certificate") for title in found)


def test_words_of_the_verdicts():
    words = "certified uncertified biased neighbourhood unstable stalled inconclusive"
    assert [str(verdict) for verdict in Verdict] == words.split()


# unstable, and what must not be called so


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *((name, bad) for name in ("weight_rms", "e_p50", "e_max") for bad in (math.nan, math.inf)),
        ("update_rms", math.inf),
    ],
)
def test_non_finite_ends_are_unstable(healthy, name, bad):
    column(healthy, name)[-1, 1] = bad
    diagnosis = diagnose(healthy)
    assert str(diagnosis.verdict) == "unstable"
    assert finding(diagnosis, "The run broke").tensors == ("layer1.weight",)


def test_weights_that_were_never_finite_are_unstable(healthy):
    column(healthy, "weight_rms")[:, 0] = math.nan
    assert str(diagnose(healthy).verdict) == "unstable"


def test_the_loss_decides_at_the_end_only(healthy):
    healthy.scalars["loss"] = loss_of(healthy, 1.0, math.nan, 0.5)
    assert str(diagnose(healthy).verdict) != "unstable"
    healthy.scalars["loss"] = loss_of(healthy, 1.0, 0.5, math.nan)
    assert str(diagnose(healthy).verdict) == "unstable"


def test_unstable_comes_before_too_short(healthy):
    short = replace_records(healthy, 3)
    assert str(diagnose(short).verdict) == "inconclusive"
    column(short, "weight_rms")[-1, 0] = math.inf
    assert str(diagnose(short).verdict) == "unstable"


def replace_records(trace, count):
    groups = {name: values[:count] for name, values in trace.groups.items()}
    return Trace(trace.meta, trace.tensors, trace.steps[:count], trace.values[:count].copy(), groups)


def test_a_survived_nan_gradient_is_a_finding(healthy):
    column(healthy, "nonfinite")[50:, 0] = 3.0
    healthy.events.append(Event(51, "nonfinite", "3 gradients were not finite.", "layer0.weight"))
    diagnosis = diagnose(healthy)
    assert str(diagnosis.verdict) != "unstable"
    survived = finding(diagnosis, "Non-finite gradients, survived")
    assert survived.tensors == ("layer0.weight",)
    assert survived.steps == (51, 51)


def test_stepsize_and_update_that_grow_like_a_power_are_unstable(healthy):
    t = healthy.steps / 100.0
    noise = np.exp(np.random.default_rng(0).normal(0, 0.5, len(t)))
    column(healthy, "e_p50")[:, 1] = 1e-3 * t * noise
    assert str(diagnose(healthy).verdict) != "unstable"  # v fades with the gradients, the update stays
    column(healthy, "update_rms")[:, 1] = 1e-3 * t * noise[::-1]
    diagnosis = diagnose(healthy)
    assert str(diagnosis.verdict) == "unstable"
    assert finding(diagnosis, "The run broke").tensors == ("layer1.weight",)


def test_dead_coordinates_and_late_spikes_are_not_unstable(healthy):
    column(healthy, "e_max")[:, 0] = np.minimum(1e5, np.exp(healthy.steps / 100.0))
    for name in ("e_p50", "update_rms"):
        column(healthy, name)[-3:, 0] *= 1e3
    assert str(diagnose(healthy).verdict) != "unstable"


def test_a_tensor_that_never_stepped_is_not_unstable(healthy):
    for name in COLUMNS:
        column(healthy, name)[:, 1] = 0.0 if name in ("steps", "active", "a") else math.nan
    assert str(diagnose(healthy).verdict) == "neighbourhood"


# where the judged window starts


@pytest.mark.parametrize(
    ("beta1", "beta2", "falls", "start"),
    [
        (0.9, 0.999, "constant", 10_000),
        (0.9, 0.99, "constant", 1000),
        (math.nan, math.nan, "constant", 400),  # 0.02 T
        (0.0, 0.1, "constant", 400),
        (0.9, math.nan, "warm_cosine", 1000),  # 0.05 T of warm-up
        (0.9, 1.0, "sqrt", 400),
    ],
)
def test_judged_start(worlds, beta1, beta2, falls, start):
    world = worlds.World(np.ones((20_000, 1)), np.ones((20_000, 1)), worlds.schedule(falls, 20_000))
    world.beta1, world.beta2 = beta1, beta2
    assert judged_start(world.trace(np.arange(1, 20_001))) == start


def test_a_run_inside_its_warm_up_is_too_short(worlds):
    lr = np.arange(1.0, 2001)
    diagnosis = diagnose(worlds.World(np.ones((2000, 1)), lr[:, None], lr).trace())
    assert str(diagnosis.verdict) == "inconclusive"
    assert diagnosis.start == 2000
    assert diagnosis.variance.steps_needed == math.ceil(2000 * 2**2.5) - 2000
    assert "9400 more steps" in finding(diagnosis, "Not decided yet").suggestion


# findings


def test_rises_are_told_apart(healthy):
    column(healthy, "rise_v")[:] *= 0.25
    column(healthy, "rise_bias")[:] = 3 * column(healthy, "rise_v")
    found = finding(diagnose(healthy), "No certificate")
    assert "75% come from the bias correction, 25% come from the second moment" in found.text
    assert "0.024 at this beta2" in found.text
    assert "not a defect" in found.suggestion
    assert found.tensors == ("layer0.weight", "layer1.weight")


def test_noise_ball_says_it_is_no_divergence(healthy):
    found = finding(diagnose(healthy), "Neighbourhood")
    assert "EVERY method" in found.text
    assert "not divergence" in found.text
    assert "bias condition is violated as well" in found.text


def test_descent_efficiency_is_reported(healthy):
    diagnosis = diagnose(healthy)
    assert 0 < diagnosis.harm.rho < 1
    assert diagnosis.harm.decision is HarmDecision.HARMLESS
    assert "share of the intended descent that adaptivity leaves" in finding(diagnosis, "Descent efficiency").text


def test_harm_that_is_not_resolved_says_what_helps(worlds):
    diagnosis = diagnose(worlds.play("quadratic", "adam", 20_000).trace())
    assert diagnosis.harm.decision is HarmDecision.INCONCLUSIVE
    assert "could not be resolved" in diagnosis.reason
    needed, told = diagnosis.harm.steps_needed, finding(diagnosis, "Harm could not").suggestion
    assert (f"Another {needed} steps" if needed else "more steps like these might not tell") in told


def test_harm_names_its_tensors_and_steps(worlds):
    game = worlds.play("online", "adam", 200_000, beta1=0.9)
    calm = worlds.play("online", "amsgrad", 200_000, beta1=0.9)
    both = worlds.World(np.hstack([calm.g, game.g]), np.hstack([calm.e, game.e]), game.lr, 0.0, 0.9, 0.99)
    both.owner = np.array([0, 1])
    diagnosis = diagnose(both.trace())
    assert str(diagnosis.verdict) == "biased"
    assert finding(diagnosis, "Harm:").tensors == ("layer1.weight",)
    assert finding(diagnosis, "Harm:").steps == (98_305, 196_608)


def test_small_findings(healthy):
    column(healthy, "eps_bound")[:, 1] = 0.5 * column(healthy, "active")[:, 1]
    column(healthy, "rms_max")[:, 0] = np.where(healthy.steps < 3000, 1.5, 40.0)
    column(healthy, "a_se")[:] = 0.01 * column(healthy, "a")
    healthy.events += [
        Event(5, "unreadable", "the rebuilt step does not match", "odd"),
        Event(9, "skipped", "an overflow step", None),
        Event(12, "skipped", "an overflow step", None),
    ]
    healthy.tensors.append(TensorInfo("odd", (2,), 2, 2, 0, None))
    healthy.values = np.concatenate([healthy.values, np.full_like(healthy.values[:, :1], math.nan)], axis=1)
    diagnosis = diagnose(healthy)
    assert finding(diagnosis, "eps decides").tensors == ("layer1.weight",)
    assert "layer1.weight (50%)" in finding(diagnosis, "eps decides").text
    assert "reached 40 in layer0.weight" in finding(diagnosis, "Gradient spikes").text
    assert finding(diagnosis, "Tensors without").tensors == ("odd",)
    assert "The rebuilt step does not match." in finding(diagnosis, "Tensors without").text
    assert finding(diagnosis, "Calls of `step()` that moved nothing").text.startswith("2 rows of calls, the last after")
    assert finding(diagnosis, "Calls of `step()` that moved nothing").steps == (9, 12)
    assert "a 0.8%, b 0.0%, c 0.0%" in finding(diagnosis, "Watched by a sample").text  # 1 % of 40 and 10 of 50 shares


def test_dormant_coordinates_are_named(healthy):
    column(healthy, "b")[:, 1] *= 1e-8
    found = finding(diagnose(healthy), "Dormant coordinates")
    assert found.tensors == ("layer1.weight",)
    assert "In 1 of 2 tensors" in found.text


def test_a_spike_of_the_start_up_is_no_finding(healthy):
    column(healthy, "rms_max")[:, 0] = 40.0
    assert not any(title.startswith("Gradient spikes") for title in titles(diagnose(healthy)))


# edges


def empty_trace(records=0, tensors=(), fill=math.nan):
    steps = np.arange(1, records + 1)
    groups = {"lr": np.full((records, 1), 0.1), "beta1": np.full((records, 1), math.nan)}
    return Trace({}, list(tensors), steps, np.full((records, len(tensors), len(COLUMNS)), fill), groups)


MUON = TensorInfo("w", (4, 4), 16, 16, 0, None)
DEAD = TensorInfo("d", (0,), 0, 0, 0, "lr")


@pytest.mark.parametrize(
    ("trace", "reason"),
    [
        (empty_trace(), "nothing has been recorded: the optimizer has not stepped"),
        (empty_trace(tensors=[MUON]), "nothing has been recorded: the optimizer has not stepped"),
        (empty_trace(1), "no step with a stepsize"),
        (empty_trace(1, [MUON]), "no tensor has a readable"),
        (empty_trace(2000, [MUON]), "no tensor has a readable"),
        (empty_trace(2000, [DEAD]), "no step with a stepsize"),
        (empty_trace(2000, [MUON, DEAD], fill=0.0), "no step with a stepsize"),
        (empty_trace(1, [replace(MUON, formula="lr")], fill=1.0), "0 usable blocks"),
    ],
)
def test_traces_at_the_edges(trace, reason):
    diagnosis = diagnose(trace)
    assert str(diagnosis.verdict) == "inconclusive"
    assert reason in diagnosis.variance.reason
    assert reason in diagnosis.reason.lower()
    assert json.dumps(diagnosis.to_dict(), allow_nan=False)
    assert reason in str(diagnosis).lower()


def test_text_reads_from_the_verdict_down(healthy):
    lines = str(diagnose(healthy)).splitlines()
    assert lines[0] == "Verdict: neighbourhood"
    checks = [line for line in lines if line.startswith("Checking")]
    assert len(checks) == 4
    assert checks[1] == "Checking variance (b/a -> 0): violated."
    assert max(map(len, lines)) <= 100
    assert str(diagnose(healthy)).isascii()  # any terminal can print it


def test_a_short_run_says_what_it_shows_and_nothing_else(short):
    diagnosis = diagnose(short)
    assert diagnosis.verdict == "inconclusive"
    text = str(diagnosis)
    assert "It shows no harm: rho = " in diagnosis.reason
    assert "nan" not in text
    assert sum(line.startswith("Checking") for line in text.splitlines()) == 2


def test_json_is_stable(healthy):
    diagnosis = diagnose(healthy)
    plain = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert plain["schema"] == 1
    assert list(plain)[1:] == list(Diagnosis.__dataclass_fields__)
    assert plain["verdict"] == "neighbourhood"
    assert plain["bias"]["decision"] == "violated"
    assert plain["harm"]["decision"] == "harmless"
    assert plain["variance"]["ratios"] == diagnosis.variance.ratios.tolist()
    assert plain["findings"][0]["tensors"] == []
    open_harm = replace(diagnosis, harm=replace(diagnosis.harm, rho=math.nan, interval=(-math.inf, math.inf)))
    assert open_harm.to_dict()["harm"]["rho"] is None
    assert open_harm.to_dict()["harm"]["interval"] == ["-inf", "inf"]
    assert diagnosis.to_dict() == diagnose(healthy).to_dict()


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 4), st.floats(0, 0.2))
def test_any_trace_is_answered(seed, records, tensors, spoiled):
    rng = np.random.default_rng(seed)
    infos = [TensorInfo(f"p{i}", (3,), 3, 3, 0, None if rng.random() < 0.2 else "lr") for i in range(tensors)]
    values = np.cumsum(rng.lognormal(sigma=3, size=(records, tensors, len(COLUMNS))), axis=0)
    values[rng.random(values.shape) < spoiled] = rng.choice([math.nan, math.inf, 0.0])
    steps = np.cumsum(rng.integers(1, 50, size=records))
    groups = {"lr": rng.lognormal(size=(records, 1)), "beta2": np.full((records, 1), rng.random())}
    diagnosis = diagnose(Trace({}, infos, steps, values, groups))
    assert json.dumps(diagnosis.to_dict(), allow_nan=False)
    assert str(diagnosis).startswith(f"Verdict: {diagnosis.verdict}")


def test_the_order_of_tensors_changes_no_decision(healthy):
    swapped = replace(healthy, tensors=healthy.tensors[::-1], values=healthy.values[:, ::-1].copy())
    one, other = diagnose(healthy), diagnose(swapped)
    assert one.verdict is other.verdict
    assert one.bias.slope == pytest.approx(other.bias.slope, rel=1e-9)


def test_the_judge_imports_neither_torch_nor_the_monitor():
    room = Path(conditions.__file__).parent
    for name in ("conditions", "drift", "evidence", "instability", "findings", "diagnosis", "summary"):
        tree = ast.parse((room / f"{name}.py").read_text(encoding="utf-8"))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not {module.split(".")[0] for module in imported} & {
            "torch",
            "monitor",
            "store",
            "accumulators",
        }


def test_other_rules_stand_in_a_table_without_conditions_where_none_is_judged():
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.ones(20))
    optimizer = torch.optim.Adam([p], lr=1e-3)
    with Monitor(optimizer) as monitor:
        for _ in range(1000):
            p.grad = p.detach() + 0.1 * torch.randn(20)
            optimizer.step()
    lines = str(monitor.diagnose()).splitlines()
    (begin,) = (place for place, line in enumerate(lines) if line.startswith("Other rules on the gradients"))
    table = [line.split() for line in lines[begin + 2 : lines.index("", begin)]]
    assert table[0] == ["rho"]
    assert table[1][:2] == ["as", "it"]
    assert not any("nan" in row or ":." in line for row, line in zip(table, lines[begin:], strict=False))
