"""Success rates, optima and filters: exact arithmetic, enumeration, extremes, and bad input."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.distributions import tilt
from klsim.divergences import kl
from klsim.learning import difficulty
from klsim.objectives.off_policy import keep_by_success

RATES = (1e-300, 1e-12, 1e-3, 0.3, 0.5, 0.9, 1 - 1e-9, 1 - 1e-16)
BETAS = (1e-4, 1e-2, 0.1, 1.0, 3.0, 1e6, 1e12)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("p", RATES)
def test_against_400_digits(p, beta):
    with mpmath.workdps(400):
        q, x = mpmath.mpf(p), 1 / mpmath.mpf(beta)
        log_z = mpmath.log(1 - q + q * mpmath.exp(x))
        best = q * mpmath.exp(x - log_z)
        exact = {
            difficulty.kl_to_optimum: log_z - x * q,
            difficulty.kl_of_optimum: x * best - log_z,
            difficulty.improvement: best - q,
            difficulty.tilted_success: best,
        }
    for function, value in exact.items():
        assert float(function(p, beta)) == pytest.approx(float(value), rel=1e-13, abs=1e-307), function.__name__


def test_certain_prompts_do_not_move():
    for function in (difficulty.kl_to_optimum, difficulty.kl_of_optimum, difficulty.improvement):
        np.testing.assert_array_equal(function([0.0, 1.0], 1e-3), [0.0, 0.0])
    np.testing.assert_array_equal(difficulty.tilted_success([0.0, 1.0], 1e-300), [0.0, 1.0])


def test_a_bandit_by_hand():
    log_ref, reward = np.log([0.25, 0.75]), np.array([1.0, 0.0])
    beta = 1 / math.log(3)  # the tilt makes 3/6 against 3/6
    assert float(difficulty.tilted_success(0.25, beta)) == pytest.approx(0.5)
    assert float(difficulty.improvement(0.25, beta)) == pytest.approx(0.25)
    assert float(difficulty.kl_to_optimum(0.25, beta)) == pytest.approx(float(kl(log_ref, tilt(log_ref, reward, beta))))


@pytest.mark.parametrize("beta", [*BETAS, 5.1, 5.5, 6.0, 8.0, 20.0])  # from 5 on by a series in 1/beta
def test_largest_rates_against_high_precision(beta):
    with mpmath.workdps(60):
        x = 1 / mpmath.mpf(beta)
        moved, gained = 1 / x - 1 / mpmath.expm1(x), 1 / (1 + mpmath.exp(x / 2))
    assert float(difficulty.success_of_largest_kl(beta)) == pytest.approx(float(moved), rel=1e-14)
    assert float(difficulty.success_of_largest_improvement(beta)) == pytest.approx(float(gained), rel=1e-12, abs=1e-300)


@given(st.floats(0, 1), st.floats(0.01, 100))
def test_bounds_hold_the_kl(p, beta):
    lower, upper = difficulty.variance_bounds(p * (1 - p), beta)
    value = difficulty.kl_to_optimum(p, beta)
    assert lower <= value * (1 + 1e-12)
    assert value <= upper * (1 + 1e-12)


@given(st.integers(2, 24), st.floats(0, 1), st.floats(0, 1))
def test_kept_counts_are_those_of_the_loss(size, one, two):
    low, high = sorted((one, two))
    rewards = (np.arange(size) < np.arange(size + 1)[:, None]).astype(float)
    group = np.repeat(np.arange(size + 1), size)
    kept = keep_by_success(rewards.ravel(), group, low=low, high=high).reshape(rewards.shape)[:, 0]
    np.testing.assert_array_equal(difficulty.kept_counts(size, low, high), kept)


def test_signals_by_hand():
    """G = 2, p = 1/2: one success in half of the groups."""
    assert float(difficulty.group_signal(0.5, 2)) == pytest.approx(0.25)
    assert float(difficulty.group_signal(0.5, 2, std=False)) == pytest.approx(0.125)
    assert float(difficulty.keep_probability(0.5, 2, 0.5, 0.5)) == pytest.approx(0.5)
    assert float(difficulty.group_signal(5e-324, 7)) >= 0  # no overflow below the smallest normal number


def test_a_pool_by_hand():
    pool = difficulty.filter_pool([0.5, 1.0], 2, 0.5, 0.5, weights=[0.5, 0.5])
    assert pool.keep == pytest.approx(0.25)
    np.testing.assert_allclose(pool.weights, [1.0, 0.0])
    assert pool.signal == pytest.approx(0.5)
    assert pool.expected_prompts(3) == pytest.approx(12)
    assert pool.signal_per_rollout == pytest.approx(0.25 * 0.5 / 2)


def test_a_band_without_a_rate_never_fills():
    pool = difficulty.filter_pool([0.5], 5, 0.45, 0.55)
    assert (pool.keep, pool.signal, pool.expected_prompts(1)) == (0.0, 0.0, math.inf)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: difficulty.kl_to_optimum(1.5, 1.0), r"success = 1.5: must lie in \[0, 1\]"),
        (lambda: difficulty.improvement(0.5, 0.0), "beta = 0.0: must be finite and > 0"),
        (lambda: difficulty.variance_bounds(0.3, 1.0), r"variance = 0.3: must lie in \[0, 1/4\]"),
        (lambda: difficulty.kept_counts(0), "group_size = 0"),
        (lambda: difficulty.kept_counts(4, 0.7, 0.3), "high = 0.3"),
        (lambda: difficulty.filter_pool([], 4), r"success: must have shape \(X,\)"),
        (lambda: difficulty.filter_pool([0.5], 4, weights=[0.4]), "weights = 0.4: must be 1 probabilities"),
        (lambda: difficulty.filter_pool([0.5], 4).expected_prompts(0), "batch = 0"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
