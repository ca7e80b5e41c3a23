"""Figures of robust-fdiv: the price of perturbations, return under shift, the American put, evaluations a backup."""

from __future__ import annotations

import numpy as np

from klsim.optima import worst_case
from klsim.report import Figures

from .claims import (
    DIVERGENCES,
    METHODS,
    OPTIONS,
    backup_problem,
    constrained_tv_evaluations,
    log,
    nominal,
    put_returns,
    regularised_tv_evaluations,
    returns,
    trained_policies,
)

figures = Figures()
NAMES = {"tv": "TV", "kl": "KL", "chi2": "chi²"}
LAMS = np.logspace(-2, 2, 80)


@figures.figure(
    "worst-case",
    title="What the adversary can do at a price",
    caption="Six states, one value function. Left: full support. Right: the worst state has no mass under the nominal law, and only TV falls"
    " to its value. Dotted: nominal mean and minimum (C1, C3).",
    size=(8.5, 3.6),
)
def worst_case_curve(run):
    mu0, value = nominal(1, full_support=True)
    missing = mu0.copy()
    missing[value.argmin()] = 0.0
    columns = {k: [] for k in ("support", "divergence", "lam", "value", "mean", "minimum")}
    for support, law in (("full support", mu0), ("worst state missing", missing / missing.sum())):
        for name in DIVERGENCES:
            rows = np.broadcast_to(log(law), (len(LAMS), len(law)))
            values = np.asarray(worst_case(rows, np.broadcast_to(value, rows.shape), LAMS, name))
            for lam, v in zip(LAMS, values):
                entry = (support, NAMES[name], lam, v, law @ value, value.min())
                for key, item in zip(columns, entry):
                    columns[key].append(item)
    return columns


@worst_case_curve.draw
def _(table, figure):
    panels = figure.subplots(1, 2, sharey=True)
    for axes, support in zip(panels, table.distinct("support")):
        rows = table.rows(support=support)
        for style, name in zip(("-", "--", "-."), rows.distinct("divergence")):
            line = rows.rows(divergence=name)
            axes.semilogx(line["lam"], line["value"], style, label=name)
        for level in ("mean", "minimum"):
            axes.axhline(rows[level][0], color="0.5", linestyle=":", linewidth=1)
        axes.set(xlabel="price lam", title=support)
    panels[0].set(ylabel="worst-case value")
    panels[0].legend(loc="lower right")


QS = np.linspace(0, 1, 11)


@figures.figure(
    "return-under-shift",
    title="Return on the simulated linear MDP under a shift",
    caption="100 episodes of uniform actions on the nominal problem, mean over 20 data sets; the good factor leads to the fail state with"
    " probability q at the first step. The uncentred KL regression loses its robustness to ridge shrinkage (C6).",
    size=(9.0, 3.8),
)
def return_under_shift(run):
    columns = {k: [] for k in ("lam", "method", "q", "return")}
    for lam in (0.1, 0.5):
        totals = {name: np.zeros(len(QS)) for name in METHODS}
        for seed in range(20):
            for name, policy in trained_policies(run.rng("data", seed), lam).items():
                totals[name] += [returns(policy, q) for q in QS]
        for name, total in totals.items():
            for q, value in zip(QS, total / 20):
                for key, item in zip(columns, (lam, name, q, value)):
                    columns[key].append(item)
    return columns


@return_under_shift.draw
def _(table, figure):
    panels = figure.subplots(1, 2, sharey=True)
    for axes, lam in zip(panels, table.distinct("lam")):
        rows = table.rows(lam=lam)
        for style, name in zip(("k-", "-", ":", "--", "-."), rows.distinct("method")):
            line = rows.rows(method=name)
            axes.plot(line["q"], line["return"], style, label=name)
        axes.set(xlabel="probability q of the shift", title=f"lam = {lam:g}")
    panels[0].set(ylabel="expected return")
    panels[0].legend(loc="lower left")


P_UPS = (0.2, 0.4, 0.6, 0.8, 1.0)


@figures.figure(
    "american-put",
    title="American put: return against the probability of an up move",
    caption="Trained at .5 on 100 never-exercised paths, exact evaluation on the binomial lattice, mean and standard error over 20 training sets."
    " Robust methods earn less when prices fall and more when they rise; the uncentred KL regression is the most aggressive (C8).",
)
def american_put(run):
    columns = {k: [] for k in ("method", "p_up", "return", "stderr")}
    for name in OPTIONS:
        values = np.array([put_returns(run.rng("put", seed), name, P_UPS) for seed in range(20)])
        for p, mean, error in zip(P_UPS, values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(20)):
            for key, item in zip(columns, (name, p, mean, error)):
                columns[key].append(item)
    return columns


@american_put.draw
def _(table, figure):
    axes = figure.subplots()
    for style, name in zip(("ko-", "s-", "^--", "v:"), table.distinct("method")):
        rows = table.rows(method=name)
        axes.errorbar(rows["p_up"], rows["return"], rows["stderr"], fmt=style, capsize=2, label=name)
    axes.set(xlabel="probability of an up move in the test", ylabel="mean return [price units]")
    axes.legend()


@figures.figure(
    "evaluations",
    title="Evaluations of a dual objective in one backup",
    caption="K = 1000 transitions. The regularised TV dual is one pass over the clipped values; the constrained one is a Nelder-Mead search for"
    " every factor (C7).",
    size=(5.5, 3.6),
)
def evaluation_counts(run):
    dims = (30, 60, 120)
    columns = {"d": list(dims), "regularised TV": [], "constrained TV": []}
    for d in dims:
        problem = backup_problem(0, latent=d)
        columns["regularised TV"].append(regularised_tv_evaluations(*problem))
        columns["constrained TV"].append(constrained_tv_evaluations(*problem))
    return columns


@evaluation_counts.draw
def _(table, figure):
    axes = figure.subplots()
    for style, name in (("o-", "constrained TV"), ("s--", "regularised TV")):
        axes.loglog(table["d"], table[name], style, label=name)
    axes.set(xlabel="latent factors d", ylabel="evaluations a backup")
    axes.set_xticks(table["d"], [f"{d:g}" for d in table["d"]])
    axes.minorticks_off()
    axes.legend(loc="center right")
