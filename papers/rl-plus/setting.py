"""What claims and figures of rl-plus share: weights of external tokens, a logit's race to one half, and prompts that share parameters."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import logit

from klsim.distributions import log_normalize
from klsim.estimators import pass_at_k_exact
from klsim.objectives import TokenBatch, rl_plus

GAMMA = 0.5


def external_weight(p, uniform, gamma=GAMMA):
    """``4p/(3p + U) (1-p)^gamma``: what multiplies ``A grad log pi`` of an external token at ``pi = pi_old = p``."""
    return 4 * p / (3 * p + uniform) * (1 - p) ** gamma


def released_slope(p, vocab, *, uniform="1/V", h=1e-6):
    """The same from `klsim.objectives.rl_plus`, by central differences in ``log pi`` (one external token, A = 1),
    with the exponent that it has by default.

    The focal factor is a constant of the gradient: it is divided out at the moved points and put back.
    """
    at = np.log(np.atleast_1d(p))[:, None]

    def value(move):
        batch = TokenBatch(
            at + move, old_log_probs=at, advantages=np.ones_like(at), external=np.ones(len(at), dtype=bool)
        )
        loss = rl_plus(batch, vocab_size=vocab, uniform=uniform, gamma=0.0, aggregate=lambda v, mask: v[:, 0])[0]
        return -loss

    still = TokenBatch(at, advantages=np.ones_like(at), external=np.ones(len(at), dtype=bool))
    focal = [
        rl_plus(still, vocab_size=vocab, uniform=uniform, aggregate=lambda v, mask: v[:, 0], **exponent)[0]
        for exponent in ({}, {"gamma": 0.0})
    ]
    return (value(h) - value(-h)) / (2 * h) * (focal[0] / focal[1])


def updates_to_half(start, weight, lr=0.2):
    """Updates ``z += lr w(p) (1-p)`` of one logit, A = 1 and ``pi_old = pi``, until p >= 1/2."""
    z, count = float(logit(start)), 0
    while z < 0:
        p = 1 / (1 + math.exp(-z))
        z, count = z + lr * weight(p) * (1 - p), count + 1
    return count


WEIGHTS = {
    "text": lambda p: external_weight(p, 1e-3, 0.0),
    "text, EAF": lambda p: external_weight(p, 1e-3),
    "code": lambda p: external_weight(p, 1.0, 0.0),
    "code, EAF": lambda p: external_weight(p, 1.0),
    "pi": lambda p: p,
    "SFT": lambda p: 1.0,
}
"""Weights by p; the text's with V = 1000."""


class Triple(NamedTuple):
    """``pi`` near ``old``, an external policy, advantages; twelve actions, all standard normal."""

    pi: np.ndarray
    old: np.ndarray
    omega: np.ndarray
    advantage: np.ndarray

    @classmethod
    def draw(cls, rng, count=None, *, apart=0.2):
        shape = (12,) if count is None else (count, 12)
        old, omega = log_normalize(rng.standard_normal((2, *shape)))
        pi = log_normalize((old if apart < 1 else 0.0) + apart * rng.standard_normal(shape))
        return cls(pi, old, omega, rng.standard_normal(shape))


def with_floor(log_p, floor):
    """One action (the last) set to probability ``floor``, the others rescaled."""
    rest = log_normalize(log_p[..., :-1]) + math.log1p(-floor)
    return np.concatenate([rest, np.full((*rest.shape[:-1], 1), math.log(floor))], axis=-1)


# prompts that share parameters -------------------------------------------------------------------------
PROMPTS, STRATEGIES, EASY, GROUP, STEPS = 40, 24, 24, 8, 300
BUDGETS = (1, 8, 64, 256)


class Arm(NamedTuple):
    """``weight``: of a demonstration in the group, a function of its probability; None: GRPO. ``sft``: coefficient of ``log pi(demo)`` instead."""

    weight: object = None
    sft: float = 0.0
    wrong: bool = False


ARMS = {
    "GRPO": Arm(),
    "RL-PLUS": Arm(lambda p: external_weight(p, 1 / STRATEGIES)),
    "without EAF": Arm(lambda p: external_weight(p, 1 / STRATEGIES, 0.0)),
    "released code": Arm(lambda p: external_weight(p, 1.0)),
    "weight 1": Arm(lambda p: np.ones_like(p)),
    "GRPO + SFT": Arm(sft=1 / 8),
    "wrong demonstrations": Arm(lambda p: external_weight(p, 1 / STRATEGIES), wrong=True),
}


class World:
    """Forty prompts with logits ``b + W x``: two common strategies are right for 24 easy prompts, one of twenty rare ones for 16.

    Steps of .5 on b and 2 on W, averaged over prompts, move the logits by ``K g`` with ``K = (.5 + 2 x x')/40``.
    Worlds and draws of a seed are the same for every arm. ``shared=False``: one-hot prompts, b frozen, step 2 a prompt: ``K = 2``.
    """

    def __init__(self, rngs, *, shared=True):
        start, kernels, right, other, draws = [], [], [], [], []
        bias = np.repeat([1.0, 0.0, -1.0], [2, 2, STRATEGIES - 4])
        for rng in rngs:
            x = rng.standard_normal((PROMPTS, PROMPTS)) / math.sqrt(PROMPTS)
            start.append(bias + x @ (0.5 * rng.standard_normal((PROMPTS, STRATEGIES))))
            kernels.append((0.5 + 2 * x @ x.T) / PROMPTS if shared else 2 * np.eye(PROMPTS))
            answer = np.append(rng.integers(2, size=EASY), rng.integers(4, STRATEGIES, size=PROMPTS - EASY))
            right.append(answer)
            draws.append(rng.random((STEPS, PROMPTS, GROUP)))
            other.append((answer + rng.integers(1, STRATEGIES, size=PROMPTS)) % STRATEGIES)
        self.start, self.kernel = np.stack(start), np.stack(kernels)
        self.right, self.other, self.draws = np.stack(right), np.stack(other), np.stack(draws)

    def measures(self, logits):
        """``{measure: (seeds,)}``: exact pass@k, of hard prompts at 64, entropy in nats."""
        log_pi = log_normalize(logits)
        p = np.take_along_axis(np.exp(log_pi), self.right[..., None], axis=-1)[..., 0]
        found = {f"@{k}": pass_at_k_exact(p, k).mean(axis=-1) for k in BUDGETS}
        entropy = -np.sum(np.exp(log_pi) * log_pi, axis=-1).mean(axis=-1)
        return found | {"hard @64": pass_at_k_exact(p[:, EASY:], 64).mean(axis=-1), "entropy": entropy}

    def train(self, arm, *, watch=None):
        """Logits after 300 steps; ``watch(step, logits)`` is called before each and at the end."""
        logits = self.start.copy()
        answer = np.arange(STRATEGIES) == self.right[..., None]
        demo = np.arange(STRATEGIES) == (self.other if arm.wrong else self.right)[..., None]
        own = GROUP if arm.weight is None and not arm.sft else GROUP - 1
        for step in range(STEPS):
            if watch:
                watch(step, logits)
            p = np.exp(log_normalize(logits))
            below = self.draws[:, step, :, :own, None] < np.cumsum(p, axis=-1)[:, :, None, :-1]
            counts = np.diff(below.sum(axis=2), axis=-1, prepend=0, append=own)
            wins = np.sum(counts * answer, axis=-1, keepdims=True).astype(float)
            size = own
            if arm.weight is not None:  # a demonstration of reward 1 in the group
                wins, size = wins + 1, own + 1
            mean = wins / size
            scale = np.sqrt(mean * (1 - mean)) + 1e-6
            pull = counts * (answer - mean) / scale
            chance = np.sum(p * demo, axis=-1, keepdims=True)
            if arm.weight is not None:
                pull = pull + demo * (1 - mean) / scale * arm.weight(chance)
            gradient = (pull - p * pull.sum(axis=-1, keepdims=True)) / GROUP + arm.sft * (demo - p)
            logits = logits + self.kernel @ gradient
        if watch:
            watch(STEPS, logits)
        return logits
