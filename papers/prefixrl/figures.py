"""Figures of prefixrl: values along traces, training in the world with a rule, gradient signal, and the lock."""

from __future__ import annotations

import numpy as np

from klsim.distributions import sample
from klsim.learning.prefix_worlds import lock_samples
from klsim.planning.prefixes import accepted_policy, gradient_moments, prefix_node, prefix_values
from klsim.problems.token_tree import sequence_log_probs, tokens
from klsim.report.drawings import Lines, Many
from klsim.report.figures import Figures, over_seeds

from .setting import PROMPTS, STEPS, cuts, draw_world, random_tree

figures = Figures()
HORIZON, VOCAB, RIGHT = 8, 3, 3


def hard_tree(rng):
    """A tree of depth 8 over 3 tokens with 3 right leaves: ``(levels, right)``."""
    right = np.zeros(VOCAB**HORIZON, dtype=bool)
    right[rng.choice(right.size, RIGHT, replace=False)] = True
    return random_tree(rng, VOCAB, HORIZON), right


def along(values, leaves):
    """``V`` of the prefixes of some leaves, ``(leaves, H + 1)``."""
    return np.stack([values[h][leaves // VOCAB ** (HORIZON - h)] for h in range(HORIZON + 1)], axis=1)


@figures.figure(
    "success-by-prefix",
    title="Success probability against the length of the prefix",
    caption="Trees of 8 tokens over a vocabulary of 3 with 3 right sequences. Left: the base policy's success after the first h tokens of one accepted"
    " trace, on each of 5 trees (the paper's Fig. 3, on problems of language models). Right: on the first tree, the mean over 1000 accepted traces of V and"
    " of the expected attempts 1/V, which is exactly the reciprocal of the first value times the chance that a token leaves V > 0 (C7).",
    size=(9.5, 4.0),
    draw=Many("panel", {
        "trees": Lines("h", "value", by="curve", xlabel="tokens of the prefix, h", ylabel="success probability V", yscale="log"),
        "means": Lines("h", "value", by="curve", xlabel="tokens of the prefix, h", ylabel="mean over accepted traces", yscale="log"),
    }, titles={"trees": "one trace on each of 5 trees", "means": "1000 accepted traces of tree 1"}),
)  # fmt: skip
def success_by_prefix(run):
    for number in range(5):
        rng = run.rng("tree", number)
        levels, right = hard_tree(rng)
        values = prefix_values(levels, right.astype(float))
        leaves = sample(sequence_log_probs(accepted_policy(levels, right)), 1000, rng)
        found = along(values, leaves)
        yield {"panel": "trees", "curve": f"tree {number + 1}", "h": np.arange(HORIZON + 1), "value": found[0]}
        if number == 0:
            for curve, value in (("success V", found), ("attempts 1/V", 1 / found)):
                yield {"panel": "means", "curve": curve, "h": np.arange(HORIZON + 1), "value": value.mean(axis=0)}


RUNS = {"RL, n = 8": (False, 8), "RL, n = 64": (False, 64), "PrefixRL, n = 8": (True, 8)}
MARKS = np.unique(np.round(np.geomspace(64, 300_000, 40) / 64)).astype(int) * 64  # rollouts


def curve_of(world, prefixes, group, rng):
    """Success without prefixes after each number of rollouts in `MARKS`."""
    logits, done, out = world.zeros(), 0, []
    for mark in MARKS:
        logits, _ = world.train(logits, cuts(prefixes), steps=(mark - done) // group, group=group, rng=rng)
        done = mark
        out.append(world.success(logits).mean())
    return out


@figures.figure(
    "training-against-compute",
    title="Success without prefixes against rollouts",
    caption="The world of C6 (24 prompts, 8 steps, shared rule), lr .5, 8 worlds, mean and 95 % interval. Left: rollouts of the updates only, traces"
    " already paid. Right: with 4^8 expected attempts for each of the 24 traces added to PrefixRL: standard RL is then ahead, since here it does not"
    " stall; the world shows the mechanism, not an advantage in total compute (C6-budget). SFT+RL is left out: in this world imitation"
    " shows every right token. The paper's end values (language models, quoted): 15, 35, 40, 65 % for RL n = 8, n = 64, SFT+RL, PrefixRL on Llama.",
    size=(9.5, 4.0),
)
def training_against_compute(run):
    for method, (prefixes, group) in RUNS.items():
        curves = []
        for seed in range(8):
            rng = run.rng("world", seed)
            curves.append(curve_of(draw_world(rng), prefixes, group, rng))
        for counted, extra in (("update rollouts", 0), ("traces included", PROMPTS * 4**STEPS if prefixes else 0)):
            yield {"counted": counted, "method": method, "rollouts": MARKS + extra, **over_seeds(success=curves)}


@training_against_compute.draw
def _(table, figure):
    """The success is at most 1, its Student-t intervals are cut there."""
    Lines(
        "rollouts",
        "success",
        by="method",
        panels="counted",
        xscale="log",
        xlabel="rollouts",
        ylabel="success without prefixes",
    )(table, figure)
    figure.axes[0].set_ylim(-0.02, 1.03)


@figures.figure(
    "gradient-signal",
    title="Norm of the expected gradient and standard deviation of one sample",
    caption="At the base policy, by enumeration, on 12 trees of 8 tokens over 3 with 3 right sequences: median and each tree, after 0, 3, 5, 6 tokens of an"
    " accepted trace, baseline V(s); 'off-policy' is one accepted trace, weighted by p (unbiased). Weight 1 (imitation) multiplies norm and"
    " deviation by 1/p, their ratio is the same. Trees differ by a decade (the paper's Fig. 12, on language models).",
    size=(9.0, 4.2),
)
def gradient_signal(run):
    rows = {name: [] for name in ("standard, h = 0", "prefix, h = 3", "prefix, h = 5", "prefix, h = 6", "off-policy")}
    for number in range(12):
        rng = run.rng("tree", number)
        levels, right = hard_tree(rng)
        reward = right.astype(float)
        trace = tokens(VOCAB, HORIZON)[sample(sequence_log_probs(accepted_policy(levels, right)), 1, rng)[0]]
        moments = gradient_moments(levels, reward)
        for name, h in zip(rows, (0, 3, 5, 6)):
            node = prefix_node([int(t) for t in trace[:h]], VOCAB)
            mean, second = moments.squared_mean[h][node], moments.second[h][node]
            rows[name].append((np.sqrt(mean), np.sqrt(second - mean)))
        success = prefix_values(levels, reward)[0][0]
        plain = gradient_moments(levels, reward, baseline=False)
        mean = plain.squared_mean[0][0]
        rows["off-policy"].append((np.sqrt(mean), np.sqrt(success * plain.second[0][0] - mean)))
    for name, found in rows.items():
        for quantity, values in zip(("norm of the mean", "standard deviation"), np.transpose(found)):
            yield {"method": name, "quantity": quantity, "tree": np.arange(12), "value": values}


@gradient_signal.draw
def _(table, figure):
    axes = figure.subplots()
    methods = table.distinct("method")
    for number, quantity in enumerate(table.distinct("quantity")):
        shift = 0.3 * number - 0.15
        rows = table.rows(quantity=quantity)
        groups = [rows.rows(method=m)["value"] for m in methods]
        colour = ("#0072B2", "#D55E00")[number]
        places = np.arange(len(methods)) + shift
        axes.plot(
            places,
            [np.median(g) for g in groups],
            "os"[number],
            color=colour,
            markersize=9,
            label=f"{quantity}, median",
        )
        for place, values in zip(places, groups):
            axes.plot(np.full(len(values), place), values, "_", color=colour, alpha=0.6, markersize=10)
    axes.set(yscale="log", ylabel="gradient in logits, absolute", xlabel="start of the completion")
    axes.set_xticks(range(len(methods)), methods)
    axes.legend(loc="lower center")


@figures.figure(
    "separation",
    title="Samples until a lock of H tokens opens with probability .9",
    caption="Tabular REINFORCE, groups of 8, lr 1; dots: 8 runs each, lines: mean of 64 runs. Guides: 2^H, and 19 H^1.5 for the lengths drawn (the exponent rises towards 2, C5). From the root the first success takes"
    " 2^H completions; from correct prefixes of uniform length the growth is polynomial (C5).",
    size=(7.0, 4.6),
)  # fmt: skip
def separation(run):
    for method, resets, sizes in (
        ("correct prefixes", True, (4, 6, 8, 10, 12, 14, 20, 28, 40)),
        ("no prefixes", False, (4, 6, 8, 10, 12, 14)),
    ):
        for h in sizes:
            samples = [lock_samples(h, resets=resets, rng=run.rng(method, h, seed)) for seed in range(64)]
            yield {"method": method, "kind": "run", "H": np.full(8, h), "samples": samples[:8]}
            yield {"method": method, "kind": "mean", "H": [h], "samples": [np.mean(samples)]}


@separation.draw
def _(table, figure):
    axes = figure.subplots()
    for method, colour, marker in zip(table.distinct("method"), ("#0072B2", "#D55E00"), "os"):
        runs, means = (table.rows(method=method, kind=kind) for kind in ("run", "mean"))
        axes.plot(runs["H"], runs["samples"], ".", color=colour, alpha=0.4)
        axes.plot(means["H"], means["samples"], marker + "-", color=colour, label=method)
    h = np.array([4.0, 14.0])
    axes.plot(h, 2**h, "--", color="0.3", label="2^H")
    h = np.geomspace(4, 40, 50)
    axes.plot(h, 19 * h**1.5, ":", color="0.3", label="19 H^1.5")
    axes.set(xscale="log", yscale="log", xlabel="length H, tokens", ylabel="completions until success .9")
    axes.set_xticks([4, 6, 8, 10, 14, 20, 28, 40], ["4", "6", "8", "10", "14", "20", "28", "40"], minor=False)
    axes.minorticks_off()
    axes.legend()
