r"""The world of difficulty-filtering: prompts that one skill vector solves, and GRPO on filtered groups.

A prompt has features ``phi`` (positive, of norm 1) and a difficulty d; the policy solves it with probability
``sigmoid(theta . phi - d)``. Everything is batched over seeds (the leading axis), each with its own prompts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import binom

from klsim.learning.difficulty import kept_counts

GROUP, BATCH, SKILLS = 16, 16, 10
BANDS = {
    "none": (0.0, 1.0),
    "(0, 1)": (1 / GROUP, 1 - 1 / GROUP),
    "[.1, .9]": (0.1, 0.9),
    "[.3, .7]": (0.3, 0.7),
    "[.4, .6]": (0.4, 0.6),
    "easy [.7, .99]": (0.7, 0.99),
    "hard [.01, .3]": (0.01, 0.3),
}


class Prompts(NamedTuple):
    """``phi (seeds, X, skills)`` and ``difficulty (seeds, X)``."""

    phi: np.ndarray
    difficulty: np.ndarray

    @classmethod
    def draw(cls, rngs, count):
        phi = np.stack([np.abs(rng.standard_normal((count, SKILLS))) for rng in rngs])
        difficulty = np.stack([2.5 + 2.5 * rng.standard_normal(count) for rng in rngs])
        return cls(phi / np.linalg.norm(phi, axis=-1, keepdims=True), difficulty)

    def success(self, theta):
        """``(seeds, X)`` for skills ``(seeds, skills)``."""
        return expit((self.phi @ theta[..., None])[..., 0] - self.difficulty)

    def at(self, index):
        """The prompts ``index (seeds, n)``."""
        rows = np.arange(len(index))[:, None]
        return Prompts(self.phi[rows, index], self.difficulty[rows, index])


class Worlds(NamedTuple):
    """Prompts to train on and fresh ones to be judged on, one world a seed."""

    train: Prompts
    fresh: Prompts

    @classmethod
    def draw(cls, rngs):
        return cls(Prompts.draw(rngs, 2000), Prompts.draw(rngs, 1000))


class Curve(NamedTuple):
    """``accuracy`` before every update and candidates rolled out until then, ``(steps, seeds)``; keep rate of the step."""

    accuracy: np.ndarray
    candidates: np.ndarray
    keep: np.ndarray

    def until(self, target):
        """``(steps, candidates)`` until the accuracy first reaches ``target``, one a seed."""
        reached = self.accuracy >= target
        if not reached.any(axis=0).all():
            raise ValueError(f"target {target} is not reached in {len(self.accuracy)} steps")
        first = reached.argmax(axis=0)
        return first, self.candidates[first, np.arange(first.size)]


def signals(std):
    """What a group with ``k`` successes adds along the logit of its prompt, ``k = 0 … G``."""
    rate = np.arange(GROUP + 1) / GROUP
    return np.sqrt(rate * (1 - rate)) if std else rate * (1 - rate)


def fill(worlds, theta, kept, rng, guess):
    """Candidates, one at a time, until ``BATCH`` groups are kept: ``(phi, successes, used, place of the last)``."""
    phi, counts = [], []
    while not counts or np.min(np.sum(kept[np.concatenate(counts, axis=1)], axis=1)) < BATCH:
        index = rng.integers(worlds.train.difficulty.shape[1], size=(len(theta), guess))
        block = worlds.train.at(index)
        phi.append(block.phi)
        counts.append(rng.binomial(GROUP, block.success(theta)))
    successes = np.concatenate(counts, axis=1)
    order = np.cumsum(kept[successes], axis=1)
    used = kept[successes] & (order <= BATCH)
    return np.concatenate(phi, axis=1), successes, used, np.argmax(order >= BATCH, axis=1) + 1


def train(worlds, band, rng, *, lr=0.3, std=True, target=None, steps=200):
    """GRPO on kept groups from ``theta = 0``: for ``steps`` updates, or until all seeds have reached ``target``."""
    kept, step_of = kept_counts(GROUP, *BANDS[band]), signals(std)
    theta, candidates = np.zeros((len(worlds.train.phi), SKILLS)), np.zeros(len(worlds.train.phi))
    rows, guess, done = [], 4 * BATCH, np.zeros(len(theta), dtype=bool)
    for _ in range(steps + 1):
        accuracy = worlds.fresh.success(theta).mean(axis=1)
        done |= accuracy >= (2.0 if target is None else target)
        phi, successes, used, drawn = fill(worlds, theta, kept, rng, guess)
        rows.append((accuracy, candidates, BATCH / drawn))
        if done.all():
            break
        theta = theta + lr / BATCH * np.einsum("sn,snf->sf", np.where(used, step_of[successes], 0.0), phi)
        candidates, guess = candidates + drawn, int(1.2 * np.mean(drawn)) + BATCH
    return Curve(*map(np.array, zip(*rows)))


def signal_to_noise(prompts, theta, band, *, std=True):
    """``(|E u|^2 / tr Cov u, keep rate)`` of one update on ``BATCH`` kept groups, exactly; one a seed."""
    kept, step_of = kept_counts(GROUP, *BANDS[band]), signals(std)
    chance = binom.pmf(np.arange(GROUP + 1), GROUP, prompts.success(theta)[..., None]) * kept
    keep = chance.sum(axis=-1).mean(axis=-1)
    mean = np.einsum("sx,sxf->sf", chance @ step_of, prompts.phi) / prompts.difficulty.shape[1] / keep[:, None]
    square = (chance @ step_of**2 * np.sum(prompts.phi**2, axis=-1)).mean(axis=-1) / keep
    drift = np.sum(mean**2, axis=-1)
    return BATCH * drift / (square - drift), keep


def refill(rng, batches, kept, block=1):
    """Prompts with ``p ~ Beta(1/2, 1/2)`` rolled out until ``BATCH`` are kept, in whole blocks; one number a batch."""
    order = np.cumsum(kept[rng.binomial(GROUP, rng.beta(0.5, 0.5, (batches, 15 * BATCH)))], axis=1)
    if order[:, -1].min() < BATCH:
        raise ValueError(f"{15 * BATCH} prompts do not fill a batch")
    return block * np.ceil((np.argmax(order >= BATCH, axis=1) + 1) / block)
