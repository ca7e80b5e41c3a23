"""What claims and figures of salsa share: small networks, noisy SFT models, and REINFORCE on log-linear policies."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from klsim.distributions import log_normalize
from klsim.objectives import soup

RESPONSES = 40


def pool(p1, p2, w=0.5):
    """``p1^(1-w) p2^w`` normalised: what averaged weights of log-linear models are."""
    return soup([p1, p2], [1 - w, w])


# C1: networks --------------------------------------------------------------------------------------
INPUTS, HIDDEN, OUTPUTS = 6, 8, 5


class Nets(NamedTuple):
    """``(nets, ...)`` weights of tanh networks 6-8-5 without biases at the start."""

    first: np.ndarray
    bias: np.ndarray
    second: np.ndarray
    shift: np.ndarray

    @classmethod
    def start(cls, rng, nets=20):
        """N(0, 1/fan-in) weights, zero biases."""
        first = rng.standard_normal((nets, HIDDEN, INPUTS)) / np.sqrt(INPUTS)
        second = rng.standard_normal((nets, OUTPUTS, HIDDEN)) / np.sqrt(HIDDEN)
        return cls(first, np.zeros((nets, HIDDEN)), second, np.zeros((nets, OUTPUTS)))

    def direction(self, rng):
        return Nets(*(rng.standard_normal(x.shape) for x in self))

    def moved(self, by, eps):
        return Nets(*(x + eps * d for x, d in zip(self, by)))

    def log_policy(self, inputs):
        """``(nets, inputs, 5)``."""
        hidden = np.tanh(np.einsum("nhi,xi->nxh", self.first, inputs) + self.bias[:, None])
        return log_normalize(np.einsum("noh,nxh->nxo", self.second, hidden) + self.shift[:, None])


def average(one, two, w=0.5):
    """The soup of two networks."""
    return Nets(*((1 - w) * a + w * b for a, b in zip(one, two)))


# C4, C5: noisy SFT models --------------------------------------------------------------------------
class Sft(NamedTuple):
    """Rewards and two SFT models ``log p_i = shared + e_i + const``, ``(instances, 40)`` each."""

    reward: np.ndarray
    p1: np.ndarray
    p2: np.ndarray

    @classmethod
    def draw(cls, rngs, correlation=0.0, aligned=True):
        """One instance a generator; errors N(0, 1) of the given correlation, around the reward or around N(0, 1)."""
        draws = np.array([rng.standard_normal((5, RESPONSES)) for rng in rngs])
        reward, other, common, e1, e2 = draws.transpose(1, 0, 2)
        shared = (reward if aligned else other) + np.sqrt(correlation) * common
        return cls(reward, *(log_normalize(shared + np.sqrt(1 - correlation) * e) for e in (e1, e2)))


# C6: REINFORCE on log-linear policies --------------------------------------------------------------
CONTEXTS, ANSWERS, FEATURES, PAIRS, BATCH, STEPS = 12, 24, 10, 40, 64, 400


class World(NamedTuple):
    """A batch of worlds: features ``(seeds, 24 contexts, answers, 10)`` (12 to train on, 12 held out), standardised
    rewards, two SFT fits ``(seeds, 10)``, and the draws of the run."""

    features: np.ndarray
    reward: np.ndarray
    theta1: np.ndarray
    theta2: np.ndarray
    contexts: np.ndarray
    uniforms: np.ndarray

    @classmethod
    def draw(cls, rngs, pairs=PAIRS):
        made = [_world(rng, pairs) for rng in rngs]
        features, reward, counts, contexts, uniforms = (np.array(x) for x in zip(*made))
        train = np.ascontiguousarray(features[:, :CONTEXTS])
        fits = [_fit(train, counts[:, i] / pairs) for i in range(2)]
        return cls(features, reward, *fits, contexts, uniforms)

    def scores(self, theta):
        """``(train reward, held-out reward, KL to the start on training contexts)`` a seed, exact."""
        log_pi, start = (_log_policy(self.features, t) for t in (theta, self.theta1))
        pi = np.exp(log_pi)
        reward = np.sum(pi * self.reward, axis=-1)
        to_start = np.sum(pi * (log_pi - start), axis=-1)[:, :CONTEXTS].mean(axis=1)
        return reward[:, :CONTEXTS].mean(axis=1), reward[:, CONTEXTS:].mean(axis=1), to_start


def _world(rng, pairs):
    shape = (2 * CONTEXTS, ANSWERS)
    features = rng.standard_normal((*shape, FEATURES)) / np.sqrt(FEATURES)
    reward = 0.7 * features @ (2 * rng.standard_normal(FEATURES)) + 0.3 * rng.standard_normal(shape)
    reward = (reward - reward.mean(axis=1, keepdims=True)) / reward.std(axis=1, keepdims=True)
    law = np.exp(log_normalize(reward[:CONTEXTS])).ravel() / CONTEXTS
    counts = rng.multinomial(pairs, law, size=2).reshape(2, CONTEXTS, ANSWERS)
    return features, reward, counts, rng.integers(0, CONTEXTS, (STEPS, BATCH)), rng.random((STEPS, BATCH))


def _log_policy(features, theta):
    logits = np.matmul(features.reshape(len(theta), -1, FEATURES), theta[..., None]).reshape(features.shape[:3])
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))  # logits of order ten


def _ascend(features, weights, pi):
    """``sum_xa weights (phi - E_pi phi)``, ``(seeds, d)``."""
    left = weights - pi * weights.sum(axis=-1, keepdims=True)
    return np.matmul(left.reshape(len(left), 1, -1), features.reshape(len(left), -1, FEATURES))[:, 0]


def _fit(features, shares, steps=300, lr=0.5):
    """Full-batch maximum likelihood from 0: 300 steps."""
    theta = np.zeros((len(features), FEATURES))
    for _ in range(steps):
        theta = theta + lr * _ascend(features, shares, np.exp(_log_policy(features, theta)))
    return theta


def reinforce(world, theta_ref, beta, record=(), lr=0.5):
    """400 steps from theta1 with ``R = r - beta (log pi - log ref)`` minus its exact context mean, one response for each of
    64 uniform contexts; the final parameters, or those after the steps of ``record``."""
    features, reward = np.ascontiguousarray(world.features[:, :CONTEXTS]), world.reward[:, :CONTEXTS]
    log_ref, theta, kept = _log_policy(features, theta_ref), world.theta1, []
    seeds = np.arange(len(theta))[:, None]
    for step in range(STEPS):
        if step in record:
            kept.append(theta)
        log_pi = _log_policy(features, theta)
        pi, x = np.exp(log_pi), world.contexts[:, step]
        value = reward - beta * (log_pi - log_ref)
        value -= np.sum(pi * value, axis=-1, keepdims=True)
        row, u, y = seeds * CONTEXTS + x, world.uniforms[:, step], np.zeros(x.shape, dtype=np.int64)
        cdf = np.cumsum(pi, axis=-1).ravel()
        for stride in (16, 8, 4, 2, 1):  # bisection: how many of the 24 entries lie below
            at = np.minimum(y + stride, ANSWERS - 1)
            y = np.where(cdf[row * ANSWERS + at - 1] < u, at, y)
        counts = np.bincount((row * ANSWERS + y).ravel(), minlength=pi.size).reshape(pi.shape)
        theta = theta + lr * _ascend(features, counts * value / BATCH, pi)
    return (theta, kept) if record else theta
