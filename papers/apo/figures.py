"""Figures of apo: the KL weight, training with and without KL, lengths with and without STCR, and what success costs in drift."""

from __future__ import annotations

import numpy as np

from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

from .setting import GROUP, START, UPDATES, Method, Shaping, mean_weight, train, weight_at, write

figures = Figures()
SEEDS = 16


def rngs(run, name, seeds=SEEDS):
    return [run.rng(name, seed) for seed in range(seeds)]


SCHEDULES = ("released: 1 - exp(-e (1 - d))", "commented out: exp(-e d)", "groups of 8", "mean over a group of 8")


@figures.figure(
    "kl-weight",
    title="The KL weight by difficulty",
    caption="Weight of a response with A > 0 against the difficulty d of its group, with the earlier variant of the code, and the mean weight of all"
    " responses of a group (1 where A <= 0). At d = 0 and 1 the released weight jumps to 1 (C1); a group pays least in the middle,"
    " at d = 1 - 1/e (C1-freed).",
    size=(7.0, 4.2),
)  # fmt: skip
def kl_weight(run):
    n = 200
    d = np.arange(1, n) / n
    yield {"curve": SCHEDULES[0], "d": d, "weight": [weight_at(n - k, n) for k in range(1, n)]}
    yield {"curve": SCHEDULES[1], "d": d, "weight": np.exp(-np.e * d)}
    grid = np.arange(GROUP + 1)
    eight = [1.0, *(weight_at(k, GROUP) for k in range(1, GROUP)), 1.0]
    yield {"curve": SCHEDULES[2], "d": 1 - grid / GROUP, "weight": eight}
    yield {"curve": SCHEDULES[3], "d": 1 - grid / GROUP, "weight": [mean_weight(int(k), GROUP) for k in grid]}


@kl_weight.draw
def _(table, figure):
    axes = figure.subplots()
    for name, style in zip(SCHEDULES, ("-", "--", "o", "s:")):
        rows = table.rows(curve=name)
        looks = {"markersize": 9, "fillstyle": "none", "zorder": 3} if style == "o" else {"markersize": 4}
        axes.plot(rows["d"], rows["weight"], style, label=name, **looks)
    axes.set(xlabel="difficulty d, 1 - share of right answers", ylabel="KL weight", ylim=(0, 1.05))
    axes.legend(loc="lower left")


METHODS = {"no KL": Method("none"), "fixed": Method(), "DADS": Method("dads")}
SCORES = ("accuracy", "entropy", "drift")
LABELS = ("mean success, 20 training prompts", "entropy, nats", "KL(ref || pi), general prompts, nats")


@figures.figure(
    "training",
    title="No KL, fixed KL and DADS",
    caption=f"20 training prompts (10 hard) that share parameters with 20 untouched general ones, beta = .25, mean and 95 % interval over {SEEDS} seeds."
    " No KL learns most, loses entropy and drifts; DADS lies next to the fixed KL (C4).",
    size=(12.0, 3.8),
)  # fmt: skip
def training(run):
    steps = tuple(range(0, UPDATES, 20))
    path = train(rngs(run, "training"), tuple(METHODS.values()), record=steps)
    for name, scores in zip(METHODS, path):
        for score, values in zip(SCORES, scores):
            yield {"score": score, "method": name, "step": (*steps, UPDATES), **over_seeds(value=values)}


@training.draw
def _(table, figure):
    for number, (axes, score, label) in enumerate(zip(figure.subplots(1, 3), SCORES, LABELS)):
        Lines("step", "value", by="method", markers=False, styles={"DADS": {"linestyle": "--"}}).on(
            axes, table.rows(score=score)
        )
        axes.set(xlabel="group updates", ylabel=label)
        if number == 0:
            axes.legend(loc="lower right")


SHAPINGS = {
    "token mean": Shaping(),
    "token mean, STCR 1.1": Shaping(1.1),
    "constant denominator": Shaping(1.0, "wrong", 72.0),
    "constant denominator, STCR 1.1": Shaping(1.1, "wrong", 72.0),
}


@figures.figure(
    "lengths",
    title="Lengths of wrong and right answers",
    caption=f"Mean lengths (exact) over training, mean and 95 % interval over {SEEDS} seeds; thin dashed line: the start. With the mean over all tokens wrong answers grow and"
    " right ones shrink, without any reward for it; STCR with a base of 1.1 undoes the first. With a constant denominator (dashed) neither"
    " happens (C5). The released base has no visible effect.",
    size=(10.5, 4.2),
)  # fmt: skip
def lengths(run):
    steps = tuple(range(0, 500, 20))
    path = write(rngs(run, "lengths"), tuple(SHAPINGS.values()), record=steps)
    for name, scores in zip(SHAPINGS, path):
        for answers, values in zip(("right", "wrong"), scores):
            yield {"answers": answers, "shaping": name, "step": (*steps, 500), **over_seeds(length=values)}


@lengths.draw
def _(table, figure):
    styles = {name: {"linestyle": "--" if "constant" in name else "-"} for name in SHAPINGS}
    for number, (axes, answers) in enumerate(zip(figure.subplots(1, 2), ("wrong", "right"))):
        start = (1 - (q := START[1 - (answers == "right")]) ** 60) / (1 - q)
        Lines("step", "length", by="shaping", markers=False, styles=styles, levels={start: ""}).on(
            axes, table.rows(answers=answers)
        )
        axes.set(xlabel="group updates", ylabel=f"mean length of {answers} answers, tokens")
        if number == 0:
            axes.set_ylim(0, 24)
            axes.legend(loc="upper left")


CURVES = {"fixed": "fixed", "DADS": "dads", "reversed": "reversed", "constant .5": "constant"}
BETAS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5)


@figures.figure(
    "trade-off",
    title="Success on hard prompts against drift",
    caption=f"Means over {SEEDS} seeds after 600 updates; along a curve beta is .05, .1, .15, .2, .25, .35, .5 from right to left, the star is no KL. At equal drift DADS, its"
    " reversal and a constant discount lie close together, a little above a uniformly lower beta (C4, C4-schedule).",
    size=(7.0, 4.6),
)  # fmt: skip
def trade_off(run):
    methods = [Method(schedule, beta) for schedule in CURVES.values() for beta in BETAS]
    *found, none = train(rngs(run, "trade-off"), (*methods, Method("none")))
    for number, name in enumerate(CURVES):
        scores = np.array(found[number * len(BETAS) : (number + 1) * len(BETAS)]).mean(axis=-1)
        yield {"schedule": name, "beta": BETAS, "hard": scores[:, 0], "drift": scores[:, 2]}
    yield {"schedule": "no KL", "beta": [0.0], "hard": [none[0].mean()], "drift": [none[2].mean()]}


@trade_off.draw
def _(table, figure):
    axes = figure.subplots()
    Lines("drift", "hard", by="schedule", styles={"no KL": {"marker": "*", "markersize": 14, "linestyle": ""}}).on(
        axes, table
    )
    axes.set(xlabel="drift: mean KL(ref || pi) on general prompts, nats", ylabel="mean success on hard prompts")
    axes.legend(loc="lower right")
