"""Figures of bgpo: memory, what n_t does to the gradient, learning with more masks, the bound."""

from __future__ import annotations

import math

import numpy as np

from klsim.problems.masked_diffusion import count_scheme
from klsim.report import Figures

from .claims import (
    memory_and_gradients,
    random_theta,
    ratio_value,
    sample_gradients,
    train,
)

figures = Figures()
METHODS = ("elbo", "bgpo, one pass", "bgpo", "elbo, two passes")


@figures.figure(
    "memory",
    title="Peak of saved activations against the number of masks",
    caption="MLP denoiser, bytes that autograd keeps (parameters included), A = 1.5, off-policy. One pass stores a graph for every mask, whatever"
    " the objective; accumulation and the two-pass form of the exact ratio gradient do not (C3, C3b).",
    size=(5.8, 3.8),
    requires=("torch",),
)
def memory(run):
    columns = {k: [] for k in ("method", "masks", "bytes")}
    for n in (1, 2, 4, 8, 16, 32, 64):
        found = memory_and_gradients(run.seed, n, 1.5)
        for name in METHODS:
            for key, value in zip(columns, (name, n, found[name][1])):
                columns[key].append(value)
    return columns


@memory.draw
def _(table, figure):
    axes = figure.subplots()
    for style, name in zip(("o-", "s--", "^-", "x:"), METHODS):
        rows = table.rows(method=name)
        axes.loglog(rows["masks"], rows["bytes"] / 1024, style, base=2, label=name)
    axes.set(xlabel="masks n_t", ylabel="peak of saved tensors [KiB]")
    axes.legend()


COUNTS = (1, 2, 4, 8, 16, 32, 64)


@figures.figure(
    "variance-not-bias",
    title="What the number of masks does to an on-policy gradient",
    caption="Tabular model (L = 3, V = 2), count scheme, 400 gradients each. The distance of a gradient to one n_t = 256 gradient falls, but it is"
    " variance: the distance of the mean gradient to the exact one is Monte Carlo error (dotted: 1/sqrt(400 n_t)) at every n_t (C5).",
)
def variance_not_bias(run):
    rng = run.rng("gradients")
    theta, answer = random_theta(rng, 3, 2), (1, 0, 1)

    def gradient(n):
        return sample_gradients(theta, answer, *count_scheme(3, n, rng)).mean(axis=0).ravel()

    sets = [tuple(int(b) for b in np.binary_repr(i, 3)) for i in range(1, 8)]
    masks = np.array(sets, dtype=bool)
    size = masks.sum(axis=1)
    chance = np.array([1 / (3 * math.comb(3, int(s))) for s in size])
    exact = np.einsum("j,j...->...", chance, sample_gradients(theta, answer, masks, 3 / size)).ravel()
    golden = gradient(256)
    columns = {k: [] for k in ("masks", "deviation", "to golden", "mean to exact", "expected")}
    for n in COUNTS:
        drawn = np.array([gradient(n) for _ in range(400)])
        deviation = math.sqrt(drawn.var(axis=0).sum())
        row = (
            n,
            deviation,
            float(np.mean(np.linalg.norm(drawn - golden, axis=1))),
            float(np.linalg.norm(drawn.mean(axis=0) - exact)),
            deviation / math.sqrt(400),
        )
        for key, value in zip(columns, row):
            columns[key].append(value)
    return columns


@variance_not_bias.draw
def _(table, figure):
    axes = figure.subplots()
    for style, key, label in (
        ("o-", "deviation", "standard deviation"),
        ("s--", "to golden", "mean distance to one n_t = 256 gradient"),
        ("^-", "mean to exact", "distance of the mean to the exact gradient"),
        (":", "expected", "expected of an unbiased mean"),
    ):
        axes.loglog(table["masks"], table[key], style, base=2, label=label)
    axes.set(xlabel="masks n_t", ylabel="norm", yscale="log")
    axes.legend(loc="lower left")


@figures.figure(
    "more-masks",
    title="Final reward against the number of masks",
    caption="Tabular model (L = 4, V = 3), 8 random-order rollouts a batch, 60 steps, step 4; exact reward of the final policy, mean and 95 %"
    " interval over 30 seeds (C8).",
    size=(5.2, 3.6),
)
def more_masks(run):
    columns = {k: [] for k in ("masks", "reward", "half width")}
    for n in (1, 2, 4, 16):
        values = np.array([train(run.seed * 1000 + seed, n) for seed in range(30)])
        row = (n, values.mean(), 1.96 * values.std(ddof=1) / math.sqrt(30))
        for key, value in zip(columns, row):
            columns[key].append(value)
    return columns


@more_masks.draw
def _(table, figure):
    axes = figure.subplots()
    axes.bar([f"{n:g}" for n in table["masks"]], table["reward"], yerr=table["half width"], capsize=4)
    axes.set(xlabel="masks n_t", ylabel="expected reward", ylim=(0, 1))


DIRECTION = np.array([0.5, -0.3, 0.1])


@figures.figure(
    "bound",
    title="The ratio objective and its bound",
    caption="Along d = eps (.5, -.3, .1): tangent line for A = 1, Jensen for A = -1, both touching at 0. Right: the gap falls with the second power"
    " (C1, C4).",
    size=(9.0, 3.6),
)
def bound(run):
    columns = {k: [] for k in ("A", "eps", "ratio", "bound")}
    for a in (1.0, -1.0):
        for eps in np.concatenate([np.linspace(-3, 3, 61), np.logspace(-3, -0.5, 20)]):
            ratio, low = ratio_value(eps * DIRECTION, a)
            for key, value in zip(columns, (a, eps, ratio, low)):
                columns[key].append(value)
    return columns


@bound.draw
def _(table, figure):
    left, right = figure.subplots(1, 2)
    for colour, a in zip(("C0", "C1"), (1.0, -1.0)):
        rows = table.rows(A=a)
        order = np.argsort(rows["eps"])
        left.plot(rows["eps"][order], rows["ratio"][order], color=colour, label=f"ratio, A = {a:+g}")
        left.plot(rows["eps"][order], rows["bound"][order], "--", color=colour, label=f"bound, A = {a:+g}")
        small = (rows["eps"] > 0) & (rows["eps"] < 0.4)
        gap = (rows["ratio"] - rows["bound"])[small]
        right.loglog(rows["eps"][small], np.maximum(gap, 1e-16), ".-", color=colour, label=f"A = {a:+g}")
    eps = np.logspace(-3, -0.5, 20)
    right.loglog(eps, 0.05 * eps**2, ":", color="0.4", label="slope 2")
    left.set(xlabel="eps", ylabel="objective")
    right.set(xlabel="eps", ylabel="gap")
    left.legend(loc="center right")
    right.legend()
