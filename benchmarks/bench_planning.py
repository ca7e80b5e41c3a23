"""Soft optimum of a discounted MDP: Newton against plain soft value iteration to the same certified error."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from benchmarks.table import Row
from klsim.planning import solve
from klsim.problems import DiscountedMDP

BETA, ERROR = 0.1, 1e-9


def setup(states):
    rng = np.random.default_rng(2)
    transition = rng.dirichlet(np.full(states, 0.2), size=(states, 8))
    return DiscountedMDP(transition, rng.random((states, 8)), 0.99, np.full(states, 1 / states))


def klsim(problem):
    return solve(problem, None, BETA, tolerance=ERROR)


def value_iteration(problem):
    value = np.zeros(problem.shape[0])
    while True:
        q = problem.reward + problem.discount * problem.transition @ value
        new = BETA * (logsumexp(q / BETA, axis=1) - np.log(q.shape[1]))
        if np.abs(new - value).max() * problem.discount / (1 - problem.discount) < ERROR:
            return new
        value = new


ROWS = (
    Row(
        "soft optimum, 200 states, 8 actions, discount 0.99, error 1e-9",
        "NumPy value iteration",
        setup,
        200,
        (5, 25, 125, 625),
        klsim,
        value_iteration,
        lambda d: float(np.abs(klsim(d).value - value_iteration(d)).max()),
        2 * ERROR,
        unit="states",
    ),
)
