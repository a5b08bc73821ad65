"""Pages made from the tables in the code: what is listed there is listed here, in the code's own words."""

import argparse
import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

import stepscope.remedies as remedies_room
from stepscope.diagnostics import alerts, findings, findings_record, readers, stepsizes, trace
from stepscope.diagnostics.diagnosis import MEANING
from stepscope.diagnostics.remedy import REMEDIES, Remedy
from stepscope.diagnostics.without import WITHOUT
from stepscope.reports import cli
from stepscope.reports.instruments import QUESTIONS
from stepscope.reports.numerals import number
from stepscope.synthetic.cases import PROBLEMS
from stepscope.synthetic.methods import METHODS
from stepscope.synthetic.named import NAMED

Rows = Iterable[Sequence[object]]

TITLES = {"rate": "Effective learning rate"}
"""Of instruments whose key does not say it."""


def pages() -> dict[str, str]:
    """Return every page of this kind, by its address."""
    made = (findings_page, alerts_page, instruments_page, remedies_page, problems_page, readers_page, columns_page)
    named = {f"reference/{make.__name__.removesuffix('_page')}.md": make() for make in made}
    return named | {"reference/commands.md": commands_page()}


# --- Markdown ------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Rows) -> str:
    """Return a table; bars within cells are kept from ending them."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines) + "\n"


def cell(value: object) -> str:
    """Return a value as it stands in a cell."""
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|")


def code(text: object) -> str:
    """Return a text in the letters of code."""
    return f"`{text}`"


def doc(of: object) -> str:
    """Return a docstring without its indentation."""
    return inspect.getdoc(of) or ""


def page(title: str, about: str, *parts: str) -> str:
    """Return a page."""
    return "\n".join([f"# {title}\n", f"{about}\n", *parts])


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and the site name it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def item(family: str, name: str, words: str = "") -> str:
    """Return a link to the page of a thing, see `items.py`."""
    return f"[{words or name}]({family}-{slug(name)}.md)"


def below(family: str, names: Iterable[str]) -> str:
    """Return the list of the pages that hang below that of their family; it shows in the navigation alone."""
    entries = "\n".join(f"{name} <{family}-{slug(name)}>" for name in names)
    return f"```{{toctree}}\n:hidden:\n\n{entries}\n```\n"


# --- findings ------------------------------------------------------------------------------------------------


def findings_page() -> str:
    """Return the verdicts, and every finding with what it says, where it is from and what mends it."""
    verdicts = table(
        ["verdict", "what it says"],
        ((item("verdict", verdict, code(verdict)), words) for verdict, words in MEANING.items()),
    )
    checks = table(
        ["check", "question"], ((item("condition", name, code(name)), asks) for name, asks in CHECKS.items())
    )
    about = (
        "A diagnosis is one verdict and the findings behind it, the most serious first. [Verdicts](../verdicts.md) "
        "says how the verdict is decided and what follows from it. Words in brackets are filled in from the run. Each "
        "verdict and each check has a page, with a run that is drawn."
    )
    return page(
        "Verdicts and findings",
        about,
        below("verdict", MEANING),
        below("condition", CHECKS),
        verdicts,
        f"What a verdict rests on:\n\n{checks}",
        "## About the run\n",
        *described(findings, findings.FINDINGS),
        "## About the record\n",
        *described(findings_record, findings_record.RECORD_FINDINGS),
    )


CHECKS = {
    "growth": "Does a, the sum of the stepsizes, keep growing?",
    "variance": "Does b/a → 0, so that the noise of the steps dies out?",
    "bias": "Does c⁺/a → 0, so that the stepsizes stop rising?",
    "harm": "Do the steps go where the mean gradient points?",
}
"""The checks of a diagnosis, by their attributes."""


def finding_anchors() -> dict[str, str]:
    """Return where each finding stands, by every title that it can have."""
    places = {}
    for module, makers in ((findings, findings.FINDINGS), (findings_record, findings_record.RECORD_FINDINGS)):
        calls = calls_in(module, "Finding")
        for maker in makers:
            titles = list(words(calls[maker.__name__][0].args[0]))
            places |= dict.fromkeys(titles, slug(titles[0]))
    return places


def described(module: ModuleType, makers: Iterable[Callable[..., object]]) -> Iterator[str]:
    """Yield each finding of a module."""
    calls = calls_in(module, "Finding")
    for maker in makers:
        call = calls[maker.__name__][0]
        titles = list(words(call.args[0]))
        advice = list(words(call.args[5])) if len(call.args) > 5 else []
        yield f"### {titles[0]}\n"
        yield from (f"Or: **{other}**\n" for other in titles[1:])
        yield f"{doc(maker)}\n"
        yield f"*Why it matters:* {ast.literal_eval(call.args[2])}\n"
        if advice:
            yield (
                f"*To try:* {advice[0]}\n"
                if len(advice) == 1
                else "*To try:*\n\n" + "".join(f"- {a}\n" for a in advice)
            )
        if maker.__name__ in REMEDIES:
            yield f"*Remedies:* {remedy_names(REMEDIES[maker.__name__])}\n"


def calls_in(module: ModuleType, called: str) -> dict[str, list[ast.Call]]:
    """Return the calls of a name or method that a module's functions make, by the function."""
    found: dict[str, list[ast.Call]] = {}
    for function in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(function, ast.FunctionDef):
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            found[function.name] = [node for node in calls if ast.unparse(node.func) == called]
    return found


def words(node: ast.expr) -> Iterator[str]:
    """Yield the sentences that an expression can become; what a run fills in stands in brackets."""
    match node:
        case ast.Constant(value=str(text)):
            yield from filter(None, [text.strip()])
        case ast.JoinedStr(values=parts):
            yield "".join(filled(part) for part in parts).strip()
        case ast.IfExp(body=one, orelse=other) | ast.BinOp(left=one, right=other):
            yield from (*words(one), *words(other))
        case ast.BoolOp(values=several):
            yield from (sentence for each in several for sentence in words(each))
        case ast.Name(id="NOTHING" | "ALERTED" as name):
            yield getattr(findings, name)
        case ast.Subscript(value=ast.Name(id="RISING_ADVICE")):
            yield from findings.RISING_ADVICE.values()


def filled(part: ast.expr) -> str:
    """Return a part of a sentence: its words, or the last name of what is put in there."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    names = [n.attr if isinstance(n, ast.Attribute) else n.id for n in ast.walk(part) if isinstance(n, NAME)]
    return f"[{names[0].replace('_', ' ').strip()}]" if names else "[…]"


NAME = (ast.Attribute, ast.Name)


def remedy_names(remedies: Iterable[Remedy]) -> str:
    """Return links to remedies."""
    return ", ".join(item("remedy", remedy.name) for remedy in remedies)


def remedy_entries(name: str) -> list[tuple[str, Remedy]]:
    """Return the findings and alerts that name a remedy, with what they say of it."""
    return [(seen, one) for seen, made_for in REMEDIES.items() for one in made_for if one.name == name]


# --- alerts, instruments, remedies ---------------------------------------------------------------------------


def alerts_page() -> str:
    """Return every rule that may speak while a run goes on."""
    parts = []
    for rule, alike in alert_makers().items():
        told = "\n\n".join(dict.fromkeys(doc(maker) for _, maker in alike))
        parts.append(
            f"## {rule}\n\n{told}\n\n{item('alert', rule, 'The page of this rule')} has a run that raises it.\n"
        )
        if rule in REMEDIES:
            parts.append(f"*Remedies:* {remedy_names(REMEDIES[rule])}\n")
    about = (
        "What each rule looks at. Its page has the causes and the advice that it gives, its constants, and a short run "
        "that raises it. [Alerts](../alerts.md) counts how often one is right."
    )
    return page("Alert rules", about, below("alert", alert_makers()), *parts)


def alert_makers() -> dict[str, list[tuple[ast.Call, Callable[..., object]]]]:
    """Return, for each rule, the calls that give its alerts and the methods that these stand in."""
    made = calls_in(alerts, "self._alert")
    rules: dict[str, list[tuple[ast.Call, Callable[..., object]]]] = {}
    for maker, calls in made.items():
        for call in calls:
            rules.setdefault(ast.literal_eval(call.args[0]), []).append((call, getattr(alerts.Alerts, maker)))
    return rules


def instruments_page() -> str:
    """Return what is measured, with the page of each."""
    rows = ((item("instrument", name, title), asks) for name, (title, asks) in INSTRUMENTS.items())
    about = (
        "Each page has the formula from the code, what is recorded, the constants, and a short run on which the "
        "instrument has something to tell. [Instruments](../instruments.md) says how to read the numbers."
    )
    return page("Instruments", about, below("instrument", INSTRUMENTS), table(["instrument", "question"], rows))


INSTRUMENTS = {
    **{one.key: (TITLES.get(one.key, one.key.capitalize()), one.question) for one in QUESTIONS},
    "coupling": ("Coupling", "Which stepsizes answer the gradient that they multiply?"),
    "efficiency": ("Descent efficiency", "How much of the intended descent do the steps make?"),
    "skewness": ("Skewness of the gradients", "Which β2 do rare large gradients ask for?"),
    "what-if": ("What if", "Would another rule have stood better on the same gradients?"),
    "limits": ("Limits", "What keeps the run from going down faster?"),
    "edge": ("Edge of stability", "How much longer could the steps be on this curvature?"),
    "precision": ("Precision", "What does a narrow number format hold fast?"),
}
"""Title and question of each instrument, by its key."""


def file_of(module: ModuleType) -> str:
    """Return where a module of a room stands in the repository."""
    return f"{module.__name__.removeprefix('stepscope.').replace('.', '/')}.py"


def remedies_page() -> str:
    """Return which remedy is made for what is seen, and the two lines that put it in place."""
    parts = []
    for remedies in REMEDIES.values():
        parts.append(f"## {remedies[0].finding[:1].upper()}{remedies[0].finding[1:]}\n")
        for remedy in remedies:
            lines = "\n".join(remedy.lines)
            parts.append(
                f"### {remedy_names([remedy])}\n\n"
                f"{remedy.reason[:1].upper()}{remedy.reason[1:]}.\n\n```python\n{lines}\n```\n\n"
                f"Follows {FOLLOWS[remedy.takes]}. *Source:* {remedy.reference}.\n"
            )
    about = "The diagnosis shows these where they fit the optimizer of the run; the first is to be tried first."
    named = {one.name for made_for in REMEDIES.values() for one in made_for}
    others = ", ".join(item("remedy", name) for name in remedies_room.__all__ if name not in named)
    rest = f"## Not named for a finding\n\n{others}: [what was tried](../remedies.md#from-a-finding-to-a-remedy).\n"
    return page("Remedies by finding", about, below("remedy", remedies_room.__all__), *parts, rest)


FOLLOWS = {
    "any": "any optimizer",
    "adam": "an optimizer of Adam's kind",
    "torch's adam": "torch's own optimizers of Adam's kind",
    "momentum": "an optimizer whose momentum adds gradients up",
}


# --- problems, readers, columns, commands --------------------------------------------------------------------


def problems_page() -> str:
    """Return the problems by name with what SymPy finds of each, the suite, and the methods."""
    built = {name: entry.build() for name, entry in NAMED.items()}
    by_name = [
        (item("problem", name, code(name)), NAMED[name].about, code(NAMED[name].lr), *map(numbers, known(problem)))
        for name, problem in built.items()
    ]
    suite = [(case.name, case.source, case.law, case.why) for case in PROBLEMS]
    methods = [(code(m.name), code(m.formula), settings(m.defaults), m.source) for m in METHODS.values()]
    return page(
        "Problems and methods",
        "All that the code knows by name. [Synthetic worlds](../synthetic.md) builds, plays and judges one. The page "
        "of each problem shows where Adam goes on it, and AMSGrad.",
        below("problem", NAMED),
        "## Problems by name\n\nFor `stepscope simulate` and `stepscope phase`. L is the Lipschitz constant of the "
        "gradient and H the bound on the components' gradients, both derived by SymPy; a dash where there is none.\n",
        table(["name", "problem", "rate", "optimum", "L", "H"], by_name),
        "## The suite\n\nWhat `run_suite` and `stepscope suite` play with real `step()` calls.\n",
        table(["problem", "after", "rate", "what theory says"], suite),
        "## Methods\n\nFor `simulate`, `stepscope simulate` and `stepscope phase`.\n",
        table(["name", "formula", "settings", "source"], methods),
    )


def known(problem: Any) -> tuple[object, ...]:
    """Return the optimum and the constants of a problem."""
    return problem.optimum, problem.lipschitz, problem.gradient_bound


def numbers(point: object) -> str:
    """Return a number, or the coordinates of a point, in four digits; a dash for what does not exist."""
    if point is None:
        return number(None)
    return ", ".join(number(round(float(x), 9) + 0.0, 4) for x in np.atleast_1d(point))  # + 0.0: no "-0"


def settings(defaults: Mapping[str, float]) -> str:
    """Return hyper-parameters with their defaults."""
    return code(", ".join(f"{name}={value:g}" for name, value in defaults.items())) if defaults else "–"


def readers_page() -> str:
    """Return whose stepsize is read, by which formula; and whose is not, and why."""
    torchs = [(code(kind.__name__), code(reader.formula)) for kind, reader in stepsizes.READERS.items()]
    others = [(code(name), code(reader.formula)) for name, reader in readers.NAMED.items()]
    return page(
        "Readers",
        "Formulas as a report prints them; the self-check proves each on the run. [Optimizers](../optimizers.md) and "
        "[other packages](../others.md) say how, and how to add one.",
        "## torch\n",
        table(["optimizer", "effective stepsize"], torchs),
        "## Other packages\n",
        table(["optimizer", "effective stepsize"], others),
        "## Without an elementwise stepsize\n\nSize and alignment of their steps are recorded.\n",
        table(["optimizer", "because"], ((code(name), reason) for name, reason in WITHOUT.items())),
    )


def columns_page() -> str:
    """Return the columns of a record, with the comments behind them."""
    parts = []
    for title, name in (("Cumulative", "SUMS"), ("Standard errors", "ERRORS"), ("At the record", "INSTANTS")):
        comments, note = commented(name)
        parts.append(f"## {title}\n\n{note}\n")
        if comments:
            parts.append(table(["column", "what it is"], ((code(column), about) for column, about in comments.items())))
        else:
            parts.append(", ".join(code(column) for column in getattr(trace, name)) + "\n")
    about = "The last axis of `trace.values`, in this order. [The record](../record.md) says when one is written."
    return page("Columns of the record", about, *parts)


def commented(name: str) -> tuple[dict[str, str], str]:
    """Return the comment behind each entry of a tuple of `trace.py`, and the docstring below the tuple."""
    source = inspect.getsource(trace)
    inside, note = source.split(f"\n{name} = (")[1].split(')\n"""')[:2]
    comments: dict[str, str] = dict(re.findall(r'"(\w+)",  # (.*)', inside))
    if comments and set(comments) != set(getattr(trace, name)):
        raise ValueError(f"every column of {name} in trace.py needs a comment behind it, or none.")
    return comments, note.split('"""')[0]


def commands_page() -> str:
    """Return what each command takes, as its own help says it."""
    parser = cli._parser()
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    abouts = {choice.dest: choice.help for choice in actions[0]._choices_actions}
    parts = []
    for name, command in actions[0].choices.items():
        rows = [(code(invocation(action)), action.help or "") for action in command._actions if action.dest != "help"]
        about = abouts[name] or ""
        parts += [f"## stepscope {name}\n\n{about[:1].upper()}{about[1:]}.\n", table(["argument", "what it is"], rows)]
    return page("Command line", f"{parser.description}\n\n{parser.epilog}", *parts)


def invocation(action: argparse.Action) -> str:
    """Return how an argument is written."""
    value = action.metavar if isinstance(action.metavar, str) else action.dest
    flags = ", ".join(action.option_strings)
    return f"{flags} {value}" if flags and action.nargs != 0 else flags or value
