"""``klsim objectives``: the table of what every loss is the gradient of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

__all__ = ["list_objectives", "measure_objectives"]


def list_objectives(names: Sequence[str], as_json: bool) -> None:
    """The names, family by family."""
    from klsim.objectives.registry import OBJECTIVES
    from klsim.objectives.selection import choose

    chosen = [OBJECTIVES[name] for name in choose(names)]
    if as_json:
        typer.echo(json.dumps([{"name": o.name, "family": o.family, "source": o.source} for o in chosen], indent=1))
        return
    family = ""
    for objective in chosen:
        if objective.family != family:
            family = objective.family
            typer.echo(family)
        typer.echo(f"  {objective.name}  ({objective.source})")


def measure_objectives(
    names: Sequence[str],
    *,
    seeds: int,
    end_points: bool,
    write: bool,
    as_json: bool,
    jobs: Callable[[int], int],
    scheduler: str | None,
) -> int:
    """Measure, print, and with ``write`` update the documentation; returns the exit code.

    Args:
        jobs: number of workers for a number of tasks.

    Raises:
        ValueError: an unknown name; names together with ``write``.
    """
    from klsim.objectives.selection import choose
    from klsim.report import objectives as page
    from klsim.report import terminal

    if write and names:
        raise ValueError("--write covers all objectives; give no names")
    chosen = choose(names)
    workers = jobs(len(chosen))
    with terminal.progress("objectives", len(chosen)) as advance:
        rows = page.measure(
            chosen, seeds=seeds, end_points=end_points or write, jobs=workers, scheduler=scheduler, on_done=advance
        )
    if as_json:
        typer.echo(json.dumps(page.as_json(rows), indent=1, ensure_ascii=False))
    else:
        terminal.show_objectives(rows)
    if write:
        with terminal.progress("curves", sum(map(len, page.CURVES.values()))) as advance:
            files = page.draw_curves(Path("figures"), jobs=workers, scheduler=scheduler, on_done=advance)
        page.update_docs(Path("docs") / "objectives.md", rows, seeds)
        typer.echo(f"written: docs/objectives.md, figures/{files[0]}", err=as_json)
    return 0 if all(row.as_claimed for row in rows) else 1
