"""Finite data: counts, shares, and the chance that a fit is finite."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.preferences import Comparisons, bradley_terry_fit, finite_fit_probability, sample_wins

CYCLE = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])


def test_shares_of_wins():
    data = Comparisons(np.array([[0.0, 3, 0], [1, 0, 0], [0, 2, 0]]))
    np.testing.assert_allclose(data.preference, [[0.5, 0.75, 0.5], [0.25, 0.5, 0.0], [0.5, 1.0, 0.5]])
    np.testing.assert_allclose(data.weights, [[0, 4, 0], [4, 0, 2], [0, 2, 0]])


def test_samples_have_the_right_numbers_and_means():
    times = np.array([[0, 40_000, 10], [40_000, 0, 0], [10, 0, 0]])
    data = sample_wins(CYCLE, times, 0)
    assert np.array_equal(data.weights, times)
    assert abs(data.preference[0, 1] - 0.9) < 6 * np.sqrt(0.09 / 40_000)
    assert np.array_equal(sample_wins(CYCLE, 5, 3).wins, sample_wins(CYCLE, 5, 3).wins)


@pytest.mark.parametrize("m", [1, 2, 7, 10**6])
def test_two_responses_in_closed_form(m):
    p = 0.7
    found = finite_fit_probability([[0.5, p], [1 - p, 0.5]], m)
    assert found == pytest.approx(1 - p**m - (1 - p) ** m, abs=1e-15)


def test_of_samples_as_many_have_a_finite_fit():
    rng, finite, runs = np.random.default_rng(0), 0, 500
    for _ in range(runs):
        data = sample_wins(CYCLE, 2, rng)
        try:
            bradley_terry_fit(data.preference, data.weights)
            finite += 1
        except ValueError:
            pass
    chance = finite_fit_probability(CYCLE, 2)
    assert abs(finite / runs - chance) < 5 * np.sqrt(chance * (1 - chance) / runs)


def test_one_response_no_comparisons_and_certain_ones():
    assert finite_fit_probability([[0.5]], 3) == 1.0
    assert finite_fit_probability(CYCLE, 0) == 0.0
    assert finite_fit_probability([[0.5, 1.0], [0.0, 0.5]], 100) == 0.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Comparisons(np.eye(3)), "wins"),
        (lambda: Comparisons(-np.ones((2, 2))), "wins"),
        (lambda: sample_wins(CYCLE, 1.5, 0), "comparisons"),
        (lambda: sample_wins(CYCLE, -1, 0), "comparisons"),
        (lambda: finite_fit_probability(np.full((6, 6), 0.5), 1), "11 pairs"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
