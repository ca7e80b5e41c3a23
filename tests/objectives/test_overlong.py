"""Overlong filters: by hand, invariance to what was cut, torch, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.objectives.advantages import group_std
from klsim.objectives.overlong import filtered_advantages

R = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
GROUP = np.array([0, 0, 0, 1, 1, 1])
DONE = np.array([True, True, False, True, False, False])


def test_by_hand():
    np.testing.assert_allclose(filtered_advantages(R, GROUP, DONE), [0.5, -0.5, 0, 0, 0, 0])  # one finished alone: 0
    np.testing.assert_allclose(
        filtered_advantages(R, GROUP, DONE, mask="loss"), [2 / 3, -1 / 3, 0, 1 / 3, 0, 0], atol=1e-15
    )
    np.testing.assert_allclose(filtered_advantages(R, GROUP, DONE, scale=group_std), [1, -1, 0, 0, 0, 0])


def test_what_was_cut_does_not_count():
    other = np.where(DONE, R, 7.0)
    np.testing.assert_array_equal(filtered_advantages(R, GROUP, DONE), filtered_advantages(other, GROUP, DONE))
    assert not np.array_equal(
        filtered_advantages(R, GROUP, DONE, mask="loss"), filtered_advantages(other, GROUP, DONE, mask="loss")
    )
    assert not filtered_advantages(R, GROUP, np.zeros(6, dtype=bool)).any()


def test_torch():
    torch = pytest.importorskip("torch")
    found = filtered_advantages(torch.tensor(R), torch.tensor(GROUP), torch.tensor(DONE))
    np.testing.assert_allclose(found.numpy(), filtered_advantages(R, GROUP, DONE))


def test_refuses():
    with pytest.raises(ValueError, match="mask"):
        filtered_advantages(R, GROUP, DONE, mask="none")
    with pytest.raises(TypeError, match="finished"):
        filtered_advantages(R, GROUP, DONE.astype(float))
    with pytest.raises(ValueError, match="finished"):
        filtered_advantages(R, GROUP, DONE[:3])
    with pytest.raises(ValueError, match="rewards"):
        filtered_advantages(np.full(6, np.nan), GROUP, DONE)
    with pytest.raises(TypeError, match="scale"):
        filtered_advantages(R, GROUP, DONE, scale="std")
