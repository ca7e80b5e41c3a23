"""What claims and figures of prefixrl share: policy classes, chains, noisy critics, groups, and the world with a rule."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from klsim.distributions import log_normalize, sample
from klsim.learning.prefix_worlds import RuleWorld
from klsim.planning.prefixes import accepted_policy
from klsim.problems.token_tree import sequence_log_probs, tokens

PROMPTS, STEPS, SYMBOLS, ANSWERS, CUTS, UPDATES = 24, 8, 12, 4, (4, 5, 6), 600


def log(p):
    with np.errstate(divide="ignore"):
        return np.log(p)


def random_tree(rng, vocab, horizon):
    """Levels with i.i.d. N(0, 1) logits."""
    return tuple(log_normalize(rng.standard_normal((vocab**t, vocab))) for t in range(horizon))


def score_functions(levels):
    """``grad log pi(y)`` of every sequence in the logits of all prefixes, ``(V**H, parameters)``."""
    vocab, horizon = levels[0].shape[-1], len(levels)
    out, leaves = [], np.arange(vocab**horizon)
    for t, level in enumerate(levels):
        node, token = leaves // vocab ** (horizon - t), leaves // vocab ** (horizon - t - 1) % vocab
        here = np.zeros((leaves.size, *level.shape))
        here[leaves, node] = np.eye(vocab)[token] - np.exp(level[node])
        out.append(here.reshape(leaves.size, -1))
    return np.concatenate(out, axis=1)


def cuts_of(trace, horizon):
    """Its prefixes of lengths 1 … H-1."""
    return [tuple(trace[:h]) for h in range(1, horizon)]


class PolicyClass(NamedTuple):
    """A finite class of policies on several problems: ``levels (K, X, V**t, V)``, rewards ``(X, V**H)``, a trace each."""

    levels: tuple
    reward: np.ndarray
    traces: np.ndarray

    @classmethod
    def draw(cls, rng, success=1.0):
        """Binary trees of depth 2 to 4; the first member succeeds with probability ``success`` and realises the traces."""
        horizon, members = int(rng.integers(2, 5)), int(rng.integers(2, 6))
        right, trees, traces = [], [], []
        for _ in range(2):
            mask = rng.random(2**horizon) < 0.3
            mask[rng.integers(2**horizon)] = True
            best = accepted_policy(random_tree(rng, 2, horizon), mask)
            trace = tokens(2, horizon)[int(sample(sequence_log_probs(best), 1, rng)[0])]
            last = log(success * np.exp(best[-1]) + (1 - success) * np.exp(best[-1])[:, ::-1])
            trees.append([(*best[:-1], last)] + [random_tree(rng, 2, horizon) for _ in range(members - 1)])
            right.append(mask.astype(float))
            traces.append(trace)
        levels = tuple(
            np.stack([np.stack([trees[x][k][t] for x in range(2)]) for k in range(members)]) for t in range(horizon)
        )
        return cls(levels, np.array(right), np.array(traces))


# two policies on one problem whose only right string is 00: the better one on the problem is the worse one after a 0
FLIP = PolicyClass(
    (log(np.array([[[[1.0, 0.0]]], [[[0.3, 0.7]]]])),
     log(np.array([[[[0.5, 0.5], [0.5, 0.5]]], [[[1.0, 0.0], [0.5, 0.5]]]]))),
    np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([[0, 0]]),
)  # fmt: skip


class Critic(NamedTuple):
    """A tree, rewards in {0, 1}, and the errors of the critic at every step of NPG, ``(T, nodes, V)`` for all levels."""

    levels: tuple
    reward: np.ndarray
    noise: np.ndarray

    @classmethod
    def draw(cls, rng):
        """Each leaf right with probability .3, T from 5 to 60, errors of deviation 0, .1 or .3."""
        vocab, horizon, steps = int(rng.integers(2, 4)), int(rng.integers(2, 6)), int(rng.integers(5, 61))
        reward = (rng.random(vocab**horizon) < 0.3).astype(float)
        reward[rng.integers(reward.size)] = 1.0
        levels = random_tree(rng, vocab, horizon)
        nodes = sum(len(level) for level in levels)
        sigma = float(rng.choice([0.0, 0.1, 0.3]))
        return cls(levels, reward, sigma * rng.standard_normal((steps, nodes, vocab)))

    @classmethod
    def chain(cls, horizon, error, steps, stuck):
        """One right string, 1 - ``error`` at every step; the critic is exact, or says V(s) for both tokens (stuck)."""
        levels = tuple(np.tile(log(np.array([1 - error, error])), (2**t, 1)) for t in range(horizon))
        reward = np.eye(2**horizon)[0]
        noise = np.zeros((2**horizon - 1, 2))
        if stuck:
            for t in range(horizon):
                after = (1 - error) ** (horizon - t - 1)
                noise[2**t - 1] = (1 - error) * after - np.array([after, 0.0])
        return cls(levels, reward, np.tile(noise, (steps, 1, 1)))

    def of_step(self, step):
        """Levels of the errors."""
        ends = np.cumsum([len(level) for level in self.levels])[:-1]
        return np.split(self.noise[step], ends)


def chain_gap(horizon, error, steps, lr):
    """``1 - mean J(pi_t)`` of NPG with the exact critic on the chain: ``logit_h += lr V(h + 1)``; and the KL of its optimum."""
    logit = np.full(horizon, np.log((1 - error) / error))
    total = 0.0
    for _ in range(steps):
        right = 1 / (1 + np.exp(-logit))
        values = np.append(np.cumprod(right[::-1])[::-1], 1.0)
        total += values[0]
        logit = logit + lr * values[1:]
    return 1 - total / steps


def stuck_chain(horizon, error):
    """``(gap, error of the critic)`` of the chain whose critic says V(s) for both tokens, in closed form."""
    gap = -np.expm1(horizon * np.log1p(-error))
    return gap, gap * (1.5 - error) / horizon


class Group(NamedTuple):
    """Completions of one prefix: rewards and lengths ``(n,)``, and the length of the prefix."""

    reward: np.ndarray
    length: np.ndarray
    prefix: int

    @classmethod
    def draw(cls, rng):
        """n = 8, success rate .4, lengths 5 … 59; both outcomes occur."""
        reward = (rng.random(8) < 0.4).astype(float)
        one, other = rng.choice(8, 2, replace=False)
        reward[one], reward[other] = 1.0, 0.0
        return cls(reward, rng.integers(5, 60, 8), int(rng.integers(1, 40)))


# C6: the world with a rule --------------------------------------------------------------------------
def draw_world(rng, shared=True):
    """24 prompts of 8 steps, 12 symbols, 4 tokens; without sharing, early and late steps show different symbols."""
    world = RuleWorld.draw(rng, PROMPTS, STEPS, SYMBOLS, ANSWERS)
    if shared:
        return world
    half = SYMBOLS // 2
    return RuleWorld(world.symbols % half + half * (np.arange(STEPS) >= CUTS[0]), world.correct, ANSWERS)


def cuts(prefixes=True):
    return np.tile(CUTS if prefixes else (0,), (PROMPTS, 1))


class Trained(NamedTuple):
    """Logits of a world before and after 600 groups on prefixed problems only."""

    world: RuleWorld
    before: np.ndarray
    after: np.ndarray

    @classmethod
    def draw(cls, rng, shared=False):
        """Shared symbols; or logits of every step its own, or no symbol in common of early and late steps."""
        tabular = not shared and rng.random() < 0.5
        world = draw_world(rng, shared or tabular)
        world = world.tabular() if tabular else world
        start = 0.3 * rng.standard_normal(world.zeros().shape)
        return cls(world, start, world.train(start, cuts(), steps=UPDATES, rng=rng)[0])

    def early(self, logits):
        """Chance of the right tokens before the shortest prefix ends, ``(P,)``."""
        return self.world.success(logits) / self.world.success(logits, start=CUTS[0])
