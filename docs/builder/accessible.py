"""What the theme's pages lack for those who do not see or do not point: names, and code that scrolls by key."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["accessible", "make_accessible"]

_SEARCH = 'data-md-component="search" role="dialog"'
_BLOCK = re.compile(r"(<pre[^>]*>(?:<span></span>)?<code>)")
_EMPTY = re.compile(r"<th([^>]*)></th>")
_SECTION = re.compile(r'(<nav class="md-nav" data-md-level="1") aria-labelledby="[^"]*"')


def accessible(page: str) -> str:
    """A page whose search and sections say what they are, whose tables have no empty headings, and whose blocks of code
    can be reached and scrolled from the keyboard."""
    page = page.replace(_SEARCH, f'{_SEARCH} aria-label="Search"')
    page = _SECTION.sub(r'\1 aria-label="Pages of this section"', page)
    page = _EMPTY.sub(r"<td\1></td>", page)
    return _BLOCK.sub(r'\1<span tabindex="0"></span>', page)  # the theme takes a tabindex of the code itself away


def make_accessible(site: Path) -> None:
    """Do so in every page of a site that was built."""
    for file in site.rglob("*.html"):
        file.write_text(accessible(file.read_text(encoding="utf-8")), encoding="utf-8")
