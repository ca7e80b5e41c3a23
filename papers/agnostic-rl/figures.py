"""Figures of agnostic-rl: capacities, coverability, generative and online errors, and what PSDP loses."""

from __future__ import annotations

import numpy as np

from klsim.planning.spanning import spanning_capacity
from klsim.problems.policy_classes import all_policies, l_tons
from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

from .setting import (
    Amplifier,
    Search,
    coverage,
    full_capacity,
    l_ton_capacity,
    online_errors,
    random_class,
    random_mdp,
    singleton_capacity,
    tree_errors,
)

figures = Figures()
POINTS = {
    "linestyle": "none",
    "markerfacecolor": "none",
    "markeredgewidth": 1.5,
}  # one inside the other where they agree
LAYERS = np.arange(1, 9)


@figures.figure(
    "capacities",
    title="Spanning capacity of three classes against the number of layers",
    caption="Two actions. Lines: closed forms for many states a layer; points: exact search with as many states as it needs and can do"
    " (C1). Singletons grow linearly, two-tons quadratically, all policies exponentially.",
    size=(6.5, 4.0),
    draw=Lines("layers", "pairs", by="series", yscale="log", xlabel="layers H", ylabel="spanning capacity C(Π) [pairs]", styles={
        name + kind: {"color": colour, **({"marker": ""} if not kind else {**POINTS, "marker": marker, "markersize": size})}
        for name, colour, marker, size in (("all policies", "C0", "o", 13), ("2-tons", "C1", "s", 8), ("singletons", "C2", "^", 4))
        for kind in ("", ", search")
    }),
)  # fmt: skip
def capacities(run):
    formulas = {
        "all policies": full_capacity,
        "2-tons": lambda h: l_ton_capacity(h, 2),
        "singletons": singleton_capacity,
    }
    searched = {
        "all policies": [all_policies(h, n, 2) for h, n in ((1, 1), (2, 2))],
        "2-tons": [l_tons(h, n, 2) for h, n in ((1, 3), (2, 5), (3, 5))],
        "singletons": [l_tons(h, n) for h, n in ((1, 2), (2, 3), (3, 4), (4, 5))],
    }
    for name, formula in formulas.items():
        yield {"series": name, "layers": LAYERS, "pairs": [formula(int(h)) for h in LAYERS]}
        found = [spanning_capacity(policies, 2).value for policies in searched[name]]
        yield {"series": name + ", search", "layers": LAYERS[: len(found)], "pairs": found}


@figures.figure(
    "coverability",
    title="Coverability as a share of the spanning capacity",
    caption="Eight random classes of six policies (three layers, three states, two actions), 150 random problems each, Dirichlet(α) rows and start"
    " with α log-uniform in [.01, 1]. The largest possible share is 1, reached by deterministic problems (C2).",
    size=(6.0, 3.6),
)  # fmt: skip
def coverability(run):
    for number in range(8):
        rng = run.rng("class", number)
        policies = random_class(rng, 6, 3, 3)
        capacity = spanning_capacity(policies, 2).value
        alpha = 10 ** rng.uniform(-2, 0, 150)
        share = [coverage(random_mdp(rng, 3, 3, alpha=a), policies).max() / capacity for a in alpha]
        yield {"class": number, "alpha": alpha, "share": share}


@coverability.draw
def _(table, figure):
    axes, edges = figure.subplots(), np.linspace(0, 1, 26)
    low = table["alpha"] < 0.1
    axes.hist([table["share"][low], table["share"][~low]], edges, label=["α < .1", "α ≥ .1"])
    axes.set(xlabel="coverability / spanning capacity", ylabel="problems (of 1,200)", xlim=(0, 1.02))
    axes.legend(loc="upper left")


@figures.figure(
    "generative-errors",
    title="Largest error over a class of 24 policies",
    caption="Singletons, n = 24, H = 6, sparse problems (C4): 10 to 300 shared trees, and importance sampling with as many calls (episodes of"
    " six), from uniform actions or from a uniformly drawn member of the class. Means and 95 % intervals over 40 problems.",
    size=(6.5, 4.0),
)
def generative_errors(run):
    sizes = (10, 20, 40, 75, 150, 300)
    found = {t: [tree_errors(run.rng("problem", s), t) for s in range(40)] for t in sizes}
    calls = [np.mean([x.calls.sum() for x in found[t]]) for t in sizes]
    for name, words in (
        ("uniform", "uniform actions"),
        ("core", "members of the class"),
        ("trees", "shared trees"),
    ):
        errors = np.array([[getattr(x, name) for x in found[t]] for t in sizes]).T
        yield {"method": words, "calls": calls, **over_seeds(error=errors)}
    line = np.mean([x.trees for x in found[sizes[0]]]) * np.sqrt(calls[0] / np.array(calls))
    yield {"method": "slope −1/2", "calls": calls, "error": line, "error low": line, "error high": line}


@generative_errors.draw
def _(table, figure):
    axes = figure.subplots()
    drawing = Lines("calls", "error", by="method", xscale="log", yscale="log", styles={
        "slope −1/2": {"marker": "", "linestyle": ":", "color": "0.4"}})  # fmt: skip
    drawing.on(axes, table)
    _plain_ticks(axes.xaxis, (250, 500, 1000, 2000, 4000, 8000))
    axes.set(xlabel="calls of the problem (mean over problems)", ylabel="largest error of a value")
    axes.legend(loc="lower left")


def _plain_ticks(axis, values):
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


@figures.figure(
    "online-errors",
    title="Online evaluation of n singletons",
    caption="H = 5, sparse problems with Dirichlet(1.2/n) rows and start: petals that are reached with probability .05, against the same"
    " episodes split over the policies (C8). Means and 95 % intervals over 12 problems.",
    size=(6.5, 4.0),
)
def online_error(run):
    sizes = (30, 60, 120, 240)
    found = {n: [online_errors(run.rng("problem", n, s), n, alpha=1.2 / n) for s in range(12)] for n in sizes}
    for name, words in (("naive", "split over the policies"), ("petals", "petals")):
        errors = np.array([[getattr(x, name) for x in found[n]] for n in sizes]).T
        episodes = [np.mean([x.episodes for x in found[n]]) for n in sizes]
        petals = [np.mean([x.discovered for x in found[n]]) for n in sizes]
        yield {"method": words, "n": sizes, **over_seeds(error=errors), "episodes": episodes, "petals": petals}


@online_error.draw
def _(table, figure):
    axes = figure.subplots()
    Lines("n", "error", by="method", xscale="log", yscale="log").on(axes, table)
    _plain_ticks(axes.xaxis, (30, 60, 120, 240))
    _plain_ticks(axes.yaxis, (0.02, 0.03, 0.05, 0.1))
    axes.set(xlabel="states a layer n = number of policies", ylabel="largest error of a value")
    axes.legend(loc="upper left")


@figures.figure(
    "psdp-resets",
    title="What PSDP earns where its class is not complete",
    caption="The example of C7-agnostic: x pays 1 for action 0, y pays .4 for action 1, the class is {always 0, always 1}; only x is ever reached."
    " PSDP changes its mind at 5/7, where 1 - q = .4 q.",
    size=(6.0, 3.4),
)
def psdp_resets(run):
    grid = np.linspace(0, 1, 201)
    yield {"series": "PSDP", "on y": grid, "value": [Search.example(q).run().value for q in grid]}
    yield {"series": "best of the class", "on y": grid, "value": [Search.example(q).best_in_class() for q in grid]}


@psdp_resets.draw
def _(table, figure):
    axes, dashed = figure.subplots(), {"best of the class": {"linestyle": "--"}}
    Lines("on y", "value", by="series", marks={5 / 7: "5/7"}, markers=False, styles=dashed).on(axes, table)
    axes.set(xlabel="reset probability of y at layer 2", ylabel="value", ylim=(-0.15, 1.1))
    axes.legend(loc="center left")


@figures.figure(
    "amplification",
    title="PSDP amplifies one error of its last layer",
    caption="p = 1/4, ε = 1e-4, a realisable class (C9): the gap grows by κ = 3.697 a layer; with all maps in the class it stays ε.",
    size=(6.0, 3.6),
    draw=Lines("layers", "gap", by="class", yscale="log", xlabel="layers H", ylabel="gap V* − V", styles={
        "ε κ^(H−1)": {"marker": "", "linewidth": 7, "color": "0.8"}}),
)  # fmt: skip
def amplification(run):
    made = [Amplifier(0.25, 1e-4, int(h)) for h in range(2, 9)]
    layers = [m.horizon for m in made]
    yield {"class": "ε κ^(H−1)", "layers": layers, "gap": [m.eps * m.kappa ** (m.horizon - 1) for m in made]}
    yield {"class": "always 0, always 1", "layers": layers, "gap": [m.gap() for m in made]}
    yield {"class": "all eight maps", "layers": layers, "gap": [m.gap(complete=True) for m in made]}
