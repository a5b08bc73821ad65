"""Pages of the instruments and of the alerts."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import thresholds
from items import about, item, made_by, played, remedies, section, spoken
from items import thresholds as listed
from pictures import of_run
from runs_alerts import ALERTS
from runs_instruments import INSTRUMENTS
from tables import INSTRUMENTS as TITLES
from tables import alert_makers, code, doc, file_of, table, words

from stepscope.diagnostics import (
    agreement,
    alerts,
    angular_velocity,
    coupling,
    edge,
    effective_rate,
    efficiency,
    imagined,
    inertia,
    limits,
    precision,
    signals,
    skewness,
    travel,
    underflow,
    watcher,
    what_if,
)
from stepscope.diagnostics.alert import alerts_of
from stepscope.diagnostics.remedy import REMEDIES
from stepscope.diagnostics.trace import Trace
from stepscope.reports.numerals import number


class Instrument(NamedTuple):
    """Where an instrument is computed, what it records, which figures show it, and where it is told of."""

    modules: tuple[ModuleType, ...]
    scalars: tuple[str, ...]
    """First words of the names of what it records."""
    figures: tuple[str, ...]
    further: str
    doc: object = None
    """What has the formula, if it is not the first module."""


def told(document: str, heading: str) -> str:
    """Return a link to where a document says how to read an instrument."""
    return f"[How to read it](../{document}.md#{heading})"


READ = {
    "conformity": Instrument(
        (agreement,),
        ("conformity",),
        ("instrument-conformity",),
        told("instruments", "conformity"),
    ),
    "angle": Instrument(
        (angular_velocity, travel),
        ("angle",),
        ("instrument-angle",),
        told("instruments", "angle"),
    ),
    "inertia": Instrument((inertia,), ("inertia",), ("instrument-inertia",), told("instruments", "inertia")),
    "underflow": Instrument(
        (underflow,),
        ("underflow", "loss_scale"),
        ("instrument-underflow",),
        told("instruments", "underflow"),
    ),
    "alignment": Instrument(
        (),
        (),
        ("instrument-alignment",),
        told("instruments", "alignment"),
        watcher.Watcher.measure_update,
    ),
    "coupling": Instrument((coupling,), (), ("instrument-coupling",), told("instruments", "coupling")),
    "rate": Instrument(
        (effective_rate,),
        (),
        ("instrument-rate",),
        told("instruments", "effective-learning-rate"),
    ),
    "efficiency": Instrument((efficiency,), (), ("efficiency",), "[How far it carries](../efficiency.md)"),
    "skewness": Instrument(
        (skewness,),
        (),
        ("what-if/2", "efficiency/0"),
        told("verdicts", "what-rare-large-gradients-ask-of-β2"),
    ),
    "what-if": Instrument((what_if, imagined), (), ("what-if",), told("verdicts", "what-if"), imagined),
    "limits": Instrument((limits,), (), ("limits",), "[How to read them](../limits.md)"),
    "edge": Instrument((edge,), ("edge",), ("limits", "scalars"), told("limits", "curvature")),
    "precision": Instrument((precision,), ("precision",), ("limits", "scalars"), told("limits", "precision")),
}


def instrument(name: str) -> str:
    """Return the page of an instrument: its formula, its constants, what it records, and a run that it has read."""
    known, run = READ[name], INSTRUMENTS[name]
    runs = played(run)
    lead, formula = split(spoken(doc(known.doc or known.modules[0])))
    files = ", ".join(code(file_of(module)) for module in known.modules) or code(file_of(watcher))
    return item(
        TITLES[name][0],
        lead,
        f"{known.further}; computed in {files}.",
        section("Seen on a run", about(run)),
        *(picture for _, trace, found in runs for picture in of_run(trace, found, known.figures, "run")),
        section("What it records", recorded(name, known, runs[0][1])),
        section("Formula", formula),
        listed(thresholds.of_modules(known.modules)),
        made_by(run),
    )


def split(docstring: str) -> tuple[str, str]:
    """Return the first paragraph of a docstring, and the rest."""
    first, _, rest = docstring.partition("\n\n")
    return first, rest


def recorded(name: str, known: Instrument, trace: Trace) -> str:
    """Return the scalars that an instrument has written on this run; what is computed from other columns says so."""
    found = {each: one for each, one in trace.scalars.items() if each.partition("/")[0] in known.scalars}
    rows = [(code(each), int(one.count[-1]), one.steps[-1], number(one.last[-1])) for each, one in found.items()]
    if rows:
        return table(["scalar", "times measured", "last at step", "last value"], rows)
    if name == "alignment":
        return "The column `alignment`, NaN between the steps at which it is measured."
    return "Nothing of its own: it is computed from what a record has, whenever it is asked for."


# --- alerts --------------------------------------------------------------------------------------------------

ALERT_FIGURES = {
    "nonfinite": ("alerts",),
    "learning rate": ("alerts", "stepsizes"),
    "update surge": ("alerts", "lengths"),
    "stepsize growth": ("alerts", "stepsizes"),
    "drift reversal": ("alerts", "efficiency"),
    "moment reset": ("alerts", "stepsizes"),
    "edge crossing": ("alerts", "scalars/0"),
}


SUSPECTED = {"learning rate": signals.leaps, "update surge": signals.surges, "stepsize growth": signals.decays}
"""What suspects in every step, before a rule weighs."""


def alert(rule: str) -> str:
    """Return the page of an alert: when it is told, its cause and advice, its constants, and a run that raises it."""
    run = ALERTS[rule]
    runs = played(run)
    first = next(iter(alerts_of(runs[0][1])), None)
    if first is None or first.rule != rule:
        raise ValueError(f"the run for {rule!r} raised {first and first.rule!r} first; change the run.")
    makers = alert_makers()[rule]
    deciding = [maker for _, maker in makers] + [by for told, by in SUSPECTED.items() if told == rule]
    read = thresholds.of_functions(deciding, (alerts, signals))
    words_of = "\n".join(
        f"- *{title}:* {value}"
        for title, value in (("Likely cause", first.cause), ("To try", first.suggestion))
        if value
    )
    said = (
        f"> {first.message}.\n\nat step {first.step}{f', in `{first.tensor}`' if first.tensor else ''}.\n\n{words_of}"
    )
    return item(
        rule[:1].upper() + rule[1:],
        "\n\n".join(dict.fromkeys(doc(maker) for _, maker in makers)),
        "An alert comes while the run goes on: in the log, in the record, and to `on_alert`. "
        "[How often they are right](../alerts.md#how-often-they-are-right).",
        section("Seen on a run", f"{about(run)}\n\nThe alert says\n\n{said}"),
        *(of_run(*runs[0][1:], ALERT_FIGURES[rule], "run")),
        section("What else it may say", "\n".join(one for one in advice(rule) if one not in words_of)),
        listed(read),
        section("Remedies", remedies(REMEDIES.get(rule, ()))),
        made_by(run),
    )


def advice(rule: str) -> Iterator[str]:
    """Yield what an alert of a rule may name as its cause, and what it may say is to be tried."""
    for call, _ in alert_makers()[rule]:
        for title, given in (("Likely cause", call.args[3]), ("To try", call.args[4])):
            for said in dict.fromkeys(sentence for each in _given(given) for sentence in words(each)):
                yield f"- *{title}:* {said}"


def _given(node: ast.expr) -> list[ast.expr]:
    """Return what stands for a cause or an advice: itself, or what the method that is asked for it returns."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
            body = ast.parse(textwrap.dedent(inspect.getsource(getattr(alerts.Alerts, name))))
            return [each.value for each in ast.walk(body) if isinstance(each, ast.Return) and each.value]
    return [node]
