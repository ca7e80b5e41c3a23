"""Figures of hyper: gradients against distance, PPO against the encoder's scale, capped conformal factors, gradients of two value losses."""

from __future__ import annotations

import numpy as np

from klsim.learning.hl_gauss import hl_gauss
from klsim.learning.hyperbolic import ball_exp, conformal_factor, hyperboloid_exp, to_hyperboloid
from klsim.learning.hyperbolic_heads import BoundedFeatures, largest_scale
from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

from .setting import ARMS, BALL, FEATURES, HYPERBOLOID, Arm, Worlds, growth, ppo

figures = Figures()
SEEDS = 8
PARTS = {"head": "head: |dv/dx_H|", "map": "map: |dx_H/dx_E|", "encoder": "both: |dv/dx_E|"}
STYLES = {
    "ball, on": {"color": "C0", "marker": "o"}, "ball, off": {"color": "C0", "marker": "s", "linestyle": "--"},
    "hyperboloid, on": {"color": "C1", "marker": "^"}, "hyperboloid, off": {"color": "C1", "marker": "v", "linestyle": "--"},
}  # fmt: skip


@figures.figure(
    "gradients",
    title="Gradients against the distance from the origin",
    caption="c = 1, |z| = 1, r = 0; on the hyperplane and off it (45 degrees). The ball's head grows as e^R and its map shrinks; the hyperboloid's head does not grow, its map does."
    " Their product has the same rate, 4 times as large in the ball on the hyperplane and off it (C3). The ball's head and both maps do not depend on the direction: their lines coincide.",
    size=(11.0, 4.0),
)  # fmt: skip
def gradients(run):
    distance = np.linspace(0.5, 8.0, 16)
    for model in ("ball", "hyperboloid"):
        for on in (True, False):
            for part, values in growth(model, distance, on).items():
                yield {
                    "part": PARTS[part],
                    "series": f"{model}, {'on' if on else 'off'}",
                    "R": distance,
                    "norm": values,
                }


@gradients.draw
def _(table, figure):
    for axes, part in zip(figure.subplots(1, 3, sharey=True), PARTS.values()):
        Lines("R", "norm", by="series", yscale="log", styles=STYLES).on(axes, table.rows(part=part))
        axes.set(title=part, xlabel="hyperbolic distance R")
    figure.axes[0].set(ylabel="norm of the gradient (log scale)")
    figure.axes[0].legend(loc="upper left", fontsize=8)


LINES = {
    "poincare": {"color": "C0"}, "hyperboloid": {"color": "C1"}, "poincare, half scale": {"color": "C2", "linestyle": "--"}, "Hyper++": {"color": "C3"},
    "Hyper++ without RMSNorm": {"color": "0.2", "linestyle": ":"}, "Hyper++ without the gate": {"color": "0.45", "linestyle": ":"},
    "Hyper++, poincare at half scale": {"color": "0.65", "linestyle": ":"},
}  # fmt: skip


@figures.figure(
    "ppo",
    title="One PPO iteration against the scale of the encoder",
    caption=f"KL(old, new) and share of ratios off by more than .2 after 32 steps; mean over {SEEDS} bandits with 95 % intervals, 256 states each. The ball at half scale lies on"
    " the hyperboloid. KL grows without bounded features; the share of clipped ratios falls with the ball (C7, C7-fraction).",
    size=(11.0, 4.6),
)  # fmt: skip
def iteration(run):
    arms = {**ARMS, "Hyper++ without RMSNorm": Arm(HYPERBOLOID, BoundedFeatures(largest_scale(), normalise=False)),
            "Hyper++ without the gate": Arm(HYPERBOLOID, BoundedFeatures(None)), "Hyper++, poincare at half scale": Arm(BALL, FEATURES, 0.5, 0.5)}  # fmt: skip
    scales = (0.3, 1.0, 3.0)
    worlds = Worlds.draw([run.rng("worlds", seed) for seed in range(SEEDS)])
    for name in LINES:
        found = [ppo(worlds, arms[name], s) for s in scales]
        values = {"kl": np.array([f.kl for f in found]).T, "clipped": np.array([f.clipped for f in found]).T}
        yield {"series": name, "scale": scales, **over_seeds(**values)}


@iteration.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    Lines("scale", "kl", by="series", xscale="log", yscale="log", styles=LINES).on(left, table)
    for number, name in enumerate(list(LINES)[: len(ARMS)]):
        Lines("scale", "clipped", xscale="log", styles={None: {**LINES[name], "marker": "os^D"[number]}}).on(
            right, table.rows(series=name)
        )
    for axes in (left, right):
        axes.set(xlabel="scale s of the encoder's last weights at the start")
        axes.set_xticks([0.3, 1.0, 3.0], ["0.3", "1", "3"])
        axes.set_xticks([], minor=True)
    left.set(ylabel="KL(old, new) [nats]", ylim=(0.01, 100))
    left.legend(loc="upper left", fontsize=7, ncols=2)
    right.set(ylabel="share of ratios off by more than .2", ylim=(0, 1.0), title="without the variants of Hyper++")


@figures.figure(
    "caps",
    title="What bounded features cap",
    caption="c = 1: conformal factor of exp_P(u), time coordinates of exp_H(u) and of the isometric image of exp_P(u). Lines: |u| = 1, the bound of f(RMSNorm(h))/sqrt(d)"
    " (radius .76 in the ball, lambda 4.76), and |u| = 1.83, the bound after rescaling (radius .95, lambda 20.5, x_0 3.20 or 19.5) (C4).",
    size=(7.0, 4.2),
    draw=Lines("u", "value", by="series", yscale="log", xlabel="Euclidean norm |u|", ylabel="value (log scale)", markers=False,
               marks={1.0: "radius .76", 1.8318: "radius .95"},
               styles={"x_0, same vector": {"linestyle": "--"}, "x_0, isometric image": {"linestyle": "-."}}),
)  # fmt: skip
def caps(run):
    u = np.linspace(0.0, 4.0, 81)[:, None]
    x = ball_exp(u)
    yield {"series": "conformal factor", "u": u[:, 0], "value": conformal_factor(x)}
    yield {"series": "x_0, same vector", "u": u[:, 0], "value": hyperboloid_exp(u)[:, 0]}
    yield {"series": "x_0, isometric image", "u": u[:, 0], "value": to_hyperboloid(x)[:, 0]}


@figures.figure(
    "values",
    title="Gradient of the value loss against the error",
    caption="Prediction for 0, target t: L1 norm of the cross-entropy's gradient in the logits, |p(0) - p(t)|, against the gradient 2t of the squared error in the value."
    " The first is at most 2 for every error (C6).",
    size=(6.4, 4.0),
    draw=Lines("t", "norm", by="series", markers=False, xlabel="target t (prediction 0)", ylabel="norm of the gradient",
               levels={2.0: "2"}, styles={"squared error, in the value": {"linestyle": "--"}}),
)  # fmt: skip
def values(run):
    t = np.linspace(0.0, 9.0, 181)
    edges, sigma = np.linspace(-10, 10, 52), 0.75 * 20 / 51
    yield {
        "series": "HL-Gauss, in the logits",
        "t": t,
        "norm": np.abs(hl_gauss(0.0, edges, sigma) - hl_gauss(t, edges, sigma)).sum(axis=-1),
    }
    yield {"series": "squared error, in the value", "t": t, "norm": 2 * t}
