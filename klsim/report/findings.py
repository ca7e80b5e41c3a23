"""The findings table: statements that are false, from a certificate, never typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from klsim.claims.certificate import findings, totals
from klsim.claims.statement import ORIGINS
from klsim.files import write_atomically
from klsim.report.prose import to_markdown

__all__ = ["END", "START", "findings_markdown", "update_readme"]

START, END = "<!-- findings:start -->", "<!-- findings:end -->"
"""Marks where the table of false statements begins in a README."""
"""Marks where the table of false statements ends in a README."""


def findings_markdown(certificate: Mapping[str, Any], slug: str | None = None) -> str:
    """A Markdown table: claim, statement, who says so, what klsim found, what holds instead; of one paper if asked."""
    found = [f for f in findings(certificate) if slug in (None, f["paper"]["slug"])]
    if not found:
        return "None.\n"
    lines = ["| claim | statement | origin | counterexample | what holds |", "|---|---|---|---|---|"]
    for finding in found:
        paper, claim = finding["paper"], finding["claim"]
        refuted = next(c for c in claim["checks"] if c["verdict"] == "refuted")
        by = f" ({', '.join(claim['correction_by'])})" if claim["correction_by"] else " (not proven here)"
        cells = (
            f"`{paper['slug']}/{claim['id']}`",
            to_markdown(claim["title"]),
            claim["origin"],
            to_markdown(refuted["summary"]),
            to_markdown(claim["correction"]) + by,
        )
        lines.append("| " + " | ".join(cells) + " |")
    counts = totals(certificate)["refuted_by_origin"] if slug is None else _origins(found)
    words = ", ".join(f"{n} {ORIGINS[origin]}" for origin, n in counts.items())
    return f"{len(found)} statements: {words}.\n\n" + "\n".join(lines) + "\n"


def _origins(found: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for finding in found:
        origin = finding["claim"]["origin"]
        counts[origin] = counts.get(origin, 0) + 1
    return counts


def update_readme(readme: Path, certificate: Mapping[str, Any]) -> None:
    """Replace what stands between the two markers of ``readme``; everything else stays.

    In the folder of a paper of the certificate the table is that paper's, elsewhere that of all.

    Raises:
        ValueError: a marker is missing, doubled or out of order. FileNotFoundError: no such file.
    """
    text = readme.read_text(encoding="utf-8")
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"{readme}: needs the markers {START} and {END}, once each and in this order")
    before, rest = text.split(START)
    _, after = rest.split(END)
    folders = {Path(p["folder"]).resolve(): p["slug"] for p in certificate["papers"]}
    table = findings_markdown(certificate, folders.get(readme.resolve().parent))
    write_atomically(readme, f"{before}{START}\n\n{table}\n{END}{after}")
