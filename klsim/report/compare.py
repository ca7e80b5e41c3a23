"""Drawn figures against the committed ones: where does a number differ by more than the figure's tolerance?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from klsim.report.figures import Table

__all__ = ["Difference", "compare_figures", "compare_tables"]


@dataclass(frozen=True)
class Difference:
    """One figure whose table is not the committed one: in which column, by how much of its largest value."""

    figure: str
    what: str


def compare_tables(new: Table, old: Table, rtol: float) -> str:
    """What differs, relative to the largest value of the column; empty if nothing does by more than ``rtol``."""
    if list(new.columns) != list(old.columns):
        return f"columns {', '.join(new.columns)} instead of {', '.join(old.columns)}"
    if len(new) != len(old):
        return f"{len(new)} rows instead of {len(old)}"
    worst, where = 0.0, ""
    for name, values in new.columns.items():
        before = old[name]
        if values.dtype.kind != "f" or before.dtype.kind != "f":
            if not np.array_equal(values.astype(str), before.astype(str)):
                return f"column {name!r} holds other words"
            continue
        with np.errstate(invalid="ignore"):
            apart = np.where(values == before, 0.0, np.abs(values - before))
        finite = np.abs(before[np.isfinite(before)])
        share = float(np.max(apart, initial=0.0)) / max(float(np.max(finite, initial=0.0)), 1e-300)
        if not share <= worst:
            row = int(np.argmax(apart))
            worst, where = share, f"column {name!r}, row {row + 1}: {values[row]:.6g} instead of {before[row]:.6g}"
    return f"{where} ({worst:.1e} of the column's largest, allowed {rtol:.0e})" if worst > rtol else ""


def compare_figures(drawn: Path, committed: Path) -> tuple[int, list[Difference]]:
    """Compare every ``<slug>/<name>.csv`` below ``drawn`` that ``committed`` has too, drawn with the same seed.

    Returns how many were compared, and the differences.
    """
    compared, differences = 0, []
    for about in sorted(drawn.rglob("*.json")):
        name = about.relative_to(drawn).with_suffix("")
        other, table = committed / name.with_suffix(".csv"), about.with_suffix(".csv")
        if not (other.is_file() and table.is_file() and other.with_suffix(".json").is_file()):
            continue
        said, before = (json.loads(p.read_text(encoding="utf-8")) for p in (about, other.with_suffix(".json")))
        if said.get("seed") != before.get("seed"):
            continue
        compared += 1
        new, old = (Table.from_csv(p.read_text(encoding="utf-8")) for p in (table, other))
        if what := compare_tables(new, old, float(said.get("rtol", 1e-6))):
            differences.append(Difference(name.as_posix(), what))
    return compared, differences
