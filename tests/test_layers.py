"""The direction of imports: reports → {synthetic, remedies} → diagnostics; the judges know no torch."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "diagnostics": set(),
    "synthetic": {"diagnostics"},
    "remedies": {"diagnostics"},
    "reports": {"diagnostics", "synthetic", "remedies"},
}
DOORS = {
    ("diagnostics/compare.py", "reports"),
    ("diagnostics/diagnosis.py", "reports"),
    ("diagnostics/monitor.py", "reports"),
    ("diagnostics/trace.py", "reports"),
    ("synthetic/phase.py", "reports"),
    ("synthetic/score.py", "reports"),
}
"""`report`, `draw`, `plot` and `_repr_html_` are part of the public face; the imports sit inside the methods."""
JUDGES = (
    "agreement",
    "coupling",
    "effective_rate",
    "conditions",
    "drift",
    "compare",
    "courses",
    "efficiency",
    "limits",
    "parting",
    "permutation",
    "settings",
    "skewness",
    "slope",
    "what_if",
    "diagnosis",
    "evidence",
    "findings",
    "instability",
    "reading",
    "summary",
    "trace",
)


def modules(room):
    return sorted((ROOT / room).glob("*.py"))


def imports(path):
    """Every imported name as (absolute dotted name, imported only for type checkers)."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom):
            base = {0: "", 1: f"stepscope.{path.parent.name}.", 2: "stepscope."}[node.level]
            yield base + (node.module or ""), id(node) in typing_only


@pytest.mark.parametrize("room", BELOW)
def test_rooms_import_only_what_lies_below(room):
    for path in modules(room):
        for name, _ in imports(path):
            parts = name.split(".")
            assert parts[0] not in BELOW, f"{path.name} imports {name}: write it relative"
            if parts[0] == "stepscope" and len(parts) > 1 and parts[1] in BELOW and parts[1] != room:
                door = (str(path.relative_to(ROOT)), parts[1])
                assert parts[1] in BELOW[room] or door in DOORS, f"{path.name} imports {name}"


def test_doors_open_when_they_are_walked_through():
    for path, room in DOORS:
        at_import = [node for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.ImportFrom)]
        assert at_import
        assert not any((node.module or "").split(".")[0] == room for node in at_import), path


def test_the_judges_need_no_torch_and_no_monitor():
    """Also not by way of another module: the closure of their imports is walked."""
    seen, todo = set(), [ROOT / "diagnostics" / f"{name}.py" for name in JUDGES]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for name, typing_only in imports(path):
            assert typing_only or name.split(".")[0] != "torch", f"{path.name} imports torch"
            inner = name.removeprefix("stepscope.diagnostics.")
            neighbour = ROOT / "diagnostics" / f"{inner}.py"
            if not typing_only and inner != name and neighbour.exists():
                assert inner != "monitor", f"{path.name} imports the monitor"
                todo.append(neighbour)
    assert len(seen) >= len(JUDGES)
