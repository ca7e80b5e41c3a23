"""What the claims and figures of dual-rl share: random problems with data, and value regressions by SGD."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from klsim.distributions import log_normalize
from klsim.planning import occupancy, solve
from klsim.problems import DiscountedMDP

STEPS, LR, BATCH, BLOWN = 1500, 0.05, 16, 10.0


def log(p):
    with np.errstate(divide="ignore"):
        return np.log(p)


def random_mdp(rng, states=4, actions=3):
    """Dirichlet(0.7) transitions, U(-1, 1) rewards, discount 0.9, Dirichlet(1) start."""
    transition = rng.dirichlet(np.full(states, 0.7), (states, actions))
    return DiscountedMDP(transition, rng.uniform(-1, 1, (states, actions)), 0.9, rng.dirichlet(np.ones(states)))


def random_policy(rng, states=4, actions=3):
    return np.log(rng.dirichlet(np.ones(actions), states))


def without_one_action(policy, actions):
    """The policy with one action of every state left out."""
    policy = policy.copy()
    policy[np.arange(len(policy)), actions] = -np.inf
    return log_normalize(policy)


class Offline(NamedTuple):
    """A problem, the behaviour policy of its data, another policy and a Q."""

    problem: DiscountedMDP
    behaviour: np.ndarray
    policy: np.ndarray
    q: np.ndarray

    @classmethod
    def draw(cls, rng, states=4):
        problem = random_mdp(rng, states)
        return cls(problem, random_policy(rng, states), random_policy(rng, states), rng.standard_normal((states, 3)))

    @classmethod
    def with_gap(cls, rng):
        """Half of them without one action of every state in the data."""
        drawn = cls.draw(rng)
        if rng.random() < 0.5:
            return drawn
        return drawn._replace(behaviour=without_one_action(drawn.behaviour, rng.integers(0, 3, 4)))

    @property
    def data(self):
        """The visitation of the data."""
        return occupancy(self.problem, self.behaviour)


class Imitation(NamedTuple):
    """A deterministic expert, other data that never take its action, a policy and a Q."""

    problem: DiscountedMDP
    expert_policy: np.ndarray
    other_policy: np.ndarray
    policy: np.ndarray
    q: np.ndarray

    @classmethod
    def draw(cls, rng):
        problem, action = random_mdp(rng), rng.integers(0, 3, 4)
        other = without_one_action(random_policy(rng), action)
        return cls(problem, log(np.eye(3)[action]), other, random_policy(rng), rng.standard_normal((4, 3)))

    @property
    def expert(self):
        return occupancy(self.problem, self.expert_policy)

    @property
    def other(self):
        return occupancy(self.problem, self.other_policy)


class Estimated(NamedTuple):
    """The expert's visitation from 20 draws, other data exactly."""

    problem: DiscountedMDP
    expert: np.ndarray
    other: np.ndarray

    @classmethod
    def draw(cls, rng):
        problem = random_mdp(rng)
        true = occupancy(problem, random_policy(rng)).ravel()
        expert = rng.multinomial(20, true / true.sum()).reshape(4, 3) / 20
        return cls(problem, expert, occupancy(problem, random_policy(rng)))


class InSample(NamedTuple):
    """Data that never hold the best action of any state, and two values."""

    problem: DiscountedMDP
    log_mu: np.ndarray
    values: np.ndarray

    @classmethod
    def draw(cls, rng, states=6, actions=5):
        problem = random_mdp(rng, states, actions)
        weights = rng.dirichlet(np.ones(actions), states) + 0.05
        weights[np.arange(states), np.argmax(solve(problem, None, 0.0).q_value, axis=1)] = 0.0
        return cls(problem, log_normalize(log(weights)), rng.standard_normal((2, states)))

    def backup(self, value, rule):
        """``V <- v(r + gamma P V)`` with the value regression ``rule(q, log_mu)``."""
        return rule(self.problem.reward + self.problem.discount * self.problem.transition @ value, self.log_mu)

    def alternate(self, rule, iterations=400):
        """The fixed point, to ``gamma ** iterations``."""
        value = np.zeros(len(self.log_mu))
        for _ in range(iterations):
            value = self.backup(value, rule)
        return value


class Values(NamedTuple):
    """Seven values, tied in a third of the draws; probabilities of at least .02/1.14."""

    x: np.ndarray
    log_p: np.ndarray

    @classmethod
    def draw(cls, rng, atoms=7):
        x, p = rng.standard_normal(atoms), rng.dirichlet(np.ones(atoms)) + 0.02
        return cls(np.round(x, 1) if rng.random() < 1 / 3 else x, np.log(p / p.sum()))


def value_sgd(rngs, b):
    """``|v|`` of Gumbel, TV and chi² regressions on the same minibatches of N(0, 1), tuned to the optimum 1/(2b).

    ``(runs, steps, 3)``, one run a generator; the exponent of the Gumbel loss is bounded by 700, against overflow only.
    """
    target = 1 / (2 * b)
    above = norm.sf(target)
    lam_tv = 1 / (1 + above)
    lam_chi2 = 1 / (1 + above + (norm.pdf(target) - target * above) / 2)
    x = np.stack([rng.standard_normal((STEPS, BATCH)) for rng in rngs])
    v, path = np.zeros((len(x), 3)), np.empty((len(x), STEPS, 3))
    for t in range(STEPS):
        z = x[:, t, :, None] - v[:, None, :]
        gumbel = (1 - np.mean(np.exp(np.minimum(z[..., 0] / b, 700.0)), axis=1)) / b
        tv = (1 - lam_tv) - lam_tv * np.mean(z[..., 1] > 0, axis=1)
        chi2 = (1 - lam_chi2) - lam_chi2 * np.mean((1 + z[..., 2] / 2) * (z[..., 2] > 0), axis=1)
        v = v - LR * np.stack([gumbel, tv, chi2], axis=1)
        path[:, t] = np.abs(v)
    return path
