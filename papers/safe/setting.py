r"""What the claims and figures of safe share: value heads to fit, reward curves, small losses, and a testbed of prompts to train on."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize

from klsim.distributions import entropy, expectation, log_normalize
from klsim.divergences import kl
from klsim.hinge import hinge_slope
from klsim.learning.double_critic import fit_joint
from klsim.learning.hinge_loop import HingeLoop
from klsim.learning.threshold_control import ThresholdLoop, threshold_trace
from klsim.objectives import TokenBatch
from klsim.objectives.actor_critic import gae
from klsim.objectives.baselines import whitened
from klsim.objectives.kl import kl_in_loss
from klsim.objectives.stabilizers import entropy_gate, hinge_kl, soft_min


# C2: two linear heads ---------------------------------------------------------------------------------
class Heads(NamedTuple):
    """Features with a column of ones ``(60, 21)``, targets, heads to start from ``(21, 2)``, two bootstrap resamples."""

    features: np.ndarray
    target: np.ndarray
    start: np.ndarray
    rows: np.ndarray

    @classmethod
    def draw(cls, rng, points=60, features=20, skew=0.0):
        """``y = X w + noise``, noise N(0, 1), or exponential of scale ``|skew|`` (centred), on the side of its sign."""
        x, w = rng.standard_normal((points, features)), rng.standard_normal(features) / np.sqrt(features)
        noise = skew * (rng.exponential(size=points) - 1) if skew else rng.standard_normal(points)
        start = 0.3 * rng.standard_normal((features + 1, 2))
        return cls(np.column_stack([x, np.ones(points)]), x @ w + noise, start, rng.integers(0, points, (2, points)))

    @classmethod
    def few(cls, rng):
        """20 points, 3 features, skewed to either side."""
        return cls.draw(rng, 20, 3, rng.choice([-2.0, 2.0]))


def soft(v, alpha):
    """`soft_min` with one temperature a row."""
    out = np.empty(np.shape(alpha))
    for a in np.unique(alpha):
        out[alpha == a] = soft_min(v[alpha == a], float(a))
    return out


def fitted(heads, huber=math.inf):
    """Residuals of the soft minimum, the smaller head and the mean of both after the joint fit."""
    v = heads.features @ fit_joint(heads.features, heads.target, heads.start, huber=huber)
    return {"soft": np.asarray(soft_min(v)) - heads.target, "min": v.min(axis=-1) - heads.target, "mean": v.mean(axis=-1) - heads.target}  # fmt: skip


def advantages(rewards, values, white):
    """Of responses of one token, normalised over the batch or not."""
    batch = TokenBatch(np.zeros((len(rewards), 1)), rewards=rewards, values=values[:, None])
    return whitened(gae(batch), batch) if white else gae(batch)


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


def first_at_the_clamp(r):
    return np.argmax(threshold_trace(r).integral <= -1 + 1e-12, axis=-1)


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


def hinged(log_pi, log_ref, reward, f, tau):
    """The objective, by plain sums."""
    p = np.exp(log_pi)
    over = np.maximum(np.sum(p * (log_pi - log_ref), axis=-1) - tau, 0.0)
    return np.sum(p * reward, axis=-1) - f * over**2


def best_by_bfgs(log_ref, reward, f, tau):
    """The largest value that a generic optimiser of the logits finds from the reference."""

    def loss(z):
        log_pi = log_normalize(z)
        pi, gap = np.exp(log_pi), log_pi - log_ref
        over = max(pi @ gap - tau, 0.0)
        up = reward - 2 * f * over * gap
        return -(pi @ reward - f * over**2), -pi * (up - pi @ up)

    return -minimize(loss, log_ref, jac=True, method="BFGS", options={"gtol": 1e-9}).fun


def root(log_ref, reward, stiff, tau):
    """Of ``beta = stiff (KL(beta) - tau)``, by Brent's method in log beta and plain sums."""
    gaps = np.where(reward == reward.max(), 0.0, reward.max() - reward)

    def short(log_beta):
        w = log_ref - gaps / math.exp(log_beta)
        log_pi = w - np.logaddexp.reduce(w)
        live = np.exp(log_pi) > 0
        return math.exp(log_beta) - stiff * (np.sum((np.exp(log_pi) * (log_pi - log_ref))[live]) - tau)

    most = -np.logaddexp.reduce(log_ref[gaps == 0])
    return math.exp(brentq(short, -600.0, math.log(stiff * most + 1) + 1, xtol=1e-15, rtol=1e-14))


def moved(run, state):
    """One step of a `HingeLoop` on logits and average KL in one vector."""
    return np.r_[run.step(state[:-1], state[-1])]


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


def expected_slope(z, log_ref, law, estimator):
    """The gradient of the estimator's mean over samples of a fixed law, by differences of the library's loss."""

    def loss(y):
        batch = every_arm(y, log_ref)
        return float(kl_in_loss(batch, estimator=estimator, aggregate=lambda x, mask: np.sum(law[:, None] * x))[0])

    return slopes(loss, z)


def trained_by_autograd(z, log_ref, reward, penalty, steps=5):
    """Logits after five policy-gradient steps on all arms with the hinge in the loss; the last value and gradient of the hinge."""
    import torch

    theta, ref = torch.tensor(z, requires_grad=True), torch.tensor(log_ref)[None, None]
    for _ in range(steps):
        log_pi = torch.log_softmax(theta, dim=-1)
        loss = -(log_pi.exp().detach() * torch.tensor(reward - reward.mean()) * log_pi).sum()
        batch = TokenBatch(log_pi[None, :1], vocab_log_probs=log_pi[None, None], ref_vocab_log_probs=ref)
        hinge = hinge_kl(batch, threshold=0.05, coefficient=0.5, penalty=penalty or "detached")[0]
        (alone,) = torch.autograd.grad(hinge, theta, retain_graph=True)
        (whole,) = torch.autograd.grad(loss + hinge if penalty else loss, theta)
        theta = (theta - whole).detach().requires_grad_()
    return theta.detach().numpy(), float(hinge.detach()), alone.numpy()


def gates(h):
    return np.reshape([0.1 * entropy_gate(float(x)) for x in np.ravel(h)], np.shape(h))


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
        spread = -np.einsum("rpa,rpa->r", pi, log_pi) / PROMPTS
        gates[hinge > 0] = [entropy_gate(h) for h in spread[hinge > 0].tolist()]
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
    cell = np.arange(len(pi))[:, None] * PROMPTS + prompts
    ladder = np.cumsum(pi, axis=-1).reshape(-1, ACTIONS).T[:-1].take(cell, axis=1)
    at = cell * ACTIONS + np.sum(u > ladder, axis=0, dtype=np.int8)  # the drawn action's place in a flat pi
    observed = proxy.ravel()[at] + 0.2 * noise
    mean, std = observed.mean(axis=-1), observed.std(axis=-1)
    advantage = (observed - mean[:, None]) / std[:, None]
    total = np.bincount(at.ravel(), advantage.ravel(), pi.size).reshape(pi.shape)
    return mean, (total - pi * total.sum(axis=-1, keepdims=True)) / BATCH
