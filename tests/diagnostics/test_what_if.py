"""What other rules would have had: exact on streams that do not depend on x, whatever the run does with them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from stepscope import Monitor, Trace, simulate
from stepscope.diagnostics.conditions import Decision
from stepscope.diagnostics.drift import HarmDecision
from stepscope.diagnostics.imagined import KINDS, USUAL, imagined
from stepscope.diagnostics.what_if import alternatives, better
from stepscope.synthetic.reddi2018 import online

STEPS = 3000


def play(monitored, gradients, lr, steps=STEPS, rule=torch.optim.Adam, **settings):
    """Feed fixed gradients `(steps, n)` to an optimizer that a monitor watches."""
    x = torch.nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    optimizer = rule([("x", x)], lr=lr(1), **settings)
    monitor = Monitor(optimizer, strict=True, **monitored)
    for t in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = lr(t)
        x.grad = torch.from_numpy(gradients[t - 1].copy())
        optimizer.step()
    return monitor


def normal(steps=STEPS, n=7):
    return np.random.default_rng(0).normal(0.3, 1.0, (steps, n)) * 10.0 ** np.arange(n)


def root(t):
    return 0.1 / math.sqrt(t)


# twins


REALLY = [
    ("adam(beta2=0.9)", torch.optim.Adam, {"betas": (0.9, 0.9)}),
    ("adam(beta2=0.9999)", torch.optim.Adam, {"betas": (0.9, 0.9999)}),
    ("adam(eps=1e-4)", torch.optim.Adam, {"betas": (0.9, 0.99), "eps": 1e-4}),
]


@pytest.mark.parametrize(("name", "rule", "settings"), REALLY)
def test_it_is_what_really_running_the_rule_would_give(name, rule, settings):
    ran = play({"what_if": (), "coordinates": "all"}, normal(), root, rule=rule, **settings).trace
    imagining = play({"what_if": (name,)}, normal(), root, betas=(0.9, 0.99)).trace
    mine = imagining.what_if.sums[:, 1]
    theirs = np.stack([ran.total(column) for column in ("a", "b", "c_plus")], axis=1)
    assert mine == pytest.approx(theirs, rel=1e-10)


@pytest.mark.parametrize("method", ["sgd", "amsgrad", "adafom", "adashift", "adopt"])
def test_it_is_what_the_simulated_rule_gives(method):
    """Reddi's online game: its gradients do not depend on x. In the simulation every rule stands as in its paper."""
    settings = {"sgd": {}, "adafom": {"eps": 1e-8, "beta1": 0.9}, "adashift": {"block": 0.0, "eps": 1e-8}}
    hyper = settings.get(method, {"eps": 1e-6 if method == "adopt" else 1e-8})
    betas = None if method in ("sgd", "adafom") else (0.9, 0.99)
    ran = simulate(online(), method, STEPS, "0.1/sqrt(t)", betas, **hyper)
    gradients = np.array([[1010.0 if t % 101 == 1 else -10.0] for t in range(1, STEPS + 1)])
    imagining = play({"what_if": (method,)}, gradients, root, betas=(0.9, 0.99)).trace
    shared = np.intersect1d(ran.steps, imagining.steps)
    rows, own = (np.searchsorted(trace.steps, shared) for trace in (ran, imagining))
    theirs = np.stack([ran.total(column) for column in ("a", "b", "c_plus")], axis=1)[rows]
    assert imagining.what_if.sums[own, 1] == pytest.approx(theirs, rel=1e-10)


def test_the_run_itself_comes_first_and_is_right():
    trace = play({}, normal(), root, betas=(0.9, 0.99)).trace
    assert trace.what_if.rules == ("as it was", *USUAL)
    assert trace.what_if.sums[:, 0] == pytest.approx(
        np.stack([trace.total(column) for column in ("a", "b", "c_plus")], axis=1), rel=1e-12
    )
    assert trace.what_if.grams[0] == pytest.approx(
        np.stack([gram.sum(axis=0) for gram in (trace.drift.gram_dd, trace.drift.gram_dg, trace.drift.gram_gg)])
    )


def test_groups_of_their_own_and_tensors_that_rest():
    """Two learning rates, and a tensor without a gradient in every third step: each keeps its own count."""
    gradients = normal(600, 2)

    def run(columns, names, lrs):
        parameters = [torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in columns]
        groups = [{"params": [(n, p)], "lr": lr} for n, p, lr in zip(names, parameters, lrs, strict=True)]
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        monitor = Monitor(optimizer, strict=True)
        for t in range(600):
            for column, parameter in zip(columns, parameters, strict=True):
                rests = column == 1 and t % 3 == 2
                parameter.grad = None if rests else torch.tensor([gradients[t, column]])
            optimizer.step()
        return monitor.trace.what_if.sums[-1]

    together = run([0, 1], ["p", "q"], [0.1, 0.02])
    assert together == pytest.approx(run([0], ["p"], [0.1]) + run([1], ["q"], [0.02]), rel=1e-9)


# theorems


@pytest.mark.slow
def test_reddis_game_judged_under_other_rules():
    """Below the critical β2 = 0.999516 Adam is biased, above it and for AMSGrad the steps descend."""
    t = np.arange(1, 200_001)
    gradients = np.where(t % 101 == 1, 1010.0, -10.0)[:, None]
    monitored = {"what_if": ("adam(beta2=0.9999)", "amsgrad", "sgd")}
    diagnosis = play(monitored, gradients, root, len(t), betas=(0.9, 0.99)).diagnose()
    own, larger, amsgrad, sgd = diagnosis.what_if
    assert [a.harm.decision for a in diagnosis.what_if] == [HarmDecision.HARMFUL] + 3 * [HarmDecision.HARMLESS]
    assert own.bias.decision is Decision.VIOLATED
    assert amsgrad.bias.decision is sgd.bias.decision is Decision.HOLDS
    assert amsgrad.c_over_a == sgd.c_over_a == 0.0
    assert 0 < larger.c_over_a < own.c_over_a / 50
    text = str(diagnosis)
    assert "amsgrad" in text
    assert "gradients of this very run" in text


def constant(t):
    return 0.1


def test_no_rule_is_judged_before_its_own_memory_is_over():
    """Noise at β2 = 0.95: the stepsizes of a longer memory still settle, which looks as if c⁺/a vanished."""
    noise = np.random.default_rng(0).normal(size=(STEPS, 20))
    diagnosis = play({}, noise, constant, betas=(0.9, 0.95)).diagnose()
    assert diagnosis.start == 200
    found = {a.rule: a for a in diagnosis.what_if}
    starts = {0.9: 200, 0.95: 200, 0.99: 1000, 0.999: 10_000, 0.9999: 100_000}
    assert {beta2: found[f"adam(beta2={beta2})"].start for beta2 in starts} == starts
    assert {rule for rule, a in found.items() if a.too_short} == {
        f"adam(beta2={beta2})" for beta2, start in starts.items() if start * 2**2.5 > STEPS
    }
    for rule in ("adam(beta2=0.999)", "adam(beta2=0.9999)"):
        assert found[rule].bias.decision is Decision.INCONCLUSIVE
        assert "usable blocks" in found[rule].bias.reason
    assert all(found[rule].start == 200 for rule in ("as it was", "amsgrad", "adafom", "adashift", "adopt", "sgd"))
    assert {a.rule for a in better(diagnosis.what_if)} == {"amsgrad", "adafom", "sgd"}


def test_what_would_hold_is_told_without_a_promise_of_a_certificate():
    """At a constant rate the noise of no rule dies out, so no rule has a certificate; under 1/√t two have."""
    noise = np.random.default_rng(0).normal(size=(STEPS, 20))
    told = {}
    for name, lr in (("constant", constant), ("root", root)):
        monitor = play({"what_if": ("adam(beta2=0.999)", "amsgrad", "sgd")}, noise, lr, betas=(0.9, 0.95))
        diagnosis = monitor.diagnose()
        (told[name],) = [f for f in diagnosis.findings if f.title.startswith("Other rules would meet")]
        own, _, amsgrad, sgd = diagnosis.what_if
        assert own.certified is (diagnosis.verdict == "certified") is False
        assert amsgrad.certified is sgd.certified is (name == "root")
        assert own.variance.decision is diagnosis.variance.decision
    assert "none of them would have a certificate here" in told["constant"].text
    assert told["constant"].suggestion.endswith("a certificate asks for the variance condition as well.")
    assert "that is a certificate" in told["root"].text
    assert told["root"].suggestion == (
        "Without harm there is no need for another rule. For a certificate take amsgrad or sgd."
    )
    for finding in told.values():
        assert "too short to judge adam(beta2=0.999)." in finding.text
        assert "tend to 0 under amsgrad (0) and sgd (0)." in finding.text


def test_an_annealed_run_cannot_test_the_variance_condition_under_any_rule():
    noise = np.random.default_rng(0).normal(size=(STEPS, 20))
    cosine = lambda t: 0.05 * (1 + math.cos(math.pi * t / STEPS)) + 1e-6  # noqa: E731
    diagnosis = play({}, noise, cosine, betas=(0.9, 0.95)).diagnose()
    assert diagnosis.annealed
    judged = [a for a in diagnosis.what_if if not a.too_short]
    assert len(judged) > 5
    assert not any(a.certified for a in judged)
    assert all(a.variance.reason.startswith("finite horizon") for a in judged)


def test_a_rule_that_stands_worse_is_no_remedy():
    noise = np.random.default_rng(0).normal(size=(STEPS, 20))
    own, *others = play({"what_if": ("amsgrad", "sgd")}, noise, constant, betas=(0.9, 0.95)).diagnose().what_if
    worse = [replace(other, c_over_a=2 * own.c_over_a) for other in others]
    assert better((own, *others)) == tuple(others)
    assert better((own, others[0], worse[1])) == (others[0],)
    assert better((own, *worse)) == ()


# invariance


def test_the_training_is_not_touched_and_off_means_off():
    with_it, without = (play({"what_if": rules}, normal(), root) for rules in (USUAL, ()))
    assert torch.equal(*(m.optimizer.param_groups[0]["params"][0] for m in (with_it, without)))
    assert without.trace.what_if is None
    assert without.diagnose().what_if == ()
    assert np.array_equal(with_it.trace.values, without.trace.values, equal_nan=True)


def test_it_survives_disk_and_state(tmp_path):
    gradients = normal(600)
    whole = play({"directory": tmp_path / "whole"}, gradients, root, 600)
    whole.close()
    loaded = Trace.load(tmp_path / "whole")
    assert np.array_equal(loaded.what_if.sums, whole.trace.what_if.sums)
    assert np.array_equal(loaded.what_if.grams, whole.trace.what_if.grams)
    loaded.save(tmp_path / "copy")
    assert np.array_equal(Trace.load(tmp_path / "copy").what_if.sums, whole.trace.what_if.sums)

    first = play({}, gradients, root, 300)
    x = torch.nn.Parameter(first.optimizer.param_groups[0]["params"][0].detach().clone())
    optimizer = torch.optim.Adam([("x", x)], lr=0.1)
    second = Monitor(optimizer, strict=True)
    optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    for t in range(301, 601):
        optimizer.param_groups[0]["lr"] = root(t)
        x.grad = torch.from_numpy(gradients[t - 1].copy())
        optimizer.step()
    assert second.trace.what_if.sums[-1] == pytest.approx(whole.trace.what_if.sums[-1], rel=1e-12)


# edges


def cosine(t):
    return 0.01 * (1 + math.cos(math.pi * t / STEPS))


def resting(t):
    return 0.0 if STEPS / 4 < t <= STEPS / 2 else 0.01


@pytest.mark.parametrize("beta1", [0.9, 0.99])
@pytest.mark.parametrize("lr", [cosine, resting])
def test_what_momentum_owes_is_paid_at_the_rate_of_its_day(beta1, lr):
    """Of gradients that stay as they are, every step is a descent as intended, under any rate: rho is 1."""
    gradients = np.ones((STEPS, 3)) + 0.3 * np.random.default_rng(0).normal(size=(STEPS, 3))
    monitor = play({"what_if": ("sgd",)}, gradients, lr, amsgrad=True, betas=(beta1, 0.999))
    harm = monitor.diagnose().harm
    assert harm.decision is HarmDecision.HARMLESS
    assert harm.rho == pytest.approx(1.0, abs=0.02)
    run, sgd = alternatives(monitor.trace, 1)
    assert run.harm.rho == pytest.approx(harm.rho, rel=1e-6)
    assert sgd.harm.rho == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_spoils_nothing(bad):
    gradients = normal()
    gradients[100, 3] = bad
    trace = play({}, gradients, root, 500, rule=torch.optim.SGD).trace
    assert np.isfinite(trace.what_if.sums).all()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["adm"], "must name rules"),
        (["adam(beta3=1)"], "adam takes beta2, eps, got 'beta3=1'"),
        (["sgd(eps=1)"], "sgd takes nothing"),
        (["adam(beta2=1)"], r"beta2 in \[0, 1\)"),
        (["adam(beta2=x)"], "must give numbers, got 'x'"),
        (["adashift(n=1.5)"], "n a whole number"),
        ("adam", "must be a sequence"),
    ],
)
def test_bad_rules_are_refused_in_one_sentence(names, words):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match=words) as caught:
        Monitor(optimizer, what_if=names)
    assert "\n" not in str(caught.value)


def test_every_kind_has_a_name_and_the_runs_beta2():
    for kind in KINDS:
        assert imagined(kind, 0.7).beta2 == (0.7 if kind in ("adam", "amsgrad", "adashift", "adopt") else 0.0)
        assert imagined(kind, math.nan).kind == KINDS[kind]


def test_another_list_of_rules_is_another_run(tmp_path):
    play({"directory": tmp_path, "what_if": ("sgd",)}, normal(), root, 10).close()
    with pytest.raises(ValueError, match=r"recorded with what_if=\('sgd',\)"):
        play({"directory": tmp_path, "what_if": ()}, normal(), root, 10)


def test_nothing_imagined_gives_no_answer():
    assert alternatives(play({"what_if": ()}, normal(), root, 10).trace, 1) == ()
