"""Figures of knowrl: the pruning paradox, tolerances, the critical segment, correct counts, and the selections."""

from __future__ import annotations

import numpy as np

from klsim import set_functions as sf
from klsim.report.drawings import Bars, Lines, Many
from klsim.report.figures import Figures, over_seeds

from .setting import (
    GRID,
    GROUP,
    ROLLOUTS,
    STEPS,
    STRATEGIES,
    Chain,
    Coverage,
    Paradox,
    additive,
    estimated,
    learn,
    outcome,
)

figures = Figures()

# read off the paper's Fig. 5a (S-LOO), m = 2 to 8
PUBLISHED = {"share": (0.57, 0.38, 0.40, 0.36, 0.46, 0.39, 0.59), "drop": (0.27, 0.30, 0.485, 0.52, 0.44, 0.49, 0.445)}

BLACK = {"published (Fig. 5a)": {"color": "black", "linestyle": "--"}}


@figures.figure(
    "paradox",
    title="Joint removal of the knowledge points that may each go",
    caption="Share p_m of the problems with m individually removable KPs that lose accuracy when these go together, and the mean"
    " loss of those that do. Coverage world and additive world (no interaction), 20 times 2000 problems of 6 KPs; band: 95 %"
    " interval. Dashed: the paper's Fig. 5a, read off. Noise alone makes such shares; only the loss tells interaction (C3).",
    size=(10.5, 4.0),
    draw=Many(
        "quantity",
        {
            "share": Lines("m", "value", by="world", styles=BLACK, xlabel="m, KPs that may each go", ylabel="share p_m that loses"),
            "drop": Lines("m", "value", by="world", styles=BLACK, xlabel="m, KPs that may each go", ylabel="mean loss of accuracy"),
        },
        titles={"share": "How many lose", "drop": "How much they lose"},
    ),
)  # fmt: skip
def paradox(run):
    worlds = {"coverage, exact": [], "additive, 32 rollouts": []}
    for seed in range(20):
        rng = run.rng("paradox", seed)
        worlds["coverage, exact"].append(Paradox.of(Coverage.draw(rng, 2000).table()))
        worlds["additive, 32 rollouts"].append(Paradox.of(estimated(rng, additive(rng, 2000))))
    for quantity in ("share", "drop"):
        for world, found in worlds.items():
            counts = (3, 4, 5, 6) if world.startswith("coverage") else (2, 3, 4, 5, 6)
            rows = [[getattr(x, quantity)(m) for m in counts] for x in found]
            yield {"quantity": quantity, "world": world, "m": counts, **over_seeds(value=rows)}
        levels = np.array(PUBLISHED[quantity])
        yield {"quantity": quantity, "world": "published (Fig. 5a)", "m": np.arange(2, 9), "value": levels,
               "value low": levels, "value high": levels}  # fmt: skip


@figures.figure(
    "tolerance",
    title="Selected size and its true accuracy against the tolerance",
    caption="Selections from 32 rollouts of every subset, 2000 coverage problems of 6 KPs, in 20 parts; band: 95 % interval. Both T-LOO and"
    " CSS keep fewer KPs as the tolerance grows; CSS gains accuracy, T-LOO loses it. CBRS, whose rule is not published in what"
    " was read, grows from 1.15 to 5.86 KPs (the paper's Fig. 5b).",
    size=(10.5, 4.0),
    draw=Many(
        "quantity",
        {
            "size": Lines("rollouts", "value", by="strategy", xlabel="tolerance, in rollouts of 32", ylabel="mean number of KPs kept"),
            "accuracy": Lines("rollouts", "value", by="strategy", xlabel="tolerance, in rollouts of 32", ylabel="true accuracy"),
        },
        titles={"size": "KPs", "accuracy": "Accuracy"},
    ),
)  # fmt: skip
def tolerance(run):
    a = Coverage.draw(run.rng("tolerance"), 20, 100).table()
    scores = estimated(run.rng("rollouts"), a)
    select = {"T-LOO": sf.leave_one_out, "CSS": sf.constrained_search}
    rows = {name: [outcome(a, f(scores, j * GRID)) for j in range(10)] for name, f in select.items()}
    for place, quantity in enumerate(("accuracy", "size")):
        for name, found in rows.items():
            values = np.array([x[place].mean(axis=1) for x in found]).T
            yield {"quantity": quantity, "strategy": name, "rollouts": np.arange(10), **over_seeds(value=values)}


@figures.figure(
    "critical-segment",
    title="Success against the revealed prefix",
    caption="Solutions of 12 steps with one key step of chance .02 (the others .93 to .99), five draws, and the same difficulty in equal"
    " parts (dashed). With a key step the curve is flat, jumps once, and rises little after it (C5; the paper's Figs. 1a and 6).",
    size=(7.0, 4.2),
    draw=Lines("prefix", "success", by="solution", xlabel="share of the steps that are revealed", ylabel="success",
               styles={"equal parts": {"linestyle": "--", "color": "black"}}),
)  # fmt: skip
def critical_segment(run):
    chains = [Chain.draw(run.rng("chain", seed)) for seed in range(5)]
    for chain in sorted(chains, key=lambda c: c.key):
        yield {
            "solution": f"key step {chain.key + 1}",
            "prefix": np.arange(STEPS + 1) / STEPS,
            "success": chain.success(),
        }
    even = Chain.even(run.rng("even"))
    yield {"solution": "equal parts", "prefix": np.arange(STEPS + 1) / STEPS, "success": even.success()}


@figures.figure(
    "correct-counts",
    title="Correct rollouts of eight",
    caption="Share of the groups by their number of correct rollouts, 20 runs of 400 groups, 95 % intervals: without hints and with minimal"
    " hints at the start (w = -3), and without hints after 2500 updates with minimal hints (C6; the paper's Fig. 4: zero"
    " correct 41 % to 13 %, all correct 1.4 % to 34 %).",
    size=(8.5, 4.2),
    draw=Bars("correct", "share", by="groups", xlabel="correct rollouts of 8", ylabel="share of the groups"),
)  # fmt: skip
def correct_counts(run):
    def rngs(name):
        return [run.rng(name, seed) for seed in range(20)]

    trained = learn(rngs("minimal"), "minimal").weights
    starts = {
        "no hint, before": ("none", -3.0),
        "minimal hint, before": ("minimal", -3.0),
        "no hint, after": ("none", trained),
    }
    for name, (hint, start) in starts.items():
        counts = learn(rngs(name), hint, updates=400, lr=0.0, start=start).counts
        shares = [[np.mean(row == c) for c in range(GROUP + 1)] for row in counts]
        yield {"groups": name, "correct": np.arange(GROUP + 1), **over_seeds(share=shares)}


def random_choice(rng, a):
    """As many KPs as CSS keeps, at random."""
    size = sf.sizes(6)[STRATEGIES["CSS"](a)]
    rank = np.argsort(np.argsort(rng.random((*a.shape[:-1], 6)), axis=-1), axis=-1)
    return (rank < size[..., None]) @ (1 << np.arange(6))


def largest_score(scores):
    """The best configuration that leave-one-out evaluates: nothing, everything, all but one."""
    seen = np.r_[0, 63, 63 - (1 << np.arange(6))]
    return seen[np.argmax(scores[..., seen], axis=-1)]


@figures.figure(
    "selection",
    title="Accuracy and size of the selected hints",
    caption="2000 coverage problems of 6 KPs in 20 parts, 95 % intervals, selected with exact accuracies and from 32 rollouts of every subset (tolerance"
    " 1/32; accuracy is the true one). Max-Score: the best of nothing, everything, all but one. Random keeps as many KPs as CSS; pruned first is the other reading of CSS. The sizes have the published"
    " order T-LOO < S-LOO < CSS < All (1.20, 1.72, 2.57, 5.86); here leave-one-out falls below All, in the paper's table it does"
    " not (62.5, 62.65 against 61.03). Noise takes two thirds of what CSS gains on All (C1, C4).",
    size=(11.5, 4.8),
)  # fmt: skip
def selection(run):
    rng = run.rng("selection")
    a = Coverage.draw(rng, 20, 100).table()
    select = {
        "none": STRATEGIES["none"],
        "All": STRATEGIES["All"],
        "Random": lambda scores: random_choice(rng, scores),
        "Max-Score": largest_score,
        **{name: STRATEGIES[name] for name in ("T-LOO", "S-LOO", "pruned first", "CSS", "exhaustive")},
    }
    for number, quantity in enumerate(("accuracy", "size")):
        for source, scores in (("exact accuracies", a), (f"{ROLLOUTS} rollouts", estimated(run.rng("rollouts"), a))):
            for name, f in select.items():
                found = outcome(a, f(scores))[number].mean(axis=1)
                yield {"quantity": quantity, "from": source, "strategy": [name], **over_seeds(value=found[:, None])}


@selection.draw
def _(table, figure):
    labels = {"accuracy": "true accuracy", "size": "mean number of KPs kept"}
    for number, (axes, (quantity, label)) in enumerate(zip(figure.subplots(1, 2), labels.items())):
        Bars("strategy", "value", by="from").on(axes, table.rows(quantity=quantity))
        axes.set(xlabel="strategy", ylabel=label)
        axes.tick_params(axis="x", rotation=35)
        if number == 0:
            axes.legend(loc="upper left")
