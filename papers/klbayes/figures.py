"""Figures of klbayes: collapse, posterior, frontier, misspecification, estimator gradients."""

from __future__ import annotations

import numpy as np

from klsim.distributions import condition, entropy, expectation, tilt
from klsim.divergences import kl
from klsim.learning import train_tree
from klsim.problems.token_tree import sequence_log_probs, tokens
from klsim.report import Figures

from .claims import (
    C6_TARGET,
    LOG_PI,
    LOG_PRIOR,
    REF,
    REWARD,
    THETA_REF,
    _expected_loss_gradient,
    best_product,
    gradient,
    law_of,
    reinforce,
)

figures = Figures()
BETAS = (0.0, 0.02, 0.2, 1.0)
MARKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1500)
SEEDS = 10


@figures.figure(
    "entropy-and-accuracy",
    title="Entropy and accuracy of REINFORCE with and without a KL penalty",
    caption="Tree with 27 sequences, 9 correct; batch 32, learning rate 1, leave-one-out baseline, 10 seeds (lines: mean, bands: range)."
    " Dotted: entropy and accuracy of the posterior for each beta > 0. Without penalty the policy collapses onto one of the 9 optimal"
    " sequences; with beta = 0.02 it is still collapsed after 1500 steps although its optimum is not.",
    size=(8.5, 3.8),
)
def entropy_and_accuracy(run):
    columns = {
        k: []
        for k in (
            "beta",
            "steps",
            "entropy",
            "entropy low",
            "entropy high",
            "accuracy",
            "target entropy",
            "target accuracy",
        )
    }
    for beta in BETAS:
        target = tilt(LOG_PRIOR, REWARD, beta) if beta else condition(LOG_PRIOR, REWARD == 1)
        runs = [
            train_tree(THETA_REF, REF, reward=REWARD, beta=beta, credit="sequence", steps=1500, record=MARKS,
                       rng=run.rng("collapse", seed))
            for seed in range(SEEDS)
        ]  # fmt: skip
        for k, step in enumerate(MARKS):
            laws = [sequence_log_probs(r.log_policies[k]) for r in runs]
            h = [float(entropy(law)) for law in laws]
            accuracy = np.mean([float(expectation(law, REWARD)) for law in laws])
            row = (
                beta,
                step,
                np.mean(h),
                min(h),
                max(h),
                accuracy,
                float(entropy(target)),
                float(expectation(target, REWARD)),
            )
            for name, value in zip(columns, row):
                columns[name].append(value)
    return columns


@entropy_and_accuracy.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for beta in table.distinct("beta"):
        rows = table.rows(beta=beta)
        x = rows["steps"] + 1
        (line,) = left.semilogx(x, rows["entropy"], label=f"beta = {beta:g}")
        left.fill_between(x, rows["entropy low"], rows["entropy high"], color=line.get_color(), alpha=0.2, linewidth=0)
        right.semilogx(x, rows["accuracy"], color=line.get_color(), label=f"beta = {beta:g}")
        if beta:
            left.axhline(rows["target entropy"][0], color=line.get_color(), linestyle=":", linewidth=1)
            right.axhline(rows["target accuracy"][0], color=line.get_color(), linestyle=":", linewidth=1)
    left.set(xlabel="step + 1", ylabel="entropy, nats", ylim=(0, None))
    right.set(xlabel="step + 1", ylabel="accuracy E[r]", ylim=(0.25, 1.02))
    left.legend()


@figures.figure(
    "final-policies",
    title="Where the mass ends: the 27 sequences after training",
    caption="Sequences sorted by prior within the correct (left of the line) and incorrect ones. beta = 0: one run of REINFORCE, collapsed;"
    " beta = 0.2: one run, close to the posterior; for comparison the posterior and the prior restricted to the correct sequences.",
    size=(8.5, 4.6),
)
def final_policies(run):
    order = np.lexsort((-LOG_PRIOR, -REWARD))
    laws = {
        "REINFORCE, beta = 0": reinforce(run.rng("final"), 0.0),
        "REINFORCE, beta = 0.2": reinforce(run.rng("final"), 0.2),
        "posterior, beta = 0.2": tilt(LOG_PRIOR, REWARD, 0.2),
        "prior on the correct set": condition(LOG_PRIOR, REWARD == 1),
    }
    names = ["".join(map(str, y)) for y in tokens(3, 3)[order]]
    return {
        "policy": np.repeat(list(laws), 27),
        "sequence": [f"s{n}" for n in names] * len(laws),
        "reward": np.tile(REWARD[order], len(laws)),
        "probability": np.concatenate([np.exp(law)[order] for law in laws.values()]),
    }


@final_policies.draw
def _(table, figure):
    for axes, name in zip(figure.subplots(2, 2, sharex=True).ravel(), table.distinct("policy")):
        rows = table.rows(policy=name)
        colours = np.where(rows["reward"] == 1, "#009E73", "#999999")
        axes.bar(np.arange(27), rows["probability"], color=colours)
        axes.axvline(8.5, color="0.3", linewidth=0.8)
        axes.set_title(name)
        axes.set_xticks(np.arange(27), [s[1:] for s in rows["sequence"]], rotation=90, fontsize=6)
    for axes in figure.axes[::2]:
        axes.set_ylabel("probability")
    for axes in figure.axes[2:]:
        axes.set_xlabel("sequence (green: correct)")


POINT_BETAS = (0.1, 0.2, 0.5, 1.0)


@figures.figure(
    "frontier",
    title="Accuracy against KL: the posterior's frontier, and where KL-RL and DPG end",
    caption="Line: the posterior for beta from 0.05 to 5. Points: 1500 steps of KL-RL (score function, penalty in the reward) and of DPG"
    " (on-policy, baseline 1, exact Z), batch 32, learning rate 1, mean of 5 seeds; both inference methods aim at the same target.",
)
def frontier(run):
    columns = {"curve": [], "beta": [], "kl": [], "accuracy": [], "kl to posterior": []}

    def add(curve, beta, laws, target):
        columns["curve"].append(curve)
        columns["beta"].append(beta)
        columns["kl"].append(np.mean([float(kl(law, LOG_PRIOR)) for law in laws]))
        columns["accuracy"].append(np.mean([float(expectation(law, REWARD)) for law in laws]))
        columns["kl to posterior"].append(np.mean([float(kl(law, target)) for law in laws]))

    for beta in np.logspace(np.log10(0.05), np.log10(5), 40):
        target = tilt(LOG_PRIOR, REWARD, beta)
        add("posterior", beta, [target], target)
    for beta in POINT_BETAS:
        target = tilt(LOG_PRIOR, REWARD, beta)
        add("KL-RL", beta, [reinforce(run.rng("rl", i), beta) for i in range(5)], target)
        dpg = [reinforce(run.rng("dpg", i), 0.0, credit="target", baseline="none", log_target=target) for i in range(5)]
        add("DPG", beta, dpg, target)
    return columns


@frontier.draw
def _(table, figure):
    axes = figure.subplots()
    rows = table.rows(curve="posterior")
    axes.plot(rows["kl"], rows["accuracy"], color="0.3", label="posterior")
    for name, marker in (("KL-RL", "o"), ("DPG", "x")):
        rows = table.rows(curve=name)
        axes.plot(rows["kl"], rows["accuracy"], marker, markersize=7, label=f"{name}, beta = 0.1, 0.2, 0.5, 1")
    axes.set(xlabel="KL(pi ‖ prior), nats", ylabel="accuracy E[r]")
    axes.legend(loc="lower right")


@figures.figure(
    "product-policies",
    title="One target, two inferences in a misspecified class",
    caption="Two binary tokens, product policies only: the reverse-KL optimum seeks one mode, the forward-KL optimum is the product of the"
    " target's marginals (C6).",
    size=(7.5, 2.9),
)
def product_policies(run):
    laws = {"target": C6_TARGET, "reverse KL": best_product("reverse"), "forward KL": best_product("forward")}
    return {
        "law": np.repeat(list(laws), 4),
        "first": np.tile([0, 0, 1, 1], 3),
        "second": np.tile([0, 1, 0, 1], 3),
        "probability": np.exp(np.concatenate(list(laws.values()))),
    }


@product_policies.draw
def _(table, figure):
    for axes, name in zip(figure.subplots(1, 3), table.distinct("law")):
        grid = table.rows(law=name)["probability"].reshape(2, 2)
        axes.imshow(grid, cmap="Blues", vmin=0, vmax=1)
        for (i, j), p in np.ndenumerate(grid):
            axes.text(j, i, f"{p:.3f}", ha="center", va="center", color="white" if p > 0.55 else "black")
        axes.set(title=name, xticks=(0, 1), yticks=(0, 1), xlabel="second token", ylabel="first token")
        axes.grid(visible=False)


@figures.figure(
    "estimator-gradients",
    title="What the sampled KL estimates descend when used as losses",
    caption="Expected gradients over the 39 logits of the tree at a policy away from the prior. k1 as a loss does nothing, k2 follows the"
    " reverse KL, k3 the forward KL (C3).",
    size=(9.0, 4.6),
)
def estimator_gradients(run):
    rows = {
        "k1 loss": _expected_loss_gradient("k1"),
        "k2 loss": _expected_loss_gradient("k2"),
        "grad reverse KL": gradient(lambda x: float(kl(law_of(x), LOG_PRIOR))),
        "k3 loss": _expected_loss_gradient("k3"),
        "grad forward KL": gradient(lambda x: float(kl(LOG_PRIOR, law_of(x)))),
    }
    assert LOG_PI.size == 27
    # round away the finite-difference noise (1e-11), so that bytes do not depend on it
    return {
        "gradient": np.repeat(list(rows), 39),
        "logit": np.tile(np.arange(39), len(rows)),
        "value": np.round(np.concatenate(list(rows.values())), 9),
    }


@estimator_gradients.draw
def _(table, figure):
    groups = (("k1 loss",), ("k2 loss", "grad reverse KL"), ("k3 loss", "grad forward KL"))
    for axes, names in zip(figure.subplots(3, 1, sharex=True, sharey=True), groups):
        for k, name in enumerate(names):
            rows = table.rows(gradient=name)
            axes.bar(rows["logit"] + 0.4 * k - 0.2 * (len(names) - 1), rows["value"], width=0.4, label=name)
        axes.set_ylabel("gradient")
        axes.legend(loc="lower right", ncols=2)
    figure.axes[-1].set_xlabel("logit (13 prefixes × 3 tokens)")
