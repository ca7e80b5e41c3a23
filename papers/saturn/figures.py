"""Figures of saturn: pass@3 against D with the floor of guesses, Table 2 with it, majorities, and training on ladders."""

from __future__ import annotations

import numpy as np

from klsim.problems import satisfiability as sat
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from .setting import EASY, HARDEST, LADDER, MODELS, PASS_3, STEPS, TABLE_2, floor, majority_success, predictor, train

figures = Figures()
SEEDS = 16
GUESS = "uniform guess, exact"
MARKERS = dict(zip((*MODELS, GUESS), "osD^X"))


@figures.figure(
    "pass-at-3",
    title="pass@3 against the difficulty score",
    caption="Published pass@3 of four models at ten levels (the paper's Figure 3) with linear fits for the two base models, and what three uniform guesses"
    " solve (exact). Guesses do better than the 1.5B base model at all ten levels, than the 7B base at four (C3, C4).",
    size=(8.0, 5.0),
)  # fmt: skip
def pass_at_3(run):
    for model in MODELS:
        yield {"series": model, "D": predictor("D"), "pass": PASS_3[model]}
    yield {"series": GUESS, "D": predictor("D"), "pass": floor(3)}


@pass_at_3.draw
def _(table, figure):
    axes = figure.subplots()
    for number, (name, marker) in enumerate(MARKERS.items()):
        rows = table.rows(series=name)
        color = "black" if name == GUESS else f"C{number}"
        axes.plot(rows["D"], rows["pass"], marker, color=color, markersize=7, label=name)
        if name.startswith("DS"):
            slope, level = np.polyfit(rows["D"], rows["pass"], 1)
            ends = np.array([8.5, 12.9])
            axes.plot(ends, level + slope * ends, "-", color=color, linewidth=1, label=f"fit, {name}")
    axes.set(xlabel="difficulty score D", ylabel="pass@3", ylim=(-0.03, 1.0))
    axes.legend(loc="upper right", fontsize=8)


STAGES = ("base", "iteration 1", "iteration 2", "uniform guess")


@figures.figure(
    "table-2",
    title="Pass@1 over the iterations, and the floor",
    caption="Published pass@1 (the paper's Table 2) of the 1.5B model at (3,5,5) and (3,5,8) and of the 7B model at (3,5,13) and (3,5,15), with the"
    " exact success of a uniform guess: the 1.5B base model starts below it (C4).",
    size=(8.0, 4.0),
)
def table_2(run):
    for level, values in TABLE_2.items():
        model = "1.5B" if level.l < 10 else "7B"
        name = f"({level.n},{level.k},{level.l}), {model}"
        found = (*values, float(sat.guess_probability(*level)))
        for stage, value in zip(STAGES, found):
            yield {"level": [name], "stage": stage, "pass": [value]}


@table_2.draw
def _(table, figure):
    Bars("level", "pass", by="stage", xlabel="level (n,k,l), model", ylabel="pass@1")(table, figure)


CLAUSES = (1, 3, 5, 8, 10, 13, 16, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70)


@figures.figure(
    "majority",
    title="Success of the majority of signs, and D, against the number of clauses",
    caption=f"Formulas (3,5,l), {SEEDS} seeds of 500. The majority solver first fails and then succeeds for certain (l >= 65, dotted) while D rises all"
    " along; a uniform guess (exact) falls (C4b).",
    size=(11.0, 4.0),
)  # fmt: skip
def majority(run):
    rngs = [run.rng("majority", seed) for seed in range(SEEDS)]
    shares = np.array([majority_success(rngs, (3, 5, c)) for c in CLAUSES]).T
    yield {"series": "majority of signs", "clauses": CLAUSES, **over_seeds(value=shares)}
    exact = {"uniform guess": [float(sat.guess_probability(3, 5, c)) for c in CLAUSES],
             "D": [sat.difficulty(3, 5, c) for c in CLAUSES]}  # fmt: skip
    for name, values in exact.items():  # without an interval
        yield {"series": name, "clauses": CLAUSES, "value": values, "value low": values, "value high": values}


@majority.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for name, style in (("majority of signs", "-"), ("uniform guess", "--")):
        Lines("clauses", "value", by="series", styles={name: {"linestyle": style}}).on(left, table.rows(series=name))
    left.axvline(sat.majority_certain_from(3, 5), linestyle=":", color="grey")
    left.set(xlabel="number of clauses l", ylabel="success", ylim=(-0.03, 1.05))
    left.legend(loc="upper center")
    rows = table.rows(series="D")
    right.plot(rows["clauses"], rows["value"], "o-", color="C2", markersize=4)
    right.set(xlabel="number of clauses l", ylabel="difficulty score D")


LADDERS = {"curriculum": LADDER, "easiest level only": EASY, "hardest level only": HARDEST}


@figures.figure(
    "curriculum",
    title="Training on a ladder, on its easiest and on its hardest rung",
    caption="Pass@1 at (3,18,95) of a policy with 60 parameters over 240 GRPO steps, mean and 95 % interval over 10 seeds (100 formulas x 8, 500 at the"
    " end). Training on the hardest level alone is all or nothing, seed by seed (here one of ten took off, hence the wide interval); the easiest level alone gets nearly as far as the ladder (C7).",
    size=(8.0, 4.4),
)  # fmt: skip
def curriculum(run):
    rngs = [run.rng("curriculum", seed) for seed in range(10)]
    steps = tuple(range(0, STEPS, 20))
    path = train(rngs, tuple(LADDERS.values()), record=steps).path
    for name, values in zip(LADDERS, path):
        yield {"trained on": name, "step": (*steps, STEPS), **over_seeds(success=values)}


@curriculum.draw
def _(table, figure):
    axes = figure.subplots()
    styles = {"easiest level only": {"linestyle": "--"}, "hardest level only": {"linestyle": ":"}}
    Lines("step", "success", by="trained on", markers=False, styles=styles).on(axes, table)
    axes.set(xlabel="GRPO steps (16 formulas x 8 answers)", ylabel="pass@1 at (3,18,95)", ylim=(0, None))
    axes.legend(loc="upper left")
