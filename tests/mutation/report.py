"""The report: how many changes were noticed, by module and by paper, and which survive."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]
EQUIVALENT = json.loads(Path(__file__).with_name("equivalent.json").read_text(encoding="utf-8"))
"""Changes that change no result, read one by one: path, function, before and after, and why."""


def why_equivalent(record: Record) -> str:
    """The reason if the change is known to change no result; empty otherwise."""
    place = (record["mutant"]["path"], record["mutant"]["function"], record["before"], record["after"])
    return next(
        (
            e["why"]
            for e in EQUIVALENT
            if (e["path"], e["function"], e["before"], e["after"]) == place
            and e.get("paper", record["paper"]) == record["paper"]
        ),
        "",
    )


def markdown(records: Sequence[Record], seed: int) -> str:
    """Tables of shares, then the survivors by paper and module.

    A change that is known to change no result (`EQUIVALENT`) is counted apart: nothing could notice it.
    """
    overall = [r for r in records if not r["paper"]]
    papers = [r for r in records if r["paper"] and r["reached"]]  # elsewhere the paper's claims have nothing to say
    parts = [f"# One-operator changes of the library (seed {seed})\n"]
    if overall:
        parts += ["Asked: the unit tests and every paper's claims that run the line.\n"]
        parts += [_table("module", overall, _room)]
    if papers:
        parts += ["Asked: one paper's claims alone, about the functions that they name.\n"]
        parts += [_table("paper", papers, lambda r: r["paper"])]
    left = [r for r in (*overall, *papers) if not r["noticed"]]
    survivors = sorted(left, key=lambda r: (why_equivalent(r), r["paper"], r["mutant"]["path"], r["mutant"]["line"]))
    parts += [f"## {sum(not why_equivalent(r) for r in left)} survivors, and changes that change no result\n"]
    for r in survivors:
        m, reached = r["mutant"], "" if r["reached"] else " (nothing runs this line)"
        who = f"{r['paper']}: " if r["paper"] else ""
        why = f" ({why_equivalent(r)})" if why_equivalent(r) else ""
        parts += [f"- {who}`{m['path']}:{m['line']}` {m['function']}{reached}: `{r['before']}` -> `{r['after']}`{why}"]
    return "\n".join(parts) + "\n"


def _room(record: Record) -> str:
    return record["mutant"]["path"].split("/")[1].removesuffix(".py")


def _table(head: str, records: Sequence[Record], group: Callable[[Record], str]) -> str:
    rows = [
        f"| {head} | changes | noticed | by tests | by claims | no change of result | share of the others |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[str, list[Record]] = {}
    for r in records:
        groups.setdefault(group(r), []).append(r)
    for name, some in [*sorted(groups.items()), ("all", list(records))]:
        seen = [r["noticed"] for r in some if r["noticed"]]
        tests = sum("::" in by for by in seen)
        claims = sum(" instead of " in by for by in seen)
        same = sum(not r["noticed"] and bool(why_equivalent(r)) for r in some)
        share = f"{len(seen) / (len(some) - same):.1%}" if len(some) > same else ""
        rows.append(f"| {name} | {len(some)} | {len(seen)} | {tests} | {claims} | {same} | {share} |")
    return "\n".join(rows) + "\n"
