"""What the claims and figures of tricks-or-traps share: normalised advantages of many batches, and four small worlds."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from klsim.distributions import log_normalize
from klsim.learning import Adam
from klsim.learning.length_weights import token_mean_weights
from klsim.objectives.advantages import advantages, batch_mean, batch_std, group_mean, group_std, no_scale

#: the four estimators: baseline and scale
ESTIMATORS = {
    "group": (group_mean, group_std),
    "batch": (batch_mean, batch_std),
    "mean only": (group_mean, no_scale),
    "mix": (group_mean, batch_std),
}


def estimate(kind, rewards):
    """Advantages of a batch ``(N, K)`` by the library."""
    baseline, scale = ESTIMATORS[kind]
    group = np.repeat(np.arange(len(rewards)), rewards.shape[1])
    return advantages(rewards.ravel(), group, baseline=baseline, scale=scale).reshape(rewards.shape)


def normalised(kind, rewards):
    """The same for batches ``(..., N, K)`` at once: for the simulations."""
    centre = (-2, -1) if kind == "batch" else (-1,)
    centred = rewards - rewards.mean(axis=centre, keepdims=True)
    if kind == "mean only":
        return centred
    std = rewards.std(axis=(-1,) if kind == "group" else (-2, -1), keepdims=True)
    return np.where(std > 1e-12, centred / np.where(std > 1e-12, std, 1.0), 0.0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def all_groups(size):
    """All ``2^K`` reward vectors, and their probabilities as a function of p."""
    rewards = np.array(list(itertools.product((0.0, 1.0), repeat=size)))
    right = rewards.sum(axis=1)
    return rewards, lambda p: p**right * (1 - p) ** (size - right)


# C3, C4: solved prompts under the normalisations ------------------------------------------------------
def drift(rngs, kind, steps=400, lr=0.3, record=()):
    """Mean entropy of 8 solved prompts (3 equally right answers) among 8 hopeless ones, ``(seeds, records + 1)``."""
    logits, path = np.zeros((len(rngs), 8, 3)), []
    for step in range(steps):
        if step in record:
            path.append(_entropy(logits))
        pi = np.exp(log_normalize(logits))
        u = np.array([r.random((8, 8)) for r in rngs])
        answers = (u[..., None] > np.cumsum(pi, axis=-1)[:, :, None, :2]).sum(axis=-1)
        rewards = np.concatenate([np.ones_like(u), np.zeros_like(u)], axis=1)
        a = normalised(kind, rewards)[:, :8]
        drawn = answers[..., None] == np.arange(3)
        logits = logits + lr * np.mean(a[..., None] * (drawn - pi[:, :, None]), axis=2)
    path.append(_entropy(logits))
    return np.array(path).T


def _entropy(logits):
    log_pi = log_normalize(logits)
    return -np.sum(np.exp(log_pi) * log_pi, axis=-1).mean(axis=-1)


def style(rngs, kind, *, half_hard=False, bonus=0.01, steps=300, lr=0.05, record=()):
    """P(style bit), ``(seeds, records + 1)``: 16 prompts solved with .98, the shared bit adds ``bonus`` to the reward."""
    logit, path = np.zeros(len(rngs)), []
    success = np.where(np.arange(16) % 2 * half_hard, 0.02, 0.98)[:, None]
    for step in range(steps):
        if step in record:
            path.append(sigmoid(logit))
        u = np.array([r.random((2, 16, 8)) for r in rngs])
        on = sigmoid(logit)[:, None, None]
        bit = u[:, 0] < on
        a = normalised(kind, (u[:, 1] < success) + bonus * bit)
        logit = logit + lr * 4 * np.mean(a * (bit - on), axis=(1, 2))
    path.append(sigmoid(logit))
    return np.array(path).T


# C5: a tabular token process --------------------------------------------------------------------------
STOP = 2
PREFIXES = ((), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1))
LOGITS = np.array(
    [[0.5, 0, -0.5], [0, 0.5, 0], [-0.5, 0.5, 0.5], [1, -1, 0], [0, 0, 1], [-1, 1, 0], [0.5, -0.5, 0]], dtype=float
)


def _responses():
    out, open_ = [], [()]
    for _ in range(3):
        longer = [(*prefix, token) for prefix in open_ for token in range(3)]
        out += [y for y in longer if y[-1] == STOP or len(y) == 3]
        open_ = [y for y in longer if y[-1] != STOP and len(y) < 3]
    return out


RESPONSES = _responses()
LENGTHS = np.array([len(y) for y in RESPONSES])
REWARD = np.array([float(y[0] == 0) for y in RESPONSES])  # right iff the first token is a
MASK = np.arange(3) < LENGTHS[:, None]
TOKENS = np.array([y + (0,) * (3 - len(y)) for y in RESPONSES])
NODES = np.array([[PREFIXES.index(y[: min(t, len(y) - 1)]) for t in range(3)] for y in RESPONSES])


def token_log_probs(logits):
    """Of the 15 responses, ``(15, 3)``, 0 after the end."""
    return np.where(MASK, log_normalize(logits)[NODES, TOKENS], 0.0)


def law(logits):
    return np.exp(token_log_probs(logits).sum(axis=1))


def scores(logits):
    """``grad log`` of the responses' probabilities in the logits, ``(15, 21)``."""
    step = (np.eye(3)[TOKENS] - np.exp(log_normalize(logits))[NODES]) * MASK[..., None]
    out = np.zeros((len(RESPONSES), len(PREFIXES), 3))
    np.add.at(out, (np.arange(15)[:, None], NODES), step)
    return out.reshape(15, -1)


def slopes(function, logits, h=1e-5):
    """Central differences of a scalar in the logits, ``(21,)``."""
    steps = h * np.eye(logits.size).reshape(-1, *logits.shape)
    return np.array([function(logits + e) - function(logits - e) for e in steps]) / (2 * h)


# C5: a response that reveals early whether it is right ------------------------------------------------
class Branch(NamedTuple):
    """First token right with probability ``p``; then a branch of ``L = 1 + Geom`` tokens, at most 31."""

    p: float
    right: float = math.log(0.7 / 0.3)  # continue logits
    wrong: float = math.log(0.7 / 0.3)

    @staticmethod
    def lengths(logit):
        """``(|o|, their law, score of the continue logit)``."""
        c, more = sigmoid(logit), np.arange(31)
        law = c**more * np.where(more < 30, 1 - c, 1.0)
        return more + 2, law, more * (1 - c) - np.where(more < 30, c, 0.0)

    def pushes(self, *, token=False):
        """``(right, wrong)``: gradient of the loss's aggregate in the two continue logits, baseline p."""
        out = []
        for chance, reward, logit in ((self.p, 1.0, self.right), (1 - self.p, 0.0, self.wrong)):
            length, law, score = self.lengths(logit)
            weight = np.full(length.size, 1 / self.mean_length()) if token else token_mean_weights(length, law, 1)
            out.append(chance * (reward - self.p) * float(law @ (weight * score)))
        return np.array(out)

    def mean_length(self):
        right, wrong = (length @ law for length, law, _ in map(self.lengths, (self.right, self.wrong)))
        return self.p * right + (1 - self.p) * wrong


# C7: truncation ---------------------------------------------------------------------------------------
class Truncated(NamedTuple):
    """``L = 1 + Geom(sigmoid(logit))`` cut at ``cap``; a finished response is right with ``success[L - 1]``."""

    logit: float
    success: np.ndarray

    @property
    def cap(self):
        return self.success.size

    def law(self):
        """``(probabilities, rewards, finished, scores in the logit)`` of wrong and right ones by length, and the truncated one."""
        c, k = sigmoid(self.logit), np.arange(self.cap)
        ends, cut = c**k * (1 - c), c**self.cap
        probs = np.r_[ends * (1 - self.success), ends * self.success, cut]
        score = k * (1 - c) - c
        rewards = np.r_[np.zeros(self.cap), np.ones(self.cap), 0.0]
        return probs, rewards, np.arange(probs.size) < 2 * self.cap, np.r_[score, score, self.cap * (1 - c)]

    @property
    def finished(self):
        return 1 - sigmoid(self.logit) ** self.cap

    def rate(self, logit=None):
        """``E[r | finished]``."""
        c = sigmoid(self.logit if logit is None else logit)
        law = c ** np.arange(self.cap) * (1 - c)
        return law @ self.success / law.sum()


def multisets(probs, size):
    """``(members, probability)`` of all multisets of ``size`` outcomes."""
    rows = np.array(list(itertools.combinations_with_replacement(range(probs.size), size)))
    ways = [math.factorial(size) / math.prod(map(math.factorial, np.unique(r, return_counts=True)[1])) for r in rows]
    return rows, np.array(ways) * probs[rows].prod(axis=1)


# C8: Lite PPO against GRPO ----------------------------------------------------------------------------
class Shortcut(NamedTuple):
    """16 easy and 16 hard prompts, shared filler and style logits; ``norm`` of `ESTIMATORS`, ``tokens``: token mean."""

    norm: str
    tokens: bool
    bonus: float = 0.02
    filler: float = 0.85
    steps: int = 250
    lr: float = 0.05

    def success(self, weights, phi, s):
        """Accuracy, exact, ``(seeds,)``."""
        pi = np.exp(log_normalize(weights))[..., 0]
        m, f = np.arange(21), sigmoid(phi)[:, None]
        law = f**m * np.where(m < 20, 1 - f, 1.0)
        spoilt = 1 - 0.5 * sigmoid(s)[:, None] * (np.arange(32) >= 16)
        return (pi * spoilt).mean(axis=1) * (law @ self.filler**m)


def train(rngs, world, record=()):
    """``(accuracy, P(style))`` after the recorded steps and at the end, ``(2, seeds, records + 1)``."""
    seeds = len(rngs)
    easy = np.where(np.arange(32) < 16, 3.5, -1.0)[:, None] * (np.arange(5) == 0)
    parameters, optimiser = (
        np.concatenate([np.tile(easy.ravel(), (seeds, 1)), np.zeros((seeds, 2))], axis=1),
        Adam(world.lr),
    )
    path = []
    for step in range(world.steps + 1):
        weights, phi, s = parameters[:, :-2].reshape(seeds, 32, 5), parameters[:, -2], parameters[:, -1]
        if step in record or step == world.steps:
            path.append((world.success(weights, phi, s), sigmoid(s)))
        if step < world.steps:
            parameters, optimiser = optimiser.step(parameters, _gradient(rngs, world, weights, phi, s))
    return np.array(path).transpose(1, 2, 0)


def _gradient(rngs, world, weights, phi, s):
    """One batch of 16 prompts x 8 a seed: style bit, filler, answer; ``(seeds, 162)``."""
    seeds, rows = len(rngs), np.arange(len(rngs))[:, None]
    prompts = np.array([r.permutation(32)[:16] for r in rngs])
    u = np.array([r.random((4, 16, 8)) for r in rngs])
    pi = np.exp(log_normalize(weights[rows, prompts]))
    f, on = sigmoid(phi)[:, None, None], sigmoid(s)[:, None, None]
    bit = u[:, 0] < on
    filler = np.minimum(np.floor(np.log(u[:, 1]) / np.log(f)), 20)
    answer = (u[:, 2, ..., None] > np.cumsum(pi, axis=-1)[:, :, None, :4]).sum(axis=-1)
    hard = (prompts >= 16)[..., None]
    success = u[:, 3] < (answer == 0) * world.filler**filler * (1 - 0.5 * (bit & hard))
    a, length = normalised(world.norm, success + world.bonus * bit), filler + 3
    weight = a / length.sum(axis=(1, 2), keepdims=True) if world.tokens else a / (length * 128)
    out = np.zeros((seeds, 162))
    per_prompt = np.sum(weight[..., None] * ((answer[..., None] == np.arange(5)) - pi[:, :, None]), axis=2)
    out[:, :-2].reshape(seeds, 32, 5)[rows, prompts] = per_prompt
    out[:, -2] = np.sum(weight * (filler * (1 - f) - f * (filler < 20)), axis=(1, 2))
    out[:, -1] = np.sum(weight * (bit - on), axis=(1, 2))
    return out
