"""The frontier's results in files: points, figures, and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from klsim.frontier import Frontier, Result
from klsim.frontier.plot import columns, draw
from klsim.report import figures
from klsim.report.frontier import BETA, TRAINERS, about, line_of
from klsim.report.html import write_frontier

__all__ = ["figure_of", "points_of", "write_page"]


def points_of(found: Frontier) -> figures.Table:
    """What the frontier's figure shows."""
    return figures.Table(columns(found))


def figure_of(found: Frontier, files: Sequence[Path]) -> None:
    """Write the frontier's figure."""
    figures.save_figure(files, lambda canvas: draw(columns(found), canvas.subplots(), found.level))


def write_page(results: Mapping[str, Result], notes: Sequence[str], source: str, seed: int, out: Path) -> Path:
    """Write ``out/frontier.html`` and its figures below ``out/frontier/``; returns the page."""
    answers = []
    for name, result in results.items():
        drawn = {"svg": f"frontier/{name}.svg", "csv": ""}
        if isinstance(result, Frontier):
            level = result.level

            def drawing(table: Any, canvas: Any, level: float = level) -> None:
                draw(table, canvas.subplots(), level)

            made = figures.Figure(name, "KL-reward frontier", source, (7.0, 4.2), lambda run: {}, drawing)
            figures.write_figure(made, points_of(result), out, Path("frontier"), figures.Run(seed))
            drawn["csv"] = f"frontier/{name}.csv"
        else:
            _draw(result, out / "frontier" / f"{name}.svg")
        answers.append({"name": name, "line": line_of(result), "tables": result.shown(), **drawn})
    described = {"source": source, "notes": notes, "beta": BETA, "trainers": TRAINERS, "sizes": ""}
    first = next(iter(results.values()))
    if isinstance(first, Frontier):
        described["sizes"] = about(first)
    return write_frontier(answers, described, out)


def _draw(result: Any, file: Path) -> None:
    panels = 2 if type(result).__name__ == "Gold" else 1
    size = (9.0, 4.2) if panels == 2 else (7.0, 4.2)
    figures.save_figure([file], lambda canvas: result.plot(canvas.subplots(1, panels)), size)
