"""Successor measures: by hand, against sums over time and evaluation, the tight example of the bound, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from klsim.planning import evaluate
from klsim.planning import successor_measures as sm
from klsim.problems import DiscountedMDP

#: two states; action 0 stays, action 1 moves
SWITCH = np.array([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]])
STAY = np.array([[0.0, -math.inf], [0.0, -math.inf]])


def drawn(seed=0, states=4, actions=3):
    rng = np.random.default_rng(seed)
    rows, policy = rng.dirichlet(np.ones(states), (states, actions)), rng.dirichlet(np.ones(actions), states)
    return rows, np.log(policy), rng.dirichlet(np.ones(states)), rng.standard_normal(states)


def test_by_hand():
    """Staying for ever, discount 1/2: mass 2 on the state that the first action leads to."""
    found = sm.successor_measure(SWITCH, STAY, 0.5)
    assert found.tolist() == [[[2.0, 0.0], [0.0, 2.0]], [[0.0, 2.0], [2.0, 0.0]]]
    assert sm.successor_measure(SWITCH, STAY, 0.0).tolist() == SWITCH.tolist()
    assert sm.successor_density(found, [0.25, 0.75])[0, 0].tolist() == [8.0, 0.0]


def test_against_the_sum_over_time():
    rows, policy, _, _ = drawn()
    chain, power, total = np.einsum("sa,sat->st", np.exp(policy), rows), rows, np.zeros_like(rows)
    for t in range(400):
        total += 0.9**t * power
        power = power @ chain
    np.testing.assert_allclose(sm.successor_measure(rows, policy, 0.9), total, rtol=1e-12)


def test_values_and_backup():
    rows, policy, rho, reward = drawn(1)
    density = sm.successor_density(sm.successor_measure(rows, policy, 0.9), rho)
    np.testing.assert_allclose(sm.successor_backup(rows, policy, density, rho, 0.9), density, rtol=1e-12)
    value = evaluate(DiscountedMDP(rows, rows @ reward, 0.9, rho), policy).state_value
    np.testing.assert_allclose(sm.arrival_values(density, rho, reward), rows @ (reward + 0.9 * value), rtol=1e-10)


def test_batches():
    rows, policy, rho, reward = drawn(2)
    both = sm.successor_measure(rows, np.stack([policy, np.full((4, 3), -math.log(3))]), 0.5)
    np.testing.assert_allclose(both[0], sm.successor_measure(rows, policy, 0.5))
    # transitions of two worlds, each beside two policies
    worlds = np.stack([rows, drawn(3)[0]])
    policies = np.stack([policy, np.full((4, 3), -math.log(3))])
    table = sm.successor_measure(worlds[:, None], policies, 0.5)
    for i, j in np.ndindex(2, 2):
        np.testing.assert_allclose(table[i, j], sm.successor_measure(worlds[i], policies[j], 0.5), rtol=1e-13)
    values = sm.arrival_values(both[:, None] / rho, rho, np.stack([reward, 2 * reward]))
    assert values.shape == (2, 2, 4, 3)
    np.testing.assert_allclose(values[:, 1], 2 * values[:, 0])


def test_error_and_bound():
    assert sm.measure_error([[[1.0, 2.0]], [[0.0, 0.0]]], [[[0.0, 4.0]], [[0.5, 0.0]]]) == 3.0
    assert sm.greedy_gap_bound(0.1, [1.0, -2.0], 0.5) == pytest.approx(0.8)
    assert sm.greedy_gap_bound([0.0, 1.0], [1.0], 0.0).tolist() == [0.0, 2.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sm.successor_measure(SWITCH[0], STAY, 0.5), "transition: must be"),
        (lambda: sm.successor_measure(2 * SWITCH, STAY, 0.5), "transition.*sum to 1"),
        (lambda: sm.successor_measure(SWITCH, STAY[:1], 0.5), "log_policy: must be"),
        (lambda: sm.successor_measure(SWITCH, STAY + 1, 0.5), "log_policy.*sum"),
        (lambda: sm.successor_measure(SWITCH, STAY, 1.0), "discount"),
        (lambda: sm.successor_measure(SWITCH, STAY, math.nan), "discount"),
        (lambda: sm.successor_density(SWITCH, [1.0, 0.0]), "rho.*> 0"),
        (lambda: sm.successor_density(SWITCH, [0.5, 0.4]), "rho.*sum to 1"),
        (lambda: sm.successor_density(SWITCH, [-0.5, 1.5]), "rho"),
        (lambda: sm.successor_density(SWITCH, [1.0]), "rho: must be"),
        (lambda: sm.successor_density(np.full((2, 2, 2), math.inf), [0.5, 0.5]), "measure"),
        (lambda: sm.successor_density([1.0], [1.0]), "measure: must be"),
        (lambda: sm.arrival_values(SWITCH, [0.5, 0.5], [1.0]), "reward: must be"),
        (lambda: sm.arrival_values(SWITCH, [0.5, 0.5], [1.0, math.nan]), "reward"),
        (lambda: sm.successor_backup(SWITCH, STAY, SWITCH[..., :1], [0.5, 0.5], 0.5), "density: must be"),
        (lambda: sm.successor_backup(SWITCH, STAY, np.ones((3, 2, 3)), [0.5, 0.5], 0.5), "density: must be"),
        (lambda: sm.measure_error(SWITCH, np.ones((3, 2, 3))), "approximate: must be"),
        (lambda: sm.greedy_gap_bound(-1.0, [1.0], 0.5), "error"),
        (lambda: sm.greedy_gap_bound(1.0, 1.0, 0.5), "reward: must be"),
        (lambda: sm.greedy_gap_bound(1.0, [math.inf], 0.5), "reward"),
        (lambda: sm.greedy_gap_bound(1.0, [1.0], 1.0), "discount"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
