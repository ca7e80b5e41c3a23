"""Visitation problems and their duals against direct solvers, at extremes, and with bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.planning import (
    flow_gap,
    match_visitation,
    occupancy,
    policy_dual,
    solve,
    visitation_optimum,
    visitation_value,
)
from klsim.problems import Bandit, DiscountedMDP

SMOOTH = ("kl", "chi2", "forward_kl", "js", "hellinger", "alpha(0.5)", "alpha(2)")


def problem(seed, states=4, actions=3, discount=0.9):
    rng = np.random.default_rng(seed)
    made = DiscountedMDP(
        rng.dirichlet(np.ones(states), (states, actions)), rng.uniform(-1, 1, (states, actions)), discount,
        rng.dirichlet(np.ones(states)),
    )  # fmt: skip
    return made, np.log(rng.dirichlet(np.ones(actions), states)), rng


@pytest.mark.parametrize("generator", SMOOTH)
@pytest.mark.parametrize("alpha", [0.1, 1.0, 50.0])
def test_certified_by_the_duality_gap(generator, alpha):
    mdp, behaviour, rng = problem(1)
    data = occupancy(mdp, behaviour)
    best = visitation_optimum(mdp, data, alpha, generator)
    assert abs(best.gap) < 1e-8 * (1 + alpha)
    assert np.abs(flow_gap(mdp, best.visitation)).max() < 1e-7
    for _ in range(20):
        other = np.log(rng.dirichlet(np.ones(3), 4))
        assert visitation_value(mdp, other, data, alpha, generator) <= best.value + 1e-10
        dual = policy_dual(mdp, other, data, alpha, generator)
        assert abs(dual.gap) < 1e-8 * (1 + abs(dual.value))


def test_discount_zero_is_a_bandit_a_state():
    mdp, behaviour, _ = problem(2, discount=0.0)
    data = occupancy(mdp, behaviour)
    best = visitation_optimum(mdp, data, 0.3, "kl")
    for s in range(4):
        tilted = solve(Bandit(behaviour[s], mdp.reward[s]), beta=0.3)
        assert np.allclose(best.log_policy[s], tilted.log_policy, atol=1e-7)


def test_limits_of_alpha():
    mdp, behaviour, _ = problem(3)
    data = occupancy(mdp, behaviour)
    assert np.allclose(visitation_optimum(mdp, data, 1e8, "kl").visitation, data, atol=1e-6)
    greedy = solve(mdp, None, 0.0).log_policy
    value = float(np.sum(occupancy(mdp, greedy) * mdp.reward))
    assert visitation_optimum(mdp, data, 1e-3, "kl").value == pytest.approx(value, abs=0.01)


def test_actions_without_data_are_never_taken():
    mdp, behaviour, _ = problem(4)
    behaviour = behaviour.copy()
    behaviour[:, 0] = -np.inf
    data = occupancy(mdp, log_normalize(behaviour))
    best = visitation_optimum(mdp, data, 0.1, "chi2")
    assert np.all(np.isneginf(best.log_policy[:, 0]))


def test_one_action_and_one_state():
    mdp = DiscountedMDP(np.ones((1, 1, 1)), [[2.0]], 0.5, [1.0])
    best = visitation_optimum(mdp, np.ones((1, 1)), 0.1, "chi2")
    assert best.value == pytest.approx(2.0)
    assert best.visitation == pytest.approx(1.0)


@pytest.mark.parametrize("generator", ["kl", "chi2", "js"])
def test_imitation_of_a_true_visitation(generator):
    mdp, behaviour, rng = problem(5)
    expert, other = occupancy(mdp, behaviour), rng.dirichlet(np.ones(12)).reshape(4, 3)
    found = match_visitation(mdp, expert, other, 0.3, generator)
    assert found.value == pytest.approx(0, abs=1e-12)
    assert np.allclose(found.visitation, expert, atol=1e-7)
    assert match_visitation(mdp, expert, other, 1.0, generator).value == pytest.approx(0, abs=1e-12)


def test_bad_input():
    mdp, behaviour, _ = problem(0)
    data = occupancy(mdp, behaviour)
    with pytest.raises(ValueError, match="data: must have shape"):
        visitation_optimum(mdp, data[:2], 0.1)
    with pytest.raises(ValueError, match="data: must sum to 1"):
        visitation_optimum(mdp, 2 * data, 0.1)
    with pytest.raises(ValueError, match=r"data\[0, 0\] = -"):
        visitation_optimum(mdp, data - 0.5 * np.eye(4, 3), 0.1)
    with pytest.raises(ValueError, match="alpha"):
        visitation_optimum(mdp, data, 0.0)
    with pytest.raises(ValueError, match="conjugate of TV"):
        visitation_optimum(mdp, data, 0.1, "tv")
    with pytest.raises(ValueError, match="generator"):
        visitation_optimum(mdp, data, 0.1, "nonsense")
    point = np.zeros((4, 3))
    point[0, 0] = 1.0
    with pytest.raises(ValueError, match="no visitation of the problem lies on its support"):
        visitation_optimum(mdp, point, 0.1)
    with pytest.raises(ValueError, match="no mass where the policy goes"):
        policy_dual(mdp, behaviour, point, 0.1)
    with pytest.raises(ValueError, match="neither data set has this pair"):
        match_visitation(mdp, point, point, 0.5)
    with pytest.raises(ValueError, match="share"):
        match_visitation(mdp, data, data, 0.0)
