"""What the claims and figures of apo share: rewarded groups, prompts that share parameters, right and wrong answers with
lengths, and equally right arms. Every world runs all its methods at once, on the same draws."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from klsim.distributions import entropy, log_normalize
from klsim.learning.asymmetric_kl import asymmetric_optimum, normalized_success
from klsim.learning.branch_lengths import capped_geometric, length_drift, mean_length
from klsim.objectives import TokenBatch, apo
from klsim.objectives.advantages import advantages, group_mean, group_sample_std
from klsim.objectives.stabilizers import dads_weight, stcr_multiplier

GROUP, OFFICIAL, LONGEST = 8, 1.00001, 4096


# C1, C3: groups with rewards ---------------------------------------------------------------------------
class Groups(NamedTuple):
    """``n`` responses a group: right or not ``(B,)``, the format bonus or not, lengths, and the group of each."""

    correct: np.ndarray
    formatted: np.ndarray
    lengths: np.ndarray
    group: np.ndarray

    @classmethod
    def draw(cls, rng, size=None, formatted=True):
        """1 to 5 groups of 2 to 12 (or ``size``) responses, success rates U(.05, .95), lengths uniform in 20 … 4096."""
        n, groups = size or int(rng.integers(2, 13)), int(rng.integers(1, 6))
        correct = rng.random((groups, n)) < rng.uniform(0.05, 0.95, (groups, 1))
        bonus = rng.random((groups, n)) < (0.5 if formatted else 0.0)
        lengths = rng.integers(20, 4097, (groups, n))
        return cls(*(x.ravel().astype(float) for x in (correct, bonus, lengths)), np.repeat(np.arange(groups), n))

    @classmethod
    def of_eight(cls, rng):
        """One group of 8 with at least one right answer, rewards 0 and 1."""
        while True:
            drawn = cls.draw(rng, GROUP, formatted=False)
            first = cls(*(x[:GROUP] for x in drawn))
            if first.correct.any():
                return first

    @property
    def rewards(self):
        return self.correct + 0.5 * self.formatted

    @property
    def advantage(self):
        return advantages(self.rewards, self.group, baseline=group_mean, scale=group_sample_std, epsilon=1e-9)


FORMATTED = Groups(
    np.r_[1.0, np.zeros(7)],
    np.r_[1.0, 1.0, np.zeros(6)],
    np.r_[300.0, 4000.0, np.full(6, 300.0)],
    np.zeros(8, dtype=int),
)
"""A right answer, a wrong one with the format bonus that is 3700 tokens longer, and six wrong ones."""


def weight_at(k, n):
    """DADS weight of a right response with k right ones of n."""
    rewards = (np.arange(n) < k).astype(float)
    return float(dads_weight(rewards, np.zeros(n, dtype=int), rewards - 0.5)[0])


def mean_weight(k, n):
    """Of all n responses of a group with k right ones."""
    rewards = (np.arange(n) < k).astype(float)
    return float(dads_weight(rewards, np.zeros(n, dtype=int), rewards - k / n).mean())


def apo_step(log_probs, x, ref_log_probs, rewards, **options):
    """Minus the gradient of `apo` at x, on-policy, by finite differences; ``log_probs(x)`` are those of one group's tokens,
    the reference's are given (or those of the policy)."""
    options.setdefault("beta", 0.25)
    now, mask = log_probs(x), options.pop("mask", None)
    fields = {"old_log_probs": now, "ref_log_probs": now if ref_log_probs is None else ref_log_probs, "mask": mask,
              "rewards": rewards.astype(float), "group": np.zeros(len(rewards), dtype=int)}  # fmt: skip

    def loss(y):
        return float(apo(TokenBatch(log_probs(y), **fields), **options)[0])

    return np.array([loss(x - e) - loss(x + e) for e in 1e-6 * np.eye(x.size)]) / 2e-6


# C2: bandits ---------------------------------------------------------------------------------------------
def arms(z_ref, reward, v, beta):
    """Reference, rewards, weights in (0, 1) and beta as the functions of klsim take them."""
    return log_normalize(z_ref), np.asarray(reward, dtype=float), 1 / (1 + np.exp(-v)), beta


def flow(ref, r, w, beta, steps):
    """Policies after those numbers of expected-gradient steps of size 1 from the reference, ``(len(steps), …, A)``."""
    z, path = ref.copy(), []
    for step in range(1, max(steps) + 1):
        pi = softmax(z)
        gain = pi * (r - beta * w) + beta * w * np.exp(ref)
        z += gain - pi * gain.sum(axis=-1, keepdims=True)
        if step in steps:
            path.append(softmax(z))
    return np.array(path)


class Bandit(NamedTuple):
    """A reference, rewards 0 and 1 of arms, a KL coefficient, and a group that holds every arm in proportion to the policy."""

    z_ref: np.ndarray
    reward: np.ndarray
    answers: np.ndarray
    beta: float

    @classmethod
    def draw(cls, rng):
        """2 to 6 arms, 24 answers, every arm at least once."""
        arms = int(rng.integers(2, 7))
        counts = 1 + rng.multinomial(24 - arms, rng.dirichlet(np.ones(arms)))
        right = rng.permutation(arms) < rng.integers(1, arms)
        return cls(
            rng.standard_normal(arms),
            right.astype(float),
            np.repeat(np.arange(arms), counts),
            float(rng.uniform(0.05, 1)),
        )

    @property
    def log_policy(self):
        return np.log(np.bincount(self.answers) / self.answers.size)


def weights_of_counts(n=GROUP):
    """The DADS weight of a right response in a group with k = 0 … n right ones of n (without format bonus)."""
    return np.array([1.0, *(weight_at(k, n) for k in range(1, n)), 1.0])


def advantages_of_counts(n=GROUP):
    """``(2, n + 1)``: the normalised advantage of a wrong and of a right response with k right ones of n."""
    out = np.zeros((2, n + 1))
    for k in range(1, n):
        rewards = (np.arange(n) < k).astype(float)
        a = advantages(rewards, np.zeros(n, dtype=int), baseline=group_mean, scale=group_sample_std, epsilon=1e-9)
        out[:, k] = a[-1], a[0]
    return out


class Method(NamedTuple):
    """How the KL of a response is weighted: ``none``, ``fixed``, ``dads``, ``reversed`` or ``constant`` (.5 where A > 0)."""

    schedule: str = "fixed"
    beta: float = 0.25

    def table(self):
        """``beta w`` of a wrong and of a right response with k = 0 … 8 right ones, ``(2, 9)``."""
        w = np.ones((2, GROUP + 1))
        dads = weights_of_counts()
        if self.schedule == "dads":
            w[1] = dads
        elif self.schedule == "reversed":
            w[1, 1:GROUP] = dads[GROUP - 1 : 0 : -1]
        elif self.schedule == "constant":
            w[1, 1:GROUP] = 0.5
        return self.beta * w * (self.schedule != "none")


def softmax(z):
    weights = np.exp(z - z.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def force(z, ref, u, penalties, right):
    """Step of one prompt's logits by a group: ``mean_i X_i (onehot - pi)``, ``X = A - beta w (1 - ref/pi)``.

    ``z``, ``ref``: ``(V, S, A)``; ``u (S, n)``; ``penalties (V, 2, 9)``; the first ``right`` answers are right.
    """
    pi, size = softmax(z), z.shape[-1]
    answers = (np.cumsum(pi, axis=-1)[..., None, :-1] < u[..., None]).sum(axis=-1)  # (V, S, n)
    correct = (answers < right).astype(int)
    k = correct.sum(axis=-1, keepdims=True)
    chosen = answers[..., None] == np.arange(size)
    ratio = np.sum(chosen * (ref / pi)[..., None, :], axis=-1)
    penalty = penalties[np.arange(len(z))[:, None, None], correct, k]
    x = advantages_of_counts_8[correct, k] - penalty * (1 - ratio)
    return (np.sum(x[..., None] * chosen, axis=-2) - x.sum(axis=-1, keepdims=True) * pi) / u.shape[-1]


advantages_of_counts_8 = advantages_of_counts()


class Shared(NamedTuple):
    """Logits of a policy and of its reference at one prompt with six answers, and the draws of a group."""

    z: np.ndarray
    z_ref: np.ndarray
    u: np.ndarray

    @classmethod
    def draw(cls, rng):
        z, z_ref = rng.standard_normal((2, ANSWERS))
        return cls(z + np.r_[1.5, np.zeros(ANSWERS - 1)], z_ref, rng.random(GROUP))

    @property
    def answers(self):
        return np.searchsorted(np.cumsum(softmax(self.z))[:-1], self.u)


# C4: prompts that share parameters --------------------------------------------------------------------
HARD, TRAINED, PROMPTS, FEATURES, ANSWERS, UPDATES = 10, 20, 40, 12, 6, 600


HARD_SUCCESS, ENTROPY, DRIFT = 0, 1, 2  # the scores of `train`


def worlds(rngs):
    """``base (S, 40, 6)`` and ``phi (S, 40, 12)``: 10 hard and 10 easy training prompts, 20 general ones; answer 0 is right."""
    drawn = [
        (0.5 * r.standard_normal((PROMPTS, ANSWERS)), r.standard_normal((PROMPTS, FEATURES)) / FEATURES**0.5)
        for r in rngs
    ]
    base, phi = (np.array(x) for x in zip(*drawn))
    base[:, :HARD, 0] -= 2
    return base, phi


def train(rngs, methods, record=()):
    """Scores ``(methods, 3, seeds)`` after 600 updates: success on hard prompts, entropy of the 20 trained prompts in
    nats, and drift, the mean KL(ref‖pi) of the general ones in nats. With ``record`` (steps): ``(methods, 3, seeds,
    steps + 1)``, success of all trained prompts in place of the hard ones."""
    base, phi = worlds(rngs)
    seeds, many = np.arange(len(rngs)), len(methods)
    penalties = np.array([m.table() for m in methods])
    own, shared = np.zeros((many, *base[:, :TRAINED].shape)), np.zeros((many, len(rngs), FEATURES, ANSWERS))
    prompts = np.array([r.integers(0, TRAINED, UPDATES) for r in rngs])
    u = np.array([r.random((UPDATES, GROUP)) for r in rngs])
    path = []
    for step in range(UPDATES):
        if step in record:
            path.append(_scores(base, phi, own, shared, TRAINED))
        x = prompts[:, step]
        z = base[seeds, x] + own[:, seeds, x] + np.einsum("sd,vsda->vsa", phi[seeds, x], shared)
        g = force(z, softmax(base[seeds, x]), u[:, step], penalties, right=1)
        own[:, seeds, x] += 0.5 * g
        shared += 0.15 * phi[seeds, x][..., None] * g[:, :, None]
    if record:
        return np.moveaxis(np.array([*path, _scores(base, phi, own, shared, TRAINED)]), 0, -1)
    return _scores(base, phi, own, shared, HARD)


def _scores(base, phi, own, shared, counted):
    z = base + phi @ shared
    z[:, :, :TRAINED] += own
    pi, ref = softmax(z), softmax(base)
    entropy = -np.sum(pi * np.log(pi), axis=-1)[..., :TRAINED].mean(axis=-1)
    drift = np.sum(ref * np.log(ref / pi), axis=-1)[..., TRAINED:].mean(axis=-1)
    return np.stack([pi[..., :counted, 0].mean(axis=-1), entropy, drift], axis=1)


# C5: right and wrong answers with lengths ---------------------------------------------------------------
CAP, START = 60, (0.8, 0.9)  # continue probabilities of right and wrong answers


class Shaping(NamedTuple):
    """STCR with a base (1 is without it), for wrong answers or all; a constant denominator or the tokens of the group."""

    base: float = 1.0
    scaled: str = "wrong"
    denominator: float | None = None


class Lengths(NamedTuple):
    """Success logit, continue logits of right and wrong answers, and the draws ``(2, 8)`` of a group."""

    theta: float
    branch: np.ndarray
    u: np.ndarray

    @classmethod
    def draw(cls, rng):
        return cls(
            float(0.5 * rng.standard_normal()),
            np.array([1.4, 2.2]) + 0.5 * rng.standard_normal(2),
            1 - rng.random((2, GROUP)),
        )

    @property
    def correct(self):
        return self.u[0] < 1 / (1 + np.exp(-self.theta))

    @property
    def tokens(self):
        q = (1 / (1 + np.exp(-self.branch)))[np.where(self.correct, 0, 1)]
        return np.minimum(1 + np.floor(np.log(self.u[1]) / np.log(q)), CAP).astype(int)

    @property
    def mask(self):
        return np.arange(CAP + 1) <= self.tokens[:, None]

    def log_probs(self, x):
        """``(8, 61)`` at logits x: the branch, then one decision a token to go on or to stop (none at the cap)."""
        signs = np.where(self.correct, 1, -1)
        out, branch = np.zeros((GROUP, CAP + 1)), np.where(self.correct, x[1], x[2])
        out[:, 0] = -np.logaddexp(0, -signs * x[0])
        for i, length in enumerate(self.tokens):
            out[i, 1:length] = -np.logaddexp(0, -branch[i])
            out[i, length] = -np.logaddexp(0, branch[i]) if length < CAP else 0.0
        return out


def multipliers(lengths, correct, base, scaled):
    """``(..., n)`` from lengths and correctness of groups; ``base (V, 1, 1)``, ``scaled`` a mask of variants that scale all."""
    k = correct.sum(axis=-1, keepdims=True)
    mean_right = np.sum(lengths * correct, axis=-1, keepdims=True) / np.maximum(k, 1)
    excess = np.maximum(1 - base ** -(lengths - mean_right), 0.0)
    return 1 + np.where((k > 0) & ((correct == 0) | scaled), excess, 0.0)


def lengths_step(theta, branch, u, shapings):
    """Updates ``(success (V, S), branches (V, S, 2))`` by one group of one prompt, per unit of learning rate.

    ``theta (V, S)``: success logit. ``branch (V, S, 2)``: continue logits, right and wrong. ``u (S, 2, n)``."""
    p, q = 1 / (1 + np.exp(-theta))[..., None], 1 / (1 + np.exp(-branch))
    base = np.array([s.base for s in shapings])[:, None, None]
    everywhere = np.array([s.scaled == "all" for s in shapings])[:, None, None]
    correct = (u[:, 0] < p).astype(int)
    own = np.where(correct == 1, q[..., :1], q[..., 1:])
    lengths = np.minimum(1 + np.floor(np.log(u[:, 1]) / np.log(own)), CAP)
    a = advantages_of_counts_8[correct, correct.sum(axis=-1, keepdims=True)]
    a = a * multipliers(lengths, correct, base, everywhere)
    total = np.sum(lengths + 1, axis=-1)
    for at, shaping in enumerate(shapings):
        if shaping.denominator is not None:
            total[at] = shaping.denominator
    score = a * ((lengths - 1) * (1 - own) - own * (lengths < CAP))
    moves = [np.sum(score * (correct == c), axis=-1) for c in (1, 0)]
    return np.sum(a * (correct - p), axis=-1) / total, np.stack(moves, axis=-1) / total[..., None]


def write(rngs, shapings, record=(), updates=500, rate=0.3, prompts=12):
    """Mean length of right and of wrong answers, and accuracy, ``(shapings, 3, seeds)``, or ``(…, steps + 1)``."""
    seeds, shape = np.arange(len(rngs)), (len(shapings), len(rngs))
    theta = np.broadcast_to([0.5 * r.standard_normal(prompts) for r in rngs], (*shape, prompts)).copy()
    branch = np.broadcast_to(np.log(START) - np.log1p(-np.array(START)), (*shape, 2)).copy()
    asked = np.array([r.integers(0, prompts, updates) for r in rngs])
    u = np.array([1 - r.random((updates, 2, GROUP)) for r in rngs])
    path = []
    for step in range(updates):
        if step in record:
            path.append(_lengths(theta, branch))
        x = asked[:, step]
        up, moved = lengths_step(theta[:, seeds, x], branch, u[:, step], shapings)
        theta[:, seeds, x] += 10 * rate * up
        branch += rate * moved
    path.append(_lengths(theta, branch))
    return np.moveaxis(np.array(path), 0, -1) if record else path[-1]


def normalised(rewards, group):
    """Advantages by the group's sample deviation."""
    return advantages(rewards, group, baseline=group_mean, scale=group_sample_std)


def groups_of_three(p, q, cap, base):
    """All groups of 3: correctness and lengths ``(G, 3)``, their multiplied advantages, and their probability."""
    groups = np.array(list(itertools.product(*[(0, 1)] * 3, *[range(1, cap + 1)] * 3)))
    correct, lengths = groups[:, :3], groups[:, 3:]
    rewards, group = correct.ravel().astype(float), np.repeat(np.arange(len(groups)), 3)
    law = np.prod(np.where(correct, p, 1 - p) * capped_geometric(q, cap)[correct, lengths - 1], axis=1)
    m = stcr_multiplier(rewards, lengths.ravel().astype(float), group, base=base)
    return correct, lengths, (normalised(rewards, group) * m).reshape(correct.shape), law


def drift(p, right, wrong, n, cap=CAP, **more):
    """`length_drift` of numbers as a space draws them."""
    return length_drift(float(p), float(right), float(wrong), cap=cap, group_size=int(n), **more)


def _lengths(theta, branch):
    found = mean_length(1 / (1 + np.exp(-branch)), CAP)
    return np.stack([found[..., 0], found[..., 1], (1 / (1 + np.exp(-theta))).mean(axis=-1)], axis=1)


# C6: equally right arms -------------------------------------------------------------------------------
def among_equals(rngs, betas, updates=3000, arms=6, right=2):
    """Entropy of the policy in nats, ``(betas, seeds)``, after training on one prompt with two right arms of six."""
    penalties = np.array([Method("fixed", b).table() for b in betas])
    theta, ref = np.zeros((len(betas), len(rngs), arms)), np.full(arms, 1 / arms)
    u = np.array([r.random((updates, GROUP)) for r in rngs])
    for step in range(updates):
        theta += 0.2 * force(theta, ref, u[:, step], penalties, right)
    pi = softmax(theta)
    return -np.sum(pi * np.log(pi), axis=-1)


def at_rest(right, wrong, beta, normalised=False, ref=None):
    """``(success, entropy)`` of the optimum for that many right and wrong arms, reference uniform unless given."""
    r = np.r_[np.ones(right), np.zeros(wrong)]
    scale = 1.0
    if normalised:
        p = float(normalized_success(right / r.size, 1.0, beta))
        scale = 1 / math.sqrt(p * (1 - p))
    best = asymmetric_optimum(
        log_normalize(np.zeros(r.size)) if ref is None else ref, scale * r, np.ones(r.size), beta
    ).log_policy
    return float(np.exp(best) @ r), float(entropy(best))


def split_entropy(p, right=2, arms=6):
    """Of success p split equally within right and within wrong arms."""
    return -p * np.log(p / right) - (1 - p) * np.log((1 - p) / (arms - right))
