"""Remakes the figures of three papers into a folder: python examples/papers.py OUT.

Settings are after the papers; where one is not printed, or another shows more, the note under the figure says what was
taken. Everything is simulated anew, in about a minute on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stepscope.diagnostics.trace import Trace
from stepscope.reports.growth import draw_gamma, draw_growth, draw_ratios, gammas, growth, ratios
from stepscope.reports.iterates import distances, draw_falling, draw_paths, draw_steps, paths, regrets, steps
from stepscope.reports.plates import Panel
from stepscope.reports.sheets import save_sheet
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.named import named
from stepscope.synthetic.phase import phase_diagram
from stepscope.synthetic.problem import Problem

Runs = list[tuple[str, Trace]]
Setting = tuple[str, str, float | str, dict[str, float]]
SIZE = (4.6, 3.1)


def panel(draw: Callable[..., None], data: object, title: str = "") -> Panel:
    return Panel(title, partial(draw, data), SIZE)


def accumulators(runs: Runs) -> list[Panel]:
    sums = [panel(draw_growth, growth(runs, key)) for key in ("a", "b", "c")]
    return [*sums, panel(draw_ratios, ratios(runs, "b")), panel(draw_ratios, ratios(runs, "c⁺"))]


def play(problem: Problem, settings: Sequence[Setting], total: int, **options: Any) -> Runs:
    return [(name, simulate(problem, method, total, lr, **options | hyper)) for name, method, lr, hyper in settings]


def four(sgd: float | str, lr: float | str, **betas: float) -> list[Setting]:
    """Return the methods that the papers compare: SGD with a rate of its own, AdaGrad without momentum."""
    return [
        ("SGD", "sgd", sgd, {}),
        ("AdaGrad", "adafom", lr, {"beta1": 0.0}),
        ("AMSGrad", "amsgrad", lr, betas),
        ("Adam", "adam_plain", lr, betas),
    ]


def chen1(out: Path) -> None:
    problem = named("chen1").build()
    settings = four(0.001, 0.01, beta1=0.0, beta2=0.9)
    long, short = play(problem, settings, 100_000), play(problem, settings, 1000, records=1000)
    panels = [
        panel(draw_paths, paths(long, problem), "The iterates"),
        panel(draw_steps, steps(short, problem, 977, 1000), "Step by step: Adam is on a 2-cycle of ±α/2"),
        panel(draw_falling, distances(long, problem), "Distance to the optimum"),
        *accumulators(long),
    ]
    save_sheet(
        panels,
        out / "chen1.png",
        "Adam cycles where the variance condition fails: 100x², linear beyond |x| = 10",
        "After Chen, Liu, Sun, Hong 2019, figure 1. α = 0.01, β1 = 0, β2 = 0.9, x₁ = 1 (chosen here); SGD with "
        "α = 0.001, as α = 0.01 is its edge of stability. ↓: below the axis.",
        columns=4,
    )


def chen2(out: Path) -> None:
    problem = named("chen2").build()
    settings = four("1/sqrt(t)", "1/sqrt(t)", beta1=0.0, beta2=0.1)
    runs = play(problem, settings, 1_000_000, seeds=5, start=2)
    short = play(problem, settings[2:], 10_000, start=2, records=10_000)
    short = [(f"{name}, one run", trace) for name, trace in short]
    panels = [
        panel(draw_falling, distances(runs, problem), "Distance to the optimum, 5 seeds"),
        *(panel(draw_gamma, data) for data in gammas(short, 9_940, 10_000)),
        *accumulators(runs),
    ]
    save_sheet(
        panels,
        out / "chen2.png",
        "Adam diverges where the bias condition fails: eleven functions, one against ten",
        "After Chen, Liu, Sun, Hong 2019, figure 2. α = 1/√t, β1 = 0, β2 = 0.1, x₁ = 2 (chosen here). Bands: all "
        "seeds, and all steps of a stretch of log t. ↓: below the axis.",
        columns=4,
    )


def games(out: Path) -> None:
    panels: list[Panel] = []
    settings = four("0.005/sqrt(t)", "0.5/sqrt(t)", beta1=0.9, beta2=0.99)
    for name, seeds in (("online", 1), ("stochastic", 5)):
        problem = named(name).build()
        runs = play(problem, settings, 2_000_000, seeds=seeds)
        kind = f"{name.capitalize()} game" + (f", {seeds} seeds" if seeds > 1 else "")
        panels += [
            panel(draw_paths, paths(runs, problem), f"{kind}: the iterates"),
            panel(draw_falling, regrets(runs), f"{kind}: average regret"),
        ]
        if name == "online":
            panels += periods(problem, settings[2:])
        else:
            panels += [panel(draw_ratios, ratios(runs, key), f"{kind}: {key}/a") for key in ("b", "c⁺")]
    save_sheet(
        panels,
        out / "reddi.png",
        "Adam goes to the wrong end of the box: 1010x once in 101 steps, −10x otherwise",
        "After Reddi, Kale, Kumar 2018, section 5. α = 0.5/√t, β1 = 0.9, β2 = 0.99, x₁ = 0; SGD with 0.005/√t, about "
        "AdaGrad's stepsize here. Stochastic: 1010x with probability 0.01. Bands: all steps of a stretch of log t and, "
        "for the iterates, all seeds.",
        columns=4,
    )


def periods(problem: Problem, settings: Sequence[Setting]) -> list[Panel]:
    runs = [(f"{name}, three periods", trace) for name, trace in play(problem, settings, 20_200, records=20_200)]
    return [panel(draw_gamma, data) for data in gammas(runs, 19_898, 20_200)]


def zhang(out: Path) -> None:
    setting = named("zhang10")
    spans = (("beta1", 0.0, 0.99), ("beta2", 0.0, 0.999))
    problem = setting.build()
    problem.name = "Zhang's finite sum, n = 10"
    phase = phase_diagram(problem, "adam", *spans, size=(24, 24), steps=100_000, lr=setting.lr, start=1)
    phase.draw(out / "zhang.png")


FIGURES = {"chen1": chen1, "chen2": chen2, "reddi": games, "zhang": zhang}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the figures")
    parser.add_argument("--only", choices=FIGURES, help="one of them")
    arguments = parser.parse_args()
    for name, draw in FIGURES.items():
        if arguments.only in {None, name}:
            draw(arguments.out)
            print(arguments.out / f"{name}.png")


if __name__ == "__main__":
    main()
