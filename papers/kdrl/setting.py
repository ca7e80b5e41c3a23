r"""What the claims and figures of kdrl share: a linear student on a token tree, and the world in which the methods train.

Notation: student ``pi``, teacher ``T``, ``R = log T/pi`` of a token, ``beta`` the coefficient of distillation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import expit, logit

from klsim.distributions import expectation, log_normalize
from klsim.divergences import kl
from klsim.objectives import TokenBatch
from klsim.problems.token_tree import sequence_log_probs, tokens

V, H, FEATURES = 3, 3, 5


# a student with shared features ----------------------------------------------------------------------
class Student(NamedTuple):
    """Log-linear on a tree of 3 tokens and 3 steps; a teacher, and 0/1 rewards of which both occur."""

    phi: tuple
    theta: np.ndarray
    teacher: tuple
    reward: np.ndarray

    @classmethod
    def draw(cls, rng):
        phi = tuple(rng.standard_normal((V**t, V, FEATURES)) for t in range(H))
        reward = (rng.random(V**H) < 0.3).astype(float)
        reward[rng.permutation(V**H)[:2]] = (0.0, 1.0)
        return cls(
            phi,
            rng.standard_normal(FEATURES),
            tuple(log_normalize(rng.standard_normal((V**t, V))) for t in range(H)),
            reward,
        )

    def policy(self, theta):
        return tuple(log_normalize(x @ theta) for x in self.phi)

    @property
    def pi(self):
        return self.policy(self.theta)

    @property
    def law(self):
        """Probabilities of all sequences."""
        return np.exp(sequence_log_probs(self.pi))

    def batch(self, theta=None, rows=slice(None), **more):
        """The sequences ``rows`` as a batch, drawn by the policy at ``self.theta``, scored by that at ``theta``."""
        y = tokens(V, H)[rows]
        nodes = [y[:, :t] @ V ** np.arange(t)[::-1] for t in range(H)]

        def sampled(levels):
            return np.stack([levels[t][nodes[t], y[:, t]] for t in range(H)], axis=1)

        now = self.pi if theta is None else self.policy(theta)
        return TokenBatch(sampled(now), old_log_probs=sampled(self.pi), teacher_log_probs=sampled(self.teacher), **more)

    def scores(self, rows=slice(None)):
        """``grad log pi(y_t|.)`` of the sequences, ``(rows, H, features)``."""
        levels = [x - np.einsum("sa,saf->sf", np.exp(p), x)[:, None] for p, x in zip(self.pi, self.phi)]
        return np.stack(
            [np.repeat(s.reshape(-1, FEATURES), V ** (H - 1 - t), axis=0) for t, s in enumerate(levels)], axis=1
        )[rows]

    def gaps(self):
        """``log(pi/T)`` of every token of every sequence, ``(V**H, H)``."""
        batch = self.batch()
        return batch.log_probs - batch.teacher_log_probs

    def gradient(self, value, h=1e-5):
        """Central differences of ``value(theta)``: truncation h², rounding eps / h, 1e-10 of the value's scale."""
        return np.array([value(self.theta + e) - value(self.theta - e) for e in h * np.eye(FEATURES)]) / (2 * h)

    def pieces(self):
        """Law of sequences, gaps and scores: what expected gradients are made of."""
        return self.law, self.gaps(), self.scores()


def joint_gradient(pieces, reward, beta, *, std=True, discount=0.0):
    """Expected ascent of the joint loss with an infinite group, summed over tokens; ``discount`` (0 or 1) of the KL credit."""
    law, gaps, scores = pieces
    p = law @ reward
    advantage = (reward - p) / (math.sqrt(p * (1 - p)) if std else 1.0)
    cost = gaps if discount == 0 else np.cumsum(gaps[:, ::-1], axis=1)[:, ::-1]
    return np.einsum("y,yt,ytf->f", law, advantage[:, None] - beta * cost, scores)


def exact_gradient(pieces, reward, beta):
    """``grad (E r - beta KL(pi‖T))`` of sequences."""
    law, gaps, scores = pieces
    return np.einsum("y,y,ytf->f", law, reward - beta * gaps.sum(axis=1), scores)


def value(log_pi, log_teacher, reward, beta):
    """``E r - beta KL(pi‖T)`` of laws, and the size of its terms."""
    gain, cost = expectation(log_pi, reward), beta * kl(log_pi, log_teacher)
    return gain - cost, 1 + cost


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


class Tree(NamedTuple):
    """A teacher on a tree of 3 tokens and 4 steps, and 0/1 rewards of which both occur."""

    teacher: tuple
    reward: np.ndarray

    @classmethod
    def draw(cls, rng, horizon=4):
        reward = (rng.random(3**horizon) < 0.15).astype(float)
        reward[rng.permutation(3**horizon)[:2]] = (0.0, 1.0)
        return cls(tuple(log_normalize(rng.standard_normal((3**t, 3))) for t in range(horizon)), reward)

    @property
    def law(self):
        return sequence_log_probs(self.teacher)


class Arms(NamedTuple):
    """Six arms, the first two right; logits of the teacher and of the student's start."""

    teacher: np.ndarray
    start: np.ndarray
    beta: float

    @classmethod
    def draw(cls, rng):
        return cls(*log_normalize(rng.standard_normal((2, 6))), rng.uniform(0.3, 1.5))

    @property
    def right(self):
        return (np.arange(6) < 2).astype(float)


# success rates: the flow of a logit --------------------------------------------------------------------
RUNAWAY = 18.0


def flow(slope, teacher, beta, start):
    """The end of the flow from ``logit p = start``, stopped at 18."""

    def gone(t, x):
        return x[0] - RUNAWAY

    gone.terminal = True
    run = solve_ivp(lambda t, x: [slope(x[0]) - beta * (x[0] - logit(teacher))], (0, 400 / beta), [start], method="LSODA",
                    events=gone, rtol=1e-11, atol=1e-11)  # fmt: skip
    return float(run.y[0, -1])


def infinite(x):
    return 2 * math.cosh(x / 2)


def grouped(size):
    """``dJ/dp`` at ``logit p = x`` for groups of ``size``: the expected std over ``p (1-p)``, term by term."""
    ways = [(k, math.comb(size, k) * math.sqrt(k * (size - k)) / size) for k in range(1, size)]

    def slope(x):
        p = float(expit(-abs(x)))
        return sum(w * p ** (k - 1) * (1 - p) ** (size - k - 1) for k, w in ways)

    return slope


def top_kl(pi, teacher, top, form):
    """The reverse KL over the tokens of ``top``: "plain", "renormalised", or with a "tail"."""
    inside = np.sum(np.where(top, np.exp(pi) * (pi - teacher), 0.0), axis=-1)
    masses = [[np.logaddexp.reduce(np.where(side, x, -np.inf), axis=-1) for side in (top, ~top)] for x in (pi, teacher)]
    (mass, rest), (own, other) = masses
    if form == "plain":
        return inside
    if form == "renormalised":
        return inside / np.exp(mass) - (mass - own)
    return inside + np.exp(rest) * (rest - other)


# the methods ------------------------------------------------------------------------------------------
TOKENS, LENGTH, GROUP, PROMPTS, STEPS = 4, 5, 8, 16, 150


class World:
    """Prompts with an answer of 5 tokens out of 4, a tabular student, a teacher that knows three quarters of them well."""

    def __init__(self, rngs, *, right=(0.88, 0.45)):
        """``right``: the teacher's probability of the right token on the answer's path, for 12 and for 4 prompts."""
        shape = [(PROMPTS, TOKENS**t, TOKENS) for t in range(LENGTH)]
        drawn = [
            [0.3 * rng.standard_normal(s) for s in shape] + [rng.integers(TOKENS, size=(PROMPTS, LENGTH))]
            for rng in rngs
        ]
        self.seeds = len(rngs)
        *self.start, self.answer = (np.concatenate(level) for level in zip(*drawn))
        self.right = np.tile(np.where(np.arange(PROMPTS) < 12, *right), self.seeds)[:, None]

    def score(self, logits):
        """Exact probability of the answer, mean over prompts; one a seed."""
        rows, node, total = np.arange(len(self.answer)), 0, 0.0
        for t, level in enumerate(logits):
            total = total + log_normalize(level[rows, node])[rows, self.answer[:, t]]
            node = node * TOKENS + self.answer[:, t]
        return np.exp(total).reshape(self.seeds, PROMPTS).mean(axis=1)

    def _roll(self, logits, rng, *, by_teacher):
        """A group for every prompt, token by token: places of the node's logits ``(TOKENS, prompts, G)``, probabilities, token, ``R``;
        and which responses are right."""
        count = len(self.answer)
        first, vocabulary = np.arange(count)[:, None], np.arange(TOKENS)[:, None, None]
        node, on_path, out = np.zeros((count, GROUP), dtype=int), np.ones((count, GROUP), dtype=bool), []
        for t, level in enumerate(logits):
            place, answer = (first * TOKENS**t + node) * TOKENS + vocabulary, self.answer[:, t, None]
            p = np.exp(level.reshape(-1)[place])
            p /= p.sum(axis=0)
            wanted = np.where(on_path, self.right, 1 / TOKENS)
            if by_teacher:
                other = (answer + rng.integers(1, TOKENS, size=node.shape)) % TOKENS
                token = np.where(rng.random(node.shape) < wanted, answer, other)
            else:
                token = np.sum(rng.random(node.shape) > np.cumsum(p, axis=0)[:-1], axis=0)
            own = np.take_along_axis(p, token[None], axis=0)[0]
            out.append((place, p, token, np.log(np.where(token == answer, wanted, (1 - wanted) / (TOKENS - 1)) / own)))
            node, on_path = node * TOKENS + token, on_path & (token == answer)
        return out, on_path.astype(float)

    def train(self, rng, beta, *, reward=True, mask="all", estimator="k2", sft=False, steps=STEPS, lr=1.0, record=()):
        """Scores after the steps in ``record`` (default: the last), ``(len(record), seeds)``.

        ``beta``: a coefficient, or a function of the step. ``mask``: "all", "response", "group", or "kept" (responses, averaged
        over those that are kept). ``sft``: the teacher draws, and right responses are imitated.
        """
        logits, scores, record = [level.copy() for level in self.start], [], record or (steps,)
        prompts, samples = np.indices((len(self.answer), GROUP))
        for step in range(steps + 1):
            if step in record:
                scores.append(self.score(logits))
            if step == steps:
                break
            rolls, r = self._roll(logits, rng, by_teacher=sft)
            advantage = (
                (r - r.mean(axis=1, keepdims=True)) / (r.std(axis=1, keepdims=True) + 1e-6) if reward else 0.0 * r
            )
            kept = kept_responses(r, mask)
            now = beta(step) if callable(beta) else beta
            for level, (place, p, token, gap) in zip(logits, rolls):
                weight = r if sft else advantage + now * kept * (gap if estimator == "k2" else np.expm1(gap))
                ascent = -weight * p
                ascent[token, prompts, samples] += weight
                np.add.at(level.reshape(-1), place.ravel(), lr / GROUP * ascent.ravel())
        return np.array(scores)


def kept_responses(r, mask):
    """Weights of the distillation term for rewards ``(groups, G)``."""
    wrong = 1.0 - r
    if mask == "all":
        return np.ones_like(r)
    if mask == "group":
        return np.broadcast_to(wrong.min(axis=1, keepdims=True), r.shape)
    return wrong if mask == "response" else wrong * r.shape[1] / np.maximum(wrong.sum(axis=1, keepdims=True), 1.0)


def annealed(start, end, over=75):
    """``beta`` from ``start`` to ``end``, linearly over the first steps."""
    return lambda step: start + (end - start) * min(step / over, 1.0)
