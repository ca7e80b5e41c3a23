"""Coupled restless bandits: the contraction against joint transitions, discounted optima, greedy additions, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from klsim.planning import evaluate, solve
from klsim.planning.restless import (
    additive_fit,
    choice_value,
    discounted_values,
    expected_next_value,
    incremental_search,
    one_hot_policy,
    policy_transition,
)
from klsim.problems import DiscountedMDP
from klsim.problems.restless_bandit import CoupledRestlessBandit

VECTORS = np.array([v for v in itertools.product((0, 1), repeat=3) if sum(v) <= 2])


def drawn(seed=0, arms=3, states=2, horizon=5):
    rng = np.random.default_rng(seed)
    moves = rng.dirichlet(np.ones(states), (len(VECTORS), arms, states))
    reward, initial = rng.standard_normal((arms, states)), rng.dirichlet(np.ones(states), arms)
    return CoupledRestlessBandit(VECTORS, moves, reward, initial, horizon)


@pytest.mark.parametrize(("arms", "states"), [(1, 4), (3, 2), (2, 3)])
def test_the_contraction_is_the_joint_expectation(arms, states):
    problem = drawn(1, arms, states)
    value = np.random.default_rng(2).standard_normal(states**arms)
    np.testing.assert_allclose(expected_next_value(problem, value), problem.as_tabular().transition[0] @ value)


@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_solve_is_that_of_the_tabular_problem(beta):
    problem = drawn(3)
    found, wanted = solve(problem, beta=beta), solve(problem.as_tabular(), beta=beta)
    np.testing.assert_allclose(found.value, wanted.value, atol=1e-12)
    np.testing.assert_allclose(found.q_value, wanted.q_value, atol=1e-12)
    assert np.abs(found.value - wanted.value).max() <= found.error_bound + wanted.error_bound


def test_evaluate_is_that_of_the_tabular_problem():
    problem, rng = drawn(4), np.random.default_rng(5)
    policy, ref = (np.log(rng.dirichlet(np.ones(len(VECTORS)), problem.shape[:2])) for _ in range(2))
    found, wanted = evaluate(problem, policy, ref, 0.3), evaluate(problem.as_tabular(), policy, ref, 0.3)
    assert (found.value, found.reward, found.kl) == pytest.approx((wanted.value, wanted.reward, wanted.kl))
    np.testing.assert_allclose(found.state_value, wanted.state_value)


def test_a_deterministic_policy_has_one_matrix():
    problem = drawn(6)
    choice = np.random.default_rng(7).integers(0, len(VECTORS), problem.shape[1])
    joint = problem.as_tabular().transition[0]
    np.testing.assert_allclose(policy_transition(problem, choice), joint[np.arange(len(choice)), choice])
    wanted = evaluate(problem, one_hot_policy(problem, choice)).state_value[0]
    np.testing.assert_allclose(choice_value(problem, choice), wanted)


@pytest.mark.parametrize("discount", [0.0, 0.9])
def test_discounted_values_are_those_of_the_joint_problem(discount):
    problem = drawn(8)
    joint = DiscountedMDP(problem.as_tabular().transition[0], problem.step_reward, discount, problem.start)
    np.testing.assert_allclose(discounted_values(problem, discount), solve(joint, beta=0).q_value, atol=1e-7)


def test_greedy_additions_stop_where_no_single_entry_helps():
    """Pairs are worth 5, single entries nothing; the last one alone is worth 1."""
    q = np.where(VECTORS.sum(axis=1) == 2, 5.0, 0.0)
    assert VECTORS[incremental_search(VECTORS, q)].tolist() == [0, 0, 0]
    found = incremental_search(VECTORS, np.stack([q, q + VECTORS[:, 2]]))
    assert VECTORS[found].tolist() == [[0, 0, 0], [1, 0, 1]]  # ties go to the first entry


def test_greedy_additions_keep_what_they_added():
    """From 100 no addition leads to 011, worth more: entries are not exchanged."""
    actions, q = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 0]]), np.array([0.0, 5.0, 1.0])
    for order in map(list, itertools.permutations(range(3))):
        assert actions[order][incremental_search(actions[order], q[order])].tolist() == [1, 0, 0]


def test_greedy_additions_compare_values_not_rounded_gains():
    """From -1e17 both gains round to 1e17; the larger value is taken all the same."""
    actions = np.array([[0, 0], [0, 1], [1, 0]])
    assert actions[incremental_search(actions, np.array([-1e17, 1.5, 1.0]))].tolist() == [0, 1]


def test_greedy_additions_reach_the_best_of_an_additive_score():
    weights = np.array([2.0, -1.0, 1.0])
    assert VECTORS[incremental_search(VECTORS, VECTORS @ weights)].tolist() == [1, 0, 1]


def test_an_additive_fit_is_least_squares():
    q = np.random.default_rng(9).standard_normal((4, len(VECTORS)))
    design = np.column_stack([np.ones(len(VECTORS)), VECTORS])
    wanted = design @ np.linalg.lstsq(design, q.T, rcond=None)[0]
    np.testing.assert_allclose(additive_fit(VECTORS, q), wanted.T, atol=1e-12)
    constant = VECTORS[:, :1] * 0 + np.array([[0, 1]])  # columns that are not independent of the constant
    with pytest.raises(ValueError, match="there twice"):
        additive_fit(constant, q)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: expected_next_value(p, np.zeros(3)), "value: must have shape"),
        (lambda p: expected_next_value(p, np.full(8, np.nan)), "value"),
        (lambda p: discounted_values(p, 1.0), "discount"),
        (lambda p: discounted_values(p, 0.9, tolerance=0.0), "tolerance"),
        (lambda p: discounted_values(p, 0.9, max_iterations=1), "max_iterations = 1"),
        (lambda p: choice_value(p, np.zeros(3, dtype=int)), "choice: must have shape"),
        (lambda p: policy_transition(p, np.full(8, 7)), "choice.*must be <= 6"),
        (lambda p: one_hot_policy(p, np.full(8, -1)), "choice.*must be >= 0"),
        (lambda p: incremental_search(p.actions[1:], np.zeros(6)), "actions: must hold the null vector"),
        (lambda p: incremental_search(p.actions, np.zeros(6)), "q: must have shape"),
        (lambda p: additive_fit(p.actions, np.full(7, np.inf)), "q"),
        (lambda p: solve(p, beta=-1.0), "beta"),
        (lambda p: evaluate(p, np.zeros((8, 7))), "log_policy"),
        (lambda p: evaluate(p, np.full((8, 7), -np.log(7)), one_hot_policy(p, np.zeros(8, dtype=int))), "log_ref"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(drawn())


def test_values_that_overflow_are_refused():
    problem = drawn()
    large = CoupledRestlessBandit(VECTORS, problem.transition, problem.reward * 1e308, problem.initial, 5)
    with pytest.raises(ValueError, match="reward: values of size"):
        solve(large)
    with pytest.raises(ValueError, match="reward: values of size"):
        solve(problem, beta=1e308)  # H beta log A
