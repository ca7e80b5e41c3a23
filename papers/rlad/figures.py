"""Figures of rlad: the chain under three verifiers and teachers, the threshold in alpha, gates, and the band."""

from __future__ import annotations

import math

import numpy as np

from klsim.learning.teacher_ratio import band_flow, band_stop, gate_edges
from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

from .setting import ARMS, ITERATIONS, Arm, Chain

figures = Figures()
SEEDS = 12
WORLDS = {
    "20 % false positives": {"noise": 0.2},
    "exact verifier": {},
    "teacher wrong at 2 of 10 positions": {"bad": 2},
}


@figures.figure(
    "success-curves",
    title="GRPO, KDRL and RLAD on a chain of ten tokens",
    caption="Exact success, mean and 95 % interval of 12 seeds (the same worlds and draws for all methods). With false positives every teacher helps; with an exact"
    " verifier RLAD is behind GRPO and KDRL at every alpha; with a teacher that is wrong at two positions KDRL at beta = .3 collapses, RLAD survives only at"
    " alpha = .9, where the clamp leaves no gate (C8, C9).",
    size=(12.0, 4.2),
    draw=Lines("iteration", "success", by="method", panels="world", xlabel="iteration", ylabel="success probability", markers=False,
               styles={name: {"linestyle": line} for name, line in zip(ARMS, ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1))))}),
)  # fmt: skip
def success_curves(run):
    shown = np.arange(0, ITERATIONS + 1, 2)
    for world, options in WORLDS.items():
        chain = Chain([run.rng("chain", seed) for seed in range(SEEDS)], **options)
        for name, arm in ARMS.items():
            curve = chain.train(arm)[0][shown]
            yield {"world": world, "method": name, "iteration": shown, **over_seeds(success=curve.T)}


@figures.figure(
    "alpha",
    title="Final success by alpha: the clamp's threshold",
    caption="Exact verifier, 80 iterations, mean and 95 % interval of 12 seeds. Dashed: above .753 the positive gate, above .777 the negative one cannot shut at the"
    " first inner step (C5); from there on the teacher is nearly without effect, good or bad.",
    draw=Lines("alpha", "success", by="teacher", xlabel="weight alpha of the old student in the anchor", ylabel="success after 80 iterations",
               marks={1 - math.log(1.28): "", 1 + math.log(0.8): ""}),
)  # fmt: skip
def alpha_ablation(run):
    alphas = [0.1, 0.3, 0.5, 0.7, 0.75, 0.8, 0.9]
    for teacher, bad in (("good", 0), ("wrong at 2 of 10 positions", 2)):
        chain = Chain([run.rng("chain", seed) for seed in range(SEEDS)], bad=bad)
        finals = np.stack([chain.train(Arm(alpha))[0][-1] for alpha in alphas], axis=1)
        yield {"teacher": teacher, "alpha": alphas, **over_seeds(success=finals)}


@figures.figure(
    "gates",
    title="Which fresh tokens move",
    caption="At the first inner step, without the clamp, clip .2: tokens with positive advantage move to the right of -log(1.2)/(1-alpha), those with negative advantage"
    " to the left of -log(.8)/(1-alpha), in the teacher's log-ratio to the old student (C4).",
    size=(8.0, 3.6),
)  # fmt: skip
def gates(run):
    for alpha in (0.3, 0.5, 0.7):
        rise, fall = gate_edges(alpha, (0.2, 0.2))
        yield {"alpha": [alpha, alpha], "advantage": ["A > 0", "A < 0"], "edge": [float(rise), float(fall)]}


@gates.draw
def _(table, figure):
    axes, reach = figure.subplots(), 2.0
    for number, alpha in enumerate(table.distinct("alpha")):
        for row, edge in enumerate(table.rows(alpha=alpha)["edge"]):
            height = 1 - row + 0.25 * (1 - number)
            ends = (edge, reach) if row == 0 else (-reach, edge)
            colour = f"C{number}"
            axes.plot(ends, (height, height), color=colour, linewidth=8, solid_capstyle="butt", alpha=0.7,
                      label=f"alpha = {alpha:g}" if row == 0 else None)  # fmt: skip
            axes.annotate(f"{edge:.2f}", (edge, height), xytext=(-4 if row == 0 else 4, 0), textcoords="offset points",
                          ha="right" if row == 0 else "left", va="center", fontsize=8)  # fmt: skip
    axes.axvline(0, color="0.4", linestyle="--", linewidth=1)
    axes.set(xlim=(-reach, reach), ylim=(-0.5, 1.5), xlabel="log(T / old) of the token, nats", ylabel="")
    axes.set_yticks([1, 0], ["A > 0\nmoves", "A < 0\nmoves"])
    axes.grid(axis="y", visible=False)
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.5), ncols=1, fontsize=8)


@figures.figure(
    "band",
    title="Where RLAD stops for good, by the teacher's accuracy",
    caption="Lines: the stop of a bandit of six arms from a uniform start, teacher equal over the wrong arms, clip .2, no clamp; dots: the exact flow. Dashed: the"
    " teacher's own accuracy. GRPO (alpha = 1) reaches 1 everywhere (C7).",
    size=(6.6, 4.6),
)  # fmt: skip
def band(run):
    grid, dots = np.linspace(0.01, 0.99, 99), np.array([0.02, 0.1, 0.3, 0.5, 0.7])
    right = np.arange(6) == 0
    for alpha in (0.3, 0.5, 0.7, 0.9):
        yield {
            "alpha": alpha,
            "what": "formula",
            "teacher": grid,
            "stop": band_stop(1 / 6, grid, alpha=alpha, clip=(0.2, 0.2)),
        }
        wrong = np.repeat(np.log1p(-dots)[:, None] - math.log(5), 5, axis=1)
        teacher = np.concatenate([np.log(dots)[:, None], wrong], axis=1)
        flow = band_flow(np.zeros(6), teacher, right, alpha=alpha, clip=(0.2, 0.2), steps=100_000)
        yield {"alpha": alpha, "what": "flow", "teacher": dots, "stop": np.exp(flow[:, 0])}


@band.draw
def _(table, figure):
    axes = figure.subplots()
    for number, (alpha, line) in enumerate(zip(table.distinct("alpha"), ("-", "--", "-.", ":"))):
        formula, flow = (table.rows(alpha=alpha, what=what) for what in ("formula", "flow"))
        axes.plot(formula["teacher"], formula["stop"], color=f"C{number}", linestyle=line, label=f"alpha = {alpha:g}")
        axes.plot(flow["teacher"], flow["stop"], "osD^"[number], color=f"C{number}", markersize=5)
    axes.plot((0, 1), (0, 1), color="0.4", linestyle="--", linewidth=1)
    axes.set(
        xlabel="accuracy of the teacher", ylabel="success rate where every gate is shut", xlim=(0, 1), ylim=(0, 1.02)
    )
    axes.legend(loc="lower right")
