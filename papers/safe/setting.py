r"""What the claims and figures of safe share: value heads to fit, reward curves, small losses, and a testbed of prompts to train on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from klsim.distributions import entropy, expectation, log_normalize
from klsim.divergences import kl
from klsim.hinge import hinge_slope
from klsim.learning.hinge_loop import HingeLoop
from klsim.learning.threshold_control import ThresholdLoop
from klsim.objectives import TokenBatch
from klsim.objectives.stabilizers import entropy_gate


# C2: two linear heads ---------------------------------------------------------------------------------
class Heads(NamedTuple):
    """Features with a column of ones ``(60, 21)``, targets, heads to start from ``(21, 2)``, two bootstrap resamples."""

    features: np.ndarray
    target: np.ndarray
    start: np.ndarray
    rows: np.ndarray

    @classmethod
    def draw(cls, rng, skewed=False):
        """``y = X w + noise``, noise N(0, 1), or exponential of scale 2 (centred)."""
        x, w = rng.standard_normal((60, 20)), rng.standard_normal(20) / np.sqrt(20)
        noise = 2 * (rng.exponential(size=60) - 1) if skewed else rng.standard_normal(60)
        features = np.column_stack([x, np.ones(60)])
        return cls(features, x @ w + noise, 0.3 * rng.standard_normal((21, 2)), rng.integers(0, 60, (2, 60)))

    @classmethod
    def skewed(cls, rng):
        return cls.draw(rng, skewed=True)


# C4: reward curves ------------------------------------------------------------------------------------
def saturating(rng, updates=4000, scale=None):
    """``clip(.3 + .45 (1 - e^{-t/s}) + .05 N(0, 1), 0, 1)``, s ~ U(200, 1200)."""
    s = rng.uniform(200, 1200) if scale is None else scale
    return np.clip(0.3 + 0.45 * (1 - np.exp(-np.arange(updates) / s)) + 0.05 * rng.standard_normal(updates), 0.0, 1.0)


def levels_of(x):
    """Piecewise constant curves in [0, 1], 200 updates a level."""
    return np.repeat(1 / (1 + np.exp(-x)), 200, axis=-1)


def mixed(rng, updates=250):
    """Curves that reach every phase: tops U(.2, .95), time scales U(10, 100), noise .001 to .1."""
    top, s, noise = rng.uniform(0.2, 0.95), rng.uniform(10, 100), np.exp(rng.uniform(np.log(1e-3), np.log(0.1)))
    return top * (1 - np.exp(-np.arange(updates) / s)) + noise * rng.standard_normal(updates)


# C6: optima and loops of the hinge --------------------------------------------------------------------
class Problem(NamedTuple):
    """A reference ~ Dirichlet(1) and rewards ~ U(0, 1) over 8 arms."""

    log_ref: np.ndarray
    reward: np.ndarray

    @classmethod
    def draw(cls, rng):
        return cls(np.log(rng.dirichlet(np.ones(8))), rng.random(8))


def loop(rng):
    """A `HingeLoop` over 6 arms whose hinge is well away from idle."""
    while True:
        ref, reward, tau = rng.dirichlet(np.ones(6)), rng.random(6), rng.uniform(0.05, 0.3)
        if -np.log(ref[np.argmax(reward)]) > tau + 0.3:
            return HingeLoop(
                np.log(ref), reward, float(10 ** rng.uniform(-1, 1)), tau, rng.uniform(0.1, 3), rng.uniform(0, 0.95)
            )


# C3, C5: losses on one state --------------------------------------------------------------------------
def every_arm(z, log_ref, **more):
    """One response of one token an arm, at the policy ``softmax(z)``."""
    log_pi = log_normalize(z)
    rows = (len(z), 1, len(z))
    return TokenBatch(log_pi[:, None], tokens=np.arange(len(z))[:, None], ref_log_probs=log_ref[:, None],
                      vocab_log_probs=np.broadcast_to(log_pi, rows), ref_vocab_log_probs=np.broadcast_to(log_ref, rows), **more)  # fmt: skip


def slopes(function, z, h=1e-5):
    """The gradient by central differences."""
    return np.array([(function(z + e) - function(z - e)) / (2 * h) for e in h * np.eye(len(z))])


# C7: prompts to train on ------------------------------------------------------------------------------
PROMPTS, ACTIONS, BATCH = 16, 12, 128


class Run(NamedTuple):
    """c of the hinge; its factor for d k_t / d KL (.1 if kept); beta of a plain KL; whether the hinge is a constant."""

    hinge: float = 0.0
    kept: float = 1.0
    plain: float = 0.0
    detached: bool = False


class World(NamedTuple):
    """``(seeds, prompts, actions)``: reference, true reward, the proxy that is trained on; and the draws of all steps."""

    log_ref: np.ndarray
    true: np.ndarray
    proxy: np.ndarray
    prompts: np.ndarray
    u: np.ndarray
    noise: np.ndarray

    @classmethod
    def draw(cls, rngs, steps):
        shape, drawn = (PROMPTS, ACTIONS), []
        for r in rngs:
            log_ref, true = log_normalize(r.standard_normal(shape)), r.random(shape)
            proxy = true + 0.35 * r.standard_normal(shape)
            rest = r.integers(0, PROMPTS, (steps, BATCH)), r.random((steps, BATCH)), r.standard_normal((steps, BATCH))
            drawn.append((log_ref, true, proxy, *rest))
        return cls(*(np.array(x) for x in zip(*drawn)))


def train(rngs, runs, steps=600, every=None):
    """Final ``(proxy, true, KL, entropy)``, means over prompts: ``(4, runs, seeds)``; all runs see the same draws.

    With ``every``: along the way, ``(4, runs, seeds, times)``, and the threshold.
    """
    world, seeds = World.draw(rngs, steps), len(rngs)
    rows = len(runs) * seeds
    log_ref, true, proxy = (np.tile(x, (len(runs), 1, 1)) for x in world[:3])
    hinge = np.repeat([0.0 if r.detached else r.hinge * r.kept for r in runs], seeds)
    plain, gates = np.repeat([r.plain for r in runs], seeds), np.zeros(rows)
    logits, average, loop, path = log_ref.copy(), np.zeros(rows), ThresholdLoop(rows, steps), []
    for step in range(steps + 1):
        logits = logits - logits.max(axis=-1, keepdims=True)
        log_pi = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        if step == steps or (every is not None and step % every == 0):
            path.append(scores(log_pi, log_ref, true, proxy))
        if step == steps:
            break
        drawn = (np.tile(x[:, step], (len(runs), 1)) for x in (world.prompts, world.u, world.noise))
        pi = np.exp(log_pi)
        reward, up = sampled_gradient(pi, proxy, *drawn)
        distance, force = kl_force(log_pi, log_ref)
        average = 0.9 * average + 0.1 * distance
        threshold = loop.update(reward)
        for row in np.flatnonzero(hinge):
            gates[row] = entropy_gate(-float(np.sum(pi[row] * log_pi[row])) / PROMPTS)
        pull = plain + hinge * hinge_slope(average, threshold, gates)
        logits = logits + up - pull[:, None, None] * force
    shape = (4, len(runs), seeds)
    if every is None:
        return path[-1].reshape(shape)
    return np.moveaxis(np.array(path), 0, -1).reshape(*shape, -1)


def scores(log_pi, log_ref, true, proxy):
    """Proxy and true reward, KL, entropy: means over prompts, ``(4, ...)``."""
    found = [expectation(log_pi, proxy), expectation(log_pi, true), kl(log_pi, log_ref), entropy(log_pi)]
    return np.array([np.mean(x, axis=-1) for x in found])


def kl_force(log_pi, log_ref):
    """The mean KL over prompts, and its gradient in the logits."""
    pi, gap = np.exp(log_pi), log_pi - log_ref
    each = np.sum(pi * gap, axis=-1)
    return each.mean(axis=-1), pi * (gap - each[..., None]) / log_pi.shape[-2]


def sampled_gradient(pi, proxy, prompts, u, noise):
    """Batch means of the observed reward ``(rows,)`` and of ``A (onehot - pi)`` at the rows of the drawn prompts."""
    rows = np.arange(len(pi))[:, None]
    ladder = np.cumsum(pi, axis=-1)[rows, prompts, :-1]
    actions = np.sum(u[..., None] > ladder, axis=-1)
    observed = proxy[rows, prompts, actions] + 0.2 * noise
    mean, std = observed.mean(axis=-1), observed.std(axis=-1)
    advantage = (observed - mean[:, None]) / std[:, None]
    at = (rows * PROMPTS + prompts) * ACTIONS + actions
    total = np.bincount(at.ravel(), advantage.ravel(), pi.size).reshape(pi.shape)
    return mean, (total - pi * total.sum(axis=-1, keepdims=True)) / BATCH
