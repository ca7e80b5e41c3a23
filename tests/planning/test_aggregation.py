"""State aggregation: by hand, exact where labels are states, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from klsim.planning.aggregation import aggregated_mdp, label_means
from klsim.problems import DiscountedMDP

ROWS = np.array([[[0.0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]])
LINE = DiscountedMDP(ROWS, np.array([[0.0], [1.0], [4.0]]), 0.5, [1.0, 0, 0])
RHO = [0.2, 0.6, 0.2]


def test_by_hand():
    """States 0 and 1 look alike: from there one leaves with probability 3/4, for a reward of 3/4."""
    seen = aggregated_mdp(LINE, [0, 0, 1], RHO)
    np.testing.assert_allclose(seen.transition[:, 0], [[0.25, 0.75], [0, 1]])
    np.testing.assert_allclose(seen.reward[:, 0], [0.75, 4.0])
    assert seen.initial.tolist() == [1.0, 0.0]
    np.testing.assert_allclose(label_means([[1.0, 5.0, 2.0]], [0, 0, 1], RHO), [[4.0, 4.0, 2.0]])


def test_labels_that_are_states():
    seen = aggregated_mdp(LINE, [2, 0, 1], RHO)
    np.testing.assert_allclose(seen.transition[2, 0], [1, 0, 0])
    assert label_means([1.0, 2.0, 3.0], [2, 0, 1], RHO).tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: label_means([1.0, 2.0], [0, 0, 1], RHO), "values: must be"),
        (lambda: label_means([1.0, 2.0, math.nan], [0, 0, 1], RHO), "values"),
        (lambda: label_means([1.0, 2.0, 3.0], [0, 0, 2], RHO), "labels: must use every label"),
        (lambda: label_means([1.0, 2.0, 3.0], [0, 0, -1], RHO), "labels"),
        (lambda: label_means([1.0, 2.0, 3.0], [[0, 0, 1]], RHO), "labels: must be"),
        (lambda: label_means([1.0, 2.0, 3.0], [0, 0, 1], [0.5, 0.5, 0.0]), "rho.*> 0"),
        (lambda: label_means([1.0, 2.0, 3.0], [0, 0, 1], [RHO]), "rho: must be"),
        (lambda: aggregated_mdp(LINE, [0, 0], [0.5, 0.5]), "labels: must be"),
        (lambda: aggregated_mdp(DiscountedMDP(np.repeat(ROWS, 2, axis=1), np.zeros((3, 2)), 0.5, [1.0, 0, 0],
                                              np.array([[True, False], [True, True], [True, True]])), [0, 0, 1], RHO), "legal"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_not_a_problem():
    with pytest.raises(TypeError, match="problem"):
        aggregated_mdp(ROWS, [0, 0, 1], RHO)
