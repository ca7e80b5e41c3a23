"""The report: how many changes were noticed, by module and by paper, and which survive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Record = dict[str, Any]


def markdown(records: Sequence[Record], seed: int) -> str:
    """Tables of shares, then the survivors by paper and module."""
    overall = [r for r in records if not r["paper"]]
    papers = [r for r in records if r["paper"]]
    parts = [f"# One-operator changes of the library (seed {seed})\n"]
    if overall:
        parts += ["Asked: the unit tests and every paper's claims that run the line.\n"]
        parts += [_table("module", overall, _room)]
    if papers:
        parts += ["Asked: one paper's claims alone, about the functions that they name.\n"]
        parts += [_table("paper", papers, lambda r: r["paper"])]
    survivors = [r for r in records if not r["noticed"]]
    parts += [f"## {len(survivors)} survivors\n"]
    for r in sorted(survivors, key=lambda r: (r["paper"], r["mutant"]["path"], r["mutant"]["line"])):
        m, reached = r["mutant"], "" if r["reached"] else " (nothing runs this line)"
        who = f"{r['paper']}: " if r["paper"] else ""
        parts += [f"- {who}`{m['path']}:{m['line']}` {m['function']}{reached}: `{r['before']}` -> `{r['after']}`"]
    return "\n".join(parts) + "\n"


def _room(record: Record) -> str:
    return record["mutant"]["path"].split("/")[1].removesuffix(".py")


def _table(head: str, records: Sequence[Record], group: Callable[[Record], str]) -> str:
    rows = [f"| {head} | changes | noticed | by tests | by claims | share |", "|---|---|---|---|---|---|"]
    groups: dict[str, list[Record]] = {}
    for r in records:
        groups.setdefault(group(r), []).append(r)
    for name, some in [*sorted(groups.items()), ("all", list(records))]:
        seen = [r["noticed"] for r in some if r["noticed"]]
        tests = sum("::" in by for by in seen)
        claims = sum(" instead of " in by for by in seen)
        rows.append(f"| {name} | {len(some)} | {len(seen)} | {tests} | {claims} | {len(seen) / len(some):.1%} |")
    return "\n".join(rows) + "\n"
