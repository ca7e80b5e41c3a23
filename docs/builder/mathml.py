"""Markdown with LaTeX (``$…$``, ``$$…$$``) as MathML, made when the site is built: no script, no font, no network."""

from __future__ import annotations

import re
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

from klsim.report.prose import to_html

__all__ = ["MathML", "makeExtension"]

_DISPLAY = r"(?<!\\)\$\$(.+?)\$\$"
_INLINE = r"(?<![\\$\w])\$(?=[^\s$])((?:[^$\\]|\\.)+?)(?<=\S)\$(?![\w$])"


class _Formula(InlineProcessor):
    def __init__(self, pattern: str, markdown: Markdown, mark: str) -> None:
        super().__init__(pattern, markdown)
        self.compiled_re = re.compile(pattern, re.DOTALL)
        self._mark = mark

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:  # type: ignore[override]
        html = str(to_html(f"{self._mark}{' '.join(m[1].split())}{self._mark}"))
        if "<math" not in html:
            raise ValueError(f"not LaTeX that can be shown: {m[0]}")
        return self.md.htmlStash.store(html), m.start(0), m.end(0)


class MathML(Extension):
    """Before escapes and emphasis, after code."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(_Formula(_DISPLAY, md, "$$"), "display_math", 187)
        md.inlinePatterns.register(_Formula(_INLINE, md, "$"), "inline_math", 186)


def makeExtension(**options: Any) -> MathML:
    return MathML(**options)
