"""Figures of rlvmr: bars of methods, training and horizons, the ablation without outcome, and alpha."""

from __future__ import annotations

import numpy as np

from klsim.learning.search_world import MetaRewards
from klsim.planning import evaluate
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from .setting import GRPO, MR, WORLD, learn, measured, scores

figures = Figures()
SEEDS = 16
LEVELS = {"seen": "L0", "moved": "L1", "unseen": "L2"}
HORIZONS = (6, 8, 10, 11, 12, 14, 17, 20)
MARKS = (0, 5, 10, 20, 30, 40, 60, 80, 100, 125, 150)
REMEDY = MetaRewards(until_found=True)


def rngs(run, name):
    return [run.rng(name, seed) for seed in range(SEEDS)]


@figures.figure(
    "methods",
    title="Success and repetition of three methods",
    caption="Search world, 10 boxes, horizon 14: training tasks (L0), the object anywhere (L1), no bias for the task (L2). Clone: maximum likelihood on 200"
    " trajectories of an expert that stops when it has found the object; GRPO and GRPO-MR (alpha = .5): 150 updates. Mean and 95 % interval over 16 seeds,"
    " 4000 episodes each (C4; the paper's Fig. 4 is on ALFWorld, with a weak clone; invalid actions do not exist here).",
    size=(9.5, 4.0),
)  # fmt: skip
def methods(run):
    streams = rngs(run, "methods")
    policies = {
        "clone": np.array([WORLD.clone(rng=run.rng("clone", s)) for s in range(SEEDS)]),
        "GRPO": learn(streams, GRPO)[:, -1],
        "GRPO-MR": learn(streams, MR)[:, -1],
    }
    for method, found in policies.items():
        for where, level in LEVELS.items():
            success, repetition, _, _ = measured(streams, found, MR, where=where)
            yield {
                "method": [method],
                "tasks": [level],
                **over_seeds(success=success[:, None], repetition=repetition[:, None]),
            }


@methods.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    Bars("tasks", "success", by="method").on(left, table)
    Bars("tasks", "repetition", by="method").on(right, table)
    left.set(xlabel="tasks", ylabel="success", ylim=(0, 1.19))
    right.set(xlabel="tasks", ylabel="repeated box actions per step")
    left.legend(ncols=3, loc="upper center", fontsize=8)


@figures.figure(
    "training",
    title="Training, and the horizon",
    caption="Left, middle: success and length on unseen tasks (L2) over training at horizon 14, from 4000 episodes: GRPO-MR gains success with longer episodes."
    " Right: success on L2 after 150 updates against the horizon, dashed: 10 boxes; grey: the bound min(1, (H - 1)/10) of any policy. Up to the number of"
    " boxes GRPO-MR collapses, unless it pays for new boxes only until the find. Mean and 95 % interval over 16 seeds (C4; the paper's Fig. 5).",
    size=(12.5, 4.0),
)  # fmt: skip
def training(run):
    for method, pay in {"GRPO": GRPO, "GRPO-MR": MR}.items():
        streams = rngs(run, "training")
        paths = learn(streams, pay, record=MARKS)
        found = np.array([measured(streams, paths[:, i], pay) for i in range(len(MARKS))])
        for panel, score in (("success", 0), ("steps", 2)):
            yield {"panel": panel, "method": method, "x": MARKS, **over_seeds(value=found[:, score].T)}
    for method, pay in {"GRPO": GRPO, "GRPO-MR": MR, "GRPO-MR, paid until the find": REMEDY}.items():
        found = np.array([scores(rngs(run, "horizon"), pay, horizon)["success"] for horizon in HORIZONS])
        yield {"panel": "horizon", "method": method, "x": HORIZONS, **over_seeds(value=found.T)}


@training.draw
def _(table, figure):
    left, middle, right = figure.subplots(1, 3)
    for axes, panel in ((left, "success"), (middle, "steps"), (right, "horizon")):
        Lines("x", "value", by="method", marks={10: "boxes"} if panel == "horizon" else {}).on(
            axes, table.rows(panel=panel)
        )
    right.plot(
        HORIZONS, np.minimum(1, (np.array(HORIZONS) - 1) / 10), color="0.5", linewidth=1, label="bound of any policy"
    )
    left.set(xlabel="updates", ylabel="success on L2", ylim=(0, 1.05))
    middle.set(xlabel="updates", ylabel="steps of an episode on L2", ylim=(0, 14))
    right.set(xlabel="horizon H, steps", ylabel="success on L2", ylim=(0, 1.05))
    left.legend(loc="lower right")
    right.legend(loc="lower right", fontsize=7)


ABLATIONS = {
    "both\nalpha = .5": MR,
    "outcome only\nalpha = 1": GRPO,
    "meta-rewards only\nalpha = 0": MetaRewards(0.0),
    "alpha = 0,\nplanning unpaid": MetaRewards(0.0, planning=False),
    "alpha = 0, planning\nat every step": MetaRewards(0.0, first_only=False),
    "alpha = 0, planning at\nevery step, unpaid": MetaRewards(0.0, first_only=False, planning=False),
}


@figures.figure(
    "ablations",
    title="Without the outcome",
    caption="Success on L2 at horizon 14, 150 updates, mean and 95 % interval over 16 seeds. Dashed: the untrained policy, exactly."
    " Where planning may be emitted at every step its reward leaks the outcome (C2, C5; the paper's ablation table).",
    size=(9.5, 4.0),
)  # fmt: skip
def ablations(run):
    for name, pay in ABLATIONS.items():
        found = scores(rngs(run, "ablations"), pay)["success"]
        yield {"setting": [name], **over_seeds(success=found[:, None])}


@ablations.draw
def _(table, figure):
    untrained = evaluate(WORLD.mdp(success=1.0), WORLD.lumped(WORLD.start())).reward
    axes = figure.subplots()
    Bars("setting", "success", levels={untrained: ""}).on(axes, table)
    axes.set(xlabel="what is rewarded", ylabel="success on L2", xlim=(-1.0, 5.5))
    axes.annotate("untrained", (-0.97, untrained), xytext=(0, 3), textcoords="offset points", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)


ALPHAS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


@figures.figure(
    "alpha",
    title="The weight of the outcome",
    caption="Success and repetition on L2 after 150 updates against alpha (1 is GRPO), mean and 95 % interval over 16 seeds. Above the horizon of an exhaustive"
    " search (14 > 10 boxes) the middle is best; at horizon 8 only alpha near 1 is good (C6; the paper uses .5). One normaliser for all steps:"
    " the same success at horizon 14.",
    size=(9.5, 4.0),
)  # fmt: skip
def alpha(run):
    settings = {"H = 14": (14, False), "H = 14, one normaliser": (14, True), "H = 8": (8, False)}
    for name, (horizon, pooled) in settings.items():
        found = [scores(rngs(run, "alpha"), MetaRewards(a, pooled), horizon) for a in ALPHAS]
        both = {s: np.array([f[s] for f in found]).T for s in ("success", "repetition")}
        yield {"setting": name, "alpha": ALPHAS, **over_seeds(**both)}


@alpha.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for axes, score, label in (
        (left, "success", "success on L2"),
        (right, "repetition", "repeated box actions per step, L2"),
    ):
        Lines("alpha", score, by="setting", styles={"H = 14, one normaliser": {"linestyle": "--"}}).on(axes, table)
        axes.set(xlabel="alpha, weight of the outcome", ylabel=label)
    left.set(ylim=(0, 1.05))
    right.set(ylim=(0, None))
    left.legend(loc="center left", bbox_to_anchor=(0.0, 0.42), fontsize=8)
