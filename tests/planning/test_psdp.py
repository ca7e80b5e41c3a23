"""PSDP: complete classes, a hand-worked failure, tolerances, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.learning import policy_returns
from klsim.planning import solve
from klsim.planning.psdp import psdp, psdp_bound, state_concentrability
from klsim.problems import TabularMDP
from klsim.problems.policy_classes import all_policies


def problem(seed, horizon=3, states=3, actions=2):
    rng = np.random.default_rng(seed)
    return TabularMDP(
        rng.dirichlet(np.ones(states), (horizon, states, actions)), rng.random((horizon, states, actions)),
        rng.dirichlet(np.ones(states)), horizon,
    )  # fmt: skip


UNIFORM = np.full((3, 3), 1 / 3)


def test_a_complete_class_finds_the_optimum():
    mdp = problem(0)
    found = psdp(mdp, [all_policies(1, 3, 2)[:, 0]] * 3, UNIFORM)
    best = solve(mdp, None, 0.0)
    assert found.value == pytest.approx(float(mdp.initial @ best.value[0]), rel=1e-13)
    assert np.allclose(found.shortfall, 0)
    assert np.allclose(found.q_value, best.q_value)


def test_the_value_is_that_of_the_policy():
    mdp, maps = problem(1), np.random.default_rng(1).integers(0, 2, (3, 2, 3))
    found = psdp(mdp, maps, UNIFORM)
    assert found.value == pytest.approx(float(policy_returns(mdp, found.policy)), rel=1e-13)
    assert all(found.policy[h].tolist() in maps[h].tolist() for h in range(3))


def test_tolerance_returns_the_worst_allowed_map():
    mdp = TabularMDP(np.ones((1, 1, 3, 1)), [[[1.0, 0.8, 0.5]]], [1.0], 1)
    maps = [[[0], [1], [2]]]
    for tolerance, action in ((0.0, 0), (0.1, 0), (0.2, 1), (0.4, 1), (0.5, 2)):
        found = psdp(mdp, maps, [[1.0]], tolerance=tolerance)
        assert found.policy.tolist() == [[action]]
        assert found.shortfall[0] == pytest.approx(1 - found.value)


def test_the_bound_is_tight_where_the_class_is_incomplete():
    """Layer 1 leads to x, which pays 1 for action 0; y pays .4 for action 1 and has most of the resets."""
    moves, reward = np.zeros((2, 3, 2, 3)), np.zeros((2, 3, 2))
    moves[..., 2] = 1.0
    moves[0, 0, 0] = (1.0, 0.0, 0.0)
    reward[1, 0, 0], reward[1, 1, 1] = 1.0, 0.4
    mdp, resets = TabularMDP(moves, reward, [1.0, 0.0, 0.0], 2), [[1.0, 0.0, 0.0], [0.1, 0.9, 0.0]]
    found = psdp(mdp, [[[0, 0, 0]], [[0, 0, 0], [1, 1, 1]]], resets)
    assert found.policy.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert found.value == 0.0
    assert found.shortfall == pytest.approx([0.0, 0.1])
    ratio = state_concentrability(mdp, np.zeros((2, 3), dtype=int), resets)
    assert ratio.tolist() == [1.0, 10.0]
    assert psdp_bound(ratio, found.shortfall) == pytest.approx(1.0)  # all that the best policy earns


def test_concentrability_by_hand():
    moves = np.zeros((2, 2, 2, 2))
    moves[:, :, 0, 0] = moves[:, :, 1, 1] = 1
    mdp = TabularMDP(moves, np.zeros((2, 2, 2)), [0.5, 0.5], 2)
    found = state_concentrability(mdp, [[1, 1], [0, 0]], [[0.25, 0.75], [0.8, 0.2]])
    assert found.tolist() == [2.0, 5.0]
    assert state_concentrability(mdp, [[1, 1], [0, 0]], [[0.25, 0.75], [1.0, 0.0]])[1] == np.inf


def test_bound():
    assert psdp_bound([2.0, 3.0], [0.1, 0.2]) == pytest.approx(0.8)
    assert psdp_bound([np.inf, 3.0], [0.0, 0.2]) == pytest.approx(0.6)
    assert psdp_bound([np.inf, 3.0], [0.1, 0.2]) == np.inf


MAPS = np.zeros((3, 1, 3), dtype=int)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: psdp(None, MAPS, UNIFORM), TypeError, "problem: must be a TabularMDP"),
        (lambda: psdp(problem(0), MAPS[:2], UNIFORM), ValueError, "maps: needs a class of maps for each of 3 layers"),
        (lambda: psdp(problem(0), MAPS[..., :2], UNIFORM), ValueError, r"maps\[0\]: must have shape \(M, 3\)"),
        (lambda: psdp(problem(0), MAPS + 2, UNIFORM), ValueError, r"maps\[0\].*must be <= 1"),
        (lambda: psdp(problem(0), MAPS, UNIFORM[:2]), ValueError, "resets: must have shape"),
        (lambda: psdp(problem(0), MAPS, UNIFORM * 2), ValueError, "resets.*sum to"),
        (lambda: psdp(problem(0), MAPS, UNIFORM, tolerance=-1.0), ValueError, "tolerance.*must be >= 0"),
        (lambda: psdp(problem(0), MAPS, UNIFORM, tolerance=[0.1]), ValueError, "tolerance: must be a number or"),
        (
            lambda: state_concentrability(problem(0), np.zeros((2, 3), int), UNIFORM),
            ValueError,
            "policy: must have shape",
        ),
        (
            lambda: state_concentrability(problem(0), np.zeros((3, 3), int), UNIFORM[0]),
            ValueError,
            "resets: must have shape",
        ),
        (lambda: psdp_bound([1.0], [0.1, 0.2]), ValueError, "shortfall: must have the shape"),
        (lambda: psdp_bound([-1.0], [0.1]), ValueError, "concentrability.*must be >= 0"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()
