"""Latent MDPs: what is a history, what it tells of the context, and bad input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from klsim.problems import LatentMDP, TabularMDP, histories
from klsim.problems.latent_mdp import history_levels
from klsim.spaces import LatentMDPs, Sizes, Space


def chain(reward, stay=0.5, horizon=2, start=(1.0, 0.0)):
    """Two states, one action: stay with probability ``stay``."""
    moves = np.array([[[stay, 1 - stay]], [[1 - stay, stay]]])
    return TabularMDP(moves, np.asarray(reward, dtype=float)[:, None], np.array(start), horizon)


def drawn(seed, horizon=3, count=2):
    rng = np.random.default_rng(seed)
    mdps = tuple(
        TabularMDP(
            rng.dirichlet(np.ones(2), (2, 2)), rng.choice((0.0, 0.5), (2, 2)), rng.dirichlet(np.ones(2)), horizon
        )
        for _ in range(count)
    )
    return LatentMDP(rng.dirichlet(np.ones(count)), mdps)


def test_a_reward_tells_the_context():
    problem = LatentMDP(np.array([0.25, 0.75]), (chain([1.0, 0.0]), chain([0.5, 0.0])))
    tree = histories(problem)
    assert tree.sizes == (1, 4)
    assert tree.rewards[1].ravel().tolist() == [1.0, 1.0, 0.5, 0.5]
    np.testing.assert_allclose(tree.posterior[1], [[1, 0], [1, 0], [0, 1], [0, 1]])
    np.testing.assert_allclose(tree.chance[1], [0.125, 0.125, 0.375, 0.375])


def test_without_rewards_only_moves_do():
    first, second = chain([1.0, 0.0], stay=0.9), chain([0.5, 0.0], stay=0.3)
    tree = histories(LatentMDP(np.array([0.5, 0.5]), (first, second), hidden_rewards=True))
    assert tree.sizes == (1, 2)
    np.testing.assert_allclose(tree.posterior[1], [[0.75, 0.25], [0.125, 0.875]])


def test_beliefs_are_chances_of_the_observations():
    tree = histories(drawn(0))
    for t, level in enumerate(tree.beliefs()):
        assert level.sum() == pytest.approx(2**t)  # one for every sequence of actions
        np.testing.assert_allclose(level / level.sum(axis=1, keepdims=True), tree.posterior[t])


def test_illegal_actions_have_no_histories():
    legal = np.array([[True, False], [True, True]])
    mdp = dataclasses.replace(drawn(1).contexts[0], actions=legal)
    tree = histories(LatentMDP(np.ones(1), (mdp,)))
    assert not np.any((tree.states[2][:, 0] == 0) & (tree.actions[2][:, 0] == 1))


def test_a_policy_of_the_state_becomes_levels():
    problem = drawn(2)
    tree = histories(problem)
    policy = np.log(np.random.default_rng(0).dirichlet(np.ones(2), (3, 2)))
    levels = history_levels(problem, tree, policy)
    np.testing.assert_allclose(levels[2], policy[2][tree.states[2][:, -1]])
    with pytest.raises(ValueError, match="log_policy: must have 3 levels"):
        history_levels(problem, tree, levels[:2])
    with pytest.raises(ValueError, match=r"log_policy\[1\]: must have shape"):
        history_levels(problem, tree, (levels[0], levels[2], levels[2]))


def test_a_pomdp_sees_state_and_reward():
    problem = LatentMDP(np.array([0.25, 0.75]), (chain([1.0, 0.0]), chain([0.5, 0.0])))
    found = problem.as_pomdp()
    assert found.sizes == (2, 12, 1, 6)  # two contexts, two states, rewards 0, .5 and 1
    assert found.initial[np.array([0, 6])].tolist() == [0.25, 0.75]
    seen = found.transition[0, 0, 0] @ found.emission[0]
    np.testing.assert_allclose(seen, [0, 0, 0.5, 0, 0, 0.5])  # context 0 paid 1
    legal = np.array([[True, False], [True, True]])
    mdp = dataclasses.replace(drawn(1).contexts[0], actions=legal)
    with pytest.raises(ValueError, match="actions: a POMDP has every action"):
        LatentMDP(np.ones(1), (mdp,)).as_pomdp()


def test_stationary():
    assert drawn(3).is_stationary
    step = np.stack([np.eye(2)[:, None]] * 3)
    step[1] = step[1][::-1]
    assert not LatentMDP(np.ones(1), (TabularMDP(step, np.zeros((2, 1)), np.ones(2) / 2, 3),)).is_stationary


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"weights": np.array([0.5, 0.6])}, "weights.*must sum to 1"),
        ({"weights": np.ones(1)}, r"weights: must have shape \(2,\)"),
        ({"contexts": (drawn(0).contexts[0], drawn(0, horizon=2).contexts[0])}, r"contexts\[1\]: must have shape"),
        ({"hidden_rewards": 1}, "hidden_rewards"),
        ({"contexts": (1, 2)}, r"contexts\[0\]: must be a TabularMDP"),
    ],
)
def test_bad_input(change, text):
    with pytest.raises((ValueError, TypeError), match=text):
        dataclasses.replace(drawn(0), **change)


def test_too_many_histories_are_refused_before_they_are_listed():
    with pytest.raises(ValueError, match="horizon = 30: too many histories"):
        histories(drawn(0, horizon=30))
    with pytest.raises(TypeError, match="problem: must be a LatentMDP"):
        histories(drawn(0).contexts[0])


def test_the_field_draws_moves_and_shrinks():
    field = LatentMDPs("M", "S", "A", "H")
    space = Space(problem=field, M=Sizes(1, 3), S=Sizes(1, 3), A=Sizes(1, 2), H=Sizes(1, 3))
    assert space.single == ("problem",)
    dims = {"M": 3, "S": 3, "A": 2, "H": 2}
    rng = np.random.default_rng(0)
    many = field.sample(20, rng, dims)
    tied = sum(np.array_equal(p.contexts[0].reward, p.contexts[1].reward) for p in many)
    assert 3 < tied < 17
    x, step = field.coordinates(many[0])
    assert x.shape == step.shape
    moved = field.at(many[0], x + 0.1 * step * rng.standard_normal(x.size))
    assert isinstance(moved, LatentMDP)
    assert moved.shape == (2, 3, 2)
    for axis, shape in (("M", (2, 3, 2)), ("S", (2, 2, 2)), ("A", (2, 3, 1)), ("H", (1, 3, 2))):
        less = field.without(many[0], axis, 0, dims)
        assert less.shape == shape
        assert len(less.contexts) == (2 if axis == "M" else 3)
    assert all(isinstance(p, LatentMDP) for p, _ in zip(field.simpler(many[0]), range(5)))
