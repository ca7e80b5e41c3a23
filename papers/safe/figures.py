r"""Figures of safe: the soft minimum, gate and hinge, a trace of the controller, training, and the optimum against the threshold."""

from __future__ import annotations

import math

import numpy as np

from klsim.hinge import hinge_penalty, hinge_regularized
from klsim.learning.double_critic import pessimism
from klsim.learning.threshold_control import PHASES, threshold_trace
from klsim.objectives.stabilizers import entropy_gate, soft_min
from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

from .setting import Run, saturating, train

figures = Figures()
LIMITS = {"minimum": {"color": "0.3", "linestyle": "--"}, "mean": {"color": "0.3", "linestyle": ":"},
          "alpha = 0.3, -s²/4 alpha": {"linestyle": ":"}, "-s/sqrt(pi)": {"linestyle": "--", "color": "0.3"},
          "alpha = 3, -s²/4 alpha": {"linestyle": ":"}}  # fmt: skip


@figures.figure(
    "soft-min",
    title="The soft minimum of two heads",
    caption="Left: V_soft less the mean of the heads, against their difference, with the minimum and the mean (C1). Right: bias of heads with"
    " independent errors N(0, s²), with both limits: -s²/4 alpha for small s, -s/sqrt(pi) for alpha -> 0 (C2).",
    size=(11.0, 4.2),
)  # fmt: skip
def soft_minimum(run):
    d = np.linspace(-4, 4, 161)
    pairs = np.stack([d / 2, -d / 2], axis=-1)
    for alpha in (0.01, 0.3, 3.0):
        yield {"panel": "value", "series": f"alpha = {alpha:g}", "x": d, "y": soft_min(pairs, alpha)}
    yield {"panel": "value", "series": "minimum", "x": d, "y": -np.abs(d) / 2}
    yield {"panel": "value", "series": "mean", "x": d, "y": 0 * d}
    s = np.linspace(0, 1.5, 61)
    for alpha in (0.3, 3.0):
        yield {"panel": "bias", "series": f"alpha = {alpha:g}", "x": s, "y": pessimism(s, alpha)}
        near = s[s <= (0.8 if alpha < 1 else 1.5)]
        yield {"panel": "bias", "series": f"alpha = {alpha:g}, -s²/4 alpha", "x": near, "y": -near * near / 4 / alpha}
    yield {"panel": "bias", "series": "-s/sqrt(pi)", "x": s, "y": -s / math.sqrt(math.pi)}


@soft_minimum.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    Lines("x", "y", by="series", markers=False, styles=LIMITS).on(left, table.rows(panel="value"))
    left.set(xlabel="V1 - V2", ylabel="V_soft - mean")
    left.legend(loc="lower center")
    Lines("x", "y", by="series", markers=False, styles=LIMITS).on(right, table.rows(panel="bias"))
    right.set(xlabel="deviation s of the errors of a head", ylabel="E[V_soft] - V")
    right.legend(loc="lower left")


@figures.figure(
    "gate-and-hinge",
    title="Entropy gate and hinge penalty",
    caption="Left: g(H) = max(.5, 2/(H + .1)). Right: the penalty .1 g (k - .3)_+² over the KL average and the entropy, in decades; blank: 0,"
    " up to the threshold .3 and for negative estimates (C3).",
    size=(11.0, 4.2),
)  # fmt: skip
def gate_and_hinge(run):
    h = np.linspace(0, 6, 121)
    yield {"panel": "gate", "k": 0.0, "H": h, "value": [entropy_gate(float(x)) for x in h]}
    k = np.round(np.linspace(-0.5, 3, 36), 2)
    for x in np.round(np.linspace(0, 6, 25), 2):
        yield {"panel": "penalty", "k": k, "H": x, "value": hinge_penalty(k, 0.3, 0.1 * entropy_gate(float(x)))}


@gate_and_hinge.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    Lines("H", "value", markers=False, yscale="log", levels={1.0: "1", 0.5: ".5"}).on(left, table.rows(panel="gate"))
    left.set(xlabel="entropy H, nats a token", ylabel="gate g")
    rows = table.rows(panel="penalty")
    k, h = rows.distinct("k"), rows.distinct("H")
    grid = rows["value"].reshape(len(h), len(k))
    image = right.pcolormesh(k, h, np.log10(np.where(grid > 0, grid, np.nan)), cmap="cividis", shading="nearest")
    right.grid(visible=False)
    right.axvline(0.3, color="0.3", linestyle="--", linewidth=1)
    right.set(xlabel="KL average k, nats a token", ylabel="entropy H, nats a token")
    figure.colorbar(image, ax=right, label="log10 of the penalty")


@figures.figure(
    "controller",
    title="The controller on a saturating reward",
    caption="One noisy reward curve (time scale 600, 4000 updates; every 8th shown): reward and its average, threshold with the levels of the phases (dotted), PID output, integral. The phases"
    " move the threshold by .21 nats, the PID by .014; its integral winds up to -1 (C4).",
    size=(11.0, 6.0),
)  # fmt: skip
def controller(run):
    reward = saturating(run.rng("curve"), scale=600.0)
    found, every = threshold_trace(reward), slice(0, None, 8)
    columns = {"reward": reward, "average": found.smoothed, "factor": found.factor, "PID": found.control,
               "integral": found.integral, "threshold": found.threshold}  # fmt: skip
    yield {"update": np.arange(len(reward))[every], **{name: x[every] for name, x in columns.items()}}


@controller.draw
def _(table, figure):
    axes = figure.subplots(2, 2, sharex=True).ravel()
    labels = ("reward", "threshold tau, nats", "PID output, nats", "integral I")
    for ax, name, label in zip(axes, ("reward", "threshold", "PID", "integral"), labels):
        ax.plot(table["update"], table[name], linewidth=0.8)
        ax.set(ylabel=label)
    axes[0].plot(table["update"], table["average"], linewidth=1.5)
    axes[0].legend(["reward", "average m"], loc="lower right")
    for name, factor in PHASES.items():
        axes[1].axhline(0.3 * factor, color="0.5", linestyle=":", linewidth=1)
        at = (1.01, 0.3 * factor)
        axes[1].annotate(name, at, xycoords=("axes fraction", "data"), va="center", fontsize=8, annotation_clip=False)
    axes[1].set_ylim(0.2, 0.5)
    for ax in axes[2:]:
        ax.set_xlabel("update")


METHODS = {
    "none = as coded": Run(),
    "hinge c = .1": Run(0.1),
    "hinge c = 5": Run(5.0),
    "c = .1, averaged": Run(0.1, kept=0.1),
    "plain KL .05": Run(plain=0.05),
    "plain KL .3": Run(plain=0.3),
}


@figures.figure(
    "training",
    title="Training with and without a leash",
    caption="16 prompts, 12 actions, batches of 128, mean and 95 % interval over 10 seeds. c = .1 acts like a plain KL of .3; whatever binds costs reward,"
    " proxy and true, and keeps entropy; averaged: the gradient keeps the factor .1 of the KL average (C7).",
    size=(11.0, 7.0),
)  # fmt: skip
def training(run):
    path = train([run.rng("training", seed) for seed in range(10)], tuple(METHODS.values()), every=20)
    for number, name in enumerate(METHODS):
        for score, values in zip(("proxy", "true", "KL", "entropy"), path[:, number]):
            yield {"score": score, "method": name, "step": np.arange(0, 601, 20), **over_seeds(value=values)}


@training.draw
def _(table, figure):
    labels = {
        "proxy": "proxy reward",
        "true": "true reward",
        "KL": "KL to the reference, nats",
        "entropy": "entropy, nats",
    }
    dashed = {name: {"linestyle": "--"} for name in ("c = .1, averaged", "plain KL .05", "plain KL .3")}
    for axes, (score, label) in zip(figure.subplots(2, 2).ravel(), labels.items()):
        Lines("step", "value", by="method", markers=False, styles=dashed).on(axes, table.rows(score=score))
        axes.set(xlabel="step", ylabel=label)
        if score == "KL":
            axes.legend(loc="upper left", fontsize=8)


@figures.figure(
    "threshold",
    title="The KL that a threshold leaves",
    caption="KL of the optimum under the hinge against tau, ten uniform arms with rewards 0, …, 1, for f = c g. It lies above the diagonal, until log 10, where"
    " the best arm alone is within the threshold and the hinge is idle (C6).",
    size=(6.4, 4.6),
    draw=Lines("tau", "KL", by="series", markers=False, xlabel="threshold tau, nats", ylabel="KL of the optimum, nats", marks={math.log(10): "log 10"},
               styles={"KL = tau": {"linestyle": "--", "color": "0.4"}}),
)  # fmt: skip
def threshold(run):
    tau = np.linspace(0, 2.6, 105)
    for f in (0.1, 1.0, 10.0):
        found = hinge_regularized(np.full(10, -math.log(10)), np.arange(10) / 9, f, tau)
        yield {"series": f"f = {f:g}", "tau": tau, "KL": found.kl}
    yield {"series": "KL = tau", "tau": tau, "KL": tau}
