"""Figures of drive: windows and entropy, accuracy by difficulty, rollouts a group, curricula, the reported numbers."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from klsim.learning.difficulty import group_signal
from klsim.learning.prompt_pools import PromptPool
from klsim.objectives.advantages import std_weight
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from .setting import (
    BENCHMARKS,
    BUCKET_LR,
    BUCKET_ROLLOUTS,
    BUCKET_SIZE,
    BUCKETS,
    HARD_FOCUS,
    HARD_LR,
    HARD_START,
    MASTERY,
    REPORTED,
    SIZES,
    STEPS,
    TRUNCATED,
    UNIFORM,
    accuracies,
    draw_pool,
    entropies,
    trained,
)

figures = Figures()


@figures.figure(
    "entropy-by-window",
    title="Entropy under a short and a long window",
    caption="Six modes, the dominant one (.8) cut off with probability .7 (short) or .05 (long); exact natural-gradient steps of .4. The short window"
    " expands the entropy for 22 updates, then the best mode takes over (C5; the paper's Fig. 3 is on an LLM with 24k and 32k tokens).",
    size=(6.4, 4.2),
    draw=Lines("update", "entropy", by="window", label="{} window", xlabel="update", ylabel="entropy, nats", markers=False,
               styles={"long": {"linestyle": "--"}}),
)  # fmt: skip
def entropy_by_window(run):
    for name, cut in TRUNCATED.items():
        yield {"window": name, "update": np.arange(STEPS + 1), "entropy": entropies(cut)}


@figures.figure(
    "accuracy-by-cluster",
    title="Accuracy by initial accuracy",
    caption="60 independent prompts a cluster, one update each of 8 rollouts at lr .4; mean and 95 % interval over 16 seeds. After 12 updates (dashed) medium"
    " prompts have gained most, after 60 the low ones (C2, C2-longer; the paper's Fig. 5 is on an LLM).",
    size=(6.8, 4.2),
    draw=Lines("update", "accuracy", by="cluster", label="{} initial accuracy", xlabel="updates of every prompt", ylabel="mean success probability",
               marks={12: "12 updates"}, markers=False, styles={"mid": {"linestyle": "--"}, "high": {"linestyle": ":"}}),
)  # fmt: skip
def accuracy_by_cluster(run):
    for name, ends in BUCKETS.items():
        rng = run.rng("cluster", name)
        pool, path = PromptPool.of_success(rng.uniform(*ends, (16, BUCKET_SIZE))), []
        for _ in range(61):
            path.append(pool.success.mean(axis=-1))
            pool = pool.sweep(BUCKET_ROLLOUTS, BUCKET_LR, rng)
        yield {"cluster": name, "update": np.arange(61), **over_seeds(accuracy=np.array(path).T)}


@figures.figure(
    "rollouts-a-group",
    title="One hard prompt: against updates, and against rollouts",
    caption="One prompt from .01 at lr .2, std-normalised advantages; mean and 95 % interval over 100 seeds; mastery is .8. Larger groups need fewer updates and"
    " more rollouts (C3, C3-essential; the paper's Fig. 6 is on an LLM and has steps on its axis).",
    size=(10.5, 4.2),
)  # fmt: skip
def rollouts_a_group(run):
    marks = np.arange(0, 401, 4)
    for size in SIZES:
        rng = run.rng("size", size)
        pool, path = PromptPool.of_success(np.full((100, 1), HARD_START)), []
        for update in range(401):
            if update in marks:
                path.append(pool.success[:, 0])
            pool = pool.sweep(size, HARD_LR, rng)
        curve = over_seeds(accuracy=np.array(path).T)
        yield {"counted": "updates", "rollouts": size, "x": marks, **curve}
        yield {"counted": "rollouts", "rollouts": size, "x": marks * size, **curve}


@rollouts_a_group.draw
def _(table, figure):
    for number, (axes, name) in enumerate(zip(figure.subplots(1, 2, sharey=True), table.distinct("counted"))):
        styles = dict(zip(SIZES, ({"linestyle": s} for s in ("-", "--", "-.", ":"))))
        Lines(
            "x", "accuracy", by="rollouts", label="n = {}", markers=False, styles=styles, levels={MASTERY: "mastery"}
        ).on(axes, table.rows(counted=name))
        axes.set(xlabel=name, xlim=(0, (400, 12_000)[number]))
        if number == 0:
            axes.set_ylabel("success probability")
            axes.legend(loc="center right")


@figures.figure(
    "curricula",
    title="Uniform sampling and hard-focus at equal rollouts",
    caption="175 independent prompts, 89600 rollouts in all, mean accuracy and 95 % interval over 32 pools. Hard-focus gains on hard prompts and loses on all of"
    " them; 64 rollouts a group cost more than the curriculum brings. Right: every other logit moves by .01 of a step; then"
    " hard-focus gains on all at n = 64 (C4, C4-everywhere; the paper's Fig. 4 and Table 4 are on an LLM).",
    size=(11.5, 4.4),
)  # fmt: skip
def curricula(run):
    for transfer, panel in ((0.0, "no transfer"), (0.01, "transfer .01")):
        rngs = [run.rng("pool", panel, seed) for seed in range(32)]
        start = draw_pool(rngs, transfer)
        found = {"start": accuracies(start, start)}
        for n in (8, 64):
            found[f"uniform, n = {n}"] = trained(rngs, start, UNIFORM, n)
            found[f"hard-focus, n = {n}"] = trained(rngs, start, HARD_FOCUS, n)
        for scheme, parts in found.items():
            for part, value in parts.items():
                yield {"panel": panel, "scheme": scheme, "prompts": [part], **over_seeds(accuracy=value[:, None])}


@curricula.draw
def _(table, figure):
    for axes, panel in zip(figure.subplots(1, 2, sharey=True), table.distinct("panel")):
        Bars("prompts", "accuracy", by="scheme").on(axes, table.rows(panel=panel))
        axes.set(title=panel, xlabel="prompts")
    figure.axes[0].set_ylabel("mean success probability")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)


@figures.figure(
    "weight-and-drift",
    title="The GRPO weight, and what it moves",
    caption="Exact. Left: what the std multiplies the gradient of p by; constant for n = 2 and 3, least at 1/2 for larger groups. Right: the change of p"
    " an update at a learning rate of 1, largest at 1/2 for all n (C1, C2).",
    size=(10.5, 4.2),
)  # fmt: skip
def weight_and_drift(run):
    p = expit(np.linspace(-5.5, 5.5, 221))
    for n in (2, 3, *SIZES):
        yield {"panel": "weight", "rollouts": n, "p": p, "value": std_weight(p, n)}
        yield {"panel": "drift", "rollouts": n, "p": p, "value": group_signal(p, n) * p * (1 - p)}


@weight_and_drift.draw
def _(table, figure):
    labels = {"weight": "weight of the gradient of p", "drift": "change of p an update, per unit learning rate"}
    styles = {2: {"linestyle": ":"}, 3: {"linestyle": "-."}, 16: {"linestyle": "--"}, 64: {"linestyle": "--"}}
    for axes, (panel, label) in zip(figure.subplots(1, 2), labels.items()):
        Lines("p", "value", by="rollouts", label="n = {}", markers=False, styles=styles).on(
            axes, table.rows(panel=panel)
        )
        axes.set(xlabel="success probability p", ylabel=label)
    figure.axes[0].legend(ncols=2, loc="upper center")


RUNS = {
    "rl": "both stages",
    "more_hard": "more hard samples",
    "stage_2_only": "Stage 2 only",
    "all_9k": "all 9k",
    "all_v6": "all V6",
}


@figures.figure(
    "reported",
    title="Reported pass@1, relative to SFT",
    caption="Quoted from Tables 2 and 4 of the paper, not measured here: (run - SFT) / SFT in percent, LiveCode in three sets (C6).",
    size=(11.0, 4.2),
)
def reported(run):
    sft = np.array(REPORTED.sft)
    for name, words in RUNS.items():
        gain = 100 * (np.array(getattr(REPORTED, name)) / sft - 1)
        yield {"run": words, "benchmark": list(BENCHMARKS), "gain": gain}


@reported.draw
def _(table, figure):
    axes = figure.subplots()
    Bars("benchmark", "gain", by="run", levels={0.0: "SFT"}).on(axes, table)
    axes.set(ylabel="gain over SFT, %")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5)
