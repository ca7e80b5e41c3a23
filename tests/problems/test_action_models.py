"""Action sets as rows with binary helpers: their columns, and bad input; what they admit is in tests/planning."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from klsim.problems.action_models import ActionModel, budget_model, packing_model, schedule_model, walk_model

PATH = np.array([[False, True, False], [True, False, True], [False, True, False]])
FREE = np.ones((2, 3), dtype=bool)


def test_a_budget_has_no_helpers():
    model = budget_model(3, 2)
    assert model.rows.tolist() == [[1, 1, 1]]
    assert (model.lower[0], model.upper[0]) == (-np.inf, 2)


def test_walks_have_a_helper_for_every_step_and_arc():
    assert walk_model(PATH, 0, 4, 2).rows.shape[1] == 3 + 4 * (4 + 3)
    assert walk_model(PATH, 0, 4, 2, waiting=False).rows.shape[1] == 3 + 4 * 4


def test_schedules_have_a_helper_where_both_are_free():
    arms = np.array([[True, False, False], [False, True, True]])
    workers = np.array([[True, True, False]])
    assert schedule_model(workers, arms, 1).rows.shape[1] == 2 + 2


def test_packings_have_a_helper_for_every_pair():
    model = packing_model([2, 3, 4], [5.0, 4.0])
    # columns a, x[0], x[1]: what each worker carries, then a_j - sum_i x[i, j]
    none, one, cost = np.zeros((1, 3)), np.eye(3), np.array([[2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(
        sparse.csr_array(model.rows).toarray(), np.block([[none, cost, none], [none, none, cost], [one, -one, -one]])
    )
    np.testing.assert_array_equal(model.lower, np.full(5, -np.inf))
    np.testing.assert_array_equal(model.upper, [5, 4, 0, 0, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ActionModel(np.ones((1, 2)), [0.0], [1.0], 3), "rows: must be"),
        (lambda: ActionModel(np.full((1, 2), np.nan), [0.0], [1.0], 2), "rows"),
        (lambda: ActionModel(np.ones((1, 2)), [2.0], [1.0], 2), "lower.*at most upper"),
        (lambda: ActionModel(np.ones((1, 2)), [0.0, 0.0], [1.0], 2), "lower: must have shape"),
        (lambda: ActionModel(np.ones((1, 2)), [0.0], [np.nan], 2), "upper"),
        (lambda: ActionModel(np.ones((1, 2)), [0.0], [1.0], 0), "size = 0"),
        (lambda: budget_model(0, 1), "size = 0"),
        (lambda: budget_model(2, -1), "budget = -1"),
        (lambda: walk_model(PATH[:2], 0, 2, 1), "adjacency: must be"),
        (lambda: walk_model(np.triu(PATH), 0, 2, 1), "adjacency.*symmetric"),
        (lambda: walk_model(np.eye(2, dtype=bool), 0, 2, 1), "adjacency: must have no loops"),
        (lambda: walk_model(PATH, 3, 2, 1), "source = 3"),
        (lambda: walk_model(PATH, 0, 0, 1), "length = 0"),
        (lambda: walk_model(PATH, 0, 2, -1), "budget = -1"),
        (lambda: schedule_model(FREE, FREE[:, :2], 1), "arms: must have 3 slots"),
        (lambda: schedule_model(FREE[0], FREE, 1), "workers: must be"),
        (lambda: schedule_model(FREE, FREE, -1), "budget = -1"),
        (lambda: schedule_model(FREE, FREE, 1, units=0), "units = 0"),
        (lambda: packing_model([-1.0], [1.0]), "costs"),
        (lambda: packing_model([1.0], [np.inf]), "capacities"),
        (lambda: packing_model([[1.0]], [1.0]), "costs: must be a vector"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
