"""Times the rows: every problem with a known answer, played by the engine with four methods for 10^6 steps and judged.

The problems are those of the command line and the builders of the papers' modules. What is timed is a warm process:
all pairs are compiled before, which costs seconds a pair once per machine, and is told beside.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import joblib
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from stepscope.synthetic.claims import papers
from stepscope.synthetic.engine import simulate
from stepscope.synthetic.named import NAMED
from stepscope.synthetic.problem import Problem

METHODS = ("sgd", "adam", "amsgrad", "adopt")
STEPS = 1_000_000
TARGET = 60.0
LR = "0.1/sqrt(t)"  # where a problem brings no law of its own


def rows() -> Iterator[tuple[str, Problem, str]]:
    """Give every problem once, with its name and learning rate."""
    seen: set[str] = set()
    for name, entry in NAMED.items():
        problem = entry.build()
        seen.add(identity(problem))
        yield name, problem, entry.lr
    for paper in papers():
        for name, build in builders(paper):
            problem = build()
            if identity(problem) not in seen:
                seen.add(identity(problem))
                yield f"{paper} {name}", problem, LR


def identity(problem: Problem) -> str:
    return f"{problem.source}{problem.arrival}{problem.noise}{problem.start}{problem.lower}{problem.upper}"


def builders(paper: str) -> Iterator[tuple[str, Callable[[], Problem]]]:
    """Give the public functions of a paper's module that make a problem and need no argument."""
    module = importlib.import_module(f"stepscope.synthetic.{paper}")
    for name, value in vars(module).items():
        if not inspect.isfunction(value) or value.__module__ != module.__name__ or name.startswith("_"):
            continue
        signature = inspect.signature(value)
        needed = [p for p in signature.parameters.values() if p.default is p.empty]
        if str(signature.return_annotation) in ("Problem", str(Problem)) and not needed:
            yield name, value


def play(problem: Problem, method: str, lr: str, steps: int, seeds: int) -> tuple[str, float]:
    """Return the verdict, and the seconds that the run and its judgement took."""
    begin = time.perf_counter()
    verdict = str(simulate(problem, method, steps, lr, seeds=seeds, jobs=1).diagnose().verdict)
    return verdict, time.perf_counter() - begin


def cold() -> float:
    """Return the seconds that a process with an empty cache takes to compile everything, and play it shortly."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"STEPSCOPE_CACHE": cache}
        begin = time.perf_counter()
        subprocess.run([sys.executable, __file__, "--steps", "100"], env=environment, check=True, capture_output=True)
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=joblib.cpu_count())
    parser.add_argument("--cold", action="store_true", help="measure the first time on a machine as well: minutes")
    wanted = parser.parse_args()
    problems = list(rows())
    pairs = [(problem, method, lr) for _, problem, lr in problems for method in METHODS]
    begin = time.perf_counter()
    for problem, method, lr in pairs:
        play(problem, method, lr, 100, 1)
    warming = time.perf_counter() - begin
    begin = time.perf_counter()
    played = joblib.Parallel(n_jobs=wanted.jobs, prefer="threads")(
        joblib.delayed(play)(*pair, wanted.steps, wanted.seeds) for pair in pairs
    )
    total = time.perf_counter() - begin
    table = Table(title=f"Verdicts after {wanted.steps} steps", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("problem", *METHODS, "s"):
        table.add_column(heading, justify="right" if heading == "s" else "left")
    for i, (name, _, _) in enumerate(problems):
        cells = played[i * len(METHODS) : (i + 1) * len(METHODS)]
        table.add_row(name, *(verdict for verdict, _ in cells), f"{sum(seconds for _, seconds in cells):.1f}")
    Console(width=120).print(table)
    print(f"{len(pairs)} runs with {wanted.seeds} seed(s) each, judged: {total:.1f} s on {wanted.jobs} core(s)")
    print(f"target: {TARGET:.0f} s for {STEPS} steps; compiled, or loaded from the cache, before: {warming:.1f} s")
    if wanted.cold:
        print(f"with an empty cache: {cold():.0f} s")


if __name__ == "__main__":
    main()
