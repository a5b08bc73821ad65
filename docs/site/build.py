"""Build the site: the documents as they are, README and changelog, and pages made from the code; a warning is an error.

    python docs/site/build.py [folder]

The documents stay as GitHub shows them. What becomes the site is gathered in a folder of its own, where the few links
that lead out of docs/ are turned, and what docstrings and findings cite as "docs/theory.md 4.4" becomes a link.
"""

import ast
import contextlib
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import names
import pages
import pictures
import tables
from check import faults
from sphinx.cmd.build import main as sphinx

from stepscope.diagnostics.limits import limits
from stepscope.reports.plates import plates

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TURNED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
    "benchmarks/README.md": "benchmarks.md",
    **{f"examples/{script.name}": f"example-{script.stem}.md" for script in sorted(ROOT.glob("examples/[0-9]*.py"))},
}
"""What stands outside docs/, and where the site has it."""
SCRIPTS = [Path(address).stem for name, address in TURNED.items() if name.startswith("examples/")]
EXAMPLE = '<a href="example-report.html">The report of this very run</a>, made as this site was built.'
PLACE = re.compile(r"\d\.\d+|[PR]\d+|\d")
CITED = re.compile(rf"(?<!\[)docs/(\w+)\.md((?:(?:,| and|-|–)* ?(?:{PLACE.pattern})\b)*)")
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
NO_PROSE = re.compile(r"(^```.*?^```$|`[^`\n]*`|^    [^\n]*$)", re.MULTILINE | re.DOTALL)


def build(target: Path) -> int:
    """Build the site into a folder and return the exit code: 0, if nothing at all is wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "source")
        gather(source)
        failed = sphinx(["-W", "--keep-going", "-q", "-b", "html", "-d", f"{scratch}/trees", str(source), str(target)])
    found = list(faults(target))
    for fault in found:
        print(f"WARNING: {fault}", file=sys.stderr)
    return failed or bool(found)


def gather(source: Path) -> None:
    """Write what Sphinx reads: documents, what stands beside docs/, and pages made from the code."""
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("site"))
    shutil.copy(HERE / "conf.py", source)
    (source / "style.css").write_text((HERE / "style.css").read_text() + pictures.style())
    for document in source.glob("*.md"):
        document.write_text(turned(document.read_text(), "../", ""))
    for name, address in TURNED.items():
        (source / address).write_text(from_outside(name))
    example(source / "extra")
    with (source / "figures.md").open("a") as figures:
        figures.write(gallery())
    report = source / "report.md"
    report.write_text(report.read_text().replace("\n## ", f"\n{EXAMPLE}\n\n## ", 1))
    with (source / "examples.md").open("a") as examples:
        examples.write("\n```{toctree}\n:hidden:\n\n" + "\n".join(SCRIPTS) + "\n```\n")
    with (source / "index.md").open("a") as index:
        index.write((HERE / "contents.md").read_text())
    for address, page in (tables.pages() | names.pages() | drawn()).items():
        (source / address).parent.mkdir(exist_ok=True)
        (source / address).write_text(with_citations(page, "../"))


def drawn() -> dict[str, str]:
    """Return the pages with figures, by their addresses; each has runs of its own, which two processes share."""
    addresses = list(pages.all_of_them())
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        return dict(zip(addresses, pool.map(pages.made, addresses), strict=True))


def example(folder: Path) -> None:
    """Write the report of the run that docs/report.md trains."""
    folder.mkdir()
    with first_example("report.md"):
        shutil.copy("report.html", folder / "example-report.html")


def gallery() -> str:
    """Return all figures of the run that docs/figures.md trains."""
    with first_example("figures.md") as names:
        trace = names["trace"]
    figures = [pictures.shown(plate, "gallery") for plate in plates(trace, trace.diagnose(), limits(trace))]
    return "\n".join(["\n## The figures of the run above\n", *figures])


@contextlib.contextmanager
def first_example(document: str) -> Iterator[dict[str, Any]]:
    """Run the first code of a document in a folder of its own, and yield its names."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / document).read_text(), re.DOTALL)[1]
    names: dict[str, Any] = {"__name__": "example"}
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, names)
        yield names


def from_outside(name: str) -> str:
    """Return a page of what stands outside docs/."""
    text = (ROOT / name).read_text()
    match name:
        case "LICENSE":
            return f"# Licence\n\n```text\n{text}```\n"
        case "benchmarks/README.md":  # it has several titles; a page has one
            return "# Benchmarks\n\n" + turned(re.sub(r"^#", "##", text, flags=re.MULTILINE), "../", "docs/")
        case _ if name.endswith(".py"):
            about, source = ast.get_docstring(ast.parse(text)), text.split('"""', 2)[2].strip()
            return f"# {Path(name).name}\n\n{about}\n\n```python\n{source}\n```\n\n[What it shows](examples.md)\n"
        case _:
            return with_citations(turned(text, "", "docs/"), "")


def turned(markdown: str, up: str, docs: str) -> str:
    """Return a document with its links turned: those that lead out of docs/, and those that lead into it."""
    for old, new in TURNED.items():
        markdown = re.sub(rf"\]\({re.escape(up + old)}(?=[)#])", f"]({new}", markdown)
    return markdown.replace(f"]({up}{docs}", "](") if docs else markdown


def with_citations(markdown: str, up: str) -> str:
    """Return a page whose citations of documents and papers are links; `up` leads from it to the documents."""
    parts = NO_PROSE.split(markdown)
    for place in range(0, len(parts), 2):
        cited = CITED.sub(lambda found: linked(found, up), parts[place])
        parts[place] = ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\1)", cited)
    return "".join(parts)


def linked(found: re.Match[str], up: str) -> str:
    """Return a citation as links: one to each place of the theory, or one to the document."""
    document, places = found.groups()
    if document != "theory" or not places:
        return f"[{document}]({up}{document}.md){places}"
    anchors = places_of_the_theory()
    each = PLACE.sub(lambda place: f"[{place[0]}]({up}theory.md#{anchors[place[0]]})", places)
    return f"[theory]({up}theory.md){each}"


def places_of_the_theory() -> dict[str, str]:
    """Return the anchor of each numbered heading of the theory, by its first word."""
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs/theory.md").read_text(), re.MULTILINE)
    return {heading.split()[0]: tables.slug(heading) for heading in headings}


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "site"))
