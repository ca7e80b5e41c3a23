"""Figures of zero-shot-rl: score against rank, poor and full data, score against alpha, and where memory is needed."""

from __future__ import annotations

import numpy as np

from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from . import setting as st

figures = Figures()
SEEDS = 16
METHODS = {"FB": None, "VC-FB, alpha = 3": "values", "MC-FB, alpha = 10": "measures"}


def traps(run):
    return st.Traps.draw([run.rng("traps", i) for i in range(SEEDS)])


@figures.figure(
    "rank",
    title="Score against the number of features d",
    caption="Top d singular vectors of the uniform policy's density; mean over goals. Grid: 5x5, all 25 goals, one deterministic problem. Mazes: eight, six goals"
    " each, with 95 % interval. F projected exactly: the policy is optimal for the reward projected on the d features (C4).",
    size=(6.5, 4.2),
)  # fmt: skip
def rank(run):
    ranks, goals = np.array([1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 25]), np.arange(25)
    actions = np.array([st.ranked(st.grid(), goals, int(d)).action for d in ranks])
    value = st.scores(st.grid(), goals, actions).mean(axis=-1)
    yield {"problem": "grid", "d": ranks, "score": value, "score low": value, "score high": value}
    found = []
    for i in range(8):
        rng = run.rng("maze", i)
        moves, some = st.maze(rng), rng.choice(25, 6, replace=False)
        actions = np.array([st.ranked(moves, some, int(d)).action for d in ranks])
        found.append(st.scores(moves, some, actions).mean(axis=-1))
    yield {"problem": "mazes", "d": ranks, **over_seeds(score=np.array(found))}


@rank.draw
def _(table, figure):
    axes = figure.subplots()
    Lines("d", "score", by="problem").on(axes, table)
    axes.set(xlabel="features d (of 25)", ylabel="score: 0 uniform policy, 1 optimum", ylim=(-0.1, 1.05))
    axes.legend(loc="lower right")


@figures.figure(
    "data",
    title="Missing actions: score and overestimation",
    caption=f"5x5 grid with a trap, 150 Fourier features, {SEEDS} seeds of five goals; mean and 95 % interval. Poor data lack the pairs that lead to the trap."
    " Overestimation: mean of Q - Q* over those pairs, where Q* = 0. Over many more seeds the fit of FB diverges in a few (C6).",
    size=(11.0, 4.2),
)  # fmt: skip
def data(run):
    worlds = traps(run)
    best = worlds.best()
    for kind in ("poor", "full"):
        for name, penalty in METHODS.items():
            values = worlds.fitted(kind, penalty)
            for what, found in (("score", worlds.score(values, best)), ("over", worlds.overestimation(values, best))):
                yield {"panel": what, "data": kind, "method": name, **over_seeds(value=found[:, None])}


@data.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    Bars("data", "value", by="method").on(left, table.rows(panel="score"))
    Bars("data", "value", by="method").on(right, table.rows(panel="over"))
    left.set(xlabel="data", ylabel="score: 0 uniform policy, 1 optimum", ylim=(0, 1.0))
    right.set(xlabel="data", ylabel="overestimation Q - Q*, reward units")
    right.legend(loc="upper right")


@figures.figure(
    "alpha",
    title="Conservatism can be overdone",
    caption=f"Poor data, {SEEDS} seeds of five goals; mean and 95 % interval; alpha = 0 is FB, drawn at .1. Overestimation at the pairs that lead to the trap. Where the penalty dominates, VC-FB scores as the uniform"
    " policy and its overestimation rises again (C6).",
    size=(11.0, 4.2),
)  # fmt: skip
def alpha(run):
    worlds = traps(run)
    best = worlds.best()
    for name, penalty in (("VC-FB", "values"), ("MC-FB", "measures")):
        score, over = [], []
        for strength in (0.0, 0.3, 1.0, 3.0, 10.0, 30.0):
            values = worlds.fitted("poor", penalty, strength)
            score.append(worlds.score(values, best)), over.append(worlds.overestimation(values, best))  # fmt: skip
        at = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
        yield {"panel": "score", "method": name, "alpha": at, **over_seeds(value=np.array(score).T)}
        yield {"panel": "over", "method": name, "alpha": at, **over_seeds(value=np.array(over).T)}


@alpha.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for axes, panel in ((left, "score"), (right, "over")):
        Lines("alpha", "value", by="method", xscale="log").on(axes, table.rows(panel=panel))
        axes.set_xticks([0.1, 0.3, 1, 3, 10, 30], ["0 (FB)", ".3", "1", "3", "10", "30"])
        axes.minorticks_off()
        axes.set(xlabel="alpha (log scale)")
    left.set(ylabel="score: 0 uniform policy, 1 optimum", ylim=(-0.05, 1.0))
    right.set(ylabel="overestimation Q - Q*, reward units", ylim=(0, None))
    left.legend(loc="lower left")


@figures.figure(
    "memory",
    title="Memory in F and in B",
    caption="Chance of the rewarded arm, two cues, a corridor of two positions, uniform law of states, both tasks; exact. Right: the cue is always visible (C7).",
    size=(7.0, 4.0),
)  # fmt: skip
def memory(run):
    case = st.Cue(2, 2, 0.9, np.full(10, 0.1), np.array([1, 0]))
    for name, forward, backward in (
        ("none", False, False),
        ("F and policy", True, False),
        ("B", False, True),
        ("both", True, True),
    ):
        for cue, seen in (("cue at the start only", ()), ("cue always visible", ("corridor", "junction", "arm"))):
            yield {"memory": name, "cue": cue, "chance": [case.success(forward, backward, seen)]}


@memory.draw
def _(table, figure):
    axes = figure.subplots()
    Bars("memory", "chance", by="cue", levels={0.5: ""}).on(axes, table)
    axes.set(xlabel="memory in", ylabel="chance of the rewarded arm", ylim=(0, 1.3), yticks=np.linspace(0, 1, 6))
    axes.legend(loc="upper center", ncols=2)
