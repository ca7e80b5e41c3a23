"""Selection rules for rewards with a density: closed forms, discretised laws, extremes, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from klsim import continuous, selection_rules
from klsim import continuous_selection as rules
from klsim.divergences import kl
from klsim.optima import f_regularized

NORMAL, EXPONENTIAL = stats.norm(), stats.expon()


@pytest.mark.parametrize("n", [1.0, 2.0, 7.5, 1e6, 1e60])
def test_best_and_worst(n):
    found = rules.best_of_n(NORMAL, n)
    assert found.kl == pytest.approx(np.log(n) - (n - 1) / n, rel=1e-11, abs=1e-13)
    assert found.win_rate == pytest.approx(n / (n + 1), rel=1e-12)
    assert found.reward == pytest.approx(continuous.best_of_n_reward(NORMAL, n), rel=1e-12, abs=1e-13)
    worst = rules.worst_of_n(EXPONENTIAL, n)
    assert worst.reward == pytest.approx(1 / n, rel=1e-9)
    assert worst.win_rate == pytest.approx(1 / (n + 1), rel=1e-9)


def grid(law, size=4000):
    """Equal masses at mid-quantiles."""
    return np.full(size, -np.log(size)), law.ppf((np.arange(size) + 0.5) / size)


def test_soft_against_a_fine_discrete_law():
    log_p, reward = grid(stats.uniform(), 400)
    law = selection_rules.soft_best_of_n(log_p, reward, 5, 0.3)
    found = rules.soft_best_of_n(stats.uniform(), 5, 0.3)
    assert found.reward == pytest.approx(np.exp(law) @ reward, abs=1e-4)
    assert found.kl == pytest.approx(float(kl(law, log_p)), abs=1e-4)
    assert rules.soft_best_of_n(NORMAL, 1, 0.5).reward == pytest.approx(0.0, abs=1e-12)
    assert rules.soft_best_of_n(NORMAL, 4, 1e3).kl == pytest.approx(0.0, abs=1e-6)


def test_noise():
    assert rules.noisy_best_of_n(NORMAL, 8, stats.norm(scale=2.0), nodes=161).reward == pytest.approx(
        continuous.best_of_n_reward(NORMAL, 8) / np.sqrt(5), rel=1e-9
    )
    heavy = [rules.noisy_best_of_n(NORMAL, n, stats.t(2), nodes=81).reward for n in (10, 10**5)]
    assert heavy[1] < heavy[0]


def test_rejection_parts():
    found = rules.rejection(NORMAL, 3, 0.0)
    half = np.sqrt(2 / np.pi)  # E[R | R > 0]
    assert found.reward == pytest.approx((1 - 0.5**3) * half - 0.5**3 * half, rel=1e-11)
    assert found.win_rate == pytest.approx((1 - 0.5**3) * 0.75 + 0.5**3 * 0.25, rel=1e-11)
    for never in (-100.0, 100.0):
        assert rules.rejection(NORMAL, 3, never).kl == pytest.approx(0.0, abs=1e-12)
    far = rules.rejection(NORMAL, 1e9, 8.0)  # P = 6e-16: almost never reached in 1e9 draws
    assert far.kl == pytest.approx((1e9 * 6.22e-16) * (np.log(1e9)), rel=0.1)


def test_chi2_tilt_against_a_fine_discrete_law():
    for law, beta in ((NORMAL, 0.3), (stats.uniform(), 0.01), (EXPONENTIAL, 3.0)):
        log_p, reward = grid(law)
        found, near = rules.chi2_tilt(law, beta), f_regularized(log_p, reward, beta, "chi2")
        assert found.reward == pytest.approx(float(near.reward), rel=3e-3, abs=3e-3)
        assert found.kl == pytest.approx(float(near.kl), rel=3e-3, abs=3e-3)
    # a large beta: weights 1 + (r - E r)/(2 beta)
    assert rules.chi2_tilt(stats.uniform(), 1e6).reward == pytest.approx(0.5 + 1 / 24e6, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rules.best_of_n(NORMAL, 0.5), "n = 0.5"),
        (lambda: rules.best_of_n(3.0, 2), "law: must be a law"),
        (lambda: rules.rejection(NORMAL, 2, np.nan), "threshold"),
        (lambda: rules.chi2_tilt(NORMAL, 0.0), "beta = 0.0"),
        (lambda: rules.soft_best_of_n(NORMAL, 2, 0.0), "temperature = 0.0"),
        (lambda: rules.soft_best_of_n(NORMAL, 2, 1e-5), "temperature = 1e-05: is too small"),
        (lambda: rules.noisy_best_of_n(NORMAL, 2, 1.0), "noise: must be a law"),
        (lambda: rules.noisy_best_of_n(NORMAL, 2, NORMAL, nodes=5), "nodes = 5"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
