"""Bellman errors of candidate Q-functions: by hand, by sampling all successors, and the doors."""

import numpy as np
import pytest

from klsim.planning import evaluate, occupancy, qvi_iterates
from klsim.planning.bellman_errors import bellman_errors, squared_td_loss, target_variance, weighted_bellman_loss
from klsim.problems import TabularMDP


def coin():
    """State 0 leads to 1 (worth 1) or 2 (worth 0)."""
    moves = np.zeros((2, 3, 1, 3))
    moves[0, 0, 0] = (0.0, 0.5, 0.5)
    moves[:, 1:, 0, 0] = moves[1, 0, 0, 0] = 1.0
    return TabularMDP(moves, [[[0.0]] * 3, [[0.0], [1.0], [0.0]]], np.eye(3)[0], 2)


def random_mdp(rng, mask=None):
    transition = rng.dirichlet(np.ones(4), (3, 4, 2))
    return TabularMDP(transition, rng.standard_normal((3, 4, 2)), rng.dirichlet(np.ones(4)), 3, actions=mask)


BEST, BAD = (np.array(f)[..., None] for f in ([[0.5, 0, 0], [0, 1.0, 0]], [[0.3, 0, 0], [0, 0.8, 0.2]]))


def test_by_hand():
    problem = coin()
    law = occupancy(problem, np.zeros((2, 3, 1)))
    np.testing.assert_allclose(bellman_errors(problem, BAD)[:, :, 0], [[-0.2, 0, 0], [0, -0.2, 0.2]], atol=1e-15)
    np.testing.assert_allclose(target_variance(problem, BAD)[0, 0, 0], 0.09)
    np.testing.assert_allclose(squared_td_loss(problem, np.stack([BEST, BAD]), law), [0.25, 0.17])
    np.testing.assert_allclose(
        weighted_bellman_loss(problem, np.stack([BEST, BAD]), law, np.ones((1, 2, 3, 1))), [0, 0.2]
    )


@pytest.mark.parametrize("masked", [False, True])
def test_the_optimum_has_no_error(masked):
    rng = np.random.default_rng(0)
    mask = np.array([[True, False], [True, True], [False, True], [True, True]]) if masked else None
    problem = random_mdp(rng, mask)
    value, q = np.zeros(4), np.zeros((3, 4, 2))
    for t in (2, 1, 0):
        q[t] = problem.reward[t] + problem.transition[t] @ value
        value = np.where(problem.actions, q[t], -np.inf).max(axis=1)
    np.testing.assert_allclose(bellman_errors(problem, q), 0.0, atol=1e-14)
    if not masked:
        np.testing.assert_allclose(qvi_iterates(problem, 3)[-1], q, atol=1e-14)


def test_regret_decomposition():
    rng = np.random.default_rng(1)
    problem, f = random_mdp(rng), rng.standard_normal((3, 4, 2))
    with np.errstate(divide="ignore"):
        greedy = np.log(np.eye(2)[f.argmax(axis=-1)])
    errors = np.sum(occupancy(problem, greedy) * bellman_errors(problem, f))
    assert problem.initial @ f[0].max(axis=-1) - evaluate(problem, greedy).value == pytest.approx(errors, abs=1e-13)


def test_losses_are_moments_of_single_samples():
    rng = np.random.default_rng(2)
    problem, f = random_mdp(rng), rng.standard_normal((5, 3, 4, 2))
    law, weights = rng.dirichlet(np.ones(8), 3).reshape(3, 4, 2), rng.standard_normal((1, 3, 4, 2))
    ahead = np.concatenate([f[:, 1:].max(axis=-1), np.zeros((5, 1, 4))], axis=1)
    residual = f[..., None] - problem.reward[..., None] - ahead[:, :, None, None, :]
    chance = law[..., None] * problem.transition
    np.testing.assert_allclose(squared_td_loss(problem, f, law), (chance * residual**2).sum(axis=(1, 2, 3, 4)))
    means = (chance * weights[0][..., None] * residual).sum(axis=(2, 3, 4))
    np.testing.assert_allclose(weighted_bellman_loss(problem, f, law, weights), np.abs(means).sum(axis=1))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: bellman_errors(p, np.zeros((2, 3))), "q_value"),
        (lambda p: bellman_errors(p, np.full((2, 3, 1), np.nan)), "q_value"),
        (lambda p: target_variance(p, np.full((2, 3, 1), 1e200)), "q_value"),
        (lambda p: squared_td_loss(p, np.zeros((2, 3, 1)), np.full((2, 3, 1), -1.0)), "law"),
        (lambda p: squared_td_loss(p, np.zeros((2, 3, 1)), np.ones((3, 1))), "law"),
        (lambda p: weighted_bellman_loss(p, np.zeros((2, 3, 1)), np.ones((2, 3, 1)), np.ones((2, 3, 1))), "weights"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(coin())


def test_only_finite_horizon_problems():
    with pytest.raises(TypeError, match="problem"):
        bellman_errors(None, np.zeros((2, 3, 1)))
