"""Figures of rover: temperature, modes, and what training keeps."""

from __future__ import annotations

import numpy as np

from klsim.report import Figures
from klsim.report.drawings import Lines

from .setting import (
    DIDACTIC,
    ITERATIONS,
    MODES,
    A,
    H,
    didactic,
    mirror_steps,
    proportional_policy,
    softmax_policy,
    solutions,
    success_and_modes,
    train,
    tree_values,
)  # fmt: skip

figures = Figures()
RHOS = np.logspace(-2, 0.3, 60)


@figures.figure(
    "didactic-tree",
    title="Success of softmax sampling on the didactic tree",
    caption="Four words of three letters, exact values of the uniform policy. At rho = 1 softmax(Q_u/rho) succeeds with probability 0.14; 99 %"
    " needs rho below about .044. Sampling in proportion to Q_u always succeeds (C4, C5).",
    draw=Lines("rho", "success", by="policy", xlabel="temperature rho", ylabel="probability of success", xscale="log", markers=False,
               marks={0.044: "99 %"}, styles={"proportional to Q_u": {"linestyle": "--"}}),
)  # fmt: skip
def didactic_tree(run):
    proportional, _ = success_and_modes(proportional_policy(tree_values(DIDACTIC, 4, 3)), DIDACTIC)
    yield {"policy": "softmax(Q_u / rho)", "rho": RHOS, "success": [didactic(rho)[0] for rho in RHOS]}
    yield {"policy": "proportional to Q_u", "rho": RHOS, "success": proportional}


CURVE_RHOS = (1.0, 0.3, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003)


@figures.figure(
    "success-and-modes",
    title="Success against effective modes along the temperature",
    caption="Trees with 256 leaves and 12 solutions, mean over 40 trees; one point a temperature. Small temperatures collapse onto the densest"
    " branches; sampling in proportion to the values keeps all 12 modes at success 1 (C8).",
)
def success_and_modes_curve(run):
    rules = {f"rho = {rho:g}": (lambda q, r=rho: softmax_policy(q, r)) for rho in CURVE_RHOS}
    for name, rule in {**rules, "proportional": proportional_policy}.items():
        trees = [solutions(run.rng("trees", seed), A, H, MODES) for seed in range(40)]
        success, modes = np.mean([success_and_modes(rule(tree_values(r, A, H)), r) for r in trees], axis=0)
        yield {"rule": [name], "success": [success], "modes": [modes]}


@success_and_modes_curve.draw
def _(table, figure):
    axes = figure.subplots()
    soft = table["rule"] != "proportional"
    axes.plot(table["success"][soft], table["modes"][soft], "o-", label="softmax(Q_u / rho)")
    for name, x, y in zip(table["rule"][soft], table["success"][soft], table["modes"][soft]):
        axes.annotate(name.removeprefix("rho = "), (x, y), xytext=(-9, -9), textcoords="offset points", fontsize=8, ha="right",
                      va="center")  # fmt: skip
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
    methods = {
        "ROVER": lambda rng: train(rng, "rover", record=MARKS[:-1]),
        "GRPO": lambda rng: train(rng, "grpo", next_value=False, record=MARKS[:-1]),
        "exact mirror steps": lambda rng: mirror_steps(rng, record=MARKS[:-1]),
    }
    for name, method in methods.items():
        runs = [method(run.rng("train", seed)) for seed in range(12)]
        success, modes = np.moveaxis([[success_and_modes(p, reward) for p in kept] for reward, kept in runs], -1, 0)
        yield {"method": name, "iteration": MARKS, "success": success.mean(axis=0), "modes": modes.mean(axis=0),
               "modes low": modes.min(axis=0), "modes high": modes.max(axis=0)}  # fmt: skip


@training.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for axes, measured in ((left, "success"), (right, "modes")):
        Lines("iteration", measured, by="method", markers=False).on(axes, table)
    left.set(xlabel="iteration", ylabel="probability of success", ylim=(0, 1.03))
    right.set(xlabel="iteration", ylabel="effective number of modes", ylim=(0, 13))
    left.legend()
