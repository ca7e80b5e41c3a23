"""The summary of a training run: curves of every stage, and how every stage answers at its end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from klsim.claims.certificate import write_atomically
from klsim.report.figures import COLOURS, Table, save_figure

__all__ = ["curves", "draw_summary", "outcomes"]

QUANTITIES = {
    "loss": "loss of supervised steps",
    "reward": "mean reward of a step's completions",
    "kl_to_ref": "KL to the reference (nats a completion)",
    "kl_to_teacher": "KL to the teacher (nats a completion)",
    "entropy": "entropy (nats a token)",
}


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
    columns = max(len(shown), 1)
    save_figure(files, lambda canvas: _draw(canvas, steps, ends, shown), (3.3 * min(columns, 3) + 0.4, _height(shown)))
    return [*files, output / "curves.csv", output / "outcomes.csv"]


def _height(shown: list[str]) -> float:
    return 2.8 * (-(-len(shown) // 3)) + 3.0


def _draw(canvas: Any, steps: Table, ends: Table, shown: list[str]) -> None:
    rows = -(-len(shown) // 3)
    top, bottom = canvas.subfigures(2, 1, height_ratios=[2.8 * rows, 3.0]) if rows else (None, canvas)
    stages = ends.distinct("stage")
    colour = {stage: COLOURS[i % len(COLOURS)] for i, stage in enumerate(stages)}
    dashes = {stage: "-" if i < len(COLOURS) else "--" for i, stage in enumerate(stages)}
    if top is not None:
        axes = top.subplots(rows, min(len(shown), 3), squeeze=False)
        for place, name in zip(axes.flat, shown):
            for stage in steps.rows(quantity=name).distinct("stage"):
                part = steps.rows(quantity=name, stage=stage)
                place.plot(part["step"], part["value"], color=colour[stage], ls=dashes[stage])
            place.set(xlabel="step", ylabel=QUANTITIES[name])
        for place in axes.flat[len(shown) :]:
            place.set_axis_off()
    tasks = ends.distinct("task")
    for place, task in zip(bottom.subplots(1, len(tasks), squeeze=False, sharey=True).flat, tasks):
        accuracy = ends.rows(task=task, measure="accuracy")
        for i, stage in enumerate(accuracy.distinct("stage")):
            e = accuracy.rows(stage=stage)
            error = [[float(e["value"][0] - e["low"][0])], [float(e["high"][0] - e["value"][0])]]
            place.errorbar([i], e["value"], error, fmt="o", color=colour[stage], capsize=3)
        place.set_xticks(range(len(stages)), stages, rotation=30, ha="right")
        place.set(title=task, ylim=(-0.03, 1.03))
    bottom.axes[0].set_ylabel("accuracy of samples (95 % interval)")
