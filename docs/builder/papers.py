"""A page a paper, and the page of findings: from what is committed under ``papers/``."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from klsim.claims.statement import ORIGINS, Statement, parse
from klsim.report.findings import END, START
from klsim.report.prose import to_html

__all__ = ["Finding", "claims_of", "findings_of", "findings_page", "paper_page", "papers", "source_of"]


@dataclass(frozen=True)
class Finding:
    """A row of a paper's table of false statements."""

    claim: str
    statement: str
    origin: str
    counterexample: str
    holds: str


def papers(root: Path) -> list[str]:
    """Slugs, in the order of ``papers/README.md`` where it names them, then by name."""
    slugs = {f.parent.name for f in (root / "papers").glob("*/README.md")}
    named = re.findall(r"\]\(([\w-]+)/README\.md", (root / "papers" / "README.md").read_text(encoding="utf-8"))
    return [*dict.fromkeys(s for s in named if s in slugs), *sorted(slugs - set(named))]


def findings_of(text: str) -> list[Finding]:
    """The rows between the markers of a paper's README."""
    if START not in text:
        return []
    table = text.split(START)[1].split(END)[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    return [Finding(*(cell.strip().replace("\\|", "|") for cell in _cells(row))) for row in rows]


def _cells(row: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", row.strip().strip("|"))
    if len(cells) != 5:
        raise ValueError(f"a row of the findings has {len(cells)} cells instead of 5: {row}")
    return cells


def _card(finding: Finding, link: str = "") -> str:
    """A finding as a block that a phone can show."""
    claim = finding.claim.strip("`")
    name = (
        Markup('<a href="{}"><code>{}</code></a>').format(link, claim)
        if link
        else Markup("<code>{}</code>").format(claim)
    )
    return Markup(
        '<div class="finding" id="{id}"><p class="said">{name} {statement} <span class="origin">{origin}</span></p>'
        '<dl><dt>counterexample</dt><dd>{counterexample}</dd><dt>what holds</dt><dd>{holds}</dd></dl></div>'
    ).format(
        id=claim.replace("/", "-").lower(), name=name, statement=to_html(finding.statement), origin=finding.origin,
        counterexample=to_html(finding.counterexample), holds=to_html(finding.holds),
    )  # fmt: skip


def source_of(folder: Path) -> str:
    """The text of a paper's ``claims.py``, and of the files beside it that it imports for their claims alone."""
    text = (folder / "claims.py").read_text(encoding="utf-8")
    themes = [
        alias.name
        for node in ast.parse(text).body
        if isinstance(node, ast.ImportFrom) and node.level == 1 and not node.module
        for alias in node.names
    ]
    return "\n".join([text, *((folder / f"{name}.py").read_text(encoding="utf-8") for name in themes)])


def claims_of(source: str) -> dict[str, Statement]:
    """Every claim of a ``claims.py``, by id, from its text alone: nothing is imported."""
    calls = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute))
    found = {}
    for call in sorted(calls, key=lambda c: c.lineno):
        match call.args:
            case [ast.Constant(value=str(name)), ast.Constant(value=str(text)), *_] if call.func.attr == "claim":  # type: ignore[attr-defined]
                found[name] = parse(text)
    return found


def _claim(name: str, said: Statement) -> str:
    about = [
        Markup("<strong>{}</strong> {}").format(label, to_html(value))
        for label, value in (("where", said.where), ("assumes", said.assumes), ("what holds instead", said.instead))
        if value
    ]
    mark = Markup('<span class="origin">{}</span>').format("false" if said.instead else said.origin)
    return Markup(
        '<div class="claim" id="{id}"><p class="said"><code>{name}</code> {title} {mark}</p>{text}{about}</div>'
    ).format(
        id=name.lower(), name=name, title=to_html(said.title), mark=mark,
        text=Markup("<p>{}</p>").format(to_html(said.text)) if said.text else "",
        about=Markup("<p class=\"about\">{}</p>").format(Markup(" · ").join(about)) if about else "",
    )  # fmt: skip


def paper_page(readme: str, source: str) -> str:
    """A paper's README, its findings as blocks, and what its claims say."""
    found = findings_of(readme)
    if found:
        before, rest = readme.split(START)
        table, after = rest.split(END)
        lead = table.strip().split("\n")[0]
        readme = "\n\n".join([before.rstrip(), lead, *(_card(f) for f in found), after.lstrip()])
    claims = claims_of(source)
    listed = "\n\n".join(_claim(name, said) for name, said in claims.items())
    return f"{readme.rstrip()}\n\n## What is claimed\n\n{len(claims)} claims, as `claims.py` states them.\n\n{listed}\n"


def findings_page(texts: dict[str, str]) -> str:
    """All papers' findings on one page; ``texts``: README by slug."""
    found = {slug: findings_of(text) for slug, text in texts.items()}
    origins = Counter(f.origin for rows in found.values() for f in rows)
    words = ", ".join(f"{origins[o]} {ORIGINS[o]}" for o in ORIGINS if origins[o])
    parts = [
        "# Findings",
        f"{sum(origins.values())} statements that klsim refutes: {words}. Each has a counterexample that its paper's "
        "command finds again, and what holds instead, with the claims that show it. Nothing is called printed that no "
        "paper prints. [How verdicts are made](verdicts.md) says what a refutation is worth.",
    ]
    for slug, rows in found.items():
        if rows:
            parts += [f"## {slug}", f"[The paper's page](papers/{slug}.md); `klsim verify {slug}`."]
            parts += [_card(f, f"papers/{slug}.html#{f.claim.strip('`').replace('/', '-').lower()}") for f in rows]
    return "\n\n".join(parts) + "\n"


def papers_index(texts: dict[str, str], sources: dict[str, str]) -> str:
    """The list of papers."""
    lines = [
        "# Papers", "",
        "Every paper is a folder that verifies itself: `klsim verify SLUG`, `klsim reproduce SLUG`.", "",
        "| paper | title | claims | false statements |", "|---|---|---|---|",
    ]  # fmt: skip
    for slug, text in texts.items():
        title = escape(text.split("\n", 1)[0].lstrip("# ").partition(" — ")[2])
        claims, found = len(claims_of(sources[slug])), len(findings_of(text))
        lines.append(f"| [`{slug}`]({slug}.md) | {title} | {claims} | {found or ''} |")
    return "\n".join(lines) + "\n"
