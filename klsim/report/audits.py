"""Audits on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from klsim.audit.identify import share_text
from klsim.audit.traits import SUCCESSES
from klsim.report.markup import escape

__all__ = ["change_text", "show_audit"]


def _terms(found: Mapping[str, Any], between: str) -> str:
    return between.join(f"{c:+.4g} {name}" for name, c in found["coefficients"].items()) or "0"


def _left(found: Mapping[str, Any]) -> str:
    return f"{found['residual']:.1e}" if found["exact"] else f"{share_text(found['residual'])} ✗"


def change_text(effect: Mapping[str, Any]) -> str:
    """What one more unit of a parameter does."""
    if effect["problem"]:
        return str(effect["problem"])
    if not effect["acts"]:
        return "no effect"
    if effect["on_pairs"]:
        return "acts"
    equal, variable = (_terms(effect[k], " ") for k in ("change", "variable"))
    if equal == variable == "0":
        return "no effect on-policy, some elsewhere"
    marks = [
        "" if effect[k]["exact"] else f" ({share_text(effect[k]['residual'])} left)" for k in ("change", "variable")
    ]
    if equal == variable:
        return equal + marks[0]
    return f"{equal}{marks[0]} with equal lengths, {variable}{marks[1]} with variable lengths"


def show_audit(a: Mapping[str, Any], console: Console | None = None) -> None:
    """One audit, as `klsim.audit.measure.as_json` gives it."""
    console = console or Console()
    title = f"{a['target']}" + (f"  [{a['version']}]" if a["version"] else "")
    table = Table("world", "gradient of the loss", "left over", title=escape(title), title_justify="left")
    for name, found in a["found"].items():
        table.add_row(name, escape(_terms(found, "\n")), _left(found))
    console.print(table)
    for effect in a["effects"]:
        console.print(escape(f"{effect['parameter']} = {effect['value']:g}, per unit: {change_text(effect)}"))
    for push in a["pushes"]:
        console.print(f"{push['situation']}: pushes y+ up by {push['up']:.3g}, y- down by {push['down']:.3g}")
    if any(a["prompt_weights"]):
        at = " ".join(f"{p:g}" for p in SUCCESSES)
        console.print(f"prompt weights at p = {at}: " + " ".join(f"{w:.2f}" for w in a["prompt_weights"]))
    if a["variance"] is not None:
        console.print(f"variance of one batch: {a['variance']:.3g} x the best unbiased estimator's")
    if a["end"]:
        console.print("trained to: " + ", ".join(f"{name} {value:.3g}" for name, value in a["end"].items()))
    for fit in a["fits"]:
        left = "exact" if fit["residual"] < 2e-5 else f"{share_text(fit['residual'])} left"
        console.print(f"{fit['world']}: cosine {fit['cosine']:.3f}, {left}, scale {fit['scale']:.3g}")
    for name, why in a["skipped"].items():
        console.print(f"[yellow]not evaluated[/] {escape(name)}: {escape(why)}")
    for m in a["expected"]:
        mark = "[green]✓[/]" if m["met"] else "[red]✗[/]"
        why = f" ({m['why']})" if m["why"] else ""
        text = (
            f"expected {a['expectation']['text']}, {m['world']}: scale {m['scale']:.4g}, residual {m['residual']:.1e}"
        )
        text += why
        console.print(f"{mark} {escape(text)}")
    console.print(f"[bold]{escape(a['verdict'])}[/]")
