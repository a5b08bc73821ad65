"""Pages of the problems and of the remedies."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import sympy
from items import Played, about, answers, item, made_by, played, section
from pictures import of_comparison, of_run, shown
from runs_remedies import REMEDIES as RUNS
from tables import code, known, numbers, remedy_entries, table

from stepscope import Trace, phase_diagram, simulate
from stepscope.diagnostics.conditions import MIN_BLOCKS
from stepscope.reports.iterates import distances, draw_falling, draw_paths, paths
from stepscope.reports.numerals import number, sentence, whole
from stepscope.reports.phase_study import endings_panel
from stepscope.reports.plates import Panel, Plate
from stepscope.synthetic.arrivals import Cyclic, Random
from stepscope.synthetic.cases import PROBLEMS, Case
from stepscope.synthetic.named import NAMED
from stepscope.synthetic.problem import Problem

ROOT = Path(__file__).parents[2]
STEPS = 300_000
CELLS, PLAYED = 16, 20_000
"""Along each axis of a phase diagram, and steps in a cell."""
BETAS = {
    "theorem1": (0.0, 0.1),
    "adopt10": (0.0, 0.9),
    "adopt50": (0.0, 0.99),
    "zhang10": (0.0, 0.9),
    "shi": (0.0, 0.9),
    "chen2": (0.0, 0.1),
}
"""Where Adam fails on a problem, if it is not at (0.9, 0.99)."""


def problem(name: str) -> str:
    """Return the page of a problem: what it is, what SymPy knows of it, and where Adam and AMSGrad go on it."""
    entry, case = NAMED[name], case_of(name)
    built = entry.build()
    runs = [(words, trace, trace.diagnose()) for words, trace in both(name).items()]
    paper = paper_of(case)
    return item(
        name,
        sentence(entry.about),
        section("The problem", statement(built)),
        section("What SymPy derives", facts(built)),
        section("Where Adam goes, and AMSGrad", f"{settings(name)}\n\n{answers(runs)}\n\n{ends(runs, built)}"),
        trajectories(built, runs),
        *([] if built.optimum is None else [diagram(name)]),
        next(of_run(*runs[0][1:], ("ratios",), "adam")),
        section("In the suite", in_suite(case)),
        section("Its paper", paper),
        section("The code of these runs", f"```python\n{calls(name)}\n```\n"),
    )


def case_of(name: str) -> Case:
    """Return the case of the suite that plays the same problem: the one with its components, arrival and start."""
    mine = NAMED[name].build()
    return next(case for case in PROBLEMS if same(case.problem, mine))


def same(one: Problem, other: Problem) -> bool:
    """Return whether two problems have the same components, weights and start."""
    return (
        [str(f) for f in one.components] == [str(f) for f in other.components]
        and type(one.arrival) is type(other.arrival)
        and one.weights.tolist() == other.weights.tolist()
        and one.start.tolist() == other.start.tolist()
    )


def both(name: str) -> dict[str, object]:
    """Play the code that the page shows, and return both runs."""
    scope: dict[str, object] = {"simulate": simulate}
    exec(calls(name), scope)
    return {"Adam": scope["adam"], "AMSGrad": scope["amsgrad"]}


def calls(name: str) -> str:
    """Return the code of both runs."""
    random = not isinstance(NAMED[name].build().arrival, Cyclic) or NAMED[name].build().noise is not None
    seeds = ", seeds=4" if random else ""
    lines = [
        f'{method} = simulate("{name}", "{method}", steps={STEPS:_}, lr="{NAMED[name].lr}", betas={betas(name)}{seeds})'
        for method in ("adam", "amsgrad")
    ]
    return "\n".join(["from stepscope import simulate\n", *lines])


def betas(name: str) -> tuple[float, float]:
    """Return (β1, β2) of the runs."""
    return BETAS.get(name, (0.9, 0.99))


def settings(name: str) -> str:
    """Say with which settings the runs were made."""
    beta1, beta2 = betas(name)
    return f"{whole(STEPS)} steps at the rate {code(NAMED[name].lr)}, with β1 = {beta1:g} and β2 = {beta2:g}."


def statement(built: Problem) -> str:
    """Return the components, each with how often it comes, and the domain."""
    counted = Counter(map(formula, built.components))
    shares: Counter[str] = Counter()
    for f, weight in zip(built.components, built.weights.tolist(), strict=True):
        shares[formula(f)] += weight
    rows = [(f, count, number(shares[f])) for f, count in counted.items()]
    box = [
        f"{v} from {number(low)} to {number(high)}"
        for v, low, high in zip(built.variables, built.lower, built.upper, strict=True)
        if math.isfinite(low) or math.isfinite(high)
    ]
    bounds = f"{', '.join(box)}; iterates are projected onto it" if box else "no bound"
    return (
        table(["component", "how many", "share of the steps"], rows)
        + f"\n- *Arrival:* {arrival(built)}\n- *Domain:* {bounds}\n- *Start:* {numbers(built.start)}\n"
        + f"- *Noise:* {code(built.noise) if built.noise else 'none'}\n"
    )


def formula(f: sympy.Expr) -> str:
    """Return a function as code, its pieces each with where it holds."""
    if not isinstance(f, sympy.Piecewise):
        return code(f)
    return "; ".join(f"{code(piece)} {place(where)}" for piece, where in f.args)


def place(where: sympy.Basic) -> str:
    """Return where a piece of a function holds."""
    return "elsewhere" if where is sympy.true else f"where {code(where)}"


def arrival(built: Problem) -> str:
    """Return in which order the components come."""
    order = built.arrival
    if isinstance(order, Cyclic):
        return f"a fixed cycle of {len(order.order)} step{'s' * (len(order.order) > 1)}"
    return "at random, each step anew" if isinstance(order, Random) else "reshuffled epochs"


def facts(built: Problem) -> str:
    """Return what is derived from the components."""
    optimum, lipschitz, bound = known(built)
    rows = (
        ("objective, the mean of the components", formula(sympy.nsimplify(built.objective))),
        ("optimum", numbers(optimum)),
        ("its value", number(built.minimum)),
        ("L, the Lipschitz constant of the gradient", number(lipschitz)),
        ("H, the bound on the components' gradients", number(bound)),
    )
    notes = "".join(f"\n- {note}" for note in built.notes)
    return table(["", ""], rows) + notes


def ends(runs: Played, built: Problem) -> str:
    """Return where each run ended, over its seeds."""
    rows = [
        (words, "; ".join(map(numbers, trace.x)), *([distance(trace, built)] if built.optimum is not None else []))
        for words, trace, _ in runs
    ]
    return table(
        ["run", "last iterate, each seed", *(["mean distance to the optimum"] if len(rows[0]) > 2 else [])], rows
    )


def distance(trace: Trace, built: Problem) -> str:
    """Return the mean distance of the last iterates to the optimum."""
    return number(float(np.linalg.norm(trace.x - built.optimum, axis=1).mean()))


def trajectories(built: Problem, runs: Played) -> str:
    """Return the figure of where the iterates go."""
    pairs = [(words, trace) for words, trace, _ in runs]
    panels = [Panel("iterates over steps", partial(draw_paths, paths(pairs, built)))] if built.dim == 1 else []
    if built.optimum is not None:
        panels.append(Panel("distance to the optimum over steps", partial(draw_falling, distances(pairs, built))))
    return shown(
        Plate(
            "trajectories",
            "Where do the iterates go?",
            "Medians over stretches of the run, in the band of the lowest and highest value of any seed. The dashed "
            "line is the optimum; what lies outside the domain is grey. An arrow beside a name: the curve ends below "
            "the axis.",
            tuple(panels),
        ),
        "world",
    )


def diagram(name: str) -> str:
    """Return the phase diagram of Adam over its decay rates."""
    found = phase_diagram(name, "adam", size=(CELLS, CELLS), steps=PLAYED, lr=NAMED[name].lr, seeds=4)
    return shown(
        Plate(
            "phase",
            "With which decay rates does Adam end nearer to the optimum?",
            f"{CELLS} × {CELLS} settings, {whole(PLAYED)} steps each: how the problem ends under Adam, by its decay "
            "rates. [How to make such a map](../synthetic.md#a-phase-diagram).",
            (endings_panel(found),),
        ),
        "phase",
    )


def in_suite(case: Case) -> str:
    """Return how the suite plays it."""
    return (
        f"As {code(case.name)}, with real `step()` calls of any torch optimizer at the rate {case.law}. {case.why} "
        f"Source: {case.source}. [All of the suite](problems.md#the-suite)."
    )


def paper_of(case: Case) -> str:
    """Return what is to be had of the paper: its module, and the command that plays its claims."""
    found = re.match(r"(\w+).*?((?:19|20)\d\d)", case.source)
    module = f"{found[1].lower()}{found[2]}" if found else ""
    if not module or not (ROOT / "synthetic" / f"{module}.py").exists():
        return ""
    return (
        f"`synthetic/{module}.py` has the problems of the paper and what it predicts; `stepscope claims --paper "
        f"{module}` plays each prediction. The paper is in the [bibliography](../bibliography.md)."
    )


# --- remedies ------------------------------------------------------------------------------------------------


def judged(runs: Played) -> bool:
    """Return whether all runs are long enough for their ratios to be judged."""
    return all(len(found.variance.ratios) >= MIN_BLOCKS for _, _, found in runs)


def remedy(name: str) -> str:
    """Return the page of a remedy: its rule, the findings that name it, and a run before and after."""
    from names import docstring, found, signature

    run = RUNS[name]
    runs = played(run)
    of = found(f"stepscope.remedies.{name}")
    entries = remedy_entries(name)
    seen = "\n".join(f"- *{one.finding[:1].upper()}{one.finding[1:]}:* {one.reason}." for _, one in entries)
    lines = {f"```python\n{chr(10).join(one.lines)}\n```" for _, one in entries}
    made_for = "\n\n".join([seen, *sorted(lines)])
    nothing = "No finding names it: [what was tried](../remedies.md#from-a-finding-to-a-remedy) says why."
    before, after = (words for words, _, _ in runs)
    return item(
        name,
        of.docstring.value.split("\n\n")[0] if of.docstring else "",
        "[All remedies](../remedies.md), [what a step costs](../remedies.md#cost), "
        "[whether they help on networks](../proof.md).",
        section("Made for", made_for or nothing),
        section(
            "Before and after",
            f"{about(run)} In the figures 1 is {before}, 2 is {after}. This shows what the method does, on a problem "
            f"made for it; it is no benchmark.\n\n{answers(runs)}",
        ),
        *(of_comparison(runs, key, "both") for key in ("compare-losses", "compare-ratios")[: 1 + judged(runs)]),
        *of_run(*runs[1][1:], ("stepsizes",), "after"),
        section("The rule", f"```python\n{signature(of)}\n```\n\n" + "\n".join(docstring(of))),
        made_by(run),
    )
