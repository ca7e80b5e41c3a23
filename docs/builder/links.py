"""Links between files of the repository as links between pages of the site."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from docs.builder.dialect import outside_code

__all__ = ["ASSETS", "broken", "moved"]

_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
_INLINE_CODE = re.compile(r"(`[^`\n]+`)")
ASSETS = "files"


def moved(
    text: str, source: PurePosixPath, page: PurePosixPath, root: Path, pages: dict[str, str]
) -> tuple[str, set[str]]:
    """Links of a repository's file as links of its page.

    Args:
        text: Markdown of ``source``.
        source, page: where it is in the repository and on the site.
        root: of the repository.
        pages: repository file to page.

    Returns the text, and the repository's files that it links to and that are no page: to be copied to ``ASSETS``.

    Raises:
        ValueError: a link to nothing.
    """
    assets: set[str] = set()

    def target(address: str) -> str:
        if re.match(r"[a-z]+:", address) or address.startswith("#"):
            return address
        path, mark, anchor = address.partition("#")
        file = os.path.normpath(source.parent / path)
        for candidate in (file, f"{file}/README.md"):
            if candidate in pages:
                return relative(pages[candidate], page) + mark + anchor
        if not (root / file).is_file():
            raise ValueError(f"{source}: links to {address}, which is not there")
        assets.add(file)
        return relative(f"{ASSETS}/{file}", page) + mark + anchor

    return _replaced(text, target), assets


def relative(to: str, page: PurePosixPath) -> str:
    return PurePosixPath(os.path.relpath(to, page.parent)).as_posix()


def _replaced(text: str, target: Callable[[str], str]) -> str:
    def change(block: str) -> str:
        pieces = _INLINE_CODE.split(block)
        pieces[::2] = [_LINK.sub(lambda m: m[1] + target(m[2]) + m[3], p) for p in pieces[::2]]
        return "".join(pieces)

    return outside_code(text, change)


def broken(pages: dict[str, str], assets: set[str]) -> list[str]:
    """Relative links of the site's pages (path to Markdown) that lead nowhere; anchors of headings included."""
    found: list[str] = []
    anchors = {path: _anchors(text) for path, text in pages.items()}

    def check(path: str) -> Callable[[str], str]:
        def target(address: str) -> str:
            if re.match(r"[a-z]+:", address):
                return address
            file, _, anchor = address.partition("#")
            there = os.path.normpath(PurePosixPath(path).parent / file) if file else path
            if there not in pages and there not in assets:
                found.append(f"{path}: {address}")
            elif anchor and there in pages and anchor not in anchors[there]:
                found.append(f"{path}: {address} (no such heading)")
            return address

        return target

    for path, text in pages.items():
        _replaced(text, check(path))
    return found


def _anchors(text: str) -> set[str]:
    from markdown.extensions.toc import slugify, unique

    taken: set[str] = set()

    def headings(block: str) -> str:
        for line in block.split("\n"):
            if match := re.match(r"#{1,6} (.*)", line):
                given = re.search(r"\{ *#([\w-]+)[^}]*\}$", match[1])
                words = re.sub(r"\[([^\]]*)\]\[[^\]]*\]|\[([^\]]*)\]\([^)]*\)", r"\1\2", match[1])
                if given:
                    taken.add(given[1])
                else:
                    unique(slugify(words.replace("`", ""), "-"), taken)
            taken.update(re.findall(r'id="([^"]+)"', line))
        return block

    outside_code(text, headings)
    return taken
