"""What the command line does with worlds whose answer is known: simulate, phase, suite, claims, and their lists."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .words import ALARMS

if TYPE_CHECKING:
    from ..synthetic.phase import Span


@dataclass(frozen=True)
class Found:
    """What a command found: as text, as JSON, and whether it is an alarm."""

    text: str
    data: object
    alarm: bool = False


def simulate(
    problem: str,
    method: str,
    settings: Sequence[str],
    steps: int,
    lr: str | None,
    betas: tuple[float, ...] | None,
    seeds: int,
    start: tuple[float, ...] | None,
    output: Path | None,
    **_: object,
) -> Found:
    """Play a problem with a method, judge the run, and keep it where it is asked to."""
    from ..synthetic.engine import simulate as play
    from ..synthetic.named import named

    entry, pair = named(problem), None
    betas, settings = _betas(betas, settings)
    if betas is not None:
        if len(betas) != 2:
            raise ValueError(f"`betas` must be two numbers, 0.9,0.99 say, got {len(betas)}.")
        pair = (betas[0], betas[1])
    hyper: dict[str, Any] = _hyper(settings)
    trace = play(entry.build(), method, steps, lr or entry.lr, pair, seeds, start=start, **hyper)
    diagnosis = trace.diagnose()
    distance = float(trace.scalars["distance"].last[-1]) if "distance" in trace.scalars else math.nan
    if output is not None:
        trace.save(output)
    x = "; ".join(", ".join(f"{value:.6g}" for value in row) for row in trace.x[:8])
    more = f" and {len(trace.x) - 8} more" if len(trace.x) > 8 else ""
    lines = [str(diagnosis), "", f"final x: {x}{more}; mean distance to the optimum: {distance:.3g}"]
    lines += [] if output is None else [f"run: {output}"]
    data = {
        "problem": problem,
        "method": method,
        "steps": steps,
        "x": [[_plain(value) for value in row] for row in trace.x.tolist()],
        "distance": _plain(distance),
        "run": None if output is None else str(output),
        "diagnosis": diagnosis.to_dict(),
    }
    return Found("\n".join(lines), data, diagnosis.verdict in ALARMS)


def phase(
    problem: str,
    settings: Sequence[str],
    x: str,
    y: str,
    method: str,
    size: tuple[float, ...],
    steps: int,
    lr: str | None,
    seeds: int,
    start: tuple[float, ...] | None,
    refine: int,
    resume: Path | None,
    output: Path,
    **_: object,
) -> Found:
    """Play a phase diagram, draw it, and say what share ends how."""
    from ..synthetic.named import named
    from ..synthetic.phase import phase_diagram
    from .formats import PHASE, save_phase, writable
    from .phases import check_format, save_picture

    is_report = output.suffix.lower() in PHASE
    if is_report:
        writable(output, PHASE)
    else:
        check_format(output, ", in .html, .pdf, .md or .json for a report")
    entry = named(problem)
    if len(size) > 2 or any(number != int(number) for number in size):
        raise ValueError(f"`--size` must be one or two whole numbers, got {','.join(f'{n:g}' for n in size)}.")
    hyper: dict[str, Any] = _hyper(settings)
    with _bar() as progress:
        try:
            diagram = phase_diagram(
                entry.build(),
                method,
                _span(x, "x"),
                _span(y, "y"),
                (int(size[0]), int(size[-1])),
                steps,
                lr or entry.lr,
                seeds,
                start=start,
                refine=refine,
                resume=resume,
                progress=progress,
                **hyper,
            )
        except KeyboardInterrupt:
            if resume is not None:
                print(f"stepscope: interrupted; '{resume}' keeps the finished cells, call again.", file=sys.stderr)
            raise
    path = (save_phase if is_report else save_picture)(diagram, output)
    kind = "report" if is_report else "picture"
    return Found(f"{diagram}\n{kind}: {path}", {**diagram.to_dict(), kind: str(path)})


def suite(
    spec: str,
    settings: Sequence[str],
    steps: int,
    seeds: int | None,
    problem: Sequence[str] | None,
    output: Path | None,
    **_: object,
) -> Found:
    """Turn the suite on a torch optimizer, and write what came of it where it is asked to."""
    from ..synthetic.suite import optimizer_from_spec, run_suite
    from .formats import save_suite, writable

    if output is not None:
        writable(output)
    optimizer = optimizer_from_spec(spec, settings)
    result = run_suite(optimizer, problem, steps=steps, seeds=seeds, progress=sys.stderr.isatty())
    text = _coloured(result)
    if output is not None:
        text += f"\nreport: {save_suite(result, output)}"
    return Found(text, result.to_dict(), bool(result.exit_code))


def claims(paper: str | None, **_: object) -> Found:
    """Check what papers and theory predict."""
    from ..synthetic.claims import check, shown, table, written
    from ..synthetic.claims import claims as stated

    chosen = stated(paper)
    observed = []
    with _bar() as progress:
        for done, claim in enumerate(chosen, 1):
            observed.append(check(claim))
            progress(done, len(chosen))
    agree = sum(o.agrees for o in observed)
    data = [
        {
            "name": o.claim.name,
            "paper": o.claim.paper,
            "origin": o.claim.origin,
            "predicted": shown(o.claim),
            "observed": written(o.observed),
            "agrees": o.agrees,
            "seconds": o.seconds,
        }
        for o in observed
    ]
    text = f"{table(observed)}\n{agree} of {len(observed)} claims hold."
    return Found(text, data, agree < len(observed))


def listed(problems: bool, methods: bool, **_: object) -> Found:
    """List the problems that have names, the methods, or both."""
    from ..synthetic.methods import METHODS
    from ..synthetic.named import NAMED

    data: dict[str, object] = {}
    lines: list[str] = []
    if problems:
        data["problems"] = {name: {"lr": entry.lr, "about": entry.about} for name, entry in NAMED.items()}
        lines += [f"{name:13} {entry.about}; α = {entry.lr}" for name, entry in NAMED.items()]
    if methods:
        data["methods"] = {
            name: {"formula": m.formula, "source": m.source, "defaults": dict(m.defaults)}
            for name, m in METHODS.items()
        }
        lines += [*([""] if lines else []), *(f"{name:13} {m.formula}; {m.source}" for name, m in METHODS.items())]
    return Found("\n".join(lines), data)


def remedies(**_: object) -> Found:
    """List which method is made for what a diagnosis may find."""
    from .remedies import as_rows, as_text

    return Found(as_text(), as_rows())


COMMANDS: Mapping[str, Callable[..., Found]] = {
    "simulate": simulate,
    "phase": phase,
    "suite": suite,
    "claims": claims,
    "list": listed,
    "remedies": remedies,
}


def _span(text: str, axis: str) -> Span:
    """Return an axis from NAME or NAME=LOW,HIGH."""
    from ..synthetic.phase import BETA1, BETA2

    known = {"beta1": BETA1, "beta2": BETA2}
    name, equals, span = text.partition("=")
    if not equals and name in known:
        return known[name]
    try:
        low, high = (float(part) for part in span.split(","))
    except ValueError as fault:
        raise ValueError(f"`--{axis}` must read NAME=LOW,HIGH, lr=0.1,10 say, got {text!r}.") from fault
    return name, low, high


def _betas(betas: tuple[float, ...] | None, settings: Sequence[str]) -> tuple[tuple[float, ...] | None, Sequence[str]]:
    """Take betas=0.9,0.99 out of the settings: so it is written for `suite`, and may be here."""
    given = [setting.partition("=")[2] for setting in settings if setting.startswith("betas=")]
    rest = [setting for setting in settings if not setting.startswith("betas=")]
    if not given:
        return betas, rest
    try:
        return tuple(float(part) for part in given[-1].split(",")), rest
    except ValueError:
        raise ValueError(f"`betas` must be two numbers, 0.9,0.99 say, got {given[-1]!r}.") from None


def _hyper(settings: Sequence[str]) -> dict[str, float]:
    """Return hyper-parameters from NAME=VALUE; an unknown name is refused later, where the method is known."""
    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        try:
            found[name] = float(value if equals and name.isidentifier() else "")
        except ValueError as fault:
            raise ValueError(f"a setting must read NAME=NUMBER, eps=0 say, got {setting!r}.") from fault
    return found


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows progress on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _coloured(result: Any) -> str:
    """Return a table with colours where the terminal shows them."""
    from rich.console import Console

    if not sys.stdout.isatty():
        return str(result)
    console = Console(file=io.StringIO(), force_terminal=True, width=Console().width)
    with console.capture() as capture:
        console.print(result)
    return capture.get().rstrip()


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
