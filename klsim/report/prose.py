"""Prose with LaTeX (``$…$``, ``$$…$$``) as HTML with MathML, readable without a network."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import zip_longest

from markupsafe import Markup, escape

__all__ = ["to_html", "to_markdown"]

_MATH = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)


def to_html(text: str) -> Markup:
    """Escape ``text`` and turn its LaTeX into MathML; LaTeX that cannot be converted is shown as it is."""
    parts, end = [], 0
    for found in _MATH.finditer(text):
        parts.append(escape(text[end : found.start()]))
        display = found.group(1) is not None
        parts.append(_mathml(found.group(1) if display else found.group(2), display))
        end = found.end()
    parts.append(escape(text[end:]))
    return Markup("").join(parts)


@lru_cache(maxsize=4096)
def _mathml(latex: str, display: bool) -> Markup:
    from latex2mathml.converter import convert

    try:
        # the converter escapes text itself; anything but MathML elements in its output is refused
        named = re.sub(r"\\arg\s*\\(max|min)", r"\\operatorname{arg\1}", latex)  # \arg is unknown to the converter
        made = convert(named, display="block" if display else "inline")
        if "\\" in made:
            raise ValueError("an unknown command")
        if re.search(r"<\s*/?\s*(?!m|/m)[a-z]", made, re.IGNORECASE):
            raise ValueError("not MathML")
        return Markup(made)
    except Exception:  # any LaTeX error of the converter: the source is still readable
        return Markup("<code>{}</code>").format(latex)


def to_markdown(text: str) -> str:
    """Prose for a Markdown table cell: LaTeX stays (GitHub renders it), pipes and newlines do not."""
    one_line = " ".join(text.replace("$$", "$").split())
    pieces = one_line.split("$")
    math = (p.replace("\\|", "\\Vert ").replace("|", "\\mid ") for p in pieces[1::2])
    words = (p.replace("|", "\\|") for p in pieces[::2])
    return "$".join(p for pair in zip_longest(words, math) for p in pair if p is not None)
