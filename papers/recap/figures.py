"""Figures of recap: general skills in training, the two signals, rewards under replay and reweighting, dispersion of the weights."""

from __future__ import annotations

import numpy as np

from klsim.learning.reweighting import objective_weights, window_signals
from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

from .setting import ACC, FMT, GEN, STEPS, WINDOW, histories, trained

figures = Figures()


def rngs(run, name, seeds):
    return [run.rng(name, seed) for seed in range(seeds)]


FORGETTING = ("reasoning only", "KL .3", "KL 3 at general prompts", "uniform", "reward, T = 5")


@figures.figure(
    "forgetting",
    title="What reasoning gains and general skills lose",
    caption="Shared linear policy, 24 reasoning and 24 general prompts with overlapping features; exact accuracies every 10 steps, less those of the base (general .95, reasoning .18), mean and 95 % interval over"
    " 10 seeds. Reasoning alone forgets, a KL penalty at the reasoning prompts (beta = .3) forgets less and learns less; replay, reweighted or not, and"
    " a penalty at the general prompts keep the general skills (C7; the paper's Fig. 2).",
    size=(11.0, 4.4),
)  # fmt: skip
def forgetting(run):
    marks = range(0, STEPS, 10)
    success = trained(rngs(run, "forgetting", 10), FORGETTING, record=marks).success
    for panel, source in (("general", GEN), ("reasoning", ACC)):
        for name, values in zip(FORGETTING, success[..., source]):
            yield {"panel": panel, "method": name, "step": (*marks, STEPS), **over_seeds(change=values - values[:, :1])}


@forgetting.draw
def _(table, figure):
    for axes, panel in zip(figure.subplots(1, 2), ("general", "reasoning")):
        styles = {
            "reward, T = 5": {"linestyle": "--"},
            "KL .3": {"linestyle": ":"},
            "KL 3 at general prompts": {"linestyle": "-."},
        }
        Lines("step", "change", by="method", markers=False, styles=styles).on(axes, table.rows(panel=panel))
        axes.set(xlabel="step", ylabel=f"change of {panel} accuracy")
        if panel == "general":
            axes.legend(loc="lower left")


@figures.figure(
    "signals",
    title="Convergence ratio and instability of accuracy and format",
    caption="One run of uniform replay, statistics of the last 20 steps (W = 10, floor .001): the same rewards, recorded as rewards or as losses. Recorded as a loss,"
    " the solved format objective has the large and erratic signals: its ratio spikes off the floor, its instability is far above that of accuracy (C3, C4;"
    " the paper's Fig. 4).",
    size=(11.0, 6.6),
)  # fmt: skip
def signals(run):
    reward = trained(rngs(run, "signals", 1), ("uniform",)).reward[0, 0]
    steps = np.arange(2 * WINDOW, STEPS + 1)
    for track in ("reward", "loss"):
        history = reward if track == "reward" else 1 - reward
        windows = np.array([history[t - 2 * WINDOW : t, [ACC, FMT]].T for t in steps])
        found = window_signals(windows, WINDOW, floor=1e-3)
        for k, name in enumerate(("accuracy", "format")):
            yield {
                "track": track,
                "objective": name,
                "step": steps,
                "ratio": found.ratio[:, k],
                "instability": found.instability[:, k],
            }


@signals.draw
def _(table, figure):
    grid = figure.subplots(2, 2, sharex=True)
    for column, track in enumerate(("reward", "loss")):
        for row, (what, label) in enumerate((("ratio", "convergence ratio c"), ("instability", "instability i"))):
            axes = grid[row, column]
            styles = {"format": {"linewidth": 1.0}, "accuracy": {"linewidth": 1.0}}
            Lines("step", what, by="objective", markers=False, styles=styles).on(axes, table.rows(track=track))
            axes.set(ylabel=label, xlabel="step" if row else "")
            if row == 0:
                axes.set(yscale="log", title="rewards recorded" if track == "reward" else "losses recorded")
            if row == column == 0:
                axes.legend()


REWEIGHTED = ("uniform", "reward, T = 5", "reward, T = .1", "loss, T = 5", "loss, T = .1")


@figures.figure(
    "reweighting",
    title="Uniform replay against reweighting",
    caption="Mean reward of a step's 32 answers in blocks of 20 steps: accuracy, format, general skills; mean and 95 % interval over 16 seeds, common random numbers. At T = 5"
    " both conventions are close to uniform. At T = .1 recorded rewards speed up accuracy and cost general skills, recorded losses do the opposite (C8; the paper's Fig. 5).",
    size=(13.0, 4.4),
)  # fmt: skip
def reweighting(run):
    reward = trained(rngs(run, "reweighting", 16), REWEIGHTED).reward
    blocks = reward.reshape(*reward.shape[:2], -1, 20, 3).mean(axis=-2)
    for source, k in (("accuracy", ACC), ("format", FMT), ("general skills", GEN)):
        for name, values in zip(REWEIGHTED, blocks[..., k]):
            yield {"source": source, "method": name, "step": np.arange(10, STEPS, 20), **over_seeds(reward=values)}


@reweighting.draw
def _(table, figure):
    styles = {
        "reward, T = 5": {"linestyle": "--"},
        "loss, T = 5": {"linestyle": ":"},
        "loss, T = .1": {"linestyle": "-."},
    }
    for axes, source in zip(figure.subplots(1, 3), table.distinct("source")):
        Lines("step", "reward", by="method", markers=False, styles=styles).on(axes, table.rows(source=source))
        axes.set(xlabel="step", ylabel="mean reward", title=source)
        if source == "format":
            axes.legend(loc="lower right")


@figures.figure(
    "dispersion",
    title="How far the weights are from uniform",
    caption="Largest over smallest of four weights against the temperature, 500 histories of 20 values (format saturated, accuracy noisy, IoU improving, next-token smooth; W = 10),"
    " log-log. At the default T = 5 they differ by 2.6 % (C6).",
    size=(6.6, 4.4),
)  # fmt: skip
def dispersion(run):
    L, temperatures = histories(run.rng("dispersion")), np.geomspace(0.05, 5.0, 25)
    found = np.array([objective_weights(L, WINDOW, T) for T in temperatures])
    ratio = found.max(axis=-1) / found.min(axis=-1)
    for name, values in (("mean", ratio.mean(axis=-1)), ("median", np.median(ratio, axis=-1))):
        yield {"of": name, "temperature": temperatures, "ratio": values}


@dispersion.draw
def _(table, figure):
    Lines("temperature", "ratio", by="of", xscale="log", yscale="log", xlabel="temperature T", ylabel="largest over smallest weight",
          marks={5.0: "default"}, styles={"median": {"linestyle": "--"}})(table, figure)  # fmt: skip
