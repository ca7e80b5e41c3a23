"""Figures of reasoning-boundary: pass@k, who helps and harms whom, who wins, and how long it takes."""

from __future__ import annotations

import numpy as np

from klsim.learning.interference import success_interference, time_to_success
from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

from .setting import GRPO, REVERSE, SELF, X, draw_worlds, train, weights_after

figures = Figures()
SEEDS = 8
BASE, LONG, EARLY = "base", "SELF, 830 steps", "GRPO + reverse KL, 80 steps"


def worlds_of(run):
    return draw_worlds([run.rng("world", seed) for seed in range(SEEDS)])


@figures.figure(
    "pass-at-k",
    title="pass@k before and after training",
    caption="40 prompts, 30 answers, shared weights, 300 steps of 8 rollouts, beta = .1; mean over 8 worlds and 95 % interval, exact pass@k. GRPO crosses the"
    " base; SELF loses pass@1 and keeps the rest. Dashed: SELF after 830 steps and GRPO + reverse KL after 80, about the same pass@1 (the paper's main"
    " figure is on language models, its numbers could not be read) (C5, C6).",
    size=(7.5, 4.8),
    draw=Lines("k", "value", by="policy", xscale="log", xlabel="k, answers a prompt", ylabel="pass@k",
               styles={LONG: {"linestyle": "--"}, EARLY: {"linestyle": "--"}, BASE: {"color": "0.2", "linestyle": ":"}}),
)  # fmt: skip
def pass_at_k(run):
    worlds, ks = worlds_of(run), 2 ** np.arange(13)
    runs = {
        name: train(worlds, method, run.rng("train", name), marks=marks)
        for name, method, marks in (
            ("GRPO", GRPO, (300,)),
            ("GRPO + reverse KL", REVERSE, (80, 300)),
            ("SELF", SELF, (300, 830)),
        )
    }
    curves = [
        (BASE, "GRPO", None),
        ("GRPO", "GRPO", 0),
        ("GRPO + reverse KL", "GRPO + reverse KL", 1),
        ("SELF", "SELF", 0),
    ]
    for name, source, mark in [*curves, (LONG, "SELF", 1), (EARLY, "GRPO + reverse KL", 0)]:
        yield {
            "policy": name,
            "k": ks,
            **over_seeds(value=np.stack([runs[source].pass_at(k, mark) for k in ks], axis=1)),
        }


@figures.figure(
    "interference",
    title="First-order change of log Q(x') by a step on Q(x), before and after GRPO",
    caption="World 1, prompts sorted by their initial success; entry: (phi.phi') <g, g'> / Q(x'), per unit step on Q(x) (row), symmetric logarithmic colours."
    " All inner products of features are >= 0, so that blue off the diagonal is a conflict of answers (C2).",
    size=(11.0, 4.6),
)
def interference(run):
    worlds = worlds_of(run)
    one = worlds.select(slice(None))
    correct = one.reward.argmax(axis=-1)
    weights = weights_after(worlds, GRPO, run.rng("train", "GRPO"))
    order = np.argsort(one.success()[0])
    for when, log_policy, success in (
        ("before", one.log_policy(), one.success()),
        ("after 300 steps", one.log_policy(weights), one.success(weights)),
    ):
        matrix = success_interference(log_policy, correct, one.features)[0] / success[0][None, :]
        matrix = matrix[np.ix_(order, order)]
        rows, columns = np.meshgrid(np.arange(X), np.arange(X), indexing="ij")
        yield {"when": when, "x": rows.ravel(), "y": columns.ravel(), "value": matrix.ravel(),
               "same": (correct[0][order][:, None] == correct[0][order]).astype(int).ravel()}  # fmt: skip


@interference.draw
def _(table, figure):
    from matplotlib.colors import SymLogNorm

    top = float(np.abs(table["value"]).max())
    norm = SymLogNorm(1e-5, vmin=-top, vmax=top, base=10)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, when in zip(panels, table.distinct("when")):
        rows = table.rows(when=when)
        off = rows["x"] != rows["y"]
        image = axes.imshow(rows["value"].reshape(X, X), norm=norm, cmap="RdBu_r", origin="lower")
        axes.grid(visible=False)
        axes.set(
            xlabel="prompt x' that changes, by initial success",
            title=f"{when}: {np.mean(rows['value'][off] < 0):.0%} of pairs harm",
        )
    panels[0].set_ylabel("prompt x of the step, by initial success")
    figure.colorbar(image, ax=list(panels), label="change of log Q(x') per unit step")


@figures.figure(
    "winner-take-all",
    title="Change of log Q against its initial value",
    caption="8 worlds of 40 prompts, 300 steps. GRPO raises what the base already solves and lowers the rest; SELF, which trains on greedy failures only, raises"
    " the middle and hardly lowers the rest. Mean of the correlations of single worlds in the titles (C5, C6).",
    size=(9.5, 4.2),
)
def winner_take_all(run):
    worlds = worlds_of(run)
    for name, method in (("GRPO", GRPO), ("SELF", SELF)):
        found = train(worlds, method, run.rng("train", name))
        for world in range(SEEDS):
            yield {
                "method": name,
                "world": world,
                "correlation": found.correlation()[world],
                "start": found.base[world],
                "change": found.moved()[world],
            }


@winner_take_all.draw
def _(table, figure):
    panels = figure.subplots(1, 2, sharey=True)
    for axes, method, colour in zip(panels, table.distinct("method"), ("#0072B2", "#D55E00")):
        rows = table.rows(method=method)
        mean = np.mean([rows.rows(world=w)["correlation"][0] for w in rows.distinct("world")])
        axes.plot(rows["start"], rows["change"], ".", color=colour, alpha=0.6)
        axes.axhline(0, color="0.4", linewidth=1)
        axes.set(xscale="log", xlabel="initial success Q", title=f"{method}: mean correlation {mean:+.2f}")
    panels[0].set_ylabel("change of log Q, nats")


@figures.figure(
    "hitting-times",
    title="Time to success 1/2 against the initial success",
    caption="Tabular exact gradients, 50 answers, equal wrong ones. Lines: closed forms; points: Euler steps of .01 (PG: .1). Policy gradient takes a time of order"
    " 1/Q, the log-likelihood and the natural gradient of order log 1/Q (C3).",
    size=(7.0, 4.6),
)  # fmt: skip
def hitting_times(run):
    names = {"success": "policy gradient", "log_success": "log-likelihood", "natural": "natural gradient"}
    for objective, name in names.items():
        line = np.geomspace(0.001, 0.3, 60)
        yield {"method": name, "kind": "closed form", "start": line, "time": time_to_success(line, 0.5, 50, objective)}
        points = np.array([0.16, 0.08, 0.04, 0.02, 0.01, 0.005, 0.0025])
        yield {"method": name, "kind": "Euler", "start": points, "time": [euler(q, objective) for q in points]}


def euler(start, objective, answers=50):
    """Steps times step size until Q passes 1/2; the wrong answers stay equal, so two logits suffice."""
    gap, step, time = np.log(start / (1 - start) * (answers - 1)), 0.1 if objective == "success" else 0.01, 0.0
    while True:
        q = 1 / (1 + (answers - 1) * np.exp(-gap))
        if q >= 0.5:
            return time
        # of the right logit minus a wrong one: q (1 - q) + q (1 - q)/(A - 1)
        speed = q * (1 - q) * answers / (answers - 1)
        gap += step * {"success": speed, "log_success": speed / q, "natural": 1.0}[objective]
        time += step


@hitting_times.draw
def _(table, figure):
    axes = figure.subplots()
    for method, colour, marker in zip(table.distinct("method"), ("#0072B2", "#D55E00", "#009E73"), "os^"):
        line, points = (table.rows(method=method, kind=kind) for kind in ("closed form", "Euler"))
        axes.plot(line["start"], line["time"], color=colour, label=method)
        axes.plot(points["start"], points["time"], marker, color=colour)
    axes.set(xscale="log", yscale="log", xlabel="initial success Q", ylabel="time to Q = 1/2 (steps x step size)")
    axes.legend()
