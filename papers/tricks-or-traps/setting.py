"""What the claims and figures of tricks-or-traps share: normalised advantages of many batches, and four small worlds."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from klsim.claims import assume, shared
from klsim.distributions import log_normalize
from klsim.learning import Adam
from klsim.learning.clipped_ascent import clipped_ascent, clipped_gradient
from klsim.learning.length_weights import token_mean_weights
from klsim.learning.normalisation import normalised_weights, variance_of_baseline
from klsim.objectives import TokenBatch
from klsim.objectives.advantages import advantages, batch_mean, batch_std, group_mean, group_std, no_scale
from klsim.objectives.overlong import filtered_advantages
from klsim.objectives.policy_gradient import surrogate

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


def by_groups(rewards, scale):
    """Advantages with the group's mean where every row ``(groups, K)`` is a group."""
    group = np.repeat(np.arange(len(rewards)), rewards.shape[1])
    return advantages(rewards.ravel(), group, scale=scale).reshape(rewards.shape)


def centred_first(rewards):
    """mix with the std of the centred rewards."""
    centred = estimate("mean only", rewards)
    group = np.repeat(np.arange(len(rewards)), rewards.shape[1])
    return advantages(centred.ravel(), group, baseline=batch_mean, scale=batch_std)


def bare(rewards):
    """group without a threshold for rounding: zeros only where the std is exactly 0."""
    std = rewards.std(axis=1, keepdims=True)
    return np.where(std > 0, (rewards - rewards.mean(axis=1, keepdims=True)) / np.where(std > 0, std, 1), 0.0)


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


def all_groups(size, p):
    """All ``2^K`` reward vectors, and their probabilities."""
    rewards = np.array(list(itertools.product((0.0, 1.0), repeat=size)))
    right = rewards.sum(axis=1)
    return rewards, p**right * (1 - p) ** (size - right)


@shared
def _patterns(outcomes, size):
    """Members of all multisets, and in how many orders each can be drawn."""
    rows = np.array(list(itertools.combinations_with_replacement(range(outcomes), size)))
    ways = [math.factorial(size) / math.prod(map(math.factorial, np.unique(r, return_counts=True)[1])) for r in rows]
    return rows, np.array(ways)


def multisets(probs, size):
    """``(members, probability)`` of all multisets of ``size`` outcomes."""
    rows, ways = _patterns(probs.size, size)
    return rows, ways * probs[rows].prod(axis=1)


def half_and_half(prompts, baseline):
    """Weights at p = .2 and .7 in batches with half of the prompts at each, K = 4, by number of prompts."""
    found = [normalised_weights([0.2, 0.7] * (q // 2), 4, baseline=baseline)[:2] for q in prompts]
    return dict(zip((0.2, 0.7), np.array(found).T))


def clear(*batches):
    """No spread so small that a shift's rounding shows."""
    assume(all(r.std(axis=1).min() > 1e-2 for r in batches))


TINY = 10.0 ** -np.arange(1, 8)


def with_nuisance(kind, eps, hard=True):
    """Advantages of a solved group in which two of four get ``eps`` more, beside a hopeless group if ``hard``."""
    return estimate(kind, np.array([[1.0, 1, 1, 1], [0, 0, 0, 0]])[: 1 + hard] + eps * np.array([1.0, 0, 0, 1]))[0]


def of_an_answer(p, baseline, tokens):
    """One-sample variance with one answer logit of success p, and ``tokens`` fair one-logit tokens."""
    return variance_of_baseline([p, 1 - p], [[1 - p], [-p]], [1.0, 0.0], baseline, extra=tokens / 4)


def closed_variance(p, m, squared=1):
    """Of the answer alone, by hand."""
    return p * (1 - p) ** 2 * (1 - m) ** 2 + (1 - p) * p**2 * m**2 - squared * (p * (1 - p)) ** 2


def bandit(z):
    """``(pi, scores)``."""
    pi = np.exp(log_normalize(z))
    return pi, np.eye(z.size) - pi


# C3, C4: solved prompts under the normalisations ------------------------------------------------------
def drift(rngs, kind, steps=400, lr=0.3, record=()):
    """Mean entropy of 8 solved prompts (3 equally right answers) among 8 hopeless ones, ``(seeds, records + 1)``."""
    logits, path = np.zeros((len(rngs), 8, 3)), []
    draws = np.array([r.random((steps, 8, 8)) for r in rngs])
    for step in range(steps):
        if step in record:
            path.append(_entropy(logits))
        pi, u = np.exp(log_normalize(logits)), draws[:, step]
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
    draws = np.array([r.random((steps, 2, 16, 8)) for r in rngs])
    for step in range(steps):
        if step in record:
            path.append(sigmoid(logit))
        u = draws[:, step]
        on = sigmoid(logit)[:, None, None]
        bit = u[:, 0] < on
        a = normalised(kind, (u[:, 1] < success) + bonus * bit)
        logit = logit + lr * 4 * np.mean(a * (bit - on), axis=(1, 2))
    path.append(sigmoid(logit))
    return np.array(path).T


def enumerated_variance(p, m, tokens):
    """Trace of the covariance of ``(r - m) S`` over the answer and ``tokens`` fair bits."""
    chance, vectors = [], []
    for r, *bits in itertools.product((0, 1), repeat=tokens + 1):
        chance.append((p if r else 1 - p) * 0.5**tokens)
        vectors.append((r - m) * (np.r_[r, bits] - np.r_[p, np.full(tokens, 0.5)]))
    return np.trace(np.atleast_2d(np.cov(np.array(vectors).T, aweights=chance, ddof=0)))


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


def expected_loss(old, new, b, aggregate, size):
    """The library's surrogate for all batches of ``size`` responses of the policy ``old``."""
    rows, chance = multisets(law(old), size)
    now, before = token_log_probs(new), token_log_probs(old)
    batches = (TokenBatch(now[r], mask=MASK[r], old_log_probs=before[r]) for r in rows)
    losses = [float(surrogate(batch, REWARD[r] - b, aggregate=aggregate)[0]) for batch, r in zip(batches, rows)]
    return chance @ losses


def loss_slope(z, along, b, aggregate, size):
    """Minus the slope of that loss in a direction, at the policy z, by central differences."""
    ends = [expected_loss(z, z + h * along, b, aggregate, size) for h in (1e-5, -1e-5)]
    return (ends[1] - ends[0]) / 2e-5


def sequence_update(z, size):
    """The sequence mean's expected update with the group's mean as baseline, over all groups, ``(21,)``."""
    rows, chance = multisets(law(z), size)
    a = by_groups(REWARD[rows], scale=no_scale) / LENGTHS[rows]
    return np.einsum("bk,bkp,b->p", a, scores(z)[rows], chance) / size


def token_bias(b):
    """The token mean's largest bias at G = 1 to 4, and the cosine between G = 1 and the limit, at `LOGITS`."""
    p, x = law(LOGITS), (REWARD - b)[:, None] * scores(LOGITS)
    limit, *found = p @ x / (p @ LENGTHS), *((p * token_mean_weights(LENGTHS, p, size)) @ x for size in (1, 2, 3, 4))
    cosine = found[0] @ limit / np.linalg.norm(found[0]) / np.linalg.norm(limit)
    return [np.abs(f - limit).max() for f in found], cosine


def enumerated_weights(z, size, *, own=1, more=0):
    """``E[G/(own |o| + L_2 + … + L_G)]`` over all others, ``more`` of them than G - 1."""
    chance, total = np.ones(1), np.zeros(1)
    for _ in range(size - 1 + more):
        chance, total = np.multiply.outer(chance, law(z)).ravel(), np.add.outer(total, LENGTHS).ravel()
    return (size / (own * LENGTHS[:, None] + total + (1 - own))) @ chance


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

    def slopes(self, centred=1, more=0):
        """Of ``P(branch) (r - p) E[1/|o| | branch]`` in the branches' logits, by central differences."""
        out = []
        for chance, reward, logit in ((self.p, 1.0, self.right), (1 - self.p, 0.0, self.wrong)):
            ends = [x @ (1.0 / (length - more)) for length, x, _ in map(self.lengths, (logit + 1e-5, logit - 1e-5))]
            out.append(chance * (reward - centred * self.p) * (ends[0] - ends[1]) / 2e-5)
        return np.array(out)

    def mean_length(self):
        right, wrong = (length @ law for length, law, _ in map(self.lengths, (self.right, self.wrong)))
        return self.p * right + (1 - self.p) * wrong


# C6: a low-entropy bandit with a rare good arm --------------------------------------------------------
KNOWN = {"entropy": [0.217, 0.285, 0.341], "growth": [1.214, 1.323, 1.397]}  # at eps_high = .2, .28, .32
START, PAY = np.log(np.r_[0.94, np.full(6, 0.01)]), np.r_[0.5, 1.0, np.zeros(5)]


def updates(high, low=0.2, inner=3000):
    """Policies along 6 updates, ``(B, 7, 7)``."""
    return clipped_ascent(START, PAY, low=low, high=high, updates=6, inner_steps=inner, lr=0.1)


def clipped_objective(log_old, advantage, low, high):
    """Of logits: the library's clipped surrogate over all arms, weighted by the old policy."""

    def value(z):
        batch = TokenBatch(log_normalize(z)[:, None], old_log_probs=log_old[:, None])
        return -advantage.size * float(surrogate(batch, advantage, clip=(low, high), weight=np.exp(log_old))[0])

    return value


def stepwise(start, reward, high, *, refreshed=False, anchored=False):
    """3 updates of 15 steps of .3, step by step; advantages refreshed at every step, ratios anchored at the start."""
    now, path = start, [np.exp(start)]
    for _ in range(3):
        old, a = (start if anchored else now), reward - np.exp(now) @ reward
        for _ in range(15):
            a = reward - np.exp(now) @ reward if refreshed else a
            now = log_normalize(now + 0.3 * clipped_gradient(now, old, a, low=0.2, high=high))
        path.append(np.exp(now))
    return np.array(path)


def mostly(chance, logits):
    """Logits of a first arm with slightly more than ``chance``, the others by softmax."""
    rest = np.exp(log_normalize(logits)) * (1 - chance) * 0.99
    return np.log(np.r_[1 - rest.sum(), rest])


# C7: truncation ---------------------------------------------------------------------------------------
class Truncated(NamedTuple):
    """``L = 1 + Geom(sigmoid(logit))`` cut at ``cap``; a finished response is right with ``success[L - 1]``.

    Outcomes: wrong ones by length, right ones by length, the truncated one.
    """

    logit: float
    success: np.ndarray

    @classmethod
    def constant(cls, logit, success, cap):
        return cls(float(logit), np.full(int(cap), float(success)))

    @classmethod
    def draw(cls, rng):
        return cls(float(rng.uniform(-1, 2)), rng.uniform(0, 1, int(rng.integers(2, 6))))

    @property
    def ends(self):
        """``P(L = 1 … cap)``."""
        c = sigmoid(self.logit)
        return c ** np.arange(self.success.size) * (1 - c)

    @property
    def probs(self):
        return np.r_[self.ends * (1 - self.success), self.ends * self.success, 1 - self.finished]

    @property
    def rewards(self):
        return np.r_[0 * self.success, 1 + 0 * self.success, 0.0]

    @property
    def done(self):
        return np.arange(2 * self.success.size + 1) < 2 * self.success.size

    @property
    def score(self):
        """In the continue logit."""
        c, cap = sigmoid(self.logit), self.success.size
        own = np.arange(cap) * (1 - c) - c
        return np.r_[own, own, cap * (1 - c)]

    @property
    def finished(self):
        return 1 - sigmoid(self.logit) ** self.success.size

    def rate(self):
        """``E[r | finished]``."""
        return self.ends @ self.success / self.finished

    def slope(self, function):
        """In the continue logit, by central differences."""
        ends = [function(self._replace(logit=self.logit + h)) for h in (1e-5, -1e-5)]
        return (ends[0] - ends[1]) / 2e-5

    def update(self, size, mask, score):
        """``E[(1/K) sum A S]`` for groups of K, over all of them."""
        rows, chance = multisets(self.probs, size)
        group, r, done = np.repeat(np.arange(len(rows)), size), self.rewards[rows].ravel(), self.done[rows].ravel()
        a = advantages(r, group) if mask == "none" else filtered_advantages(r, group, done, mask=mask)
        return chance @ np.mean(a.reshape(rows.shape) * score[rows], axis=1)


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


class Draws(NamedTuple):
    """Randomness of a run: prompts ``(steps, seeds, 16)``, uniforms ``(steps, 4, seeds, 16, 8)``."""

    prompts: np.ndarray
    uniforms: np.ndarray

    @classmethod
    def of(cls, rngs, steps=250):
        order = np.array([r.permuted(np.tile(np.arange(32), (steps, 1)), axis=1)[:, :16] for r in rngs])
        u = np.array([r.random((steps, 4, 16, 8)) for r in rngs])
        return cls(order.swapaxes(0, 1), u.transpose(1, 2, 0, 3, 4))


def train(rngs, *worlds, record=()):
    """``(accuracy, P(style))`` of all worlds on the same draws, after the recorded steps and at the end, ``(2, worlds, seeds, times)``."""
    draws, count, seeds, first = Draws.of(rngs), len(worlds), len(rngs), worlds[0]
    easy = np.where(np.arange(32) < 16, 3.5, -1.0)[:, None] * (np.arange(5) == 0)
    start = np.concatenate([np.tile(easy.ravel(), (count * seeds, 1)), np.zeros((count * seeds, 2))], axis=1)
    parameters, optimiser, path = start, Adam(first.lr), []
    for step in range(first.steps + 1):
        weights, phi, s = parameters[:, :-2].reshape(-1, 32, 5), parameters[:, -2], parameters[:, -1]
        if step in record or step == first.steps:
            path.append((_accuracy(worlds, weights, phi, s), sigmoid(s).reshape(count, seeds)))
        if step < first.steps:
            prompts, u = np.tile(draws.prompts[step], (count, 1)), np.tile(draws.uniforms[step], (1, count, 1, 1))
            parameters, optimiser = optimiser.step(parameters, _gradient(worlds, prompts, u, weights, phi, s))
    return np.array(path).transpose(1, 2, 3, 0)


def accuracies(rngs, *worlds):
    """Final accuracies, one row a world, and P(style)."""
    return train(rngs, *worlds)[..., -1]


def against_the_groups_std(rngs, norms, bonus):
    """Per loss: accuracy of the other advantages, less that of group and .2; P(style) above .95 (group), below .05."""
    worlds = [Shortcut(norm, tokens, bonus) for tokens in (False, True) for norm in ("group", *norms)]
    accuracy, on = (dict(zip(worlds, rows)) for rows in accuracies(rngs, *worlds))
    out = {}
    for world in worlds:
        name = f"{world.norm}, {'token' if world.tokens else 'sequence'}"
        if world.norm == "group":
            out[f"bit, {name}"] = on[world] - 0.95
        else:
            out[f"bit, {name}"] = 0.05 - on[world]
            out[name] = accuracy[world] - accuracy[world._replace(norm="group")] - 0.2
    return out


def _accuracy(worlds, weights, phi, s):
    parts = (x.reshape(len(worlds), -1, *x.shape[1:]) for x in (weights, phi, s))
    return np.array([world.success(*rows) for world, *rows in zip(worlds, *parts)])


def _gradient(worlds, prompts, u, weights, phi, s):
    """One batch of 16 prompts x 8 a row: style bit, filler, answer; ``(worlds x seeds, 162)``."""
    rows, seeds = np.arange(len(prompts))[:, None], len(prompts) // len(worlds)
    bonus, decay = (np.repeat([getattr(w, name) for w in worlds], seeds)[:, None, None] for name in ("bonus", "filler"))
    pi = np.exp(log_normalize(weights[rows, prompts]))
    f, on = sigmoid(phi)[:, None, None], sigmoid(s)[:, None, None]
    bit, hard = u[0] < on, (prompts >= 16)[..., None]
    filler = np.minimum(np.floor(np.log(u[1]) / np.log(f)), 20)
    answer = (u[2][..., None] > np.cumsum(pi, axis=-1)[:, :, None, :4]).sum(axis=-1)
    reward = (u[3] < (answer == 0) * decay**filler * (1 - 0.5 * (bit & hard))) + bonus * bit
    own = [slice(i * seeds, (i + 1) * seeds) for i in range(len(worlds))]
    a = np.concatenate([normalised(world.norm, reward[part]) for world, part in zip(worlds, own)])
    length, tokens = filler + 3, np.repeat([w.tokens for w in worlds], seeds)[:, None, None]
    weight = a / np.where(tokens, length.sum(axis=(1, 2), keepdims=True), length * 128)
    out = np.zeros((len(prompts), 162))
    chosen = np.sum(weight[..., None] * (answer[..., None] == np.arange(5)), axis=2)
    out[:, :-2].reshape(-1, 32, 5)[rows, prompts] = chosen - weight.sum(axis=2)[..., None] * pi
    out[:, -2] = np.sum(weight * (filler * (1 - f) - f * (filler < 20)), axis=(1, 2))
    out[:, -1] = np.sum(weight * (bit - on), axis=(1, 2))
    return out
