"""Fitted Q iteration and regression on returns: closed forms, value iteration, and the doors."""

import numpy as np
import pytest

from klsim.learning.fitted_q import fitted_q_iterates, least_squares_values

GOOD = {
    "features": [[1.0], [2.0]], "next_features": [[[2.0]], [[2.0]]], "rewards": [0.0, 0.0], "weights": [0.5, 0.5],
    "gamma": 0.95, "start": [1.0], "iterations": 3,
}  # fmt: skip


def test_the_two_state_instance_grows_by_six_fifths_of_gamma():
    np.testing.assert_allclose(fitted_q_iterates(**GOOD)[:, 0], 1.14 ** np.arange(4))


def test_tabular_features_give_value_iteration():
    rng = np.random.default_rng(0)
    after, rewards = rng.integers(0, 3, (3, 2)), rng.normal(size=(3, 2))
    phi = np.eye(6).reshape(3, 2, 6)
    found = fitted_q_iterates(
        phi.reshape(6, 6),
        phi[after.ravel()],
        rewards.ravel(),
        rng.random(6) + 0.1,
        gamma=0.9,
        start=np.zeros(6),
        iterations=20,
    )
    q = np.zeros((3, 2))
    for k in range(21):
        np.testing.assert_allclose(found[k], q.ravel(), atol=1e-12)
        q = rewards + 0.9 * q.max(axis=1)[after]


def test_least_squares_against_the_normal_equations():
    rng = np.random.default_rng(1)
    phi, g, w = rng.normal(size=(9, 3)), rng.normal(size=9), rng.random(9)
    wanted = np.linalg.solve(phi.T @ (w[:, None] * phi), phi.T @ (w * g))
    np.testing.assert_allclose(least_squares_values(phi, g, w), wanted)


def test_no_iterations_give_the_start():
    np.testing.assert_array_equal(fitted_q_iterates(**GOOD | {"iterations": 0}), [[1.0]])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features", [1.0, 2.0]), ("features", [[0.0], [0.0]]), ("features", [[np.nan], [1.0]]), ("next_features", [[2.0], [2.0]]),
        ("next_features", [[[np.inf]], [[2.0]]]), ("rewards", [0.0]), ("rewards", [np.nan, 0.0]), ("weights", [-1.0, 1.0]),
        ("weights", [1.0]), ("gamma", 1.1), ("start", [1.0, 2.0]), ("iterations", -1), ("iterations", 10**4),
    ],
)  # fmt: skip
def test_doors(name, value):
    with pytest.raises(ValueError, match=name):
        fitted_q_iterates(**GOOD | {name: value})


def test_doors_of_least_squares():
    with pytest.raises(ValueError, match="returns"):
        least_squares_values([[1.0], [2.0]], [np.nan, 0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="returns"):
        least_squares_values([[1.0], [2.0]], [0.0], [1.0, 1.0])
