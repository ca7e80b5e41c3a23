"""What a built site must not have: links that lead nowhere, and anything fetched from elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

__all__ = ["problems"]


class _Page(HTMLParser):
    """Links, anchors and fetched addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.fetched: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {k: v or "" for k, v in attrs}
        self.anchors |= {given[k] for k in ("id", "name") if given.get(k)}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "prev", "next", "edit"):
            self.fetched.add(given.get("href", ""))
        self.fetched |= {given[k] for k in ("src", "srcset", "data", "poster") if given.get(k)}


def problems(site: Path) -> list[str]:
    """Broken links and anchors, missing files, and addresses elsewhere that a page or a style would fetch."""
    pages = {f: _Page(f.read_text(encoding="utf-8")) for f in sorted(site.rglob("*.html"))}
    found = [f"{file.relative_to(site)}: {p}" for file, page in pages.items() for p in _of(file, page, pages, site)]
    for style in sorted(site.rglob("*.css")):
        text = style.read_text(encoding="utf-8")
        found += [
            f"{style.relative_to(site)}: fetches {m[1]}" for m in re.finditer(r"url\([\"']?(https?:[^)\"']+)", text)
        ]
    return found


def _of(file: Path, page: _Page, pages: dict[Path, _Page], site: Path) -> Iterator[str]:
    absolute = file.name == "404.html"  # served from anywhere, so its addresses start at the root
    for address in sorted(page.links | page.fetched):
        if re.match(r"(https?:)?//", address):
            if address in page.fetched:
                yield f"fetches {address}"
            continue
        if re.match(r"[a-z]+:", address):
            continue
        path, _, anchor = address.partition("#")
        path = unquote(path.partition("?")[0])
        base = site if absolute and path.startswith("/") else file.parent
        there = Path(os.path.normpath(base / path.lstrip("/"))) if path else file
        if there.is_dir():
            there = there / "index.html"
        if not there.is_file():
            yield f"links to {address}, which is not there"
        elif anchor and there in pages and unquote(anchor) not in pages[there].anchors:
            yield f"links to {address}, but there is no such anchor"
