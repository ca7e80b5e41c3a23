"""What a loss does to prompts, its noise, and where exact training of what it descends ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from klsim.audit.batches import AuditBatches
from klsim.audit.identify import ZERO, Combination
from klsim.audit.properties import unwarned
from klsim.audit.target import LossFunction
from klsim.audit.worlds import World, world
from klsim.distributions import log_normalize
from klsim.learning import PromptTree, TreeProblem, functional_gradient, functional_value
from klsim.learning.expected_gradient import enumerate_batches, one_batch
from klsim.learning.objective_checks import closed_forms, sequence_kl
from klsim.objectives.advantages import std_weight
from klsim.problems import TokenTree

__all__ = ["SUCCESSES", "end", "prompt_weights", "variance"]

SUCCESSES = (0.1, 0.5, 0.9)
"""Success probabilities of the prompts whose weights are measured."""
PROMPT_GROUP = 4


def prompt_weights(loss: LossFunction) -> tuple[tuple[float, ...], bool]:
    """Weights of ``grad p`` relative to a prompt with p = 1/2 in the same batch, groups of `PROMPT_GROUP`.

    One token, right with some probability; reference and teacher equal the policy, so KL gradients vanish. All 0, which
    is not shown, where nothing ascends the reward or the loss refuses responses of one token.
    """
    levels = [(np.log([[p, 1 - p]]),) for other in SUCCESSES for p in (other, 0.5)]
    prompts = [PromptTree(TokenTree(2, 1, [1.0, 0.0]), level, level, level) for level in levels]
    problem = TreeProblem(prompts, [k // 2 for k in range(len(prompts))])
    here = World("one token", AuditBatches(problem), tuple(enumerate_batches(problem, PROMPT_GROUP)), PROMPT_GROUP)
    zero = AuditBatches(problem.with_rewards(np.zeros(len(problem.reward))))
    nothing = replace(here, batches=zero)  # what does not depend on rewards, an entropy bonus say
    try:
        with unwarned():
            gradient = here.batches.logits(here.gradient(loss) - nothing.gradient(loss))
    except Exception:  # user code; what makes it fail everywhere is reported where it is evaluated at all
        return tuple(0.0 for _ in SUCCESSES), False
    reward = functional_gradient("reward", problem)
    weights = np.sum(gradient * reward, axis=1) / np.sum(reward**2, axis=1)
    if np.abs(weights[1::2]).min() < ZERO:
        return tuple(0.0 for _ in SUCCESSES), False
    relative = weights[::2] / weights[1::2]
    normalised = std_weight(np.array(SUCCESSES), PROMPT_GROUP) / std_weight(0.5, PROMPT_GROUP)
    # trainers add up to 1e-4 to the standard deviation
    return tuple(float(w) for w in relative), bool(np.abs(relative - normalised).max() < 2e-3)


def variance(loss: LossFunction, combination: Combination) -> float | None:
    """Noise of one batch against REINFORCE with the best constant baseline, both scaled to the same mean."""
    if not combination.exact or set(combination.coefficients) != {"reward"}:
        return None
    import torch

    every = world("equal lengths")
    problem = TreeProblem(every.problem.prompts[:1])
    made = AuditBatches(problem)
    scale = combination.coefficients["reward"]
    p, pi = np.exp(problem.log_prob("policy")), np.exp(problem.tables["policy"])
    scores = np.zeros((len(p), *pi.shape))
    for i, t in zip(*np.nonzero(problem.mask)):
        scores[i, problem.nodes[i, t]] -= pi[problem.nodes[i, t]]
        scores[i, problem.nodes[i, t], problem.tokens[i, t]] += 1
    squared = np.sum(scores**2, axis=(1, 2))
    baseline = float(p @ (squared * problem.reward) / (p @ squared))
    mean = float(np.sum(functional_gradient("reward", problem) ** 2))
    best = (float(p @ (squared * (problem.reward - baseline) ** 2)) - mean) / 2
    total = 0.0
    for rows, weight in enumerate_batches(problem, 2):
        total += weight * float(np.sum(made.logits(one_batch(loss, made, torch.tensor(rows))[0]) ** 2))
    return (total / scale**2 - mean) / best


def end(combination: Combination) -> dict[str, float]:
    """Exact natural ascent of what it descends on one tree, and how far the end is from the closed forms."""
    c = combination.coefficients
    size = max((abs(x) for x in c.values()), default=0.0)
    if size == 0 or not combination.exact or "value_loss" in c:
        return {}
    problem = TreeProblem(world("lengths").problem.prompts[:1])
    for _ in range(120):
        gradient = sum((x * functional_gradient(n, problem) for n, x in c.items()), np.zeros(1))
        weight = problem.visits("policy")[:, None] * np.exp(problem.tables["policy"])
        step = np.clip(0.3 / max(size, 1e-3) * gradient / np.maximum(weight, 1e-12), -2.0, 2.0)
        problem = problem.with_policy(log_normalize(problem.tables["policy"] - step))
    out = {"reward": float(problem.success()[0]), "reverse_kl": max(functional_value("reverse_kl", problem), 0.0)}
    kl = c.get("reverse_kl", 0.0) + c.get("reverse_kl(frozen)", 0.0) + c.get("forward_kl(frozen)", 0.0)
    if c.get("reward", 0.0) < 0 < kl:
        forms = closed_forms(problem, beta=-kl / c["reward"])
        out |= {name: max(sequence_kl(problem, forms[name]), 0.0) for name in ("sequence tilt", "token tilt")}
    elif kl > 0 or any("teacher" in name for name in c):
        forms = closed_forms(problem)
        out |= {name: max(sequence_kl(problem, forms[name]), 0.0) for name in ("reference", "teacher")}
    return out
