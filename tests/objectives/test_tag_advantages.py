"""Tag advantages: by hand, alone in a tag, torch, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.objectives.tag_advantages import grpo_mr_advantages, tag_advantages


def test_by_hand():
    found = tag_advantages([1.0, 0.0, 5.0, 5.0, 2.0, 0.0, 0.0], [0, 0, 1, 1, 2, 7, 0])
    np.testing.assert_allclose(found, [np.sqrt(2), -np.sqrt(0.5), 0, 0, 0, 0, -np.sqrt(0.5)])


def test_the_two_parts():
    outcome, group = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1])
    found = grpo_mr_advantages(outcome, group, [3.0, 1.0, 1.0], [4, 4, 4], [1, 0, 3], alpha=0.25)
    np.testing.assert_allclose(found, 0.25 * np.array([-1, 1, 0]) + 0.75 * np.array([2, -1, -1]) / np.sqrt(2))


def test_epsilon_is_added_to_both_deviations():
    found = grpo_mr_advantages([1.0, 0.0], [0, 0], [1.0, 0.0], [0, 0], [0, 1], epsilon=0.5)
    np.testing.assert_allclose(found, [0.5, -0.5])


def test_large_and_tiny_rewards():
    for size in (1e-200, 1e200):
        np.testing.assert_allclose(tag_advantages(size * np.array([1.0, 0.0]), [0, 0]), [1, -1])


def test_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    given = rng.random(8), np.repeat([0, 1], 4), rng.random(30), rng.integers(0, 4, 30), rng.integers(0, 8, 30)
    found = grpo_mr_advantages(*map(torch.as_tensor, given))
    np.testing.assert_allclose(found.numpy(), grpo_mr_advantages(*given), atol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.5}, "alpha"),
        ({"trajectory": [0, 2]}, r"trajectory\[1\]"),
        ({"trajectory": [0]}, "trajectory: must have shape"),
        ({"group": [0, 1]}, "alone in its group"),
        ({"rewards": [np.nan, 0.0]}, r"rewards\[0\]"),
        ({"tag": [0]}, "tag: must have shape"),
    ],
)
def test_bad_input(change, message):
    good = {"outcome": [1.0, 0.0], "group": [0, 0], "rewards": [1.0, 0.0], "tag": [0, 0], "trajectory": [0, 1]}
    with pytest.raises(ValueError, match=message):
        grpo_mr_advantages(**(good | change))
