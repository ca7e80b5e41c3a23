"""Tables and progress bars in the terminal; plain text without bars when it is not one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from klsim.report.figures import Drawn

__all__ = [
    "Advance",
    "progress",
    "show_certificate",
    "show_drawn",
    "show_frontier",
    "show_list",
    "show_objectives",
    "show_training",
]

# Symbol, word and colour: never colour alone.
_BADGES = {
    "holds": "[green]✓ holds[/]",
    "refuted": "[red]✗ refuted[/]",
    "not_shown": "[yellow]– not shown[/]",
    "error": "[red]! error[/]",
    "not_run": "[dim]· not run[/]",
    "skipped": "[yellow]· skipped[/]",
}


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, emoji=False, width=160)
    return console


class Advance:
    """Moves a progress bar: call it when a task is done; `describe` names what is going on."""

    def __init__(self, bar: Progress, task: Any, label: str) -> None:
        self._bar, self._task, self._label = bar, task, label

    def __call__(self, name: str) -> None:
        self.step()
        self.describe(name)

    def step(self) -> None:
        self._bar.update(self._task, advance=1)

    def describe(self, name: str) -> None:
        shown = name if len(name) <= 60 else name[:57] + "…"
        self._bar.update(self._task, description=f"{self._label} [dim]{escape(shown)}[/]")


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """A bar on standard error while the block runs; nothing when that is not a terminal."""
    console = _console(stderr=True)
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Advance(bar, bar.add_task(label, total=total), label)


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
    every = [c for p in certificate["papers"] for c in p["claims"]]
    claims = [c for c in every if c["verdict"] != "skipped"]
    controls = [k for c in claims for check in c["checks"] for k in check["controls"]]
    good, passed = sum(c["as_expected"] for c in claims), sum(k["passed"] for k in controls)
    findings = sum(c["expect"] == "refuted" and c["verdict"] == "refuted" for c in claims)
    colour = "green" if certificate["as_expected"] else "red"
    state = "" if certificate["complete"] else " (interrupted: not everything was run)"
    console.print(
        f"[{colour}]{good} of {len(claims)} claims as expected[/]{state}, "
        f"{passed} of {len(controls)} controls told apart, {findings} statements refuted as printed; "
        + (f"[yellow]{len(every) - len(claims)} skipped, see above[/]; " if len(every) > len(claims) else "")
        + f"seed {certificate['seed']}, {certificate['seconds']:.0f} s"
    )


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
        badge = _BADGES[claim["verdict"]] + ("" if claim["as_expected"] else " [red](unexpected)[/]")
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
    console.print(f"\n[bold]{name}[/] {escape(claim['title'])}: expected {claim['expect']}, got {verdict}")
    for check in claim["checks"]:
        if check["verdict"] not in ("holds", "not_run") or claim["expect"] == "refuted":
            console.print(f"  {check['name']} ({check['kind']}): {escape(check['summary'])}")
        if check["python"] and check["verdict"] == "refuted" and claim["expect"] != "refuted":
            text = script(paper["folder"], claim["id"], check["name"], check["python"])
            console.print("  minimal counterexample:\n", style="dim")
            console.print(escape("".join(f"    {line}\n" for line in text.splitlines())), soft_wrap=True)
        if check["error"]:
            console.print(escape(check["error"]), style="red")
        for control in check["controls"]:
            if not control["passed"] and control["verdict"] not in ("not_run", "skipped"):
                got = control["verdict"].replace("_", " ")
                console.print(f"  control {escape(control['name'])!r}: {got} ({escape(control['summary'])})")
    if not any(check["controls"] for check in claim["checks"]):
        console.print("  no negative control: nothing shows that the check can tell true from false")


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


def show_frontier(f: dict[str, Any]) -> None:
    """A frontier, as `klsim.frontier.as_json` gives it."""
    console = _console()

    def interval(e: dict[str, float]) -> str:
        return f"{e['value']:.4g} [dim]\\[{e['low']:.4g}, {e['high']:.4g}][/]"

    fewest, most = f["samples_a_prompt"]
    each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    console.print(f"{f['samples']:,} samples of {f['prompts']:,} prompts, {each} each; {f['level']:.0%} intervals")
    table = Table(
        "KL, nats", "beta", "reward", "of prompts 10/50/90 %", "effective samples", "trusted", title="frontier"
    )
    table.title_justify = "left"
    table.add_row("0", "", interval(f["reference"]), "", "", "")
    for p in f["points"]:
        spread = " ".join(f"{x:.3g}" for x in p["reward_of_prompts"])
        trusted = "[green]✓[/]" if p["trusted"] else f"[yellow]✗ {escape(p['reason'])}[/]"
        table.add_row(f"{p['budget']:g}", f"{p['beta']:.3g}", interval(p["reward"]), spread, f"{p['ess']:.3g}", trusted)
    console.print(table)
    reward = "reward = pass@N" if f["binary"] else "reward"
    best = Table("N", reward, "KL, nats", "log N - (N-1)/N", "win rate", title="best of N", title_justify="left")
    shown = [b for b in f["best_of_n"] if b["n"] & (b["n"] - 1) == 0] or f["best_of_n"]
    for b in shown if shown[-1] is f["best_of_n"][-1] else [*shown, f["best_of_n"][-1]]:
        cells = (interval(b["reward"]), f"{b['kl']:.3g}", f"{b['kl_bound']:.3g}", interval(b["win_rate"]))
        best.add_row(str(b["n"]), *cells)
    console.print(best)
    if f["policy"] is not None:
        p = f["policy"]
        kl = f"KL {interval(p['k1'])} nats (k1), {interval(p['k3'])} (k3)"
        console.print(f"trained policy: reward {interval(p['reward'])}, {kl}")
        console.print(
            f"  the frontier needs {interval(p['needed_kl'])} nats for it: efficiency {interval(p['efficiency'])}; "
            f"reward left at its KL {interval(p['missed_reward'])}"
            + ("" if p["trusted"] else f"  [yellow]not to be trusted: {escape(p['reason'])}[/]")
        )
    for note in f["notes"]:
        console.print(f"[yellow]note[/]: {escape(note)}")
    console.print(f"[bold]{escape(f['recommendation'])}[/]")


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
