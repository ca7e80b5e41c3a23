"""Figures of difficulty-filtering: what a prompt is worth by its success rate, and what a filter changes in training."""

from __future__ import annotations

import numpy as np

from klsim.learning.difficulty import (
    improvement,
    kl_to_optimum,
    success_of_largest_improvement,
    success_of_largest_kl,
    variance_bounds,
)
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from .setting import BANDS, GROUP, SKILLS, Worlds, signal_to_noise, train

figures = Figures()
POINT = {"linestyle": "none", "markersize": 7}


@figures.figure(
    "what-a-success-rate-is-worth",
    title="KL to the optimum, gain, and the variance bounds, by success rate",
    caption="Exact, for a binary reward and four KL coefficients; logarithmic scale. The bounds Var (x-1+e^-x) and Var (e^x-1-x) with"
    " x = 1/beta are largest at p = 1/2, what they bound is largest at the marked rates, which move to harder prompts as beta"
    " falls (C1-C4).",
    size=(11.5, 4.2),
)
def what_a_success_rate_is_worth(run):
    p = np.linspace(0.005, 0.995, 199)
    for beta in (10.0, 1.0, 0.3, 0.1):
        lower, upper = variance_bounds(p * (1 - p), beta)
        curves = {
            "KL(ref‖optimum)": kl_to_optimum(p, beta),
            "lower bound": lower,
            "upper bound": upper,
            "gain": improvement(p, beta),
        }
        for curve, value in curves.items():
            yield {"panel": f"beta = {beta:g}", "curve": curve, "p": p, "value": value}
        for curve, at, value in (
            ("largest KL", success_of_largest_kl(beta), kl_to_optimum),
            ("largest gain", success_of_largest_improvement(beta), improvement),
        ):
            yield {"panel": f"beta = {beta:g}", "curve": curve, "p": [float(at)], "value": [float(value(at, beta))]}


VALUES = Lines("p", "value", by="curve", yscale="log", markers=False, styles={
    "lower bound": {"linestyle": "--"}, "upper bound": {"linestyle": ":"}, "gain": {"linestyle": "-."},
    "largest KL": {"marker": "o", "color": "#0072B2", **POINT}, "largest gain": {"marker": "s", "color": "#CC79A7", **POINT}})  # fmt: skip


@what_a_success_rate_is_worth.draw
def _(table, figure):
    panels = table.distinct("panel")
    for axes, name in zip(figure.subplots(1, len(panels)), panels):
        VALUES.on(axes, table.rows(panel=name))
        axes.set(title=name, xlabel="success rate p of the reference")
    figure.axes[0].set_ylabel("nats (KL, bounds), reward (gain)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)


LARGER = "none, lr .517"
AXES = {
    "steps": ("gradient steps", "accuracy on fresh prompts", "linear"),
    "rollouts": ("generated rollouts", "accuracy on fresh prompts", "log"),
    "keep": ("gradient steps", "share of groups kept", "linear"),
}


@figures.figure(
    "training-with-filters",
    title="Accuracy against steps and against rollouts, and the keep rate",
    caption="Prompts with 10 skills, 16 kept groups of 16 a step, lr .3, std-normalised advantages, 8 seeds, 80 steps; mean and 95 %"
    " interval; rollouts: mean over seeds at equal steps. Narrower bands learn faster per step and slower per rollout; (0, 1) is free."
    " Dashed: no filter with a larger learning rate keeps up with [.3, .7] to an accuracy of .7; later more of its groups are uniform. As"
    " accuracy grows narrow bands keep less and less (C7).",
    size=(12.5, 4.6),
)
def training_with_filters(run):
    worlds = Worlds.draw([run.rng("world", seed) for seed in range(8)])
    runs = {name: train(worlds, name, run.rng("train", name), steps=80) for name in BANDS}
    runs[LARGER] = train(worlds, "none", run.rng("train", LARGER), steps=80, lr=0.517)
    for name, curve in runs.items():
        steps = np.arange(len(curve.accuracy))
        yield {"quantity": "steps", "band": name, "x": steps, **over_seeds(value=curve.accuracy.T)}
        rollouts = GROUP * curve.candidates.mean(axis=1)
        yield {"quantity": "rollouts", "band": name, "x": rollouts[1:], **over_seeds(value=curve.accuracy.T[:, 1:])}
        # per step the rate is noisy; means of five steps
        blocks = curve.keep[:80].reshape(16, 5, -1).mean(axis=1)
        yield {"quantity": "keep", "band": name, "x": 5.0 * np.arange(16) + 2.0, **over_seeds(value=blocks.T)}


@training_with_filters.draw
def _(table, figure):
    styles = {LARGER: {"linestyle": "--", "color": "0.3"}, "none": {"linewidth": 4, "alpha": 0.5}}
    for axes, (quantity, (xlabel, ylabel, xscale)) in zip(figure.subplots(1, 3), AXES.items()):
        Lines("x", "value", by="band", xscale=xscale, markers=False, styles=styles).on(
            axes, table.rows(quantity=quantity)
        )
        axes.set(xlabel=xlabel, ylabel=ylabel)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=8)


@figures.figure(
    "signal-to-noise",
    title="Signal-to-noise ratio of one update, and per candidate",
    caption="|E u|² / tr Cov u of an update on 16 kept groups at theta = 0, std-normalised advantages, exact; and times the keep rate, which is what a"
    " generated rollout buys. 8 worlds; error bars: 95 % intervals. It does not depend on the learning rate (C7).",
    size=(8.5, 3.8),
    draw=Bars("band", "ratio", by="counted", xlabel="band of kept success rates", ylabel="signal-to-noise ratio"),
)  # fmt: skip
def signal_to_noise_of_an_update(run):
    prompts = Worlds.draw([run.rng("world", seed) for seed in range(8)]).train
    found = [signal_to_noise(prompts, np.zeros((8, SKILLS)), name) for name in BANDS]
    for counted, values in (("an update", [r for r, _ in found]), ("times the keep rate", [r * k for r, k in found])):
        yield {"counted": counted, "band": list(BANDS), **over_seeds(ratio=np.stack(values, axis=1))}
