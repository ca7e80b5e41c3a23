"""Shared trees, roll-outs of deterministic policies, trajectory weights, POPLER in miniature."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from klsim.learning import policy_returns
from klsim.learning.policy_sampling import policy_episodes, shared_trees, trajectory_weights
from klsim.learning.popler import popler
from klsim.problems import TabularMDP
from klsim.problems.policy_classes import l_tons


def problem(seed, horizon=3, states=3, actions=2, alpha=1.0):
    rng = np.random.default_rng(seed)
    return TabularMDP(
        rng.dirichlet(np.full(states, alpha), (horizon, states, actions)), rng.random((horizon, states, actions)) / horizon,
        rng.dirichlet(np.full(states, alpha)), horizon,
    )  # fmt: skip


def close(sample, exact):
    """Within six standard errors of a mean over the first axis."""
    return np.all(np.abs(sample.mean(axis=0) - exact) <= 6 * sample.std(axis=0) / np.sqrt(len(sample)) + 1e-12)


def test_trees_and_episodes_have_the_values_as_means():
    mdp, policies = problem(0), l_tons(3, 3)
    assert close(shared_trees(mdp, policies, 4000, rng=1).returns, policy_returns(mdp, policies))
    for i in range(3):
        seen = policy_episodes(mdp, policies, np.full(4000, i), rng=2)
        assert close(seen.rewards.sum(axis=1), policy_returns(mdp, policies[i]))
        assert np.array_equal(seen.actions, policies[i][np.arange(3), seen.states])


def test_policies_share_the_pairs_they_meet():
    """The same policy twice: equal returns, no further calls; different ones: a root call each."""
    mdp, policies = problem(1), l_tons(3, 3)
    twice = shared_trees(mdp, policies[[0, 0]], 50, rng=0)
    assert np.array_equal(twice.returns[:, 0], twice.returns[:, 1])
    assert np.all(twice.calls == 3)
    both = shared_trees(mdp, policies[:2], 50, rng=0)
    assert both.calls.min() >= 3
    assert both.calls.max() <= 2 + 2 + 2


def test_states_have_the_law_of_the_problem():
    mdp = problem(3)
    seen = policy_episodes(mdp, np.zeros((1, 3, 3), int), np.zeros(20_000, int), rng=0)
    law = mdp.initial
    for h in range(3):
        share = np.bincount(seen.states[:, h], minlength=3) / 20_000
        assert np.all(np.abs(share - law) < 6 * np.sqrt(0.25 / 20_000))
        law = law @ mdp.transition[h, np.arange(3), 0]


def test_weights_by_hand():
    policies, core = np.array([[[0, 1], [0, 0]]]), np.array([[[0, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 1], [1, 1]]])
    states, actions = np.array([[0, 1], [1, 0], [1, 0]]), np.array([[0, 0], [1, 0], [1, 1]])
    assert trajectory_weights(policies, states, actions, action_count=2).tolist() == [[4.0, 4.0, 0.0]]
    assert trajectory_weights(policies, states, actions, core=core).tolist() == [[1.5, 3.0, 0.0]]
    assert trajectory_weights(policies, states, actions, core=core[:1]).tolist() == [[1.0, 0.0, 0.0]]


def test_weights_sum_to_one_under_the_behaviour():
    """Over all trajectories of a fixed state path: the mean weight of a policy inside the core is 1."""
    core = np.random.default_rng(0).integers(0, 2, (3, 3, 2))
    states, actions = np.zeros((8, 3), int), np.array(list(itertools.product(range(2), repeat=3)))
    plays = np.array([np.all(e[np.arange(3), states] == actions, axis=1) for e in core])
    weights = trajectory_weights(core, states, actions, core=core)
    assert np.allclose(weights @ plays.mean(axis=0), 1)


ZERO = np.zeros((1, 3, 4), dtype=int)


@pytest.mark.parametrize("core", [ZERO, np.concatenate([ZERO, np.repeat(np.eye(3, dtype=int)[:, :, None], 4, axis=2)])])
def test_popler_evaluates_a_sunflower(core):
    mdp, policies = problem(4, states=4), l_tons(3, 4)
    found = popler(
        mdp, policies, core, policies == 1, start_episodes=40_000, petal_episodes=40_000, threshold=0.01, rng=0
    )
    assert len(found.petals) == 12
    assert found.episodes == 13 * 40_000
    assert np.all(found.petals[:, 2] == 1)
    # the fewest that came by, and weights of up to K
    error = 6 * np.sqrt(len(core)) / np.sqrt(found.kept.min())
    assert np.abs(found.values - policy_returns(mdp, policies)).max() < error
    assert found.best == int(np.argmax(found.values))


def test_popler_ignores_petals_below_the_threshold():
    mdp, policies = problem(5, states=4), l_tons(3, 4)
    found = popler(mdp, policies, ZERO, policies == 1, start_episodes=100, petal_episodes=100, threshold=1.0, rng=0)
    assert len(found.petals) == 0
    assert found.episodes == 100
    few = popler(mdp, policies, ZERO, policies == 1, start_episodes=200, petal_episodes=5, threshold=0.05, rng=0)
    assert len(few.petals) == 0
    assert few.episodes > 200


def test_popler_from_a_single_episode():
    """Without petals the value of the core itself is the return that was seen."""
    mdp, rng = problem(5, states=4), np.random.default_rng(0)
    found = popler(mdp, ZERO, ZERO, ZERO == 1, start_episodes=1, petal_episodes=1, threshold=1.0, least=1, rng=0)
    seen = policy_episodes(mdp, ZERO, rng.integers(0, 1, 1), rng=rng)
    assert found.episodes == 1
    np.testing.assert_allclose(found.values, seen.rewards.sum(axis=1), rtol=1e-12)


def test_policies_that_act_alike_share_a_petal():
    mdp = problem(6, states=4)
    policies = l_tons(3, 4)[[0, 0]]
    found = popler(mdp, policies, ZERO, policies == 1, start_episodes=2000, petal_episodes=2000, threshold=0.01, rng=0)
    assert len(found.petals) == 3
    assert found.values[0] == found.values[1]


def test_same_seed_same_bytes():
    mdp, policies = problem(7), l_tons(3, 3)
    assert np.array_equal(shared_trees(mdp, policies, 9, rng=3).returns, shared_trees(mdp, policies, 9, rng=3).returns)


GOOD = {"start_episodes": 5, "petal_episodes": 5, "threshold": 0.5}
SINGLES, PETALS = l_tons(3, 3), l_tons(3, 3) == 1
CORE = np.zeros((1, 3, 3), dtype=int)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: shared_trees(None, SINGLES, 1), TypeError, "problem: must be a TabularMDP"),
        (lambda: shared_trees(problem(0), SINGLES[:, :2], 1), ValueError, r"policies: must have shape \(N, 3, 3\)"),
        (lambda: shared_trees(problem(0), SINGLES, 0), ValueError, "trees = 0: must be >= 1"),
        (lambda: shared_trees(problem(0), SINGLES, 10**12), ValueError, "trees = 1000000000000: would need"),
        (lambda: policy_episodes(problem(0), SINGLES, [3]), ValueError, r"which\[0\] = 3: must be <= 2"),
        (lambda: policy_episodes(problem(0), SINGLES, [[0]]), ValueError, r"which: must have shape \(n,\)"),
        (lambda: trajectory_weights(SINGLES, [[0, 0, 0]], [[0, 0, 0]]), ValueError, "core: give either"),
        (
            lambda: trajectory_weights(SINGLES, [[0, 0]], [[0, 0]], action_count=2),
            ValueError,
            "states: must have the shape",
        ),
        (
            lambda: trajectory_weights(SINGLES, [[0, 0, 3]], [[0, 0, 0]], action_count=2),
            ValueError,
            "states.*must be <= 2",
        ),
        (lambda: popler(problem(0), SINGLES, CORE[:, :2], PETALS, **GOOD), ValueError, "core: must have shape"),
        (lambda: popler(problem(0), SINGLES, CORE, PETALS[:2], **GOOD), ValueError, "petals: must have shape"),
        (lambda: popler(problem(0), SINGLES, CORE, PETALS, **{**GOOD, "threshold": 0.0}), ValueError, "threshold"),
        (
            lambda: popler(problem(0), SINGLES, CORE, PETALS, **{**GOOD, "petal_episodes": 0}),
            ValueError,
            "petal_episodes = 0",
        ),
        (
            lambda: popler(problem(0), SINGLES, CORE, PETALS, **{**GOOD, "start_episodes": 10**12}),
            ValueError,
            "start_episodes = 1000000000000: would need",
        ),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()
