"""Pages of the verdicts and of the four checks that they rest on."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from itertools import pairwise

import thresholds
from items import Played, about, answers, findings, item, made_by, played, prose, section
from items import thresholds as listed
from pictures import of_run
from runs_verdicts import CONDITIONS, VERDICTS
from tables import CHECKS, code, commented, finding_anchors, table
from tables import item as link

from stepscope import Verdict
from stepscope.diagnostics import conditions, drift
from stepscope.diagnostics.diagnosis import MEANING
from stepscope.reports.words import ADVICE

VERDICT_FIGURES = {
    Verdict.BIASED: ("efficiency", "ratios"),
    Verdict.UNSTABLE: ("scalars/0", "lengths"),
    Verdict.STALLED: ("sums", "stepsizes"),
    Verdict.INCONCLUSIVE: ("ratios",),
}
"""What shows a verdict best; of the others it is the ratios and their sums."""


def verdict(name: str) -> str:
    """Return the page of a verdict: what it says, a run that gets it, and what follows."""
    which = Verdict(name)
    run = VERDICTS[which]
    ((_, trace, found),) = runs = played(run)
    if found.verdict is not which:
        raise ValueError(f"the run for {name!r} got the verdict {str(found.verdict)!r}; change the run.")
    figures = of_run(trace, found, VERDICT_FIGURES.get(which, ("ratios", "sums")), name)
    return item(
        name,
        MEANING[which],
        docstrings(Verdict)[which.name],
        f"[What it means and what to do](../verdicts.md#{name}), and [how often it is right](../trust.md).",
        section("What to do", ADVICE[which]),
        section("Seen on a run", f"{about(run)}\n\n{answers(runs)}"),
        *figures,
        section("What the diagnosis finds there", findings(found, finding_anchors())),
        made_by(run),
    )


def docstrings(cls: type) -> dict[str, str]:
    """Return the strings below the members of a class."""
    ((body),) = (node.body for node in ast.parse(inspect.getsource(cls)).body if isinstance(node, ast.ClassDef))
    return dict(_members(body))


def _members(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node, after in pairwise(body):
        if isinstance(node, ast.Assign) and isinstance(after, ast.Expr):
            yield ast.unparse(node.targets[0]), inspect.cleandoc(ast.literal_eval(after.value))


JUDGES: dict[str, tuple[str, tuple[Callable[..., object], ...], tuple[str, ...], tuple[str, ...]]] = {
    "growth": ("Growth of a", (conditions.growth,), ("a",), ("sums",)),
    "variance": ("Variance condition", (conditions.judge_variance, conditions.judge), ("b", "a"), ("ratios/0",)),
    "bias": (
        "Bias condition",
        (conditions.judge_bias, conditions.judge),
        ("c_plus", "c", "a"),
        ("ratios/1", "oscillation"),
    ),
    "harm": ("Harm test", (drift.judge_harm,), (), ("efficiency",)),
}
"""Title, what decides, columns and figures of each check."""


def condition(name: str) -> str:
    """Return the page of a check: its rule, its constants, and runs on which it says one thing and the other."""
    title, judges, columns, figures = JUDGES[name]
    run = CONDITIONS[name]
    runs = played(run)
    read = thresholds.of_functions(judges, (conditions, drift))
    comments, _ = commented("SUMS")
    recorded = table(["column", "what it is"], ((code(column), comments[column]) for column in columns))
    theory = prose(inspect.getdoc(drift) or "") + "\n\n" if name == "harm" else ""
    rule = theory + "\n\n".join(prose(inspect.getdoc(judge) or "") for judge in judges)
    others = ", ".join(link("condition", other, JUDGES[other][0]) for other in CHECKS if other != name)
    return item(
        title,
        CHECKS[name],
        f"`diagnosis.{name}` has the answer, its numbers, and a sentence in `.reason`. [Theory](../theory.md) has the "
        f"reasons, [verdicts](../verdicts.md#the-decision-rule) the rule in short. The other checks: {others}.",
        section("The rule", rule),
        listed(read),
        section("What it reads", f"Cumulative [columns of the record](columns.md).\n\n{recorded}" if columns else ""),
        section("Seen on runs", f"{about(run)}\n\n{answers(runs)}"),
        *of_each(runs, figures),
        made_by(run),
    )


def of_each(runs: Played, figures: tuple[str, ...]) -> Iterator[str]:
    """Yield the figures of every run under its name."""
    for place, (words, trace, found) in enumerate(runs):
        yield f"### {words}"
        yield from of_run(trace, found, figures, f"run{place}")
