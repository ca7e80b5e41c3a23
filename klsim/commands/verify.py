"""What ``klsim verify`` and ``klsim reproduce`` share. Heavy imports happen when they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from klsim.claims.loader import Selection

__all__ = [
    "COUNTEREXAMPLES",
    "changed_claims",
    "exit_code",
    "jobs_for",
    "run_claims",
    "seed_range",
    "show_certificate",
    "write_certificate",
]

COUNTEREXAMPLES = Path("counterexamples")
"""Folder of saved counterexamples."""


def changed_claims(claims: list[Selection], file: Path, seeds: list[int], examples: int) -> list[Selection]:
    """The claims for which the certificate in ``file`` does not speak, or speaks badly."""
    from klsim.claims import certificate as certificates
    from klsim.claims.loader import Selection
    from klsim.claims.sources import unchanged

    if not file.exists():
        return claims
    old = certificates.read(file)
    kept = {(p["slug"], c["id"]): c for p, c in certificates.claims_of(old) if old["seeds"] == seeds}

    def fine(selection: Selection, id: str) -> bool:
        record = kept.get((selection.paper.slug, id))
        if record is None or record["examples"] != examples or not record["as_expected"]:
            return False
        return record["verdict"] not in ("not_run", "skipped") and unchanged(record, selection.folder)

    left = [(s, tuple(c for c in s.claims if not fine(s, c.id))) for s in claims]
    return [Selection(s.paper, s.folder, some) for s, some in left if some]


def seed_range(text: str) -> list[int]:
    """The seeds of ``FIRST:END``."""
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise ValueError(f"--seeds {text}: must be FIRST:END with FIRST < END, 0:10 for 0 to 9")
    return list(range(int(first), int(end)))


def exit_code(certificate: dict[str, Any]) -> int:
    """3 if a claim crashed, 1 if one is not as expected."""
    if any(c["verdict"] == "error" for p in certificate["papers"] for c in p["claims"]):
        return 3
    return 0 if certificate["as_expected"] else 1


def write_certificate(found: dict[str, Any], file: Path) -> str:
    """Write a certificate; claims that the file holds and this run did not cover stay in it. Says so."""
    from klsim.claims import certificate as certificates

    covered = sum(len(p["claims"]) for p in found["papers"])
    try:
        merged = certificates.merge(certificates.read(file), certificates.jsonable(found))
    except (FileNotFoundError, ValueError):  # none there, or none of this version
        merged = found
    kept = sum(len(p["claims"]) for p in merged["papers"]) - covered
    certificates.write(merged, file)
    return f" ({covered} claims of this run, {kept} kept from earlier ones)" if kept else ""


def run_claims(
    claims: list[Selection],
    seeds: list[int],
    examples: int,
    jobs: int | None,
    scheduler: str | None,
    fail_fast: bool = False,
) -> dict[str, Any]:
    """Verify with a progress bar; the certificate."""
    from klsim.claims import runner
    from klsim.claims.search import Strength
    from klsim.report import terminal

    units = runner.units_of(claims, seeds, Strength.of(examples))
    with terminal.progress("verify", len(units)) as advance:
        return runner.verify(
            *claims,
            seeds=seeds,
            examples=examples,
            jobs=jobs_for(jobs, len(units)),
            scheduler=scheduler,
            fail_fast=fail_fast,
            on_done=lambda unit, outcome: advance(unit.name),
        )


def jobs_for(asked: int | None, tasks: int) -> int:
    """All cores unless asked otherwise; few tasks are not worth starting workers."""
    if asked is not None:
        return asked
    return 1 if tasks < 8 else -1


def show_certificate(certificate: dict[str, Any]) -> None:
    """Save counterexamples; print tables, and what is not as expected."""
    from klsim.claims import counterexample
    from klsim.report import terminal

    saved = counterexample.save_all(certificate, COUNTEREXAMPLES)
    terminal.show_certificate(certificate)
    if saved:
        typer.echo(f"counterexamples: {len(saved)} in {COUNTEREXAMPLES}/ (klsim replay FILE)")
