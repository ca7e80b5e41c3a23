"""What claims and figures of rlad share: losses of a single token, and a chain of tokens trained by GRPO, KDRL and RLAD."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from klsim.distributions import log_normalize
from klsim.learning.softmax_step import population_gradient
from klsim.learning.teacher_ratio import surrogate_weight
from klsim.objectives import TokenBatch, trrd

OPEN = (math.inf, math.inf)


def token_values(log_pi, log_old, log_teacher, advantage, *, alpha, clip, clamp):
    """The surrogate of tokens, one a response, before it is averaged: `klsim.objectives.trrd`; elementwise."""
    given = np.broadcast_arrays(log_pi, log_old, log_teacher, advantage)
    pi, old, teacher, gain = (x.reshape(-1, 1) for x in given)
    batch = TokenBatch(pi, old_log_probs=old, teacher_log_probs=teacher, advantages=gain)
    loss = trrd(batch, alpha=alpha, clip=clip, clamp=clamp, aggregate=lambda values, mask: values[:, 0])[0]
    return -loss.reshape(given[0].shape)


def expected_trrd(logits, log_old, log_teacher, advantage, **options):
    """``sum_a old(a) min(r A, clip(r) A)`` of policies given by their logits, ``(..., A)``."""
    return token_values(log_normalize(logits), log_old, log_teacher, advantage, **options) @ np.exp(log_old)


def gradient(value, x, h=1e-5):
    """Central differences of a function of ``(..., A)``: truncation h², rounding eps / h, 1e-10 of the value's scale."""
    steps = h * np.eye(x.size)
    return (value(x + steps) - value(x - steps)) / (2 * h)


def ascent(log_old, log_teacher, advantage, *, alpha, clip=OPEN, clamp=math.inf):
    """Exact gradient of the expected surrogate in the logits at ``pi = old``."""
    weight = surrogate_weight(log_old, log_old, log_teacher, advantage, alpha=alpha, clip=clip, clamp=clamp)
    return population_gradient(log_old, weight)


def unit(x):
    """The direction; 0 where there is none (every gate shut)."""
    size = np.linalg.norm(x)
    return x / size if size > 0 else 0.0 * x


def cosine(a, b):
    return float(unit(a) @ unit(b))


class Pair(NamedTuple):
    """Old policy and teacher over eight arms, and rewards; log-softmax of N(0, 1), N(0, 1)."""

    old: np.ndarray
    teacher: np.ndarray
    reward: np.ndarray

    @classmethod
    def draw(cls, rng):
        return cls(*log_normalize(rng.standard_normal((2, 8))), rng.standard_normal(8))

    @property
    def centred(self):
        """Rewards minus their mean under the old policy."""
        return self.reward - np.exp(self.old) @ self.reward

    @property
    def standardised(self):
        return self.centred / np.sqrt(np.exp(self.old) @ self.centred**2)


# the chain --------------------------------------------------------------------------------------------
POSITIONS, TOKENS, GROUPS, SIZE, ITERATIONS, EPOCHS = 10, 5, 4, 8, 80, 4
CLIP = (0.2, 0.28)


class Arm(NamedTuple):
    """A method: GRPO is ``alpha = 1``; KDRL adds ``beta log(T/pi)`` to it, outside the clip."""

    alpha: float = 1.0
    beta: float = 0.0
    clamp: float = 1.0


GRPO = Arm()
ARMS = {"GRPO": GRPO, "KDRL .1": Arm(beta=0.1), "KDRL .3": Arm(beta=0.3)} | {
    f"RLAD {name}": Arm(alpha=a) for name, a in ((".5", 0.5), (".7", 0.7), (".9", 0.9))
}


class Chain:
    """Ten positions of five tokens, one table of logits; token 0 is right everywhere, and a response only if all are.

    The teacher gives the right token .9, except at ``bad`` random positions: there .05, and .6 to one wrong token.
    The verifier passes a wrong response with probability ``noise``. Worlds and draws of a seed are the same for every arm.
    """

    def __init__(self, rngs, *, noise=0.0, bad=0):
        start = np.log(np.array([0.6] + [0.1] * 4))
        good, misled = np.array([0.9] + [0.025] * 4), np.array([0.05, 0.6] + [0.35 / 3] * 3)
        self.start = np.stack([start + 0.2 * rng.standard_normal((POSITIONS, TOKENS)) for rng in rngs])
        self.bad = np.stack([rng.permutation(POSITIONS) < bad for rng in rngs])
        self.teacher = np.log(np.where(self.bad[..., None], misled, good))
        self.draws = np.stack([rng.random((ITERATIONS, GROUPS * SIZE, POSITIONS)) for rng in rngs])
        self.lucky = np.stack([rng.random((ITERATIONS, GROUPS * SIZE)) for rng in rngs]) < noise

    def train(self, arm, *, epochs=EPOCHS, lr=1.0):
        """Exact success before every iteration and at the end, ``(81, seeds)``, and the policy there, ``(seeds, H, 5)``."""
        logits, success = self.start.copy(), []
        for step in range(ITERATIONS):
            log_pi = log_normalize(logits)
            success.append(np.exp(log_pi[..., 0].sum(axis=-1)))
            # the token is the first whose cumulated probability is above the draw
            reached = self.draws[:, step, ..., None] < np.cumsum(np.exp(log_pi), axis=-1)[:, None, :, :-1]
            right = np.all(reached[..., 0], axis=-1) | self.lucky[:, step]
            reward = right.reshape(-1, GROUPS, SIZE).astype(float)
            centred = reward - reward.mean(axis=-1, keepdims=True)
            advantage = (centred / (reward.std(axis=-1, keepdims=True) + 1e-6)).reshape(-1, GROUPS * SIZE)
            logits = self._update(logits, reached, advantage, arm, epochs, lr)
        success.append(np.exp(log_normalize(logits)[..., 0].sum(axis=-1)))
        return np.array(success), np.exp(log_normalize(logits))

    def _update(self, logits, reached, advantage, arm, epochs, lr):
        """Full-batch steps on the same responses: mean over responses of the sum over tokens.

        A gate depends on the token and the sign of its advantage: advantages are summed by both first, and tokens counted.
        """
        kinds = np.stack([np.maximum(advantage, 0), np.maximum(-advantage, 0), np.ones_like(advantage)], axis=1)
        sums = (kinds @ reached.reshape(len(logits), GROUPS * SIZE, -1).astype(float)).reshape(
            -1, 3, POSITIONS, TOKENS - 1
        )
        whole = np.broadcast_to(kinds.sum(axis=-1)[..., None, None], (*sums.shape[:-1], 1))
        gains, losses, count = np.moveaxis(np.diff(sums, axis=-1, prepend=0.0, append=whole), 1, 0)
        total, signs = np.stack([gains, losses]), np.array([1.0, -1.0])[:, None, None, None]
        old = log_normalize(logits)
        for _ in range(epochs):
            log_pi = log_normalize(logits)
            weight = surrogate_weight(log_pi, old, self.teacher, signs, alpha=arm.alpha, clip=CLIP, clamp=arm.clamp)
            force = np.sum(weight * total, axis=0) + arm.beta * (self.teacher - log_pi) * count
            force = force - np.exp(log_pi) * force.sum(axis=-1, keepdims=True)
            logits = logits + lr / (GROUPS * SIZE) * force
        return logits
