"""Text of the repository as the site's Markdown: GitHub's dialect, and the reStructuredText of docstrings."""

from __future__ import annotations

import re
from collections.abc import Callable

from docs.builder import names
from klsim.report.prose import to_html

__all__ = ["formulas", "from_docstring", "from_github", "linked", "one_a_line", "outside_code", "qualified", "to_html"]

_FENCE = re.compile(r"^ *(```|~~~)")
_ITEM = re.compile(r"^ *([-*+]|\d+\.) ")
_CODE = re.compile(r"(``.+?``|`[^`\n]+`|\$\$.+?\$\$|^ {4}[^\n]*$)", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"(?<![`\[])`([A-Za-z_][\w.]*)`(?![`\]])")
_BORDER = re.compile(r"^ *=+( +=+)+ *$")


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Change what is in no code fence."""
    parts, inside, block = [], False, []
    for line in text.split("\n"):
        if _FENCE.match(line):
            if not inside:
                parts.append(change("\n".join(block)))
                block = [line]
            else:
                parts.append("\n".join([*block, line]))
                block = []
            inside = not inside
        else:
            block.append(line)
    parts.append("\n".join(block) if inside else change("\n".join(block)))
    return "\n".join(parts)


def from_github(text: str) -> str:
    """GitHub's Markdown as Python-Markdown reads it: lists start a block."""
    return outside_code(text, _lists_start_blocks)


def _lists_start_blocks(text: str) -> str:
    lines: list[str] = []
    for line in text.split("\n"):
        before = lines[-1] if lines else ""
        starts = _ITEM.match(line) and before.strip() and not _ITEM.match(before) and not before.startswith(" ")
        if starts and not _in_item(lines):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def _in_item(lines: list[str]) -> bool:
    """Whether the paragraph that ends here belongs to a list item."""
    for line in reversed(lines):
        if not line.strip():
            return False
        if _ITEM.match(line):
            return True
    return False


def linked(text: str, module: str = "") -> str:
    """Names of klsim in code become references to their page."""

    def link(match: re.Match[str]) -> str:
        target = names.address(match[1], module)
        if target is None or target == module:
            return match[0]
        return f"[`{match[1]}`][{target}]"

    return _NAME.sub(link, text)


def qualified(text: str, module: str = "") -> str:
    """Dotted names of klsim in code become references; with a module those that it exports, too."""

    def link(match: re.Match[str]) -> str:
        name = match[1] if match[1].startswith("klsim.") else f"{module}.{match[1]}"
        target = names.address(name) if name.startswith("klsim.") else None
        return match[0] if target is None else f"[`{match[1]}`][{target}]"

    return _NAME.sub(link, text)


def from_docstring(text: str, module: str) -> str:
    """A docstring as Markdown: ``.. math::``, simple tables, ``::`` blocks, names in backquotes.

    Args:
        text: without common indentation.
        module: whose names can be meant.
    """
    lines = _tables(_math(text.split("\n")))
    for i, line in enumerate(lines):
        if line.strip() == "::" or line.lstrip().startswith(".. code-block::"):
            lines[i] = ""
        elif line.rstrip().endswith("::"):
            lines[i] = line.rstrip()[:-1]
    plain = _lists_start_blocks("\n".join(lines))
    return linked(_escaped(plain), module)


def one_a_line(text: str, known: set[str]) -> str:
    """``a: x. b, c: y.`` of a section ``Args:`` or ``Attributes:`` as an entry a line; ``known``: what can be named."""
    lines, inside = [], False
    for line in text.split("\n"):
        if re.fullmatch(r"(Args|Attributes):", line):
            inside = True
        elif line.strip() and not line.startswith(" "):
            inside = False
        lines.append(_split_entries(line, known) if inside and line.startswith("    ") else line)
    return "\n".join(lines)


def _split_entries(line: str, known: set[str]) -> str:
    def new_line(match: re.Match[str]) -> str:
        named = match[1].split(", ")
        return f".\n    {match[1]}: " if known.issuperset(named) else match[0]

    return re.sub(r"(?<!\.)\. (\w+(?:, \w+)*): ", new_line, line)


def formulas(text: str) -> list[str]:
    """The displayed formulas of a text, with their ``$$``."""
    return re.findall(r"\$\$.+?\$\$", text, re.DOTALL)


def _escaped(text: str) -> str:
    """``<`` that opens no tag; indented blocks are code already."""
    pieces = _CODE.split(text)
    pieces[::2] = [re.sub(r"<(?=[A-Za-z/!])", "&lt;", p) for p in pieces[::2]]
    return "".join(pieces)


def _math(lines: list[str]) -> list[str]:
    """``.. math::`` blocks as ``$$``."""
    out: list[str] = []
    rest = iter(range(len(lines)))
    for i in rest:
        head = re.match(r"^( *)\.\. math::(.*)$", lines[i])
        if head is None:
            out.append(re.sub(r":math:`([^`]+)`", r"$\1$", lines[i]))
            continue
        body, indent = [head[2].strip()], len(head[1])
        j = i + 1
        while j < len(lines) and (not lines[j].strip() or len(lines[j]) - len(lines[j].lstrip()) > indent):
            if not lines[j].strip() and not (
                j + 1 < len(lines) and lines[j + 1].strip() and lines[j + 1].startswith(" " * (indent + 1))
            ):
                break
            body.append(lines[j].strip())
            next(rest, None)
            j += 1
        formula = " ".join(b for b in body if b)
        out += ["", f"{head[1]}$${formula}$$", ""]
    return out


def _tables(lines: list[str]) -> list[str]:
    """Simple tables of reStructuredText as Markdown's."""
    out: list[str] = []
    i = 0
    while i < len(lines):
        borders = [j for j in range(i, len(lines)) if _BORDER.match(lines[j])] if _BORDER.match(lines[i]) else []
        if len(borders) < 2:
            out.append(lines[i])
            i += 1
            continue
        end = borders[2] if len(borders) > 2 else borders[1]
        spans = [m.span() for m in re.finditer("=+", lines[i])]
        middle = borders[1] if len(borders) > 2 else i
        head = _rows(lines[i + 1 : middle], spans) or [[""] * len(spans)]
        body = _rows(lines[middle + 1 : end], spans)
        indent = " " * spans[0][0]
        out += ["", *(indent + _row(r) for r in (head[0], ["---"] * len(spans), *body)), ""]
        i = end + 1
    return out


def _rows(lines: list[str], spans: list[tuple[int, int]]) -> list[list[str]]:
    """Cells; a row without a first cell goes on with the one above."""
    rows: list[list[str]] = []
    ends = [start for start, _ in spans[1:]] + [None]
    for line in lines:
        cells = [line[a:b].strip() for (a, _), b in zip(spans, ends, strict=True)]
        if not any(cells):
            continue
        if rows and not cells[0]:
            rows[-1] = [f"{old} {new}".strip() for old, new in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    return rows


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
