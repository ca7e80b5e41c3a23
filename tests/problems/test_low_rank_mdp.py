"""Low-rank MDPs: by hand, any invertible mixing, blocks, solved as tables, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.planning import evaluate, occupancy, rollouts, solve
from klsim.problems import LinearMDP, LowRankMDP, block_mdp


def drawn(seed=0, horizon=2, states=4, actions=3, rank=2):
    rng = np.random.default_rng(seed)
    features = rng.dirichlet(np.ones(rank), (horizon, states, actions))
    factors = rng.dirichlet(np.ones(states), (horizon, rank))
    return LowRankMDP(features, factors, rng.standard_normal((horizon, states, actions)), np.full(states, 1 / states))


def test_transitions_are_products():
    problem = drawn()
    found = problem.tabular().transition
    assert problem.shape == (2, 4, 3)
    assert problem.rank == 2
    for h, s, a, t in np.ndindex(found.shape):
        assert found[h, s, a, t] == pytest.approx(
            sum(problem.features[h, s, a, i] * problem.factors[h, i, t] for i in range(2))
        )


def test_mixed_features_are_the_same_problem():
    problem, mix = drawn(), np.array([[2.0, -1.0], [0.5, 1.0]])
    mixed = LowRankMDP(problem.features @ mix, np.linalg.solve(mix, problem.factors), problem.reward, problem.initial)
    assert mixed.features.min() < 0
    np.testing.assert_allclose(mixed.tabular().transition, problem.tabular().transition, atol=1e-14)


def test_planning_is_that_of_the_table():
    problem = drawn()
    linear = LinearMDP(problem.features[0], problem.factors, np.ones((2, 2)), problem.initial)
    uniform = np.full(problem.shape, -np.log(3))
    for one in (problem, linear):
        assert evaluate(one, uniform).value == evaluate(one.tabular(), uniform).value
        np.testing.assert_array_equal(solve(one, beta=0.5).value, solve(one.tabular(), beta=0.5).value)
        np.testing.assert_array_equal(occupancy(one, uniform), occupancy(one.tabular(), uniform))
        np.testing.assert_array_equal(
            rollouts(one, uniform, 5, 1).states, rollouts(one.tabular(), uniform, 5, 1).states
        )


def test_a_block_mdp_by_hand():
    latent = np.array([[[[0.9, 0.1], [0.0, 1.0]], [[0.0, 1.0], [0.5, 0.5]]]])  # (1, 2, 2, 2)
    emission = np.array([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    problem = block_mdp([0, 0, 1], latent, emission, np.array([[[1.0, 2.0], [3.0, 4.0]]]), emission[0])
    table = problem.tabular()
    np.testing.assert_allclose(table.transition[0, 1, 0], [0.225, 0.675, 0.1])
    np.testing.assert_allclose(table.transition[0, 2, 1], [0.125, 0.375, 0.5])
    assert table.reward[0].tolist() == [[1, 2], [1, 2], [3, 4]]
    assert problem.rank == 4


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"factors": np.full((2, 2, 4), 0.3)}, "factors.*sum to 1"),
        ({"factors": np.tile([[1.5, -0.5, 0, 0], [1.0, 0, 0, 0]], (2, 1, 1))}, "factors.*>= 0"),
        ({"factors": np.full((2, 4), 0.25)}, r"factors: must have shape \(2, 2, 4\)"),
        ({"reward": np.zeros((2, 4, 2))}, r"reward: must have shape \(2, 4, 3\)"),
        ({"features": np.zeros((2, 4, 3))}, "features: must be"),
        ({"initial": np.full(4, 0.5)}, "initial"),
        ({"initial": np.full((2, 4), 0.25)}, r"initial: must have shape \(4,\)"),
        ({"reward": np.full((2, 4, 3), np.nan)}, "reward"),
    ],
)
def test_bad_input(change, text):
    good = drawn()
    fields = {n: getattr(good, n) for n in ("features", "factors", "reward", "initial")}
    with pytest.raises(ValueError, match=text):
        LowRankMDP(**fields | change)


def test_blocks_refuse_foreign_observations():
    with pytest.raises(ValueError, match=r"emission\[0, 1\] = 0.5: an observation must show its own label"):
        block_mdp([0, 1], np.full((1, 2, 1, 2), 0.5), np.full((2, 2), 0.5), np.zeros((1, 2, 1)), [1.0, 0.0])
