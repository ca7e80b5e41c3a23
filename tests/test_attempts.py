"""max@k: its slope and its regularised optimum, at extremes, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.attempts import max_at_k_slope, regularized_max_at_k
from klsim.best_of_n import expected_reward
from klsim.distributions import log_normalize, tilt

RNG = np.random.default_rng(0)
LOG_REF, REWARD = log_normalize(2 * RNG.standard_normal(7)), np.round(RNG.standard_normal(7), 1)


@pytest.mark.parametrize("k", [1, 2, 7, 1000])
def test_slope_by_differences(k):
    move = np.exp(LOG_REF) * RNG.standard_normal(7)
    move -= np.exp(LOG_REF) * move.sum()
    values = [expected_reward(np.log(np.exp(LOG_REF) + step * move), REWARD, k) for step in (1e-5, -1e-5)]
    np.testing.assert_allclose(
        (values[0] - values[1]) / 2e-5, max_at_k_slope(LOG_REF, REWARD, k) @ move, rtol=1e-5, atol=1e-8
    )


def test_slope_outside_the_support():
    log_p = np.array([np.log(0.5), np.log(0.5), -np.inf])
    # the new outcome between the two: E max(1, max of one other in {0, 3}) = (1 + 3)/2
    np.testing.assert_allclose(max_at_k_slope(log_p, [0.0, 3.0, 1.0], 2), 2 * np.array([1.5, 3.0, 2.0]))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("beta", [1e-12, 1e-6, 0.1, 10.0, 1e12])
@pytest.mark.parametrize("k", [1, 3, 50])
def test_the_gap_is_at_rounding_at_extremes(k, beta, scale):
    found = regularized_max_at_k(LOG_REF, scale * REWARD, k, scale * beta)
    assert found.converged
    assert found.gap <= 1e-12 * scale * (1 + beta)
    np.testing.assert_allclose(np.exp(found.log_policy).sum(), 1, rtol=1e-12)


def test_no_support_ties_one_level_one_action():
    log_ref = log_normalize(np.where(np.arange(7) == 2, -np.inf, LOG_REF))
    assert regularized_max_at_k(log_ref, REWARD, 4, 0.1).log_policy[2] == -np.inf
    np.testing.assert_allclose(regularized_max_at_k(LOG_REF, np.ones(7), 4, 0.1).log_policy, LOG_REF, atol=1e-15)
    assert regularized_max_at_k([0.0], [3.0], 4, 0.1).value == 3.0
    np.testing.assert_allclose(
        regularized_max_at_k(LOG_REF, REWARD, 1, 0.3).log_policy, tilt(LOG_REF, REWARD, 0.3), atol=1e-14
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((LOG_REF, REWARD, 0, 1.0), "k = 0: must be >= 1"),
        ((LOG_REF, REWARD, -3, 1.0), "k = -3"),
        ((LOG_REF, REWARD, 2, 0.0), "beta = 0.0: must lie in"),
        ((LOG_REF, REWARD, 2, np.nan), "beta"),
        ((LOG_REF + 1, REWARD, 2, 1.0), "log_ref"),
        ((LOG_REF, REWARD[:3], 2, 1.0), "reward"),
        ((LOG_REF, np.full(7, np.inf), 2, 1.0), "reward"),
        ((LOG_REF[None], REWARD, 2, 1.0), "reward: must be a vector"),
        ((LOG_REF, 1e300 * REWARD, 2, 1e-300), "beta = 1e-300: is too small"),
    ],
)
def test_bad_input(arguments, words):
    with pytest.raises(ValueError, match=words):
        regularized_max_at_k(*arguments)
