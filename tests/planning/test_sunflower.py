"""Sunflowers: covered trajectories by enumeration, petal processes against plain evaluation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from klsim.learning import policy_returns
from klsim.planning.sunflower import petal_process, uncovered_trajectory
from klsim.problems import TabularMDP
from klsim.problems.policy_classes import l_tons


def problem(seed, horizon=3, states=3, actions=2):
    rng = np.random.default_rng(seed)
    return TabularMDP(
        rng.dirichlet(np.ones(states), (horizon, states, actions)), rng.random((horizon, states, actions)),
        rng.dirichlet(np.ones(states)), horizon,
    )  # fmt: skip


def shortest_uncovered(policy, core, petals, start_counts):
    """Length of a shortest uncovered partial trajectory, by listing all; None if there is none."""
    horizon, states = policy.shape
    for length in range(1, horizon + 1):
        for first in range(horizon - length + 1):
            layers = np.arange(first, first + length)
            for path in itertools.product(range(states), repeat=length):
                visits = petals[layers, path][0 if start_counts else 1 :].any()
                played = [np.array_equal(e[layers, path], policy[layers, path]) for e in core]
                if not visits and not any(played):
                    return length
    return None


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("start_counts", [True, False])
def test_uncovered_trajectories(seed, start_counts):
    rng = np.random.default_rng(seed)
    policy, core, petals = rng.integers(0, 2, (3, 2)), rng.integers(0, 2, (3, 3, 2)), rng.random((3, 2)) < 0.3
    found = uncovered_trajectory(policy, core, petals, start_counts=start_counts)
    assert (found and len(found[1])) == shortest_uncovered(policy, core, petals, start_counts)
    if found:
        layers, path = found[0] + np.arange(len(found[1])), found[1]
        assert all(np.any(e[layers, path] != policy[layers, path]) for e in core)


def test_singletons():
    policy, zero = l_tons(2, 3)[0], np.zeros((1, 2, 3), dtype=int)
    assert uncovered_trajectory(policy, zero, policy == 1) is None
    assert uncovered_trajectory(policy, zero, policy == 1, start_counts=False) == (0, (0,))


@pytest.mark.parametrize("seed", range(5))
def test_any_core_with_complete_petals_gives_the_value(seed):
    """Petals wherever some core policy differs: then nothing is uncovered, whatever the core."""
    rng = np.random.default_rng(seed)
    mdp, policy, core = problem(seed), rng.integers(0, 2, (3, 3)), rng.integers(0, 2, (2, 3, 3))
    petals = np.any(core != policy, axis=0)
    assert uncovered_trajectory(policy, core, petals) is None
    found = petal_process(mdp, policy, core, petals)
    assert found.value == pytest.approx(float(policy_returns(mdp, policy)), rel=1e-13)
    assert found.transition.shape == (petals.sum() + 1, petals.sum())


def test_a_core_that_holds_the_policy_needs_no_petals():
    mdp, policies = problem(1), l_tons(3, 3)
    found = petal_process(mdp, policies[0], policies, np.zeros((3, 3), dtype=bool))
    assert found.value == pytest.approx(float(policy_returns(mdp, policies[0])), rel=1e-13)
    assert found.transition.shape == (1, 0)


def test_incomplete_petals_lose_what_is_not_covered():
    """One layer, core all-0: the return in state 0, where the policy plays 1, is lost."""
    mdp = problem(2, horizon=1)
    found = petal_process(mdp, [[1, 0, 0]], [[[0, 0, 0]]], np.zeros((1, 3), dtype=bool))
    assert found.value == pytest.approx(float(mdp.initial[1:] @ mdp.reward[0, 1:, 0]), rel=1e-14)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: petal_process(None, [[0]], [[[0]]], [[True]]), TypeError, "problem: must be a TabularMDP"),
        (lambda: petal_process(problem(0), np.zeros((3, 3)), np.zeros((1, 3, 3), int), np.zeros((3, 3), bool)), TypeError,
         "policy: must be a NumPy array or sequence of integers"),
        (lambda: petal_process(problem(0), np.zeros((3, 2), int), np.zeros((1, 3, 2), int), np.zeros((3, 2), bool)), ValueError,
         "policy: must have shape"),
        (lambda: petal_process(problem(0), np.full((3, 3), 2), np.zeros((1, 3, 3), int), np.zeros((3, 3), bool)), ValueError,
         "must be <= 1"),
        (lambda: uncovered_trajectory([0, 1], [[[0, 1]]], [[True, False]]), ValueError, "policy: must have shape"),
        (lambda: uncovered_trajectory([[0, 1]], [[[0]]], [[True, False]]), ValueError, "core: must have shape"),
        (lambda: uncovered_trajectory([[0, 1]], [[[0, 1]]], [[True]]), ValueError, "petals: must have shape"),
        (lambda: uncovered_trajectory([[0, 1]], [[[0, 1]]], [[1, 0]]), TypeError, "petals: must be a boolean"),
        (lambda: uncovered_trajectory([[0]], [[[0]]], [[True]], start_counts=1), TypeError, "start_counts"),
    ],
)  # fmt: skip
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()
