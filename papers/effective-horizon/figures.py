"""Figures of effective-horizon: growth with T, what predicts the sample need, how many backups, GORP against SQIRL."""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from klsim.planning import effective_horizon
from klsim.problems import sticky_actions
from klsim.report import Figures

from .claims import (
    HORIZONS,
    chain,
    chain_success,
    fork_returns,
    lock,
    lock_success,
    needed,
    needed_by_formula,
    random_mdp,
    suite,
)

figures = Figures()


@figures.figure(
    "growth",
    title="Episodes that SQIRL(1) needs against the number of steps",
    caption="Two actions, both problems 1-QVI-solvable. Points: simulated, smallest grid value with at least 11 of 21 exactly optimal runs there"
    " and at the next; lines: closed forms. One bit a step on the lock; the 1/gap² form implies two (C5).",
    size=(6.5, 4.0),
)
def growth(run):
    columns = {k: [] for k in ("problem", "horizon", "simulated", "formula")}
    for name, make, success in (
        ("sparse lock", lock, lambda t, m: lock_success(t, 2, m)),
        ("dense chain", chain, chain_success),
    ):
        for horizon in HORIZONS:
            simulated = needed(make(int(horizon)), 1, run.rng(name, int(horizon)), runs=21, successes=11)
            row = (name, int(horizon), simulated, needed_by_formula(success, int(horizon)))
            for key, value in zip(columns, row):
                columns[key].append(value)
    return columns


@growth.draw
def _(table, figure):
    axes = figure.subplots()
    for marker, name in zip("os", table.distinct("problem")):
        rows = table.rows(problem=name)
        (line,) = axes.semilogy(rows["horizon"], rows["formula"], base=2, label=f"{name}, formula")
        axes.semilogy(
            rows["horizon"], rows["simulated"], marker, color=line.get_color(), base=2, label=f"{name}, simulated"
        )
    steps = table.distinct("horizon")
    axes.semilogy(steps, [4.0 ** (t - 2) * 2 for t in steps], ":", color="0.5", base=2, label="two bits a step")
    axes.set(xlabel="steps T", ylabel="episodes a step, m*", ylim=(0.7, 2**12))
    axes.legend(loc="upper left")


FAMILIES = ("dense random", "sparse random", "dense chain", "sparse lock")


@figures.figure(
    "what-predicts",
    title="What predicts the sample need of SQIRL",
    caption="120 random problems with up to 6 steps and 4 actions; N* = T² m*. The stochastic effective horizon ranks them better than the"
    " horizon itself (C4).",
    size=(9.0, 4.0),
)
def what_predicts(run):
    rows = np.concatenate([suite(run.rng("suite", seed)) for seed in range(3)])
    return {
        "family": [FAMILIES[int(f)] for f in rows[:, 3]],
        "log N*": rows[:, 0],
        "Hbar log A": rows[:, 1],
        "T log A": rows[:, 2],
    }


@what_predicts.draw
def _(table, figure):
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("Hbar log A", "T log A")):
        for marker, family in zip("os^D", FAMILIES):
            rows = table.rows(family=family)
            axes.plot(rows[name], rows["log N*"], marker, label=family, alpha=0.8)
        rho = spearmanr(table[name], table["log N*"])[0]
        axes.set(xlabel=f"{name} [nats]", title=f"Spearman correlation {rho:.2f}")
    panels[0].set(ylabel="log N*")
    panels[1].legend(loc="upper left")


@figures.figure(
    "backups",
    title="How many backups until acting greedily is optimal",
    caption="Smallest solvable k of 300 random MDPs of T steps (4 states, 2 actions), rewards 1/T with probability .2 or dense; sticky: the"
    " previous action is repeated with probability .25 (C1).",
    size=(9.0, 3.4),
)
def backups(run):
    columns = {k: [] for k in ("steps", "variant", "k", "share")}
    for steps in (4, 5, 6):
        for variant in ("sparse", "sparse, sticky", "dense"):
            smallest = []
            for seed in range(300):
                problem = random_mdp(run.rng("mdp", seed), steps, reward=variant.partition(",")[0])
                problem = sticky_actions(problem, 0.25) if "sticky" in variant else problem
                smallest.append(1 + int(np.argmax(effective_horizon(problem).solvable)))
            for k in range(1, 7):
                for key, value in zip(columns, (steps, variant, k, np.mean(np.array(smallest) == k))):
                    columns[key].append(value)
    return columns


@backups.draw
def _(table, figure):
    panels = figure.subplots(1, 3, sharey=True)
    for axes, steps in zip(panels, table.distinct("steps")):
        rows = table.rows(steps=steps)
        for shift, variant in zip((-0.27, 0.0, 0.27), rows.distinct("variant")):
            bars = rows.rows(variant=variant)
            axes.bar(bars["k"] + shift, bars["share"], 0.25, label=variant)
        axes.set(xlabel="smallest solvable k", title=f"T = {steps:g}", xticks=range(1, 7))
    panels[0].set(ylabel="share of MDPs")
    panels[-1].legend(loc="upper right")


@figures.figure(
    "gorp-against-sqirl",
    title="Averaging action sequences against learning values",
    caption="Two steps, stochastic first transition: the right second action depends on the state. GORP decides before it sees the state;"
    " SQIRL(1) does not back up far enough (C6).",
    size=(5.5, 3.2),
)
def gorp_against_sqirl(run):
    values = fork_returns(run.seed)
    return {"method": list(values), "return": [float(v) for v in values.values()]}


@gorp_against_sqirl.draw
def _(table, figure):
    axes = figure.subplots()
    axes.bar(table["method"], table["return"], color=["0.6", "C0", "C1", "C0", "C1"])
    axes.set(ylabel="exact return", ylim=(0, 1.1))
    axes.tick_params(axis="x", labelsize=8)
