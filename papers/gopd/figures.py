"""Figures of gopd: what extrapolation does, at token and at sequence level."""

from __future__ import annotations

import numpy as np

from klsim.distributions import expectation, log_normalize, tilt
from klsim.divergences import kl
from klsim.problems.token_tree import conditionals, end_after_eos, lengths, node_kl, sequence_log_probs, tokens
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from .setting import (
    JACKPOT_REWARD,
    BiasedBandit,
    Merge,
    TwoBases,
    along_paths,
    both_optima,
    jackpot,
    noisy,
    random_tree,
)

figures = Figures()


@figures.figure(
    "reward-against-lambda",
    title="True reward against the reward scale, with and without a biased implicit reward",
    caption="200 arms, 40 seeds, exact expectations; band: 95 % interval of the mean. With a noise-free teacher the true"
    " reward only rises; when four rare low-reward arms carry a positive bias it rises past lam = 1 (the teacher, dashed),"
    " peaks near 2 and collapses (C7; the paper's Fig. 2-3).",
    draw=Lines("lam", "reward", by="implicit reward", xlabel="reward scale lam", ylabel="true reward E[r*]",
               marks={1: "teacher"}),
)  # fmt: skip
def reward_against_lambda(run):
    lams = np.array([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6])
    bandits = [BiasedBandit.draw(run.rng("bandit", seed)) for seed in range(40)]
    for name, biased in (("exact", False), ("biased on 4 rare arms", True)):
        yield {"implicit reward": name, "lam": lams, **over_seeds(reward=[b.rewards_at(lams, biased) for b in bandits])}


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
        content = np.log(0.85) + log_normalize(rng.standard_normal((TREE_V**t, TREE_V - 1)))
        levels.append(np.concatenate([np.full((TREE_V**t, 1), np.log(0.15)), content], axis=1))
    return end_after_eos(tuple(levels), TREE_EOS)


@figures.figure(
    "accuracy-and-length",
    title="Accuracy and response length against the reward scale, token and sequence optimum",
    caption="Token tree with 4 tokens (one EOS) and at most 8 steps; correct: EOS after at least three digits, the last a 0."
    " Teacher: the reference tilted by the reward at coefficient 0.5. 20 seeds, exact; band: 95 % interval. Both optima gain"
    " past the teacher (dashed), the per-token one (what discount 0 trains) less, and their lengths move apart.",
    size=(8.5, 3.6),
    draw=Lines("lam", "mean", by="optimum", panels="quantity", xlabel="reward scale lam", label="{} optimum",
               ylabel="accuracy, or number of tokens", marks={1: "teacher"}, share_y=False),
)  # fmt: skip
def accuracy_and_length(run):
    lams, reward, length = (
        (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0),
        _digit_reward(),
        lengths(TREE_V, TREE_H, TREE_EOS),
    )
    rows = []  # (seeds, lams, token or sequence, accuracy or length)
    for seed in range(20):
        ref = _digit_reference(run.rng("tree", seed))
        teacher = conditionals(tilt(sequence_log_probs(ref), reward, 0.5), TREE_V, TREE_H)
        ended = end_after_eos(tuple(teacher), TREE_EOS)
        laws = [both_optima(ended, ref, lam)[::2] for lam in lams]
        rows.append([[(np.exp(law) @ reward, np.exp(law) @ length) for law in pair] for pair in laws])
    for q, quantity in enumerate(("accuracy", "mean length (tokens, EOS included)")):
        for i, name in enumerate(("token", "sequence")):
            yield {"quantity": quantity, "optimum": name, "lam": lams, **over_seeds(mean=np.array(rows)[:, :, i, q])}


@figures.figure(
    "multi-teacher",
    title="Merging two domain teachers into one student",
    caption="Log-linear student shared by two domains, 60 seeds; accuracy minus that of the domain's own teacher, averaged over"
    " domains; error bars: 95 % intervals. OPD loses a little of each teacher, ExOPD more than pays it back on average (both"
    " teachers are beaten in about three of four draws); with greedy decoding no student reaches its teachers (C8; the paper's"
    " Table 2 and Fig. 1a are on 4B models).",
    size=(8.5, 3.8),
    draw=Bars("method", "margin", by="answers", label="{} answers", ylabel="accuracy minus the domain's teacher",
              xlabel="how the student is made from its teachers", levels={0: ""}),
)  # fmt: skip
def multi_teacher(run):
    names = ("SFT", "ExPO 0.25", "ExPO 0.5", "lam 0.75", "OPD", "ExOPD 1.25", "ExOPD 1.5")
    margins = []  # (seeds, methods, sampled or greedy)
    for seed in range(60):
        merge = Merge(run.rng("merge", seed))
        students = [merge.supervise(), merge.extrapolate(0.25), merge.extrapolate(0.5)]
        students += [merge.distil(lam) for lam in (0.75, 1.0, 1.25, 1.5)]
        margins.append([[merge.margins(w, greedy=g).mean() for g in (False, True)] for w in students])
    for i, answers in enumerate(("sampled", "greedy")):
        yield {"method": names, "answers": answers, **over_seeds(margin=np.array(margins)[:, :, i])}


@figures.figure(
    "reward-correction",
    title="Reward correction: frontiers of true reward against KL to the teacher",
    caption="50 arms, kappa = 0.5, lam swept from 1 to 3, both coordinates averaged over 200 seeds at each lam. At equal KL the"
    " corrected reference (the teacher's own base) is above; at equal lam (marked points) it is below up to 1.5, because it"
    " moves less (C9; the paper's Fig. 14a).",
)
def reward_correction(run):
    lams, rows = np.linspace(1, 3, 41), []
    for seed in range(200):
        bases = TwoBases.draw(run.rng("bases", seed), 0.5)
        rows.append([(kl(laws, bases.teacher), expectation(laws, bases.reward)) for laws in bases.students(lams)])
    mean = np.mean(rows, axis=0)
    for i, name in enumerate(("student's base", "teacher's base")):
        yield {"reference": name, "lam": lams, "kl": mean[i, 0], "reward": mean[i, 1]}


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


@figures.figure(
    "token-sequence-gap",
    title="Gap between the per-token and the sequence optimum",
    caption="KL(pi_tok ‖ pi_lam) against |lam - 1| on trees with 3 tokens and 4 steps (teacher = reference + 0.7 noise), mean over"
    " 10 trees for lam above and below 1, with the expansion (lam-1)²/2 · Var_T(K) (C3). Training with discount 0 ends on the"
    " per-token optimum, training with return-to-go on the sequence optimum.",
    draw=Lines("distance", "kl", by="series", xlabel="|lam - 1|", ylabel="KL(pi_tok ‖ pi_lam), nats", xscale="log",
               yscale="log", styles={"lam > 1": {"linestyle": "none"}, "lam < 1": {"linestyle": "none"},
                                     "(lam - 1)² Var_T(K) / 2": {"color": "0.3", "linestyle": "--", "marker": ""}}),
)  # fmt: skip
def token_sequence_gap(run):
    distances, gaps, expansions = np.logspace(-2, 0, 13), [], []
    for seed in range(10):
        rng = run.rng("gap", seed)
        ref = random_tree(rng, 3, 4)
        teacher = noisy(ref, rng, 0.7)
        law, k = np.exp(sequence_log_probs(teacher)), along_paths(node_kl(teacher, ref), ref)
        expansions.append(distances**2 / 2 * (law @ (k - law @ k) ** 2))
        gaps.append([[float(kl(*both_optima(teacher, ref, 1 + s * d)[::2])) for d in distances] for s in (1, -1)])
    above, below = np.mean(gaps, axis=0)
    yield {"series": "lam > 1", "distance": distances, "kl": above}
    yield {"series": "lam < 1", "distance": distances[:-1], "kl": below[:-1]}  # at lam = 0 the gap is 0
    yield {"series": "(lam - 1)² Var_T(K) / 2", "distance": distances, "kl": np.mean(expansions, axis=0)}


@figures.figure(
    "dense-extrapolation-can-lose",
    title="Per-token extrapolation can lose to a noise-free teacher",
    caption="Two-step tree: branch 0 always pays 0.8, branch 1 pays 1 with reference probability 0.05; the teacher (lam = 1) is an exact"
    " tilt at 0.1. The sequence optimum improves with lam, the per-token optimum falls below its teacher (C6).",
    draw=Lines("lam", "reward", by="optimum", label="{} optimum", xlabel="reward scale lam", ylabel="true reward E[r*]",
               marks={1: "teacher"}),
)  # fmt: skip
def dense_extrapolation_can_lose(run):
    ref, teacher = jackpot()
    lams = np.linspace(1, 2, 21)
    rewards = np.array([[expectation(law, JACKPOT_REWARD) for law in both_optima(teacher, ref, x)[::2]] for x in lams])
    for i, name in enumerate(("token", "sequence")):
        yield {"optimum": name, "lam": lams, "reward": rewards[:, i]}
