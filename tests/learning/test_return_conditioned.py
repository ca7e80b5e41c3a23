"""Return-conditioned learning: laws and policies against lists of trajectories, what is attained, and the doors."""

import itertools

import numpy as np
import pytest

from klsim.learning.return_conditioned import (
    ReturnsToGo,
    ReturnTable,
    attained_returns,
    empirical_table,
    near_determinism_bound,
    population_table,
    return_conditioned_policy,
    returns_to_go,
)
from klsim.problems import TabularMDP

H, S, A = 3, 2, 2


def random_problem(seed, noise=1.0):
    rng = np.random.default_rng(seed)
    moves = (1 - noise) * np.eye(S)[rng.integers(0, S, (H, S, A))] + noise * rng.dirichlet(np.ones(S), (H, S, A))
    problem = TabularMDP(moves, rng.integers(0, 3, (H, S, A)) / 2, np.array([0.3, 0.7]), H)
    return problem, np.log(rng.dirichlet(np.ones(A), (H, S)))


def every_trajectory(problem):
    """``(states, actions, rewards)``; the probability of the transitions."""
    for states in itertools.product(range(S), repeat=H + 1):
        for actions in itertools.product(range(A), repeat=H):
            chance = np.prod([problem.transition[t, states[t], actions[t], states[t + 1]] for t in range(H)])
            yield states, actions, [problem.reward[t, states[t], actions[t]] for t in range(H)], chance


def at(values, g):
    return int(np.abs(np.asarray(values) - g).argmin())


class TestLaws:
    def test_returns_to_go_and_table_are_those_of_the_listed_trajectories(self):
        problem, log_mu = random_problem(0)
        laws, table = returns_to_go(problem, log_mu), population_table(problem, log_mu)
        total, weights = np.zeros((S, len(laws.returns))), np.zeros_like(table.weights)
        for states, actions, rewards, chance in every_trajectory(problem):
            chance *= np.prod([np.exp(log_mu[t, states[t], actions[t]]) for t in range(H)])
            total[states[0], at(laws.returns, sum(rewards))] += chance
            for t in range(H):
                weights[t, states[t], at(table.returns, sum(rewards[t:])), actions[t]] += (
                    problem.initial[states[0]] * chance
                )
        np.testing.assert_allclose(laws.law[0], total, atol=1e-14)
        np.testing.assert_allclose(table.weights, weights, atol=1e-14)
        np.testing.assert_allclose(laws.law.sum(axis=-1), 1.0)
        np.testing.assert_allclose(laws.exceeding(1.0), total @ (laws.returns > 1.0), atol=1e-14)
        np.testing.assert_allclose(
            laws.coverage([1.0, 2.0]), [total[0, at(laws.returns, 1.0)], total[1, at(laws.returns, 2.0)]]
        )

    def test_a_return_that_does_not_occur_has_no_coverage(self):
        problem, log_mu = random_problem(1)
        assert np.all(returns_to_go(problem, log_mu).coverage(0.3) == 0)

    def test_rewards_that_differ_by_rounding_are_one_return(self):
        reward = np.array([[0.1 + 0.2, 0.3]])
        problem = TabularMDP(np.ones((1, 2, 1)), reward, np.ones(1), 2)
        laws = returns_to_go(problem, np.log([[0.5, 0.5]]))
        np.testing.assert_allclose(laws.returns, [0.0, 0.3, 0.6])
        np.testing.assert_allclose(laws.law[0], [[0.0, 0.0, 1.0]])

    def test_negative_rewards(self):
        problem = TabularMDP(np.ones((1, 2, 1)), np.array([[-1.0, 0.5]]), np.ones(1), 2)
        laws = returns_to_go(problem, np.log([[0.25, 0.75]]))
        np.testing.assert_allclose(
            laws.law[0, 0, [at(laws.returns, g) for g in (-2, -0.5, 1)]], [0.0625, 0.375, 0.5625]
        )


class TestPolicy:
    def test_the_policy_is_the_share_of_the_data_and_uniform_where_there_are_none(self):
        table = empirical_table([[0], [0], [0], [1]], [[0], [1], [1], [0]], [[1.0], [1.0], [1.0], [2.0]], (3, 2))
        policy = np.exp(return_conditioned_policy(table))
        assert policy.shape == (1, 3, 2, 2)
        np.testing.assert_allclose(policy[0, 0, 0], [1 / 3, 2 / 3])
        np.testing.assert_allclose(policy[0, 1, 1], [1.0, 0.0])
        np.testing.assert_allclose(policy[0, [0, 1, 2], [1, 0, 0]], 0.5)

    def test_pooled_steps_share_their_counts(self):
        table = empirical_table([[0, 0]], [[0, 1]], [[0.0, 1.0]], (1, 2))
        np.testing.assert_allclose(np.exp(return_conditioned_policy(table, pooled=True)), 0.5)
        np.testing.assert_allclose(np.exp(return_conditioned_policy(table))[:, 0, 0], [[1, 0], [0, 1]])

    def test_tiny_weights_keep_their_ratio(self):
        table = ReturnTable([0.0], np.array([[[[1e-320, 3e-320]]]]))
        np.testing.assert_allclose(np.exp(return_conditioned_policy(table)).ravel(), [0.25, 0.75], rtol=1e-3)

    def test_many_trajectories_give_the_population(self):
        problem, log_mu = random_problem(2)
        rng, mu = np.random.default_rng(0), np.exp(log_mu)
        n = 40_000
        states, actions = np.zeros((n, H + 1), dtype=int), np.zeros((n, H), dtype=int)
        states[:, 0] = rng.random(n) < problem.initial[1]
        for t in range(H):
            actions[:, t] = rng.random(n) < mu[t, states[:, t], 1]
            states[:, t + 1] = rng.random(n) < problem.transition[t, states[:, t], actions[:, t], 1]
        rewards = problem.reward[np.arange(H), states[:, :-1], actions]
        counted, exact = empirical_table(states, actions, rewards, (S, A)), population_table(problem, log_mu)
        found = np.zeros_like(exact.weights)
        found[:, :, [at(exact.returns, g) for g in counted.returns]] = counted.weights / n
        assert np.abs(found - exact.weights).max() < 5 * 0.5 / np.sqrt(n)  # five standard errors of a share


class TestAttained:
    @pytest.mark.parametrize("pooled", [False, True])
    def test_the_law_is_that_of_the_listed_trajectories(self, pooled):
        problem, log_mu = random_problem(3)
        table = population_table(problem, log_mu)
        policy = np.exp(return_conditioned_policy(table, pooled=pooled))
        goals = np.array([1.5, 2.0])
        found = attained_returns(problem, table, goals, pooled=pooled)
        law = np.zeros_like(found.law)
        for states, actions, rewards, chance in every_trajectory(problem):
            for t in range(H):
                left = goals[states[0]] - sum(rewards[:t])
                place = at(table.returns, left)
                seen = abs(table.returns[place] - left) < 1e-9
                chance *= policy[t, states[t], place, actions[t]] if seen else 1 / A
            law[states[0], at(found.returns, sum(rewards))] += chance
        np.testing.assert_allclose(found.law, law, atol=1e-14)
        np.testing.assert_allclose(found.value, law @ found.returns, atol=1e-13)

    def test_deterministic_problems_give_what_is_asked_for(self):
        problem, log_mu = random_problem(4, noise=0.0)
        laws, table = returns_to_go(problem, log_mu), population_table(problem, log_mu)
        for g in laws.returns:
            found = attained_returns(problem, table, g)
            has = laws.coverage(g) > 0
            np.testing.assert_allclose(found.law[has][:, np.abs(found.returns - g) < 1e-9].sum(axis=1), 1.0)

    def test_without_data_it_is_the_uniform_policy(self):
        problem, _ = random_problem(5)
        empty = empirical_table(np.zeros((0, H), int), np.zeros((0, H), int), np.zeros((0, H)), (S, A))
        uniform = returns_to_go(problem, np.full((S, A), -np.log(A)))
        np.testing.assert_allclose(attained_returns(problem, empty, 1.0).value, uniform.law[0] @ uniform.returns)


class TestBound:
    def test_by_hand(self):
        np.testing.assert_allclose(near_determinism_bound([0.1, 0.0], 0.5, 3), [0.1 * 4 * 9, 0.0])

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda: near_determinism_bound(-0.1, 0.5, 3), "noise"),
            (lambda: near_determinism_bound(0.1, 0.0, 3), "coverage"),
            (lambda: near_determinism_bound(0.1, np.nan, 3), "coverage"),
            (lambda: near_determinism_bound(0.1, 0.5, 0), "horizon"),
            (lambda: near_determinism_bound(0.1, 5e-324, 3), "coverage"),
        ],
    )
    def test_doors(self, call, words):
        with pytest.raises(ValueError, match=words):
            call()


class TestDoors:
    problem, log_mu = random_problem(6)
    table = population_table(problem, log_mu)

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda self: returns_to_go(self.problem, self.log_mu[:2]), "log_policy"),
            (lambda self: returns_to_go(self.problem, self.log_mu - 1), "log_policy"),
            (lambda self: population_table(self.problem, np.full((H, S, A), np.nan)), "log_behaviour"),
            (lambda self: attained_returns(self.problem, self.table, np.nan), "targets"),
            (lambda self: attained_returns(self.problem, self.table, [1.0, 2.0, 3.0]), "targets"),
            (lambda self: attained_returns(self.problem, ReturnTable([0.0], np.ones((H, S, 1, 3))), 0.0), "table"),
            (lambda self: ReturnTable([1.0, 0.0], np.ones((1, 1, 2, 1))), "returns"),
            (lambda self: ReturnTable([0.0], -np.ones((1, 1, 1, 1))), "weights"),
            (lambda self: ReturnTable([0.0], np.ones((1, 1, 2, 1))), "weights"),
            (lambda self: empirical_table([[0]], [[2]], [[0.0]], (1, 2)), "actions"),
            (lambda self: empirical_table([[0, 0, 0]], [[0]], [[0.0]], (1, 2)), "actions"),
            (lambda self: empirical_table([[0]], [[0]], [[np.nan]], (1, 2)), "rewards"),
            (lambda self: empirical_table([[0]], [[0]], [[1e5]], (1, 2)), "rewards"),
            (lambda self: empirical_table([[0]], [[0]], [[1.0]], (1, 2, 3)), "shape"),
            (
                lambda self: returns_to_go(TabularMDP(np.ones((1, 1, 1)), [[1e5]], [1.0], 1), np.zeros((1, 1))),
                "problem",
            ),
            (lambda self: returns_to_go(self.problem, self.log_mu).exceeding(np.nan), "threshold"),
        ],
    )
    def test_values(self, call, words):
        with pytest.raises(ValueError, match=words):
            call(self)

    def test_illegal_actions_are_refused(self):
        masked = TabularMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), np.ones(1), 1, actions=np.array([[True, False]]))
        with pytest.raises(ValueError, match="problem"):
            returns_to_go(masked, np.log([[1.0, 1e-300]]))

    @pytest.mark.parametrize("wrong", [None, "table"])
    def test_kinds(self, wrong):
        with pytest.raises(TypeError, match="table"):
            return_conditioned_policy(wrong)
        with pytest.raises(TypeError, match="problem"):
            attained_returns(wrong, self.table, 0.0)

    def test_the_law_is_a_record(self):
        assert isinstance(returns_to_go(self.problem, self.log_mu), ReturnsToGo)
