"""Figures of invisible-leash: where pass@k crosses, what is lost, and when entropy falls."""

from __future__ import annotations

import numpy as np

from klsim.distributions import entropy, tilt
from klsim.estimators import pass_at_k_exact, support_change
from klsim.report import Figures
from klsim.report.drawings import Lines

from .setting import COUNTEREXAMPLE, STEPS, THRESHOLD, leash_run

figures = Figures()
SEEDS = 8
WORLDS = {"shared parameters": True, "tabular": False}


@figures.figure(
    "pass-at-k",
    title="Pass@k before and after: the crossover needs shared parameters",
    caption="40 prompts, one correct label of 30, group-normalised policy gradient (8 rollouts, 300 steps), analytic pass@k, mean over"
    " prompts and 8 seeds. With shared features pass@1 rises and pass@k falls at large k; tabular logits never cross (C6; the paper's"
    " Fig. 2-4 are on LLMs up to k = 16,384).",
)
def pass_at_k(run):
    ks = 2.0 ** np.arange(0, 13)
    for name, shared in {"base": True, **WORLDS}.items():
        curves = []
        for seed in range(SEEDS):
            world, trained = leash_run(run.rng("world", seed), shared=shared)
            success = world.success() if name == "base" else world.success(trained.final)
            curves.append([np.mean(pass_at_k_exact(success, k)) for k in ks])
        yield {"curve": name, "k": ks, "pass": np.mean(curves, axis=0)}


@pass_at_k.draw
def _(table, figure):
    axes = figure.subplots()
    for name, style in (("base", "k--"), ("shared parameters", "o-"), ("tabular", "s-")):
        rows = table.rows(curve=name)
        axes.plot(rows["k"], rows["pass"], style, label=name if name == "base" else f"trained, {name}")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="k", ylabel="mean pass@k", ylim=(0, 1.02))
    axes.legend(loc="lower right")


@figures.figure(
    "support-before-and-after",
    title="Success of every prompt before and after training",
    caption="One point a prompt, 8 seeds. Lines: threshold 2.9e-3, below which an answer is unseen in 1,024 draws with 95 % confidence."
    " Lower right: lost (S), upper left: gained (E). Sharing loses answers, tabular training loses none.",
    size=(8.5, 4.0),
)
def support(run):
    for name, shared in WORLDS.items():
        for seed in range(SEEDS):
            world, trained = leash_run(run.rng("world", seed), shared=shared)
            yield {"world": name, "before": world.success(), "after": np.maximum(world.success(trained.final), 1e-12)}


@support.draw
def _(table, figure):
    for axes, name in zip(figure.subplots(1, 2, sharex=True, sharey=True), table.distinct("world")):
        rows = table.rows(world=name)
        change = support_change(np.minimum(rows["before"], 1), np.minimum(rows["after"], 1), THRESHOLD)
        axes.loglog(rows["before"], rows["after"], "o", markersize=3, alpha=0.6)
        axes.axvline(THRESHOLD, color="0.4", linewidth=0.9)
        axes.axhline(THRESHOLD, color="0.4", linewidth=0.9)
        axes.set_title(f"{name}: P {change.preserved}, E {change.expanded}, S {change.shrunk}, O {change.out}")
        axes.set(xlabel="success before", ylim=(1e-7, 2))
    figure.axes[0].set_ylabel("success after")


@figures.figure(
    "support-metrics",
    title="Support retention and net change during training",
    caption="Shared parameters, 8 seeds pooled: retention SRR = P/(P+S) and net change NSCR = (E-S)/(P+E+S) against the step (the paper's Table 4"
    " shows the same trend for DAPO).",
    draw=Lines(
        "step",
        "value",
        by="metric",
        xlabel="training step",
        ylabel="support metric, share of answers",
        levels={0.0: ""},
    ),
)
def metrics(run):
    marks = tuple(range(0, STEPS + 1, 15))
    before, after = [], [[] for _ in marks]
    for seed in range(SEEDS):
        world, trained = leash_run(run.rng("world", seed), record=marks)
        before.append(world.success())
        for kept, weights in zip(after, trained.weights):
            kept.append(world.success(weights))
    base = np.minimum(np.concatenate(before), 1)
    changes = [support_change(base, np.minimum(np.concatenate(a), 1), THRESHOLD) for a in after]
    yield {"metric": "SRR", "step": marks, "value": [c.retention for c in changes]}
    yield {"metric": "NSCR", "step": marks, "value": [c.net for c in changes]}


BASES = {
    "uniform on 8, 4 correct": (np.full(8, -np.log(8)), np.arange(8) < 4),
    "aligned: correct .4, twenty wrong of .03": (
        np.log(np.concatenate([[0.4], np.full(20, 0.03)])),
        np.arange(21) == 0,
    ),
    "misaligned: wrong .98, twenty correct of .001": (COUNTEREXAMPLE, np.arange(21) > 0),
}


@figures.figure(
    "entropy-of-the-tilt",
    title="Entropy of the exact tilt against its strength",
    caption="It falls when reward and log-probability agree and rises when they do not: the printed Theorem C.6(a) is false for the third base"
    " (C4).",
    draw=Lines("b", "entropy", by="base", xlabel="inverse temperature b", ylabel="entropy, nats", markers=False,
               styles={"aligned: correct .4, twenty wrong of .03": {"linestyle": "--"},
                       "misaligned: wrong .98, twenty correct of .001": {"linestyle": "-."}}),
)  # fmt: skip
def entropy_of_the_tilt(run):
    b = np.linspace(0, 8, 81)
    for name, (log_q, correct) in BASES.items():
        yield {"base": name, "b": b, "entropy": entropy(tilt(log_q, b[:, None] * correct, 1.0))}
