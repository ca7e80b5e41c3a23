"""Figures of rover: temperature, modes, and what training keeps."""

from __future__ import annotations

import numpy as np

from klsim.problems.token_tree import sequence_log_probs
from klsim.report import Figures

from .claims import (
    DIDACTIC,
    ITERATIONS,
    A,
    H,
    didactic_success,
    mirror_steps,
    proportional_policy,
    quality,
    softmax_policy,
    success_and_modes,
    train,
    tree_values,
)

figures = Figures()
RHOS = np.logspace(-2, 0.3, 60)


@figures.figure(
    "didactic-tree",
    title="Success of softmax sampling on the didactic tree",
    caption="Four words of three letters, exact values of the uniform policy. At rho = 1 softmax(Q_u/rho) succeeds with probability 0.14; 99 %"
    " needs rho below about .044. Sampling in proportion to Q_u always succeeds (C4, C5).",
)
def didactic_tree(run):
    proportional = success_and_modes(sequence_log_probs(proportional_policy(tree_values(DIDACTIC, 4, 3))), DIDACTIC)[0]
    success = [didactic_success(rho)[0] for rho in RHOS]
    return {"rho": RHOS, "softmax": success, "proportional": np.full(len(RHOS), proportional)}


@didactic_tree.draw
def _(table, figure):
    axes = figure.subplots()
    axes.semilogx(table["rho"], table["softmax"], label="softmax(Q_u / rho)")
    axes.semilogx(table["rho"], table["proportional"], "--", label="proportional to Q_u")
    axes.axvline(0.044, color="0.5", linestyle=":", linewidth=1)
    axes.set(xlabel="temperature rho", ylabel="probability of success", ylim=(0, 1.03))
    axes.legend(loc="lower left")


CURVE_RHOS = (1.0, 0.3, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003)


@figures.figure(
    "success-and-modes",
    title="Success against effective modes along the temperature",
    caption="Trees with 256 leaves and 12 solutions, mean over 40 trees; one point a temperature. Small temperatures collapse onto the densest"
    " branches; sampling in proportion to the values keeps all 12 modes at success 1 (C8).",
)
def success_and_modes_curve(run):
    rules = {f"rho = {rho:g}": (lambda q, r=rho: softmax_policy(q, r)) for rho in CURVE_RHOS}
    rules["proportional"] = proportional_policy
    columns = {"rule": [], "success": [], "modes": []}
    for name, rule in rules.items():
        success, modes = np.mean([quality(run.rng("trees", seed), rule) for seed in range(40)], axis=0)
        for key, value in zip(columns, (name, success, modes)):
            columns[key].append(value)
    return columns


@success_and_modes_curve.draw
def _(table, figure):
    axes = figure.subplots()
    soft = table["rule"] != "proportional"
    axes.plot(table["success"][soft], table["modes"][soft], "o-", label="softmax(Q_u / rho)")
    for name, x, y in zip(table["rule"][soft], table["success"][soft], table["modes"][soft]):
        axes.annotate(name.removeprefix("rho = "), (x, y), xytext=(-7, -12), textcoords="offset points", fontsize=8)
    axes.plot(table["success"][~soft], table["modes"][~soft], "s", markersize=8, label="proportional to Q_u")
    axes.set(xlabel="probability of success", ylabel="effective number of modes", ylim=(0, 13))
    axes.legend(loc="lower left")


MARKS = tuple(range(0, ITERATIONS + 1, 10))


@figures.figure(
    "training",
    title="Success and modes during training: ROVER's loss, GRPO, exact mirror steps",
    caption="Tabular token tree (4 tokens, 4 steps, 12 solutions), 16 rollouts and 4 inner steps an iteration, 12 seeds (lines: mean, bands: range)."
    " Both sampled methods end on about one path; the exact mirror step keeps the modes (C9).",
    size=(8.5, 3.8),
)
def training(run):
    columns = {k: [] for k in ("method", "iteration", "success", "modes", "modes low", "modes high")}
    curves = {"ROVER": [], "GRPO": [], "exact mirror steps": []}
    for seed in range(12):
        for name, method in (("ROVER", "rover"), ("GRPO", "grpo")):
            reward, kept = train(run.rng("train", seed), method, record=MARKS[:-1])
            curves[name].append([success_and_modes(sequence_log_probs(p), reward) for p in kept])
        reward, kept = mirror_steps(run.rng("train", seed), record=MARKS[:-1])
        curves["exact mirror steps"].append([success_and_modes(sequence_log_probs(p), reward) for p in kept])
    assert A**H == 256
    for name, values in curves.items():
        values = np.array(values)
        columns["method"] += [name] * len(MARKS)
        columns["iteration"] += list(MARKS)
        columns["success"] += list(values[..., 0].mean(axis=0))
        columns["modes"] += list(values[..., 1].mean(axis=0))
        columns["modes low"] += list(values[..., 1].min(axis=0))
        columns["modes high"] += list(values[..., 1].max(axis=0))
    return columns


@training.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for name in table.distinct("method"):
        rows = table.rows(method=name)
        (line,) = left.plot(rows["iteration"], rows["success"], label=name)
        right.plot(rows["iteration"], rows["modes"], color=line.get_color())
        right.fill_between(
            rows["iteration"], rows["modes low"], rows["modes high"], color=line.get_color(), alpha=0.2, linewidth=0
        )
    left.set(xlabel="iteration", ylabel="probability of success", ylim=(0, 1.03))
    right.set(xlabel="iteration", ylabel="effective number of modes", ylim=(0, 13))
    left.legend()
