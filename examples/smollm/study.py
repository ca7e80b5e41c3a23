"""Four studies on SmolLM2-135M: does theory hold on a pretrained language model?

``python examples/smollm/study.py STUDY [--form quick|full|gpu] [--out FOLDER] [--runs FOLDER]``, STUDY one of

* gradients: estimators of the KL and their gradients, against the exact ones and the audit's verdicts;
* outcome: `klsim frontier`'s forecast, against RL with the KL in the reward, best-of-N and its distillation;
* extrapolation: students of two teachers by SFT, OPD and ExOPD, against what the teachers' log-ratios predict;
* wild: a defect of the audit's list trained beside its correction.

Tables are printed and written with the results and the figure to ``FOLDER/smollm/STUDY-FORM.*`` (default ``figures``).
Finished stages are kept under ``--runs`` (default ``runs/smollm``); a study that was killed goes on from there.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table as Grid

sys.path.insert(0, str(Path(__file__).parent))

from studies.runs import lab

from klsim.claims.certificate import jsonable
from klsim.files import write_atomically
from klsim.report.figures import Run, Table, write_figure

STUDIES = ("gradients", "outcome", "extrapolation", "wild")


def run(study: str, form: str, out: Path, runs: Path, console: Console) -> dict:
    """Compute what is not there yet, print the tables, write tables, results and figure; the results."""
    module = importlib.import_module(f"studies.{study}")
    sizes = module.FORMS[form]
    tasks = module.tasks(sizes) if hasattr(module, "tasks") else module.TASKS
    made = lab(runs / f"{study}-{form}", study, sizes, tasks, lambda key: console.print(f"  {key} …", style="dim"))
    found = module.compute(made, sizes)
    found = json.loads(json.dumps(found))  # as it is read back
    text = io.StringIO()
    paper = Console(file=text, width=200)
    for title, header, rows in module.tables(found):
        grid = Grid(*header, title=title, title_justify="left")
        for row in rows:
            grid.add_row(*(cell.replace("[", "\\[") for cell in row))
        paper.print(grid)
    wall, cpu = made.stages.spent()
    paper.print(
        f"{study}, {form}: {wall:.0f} s, {cpu:.0f} s of processors, {torch.get_num_threads()} threads, {made.device}"
    )
    console.print(text.getvalue(), markup=False, highlight=False)
    folder, name = Path("smollm"), f"{study}-{form}"
    write_atomically(out / folder / f"{name}.txt", text.getvalue())
    results = json.dumps(jsonable(found), indent=1, allow_nan=False)  # an interval without an end: "inf"
    write_atomically(out / folder / f"{name}.results.json", results + "\n")
    figure = module.figure
    figure.name = name
    files = write_figure(figure, Table(module.columns(found)), out, folder, Run(full=form == "full"))
    console.print(f"written: {out / files[0]}")
    return found


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--form", choices=("tiny", "quick", "full", "gpu"), default="quick")
    parser.add_argument("--out", type=Path, default=Path("figures"))
    parser.add_argument("--runs", type=Path, default=Path("runs/smollm"))
    chosen = parser.parse_args(arguments)
    return run(chosen.study, chosen.form, chosen.out, chosen.runs, Console(width=200))


if __name__ == "__main__":
    main()
