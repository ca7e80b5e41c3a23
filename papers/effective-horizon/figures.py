"""Figures of effective-horizon: growth with T, what predicts the sample need, how many backups, GORP against SQIRL."""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from klsim.planning import effective_horizon
from klsim.problems import sticky_actions
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures

from .setting import (
    FAMILIES,
    Fork,
    chain,
    chain_success,
    lock,
    lock_success,
    needed,
    needed_by_formula,
    random_mdp,
    suite,
)

figures = Figures()
HORIZONS = np.arange(2, 11)
POINTS = {"linestyle": "none"}


@figures.figure(
    "growth",
    title="Episodes that SQIRL(1) needs against the number of steps",
    caption="Two actions, both problems 1-QVI-solvable. Points: simulated, smallest grid value with at least 11 of 21 exactly optimal runs there"
    " and at the next; lines: closed forms, exact on the lock, with normal means (too few below ten episodes) on the chain. One bit a step on"
    " the lock; the 1/gap² form implies two (C5).",
    size=(6.5, 4.0),
    draw=Lines("horizon", "episodes", by="series", yscale="log", xlabel="steps T", ylabel="episodes a step, m*", styles={
        "sparse lock, formula": {"marker": "", "color": "C0"}, "sparse lock, simulated": {**POINTS, "color": "C0"},
        "dense chain, formula": {"marker": "", "color": "C1"}, "dense chain, simulated": {**POINTS, "color": "C1"},
        "two bits a step": {"marker": "", "linestyle": ":", "color": "0.5"},
    }),
)  # fmt: skip
def growth(run):
    for name, make, success in (
        ("sparse lock", lock, lambda t, m: lock_success(t, 2, m)),
        ("dense chain", chain, chain_success),
    ):
        simulated = [needed(make(int(t)), 1, run.rng(name, int(t)), runs=21, successes=11) for t in HORIZONS]
        formula = [needed_by_formula(success, int(t)) for t in HORIZONS]
        yield {"series": f"{name}, formula", "horizon": HORIZONS, "episodes": formula}
        yield {"series": f"{name}, simulated", "horizon": HORIZONS, "episodes": simulated}
    yield {"series": "two bits a step", "horizon": HORIZONS[:6], "episodes": 2 * 4 ** (HORIZONS[:6] - 2)}


@figures.figure(
    "what-predicts",
    title="What predicts the sample need of SQIRL",
    caption="270 random problems with up to 6 steps and 4 actions, those that few backups solve; N* = T² m*. The stochastic effective horizon"
    " ranks them better than the horizon itself (C4).",
    size=(9.0, 4.0),
)
def what_predicts(run):
    rows = np.concatenate([suite(run.rng("suite", seed)) for seed in range(3)])
    family = [FAMILIES[int(f)] for f in rows[:, 3]]
    return {"family": family, "log N*": rows[:, 0], "Hbar log A": rows[:, 1], "T log A": rows[:, 2]}


@what_predicts.draw
def _(table, figure):
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("Hbar log A", "T log A")):
        drawing = Lines(name, "log N*", by="family", styles={f: {**POINTS, "alpha": 0.8} for f in FAMILIES})
        drawing.on(axes, table)
        rho = spearmanr(table[name], table["log N*"])[0]
        axes.set(xlabel=f"{name} [nats]", title=f"Spearman correlation {rho:.2f}")
    panels[0].set(ylabel="log N* [nats]")
    panels[1].legend(loc="upper left")


@figures.figure(
    "backups",
    title="How many backups until acting greedily is optimal",
    caption="Smallest solvable k of 300 random MDPs of T steps (4 states, 2 actions), rewards 1/T with probability .2 or dense; sticky: the"
    " previous action is repeated with probability .25 (C1).",
    size=(9.0, 3.4),
    draw=Bars("k", "share", by="variant", panels="steps", xlabel="smallest solvable k", ylabel="share of MDPs"),
)
def backups(run):
    for steps in (4, 5, 6):
        for variant in ("sparse", "sparse, sticky", "dense"):
            smallest = []
            for seed in range(300):
                problem = random_mdp(run.rng("mdp", seed), steps, reward=variant.partition(",")[0])
                problem = sticky_actions(problem, 0.25) if "sticky" in variant else problem
                smallest.append(1 + int(np.argmax(effective_horizon(problem).solvable)))
            ks = np.arange(1, 7)
            share = [np.mean(np.array(smallest) == k) for k in ks]
            yield {"steps": f"T = {steps}", "variant": variant, "k": ks, "share": share}


@figures.figure(
    "gorp-against-sqirl",
    title="Averaging action sequences against learning values",
    caption="Two steps, stochastic first transition: the right second action depends on the state, the safe first action pays .7. GORP decides"
    " before it sees the state; SQIRL(1) does not back up far enough. On a deterministic lock GORP is optimal (C6).",
    size=(5.5, 3.2),
    draw=Bars("method", "return", ylabel="exact return"),
)
def gorp_against_sqirl(run):
    values = Fork(0, 0, 0.7).returns(run.rng("fork"))
    return {"method": list(values), "return": list(values.values())}
