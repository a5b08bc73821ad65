"""The ending of a file's name chooses the format of what is written to it; each is a view of the same contents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..diagnostics.finding import listed

if TYPE_CHECKING:
    from ..synthetic.phase import Phase
    from ..synthetic.score import SuiteResult
    from .chapters import Contents, Runs
    from .study import Study

ENDS = 2**17
"""Bytes at its head or, of a PDF, at its foot in which a file of ours says so; there a long table of places follows."""


@dataclass(frozen=True)
class Format:
    """How contents become bytes, and the words by which a file of that format is known as ours."""

    mark: bytes
    write: Callable[[Contents], bytes]


def _html(contents: Contents) -> bytes:
    from .page import html

    return html(contents).encode("utf-8", "replace")


def _pdf(contents: Contents) -> bytes:
    from .pdf import pdf

    return pdf(contents)


def _markdown(contents: Contents) -> bytes:
    from .markdown import markdown

    return markdown(contents).encode("utf-8", "replace")


def _json(contents: Contents) -> bytes:
    from .document import document, written

    return written(document(contents))


def _xml(contents: Contents) -> bytes:
    from .junit import junit

    return junit(contents)


FORMATS = {
    ".html": Format(b"stepscope</title>", _html),
    ".pdf": Format(b"/Creator (stepscope)", _pdf),
    ".md": Format(b"### stepscope: ", _markdown),
    ".json": Format(b'"report": "stepscope', _json),
    ".xml": Format(b'<testsuites name="stepscope', _xml),
}
PHASE = (".html", ".pdf", ".md", ".json")
"""The formats of a phase diagram beside pictures: nothing of it can fail, so that CI has no use for cases."""


def ending(path: Path, known: Iterable[str] = FORMATS) -> str:
    """Return the ending of a report's name, before anything long is done for it.

    Raises:
        ValueError: for a directory, and for an ending that names no format.
    """
    if path.is_dir():
        raise ValueError(f"a report is a file, got the directory '{path}'; write '{path / 'report.html'}'.")
    found = path.suffix.lower()
    if found not in known:
        raise ValueError(f"a report's name must end in {listed([*known], 'or')}, got '{path}'.")
    return found


def writable(path: Path, known: Iterable[str] = FORMATS) -> str:
    """Return the ending of a report's name if it may be written: an earlier report is replaced, another file is not.

    Raises:
        ValueError: for another file, a directory, and an ending that names no format.
    """
    found = ending(path, known)
    if path.is_file() and not is_ours(path):
        raise ValueError(
            f"expected an earlier report or nothing at '{path}', got a file that stepscope did not write; "
            "move it away, or name another by `-o`."
        )
    return found


def is_ours(path: Path) -> bool:
    """Return whether a file is a report of that format, or has nothing in it to lose."""
    with path.open("rb") as file:
        head = file.read(ENDS)
        file.seek(max(len(head), file.seek(0, 2) - ENDS))
        tail = file.read()
    mark = FORMATS[path.suffix.lower()].mark
    return not head or mark in head or mark in tail


def render(runs: Runs, path: str | Path) -> Path:
    """Write the report of named runs in the format that the file's ending names, and return where it is.

    Raises:
        ValueError: for no run, a directory, and an ending that names no format.
    """
    from .chapters import gather

    target = Path(path)
    return save(gather(runs, exact=ending(target) == ".json"), target)


def save(contents: Contents, path: Path) -> Path:
    """Write contents in the format that the file's ending names, and return where it is."""
    return put(FORMATS[ending(path)].write(contents), path)


def save_suite(result: SuiteResult, path: Path) -> Path:
    """Write what a suite found in the format that the file's ending names, and return where it is."""
    from . import suites
    from .suite_study import suite_study

    kind = ending(path)
    if kind in (".json", ".xml"):
        return put((suites.document if kind == ".json" else suites.junit)(result), path)
    return put(_studied(suite_study(result), kind), path)


def save_phase(phase: Phase, path: Path) -> Path:
    """Write a phase diagram in the format that the file's ending names, and return where it is."""
    from .document import written
    from .phase_study import document_of, phase_study

    kind = ending(path, PHASE)
    return put(written(document_of(phase)) if kind == ".json" else _studied(phase_study(phase), kind), path)


def _studied(study: Study, kind: str) -> bytes:
    """Return a study in a format for people."""
    if kind == ".pdf":
        from .study_pdf import study_pdf

        return study_pdf(study)
    if kind == ".md":
        from .study_markdown import study_markdown

        return study_markdown(study).encode("utf-8", "replace")
    from .page import study_html

    return study_html(study).encode("utf-8", "replace")


def put(content: bytes, path: Path) -> Path:
    """Write a whole file at once, with the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
