"""Figures of rl-plus: pass@k and entropy, weights by probability, updates to one half, variance by the floor, the SFT mix."""

from __future__ import annotations

import math

import numpy as np

from klsim.distributions import log_normalize, variance
from klsim.estimators import pass_at_k_exact
from klsim.multiple_importance import mis_weight
from klsim.report.drawings import Bars, Lines
from klsim.report.figures import Figures, over_seeds

from .setting import ARMS, WEIGHTS, Arm, World, external_weight, updates_to_half, with_floor

figures = Figures()
SEEDS = 12
SHOWN = ("GRPO", "RL-PLUS", "released code", "GRPO + SFT")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)))


def world_of(run):
    return World([run.rng("world", seed) for seed in range(SEEDS)])


def success(world, logits):
    """Probability of the right strategy, ``(seeds, prompts)``."""
    return np.take_along_axis(np.exp(log_normalize(logits)), world.right[..., None], axis=-1)[..., 0]


@figures.figure(
    "pass-at-k",
    title="Capability boundary collapse and its repair",
    caption="Forty prompts with shared parameters, 300 steps, exact pass@k, mean and 95 % interval of 12 seeds. GRPO is above the base up to about ten samples and below from there;"
    " one demonstration a group repairs it, unless it is weighed as in the released code; SFT mix: coefficient 1/8 (C7, C8).",
    draw=Lines("k", "pass", by="method", xlabel="samples k", ylabel="pass@k, mean over prompts", xscale="log", markers=False,
               styles=dict(zip(("base", *SHOWN), ({"linestyle": d} for d in DASHES)))),
)  # fmt: skip
def pass_curves(run):
    world, budgets = world_of(run), np.array([1, 2, 4, 8, 16, 32, 64, 128, 256])
    for name in ("base", *SHOWN):
        logits = world.start if name == "base" else world.train(ARMS[name])
        p = success(world, logits)
        curve = np.stack([pass_at_k_exact(p, int(k)).mean(axis=-1) for k in budgets], axis=1)
        yield {"method": name, "k": budgets, **over_seeds(**{"pass": curve})}


@figures.figure(
    "entropy",
    title="Entropy in training",
    caption="Entropy of the strategies, mean over prompts, 12 seeds with 95 % interval, the runs of the pass@k figure (C7).",
    draw=Lines("step", "entropy", by="method", xlabel="step", ylabel="entropy of a prompt's strategies, nats", markers=False,
               styles=dict(zip(SHOWN, ({"linestyle": d} for d in DASHES)))),
)  # fmt: skip
def entropy(run):
    world = world_of(run)
    for name in SHOWN:
        steps, found = [], []

        def watch(step, logits, steps=steps, found=found):
            if step % 10 == 0:
                steps.append(step)
                found.append(world.measures(logits)["entropy"])

        world.train(ARMS[name], watch=watch)
        yield {"method": name, "step": steps, **over_seeds(entropy=np.stack(found, axis=1))}


@figures.figure(
    "weights",
    title="Weight of an external token by its probability",
    caption="pi = pi_old = p, gamma = .5, V = 50,000. The text's weight is flat near 4/3 above 1/V, the released code's (U = 1) vanishes for rare tokens. Dashed: p = 3/V, from"
    " where on the text's ratio alone would start beyond a clip of 1.2 (C5).",
    draw=Lines("p", "weight", by="loss", xlabel="probability p of the token", ylabel="weight on A grad log pi", xscale="log", markers=False,
               marks={3 / 50_000: "3/V"}, styles={"released code, U = 1": {"linestyle": "--"}, "text without EAF": {"linestyle": ":"}}),
)  # fmt: skip
def weights(run):
    p = np.geomspace(1e-7, 1.0, 301)
    for name, uniform, gamma in (
        ("text, U = 1/V", 2e-5, 0.5),
        ("released code, U = 1", 1.0, 0.5),
        ("text without EAF", 2e-5, 0.0),
    ):
        yield {"loss": name, "p": p, "weight": external_weight(p, uniform, gamma)}


@figures.figure(
    "updates",
    title="Updates until a right token has probability one half",
    caption="One logit, steps of .2, V = 1000, pi_old = pi: weights that vanish with p need 1/p updates; the text's slows only below 1/V (C6). Last bars: the fewest refreshes of"
    " pi_old that a clip of 1.2 on pi/pi_old allows.",
    size=(8.0, 4.2),
    draw=Bars("start", "updates", by="weight", xlabel="probability at the start", ylabel="updates to p = 1/2", yscale="log"),
)  # fmt: skip
def updates(run):
    for name in WEIGHTS:
        for start in (0.3, 0.01, 1e-4):
            yield {"weight": [name], "start": [start], "updates": [updates_to_half(start, WEIGHTS[name])]}
    for start in (0.3, 0.01, 1e-4):
        yield {"weight": ["1.2 clip"], "start": [start], "updates": [math.ceil(math.log(0.5 / start) / math.log(1.2))]}


@figures.figure(
    "variance",
    title="Variance when the author hardly draws an action",
    caption="Median over 200 instances (ten actions) of the variance under omega of weight times advantage, by the probability of omega on one action. Importance sampling"
    " pi/omega; r^m with old near pi; r^m where old misses the action too (C2).",
    draw=Lines("floor", "variance", by="weight", xlabel="probability of the action under omega", ylabel="median variance", xscale="log", yscale="log"),
)  # fmt: skip
def variance_by_floor(run):
    rng, shape = run.rng("instances"), (200, 10)
    pi, far, omega = log_normalize(rng.standard_normal((3, *shape)))
    near, values = log_normalize(pi + 0.1 * rng.standard_normal(shape)), rng.standard_normal(shape)
    floors = 10.0 ** -np.arange(1, 6)
    authors = [with_floor(omega, floor) for floor in floors]
    ratios = {
        "pi/omega": [np.exp(pi - author) for author in authors],
        "r^m, old near pi": [mis_weight(pi, [near, author]) for author in authors],
        "r^m, both miss it": [
            mis_weight(pi, [with_floor(far, floor), author]) for floor, author in zip(floors, authors)
        ],
    }
    for name, found in ratios.items():
        medians = [np.median(variance(author, ratio * values)) for author, ratio in zip(authors, found)]
        yield {"weight": name, "floor": floors, "variance": medians}


@figures.figure(
    "sft-mix",
    title="An SFT loss on the same demonstrations, by its coefficient",
    caption="pass@1 after 300 steps, mean and 95 % interval of 12 seeds (paired): RL-PLUS is ahead at the nominal weight 1/8 and behind from 1/4 on (C8).",
    draw=Lines("coefficient", "pass@1", by="method", xlabel="coefficient of the SFT loss", ylabel="pass@1", xscale="log",
               styles={"RL-PLUS": {"linestyle": "--", "marker": ""}}),
)  # fmt: skip
def sft_mix(run):
    world, coefficients = world_of(run), [1 / 16, 1 / 8, 1 / 5, 1 / 4, 1 / 2, 1.0]
    ours = world.measures(world.train(ARMS["RL-PLUS"]))["@1"]
    mixes = np.stack([world.measures(world.train(Arm(sft=c)))["@1"] for c in coefficients], axis=1)
    yield {"method": "GRPO + SFT loss", "coefficient": coefficients, **over_seeds(**{"pass@1": mixes})}
    yield {
        "method": "RL-PLUS",
        "coefficient": coefficients,
        **over_seeds(**{"pass@1": np.repeat(ours[:, None], 6, axis=1)}),
    }
