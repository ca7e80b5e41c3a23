"""What the claims and figures of bgpo share: sampled masks of tabular models, a torch denoiser, tabular training.

``theta`` are logits ``((V+1)**L, L, V)`` of a `MaskedDiffusionLM`. ``ell_j`` is the weighted masked log-likelihood on mask j,
``d_j = ell_j(theta) - ell_j(theta_old)`` on the same mask, ``A`` the advantage.
"""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import NamedTuple

import numpy as np

from klsim.distributions import log_normalize
from klsim.objectives import bgpo, elbo_ratio, elbo_two_pass
from klsim.problems.masked_diffusion import MaskedDiffusionLM, count_scheme, elbo_samples, masked_sets, output_law


def model_of(theta):
    return MaskedDiffusionLM(log_normalize(theta))


def random_theta(rng, length=3, vocab=3, scale=1.0):
    return scale * rng.standard_normal(((vocab + 1) ** length, length, vocab))


def sample_gradients(theta, answer, masks, weights):
    """``grad ell_j`` in the logits, ``(masks, states, L, V)``: only the row of the masked sequence moves."""
    length, vocab = theta.shape[1:]
    p = np.exp(log_normalize(theta))
    out = np.zeros((len(masks), *theta.shape))
    states = np.where(masks, vocab, np.array(answer)) @ (vocab + 1) ** np.arange(length)[::-1]
    for j, state in enumerate(states):
        for i in np.flatnonzero(masks[j]):
            out[j, state, i] = -weights[j] * p[state, i]
            out[j, state, i, answer[i]] += weights[j]
    return out


def every_mask(length):
    """All masks of the count scheme: ``(masks, weights L/l, probabilities)``."""
    masks = np.array([[i in s for i in range(length)] for s in masked_sets(length)])
    size = masks.sum(axis=1)
    return masks, length / size, np.array([1 / (length * math.comb(length, k)) for k in size])


def ratio_and_bound(d, a):
    """``R_elbo`` and ``R_lb`` of the log-ratios ``(n,)``: minus the losses of klsim."""
    zero = np.zeros((1, len(d)))
    return tuple(-float(loss(d[None], zero, [a])[0]) for loss in (elbo_ratio, bgpo))


WEIGHTS = {
    "bgpo": lambda d, a: np.where(a >= 0, a, a * np.exp(d)),
    "tangent": lambda d, a: a + 0.0 * d,
    "Jensen": lambda d, a: a * np.exp(d),
    "elbo": lambda d, a: a * np.exp(d.mean(axis=-1, keepdims=True)) + 0.0 * d,
}
"""``n_t dR/d ell_j`` of four objectives, ``(..., n_t)``; ``bgpo`` and ``elbo`` are those of `ratio_and_bound` (C2)."""


class Masked(NamedTuple):
    """Logits, a direction in which they move, an answer, and two independent sets of masks with their weights."""

    theta: np.ndarray
    noise: np.ndarray
    answer: tuple
    masks: np.ndarray
    weights: np.ndarray

    @classmethod
    def draw(cls, rng, length=3, vocab=3, n=6):
        theta, noise = random_theta(rng, length, vocab), random_theta(rng, length, vocab)
        masks, weights = count_scheme(length, 2 * n, rng)
        answer = tuple(int(v) for v in rng.integers(0, vocab, length))
        return cls(theta, noise, answer, masks.reshape(2, n, length), weights.reshape(2, n))

    @classmethod
    def draw_small(cls, rng):
        return cls.draw(rng, 3, 2, 1)

    def ell(self, drift=0.0, which=0):
        """``ell_j`` at ``theta + drift noise``."""
        return elbo_samples(
            model_of(self.theta + drift * self.noise), self.answer, self.masks[which], self.weights[which]
        )

    def log_ratios(self, drift, *, shared=True):
        """``d_j`` of ``theta + drift noise`` against ``theta``; not ``shared``: with other masks for the old policy."""
        return self.ell(drift) - self.ell(which=0 if shared else 1)

    def mean_gradient(self, drift=0.0):
        """``mean_j grad ell_j`` at ``theta + drift noise``."""
        moved = self.theta + drift * self.noise
        return sample_gradients(moved, self.answer, self.masks[0], self.weights[0]).mean(axis=0)

    def enumerated(self, drift):
        """Of every mask: its probability, ``d``, and ``grad ell`` (the coordinates that ever move)."""
        masks, weights, chance = every_mask(len(self.answer))
        moved = self.theta + drift * self.noise
        now, old = (elbo_samples(model_of(t), self.answer, masks, weights) for t in (moved, self.theta))
        gradients = sample_gradients(moved, self.answer, masks, weights).reshape(len(masks), -1)
        return chance, now - old, gradients[:, np.abs(gradients).sum(axis=0) > 0]


def gradient_moments(masks, a, drift, n, rule):
    """Exact mean of the gradient of ``rule`` over all draws of ``n`` masks, and its total variance."""
    chance, d, gradients = masks.enumerated(drift)
    picks = np.array(list(itertools.product(range(len(chance)), repeat=int(n))))
    p = chance[picks].prod(axis=1)
    drawn = np.einsum("tn,tnk->tk", WEIGHTS[rule](d[picks], a), gradients[picks]) / n
    mean = p @ drawn
    return mean, float(p @ np.sum((drawn - mean) ** 2, axis=1))


def mean_gradient(masks, a, drift, n, rule):
    r"""The same mean for any ``n``: masks are independent, so :math:`E[e^{\bar d}\bar g]=E[e^{d/n}g]\,(Ee^{d/n})^{n-1}`."""
    chance, d, gradients = masks.enumerated(drift)
    if rule == "bgpo":
        return (chance * WEIGHTS["bgpo"](d, a)) @ gradients
    tilted = chance * np.exp(d / n)
    return a * (tilted @ gradients) * tilted.sum() ** (n - 1)


def ratio_gradient(masks, a, drift):
    """``A exp(B - B_old) grad B`` of the exact ELBO."""
    chance, d, gradients = masks.enumerated(drift)
    return a * math.exp(chance @ d) * (chance @ gradients)


# memory ---------------------------------------------------------------------------------------------
SHAPES = ((48, 32), (32,), (32, 40), (40,))


class Denoiser(NamedTuple):
    """A denoiser (one-hot 8 x 6 -> 32 tanh -> 8 x 5): old parameters, how they moved, an answer, 64 masks."""

    old: tuple
    moved: tuple
    answer: np.ndarray
    masks: np.ndarray
    weights: np.ndarray

    @classmethod
    def draw(cls, rng):
        old = tuple(rng.standard_normal(s) / math.sqrt(s[0]) for s in SHAPES)
        moved = tuple(w + 0.03 * rng.standard_normal(w.shape) for w in old)
        return cls(old, moved, rng.integers(0, 5, 8), *count_scheme(8, 64, rng))

    def ell(self, j, parameters):
        """Weighted masked log-likelihood on mask j, ``(1, 1)``."""
        import torch

        shown = torch.tensor(np.where(self.masks[j], 5, self.answer))
        w1, b1, w2, b2 = parameters
        one_hot = torch.nn.functional.one_hot(shown, 6).double().reshape(-1)
        logits = (torch.tanh(one_hot @ w1 + b1) @ w2 + b2).reshape(8, 5)
        log_p = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(self.answer)[:, None])[:, 0]
        return (float(self.weights[j]) * (log_p * torch.tensor(self.masks[j])).sum()).reshape(1, 1)

    def losses(self, method, n, a, parameters):
        """Closures whose gradients add up: one for every mask, or a single one for all of them."""
        import torch

        advantage = torch.tensor([a], dtype=torch.float64)
        with torch.no_grad():
            old = torch.cat([self.ell(j, [torch.tensor(w) for w in self.old]) for j in range(n)], dim=1)
            now = torch.cat([self.ell(j, parameters) for j in range(n)], dim=1)
            level = now - (now - old).mean()  # the old value at which mask j has the mean log-ratio

        def together(loss):
            return [lambda: loss(torch.cat([self.ell(j, parameters) for j in range(n)], dim=1), old, advantage)[0]]

        def one_by_one(loss, before):
            return [lambda j=j: loss(self.ell(j, parameters), before[:, j : j + 1], advantage)[0] / n for j in range(n)]

        return {
            "bgpo": lambda: one_by_one(bgpo, old),
            "bgpo, one pass": lambda: together(bgpo),
            "elbo": lambda: together(elbo_ratio),
            "elbo, two passes": lambda: one_by_one(elbo_two_pass, level),
            "elbo, naive": lambda: one_by_one(elbo_ratio, old),
        }[method]()

    def gradient(self, method, n, a):
        """The flat gradient on the first ``n`` masks, and the peak of the bytes that autograd keeps."""
        import torch

        parameters = [torch.tensor(w).requires_grad_() for w in self.moved]
        losses, kept = self.losses(method, n, a, parameters), _Bytes()
        total = [torch.zeros_like(p) for p in parameters]
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda holder: holder.tensor):
            for loss in losses:
                for t, g in zip(total, torch.autograd.grad(loss(), parameters)):
                    t += g
        return np.concatenate([t.numpy().ravel() for t in total]), float(kept.peak)


class _Bytes:
    """Counts saved tensors, and forgets those that autograd drops."""

    def __init__(self):
        self.now = self.peak = 0

    def pack(self, tensor):
        size = tensor.numel() * tensor.element_size()
        self.now += size
        self.peak = max(self.peak, self.now)
        # detached: an output that its own graph saves would be a cycle, and stay until the garbage collector comes
        return _Saved(tensor.detach(), partial(self.release, size))

    def release(self, size):
        self.now -= size


class _Saved:
    """Keeps a saved tensor and reports its deletion."""

    def __init__(self, tensor, on_delete):
        self.tensor, self.on_delete = tensor, on_delete

    def __del__(self):
        self.on_delete()


# training -------------------------------------------------------------------------------------------
LENGTH, VOCAB, GROUP = 4, 3, 8
PLACE = (VOCAB + 1) ** np.arange(LENGTH)[::-1]
WORDS = list(itertools.product(range(VOCAB), repeat=LENGTH))
REWARD = np.array([np.mean([(b - a) % VOCAB == 1 for a, b in itertools.pairwise(y)]) for y in WORDS])


def rollouts(rng, theta):
    """GROUP random-order samples of every run: tokens ``(runs, G, L)``."""
    runs, size = np.arange(len(theta))[:, None], (len(theta), GROUP)
    tokens = np.full((*size, LENGTH), VOCAB)
    orders = np.argsort(rng.random(tokens.shape), axis=-1)
    for at in np.moveaxis(orders, -1, 0):
        rows = np.cumsum(np.exp(log_normalize(theta[runs, tokens @ PLACE, at])), axis=-1)
        drawn = np.minimum((rng.random((*size, 1)) > rows).sum(axis=-1), VOCAB - 1)
        np.put_along_axis(tokens, at[..., None], drawn[..., None], axis=-1)
    return tokens


def train(seed, runs, n, *, epochs=1, rule="bgpo", lr=4.0, clamp=math.inf, steps=60):
    """Final exact rewards ``(runs,)`` of tabular training; NaN where it overflowed. The seed fixes the starts for every ``n``."""
    rng = np.random.default_rng(seed)
    theta = np.array([random_theta(rng, LENGTH, VOCAB, 0.3) for _ in range(runs)])
    alive, run = np.ones(runs, dtype=bool), np.arange(runs)[:, None, None]
    for _ in range(steps):
        tokens = rollouts(rng, theta)
        reward = REWARD[tokens @ VOCAB ** np.arange(LENGTH)[::-1]]
        spread = reward.std(axis=1, keepdims=True)
        a = np.where(spread > 1e-12, (reward - reward.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-12), 0.0)
        masks, weights = count_scheme(LENGTH, runs * GROUP * n, rng)
        masks, weights = masks.reshape(runs, GROUP, n, LENGTH), weights.reshape(runs, GROUP, n)
        states = np.where(masks, VOCAB, tokens[:, :, None]) @ PLACE
        chosen = np.eye(VOCAB)[tokens][:, :, None]
        old = None
        for _ in range(epochs):
            log_p = log_normalize(theta[run, states])
            now = weights * np.sum(log_p * chosen * masks[..., None], axis=(-2, -1))
            old = now if old is None else old
            with np.errstate(over="ignore", invalid="ignore"):
                factor = WEIGHTS[rule](np.minimum(now - old, clamp), a[..., None])
                pull = (factor * weights)[..., None] * masks / (GROUP * n)
                np.add.at(theta, (run, states), lr * pull[..., None] * (chosen - np.exp(log_p)))
            lost = ~np.isfinite(theta).all(axis=(1, 2, 3))
            alive, theta[lost] = alive & ~lost, 0.0
    final = [np.exp(output_law(model_of(logits))) @ REWARD for logits in theta]
    return np.where(alive, final, math.nan)
