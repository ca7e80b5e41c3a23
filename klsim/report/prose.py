"""Prose with LaTeX (``$…$``, ``$$…$$``) as HTML with MathML, readable without a network."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from functools import lru_cache
from itertools import zip_longest
from typing import Any

from markupsafe import Markup, escape

__all__ = ["to_html", "to_markdown"]


def to_html(text: str) -> Markup:
    """Prose as HTML: LaTeX as MathML (as it is where it cannot be converted), ``*emphasis*``, `` `code` ``; the rest
    is escaped."""
    return Markup(_markdown().renderInline(text))


@lru_cache(maxsize=1)
def _markdown() -> Any:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    plain = MarkdownIt("zero", {"html": False}).enable(["emphasis", "backticks"])
    plain.use(dollarmath_plugin, allow_space=True, allow_digits=True, double_inline=True)
    plain.add_render_rule("math_inline", lambda _, tokens, i, *__: _mathml(tokens[i].content, False))
    plain.add_render_rule("math_inline_double", lambda _, tokens, i, *__: _mathml(tokens[i].content, True))
    return plain


@lru_cache(maxsize=4096)
def _mathml(latex: str, display: bool) -> Markup:
    from latex2mathml.converter import convert

    try:
        named = re.sub(r"\\arg\s*\\(max|min)", r"\\operatorname{arg\1}", latex)  # \arg is unknown to the converter
        made = ElementTree.fromstring(convert(named, display="block" if display else "inline"))
        if any("\\" in (element.text or "") for element in made.iter()):
            raise ValueError("an unknown command")
        return _presentation(made)
    except Exception:  # any LaTeX error of the converter: the source is still readable
        return Markup('<code class="latex">{}</code>').format(latex)


# Presentation MathML that cannot run, load or link: the converter passes text and \href on as they are.
_ELEMENTS = {
    "math", "mrow", "mi", "mo", "mn", "ms", "mtext", "mspace", "msub", "msup", "msubsup", "munder", "mover",
    "munderover", "mmultiscripts", "mprescripts", "mfrac", "msqrt", "mroot", "mtable", "mtr", "mtd", "mstyle",
    "mpadded", "mphantom", "menclose", "none",
}  # fmt: skip
_ATTRIBUTES = {
    "display", "displaystyle", "scriptlevel", "mathvariant", "mathcolor", "mathsize", "stretchy", "fence",
    "separator", "form", "accent", "accentunder", "movablelimits", "largeop", "symmetric", "minsize", "maxsize",
    "linethickness", "width", "height", "depth", "voffset", "lspace", "rspace", "notation", "columnalign",
    "columnlines", "columnspacing", "rowalign", "rowlines", "rowspacing",
}  # fmt: skip
_PLAIN = re.compile(r"[\w.,#%+ -]*", re.ASCII)
_NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"


def _presentation(element: ElementTree.Element) -> Markup:
    """The element written anew.

    Raises:
        ValueError: an element, an attribute or a value of one outside the lists above.
    """
    name = element.tag.removeprefix(_NAMESPACE)
    if name not in _ELEMENTS or any(k not in _ATTRIBUTES or not _PLAIN.fullmatch(v) for k, v in element.items()):
        raise ValueError("not presentation MathML")
    attributes = Markup("").join(Markup(' {}="{}"').format(k, v) for k, v in element.items())
    inside = escape(element.text or "") + Markup("").join(
        _presentation(child) + escape(child.tail or "") for child in element
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), attributes, inside)


def to_markdown(text: str) -> str:
    """Prose for a Markdown table cell: LaTeX stays (GitHub renders it), pipes and newlines do not."""
    one_line = " ".join(text.replace("$$", "$").split())
    pieces = one_line.split("$")
    math = (p.replace("\\|", "\\Vert ").replace("|", "\\mid ") for p in pieces[1::2])
    words = (p.replace("|", "\\|") for p in pieces[::2])
    return "$".join(p for pair in zip_longest(words, math) for p in pair if p is not None)
