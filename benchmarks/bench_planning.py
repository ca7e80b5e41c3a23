"""Planning: one soft backup against its BLAS product, and optima against QuantEcon and SciPy value iteration."""

from __future__ import annotations

import functools

import numpy as np
from quantecon.markov import DiscreteDP
from scipy import sparse
from scipy.special import logsumexp

from benchmarks.table import Row
from klsim.planning import backup, solve
from klsim.problems import DiscountedMDP

ACTIONS, DISCOUNT, BETA = 20, 0.99, 0.1


@functools.cache
def dense(states):
    rng = np.random.default_rng(3)
    transition = rng.dirichlet(np.full(states, 0.1), size=(states, ACTIONS))
    problem = DiscountedMDP(transition, rng.random((states, ACTIONS)), DISCOUNT, np.full(states, 1 / states))
    return problem, DiscreteDP(problem.reward, problem.transition, DISCOUNT), rng.random(states)


def uniform(problem):
    return np.full(problem.shape, -np.log(problem.shape[1]))


def plain_backup(data):
    problem, _, value = data
    q = problem.reward + DISCOUNT * problem.transition @ value
    return BETA * (logsumexp(q / BETA, axis=1) - np.log(ACTIONS))


def value_iteration(problem, beta, error):
    """Until MacQueen's bounds are within ``error`` of each other; their middle."""
    value, far = np.zeros(problem.shape[0]), problem.discount / (1 - problem.discount)
    while True:
        q = problem.reward + problem.discount * problem.transition @ value
        new = q.max(axis=1) if beta == 0 else beta * (logsumexp(q / beta, axis=1) - np.log(q.shape[1]))
        low, high = far * (new - value).min(), far * (new - value).max()
        if high - low < error:
            return new + 0.5 * (low + high)
        value = new


def optimum(name, beta, peer, method, target):
    """A row of `solve` at ``beta`` against a method of QuantEcon (which has only the hard maximum)."""
    return Row(
        f"{name}, S = 1000, A = 20, discount .99, certified to 1e-10",
        f"QuantEcon {peer}",
        dense,
        1000,
        (30, 100, 300, 1000),
        lambda d: solve(d[0], None, beta),
        lambda d: d[1].solve(method=method),
        lambda d: float(np.abs(solve(d[0], None, beta).value - value_iteration(d[0], beta, 1e-8)).max()),
        1e-8,
        target=target,
        unit="states",
        note="difference: to NumPy value iteration to 1e-8",
    )


@functools.cache
def large(states, actions=4, successors=4):
    rng = np.random.default_rng(5)
    following = rng.integers(0, states, (states, actions, successors), dtype=np.int32)
    weights = rng.dirichlet(np.ones(successors), size=(states, actions))
    problem = DiscountedMDP((following, weights), rng.random((states, actions)), DISCOUNT, np.full(states, 1 / states))
    rows = sparse.csr_matrix(problem.transition)
    pairs = np.repeat(np.arange(states), actions), np.tile(np.arange(actions), states)
    return problem, DiscreteDP(problem.reward.ravel(), rows, DISCOUNT, *pairs), rows


def sparse_optimum(data):
    return solve(data[0], None, 0.0, tolerance=1e-6).value


def quantecon_sparse(data):
    return data[1].solve(method="modified_policy_iteration", epsilon=1e-4).v


def scipy_sparse(data):
    """Value iteration on the CSR matrix until MacQueen's bounds are within 1e-4, as QuantEcon's epsilon."""
    problem, _, rows = data
    value, far = np.zeros(problem.shape[0]), DISCOUNT / (1 - DISCOUNT)
    while True:
        new = (problem.reward + DISCOUNT * (rows @ value).reshape(problem.shape)).max(axis=1)
        low, high = far * (new - value).min(), far * (new - value).max()
        if high - low < 1e-4:
            return new + 0.5 * (low + high)
        value = new


def sparse_row(peer, other):
    return Row(
        "sparse optimum, 4 actions, 4 successors, discount .99, certified to 1e-6 of max V",
        peer,
        large,
        10**6,
        (10**3, 10**4, 10**5, 10**6),
        sparse_optimum,
        other,
        lambda d: float(np.abs(sparse_optimum(d) - other(d)).max()),
        3e-4,  # both are within 1e-4
        target=2.0,
        unit="states",
    )


ROWS = (
    Row(
        "soft backup with Q, validated, S = 1000, A = 20",
        "BLAS product P V alone",
        dense,
        1000,
        (30, 100, 300, 1000),
        lambda d: backup(d[0], d[2], uniform(d[0]), BETA),
        lambda d: d[0].transition.reshape(-1, len(d[2])) @ d[2],
        lambda d: float(np.abs(backup(d[0], d[2], uniform(d[0]), BETA)[0] - plain_backup(d)).max()),
        1e-12,
        target=1 / 1.1,
        unit="states",
    ),
    optimum("optimum, beta = 0", 0.0, "policy iteration", "policy_iteration", 1.0),
    optimum("optimum, beta = 0", 0.0, "modified policy iteration", "modified_policy_iteration", 1.0),
    optimum("optimum, beta = .01", 0.01, "policy iteration (hard)", "policy_iteration", 1 / 1.5),
    optimum("optimum, beta = 1", 1.0, "policy iteration (hard)", "policy_iteration", 1 / 1.5),
    sparse_row("QuantEcon modified policy iteration, sparse, epsilon 1e-4", quantecon_sparse),
    sparse_row("SciPy value iteration to 1e-4", scipy_sparse),
)
