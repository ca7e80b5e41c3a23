"""Tables and progress bars in the terminal; plain text, and lines for bars, when it is not one."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from klsim.report.markup import escape
from klsim.report.verdicts import word_of

if TYPE_CHECKING:
    from klsim.report.compare import Difference
    from klsim.report.figures import Drawn

__all__ = [
    "Advance",
    "explanation",
    "progress",
    "show_certificate",
    "show_differences",
    "show_drawn",
    "show_list",
    "show_objectives",
    "show_training",
]

# Symbol, word and colour: never colour alone.
_BADGES = {
    "holds": "[green]✓ holds[/]",
    "proven": "[green]✓ proven[/]",
    "refuted": "[red]✗ refuted[/]",
    "not_shown": "[yellow]– not shown[/]",
    "error": "[red]! error[/]",
    "not_run": "[dim]· not run[/]",
    "skipped": "[yellow]· skipped[/]",
    "vacuous": "[red]○ vacuous[/]",
}


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, emoji=False, width=160)
    return console


class Advance:
    """Moves a progress bar: call it when a task is done; `describe` names what is going on.

    Where there is no bar, a plain line says how far it is, at most one in ten seconds.
    """

    def __init__(self, bar: Progress, label: str, total: int) -> None:
        self._bar, self._task, self._label = bar, bar.add_task(label, total=total), label
        self._total, self._done, self._said = total, 0, time.monotonic()

    def __call__(self, name: str) -> None:
        self.step()
        self.describe(name)

    def step(self) -> None:
        self._done += 1
        self._bar.update(self._task, advance=1)

    def to(self, done: int, total: int, name: str) -> None:
        """So many of so many, where the total was not known before."""
        self._done, self._total = done, total
        self._bar.update(self._task, completed=done, total=total)
        self.describe(name)

    def describe(self, name: str) -> None:
        shown = name if len(name) <= 60 else name[:57] + "…"
        self._bar.update(self._task, description=f"{self._label} [dim]{escape(shown)}[/]")
        if self._bar.disable and time.monotonic() - self._said >= _BETWEEN_LINES:
            self._said = time.monotonic()
            self._bar.console.print(f"{self._label} {self._done}/{self._total} {escape(shown)}")


_BETWEEN_LINES = 10.0  # seconds


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """A bar on standard error while the block runs; plain lines when that is not a terminal."""
    console = _console(stderr=True)
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Advance(bar, label, total)


def show_list(rows: Sequence[dict[str, Any]]) -> None:
    """The table of ``klsim list``."""
    console = _console()
    for row in rows:
        table = Table(title=f"{row['slug']}: {escape(row['title'])}", title_justify="left", title_style="bold")
        table.add_column("claim", no_wrap=True)
        table.add_column("statement")
        table.add_column("expected", no_wrap=True)
        for name, claim in row["claims"].items():
            table.add_row(f"{row['slug']}/{name}", escape(claim["title"]), claim["expect"].replace("_", " "))
        console.print(table)
        if row["figures"]:
            console.print(f"figures: {escape(', '.join(row['figures']))}\n")


def show_certificate(certificate: dict[str, Any]) -> None:
    """A table a paper, then what is not as expected, then one line."""
    console = _console()
    for paper in certificate["papers"]:
        console.print(_paper_table(paper))
    for paper in certificate["papers"]:
        for claim in paper["claims"]:
            if not claim["as_expected"]:
                _explain(console, paper, claim)
    console.print(_total(certificate))


def explanation(certificate: dict[str, Any]) -> str:
    """Every claim that is not as expected, with its counterexample, as plain text; empty if all are."""
    text = io.StringIO()
    console = Console(file=text, width=120, color_system=None, highlight=False, emoji=False)
    for paper in certificate["papers"]:
        for claim in paper["claims"]:
            if not claim["as_expected"]:
                _explain(console, paper, claim)
    return text.getvalue().strip()


def _total(certificate: dict[str, Any]) -> str:
    t = certificate["totals"]
    colour = "green" if certificate["as_expected"] else "red"
    state = "" if certificate["complete"] else " (interrupted: not everything was run)"
    refuted = ", ".join(f"{n} {origin}" for origin, n in t["refuted_by_origin"].items()) or "none"
    seeds = certificate["seeds"]
    at = f"seed {seeds[0]}" if len(seeds) == 1 else f"worst of {len(seeds)} seeds ({seeds[0]}…{seeds[-1]})"
    parts = [
        f"[{colour}]{t['as_expected']} of {t['claims']} claims as expected[/]{state}",
        f"{t['told_apart']} of {t['controls']} controls told apart",
        f"{t['refuted']} statements refuted ({refuted})",
    ]
    if t["uncontrolled"]:
        parts.append(f"{t['uncontrolled']} checks without a control (reasons in the report)")
    if t["skipped"]:
        parts.append(f"[yellow]{t['skipped']} skipped, see above[/]")
    return ", ".join(parts) + f"; {at}, {certificate['seconds']:.0f} s"


def _paper_table(paper: dict[str, Any]) -> Table:
    table = Table(title=f"{paper['slug']}: {escape(paper['title'])}", title_justify="left", title_style="bold")
    table.add_column("claim", no_wrap=True)
    table.add_column("statement", ratio=3)
    table.add_column("verdict", no_wrap=True)
    table.add_column("worst case", ratio=3)
    table.add_column("controls", justify="right", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    for claim in paper["claims"]:
        controls = [k for check in claim["checks"] for k in check["controls"]]
        told = f"{sum(k['passed'] for k in controls)}/{len(controls)}"
        badge = _BADGES[word_of(claim)]
        badge += "" if claim["as_expected"] else " [red](unexpected)[/]"
        if claim["unexpected_at"] and claim["of_seeds"] > 1:
            badge += f" at {len(claim['unexpected_at'])} of {claim['of_seeds']} seeds"
        elif claim["expect"] == "open":
            badge += " [dim](open)[/]"
        worst = escape(_deciding(claim)["summary"])
        table.add_row(claim["id"], escape(claim["title"]), badge, worst, told, f"{claim['seconds']:.1f}")
    return table


def _deciding(claim: dict[str, Any]) -> dict[str, Any]:
    """The check that made the verdict; of several that hold, the one nearest to its tolerance."""

    def severity(check: dict[str, Any]) -> tuple[bool, float]:
        measured = check["measured"]
        allowed = measured.get("tolerance") or 1.0
        error = measured.get("worst_error", 0.0)
        return check["verdict"] == claim["verdict"], float(error) / allowed

    return max(claim["checks"], key=severity)


def _explain(console: Console, paper: dict[str, Any], claim: dict[str, Any]) -> None:
    from klsim.claims.counterexample import script

    name = f"{paper['slug']}/{claim['id']}"
    verdict = claim["verdict"].replace("_", " ")
    got = f"expected {claim['expect']}, got {verdict}" if verdict != claim["expect"] else f"{verdict}, but vacuous"
    console.print(f"\n[bold]{name}[/] {escape(claim['title'])}: {got} (seed {claim['seed']})")
    for reason in claim["vacuous"]:
        console.print(f"  {escape(reason)}")
    if verdict == claim["expect"]:
        return
    for check in claim["checks"]:
        if check["verdict"] not in ("holds", "not_run") or claim["expect"] == "refuted":
            console.print(f"  {check['name']} ({check['kind']}): {escape(check['summary'])}")
        if check["python"] and check["verdict"] == "refuted" and claim["expect"] != "refuted":
            text = script(paper["folder"], claim["id"], check["name"], check["python"])
            console.print("  minimal counterexample:\n", style="dim")
            console.print(escape("".join(f"    {line}\n" for line in text.splitlines())), soft_wrap=True)
        if check["error"]:
            console.print(escape(check["error"]), style="red")
            if check["python"]:
                console.print(f"  at {escape(check['python'])}", soft_wrap=True)
        for control in check["controls"]:
            if control["error"]:
                console.print(f"  control {escape(control['name'])!r}:\n{escape(control['error'])}", style="red")


def show_drawn(drawn: Sequence[Drawn]) -> None:
    """One line a failed figure, and a total."""
    console = _console()
    for figure in drawn:
        if figure.error:
            console.print(f"[red]figure {figure.slug}/{figure.name} failed[/]\n{escape(figure.error)}")
        if figure.skipped:
            console.print(f"[yellow]figure {figure.slug}/{figure.name} skipped[/]: {escape(figure.skipped)}")
    if drawn:
        wanted = [f for f in drawn if not f.skipped]
        console.print(f"{sum(not f.error for f in wanted)} of {len(wanted)} figures drawn")


def show_differences(compared: int, differences: Sequence[Difference], committed: str) -> None:
    """How many figures were compared with the committed ones, and which differ by more than their tolerance."""
    console = _console()
    for d in differences:
        console.print(f"[yellow]{escape(d.figure)} differs[/] from {escape(committed)}: {escape(d.what)}")
    same = compared - len(differences)
    console.print(f"{same} of {compared} figures as committed in {escape(committed)}, to their tolerance")


def show_objectives(rows: Sequence[Any]) -> None:
    """What each objective is the gradient of, and its bias."""
    from klsim.report.objectives import end_cell, gradient_cell

    ends = any(row.end for row in rows)
    table = Table("objective", "loss gradient, on-policy", "off-policy", "bias", *(["ends at"] if ends else []))
    family = ""
    for row in rows:
        if row.objective.family != family:
            family = row.objective.family
            table.add_section()
            table.add_row(f"[bold]{escape(family)}[/]")
        name = row.objective.name if row.as_claimed else f"{row.objective.name} ✗"
        cells = (name, gradient_cell(row.on_policy), gradient_cell(row.off_policy), row.objective.bias)
        table.add_row(*map(escape, cells), *([escape(end_cell(row.end))] if ends else []))
    _console().print(table)
    missed = [row.objective.name for row in rows if not row.as_claimed]
    claims = sum(row.on_policy.claimed is not None for row in rows)
    end = f"not as claimed: {', '.join(missed)}" if missed else "all as claimed"
    _console().print(f"{len(rows)} objectives, {claims} on-policy claims: {escape(end)}")


def show_training(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """How every stage of ``klsim train`` answers: ``stage -> task -> evaluation``."""
    table = Table("stage", "task", "greedy", "accuracy", "pass@k", "KL, nats", "entropy, nats", title="evaluation")

    def interval(e: Mapping[str, float]) -> str:
        return f"{e['value']:.3f} [dim]\\[{e['low']:.3f}, {e['high']:.3f}][/]"

    for stage, tasks in results.items():
        for task, found in tasks.items():
            k, best = max(found["pass_at_k"].items(), key=lambda item: int(item[0]))
            kl = ", ".join(f"{name} {interval(e['k1'])}" for name, e in found["kl"].items())
            row = (interval(found["greedy"]), interval(found["accuracy"]), f"{k}: {interval(best)}", kl)
            table.add_row(escape(stage), escape(task), *row, f"{found['entropy']['value']:.3f}")
    _console().print(table)
