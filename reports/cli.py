"""The command line: runs that a Monitor wrote (`demo`, `diagnose`, `report`, `compare`, `list`), and known worlds.

Exit code 0: fine; 1: a verdict is biased or unstable, the suite found a wrong end, a claim does not hold; 2: bad input,
said in one sentence.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .compare import add_compare, compare

if TYPE_CHECKING:
    from ..diagnostics.diagnosis import Diagnosis
    from ..diagnostics.trace import Trace
    from .words import Row

FINE, ALARM, BAD_INPUT = 0, 1, 2
WIDE = 130  # characters that a whole table of runs takes
BREAKING = {"reached": 7, "ρ [95 %]": 8}
"""The columns of a table of runs that may break in a narrow terminal, with what they keep."""
COLOURS = {
    "certified": "green",
    "uncertified": "blue",
    "biased": "red",
    "unstable": "red",
    "neighbourhood": "yellow",
}


class BadInput(Exception):
    """What the user gave cannot be used; the message says why in one sentence."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (default: the process's own) and return its exit code."""
    parser = _parser()
    try:
        arguments = _parse(parser, sys.argv[1:] if argv is None else argv)
        if arguments.command is None:
            parser.print_help()
            return FINE
        code = _dispatch(arguments)
        sys.stdout.flush()  # a closed pipe shows here, where it is caught
        return code
    except SystemExit as stop:  # --help, --version, and what argparse refuses
        return int(stop.code or FINE)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except (BadInput, OSError) as error:
        print(f"stepscope: {_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return 130


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse, with settings NAME=VALUE also behind options, and `--start -1,1` as well as `--start=-1,1`."""
    joined: list[str] = []
    for token in argv:
        negative = re.fullmatch(r"-[\d.][\d.,e+-]*", token) is not None
        if negative and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={token}"
        else:
            joined.append(token)
    arguments, rest = parser.parse_known_args(joined)
    strange = [token for token in rest if not (hasattr(arguments, "settings") and re.match(r"[^-=]+=", token))]
    if strange:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if rest:
        arguments.settings = [*arguments.settings, *rest]
    return arguments


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one sentence, without the usage in front."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(BAD_INPUT, f"{self.prog}: {message}; see {self.prog} --help.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="stepscope",
        description="Shows the steps an optimizer really takes, and says whether theory lets them converge.",
        epilog="Exit code: 0 fine, 1 when a verdict is biased or unstable, 2 for bad input.",
    )
    parser.add_argument("--version", action=_Version, help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    demo = commands.add_parser("demo", help="train on digits, play the game that Adam loses, report both")
    demo.add_argument("-o", "--output", type=Path, default=Path("demo"), metavar="DIR", help="default: demo")
    demo.add_argument("--quick", action="store_true", help="a twentieth of the steps, too few to judge")

    diagnose = commands.add_parser("diagnose", help="judge a recorded run")
    diagnose.add_argument("run", type=Path, metavar="RUN", help="directory that a Monitor wrote")
    diagnose.add_argument("--json", action="store_true", help="print JSON")

    report = commands.add_parser("report", help="write a report over one or several runs: a page, a PDF, …")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="directory that a Monitor wrote")
    page = Path("report.html")
    about = f"its ending names the format: .html, .pdf, .md, .json or .xml; default: {page}"
    report.add_argument("-o", "--output", type=Path, default=page, metavar="FILE", help=about)
    report.add_argument("--json", action="store_true", help="print JSON")

    add_compare(commands)
    listing = commands.add_parser("list", help="list the runs below a directory, or known problems and methods")
    listing.add_argument("directory", type=Path, nargs="?", default=Path(), metavar="DIR", help="default: here")
    listing.add_argument("--problems", action="store_true", help="list the problems of simulate and phase")
    listing.add_argument("--methods", action="store_true", help="list the methods of simulate and phase")
    listing.add_argument("--json", action="store_true", help="print JSON")
    remedies = commands.add_parser("remedies", help="list which method is made for what a diagnosis may find")
    remedies.add_argument("--json", action="store_true", help="print JSON")
    _add_worlds(commands)
    return parser


def _add_worlds(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Add the commands that play problems whose answer is known."""
    simulate = commands.add_parser("simulate", help="play a known problem with a method, and judge the run")
    _add_problem(simulate)
    simulate.add_argument("method", metavar="METHOD", help="such as adam or amsgrad; see list --methods")
    _add_settings(simulate, "hyper-parameters of the method")
    simulate.add_argument("--betas", type=_numbers, metavar="β1,β2", help="both decays")
    simulate.add_argument("-o", "--output", type=Path, metavar="RUN", help="directory to keep the run in")

    phase = commands.add_parser("phase", help="draw for which hyper-parameters a method ends at the right side")
    _add_problem(phase)
    _add_settings(phase, "hyper-parameters that stay fixed")
    for axis, name in (("x", "beta1"), ("y", "beta2")):
        about = f"what varies along {axis}: beta1, beta2, lr, …, with a range; default: {name}"
        phase.add_argument(f"--{axis}", default=name, metavar="NAME[=LOW,HIGH]", help=about)
    phase.add_argument("--method", default="adam", help="default: adam")
    phase.add_argument("--size", type=_numbers, default=(32.0,), metavar="N[,M]", help="cells along x, y; default: 32")
    phase.add_argument("--refine", type=int, default=0, metavar="N", help="subdivide cells at a boundary so often")
    phase.add_argument("--resume", type=Path, metavar="FILE", help="keeps finished cells, and is read if it is there")
    picture = Path("phase.png")
    about = f"a picture, .png or .svg, or a report, .html, .pdf, .md or .json; default: {picture}"
    phase.add_argument("-o", "--output", type=Path, default=picture, metavar="FILE", help=about)

    suite = commands.add_parser("suite", help="turn the published counterexamples on a torch optimizer")
    suite.add_argument("spec", metavar="SPEC", help="a class: torch.optim.Adam, or your own as module:Class")
    _add_settings(suite, "its settings: betas=0.9,0.99")
    suite.add_argument("--steps", type=_whole, default=100_000, help="default: 100000")
    suite.add_argument("--seeds", type=_whole, help="runs of a problem that has chance in it; default: 16")
    about = "one problem of its table, such as 'reddi online'; again for another; default: all"
    suite.add_argument("--problem", action="append", metavar="NAME", help=about)
    about = "write a report as well; its ending names the format: .html, .pdf, .md, .json or .xml"
    suite.add_argument("-o", "--output", type=Path, metavar="FILE", help=about)
    suite.add_argument("--json", action="store_true", help="print JSON")

    claims = commands.add_parser("claims", help="check what papers and theory predict against what is observed")
    claims.add_argument("--paper", metavar="NAME", help="one paper, such as reddi2018; default: all")
    claims.add_argument("--json", action="store_true", help="print JSON")


def _add_problem(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("problem", metavar="PROBLEM", help="a name of list --problems, or your own as module:attribute")
    parser.add_argument("--steps", type=_whole, default=100_000, help="default: 100000")
    parser.add_argument("--lr", metavar="α", help="a number, or an expression in t and T; default: the problem's own")
    parser.add_argument("--seeds", type=_whole, default=1, help="how many runs; default: 1")
    parser.add_argument("--start", type=_numbers, metavar="x", help="where to start; default: the problem's own")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_settings(parser: argparse.ArgumentParser, about: str) -> None:
    # With a default of its own it is not named among what is missing.
    parser.add_argument("settings", nargs="*", default=[], metavar="NAME=VALUE", help=about)


def _whole(text: str) -> int:
    """Return a count, also written as 1e6."""
    try:
        value = float(text)
        if value == int(value) and value >= 1:
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, got {text!r}")


def _numbers(text: str) -> tuple[float, ...]:
    """Return numbers that stand between commas."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as fault:
        raise argparse.ArgumentTypeError(f"must be numbers between commas, got {text!r}") from fault


class _Version(argparse.Action):
    """Print the installed version; asking for it costs nothing until then."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"stepscope {version('stepscope')}")
        except PackageNotFoundError:
            print("stepscope, not installed")
        parser.exit()


def _dispatch(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "demo":
            from .demo import demo

            directory: Path = arguments.output
            return demo(directory, directory / "report.html", arguments.quick)
        case "diagnose":
            return diagnose(arguments.run, as_json=arguments.json)
        case "report":
            return report(arguments.runs, arguments.output, as_json=arguments.json)
        case "compare":
            return compare(arguments.runs, as_json=arguments.json)
        case "list" if not (arguments.problems or arguments.methods):
            return listing(arguments.directory, as_json=arguments.json)
        case _:
            return _play(arguments)


def _play(arguments: argparse.Namespace) -> int:
    """Run a command about worlds whose answer is known; what they refuse is bad input."""
    from . import commands

    given = vars(arguments)
    command = commands.COMMANDS[given.pop("command")]
    try:
        found = command(**given)
    except ValueError as error:
        raise BadInput(_one_line(error)) from error
    _print_json(found.data) if arguments.json else print(found.text)
    return ALARM if found.alarm else FINE


def diagnose(run: Path, *, as_json: bool = False) -> int:
    """Print a run's diagnosis and its table of tensors."""
    trace = _load(run)
    diagnosis = trace.diagnose()
    if as_json:
        _print_json(diagnosis.to_dict())
    else:
        print(f"{diagnosis}\n\n{trace.summary()}")
    return _exit_code([str(diagnosis.verdict)])


def report(runs: Sequence[Path], output: Path, *, as_json: bool = False) -> int:
    """Write one report over the runs and print where it is."""
    from .chapters import gather
    from .formats import save, writable

    try:
        kind = writable(output)
    except ValueError as error:
        raise BadInput(_one_line(error)) from error
    short = [_name(run) for run in runs]
    names = [name if Counter(short)[name] == 1 else str(run) for name, run in zip(short, runs, strict=True)]
    traces = [(name, _load(run)) for name, run in zip(names, runs, strict=True)]
    contents = gather(traces, exact=kind == ".json")
    path = save(contents, output)
    judged = [(chapter.row, chapter.diagnosis) for chapter in contents.chapters]
    if as_json:
        _print_json({"report": str(path), "runs": [_plain(*line) for line in judged]})
    else:
        print_rows([line for line, _ in judged])
        print(f"report: {path}")
    return _exit_code([str(line.verdict) for line, _ in judged])


def listing(directory: Path, *, as_json: bool = False) -> int:
    """Print a line per run below `directory`; one that cannot be read is named on stderr with the reason."""
    if not directory.is_dir():
        raise BadInput(f"no directory at '{directory}': expected one with runs below it; check the path.")
    judged, broken = [], []
    for path in runs_below(directory):
        name = str(path.relative_to(directory)) if path != directory else _name(path)
        try:
            judged.append(_judge(name, _load(path)))
        except BadInput as error:
            broken.append({"run": name, "error": _one_line(error)})
    if as_json:
        _print_json([_plain(*line) for line in judged] + broken)
        return FINE
    if judged:
        print_rows([line for line, _ in judged])
    elif not broken:
        print(f"no runs below '{directory}'")
    for entry in broken:
        print(f"stepscope: {entry['error']}", file=sys.stderr)
    return FINE


def runs_below(directory: Path) -> Iterator[Path]:
    """Yield the run directories at and below `directory`, hidden folders left out, in order."""
    from ..diagnostics.parts import parts_below
    from ..diagnostics.reading import LINES, SQLITE
    from ..diagnostics.store import META

    for path, folders, files in os.walk(directory):
        parts = parts_below(Path(path), META)
        if parts:
            yield Path(path)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(path, f) not in parts)
        if META in files and {LINES, SQLITE} & set(files):  # other tools write a meta.json as well
            yield Path(path)


def print_rows(rows: Sequence[Row]) -> None:
    """Print a table of runs; colours where a terminal shows them, signs for words where it is narrow.

    What is long breaks in what was reached and in ρ; a name stays whole, for it is what one copies.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from .words import MARKS

    console = Console(width=None if sys.stdout.isatty() else WIDE)
    table = Table(box=None, pad_edge=False, header_style="bold")
    wide = console.width >= WIDE
    for head in (
        "run",
        *(("optimizer", "steps") if wide else ()),
        "reached",
        "variance",
        "bias",
        "ρ [95 %]",
        "verdict",
    ):
        least = BREAKING.get(head)
        side: Literal["left", "right"] = "right" if head == "steps" else "left"
        table.add_column(head, justify=side, overflow="fold", no_wrap=least is None, min_width=least)
    for line in rows:
        decisions = [line.variance, line.bias] if wide else [MARKS[line.variance], MARKS[line.bias]]
        facts = [line.optimizer, str(line.steps)] if wide else []
        words = map(Text, [line.name, *facts, line.final, *decisions, line.rho])
        table.add_row(*words, Text(line.verdict, style=COLOURS.get(line.verdict, "")))
    least = Measurement.get(console, console.options.update(width=WIDE), table).minimum
    # A line that the terminal breaks is better than a name cut short; rich leaves out the padding at the edge.
    console.width = max(console.width, least + 1)
    console.print(table)


def _load(run: Path) -> Trace:
    from ..diagnostics.trace import Trace

    try:
        return Trace.load(run)
    except (OSError, ValueError) as error:
        if next(runs_below(run), run) != run:
            raise BadInput(f"'{run}' holds runs, expected one of them; see them by `stepscope list {run}`.") from error
        raise BadInput(_one_line(error)) from error


def _judge(name: str, trace: Trace) -> tuple[Row, Diagnosis]:
    from .words import row

    diagnosis = trace.diagnose()
    return row(name, trace, diagnosis), diagnosis


def _name(run: Path) -> str:
    return run.name or run.resolve().name


def _plain(line: Row, diagnosis: Diagnosis) -> dict[str, object]:
    return {
        "run": line.name,
        "optimizer": line.optimizer,
        "steps": line.steps,
        "reached": line.final,
        "verdict": line.verdict,
        "variance": line.variance,
        "bias": line.bias,
        "harm": diagnosis.to_dict()["harm"],
    }


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1))


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: '{error.filename}'; choose another path."
    return " ".join(str(error).split())


def _exit_code(verdicts: Sequence[str]) -> int:
    from .words import ALARMS

    return ALARM if any(verdict in ALARMS for verdict in verdicts) else FINE
