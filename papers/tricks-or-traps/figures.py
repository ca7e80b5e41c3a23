"""Figures of tricks-or-traps: prompt weights, normalisations in two worlds, clip-higher, aggregation, truncation, Lite PPO."""

from __future__ import annotations

import numpy as np

from klsim.distributions import entropy
from klsim.learning.difficulty import keep_probability
from klsim.learning.length_weights import truncation_push
from klsim.objectives.advantages import std_weight
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from .setting import PAY, Branch, Shortcut, Truncated, drift, sigmoid, style, train, updates

figures = Figures()
SEEDS = 8
NAMES = {"group": "group", "batch": "batch", "mean only": "group mean, no std", "mix": "mix (Lite PPO)"}
DASHED = {"1/sqrt(p(1-p))": {"linestyle": "--", "color": "0.35"}}


def rngs(run, name, seeds=SEEDS):
    return [run.rng(name, seed) for seed in range(seeds)]


@figures.figure(
    "prompt-weights",
    title="What the group's std multiplies the gradient of a prompt by",
    caption="Exact weights w(p) in groups of K, binary rewards. Groups without contrast stay in the average (solid) or are replaced (dynamic sampling);"
    " dashed: the weight of infinite groups. Without the std it is (K-1)/K for every p (C2; behind the paper's Fig. 5).",
    size=(11.0, 4.0),
)
def prompt_weights_of(run):
    p = np.geomspace(0.002, 0.5, 60)
    p = np.r_[p, 1 - p[-2::-1]]
    for size in (4, 8, 64):
        mixed = keep_probability(p, size, 1 / size, 1 - 1 / size)
        curves = {
            "all groups": std_weight(p, size),
            "replaced": std_weight(p, size) / mixed,
            "1/sqrt(p(1-p))": (p * (1 - p)) ** -0.5,
        }
        for name, weight in curves.items():
            yield {"group": f"K = {size}", "weight": name, "p": p, "w": weight}


@prompt_weights_of.draw
def _(table, figure):
    Lines("p", "w", by="weight", panels="group", xlabel="success rate p", ylabel="weight w(p)", yscale="log", markers=False,
          styles=DASHED | {"replaced": {"linestyle": "-."}})(table, figure)  # fmt: skip
    for axes in figure.axes:
        axes.set_ylim(0.9, 150)


WORLDS = {
    "solved and hopeless prompts": ("mean entropy, nats", lambda r, kind, steps: drift(r, kind, record=steps), 400),
    "all prompts easy": ("P(style)", lambda r, kind, steps: style(r, kind, record=steps), 300),
    "half of them hard": ("P(style)", lambda r, kind, steps: style(r, kind, half_hard=True, record=steps), 300),
}


@figures.figure(
    "normalisations",
    title="Normalisations on skewed and on concentrated rewards",
    caption="Left: entropy of 8 solved prompts with three right answers, beside 8 hopeless ones; any group mean keeps it at log 3 (C3; the paper's Fig. 4)."
    " Middle and right: a style bit that adds .01 to the reward of prompts solved with probability .98 (C4; the paper's Figs. 5-6). Mean and 95 % interval over 8 seeds.",
    size=(13.0, 4.2),
)
def normalisations(run):
    for world, (_, simulate, steps) in WORLDS.items():
        recorded = tuple(range(0, steps, 10))
        for kind, name in NAMES.items():
            path = simulate(rngs(run, world), kind, recorded)
            yield {"world": world, "advantage": name, "step": (*recorded, steps), **over_seeds(value=path)}


@normalisations.draw
def _(table, figure):
    styles = {
        "group mean, no std": {"linestyle": "--"},
        "mix (Lite PPO)": {"linestyle": "-."},
        "group": {"linestyle": ":", "linewidth": 2.5},
    }
    for number, (axes, (world, (label, _, _))) in enumerate(zip(figure.subplots(1, 3), WORLDS.items())):
        Lines("step", "value", by="advantage", markers=False, styles=styles).on(axes, table.rows(world=world))
        axes.set(xlabel="step", ylabel=label, title=world, ylim=(0.6, 1.15) if number == 0 else (0.48, 1.02))
        if number == 0:
            axes.legend(loc="lower left")


@figures.figure(
    "clip-higher",
    title="Clip-higher on a low-entropy bandit",
    caption="Seven arms, pi = .94 on the arm with reward .5, .01 on the arm with reward 1; eps_low = .2, 3000 exact inner steps an update. A larger eps_high keeps more"
    " entropy, and ends above the start (dashed) from about .32 on (C6; the paper's Figs. 7-8).",
    size=(10.0, 4.0),
)  # fmt: skip
def clip_higher(run):
    for high, path in zip((0.2, 0.28, 0.32), updates([0.2, 0.28, 0.32])):
        yield {"eps_high": [high] * 7, "update": np.arange(7), "entropy": entropy(np.log(path)), "reward": path @ PAY}


@clip_higher.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    lines = {"x": "update", "by": "eps_high", "label": "eps_high = {}"}
    Lines(y="entropy", levels={float(table["entropy"][0]): ""}, **lines).on(left, table)
    Lines(y="reward", **lines).on(right, table)
    left.set(xlabel="outer update", ylabel="entropy, nats")
    right.set(xlabel="outer update", ylabel="expected reward")
    right.legend(loc="upper left")


@figures.figure(
    "aggregation",
    title="Length of right and wrong branches under two aggregations",
    caption="The first token decides (right with probability .3), then a branch of geometric length; exact ascent of the two continue logits, step .5, baseline p."
    " The sequence mean lengthens wrong branches and shortens right ones, the token mean of a large batch moves neither (C5; the paper's Fig. 9).",
    size=(7.4, 4.2),
)
def aggregation(run):
    for token, name in ((False, "sequence"), (True, "token")):
        world, path = Branch(0.3), []
        for step in range(201):
            path.append([length @ law for length, law, _ in map(Branch.lengths, world[1:])])
            if step < 200:
                right, wrong = 0.5 * world.pushes(token=token)
                world = Branch(0.3, world.right + right, world.wrong + wrong)
        for i, branch in enumerate(("right", "wrong")):
            yield {"curve": f"{name} mean, {branch}", "step": np.arange(0, 201, 5), "length": np.array(path)[::5, i]}


@aggregation.draw
def _(table, figure):
    Lines("step", "length", by="curve", xlabel="step of exact ascent", ylabel="mean length of the branch, tokens", markers=False,
          styles={"token mean, right": {"linestyle": "--"}, "token mean, wrong": {"linestyle": ":", "linewidth": 2.5}})(table, figure)  # fmt: skip


RULES = {"none": "no filter", "loss": "masked from the loss", "loss and baseline": "filter"}


@figures.figure(
    "overlong-filter",
    title="What a filter does to length, at a short and at a long cap",
    caption="Geometric lengths cut at 8 tokens, q = .6; exact ascent of the continue logit, step .5, from F = .5 (short cap) and F = .97 (long cap)."
    " Without a filter responses are shortened until all finish; the filter leaves them as they are; a mask on the loss alone lies between (C7; the paper's Figs. 10-11).",
    size=(10.0, 6.6),
)
def overlong_filter(run):
    for cap, start in (("short", 0.917), ("long", 0.645)):
        for mask, name in RULES.items():
            world, path = Truncated.constant(np.log(start / (1 - start)), 0.6, 8), []
            for _ in range(301):
                path.append((world.finished, 1 / (1 - sigmoid(world.logit))))
                slope = world.slope(lambda w: w.finished)
                world = world._replace(
                    logit=world.logit + 0.5 * float(truncation_push(0.6, world.finished, mask=mask)) * slope
                )
            finished, length = np.array(path)[::10].T
            yield {"cap": cap, "filter": name, "step": np.arange(0, 301, 10), "finished": finished, "length": length}


@overlong_filter.draw
def _(table, figure):
    grid = figure.subplots(2, 2, sharex=True)
    styles = {"masked from the loss": {"linestyle": "--"}, "filter": {"linestyle": "-."}}
    for row, (y, label) in enumerate((("finished", "P(finished)"), ("length", "mean length before the cut, tokens"))):
        for column, cap in enumerate(("short", "long")):
            axes = grid[row, column]
            Lines("step", y, by="filter", markers=False, styles=styles).on(axes, table.rows(cap=cap))
            axes.set(
                ylabel="" if column else label,
                title="" if row else f"{cap} cap",
                xlabel="step of exact ascent" if row else "",
            )
    grid[0, 0].legend(loc="center right")


@figures.figure(
    "lite-ppo",
    title="Lite PPO against GRPO in a world with a shortcut",
    caption="32 prompts, Adam, 250 steps, exact accuracy, mean and 95 % interval over 12 seeds. Left: along training (sequence mean). Right: at the end. The gain is that of leaving"
    " the group's std; the aggregation adds nothing here (C8; the paper's tables are on LLMs).",
    size=(11.0, 4.2),
)
def lite_ppo(run):
    recorded = tuple(range(0, 250, 10))
    worlds = [Shortcut(norm, tokens) for tokens in (False, True) for norm in ("group", "mean only", "mix")]
    accuracy, _ = train(rngs(run, "lite", 12), *worlds, record=recorded)
    for world, path in zip(worlds, accuracy):
        names = {"advantage": NAMES[world.norm], "loss": "token mean" if world.tokens else "sequence mean"}
        yield {**names, "step": (*recorded, 250), **over_seeds(accuracy=path)}


@lite_ppo.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    styles = {"mix (Lite PPO)": {"linestyle": "--"}}
    Lines("step", "accuracy", by="advantage", markers=False, styles=styles).on(left, table.rows(loss="sequence mean"))
    left.set(xlabel="step", ylabel="accuracy", ylim=(0.3, 1.02))
    left.legend(loc="lower right")
    Bars("advantage", "accuracy", by="loss").on(right, table.rows(step=250))
    right.set(xlabel="advantage", ylabel="final accuracy", ylim=(0, 1.25))
    right.legend(loc="upper left", ncols=2)
