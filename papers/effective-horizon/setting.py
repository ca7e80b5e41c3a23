"""What the claims and figures of effective-horizon share: random and built problems, and the sample need of SQIRL."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from klsim.learning import gorp, open_loop_return, policy_returns, sqirl
from klsim.planning import effective_horizon, qvi_iterates
from klsim.problems import TabularMDP


def random_mdp(rng, horizon=4, states=4, actions=2, *, reward="sparse", start="uniform"):
    """Two distinct successors of every pair with Dirichlet(1, 1) probabilities; rewards at most 1/T."""
    shape = (horizon, states, actions)
    first = rng.integers(0, states, shape)
    second = (first + rng.integers(1, states, shape)) % states
    weight = rng.random((*shape, 1))
    transition = weight * np.eye(states)[first] + (1 - weight) * np.eye(states)[second]
    if reward == "dense":
        rewards = rng.random(shape) / horizon
    else:
        rewards = (rng.random(shape) < (0.2 if reward == "sparse" else 0.1)) / horizon
    initial = np.full(states, 1 / states) if start == "uniform" else np.eye(states)[0]
    return TabularMDP(transition, rewards, initial, horizon)


def lock(horizon, actions=2, right=None):
    """Sparse lock: the right action keeps you alive (state 0), reward 1 for it at the last step while alive."""
    right = np.zeros(horizon, dtype=int) if right is None else right
    transition, reward = np.zeros((horizon, 2, actions, 2)), np.zeros((horizon, 2, actions))
    transition[:, :, :, 1] = 1.0
    for t in range(horizon):
        transition[t, 0, right[t]] = (1.0, 0.0)
    reward[-1, 0, right[-1]] = 1.0
    return TabularMDP(transition, reward, np.array([1.0, 0.0]), horizon)


def chain(horizon, actions=2, right=None):
    """Dense chain: one live state, reward 1/T for every right action, no death."""
    right = np.zeros(horizon, dtype=int) if right is None else right
    transition, reward = np.zeros((horizon, 2, actions, 2)), np.zeros((horizon, 2, actions))
    transition[..., 0] = 1.0
    reward[np.arange(horizon), 0, right] = 1 / horizon
    return TabularMDP(transition, reward, np.array([1.0, 0.0]), horizon)


def optimum(problem):
    q = qvi_iterates(problem, problem.horizon)[-1]
    return float(problem.initial @ q[0].max(axis=1))


# what SQIRL needs ----------------------------------------------------------------------------------
GRID = np.unique(np.ceil(2 ** (np.arange(34) / 2)).astype(int))
FAMILIES = ("dense random", "sparse random", "dense chain", "sparse lock")


def member(rng, horizon, actions, family):
    if family == "dense random":
        return random_mdp(rng, horizon, 3, actions, reward="dense")
    if family == "sparse random":
        return random_mdp(rng, horizon, 3, actions, reward="very sparse")
    return (chain if family == "dense chain" else lock)(horizon, actions, rng.integers(0, actions, horizon))


def needed(problem, k, rng, *, runs=11, successes=6):
    """Smallest m on the grid with enough exactly optimal runs there and at the next point; None beyond the grid."""
    best = optimum(problem)
    previous = None
    for m in GRID:
        if problem.horizon**2 * m * runs > 3e8:
            return None
        won = np.sum(policy_returns(problem, sqirl(problem, k, int(m), runs=runs, rng=rng)) >= best - 1e-9)
        if won >= successes:
            if previous is not None:
                return previous
            previous = int(m)
        else:
            previous = None
    return None


def suite(rng, count=90):
    """``(log N*, Hbar log A, T log A, family)`` of random instances that are solvable with few backups."""
    rows = []
    for index in range(count):
        horizon, actions = int(rng.integers(2, 7)), int(rng.integers(2, 5))
        problem = member(rng, horizon, actions, FAMILIES[index % 4])
        found = effective_horizon(problem)
        allowed = (np.arange(1, horizon + 1) <= 3) & found.solvable & (found.gap >= 0.01)
        if not allowed.any() or optimum(problem) == 0:
            continue
        k = int(np.argmin(np.where(allowed, found.horizon, np.inf))) + 1
        m = needed(problem, k, rng)
        if m is not None:
            log_a = math.log(actions)
            rows.append((math.log(horizon**2 * m), found.horizon[k - 1] * log_a, horizon * log_a, index % 4))
    return np.array(rows)


# closed forms of SQIRL(1) --------------------------------------------------------------------------
def lock_success(horizon, actions, m, *, ties=1):
    """Exact success probability on the lock: empty cells are 0, ties are broken at random."""
    found = -np.expm1(m * np.log1p(-(float(actions) ** -np.arange(1, horizon + 1))))
    return float(np.prod(found + ties * (1 - found) / actions))


def chain_success(horizon, m):
    """On the chain with two actions, sample means taken as normal."""
    return float(np.prod(norm.cdf(np.sqrt(m / np.arange(1, horizon)))))


def needed_by_formula(success, horizon):
    """The smallest m with a success probability of one half, by bisection."""
    low, high = 0, 1
    while success(horizon, high) < 0.5:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if success(horizon, middle) >= 0.5 else (middle, high)
    return high


# a fork ---------------------------------------------------------------------------------------------
class Fork(NamedTuple):
    """Two steps: action ``risky`` leads to x or y with probability 1/2, where the right action (a different one) pays 1.

    The other action pays ``safe`` at once, then nothing.
    """

    risky: int
    right: int
    safe: float

    @classmethod
    def draw(cls, rng):
        return cls(int(rng.integers(2)), int(rng.integers(2)), float(rng.uniform(0.6, 0.85)))

    @property
    def problem(self):
        transition, reward = np.zeros((2, 4, 2, 4)), np.zeros((2, 4, 2))
        transition[..., 3] = 1.0
        transition[0, 0, self.risky] = (0.0, 0.5, 0.5, 0.0)
        reward[0, 0, 1 - self.risky] = self.safe
        reward[1, 1, self.right] = reward[1, 2, 1 - self.right] = 1.0
        return TabularMDP(transition, reward, np.eye(4)[0], 2)

    def returns(self, rng, episodes=2000):
        """Exact returns of what the algorithms learn here; GORP also on a lock."""
        problem, deterministic = self.problem, lock(4)
        return {
            "optimum": optimum(problem),
            "SQIRL(2)": float(policy_returns(problem, sqirl(problem, 2, episodes, rng=rng))[0]),
            "GORP(2)": open_loop_return(problem, gorp(problem, 2, episodes, rng=rng)[0]),
            "SQIRL(1)": float(policy_returns(problem, sqirl(problem, 1, episodes, rng=rng))[0]),
            "GORP(2), lock": open_loop_return(deterministic, gorp(deterministic, 2, 400, rng=rng)[0]),
        }
