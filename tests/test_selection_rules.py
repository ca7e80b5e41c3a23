"""Laws of what is chosen among n draws: against enumeration, at extremes, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from mpmath import mp
from scipy import stats

from klsim.best_of_n import log_policy
from klsim.distributions import tilt
from klsim.estimator_moments import draws, estimator_moments, policy_gradient
from klsim.selection_rules import majority_vote, noisy_best_of_n, rejection, soft_best_of_n, weighted_choice

LOG_P, REWARD = np.log([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 0.4])


def test_soft_best_of_n_at_fifty_digits():
    mp.dps = 50
    p, w = [mp.mpf(x) for x in ("0.5", "0.3", "0.2")], [mp.exp(mp.mpf(r) / mp.mpf("0.25")) for r in (0, 1, "0.4")]
    law = [mp.mpf(0)] * 3
    for a in range(3):
        for b in range(3):
            for y in (a, b):
                law[y] += p[a] * p[b] * w[y] / (w[a] + w[b])
    np.testing.assert_allclose(np.exp(soft_best_of_n(LOG_P, REWARD, 2, 0.25)), [float(x) for x in law], rtol=1e-12)


def test_soft_best_of_n_at_its_ends():
    np.testing.assert_allclose(soft_best_of_n(LOG_P, REWARD, 1, 0.1), LOG_P, atol=1e-12)
    np.testing.assert_allclose(soft_best_of_n(LOG_P, REWARD, 9, 1e9), LOG_P, atol=1e-7)
    np.testing.assert_allclose(
        np.exp(soft_best_of_n(LOG_P, REWARD, 9, 1e-3)), np.exp(log_policy(LOG_P, REWARD, 9)), atol=1e-12
    )
    np.testing.assert_allclose(soft_best_of_n(LOG_P, REWARD, 10**9, 0.5), tilt(LOG_P, REWARD, 0.5), atol=1e-7)
    assert soft_best_of_n([0.0, -np.inf], [0.0, 1.0], 5, 1.0).tolist() == [0.0, -np.inf]


def test_majority_vote():
    np.testing.assert_allclose(majority_vote(LOG_P, 1), np.exp(LOG_P), rtol=1e-14)
    outcomes, probability = draws(LOG_P, 5)
    count = (outcomes[:, :, None] == np.arange(3)).sum(axis=1)
    wins = (count == count.max(axis=1, keepdims=True)) * 1.0
    np.testing.assert_allclose(
        majority_vote(LOG_P, 5), probability @ (wins / wins.sum(axis=1, keepdims=True)), rtol=1e-13
    )
    for n in (101, 400):  # two answers: a binomial tail, and half of a tie
        tail = stats.binom.sf(n // 2, n, 0.6) + (stats.binom.pmf(n // 2, n, 0.6) / 2 if n % 2 == 0 else 0)
        np.testing.assert_allclose(majority_vote(np.log([0.6, 0.4]), n)[0], tail, rtol=1e-11)
    assert majority_vote([0.0, -np.inf], 7).tolist() == [1.0, 0.0]


def test_majority_vote_of_many():
    """Beyond 400 by sums on the circle: the same numbers as by polynomials, a binomial tail, small and tied answers."""
    from klsim._votes import votes_on_the_circle

    for p in ([0.5, 0.3, 0.2], [0.34, 0.33, 0.33], [0.49, 0.49, 0.02], [0.7, 0.3 - 1e-9, 1e-9], [0.25] * 4):
        np.testing.assert_allclose(votes_on_the_circle(np.array(p), 397), majority_vote(np.log(p), 397), atol=1e-12)
    for n in (401, 5000):
        tail = stats.binom.sf(n // 2, n, 0.505) + (stats.binom.pmf(n // 2, n, 0.505) / 2 if n % 2 == 0 else 0)
        np.testing.assert_allclose(majority_vote(np.log([0.505, 0.495]), n)[0], tail, atol=1e-11)
    np.testing.assert_allclose(majority_vote(np.log([0.4, 0.4, 0.2]), 2001), [0.5, 0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(majority_vote([0.0, -np.inf], 5000), [1.0, 0.0], atol=1e-14)


def test_weighted_choice():
    weight = np.array([1.0, 4.0, 0.0])
    outcomes, probability = draws(LOG_P, 3)
    share = weight[outcomes] / np.maximum(weight[outcomes].sum(axis=1, keepdims=True), 1e-300)
    share[~(weight[outcomes] > 0).any(axis=1)] = 1 / 3
    law = [probability @ (share * (outcomes == a)).sum(axis=1) for a in range(3)]
    with np.errstate(divide="ignore"):
        log_w = np.log(weight)
    np.testing.assert_allclose(np.exp(weighted_choice(LOG_P, log_w, 3)), law, rtol=1e-12)
    np.testing.assert_allclose(weighted_choice(LOG_P, np.full(3, -np.inf), 3), LOG_P, atol=1e-15)
    np.testing.assert_allclose(
        weighted_choice(LOG_P, REWARD / 0.3, 5), soft_best_of_n(LOG_P, REWARD, 5, 0.3), atol=1e-13
    )
    assert weighted_choice([0.0, -np.inf], [0.0, 5.0], 3).tolist() == [0.0, -np.inf]


def test_noisy_best_of_n():
    quiet = stats.norm(scale=1e-6)
    np.testing.assert_allclose(
        np.exp(noisy_best_of_n(LOG_P, REWARD, 5, quiet)), np.exp(log_policy(LOG_P, REWARD, 5)), atol=1e-9
    )
    np.testing.assert_allclose(noisy_best_of_n(LOG_P, REWARD, 1, stats.cauchy()), LOG_P, atol=1e-12)
    # two draws: the chance that a difference of two normals is positive
    law = np.exp(noisy_best_of_n(np.log([0.5, 0.5]), [0.0, 1.0], 2, stats.norm()))
    np.testing.assert_allclose(law[1], 0.25 + 0.5 * stats.norm.cdf(1 / np.sqrt(2)), rtol=1e-12)


def test_rejection():
    np.testing.assert_allclose(np.exp(rejection(LOG_P, REWARD, 3, 0.3)), [0.125, 0.875 * 0.6, 0.875 * 0.4])
    np.testing.assert_allclose(rejection(LOG_P, REWARD, 3, -1.0), LOG_P)
    np.testing.assert_allclose(rejection(LOG_P, REWARD, 3, 2.0), LOG_P)
    assert rejection([0.0, -np.inf], [0.0, 1.0], 2, 0.5).tolist() == [0.0, -np.inf]


def test_moments_of_a_mean():
    found = estimator_moments(lambda y: REWARD[y].mean(axis=1), LOG_P, 4)
    mean = np.exp(LOG_P) @ REWARD
    np.testing.assert_allclose(found.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(found.variance, np.exp(LOG_P) @ (REWARD - mean) ** 2 / 4, rtol=1e-12)
    again = estimator_moments(lambda y: REWARD[y].mean(axis=1), LOG_P, 4, ordered=False)
    np.testing.assert_allclose([again.mean, again.variance], [found.mean, found.variance], rtol=1e-12)


def test_moments_of_a_gradient():
    found = estimator_moments(policy_gradient(LOG_P, lambda y: REWARD[y]), LOG_P, 3)
    p = np.exp(LOG_P)
    np.testing.assert_allclose(found.mean, p * (REWARD - p @ REWARD), atol=1e-14)
    assert found.covariance.shape == (3, 3)
    np.testing.assert_allclose(found.covariance @ np.ones(3), 0, atol=1e-14)  # scores add up to 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: soft_best_of_n(LOG_P, REWARD, 3, 0.0), "temperature = 0.0: must lie in"),
        (lambda: soft_best_of_n(LOG_P, REWARD, 3, 1e-9), "temperature = 1e-09: is too small"),
        (lambda: soft_best_of_n(LOG_P, REWARD[:2], 3, 1.0), "reward: must have the shape"),
        (lambda: soft_best_of_n(LOG_P, REWARD * np.nan, 3, 1.0), "reward"),
        (lambda: soft_best_of_n(LOG_P + 1, REWARD, 3, 1.0), "log_p"),
        (lambda: soft_best_of_n(LOG_P[None], REWARD, 3, 1.0), "log_p: must be one law"),
        (lambda: majority_vote(LOG_P, 0), "n = 0: must be >= 1"),
        (lambda: majority_vote(LOG_P, 100_001), "n = 100001: must be at most 100,000"),
        (lambda: weighted_choice(LOG_P, [0.0, np.inf, 0.0], 2), r"log_weight\[1\] = inf: must be < inf"),
        (lambda: weighted_choice(LOG_P, [0.0, np.nan, 0.0], 2), r"log_weight\[1\] = nan"),
        (lambda: weighted_choice(LOG_P, REWARD[:2], 2), "log_weight: must have the shape"),
        (lambda: weighted_choice(LOG_P, REWARD * 1e5, 2), "log_weight: spans more than"),
        (lambda: majority_vote(np.full(65, -np.log(65)), 3), "at most 64 answers"),
        (lambda: noisy_best_of_n(LOG_P, REWARD, 2, stats.norm(), nodes=7), "nodes = 7: must be >= 101"),
        (lambda: rejection(LOG_P, REWARD, 2, np.nan), "threshold"),
        (lambda: noisy_best_of_n(LOG_P, REWARD, 2, 1.0), "noise: must be a law"),
        (lambda: draws(LOG_P, 30), "rows of draws"),
        (lambda: draws(LOG_P[None], 2), "log_p: must be one law"),
        (lambda: estimator_moments(lambda y: y[:1], LOG_P, 2), "one value for each of 9 samples"),
        (lambda: estimator_moments(lambda y: y * np.nan, LOG_P, 2), "estimator"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
