"""Coupled restless bandits: joint states, rewards of the next state, chains, links, and bad input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from klsim.problems.restless_bandit import CoupledRestlessBandit, arm_chain, binary_vectors, saturating_link

VECTORS = np.array([[0, 0], [1, 0], [0, 1]])
UP = np.array([[0.1, 0.2], [0.8, 0.2], [0.1, 0.7]])
PROBLEM = CoupledRestlessBandit(
    VECTORS, arm_chain(UP, 3), np.array([[0.0, 1.0, 5.0], [0.5, 0.2, 2.0]]), np.tile([0.5, 0.5, 0.0], (2, 1)), 4
)


def changed(**parts):
    return dataclasses.replace(PROBLEM, **parts)


def test_joint_states_have_the_first_arm_slowest():
    assert PROBLEM.shape == (4, 9, 3)
    assert PROBLEM.states[5].tolist() == [1, 2]
    np.testing.assert_allclose(PROBLEM.start, np.outer([0.5, 0.5, 0], [0.5, 0.5, 0]).ravel())


def test_a_step_pays_for_the_state_it_leads_to():
    """From (0, 1) under the first pull: arm 0 up with .8, arm 1 up with .2, else down."""
    expected = 0.8 * 1.0 + 0.2 * 0.0 + 0.2 * 2.0 + 0.8 * 0.5
    assert PROBLEM.step_reward[1, 1] == pytest.approx(expected)


def test_written_out_transitions_are_products():
    joint = PROBLEM.as_tabular()
    moves = joint.transition[0]
    assert moves[1, 1, 3 * 1 + 2] == pytest.approx(0.8 * 0.2)  # (0, 1) -> (1, 2)
    np.testing.assert_allclose(moves.sum(axis=-1), 1)
    np.testing.assert_allclose(joint.reward[0], PROBLEM.step_reward)


def test_chains_stay_at_their_ends():
    np.testing.assert_allclose(arm_chain(0.3, 3), [[0.7, 0.3, 0], [0.7, 0, 0.3], [0, 0.7, 0.3]])
    np.testing.assert_array_equal(arm_chain(0.3, 1), [[1.0]])
    assert arm_chain(UP, 4).shape == (3, 2, 4, 4)


def test_a_link_is_about_a_hundredth_at_zero_and_saturates():
    assert saturating_link(0.0, 0.8, 1.5, 9.0) == pytest.approx(0.01)
    assert saturating_link(1e308, 0.8, 1e10, 0.0) == pytest.approx(0.98 * 0.8 * 0.5 + 0.01)
    risen = saturating_link(np.array([3.0, 6.0, 9.0]), 1.0, 1.5, 9.0)
    by_hand = 0.98 * (1 / (1 + np.exp(9 - 1.5 * np.array([3.0, 6.0, 9.0]))) - 1 / (1 + np.exp(9.0))) + 0.01
    np.testing.assert_allclose(risen, by_hand)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"actions": [[0, 2], [1, 0], [0, 1]]}, r"actions\[0, 1\] = 2: must be <= 1"),
        ({"actions": [[0, 1], [1, 0], [0, 1]]}, r"actions\[2\].*there twice"),
        ({"actions": [0, 1]}, "actions: must be"),
        ({"transition": np.ones((3, 2, 3, 3))}, "transition.*sum to 1"),
        ({"transition": arm_chain(UP, 4)}, "transition: must have shape"),
        ({"reward": [[0.0, np.nan, 1], [0, 0, 0]]}, "reward"),
        ({"reward": [0.0, 1.0]}, "reward: must be"),
        ({"initial": [[0.5, 0.6, 0], [1, 0, 0]]}, "initial.*sum to 1"),
        ({"initial": [[-0.5, 1.5, 0], [1, 0, 0]]}, "initial"),
        ({"initial": [0.5, 0.5, 0.0]}, "initial: must have shape"),
        ({"horizon": 0}, "horizon = 0"),
    ],
)
def test_bad_problems_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        changed(**parts)


def test_joint_tables_that_do_not_fit_are_refused():
    arms = 30
    with pytest.raises(ValueError, match="arms = 30: would need"):
        CoupledRestlessBandit(
            np.zeros((1, arms), dtype=int), arm_chain(np.zeros((1, arms)), 4), np.zeros((arms, 4)),
            np.tile([1.0, 0, 0, 0], (arms, 1)), 2,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: arm_chain(1.2, 3), "up = 1.2"),
        (lambda: arm_chain([np.nan], 3), "up"),
        (lambda: arm_chain(0.5, 0), "states = 0"),
        (lambda: saturating_link(-1.0, 0.5, 1, 1), "x"),
        (lambda: saturating_link(1.0, 1.5, 1, 1), "height"),
        (lambda: saturating_link(1.0, 0.5, -1, 1), "slope"),
        (lambda: saturating_link(1.0, 0.5, 1, np.inf), "midpoint"),
        (lambda: saturating_link([1.0, 2.0], [0.5] * 3, 1, 1), "shapes must broadcast"),
        (lambda: binary_vectors("v", np.zeros((0, 2), dtype=int)), "v: must be"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
