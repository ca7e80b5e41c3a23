"""Figures of sequoia: rewards by method, sigmoid links."""

from __future__ import annotations

import numpy as np

from klsim.problems.restless_bandit import saturating_link
from klsim.report.figures import Figures, over_seeds

from . import setting as st

figures = Figures()
SEEDS = 5
TITLES = {"multi": "multiple interventions", "path": "paths", "bipartite": "scheduling", "capacity": "capacities"}
SHOWN = ("null", "random", "iterative myopic", "myopic", "iterative DQN", "SEQUOIA")


@figures.figure(
    "rewards",
    title="Average reward of a step, by method",
    caption=f"J = 4 (paths 5), B = 2 (interventions N = 6, B = 3), H = 20; exact values, mean and 95 % interval over {SEEDS} instances a problem. Dashed: the"
    " optimum. Myopic actions miss most of it; greedy additions on the same network (iterative DQN) fall behind with interventions alone (C5, C6).",
    size=(12.0, 4.2),
)  # fmt: skip
def rewards(run):
    found = st.study([run.rng("instance", i) for i in range(SEEDS)])
    for kind, methods in found.items():
        for name in (*SHOWN, "optimum"):
            yield {"problem": kind, "method": name, **over_seeds(value=methods[name][:, None])}


@rewards.draw
def _(table, figure):
    for number, (axes, kind) in enumerate(zip(figure.subplots(1, 4, sharey=True), TITLES)):
        rows, places = table.rows(problem=kind), np.arange(len(SHOWN))
        shown = [rows.rows(method=m) for m in SHOWN]
        height, low, high = (np.array([r[c][0] for r in shown]) for c in ("value", "value low", "value high"))
        colours = ["C1" if m == "iterative DQN" else "C0" if m == "SEQUOIA" else "0.65" for m in SHOWN]
        hatches = ["//" if m == "iterative DQN" else "" for m in SHOWN]
        axes.bar(places, height, 0.75, yerr=[height - low, high - height], color=colours, hatch=hatches, capsize=2)
        axes.axhline(rows.rows(method="optimum")["value"][0], color="0.2", linestyle="--", linewidth=1)
        axes.set_xticks(places, SHOWN, rotation=45, ha="right")
        axes.grid(axis="x", visible=False)
        axes.set(title=TITLES[kind], ylabel="expected reward of a step" if number == 0 else "")


@figures.figure(
    "links",
    title="Sigmoid links",
    caption="Chance that an arm moves up against the sum of the weights of its interventions, 8 draws of (height, slope, midpoint) each. Marks: none, one, two and three"
    " interventions. One does next to nothing for a good arm (C6).",
    size=(6.5, 4.0),
)  # fmt: skip
def links(run):
    x = np.linspace(0, 10, 81)
    for kind in ("good", "bad"):
        height, slope, midpoint = st.links(run.rng(kind), np.full(8, kind == "good"))
        for i in range(8):
            yield {"arm": kind, "draw": i, "x": x, "up": saturating_link(x, height[i], slope[i], midpoint[i])}


@links.draw
def _(table, figure):
    axes, marks = figure.subplots(), (0.0, 3.0, 6.0, 9.0)
    for kind, style in (("good", {"color": "C0"}), ("bad", {"color": "C1", "linestyle": "--"})):
        rows = table.rows(arm=kind)
        for i in rows.distinct("draw"):
            one = rows.rows(draw=i)
            at = np.isin(one["x"], marks)
            axes.plot(one["x"], one["up"], marker="", linewidth=1.2, label=f"{kind} arms" if i == 0 else None, **style)
            axes.plot(one["x"][at], one["up"][at], "o" if kind == "good" else "s", color=style["color"], markersize=4)
    axes.set(xlabel="sum of weights x", ylabel="chance of moving up", ylim=(0, 1.02))
    axes.legend(loc="upper left")
