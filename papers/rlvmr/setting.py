"""What the claims and figures of rlvmr share: batches of tagged steps, heads that choose tags, and runs in the search world."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from klsim.claims import shared
from klsim.distributions import log_normalize
from klsim.learning.search_world import MetaRewards, SearchWorld
from klsim.planning import evaluate

PLANNING, EXPLORE, REFLECTION, MONITOR = range(4)
TAGS = ("planning", "explore", "reflection", "monitor")


# C1-C3: batches of tagged steps ----------------------------------------------------------------------
class Batch(NamedTuple):
    """Trajectories ``(B,)`` with outcomes and groups, steps ``(N,)`` with rewards, tags and trajectories."""

    outcome: np.ndarray
    group: np.ndarray
    rewards: np.ndarray
    tag: np.ndarray
    trajectory: np.ndarray

    @classmethod
    def draw(cls, rng, steps=400):
        """400 steps of 6 x 8 trajectories, uniform tags, paid with rates .3, .6, .2 and 0."""
        tag = rng.integers(0, 4, steps)
        paid = (rng.random(steps) < np.array([0.3, 0.6, 0.2, 0.0])[tag]).astype(float)
        trajectory = np.sort(rng.integers(0, 48, steps))
        return cls((rng.random(48) < 0.4).astype(float), np.repeat(np.arange(6), 8), paid, tag, trajectory)

    @classmethod
    def few(cls, rng):
        """2 to 40 steps: tags that occur once, tags with equal rewards, groups with equal outcomes."""
        return cls.draw(rng, int(rng.integers(2, 40)))


class Scaled(NamedTuple):
    """A batch, and what every tag's reward is multiplied by and shifted by."""

    batch: Batch
    factor: np.ndarray
    shift: np.ndarray

    @classmethod
    def draw(cls, rng):
        return cls(Batch.draw(rng), rng.uniform(0.1, 10.0, 4), rng.standard_normal(4))

    def rewards(self, shifted=True, negative=False):
        sign = np.array([1, -1, 1, 1]) if negative else 1
        return (sign * self.factor)[self.batch.tag] * self.batch.rewards + shifted * self.shift[self.batch.tag]


class Planned(NamedTuple):
    """Outcomes ``(6, 8)`` whose environments succeed at rates ~ U(.1, .9), and planning steps a trajectory ``(48,)``."""

    outcome: np.ndarray
    steps: np.ndarray

    @classmethod
    def draw(cls, rng):
        rate = rng.uniform(0.1, 0.9, 6)
        return cls((rng.random((6, 8)) < rate[:, None]).astype(float), rng.integers(1, 5, 48))

    def varied(self):
        """Whether the batch has both outcomes."""
        return 0 < self.outcome.mean() < 1


def by_hand(rewards, label, ddof=0):
    """``(r - mean) / std`` within equal labels, one label after the other; 0 where all are equal."""
    out = np.zeros(len(rewards))
    for name in set(label.tolist()):
        own = [float(r) for r, g in zip(rewards, label) if g == name]
        centre = sum(own) / len(own)
        if max(own) > min(own):
            width = (sum((r - centre) ** 2 for r in own) / (len(own) - ddof)) ** 0.5
            out[label == name] = [(r - centre) / width for r in own]
    return out


class Head(NamedTuple):
    """500 steps whose tags a head ``(4,)`` chose, paid with rates .3, .9, .2, 0; and a number of tokens a step."""

    log_policy: np.ndarray
    moved: np.ndarray
    tag: np.ndarray
    rewards: np.ndarray
    tokens: np.ndarray

    @classmethod
    def draw(cls, rng, uniform=False, steps=500):
        logits = np.zeros(4) if uniform else rng.standard_normal(4)
        log_policy = log_normalize(logits)
        tag = rng.choice(4, steps, p=np.exp(log_policy))
        paid = (rng.random(steps) < RATES[tag]).astype(float)
        moved = log_normalize(logits + 0.5 * rng.standard_normal(4))
        return cls(log_policy, moved, tag, paid, rng.integers(5, 200, steps).astype(float))

    def gradient(self, advantage, weights=1.0, moved=False):
        """Of ``sum w A log pi(tag)`` in the logits, per step."""
        credit = np.bincount(self.tag, weights * advantage, minlength=4)
        return (credit - np.exp(self.moved if moved else self.log_policy) * credit.sum()) / self.tag.size

    def ratio(self):
        return np.exp(self.moved - self.log_policy)[self.tag]


RATES = np.array([0.3, 0.9, 0.2, 0.0])


# C4-C6: the search world -----------------------------------------------------------------------------
WORLD = SearchWorld()
GRPO, MR = MetaRewards(alpha=1.0), MetaRewards()
SCORES = ("success", "repetition", "steps", "explore")


def again(rngs):
    """Fresh generators with the same seeds: the runs of two methods are paired."""
    return [np.random.default_rng(r.bit_generator.seed_seq) for r in rngs]


def learn(rngs, pay, horizon=14, record=(150,)):
    """Policies ``(seeds, R, parameters)`` after ``record`` updates."""
    world = SearchWorld(horizon=horizon)
    return np.array([world.train(pay, record=record, rng=r) for r in again(rngs)])


def measured(rngs, policies, pay, horizon=14, where="unseen"):
    """Success, repetition, steps and share of explore of one policy a seed, ``(4, seeds)``, from 4000 episodes."""
    world = SearchWorld(horizon=horizon)
    streams = (np.random.default_rng(r.bit_generator.seed_seq.spawn(1)[0]) for r in again(rngs))
    return np.array([world.measure(x, where, first_only=pay.first_only, rng=s) for x, s in zip(policies, streams)]).T


def scores(rngs, pay, horizon=14, updates=150, where="unseen"):
    """Train, then measure: a dict of arrays over seeds."""
    policies = learn(rngs, pay, horizon, (updates,))[:, -1]
    return dict(zip(SCORES, measured(rngs, policies, pay, horizon, where)), noticing=policies[:, -1])


@shared
def unseen_tasks(horizon):
    return SearchWorld(horizon=horizon).mdp(success=1.0)


def success(rngs, pay, horizon=14, updates=150):
    """Train, then the exact success on unseen tasks, ``(seeds,)``."""
    policies = learn(rngs, pay, horizon, (updates,))[:, -1]
    return np.array([evaluate(unseen_tasks(horizon), WORLD.lumped(x)).reward for x in policies])


def log_likelihood(world, x, run, weights, first_only=True, tagged=True):
    """``sum A (log pi(tag) + log pi(action))``, step by step from the definition of the policy."""
    tags, bias, total = x[:8].reshape(2, 4), x[8:-3].reshape(world.tasks, world.boxes), 0.0
    for e, t in zip(*np.nonzero(run.tags >= 0)):
        opened = (run.opened[e, t] >> np.arange(world.boxes)) & 1
        logits = np.append(bias[run.task[e]] + x[-3] * opened, x[-2] + x[-1] * run.found[e, t])
        total += weights[e, t] * log_normalize(logits)[run.actions[e, t]]
        if tagged and not (first_only and t == 0):
            head = log_normalize(np.r_[-np.inf if first_only else tags[run.fail[e, t], 0], tags[run.fail[e, t], 1:]])
            total += weights[e, t] * head[run.tags[e, t]]
    return total


class State(NamedTuple):
    """A random policy, the boxes opened so far (a mask) and whether the object was found, with a tag's mean and deviation."""

    policy: np.ndarray
    opened: int
    found: int
    mean: float
    deviation: float

    @classmethod
    def draw(cls, rng):
        return cls(WORLD.start() + rng.standard_normal(WORLD.start().size), int(rng.integers(1, 2**10 - 1)),
                   int(rng.integers(0, 2)), float(rng.uniform(0.05, 0.95)), float(rng.uniform(0.1, 0.5)))  # fmt: skip

    def every_action(self):
        """One explore step for every action: the episodes, and the probabilities of the actions."""
        opened = (self.opened >> np.arange(10)) & 1
        x, size = self.policy, WORLD.boxes + 1
        law = np.exp(log_normalize(np.append(x[8:18] + x[-3] * opened, x[-2] + x[-1] * self.found)))
        column = np.ones((size, 1), dtype=np.int64)
        run = WORLD.sample(x, np.zeros(size, int), np.zeros(size, int))._replace(
            tags=EXPLORE * column, actions=np.arange(size)[:, None], opened=self.opened * column, fail=0 * column,
            found=self.found * column, length=column[:, 0], success=np.zeros(size))  # fmt: skip
        return run, law, np.append(opened == 0, False)
