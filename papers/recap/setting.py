"""What the claims and figures of recap are measured on: statistics written out, groups of answers, histories, the shared world."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from klsim.learning.replay import Mixture, train_mixtures
from klsim.objectives import TokenBatch, grpo
from klsim.objectives.aggregate import sequence_mean, token_mean
from klsim.problems import PromptBandit

WINDOW, STEPS, LR = 10, 400, 0.6


def written_out(history, window, *, floor=0.0, swap=False, sample=False, alone=False):
    """``(c, i)`` of one objective's history, by the definitions: exact sums, two passes.

    ``swap``: the windows exchanged; ``sample``: deviation with W - 1; ``alone``: over the mean of the newest only.
    """
    old, new = (list(map(float, part)) for part in (history[-2 * window : -window], history[-window:]))
    old, new = (new, old) if swap else (old, new)
    before, after = (max(math.fsum(part) / window, floor) if floor else math.fsum(part) / window for part in (old, new))
    mean = math.fsum(new) / window
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in new) / (window - sample))
    return after / before, deviation / (after if alone else before + after)


# C5: a group of answers ------------------------------------------------------------------------------
class Group(NamedTuple):
    """Answers to one prompt: rewards and lengths."""

    rewards: np.ndarray
    lengths: np.ndarray

    @classmethod
    def draw(cls, rng):
        """2 to 8 answers of 1 to 12 tokens, 0/1 or real rewards that do not all agree."""
        n = int(rng.integers(2, 9))
        rewards = (rng.random(n) < 0.5).astype(float) if rng.random() < 0.5 else rng.standard_normal(n)
        rewards[0] = rewards[1] + 1.0
        return cls(rewards, rng.integers(1, 13, n))

    def batch(self, advantages=None, drift=0.0):
        """On-policy responses; their log-probabilities do not matter. With ``drift`` the old policy's are that much higher at first tokens."""
        log_probs = np.full((self.lengths.size, int(self.lengths.max())), -0.5)
        old = log_probs.copy()
        old[:, 0] += drift * np.arange(self.lengths.size)
        mask = np.arange(log_probs.shape[1]) < self.lengths[:, None]
        return TokenBatch(log_probs, mask=mask, old_log_probs=old, rewards=self.rewards, advantages=advantages)


class Progress(NamedTuple):
    """Eight steps of three objectives, a group of eight answers each: rewards and lengths ``(3, 8, 8)``."""

    rewards: np.ndarray
    lengths: np.ndarray

    @classmethod
    def draw(cls, rng):
        """Success rates that rise, rest and fall; every group has a right and a wrong answer."""
        rate = 0.5 + np.array([1, 0, -1])[:, None] * (0.05 * np.arange(8) - 0.2)
        rewards = (rng.random((3, 8, 8)) < rate[..., None]).astype(float)
        rewards[..., 0], rewards[..., 1] = 1.0, 0.0
        return cls(rewards, rng.integers(1, 13, (3, 8, 8)))

    def recorded(self, statistic):
        """Histories ``(3, 8)``: mean rewards, or the values of the surrogate ("surrogate", "token mean")."""
        if statistic == "reward":
            return self.rewards.mean(axis=-1)
        aggregate = token_mean if statistic == "token mean" else sequence_mean
        rows = zip(self.rewards.reshape(-1, 8), self.lengths.reshape(-1, 8))
        return np.array([-float(grpo(Group(r, n).batch(), aggregate=aggregate)[0]) for r, n in rows]).reshape(3, 8)


# C6: histories of 20 values ----------------------------------------------------------------------------
OBJECTIVES = ("format", "accuracy", "IoU", "next-token")


def histories(rng, noise=1.0, count=500):
    """Format saturated, accuracy noisy (``noise`` times), IoU slowly improving, next-token loss smooth: losses ``(count, 4, 20)``."""
    z, t = rng.standard_normal((count, 4, 20)), np.arange(20)
    level = np.array([0.02 + 0 * t, 0.55 + 0 * t, 0.5 - 0.004 * t, 1.2 - 0.002 * t])
    return np.abs(level + np.array([0.002, 0.06 * noise, 0.03, 0.01])[:, None] * z)


# C7, C8: a policy that reasoning and general prompts share -----------------------------------------------
PROMPTS, DIM, ANSWERS = 24, 20, 5
SOURCES = ("accuracy", "format", "general")
ACC, FMT, GEN = range(3)
MIXTURES = {
    "reasoning only": Mixture((1, 0, 0)),
    "KL .3": Mixture((1, 0, 0), beta=(0.3, 0, 0)),
    "KL .1": Mixture((1, 0, 0), beta=(0.1, 0, 0)),
    "KL 3 at general prompts": Mixture((1, 0, 0), beta=(0, 0, 3.0)),
    "uniform": Mixture((1, 1, 1)),
    "reward, T = 5": Mixture((1, 1, 1), temperature=5.0),
    "reward, T = .1": Mixture((1, 1, 1), temperature=0.1),
    "loss, T = 5": Mixture((1, 1, 1), temperature=5.0, track="loss"),
    "loss, T = .1": Mixture((1, 1, 1), temperature=0.1, track="loss"),
}


def _fitted(features, right):
    """Weights after 400 full-batch likelihood steps (4/24) on the general prompts, ``(seeds, D, A)``."""
    weights = np.zeros((len(features), DIM, ANSWERS))
    for _ in range(400):
        power = np.exp(features @ weights)
        gap = right - power / power.sum(axis=-1, keepdims=True)
        weights = weights + 4 / PROMPTS * np.swapaxes(features, -1, -2) @ gap
    return weights


def worlds(rngs, apart=False):
    """Accuracy, format and general sources of every seed.

    48 prompts with features ``N(0, I_20)/sqrt(20) + .6 u``, one right answer of five, base policy fitted to the general ones. The
    format is one logit of its own (features ``1/sqrt(2)`` of two answers), .5 at first. ``apart``: reasoning on the first ten features,
    general on the others.
    """
    features, answers = [], []
    for r in rngs:
        u = r.standard_normal(DIM)
        features.append(r.standard_normal((2 * PROMPTS, DIM)) / math.sqrt(DIM) + 0.6 * u / np.linalg.norm(u))
        answers.append(r.integers(0, ANSWERS, 2 * PROMPTS))
    phi = np.array(features)
    if apart:
        phi[:, :PROMPTS, DIM // 2 :], phi[:, PROMPTS:, : DIM // 2] = 0.0, 0.0
    right = np.eye(ANSWERS)[np.array(answers)]
    base = phi @ _fitted(phi[:, PROMPTS:], right[:, PROMPTS:])
    accuracy, general = (
        PromptBandit(*(x[:, part] for x in (base, right, phi))) for part in (slice(PROMPTS), slice(PROMPTS, None))
    )
    seeds = len(rngs)
    format_ = PromptBandit(
        np.zeros((seeds, 1, 2)), np.tile([0.0, 1.0], (seeds, 1, 1)), np.full((seeds, 1, 1), math.sqrt(0.5))
    )
    return accuracy, format_, general


def trained(rngs, names, *, record=(0,), apart=False, changed=None):
    """The named mixtures (or those of ``changed``) on 400 steps of 8 prompts with 4 answers a source, common random numbers."""
    sources = worlds(rngs, apart)
    uniforms = np.array([r.random((STEPS, 3, 8, 5)) for r in rngs])
    plans = [(changed or {}).get(name) or MIXTURES[name] for name in names]
    return train_mixtures(sources, plans, uniforms, lr=LR, window=WINDOW, blocks=(0, 1, 0), record=record)


def ends(rngs, names, **options):
    """Final reasoning accuracy and drop of the general one, each ``(mixtures, seeds)``."""
    success = trained(rngs, names, **options).success
    return success[..., -1, ACC], success[..., 0, GEN] - success[..., -1, GEN]


class Answers(NamedTuple):
    """What a step of a source drew: prompts ``(B,)`` and answers ``(B, n)``, rewards of the same shape."""

    prompts: np.ndarray
    answers: np.ndarray
    rewards: np.ndarray

    def batch(self, log_policy, old):
        """Responses of one token, a group a prompt."""
        now, then = (
            np.take_along_axis(law[self.prompts], self.answers, axis=-1).reshape(-1, 1) for law in (log_policy, old)
        )
        group = np.repeat(np.arange(self.prompts.size), self.answers.shape[1])
        return TokenBatch(now, old_log_probs=then, rewards=self.rewards.ravel(), group=group)


def picked(problem, log_policy, uniforms):
    """The answers that ``(B, 1 + n)`` uniforms pick, by bisection, one by one."""
    count = len(problem.reward)
    prompts = np.minimum((uniforms[:, 0] * count).astype(int), count - 1)
    cdf = np.cumsum(np.exp(log_policy[prompts]), axis=-1)[:, :-1]
    answers = np.array([np.searchsorted(c, v) for c, v in zip(cdf, uniforms[:, 1:])])
    return Answers(prompts, answers, np.take_along_axis(problem.reward[prompts], answers, axis=-1))
