"""Figures of snapshot-rl: learning curves, the ablation, the length of the phase, where restarts go."""

from __future__ import annotations

import numpy as np

from klsim.planning import solve
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from . import setting as st

figures = Figures()
SEEDS, PHASE_SEEDS = 24, 80
OPTIMUM, TEACHER = solve(st.corridor(), None, 0.0).value[0], st.return_of(st.SKILL)


def rngs(run, name, seeds=SEEDS):
    return [run.rng(name, seed) for seed in range(seeds)]


@figures.figure(
    "learning-curves",
    title="Greedy return while the student learns",
    caption=f"Corridor of 16 steps with a slow stretch, tabular Q-learning; mean and 95 % interval over {SEEDS} seeds, a teacher a seed. Vertical line:"
    " the end of the snapshot phase. Without snapshots nothing is learned (C4, C5).",
    size=(7.0, 4.4),
)  # fmt: skip
def learning_curves(run):
    own = rngs(run, "teachers")
    taught, steps = st.teachers(own), st.EVERY * np.arange(1, st.STEPS // st.EVERY + 1)
    for (name, arm), rng in zip(st.ARMS.items(), own):
        yield {"student": name, "step": steps, **over_seeds(value=st.study(arm, taught, rng).curve)}


@learning_curves.draw
def _(table, figure):
    axes = figure.subplots()
    dashed = {"no snapshots": {"linestyle": "--"}, "SnapshotRL": {"linestyle": ":"}}
    levels = {OPTIMUM: "optimum", TEACHER: "teacher"}
    Lines("step", "value", by="student", marks={st.PHASE * st.STEPS: ""}, levels=levels, styles=dashed).on(axes, table)
    axes.set(
        xlabel="environment steps of the student", ylabel="discounted return of the greedy policy", ylim=(-0.02, 0.72)
    )
    axes.legend(loc="upper center", ncols=3)


@figures.figure(
    "ablation",
    title="What truncation and classification add",
    caption=f"Left: mean return of twelve evaluations; right: episodes that begin at a snapshot, in the phase of 6000 steps. Mean and 95 % interval over {SEEDS}"
    " seeds. STT (T = 25) restarts six times as often; SC reweights (C5).",
    size=(9.5, 3.9),
)  # fmt: skip
def ablation(run):
    own = rngs(run, "teachers")
    taught = st.teachers(own)
    for (name, arm), rng in zip(list(st.ARMS.items())[1:], own[1:]):
        found = st.study(arm, taught, rng)
        for panel, values in (("return", found.mean), ("restarts", found.restarts.astype(float))):
            yield {"panel": panel, "student": name, **over_seeds(value=values[:, None])}


@ablation.draw
def _(table, figure):
    panels = figure.subplots(1, 2)
    for axes, panel, words in zip(panels, ("return", "restarts"), ("mean greedy return", "restarts in the phase")):
        Bars("student", "value").on(axes, table.rows(panel=panel))
        axes.set(xlabel="student", ylabel=words)


@figures.figure(
    "phase",
    title="How long the student sees snapshots",
    caption=f"S3RL, T = 25: final greedy return by the share of steps in the snapshot environment; mean and 95 % interval over {PHASE_SEEDS} seeds. Dashed: optimum"
    " and teacher. A short phase loses the gain (C6).",
    size=(6.0, 3.9),
)  # fmt: skip
def phase(run):
    own = rngs(run, "teachers", PHASE_SEEDS)
    taught = st.teachers(own)
    for share, rng in zip((0.05, 0.1, 0.25, 0.5, 1.0), own):
        found = st.study(st.S3RL._replace(phase=share), taught, rng).final
        yield {"share": [share], **over_seeds(value=found[:, None])}


@phase.draw
def _(table, figure):
    axes = figure.subplots()
    Lines("share", "value", xscale="log", levels={OPTIMUM: "optimum", TEACHER: "teacher"}).on(axes, table)
    shares = table["share"]
    axes.set_xticks(shares, [f"{x:g}" for x in shares], minor=False)
    axes.minorticks_off()
    axes.set(xlabel="share of steps in the snapshot environment", ylabel="final greedy return", ylim=(-0.02, 0.6))


@figures.figure(
    "restarts",
    title="Where restarts go",
    caption="Law of the restart state, uniform over snapshots and by status classification (6 clusters of the teacher's value); mean over 20 teachers. Left:"
    " success .08 in states 3-6 (shaded), a snapshot every ten steps; right: no slow stretch, a snapshot at each step (C3, C3-even).",
    size=(10.0, 3.9),
)  # fmt: skip
def restarts(run):
    for panel, slow, every in (("slow stretch", 0.08, 10), ("no slow stretch", 0.95, 1)):
        taught = st.teachers(rngs(run, "restarts", 20), slow=slow, every=every)
        for name, clusters in (("uniform", 1), ("classified", st.CLUSTERS)):
            laws = np.array([t.state_law(clusters)[: st.GOAL] for t in taught])
            yield {"panel": panel, "law": name, "state": np.arange(st.GOAL), **over_seeds(value=laws)}


@restarts.draw
def _(table, figure):
    panels = figure.subplots(1, 2)
    for axes, panel in zip(panels, ("slow stretch", "no slow stretch")):
        Bars("state", "value", by="law").on(axes, table.rows(panel=panel))
        if panel == "slow stretch":
            axes.axvspan(2.5, 6.5, color="0.88", zorder=0)
        top = 1.2 * float(np.max(table.rows(panel=panel)["value high"]))
        axes.set(title=panel, xlabel="restart state", ylabel="probability", ylim=(0, top))
        axes.legend(loc="upper right", ncols=2)
