"""``klsim dev``: measures again what pages of the documentation say, and rewrites them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["COMMANDS", "coverage", "gallery", "objectives"]

Jobs = Annotated[int, typer.Option("--jobs", "-j", help="Worker processes; -1 is one a core.")]
Seed = Annotated[int, typer.Option(help="All randomness follows from it.", min=0)]


def objectives(
    seeds: Annotated[int, typer.Option(help="Random token trees for every objective.", min=1)] = 20,
    jobs: Jobs = -1,
) -> None:
    """Measure all objectives, with their fixed points; write docs/objectives.md and figures/objectives/."""
    from klsim.commands.objectives import write_objectives

    raise typer.Exit(write_objectives(seeds, jobs))


def gallery(
    page: Annotated[
        Path | None, typer.Option("--report", metavar="FOLDER", help="Also write FOLDER/audit.html.")
    ] = None,
    jobs: Jobs = -1,
) -> None:
    """Audit the losses of the installed trainers; write docs/audit-gallery.md."""
    from klsim.commands.audit import audit_gallery

    audit_gallery(page, jobs)


def coverage(
    replicates: Annotated[int, typer.Option(help="Simulated files.", min=2)] = 400,
    seed: Seed = 0,
    jobs: Jobs = -1,
) -> None:
    """Simulate whether the frontier's intervals cover; write docs/frontier-coverage.md."""
    from klsim.commands.frontier import write_coverage

    write_coverage(replicates, seed, jobs)


COMMANDS = (objectives, gallery, coverage)
"""The subcommands of ``klsim dev``."""
