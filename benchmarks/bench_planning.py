"""Soft optimum of a discounted MDP: Newton against plain soft value iteration to the same certified error."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from klsim.distributions import log_normalize
from klsim.planning import solve
from klsim.problems import DiscountedMDP, TokenTree


def value_iteration(problem, beta, error):
    value = np.zeros(problem.shape[0])
    while True:
        q = problem.reward + problem.discount * problem.transition @ value
        new = beta * (logsumexp(q / beta, axis=1) - np.log(q.shape[1]))
        if np.abs(new - value).max() * problem.discount / (1 - problem.discount) < error:
            return new
        value = new


def numpy_tree(levels, reward, beta):
    value = reward
    for level in levels[::-1]:
        value = beta * logsumexp(level + value.reshape(level.shape) / beta, axis=1)
    return value[0]


def cases():
    rng = np.random.default_rng(2)
    problem = DiscountedMDP(
        rng.dirichlet(np.full(200, 0.2), size=(200, 8)), rng.random((200, 8)), 0.99, np.full(200, 1 / 200)
    )
    yield (
        "soft optimum, 200 states, 8 actions, discount 0.99, error 1e-9",
        lambda: solve(problem, None, 0.1, tolerance=1e-9),
        "NumPy value iteration",
        lambda: value_iteration(problem, 0.1, 1e-9),
        lambda: np.abs(solve(problem, None, 0.1).value - value_iteration(problem, 0.1, 1e-9)).max(),
    )
    levels = tuple(log_normalize(rng.standard_normal((3**t, 3))) for t in range(13))
    reward = rng.standard_normal(3**13)
    tree = TokenTree(3, 13, reward)
    yield (
        "token-tree optimum, 1.6·10^6 leaves (klsim: with the policy of every node)",
        lambda: solve(tree, levels, 0.5),
        "NumPy logsumexp recursion (root value only)",
        lambda: numpy_tree(levels, reward, 0.5),
        lambda: abs(float(solve(tree, levels, 0.5).value[0][0] - numpy_tree(levels, reward, 0.5))),
    )
