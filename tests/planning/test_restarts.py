"""Restart laws, cut episodes and the coverage bound, against enumeration and simulation; bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from klsim.planning import Trajectories, evaluate, occupancy, rollouts, solve
from klsim.planning.restarts import (
    cluster_law,
    cut_problem,
    cut_shares,
    episode_visits,
    restart_bound,
    snapshot_states,
    state_law,
    value_clusters,
)
from klsim.problems import DiscountedMDP


def random_problem(seed, states=4, actions=2, discount=0.9, legal=None):
    rng = np.random.default_rng(seed)
    moves = rng.dirichlet(np.full(states, 0.5), (states, actions))
    return DiscountedMDP(moves, rng.random((states, actions)), discount, rng.dirichlet(np.ones(states)), legal)


UNIFORM = np.full((4, 2), -np.log(2))


def chain(goal=5, discount=0.9):
    """Right moves on, left goes back; entering the goal pays 1 and ends it."""
    moves, at = np.zeros((goal + 1, 2, goal + 1)), np.arange(goal)
    moves[at, 0, at + 1] = moves[at, 1, np.maximum(at - 1, 0)] = 1.0
    moves[goal, :, goal] = 1.0
    reward = moves[..., goal] * (np.arange(goal + 1) < goal)[:, None]
    return DiscountedMDP(moves, reward, discount, np.eye(goal + 1)[0])


def test_snapshots_are_states_before_every_kth_step():
    states = np.array([[0, 1, 2, 3, 3], [0, 0, 1, 1, 2]])
    taken = Trajectories(states, np.zeros((2, 4), dtype=int), np.zeros((2, 4)))
    assert snapshot_states(taken, 2).tolist() == [0, 2, 0, 1]
    assert snapshot_states(taken, 3, np.array([False, False, False, True])).tolist() == [0, 0, 1]
    assert snapshot_states(taken, 9).tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(6))
def test_clusters_are_the_best_of_all_partitions(seed):
    rng = np.random.default_rng(seed)
    x, k = np.round(rng.standard_normal(6), seed % 2), 1 + seed % 3
    best = np.inf
    for labels in itertools.product(range(k), repeat=6):
        parts = [x[np.array(labels) == j] for j in set(labels)]
        best = min(best, sum(np.sum((p - p.mean()) ** 2) for p in parts))
    labels = value_clusters(x, k)
    assert sum(np.sum((x[labels == j] - x[labels == j].mean()) ** 2) for j in set(labels)) == pytest.approx(best)
    assert np.all(np.diff(labels[np.argsort(x)]) >= 0)
    assert all(len(set(labels[x == v])) == 1 for v in x)


def test_clusters_at_extremes():
    assert value_clusters([2.0, 2.0, 2.0], 6).tolist() == [0, 0, 0]
    assert value_clusters([3.0, 1.0, 2.0], 6).tolist() == [2, 0, 1]
    assert value_clusters([1e300, -1e300, 1e300], 2).tolist() == [1, 0, 1]
    assert value_clusters([1e8, 1e8 + 1, 1e8 + 10, 1e8 + 11], 2).tolist() == [0, 0, 1, 1]
    assert value_clusters([0.0], 3).tolist() == [0]


def test_a_cluster_then_a_member():
    law = cluster_law([4, 7, 7, 4, 7, 9])
    assert np.allclose(law, [1 / 6, 1 / 9, 1 / 9, 1 / 6, 1 / 9, 1 / 3])
    assert np.allclose(state_law([0, 1, 1, 0, 3, 3], law, 5), [1 / 3, 2 / 9, 0, 4 / 9, 0])


@pytest.mark.parametrize("ends", [False, True])
def test_visits_of_cut_episodes_by_simulation(ends):
    problem = random_problem(1)
    terminal = np.array([False, False, ends, False])
    if ends:
        moves, reward = problem.transition.copy(), problem.reward.copy()
        moves[2], reward[2] = np.eye(4)[2], 0.0
        problem = DiscountedMDP(moves, reward, 0.9, problem.initial)
    visits = episode_visits(problem, UNIFORM, problem.initial, 4, terminal)
    states = rollouts(problem, UNIFORM, 20_000, 0, 4).states[:, :4]
    counted = np.array([[np.mean((states[:, t] == s) & ~terminal[s]) for s in range(4)] for t in range(4)])
    assert np.abs(visits - counted).max() < 5 * 0.5 / np.sqrt(20_000)
    shares = cut_shares(problem, UNIFORM, problem.initial, 4, terminal)
    assert np.allclose(shares * visits.sum(axis=0), visits[-1])
    if not ends:
        assert visits.sum() == pytest.approx(4)
        assert visits.sum(axis=0) @ shares == pytest.approx(1)


def test_the_share_is_zero_where_nobody_goes():
    shares = cut_shares(chain(), np.tile([0.0, -np.inf], (6, 1)), np.eye(6)[3], 2)
    assert shares.tolist() == [0, 0, 0, 0, 1, 0]


def test_cut_problem_solves_its_equation():
    problem, c = random_problem(2), np.array([0.0, 0.3, 1.0, 0.7])
    q = solve(cut_problem(problem, c), None, 0.0).q_value[:-1]
    assert np.allclose(q, problem.reward + 0.9 * (1 - c)[:, None] * (problem.transition @ q.max(axis=1)))
    assert np.allclose(q[2], problem.reward[2])
    whole = solve(cut_problem(problem, np.zeros(4)), None, 0.0).q_value[:-1]
    assert np.allclose(whole, solve(problem, None, 0.0).q_value)


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_and_its_parts(seed):
    problem = random_problem(seed)
    rng = np.random.default_rng(seed)
    policy, nu = rng.dirichlet(np.ones(2), 4), rng.dirichlet(np.ones(4))
    found = restart_bound(problem, np.log(policy), nu)
    best = solve(problem, None, 0.0)
    value = evaluate(problem, np.log(policy)).state_value
    assert found.gap == pytest.approx(problem.initial @ (best.value - value))
    visits = 0.1 * nu @ np.linalg.inv(np.eye(4) - 0.9 * np.einsum("sa,sat->st", policy, problem.transition))
    assert np.allclose(found.visits, visits)
    advantage = np.max(problem.reward + 0.9 * problem.transition @ value, axis=1) - value
    assert found.signal == pytest.approx(visits @ advantage / 0.1)
    wanted = occupancy(problem, best.log_policy).sum(axis=1)
    assert found.ratio == pytest.approx(np.max(wanted / visits))
    assert found.gap <= found.bound == found.ratio * found.signal
    assert np.all(found.visits >= 0.1 * nu)


def test_the_bound_where_nothing_is_covered_or_nothing_is_missing():
    back, on = np.tile([-np.inf, 0.0], (6, 1)), np.tile([0.0, -np.inf], (6, 1))
    hidden = restart_bound(chain(), back, np.eye(6)[0])
    assert (hidden.signal, hidden.ratio, hidden.bound) == (0.0, np.inf, np.inf)
    assert hidden.gap == pytest.approx(0.9**4)
    done = restart_bound(chain(), on, np.eye(6)[0])
    assert (done.gap, done.ratio, done.bound) == (pytest.approx(0.0, abs=1e-12), 0.0, 0.0)


def test_a_state_that_nobody_meets_does_not_count():
    apart = DiscountedMDP(np.eye(2)[:, None].repeat(2, axis=1), np.array([[1.0, 0.0], [1.0, 0.0]]), 0.5, [1.0, 0.0])
    found = restart_bound(apart, np.full((2, 2), -np.log(2)), np.array([1.0, 0.0]))
    assert (found.ratio, found.signal) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.gap == pytest.approx(found.bound)


def test_illegal_actions_are_no_improvement():
    problem = random_problem(3, legal=np.array([[True, False]] * 4))
    found = restart_bound(problem, np.tile([0.0, -np.inf], (4, 1)), np.full(4, 0.25))
    assert found.bound == 0.0
    assert solve(cut_problem(problem, np.full(4, 0.5)), None, 0.0).value.shape == (5,)


TAKEN = Trajectories(np.zeros((1, 3), dtype=int), np.zeros((1, 2), dtype=int), np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: snapshot_states(TAKEN, 0), "every"),
        (lambda: snapshot_states(TAKEN, 1, np.zeros((1, 1), dtype=bool)), "terminal"),
        (
            lambda: snapshot_states(Trajectories(TAKEN.states + 3, TAKEN.actions, TAKEN.rewards), 1, np.array([True])),
            "terminal",
        ),
        (lambda: value_clusters([], 2), "values"),
        (lambda: value_clusters([[1.0]], 2), "values"),
        (lambda: value_clusters([np.nan], 2), "values"),
        (lambda: value_clusters([1.0], 0), "clusters"),
        (lambda: cluster_law(np.zeros(0, dtype=int)), "labels"),
        (lambda: cluster_law([[1]]), "labels"),
        (lambda: state_law([0, 5], [0.5, 0.5], 5), "states"),
        (lambda: state_law([0], [0.5, 0.5], 5), "law"),
        (lambda: state_law([0, 1], [0.5, 0.6], 5), "law"),
        (lambda: state_law([0], [1.0], 0), "size"),
        (lambda: episode_visits(chain(), np.zeros(3), np.eye(6)[0], 2), "log_policy"),
        (lambda: episode_visits(random_problem(0), UNIFORM, np.ones(4), 2), "restart"),
        (lambda: episode_visits(random_problem(0), UNIFORM, np.ones(1), 2), "restart"),
        (lambda: episode_visits(random_problem(0), UNIFORM, np.full(4, np.nan), 2), "restart"),
        (lambda: cut_shares(random_problem(0), UNIFORM, np.full(4, 0.25), 0), "cut"),
        (lambda: cut_shares(random_problem(0), UNIFORM, np.full(4, 0.25), 2, np.zeros(3, dtype=bool)), "terminal"),
        (lambda: cut_problem(random_problem(0), np.zeros(3)), "shares"),
        (lambda: cut_problem(random_problem(0), np.array([0, 0, 0, 1.1])), "shares"),
        (lambda: cut_problem(random_problem(0), np.array([0, 0, 0, np.nan])), "shares"),
        (lambda: restart_bound(random_problem(0), UNIFORM, -np.ones(4)), "restart"),
        (lambda: restart_bound(random_problem(0), UNIFORM[:2], np.full(4, 0.25)), "log_policy"),
    ],
)
def test_bad_input(call, name):
    with pytest.raises(ValueError, match=name):
        call()


def test_bad_types():
    with pytest.raises(TypeError, match="trajectories"):
        snapshot_states(np.zeros((1, 2)), 1)
    with pytest.raises(TypeError, match="labels"):
        cluster_law([0.5])
    for call in (
        lambda p: cut_problem(p, [0.0]),
        lambda p: restart_bound(p, UNIFORM, [1.0]),
        lambda p: episode_visits(p, UNIFORM, [1.0], 1),
    ):
        with pytest.raises(TypeError, match="problem"):
            call(None)
