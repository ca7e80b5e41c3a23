"""Figures of flexibility-trap: pass@k by order, block size and temperature, entropies at forks, solved sets, and training."""

from __future__ import annotations

import numpy as np

from klsim.distributions import entropy
from klsim.estimators import pass_at_k_exact
from klsim.problems.decoding import decode_joint
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from . import setting as st

figures = Figures()
SEEDS, STUDY_SEEDS = 4, 6
RULES = {"left to right": "left_to_right", "confidence": "confidence", "lowest entropy": "entropy", "random": "random"}
K = 2 ** np.arange(11)


def rngs(run, name, seeds=SEEDS):
    return [run.rng(name, seed) for seed in range(seeds)]


@figures.figure(
    "pass-at-k",
    title="Pass@k by decoding order",
    caption=f"Fork task, 300 problems a seed, T = .6, exact success rates; mean and 95 % interval over {SEEDS} seeds. Confidence decoding wins at k = 1 and"
    " loses from k = 4 on; orders that do not look at the drawn tokens lie together (C4).",
    size=(7.0, 4.2),
)  # fmt: skip
def pass_at_k(run):
    found = [st.solve_rates(r, [(rule, st.PAPER_T, None) for rule in RULES.values()]) for r in rngs(run, "pass-at-k")]
    curves = np.moveaxis(st.pass_curve(np.array(found), K), 0, -1)
    for name, curve in zip(RULES, curves):
        yield {"order": name, "k": K, **over_seeds(value=curve.T)}


@pass_at_k.draw
def _(table, figure):
    axes = figure.subplots()
    styles = {"lowest entropy": {"linestyle": "--"}, "random": {"linestyle": ":"}}
    Lines("k", "value", by="order", xscale="log", styles=styles).on(axes, table)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="samples k", ylabel="mean pass@k", ylim=(0.45, 1.02))
    axes.legend(loc="lower right")


@figures.figure(
    "block-size",
    title="Pass@k by block size",
    caption=f"Confidence decoding, 200 problems a seed, T = .6; mean and 95 % interval over {SEEDS} seeds. Block size 1 is left to right. In blocks of two the fork"
    " shares its block with one token that does not follow it (C5).",
    size=(6.5, 4.2),
)  # fmt: skip
def block_size(run):
    sizes, budgets = (1, 2, 3, 6), (8, 32, 128)
    found = [
        st.solve_rates(r, [("confidence", st.PAPER_T, b) for b in sizes], count=200) for r in rngs(run, "block-size")
    ]
    curves = np.moveaxis(st.pass_curve(np.array(found), budgets), 0, -1)  # (sizes, budgets, seeds)
    for i, k in enumerate(budgets):
        yield {"k": k, "block": sizes, **over_seeds(value=curves[:, i].T)}


block_size.draw(Lines("block", "value", by="k", label="k = {}", xlabel="block size, tokens", ylabel="mean pass@k"))


@figures.figure(
    "fork-entropy",
    title="Entropy when a position is decoded",
    caption=f"Left: fork task, T = .6, 150 problems a seed, {SEEDS} seeds: confidence decoding has less entropy at forks, more elsewhere (C3). Right: 20 consistent models"
    " (L = 5, V = 3, Dirichlet(.3)) at T = 1: sums over positions; rules that do not look at drawn tokens sum to H(J), the dashed line (C2).",
    size=(10.5, 4.2),
)  # fmt: skip
def fork_entropy(run):
    seeds = rngs(run, "fork-entropy")
    starts = [r.integers(2**63) for r in seeds]
    for name in ("left to right", "confidence"):
        found = np.array([st.fork_entropies(np.random.default_rng(s), RULES[name]) for s in starts])
        for at, values in zip(("fork", "other", "all"), found.T):
            yield {"panel": "fork task", "order": name, "tokens": at, **over_seeds(value=values[:, None])}
    joints = np.array([st.dirichlet_joint(run.rng("joints", i)) for i in range(20)])
    for name, rule in RULES.items():
        total = decode_joint(joints, 3, 5, rule).entropy.sum(axis=-1).mean()
        nothing = {"value low": [total], "value high": [total]}
        yield {"panel": "sums", "order": name, "tokens": "sum", "value": [total], **nothing}
    total = float(np.mean(entropy(joints)))
    yield {
        "panel": "joint",
        "order": "J",
        "tokens": "sum",
        "value": [total],
        "value low": [total],
        "value high": [total],
    }


@fork_entropy.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    Bars("tokens", "value", by="order").on(left, table.rows(panel="fork task"))
    left.set(xlabel="tokens", ylabel="mean decode-time entropy, nats")
    left.legend(loc="upper right")
    rows = table.rows(panel="sums")
    places = np.arange(len(rows["value"]))
    right.plot(places, rows["value"], "o", markersize=9)
    right.axhline(float(table.rows(panel="joint")["value"][0]), color="0.4", linestyle="--", label="mean H(J)")
    right.set_xticks(places, list(rows["order"]))
    right.set(xlabel="decoding order", ylabel="sum of decode-time entropies, nats", xlim=(-0.5, 3.5))
    right.legend(loc="upper right")


@figures.figure(
    "solved",
    title="Which problems are solved",
    caption=f"Share of problems with pass@128 above 1/2, fork task, T = .6, 300 problems a seed; mean and 95 % interval over {SEEDS} seeds. Hardly any problem is solved by"
    " confidence decoding alone (C4).",
    size=(6.5, 4.0),
)  # fmt: skip
def solved(run):
    decodings = [("left_to_right", st.PAPER_T, None), ("confidence", st.PAPER_T, None)]
    one, other = np.moveaxis(
        np.array([pass_at_k_exact(st.solve_rates(r, decodings), 128) > 0.5 for r in rngs(run, "solved")]), 1, 0
    )
    parts = {
        "both": one & other,
        "left to right alone": one & ~other,
        "confidence alone": other & ~one,
        "neither": ~one & ~other,
    }
    for name, share in parts.items():
        yield {"solved by": name, **over_seeds(value=100 * share.mean(axis=1)[:, None])}


solved.draw(Bars("solved by", "value", xlabel="solved by", ylabel="share of problems, %"))


@figures.figure(
    "temperature",
    title="Pass@k by temperature",
    caption="Fork task, 300 problems, one seed. At every temperature confidence decoding is flatter in k; at T = .6 it lies near left to right at T = .2 (C4-cold).",
    size=(10.5, 4.2),
)  # fmt: skip
def temperature(run):
    values = (0.2, 0.4, 0.6, 0.8, 1.0)
    for name in ("left to right", "confidence"):
        found = st.solve_rates(run.rng("temperature"), [(RULES[name], t, None) for t in values])
        for t, curve in zip(values, st.pass_curve(found, K)):
            yield {"order": name, "T": t, "k": K, "value": curve}


@temperature.draw
def _(table, figure):
    styles = {t: {"linestyle": "--" if t < 0.5 else "-"} for t in (0.2, 0.4)}
    panels = figure.subplots(1, 2, sharey=True)
    for number, (axes, name) in enumerate(zip(panels, ("left to right", "confidence"))):
        Lines("k", "value", by="T", label="T = {}", styles=styles).on(axes, table.rows(order=name))
        axes.set_xscale("log", base=2)
        axes.set(title=name, xlabel="samples k", ylabel="mean pass@k" if number == 0 else "")
    panels[0].legend(loc="lower right")


@figures.figure(
    "training",
    title="Reinforcement learning of a small masked-diffusion network",
    caption=f"Mean and 95 % interval over {STUDY_SEEDS} seeds. Left: mean reward of the rollouts, each arm's own; the fixed order is a random permutation and its reversal. Right: exact accuracy, decoded by confidence at T = .05 and left"
    " to right at T = 1. The arms differ in the second and hardly in the first (C7).",
    size=(11.0, 4.2),
)  # fmt: skip
def training(run):
    found = st.study(rngs(run, "training", STUDY_SEEDS))
    for arm, (scores, curve) in found.items():
        if curve is not None:
            steps = np.arange(curve.shape[1])
            yield {"panel": "curve", "arm": arm, "measure": "reward", "step": steps, **over_seeds(value=curve)}
        for measure, values in zip(("confidence, T = .05", "left to right, T = 1"), scores):
            yield {"panel": "end", "arm": arm, "measure": measure, "step": [0], **over_seeds(value=values[:, None])}


@training.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    Lines("step", "value", by="arm", markers=False, styles={"fixed order": {"linestyle": "--"}}).on(
        left, table.rows(panel="curve")
    )
    left.set(xlabel="RL steps", ylabel="mean reward of rollouts", ylim=(0, 1.02))
    left.legend(loc="lower right")
    Bars("measure", "value", by="arm").on(right, table.rows(panel="end"))
    right.set(xlabel="decoding", ylabel="accuracy", ylim=(0, 1.3), yticks=np.linspace(0, 1, 6))
    right.legend(loc="upper center", ncols=2)
