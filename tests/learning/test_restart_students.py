"""Q-learning with restarts: hand-worked updates, fixed points, how episodes begin and end, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.learning.restart_students import greedy_values, restart_students
from klsim.planning import evaluate, solve
from klsim.planning.restarts import cut_problem, cut_shares
from klsim.problems import DiscountedMDP

ONE = DiscountedMDP(np.ones((1, 1, 1)), np.ones((1, 1)), 0.5, [1.0])
#: 0 -> 1 -> 2, the end; reward 1 on the last step
LINE = DiscountedMDP(
    np.array([[[0, 1.0, 0]], [[0, 0, 1.0]], [[0, 0, 1.0]]]), np.array([[0.0], [1.0], [0.0]]), 0.5, [1.0, 0, 0]
)
END = np.array([False, False, True])


def random_problem(seed, states=4, actions=2, discount=0.8):
    rng = np.random.default_rng(seed)
    moves = rng.dirichlet(np.ones(states), (states, actions))
    return DiscountedMDP(moves, rng.random((states, actions)), discount, rng.dirichlet(np.ones(states)))


def students(problem, points=((0,),), law=((1.0,),), **more):
    options = {"steps": 4, "phase": 4, "cut": 2, "limit": 2, "every": 1} | more
    return restart_students(problem, np.array(points), np.array(law), **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bootstrap": False},
        {"step_size": 1.0, "step_power": 1.0},
        {"step_size": 3.0, "step_power": 0.5, "bootstrap": False},
        {"expected": True},
    ],
)
def test_updates_by_hand(options):
    """One state and one action: reward 1, discount 1/2, an episode every two steps."""
    found = students(ONE, **options).q_value[0, :, 0, 0]
    q, expected = 0.0, []
    for n in range(1, 5):
        follows = options.get("bootstrap", True) or n % 2
        step = min(1.0, options.get("step_size", 0.3) * n ** -options.get("step_power", 0.0))
        q += step * (1 + (0.5 * q if follows else 0.0) - q)
        expected.append(q)
    assert np.allclose(found, expected)


def test_a_terminal_state_ends_the_episode_and_nothing_follows():
    found = students(LINE, terminal=END, steps=6, phase=6, cut=100, limit=100, step_size=1.0)
    assert found.restarts[0] == 3
    assert np.allclose(found.q_value[0, -1, :, 0], [0.5, 1.0, 0.0])


def test_restarts_in_the_phase_only():
    found = students(
        LINE,
        [[1, 2, 1], [1, 1, 0]],
        [[1.0, 0, 0], [0.5, 0.5, 0]],
        steps=50,
        phase=10,
        cut=1,
        limit=9,
        every=50,
        terminal=END,
    )
    assert found.restarts.tolist() == [10, 10]
    assert found.distinct.tolist() == [1, 2]
    assert students(LINE, steps=50, phase=0, every=50).restarts[0] == 0


def test_episodes_are_cut_where_they_should():
    """An absorbing middle state: ceil(phase / cut) restarts, and the switch resets once."""
    stay = DiscountedMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), 0.9, [1.0])
    assert students(stay, steps=100, phase=95, cut=10, every=100).restarts[0] == 10
    assert students(stay, steps=100, phase=200, cut=30, every=100).restarts[0] == 4


def test_the_end_of_the_phase_begins_a_new_episode():
    """Two states that nobody leaves: 1 at the restart point, 0 at the start, each paid by its number and one."""
    apart = DiscountedMDP(np.eye(2)[:, None], np.array([[1.0], [2.0]]), 0.5, [1.0, 0.0])
    found = students(apart, [[1]], steps=6, phase=3, cut=100, limit=100, step_size=1.0).q_value[0, :, :, 0]
    assert np.allclose(found, [[0, 2], [0, 3], [0, 3.5], [1, 3.5], [1.5, 3.5], [1.75, 3.5]])


def test_a_cut_before_and_after_the_phase_has_its_own_length():
    """Treated as an end, a cut shows in the target: every second step in the phase, every third after it."""
    found = students(ONE, steps=12, phase=6, cut=2, limit=3, step_size=1.0, bootstrap=False).q_value[0, :, 0, 0]
    expected, q = [], 0.0
    for n in range(1, 13):
        last = n % 2 == 0 if n <= 6 else (n - 6) % 3 == 0
        q = 1.0 if last else 1.0 + 0.5 * q
        expected.append(q)
    assert np.allclose(found, expected)


def test_actions_are_greedy_but_for_exploration():
    """A bandit of two actions: without exploration the one that pays is kept; at random both are tried equally often."""
    bandit = DiscountedMDP(np.ones((1, 2, 1)), np.array([[1.0, 0.9]]), 0.0, [1.0])
    common = {"steps": 2000, "phase": 0, "every": 2000, "step_size": 1.0, "step_power": 1.0}
    tables = [
        students(bandit, np.zeros((40, 1), dtype=int), np.ones((40, 1)), explore=e, rng=1, **common).q_value[:, 0, 0]
        for e in (0.0, 0.2)
    ]
    first = (tables[0] > 0).sum(axis=0)
    assert first.sum() == 40  # whoever began with one stays
    assert 0 < first[0] < 40  # ties at random
    assert np.allclose(tables[1], [1.0, 0.9])


def test_the_fixed_points_with_and_without_bootstrapping():
    problem = random_problem(0)
    states = np.arange(4)[None]
    law = np.array([[0.4, 0.3, 0.2, 0.1]])
    common = {
        "steps": 200_000,
        "phase": 200_000,
        "cut": 3,
        "every": 200_000,
        "explore": 1.0,
        "step_size": 1.0,
        "rng": 5,
    }
    usual = students(problem, states, law, step_power=0.5, expected=True, **common).q_value[0, 0]
    assert np.allclose(usual, solve(problem, None, 0.0).q_value, rtol=1e-6)
    ended = students(problem, states, law, step_power=0.8, bootstrap=False, **common).q_value[0, 0]
    shares = cut_shares(problem, np.full((4, 2), -np.log(2)), law[0], 3)
    aim = solve(cut_problem(problem, shares), None, 0.0).q_value[:-1]
    assert np.abs(ended - aim).max() < 0.1 < np.abs(usual - aim).max()


def test_rewards_of_transitions_have_the_means_of_the_problem():
    problem = random_problem(1)
    table = np.random.default_rng(0).random((4, 2, 4))
    table += (problem.reward - np.sum(problem.transition * table, axis=-1))[..., None]
    common = {
        "steps": 20_000,
        "phase": 20_000,
        "every": 20_000,
        "explore": 1.0,
        "step_power": 0.5,
        "step_size": 1.0,
        "expected": True,
    }
    points, law = np.arange(4)[None], np.full((1, 4), 0.25)
    found = [students(problem, points, law, rewards=r, **common).q_value for r in (None, table)]
    assert np.allclose(*found)
    with pytest.raises(ValueError, match="rewards"):
        students(problem, points, law, rewards=table + 0.1)


def test_runs_are_reproducible_and_differ():
    problem = random_problem(2)
    points, law = np.zeros((3, 1), dtype=int), np.ones((3, 1))
    first, again = (students(problem, points, law, steps=300, every=300, rng=4).q_value for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


def test_greedy_values_share_ties():
    problem = random_problem(3)
    q = np.random.default_rng(1).random((5, 4, 2))
    q[2] = 0.0
    with np.errstate(divide="ignore"):
        policies = np.log(np.where(q == q.max(axis=-1, keepdims=True), 1.0, 0.0))
    policies[2] = -np.log(2)
    expected = [evaluate(problem, policy).state_value for policy in policies]
    assert np.allclose(greedy_values(problem, q), expected)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"points": [[1]]}, "points"),
        ({"points": [[-1]]}, "points"),
        ({"points": [0]}, "law"),
        ({"law": [[0.5, 0.5]]}, "law"),
        ({"law": [[0.5]]}, "law"),
        ({"law": [[np.nan]]}, "law"),
        ({"steps": 0}, "steps"),
        ({"steps": 3, "every": 2}, "steps"),
        ({"every": 0}, "every"),
        ({"phase": -1}, "phase"),
        ({"cut": 0}, "cut"),
        ({"limit": 0}, "limit"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": np.inf}, "step_size"),
        ({"step_power": -0.1}, "step_power"),
        ({"explore": 1.1}, "explore"),
        ({"terminal": np.array([True])}, "terminal"),
        ({"terminal": np.array([True, False])}, "terminal"),
        ({"rewards": np.ones((1, 1))}, "rewards"),
        ({"rewards": np.full((1, 1, 1), np.nan)}, "rewards"),
    ],
)
def test_bad_input(changes, name):
    with pytest.raises(ValueError, match=name):
        students(ONE, **changes)


def test_bad_types_and_illegal_actions():
    with pytest.raises(TypeError, match="problem"):
        students(3)
    masked = DiscountedMDP(np.ones((1, 2, 1)), np.zeros((1, 2)), 0.5, [1.0], np.array([[True, False]]))
    with pytest.raises(ValueError, match="problem"):
        students(masked)
    with pytest.raises(ValueError, match="q_value"):
        greedy_values(ONE, np.zeros(3))
    with pytest.raises(ValueError, match="q_value"):
        greedy_values(ONE, np.full((1, 1), np.nan))
    with pytest.raises(TypeError, match="bootstrap"):
        students(ONE, bootstrap=1)
    with pytest.raises(TypeError, match="expected"):
        students(ONE, expected=None)
