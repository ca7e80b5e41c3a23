"""Figures of rapo: who finds rare answers, what leaves the support, and what tempering flattens."""

from __future__ import annotations

import numpy as np

from klsim.distributions import entropy, log_normalize
from klsim.estimators import pass_at_k_exact
from klsim.forward_kl import escape_mass, forward_kl_with_entropy, reweighted
from klsim.objectives.kl import temper
from klsim.optima import kl_regularized
from klsim.problems.token_tree import sequence_log_probs
from klsim.report.drawings import Lines, Many
from klsim.report.figures import Figures, over_seeds

from .setting import ENTROPY_ONLY, FORWARD, LATE, NO_KL, RAPO, REVERSE, REVERSE_FLAT, World, log, train

figures = Figures()
ARMS = {
    "no KL": NO_KL,
    "reverse KL": REVERSE,
    "forward KL": FORWARD,
    "RAPO": RAPO,
    "reverse KL to RAPO's reference": REVERSE_FLAT,
    "entropy bonus .3, no KL": ENTROPY_ONLY,
}


@figures.figure(
    "pass-at-k",
    title="Pass@k on hard prompts: the flat targets find rare answers, in either direction of the KL",
    caption="24 prompts whose correct answer has reference mass 10^U(-5, -3), 64 answers, groups of 8, 300 steps; exact pass@k, mean over"
    " prompts and 10 seeds, band: 95 % interval. Without a flatter target the direction of the KL does not matter; with one it"
    " matters at small k only (C7).",
    size=(8.0, 4.6),
    draw=Lines("k", "pass", by="run", xscale="log", xlabel="samples k", ylabel="pass@k on hard prompts",
               styles={"base": {"color": "0.3", "linestyle": "--"}, "forward KL": {"linestyle": ":"}}),
)  # fmt: skip
def pass_at_k(run):
    world, ks = World.draw([run.rng("world", seed) for seed in range(10)]), 2.0 ** np.arange(11)
    laws = {"base": world.log_ref} | {name: train(world, arm) for name, arm in ARMS.items()}
    for name, law in laws.items():
        success = np.minimum(np.exp(law[:, LATE, 0]), 1.0)
        rates = pass_at_k_exact(success[..., None], ks).mean(axis=1)
        yield {"run": name, "k": ks, **over_seeds(**{"pass": rates})}


HAT, BETTER, WORSE = log([0.6, 0.4, 0.0]), np.array([0.2, 0.5, 1.0]), np.array([0.5, 0.2, 0.0])


@figures.figure(
    "mass-outside",
    title="Mass of the optimum outside the support of the reference",
    caption="Reference (.6, .4, 0). Left, no entropy: with r = (.2, .5, 1) the forward KL lets 1 - 1.55 a out, nothing from a = .645 on; the"
    " reverse KL never does (C2). Right, a = .3: with the entropy bonus b even an unrewarded response, r = (.5, .2, 0), gets mass (C3).",
    size=(9.0, 3.8),
    draw=Many("panel", {
        "a": Lines("coefficient", "mass", by="curve", xlabel="KL coefficient a", ylabel="mass outside the support", markers=False,
                   styles={"reverse KL": {"linestyle": "--"}}),
        "b": Lines("coefficient", "mass", by="curve", xscale="log", xlabel="entropy coefficient b", markers=False,
                   ylabel="mass outside the support", styles={"unrewarded outside": {"linestyle": "--"}}),
    }, titles={"a": "b = 0", "b": "a = .3"}),
)  # fmt: skip
def mass_outside(run):
    a, b = np.linspace(0.01, 1.0, 100), np.logspace(-3, 0, 61)
    yield {"panel": "a", "curve": "forward KL", "coefficient": a, "mass": escape_mass(HAT, BETTER, a)}
    reverse = np.exp(kl_regularized(HAT, BETTER, a).log_policy[:, -1])
    yield {"panel": "a", "curve": "reverse KL", "coefficient": a, "mass": reverse}
    for name, reward in (("best response outside", BETTER), ("unrewarded outside", WORSE)):
        mass = np.exp(forward_kl_with_entropy(HAT, reward, 0.3, b).log_policy[:, -1])
        yield {"panel": "b", "curve": name, "coefficient": b, "mass": mass}


@figures.figure(
    "coefficient-and-rarity",
    title="The coefficient at which the optimum is right half of the time",
    caption="Two classes, the correct one of mass eps in the reference. The reverse-KL coefficient vanishes like 1/log(1/eps), the forward-KL"
    " coefficient tends to 1/2 (C6).",
    draw=Lines("eps", "coefficient", by="KL", xscale="log", xlabel="reference mass eps of correct answers", markers=False,
               ylabel="coefficient for success 1/2", styles={"reverse": {"linestyle": "--"}}),
)  # fmt: skip
def coefficient_and_rarity(run):
    eps = np.logspace(-10, np.log10(0.3), 60)
    yield {"KL": "forward", "eps": eps, "coefficient": 1 / (2 * (1 - 2 * eps))}
    yield {"KL": "reverse", "eps": eps, "coefficient": 1 / np.log((1 - eps) / eps)}


@figures.figure(
    "four-optima",
    title="Four optima for one reference and one reward",
    caption="81 points; the reference (grey, filled) is 0 right of 1.5, the best reward lies there; reward scaled to the panel (dotted). Coefficient"
    " .3: the reverse KL stays inside, the forward KL puts all that escapes on one point, an entropy bonus b = .05 spreads it, and the"
    " flatter reference of RAPO (phi = .3) also covers what the reference hardly samples (C2, C3, C5).",
    size=(9.5, 5.6),
)
def four_optima(run):
    x = np.linspace(-4, 4, 81)
    log_ref = log_normalize(np.where(x > 1.5 + 1e-9, -np.inf, -((x + 1) ** 2) / 0.72))
    reward = np.exp(-((x - 2.5) ** 2) / 0.18) + 0.5 * np.exp(-((x + 1.5) ** 2) / 0.18)
    laws = {
        "reverse KL": kl_regularized(log_ref, reward, 0.3).log_policy,
        "forward KL": forward_kl_with_entropy(log_ref, reward, 0.3).log_policy,
        "forward KL + entropy": forward_kl_with_entropy(log_ref, reward, 0.3, 0.05).log_policy,
        "RAPO": forward_kl_with_entropy(reweighted(log_ref, 0.3), reward, 0.3, 0.05).log_policy,
    }
    for name, law in laws.items():
        yield {"optimum": name, "x": x, "probability": np.exp(law), "reference": np.exp(log_ref), "reward": reward}


@four_optima.draw
def _(table, figure):
    panels = figure.subplots(2, 2, sharex=True)
    for axes, name in zip(panels.ravel(), table.distinct("optimum")):
        rows = table.rows(optimum=name)
        top = max(rows["probability"].max(), rows["reference"].max())
        axes.fill_between(rows["x"], rows["reference"], color="0.8", label="reference")
        axes.plot(rows["x"], rows["reward"] * top, ":", color="0.4", label="reward (scaled)")
        axes.plot(rows["x"], rows["probability"], label="optimum")
        axes.set_title(f"{name}: {rows['probability'][rows['x'] > 1.5 + 1e-9].sum():.3f} outside")
    panels[0, 0].legend()
    for axes in panels[:, 0]:
        axes.set_ylabel("probability of a point")
    for axes in panels[1]:
        axes.set_xlabel("response x")


@figures.figure(
    "entropy-of-tempering",
    title="Tempering whole responses raises their entropy; tempering tokens need not",
    caption="Left: escort of the 24 hard references of C7, mean over prompts and 10 seeds with 95 % interval. Right: first token (.9, .1), the likely"
    " one followed by one of 100 equally likely endings, the other by a single one; tempered token by token it loses entropy (C5-token).",
    size=(9.0, 3.8),
    draw=Many("panel", {
        "escort": Lines("phi", "entropy", xlabel="exponent phi", ylabel="entropy, nats", markers=False),
        "tree": Lines("phi", "entropy", by="tempered", xlabel="exponent phi", ylabel="entropy of responses, nats", markers=False,
                      styles={"token by token": {"linestyle": "--"}}),
    }, titles={"escort": "hard prompts", "tree": "likely branch with many endings"}),
)  # fmt: skip
def entropy_of_tempering(run):
    phi, world = np.linspace(0, 1, 41), World.draw([run.rng("world", seed) for seed in range(10)])
    curves = entropy(temper(world.log_ref[:, LATE, None], phi)).mean(axis=1)
    yield {"panel": "escort", "phi": phi, "tempered": "whole responses", **over_seeds(entropy=curves)}
    first, second = np.zeros((1, 100)), np.zeros((100, 100))
    first[0, :2], second[0], second[1:, 0] = (0.9, 0.1), 0.01, 1.0
    tree = (log(first), log(second))
    whole = [float(entropy(reweighted(sequence_log_probs(tree), p))) for p in phi]
    tokens = [float(entropy(sequence_log_probs([temper(level, p) for level in tree]))) for p in phi]
    for name, values in (("whole responses", whole), ("token by token", tokens)):
        yield {
            "panel": "tree",
            "phi": phi,
            "tempered": name,
            "entropy": values,
            "entropy low": values,
            "entropy high": values,
        }
