"""Figures of ra3: RL after mid-training, the penalty for new latents, and what abstraction saves in theory."""

from __future__ import annotations

import numpy as np

from klsim.planning import solve
from klsim.planning.latent_chains import switching
from klsim.planning.options import open_loop_options, sweeps_bound, sweeps_needed
from klsim.planning.pruning import demonstrations_bound, demonstrations_needed
from klsim.report.drawings import Lines, Many
from klsim.report.figures import Figures, over_seeds

from . import setting as st

figures = Figures()
SEEDS, LIMIT = 12, 20_000
STARTS = ("6 latents", "order-1 NTP", "whole-prefix NTP", "2 latents")


def ascents(worlds, rngs):
    """The runs of all starts, in the order of `STARTS`."""
    six, two = (st.mid_trained(worlds, rngs, latents=k)[0] for k in (st.LATENTS, 2))
    return (
        st.latent_ascent(worlds, six, LIMIT),
        st.token_ascent(worlds, st.order_one, LIMIT),
        st.token_ascent(worlds, st.whole_prefix, LIMIT),
        st.latent_ascent(worlds, two, LIMIT),
    )


@figures.figure(
    "rlvr",
    title="RL from four starts",
    caption="Success J on the first held-out demonstration against steps of exact policy gradient: median and quartiles of 12 worlds, J held after it"
    " reaches .9 (dashed). Latents of mid-training beat order-1 next-token prediction; prediction from the whole prefix of the chunk is faster still, and two"
    " latents for four skills never arrive (C8; the paper's curves are on LLMs). One step further right than counted, so that the start is on the axis.",
    size=(7.4, 4.4),
)  # fmt: skip
def rlvr(run):
    rngs = [run.rng("rlvr", seed) for seed in range(SEEDS)]
    worlds = [st.World.draw(r) for r in rngs]
    grid = np.unique(np.round(np.geomspace(1, LIMIT, 60)).astype(int))
    for name, found in zip(STARTS, ascents(worlds, rngs)):
        path = found.success[np.minimum(grid - 1, len(found.success) - 1)]
        low, middle, high = np.quantile(path, (0.25, 0.5, 0.75), axis=1)
        yield {"start": name, "step": grid, "success": middle, "success low": low, "success high": high}


@rlvr.draw
def _(table, figure):
    Lines("step", "success", by="start", xlabel="step + 1", ylabel="success J", xscale="log", levels={0.9: "threshold"},
          styles={name: {"markevery": 6} for name in STARTS})(table, figure)  # fmt: skip
    figure.axes[0].set_ylim(-0.02, 1.0)


@figures.figure(
    "penalty",
    title="The cost of a new latent",
    caption="Means of 20 texts (4 latents, 12 tokens) against the cost c of a new latent, nats. Left: expected number of new latents under the posterior."
    " Right: F(c) and log p(a) = F(c) + T log(1 - rho), both minus the log-likelihood of plain next-token prediction, which is their limit (C6; the paper"
    " ablates c on LLMs).",
    size=(9.6, 4.0),
)  # fmt: skip
def penalty(run):
    costs = np.linspace(-1, 40, 83)
    texts = [st.Written.draw(run.rng("penalty", seed)) for seed in range(20)]
    found = [switching(x.log_emission, x.log_fresh, costs) for x in texts]
    null = np.array([x.log_emission[:, 0].sum() for x in texts])[:, None]
    f = np.array([s.log_partition for s in found]) - null
    yield {"panel": "new", "curve": "E[new]", "cost": costs, **over_seeds(value=np.array([s.new for s in found]))}
    kept = -len(texts[0].log_emission) * np.log1p(np.exp(-costs))
    yield {"panel": "gain", "curve": "F(c) - log p_NTP", "cost": costs, **over_seeds(value=f)}
    yield {"panel": "gain", "curve": "log p(a) - log p_NTP", "cost": costs, **over_seeds(value=f + kept)}


PENALTY = (
    Many("panel", {
        "new": Lines("cost", "value", xlabel="cost c of a new latent, nats", ylabel="expected new latents", markers=False),
        "gain": Lines("cost", "value", by="curve", xlabel="cost c of a new latent, nats", ylabel="nats over NTP", levels={0.0: ""},
                      styles={"F(c) - log p_NTP": {"markevery": 8}, "log p(a) - log p_NTP": {"markevery": 8}}),
    }, titles={"new": "new latents", "gain": "log-likelihood"})
)  # fmt: skip


@penalty.draw
def _(table, figure):
    PENALTY(table, figure)
    for axes in figure.axes:  # nothing is below 0: intervals are of normal means
        axes.set_ylim(0, None)


@figures.figure(
    "theory",
    title="What compact and long actions save",
    caption="Left: demonstrations until no bad subset of m of 8 actions survives with chance .1, m equally likely tasks: the smallest number, and the"
    " union bound, whose log C(8, m) falls again beyond m = 4. Right: sweeps of value iteration to .01 with all open-loop options of duration tau, mean"
    " of 12 deterministic problems (gamma = .95), and the bound (C2, C3).",
    size=(9.6, 4.0),
)  # fmt: skip
def theory(run):
    sizes = np.arange(1, 8)
    yield {
        "panel": "demonstrations",
        "curve": "smallest",
        "x": sizes,
        "y": [demonstrations_needed(int(m), 0.1) for m in sizes],
    }
    yield {
        "panel": "demonstrations",
        "curve": "bound",
        "x": sizes,
        "y": [demonstrations_bound(8, int(m), 1 / m, 0.1) for m in sizes],
    }
    counts = []
    for seed in range(12):
        maze = st.maze(run.rng("sweeps", seed))
        best = solve(maze, beta=0.0).value
        counts.append([sweeps_needed(open_loop_options(maze, tau), 0.01, target=best) for tau in (1, 2, 3, 4)])
    taus = np.arange(1, 5)
    yield {"panel": "sweeps", "curve": "mean", "x": taus, "y": np.mean(counts, axis=0)}
    yield {
        "panel": "sweeps",
        "curve": "bound",
        "x": taus,
        "y": [sweeps_bound(0.95, 0.01, duration=int(tau)) for tau in taus],
    }


@theory.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for axes, panel in ((left, "demonstrations"), (right, "sweeps")):
        Lines("x", "y", by="curve").on(axes, table.rows(panel=panel))
        axes.legend()
        axes.set(ylabel=panel, ylim=(0, None))
    left.set(xlabel="size m of the subset, actions")
    right.set(xlabel="duration tau of an option, steps", xticks=(1, 2, 3, 4))
