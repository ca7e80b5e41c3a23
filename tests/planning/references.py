"""Textbook problems, and optima computed in other ways: exact rational policy iteration, 60 digits, linear programs."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
from scipy.optimize import linprog

from klsim.problems import DiscountedMDP


def deterministic(seed, states, actions, discount, scale=1.0):
    rng = np.random.default_rng(seed)
    transition = np.eye(states)[rng.integers(0, states, (states, actions))]
    return DiscountedMDP(transition, scale * rng.normal(size=(states, actions)), discount, np.full(states, 1 / states))


def garnet(seed, states, actions, successors, discount):
    """Random transitions to ``successors`` states, random rewards (Archibald, McKinnon & Thomas 1995)."""
    rng = np.random.default_rng(seed)
    following = np.argsort(rng.random((states, actions, states)), axis=2)[:, :, :successors]
    edges = np.sort(rng.random((states, actions, successors - 1)), axis=2)
    weights = np.diff(edges, prepend=0.0, append=1.0, axis=2)
    return DiscountedMDP(
        (following, weights), rng.normal(size=(states, actions)), discount, np.full(states, 1 / states)
    )


def river_swim(states):
    """Strehl & Littman (2008): left is easy and pays .005 at the first state, right pays 1 at the last."""
    transition, reward = np.zeros((states, 2, states)), np.zeros((states, 2))
    for s in range(states):
        transition[s, 0, max(s - 1, 0)] = 1.0
        transition[s, 1, [max(s - 1, 0), s, min(s + 1, states - 1)]] += [0.05, 0.6, 0.35]
    transition[0, 1], transition[-1, 1] = 0.0, 0.0
    transition[0, 1, :2], transition[-1, 1, -2:] = [0.4, 0.6], [0.4, 0.6]
    reward[0, 0], reward[-1, 1] = 0.005, 1.0
    return transition, reward


def chain(states, discount):
    """Walk right for a reward of 1 at the end, which then stays; every step left pays 1e-3."""
    transition, reward = np.zeros((states, 2, states)), np.zeros((states, 2))
    for s in range(states):
        transition[s, 0, max(s - 1, 0)] = transition[s, 1, min(s + 1, states - 1)] = 1.0
    reward[:, 0], reward[-1, 1] = 1e-3, 1.0
    return DiscountedMDP(transition, reward, discount, np.eye(states)[0])


def exact_optimum(problem):
    """Values as fractions: policy iteration in exact arithmetic on rows that are divided by their sums."""
    states, actions = problem.shape
    dense, discount = problem.dense().transition, Fraction(problem.discount)
    rows = [[[Fraction(float(p)) for p in dense[s, a]] for a in range(actions)] for s in range(states)]
    rows = [[[p / sum(row) for p in row] for row in pairs] for pairs in rows]
    reward = [[Fraction(float(r)) for r in pair] for pair in problem.reward]
    legal = [np.flatnonzero(mask).tolist() for mask in problem.actions]
    policy = [actions_of[0] for actions_of in legal]
    while True:
        matrix = [
            [Fraction(int(s == t)) - discount * rows[s][policy[s]][t] for t in range(states)] for s in range(states)
        ]
        value = _eliminate(matrix, [reward[s][policy[s]] for s in range(states)])
        q = [{a: reward[s][a] + discount * sum(p * v for p, v in zip(rows[s][a], value)) for a in legal[s]}
             for s in range(states)]  # fmt: skip
        better = [a if q[s][a] == max(q[s].values()) else max(q[s], key=q[s].get) for s, a in enumerate(policy)]
        if better == policy:
            return value
        policy = better


def _eliminate(matrix, right):
    rows = [[*row, b] for row, b in zip(matrix, right)]
    for i in range(len(rows)):
        pivot = next(k for k in range(i, len(rows)) if rows[k][i] != 0)
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for k in range(len(rows)):
            if k != i and rows[k][i] != 0:
                rows[k] = [x - rows[k][i] * y for x, y in zip(rows[k], rows[i])]
    return [row[-1] for row in rows]


def precise_soft_optimum(problem, log_ref, beta):
    """Values at 60 digits: Newton's method on the soft Bellman equation, uniform reference if None."""
    with mpmath.workdps(60):
        states, actions = problem.shape
        dense, discount, beta = problem.dense().transition, mpmath.mpf(problem.discount), mpmath.mpf(beta)
        rows = [[[mpmath.mpf(float(p)) for p in dense[s, a]] for a in range(actions)] for s in range(states)]
        rows = [[[p / sum(row) for p in row] for row in pairs] for pairs in rows]
        ref = [[mpmath.exp(mpmath.mpf(float(x))) for x in row] for row in log_ref]
        ref = [[x / sum(row) for x in row] for row in ref]
        value = [mpmath.mpf(0)] * states
        largest = max(1e-300, float(np.abs(problem.reward).max()))
        for _ in range(300):
            backed, weights = [], []
            for s in range(states):
                q = [
                    mpmath.mpf(float(problem.reward[s, a])) + discount * mpmath.fdot(rows[s][a], value)
                    for a in range(actions)
                ]
                best = max(q)
                total = mpmath.fsum(ref[s][a] * mpmath.expm1((q[a] - best) / beta) for a in range(actions))
                backed.append(best + beta * mpmath.log1p(total))
                weights.append([ref[s][a] * mpmath.exp((q[a] - best) / beta) / (1 + total) for a in range(actions)])
            left = [b - v for b, v in zip(backed, value)]
            if max(map(abs, left)) < largest * mpmath.mpf(10) ** -40:
                return value
            matrix = mpmath.matrix(states, states)
            for s in range(states):
                for t in range(states):
                    moved = mpmath.fsum(weights[s][a] * rows[s][a][t] for a in range(actions))
                    matrix[s, t] = int(s == t) - discount * moved
            value = [v + d for v, d in zip(value, mpmath.lu_solve(matrix, mpmath.matrix(left)))]
    raise AssertionError("the reference did not converge")


def linear_program(problem):
    """``min sum V`` with ``V >= r + gamma P V`` at legal pairs, by HiGHS."""
    states, actions = problem.shape
    own = np.repeat(np.eye(states), actions, axis=0)
    moves = problem.dense().transition.reshape(-1, states)
    legal = problem.actions.ravel()
    found = linprog(
        np.ones(states), (problem.discount * moves - own)[legal], -problem.reward.ravel()[legal], bounds=(None, None)
    )
    assert found.status == 0
    return found.x
