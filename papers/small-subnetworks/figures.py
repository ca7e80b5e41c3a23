"""Figures of small-subnetworks: sparsity by method, along training, overlaps with their nulls, ranks, and gains kept."""

from __future__ import annotations

import numpy as np

from klsim.learning.update_sparsity import changed
from klsim.learning.weight_geometry import overlap, rank_fraction
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from . import setting as st
from .setting import Run, trained

figures = Figures()
METHODS = (*st.METHODS, "DPO")
SETUPS = {"Adam, 1e-6": Run(), "Adam, 1e-5": Run(rate=st.FAST), "SGD, 1e-3": st.PLAIN_SGD}
BASES = {"base off the grid": False, "base on the grid": True}


def study(run):
    return st.Study(run.seed, 5)


@figures.figure(
    "methods",
    title="Sparsity of the update by method, optimiser and rate",
    caption="Testbed, 150 steps, base off the grid, bfloat16 weights; mean and 95 % interval over 5 base networks. The optimiser and its rate"
    " move sparsity more than the data do (the paper's Fig. 1 and Table 1 with what they leave open; C4, C5).",
    size=(8.0, 4.0),
)  # fmt: skip
def methods(run):
    for name, setup in SETUPS.items():
        for method in METHODS:
            found = trained(study(run), setup._replace(method=method)).sparsity()
            yield {"optimiser": name, "method": [method], **over_seeds(sparsity=found[:, None])}


@methods.draw
def _(table, figure):
    axes = figure.subplots()
    Bars("method", "sparsity", by="optimiser").on(axes, table)
    axes.set(xlabel="training method", ylabel="share of weights that look unchanged", ylim=(0, 1))
    axes.legend(loc="upper center", ncols=3)


@figures.figure(
    "training",
    title="Sparsity and transient updates along RL",
    caption="Adam at 1e-6, 300 steps, base off the grid; mean and 95 % interval over 5 base networks. Left: sparsity against the base. Right: share of all weights that"
    " were visible at an earlier snapshot (every 25 steps) and are not at this one (the paper's Fig. 5 and 6; C6).",
    size=(9.0, 3.8),
)  # fmt: skip
def training(run):
    long, at = trained(study(run), Run(steps=300)), st.IS_WEIGHT
    steps = np.arange(25, 301, 25)
    shown = np.array([changed(long.base.flat[:, at], long.snapshots[k][:, at]) for k in steps])
    ever = np.maximum.accumulate(shown, axis=0)
    for series, values in (
        ("sparsity", 1 - shown.mean(axis=-1)),
        ("transient", (ever & ~shown).mean(axis=-1)),
    ):
        yield {"series": series, "step": steps, **over_seeds(share=values.T)}


@training.draw
def _(table, figure):
    for axes, series, words in zip(
        figure.subplots(1, 2),
        ("sparsity", "transient"),
        ("share that looks unchanged", "share visible before, not now"),
    ):
        Lines("step", "share").on(axes, table.rows(series=series))
        axes.set(xlabel="RL steps (64 prompts x 8 draws)", ylabel=words, ylim=(0, None))


NULLS = {"Gaussian": "gaussian", "one size, random signs": "constant", "own sizes, random signs": "signs"}


@figures.figure(
    "overlap",
    title="Overlap of the mask of an RL run with other masks",
    caption="o_1 of an RL run on half of the points, and its chance level, the density of the other mask; mean and 95 % interval over 5 base networks. Nulls have the norm of every"
    " matrix and know nothing of task or data (the paper's Table 4 with nulls; C7).",
    size=(10.5, 4.2),
)  # fmt: skip
def overlaps(run):
    mine, at, rng = study(run), st.IS_WEIGHT, run.rng("nulls")
    for words, grid in BASES.items():
        first = trained(mine, st.FIRST._replace(grid=grid))
        start = first.base.flat[:, at].astype(float)
        masks = {
            f"RL, other {n}": trained(mine, st.OTHERS[n]._replace(grid=grid)).visible[:, at] for n in ("seed", "data")
        }
        masks["DPO, other data"] = trained(mine, st.OTHERS["algorithm"]._replace(grid=grid)).visible[:, at]
        masks |= {n: changed(start, start + st.null_of(first, kind, rng)) for n, kind in NULLS.items()}
        for name, mask in masks.items():
            found = overlap(first.visible[:, at], mask)
            for series, value in (("overlap", found.first), ("chance", found.first_chance)):
                yield {"base": words, "other": [name], "series": series, **over_seeds(share=value[:, None])}


@overlaps.draw
def _(table, figure):
    for number, (axes, base) in enumerate(zip(figure.subplots(1, 2, sharey=True), BASES)):
        Bars("other", "share", by="series").on(axes, table.rows(base=base))
        axes.set(title=base, ylim=(0, 1.25), ylabel="o_1 (share of the run's mask)" if number == 0 else "")
        axes.tick_params(axis="x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
        axes.legend(loc="upper left", ncols=2)


@figures.figure(
    "rank",
    title="Rank of a scattered update against its density",
    caption="128 x 128, normal entries on independent masks, mean and 95 % interval over 20 draws; dashed: log(n)/n; points: the three matrices of RL updates on the testbed"
    " (96 x 48, 96 x 96, 12 x 96), one of 5 base networks each. The paper's range is 99.2 to 99.8 % (Table 2; C2).",
    size=(7.0, 4.0),
)  # fmt: skip
def rank(run):
    densities = np.log(128) / 128 * np.array([0.15, 0.3, 0.45, 0.6, 0.8, 1.0, 1.5, 2.5, 5.0])
    rngs = [run.rng("rank", i) for i in range(20)]
    found = np.array([rank_fraction(st.placed(rngs, d)) for d in densities])
    yield {"series": "independent entries", "density": densities, **over_seeds(rank=found.T)}
    update = trained(study(run))
    for delta in st.stored_updates(update):
        values = rank_fraction(delta)
        share = np.mean(delta != 0, axis=(1, 2))
        yield {"series": "RL update", "density": share, "rank": values, "rank low": values, "rank high": values}


@rank.draw
def _(table, figure):
    axes = figure.subplots()
    Lines("density", "rank", by="series", xscale="log", styles={"RL update": {"linestyle": "", "markersize": 5}}).on(
        axes, table
    )
    axes.axvline(np.log(128) / 128, color="0.4", linestyle="--", linewidth=1)
    axes.set(xlabel="density (share of entries that are not 0)", ylabel="rank / smaller side", ylim=(0, 1.05))
    axes.legend(loc="lower right")


@figures.figure(
    "gain",
    title="Share of the full run's reward gain that a part keeps",
    caption="RL trained on a part of the parameters alone, gain over the full run's in the same storage; mean and 95 % interval over 5 base networks. Random: as many parameters as are"
    " visible. In bfloat16 the visible part has all of the checkpoint's gain, in float32 a third or less (the paper's Table 3; C3).",
    size=(9.0, 4.0),
    draw=Bars("part", "share", by="storage", panels="base", xlabel="trained part", ylabel="gain / gain of the full run"),
)  # fmt: skip
def gain(run):
    mine = study(run)
    for words, grid in BASES.items():
        for storage in ("float32", "bfloat16"):
            for part in st.PARTS:
                value = st.ratio(mine, Run(mask=part, grid=grid), storage)
                yield {"base": words, "storage": storage, "part": [part], **over_seeds(share=value[:, None])}
