"""The findings table: statements that are false, from a certificate, never typed by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from klsim.claims.certificate import findings, totals
from klsim.claims.statement import ORIGINS
from klsim.files import write_atomically
from klsim.report.prose import to_markdown

__all__ = ["END", "START", "findings_markdown", "update_readme"]

START = "<!-- findings:start -->"
"""Marks where the table of false statements begins in a README."""
END = "<!-- findings:end -->"
"""Marks where the table of false statements ends in a README."""
_START = re.compile(r"<!-- findings:start(?::([^>]*?))? -->")


def findings_markdown(certificate: Mapping[str, Any], slug: str | None = None, only: Sequence[str] = ()) -> str:
    """A Markdown table: claim, statement, who says so, what klsim found, what holds instead; of one paper if asked.

    ``only``: these claims (``slug/id``), in this order, without the counterexample.

    Raises:
        ValueError: ``only`` names a claim that is no finding.
    """
    found = {f"{f['paper']['slug']}/{f['claim']['id']}": f for f in findings(certificate)}
    if only:
        if unknown := [name for name in only if name not in found]:
            raise ValueError(f"{unknown[0]} is not among the refuted statements")
        rows = [_cells(found[name]) for name in only]
        return _table(("claim", "statement", "origin", "what holds"), [(*row[:3], row[4]) for row in rows]) + "\n"
    chosen = [f for f in found.values() if slug in (None, f["paper"]["slug"])]
    if not chosen:
        return "None.\n"
    counts = totals(certificate)["refuted_by_origin"] if slug is None else _origins(chosen)
    words = ", ".join(f"{n} {ORIGINS[origin]}" for origin, n in counts.items())
    table = _table(("claim", "statement", "origin", "counterexample", "what holds"), [_cells(f) for f in chosen])
    return f"{len(chosen)} statements: {words}.\n\n{table}\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _cells(finding: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    paper, claim = finding["paper"], finding["claim"]
    refuted = next(c for c in claim["checks"] if c["verdict"] == "refuted")
    by = f" ({', '.join(claim['correction_by'])})" if claim["correction_by"] else " (not proven here)"
    return (
        f"`{paper['slug']}/{claim['id']}`",
        to_markdown(claim["title"]),
        claim["origin"],
        to_markdown(refuted["summary"]),
        to_markdown(claim["correction"]) + by,
    )


def _origins(found: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for finding in found:
        origin = finding["claim"]["origin"]
        counts[origin] = counts.get(origin, 0) + 1
    return counts


def update_readme(readme: Path, certificate: Mapping[str, Any]) -> None:
    """Replace what stands between the two markers of ``readme``; everything else stays.

    In the folder of a paper of the certificate the table is that paper's, elsewhere that of all; ``<!-- findings:start:
    gopd/C2-printed … -->`` asks for some.

    Raises:
        ValueError: a marker is missing, doubled or out of order; a claim that is no finding. FileNotFoundError: no such
            file.
    """
    text = readme.read_text(encoding="utf-8")
    starts = list(_START.finditer(text))
    if len(starts) != 1 or text.count(END) != 1 or starts[0].start() > text.index(END):
        raise ValueError(f"{readme}: needs the markers {START} and {END}, once each and in this order")
    before, after = text[: starts[0].end()], text[text.index(END) :]
    folders = {Path(p["folder"]).resolve(): p["slug"] for p in certificate["papers"]}
    only = (starts[0][1] or "").split()
    try:
        table = findings_markdown(certificate, folders.get(readme.resolve().parent), only)
    except ValueError as error:
        raise ValueError(f"{readme}: {error}") from None
    write_atomically(readme, f"{before}\n\n{table}\n{after}")
