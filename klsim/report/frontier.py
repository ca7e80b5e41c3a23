"""The frontier's results in the terminal: their tables, and one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from klsim.frontier import Frontier, Result
from klsim.report.markup import escape

__all__ = ["BETA", "TRAINERS", "about", "line_of", "show"]

BETA = "beta is that of reward - beta KL(policy, reference) of whole responses and raw rewards"
"""Which beta is meant, in words."""
TRAINERS = (
    "TRL: RLOOConfig(beta=…); verl: algorithm.adv_estimator=rloo, algorithm.use_kl_in_reward=True, "
    "algorithm.kl_penalty=kl, "
    "algorithm.kl_ctrl.kl_coef=…, actor.loss_agg_mode=seq-mean-token-sum. GRPO divides rewards by their group's spread "
    "and the "
    "KL by tokens: its beta is another (klsim audit 'trl:grpo?beta=0.1')"
)
"""How that beta is given to trainers, in words."""


def line_of(result: Result) -> str:
    """What the result recommends or finds, in one line."""
    return str(getattr(result, "recommendation", "") or getattr(result, "verdict", ""))


def show(results: Mapping[str, Result], notes: Sequence[str]) -> None:
    """Print tables, notes, and the line of each result."""
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=160)
    for result in results.values():
        if isinstance(result, Frontier):
            console.print(escape(about(result)))
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
        if line := line_of(result):
            console.print(f"[bold]{escape(line)}[/]")


def about(found: Frontier) -> str:
    """How many samples of how many prompts."""
    fewest, most = found.samples_a_prompt
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return (
        f"{found.samples:,} samples of {found.prompts:,} prompts, {each} each; {found.level:.0%} intervals over prompts"
    )
