"""The page of remedies.py: what its results say, in words, tables and a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from scipy.stats import t as student

from stepscope import Trace
from stepscope.reports.sheets import sheet
from stepscope.reports.theme import BLUE, GREEN, INK, MUTED, VERMILLION

Row = dict[str, Any]
"""What one method made of one task: its name, what it is, and measure; method, against, lr, scores by name and seed."""

BETTER, WORSE, NEITHER, UNTOLD = "better", "worse", "no difference seen", "cannot tell"
COLOUR = {BETTER: GREEN, WORSE: VERMILLION, NEITHER: BLUE, UNTOLD: MUTED}
WIDE = 20.0
"""Percent: an interval that holds 0 and reaches further on either side excludes nothing of interest."""

LIMIT = 80
"""Percent that the figure shows; what lies beyond is written."""

INTRODUCTION = """# Do the remedies help?

Each method of [remedies](remedies.md#the-methods), tried on three small networks with real data, and on problems that
some of them are made for, next to the baseline that it would replace. `python examples/remedies.py docs` writes this
page; the scores of every seed are in `proof.json`.

**The same budget.** For each method and task, baselines as well, the rate is sought in the same way: nine rates, a
factor of √10 apart and four decades in all, about one that is usual for the method, by two seeds; then the best two of
them and what lies halfway to their neighbours, by five. None of these seeds is among those below, and on the networks
rates are chosen by a loss on data that are neither trained on nor reported. Then each method runs at its rate on
{seeds} seeds; the same seed has the same first weights and the same batches for all. A run that diverges, or ends worse
than random guessing, has failed and scores as guessing does; elsewhere, as the start, the wrong end, or ten guesses.

**Reading.** ± is the standard deviation over seeds. A difference is that of the scores of the same seeds, in percent of
the baseline's mean, with Student's 95 % interval. Without zero in it the method is called better or worse; with zero,
"no difference seen", unless it reaches beyond {wide:g} %. Then, and where a run failed, nothing can be told.

**What the intervals leave out.** They hold the scatter of the seeds at one rate, not that of the search for it.
Differences of ten percent that come with very different rates should not be believed. Of so many intervals one in
twenty is wrong by chance. The runs are short: they show what a method does to a small run, not to yours.

**Words.** "AdaShift, none" has a second moment for each coordinate, "AdaShift" one for each tensor. A cosine or drops
behind a comma are the schedule of the rate. SGD has momentum 0.9; AdaiV2 has a dampening of 0.5; in the game β1 is 0
and β2 is 0.99; everything else is at its default.
"""

DEMON = """## Demon beside a cosine, at given rates

SGD with momentum 0.9 on the perceptron. A momentum that falls to zero lowers the effective rate lr/(1-β) to a tenth, as
a cosine lowers the rate itself to zero: at one and the same rate the two do the same to a run, and make one that is too
slow slower. Above, each has a rate of its own.

![The rate and the effective rate of each](proof-rates.svg)
"""

CPROP = """## CProp and conformity, at given rates

SGD without momentum on the perceptron. The [conformity](instruments.md#conformity) of a run is 1 where gradients are
sure of their sign and ½ in noise: the larger the rate, the sooner nothing but noise is left to follow.
"""


@dataclass(frozen=True)
class Comparison:
    """A method beside a baseline over the same seeds: the mean difference with its interval, in percent."""

    task: str
    method: str
    baseline: str
    difference: float
    low: float
    high: float
    failed: bool
    """Whether a run of either did, so that the differences are of two kinds and the interval means little."""

    @property
    def outcome(self) -> str:
        """What the interval says; lower scores are better."""
        if self.failed:
            return UNTOLD
        if self.low <= 0 <= self.high:
            return NEITHER if max(-self.low, self.high) <= WIDE else UNTOLD
        return BETTER if self.high < 0 else WORSE


def comparisons(tuned: Sequence[Row]) -> Iterator[Comparison]:
    scores = {(row["task"], row["method"]): np.array(row["scores"]["score"]) for row in tuned}
    for row in tuned:
        task, method = row["task"], row["method"]
        for baseline in row["against"]:
            own, theirs = scores[task, method], scores[task, baseline]
            failed = bool((np.concatenate([own, theirs]) >= row["failed"]).any())
            yield compared(task, method, baseline, own, theirs, failed)


def compared(
    task: str, method: str, baseline: str, own: np.ndarray, theirs: np.ndarray, failed: bool = False
) -> Comparison:
    """Compare by Student's 95 % interval of the paired differences."""
    percent = 100 * (own - theirs) / theirs.mean()
    n, middle = len(percent), percent.mean()
    half = student.ppf(0.975, n - 1) * percent.std(ddof=1) / math.sqrt(n)
    return Comparison(task, method, baseline, float(middle), float(middle - half), float(middle + half), failed)


# --- tables ---------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]) + "\n"


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    """Return mean ± standard deviation, the mean to three digits."""
    middle, scatter = scale * float(np.mean(values)), scale * float(np.std(values, ddof=1))
    digits = min(4, max(0, 2 - math.floor(math.log10(abs(middle) or 1.0))))
    return f"{middle:.{digits}f} ± {scatter:.{digits}f}"


def reached(rows: Sequence[Row]) -> str:
    """Return what each method reached on a task at its own rate."""
    network = "error" in rows[0]["scores"]
    head = ["method", "rate", rows[0]["measure"], *(["test error, %", "training loss"] if network else [])]
    lines = []
    for row in rows:
        scores = row["scores"]
        more = [spread(scores["error"], 100), spread(scores["train"])] if network else []
        lost = sum(score >= row["failed"] for score in scores["score"])
        told = f" ({lost} of {len(scores['score'])} failed)" if lost else ""
        lines.append([row["method"], f"{row['lr']:.2g}", spread(scores["score"]) + told, *more])
    return table(head, lines)


def differences(found: Sequence[Comparison]) -> str:
    lines = [[c.method, c.baseline, f"{c.difference:+.1f}", f"{c.low:+.1f} to {c.high:+.1f}", c.outcome] for c in found]
    return table(["method", "next to", "difference, %", "95 % interval", "outcome"], lines)


def at_given_rates(rows: Sequence[Row]) -> str:
    """Return accuracies and losses, and the conformity where it was watched."""
    watched = any("conformity" in row["scores"] for row in rows)
    lines = []
    for row in rows:
        scores = row["scores"]
        right = spread([1 - error for error in scores["error"]], 100)
        more = [spread(scores["conformity"]) if "conformity" in scores else ""] if watched else []
        lines.append([f"{row['lr']:g}", row["method"], right, spread(scores["train"]), *more])
    more = ["conformity at the end"] if watched else []
    return table(["rate", "method", "test accuracy, %", "training loss", *more], lines)


def summary(found: Sequence[Comparison]) -> str:
    """Return a row for each method: where it was better, worse, or neither."""
    lines = []
    for method in dict.fromkeys(c.method for c in found):
        own = [c for c in found if c.method == method]
        places = {
            outcome: "; ".join(f"{c.task} ({c.baseline})" for c in own if c.outcome == outcome) for outcome in COLOUR
        }
        lines.append([method, *places.values()])
    return table(["method", *(f"{outcome} (next to)" for outcome in COLOUR)], lines)


# --- page and figure ------------------------------------------------------------------------------------------


def page(found: dict[str, Any]) -> str:
    """Return the page of these results, in Markdown."""
    tuned: list[Row] = found["tuned"]
    every = list(comparisons(tuned))
    numbers = sorted({len(row["scores"]["score"]) for row in tuned})
    seeds = " or ".join(map(str, numbers))
    introduction = INTRODUCTION.format(seeds=seeds, wide=WIDE)
    parts = [introduction, "## In short\n", summary(every), "![Intervals of the differences](proof.svg)\n"]
    for task in tasks_of(tuned):
        rows = [row for row in tuned if row["task"] == task]
        parts += [f"## {task[0].upper()}{task[1:]}\n", fill(rows[0]["about"], 120) + "\n", reached(rows)]
        parts += [differences([c for c in every if c.task == task])]
    parts += [DEMON, at_given_rates(found["demon"]), CPROP, at_given_rates(found["cprop"])]
    return "\n".join(parts)


def tasks_of(tuned: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["task"] for row in tuned))


def draw(tuned: Sequence[Row], path: Path) -> None:
    """Draw the interval of each comparison on the networks, a panel for each of them."""
    networks = tasks_of([row for row in tuned if "error" in row["scores"]])
    found = [c for c in comparisons(tuned) if c.task in networks]
    rows = list(dict.fromkeys((c.method, c.baseline) for c in found))
    title = "Test loss beside the baseline's, each at its own best rate"
    with sheet(path, (12.5, 1.4 + 0.27 * len(rows)), title) as figure:
        for ax, task in zip(figure.subplots(1, len(networks), sharey=True), networks, strict=True):
            for c in [c for c in found if c.task == task]:
                y, colour = rows.index((c.method, c.baseline)), COLOUR[c.outcome]
                ax.plot([c.low, c.high], [y, y], color=colour, linewidth=2)
                if c.difference < LIMIT:
                    ax.plot(c.difference, y, "o", color=colour, markersize=5)
                else:
                    ax.text(LIMIT, y, f"+{c.difference:.0f} →", color=colour, ha="right", va="bottom", fontsize=8)
            ax.axvline(0, color=INK, linewidth=0.8)
            ax.set_title(task)
            ax.set_xlim(-LIMIT / 2, LIMIT)
            ax.set_xlabel("difference in %, left is better")
            ax.set_yticks(range(len(rows)), [f"{method} | {baseline}" for method, baseline in rows], color=MUTED)
            ax.set_ylim(len(rows) - 0.5, -0.5)


def draw_rates(traces: dict[str, Trace], path: Path) -> None:
    """Draw the rate and the effective rate of each run, a panel for each."""
    with sheet(path, (12.5, 3.4), "What a gradient is multiplied with in all, lr/(1-β)") as figure:
        panels = figure.subplots(1, len(traces), sharey=True)
        for ax, (name, trace) in zip(panels, traces.items(), strict=True):
            trace.plot.rate(ax=ax)
            ax.set(title=name, xscale="linear", yscale="linear", ylim=(0, None))
