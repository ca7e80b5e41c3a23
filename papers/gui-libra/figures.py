"""Figures of gui-libra: offline and online success, the KL penalty, scaled negatives, and grounding beside reasoning."""

from __future__ import annotations

import numpy as np

from klsim.objectives.advantages import std_weight
from klsim.objectives.negative_scaling import negative_scaling_weight
from klsim.planning.partial_verification import offline_score
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from .setting import PUBLISHED, SCORES, Heads, Task, Training, World, fine_tuned, grounding_accuracy, trained

figures = Figures()
SEEDS, EVERY = 20, 40
BETAS = (0.0, 1.0, 10.0)
STYLES = {0.0: {"linestyle": "-"}, 1.0: {"linestyle": "--"}, 10.0: {"linestyle": ":"}}
PANELS = {
    "train": "training score (40 states)",
    "entropy": "entropy on unseen states, nats",
    "M_off": "gain of M_off over the start, unseen states",
    "J": "gain of online success J over the start",
}


def runs(run):
    """Scores of every penalty over the checkpoints, ``(6, seeds, 21)``."""
    world = World.draw([run.rng("world", seed) for seed in range(SEEDS)])
    start = fine_tuned(world)
    return {beta: trained(world, start, Training(beta), every=EVERY) for beta in BETAS}


@figures.figure(
    "training",
    title="Training with and without a KL penalty",
    caption="The world of C7: exact scores over 800 RL steps, mean and 95 % interval over 20 seeds; M_off and J: gain over the start of the run. Without the penalty the training score ends"
    " highest and the entropy lowest, with no gain of online success; beta = 1 ends with the most; beta = 10 stays near the start (the paper's"
    " Fig. 9 has coefficients 0 and .001).",
    size=(10.5, 7.0),
)  # fmt: skip
def training(run):
    for beta, path in runs(run).items():
        for score, values in zip(SCORES, path):
            if score in PANELS:
                values = values - values[:, :1] if score in ("M_off", "J") else values
                yield {"score": score, "beta": beta, "step": np.arange(0, 801, EVERY), **over_seeds(value=values)}


@training.draw
def _(table, figure):
    for number, (axes, score) in enumerate(zip(figure.subplots(2, 2).ravel(), PANELS)):
        Lines("step", "value", by="beta", label="beta = {}", styles=STYLES).on(axes, table.rows(score=score))
        axes.set(xlabel="RL step", ylabel=PANELS[score])
        if number == 0:
            axes.legend(loc="center right")


@figures.figure(
    "offline-against-online",
    title="Offline score against online success within runs",
    caption="All checkpoints of 20 runs a penalty, each run centred at its own mean; the number is the correlation of the centred points. Differences"
    " between penalties are of the size of their noise (C7-predicts; the paper's Fig. 10 reports .63 without and .89 with KL).",
    size=(11.0, 3.8),
)  # fmt: skip
def offline_against_online(run):
    for beta, path in runs(run).items():
        score, online = (x - x.mean(axis=1, keepdims=True) for x in (path[1], path[2]))
        yield {"beta": beta, "score": score.ravel(), "online": online.ravel()}


@offline_against_online.draw
def _(table, figure):
    for axes, beta, colour in zip(figure.subplots(1, 3, sharex=True, sharey=True), BETAS, ("C0", "C1", "C2")):
        rows = table.rows(beta=beta)
        found = np.corrcoef(rows["score"], rows["online"])[0, 1]
        axes.plot(rows["score"], rows["online"], "o", markersize=3, alpha=0.5, color=colour)
        axes.locator_params(axis="x", nbins=4)
        axes.set(xlabel="M_off minus its mean over the run", title=f"beta = {beta:g}: correlation {found:.2f}")
    figure.axes[0].set_ylabel("J minus its mean over the run")


@figures.figure(
    "penalty",
    title="Gains against the coefficient of the penalty",
    caption="Gain after 800 steps over the reference, 20 seeds, 95 % intervals: online success has its maximum at a moderate coefficient (C7; the paper's Table 9 has the"
    " coefficients 0, .001, .01, .05, with the most AndroidWorld successes at .001).",
    size=(9.5, 3.8),
)  # fmt: skip
def penalty(run):
    world = World.draw([run.rng("world", seed) for seed in range(SEEDS)])
    start = fine_tuned(world)
    reference = trained(world, start, Training(steps=0))
    for beta in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0):
        path = trained(world, start, Training(beta))
        for name, score in (("online success J", 2), ("M_off", 1)):
            gain = over_seeds(value=(path[score] - reference[score])[:, None])
            yield {"score": name, "beta": [beta], **gain}


@penalty.draw
def _(table, figure):
    for axes, score in zip(figure.subplots(1, 2), table.distinct("score")):
        rows = table.rows(score=score)
        error = np.abs(np.stack([rows["value"] - rows["value low"], rows["value high"] - rows["value"]]))
        axes.errorbar(range(len(rows)), rows["value"], error, fmt="o-", capsize=3)
        axes.set_xticks(range(len(rows)), [f"{b:g}" for b in rows["beta"]])
        axes.axhline(0, color="0.4", linestyle="--", linewidth=1)
        axes.set(xlabel="coefficient beta of the KL penalty", ylabel=f"gain of {score} over the reference")


@figures.figure(
    "bound",
    title="The bound of Theorem 5.2 on random problems",
    caption="300 random problems of C1: 6 states, 4 actions, 4 steps, near-valid policies. The bound never exceeds online success and is tightest"
    " where both are near 1. Policies that are not near-valid make it vacuous, far below 0.",
    size=(5.4, 4.6),
)  # fmt: skip
def bound(run):
    found = [
        offline_score(task.problem, task.log_policy, task.demo, task.valid, task.data)
        for task in (Task.draw(run.rng("task", i)) for i in range(300))
    ]
    return {"bound": [f.bound for f in found], "success": [f.success for f in found]}


@bound.draw
def _(table, figure):
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color="0.4", linewidth=1, label="J = bound")
    axes.plot(table["bound"], table["success"], "o", markersize=3, alpha=0.6, label="problem")
    axes.set(xlabel="bound 1 - H C (1 - M_off - etabar)", ylabel="online success J", ylim=(0.4, 1.02))
    axes.legend(loc="lower right")


@figures.figure(
    "scaled-negatives",
    title="What scaling negatives does to the expected step",
    caption="Exact factor of the expected step by scaled negatives, groups of 8. Left: the four published settings; right: the same beside lambda = 0"
    " (negatives dropped), which gives 1 - p. The published settings change the step by 3.75 % at most (C5).",
    size=(10.0, 3.9),
)  # fmt: skip
def scaled_negatives(run):
    p = np.linspace(0.005, 0.995, 199)
    for name, (offset, slope) in {**PUBLISHED, "lambda = 0": (0.0, 0.0)}.items():
        factor = negative_scaling_weight(p, 8, offset=offset, slope=slope) / std_weight(p, 8)
        yield {"setting": name, "p": p, "factor": factor}


@scaled_negatives.draw
def _(table, figure):
    styles = {"3B": {"linestyle": "-"}, "7B": {"linestyle": "--"}, "4B": {"linestyle": ":"}, "8B": {"linestyle": "-."}}
    drawing = Lines("p", "factor", by="setting", markers=False, styles=styles)
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        drawing.on(axes, table)
        axes.set(xlabel="success probability p of the state", ylabel="factor of the expected step")
    left.set_ylim(0.955, 1.002)
    right.legend(loc="lower left")


@figures.figure(
    "grounding",
    title="Grounding accuracy beside reasoning",
    caption="Test accuracy of the grounding head, 12 seeds, 95 % intervals; dashed: chance of four labels. 24 reasoning heads on a trunk of width 3"
    " crowd it out, a weight of 12 or direct samples bring it back; on a trunk of full width nothing is lost (C6; the paper's Table 8 and Fig. 8).",
    size=(9.0, 3.8),
)  # fmt: skip
def grounding(run):
    rngs = [run.rng("grounding", seed) for seed in range(12)]
    settings = {
        "2 (short)": Heads(2),
        "24 (long)": Heads(24),
        "24, weight 12": Heads(24, 12.0),
        "24, direct samples": Heads(24, direct=True),
    }
    for width in (3, 16):
        for name, heads in settings.items():
            found = grounding_accuracy(rngs, heads._replace(width=width))
            yield {"setting": [name], "trunk": [str(width)], **over_seeds(accuracy=found[:, None])}


@grounding.draw
def _(table, figure):
    axes = figure.subplots()
    Bars("setting", "accuracy", by="trunk", label="trunk of width {}", levels={0.25: "1/4"}).on(axes, table)
    axes.set(xlabel="reasoning heads and remedy", ylabel="grounding accuracy (share of 300)", ylim=(0, 1.2))
    axes.legend(loc="upper left", ncols=2)
