"""Figures of robust-fdiv: the price of perturbations, return under shift, the American put, evaluations a backup."""

from __future__ import annotations

import numpy as np

from klsim.optima import worst_case
from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

from .setting import (
    DIVERGENCES,
    METHODS,
    PUT_METHODS,
    Backup,
    Nominal,
    constrained_evaluations,
    log,
    put_returns,
    regularised_evaluations,
    returns,
    trained_policies,
)

figures = Figures()
NAMES = {"tv": "TV", "kl": "KL", "chi2": "chi²"}
LAMS = np.logspace(-2, 2, 80)
LEVEL = {"color": "0.5", "linestyle": ":"}


@figures.figure(
    "worst-case",
    title="What the adversary can do at a price",
    caption="Six states, one value function. Left: full support. Right: the worst state has no mass under the nominal law, and only TV falls"
    " to its value. Dotted: nominal mean and minimum (C1, C3).",
    size=(8.5, 3.6),
    draw=Lines("lam", "value", by="divergence", panels="support", xscale="log", xlabel="price lam", ylabel="worst-case value",
               markers=False, styles={"KL": {"linestyle": "--"}, "chi²": {"linestyle": "-."}, "mean": LEVEL, "minimum": LEVEL}),
)  # fmt: skip
def worst_case_curve(run):
    mu0, value = Nominal.covering(np.random.default_rng(1))
    missing = np.where(value > value.min(), mu0, 0.0)
    for support, law in (("full support", mu0), ("worst state missing", missing / missing.sum())):
        rows = np.broadcast_to(log(law), (len(LAMS), len(law)))
        for name in DIVERGENCES:
            values = worst_case(rows, np.broadcast_to(value, rows.shape), LAMS, name)
            yield {"support": support, "divergence": NAMES[name], "lam": LAMS, "value": values}
        for name, level in (("mean", law @ value), ("minimum", value.min())):
            yield {"support": support, "divergence": name, "lam": LAMS[[0, -1]], "value": level}


QS = np.linspace(0, 1, 11)


@figures.figure(
    "return-under-shift",
    title="Return on the simulated linear MDP under a shift",
    caption="100 episodes of uniform actions on the nominal problem, mean over 20 data sets with 95 % intervals; the good factor leads to the"
    " fail state with probability q at the first step. The uncentred KL regression loses its robustness to ridge shrinkage (C6).",
    size=(9.0, 3.8),
    draw=Lines(
        "q", "return", by="method", panels="price", xlabel="probability q of the shift", ylabel="expected return"
    ),
)
def return_under_shift(run):
    for lam in (0.1, 0.5):
        trained = [trained_policies(run.rng("data", seed), lam) for seed in range(20)]
        for name in METHODS:
            found = [[returns(policies[name], q) for q in QS] for policies in trained]
            yield {"price": f"lam = {lam:g}", "method": name, "q": QS, **over_seeds(**{"return": found})}


P_UPS = (0.2, 0.4, 0.6, 0.8, 1.0)


@figures.figure(
    "american-put",
    title="American put: return against the probability of an up move",
    caption="Trained at .5 on 100 never-exercised paths, exact evaluation on the binomial lattice, mean over 40 training sets with 95 %"
    " intervals. Robust methods earn less when prices fall and more when they rise; the uncentred KL regression is the most aggressive (C8).",
    draw=Lines(
        "p_up",
        "return",
        by="method",
        xlabel="probability of an up move in the test",
        ylabel="mean return [price units]",
    ),
)
def american_put(run):
    for name in PUT_METHODS:
        found = [put_returns(run.rng("put", seed), name, P_UPS) for seed in range(40)]
        yield {"method": name, "p_up": P_UPS, **over_seeds(**{"return": found})}


@figures.figure(
    "evaluations",
    title="Evaluations of a dual objective in one backup",
    caption="K = 1000 transitions, all factors together. The regularised TV and KL duals are evaluated once a factor; the constrained TV dual"
    " is a Nelder-Mead search for every factor, chi² a scan over the data and a grid (C7).",
    size=(5.8, 3.6),
)
def evaluation_counts(run):
    dims = (30, 60, 120)
    backups = [Backup.draw(run.rng("backup", d), d) for d in dims]
    for name, label in (("tv", "regularised TV, KL"), ("chi2", "regularised chi²")):
        yield {"d": dims, "dual": label, "evaluations": [regularised_evaluations(b, name) for b in backups]}
    yield {"d": dims, "dual": "constrained TV", "evaluations": [constrained_evaluations(b) for b in backups]}


@evaluation_counts.draw
def _(table, figure):
    axes = figure.subplots()
    Lines("d", "evaluations", by="dual", xscale="log", yscale="log").on(axes, table)
    dims = table.distinct("d")
    axes.set_xticks(dims, [f"{d:g}" for d in dims])
    axes.minorticks_off()
    axes.set(xlabel="latent factors d", ylabel="evaluations a backup")
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.72))
