"""The summary of a training run: curves of every stage, and how every stage answers at its end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from klsim.files import write_atomically
from klsim.report.figures import COLOURS, Table, save_figure

__all__ = ["curves", "draw_summary", "outcomes"]

QUANTITIES = {
    "loss": ("loss of supervised steps", "nats a token"),
    "reward": ("mean reward of a step's samples", "reward"),
    "kl_to_ref": ("KL to the reference", "nats a completion"),
    "kl_to_teacher": ("KL to the teacher", "nats a completion"),
    "entropy": ("entropy", "nats a token"),
}
"""What is drawn of `metrics.jsonl`: title and unit."""
COLUMNS = 3


def curves(folders: Mapping[str, Path]) -> Table:
    """``stage, quantity, step, value`` of everything in `QUANTITIES` that the stages' ``metrics.jsonl`` hold."""
    rows: list[tuple[str, str, int, float]] = []
    for stage, folder in folders.items():
        file = folder / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        logged = [json.loads(line) for line in lines]
        supervised = not any("reward" in entry for entry in logged)
        for name in QUANTITIES:
            if (name == "loss") != supervised and name in ("loss", "reward"):
                continue
            for entry in logged:
                value = entry.get(name)
                if isinstance(value, int | float) and math.isfinite(value):
                    rows.append((stage, name, entry["step"], float(value)))
    names = ("stage", "quantity", "step", "value")
    return Table(dict(zip(names, map(list, zip(*rows)))) if rows else {name: [] for name in names})


def outcomes(folders: Mapping[str, Path]) -> Table:
    """``stage, task, measure, value, low, high`` from the stages' ``evaluation.json``."""
    rows: list[tuple[str, str, str, float, float, float]] = []
    for stage, folder in folders.items():
        for task, found in json.loads((folder / "evaluation.json").read_text(encoding="utf-8")).items():
            measures = {"accuracy": found["accuracy"], "greedy": found["greedy"]}
            measures |= {f"pass@{k}": e for k, e in found["pass_at_k"].items()}
            for name, e in measures.items():
                rows.append((stage, task, name, e["value"], e["low"], e["high"]))
    return Table(dict(zip(("stage", "task", "measure", "value", "low", "high"), map(list, zip(*rows)))))


def draw_summary(output: Path, folders: Mapping[str, Path]) -> list[Path]:
    """Write ``summary.{svg,png}`` and the tables behind it, ``curves.csv`` and ``outcomes.csv``, to ``output``."""
    steps, ends = curves(folders), outcomes(folders)
    write_atomically(output / "curves.csv", steps.to_csv())
    write_atomically(output / "outcomes.csv", ends.to_csv())
    shown = [name for name in QUANTITIES if name in steps.distinct("quantity")]
    files = [output / "summary.svg", output / "summary.png"]
    rows = -(-(len(shown) + len(ends.distinct("task"))) // COLUMNS)
    save_figure(files, lambda canvas: _draw(canvas, steps, ends, shown, rows), (10.0, 2.9 * rows + 0.5))
    return [*files, output / "curves.csv", output / "outcomes.csv"]


def _draw(canvas: Any, steps: Table, ends: Table, shown: list[str], rows: int) -> None:
    from matplotlib.lines import Line2D

    stages, tasks = ends.distinct("stage"), ends.distinct("task")
    colour = {stage: COLOURS[i % len(COLOURS)] for i, stage in enumerate(stages)}
    dashes = {stage: "-" if i < len(COLOURS) else "--" for i, stage in enumerate(stages)}
    places = list(canvas.subplots(rows, COLUMNS, squeeze=False).flat)
    for place, name in zip(places, shown):
        for stage in steps.rows(quantity=name).distinct("stage"):
            part = steps.rows(quantity=name, stage=stage)
            place.plot(part["step"], part["value"], color=colour[stage], ls=dashes[stage])
        title, unit = QUANTITIES[name]
        place.set(title=title, xlabel="step of the stage", ylabel=unit)
    for place, task in zip(places[len(shown) :], tasks):
        accuracy = ends.rows(task=task, measure="accuracy")
        for i, stage in enumerate(accuracy.distinct("stage")):
            e = accuracy.rows(stage=stage)
            error = [e["value"] - e["low"], e["high"] - e["value"]]
            place.errorbar([i], e["value"], error, fmt="o", color=colour[stage], capsize=3)
        place.set_xticks(range(len(stages)), stages, rotation=30, ha="right")
        place.set(title=f"{task}: samples that are right", ylabel="share, 95 % interval", ylim=(-0.03, 1.03))
    for place in places[len(shown) + len(tasks) :]:
        place.set_axis_off()
    handles = [Line2D([], [], color=colour[s], ls=dashes[s], label=s) for s in stages]
    canvas.legend(handles=handles, loc="outside lower center", ncols=min(len(stages), 6))
