"""Coverability: exact reachability against enumeration and linear programming, and the doors."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from klsim import _validate
from klsim.planning import occupancy
from klsim.planning.coverability import (
    class_coverability,
    concentrability,
    coverability,
    occupancies,
    reach_probabilities,
)
from klsim.problems import TabularMDP


def random_mdp(rng, horizon=3, states=3, actions=2, mask=None):
    transition = rng.dirichlet(np.ones(states), (horizon, states, actions))
    return TabularMDP(
        transition, np.zeros((horizon, states, actions)), rng.dirichlet(np.ones(states)), horizon, actions=mask
    )


def every_policy(problem):
    horizon, states, actions = problem.shape
    choices = np.array(list(itertools.product(range(actions), repeat=horizon * states))).reshape(-1, horizon, states)
    legal = np.take_along_axis(np.broadcast_to(problem.actions, problem.shape)[None], choices[..., None], axis=-1)
    with np.errstate(divide="ignore"):
        return np.log(np.eye(actions))[choices[legal.all(axis=(1, 2, 3))]]


@pytest.mark.parametrize("masked", [False, True])
def test_reachability_is_the_maximum_over_all_deterministic_policies(masked):
    rng = np.random.default_rng(1)
    mask = np.array([[True, False], [True, True], [False, True]]) if masked else None
    problem = random_mdp(rng, mask=mask)
    laws = occupancies(problem, every_policy(problem))
    np.testing.assert_allclose(reach_probabilities(problem), laws.sum(axis=-1).max(axis=0), atol=1e-14)
    found, listed = coverability(problem), class_coverability(laws)
    np.testing.assert_allclose(found.layers, listed.layers, atol=1e-13)
    np.testing.assert_allclose(found.covering, listed.covering, atol=1e-13)
    assert found.value == pytest.approx(found.layers.max())


def test_no_law_covers_better():
    """The smallest t with ``t mu >= d^pi`` for all policies, as a linear programme for every step."""
    problem = random_mdp(np.random.default_rng(2))
    laws = occupancies(problem, every_policy(problem))
    found = coverability(problem)
    for t in range(3):
        tops = laws[:, t].reshape(len(laws), -1)
        blocks = np.tile(-np.eye(tops.shape[1]), (len(tops), 1))
        best = linprog(np.ones(tops.shape[1]), A_ub=blocks, b_ub=-tops.ravel()).fun
        assert found.layers[t] == pytest.approx(best, abs=1e-9)
    np.testing.assert_allclose(concentrability(laws, found.covering), found.layers, rtol=1e-12)


def test_by_hand():
    """One state that branches by the action, then two: 2 actions, and 2 * (1 + 1)."""
    transition = np.zeros((2, 2, 2, 2))
    transition[:, :, 0, 0] = transition[:, :, 1, 1] = 1.0
    problem = TabularMDP(transition, np.zeros((2, 2, 2)), np.array([1.0, 0.0]), 2)
    found = coverability(problem)
    np.testing.assert_allclose(found.layers, [2.0, 4.0])
    np.testing.assert_allclose(found.covering[0], [[0.5, 0.5], [0.0, 0.0]])


def test_one_step_and_one_state():
    assert coverability(TabularMDP(np.ones((1, 1, 4, 1)), np.zeros((1, 1, 4)), np.ones(1), 1)).value == 4.0


def test_occupancies_are_those_of_each_policy():
    rng = np.random.default_rng(3)
    problem = random_mdp(rng, 4, 3, 2)
    log_policies = np.log(rng.dirichlet(np.ones(2), (2, 5, 4, 3)))
    found = occupancies(problem, log_policies)
    assert found.shape == (2, 5, 4, 3, 2)
    np.testing.assert_allclose(found[1, 3], occupancy(problem, log_policies[1, 3]), atol=1e-15)


def test_where_the_covering_law_has_no_mass_concentrability_is_infinite():
    laws = np.array([[[[0.5, 0.5]]], [[[1.0, 0.0]]]])
    np.testing.assert_array_equal(concentrability(laws, [[[1.0, 0.0]]]), [np.inf])
    np.testing.assert_array_equal(concentrability(laws[1:], [[[1.0, 0.0]]]), [1.0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: class_coverability(np.ones((2, 2)) / 4), "laws"),
        (lambda p: class_coverability(np.full((1, 1, 2, 2), 0.3)), "sum to 1"),
        (lambda p: class_coverability([[[[1.5, -0.5]]]]), "laws"),
        (lambda p: concentrability(np.full((1, 1, 1, 2), 0.5), np.full((1, 2, 1), 0.5)), "covering"),
        (lambda p: occupancies(p, np.zeros((3, 3, 3))), "log_policies"),
        (lambda p: occupancies(p, np.zeros((3, 3, 2))), "log_policies"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(random_mdp(np.random.default_rng(0)))


def test_only_finite_horizon_problems():
    for function in (coverability, reach_probabilities):
        with pytest.raises(TypeError, match="problem"):
            function(np.zeros(3))


def test_an_illegal_action_is_refused():
    problem = random_mdp(np.random.default_rng(0), mask=np.array([[True, False], [True, True], [True, True]]))
    with pytest.raises(ValueError, match="illegal"):
        occupancies(problem, np.log(np.full((3, 3, 2), 0.5)))


def test_what_does_not_fit_is_refused(monkeypatch):
    """8 bytes for each of the values ``(H, S, A)`` of S targets."""
    problem, needed = random_mdp(np.random.default_rng(0), 4, 3, 2), 8 * 4 * 3 * 2 * 3
    monkeypatch.setattr(_validate, "LARGEST", needed)
    reach_probabilities(problem)
    monkeypatch.setattr(_validate, "LARGEST", needed - 1)
    with pytest.raises(ValueError, match="problem = 3: would need"):
        reach_probabilities(problem)
