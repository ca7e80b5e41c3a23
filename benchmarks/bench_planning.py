"""Planning: backups against the BLAS product, solvers against QuantEcon's, trees against plain recursions."""

from __future__ import annotations

import numpy as np
from quantecon.markov import DiscreteDP
from scipy import sparse
from scipy.special import logsumexp

from klsim.distributions import log_normalize
from klsim.planning import backup, solve
from klsim.problems import DiscountedMDP, TokenTree


def value_iteration(problem, beta, error):
    """Until MacQueen's bounds are within ``error`` of each other; their middle."""
    value, far = np.zeros(problem.shape[0]), problem.discount / (1 - problem.discount)
    while True:
        q = problem.reward + problem.discount * problem.transition @ value
        new = beta * (logsumexp(q / beta, axis=1) - np.log(q.shape[1]))
        low, high = far * (new - value).min(), far * (new - value).max()
        if high - low < error:
            return new + 0.5 * (low + high)
        value = new


def numpy_tree(levels, reward, beta):
    value = reward
    for level in levels[::-1]:
        value = beta * logsumexp(level + value.reshape(level.shape) / beta, axis=1)
    return value[0]


def dense(states=1000, actions=20):
    rng = np.random.default_rng(3)
    transition = rng.dirichlet(np.full(states, 0.1), size=(states, actions))
    return DiscountedMDP(transition, rng.random((states, actions)), 0.99, np.full(states, 1 / states))


def dense_cases():
    problem = dense()
    states, actions = problem.shape
    rows, value = problem.transition.reshape(-1, states), np.random.default_rng(4).random(states)
    ref = np.full(problem.shape, -np.log(actions))
    plain = 0.1 * (logsumexp((problem.reward + 0.99 * problem.transition @ value) / 0.1, axis=1) - np.log(actions))
    yield (
        "soft backup, S = 1000, A = 20 (klsim: with Q, validated)",
        lambda: backup(problem, value, ref, 0.1),
        "BLAS product P V alone",
        lambda: rows @ value,
        lambda: np.abs(backup(problem, value, ref, 0.1)[0] - plain).max(),
    )
    peer = DiscreteDP(problem.reward, problem.transition, problem.discount)
    optimum = peer.solve(method="policy_iteration").v
    for method in ("policy_iteration", "modified_policy_iteration"):
        yield (
            "hard optimum, S = 1000, A = 20, discount .99 (klsim: certified to 1e-10)",
            lambda: solve(problem, None, 0.0),
            f"QuantEcon {method.replace('_', ' ')}",
            lambda method=method: peer.solve(method=method),
            lambda: np.abs(solve(problem, None, 0.0).value - optimum).max(),
        )
    for soft in (0.01, 1.0):
        yield (
            f"soft optimum, beta = {soft:g}, S = 1000, A = 20, discount .99 (klsim: certified to 1e-10)",
            lambda soft=soft: solve(problem, None, soft),
            "QuantEcon policy iteration, hard (difference: to NumPy value iteration to 1e-8)",
            lambda: peer.solve(method="policy_iteration"),
            lambda soft=soft: np.abs(solve(problem, None, soft).value - value_iteration(problem, soft, 1e-8)).max(),
        )


def sparse_cases(states=10**6, actions=4, successors=4):
    rng = np.random.default_rng(5)
    following = rng.integers(0, states, (states, actions, successors), dtype=np.int32)
    weights = rng.dirichlet(np.ones(successors), size=(states, actions))
    problem = DiscountedMDP((following, weights), rng.random((states, actions)), 0.99, np.full(states, 1 / states))
    pairs = np.repeat(np.arange(states), actions), np.tile(np.arange(actions), states)
    rows = sparse.csr_matrix(problem.transition)
    peer = DiscreteDP(problem.reward.ravel(), rows, problem.discount, *pairs)

    def modified():
        return peer.solve(method="modified_policy_iteration", epsilon=1e-4).v

    yield (
        f"sparse hard optimum, {states:,} states, 4 actions, 4 successors, discount .99, relative error 1e-6",
        lambda: solve(problem, None, 0.0, tolerance=1e-6),
        "QuantEcon modified policy iteration, sparse, epsilon 1e-4",
        modified,
        lambda: np.abs(solve(problem, None, 0.0, tolerance=1e-6).value - modified()).max(),
    )


def cases():
    yield from dense_cases()
    yield from sparse_cases()
    rng = np.random.default_rng(2)
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
