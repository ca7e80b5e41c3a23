"""Figures of bgpo: memory, what n_t does to the gradient, learning with more masks, four weightings, the bound."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binomtest

from klsim.problems.masked_diffusion import count_scheme
from klsim.report.drawings import Bars, Lines, Many
from klsim.report.figures import Figures, over_seeds

from .setting import Denoiser, every_mask, random_theta, ratio_and_bound, sample_gradients, train

figures = Figures()
COUNTS = (1, 2, 4, 8, 16, 32, 64)


@figures.figure(
    "memory",
    title="Peak of saved activations against the number of masks",
    caption="MLP denoiser, bytes that autograd keeps (parameters included), A = 1.5, off-policy. One pass stores a graph for every mask, whatever"
    " the objective; accumulation and the two-pass form of the exact ratio gradient do not (C3, C3b).",
    size=(5.8, 3.8),
    requires=("torch",),
    draw=Lines("masks", "KiB", by="method", xlabel="masks n_t", ylabel="peak of saved tensors [KiB]", xscale="log", yscale="log",
               styles={"bgpo, one pass": {"linestyle": "--"}, "elbo, two passes": {"linestyle": ":"}}),
)  # fmt: skip
def memory(run):
    net = Denoiser.draw(run.rng("denoiser"))
    for name in ("elbo", "bgpo, one pass", "bgpo", "elbo, two passes"):
        yield {"method": name, "masks": COUNTS, "KiB": [net.gradient(name, n, 1.5)[1] / 1024 for n in COUNTS]}


@figures.figure(
    "variance-not-bias",
    title="What the number of masks does to an on-policy gradient",
    caption="Tabular model (L = 3, V = 2), count scheme, 400 gradients each. The distance of a gradient to one n_t = 256 gradient falls, but it is"
    " variance: the distance of the mean gradient to the exact one is Monte Carlo error (dotted: 1/sqrt(400 n_t)) at every n_t (C5).",
    draw=Lines("masks", "norm", by="curve", xlabel="masks n_t", ylabel="norm of a difference of gradients", xscale="log", yscale="log",
               styles={"expected of an unbiased mean": {"linestyle": ":", "marker": ""}}),
)  # fmt: skip
def variance_not_bias(run):
    rng = run.rng("gradients")
    theta, answer = random_theta(rng, 3, 2), (1, 0, 1)

    def gradient(n):
        return sample_gradients(theta, answer, *count_scheme(3, n, rng)).mean(axis=0).ravel()

    masks, weights, chance = every_mask(3)
    exact = np.tensordot(chance, sample_gradients(theta, answer, masks, weights), 1).ravel()
    golden = gradient(256)
    drawn = [np.array([gradient(n) for _ in range(400)]) for n in COUNTS]
    deviation = np.array([math.sqrt(d.var(axis=0).sum()) for d in drawn])
    curves = {
        "standard deviation": deviation,
        "mean distance to one n_t = 256 gradient": [np.mean(np.linalg.norm(d - golden, axis=1)) for d in drawn],
        "distance of the mean to the exact gradient": [np.linalg.norm(d.mean(axis=0) - exact) for d in drawn],
        "expected of an unbiased mean": deviation / math.sqrt(400),
    }
    for name, norm in curves.items():
        yield {"curve": name, "masks": COUNTS, "norm": norm}


@figures.figure(
    "more-masks",
    title="Final reward against the number of masks",
    caption="Tabular model (L = 4, V = 3), 8 random-order rollouts a batch, 60 steps, step 4; exact reward of the final policy, mean and 95 %"
    " interval over 30 seeds (C8).",
    size=(5.2, 3.6),
    draw=Bars("masks", "reward", xlabel="masks n_t", ylabel="expected reward of the final policy"),
)
def more_masks(run):
    masks = (1, 2, 4, 16)
    rewards = np.transpose([train(run.seed, 30, n) for n in masks])
    return {"masks": [str(n) for n in masks], **over_seeds(reward=rewards)}


RULES = {
    "bgpo": "both lemmas\n(bgpo)",
    "tangent": "Lemma 1\n(tangent)",
    "Jensen": "Lemma 2\n(Jensen)",
    "elbo": "neither\n(ratio)",
}


@figures.figure(
    "four-weightings",
    title="Both lemmas, one of them, none: what remains with clamped log-ratios, and without a clamp",
    caption="The problem of the figure above with four epochs a batch and n_t = 4. Left: final reward with log-ratios clamped at 10, mean and 95 %"
    " interval over 30 seeds: the intervals overlap, so that both lemmas are needed does not show. Right: share of the 30 runs that overflow"
    " without a clamp, with 95 % intervals: those whose weight grows with the likelihood where A > 0 (C8; compare the paper's Table 3).",
    size=(10.0, 3.6),
    draw=Many("panel", {
        "reward": Bars("weighting", "value", ylabel="expected reward, clamped at 10"),
        "overflow": Bars("weighting", "value", ylabel="share of runs that overflow"),
    }, titles={"reward": "with a clamp", "overflow": "without"}),
)  # fmt: skip
def four_weightings(run):
    runs, words = 30, list(RULES.values())
    reward = np.transpose([train(run.seed, runs, 4, epochs=4, rule=rule, clamp=10.0) for rule in RULES])
    lost = [int(np.isnan(train(run.seed, runs, 4, epochs=4, rule=rule)).sum()) for rule in RULES]
    low, high = np.transpose([binomtest(k, runs).proportion_ci() for k in lost])
    yield {"panel": "reward", "weighting": words, **over_seeds(value=reward)}
    yield {
        "panel": "overflow",
        "weighting": words,
        "value": np.divide(lost, runs),
        "value low": low,
        "value high": high,
    }


DIRECTION = np.array([0.5, -0.3, 0.1])


@figures.figure(
    "bound",
    title="The ratio objective and its bound",
    caption="Along d = eps (.5, -.3, .1): tangent line for A = 1, Jensen for A = -1, both touching at 0. Right: the gap falls with the second power"
    " (C1, C4).",
    size=(9.0, 3.6),
    draw=Many("panel", {
        "objectives": Lines("eps", "value", by="curve", xlabel="eps", ylabel="objective", markers=False,
                            styles={f"bound, A = {a}": {"linestyle": "--"} for a in ("+1", "-1")}),
        "gap": Lines("eps", "value", by="curve", xlabel="eps", ylabel="ratio objective - bound", xscale="log", yscale="log",
                     styles={"slope 2": {"linestyle": ":", "color": "0.4", "marker": ""}}),
    }),
)  # fmt: skip
def bound(run):
    wide, small = np.linspace(-3, 3, 61), np.logspace(-3, -0.5, 20)
    for a in (1.0, -1.0):
        for index, name in enumerate(("ratio", "bound")):
            values = [ratio_and_bound(eps * DIRECTION, a)[index] for eps in wide]
            yield {"panel": "objectives", "curve": f"{name}, A = {a:+g}", "eps": wide, "value": values}
    for a in (1.0, -1.0):
        gap = [-np.subtract(*ratio_and_bound(eps * DIRECTION, a)[::-1]) for eps in small]
        yield {"panel": "gap", "curve": f"A = {a:+g}", "eps": small, "value": gap}
    yield {"panel": "gap", "curve": "slope 2", "eps": small, "value": 0.05 * small**2}
