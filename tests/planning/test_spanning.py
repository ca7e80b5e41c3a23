"""Spanning capacity: hand-worked classes, enumeration of all problems, what the search refuses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from klsim.planning import spanning
from klsim.planning.spanning import reached_pairs, spanning_capacity
from klsim.problems.policy_classes import all_policies, l_tons


def by_enumeration(policies, actions):
    """Every start and table of successors, one by one."""
    _, horizon, states = policies.shape
    best, cells = np.zeros(horizon, dtype=int), (horizon - 1) * states * actions
    for start, *targets in itertools.product(range(states), repeat=1 + cells):
        successor = np.zeros((horizon, states, actions), dtype=int)
        successor[:-1] = np.reshape(targets, (horizon - 1, states, actions))
        best = np.maximum(best, reached_pairs(policies, start, successor).sum(axis=(1, 2)))
    return best


@pytest.mark.parametrize("seed", range(4))
def test_is_the_maximum_over_all_problems(seed):
    policies = np.random.default_rng(seed).integers(0, 2, (4, 3, 2))
    assert spanning_capacity(policies, 2).layers.tolist() == by_enumeration(policies, 2).tolist()


def test_three_actions():
    policies = np.random.default_rng(5).integers(0, 3, (5, 2, 2))
    assert spanning_capacity(policies, 3).layers.tolist() == by_enumeration(policies, 3).tolist()


def test_known_values():
    assert spanning_capacity(l_tons(3, 4)).layers.tolist() == [2, 3, 4]
    assert spanning_capacity(l_tons(3, 5, 2)).layers.tolist() == [2, 4, 7]
    assert spanning_capacity(all_policies(2, 2, 2)).layers.tolist() == [2, 4]
    assert spanning_capacity(np.zeros((3, 4, 2), dtype=int)).value == 1
    assert spanning_capacity([[[0]]]).layers.tolist() == [1]


def test_the_last_layer_need_not_be_the_largest():
    idle = np.array([p for p in all_policies(3, 2, 2) if not p[2].any()])
    found = spanning_capacity(idle, 2)
    assert found.layers.tolist() == [2, 4, 2]
    assert found.value == 4


def test_the_problem_attains_it():
    policies = np.random.default_rng(1).integers(0, 2, (6, 3, 3))
    found = spanning_capacity(policies)
    assert reached_pairs(policies, found.start, found.successor).sum(axis=(1, 2)).max() == found.value


def test_reached_pairs_by_hand():
    successor = np.zeros((2, 2, 2), dtype=int)
    successor[0, 0, 1] = 1
    reached = reached_pairs([[[0, 0], [1, 0]], [[1, 0], [0, 1]]], 0, successor)
    assert np.argwhere(reached).tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1]]


def test_refuses_what_takes_too_long(monkeypatch):
    monkeypatch.setattr(spanning, "LIMIT", 50)
    with pytest.raises(ValueError, match="policies: the search looks at more than 50 successors"):
        spanning_capacity(l_tons(4, 5))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: spanning_capacity([[0, 1]]), ValueError, "policies: must have shape"),
        (lambda: spanning_capacity([[[0, 1]]], 1), ValueError, "must be <= 0"),
        (lambda: spanning_capacity([[[0, 1]]], 0), ValueError, "actions = 0: must be >= 1"),
        (lambda: spanning_capacity([[[0]] * 3], 2**28), ValueError, "actions = 268435456: would need 6 GiB"),
        (lambda: reached_pairs([[[0, 1]]], 2, [[[0], [0]]]), ValueError, "policies"),
        (lambda: reached_pairs([[[0, 0]]], 2, [[[0], [0]]]), ValueError, "start = 2: must be <= 1"),
        (lambda: reached_pairs([[[0, 0]]], 0, [[[0], [2]]]), ValueError, "successor.*must be <= 1"),
        (lambda: reached_pairs([[[0, 0]]], 0, [[0, 0]]), ValueError, "successor: must have shape"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()
