"""Figures of gopd: what extrapolation does, at token and at sequence level."""

from __future__ import annotations

import numpy as np

from klsim.distributions import expectation, tilt
from klsim.divergences import kl
from klsim.problems.token_tree import (
    conditionals,
    end_after_eos,
    lengths,
    node_kl,
    path_sums,
    sequence_log_probs,
    tokens,
)
from klsim.report import Figures

from .claims import (
    JACKPOT_REWARD,
    Merge,
    biased_bandit,
    jackpot,
    noisy,
    random_tree,
    sequence_optimum,
    token_optimum,
    two_bases,
)

figures = Figures()


def _band(rows):
    """Mean and 95 % half-width over seeds (axis 0)."""
    rows = np.asarray(rows)
    return rows.mean(axis=0), 1.96 * rows.std(axis=0, ddof=1) / np.sqrt(len(rows))


BANDIT_LAMBDAS = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6)


@figures.figure(
    "reward-against-lambda",
    title="True reward against the reward scale, with and without a biased implicit reward",
    caption="200 arms, 40 seeds, exact expectations; band: 95 % interval of the mean. With a noise-free teacher the true"
    " reward only rises; when four rare low-reward arms carry a positive bias it rises past lam = 1 (the teacher, dashed),"
    " peaks near 2 and collapses (C7; the paper's Fig. 2-3).",
)
def reward_against_lambda(run):
    columns = {"lam": [], "implicit reward": [], "reward": [], "halfwidth": []}
    for name, biased in (("biased", True), ("exact", False)):
        rows = []
        for seed in range(40):
            ref, teacher, reward = biased_bandit(run.rng("bandit", seed), biased)
            rows.append([float(expectation(sequence_optimum(teacher, ref, lam)[0], reward)) for lam in BANDIT_LAMBDAS])
        mean, half = _band(rows)
        columns["lam"] += list(BANDIT_LAMBDAS)
        columns["implicit reward"] += [name] * len(mean)
        columns["reward"] += list(mean)
        columns["halfwidth"] += list(half)
    return columns


@reward_against_lambda.draw
def _(table, figure):
    axes = figure.subplots()
    for name, label in (("exact", "exact implicit reward"), ("biased", "biased on 4 rare arms")):
        rows = table.rows(**{"implicit reward": name})
        (line,) = axes.plot(rows["lam"], rows["reward"], marker="o", label=label)
        low, high = rows["reward"] - rows["halfwidth"], rows["reward"] + rows["halfwidth"]
        axes.fill_between(rows["lam"], low, high, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.axvline(1, color="0.4", linestyle="--", linewidth=1)
    axes.annotate("teacher", (1, axes.get_ylim()[0]), xytext=(3, 4), textcoords="offset points", color="0.35")
    axes.set(xlabel="reward scale lam", ylabel="true reward E[r*]")
    axes.legend()


TREE_LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
TREE_V, TREE_H, TREE_EOS = 4, 8, 0


def _digit_reward():
    """1 if EOS comes after at least three content tokens of which the last is digit 0 (token 1)."""
    y = tokens(TREE_V, TREE_H)
    ends = y == TREE_EOS
    first = np.where(ends.any(axis=1), ends.argmax(axis=1), TREE_H)
    last = y[np.arange(len(y)), np.maximum(first - 1, 0)]
    return ((first >= 3) & (first < TREE_H) & (last == 1)).astype(float)


def _digit_reference(rng):
    """EOS with probability .15 at every node, content logits N(0, 1)."""
    levels = []
    for t in range(TREE_H):
        content = rng.standard_normal((TREE_V**t, TREE_V - 1))
        content = content - np.logaddexp.reduce(content, axis=1, keepdims=True) + np.log(0.85)
        levels.append(np.concatenate([np.full((TREE_V**t, 1), np.log(0.15)), content], axis=1))
    return end_after_eos(tuple(levels), TREE_EOS)


@figures.figure(
    "accuracy-and-length",
    title="Accuracy and response length against the reward scale, token and sequence optimum",
    caption="Token tree with 4 tokens (one EOS) and at most 8 steps; correct: EOS after at least three digits, the last a 0."
    " Teacher: the reference tilted by the reward at coefficient 0.5. 20 seeds, exact; band: 95 % interval. Both optima gain"
    " past the teacher (dashed), the per-token one (what discount 0 trains) less, and their lengths move apart.",
    size=(8.5, 3.6),
)
def accuracy_and_length(run):
    reward, length = _digit_reward(), lengths(TREE_V, TREE_H, TREE_EOS)
    results = {"token": [], "sequence": []}
    for seed in range(20):
        ref = _digit_reference(run.rng("tree", seed))
        log_ref = sequence_log_probs(ref)
        log_teacher = tilt(log_ref, reward, 0.5)
        teacher = conditionals(log_teacher, TREE_V, TREE_H)
        ended = end_after_eos(tuple(teacher), TREE_EOS)
        for name, rows in results.items():
            laws = (
                sequence_log_probs(token_optimum(ended, ref, lam)[0])
                if name == "token"
                else sequence_optimum(log_teacher, log_ref, lam)[0]
                for lam in TREE_LAMBDAS
            )
            rows.append([(np.exp(law) @ reward, np.exp(law) @ length) for law in laws])
    columns = {"lam": [], "optimum": [], "accuracy": [], "accuracy halfwidth": [], "length": [], "length halfwidth": []}
    for name, rows in results.items():
        mean, half = _band(rows)
        columns["lam"] += list(TREE_LAMBDAS)
        columns["optimum"] += [name] * len(TREE_LAMBDAS)
        for i, quantity in enumerate(("accuracy", "length")):
            columns[quantity] += list(mean[:, i])
            columns[f"{quantity} halfwidth"] += list(half[:, i])
    return columns


@accuracy_and_length.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for axes, quantity, label in (
        (left, "accuracy", "accuracy"),
        (right, "length", "mean length (tokens, EOS included)"),
    ):
        for name in table.distinct("optimum"):
            rows = table.rows(optimum=name)
            (line,) = axes.plot(rows["lam"], rows[quantity], marker="o", label=f"{name} optimum")
            half = rows[f"{quantity} halfwidth"]
            axes.fill_between(
                rows["lam"],
                rows[quantity] - half,
                rows[quantity] + half,
                alpha=0.2,
                color=line.get_color(),
                linewidth=0,
            )
        axes.axvline(1, color="0.4", linestyle="--", linewidth=1)
        axes.set(xlabel="reward scale lam", ylabel=label)
    left.legend()


@figures.figure(
    "multi-teacher",
    title="Merging two domain teachers into one student",
    caption="Log-linear student shared by two domains, 60 seeds; accuracy of sampled answers minus that of the domain's own"
    " teacher, averaged over domains; error bars: 95 % intervals. OPD loses a little of each teacher, ExOPD more than pays it"
    " back; with greedy decoding (right) no student reaches its teachers (C8; the paper's Table 2 and Fig. 1a are on 4B models).",
    size=(8.5, 3.8),
)
def multi_teacher(run):
    methods = ("SFT", "ExPO 0.25", "ExPO 0.5", "lam 0.75", "OPD", "ExOPD 1.25", "ExOPD 1.5")
    rows = {(m, d): [] for m in methods for d in ("sampled", "greedy")}
    for seed in range(60):
        merge = Merge(run.rng("merge", seed))
        students = [
            merge.supervise(), merge.extrapolate(0.25), merge.extrapolate(0.5),
            *(merge.distil(lam) for lam in (0.75, 1.0, 1.25, 1.5)),
        ]  # fmt: skip
        for method, w in zip(methods, students):
            rows[method, "sampled"].append(merge.margin(w))
            rows[method, "greedy"].append(merge.margin(w, greedy=True))
    columns = {"method": [], "decoding": [], "margin": [], "halfwidth": []}
    for (method, decoding), values in rows.items():
        mean, half = _band(values)
        for name, value in zip(columns, (method, decoding, mean, half)):
            columns[name].append(value)
    return columns


@multi_teacher.draw
def _(table, figure):
    for axes, decoding in zip(figure.subplots(1, 2, sharey=True), ("sampled", "greedy")):
        rows = table.rows(decoding=decoding)
        colours = ["#0072B2" if m.startswith("ExOPD") else "#999999" for m in rows["method"]]
        axes.bar(rows["method"], rows["margin"], yerr=rows["halfwidth"], color=colours, capsize=3)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.tick_params(axis="x", rotation=40)
        axes.set_title(f"{decoding} answers")
    figure.axes[0].set_ylabel("accuracy minus the domain's teacher")


FRONTIER_LAMBDAS = np.linspace(1, 3, 41)


@figures.figure(
    "reward-correction",
    title="Reward correction: frontiers of true reward against KL to the teacher",
    caption="50 arms, kappa = 0.5, lam swept from 1 to 3, both coordinates averaged over 200 seeds at each lam. At equal KL the"
    " corrected reference (the teacher's own base) is above; at equal lam (marked points) it is below up to 1.5, because it"
    " moves less (C9; the paper's Fig. 14a).",
)
def reward_correction(run):
    sums = np.zeros((2, len(FRONTIER_LAMBDAS), 2))
    for seed in range(200):
        base_t, base_s, teacher, reward = two_bases(int(run.rng("bases", seed).integers(2**31)), 0.5)
        for i, base in enumerate((base_s, base_t)):
            for j, lam in enumerate(FRONTIER_LAMBDAS):
                law = sequence_optimum(teacher, base, lam)[0]
                sums[i, j] += kl(law, teacher), expectation(law, reward)
    mean = sums / 200
    names = np.repeat(["student's base", "teacher's base"], len(FRONTIER_LAMBDAS))
    return {
        "reference": names,
        "lam": np.tile(FRONTIER_LAMBDAS, 2),
        "kl": mean[..., 0].ravel(),
        "reward": mean[..., 1].ravel(),
    }


@reward_correction.draw
def _(table, figure):
    axes = figure.subplots()
    for name, marker in (("student's base", "s"), ("teacher's base", "o")):
        rows = table.rows(reference=name)
        (line,) = axes.plot(rows["kl"], rows["reward"], label=f"reference: {name}")
        for lam in (1.25, 1.5, 2.0, 3.0):
            at = rows["kl"][np.isclose(rows["lam"], lam)], rows["reward"][np.isclose(rows["lam"], lam)]
            axes.plot(*at, marker, color=line.get_color(), markersize=6)
            offset = (7, -11) if marker == "s" else (-14, 7)
            style = {"textcoords": "offset points", "fontsize": 8, "color": line.get_color()}
            axes.annotate(f"{lam:g}", (at[0][0], at[1][0]), xytext=offset, **style)
    axes.set(xlabel="KL(pi ‖ teacher), nats", ylabel="true reward E[r*]")
    axes.legend(loc="lower right")


GAP_DISTANCES = np.logspace(-2, 0, 13)


@figures.figure(
    "token-sequence-gap",
    title="Gap between the per-token and the sequence optimum",
    caption="KL(pi_tok ‖ pi_lam) against |lam - 1| on trees with 3 tokens and 4 steps (teacher = reference + 0.7 noise), mean over"
    " 10 trees for lam above and below 1, with the expansion (lam-1)²/2 · Var_T(K) (C3). Training with discount 0 ends on the"
    " per-token optimum, training with return-to-go on the sequence optimum.",
)
def token_sequence_gap(run):
    columns = {"distance": [], "side": [], "kl": [], "expansion": []}
    for side, sign in (("lam > 1", 1), ("lam < 1", -1)):
        for d in GAP_DISTANCES:
            gaps, expansions = [], []
            for seed in range(10):
                rng = run.rng("gap", seed)
                ref = random_tree(rng, 3, 4)
                teacher = noisy(ref, rng, 0.7)
                t, r = sequence_log_probs(teacher), sequence_log_probs(ref)
                k = path_sums([np.broadcast_to(x[..., None], p.shape) for x, p in zip(node_kl(teacher, ref), ref)])
                law, lam = np.exp(t), 1 + sign * d
                tok = sequence_log_probs(token_optimum(teacher, ref, lam)[0])
                gaps.append(float(kl(tok, sequence_optimum(t, r, lam)[0])))
                expansions.append(0.5 * d**2 * float(law @ (k - law @ k) ** 2))
            for name, value in zip(columns, (d, side, np.mean(gaps), np.mean(expansions))):
                columns[name].append(value)
    keep = [
        i for i, (d, side) in enumerate(zip(columns["distance"], columns["side"])) if d < 0.999 or side == "lam > 1"
    ]
    return {name: [values[i] for i in keep] for name, values in columns.items()}


@token_sequence_gap.draw
def _(table, figure):
    axes = figure.subplots()
    for side, marker in (("lam > 1", "o"), ("lam < 1", "s")):
        rows = table.rows(side=side)
        axes.loglog(rows["distance"], rows["kl"], marker, label=side)
    rows = table.rows(side="lam > 1")
    axes.loglog(rows["distance"], rows["expansion"], color="0.3", linestyle="--", label="(lam - 1)² Var_T(K) / 2")
    axes.set(xlabel="|lam - 1|", ylabel="KL(pi_tok ‖ pi_lam), nats")
    axes.legend()


@figures.figure(
    "dense-extrapolation-can-lose",
    title="Per-token extrapolation can lose to a noise-free teacher",
    caption="Two-step tree: branch 0 always pays 0.8, branch 1 pays 1 with reference probability 0.05; the teacher (lam = 1) is an exact"
    " tilt at 0.1. The sequence optimum improves with lam, the per-token optimum falls below its teacher (C6).",
)
def dense_extrapolation_can_lose(run):
    ref, teacher = jackpot()
    t, r = sequence_log_probs(teacher), sequence_log_probs(ref)
    lams = np.linspace(1, 2, 21)
    token = [float(expectation(sequence_log_probs(token_optimum(teacher, ref, x)[0]), JACKPOT_REWARD)) for x in lams]
    sequence = [float(expectation(sequence_optimum(t, r, x)[0], JACKPOT_REWARD)) for x in lams]
    return {"lam": lams, "token optimum": token, "sequence optimum": sequence}


@dense_extrapolation_can_lose.draw
def _(table, figure):
    axes = figure.subplots()
    for name, style in (("sequence optimum", "-"), ("token optimum", "--")):
        axes.plot(table["lam"], table[name], style, label=name)
    axes.axhline(table["token optimum"][0], color="0.5", linewidth=1, linestyle=":", label="teacher")
    axes.set(xlabel="reward scale lam", ylabel="true reward E[r*]")
    axes.legend()
