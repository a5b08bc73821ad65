"""The suite turned on a public package's optimizers, and held against our own compiled methods."""

import json

import numpy as np
import pytest
import pytorch_optimizer as po
import torch

from stepscope.reports import cli
from stepscope.synthetic.cases import PROBLEMS, Outcome
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.methods import METHODS, parameters
from stepscope.synthetic.suite import SHARE_ALONE, run_suite
from stepscope.synthetic.traits import gradient_size
from stepscope.synthetic.world import TAIL

CASES = {case.name: case for case in PROBLEMS}
FIVE = {"Adai": "adai", "AdaBelief": "adabelief", "ADOPT": "adopt", "Yogi": "yogi", "AdaShift": "adashift"}
STEPS = 600


class Early(po.AdaShift):
    """AdaShift as version 3.9.0 has it.

    It steps once its queue is full, at step keep_num − 1 because the first gradient is queued twice, and divides by
    1 − β2^(t − keep_num), which is negative then: the root is NaN.
    """

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            (beta1, beta2), keep = group["betas"], group["keep_num"]
            total = sum(beta1**i for i in range(keep))
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                queue = state.setdefault("grad_queue", [p.grad.clone()])
                queue.append(p.grad.clone())
                del queue[:-keep]
                if len(queue) < keep:
                    continue
                m, v = (state.setdefault(name, torch.zeros_like(p)) for name in ("exp_avg", "exp_avg_sq"))
                m.sub_(queue[0], alpha=beta1 ** (keep - 1) / total).mul_(beta1).add_(p.grad, alpha=1 / total)
                v.mul_(beta2).add_(self.reduce_func(queue[0] ** 2), alpha=1 - beta2)
                root = (v / (1 - beta2 ** (group["step"] - keep))).sqrt_().add_(group["eps"])
                p.addcdiv_(m, root, value=-group["lr"])


def played(case, kind, steps):
    """Return distances before each step and the regret of our own rule, one seed, by a plain loop."""
    problem, rule = case.problem, METHODS[FIVE[kind]]
    p = parameters(rule)
    unit = gradient_size(case) if kind == "Adai" else 1.0
    arrivals, _ = case.generators(0)
    order = problem.arrival.stream(len(problem.components), arrivals)(steps)
    x, s = problem.start.copy(), np.zeros((rule.rows(p), problem.dim))
    e, dx, distances, regret = np.zeros(problem.dim), np.zeros(problem.dim), [], 0.0
    if kind == "Yogi":
        s[0] = 1e-6  # the package starts m as it starts v, the paper at zero
    for t in range(1, steps + 1):
        at = dict(zip(problem.variables, x, strict=True))
        component = int(order[t - 1])
        regret += float(problem.components[component].subs(at)) - problem.optimal_values[component]
        distances.append(np.linalg.norm(x - case.optimum))
        rule.rule(t, float(case.rate(np.array([float(t)]))[0]) / unit, problem.gradient(component, x), s, p, e, dx)
        x = np.clip(x + dx, problem.lower, problem.upper)
    return np.array(distances), regret / steps


@pytest.mark.parametrize("name", ["reddi theorem 1", "reddi online", "adopt k=10"])
@pytest.mark.parametrize("kind", FIVE)
def test_a_row_is_what_our_own_method_does(kind, name):
    """Final distance and regret of 600 real steps to 1e-9: rounding, 1e-12 a step, is damped or grows linearly."""
    steps = STEPS if kind not in ("Adai", "AdaShift") else STEPS * SHARE_ALONE  # of which coupled ones play a fifth
    (row,) = run_suite(getattr(po, kind), [name], steps=steps, seeds=[0]).rows
    distances, regret = played(CASES[name], kind, STEPS)
    assert row.steps == STEPS
    assert row.distance == pytest.approx(distances[-STEPS // TAIL :].mean(), rel=1e-9, abs=1e-9 * row.start)
    assert row.regret == pytest.approx(regret, rel=1e-9)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "Yogi")) for kind in FIVE])
def test_the_command_prints_a_table_that_says_why_rho_is_missing(kind, capsys):
    """All problems, by the command line: none breaks, and a class without a reader says so."""
    code = cli.main(["suite", f"pytorch_optimizer.{kind}", "--steps", "100"])
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if "≤" in line]
    assert len(lines) == len(PROBLEMS)
    assert "broken" not in text
    assert code == ("wrong" in "".join(lines))
    if run_suite(getattr(po, kind), ["reddi theorem 1"], steps=20).rows[0].stepsize is False:
        assert f"all problems: no elementwise stepsize is known for {kind}: without it there is no b/a" in text


def test_the_command_plays_the_problems_and_seeds_it_is_told(capsys):
    cli.main(["suite", "pytorch_optimizer.Yogi", "--problem", "adopt k=10", "--seeds", "2", "--steps", "50", "--json"])
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["problem"], row["seeds"], row["steps"]) == ("adopt k=10", 2, 50)


def test_version_3_9_0_of_adashift_is_broken_in_every_row(monkeypatch, capsys):
    """At step keep_num − 1 = 9; the command's exit code is 1 and the JSON has a null for each distance."""
    monkeypatch.setattr(po, "AdaShift", Early)
    code = cli.main(["suite", "pytorch_optimizer.AdaShift", "--steps", "100", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == found["exit_code"] == 1
    assert (found["score"], found["complete"]) == (0.0, True)
    assert len(found["rows"]) == len(PROBLEMS)
    for row in found["rows"]:
        assert (row["outcome"], row["verdict"], row["steps"], row["distance"]) == ("broken", "unstable", 9, None)
        assert row["notes"][0] == "broken: x is not finite (step 9)"


def test_the_repaired_adashift_does_not_break_where_the_old_one_did():
    names = ["reddi theorem 1", "quadratic in two variables"]
    assert {row.outcome for row in run_suite(Early, names, steps=100).rows} == {Outcome.BROKEN}
    assert Outcome.BROKEN not in {row.outcome for row in run_suite(po.AdaShift, names, steps=100).rows}


@pytest.mark.slow
def test_who_comes_back_is_not_called_wrong():
    """ADOPT and Yogi are farther than they began after 10^5 steps; the engine shows both at the optimum later.

    ADOPT's clipped steps go up for the first 10^4 steps, where t^¼ is below n = 10. Yogi's first steps are larger than
    the box, which cuts the rare ones that point to the optimum.
    """
    for kind, name, law, steps in (
        (po.Yogi, "reddi online", "3.5/sqrt(t)", 3_000_000),
        (po.ADOPT, "zhang n=10", "0.1/sqrt(ceiling(t/10))", 1_000_000),
    ):
        (row,) = run_suite(kind, [name]).rows
        assert row.distance > row.start
        assert (row.outcome, row.expected) == (Outcome.SHORT, Outcome.SOLVED)
        assert "on the way back" in row.notes[0]
        later = simulate(CASES[name].problem, FIVE[kind.__name__], steps, law)
        assert abs(later.x - CASES[name].optimum).max() < row.tolerance
