"""Length weights against enumeration and simulation of groups; truncation; bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from klsim.learning.length_weights import kept_weight, token_mean_expansion, token_mean_weights, truncation_push

LENGTHS, PROBS = np.array([1, 3, 7, 3]), np.array([0.4, 0.3, 0.1, 0.2])


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_weights_by_enumeration(size):
    found = np.zeros(4)
    for others in itertools.product(range(4), repeat=size - 1):
        found += np.prod(PROBS[list(others)]) * size / (LENGTHS + LENGTHS[list(others)].sum())
    np.testing.assert_allclose(token_mean_weights(LENGTHS, PROBS, size), found, rtol=1e-13)


def test_weights_known():
    np.testing.assert_allclose(token_mean_weights(LENGTHS, PROBS, 1), 1 / LENGTHS)
    np.testing.assert_allclose(token_mean_weights([5, 5], [0.5, 0.5], 9), [0.2, 0.2])  # equal lengths
    errors = [
        np.abs(token_mean_weights(LENGTHS, PROBS, g) - token_mean_expansion(LENGTHS, PROBS, g)).max()
        for g in (100, 200)
    ]
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.05)


def test_weights_refuse():
    for lengths, probs, size, match in (
        ([0, 1], [0.5, 0.5], 2, "lengths"), ([1, 2], [0.5, 0.6], 2, "probs"), ([1], [0.5, 0.5], 2, "lengths"),
        ([1, 2], [0.5, 0.5], 0, "group_size"), ([10**6, 1], [0.5, 0.5], 10**6, "group_size"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            token_mean_weights(lengths, probs, size)
    with pytest.raises(ValueError, match="group_size"):
        token_mean_expansion([1, 2], [0.5, 0.5], 0)


def test_kept_weight():
    for f in (0.0, 1e-9, 0.3, 1.0):
        for k in (1, 2, 6):
            law = [np.prod([1.0] + [f if x else 1 - f for x in done]) for done in itertools.product((0, 1), repeat=k)]
            kept = [max(sum(done) - 1, 0) / k for done in itertools.product((0, 1), repeat=k)]
            assert kept_weight(f, k) == pytest.approx(np.dot(law, kept), rel=1e-7, abs=1e-17)
    assert kept_weight([0.5, 0.8], 10**6) == pytest.approx([0.5, 0.8], abs=2e-6)
    with pytest.raises(ValueError, match="finished"):
        kept_weight(1.1, 2)
    with pytest.raises(ValueError, match="group_size"):
        kept_weight(0.5, 0)


def test_truncation_push():
    assert truncation_push(0.6, 0.8) == pytest.approx(0.6)
    assert truncation_push(0.6, 0.8, mask="loss") == pytest.approx(0.12)
    assert truncation_push(0.6, 0.8, mask="loss", group_size=4) == pytest.approx(0.09)
    np.testing.assert_array_equal(truncation_push([0.6, 0.1], 0.8, mask="loss and baseline"), [0.0, 0.0])
    with pytest.raises(ValueError, match="mask"):
        truncation_push(0.6, 0.8, mask="both")
    with pytest.raises(ValueError, match="success"):
        truncation_push(1.6, 0.8)
    with pytest.raises(ValueError, match="finished"):
        truncation_push(0.6, -0.8)
    with pytest.raises(ValueError, match="group_size"):
        truncation_push(0.6, 0.8, group_size=1)
