"""Classes of deterministic policies: what they hold, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.problems.policy_classes import all_policies, check_policies, l_tons, open_loop_policies


def test_all_policies_are_all_of_them():
    found = all_policies(2, 2, 3)
    assert found.shape == (81, 2, 2)
    assert len(np.unique(found.reshape(81, 4), axis=0)) == 81
    assert found.min() == 0
    assert found.max() == 2


def test_open_loop_policies_ignore_the_state():
    found = open_loop_policies(3, 4, 2)
    assert found.shape == (8, 3, 4)
    assert np.all(found == found[..., :1])
    assert len(np.unique(found[..., 0], axis=0)) == 8


def test_l_tons_by_hand():
    assert l_tons(2, 3).tolist() == [[[1, 0, 0]] * 2, [[0, 1, 0]] * 2, [[0, 0, 1]] * 2]
    assert l_tons(1, 3, 2)[:, 0].tolist() == [[1, 1, 0], [1, 0, 1], [0, 1, 1]]
    assert l_tons(2, 3, 0).tolist() == [[[0, 0, 0]] * 2]
    assert l_tons(1, 3, 3).tolist() == [[[1, 1, 1]]]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: l_tons(2, 3, 4), ValueError, "ones = 4: must be <= 3"),
        (lambda: l_tons(0, 3), ValueError, "horizon = 0: must be >= 1"),
        (lambda: l_tons(2, 200, 100), ValueError, "ones = 100: would need"),
        (lambda: all_policies(10, 10, 2), ValueError, "states = 100: would need"),
        (lambda: all_policies(1, 0, 2), ValueError, "states = 0: must be >= 1"),
        (lambda: open_loop_policies(2, 0, 2), ValueError, "states = 0: must be >= 1"),
        (lambda: check_policies([[0, 1]]), ValueError, r"policies: must have shape \(N, H, S\)"),
        (lambda: check_policies(np.zeros((0, 2, 2), dtype=int)), ValueError, "none of them 0"),
        (lambda: check_policies([[[0, 2]]], actions=2), ValueError, r"policies\[0, 0, 1\] = 2: must be <= 1"),
        (lambda: check_policies([[[0, -1]]]), ValueError, "must be >= 0"),
        (lambda: check_policies([[[0.5, 1.0]]]), TypeError, "policies: must be a NumPy array or sequence of integers"),
        (
            lambda: check_policies([[[0, 1]]], shape=(2, 2), name="core"),
            ValueError,
            r"core: must have shape \(N, 2, 2\)",
        ),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()
