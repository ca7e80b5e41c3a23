"""Figures of mbrcsl: widths, the maze, the chance of beating the data, and divergence of fitted Q iteration."""

from __future__ import annotations

import numpy as np

from klsim.learning.kinked_lines import interpolant, least_error
from klsim.learning.return_conditioned import attained_returns, empirical_table
from klsim.planning import evaluate
from klsim.planning.empirical_model import markov_clone
from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

from .setting import (
    SHAPE,
    START,
    TwoStates,
    Zigzag,
    chance_to_beat,
    closed_form,
    iterates,
    maze,
    mbrcsl,
    optimal_values,
    recorded,
    roll,
)

figures = Figures()
SLOPES = np.array([0.5, 1.5])


@figures.figure(
    "width-step",
    title="Best approximation of the backup by m kinks",
    caption="Largest error on the N states of the best function with an affine part and m kinks on the grid .5, 1, ..., N - 1.5 (linear programmes over all"
    " sets of 0 and N - 3 kinks, which are equal), b = 1: b below m = N - 2, then 0 (C1).",
    size=(6.0, 3.8),
    draw=Lines("m", "error", by="N", label="N = {}", xlabel="kinks m", ylabel="largest error on the states [reward]"),
)  # fmt: skip
def width_step(run):
    for count in (6, 7, 8):
        s = np.arange(float(count))
        y = Zigzag(count, SLOPES, 1.0, np.zeros(7)).first_reward[:, 1]
        grid = np.arange(0.5, count - 1, 0.5)
        # more kinks are no worse, so that the widths between 0 and N - 3 lie between these two
        first, last = (least_error(s, y, grid, m) for m in (0, count - 3))
        exact = least_error(s, y, s[1:-1], count - 2)
        if abs(first - last) > 1e-9:
            raise ValueError(f"N = {count}: the error falls from {first} to {last} before N - 2")
        yield {"N": count, "m": np.arange(count - 1), "error": [*[first] * (count - 3), last, exact]}


@figures.figure(
    "width-required",
    title="Width that is required",
    caption="Kinks of the interpolant of the backup of f = 0 (dynamic programming), and hidden units of the network of (s, g) that is the"
    " return-conditioned policy: a hat of three, or one on the returns that occur (C1).",
    size=(6.0, 3.8),
    draw=Lines(
        "N", "width", by="method", xlabel="number of states N", ylabel="hidden units", xscale="log", yscale="log"
    ),
)
def width_required(run):
    counts = np.array([4, 6, 8, 12, 16, 20, 30, 40])
    drawn = [Zigzag(int(n), SLOPES, 1.0, np.zeros(7)) for n in counts]
    yield {
        "method": "complete class (Bellman backup)",
        "N": counts,
        "width": [interpolant(d.s, d.first_reward[:, 1]).width for d in drawn],
    }
    for name, shape in (("RCSL, hat", "hat"), ("RCSL, on the returns that occur", "one unit")):
        yield {"method": name, "N": counts, "width": [d.conditioned(shape).width for d in drawn]}


RUNS = 20


@figures.figure(
    "returns",
    title="Returns in the maze",
    caption="Share of trajectories with a return: the data, roll-outs of the Markov clone in the counted model (40,000), and those of them that beat the"
    " data (C4).",
    size=(8.5, 3.4),
)  # fmt: skip
def returns(run):
    data = recorded()
    made = roll(data, 40_000, run.rng("returns")).rewards.sum(axis=1)
    for name, total in (("data", data.rewards.sum(axis=1)), ("roll-outs", made), ("roll-outs kept", made[made > 6])):
        yield {"set": name, "return": np.arange(9), "share": np.bincount(total.astype(int), minlength=9) / len(total)}


@returns.draw
def _(table, figure):
    names = table.distinct("set")
    for number, (axes, name) in enumerate(zip(np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names)):
        rows = table.rows(set=name)
        axes.bar(rows["return"], rows["share"], width=0.8, color=f"C{number}")
        axes.set(title=name, xlabel="return [steps at the goal]", xticks=range(0, 9, 2))
    figure.axes[0].set(ylabel="share of trajectories")


@figures.figure(
    "maze",
    title="Return in the maze",
    caption="Markov clone and RCSL on the data (exact), MBRCSL with a Markov and with a history-conditioned behaviour model (mean of 20 runs of 2000"
    " roll-outs), the optimum. The history-conditioned one finds nothing to imitate, and is the uniform policy (C4).",
    size=(7.0, 3.8),
)  # fmt: skip
def maze_returns(run):
    data, problem = recorded(), maze()
    table = empirical_table(data.states, data.actions, data.rewards, SHAPE)
    found = {
        "clone": evaluate(problem, markov_clone(data, SHAPE)).value,
        "RCSL on\nthe data": attained_returns(problem, table, 6.0).value[START],
        "MBRCSL": None,
        "MBRCSL,\nwhole history": None,
        "optimum": optimal_values(problem)[START],
    }
    for name, value in found.items():
        values = (
            np.full(RUNS, value)
            if value is not None
            else mbrcsl(data, RUNS, run.rng(name), history="hist" in name).value
        )
        yield {"method": [name], **over_seeds(value=values[:, None])}


@maze_returns.draw
def _(table, figure):
    axes = figure.subplots()
    places = np.arange(len(table["method"]))
    axes.bar(places, table["value"], width=0.7, color=["C0", "C1", "C2", "C3", "0.6"])
    for x, value in zip(places, table["value"]):
        axes.annotate(f"{value:.2f}", (x, value), xytext=(0, 3), textcoords="offset points", ha="center")
    axes.set_xticks(places, table["method"])
    axes.grid(axis="x", visible=False)
    axes.set(ylabel="expected return [steps at the goal]", ylim=(0, 9))


@figures.figure(
    "chance",
    title="Chance that a roll-out beats the data",
    caption="p against the horizon (half of the data idle) and against the share of idle trajectories (H = 10): closed form (lines) and shares among 20,000"
    " roll-outs (dots; C5).",
    size=(8.5, 3.6),
)  # fmt: skip
def chance(run):
    horizons, shares = np.arange(6, 31, 2), np.arange(0, 11)
    fine = np.linspace(0, 1, 101)
    yield {"panel": "horizon", "series": "closed form", "x": np.arange(6, 31), "p": closed_form(np.arange(6, 31), 0.5)}
    yield {"panel": "mix", "series": "closed form", "x": fine, "p": closed_form(10, fine)}
    for panel, settings, xs in (
        ("horizon", [(int(h), 5, 5) for h in horizons], horizons), ("mix", [(10, int(k), 10 - int(k)) for k in shares[1:10]], shares[1:10] / 10)
    ):  # fmt: skip
        seen = []
        for horizon, idle, left in settings:
            data = recorded(horizon, idle, left)
            total = roll(data, 20_000, run.rng(panel, horizon, idle)).rewards.sum(axis=1)
            seen.append(np.mean(total > data.rewards.sum(axis=1).max()))
        exact = [chance_to_beat(recorded(*setting)) for setting in settings]
        yield {"panel": panel, "series": "roll-outs", "x": xs, "p": seen}
        yield {"panel": panel, "series": "dynamic programming", "x": xs, "p": exact}


@chance.draw
def _(table, figure):
    labels = {"horizon": "horizon H", "mix": "share w of idle trajectories"}
    styles = {
        "closed form": {"marker": "", "color": "C0"}, "roll-outs": {"marker": "o", "linestyle": "", "color": "C1", "markersize": 5},
        "dynamic programming": {"marker": "x", "linestyle": "", "color": "black", "markersize": 7},
    }  # fmt: skip
    for axes, (panel, label) in zip(np.atleast_1d(figure.subplots(1, 2, sharey=True)), labels.items()):
        Lines("x", "p", by="series", styles=styles).on(axes, table.rows(panel=panel))
        axes.set(xlabel=label)
    figure.axes[0].set(ylabel="chance p to beat the data", ylim=(0, None))
    figure.axes[0].legend()


@figures.figure(
    "divergence",
    title="Fitted Q iteration with Q* = 0 in the class",
    caption="Two states with features 1 and 2, rewards 0: the error is multiplied by 6 gamma/5 in every iteration (C2).",
    size=(6.0, 3.8),
    draw=Lines(
        "k",
        "theta",
        by="gamma",
        label="gamma = {}",
        yscale="log",
        xlabel="iteration k",
        ylabel="|theta_k|",
        markers=False,
    ),
)
def divergence(run):
    for gamma in (0.8, 5 / 6, 0.9, 0.95):
        yield {
            "gamma": round(gamma, 3),
            "k": np.arange(101),
            "theta": np.abs(iterates(TwoStates(1.0, 2.0, gamma, 0.0, 1.0), 100)),
        }
