"""Figures of klbayes: collapse, posterior, frontier, misspecification, estimator gradients."""

from __future__ import annotations

import numpy as np

from klsim.distributions import condition, entropy, expectation, tilt
from klsim.divergences import kl
from klsim.estimators import k1, k2, k3
from klsim.learning import train_tree
from klsim.problems.token_tree import sequence_log_probs
from klsim.report.drawings import Heat, Lines
from klsim.report.figures import Figures

from .setting import (
    CLASSES,
    LOG_PRIOR,
    REF,
    REWARD,
    THETA,
    THETA_REF,
    TOKENS,
    TWO_MODES,
    fit,
    gradient,
    law_of,
    reinforce,
)

figures = Figures()


@figures.figure(
    "entropy-and-accuracy",
    title="Entropy and accuracy of REINFORCE with and without a KL penalty",
    caption="Tree with 27 sequences, 9 correct; batch 32, learning rate 1, leave-one-out baseline, 10 seeds (lines: mean, bands: range)."
    " Dotted: entropy and accuracy of the posterior for each beta > 0. Without penalty the policy collapses onto one of the 9 optimal"
    " sequences; with beta = 0.02 it is still collapsed after 1500 steps although its optimum is not.",
    size=(8.5, 3.8),
)
def entropy_and_accuracy(run):
    marks = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1500])
    for beta in (0.0, 0.02, 0.2, 1.0):
        target = tilt(LOG_PRIOR, REWARD, beta) if beta else condition(LOG_PRIOR, REWARD == 1)
        runs = [
            train_tree(THETA_REF, REF, reward=REWARD, beta=beta, credit="sequence", steps=1500, record=marks,
                       rng=run.rng("collapse", seed)).log_policies
            for seed in range(10)
        ]  # fmt: skip
        laws = [[sequence_log_probs(policy) for policy in policies] for policies in runs]
        for quantity, of in (("entropy", entropy), ("accuracy", lambda law: expectation(law, REWARD))):
            values = np.array([[of(law) for law in row] for row in laws])
            ends = {"mean": values.mean(axis=0), "mean low": values.min(axis=0), "mean high": values.max(axis=0)}
            yield {"quantity": quantity, "beta": beta, "step": marks + 1, **ends, "target": float(of(target))}


@entropy_and_accuracy.draw
def _(table, figure):
    lines = Lines("step", "mean", by="beta", label="beta = {}", xscale="log")
    for axes, quantity, unit in zip(figure.subplots(1, 2), ("entropy", "accuracy"), ("entropy, nats", "accuracy E[r]")):
        rows = table.rows(quantity=quantity)
        lines.on(axes, rows)
        for line, beta in zip(axes.get_lines(), rows.distinct("beta")):
            if beta:
                axes.axhline(rows.rows(beta=beta)["target"][0], color=line.get_color(), linestyle=":", linewidth=1)
        axes.set(xlabel="step + 1", ylabel=unit)
    figure.axes[0].legend()


@figures.figure(
    "final-policies",
    title="Where the mass ends: the 27 sequences after training",
    caption="Sequences sorted by prior within the correct (left of the line) and incorrect ones. beta = 0: one run of REINFORCE, collapsed;"
    " beta = 0.2: one run, close to the posterior; for comparison the posterior and the prior restricted to the correct sequences.",
    size=(8.5, 4.6),
)
def final_policies(run):
    order = np.lexsort((-LOG_PRIOR, -REWARD))
    names = ["s" + "".join(map(str, y)) for y in TOKENS[order]]
    laws = {
        "REINFORCE, beta = 0": reinforce(run.rng("final"), 0.0),
        "REINFORCE, beta = 0.2": reinforce(run.rng("final"), 0.2),
        "posterior, beta = 0.2": tilt(LOG_PRIOR, REWARD, 0.2),
        "prior on the correct set": condition(LOG_PRIOR, REWARD == 1),
    }
    for policy, law in laws.items():
        yield {"policy": policy, "sequence": names, "reward": REWARD[order], "probability": np.exp(law)[order]}


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


@figures.figure(
    "frontier",
    title="Accuracy against KL: the posterior's frontier, and where KL-RL and DPG end",
    caption="Line: the posterior for beta from 0.05 to 5. Points: 1500 steps of KL-RL (score function, penalty in the reward) and of DPG"
    " (on-policy, baseline 1, exact Z) at beta = 0.1, 0.2, 0.5, 1 (from right to left), batch 32, learning rate 1, mean of 5 seeds;"
    " both inference methods aim at the same target.",
    draw=Lines("kl", "accuracy", by="curve", xlabel="KL(pi ‖ prior), nats", ylabel="accuracy E[r]", styles={
        "posterior": {"marker": ""}, "KL-RL": {"linestyle": "none", "markersize": 8, "fillstyle": "none"},
        "DPG": {"linestyle": "none"}}),
)  # fmt: skip
def frontier(run):
    def point(law, target):
        return [float(x) for x in (kl(law, LOG_PRIOR), expectation(law, REWARD), kl(law, target))]

    def block(curve, betas, points):
        columns = zip(("kl", "accuracy", "kl to posterior"), np.transpose(points))
        return {"curve": curve, "beta": betas, **dict(columns)}

    def kl_rl(rng, beta, target):
        return reinforce(rng, beta)

    def dpg(rng, beta, target):
        return reinforce(rng, 0.0, credit="target", baseline="none", log_target=target)

    betas = np.logspace(np.log10(0.05), np.log10(5), 40)
    yield block("posterior", betas, [point(t, t) for t in (tilt(LOG_PRIOR, REWARD, b) for b in betas)])
    betas = (0.1, 0.2, 0.5, 1.0)
    for curve, learner in (("KL-RL", kl_rl), ("DPG", dpg)):
        targets = {b: tilt(LOG_PRIOR, REWARD, b) for b in betas}
        ends = [[point(learner(run.rng(curve, i), b, t), t) for i in range(5)] for b, t in targets.items()]
        yield block(curve, betas, np.mean(ends, axis=1))


@figures.figure(
    "product-policies",
    title="One target, two inferences in a misspecified class",
    caption="Two binary tokens, product policies only: the reverse-KL optimum seeks one mode, the forward-KL optimum is the product of the"
    " target's marginals (C6).",
    size=(7.5, 2.9),
    draw=Heat("second", "first", "probability", xlabel="second token", ylabel="first token", panels="law", numbers=".3f"),
)  # fmt: skip
def product_policies(run):
    starts = 3 * run.rng("starts").standard_normal((12, 2))
    laws = {"target": TWO_MODES}
    for direction in ("reverse", "forward"):
        laws[f"{direction} KL"] = fit(TWO_MODES, direction, CLASSES["products"], starts)
    for name, law in laws.items():
        yield {"law": name, "first": [0, 0, 1, 1], "second": [0, 1, 0, 1], "probability": np.exp(law)}


@figures.figure(
    "estimator-gradients",
    title="What the sampled KL estimates descend when used as losses",
    caption="Expected gradients over the 39 logits of the tree at a policy away from the prior. k1 as a loss does nothing, k2 follows the"
    " reverse KL, k3 the forward KL (C3).",
    size=(9.0, 4.6),
)
def estimator_gradients(run):
    weights = np.exp(law_of(THETA))
    functions = {f"{k.__name__} loss": lambda x, k=k: k(law_of(x) - LOG_PRIOR) @ weights for k in (k1, k2, k3)}
    functions["grad reverse KL"] = lambda x: kl(law_of(x), LOG_PRIOR)
    functions["grad forward KL"] = lambda x: kl(LOG_PRIOR, law_of(x))
    for name, function in functions.items():
        # round away the finite-difference noise (1e-11), so that bytes do not depend on it
        yield {"gradient": name, "logit": np.arange(39), "value": np.round(gradient(function, THETA), 9)}


@estimator_gradients.draw
def _(table, figure):
    groups = (("k1 loss",), ("k2 loss", "grad reverse KL"), ("k3 loss", "grad forward KL"))
    for axes, names in zip(figure.subplots(3, 1, sharex=True, sharey=True), groups):
        for k, name in enumerate(names):
            rows = table.rows(gradient=name)
            axes.bar(rows["logit"] + 0.4 * k - 0.2 * (len(names) - 1), rows["value"], width=0.4, label=name)
        axes.axhline(0, color="black", linewidth=0.8)
        if not np.any(table.rows(gradient=names[0])["value"]):
            axes.text(0.5, 0.62, "zero at every logit", transform=axes.transAxes, ha="center")
        axes.set_ylabel("gradient")
        axes.legend(loc="lower right", ncols=2)
    figure.axes[-1].set_xlabel("logit (13 prefixes × 3 tokens)")
