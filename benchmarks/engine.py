"""Measures the engine: ns per step with all sums on, one thread, against the same loop in C and against a torch loop.

Each pair is timed in turn, a|b, b|a, …, so that a machine that slows down slows both. The C program is compiled here
with -O3 -march=native and keeps the same sums.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import sympy
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from stepscope.synthetic.arrivals import Cyclic
from stepscope.synthetic.engine import Play, recorded, schedule, simulate
from stepscope.synthetic.methods import method, parameters
from stepscope.synthetic.problem import Problem

STEPS = 1_000_000
LR, BETAS = "0.5/sqrt(t)", (0.9, 0.99)
TARGETS = {"C": 1.5, "torch": 1000.0}


def game() -> Problem:
    x = sympy.Symbol("x")
    return Problem([1010 * x, -10 * x], Cyclic([0] + [1] * 100), domain=(-1, 1), start=0)


def play(name: str = "adam", steps: int = STEPS) -> Play:
    rule, problem = method(name), game()
    p, records = parameters(rule, BETAS), recorded(steps, 1024)
    return Play(problem, rule, p, schedule(LR, steps), records, steps, problem.start)


def c_loop(folder: Path) -> Callable[[int], float]:
    """Return the loop in C: it takes steps and returns the last x."""
    source, library = Path(__file__).with_name("engine.c"), folder / "engine.so"
    subprocess.run(["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source, "-lm"], check=True)
    run = ctypes.CDLL(str(library)).run
    run.restype = ctypes.c_double
    run.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]

    def loop(steps: int) -> float:
        indices = game().arrival.stream(2, np.random.default_rng(0))(steps)
        alphas = schedule(LR, steps)(np.arange(1.0, steps + 1))
        sums = np.zeros(23)
        result: float = run(steps, indices.ctypes.data, alphas.ctypes.data, sums.ctypes.data)
        return result

    return loop


def torch_loop(steps: int) -> float:
    """Play the same game with torch's own Adam, without any sums; return the last x."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.5, betas=BETAS)
    for t in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = 0.5 / t**0.5
        x.grad = torch.full_like(x, 1010.0 if t % 101 == 1 else -10.0)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(-1.0, 1.0)
    return x.item()


def seconds(run: Callable[[], object]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def in_turn(first: Callable[[], object], second: Callable[[], object], pairs: int) -> tuple[float, float]:
    """Return the median seconds of each, taken in alternating order."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(pairs):
        for which in (0, 1) if i % 2 == 0 else (1, 0):
            times[which].append(seconds((first, second)[which]))
    return statistics.median(times[0]), statistics.median(times[1])


def first_call(cache: Path) -> float:
    """Return the seconds that a fresh process takes for its first simulation, imports not counted."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "import engine\n"
        "run = engine.play(steps=1000)\n"
        "begin = time.perf_counter(); run.run(0); print(time.perf_counter() - begin)\n"
    )
    environment = os.environ | {"STEPSCOPE_CACHE": str(cache)}
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=7)
    wanted = parser.parse_args()
    table = Table(title="Reddi's online game, Adam, all sums on", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("what", "ns a step", "ratio", "target"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run, c = play(), c_loop(folder)
        compiled = run.run(0).x[-1, 0]
        if abs(compiled - c(STEPS)) > 1e-9:
            raise SystemExit(f"the C loop ends at {c(STEPS)}, the engine at {compiled}: they are not the same loop.")
        ours, theirs = in_turn(lambda: run.run(0), lambda: c(STEPS), wanted.pairs)
        table.add_row("engine", f"{1e9 * ours / STEPS:.1f}", "", "")
        table.add_row("the same loop in C", f"{1e9 * theirs / STEPS:.1f}", f"{ours / theirs:.2f}", f"≤ {TARGETS['C']}")
        few = STEPS // 200
        torch.set_num_threads(1)
        slow = statistics.median(seconds(lambda: torch_loop(few)) for _ in range(3))
        ratio = slow / few / (ours / STEPS)
        target = f"≥ {TARGETS['torch']:.0f}"
        table.add_row("torch.optim.Adam, no sums", f"{1e9 * slow / few:.0f}", f"{ratio:.0f}", target)
        begin = time.perf_counter()
        simulate(game(), "adam", STEPS, LR, BETAS, seeds=8, jobs=1)
        alone = time.perf_counter() - begin
        begin = time.perf_counter()
        simulate(game(), "adam", STEPS, LR, BETAS, seeds=8)
        faster = alone / (time.perf_counter() - begin)
        table.add_row(f"8 seeds on {joblib.cpu_count()} cores against 1", "", f"{faster:.2f}", "")
        cold, warm = first_call(folder / "cache"), first_call(folder / "cache")
        table.add_row("first call, nothing kept", f"{cold:.2f} s", "", "")
        table.add_row("first call of a second process", f"{warm:.2f} s", "", "")
    Console().print(table)


if __name__ == "__main__":
    main()
