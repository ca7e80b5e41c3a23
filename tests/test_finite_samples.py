"""Expectations over all data sets: against enumerated sequences, closed forms and simulation-free limits; bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from klsim.distributions import log_normalize, tilt
from klsim.divergences import kl
from klsim.estimator_moments import draws
from klsim.finite_samples import (
    Datasets,
    best_of_n_by_labels,
    bradley_terry_estimates,
    bradley_terry_information,
    comparison_datasets,
    dpo_regret,
    draw_datasets,
    empirical_best_arm,
    fast_rate,
    label_datasets,
    regularized_regret,
    tilt_regret,
)
from klsim.preferences import bradley_terry, bradley_terry_fit

LAW = np.log([0.5, 0.3, 0.2])


@pytest.mark.parametrize(("size", "n"), [(1, 4), (2, 7), (3, 5), (4, 3)])
def test_counts_of_draws_by_their_multisets(size, n):
    law = log_normalize(np.random.default_rng(size).standard_normal(size))
    data = draw_datasets(law, n)
    outcomes, probability = draws(law, n, ordered=False)
    counts = (outcomes[:, :, None] == np.arange(size)).sum(axis=1)
    expected = {tuple(c): p for c, p in zip(counts, probability)}
    assert len(expected) == len(data.counts)
    for c, p in zip(data.counts, data.probability):
        assert math.isclose(expected[tuple(c)], p, rel_tol=1e-12)


def test_counts_leave_out_what_has_no_probability():
    data = draw_datasets(np.array([-np.inf, math.log(0.25), math.log(0.75)]), 3)
    assert np.all(data.counts[:, 0] == 0)
    np.testing.assert_allclose(data.expect(data.counts), [0, 0.75, 2.25])


def test_many_draws():
    data = draw_datasets(np.log([0.3, 0.7]), 100_000)
    np.testing.assert_allclose(data.expect(data.counts / 1e5), [0.3, 0.7], rtol=1e-12)
    np.testing.assert_allclose(data.expect((data.counts[:, 0] / 1e5 - 0.3) ** 2), 0.21 / 1e5, rtol=1e-9)


def test_labels_are_independent_binomials():
    data = label_datasets([0.3, 0.9, 0.0], [2, 3, 1])
    assert data.counts.shape == (3 * 4 * 2, 3)
    for c, p in zip(data.counts, data.probability):
        assert math.isclose(p, np.prod(stats.binom.pmf(c, [2, 3, 1], [0.3, 0.9, 0.0])), abs_tol=1e-15)


def test_comparisons_are_a_binomial_for_every_pair():
    preference, table = bradley_terry([0.0, 1.0, -0.5]), np.array([[0, 2, 0], [2, 0, 1], [0, 1, 0]])
    data = comparison_datasets(preference, table)
    assert data.counts.shape == (6, 3, 3)
    np.testing.assert_array_equal(data.counts + data.counts.transpose(0, 2, 1), np.broadcast_to(table, (6, 3, 3)))
    np.testing.assert_allclose(data.expect(data.counts), table * preference, atol=1e-15)
    assert len(comparison_datasets(preference, 0).counts) == 1


def test_an_impossible_data_set_may_have_an_infinite_value():
    data = label_datasets([1.0], 1)
    assert data.expect(np.array([np.inf, 2.0])) == 2.0


def test_regret_is_a_divergence_from_the_optimum():
    policy, reward, beta = np.log([0.2, 0.5, 0.3]), np.array([1.0, -0.5, 0.3]), 0.7

    def value(law):
        return np.exp(law) @ reward - beta * kl(law, LAW)

    expected = value(tilt(LAW, reward, beta)) - value(policy)
    assert math.isclose(regularized_regret(policy, LAW, reward, beta), expected, rel_tol=1e-12)


@pytest.mark.parametrize(("success", "trials"), [([0.3, 0.5, 0.6], 3), ([0.2, 0.9], [4, 7]), ([0.0, 0.5, 1.0, 0.5], 2)])
def test_the_empirical_best_by_enumeration(success, trials):
    data = label_datasets(success, trials)
    mean = data.counts / np.broadcast_to(trials, len(success))
    best = mean == mean.max(axis=1, keepdims=True)
    expected = data.expect(best / best.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(empirical_best_arm(success, trials), expected, atol=1e-14)


def test_many_arms_and_many_trials():
    found = empirical_best_arm(np.full(12, 0.4), 1000)
    np.testing.assert_allclose(found, 1 / 12, rtol=1e-12)
    assert empirical_best_arm([0.5, 0.6], 100_000)[1] == pytest.approx(1.0)


def test_the_tilt_by_empirical_means():
    success, beta = np.array([0.3, 0.6]), 0.5
    log_ref, total = np.log([0.4, 0.6]), 0.0
    for labels in itertools.product((0, 1), repeat=4):  # two of each, in order
        p = math.prod(success[i // 2] if y else 1 - success[i // 2] for i, y in enumerate(labels))
        mean = np.reshape(labels, (2, 2)).mean(axis=1)
        total += p * beta * kl(tilt(log_ref, mean, beta), tilt(log_ref, success, beta))
    assert math.isclose(tilt_regret(log_ref, success, 2, beta), total, rel_tol=1e-12)


def test_best_of_many_draws_by_labels_takes_the_empirical_best():
    success = np.array([0.2, 0.5, 0.7])
    taken = best_of_n_by_labels(LAW, success, 3, 1e9)
    # ties are broken by which of the best comes first among the draws: in proportion to the reference
    data = label_datasets(success, 3)
    best = (data.counts == data.counts.max(axis=1, keepdims=True)) * np.exp(LAW)
    assert math.isclose(taken, data.expect(best / best.sum(axis=1, keepdims=True)) @ success, rel_tol=1e-9)
    assert math.isclose(best_of_n_by_labels(LAW, success, 3, 1), np.exp(LAW) @ success, rel_tol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_many_fits_at_once_are_the_fits_of_each(size):
    rng = np.random.default_rng(size)
    upper = np.triu(rng.integers(0, 6, (7, size, size)), 1)
    wins = upper + np.tril(np.triu(rng.integers(0, 6, (7, size, size)), 1).transpose(0, 2, 1), -1)
    for found, won in zip(bradley_terry_estimates(wins, 0.5), wins):
        total = won + won.T + 1.0 - np.eye(size)
        share = np.where(np.eye(size), 0.5, (won + 0.5) / (total + np.eye(size)))
        np.testing.assert_allclose(found, bradley_terry_fit(share, total), atol=1e-9)


def test_lopsided_fits():
    wins = np.zeros((1, 3, 3))
    wins[0, 0, 1:], wins[0, 1, 2] = 1e6, 1e6
    fit = bradley_terry_estimates(wins, 1e-3)[0]
    total = wins[0] + wins[0].T + 2e-3
    np.testing.assert_allclose(
        np.sum((total * expit(fit[:, None] - fit) - wins[0] - 1e-3) * (1 - np.eye(3)), axis=1) / 1e6, 0, atol=1e-12
    )
    assert fit[0] > fit[1] > fit[2]


def test_two_responses_without_a_prior():
    wins = np.array([[[0, 3], [1, 0]], [[0, 4], [0, 0]], [[0, 0], [0, 0]]])
    fits = bradley_terry_estimates(wins, 0.0)
    np.testing.assert_allclose(fits[0], np.array([0.5, -0.5]) * math.log(3))
    np.testing.assert_array_equal(fits[1:], [[0.0, -np.inf], [0.0, 0.0]])


def test_dpo_from_comparisons_of_two_responses():
    """Sums over wins, with certain fits where one response won all."""
    log_ref, reward, beta, n = np.log([0.7, 0.3]), np.array([0.0, 1.0]), 0.5, 3
    optimum, chance = tilt(log_ref, reward, beta), expit(1.0)
    total = 0.0
    for k in range(n + 1):  # the second won k
        odds = np.log([0.7, 0.3]) + np.array(
            [0.0, np.inf if k == n else -np.inf if k == 0 else math.log(k / (n - k)) / beta]
        )
        policy = [0.0, -np.inf] if k == 0 else [-np.inf, 0.0] if k == n else log_normalize(odds)
        total += stats.binom.pmf(k, n, chance) * beta * kl(np.array(policy), optimum)
    assert math.isclose(dpo_regret(log_ref, reward, n, beta), total, rel_tol=1e-12)
    assert math.isclose(dpo_regret(log_ref, reward, 0, beta), regularized_regret(log_ref, log_ref, reward, beta))


def test_a_response_outside_the_reference_stays_outside():
    assert dpo_regret([0.0, -np.inf], [0.0, 1.0], 2, 0.5) == 0.0


def test_the_limit_of_the_regret():
    success = np.array([0.4, 0.6])
    limit = fast_rate(tilt(np.log([0.5, 0.5]), success, 1.0), success * (1 - success), 1.0)
    assert math.isclose(500 * tilt_regret(np.log([0.5, 0.5]), success, 500, 1.0), limit, rel_tol=2e-3)
    dense = np.array([[2.0, 0.5], [0.5, 1.0]])
    p = 0.3
    assert math.isclose(fast_rate(np.log([p, 1 - p]), dense, 0.5), p * (1 - p) * (2.0 + 1.0 - 1.0))


def test_information_is_the_curvature_of_the_likelihood():
    reward, table, h = np.array([0.3, -0.2, 0.5]), np.array([[0, 2, 1], [2, 0, 5], [1, 5, 0]]), 1e-4
    preference = bradley_terry(reward)

    def likelihood(r):
        return np.sum(
            np.triu(table, 1) * (preference * np.log(bradley_terry(r)) + preference.T * np.log(bradley_terry(-r)))
        )

    unit = np.eye(3) * h
    curvature = [
        [
            (
                likelihood(reward + a + b)
                - likelihood(reward + a - b)
                - likelihood(reward - a + b)
                + likelihood(reward - a - b)
            )
            / (4 * h * h)
            for b in unit
        ]
        for a in unit
    ]
    np.testing.assert_allclose(bradley_terry_information(reward, table), -np.array(curvature), atol=1e-6)


def test_comparisons_of_draws_inform_by_the_covariance_of_their_law():
    mu = np.exp(LAW)
    found = bradley_terry_information(np.zeros(3), 2 * np.outer(mu, mu))
    np.testing.assert_allclose(found, (np.diag(mu) - np.outer(mu, mu)) / 2, atol=1e-16)
    wide = bradley_terry_information([0.0, 50.0])
    np.testing.assert_allclose(wide, math.exp(-50.0) * np.array([[1, -1], [-1, 1]]), rtol=1e-12)


@pytest.mark.parametrize("beta", [1e-12, 1e12])
def test_extreme_penalties(beta):
    assert 0 <= tilt_regret(LAW, [0.3, 0.5, 0.7], 4, beta) < 1.0
    assert 0 <= dpo_regret(np.log([0.5, 0.5]), [0.0, 1.0], 4, beta, prior=0.5) < 2.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_datasets(LAW, 0), "n = 0"),
        (lambda: draw_datasets(np.full(10, -math.log(10)), 50), "n = 50: gives 12,565,671,261 data sets"),
        (lambda: label_datasets([0.5, 1.2], 3), r"success"),
        (lambda: label_datasets([0.5, 0.2], [3, 0]), r"trials"),
        (lambda: label_datasets([0.5, 0.2], [3, 1, 2]), r"trials: must be one number or 2"),
        (lambda: label_datasets(np.full(9, 0.5), 9), "trials: gives 1,000,000,000 data sets"),
        (lambda: comparison_datasets([[0.5, 0.6], [0.6, 0.5]], 1), "preference"),
        (lambda: comparison_datasets(bradley_terry([0.0, 1.0]), [[0, 1], [2, 0]]), "comparisons: must be symmetric"),
        (lambda: bradley_terry_estimates(np.ones((1, 3, 3)), 0.0), "prior = 0.0: must be > 0"),
        (lambda: bradley_terry_estimates(np.ones((3, 3))), "wins: must have shape"),
        (lambda: bradley_terry_estimates(-np.ones((1, 2, 2))), "wins"),
        (lambda: tilt_regret(LAW, [0.5, 0.5], 2, 1.0), "log_ref: must have the shape of success"),
        (lambda: tilt_regret(LAW, [0.5, 0.5, 0.5], 2, 0.0), "beta"),
        (lambda: dpo_regret(LAW, [0.0, 1.0], 2, 1.0), "log_ref: must have the shape of reward"),
        (lambda: bradley_terry_information([0.0, 1.0], [[0, 1], [2, 0]]), "weights: must be symmetric"),
        (lambda: bradley_terry_information([0.0, 1.0], -1.0), "weights = -1.0"),
        (lambda: fast_rate(LAW, np.ones(2), 1.0), "covariance: must have shape"),
        (lambda: Datasets(np.ones((2, 1)), np.full(2, 0.5)).expect([1.0]), "values: needs one for each of 2"),
        (lambda: Datasets(np.ones((2, 1)), np.full(2, 0.5)).expect([1.0, np.nan]), r"values\[1\]"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
