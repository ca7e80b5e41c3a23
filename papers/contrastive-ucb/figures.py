"""Figures of contrastive-ucb: what negatives cost, exploration of the lock, its bonus, and the duality gap of learned games."""

from __future__ import annotations

import numpy as np

from klsim.learning.contrastive import mean_squared_l1, ratio_covariance
from klsim.planning import duality_gap, optimistic_game
from klsim.report.drawings import Lines, Many
from klsim.report.figures import COLOURS, Figures, over_seeds

from .setting import BEST, ITERATIONS, SKEWED, STARVED, UNIFORM, LearnedGame, explore, scaled_error

figures = Figures()

NEGATIVES = {"uniform": UNIFORM, "starved": STARVED, "on-policy (P⁻ = P)": SKEWED}
LIMITS = {mean_squared_l1(ratio_covariance(SKEWED, q)): "" for q in NEGATIVES.values()}
SHARED = {
    "x": "samples", "by": "negatives", "xscale": "log", "yscale": "log", "xlabel": "samples k (half of them negatives)",
    "styles": {"on-policy (P⁻ = P)": {"linestyle": "--", "markerfacecolor": "white"}},
}  # fmt: skip


@figures.figure(
    "price-of-negatives",
    title="Estimating a transition law from k samples with three laws of negatives",
    caption="P = (.1, .15, .2, .25, .3), f = (n1 + ½)/(n0 + ½), 10 seeds of 2000 estimates, band: 95 % interval of the mean. Left: k times"
    " the error, dashed: its limits 11.5, 805 and 11.1. Right: the error. Starved negatives, P⁻ = (.9925, .0025, .0025, .0015, .001), show"
    " no 1/k decay before k min P⁻ >> 1 and cost 70 times as many samples after (C3).",
    size=(9.5, 3.8),
    draw=Many("quantity", {
        "scaled": Lines(y="value", ylabel="k E‖P̂ − P‖₁²", levels=LIMITS, **SHARED),
        "plain": Lines(y="value", ylabel="E‖P̂ − P‖₁²", **SHARED),
    }, titles={"scaled": "times the number of samples", "plain": "the error itself"}),
)  # fmt: skip
def price_of_negatives(run):
    samples = np.array([100, 300, 1000, 3000, 10**4, 3 * 10**4, 10**5, 3 * 10**5, 10**6])
    for name, negative in NEGATIVES.items():
        rows = np.array(
            [[scaled_error(SKEWED, negative, int(k), 2000, run.rng(name, seed)) for k in samples] for seed in range(10)]
        )
        yield {"quantity": "scaled", "negatives": name, "samples": samples, **over_seeds(value=rows)}
        yield {"quantity": "plain", "negatives": name, "samples": samples, **over_seeds(value=rows / samples)}


GAMMAS, RUNS = (0.0, 0.4, 1.0), 6
STYLES = {0.0: ("--", "o", COLOURS[0]), 0.4: ("-.", "s", COLOURS[1]), 1.0: ("-", "^", COLOURS[2])}


def runs_of_the_lock(run, quantity):
    """One row an iteration: the mean, and each of six runs in a column of its own."""
    for gamma in GAMMAS:
        found = explore(run.rng("lock"), RUNS, gamma=gamma).run
        rows = BEST - found.value if quantity == "gap" else found.bonus
        singles = {f"run {i + 1}": rows[i] for i in range(RUNS)}
        yield {"gamma": gamma, "iteration": np.arange(1, ITERATIONS + 1), "mean": rows.mean(axis=0), **singles}


def with_single_runs(table, axes):
    for gamma in table.distinct("gamma"):
        rows, (line, marker, colour) = table.rows(gamma=gamma), STYLES[gamma]
        axes.plot(
            rows["iteration"], rows["mean"], line, marker=marker, color=colour, markevery=20, label=f"gamma = {gamma:g}"
        )
        for i in range(RUNS):
            axes.plot(rows["iteration"], rows[f"run {i + 1}"], color=colour, linewidth=0.5, alpha=0.5)
    axes.set_xlabel("iteration (9 episodes each)")


@figures.figure(
    "exploration",
    title="Gap to the best return on the rich-observation lock",
    caption="Horizon 5, 3 actions, 6 observations of 2 latent states, 21 candidate decoders a step; six runs (thin) and their mean. Without a"
    " bonus every run stays with the distractor, .606 below V* = .656; with one all end at 0 (C6).",
)
def exploration(run):
    yield from runs_of_the_lock(run, "gap")


@exploration.draw
def _(table, figure):
    axes = figure.subplots()
    with_single_runs(table, axes)
    axes.set(ylabel="V* − V(policy)", ylim=(-0.03, 0.82))
    axes.legend(ncols=3, loc="upper center")


@figures.figure(
    "bonus",
    title="The bonus that the policies of the same runs collect",
    caption="Sum over the steps of the expected bonus gamma ‖φ‖ under the true transitions and the current policy, six runs (thin) and their mean."
    " It jumps where a new pair is reached and falls like the square root of the visits after; no bonus: 0 (not drawn).",
)
def bonus(run):
    yield from (block for block in runs_of_the_lock(run, "bonus") if block["gamma"] > 0)


@bonus.draw
def _(table, figure):
    axes = figure.subplots()
    with_single_runs(table, axes)
    axes.set(ylabel="expected sum of bonuses (reward units)", yscale="log")
    axes.legend()


@figures.figure(
    "duality-gap",
    title="Duality gap and its bound in games with learned transitions",
    caption="8 random games (3 steps, 3 states, 2 x 3 actions, returns in [0, 1]), models from n samples a (h, s, a, b), bonus = total variation;"
    " values at the uniform initial law, 95 % intervals. The coarse equilibria of upper and lower values leave far less than the bound (C7).",
    draw=Lines("samples", "value", by="quantity", xscale="log", yscale="log", xlabel="samples per (h, s, a, b)",
               ylabel="value difference (returns in [0, 1])"),
)  # fmt: skip
def duality_gaps(run):
    samples, rows = (1, 3, 10, 30, 100, 300, 1000), []
    for seed in range(8):
        rng = run.rng("game", seed)
        game = LearnedGame.draw(rng).game
        rows.append([])
        for n in samples:
            learned = LearnedGame(game, LearnedGame.model_of(game, n, rng))
            planned = optimistic_game(learned.model, learned.bonus(), cap=1.0, floor=0.0)
            left = duality_gap(game, planned.log_row, planned.log_column)
            rows[-1].append([np.mean(left.gap[0]), np.mean(planned.upper[0] - planned.lower[0])])
    for i, name in enumerate(("duality gap", "upper minus lower value")):
        yield {"quantity": name, "samples": np.array(samples), **over_seeds(value=np.array(rows)[..., i])}
