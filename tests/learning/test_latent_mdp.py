"""Optimism in latent MDPs: the back-up, the worst direction, optimistic values and their learner."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from klsim.divergences import chi2
from klsim.learning.latent_mdp import (
    Optimism,
    bernstein_backup,
    optimistic_alpha,
    optimistic_regret,
    optimistic_values,
    posterior_advantages,
    worst_direction,
)
from klsim.planning import evaluate
from klsim.problems import LatentMDP, TabularMDP, histories


def drawn(seed, horizon=3):
    rng = np.random.default_rng(seed)
    laws = [
        (rng.dirichlet(np.ones(3), (3, 2)), rng.uniform(0, 1 / horizon, (3, 2)), rng.dirichlet(np.ones(3)))
        for _ in "ab"
    ]
    return LatentMDP(rng.dirichlet(np.ones(2)), tuple(TabularMDP(p, r, nu, horizon) for p, r, nu in laws))


def test_the_back_up_by_hand():
    p, x = np.array([0.25, 0.75]), np.array([1.0, 0.0])
    assert bernstein_backup(p, x, 0.01, 2.0, 4.0) == pytest.approx(0.25 + 2 * math.sqrt(0.1875 * 0.01))
    assert bernstein_backup(p, x, 1.0, 2.0, 4.0) == pytest.approx(0.25 + 4.0)
    rows = bernstein_backup(p, np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0.01, 0.01]), 2.0, 4.0)
    np.testing.assert_allclose(rows, [0.25 + 2 * math.sqrt(0.1875 * 0.01), 0.5 + 0.04])


@pytest.mark.parametrize("q", [[0.4, 0.2, 0.4, 0.0], [0.45, 0.3, 0.25, 0.0]])
def test_the_worst_direction(q):
    p, q = np.array([0.5, 0.3, 0.2, 0.0]), np.array(q)
    x = worst_direction(q, p)
    assert x.min() == 0.0
    assert x.max() == 1.0
    ratio = ((q - p) @ x) ** 2 / (p @ (x - p @ x) ** 2)
    with np.errstate(divide="ignore"):
        assert ratio == pytest.approx(float(chi2(np.log(q), np.log(p))))
    np.testing.assert_array_equal(worst_direction(p, p), 0.0)
    with pytest.raises(ValueError, match=r"p_hat.*has mass where p has none"):
        worst_direction(np.array([0.5, 0.5]), np.array([1.0, 0.0]))


def test_without_a_bonus_the_values_are_those_of_the_policy():
    problem = drawn(0, horizon=5)
    policy = np.array([0, 1, 1])
    found = optimistic_values(problem, policy[None], np.ones((2, 3, 2), dtype=int), Optimism(0.0))
    log_policy = np.broadcast_to(np.where(np.arange(2) == policy[:, None], 0.0, -np.inf), problem.shape).copy()
    np.testing.assert_allclose(found[0], evaluate(problem, log_policy).state_value[:, 0], atol=1e-15)


@pytest.mark.parametrize("variance", [True, False])
def test_values_over_histories_and_over_states_agree(variance):
    """Of a policy of the current state; histories and states are two implementations."""
    problem = drawn(1)
    visits = np.random.default_rng(2).integers(0, 60, (2, 3, 2))
    visits[0, 1, 0] = 0
    policy, rule = np.array([0, 0, 1]), Optimism(0.7, 0.4, variance)
    levels = np.broadcast_to(np.where(np.arange(2) == policy[:, None], 0.0, -np.inf), problem.shape).copy()
    by_state = optimistic_values(problem, policy[None], visits, rule)[0]
    by_history = optimistic_alpha(problem, visits, levels, rule)[0]
    np.testing.assert_allclose(by_history, by_state.T[histories(problem).states[0][:, 0]], atol=1e-14)
    assert np.all(by_history >= evaluate(problem, levels).state_value[:, 0].T - 1e-14)


def test_the_learner_finds_the_best_policy_and_is_reproducible():
    moves = np.zeros((3, 2, 3))
    moves[0, 0, 1], moves[0, 1, 2], moves[1:, :, 2] = 1, 1, 1
    paid = np.zeros((3, 2))
    paid[1] = 1.0
    problem = LatentMDP(np.ones(1), (TabularMDP(moves, paid, np.eye(3)[0], 2),))
    table = np.array([[1, 1, 1], [0, 0, 0]])  # the second one pays
    rule = Optimism(2.5, 1.0)
    first = optimistic_regret(problem, table, 300, [np.random.default_rng(0)] * 2, rule, growth=1.01)
    assert first.shape == (2, 300)
    assert first[0, -1] == first[0, 20] > 0
    for refresh in ("largest", "total"):
        assert (
            optimistic_regret(problem, table, 300, [np.random.default_rng(0)], rule, refresh=refresh)[0, -1]
            >= first[0, -1]
        )
    again = optimistic_regret(problem, table, 300, [np.random.default_rng(0)], rule, growth=1.01)
    np.testing.assert_array_equal(first[0], again[0])


def test_refused_problems_and_arguments():
    problem, rule, rngs = drawn(0), Optimism(1.0), [np.random.default_rng(0)]
    table = np.zeros((1, 3), dtype=int)
    richer = dataclasses.replace(
        problem, contexts=tuple(dataclasses.replace(c, reward=3 * c.reward) for c in problem.contexts)
    )
    with pytest.raises(ValueError, match="total at most 1"):
        optimistic_regret(richer, table, 10, rngs, rule)
    with pytest.raises(ValueError, match="growth = 1"):
        optimistic_regret(problem, table, 10, rngs, rule, growth=1.0)
    with pytest.raises(ValueError, match="refresh"):
        optimistic_regret(problem, table, 10, rngs, rule, refresh="all")
    with pytest.raises(ValueError, match="policies"):
        optimistic_regret(problem, table[:, :2], 10, rngs, rule)
    with pytest.raises(ValueError, match="visits: must have shape"):
        optimistic_alpha(problem, np.ones((2, 3), dtype=int), None, rule)
    with pytest.raises(ValueError, match="must be deterministic"):
        optimistic_alpha(problem, np.ones((2, 3, 2), dtype=int), None, rule)
    with pytest.raises(ValueError, match="iota"):
        Optimism(-1.0)
    with pytest.raises(ValueError, match=r"p.*must sum to 1"):
        bernstein_backup(np.array([0.5, 0.6]), np.zeros(2), 1.0, 1.0, 1.0)


def test_posterior_advantages_by_hand():
    posterior = np.array([[0.5, 0.5], [1.0, 0.0]])
    alpha = np.array([[1.0, 3.0], [4.0, 7.0]])
    np.testing.assert_allclose(posterior_advantages([0.5], posterior, alpha), [0.5 + 4.0 - 2.0])
    with pytest.raises(ValueError, match="posterior: must be"):
        posterior_advantages([0.5, 0.5], posterior, alpha)
    with pytest.raises(ValueError, match="alpha: must have the shape"):
        posterior_advantages([0.5], posterior, alpha[:, :1])
