"""ExOPD end to end: base by SFT, two domain teachers by GRPO, students by SFT, OPD, ExOPD and averaging.

``python examples/bridge/exopd.py [FOLDER] [--seeds N] [--runs FOLDER]`` runs ``exopd.toml`` for seeds 0 … N-1, two at
a time, prints the table and writes ``FOLDER/bridge/exopd.{svg,png,csv,json}`` (default ``figures``). A seed trains its
own base, teachers and students; students are compared within a seed. Runs are kept in ``--runs`` and resume there.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as Grid

from klsim.estimators import mean_interval
from klsim.parallel import execute
from klsim.report import terminal
from klsim.report.figures import COLOURS, Figures, Run, Table, write_figure

CONFIG = Path(__file__).with_suffix(".toml")
STUDENTS = ("sft", "soup", "opd", "opd-long", "exopd-1.25", "exopd-1.5")
STAGES = ("base", "teachers", *STUDENTS)
MEASURES = ("accuracy", "greedy", "pass@16", "KL to base")
BASELINES = ("opd", "teachers")


@dataclass(frozen=True)
class Seed:
    """One seed of the whole experiment, for `klsim.parallel.execute`."""

    seed: int
    runs: str

    def run(self) -> list[dict[str, Any]]:
        import torch

        from klsim.lm import config, train

        torch.set_num_threads(1)
        read = config.read(CONFIG, output=Path(self.runs) / f"seed-{self.seed}", seed=self.seed)
        return [row for r in train.run(read) for row in _rows(self.seed, r.name, r.evaluations)]


def _rows(seed: int, stage: str, evaluations: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for task, e in evaluations.items():
        values = {"accuracy": e["accuracy"]["value"], "greedy": e["greedy"]["value"]}
        values["pass@16"] = e["pass_at_k"]["16"]["value"]
        values["KL to base"] = e["kl"]["ref"]["k1"]["value"] if e["kl"] else 0.0
        rows += [{"seed": seed, "stage": stage, "task": task, "measure": m, "value": v} for m, v in values.items()]
    return rows


class Results:
    """Values by seed: of a stage, and of the two teachers, each on its own domain."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.of = {(r["seed"], r["stage"], r["task"], r["measure"]): r["value"] for r in rows}
        self.seeds = sorted({r["seed"] for r in rows})
        self.tasks = list(dict.fromkeys(r["task"] for r in rows))

    def values(self, stage: str, measure: str) -> np.ndarray:
        """Mean over the domains, one a seed."""

        def name(task: str) -> str:
            return f"teacher-{task}" if stage == "teachers" else stage

        return np.array([np.mean([self.of[s, name(t), t, measure] for t in self.tasks]) for s in self.seeds])


figures = Figures()


@figures.figure(
    "exopd",
    title="Students of two teachers: SFT, soup, OPD, ExOPD",
    caption="A base model learns sums and products modulo 10 (three operands, a chain of thought); GRPO improves one "
    "teacher on each; students start from the base. Dots are seeds, bars 95 % intervals over seeds; all measures are "
    "means over the two domains, on held-out problems. Lower row: students minus OPD, paired by seed.",
    size=(11.0, 6.4),
)
def exopd(run: Run) -> Mapping[str, Any]:
    raise NotImplementedError("computed by the command, which needs minutes")


@exopd.draw
def _(table: Table, figure: Any) -> None:
    top, bottom = figure.subfigures(2, 1)
    for place, measure in zip(top.subplots(1, len(MEASURES)), MEASURES):
        _panel(place, table.rows(measure=measure, against="nothing"), STAGES)
        place.set(title=measure + (" (nats)" if "KL" in measure else ""))
    for place, measure in zip(bottom.subplots(1, len(MEASURES)), MEASURES):
        _panel(place, table.rows(measure=measure, against="opd"), [s for s in STUDENTS if s != "opd"])
        place.axhline(0, color="black", lw=0.8)
        place.set(ylabel=f"{measure} minus OPD's")


def _panel(place: Any, rows: Table, stages: Any) -> None:
    for i, stage in enumerate(stages):
        part = rows.rows(stage=stage)
        seeds = part.rows(kind="seed")
        mean = part.rows(kind="mean")
        colour = COLOURS[STAGES.index(stage)]
        place.plot(np.full(len(seeds), i - 0.15), seeds["value"], "o", ms=3, color=colour, alpha=0.5)
        error = [mean["value"] - mean["low"], mean["high"] - mean["value"]]
        place.errorbar([i + 0.1], mean["value"], error, fmt="s", ms=5, color=colour, capsize=3)
    place.set_xticks(range(len(stages)), stages, rotation=40, ha="right")


def tabulate(results: Results) -> list[dict[str, Any]]:
    """Means over seeds with intervals, and paired differences to OPD and to the teachers."""
    rows: list[dict[str, Any]] = []

    def add(stage: str, measure: str, against: str, values: np.ndarray) -> None:
        low, high = mean_interval(values)
        common = {"stage": stage, "measure": measure, "against": against}
        for value in values:
            rows.append(common | {"kind": "seed", "value": float(value), "low": float(value), "high": float(value)})
        rows.append(common | {"kind": "mean", "value": float(values.mean()), "low": float(low), "high": float(high)})

    for measure in MEASURES:
        for stage in STAGES:
            add(stage, measure, "nothing", results.values(stage, measure))
        for baseline in BASELINES:
            for stage in STUDENTS:
                if stage != baseline:
                    add(stage, measure, baseline, results.values(stage, measure) - results.values(baseline, measure))
    return rows


def show(rows: list[dict[str, Any]], seeds: int) -> None:
    console = Console(width=140)
    for against in ("nothing", *BASELINES):
        title = (
            f"mean over {seeds} seeds [95 % interval]" if against == "nothing" else f"minus {against}, paired by seed"
        )
        grid = Grid("", *MEASURES, title=title)
        for stage in STAGES:
            cells = [
                f"{r['value']:+.3f} \\[{r['low']:+.3f}, {r['high']:+.3f}]"
                for m in MEASURES
                for r in rows
                if (r["stage"], r["measure"], r["against"], r["kind"]) == (stage, m, against, "mean")
            ]
            if cells:
                grid.add_row(stage, *cells)
        console.print(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("figures"))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--runs", type=Path, default=Path("runs/exopd"))
    chosen = parser.parse_args()
    tasks = [Seed(seed, str(chosen.runs)) for seed in range(chosen.seeds)]
    found: list[Any] = [None] * len(tasks)
    with terminal.progress("exopd", len(tasks)) as advance:
        for index, result in execute(tasks, jobs=2):
            found[index] = result
            advance(f"seed {index}")
    rows = tabulate(Results([row for result in found for row in result]))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    files = write_figure(exopd, Table(columns), chosen.out, Path("bridge"), Run())
    show(rows, chosen.seeds)
    print(f"written: {chosen.out / files[0]}")


if __name__ == "__main__":
    main()
