"""Figures of glow: truncation sums and their bounds, coverability against observations, GLOW on the lock, its ratios."""

from __future__ import annotations

import numpy as np

from klsim.density_ratios import density_ratio, truncation_bounds, truncation_sums
from klsim.planning.coverability import coverability
from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

from .setting import ROUNDS, Lock, Played

figures = Figures()
KEY = (1, 2, 0)
GAMMA = 0.3
DASHED = {"marker": "", "linestyle": "--"}
SUMS = {
    "mass lost (i)": {"color": "C0", "marker": "o", "markevery": 0.1}, "bound on (i)": {"color": "C0", **DASHED},
    "clipped second moment (ii)": {"color": "C1", "marker": "s", "markevery": 0.1}, "bound on (ii)": {"color": "C1", **DASHED},
    "without clipping, u cut at 10^6": {"color": "C3", "marker": "^", "markevery": 0.1},
}  # fmt: skip


@figures.figure(
    "truncation",
    title="What clipping loses and leaves, summed over rounds",
    caption="One sparse MDP (6 states, 3 actions, 3 steps), a new deterministic policy every round, last step, gamma = .3. The sums stay below"
    " 2C(1 + log T/gamma) and 2C(log T + gamma). Without clipping the sum of E[u_t] (u = 10^6 where there is no past) is far above (C2).",
    size=(7.5, 4.4),
    draw=Lines("T", "sum", by="series", xscale="log", yscale="log", xlabel="rounds T", ylabel="sum over rounds", styles=SUMS),
)  # fmt: skip
def truncation(run):
    drawn = Played.draw(run.rng("played"), kind="independent")
    laws, rounds = drawn.layers()[-1], np.arange(1, 401)
    found, free = truncation_sums(laws, GAMMA), truncation_sums(laws, 1e6)
    bounds = truncation_bounds(coverability(drawn.problem).value, rounds, GAMMA)
    for name, values in zip(SUMS, (
        found.lost.cumsum(), bounds[0], found.second_moment.cumsum(), bounds[1], free.concentrability.cumsum()
    )):  # fmt: skip
        seen = values > 0  # the first round has no past, so nothing to clip
        yield {"series": name, "T": rounds[seen], "sum": values[seen]}


@figures.figure(
    "coverability",
    title="Coverability of the lock does not grow with its observations",
    caption="Three steps, three actions, slip .1, m observations of each of two latent states: C_cov = 3 (1 + .9) for every m, while the number"
    " of state-action pairs grows (C1, C6).",
    size=(6.0, 3.8),
    draw=Lines(
        "m", "value", by="series", yscale="log", xlabel="observations of a latent state, m", ylabel="number (log scale)"
    ),
)
def observations(run):
    counts = np.array([1, 2, 5, 10, 15, 20, 30, 40, 50])
    problems = [Lock(KEY, int(m)).problem for m in counts]
    yield {
        "series": "state-action pairs, S A",
        "m": counts,
        "value": [float(p.shape[1] * p.shape[2]) for p in problems],
    }
    yield {"series": "coverability, C_cov", "m": counts, "value": [coverability(p).value for p in problems]}


VARIANTS = {
    "GLOW": {},
    "no optimism": {"optimism": False},
    "no clip": {"clip": False},
    "no clip, no penalty": {"clip": False, "alpha": 0.0},
}


@figures.figure(
    "lock",
    title="GLOW on the combination lock",
    caption="J* - J of the policy of each round; mean over 100 runs with 95 % intervals. Without optimism the pessimistic candidate is never"
    " refuted. Without the clip the penalty alone keeps Q*; without both it is discarded in about half of the runs (C6).",
    size=(7.0, 4.0),
)
def lock(run):
    for name, options in VARIANTS.items():
        gaps, _ = Lock(KEY).glow(100, run.rng(name), **options)
        yield {"variant": name, "round": np.arange(1, ROUNDS + 1), **over_seeds(gap=gaps)}


@lock.draw
def _(table, figure):
    axes = figure.subplots()
    Lines("round", "gap", by="variant", styles={name: {"markevery": 0.12} for name in VARIANTS}).on(axes, table)
    axes.set(xlabel="round t (8 episodes each)", ylabel="gap J* - J")
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.76))


TIMES = (5, 20, 100)


@figures.figure(
    "ratios",
    title="Density ratios that GLOW meets",
    caption="log of d^pi/dbar over the 28 candidates and all (h, s, a) that the policy visits, before round t of one run on the lock (m = 1);"
    " dashed: the level gamma t. The last bar counts pairs without any past, where the ratio is infinite (C6).",
    size=(9.5, 3.6),
)
def ratios(run):
    lock, edges = Lock(KEY), np.linspace(-3, 6, 19)
    played = lock.play(1, run.rng("run")).chosen[0]
    laws = lock.laws()
    for t in TIMES:
        found = density_ratio(laws.reshape(28, -1), laws[played[: t - 1]].mean(axis=0).ravel())[
            laws.reshape(28, -1) > 0
        ]
        counts, _ = np.histogram(np.log(found[np.isfinite(found)]), edges)
        if counts.sum() != np.isfinite(found).sum():
            raise ValueError(
                f"ratios outside of the bins at t = {t}: {found.min()} to {found[np.isfinite(found)].max()}"
            )
        middles = (edges[1:] + edges[:-1]) / 2
        level = float(np.log(lock.gamma() * t))
        yield {"t": t, "log ratio": [*middles, np.inf], "pairs": [*counts, np.isinf(found).sum()], "log level": level}


@ratios.draw
def _(table, figure):
    for axes, t in zip(np.atleast_1d(figure.subplots(1, len(TIMES), sharey=True)), TIMES):
        rows = table.rows(t=t)
        finite = np.isfinite(rows["log ratio"])
        axes.bar(rows["log ratio"][finite], rows["pairs"][finite], width=0.45, color="C0", label="finite ratio")
        axes.bar([7.0], rows["pairs"][~finite], width=0.8, color="C1", hatch="//", label="no past")
        axes.axvline(rows["log level"][0], color="0.3", linestyle="--", linewidth=1, label="level, log(gamma t)")
        axes.set(
            title=f"round {t}",
            xlabel="log ratio [nats]",
            xticks=[-2, 0, 2, 4, 7],
            xticklabels=["-2", "0", "2", "4", "inf"],
        )
    figure.axes[0].set(ylabel="visited pairs of the 28 policies")
    figure.axes[1].legend(loc="upper right", fontsize=8)
