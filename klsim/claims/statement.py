r"""A claim as one text: a title line, prose with LaTeX, then sections.

::

    Sequence-level optimum of the G-OPD objective

    $J_\lambda(\pi)=\log Z_\lambda-\mathrm{KL}(\pi\|\pi_\lambda)$ with
    $$\pi_\lambda\propto\pi_{ref}^{1-\lambda}T^\lambda.$$

    where: Eq. 11-13
    assumes: Common support.

Sections, each optional, each starting a line: ``where:`` (theorem, equation, figure), ``assumes:``, ``instead:``
(what holds
instead: the statement is then expected to be refuted), ``by:`` (the claims or checks that show it: ``C5``,
``C5/check``), ``origin:`` (see `ORIGINS`).
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from difflib import get_close_matches

__all__ = ["ORIGINS", "Statement", "parse"]

ORIGINS = {
    "printed": "printed in the paper",
    "as commonly read": "as the paper is commonly read",
    "released code": "in the released code",
    "folklore": "folklore",
    "derived": "derived here",
}
"""Who says a statement, by the name that a claim gives it, in words."""

_SECTIONS = ("where", "assumes", "instead", "by", "origin")
_HEAD = re.compile(rf"^[ \t]*({'|'.join(_SECTIONS)}):", re.MULTILINE)
_NEAR_HEAD = re.compile(r"^[ \t]*([a-z]{2,10}):(?=\s)", re.MULTILINE)


@dataclass(frozen=True)
class Statement:
    """The parts of a claim's text, white space folded."""

    title: str
    text: str = ""
    where: str = ""
    assumes: str = ""
    instead: str = ""
    by: tuple[str, ...] = ()
    origin: str = ""


def parse(text: str) -> Statement:
    """Split a claim's text into its parts.

    Raises:
        ValueError: no title, a section twice, a misspelt section, an unknown origin.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError("a claim needs a text: a title line, then what it states")
    title, _, rest = textwrap.dedent(text).strip().partition("\n")
    pieces = _HEAD.split(rest)
    names, bodies = pieces[1::2], [" ".join(p.split()) for p in pieces[2::2]]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the text has the section {name!r} twice")
    for word in _NEAR_HEAD.findall(pieces[0]):
        if near := get_close_matches(word, _SECTIONS, n=1, cutoff=0.75):
            raise ValueError(f"the text has a line {word!r}: did you mean {near[0] + ':'!r}?")
    found = dict(zip(names, bodies))
    origin = found.get("origin", "").rstrip(".")
    if origin and origin not in ORIGINS:
        raise ValueError(f"origin: {origin!r} must be one of {', '.join(ORIGINS)}")
    by = tuple(filter(None, re.split(r"[,\s]+", found.get("by", "").rstrip("."))))
    return Statement(
        " ".join(title.split()), " ".join(pieces[0].split()), found.get("where", ""), found.get("assumes", ""),
        found.get("instead", ""), by, origin or _default_origin(found.get("where", "")),
    )  # fmt: skip


def _default_origin(where: str) -> str:
    """A place in the paper means that the paper prints it; without one it is ours."""
    return "printed" if where and not where.lower().startswith(("derived", "ours")) else "derived"
