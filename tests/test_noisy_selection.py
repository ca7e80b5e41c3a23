"""Choosing by estimates: exact laws against enumeration and SciPy, bounds at extremes, and what the doors refuse."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from klsim import noisy_selection as ns

ANY = st.one_of(st.sampled_from([0.0, 1.0, 1e-9]), st.floats(0.01, 0.99))
RATES = st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), min_size=1, max_size=3).map(np.array)


@settings(max_examples=30)
@given(RATES, st.integers(1, 3))
def test_selection_against_enumeration(p, n):
    law, score = np.zeros(len(p)), 0.0
    for counts in itertools.product(range(n + 1), repeat=len(p)):
        chance = np.prod(binom.pmf(counts, n, p))
        law[np.argmax(counts)] += chance
        score += chance * max(counts) / n
    found = ns.selection(p, n)
    np.testing.assert_allclose(found.law, law, atol=1e-12)
    assert float(found.score) == pytest.approx(score, abs=1e-12)
    assert float(found.regret) == pytest.approx(p.max() - law @ p, abs=1e-12)
    assert float(found.optimism) == pytest.approx(score - law @ p, abs=1e-12)


def test_selection_of_batches_and_at_extremes():
    found = ns.selection(np.full((2, 3, 64), 0.5), 512)
    np.testing.assert_allclose(found.law.sum(axis=-1), 1.0, rtol=1e-12)
    assert np.all(found.score > 0.5)
    np.testing.assert_allclose(found.regret, 0.0, atol=1e-12)
    assert ns.selection([0.0, 1.0], 5).law.tolist() == [0.0, 1.0]


@settings(max_examples=40)
@given(RATES, st.integers(1, 40), st.floats(0, 1))
def test_deviations_against_scipy(p, n, distance):
    counts = np.arange(n + 1)
    inside = [binom.pmf(counts, n, q) @ (np.abs(counts / n - q) <= distance + 1e-11) for q in p]
    assert float(ns.deviation_probability(p, n, distance)) == pytest.approx(1 - np.prod(inside), abs=1e-9)


def test_the_bound_is_hoeffdings():
    assert ns.deviation_bound(1, 50, 0.05) == pytest.approx(np.sqrt(np.log(40) / 100))
    assert ns.deviation_probability(np.full(64, 0.5), 32, ns.deviation_bound(64, 32, 0.05)) <= 0.05


@settings(max_examples=40)
@given(ANY, ANY, st.integers(1, 12), st.sampled_from([0.0, 1 / 32, 0.25, 2.0]))
def test_decisions_against_a_double_sum(p, q, n, tolerance):
    first, second = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    said = first >= second - n * tolerance - 1e-9
    wrong = binom.pmf(first, n, p) * binom.pmf(second, n, q) * (said != (p >= q - tolerance - 1e-12))
    assert float(ns.decision_error(p, q, n, tolerance)) == pytest.approx(wrong.sum(), abs=1e-10)


@pytest.mark.parametrize("tolerance", [1.0, 1e20, np.inf])
def test_everything_passes_a_tolerance_of_one(tolerance):
    assert ns.decision_error([0.0, 0.5, 1.0], 1.0, 8, tolerance) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ns.selection([], 3), "success: must have shape"),
        (lambda: ns.selection([1.5], 3), "success\\[0\\] = 1.5: must lie in"),
        (lambda: ns.selection([0.5], 0), "rollouts = 0: must be >= 1"),
        (lambda: ns.selection(np.full(1000, 0.5), 10**9), "rollouts = 1000000000: would need"),
        (lambda: ns.deviation_bound(0, 3, 0.1), "options = 0"),
        (lambda: ns.deviation_bound(2, 3, 0.0), "failure = 0.0"),
        (lambda: ns.deviation_probability([0.5], 3, -0.1), "distance = -0.1"),
        (lambda: ns.decision_error(0.5, 2.0, 3), "second = 2.0"),
        (lambda: ns.decision_error(0.5, 0.5, 3, -1.0), "tolerance = -1.0"),
        (lambda: ns.decision_error([0.1, 0.2], [0.1, 0.2, 0.3], 3), "broadcast"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
