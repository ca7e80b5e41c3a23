"""The frontier's results in the terminal and on a page: their tables, their figures, and one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klsim.frontier import Frontier, Result
from klsim.frontier.plot import columns, draw
from klsim.report import figures
from klsim.report.html import write_frontier

__all__ = ["BETA", "TRAINERS", "figure_of", "points_of", "show", "write_page"]

BETA = "beta is that of reward - beta KL(policy, reference) of whole responses and raw rewards"
TRAINERS = (
    "TRL: RLOOConfig(beta=…); verl: algorithm.adv_estimator=rloo, algorithm.use_kl_in_reward=True, "
    "algorithm.kl_penalty=kl, "
    "algorithm.kl_ctrl.kl_coef=…, actor.loss_agg_mode=seq-mean-token-sum. GRPO divides rewards by their group's spread "
    "and the "
    "KL by tokens: its beta is another (klsim audit 'trl:grpo?beta=0.1')"
)


def _line(result: Result) -> str:
    return str(getattr(result, "recommendation", "") or getattr(result, "verdict", ""))


def show(results: Mapping[str, Result], notes: Sequence[str]) -> None:
    """Print tables, notes, and the line of each result."""
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=160)
    for result in results.values():
        if isinstance(result, Frontier):
            console.print(escape(_about(result)))
        for shown in result.shown():
            table = Table(*map(escape, shown.columns), title=escape(shown.title), title_justify="left")
            for row in shown.rows():
                table.add_row(*map(escape, row))
            console.print(table)
            if shown.note:
                console.print(f"[dim]{escape(shown.note)}[/]")
    for note in notes:
        console.print(f"[yellow]note[/]: {escape(note)}")
    if "frontier" in results or "forecast" in results:
        console.print(f"[dim]{escape(BETA)}. {escape(TRAINERS)}[/]")
    for result in results.values():
        if line := _line(result):
            console.print(f"[bold]{escape(line)}[/]")


def _about(found: Frontier) -> str:
    fewest, most = found.samples_a_prompt
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return (
        f"{found.samples:,} samples of {found.prompts:,} prompts, {each} each; {found.level:.0%} intervals over prompts"
    )


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
        answers.append({"name": name, "line": _line(result), "tables": result.shown(), **drawn})
    about = {"source": source, "notes": notes, "beta": BETA, "trainers": TRAINERS, "sizes": ""}
    first = next(iter(results.values()))
    if isinstance(first, Frontier):
        about["sizes"] = _about(first)
    return write_frontier(answers, about, out)


def _draw(result: Any, file: Path) -> None:
    panels = 2 if type(result).__name__ == "Gold" else 1
    size = (9.0, 4.2) if panels == 2 else (7.0, 4.2)
    figures.save_figure([file], lambda canvas: result.plot(canvas.subplots(1, panels)), size)
