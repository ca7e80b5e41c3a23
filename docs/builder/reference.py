"""The reference: a page a public module, in the order of the layers."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from docs.builder.names import Module, documented_here, exported, public_modules

__all__ = ["LAYERS", "nav", "page_of", "pages"]

LAYERS: dict[str, tuple[str, ...]] = {
    "Distributions and optima": (
        "distributions", "divergences", "generators", "optima", "forward_kl", "several_references", "modes",
        "lagrangian", "tsallis_renyi", "per_token", "best_of_n", "selection_rules", "selection_targets", "pessimism",
        "attempts", "power", "annealing", "sequence_samplers", "tree_smc", "preferences", "proxy_gold", "continuous",
        "continuous_selection", "gaussian", "prompt_process", "noisy_selection", "set_functions", "coverage",
        "certified",
    ),
    "Sources and estimators": (
        "memoryless", "mass_balance", "estimators", "estimator_moments", "multiple_importance", "hinge", "uniformity",
        "density_ratios", "finite_samples",
    ),
    "Objectives": ("objectives",),
    "Problems": ("problems",),
    "Planning": ("planning",),
    "Learning": ("learning",),
    "Claims": ("claims", "spaces"),
    "Frontier": ("frontier",),
    "Audit": ("audit",),
    "Language models": ("lm",),
    "Tests and reports": ("testing", "report"),
    "Command line": ("cli", "commands"),
    "Ground floor": ("parallel", "files", "kernels"),
}  # fmt: skip
"""Sections of the reference and the modules of each, from the mathematics to what uses it."""


def page_of(module: Module) -> str:
    """Path of a module's page on the site."""
    parts = module.name.split(".")[1:]
    if not parts:
        return "reference/index.md"
    return "/".join(["reference", *parts, *(["index"] if module.is_package else [])]) + ".md"


def pages() -> dict[str, str]:
    """Path to Markdown of every page."""
    return {page_of(m): _index(m) if m.name == "klsim" else _page(m) for m in public_modules().values()}


def _page(module: Module) -> str:
    here = documented_here(module)
    members = "[" + ", ".join(n.name for n in here) + "]" if here else "false"
    text = (
        f"---\ntitle: {module.name}\n---\n\n::: {module.name}\n    options:\n      members: {members}\n"
        "      show_root_heading: true\n      heading_level: 1\n"
    )
    return text + _elsewhere(module)


def _elsewhere(module: Module) -> str:
    """What a package exports from the modules below, with a line about each."""
    rows = [n for n in exported(module) if n.home != module.name]
    if not rows:
        return ""
    lines = ["", "## Exported from here", "", "| name | what it is |", "|---|---|"]
    lines += [f"| [`{n.name}`][{n.address}] | {_summary(n.text)} |" for n in rows]
    return "\n".join(lines) + "\n"


def _summary(text: str) -> str:
    """The first sentence of a docstring, fit for a table."""
    first = " ".join(text.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.;:])\s", first)[0].rstrip(":;")
    quoted = re.sub(r"`([A-Za-z_][\w.]*)`(?!`)", r"`\1`", sentence)
    return quoted.replace("|", "\\|") if "`" not in quoted else _in_cell(quoted)


def _in_cell(text: str) -> str:
    pieces = re.split(r"(``.+?``|`[^`]+`)", text)
    pieces[::2] = [p.replace("|", "\\|") for p in pieces[::2]]
    return "".join(pieces)


def _index(module: Module) -> str:
    lines = [
        "# Reference", "",
        "Every public name of klsim, from its docstring. Sections go from the mathematics to what uses it; the layers "
        "that imports obey are in `pyproject.toml`, and a check holds them.", "",
    ]  # fmt: skip
    by_name = public_modules()
    for title, tops in LAYERS.items():
        lines += [f"## {title}", "", "| module | what it is for |", "|---|---|"]
        for top in tops:
            name = f"klsim.{top}"
            shown = (
                [by_name[name]] if name in by_name else [m for m in by_name.values() if m.name.startswith(f"{name}.")]
            )
            for m in shown:
                path = PurePosixPath(page_of(m)).relative_to("reference")
                lines.append(f"| [`{m.name}`]({path}) | {_summary(m.text)} |")
        lines.append("")
    return "\n".join(lines)


def nav() -> list[Any]:
    """The part of the site's navigation that is the reference."""
    by_name = public_modules()
    out: list[Any] = ["reference/index.md"]
    for title, tops in LAYERS.items():
        entries: list[Any] = []
        for top in tops:
            entries += _branch(f"klsim.{top}", by_name)
        only = entries[0] if len(entries) == 1 else None
        out.append({title: next(iter(only.values()))} if isinstance(only, dict) else {title: entries})
    return out


def _branch(name: str, by_name: dict[str, Module]) -> list[Any]:
    """A module, or a package with what is below it."""
    own = by_name.get(name)
    below = [n for n in by_name if n.startswith(f"{name}.") and _parent(n, by_name) == name]
    below += [n for n in by_name if own is None and n.startswith(f"{name}.") and _parent(n, by_name) == ""]
    short = name.rpartition(".")[2]
    if not below:
        return [{short: page_of(own)}] if own else []
    inside: list[Any] = [page_of(own)] if own else []
    for child in below:
        inside += _branch(child, by_name)
    return [{short: inside}]


def _parent(name: str, by_name: dict[str, Module]) -> str:
    """The nearest package above that has a page."""
    above = name.rpartition(".")[0]
    while above and above != "klsim":
        if above in by_name:
            return above
        above = above.rpartition(".")[0]
    return ""
