"""``klsim objectives``: the table of what every loss is the gradient of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

__all__ = ["list_objectives", "measure_objectives"]


def list_objectives(names: Sequence[str], as_json: bool) -> None:
    """The losses with their options and defaults, then the rows of the table, family by family, with their addresses.

    Raises:
        ValueError: an unknown name.
    """
    from klsim.objectives.registry import LOSSES, OBJECTIVES, address
    from klsim.objectives.selection import choose

    losses = [loss for name, loss in LOSSES.items() if not names or name in names]
    others = [name for name in names if name not in LOSSES]
    chosen = [OBJECTIVES[name] for name in choose(names if others or not losses else [])]
    if names and not others:
        chosen = [o for o in chosen if o.options[0] in names]
    rows = [{"name": o.name, "family": o.family, "source": o.source, "address": address(*o.options)} for o in chosen]
    if as_json:
        typer.echo(json.dumps({"losses": [loss.signature for loss in losses], "rows": rows}, indent=1))
        return
    typer.echo("losses: NAME?option=value, for klsim audit klsim:NAME and for the objective of klsim train")
    for loss in losses:
        typer.echo(f"  {loss.signature}")
    family = ""
    typer.echo("rows of the table: name (source), and the loss that it measures")
    for row in rows:
        if row["family"] != family:
            family = row["family"]
            typer.echo(family)
        typer.echo(f"  {row['name']}  ({row['source']})" + (f"  {row['address']}" if row["address"] else ""))


def measure_objectives(
    names: Sequence[str],
    *,
    seeds: int,
    end_points: bool,
    as_json: bool,
    jobs: Callable[[int], int],
    scheduler: str | None,
) -> int:
    """Measure and print; returns the exit code.

    Args:
        jobs: number of workers for a number of tasks.

    Raises:
        ValueError: an unknown name.
    """
    from klsim.objectives.selection import choose
    from klsim.report import objectives as page
    from klsim.report import terminal

    chosen = choose(names)
    with terminal.progress("objectives", len(chosen)) as advance:
        rows = page.measure(
            chosen, seeds=seeds, end_points=end_points, jobs=jobs(len(chosen)), scheduler=scheduler, on_done=advance
        )
    if as_json:
        typer.echo(json.dumps(page.as_json(rows), indent=1, ensure_ascii=False))
    else:
        terminal.show_objectives(rows)
    return 0 if all(row.as_claimed for row in rows) else 1


def write_objectives(seeds: int, jobs: int) -> int:
    """Measure all, and write their page and figures; returns the exit code."""
    from klsim.objectives.selection import choose
    from klsim.report import objectives as page
    from klsim.report import terminal

    chosen = choose([])
    with terminal.progress("objectives", len(chosen)) as advance:
        rows = page.measure(chosen, seeds=seeds, end_points=True, jobs=jobs, scheduler=None, on_done=advance)
    terminal.show_objectives(rows)
    page.update_docs(Path("docs") / "objectives.md", rows, seeds)
    with terminal.progress("curves", sum(map(len, page.CURVES.values()))) as advance:
        files = page.draw_curves(Path("figures"), jobs=jobs, scheduler=None, on_done=advance)
    typer.echo(f"written: docs/objectives.md, figures/{files[0]}")
    return 0 if all(row.as_claimed for row in rows) else 1
