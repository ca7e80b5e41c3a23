"""The findings table: statements refuted as printed, from a certificate, never typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from klsim.claims.certificate import findings
from klsim.files import write_atomically
from klsim.report.prose import to_markdown

__all__ = ["END", "START", "findings_markdown", "update_readme"]

START, END = "<!-- findings:start -->", "<!-- findings:end -->"


def findings_markdown(certificate: Mapping[str, Any]) -> str:
    """A Markdown table: claim, statement as printed, what klsim found, what holds instead."""
    lines = ["| claim | as printed | counterexample | what holds |", "|---|---|---|---|"]
    for found in findings(certificate):
        paper, claim = found["paper"], found["claim"]
        refuted = next(c for c in claim["checks"] if c["verdict"] == "refuted")
        cells = (
            f"`{paper['slug']}/{claim['id']}`",
            to_markdown(claim["title"]),
            to_markdown(refuted["summary"]),
            to_markdown(claim["correction"]),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def update_readme(readme: Path, certificate: Mapping[str, Any]) -> None:
    """Replace what stands between the two markers of ``readme``; everything else stays.

    Raises:
        ValueError: a marker is missing, doubled or out of order. FileNotFoundError: no such file.
    """
    text = readme.read_text(encoding="utf-8")
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"{readme}: needs the markers {START} and {END}, once each and in this order")
    before, rest = text.split(START)
    _, after = rest.split(END)
    write_atomically(readme, f"{before}{START}\n\n{findings_markdown(certificate)}\n{END}{after}")
