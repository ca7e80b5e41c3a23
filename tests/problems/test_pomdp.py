"""A POMDP says what is wrong with its arrays, and carries the problem of one who sees the states."""

import numpy as np
import pytest

from klsim.problems import POMDP, TabularMDP

MOVES = np.full((2, 2, 2), 0.5)
SIGNS = np.array([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]])
START = np.array([1.0, 0.0])


def test_stationary_arrays_are_repeated():
    problem = POMDP(MOVES, SIGNS, np.ones((2, 2)), START, 3)
    assert problem.transition.shape == (3, 2, 2, 2)
    assert problem.emission.shape == (3, 2, 3)
    assert problem.reward.shape == (3, 2, 2)
    assert problem.sizes == (3, 2, 2, 3)


def test_counts_histories():
    problem = POMDP(MOVES, SIGNS, np.ones((2, 2)), START, 3)
    assert [problem.histories(t) for t in range(3)] == [3, 18, 108]
    with pytest.raises(ValueError, match="step = 3: must be <= 2"):
        problem.histories(3)


def test_refuses_more_histories_than_fit():
    problem = POMDP(MOVES, SIGNS, np.ones((2, 2)), START, 40)
    with pytest.raises(ValueError, match=r"step = 39: would need .* GiB"):
        problem.histories(39)


def test_latent_problem_is_the_fully_observed_one():
    problem = POMDP(MOVES, SIGNS, np.ones((2, 2)), START, 3)
    assert isinstance(problem.latent, TabularMDP)
    assert np.array_equal(problem.latent.transition, problem.transition)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": np.full((2, 2, 2), 0.6)}, "transition.*must sum to 1"),
        ({"emission": SIGNS + 0.1}, "emission.*must sum to 1"),
        ({"emission": SIGNS[0]}, r"emission: must have shape \(H, S, O\) = \(3, 2, O\) or \(2, O\), got \(3,\)"),
        ({"emission": np.ones((3, 1, 1))}, r"emission: must have shape"),
        ({"reward": np.ones((2, 3))}, r"must be \(H, S, A, S\) beside reward"),
        ({"reward": np.full((2, 2), np.nan)}, "reward"),
        ({"initial": np.ones(2)}, "initial.*must sum to 1"),
        ({"horizon": 0}, "horizon"),
    ],
)
def test_bad_arrays_are_named(change, message):
    arguments = {"transition": MOVES, "emission": SIGNS, "reward": np.ones((2, 2)), "initial": START, "horizon": 3}
    with pytest.raises(ValueError, match=message):
        POMDP(**(arguments | change))
