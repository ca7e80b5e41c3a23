"""Figures of cdsa: corrected trajectories, return and tail risk against strength, and smoothed densities of two modes."""

from __future__ import annotations

import numpy as np

from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

from .setting import EXAMPLE, GOAL, RADIUS, Pair, World, slope

figures = Figures()
SEEDS = 10
STRENGTHS = np.array([0.03, 0.1, 0.3, 1.0, 3.0])
SHOWN = 12


@figures.figure(
    "trajectories",
    title="Trajectories without and with the correction",
    caption=f"Point mass of C4: {SHOWN} episodes of each base policy with the same noise, without (eta = 0) and with the correction (eta = 1); grey: recorded"
    " next states; hatched: hazard; star: goal. 'bc' averages the two routes of the data, 'straight' ignores the hazard.",
    size=(9.5, 6.4),
)  # fmt: skip
def trajectories(run):
    world = World.draw([run.rng("world")], episodes=SHOWN)
    cloud = world.log.after[0, ::3]
    yield {"part": "data", "base": "", "eta": 0.0, "episode": 0, "x": cloud[:, 0], "y": cloud[:, 1]}
    for base in ("bc", "straight"):
        for eta in (0.0, 1.0):
            for number, path in enumerate(world.play(base, eta).path[0]):
                yield {"part": "path", "base": base, "eta": eta, "episode": number, "x": path[:, 0], "y": path[:, 1]}


@trajectories.draw
def _(table, figure):
    from matplotlib.patches import Circle

    panels, cloud, paths = (
        figure.subplots(2, 2, sharex=True, sharey=True),
        table.rows(part="data"),
        table.rows(part="path"),
    )
    for row, base in zip(panels, ("bc", "straight")):
        for axes, eta in zip(row, (0.0, 1.0)):
            axes.plot(cloud["x"], cloud["y"], ".", color="0.75", markersize=3, zorder=1)
            axes.add_patch(Circle((0, 0), RADIUS, facecolor="none", edgecolor="C1", hatch="///", zorder=2))
            rows = paths.rows(base=base, eta=eta)
            for number in rows.distinct("episode"):
                one = rows.rows(episode=number)
                axes.plot(one["x"], one["y"], color="C0", linewidth=1, marker=".", markersize=3, zorder=3)
            axes.plot(*GOAL, "*", color="black", markersize=11, zorder=4)
            axes.set(title=f"{base}, eta = {eta:g}", aspect="equal")
    for axes in panels[-1]:
        axes.set(xlabel="first coordinate [length units]")
    for axes in panels[:, 0]:
        axes.set(ylabel="second coordinate [length units]")


@figures.figure(
    "strength",
    title="Return and tail risk against the strength of the correction",
    caption=f"Point mass of C4, 200 episodes, {SEEDS} data sets with the same episode noise for all strengths; means with 95 % intervals over the data sets. Dashed:"
    " without correction. Left: mean return, right: CVaR10 (mean of the lowest tenth). With the score of uniform points 'straight' gains little or nothing (C4, C5).",
    size=(10.0, 4.2),
)  # fmt: skip
def strength(run):
    for name, base, points in (
        ("bc", "bc", "data"),
        ("straight", "straight", "data"),
        ("straight, uniform points", "straight", "uniform"),
    ):
        world = World.draw([run.rng(f"seed {s}") for s in range(SEEDS)], points=points)
        for kind, etas in (("without", np.zeros(1)), ("with", STRENGTHS)):
            found = [world.play(base, eta) for eta in etas]
            for measure in ("mean", "worst_tenth"):
                values = np.array([getattr(one, measure) for one in found]).T
                yield {"series": name, "measure": measure, "kind": kind, "eta": etas, **over_seeds(value=values)}


@strength.draw
def _(table, figure):
    for axes, (measure, label) in zip(
        figure.subplots(1, 2), (("mean", "mean return"), ("worst_tenth", "CVaR10 of the return"))
    ):
        rows = table.rows(measure=measure)
        Lines("eta", "value", by="series", xscale="log").on(axes, rows.rows(kind="with"))
        for line, name in zip(axes.get_lines(), rows.distinct("series")):
            level = rows.rows(kind="without", series=name)["value"][0]
            if name != "straight, uniform points":
                axes.axhline(level, color=line.get_color(), linestyle="--", linewidth=1)
        axes.set(xlabel="strength eta (log scale)", ylabel=f"{label} [reward units]")
        axes.set_xticks(STRENGTHS, [f"{eta:g}" for eta in STRENGTHS])
        axes.minorticks_off()
    figure.axes[0].legend(loc="lower left", bbox_to_anchor=(0.0, 0.04))


@figures.figure(
    "noise-level",
    title="Two modes under noise",
    caption="log p_sigma of two equal modes at +-1 of width tau = .2: two maxima for sigma below sqrt(1 - tau^2) = .9798, one above; their place moves inwards (C6).",
    size=(6.5, 4.2),
    draw=Lines("a", "log density", by="sigma", label="sigma = {}", xlabel="action a [units in which the modes are at +-1]", ylabel="log p_sigma(a) [nats]",
               styles={s: {"markevery": 0.11} for s in (0.3, 0.9, 0.98, 1.5)}),
)  # fmt: skip
def noise_level(run):
    one, a = Pair(0.2, 0.5, 1.5, 0.5), np.linspace(-2, 2, 201)
    for sigma in (0.3, 0.9, 0.98, 1.5):
        yield {"sigma": sigma, "a": a, "log density": one.mixture.noised(sigma).log_density(a[:, None])}


@figures.figure(
    "clean-and-noised",
    title="The score that is learned is that of the noised data",
    caption="Mixture of C1 (means -1, .4, 2; weights .3, .5, .2; width .3), sigma = .5: the posterior mean of the clean point gives the score of the noised data"
    " (Tweedie), which differs from that of the data by up to 8.2 on [-2, 3] (C1, C1-clean).",
    size=(6.5, 4.2),
    draw=Lines("x", "score", by="series", xlabel="noised point x~ [length units]", ylabel="score [1 / length unit]",
               styles={"score of the data": {"marker": "", "linestyle": "--"}, "score of the noised data": {"marker": ""},
                       "(E[x | x~] - x~) / sigma^2": {"linestyle": "", "markevery": 10}}),
)  # fmt: skip
def clean_and_noised(run):
    one = EXAMPLE._replace(x=np.linspace(-2, 3, 251)[:, None])
    for name, values in (
        ("score of the data", slope(one.log_density(0), one.x)), ("score of the noised data", one.mixture.noised(one.sigma).score(one.x)),
        ("(E[x | x~] - x~) / sigma^2", (one.clean_mean() - one.x) / one.sigma**2),
    ):  # fmt: skip
        yield {"series": name, "x": one.x[:, 0], "score": values[:, 0]}
