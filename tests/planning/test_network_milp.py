"""ReLU networks in integer programmes: optima against enumeration, interval bounds, action sets, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from klsim.learning.networks import Linear, Network, ReLU
from klsim.planning.network_milp import best_action, contains, feasible_actions, interval_bounds
from klsim.problems.action_models import ActionModel, budget_model, packing_model, schedule_model, walk_model

PATH = np.array([[False, True, False], [True, False, True], [False, True, False]])


def network(seed, entries=4, arms=2, hidden=(5, 4)):
    made = Network((Linear(entries + arms, hidden[0]), ReLU(), Linear(*hidden), ReLU(), Linear(hidden[1], 1)))
    rng = np.random.default_rng(seed)
    weights = list(made.start(rng, gain=1.5))
    weights[1::2] = [0.3 * rng.standard_normal(b.shape) for b in weights[1::2]]
    return made, tuple(weights), rng.integers(0, 4, arms).astype(float)


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_is_that_of_enumeration(seed):
    made, weights, state = network(seed)
    actions = np.array([v for v in itertools.product((0, 1), repeat=4) if sum(v) <= 2])
    outputs = made.forward(weights, np.concatenate([actions, np.tile(state, (len(actions), 1))], axis=1))[0][:, 0]
    found = best_action(weights, state, budget_model(4, 2))
    assert found.value == pytest.approx(outputs.max(), abs=1e-6)
    assert found.action.tolist() == actions[outputs.argmax()].tolist()
    assert 0 <= found.binaries <= 9


def test_a_linear_score_needs_no_hidden_layer():
    weights = (np.array([[2.0, -1.0, 1.0, 0.5]]), np.array([0.25]))
    found = best_action(weights, [4.0], budget_model(3, 1))
    assert found.action.tolist() == [1, 0, 0]
    assert found.value == pytest.approx(2 + 0.5 * 4 + 0.25)


def test_one_unit_that_is_always_on():
    """relu(a + 3) - a: 3 whatever a is; M below 3 leaves nothing."""
    weights = (np.array([[1.0, 1.0]]), np.array([0.0]), np.array([[1.0]]), np.array([0.0]))
    assert best_action(weights, [3.0], budget_model(1, 1)).value == pytest.approx(4.0)
    with pytest.raises(ValueError, match="big_m: leaves no feasible point"):
        best_action(weights, [3.0], budget_model(1, 1), big_m=(2.0, 2.0))


def test_intervals_hold_and_the_first_is_attained():
    _, weights, _ = network(5)
    low, high = np.zeros(6), np.array([1, 1, 1, 1, 3, 3.0])
    bounds = interval_bounds(weights, low, high)
    corners = np.array(list(itertools.product(*zip(low, high))))
    first = corners @ weights[0].T + weights[1]
    np.testing.assert_allclose(bounds[0][0], first.min(axis=0), atol=1e-12)
    np.testing.assert_allclose(bounds[0][1], first.max(axis=0), atol=1e-12)
    second = np.maximum(first, 0) @ weights[2].T + weights[3]
    assert np.all(bounds[1][0] <= second.min(axis=0))
    assert np.all(bounds[1][1] >= second.max(axis=0))


def test_walks_wait_and_loops_do_not_run_beside_them():
    assert feasible_actions(walk_model(PATH, 0, 2, 1)).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert len(feasible_actions(walk_model(PATH, 0, 2, 1, loose_loops=True))) == 4
    assert contains(walk_model(PATH, 0, 3, 1), [0, 1, 0])
    assert not contains(walk_model(PATH, 0, 3, 1, waiting=False), [0, 1, 0])  # walks of three moves do not close


def test_a_worker_serves_both_units_unless_they_are_told_apart():
    workers = np.array([[True, True, True, False, False], [False, False, True, True, True]])
    arms = np.tile(np.arange(5) < 2, (4, 1))
    assert len(feasible_actions(schedule_model(workers, arms, 2))) == 5
    assert feasible_actions(schedule_model(workers, arms, 2, distinct=True)).tolist() == [[0, 0, 0, 0]]


def test_packings_do_not_pool_capacities():
    assert contains(packing_model([5, 5, 2], [5, 6]), [1, 1, 0])
    assert not contains(packing_model([5, 5, 2], [4, 7]), [1, 1, 0])


def test_rows_without_helpers():
    model = ActionModel(np.array([[1.0, -1.0]]), [0.0], [np.inf], 2)
    assert feasible_actions(model).tolist() == [[0, 0], [1, 0], [1, 1]]
    assert len(feasible_actions(ActionModel(np.zeros((0, 2)), [], [], 2))) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": ()}, "parameters: needs weights and biases"),
        ({"parameters": (np.ones((1, 6)), np.ones(2))}, r"parameters\[1\]: must have shape"),
        ({"parameters": (np.ones((2, 6)), np.ones(2))}, "parameters: needs one output"),
        ({"parameters": (np.ones((2, 6)), np.ones(2), np.ones((1, 3)), np.ones(1))}, r"parameters\[2\]"),
        ({"parameters": (np.full((1, 6), np.nan), np.ones(1))}, r"parameters\[0\]"),
        ({"state": np.zeros(3)}, "state: must have shape"),
        ({"state": [0.0, np.inf]}, "state"),
        ({"big_m": (1.0,)}, "big_m: needs"),
        ({"big_m": (1.0, -1.0)}, r"big_m\[1\]"),
        ({"big_m": ([1.0], 1.0)}, r"big_m\[0\]: needs a number"),
        ({"big_m": ([np.ones(5), np.ones(5)], 1.0)}, r"big_m\[0\]: must be a number or have shape"),
        ({"relative_gap": -0.1}, "relative_gap"),
        ({"model": ActionModel(np.ones((1, 4)), [5.0], [9.0], 4)}, "model: leaves no feasible point"),
    ],
)
def test_bad_queries_are_refused(change, message):
    _, weights, state = network(0)
    given = {"parameters": weights, "state": state, "model": budget_model(4, 2)} | change
    with pytest.raises(ValueError, match=message):
        best_action(**given)


def test_bad_boxes_and_vectors_are_refused():
    _, weights, _ = network(0)
    for low, high, message in (([0.0], np.ones(6), "low: must have shape"), (np.ones(6), np.zeros(6), "low.*at most high"),
                               (np.zeros(6), np.full(6, np.nan), "high")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            interval_bounds(weights, low, high)
    with pytest.raises(ValueError, match="action: must have shape"):
        contains(budget_model(3, 1), [0, 1])
    with pytest.raises(ValueError, match=r"action\[0\] = 2"):
        contains(budget_model(1, 1), [2])
    with pytest.raises(ValueError, match="model: lists"):
        feasible_actions(budget_model(21, 1))
