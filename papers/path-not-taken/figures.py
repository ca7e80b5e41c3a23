"""Figures of path-not-taken: angles and spectra, overlaps of masks with a null update beside, agreement of masks, sparsity
against the learning rate, and the constant of the rotation bound. Networks: the testbed of C7 and C8, six seeds."""

from __future__ import annotations

import numpy as np

from klsim.learning import weight_geometry as wg
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from . import setting as st

figures = Figures()
FAST = "SFT, ten times the rate"


def study(run):
    return st.Study(run.seed, 6)


def legend_above(figure):
    """One legend for all axes, outside of them."""
    handles, words = figure.axes[0].get_legend_handles_labels()
    for axes in figure.axes:
        if axes.get_legend():
            axes.get_legend().remove()
    figure.legend(handles, words, loc="outside upper center", ncols=len(words))


def geometric(values):
    """Geometric means over seeds with their intervals, for logarithmic axes."""
    return {name: np.exp(v) for name, v in over_seeds(value=np.log(values)).items()}


@figures.figure(
    "angles",
    title="Principal angles and spectra: small steps, not avoided directions",
    caption="Left: angles between the top-8 left singular subspaces of O before and after 150 steps (geometric means over six seeds). Middle:"
    " singular values of O before and after RL (first seed). Right: normalised spectral shift of each matrix. Against an iid Gaussian update of"
    " equal norm RL turns the two leading directions less, the others as much or more, and moves the spectrum 1.8 times as much or more; SFT at"
    " ten times the rate ten times more (C8, C8-geometry).",
    size=(11.0, 3.7),
)
def angles(run):
    start = st.pretrained(study(run)).flat
    rl = st.tuned(study(run), st.Run())
    updates = {"RL": rl, "SFT": st.tuned(study(run), st.SFT), FAST: st.tuned(study(run), st.FAST),
               "Gaussian of RL's norm": st.null(start, rl, run.rng("angles"))}  # fmt: skip
    for name, flat in updates.items():
        pairs = list(zip(st.matrices(start), st.matrices(flat)))
        theta = wg.principal_angles(*pairs[2], st.RANK).left
        drift = np.stack([wg.spectral_drift(*p).relative for p in pairs], axis=1)
        yield {"panel": "angle", "series": name, "x": np.arange(1, 9.0), **geometric(theta)}
        yield {"panel": "drift", "series": name, "x": np.arange(4.0), **geometric(drift)}
    for name, flat in (("before", start), ("after RL", rl)):
        values = np.linalg.svd(st.matrices(flat)[2][0], compute_uv=False).astype(float)
        yield {
            "panel": "spectrum",
            "series": name,
            "x": np.arange(1.0, 33.0),
            "value": values,
            "value low": values,
            "value high": values,
        }


@angles.draw
def _(table, figure):
    left, middle, right = figure.subplots(1, 3)
    Lines("x", "value", by="series", yscale="log").on(left, table.rows(panel="angle"))
    left.set(xlabel="i-th principal angle of O", ylabel="angle [rad]")
    plain = {
        "before": {"color": "0.6", "linewidth": 5, "marker": ""},
        "after RL": {"color": "C0", "marker": "", "linestyle": "--"},
    }
    Lines("x", "value", by="series", styles=plain).on(middle, table.rows(panel="spectrum"))
    middle.set(xlabel="index of the singular value of O", ylabel="singular value")
    Lines("x", "value", by="series", yscale="log").on(right, table.rows(panel="drift"))
    right.set(
        xlabel="weight matrix",
        ylabel="relative spectral shift",
        xticks=range(4),
        xticklabels=st.NAMES,
        xlim=(-0.3, 3.3),
    )
    middle.legend()
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4)


@figures.figure(
    "overlaps",
    title="What update masks overlap, with a null update beside each",
    caption="Overlap over chance of the visible entries (bfloat16, eta = 1e-3) with the largest 30 % of the rank-8 part, the smallest 30 %, and the"
    " former without the latter; means over the four matrices and six seeds with 95 % intervals. A Gaussian update of the same norm has the same (C8).",
    size=(8.2, 4.0),
    draw=Bars("mask", "overlap", by="update", ylabel="overlap / chance", levels={1.0: "chance"}),
)
def overlaps(run):
    start, rng = st.pretrained(study(run)).flat, run.rng("overlaps")
    rl, fast = (st.tuned(study(run), r) for r in (st.Run(), st.FAST))
    updates = {"RL": rl, "Gaussian of RL's norm": st.null(start, rl, rng), "SFT": st.tuned(study(run), st.SFT),
               "SFT, other labels": st.tuned(study(run), st.OOD), FAST: fast, "Gaussian of its norm": st.null(start, fast, rng)}  # fmt: skip
    for name, flat in updates.items():
        for mask, values in st.overlaps(start, flat).items():
            yield {"mask": mask, "update": name, **over_seeds(overlap=values)}


@figures.figure(
    "agreement",
    title="Masks of two runs agree; so do masks of equal steps with random signs",
    caption="Jaccard index of the masks of two RL runs, and of two null updates of the same norm, by matrix; six seeds. Left: masters that were"
    " trained in float32. Right: masters that start at bfloat16 numbers, where random signs agree as the runs do (C8-agreement).",
    size=(10.5, 3.8),
)
def agreement(run):
    rng = run.rng("agreement")
    for where, base in (("off the grid", "plain"), ("on the grid", "grid")):
        start = st.pretrained(study(run), base).flat
        one, two = (st.tuned(study(run), st.Run(base=base, stream=i)) for i in (0, 1))
        found = {"two RL runs": [st.masks(start, p) for p in (one, two)]}
        words = {
            "signs": "RL's sizes, random signs",
            "constant": "constant sizes, random signs",
            "gaussian": "Gaussian",
        }
        for kind, name in words.items():
            found[name] = [st.masks(start, st.null(start, p, rng, kind)) for p in (one, two)]
        densities = [[m.mean(axis=-1) for m in masks] for masks in found["two RL runs"]]
        for i, matrix in enumerate(st.NAMES):
            for name, (a, b) in found.items():
                yield {"base": where, "matrix": matrix, "update": name, **over_seeds(jaccard=wg.jaccard(a[i], b[i]))}
            chance = wg.bernoulli_jaccard(densities[0][i], densities[1][i])
            yield {"base": where, "matrix": matrix, "update": "independent masks", **over_seeds(jaccard=chance)}


@agreement.draw
def _(table, figure):
    Bars("matrix", "jaccard", by="update", panels="base", xlabel="weight matrix", ylabel="Jaccard index")(table, figure)
    legend_above(figure)


@figures.figure(
    "rotation",
    title="A rotation that keeps the function destroys the overlap of masks where it acts",
    caption="Overlap over chance of the masks of two runs (or null updates): from the same base, and from the base after V <- QV, O <- OQ'."
    " Noise loses its overlap as well: the rotation moves the small weights (C8).",
    size=(7.0, 3.8),
)
def rotation(run):
    start, turned, rng = st.pretrained(study(run)).flat, st.pretrained(study(run), "rotation").flat, run.rng("rotation")
    one, two, other = (st.tuned(study(run), r) for r in (st.Run(), st.AGAIN, st.Run(base="rotation", stream=1)))
    noise = [st.masks(start, st.null(start, one, rng)) for _ in range(2)]
    plain, same, new = st.masks(start, one), st.masks(start, two), st.masks(turned, other)
    cases = {"RL, same base": (plain, same), "RL, rotated base": (plain, new), "Gaussian, same base": noise,
             "Gaussian, rotated base": (noise[0], st.masks(turned, st.null(turned, other, rng)))}  # fmt: skip
    for where, which in (("V and O (rotated)", st.TURNED), ("other matrices", (0, 3))):
        for case, (a, b) in cases.items():
            yield {"where": where, "case": case, **over_seeds(overlap=st.shared_masks(a, b, which))}


@rotation.draw
def _(table, figure):
    Bars("where", "overlap", by="case", ylabel="overlap of two masks / chance", levels={1.0: "chance"})(table, figure)
    legend_above(figure)


@figures.figure(
    "sparsity",
    title="Sparsity against the learning rate",
    caption="Share of the weights that 150 steps of RL leave as they are, six seeds with 95 % intervals: in bfloat16 copies of masters off and on the"
    " grid, and in float32. Dashed: the mean of 1 - min(1, |dW| / ULP), which knows sizes only (C7).",
    size=(6.8, 4.0),
    draw=Lines("rate", "sparsity", by="read in", xscale="log", xlabel="learning rate", ylabel="unchanged weights [share]",
               styles={"closed form, off the grid": {"linestyle": "--", "color": "0.2", "marker": ""}}),
)  # fmt: skip
def sparsity(run):
    start, grid = (st.pretrained(study(run), base).flat for base in ("plain", "grid"))
    off, on = ([st.tuned(study(run), st.Run(lr=lr, base=base)) for lr in st.RATES] for base in ("plain", "grid"))
    rows = {"bfloat16, off the grid": [st.sparsity(start, p) for p in off], "closed form, off the grid": [st.closed_form(start, p) for p in off],
            "bfloat16, on the grid": [st.sparsity(grid, p) for p in on], "float32": [st.sparsity(start, p, "float32") for p in off]}  # fmt: skip
    for name, values in rows.items():
        yield {"read in": name, "rate": np.array(st.RATES), **over_seeds(sparsity=np.transpose(values))}


@figures.figure(
    "wedin",
    title="How far subspaces turn at worst, over the printed bound",
    caption="x = |dW|_2 over the gap of W0. The printed bound is 1. Worst case: sin(arcsin(2x)/2)/x up to 1/2, 1/x beyond; circles: the 2 x 2 pair"
    " that attains it. At 1/2 it goes from sqrt 2 to 2 (C4, C4-printed).",
    size=(6.6, 4.0),
)
def wedin(run):
    x = np.concatenate([np.linspace(0.01, 0.4999, 80), np.linspace(0.5001, 1.0, 60)])
    yield {"series": "worst case", "x": x, "ratio": wg.worst_rotation(x) / x}
    yield {"series": "(a): 1/(1 - x)", "x": x[x < 0.75], "ratio": 1 / (1 - x[x < 0.75])}
    yield {"series": "(b): 2", "x": x, "ratio": np.full(x.size, 2.0)}
    at = np.array([0.1, 0.2, 0.3, 0.4, 0.45, 0.499, 0.51, 0.6, 0.8])
    found = [st.rotation(*st.worst_pair(v), 1) for v in at]
    yield {"series": "the pair", "x": at, "ratio": [sine / v for v, sine in found]}


@wedin.draw
def _(table, figure):
    axes = figure.subplots()
    styles = {"worst case": {"marker": ""}, "(a): 1/(1 - x)": {"marker": "", "linestyle": "--"}, "(b): 2": {"marker": "", "linestyle": ":"},
              "the pair": {"linestyle": "", "marker": "o", "color": "0.2"}}  # fmt: skip
    Lines("x", "ratio", by="series", styles=styles, levels={1.0: "as printed", 2**0.5: "sqrt 2"}).on(axes, table)
    axes.set(xlabel="x = |dW| / gap", ylabel="|sin Theta| / x", xlim=(0, 1.2), ylim=(0.9, 3.1))
    axes.legend(loc="upper left")
