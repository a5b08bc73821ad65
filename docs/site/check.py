"""What is wrong with a built site: links that lead nowhere, and parts of a page that would come from a network."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "link": "href",
}
"""What a browser fetches for a page without being asked."""
FOREIGN_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^)"'\s]+)""")


class Page(HTMLParser):
    """The anchors of a page, where its links lead, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag has."""
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if LOADED.get(tag) in found:
            self.loaded.append(found[LOADED[tag]])


def faults(site: Path) -> Iterator[str]:
    """Yield what is wrong, a sentence each."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for target in (*page.links, *page.loaded):
            if target in page.loaded and foreign(target):
                yield f"{path.name} loads {target} from elsewhere"
            elif not foreign(target) and (why := dead(path, target, pages)):
                yield f"{path.name} links to {target}: {why}"
    for path in (*site.rglob("*.css"), *pages):
        yield from (f"{path.name} loads {target} from elsewhere" for target in FOREIGN_STYLE.findall(path.read_text()))


def foreign(target: str) -> bool:
    """Return whether it lies on another host; what stands in the page itself, as data, does not."""
    parts = urlsplit(target)
    return bool(parts.netloc) or parts.scheme not in ("", "data")


def dead(path: Path, target: str, pages: dict[Path, Page]) -> str:
    """Return why a link of a page leads nowhere, or nothing."""
    parts = urlsplit(target)
    if parts.scheme:
        return ""
    there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not there.exists():
        return "there is no such file"
    anchor = unquote(parts.fragment)
    if anchor and there in pages and anchor not in pages[there].anchors:
        return "that page has no such place"
    return ""
