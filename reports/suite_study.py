"""What a report says of a suite's results: which problems are lost, what that means, what to do, and each problem."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..diagnostics.conditions import Decision
from ..diagnostics.diagnosis import JSON, Verdict
from ..diagnostics.drift import HarmDecision
from ..diagnostics.finding import listed
from ..synthetic.cases import Nature, Outcome
from ..synthetic.score import COLUMNS, LEGEND, SuiteResult, SuiteRow
from .courses import plate
from .numerals import number, sentence, typeset, whole
from .study import Cell, Part, Study, Table, Word
from .suites import document_of, tidy
from .words import ADVICE, MARKS, Answer

SIGNS = {Outcome.SOLVED: "✓", Outcome.SHORT: "○", Outcome.WRONG: "✕", Outcome.BROKEN: "!"}
FEW = 6  # problems in a sentence, or sentences about one each

CAUGHT = (
    "There the stepsizes answer the gradients that they multiply: rare large gradients count for less than they "
    "should, and the mean step leads away from the optimum. A smaller learning rate does not help. The same may happen "
    "in training wherever large gradients are rare."
)
CIRCLES = "With a constant learning rate its steps do not shrink: it circles the optimum, wider than it began."
PLAIN = (
    "That is no counterexample but a plain problem, on which any sound method comes nearer: its step is too long, or "
    "there is a fault in it."
)
UNBIASED = (
    "That its steps are biased was not found, though the problem is made to bias them: its step is too long, or points "
    "the wrong way, or there is a fault in it."
)
UNREAD = (
    "The cause was not measured: the suite could not read its stepsizes, so it does not know whether its steps are "
    "biased, too long, or wrong."
)
READ = (
    "Register a reader of its stepsizes, by `register_reader` (docs/others.md): then the suite says what the cause is."
)
SHORTEN = "Shorten its steps, by `run_suite(…, lr=0.1)`, and look at the update itself."
BROKE = "It raised an error, or left a number that is not finite; the notes of the problem say where."
STRAYED = "Its seeds are too few to rule out chance, or it is on the way back: more of `--seeds` or `--steps` decide."
HALF_WAY = "To end half way refutes nothing: what theory says is meant for many more steps."


def suite_study(result: SuiteResult) -> Study:
    """Return a suite's results as a study; names are made legible first."""
    data, result = document_of(result), tidy(result)
    if not result.rows:
        return _empty(result, data)
    return Study(
        name=result.optimizer,
        about=_about(result),
        verdict=_verdict(result),
        meaning=tuple(_meaning(result)),
        label="Problems solved",
        number=f"{result.counts[Outcome.SOLVED]} of {len(result.rows)}",
        says=_escapes(result),
        answers=(_lost(result), _why(result), _theory(result.rows), _to_do(result)),
        parts=(
            Part("problems", "Problems", table=_table(result)),
            Part("courses", "Problem by problem", parts=tuple(_problem(*each) for each in enumerate(result.rows, 1))),
            Part("played", "How it was played", lines=(result.how, *map(sentence, result.noted()))),
        ),
        judged=True,
        data=data,
    )


def _empty(result: SuiteResult, data: dict[str, JSON]) -> Study:
    """Return the study of a suite in which no problem was played: there is nothing to ask."""
    why = "No problem was played." if result.complete else "The suite was interrupted before any problem was played."
    played = Part("played", "How it was played", lines=(result.how,))
    return Study(
        name=result.optimizer,
        about=_about(result),
        verdict=_verdict(result),
        meaning=(why,),
        label="Problems solved",
        number="0 of 0",
        says="",
        answers=(),
        parts=(played,),
        judged=False,
        data=data,
    )


def word(outcome: Outcome) -> Word:
    """Return how a problem ended, with its sign."""
    return Word(SIGNS[outcome], str(outcome))


def _about(result: SuiteResult) -> str:
    count = len(result.rows)
    each = "" if result.steps is None else f" · {whole(result.steps)} steps each"
    return f"Suite of {count} problem{'s' * (count != 1)}{each} · {number(result.seconds, 2)} s"


def _verdict(result: SuiteResult) -> Word:
    total, lost = len(result.rows), len(result.lost)
    if not total:
        return Word("?", "nothing played", "inconclusive")
    if lost:
        return Word(SIGNS[Outcome.WRONG], f"loses {lost} of {total}", "wrong")
    if result.counts[Outcome.SOLVED] == total:
        return Word(SIGNS[Outcome.SOLVED], f"solves {total} of {total}", "solved")
    return Word(SIGNS[Outcome.SHORT], f"loses none of {total}", "short")


def _meaning(result: SuiteResult) -> Iterator[str]:
    wrong, broken = (_names(result.rows, outcome) for outcome in (Outcome.WRONG, Outcome.BROKEN))
    if wrong:
        yield f"It ends farther from the optimum than it started on {wrong}."
    if broken:
        yield f"It breaks on {broken}."
    if not (wrong or broken):
        yield "No problem ends farther from its optimum than it started, and none breaks it."
    if not result.complete:
        yield "The suite was interrupted: problems are missing, or were played for fewer steps than asked."


def _names(rows: Iterable[SuiteRow], outcome: Outcome) -> str:
    names = [row.problem for row in rows if row.outcome is outcome]
    more = [f"{len(names) - FEW} more"] if len(names) > FEW else []
    return listed([*names[:FEW], *more]) if names else ""


def _escapes(result: SuiteResult) -> str:
    """Say what comes of the counterexamples among the problems."""
    traps = [row for row in result.rows if row.about.nature is Nature.DRIFT]
    if not traps:
        return "None of these is a counterexample that turns adaptive steps round."
    solved = sum(row.outcome is Outcome.SOLVED for row in traps)
    lost = sum(row.about.nature is Nature.DRIFT for row in result.lost)
    half = len(traps) - solved - lost
    many = "is a counterexample" if len(traps) == 1 else "are counterexamples"
    told = f"it escapes {solved}, loses {lost}" + (f", and is undecided on {half}" if half else "")
    return f"{len(traps)} {many}, made to turn adaptive steps round: {told}."


def _lost(result: SuiteResult) -> Answer:
    lines = _first([f"{row.problem}: {_way(row)}." for row in result.lost])
    short = f"{len(result.lost)} of {len(result.rows)}" if result.lost else "none"
    return Answer("Which does it lose?", short, tuple(lines))


def _first(lines: Sequence[str]) -> list[str]:
    """Return the first few lines, and say how many more there are."""
    more = [f"And {len(lines) - FEW} more; see the table."] if len(lines) > FEW else []
    return [*lines[:FEW], *more]


def _way(row: SuiteRow) -> str:
    """Say from where to where a problem went."""
    away = f"from {number(row.start)} away from the optimum to {number(row.distance)}"
    return f"{away} after {whole(row.steps)} step{'s' * (row.steps != 1)}"


def _why(result: SuiteResult) -> Answer:
    reasons = {_reason(row) for row in result.rows if row.outcome is Outcome.WRONG}
    lines = [text for text in (CAUGHT, UNREAD, UNBIASED, CIRCLES, PLAIN) if text in reasons]
    lines += [BROKE] * bool(result.counts[Outcome.BROKEN])
    if result.counts[Outcome.SHORT]:
        strayed = [row for row in result.rows if row.distance > row.start]
        nearer = [row for row in result.rows if not row.distance > row.start]
        if names := _names(nearer, Outcome.SHORT):
            lines.append(f"Half way: {names}. {HALF_WAY}")
        if names := _names(strayed, Outcome.SHORT):
            lines.append(f"Farther than it started, yet not called wrong: {names}. {STRAYED}")
    short = "its steps are biased" if CAUGHT in reasons else "it fails" if result.lost else "no harm seen"
    return Answer("What does that mean?", short, tuple(lines))


def _reason(row: SuiteRow) -> str:
    """Say why a problem ends wrong: what it is made for, unless its row does not bear that out."""
    if not row.stepsize and row.expected is not Outcome.WRONG:
        return UNREAD
    if row.about.nature is Nature.DRIFT:
        return CAUGHT if _biased(row) else UNBIASED
    return CIRCLES if row.about.nature is Nature.CYCLE else PLAIN


def _biased(row: SuiteRow) -> bool:
    """Return whether the bias is why: found, and found harmful, or what theory says of methods of this kind."""
    harmful = row.harm is HarmDecision.HARMFUL or row.verdict is Verdict.BIASED or row.rho < 0
    return row.expected is Outcome.WRONG or (row.bias is Decision.VIOLATED and harmful)


def _theory(rows: Sequence[SuiteRow]) -> Answer:
    against = [row for row in rows if row.agrees is False]
    counts = {
        "it ends as theory says": sum(row.agrees is True for row in rows),
        "this run does not tell": sum(row.agrees is None and row.expected is not None for row in rows),
        "theory has no word": sum(row.expected is None for row in rows),
    }
    told = "; ".join(f"on {count} {says}" for says, count in counts.items() if count)
    lines = _first([f"{row.problem}: theory says {row.expected}, it ended {row.outcome}." for row in against])
    short = f"not on {len(against)}" if against else "nothing speaks against it"
    return Answer("Is it what theory says?", short, (*lines, *([sentence(told)] if told else [])))


def _to_do(result: SuiteResult) -> Answer:
    tries = list(_tries(result))
    short = f"{len(tries)} thing{'s' * (len(tries) > 1)} to try" if tries else "nothing needed"
    return Answer("What would change it?", short, tuple(f"{place}. {what}" for place, what in enumerate(tries, 1)))


def _tries(result: SuiteResult) -> Iterator[str]:
    reasons = {_reason(row) for row in result.rows if row.outcome is Outcome.WRONG}
    if CAUGHT in reasons:
        yield ADVICE[Verdict.BIASED]
    if UNREAD in reasons:
        yield READ
    if reasons - {CAUGHT, UNREAD}:
        yield SHORTEN
    if result.counts[Outcome.BROKEN]:
        name = next(row.problem for row in result.rows if row.outcome is Outcome.BROKEN)
        yield f"Play one that breaks alone, by `--problem '{name}'`, and follow its error."
    if any(row.outcome is Outcome.SHORT and row.agrees is None for row in result.rows):
        yield "Play more steps, by `--steps`: what ends half way is not decided."


def _table(result: SuiteResult) -> Table:
    columns = result.columns()
    rows = tuple(tuple(_cell(head, show(row), row) for head, (_, show) in columns.items()) for row in result.rows)
    return Table(tuple(columns), rows, LEGEND, tuple(f"problem{place}" for place in range(1, len(rows) + 1)))


def _cell(head: str, text: str, row: SuiteRow) -> Cell:
    if head == "outcome":
        return word(row.outcome)
    if head == "verdict":
        return Word(MARKS[row.verdict], str(row.verdict))
    return text if head == "problem" else whole(row.steps) if head == "steps" else typeset(text)


def _problem(place: int, row: SuiteRow) -> Part:
    expected = "theory has no word" if row.expected is None else f"{row.expected}, for T → ∞"
    rho = COLUMNS["ρ"][1](row)
    facts = {
        "source": row.about.source,
        "learning rate": f"α = {row.about.law}",
        "expected": expected,
        "found": f"{row.outcome}: {_way(row)}; solved is up to {number(row.tolerance, 2)}",
        "steps judged": f"{row.verdict}, ρ {typeset(rho)}" if any(map(str.isdigit, rho)) else str(row.verdict),
        "notes": " ".join(map(sentence, row.notes)),
    }
    key = f"problem{place}"
    plates = (plate(row),) if len(row.course.steps) > 1 else ()
    told = tuple((name, value) for name, value in facts.items() if value)
    return Part(key, row.problem, word(row.outcome), told, (row.about.why,), plates=plates)
