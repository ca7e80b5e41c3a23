"""Lengths by branch: laws by hand, scores, the drift against enumeration of small groups, its signs, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.learning import branch_lengths as bl


def test_law_by_hand():
    np.testing.assert_allclose(bl.capped_geometric(0.5, 3), [0.5, 0.25, 0.25])
    np.testing.assert_allclose(bl.capped_geometric([0.5, 0.8], 1), [[1.0], [1.0]])
    assert bl.mean_length(0.5, 3) == pytest.approx(1.75)
    assert bl.mean_length(0.9, 60) == pytest.approx(9.98, abs=5e-3)


@given(st.floats(0.01, 0.99), st.integers(1, 80))
def test_law_and_score(q, cap):
    law, lengths = bl.capped_geometric(q, cap), np.arange(1, cap + 1)
    score = bl.continue_score(lengths, q, cap)
    assert law.sum() == pytest.approx(1.0)
    assert law @ lengths == pytest.approx(float(bl.mean_length(q, cap)))
    assert law @ score == pytest.approx(0.0, abs=1e-12)
    assert np.all(np.diff(score) > 0)
    h = 1e-6
    up, down = (bl.capped_geometric(1 / (1 + (1 - q) / q * np.exp(-s)), cap) for s in (h, -h))
    np.testing.assert_allclose(law * score, (up - down) / (2 * h), atol=1e-7)


def enumerated(p, q, cap, n, base, scaled, denominator):
    """All groups, response by response."""
    laws = [bl.capped_geometric(x, cap) for x in q]
    total = np.zeros(3)
    for c, x in itertools.product(itertools.product((0, 1), repeat=n), itertools.product(range(1, cap + 1), repeat=n)):
        c, x = np.array(c), np.array(x)
        if c.std() == 0:
            continue
        chance = np.prod([(p if ci else 1 - p) * laws[1 - ci][xi - 1] for ci, xi in zip(c, x)])
        excess = np.maximum(1 - base ** -(x - x[c == 1].mean()), 0.0)
        m = 1 + np.where((c == 0) | (scaled == "all"), excess, 0.0)
        a = m * (c - c.mean()) / c.std(ddof=1) / (denominator or np.sum(x + 1))
        score = np.where(c == 1, bl.continue_score(x, q[0], cap), bl.continue_score(x, q[1], cap))
        total += chance * np.array([a @ (c - p), (a * score) @ c, (a * score) @ (1 - c)])
    return total


@pytest.mark.parametrize(
    ("base", "scaled", "denominator"), [(1.0, "wrong", None), (1.3, "all", None), (1.3, "wrong", 7.0)]
)
def test_drift_by_enumeration(base, scaled, denominator):
    found = bl.length_drift(
        0.3, 0.6, 0.7, cap=3, group_size=3, base=None if base == 1 else base, scaled=scaled, denominator=denominator
    )
    np.testing.assert_allclose(found, enumerated(0.3, (0.6, 0.7), 3, 3, base, scaled, denominator), atol=1e-14)


def test_base_of_one_is_none():
    plain, one = (bl.length_drift(0.4, 0.8, 0.9, cap=20, group_size=4, base=b) for b in (None, 1.0))
    np.testing.assert_allclose(plain, one, rtol=1e-12)


@given(st.floats(0.05, 0.95), st.floats(0.2, 0.95), st.floats(0.2, 0.95), st.integers(2, 6))
def test_signs(p, right, wrong, n):
    mean = bl.length_drift(p, right, wrong, cap=20, group_size=n)
    assert mean.right < 0 < mean.wrong
    assert mean.success > 0
    half, nine = (bl.length_drift(p, right, wrong, cap=20, group_size=n, denominator=d) for d in (0.5, 9.0))
    np.testing.assert_allclose(half, 18.0 * np.asarray(nine), rtol=1e-12, atol=1e-14)
    constant = bl.length_drift(p, right, wrong, cap=20, group_size=n, denominator=9.0, base=1.5)
    assert abs(constant.right) < 1e-14
    assert constant.wrong < 0


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"success": 1.0}, "success"),
        ({"right": 0.0}, "right"),
        ({"wrong": float("nan")}, "wrong"),
        ({"cap": 0}, "cap"),
        ({"group_size": 1}, "group_size"),
        ({"base": 0.5}, "base"),
        ({"base": float("inf")}, "base"),
        ({"scaled": "right"}, "scaled"),
        ({"denominator": 0.0}, "denominator"),
        ({"cap": 9000, "group_size": 8}, "cap"),
    ],
)
def test_bad_input(change, name):
    good = {"success": 0.5, "right": 0.5, "wrong": 0.5, "cap": 5, "group_size": 3}
    with pytest.raises(ValueError, match=name):
        bl.length_drift(**(good | change))


def test_bad_lengths():
    with pytest.raises(ValueError, match="lengths"):
        bl.continue_score([0, 1], 0.5, 3)
