"""What the claims and figures of lp-reg share: batches with a gate, and a two-step tree in which sparks die before they pay off."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from klsim.distributions import log_normalize
from klsim.objectives import TokenBatch
from klsim.objectives.stabilizers import min_p_proxy


# C4: batches with a gate -----------------------------------------------------------------------------
class Sampled(NamedTuple):
    """``n`` sampled tokens: the states' policies ``(n, A)``, lagged ones, the tokens, their advantages, and rho."""

    log_pi: np.ndarray
    log_old: np.ndarray
    tokens: np.ndarray
    advantage: np.ndarray
    rho: float

    @classmethod
    def draw(cls, rng, actions=30, states=40, samples=16):
        """40 states x 16 samples, logits 1.5 N(0, 1); the lagged policy is off by N(0, 1/4)."""
        logits = 1.5 * rng.standard_normal((states, actions))
        log_pi = np.repeat(log_normalize(logits), samples, axis=0)
        log_old = np.repeat(log_normalize(logits + 0.5 * rng.standard_normal(logits.shape)), samples, axis=0)
        u = rng.random(len(log_pi))
        tokens = np.minimum((u[:, None] > np.cumsum(np.exp(log_pi), axis=-1)).sum(axis=-1), actions - 1)
        return cls(log_pi, log_old, tokens, rng.standard_normal(len(log_pi)), 0.05)

    @classmethod
    def few(cls, rng):
        """5 to 60 tokens, rho between 0 and .3, and in half of the batches tokens that share their probability."""
        n, whole = int(rng.integers(5, 60)), cls.draw(rng)
        rows = rng.choice(len(whole.tokens), n, replace=False)
        found = whole._replace(log_pi=whole.log_pi[rows], log_old=whole.log_old[rows], tokens=whole.tokens[rows],
                               advantage=whole.advantage[rows], rho=float(rng.uniform(0, 0.3)))  # fmt: skip
        if rng.random() < 0.5:
            same = rng.random(n) < 0.9
            found.log_pi[same], found.log_old[same], found.tokens[same] = (
                x[0] for x in (found.log_pi, found.log_old, found.tokens)
            )
        return found

    @classmethod
    def lagged_head(cls):
        """``pi_old = (.9, .1)``, ``pi = (.999, .001)``: one sample of the rare token among a hundred heads."""
        n = 100
        tokens, advantage = np.zeros(n, dtype=int), np.ones(n)
        tokens[0], advantage[0] = 1, -1.0
        pi, old = (np.broadcast_to(np.log([1 - p, p]), (n, 2)) for p in (0.001, 0.1))
        return cls(pi, old, tokens, advantage, 0.05)

    def batch(self):
        """One response a token, their policy's distributions."""
        return TokenBatch(
            np.take_along_axis(self.log_pi, self.tokens[:, None], axis=-1), vocab_log_probs=self.log_pi[:, None]
        )

    def proxy(self, lagged=False, kappa=0.02):
        """Of the sampled tokens, ``(n, 1)``."""
        return np.take_along_axis(
            min_p_proxy(self.log_old if lagged else self.log_pi, kappa), self.tokens[:, None], axis=-1
        )

    @property
    def quantile(self):
        return np.quantile(np.exp(self.batch().log_probs), self.rho)


# C6: a tree with a spark -----------------------------------------------------------------------------
HEAD, SPARK, TOKENS, ARMS, GROUP, SAMPLES = 0, 1, 22, 5, 8, 128
ROOT = np.r_[4.0, 1.0, np.full(20, -1.8)]


class Run(NamedTuple):
    """How the tree is trained: plain GRPO unless a penalty or a bonus is given.

    ``beta``: of the penalty at gated samples; ``lag``: steps between proxies (0: never renewed); ``gate``: "<=", "<", "lowest" (that many
    samples, ties broken by order) or "all"; ``only``: "" or "head" or "others"; ``entropy``: of a bonus; ``adam``: instead of plain steps.
    """

    beta: float = 0.0
    lag: int = 50
    gate: str = "<="
    only: str = ""
    negative: bool = True
    kappa: float = 0.02
    rho: float = 0.05
    lr: float = 5.0
    steps: int = 400
    entropy: float = 0.0
    adam: bool = False


def gated(run, pi, proxy, tokens, advantage):
    """Which of the samples ``(seeds, 128)`` are penalised."""
    kept = np.take_along_axis(proxy, tokens, axis=-1) > 0
    if run.gate == "all":
        return np.ones(tokens.shape, dtype=bool)
    p = np.take_along_axis(pi, tokens, axis=-1)
    if run.gate == "lowest":
        rank = np.argsort(np.argsort(p, axis=-1, kind="stable"), axis=-1, kind="stable")
        rare = rank < math.floor(run.rho * p.shape[1])
    else:
        place = run.rho * (SAMPLES - 1)
        low = int(place)
        ends = np.partition(p, (low, min(low + 1, SAMPLES - 1)), axis=-1)[:, low : low + 2]
        delta = ends[:, :1] + (place - low) * (ends[:, -1:] - ends[:, :1])
        rare = p <= delta if run.gate == "<=" else p < delta
    if run.only:
        kept = kept & ((tokens == HEAD) == (run.only == "head"))
    return rare & kept & ((advantage < 0) | (not run.negative))


def counted(tokens, weights, size):
    """Sums of weights by token, ``(seeds, size)``."""
    rows = np.arange(len(tokens))[:, None] * size + tokens
    return np.bincount(
        rows.ravel(), weights=np.broadcast_to(weights, tokens.shape).ravel(), minlength=len(tokens) * size
    ).reshape(-1, size)


def picked(u, law, strides):
    """Outcomes of uniforms ``(seeds, n)`` by bisection of the cumulated laws ``(seeds, A)``."""
    size, cdf = law.shape[1], np.cumsum(law, axis=-1).ravel()
    rows, y = np.arange(len(law))[:, None] * size, np.zeros(u.shape, dtype=np.int64)
    for stride in strides:
        at = np.minimum(y + stride, size - 1)
        y = np.where(cdf[rows + at - 1] < u, at, y)
    return y


def played(u, pi, branch):
    """Root tokens, arms and group-normalised advantages ``(seeds, 128)`` from uniforms ``(seeds, 3, 128)``."""
    tokens, arms = picked(u[:, 0], pi, (16, 8, 4, 2, 1)), picked(u[:, 1], branch, (4, 2, 1))
    rewards = np.where(tokens == HEAD, u[:, 2] < 0.5, (tokens == SPARK) & (arms == 0)).astype(float)
    groups = rewards.reshape(len(u), -1, GROUP)
    spread = groups.std(axis=-1, keepdims=True) + 1e-6
    return tokens, arms, ((groups - groups.mean(axis=-1, keepdims=True)) / spread).reshape(rewards.shape)


def ascent(run, u, root, branch, proxy):
    """Gradients of the root ``(seeds, 22)`` and of the branch ``(seeds, 5)``, means over 128 samples."""
    pi, arm_law = _softmax(root), _softmax(branch)
    tokens, arms, advantage = played(u, pi, arm_law)
    up = (counted(tokens, advantage, TOKENS) - pi * advantage.sum(axis=-1, keepdims=True)) / SAMPLES
    if run.beta:
        share = gated(run, pi, proxy, tokens, advantage).mean(axis=-1, keepdims=True)
        up = up + run.beta * share * (proxy - pi)
    if run.entropy:
        surprise = -np.log(pi)
        up = up + run.entropy * pi * (surprise - np.sum(pi * surprise, axis=-1, keepdims=True))
    there = np.where(tokens == SPARK, advantage, 0.0)
    return up, (counted(arms, there, ARMS) - arm_law * there.sum(axis=-1, keepdims=True)) / SAMPLES


def grow(rngs, run, record=None):
    """Final ``(success, spark, noise)`` a seed; with ``record`` the steps at which they are kept: ``(3, seeds, steps)`` and the entropy."""
    root, branch = np.tile(ROOT, (len(rngs), 1)), np.zeros((len(rngs), ARMS))
    proxy, path, moments = None, [], [[np.zeros_like(x), np.zeros_like(x)] for x in (root, branch)]
    for step in range(run.steps):
        if record is not None and step in record:
            path.append(scores(root, branch))
        if proxy is None or (run.lag and step % run.lag == 0):
            proxy = np.exp(min_p_proxy(log_normalize(root), run.kappa))
        u = np.array([r.random((3, SAMPLES)) for r in rngs])
        found = ascent(run, u, root, branch, proxy)
        if run.adam:
            found = [_adam(m, g, step + 1) for m, g in zip(moments, found)]
        root, branch = root + run.lr * found[0], branch + run.lr * found[1]
    path.append(scores(root, branch))
    return np.array(path).transpose(1, 2, 0) if record is not None else path[-1]


def scores(root, branch):
    """Success, probability of the spark, mass of the noise, entropy of the root, ``(4, seeds)``."""
    pi = _softmax(root)
    success = pi[:, HEAD] / 2 + pi[:, SPARK] * _softmax(branch)[:, 0]
    return np.array(
        [success, pi[:, SPARK], pi[:, 2:].sum(axis=-1), -np.sum(pi * np.log(np.maximum(pi, 1e-300)), axis=-1)]
    )


def _softmax(z):
    weights = np.exp(z - z.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _adam(moments, gradient, step):
    moments[0] = 0.9 * moments[0] + 0.1 * gradient
    moments[1] = 0.999 * moments[1] + 0.001 * gradient**2
    return moments[0] / (1 - 0.9**step) / (np.sqrt(moments[1] / (1 - 0.999**step)) + 1e-8)
