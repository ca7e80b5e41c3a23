"""Matrix and Markov games: by hand, closed forms, certificates, one-player limits, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.planning import cce_regret, coarse_correlated, duality_gap, evaluate, nash, optimistic_game, solve
from klsim.problems import TabularMDP, ZeroSumMarkovGame

PENNIES = np.array([[1.0, -1.0], [-1.0, 1.0]])


def drawn(seed=0, horizon=3, states=3, rows=2, columns=3):
    rng = np.random.default_rng(seed)
    law = rng.dirichlet(np.ones(states), (horizon, states, rows, columns))
    return ZeroSumMarkovGame(law, rng.random((horizon, states, rows, columns)), np.full(states, 1 / states))


class TestMatrixGames:
    def test_matching_pennies(self):
        found = nash(PENNIES)
        np.testing.assert_allclose(np.exp(found.log_row), 0.5, atol=1e-9)
        np.testing.assert_allclose(np.exp(found.log_column), 0.5, atol=1e-9)
        assert found.value == pytest.approx(0, abs=1e-9)

    @pytest.mark.parametrize("seed", range(5))
    def test_two_by_two(self, seed):
        """Without a saddle point the value is ``(ad - bc) / (a + d - b - c)``."""
        (a, b), (c, d) = q = np.random.default_rng(seed).random((2, 2)) + 2 * np.eye(2)
        assert nash(q).value == pytest.approx((a * d - b * c) / (a + d - b - c), rel=1e-9)

    @pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
    def test_certificate_at_any_scale(self, scale):
        found = nash(scale * np.random.default_rng(1).standard_normal((4, 6)))
        assert found.gap <= 1e-9 * scale

    def test_constant_game(self):
        assert nash(np.full((2, 3), 7.0)).value == pytest.approx(7.0)

    @pytest.mark.parametrize("seed", range(5))
    def test_coarse_equilibria_have_no_regret(self, seed):
        rng = np.random.default_rng(seed)
        u, low, c = rng.standard_normal((3, 3, 4))
        joint = coarse_correlated(u, low, c)
        assert cce_regret(u, low, joint) <= 1e-8
        assert np.sum(c * joint) <= np.sum(c * coarse_correlated(u, low)) + 1e-8  # the objective is minimised

    def test_regret_by_hand(self):
        """At (heads, heads) of pennies the column player would deviate and gain 2."""
        assert cce_regret(PENNIES, PENNIES, [[1.0, 0.0], [0.0, 0.0]]) == 2.0
        assert cce_regret(PENNIES, PENNIES, np.full((2, 2), 0.25)) == 0.0

    def test_prisoners_play_the_dominant_pair(self):
        u = np.array([[3.0, 0.0], [5.0, 1.0]])
        np.testing.assert_allclose(coarse_correlated(u, -u.T), [[0, 0], [0, 1]], atol=1e-9)

    def test_bad_input(self):
        for call, text in (
            (lambda: nash([1.0, 2.0]), "payoff: must have shape"),
            (lambda: nash([[np.nan]]), "payoff"),
            (lambda: coarse_correlated(PENNIES, np.eye(3)), "lower: must have the shape"),
            (lambda: coarse_correlated(PENNIES, PENNIES, [[1.0]]), "objective: must have shape"),
            (lambda: cce_regret(PENNIES, PENNIES, np.eye(2)), "joint = 2.0: must sum to 1"),
        ):
            with pytest.raises(ValueError, match=text):
                call()


class TestMarkovGames:
    def test_equilibrium_leaves_nothing(self):
        game = drawn()
        found = solve(game)
        left = duality_gap(game, found.log_row, found.log_column)
        assert np.abs(left.gap).max() <= found.error_bound + 1e-12 <= 1e-8
        np.testing.assert_allclose(left.best_row, found.value, atol=1e-8)
        np.testing.assert_allclose(
            evaluate(game, (found.log_row, found.log_column)).state_value, found.value, atol=1e-8
        )

    def test_lists_become_arrays_whose_rows_sum_to_one(self):
        one = 1 + 1e-9  # rounded elsewhere
        game = ZeroSumMarkovGame([[[[[one]], [[1]]]]], [[[[1], [2]]]], [one])
        assert game.shape == (1, 1, 2, 1)
        assert game.reward.dtype == np.float64
        np.testing.assert_array_equal(game.transition, np.ones((1, 1, 2, 1, 1)))
        np.testing.assert_array_equal(game.initial, [1.0])

    @pytest.mark.parametrize("player", ["row", "column"])
    def test_with_one_player_it_is_an_mdp(self, player):
        game = drawn(rows=3, columns=1) if player == "row" else drawn(rows=1, columns=3)
        sign = 1 if player == "row" else -1
        law, reward = game.transition.reshape(3, 3, 3, 3), sign * game.reward.reshape(3, 3, 3)
        best = solve(TabularMDP(law, reward, game.initial, 3), beta=0.0).value
        np.testing.assert_allclose(sign * solve(game).value, best, atol=1e-9)

    def test_evaluation_against_enumeration(self):
        game = drawn(horizon=2)
        rng = np.random.default_rng(1)
        row, column = rng.dirichlet(np.ones(2), (2, 3)), rng.dirichlet(np.ones(3), (2, 3))
        pair = np.einsum("hsa,hsb->hsab", row, column)
        last = np.einsum("sab,sab->s", pair[1], game.reward[1])
        first = np.einsum("sab,sab->s", pair[0], game.reward[0] + game.transition[0] @ last)
        assert evaluate(game, (np.log(row), np.log(column))).value == pytest.approx(first.mean())

    def test_optimistic_values_without_bonus_are_those_of_the_model(self):
        game = drawn()
        planned = optimistic_game(game, np.zeros(game.shape))
        np.testing.assert_allclose(planned.upper, planned.lower)
        wide = optimistic_game(game, np.full(game.shape, 0.1), cap=1.0, floor=0.0)
        assert (wide.q_upper <= 1.0).all()
        assert (wide.q_lower >= 0.0).all()
        np.testing.assert_allclose(wide.joint.sum(axis=(2, 3)), 1.0)
        np.testing.assert_allclose(np.exp(wide.log_row), wide.joint.sum(axis=3), atol=1e-12)

    def test_bad_input(self):
        game = drawn()
        uniform = np.full((3, 3, 2), -np.log(2)), np.full((3, 3, 3), -np.log(3))
        for call, text in (
            (lambda: solve(game, beta=1.0), "beta: a Markov game"),
            (lambda: evaluate(game, (uniform[0],)), "log_policy: must be the pair"),
            (lambda: duality_gap(game, uniform[1], uniform[0]), "log_column: must have shape"),
            (lambda: optimistic_game(game, -np.ones(game.shape)), "bonus"),
            (lambda: optimistic_game(game, np.zeros(game.shape), cap=0.0, floor=1.0), "floor"),
            (lambda: ZeroSumMarkovGame(game.transition[:1], game.reward, game.initial), "transition: must be"),
        ):
            with pytest.raises(ValueError, match=text):
                call()
