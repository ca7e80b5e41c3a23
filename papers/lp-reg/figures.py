"""Figures of lp-reg: training on the tree with a spark, the proxy, and what each part of the gate does."""

from __future__ import annotations

import numpy as np

from klsim.distributions import log_normalize
from klsim.learning.token_filters import critical_pull, token_advantage
from klsim.objectives.stabilizers import min_p_proxy
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from .setting import ARMS, GROUP, HEAD, ROOT, SPARK, Run, grow

figures = Figures()
SEEDS = 16
METHODS = {
    "GRPO": Run(),
    "entropy .02": Run(entropy=0.02),
    "entropy .1": Run(entropy=0.1),
    "Lp-Reg, <=": Run(beta=1.0),
    "Lp-Reg, strict": Run(beta=1.0, gate="<"),
}
SCORES = ("success", "spark", "noise", "entropy")
LABELS = ("success", "probability of the spark", "mass of the noise", "entropy of the root, nats")
SLOW = Run(lr=1.0, steps=2000, lag=250, gate="<")


def rngs(run, name):
    return [run.rng(name, seed) for seed in range(SEEDS)]


@figures.figure(
    "training",
    title="GRPO, entropy bonus and Lp-Reg on the tree",
    caption="Root with a head (success .5), a spark that leads to a learnable branch, 20 noise tokens; plain steps, exact scores, mean and 95 % interval over 16 seeds."
    " GRPO removes the spark before it pays; a large entropy bonus keeps it, with more noise; Lp-Reg keeps it with <= in the gate, not with the strict"
    " gate of Eq. 6 at beta = 1 (C6; the paper's Figs. 1 and 3-6 are on LLMs).",
    size=(11.0, 7.0),
)  # fmt: skip
def training(run):
    steps = tuple(range(0, 400, 8))
    for name, setup in METHODS.items():
        path = grow(rngs(run, "training"), setup, record=steps)
        for score, values in zip(SCORES, path):
            yield {"score": score, "method": name, "step": (*steps, 400), **over_seeds(value=values)}


@training.draw
def _(table, figure):
    for number, (axes, score, label) in enumerate(zip(figure.subplots(2, 2).ravel(), SCORES, LABELS)):
        drawing = Lines("step", "value", by="method", markers=False, styles={"Lp-Reg, strict": {"linestyle": "--"}})
        drawing.on(axes, table.rows(score=score))
        axes.set(xlabel="step", ylabel=label)
        if number == 0:
            axes.legend(loc="center right")


@figures.figure(
    "proxy",
    title="A policy and its proxy",
    caption="20 tokens, softmax of 2 N(0, 1), sorted. Tokens below the threshold .02 (dashed) are noise and have no bar in the proxy, the others are"
    " renormalised (C1; the paper's Fig. 2).",
    size=(9.0, 3.8),
)
def proxy(run):
    pi = -np.sort(-log_normalize(2 * run.rng("policy").standard_normal(20)))
    kept = np.exp(min_p_proxy(pi, float(np.exp(np.log(0.02) - pi.max()))))
    for name, law in (("policy", np.exp(pi)), ("proxy", kept)):
        yield {"law": name, "token": np.arange(1, 21), "probability": law}


@proxy.draw
def _(table, figure):
    Bars("token", "probability", by="law", xlabel="token, by probability", ylabel="probability", yscale="log",
         levels={0.02: "threshold"})(table, figure)  # fmt: skip
    figure.axes[0].set_ylim(bottom=1e-4)


ABLATIONS = {
    "GRPO": Run(),
    "<=": Run(beta=1.0),
    "<": Run(beta=1.0, gate="<"),
    "head only": Run(beta=1.0, only="head"),
    "no head": Run(beta=1.0, only="others"),
    "kappa 0": Run(beta=1.0, kappa=0.0),
    "any A": Run(beta=1.0, negative=False),
    "lag 1": Run(beta=1.0, lag=1),
    "lag 5": Run(beta=1.0, lag=5),
    "lag 20": Run(beta=1.0, lag=20),
    "never": Run(beta=1.0, lag=0),
    "all samples": Run(beta=0.5, gate="all"),
}


@figures.figure(
    "ablations",
    title="What each part does",
    caption="Final success on the tree, 16 seeds, 95 % intervals. Left: beta = 1, lag 50, <= in the gate unless said; never: the proxy is the first policy. The effect goes with"
    " the head tokens and with the lag; all samples: forward KL without a gate, beta = .5. Right: the strict gate, lr 1, 2000 steps, lag 250; dashed: the"
    " critical coefficient beta* (C3, C6; the paper's Figs. 7-10 are on LLMs).",
    size=(12.5, 4.2),
)  # fmt: skip
def ablations(run):
    for name, setup in ABLATIONS.items():
        yield {
            "panel": "parts",
            "setting": [name],
            "beta": [setup.beta],
            **over_seeds(success=grow(rngs(run, "parts"), setup)[0][:, None]),
        }
    for beta in (1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0):
        found = grow(rngs(run, "strict"), SLOW._replace(beta=beta))[0]
        yield {"panel": "strict", "setting": ["strict"], "beta": [beta], **over_seeds(success=found[:, None])}


@ablations.draw
def _(table, figure):
    left, right = figure.subplots(1, 2, width_ratios=(3, 2), sharey=True)
    Bars("setting", "success").on(left, table.rows(panel="parts"))
    left.tick_params(axis="x", rotation=35)
    left.set(xlabel="setting", ylabel="final success", ylim=(0.4, 1.12))
    pi = np.exp(log_normalize(ROOT))
    advantage = token_advantage(1 / ARMS, pi[HEAD] / 2 + pi[SPARK] / ARMS, GROUP, epsilon=1e-6)
    critical = critical_pull(advantage, float(np.exp(min_p_proxy(np.log(pi), 0.02)[SPARK])))
    Lines("beta", "success", xscale="log", marks={critical: "beta*"}).on(right, table.rows(panel="strict"))
    right.set(xlabel="coefficient beta of the penalty, strict gate")


@figures.figure(
    "spark-and-entropy",
    title="Spark and entropy early in training",
    caption="Probability of the spark against the entropy of the root at step 30, a point a seed (16): what keeps the spark keeps entropy with it,"
    " GRPO and the strict gate keep neither (C6; the paper's Fig. 12 has such a scatter of sampled sparks in LLMs).",
    size=(6.4, 4.4),
)  # fmt: skip
def spark_and_entropy(run):
    for name, setup in METHODS.items():
        path = grow(rngs(run, "training"), setup._replace(steps=30))
        yield {"method": name, "spark": path[1], "entropy": path[3]}


@spark_and_entropy.draw
def _(table, figure):
    axes = figure.subplots()
    for name, marker in zip(table.distinct("method"), ("o", "s", "^", "D", "v")):
        rows = table.rows(method=name)
        axes.plot(rows["entropy"], rows["spark"], marker, markersize=6, alpha=0.8, label=name)
    axes.set(xlabel="entropy of the root, nats", ylabel="probability of the spark", yscale="log")
    axes.legend()
