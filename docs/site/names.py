"""Pages of names, from signatures and docstrings: the public ones, those that documents import, and every module."""

import functools
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import griffe
from tables import code, page, table

ROOT = Path(__file__).parents[2]
ROOMS = ("diagnostics", "synthetic", "remedies", "reports")
IMPORT = re.compile(r"^ *from (stepscope[\w.]*) import (.*)$", re.MULTILINE)
WIDTH = 88


def pages() -> dict[str, str]:
    """Return every page of this kind, by its address."""
    import stepscope
    import stepscope.remedies
    import stepscope.synthetic

    public = sorted(f"stepscope.{name}" for name in stepscope._HOME)
    worlds = [f"stepscope.synthetic.{name}" for name in stepscope.synthetic.__all__ if name not in stepscope._HOME]
    remedies = [f"stepscope.remedies.{name}" for name in stepscope.remedies.__all__]
    remedies += [f"stepscope.remedies.{name}" for name in ("elementwise.Elementwise", "wrapper.Wrapper")]
    used = {name for document in documents() for name in imported(document.read_text())}
    further = sorted(name for name in used - {*public, *worlds, *remedies} if not found(name).is_module)
    return {
        "reference/stepscope.md": names_page("stepscope", "The public names, kept stable.", public),
        "reference/synthetic.md": names_page("stepscope.synthetic", "What a `Problem` is made of.", worlds),
        "reference/remedy-classes.md": names_page("stepscope.remedies", "What a finding is answered with.", remedies),
        "reference/further.md": names_page(
            "Further names",
            "What the documents import beside the public names, from where it stands.",
            further,
            whole=True,
        ),
        "reference/modules.md": modules_page(),
    }


def documents() -> list[Path]:
    """Return the documents whose examples are run."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def imported(markdown: str) -> Iterator[str]:
    """Yield the dotted names that the examples of a document import from stepscope."""
    for module, names in IMPORT.findall(markdown):
        yield from (f"{module}.{name.strip()}" for name in names.split(","))


class Refusal(logging.Handler):
    """Makes an error of what griffe warns of, such as an argument that there is not."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raise what was warned of."""
        raise ValueError(record.getMessage())


@functools.cache
def package() -> griffe.Object:
    """Return what the sources say, without importing them."""
    logging.getLogger("griffe").addHandler(Refusal(logging.WARNING))
    loaded = griffe.load("stepscope", search_paths=[ROOT], resolve_aliases=True)
    assert isinstance(loaded, griffe.Object)
    return loaded


def found(name: str) -> griffe.Object:
    """Return what a dotted name stands for, where it is defined."""
    there = package()[name.removeprefix("stepscope.")]
    return there.final_target if isinstance(there, griffe.Alias) else there


# --- a name --------------------------------------------------------------------------------------------------


def names_page(title: str, about: str, names: Iterable[str], *, whole: bool = False) -> str:
    """Return a page of names, each under its own or its `whole` dotted one."""
    parts = []
    for name in names:
        parts += [f"## {name if whole else name.rpartition('.')[2]}\n", *described(found(name))]
    return page(title, about, *parts)


def described(of: griffe.Object) -> Iterator[str]:
    """Yield the signature and the docstring of a name, and of a class what it has."""
    yield f"```python\n{signature(of)}\n```\n"
    yield from docstring(of)
    if isinstance(of, griffe.Class):
        members = {**of.members, **of.inherited_members}
        shown = [member for name, member in members.items() if not name.startswith("_") and member.has_docstring]
        attributes = [member for member in shown if not member.is_function]
        if attributes:
            yield listed("Attributes", ((code(signature(each)), each.docstring.value) for each in attributes))
        for method in shown:
            if method.is_function:
                yield f"### {of.name}.{method.name}\n"
                yield f"```python\n{signature(method)}\n```\n"
                yield from docstring(method)


def signature(of: griffe.Object | griffe.Alias) -> str:
    """Return how a name is called, or what it is."""
    if of.is_attribute:
        value = f" = {of.value}" if of.value is not None and "property" not in of.labels else ""
        return f"{of.name}{f': {of.annotation}' if of.annotation else ''}{value}"
    text = f"class {of.name}{fields(of)}" if of.is_class else str(of.signature())
    return text if len(text) <= WIDTH else broken(text)


def fields(of: griffe.Object | griffe.Alias) -> str:
    """Return what a class is made of, in brackets; nothing of one that is not called."""
    bases = [str(base) for base in of.bases]
    if "NamedTuple" in bases:
        own = [f"{each.name}: {each.annotation}" for each in of.members.values() if each.is_attribute]
        return f"({', '.join(own)})"
    called = of.signature() if not any(base.endswith("Enum") for base in bases) else None
    return "" if called is None else str(called).removeprefix(of.name)


def broken(text: str) -> str:
    """Return a signature with a line for each argument."""
    depth, start = 0, text.index("(")
    lines = [text[: start + 1]]
    for at, letter in enumerate(text[start:], start):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0:
            return "\n".join([*lines, f"    {text[start + 1 : at]},", text[at:]])
        if depth == 1 and letter == ",":
            lines.append(f"    {text[start + 1 : at].strip()},")
            start = at + 1
    return text


def docstring(of: griffe.Object | griffe.Alias) -> Iterator[str]:
    """Yield the sections of a docstring; its own words are Markdown already."""
    if of.docstring is None:
        return
    closed = "**" not in signature(of)  # else what is passed on may be described as well
    for section in of.docstring.parse("google", warn_unknown_params=closed, warn_missing_types=closed):
        match section.kind.value:
            case "text":
                yield f"{section.value}\n"
            case "parameters":
                yield listed("Arguments", ((code(each.name), each.description) for each in section.value))
            case "raises":
                yield listed("Raises", ((code(each.annotation), each.description) for each in section.value))
            case "returns":
                yield f"**Returns** {' '.join(section.value[0].description.split())}\n"
            case kind:
                raise ValueError(f"{of.path} has a section of {kind}; say here how it is shown.")


def listed(title: str, entries: Iterable[tuple[str, str]]) -> str:
    """Return a list of names and what they are."""
    return f"**{title}**\n\n" + "".join(f"- {name}: {' '.join(words.split())}\n" for name, words in entries)


# --- modules -------------------------------------------------------------------------------------------------


def modules_page() -> str:
    """Return every module with the first paragraph of its docstring: where to look for what."""
    about = "Every file of the four rooms. Imports go one way: reports, then synthetic and remedies, then diagnostics."
    parts = []
    for room in ROOMS:
        inside = package()[room]
        parts.append(f"## {room}\n\n{first(inside)}\n")
        modules = sorted((m for m in inside.members.values() if m.is_module), key=lambda m: m.name)
        parts.append(table(["file", "what it is about"], ((code(f"{m.name}.py"), first(m)) for m in modules)))
    return page("Modules", about, *parts)


def first(module: griffe.Object | griffe.Alias) -> str:
    """Return the first paragraph of a docstring."""
    return module.docstring.value.split("\n\n")[0] if module.docstring else ""
