"""Plays the battery and writes its tables into docs/trust.md, between the markers.

    python benchmarks/battery.py --write                    # everything: half an hour on two cores
    python benchmarks/battery.py --steps 1e4 --seeds 1      # a look
    python benchmarks/battery.py --save rows.jsonl          # keep the runs; --load judges saved ones again

The worlds are in `worlds.py`, what is true of their runs in `verdicts.py`, the intervals of ρ in `intervals.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import intervals
import joblib
import verdicts
from scipy.stats import beta
from verdicts import Row, Truth

from stepscope.diagnostics.diagnosis import Verdict

PAGE = Path(__file__).parents[1] / "docs" / "trust.md"
MEMORIES = 10  # what must be forgotten before a run is judged, docs/theory.md 4.1, P7
LONGEST = 400_000  # a run that would have to be continued further is not tried

KINDS: dict[str, Callable[[Truth, int], bool]] = {
    "the steps climb": lambda true, sign: true.bias is False and sign < 0,
    "a noise ball": lambda true, _: true.variance is False,
    "the stepsizes die": lambda true, _: true.grows is False,
    "no certificate": lambda true, _: true.bias is False and true.variance is True,
    "all conditions hold": lambda true, _: true.bias is True and true.variance is True and true.grows is True,
    "theory has no word on a part": lambda *_: True,
}
"""What is true of a run, the first that applies."""


def kind(row: Row, cell: Sequence[Row]) -> str:
    """Return what is true of a run."""
    true = verdicts.truth_of(row)
    sign = verdicts.direction(true, cell)
    return next(name for name, applies in KINDS.items() if applies(true, sign))


def confusion(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Yield for every T and truth how often each verdict was given."""
    cells = verdicts.by_cell(rows)
    for steps in sorted({row.steps for row in rows}):
        those = [row for row in rows if row.steps == steps]
        for name in KINDS:
            same = [row for row in those if kind(row, cells[row.cell]) == name]
            if same:
                counts = Counter(row.verdict for row in same)
                bad = sum(bool(verdicts.wrong(row, cells[row.cell])) for row in same)
                yield power(steps), name, *(str(counts[v]) for v in shown()), str(bad)


def shown() -> list[Verdict]:
    return [verdict for verdict in Verdict if verdict is not Verdict.UNSTABLE]


def power(steps: int) -> str:
    """Return a power of ten as it is written."""
    return f"10{'⁰¹²³⁴⁵⁶⁷⁸⁹'[len(str(steps)) - 1]}" if set(str(steps)) == {"1", "0"} else str(steps)


def too_short(row: Row) -> bool:
    """Whether a run is no longer than the memories of its second moment that must be forgotten before it is judged."""
    rule = verdicts.RULES[row.rule]
    beta2 = rule.betas[1] if rule.betas else rule.beta2 or 0.0
    return row.steps * (1 - beta2) <= MEMORIES * (1 + 1e-9)


def open_runs(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Yield for every T and schedule how many runs are wrong, undecided, undecided though long enough, or missed."""
    cells = verdicts.by_cell(rows)
    for steps in sorted({row.steps for row in rows}):
        for schedule in (*verdicts.SCHEDULES, "all"):
            these = [row for row in rows if row.steps == steps and schedule in (row.schedule, "all")]
            long = [row for row in these if not too_short(row)]
            bad = sum(bool(verdicts.wrong(row, cells[row.cell])) for row in these)
            missed = sum(verdicts.missed(row, cells[row.cell]) for row in these)
            yield (
                power(steps),
                NAMES[schedule],
                str(len(these)),
                str(bad),
                open_share(these),
                open_share(long),
                str(missed),
            )


OPEN = ("T", "schedule", "runs", "wrong", "inconclusive", "of runs long enough", "missed")
NAMES = {"root": "α/√t", "constant": "constant", "cosine": "cosine", "all": "all"}


def open_share(rows: Sequence[Row]) -> str:
    undecided = sum(row.verdict == Verdict.INCONCLUSIVE for row in rows)
    return f"{undecided} of {len(rows)} ({100 * undecided / max(len(rows), 1):.1f} %)"


def left_open(rows: Sequence[Row], least: int = 100_000) -> Iterator[tuple[str, str, str]]:
    """Yield the worlds whose runs of at least `least` steps stay undecided most often, and with which methods."""
    undecided = [r for r in rows if r.steps >= least and r.verdict == Verdict.INCONCLUSIVE and not too_short(r)]
    for world, count in Counter(row.world for row in undecided).most_common(8):
        of = sum(row.world == world and row.steps >= least and not too_short(row) for row in rows)
        methods = Counter(row.rule for row in undecided if row.world == world)
        yield world, f"{count} of {of}", ", ".join(f"{rule} {n}" for rule, n in methods.most_common(4))


def accusations(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Yield for every T how many runs that go with the mean gradient are called biased, and the bound on the share."""
    cells = verdicts.by_cell(rows)
    for steps in sorted({row.steps for row in rows}):
        right = [
            row
            for row in rows
            if row.steps == steps and verdicts.direction(verdicts.truth_of(row), cells[row.cell]) > 0
        ]
        biased = sum(row.verdict == Verdict.BIASED for row in right)
        harmful = sum(row.harm == "harmful" for row in right)
        yield power(steps), str(len(right)), str(biased), at_most(biased, len(right)), str(harmful)


def at_most(found: int, of: int, level: float = 0.95) -> str:
    """Return the upper Clopper–Pearson bound of a share, one-sided."""
    return f"{100 * float(beta.ppf(level, found + 1, of - found)):.2f} %" if of > found else "100 %"


def promises(rows: Sequence[Row], most: int, jobs: int) -> Iterator[tuple[str, ...]]:
    """Yield for every check how many runs were continued as long as it asked for, and how many of them it decided.

    A cosine is planned for its T and cannot be continued. Of the runs that ask, `most` for each check are taken.
    """
    for check, name in (("variance", "b/a"), ("bias", "c⁺/a"), ("growth", "growth of a"), ("harm", "harm")):
        asking = [
            row
            for row in rows
            if row.schedule != "cosine" and check in row.needs and row.steps + row.needs[check] <= LONGEST
        ]
        taken = asking[:: max(1, -(-len(asking) // max(1, most)))][:most]
        told = joblib.Parallel(n_jobs=jobs)(joblib.delayed(decides)(row, check) for row in taken)
        if taken:
            yield name, str(len(taken)), str(sum(told)), f"{100 * sum(told) / len(taken):.0f} %"


def decides(row: Row, check: str) -> bool:
    """Whether a check decides the same run after as many more steps as it asked for."""
    longer = verdicts.play(row.world, row.rule, row.schedule, row.steps + row.needs[check], row.seed)
    return check not in longer.open


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def fill(page: str, name: str, table: str) -> str:
    """Return the page with `table` between the markers of `name`."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n{table}\n\n{end}{rest.split(end)[1]}"


def tables(rows: Sequence[Row], runs: int, most: int, jobs: int) -> dict[str, str]:
    """Return the tables of the page by name."""
    return {
        "confusion": markdown(("T", "what is true", *shown(), "wrong"), confusion(rows)),
        "open": markdown(
            ("T", "schedule", "runs", "wrong", "inconclusive", "of runs long enough", "missed"), open_runs(rows)
        ),
        "left": markdown(("world", "undecided", "methods"), left_open(rows)),
        "accusations": markdown(
            ("T", "runs that descend", "called biased", "share at most (95 %)", "harm test alone"), accusations(rows)
        ),
        "promises": markdown(
            ("check", "runs continued", "decided then", "share"),
            promises([row for row in rows if row.steps <= 100_000], most, jobs),
        ),
        "intervals": markdown(intervals.HEAD, intervals.lines(intervals.cells(runs, jobs))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=lambda text: int(float(text)), nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=int, default=1000, help="runs for each interval of ρ")
    parser.add_argument("--continued", type=int, default=60, help="runs continued for each check")
    parser.add_argument("--save", type=Path, help="append the runs to this file, a line of JSON each")
    parser.add_argument("--load", type=Path, nargs="+", help="take saved runs instead of playing any")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/trust.md")
    args = parser.parse_args()
    rows: list[Row] = []
    if args.load:
        rows = [Row(**json.loads(line)) for path in args.load for line in path.read_text().splitlines()]
    else:
        for some in verdicts.grid(verdicts.ALL, list(verdicts.RULES), args.steps, args.seeds, args.jobs):
            rows += some
            if args.save:
                with args.save.open("a") as file:
                    file.writelines(json.dumps(asdict(row)) + "\n" for row in some)
    made = tables(rows, args.runs, args.continued, args.jobs)
    if args.write:
        page = PAGE.read_text()
        for name, table in made.items():
            page = fill(page, name, table)
        PAGE.write_text(page)
    print("\n\n".join(made.values()))
    cells = verdicts.by_cell(rows)
    sys.exit(any(verdicts.wrong(row, cells[row.cell]) for row in rows))


if __name__ == "__main__":
    main()
